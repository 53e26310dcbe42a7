//! Finds the fields of JSON values from the first of them.

use arrow::array::BinaryViewArray;
use arrow::datatypes::Fields;

use super::infer::Inference;
use super::{Extra, JsonFormat};
use crate::columnar::formats::debezium::{CHANGES, PARTS};
use crate::columnar::formats::registry::{self, Fault};
use crate::columnar::formats::{Look, Settled};

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

    /// Says whether no value after one that is not an object will be handed out.
    pub(in crate::columnar) const fn expect(&mut self, raises: bool) {
        self.raises = raises;
    }

    /// Examines Debezium events, some of which have no row.
    pub(in crate::columnar) const fn look_for_events(&mut self) {
        self.events = true;
    }

    /// The format with fields that were asked for by name.
    pub(in crate::columnar) fn named(&self, fields: Fields) -> JsonFormat {
        self.format.with_found(fields)
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

    pub(in crate::columnar) fn look(&mut self, values: &BinaryViewArray) -> Look {
        for value in values.iter().flatten() {
            if self.is_enough() {
                break;
            }
            match self.add(value) {
                Ok(()) => self.objects = self.objects.saturating_add(1),
                Err(_no_object) => self.others = self.others.saturating_add(1),
            }
        }
        if self.is_enough() {
            return self.found().map_or(Look::Nothing, Look::Settled);
        }
        Look::More
    }

    const fn seen(&self) -> usize {
        self.objects.saturating_add(self.others)
    }

    fn add(&mut self, value: &[u8]) -> Result<(), Fault> {
        let value = if self.format.framed { registry::unframe(value)?.1 } else { value };
        Ok(self.inference.add(value)?)
    }

    /// The format with its fields; none before an object has been seen.
    pub(in crate::columnar) fn found(&self) -> Option<Settled> {
        if self.objects == 0 {
            return None;
        }
        let fields =
            if self.events { self.inference.event_fields(&PARTS) } else { self.inference.fields() };
        Some(Settled::Json(self.format.with_found(fields)))
    }
}
