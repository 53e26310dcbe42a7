//! Avro schemas: from their JSON text to a tree with all names resolved.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::columnar::formats::registry::{Registered, SchemaKind, SchemaReference};
use crate::error::{Error, Result};

/// Schemas nested deeper than this are refused.
const DEPTH_MAX: usize = 64;
/// How many types a schema may have, counting named types wherever they are used.
const TYPES_MAX: usize = 100_000;
/// The digits of the largest decimal of Arrow.
const DIGITS_MAX: u8 = 76;

/// An Avro schema.
#[derive(Clone)]
pub struct AvroSchema {
    text: Arc<str>,
    references: Vec<SchemaReference>,
    pub(super) root: Schema,
}

impl AvroSchema {
    /// Reads the JSON text of a schema.
    ///
    /// # Errors
    /// An invalid argument for text that is not a schema, or a recursive type.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parse_with(text, &[])
            .map_err(|detail| Error::invalid(format!("Avro schema: {detail}")))
    }

    /// Reads a schema that uses named types of others, which come before it.
    pub(super) fn parse_with(text: &str, references: &[(String, String)]) -> Result<Self, String> {
        let mut names = Names::default();
        for (name, text) in references {
            let json = to_json(text).map_err(|detail| format!("reference {name:?}: {detail}"))?;
            names.schema(&json, "", 0).map_err(|detail| format!("reference {name:?}: {detail}"))?;
        }
        let root = names.schema(&to_json(text)?, "", 0)?;
        Ok(Self { text: text.into(), references: Vec::new(), root })
    }

    /// Reads the JSON text of a schema that uses types of other schemas of a registry. `texts` are
    /// those of everything that it refers to, by name, dependencies first.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_referring(
        text: &str,
        references: Vec<SchemaReference>,
        texts: &[(String, String)],
    ) -> Result<Self> {
        let schema = Self::parse_with(text, texts)
            .map_err(|detail| Error::invalid(format!("Avro schema: {detail}")))?;
        Ok(Self { references, ..schema })
    }

    pub(in crate::columnar) fn references(&self) -> &[SchemaReference] {
        &self.references
    }

    pub(in crate::columnar) fn of_registered(registered: &Registered) -> Result<Self, String> {
        let id = registered.id;
        if registered.kind != SchemaKind::Avro {
            let kind = registered.kind.name();
            return Err(format!("schema {id} of the registry is {kind}, not AVRO"));
        }
        Self::parse_with(&registered.text, &registered.references)
            .map_err(|detail| format!("schema {id} of the registry: {detail}"))
    }

    /// The JSON text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl PartialEq for AvroSchema {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.root == other.root
    }
}

impl fmt::Debug for AvroSchema {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("AvroSchema").field(&self.text).finish()
    }
}

fn to_json(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(json) => Ok(json),
        // The bare name of a type is often written without quotes.
        Err(_) if text.chars().all(|one| one.is_ascii_alphanumeric()) && !text.is_empty() => {
            Ok(Value::String(text.to_owned()))
        }
        Err(error) => Err(format!("the text is not JSON: {error}")),
    }
}

/// What the bytes of a type mean, beyond their form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logical {
    Date,
    TimeMillis,
    TimeMicros,
    TimestampMillis,
    TimestampMicros,
    TimestampNanos,
    LocalMillis,
    LocalMicros,
    LocalNanos,
}

