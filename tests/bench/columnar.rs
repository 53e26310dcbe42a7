//! Record batches to Arrow and back: single-core figures.
//!
//! `cargo bench --bench columnar`; divan prints items (records) per second.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a bench may stop at the first surprise"
)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryViewArray, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use ottla::columnar::{
    AvroFormat, AvroSchema, AvroTarget, DecodeOptions, Decoder, Encoder, FetchedBytes, Framing,
    ProtobufFormat, ProtobufSchema, ProtobufTarget, ReaderSchema, ValueFormat, ValueSource,
    WriteOptions,
};
use ottla::record::{
    AppendRules, BatchBuilder, BatchOptions, Batches, Compression, HEADER_SIZE, Walker,
    validate_for_append,
};
use ottla::types::{Offset, PartitionIndex, TimestampMs, TopicPartition};

const RECORDS: usize = 1_000_000;
const ROWS: usize = 100_000;
const LIMIT: usize = 1 << 30;

fn main() {
    divan::main();
}

/// Batches of about 16 KiB, as a producer with default settings fills them.
fn batches(value_size: usize, records: usize, compression: Compression) -> Bytes {
    let per_batch = 16_000 / (value_size + 20);
    let mut bytes = Vec::new();
    let mut offset = 0;
    let mut value = vec![b'v'; value_size];
    while offset < records {
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(offset as i64),
            compression,
            ..BatchOptions::default()
        });
        for _ in 0..per_batch.min(records - offset) {
            let key = (offset as u64 % 5000).to_le_bytes();
            value[..8].copy_from_slice(&(offset as u64).to_be_bytes());
            let time = TimestampMs(1_700_000_000_000 + offset as i64 / 3);
            builder.append(time, Some(&key), Some(&value), &[]).unwrap();
            offset += 1;
        }
        bytes.extend_from_slice(&builder.finish().unwrap());
    }
    Bytes::from(bytes)
}

fn decode(bytes: &Bytes, options: &DecodeOptions) -> usize {
    decode_chunk(FetchedBytes::whole(TopicPartition::new("bench", 0), bytes.clone()), options)
}

fn decode_chunk(chunk: FetchedBytes, options: &DecodeOptions) -> usize {
    let mut decoder = Decoder::new(options.clone()).unwrap();
    decoder.push(chunk);
    let mut rows = 0;
    while let Some(output) = decoder.next(true).unwrap() {
        rows += black_box(output).rows.num_rows();
    }
    rows
}

/// 150 bytes of key and value: offset, timestamp, key and value columns.
#[divan::bench(args = [Compression::None, Compression::Lz4, Compression::Zstd])]
fn decode_views(bencher: Bencher<'_, '_>, compression: Compression) {
    let bytes = batches(142, RECORDS, compression);
    let columns = ["offset", "timestamp", "key", "value"].map(String::from).to_vec();
    let options = DecodeOptions { columns: Some(columns), ..DecodeOptions::default() };
    bencher
        .counter(ItemsCount::new(RECORDS))
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| assert_eq!(decode(&bytes, &options), RECORDS));
}

/// As they arrive over a network, and as an embedded broker hands them out.
#[divan::bench(args = [false, true])]
fn decode_all_columns(bencher: Bencher<'_, '_>, checked: bool) {
    let bytes = batches(142, RECORDS, Compression::None);
    let options = DecodeOptions::default();
    let whole = FetchedBytes::whole(TopicPartition::new("bench", 0), bytes);
    let chunk = FetchedBytes { checked, ..whole };
    bencher
        .counter(ItemsCount::new(RECORDS))
        .bench_local(|| assert_eq!(decode_chunk(chunk.clone(), &options), RECORDS));
}

