//! Files with typed columns: the rest of them is what it would be without, and nothing in a value keeps them from being made.

use arrow::array::{Int64Array, StringArray};
use arrow::record_batch::RecordBatch;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::*;

const JSON: &str =
    r#"{"format": "json", "columns": {"id": "int64", "name": "string", "offset": "int64"}}"#;
const AVRO: &str = r#"{"format": "avro", "id": 7, "schema": {"type": "record", "name": "R", "fields": [
    {"name": "id", "type": "long"}, {"name": "name", "type": ["null", "string"], "default": null}]}}"#;

/// A value, and its typed columns; none if it does not decode.
type Value = (Option<Vec<u8>>, Option<(Option<i64>, Option<String>)>);

fn json_value() -> impl Strategy<Value = Value> {
    let typed = (proptest::option::of(any::<i64>()), proptest::option::of("[a-zé\"\\\\]{0,20}"));
    prop_oneof![
        4 => typed.prop_map(|(id, name)| {
            let mut members = serde_json::Map::new();
            members.extend(id.map(|id| ("id".to_owned(), id.into())));
            members.insert("name".to_owned(), name.clone().into());
            members.insert("other".to_owned(), serde_json::json!([1, {"id": "x"}]));
            (Some(serde_json::to_vec(&members).unwrap()), Some((id, name)))
        }),
        1 => Just((None, Some((None, None)))),
        1 => Just((Some(br#"{"id": "x"}"#.to_vec()), None)),
        1 => Just((Some(br#"{"name": "a", "id": [1]}"#.to_vec()), None)),
        1 => Just((Some(br#"{"id": 1"#.to_vec()), None)),
        1 => any_bytes().prop_map(|value| match value {
            Some(mut value) => {
                value.insert(0, b'}');
                (Some(value), None)
            }
            None => (None, Some((None, None))),
        }),
    ]
}

fn avro_value() -> impl Strategy<Value = Value> {
    fn put_long(value: i64, bytes: &mut Vec<u8>) {
        put_varint(bytes, value, 0);
    }
    let typed = (any::<i32>(), proptest::option::of("[a-zé]{0,20}"), 6_u8..9);
    prop_oneof![
        4 => typed.prop_map(|(id, name, schema)| {
            let mut bytes = vec![0, 0, 0, 0, schema];
            put_long(id.into(), &mut bytes);
            bytes.push(if name.is_some() { 2 } else { 0 });
            if let Some(name) = &name {
                put_long(name.len() as i64, &mut bytes);
                bytes.extend_from_slice(name.as_bytes());
            }
            let typed = (schema == 7).then_some((Some(i64::from(id)), name));
            (Some(bytes), typed)
        }),
        1 => Just((None, Some((None, None)))),
        1 => any_bytes().prop_map(|value| match value {
            // A value that begins otherwise has no header.
            Some(mut value) => {
                value.insert(0, 1);
                (Some(value), None)
            }
            None => (None, Some((None, None))),
        }),
    ]
}

/// All columns of a file, as every reader of Parquet sees them.
fn whole(bytes: &Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

/// Puts these values into the records of a log, and checks what comes of them.
fn check_typed(steps: Vec<Step>, values: &[Value], (text, limits): (&str, GroupLimits)) {
    let mut steps = steps;
    let mut next = values.iter().cycle();
    for step in &mut steps {
        if let Step::Data(data) = step {
            for (record, (value, _)) in data.records.iter_mut().zip(&mut next) {
                record.value.clone_from(value);
            }
        }
    }
    let mut log = MadeLog::of(5, &steps);
    log.values = Some(text.to_owned());
    check_comes_back(&log, limits);

    let (bytes, _) = log.write(limits);
    let known: BTreeMap<_, _> =
        values.iter().map(|(value, typed)| (value.clone(), typed)).collect();
    let committed = log.committed();
    let mut rows = committed.iter();
    for batch in whole(&bytes) {
        let ids = batch.column_by_name("id").unwrap().as_any().downcast_ref::<Int64Array>();
        let names = batch.column_by_name("name").unwrap().as_any().downcast_ref::<StringArray>();
        for (id, name) in ids.unwrap().iter().zip(names.unwrap().iter()) {
            let row = rows.next().unwrap();
            let expected = known[&row.value].clone().unwrap_or_default();
            assert_eq!((id, name.map(str::to_owned)), expected, "{row:?}");
        }
    }
    assert!(rows.next().is_none());
    let bad: Vec<&Shown> = committed.iter().filter(|row| known[&row.value].is_none()).collect();
    let report = open(&bytes).unwrap().values().unwrap();
    assert_eq!(report.undecoded, bad.len() as u64);
    assert_eq!(report.first.map(|first| first.offset.0), bad.first().map(|row| row.offset));
    assert_eq!(report.last_offset.map(|last| last.0), bad.last().map(|row| row.offset));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn no_value_keeps_a_file_from_being_made(
        steps in proptest::collection::vec(any_step(), 0..15),
        json in proptest::collection::vec(json_value(), 1..20),
        avro in proptest::collection::vec(avro_value(), 1..20),
        limits in any_limits(),
    ) {
        check_typed(steps.clone(), &json, (JSON, limits));
        check_typed(steps, &avro, (AVRO, limits));
    }

    #[test]
    fn random_bytes_are_values_like_others(
        steps in proptest::collection::vec(any_step(), 0..15),
        limits in any_limits(),
    ) {
        let protobuf = r#"{"format": "protobuf", "schema": "syntax = \"proto3\"; message R { int64 id = 1; string name = 2; }"}"#;
        let bare = AVRO.replace(r#""id": 7, "#, "");
        for text in [JSON, AVRO, protobuf, &bare] {
            let mut log = MadeLog::of(5, &steps);
            log.values = Some(text.to_owned());
            check_comes_back(&log, limits);
        }
    }
}

#[test]
fn large_batches_are_decoded_in_parts() {
    let record = |number: i64| Written {
        gap: 0,
        timestamp: 1_700_000_000_000,
        key: None,
        value: Some(format!("{{\"id\": {number}, \"name\": \"n{}\"}}", number % 7).into_bytes()),
        headers: Vec::new(),
    };
    let data = Data {
        records: (0..20_000).map(record).collect(),
        codec: Compression::None,
        producer: None,
        transactional: false,
        log_append_time: None,
        delete_horizon: false,
        quirk: Quirk::None,
        rest: 0,
        new_epoch: false,
    };
    let mut log = MadeLog::of(0, &[Step::Data(data)]);
    log.values = Some(JSON.to_owned());
    let (bytes, _) = log.write(GroupLimits::default());
    let batches = whole(&bytes);
    let ids = batches.iter().flat_map(|batch| {
        let ids = batch.column_by_name("id").unwrap().as_primitive::<Int64Type>();
        ids.values().to_vec()
    });
    assert!(ids.eq(0..20_000));
    let columns = batches[0].schema();
    let names: Vec<_> = columns.fields().iter().map(|field| field.name().as_str()).collect();
    let expected = ["offset", "timestamp", "key", "value", "headers", "id", "name", "value_offset"];
    assert_eq!(names, expected);
    let file = open(&bytes).unwrap();
    assert_eq!(file.rows(0).unwrap().unwrap().num_columns(), 5, "typed columns are not read");
    assert_eq!(file.values().unwrap().columns, ["id", "name", "value_offset"]);
    // Readers skip row groups and pages by these.
    let group = &file.row_groups()[0];
    for name in ["id", "name", "offset"] {
        let column = group.columns().iter().find(|one| one.column_path().string() == name);
        assert!(column.unwrap().statistics().is_some(), "{name}");
        assert!(column.unwrap().column_index_offset().is_some(), "{name}");
    }
}

#[test]
fn a_table_has_typed_columns_behind_the_others() {
    let typed = [("id", "int64"), ("price", "decimal128[10, 2]"), ("at", "timestamp[us, UTC]")];
    let more = [("a", "bool"), ("b", "int8"), ("c", "int16"), ("d", "int32"), ("e", "float32")];
    let rest = [("f", "float64"), ("g", "string"), ("h", "binary"), ("i", "date32")];
    let all = typed.iter().chain(&more).chain(&rest).copied();
    let schema: serde_json::Value = serde_json::from_str(&delta_schema(all).unwrap()).unwrap();
    let fields = schema["fields"].as_array().unwrap();
    let found = fields.iter().skip(7).map(|field| {
        assert_eq!(field["nullable"], true);
        (field["name"].as_str().unwrap(), field["type"].as_str().unwrap())
    });
    let expected = [
        ("id", "long"),
        ("price", "decimal(10,2)"),
        ("at", "timestamp"),
        ("a", "boolean"),
        ("b", "byte"),
        ("c", "short"),
        ("d", "integer"),
        ("e", "float"),
        ("f", "double"),
        ("g", "string"),
        ("h", "binary"),
        ("i", "date"),
    ];
    assert_eq!(found.collect::<Vec<_>>(), expected);
    let error = delta_schema([("id", "int128")]).unwrap_err().to_string();
    assert!(error.contains("no columns of type \"int128\""), "{error}");
}