impl Logical {
    /// Its name in a schema.
    const fn name(self) -> &'static str {
        match self {
            Self::Date => "date",
            Self::TimeMillis => "time-millis",
            Self::TimeMicros => "time-micros",
            Self::TimestampMillis => "timestamp-millis",
            Self::TimestampMicros => "timestamp-micros",
            Self::TimestampNanos => "timestamp-nanos",
            Self::LocalMillis => "local-timestamp-millis",
            Self::LocalMicros => "local-timestamp-micros",
            Self::LocalNanos => "local-timestamp-nanos",
        }
    }

    /// How many units of the reader are one of the writer, for times of the same kind.
    ///
    /// # Errors
    /// Times of different kinds, or a coarser unit, in which digits would be lost.
    pub(super) fn units_of(self, reader: Self) -> Result<i64, String> {
        let units = match (self, reader) {
            (one, other) if one == other => 1,
            (Self::TimeMillis, Self::TimeMicros)
            | (Self::TimestampMillis, Self::TimestampMicros)
            | (Self::TimestampMicros, Self::TimestampNanos)
            | (Self::LocalMillis, Self::LocalMicros)
            | (Self::LocalMicros, Self::LocalNanos) => 1000,
            (Self::TimestampMillis, Self::TimestampNanos)
            | (Self::LocalMillis, Self::LocalNanos) => 1_000_000,
            (one, other) => {
                return Err(format!(
                    "{} cannot be read as {}, which may lose what it says",
                    one.name(),
                    other.name()
                ));
            }
        };
        Ok(units)
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Decimal {
    pub(super) precision: u8,
    pub(super) scale: i8,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    /// The full name.
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct FieldSchema {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    pub(super) schema: Schema,
    pub(super) default: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct RecordSchema {
    pub(super) named: Named,
    pub(super) fields: Vec<FieldSchema>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct EnumSchema {
    pub(super) named: Named,
    pub(super) symbols: Vec<String>,
    pub(super) default: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct FixedSchema {
    pub(super) named: Named,
    pub(super) size: usize,
    pub(super) decimal: Option<Decimal>,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Schema {
    Null,
    Boolean,
    Int(Option<Logical>),
    Long(Option<Logical>),
    Float,
    Double,
    Bytes(Option<Decimal>),
    String,
    Fixed(Arc<FixedSchema>),
    Enum(Arc<EnumSchema>),
    Array(Arc<Schema>),
    Map(Arc<Schema>),
    Record(Arc<RecordSchema>),
    Union(Arc<[Schema]>),
}

impl Schema {
    /// The name that a union knows the type by.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Null => "null",
            Self::Boolean => "boolean",
            Self::Int(_) => "int",
            Self::Long(_) => "long",
            Self::Float => "float",
            Self::Double => "double",
            Self::Bytes(_) => "bytes",
            Self::String => "string",
            Self::Fixed(schema) => &schema.named.name,
            Self::Enum(schema) => &schema.named.name,
            Self::Array(_) => "array",
            Self::Map(_) => "map",
            Self::Record(schema) => &schema.named.name,
            Self::Union(_) => "union",
        }
    }

    /// The fewest bytes that a value takes.
    pub(super) fn size_min(&self) -> usize {
        match self {
            Self::Null => 0,
            Self::Float => 4,
            Self::Double => 8,
            Self::Fixed(schema) => schema.size,
            Self::Record(schema) => {
                let sizes = schema.fields.iter().map(|field| field.schema.size_min());
                sizes.fold(0, usize::saturating_add)
            }
            _ => 1,
        }
    }
}

/// The part of a full name after its namespace.
pub(super) fn short(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[derive(Default)]
struct Names {
    /// None while a type is being defined.
    known: BTreeMap<String, Option<Schema>>,
    types: usize,
}

impl Names {
    fn schema(&mut self, json: &Value, namespace: &str, depth: usize) -> Result<Schema, String> {
        self.types = self.types.saturating_add(1);
        if depth > DEPTH_MAX || self.types > TYPES_MAX {
            return Err("the schema is too large, or nested too deeply".to_owned());
        }
        match json {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(branches) => self.union(branches, namespace, depth),
            Value::Object(object) => self.object(object, namespace, depth),
            other => Err(format!("{other} is no type")),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Schema, String> {
        Ok(match name {
            "null" => Schema::Null,
            "boolean" => Schema::Boolean,
            "int" => Schema::Int(None),
            "long" => Schema::Long(None),
            "float" => Schema::Float,
            "double" => Schema::Double,
            "bytes" => Schema::Bytes(None),
            "string" => Schema::String,
            _ => {
                let full = full_name(name, namespace);
                let known = self.known.get(&full).or_else(|| self.known.get(name));
                return match known {
                    Some(Some(schema)) => Ok(schema.clone()),
                    Some(None) => Err(format!(
                        "type {full:?} is recursive, which no column is; read values as raw bytes"
                    )),
                    None => Err(format!("there is no type {full:?}")),
                };
            }
        })
    }

    fn union(
        &mut self,
        branches: &[Value],
        namespace: &str,
        depth: usize,
    ) -> Result<Schema, String> {
        let mut schemas: Vec<Schema> = Vec::with_capacity(branches.len());
        for branch in branches {
            let schema = self.schema(branch, namespace, depth.saturating_add(1))?;
            if matches!(schema, Schema::Union(_)) {
                return Err("a union contains a union".to_owned());
            }
            if schemas.iter().any(|known| known.name() == schema.name()) {
                return Err(format!("a union contains {:?} twice", schema.name()));
            }
            schemas.push(schema);
        }
        if schemas.is_empty() {
            return Err("a union is empty".to_owned());
        }
        Ok(Schema::Union(schemas.into()))
    }

    fn object(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        depth: usize,
    ) -> Result<Schema, String> {
        let kind = object.get("type").ok_or("an object without \"type\" is not a schema")?;
        let deeper = depth.saturating_add(1);
        let Value::String(kind) = kind else { return self.schema(kind, namespace, deeper) };
        match kind.as_str() {
            "record" | "error" => self.record(object, namespace, deeper),
            "enum" => {
                let (named, _) = self.declare(object, namespace)?;
                let symbols = strings(object, "symbols")?;
                if symbols.is_empty() {
                    return Err(format!("enum {:?} has no symbols", named.name));
                }
                let default = text(object, "default").map(str::to_owned);
                let name = named.name.clone();
                Ok(self
                    .define(name, Schema::Enum(Arc::new(EnumSchema { named, symbols, default }))))
            }
            "fixed" => {
                let (named, _) = self.declare(object, namespace)?;
                let size = object.get("size").and_then(Value::as_u64).unwrap_or(0);
                let size = usize::try_from(size).ok().filter(|size| (1..=1 << 24).contains(size));
                let size = size.ok_or_else(|| format!("fixed {:?} has no size", named.name))?;
                let decimal = decimal(object).filter(|one| one.precision <= digits_of(size));
                let name = named.name.clone();
                Ok(self.define(name, Schema::Fixed(Arc::new(FixedSchema { named, size, decimal }))))
            }
            "array" => {
                let items = object.get("items").ok_or("an array has no \"items\"")?;
                Ok(Schema::Array(Arc::new(self.schema(items, namespace, deeper)?)))
            }
            "map" => {
                let values = object.get("values").ok_or("a map has no \"values\"")?;
                Ok(Schema::Map(Arc::new(self.schema(values, namespace, deeper)?)))
            }
            name => {
                let schema = self.by_name(name, namespace)?;
                Ok(match schema {
                    Schema::Int(None) => Schema::Int(logical(object).filter(|one| of_int(*one))),
                    Schema::Long(None) => Schema::Long(logical(object).filter(|one| !of_int(*one))),
                    Schema::Bytes(None) => Schema::Bytes(decimal(object)),
                    other => other,
                })
            }
        }
    }

    fn record(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
        depth: usize,
    ) -> Result<Schema, String> {
        let (named, namespace) = self.declare(object, namespace)?;
        let name = named.name.clone();
        let Some(Value::Array(members)) = object.get("fields") else {
            return Err(format!("record {name:?} has no \"fields\""));
        };
        let mut fields: Vec<FieldSchema> = Vec::with_capacity(members.len());
        for member in members {
            let Value::Object(member) = member else {
                return Err(format!("record {name:?}: {member} is not a field"));
            };
            let field = text(member, "name")
                .ok_or_else(|| format!("record {name:?} has a field without a name"))?;
            if fields.iter().any(|known| known.name == field) {
                return Err(format!("record {name:?} has two fields {field:?}"));
            }
            let json = member
                .get("type")
                .ok_or_else(|| format!("record {name:?}: field {field:?} has no type"))?;
            let schema = self
                .schema(json, &namespace, depth)
                .map_err(|detail| format!("field {field:?}: {detail}"))?;
            fields.push(FieldSchema {
                name: field.to_owned(),
                aliases: strings(member, "aliases")?,
                schema,
                default: member.get("default").cloned(),
            });
        }
        Ok(self.define(name, Schema::Record(Arc::new(RecordSchema { named, fields }))))
    }

    /// The names of a named type, and the namespace that applies within it.
    fn declare(
        &mut self,
        object: &Map<String, Value>,
        namespace: &str,
    ) -> Result<(Named, String), String> {
        let name = text(object, "name").ok_or("a named type has no name")?;
        let own = text(object, "namespace").unwrap_or(namespace);
        let full = full_name(name, own);
        let inside = full.rsplit_once('.').map_or("", |(space, _)| space).to_owned();
        let aliases = strings(object, "aliases")?;
        let aliases = aliases.iter().map(|alias| full_name(alias, &inside)).collect();
        self.known.insert(full.clone(), None);
        Ok((Named { name: full, aliases }, inside))
    }

    fn define(&mut self, name: String, schema: Schema) -> Schema {
        self.known.insert(name, Some(schema.clone()));
        schema
    }
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    object.get(key).and_then(Value::as_str)
}

fn strings(object: &Map<String, Value>, key: &str) -> Result<Vec<String>, String> {
    match object.get(key) {
        None => Ok(Vec::new()),
        Some(Value::Array(items)) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(|| format!("{key:?} contains something that is not text")),
        Some(other) => Err(format!("{key:?} is {other}, not a list")),
    }
}

const fn of_int(logical: Logical) -> bool {
    matches!(logical, Logical::Date | Logical::TimeMillis)
}

/// An unknown logical type is ignored, as the specification requires.
fn logical(object: &Map<String, Value>) -> Option<Logical> {
    Some(match text(object, "logicalType")? {
        "date" => Logical::Date,
        "time-millis" => Logical::TimeMillis,
        "time-micros" => Logical::TimeMicros,
        "timestamp-millis" => Logical::TimestampMillis,
        "timestamp-micros" => Logical::TimestampMicros,
        "timestamp-nanos" => Logical::TimestampNanos,
        "local-timestamp-millis" => Logical::LocalMillis,
        "local-timestamp-micros" => Logical::LocalMicros,
        "local-timestamp-nanos" => Logical::LocalNanos,
        _ => return None,
    })
}

/// A decimal that breaks the rules of the specification (no precision, a scale above it or below
/// zero), or that has more digits than Arrow's types hold, is read as its underlying type.
fn decimal(object: &Map<String, Value>) -> Option<Decimal> {
    if text(object, "logicalType") != Some("decimal") {
        return None;
    }
    let precision =
        object.get("precision")?.as_u64().and_then(|digits| u8::try_from(digits).ok())?;
    let scale = match object.get("scale") {
        None => 0,
        Some(scale) => scale.as_u64().and_then(|digits| i8::try_from(digits).ok())?,
    };
    let is_one = (1..=DIGITS_MAX).contains(&precision) && scale.unsigned_abs() <= precision;
    is_one.then_some(Decimal { precision, scale })
}

/// The most digits that every number of this many bytes can hold.
fn digits_of(size: usize) -> u8 {
    // floor(log10(2^(8 * size - 1) - 1)), as in the specification.
    let bits = size.saturating_mul(8).saturating_sub(1) as u64;
    let digits = bits.saturating_mul(30_103) / 100_000;
    u8::try_from(digits).unwrap_or(u8::MAX)
}
