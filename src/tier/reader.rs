//! Reads a file of the tier: as rows, and as the batches that Kafka consumers were promised.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::schema::types::ColumnPath;

use super::blocks::{Blocks, Source};
use super::footer;
use super::rows::Rows;
use super::schema;
use super::section::{
    About, Directory, Group, Part, Totals, decode_aborted, decode_checksums, decode_epochs,
};
use super::table::{self, Line};
use super::values::{VALUES_KEY, ValueReport};
use super::writer::AtEnd;
use crate::error::{Error, Result};
use crate::log::AbortedTransaction;
use crate::record::{Attributes, Batch, BatchHeader, Compression, decompress};
use crate::types::{Offset, TimestampMs};

/// An open file. Nothing of its rows is in memory, and nothing of its batch table.
#[derive(Clone, Debug)]
pub struct TierFile {
    path: PathBuf,
    source: Arc<dyn Source>,
    parquet: ArrowReaderMetadata,
    /// The private section.
    section: Range<u64>,
    directory: Directory,
    blocks: Blocks,
}

/// What of a file is read to have a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupExtent {
    /// The offset behind the group.
    pub end_offset: Offset,
    /// The largest timestamp of its batches.
    pub max_timestamp: TimestampMs,
    /// Where its batch table is.
    pub table: Range<u64>,
    /// Where its rows are, and the batches that are kept.
    pub data: Range<u64>,
}

/// A row group with the batches that it belongs to, in memory.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) lines: Vec<Line>,
    pub(super) rows: Option<RecordBatch>,
    raw: Bytes,
}

