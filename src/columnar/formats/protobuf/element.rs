//! One value of a field: what it is compiled to, and how it gets into a column.

use arrow::datatypes::TimeUnit;

use super::enums::EnumTable;
use super::read::Program;
use super::schema::Kind;
use super::wire::{Cursor, Raw};
use crate::columnar::formats::builder::Column;
use crate::columnar::formats::fail::{Fail, Read, not_utf8};
use crate::columnar::formats::varint::unzigzag;

/// The kind of one value of a field.
#[derive(Debug)]
pub(super) enum Element {
    Plain(Kind),
    Enum(EnumTable),
    Message(Box<Program>),
    Wrapper(Box<Self>),
}

impl Element {
    pub(super) fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Enum(symbols) => Self::Enum(EnumTable::new(symbols)),
            Kind::Message(message) => Self::Message(Box::new(Program::new(message, None))),
            Kind::Wrapper(inner) => Self::Wrapper(Box::new(Self::new(inner))),
            other => Self::Plain(other.clone()),
        }
    }

    /// Whether a payload has its wire type, so that the field is this one.
    pub(super) const fn takes(&self, raw: Raw<'_>) -> bool {
        match self {
            Self::Message(_) | Self::Wrapper(_) => matches!(raw, Raw::Bytes(_) | Raw::Group(_)),
            Self::Enum(_) => matches!(raw, Raw::Varint(_)),
            Self::Plain(kind) => matches!(
                (kind.wire_type(), raw),
                (Some(0), Raw::Varint(_))
                    | (Some(1), Raw::Eight(_))
                    | (Some(2), Raw::Bytes(_))
                    | (Some(5), Raw::Four(_))
                    | (None, Raw::Bytes(_) | Raw::Group(_))
            ),
        }
    }

    /// Whether it is read after the other fields, since it can be merged.
    pub(super) const fn is_merged(&self) -> bool {
        match self {
            Self::Message(_) | Self::Wrapper(_) => true,
            Self::Plain(kind) => kind.is_message(),
            Self::Enum(_) => false,
        }
    }

    /// Appends the value of a field that was not set.
    pub(super) fn push_default(&self, column: &mut Column) {
        match self {
            Self::Enum(_) => column.push_symbol(0),
            Self::Message(_) | Self::Wrapper(_) => column.push_null(),
            Self::Plain(kind) => match kind {
                Kind::Double => column.push_f64(0.0),
                Kind::Float => column.push_f32(0.0),
                Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 | Kind::Uint32 | Kind::Fixed32 => {
                    column.push_i32(0);
                }
                Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
                    column.push_i64(0);
                }
                Kind::Bool => column.push_bool(false),
                Kind::Text => {
                    column.push_utf8(&[], 0);
                }
                Kind::Bytes => column.push_bytes(&[]),
                _ => column.push_null(),
            },
        }
    }
}

/// Appends a value that is not a message; false if the field has another wire type, and so is not
/// this one.
#[inline]
pub(super) fn push_plain(element: &Element, raw: Raw<'_>, column: &mut Column) -> Read<bool> {
    match element {
        Element::Plain(kind) => push_kind(kind, raw, column),
        Element::Enum(table) => match raw {
            Raw::Varint(number) => table.push(number as i32, column).map(|()| true),
            _ => Ok(false),
        },
        Element::Message(_) | Element::Wrapper(_) => Ok(false),
    }
}

/// Appends the value after a one-byte tag with the kind's wire type.
#[inline]
pub(super) fn read_plain(kind: &Kind, cursor: &mut Cursor<'_>, column: &mut Column) -> Read {
    cursor.skip_byte();
    let raw = match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => Raw::Eight(cursor.chunk()?),
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => Raw::Four(cursor.chunk()?),
        Kind::Text | Kind::Bytes => Raw::Bytes(cursor.bytes()?),
        _ => Raw::Varint(cursor.varint()?),
    };
    push_kind(kind, raw, column).map(drop)
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "one dispatch on the kind instead of two")]
pub(super) fn push_kind(kind: &Kind, raw: Raw<'_>, column: &mut Column) -> Read<bool> {
    match (kind, raw) {
        (Kind::Int64 | Kind::Uint64, Raw::Varint(value)) => column.push_i64(value as i64),
        (Kind::Int32 | Kind::Uint32, Raw::Varint(value)) => column.push_i32(value as i32),
        (Kind::Sint64, Raw::Varint(value)) => column.push_i64(unzigzag(value)),
        (Kind::Sint32, Raw::Varint(value)) => {
            column.push_i32(unzigzag(value & 0xffff_ffff) as i32);
        }
        (Kind::Bool, Raw::Varint(value)) => column.push_bool(value != 0),
        (Kind::Double, Raw::Eight(bytes)) => column.push_f64(f64::from_le_bytes(bytes)),
        (Kind::Float, Raw::Four(bytes)) => column.push_f32(f32::from_le_bytes(bytes)),
        (Kind::Fixed64 | Kind::Sfixed64, Raw::Eight(bytes)) => {
            column.push_i64(i64::from_le_bytes(bytes));
        }
        (Kind::Fixed32 | Kind::Sfixed32, Raw::Four(bytes)) => {
            column.push_i32(i32::from_le_bytes(bytes));
        }
        (Kind::Bytes, Raw::Bytes(bytes)) => column.push_bytes(bytes),
        (Kind::Text, Raw::Bytes(bytes)) => {
            if !column.push_utf8(bytes, bytes.len()) {
                return Err(not_utf8());
            }
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// A Timestamp or a Duration in nanoseconds or microseconds: seconds in field 1, nanoseconds in
/// field 2. What the unit cannot hold exactly is refused.
pub(super) fn time(bytes: &[u8], unit: TimeUnit) -> Read<i64> {
    let (mut seconds, mut nanos) = (0_i64, 0_i64);
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_empty() {
        match cursor.field()? {
            (1, Raw::Varint(value)) => seconds = value as i64,
            (2, Raw::Varint(value)) => nanos = i64::from(value as i32),
            _ => {}
        }
    }
    let nanoseconds = i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
    let time = match unit {
        TimeUnit::Microsecond if nanoseconds % 1000 == 0 => i64::try_from(nanoseconds / 1000).ok(),
        TimeUnit::Nanosecond => i64::try_from(nanoseconds).ok(),
        _ => None,
    };
    time.ok_or_else(|| {
        let other = if unit == TimeUnit::Nanosecond { "us" } else { "ns" };
        Fail::new(format!(
            "{seconds} s and {nanos} ns are not a whole 64-bit number of {unit:?}s; \
             the format's time_unit={other:?} may hold it"
        ))
    })
}
