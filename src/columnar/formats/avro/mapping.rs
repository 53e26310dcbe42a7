//! Which Arrow columns an Avro schema has, and which Avro schema Arrow columns have.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema as ArrowSchema, TimeUnit};
use serde_json::{Value, json};

use super::schema::{AvroSchema, Decimal, Logical, Schema, short};
use crate::columnar::columns::UTC;
use crate::columnar::formats::builder::Column;
use crate::columnar::write::shown::is_uuid;
use crate::error::{Error, Result};

/// The column of a datum that is not a record.
pub(super) const VALUE_COLUMN: &str = "value";

impl AvroSchema {
    /// The columns of values with this schema; all nullable, since a tombstone is a null row.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub fn fields(&self) -> Result<Fields> {
        if !fits(&self.root, &mut { EXPANDED_MAX }) {
            return Err(Error::invalid(format!(
                "the Avro schema has more than {EXPANDED_MAX} fields where its named types are written out"
            )));
        }
        let nullable = |name: &str, schema: &Schema| Field::new(name, data_type(schema), true);
        Ok(match &self.root {
            Schema::Record(record) => record
                .fields
                .iter()
                .map(|field| Arc::new(nullable(&field.name, &field.schema)))
                .collect(),
            other => Fields::from(vec![nullable(VALUE_COLUMN, other)]),
        })
    }

    /// The schema of a column.
    pub(super) fn column(&self, index: usize) -> Option<&Schema> {
        match &self.root {
            Schema::Record(record) => record.fields.get(index).map(|field| &field.schema),
            other => (index == 0).then_some(other),
        }
    }

    /// The schema of a table: a record with a field for each column except those left out.
    ///
    /// # Errors
    /// An invalid argument for types that Avro does not have.
    pub fn of_table(table: &ArrowSchema, name: &str, exclude: &[String]) -> Result<Self> {
        let fields = table.fields().iter().filter(|field| !exclude.contains(field.name()));
        let mut namer = Namer::default();
        let fields = fields.map(|field| namer.member(field, name)).collect::<Result<Vec<_>>>()?;
        let schema = json!({ "type": "record", "name": avro_name(name), "fields": fields });
        Self::parse(&schema.to_string())
    }
}

/// The most types in a schema, with each named one counted wherever it is used: types that are used twice by types that are
/// used twice soon fill any memory.
const EXPANDED_MAX: u32 = 60_000;

/// Whether there are as many types left as a schema has.
fn fits(schema: &Schema, left: &mut u32) -> bool {
    let Some(fewer) = left.checked_sub(1) else { return false };
    *left = fewer;
    match schema {
        Schema::Array(inner) | Schema::Map(inner) => fits(inner, left),
        Schema::Record(record) => record.fields.iter().all(|field| fits(&field.schema, left)),
        Schema::Union(branches) => branches.iter().all(|branch| fits(branch, left)),
        _ => true,
    }
}

/// How a union is represented.
pub(super) enum Shape<'a> {
    /// One type, and whether null is the other.
    One(&'a Schema, bool),
    /// A member for each branch other than null, and whether null is a branch.
    Members(Vec<&'a Schema>, bool),
    /// Only null.
    Null,
}

pub(super) fn shape(schema: &Schema) -> Shape<'_> {
    let Schema::Union(branches) = schema else {
        return if matches!(schema, Schema::Null) {
            Shape::Null
        } else {
            Shape::One(schema, false)
        };
    };
    let others: Vec<&Schema> =
        branches.iter().filter(|branch| !matches!(branch, Schema::Null)).collect();
    let null = others.len() < branches.len();
    match others.as_slice() {
        [] => Shape::Null,
        [one] => Shape::One(one, null),
        _ => Shape::Members(others, null),
    }
}

fn field(name: &str, schema: &Schema) -> FieldRef {
    let nullable = match shape(schema) {
        Shape::One(_, null) | Shape::Members(_, null) => null,
        Shape::Null => true,
    };
    Arc::new(Field::new(name, data_type(schema), nullable))
}

