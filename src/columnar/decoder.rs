//! The decoder that scans and consumers use: chunks of batches in, Arrow record batches out.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, Int64Array, StringViewBuilder};
use arrow::datatypes::{Fields, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::assemble::{Assembled, Assembler, Chunk, PartitionProgress};
use super::columns::{KafkaColumn, Projection};
use super::decode::text_column;
use super::json::{Inference, JsonDecoder, all_nullable};
use super::layout::{Layout, Origin, Shape};
use super::rejected::{REJECTED_COLUMNS, Rejected, Source, set_aside};
use crate::error::{Error, Result};
use crate::types::{Offset, TopicPartition};

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
}

impl ValueFormat {
    /// JSON whose fields are found from the first 1,000 values.
    #[must_use]
    pub const fn json_inferred() -> Self {
        Self::Json { fields: None, infer: 1000 }
    }
}

/// How the bytes of a key become a column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyFormat {
    /// Bytes, as they are.
    #[default]
    Raw,
    /// Text; bytes that are not UTF-8 are errors.
    Text,
}

/// What becomes of a key or value that does not decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The decode fails with an error that names the partition and the offset.
    #[default]
    Raise,
    /// The row's columns of the value are null.
    Null,
    /// As `Null`, and the column `error` says why while `value_raw` keeps the bytes.
    Column,
    /// The row is left out; the record comes in [`Decoded::rejected`], complete.
    SetAside,
}

/// What a [`Decoder`] makes.
#[derive(Clone, Debug)]
pub struct DecodeOptions {
    /// The columns by name, in this order; all when none. See [`super::layout`].
    pub columns: Option<Vec<String>>,
    /// The rows of an output.
    pub max_rows: usize,
    /// The most bytes that one batch may have uncompressed.
    pub decompressed_size_max: usize,
    /// The format of keys.
    pub key: KeyFormat,
    /// The format of values.
    pub value: ValueFormat,
    /// What becomes of those that do not decode.
    pub on_error: OnError,
    /// Whether text and bytes are view types; plain utf8 and binary otherwise, at a copy.
    pub views: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            columns: None,
            max_rows: 10_000,
            decompressed_size_max: 256 << 20,
            key: KeyFormat::Raw,
            value: ValueFormat::Raw,
            on_error: OnError::Raise,
            views: true,
        }
    }
}

/// One output.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The rows; their schema is [`Decoder::schema`].
    pub rows: RecordBatch,
    /// How far each partition was read by it, in the order of first rows.
    pub progress: Vec<PartitionProgress>,
    /// The records that did not decode, under [`OnError::SetAside`].
    pub rejected: Vec<Rejected>,
}

impl Decoded {
    /// Whether there is anything for a reader: rows, or records that were set aside.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.rows.num_rows() > 0 || !self.rejected.is_empty()
    }
}

/// Turns chunks of batches into Arrow record batches.
#[derive(Debug)]
pub struct Decoder {
    options: DecodeOptions,
    assembler: Assembler,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// The fields are not known yet; outputs wait until enough values were seen.
    Inferring {
        inference: Inference,
        seen: usize,
        wanted: usize,
        waiting: VecDeque<Assembled>,
    },
    Ready {
        output: Box<Output>,
        waiting: VecDeque<Assembled>,
    },
}

impl Decoder {
    /// A decoder without chunks.
    ///
    /// # Errors
    /// An invalid argument for columns that do not exist or types that are not decoded to.
    pub fn new(options: DecodeOptions) -> Result<Self> {
        let (stage, projection) = match &options.value {
            ValueFormat::Json { fields: None, infer } => {
                let stage = Stage::Inferring {
                    inference: Inference::default(),
                    seen: 0,
                    wanted: (*infer).max(1),
                    waiting: VecDeque::new(),
                };
                // Columns cannot be told from fields yet.
                (stage, Projection::ALL)
            }
            ValueFormat::Json { fields: Some(fields), .. } => {
                let output = Output::new(&options, Some(&all_nullable(fields)))?;
                let projection = output.projection();
                (Stage::Ready { output: Box::new(output), waiting: VecDeque::new() }, projection)
            }
            ValueFormat::Raw | ValueFormat::Text => {
                let output = Output::new(&options, None)?;
                let projection = output.projection();
                (Stage::Ready { output: Box::new(output), waiting: VecDeque::new() }, projection)
            }
        };
        let assembler = Assembler::new(projection, options.max_rows, options.decompressed_size_max);
        Ok(Self { options, assembler, stage })
    }

