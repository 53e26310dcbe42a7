//! Keys and headers of types that are neither text nor numbers, with exactly one text per value.
//!
//! | type                   | text                                                                 |
//! |------------------------|----------------------------------------------------------------------|
//! | bool                   | `true`                                                               |
//! | date                   | `2026-11-21`                                                         |
//! | timestamp              | `2026-11-21T09:30:00Z`, in UTC; without a zone it counts as UTC      |
//! | time                   | `09:30:00`                                                           |
//! | decimal                | `12.50`, all digits of its scale                                     |
//! | arrow.uuid             | `1b4e28ba-2fa1-11d2-883f-0016d3cca427`                               |
//!
//! Times have no fraction or one of 3, 6 or 9 digits, as many as they need, so that equal instants
//! have equal keys whatever the unit of the column is. Python's `send` writes the same.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Int64Type, TimeUnit};
use chrono::{DateTime, NaiveTime, SecondsFormat};

use super::cells;
use crate::error::{Error, Result};

/// The name of an extension type in the metadata of its field, and that of UUIDs.
const EXTENSION: &str = "ARROW:extension:name";
const UUID: &str = "arrow.uuid";

/// The values as text; none for types without a canonical text.
pub(in crate::columnar) fn as_text(field: &Field, array: &ArrayRef) -> Result<Option<ArrayRef>> {
    let name = field.name();
    let array = cells::plain(name, array)?;
    Ok(match array.data_type() {
        DataType::Boolean
        | DataType::Date32
        | DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Some(cells::cast(name, &array, &DataType::Utf8)?),
        DataType::Date64 => {
            let days = cells::cast(name, &array, &DataType::Date32)?;
            Some(cells::cast(name, &days, &DataType::Utf8)?)
        }
        DataType::Timestamp(unit, _) => Some(texts(name, &array, *unit, instant)?),
        DataType::Time32(unit) | DataType::Time64(unit) => {
            Some(texts(name, &array, *unit, time_of_day)?)
        }
        DataType::FixedSizeBinary(16) if is_uuid(field) => Some(uuids(&array)),
        _ => None,
    })
}

/// Whether a column holds UUIDs.
pub(in crate::columnar) fn is_uuid(field: &Field) -> bool {
    field.metadata().get(EXTENSION).is_some_and(|name| name == UUID)
}

/// Refuses an extension type whose storage means nothing without it, at any depth: the number of a
/// period counts from 1970 in a unit that only the type knows, and only the type knows which bounds
/// belong to an interval.
pub(in crate::columnar) fn refuse_storage(field: &Field) -> Result<()> {
    refuse_storage_in(field, field.name())
}

fn refuse_storage_in(field: &Field, column: &str) -> Result<()> {
    let refused = match field.metadata().get(EXTENSION).map(String::as_str) {
        Some("pandas.period") => Some(
            "periods of pandas, which would be written as bare integers: convert it with \
             .dt.to_timestamp() or .astype(str)",
        ),
        Some("pandas.interval") => Some(
            "intervals of pandas, which would be written without saying which of their bounds \
             belong to them: convert it with .astype(str), or write the bounds as columns",
        ),
        _ => None,
    };
    if let Some(detail) = refused {
        return Err(Error::invalid(format!("column {column:?} has {detail}")));
    }
    match field.data_type() {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => refuse_storage_in(item, column),
        DataType::RunEndEncoded(_, values) => refuse_storage_in(values, column),
        DataType::Struct(fields) => {
            fields.iter().try_for_each(|field| refuse_storage_in(field, column))
        }
        _ => Ok(()),
    }
}

/// The text of each time, from its seconds and nanoseconds.
fn texts(
    name: &str,
    array: &ArrayRef,
    unit: TimeUnit,
    text: fn(i64, u32) -> Option<String>,
) -> Result<ArrayRef> {
    let (rate, nanos) = match unit {
        TimeUnit::Second => (1, 1_000_000_000),
        TimeUnit::Millisecond => (1_000, 1_000_000),
        TimeUnit::Microsecond => (1_000_000, 1_000),
        TimeUnit::Nanosecond => (1_000_000_000, 1),
    };
    let numbers = match array.data_type() {
        DataType::Time32(_) => cells::cast(name, array, &DataType::Int32)?,
        _ => Arc::clone(array),
    };
    let numbers = cast(&numbers, &DataType::Int64)
        .map_err(|error| Error::invalid(format!("column {name:?}: {error}")))?;
    let one = |value: i64| {
        let fraction = u32::try_from(value.rem_euclid(rate).saturating_mul(nanos)).ok()?;
        text(value.div_euclid(rate), fraction)
    };
    let texts: StringArray = numbers
        .as_primitive::<Int64Type>()
        .iter()
        .enumerate()
        .map(|(row, value)| {
            let text = |value| one(value).ok_or_else(|| unreachable_time(name, row, value));
            value.map(text).transpose()
        })
        .collect::<Result<_>>()?;
    Ok(Arc::new(texts))
}

