//! What formats whose values have a schema share, whatever language it is in: where the schema of the
//! columns, that of a value, and that of the values that are written come from.
//!
//! A format that implements [`SchemaFormat`] can be read, one that implements [`SchemaTarget`] can be
//! written; the format itself knows its schemas and its bytes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, new_null_array};
use arrow::datatypes::{FieldRef, Fields, Schema};
use arrow::record_batch::RecordBatch;

use super::reading::{Columns, DecodeValues, Look, Probe, ReadFormat};
use super::registry::{
    self, Fault, Framing, ReaderSchema, Registered, SchemaId, SchemaRequest, SchemaSource,
};
use super::writing::{self, RowEncoder, ValueColumn, WriteFormat};
use super::{ValueFormat, ValueSource};
use crate::columnar::read::assemble::Assembled;
use crate::error::{Error, Result};

/// How many schemas of values are remembered.
const KNOWN_MAX: usize = 10_000;

/// A format whose values have a schema, alone or behind the header of the Schema Registry.
pub(in crate::columnar) trait SchemaFormat:
    Clone + Debug + Send + Sync + 'static
{
    type Schema: Clone;
    /// Its name in messages.
    const NAME: &'static str;

    /// Where the columns come from.
    fn schema(&self) -> &ReaderSchema<Self::Schema>;

    /// Whether values have the header of the Schema Registry.
    fn is_framed(&self) -> bool;

    fn registry(&self) -> Option<&Arc<dyn SchemaSource>>;

    /// The same with the schema of the columns.
    fn with_schema(&self, schema: Self::Schema) -> ValueFormat;

    /// The schema of the columns from one of the registry; `rest` is what follows its id in a value,
    /// if it was found by one.
    ///
    /// # Errors
    /// Why there is none.
    fn of_registered(&self, registered: &Registered, rest: &[u8]) -> Result<Self::Schema, String>;

    /// As [`ReadFormat::fields`].
    fn columns(&self, schema: &Self::Schema) -> Result<Fields>;

    /// As [`ReadFormat::decoder`].
    fn rows(&self, schema: &Self::Schema, wanted: &[usize]) -> Result<Box<dyn DecodeValues>>;
}

#[cold]
fn no_schema(name: &str) -> Error {
    Error::invalid(format!("{name} values need a schema, or a schema registry to ask for it"))
}

impl<F: SchemaFormat> ReadFormat for F {
    fn is_settled(&self) -> bool {
        matches!(self.schema(), ReaderSchema::Given(_))
    }

    fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        self.registry()
    }

    fn settle_for(&self, topic: &str) -> Result<Option<ValueFormat>> {
        let (ReaderSchema::Latest(subject), Some(source)) = (self.schema(), self.registry()) else {
            return Ok(None);
        };
        let parse = |registered: &Registered| self.of_registered(registered, &[]);
        let (schema, _) = registry::latest(source.as_ref(), subject.as_deref(), topic, parse)?;
        Ok(Some(self.with_schema(schema)))
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        match self.registry().filter(|_| self.is_framed()) {
            Some(source) => {
                let (format, source) = (self.clone(), Arc::clone(source));
                Ok(Box::new(SchemaProbe { format, source }))
            }
            None => Err(no_schema(F::NAME)),
        }
    }

    fn fields(&self) -> Result<Option<Fields>> {
        match self.schema() {
            ReaderSchema::Given(schema) => self.columns(schema).map(Some),
            ReaderSchema::First | ReaderSchema::Latest(_) => Err(no_schema(F::NAME)),
        }
    }

    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        match self.schema() {
            ReaderSchema::Given(schema) => self.rows(schema, wanted),
            ReaderSchema::First | ReaderSchema::Latest(_) => Err(no_schema(F::NAME)),
        }
    }
}

/// Finds the schema of the columns: the latest of a subject, or that of the first value that has
/// one.
#[derive(Debug)]
struct SchemaProbe<F> {
    format: F,
    source: Arc<dyn SchemaSource>,
}

