//! Rows from the bytes of a value, without a tape: see [`super::super::scan`] for the rules.

use std::collections::HashSet;

use super::super::scan::{self, Number};
use super::scalar::is_wide;
use super::{ColumnBuilder, Data, ObjectBuilder};

/// Below this, every number can be rounded to a 32-bit float.
const F32_SURE: f64 = 1e38;
/// As above, for float16.
const F16_SURE: f64 = 65_000.0;

/// Whether a member without a column is an error.
#[cold]
fn is_extra(others: Option<&(HashSet<String>, String)>, key: &[u8]) -> bool {
    let Some((known, _)) = others else { return false };
    !std::str::from_utf8(key).is_ok_and(|name| known.contains(name))
}

impl ObjectBuilder {
    /// Appends the object in `bytes`, if it is of the simple kind.
    ///
    /// None if it is not; then this row may have been appended in part (JF-2).
    #[inline]
    pub(in super::super) fn push_direct(&mut self, bytes: &[u8]) -> Option<()> {
        let row = self.rows;
        let mut at = 0;
        let mut filled = 0_usize;
        let mut place = 0_usize;
        loop {
            let (names, others) = (&self.names, &self.others);
            let lookup = |key: &[u8]| match names.iter().position(|name| name.as_bytes() == key) {
                None if is_extra(others.as_ref(), key) => None,
                found => Some(found),
            };
            let (index, value_at) = self.order.lead_in(bytes, at, place, lookup)?;
            place = place.wrapping_add(1);
            at = match index.and_then(|index| self.columns.get_mut(index)) {
                // A field that occurs twice, of which the last counts, is not a simple object.
                Some(column) if column.len() != row => return None,
                Some(column) => {
                    filled = filled.wrapping_add(1);
                    column.push_direct(bytes, value_at)?
                }
                None => scan::skip(bytes, value_at)?,
            };
            if bytes.get(at) != Some(&b',') {
                at = scan::blank(bytes, at);
                match bytes.get(at)? {
                    b'}' => break,
                    b',' => {}
                    _ => return None,
                }
            }
        }
        if scan::blank(bytes, at.wrapping_add(1)) != bytes.len() {
            return None;
        }
        self.fill_missing(filled).ok()?;
        self.order.end(place);
        self.rows = row.wrapping_add(1);
        Some(())
    }

    /// Makes room for rows that will follow.
    pub(in super::super) fn reserve(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.reserve(rows);
        }
    }
}

impl ColumnBuilder {
    /// Appends the value at `at`, if it is a simple one that fits, and returns the place after it.
    #[inline]
    pub(super) fn push_direct(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let first = *bytes.get(at)?;
        if first == b'n' {
            let behind = scan::literal(bytes, at, b"null")?;
            if !self.field.is_nullable() {
                return None;
            }
            self.push_null();
            return Some(behind);
        }
        let behind = match &mut self.data {
            Data::Text(texts) => {
                let start = scan::one(bytes, at, b'"')?;
                let end = scan::string_end(bytes, start)?;
                if !texts.push_utf8(bytes.get(start..)?, end.wrapping_sub(start)) {
                    return None;
                }
                end.wrapping_add(1)
            }
            Data::Time(times, values) if first == b'"' => {
                let (time, behind) = times.quoted(bytes, at)?;
                values.push(time);
                behind
            }
            Data::Bool(values) => {
                let (value, behind) = scan::boolean(bytes, at)?;
                values.push(value);
                behind
            }
            data => push_number(data, bytes, at)?,
        };
        self.count_valid();
        Some(behind)
    }

    fn reserve(&mut self, rows: usize) {
        match &mut self.data {
            Data::Bool(values) => values.reserve(rows),
            Data::I32(values) | Data::Date(values) => values.reserve(rows),
            Data::I64(values) | Data::Time(_, values) => values.reserve(rows),
            Data::F64(values) => values.reserve(rows),
            Data::Text(texts) => texts.reserve(rows),
            Data::Binary(ends, _) | Data::List(ends, _) => ends.reserve(rows),
            Data::Object(object) => object.reserve(rows),
            // Rarer types grow as needed.
            _ => {}
        }
        if self.any_null {
            self.valid.reserve(rows);
        }
    }
}

#[inline]
#[expect(clippy::cast_precision_loss, reason = "JSON has one number type; a float was asked for")]
fn push_number(data: &mut Data, bytes: &[u8], at: usize) -> Option<usize> {
    let (number, behind) = scan::number(bytes, at)?;
    match (data, number) {
        (Data::I64(values) | Data::Time(_, values), Number::Whole(value)) => values.push(value),
        (Data::I32(values) | Data::Date(values), Number::Whole(value)) => {
            values.push(value.try_into().ok()?);
        }
        (Data::F64(values), Number::Float(value)) => values.push(value),
        // What a float cannot hold is left to the general parser.
        (Data::F64(values), Number::Whole(value)) if !is_wide(value) => values.push(value as f64),
        (Data::F32(values), Number::Float(value)) if value.abs() < F32_SURE => {
            values.push(value as f32);
        }
        (Data::F16(values), Number::Float(value)) if value.abs() < F16_SURE => {
            values.push(value as f32);
        }
        (Data::F32(values), Number::Whole(value)) => values.push(value as f64 as f32),
        (Data::I8(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        (Data::I16(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        (Data::U8(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        (Data::U16(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        (Data::U32(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        (Data::U64(values), Number::Whole(value)) => values.push(value.try_into().ok()?),
        _ => return None,
    }
    Some(behind)
}
