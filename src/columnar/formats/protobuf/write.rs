//! Rows of Arrow columns to Protobuf messages.
//!
//! Fields are written in the order of their numbers, and those with their default are left out
//! where Protobuf does not track whether they are set, so the bytes are the same as other writers'.
//! Nulls become fields that are not set; where a reader would see a default or an empty list
//! instead, they are refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, UInt64Type};
use arrow::record_batch::RecordBatch;

use super::schema::{FieldDef, Kind, Message, ProtobufSchema, Shape, Symbols};
use super::wire::{put_delimited, put_sint, put_varint};
use crate::columnar::formats::writing::RowEncoder;
use crate::columnar::write::bytes_column::BytesColumn;
use crate::columnar::write::cells;
use crate::columnar::write::cells::Typed;
use crate::error::{Error, Result};

/// Writes the rows of one table.
#[derive(Debug)]
pub(in crate::columnar) struct ProtobufWriter {
    fields: Members,
}

impl ProtobufWriter {
    /// Prepares the columns of a table.
    ///
    /// # Errors
    /// An invalid argument for columns that the message does not have, or that do not match it.
    pub(in crate::columnar) fn new(
        rows: &RecordBatch,
        schema: &ProtobufSchema,
        exclude: &[String],
    ) -> Result<Self> {
        let columns: Vec<Typed<'_>> = cells::columns(rows, exclude).collect();
        Ok(Self { fields: Members::new(schema.root(), &columns, "")? })
    }
}

impl RowEncoder for ProtobufWriter {
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        self.fields.write(row, output)
    }
}

/// The columns of a message's fields, in the order of the numbers.
#[derive(Debug)]
struct Members {
    cells: Vec<Cell>,
    /// Whether there are two columns of the same oneof.
    choices: bool,
}

#[derive(Debug)]
struct Cell {
    path: String,
    number: u32,
    oneof: Option<usize>,
    /// Why it must not be null.
    required: Option<&'static str>,
    nulls: Option<NullBuffer>,
    put: Put,
}

#[derive(Debug)]
enum Put {
    /// A value, which is left out if it is the default.
    One {
        value: Value,
        implicit: bool,
        group: bool,
    },
    Many {
        offsets: OffsetBuffer<i32>,
        nulls: Option<NullBuffer>,
        items: Value,
        packed: bool,
    },
    Map {
        offsets: OffsetBuffer<i32>,
        keys: Value,
        nulls: Option<NullBuffer>,
        values: Value,
    },
}

/// Values of one kind.
#[derive(Debug)]
enum Value {
    Int(Kind, ScalarBuffer<i64>),
    Uint(Kind, ScalarBuffer<u64>),
    Float(ScalarBuffer<f32>),
    Double(ScalarBuffer<f64>),
    Bool(BooleanBuffer),
    Bytes(BytesColumn),
    /// The bytes of a message.
    Opaque(BytesColumn),
    Enum(BytesColumn, BTreeMap<Vec<u8>, i32>, Arc<Symbols>),
    Message(Members),
    /// Since 1970, in parts of a second.
    Time(ScalarBuffer<i64>, i64),
    /// How long, in parts of a second.
    Span(ScalarBuffer<i64>, i64),
    Wrapper(Box<Self>),
    /// Nothing but nulls, whatever the type of the values would be.
    AllNull,
}

impl Members {
    fn new(message: &Message, columns: &[Typed<'_>], path: &str) -> Result<Self> {
        let full =
            |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let mut cells: Vec<Cell> = Vec::with_capacity(columns.len());
        for column in columns {
            let name = column.0.name();
            let Some(field) = message.fields.iter().find(|field| field.name == *name) else {
                return Err(Error::invalid(format!(
                    "column {:?} is not a field of the Protobuf message {:?}; leave it out with \
                     exclude=, or pass another schema",
                    full(name),
                    message.name
                )));
            };
            cells.push(Cell::new(&full(name), *column, field)?);
        }
        for field in &message.fields {
            let required = matches!(field.shape, Shape::One { required: true, .. });
            if required && !columns.iter().any(|(known, _)| field.name == *known.name()) {
                let path = full(&field.name);
                return Err(Error::invalid(format!(
                    "there is no column {path:?}, which is required"
                )));
            }
        }
        cells.sort_by_key(|cell| cell.number);
        let choices = cells.iter().enumerate().any(|(at, cell)| {
            cell.oneof.is_some()
                && cells.iter().skip(at.saturating_add(1)).any(|other| other.oneof == cell.oneof)
        });
        Ok(Self { cells, choices })
    }

    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        if self.choices {
            self.check_choices(row)?;
        }
        self.cells.iter().try_for_each(|cell| cell.write(row, output))
    }

