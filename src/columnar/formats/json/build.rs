//! Column builders, fed from a JSON tape.
//!
//! Invariant **JB-1**: whatever a push does, `truncate(n)` restores a builder to its state when it
//! had `n` rows, so a row that fails half-way leaves no trace.

mod block;
mod direct;
mod finish;
mod scalar;
mod text;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::can_cast_types;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit, i256};
use simd_json::{Node, StaticNode};

use super::members::Watch;
use super::scan::{IsoTimes, KeyOrder};
use super::{Doc, JSON_TEXT, base64};
use crate::columnar::read::decode::TextBuilder;
use crate::error::{Error, Result};
pub(super) use scalar::is_wide;
use scalar::{
    date, decimal, decimal256, duration, float, float16, float32, mismatch, time, time_of_day,
    uuid, whole,
};
use text::node_text;

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
        write!(formatter, "column {:?}: {}", self.path, self.detail)
    }
}

/// The columns of the fields of an object.
#[derive(Debug)]
pub(super) struct ObjectBuilder {
    names: Vec<String>,
    columns: Vec<ColumnBuilder>,
    /// If members without a column are errors: those that are known but not wanted, and the prefix
    /// of names in errors.
    others: Option<(HashSet<String>, String)>,
    order: KeyOrder,
    rows: usize,
}

impl ObjectBuilder {
    /// A builder; `known` are the members that are not wanted, `watch` looks after any others, and
    /// `exact` forbids rounding whole numbers to floats.
    pub(super) fn new(
        fields: &Fields,
        known: HashSet<String>,
        watch: Option<&Watch>,
        exact: bool,
    ) -> Result<Self> {
        let others = watch.and_then(Watch::prefix).map(|path| (known, path.to_owned()));
        Ok(Self {
            names: fields.iter().map(|field| field.name().clone()).collect(),
            columns: fields
                .iter()
                .map(|field| {
                    let watch = watch.map(|watch| watch.member(field.name()));
                    ColumnBuilder::new(field, watch.as_ref(), exact)
                })
                .collect::<Result<_>>()?,
            others,
            order: KeyOrder::default(),
            rows: 0,
        })
    }

    pub(super) const fn len(&self) -> usize {
        self.rows
    }

    /// Appends the object of `len` fields at `at`.
    pub(super) fn push(&mut self, doc: &Doc<'_>, at: usize, len: usize) -> Result<(), Mismatch> {
        let row = self.rows;
        let mut filled = 0_usize;
        let mut expected = 0_usize;
        let mut at = at.saturating_add(1);
        for _ in 0..len {
            let Some(Node::String(name)) = doc.get(at) else { break };
            let value_at = at.saturating_add(1);
            if let Some(index) = self.find(name, expected) {
                if let Some(column) = self.columns.get_mut(index) {
                    if column.len() > row {
                        column.truncate(row);
                    } else {
                        filled = filled.saturating_add(1);
                    }
                    column.push(doc, value_at).map_err(|mismatch| mismatch.under(name))?;
                }
                expected = index.saturating_add(1);
            } else if let Some((known, path)) = &self.others
                && !known.contains(*name)
            {
                doc.note_extra(path, name);
            }
            at = doc.behind(value_at);
        }
        self.fill_missing(filled)?;
        self.rows = row.saturating_add(1);
        Ok(())
    }

    /// Appends nulls for the fields that an object with `filled` fields did not have.
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

