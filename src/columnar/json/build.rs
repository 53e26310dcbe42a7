//! Column builders that are fed from a JSON tape.
//!
//! Invariant **JB-1**: whatever a push does, `truncate(n)` brings a builder back to what it was
//! when it had `n` rows; so a row that fails half-way leaves no trace.

mod direct;

use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, ListArray, NullArray,
    PrimitiveArray, StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::{Parser, parse_decimal, string_to_datetime};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Field, FieldRef, Fields, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;
use chrono::Utc;
use simd_json::{Node, StaticNode};

use super::super::decode::TextBuilder;
use super::scan::{self, KeyOrder};
use super::{base64, behind, write};
use crate::error::{Error, Result};

/// A JSON value that does not fit its field.
#[derive(Debug)]
pub(crate) struct Mismatch {
    path: String,
    detail: String,
}

impl Mismatch {
    #[cold]
    fn new(detail: impl Into<String>) -> Self {
        Self { path: String::new(), detail: detail.into() }
    }

    #[cold]
    fn under(mut self, name: &str) -> Self {
        let joint = if self.path.is_empty() || self.path.starts_with('[') { "" } else { "." };
        self.path = format!("{name}{joint}{}", self.path);
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "field {:?}: {}", self.path, self.detail)
    }
}

/// The columns of the fields of an object.
#[derive(Debug)]
pub(super) struct ObjectBuilder {
    names: Vec<String>,
    columns: Vec<ColumnBuilder>,
    order: KeyOrder,
    rows: usize,
}

