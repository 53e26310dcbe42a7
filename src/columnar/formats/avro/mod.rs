//! Avro values to typed columns, and typed columns to Avro values.
//!
//! A value is one datum in Avro's binary encoding, alone or behind the header of the Schema
//! Registry (a zero byte and the id of the schema it was written with). The schemas are compiled
//! once: the writer's and the reader's to a program of reads ([`resolve`]) that [`read`] runs
//! straight into column builders, for a block of values column by column, or value by value where one
//! of them is bad; fields that were not requested are skipped. A value with bytes left over is an
//! error. Writing: [`write`].
//!
//! | Avro                                 | Arrow                                              |
//! |--------------------------------------|----------------------------------------------------|
//! | boolean, int, long, float, double    | bool, int32, int64, float32, float64               |
//! | bytes, string, string as uuid        | binary_view, utf8_view, utf8_view                  |
//! | fixed, fixed as uuid or duration     | fixed_size_binary                                  |
//! | decimal                              | decimal128, or decimal256 beyond 38 digits         |
//! | date, time-millis, time-micros       | date32, time32(ms), time64(us)                     |
//! | timestamp-millis, -micros, -nanos    | timestamp(unit, UTC)                               |
//! | local-timestamp-…                    | timestamp(unit)                                    |
//! | enum                                 | dictionary(int32, utf8)                            |
//! | array, map                           | list, map                                          |
//! | record                               | struct; the columns themselves at the top          |
//! | union of null and one other          | the other, nullable                                |
//! | any other union                      | struct with a nullable member for each branch      |
//!
//! A datum that is not a record becomes one column `value`. Recursive types have no Arrow type and
//! are refused.

mod json_default;
mod mapping;
mod read;
mod resolve;
mod schema;
#[cfg(test)]
mod tests;
mod write;

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Fields, Schema as ArrowSchema};

pub use schema::AvroSchema;
pub(in crate::columnar) use write::AvroWriter;

use super::builder::Rows;
use super::fail::with_excerpt;
use super::reading::DecodeValues;
use super::registry::{
    self, Fault, Framing, ReaderSchema, Registered, SchemaId, SchemaKind, SchemaSource,
};
use super::rows::{BLOCK_ROWS, RowDecoder, Value};
use super::schemas::{SchemaFormat, SchemaTarget, Wanted, WriterSchemas};
use super::writing::RowEncoder;
use super::{ValueFormat, ValueSource};
use crate::error::Result;
use read::Cursor;
use resolve::{Program, compile};

/// How Avro values are read.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroFormat {
    /// Where the columns come from.
    pub schema: ReaderSchema<AvroSchema>,
    /// Whether values have the header of the Schema Registry.
    pub framed: bool,
    /// Where the schemas of values are found by id; without it, values were written with the given
    /// schema.
    pub source: Option<Arc<dyn SchemaSource>>,
}

impl SchemaFormat for AvroFormat {
    type Schema = AvroSchema;
    const NAME: &'static str = "Avro";

    fn schema(&self) -> &ReaderSchema<AvroSchema> {
        &self.schema
    }

    fn is_framed(&self) -> bool {
        self.framed
    }

    fn registry(&self) -> Option<&Arc<dyn SchemaSource>> {
        self.source.as_ref()
    }

    fn with_schema(&self, schema: AvroSchema) -> ValueFormat {
        let schema = ReaderSchema::Given(schema);
        ValueFormat::Avro(Arc::new(Self { schema, ..self.clone() }))
    }

    fn of_registered(&self, registered: &Registered, _rest: &[u8]) -> Result<AvroSchema, String> {
        AvroSchema::of_registered(registered)
    }

    fn columns(&self, schema: &AvroSchema) -> Result<Fields> {
        schema.fields()
    }

    fn rows(&self, schema: &AvroSchema, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        Ok(Box::new(AvroDecoder::new(self, schema, wanted)?))
    }
}

/// How Avro values are written.
#[derive(Clone, Debug, PartialEq)]
pub struct AvroTarget {
    /// The schema; when none, the latest one of the subject where schemas are not registered, and
    /// else one that is made from the columns.
    pub schema: Option<AvroSchema>,
    /// The columns that are left out.
    pub exclude: Vec<String>,
    /// What is written in front of the value.
    pub framing: Framing,
    /// Whether the schema and what is in front are known.
    pub settled: bool,
}

impl SchemaTarget for AvroTarget {
    type Schema = AvroSchema;