/// The name of a union's member.
pub(super) fn member_name<'a>(branch: &'a Schema, all: &[&Schema]) -> &'a str {
    let name = short(branch.name());
    let alike = all.iter().filter(|other| short(other.name()) == name).count();
    if alike > 1 { branch.name() } else { name }
}

fn data_type(schema: &Schema) -> DataType {
    match shape(schema) {
        Shape::Null => DataType::Null,
        Shape::One(one, _) => single_type(one),
        Shape::Members(members, _) => DataType::Struct(
            members
                .iter()
                .map(|one| Arc::new(Field::new(member_name(one, &members), single_type(one), true)))
                .collect(),
        ),
    }
}

fn single_type(schema: &Schema) -> DataType {
    match schema {
        Schema::Null | Schema::Union(_) => DataType::Null,
        Schema::Boolean => DataType::Boolean,
        Schema::Int(Some(Logical::Date)) => DataType::Date32,
        Schema::Int(Some(_)) => DataType::Time32(TimeUnit::Millisecond),
        Schema::Int(None) => DataType::Int32,
        Schema::Long(logical) => logical.map_or(DataType::Int64, long_type),
        Schema::Float => DataType::Float32,
        Schema::Double => DataType::Float64,
        Schema::Bytes(None) => DataType::BinaryView,
        Schema::Bytes(Some(decimal)) => decimal_type(decimal),
        Schema::String => DataType::Utf8View,
        Schema::Fixed(fixed) => match &fixed.decimal {
            Some(decimal) => decimal_type(decimal),
            None => DataType::FixedSizeBinary(i32::try_from(fixed.size).unwrap_or(i32::MAX)),
        },
        Schema::Enum(_) => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
        }
        Schema::Array(items) => DataType::List(field("item", items)),
        Schema::Map(values) => {
            let key = Arc::new(Field::new("key", DataType::Utf8View, false));
            let entries = DataType::Struct(vec![key, field("value", values)].into());
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        Schema::Record(record) => DataType::Struct(
            record.fields.iter().map(|member| field(&member.name, &member.schema)).collect(),
        ),
    }
}

fn long_type(logical: Logical) -> DataType {
    let utc = || Some(UTC.into());
    match logical {
        Logical::Date | Logical::TimeMillis => DataType::Int64,
        Logical::TimeMicros => DataType::Time64(TimeUnit::Microsecond),
        Logical::TimestampMillis => DataType::Timestamp(TimeUnit::Millisecond, utc()),
        Logical::TimestampMicros => DataType::Timestamp(TimeUnit::Microsecond, utc()),
        Logical::TimestampNanos => DataType::Timestamp(TimeUnit::Nanosecond, utc()),
        Logical::LocalMillis => DataType::Timestamp(TimeUnit::Millisecond, None),
        Logical::LocalMicros => DataType::Timestamp(TimeUnit::Microsecond, None),
        Logical::LocalNanos => DataType::Timestamp(TimeUnit::Nanosecond, None),
    }
}

fn decimal_type(decimal: &Decimal) -> DataType {
    if decimal.precision <= 38 {
        DataType::Decimal128(decimal.precision, decimal.scale)
    } else {
        DataType::Decimal256(decimal.precision, decimal.scale)
    }
}

/// Sets the symbols of enums in their dictionary columns.
pub(super) fn set_symbols(column: &mut Column, schema: &Schema) {
    match shape(schema) {
        Shape::Null => {}
        Shape::Members(members, _) => {
            for (column, member) in column.members().into_iter().flatten().zip(members) {
                set_symbols(column, member);
            }
        }
        Shape::One(one, _) => match one {
            Schema::Enum(known) => column.set_symbols(known.symbols.iter().cloned()),
            Schema::Array(items) => {
                if let Some(column) = column.items() {
                    set_symbols(column, items);
                }
            }
            Schema::Map(values) => {
                if let Some((_, column)) = column.entries() {
                    set_symbols(column, values);
                }
            }
            Schema::Record(record) => {
                let columns = column.members().into_iter().flatten();
                for (column, field) in columns.zip(&record.fields) {
                    set_symbols(column, &field.schema);
                }
            }
            _ => {}
        },
    }
}

