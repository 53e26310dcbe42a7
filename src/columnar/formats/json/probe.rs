//! Finds the fields of JSON values from the first of them.

use arrow::datatypes::Fields;

use super::infer::Inference;
use super::{Extra, JsonFormat};
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::debezium::{CHANGES, PARTS};
use crate::columnar::formats::reading::{Look, Probe};
use crate::columnar::formats::registry::{self, Fault};
use crate::columnar::read::assemble::Assembled;
use crate::columnar::read::decoder::OnError;
use crate::error::Result;

/// Infers the fields of JSON objects.
#[derive(Debug)]
pub(in crate::columnar) struct JsonProbe {
    format: JsonFormat,
    inference: Inference,
    /// The number of objects seen, and of other values.
    objects: usize,
    others: usize,
    /// Whether no value after one that is not an object will be handed out.
    raises: bool,
    /// Whether the objects are Debezium events.
    events: bool,
}

impl JsonProbe {
    pub(in crate::columnar) fn new(format: &JsonFormat) -> Self {
        Self {
            format: format.clone(),
            inference: Inference::default(),
            objects: 0,
            others: 0,
            raises: false,
            events: false,
        }
    }

    /// Examines Debezium events, some of which have no row.
    pub(in crate::columnar) const fn look_for_events(&mut self) {
        self.events = true;
    }

    /// The format with fields of events.
    pub(in crate::columnar) fn events(&self, fields: Fields) -> JsonFormat {
        let extra = Extra::Ignore;
        JsonFormat { fields: Some(fields), extra, ..self.format.clone() }
    }

    /// Whether a change was seen that is not a row, for example a document.
    pub(in crate::columnar) fn has_changes(&self) -> bool {
        self.inference.any_of_event(&CHANGES)
    }

    /// How many values are examined.
    pub(in crate::columnar) fn wanted(&self) -> usize {
        self.format.infer.max(1)
    }

    /// The JSON of a value.
    pub(in crate::columnar) fn body<'a>(&self, value: &'a [u8]) -> &'a [u8] {
        match registry::unframe(value) {
            Ok((_, body)) if self.format.framed => body,
            _ => value,
        }
    }

    fn is_enough(&self) -> bool {
        let wanted = self.wanted();
        let is_over = self.raises && self.seen() >= wanted;
        let waits = self.events && !self.has_changes() && !(is_over && self.others > 0);
        (self.objects >= wanted || is_over) && !waits
    }

    const fn seen(&self) -> usize {
        self.objects.saturating_add(self.others)
    }

    fn add(&mut self, value: &[u8]) -> Result<(), Fault> {
        let value = if self.format.framed { registry::unframe(value)?.1 } else { value };
        Ok(self.inference.add(value)?)
    }
}

impl Probe for JsonProbe {
    fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        for value in assembled.values().into_iter().flatten().flatten() {
            if self.is_enough() {
                break;
            }
            match self.add(value) {
                Ok(()) => self.objects = self.objects.saturating_add(1),
                Err(_no_object) => self.others = self.others.saturating_add(1),
            }
        }
        if self.is_enough() {
            return Ok(self.give_up().map_or(Look::Nothing, Look::Settled));
        }
        Ok(Look::More)
    }

    fn expect(&mut self, on_error: OnError) {
        self.raises = on_error == OnError::Raise;
    }

    fn unsettled(&self, named: Fields) -> ValueFormat {
        ValueFormat::Json(self.format.with_found(named))
    }

    /// The format with its fields; none before an object has been seen.
    fn give_up(&self) -> Option<ValueFormat> {
        if self.objects == 0 {
            return None;
        }
        let fields =
            if self.events { self.inference.event_fields(&PARTS) } else { self.inference.fields() };
        Some(ValueFormat::Json(self.format.with_found(fields)))
    }
}
