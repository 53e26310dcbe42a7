//! Protobuf values to typed columns, and typed columns to Protobuf values.
//!
//! A value is one message, alone or behind the header of the Schema Registry: a zero byte, the id of
//! the schema, and the path to the message among those of its file. Schemas are `.proto` texts or
//! compiled descriptors. Fields are found by their numbers, so values of older and newer schemas can
//! be read, and fields that were not requested are skipped. Reading: [`read`], a block of values
//! column by column where all have their fields in order; writing: [`write`], with a schema derived
//! from the columns ([`derive`]) where there is no other.
//!
//! | Protobuf                                | Arrow                                         |
//! |-----------------------------------------|-----------------------------------------------|
//! | bool, float, double                     | bool, float32, float64                        |
//! | int32, sint32, sfixed32; the 64 ones    | int32; int64                                  |
//! | uint32, fixed32; uint64, fixed64        | uint32; uint64                                |
//! | string, bytes                           | utf8_view, binary_view                        |
//! | enum                                    | dictionary(int32, utf8); unknown: its number  |
//! | repeated, map                           | list, map                                     |
//! | message                                 | struct; the columns themselves at the top     |
//! | Timestamp, Duration                     | timestamp(ns, UTC), duration(ns); or us       |
//! | the wrappers (Int64Value, …)            | the value, nullable                           |
//! | a message that holds itself             | binary_view: its bytes                        |
//!
//! A field that is missing from a value is null where Protobuf tracks whether it was set
//! (`optional`, a member of a `oneof`, a message), and its default otherwise.

mod build;
mod derive;
mod element;
mod enums;
mod imports;
mod mapping;
mod read;
mod schema;
#[cfg(test)]
mod tests;
mod wire;
mod write;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Fields, Schema, TimeUnit};

pub use schema::ProtobufSchema;
pub(in crate::columnar) use write::ProtobufWriter;

use super::builder::Rows;
use super::fail::with_excerpt;
use super::reading::DecodeValues;
use super::registry::{self, Fault, Framing, ReaderSchema, Registered, SchemaId, SchemaSource};
use super::rows::{BLOCK_ROWS, RowDecoder, Value};
use super::schemas::{SchemaFormat, SchemaTarget, Wanted, WriterSchemas};
use super::writing::RowEncoder;
use super::{ValueFormat, ValueSource};
use crate::error::Result;
use read::{Program, Reader};
use wire::Cursor;

/// How Protobuf values are read.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufFormat {
    /// Where the columns come from.
    pub schema: ReaderSchema<ProtobufSchema>,
    /// The name of the message, if the schema is not given; by default that of the first value, or
    /// the first in the latest schema.
    pub message: Option<String>,
    /// The unit of times and durations, nanoseconds or microseconds; a value that it cannot hold
    /// exactly cannot be decoded.
    pub time_unit: TimeUnit,
    /// Whether values have the header of the Schema Registry.
    pub framed: bool,
    /// Where the schemas of values are found by id; without it, all values are assumed to be of the
    /// columns' message.
    pub source: Option<Arc<dyn SchemaSource>>,
}

impl SchemaFormat for ProtobufFormat {
    type Schema = ProtobufSchema;
    const NAME: &'static str = "Protobuf";

    fn schema(&self) -> &ReaderSchema<ProtobufSchema> {
        &self.schema
    }

    fn is_framed(&self) -> bool {
        self.framed
    }

    fn registry(&self) -> Option<&Arc<dyn SchemaSource>> {
        self.source.as_ref()
    }

    fn with_schema(&self, schema: ProtobufSchema) -> ValueFormat {
        let schema = ReaderSchema::Given(schema);
        ValueFormat::Protobuf(Arc::new(Self { schema, ..self.clone() }))
    }

    fn of_registered(
        &self,
        registered: &Registered,
        rest: &[u8],
    ) -> Result<ProtobufSchema, String> {
        ProtobufSchema::of_value(registered, self.message.as_deref(), rest)
    }

    fn columns(&self, schema: &ProtobufSchema) -> Result<Fields> {
        Ok(schema.fields(self.time_unit))
    }

    fn rows(&self, schema: &ProtobufSchema, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        Ok(Box::new(ProtobufDecoder::new(self, schema, wanted)?))
    }
}

/// How Protobuf values are written.
#[derive(Clone, Debug, PartialEq)]
pub struct ProtobufTarget {
    /// The schema; when none, the latest one of the subject. Where there is neither, one is made
    /// from the columns.
    pub schema: Option<ProtobufSchema>,
    /// The name of the message in the latest schema; its first one when none. Or that of the
    /// message that is made.
    pub message: Option<String>,
    /// The columns that are left out.
    pub exclude: Vec<String>,
    /// What is written in front of the value.
    pub framing: Framing,
    /// Whether the schema and what is in front are known.
    pub settled: bool,
}

impl SchemaTarget for ProtobufTarget {
    type Schema = ProtobufSchema;

