//! Compiles a writer's and a reader's schema to a program of reads.
//!
//! The rules are those of the specification's schema resolution: fields are matched by name or the
//! reader's aliases, in the writer's order; fields that only the writer has are skipped, fields
//! that only the reader has get their default; int, long, float and double are promoted; string and
//! bytes are interchangeable; a symbol that the reader does not know becomes the reader's default
//! symbol. Names of records are not compared, since registries rename them freely. Beyond the
//! specification, times are read in a finer unit than they were written in.
//!
//! A part that does not match is an error at once, except for branches of unions and symbols of
//! enums, which are errors only of the values that use them. A top-level union in which one branch
//! is the reader's record is resolved as well; a null there is an error of its record.

use std::sync::Arc;

use super::json_default;
use super::mapping::{Shape, shape};
use super::schema::{AvroSchema, EnumSchema, FieldSchema, RecordSchema, Schema, short};

/// How to skip a value.
#[derive(Clone, Debug)]
pub(super) enum Skip {
    Fixed(usize),
    Varint,
    Bytes,
    Union(Vec<Skip>),
    /// The items, and the fewest bytes that one takes.
    Array(Box<Skip>, usize),
    Map(Box<Skip>),
    Record(Vec<Skip>),
}

/// One read from a value into a column.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Skip(Skip),
    Null,
    Boolean,
    Int,
    IntAsLong,
    IntAsFloat,
    IntAsDouble,
    Long,
    LongAsFloat,
    LongAsDouble,
    /// A time of a coarser unit, and how many of the reader's units are one of it.
    IntAsTime(i64),
    LongAsTime(i64),
    Float,
    FloatAsDouble,
    Double,
    Text,
    Bytes,
    Fixed(usize),
    DecimalBytes,
    DecimalFixed(usize),
    /// The reader's index for each of the writer's symbols.
    Enum {
        indices: Arc<[Option<i32>]>,
        symbols: Arc<[String]>,
    },
    /// A union with null, whose encoded branch is `null`.
    Optional {
        null: u64,
        op: Box<Op>,
    },
    /// Any other union of the writer.
    Union(Vec<Op>),
    /// Into one member of a struct that represents a union.
    Member {
        index: usize,
        op: Box<Op>,
    },
    Array {
        op: Box<Op>,
        size_min: usize,
    },
    Map(Box<Op>),
    Record(Box<Record>),
    /// This branch has no place in the reader's schema.
    Fail(String),
}

/// A field of a record, in the writer's order.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) name: Arc<str>,
    pub(super) column: usize,
    pub(super) op: Op,
}

/// The encoded value of a field that the writer lacks, and how to read it.
#[derive(Clone, Debug)]
pub(super) struct Default {
    pub(super) bytes: Vec<u8>,
    pub(super) op: Op,
}

#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) steps: Vec<Step>,
    pub(super) missing: Vec<(usize, Default)>,
}

/// A compiled pair of schemas.
#[derive(Clone, Debug)]
pub(super) enum Program {
    Plain(Arc<Record>),
    /// A union of the writer around the record: its compiled branches, or why they cannot be read.
    Union(Arc<[Result<Record, String>]>),
}

/// Compiles the reading of values of `writer` into the `wanted` columns of `reader`.
pub(super) fn compile(
    writer: &AvroSchema,
    reader: &AvroSchema,
    wanted: &[usize],
) -> Result<Program, String> {
    let target = |index: usize| wanted.iter().position(|&known| known == index);
    let record = match (&writer.root, &reader.root) {
        (Schema::Record(writer), Schema::Record(reader)) => record(writer, reader, target)?,
        (Schema::Union(branches), Schema::Record(reader)) => {
            let branches: Vec<_> = branches
                .iter()
                .map(|branch| match branch {
                    Schema::Record(writer) => record(writer, reader, target),
                    Schema::Null => Err("the value is null".to_owned()),
                    other => Err(format!("the value is {}, not a record", other.name())),
                })
                .collect();
            if branches.iter().all(Result::is_err) {
                let why: Vec<_> = branches.into_iter().filter_map(Result::err).collect();
                return Err(format!("no branch of the writer's union matches: {}", why.join("; ")));
            }
            return Ok(Program::Union(branches.into()));
        }
        (writer, Schema::Record(reader)) => {
            return Err(format!(
                "the writer's schema is {}, the columns' is {}",
                writer.name(),
                reader.named.name
            ));
        }
        (writer, reader) => {
            let op = match target(0) {
                Some(_) => resolve(writer, reader)?,
                None => Op::Skip(skip(writer)),
            };
            Record {
                steps: vec![Step { name: "value".into(), column: 0, op }],
                missing: Vec::new(),
            }
        }
    };
    Ok(Program::Plain(Arc::new(record)))
}

