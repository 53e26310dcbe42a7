//! Avro in both directions: each type by example, evolution, bad values, and random schemas whose
//! values come back byte for byte.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use arrow::array::{Array, AsArray, NullArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, Schema as ArrowSchema, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::write::{put_bytes, put_long};
use super::*;
use crate::columnar::formats::reading::Columns;
use crate::columnar::formats::registry::SchemaRequest;
use crate::columnar::formats::rows::decode_rows;
use crate::columnar::formats::rows::testing::assert_blocks_are_rows;
use crate::error::Error;

fn schema(json: &Value) -> AvroSchema {
    AvroSchema::parse(&json.to_string()).unwrap()
}

fn record(fields: &Value) -> AvroSchema {
    schema(&json!({"type": "record", "name": "test.R", "fields": fields}))
}

fn plain(schema: &AvroSchema) -> AvroFormat {
    AvroFormat { schema: ReaderSchema::Given(schema.clone()), framed: false, source: None }
}

fn table(schema: &AvroSchema, columns: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(Arc::new(ArrowSchema::new(schema.fields().unwrap())), columns).unwrap()
}

fn decoder_for(format: &AvroFormat, schema: &AvroSchema) -> AvroDecoder {
    let all: Vec<usize> = (0..schema.fields().unwrap().len()).collect();
    AvroDecoder::new(format, schema, &all).unwrap()
}

fn decode(schema: &AvroSchema, values: &[&[u8]]) -> RecordBatch {
    let mut decoder = decoder_for(&plain(schema), schema);
    for value in values {
        decoder.push(value).unwrap();
    }
    table(schema, decoder.finish().unwrap())
}

fn fault(schema: &AvroSchema, value: &[u8]) -> String {
    let mut decoder = decoder_for(&plain(schema), schema);
    let fault = decoder.push(value).unwrap_err();
    assert!(decoder.finish().unwrap().iter().all(Array::is_empty));
    match fault {
        Fault::Bad(detail) => {
            let (detail, excerpt) = detail.split_once("; the value of ").unwrap();
            assert!(excerpt.starts_with(&format!("{} bytes", value.len())));
            detail.to_owned()
        }
        other => panic!("{other:?}"),
    }
}

fn encode(schema: &AvroSchema, rows: &RecordBatch) -> Vec<Vec<u8>> {
    let writer = AvroWriter::new(rows, schema, &[]).unwrap();
    let encode = |row| {
        let mut output = Vec::new();
        writer.write(row, &mut output).unwrap();
        output
    };
    (0..rows.num_rows()).map(encode).collect()
}

fn cell(rows: &RecordBatch, column: &str, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    let column = rows.column_by_name(column).unwrap();
    ArrayFormatter::try_new(column, &options).unwrap().value(row).to_string()
}

