//! Random logs become files and come back, with typed columns and without; damage is found wherever it is.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::too_many_lines,
    reason = "batches are written by hand, field by field, and are small"
)]

mod typed;

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use bytes::Bytes;
use proptest::prelude::*;

use super::writer::GroupLimits;
use super::*;
use crate::error::{Error, ErrorCode};
use crate::log::{AbortedTransaction, EpochEntry};
use crate::record::control::TransactionMarker;
use crate::record::{Attributes, Batch, Compression, TimestampType, compress};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs, Uuid,
};

const LIMIT: usize = 1 << 24;
const PATH: &str = "topic=orders/partition=3/a.parquet";

type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// A record before it is written.
#[derive(Clone, Debug)]
struct Written {
    /// How many offsets compaction has left free before it.
    gap: u8,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

/// What is unusual about how a batch is written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Quirk {
    None,
    /// The lengths of values have more bytes than they need.
    LongNumbers,
    /// The attributes of the records, which mean nothing, are set.
    RecordAttributes,
    /// The base timestamp is not that of the first record.
    OtherBase,
    /// Null keys have another negative length than -1.
    OtherNull,
}

#[derive(Clone, Debug)]
struct Data {
    records: Vec<Written>,
    codec: Compression,
    producer: Option<u8>,
    transactional: bool,
    log_append_time: Option<i64>,
    delete_horizon: bool,
    quirk: Quirk,
    /// How many offsets compaction has left free behind the last record.
    rest: u8,
    new_epoch: bool,
}

#[derive(Clone, Debug)]
enum Step {
    Data(Data),
    Marker {
        producer: u8,
        committed: bool,
    },
    /// Offsets without batches.
    Gap(u8),
}

#[derive(Clone, Debug, PartialEq)]
struct Shown {
    offset: i64,
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

#[derive(Debug, Default)]
struct MadeLog {
    batches: Vec<Bytes>,
    aborted: Vec<AbortedTransaction>,
    epochs: Vec<EpochEntry>,
    base: i64,
    end: i64,
    epoch: i32,
    open: BTreeMap<u8, i64>,
    sequences: BTreeMap<u8, i32>,
    /// Where transactional batches begin, to know which were aborted.
    transactional: Vec<(usize, u8)>,
    is_aborted: Vec<usize>,
    /// The setting that its file is written with.
    values: Option<String>,
}

fn put_varint(bytes: &mut Vec<u8>, value: i64, size_min: usize) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    let start = bytes.len();
    loop {
        let byte = (raw & 0x7f) as u8;
        raw >>= 7;
        if raw == 0 && bytes.len() - start + 1 >= size_min {
            bytes.push(byte);
            return;
        }
        bytes.push(byte | 0x80);
    }
}

fn put_field(bytes: &mut Vec<u8>, field: Option<&[u8]>, (null, size_min): (i64, usize)) {
    put_varint(bytes, field.map_or(null, |field| field.len() as i64), size_min);
    bytes.extend_from_slice(field.unwrap_or_default());
}

impl MadeLog {
    fn new(base: i64) -> Self {
        let epochs = vec![EpochEntry { epoch: LeaderEpoch(0), start_offset: Offset(base) }];
        Self { base, end: base, epochs, ..Self::default() }
    }

    fn of(base: i64, steps: &[Step]) -> Self {
        let mut log = Self::new(base);
        for step in steps {
            match step {
                Step::Data(data) => log.data(data),
                Step::Marker { producer, committed } => log.marker(*producer, *committed),
                Step::Gap(count) => log.end += i64::from(*count),
            }
        }
        for producer in log.open.keys().copied().collect::<Vec<_>>() {
            log.marker(producer, producer % 2 == 0);
        }
        log
    }

