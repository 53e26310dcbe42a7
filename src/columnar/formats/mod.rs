//! Value formats: how the bytes of a value become columns, and how a decoder determines which.
//!
//! ```text
//! ValueFormat ──► Settled (columns are known) ──► Values (decodes rows of the wanted columns)
//!        └──────► Probe (looks at the first values, or asks a registry) ──┘
//! ```

pub(super) mod avro;
pub(super) mod builder;
pub(super) mod debezium;
pub(super) mod fail;
pub(super) mod ipc;
pub(super) mod json;
pub(super) mod protobuf;
pub(super) mod registry;
pub(super) mod rows;
pub(super) mod target;
pub(super) mod varint;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, new_null_array};
use arrow::datatypes::{FieldRef, Fields};

use crate::columnar::columns::KafkaColumn;
use crate::columnar::read::assemble::Assembled;
use crate::columnar::read::decoder::OnError;
use crate::error::{Error, Result};
use avro::{AvroDecoder, AvroFormat, AvroSchema};
use debezium::{DebeziumFormat, EventDecoder, EventProbe, Events};
use ipc::{IpcDecoder, IpcFormat, IpcProbe};
use json::{Extra, JsonDecoder, JsonFormat, JsonProbe, all_nullable};
use protobuf::{ProtobufDecoder, ProtobufFormat, ProtobufSchema};
use registry::{Fault, ReaderSchema, Registered, SchemaRequest, SchemaSource};
use rows::decode_rows;

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
    /// Values of a registry, none of which revealed its schema: each is an error, and these columns
    /// are null.
    Nothing(Fields),
}

impl ValueFormat {
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
        match self {
            Self::Raw | Self::Text | Self::Nothing(_) => true,
            Self::Json(JsonFormat { fields, .. }) | Self::ArrowIpc(IpcFormat { fields, .. }) => {
                fields.is_some()
            }
            Self::Avro(format) => matches!(format.schema, ReaderSchema::Given(_)),
            Self::Protobuf(format) => matches!(format.schema, ReaderSchema::Given(_)),
            Self::Debezium(format) => format.inner.is_settled(),
        }
    }

    /// Whether a record may yield more rows than one, or none.
    #[must_use]
    pub const fn is_many_rows(&self) -> bool {
        matches!(self, Self::ArrowIpc(_))
    }

    /// Asks the registry for the latest schema of a topic's values, if the columns come from there;
    /// may block. Columns that are determined from values stay unknown.
    ///
    /// # Errors
    /// When the registry cannot be reached, or has no such schema.
    pub fn settle_for(self, topic: &str) -> Result<Self> {
        match self {
            Self::Avro(format) => {
                let ReaderSchema::Latest(subject) = &format.schema else {
                    return Ok(Self::Avro(format));
                };
                let Some(source) = &format.source else { return Ok(Self::Avro(format)) };
                let (schema, _) =
                    registry::latest(source.as_ref(), subject.as_deref(), topic, |registered| {
                        AvroSchema::of_registered(registered)
                    })?;
                let schema = ReaderSchema::Given(schema);
                Ok(Self::Avro(Arc::new(AvroFormat { schema, ..AvroFormat::clone(&format) })))
            }
            Self::Protobuf(format) => {
                let (ReaderSchema::Latest(subject), Some(source)) =
                    (&format.schema, &format.source)
                else {
                    return Ok(Self::Protobuf(format));
                };
                let message = format.message.as_deref();
                let (schema, _) =
                    registry::latest(source.as_ref(), subject.as_deref(), topic, |registered| {
                        ProtobufSchema::of_registered(registered, message, None)
                    })?;
                Ok(Settled::Protobuf(format, schema).format())
            }
            Self::Debezium(format) => {
                let inner = format.inner.clone().settle_for(topic)?;
                Ok(Self::Debezium(Arc::new(DebeziumFormat {
                    inner,
                    ..DebeziumFormat::clone(&format)
                })))
            }
            other => Ok(other),
        }
    }

    /// Where the schemas of values come from.
    pub(in crate::columnar) fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        match self {
            Self::Avro(format) => format.source.as_ref(),
            Self::Protobuf(format) => format.source.as_ref(),
            Self::Debezium(format) => format.inner.source(),
            Self::Raw | Self::Text | Self::Json(_) | Self::ArrowIpc(_) | Self::Nothing(_) => None,
        }
    }

    /// What is known without examining values; a probe if that is not enough.
    pub(in crate::columnar) fn settle(&self) -> Result<Result<Settled, Probe>> {
        Ok(match self {
            Self::Raw => Ok(Settled::Whole { text: false }),
            Self::Text => Ok(Settled::Whole { text: true }),
            Self::Nothing(fields) => Ok(Settled::Nothing(fields.clone())),
            Self::Json(format) => match &format.fields {
                Some(fields) => {
                    let fields = Some(all_nullable(fields));
                    Ok(Settled::Json(JsonFormat { fields, ..format.clone() }))
                }
                None => Err(Probe::Json(Box::new(JsonProbe::new(format)))),
            },
            Self::Avro(format) => match &format.schema {
                ReaderSchema::Given(schema) => {
                    Ok(Settled::Avro(Arc::clone(format), schema.clone()))
                }
                _ if format.source.is_none() || !format.framed => {
                    return Err(Error::invalid(
                        "Avro values need a schema, or a schema registry to ask for it",
                    ));
                }
                ReaderSchema::First | ReaderSchema::Latest(_) => {
                    Err(Probe::Avro(Arc::clone(format)))
                }
            },
            Self::Protobuf(format) => match &format.schema {
                ReaderSchema::Given(schema) => {
                    Ok(Settled::Protobuf(Arc::clone(format), schema.clone()))
                }
                _ if format.source.is_none() || !format.framed => {
                    return Err(Error::invalid(
                        "Protobuf values need a schema, or a schema registry to ask for it",
                    ));
                }
                ReaderSchema::First | ReaderSchema::Latest(_) => {
                    Err(Probe::Protobuf(Arc::clone(format)))
                }
            },
            Self::ArrowIpc(format) => match &format.fields {
                Some(fields) => Ok(Settled::ArrowIpc(fields.clone(), format.found)),
                None => Err(Probe::ArrowIpc(IpcProbe::default())),
            },
            Self::Debezium(format) => match format.inner.settle()? {
                Ok(inner) => Ok(Settled::Debezium(Events::new(inner, format)?)),
                Err(inner) => Err(Probe::Debezium(Box::new(EventProbe::new(inner, format)))),
            },
        })
    }
}