impl TierFile {
    /// Opens a file; `path` is how errors name it.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when it is damaged or none of the tier; [`Error::Newer`]; [`Error::Io`].
    pub fn open(path: impl AsRef<Path>, source: Arc<dyn Source>) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let footer = footer::read(&*source, &path)?;
        let section = footer.section;
        let directory = Directory::read(&*source, &path, &section)?;
        let checksums = directory.checksums.read(&*source, &path, "checksums")?;
        let blocks = decode_checksums(&checksums)
            .and_then(|checksums| Blocks::new(checksums, section.start))
            .ok_or_else(|| {
                let at = directory.checksums.at();
                Error::corrupt(&path, at, "there are not as many checksums as blocks")
            })?;
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let parquet = ArrowReaderMetadata::try_new(Arc::new(footer.metadata), options)
            .map_err(|error| Error::corrupt(&path, section.end, error.to_string()))?;
        let file = Self { path, source, parquet, section, directory, blocks };
        file.check_row_groups()?;
        Ok(file)
    }

    /// Parquet and the directory agree about the row groups.
    fn check_row_groups(&self) -> Result<()> {
        let found = self.parquet.metadata().row_groups().iter().map(RowGroupMetaData::num_rows);
        let expected = self.directory.groups.iter().map(|group| i64::from(group.rows));
        if found.eq(expected.filter(|rows| *rows > 0)) {
            return Ok(());
        }
        Err(self.corrupt(self.section.start, "the row groups are not those of the directory"))
    }

    fn corrupt(&self, at: u64, detail: impl Into<String>) -> Error {
        Error::corrupt(&self.path, at, detail)
    }

    /// How errors name the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which part of which log it holds.
    #[must_use]
    pub const fn about(&self) -> &About {
        &self.directory.about
    }

    /// What it holds, as numbers.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.directory.totals
    }

    /// The row groups, as Parquet describes them.
    pub(super) fn row_groups(&self) -> &[RowGroupMetaData] {
        self.parquet.metadata().row_groups()
    }

    /// How many groups of batches it has.
    #[must_use]
    pub fn group_count(&self) -> usize {
        self.directory.groups.len()
    }

    /// The group with an offset; none when the offset is not in the file.
    #[must_use]
    pub fn group_of(&self, offset: Offset) -> Option<usize> {
        let groups = &self.directory.groups;
        let at = groups.partition_point(|group| group.end_offset <= offset);
        groups.get(at).is_some_and(|group| group.base_offset <= offset).then_some(at)
    }

    /// The first group that ends behind an offset; none when the file does.
    #[must_use]
    pub fn group_from(&self, offset: Offset) -> Option<usize> {
        let groups = &self.directory.groups;
        let at = groups.partition_point(|group| group.end_offset <= offset);
        (at < groups.len()).then_some(at)
    }

    /// What of the file is read to have a group.
    ///
    /// # Errors
    ///
    /// There is no such group.
    pub fn extent(&self, group: usize) -> Result<GroupExtent> {
        let entry = self.group(group)?;
        let mut data = entry.raw_at..entry.raw_at.saturating_add(entry.raw_size);
        for column in self.row_group(group).into_iter().flat_map(common_columns) {
            let (start, size) = column.byte_range();
            let end = start.saturating_add(size);
            data =
                if data.is_empty() { start..end } else { data.start.min(start)..data.end.max(end) };
        }
        Ok(GroupExtent {
            end_offset: entry.end_offset,
            max_timestamp: entry.max_timestamp,
            table: entry.table.range(),
            data: self.blocks.around(data),
        })
    }

    /// Where the parquet metadata describes the rows of a group; none when it has no row.
    fn row_group(&self, group: usize) -> Option<&RowGroupMetaData> {
        self.directory.groups.get(group).filter(|entry| entry.rows > 0)?;
        self.parquet.metadata().row_groups().get(self.row_group_index(group))
    }

    fn row_group_index(&self, group: usize) -> usize {
        self.directory.groups.iter().take(group).filter(|group| group.rows > 0).count()
    }

    /// How many bytes the batches of a group have together, as they are served. Reads the batch table of the group.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub fn served_bytes(&self, group: usize) -> Result<u64> {
        Ok(self.lines(group)?.iter().map(|line| line.header.size_bytes as u64).sum())
    }

    /// The same file, to be read from somewhere else.
    #[must_use]
    pub fn with_source(&self, source: Arc<dyn Source>) -> Self {
        Self { source, ..self.clone() }
    }

    /// The aborted transactions with records in the file. All of them: a file is made of what is stable.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub fn aborted(&self) -> Result<Vec<AbortedTransaction>> {
        let part = &self.directory.aborted;
        decode_aborted(&part.read(&*self.source, &self.path, "aborted transactions")?)
            .ok_or_else(|| self.corrupt(part.at(), "the aborted transactions are none"))
    }

    /// What was known at the end of the segment.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub fn at_end(&self) -> Result<AtEnd> {
        let Directory { producers, epochs, .. } = &self.directory;
        let read = |part: &Part, what: &str| part.read(&*self.source, &self.path, what);
        Ok(AtEnd {
            end_offset: self.directory.about.end_offset,
            producers: read(producers, "producers")?.into(),
            epochs: decode_epochs(&read(epochs, "leader epochs")?)
                .ok_or_else(|| self.corrupt(epochs.at(), "the leader epochs are none"))?,
            aborted: self.aborted()?,
        })
    }

    /// The batches of a group, as they are served.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when they are not what was written; [`Error::Io`].
    pub fn batches(&self, group: usize) -> Result<Vec<Batch>> {
        let loaded = self.load(group)?;
        self.rebuild(group, &loaded)
    }

    /// What became of the values; none when the file has no typed columns.
    #[must_use]
    pub fn values(&self) -> Option<ValueReport> {
        let entries = self.parquet.metadata().file_metadata().key_value_metadata()?;
        let entry = entries.iter().find(|entry| entry.key == VALUES_KEY)?;
        serde_json::from_str(entry.value.as_deref()?).ok()
    }

    /// The rows of a group, without typed columns; none when it has no row.
    ///
    /// # Errors
    ///
    /// As [`TierFile::batches`].
    pub fn rows(&self, group: usize) -> Result<Option<RecordBatch>> {
        let entry = self.group(group)?;
        if entry.rows == 0 {
            return Ok(None);
        }
        let row_group = self.row_group_index(group);
        let mut fetched = Fetched { size: self.source.size(), parts: Vec::new() };
        let metadata = self.parquet.metadata().row_group(row_group);
        for column in common_columns(metadata) {
            let (start, size) = column.byte_range();
            let range = start..start.saturating_add(size);
            let bytes = self.blocks.read(&*self.source, &self.path, range)?;
            fetched.parts.push((start, bytes));
        }
        let at = metadata.file_offset().and_then(|at| u64::try_from(at).ok()).unwrap_or(0);
        let read = || -> Result<Option<RecordBatch>, ParquetError> {
            let count = usize::try_from(entry.rows).unwrap_or(usize::MAX);
            let builder =
                ParquetRecordBatchReaderBuilder::new_with_metadata(fetched, self.parquet.clone());
            let leaves = builder.parquet_schema().columns().iter().enumerate();
            let common = leaves.filter(|(_, leaf)| is_common(leaf.path())).map(|(index, _)| index);
            let mask = ProjectionMask::leaves(builder.parquet_schema(), common);
            let builder = builder
                .with_projection(mask)
                .with_row_groups(vec![row_group])
                .with_batch_size(count);
            Ok(builder.build()?.next().transpose()?)
        };
        let rows = read().map_err(|error| self.corrupt(at, error.to_string()))?;
        match rows {
            Some(rows) if rows.num_rows() as u64 == u64::from(entry.rows) => Ok(Some(rows)),
            _ => Err(self.corrupt(at, "the row group has not as many rows as the directory says")),
        }
    }

    fn group(&self, group: usize) -> Result<&Group> {
        self.directory
            .groups
            .get(group)
            .ok_or_else(|| Error::invalid(format!("{} has no group {group}", self.path.display())))
    }

    /// Reads a group.
    pub(super) fn load(&self, group: usize) -> Result<Loaded> {
        let rows = self.rows(group)?;
        let entry = self.group(group)?;
        let lines = self.lines(group)?;
        let raw = entry.raw_at..entry.raw_at.saturating_add(entry.raw_size);
        let raw = self.blocks.read(&*self.source, &self.path, raw)?;
        Ok(Loaded { lines, rows, raw })
    }

    fn lines(&self, group: usize) -> Result<Vec<Line>> {
        let entry = self.group(group)?;
        let table = entry.table.read(&*self.source, &self.path, "batch table")?;
        let count = usize::try_from(entry.lines).unwrap_or(usize::MAX);
        let place = (&*self.path, entry.table.at());
        table::decode(&table, count, entry.base_offset, place)
    }

    /// Puts the batches of a group together.
    pub(super) fn rebuild(&self, group: usize, loaded: &Loaded) -> Result<Vec<Batch>> {
        let entry = self.group(group)?;
        let rows = match &loaded.rows {
            None => None,
            Some(rows) => Some(Rows::of(rows).ok_or_else(|| {
                self.corrupt(entry.table.at(), "the columns are not those of the tier")
            })?),
        };
        let row_count = rows.as_ref().map_or(0, Rows::len);
        let mut first = 0;
        let mut batches = Vec::with_capacity(loaded.lines.len());
        for line in &loaded.lines {
            let end = first + line.row_count();
            if end > row_count {
                return Err(
                    self.corrupt(entry.table.at(), "the batches have more records than rows")
                );
            }
            let rebuilt = match (line.raw, &rows) {
                (Some(raw), _) => unpack(line, raw, &loaded.raw),
                (None, Some(rows)) => from_rows(&line.header, rows, first..end),
                // Only a batch without records has none.
                (None, None) => from_nothing(&line.header),
            };
            let batch = rebuilt.map_err(|detail| {
                let base_offset = line.header.base_offset;
                let detail = format!("record batch at offset {base_offset}: {detail}");
                self.corrupt(entry.table.at(), detail)
            })?;
            batches.push(batch);
            first = end;
        }
        if first != row_count {
            return Err(self.corrupt(entry.table.at(), "there are rows that are of no batch"));
        }
        Ok(batches)
    }

    /// Compares all blocks with their checksums, and reads every part of the section.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] or [`Error::Io`].
    pub(super) fn check_bytes(&self) -> Result<()> {
        const STEP: u64 = 4 << 20;
        let mut at = 0;
        while at < self.section.start {
            let end = (at + STEP).min(self.section.start);
            self.blocks.read(&*self.source, &self.path, at..end)?;
            at = end;
        }
        self.at_end().map(drop)
    }
}