#[divan::bench]
fn walk_100_byte_records(bencher: Bencher<'_, '_>) {
    let bytes = batches(92, RECORDS, Compression::None);
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut sum = 0_usize;
        for batch in Batches::new(bytes.clone()) {
            let batch = batch.unwrap();
            let mut walker = Walker::new(&batch.bytes()[HEADER_SIZE..]);
            while !walker.is_at_end() {
                sum += walker.next_record().unwrap().value_size as usize;
            }
        }
        black_box(sum)
    });
}

#[divan::bench]
fn iterate_100_byte_records(bencher: Bencher<'_, '_>) {
    let bytes = batches(92, RECORDS, Compression::None);
    bencher.counter(ItemsCount::new(RECORDS)).bench_local(|| {
        let mut sum = 0_usize;
        for batch in Batches::new(bytes.clone()) {
            for record in &batch.unwrap().records(LIMIT).unwrap() {
                sum += record.unwrap().value.map_or(0, <[u8]>::len);
            }
        }
        black_box(sum)
    });
}

/// What a leader does before it appends, including the CRC.
#[divan::bench(args = [100, 1000])]
fn validate(bencher: Bencher<'_, '_>, size: usize) {
    let records = RECORDS / 10;
    let bytes = batches(size - 8, records, Compression::None);
    bencher.counter(ItemsCount::new(records)).counter(BytesCount::new(bytes.len())).bench_local(
        || {
            for batch in Batches::new(bytes.clone()) {
                let rules = AppendRules::client(LIMIT);
                black_box(validate_for_append(&batch.unwrap(), rules).unwrap());
            }
        },
    );
}

/// Eight columns of events of about 150 bytes as JSON.
fn events() -> RecordBatch {
    let rows = ROWS as i64;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from_iter_values((0..rows).map(|n| n * 7919)))),
        (
            "ts",
            Arc::new(
                TimestampMillisecondArray::from_iter_values(
                    (0..rows).map(|n| 1_795_000_000_000 + n),
                )
                .with_timezone("UTC"),
            ),
        ),
        (
            "user",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|n| format!("user-{}", n % 5000)),
            )),
        ),
        (
            "page",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|n| format!("/shop/{}/item", n % 300)),
            )),
        ),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values(
                (0..rows).map(|n| (n % 10_000) as f64 / 100.0),
            )),
        ),
        ("count", Arc::new(Int32Array::from_iter_values((0..rows).map(|n| (n % 13) as i32)))),
        ("ok", Arc::new((0..rows).map(|n| Some(n % 3 == 0)).collect::<BooleanArray>())),
        (
            "country",
            Arc::new(StringArray::from_iter_values(
                (0..rows).map(|n| ["CZ", "DE"][n as usize % 2]),
            )),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn encode(rows: &RecordBatch, options: &WriteOptions) -> Bytes {
    let mut encoder = Encoder::new(options.clone()).unwrap();
    encoder.push(rows, TimestampMs(1), |_, row| PartitionIndex((row % 4) as i32)).unwrap();
    let batches = encoder.finish().unwrap();
    Bytes::from(batches.iter().flat_map(|batch| batch.bytes.to_vec()).collect::<Vec<_>>())
}

fn encode_only(rows: &RecordBatch, options: &WriteOptions) {
    let mut encoder = Encoder::new(options.clone()).unwrap();
    encoder.push(rows, TimestampMs(1), |_, row| PartitionIndex((row % 4) as i32)).unwrap();
    black_box(encoder.finish().unwrap());
}

fn event_fields(time: &DataType) -> Fields {
    Fields::from(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("ts", time.clone(), true),
        Field::new("user", DataType::Utf8View, true),
        Field::new("page", DataType::Utf8View, true),
        Field::new("amount", DataType::Float64, true),
        Field::new("count", DataType::Int32, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("country", DataType::Utf8View, true),
    ])
}

/// Eight typed columns; times as text, or read as times.
#[divan::bench(args = ["text", "timestamp"])]
fn decode_json(bencher: Bencher<'_, '_>, time: &str) {
    let options = WriteOptions { partition_count: 4, ..WriteOptions::default() };
    let bytes = encode(&events(), &options);
    let time = match time {
        "text" => DataType::Utf8View,
        _ => DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())),
    };
    let names = event_fields(&time).iter().map(|field| field.name().clone()).collect();
    let options = DecodeOptions {
        value: ValueFormat::json(event_fields(&time)),
        columns: Some(names),
        ..DecodeOptions::default()
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| assert_eq!(decode(&bytes, &options), ROWS));
}

