//! Typed columns: settings, the columns that they give, and single values.

use arrow::array::{ArrayRef, AsArray, BinaryArray, Int64Array};
use arrow::datatypes::{
    DataType, Decimal128Type, Field, Int64Type, Schema, TimestampMicrosecondType,
};
use arrow::record_batch::RecordBatch;

use super::*;
use crate::types::Offset;

fn columns(text: &str) -> Vec<(String, String)> {
    ValueSchema::parse(text).unwrap().columns()
}

#[track_caller]
fn check_columns(text: &str, expected: &[(&str, &str)]) {
    let found = columns(text);
    let found: Vec<_> = found.iter().map(|(name, of)| (name.as_str(), of.as_str())).collect();
    assert_eq!(found, expected);
}

#[track_caller]
fn check_refused(text: &str, part: &str) {
    let error = ValueSchema::parse(text).unwrap_err().to_string();
    assert!(error.contains(part), "{error}");
}

#[test]
fn members_become_flat_columns_in_their_order() {
    check_columns(
        r#"{"format": "json", "columns": {"z": "int", "buyer": {"name": "str", "id": "uint64"}, "Key": "bool",
            "at": "timestamp[ms, UTC]", "price": "decimal128[10, 2]", "a": "binary"}}"#,
        &[
            ("z", "int32"),
            ("buyer_name", "string"),
            ("buyer_id", "decimal128[20, 0]"),
            ("value_Key", "bool"),
            ("at", "timestamp[us, UTC]"),
            ("price", "decimal128[10, 2]"),
            ("a", "binary"),
        ],
    );
    check_columns(
        r#"{"format": "avro", "columns": ["partition", "kind"], "schema": {"type": "record", "name": "R", "fields": [
            {"name": "tags", "type": {"type": "array", "items": "string"}},
            {"name": "kind", "type": {"type": "enum", "name": "K", "symbols": ["A"]}},
            {"name": "partition", "type": ["null", "long"]}]}}"#,
        &[("value_partition", "int64"), ("kind", "string")],
    );
    check_columns(
        r#"{"format": "protobuf", "schema": "syntax = \"proto3\"; message R { int64 id = 1; S s = 2; } message S { bool b = 1; }",
            "message": "R"}"#,
        &[("id", "int64"), ("s_b", "bool")],
    );
}