impl ObjectBuilder {
    pub(super) fn new(fields: &Fields) -> Result<Self> {
        Ok(Self {
            names: fields.iter().map(|field| field.name().clone()).collect(),
            columns: fields.iter().map(ColumnBuilder::new).collect::<Result<_>>()?,
            order: KeyOrder::default(),
            rows: 0,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.rows
    }

    /// Appends the object of `len` fields at `at`.
    pub(super) fn push(
        &mut self,
        nodes: &[Node<'_>],
        at: usize,
        len: usize,
    ) -> Result<(), Mismatch> {
        let row = self.rows;
        let mut filled = 0_usize;
        let mut expected = 0_usize;
        let mut at = at.saturating_add(1);
        for _ in 0..len {
            let Some(Node::String(name)) = nodes.get(at) else { break };
            let value_at = at.saturating_add(1);
            if let Some(index) = self.find(name, expected) {
                if let Some(column) = self.columns.get_mut(index) {
                    if column.len() > row {
                        column.truncate(row);
                    } else {
                        filled = filled.saturating_add(1);
                    }
                    column.push(nodes, value_at).map_err(|mismatch| mismatch.under(name))?;
                }
                expected = index.saturating_add(1);
            }
            at = behind(nodes, value_at);
        }
        self.fill_missing(filled)?;
        self.rows = row.saturating_add(1);
        Ok(())
    }

    /// Nulls for the fields that an object of `filled` others did not have.
    #[inline]
    fn fill_missing(&mut self, filled: usize) -> Result<(), Mismatch> {
        if filled < self.columns.len() {
            for (name, column) in self.names.iter().zip(&mut self.columns) {
                if column.len() == self.rows {
                    if !column.field.is_nullable() {
                        return Err(Mismatch::new("is missing and not nullable").under(name));
                    }
                    column.push_null();
                }
            }
        }
        Ok(())
    }

    /// The index of a field; producers write fields in one order, so the guess is mostly right.
    #[inline]
    fn find(&self, name: &str, expected: usize) -> Option<usize> {
        if self.names.get(expected).is_some_and(|known| known == name) {
            return Some(expected);
        }
        self.names.iter().position(|known| known == name)
    }

    pub(super) fn push_null(&mut self) {
        for column in &mut self.columns {
            column.push_null();
        }
        self.rows = self.rows.saturating_add(1);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        for column in &mut self.columns {
            column.truncate(rows);
        }
        self.rows = self.rows.min(rows);
    }

    pub(super) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns
            .iter_mut()
            .map(ColumnBuilder::finish)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::invalid(format!("could not build a column: {error}")))
    }
}

/// The values of a column while it is built, by what JSON they take.
#[derive(Debug)]
enum Data {
    Null,
    Bool(Vec<bool>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Time(TimeUnit, Vec<i64>),
    Date(Vec<i32>),
    Decimal(u8, i8, Vec<i128>),
    Text(TextBuilder),
    Binary(Vec<i32>, Vec<u8>),
    List(Vec<i32>, Box<ColumnBuilder>),
    Object(ObjectBuilder),
}

/// One column while it is built.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    field: FieldRef,
    data: Data,
    rows: usize,
    /// Which rows are not null; kept from the first null on.
    valid: Vec<bool>,
    any_null: bool,
}

impl ColumnBuilder {
    fn new(field: &FieldRef) -> Result<Self> {
        let data = match field.data_type() {
            DataType::Null => Data::Null,
            DataType::Boolean => Data::Bool(Vec::new()),
            DataType::Int8 => Data::I8(Vec::new()),
            DataType::Int16 => Data::I16(Vec::new()),
            DataType::Int32 => Data::I32(Vec::new()),
            DataType::Int64 => Data::I64(Vec::new()),
            DataType::UInt8 => Data::U8(Vec::new()),
            DataType::UInt16 => Data::U16(Vec::new()),
            DataType::UInt32 => Data::U32(Vec::new()),
            DataType::UInt64 => Data::U64(Vec::new()),
            DataType::Float32 => Data::F32(Vec::new()),
            DataType::Float64 => Data::F64(Vec::new()),
            DataType::Timestamp(unit, _) => Data::Time(*unit, Vec::new()),
            DataType::Date32 => Data::Date(Vec::new()),
            DataType::Decimal128(precision, scale) => Data::Decimal(*precision, *scale, Vec::new()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Data::Text(TextBuilder::default())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Data::Binary(vec![0], Vec::new())
            }
            DataType::List(item) | DataType::LargeList(item) => {
                Data::List(vec![0], Box::new(Self::new(item)?))
            }
            DataType::Struct(fields) => Data::Object(ObjectBuilder::new(fields)?),
            other => {
                return Err(Error::invalid(format!(
                    "field {:?}: JSON is not decoded to {other}; use bool, an integer, a float, \
                     utf8, binary, timestamp, date32, decimal128, a list or a struct",
                    field.name()
                )));
            }
        };
        Ok(Self { field: Arc::clone(field), data, rows: 0, valid: Vec::new(), any_null: false })
    }

    #[inline]
    const fn len(&self) -> usize {
        self.rows
    }

    /// Counts a row whose value was pushed.
    #[inline]
    fn count_valid(&mut self) {
        self.rows = self.rows.wrapping_add(1);
        if self.any_null {
            self.valid.push(true);
        }
    }

    fn push_null(&mut self) {
        match &mut self.data {
            Data::Null => {}
            Data::Bool(values) => values.push(false),
            Data::I8(values) => values.push(0),
            Data::I16(values) => values.push(0),
            Data::I32(values) | Data::Date(values) => values.push(0),
            Data::I64(values) | Data::Time(_, values) => values.push(0),
            Data::U8(values) => values.push(0),
            Data::U16(values) => values.push(0),
            Data::U32(values) => values.push(0),
            Data::U64(values) => values.push(0),
            Data::F32(values) => values.push(0.0),
            Data::F64(values) => values.push(0.0),
            Data::Decimal(_, _, values) => values.push(0),
            Data::Text(texts) => texts.push_null(),
            Data::Binary(ends, _) | Data::List(ends, _) => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
            Data::Object(object) => object.push_null(),
        }
        self.valid.resize(self.rows, true);
        self.valid.push(false);
        self.rows = self.rows.wrapping_add(1);
        self.any_null = true;
    }

