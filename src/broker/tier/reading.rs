//! Reads batches of the tier for consumers.
//!
//! A group of a file is read and turned into batches once, and kept as long as there is room: whoever reads from the
//! start asks for a mebibyte at a time, and many read the same.
//!
//! Invariants:
//! - `COLD-1` the groups in memory, those that are being made included, have at most `ottla.tier.cache.bytes`, or are one; at
//!   most [`LOADS`] are made at a time, each of which takes about three times its size meanwhile. What is served is a copy:
//!   its reader may keep it for as long as it likes.
//! - `COLD-2` whoever waits for room holds none, so it comes.
//! - `COLD-3` each file is the one that the manifest names: partition and offsets are compared when it is opened.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::TieredPartition;
use super::shelf::Shelf;
use crate::broker::blocking::blocking;
use crate::broker::parking::PartitionKey;
use crate::env::Threads;
use crate::error::{Error, ErrorCode, Result};
use crate::log::AbortedTransaction;
use crate::machine::tier::{FileEntry, Manifest};
use crate::record::Batch;
use crate::tier::{AtEnd, GroupExtent, Source, TierFile};
use crate::types::{LeaderEpoch, Offset, TimestampMs, TopicPartition};

/// How many groups are made at a time.
const LOADS: usize = 4;
/// How many files are open.
const FILES_MAX: usize = 64;
/// What of the end of a file is read first: it nearly always has all that says what is in the file.
const TAIL_BYTES: u64 = 256 << 10;
/// How often something of the end may turn out to be missing.
const ROUNDS_MAX: usize = 8;
/// The unit of room.
const KIB: u64 = 1 << 10;
/// The most that one read gives, but for a batch that is larger.
const READ_BYTES_MAX: usize = 4 << 20;
/// How long the store may take for one answer.
const STORE_TIMEOUT: Duration = Duration::from_secs(30);

type FileKey = (PartitionKey, String);
type GroupKey = (PartitionKey, String, usize);

/// The files of a partition.
#[derive(Clone, Debug)]
pub(in crate::broker) struct ColdFiles {
    pub(in crate::broker) key: PartitionKey,
    pub(in crate::broker) name: TopicPartition,
    pub(in crate::broker) tier: Arc<TieredPartition>,
    pub(in crate::broker) manifest: Arc<Manifest>,
}

/// What to read.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct ColdWant {
    /// The batch that holds this offset comes first.
    pub(in crate::broker) offset: Offset,
    /// No batch that reaches this offset or beyond.
    pub(in crate::broker) upper: Offset,
    pub(in crate::broker) max_bytes: usize,
    /// Whether one batch may be larger than that.
    pub(in crate::broker) at_least_one: bool,
}

/// Batches of the tier.
#[derive(Clone, Debug)]
pub(in crate::broker) struct ColdRead {
    pub(in crate::broker) records: Bytes,
    /// Those with records in the range, by first offset.
    pub(in crate::broker) aborted: Vec<AbortedTransaction>,
}

/// See the module.
#[derive(Clone, Debug)]
pub(in crate::broker) struct TierReader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    threads: Threads,
    files: Arc<Shelf<FileKey, Arc<OpenFile>>>,
    groups: Arc<Shelf<GroupKey, Arc<Group>>>,
    /// The room that is left, in KiB, and all of it.
    room: Arc<Semaphore>,
    room_max: u32,
    loads: Semaphore,
}

/// A file, and the transactions that were aborted in it.
#[derive(Debug)]
struct OpenFile {
    file: TierFile,
    aborted: Vec<AbortedTransaction>,
}

/// A group as a piece of a log.
#[derive(Debug)]
struct Group {
    bytes: Bytes,
    /// Of each batch, the offset behind it and where it ends.
    ends: Vec<(Offset, u32)>,
    end_offset: Offset,
    _room: OwnedSemaphorePermit,
}

/// A file that is being looked for.
#[derive(Clone, Debug)]
struct Wanted {
    key: PartitionKey,
    tier: Arc<TieredPartition>,
    entry: FileEntry,
}

impl TierReader {
    /// Keeps up to so many bytes of batches.
    pub(in crate::broker) fn new(threads: Threads, cache_bytes: u64) -> Self {
        let room_max = u32::try_from((cache_bytes / KIB).max(1)).unwrap_or(u32::MAX);
        let room_max = room_max.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        Self(Arc::new(Inner {
            threads,
            files: Arc::new(Shelf::new(FILES_MAX)),
            groups: Arc::new(Shelf::new(usize::MAX)),
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            loads: Semaphore::new(LOADS),
        }))
    }

