//! The decoder that scans and consumers use: chunks of batches in, Arrow record batches out.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::datatypes::{DataType, Field, Fields, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::assemble::{Assembled, Assembler, FetchedBytes, Next, PartitionProgress};
use super::block::{Block, Makers};
use super::headers::HeaderField;
use super::output::{Made, Output};
use super::rejected::Rejected;
use super::tombstones::Tombstones;
use super::unpack::Unpack;
use crate::columnar::columns::Projection;
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::reading::{Look, Probe};
use crate::columnar::formats::registry::{SchemaRequest, SchemaSource};
use crate::error::Result;
use crate::types::TopicPartition;

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
    /// Whether [`Decoded::offsets`] and [`Decoded::origins`] are filled.
    pub offsets: bool,
    /// How many threads the caller may decode with; its own default when none. A decoder starts none
    /// itself, and its outputs do not depend on it.
    pub threads: Option<NonZeroUsize>,
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
            threads: None,
        }
    }
}

impl DecodeOptions {
    /// Whether there is anything that might not decode.
    #[must_use]
    pub fn may_fail(&self) -> bool {
        self.value.may_fail()
            || self.key == KeyFormat::Text
            || self.headers.iter().any(|header| header.text)
    }

    /// Whether nulls may stand for what did not decode, so that rows do not tell what their records
    /// were.
    #[must_use]
    pub fn hides_errors(&self) -> bool {
        matches!(self.on_error, OnError::Null | OnError::Column) && self.may_fail()
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
    /// The partition of each row, as runs of rows; empty unless the options ask for offsets.
    pub origins: Vec<(TopicPartition, usize)>,
    /// The rows whose values are null, where the rows have fields of decoded values.
    pub tombstones: Tombstones,
    /// As [`DecodeOptions::hides_errors`].
    pub hides_errors: bool,
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
        probe: Box<dyn Probe>,
        /// How many of those that wait were looked at.
        looked_at: usize,
        /// The bytes of the values that were looked at.
        bytes: usize,
    },
    Ready(Box<Ready>),
}

#[derive(Debug)]
struct Ready {
    output: Output,
    /// Makes outputs beside this decoder.
    makers: Arc<Makers>,
}

impl Ready {
    fn new(options: &DecodeOptions, settled: ValueFormat) -> Result<Self> {
        let output = Output::new(options, &settled)?;
        let makers = Arc::new(Makers::new(options.clone(), settled, output.works()));
        Ok(Self { output, makers })
    }
}

impl Decoder {
    /// A decoder without chunks.
    ///
    /// # Errors
    /// An invalid argument for columns that do not exist or types that are not decoded to.
    pub fn new(options: DecodeOptions) -> Result<Self> {
        let (stage, projection) = if options.value.is_settled() {
            let ready = Ready::new(&options, options.value.clone())?;
            let projection = ready.output.projection();
            (Stage::Ready(Box::new(ready)), projection)
        } else {
            let mut probe = options.value.probe()?;
            probe.expect(options.on_error);
            // Columns cannot be told from fields yet.
            (Stage::Probing { probe, looked_at: 0, bytes: 0 }, Projection::ALL)
        };
        let limits = (options.max_rows, options.max_bytes);
        let assembler = Assembler::new(projection, limits, options.decompressed_size_max);
        Ok(Self { options, assembler, stage, waiting: VecDeque::new() })
    }