impl<F: SchemaFormat> SchemaProbe<F> {
    fn settle(&self, registered: &Registered, rest: &[u8]) -> Result<Look, String> {
        let schema = self.format.of_registered(registered, rest)?;
        Ok(Look::Settled(self.format.with_schema(schema)))
    }
}

impl<F: SchemaFormat> Probe for SchemaProbe<F> {
    fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        let Some(values) = assembled.values() else { return Ok(Look::More) };
        if let ReaderSchema::Latest(subject) = self.format.schema() {
            let topic = assembled.origins.first().map_or("", |(partition, _)| &*partition.topic);
            let subject = subject.clone().unwrap_or_else(|| registry::subject_of(topic));
            return match self.source.latest(&subject) {
                None => Ok(Look::Schema(SchemaRequest::Latest(subject))),
                Some(known) => known
                    .and_then(|registered| self.settle(&registered, &[]))
                    .map_err(|detail| Error::invalid(format!("subject {subject:?}: {detail}"))),
            };
        }
        let mut last = None;
        for value in values.iter().flatten() {
            let Ok((id, rest)) = registry::unframe(value) else { continue };
            if last.replace(id) == Some(id) {
                continue;
            }
            match self.source.known(id) {
                None => return Ok(Look::Schema(SchemaRequest::Id(id))),
                Some(Ok(registered)) => {
                    return self.settle(&registered, rest).map_err(Error::invalid);
                }
                // Records without a schema are left to `on_error`.
                Some(Err(_)) => {}
            }
        }
        Ok(Look::More)
    }

    fn unsettled(&self, named: Fields) -> ValueFormat {
        ValueFormat::Unrevealed(Unrevealed { fields: named })
    }

    fn give_up(&self) -> Option<ValueFormat> {
        None
    }
}

/// Values of a registry, none of which revealed its schema: each is an error, and the columns that
/// were asked for are null.
#[derive(Clone, Debug, PartialEq)]
pub struct Unrevealed {
    pub(super) fields: Fields,
}

impl ReadFormat for Unrevealed {
    fn is_settled(&self) -> bool {
        true
    }

    fn is_unknown(&self) -> bool {
        self.fields.is_empty()
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        Err(Error::invalid("no value has revealed its schema"))
    }

    fn fields(&self) -> Result<Option<Fields>> {
        Ok(Some(self.fields.clone()))
    }

    fn decoder(&self, wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        let fields = wanted.iter().filter_map(|&index| self.fields.get(index).cloned());
        Ok(Box::new(Refusing { fields: fields.collect() }))
    }
}

/// Makes columns of nulls; every value is an error.
#[derive(Debug)]
struct Refusing {
    fields: Fields,
}

impl DecodeValues for Refusing {
    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        for (row, value) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let detail = match registry::unframe(value) {
                Err(Fault::Bad(detail)) => detail,
                _ => "no value has a schema that the registry knows".to_owned(),
            };
            bad(row, detail)?;
        }
        let column =
            |field: &FieldRef| -> ArrayRef { new_null_array(field.data_type(), values.len()) };
        Ok(Columns::Done(self.fields.iter().map(column).collect()))
    }
}

/// What is known about the schemas that values were written with, by what their headers say.
#[derive(Debug)]
pub(super) struct WriterSchemas<K, T> {
    pub(super) source: Option<Arc<dyn SchemaSource>>,
    known: BTreeMap<K, Result<T, String>>,
}

impl<K: Clone + Ord, T> WriterSchemas<K, T> {
    pub(super) fn new(source: Option<&Arc<dyn SchemaSource>>) -> Self {
        Self { source: source.cloned(), known: BTreeMap::new() }
    }

