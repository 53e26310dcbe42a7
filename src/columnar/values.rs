//! Value formats: how the bytes of a value become columns, and how a decoder finds out which.
//!
//! ```text
//! ValueFormat ──► Settled (columns are known) ──► Values (decodes rows of the wanted columns)
//!        └──────► Probe (looks at the first values, or asks a registry) ──┘
//! ```

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BinaryViewArray};
use arrow::datatypes::Fields;

use super::assemble::Assembled;
use super::avro::{AvroDecoder, AvroFormat, AvroSchema, ReaderSchema};
use super::columns::KafkaColumn;
use super::debezium::{DebeziumFormat, EventDecoder, Events};
use super::ipc::{IpcDecoder, fields_of};
use super::json::{Inference, JsonDecoder, all_nullable};
use super::protobuf::{ProtobufDecoder, ProtobufFormat, ProtobufReader, ProtobufSchema};
use super::registry::{self, Registered, SchemaRequest, SchemaSource};
use super::rows::decode_rows;
use crate::error::{Error, Result};

/// How the bytes of a value become columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ValueFormat {
    /// One column `value` of bytes, as they are.
    #[default]
    Raw,
    /// One column `value` of text; bytes that are not UTF-8 are errors.
    Text,
    /// A column for each field of a JSON object; see [`super::json`].
    Json {
        /// The fields; found from the first values when none.
        fields: Option<Fields>,
        /// How many values are looked at to find the fields.
        infer: usize,
    },
    /// A column for each field of an Avro record; see [`super::avro`].
    Avro(Arc<AvroFormat>),
    /// A column for each field of a Protobuf message; see [`super::protobuf`].
    Protobuf(Arc<ProtobufFormat>),
    /// The columns of change events; see [`super::debezium`].
    Debezium(Arc<DebeziumFormat>),
    /// The columns of Arrow IPC streams, of which each gives any number of rows; those of the first
    /// value when none. See [`super::ipc`].
    ArrowIpc(Option<Fields>),
}

impl ValueFormat {
    /// JSON whose fields are found from the first 1,000 values.
    #[must_use]
    pub const fn json_inferred() -> Self {
        Self::Json { fields: None, infer: 1000 }
    }

    /// Values without columns: nothing is known of them, and nothing is shown.
    #[must_use]
    pub fn without_columns() -> Self {
        Self::Json { fields: Some(Fields::empty()), infer: 1 }
    }

    /// Whether the columns are known without a look at values.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self {
            Self::Raw | Self::Text => true,
            Self::Json { fields, .. } | Self::ArrowIpc(fields) => fields.is_some(),
            Self::Avro(format) => matches!(format.schema, ReaderSchema::Given(_)),
            Self::Protobuf(format) => matches!(format.schema, ProtobufReader::Given(_)),
            Self::Debezium(format) => format.inner.is_settled(),
        }
    }

    /// Whether a record may give more rows than one, or none.
    #[must_use]
    pub const fn is_many_rows(&self) -> bool {
        matches!(self, Self::ArrowIpc(_))
    }

    /// Asks the registry for the latest schema of a topic's values, where the columns come from
    /// there; may block. Columns that are found from values stay unknown.
    ///
    /// # Errors
    /// The registry could not be asked, or has no such schema.
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
                let (ProtobufReader::Latest(subject), Some(source)) =
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
                Ok(Self::Debezium(Arc::new(DebeziumFormat { inner, unwrap: format.unwrap })))
            }
            other => Ok(other),
        }
    }

    /// Where the schemas of values come from.
    pub(super) fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        match self {
            Self::Avro(format) => format.source.as_ref(),
            Self::Protobuf(format) => format.source.as_ref(),
            Self::Debezium(format) => format.inner.source(),
            Self::Raw | Self::Text | Self::Json { .. } | Self::ArrowIpc(_) => None,
        }
    }

    /// What is known without a look at values; a probe where that is not enough.
    pub(super) fn settle(&self) -> Result<Result<Settled, Probe>> {
        Ok(match self {
            Self::Raw => Ok(Settled::Whole { text: false }),
            Self::Text => Ok(Settled::Whole { text: true }),
            Self::Json { fields: Some(fields), .. } => Ok(Settled::Json(all_nullable(fields))),
            Self::Json { fields: None, infer } => {
                Err(Probe::Json { inference: Box::default(), seen: 0, wanted: (*infer).max(1) })
            }
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
                ProtobufReader::Given(schema) => {
                    Ok(Settled::Protobuf(Arc::clone(format), schema.clone()))
                }
                _ if format.source.is_none() || !format.framed => {
                    return Err(Error::invalid(
                        "Protobuf values need a schema, or a schema registry to ask for it",
                    ));
                }
                ProtobufReader::First | ProtobufReader::Latest(_) => {
                    Err(Probe::Protobuf(Arc::clone(format)))
                }
            },
            Self::ArrowIpc(Some(fields)) => Ok(Settled::ArrowIpc(fields.clone())),
            Self::ArrowIpc(None) => Err(Probe::ArrowIpc),
            Self::Debezium(format) => match format.inner.settle()? {
                Ok(inner) => Ok(Settled::Debezium(Events::new(inner, format.unwrap)?)),
                Err(inner) => Err(Probe::Debezium(Box::new(inner), format.unwrap)),
            },
        })
    }
}

