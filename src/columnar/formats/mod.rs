//! Value formats: how the bytes of a value become columns, and how columns become values.
//!
//! Each format is a folder that implements [`ReadFormat`] ([`reading`]), [`WriteFormat`]
//! ([`writing`]), or both. This file is the registry of formats, the only place that knows them all:
//! a format is a variant of [`ValueFormat`] or [`ValueSource`] and its line in `implementation`.
//!
//! Shared: [`schemas`] is where formats with schemas get them from, [`registry`] what is known of a
//! Schema Registry; [`rows`] decodes values into the columns of [`builder`].

pub(super) mod avro;
pub(super) mod builder;
pub(super) mod debezium;
pub(super) mod fail;
pub(super) mod ipc;
pub(super) mod json;
pub(super) mod protobuf;
pub(super) mod reading;
pub(super) mod registry;
pub(super) mod rows;
pub(super) mod schemas;
pub(super) mod varint;
pub(super) mod whole;
pub(super) mod writing;

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, BinaryViewArray};
use arrow::datatypes::{Field, Fields, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::columnar::write::encode::WriteOptions;
use crate::error::{Error, Result};
use avro::{AvroFormat, AvroTarget};
use debezium::DebeziumFormat;
use ipc::{IpcFormat, IpcTarget};
use json::{JsonFormat, JsonTarget};
use protobuf::{ProtobufFormat, ProtobufTarget};
use reading::{Columns, DecodeValues, Probe, ReadFormat};
use registry::SchemaSource;
use schemas::Unrevealed;
use writing::{CombineRows, ValueColumn, WriteFormat};

/// How the bytes of a value become columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ValueFormat {
    /// One column `value` of bytes, unchanged.
    #[default]
    Raw,
    /// One column `value` of text; bytes that are not UTF-8 are errors.
    Text,
    /// A column for each field of a JSON object; see [`json`].
    Json(JsonFormat),
    /// A column for each field of an Avro record; see [`avro`].
    Avro(Arc<AvroFormat>),
    /// A column for each field of a Protobuf message; see [`protobuf`].
    Protobuf(Arc<ProtobufFormat>),
    /// The columns of change events; see [`debezium`].
    Debezium(Arc<DebeziumFormat>),
    /// The columns of Arrow IPC streams, each of which yields any number of rows; see
    /// [`ipc`].
    ArrowIpc(IpcFormat),
    /// Values of a registry, none of which revealed its schema.
    Unrevealed(Unrevealed),
}

impl ValueFormat {
    fn implementation(&self) -> &dyn ReadFormat {
        match self {
            Self::Raw => &whole::BYTES,
            Self::Text => &whole::TEXT,
            Self::Json(format) => format,
            Self::Avro(format) => &**format,
            Self::Protobuf(format) => &**format,
            Self::Debezium(format) => &**format,
            Self::ArrowIpc(format) => format,
            Self::Unrevealed(format) => format,
        }
    }

    /// JSON whose fields are inferred from the first 1,000 values.
    #[must_use]
    pub const fn json_inferred() -> Self {
        Self::Json(JsonFormat::inferred(1000))
    }

    /// Values without columns: nothing is known about them, and nothing is shown.
    #[must_use]
    pub fn without_columns() -> Self {
        Self::json(Fields::empty())
    }

    /// JSON with these fields; others are not read.
    #[must_use]
    pub const fn json(fields: Fields) -> Self {
        Self::Json(JsonFormat::given(fields))
    }

    /// Whether the columns are known without examining values.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.implementation().is_settled()
    }

    /// Whether a record may yield more rows than one, or none.
    #[must_use]
    pub fn is_many_rows(&self) -> bool {
        self.implementation().is_many_rows()
    }

    /// Asks the registry for the latest schema of a topic's values, if the columns come from there;
    /// may block. Columns that are determined from values stay unknown.
    ///
    /// # Errors
    /// When the registry cannot be reached, or has no such schema.
    pub fn settle_for(self, topic: &str) -> Result<Self> {
        let settled = self.implementation().settle_for(topic)?;
        Ok(settled.unwrap_or(self))
    }

    /// The format while nothing is known of the columns, since there are no values: there are none.
    #[must_use]
    pub fn columnless(&self) -> Self {
        self.implementation().columnless()
    }

    /// The rows of values that come from elsewhere than from records, one row each.
    ///
    /// # Errors
    /// [`Error::Row`] for the first value that does not decode, in whole or in part; an invalid argument for a
    /// format whose columns are not known, or whose values are no rows.
    pub fn rows_of(&self, values: &BinaryViewArray) -> Result<RecordBatch> {
        let wanted: Vec<usize> = (0..self.fields()?.map_or(0, |fields| fields.len())).collect();
        let mut decoder = ValueDecoder::new(self, &wanted)?;
        let columns = decoder.decode(values, &mut |row, detail| Err(Error::Row { row, detail }))?;
        let typed =
            decoder.fields.iter().zip(&columns).map(|(field, column)| {
                Field::clone(field).with_data_type(column.data_type().clone())
            });
        let schema = Arc::new(Schema::new(typed.collect::<Vec<_>>()));
        let options = RecordBatchOptions::new().with_row_count(Some(values.len()));
        RecordBatch::try_new_with_options(schema, columns, &options)
            .map_err(|error| Error::invalid(format!("could not make rows of values: {error}")))
    }

    /// As [`ReadFormat::may_fail`].
    pub(in crate::columnar) fn may_fail(&self) -> bool {
        self.implementation().may_fail()
    }

    /// As [`ReadFormat::is_text`].
    pub(in crate::columnar) fn is_text(&self) -> bool {
        self.implementation().is_text()
    }

    /// As [`ReadFormat::is_unknown`].
    pub(in crate::columnar) fn is_unknown(&self) -> bool {
        self.implementation().is_unknown()
    }

    /// As [`ReadFormat::source`].
    pub(in crate::columnar) fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        self.implementation().source()
    }

    /// As [`ReadFormat::probe`].
    pub(in crate::columnar) fn probe(&self) -> Result<Box<dyn Probe>> {
        self.implementation().probe()
    }

    /// The columns of decoded values, if they are known; none where `value` is one column.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub fn fields(&self) -> Result<Option<Fields>> {
        self.implementation().fields()
    }

    /// As [`ReadFormat::decoder`].
    pub(in crate::columnar) fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        self.implementation().decoder(wanted)
    }
}