    fn truncate(&mut self, rows: usize) {
        match &mut self.data {
            Data::Null => {}
            Data::Bool(values) => values.truncate(rows),
            Data::I8(values) => values.truncate(rows),
            Data::I16(values) => values.truncate(rows),
            Data::I32(values) | Data::Date(values) => values.truncate(rows),
            Data::I64(values) | Data::Time(_, values) => values.truncate(rows),
            Data::U8(values) => values.truncate(rows),
            Data::U16(values) => values.truncate(rows),
            Data::U32(values) => values.truncate(rows),
            Data::U64(values) => values.truncate(rows),
            Data::F32(values) => values.truncate(rows),
            Data::F64(values) => values.truncate(rows),
            Data::Decimal(_, _, values) => values.truncate(rows),
            Data::Text(texts) => texts.truncate(rows),
            Data::Binary(ends, bytes) => {
                ends.truncate(rows.saturating_add(1));
                bytes.truncate(ends.last().copied().unwrap_or(0).unsigned_abs() as usize);
            }
            Data::List(ends, items) => {
                ends.truncate(rows.saturating_add(1));
                items.truncate(ends.last().copied().unwrap_or(0).unsigned_abs() as usize);
            }
            Data::Object(object) => object.truncate(rows),
        }
        self.valid.truncate(rows);
        self.rows = self.rows.min(rows);
    }