    /// Written by hand: the writer of batches of the product would not write most of this.
    fn data(&mut self, data: &Data) {
        if data.new_epoch {
            self.epoch += 1;
            let (epoch, start_offset) = (LeaderEpoch(self.epoch), Offset(self.end));
            self.epochs.push(EpochEntry { epoch, start_offset });
        }
        let mut base_timestamp = data.records.first().map_or(-1, |record| record.timestamp);
        if data.quirk == Quirk::OtherBase || data.delete_horizon {
            base_timestamp = 1_650_000_000_000;
        }
        let (mut records, mut delta, mut max) = (Vec::new(), -1_i64, -1_i64);
        for record in &data.records {
            delta += 1 + i64::from(record.gap);
            max = max.max(record.timestamp);
            let mut body = vec![u8::from(data.quirk == Quirk::RecordAttributes)];
            let long = if data.quirk == Quirk::LongNumbers { 4 } else { 1 };
            let null = if data.quirk == Quirk::OtherNull { -7 } else { -1 };
            put_varint(&mut body, record.timestamp.wrapping_sub(base_timestamp), 1);
            put_varint(&mut body, delta, 1);
            put_field(&mut body, record.key.as_deref(), (null, 1));
            put_field(&mut body, record.value.as_deref(), (-1, long));
            put_varint(&mut body, record.headers.len() as i64, 1);
            for (key, value) in &record.headers {
                put_field(&mut body, Some(key), (-1, 1));
                put_field(&mut body, value.as_deref(), (-1, 1));
            }
            put_varint(&mut records, body.len() as i64, 1);
            records.extend_from_slice(&body);
        }
        let last_delta = (delta + i64::from(data.rest)).max(0) as i32;
        let codec = if data.records.is_empty() { Compression::None } else { data.codec };
        let time = match data.log_append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        };
        let transactional = data.transactional && data.producer.is_some();
        let attributes = Attributes::default()
            .with_compression(codec)
            .with_timestamp_type(time)
            .with_transactional(transactional)
            .with_delete_horizon(data.delete_horizon);
        let mut packed = Vec::new();
        compress(codec, None, &records, &mut packed).unwrap();
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&self.end.to_be_bytes());
        bytes.extend_from_slice(&(49 + packed.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&self.epoch.to_be_bytes());
        bytes.extend_from_slice(&[2, 0, 0, 0, 0]);
        bytes.extend_from_slice(&attributes.0.to_be_bytes());
        bytes.extend_from_slice(&last_delta.to_be_bytes());
        bytes.extend_from_slice(&base_timestamp.to_be_bytes());
        bytes.extend_from_slice(&data.log_append_time.unwrap_or(max).to_be_bytes());
        let producer = data.producer.map_or(-1, |id| 9000 + i64::from(id));
        bytes.extend_from_slice(&producer.to_be_bytes());
        bytes.extend_from_slice(&data.producer.map_or(-1_i16, i16::from).to_be_bytes());
        let sequence = match data.producer {
            Some(id) => {
                let next = self.sequences.entry(id).or_insert(i32::MAX - 3);
                let sequence = *next;
                *next = next.wrapping_add(last_delta + 1) & i32::MAX;
                sequence
            }
            None => -1,
        };
        bytes.extend_from_slice(&sequence.to_be_bytes());
        bytes.extend_from_slice(&(data.records.len() as i32).to_be_bytes());
        bytes.extend_from_slice(&packed);
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        if let (true, Some(id)) = (transactional, data.producer) {
            self.open.entry(id).or_insert(self.end);
            self.transactional.push((self.batches.len(), id));
        }
        self.batches.push(bytes.into());
        self.end += i64::from(last_delta) + 1;
    }

    fn marker(&mut self, producer: u8, committed: bool) {
        let id = ProducerId(9000 + i64::from(producer));
        let marker = TransactionMarker { committed, coordinator_epoch: 5 };
        let batch = marker.batch(id, ProducerEpoch(producer.into()), TimestampMs(77)).unwrap();
        let mut bytes = batch.to_vec();
        bytes[..8].copy_from_slice(&self.end.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.epoch.to_be_bytes());
        self.batches.push(bytes.into());
        let ended = self.transactional.extract_if(.., |(_, of)| *of == producer);
        let ended: Vec<usize> = ended.map(|(batch, _)| batch).collect();
        if let (Some(first), false) = (self.open.remove(&producer), committed) {
            self.is_aborted.extend(ended);
            let lowest = self.open.values().min().copied();
            self.aborted.push(AbortedTransaction {
                producer_id: id,
                first_offset: Offset(first),
                last_offset: Offset(self.end),
                last_stable_offset: Offset(lowest.unwrap_or(self.end + 1)),
            });
        }
        self.end += 1;
    }

    fn about(&self) -> About {
        About {
            topic: "orders".to_owned(),
            topic_id: Uuid([7; 16]),
            partition: PartitionIndex(3),
            base_offset: Offset(self.base),
            end_offset: Offset(self.end),
        }
    }

    fn segment(&self) -> Segment {
        Segment {
            topic: "orders".to_owned(),
            topic_id: Uuid([7; 16]),
            partition: PartitionIndex(3),
            base_offset: Offset(self.base),
            uncompressed_bytes_max: LIMIT,
        }
    }

    fn at_end(&self) -> AtEnd {
        AtEnd {
            end_offset: Offset(self.end),
            producers: Bytes::from_static(b"a snapshot"),
            epochs: self.epochs.clone(),
            aborted: self.aborted.clone(),
        }
    }

    fn batches(&self) -> impl Iterator<Item = crate::error::Result<Batch>> {
        self.batches.iter().map(Batch::parse)
    }

    fn write(&self, limits: GroupLimits) -> (Bytes, Totals) {
        let segment = self.segment();
        let aborted = AbortedRanges::new(&self.aborted);
        let mut writer = match &self.values {
            None => SegmentWriter::new(Vec::new(), PATH, segment).unwrap(),
            Some(text) => {
                let schema = ValueSchema::parse(text).unwrap();
                let columns = schema.columns().into_iter().map(|(name, _)| name);
                let names: Vec<_> = columns.zip(1000..).collect();
                SegmentWriter::with_values(Vec::new(), PATH, segment, (schema, &names)).unwrap()
            }
        };
        writer.limits = limits;
        for batch in self.batches() {
            let batch = batch.unwrap();
            writer.append(&batch, aborted.hold(batch.header())).unwrap();
        }
        let (file, totals) = writer.finish(&self.at_end()).unwrap();
        (file.into(), totals)
    }

    /// What is committed, as consumers are shown it.
    fn committed(&self) -> Vec<Shown> {
        let batches = self.batches().map(Result::unwrap).enumerate();
        batches
            .filter(|(index, batch)| {
                !batch.header().is_control() && !self.is_aborted.contains(index)
            })
            .flat_map(|(_, batch)| shown(&batch))
            .collect()
    }
}

