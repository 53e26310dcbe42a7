//! Consumers get from the tier what they would have got from the log.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::super::parking::Parking;
use super::super::partition::{Assignment, Isolation, OpenLog, Partition, Surroundings};
use super::super::storage::log_config;
use super::{ColdRead, ColdWant, TierReader};
use crate::config::{BrokerConfig, ConfigMap, TopicConfig};
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Health, Log, LogConfig, LogReader, OpenOptions, ReadRequest};
use crate::machine::metadata::{MetadataImage, PartitionImage};
use crate::machine::tier::{Claim, Delta, FileEntry, Manifest};
use crate::record::control::TransactionMarker;
use crate::record::{Batch, BatchBuilder, BatchOptions, Batches, Compression};
use crate::store::{FolderStore, Store};
use crate::tier::{AbortedRanges, AtEnd, Segment, SegmentWriter};
use crate::types::{
    LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId,
    Sequence, TimestampMs, TopicPartition, Uuid,
};

const ID: Uuid = Uuid([7; 16]);
const LIMIT: usize = 1 << 24;
/// After all records.
const NOW: TimestampMs = TimestampMs(1_000_000);

/// A partition whose log has small segments, a tier in a folder, and what the log had at first.
struct Fixture {
    directory: TempDir,
    env: Env,
    partition: Arc<Partition>,
    store: Arc<dyn Store>,
    manifest: Manifest,
    batches: Vec<Batch>,
    /// What the log said of aborted transactions between two offsets.
    aborted: Vec<crate::log::AbortedTransaction>,
}

fn topic() -> Arc<TopicConfig> {
    let settings =
        [("remote.storage.enable", "true"), ("local.retention.ms", "0"), ("retention.ms", "-1")];
    let settings: ConfigMap =
        settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut broker = BrokerConfig::default();
    broker.tier.url = Some("file:///tier".to_owned());
    Arc::new(TopicConfig::resolve(&settings, &broker).unwrap())
}

fn options(directory: &TempDir, log_start: Offset) -> OpenOptions {
    let config = log_config(&topic(), &BrokerConfig::default());
    OpenOptions {
        partition: TopicPartition::new("orders", 0),
        topic_id: ID,
        config: LogConfig { segment_bytes: 2000, ..config },
        health: Health::new(directory.path()),
        recovery_point: Offset::ZERO,
        log_start_offset: log_start,
        clean_shutdown: true,
        clean_until: None,
    }
}

