//! Debezium's change events: a row of a database before and after a change.
//!
//! An event is a record of `before`, `after`, `source`, `op` and `ts_ms`, in JSON, Avro or Protobuf;
//! Kafka Connect's JSON converter may put it into `payload`, next to its `schema`. The columns are
//! either the parts of the envelope or (`unwrap`) those of the row: as of after the change or, for a
//! deletion, before it, with `op` (`c`, `u`, `d`, `r`, `t`) and `ts_ms`. The columns of a row are
//! those before and after a change combined. Rows of MongoDB are documents, which are text: then
//! `before` and `after` are columns.
//!
//! Invariant **DZ-1**: a value that is not null and has no `op` is an error of its row, so something
//! else is not mistaken for a table of empty changes.

mod connect;
mod decimals;
mod decoder;
mod probe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};

pub use decimals::DecimalStrings;

use super::ValueFormat;
use super::json::{Extra, JsonFormat};
use super::reading::{DecodeValues, Probe, ReadFormat};
use super::registry::SchemaSource;
use crate::columnar::columns::UTC;
use crate::error::{Error, Result};
use decimals::{any_decimal, texts};
use decoder::EventDecoder;
use probe::EventProbe;

/// How change events are read.
#[derive(Clone, Debug, PartialEq)]
pub struct DebeziumFormat {
    /// The format of the events: JSON (whose fields are those of the row, or of an event), Avro or
    /// Protobuf.
    pub inner: ValueFormat,
    /// Whether the columns are those of the row.
    pub unwrap: bool,
    /// How strings of decimals are read, in JSON.
    pub decimals: DecimalStrings,
}

impl DebeziumFormat {
    fn with_inner(&self, inner: ValueFormat) -> Self {
        Self { inner, unwrap: self.unwrap, decimals: self.decimals }
    }
}

impl ReadFormat for DebeziumFormat {
    fn is_settled(&self) -> bool {
        self.inner.is_settled()
    }

    fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        self.inner.source()
    }

    fn settle_for(&self, topic: &str) -> Result<Option<ValueFormat>> {
        let inner = self.inner.clone().settle_for(topic)?;
        Ok(Some(ValueFormat::Debezium(Arc::new(self.with_inner(inner)))))
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        Ok(Box::new(EventProbe::new(self)?))
    }

    fn fields(&self) -> Result<Option<Fields>> {
        Ok(Some(Events::new(self)?.columns))
    }

    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        Ok(Box::new(EventDecoder::new(Events::new(self)?, wanted)?))
    }
}

/// The parts of an event that become columns.
pub(in crate::columnar) const PARTS: [&str; 10] = [
    "before",
    "after",
    "updateDescription",
    "message",
    "source",
    "transaction",
    "op",
    "ts_ms",
    "ts_us",
    "ts_ns",
];
/// The parts that describe the change itself.
pub(in crate::columnar) const CHANGES: [&str; 4] =
    ["before", "after", "updateDescription", "message"];

/// Where a column comes from.
#[derive(Clone, Debug)]
enum Origin {
    /// A column of the row.
    Row(String),
    /// A part of the event.
    Part(String),
}

/// What events with known columns are.
#[derive(Debug)]
struct Events {
    /// The format in which the events are decoded first.
    inner: ValueFormat,
    /// How strings of decimals are read.
    decimals: DecimalStrings,
    /// The fields of an event as they are decoded first, bare or in `payload`.
    envelope: Fields,
    columns: Fields,
    origins: Vec<Origin>,
    /// Whether columns are converted from the texts of decimals.
    makes_decimals: bool,
    /// Whether it is known which columns the row has.
    has_row: bool,
}

impl Events {
    fn new(format: &DebeziumFormat) -> Result<Self> {
        let settled = match &format.inner {
            ValueFormat::Json(json) => {
                // Inferred fields are those of events, not of a row.
                let found = json.fields.as_ref().filter(|_| json.found);
                if let Some(fields) = found.filter(|fields| envelope(fields).find("op").is_none()) {
                    return Err(no_event(fields));
                }
                let fields = json.fields.as_ref().map(json_event);
                // What is not of the row has no column that could lack a member.
                let extra = match json.extra {
                    Extra::Error if format.unwrap => Extra::ErrorIn(&["before", "after"]),
                    other => other,
                };
                ValueFormat::Json(JsonFormat { fields, extra, ..json.clone() })
            }
            other => other.clone(),
        };
        let Some(fields) = settled.fields()? else {
            return Err(Error::invalid("Debezium's events must be JSON, Avro or Protobuf"));
        };
        let event = envelope(&fields);
        if event.find("op").is_none() {
            return Err(no_event(&fields));
        }
        let row = row_fields(&event)?;
        let (columns, origins) = if format.unwrap {
            unwrapped(&event, row.as_ref())
        } else {
            let parts = PARTS.iter().filter_map(|name| event.find(name)).map(|(_, field)| field);
            (
                parts.clone().map(|field| part(field)).collect(),
                parts.map(|field| Origin::Part(field.name().clone())).collect(),
            )
        };
        let has_decimals =
            row.as_ref().is_some_and(|row| row.iter().any(|field| any_decimal(field.data_type())));
        let (inner, makes_decimals) = match settled {
            ValueFormat::Json(json) if has_decimals => {
                let fields = json.fields.as_ref().map(with_texts);
                (ValueFormat::Json(JsonFormat { fields, ..json }), true)
            }
            other => (other, false),
        };
        let envelope = envelope(&inner.fields()?.unwrap_or_else(Fields::empty));
        let (decimals, has_row) = (format.decimals, row.is_some());
        Ok(Self { inner, decimals, envelope, columns, origins, makes_decimals, has_row })
    }
}

