//! The structure of a message, as a value: the tables in `messages`, reflected.
//!
//! The same [`Field`] drives encoding, decoding and the conformance test, so that the wire format
//! is exactly what is tested against Kafka's own definitions.

use std::fmt;

use crate::error::{Error, ErrorCode, Result};
use crate::protocol::primitives::{Decoder, Encoder};

/// An inclusive range of versions; empty when `min` is above `max`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first version.
    pub min: i16,
    /// The last version; [`i16::MAX`] when the range is open.
    pub max: i16,
}

impl Versions {
    /// No version.
    pub const NONE: Self = Self { min: 1, max: 0 };

    /// The versions from `min` to `max`, both included.
    pub const fn between(min: i16, max: i16) -> Self {
        Self { min, max }
    }

    /// All versions from `min` on.
    pub const fn since(min: i16) -> Self {
        Self { min, max: i16::MAX }
    }

    /// Whether `version` lies in the range.
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }

    /// Whether no version lies in the range.
    pub const fn is_empty(self) -> bool {
        self.min > self.max
    }

    /// The versions that lie in both ranges.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self {
            min: if self.min > other.min { self.min } else { other.min },
            max: if self.max < other.max { self.max } else { other.max },
        }
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            formatter.write_str("none")
        } else if self.max == i16::MAX {
            write!(formatter, "{}+", self.min)
        } else if self.min == self.max {
            write!(formatter, "{}", self.min)
        } else {
            write!(formatter, "{}-{}", self.min, self.max)
        }
    }
}

/// The type of a field on the wire.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// `bool`.
    Bool,
    /// `int8`.
    Int8,
    /// `int16`.
    Int16,
    /// `uint16`.
    Uint16,
    /// `int32`.
    Int32,
    /// `uint32`.
    Uint32,
    /// `int64`.
    Int64,
    /// `float64`.
    Float64,
    /// `string`.
    String,
    /// `bytes`.
    Bytes,
    /// `records`.
    Records,
    /// `uuid`.
    Uuid,
    /// An array of elements.
    Array(&'static Kind),
    /// A nested structure.
    Struct(&'static Structure),
}

impl fmt::Display for Kind {
    /// Formats the type as Kafka's definitions do.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => formatter.write_str("bool"),
            Self::Int8 => formatter.write_str("int8"),
            Self::Int16 => formatter.write_str("int16"),
            Self::Uint16 => formatter.write_str("uint16"),
            Self::Int32 => formatter.write_str("int32"),
            Self::Uint32 => formatter.write_str("uint32"),
            Self::Int64 => formatter.write_str("int64"),
            Self::Float64 => formatter.write_str("float64"),
            Self::String => formatter.write_str("string"),
            Self::Bytes => formatter.write_str("bytes"),
            Self::Records => formatter.write_str("records"),
            Self::Uuid => formatter.write_str("uuid"),
            Self::Array(element) => write!(formatter, "[]{element}"),
            Self::Struct(structure) => formatter.write_str(structure.name),
        }
    }
}

/// A structure: its name and its fields in the order of the wire.
#[derive(Debug)]
pub struct Structure {
    /// Kafka's name.
    pub name: &'static str,
    /// The fields.
    pub fields: &'static [Field],
}

/// One line of a table.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Kafka's name.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// Whether the Rust type can hold a null.
    pub optional: bool,
    /// The versions that carry the field.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// The versions in which it is tagged (KIP-482), and so left out when it has its default.
    pub tagged: Versions,
    /// The tag; 0 when there are no tagged versions.
    pub tag: u32,
    /// Whether versions that do not carry the field silently drop the value.
    pub ignorable: bool,
    /// The default, as a Rust expression; empty for that of the type.
    pub default: &'static str,
}

/// The first tag of fields that are not Kafka's: nodes of ottla tell each other something in them, and whoever does not
/// know them passes over them. Kafka counts its own from 0.
pub const OWN_TAGS: u32 = 10_000;

/// A top-level message.
#[derive(Debug)]
pub struct Schema {
    /// The versions that the table describes.
    pub versions: Versions,
    /// The versions with compact lengths and tagged fields (KIP-482).
    pub flexible: Versions,
    /// The message as a structure.
    pub structure: &'static Structure,
}

/// A request or response body.
pub trait Message: Sized + Clone + fmt::Debug + Default + PartialEq {
    /// The table that the message was generated from.
    const SCHEMA: Schema;

    /// Appends the message.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::UnsupportedVersion`] when the table does not describe the version, or when a
    /// field has a value that the version cannot carry; [`Error::Malformed`] when a length does
    /// not fit its field.
    fn encode(&self, encoder: &mut Encoder, version: i16) -> Result<()>;

    /// Reads a message; strings, bytes and record sets stay slices of the decoder's bytes.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::UnsupportedVersion`] when the table does not describe the version,
    /// [`Error::Malformed`] when the bytes do not follow it.
    fn decode(decoder: &mut Decoder, version: i16) -> Result<Self>;
}