#[test]
fn each_type_has_its_arrow_type() {
    let schema = record(&json!([
        {"name": "bool", "type": "boolean"},
        {"name": "date", "type": {"type": "int", "logicalType": "date"}},
        {"name": "time", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "micros", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "local", "type": {"type": "long", "logicalType": "local-timestamp-millis"}},
        {"name": "money", "type":
            {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
        {"name": "wide", "type":
            {"type": "bytes", "logicalType": "decimal", "precision": 50, "scale": 2}},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "suit", "type": {"type": "enum", "name": "Suit", "symbols": ["A", "B"]}},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "more", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "either", "type": ["null", "int", "string"]},
    ]));
    let fields = schema.fields().unwrap();
    let of = |name: &str| fields.find(name).unwrap().1.data_type().clone();
    assert_eq!(of("date"), DataType::Date32);
    assert_eq!(of("time"), DataType::Time32(TimeUnit::Millisecond));
    assert_eq!(of("micros"), DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())));
    assert_eq!(of("local"), DataType::Timestamp(TimeUnit::Millisecond, None));
    assert_eq!(of("money"), DataType::Decimal128(9, 2));
    assert_eq!(of("wide"), DataType::Decimal256(50, 2));
    assert_eq!(of("uuid"), DataType::Utf8View);
    assert_eq!(of("hash"), DataType::FixedSizeBinary(4));
    assert!(fields.iter().all(|field| field.is_nullable()), "a tombstone is a null row");

    let mut value = vec![1];
    put_long(19_000, &mut value);
    put_long(3_600_000, &mut value);
    put_long(1_700_000_000_000_001, &mut value);
    put_long(-1, &mut value);
    put_bytes(&[0xff, 0x38], &mut value);
    put_bytes(&[1, 0], &mut value);
    put_bytes(b"123e4567-e89b-12d3-a456-426614174000", &mut value);
    put_long(1, &mut value);
    put_long(2, &mut value);
    put_bytes(b"x", &mut value);
    put_bytes(b"a text of more than twelve bytes", &mut value);
    put_long(0, &mut value);
    put_long(1, &mut value);
    put_bytes(b"k", &mut value);
    put_long(1, &mut value);
    put_long(7, &mut value);
    put_long(0, &mut value);
    value.extend_from_slice(b"\x00\x01\x02\x03");
    put_long(2, &mut value);
    put_bytes(b"text", &mut value);
    let rows = decode(&schema, &[&value]);
    let shown = |name| cell(&rows, name, 0);
    assert_eq!(shown("bool"), "true");
    assert_eq!(shown("date"), "2022-01-08");
    assert_eq!(shown("time"), "01:00:00");
    let micros = rows.column_by_name("micros").unwrap();
    let micros = micros.as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(micros.value(0), 1_700_000_000_000_001);
    assert_eq!(shown("local"), "1969-12-31T23:59:59.999");
    assert_eq!(shown("money"), "-2.00");
    assert_eq!(shown("wide"), "2.56");
    assert_eq!(shown("suit"), "B");
    assert_eq!(shown("tags"), "[x, a text of more than twelve bytes]");
    assert_eq!(shown("more"), "{k: 7}");
    assert_eq!(shown("hash"), "00010203");
    assert_eq!(shown("either"), "{int: null, string: text}");
    assert_eq!(encode(&schema, &rows), [value]);
}

#[test]
fn a_datum_that_is_no_record_is_one_column() {
    let schema = AvroSchema::parse("\"long\"").unwrap();
    let rows = decode(&schema, &[&[4], &[3]]);
    assert_eq!(
        rows.column_by_name("value").unwrap().as_primitive::<Int64Type>().values(),
        &[2, -2]
    );
    assert_eq!(encode(&schema, &rows), [vec![4], vec![3]]);
}

#[test]
fn blocks_with_their_size_are_read_and_stepped_over() {
    let list = json!({"type": "array", "items": "int"});
    let schema = record(&json!([{"name": "a", "type": list}, {"name": "b", "type": "int"}]));
    // Two blocks: -2 items of 2 bytes, then 1 item.
    let value = [3, 4, 2, 4, 2, 6, 0, 20];
    let rows = decode(&schema, &[&value]);
    assert_eq!(cell(&rows, "a", 0), "[1, 2, 3]");
    let mut only_b = AvroDecoder::new(&plain(&schema), &schema, &[1]).unwrap();
    only_b.push(&value).unwrap();
    let columns = only_b.finish().unwrap();
    assert_eq!(columns.len(), 1);
    assert_eq!(columns[0].as_primitive::<Int32Type>().values(), &[10]);
}

#[test]
fn a_bad_value_says_which_field_and_leaves_no_trace() {
    let schema = record(&json!([
        {"name": "id", "type": "int"},
        {"name": "in", "type": {"type": "record", "name": "In", "fields": [
            {"name": "text", "type": "string"}]}},
    ]));
    assert_eq!(fault(&schema, &[]), "field \"id\": the value ends early");
    assert_eq!(fault(&schema, &[2, 4, 0xff, 0xff]), "field \"in.text\": the text is not UTF-8");
    assert_eq!(fault(&schema, &[2, 1]), "field \"in.text\": a length is -1");
    assert!(fault(&schema, &[2, 2, b'x', 0]).starts_with("1 bytes are left after the record"));
    assert!(fault(&schema, &[0xff; 11]).contains("more than 10 bytes"));
    assert!(fault(&schema, &[0x80, 0x80, 0x80, 0x80, 0x80, 1]).contains("not a 32-bit integer"));
}