    /// What `learn` makes of the schema of an id, once for each key.
    ///
    /// # Errors
    /// The schema is needed first, or what is wrong with it.
    pub(super) fn get(
        &mut self,
        id: SchemaId,
        key: &K,
        learn: impl FnOnce(&Registered) -> Result<T, String>,
    ) -> Result<&T, Fault> {
        let needed = || Fault::Schema(SchemaRequest::Id(id));
        if !self.known.contains_key(key) {
            let found = self.source.as_ref().and_then(|source| source.known(id));
            let learnt = found.ok_or_else(needed)?.and_then(|registered| learn(&registered));
            if self.known.len() >= KNOWN_MAX {
                self.known.pop_first();
            }
            self.known.insert(key.clone(), learnt);
        }
        match self.known.get(key) {
            Some(Ok(known)) => Ok(known),
            Some(Err(detail)) => Err(Fault::Bad(detail.clone())),
            None => Err(needed()),
        }
    }
}

/// A format whose values are written with a schema, alone or behind the header of the Schema
/// Registry.
pub(in crate::columnar) trait SchemaTarget: Clone + Sized {
    type Schema: Clone;

    /// What was asked for.
    fn wanted(&self) -> Wanted<'_, Self::Schema>;

    /// The same with what was found.
    fn found(&self, schema: Self::Schema, exclude: Vec<String>, framing: Framing) -> ValueSource;

    /// The same with another way to the header.
    fn with_framing(&self, framing: Framing) -> ValueSource;

    /// The columns of a schema.
    ///
    /// # Errors
    /// An invalid argument for types that have no Arrow type.
    fn columns(schema: &Self::Schema) -> Result<Fields>;

    /// The schema of a table.
    ///
    /// # Errors
    /// An invalid argument for columns that the language has no type for.
    fn derive(&self, topic: &str, table: &Schema, exclude: &[String]) -> Result<Self::Schema>;

    /// A schema of the registry.
    ///
    /// # Errors
    /// Why it is not one of this language.
    fn of_registered(&self, registered: &Registered) -> Result<Self::Schema, String>;

    /// Whether the subject's latest schema goes before one that would be derived.
    fn prefers_latest() -> bool;

    /// The id of a schema under a subject, which is registered if `create`; may block.
    ///
    /// # Errors
    /// As [`SchemaSource::register`].
    fn register(
        schema: &Self::Schema,
        source: &dyn SchemaSource,
        subject: &str,
        create: bool,
    ) -> Result<SchemaId>;

    /// Writes what follows the id in the header.
    fn put_header(schema: &Self::Schema, output: &mut Vec<u8>);

    /// What writes the rows of a table.
    ///
    /// # Errors
    /// An invalid argument for columns that do not match the schema.
    fn encoder(
        schema: &Self::Schema,
        rows: &RecordBatch,
        exclude: &[String],
    ) -> Result<impl RowEncoder + 'static>;
}

/// What was asked for about the schema of values to write.
pub(in crate::columnar) struct Wanted<'a, S> {
    pub(in crate::columnar) schema: Option<&'a S>,
    pub(in crate::columnar) exclude: &'a [String],
    pub(in crate::columnar) framing: &'a Framing,
    /// Whether schema and framing were found.
    pub(in crate::columnar) is_settled: bool,
}

#[cold]
fn unsettled() -> Error {
    Error::invalid("the schema of the values is not settled; see ValueSource::settle")
}

impl<T: SchemaTarget> WriteFormat for T {
    fn named_columns(&self) -> &[String] {
        self.wanted().exclude
    }

    fn check_types(&self, table: &Schema) -> Result<()> {
        writing::refuse_storage(table, self.wanted().exclude)
    }

    fn fields(&self) -> Result<Option<Fields>> {
        self.wanted().schema.map(T::columns).transpose()
    }

    fn is_settled(&self) -> bool {
        self.wanted().is_settled
    }