fn partition(directory: &TempDir, log: Log, store: &Arc<dyn Store>) -> Arc<Partition> {
    let around = Surroundings {
        node_id: NodeId(1),
        health: Health::new(directory.path()),
        parking: Arc::new(Parking::new()),
        isr_requests: Arc::default(),
        store: Some(Arc::clone(store)),
        volatile: false,
    };
    let state = PartitionImage {
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        removing: Vec::new(),
        adding: Vec::new(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(9),
        partition_epoch: PartitionEpoch(9),
    };
    let brokers = MetadataImage::default();
    let assignment = Assignment {
        state: &state,
        config: topic(),
        brokers: &brokers,
        lag_time_max: Duration::from_secs(30),
        now: Duration::ZERO,
    };
    let log = OpenLog { log, high_watermark: Offset::ZERO };
    Partition::new((ID, PartitionIndex(0)), log, &assignment, &around).unwrap()
}

fn batch(base: i64, options: BatchOptions, count: i64) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { base_offset: Offset(base), ..options });
    for record in 0..count {
        let (time, value) =
            (TimestampMs(100 + (base + record) * 10), format!("value {}", base + record));
        builder.append(time, Some(b"key"), Some(value.as_bytes()), &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn marker(base: i64, producer: i64, committed: bool) -> Bytes {
    let marker = TransactionMarker { committed, coordinator_epoch: 0 };
    let time = TimestampMs(100 + base * 10);
    let mut bytes = marker.batch(ProducerId(producer), ProducerEpoch(0), time).unwrap().to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&0_i32.to_be_bytes());
    bytes.into()
}

/// Plain and compressed batches, two transactions that run beside each other, in two epochs.
fn written() -> Vec<Bytes> {
    let codecs = [Compression::None, Compression::Zstd, Compression::None, Compression::Lz4];
    let (mut all, mut next) = (Vec::new(), 0);
    let mut sequence = 0;
    for step in 0..120_i64 {
        let epoch = LeaderEpoch(if step < 50 { 0 } else { 3 });
        let plain = BatchOptions { leader_epoch: epoch, ..BatchOptions::default() };
        let producer = if step % 2 == 0 { 501 } else { 502 };
        let bytes = match step % 20 {
            3..=8 => {
                sequence += 2;
                let options = BatchOptions {
                    producer_id: ProducerId(producer),
                    producer_epoch: ProducerEpoch(0),
                    base_sequence: Sequence(sequence),
                    transactional: true,
                    ..plain
                };
                batch(next, options, 2)
            }
            9 => marker(next, 502, false),
            15 => marker(next, 501, step > 60),
            _ => {
                let compression = codecs[usize::try_from(step % 4).unwrap()];
                batch(next, BatchOptions { compression, ..plain }, 1 + step % 5)
            }
        };
        let mut bytes = bytes.to_vec();
        bytes[12..16].copy_from_slice(&epoch.0.to_be_bytes());
        let bytes = Bytes::from(bytes);
        next = Batch::parse(&bytes).unwrap().header().next_offset().0;
        all.push(bytes);
    }
    all
}

fn read_log(reader: &LogReader, from: Offset, upper: Offset) -> Vec<Batch> {
    let (mut offset, mut found) = (from, Vec::new());
    while offset < upper {
        let request = ReadRequest { offset, max_bytes: 500, upper, at_least_one: true };
        let read = reader.read(request).unwrap();
        if read.records.is_empty() {
            break;
        }
        found.extend(Batches::new(read.records).map(Result::unwrap));
        offset = read.next_offset;
    }
    found
}

impl Fixture {
    fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let env = Env::real();
        let opened = options(&directory, Offset::ZERO);
        let mut log = Log::create(&env, &directory.path().join("orders-0"), opened).unwrap();
        for bytes in written() {
            log.append_as_follower(&bytes, LeaderEpoch(9), TimestampMs(1)).unwrap();
        }
        let store = FolderStore::open(&directory.path().join("tier"), env.clone()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let partition = partition(&directory, log, &store);
        let reader = partition.reader().clone();
        let batches = read_log(&reader, Offset::ZERO, reader.log_end_offset());
        let aborted = reader.aborted_transactions(Offset::ZERO, reader.log_end_offset());
        assert_eq!(batches.len(), 120);
        assert_eq!(aborted.len(), 9);
        let manifest = Manifest::default();
        Self { directory, env, partition, store, manifest, batches, aborted }
    }

    /// Copies all closed segments, and deletes them here.
    async fn tiered() -> Self {
        let mut fixture = Self::new();
        fixture.copy(usize::MAX).await;
        fixture.publish();
        fixture.retain();
        fixture
    }

    fn reader(&self) -> &LogReader {
        self.partition.reader()
    }

    fn file(&self, index: usize) -> PathBuf {
        let name = &self.manifest.content().files[index].name;
        self.directory.path().join("tier/topic=orders/partition=0").join(name)
    }

    /// Copies some closed segments to the tier.
    async fn copy(&mut self, count: usize) {
        let reader = self.reader().clone();
        let claim =
            Claim { leader_epoch: LeaderEpoch(9), broker: NodeId(1), token: "t".to_owned() };
        for segment in reader.closed_segments(reader.high_watermark()).into_iter().take(count) {
            let (base, end) = (segment.base_offset, segment.end_offset);
            let batches = read_log(&reader, base, end);
            let segment = Segment {
                topic: "orders".to_owned(),
                topic_id: ID,
                partition: PartitionIndex(0),
                base_offset: base,
                uncompressed_bytes_max: LIMIT,
            };
            let aborted = reader.aborted_transactions(base, end);
            let ranges = AbortedRanges::new(&aborted);
            let mut writer = SegmentWriter::new(Vec::new(), "new", segment).unwrap();
            for batch in &batches {
                writer.append(batch, ranges.hold(batch.header())).unwrap();
            }
            let at_end = AtEnd {
                end_offset: end,
                producers: Bytes::new(),
                epochs: reader.epochs(),
                aborted,
            };
            let (bytes, totals) = writer.finish(&at_end).unwrap();
            let local = self.directory.path().join("new");
            std::fs::write(&local, &bytes).unwrap();
            let name = format!("{:020}-{:020}-07070707-1.1.parquet", base.0, end.0 - 1);
            self.store.put(&format!("topic=orders/partition=0/{name}"), local).await.unwrap();
            let newest = batches.iter().map(|batch| batch.header().max_timestamp).max();
            let add = FileEntry {
                name,
                base_offset: base,
                end_offset: end,
                last_epoch: batches.last().unwrap().header().leader_epoch,
                max_timestamp: newest.unwrap(),
                log_bytes: totals.log_bytes,
                file_bytes: bytes.len() as u64,
                crc32c: crc32c::crc32c(&bytes),
            };
            let delta = Delta { add: Some(add), ..Delta::default() };
            let version = self.manifest.next(&claim, delta).unwrap();
            self.manifest.apply(&version).unwrap();
        }
    }

    fn publish(&self) {
        self.partition.publish_tier(self.partition.leader_epoch(), &self.manifest).unwrap();
    }

    fn retain(&self) {
        let high_watermark = self.partition.high_watermark();
        self.partition.with_log(|log| log.apply_retention(NOW, high_watermark)).unwrap();
    }

    fn cold(&self, cache_bytes: u64) -> TierReader {
        TierReader::new(self.env.threads.clone(), cache_bytes)
    }

    async fn read(
        &self,
        tier: &TierReader,
        offset: i64,
        max_bytes: usize,
    ) -> Result<Option<ColdRead>> {
        let want = ColdWant {
            offset: Offset(offset),
            upper: self.partition.end(Isolation::Committed),
            max_bytes,
            at_least_one: true,
        };
        self.partition.read_tier(tier, want).await
    }

    /// Everything from an offset on, from the tier and then from the log.
    async fn read_on(&self, tier: &TierReader, from: Offset, max_bytes: usize) -> Vec<Batch> {
        let (mut offset, mut found) = (from, Vec::new());
        while self.partition.is_in_tier(offset) {
            let read = self.read(tier, offset.0, max_bytes).await.unwrap().unwrap();
            let read: Vec<Batch> = Batches::new(read.records).map(Result::unwrap).collect();
            offset = read.last().unwrap().header().next_offset();
            found.extend(read);
        }
        found.extend(read_log(self.reader(), offset, self.reader().log_end_offset()));
        found
    }
}

fn records(batch: &Batch) -> Vec<(i64, i64, Option<Vec<u8>>)> {
    batch.verify_crc().unwrap();
    let records = batch.records(LIMIT).unwrap();
    let owned = records.iter().map(Result::unwrap);
    owned.map(|one| (one.offset.0, one.timestamp.0, one.value.map(<[u8]>::to_vec))).collect()
}

fn check_same(found: &[Batch], expected: &[Batch]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        if expected.header().compression == Compression::None {
            assert_eq!(found.bytes(), expected.bytes());
        }
        assert_eq!(records(found), records(expected));
        assert_eq!(found.header().leader_epoch, expected.header().leader_epoch);
        assert_eq!(found.header().producer_id, expected.header().producer_id);
    }
}

