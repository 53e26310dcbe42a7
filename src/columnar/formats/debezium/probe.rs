//! Determines the columns of events from the first ones.
//!
//! What the values of JSON events do not reveal (the types of their numbers, times and bytes, and the
//! columns of a row before there is one), their `schema` may. As long as no event has a row (events
//! of truncations have none), rows do not wait for one: they have `op`, `ts_ms` and nulls.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use serde_json::Value;

use super::{DebeziumFormat, Events, PARTS, connect};
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::json::{JsonFormat, JsonProbe};
use crate::columnar::formats::reading::{Look, Probe};
use crate::columnar::formats::schemas::Unrevealed;
use crate::columnar::read::assemble::Assembled;
use crate::columnar::read::decoder::OnError;
use crate::error::Result;

/// What examines the format of events.
#[derive(Debug)]
enum Inner {
    Json(Box<JsonProbe>),
    Other(Box<dyn Probe>),
}

impl Inner {
    fn probe(&self) -> &dyn Probe {
        match self {
            Self::Json(probe) => probe.as_ref(),
            Self::Other(probe) => probe.as_ref(),
        }
    }

    fn probe_mut(&mut self) -> &mut dyn Probe {
        match self {
            Self::Json(probe) => probe.as_mut(),
            Self::Other(probe) => probe.as_mut(),
        }
    }
}

/// Examines events.
#[derive(Debug)]
pub(super) struct EventProbe {
    inner: Inner,
    format: DebeziumFormat,
    /// The fields of the row, from the schemas of events.
    row: Fields,
    /// How many values were searched for schemas.
    searched: usize,
}

impl EventProbe {
    pub(super) fn new(format: &DebeziumFormat) -> Result<Self> {
        let inner = match &format.inner {
            ValueFormat::Json(json) => {
                let mut probe = Box::new(JsonProbe::new(json));
                probe.look_for_events();
                Inner::Json(probe)
            }
            other => Inner::Other(other.probe()?),
        };
        Ok(Self { inner, format: format.clone(), row: Fields::empty(), searched: 0 })
    }

    fn settle(&self, inner: ValueFormat) -> Result<Look> {
        let (inner, is_json) = match inner {
            ValueFormat::Json(format) => {
                let fields = format.fields.as_ref().map(|found| super::with_row(found, &self.row));
                (ValueFormat::Json(JsonFormat { fields, ..format }), true)
            }
            other => (other, false),
        };
        let format = self.format.with_inner(inner);
        match Events::new(&format) {
            // Waits for an event with a row.
            Ok(events) if is_json && !events.has_row && !self.has_changes() => Ok(Look::More),
            Ok(_) => Ok(Look::Settled(ValueFormat::Debezium(Arc::new(format)))),
            // Each of those values is an error.
            Err(_no_event) if is_json => Ok(Look::Nothing),
            Err(no_event) => Err(no_event),
        }
    }

    /// Whether a change was seen that is not a row but, for example, a document.
    fn has_changes(&self) -> bool {
        matches!(&self.inner, Inner::Json(probe) if probe.has_changes())
    }

    /// Takes the schemas of the first events.
    fn search(&mut self, assembled: &Assembled) {
        let Inner::Json(probe) = &self.inner else { return };
        for value in assembled.values().into_iter().flatten().flatten() {
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

impl Probe for EventProbe {
    fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        self.search(assembled);
        match self.inner.probe_mut().look(assembled)? {
            Look::Settled(inner) => self.settle(inner),
            other => Ok(other),
        }
    }

    fn expect(&mut self, on_error: OnError) {
        self.inner.probe_mut().expect(on_error);
    }

    /// Events whose rows have the requested columns, which are null. A value without `op` is not an
    /// event, which is known without the row's columns.
    fn unsettled(&self, named: Fields) -> ValueFormat {
        let Inner::Json(probe) = &self.inner else { return self.inner.probe().unsettled(named) };
        let is_of_row = |field: &Field| {
            let name = field.name().trim_start_matches('_');
            !PARTS.contains(&field.name().as_str()) && !PARTS.contains(&name)
        };
        let columns: Fields = named.iter().filter(|field| is_of_row(field)).cloned().collect();
        let row = match columns.len() {
            0 => DataType::Utf8View,
            _ => DataType::Struct(columns),
        };
        let json = JsonFormat { found: false, ..probe.events(super::event_fields(&row)) };
        let format = self.format.with_inner(ValueFormat::Json(json));
        if Events::new(&format).is_err() {
            return ValueFormat::Unrevealed(Unrevealed { fields: named });
        }
        ValueFormat::Debezium(Arc::new(format))
    }

    fn give_up(&self) -> Option<ValueFormat> {
        match self.settle(self.inner.probe().give_up()?).ok()? {
            Look::Settled(settled) => Some(settled),
            _ => None,
        }
    }
}
