//! Encoding: what is written reads back as the rows that it came from.

#![allow(
    clippy::cast_precision_loss,
    clippy::from_iter_instead_of_collect,
    reason = "small numbers; arrays read better by name"
)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    Float64Array, Int32Array, Int64Array, ListArray, MapBuilder, StringArray, StringBuilder,
    StringViewArray, StructArray, TimestampMicrosecondArray, TimestampMillisecondArray,
    TimestampNanosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{Field, Fields, Int32Type, Int64Type, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use serde_json::json;

use crate::columnar::*;
use crate::record::{Batch, Compression};
use crate::types::{PartitionIndex, TimestampMs, TopicPartition};

const NOW: TimestampMs = TimestampMs(5_000_000);

fn table(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    )
    .unwrap()
}

fn encode(rows: &RecordBatch, options: WriteOptions) -> crate::error::Result<Vec<EncodedBatch>> {
    let mut encoder = Encoder::new(options)?;
    encoder.push(rows, NOW, |_, _| PartitionIndex(0))?;
    encoder.finish()
}

/// Decodes batches, partition by partition.
fn decode(batches: &[EncodedBatch], value: ValueFormat) -> RecordBatch {
    let mut decoder =
        Decoder::new(DecodeOptions { value, max_rows: 7, ..DecodeOptions::default() }).unwrap();
    for batch in batches {
        let partition = TopicPartition::new("t", batch.partition);
        let parsed = Batch::parse(&batch.bytes).unwrap();
        assert_eq!(parsed.header().record_count, batch.record_count);
        decoder.push(FetchedBytes::whole(partition, batch.bytes.clone()));
    }
    let mut outputs = Vec::new();
    while let Some(output) = decoder.next(true).unwrap() {
        outputs.push(output.rows);
    }
    let schema = decoder.schema().unwrap();
    // The same topic dictionary in all, so they can be put together.
    concat_batches(&schema, &outputs).unwrap()
}

fn values(batches: &[EncodedBatch]) -> Vec<Option<String>> {
    let rows = decode(batches, ValueFormat::Raw);
    let values = rows.column_by_name("value").unwrap().as_binary_view().clone();
    values
        .iter()
        .map(|value| value.map(|value| String::from_utf8(value.to_vec()).unwrap()))
        .collect()
}

fn json_values(rows: &RecordBatch, exclude: &[&str]) -> Vec<String> {
    let exclude = exclude.iter().map(ToString::to_string).collect();
    let options = WriteOptions { value: ValueSource::json(exclude), ..WriteOptions::default() };
    values(&encode(rows, options).unwrap()).into_iter().flatten().collect()
}