    fn wanted(&self) -> Wanted<'_, AvroSchema> {
        let Self { schema, exclude, framing, settled } = self;
        Wanted { schema: schema.as_ref(), exclude, framing, is_settled: *settled }
    }

    fn found(&self, schema: AvroSchema, exclude: Vec<String>, framing: Framing) -> ValueSource {
        ValueSource::Avro(Self { schema: Some(schema), exclude, framing, settled: true })
    }

    fn with_framing(&self, framing: Framing) -> ValueSource {
        ValueSource::Avro(Self { framing, ..self.clone() })
    }

    fn columns(schema: &AvroSchema) -> Result<Fields> {
        schema.fields()
    }

    fn derive(&self, topic: &str, table: &ArrowSchema, exclude: &[String]) -> Result<AvroSchema> {
        AvroSchema::of_table(table, &format!("{topic}_value"), exclude)
    }

    fn of_registered(&self, registered: &Registered) -> Result<AvroSchema, String> {
        AvroSchema::of_registered(registered)
    }

    fn prefers_latest() -> bool {
        false
    }

    fn register(
        schema: &AvroSchema,
        source: &dyn SchemaSource,
        subject: &str,
        create: bool,
    ) -> Result<SchemaId> {
        let text = (SchemaKind::Avro, schema.text(), schema.references());
        source.register(subject, text, create)
    }

    fn put_header(_schema: &AvroSchema, _output: &mut Vec<u8>) {}

    fn encoder(
        schema: &AvroSchema,
        rows: &RecordBatch,
        exclude: &[String],
    ) -> Result<impl RowEncoder + 'static> {
        AvroWriter::new(rows, schema, exclude)
    }
}

/// Decodes values into one array per wanted field.
#[derive(Debug)]
pub(in crate::columnar) struct AvroDecoder {
    reader: AvroSchema,
    /// The positions of the wanted columns among the fields of the reader's schema.
    wanted: Vec<usize>,
    framed: bool,
    programs: WriterSchemas<SchemaId, Program>,
    current: Option<SchemaId>,
    program: Program,
    rows: Rows,
}

impl AvroDecoder {
    /// A decoder for some of the columns of a reader's schema.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    pub(in crate::columnar) fn new(
        format: &AvroFormat,
        reader: &AvroSchema,
        wanted: &[usize],
    ) -> Result<Self> {
        let all = reader.fields()?;
        let fields: Fields = wanted.iter().filter_map(|&index| all.get(index).cloned()).collect();
        let mut rows = Rows::new(&fields)?;
        for (column, &index) in rows.columns.iter_mut().zip(wanted) {
            if let Some(schema) = reader.column(index) {
                mapping::set_symbols(column, schema);
            }
        }
        let program = compile(reader, reader, wanted)
            .map_err(|detail| crate::error::Error::invalid(format!("Avro schema: {detail}")))?;
        Ok(Self {
            reader: reader.clone(),
            wanted: wanted.to_vec(),
            framed: format.framed,
            programs: WriterSchemas::new(format.source.as_ref()),
            current: None,
            program,
            rows,
        })
    }

    /// Switches to the program for values of a writer's schema.
    fn switch(&mut self, id: SchemaId) -> Result<(), Fault> {
        let (reader, wanted) = (&self.reader, &self.wanted);
        let program = self.programs.get(id, &id, |registered| {
            let writer = AvroSchema::of_registered(registered)?;
            compile(&writer, reader, wanted).map_err(|detail| {
                format!("schema {id} does not fit the schema of the columns: {detail}")
            })
        })?;
        self.program = program.clone();
        self.current = Some(id);
        Ok(())
    }
}

impl RowDecoder for AvroDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        let body = if self.framed {
            let (id, body) = registry::unframe(value)?;
            if self.programs.source.is_some() && self.current != Some(id) {
                self.switch(id)?;
            }
            body
        } else {
            value
        };
        let read = self.program.run(&mut Cursor::new(body), &mut self.rows.columns);
        self.rows.end_row(read).map_err(|fail| Fault::Bad(with_excerpt(&fail, value)))
    }

    fn push_block(&mut self, values: &[Value<'_>]) -> usize {
        let mut cursors = [Cursor::new(&[]); BLOCK_ROWS];
        let Some(cursors) = cursors.get_mut(..values.len()) else { return 0 };
        for (cursor, value) in cursors.iter_mut().zip(values) {
            let value = value.alone();
            let body = if self.framed {
                match registry::unframe(value) {
                    Ok((id, body))
                        if self.programs.source.is_none() || self.current == Some(id) =>
                    {
                        body
                    }
                    _ => return 0,
                }
            } else {
                value
            };
            *cursor = Cursor::new(body);
        }
        let read = self.program.run_block(cursors, &mut self.rows.columns);
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