    fn check_choices(&self, row: usize) -> Result<(), String> {
        let mut set: BTreeMap<usize, &str> = BTreeMap::new();
        for cell in &self.cells {
            let Some(oneof) = cell.oneof else { continue };
            if cells::is_null(cell.nulls.as_ref(), row) {
                continue;
            }
            if let Some(other) = set.insert(oneof, &cell.path) {
                return Err(format!(
                    "columns {other:?} and {:?} are members of the same oneof, and both are set",
                    cell.path
                ));
            }
        }
        Ok(())
    }
}

impl Cell {
    fn new(path: &str, column: Typed<'_>, field: &FieldDef) -> Result<Self> {
        let array = column.1;
        let mut required = None;
        let put = match &field.shape {
            Shape::One { presence, required: is_required } => {
                let implicit = !*presence && !field.kind.is_message();
                if *is_required {
                    required = Some("it is required");
                } else if implicit {
                    required = Some(
                        "would be read as its default, since the field is not optional; make it \
                         optional, or fill the nulls",
                    );
                }
                Put::One {
                    value: Value::new(path, column, &field.kind)?,
                    implicit,
                    group: field.group,
                }
            }
            Shape::Many { packed } => {
                required = Some("would be read as an empty list; fill the nulls");
                let (offsets, items) = cells::lists(path, array)?;
                let nulls = cells::nulls(&items.1);
                let items = Value::new(&format!("{path}[]"), cells::typed(&items), &field.kind)
                    .map_err(|error| cells::in_row_of(&offsets, error))?;
                Put::Many { offsets, nulls, items, packed: *packed && field.kind.packs() }
            }
            Shape::Map(key) => {
                required = Some("would be read as an empty map; fill the nulls");
                let (offsets, keys, values) = cells::maps(path, array)?;
                let nulls = cells::nulls(&values.1);
                let inside = format!("{path}{{}}");
                let new = |part, kind| {
                    Value::new(&inside, cells::typed(part), kind)
                        .map_err(|error| cells::in_row_of(&offsets, error))
                };
                let (keys, values) = (new(&keys, key)?, new(&values, &field.kind)?);
                Put::Map { offsets, keys, nulls, values }
            }
        };
        Ok(Self {
            path: path.to_owned(),
            number: field.number,
            oneof: field.oneof,
            required,
            nulls: cells::nulls(array),
            put,
        })
    }

    #[inline]
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        if cells::is_null(self.nulls.as_ref(), row) {
            return match self.required {
                Some(why) => Err(format!("column {:?} is null, and {why}", self.path)),
                None => Ok(()),
            };
        }
        self.put(row, output).map_err(|detail| {
            if detail.starts_with("column") {
                detail
            } else {
                format!("column {:?}: {detail}", self.path)
            }
        })
    }

    fn put(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        let number = self.number;
        match &self.put {
            Put::One { value, implicit, group } => {
                if *implicit && value.is_default(row) {
                    return Ok(());
                }
                if *group && let Value::Message(members) = value {
                    put_tag(number, 3, output);
                    members.write(row, output)?;
                    put_tag(number, 4, output);
                    return Ok(());
                }
                value.field(number, row, output)
            }
            Put::Many { offsets, nulls, items, packed } => {
                let range = cells::range(offsets, row);
                if range.is_empty() {
                    return Ok(());
                }
                let is_null = |at: &usize| cells::is_null(nulls.as_ref(), *at);
                if let Some(at) = range.clone().find(is_null) {
                    let at = at.saturating_sub(range.start);
                    return Err(format!(
                        "item {at} of the list is null, which Protobuf cannot represent"
                    ));
                }
                if *packed {
                    put_tag(number, 2, output);
                    return put_delimited(output, |output| {
                        range.into_iter().try_for_each(|at| items.put(at, output))
                    });
                }
                range.into_iter().try_for_each(|at| items.field(number, at, output))
            }
            Put::Map { offsets, keys, nulls, values } => {
                cells::range(offsets, row).into_iter().try_for_each(|at| {
                    if cells::is_null(nulls.as_ref(), at) {
                        return Err("a value of the map is null".to_owned());
                    }
                    put_tag(number, 2, output);
                    put_delimited(output, |output| {
                        keys.field(1, at, output)?;
                        values.field(2, at, output)
                    })
                })
            }
        }
    }
}

