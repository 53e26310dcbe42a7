//! What a value format implements to be read.
//!
//! ```text
//! ReadFormat, settled ───────────────► ReadFormat::decoder ──► DecodeValues (a block at a time)
//!      └── not settled ──► Probe ──► ValueFormat, settled ──┘
//! ```
//!
//! Calls through these traits are made for each block of values, never for each value.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryViewArray};
use arrow::datatypes::Fields;

use super::ValueFormat;
use super::registry::{SchemaRequest, SchemaSource};
use super::rows::{RowDecoder, decode_rows};
use crate::columnar::read::assemble::Assembled;
use crate::columnar::read::decoder::OnError;
use crate::error::Result;

/// How the bytes of a value become columns.
pub(in crate::columnar) trait ReadFormat {
    /// Whether the columns are known without examining values.
    fn is_settled(&self) -> bool;

    /// Whether a record may yield more rows than one, or none.
    fn is_many_rows(&self) -> bool {
        false
    }

    /// Whether there are values that cannot be decoded.
    fn may_fail(&self) -> bool {
        true
    }

    /// Whether the one column `value` is text.
    fn is_text(&self) -> bool {
        false
    }

    /// Whether values are checked even without a column: their fields are unknown, so no column
    /// would show that they cannot be decoded.
    fn is_unknown(&self) -> bool {
        false
    }

    /// Where the schemas of values come from.
    fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        None
    }

    /// The format with the latest schema of a topic's values, if the columns come from a registry;
    /// may block.
    ///
    /// # Errors
    /// When the registry cannot be reached, or has no such schema.
    fn settle_for(&self, _topic: &str) -> Result<Option<ValueFormat>> {
        Ok(None)
    }

    /// The format while nothing is known of the columns, since there are no values.
    fn columnless(&self) -> ValueFormat {
        ValueFormat::without_columns()
    }

    /// What finds the columns of a format that is not settled.
    ///
    /// # Errors
    /// An invalid argument where nothing would reveal them.
    fn probe(&self) -> Result<Box<dyn Probe>>;

    /// The columns of decoded values, if the format is settled; none where `value` is one column.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    fn fields(&self) -> Result<Option<Fields>>;

    /// A decoder for some of the columns, if the format is settled.
    ///
    /// # Errors
    /// As [`Self::fields`].
    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>>;
}

/// Examines the first values to determine their columns.
pub(in crate::columnar) trait Probe: Debug + Send + Sync {
    fn look(&mut self, assembled: &Assembled) -> Result<Look>;

    /// Sets what to do with values that cannot be decoded.
    fn expect(&mut self, _on_error: OnError) {}

    /// The format of records while none reveals the columns of values; requested columns are null
    /// then.
    fn unsettled(&self, named: Fields) -> ValueFormat;

    /// What is known when there are no more values; none if that is not enough for columns.
    fn give_up(&self) -> Option<ValueFormat>;
}

/// The result of examining values.
#[derive(Debug)]
pub(in crate::columnar) enum Look {
    /// Not enough yet.
    More,
    /// There were enough, and none has columns.
    Nothing,
    /// The format with its columns.
    Settled(ValueFormat),
    /// A schema is needed first; then look again.
    Schema(SchemaRequest),
}

/// Decodes the values of an output into columns.
pub(in crate::columnar) trait DecodeValues: Any + Debug + Send + Sync {
    /// Decodes all values. `bad` is called for those that cannot be decoded, and may end it.
    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns>;
}

impl<D: RowDecoder + Any + Debug + Send + Sync> DecodeValues for D {
    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        decode_rows(self, values, bad)
    }
}

/// The columns of an output's values, or what is needed first.
#[derive(Debug)]
pub(in crate::columnar) enum Columns {
    Done(Vec<ArrayRef>),
    /// Where rows and records are not one to one.
    Many {
        columns: Vec<ArrayRef>,
        /// The record of each row.
        records: Vec<u32>,
        /// The number of records that were decoded; the others go into further outputs.
        done: usize,
    },
    Schema(SchemaRequest),
}