    /// A decoder without chunks, for the columns that this one has found, if it has.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn emptied(&self) -> Result<Self> {
        let mut options = self.options.clone();
        if let Some(found) = self.settled() {
            options.value = found.clone();
        }
        Self::new(options)
    }

    /// Outputs of Arrow IPC streams with less room.
    #[cfg(test)]
    pub(in crate::columnar) fn set_room(&mut self, room: crate::columnar::formats::ipc::Room) {
        use crate::columnar::formats::ipc::IpcDecoder;
        if let Stage::Ready(ready) = &mut self.stage {
            let values: &mut dyn std::any::Any = ready.output.values.as_mut();
            values.downcast_mut::<IpcDecoder>().expect("Arrow IPC").room = room;
        }
    }

    /// The schema of the outputs; none while the columns of values are being found.
    #[must_use]
    pub fn schema(&self) -> Option<SchemaRef> {
        match &self.stage {
            Stage::Probing { .. } => None,
            Stage::Ready(ready) => Some(Arc::clone(ready.output.layout.schema())),
        }
    }

    /// The format of values with the columns that were found; none while they are.
    #[must_use]
    pub fn settled(&self) -> Option<&ValueFormat> {
        match &self.stage {
            Stage::Probing { .. } => None,
            Stage::Ready(ready) => Some(&ready.output.format),
        }
    }

    /// Adds bytes to be decoded, behind those before.
    pub fn push(&mut self, chunk: FetchedBytes) {
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
            (Stage::Ready(ready), _) => &mut ready.output,
            (Stage::Probing { .. }, Some(output)) => output,
            (Stage::Probing { .. }, None) => return Ok(Step::Input),
        };
        let assembled = match self.waiting.pop_front() {
            Some(assembled) => assembled,
            None => match self.assembler.next(finish)? {
                Next::Output(assembled) => assembled,
                Next::Input | Next::Blocked => return Ok(Step::Input),
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

    /// What the next output is made from, for a caller that has it made on another thread. The blocks
    /// give, in their order, what [`Self::step`] would give.
    ///
    /// # Errors
    /// As [`Self::step`], for damaged batches.
    pub fn take(&mut self, finish: bool) -> Result<Taken> {
        let Stage::Ready(ready) = &self.stage else { return Ok(Taken::Unsettled) };
        let makers = Arc::clone(&ready.makers);
        let assembled = match self.waiting.pop_front() {
            Some(assembled) => assembled,
            None => match self.assembler.next(finish)? {
                Next::Output(assembled) => assembled,
                Next::Input => return Ok(Taken::Input),
                Next::Blocked => return Ok(Taken::Blocked),
            },
        };
        Ok(Taken::Block(Block::new(assembled, makers)))
    }

    /// Batches to decompress ahead of their turn, on another thread; then [`Self::take`] waits for them.
    /// None where there are none in what was pushed, or the columns of values are being found.
    pub fn unpack(&mut self) -> Option<Unpack> {
        match &self.stage {
            Stage::Probing { .. } => None,
            Stage::Ready(_) => self.assembler.unpack(),
        }
    }

    /// About how many bytes are, or will be, decompressed ahead of their turn.
    #[must_use]
    pub fn unpacked_bytes(&self) -> usize {
        self.assembler.unpacked_bytes()
    }

    /// Whether more chunks would give [`Self::unpack`] something to do.
    #[must_use]
    pub const fn wants_to_unpack(&self) -> bool {
        self.assembler.wants_to_unpack()
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
                Stage::Ready(ready) => ready.output.format.clone(),
                Stage::Probing { probe, .. } => probe.unsettled(named_fields(&self.options)),
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
                    Next::Output(assembled) => self.waiting.push_back(assembled),
                    Next::Input if finish => break probe.give_up(),
                    Next::Input | Next::Blocked => return Ok(Probed::Input),
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
        let ready = Ready::new(&self.options, settled)?;
        self.assembler.set_projection(ready.output.projection());
        self.stage = Stage::Ready(Box::new(ready));
        Ok(Probed::Ready)
    }
}

/// What [`Decoder::take`] came to.
#[derive(Debug)]
pub enum Taken {
    /// What an output is made from.
    Block(Block),
    /// More chunks are needed.
    Input,
    /// A batch that is being decompressed is next.
    Blocked,
    /// The columns of values are being found, which [`Decoder::step`] does.
    Unsettled,
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
