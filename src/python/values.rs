//! Values of Arrow arrays as Python objects, and memory of Arrow arrays as numpy arrays.
//!
//! For a few rows on a screen and for programs without any Arrow library. Whole columns of numbers
//! go to numpy without a copy, through the `__array_interface__` protocol of [`Memory`].

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray,
    downcast_primitive_array,
};
use arrow::buffer::Buffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use arrow::temporal_conversions::{as_date, as_datetime, as_time};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use chrono::Datelike;
use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyTuple};

use super::interop::arrow_error;

/// The years of Python's dates; times of others are text.
const PYTHON_YEARS: std::ops::RangeInclusive<i32> = 1..=9999;

/// One value of an array as the Python object that a user would write for it.
pub(super) fn value<'py>(
    py: Python<'py>,
    array: &dyn Array,
    index: usize,
) -> PyResult<Bound<'py, PyAny>> {
    if array.is_null(index) || array.data_type().is_null() {
        return Ok(py.None().into_bound(py));
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(index).into_bound_py_any(py),
        DataType::Utf8 => text(py, array.as_string::<i32>().value(index)),
        DataType::LargeUtf8 => text(py, array.as_string::<i64>().value(index)),
        DataType::Utf8View => text(py, array.as_string_view().value(index)),
        DataType::Binary => Ok(bytes(py, array.as_binary::<i32>().value(index))),
        DataType::LargeBinary => Ok(bytes(py, array.as_binary::<i64>().value(index))),
        DataType::BinaryView => Ok(bytes(py, array.as_binary_view().value(index))),
        DataType::FixedSizeBinary(_) => Ok(bytes(py, array.as_fixed_size_binary().value(index))),
        DataType::List(_) => list(py, &array.as_list::<i32>().value(index)),
        DataType::LargeList(_) => list(py, &array.as_list::<i64>().value(index)),
        DataType::Struct(fields) => {
            let dict = PyDict::new(py);
            for (field, column) in fields.iter().zip(array.as_struct().columns()) {
                dict.set_item(field.name(), value(py, column, index)?)?;
            }
            Ok(dict.into_any())
        }
        DataType::Map(_, _) => {
            let entries = array.as_map().value(index);
            let dict = PyDict::new(py);
            for entry in 0..entries.len() {
                let key = value(py, entries.column(0), entry)?;
                dict.set_item(key, value(py, entries.column(1), entry)?)?;
            }
            Ok(dict.into_any())
        }
        DataType::Dictionary(_, _) => {
            let dictionary = array.as_any_dictionary();
            let key = dictionary.normalized_keys().get(index).copied().unwrap_or_default();
            value(py, dictionary.values(), key)
        }
        _ => scalar(py, array, index),
    }
}

/// Numbers, times, and whatever else can be written as text.
fn scalar<'py>(py: Python<'py>, array: &dyn Array, index: usize) -> PyResult<Bound<'py, PyAny>> {
    let one = array.slice(index, 1);
    match array.data_type() {
        kind if kind.is_signed_integer() => {
            let one = cast(&one, &DataType::Int64).map_err(arrow_error)?;
            one.as_primitive::<Int64Type>().value(0).into_bound_py_any(py)
        }
        kind if kind.is_unsigned_integer() => {
            let one = cast(&one, &DataType::UInt64).map_err(arrow_error)?;
            let one = one.as_primitive::<arrow::datatypes::UInt64Type>().value(0);
            one.into_bound_py_any(py)
        }
        kind if kind.is_floating() => {
            let one = cast(&one, &DataType::Float64).map_err(arrow_error)?;
            one.as_primitive::<Float64Type>().value(0).into_bound_py_any(py)
        }
        DataType::Timestamp(unit, zone) => timestamp(py, &one, *unit, zone.is_some()),
        DataType::Date32 | DataType::Date64 => date(py, &one),
        DataType::Time32(unit) | DataType::Time64(unit) => time(py, &one, *unit),
        DataType::Duration(unit) => match micros(&one, *unit)? {
            Some(micros) => py.import("datetime")?.getattr("timedelta")?.call1((0, 0, micros)),
            None => shown(py, &one),
        },
        DataType::Decimal128(..) | DataType::Decimal256(..) => {
            let options = FormatOptions::default();
            let formatter = ArrayFormatter::try_new(&one, &options).map_err(arrow_error)?;
            let digits = formatter.value(0).to_string();
            py.import("decimal")?.getattr("Decimal")?.call1((digits,))
        }
        _ => shown(py, &one),
    }
}