#[divan::bench]
fn encode_json(bencher: Bencher<'_, '_>) {
    let rows = events();
    let options =
        WriteOptions { key: Some("id".into()), partition_count: 4, ..WriteOptions::default() };
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| encode_only(&rows, &options));
}

#[divan::bench]
fn encode_binary(bencher: Bencher<'_, '_>) {
    let values: ArrayRef = Arc::new(BinaryViewArray::from_iter_values(
        (0..ROWS).map(|n| format!("{n:0>142}").into_bytes()),
    ));
    let keys: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..ROWS).map(|n| format!("key-{}", n % 5000))));
    let rows = RecordBatch::try_from_iter([("key", keys), ("value", values)]).unwrap();
    let options = WriteOptions {
        key: Some("key".into()),
        value: ValueSource::Column("value".into()),
        partition_count: 4,
        ..WriteOptions::default()
    };
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| encode_only(&rows, &options));
}

const EVENT_SCHEMA: &str = r#"{"type": "record", "name": "Event", "fields": [
    {"name": "id", "type": "long"},
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "user", "type": "string"},
    {"name": "page", "type": "string"},
    {"name": "amount", "type": "double"},
    {"name": "count", "type": "int"},
    {"name": "ok", "type": "boolean"},
    {"name": "country", "type": "string"}]}"#;

/// The same, with every field in a union with null, as most schemas in registries have it.
fn event_schema(nullable: bool) -> AvroSchema {
    let text = if nullable {
        EVENT_SCHEMA
            .replace("\"long\"}", "[\"null\", \"long\"]}")
            .replace("\"string\"", "[\"null\", \"string\"]")
            .replace("\"double\"", "[\"null\", \"double\"]")
            .replace("\"int\"", "[\"null\", \"int\"]")
            .replace("\"boolean\"", "[\"null\", \"boolean\"]")
    } else {
        EVENT_SCHEMA.to_owned()
    };
    AvroSchema::parse(&text).unwrap()
}

fn avro_options(schema: &AvroSchema) -> WriteOptions {
    let target = AvroTarget {
        schema: Some(schema.clone()),
        exclude: Vec::new(),
        framing: Framing::Plain,
        settled: true,
    };
    WriteOptions { value: ValueSource::Avro(target), partition_count: 4, ..WriteOptions::default() }
}

/// Eight typed columns.
#[divan::bench(args = ["plain", "nullable"])]
fn decode_avro(bencher: Bencher<'_, '_>, fields: &str) {
    let schema = event_schema(fields == "nullable");
    let bytes = encode(&events(), &avro_options(&schema));
    let names = event_fields(&DataType::Int64).iter().map(|one| one.name().clone()).collect();
    let format = AvroFormat { schema: ReaderSchema::Given(schema), framed: false, source: None };
    let options = DecodeOptions {
        value: ValueFormat::Avro(Arc::new(format)),
        columns: Some(names),
        ..DecodeOptions::default()
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| assert_eq!(decode(&bytes, &options), ROWS));
}

#[divan::bench]
fn encode_avro(bencher: Bencher<'_, '_>) {
    let rows = events();
    let options = avro_options(&event_schema(false));
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| encode_only(&rows, &options));
}

