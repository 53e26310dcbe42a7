//! Decoding against the record iterator and serde_json, encoding against decoding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray};
use arrow::datatypes::{
    DataType, Field, Fields, Float64Type, Int8Type, Int32Type, Int64Type, TimeUnit,
    TimestampMillisecondType,
};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use proptest::prelude::*;

use crate::columnar::*;
use crate::error::{Error, ErrorCode};
use crate::record::control::TransactionMarker;
use crate::record::{BatchBuilder, BatchOptions, Batches, Compression, HEADER_SIZE, Header};
use crate::types::{Offset, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

const LIMIT: usize = 1 << 24;

fn tp(partition: i32) -> TopicPartition {
    TopicPartition::new("events", partition)
}

/// A record as rows of the columns show it.
#[derive(Clone, Debug, PartialEq)]
struct Row {
    partition: i32,
    offset: i64,
    timestamp: Option<i64>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_type: String,
}

/// The records of chunks by the record iterator.
fn reference(chunks: &[FetchedBytes]) -> Vec<Row> {
    let mut rows = Vec::new();
    for chunk in chunks {
        for batch in Batches::new(chunk.bytes.clone()) {
            let batch = batch.unwrap();
            if batch.header().is_control() {
                continue;
            }
            for record in &batch.records(LIMIT).unwrap() {
                let record = record.unwrap();
                if record.offset < chunk.start || record.offset >= chunk.end {
                    continue;
                }
                rows.push(Row {
                    partition: chunk.partition.partition.0,
                    offset: record.offset.0,
                    timestamp: (record.timestamp.0 != -1).then_some(record.timestamp.0),
                    key: record.key.map(<[u8]>::to_vec),
                    value: record.value.map(<[u8]>::to_vec),
                    headers: record
                        .headers
                        .map(|header| {
                            let key = String::from_utf8_lossy(header.key).into_owned();
                            (key, header.value.map(<[u8]>::to_vec))
                        })
                        .collect(),
                    timestamp_type: batch.header().timestamp_type().name().to_owned(),
                });
            }
        }
    }
    rows
}

fn rows_of(batch: &RecordBatch) -> Vec<Row> {
    let column = |name: &str| batch.column_by_name(name).unwrap();
    let bytes = |name: &str, row: usize| {
        let array = column(name).as_binary_view();
        array.is_valid(row).then(|| array.value(row).to_vec())
    };
    let headers = |row: usize| {
        let entries = column("headers").as_list::<i32>().value(row);
        let entries = entries.as_struct();
        let keys = entries.column(0).as_string::<i32>();
        let values = entries.column(1).as_binary::<i32>();
        (0..entries.len())
            .map(|at| {
                let value = values.is_valid(at).then(|| values.value(at).to_vec());
                (keys.value(at).to_owned(), value)
            })
            .collect()
    };
    (0..batch.num_rows())
        .map(|row| {
            let timestamps = column("timestamp").as_primitive::<TimestampMillisecondType>();
            let types = column("timestamp_type").as_dictionary::<Int8Type>();
            let topics = column("topic").as_dictionary::<Int32Type>();
            let topic = usize::try_from(topics.keys().value(row)).unwrap();
            assert_eq!(topics.values().as_string::<i32>().value(topic), "events");
            let kind = usize::try_from(types.keys().value(row)).unwrap();
            Row {
                partition: column("partition").as_primitive::<Int32Type>().value(row),
                offset: column("offset").as_primitive::<Int64Type>().value(row),
                timestamp: timestamps.is_valid(row).then(|| timestamps.value(row)),
                key: bytes("key", row),
                value: bytes("value", row),
                headers: headers(row),
                timestamp_type: types.values().as_string::<i32>().value(kind).to_owned(),
            }
        })
        .collect()
}

fn decode_all(
    chunks: Vec<FetchedBytes>,
    options: DecodeOptions,
) -> crate::error::Result<Vec<Decoded>> {
    let mut decoder = Decoder::new(options)?;
    let mut outputs = Vec::new();
    for chunk in chunks {
        decoder.push(chunk);
        while let Some(output) = decoder.next(false)? {
            outputs.push(output);
        }
    }
    while let Some(output) = decoder.next(true)? {
        outputs.push(output);
    }
    for output in &outputs {
        for column in output.rows.columns() {
            column.to_data().validate_full().unwrap();
        }
    }
    Ok(outputs)
}

fn batch_of(values: &[Option<&[u8]>], options: BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for (index, value) in values.iter().enumerate() {
        builder.append(TimestampMs(1000 + index as i64), Some(b"k"), *value, &[]).unwrap();
    }
    builder.finish().unwrap()
}

fn json_chunk(values: &[&str]) -> FetchedBytes {
    let values: Vec<_> = values.iter().map(|value| Some(value.as_bytes())).collect();
    FetchedBytes::whole(tp(0), batch_of(&values, BatchOptions::default()))
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..40))
}

type AnyRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn any_record() -> impl Strategy<Value = AnyRecord> {
    let header = (proptest::collection::vec(any::<u8>(), 0..6), any_bytes());
    (-1_i64..5000, any_bytes(), any_bytes(), proptest::collection::vec(header, 0..3))
}