fn record(
    writer: &RecordSchema,
    reader: &RecordSchema,
    target: impl Fn(usize) -> Option<usize>,
) -> Result<Record, String> {
    let mut found = vec![false; reader.fields.len()];
    let mut steps: Vec<Step> = Vec::with_capacity(writer.fields.len());
    for field in &writer.fields {
        let place = find(field, reader).filter(|place| !found.get(*place).is_some_and(|one| *one));
        if let Some(one) = place.and_then(|place| found.get_mut(place)) {
            *one = true;
        }
        let wanted = place.and_then(|place| Some((reader.fields.get(place)?, target(place)?)));
        let (column, op) = match wanted {
            Some((known, column)) => {
                let op = resolve(&field.schema, &known.schema)
                    .map_err(|detail| format!("field {:?}: {detail}", field.name))?;
                (column, op)
            }
            None => (usize::MAX, Op::Skip(skip(&field.schema))),
        };
        steps.push(Step { name: field.name.as_str().into(), column, op });
    }
    let mut missing = Vec::new();
    for (place, field) in reader.fields.iter().enumerate() {
        let Some(column) = target(place) else { continue };
        if found.get(place).is_some_and(|one| *one) {
            continue;
        }
        let Some(json) = &field.default else {
            return Err(format!(
                "field {:?} is not in the writer's schema and has no default",
                field.name
            ));
        };
        let mut bytes = Vec::new();
        json_default::encode(json, &field.schema, &mut bytes)
            .map_err(|detail| format!("the default of field {:?}: {detail}", field.name))?;
        missing.push((column, Default { bytes, op: resolve(&field.schema, &field.schema)? }));
    }
    Ok(Record { steps, missing })
}

fn find(field: &FieldSchema, reader: &RecordSchema) -> Option<usize> {
    let by_name = reader.fields.iter().position(|known| known.name == field.name);
    by_name.or_else(|| reader.fields.iter().position(|known| known.aliases.contains(&field.name)))
}

/// How values of `writer` get into a column of `reader`.
fn resolve(writer: &Schema, reader: &Schema) -> Result<Op, String> {
    if let Schema::Union(branches) = writer {
        let ops: Vec<Op> =
            branches.iter().map(|branch| into(branch, reader).unwrap_or_else(Op::Fail)).collect();
        return match <[Op; 2]>::try_from(ops) {
            Ok([Op::Null, op]) => Ok(Op::Optional { null: 0, op: Box::new(op) }),
            Ok([op, Op::Null]) => Ok(Op::Optional { null: 2, op: Box::new(op) }),
            Ok(two) => some_fit(two.into()),
            Err(many) => some_fit(many),
        };
    }
    into(writer, reader)
}

fn some_fit(ops: Vec<Op>) -> Result<Op, String> {
    match ops.iter().find(|op| !matches!(op, Op::Fail(_))) {
        Some(_) => Ok(Op::Union(ops)),
        None => Err("no branch of the writer's union matches".to_owned()),
    }
}

/// How values of `writer`, which is not a union, get into a column of `reader`.
fn into(writer: &Schema, reader: &Schema) -> Result<Op, String> {
    match shape(reader) {
        Shape::Null if matches!(writer, Schema::Null) => Ok(Op::Null),
        Shape::Null => Err(format!("{} is not null", writer.name())),
        Shape::One(_, true) | Shape::Members(_, true) if matches!(writer, Schema::Null) => {
            Ok(Op::Null)
        }
        Shape::One(one, _) => single(writer, one),
        Shape::Members(members, _) => {
            let same = |member: &&Schema| {
                std::mem::discriminant(writer) == std::mem::discriminant(*member)
                    && named_alike(writer, member)
            };
            let index = members.iter().position(same);
            let fitting = || members.iter().position(|member| single(writer, member).is_ok());
            let index = index
                .or_else(fitting)
                .ok_or_else(|| format!("{} is not a branch of the union", writer.name()))?;
            let member = members.get(index).ok_or("a union has lost a branch")?;
            Ok(Op::Member { index, op: Box::new(single(writer, member)?) })
        }
    }
}

fn named_alike(writer: &Schema, reader: &Schema) -> bool {
    let aliases: &[String] = match reader {
        Schema::Record(schema) => &schema.named.aliases,
        Schema::Enum(schema) => &schema.named.aliases,
        Schema::Fixed(schema) => &schema.named.aliases,
        _ => return true,
    };
    short(writer.name()) == short(reader.name())
        || aliases.iter().any(|alias| alias == writer.name())
}