    /// The index of a field; producers write fields in a fixed order, so the guess is usually
    /// right.
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

/// The values of a column while it is being built, by the kind of JSON that they accept.
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
    /// Of type float16, within its range.
    F16(Vec<f32>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Time(IsoTimes, Vec<i64>),
    Date(Vec<i32>),
    TimeOfDay(TimeUnit, Vec<i64>),
    Duration(TimeUnit, Vec<i64>),
    Decimal(u8, i8, Vec<i128>),
    Decimal256(u8, i8, Vec<i256>),
    Text(TextBuilder),
    /// The JSON texts of values.
    JsonText(TextBuilder),
    Binary(Vec<i32>, Vec<u8>),
    /// Bytes of one size.
    Fixed(usize, Vec<u8>),
    List(Vec<i32>, Box<ColumnBuilder>),
    /// Lists of one size.
    FixedList(usize, Box<ColumnBuilder>),
    /// Ends, keys and values.
    Map(Vec<i32>, Box<[ColumnBuilder; 2]>),
    Object(ObjectBuilder),
}

impl Data {
    fn new(
        field: &Field,
        data_type: &DataType,
        watch: Option<&Watch>,
        exact: bool,
    ) -> Result<Self> {
        let items = |item: &FieldRef| {
            let watch = watch.map(|watch| watch.inside("[]"));
            ColumnBuilder::new(item, watch.as_ref(), exact).map(Box::new)
        };
        Ok(match data_type {
            DataType::Null => Self::Null,
            DataType::Boolean => Self::Bool(Vec::new()),
            DataType::Int8 => Self::I8(Vec::new()),
            DataType::Int16 => Self::I16(Vec::new()),
            DataType::Int32 => Self::I32(Vec::new()),
            DataType::Int64 => Self::I64(Vec::new()),
            DataType::UInt8 => Self::U8(Vec::new()),
            DataType::UInt16 => Self::U16(Vec::new()),
            DataType::UInt32 => Self::U32(Vec::new()),
            DataType::UInt64 => Self::U64(Vec::new()),
            DataType::Float16 => Self::F16(Vec::new()),
            DataType::Float32 => Self::F32(Vec::new()),
            DataType::Float64 => Self::F64(Vec::new()),
            DataType::Timestamp(unit, _) => Self::Time(IsoTimes::new(*unit), Vec::new()),
            DataType::Date32 | DataType::Date64 => Self::Date(Vec::new()),
            DataType::Time32(unit) | DataType::Time64(unit) => Self::TimeOfDay(*unit, Vec::new()),
            DataType::Duration(unit) => Self::Duration(*unit, Vec::new()),
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale) => {
                Self::Decimal(*precision, *scale, Vec::new())
            }
            DataType::Decimal256(precision, scale) => {
                Self::Decimal256(*precision, *scale, Vec::new())
            }
            DataType::Utf8View if field.metadata().contains_key(JSON_TEXT) => {
                Self::JsonText(TextBuilder::default())
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Self::Text(TextBuilder::default())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Self::Binary(vec![0], Vec::new())
            }
            DataType::FixedSizeBinary(size) => {
                Self::Fixed(usize::try_from(*size).unwrap_or(0), Vec::new())
            }
            DataType::List(item) | DataType::LargeList(item) => Self::List(vec![0], items(item)?),
            DataType::FixedSizeList(item, size) => {
                Self::FixedList(usize::try_from(*size).unwrap_or(0), items(item)?)
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(parts) if parts.len() == 2 => {
                    let mut parts = parts.iter().map(items);
                    match (parts.next(), parts.next()) {
                        (Some(key), Some(value)) => Self::Map(vec![0], Box::new([*key?, *value?])),
                        _ => return Err(undecoded(field)),
                    }
                }
                _ => return Err(undecoded(field)),
            },
            DataType::Struct(fields) => {
                let watch = watch.map(|watch| watch.inside("."));
                Self::Object(ObjectBuilder::new(fields, HashSet::new(), watch.as_ref(), exact)?)
            }
            DataType::Dictionary(_, values) if can_cast_types(values, data_type) => {
                Self::new(field, values, watch, exact)?
            }
            _ => return Err(undecoded(field)),
        })
    }
}

#[cold]
fn undecoded(field: &Field) -> Error {
    Error::invalid(format!(
        "column {:?}: JSON cannot be decoded to {}; see the manual's page on types",
        field.name(),
        field.data_type()
    ))
}

/// A column while it is being built.
#[derive(Debug)]
pub(super) struct ColumnBuilder {
    field: FieldRef,
    data: Data,
    rows: usize,
    /// Whether whole numbers must not be rounded, because nobody asked for floats.
    exact: bool,
    /// Which rows are not null; kept from the first null on.
    valid: Vec<bool>,
    any_null: bool,
}