/// A value as text.
fn shown<'py>(py: Python<'py>, one: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(one, &options).map_err(arrow_error)?;
    text(py, &formatter.value(0).to_string())
}

/// The microseconds of a time; none where that is not a 64-bit integer. Python's time types have no
/// nanoseconds, so such a value becomes a text with all its digits.
fn micros(one: &ArrayRef, unit: TimeUnit) -> PyResult<Option<i64>> {
    let raw = match one.data_type() {
        DataType::Time32(_) => cast(one, &DataType::Int32).map_err(arrow_error)?,
        _ => ArrayRef::clone(one),
    };
    let raw = cast(&raw, &DataType::Int64).map_err(arrow_error)?;
    let raw = raw.as_primitive::<Int64Type>().value(0);
    Ok(match unit {
        TimeUnit::Second => raw.checked_mul(1_000_000),
        TimeUnit::Millisecond => raw.checked_mul(1000),
        TimeUnit::Microsecond => Some(raw),
        TimeUnit::Nanosecond => (raw % 1000 == 0).then_some(raw / 1000),
    })
}

/// A timestamp as `datetime.datetime`; aware (UTC) when the type has a time zone.
fn timestamp<'py>(
    py: Python<'py>,
    one: &ArrayRef,
    unit: TimeUnit,
    aware: bool,
) -> PyResult<Bound<'py, PyAny>> {
    use arrow::datatypes::TimestampMicrosecondType as Micros;
    let Some(micros) = micros(one, unit)? else {
        // The number is in UTC, whatever the zone; zone names are not resolved here.
        let utc = cast(one, &DataType::Int64)
            .and_then(|raw| cast(&raw, &DataType::Timestamp(unit, aware.then(|| "+00:00".into()))));
        return shown(py, &utc.map_err(arrow_error)?);
    };
    let Some(moment) = as_datetime::<Micros>(micros) else {
        return micros.into_bound_py_any(py);
    };
    if !PYTHON_YEARS.contains(&moment.year()) {
        let zone = if aware { "Z" } else { "" };
        return text(py, &format!("{}{zone}", moment.format("%Y-%m-%dT%H:%M:%S%.f")));
    }
    let naive = py
        .import("datetime")?
        .getattr("datetime")?
        .call_method1("fromisoformat", (moment.format("%Y-%m-%dT%H:%M:%S%.6f").to_string(),))?;
    if !aware {
        return Ok(naive);
    }
    let utc = py.import("datetime")?.getattr("timezone")?.getattr("utc")?;
    let zone = PyDict::new(py);
    zone.set_item("tzinfo", utc)?;
    naive.call_method("replace", (), Some(&zone))
}

fn date<'py>(py: Python<'py>, one: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    use arrow::datatypes::Date32Type;
    let days = cast(one, &DataType::Date32).map_err(arrow_error)?;
    let days = days.as_primitive::<Date32Type>().value(0);
    match as_date::<Date32Type>(i64::from(days)) {
        Some(day) if !PYTHON_YEARS.contains(&day.year()) => {
            text(py, &day.format("%Y-%m-%d").to_string())
        }
        Some(day) => py
            .import("datetime")?
            .getattr("date")?
            .call_method1("fromisoformat", (day.format("%Y-%m-%d").to_string(),)),
        None => days.into_bound_py_any(py),
    }
}

fn time<'py>(py: Python<'py>, one: &ArrayRef, unit: TimeUnit) -> PyResult<Bound<'py, PyAny>> {
    use arrow::datatypes::Time64MicrosecondType as Micros;
    let Some(micros) = micros(one, unit)? else { return shown(py, one) };
    match as_time::<Micros>(micros) {
        Some(moment) => py
            .import("datetime")?
            .getattr("time")?
            .call_method1("fromisoformat", (moment.format("%H:%M:%S%.6f").to_string(),)),
        None => micros.into_bound_py_any(py),
    }
}