fn put_tag(number: u32, wire_type: u64, output: &mut Vec<u8>) {
    put_varint(u64::from(number) << 3 | wire_type, output);
}

impl Value {
    fn new(path: &str, column: Typed<'_>, kind: &Kind) -> Result<Self> {
        let array = column.1;
        if cells::is_untyped(array) {
            return Ok(Self::AllNull);
        }
        Ok(match kind {
            Kind::Double => Self::Double(cells::f64s(path, array)?),
            Kind::Float => Self::Float(cells::f32s(path, array)?),
            Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
                cells::i32s(path, array)?;
                Self::Int(kind.clone(), cells::i64s(path, array)?)
            }
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
                Self::Int(kind.clone(), cells::i64s(path, array)?)
            }
            Kind::Uint32 | Kind::Fixed32 | Kind::Uint64 | Kind::Fixed64 => {
                Self::Uint(kind.clone(), unsigned(path, array, kind)?)
            }
            Kind::Bool => Self::Bool(cells::bools(path, array)?),
            Kind::Text => Self::Bytes(cells::texts(path, column)?),
            Kind::Bytes => Self::Bytes(cells::bytes(path, array)?),
            Kind::Opaque => Self::Opaque(cells::bytes(path, array)?),
            Kind::Enum(symbols) => Self::of_enum(path, column, symbols)?,
            Kind::Timestamp => {
                let (unit, rate) = unit_of(array.data_type());
                Self::Time(cells::instants(path, array, unit, false)?, rate)
            }
            Kind::Duration => {
                if !matches!(array.data_type(), DataType::Duration(_)) {
                    return Err(cells::unfit(path, array.data_type(), "durations"));
                }
                let (unit, rate) = unit_of(array.data_type());
                let array = cells::cast_exactly(path, array, &DataType::Duration(unit))?;
                let numbers = cells::cast(path, &array, &DataType::Int64)?;
                Self::Span(numbers.as_primitive::<Int64Type>().values().clone(), rate)
            }
            Kind::Wrapper(inner) => Self::Wrapper(Box::new(Self::new(path, column, inner)?)),
            Kind::Message(message) => {
                Self::Message(Members::new(message, &cells::members(path, array)?, path)?)
            }
        })
    }

    fn of_enum(path: &str, column: Typed<'_>, symbols: &Arc<Symbols>) -> Result<Self> {
        let plain = cells::plain(path, column.1)?;
        if plain.data_type().is_integer() {
            cells::i32s(path, &plain)?;
            return Ok(Self::Int(Kind::Int32, cells::i64s(path, &plain)?));
        }
        let known = symbols.values.iter().chain(&symbols.aliases);
        let known = known.map(|(number, name)| (name.clone().into_bytes(), *number));
        Ok(Self::Enum(cells::texts(path, column)?, known.collect(), Arc::clone(symbols)))
    }

    /// Whether it is the value of a missing field.
    #[inline]
    fn is_default(&self, row: usize) -> bool {
        match self {
            Self::Int(_, values) => values.get(row).is_none_or(|value| *value == 0),
            Self::Uint(_, values) => values.get(row).is_none_or(|value| *value == 0),
            // A negative zero is a different value.
            Self::Float(values) => values.get(row).is_none_or(|value| value.to_bits() == 0),
            Self::Double(values) => values.get(row).is_none_or(|value| value.to_bits() == 0),
            Self::Bool(values) => !values.value(row),
            Self::Bytes(values) => values.get(row).is_none_or(<[u8]>::is_empty),
            Self::Enum(values, known, symbols) => {
                enum_number(values, known, symbols, row).is_ok_and(|number| number == 0)
            }
            Self::Opaque(_)
            | Self::Message(_)
            | Self::Time(..)
            | Self::Span(..)
            | Self::Wrapper(_)
            | Self::AllNull => false,
        }
    }

    fn wire_type(&self) -> u64 {
        match self {
            Self::Int(Kind::Sfixed64, _) | Self::Uint(Kind::Fixed64, _) | Self::Double(_) => 1,
            Self::Int(Kind::Sfixed32, _) | Self::Uint(Kind::Fixed32, _) | Self::Float(_) => 5,
            Self::Int(..) | Self::Uint(..) | Self::Bool(_) | Self::Enum(..) => 0,
            _ => 2,
        }
    }

    fn field(&self, number: u32, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        put_tag(number, self.wire_type(), output);
        self.put(row, output)
    }

    #[inline]
    fn put(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Int(kind, values) => {
                let value = values.get(row).copied().unwrap_or(0);
                match kind {
                    Kind::Sint32 | Kind::Sint64 => put_sint(value, output),
                    Kind::Sfixed32 => output.extend((value as i32).to_le_bytes()),
                    Kind::Sfixed64 => output.extend(value.to_le_bytes()),
                    _ => put_varint(value as u64, output),
                }
            }
            Self::Uint(kind, values) => {
                let value = values.get(row).copied().unwrap_or(0);
                match kind {
                    Kind::Fixed32 => output.extend((value as u32).to_le_bytes()),
                    Kind::Fixed64 => output.extend(value.to_le_bytes()),
                    _ => put_varint(value, output),
                }
            }
            Self::Float(values) => {
                output.extend(values.get(row).copied().unwrap_or(0.0).to_le_bytes());
            }
            Self::Double(values) => {
                output.extend(values.get(row).copied().unwrap_or(0.0).to_le_bytes());
            }
            Self::Bool(values) => output.push(u8::from(values.value(row))),
            Self::Bytes(values) | Self::Opaque(values) => {
                let bytes = values.get(row).unwrap_or_default();
                put_varint(bytes.len() as u64, output);
                output.extend_from_slice(bytes);
            }
            Self::Enum(values, known, symbols) => {
                let number = enum_number(values, known, symbols, row)?;
                put_varint(i64::from(number) as u64, output);
            }
            Self::Message(members) => put_delimited(output, |output| members.write(row, output))?,
            Self::Time(values, rate) => {
                let value = values.get(row).copied().unwrap_or(0);
                let (seconds, nanos) = (value.div_euclid(*rate), value.rem_euclid(*rate));
                put_delimited(output, |output| {
                    put_time(seconds, nanos, *rate, output);
                    Ok::<(), String>(())
                })?;
            }
            Self::Span(values, rate) => {
                // Both parts have the sign of the whole.
                let value = values.get(row).copied().unwrap_or(0);
                let (seconds, nanos) = (value / rate, value % rate);
                put_delimited(output, |output| {
                    put_time(seconds, nanos, *rate, output);
                    Ok::<(), String>(())
                })?;
            }
            Self::Wrapper(inner) => put_delimited(output, |output| {
                if inner.is_default(row) { Ok(()) } else { inner.field(1, row, output) }
            })?,
            Self::AllNull => {}
        }
        Ok(())
    }
}

