//! Change events of Debezium: what a row of a database was before a change, and is after it.
//!
//! An event is a record of `before`, `after`, `source`, `op` and `ts_ms`, in JSON, Avro or Protobuf;
//! Kafka Connect's JSON converter may have put it into `payload`, beside its `schema`. Either the
//! parts of the envelope are the columns, or (`unwrap`) those of the row: as it is after the change,
//! and as it was before a deletion, with `op` (`c`, `u`, `d`, `r`) and `ts_ms` beside them.
//!
//! Invariant **DZ-1**: a value that is not null and has no `op` is an error of its row, so a table of
//! something else is not taken for one of empty changes.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{cast, is_not_null, is_null, nullif};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use arrow::error::ArrowError;

use super::bytes_column::BytesColumn;
use super::columns::UTC;
use super::json::JsonFormat;
use super::values::{Columns, Settled, ValueFormat, Values};
use crate::error::{Error, Result};

/// How change events are read.
#[derive(Clone, Debug, PartialEq)]
pub struct DebeziumFormat {
    /// The format of the events: JSON (whose fields are those of the row, or of an event), Avro or
    /// Protobuf.
    pub inner: ValueFormat,
    /// Whether the columns are those of the row.
    pub unwrap: bool,
}

/// The parts of an event that become columns.
const PARTS: [&str; 8] =
    ["before", "after", "source", "transaction", "op", "ts_ms", "ts_us", "ts_ns"];

/// A format of events whose columns are known.
#[derive(Clone, Debug)]
pub(super) struct Events {
    inner: Box<Settled>,
    unwrap: bool,
    /// The fields of an event, bare or in `payload`.
    envelope: Fields,
    columns: Fields,
    /// How many of the columns are those of the row.
    row_columns: usize,
}

impl Events {
    pub(super) fn new(inner: Settled, unwrap: bool) -> Result<Self> {
        let inner = match inner {
            Settled::Json(format) => {
                // Fields that were found are those of events, and not of a row.
                let found = format.fields.as_ref().filter(|_| format.found);
                if let Some(fields) = found.filter(|fields| envelope(fields).find("op").is_none()) {
                    return Err(no_event(fields));
                }
                let fields = format.fields.as_ref().map(json_event);
                Settled::Json(JsonFormat { fields, ..format })
            }
            other => other,
        };
        let Some(fields) = inner.fields()? else {
            return Err(Error::invalid("Debezium's events are JSON, Avro or Protobuf"));
        };
        let envelope = envelope(&fields);
        if envelope.find("op").is_none() {
            return Err(no_event(&fields));
        }
        let (columns, row_columns) = if unwrap {
            row_and_op(&envelope)?
        } else {
            let parts = PARTS.iter().filter_map(|name| envelope.find(name));
            (parts.map(|(_, field)| part(field)).collect(), 0)
        };
        Ok(Self { inner: Box::new(inner), unwrap, envelope, columns, row_columns })
    }

    pub(super) fn fields(&self) -> Fields {
        self.columns.clone()
    }

    pub(super) fn format(&self) -> ValueFormat {
        let inner = self.inner.format();
        ValueFormat::Debezium(Arc::new(DebeziumFormat { inner, unwrap: self.unwrap }))
    }

    pub(super) fn decoder(&self, wanted: &[usize]) -> Result<EventDecoder> {
        let all = self.inner.fields()?.unwrap_or_else(Fields::empty);
        let needed: Vec<usize> = all
            .iter()
            .enumerate()
            .filter(|(_, field)| {
                PARTS.contains(&field.name().as_str()) || field.name() == "payload"
            })
            .map(|(index, _)| index)
            .collect();
        let names = needed.iter().filter_map(|&index| all.get(index)).map(|one| one.name().clone());
        Ok(EventDecoder {
            names: names.collect(),
            values: self.inner.decoder(&needed)?,
            events: self.clone(),
            wanted: wanted.to_vec(),
        })
    }
}