    fn wanted(&self) -> Wanted<'_, ProtobufSchema> {
        let Self { schema, exclude, framing, settled, .. } = self;
        Wanted { schema: schema.as_ref(), exclude, framing, is_settled: *settled }
    }

    fn found(&self, schema: ProtobufSchema, exclude: Vec<String>, framing: Framing) -> ValueSource {
        let (schema, message) = (Some(schema), self.message.clone());
        ValueSource::Protobuf(Self { schema, message, exclude, framing, settled: true })
    }

    fn with_framing(&self, framing: Framing) -> ValueSource {
        ValueSource::Protobuf(Self { framing, ..self.clone() })
    }

    fn columns(schema: &ProtobufSchema) -> Result<Fields> {
        Ok(schema.fields(TimeUnit::Microsecond))
    }

    fn derive(&self, topic: &str, table: &Schema, exclude: &[String]) -> Result<ProtobufSchema> {
        let name = self.message.clone().unwrap_or_else(|| ProtobufSchema::message_of(topic));
        ProtobufSchema::of_table(table, &name, exclude)
    }

    fn of_registered(&self, registered: &Registered) -> Result<ProtobufSchema, String> {
        ProtobufSchema::of_registered(registered, self.message.as_deref(), None)
    }

    // Numbers are what fields are known by: those that are in use come first.
    fn prefers_latest() -> bool {
        true
    }

    fn register(
        schema: &ProtobufSchema,
        source: &dyn SchemaSource,
        subject: &str,
        create: bool,
    ) -> Result<SchemaId> {
        schema.register(source, subject, create)
    }

    fn put_header(schema: &ProtobufSchema, output: &mut Vec<u8>) {
        schema.put_indexes(output);
    }

    fn encoder(
        schema: &ProtobufSchema,
        rows: &RecordBatch,
        exclude: &[String],
    ) -> Result<impl RowEncoder + 'static> {
        ProtobufWriter::new(rows, schema, exclude)
    }
}

/// Decodes values into one array per wanted field.
#[derive(Debug)]
pub(in crate::columnar) struct ProtobufDecoder {
    name: String,
    framed: bool,
    /// Whether the messages of these schemas match that of the columns.
    messages: WriterSchemas<(SchemaId, Vec<i32>), ()>,
    /// The header of the last value that matched; empty if none did.
    current: Vec<u8>,
    program: Program,
    reader: Reader,
    rows: Rows,
}

impl ProtobufDecoder {
    /// A decoder for some of the columns of a message.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub(in crate::columnar) fn new(
        format: &ProtobufFormat,
        schema: &ProtobufSchema,
        wanted: &[usize],
    ) -> Result<Self> {
        let all = schema.fields(format.time_unit);
        let fields: Fields = wanted.iter().filter_map(|&index| all.get(index).cloned()).collect();
        let mut rows = Rows::new(&fields)?;
        for (column, &index) in rows.columns.iter_mut().zip(wanted) {
            if let Some(field) = schema.root().fields.get(index) {
                mapping::set_symbols(column, field);
            }
        }
        Ok(Self {
            name: schema.root().name.clone(),
            framed: format.framed,
            messages: WriterSchemas::new(format.source.as_ref()),
            current: Vec::new(),
            program: Program::new(schema.root(), Some(wanted)),
            reader: Reader::new(format.time_unit),
            rows,
        })
    }

    /// Checks whether a value with this header is of the columns' message.
    fn check(&mut self, value: &[u8]) -> Result<(), Fault> {
        let (id, rest) = registry::unframe(value)?;
        let (indexes, body) = schema::unframe_indexes(rest)?;
        if self.messages.source.is_some() {
            let (key, wanted) = ((id, indexes), &self.name);
            self.messages.get(id, &key, |registered| {
                let name = ProtobufSchema::name_in(registered, &key.1)?;
                if name == *wanted {
                    return Ok(());
                }
                Err(format!("the value is a {name:?}, not a {wanted:?}"))
            })?;
        }
        let header = value.len().saturating_sub(body.len());
        self.current = value.get(..header).unwrap_or_default().to_vec();
        Ok(())
    }
}

impl RowDecoder for ProtobufDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        let body = if self.framed {
            if self.current.is_empty() || !value.starts_with(&self.current) {
                self.check(value)?;
            }
            value.get(self.current.len()..).unwrap_or_default()
        } else {
            value
        };
        let read = self.reader.message(&self.program, body, &mut self.rows.columns);
        self.rows.end_row(read).map_err(|fail| Fault::Bad(with_excerpt(&fail, value)))
    }

    fn push_block(&mut self, values: &[Value<'_>]) -> usize {
        if self.framed && self.current.is_empty() {
            return 0;
        }
        let mut cursors = [Cursor::new(&[]); BLOCK_ROWS];
        let Some(cursors) = cursors.get_mut(..values.len()) else { return 0 };
        for (cursor, value) in cursors.iter_mut().zip(values) {
            let Some(body) = value.alone().strip_prefix(&*self.current) else { return 0 };
            *cursor = Cursor::new(body);
        }
        let read = self.reader.block(&self.program, cursors, &mut self.rows.columns);
        let done = self.rows.end_rows(values.len(), read).is_ok();
        if done { values.len() } else { 0 }
    }

    fn push_null(&mut self) {
        self.rows.push_null();
    }

    fn reserve(&mut self, rows: usize) {
        self.rows.reserve(rows);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows.finish()
    }
}