/// Decodes values that come from elsewhere than from records, one row each.
#[derive(Debug)]
pub struct ValueDecoder {
    fields: Fields,
    decoder: Box<dyn DecodeValues>,
}

impl ValueDecoder {
    /// A decoder for some of the columns of a format, by their positions.
    ///
    /// # Errors
    /// An invalid argument for a format whose columns are not known, or have no Arrow type.
    pub fn new(format: &ValueFormat, wanted: &[usize]) -> Result<Self> {
        let all = format.fields()?.ok_or_else(no_rows)?;
        let fields = wanted.iter().filter_map(|&index| all.get(index).cloned()).collect();
        Ok(Self { fields, decoder: format.decoder(wanted)? })
    }

    /// A row for each value; a value that does not decode becomes a row of nulls after `bad` was told why, or ends
    /// everything with the error of `bad`.
    ///
    /// # Errors
    /// That of `bad`; an invalid argument for a format whose values are no rows.
    pub fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Vec<ArrayRef>> {
        match self.decoder.decode(values, bad)? {
            Columns::Done(columns) => Ok(columns),
            Columns::Many { .. } | Columns::Schema(_) => Err(no_rows()),
        }
    }
}

#[cold]
fn no_rows() -> Error {
    Error::invalid("values of this format are no rows with known columns")
}

/// What the value of a record is made from.
///
/// A schema may have to be asked for, or registered, before the first row is written:
/// [`Self::settle`] does that, where waiting is allowed.
#[derive(Clone, Debug, PartialEq)]
pub enum ValueSource {
    /// A JSON object of all columns but those left out; see [`json`] for how types are written.
    Json(JsonTarget),
    /// One column of text or bytes, as it is; a null is a null value, a tombstone.
    Column(String),
    /// An Avro record of all columns but those left out; see [`avro`].
    Avro(AvroTarget),
    /// A Protobuf message of all columns but those left out; see [`protobuf`].
    Protobuf(ProtobufTarget),
    /// An Arrow IPC stream of many rows; see [`ipc`].
    ArrowIpc(IpcTarget),
    /// Always null: every record is a tombstone.
    Null,
}

impl ValueSource {
    fn implementation(&self) -> &dyn WriteFormat {
        match self {
            Self::Json(target) => target,
            Self::Column(name) => name,
            Self::Avro(target) => target,
            Self::Protobuf(target) => target,
            Self::ArrowIpc(target) => target,
            Self::Null => &whole::Tombstone,
        }
    }

    /// JSON objects of all columns but these; NaN and the infinities are refused.
    #[must_use]
    pub fn json(exclude: Vec<String>) -> Self {
        Self::Json(JsonTarget { exclude, ..JsonTarget::default() })
    }

    /// The columns that are left out of values, or the one column that is the value.
    #[must_use]
    pub fn named_columns(&self) -> &[String] {
        self.implementation().named_columns()
    }

    /// Whether a record holds many rows.
    #[must_use]
    pub fn is_many_rows(&self) -> bool {
        self.implementation().is_many_rows()
    }

    /// The columns that a schema wants; none where values take any, or the schema is not settled.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub fn fields(&self) -> Result<Option<Fields>> {
        self.implementation().fields()
    }

    /// Whether [`Self::settle`] has nothing to do.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.implementation().is_settled()
    }

    /// Finds or registers the schema for the values of a topic and the columns of a table; may
    /// block. `others` are columns that are not part of values unless the schema has them: those of
    /// keys, timestamps, headers and partitions.
    ///
    /// # Errors
    /// The registry could not be asked, or does not take the schema.
    pub fn settle(self, topic: &str, table: &Schema, others: &[String]) -> Result<Self> {
        let target = self.implementation();
        target.check_types(table)?;
        let settled = target.settle(topic, table, others)?;
        Ok(settled.unwrap_or(self))
    }

    /// The same for values that come alone: without a schema, the latest of the subject is used.
    ///
    /// # Errors
    /// An invalid argument where there is no schema, nor a registry to ask for it.
    pub fn without_table(self) -> Result<Self> {
        let alone = self.implementation().without_table()?;
        Ok(alone.unwrap_or(self))
    }

    /// As [`WriteFormat::values`], of types that are not lost.
    pub(in crate::columnar) fn values(&self, rows: &RecordBatch) -> Result<ValueColumn> {
        let target = self.implementation();
        target.check_types(rows.schema_ref())?;
        target.values(rows)
    }

    /// As [`WriteFormat::combiner`].
    pub(in crate::columnar) fn combiner(
        &self,
        options: &WriteOptions,
    ) -> Result<Option<Box<dyn CombineRows>>> {
        self.implementation().combiner(options)
    }

    /// As [`WriteFormat::combined`].
    pub(in crate::columnar) fn combined(&self, rows: &RecordBatch) -> Result<Option<Vec<u8>>> {
        self.implementation().combined(rows)
    }
}