fn shown(batch: &Batch) -> Vec<Shown> {
    batch.verify_crc().unwrap();
    let records = batch.records(LIMIT).unwrap();
    let owned = records.iter().map(|record| {
        let record = record.unwrap();
        Shown {
            offset: record.offset.0,
            timestamp: record.timestamp.0,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: record
                .headers
                .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
                .collect(),
        }
    });
    owned.collect()
}

fn open(bytes: &Bytes) -> crate::error::Result<TierFile> {
    TierFile::open(PATH, Arc::new(bytes.clone()))
}

/// The rows of a file as records; what rows cannot say is replaced in `expected`.
fn rows_of(file: &TierFile) -> Vec<Shown> {
    let mut all = Vec::new();
    for group in 0..file.group_count() {
        let Some(rows) = file.rows(group).unwrap() else { continue };
        let offsets = rows.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
        let times = rows.column_by_name("timestamp").unwrap();
        let times = times.as_primitive::<TimestampMicrosecondType>();
        let bytes = |name: &str, row: usize| {
            let column = rows.column_by_name(name).unwrap().as_binary::<i32>();
            column.is_valid(row).then(|| column.value(row).to_vec())
        };
        let lists = rows.column_by_name("headers").unwrap().as_list::<i32>();
        for row in 0..rows.num_rows() {
            let list = lists.value(row);
            let (keys, values) =
                (list.as_struct().column(0).clone(), list.as_struct().column(1).clone());
            let headers = (0..list.len()).map(|at| {
                let key = keys.as_string::<i32>().value(at).as_bytes().to_vec();
                let values = values.as_binary::<i32>();
                (key, values.is_valid(at).then(|| values.value(at).to_vec()))
            });
            all.push(Shown {
                offset: offsets.value(row),
                timestamp: if times.is_valid(row) { times.value(row) / 1000 } else { -1 },
                key: bytes("key", row),
                value: bytes("value", row),
                headers: headers.collect(),
            });
        }
    }
    all
}