/// A format whose columns are known.
#[derive(Clone, Debug)]
pub(in crate::columnar) enum Settled {
    /// One column of all the bytes.
    Whole {
        text: bool,
    },
    /// No value revealed its columns; these were requested.
    Nothing(Fields),
    Json(JsonFormat),
    Avro(Arc<AvroFormat>, AvroSchema),
    Protobuf(Arc<ProtobufFormat>, ProtobufSchema),
    Debezium(Events),
    /// With the columns, and whether they were found in values.
    ArrowIpc(Fields, bool),
}

impl Settled {
    pub(in crate::columnar) const fn is_text(&self) -> bool {
        matches!(self, Self::Whole { text: true })
    }

    /// The format with these columns.
    pub(in crate::columnar) fn format(&self) -> ValueFormat {
        match self {
            Self::Whole { text: true } => ValueFormat::Text,
            Self::Whole { text: false } => ValueFormat::Raw,
            Self::Nothing(fields) => ValueFormat::Nothing(fields.clone()),
            Self::Json(format) => ValueFormat::Json(format.clone()),
            Self::Avro(format, schema) => ValueFormat::Avro(Arc::new(AvroFormat {
                schema: ReaderSchema::Given(schema.clone()),
                ..AvroFormat::clone(format)
            })),
            Self::Protobuf(format, schema) => ValueFormat::Protobuf(Arc::new(ProtobufFormat {
                schema: ReaderSchema::Given(schema.clone()),
                ..ProtobufFormat::clone(format)
            })),
            Self::Debezium(events) => events.format(),
            Self::ArrowIpc(fields, found) => {
                ValueFormat::ArrowIpc(IpcFormat { fields: Some(fields.clone()), found: *found })
            }
        }
    }

    /// The columns of decoded values; none where `value` is one column.
    pub(in crate::columnar) fn fields(&self) -> Result<Option<Fields>> {
        Ok(match self {
            Self::Whole { .. } => None,
            Self::Nothing(fields) => Some(fields.clone()),
            Self::Json(format) => format.fields.clone(),
            Self::Avro(_, schema) => Some(schema.fields()?),
            Self::Protobuf(format, schema) => Some(schema.fields(format.time_unit)),
            Self::Debezium(events) => Some(events.fields()),
            Self::ArrowIpc(fields, _) => Some(all_nullable(fields)),
        })
    }

