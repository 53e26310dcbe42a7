//! What values are written as, and which schema they are written with.
//!
//! A schema may have to be asked for, or registered, before the first row is written:
//! [`ValueSource::settle`] does that, where waiting is allowed.

use std::sync::Arc;

use arrow::datatypes::{Fields, Schema, TimeUnit};

use super::avro::AvroSchema;
use super::ipc::IpcTarget;
use super::json::write::NonFinite;
use super::protobuf::ProtobufSchema;
use super::registry;
use super::registry::{SchemaId, SchemaKind, SchemaSource};
use crate::columnar::write::shown;
use crate::error::Result;

/// What the value of a record is made from.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueSource {
    /// A JSON object of all columns but these; see [`super::json`] for how types are written.
    Json {
        /// The columns that are left out.
        exclude: Vec<String>,
        /// What becomes of NaN and the infinities.
        non_finite: NonFinite,
    },
    /// One column of text or bytes, as it is; a null is a null value, a tombstone.
    Column(String),
    /// An Avro record of all columns but those left out; see [`super::avro`].
    Avro(AvroTarget),
    /// A Protobuf message of all columns but those left out; see [`super::protobuf`].
    Protobuf(ProtobufTarget),
    /// An Arrow IPC stream of many rows; see [`super::ipc`].
    ArrowIpc(IpcTarget),
    /// Always null: every record is a tombstone.
    Null,
}

impl ValueSource {
    /// JSON objects of all columns but these; NaN and the infinities are refused.
    #[must_use]
    pub const fn json(exclude: Vec<String>) -> Self {
        Self::Json { exclude, non_finite: NonFinite::Refuse }
    }

    /// The columns that are left out of values, or the one column that is the value.
    pub fn named_columns(&self) -> Vec<&String> {
        match self {
            Self::Json { exclude, .. } => exclude.iter().collect(),
            Self::Avro(target) => target.exclude.iter().collect(),
            Self::Protobuf(target) => target.exclude.iter().collect(),
            Self::ArrowIpc(target) => target.exclude.iter().collect(),
            Self::Column(name) => vec![name],
            Self::Null => Vec::new(),
        }
    }

    /// The columns that a schema wants; none where values take any, or the schema is not settled.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub fn fields(&self) -> Result<Option<Fields>> {
        match self {
            Self::Avro(target) => target.schema.as_ref().map(AvroSchema::fields).transpose(),
            Self::Protobuf(target) => {
                let of = |schema: &ProtobufSchema| schema.fields(TimeUnit::Microsecond);
                Ok(target.schema.as_ref().map(of))
            }
            Self::Json { .. } | Self::Column(_) | Self::ArrowIpc(_) | Self::Null => Ok(None),
        }
    }

    /// Refuses columns whose types would be lost; Arrow IPC keeps every type.
    pub(in crate::columnar) fn check_types(&self, table: &Schema) -> Result<()> {
        let exclude = match self {
            Self::Json { exclude, .. } => exclude,
            Self::Avro(target) => &target.exclude,
            Self::Protobuf(target) => &target.exclude,
            Self::Column(_) | Self::ArrowIpc(_) | Self::Null => return Ok(()),
        };
        let mut written = table.fields().iter().filter(|field| !exclude.contains(field.name()));
        written.try_for_each(|field| shown::refuse_storage(field))
    }

    /// Whether [`Self::settle`] has something to do.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        match self {
            Self::Json { .. } | Self::Column(_) | Self::ArrowIpc(_) | Self::Null => true,
            Self::Avro(target) => {
                target.schema.is_some() && !matches!(target.framing, Framing::Register { .. })
            }
            Self::Protobuf(target) => target.settled,
        }
    }

    /// Finds or registers the schema for the values of a topic and the columns of a table; may
    /// block. `others` are columns that are not part of values unless the schema has them: those of
    /// keys, timestamps, headers and partitions.
    ///
    /// # Errors
    /// The registry could not be asked, or does not take the schema.
    pub fn settle(self, topic: &str, table: &Schema, others: &[String]) -> Result<Self> {
        self.check_types(table)?;
        match self {
            Self::Avro(target) => Ok(Self::Avro(target.settle(topic, table, others)?)),
            Self::Protobuf(target) => Ok(Self::Protobuf(target.settle(topic, table, others)?)),
            other => Ok(other),
        }
    }
}

/// How Avro values are written.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroTarget {
    /// The schema; when none, the latest one of the subject where schemas are not registered, and
    /// else one that is made from the columns.
    pub schema: Option<AvroSchema>,
    /// The columns that are left out.
    pub exclude: Vec<String>,
    /// What is written in front of the value.
    pub framing: Framing,
}