    /// Reads whole batches, all of one group; none when the tier has no batch from the offset on, as where compaction left
    /// a gap before the tier was turned on.
    ///
    /// # Errors
    ///
    /// `KAFKA_STORAGE_ERROR` when the tier has nothing of the offset, though it should; [`Error::Corrupt`] and [`Error::Io`]
    /// with the name of the file.
    pub(in crate::broker) async fn read(
        &self,
        files: &ColdFiles,
        want: ColdWant,
    ) -> Result<Option<ColdRead>> {
        files.check_has(want.offset)?;
        let content = files.manifest.content();
        let mut offset = want.offset;
        loop {
            let at = content.files.partition_point(|file| file.end_offset <= offset);
            let Some(entry) = content.files.get(at) else { return Ok(None) };
            let wanted = Wanted::new(files, entry);
            let file = self.file(&wanted).await?;
            let Some(index) = file.file.group_from(offset) else {
                offset = entry.end_offset;
                continue;
            };
            let group = self.group(&wanted, index).await?;
            match group.read(ColdWant { offset, ..want }) {
                None => offset = group.end_offset,
                Some((records, next_offset)) => {
                    let has_records = |one: &&AbortedTransaction| {
                        one.last_offset >= offset && one.first_offset < next_offset
                    };
                    let mut aborted: Vec<_> =
                        file.aborted.iter().filter(has_records).copied().collect();
                    aborted.sort_by_key(|one| one.first_offset);
                    return Ok(Some(ColdRead { records, aborted }));
                }
            }
        }
    }

    /// The first record in `[from, upper)` that is at least as late as `timestamp`: its timestamp, offset and epoch.
    /// `limit` is how large the records of a batch may be uncompressed.
    ///
    /// # Errors
    ///
    /// As [`TierReader::read`].
    pub(in crate::broker) async fn find_timestamp(
        &self,
        files: &ColdFiles,
        (timestamp, limit): (TimestampMs, usize),
        range: Range<Offset>,
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        for entry in &files.manifest.content().files {
            if entry.end_offset <= range.start
                || entry.base_offset >= range.end
                || entry.max_timestamp < timestamp
            {
                continue;
            }
            let wanted = Wanted::new(files, entry);
            let file = self.file(&wanted).await?;
            let first = file.file.group_from(range.start).unwrap_or(usize::MAX);
            for index in first..file.file.group_count() {
                if file.file.extent(index)?.max_timestamp < timestamp {
                    continue;
                }
                let group = self.group(&wanted, index).await?;
                let searched = range.clone();
                let search = move || group.find_timestamp(timestamp, &searched, limit);
                if let Some(found) = blocking(&self.0.threads, search).await? {
                    return Ok(Some(found));
                }
            }
        }
        Ok(None)
    }

    /// Opens a file for its numbers; it is not kept open.
    ///
    /// # Errors
    ///
    /// As [`TierReader::read`].
    pub(super) async fn inspect(&self, files: &ColdFiles, entry: &FileEntry) -> Result<TierFile> {
        self.0.open(&Wanted::new(files, entry)).await.map(|open| open.file)
    }

    async fn file(&self, wanted: &Wanted) -> Result<Arc<OpenFile>> {
        let key = (wanted.key, wanted.entry.name.clone());
        let (inner, wanted) = (Arc::clone(&self.0), wanted.clone());
        self.0.files.get(key, || async move { inner.open(&wanted).await.map(Arc::new) }).await
    }

    async fn group(&self, wanted: &Wanted, index: usize) -> Result<Arc<Group>> {
        let key = (wanted.key, wanted.entry.name.clone(), index);
        let (reader, wanted) = (self.clone(), wanted.clone());
        let load = || async move {
            let _turn = reader.0.loads.acquire().await.map_err(|_closed| closed())?;
            let file = reader.file(&wanted).await?;
            reader.0.load(&wanted, &file.file, index).await.map(Arc::new)
        };
        self.0.groups.get(key, load).await
    }
}

impl Inner {
    /// Opens a file, to read batches from.
    async fn open(&self, wanted: &Wanted) -> Result<OpenFile> {
        let (file, aborted) = look(&self.threads, wanted, TierFile::aborted).await?;
        Ok(OpenFile { file, aborted })
    }