#[cold]
fn unreachable_time(name: &str, row: usize, value: i64) -> Error {
    let detail = format!("column {name:?}: {value} is a time beyond the range of the calendar");
    Error::Row { row, detail }
}

fn instant(seconds: i64, nanos: u32) -> Option<String> {
    let time = DateTime::from_timestamp(seconds, nanos)?;
    Some(time.to_rfc3339_opts(SecondsFormat::AutoSi, true))
}

fn time_of_day(seconds: i64, nanos: u32) -> Option<String> {
    let seconds = u32::try_from(seconds).ok()?;
    Some(NaiveTime::from_num_seconds_from_midnight_opt(seconds, nanos)?.to_string())
}

/// The texts of UUIDs.
pub(in crate::columnar) fn uuids(array: &ArrayRef) -> ArrayRef {
    let array = array.as_fixed_size_binary();
    let mut texts = StringBuilder::new();
    for value in array {
        let Some(value) = value else {
            texts.append_null();
            continue;
        };
        let mut text = String::with_capacity(36);
        for (place, byte) in value.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                text.push('-');
            }
            write!(text, "{byte:02x}").ok();
        }
        texts.append_value(text);
    }
    Arc::new(texts.finish())
}

#[cfg(test)]
mod tests {
    use arrow::array::{
        BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float64Array,
        Time32SecondArray, Time64MicrosecondArray, TimestampMillisecondArray,
        TimestampNanosecondArray, TimestampSecondArray,
    };

    use super::*;

    fn texts(array: impl Array + 'static) -> Vec<Option<String>> {
        let array: ArrayRef = Arc::new(array);
        let mut field = Field::new("k", array.data_type().clone(), true);
        field.metadata_mut().insert(EXTENSION.to_owned(), UUID.to_owned());
        let shown = as_text(&field, &array).unwrap().unwrap();
        shown.as_string::<i32>().iter().map(|text| text.map(str::to_owned)).collect()
    }

    #[test]
    fn equal_values_have_equal_texts_whatever_their_unit() {
        let check = |array, wanted: &str| assert_eq!(array, [Some(wanted.to_owned()), None]);
        check(texts(BooleanArray::from(vec![Some(true), None])), "true");
        check(texts(Date32Array::from(vec![Some(-1), None])), "1969-12-31");
        let decimal = Decimal128Array::from(vec![Some(-1250), None]);
        check(texts(decimal.with_precision_and_scale(9, 2).unwrap()), "-12.50");
        let noon = "2001-09-09T01:46:40Z";
        check(texts(TimestampSecondArray::from(vec![Some(1_000_000_000), None])), noon);
        check(texts(TimestampMillisecondArray::from(vec![Some(1_000_000_000_000), None])), noon);
        let paris = TimestampNanosecondArray::from(vec![Some(1_000_000_000_000_000_000), None]);
        check(texts(paris.with_timezone("Europe/Paris")), noon);
        check(
            texts(TimestampNanosecondArray::from(vec![Some(-1_000_000), None])),
            "1969-12-31T23:59:59.999Z",
        );
        check(texts(Time32SecondArray::from(vec![Some(34_200), None])), "09:30:00");
        check(texts(Time64MicrosecondArray::from(vec![Some(1), None])), "00:00:00.000001");
        let bytes: Vec<Option<&[u8]>> =
            vec![Some(b"\x1b\x4e\x28\xba/\xa1\x11\xd2\x88?\0\x16\xd3\xcc\xa4'"), None];
        let uuid = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes.into_iter(), 16);
        check(texts(uuid.unwrap()), "1b4e28ba-2fa1-11d2-883f-0016d3cca427");
    }

    #[test]
    fn floats_have_no_text_that_everybody_would_write() {
        let array: ArrayRef = Arc::new(Float64Array::from(vec![0.5]));
        let field = Field::new("k", DataType::Float64, true);
        assert!(as_text(&field, &array).unwrap().is_none());
    }

    #[test]
    fn extension_types_that_their_storage_does_not_say_are_refused_at_any_depth() {
        for (name, told) in [("pandas.period", "bare integers"), ("pandas.interval", "bounds")] {
            let mut inner = Field::new("in", DataType::Int64, true);
            inner.metadata_mut().insert(EXTENSION.to_owned(), name.to_owned());
            let list = DataType::new_list(DataType::Int64, true);
            let inner = Arc::new(inner);
            let within = [
                DataType::Struct([Arc::clone(&inner)].into_iter().collect()),
                DataType::List(Arc::clone(&inner)),
                DataType::FixedSizeList(Arc::clone(&inner), 2),
            ];
            let fields = within.map(|data_type| Field::new("in", data_type, true));
            for field in fields.iter().chain([&*inner]) {
                let error = refuse_storage(field).unwrap_err().to_string();
                assert!(error.contains("column \"in\"") && error.contains(told), "{error}");
            }
            refuse_storage(&Field::new("in", list, true)).unwrap();
        }
    }
}