impl AvroTarget {
    fn settle(self, topic: &str, table: &Schema, others: &[String]) -> Result<Self> {
        let derive = || {
            let name = format!("{topic}_value");
            let mut exclude = self.exclude.clone();
            exclude.extend(others.iter().cloned());
            AvroSchema::of_table(table, &name, &exclude)
        };
        let (schema, framing) = match (&self.framing, &self.schema) {
            (Framing::Register { source, subject, auto_register }, given) => {
                let subject = subject.clone().unwrap_or_else(|| registry::subject_of(topic));
                let (schema, id) = match given {
                    None if !auto_register => {
                        let parse = AvroSchema::of_registered;
                        registry::latest(source.as_ref(), Some(&subject), topic, parse)?
                    }
                    given => {
                        let schema = given.clone().map_or_else(derive, Ok)?;
                        let text = (SchemaKind::Avro, schema.text(), schema.references());
                        let id = source.register(&subject, text, *auto_register)?;
                        (schema, id)
                    }
                };
                (schema, Framing::Id(id))
            }
            (framing, Some(schema)) => (schema.clone(), framing.clone()),
            (framing, None) => (derive()?, framing.clone()),
        };
        // Columns that only place the record are left out where the schema does not know them.
        let known = schema.fields()?;
        let mut exclude = self.exclude;
        exclude.extend(others.iter().filter(|name| known.find(name).is_none()).cloned());
        Ok(Self { schema: Some(schema), exclude, framing })
    }
}

/// How Protobuf values are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufTarget {
    /// The schema; when none, the latest one of the subject. Where there is neither, one is made
    /// from the columns.
    pub schema: Option<ProtobufSchema>,
    /// The name of the message in the latest schema; its first one when none. Or that of the
    /// message that is made.
    pub message: Option<String>,
    /// The columns that are left out.
    pub exclude: Vec<String>,
    /// What is written in front of the value.
    pub framing: Framing,
    /// Whether the schema and what is in front are known.
    pub settled: bool,
}

impl ProtobufTarget {
    fn settle(self, topic: &str, table: &Schema, others: &[String]) -> Result<Self> {
        let derive = || {
            let name = self.message.clone().unwrap_or_else(|| ProtobufSchema::message_of(topic));
            let mut exclude = self.exclude.clone();
            exclude.extend(others.iter().cloned());
            ProtobufSchema::of_table(table, &name, &exclude)
        };
        let (schema, framing) = match (&self.framing, &self.schema) {
            (Framing::Register { source, subject, auto_register }, given) => {
                let source = source.as_ref();
                let subject = subject.clone().unwrap_or_else(|| registry::subject_of(topic));
                let latest = || {
                    let parse = |registered: &registry::Registered| {
                        ProtobufSchema::of_registered(registered, self.message.as_deref(), None)
                    };
                    registry::latest(source, Some(&subject), topic, parse)
                };
                let (schema, id) = match given {
                    Some(schema) => {
                        (schema.clone(), schema.register(source, &subject, *auto_register)?)
                    }
                    // Numbers are what fields are known by: those that are in use come first.
                    None if *auto_register && registry::find_latest(source, &subject)?.is_err() => {
                        let schema = derive()?;
                        let id = schema.register(source, &subject, true)?;
                        (schema, id)
                    }
                    None => latest()?,
                };
                (schema, Framing::Id(id))
            }
            (framing, Some(schema)) => (schema.clone(), framing.clone()),
            (framing, None) => (derive()?, framing.clone()),
        };
        // Columns that only place the record are left out where the message does not have them.
        let known = schema.fields(TimeUnit::Microsecond);
        let mut exclude = self.exclude;
        exclude.extend(others.iter().filter(|name| known.find(name).is_none()).cloned());
        Ok(Self { schema: Some(schema), message: self.message, exclude, framing, settled: true })
    }
}

/// What is written in front of a value.
#[derive(Clone, Debug)]
pub enum Framing {
    /// Nothing.
    Plain,
    /// The header of a Schema Registry with this id.
    Id(SchemaId),
    /// The same, with an id that is asked for first.
    Register {
        /// The registry.
        source: Arc<dyn SchemaSource>,
        /// The subject; that of the topic's values when none.
        subject: Option<String>,
        /// Whether the schema is registered if it is not known; an error otherwise.
        auto_register: bool,
    },
}

impl PartialEq for Framing {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Plain, Self::Plain) => true,
            (Self::Id(one), Self::Id(other)) => one == other,
            (
                Self::Register { source, subject, auto_register },
                Self::Register { source: source_b, subject: subject_b, auto_register: auto_b },
            ) => Arc::ptr_eq(source, source_b) && subject == subject_b && auto_register == auto_b,
            _ => false,
        }
    }
}

impl Framing {
    /// Puts it in front of a value.
    pub(in crate::columnar) fn put(&self, output: &mut Vec<u8>) {
        if let Self::Id(id) = self {
            registry::put_frame(*id, output);
        }
    }
}