/// A name that Avro accepts.
fn avro_name(name: &str) -> String {
    let is_first = |one: char| one.is_ascii_alphabetic() || one == '_';
    let mut fixed: String = name
        .chars()
        .map(|one| if one.is_ascii_alphanumeric() || one == '_' { one } else { '_' })
        .collect();
    if !fixed.starts_with(is_first) {
        fixed.insert(0, '_');
    }
    fixed
}

/// Gives the records and fixed types of a table unique names.
#[derive(Default)]
struct Namer {
    used: Vec<String>,
}

impl Namer {
    fn unique(&mut self, wanted: &str) -> String {
        let wanted = avro_name(wanted);
        let mut name = wanted.clone();
        let mut count = 2_usize;
        while self.used.contains(&name) {
            name = format!("{wanted}_{count}");
            count = count.saturating_add(1);
        }
        self.used.push(name.clone());
        name
    }

    fn member(&mut self, field: &Field, path: &str) -> Result<Value> {
        if avro_name(field.name()) != *field.name() {
            return Err(Error::invalid(format!(
                "column {:?} is not a name in Avro, which allows letters, digits and _; rename it",
                field.name()
            )));
        }
        let schema = self.optional(field, &format!("{path}_{}", field.name()))?;
        Ok(if field.is_nullable() {
            json!({ "name": field.name(), "type": schema, "default": null })
        } else {
            json!({ "name": field.name(), "type": schema })
        })
    }

    fn optional(&mut self, field: &Field, path: &str) -> Result<Value> {
        let schema = if *field.data_type() == DataType::FixedSizeBinary(16) && is_uuid(field) {
            json!({ "type": "string", "logicalType": "uuid" })
        } else {
            self.schema(field.data_type(), path, field.name())?
        };
        Ok(if field.is_nullable() && *field.data_type() != DataType::Null {
            json!(["null", schema])
        } else {
            schema
        })
    }

    fn schema(&mut self, data_type: &DataType, path: &str, name: &str) -> Result<Value> {
        let logical = |form: &str, logical: &str| json!({ "type": form, "logicalType": logical });
        Ok(match data_type {
            DataType::Null => json!("null"),
            DataType::Boolean => json!("boolean"),
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::UInt8
            | DataType::UInt16 => json!("int"),
            DataType::Int64 | DataType::UInt32 => json!("long"),
            DataType::Float16 | DataType::Float32 => json!("float"),
            DataType::Float64 => json!("double"),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("bytes"),
            DataType::FixedSizeBinary(size) => {
                json!({ "type": "fixed", "name": self.unique(path), "size": size })
            }
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale)
            | DataType::Decimal256(precision, scale)
                if *scale >= 0 =>
            {
                json!({ "type": "bytes", "logicalType": "decimal", "precision": precision,
                        "scale": scale })
            }
            DataType::Date32 | DataType::Date64 => logical("int", "date"),
            DataType::Time32(_) => logical("int", "time-millis"),
            DataType::Time64(_) => logical("long", "time-micros"),
            DataType::Timestamp(unit, zone) => {
                let local = if zone.is_some() { "" } else { "local-" };
                let unit = match unit {
                    TimeUnit::Second | TimeUnit::Millisecond => "millis",
                    TimeUnit::Microsecond => "micros",
                    TimeUnit::Nanosecond => "nanos",
                };
                logical("long", &format!("{local}timestamp-{unit}"))
            }
            DataType::Dictionary(_, value) => self.schema(value, path, name)?,
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                json!({ "type": "array", "items": self.optional(item, path)? })
            }
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => {
                    let values = fields.get(1).map(|value| self.optional(value, path));
                    json!({ "type": "map", "values": values.transpose()? })
                }
                other => {
                    return Err(Error::invalid(format!("column {name:?} is a map of {other}")));
                }
            },
            DataType::Struct(fields) => {
                let unique = self.unique(path);
                let fields = fields.iter().map(|field| self.member(field, path));
                let fields = fields.collect::<Result<Vec<_>>>()?;
                json!({ "type": "record", "name": unique, "fields": fields })
            }
            other => {
                return Err(Error::invalid(format!(
                    "column {name:?} is {other}, which Avro does not have; cast it or leave it out"
                )));
            }
        })
    }
}
