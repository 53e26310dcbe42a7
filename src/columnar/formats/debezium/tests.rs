//! JSON events, and what becomes of columns that a table gets later.

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};
use std::sync::Arc;

use super::*;
use crate::columnar::{
    DecodeOptions, Decoder, Encoder, FetchedBytes, OnError, ValueSource, WriteOptions,
};
use crate::types::{PartitionIndex, TimestampMs, TopicPartition};

fn event(op: &str, before: Value, after: Value) -> Value {
    json!({"before": before, "after": after, "source": {"lsn": 5}, "op": op, "ts_ms": 1})
}

fn wrapped(event: &Value) -> Value {
    json!({"schema": {"type": "struct", "fields": []}, "payload": event})
}

/// The rows of events, and the columns `error` where it is asked for.
fn rows(json: JsonFormat, events: &[Value], columns: &[&str]) -> Result<RecordBatch> {
    let texts: StringArray = events.iter().map(|event| Some(event.to_string())).collect();
    let table = RecordBatch::try_from_iter([("value", Arc::new(texts) as ArrayRef)]).unwrap();
    let value = ValueSource::Column("value".to_owned());
    let mut encoder = Encoder::new(WriteOptions { value, ..WriteOptions::default() }).unwrap();
    encoder.push(&table, TimestampMs(1), |_, _| PartitionIndex(0)).unwrap();
    let on_error = if columns.contains(&"error") { OnError::Column } else { OnError::Raise };
    let mut decoder = Decoder::new(DecodeOptions {
        value: ValueFormat::Debezium(Arc::new(DebeziumFormat {
            inner: ValueFormat::Json(json),
            unwrap: true,
            decimals: DecimalStrings::default(),
        })),
        columns: Some(columns.iter().map(|&name| name.to_owned()).collect()),
        on_error,
        ..DecodeOptions::default()
    })?;
    for batch in encoder.finish().unwrap() {
        decoder.push(FetchedBytes::whole(TopicPartition::new("t", 0), batch.bytes));
    }
    let rows = decoder.next(true)?.expect("rows").rows;
    assert_eq!(rows.num_rows(), events.len());
    Ok(rows)
}

fn numbers(rows: &RecordBatch, column: &str) -> Vec<Option<i64>> {
    rows.column_by_name(column).unwrap().as_primitive::<Int64Type>().iter().collect()
}

fn errors(rows: &RecordBatch) -> Vec<Option<String>> {
    let errors = rows.column_by_name("error").unwrap().as_string_view();
    errors.iter().map(|error| error.map(str::to_owned)).collect()
}

#[test]
fn a_column_that_the_table_gets_later_is_an_error_of_its_rows_and_the_others_are_read() {
    let events = [
        event("c", Value::Null, json!({"id": 1})),
        event("u", json!({"id": 1}), json!({"id": 2, "late": true})),
        event("d", json!({"id": 2, "late": true}), Value::Null),
    ];
    for wrap in [false, true] {
        let events = events.each_ref().map(|one| if wrap { wrapped(one) } else { one.clone() });
        let raised = rows(JsonFormat::inferred(1), &events, &["id", "op"]).unwrap_err();
        assert!(raised.to_string().contains("after.late\" is not among the columns"), "{raised}");
        let found = rows(JsonFormat::inferred(1), &events, &["id", "error"]).unwrap();
        assert_eq!(numbers(&found, "id"), [Some(1), Some(2), Some(2)]);
        let [None, Some(updated), Some(deleted)] = &errors(&found)[..] else {
            panic!("{:?}", errors(&found));
        };
        assert!(updated.contains("after.late") && deleted.contains("before.late"), "{updated}");
        // Someone who wants it so leaves it out, with a schema or without.
        let ignoring = JsonFormat { extra: Extra::Ignore, ..JsonFormat::inferred(1) };
        let given = JsonFormat::given(vec![Field::new("id", DataType::Int64, true)].into());
        for format in [ignoring, given] {
            let found = rows(format, &events, &["id", "error"]).unwrap();
            assert_eq!((numbers(&found, "id").len(), errors(&found)), (3, vec![None; 3]));
        }
        assert!(rows(JsonFormat::inferred(2), &events, &["id", "late"]).is_ok());
    }
}

#[test]
fn what_describes_an_event_but_is_no_row_may_get_members() {
    let mut later = event("c", Value::Null, json!({"id": 2}));
    later["source"]["scn"] = json!(7);
    later["traced"] = json!("x");
    for wrap in [false, true] {
        let events = [event("c", Value::Null, json!({"id": 1})), later.clone()];
        let events = events.each_ref().map(|one| if wrap { wrapped(one) } else { one.clone() });
        let found = rows(JsonFormat::inferred(1), &events, &["id", "op", "error"]).unwrap();
        assert_eq!(errors(&found), [None, None]);
        assert_eq!(numbers(&found, "id"), [Some(1), Some(2)]);
    }
}

#[test]
fn a_schema_beside_a_later_event_with_a_new_column_is_not_read_over() {
    let schema = |fields: Value| {
        let row = |name: &str| json!({"type": "struct", "field": name, "fields": fields});
        json!({"type": "struct", "fields": [row("before"), row("after")]})
    };
    let id = json!({"type": "int64", "field": "id"});
    let late = json!({"type": "int64", "field": "late"});
    let events = [
        json!({"schema": schema(json!([id])), "payload": event("c", Value::Null, json!({"id": 1}))}),
        json!({
            "schema": schema(json!([id, late])),
            "payload": event("c", Value::Null, json!({"id": 2, "late": 3})),
        }),
    ];
    let found = rows(JsonFormat::inferred(1), &events, &["id", "error"]).unwrap();
    assert_eq!(numbers(&found, "id"), [Some(1), Some(2)]);
    let [None, Some(error)] = &errors(&found)[..] else { panic!("{:?}", errors(&found)) };
    assert!(error.contains("late"), "{error}");
}

#[test]
fn the_columns_of_events_are_those_of_rows_and_the_change() {
    let format = DebeziumFormat {
        inner: ValueFormat::json(vec![Field::new("ts_ms", DataType::Int64, false)].into()),
        unwrap: true,
        decimals: DecimalStrings::default(),
    };
    let fields = format.fields().unwrap().unwrap();
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["ts_ms", "op", "__ts_ms"]);
    assert!(Schema::new(fields).fields().iter().all(|field| field.is_nullable()));
}
