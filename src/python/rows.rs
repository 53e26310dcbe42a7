//! Python values as rows of Arrow columns, without any Python library.
//!
//! Types follow from the values: a schema only says which mappings are maps and not structs. The
//! writers of formats cast and check against their schema, as for tables. Every value arrives as it
//! is or is refused with the name of its member. JSON needs no common type for the items of a list;
//! [`super::json_value`] writes it.
//!
//! | Python | Arrow |
//! |---|---|
//! | `bool`, `int`, `float`, `str`, `bytes` | boolean, int64 or uint64, float64, utf8, binary |
//! | `datetime` (UTC when naive), `date`, `time` | timestamp[us, UTC], date32, time64[us] |
//! | `timedelta`, `Decimal`, `UUID` | duration[us], decimal128, arrow.uuid |
//! | list or tuple, mapping | list, struct (or map) |
//! | `None`, `NaT` and `NA` of pandas | null |
//!
//! Scalars of numpy count as the Python values that they stand for.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DurationMicrosecondArray,
    FixedSizeBinaryArray, Float64Array, Int64Array, ListArray, MapArray, NullArray, RecordBatch,
    RecordBatchOptions, StringArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, Schema};
use arrow::error::ArrowError;
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDate, PyDateTime, PyDelta, PyDict, PyFloat, PyInt, PyList,
    PyMapping, PyMemoryView, PyString, PyTime, PyTuple, PyType,
};

use super::interop::arrow_error;
use super::times::{days, duration, since_epoch, time_of_day};

/// Values nested deeper than this are refused: they may contain themselves.
const DEPTH_MAX: usize = 64;

/// A table of one row, with a column for each item of a mapping.
pub(super) fn one_row(
    mapping: &Bound<'_, PyMapping>,
    known: Option<&Fields>,
) -> PyResult<RecordBatch> {
    let rows = [Some(mapping.as_any().clone())];
    let (fields, columns) = members(&rows, known, &Path::ROOT)?;
    let options = RecordBatchOptions::new().with_row_count(Some(1));
    let schema = Arc::new(Schema::new(fields));
    RecordBatch::try_new_with_options(schema, columns, &options).map_err(arrow_error)
}

/// A table of one row and one column.
pub(super) fn one_value(field: &Field, value: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let path = Path { name: field.name(), depth: 0 };
    let values = [plain(value.clone(), path)?];
    let column = column(&values, Some(field.data_type()), &path)?;
    let field = field_of(field.name(), &column);
    RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![column]).map_err(arrow_error)
}

/// Where a value is, for errors.
#[derive(Clone, Copy)]
pub(super) struct Path<'a> {
    name: &'a str,
    depth: usize,
}

impl Path<'_> {
    /// The path of a whole value.
    pub(super) const ROOT: Self = Self { name: "", depth: 0 };

    pub(super) fn inside<T>(
        self,
        name: &str,
        then: impl FnOnce(Path<'_>) -> PyResult<T>,
    ) -> PyResult<T> {
        if self.depth >= DEPTH_MAX {
            let detail = format!("values are nested more than {DEPTH_MAX} levels deep");
            return Err(PyValueError::new_err(self.says(detail)));
        }
        let depth = self.depth.saturating_add(1);
        if self.name.is_empty() {
            return then(Path { name, depth });
        }
        then(Path { name: &format!("{}.{name}", self.name), depth })
    }

    /// What is wrong, and where.
    pub(super) fn says(self, detail: impl fmt::Display) -> String {
        if self.name.is_empty() {
            return detail.to_string();
        }
        format!("{}: {detail}", self.name)
    }

    /// An error of Python, or of this module, that does not say where it happened.
    #[cold]
    fn names(self, py: Python<'_>, error: &PyErr) -> PyErr {
        let text = self.says(error.value(py));
        if error.is_instance_of::<PyTypeError>(py) {
            PyTypeError::new_err(text)
        } else if error.is_instance_of::<PyOverflowError>(py) {
            PyOverflowError::new_err(text)
        } else {
            PyValueError::new_err(text)
        }
    }

    #[cold]
    fn refuses(self, error: &ArrowError) -> PyErr {
        PyValueError::new_err(self.says(error))
    }
}

pub(super) type Value<'py> = Option<Bound<'py, PyAny>>;