#[test]
fn what_json_has_no_number_for_is_refused_or_written_as_asked() {
    let floats = Arc::new(Float64Array::from(vec![1.5, f64::NAN, f64::NEG_INFINITY])) as ArrayRef;
    let rows = table(vec![("f", floats)]);
    let write = |non_finite| {
        let value = ValueSource::Json(JsonTarget { exclude: Vec::new(), non_finite });
        encode(&rows, WriteOptions { value, ..WriteOptions::default() })
    };
    let error = write(NonFinite::Refuse).unwrap_err().to_string();
    assert!(error.contains("row 1: column \"f\": JSON has no NaN"), "{error}");
    let texts = |non_finite| -> Vec<_> {
        values(&write(non_finite).unwrap()).into_iter().flatten().collect()
    };
    assert_eq!(texts(NonFinite::Null), [r#"{"f":1.5}"#, r#"{"f":null}"#, r#"{"f":null}"#]);
    assert_eq!(texts(NonFinite::Text), [r#"{"f":1.5}"#, r#"{"f":"NaN"}"#, r#"{"f":"-Infinity"}"#]);
}

#[test]
#[expect(clippy::too_many_lines, reason = "one table of every type")]
fn every_type_is_written_as_documented() {
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    let object = StructArray::new(
        Fields::from(vec![Field::new("x", arrow::datatypes::DataType::Int32, true)]),
        vec![Arc::new(Int32Array::from(vec![Some(1), Some(2), None]))],
        None,
    );
    let mut map = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    map.keys().append_value("k\"");
    map.values().append_value("v");
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    let dictionary: DictionaryArray<Int32Type> =
        vec![Some("a"), None, Some("a")].into_iter().collect();
    let rows = table(vec![
        ("i", Arc::new(Int64Array::from(vec![Some(i64::MIN), Some(0), None])) as ArrayRef),
        ("u", Arc::new(UInt64Array::from(vec![u64::MAX, 10, 99]))),
        ("f", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(1e21)]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), Some(false), None]))),
        ("s", Arc::new(StringArray::from(vec!["plain text that is long", "q\"\\\n\u{1}ü", ""]))),
        (
            "v",
            Arc::new(StringViewArray::from(vec![
                Some("a view that is long enough"),
                None,
                Some("x"),
            ])),
        ),
        ("bin", Arc::new(BinaryArray::from(vec![&b"\x01\x02"[..], b"", b"abc"]))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![0, -1, 1_795_251_600_500]))),
        (
            "sec",
            Arc::new(TimestampSecondArray::from(vec![
                951_782_400,
                -62_135_596_800,
                253_402_300_799,
            ])),
        ),
        (
            "us",
            Arc::new(
                TimestampMicrosecondArray::from(vec![1, -1, 1_000_000])
                    .with_timezone("Europe/Berlin"),
            ),
        ),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![1, 2, 3]))),
        ("d", Arc::new(Date32Array::from(vec![0, -1, 19_782]))),
        (
            "dec",
            Arc::new(
                Decimal128Array::from(vec![12345, -5, 0]).with_precision_and_scale(20, 2).unwrap(),
            ),
        ),
        ("l", Arc::new(list)),
        ("o", Arc::new(object)),
        ("m", Arc::new(map.finish())),
        ("dict", Arc::new(dictionary)),
    ]);
    let texts = json_values(&rows, &[]);
    let found: Vec<serde_json::Value> =
        texts.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    assert_eq!(
        found[0],
        json!({
            "i": i64::MIN, "u": u64::MAX, "f": 1.5, "b": true, "s": "plain text that is long",
            "v": "a view that is long enough", "bin": "AQI=", "ms": "1970-01-01T00:00:00.000Z",
            "sec": "2000-02-29T00:00:00Z", "us": "1970-01-01T00:00:00.000001Z",
            "ns": "1970-01-01T00:00:00.000000001Z", "d": "1970-01-01", "dec": "123.45",
            "l": [1, null], "o": {"x": 1}, "m": {"k\"": "v"}, "dict": "a",
        })
    );
    assert_eq!(
        found[1],
        json!({
            "i": 0, "u": 10, "f": null, "b": false, "s": "q\"\\\n\u{1}ü", "v": null, "bin": "",
            "ms": "1969-12-31T23:59:59.999Z", "sec": "0001-01-01T00:00:00Z",
            "us": "1969-12-31T23:59:59.999999Z", "ns": "1970-01-01T00:00:00.000000002Z",
            "d": "1969-12-31", "dec": "-0.05", "l": null, "o": {"x": 2}, "m": {}, "dict": null,
        })
    );
    assert_eq!(found[2]["sec"], "9999-12-31T23:59:59Z");
    assert_eq!(found[2]["d"], "2024-02-29");
    assert_eq!(found[2]["f"], 1e21);
    assert_eq!(found[2]["l"], json!([]));
    assert!(texts[0].starts_with("{\"i\":-9223372036854775808,\"u\":"), "{}", texts[0]);
    // A slice is the same as the rows of the whole.
    assert_eq!(json_values(&rows.slice(1, 2), &[]), &texts[1..]);
    assert_eq!(
        json_values(
            &rows.slice(0, 1),
            &[
                "i", "u", "f", "b", "s", "v", "bin", "ms", "sec", "us", "ns", "d", "dec", "l", "m",
                "dict"
            ]
        ),
        ["{\"o\":{\"x\":1}}"]
    );
}

#[test]
fn json_rows_come_back_as_the_table_they_were() {
    let count = 100;
    let rows = table(vec![
        (
            "a",
            Arc::new(Int64Array::from_iter((0..count).map(|n| (n % 7 != 0).then_some(n * n))))
                as ArrayRef,
        ),
        ("b", Arc::new(Float64Array::from_iter_values((0..count).map(|n| n as f64 / 8.0)))),
        (
            "c",
            Arc::new(StringViewArray::from_iter_values(
                (0..count).map(|n| format!("text number {n}")),
            )),
        ),
    ]);
    for compression in Compression::ALL {
        let options = WriteOptions { compression, batch_size: 1500, ..WriteOptions::default() };
        let batches = encode(&rows, options).unwrap();
        assert!(batches.len() > 1);
        let fields = rows.schema().fields().clone();
        let back = decode(&batches, ValueFormat::json(fields));
        for name in ["a", "b", "c"] {
            assert_eq!(back.column_by_name(name), rows.column_by_name(name), "{name}");
        }
        let times =
            back.column_by_name("timestamp").unwrap().as_primitive::<TimestampMillisecondType>();
        assert!(times.values().iter().all(|time| *time == NOW.0));
    }
}