/// A format whose columns are known.
#[derive(Clone, Debug)]
pub(super) enum Settled {
    /// One column of all the bytes.
    Whole {
        text: bool,
    },
    /// No value was there to find columns from.
    Nothing,
    Json(Fields),
    Avro(Arc<AvroFormat>, AvroSchema),
    Protobuf(Arc<ProtobufFormat>, ProtobufSchema),
    Debezium(Events),
    ArrowIpc(Fields),
}

impl Settled {
    pub(super) const fn is_text(&self) -> bool {
        matches!(self, Self::Whole { text: true })
    }

    /// The format with these columns.
    pub(super) fn format(&self) -> ValueFormat {
        match self {
            Self::Whole { text: true } => ValueFormat::Text,
            Self::Whole { text: false } => ValueFormat::Raw,
            Self::Nothing => ValueFormat::without_columns(),
            Self::Json(fields) => ValueFormat::Json { fields: Some(fields.clone()), infer: 1 },
            Self::Avro(format, schema) => ValueFormat::Avro(Arc::new(AvroFormat {
                schema: ReaderSchema::Given(schema.clone()),
                ..AvroFormat::clone(format)
            })),
            Self::Protobuf(format, schema) => ValueFormat::Protobuf(Arc::new(ProtobufFormat {
                schema: ProtobufReader::Given(schema.clone()),
                ..ProtobufFormat::clone(format)
            })),
            Self::Debezium(events) => events.format(),
            Self::ArrowIpc(fields) => ValueFormat::ArrowIpc(Some(fields.clone())),
        }
    }

    /// The columns of decoded values; none where `value` is one column.
    pub(super) fn fields(&self) -> Result<Option<Fields>> {
        Ok(match self {
            Self::Whole { .. } => None,
            Self::Nothing => Some(Fields::empty()),
            Self::Json(fields) => Some(fields.clone()),
            Self::Avro(_, schema) => Some(schema.fields()?),
            Self::Protobuf(format, schema) => Some(schema.fields(format.time_unit)),
            Self::Debezium(events) => Some(events.fields()),
            Self::ArrowIpc(fields) => Some(all_nullable(fields)),
        })
    }

    /// A decoder for some of the columns.
    pub(super) fn decoder(&self, wanted: &[usize]) -> Result<Values> {
        Ok(match self {
            Self::Whole { .. } | Self::Nothing => Values::None,
            Self::Json(fields) => {
                let fields: Fields =
                    wanted.iter().filter_map(|&index| fields.get(index).cloned()).collect();
                Values::Json(Box::new(JsonDecoder::new(&fields)?))
            }
            Self::Avro(format, schema) => {
                Values::Avro(Box::new(AvroDecoder::new(format, schema, wanted)?))
            }
            Self::Protobuf(format, schema) => {
                Values::Protobuf(Box::new(ProtobufDecoder::new(format, schema, wanted)?))
            }
            Self::Debezium(events) => Values::Debezium(Box::new(events.decoder(wanted)?)),
            Self::ArrowIpc(fields) => {
                let fields = wanted.iter().filter_map(|&index| fields.get(index).cloned());
                Values::ArrowIpc(IpcDecoder::new(all_nullable(&fields.collect())))
            }
        })
    }
}