#[derive(Clone, Debug)]
struct AnyBatch {
    records: Vec<AnyRecord>,
    codec: i16,
    log_append_time: Option<i64>,
    gap: i64,
}

fn any_batch() -> impl Strategy<Value = AnyBatch> {
    let records = proptest::collection::vec(any_record(), 1..25);
    (records, 0_i16..5, proptest::option::of(0_i64..100), 0_i64..4).prop_map(
        |(records, codec, log_append_time, gap)| AnyBatch { records, codec, log_append_time, gap },
    )
}

fn bytes_of(batches: &[AnyBatch]) -> Bytes {
    let mut bytes = Vec::new();
    let mut offset = 0;
    for batch in batches {
        offset += batch.gap;
        let mut builder = BatchBuilder::new(BatchOptions {
            base_offset: Offset(offset),
            compression: Compression::from_id(batch.codec).unwrap(),
            log_append_time: batch.log_append_time.map(TimestampMs),
            ..BatchOptions::default()
        });
        for (timestamp, key, value, headers) in &batch.records {
            let headers: Vec<_> = headers
                .iter()
                .map(|(key, value)| Header { key, value: value.as_deref() })
                .collect();
            let time = TimestampMs(*timestamp);
            builder.append(time, key.as_deref(), value.as_deref(), &headers).unwrap();
        }
        offset += batch.records.len() as i64;
        bytes.extend_from_slice(&builder.finish().unwrap());
    }
    Bytes::from(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn columns_are_what_the_record_iterator_says(
        partitions in proptest::collection::vec(proptest::collection::vec(any_batch(), 0..6), 1..4),
        start in 0_i64..60,
        size in 0_i64..200,
        max_rows in 1_usize..40,
        cut in 0_usize..30,
    ) {
        let chunks: Vec<FetchedBytes> = partitions
            .iter()
            .enumerate()
            .map(|(index, batches)| {
                let bytes = bytes_of(batches);
                let whole = bytes.len().saturating_sub(if batches.len() > 2 { cut } else { 0 });
                FetchedBytes {
                    partition: tp(index as i32),
                    bytes: bytes.slice(..whole),
                    start: Offset(start),
                    end: Offset(start + size),
                    aborted: None,
                    checked: false,
                }
            })
            .collect();
        let expected = reference(&chunks);
        let options = DecodeOptions { max_rows, ..DecodeOptions::default() };
        let outputs = decode_all(chunks.clone(), options).unwrap();
        let rows: Vec<Row> = outputs.iter().flat_map(|output| rows_of(&output.rows)).collect();
        prop_assert_eq!(&rows, &expected);
        let full = outputs.len().saturating_sub(1);
        prop_assert!(outputs.iter().take(full).all(|output| output.rows.num_rows() == max_rows));
        // The progress of each partition has no holes and ends behind its last row.
        for chunk in &chunks {
            let mut next = chunk.start;
            for output in &outputs {
                for progress in output.progress.iter().filter(|one| one.partition == chunk.partition) {
                    prop_assert_eq!(progress.from, next);
                    prop_assert!(progress.next >= progress.from && progress.next <= chunk.end.max(chunk.start));
                    next = progress.next;
                }
            }
            let last = expected.iter().rev().find(|row| row.partition == chunk.partition.partition.0);
            prop_assert!(last.is_none_or(|row| next.0 > row.offset));
        }
        // A projection shows the same.
        let only = DecodeOptions {
            columns: Some(vec!["value".into(), "offset".into()]),
            max_rows,
            ..DecodeOptions::default()
        };
        let mut at = 0;
        for output in decode_all(chunks, only).unwrap() {
            prop_assert_eq!(output.rows.num_columns(), 2);
            let values = output.rows.column(0).as_binary_view();
            let offsets = output.rows.column(1).as_primitive::<Int64Type>();
            for row in 0..output.rows.num_rows() {
                let value = values.is_valid(row).then(|| values.value(row).to_vec());
                prop_assert_eq!(&value, &expected[at].value);
                prop_assert_eq!(offsets.value(row), expected[at].offset);
                at += 1;
            }
        }
        prop_assert_eq!(at, expected.len());
    }

    #[test]
    fn json_columns_are_what_serde_json_says(
        objects in proptest::collection::vec(any_object(), 1..40),
    ) {
        let texts: Vec<String> =
            objects.iter().map(|object| serde_json::to_string(object).unwrap()).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let options = DecodeOptions {
            value: ValueFormat::json(typed_fields()),
            columns: Some(["i", "f", "s", "b", "l", "o"].map(String::from).into()),
            ..DecodeOptions::default()
        };
        let outputs = decode_all(vec![json_chunk(&texts)], options).unwrap();
        let rows = &outputs[0].rows;
        for (row, object) in objects.iter().enumerate() {
            for name in ["i", "f", "s", "b", "l", "o"] {
                let array = rows.column_by_name(name).unwrap();
                prop_assert_eq!(&json_of(array, row), &object[name], "{} of {}", name, object);
            }
        }
    }
}

fn typed_fields() -> Fields {
    let inner = Fields::from(vec![
        Field::new("x", DataType::Int64, true),
        Field::new("y", DataType::Utf8View, true),
    ]);
    Fields::from(vec![
        Field::new("i", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8View, true),
        Field::new("b", DataType::Boolean, true),
        Field::new("l", DataType::List(Arc::new(Field::new("item", DataType::Int64, true))), true),
        Field::new("o", DataType::Struct(inner), true),
    ])
}

/// The value of a cell as JSON.
fn json_of(array: &ArrayRef, row: usize) -> serde_json::Value {
    use serde_json::{Value, json};
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8View => json!(array.as_string_view().value(row)),
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::List(_) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|at| json_of(&items, at)).collect()
        }
        DataType::Struct(fields) => {
            let object = array.as_struct();
            let pairs = fields.iter().zip(object.columns());
            pairs.map(|(field, array)| (field.name().clone(), json_of(array, row))).collect()
        }
        other => panic!("{other}"),
    }
}

