//! JSON values to typed columns, and typed columns to JSON values.
//!
//! Reading: a flat object of simple values is read straight into column builders ([`scan`],
//! [`build`]). Any other value is parsed to a tape by simd-json, and the tape is walked once into
//! the same builders; no tree is built. Members that the schema does not name are skipped, or are
//! an error of their row if the schema was inferred ([`Extra`]). Without a schema, one is inferred
//! from a sample ([`infer`]). Writing: [`write`].
//!
//! What a field accepts:
//!
//! | type                    | JSON                                                            |
//! |-------------------------|-----------------------------------------------------------------|
//! | bool                    | `true`, `false`                                                 |
//! | int8…int64, uint8…uint64| whole numbers in range (also `3.0`), or such numbers as strings |
//! | float16, 32, 64         | numbers, numbers as strings, and the strings NaN, Infinity, -Infinity |
//! | utf8 (any layout)       | strings; anything else as its JSON text                         |
//! | timestamp(unit, zone)   | ISO 8601 strings (without a zone: UTC), whole numbers in the unit |
//! | date32, date64          | `YYYY-MM-DD`, whole numbers of days since 1970-01-01            |
//! | time32, time64          | `HH:MM:SS.fff`, whole numbers in the unit since midnight        |
//! | duration                | ISO 8601 (`PT1.5S`), whole numbers in the unit                  |
//! | decimal (any width)     | numbers, numbers as strings, if the type has room for every digit |
//! | binary (any layout)     | base64 strings; 16 bytes also as a UUID, with hyphens or without |
//! | list, fixed-size list   | arrays                                                          |
//! | struct                  | objects                                                         |
//! | map                     | objects                                                         |
//! | dictionary              | as its values                                                   |
//!
//! `null`, a missing field and a null value are null. If a field occurs twice, the last one counts.

pub(in crate::columnar) mod base64;
mod build;
pub(in crate::columnar) mod clock;
pub(in crate::columnar) mod explain;
mod infer;
mod members;
pub(in crate::columnar) mod number;
mod probe;
mod scan;
pub(crate) mod write;

use std::cell::{OnceCell, RefCell};
use std::ops::Range;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Fields, Schema};
use simd_json::{Buffers, INPUT_PADDING, Node, StaticNode, Tape};

use build::ObjectBuilder;
pub(crate) use build::all_nullable;
pub use members::Extra;
pub(in crate::columnar) use probe::JsonProbe;

use super::reading::{DecodeValues, Probe, ReadFormat};
use super::registry;
use super::registry::Fault;
use super::rows::{BLOCK_ROWS, RowDecoder, Value};
use super::writing::{self, ValueColumn, WriteFormat};
use crate::error::Result;
use members::Watch;
use write::{NonFinite, RowWriter};

/// In the metadata of a text field: its values are JSON texts, with the quotes of strings.
pub(in crate::columnar) const JSON_TEXT: &str = "ottla.json_text";

/// How JSON values are read.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonFormat {
    /// The fields; found from the first values when none.
    pub fields: Option<Fields>,
    /// How many values are examined to infer the fields.
    pub infer: usize,
    /// Whether the fields were inferred from values.
    pub found: bool,
    /// What to do with members that the fields do not name.
    pub extra: Extra,
    /// Whether values have the header of a schema registry, which is skipped.
    pub framed: bool,
}

impl JsonFormat {
    /// Values with these fields; others are not read.
    #[must_use]
    pub const fn given(fields: Fields) -> Self {
        let extra = Extra::Ignore;
        Self { fields: Some(fields), infer: 1, found: false, extra, framed: false }
    }

    /// Values whose fields are inferred from the first `count`; other fields are errors.
    #[must_use]
    pub const fn inferred(infer: usize) -> Self {
        Self { fields: None, infer, found: false, extra: Extra::Error, framed: false }
    }

    /// The same with the inferred fields.
    pub(in crate::columnar) fn with_found(&self, fields: Fields) -> Self {
        Self { fields: Some(fields), found: true, ..self.clone() }
    }
}

