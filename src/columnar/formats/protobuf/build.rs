//! Builds the tree of a message's fields from descriptors.

use std::sync::Arc;

use protox::prost_reflect::Kind as Described;
use protox::prost_reflect::{Cardinality, EnumDescriptor, FieldDescriptor, MessageDescriptor};

use super::schema::{FieldDef, Kind, Message, Shape, Symbols};

/// How many fields a message may have, including those of nested messages.
const FIELDS_MAX: usize = 60_000;
/// Messages nested deeper than this are kept as bytes.
pub(super) const DEPTH_MAX: usize = 32;

/// Builds a message.
///
/// # Errors
/// When it is too large.
pub(super) fn build(message: &MessageDescriptor) -> Result<Arc<Message>, String> {
    Builder { open: Vec::new(), fields: 0 }.message(message)
}

struct Builder {
    /// The messages that are being built, the outermost first.
    open: Vec<String>,
    fields: usize,
}

impl Builder {
    fn message(&mut self, message: &MessageDescriptor) -> Result<Arc<Message>, String> {
        let name = message.full_name().to_owned();
        self.open.push(name.clone());
        let mut fields = Vec::new();
        let oneofs: Vec<String> = message
            .oneofs()
            .filter(|oneof| !oneof.is_synthetic())
            .map(|oneof| oneof.full_name().to_owned())
            .collect();
        let mut described: Vec<FieldDescriptor> = message.fields().collect();
        // In the order of the file; the library sorts them by number.
        described.sort_by_key(|field| field.path().last().copied().unwrap_or(0));
        for field in &described {
            self.fields = self.fields.saturating_add(1);
            if self.fields > FIELDS_MAX {
                return Err(format!("message {:?} has too many fields", self.open.first()));
            }
            let oneof = field.containing_oneof();
            fields.push(FieldDef {
                name: field.name().to_owned(),
                number: field.number(),
                oneof: oneof
                    .and_then(|one| oneofs.iter().position(|name| *name == one.full_name())),
                group: field.is_group(),
                shape: self.shape(field)?,
                kind: self.value_kind(field)?,
            });
        }
        self.open.pop();
        Ok(Arc::new(Message { name, fields }))
    }

    fn shape(&mut self, field: &FieldDescriptor) -> Result<Shape, String> {
        if field.is_map()
            && let Described::Message(entry) = field.kind()
        {
            return Ok(Shape::Map(self.kind(&entry.map_entry_key_field().kind())?));
        }
        if field.is_list() {
            // An option that overrides it is only in the descriptor.
            let options = field.field_descriptor_proto().options.as_ref();
            let told = options.and_then(|options| options.packed);
            return Ok(Shape::Many { packed: told.unwrap_or_else(|| field.is_packed()) });
        }
        Ok(Shape::One {
            presence: field.supports_presence(),
            required: field.cardinality() == Cardinality::Required,
        })
    }

    fn value_kind(&mut self, field: &FieldDescriptor) -> Result<Kind, String> {
        match field.kind() {
            Described::Message(entry) if field.is_map() => {
                self.kind(&entry.map_entry_value_field().kind())
            }
            other => self.kind(&other),
        }
    }

    fn kind(&mut self, kind: &Described) -> Result<Kind, String> {
        Ok(match kind {
            Described::Double => Kind::Double,
            Described::Float => Kind::Float,
            Described::Int32 => Kind::Int32,
            Described::Int64 => Kind::Int64,
            Described::Uint32 => Kind::Uint32,
            Described::Uint64 => Kind::Uint64,
            Described::Sint32 => Kind::Sint32,
            Described::Sint64 => Kind::Sint64,
            Described::Fixed32 => Kind::Fixed32,
            Described::Fixed64 => Kind::Fixed64,
            Described::Sfixed32 => Kind::Sfixed32,
            Described::Sfixed64 => Kind::Sfixed64,
            Described::Bool => Kind::Bool,
            Described::String => Kind::Text,
            Described::Bytes => Kind::Bytes,
            Described::Enum(described) => Kind::Enum(symbols(described)),
            Described::Message(message) => self.inner(message)?,
        })
    }

    fn inner(&mut self, message: &MessageDescriptor) -> Result<Kind, String> {
        let name = message.full_name();
        let wrapped = match name {
            "google.protobuf.Timestamp" => return Ok(Kind::Timestamp),
            "google.protobuf.Duration" => return Ok(Kind::Duration),
            "google.protobuf.DoubleValue" => Kind::Double,
            "google.protobuf.FloatValue" => Kind::Float,
            "google.protobuf.Int64Value" => Kind::Int64,
            "google.protobuf.UInt64Value" => Kind::Uint64,
            "google.protobuf.Int32Value" => Kind::Int32,
            "google.protobuf.UInt32Value" => Kind::Uint32,
            "google.protobuf.BoolValue" => Kind::Bool,
            "google.protobuf.StringValue" => Kind::Text,
            "google.protobuf.BytesValue" => Kind::Bytes,
            _ if self.open.len() >= DEPTH_MAX || holds_itself(message) => return Ok(Kind::Opaque),
            _ => return Ok(Kind::Message(self.message(message)?)),
        };
        Ok(Kind::Wrapper(Box::new(wrapped)))
    }
}

/// Whether a message can be reached from its own fields.
fn holds_itself(message: &MessageDescriptor) -> bool {
    let mut seen: Vec<String> = Vec::new();
    let mut open = vec![message.clone()];
    while let Some(next) = open.pop() {
        for field in next.fields() {
            let Described::Message(inner) = field.kind() else { continue };
            if inner == *message {
                return true;
            }
            if !seen.iter().any(|known| known == inner.full_name()) {
                seen.push(inner.full_name().to_owned());
                open.push(inner);
            }
        }
    }
    false
}

/// The names in the order of the file, which the library sorts by number: if a number has several
/// names, the first is used for reading, and each can be written.
fn symbols(described: &EnumDescriptor) -> Arc<Symbols> {
    let mut declared: Vec<(i32, String)> = described
        .enum_descriptor_proto()
        .value
        .iter()
        .map(|value| (value.number(), value.name().to_owned()))
        .collect();
    let default = described.default_value().number();
    declared.sort_by_key(|(number, _)| *number != default);
    let mut values: Vec<(i32, String)> = Vec::with_capacity(declared.len());
    let mut aliases = Vec::new();
    for (number, name) in declared {
        if values.iter().any(|(known, _)| *known == number) {
            aliases.push((number, name));
        } else {
            values.push((number, name));
        }
    }
    Arc::new(Symbols { name: described.full_name().to_owned(), values, aliases })
}
