//! A Python mapping as a JSON object.
//!
//! JSON has no types, so the items of a list need none in common: integers stay integers beside
//! floats, and an object has the members that its mapping has. What is neither a list nor a mapping
//! is written as `write` does it, by the writer of columns.

use pyo3::prelude::*;
use pyo3::types::PyMapping;

use super::rows::{self, Kind, Path, Value};
use crate::columnar::{NonFinite, put_json, put_json_string};
use crate::error::Error;

/// The object of a mapping without the members in `exclude`.
pub(super) fn object(
    mapping: &Bound<'_, PyMapping>,
    exclude: &[String],
    non_finite: NonFinite,
) -> PyResult<Vec<u8>> {
    let mut members = rows::items(mapping, Path::ROOT)?;
    if let Some(name) = exclude.iter().find(|name| members.iter().all(|(one, _)| one != *name)) {
        return Err(Error::invalid(format!("there is no member {name:?} to exclude")).into());
    }
    members.retain(|(name, _)| !exclude.contains(name));
    let mut writer = Writer { output: Vec::new(), non_finite };
    writer.members(&members, Path::ROOT)?;
    Ok(writer.output)
}

struct Writer {
    output: Vec<u8>,
    non_finite: NonFinite,
}

impl Writer {
    fn members(&mut self, members: &[(String, Value<'_>)], path: Path<'_>) -> PyResult<()> {
        self.output.push(b'{');
        for (count, (name, value)) in members.iter().enumerate() {
            self.comma(count);
            put_json_string(&mut self.output, name);
            self.output.push(b':');
            path.inside(name, |path| self.value(value.as_ref(), path))?;
        }
        self.output.push(b'}');
        Ok(())
    }

    fn items(&mut self, list: &Bound<'_, PyAny>, path: Path<'_>) -> PyResult<()> {
        self.output.push(b'[');
        for (count, item) in list.try_iter()?.enumerate() {
            self.comma(count);
            path.inside("[]", |path| self.value(rows::plain(item?, path)?.as_ref(), path))?;
        }
        self.output.push(b']');
        Ok(())
    }

    fn comma(&mut self, count: usize) {
        if count > 0 {
            self.output.push(b',');
        }
    }

    fn value(&mut self, value: Option<&Bound<'_, PyAny>>, path: Path<'_>) -> PyResult<()> {
        let Some(value) = value else {
            self.output.extend_from_slice(b"null");
            return Ok(());
        };
        match rows::kind(value, path)? {
            Kind::List => self.items(value, path),
            Kind::Mapping => {
                let members = rows::items(value.cast::<PyMapping>()?, path)?;
                self.members(&members, path)
            }
            _ => {
                let column = rows::column(&[Some(value.clone())], None, &path)?;
                let field = rows::field_of("", &column);
                put_json(&field, &column, self.non_finite, &mut self.output)
                    .map_err(|detail| Error::invalid(path.says(detail)).into())
            }
        }
    }
}
