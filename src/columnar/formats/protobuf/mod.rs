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

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{Fields, TimeUnit};

pub use schema::ProtobufSchema;
pub(in crate::columnar) use write::ProtobufWriter;

use super::builder::Rows;
use super::fail::with_excerpt;
use super::registry::{self, Fault, ReaderSchema, SchemaId, SchemaRequest, SchemaSource};
use super::rows::{BLOCK_ROWS, RowDecoder, Value};
use crate::error::Result;
use read::{Program, Reader};
use wire::Cursor;

/// How Protobuf values are read.
#[derive(Clone, Debug)]
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

impl PartialEq for ProtobufFormat {
    fn eq(&self, other: &Self) -> bool {
        self.schema == other.schema
            && self.message == other.message
            && self.time_unit == other.time_unit
            && self.framed == other.framed
            && registry::same_source(self.source.as_ref(), other.source.as_ref())
    }
}

/// Decodes values into one array per wanted field.
#[derive(Debug)]
pub(in crate::columnar) struct ProtobufDecoder {
    name: String,
    framed: bool,
    source: Option<Arc<dyn SchemaSource>>,
    /// Whether the messages of these schemas match that of the columns.
    known: BTreeMap<(SchemaId, Vec<i32>), std::result::Result<(), String>>,
    /// The header of the last value that matched; empty if none did.
    current: Vec<u8>,
    program: Program,
    reader: Reader,
    rows: Rows,
}

/// How many messages of other types are remembered.
const KNOWN_MAX: usize = 10_000;

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
            source: format.source.clone(),
            known: BTreeMap::new(),
            current: Vec::new(),
            program: Program::new(schema.root(), Some(wanted)),
            reader: Reader::new(format.time_unit),
            rows,
        })
    }

    /// Checks whether a value with this header is of the columns' message.
    fn check(&mut self, value: &[u8]) -> std::result::Result<(), Fault> {
        let (id, rest) = registry::unframe(value)?;
        let (indexes, body) = schema::unframe_indexes(rest)?;
        if let Some(source) = &self.source {
            let key = (id, indexes);
            if !self.known.contains_key(&key) {
                let Some(found) = source.known(id) else {
                    return Err(Fault::Schema(SchemaRequest::Id(id)));
                };
                let checked = found.and_then(|registered| {
                    let name = ProtobufSchema::name_in(&registered, &key.1)?;
                    if name == self.name {
                        return Ok(());
                    }
                    Err(format!("the value is a {name:?}, not a {:?}", self.name))
                });
                if self.known.len() >= KNOWN_MAX {
                    self.known.pop_first();
                }
                self.known.insert(key.clone(), checked);
            }
            if let Some(Err(detail)) = self.known.get(&key) {
                return Err(Fault::Bad(detail.clone()));
            }
        }
        let header = value.len().saturating_sub(body.len());
        self.current = value.get(..header).unwrap_or_default().to_vec();
        Ok(())
    }
}

impl RowDecoder for ProtobufDecoder {
    fn push(&mut self, value: &[u8]) -> std::result::Result<(), Fault> {
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
