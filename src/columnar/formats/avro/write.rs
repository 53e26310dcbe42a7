//! Rows of Arrow columns to Avro values.
//!
//! An [`AvroWriter`] is created for a table and a schema: each field of the schema takes the column
//! of the same name, cast once, or its default. Columns that the schema lacks are refused, so that
//! nothing is left out silently.

use std::collections::BTreeMap;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, Decimal256Type, TimeUnit, i256};
use arrow::record_batch::RecordBatch;

use super::json_default;
use super::mapping::{Shape, VALUE_COLUMN, member_name, shape};
use super::schema::{AvroSchema, Decimal, EnumSchema, Logical, RecordSchema, Schema};
use crate::columnar::formats::writing::RowEncoder;
use crate::columnar::write::bytes_column::BytesColumn;
use crate::columnar::write::cells;
use crate::columnar::write::cells::Typed;
use crate::error::{Error, Result};

#[inline]
pub(super) fn put_long(value: i64, output: &mut Vec<u8>) {
    let mut rest = (value.wrapping_shl(1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        output.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    output.push(rest as u8);
}

#[inline]
pub(super) fn put_bytes(bytes: &[u8], output: &mut Vec<u8>) {
    put_long(bytes.len() as i64, output);
    output.extend_from_slice(bytes);
}

/// Writes the rows of one table.
#[derive(Debug)]
pub(in crate::columnar) struct AvroWriter {
    fields: Vec<Cell>,
}

impl AvroWriter {
    /// Prepares the columns of a table.
    ///
    /// # Errors
    /// An invalid argument for columns that the schema lacks, or that do not match it.
    pub(in crate::columnar) fn new(
        rows: &RecordBatch,
        schema: &AvroSchema,
        exclude: &[String],
    ) -> Result<Self> {
        let columns: Vec<Typed<'_>> = cells::columns(rows, exclude).collect();
        let fields = match &schema.root {
            Schema::Record(record) => members(record, &columns, "")?,
            other => match columns.as_slice() {
                [column] => vec![Cell::new(column.0.name(), *column, other)?],
                _ => {
                    return Err(Error::invalid(format!(
                        "the Avro schema is {}, not a record; it takes one column, such as \
                         {VALUE_COLUMN:?}, but there are {}",
                        other.name(),
                        columns.len()
                    )));
                }
            },
        };
        Ok(Self { fields })
    }
}

impl RowEncoder for AvroWriter {
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        self.fields.iter().try_for_each(|field| field.write(row, output))
    }
}

/// A cell for each field of a record, from the columns of these names.
fn members(record: &RecordSchema, columns: &[Typed<'_>], path: &str) -> Result<Vec<Cell>> {
    let full =
        |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    for (name, _) in columns.iter().map(|(field, array)| (field.name(), array)) {
        if !record.fields.iter().any(|field| field.name == *name) {
            return Err(Error::invalid(format!(
                "column {:?} is not in the Avro schema {:?}; leave it out with exclude=, or pass \
                 another schema",
                full(name),
                record.named.name
            )));
        }
    }
    let mut cells = Vec::with_capacity(record.fields.len());
    for field in &record.fields {
        let path = full(&field.name);
        let found = columns.iter().find(|(known, _)| *known.name() == field.name);
        cells.push(match (found, &field.default) {
            (Some(column), _) => Cell::new(&path, *column, &field.schema)?,
            (None, Some(default)) => {
                let mut bytes = Vec::new();
                json_default::encode(default, &field.schema, &mut bytes).map_err(|detail| {
                    Error::invalid(format!("the default of field {path:?}: {detail}"))
                })?;
                Cell { path, nulls: None, branches: None, put: Put::Constant(bytes) }
            }
            (None, None) => {
                return Err(Error::invalid(format!(
                    "the Avro schema has a field {path:?} without a default, but there is no such \
                     column"
                )));
            }
        });
    }
    Ok(cells)
}

/// A column and how its values are written.
#[derive(Debug)]
struct Cell {
    path: String,
    nulls: Option<NullBuffer>,
    /// The branches of null and of the value in a union of the two.
    branches: Option<(i64, i64)>,
    put: Put,
}

#[derive(Debug)]
enum Put {
    Constant(Vec<u8>),
    Null,
    /// Of a column of nothing but nulls, whatever the type of its values would be.
    AllNull,
    Bool(BooleanBuffer),
    Int(ScalarBuffer<i32>),
    Long(ScalarBuffer<i64>),
    Float(ScalarBuffer<f32>),
    Double(ScalarBuffer<f64>),
    Bytes(BytesColumn),
    Fixed(BytesColumn, usize),
    /// The size is that of a fixed type.
    Decimal(ScalarBuffer<i256>, Option<usize>),
    Enum(BytesColumn, BTreeMap<Vec<u8>, i64>),
    Array(OffsetBuffer<i32>, Box<Cell>),
    Map(OffsetBuffer<i32>, BytesColumn, Box<Cell>),
    Record(Vec<Cell>),
    /// The members of a struct that represents a union, with their branches.
    Union(Vec<(i64, Cell)>),
}

fn branch_of(schema: &Schema, wanted: &Schema) -> i64 {
    match schema {
        Schema::Union(branches) => {
            branches.iter().position(|branch| branch == wanted).map_or(0, |at| at as i64)
        }
        _ => 0,
    }
}

impl Cell {
    fn new(path: &str, (field, array): Typed<'_>, schema: &Schema) -> Result<Self> {
        let null_branch = || branch_of(schema, &Schema::Null);
        let (put, branches) = match shape(schema) {
            Shape::Null => {
                // The branch of a union of only null is written as well.
                let is_union = matches!(schema, Schema::Union(_));
                (Put::Null, is_union.then(|| (null_branch(), -1)))
            }
            Shape::One(one, null) => {
                let branches = match schema {
                    Schema::Union(_) if null => Some((null_branch(), branch_of(schema, one))),
                    // The branch is written even for a union of only one type.
                    Schema::Union(_) => Some((-1, 0)),
                    _ => None,
                };
                (Put::new(path, (field, array), one)?, branches)
            }
            Shape::Members(_, null) if cells::is_untyped(array) => {
                (Put::AllNull, null.then(|| (null_branch(), -1)))
            }
            Shape::Members(members, null) => {
                let DataType::Struct(fields) = array.data_type() else {
                    return Err(cells::unfit(
                        path,
                        array.data_type(),
                        "structs with a member for each branch of the union",
                    ));
                };
                let mut parts = Vec::with_capacity(members.len());
                for member in &members {
                    let name = member_name(member, &members);
                    let Some((at, field)) = fields.find(name) else { continue };
                    let part = array.as_struct().column(at);
                    let cell =
                        Self::new(&format!("{path}.{name}"), (field.as_ref(), part), member)?;
                    parts.push((branch_of(schema, member), cell));
                }
                (Put::Union(parts), null.then(|| (null_branch(), -1)))
            }
        };
        Ok(Self { path: path.to_owned(), nulls: cells::nulls(array), branches, put })
    }

    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        if cells::is_null(self.nulls.as_ref(), row) {
            return match (self.branches, &self.put) {
                (Some((null, _)), _) if null >= 0 => {
                    put_long(null, output);
                    Ok(())
                }
                (None, Put::Null) => Ok(()),
                _ => Err(format!(
                    "column {:?} is null, which its Avro schema does not allow",
                    self.path
                )),
            };
        }
        if let Some((_, branch)) = self.branches
            && branch >= 0
        {
            put_long(branch, output);
        }
        self.put.write(row, output).map_err(|detail| {
            // The innermost column says it all.
            if detail.starts_with("column") {
                detail
            } else {
                format!("column {:?}: {detail}", self.path)
            }
        })
    }
}

impl Put {
    fn new(path: &str, column: Typed<'_>, schema: &Schema) -> Result<Self> {
        let array = column.1;
        if cells::is_untyped(array) {
            return Ok(Self::AllNull);
        }
        Ok(match schema {
            Schema::Null | Schema::Union(_) => Self::Null,
            Schema::Boolean => Self::Bool(cells::bools(path, array)?),
            Schema::Int(None) => Self::Int(cells::i32s(path, array)?),
            Schema::Int(Some(Logical::Date)) => Self::Int(cells::days(path, array)?),
            Schema::Int(Some(_)) => {
                Self::Long(cells::times_of_day(path, array, TimeUnit::Millisecond)?)
            }
            Schema::Long(None) => Self::Long(cells::i64s(path, array)?),
            Schema::Long(Some(logical)) => Self::Long(long_times(path, array, *logical)?),
            Schema::Float => Self::Float(cells::f32s(path, array)?),
            Schema::Double => Self::Double(cells::f64s(path, array)?),
            Schema::Bytes(None) => Self::Bytes(cells::bytes(path, array)?),
            Schema::Bytes(Some(decimal)) => Self::Decimal(decimals(path, array, decimal)?, None),
            Schema::String => Self::Bytes(cells::texts(path, column)?),
            Schema::Fixed(fixed) => match &fixed.decimal {
                Some(decimal) => Self::Decimal(decimals(path, array, decimal)?, Some(fixed.size)),
                None => Self::Fixed(cells::bytes(path, array)?, fixed.size),
            },
            Schema::Enum(known) => Self::Enum(cells::texts(path, column)?, symbols(known)),
            Schema::Array(items) => {
                let (offsets, values) = cells::lists(path, array)?;
                let cell = Cell::new(&format!("{path}[]"), cells::typed(&values), items)
                    .map_err(|error| cells::in_row_of(&offsets, error))?;
                Self::Array(offsets, Box::new(cell))
            }
            Schema::Map(schema) => {
                let (offsets, keys, values) = cells::maps(path, array)?;
                let cell = Cell::new(&format!("{path}{{}}"), cells::typed(&values), schema)
                    .map_err(|error| cells::in_row_of(&offsets, error))?;
                Self::Map(offsets, cells::texts(path, cells::typed(&keys))?, Box::new(cell))
            }
            Schema::Record(record) => {
                Self::Record(members(record, &cells::members(path, array)?, path)?)
            }
        })
    }

    #[inline]
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        match self {
            Self::Constant(bytes) => output.extend_from_slice(bytes),
            Self::Null | Self::AllNull => {
                return Err("it is not null, but its Avro schema allows only null".to_owned());
            }
            Self::Bool(values) => output.push(u8::from(values.value(row))),
            Self::Int(values) => put_long(values.get(row).copied().unwrap_or(0).into(), output),
            Self::Long(values) => put_long(values.get(row).copied().unwrap_or(0), output),
            Self::Float(values) => {
                output.extend(values.get(row).copied().unwrap_or(0.0).to_le_bytes());
            }
            Self::Double(values) => {
                output.extend(values.get(row).copied().unwrap_or(0.0).to_le_bytes());
            }
            Self::Bytes(values) => put_bytes(values.get(row).unwrap_or_default(), output),
            Self::Fixed(values, size) => {
                let bytes = values.get(row).unwrap_or_default();
                if bytes.len() != *size {
                    return Err(format!("{} bytes are not a fixed({size})", bytes.len()));
                }
                output.extend_from_slice(bytes);
            }
            Self::Decimal(values, size) => {
                put_decimal(values.get(row).copied().unwrap_or(i256::ZERO), *size, output)?;
            }
            Self::Enum(values, symbols) => {
                let symbol = values.get(row).unwrap_or_default();
                let index = symbols.get(symbol).ok_or_else(|| {
                    format!("{:?} is not a symbol of the enum", String::from_utf8_lossy(symbol))
                })?;
                put_long(*index, output);
            }
            Self::Array(offsets, items) => {
                let range = cells::range(offsets, row);
                if !range.is_empty() {
                    put_long(range.len() as i64, output);
                    range.into_iter().try_for_each(|at| items.write(at, output))?;
                }
                put_long(0, output);
            }
            Self::Map(offsets, keys, values) => {
                let range = cells::range(offsets, row);
                if !range.is_empty() {
                    put_long(range.len() as i64, output);
                    for at in range {
                        put_bytes(keys.get(at).ok_or("a key of a map is null")?, output);
                        values.write(at, output)?;
                    }
                }
                put_long(0, output);
            }
            Self::Record(fields) => {
                fields.iter().try_for_each(|field| field.write(row, output))?;
            }
            Self::Union(parts) => {
                let set = |cell: &Cell| !cells::is_null(cell.nulls.as_ref(), row);
                let mut there = parts.iter().filter(|(_, cell)| set(cell));
                match (there.next(), there.next()) {
                    (Some((branch, cell)), None) => {
                        put_long(*branch, output);
                        cell.write(row, output)?;
                    }
                    _ => return Err("not exactly one member of the union is set".to_owned()),
                }
            }
        }
        Ok(())
    }
}

