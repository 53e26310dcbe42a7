//! What Python passes as plain tuples and dictionaries, as the engine's types.
//!
//! `python/ottla/_bounds.py` and `formats.py` have turned the user's words into these by then.

use std::collections::BTreeMap;

use arrow::datatypes::{Field, Fields, SchemaRef};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::{interop, types};
use crate::client::Bound;
use crate::client::admin::OffsetSpec;
use crate::columnar::{DecodeOptions, Decoder, OnError, ValueFormat, ValueSource};
use crate::error::{Error, Result};
use crate::types::{Offset, TimestampMs};

/// A place in a topic, as `_bounds.py` passes it.
#[derive(Clone, Debug)]
pub(super) struct Place(pub(super) Bound);

impl Place {
    /// The lookup, for places that are not offsets already.
    pub(super) fn spec(&self) -> Result<OffsetSpec> {
        match &self.0 {
            Bound::Earliest => Ok(OffsetSpec::Earliest),
            Bound::Latest => Ok(OffsetSpec::Latest),
            Bound::Timestamp(time) => Ok(OffsetSpec::Timestamp(*time)),
            other => Err(Error::invalid(format!("{other:?} needs no lookup"))),
        }
    }
}

impl<'py> FromPyObject<'_, 'py> for Place {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (word, detail) = object.extract::<(String, pyo3::Bound<'py, PyAny>)>()?;
        Ok(Self(match word.as_str() {
            "earliest" => Bound::Earliest,
            "latest" => Bound::Latest,
            "time" => Bound::Timestamp(TimestampMs(detail.extract()?)),
            "offsets" => {
                let offsets: BTreeMap<i32, i64> = detail.extract()?;
                Bound::Offsets(offsets.into_iter().map(|(one, at)| (one, Offset(at))).collect())
            }
            other => return Err(Error::invalid(format!("{other:?} is no place")).into()),
        }))
    }
}

/// An `ottla.formats.Format`.
#[derive(Clone, Debug)]
pub(super) struct Format {
    kind: String,
    column: String,
    fields: Option<Fields>,
    infer: usize,
    exclude: Vec<String>,
}

impl<'py> FromPyObject<'_, 'py> for Format {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let schema = object.getattr(intern!(py, "schema"))?;
        Ok(Self {
            kind: object.getattr(intern!(py, "kind"))?.extract()?,
            column: object.getattr(intern!(py, "column"))?.extract()?,
            fields: if schema.is_none() { None } else { Some(fields(&schema)?) },
            infer: object.getattr(intern!(py, "infer"))?.extract()?,
            exclude: object.getattr(intern!(py, "exclude"))?.extract()?,
        })
    }
}

/// The fields of a mapping of names to types, or of an object with a whole schema.
fn fields(schema: &pyo3::Bound<'_, PyAny>) -> PyResult<Fields> {
    let Ok(mapping) = schema.cast::<PyDict>() else {
        return Ok(interop::import_schema(schema)?.fields);
    };
    let mut fields = Vec::with_capacity(mapping.len());
    for (name, data_type) in mapping {
        let name: String = name.extract()?;
        let data_type = match data_type.extract::<String>() {
            Ok(text) => types::parse(&text)?,
            Err(_not_text) => interop::import_field(&data_type)?.data_type().clone(),
        };
        fields.push(Field::new(name, data_type, true));
    }
    Ok(fields.into())
}

impl Format {
    /// How values are read.
    fn reading(&self) -> Result<ValueFormat> {
        if !self.exclude.is_empty() {
            return Err(Error::invalid("exclude= is for writing; choose columns= of a scan"));
        }
        match self.kind.as_str() {
            "raw" | "text" if self.column != "value" => Err(Error::invalid(format!(
                "ottla.{}({:?}) names a column to write; that of a scan is called value",
                self.kind, self.column
            ))),
            "raw" => Ok(ValueFormat::Raw),
            "text" => Ok(ValueFormat::Text),
            "json" => Ok(ValueFormat::Json { fields: self.fields.clone(), infer: self.infer }),
            other => Err(Error::invalid(format!("there is no format {other:?}"))),
        }
    }

    /// How values are written.
    pub(super) fn writing(&self) -> Result<ValueSource> {
        if self.fields.is_some() {
            return Err(Error::invalid("a schema is for reading; a table has its own"));
        }
        match self.kind.as_str() {
            "raw" | "text" => Ok(ValueSource::Column(self.column.clone())),
            "json" => Ok(ValueSource::Json { exclude: self.exclude.clone() }),
            other => Err(Error::invalid(format!("there is no format {other:?}"))),
        }
    }
}

/// The topic of `on_error="dlq:TOPIC"`.
pub(super) fn dead_letter_topic(on_error: &str) -> Option<&str> {
    on_error.strip_prefix("dlq:")
}

/// How records become rows, from the keyword arguments of `scan` and `consumer`.
pub(super) fn decode_options(
    value: Option<&Format>,
    columns: Option<Vec<String>>,
    on_error: &str,
    max_rows: usize,
    views: bool,
) -> Result<DecodeOptions> {
    let on_error = match on_error {
        "raise" => OnError::Raise,
        "null" => OnError::Null,
        "column" => OnError::Column,
        other if dead_letter_topic(other).is_some() => OnError::SetAside,
        other => {
            return Err(Error::invalid(format!(
                "on_error={other:?}: use raise, null, column or dlq:TOPIC"
            )));
        }
    };
    if max_rows == 0 {
        return Err(Error::invalid("a batch has at least one row"));
    }
    Ok(DecodeOptions {
        columns,
        max_rows,
        value: value.map_or(Ok(ValueFormat::Raw), Format::reading)?,
        on_error,
        views,
        ..DecodeOptions::default()
    })
}

/// The columns of decoded rows; the fields of JSON values are known by then.
pub(super) fn schema(decode: &DecodeOptions) -> Result<SchemaRef> {
    let decoder = Decoder::new(decode.clone())?;
    decoder.schema().ok_or_else(|| Error::invalid("the fields of the values are not known yet"))
}