fn any_object() -> impl Strategy<Value = serde_json::Value> {
    let list = proptest::collection::vec(proptest::option::of(any::<i64>()), 0..4);
    let inner = (proptest::option::of(any::<i64>()), proptest::option::of(".{0,20}"));
    (
        proptest::option::of(any::<i64>()),
        proptest::option::of(-1e300..1e300_f64),
        proptest::option::of(".{0,30}"),
        proptest::option::of(any::<bool>()),
        proptest::option::of(list),
        proptest::option::of(inner),
        any::<u8>(),
    )
        .prop_map(|(i, f, s, b, l, o, order)| {
            let o = o.map(|(x, y)| serde_json::json!({"x": x, "y": y}));
            let pairs = [
                ("i", serde_json::json!(i)),
                ("f", serde_json::json!(f)),
                ("s", serde_json::json!(s)),
                ("ignored", serde_json::json!({"deep": [1, {"er": "x"}]})),
                ("b", serde_json::json!(b)),
                ("l", serde_json::json!(l)),
                ("o", serde_json::json!(o)),
            ];
            let mut object = serde_json::Map::new();
            let shift = usize::from(order) % pairs.len();
            for (name, value) in pairs[shift..].iter().chain(&pairs[..shift]) {
                // A missing field is a null.
                if !(value.is_null() && order & 0x80 != 0) {
                    object.insert((*name).to_owned(), value.clone());
                }
            }
            serde_json::Value::Object(object)
        })
}

#[test]
fn an_array_outlives_the_bytes_it_was_fetched_in() {
    let long = vec![b'x'; 100];
    for compression in Compression::ALL {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let bytes = batch_of(&[Some(&long), Some(b"short"), None], options);
        let copy = Bytes::from_owner(bytes.to_vec());
        drop(bytes);
        let chunk = FetchedBytes::whole(tp(0), copy);
        let outputs = decode_all(vec![chunk], DecodeOptions::default()).unwrap();
        let rows = outputs.into_iter().next().unwrap().rows;
        let values = rows.column_by_name("value").unwrap().as_binary_view().clone();
        drop(rows);
        assert_eq!(values.value(0), long);
        assert_eq!(values.value(1), b"short");
        assert!(values.is_null(2));
    }
}

#[test]
fn uncompressed_values_are_not_copied() {
    let long = vec![b'x'; 100];
    let bytes = batch_of(&[Some(&long), Some(&long)], BatchOptions::default());
    let range = bytes.as_ptr_range();
    let outputs =
        decode_all(vec![FetchedBytes::whole(tp(0), bytes)], DecodeOptions::default()).unwrap();
    let values = outputs[0].rows.column_by_name("value").unwrap().as_binary_view().clone();
    assert!(range.contains(&values.value(1).as_ptr()));
}

#[test]
fn a_flipped_bit_is_an_error_that_names_partition_and_offset() {
    let mut bytes = batch_of(&[Some(&[1; 50])], BatchOptions::default()).to_vec();
    let good = bytes.clone();
    let end = bytes.len() - 3;
    bytes[end] ^= 4;
    bytes[7] = 9;
    let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
    decoder.push(FetchedBytes::whole(tp(3), Bytes::from(good)));
    decoder.push(FetchedBytes::whole(tp(3), Bytes::from(bytes)));
    let error = decoder.next(true).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CorruptMessage);
    assert!(error.to_string().contains("events-3"), "{error}");
    assert!(error.to_string().contains("offset 9"), "{error}");
    // The rows in front of it are still there.
    assert_eq!(decoder.next(true).unwrap().unwrap().rows.num_rows(), 1);
    assert!(decoder.next(true).unwrap().is_none());
}

#[test]
fn what_was_checked_before_is_not_compared_again_but_still_walked() {
    let mut bytes = batch_of(&[Some(&[1; 50])], BatchOptions::default()).to_vec();
    let end = bytes.len();
    let mut decode = |at: usize, bits: u8| {
        bytes[at] ^= bits;
        let whole = FetchedBytes::whole(tp(3), Bytes::from(bytes.clone()));
        bytes[at] ^= bits;
        decode_all(vec![FetchedBytes { checked: true, ..whole }], DecodeOptions::default())
    };
    let outputs = decode(end - 3, 4).unwrap();
    let values = outputs[0].rows.column_by_name("value").unwrap().as_binary_view().clone();
    assert_eq!(values.value(0)[48..], [5, 1]);
    // The length of the record.
    assert_eq!(decode(HEADER_SIZE, 2).unwrap_err().code(), ErrorCode::CorruptMessage);
}

