//! What this module knows about a Schema Registry: its header on values, and where schemas come
//! from.
//!
//! Decoding never waits. A decoder that encounters an id whose schema is unknown stops before that
//! output and says what it needs ([`SchemaRequest`]); its caller lets the source
//! [load](SchemaSource::load) it, where waiting is allowed, and continues.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};

/// The size of the header: a zero byte and the id.
pub(in crate::columnar) const FRAME_SIZE: usize = 5;

/// The id of a schema in its registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaId(pub u32);

impl fmt::Display for SchemaId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// The kind of a registered schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaKind {
    /// Avro; the registry leaves the kind out.
    #[default]
    Avro,
    /// Protobuf, as the text of a file.
    Protobuf,
    /// JSON Schema.
    Json,
}

impl SchemaKind {
    /// The registry's name for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Avro => "AVRO",
            Self::Protobuf => "PROTOBUF",
            Self::Json => "JSON",
        }
    }

    /// The kind with this name in the registry.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Avro, Self::Protobuf, Self::Json].into_iter().find(|kind| kind.name() == name)
    }
}

/// A schema that a registry holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// Its id.
    pub id: SchemaId,
    /// What kind of schema it is.
    pub kind: SchemaKind,
    /// Its text.
    pub text: String,
    /// The texts that it refers to, by the names that it uses for them, dependencies first.
    pub references: Vec<(String, String)>,
}

/// A schema that another one refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaReference {
    /// The name that it is referred to by: an Avro type, or an imported file.
    pub name: String,
    /// The subject that it is registered under.
    pub subject: String,
    /// Its version there.
    pub version: i32,
}

/// What a decoder needs before it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SchemaRequest {
    /// The schema of an id.
    Id(SchemaId),
    /// The latest schema of a subject.
    Latest(String),
}

/// Which schema the columns come from.
#[derive(Clone, Debug, PartialEq)]
pub enum ReaderSchema<S> {
    /// This one. Without the registry's header, it is also the schema that values were written
    /// with.
    Given(S),
    /// The one that the first value was written with.
    First,
    /// The latest one of this subject, or of the topic's values.
    Latest(Option<String>),
}

/// Where schemas come from.
pub trait SchemaSource: fmt::Debug + Send + Sync {
    /// The schema of an id, or why there is none; `None` if [`Self::load`] has to be called first.
    fn known(&self, id: SchemaId) -> Option<Result<Arc<Registered>, String>>;

    /// The latest schema of a subject, likewise.
    fn latest(&self, subject: &str) -> Option<Result<Arc<Registered>, String>>;

    /// Loads something unknown, so that it is known afterwards; may block.
    ///
    /// # Errors
    /// When the source cannot be reached. That it has no such schema is not an error here.
    fn load(&self, request: &SchemaRequest) -> Result<()>;

    /// The id of a schema under a subject, which is created if `create`; may block.
    ///
    /// # Errors
    /// When the source cannot be reached, refuses the schema, or does not know it.
    fn register(
        &self,
        subject: &str,
        schema: (SchemaKind, &str, &[SchemaReference]),
        create: bool,
    ) -> Result<SchemaId>;

    /// The version of a schema under a subject that has it; may block.
    ///
    /// # Errors
    /// When the source cannot be reached, or does not know it.
    fn version(&self, subject: &str, schema: (SchemaKind, &str, &[SchemaReference]))
    -> Result<i32>;
}

/// The subject of a topic's values, by the registry's default strategy.
pub(in crate::columnar) fn subject_of(topic: &str) -> String {
    format!("{topic}-value")
}

/// The latest schema of a subject, by default that of the topic's values; may block.
pub(in crate::columnar) fn latest<T>(
    source: &dyn SchemaSource,
    subject: Option<&str>,
    topic: &str,
    parse: impl Fn(&Registered) -> Result<T, String>,
) -> Result<(T, SchemaId)> {
    let subject = subject.map_or_else(|| subject_of(topic), str::to_owned);
    let wrong = |detail| Error::invalid(format!("subject {subject:?}: {detail}"));
    let registered = find_latest(source, &subject)?.map_err(wrong)?;
    Ok((parse(&registered).map_err(wrong)?, registered.id))
}

/// The latest schema of a subject, or why there is none; may block.
pub(in crate::columnar) fn find_latest(
    source: &dyn SchemaSource,
    subject: &str,
) -> Result<Result<Arc<Registered>, String>> {
    // A missing one may have been registered meanwhile.
    if !matches!(source.latest(subject), Some(Ok(_))) {
        source.load(&SchemaRequest::Latest(subject.to_owned()))?;
    }
    Ok(source.latest(subject).unwrap_or_else(|| Err("it has no schema".to_owned())))
}

/// A source is itself only.
impl PartialEq for dyn SchemaSource {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::addr_eq(self, other)
    }
}

/// What is written in front of a value.
#[derive(Clone, Debug, PartialEq)]
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

/// Why a value did not become a row.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::columnar) enum Fault {
    /// It does not match the format.
    Bad(String),
    /// It became one, except for a part that no column takes.
    Partly(String),
    /// A schema is needed first.
    Schema(SchemaRequest),
}

impl From<String> for Fault {
    fn from(detail: String) -> Self {
        Self::Bad(detail)
    }
}

/// The id and the rest of a value with the registry's header.
#[inline]
pub(in crate::columnar) fn unframe(value: &[u8]) -> Result<(SchemaId, &[u8]), Fault> {
    match value.split_first_chunk::<FRAME_SIZE>() {
        Some(([0, id @ ..], rest)) => Ok((SchemaId(u32::from_be_bytes(*id)), rest)),
        _ => Err(unframed(value)),
    }
}

#[cold]
fn unframed(value: &[u8]) -> Fault {
    Fault::Bad(match value.first() {
        Some(0) | None => format!(
            "the value has {} bytes, fewer than the 5 of a schema registry header",
            value.len()
        ),
        Some(other) => format!(
            "the value begins with byte {other}, not with the 0 of a schema registry header; \
             was it written without a registry?"
        ),
    })
}

/// Puts the registry's header in front of a value.
pub(in crate::columnar) fn put_frame(id: SchemaId, output: &mut Vec<u8>) {
    output.push(0);
    output.extend_from_slice(&id.0.to_be_bytes());
}