/// A value without what is particular to numpy and pandas; none for their nulls and for `None`.
pub(super) fn plain<'py>(value: Bound<'py, PyAny>, path: Path<'_>) -> PyResult<Value<'py>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let is_builtin = value.is_none()
        || value.is_exact_instance_of::<PyString>()
        || value.is_exact_instance_of::<PyInt>()
        || value.is_exact_instance_of::<PyFloat>()
        || value.is_exact_instance_of::<PyBool>()
        || value.is_exact_instance_of::<PyDict>()
        || value.is_exact_instance_of::<PyList>();
    let value = if is_builtin {
        value
    } else {
        let py = value.py();
        let plain = PLAIN.import(py, "ottla._records", "plain")?;
        plain.call1((value,)).map_err(|error| path.names(py, &error))?
    };
    Ok((!value.is_none()).then_some(value))
}

/// The kind of column that values become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Float,
    Text,
    Bytes,
    DateTime,
    Date,
    Time,
    Duration,
    Decimal,
    Uuid,
    List,
    Mapping,
}

impl Kind {
    /// What Python calls it.
    const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "str",
            Self::Bytes => "bytes",
            Self::DateTime => "datetime",
            Self::Date => "date",
            Self::Time => "time",
            Self::Duration => "timedelta",
            Self::Decimal => "Decimal",
            Self::Uuid => "UUID",
            Self::List => "list",
            Self::Mapping => "mapping",
        }
    }
}

pub(super) fn kind(value: &Bound<'_, PyAny>, path: Path<'_>) -> PyResult<Kind> {
    let py = value.py();
    Ok(if value.is_instance_of::<PyBool>() {
        Kind::Bool
    } else if value.is_instance_of::<PyInt>() {
        Kind::Int
    } else if value.is_instance_of::<PyFloat>() {
        Kind::Float
    } else if value.is_instance_of::<PyString>() {
        Kind::Text
    } else if value.is_instance_of::<PyBytes>()
        || value.is_instance_of::<PyByteArray>()
        || value.is_instance_of::<PyMemoryView>()
    {
        Kind::Bytes
    } else if value.is_instance_of::<PyList>() || value.is_instance_of::<PyTuple>() {
        Kind::List
    } else if value.cast::<PyMapping>().is_ok() {
        Kind::Mapping
    } else if value.is_instance_of::<PyDateTime>() {
        Kind::DateTime
    } else if value.is_instance_of::<PyDate>() {
        Kind::Date
    } else if value.is_instance_of::<PyTime>() {
        Kind::Time
    } else if value.is_instance_of::<PyDelta>() {
        Kind::Duration
    } else if value.is_instance(decimal(py)?)? {
        Kind::Decimal
    } else if value.is_instance(uuid(py)?)? {
        Kind::Uuid
    } else if value.call_method0(intern!(py, "__index__")).is_ok() {
        // Arrays of numpy with one integer have this method, too.
        Kind::Int
    } else {
        // Scalars of numpy have no length; the result of their method is no better.
        let is_list = value.hasattr(intern!(py, "__len__"))?;
        let remedy = if is_list && value.hasattr(intern!(py, "tolist"))? {
            "; the result of its tolist() can"
        } else {
            ""
        };
        return Err(PyTypeError::new_err(path.says(format!(
            "values of type {} cannot be written{remedy}",
            value.get_type().qualname()?
        ))));
    })
}

fn decimal(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "decimal", "Decimal")
}

fn uuid(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    CLASS.import(py, "uuid", "UUID")
}