impl Schema {
    /// How the message is written at `version`.
    pub(crate) fn context(&self, version: i16) -> Result<Context> {
        if self.versions.contains(version) {
            Ok(Context { version, flexible: self.flexible.contains(version), nullable: false })
        } else {
            Err(Error::unknown_version(self.structure.name, version, self.versions))
        }
    }
}

/// What determines the encoding of a value.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Context {
    /// The version of the message.
    pub(crate) version: i16,
    /// Whether lengths are compact and structures end with tagged fields.
    pub(crate) flexible: bool,
    /// Whether this value may be null.
    pub(crate) nullable: bool,
}

impl Context {
    /// The context of the elements of an array, which are never null.
    pub(crate) fn element(self) -> Self {
        Self { nullable: false, ..self }
    }
}

/// A value that can be encoded.
pub(crate) trait Wire: Sized {
    /// The type in the tables.
    const KIND: Kind;
    /// Whether the Rust type can hold a null.
    const OPTIONAL: bool = false;
    /// The least number of bytes that a value takes in any version.
    const MIN_BYTES: usize = 1;

    fn write(&self, encoder: &mut Encoder, context: Context) -> Result<()>;
    fn read(decoder: &mut Decoder, context: Context) -> Result<Self>;
}

/// A value that may be null.
pub(crate) trait Nullable: Wire {
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, context: Context) -> Result<()>;
    fn read_nullable(decoder: &mut Decoder, context: Context) -> Result<Option<Self>>;
}

impl<T: Nullable> Wire for Option<T> {
    const KIND: Kind = T::KIND;
    const OPTIONAL: bool = true;

    fn write(&self, encoder: &mut Encoder, context: Context) -> Result<()> {
        match self {
            _ if context.nullable => T::write_nullable(self.as_ref(), encoder, context.element()),
            Some(value) => value.write(encoder, context),
            None => Err(Error::kafka(
                ErrorCode::UnsupportedVersion,
                format!("null is not possible at version {}", context.version),
            )),
        }
    }

    fn read(decoder: &mut Decoder, context: Context) -> Result<Self> {
        if context.nullable {
            T::read_nullable(decoder, context.element())
        } else {
            T::read(decoder, context).map(Some)
        }
    }
}

/// The tagged fields of one structure while they are collected for writing.
pub(crate) type Tags = Vec<(u32, Encoder)>;

/// Writes one field, or collects it into `tags`, or drops it, as the version requires.
pub(crate) fn write_field<T: Wire + PartialEq>(
    value: &T,
    field: &Field,
    default: fn() -> T,
    (encoder, tags): (&mut Encoder, &mut Tags),
    context: Context,
) -> Result<()> {
    let version = context.version;
    let context = Context { nullable: field.nullable.contains(version), ..context };
    if !field.versions.contains(version) {
        if field.ignorable || *value == default() {
            return Ok(());
        }
        return Err(Error::kafka(
            ErrorCode::UnsupportedVersion,
            format!("{} is not possible at version {version}", field.name),
        ));
    }
    let written = if field.tagged.contains(version) {
        if *value == default() {
            return Ok(());
        }
        let mut inner = Encoder::default();
        let written = value.write(&mut inner, context);
        tags.push((field.tag, inner));
        written
    } else {
        value.write(encoder, context)
    };
    written.map_err(|error| within(error, field.name))
}

/// Names the field in an error that only knows the value.
fn within(error: Error, field: &'static str) -> Error {
    match error {
        Error::Malformed { what: VALUE, detail } => Error::Malformed { what: field, detail },
        other => other,
    }
}

/// What primitives call the thing they read, until the field is known.
pub(crate) const VALUE: &str = "value";

/// Reads one field unless the version lacks it or has it as a tagged field.
pub(crate) fn read_field<T: Wire>(
    slot: &mut T,
    field: &Field,
    decoder: &mut Decoder,
    context: Context,
) -> Result<()> {
    if field.versions.contains(context.version) && !field.tagged.contains(context.version) {
        read_value(slot, field, decoder, context)?;
    }
    Ok(())
}

/// Reads one field if it is the one with this tag.
pub(crate) fn read_tagged<T: Wire>(
    slot: &mut T,
    field: &Field,
    tag: u32,
    decoder: &mut Decoder,
    context: Context,
) -> Result<bool> {
    if field.tag != tag || !field.tagged.contains(context.version) {
        return Ok(false);
    }
    read_value(slot, field, decoder, context)?;
    Ok(true)
}

fn read_value<T: Wire>(
    slot: &mut T,
    field: &Field,
    decoder: &mut Decoder,
    context: Context,
) -> Result<()> {
    let context = Context { nullable: field.nullable.contains(context.version), ..context };
    *slot = T::read(decoder, context).map_err(|error| within(error, field.name))?;
    Ok(())
}