/// What rows can say of a record.
fn as_row(mut record: Shown) -> Shown {
    if record.timestamp.checked_mul(1000).is_none() {
        record.timestamp = -1;
    }
    for (key, _) in &mut record.headers {
        *key = String::from_utf8_lossy(key).into_owned().into_bytes();
    }
    record
}

/// What is said to be needed of a file to have a group, and nothing else.
#[derive(Debug)]
struct Excerpt {
    size: u64,
    parts: Vec<(Range<u64>, Bytes)>,
}

impl Source for Excerpt {
    fn size(&self) -> u64 {
        self.size
    }

    fn read(&self, range: Range<u64>) -> io::Result<Bytes> {
        let is_in = |part: &Range<u64>| part.start <= range.start && range.end <= part.end;
        let part = self.parts.iter().find(|(part, _)| !range.is_empty() && is_in(part));
        let (part, bytes) = part.ok_or(io::ErrorKind::UnexpectedEof)?;
        Source::read(bytes, range.start - part.start..range.end - part.start)
    }
}

fn excerpt(file: &TierFile, bytes: &Bytes, group: usize) -> TierFile {
    let GroupExtent { table, data, .. } = file.extent(group).unwrap();
    let parts = [table, data].map(|part| (part.clone(), Source::read(bytes, part).unwrap()));
    file.with_source(Arc::new(Excerpt { size: bytes.len() as u64, parts: parts.into() }))
}

#[track_caller]
fn check_comes_back(log: &MadeLog, limits: GroupLimits) {
    let (bytes, totals) = log.write(limits);
    let file = open(&bytes).unwrap();
    assert_eq!((file.about(), file.totals()), (&log.about(), totals));
    assert_eq!(file.at_end().unwrap(), log.at_end());
    compare(&file, log.batches(), LIMIT).unwrap();
    check(&file).unwrap();
    let served = |group| excerpt(&file, &bytes, group).batches(group).unwrap();
    let served: Vec<Batch> = (0..file.group_count()).flat_map(served).collect();
    assert_eq!(served.len(), log.batches.len());
    for (served, logged) in served.iter().zip(log.batches()) {
        let (logged, header) = (logged.unwrap(), served.header());
        let is_plain = logged.header().compression == Compression::None
            && logged.header().timestamp_type() == TimestampType::CreateTime;
        if is_plain {
            assert_eq!(served.bytes(), logged.bytes());
        }
        assert_eq!(shown(served), shown(&logged));
        let expected = *logged.header();
        assert_eq!(
            (header.base_offset, header.last_offset(), header.leader_epoch, header.max_timestamp),
            (
                expected.base_offset,
                expected.last_offset(),
                expected.leader_epoch,
                expected.max_timestamp
            )
        );
        assert_eq!(
            (header.producer_id, header.producer_epoch, header.base_sequence),
            (expected.producer_id, expected.producer_epoch, expected.base_sequence)
        );
        assert_eq!(
            header.attributes.with_compression(Compression::None),
            expected.attributes.with_compression(Compression::None)
        );
        let group = file.group_of(header.base_offset).unwrap();
        let found = file.batches(group).unwrap();
        assert!(found.iter().any(|batch| batch.bytes() == served.bytes()));
    }
    let committed: Vec<Shown> = log.committed().into_iter().map(as_row).collect();
    assert_eq!(totals.rows, committed.len() as u64);
    assert_eq!(rows_of(&file), committed);
    check_statistics(&file, &committed);
}