#[test]
fn keys_partitions_timestamps_and_headers_come_from_columns() {
    let entry_fields = header_fields_of_strings();
    let entries = StructArray::new(
        entry_fields.clone(),
        vec![
            Arc::new(StringArray::from(vec!["h", "h", "i"])),
            Arc::new(BinaryArray::from_opt_vec(vec![Some(b"1"), None, Some(b"3")])),
        ],
        None,
    );
    let item = Arc::new(Field::new("item", arrow::datatypes::DataType::Struct(entry_fields), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2, 0, 1, 0]);
    let headers = ListArray::new(
        item,
        offsets,
        Arc::new(entries),
        Some(vec![true, true, true, false].into()),
    );
    let rows = table(vec![
        ("id", Arc::new(Int32Array::from(vec![Some(-42), None, Some(7), Some(7)])) as ArrayRef),
        ("p", Arc::new(Int64Array::from(vec![1, 0, 1, 2]))),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from(vec![
                Some(1500),
                Some(999),
                Some(3000),
                Some(2000),
            ])),
        ),
        ("h", Arc::new(headers)),
        ("v", Arc::new(StringArray::from(vec![Some("a"), Some("b"), None, Some("")]))),
    ]);
    let options = WriteOptions {
        key: Some("id".into()),
        value: ValueSource::Column("v".into()),
        partition: PartitionSource::Column("p".into()),
        timestamp: Some("ts".into()),
        headers: HeaderSource::Column("h".into()),
        partition_count: 3,
        ..WriteOptions::default()
    };
    let batches = encode(&rows, options.clone()).unwrap();
    assert_eq!(batches.iter().map(|batch| batch.partition.0).collect::<Vec<_>>(), [0, 1, 2]);
    let back = decode(&batches, ValueFormat::Raw);
    let keys = back.column_by_name("key").unwrap().as_binary_view();
    let keys: Vec<_> = keys.iter().collect();
    assert_eq!(keys, [None, Some(&b"-42"[..]), Some(b"7"), Some(b"7")]);
    let values = back.column_by_name("value").unwrap().as_binary_view();
    assert_eq!(values.iter().collect::<Vec<_>>(), [Some(&b"b"[..]), Some(b"a"), None, Some(b"")]);
    let times =
        back.column_by_name("timestamp").unwrap().as_primitive::<TimestampMillisecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [Some(0), Some(1), Some(3), Some(2)]);
    let offsets = back.column_by_name("offset").unwrap().as_primitive::<Int64Type>();
    assert_eq!(offsets.values(), &[0, 0, 1, 0]);
    let headers = back.column_by_name("headers").unwrap().as_list::<i32>();
    let sizes: Vec<_> = (0..4).map(|row| headers.value_length(row)).collect();
    assert_eq!(sizes, [0, 2, 1, 0]);

    let wrong = WriteOptions { partition_count: 2, ..options.clone() };
    let error = encode(&rows, wrong).unwrap_err().to_string();
    assert!(error.contains("row 3") && error.contains("partition 2"), "{error}");
    let wrong = WriteOptions { timestamp: Some("id".into()), ..options.clone() };
    assert!(encode(&rows, wrong).unwrap_err().to_string().contains("unit"));
    let early: ArrayRef = Arc::new(TimestampSecondArray::from(vec![5, -1]));
    let early = table(vec![("ts", early)]);
    let wrong = WriteOptions { timestamp: Some("ts".into()), ..WriteOptions::default() };
    assert!(encode(&early, wrong).unwrap_err().to_string().contains("row 1"));
    let wrong = WriteOptions { key: Some("nope".into()), ..options };
    assert!(encode(&rows, wrong).unwrap_err().to_string().contains("there are id, p"));
}

fn header_fields_of_strings() -> Fields {
    Fields::from(vec![
        Field::new("key", arrow::datatypes::DataType::Utf8, false),
        Field::new("value", arrow::datatypes::DataType::Binary, true),
    ])
}

#[test]
fn a_key_of_floats_is_to_be_cast() {
    let floats = table(vec![("f", Arc::new(Float64Array::from(vec![0.5])) as ArrayRef)]);
    let options = WriteOptions { key: Some("f".into()), ..WriteOptions::default() };
    assert!(encode(&floats, options).unwrap_err().to_string().contains("cast"));
}