/// The number of an enum's name; a name that is a number stands for itself.
fn enum_number(
    values: &BytesColumn,
    known: &BTreeMap<Vec<u8>, i32>,
    symbols: &Symbols,
    row: usize,
) -> Result<i32, String> {
    let name = values.get(row).unwrap_or_default();
    if let Some(number) = known.get(name) {
        return Ok(*number);
    }
    let text = String::from_utf8_lossy(name);
    text.parse().map_err(|_source| format!("{text:?} is not a value of enum {:?}", symbols.name))
}

/// Seconds, and parts of one.
fn put_time(seconds: i64, parts: i64, rate: i64, output: &mut Vec<u8>) {
    let nanos = parts.saturating_mul(1_000_000_000_i64.checked_div(rate).unwrap_or(1));
    if seconds != 0 {
        put_tag(1, 0, output);
        put_varint(seconds as u64, output);
    }
    if nanos != 0 {
        put_tag(2, 0, output);
        put_varint(nanos as u64, output);
    }
}

/// The unit that times are read in, and how many of it make a second.
fn unit_of(data_type: &DataType) -> (TimeUnit, i64) {
    match data_type {
        DataType::Timestamp(TimeUnit::Nanosecond, _) | DataType::Duration(TimeUnit::Nanosecond) => {
            (TimeUnit::Nanosecond, 1_000_000_000)
        }
        _ => (TimeUnit::Microsecond, 1_000_000),
    }
}

fn unsigned(path: &str, array: &ArrayRef, kind: &Kind) -> Result<ScalarBuffer<u64>> {
    let array = cells::plain(path, array)?;
    if !array.data_type().is_integer() {
        return Err(cells::unfit(path, array.data_type(), "whole numbers"));
    }
    if matches!(kind, Kind::Uint32 | Kind::Fixed32) {
        cells::cast(path, &array, &DataType::UInt32)?;
    }
    let array = cells::cast(path, &array, &DataType::UInt64)?;
    Ok(array.as_primitive::<UInt64Type>().values().clone())
}