/// What a Delta table says of the file is what its rows are.
#[track_caller]
fn check_statistics(file: &TierFile, rows: &[Shown]) {
    let statistics: serde_json::Value = serde_json::from_str(&file.delta_statistics()).unwrap();
    assert_eq!(statistics["numRecords"], rows.len());
    if rows.is_empty() {
        assert!(statistics["minValues"].as_object().unwrap().is_empty(), "{statistics}");
        return;
    }
    let (low, high) = (&statistics["minValues"], &statistics["maxValues"]);
    assert_eq!(low["offset"], rows[0].offset);
    assert_eq!(high["offset"], rows[rows.len() - 1].offset);
    let known: Vec<i64> = rows.iter().map(|row| row.timestamp).filter(|time| *time != -1).collect();
    assert_eq!(statistics["nullCount"]["timestamp"], rows.len() - known.len());
    // Of the years 0 to 9999.
    let range = known.iter().min().zip(known.iter().max());
    let range = range
        .filter(|(first, last)| **first >= -62_167_219_200_000 && **last < 253_402_300_800_000);
    let said = |values: &serde_json::Value| {
        let text = values.get("timestamp")?.as_str()?;
        Some(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_millis())
    };
    assert_eq!(said(low).zip(said(high)), range.map(|(first, last)| (*first, *last)));
}

#[test]
fn the_schema_of_a_table_has_the_columns_of_files_and_their_path() {
    let schema: serde_json::Value = serde_json::from_str(&delta_schema([]).unwrap()).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let names: Vec<_> = fields.iter().map(|field| field["name"].as_str().unwrap()).collect();
    let expected = ["topic", "partition", "offset", "timestamp", "key", "value", "headers"];
    assert_eq!(names, expected);
    let types: Vec<_> = fields.iter().map(|field| field["type"].clone()).collect();
    assert_eq!(types[..6], ["string", "integer", "long", "timestamp", "binary", "binary"]);
    let headers = &types[6];
    assert_eq!((&headers["type"], &headers["containsNull"]), (&"array".into(), &false.into()));
    assert_eq!(headers["elementType"]["fields"][1]["type"], "binary");
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::weighted(0.8, proptest::collection::vec(any::<u8>(), 0..40))
}

fn any_timestamp() -> impl Strategy<Value = i64> {
    let edges = [-1, 0, -5, i64::MAX, i64::MIN, i64::MAX / 1000, i64::MAX / 1000 + 1];
    prop_oneof![
        6 => 1_700_000_000_000_i64..1_700_000_100_000,
        1 => proptest::sample::select(edges.to_vec()),
    ]
}

fn any_written() -> impl Strategy<Value = Written> {
    let name = prop_oneof![
        4 => proptest::sample::select(vec![b"trace".to_vec(), b"".to_vec(), "größe".as_bytes().to_vec()]),
        1 => proptest::collection::vec(any::<u8>(), 0..6),
    ];
    let headers = proptest::collection::vec((name, any_bytes()), 0..3);
    let gap = prop_oneof![9 => Just(0_u8), 1 => 1_u8..5];
    (gap, any_timestamp(), any_bytes(), any_bytes(), headers).prop_map(
        |(gap, timestamp, key, value, headers)| Written { gap, timestamp, key, value, headers },
    )
}

