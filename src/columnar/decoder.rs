//! The decoder that scans and consumers use: chunks of batches in, Arrow record batches out.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::assemble::{Assembled, Assembler, Chunk, PartitionProgress};
use super::columns::{KafkaColumn, Projection};
use super::decode::text_column;
use super::headers::HeaderField;
use super::layout::{Layout, Origin, Shape};
use super::registry::{SchemaRequest, SchemaSource};
use super::rejected::{REJECTED_COLUMNS, Rejected, Source, set_aside};
use super::row_errors::{RowErrors, locate};
use super::values::{Columns, Look, Probe, Settled, ValueFormat, Values};
use crate::error::Result;

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
    /// Headers that are columns of their own.
    pub headers: Vec<HeaderField>,
    /// The rows of an output.
    pub max_rows: usize,
    /// The bytes of records, uncompressed, after which an output is full; at least one record.
    pub max_bytes: usize,
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
    /// Whether [`Decoded::offsets`] is filled.
    pub offsets: bool,
}

impl Default for DecodeOptions {
    fn default() -> Self {
        Self {
            columns: None,
            headers: Vec::new(),
            max_rows: 10_000,
            max_bytes: usize::MAX,
            decompressed_size_max: 256 << 20,
            key: KeyFormat::Raw,
            value: ValueFormat::Raw,
            on_error: OnError::Raise,
            views: true,
            offsets: false,
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
    /// The offset of each row, where the options ask for it: whoever cuts rows off finds the
    /// record to go on with there, since offsets may have gaps.
    pub offsets: Option<Int64Array>,
}

impl Decoded {
    /// Whether there is anything for a reader: rows, or records that were set aside.
    #[must_use]
    pub fn has_records(&self) -> bool {
        self.rows.num_rows() > 0 || !self.rejected.is_empty()
    }
}

/// What a [`Decoder`] came to.
#[derive(Clone, Debug)]
pub enum Step {
    /// An output.
    Output(Decoded),
    /// More chunks are needed.
    Input,
    /// A schema is needed: let [`Decoder::source`] load it.
    Schema(SchemaRequest),
}

/// So many rows may wait for one that tells the columns of values.
const WAITING_ROWS_MAX: usize = 4_000_000;
/// And so many bytes of values.
const WAITING_BYTES_MAX: usize = 256 << 20;

/// Turns chunks of batches into Arrow record batches.
#[derive(Debug)]
pub struct Decoder {
    options: DecodeOptions,
    assembler: Assembler,
    stage: Stage,
    waiting: VecDeque<Assembled>,
}

#[derive(Debug)]
enum Stage {
    /// The columns of values are not known yet; outputs wait until enough values were seen.
    Probing {
        probe: Probe,
        /// How many of those that wait were looked at.
        looked_at: usize,
        /// The bytes of the values that were looked at.
        bytes: usize,
    },
    Ready(Box<Output>),
}

impl Decoder {
    /// A decoder without chunks.
    ///
    /// # Errors
    /// An invalid argument for columns that do not exist or types that are not decoded to.
    pub fn new(options: DecodeOptions) -> Result<Self> {
        let (stage, projection) = match options.value.settle()? {
            Ok(settled) => {
                let output = Output::new(&options, &settled)?;
                let projection = output.projection();
                (Stage::Ready(Box::new(output)), projection)
            }
            // Columns cannot be told from fields yet.
            Err(mut probe) => {
                probe.expect(options.on_error);
                (Stage::Probing { probe, looked_at: 0, bytes: 0 }, Projection::ALL)
            }
        };
        let limits = (options.max_rows, options.max_bytes);
        let assembler = Assembler::new(projection, limits, options.decompressed_size_max);
        Ok(Self { options, assembler, stage, waiting: VecDeque::new() })
    }

    /// Outputs of Arrow IPC streams with less room.
    #[cfg(test)]
    pub(super) fn set_room(&mut self, room: super::ipc::Room) {
        if let Stage::Ready(output) = &mut self.stage
            && let Values::ArrowIpc(decoder) = &mut output.values
        {
            decoder.room = room;
        }
    }

    /// The schema of the outputs; none while the columns of values are being found.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.stage {
            Stage::Probing { .. } => None,
            Stage::Ready(output) => Some(Arc::clone(output.layout.schema())),
        }
    }