#[tokio::test]
async fn what_was_in_the_log_comes_from_the_tier_from_any_offset() {
    let fixture = Fixture::tiered().await;
    let (start, local) =
        (fixture.reader().log_start_offset(), fixture.reader().local_start_offset());
    assert_eq!((start, fixture.reader().segment_count()), (Offset::ZERO, 1));
    assert!(local > Offset(100), "{local}");
    let tier = fixture.cold(1 << 20);
    for max_bytes in [1, 300, 1 << 20] {
        check_same(&fixture.read_on(&tier, start, max_bytes).await, &fixture.batches);
    }
    for offset in 0..local.0 {
        let holds = |batch: &&Batch| batch.header().last_offset() >= Offset(offset);
        let at = fixture.batches.iter().position(|batch| holds(&batch)).unwrap();
        let read = fixture.read(&tier, offset, 400).await.unwrap().unwrap();
        let found: Vec<Batch> = Batches::new(read.records.clone()).map(Result::unwrap).collect();
        check_same(&found, &fixture.batches[at..at + found.len()]);
        assert!(read.records.len() <= 400 || found.len() == 1, "max.bytes");
        let end = found.last().unwrap().header().next_offset();
        let has_records = |one: &&crate::log::AbortedTransaction| {
            one.first_offset < end && one.last_offset >= Offset(offset)
        };
        let mut expected: Vec<_> = fixture.aborted.iter().filter(has_records).copied().collect();
        expected.sort_by_key(|one| one.first_offset);
        assert_eq!(read.aborted, expected, "from {offset} to {end}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_that_the_tier_is_not_known_to_have() {
    let mut fixture = Fixture::new();
    let segments = fixture.reader().segment_count();
    let starts = |fixture: &Fixture| {
        (fixture.reader().log_start_offset(), fixture.reader().local_start_offset())
    };
    fixture.retain();
    assert_eq!(fixture.reader().segment_count(), segments, "the manifest was not read");
    fixture.copy(2).await;
    fixture.retain();
    assert_eq!(fixture.reader().segment_count(), segments, "nobody was told");
    fixture.publish();
    fixture.retain();
    let end = fixture.manifest.content().end_offset().unwrap();
    assert_eq!(starts(&fixture), (Offset::ZERO, end));
    assert_eq!(fixture.reader().segment_count(), segments - 2);
    assert_eq!(fixture.reader().epoch_of(Offset::ZERO), Some(LeaderEpoch(0)), "epochs stay");
    fixture.partition.forget_tier().unwrap();
    fixture.retain();
    assert_eq!(starts(&fixture), (Offset::ZERO, end));
    let tier = fixture.cold(1 << 20);
    let error = fixture.read(&tier, 0, 1).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KafkaStorageError);
    assert!(error.to_string().contains("was not read yet"), "{error}");
}

#[tokio::test]
async fn a_log_still_starts_in_the_tier_after_a_restart() {
    let fixture = Fixture::tiered().await;
    let (deleted, local) = (Offset(37), fixture.reader().local_start_offset());
    fixture.partition.delete_records(deleted).unwrap();
    let epochs = fixture.reader().epochs();
    assert_eq!(fixture.reader().local_start_offset(), local);
    let tier = fixture.cold(1 << 20);
    assert!(!fixture.partition.is_in_tier(Offset(36)));
    fixture.partition.take_log().unwrap().close().unwrap();
    for clean_shutdown in [true, false] {
        let path = fixture.directory.path().join("orders-0");
        let opened = OpenOptions { clean_shutdown, ..options(&fixture.directory, deleted) };
        let (log, _) = Log::open(&fixture.env, &path, opened).unwrap();
        let again = partition(&fixture.directory, log, &fixture.store);
        let reader = again.reader();
        let starts = (reader.log_start_offset(), reader.local_start_offset());
        assert_eq!(starts, (deleted, local));
        assert_eq!(reader.epochs(), epochs);
        again.publish_tier(again.leader_epoch(), &fixture.manifest).unwrap();
        assert_eq!(reader.log_start_offset(), deleted);
        let ended = reader.log_end_offset();
        let again = Fixture {
            partition: again,
            directory: TempDir::new().unwrap(),
            env: Env::real(),
            store: Arc::clone(&fixture.store),
            manifest: fixture.manifest.clone(),
            batches: Vec::new(),
            aborted: Vec::new(),
        };
        let found = again.read_on(&tier, deleted, 1 << 20).await;
        let holds = |batch: &Batch| batch.header().last_offset() >= deleted;
        let at = fixture.batches.iter().position(holds).unwrap();
        check_same(&found, &fixture.batches[at..]);
        assert_eq!(found.last().unwrap().header().next_offset(), ended);
        again.partition.take_log().unwrap().close().unwrap();
    }
    // Without a tier, nothing is elsewhere.
    let path = fixture.directory.path().join("orders-0");
    let mut opened = options(&fixture.directory, deleted);
    opened.config.local_retention = None;
    let (log, _) = Log::open(&fixture.env, &path, opened).unwrap();
    assert_eq!(log.log_start_offset(), local);
}

#[tokio::test]
async fn times_are_found_in_the_tier() {
    let fixture = Fixture::tiered().await;
    let tier = fixture.cold(1 << 20);
    let end = fixture.partition.end(Isolation::Committed);
    let (start, local) = (Offset(21), fixture.reader().local_start_offset());
    fixture.partition.delete_records(start).unwrap();
    let all: Vec<(i64, i64)> = fixture
        .batches
        .iter()
        .flat_map(|batch| {
            let records = batch.records(LIMIT).unwrap();
            let times =
                records.iter().map(|one| one.unwrap()).map(|one| (one.offset.0, one.timestamp.0));
            times.collect::<Vec<_>>()
        })
        .collect();
    for time in (0..100 + local.0 * 10 + 50).step_by(7) {
        let target = (TimestampMs(time), LIMIT);
        let found = fixture.partition.find_in_tier(&tier, target, end).await.unwrap();
        let is_it = |(offset, at): &&(i64, i64)| *at >= time && (start.0..local.0).contains(offset);
        let expected = all.iter().find(|one| is_it(one)).copied();
        assert_eq!(found.map(|(at, offset, _)| (offset.0, at.0)), expected, "{time}");
    }
}

#[tokio::test]
async fn a_damaged_or_missing_file_is_named_and_nothing_of_it_is_served() {
    let fixture = Fixture::tiered().await;
    let path = fixture.file(1);
    let base = fixture.manifest.content().files[1].base_offset.0;
    let whole = std::fs::read(&path).unwrap();
    let fails = |error: &Error| {
        assert_eq!(error.code(), ErrorCode::KafkaStorageError, "{error}");
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(error.chain().contains(name), "{}", error.chain());
    };
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        std::fs::write(&path, &damaged).unwrap();
        // Nothing is known of the file before.
        let tier = fixture.cold(1 << 20);
        match fixture.read(&tier, base, 1 << 20).await {
            Err(error) => fails(&error),
            // What was damaged is of no use for a fetch: the page index, or the producers.
            Ok(read) => {
                let read: Vec<Batch> =
                    Batches::new(read.unwrap().records).map(Result::unwrap).collect();
                let holds = |batch: &Batch| batch.header().base_offset.0 == base;
                let at = fixture.batches.iter().position(holds).unwrap();
                check_same(&read, &fixture.batches[at..at + read.len()]);
            }
        }
        fixture.read(&tier, 0, 1).await.unwrap().unwrap();
    }
    let tier = fixture.cold(1 << 20);
    std::fs::write(&path, std::fs::read(fixture.file(0)).unwrap()).unwrap();
    fails(&fixture.read(&tier, base, 1).await.unwrap_err());
    std::fs::remove_file(&path).unwrap();
    fails(&fixture.read(&tier, base, 1).await.unwrap_err());
    std::fs::write(&path, &whole).unwrap();
    fixture.read(&tier, base, 1).await.unwrap().unwrap();
    let root = fixture.directory.path().join("tier");
    std::fs::rename(&root, fixture.directory.path().join("away")).unwrap();
    let tier = fixture.cold(1 << 20);
    let error = fixture.read(&tier, base, 1).await.unwrap_err();
    assert!(error.code().retriable(), "{error}");
    std::fs::rename(fixture.directory.path().join("away"), &root).unwrap();
    fixture.read(&tier, base, 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hundred_readers_share_a_cache_that_has_room_for_one_group() {
    let fixture = Arc::new(Fixture::tiered().await);
    let tier = fixture.cold(2 << 10);
    let mut readers = tokio::task::JoinSet::new();
    for reader in 0..100 {
        let (fixture, tier) = (Arc::clone(&fixture), tier.clone());
        readers.spawn(async move {
            let from = fixture.batches[reader].header().base_offset;
            let found = fixture.read_on(&tier, from, 500).await;
            check_same(&found, &fixture.batches[reader..]);
        });
    }
    while let Some(done) = readers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_hole_is_reported_and_not_taken_for_the_end() {
    let fixture = Fixture::tiered().await;
    let mut manifest = Manifest::default();
    let claim = Claim { leader_epoch: LeaderEpoch(9), broker: NodeId(1), token: "t".to_owned() };
    manifest.apply(&manifest.next(&claim, Delta::default()).unwrap()).unwrap();
    fixture.partition.publish_tier(fixture.partition.leader_epoch(), &manifest).unwrap();
    let error = fixture.read(&fixture.cold(1 << 20), 0, 1).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KafkaStorageError);
    assert!(error.to_string().contains("neither on this disk nor in the tier"), "{error}");
}