fn any_data() -> impl Strategy<Value = Data> {
    let quirk = prop_oneof![
        8 => Just(Quirk::None),
        1 => Just(Quirk::LongNumbers),
        1 => Just(Quirk::RecordAttributes),
        1 => Just(Quirk::OtherBase),
        1 => Just(Quirk::OtherNull),
    ];
    let log_append_time = proptest::option::weighted(0.2, 1_700_000_000_000_i64..1_700_000_001_000);
    let producer = proptest::option::weighted(0.6, 0_u8..3);
    (
        (proptest::collection::vec(any_written(), 0..8), 0_i16..5, producer, any::<bool>()),
        (log_append_time, proptest::bool::weighted(0.1), quirk, 0_u8..3),
        proptest::bool::weighted(0.1),
    )
        .prop_map(
            |(
                (records, codec, producer, transactional),
                (time, horizon, quirk, rest),
                new_epoch,
            )| {
                Data {
                    records,
                    codec: Compression::from_id(codec).unwrap(),
                    producer,
                    transactional,
                    log_append_time: time,
                    delete_horizon: horizon,
                    quirk,
                    rest: rest / 2,
                    new_epoch,
                }
            },
        )
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_data().prop_map(Step::Data),
        2 => (0_u8..3, any::<bool>())
            .prop_map(|(producer, committed)| Step::Marker { producer, committed }),
        1 => (1_u8..4).prop_map(Step::Gap),
    ]
}

