//! Making a file of closed segments, and getting it into the store.
//!
//! ```text
//! log ─► file on this disk ─► compared with the log ─► store ─► read back: size and CRC-32C
//! ```
//!
//! The file is made on the disk of the broker, in a folder that is emptied at the start.

use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::TieredPartition;
use super::columns::{self, FileColumns};
use crate::broker::blocking::blocking;
use crate::broker::partition::Partition;
use crate::broker::state::BrokerState;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::env::{Disk, Env, File, OpenMode};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{LogReader, ReadRequest};
use crate::machine::tier::Uploaded;
use crate::record::{Batch, Batches};
use crate::store::Store;
use crate::tier::{
    AbortedRanges, AtEnd, Segment, SegmentWriter, Source, TierFile, compare, read_range,
};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// How much of a log or a file is read at a time.
const READ_BYTES: u64 = 4 << 20;
const WRITE_BYTES: usize = 1 << 20;

/// A file that is to be made.
#[derive(Clone, Debug)]
pub(super) struct Upload {
    pub(super) partition: Arc<Partition>,
    pub(super) tier: Arc<TieredPartition>,
    /// Where it is made.
    pub(super) folder: PathBuf,
    pub(super) name: String,
    pub(super) base_offset: Offset,
    pub(super) end_offset: Offset,
    /// Nobody waits for it any more.
    pub(super) stop: CancellationToken,
}

/// Removes a file when it is not needed any more.
#[derive(Debug)]
struct Temporary {
    env: Env,
    path: PathBuf,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match self.env.disk.remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.path.display(), %error, "unfinished file not removed");
            }
            _ => {}
        }
    }
}

impl Upload {
    /// Does it.
    ///
    /// # Errors
    ///
    /// Those of the log, of this disk and of the store; [`Error::Corrupt`] when what was made, or what came to the store, is
    /// not what the log has.
    pub(super) async fn run(self, state: &Arc<BrokerState>) -> Result<Uploaded> {
        let (threads, end) = (&state.env().threads, self.end_offset);
        let snapshot =
            state.log_threads().run(&self.partition, move |log| log.producer_snapshot(end));
        let producers = snapshot.await?;
        let typed = columns::of_next_file(&**self.tier.store(), &self.partition).await?;
        let temporary = Temporary { env: state.env().clone(), path: self.folder.join(&self.name) };
        let making = self.clone();
        let (temporary, uploaded) = blocking(threads, move || {
            let uploaded = making.make(&temporary, producers, typed)?;
            Ok((temporary, uploaded))
        })
        .await?;
        let (store, path) = (self.tier.store(), self.tier.path(&self.name));
        store.put(&path, temporary.path.clone()).await?;
        read_back(&**store, &path, &uploaded).await?;
        #[cfg(feature = "sim")]
        if is_planted(Mutation::FreesBeforeVersion) {
            let free = move |partition: &Partition| {
                partition.with_log(|log| {
                    log.set_tiered(Offset::ZERO, end);
                    Ok(())
                })
            };
            drop(state.log_threads().run_on(&self.partition, free).await);
        }
        // Removing a large file may take a while.
        blocking(threads, move || {
            drop(temporary);
            Ok(())
        })
        .await?;
        Ok(uploaded)
    }

    /// Makes the file, and compares it with the log. Blocks.
    fn make(
        &self,
        temporary: &Temporary,
        producers: Bytes,
        typed: Option<FileColumns>,
    ) -> Result<Uploaded> {
        let Temporary { env, path } = temporary;
        let (reader, key) = (self.partition.reader(), self.partition.key());
        let name = self.partition.name();
        let limit = reader.uncompressed_bytes_max();
        let folder = &self.folder;
        env.disk.create_dir_all(folder).map_err(|error| Error::io("create", folder, error))?;
        let file = Output::create(&*env.disk, path)?;
        let segment = Segment {
            topic: name.topic.to_string(),
            topic_id: key.0,
            partition: name.partition,
            base_offset: self.base_offset,
            uncompressed_bytes_max: limit,
        };
        let output = BufWriter::with_capacity(WRITE_BYTES, file);
        let mut writer = match typed {
            None => SegmentWriter::new(output, path, segment),
            Some((schema, names)) => {
                SegmentWriter::with_values(output, path, segment, (schema, &names))
            }
        }?;
        let aborted = reader.aborted_transactions(self.base_offset, self.end_offset);
        let ranges = AbortedRanges::new(&aborted);
        let (mut last_epoch, mut max_timestamp) = (LeaderEpoch::UNKNOWN, TimestampMs::NONE);
        for batch in self.batches() {
            let batch = batch?;
            let header = batch.header();
            writer.append(&batch, !header.is_control() && ranges.hold(header))?;
            last_epoch = header.leader_epoch;
            max_timestamp = max_timestamp.max(header.max_timestamp);
        }
        let mut epochs = reader.epochs();
        epochs.retain(|entry| entry.start_offset < self.end_offset);
        // Compaction, before the policy of the topic changed, may have removed the last batches, but not their epoch.
        last_epoch = epochs.last().map_or(last_epoch, |entry| last_epoch.max(entry.epoch));
        let at_end = AtEnd { end_offset: self.end_offset, producers, epochs, aborted };
        let (output, totals) = writer.finish(&at_end)?;
        output.into_inner().map_err(|error| Error::io("write", path, error.into_error()))?;
        let source = Arc::new(Input::open(&*env.disk, path)?);
        let file = TierFile::open(path, Arc::clone(&source) as Arc<dyn Source>)?;
        compare(&file, self.batches(), limit)?;
        columns::report(&self.partition, &file);
        let (file_bytes, crc32c) = source.checksum(path)?;
        Ok(Uploaded { last_epoch, max_timestamp, log_bytes: totals.log_bytes, file_bytes, crc32c })
    }

