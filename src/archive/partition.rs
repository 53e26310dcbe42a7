//! The files of one partition, while they are written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::{ArchiveFile, verify};
use crate::client::{Range, ScannedBatch};
use crate::error::{Error, Result};
use crate::log::{AbortedTransaction, EpochEntry};
use crate::record::{Batch, BatchHeader, BatchRebuilder, Headers, Walker, check_headers};
use crate::tier::{AtEnd, Segment, SegmentWriter, names};
use crate::types::{Offset, PartitionIndex, ProducerId, Sequence, Uuid};

/// A file ends with the batch that brings it to so many bytes of log, as a segment does by default.
const FILE_LOG_BYTES: u64 = 1 << 30;
/// The most bytes that the records of a batch may have uncompressed.
const UNCOMPRESSED_MAX: usize = 1 << 30;
const TEMPORARY: &str = ".tmp";

/// Writes the files of one partition.
pub(super) struct PartitionFiles {
    folder: PathBuf,
    topic: String,
    topic_id: Uuid,
    partition: PartitionIndex,
    range: Range,
    /// What lies before this offset is in files, or not in the log.
    next: Offset,
    open: Option<OpenFile>,
    written: Vec<ArchiveFile>,
}

/// The file that is being written.
struct OpenFile {
    /// Removed unless the file is completed.
    path: Temporary,
    writer: SegmentWriter<File>,
    base_offset: Offset,
    log_bytes: u64,
    epochs: Vec<EpochEntry>,
    /// Transactions that are being aborted: from where to where, so far.
    aborting: BTreeMap<ProducerId, (Offset, Offset)>,
    aborted: Vec<AbortedTransaction>,
}

/// A file that disappears unless it is kept.
struct Temporary(Option<PathBuf>);

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "unfinished file not removed");
        }
    }
}

impl PartitionFiles {
    pub(super) fn new(
        folder: PathBuf,
        (topic, topic_id): (&str, Uuid),
        partition: PartitionIndex,
        range: Range,
    ) -> Self {
        let topic = topic.to_owned();
        let next = range.start;
        Self { folder, topic, topic_id, partition, range, next, open: None, written: Vec::new() }
    }

    /// How many offsets are done.
    pub(super) fn done(&self) -> i64 {
        self.next.min(self.range.end).since(self.range.start)
    }

    pub(super) fn append(&mut self, scanned: &ScannedBatch) -> Result<()> {
        let Some(batch) = within(&scanned.batch, self.range)? else { return Ok(()) };
        let header = *batch.header();
        let is_aborted = !header.is_control() && !scanned.is_shown;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.create(self.next)?,
        };
        open.writer.append(&batch, is_aborted)?;
        open.note(&header, is_aborted);
        open.log_bytes += batch.bytes().len() as u64;
        self.next = header.next_offset();
        if open.log_bytes >= FILE_LOG_BYTES {
            let end = self.next;
            self.complete(open, end)?;
        } else {
            self.open = Some(open);
        }
        Ok(())
    }

    fn create(&self, base_offset: Offset) -> Result<OpenFile> {
        let folder = &self.folder;
        fs::create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
        let name = format!("{:020}-{:08x}{TEMPORARY}", base_offset.0, rand::random::<u32>());
        let path = folder.join(name);
        let file = File::create_new(&path).map_err(|error| Error::io("create", &path, error))?;
        let segment = Segment {
            topic: self.topic.clone(),
            topic_id: self.topic_id,
            partition: self.partition,
            base_offset,
            uncompressed_bytes_max: UNCOMPRESSED_MAX,
        };
        Ok(OpenFile {
            writer: SegmentWriter::new(file, &path, segment)?,
            path: Temporary(Some(path)),
            base_offset,
            log_bytes: 0,
            epochs: Vec::new(),
            aborting: BTreeMap::new(),
            aborted: Vec::new(),
        })
    }

    fn complete(&mut self, open: OpenFile, end_offset: Offset) -> Result<()> {
        let OpenFile { mut path, writer, base_offset, epochs, aborting, mut aborted, .. } = open;
        let cut =
            aborting.into_iter().map(|(producer, range)| aborted_transaction(producer, range));
        aborted.extend(cut);
        let at_end = AtEnd { end_offset, producers: bytes::Bytes::new(), epochs, aborted };
        let (file, _) = writer.finish(&at_end)?;
        let Some(temporary) = path.0.clone() else { return Ok(()) };
        file.sync_all().map_err(|error| Error::io("sync", &temporary, error))?;
        drop(file);
        let checked = verify(&temporary)?;
        let tag = format!("{:08x}", rand::random::<u32>());
        let name = names::file_name(base_offset, end_offset, self.topic_id, &tag);
        let named = self.folder.join(name);
        fs::rename(&temporary, &named).map_err(|error| Error::io("rename", &temporary, error))?;
        path.0 = None;
        sync_folder(&self.folder)?;
        self.written.push(ArchiveFile { path: named, ..checked });
        Ok(())
    }

    /// Completes the last file: the range was read.
    pub(super) fn finish(mut self) -> Result<Vec<ArchiveFile>> {
        if let Some(open) = self.open.take() {
            let end = self.range.end;
            self.complete(open, end)?;
        }
        Ok(self.written)
    }
}