    /// Makes the batches of a group.
    async fn load(&self, wanted: &Wanted, file: &TierFile, index: usize) -> Result<Group> {
        let GroupExtent { table, data, end_offset, .. } = file.extent(index)?;
        let size = wanted.entry.file_bytes;
        let table = wanted.get(table).await?;
        let tabled = file.with_source(Arc::new(Parts::new(size, vec![table.clone()])));
        let bytes = blocking(&self.threads, move || tabled.served_bytes(index)).await?;
        let room = self.make_room(bytes).await?;
        let mut parts = vec![table];
        if !data.is_empty() {
            parts.push(wanted.get(data).await?);
        }
        let whole = file.with_source(Arc::new(Parts::new(size, parts)));
        blocking(&self.threads, move || {
            let batches = whole.batches(index)?;
            let capacity = batches.iter().map(|batch| batch.bytes().len()).sum();
            let mut bytes = Vec::with_capacity(capacity);
            let mut ends = Vec::with_capacity(batches.len());
            for batch in &batches {
                bytes.extend_from_slice(batch.bytes());
                let end = u32::try_from(bytes.len()).map_err(|_too_large| {
                    Error::corrupt(whole.path(), 0, "a group has more than 4 GiB of batches")
                })?;
                ends.push((batch.header().next_offset(), end));
            }
            Ok(Group { bytes: bytes.into(), ends, end_offset, _room: room })
        })
        .await
    }

    /// Waits until a group has room, and lets others go for it (`COLD-2`).
    async fn make_room(&self, bytes: u64) -> Result<OwnedSemaphorePermit> {
        let count = u32::try_from(bytes.div_ceil(KIB)).unwrap_or(u32::MAX).min(self.room_max);
        let _waits = self.groups.wait_for_room();
        while self.room.available_permits() < count as usize && self.groups.drop_oldest() {}
        Arc::clone(&self.room).acquire_many_owned(count).await.map_err(|_closed| closed())
    }
}

/// What is known at the end of a file.
///
/// # Errors
///
/// As [`TierReader::read`].
pub(super) async fn at_end(
    threads: &Threads,
    files: &ColdFiles,
    entry: &FileEntry,
) -> Result<AtEnd> {
    look(threads, &Wanted::new(files, entry), TierFile::at_end).await.map(|(_, end)| end)
}

/// Opens a file by what its end says, and takes something more from there. Nothing of it is kept in memory.
async fn look<R: Send + 'static>(
    threads: &Threads,
    wanted: &Wanted,
    take: fn(&TierFile) -> Result<R>,
) -> Result<(TierFile, R)> {
    let size = wanted.entry.file_bytes;
    let mut parts = vec![wanted.get(size.saturating_sub(TAIL_BYTES)..size).await?];
    for _ in 0..ROUNDS_MAX {
        let source = Arc::new(Parts::new(size, parts.clone()));
        let (path, read) = (wanted.name(), Arc::clone(&source));
        let opened = blocking(threads, move || {
            let file = TierFile::open(path, read)?;
            let taken = take(&file)?;
            Ok((file.with_source(Arc::new(Parts::new(size, Vec::new()))), taken))
        });
        match (opened.await, source.missing()) {
            (Err(_), Some(missing)) => parts.push(wanted.get(missing).await?),
            (opened, _) => {
                let opened = opened?;
                wanted.check(&opened.0)?;
                return Ok(opened);
            }
        }
    }
    Err(Error::corrupt(wanted.name(), 0, "what is at its end does not say where the rest is"))
}

impl ColdFiles {
    /// Fails where there is a hole: an offset that the log starts before, and nobody has.
    fn check_has(&self, offset: Offset) -> Result<()> {
        let (name, content) = (&self.name, self.manifest.content());
        let has = match (content.start_offset(), content.end_offset()) {
            (Some(start), Some(end)) if start <= offset && offset < end => return Ok(()),
            (Some(start), Some(end)) => format!("has the offsets [{start}, {end})"),
            _ => "has none".to_owned(),
        };
        let version = self.manifest.version();
        let context = format!(
            "offset {offset} of {name} is neither on this disk nor in the tier, which {has} by version {version} of its manifest; to give up what is missing, delete the records before the local start"
        );
        tracing::error!(partition = %name, %offset, "{context}");
        Err(Error::kafka(ErrorCode::KafkaStorageError, context))
    }
}