impl ReadFormat for JsonFormat {
    fn is_settled(&self) -> bool {
        self.fields.is_some()
    }

    fn is_unknown(&self) -> bool {
        self.extra == Extra::Error && self.fields.as_ref().is_none_or(|fields| fields.is_empty())
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        Ok(Box::new(JsonProbe::new(self)))
    }

    fn fields(&self) -> Result<Option<Fields>> {
        Ok(self.fields.as_ref().map(all_nullable))
    }

    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        let format = Self { fields: self.fields.as_ref().map(all_nullable), ..self.clone() };
        Ok(Box::new(JsonDecoder::new(&format, wanted)?))
    }
}

/// How JSON objects are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonTarget {
    /// The columns that are left out.
    pub exclude: Vec<String>,
    /// What becomes of NaN and the infinities.
    pub non_finite: NonFinite,
}

impl WriteFormat for JsonTarget {
    fn named_columns(&self) -> &[String] {
        &self.exclude
    }

    fn check_types(&self, table: &Schema) -> Result<()> {
        writing::refuse_storage(table, &self.exclude)
    }

    fn values(&self, rows: &RecordBatch) -> Result<ValueColumn> {
        let writer = RowWriter::new(rows, &self.exclude, self.non_finite)?;
        Ok(ValueColumn::Encoded(Box::new(writer)))
    }
}

/// Decodes values, row by row, into one array per field.
#[derive(Debug)]
pub(in crate::columnar) struct JsonDecoder {
    root: ObjectBuilder,
    parser: Parser,
    /// Increases with rows that were read directly and decreases with those that were not.
    trust: u32,
    /// How many rows are tried at a time: fewer after an unusual one.
    run: usize,
    /// Whether the fields were inferred from values.
    found: bool,
    framed: bool,
}

const TRUST_MAX: u32 = 64;
/// The cost of a row that could not be read directly.
const TRUST_LOST: u32 = 4;
/// The fewest rows that are tried at a time.
const RUN_MIN: usize = 2;
/// Without trust, how many rows pass until the next try.
const TRIES_EVERY: usize = 64;

impl JsonDecoder {
    /// A decoder for some of the fields of a format.
    ///
    /// # Errors
    /// An invalid argument for a type that JSON cannot be decoded to.
    pub(in crate::columnar) fn new(format: &JsonFormat, wanted: &[usize]) -> Result<Self> {
        let all = format.fields.clone().unwrap_or_else(Fields::empty);
        let fields: Fields = wanted.iter().filter_map(|&index| all.get(index).cloned()).collect();
        let names = all.iter().map(|field| field.name().clone());
        let known = names.filter(|name| fields.find(name).is_none()).collect();
        let watch = Watch::new(format.extra);
        Ok(Self {
            root: ObjectBuilder::new(&fields, known, watch.as_ref(), format.found)?,
            parser: Parser::default(),
            trust: TRUST_MAX,
            run: BLOCK_ROWS,
            found: format.found,
            framed: format.framed,
        })
    }

    /// Appends a row. On an error it is as if the row had not been appended, unless only part of it
    /// is missing.
    fn push_object(&mut self, value: &[u8]) -> Result<(), Fault> {
        let row = self.root.len();
        if self.trust > 0 || row.is_multiple_of(TRIES_EVERY) {
            if self.root.push_direct(value).is_some() {
                self.trust = self.trust.saturating_add(1).min(TRUST_MAX);
                return Ok(());
            }
            self.root.truncate(row);
            self.trust = self.trust.saturating_sub(TRUST_LOST);
        }
        self.push_parsed(value, row)
    }