#[test]
fn rows_in_front_of_a_broken_record_are_whole() {
    for (at, byte) in [(0, None), (7, Some(0xff_u8)), (4, Some(30))] {
        let mut bytes = batch_of(&[None, Some(&[1; 50])], BatchOptions::default()).to_vec();
        let second = bytes.len() - 59;
        match byte {
            Some(byte) => bytes[second + at] = byte,
            None => bytes.extend_from_slice(&[0]),
        }
        let length = (bytes.len() - 12) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let none = crate::types::Sequence::NONE;
        crate::record::patch_producer(&mut bytes, ProducerId(-1), ProducerEpoch(-1), none).unwrap();
        let mut decoder = Decoder::new(DecodeOptions::default()).unwrap();
        decoder.push(FetchedBytes::whole(tp(0), Bytes::from(bytes)));
        assert!(decoder.next(true).is_err(), "{at}");
        let rows = decoder.next(true).unwrap().unwrap().rows;
        assert_eq!(rows_of(&rows).len(), if byte.is_some() { 1 } else { 2 }, "{at}");
    }
}

#[test]
fn aborted_transactions_and_markers_are_left_out() {
    let mut bytes = Vec::new();
    let mut offset = 0;
    let mut add = |producer: i64, values: usize, transactional: bool| {
        let options = BatchOptions {
            base_offset: Offset(offset),
            producer_id: ProducerId(producer),
            producer_epoch: ProducerEpoch(0),
            transactional,
            ..BatchOptions::default()
        };
        let value = format!("{producer}").into_bytes();
        bytes.extend_from_slice(&batch_of(&vec![Some(&value[..]); values], options));
        offset += values as i64;
    };
    add(1, 2, true); // 0, 1: aborted
    add(2, 2, true); // 2, 3: committed
    add(3, 1, false); // 4
    let marker = |committed, producer, offset| {
        let marker = TransactionMarker { committed, coordinator_epoch: 0 };
        let batch = marker.batch(ProducerId(producer), ProducerEpoch(0), TimestampMs(1)).unwrap();
        let mut batch = batch.to_vec();
        let epoch = crate::types::LeaderEpoch(0);
        crate::record::patch_base_offset_and_epoch(&mut batch, Offset(offset), epoch).unwrap();
        batch
    };
    let mut all = bytes.clone();
    all.extend(marker(false, 1, 5));
    all.extend(marker(true, 2, 6));
    let options = BatchOptions {
        base_offset: Offset(7),
        producer_id: ProducerId(1),
        producer_epoch: ProducerEpoch(0),
        transactional: true,
        ..BatchOptions::default()
    };
    all.extend_from_slice(&batch_of(&[Some(b"again")], options)); // 7: committed later
    let mut chunk = FetchedBytes::whole(tp(0), Bytes::from(all));
    let offsets = |chunk: &FetchedBytes| {
        let outputs = decode_all(vec![chunk.clone()], DecodeOptions::default()).unwrap();
        assert_eq!(outputs[0].progress[0].next, Offset(8));
        outputs[0]
            .rows
            .column_by_name("offset")
            .unwrap()
            .as_primitive::<Int64Type>()
            .values()
            .to_vec()
    };
    assert_eq!(offsets(&chunk), [0, 1, 2, 3, 4, 7]);
    chunk.aborted =
        Some(vec![AbortedTransaction { producer_id: ProducerId(1), first_offset: Offset(0) }]);
    assert_eq!(offsets(&chunk), [2, 3, 4, 7]);
}

#[test]
fn each_marker_ends_one_transaction_of_its_producer_and_may_be_the_last_offset() {
    let mut all = Vec::new();
    let mut offset = 0;
    for (records, committed) in [(2, false), (2, true), (1, false)] {
        let options = BatchOptions {
            base_offset: Offset(offset),
            producer_id: ProducerId(1),
            producer_epoch: ProducerEpoch(0),
            transactional: true,
            ..BatchOptions::default()
        };
        all.extend_from_slice(&batch_of(&vec![Some(&b"x"[..]); records], options));
        let marker = TransactionMarker { committed, coordinator_epoch: 0 };
        let marker = marker.batch(ProducerId(1), ProducerEpoch(0), TimestampMs(1)).unwrap();
        let mut marker = marker.to_vec();
        let (at, epoch) = (Offset(offset).plus(records as i64), crate::types::LeaderEpoch(0));
        crate::record::patch_base_offset_and_epoch(&mut marker, at, epoch).unwrap();
        all.extend(marker);
        offset = at.0 + 1;
    }
    // What is left after compaction, or below a start in the middle, is told apart in the same way.
    for (from, wanted) in [(0, vec![3, 4]), (1, vec![3, 4]), (4, vec![4]), (6, vec![])] {
        let mut chunk = FetchedBytes::whole(tp(0), Bytes::from(all.clone()));
        chunk.start = Offset(from);
        let aborted =
            |first| AbortedTransaction { producer_id: ProducerId(1), first_offset: Offset(first) };
        chunk.aborted = Some(vec![aborted(0), aborted(6)]);
        let outputs = decode_all(vec![chunk], DecodeOptions::default()).unwrap();
        let rows = outputs.iter().flat_map(|output| {
            let column = output.rows.column_by_name("offset").unwrap().clone();
            column.as_primitive::<Int64Type>().values().to_vec()
        });
        assert_eq!(rows.collect::<Vec<i64>>(), wanted, "from {from}");
        assert_eq!(outputs.last().unwrap().progress[0].next, Offset(8), "from {from}");
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let zeros = vec![0; 4 << 20];
    let options = BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() };
    let chunk = FetchedBytes::whole(tp(0), batch_of(&[Some(&zeros)], options));
    let options = DecodeOptions { decompressed_size_max: 1 << 20, ..DecodeOptions::default() };
    let error = decode_all(vec![chunk], options).unwrap_err();
    assert_eq!(error.code(), ErrorCode::CorruptMessage);
}