    fn settle(
        &self,
        topic: &str,
        table: &Schema,
        others: &[String],
    ) -> Result<Option<ValueSource>> {
        let wanted = self.wanted();
        let derive = || {
            let exclude: Vec<String> = wanted.exclude.iter().chain(others).cloned().collect();
            self.derive(topic, table, &exclude)
        };
        let (schema, framing) = match (wanted.framing, wanted.schema) {
            (Framing::Register { source, subject, auto_register }, given) => {
                let (source, create) = (source.as_ref(), *auto_register);
                let subject = subject.clone().unwrap_or_else(|| registry::subject_of(topic));
                let mut is_new = given.is_some() || create;
                if given.is_none() && create && T::prefers_latest() {
                    is_new = registry::find_latest(source, &subject)?.is_err();
                }
                let (schema, id) = if is_new {
                    let schema = given.cloned().map_or_else(derive, Ok)?;
                    let id = T::register(&schema, source, &subject, create)?;
                    (schema, id)
                } else {
                    let parse = |registered: &Registered| self.of_registered(registered);
                    registry::latest(source, Some(&subject), topic, parse)?
                };
                (schema, Framing::Id(id))
            }
            (framing, Some(schema)) => (schema.clone(), framing.clone()),
            (framing, None) => (derive()?, framing.clone()),
        };
        // Columns that only place the record are left out where the schema does not know them.
        let known = T::columns(&schema)?;
        let placing = others.iter().filter(|name| known.find(name).is_none());
        let exclude = wanted.exclude.iter().chain(placing).cloned().collect();
        Ok(Some(self.found(schema, exclude, framing)))
    }

    fn without_table(&self) -> Result<Option<ValueSource>> {
        let wanted = self.wanted();
        if wanted.schema.is_some() {
            return Ok(None);
        }
        let Framing::Register { source, subject, .. } = wanted.framing else {
            return Err(Error::invalid(
                "no schema can be derived from a single value: pass schema=",
            ));
        };
        let (source, subject) = (Arc::clone(source), subject.clone());
        let framing = Framing::Register { source, subject, auto_register: false };
        Ok(Some(self.with_framing(framing)))
    }

    fn values(&self, rows: &RecordBatch) -> Result<ValueColumn> {
        let wanted = self.wanted();
        let schema = wanted.schema.ok_or_else(unsettled)?;
        let writer = T::encoder(schema, rows, wanted.exclude)?;
        let mut header = Vec::new();
        match wanted.framing {
            Framing::Plain => return Ok(ValueColumn::Encoded(Box::new(writer))),
            Framing::Register { .. } => return Err(unsettled()),
            Framing::Id(id) => registry::put_frame(*id, &mut header),
        }
        T::put_header(schema, &mut header);
        Ok(ValueColumn::Encoded(Box::new(Framed { header, writer })))
    }
}

/// Writes values behind the header of the registry.
struct Framed<W> {
    header: Vec<u8>,
    writer: W,
}

impl<W: RowEncoder> RowEncoder for Framed<W> {
    fn write(&self, row: usize, output: &mut Vec<u8>) -> Result<(), String> {
        output.extend_from_slice(&self.header);
        self.writer.write(row, output)
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::columnar::formats::avro::{AvroSchema, AvroTarget};
    use crate::columnar::formats::protobuf::{ProtobufSchema, ProtobufTarget};

    #[test]
    fn columns_that_only_place_the_record_are_left_out_where_the_schema_lacks_them() {
        let fields = ["id", "key", "at"].map(|name| Field::new(name, DataType::Int64, true));
        let table = Schema::new(fields.to_vec());
        let others = ["key".to_owned(), "at".to_owned()];
        let avro = r#"{"type": "record", "name": "R", "fields": [
            {"name": "id", "type": "long"}, {"name": "at", "type": "long"}]}"#;
        let protobuf = "syntax = \"proto3\"; message R { int64 id = 1; int64 at = 2; }";
        let targets = [
            ValueSource::Avro(AvroTarget {
                schema: Some(AvroSchema::parse(avro).unwrap()),
                exclude: Vec::new(),
                framing: Framing::Plain,
                settled: false,
            }),
            ValueSource::Protobuf(ProtobufTarget {
                schema: Some(ProtobufSchema::parse(protobuf, &[], Vec::new(), None).unwrap()),
                message: None,
                exclude: Vec::new(),
                framing: Framing::Plain,
                settled: false,
            }),
        ];
        for target in targets {
            assert!(!target.is_settled());
            let settled = target.settle("t", &table, &others).unwrap();
            assert!(settled.is_settled());
            assert_eq!(settled.named_columns(), ["key"], "{settled:?}");
        }
    }
}
