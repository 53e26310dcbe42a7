//! The text of `ottla.tier.value.schema`.
//!
//! ```text
//! {"format": "json", "columns": {"id": "int64", "buyer": {"name": "string"}}, "framed": false}
//! {"format": "avro", "schema": {…}, "columns": ["id"], "id": 7, "writers": {"6": {…}}}
//! {"format": "protobuf", "schema": "syntax = …", "message": "Order", "columns": ["id"], "id": 7, "writers": {"6": "…"}}
//! ```
//!
//! Values with the header of a schema registry are decoded if the schema that they were written with is here, by its id: a
//! broker asks no registry. Avro is decoded by that schema: by another one it may give wrong columns without anybody
//! noticing. Protobuf is decoded by the schema of the setting, as its numbers of fields are meant to be read, and that of the
//! writer only says which message a value is. JSON and its header need no such thing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Fields, TimeUnit};
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::ValueSchema;
use super::flat::{self, TYPES};
use crate::columnar::{
    AvroFormat, AvroSchema, Extra, JsonFormat, ProtobufFormat, ProtobufSchema, ReaderSchema,
    Registered, SchemaId, SchemaKind, SchemaReference, SchemaRequest, SchemaSource, ValueDecoder,
    ValueFormat, types,
};
use crate::error::{Error, Result};

/// Which of the structs below it is.
#[derive(Debug, Deserialize)]
struct Told {
    format: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    columns: Members,
    #[serde(default)]
    framed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Avro {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    schema: Value,
    columns: Option<Vec<String>>,
    id: Option<u32>,
    #[serde(default)]
    writers: BTreeMap<u32, Value>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Protobuf {
    #[serde(rename = "format")]
    _format: IgnoredAny,
    schema: String,
    message: Option<String>,
    columns: Option<Vec<String>>,
    id: Option<u32>,
    #[serde(default)]
    writers: BTreeMap<u32, String>,
}

/// The members of an object, in the order in which they are written.
#[derive(Debug)]
struct Members(Vec<Field>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Members;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of names and types")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut fields: Vec<Field> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if fields.iter().any(|field| *field.name() == name) {
                        return Err(A::Error::custom(format!("member {name:?} is there twice")));
                    }
                    let Member(field) = map.next_value()?;
                    fields.push(field.with_name(name));
                }
                Ok(Members(fields))
            }
        }

        deserializer.deserialize_map(Reader)
    }
}

/// The type of a member: its name, or the members of an object.
#[derive(Debug)]
struct Member(Field);

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Member;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a type, or an object of names and types")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Member, E> {
                let unknown = || E::custom(format!("{text:?} is no type of a column: use {TYPES}"));
                types::parse_field("", text).map(Member).ok().ok_or_else(unknown)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                let Members(fields) =
                    Members::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                let data_type = arrow::datatypes::DataType::Struct(fields.into());
                Ok(Member(Field::new("", data_type, true)))
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

/// Reads the setting.
///
/// # Errors
///
/// An invalid argument that says what is wrong.
pub(super) fn parse(text: &str) -> Result<ValueSchema> {
    let Told { format } = read(text)?;
    match format.as_str() {
        "json" => read::<Json>(text)?.schema(),
        "avro" => read::<Avro>(text)?.schema(),
        "protobuf" => read::<Protobuf>(text)?.schema(),
        other => {
            Err(Error::invalid(format!("format {other:?} is none of json, avro and protobuf")))
        }
    }
}

fn read<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T> {
    serde_json::from_str(text).map_err(|error| {
        Error::invalid(format!(
            "{error}; write for example {{\"format\": \"json\", \"columns\": {{\"id\": \"int64\"}}}}"
        ))
    })
}

impl Json {
    fn schema(self) -> Result<ValueSchema> {
        let fields = Fields::from(self.columns.0);
        let format =
            JsonFormat { extra: Extra::Ignore, framed: self.framed, ..JsonFormat::given(fields) };
        schema_of(ValueFormat::Json(format), "json", None)
    }
}

impl Avro {
    fn schema(self) -> Result<ValueSchema> {
        let text = avro_text(&self.schema);
        let reader = AvroSchema::parse(&text)?;
        let mut writers = BTreeMap::new();
        for (id, writer) in &self.writers {
            let writer = avro_text(writer);
            AvroSchema::parse(&writer).map_err(|error| of_writer(*id, &error))?;
            writers.insert(*id, writer);
        }
        let source = source(SchemaKind::Avro, self.id, text, writers)?;
        let schema = ReaderSchema::Given(reader);
        let format = AvroFormat { schema, framed: source.is_some(), source };
        schema_of(ValueFormat::Avro(Arc::new(format)), "avro", self.columns)
    }
}

