//! JSON values to typed columns and typed columns to JSON values.
//!
//! Reading: a flat object of simple values is read straight into column builders ([`scan`],
//! [`build`]). Any other value is parsed to a tape by simd-json, and the tape is walked once into
//! the same builders; no tree is made. Fields that the schema does not name are skipped.
//! A schema that is not given is found from a sample ([`infer`]). Writing: [`write`].
//!
//! What a field accepts:
//!
//! | type                    | JSON                                                            |
//! |-------------------------|-----------------------------------------------------------------|
//! | bool                    | `true`, `false`                                                 |
//! | int8…int64, uint8…uint64| whole numbers in range (also `3.0`), or such numbers as strings |
//! | float32, float64        | numbers, numbers as strings, and the strings NaN, Infinity, -Infinity |
//! | utf8 (any layout)       | strings; anything else as its JSON text                         |
//! | timestamp(unit, zone)   | ISO 8601 strings (without a zone: UTC), whole numbers in the unit |
//! | date32                  | `YYYY-MM-DD`, whole numbers of days since 1970-01-01            |
//! | decimal128              | numbers, numbers as strings                                     |
//! | binary (any layout)     | base64 strings                                                  |
//! | list, large_list        | arrays                                                          |
//! | struct                  | objects                                                         |
//!
//! `null`, a missing field and a null value are null. Of a field that is there twice, the last
//! counts.

pub(super) mod base64;
mod build;
mod infer;
mod scan;
pub(crate) mod write;

use arrow::array::ArrayRef;
use arrow::datatypes::Fields;
use simd_json::{Buffers, INPUT_PADDING, Node, Tape};

use build::ObjectBuilder;
pub(crate) use build::all_nullable;
pub(super) use infer::Inference;

use super::registry::Fault;
use super::rows::RowDecoder;
use crate::error::Result;

/// Decodes values, row by row, into one array per field.
#[derive(Debug)]
pub(super) struct JsonDecoder {
    root: ObjectBuilder,
    parser: Parser,
    /// Goes up with rows that were read directly and down with those that were not.
    trust: u32,
}

const TRUST_MAX: u32 = 64;
/// What a row costs that could not be read directly.
const TRUST_LOST: u32 = 4;
/// Without trust, so many rows go by until the next try.
const TRIES_EVERY: usize = 64;

impl JsonDecoder {
    /// A decoder for the fields of an object.
    ///
    /// # Errors
    /// An invalid argument for a type that JSON is not decoded to.
    pub(super) fn new(fields: &Fields) -> Result<Self> {
        Ok(Self { root: ObjectBuilder::new(fields)?, parser: Parser::default(), trust: TRUST_MAX })
    }

    /// Appends a row. On an error the row is as if it had not been appended.
    fn push_object(&mut self, value: &[u8]) -> Result<(), String> {
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

    fn push_parsed(&mut self, value: &[u8], row: usize) -> Result<(), String> {
        let root = &mut self.root;
        let result = self.parser.with(value, |nodes| match nodes.first() {
            Some(Node::Object { len, .. }) => {
                root.push(nodes, 0, *len).map_err(|mismatch| mismatch.to_string())
            }
            _ => Err("the value is not a JSON object".to_owned()),
        });
        if result.is_err() {
            self.root.truncate(row);
        }
        result
    }
}

impl RowDecoder for JsonDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        self.push_object(value).map_err(Fault::Bad)
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

/// A JSON parser that keeps its buffers from value to value.
#[derive(Default)]
pub(super) struct Parser {
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
    pub(super) fn with<T>(
        &mut self,
        value: &[u8],
        read: impl FnOnce(&[Node<'_>]) -> Result<T, String>,
    ) -> Result<T, String> {
        // The parser unescapes strings in place, so it gets a copy; it is small and hot.
        self.scratch.clear();
        self.scratch.extend_from_slice(value);
        self.scratch.resize(value.len().saturating_add(INPUT_PADDING), 0);
        let mut tape = self.tape.take().unwrap_or_else(Tape::null).reset();
        let parsed = simd_json::fill_tape_padded(
            &mut self.scratch,
            value.len(),
            &mut self.buffers,
            &mut tape,
        );
        let result = match parsed {
            Ok(()) => read(&tape.0),
            Err(error) => Err(format!("the value is not JSON: {error}")),
        };
        self.tape = Some(tape.reset());
        result
    }
}

/// The node behind the one at `at` and all that it holds.
#[inline]
fn behind(nodes: &[Node<'_>], at: usize) -> usize {
    match nodes.get(at) {
        Some(Node::Object { count, .. } | Node::Array { count, .. }) => {
            at.saturating_add(*count).saturating_add(1)
        }
        _ => at.saturating_add(1),
    }
}