    fn batches(&self) -> Logged {
        Logged {
            reader: self.partition.reader().clone(),
            stop: self.stop.clone(),
            base_offset: self.base_offset,
            range: self.base_offset..self.end_offset,
            read: Batches::new(Bytes::new()),
            bytes: 0,
            is_over: false,
        }
    }
}

/// The batches of a part of a log, all of them or an error at the end: a file with fewer would be believed.
struct Logged {
    reader: LogReader,
    stop: CancellationToken,
    base_offset: Offset,
    /// What is still to be read.
    range: Range<Offset>,
    read: Batches,
    /// How many bytes the batches had so far.
    bytes: u64,
    is_over: bool,
}

impl Logged {
    fn read(&mut self) -> Result<Option<Batch>> {
        loop {
            if self.stop.is_cancelled() {
                return Err(Error::Closed { what: "the partition" });
            }
            if let Some(batch) = self.read.next().transpose()? {
                self.bytes += batch.bytes().len() as u64;
                self.range.start = batch.header().next_offset();
                return Ok(Some(batch));
            }
            if self.range.start >= self.range.end {
                return Ok(None);
            }
            // The log may start in the middle of the first batch.
            let offset = self.range.start.max(self.reader.local_start_offset());
            let read = self.reader.read(ReadRequest {
                offset,
                max_bytes: READ_BYTES,
                upper: self.range.end,
                at_least_one: true,
            })?;
            if offset > self.range.start && read.base_offset != self.range.start {
                let start = self.range.start;
                let text = format!("the log does not have offset {start} any more");
                return Err(Error::kafka(ErrorCode::OffsetOutOfRange, text));
            }
            if read.records.is_empty() {
                return self.end().map(|()| None);
            }
            self.read = Batches::new(read.records);
        }
    }

    /// There are no more batches, although more offsets: compaction, before the policy of the topic changed, may have left
    /// nothing there. Then all bytes of the segment were read.
    fn end(&self) -> Result<()> {
        let Range { start, end } = self.range;
        let segments = self.reader.closed_segments(end);
        let whole = segments.iter().find(|one| one.end_offset == end);
        match whole {
            Some(one) if one.base_offset == self.base_offset && one.size_bytes == self.bytes => {
                Ok(())
            }
            _ => {
                let text = format!("the log has no batch from offset {start} to {end}");
                Err(Error::kafka(ErrorCode::OffsetOutOfRange, text))
            }
        }
    }
}

impl Iterator for Logged {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.read().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

/// Compares what is in the store with what was to be there.
async fn read_back(store: &dyn Store, path: &str, uploaded: &Uploaded) -> Result<()> {
    let damaged = |why: String| Error::corrupt(store.name(path), 0, why);
    let size = store.size(path).await?;
    if size != Some(uploaded.file_bytes) {
        let (found, expected) = (size.unwrap_or(0), uploaded.file_bytes);
        return Err(damaged(format!("{found} bytes came to the store, not {expected}")));
    }
    let (mut at, mut crc) = (0, 0);
    while at < uploaded.file_bytes {
        let end = (at + READ_BYTES).min(uploaded.file_bytes);
        crc = crc32c::crc32c_append(crc, &store.get(path, at..end).await?);
        at = end;
    }
    if crc != uploaded.crc32c {
        let expected = uploaded.crc32c;
        return Err(damaged(format!(
            "the checksum of what came to the store is {crc:#010x}, not {expected:#010x}"
        )));
    }
    Ok(())
}

/// A file that is being written.
struct Output {
    file: Arc<dyn File>,
    at: u64,
}

impl Output {
    fn create(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open(path, OpenMode::CreateEmpty);
        Ok(Self { file: file.map_err(|error| Error::io("create", path, error))?, at: 0 })
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(&[bytes], self.at)?;
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that was written.
#[derive(Debug)]
struct Input {
    file: Arc<dyn File>,
    size: u64,
}

impl Input {
    fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let opened = disk.open(path, OpenMode::Read).and_then(|file| Ok((file.len()?, file)));
        let (size, file) = opened.map_err(|error| Error::io("open", path, error))?;
        Ok(Self { file, size })
    }

    /// The size and the CRC-32C of all of it.
    fn checksum(&self, path: &Path) -> Result<(u64, u32)> {
        let (mut at, mut crc) = (0, 0);
        while at < self.size {
            let end = (at + READ_BYTES).min(self.size);
            let bytes = self.read(at..end).map_err(|error| Error::io("read", path, error))?;
            crc = crc32c::crc32c_append(crc, &bytes);
            at = end;
        }
        Ok((self.size, crc))
    }
}

impl Source for Input {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let start = range.start;
        read_range(self.size, range, |bytes| self.file.read_exact_at(bytes, start))
    }
}
