//! Decodes events to columns: the inner format first, then its parts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::compute::{and, cast, is_not_null, is_null, nullif, or};
use arrow::datatypes::{DataType, Fields};
use arrow::error::ArrowError;
use serde_json::Value;

use super::connect::{self, Forms};
use super::decimals::{Maker, any_decimal};
use super::{Events, Origin, PARTS};
use crate::columnar::formats::reading::{Columns, DecodeValues};
use crate::columnar::write::bytes_column::BytesColumn;
use crate::error::{Error, Result};

/// How many schemas of events are remembered.
const SCHEMAS_MAX: usize = 1000;

/// Appended to the errors of rows that are text where a struct was expected.
const DOCUMENT: &str =
    "; rows that are documents, such as MongoDB's, are read without a schema of the row";

/// Whether an error says that a row is text.
#[cold]
fn is_document(detail: &str) -> bool {
    let rows = ["after", "before", "payload.after", "payload.before"];
    let is_row = |name: &&str| detail.starts_with(&format!("column {name:?}: \""));
    rows.iter().any(is_row) && detail.ends_with("is not an object")
}

/// Decodes events.
#[derive(Debug)]
pub(super) struct EventDecoder {
    names: Vec<String>,
    values: Box<dyn DecodeValues>,
    events: Events,
    wanted: Vec<usize>,
    schemas: Schemas,
}

impl EventDecoder {
    pub(super) fn new(events: Events, wanted: &[usize]) -> Result<Self> {
        let all = events.inner.fields()?.unwrap_or_else(Fields::empty);
        let is_needed = |name: &str| {
            PARTS.contains(&name)
                || name == "payload"
                || (name == "schema" && events.makes_decimals)
        };
        let needed: Vec<usize> = all
            .iter()
            .enumerate()
            .filter(|(_, field)| is_needed(field.name()))
            .map(|(index, _)| index)
            .collect();
        let names = needed.iter().filter_map(|&index| all.get(index)).map(|one| one.name().clone());
        Ok(Self {
            names: names.collect(),
            values: events.inner.decoder(&needed)?,
            events,
            wanted: wanted.to_vec(),
            schemas: Schemas::default(),
        })
    }

    fn columns(
        &self,
        event: &Event<'_>,
        maker: &mut Maker<'_>,
    ) -> Result<Vec<ArrayRef>, ArrowError> {
        let all_rows: Vec<usize> = (0..event.rows).collect();
        let row = Row::new(event, &self.events.envelope)?;
        let mut columns = Vec::with_capacity(self.wanted.len());
        for &index in &self.wanted {
            let origin = self.events.origins.get(index);
            let (Some(field), Some(origin)) = (self.events.columns.get(index), origin) else {
                continue;
            };
            let wanted = field.data_type();
            let (column, path) = match origin {
                Origin::Row(name) => (row.column(name)?, name.as_str()),
                Origin::Part(name) => (event.part(name, &self.events.envelope)?, ""),
            };
            columns.push(if self.events.makes_decimals && any_decimal(wanted) {
                maker.make(&column, wanted, path, &all_rows)?
            } else {
                cast(&column, wanted)?
            });
        }
        Ok(columns)
    }
}