impl OpenFile {
    /// Remembers epochs and aborted transactions.
    fn note(&mut self, header: &BatchHeader, is_aborted: bool) {
        let epoch = header.leader_epoch;
        if epoch.0 >= 0 && self.epochs.last().is_none_or(|last| last.epoch < epoch) {
            self.epochs.push(EpochEntry { epoch, start_offset: header.base_offset });
        }
        let (id, last) = (header.producer_id, header.last_offset());
        if is_aborted {
            let range = self.aborting.entry(id).or_insert((header.base_offset, last));
            range.1 = last;
        } else if header.is_control()
            && let Some((first, _)) = self.aborting.remove(&id)
        {
            self.aborted.push(aborted_transaction(id, (first, last)));
        }
    }
}

/// What the log knew of the last stable offset then is not known here: it was not behind the transaction.
fn aborted_transaction(
    producer_id: ProducerId,
    (first, last): (Offset, Offset),
) -> AbortedTransaction {
    AbortedTransaction {
        producer_id,
        first_offset: first,
        last_offset: last,
        last_stable_offset: last.next(),
    }
}

/// A batch as far as it is in the range: the batch itself, if all of it is; none, if no record is.
fn within(batch: &Batch, range: Range) -> Result<Option<Batch>> {
    let header = *batch.header();
    if header.base_offset >= range.start && header.next_offset() <= range.end {
        return Ok(Some(batch.clone()));
    }
    batch.verify_crc()?;
    let data = batch.uncompressed(UNCOMPRESSED_MAX)?;
    header.check_count(data.len())?;
    let base_offset = header.base_offset.max(range.start);
    let last_offset = header.last_offset().min(Offset(range.end.0 - 1));
    let shift = i32::try_from(base_offset.since(header.base_offset)).unwrap_or(0);
    let mut rebuilder = BatchRebuilder::with_capacity(data.len());
    let mut walker = Walker::new(&data);
    let (mut count, mut headers) = (0, Vec::new());
    for _ in 0..header.record_count {
        let raw = walker
            .next_record()
            .and_then(|raw| check_headers(&data, &raw).map(|()| raw))
            .map_err(|error| Error::malformed("record batch", error.text()))?;
        let offset = header.base_offset.plus(raw.offset_delta.into());
        if offset < base_offset || offset > last_offset {
            continue;
        }
        headers.clear();
        headers.extend(Headers::of_raw(&data, &raw));
        let (key, value) = (raw.key(&data), raw.value(&data));
        let offset_delta = raw.offset_delta.saturating_sub(shift);
        rebuilder.append((raw.timestamp_delta, offset_delta), key, value, &headers)?;
        count += 1;
    }
    if count == 0 {
        return Ok(None);
    }
    let base_sequence = match header.base_sequence {
        Sequence::NONE => Sequence::NONE,
        sequence => sequence.plus(shift),
    };
    let last_offset_delta = i32::try_from(last_offset.since(base_offset)).unwrap_or(0);
    let header = BatchHeader {
        base_offset,
        last_offset_delta,
        base_sequence,
        record_count: count,
        ..header
    };
    Batch::parse(&rebuilder.finish(&header)?).map(Some)
}

/// A name survives a power cut once its folder is synced, where folders can be.
#[cfg(unix)]
fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io("sync", folder, error))
}

#[cfg(not(unix))]
#[expect(clippy::unnecessary_wraps, reason = "as on other systems")]
const fn sync_folder(_folder: &Path) -> Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{BatchBuilder, BatchOptions, Compression};
    use crate::types::{ProducerEpoch, TimestampMs};

    fn offsets(batch: &Batch) -> Vec<(i64, i64)> {
        batch.verify_crc().unwrap();
        let records = batch.records(1 << 20).unwrap();
        records.iter().map(Result::unwrap).map(|one| (one.offset.0, one.timestamp.0)).collect()
    }

    #[test]
    fn a_batch_is_cut_to_the_range() {
        for compression in [Compression::None, Compression::Zstd] {
            let mut builder = BatchBuilder::new(BatchOptions {
                base_offset: Offset(100),
                compression,
                producer_id: ProducerId(5),
                producer_epoch: ProducerEpoch(0),
                base_sequence: Sequence(i32::MAX - 1),
                ..BatchOptions::default()
            });
            for number in 0..10 {
                builder.append(TimestampMs(1000 + number), None, Some(b"v"), &[]).unwrap();
            }
            let batch = Batch::parse(&builder.finish().unwrap()).unwrap();
            let cut = |start, end| {
                within(&batch, Range { start: Offset(start), end: Offset(end) }).unwrap()
            };
            assert_eq!(cut(90, 110).unwrap().bytes(), batch.bytes());
            let middle = cut(103, 106).unwrap();
            assert_eq!(offsets(&middle), [(103, 1003), (104, 1004), (105, 1005)]);
            let header = middle.header();
            assert_eq!((header.base_offset, header.next_offset()), (Offset(103), Offset(106)));
            // The sequence of the record goes on at 0 behind the largest one.
            assert_eq!(header.base_sequence, Sequence(1));
            assert_eq!(offsets(&cut(0, 101).unwrap()), [(100, 1000)]);
            assert_eq!(offsets(&cut(109, 200).unwrap()), [(109, 1009)]);
            assert!(cut(110, 200).is_none() && cut(0, 100).is_none());
        }
    }
}