/// The same values with arrow-avro, each preceded by the registry's header, without Kafka's
/// batches.
#[divan::bench]
fn decode_avro_with_arrow_avro(bencher: Bencher<'_, '_>) {
    use arrow_avro::reader::ReaderBuilder;
    use arrow_avro::schema::{
        AvroSchema as Theirs, Fingerprint, FingerprintAlgorithm, SchemaStore,
    };
    let bytes = encode(&events(), &avro_options(&event_schema(false)));
    let mut messages: Vec<Vec<u8>> = Vec::new();
    for batch in Batches::new(bytes) {
        for record in &batch.unwrap().records(LIMIT).unwrap() {
            let mut message = vec![0, 0, 0, 0, 7];
            message.extend_from_slice(record.unwrap().value.unwrap());
            messages.push(message);
        }
    }
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| {
        let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
        store.set(Fingerprint::Id(7), Theirs::new(EVENT_SCHEMA.to_owned())).unwrap();
        let mut decoder = ReaderBuilder::new()
            .with_writer_schema_store(store)
            .with_utf8_view(true)
            .with_batch_size(10_000)
            .build_decoder()
            .unwrap();
        let mut rows = 0;
        for message in &messages {
            assert_eq!(decoder.decode(message).unwrap(), message.len());
            if decoder.batch_is_full() {
                rows += black_box(decoder.flush().unwrap().unwrap()).num_rows();
            }
        }
        rows += decoder.flush().unwrap().map_or(0, |batch| batch.num_rows());
        assert_eq!(rows, ROWS);
    });
}

/// The same eight columns as a Protobuf message; `optional` makes all of them track whether they
/// are set.
fn event_message(kind: &str) -> ProtobufSchema {
    let rule = if kind == "optional" { "optional" } else { "" };
    let text = format!(
        "syntax = \"proto3\"; message Event {{ {rule} int64 id = 1; {rule} int64 ts = 2; \
         {rule} string user = 3; {rule} string page = 4; {rule} double amount = 5; \
         {rule} int32 count = 6; {rule} bool ok = 7; {rule} string country = 8; }}"
    );
    ProtobufSchema::parse(&text, &[], Vec::new(), None).unwrap()
}

fn protobuf_options(schema: &ProtobufSchema) -> WriteOptions {
    let target = ProtobufTarget {
        schema: Some(schema.clone()),
        message: None,
        exclude: Vec::new(),
        framing: Framing::Plain,
        settled: true,
    };
    let value = ValueSource::Protobuf(target);
    WriteOptions { value, partition_count: 4, ..WriteOptions::default() }
}

/// The events, with times as plain numbers.
fn numbered_events() -> RecordBatch {
    let rows = events();
    let fields = event_fields(&DataType::Int64);
    let columns = rows.columns().iter().zip(&fields);
    let columns: Vec<ArrayRef> = columns
        .map(|(column, field)| arrow::compute::cast(column, field.data_type()).unwrap())
        .collect();
    let schema = arrow::datatypes::Schema::new(fields);
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

/// Eight typed columns.
#[divan::bench(args = ["plain", "optional"])]
fn decode_protobuf(bencher: Bencher<'_, '_>, kind: &str) {
    let schema = event_message(kind);
    let bytes = encode(&numbered_events(), &protobuf_options(&schema));
    let names = event_fields(&DataType::Int64).iter().map(|one| one.name().clone()).collect();
    let format = ProtobufFormat {
        schema: ReaderSchema::Given(schema),
        message: None,
        time_unit: TimeUnit::Nanosecond,
        framed: false,
        source: None,
    };
    let options = DecodeOptions {
        value: ValueFormat::Protobuf(Arc::new(format)),
        columns: Some(names),
        ..DecodeOptions::default()
    };
    bencher
        .counter(ItemsCount::new(ROWS))
        .counter(BytesCount::new(bytes.len()))
        .bench_local(|| assert_eq!(decode(&bytes, &options), ROWS));
}

#[divan::bench]
fn encode_protobuf(bencher: Bencher<'_, '_>) {
    let rows = numbered_events();
    let options = protobuf_options(&event_message("plain"));
    bencher.counter(ItemsCount::new(ROWS)).bench_local(|| encode_only(&rows, &options));
}