impl DecodeValues for EventDecoder {
    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        let mut failed = BTreeSet::new();
        let mut note = |row, detail: String| {
            failed.insert(row);
            let hint = if is_document(&detail) { DOCUMENT } else { "" };
            bad(row, detail + hint)
        };
        let arrays = match self.values.decode(values, &mut note)? {
            // No format with many rows per record is accepted for events.
            Columns::Done(arrays) | Columns::Many { columns: arrays, .. } => arrays,
            needed @ Columns::Schema(_) => return Ok(needed),
        };
        let event = Event::new(&self.names, &arrays, values.len());
        let op = event.part("op", &self.events.envelope).map_err(internal)?;
        // Protobuf does not distinguish empty text from missing text.
        let text = BytesColumn::new("op", &op).ok();
        let is_blank = |row| match &text {
            Some(text) => text.get(row).is_none_or(<[u8]>::is_empty),
            None => op.is_null(row),
        };
        for row in 0..values.len() {
            if values.is_valid(row) && is_blank(row) && !failed.contains(&row) {
                failed.insert(row);
                bad(row, "the value is not a Debezium event: it has no op".to_owned())?;
            }
        }
        let schemas = event.bare("schema").filter(|_| self.events.makes_decimals);
        let forms = schemas.map(|schemas| self.schemas.forms(&schemas)).unwrap_or_default();
        let strings = self.events.decimals;
        let mut maker = Maker { strings, forms: &forms, bad: Vec::new() };
        let mut columns = self.columns(&event, &mut maker).map_err(internal)?;
        let mut undone = BTreeSet::new();
        for (row, detail) in maker.bad {
            if failed.insert(row) {
                undone.insert(row);
                bad(row, detail)?;
            }
        }
        if !undone.is_empty() {
            let mask: BooleanArray =
                (0..values.len()).map(|row| Some(undone.contains(&row))).collect();
            let cleared = columns.iter().map(|column| nullif(column, &mask));
            columns = cleared.collect::<Result<_, ArrowError>>().map_err(internal)?;
        }
        Ok(Columns::Done(columns))
    }
}

/// What the schemas of events say about decimals, by schema text.
#[derive(Debug, Default)]
struct Schemas(BTreeMap<String, Arc<Forms>>);

impl Schemas {
    /// What each event's schema says; nothing if it has none.
    fn forms(&mut self, schemas: &ArrayRef) -> Vec<Option<Arc<Forms>>> {
        let Some(schemas) = schemas.as_string_view_opt() else { return Vec::new() };
        let mut last: Option<(&str, Option<Arc<Forms>>)> = None;
        let mut forms = Vec::with_capacity(schemas.len());
        for text in schemas {
            let Some(text) = text else {
                forms.push(None);
                continue;
            };
            let known = match &last {
                Some((same, found)) if *same == text => found.clone(),
                _ => self.of(text),
            };
            last = Some((text, known.clone()));
            forms.push(known);
        }
        forms
    }

    fn of(&mut self, text: &str) -> Option<Arc<Forms>> {
        if let Some(known) = self.0.get(text) {
            return Some(Arc::clone(known));
        }
        let schema: Value = serde_json::from_str(text).ok()?;
        let forms = Arc::new(connect::forms(&schema));
        if self.0.len() >= SCHEMAS_MAX {
            self.0.pop_first();
        }
        self.0.insert(text.to_owned(), Arc::clone(&forms));
        Some(forms)
    }
}

/// The rows of events: as of after a change, or else before it.
struct Row {
    after: ArrayRef,
    before: ArrayRef,
    has_after: BooleanArray,
    has_none: BooleanArray,
}

impl Row {
    fn new(event: &Event<'_>, envelope: &Fields) -> Result<Self, ArrowError> {
        let (after, before) = (event.part("after", envelope)?, event.part("before", envelope)?);
        let has_after = is_not_null(&after)?;
        let has_none = and(&is_null(&after)?, &is_null(&before)?)?;
        Ok(Self { after, before, has_after, has_none })
    }

    fn column(&self, name: &str) -> Result<ArrayRef, ArrowError> {
        let member = |row: &ArrayRef| row.as_struct_opt()?.column_by_name(name).cloned();
        match (member(&self.after), member(&self.before)) {
            (Some(after), Some(before)) => {
                let before = cast(&before, after.data_type())?;
                nullif(&zip(&self.has_after, &after, &before)?, &self.has_none)
            }
            (Some(after), None) => nullif(&after, &is_null(&self.after)?),
            (None, Some(before)) => nullif(&before, &or(&self.has_after, &is_null(&self.before)?)?),
            (None, None) => Ok(new_null_array(&DataType::Null, self.has_none.len())),
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn internal(error: ArrowError) -> Error {
    Error::invalid(format!("could not split the events into columns: {error}"))
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