    /// Whether values are checked even without a column: their fields are unknown, so no column
    /// would show that they cannot be decoded.
    pub(in crate::columnar) fn is_unknown(&self) -> bool {
        match self {
            Self::Nothing(fields) => fields.is_empty(),
            Self::Json(format) => {
                format.extra == Extra::Error
                    && format.fields.as_ref().is_none_or(|fields| fields.is_empty())
            }
            _ => false,
        }
    }

    /// A decoder for some of the columns.
    pub(in crate::columnar) fn decoder(&self, wanted: &[usize]) -> Result<Values> {
        Ok(match self {
            Self::Whole { .. } => Values::None,
            Self::Nothing(fields) => {
                let fields = wanted.iter().filter_map(|&index| fields.get(index).cloned());
                Values::Nothing(fields.collect())
            }
            Self::Json(format) => Values::Json(Box::new(JsonDecoder::new(format, wanted)?)),
            Self::Avro(format, schema) => {
                Values::Avro(Box::new(AvroDecoder::new(format, schema, wanted)?))
            }
            Self::Protobuf(format, schema) => {
                Values::Protobuf(Box::new(ProtobufDecoder::new(format, schema, wanted)?))
            }
            Self::Debezium(events) => Values::Debezium(Box::new(events.decoder(wanted)?)),
            Self::ArrowIpc(fields, found) => {
                Values::ArrowIpc(IpcDecoder::new(fields, *found, wanted))
            }
        })
    }
}

/// Decodes the values of an output into columns.
#[derive(Debug)]
pub(in crate::columnar) enum Values {
    None,
    /// Columns of nulls; every value is an error.
    Nothing(Fields),
    Json(Box<JsonDecoder>),
    Avro(Box<AvroDecoder>),
    Protobuf(Box<ProtobufDecoder>),
    Debezium(Box<EventDecoder>),
    ArrowIpc(IpcDecoder),
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

impl Values {
    /// Whether a record may yield more rows than one, or none.
    pub(in crate::columnar) const fn is_many_rows(&self) -> bool {
        matches!(self, Self::ArrowIpc(_))
    }

