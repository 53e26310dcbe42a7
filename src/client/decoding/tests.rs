//! Several threads give what one gives: outputs, their order, how far they go, and errors.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use proptest::prelude::*;

use super::*;
use crate::columnar::{AvroFormat, AvroSchema, IpcFormat, KeyFormat, OnError, ReaderSchema};
use crate::record::{BatchBuilder, BatchOptions, Compression};
use crate::types::{Offset, TimestampMs, TopicPartition};

const AVRO: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "long"}, {"name": "text", "type": ["null", "string"]}]}"#;

#[derive(Clone, Copy, Debug)]
enum Kind {
    Raw,
    Text,
    JsonGiven,
    JsonFound,
    Avro,
    ArrowIpc,
    Debezium,
}

impl Kind {
    fn format(self) -> ValueFormat {
        let field = |name: &str, kind| Field::new(name, kind, true);
        match self {
            Self::Raw => ValueFormat::Raw,
            Self::Text => ValueFormat::Text,
            Self::JsonGiven => ValueFormat::json(Fields::from(vec![
                field("id", DataType::Int64),
                field("text", DataType::Utf8View),
                field("at", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()))),
            ])),
            Self::JsonFound => ValueFormat::json_inferred(),
            Self::Avro => ValueFormat::Avro(Arc::new(AvroFormat {
                schema: ReaderSchema::Given(AvroSchema::parse(AVRO).unwrap()),
                framed: false,
                source: None,
            })),
            Self::ArrowIpc => ValueFormat::ArrowIpc(IpcFormat::inferred()),
            Self::Debezium => ValueFormat::Debezium(Arc::new(crate::columnar::DebeziumFormat {
                inner: ValueFormat::json_inferred(),
                unwrap: true,
                decimals: crate::columnar::DecimalStrings::default(),
            })),
        }
    }

    /// A value of the format; every so many one that does not decode.
    fn value(self, id: i64, bad: bool) -> Option<Vec<u8>> {
        if id % 17 == 3 {
            return None;
        }
        if bad {
            return Some(b"\xff no value".to_vec());
        }
        let text = "long enough not to be inline, and more of it: "
            .repeat(usize::try_from(id % 5).unwrap());
        let json = format!(
            r#"{{"id": {id}, "text": "{text}", "at": "2026-01-02T03:04:05.{:03}Z"}}"#,
            id % 1000
        );
        Some(match self {
            Self::Raw | Self::Text | Self::JsonGiven | Self::JsonFound => json.into_bytes(),
            Self::Debezium => {
                format!(r#"{{"op": "c", "after": {json}, "ts_ms": {id}}}"#).into_bytes()
            }
            Self::Avro => {
                let mut value = Vec::new();
                let mut put = |number: i64| {
                    let mut left = ((number << 1) ^ (number >> 63)).cast_unsigned();
                    while left >= 0x80 {
                        value.push(left.to_le_bytes()[0] | 0x80);
                        left >>= 7;
                    }
                    value.push(left.to_le_bytes()[0]);
                };
                put(id);
                put(1);
                put(i64::try_from(text.len()).unwrap());
                value.extend_from_slice(text.as_bytes());
                value
            }
            Self::ArrowIpc => {
                let rows = id % 4;
                let column: ArrayRef = Arc::new(Int64Array::from_iter_values(id..id + rows));
                let table = RecordBatch::try_from_iter([("id", column)]).unwrap();
                let mut writer = StreamWriter::try_new(Vec::new(), &table.schema()).unwrap();
                writer.write(&table).unwrap();
                writer.into_inner().unwrap()
            }
        })
    }
}

/// What is read, and how.
#[derive(Clone, Debug)]
struct Case {
    kind: Kind,
    /// The partition, the records of each batch, and the codec, for each chunk.
    chunks: Vec<(i32, Vec<usize>, Compression)>,
    /// One record in so many does not decode.
    bad_every: i64,
    /// A byte of that chunk is flipped.
    damaged: Option<usize>,
    on_error: OnError,
    max_rows: usize,
}

impl Case {
    fn options(&self) -> DecodeOptions {
        DecodeOptions {
            value: self.kind.format(),
            key: KeyFormat::Text,
            on_error: self.on_error,
            max_rows: self.max_rows,
            offsets: true,
            ..DecodeOptions::default()
        }
    }