    #[inline]
    fn push(&mut self, nodes: &[Node<'_>], at: usize) -> Result<(), Mismatch> {
        let Some(node) = nodes.get(at) else { return Err(Mismatch::new("has no value")) };
        if matches!(node, Node::Static(StaticNode::Null)) {
            if !self.field.is_nullable() {
                return Err(Mismatch::new("is null and not nullable"));
            }
            self.push_null();
            return Ok(());
        }
        match &mut self.data {
            Data::Null => return Err(mismatch(nodes, at, "null")),
            Data::Bool(values) => match node {
                Node::Static(StaticNode::Bool(value)) => values.push(*value),
                _ => return Err(mismatch(nodes, at, "a bool")),
            },
            Data::I8(values) => values.push(whole(nodes, at, "an int8")?),
            Data::I16(values) => values.push(whole(nodes, at, "an int16")?),
            Data::I32(values) => values.push(whole(nodes, at, "an int32")?),
            Data::I64(values) => match node {
                Node::Static(StaticNode::I64(value)) => values.push(*value),
                _ => values.push(whole(nodes, at, "an int64")?),
            },
            Data::U8(values) => values.push(whole(nodes, at, "a uint8")?),
            Data::U16(values) => values.push(whole(nodes, at, "a uint16")?),
            Data::U32(values) => values.push(whole(nodes, at, "a uint32")?),
            Data::U64(values) => values.push(whole(nodes, at, "a uint64")?),
            Data::F32(values) => values.push(float(nodes, at)? as f32),
            Data::F64(values) => values.push(float(nodes, at)?),
            Data::Time(unit, values) => values.push(time(nodes, at, *unit)?),
            Data::Date(values) => values.push(date(nodes, at)?),
            Data::Decimal(precision, scale, values) => {
                values.push(decimal(nodes, at, *precision, *scale)?);
            }
            Data::Text(texts) => match node {
                Node::String(text) => texts.push(text),
                _ => texts.push(&write::node_text(nodes, at)),
            },
            Data::Binary(ends, bytes) => {
                let before = bytes.len();
                let decoded = match node {
                    Node::String(text) => base64::decode(text, bytes),
                    _ => None,
                };
                let end = i32::try_from(bytes.len()).ok();
                let (Some(()), Some(end)) = (decoded, end) else {
                    bytes.truncate(before);
                    return Err(mismatch(nodes, at, "base64 text"));
                };
                ends.push(end);
            }
            Data::List(ends, items) => push_list(ends, items, nodes, at)?,
            Data::Object(object) => match node {
                Node::Object { len, .. } => object.push(nodes, at, *len)?,
                _ => return Err(mismatch(nodes, at, "an object")),
            },
        }
        self.count_valid();
        Ok(())
    }

    fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let valid = std::mem::take(&mut self.valid);
        let any_null = std::mem::take(&mut self.any_null);
        let nulls = any_null.then(|| NullBuffer::new(BooleanBuffer::from(valid)));
        let array: ArrayRef = match &mut self.data {
            Data::Null => Arc::new(NullArray::new(rows)),
            Data::Bool(values) => {
                let values = BooleanBuffer::from(std::mem::take(values));
                Arc::new(BooleanArray::new(values, nulls))
            }
            Data::I8(values) => primitive::<Int8Type>(values, nulls),
            Data::I16(values) => primitive::<Int16Type>(values, nulls),
            Data::I32(values) => primitive::<Int32Type>(values, nulls),
            Data::I64(values) => primitive::<Int64Type>(values, nulls),
            Data::U8(values) => primitive::<UInt8Type>(values, nulls),
            Data::U16(values) => primitive::<UInt16Type>(values, nulls),
            Data::U32(values) => primitive::<UInt32Type>(values, nulls),
            Data::U64(values) => primitive::<UInt64Type>(values, nulls),
            Data::F32(values) => primitive::<Float32Type>(values, nulls),
            Data::F64(values) => primitive::<Float64Type>(values, nulls),
            Data::Date(values) => primitive::<Date32Type>(values, nulls),
            Data::Time(TimeUnit::Second, values) => primitive::<TimestampSecondType>(values, nulls),
            Data::Time(TimeUnit::Millisecond, values) => {
                primitive::<TimestampMillisecondType>(values, nulls)
            }
            Data::Time(TimeUnit::Microsecond, values) => {
                primitive::<TimestampMicrosecondType>(values, nulls)
            }
            Data::Time(TimeUnit::Nanosecond, values) => {
                primitive::<TimestampNanosecondType>(values, nulls)
            }
            Data::Decimal(precision, scale, values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                let array = Decimal128Array::try_new(values, nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Data::Text(texts) => Arc::new(texts.finish()),
            Data::Binary(ends, bytes) => {
                let offsets = take_offsets(ends);
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            Data::List(ends, items) => {
                let offsets = take_offsets(ends);
                let item = Arc::clone(&items.field);
                Arc::new(ListArray::try_new(item, offsets, items.finish()?, nulls)?)
            }
            Data::Object(object) => {
                object.rows = 0;
                let children = object.columns.iter_mut().map(Self::finish);
                let children = children.collect::<Result<Vec<_>, _>>()?;
                let DataType::Struct(fields) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError("a struct was expected".to_owned()));
                };
                let fields = fields.clone();
                Arc::new(StructArray::try_new_with_length(fields, children, nulls, rows)?)
            }
        };
        // The layouts of text, bytes, lists and zones that are not built directly.
        let wanted = self.field.data_type();
        if array.data_type() == wanted { Ok(array) } else { relabel(&array, wanted) }
    }
}

/// The same values in another layout or with a time zone.
fn relabel(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    match wanted {
        // A cast would take the values for local times of the zone.
        DataType::Timestamp(..) => {
            let data = array.to_data().into_builder().data_type(wanted.clone()).build()?;
            Ok(arrow::array::make_array(data))
        }
        _ => cast(array, wanted),
    }
}

fn push_list(
    ends: &mut Vec<i32>,
    items: &mut ColumnBuilder,
    nodes: &[Node<'_>],
    at: usize,
) -> Result<(), Mismatch> {
    let Some(Node::Array { len, .. }) = nodes.get(at) else {
        return Err(mismatch(nodes, at, "an array"));
    };
    let mut item_at = at.saturating_add(1);
    for index in 0..*len {
        items.push(nodes, item_at).map_err(|mismatch| mismatch.under(&format!("[{index}]")))?;
        item_at = behind(nodes, item_at);
    }
    let end = i32::try_from(items.len()).map_err(|_source| Mismatch::new("lists are too long"))?;
    ends.push(end);
    Ok(())
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(std::mem::take(values)), nulls))
}

fn take_offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])))
}