fn single(writer: &Schema, reader: &Schema) -> Result<Op, String> {
    let differ = || Err(format!("{} cannot be read as {}", writer.name(), reader.name()));
    Ok(match (writer, reader) {
        (Schema::Null, Schema::Null) => Op::Null,
        (Schema::Boolean, Schema::Boolean) => Op::Boolean,
        (Schema::Int(one), Schema::Int(other)) => match units(*one, *other)? {
            1 => Op::Int,
            _ => return differ(),
        },
        (Schema::Int(one), Schema::Long(other)) => match units(*one, *other)? {
            1 => Op::IntAsLong,
            units => Op::IntAsTime(units),
        },
        (Schema::Int(_), Schema::Float) => Op::IntAsFloat,
        (Schema::Int(_), Schema::Double) => Op::IntAsDouble,
        (Schema::Long(one), Schema::Long(other)) => match units(*one, *other)? {
            1 => Op::Long,
            units => Op::LongAsTime(units),
        },
        (Schema::Long(_), Schema::Float) => Op::LongAsFloat,
        (Schema::Long(_), Schema::Double) => Op::LongAsDouble,
        (Schema::Float, Schema::Float) => Op::Float,
        (Schema::Float, Schema::Double) => Op::FloatAsDouble,
        (Schema::Double, Schema::Double) => Op::Double,
        (Schema::String | Schema::Bytes(_), Schema::String) => Op::Text,
        (Schema::String | Schema::Bytes(_), Schema::Bytes(None)) => Op::Bytes,
        (Schema::Bytes(one), Schema::Bytes(Some(other))) => {
            same_scale(one.as_ref(), other)?;
            Op::DecimalBytes
        }
        (Schema::Fixed(one), Schema::Fixed(other)) => {
            if one.size != other.size {
                return Err(format!("fixed({}) cannot be read as fixed({})", one.size, other.size));
            }
            match &other.decimal {
                Some(decimal) => {
                    same_scale(one.decimal.as_ref(), decimal)?;
                    Op::DecimalFixed(one.size)
                }
                None => Op::Fixed(one.size),
            }
        }
        (Schema::Enum(one), Schema::Enum(other)) => symbols(one, other),
        (Schema::Array(one), Schema::Array(other)) => {
            Op::Array { op: Box::new(resolve(one, other)?), size_min: one.size_min() }
        }
        (Schema::Map(one), Schema::Map(other)) => Op::Map(Box::new(resolve(one, other)?)),
        (Schema::Record(one), Schema::Record(other)) => {
            Op::Record(Box::new(record(one, other, Some)?))
        }
        _ => return differ(),
    })
}

/// How many units of the reader are one of the writer. A plain number counts in any unit.
fn units(
    writer: Option<super::schema::Logical>,
    reader: Option<super::schema::Logical>,
) -> Result<i64, String> {
    match (writer, reader) {
        (Some(one), Some(other)) => one.units_of(other),
        _ => Ok(1),
    }
}

fn same_scale(
    writer: Option<&super::schema::Decimal>,
    reader: &super::schema::Decimal,
) -> Result<(), String> {
    match writer {
        Some(writer) if writer.scale != reader.scale => Err(format!(
            "a decimal of scale {} cannot be read as one of scale {}",
            writer.scale, reader.scale
        )),
        _ => Ok(()),
    }
}

fn symbols(writer: &EnumSchema, reader: &EnumSchema) -> Op {
    let find = |symbol: &String| reader.symbols.iter().position(|known| known == symbol);
    let default = reader.default.as_ref().and_then(find);
    let indices = writer
        .symbols
        .iter()
        .map(|symbol| find(symbol).or(default).and_then(|index| i32::try_from(index).ok()));
    Op::Enum { indices: indices.collect(), symbols: writer.symbols.clone().into() }
}

/// How to skip values of a schema.
fn skip(schema: &Schema) -> Skip {
    match schema {
        Schema::Null => Skip::Fixed(0),
        Schema::Boolean => Skip::Fixed(1),
        Schema::Int(_) | Schema::Long(_) | Schema::Enum(_) => Skip::Varint,
        Schema::Float => Skip::Fixed(4),
        Schema::Double => Skip::Fixed(8),
        Schema::Bytes(_) | Schema::String => Skip::Bytes,
        Schema::Fixed(fixed) => Skip::Fixed(fixed.size),
        Schema::Array(items) => Skip::Array(Box::new(skip(items)), items.size_min()),
        Schema::Map(values) => Skip::Map(Box::new(skip(values))),
        Schema::Record(record) => {
            Skip::Record(record.fields.iter().map(|field| skip(&field.schema)).collect())
        }
        Schema::Union(branches) => Skip::Union(branches.iter().map(skip).collect()),
    }
}