impl ColumnBuilder {
    fn new(field: &FieldRef, watch: Option<&Watch>, exact: bool) -> Result<Self> {
        let data = Data::new(field, field.data_type(), watch, exact)?;
        let field = Arc::clone(field);
        Ok(Self { field, data, rows: 0, exact, valid: Vec::new(), any_null: false })
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
            Data::I64(values)
            | Data::Time(_, values)
            | Data::TimeOfDay(_, values)
            | Data::Duration(_, values) => values.push(0),
            Data::U8(values) => values.push(0),
            Data::U16(values) => values.push(0),
            Data::U32(values) => values.push(0),
            Data::U64(values) => values.push(0),
            Data::F16(values) | Data::F32(values) => values.push(0.0),
            Data::F64(values) => values.push(0.0),
            Data::Decimal(_, _, values) => values.push(0),
            Data::Decimal256(_, _, values) => values.push(i256::ZERO),
            Data::Text(texts) | Data::JsonText(texts) => texts.push_null(),
            Data::Binary(ends, _) | Data::List(ends, _) | Data::Map(ends, _) => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
            Data::Fixed(size, bytes) => bytes.resize(bytes.len().saturating_add(*size), 0),
            Data::FixedList(size, items) => (0..*size).for_each(|_| items.push_null()),
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
            Data::I64(values)
            | Data::Time(_, values)
            | Data::TimeOfDay(_, values)
            | Data::Duration(_, values) => values.truncate(rows),
            Data::U8(values) => values.truncate(rows),
            Data::U16(values) => values.truncate(rows),
            Data::U32(values) => values.truncate(rows),
            Data::U64(values) => values.truncate(rows),
            Data::F16(values) | Data::F32(values) => values.truncate(rows),
            Data::F64(values) => values.truncate(rows),
            Data::Decimal(_, _, values) => values.truncate(rows),
            Data::Decimal256(_, _, values) => values.truncate(rows),
            Data::Text(texts) | Data::JsonText(texts) => texts.truncate(rows),
            Data::Binary(ends, bytes) => {
                ends.truncate(rows.saturating_add(1));
                bytes.truncate(ends.last().copied().unwrap_or(0).unsigned_abs() as usize);
            }
            Data::List(ends, items) => {
                ends.truncate(rows.saturating_add(1));
                items.truncate(ends.last().copied().unwrap_or(0).unsigned_abs() as usize);
            }
            Data::Fixed(size, bytes) => bytes.truncate(rows.saturating_mul(*size)),
            Data::FixedList(size, items) => items.truncate(rows.saturating_mul(*size)),
            Data::Map(ends, parts) => {
                ends.truncate(rows.saturating_add(1));
                let entries = ends.last().copied().unwrap_or(0).unsigned_abs() as usize;
                parts.iter_mut().for_each(|part| part.truncate(entries));
            }
            Data::Object(object) => object.truncate(rows),
        }
        self.valid.truncate(rows);
        self.rows = self.rows.min(rows);
    }

    #[inline]
    fn push(&mut self, doc: &Doc<'_>, at: usize) -> Result<(), Mismatch> {
        let Some(node) = doc.get(at) else { return Err(Mismatch::new("has no value")) };
        if matches!(node, Node::Static(StaticNode::Null)) {
            if !self.field.is_nullable() {
                return Err(Mismatch::new("is null and not nullable"));
            }
            self.push_null();
            return Ok(());
        }
        match &mut self.data {
            Data::Null => return Err(mismatch(doc, at, "null")),
            Data::Bool(values) => match node {
                Node::Static(StaticNode::Bool(value)) => values.push(*value),
                _ => return Err(mismatch(doc, at, "a bool")),
            },
            Data::I8(values) => values.push(whole(doc, at, "an int8")?),
            Data::I16(values) => values.push(whole(doc, at, "an int16")?),
            Data::I32(values) => values.push(whole(doc, at, "an int32")?),
            Data::I64(values) => match node {
                Node::Static(StaticNode::I64(value)) => values.push(*value),
                _ => values.push(whole(doc, at, "an int64")?),
            },
            Data::U8(values) => values.push(whole(doc, at, "a uint8")?),
            Data::U16(values) => values.push(whole(doc, at, "a uint16")?),
            Data::U32(values) => values.push(whole(doc, at, "a uint32")?),
            Data::U64(values) => values.push(whole(doc, at, "a uint64")?),
            Data::F16(values) => values.push(float16(doc, at)?),
            Data::F32(values) => values.push(float32(doc, at)?),
            Data::F64(values) => values.push(float(doc, at, self.exact)?),
            Data::Time(times, values) => values.push(time(doc, at, times.unit())?),
            Data::Date(values) => values.push(date(doc, at)?),
            Data::TimeOfDay(unit, values) => values.push(time_of_day(doc, at, *unit)?),
            Data::Duration(unit, values) => values.push(duration(doc, at, *unit)?),
            Data::Decimal(precision, scale, values) => {
                values.push(decimal(doc, at, *precision, *scale)?);
            }
            Data::Decimal256(precision, scale, values) => {
                values.push(decimal256(doc, at, *precision, *scale)?);
            }
            Data::Text(texts) => match node {
                Node::String(text) => texts.push(text),
                _ => texts.push(&node_text(doc, at)),
            },
            Data::JsonText(texts) => texts.push(&node_text(doc, at)),
            Data::Binary(ends, bytes) => push_bytes(ends, bytes, doc, at)?,
            Data::Fixed(size, bytes) => push_fixed(*size, bytes, doc, at)?,
            Data::List(ends, items) => push_list(ends, items, doc, at)?,
            Data::FixedList(size, items) => {
                let wanted =
                    |node: &Node<'_>| matches!(node, Node::Array { len, .. } if len == size);
                if !wanted(node) {
                    return Err(mismatch(doc, at, &format!("an array of {size}")));
                }
                push_items(items, doc, at)?;
            }
            Data::Map(ends, parts) => push_map(ends, parts, doc, at)?,
            Data::Object(object) => match node {
                Node::Object { len, .. } => object.push(doc, at, *len)?,
                _ => return Err(mismatch(doc, at, "an object")),
            },
        }
        self.count_valid();
        Ok(())
    }
}