    /// The schema of the outputs; none while the fields of JSON values are being found.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.stage {
            Stage::Inferring { .. } => None,
            Stage::Ready { output, .. } => Some(Arc::clone(output.layout.schema())),
        }
    }

    /// Adds bytes to be decoded, behind those before.
    pub fn push(&mut self, chunk: Chunk) {
        self.assembler.push(chunk);
    }

    /// The bytes of chunks that were not read yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.assembler.pending_bytes()
    }

    /// The next full output; with `finish`, also one that is not full. None: push more.
    ///
    /// With `finish`, an output may have no rows but progress, where all records were left out.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` or `INVALID_RECORD` for damaged batches, naming partition and offset;
    /// [`Error::Decode`] for values that do not decode, under [`OnError::Raise`].
    pub fn next(&mut self, finish: bool) -> Result<Option<Decoded>> {
        self.infer(finish)?;
        let Stage::Ready { output, waiting } = &mut self.stage else { return Ok(None) };
        let assembled = match waiting.pop_front() {
            Some(assembled) => Some(assembled),
            None => self.assembler.next(finish)?,
        };
        assembled.map(|assembled| output.make(assembled)).transpose()
    }

    /// Looks at values until enough were seen, then settles the schema.
    fn infer(&mut self, finish: bool) -> Result<()> {
        let Stage::Inferring { inference, seen, wanted, waiting } = &mut self.stage else {
            return Ok(());
        };
        while *seen < *wanted {
            let Some(assembled) = self.assembler.next(finish)? else { break };
            if let Some(values) = assembled.filled.column(KafkaColumn::Value) {
                let left = wanted.saturating_sub(*seen);
                for value in values.as_binary_view().iter().flatten().take(left) {
                    inference.add(value);
                    *seen = seen.saturating_add(1);
                }
            }
            waiting.push_back(assembled);
        }
        if *seen < *wanted && !finish {
            return Ok(());
        }
        let fields = inference.fields();
        let output = Output::new(&self.options, Some(&fields))?;
        self.assembler.set_projection(output.projection());
        let waiting = std::mem::take(waiting);
        self.stage = Stage::Ready { output: Box::new(output), waiting };
        Ok(())
    }
}

/// From filled Kafka columns to an output.
#[derive(Debug)]
struct Output {
    layout: Layout,
    json: Option<JsonOutput>,
    text_key: bool,
    text_value: bool,
    on_error: OnError,
}

#[derive(Debug)]
struct JsonOutput {
    decoder: JsonDecoder,
    /// The position of each decoded field among all fields.
    indices: Vec<usize>,
}

impl Output {
    fn new(options: &DecodeOptions, fields: Option<&Fields>) -> Result<Self> {
        let text_key = options.key == KeyFormat::Text;
        let text_value = options.value == ValueFormat::Text;
        let decodes = fields.is_some() || text_value;
        let shape = Shape {
            fields,
            text_key,
            text_value,
            error_column: options.on_error == OnError::Column && (decodes || text_key),
            plain: !options.views,
        };
        let layout = Layout::new(&shape, options.columns.as_deref())?;
        let json = match fields {
            Some(fields) => {
                let indices = layout.fields();
                let wanted: Fields =
                    indices.iter().filter_map(|&index| fields.get(index).cloned()).collect();
                Some(JsonOutput { decoder: JsonDecoder::new(&wanted)?, indices })
            }
            None => None,
        };
        Ok(Self { layout, json, text_key, text_value, on_error: options.on_error })
    }

    /// The Kafka columns that decoding needs, shown or not.
    fn projection(&self) -> Projection {
        let mut projection = self.layout.projection();
        let json = self.json.as_ref().is_some_and(|json| !json.indices.is_empty());
        if json {
            projection = projection.with(KafkaColumn::Value);
        }
        if json || self.text_key || self.text_value {
            // Errors name it.
            projection = projection.with(KafkaColumn::Offset);
            if self.on_error == OnError::SetAside {
                projection = projection.and(REJECTED_COLUMNS);
            }
        }
        projection
    }