fn any_limits() -> impl Strategy<Value = GroupLimits> {
    (1_u32..30, 1_usize..12, 50_usize..2000).prop_map(|(rows, lines, bytes)| GroupLimits {
        rows,
        lines,
        bytes,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn every_log_comes_back(
        base in 0_i64..1 << 40,
        steps in proptest::collection::vec(any_step(), 0..25),
        limits in any_limits(),
    ) {
        check_comes_back(&MadeLog::of(base, &steps), limits);
    }
}

/// A log with everything in it, of a few kilobytes.
fn some_log() -> MadeLog {
    let record = |number: i64| Written {
        gap: 0,
        timestamp: 1_700_000_000_000 + number,
        key: (number % 3 != 0).then(|| format!("key-{number}").into_bytes()),
        value: Some(format!("value-{number}").into_bytes()),
        headers: vec![(b"n".to_vec(), Some(vec![1]))],
    };
    let data = |codec, producer, quirk| {
        Step::Data(Data {
            records: (0..6).map(record).collect(),
            codec,
            producer,
            transactional: true,
            log_append_time: None,
            delete_horizon: false,
            quirk,
            rest: 0,
            new_epoch: false,
        })
    };
    let steps = [
        data(Compression::None, None, Quirk::None),
        data(Compression::Zstd, Some(1), Quirk::None),
        data(Compression::None, Some(2), Quirk::LongNumbers),
        Step::Marker { producer: 1, committed: false },
        data(Compression::Lz4, None, Quirk::None),
        Step::Gap(3),
        Step::Marker { producer: 2, committed: true },
    ];
    MadeLog::of(100, &steps)
}

const SMALL: GroupLimits = GroupLimits { rows: 10, lines: 4, bytes: 10_000 };

fn path_of(error: &Error) -> Option<&Path> {
    match error {
        Error::Corrupt { path, .. } | Error::Io { path, .. } => Some(path),
        _ => None,
    }
}

#[test]
fn a_flipped_bit_anywhere_is_found_and_the_file_is_named() {
    let (bytes, _) = some_log().write(SMALL);
    for place in 0..bytes.len() {
        let mut damaged = bytes.to_vec();
        damaged[place] ^= 1 << (place % 8);
        let found = open(&damaged.into()).and_then(|file| check(&file));
        let error = found.expect_err(&format!("byte {place} of {}", bytes.len()));
        assert_eq!(path_of(&error), Some(Path::new(PATH)), "byte {place}: {error}");
        assert_eq!(error.code(), ErrorCode::KafkaStorageError);
    }
}

#[test]
fn a_file_that_was_cut_is_found() {
    let (bytes, _) = some_log().write(SMALL);
    for size in 0..bytes.len() {
        let error = open(&bytes.slice(..size)).and_then(|file| check(&file)).unwrap_err();
        assert_eq!(path_of(&error), Some(Path::new(PATH)), "{size} bytes: {error}");
    }
}

#[test]
fn a_damaged_block_is_named_and_the_others_are_served() {
    let record = |number: u32| Written {
        gap: 0,
        timestamp: 5,
        key: None,
        // Bytes that no codec makes smaller.
        value: Some(
            (0..40_000_u32)
                .flat_map(|at| crc32c::crc32c(&(at + number * 40_000).to_le_bytes()).to_le_bytes())
                .collect(),
        ),
        headers: Vec::new(),
    };
    let data = |number| {
        Step::Data(Data {
            records: vec![record(number)],
            codec: Compression::None,
            producer: None,
            transactional: false,
            log_append_time: None,
            delete_horizon: false,
            quirk: Quirk::None,
            rest: 0,
            new_epoch: false,
        })
    };
    let log = MadeLog::of(0, &[data(1), data(2), data(3), data(4)]);
    let (bytes, _) = log.write(GroupLimits { rows: 1, ..GroupLimits::default() });
    let mut damaged = bytes.to_vec();
    // In the third of four row groups of 160 kB, and so in the sixth or seventh block.
    let place = 400_000;
    damaged[place] ^= 1;
    let file = open(&damaged.into()).unwrap();
    let served: Vec<bool> = (0..4).map(|group| file.batches(group).is_ok()).collect();
    assert_eq!(served, [true, true, false, true]);
    let Err(Error::Corrupt { position, .. }) = file.batches(2) else { panic!("it is served") };
    assert_eq!(position, (place as u64) / 65536 * 65536);
    assert!(check(&file).is_err());
}

#[test]
fn a_difference_to_the_log_is_found() {
    let log = some_log();
    let (bytes, _) = log.write(SMALL);
    let file = open(&bytes).unwrap();
    let compare_with = |batches: Vec<Bytes>| {
        let batches = batches.iter().map(Batch::parse).collect::<Vec<_>>();
        compare(&file, batches, LIMIT)
    };
    compare_with(log.batches.clone()).unwrap();
    for at in 0..log.batches.len() {
        let mut fewer = log.batches.clone();
        fewer.remove(at);
        compare_with(fewer).unwrap_err();
        let mut more = log.batches.clone();
        more.insert(at, more[at].clone());
        compare_with(more).unwrap_err();
        // The epoch of the leader, which no checksum covers.
        let mut other = log.batches.clone();
        let mut changed = other[at].to_vec();
        changed[15] ^= 1;
        other[at] = changed.into();
        compare_with(other).unwrap_err();
    }
}

#[test]
fn batches_that_do_not_fit_are_refused() {
    let log = some_log();
    let segment = |base| Segment { base_offset: Offset(base), ..log.segment() };
    let first = Batch::parse(&log.batches[0]).unwrap();
    let mut writer = SegmentWriter::new(Vec::new(), PATH, segment(101)).unwrap();
    writer.append(&first, false).unwrap_err();
    let mut writer = SegmentWriter::new(Vec::new(), PATH, segment(100)).unwrap();
    writer.append(&first, false).unwrap();
    writer.finish(&AtEnd { end_offset: Offset(105), ..log.at_end() }).unwrap_err();
    let mut writer = SegmentWriter::new(Vec::new(), PATH, segment(100)).unwrap();
    writer.append(&first, false).unwrap();
    writer.append(&first, false).unwrap_err();
    let mut damaged = log.batches[1].to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    let damaged = Batch::parse(&damaged.into()).unwrap();
    assert_eq!(writer.append(&damaged, false).unwrap_err().code(), ErrorCode::CorruptMessage);
}

#[test]
fn a_segment_without_batches_becomes_a_file() {
    check_comes_back(&MadeLog::of(10, &[Step::Gap(5)]), GroupLimits::default());
    check_comes_back(&MadeLog::of(10, &[]), GroupLimits::default());
}

#[test]
fn other_files_are_refused() {
    let texts: [&[u8]; 3] = [b"", b"PAR1", b"PAR1 and more, but no Parquet"];
    for text in texts {
        assert!(matches!(open(&Bytes::from_static(text)), Err(Error::Corrupt { .. })));
    }
    let schema = schema::schema();
    let writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), schema, None).unwrap();
    let error = open(&writer.into_inner().unwrap().into()).unwrap_err();
    assert!(error.to_string().contains("not of the tier"), "{error}");
}