/// Where the columns that all files have are. Others may be there, of types that this release need not know.
fn common_columns(group: &RowGroupMetaData) -> impl Iterator<Item = &ColumnChunkMetaData> {
    group.columns().iter().filter(|column| is_common(column.column_path()))
}

fn is_common(path: &ColumnPath) -> bool {
    path.parts().first().is_some_and(|name| schema::COMMON.contains(&name.as_str()))
}

/// A batch that was kept as it was.
fn unpack(line: &Line, raw: table::Raw, all: &Bytes) -> Result<Batch, String> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let (start, size) = (place(raw.at), place(raw.size));
    let end = start.saturating_add(size);
    if end > all.len() {
        return Err("it is not where the batch table says".to_owned());
    }
    let mut bytes = all.slice(start..end);
    if raw.is_packed {
        let unpacked = decompress(Compression::Zstd, &bytes, line.header.size_bytes);
        bytes = unpacked.map_err(|error| error.to_string())?.into();
    }
    let batch = Batch::parse(&bytes).map_err(|error| error.to_string())?;
    if batch.bytes().len() != bytes.len() || *batch.header() != line.header {
        return Err("its header is not what the batch table says".to_owned());
    }
    batch.verify_crc().map_err(|error| error.to_string())?;
    Ok(batch)
}