    /// Appends rows for the first of these values, up to a bad one; returns how many.
    fn push_objects(&mut self, values: &[Value<'_>]) -> usize {
        let mut done = 0_usize;
        while self.trust > 0
            && let Some(left) = values.get(done..).filter(|left| !left.is_empty())
        {
            let run = left.get(..self.run).unwrap_or(left);
            let count = self.root.push_block(run);
            done = done.saturating_add(count);
            self.run = count.saturating_mul(2).clamp(RUN_MIN, BLOCK_ROWS);
            self.trust = self.trust.saturating_add(count as u32).min(TRUST_MAX);
            // An unusual value, or a bad one, which is left to the caller.
            if let Some(unusual) = run.get(count) {
                let row = self.root.len();
                if self.push_object(unusual.alone()).is_err() {
                    self.root.truncate(row);
                    break;
                }
                done = done.saturating_add(1);
            }
        }
        done
    }

    fn push_parsed(&mut self, value: &[u8], row: usize) -> Result<(), Fault> {
        let (root, found) = (&mut self.root, self.found);
        let result = self.parser.with(value, |doc| {
            let Some(Node::Object { len, .. }) = doc.nodes.first() else {
                return Err(explain::not_object(doc.kind(), value));
            };
            match root.push(doc, 0, *len) {
                Ok(()) => Ok(doc.extra.take()),
                Err(mismatch) if found => Err(format!("{mismatch}{FOUND}")),
                Err(mismatch) => Err(mismatch.to_string()),
            }
        });
        match result {
            Ok(None) => Ok(()),
            Ok(Some(name)) => Err(Fault::Partly(extra_member(&name, self.found))),
            Err(detail) => {
                self.root.truncate(row);
                Err(Fault::Bad(detail))
            }
        }
    }
}

/// Appended to the errors of values that do not match the inferred columns.
const FOUND: &str =
    " (the columns were inferred from the first values: pass json() a schema, or a larger infer=)";

#[cold]
fn extra_member(name: &str, found: bool) -> String {
    let where_from =
        if found { "which were inferred from the first values" } else { "of the schema" };
    format!(
        "member {name:?} is not among the columns, {where_from}: pass json() a schema with it, a \
         larger infer=, or extra=\"ignore\" to leave such members out"
    )
}

impl RowDecoder for JsonDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        if self.framed {
            let (_, value) = registry::unframe(value)?;
            return self.push_object(value);
        }
        self.push_object(value)
    }

    fn push_block(&mut self, values: &[Value<'_>]) -> usize {
        if !self.framed {
            return self.push_objects(values);
        }
        let mut objects = [Value::new(&[]); BLOCK_ROWS];
        let mut count = 0_usize;
        for (object, value) in objects.iter_mut().zip(values) {
            let Ok((_, body)) = registry::unframe(value.alone()) else { break };
            let Some(behind) = value.behind(value.size.saturating_sub(body.len())) else { break };
            *object = behind;
            count = count.saturating_add(1);
        }
        self.push_objects(objects.get(..count).unwrap_or_default())
    }

    fn push_null(&mut self) {
        self.root.push_null();
    }

    fn reserve(&mut self, rows: usize) {
        self.root.reserve(rows);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.root.finish()
    }
}

/// A parsed value, and what its tape cannot hold.
pub(in crate::columnar) struct Doc<'a> {
    nodes: &'a [Node<'a>],
    value: &'a [u8],
    /// The node and the place of each number, once one has been requested.
    numbers: OnceCell<Vec<(usize, Range<usize>)>>,
    /// The first member that no field names, if that matters.
    extra: RefCell<Option<String>>,
}