fn push_list(
    ends: &mut Vec<i32>,
    items: &mut ColumnBuilder,
    doc: &Doc<'_>,
    at: usize,
) -> Result<(), Mismatch> {
    push_items(items, doc, at)?;
    ends.push(end_of(items)?);
    Ok(())
}

fn push_items(items: &mut ColumnBuilder, doc: &Doc<'_>, at: usize) -> Result<(), Mismatch> {
    let Some(Node::Array { len, .. }) = doc.get(at) else {
        return Err(mismatch(doc, at, "an array"));
    };
    let mut item_at = at.saturating_add(1);
    for index in 0..*len {
        items.push(doc, item_at).map_err(|mismatch| mismatch.under(&format!("[{index}]")))?;
        item_at = doc.behind(item_at);
    }
    Ok(())
}

fn end_of(items: &ColumnBuilder) -> Result<i32, Mismatch> {
    i32::try_from(items.len()).map_err(|_source| Mismatch::new("lists are too long"))
}

fn push_map(
    ends: &mut Vec<i32>,
    [keys, values]: &mut [ColumnBuilder; 2],
    doc: &Doc<'_>,
    at: usize,
) -> Result<(), Mismatch> {
    let Some(Node::Object { len, .. }) = doc.get(at) else {
        return Err(mismatch(doc, at, "an object"));
    };
    let mut name_at = at.saturating_add(1);
    for _ in 0..*len {
        let Some(Node::String(name)) = doc.get(name_at) else { break };
        keys.push(doc, name_at).map_err(|mismatch| mismatch.under("[key]"))?;
        let value_at = name_at.saturating_add(1);
        values.push(doc, value_at).map_err(|mismatch| mismatch.under(name))?;
        name_at = doc.behind(value_at);
    }
    ends.push(end_of(keys)?);
    Ok(())
}

/// Appends bytes from base64.
fn push_bytes(
    ends: &mut Vec<i32>,
    bytes: &mut Vec<u8>,
    doc: &Doc<'_>,
    at: usize,
) -> Result<(), Mismatch> {
    let before = bytes.len();
    let decoded = match doc.get(at) {
        Some(Node::String(text)) => base64::decode(text, bytes),
        _ => None,
    };
    let end = i32::try_from(bytes.len()).ok();
    let (Some(()), Some(end)) = (decoded, end) else {
        bytes.truncate(before);
        return Err(mismatch(doc, at, "base64 text"));
    };
    ends.push(end);
    Ok(())
}

/// Appends bytes of one size, from base64 or from the text of a UUID.
fn push_fixed(size: usize, bytes: &mut Vec<u8>, doc: &Doc<'_>, at: usize) -> Result<(), Mismatch> {
    let before = bytes.len();
    if let Some(Node::String(text)) = doc.get(at) {
        if let Some(id) = uuid(text).filter(|id| id.len() == size) {
            bytes.extend_from_slice(&id);
            return Ok(());
        }
        let decoded = base64::decode(text, bytes);
        if decoded.is_some() && bytes.len() == before.saturating_add(size) {
            return Ok(());
        }
        bytes.truncate(before);
    }
    let or_uuid = if size == 16 { " or a UUID (32 hexadecimal digits)" } else { "" };
    Err(mismatch(doc, at, &format!("base64 text of {size} bytes{or_uuid}")))
}

/// The fields, all nullable: tombstones and values that could not be decoded are null rows.
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
