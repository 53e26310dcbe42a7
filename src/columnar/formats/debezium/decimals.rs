//! The decimals of rows in JSON, which Debezium writes in several ways.
//!
//! By default (`decimal.handling.mode=precise`) a decimal is the two's complement of the unscaled
//! number, as base64; or a struct of such bytes and their scale if the column has no fixed scale.
//! With other settings it is a number, or a string of digits. A string may be either: the `schema` of
//! the event tells, or the format, or the string itself, if it can only be one of them.
//!
//! Such columns are first read as the JSON text of their values ([`texts`]), and then converted to
//! decimals.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Decimal256Array, FixedSizeListArray,
    GenericListArray, MapArray, OffsetSizeTrait, StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Fields, i256};
use arrow::error::ArrowError;
use serde_json::Value;

use super::connect::{Form, Forms};
use crate::columnar::formats::json::{JSON_TEXT, base64, number};

/// How decimals written as strings are read if no schema tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DecimalStrings {
    /// As the only form that they can be; strings that can be both are errors.
    #[default]
    Either,
    /// As the base64 of bytes.
    Precise,
    /// As digits.
    Digits,
}

/// Whether a type contains decimals.
pub(super) fn any_decimal(data_type: &DataType) -> bool {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => any_decimal(item.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| any_decimal(field.data_type())),
        other => other.is_decimal(),
    }
}

/// The field with JSON text in place of its decimals.
pub(super) fn texts(field: &FieldRef) -> FieldRef {
    if !any_decimal(field.data_type()) {
        return Arc::clone(field);
    }
    let data_type = match field.data_type() {
        DataType::List(item) => DataType::List(texts(item)),
        DataType::LargeList(item) => DataType::LargeList(texts(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(texts(item), *size),
        DataType::Map(entries, sorted) => DataType::Map(texts(entries), *sorted),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(texts).collect()),
        _ => DataType::Utf8View,
    };
    let is_text = data_type == DataType::Utf8View;
    let mut made = Field::clone(field).with_data_type(data_type);
    if is_text {
        made.metadata_mut().insert(JSON_TEXT.to_owned(), String::new());
    }
    Arc::new(made)
}

/// Converts the decimals of one column of a row.
pub(super) struct Maker<'a> {
    pub(super) strings: DecimalStrings,
    /// What the schema of each row's event says; nothing if there is none.
    pub(super) forms: &'a [Option<Arc<Forms>>],
    /// The rows with invalid values, and why.
    pub(super) bad: Vec<(usize, String)>,
}