/// Decodes the values of an output into columns.
#[derive(Debug)]
pub(super) enum Values {
    None,
    Json(Box<JsonDecoder>),
    Avro(Box<AvroDecoder>),
    Protobuf(Box<ProtobufDecoder>),
    Debezium(Box<EventDecoder>),
    ArrowIpc(IpcDecoder),
}

/// The columns of an output's values, or what is needed first.
#[derive(Debug)]
pub(super) enum Columns {
    Done(Vec<ArrayRef>),
    /// Where rows and records are not one to one.
    Many {
        columns: Vec<ArrayRef>,
        /// The record of each row.
        records: Vec<u32>,
        /// The records that were decoded; the others are for outputs of their own.
        done: usize,
    },
    Schema(SchemaRequest),
}

impl Values {
    /// Whether a record may give more rows than one, or none.
    pub(super) const fn is_many_rows(&self) -> bool {
        matches!(self, Self::ArrowIpc(_))
    }

    /// Decodes all values. `bad` is told of those that do not decode, and may end it.
    pub(super) fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        match self {
            Self::None => Ok(Columns::Done(Vec::new())),
            Self::Json(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Avro(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Protobuf(decoder) => decode_rows(decoder.as_mut(), values, bad),
            Self::Debezium(decoder) => decoder.decode(values, bad),
            Self::ArrowIpc(decoder) => decoder.decode(values, bad),
        }
    }
}

/// Looks at the first values to find out which columns they have.
#[derive(Debug)]
pub(super) enum Probe {
    Json {
        inference: Box<Inference>,
        seen: usize,
        wanted: usize,
    },
    Avro(Arc<AvroFormat>),
    Protobuf(Arc<ProtobufFormat>),
    /// The inner format of events, and whether they are unwrapped.
    Debezium(Box<Probe>, bool),
    ArrowIpc,
}

/// What a look at values told.
#[derive(Debug)]
pub(super) enum Look {
    /// Not enough yet.
    More,
    Settled(Settled),
    /// A schema is needed first; then look again.
    Schema(SchemaRequest),
}

impl Probe {
    pub(super) fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        if let Self::Debezium(inner, unwrap) = self {
            return Ok(match inner.look(assembled)? {
                Look::Settled(inner) => {
                    Look::Settled(Settled::Debezium(Events::new(inner, *unwrap)?))
                }
                other => other,
            });
        }
        let Some(values) = assembled.filled.column(KafkaColumn::Value) else {
            return Ok(Look::More);
        };
        let values = values.as_binary_view();
        match self {
            Self::Debezium(..) => Ok(Look::More),
            Self::ArrowIpc => {
                // Values that are none are for `on_error` to decide upon.
                let mut found = values.iter().flatten().filter_map(|value| fields_of(value).ok());
                Ok(found.next().map_or(Look::More, |one| Look::Settled(Settled::ArrowIpc(one))))
            }
            Self::Json { inference, seen, wanted } => {
                for value in values.iter().flatten().take(wanted.saturating_sub(*seen)) {
                    inference.add(value);
                    *seen = seen.saturating_add(1);
                }
                if *seen < *wanted {
                    return Ok(Look::More);
                }
                Ok(Look::Settled(Settled::Json(inference.fields())))
            }
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
                    ProtobufReader::Latest(subject) => Wanted::Latest(subject.as_deref()),
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

    /// The format of records while none tells the columns of values.
    pub(super) fn unsettled(&self) -> Settled {
        match self {
            // Finds out which values are none.
            Self::ArrowIpc => Settled::ArrowIpc(Fields::empty()),
            _ => Settled::Nothing,
        }
    }

    /// What is known when no more values come; none where that is not enough for columns.
    pub(super) fn give_up(&self) -> Option<Settled> {
        match self {
            Self::Debezium(inner, unwrap) => inner
                .give_up()
                .and_then(|inner| Events::new(inner, *unwrap).ok())
                .map(Settled::Debezium),
            Self::Json { inference, .. } => Some(Settled::Json(inference.fields())),
            Self::Avro(_) | Self::Protobuf(_) | Self::ArrowIpc => None,
        }
    }
}

/// Which schema of the registry the columns come from.
enum Wanted<'a> {
    First,
    /// With the subject; that of the topic's values when none.
    Latest(Option<&'a str>),
}

/// Finds the schema of the columns: the latest of a subject, or that of the first value with one.
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
            // Records without a schema are for `on_error` to decide upon.
            Some(Err(_)) => {}
        }
    }
    Ok(Look::More)
}