#[test]
fn lists_that_do_not_fit_the_value_are_refused_before_memory_is_taken() {
    let of = |items: &str| {
        record(&json!([{"name": "a", "type": {"type": "array", "items": {
            "type": "array", "items": items}}}]))
    };
    let mut value = Vec::new();
    put_long(i64::MAX, &mut value);
    assert!(fault(&of("int"), &value).contains("do not fit"));
    let mut value = Vec::new();
    put_long(1 << 10, &mut value);
    for _ in 0..1 << 10 {
        put_long(1 << 15, &mut value);
        put_long(0, &mut value);
    }
    assert!(fault(&of("null"), &value).contains("do not fit"));
    let mut value = Vec::new();
    put_long(i64::MIN, &mut value);
    put_long(1, &mut value);
    assert!(fault(&of("int"), &value).contains("do not fit"));
}

#[test]
fn schemas_that_are_none_are_refused_with_a_reason() {
    let refused = |text: &str, why: &str| match AvroSchema::parse(text) {
        Err(Error::InvalidArgument(detail)) => assert!(detail.contains(why), "{detail}"),
        other => panic!("{other:?}"),
    };
    refused("{", "not JSON");
    refused("\"strin\"", "there is no type \"strin\"");
    refused(r#"{"type": "record", "name": "A"}"#, "no \"fields\"");
    refused(
        r#"{"type": "record", "name": "n.A", "fields": [{"name": "a", "type": ["null", "A"]}]}"#,
        "\"n.A\" is recursive",
    );
    refused(r#"["int", "int"]"#, "twice");
    let deep = format!("{}\"int\"{}", r#"{"type": "array", "items": "#.repeat(90), "}".repeat(90));
    refused(&deep, "too deeply");
}

/// A registry in memory.
#[derive(Debug, Default)]
struct Shelf {
    schemas: Mutex<BTreeMap<SchemaId, Result<Arc<Registered>, String>>>,
}

impl Shelf {
    fn of(schemas: &[(u32, &AvroSchema)]) -> Arc<Self> {
        let shelf = Self::default();
        for (id, schema) in schemas {
            let id = SchemaId(*id);
            let registered = Registered {
                id,
                kind: SchemaKind::Avro,
                text: schema.text().to_owned(),
                references: Vec::new(),
            };
            shelf.schemas.lock().unwrap().insert(id, Ok(Arc::new(registered)));
        }
        Arc::new(shelf)
    }
}

impl SchemaSource for Shelf {
    fn known(&self, id: SchemaId) -> Option<Result<Arc<Registered>, String>> {
        self.schemas.lock().unwrap().get(&id).cloned()
    }

    fn latest(&self, _: &str) -> Option<Result<Arc<Registered>, String>> {
        self.schemas.lock().unwrap().values().next_back().cloned()
    }

    fn load(&self, request: &SchemaRequest) -> Result<()> {
        if let SchemaRequest::Id(id) = request {
            let missing = Err(format!("there is no schema {id}"));
            self.schemas.lock().unwrap().entry(*id).or_insert(missing);
        }
        Ok(())
    }

    fn register(
        &self,
        _: &str,
        _: (SchemaKind, &str, &[crate::columnar::SchemaReference]),
        _: bool,
    ) -> Result<SchemaId> {
        Ok(SchemaId(1))
    }

    fn version(
        &self,
        _: &str,
        _: (SchemaKind, &str, &[crate::columnar::SchemaReference]),
    ) -> Result<i32> {
        Ok(1)
    }
}

/// Values of a writer's schema in the columns of a reader's.
fn evolved(writer: &AvroSchema, reader: &AvroSchema, value: &[u8]) -> Result<RecordBatch, String> {
    let source: Arc<dyn SchemaSource> = Shelf::of(&[(5, writer)]);
    let format = AvroFormat {
        schema: ReaderSchema::Given(reader.clone()),
        framed: true,
        source: Some(source),
    };
    let mut decoder = decoder_for(&format, reader);
    let mut framed = vec![0, 0, 0, 0, 5];
    framed.extend_from_slice(value);
    match decoder.push(&framed) {
        Ok(()) => Ok(table(reader, decoder.finish().unwrap())),
        Err(Fault::Bad(detail)) => Err(detail),
        Err(other) => panic!("{other:?}"),
    }
}

#[test]
fn values_of_an_older_schema_fit_the_columns_of_a_newer_one() {
    let writer = record(&json!([
        {"name": "gone", "type": {"type": "map", "values": "string"}},
        {"name": "id", "type": "int"},
        {"name": "old", "type": "string"},
        {"name": "suit", "type": {"type": "enum", "name": "S", "symbols": ["X", "B", "A"]}},
        {"name": "maybe", "type": "float"},
    ]));
    let reader = record(&json!([
        {"name": "suit", "type":
            {"type": "enum", "name": "S", "symbols": ["A", "B", "?"], "default": "?"}},
        {"name": "id", "type": "long"},
        {"name": "new", "type": "string", "aliases": ["old"]},
        {"name": "added", "type": ["null", "int"], "default": null},
        {"name": "more", "type": {"type": "array", "items": "int"}, "default": [1, 2]},
        {"name": "maybe", "type": ["null", "double"]},
    ]));
    let mut value = vec![2, 2, b'k', 2, b'v', 0, 6, 4, b'o', b'k', 0];
    value.extend(1.5_f32.to_le_bytes());
    let rows = evolved(&writer, &reader, &value).unwrap();
    let shown = |name| cell(&rows, name, 0);
    assert_eq!(shown("id"), "3");
    assert_eq!(shown("new"), "ok");
    assert_eq!(shown("suit"), "?", "the default symbol");
    assert_eq!(shown("added"), "null");
    assert_eq!(shown("more"), "[1, 2]");
    assert_eq!(shown("maybe"), "1.5");
}

#[test]
fn blocks_of_values_of_several_schemas_are_read_as_rows_are() {
    let writer = record(&json!([
        {"name": "gone", "type": "string"},
        {"name": "id", "type": "int"},
        {"name": "maybe", "type": ["null", "float"]},
    ]));
    let reader = record(&json!([
        {"name": "id", "type": "long"},
        {"name": "added", "type": ["null", "int"], "default": null},
        {"name": "more", "type": {"type": "array", "items": "int"}, "default": [1, 2]},
        {"name": "maybe", "type": ["null", "double"]},
    ]));
    let source: Arc<dyn SchemaSource> = Shelf::of(&[(5, &writer), (6, &reader)]);
    let format = AvroFormat {
        schema: ReaderSchema::Given(reader.clone()),
        framed: true,
        source: Some(source),
    };
    let old = [&[0, 0, 0, 0, 5, 2, b'x', 6, 2][..], &1.5_f32.to_le_bytes()].concat();
    let new = [0, 0, 0, 0, 6, 6, 2, 4, 0, 0].to_vec();
    let mut values = vec![Some(old); 900];
    let blocks = |values: &[_]| assert_blocks_are_rows(|| decoder_for(&format, &reader), values);
    // The first block finds out which schema it is.
    assert_eq!(blocks(&values), 14);
    values[100] = Some(new.clone());
    values[150] = Some(b"not framed".to_vec());
    values[170] = None;
    assert!(blocks(&values) > 0);
    values.iter_mut().skip(200).for_each(|value| *value = Some(new.clone()));
    assert!(blocks(&values) > 0);
}

#[test]
fn a_decoder_goes_on_after_a_value_that_ended_the_output() {
    let schema = record(&json!([{"name": "a", "type": "int"}]));
    let mut decoder = decoder_for(&plain(&schema), &schema);
    let values = |bad: usize| -> arrow::array::BinaryViewArray {
        (0..200).map(|at| Some(if at == bad { &[][..] } else { &[2][..] })).collect()
    };
    let ended = decode_rows(&mut decoder, &values(70), &mut |row, detail| {
        Err(Error::invalid(format!("{row}: {detail}")))
    });
    assert!(ended.unwrap_err().to_string().contains("70: field \"a\""));
    let columns = decode_rows(&mut decoder, &values(200), &mut |_, _| Ok(()));
    let Ok(Columns::Done(columns)) = columns else { panic!("{columns:?}") };
    assert_eq!(columns[0].as_primitive::<Int32Type>().values(), &[1; 200]);
}

fn time(of: &str, logical: &str) -> Value {
    json!({"name": "a", "type": {"type": of, "logicalType": logical}})
}

#[test]
fn a_time_is_read_in_a_finer_unit() {
    let read = |writer: Value, reader: Value| {
        let rows = evolved(&record(&json!([writer])), &record(&json!([reader])), &[6]).unwrap();
        let numbers = cast(rows.column_by_name("a").unwrap(), &DataType::Int64).unwrap();
        numbers.as_primitive::<Int64Type>().value(0)
    };
    let long = |logical: &str| time("long", logical);
    assert_eq!(read(long("timestamp-millis"), long("timestamp-millis")), 3);
    assert_eq!(read(long("timestamp-millis"), long("timestamp-micros")), 3_000);
    assert_eq!(read(long("timestamp-millis"), long("timestamp-nanos")), 3_000_000);
    assert_eq!(read(long("timestamp-micros"), long("timestamp-nanos")), 3_000);
    assert_eq!(read(long("local-timestamp-millis"), long("local-timestamp-micros")), 3_000);
    assert_eq!(read(time("int", "time-millis"), long("time-micros")), 3_000);
}

#[test]
fn schemas_that_do_not_fit_fail_the_values_and_say_why() {
    let of = |field: Value| record(&json!([field]));
    let fails = |writer: Value, reader: Value, value: &[u8], why: &str| {
        let detail = evolved(&of(writer), &of(reader), value).unwrap_err();
        assert!(detail.contains(why), "{detail}");
    };
    let a = |schema: &str| json!({"name": "a", "type": schema});
    fails(a("string"), a("int"), &[0], "string cannot be read as int");
    fails(a("int"), json!({"name": "b", "type": "int"}), &[0], "has no default");
    fails(
        time("long", "timestamp-micros"),
        time("long", "timestamp-millis"),
        &[0],
        "timestamp-micros cannot be read as timestamp-millis",
    );
    fails(
        time("long", "timestamp-millis"),
        time("long", "local-timestamp-millis"),
        &[0],
        "timestamp-millis cannot be read as local-timestamp-millis",
    );
    // The largest long.
    let most = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let (coarse, fine) = (time("long", "timestamp-millis"), time("long", "timestamp-micros"));
    fails(coarse, fine, &most, "does not fit 64 bits");
    let maybe = json!({"name": "a", "type": ["null", "int"]});
    let filled = evolved(&of(maybe.clone()), &of(a("long")), &[2, 6]).unwrap();
    assert_eq!(cell(&filled, "a", 0), "3");
    fails(maybe, a("long"), &[0], "cannot be read as");
}

#[test]
fn a_schema_id_is_asked_for_once_and_a_missing_one_fails_its_values_only() {
    let schema = record(&json!([{"name": "a", "type": "int"}]));
    let shelf = Shelf::of(&[(1, &schema)]);
    let source: Arc<dyn SchemaSource> = shelf.clone();
    let format = AvroFormat { schema: ReaderSchema::First, framed: true, source: Some(source) };
    let mut decoder = decoder_for(&format, &schema);
    decoder.push(&[0, 0, 0, 0, 1, 2]).unwrap();
    let request = SchemaRequest::Id(SchemaId(9));
    assert_eq!(decoder.push(&[0, 0, 0, 0, 9, 2]), Err(Fault::Schema(request.clone())));
    shelf.load(&request).unwrap();
    let bad = decoder.push(&[0, 0, 0, 0, 9, 2]);
    assert_eq!(bad, Err(Fault::Bad("there is no schema 9".to_owned())));
    decoder.push(&[0, 0, 0, 0, 1, 4]).unwrap();
    assert!(matches!(decoder.push(b"{}"), Err(Fault::Bad(detail)) if detail.contains("registry")));
    assert_eq!(decoder.finish().unwrap()[0].as_primitive::<Int32Type>().values(), &[1, 2]);
}

#[test]
fn a_table_has_a_schema_that_its_rows_are_written_with() {
    let schema = record(&json!([
        {"name": "id", "type": "long"},
        {"name": "in", "type": ["null", {"type": "record", "name": "In", "fields": [
            {"name": "x", "type": ["null", "double"]}]}]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ]));
    let value = [2, 2, 2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0];
    let rows = decode(&schema, &[&value, &[4, 0, 0]]);
    let derived = AvroSchema::of_table(rows.schema_ref(), "my-topic", &[]).unwrap();
    assert!(derived.text().contains("\"my_topic\""));
    let written = encode(&derived, &rows);
    let values: Vec<&[u8]> = written.iter().map(Vec::as_slice).collect();
    let again = decode(&derived, &values);
    for name in ["id", "in", "tags"] {
        for row in 0..2 {
            assert_eq!(cell(&again, name, row), cell(&rows, name, row), "{name} {row}");
        }
    }
}

#[test]
fn columns_that_do_not_fit_the_schema_are_refused() {
    let all =
        record(&json!([{"name": "a", "type": "int"}, {"name": "b", "type": ["null", "int"]}]));
    let rows = decode(&all, &[&[2, 0]]);
    let some = record(&json!([{"name": "a", "type": "int"}]));
    let error = AvroWriter::new(&rows, &some, &[]).unwrap_err().to_string();
    assert!(error.contains("\"b\"") && error.contains("exclude"), "{error}");
    AvroWriter::new(&rows, &some, &["b".to_owned()]).unwrap();
    let strict = record(&json!([{"name": "a", "type": "int"}, {"name": "b", "type": "int"}]));
    let writer = AvroWriter::new(&rows, &strict, &[]).unwrap();
    let error = writer.write(0, &mut Vec::new()).unwrap_err();
    assert!(error.contains("\"b\" is null"), "{error}");
    let text = record(&json!([{"name": "a", "type": "string"}, {"name": "b", "type": "int"}]));
    let error = AvroWriter::new(&rows, &text, &[]).unwrap_err().to_string();
    assert!(error.contains("must contain text"), "{error}");
}

#[test]
fn nulls_without_a_type_are_written_only_where_the_schema_has_null() {
    for kind in [
        json!("int"),
        json!("string"),
        json!("bytes"),
        json!({"type": "int", "logicalType": "date"}),
        json!({"type": "long", "logicalType": "timestamp-millis"}),
        json!({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
        json!({"type": "enum", "name": "E", "symbols": ["A"]}),
        json!({"type": "array", "items": "int"}),
        json!({"type": "map", "values": "int"}),
        json!({"type": "record", "name": "N", "fields": [{"name": "a", "type": "int"}]}),
    ] {
        let written = |kind: Value| {
            let schema = record(&json!([{"name": "x", "type": kind}]));
            let nulls: ArrayRef = Arc::new(NullArray::new(1));
            let rows = RecordBatch::try_from_iter([("x", nulls)]).unwrap();
            let mut output = Vec::new();
            let writer = AvroWriter::new(&rows, &schema, &[]).unwrap();
            writer.write(0, &mut output).map(|()| output)
        };
        assert!(written(kind.clone()).unwrap_err().contains("\"x\" is null"), "{kind}");
        assert_eq!(written(json!([kind, "null"])), Ok(vec![2]), "{kind}");
        assert_eq!(written(json!(["null", kind, "boolean"])), Ok(vec![0]), "{kind}");
        assert!(written(json!([kind, "boolean"])).unwrap_err().contains("\"x\" is null"), "{kind}");
    }
}

/// Makes schemas and values from random bytes.
struct Dice<'a> {
    bytes: &'a [u8],
    names: usize,
}

impl Dice<'_> {
    fn roll(&mut self, sides: usize) -> usize {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                usize::from(*first) % sides
            }
            None => 0,
        }
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("N{}", self.names)
    }

    fn schema(&mut self, depth: usize) -> Value {
        match self.roll(if depth > 3 { 14 } else { 19 }) {
            0 => json!("long"),
            1 => json!("string"),
            2 => json!("int"),
            3 => json!("boolean"),
            4 => json!("float"),
            5 => json!("double"),
            6 => json!("bytes"),
            7 => json!({"type": "long", "logicalType": "timestamp-micros"}),
            8 => json!({"type": "int", "logicalType": "date"}),
            9 => json!({"type": "fixed", "name": self.name(), "size": 3}),
            10 => json!({"type": "enum", "name": self.name(), "symbols": ["A", "B", "C"]}),
            11 => json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": 2}),
            12 => json!({"type": "long", "logicalType": "time-micros"}),
            13 => json!({"type": "bytes", "logicalType": "decimal", "precision": 60, "scale": 0}),
            14 => json!({"type": "array", "items": self.schema(depth + 1)}),
            15 => json!({"type": "map", "values": self.schema(depth + 1)}),
            16 => self.record(depth + 1),
            17 => match self.schema(depth + 1) {
                Value::Array(branches) => Value::Array(branches),
                one => json!(["null", one]),
            },
            _ => json!(["int", "null", "string", {"type": "array", "items": "long"}]),
        }
    }

    fn record(&mut self, depth: usize) -> Value {
        let name = self.name();
        let count = 1 + self.roll(4);
        let fields: Vec<Value> = (0..count)
            .map(|at| json!({"name": format!("f{at}"), "type": self.schema(depth)}))
            .collect();
        json!({"type": "record", "name": name, "fields": fields})
    }

    fn value(&mut self, schema: &Schema, output: &mut Vec<u8>) {
        match schema {
            Schema::Null => {}
            Schema::Boolean => output.push(self.roll(2) as u8),
            Schema::Int(None) => put_long((self.number() as i32).into(), output),
            Schema::Int(Some(_)) | Schema::Enum(_) => put_long(self.roll(3) as i64, output),
            Schema::Long(None) => put_long(self.number(), output),
            Schema::Long(Some(_)) => put_long(self.number() % 1_000_000_000_000, output),
            Schema::Float => output.extend(f32::from(self.number() as i16).to_le_bytes()),
            Schema::Double => output.extend(f64::from(self.number() as i32).to_le_bytes()),
            Schema::Bytes(Some(_)) => {
                let number = self.number() as i8;
                put_bytes(&[number as u8], output);
            }
            Schema::Bytes(None) | Schema::String => {
                let text = "é-text ".repeat(self.roll(5));
                put_bytes(text.as_bytes(), output);
            }
            Schema::Fixed(fixed) => output.extend(vec![self.roll(256) as u8; fixed.size]),
            Schema::Array(items) => {
                let count = self.roll(4);
                if count > 0 {
                    put_long(count as i64, output);
                    (0..count).for_each(|_| self.value(items, output));
                }
                put_long(0, output);
            }
            Schema::Map(values) => {
                let count = self.roll(3);
                if count > 0 {
                    put_long(count as i64, output);
                    for at in 0..count {
                        put_bytes(format!("key {at}").as_bytes(), output);
                        self.value(values, output);
                    }
                }
                put_long(0, output);
            }
            Schema::Record(record) => {
                record.fields.iter().for_each(|field| self.value(&field.schema, output));
            }
            Schema::Union(branches) => {
                let index = self.roll(branches.len());
                put_long(index as i64, output);
                self.value(&branches[index], output);
            }
        }
    }

    fn number(&mut self) -> i64 {
        let size = self.roll(9);
        (0..size)
            .fold(0, |sum: i64, _| sum.wrapping_mul(256).wrapping_add(self.roll(256) as i64))
            .wrapping_mul(if self.roll(2) == 0 { 1 } else { -1 })
    }
}

use super::schema::Schema;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn values_of_random_schemas_come_back_byte_for_byte(
        bytes in prop::collection::vec(any::<u8>(), 0..400)
    ) {
        let mut dice = Dice { bytes: &bytes, names: 0 };
        let schema = schema(&dice.record(0));
        let values: Vec<Vec<u8>> = (0..5).map(|_| {
            let mut value = Vec::new();
            dice.value(&schema.root, &mut value);
            value
        }).collect();
        let slices: Vec<&[u8]> = values.iter().map(Vec::as_slice).collect();
        let rows = decode(&schema, &slices);
        for column in rows.columns() {
            column.to_data().validate_full().unwrap();
        }
        prop_assert_eq!(encode(&schema, &rows), values);
    }

    #[test]
    fn damaged_values_never_panic_and_never_bend_the_columns(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut dice = Dice { bytes: &bytes, names: 0 };
        let schema = schema(&dice.record(0));
        let mut decoder = decoder_for(&plain(&schema), &schema);
        let mut rows = 0;
        for _ in 0..4 {
            let mut value = Vec::new();
            dice.value(&schema.root, &mut value);
            decoder.push(&value).unwrap();
            for (at, byte) in &damage {
                if !value.is_empty() {
                    let at = at.index(value.len());
                    value[at] = *byte;
                }
            }
            value.truncate(keep.index(value.len() + 1));
            rows += 1 + usize::from(decoder.push(&value).is_ok());
            decoder.push_null();
            rows += 1;
        }
        for column in decoder.finish().unwrap() {
            prop_assert_eq!(column.len(), rows);
            column.to_data().validate_full().unwrap();
        }
    }

    #[test]
    fn blocks_are_read_as_rows_are(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        unwanted in any::<prop::sample::Index>(),
        damage in prop::collection::vec(any::<(prop::sample::Index, prop::sample::Index, u8)>(), 0..3),
        nulls in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
    ) {
        let mut dice = Dice { bytes: &bytes, names: 0 };
        let schema = schema(&dice.record(0));
        let wanted: Vec<usize> = (0..schema.fields().unwrap().len()).collect();
        let wanted: Vec<usize> = match wanted.len() {
            // All of the columns, or all but one.
            0..2 => wanted,
            columns => {
                let left_out = unwanted.index(columns + 1);
                wanted.into_iter().filter(|at| *at != left_out).collect()
            }
        };
        let some: Vec<Vec<u8>> = (0..5).map(|_| {
            let mut value = Vec::new();
            dice.value(&schema.root, &mut value);
            value
        }).collect();
        let mut values: Vec<Option<Vec<u8>>> = (0..150).map(|at| Some(some[at % 5].clone())).collect();
        for (value, at, byte) in &damage {
            let value = value.get_mut(&mut values).as_mut().unwrap();
            if !value.is_empty() {
                let at = at.index(value.len());
                value[at] = *byte;
            }
        }
        for at in &nulls {
            values[at.index(150)] = None;
        }
        let decoder = || AvroDecoder::new(&plain(&schema), &schema, &wanted).unwrap();
        let blocks = assert_blocks_are_rows(decoder, &values);
        if damage.is_empty() && nulls.is_empty() {
            prop_assert_eq!(blocks, 3);
        }
    }
}

#[test]
fn a_decimal_that_breaks_the_rules_is_what_it_is_made_of() {
    let decimal = |base: Value, more: &[(&str, i64)]| {
        let mut json = base;
        json["logicalType"] = json!("decimal");
        for (key, value) in more {
            json[*key] = json!(value);
        }
        let schema = record(&json!([{"name": "d", "type": json}]));
        schema.fields().unwrap()[0].data_type().clone()
    };
    let bytes = || json!({"type": "bytes"});
    let fixed = |size: usize| json!({"type": "fixed", "name": "F", "size": size});
    assert_eq!(decimal(bytes(), &[]), DataType::BinaryView);
    assert_eq!(decimal(bytes(), &[("precision", 2), ("scale", 3)]), DataType::BinaryView);
    assert_eq!(decimal(bytes(), &[("precision", 2), ("scale", -1)]), DataType::BinaryView);
    assert_eq!(decimal(bytes(), &[("precision", 0)]), DataType::BinaryView);
    assert_eq!(decimal(bytes(), &[("precision", 77)]), DataType::BinaryView);
    assert_eq!(decimal(bytes(), &[("precision", 2), ("scale", 2)]), DataType::Decimal128(2, 2));
    assert_eq!(decimal(fixed(4), &[]), DataType::FixedSizeBinary(4));
    assert_eq!(decimal(fixed(4), &[("precision", 10)]), DataType::FixedSizeBinary(4));
    assert_eq!(decimal(fixed(4), &[("precision", 9)]), DataType::Decimal128(9, 0));
    assert_eq!(decimal(fixed(16), &[("precision", 38)]), DataType::Decimal128(38, 0));
}

#[test]
fn a_union_at_the_top_is_resolved_by_the_branch_of_the_value() {
    let inner = json!({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]});
    let reader = record(&json!([{"name": "a", "type": "long"}]));
    let optional = schema(&json!(["null", inner]));
    let rows = evolved(&optional, &reader, &[2, 6]).unwrap();
    assert_eq!(cell(&rows, "a", 0), "3");
    let refused = evolved(&optional, &reader, &[0]).unwrap_err();
    assert!(refused.contains("the value is null"), "{refused}");
    let refused = evolved(&optional, &reader, &[4, 6]).unwrap_err();
    assert!(refused.contains("branch 2 of 2 does not exist"), "{refused}");
    // The other way around: the record is a branch of the columns' union.
    let both = schema(&json!(["null", inner]));
    let rows = evolved(&schema(&inner), &both, &[6]).unwrap();
    assert_eq!(cell(&rows, "value", 0), "{a: 3}");
    let texts = schema(&json!(["null", "string"]));
    let refused = evolved(&texts, &reader, &[0]).unwrap_err();
    assert!(refused.contains("the value is string, not a record"), "{refused}");
}