impl Maker<'_> {
    /// Converts a column of texts to this type; `rows` has the row of each value.
    pub(super) fn make(
        &mut self,
        array: &ArrayRef,
        wanted: &DataType,
        path: &str,
        rows: &[usize],
    ) -> Result<ArrayRef, ArrowError> {
        if !any_decimal(wanted) {
            return Ok(Arc::clone(array));
        }
        Ok(match (wanted, array.data_type()) {
            (DataType::Struct(fields), DataType::Struct(_)) => {
                self.members(array.as_struct(), fields, path, rows).map(Arc::new)?
            }
            (DataType::List(item), DataType::List(_)) => {
                self.list(array.as_list::<i32>(), item, path, rows)?
            }
            (DataType::LargeList(item), DataType::LargeList(_)) => {
                self.list(array.as_list::<i64>(), item, path, rows)?
            }
            (DataType::FixedSizeList(item, size), DataType::FixedSizeList(..)) => {
                let list = array.as_fixed_size_list();
                let each = usize::try_from(*size).unwrap_or(0);
                let owners: Vec<usize> =
                    rows.iter().flat_map(|row| std::iter::repeat_n(*row, each)).collect();
                let items =
                    self.make(list.values(), item.data_type(), &format!("{path}[]"), &owners)?;
                let nulls = list.nulls().cloned();
                Arc::new(FixedSizeListArray::try_new(Arc::clone(item), *size, items, nulls)?)
            }
            (DataType::Map(entries, sorted), DataType::Map(..)) => {
                let DataType::Struct(parts) = entries.data_type() else {
                    return Ok(Arc::clone(array));
                };
                let map = array.as_map();
                let owners = owners(map.offsets(), rows);
                let pairs = self.members(map.entries(), parts, &format!("{path}{{}}"), &owners)?;
                let (offsets, nulls) = (map.offsets().clone(), map.nulls().cloned());
                let entries = Arc::clone(entries);
                Arc::new(MapArray::try_new(entries, offsets, pairs, nulls, *sorted)?)
            }
            _ => self.decimals(array, wanted, path, rows)?,
        })
    }

    fn list<Size: OffsetSizeTrait>(
        &mut self,
        list: &GenericListArray<Size>,
        item: &FieldRef,
        path: &str,
        rows: &[usize],
    ) -> Result<ArrayRef, ArrowError> {
        let owners = owners(list.offsets(), rows);
        let items = self.make(list.values(), item.data_type(), &format!("{path}[]"), &owners)?;
        let (offsets, nulls) = (list.offsets().clone(), list.nulls().cloned());
        Ok(Arc::new(GenericListArray::try_new(Arc::clone(item), offsets, items, nulls)?))
    }

    fn members(
        &mut self,
        array: &StructArray,
        fields: &Fields,
        path: &str,
        rows: &[usize],
    ) -> Result<StructArray, ArrowError> {
        let is_map = path.ends_with("{}");
        let mut columns = Vec::with_capacity(fields.len());
        for (field, column) in fields.iter().zip(array.columns()) {
            let path = match (path, is_map) {
                ("", _) => field.name().clone(),
                (path, true) => path.to_owned(),
                (path, false) => format!("{path}.{}", field.name()),
            };
            columns.push(self.make(column, field.data_type(), &path, rows)?);
        }
        let nulls = array.nulls().cloned();
        StructArray::try_new_with_length(fields.clone(), columns, nulls, array.len())
    }

    fn decimals(
        &mut self,
        array: &ArrayRef,
        wanted: &DataType,
        path: &str,
        rows: &[usize],
    ) -> Result<ArrayRef, ArrowError> {
        let (precision, scale) = match wanted {
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale) => (*precision, *scale),
            _ => return Ok(Arc::clone(array)),
        };
        let mut digits = Vec::with_capacity(array.len());
        for (text, &row) in array.as_string_view().iter().zip(rows) {
            let Some(text) = text else {
                digits.push(None);
                continue;
            };
            let form = self.forms.get(row).and_then(Option::as_ref);
            let form = form.and_then(|forms| forms.get(path)).copied();
            let made = self.text(text, form, scale).and_then(|text| {
                let made = number::decimal256(&text, precision, scale);
                made.ok_or_else(|| {
                    format!("decimal({precision}, {scale}) cannot hold every digit of {text}")
                })
            });
            match made {
                Ok(value) => digits.push(Some(value)),
                Err(detail) => {
                    digits.push(None);
                    self.bad.push((row, format!("column {path:?}: {detail}")));
                }
            }
        }
        if precision > DECIMAL128_MAX_PRECISION {
            let wide = digits.into_iter().collect::<Decimal256Array>();
            return Ok(Arc::new(wide.with_precision_and_scale(precision, scale)?));
        }
        let narrow = digits.into_iter().map(|value| value.and_then(i256::to_i128));
        let narrow = narrow.collect::<Decimal128Array>();
        let narrow: ArrayRef = Arc::new(narrow.with_precision_and_scale(precision, scale)?);
        cast(&narrow, wanted)
    }

    /// The number of a JSON text.
    fn text(&self, text: &str, form: Option<Form>, scale: i8) -> Result<String, String> {
        if let Some(string) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
            return match (form, self.strings) {
                (Some(Form::Bytes(scale)), _) => of_base64(string, scale),
                (Some(Form::Shown), _) | (None, DecimalStrings::Digits) => Ok(string.to_owned()),
                (None, DecimalStrings::Precise) => of_base64(string, scale),
                (None, DecimalStrings::Either) => either(string, scale),
            };
        }
        if text.starts_with('{') {
            return with_scale(text).ok_or_else(|| format!("{} is not a decimal", shown(text)));
        }
        Ok(text.to_owned())
    }
}

