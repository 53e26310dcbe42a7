//! Value formats: how the bytes of a value become columns, and how a decoder finds out which.
//!
//! ```text
//! ValueFormat ──► Settled (columns are known) ──► Values (decodes rows of the wanted columns)
//!        └──────► Probe (looks at the first values, or asks a registry) ──┘
//! ```

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray};
use arrow::datatypes::Fields;

use super::assemble::Assembled;
use super::avro::{AvroDecoder, AvroFormat, AvroSchema, ReaderSchema};
use super::columns::KafkaColumn;
use super::json::{Inference, JsonDecoder, all_nullable};
use super::registry::{self, Fault, Registered, SchemaRequest, SchemaSource};
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
            Self::Json { fields, .. } => fields.is_some(),
            Self::Avro(format) => matches!(format.schema, ReaderSchema::Given(_)),
        }
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
            other => Ok(other),
        }
    }

    /// Where the schemas of values come from.
    pub(super) fn source(&self) -> Option<&Arc<dyn SchemaSource>> {
        match self {
            Self::Avro(format) => format.source.as_ref(),
            Self::Raw | Self::Text | Self::Json { .. } => None,
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
        }
    }

    /// The columns of decoded values; none where `value` is one column.
    pub(super) fn fields(&self) -> Result<Option<Fields>> {
        Ok(match self {
            Self::Whole { .. } => None,
            Self::Nothing => Some(Fields::empty()),
            Self::Json(fields) => Some(fields.clone()),
            Self::Avro(_, schema) => Some(schema.fields()?),
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
        })
    }
}

/// Decodes the values of an output into columns.
#[derive(Debug)]
pub(super) enum Values {
    None,
    Json(Box<JsonDecoder>),
    Avro(Box<AvroDecoder>),
}

/// What one value at a time is decoded with.
trait RowDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault>;
    fn push_null(&mut self);
    fn reserve(&mut self, rows: usize);
    fn finish(&mut self) -> Result<Vec<ArrayRef>>;
}

impl RowDecoder for JsonDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        Self::push(self, value).map_err(Fault::Bad)
    }

    fn push_null(&mut self) {
        Self::push_null(self);
    }

    fn reserve(&mut self, rows: usize) {
        Self::reserve(self, rows);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        Self::finish(self)
    }
}

impl RowDecoder for AvroDecoder {
    fn push(&mut self, value: &[u8]) -> Result<(), Fault> {
        Self::push(self, value)
    }

    fn push_null(&mut self) {
        Self::push_null(self);
    }

    fn reserve(&mut self, rows: usize) {
        Self::reserve(self, rows);
    }

    fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        Self::finish(self)
    }
}

/// The columns of an output's values, or what is needed first.
#[derive(Debug)]
pub(super) enum Columns {
    Done(Vec<ArrayRef>),
    Schema(SchemaRequest),
}

impl Values {
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
        }
    }
}

fn decode_rows(
    decoder: &mut impl RowDecoder,
    values: &BinaryViewArray,
    bad: &mut dyn FnMut(usize, String) -> Result<()>,
) -> Result<Columns> {
    decoder.reserve(values.len());
    for (row, value) in values.iter().enumerate() {
        let Some(value) = value else {
            decoder.push_null();
            continue;
        };
        match decoder.push(value) {
            Ok(()) => {}
            Err(Fault::Schema(request)) => {
                decoder.finish()?;
                return Ok(Columns::Schema(request));
            }
            Err(Fault::Bad(detail)) => {
                if let Err(error) = bad(row, detail) {
                    decoder.finish()?;
                    return Err(error);
                }
                decoder.push_null();
            }
        }
    }
    decoder.finish().map(Columns::Done)
}

/// Looks at the first values to find out which columns they have.
#[derive(Debug)]
pub(super) enum Probe {
    Json { inference: Box<Inference>, seen: usize, wanted: usize },
    Avro(Arc<AvroFormat>),
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
        let Some(values) = assembled.filled.column(KafkaColumn::Value) else {
            return Ok(Look::More);
        };
        let values = values.as_binary_view();
        match self {
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
                let settle = |registered: &Registered| {
                    AvroSchema::of_registered(registered)
                        .map(|schema| Settled::Avro(Arc::clone(format), schema))
                };
                ask(source.as_ref(), format, assembled, values, settle)
            }
        }
    }

    /// What is known when no more values come; none where that is not enough for columns.
    pub(super) fn give_up(&self) -> Option<Settled> {
        match self {
            Self::Json { inference, .. } => Some(Settled::Json(inference.fields())),
            Self::Avro(_) => None,
        }
    }
}

/// Finds the schema of the columns: the latest of a subject, or that of the first value with one.
fn ask(
    source: &dyn SchemaSource,
    format: &AvroFormat,
    assembled: &Assembled,
    values: &BinaryViewArray,
    settle: impl Fn(&Registered) -> Result<Settled, String>,
) -> Result<Look> {
    if let ReaderSchema::Latest(subject) = &format.schema {
        let topic = assembled.origins.first().map_or("", |(partition, _)| &*partition.topic);
        let subject = subject.clone().unwrap_or_else(|| registry::subject_of(topic));
        return match source.latest(&subject) {
            None => Ok(Look::Schema(SchemaRequest::Latest(subject))),
            Some(known) => known
                .and_then(|registered| settle(&registered))
                .map(Look::Settled)
                .map_err(|detail| Error::invalid(format!("subject {subject:?}: {detail}"))),
        };
    }
    let mut last = None;
    for value in values.iter().flatten() {
        let Ok((id, _)) = registry::unframe(value) else { continue };
        if last.replace(id) == Some(id) {
            continue;
        }
        match source.known(id) {
            None => return Ok(Look::Schema(SchemaRequest::Id(id))),
            Some(Ok(registered)) => {
                return settle(&registered).map(Look::Settled).map_err(Error::invalid);
            }
            // Records without a schema are for `on_error` to decide upon.
            Some(Err(_)) => {}
        }
    }
    Ok(Look::More)
}