#[test]
fn a_row_without_a_time_is_refused_and_not_given_one() {
    let times = TimestampMillisecondArray::from(vec![Some(7), Some(5), None]);
    let rows = table(vec![("ts", Arc::new(times) as ArrayRef)]);
    let options = WriteOptions { timestamp: Some("ts".into()), ..WriteOptions::default() };
    let mut encoder = Encoder::new(options).unwrap();
    encoder.push(&rows.slice(0, 2), NOW, |_, _| PartitionIndex(0)).unwrap();
    assert_eq!(encoder.oldest(), Some(TimestampMs(5)));
    let error =
        encoder.push(&rows.slice(2, 1), NOW, |_, _| PartitionIndex(0)).unwrap_err().to_string();
    assert!(error.contains("row 2") && error.contains("\"ts\" is null"), "{error}");
}

#[test]
fn a_time_or_a_partition_that_is_out_of_range_is_told_by_its_row() {
    let refusal = |column: ArrayRef, options: WriteOptions| {
        let mut encoder = Encoder::new(options).unwrap();
        let rows = table(vec![("c", column)]);
        encoder.push(&rows.slice(0, 1), NOW, |_, _| PartitionIndex(0)).unwrap();
        let rest = rows.slice(1, rows.num_rows() - 1);
        encoder.push(&rest, NOW, |_, _| PartitionIndex(0)).unwrap_err().to_string()
    };
    let timed = || WriteOptions { timestamp: Some("c".into()), ..WriteOptions::default() };
    let seconds = TimestampSecondArray::from(vec![Some(1), Some(2), Some(1 << 62)]);
    let error = refusal(Arc::new(seconds), timed());
    let wanted =
        "row 2: timestamp column \"c\": 4611686018427387904 (Timestamp(s)) is out of range";
    assert!(error.contains(wanted), "{error}");
    let nulls = TimestampSecondArray::from(vec![Some(1), None, Some(3)]);
    let error = refusal(Arc::new(nulls), timed());
    assert!(error.contains("row 1: the timestamp column \"c\" is null"), "{error}");

    let placed = || WriteOptions {
        partition: PartitionSource::Column("c".into()),
        partition_count: 3,
        ..WriteOptions::default()
    };
    let far = Int64Array::from(vec![Some(0), Some(1), Some(1 << 40)]);
    let error = refusal(Arc::new(far), placed());
    assert!(error.contains("row 2: partition column \"c\": 1099511627776 is not"), "{error}");
    let error = refusal(Arc::new(Int64Array::from(vec![Some(0), Some(1), None])), placed());
    assert!(error.contains("row 2: the partition column \"c\" is null"), "{error}");
}

#[test]
fn the_partitioner_sees_keys_and_rows() {
    let rows = table(vec![(
        "k",
        Arc::new(StringArray::from(vec![Some("a"), None, Some("b")])) as ArrayRef,
    )]);
    let options = WriteOptions {
        key: Some("k".into()),
        value: ValueSource::Null,
        partition_count: 4,
        ..WriteOptions::default()
    };
    let mut encoder = Encoder::new(options).unwrap();
    let mut seen = Vec::new();
    encoder
        .push(&rows, NOW, |key, row| {
            seen.push((key.map(<[u8]>::to_vec), row));
            if key.is_some() { PartitionIndex(3) } else { PartitionIndex(1) }
        })
        .unwrap();
    let expected = [(Some(b"a".to_vec()), 0), (None, 1), (Some(b"b".to_vec()), 2)];
    assert_eq!(seen, expected);
    let batches = encoder.finish().unwrap();
    let sizes: Vec<_> =
        batches.iter().map(|batch| (batch.partition.0, batch.record_count)).collect();
    assert_eq!(sizes, [(1, 1), (3, 2)]);
    assert!(encoder.finish().unwrap().is_empty());
}

#[test]
fn batches_stay_within_their_size() {
    let long = "x".repeat(400);
    let rows = table(vec![(
        "v",
        Arc::new(StringArray::from_iter_values(
            (0..100).map(|n| if n == 50 { "y".repeat(5000) } else { long.clone() }),
        )) as ArrayRef,
    )]);
    let options = WriteOptions {
        value: ValueSource::Column("v".into()),
        batch_size: 2000,
        ..WriteOptions::default()
    };
    let batches = encode(&rows, options).unwrap();
    for batch in &batches {
        assert!(batch.bytes.len() <= 2000 || batch.record_count == 1);
    }
    assert_eq!(batches.iter().map(|batch| batch.record_count).sum::<i32>(), 100);
    assert!(batches.len() < 30);
}