#[test]
fn a_schema_is_inferred_from_the_first_values() {
    let chunk = json_chunk(&[
        r#"{"a": 1, "b": "x", "n": null, "l": [1, 2.5], "m": 1}"#,
        r#"{"a": 2.5, "b": "y", "o": {"p": true}, "m": "text"}"#,
        r#"{"o": {"q": [{"r": 18446744073709551615}]}, "m": {"k": [1]}}"#,
    ]);
    let options = DecodeOptions {
        value: ValueFormat::json_inferred(),
        columns: None,
        ..DecodeOptions::default()
    };
    let mut decoder = Decoder::new(options).unwrap();
    decoder.push(chunk);
    assert!(decoder.next(false).unwrap().is_none());
    assert!(decoder.schema().is_none());
    let output = decoder.next(true).unwrap().unwrap().rows;
    assert_eq!(decoder.schema().unwrap(), output.schema());
    let of = |name: &str| output.column_by_name(name).unwrap().data_type().clone();
    assert_eq!(of("a"), DataType::Float64);
    assert_eq!(of("b"), DataType::Utf8View);
    assert_eq!(of("n"), DataType::Utf8View);
    assert_eq!(of("l"), DataType::List(Arc::new(Field::new("item", DataType::Float64, true))));
    assert_eq!(of("m"), DataType::Utf8View);
    let texts = output.column_by_name("m").unwrap().as_string_view();
    assert_eq!(texts.iter().flatten().collect::<Vec<_>>(), ["1", "text", r#"{"k":[1]}"#]);
    let DataType::Struct(fields) = of("o") else { panic!() };
    assert_eq!(fields.len(), 2);
    assert!(output.column_by_name("value").is_none());
    assert_eq!(output.num_columns(), 7 + 6);
}

#[test]
fn values_of_which_none_is_an_object_are_errors_until_one_comes() {
    let options = |on_error| DecodeOptions {
        value: ValueFormat::json_inferred(),
        on_error,
        ..DecodeOptions::default()
    };
    let bad =
        || FetchedBytes::whole(tp(0), batch_of(&[None, Some(b"ping")], BatchOptions::default()));
    let error = decode_all(vec![bad()], options(OnError::Raise)).unwrap_err();
    let Error::Decode { offset, detail, .. } = &error else { panic!("{error}") };
    assert_eq!(*offset, Offset(1));
    assert!(detail.starts_with("the value is not JSON, see position 0: ping"), "{detail}");

    let mut decoder = Decoder::new(options(OnError::Column)).unwrap();
    decoder.push(bad());
    let rows = decoder.next(true).unwrap().unwrap().rows;
    let errors = rows.column_by_name("error").unwrap();
    assert_eq!((errors.is_valid(0), errors.is_valid(1)), (false, true));
    assert!(decoder.settled().is_none());
    decoder.push(json_chunk(&[r#"{"a": 1}"#]));
    let rows = decoder.next(true).unwrap().unwrap().rows;
    assert_eq!(rows.column_by_name("a").unwrap().as_primitive::<Int64Type>().value(0), 1);
}

#[test]
fn members_without_a_column_are_errors_where_columns_were_inferred() {
    let chunk =
        || json_chunk(&[r#"{"a": 1}"#, r#"{"a": 2, "b": {"c": 3}}"#, r#"{"b": 1, "a": 3}"#]);
    let format = |extra| {
        let format = JsonFormat { extra, ..JsonFormat::inferred(1) };
        DecodeOptions {
            value: ValueFormat::Json(format),
            on_error: OnError::Column,
            ..DecodeOptions::default()
        }
    };
    for (extra, wanted) in [(Extra::Error, [false, true, true]), (Extra::Ignore, [false; 3])] {
        let rows = &decode_all(vec![chunk()], format(extra)).unwrap()[0].rows;
        let errors = rows.column_by_name("error").unwrap();
        assert_eq!([0, 1, 2].map(|row| errors.is_valid(row)), wanted);
        let numbers = rows.column_by_name("a").unwrap().as_primitive::<Int64Type>();
        assert_eq!(numbers.values(), &[1, 2, 3]);
    }
}

#[test]
fn whole_numbers_are_inferred_as_a_type_that_holds_them_all() {
    let kind_of = |numbers: &[&str]| {
        let values: Vec<String> = numbers.iter().map(|one| format!(r#"{{"n": {one}}}"#)).collect();
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let options =
            DecodeOptions { value: ValueFormat::json_inferred(), ..DecodeOptions::default() };
        let rows = decode_all(vec![json_chunk(&values)], options).unwrap().remove(0).rows;
        rows.column_by_name("n").unwrap().data_type().clone()
    };
    let (big, huge) = ("18446744073709551615", "18446744073709551616");
    assert_eq!(kind_of(&["1", "-1"]), DataType::Int64);
    assert_eq!(kind_of(&["1", big]), DataType::UInt64);
    assert_eq!(kind_of(&["-1", big]), DataType::Decimal128(38, 0));
    assert_eq!(kind_of(&["1", huge]), DataType::Decimal128(38, 0));
    assert_eq!(kind_of(&["1", &"9".repeat(39)]), DataType::Utf8View);
    assert_eq!(kind_of(&["1", "1.5", "9007199254740992"]), DataType::Float64);
    assert_eq!(kind_of(&["1.5", "9007199254740993"]), DataType::Utf8View);
    assert_eq!(kind_of(&["1e400"]), DataType::Utf8View);
}

#[test]
fn bad_values_are_raised_nulled_or_kept() {
    let values: Vec<Option<&[u8]>> =
        vec![Some(br#"{"a": 1}"#), Some(b"{"), None, Some(br#"{"a": "x"}"#), Some(b"[1]")];
    let chunk = FetchedBytes::whole(tp(2), batch_of(&values, BatchOptions::default()));
    let fields = Fields::from(vec![Field::new("a", DataType::Int64, true)]);
    let options = |on_error| DecodeOptions {
        value: ValueFormat::json(fields.clone()),
        on_error,
        ..DecodeOptions::default()
    };
    let error = decode_all(vec![chunk.clone()], options(OnError::Raise)).unwrap_err();
    let Error::Decode { what: "value", partition, offset, .. } = &error else { panic!("{error}") };
    assert_eq!((partition, *offset), (&tp(2), Offset(1)));

    let rows = &decode_all(vec![chunk.clone()], options(OnError::Null)).unwrap()[0].rows;
    let numbers = rows.column_by_name("a").unwrap().as_primitive::<Int64Type>();
    assert_eq!(numbers.iter().collect::<Vec<_>>(), [Some(1), None, None, None, None]);
    assert!(rows.column_by_name("error").is_none());

    let rows = &decode_all(vec![chunk], options(OnError::Column)).unwrap()[0].rows;
    let errors = rows.column_by_name("error").unwrap().as_string_view();
    let bad: Vec<bool> = errors.iter().map(|error| error.is_some()).collect();
    assert_eq!(bad, [false, true, false, true, true]);
    assert!(errors.value(3).contains("\"a\""), "{}", errors.value(3));
    let raw = rows.column_by_name("value_raw").unwrap().as_binary_view();
    assert_eq!(raw.value(4), b"[1]");
    assert!(raw.is_null(2));
}

#[test]
fn an_output_ends_with_the_record_that_reaches_the_bytes() {
    let values = [Some(&[b'x'; 100][..]); 7];
    for compression in [Compression::None, Compression::Lz4] {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let chunk = FetchedBytes::whole(tp(0), batch_of(&values, options));
        for (max_bytes, wanted) in [(1, vec![1; 7]), (250, vec![3, 3, 1]), (usize::MAX, vec![7])] {
            let options = DecodeOptions { max_bytes, ..DecodeOptions::default() };
            let outputs = decode_all(vec![chunk.clone()], options).unwrap();
            let rows: Vec<usize> = outputs.iter().map(|output| output.rows.num_rows()).collect();
            assert_eq!(rows, wanted);
        }
    }
}

#[test]
fn bad_values_are_set_aside_whole() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let header = Header { key: b"trace", value: Some(b"7") };
    let values: [&[u8]; 4] = [br#"{"a": 1}"#, b"nonsense", br#"{"a": 3}"#, br#"{"a": "x"}"#];
    for (at, value) in (0_i64..).zip(values) {
        builder.append(TimestampMs(at), Some(b"k"), Some(value), &[header]).unwrap();
    }
    let chunk = FetchedBytes::whole(tp(3), builder.finish().unwrap());
    for max_rows in [10, 1] {
        let options = DecodeOptions {
            columns: Some(vec!["a".to_owned()]),
            value: ValueFormat::json(vec![Field::new("a", DataType::Int64, true)].into()),
            on_error: OnError::SetAside,
            max_rows,
            ..DecodeOptions::default()
        };
        let outputs = decode_all(vec![chunk.clone()], options).unwrap();
        let kept = outputs
            .iter()
            .flat_map(|output| output.rows.column(0).as_primitive::<Int64Type>().values().to_vec());
        assert_eq!(kept.collect::<Vec<_>>(), [1, 3]);
        assert_eq!(outputs.last().unwrap().progress[0].next, Offset(4));
        let rejected: Vec<_> = outputs.into_iter().flat_map(|output| output.rejected).collect();
        assert_eq!(rejected.len(), 2);
        for (record, offset) in rejected.iter().zip([1, 3]) {
            assert_eq!((&record.partition, record.offset), (&tp(3), Offset(offset)));
            assert_eq!(record.timestamp, Some(TimestampMs(offset)));
            assert_eq!(record.key.as_deref(), Some(&b"k"[..]));
            assert_eq!(record.value.as_deref(), Some(values[offset as usize]));
            let headers = [("trace".to_owned(), Some(Bytes::from_static(b"7")))];
            assert_eq!(record.headers, headers);
            assert!(record.error.starts_with("value: "), "{}", record.error);
        }
    }
}

#[test]
fn each_row_that_is_kept_has_its_partition_and_offset() {
    let values: [Option<&[u8]>; 3] = [Some(br#"{"a": 1}"#), Some(b"nonsense"), Some(b"{}")];
    let chunk =
        |partition| FetchedBytes::whole(tp(partition), batch_of(&values, BatchOptions::default()));
    let options = DecodeOptions {
        value: ValueFormat::json(vec![Field::new("a", DataType::Int64, true)].into()),
        on_error: OnError::SetAside,
        offsets: true,
        ..DecodeOptions::default()
    };
    let outputs = decode_all(vec![chunk(3), chunk(5)], options).unwrap();
    let mut found = Vec::new();
    for output in outputs {
        let mut offsets = output.offsets.as_ref().unwrap().values().iter().copied();
        for (partition, count) in output.origins {
            found.extend(offsets.by_ref().take(count).map(|offset| (partition.clone(), offset)));
        }
        assert_eq!(offsets.next(), None);
    }
    assert_eq!(found, [(tp(3), 0), (tp(3), 2), (tp(5), 0), (tp(5), 2)]);
}

#[test]
fn values_from_elsewhere_become_rows_or_are_named() {
    let fields = vec![Field::new("a", DataType::Int64, true)];
    let format =
        ValueFormat::Json(JsonFormat { extra: Extra::Error, ..JsonFormat::given(fields.into()) });
    let values = |texts: &[&str]| BinaryViewArray::from_iter_values(texts);
    let rows = format.rows_of(&values(&[r#"{"a": 1}"#, "{}"])).unwrap();
    assert_eq!((rows.num_rows(), rows.column(0).null_count()), (2, 1));
    for bad in [r#"{"a": 1.5}"#, r#"{"b": 1}"#, "x"] {
        let error = format.rows_of(&values(&["{}", bad])).unwrap_err();
        assert!(matches!(error, Error::Row { row: 1, .. }), "{error}");
    }
    assert!(ValueFormat::Raw.rows_of(&values(&["x"])).is_err());
}

#[test]
fn text_that_is_no_text_is_an_error_of_its_row() {
    let chunk = FetchedBytes::whole(
        tp(0),
        batch_of(&[Some("grüße".as_bytes()), Some(b"\xff\xfe"), None], BatchOptions::default()),
    );
    let options = |on_error| DecodeOptions {
        value: ValueFormat::Text,
        key: KeyFormat::Text,
        on_error,
        ..DecodeOptions::default()
    };
    assert!(decode_all(vec![chunk.clone()], options(OnError::Raise)).is_err());
    let rows = &decode_all(vec![chunk], options(OnError::Column)).unwrap()[0].rows;
    let values = rows.column_by_name("value").unwrap().as_string_view();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some("grüße"), None, None]);
    assert_eq!(rows.column_by_name("key").unwrap().as_string_view().value(1), "k");
    let raw = rows.column_by_name("value_raw").unwrap().as_binary_view();
    assert_eq!(raw.value(1), b"\xff\xfe");
    assert_eq!(rows.column_by_name("error").unwrap().null_count(), 2);
}

#[test]
fn kafka_columns_move_aside_for_fields_of_their_names() {
    let chunk = json_chunk(&[r#"{"offset": "mine", "a": 1}"#]);
    let options = |columns: Option<&[&str]>| DecodeOptions {
        value: ValueFormat::json_inferred(),
        columns: columns.map(|names| names.iter().map(ToString::to_string).collect()),
        ..DecodeOptions::default()
    };
    let rows = &decode_all(vec![chunk.clone()], options(None)).unwrap()[0].rows;
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["_kafka", "offset", "a"]);
    assert_eq!(rows.column_by_name("offset").unwrap().as_string_view().value(0), "mine");
    let kafka = rows.column(0).as_struct();
    assert_eq!(kafka.column_by_name("offset").unwrap().as_primitive::<Int64Type>().value(0), 0);

    let some = options(Some(&["a", "_kafka.offset", "offset"]));
    let rows = &decode_all(vec![chunk.clone()], some).unwrap()[0].rows;
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["a", "_kafka", "offset"]);
    assert!(decode_all(vec![chunk.clone()], options(Some(&["partition"]))).is_err());
    assert!(decode_all(vec![chunk], options(Some(&["a", "a"]))).is_err());

    // Where that name is taken too, it gets one more underscore.
    let chunk = json_chunk(&[r#"{"offset": "mine", "_kafka": {"offset": 7}}"#]);
    let rows = &decode_all(vec![chunk.clone()], options(None)).unwrap()[0].rows;
    let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["__kafka", "offset", "_kafka"]);
    let one = options(Some(&["_kafka", "__kafka.offset"]));
    let rows = &decode_all(vec![chunk], one).unwrap()[0].rows;
    let inner = rows.column_by_name("_kafka").unwrap().as_struct();
    assert_eq!(inner.column(0).as_primitive::<Int64Type>().value(0), 7);
}

#[test]
fn times_dates_decimals_and_bytes_are_read_from_json() {
    let fields = Fields::from(vec![
        Field::new("ms", DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into())), true),
        Field::new("s", DataType::Timestamp(TimeUnit::Second, None), true),
        Field::new("d", DataType::Date32, true),
        Field::new("n", DataType::Decimal128(10, 2), true),
        Field::new("b", DataType::Binary, true),
        Field::new("u", DataType::UInt8, true),
        Field::new("t", DataType::LargeUtf8, true),
    ]);
    let chunk = json_chunk(&[
        r#"{"ms": "2026-11-21T10:00:00.5+01:00", "s": 17, "d": "1970-01-03", "n": "12.340", "b": "AQI=", "u": 255, "t": "x"}"#,
        r#"{"ms": 1500, "s": "1970-01-01 00:01:00", "d": 4, "n": 7.5, "b": "", "u": 3.0, "t": 1.5}"#,
    ]);
    let options =
        DecodeOptions { value: ValueFormat::json(fields.clone()), ..DecodeOptions::default() };
    let rows = &decode_all(vec![chunk], options.clone()).unwrap()[0].rows;
    for field in &fields {
        assert_eq!(rows.column_by_name(field.name()).unwrap().data_type(), field.data_type());
    }
    let of = |name: &str| rows.column_by_name(name).unwrap();
    assert_eq!(
        of("ms").as_primitive::<TimestampMillisecondType>().values(),
        &[1_795_251_600_500, 1500]
    );
    assert_eq!(of("s").as_primitive::<arrow::datatypes::TimestampSecondType>().values(), &[17, 60]);
    assert_eq!(of("d").as_primitive::<arrow::datatypes::Date32Type>().values(), &[2, 4]);
    assert_eq!(of("n").as_primitive::<arrow::datatypes::Decimal128Type>().value(1), 750);
    assert_eq!(of("b").as_binary::<i32>().value(0), [1, 2]);
    assert_eq!(of("u").as_primitive::<arrow::datatypes::UInt8Type>().values(), &[255, 3]);
    assert_eq!(of("t").as_string::<i64>().value(1), "1.5");
    for bad in
        [r#"{"u": 256}"#, r#"{"u": -1}"#, r#"{"d": "x"}"#, r#"{"b": "?"}"#, r#"{"ms": true}"#]
    {
        assert!(decode_all(vec![json_chunk(&[bad])], options.clone()).is_err(), "{bad}");
    }
    for bad in [r#"{"n": "12.345"}"#, r#"{"n": 123456789.5}"#, r#"{"s": "1970-01-01T25:00"}"#] {
        assert!(decode_all(vec![json_chunk(&[bad])], options.clone()).is_err(), "{bad}");
    }
    let interval = DataType::Interval(arrow::datatypes::IntervalUnit::DayTime);
    let fields = Fields::from(vec![Field::new("x", interval, true)]);
    let options = DecodeOptions { value: ValueFormat::json(fields), ..DecodeOptions::default() };
    assert!(Decoder::new(options).unwrap_err().to_string().contains("\"x\""));
}

#[test]
fn plain_and_compact_columns_hold_the_same_rows() {
    let long = vec![b'x'; 1000];
    let values: Vec<Option<&[u8]>> = (0..100).map(|_| Some(&long[..])).collect();
    let chunk = FetchedBytes::whole(tp(0), batch_of(&values, BatchOptions::default()));
    let rows = decode_all(vec![chunk.clone()], DecodeOptions::default()).unwrap().remove(0).rows;
    assert!(nbytes(&rows) > 100_000);
    // Key and value share their buffer; it counts once.
    assert!(nbytes(&rows) < 150_000);
    let few = rows.slice(10, 3);
    let small = compact(&few).unwrap();
    assert_eq!(small, few);
    assert!(nbytes(&small) < 5000, "{}", nbytes(&small));
    let plain = to_plain(&few).unwrap();
    assert_eq!(plain.column_by_name("value").unwrap().data_type(), &DataType::Binary);
    assert_eq!(plain.column_by_name("value").unwrap().as_binary::<i32>().value(2), long);
    let options = DecodeOptions { views: false, ..DecodeOptions::default() };
    let direct = decode_all(vec![chunk], options).unwrap().remove(0).rows;
    assert_eq!(direct.slice(10, 3), plain);
}

#[test]
fn many_small_compressed_batches_share_their_buffers() {
    let mut bytes = Vec::new();
    for offset in 0..1000 {
        let options = BatchOptions {
            base_offset: Offset(offset),
            compression: Compression::Lz4,
            ..BatchOptions::default()
        };
        bytes.extend_from_slice(&batch_of(
            &[Some(format!("a value of some size {offset}").as_bytes())],
            options,
        ));
    }
    let chunk = FetchedBytes::whole(tp(0), Bytes::from(bytes));
    let options = DecodeOptions { max_rows: 300, ..DecodeOptions::default() };
    let outputs = decode_all(vec![chunk], options).unwrap();
    let mut offset = 0;
    for output in &outputs {
        let values: &BinaryViewArray =
            output.rows.column_by_name("value").unwrap().as_binary_view();
        assert_eq!(values.data_buffers().len(), 1);
        for value in values.iter().flatten() {
            assert_eq!(value, format!("a value of some size {offset}").as_bytes());
            offset += 1;
        }
    }
    assert_eq!(offset, 1000);
}
