//! The Kafka columns: their names, their types, and which of them are wanted.
//!
//! | column           | type                                      | nulls                 |
//! |------------------|-------------------------------------------|-----------------------|
//! | `topic`          | dictionary(int32, utf8)                   | never                 |
//! | `partition`      | int32                                     | never                 |
//! | `offset`         | int64                                     | never                 |
//! | `timestamp`      | timestamp(ms, UTC)                        | for "no timestamp" -1 |
//! | `timestamp_type` | dictionary(int8, utf8): `CreateTime` or `LogAppendTime` | never   |
//! | `key`            | binary_view                               | null key              |
//! | `value`          | binary_view                               | null value, tombstone |
//! | `headers`        | list(struct(key: utf8, value: binary))    | never; empty list     |
//!
//! `timestamp_type` is a dictionary and not a number: it reads as what it means everywhere, and
//! costs one byte a row.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

use crate::error::Error;

/// The time zone of every timestamp column.
pub(crate) const UTC: &str = "UTC";

/// One of the columns that every record has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KafkaColumn {
    /// The topic's name.
    Topic,
    /// The partition's index.
    Partition,
    /// The offset.
    Offset,
    /// The timestamp.
    Timestamp,
    /// Who set the timestamp.
    TimestampType,
    /// The key.
    Key,
    /// The value; called `value_raw` next to the columns of a decoded value.
    Value,
    /// The headers.
    Headers,
}

impl KafkaColumn {
    /// Every column, in the order of a schema.
    pub const ALL: [Self; 8] = [
        Self::Topic,
        Self::Partition,
        Self::Offset,
        Self::Timestamp,
        Self::TimestampType,
        Self::Key,
        Self::Value,
        Self::Headers,
    ];

    /// The name of the column.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Partition => "partition",
            Self::Offset => "offset",
            Self::Timestamp => "timestamp",
            Self::TimestampType => "timestamp_type",
            Self::Key => "key",
            Self::Value => "value",
            Self::Headers => "headers",
        }
    }

    /// The column of a name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|column| column.name() == name)
    }

    /// The type that the decoder fills; plain or text types are derived from it.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Topic => dictionary(DataType::Int32),
            Self::Partition => DataType::Int32,
            Self::Offset => DataType::Int64,
            Self::Timestamp => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
            Self::TimestampType => dictionary(DataType::Int8),
            Self::Key | Self::Value => DataType::BinaryView,
            Self::Headers => DataType::List(header_item()),
        }
    }

    /// Whether the column may hold nulls.
    #[must_use]
    pub const fn nullable(self) -> bool {
        matches!(self, Self::Timestamp | Self::Key | Self::Value)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

fn dictionary(key: DataType) -> DataType {
    DataType::Dictionary(Box::new(key), Box::new(DataType::Utf8))
}

pub(crate) fn header_fields() -> Fields {
    Fields::from(vec![
        Field::new("key", DataType::Utf8, false),
        Field::new("value", DataType::Binary, true),
    ])
}

pub(crate) fn header_item() -> FieldRef {
    Arc::new(Field::new("item", DataType::Struct(header_fields()), false))
}

/// A set of Kafka columns. A column that is not in it costs nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Projection(u16);

impl Projection {
    /// No column: rows are only counted.
    pub const NONE: Self = Self(0);
    /// Every column.
    pub const ALL: Self = Self(0xff);

    /// This set with one more column.
    #[must_use]
    pub const fn with(self, column: KafkaColumn) -> Self {
        Self(self.0 | column.bit())
    }

    /// This set and another one.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without a column.
    #[must_use]
    pub const fn without(self, column: KafkaColumn) -> Self {
        Self(self.0 & !column.bit())
    }

    /// Whether the column is wanted.
    #[must_use]
    pub const fn has(self, column: KafkaColumn) -> bool {
        self.0 & column.bit() != 0
    }
}

/// The error for an unknown column.
pub(crate) fn unknown_column<'a>(name: &str, fields: impl IntoIterator<Item = &'a str>) -> Error {
    let mut known: Vec<&str> = fields.into_iter().collect();
    known.extend(KafkaColumn::ALL.map(KafkaColumn::name));
    Error::invalid(format!("there is no column {name:?}; there are {}", known.join(", ")))
}
