//! Determines the columns of events from the first ones.
//!
//! What the values of JSON events do not reveal (the types of their numbers, times and bytes, and the
//! columns of a row before there is one), their `schema` may. As long as no event has a row (events
//! of truncations have none), rows do not wait for one: they have `op`, `ts_ms` and nulls.

use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

use super::{DebeziumFormat, Events, PARTS, connect};
use crate::columnar::columns::KafkaColumn;
use crate::columnar::formats::json::JsonFormat;
use crate::columnar::formats::{Look, Probe, Settled};
use crate::columnar::read::assemble::Assembled;
use crate::columnar::read::decoder::OnError;
use crate::error::Result;

/// Examines events.
#[derive(Debug)]
pub(in crate::columnar) struct EventProbe {
    inner: Box<Probe>,
    format: Arc<DebeziumFormat>,
    /// The fields of the row, from the schemas of events.
    row: Fields,
    /// How many values were searched for schemas.
    searched: usize,
}

impl EventProbe {
    pub(in crate::columnar) fn new(mut inner: Probe, format: &Arc<DebeziumFormat>) -> Self {
        if let Probe::Json(probe) = &mut inner {
            probe.look_for_events();
        }
        let format = Arc::clone(format);
        Self { inner: Box::new(inner), format, row: Fields::empty(), searched: 0 }
    }

    pub(in crate::columnar) fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        self.search(assembled);
        match self.inner.look(assembled)? {
            Look::Settled(inner) => self.settle(inner),
            other => Ok(other),
        }
    }

    pub(in crate::columnar) fn expect(&mut self, on_error: OnError) {
        self.inner.expect(on_error);
    }

    pub(in crate::columnar) fn give_up(&self) -> Option<Settled> {
        match self.settle(self.inner.give_up()?).ok()? {
            Look::Settled(settled) => Some(settled),
            _ => None,
        }
    }

    /// Events whose rows have the requested columns, which are null.
    pub(in crate::columnar) fn unsettled(&self, named: Fields) -> Settled {
        let Probe::Json(probe) = &*self.inner else { return self.inner.unsettled(named) };
        let is_of_row = |field: &Field| {
            let name = field.name().trim_start_matches('_');
            !PARTS.contains(&field.name().as_str()) && !PARTS.contains(&name)
        };
        let columns: Fields = named.iter().filter(|field| is_of_row(field)).cloned().collect();
        let row = match columns.len() {
            0 => DataType::Utf8View,
            _ => DataType::Struct(columns),
        };
        let format = JsonFormat { found: false, ..probe.events(super::event_fields(&row)) };
        Events::new(Settled::Json(format), &self.format)
            .map_or_else(|_no_event| Settled::Nothing(named), Settled::Debezium)
    }

    fn settle(&self, inner: Settled) -> Result<Look> {
        let (inner, is_json) = match inner {
            Settled::Json(format) => {
                let fields = format.fields.as_ref().map(|found| super::with_row(found, &self.row));
                (Settled::Json(JsonFormat { fields, ..format }), true)
            }
            other => (other, false),
        };
        match Events::new(inner, &self.format) {
            // Waits for an event with a row.
            Ok(events) if is_json && !events.has_row() && !self.has_changes() => Ok(Look::More),
            Ok(events) => Ok(Look::Settled(Settled::Debezium(events))),
            // Each of those values is an error.
            Err(_no_event) if is_json => Ok(Look::Nothing),
            Err(no_event) => Err(no_event),
        }
    }

    /// Whether a change was seen that is not a row but, for example, a document.
    fn has_changes(&self) -> bool {
        matches!(&*self.inner, Probe::Json(probe) if probe.has_changes())
    }

    /// Takes the schemas of the first events.
    fn search(&mut self, assembled: &Assembled) {
        let Probe::Json(probe) = &*self.inner else { return };
        let Some(values) = assembled.filled.column(KafkaColumn::Value) else { return };
        for value in values.as_binary_view().iter().flatten() {
            if self.searched >= probe.wanted() && !self.row.is_empty() {
                return;
            }
            self.searched = self.searched.saturating_add(1);
            let Ok(Value::Object(event)) = serde_json::from_slice(probe.body(value)) else {
                continue;
            };
            if let (Some(schema), Some(_)) = (event.get("schema"), event.get("payload")) {
                self.row = connect::union(&self.row, &connect::row_fields(schema));
            }
        }
    }
}