    fn chunks(&self) -> VecDeque<FetchedBytes> {
        let mut ends = [0_i64; 3];
        let mut id = 0;
        let mut chunks = VecDeque::new();
        for (place, (partition, batches, compression)) in self.chunks.iter().enumerate() {
            let end = &mut ends[usize::try_from(*partition).unwrap()];
            let start = *end;
            let mut bytes = Vec::new();
            for records in batches {
                let options = BatchOptions {
                    base_offset: Offset(*end),
                    compression: *compression,
                    ..BatchOptions::default()
                };
                let mut builder = BatchBuilder::new(options);
                for _ in 0..*records {
                    id += 1;
                    let value = self.kind.value(id, id % self.bad_every == self.bad_every - 1);
                    let key = id.to_string();
                    builder
                        .append(TimestampMs(id), Some(key.as_bytes()), value.as_deref(), &[])
                        .unwrap();
                }
                *end += i64::try_from(*records).unwrap();
                bytes.extend_from_slice(&builder.finish().unwrap());
            }
            if self.damaged == Some(place) {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 0x10;
            }
            let partition = TopicPartition::new("events", *partition);
            chunks.push_back(FetchedBytes {
                start: Offset(start),
                ..FetchedBytes::whole(partition, bytes.into())
            });
        }
        chunks
    }
}

/// An output or an error.
type Given = std::result::Result<Decoded, String>;

async fn read(case: &Case, threads: usize, bytes_max: usize) -> Vec<Given> {
    let options = DecodeOptions { threads: NonZeroUsize::new(threads), ..case.options() };
    let mut pipeline = Pipeline::new(&Threads::Real, options, bytes_max).unwrap();
    let mut chunks = case.chunks();
    let (mut given, mut ended) = (Vec::new(), false);
    loop {
        assert!(pipeline.slots.len() <= 2 * threads + 1, "DP-2");
        match pipeline.turn(ended).await {
            Ok(Turn::Output(decoded)) => given.push(Ok(*decoded)),
            Ok(Turn::Input | Turn::Room) if let Some(chunk) = chunks.pop_front() => {
                pipeline.push(chunk);
            }
            Ok(Turn::Input) if ended => return given,
            Ok(Turn::Input) => ended = true,
            Ok(Turn::Room | Turn::Busy) => pipeline.wait().await,
            Err(error) => given.push(Err(error.to_string())),
        }
    }
}

fn assert_alike(one: &[Given], other: &[Given]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        match (one, other) {
            (Ok(one), Ok(other)) => {
                assert_eq!(one.rows, other.rows);
                assert_eq!(one.progress, other.progress);
                assert_eq!(one.offsets, other.offsets);
                assert_eq!(format!("{:?}", one.rejected), format!("{:?}", other.rejected));
            }
            (Err(one), Err(other)) => assert_eq!(one, other),
            _ => panic!("{one:?} and {other:?}"),
        }
    }
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(vec![
        Kind::Raw,
        Kind::Text,
        Kind::JsonGiven,
        Kind::JsonFound,
        Kind::Avro,
        Kind::ArrowIpc,
        Kind::Debezium,
    ]);
    let chunk = (
        0..3_i32,
        prop::collection::vec(1..400_usize, 1..5),
        prop::sample::select(Compression::ALL.to_vec()),
    );
    let on_error = prop::sample::select(vec![
        OnError::Raise,
        OnError::Null,
        OnError::Column,
        OnError::SetAside,
    ]);
    (
        kind,
        prop::collection::vec(chunk, 1..8),
        prop_oneof![Just(i64::MAX), 50..2000_i64],
        prop::option::weighted(0.2, 0..8_usize),
        on_error,
        prop_oneof![1..50_usize, 200..3000_usize],
    )
        .prop_map(|(kind, chunks, bad_every, damaged, on_error, max_rows)| Case {
            kind,
            chunks,
            bad_every,
            damaged,
            on_error,
            max_rows,
        })
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_number_of_threads_gives_the_same(case in case(), threads in 2..6_usize, tight in any::<bool>()) {
        let bytes_max = if tight { 10_000 } else { usize::MAX };
        runtime().block_on(async {
            let expected = read(&case, 1, usize::MAX).await;
            assert_alike(&read(&case, threads, bytes_max).await, &expected);
        });
    }
}

/// Enough of it for every thread to have something to do at the same time.
fn large(kind: Kind, compression: Compression) -> Case {
    Case {
        kind,
        chunks: (0..12).map(|_| (0, vec![700; 3], compression)).collect(),
        bad_every: i64::MAX,
        damaged: None,
        on_error: OnError::Raise,
        max_rows: 1000,
    }
}