fn from_rows(header: &BatchHeader, rows: &Rows<'_>, range: Range<usize>) -> Result<Batch, String> {
    let rebuilder = rows.rebuild(header, range)?;
    complete(header, rebuilder.finish(header).map_err(|error| error.to_string())?)
}

fn from_nothing(header: &BatchHeader) -> Result<Batch, String> {
    let rebuilder = crate::record::BatchRebuilder::with_capacity(0);
    complete(header, rebuilder.finish(header).map_err(|error| error.to_string())?)
}

/// A rebuilt batch, if it is what was there when the file was written.
fn complete(header: &BatchHeader, bytes: Bytes) -> Result<Batch, String> {
    let batch = Batch::parse(&bytes).map_err(|error| error.to_string())?;
    if *batch.header() == served(header) {
        Ok(batch)
    } else {
        Err("its rows do not give what was written".to_owned())
    }
}

/// The header of a rebuilt batch: it is not compressed.
pub(super) fn served(header: &BatchHeader) -> BatchHeader {
    let attributes: Attributes = header.attributes.with_compression(Compression::None);
    BatchHeader { attributes, compression: Compression::None, ..*header }
}

/// The parts of a file that Parquet is to read.
struct Fetched {
    size: u64,
    parts: Vec<(u64, Bytes)>,
}

impl Fetched {
    /// What there is from a position on.
    fn from(&self, start: u64) -> Result<Bytes, ParquetError> {
        self.parts
            .iter()
            .find_map(|(at, bytes)| {
                let skip = usize::try_from(start.checked_sub(*at)?).ok()?;
                (skip < bytes.len()).then(|| bytes.slice(skip..))
            })
            .ok_or_else(|| ParquetError::EOF(format!("byte {start} is of no column")))
    }
}

impl Length for Fetched {
    fn len(&self) -> u64 {
        self.size
    }
}

impl ChunkReader for Fetched {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        self.from(start).map(Buf::reader)
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let bytes = self.from(start)?;
        if length > bytes.len() {
            return Err(ParquetError::EOF(format!(
                "{length} bytes from {start} are beyond the column"
            )));
        }
        Ok(bytes.slice(..length))
    }
}