    /// Decodes all values. `bad` is called for those that cannot be decoded, and may end it.
    pub(in crate::columnar) fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        match self {
            Self::None => Ok(Columns::Done(Vec::new())),
            Self::Nothing(fields) => {
                for (row, value) in values.iter().enumerate() {
                    let Some(value) = value else { continue };
                    let detail = match registry::unframe(value) {
                        Err(Fault::Bad(detail)) => detail,
                        _ => "no value has a schema that the registry knows".to_owned(),
                    };
                    bad(row, detail)?;
                }
                let column = |field: &FieldRef| new_null_array(field.data_type(), values.len());
                Ok(Columns::Done(fields.iter().map(column).collect()))
            }
            Self::Json(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Avro(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Protobuf(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Debezium(decoder) => decoder.decode(values, bad),
            Self::ArrowIpc(decoder) => decoder.decode(values, bad),
        }
    }
}

/// Examines the first values to determine their columns.
#[derive(Debug)]
pub(in crate::columnar) enum Probe {
    Json(Box<JsonProbe>),
    Avro(Arc<AvroFormat>),
    Protobuf(Arc<ProtobufFormat>),
    Debezium(Box<EventProbe>),
    ArrowIpc(IpcProbe),
}

/// The result of examining values.
#[derive(Debug)]
pub(in crate::columnar) enum Look {
    /// Not enough yet.
    More,
    /// There were enough, and none has columns.
    Nothing,
    Settled(Settled),
    /// A schema is needed first; then look again.
    Schema(SchemaRequest),
}

impl Probe {
    pub(in crate::columnar) fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        if let Self::Debezium(probe) = self {
            return probe.look(assembled);
        }
        let Some(values) = assembled.filled.column(KafkaColumn::Value) else {
            return Ok(Look::More);
        };
        let values = values.as_binary_view();
        match self {
            Self::Debezium(..) => Ok(Look::More),
            Self::ArrowIpc(probe) => {
                let settled = |fields| Look::Settled(Settled::ArrowIpc(fields, true));
                Ok(probe.look(values).map_or(Look::More, settled))
            }
            Self::Json(probe) => Ok(probe.look(values)),
            Self::Avro(format) => {
                let Some(source) = &format.source else { return Ok(Look::More) };
                let settle = |registered: &Registered, _rest: &[u8]| {
                    AvroSchema::of_registered(registered)
                        .map(|schema| Settled::Avro(Arc::clone(format), schema))
                };
                let wanted = match &format.schema {
                    ReaderSchema::Latest(subject) => Wanted::Latest(subject.as_deref()),
                    _ => Wanted::First,
                };
                ask(source.as_ref(), wanted, assembled, values, settle)
            }
            Self::Protobuf(format) => {
                let Some(source) = &format.source else { return Ok(Look::More) };
                let wanted = match &format.schema {
                    ReaderSchema::Latest(subject) => Wanted::Latest(subject.as_deref()),
                    _ => Wanted::First,
                };
                let settle = |registered: &Registered, rest: &[u8]| {
                    let message = format.message.as_deref();
                    ProtobufSchema::of_value(registered, message, rest)
                        .map(|schema| Settled::Protobuf(Arc::clone(format), schema))
                };
                ask(source.as_ref(), wanted, assembled, values, settle)
            }
        }
    }

    /// Sets what to do with values that cannot be decoded.
    pub(in crate::columnar) fn expect(&mut self, on_error: OnError) {
        match self {
            Self::Json(probe) => probe.expect(on_error == OnError::Raise),
            Self::Debezium(probe) => probe.expect(on_error),
            Self::Avro(_) | Self::Protobuf(_) | Self::ArrowIpc(_) => {}
        }
    }

    /// The format of records while none reveals the columns of values; requested columns are null
    /// then.
    pub(in crate::columnar) fn unsettled(&self, named: Fields) -> Settled {
        match self {
            // Determines which values are invalid.
            Self::ArrowIpc(_) => Settled::ArrowIpc(named, false),
            Self::Json(probe) => Settled::Json(probe.named(named)),
            // A value without `op` is not an event, which is known without the row's columns.
            Self::Debezium(probe) => probe.unsettled(named),
            Self::Avro(_) | Self::Protobuf(_) => Settled::Nothing(named),
        }
    }

    /// What is known when there are no more values; none if that is not enough for columns.
    pub(in crate::columnar) fn give_up(&self) -> Option<Settled> {
        match self {
            Self::Debezium(probe) => probe.give_up(),
            Self::Json(probe) => probe.found(),
            Self::ArrowIpc(probe) => probe.found().map(|fields| Settled::ArrowIpc(fields, true)),
            Self::Avro(_) | Self::Protobuf(_) => None,
        }
    }
}

/// Which schema of the registry the columns come from.
enum Wanted<'a> {
    First,
    /// With the subject; none means that of the topic's values.
    Latest(Option<&'a str>),
}

/// Finds the schema of the columns: the latest of a subject, or that of the first value that has
/// one.
fn ask(
    source: &dyn SchemaSource,
    wanted: Wanted<'_>,
    assembled: &Assembled,
    values: &BinaryViewArray,
    settle: impl Fn(&Registered, &[u8]) -> Result<Settled, String>,
) -> Result<Look> {
    if let Wanted::Latest(subject) = wanted {
        let topic = assembled.origins.first().map_or("", |(partition, _)| &*partition.topic);
        let subject = subject.map_or_else(|| registry::subject_of(topic), str::to_owned);
        return match source.latest(&subject) {
            None => Ok(Look::Schema(SchemaRequest::Latest(subject))),
            Some(known) => known
                .and_then(|registered| settle(&registered, &[]))
                .map(Look::Settled)
                .map_err(|detail| Error::invalid(format!("subject {subject:?}: {detail}"))),
        };
    }
    let mut last = None;
    for value in values.iter().flatten() {
        let Ok((id, rest)) = registry::unframe(value) else { continue };
        if last.replace(id) == Some(id) {
            continue;
        }
        match source.known(id) {
            None => return Ok(Look::Schema(SchemaRequest::Id(id))),
            Some(Ok(registered)) => {
                return settle(&registered, rest).map(Look::Settled).map_err(Error::invalid);
            }
            // Records without a schema are left to `on_error`.
            Some(Err(_)) => {}
        }
    }
    Ok(Look::More)
}