#[tokio::test]
async fn blocks_and_batches_are_worked_on_by_the_pool() {
    for compression in [Compression::None, Compression::Zstd] {
        let case = large(Kind::JsonGiven, compression);
        let options = DecodeOptions { threads: NonZeroUsize::new(3), ..case.options() };
        let mut pipeline = Pipeline::new(&Threads::Real, options, usize::MAX).unwrap();
        for chunk in case.chunks() {
            pipeline.push(chunk);
        }
        // The first turn hands in as much as there is room for, or batches to decompress.
        let mut rows = match pipeline.turn(false).await.unwrap() {
            Turn::Output(decoded) => decoded.rows.num_rows(),
            Turn::Busy | Turn::Room => 0,
            Turn::Input => panic!("nothing was handed in"),
        };
        match compression {
            Compression::None => assert!(pipeline.slots.len() + rows / 1000 == 7),
            _ => assert!(pipeline.decoder.unpacked_bytes() > 0),
        }
        loop {
            match pipeline.turn(true).await.unwrap() {
                Turn::Output(decoded) => rows += decoded.rows.num_rows(),
                Turn::Input => break,
                Turn::Room | Turn::Busy => pipeline.wait().await,
            }
        }
        assert_eq!(rows, 12 * 3 * 700);
    }
}

#[tokio::test]
async fn columns_that_are_there_already_are_not_handed_over() {
    let case = large(Kind::Raw, Compression::None);
    let options =
        DecodeOptions { threads: NonZeroUsize::new(3), key: KeyFormat::Raw, ..case.options() };
    let mut pipeline = Pipeline::new(&Threads::Real, options, usize::MAX).unwrap();
    for chunk in case.chunks() {
        pipeline.push(chunk);
    }
    for _ in 0..12 * 3 * 700 / 1000 {
        assert!(matches!(pipeline.turn(false).await, Ok(Turn::Output(_))));
        assert!(pipeline.slots.is_empty());
    }
}

#[tokio::test]
async fn a_reset_forgets_what_was_handed_in() {
    let case = large(Kind::JsonGiven, Compression::Lz4);
    let options = DecodeOptions { threads: NonZeroUsize::new(3), ..case.options() };
    let mut pipeline = Pipeline::new(&Threads::Real, options, usize::MAX).unwrap();
    for chunk in case.chunks() {
        pipeline.push(chunk);
    }
    pipeline.turn(false).await.unwrap();
    pipeline.reset().unwrap();
    assert!(matches!(pipeline.turn(true).await, Ok(Turn::Input)));
    let chunk = case.chunks().pop_front().unwrap();
    pipeline.push(chunk);
    let mut offsets: Vec<i64> = Vec::new();
    loop {
        match pipeline.turn(true).await.unwrap() {
            Turn::Output(decoded) => offsets.extend(decoded.offsets.unwrap().values().iter()),
            Turn::Input => break,
            Turn::Room | Turn::Busy => pipeline.wait().await,
        }
    }
    assert_eq!(offsets, (0..2100).collect::<Vec<i64>>());
}

#[tokio::test]
async fn columns_that_were_found_stay_after_a_reset() {
    let chunk = |value: &str| {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(TimestampMs(0), None, Some(value.as_bytes()), &[]).unwrap();
        FetchedBytes::whole(TopicPartition::new("events", 0), builder.finish().unwrap())
    };
    for threads in 1..3 {
        let threads = NonZeroUsize::new(threads);
        let value = ValueFormat::json_inferred();
        let options = DecodeOptions { value, threads, ..DecodeOptions::default() };
        let mut pipeline = Pipeline::new(&Threads::Real, options, usize::MAX).unwrap();
        pipeline.push(chunk(r#"{"a": 1}"#));
        assert!(matches!(pipeline.turn(true).await, Ok(Turn::Output(_))));
        let found = pipeline.schema().unwrap();
        for value in [r#"{"a": 2, "new": 1}"#, r#"{"a": "text"}"#] {
            for _ in 0..2 {
                pipeline.push(chunk(value));
                let refused = pipeline.turn(true).await;
                assert!(matches!(refused, Err(Error::Decode { .. })), "{value}: {refused:?}");
                pipeline.reset().unwrap();
            }
        }
        pipeline.push(chunk(r#"{"a": 3}"#));
        let Ok(Turn::Output(last)) = pipeline.turn(true).await else { panic!("no output") };
        assert_eq!(last.rows.schema(), found);
    }
}