impl<'a> Doc<'a> {
    const fn new(nodes: &'a [Node<'a>], value: &'a [u8]) -> Self {
        Self { nodes, value, numbers: OnceCell::new(), extra: RefCell::new(None) }
    }

    #[inline]
    fn get(&self, at: usize) -> Option<&Node<'a>> {
        self.nodes.get(at)
    }

    /// The node after the one at `at` and everything in it.
    #[inline]
    fn behind(&self, at: usize) -> usize {
        match self.nodes.get(at) {
            Some(Node::Object { count, .. } | Node::Array { count, .. }) => {
                at.saturating_add(*count).saturating_add(1)
            }
            _ => at.saturating_add(1),
        }
    }

    /// The text of the number at `at`, as in the value.
    #[cold]
    fn number_text(&self, at: usize) -> &'a str {
        let numbers = self.numbers.get_or_init(|| {
            let nodes = self.nodes.iter().enumerate().filter(|(_, node)| is_number(node));
            nodes.map(|(at, _)| at).zip(number::places(self.value)).collect()
        });
        let found = numbers.binary_search_by_key(&at, |(node, _)| *node).ok();
        let place = found.and_then(|index| numbers.get(index)).map(|(_, place)| place.clone());
        let bytes = place.and_then(|place| self.value.get(place)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The kind of the value, as text.
    #[cold]
    fn kind(&self) -> &'static str {
        match self.nodes.first() {
            Some(Node::Array { .. }) => "a JSON array",
            Some(Node::Object { .. }) => "a JSON object",
            Some(Node::String(_)) => "a JSON string",
            Some(Node::Static(StaticNode::Bool(_))) => "a JSON boolean",
            Some(Node::Static(StaticNode::Null)) | None => "a JSON null",
            Some(Node::Static(_)) => "a JSON number",
        }
    }

    #[cold]
    fn note_extra(&self, path: &str, name: &str) {
        self.extra.borrow_mut().get_or_insert_with(|| format!("{path}{name}"));
    }
}

const fn is_number(node: &Node<'_>) -> bool {
    matches!(node, Node::Static(StaticNode::I64(_) | StaticNode::U64(_) | StaticNode::F64(_)))
}

/// A JSON parser that reuses its buffers.
#[derive(Default)]
pub(in crate::columnar) struct Parser {
    scratch: Vec<u8>,
    buffers: Buffers,
    tape: Option<Tape<'static>>,
}

impl std::fmt::Debug for Parser {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Parser").finish_non_exhaustive()
    }
}

impl Parser {
    /// Parses a value and passes it to `read`. A number that does not fit 64 bits is a NaN on the
    /// tape, which JSON does not have, and is then read from its text.
    pub(in crate::columnar) fn with<T>(
        &mut self,
        value: &[u8],
        read: impl FnOnce(&Doc<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        self.load(value);
        let mut tape = self.tape.take().unwrap_or_else(Tape::null).reset();
        let (scratch, buffers) = (&mut self.scratch, &mut self.buffers);
        if simd_json::fill_tape_padded(scratch, value.len(), buffers, &mut tape).is_err() {
            self.tape = Some(tape.reset());
            return self.with_outsize_numbers(value, read);
        }
        let result = read(&Doc::new(&tape.0, value));
        self.tape = Some(tape.reset());
        result
    }

    #[cold]
    fn with_outsize_numbers<T>(
        &mut self,
        value: &[u8],
        read: impl FnOnce(&Doc<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let places = number::places(value);
        let is_outsize =
            |place: &Range<usize>| value.get(place.clone()).is_some_and(number::is_outsize);
        if !places.iter().any(is_outsize) {
            return Err(explain::not_json(value));
        }
        self.load(value);
        for place in places.iter().filter(|place| is_outsize(place)) {
            let Some(number) = self.scratch.get_mut(place.clone()) else { continue };
            number.fill(b' ');
            if let Some(first) = number.first_mut() {
                *first = b'0';
            }
        }
        let mut tape = self.tape.take().unwrap_or_else(Tape::null).reset();
        let (scratch, buffers) = (&mut self.scratch, &mut self.buffers);
        if simd_json::fill_tape_padded(scratch, value.len(), buffers, &mut tape).is_err() {
            self.tape = Some(tape.reset());
            return Err(explain::not_json(value));
        }
        let numbers = tape.0.iter_mut().filter(|node| is_number(node));
        for (node, place) in numbers.zip(&places) {
            if is_outsize(place) {
                *node = Node::Static(StaticNode::F64(f64::NAN));
            }
        }
        let result = read(&Doc::new(&tape.0, value));
        self.tape = Some(tape.reset());
        result
    }

    /// The parser unescapes strings in place, so it gets a copy; it is small and hot.
    fn load(&mut self, value: &[u8]) {
        self.scratch.clear();
        self.scratch.extend_from_slice(value);
        self.scratch.resize(value.len().saturating_add(INPUT_PADDING), 0);
    }
}