    fn make(&mut self, assembled: Assembled) -> Result<Decoded> {
        let rows = assembled.filled.rows;
        let mut errors = RowErrors { on_error: self.on_error, rows: Vec::new() };
        let raw = assembled.filled.column(KafkaColumn::Value).cloned();
        let fields = match &mut self.json {
            Some(json) if !json.indices.is_empty() => {
                json_columns(&mut json.decoder, &assembled, &mut errors)?
            }
            _ => Vec::new(),
        };
        let mut texts = [None, None];
        let wanted = [
            (self.text_key, KafkaColumn::Key, "key"),
            (self.text_value, KafkaColumn::Value, "value"),
        ];
        for (slot, (wanted, column, what)) in texts.iter_mut().zip(wanted) {
            if let Some(bytes) = assembled.filled.column(column).filter(|_| wanted) {
                let bytes = bytes.as_binary_view();
                *slot = Some(checked_text(bytes, what, &assembled, &mut errors)?);
            }
        }
        let [key_text, value_text] = texts;
        let set_aside_rows = errors.take_set_aside();
        let error_column = errors.column(rows);
        let indices = self.json.as_ref().map_or(&[][..], |json| &json.indices);
        let batch = self.layout.assemble(rows, |origin| match origin {
            Origin::Kafka(KafkaColumn::Key) if self.text_key => key_text.clone(),
            Origin::Kafka(KafkaColumn::Value) if self.text_value => value_text.clone(),
            Origin::Kafka(column) => assembled.filled.column(column).cloned(),
            Origin::Field(index) => {
                let at = indices.iter().position(|&known| known == index)?;
                fields.get(at).cloned()
            }
            Origin::Error => Some(Arc::clone(&error_column)),
            Origin::Raw => raw.clone(),
        })?;
        let (batch, rejected) = if set_aside_rows.is_empty() {
            (batch, Vec::new())
        } else {
            let source = Source {
                column: &|kind| assembled.filled.column(kind),
                partition: &|row| locate(&assembled, row).0,
            };
            set_aside(&batch, set_aside_rows, &source)?
        };
        Ok(Decoded { rows: batch, progress: assembled.progress, rejected })
    }
}

/// The rows of an output that did not decode.
struct RowErrors {
    on_error: OnError,
    rows: Vec<(usize, String)>,
}

impl RowErrors {
    #[cold]
    fn add(
        &mut self,
        what: &'static str,
        row: usize,
        detail: String,
        assembled: &Assembled,
    ) -> Result<()> {
        if self.on_error == OnError::Raise {
            let (partition, offset) = locate(assembled, row);
            return Err(Error::Decode { what, partition, offset, detail });
        }
        self.rows.push((row, format!("{what}: {detail}")));
        Ok(())
    }

    /// The rows to leave out, with their errors.
    fn take_set_aside(&mut self) -> Vec<(usize, String)> {
        if self.on_error == OnError::SetAside { std::mem::take(&mut self.rows) } else { Vec::new() }
    }

    fn column(mut self, rows: usize) -> ArrayRef {
        self.rows.sort_by_key(|(row, _)| *row);
        let mut builder = StringViewBuilder::with_capacity(rows);
        let mut errors = self.rows.into_iter().peekable();
        for row in 0..rows {
            let mut text: Option<String> = None;
            while let Some((_, more)) = errors.next_if(|(at, _)| *at == row) {
                text = Some(text.map_or_else(|| more.clone(), |text| format!("{text}; {more}")));
            }
            builder.append_option(text);
        }
        Arc::new(builder.finish())
    }
}

/// The partition and offset of a row.
fn locate(assembled: &Assembled, row: usize) -> (TopicPartition, Offset) {
    let mut left = row;
    let mut found = None;
    for (partition, rows) in &assembled.origins {
        if left < *rows {
            found = Some(partition.clone());
            break;
        }
        left = left.saturating_sub(*rows);
    }
    let offset = assembled
        .filled
        .column(KafkaColumn::Offset)
        .map(AsArray::as_primitive::<Int64Type>)
        .filter(|offsets: &&Int64Array| row < offsets.len())
        .map_or(Offset::UNKNOWN, |offsets| Offset(offsets.value(row)));
    (found.unwrap_or_else(|| TopicPartition::new("", -1)), offset)
}

fn json_columns(
    decoder: &mut JsonDecoder,
    assembled: &Assembled,
    errors: &mut RowErrors,
) -> Result<Vec<ArrayRef>> {
    let Some(values) = assembled.filled.column(KafkaColumn::Value) else { return Ok(Vec::new()) };
    decoder.reserve(values.len());
    for (row, value) in values.as_binary_view().iter().enumerate() {
        let Some(value) = value else {
            decoder.push_null();
            continue;
        };
        if let Err(detail) = decoder.push(value) {
            if let Err(error) = errors.add("value", row, detail, assembled) {
                decoder.finish()?;
                return Err(error);
            }
            decoder.push_null();
        }
    }
    decoder.finish()
}

fn checked_text(
    bytes: &BinaryViewArray,
    what: &'static str,
    assembled: &Assembled,
    errors: &mut RowErrors,
) -> Result<ArrayRef> {
    let (text, bad) = text_column(bytes);
    for row in bad {
        errors.add(what, row, "the bytes are not UTF-8".to_owned(), assembled)?;
    }
    Ok(Arc::new(text))
}