fn closed() -> Error {
    Error::Closed { what: "the tier" }
}

impl Group {
    /// A copy of the batches that a read gives, and the offset behind them; none when all lie before its offset.
    fn read(&self, want: ColdWant) -> Option<(Bytes, Offset)> {
        let first = self.ends.partition_point(|(next, _)| *next <= want.offset);
        if first == self.ends.len() {
            return None;
        }
        let start = self.start_of(first);
        let max = want.max_bytes.min(READ_BYTES_MAX);
        let fits = |(at, (next, end)): (usize, &(Offset, u32))| {
            let size = *end as usize - start;
            *next <= want.upper && (size <= max || at == 0 && want.at_least_one)
        };
        let batches = self.ends.iter().skip(first).enumerate();
        let Some((_, (next, end))) = batches.take_while(|one| fits(*one)).last() else {
            return Some((Bytes::new(), want.offset));
        };
        let records = Bytes::copy_from_slice(&self.bytes.slice(start..*end as usize));
        Some((records, *next))
    }

    /// Where a batch starts.
    fn start_of(&self, index: usize) -> usize {
        let before = index.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |(_, end)| *end as usize)
    }

    fn find_timestamp(
        &self,
        timestamp: TimestampMs,
        range: &Range<Offset>,
        limit: usize,
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        for (index, (_, end)) in self.ends.iter().enumerate() {
            let batch = Batch::parse(&self.bytes.slice(self.start_of(index)..*end as usize))?;
            let header = batch.header();
            if header.max_timestamp < timestamp || header.last_offset() < range.start {
                continue;
            }
            for record in &batch.records(limit)? {
                let record = record?;
                if record.timestamp >= timestamp && range.contains(&record.offset) {
                    return Ok(Some((record.timestamp, record.offset, header.leader_epoch)));
                }
            }
        }
        Ok(None)
    }
}

impl Wanted {
    fn new(files: &ColdFiles, entry: &FileEntry) -> Self {
        Self { key: files.key, tier: Arc::clone(&files.tier), entry: entry.clone() }
    }

    fn name(&self) -> PathBuf {
        self.tier.name(&self.entry.name)
    }

    /// Bytes of the file, with their place.
    async fn get(&self, range: Range<u64>) -> Result<(u64, Bytes)> {
        let start = range.start;
        let got = self.tier.store().get(&self.tier.path(&self.entry.name), range);
        let got = tokio::time::timeout(STORE_TIMEOUT, got).await;
        let bytes = got.unwrap_or_else(|_elapsed| {
            let error = io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the store did not answer within {} seconds", STORE_TIMEOUT.as_secs()),
            );
            Err(Error::io("read", self.name(), error))
        })?;
        Ok((start, bytes))
    }

    /// `COLD-3`.
    fn check(&self, file: &TierFile) -> Result<()> {
        let about = file.about();
        let (topic_id, partition) = self.key;
        let is_it = about.topic_id == topic_id
            && about.partition == partition
            && about.base_offset == self.entry.base_offset
            && about.end_offset == self.entry.end_offset;
        if is_it {
            return Ok(());
        }
        let detail = format!(
            "it has the offsets [{}, {}) of {}-{}, topic id {}, and is not what the manifest means",
            about.base_offset, about.end_offset, about.topic, about.partition, about.topic_id
        );
        Err(Error::corrupt(self.name(), 0, detail))
    }
}

/// Parts of a file that were read already. What is missing is noted.
#[derive(Debug)]
struct Parts {
    size: u64,
    known: Vec<(u64, Bytes)>,
    missing: Mutex<Option<Range<u64>>>,
}

impl Parts {
    fn new(size: u64, known: Vec<(u64, Bytes)>) -> Self {
        Self { size, known, missing: Mutex::default() }
    }

    fn missing(&self) -> Option<Range<u64>> {
        self.missing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Source for Parts {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
        let found = self.known.iter().find_map(|(at, bytes)| {
            let start = place(range.start.checked_sub(*at)?);
            let end = place(range.end.checked_sub(*at)?);
            (start <= end && end <= bytes.len()).then(|| bytes.slice(start..end))
        });
        if found.is_none() && range.end <= self.size {
            *self.missing.lock().unwrap_or_else(PoisonError::into_inner) = Some(range);
        }
        found.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