#[cold]
fn no_event(fields: &Fields) -> Error {
    Error::invalid(format!(
        "the values are no events of Debezium: among their fields {} is no op",
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

/// The fields of JSON events, where those of the row may have been given, or found from values.
fn json_event(fields: &Fields) -> Fields {
    let found = envelope(fields);
    if found.find("op").is_some() {
        let found = same_rows(&found);
        if fields.find("op").is_some() {
            return found;
        }
        let payload = Field::new("payload", DataType::Struct(found), true);
        let others = fields.iter().filter(|field| field.name() != "payload").cloned();
        return others.chain([Arc::new(payload)]).collect();
    }
    // Those of a row: the event may be bare, or in a payload.
    let row = DataType::Struct(fields.clone());
    let event = Fields::from(vec![
        Field::new("before", row.clone(), true),
        Field::new("after", row, true),
        Field::new("source", DataType::Utf8View, true),
        Field::new("op", DataType::Utf8View, true),
        Field::new("ts_ms", DataType::Int64, true),
    ]);
    let payload = Field::new("payload", DataType::Struct(event.clone()), true);
    event.iter().cloned().chain([Arc::new(payload)]).collect()
}

/// Gives `before` and `after` the type of the other where no value told it.
fn same_rows(event: &Fields) -> Fields {
    let row = |name: &str| event.find(name).map(|(_, field)| field.data_type().clone());
    let is_row = |one: &Option<DataType>| matches!(one, Some(DataType::Struct(_)));
    let (before, after) = (row("before"), row("after"));
    let known = match (is_row(&before), is_row(&after)) {
        (_, true) => after,
        (true, false) => before,
        (false, false) => None,
    };
    let Some(known) = known else { return event.clone() };
    event
        .iter()
        .map(|field| match field.name().as_str() {
            "before" | "after" => Arc::new(Field::new(field.name(), known.clone(), true)),
            _ => Arc::clone(field),
        })
        .collect()
}

/// The columns of the row, and `op` and `ts_ms` under names that the row does not have.
fn row_and_op(event: &Fields) -> Result<(Fields, usize)> {
    let row = |name: &str| match event.find(name).map(|(_, field)| field.data_type()) {
        Some(DataType::Struct(fields)) => Some(fields),
        _ => None,
    };
    let row = row("after").or_else(|| row("before")).ok_or_else(|| {
        Error::invalid("no event tells the columns of the row; give them: json(schema=…)")
    })?;
    let mut columns: Vec<FieldRef> =
        row.iter().map(|field| Arc::new(Field::clone(field).with_nullable(true))).collect();
    for name in ["op", "ts_ms"] {
        let Some((_, field)) = event.find(name) else { continue };
        let name = if row.find(name).is_some() { format!("__{name}") } else { name.to_owned() };
        columns.push(Arc::new(part(field).with_name(name)));
    }
    Ok((columns.into(), row.len()))
}

/// Decodes events: the inner format first, then its columns.
#[derive(Debug)]
pub(super) struct EventDecoder {
    names: Vec<String>,
    values: Values,
    events: Events,
    wanted: Vec<usize>,
}

impl EventDecoder {
    pub(super) fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        let mut failed = BTreeSet::new();
        let mut note = |row, detail| {
            failed.insert(row);
            bad(row, detail)
        };
        let arrays = match self.values.decode(values, &mut note)? {
            // No format with many rows in a record is taken for events.
            Columns::Done(arrays) | Columns::Many { columns: arrays, .. } => arrays,
            needed @ Columns::Schema(_) => return Ok(needed),
        };
        let event = Event::new(&self.names, &arrays, values.len());
        let op = event.part("op", &self.events.envelope).map_err(internal)?;
        // Protobuf does not tell text that is empty from text that is not there.
        let text = BytesColumn::new("op", &op).ok();
        let is_blank = |row| match &text {
            Some(text) => text.get(row).is_none_or(<[u8]>::is_empty),
            None => op.is_null(row),
        };
        for row in 0..values.len() {
            if values.is_valid(row) && is_blank(row) && !failed.contains(&row) {
                bad(row, "the value is no event of Debezium: it has no op".to_owned())?;
            }
        }
        self.columns(&event, &op).map(Columns::Done).map_err(internal)
    }

    fn columns(&self, event: &Event<'_>, op: &ArrayRef) -> Result<Vec<ArrayRef>, ArrowError> {
        let envelope = &self.events.envelope;
        let row_columns = self.events.row_columns;
        let row = if self.wanted.iter().any(|&index| index < row_columns) {
            Some(changed_row(event, envelope)?)
        } else {
            None
        };
        let mut columns = Vec::with_capacity(self.wanted.len());
        for &index in &self.wanted {
            let Some(field) = self.events.columns.get(index) else { continue };
            columns.push(match &row {
                Some(row) if index < row_columns => {
                    let child = row.as_struct().column(index);
                    nullif(child, &is_null(row)?)?
                }
                _ => {
                    let name = field.name().trim_start_matches("__");
                    let column =
                        if name == "op" { Arc::clone(op) } else { event.part(name, envelope)? };
                    cast(&column, field.data_type())?
                }
            });
        }
        Ok(columns)
    }
}

/// The row after the change, or before it where there is none after.
fn changed_row(event: &Event<'_>, envelope: &Fields) -> Result<ArrayRef, ArrowError> {
    let is_row = |name: &str| {
        let field = envelope.find(name);
        matches!(field.map(|(_, field)| field.data_type()), Some(DataType::Struct(_)))
    };
    match (is_row("after"), is_row("before")) {
        (true, true) => {
            let after = event.part("after", envelope)?;
            let before = cast(&event.part("before", envelope)?, after.data_type())?;
            zip(&is_not_null(&after)?, &after, &before)
        }
        (true, false) => event.part("after", envelope),
        _ => event.part("before", envelope),
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn internal(error: ArrowError) -> Error {
    Error::invalid(format!("could not take the events apart: {error}"))
}

/// The decoded parts of events, bare or in `payload`.
struct Event<'a> {
    names: &'a [String],
    arrays: &'a [ArrayRef],
    rows: usize,
    /// Which rows have their event in `payload`.
    inside: Option<BooleanArray>,
}

impl<'a> Event<'a> {
    fn new(names: &'a [String], arrays: &'a [ArrayRef], rows: usize) -> Self {
        let mut event = Self { names, arrays, rows, inside: None };
        event.inside = event.payload("op").and_then(|op| is_not_null(&op).ok());
        event
    }

    fn bare(&self, name: &str) -> Option<ArrayRef> {
        let at = self.names.iter().position(|known| known == name)?;
        self.arrays.get(at).cloned()
    }

    fn payload(&self, name: &str) -> Option<ArrayRef> {
        let payload = self.bare("payload")?;
        payload.as_struct_opt()?.column_by_name(name).cloned()
    }

    fn part(&self, name: &str, envelope: &Fields) -> Result<ArrayRef, ArrowError> {
        let wanted = envelope.find(name).map_or(&DataType::Null, |(_, field)| field.data_type());
        match (self.payload(name), self.bare(name), &self.inside) {
            (Some(inside), None, _) => Ok(inside),
            (None, Some(bare), _) => Ok(bare),
            (Some(inside), Some(bare), Some(is_inside)) => match is_inside.true_count() {
                0 => Ok(bare),
                count if count == self.rows => Ok(inside),
                _ => zip(is_inside, &inside, &bare),
            },
            _ => Ok(new_null_array(wanted, self.rows)),
        }
    }
}