    /// The format of values with the columns that were found; none while they are.
    #[must_use]
    pub fn settled(&self) -> Option<&ValueFormat> {
        match &self.stage {
            Stage::Probing { .. } => None,
            Stage::Ready(output) => Some(&output.format),
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

    /// Where the schemas of values come from.
    #[must_use]
    pub fn source(&self) -> Option<Arc<dyn SchemaSource>> {
        self.options.value.source().cloned()
    }

    /// As [`Self::step`], but a schema that is needed is loaded here, which may block. None: push
    /// more.
    ///
    /// # Errors
    /// As [`Self::step`], or the schema could not be loaded.
    pub fn next(&mut self, finish: bool) -> Result<Option<Decoded>> {
        loop {
            match self.step(finish)? {
                Step::Output(decoded) => return Ok(Some(decoded)),
                Step::Input => return Ok(None),
                Step::Schema(request) => {
                    if let Some(source) = self.source() {
                        source.load(&request)?;
                    }
                }
            }
        }
    }

    /// The next full output, or what is needed for it; with `finish`, also an output that is not
    /// full.
    ///
    /// With `finish`, an output may have no rows but progress, where all records were left out.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` or `INVALID_RECORD` for damaged batches, naming partition and offset;
    /// [`Error::Decode`] for values that do not decode, under [`OnError::Raise`].
    pub fn step(&mut self, finish: bool) -> Result<Step> {
        let mut unknown = None;
        match self.probe(finish)? {
            Probed::Ready => {}
            Probed::Input => return Ok(Step::Input),
            Probed::Schema(request) => return Ok(Step::Schema(request)),
            // Rows without the columns of values; those that are no tombstones are errors.
            Probed::Nothing => {
                let Stage::Probing { probe, looked_at, bytes } = &mut self.stage else {
                    return Ok(Step::Input);
                };
                if self.waiting.is_empty() {
                    return Ok(Step::Input);
                }
                *looked_at = looked_at.saturating_sub(1);
                *bytes = 0;
                let settled = probe.unsettled(named_fields(&self.options));
                unknown = Some(Output::new(&self.options, &settled)?);
            }
        }
        let output = match (&mut self.stage, &mut unknown) {
            (Stage::Ready(output), _) => output.as_mut(),
            (Stage::Probing { .. }, Some(output)) => output,
            (Stage::Probing { .. }, None) => return Ok(Step::Input),
        };
        let assembled = match self.waiting.pop_front() {
            Some(assembled) => assembled,
            None => match self.assembler.next(finish)? {
                Some(assembled) => assembled,
                None => return Ok(Step::Input),
            },
        };
        match output.make(&assembled)? {
            Made::Output(made) => {
                let (decoded, rest) = *made;
                if let Some(rest) = rest {
                    self.waiting.push_front(rest);
                    if let Stage::Probing { looked_at, .. } = &mut self.stage {
                        *looked_at = looked_at.saturating_add(1);
                    }
                }
                Ok(Step::Output(decoded))
            }
            Made::Schema(request) => {
                self.waiting.push_front(assembled);
                Ok(Step::Schema(request))
            }
        }
    }

    /// Finds the columns of values without making an output. None: push more, or a schema is needed.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` or `INVALID_RECORD` for damaged batches, naming partition and offset.
    pub fn look(&mut self, finish: bool) -> Result<Looked> {
        Ok(match self.probe(finish)? {
            Probed::Input => Looked::Input,
            Probed::Schema(request) => Looked::Schema(request),
            Probed::Ready | Probed::Nothing => Looked::Done(match &self.stage {
                Stage::Ready(output) => output.format.clone(),
                Stage::Probing { probe, .. } => {
                    probe.unsettled(named_fields(&self.options)).format()
                }
            }),
        })
    }

    /// Looks at values until enough were seen, then settles the schema.
    fn probe(&mut self, finish: bool) -> Result<Probed> {
        let Stage::Probing { probe, looked_at, bytes } = &mut self.stage else {
            return Ok(Probed::Ready);
        };
        let settled = loop {
            let Some(assembled) = self.waiting.get(*looked_at) else {
                match self.assembler.next(finish)? {
                    Some(assembled) => self.waiting.push_back(assembled),
                    None if finish => break probe.give_up(),
                    None => return Ok(Probed::Input),
                }
                continue;
            };
            let look = probe.look(assembled)?;
            match look {
                Look::Settled(settled) => break Some(settled),
                Look::Schema(request) => return Ok(Probed::Schema(request)),
                Look::More | Look::Nothing => {
                    *looked_at = looked_at.saturating_add(1);
                    *bytes = bytes.saturating_add(assembled.value_bytes());
                }
            }
            if matches!(look, Look::Nothing) {
                break None;
            }
            let rows: usize = self.waiting.iter().map(|waiting| waiting.filled.rows).sum();
            if rows > WAITING_ROWS_MAX || *bytes > WAITING_BYTES_MAX {
                break probe.give_up();
            }
        };
        let Some(settled) = settled else { return Ok(Probed::Nothing) };
        let output = Output::new(&self.options, &settled)?;
        self.assembler.set_projection(output.projection());
        self.stage = Stage::Ready(Box::new(output));
        Ok(Probed::Ready)
    }
}

/// What [`Decoder::look`] came to.
#[derive(Clone, Debug)]
pub enum Looked {
    /// The format of values with its columns.
    Done(ValueFormat),
    /// More chunks are needed.
    Input,
    /// A schema is needed: let [`Decoder::source`] load it.
    Schema(SchemaRequest),
}

/// How far the columns of values are known.
enum Probed {
    Ready,
    /// More chunks are needed.
    Input,
    Schema(SchemaRequest),
    /// Nothing tells them, and rows must not wait any longer.
    Nothing,
}

/// The columns that are asked for by a name that may be one of a field, while fields are not known.
fn named_fields(options: &DecodeOptions) -> Fields {
    let is_other = |name: &str| {
        super::layout::is_reserved(name) || options.headers.iter().any(|one| one.column == name)
    };
    let names = options.columns.iter().flatten().filter(|name| !is_other(name));
    names.map(|name| Field::new(name, DataType::Utf8View, true)).collect()
}

/// From filled Kafka columns to an output.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says what is done with one column")]
struct Output {
    layout: Layout,
    format: ValueFormat,
    headers: Vec<HeaderField>,
    values: Values,
    /// The position of each decoded field among all fields.
    indices: Vec<usize>,
    /// Whether values are decoded.
    decodes: bool,
    text_key: bool,
    text_value: bool,
    on_error: OnError,
    offsets: bool,
}

enum Made {
    /// With the records that it had no room for.
    Output(Box<(Decoded, Option<Assembled>)>),
    Schema(SchemaRequest),
}

impl Output {
    fn new(options: &DecodeOptions, settled: &Settled) -> Result<Self> {
        let text_key = options.key == KeyFormat::Text;
        let text_value = settled.is_text();
        let fields = settled.fields()?;
        let may_fail = fields.is_some()
            || text_value
            || text_key
            || options.headers.iter().any(|header| header.text);
        let shape = Shape {
            fields: fields.as_ref(),
            headers: &options.headers,
            text_key,
            text_value,
            error_column: options.on_error == OnError::Column && may_fail,
            plain: !options.views,
        };
        let layout = Layout::new(&shape, options.columns.as_deref())?;
        let mut indices = layout.fields();
        let shows_errors = layout.shows(Origin::Error);
        if shows_errors && indices.is_empty() {
            // Errors of no column in particular are those of all.
            indices = (0..fields.as_ref().map_or(0, |fields| fields.len())).collect();
        }
        let values = settled.decoder(&indices)?;
        let judges = settled.is_unknown() && (options.columns.is_none() || shows_errors);
        let decodes = !indices.is_empty() || values.is_many_rows() || judges;
        Ok(Self {
            layout,
            format: settled.format(),
            headers: options.headers.clone(),
            values,
            indices,
            decodes,
            text_key,
            text_value,
            on_error: options.on_error,
            offsets: options.offsets,
        })
    }

    /// The Kafka columns that decoding needs, shown or not.
    fn projection(&self) -> Projection {
        let mut projection = self.layout.projection();
        if self.offsets {
            projection = projection.with(KafkaColumn::Offset);
        }
        let decodes = self.decodes;
        if decodes {
            projection = projection.with(KafkaColumn::Value);
        }
        if decodes || self.text_key || self.text_value || self.headers.iter().any(|one| one.text) {
            // Errors name it.
            projection = projection.with(KafkaColumn::Offset);
            if self.on_error == OnError::SetAside {
                projection = projection.and(REJECTED_COLUMNS);
            }
        }
        projection
    }

    fn make(&mut self, assembled: &Assembled) -> Result<Made> {
        let mut errors = RowErrors::new(self.on_error);
        let raw = assembled.filled.column(KafkaColumn::Value);
        let decodes = self.decodes;
        let (mut repeated, mut rest) = (None, None);
        let mut assembled = assembled;
        let fields = match raw.filter(|_| decodes) {
            Some(raw) => {
                let mut bad = |row, detail| errors.add("value", row, detail, assembled);
                match self.values.decode(raw.as_binary_view(), &mut bad)? {
                    Columns::Done(fields) => fields,
                    Columns::Many { columns, records, done } => {
                        errors.move_to(&records);
                        let mut taken = assembled.taken(&records)?;
                        if done < assembled.filled.rows {
                            let behind;
                            (taken.progress, behind) = assembled.split(done)?;
                            rest = Some(behind);
                        }
                        assembled = repeated.insert(taken);
                        columns
                    }
                    Columns::Schema(request) => return Ok(Made::Schema(request)),
                }
            }
            None => Vec::new(),
        };
        let raw = assembled.filled.column(KafkaColumn::Value);
        let rows = assembled.filled.rows;
        let mut texts = [None, None];
        let wanted = [
            (self.text_key, KafkaColumn::Key, "key"),
            (self.text_value, KafkaColumn::Value, "value"),
        ];
        for (slot, (wanted, column, what)) in texts.iter_mut().zip(wanted) {
            if let Some(bytes) = assembled.filled.column(column).filter(|_| wanted) {
                let bytes = bytes.as_binary_view();
                *slot = Some(checked_text(bytes, what, assembled, &mut errors)?);
            }
        }
        let [key_text, value_text] = texts;
        let headers = self.header_columns(assembled, &mut errors)?;
        let set_aside_rows = errors.take_set_aside();
        let error_column = self.layout.shows(Origin::Error).then(|| errors.column(rows));
        let batch = self.layout.assemble(rows, |origin| match origin {
            Origin::Kafka(KafkaColumn::Key) if self.text_key => key_text.clone(),
            Origin::Kafka(KafkaColumn::Value) if self.text_value => value_text.clone(),
            Origin::Kafka(column) => assembled.filled.column(column).cloned(),
            Origin::Field(index) => {
                let at = self.indices.iter().position(|&known| known == index)?;
                fields.get(at).cloned()
            }
            Origin::Header(index) => headers.get(index).cloned().flatten(),
            Origin::Tombstone => raw.map(tombstones),
            Origin::Error => error_column.clone(),
            Origin::Raw => raw.cloned(),
        })?;
        let offsets = self.offsets.then(|| offsets(assembled, &set_aside_rows));
        let (rows, rejected) = if set_aside_rows.is_empty() {
            (batch, Vec::new())
        } else {
            let source = Source {
                column: &|kind| assembled.filled.column(kind),
                partition: &|row| locate(assembled, row).0,
            };
            set_aside(&batch, set_aside_rows, &source)?
        };
        let progress = assembled.progress.clone();
        Ok(Made::Output(Box::new((Decoded { rows, progress, rejected, offsets }, rest))))
    }

    /// The columns of single headers that the output shows.
    fn header_columns(
        &self,
        assembled: &Assembled,
        errors: &mut RowErrors,
    ) -> Result<Vec<Option<ArrayRef>>> {
        let mut columns = Vec::with_capacity(self.headers.len());
        for (index, header) in self.headers.iter().enumerate() {
            let lists = assembled.filled.column(KafkaColumn::Headers);
            let Some(lists) = lists.filter(|_| self.layout.shows(Origin::Header(index))) else {
                columns.push(None);
                continue;
            };
            let (column, bad) = header.column(lists);
            for row in bad {
                let detail = format!("{:?} is not UTF-8", header.key);
                errors.add("header", row, detail, assembled)?;
            }
            columns.push(Some(column));
        }
        Ok(columns)
    }
}

fn tombstones(values: &ArrayRef) -> ArrayRef {
    let is_null = match values.nulls() {
        Some(nulls) => !nulls.inner(),
        None => BooleanBuffer::new_unset(values.len()),
    };
    Arc::new(BooleanArray::new(is_null, None))
}

/// The offsets of the rows that are not set aside.
fn offsets(assembled: &Assembled, set_aside: &[(usize, String)]) -> Int64Array {
    let Some(column) = assembled.filled.column(KafkaColumn::Offset) else {
        return Int64Array::from(Vec::<i64>::new());
    };
    let all: &Int64Array = column.as_primitive::<Int64Type>();
    if set_aside.is_empty() {
        return all.clone();
    }
    let bad: BTreeSet<usize> = set_aside.iter().map(|(row, _)| *row).collect();
    let kept = all.values().iter().enumerate().filter(|(row, _)| !bad.contains(row));
    kept.map(|(_, offset)| *offset).collect()
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
