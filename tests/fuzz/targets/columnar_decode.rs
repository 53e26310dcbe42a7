//! Values of any bytes as JSON, Avro, Protobuf, events of Debezium, text and raw: arrays that are valid, or an error, never a
//! panic; and records of any bytes as columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use bytes::Bytes;
use ottla::columnar::{
    AvroFormat, AvroSchema, DebeziumFormat, DecimalStrings, DecodeOptions, Decoder, FetchedBytes,
    OnError, ProtobufFormat, ProtobufSchema, ReaderSchema, ValueFormat,
};
use ottla::record::{BatchBuilder, BatchOptions, patch_producer};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

const SCHEMA: &str = r#"{"type": "record", "name": "r", "fields": [
    {"name": "a", "type": "long"},
    {"name": "b", "type": ["null", "string"]},
    {"name": "c", "type": {"type": "array", "items": "double"}},
    {"name": "d", "type": {"type": "map", "values": "bytes"}},
    {"name": "e", "type": {"type": "enum", "name": "e", "symbols": ["X", "Y"]}}
]}"#;

const MESSAGE: &str = r#"syntax = "proto3";
message R {
  int64 a = 1; optional string b = 2; repeated double c = 3; map<string, bytes> d = 4;
  enum E { X = 0; Y = 1; } E e = 5; message I { int32 x = 1; repeated I2 y = 2; } I f = 6;
  message I2 { sint32 z = 1; I3 u = 2; } message I3 { repeated string v = 1; }
  oneof o { int32 g = 7; string h = 8; I i = 9; }
}"#;

pub(crate) fn run(input: &[u8]) {
    let &[choice, count, ref rest @ ..] = input else { return };
    // The values are pieces of about the same size; the rest are the bytes of further records.
    let (values, records) = rest.split_at(rest.len() / 2);
    let values: Vec<&[u8]> =
        values.chunks((values.len() / (usize::from(count % 8) + 1)).max(1)).collect();
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for (index, value) in values.iter().enumerate() {
        let value = (index % 5 != 4).then_some(*value);
        builder.append(TimestampMs(1), Some(b"key"), value, &[]).expect("small");
    }
    if values.is_empty() {
        builder.append(TimestampMs(1), None, None, &[]).expect("small");
    }
    let good = builder.finish().expect("no compression");
    let mut bad = good.to_vec();
    bad.extend_from_slice(records);
    let length = i32::try_from(bad.len() - 12).expect("small input");
    bad[8..12].copy_from_slice(&length.to_be_bytes());
    patch_producer(&mut bad, ProducerId(-1), ProducerEpoch(-1), Sequence(-1)).expect("whole");
    let options = DecodeOptions {
        value: format(choice),
        on_error: OnError::Column,
        max_rows: 5,
        views: choice & 0x80 == 0,
        decompressed_size_max: 1 << 16,
        ..DecodeOptions::default()
    };
    let mut decoder = Decoder::new(options).expect("good options");
    for bytes in [good, Bytes::from(bad)] {
        decoder.push(FetchedBytes::whole(TopicPartition::new("fuzz", 0), bytes));
    }
    let rows = drain(&mut decoder);
    assert!(rows.is_none_or(|rows| rows >= values.len()));
}

fn format(choice: u8) -> ValueFormat {
    match choice % 16 {
        0 => ValueFormat::Raw,
        1 => ValueFormat::Text,
        2 => ValueFormat::json_inferred(),
        kind @ (5 | 6) => {
            let schema = ProtobufSchema::parse(MESSAGE, &[], Vec::new(), Some("R"));
            let schema = ReaderSchema::Given(schema.expect("a good schema"));
            let format = ProtobufFormat {
                schema,
                message: None,
                time_unit: TimeUnit::Nanosecond,
                framed: kind == 6,
                source: None,
            };
            ValueFormat::Protobuf(Arc::new(format))
        }
        kind @ (7 | 8) => {
            let fields = vec![Field::new("a", DataType::Int64, true)].into();
            let inner = ValueFormat::json(fields);
            ValueFormat::Debezium(Arc::new(DebeziumFormat {
                inner,
                unwrap: kind == 8,
                decimals: DecimalStrings::default(),
            }))
        }
        framed => {
            let schema = AvroSchema::parse(SCHEMA).expect("a good schema");
            let schema = ReaderSchema::Given(schema);
            ValueFormat::Avro(Arc::new(AvroFormat { schema, framed: framed == 4, source: None }))
        }
    }
}

/// The rows that come out; none when errors do not end: an error ends a chunk, not the decoder; an
/// impossible schema stays an error.
fn drain(decoder: &mut Decoder) -> Option<usize> {
    let mut rows = 0;
    let mut errors = 0;
    while errors < 4 {
        let output = match decoder.next(true) {
            Ok(Some(output)) => output,
            Ok(None) => return Some(rows),
            Err(_) => {
                errors += 1;
                continue;
            }
        };
        rows += output.rows.num_rows();
        for column in output.rows.columns() {
            column.to_data().validate_full().expect("a valid array");
        }
    }
    None
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let json = br#"{"a": 1, "b": [1.5, null], "c": {"d": "text"}}{"a": -2, "b": [], "c": null}"#;
    let avro = [4, 2, 2, b'x', 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, b'k', 2, b'v', 0, 1];
    let mut seeds = Vec::new();
    let protobuf = [
        8, 2, 18, 1, b'x', 26, 8, 0, 0, 0, 0, 0, 0, 0, 0, 34, 4, 10, 0, 18, 0, 40, 1, 50, 6, 8, 1,
        18, 2, 8, 1, 56, 1, 66, 0, 74, 2, 8, 1, 74, 0,
    ];
    let event = br#"{"before": null, "after": {"a": 1}, "op": "c", "ts_ms": 1}
        {"payload": {"before": {"a": 1}, "after": null, "op": "d"}}"#;
    for choice in 0..9 {
        for values in [&json[..], &avro, &protobuf, event, b"plain text"] {
            for (views, count) in [(0, 0), (0x80, 1), (0, 7)] {
                seeds.push([&[choice | views, count][..], values, values].concat());
            }
        }
    }
    seeds
}