#[cold]
fn mismatch(nodes: &[Node<'_>], at: usize, wanted: &str) -> Mismatch {
    const SHOWN_MAX: usize = 60;
    let text = write::node_text(nodes, at);
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    Mismatch::new(format!("{shown}{more} is not {wanted}"))
}

/// The largest whole number that a float holds without doubt.
const FLOAT_WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

#[inline]
fn whole<T: TryFrom<i64> + TryFrom<u64> + std::str::FromStr>(
    nodes: &[Node<'_>],
    at: usize,
    wanted: &str,
) -> Result<T, Mismatch> {
    let value = match nodes.get(at) {
        Some(Node::Static(StaticNode::I64(value))) => T::try_from(*value).ok(),
        Some(Node::Static(StaticNode::U64(value))) => T::try_from(*value).ok(),
        Some(Node::Static(StaticNode::F64(value)))
            if value.fract() == 0.0 && value.abs() <= FLOAT_WHOLE_MAX =>
        {
            T::try_from(*value as i64).ok()
        }
        Some(Node::String(text)) => text.parse().ok(),
        _ => None,
    };
    value.ok_or_else(|| mismatch(nodes, at, wanted))
}

#[inline]
#[expect(clippy::cast_precision_loss, reason = "JSON has one number type; a float was asked for")]
fn float(nodes: &[Node<'_>], at: usize) -> Result<f64, Mismatch> {
    let value = match nodes.get(at) {
        Some(Node::Static(StaticNode::F64(value))) => Some(*value),
        Some(Node::Static(StaticNode::I64(value))) => Some(*value as f64),
        Some(Node::Static(StaticNode::U64(value))) => Some(*value as f64),
        Some(Node::String(text)) => text.parse().ok(),
        _ => None,
    };
    value.ok_or_else(|| mismatch(nodes, at, "a number"))
}

fn time(nodes: &[Node<'_>], at: usize, unit: TimeUnit) -> Result<i64, Mismatch> {
    let Some(Node::String(text)) = nodes.get(at) else {
        return whole(nodes, at, "a time: an ISO 8601 string or a whole number in the unit");
    };
    if let Some(value) = scan::iso_time(text.as_bytes(), unit) {
        return Ok(value);
    }
    let parsed = string_to_datetime(&Utc, text).ok().and_then(|time| match unit {
        TimeUnit::Second => Some(time.timestamp()),
        TimeUnit::Millisecond => Some(time.timestamp_millis()),
        TimeUnit::Microsecond => Some(time.timestamp_micros()),
        TimeUnit::Nanosecond => time.timestamp_nanos_opt(),
    });
    parsed.ok_or_else(|| mismatch(nodes, at, "an ISO 8601 time"))
}

fn date(nodes: &[Node<'_>], at: usize) -> Result<i32, Mismatch> {
    match nodes.get(at) {
        Some(Node::String(text)) => {
            Date32Type::parse(text).ok_or_else(|| mismatch(nodes, at, "a date YYYY-MM-DD"))
        }
        _ => whole(nodes, at, "a date YYYY-MM-DD"),
    }
}

fn decimal(nodes: &[Node<'_>], at: usize, precision: u8, scale: i8) -> Result<i128, Mismatch> {
    let text = match nodes.get(at) {
        Some(Node::String(text)) => (*text).to_owned(),
        Some(Node::Static(StaticNode::Bool(_))) | None => String::new(),
        // The shortest text of a float is the one that was written, up to 15 digits.
        Some(_) => write::node_text(nodes, at),
    };
    parse_decimal::<Decimal128Type>(&text, precision, scale)
        .map_err(|_source| mismatch(nodes, at, &format!("a decimal({precision}, {scale})")))
}

/// Fields that may all be null: tombstones and values that could not be decoded are null rows.
pub(crate) fn all_nullable(fields: &Fields) -> Fields {
    fields
        .iter()
        .map(|field| {
            if field.is_nullable() {
                Arc::clone(field)
            } else {
                Arc::new(Field::clone(field).with_nullable(true))
            }
        })
        .collect()
}