impl Protobuf {
    fn schema(self) -> Result<ValueSchema> {
        let parse =
            |text: &str| ProtobufSchema::parse(text, &[], Vec::new(), self.message.as_deref());
        let reader = parse(&self.schema)?;
        for (id, writer) in &self.writers {
            parse(writer).map_err(|error| of_writer(*id, &error))?;
        }
        let source = source(SchemaKind::Protobuf, self.id, self.schema.clone(), self.writers)?;
        let format = ProtobufFormat {
            schema: ReaderSchema::Given(reader),
            message: self.message,
            time_unit: TimeUnit::Microsecond,
            framed: source.is_some(),
            source,
        };
        schema_of(ValueFormat::Protobuf(Arc::new(format)), "protobuf", self.columns)
    }
}

fn of_writer(id: u32, error: &Error) -> Error {
    Error::invalid(format!("writer {id}: {error}"))
}

/// The text of an Avro schema, which may stand there as JSON, or as a text of JSON.
fn avro_text(schema: &Value) -> String {
    match schema {
        Value::String(text) if text.trim_start().starts_with(['{', '[', '"']) => text.clone(),
        other => other.to_string(),
    }
}

fn schema_of(
    format: ValueFormat,
    format_name: &'static str,
    columns: Option<Vec<String>>,
) -> Result<ValueSchema> {
    let all = format.fields()?.unwrap_or_else(Fields::empty);
    let wanted = match columns {
        None => (0..all.len()).collect(),
        Some(names) => named(&all, &names)?,
    };
    let leaves = flat::flatten(&all, &wanted)?.into();
    // A type that the decoder does not have shows here.
    ValueDecoder::new(&format, &wanted)?;
    Ok(ValueSchema { format, format_name, wanted, leaves })
}

/// The positions of the named fields.
fn named(all: &Fields, names: &[String]) -> Result<Vec<usize>> {
    let mut wanted = Vec::with_capacity(names.len());
    for name in names {
        let Some((index, _)) = all.find(name) else {
            let known: Vec<&str> = all.iter().map(|field| field.name().as_str()).collect();
            return Err(Error::invalid(format!(
                "columns: the schema has no field {name:?}; it has {}",
                known.join(", ")
            )));
        };
        if wanted.contains(&index) {
            return Err(Error::invalid(format!("columns: {name:?} is there twice")));
        }
        wanted.push(index);
    }
    Ok(wanted)
}

/// The schemas that values with the header of a registry were written with; none when they have no header.
fn source(
    kind: SchemaKind,
    id: Option<u32>,
    text: String,
    mut writers: BTreeMap<u32, String>,
) -> Result<Option<Arc<dyn SchemaSource>>> {
    if let Some(id) = id
        && writers.insert(id, text).is_some()
    {
        return Err(Error::invalid(format!("writers: {id} is the id of the schema itself")));
    }
    if writers.is_empty() {
        return Ok(None);
    }
    let registered = writers.into_iter().map(|(id, text)| {
        let id = SchemaId(id);
        (id, Arc::new(Registered { id, kind, text, references: Vec::new() }))
    });
    Ok(Some(Arc::new(Writers(registered.collect()))))
}

/// The schemas that the setting names, by their ids.
#[derive(Debug)]
struct Writers(BTreeMap<SchemaId, Arc<Registered>>);

impl Writers {
    fn no_registry() -> Error {
        Error::invalid("the schemas of a topic's setting are no registry")
    }
}

impl SchemaSource for Writers {
    fn known(&self, id: SchemaId) -> Option<Result<Arc<Registered>, String>> {
        let found = self.0.get(&id).cloned();
        Some(found.ok_or_else(|| {
            format!(
                "ottla.tier.value.schema has no schema with the id {id}: add it to its \"writers\""
            )
        }))
    }

    fn latest(&self, _subject: &str) -> Option<Result<Arc<Registered>, String>> {
        Some(Err(Self::no_registry().to_string()))
    }

    fn load(&self, _request: &SchemaRequest) -> Result<()> {
        Ok(())
    }

    fn register(
        &self,
        _subject: &str,
        _schema: (SchemaKind, &str, &[SchemaReference]),
        _create: bool,
    ) -> Result<SchemaId> {
        Err(Self::no_registry())
    }

    fn version(
        &self,
        _subject: &str,
        _schema: (SchemaKind, &str, &[SchemaReference]),
    ) -> Result<i32> {
        Err(Self::no_registry())
    }
}