#[test]
fn every_type_of_a_column_has_a_name_that_is_read() {
    let text = r#"{"format": "json", "columns": {"a": "bool", "b": "int8", "c": "int16", "d": "int32", "e": "int64", "f": "float32",
        "g": "float64", "h": "string", "i": "binary", "j": "date32", "k": "timestamp[s, UTC]", "l": "decimal128[38, 0]"}}"#;
    let schema = ValueSchema::parse(text).unwrap();
    for (leaf, (_, name)) in schema.leaves.iter().zip(schema.columns()) {
        assert_eq!(table_type(&name).unwrap(), leaf.data_type, "{name}");
    }
    assert!(table_type("time64[us]").is_err());
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    let json = |columns: &str| format!("{{\"format\": \"json\", \"columns\": {columns}}}");
    check_refused("{}", "missing field `format`");
    check_refused(r#"{"format": "xml"}"#, "none of json, avro and protobuf");
    check_refused(r#"{"format": "json"}"#, "missing field `columns`");
    check_refused(
        r#"{"format": "json", "columns": {"a": "bool"}, "colums": {}}"#,
        "unknown field `colums`",
    );
    check_refused(&json("{}"), "it names no column");
    check_refused(&json(r#"{"a": "integer"}"#), "\"integer\" is no type of a column: use bool");
    check_refused(
        &json(r#"{"a": "list<int64>"}"#),
        "field \"a\" is list<int64>, and typed columns are flat",
    );
    check_refused(&json(r#"{"a": "timestamp[ns, UTC]"}"#), "field \"a\" is timestamp[ns, UTC]");
    check_refused(&json(r#"{"a": "timestamp[us]"}"#), "leave the field out");
    check_refused(&json(r#"{"a": "decimal128[4, 5]"}"#), "leave the field out");
    check_refused(&json(r#"{"a": "bool", "a": "int8"}"#), "member \"a\" is there twice");
    check_refused(&json(r#"{"a": "bool", "A": "int8"}"#), "one name where case does not count");
    check_refused(&json(r#"{"a": {"b": "bool"}, "a_b": "int8"}"#), "\"a_b\" and \"a_b\"");
    check_refused(&json(r#"{"offset": "bool", "value_offset": "int8"}"#), "two columns");
    check_refused(&json(r#"{"a b": "bool"}"#), "is no name for a column");
    let many: Vec<String> = (0..257).map(|number| format!("\"a{number}\": \"bool\"")).collect();
    check_refused(&json(&format!("{{{}}}", many.join(","))), "more than 256 columns");

    let avro = |rest: &str| format!("{{\"format\": \"avro\", {rest}}}");
    let record = |kind: &str| {
        format!(
            r#""schema": {{"type": "record", "name": "R", "fields": [{{"name": "a", "type": {kind}}}]}}"#
        )
    };
    check_refused(&avro(r#""schema": {"type": "recrod"}"#), "Avro schema");
    check_refused(
        &avro(&record(r#"{"type": "array", "items": "int"}"#)),
        "field \"a\" is list<int32>",
    );
    check_refused(&avro(&record(r#"{"type": "int", "logicalType": "time-millis"}"#)), "time32[ms]");
    let columns = format!("{}, \"columns\": [\"b\"]", record("\"int\""));
    check_refused(&avro(&columns), "the schema has no field \"b\"; it has a");
    let writers = format!("{}, \"id\": 7, \"writers\": {{\"7\": \"int\"}}", record("\"int\""));
    check_refused(&avro(&writers), "7 is the id of the schema itself");
    let writers = format!("{}, \"writers\": {{\"8\": \"itn\"}}", record("\"int\""));
    check_refused(&avro(&writers), "writer 8");
    check_refused(r#"{"format": "protobuf", "schema": "message"}"#, "Protobuf schema");
}

/// The columns of these values, whose offsets begin with 10, and what is reported.
fn decode(text: &str, values: &[Option<&[u8]>]) -> (Vec<ArrayRef>, ValueReport) {
    let schema = ValueSchema::parse(text).unwrap();
    let names = schema.columns().into_iter().map(|(name, _)| name).collect();
    let mut decoding = ValueDecoding::new(schema, names).unwrap();
    let fields = [("offset", DataType::Int64, false), ("value", DataType::Binary, true)];
    let fields = fields.map(|(name, data_type, nullable)| Field::new(name, data_type, nullable));
    let offsets: Int64Array = (10_i64..).take(values.len()).collect();
    let values: BinaryArray = values.iter().copied().collect();
    let rows: Vec<ArrayRef> = vec![Arc::new(offsets), Arc::new(values)];
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.to_vec())), rows).unwrap();
    (decoding.columns(&rows).unwrap(), decoding.report().clone())
}

#[test]
fn members_within_a_missing_object_are_null() {
    let text = r#"{"format": "json", "columns": {"a": {"b": {"c": "int64"}, "d": "uint64"}}}"#;
    let values: [&[u8]; 5] = [
        br#"{"a": {"b": {"c": 1}, "d": 18446744073709551615}}"#,
        br#"{"a": {"d": 2}}"#,
        br#"{"a": null}"#,
        b"{}",
        br#"{"a": {"b": 3}}"#,
    ];
    let (columns, report) = decode(text, &values.map(Some));
    let inner = columns[0].as_primitive::<Int64Type>();
    assert_eq!(inner.iter().collect::<Vec<_>>(), [Some(1), None, None, None, None]);
    let large = columns[1].as_primitive::<Decimal128Type>();
    assert_eq!(large.iter().take(2).collect::<Vec<_>>(), [Some(i128::from(u64::MAX)), Some(2)]);
    assert_eq!(report.undecoded, 1);
    assert_eq!(report.first.unwrap().offset, Offset(14));
}

#[test]
fn values_of_several_writers_are_read_by_their_own_schemas() {
    let field = |name: &str, of: &str| format!(r#"{{"name": "{name}", "type": "{of}"}}"#);
    let record = |fields: &[String]| {
        format!(r#"{{"type": "record", "name": "R", "fields": [{}]}}"#, fields.join(","))
    };
    let reader = record(&[field("a", "long"), field("b", "long")]);
    let older = record(&[field("b", "long"), field("a", "int")]);
    let text = format!(
        r#"{{"format": "avro", "schema": {reader}, "id": 2, "writers": {{"1": {older}}}}}"#
    );
    let values: [&[u8]; 4] =
        [&[0, 0, 0, 0, 2, 2, 4], &[0, 0, 0, 0, 1, 2, 4], &[0, 0, 0, 0, 3, 2, 4], &[2, 4]];
    let (columns, report) = decode(&text, &values.map(Some));
    let column =
        |index: usize| columns[index].as_primitive::<Int64Type>().iter().collect::<Vec<_>>();
    assert_eq!(column(0), [Some(1), Some(2), None, None]);
    assert_eq!(column(1), [Some(2), Some(1), None, None]);
    assert_eq!((report.undecoded, report.last_offset), (2, Some(Offset(13))));
    let first = report.first.unwrap();
    assert_eq!(first.offset, Offset(12));
    assert!(
        first.cause.contains("no schema with the id 3: add it to its \"writers\""),
        "{first:?}"
    );
    // Without a header they are what the schema says.
    let (columns, report) =
        decode(&format!(r#"{{"format": "avro", "schema": {reader}}}"#), &[Some(&[2, 4])]);
    assert_eq!((columns[1].as_primitive::<Int64Type>().value(0), report.undecoded), (2, 0));
}

#[test]
fn a_time_that_microseconds_cannot_express_is_bad() {
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "a", "type": "long"},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}}]}"#;
    let text = format!(r#"{{"format": "avro", "schema": {schema}}}"#);
    let largest: &[u8] = &[2, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
    let (columns, report) = decode(&text, &[Some(&[2, 4]), Some(largest), None]);
    let times = columns[1].as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.iter().collect::<Vec<_>>(), [Some(2000), None, None]);
    assert_eq!(
        columns[0].as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(1), None, None]
    );
    assert_eq!(report.undecoded, 1);
    assert!(report.first.unwrap().cause.contains("field \"at\""));
}