/// Records of some values.
fn records(values: &[Option<&str>]) -> FetchedBytes {
    let mut builder = crate::record::BatchBuilder::new(crate::record::BatchOptions::default());
    for value in values {
        builder.append(NOW, None, value.map(str::as_bytes), &[]).unwrap();
    }
    FetchedBytes::whole(TopicPartition::new("t", 0), builder.finish().unwrap())
}

fn decoded(values: &[Option<&str>], options: DecodeOptions) -> Decoded {
    let mut decoder = Decoder::new(options).unwrap();
    decoder.push(records(values));
    decoder.next(true).unwrap().unwrap()
}

/// The values of rows that are written with what is known of them.
fn rewritten(
    rows: &RecordBatch,
    tombstones: &Tombstones,
    value: ValueSource,
) -> crate::error::Result<Vec<Option<String>>> {
    let options = WriteOptions { value, ..WriteOptions::default() };
    let mut encoder = Encoder::new(options.clone())?;
    encoder
        .push_prepared(Prepared::new(rows, tombstones, &options), NOW, |_, _| PartitionIndex(0))?;
    Ok(values(&encoder.finish()?))
}

#[test]
fn tombstones_are_written_as_tombstones() {
    let given = [Some(r#"{"x":1}"#), None, Some("{}"), Some(r#"{"x":null}"#), None];
    let options = DecodeOptions {
        columns: Some(vec!["x".to_owned()]),
        value: ValueFormat::json(Fields::from(vec![Field::new(
            "x",
            arrow::datatypes::DataType::Int64,
            true,
        )])),
        ..DecodeOptions::default()
    };
    let Decoded { rows, tombstones, .. } = decoded(&given, options);
    let json = || ValueSource::json(Vec::new());
    let expected = [Some("{\"x\":1}"), None, Some("{\"x\":null}"), Some("{\"x\":null}"), None];
    let expected = expected.map(|value| value.map(str::to_owned));
    assert_eq!(rewritten(&rows, &tombstones, json()).unwrap(), expected);
    let (part, of_part) = (rows.slice(1, 2), tombstones.slice(1, 2));
    assert_eq!(rewritten(&part, &of_part, json()).unwrap(), expected[1..3]);
    // Records of many rows cannot have one without any.
    let stream = || {
        let (exclude, max_rows, compression) = (Vec::new(), 10, None);
        ValueSource::ArrowIpc(IpcTarget { exclude, max_rows, compression })
    };
    let error = rewritten(&rows, &tombstones, stream()).unwrap_err().to_string();
    assert!(error.contains("tombstone"), "{error}");
    let (rest, of_rest) = (rows.slice(2, 2), tombstones.slice(2, 2));
    let options = WriteOptions { value: stream(), ..WriteOptions::default() };
    let mut encoder = Encoder::new(options.clone()).unwrap();
    let prepared = Prepared::new(&rest, &of_rest, &options);
    encoder.push_prepared(prepared, NOW, |_, _| PartitionIndex(0)).unwrap();
    assert_eq!(encoder.finish().unwrap().len(), 1);
}

#[test]
fn tombstones_are_known_of_the_rows_that_are_not_set_aside() {
    let given = [Some("bad"), None, Some(r#"{"x":1}"#), Some("worse"), None];
    let options = DecodeOptions {
        value: ValueFormat::json_inferred(),
        on_error: OnError::SetAside,
        ..DecodeOptions::default()
    };
    let found = decoded(&given, options);
    let known: Vec<bool> = (0..3).map(|row| found.tombstones.contains(row)).collect();
    assert_eq!((known, found.rejected.len()), (vec![true, false, true], 2));
    assert!(!found.hides_errors);
}

#[test]
fn nulls_may_hide_errors_where_something_is_decoded() {
    for (value, on_error, hides) in [
        (ValueFormat::json_inferred(), OnError::Null, true),
        (ValueFormat::Text, OnError::Null, true),
        (ValueFormat::Text, OnError::Column, true),
        (ValueFormat::Text, OnError::SetAside, false),
        (ValueFormat::Raw, OnError::Null, false),
        (ValueFormat::json_inferred(), OnError::Raise, false),
    ] {
        let options = DecodeOptions { value, on_error, ..DecodeOptions::default() };
        assert_eq!(decoded(&[Some("{}")], options.clone()).hides_errors, hides, "{options:?}");
    }
}