fn text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    text.into_bound_py_any(py)
}

fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> Bound<'py, PyAny> {
    PyBytes::new(py, bytes).into_any()
}

fn list<'py>(py: Python<'py>, array: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    Ok(values(py, array)?.into_any())
}

/// All values of an array.
pub(super) fn values<'py>(py: Python<'py>, array: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for index in 0..array.len() {
        list.append(value(py, array, index)?)?;
    }
    Ok(list)
}

/// Memory that numpy reads without copying it; numpy keeps this object as the array's base.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Memory {
    /// What keeps the memory alive.
    buffer: Buffer,
    /// The number of values.
    length: usize,
    /// The type of the values in numpy's notation, for example `<i8`.
    kind: String,
}

#[pymethods]
impl Memory {
    /// The description that numpy asks for; the memory is read-only.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", PyTuple::new(py, [self.length])?)?;
        interface.set_item("typestr", &self.kind)?;
        interface.set_item("data", (self.buffer.as_ptr().addr(), true))?;
        Ok(interface)
    }
}

/// The memory of a column for numpy, or `None` where numpy has no matching type (text, bytes,
/// lists).
///
/// A column without nulls is not copied. Nulls become NaN (the column becomes float64) or NaT.
pub(super) fn memory(array: &ArrayRef) -> PyResult<Option<Memory>> {
    let Some(kind) = numpy_type(array.data_type()) else { return Ok(None) };
    if array.null_count() == 0 {
        return Ok(Some(contiguous(array, kind)));
    }
    if matches!(array.data_type(), DataType::Timestamp(_, _)) {
        let plain = cast(array, &DataType::Int64).map_err(arrow_error)?;
        let filled = fill(plain.as_primitive::<Int64Type>(), i64::MIN);
        return Ok(Some(contiguous(&filled, kind)));
    }
    let floats = cast(array, &DataType::Float64).map_err(arrow_error)?;
    let filled = fill(floats.as_primitive::<Float64Type>(), f64::NAN);
    Ok(Some(contiguous(&filled, "<f8".to_owned())))
}

fn fill<T: ArrowPrimitiveType>(array: &PrimitiveArray<T>, missing: T::Native) -> ArrayRef {
    let filled: PrimitiveArray<T> =
        array.iter().map(|value| Some(value.unwrap_or(missing))).collect();
    std::sync::Arc::new(filled)
}

fn contiguous(array: &ArrayRef, kind: String) -> Memory {
    let length = array.len();
    if let DataType::Boolean = array.data_type() {
        let bits: &BooleanArray = array.as_boolean();
        let bytes: Vec<u8> = (0..length).map(|index| u8::from(bits.value(index))).collect();
        return Memory { buffer: Buffer::from_vec(bytes), length, kind };
    }
    let array = array.as_ref();
    let buffer = downcast_primitive_array!(
        array => array.values().inner().clone(),
        _other => Buffer::from_vec(Vec::<u8>::new()),
    );
    Memory { buffer, length, kind }
}

/// The numpy type with the same memory layout as an Arrow type.
fn numpy_type(data_type: &DataType) -> Option<String> {
    let kind = match data_type {
        DataType::Boolean => "|b1",
        DataType::Int8 => "|i1",
        DataType::Int16 => "<i2",
        DataType::Int32 => "<i4",
        DataType::Int64 => "<i8",
        DataType::UInt8 => "|u1",
        DataType::UInt16 => "<u2",
        DataType::UInt32 => "<u4",
        DataType::UInt64 => "<u8",
        DataType::Float16 => "<f2",
        DataType::Float32 => "<f4",
        DataType::Float64 => "<f8",
        DataType::Timestamp(TimeUnit::Second, _) => "<M8[s]",
        DataType::Timestamp(TimeUnit::Millisecond, _) => "<M8[ms]",
        DataType::Timestamp(TimeUnit::Microsecond, _) => "<M8[us]",
        DataType::Timestamp(TimeUnit::Nanosecond, _) => "<M8[ns]",
        _ => return None,
    };
    Some(kind.to_owned())
}