/// The kind that all values have in common; none where all are null.
fn common(values: &[Value<'_>], path: Path<'_>) -> PyResult<Option<Kind>> {
    let mut found = None;
    for value in values.iter().flatten() {
        let next = kind(value, path)?;
        found = Some(match (found, next) {
            (None, next) => next,
            (Some(known), next) if known == next => known,
            (Some(Kind::Int | Kind::Float), Kind::Int | Kind::Float) => Kind::Float,
            (Some(known), next) => {
                return Err(PyTypeError::new_err(path.says(format!(
                    "the items of a list are {} and {}; they must have one type in this format",
                    known.name(),
                    next.name()
                ))));
            }
        });
    }
    Ok(found)
}

/// A column of values, whose type a schema may give.
pub(super) fn column(
    values: &[Value<'_>],
    known: Option<&DataType>,
    path: &Path<'_>,
) -> PyResult<ArrayRef> {
    let path = *path;
    let Some(kind) = common(values, path)? else {
        return Ok(Arc::new(NullArray::new(values.len())));
    };
    Ok(match kind {
        Kind::Bool => Arc::new(each(values, path, |one| one.extract())?.collect::<BooleanArray>()),
        Kind::Int => integers(values, path)?,
        Kind::Float => Arc::new(each(values, path, float)?.collect::<Float64Array>()),
        Kind::Text => Arc::new(each(values, path, text)?.collect::<StringArray>()),
        Kind::Bytes => Arc::new(each(values, path, bytes)?.collect::<BinaryArray>()),
        Kind::Uuid => {
            let bytes = each(values, path, |one| {
                one.getattr(intern!(one.py(), "bytes"))?.extract::<Vec<u8>>()
            })?;
            let made = FixedSizeBinaryArray::try_from_sparse_iter_with_size(bytes, 16);
            Arc::new(made.map_err(|error| path.refuses(&error))?)
        }
        Kind::DateTime => {
            let times = each(values, path, since_epoch)?;
            Arc::new(times.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        Kind::Date => Arc::new(each(values, path, days)?.collect::<Date32Array>()),
        Kind::Time => {
            Arc::new(each(values, path, time_of_day)?.collect::<Time64MicrosecondArray>())
        }
        Kind::Duration => {
            Arc::new(each(values, path, duration)?.collect::<DurationMicrosecondArray>())
        }
        Kind::Decimal => decimals(values, path)?,
        Kind::List => lists(values, known, path)?,
        Kind::Mapping => match known {
            Some(DataType::Map(entries, sorted)) => maps(values, entries, *sorted, path)?,
            _ => structs(values, known, path)?,
        },
    })
}

/// The field of a column; bytes of a fixed size are made of UUIDs only.
pub(super) fn field_of(name: &str, column: &ArrayRef) -> Field {
    let field = Field::new(name, column.data_type().clone(), true);
    if *column.data_type() == DataType::FixedSizeBinary(16) {
        let extension = ("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned());
        return field.with_metadata([extension]);
    }
    field
}

/// Applies a function to the values; nulls stay nulls.
fn each<'py, T>(
    values: &[Value<'py>],
    path: Path<'_>,
    make: impl Fn(&Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<std::vec::IntoIter<Option<T>>> {
    let make = |one| make(one).map_err(|error| path.names(one.py(), &error));
    let made = values.iter().map(|value| value.as_ref().map(make).transpose());
    Ok(made.collect::<PyResult<Vec<_>>>()?.into_iter())
}

/// A float, or an integer that is one in a list of both.
fn float(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    let number = value.extract::<f64>();
    if value.is_instance_of::<PyFloat>() {
        return number;
    }
    match number {
        Ok(number) if value.eq(number)? => Ok(number),
        _ => Err(PyValueError::new_err(format!(
            "{value} and a float are items of one list, and no float is exactly {value}; make all \
             of them int, or Decimal"
        ))),
    }
}

fn text(value: &Bound<'_, PyAny>) -> PyResult<String> {
    value.extract().map_err(|_surrogate| not_unicode(value))
}

/// A text that has half of a pair of surrogates.
#[cold]
fn not_unicode(text: &Bound<'_, PyAny>) -> PyErr {
    match text.repr() {
        Ok(shown) => PyValueError::new_err(format!(
            "the text {shown} has a lone surrogate, which UTF-8 cannot represent"
        )),
        Err(error) => error,
    }
}

fn bytes(value: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    if value.is_instance_of::<PyMemoryView>() {
        return value.call_method0(intern!(value.py(), "tobytes"))?.extract();
    }
    value.extract()
}

fn integers(values: &[Value<'_>], path: Path<'_>) -> PyResult<ArrayRef> {
    if let Ok(signed) = each(values, path, |one| one.extract::<i64>()) {
        return Ok(Arc::new(signed.collect::<Int64Array>()));
    }
    let unsigned = each(values, path, |one| {
        one.extract::<u64>().map_err(|error| {
            if error.is_instance_of::<PyOverflowError>(one.py()) {
                return PyOverflowError::new_err("the integer does not fit 64 bits");
            }
            error
        })
    })?;
    Ok(Arc::new(unsigned.collect::<UInt64Array>()))
}

fn nulls(values: &[Value<'_>]) -> Option<NullBuffer> {
    let nulls: NullBuffer = values.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    (nulls.null_count() > 0).then_some(nulls)
}

fn lists(values: &[Value<'_>], known: Option<&DataType>, path: Path<'_>) -> PyResult<ArrayRef> {
    let item = match known {
        Some(
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _),
        ) => Some(item.data_type()),
        _ => None,
    };
    let mut items: Vec<Value<'_>> = Vec::new();
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let before = items.len();
        if let Some(value) = value {
            for one in value.try_iter()? {
                items.push(path.inside("[]", |path| plain(one?, path))?);
            }
        }
        lengths.push(items.len().saturating_sub(before));
    }
    let items = path.inside("[]", |path| column(&items, item, &path))?;
    let field = Arc::new(field_of(Field::LIST_FIELD_DEFAULT_NAME, &items));
    let offsets = OffsetBuffer::from_lengths(lengths);
    let list = ListArray::try_new(field, offsets, items, nulls(values));
    Ok(Arc::new(list.map_err(|error| path.refuses(&error))?))
}

/// The columns of mappings, by their keys in order of first appearance.
fn members(
    values: &[Value<'_>],
    known: Option<&Fields>,
    path: &Path<'_>,
) -> PyResult<(Fields, Vec<ArrayRef>)> {
    let mut names: Vec<String> = Vec::new();
    let mut columns: Vec<Vec<Value<'_>>> = Vec::new();
    for (row, value) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        for (name, value) in items(value.cast::<PyMapping>()?, *path)? {
            let at = names.iter().position(|known| *known == name).unwrap_or_else(|| {
                names.push(name);
                columns.push(vec![None; values.len()]);
                names.len().saturating_sub(1)
            });
            let slot = columns.get_mut(at).and_then(|column| column.get_mut(row));
            if let Some(slot) = slot {
                *slot = value;
            }
        }
    }
    let mut arrays = Vec::with_capacity(columns.len());
    let mut fields = Vec::with_capacity(columns.len());
    for (name, values) in names.iter().zip(&columns) {
        let known = known.and_then(|fields| fields.find(name)).map(|(_, field)| field.data_type());
        let array = path.inside(name, |path| column(values, known, &path))?;
        fields.push(field_of(name, &array));
        arrays.push(array);
    }
    Ok((fields.into(), arrays))
}

/// The members of a mapping.
pub(super) fn items<'py>(
    mapping: &Bound<'py, PyMapping>,
    path: Path<'_>,
) -> PyResult<Vec<(String, Value<'py>)>> {
    // Other mappings than a dict may list a key again.
    let is_dict = mapping.as_any().is_exact_instance_of::<PyDict>();
    let mut seen = BTreeSet::new();
    let mut members = Vec::new();
    for item in mapping.items()?.iter() {
        let (name, value) = item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        let name = text_key(&name, path)?;
        if !is_dict && !seen.insert(name.clone()) {
            let detail = format!("the mapping has two values for the key {name:?}");
            return Err(PyValueError::new_err(path.says(detail)));
        }
        let value = path.inside(&name, |path| plain(value, path))?;
        members.push((name, value));
    }
    Ok(members)
}

fn text_key(name: &Bound<'_, PyAny>, path: Path<'_>) -> PyResult<String> {
    if name.is_instance_of::<PyString>() {
        return text(name).map_err(|error| path.names(name.py(), &error));
    }
    Err(PyTypeError::new_err(path.says(format!(
        "the keys of a mapping must be str, not {}: {}",
        name.get_type().qualname()?,
        name.repr()?
    ))))
}

fn structs(values: &[Value<'_>], known: Option<&DataType>, path: Path<'_>) -> PyResult<ArrayRef> {
    let known = match known {
        Some(DataType::Struct(fields)) => Some(fields),
        _ => None,
    };
    let (fields, columns) = members(values, known, &path)?;
    let made = StructArray::try_new_with_length(fields, columns, nulls(values), values.len());
    Ok(Arc::new(made.map_err(|error| path.refuses(&error))?))
}

fn maps(values: &[Value<'_>], entries: &Field, sorted: bool, path: Path<'_>) -> PyResult<ArrayRef> {
    let DataType::Struct(parts) = entries.data_type() else {
        return structs(values, None, path);
    };
    let [key, item] = parts.as_ref() else { return structs(values, None, path) };
    let (mut keys, mut items) = (Vec::new(), Vec::new());
    let mut lengths = Vec::with_capacity(values.len());
    for value in values {
        let before = keys.len();
        if let Some(value) = value {
            for pair in value.cast::<PyMapping>()?.items()?.iter() {
                let (name, value) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
                keys.push(path.inside("[keys]", |path| plain(name, path))?);
                items.push(path.inside("[]", |path| plain(value, path))?);
            }
        }
        lengths.push(keys.len().saturating_sub(before));
    }
    let keys = path.inside("[keys]", |path| column(&keys, Some(key.data_type()), &path))?;
    let items = path.inside("[]", |path| column(&items, Some(item.data_type()), &path))?;
    let fields = Fields::from(vec![
        field_of(key.name(), &keys).with_nullable(false),
        field_of(item.name(), &items),
    ]);
    let build = || -> Result<ArrayRef, ArrowError> {
        let rows = StructArray::try_new(fields.clone(), vec![keys, items], None)?;
        let field = Arc::new(Field::new(entries.name(), DataType::Struct(fields), false));
        let offsets = OffsetBuffer::from_lengths(lengths);
        Ok(Arc::new(MapArray::try_new(field, offsets, rows, nulls(values), sorted)?))
    };
    build().map_err(|error| path.refuses(&error))
}

fn decimals(values: &[Value<'_>], path: Path<'_>) -> PyResult<ArrayRef> {
    let texts: Vec<Option<String>> = each(values, path, decimal_digits)?.collect();
    let fraction = |text: &str| text.split_once('.').map_or(0, |(_, rest)| rest.len());
    let scale = texts.iter().flatten().map(|text| fraction(text)).max().unwrap_or(0);
    let number = |text: &String| {
        let zeros = scale.saturating_sub(fraction(text));
        let digits: String = text.chars().filter(|one| *one != '.').collect();
        let number = format!("{digits}{}", "0".repeat(zeros)).parse::<i128>().ok();
        let largest = 10_i128.pow(u32::from(DECIMAL128_MAX_PRECISION));
        let number = number.filter(|number| number.unsigned_abs() < largest.unsigned_abs());
        number.ok_or_else(|| {
            PyValueError::new_err(path.says(format!(
                "the decimal {text} has more than {DECIMAL128_MAX_PRECISION} digits, with {scale} \
                 of them after the point"
            )))
        })
    };
    let numbers = texts
        .iter()
        .map(|text| text.as_ref().map(number).transpose())
        .collect::<PyResult<Vec<_>>>()?;
    let array: Decimal128Array = numbers.into_iter().collect();
    let scale = i8::try_from(scale).unwrap_or(i8::MAX);
    let array = array.with_precision_and_scale(DECIMAL128_MAX_PRECISION, scale);
    Ok(Arc::new(array.map_err(|error| path.refuses(&error))?))
}

/// The digits of a `Decimal`, without an exponent.
fn decimal_digits(value: &Bound<'_, PyAny>) -> PyResult<String> {
    let py = value.py();
    if !value.call_method0(intern!(py, "is_finite"))?.extract::<bool>()? {
        return Err(PyValueError::new_err(format!("the decimal {value} is not a finite number")));
    }
    let too_many = || {
        PyValueError::new_err(format!(
            "the decimal {value} needs more than {DECIMAL128_MAX_PRECISION} digits"
        ))
    };
    // Before its zeros are written out, which may be a billion.
    let exponent: i64 = value.call_method0(intern!(py, "adjusted"))?.extract()?;
    if exponent.unsigned_abs() > u64::from(DECIMAL128_MAX_PRECISION) {
        return Err(too_many());
    }
    let text: String = value.call_method1(intern!(py, "__format__"), ("f",))?.extract()?;
    let fraction = text.split_once('.').map_or(0, |(_, fraction)| fraction.len());
    if fraction > usize::from(DECIMAL128_MAX_PRECISION) {
        return Err(too_many());
    }
    Ok(text)
}