fn symbols(known: &EnumSchema) -> BTreeMap<Vec<u8>, i64> {
    (0_i64..).zip(&known.symbols).map(|(at, symbol)| (symbol.clone().into_bytes(), at)).collect()
}

fn long_times(path: &str, array: &ArrayRef, logical: Logical) -> Result<ScalarBuffer<i64>> {
    let (unit, local) = match logical {
        Logical::TimeMicros | Logical::Date | Logical::TimeMillis => {
            return cells::times_of_day(path, array, TimeUnit::Microsecond);
        }
        Logical::TimestampMillis => (TimeUnit::Millisecond, false),
        Logical::TimestampMicros => (TimeUnit::Microsecond, false),
        Logical::TimestampNanos => (TimeUnit::Nanosecond, false),
        Logical::LocalMillis => (TimeUnit::Millisecond, true),
        Logical::LocalMicros => (TimeUnit::Microsecond, true),
        Logical::LocalNanos => (TimeUnit::Nanosecond, true),
    };
    cells::instants(path, array, unit, local)
}

fn decimals(path: &str, array: &ArrayRef, decimal: &Decimal) -> Result<ScalarBuffer<i256>> {
    if !array.data_type().is_numeric() {
        return Err(cells::unfit(path, array.data_type(), "decimals"));
    }
    let to = DataType::Decimal256(decimal.precision, decimal.scale);
    let array = cells::plain(path, array)?;
    Ok(cells::cast_exactly(path, &array, &to)?.as_primitive::<Decimal256Type>().values().clone())
}

/// The shortest two's complement, or that of a fixed size.
fn put_decimal(value: i256, size: Option<usize>, output: &mut Vec<u8>) -> Result<(), String> {
    let bytes = value.to_be_bytes();
    let filler = if value.is_negative() { 0xff } else { 0 };
    let mut start = 0_usize;
    while let Some([first, second]) = bytes.get(start..start.saturating_add(2))
        && *first == filler
        && (*second ^ filler) < 0x80
    {
        start = start.saturating_add(1);
    }
    let short = bytes.get(start..).unwrap_or_default();
    match size {
        None => put_bytes(short, output),
        Some(size) => {
            let more = size.checked_sub(short.len());
            let more = more.ok_or_else(|| format!("the decimal does not fit {size} bytes"))?;
            output.extend(std::iter::repeat_n(filler, more));
            output.extend_from_slice(short);
        }
    }
    Ok(())
}