#[cold]
fn no_event(fields: &Fields) -> Error {
    Error::invalid(format!(
        "the values are not Debezium events: their fields {} do not include op",
        fields.iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ")
    ))
}

/// A part of an event as a column.
fn part(field: &Field) -> Field {
    let data_type = match (field.name().as_str(), field.data_type()) {
        ("ts_ms", DataType::Int64) => time(),
        (_, other) => other.clone(),
    };
    Field::new(field.name(), data_type, true)
}

fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
}

/// The fields of an event, bare or in `payload`.
fn envelope(fields: &Fields) -> Fields {
    let inside = fields.find("payload").and_then(|(_, payload)| match payload.data_type() {
        DataType::Struct(inside) if inside.find("op").is_some() => Some(inside.clone()),
        _ => None,
    });
    inside.unwrap_or_else(|| fields.clone())
}

/// The fields of JSON events, for which those of the row may have been given.
fn json_event(fields: &Fields) -> Fields {
    if envelope(fields).find("op").is_some() {
        return fields.clone();
    }
    event_fields(&DataType::Struct(fields.clone()))
}

/// The fields of JSON events with rows of a type, bare or in a payload.
fn event_fields(row: &DataType) -> Fields {
    let event = Fields::from(vec![
        Field::new("before", row.clone(), true),
        Field::new("after", row.clone(), true),
        Field::new("source", DataType::Utf8View, true),
        Field::new("op", DataType::Utf8View, true),
        Field::new("ts_ms", DataType::Int64, true),
    ]);
    let payload = Field::new("payload", DataType::Struct(event.clone()), true);
    event.iter().cloned().chain([Arc::new(payload)]).collect()
}

/// The inferred fields of events, with those of the row that a schema gives.
fn with_row(found: &Fields, told: &Fields) -> Fields {
    if told.is_empty() {
        return found.clone();
    }
    let row = |field: &FieldRef| {
        let row = match field.data_type() {
            DataType::Struct(seen) => {
                let others = seen.iter().filter(|one| told.find(one.name()).is_none());
                told.iter().chain(others).cloned().collect()
            }
            _ => told.clone(),
        };
        Arc::new(Field::clone(field).with_data_type(DataType::Struct(row)))
    };
    found
        .iter()
        .map(|field| match (field.name().as_str(), field.data_type()) {
            ("before" | "after", _) => row(field),
            ("payload", DataType::Struct(inside)) => {
                let inside = DataType::Struct(with_row(inside, told));
                Arc::new(Field::clone(field).with_data_type(inside))
            }
            _ => Arc::clone(field),
        })
        .collect()
}

/// The fields with texts in place of the decimals of rows, and the text of the event's schema, which
/// says what they are.
fn with_texts(fields: &Fields) -> Fields {
    let inside = |fields: &Fields| -> Vec<FieldRef> {
        let is_row = |field: &FieldRef| matches!(field.name().as_str(), "before" | "after");
        let row = |field| if is_row(field) { texts(field) } else { Arc::clone(field) };
        fields.iter().map(row).collect()
    };
    let mut made = inside(fields);
    let mut is_wrapped = false;
    for field in &mut made {
        if field.name() == "payload"
            && let DataType::Struct(event) = field.data_type()
        {
            is_wrapped = true;
            let event = DataType::Struct(inside(event).into());
            *field = Arc::new(Field::clone(field).with_data_type(event));
        }
    }
    if is_wrapped {
        made.retain(|field| field.name() != "schema");
        made.push(Arc::new(Field::new("schema", DataType::Utf8View, true)));
    }
    made.into()
}

/// The columns of the row, before and after a change; none if rows are not structs.
fn row_fields(event: &Fields) -> Result<Option<Fields>> {
    let row = |name: &str| match event.find(name).map(|(_, field)| field.data_type()) {
        Some(DataType::Struct(fields)) => Some(fields),
        _ => None,
    };
    let (Some(after), Some(before)) = (row("after"), row("before")) else {
        return Ok(row("after").or_else(|| row("before")).cloned());
    };
    let mut all: Vec<FieldRef> = after.iter().cloned().collect();
    for field in before {
        match after.find(field.name()) {
            None => all.push(Arc::clone(field)),
            Some((_, known)) if known.data_type().equals_datatype(field.data_type()) => {}
            Some((_, known)) => {
                return Err(Error::invalid(format!(
                    "column {:?} of the row is {} before a change and {} after it; read the events \
                     without unwrap=True",
                    field.name(),
                    field.data_type(),
                    known.data_type()
                )));
            }
        }
    }
    Ok(Some(all.into()))
}

/// The columns of the row, or the parts of a change if there are none, and `op` and `ts_ms` under
/// names that the row does not have.
fn unwrapped(event: &Fields, row: Option<&Fields>) -> (Fields, Vec<Origin>) {
    let mut columns: Vec<FieldRef> = Vec::new();
    let mut origins = Vec::new();
    match row {
        Some(row) => {
            for field in row {
                columns.push(Arc::new(Field::clone(field).with_nullable(true)));
                origins.push(Origin::Row(field.name().clone()));
            }
        }
        None => {
            for (_, field) in CHANGES.iter().filter_map(|name| event.find(name)) {
                columns.push(Arc::new(part(field)));
                origins.push(Origin::Part(field.name().clone()));
            }
        }
    }
    for name in ["op", "ts_ms"] {
        let Some((_, field)) = event.find(name) else { continue };
        let mut shown = name.to_owned();
        while columns.iter().any(|known| *known.name() == shown) {
            shown = if shown == name { format!("__{name}") } else { format!("_{shown}") };
        }
        columns.push(Arc::new(part(field).with_name(shown)));
        origins.push(Origin::Part(name.to_owned()));
    }
    (columns.into(), origins)
}