/// The rows of the items of lists.
fn owners<Size: OffsetSizeTrait>(offsets: &[Size], rows: &[usize]) -> Vec<usize> {
    let sizes = offsets.windows(2).map(|pair| match pair {
        [start, end] => end.as_usize().saturating_sub(start.as_usize()),
        _ => 0,
    });
    let before = offsets.first().map_or(0, |first| first.as_usize());
    let owned = sizes.zip(rows).flat_map(|(size, row)| std::iter::repeat_n(*row, size));
    std::iter::repeat_n(usize::MAX, before).chain(owned).collect()
}

fn shown(text: &str) -> String {
    const SHOWN_MAX: usize = 60;
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    format!("{shown:?}{more}")
}

fn bytes_of(string: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    base64::decode(string, &mut bytes)?;
    (!bytes.is_empty() && string.len().is_multiple_of(4)).then_some(bytes)
}

fn of_base64(string: &str, scale: i8) -> Result<String, String> {
    let made = bytes_of(string).and_then(|bytes| unscaled(&bytes));
    made.map(|number| format!("{number}e{}", i16::from(scale).wrapping_neg()))
        .ok_or_else(|| format!("{} is not the base64 of a decimal", shown(string)))
}

/// The number in two's complement, most significant byte first.
fn unscaled(bytes: &[u8]) -> Option<i256> {
    let filler = if bytes.first().is_some_and(|first| *first >= 0x80) { 0xff } else { 0 };
    let mut wide = [filler; 32];
    let kept = bytes.iter().rev().zip(wide.iter_mut().rev());
    kept.for_each(|(byte, slot)| *slot = *byte);
    (bytes.len() <= wide.len()).then(|| i256::from_be_bytes(wide))
}

fn either(string: &str, scale: i8) -> Result<String, String> {
    let is_digits =
        number::scaled(string, 0).is_some() || string.parse::<f64>().is_ok_and(f64::is_finite);
    match (is_digits, bytes_of(string).is_some()) {
        (true, true) => Err(format!(
            "{string:?} may be digits, or base64 of decimal.handling.mode=precise; say which: \
             debezium(decimals=\"string\") or \"precise\""
        )),
        (true, false) => Ok(string.to_owned()),
        (false, _) => of_base64(string, scale),
    }
}

/// The number of a struct of a scale and of bytes.
fn with_scale(text: &str) -> Option<String> {
    let object: Value = serde_json::from_str(text).ok()?;
    let scale = object.get("scale")?.as_i64()?;
    let number = unscaled(&bytes_of(object.get("value")?.as_str()?)?)?;
    Some(format!("{number}e{}", scale.checked_neg()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(number: i128) -> String {
        let bytes = number.to_be_bytes();
        let filler = if number < 0 { 0xff } else { 0 };
        let is_needless = |pair: &[u8]| pair[0] == filler && (pair[1] ^ filler) < 0x80;
        let needless = bytes.windows(2).take_while(|pair| is_needless(pair)).count();
        let mut text = Vec::new();
        base64::encode(&bytes[needless..], &mut text);
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn a_string_that_can_be_two_numbers_is_none() {
        for (string, wanted) in [
            ("12.5", Some("12.5")),
            ("-1250", Some("-1250")),
            ("BOI=", Some("1250e-2")),
            ("1250", None),
        ] {
            assert_eq!(either(string, 2).ok().as_deref(), wanted, "{string}");
        }
        assert!(either("1250", 2).unwrap_err().contains("decimals="));
        for string in ["", "=", "abc", "12,5", "B OI"] {
            assert!(either(string, 2).is_err(), "{string}");
        }
    }

    #[test]
    fn a_struct_has_its_own_scale() {
        assert_eq!(with_scale(r#"{"scale":3,"value":"BOI="}"#).as_deref(), Some("1250e-3"));
        assert_eq!(with_scale(r#"{"scale":3}"#), None);
    }

    proptest! {
        #[test]
        fn numbers_come_back_from_their_bytes(number: i128, scale in 1_i8..38) {
            prop_assert_eq!(of_base64(&encoded(number), scale).unwrap(), format!("{number}e-{scale}"));
        }

        #[test]
        fn a_string_is_read_as_itself_or_refused(number: i128, scale in 1_i8..38) {
            if let Ok(text) = either(&encoded(number), scale) {
                prop_assert_eq!(text, format!("{number}e-{scale}"));
            }
        }
    }
}
