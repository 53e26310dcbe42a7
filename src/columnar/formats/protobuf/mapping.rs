//! Maps Protobuf types to Arrow types.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};

use super::schema::{FieldDef, Kind, Message, Shape};
use crate::columnar::columns::UTC;
use crate::columnar::formats::builder::Column;

/// The columns of a message; all are nullable, for tombstones.
pub(super) fn fields(message: &Message, time_unit: TimeUnit) -> Fields {
    message.fields.iter().map(|field| arrow(field, time_unit).with_nullable(true)).collect()
}

fn arrow(field: &FieldDef, time_unit: TimeUnit) -> Field {
    let value = data_type(&field.kind, time_unit);
    match &field.shape {
        Shape::One { presence, required } => {
            Field::new(&field.name, value, *presence && !*required || field.kind.is_message())
        }
        Shape::Many { .. } => {
            let item = Field::new("item", value, is_wrapper(&field.kind));
            Field::new(&field.name, DataType::List(Arc::new(item)), false)
        }
        Shape::Map(key) => {
            let entries = Fields::from(vec![
                Field::new("key", data_type(key, time_unit), false),
                Field::new("value", value, is_wrapper(&field.kind)),
            ]);
            let entries = Field::new("entries", DataType::Struct(entries), false);
            Field::new(&field.name, DataType::Map(Arc::new(entries), false), false)
        }
    }
}

const fn is_wrapper(kind: &Kind) -> bool {
    matches!(kind, Kind::Wrapper(_))
}

fn data_type(kind: &Kind, time_unit: TimeUnit) -> DataType {
    match kind {
        Kind::Double => DataType::Float64,
        Kind::Float => DataType::Float32,
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => DataType::Int32,
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => DataType::Int64,
        Kind::Uint32 | Kind::Fixed32 => DataType::UInt32,
        Kind::Uint64 | Kind::Fixed64 => DataType::UInt64,
        Kind::Bool => DataType::Boolean,
        Kind::Text => DataType::Utf8View,
        Kind::Bytes | Kind::Opaque => DataType::BinaryView,
        Kind::Enum(_) => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
        Kind::Message(message) => {
            DataType::Struct(message.fields.iter().map(|field| arrow(field, time_unit)).collect())
        }
        Kind::Timestamp => DataType::Timestamp(time_unit, Some(UTC.into())),
        Kind::Duration => DataType::Duration(time_unit),
        Kind::Wrapper(inner) => data_type(inner, time_unit),
    }
}

/// Sets the names of enums in the dictionary columns of a field.
pub(super) fn set_symbols(column: &mut Column, field: &FieldDef) {
    match field.shape {
        Shape::One { .. } => value_symbols(column, &field.kind),
        Shape::Many { .. } => {
            if let Some(items) = column.items() {
                value_symbols(items, &field.kind);
            }
        }
        Shape::Map(_) => {
            if let Some((_, values)) = column.entries() {
                value_symbols(values, &field.kind);
            }
        }
    }
}

fn value_symbols(column: &mut Column, kind: &Kind) {
    match kind {
        Kind::Enum(symbols) => {
            column.set_symbols(symbols.values.iter().map(|(_, name)| name.clone()));
        }
        Kind::Message(message) => {
            let members = column.members().into_iter().flatten();
            members.zip(&message.fields).for_each(|(member, field)| set_symbols(member, field));
        }
        _ => {}
    }
}
