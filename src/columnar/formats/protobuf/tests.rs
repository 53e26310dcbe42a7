use arrow::array::{Array, ArrayRef, AsArray, NullArray};
use arrow::datatypes::{Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use std::sync::Arc;

use super::*;
use crate::columnar::formats::registry::Fault;
use crate::columnar::formats::rows::testing::assert_blocks_are_rows;

const ALL: &str = r#"
syntax = "proto3";
package shop;
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";
enum Colour { RED = 0; GREEN = 1; BLUE = 7; }
message Inner { int32 x = 1; repeated string names = 2; Inner2 deep = 3; }
message Inner2 { sint64 y = 1; optional bool z = 2; }
message All {
  double a = 1; float b = 2; int32 c = 3; int64 d = 4; uint32 e = 5; uint64 f = 6;
  sint32 g = 7; sint64 h = 8; fixed32 i = 9; fixed64 j = 10; sfixed32 k = 11; sfixed64 l = 12;
  bool m = 13; string n = 14; bytes o = 15; Colour p = 16;
  repeated int64 q = 17; repeated string r = 18; map<string, int64> s = 19;
  Inner t = 20; repeated Inner u = 21; map<int32, Inner> v = 2000;
  oneof choice { int64 w1 = 30; string w2 = 31; Inner2 w3 = 32; }
  google.protobuf.Timestamp x = 33; google.protobuf.Int64Value y = 34;
  optional int32 z = 35;
}
message Event {
  double a = 1; float b = 2; int32 c = 3; int64 d = 4; sint32 e = 5; sint64 f = 6; fixed32 g = 7;
  sfixed64 h = 8; bool i = 9; string j = 10; bytes k = 11; Colour l = 12; optional int64 m = 13;
  optional string n = 14; repeated int64 o = 15; Inner2 p = 16; map<string, int64> q = 17;
  google.protobuf.Timestamp r = 18; uint32 s = 500;
}
message Tree { string name = 1; Tree left = 2; }
"#;

/// Like `shop.Event`, with what only proto2 has.
const OLD: &str = r#"
syntax = "proto2";
package old;
enum Colour { RED = 0; GREEN = 1; }
message Inner { optional int64 y = 1; optional string z = 2; repeated int32 w = 3; }
message Old {
  optional double a = 1; optional float b = 2; required int32 c = 3; optional int64 d = 4;
  optional sint32 e = 5; repeated sint64 f = 6 [packed = true]; repeated fixed32 g = 7;
  optional sfixed64 h = 8; optional bool i = 9; optional string j = 10; repeated bytes k = 11;
  optional Colour l = 12; repeated Colour m = 13; optional string n = 14; repeated int64 o = 15;
  optional Inner p = 16; map<string, int64> q = 17; repeated Inner r = 18;
  optional group S = 19 { optional int64 y = 1; } optional uint32 t = 500;
}
"#;

fn schema(message: &str) -> ProtobufSchema {
    let text = if message.starts_with("old.") { OLD } else { ALL };
    ProtobufSchema::parse(text, &[], Vec::new(), Some(message)).unwrap()
}

fn decoder_of(schema: &ProtobufSchema) -> ProtobufDecoder {
    decoder_of_columns(schema, None)
}

fn decoder_of_columns(schema: &ProtobufSchema, wanted: Option<&[usize]>) -> ProtobufDecoder {
    let format = ProtobufFormat {
        time_unit: TimeUnit::Nanosecond,
        schema: ReaderSchema::Given(schema.clone()),
        message: None,
        framed: false,
        source: None,
    };
    let all: Vec<usize> = (0..schema.fields(TimeUnit::Nanosecond).len()).collect();
    ProtobufDecoder::new(&format, schema, wanted.unwrap_or(&all)).unwrap()
}

fn decode(schema: &ProtobufSchema, values: &[&[u8]]) -> Vec<ArrayRef> {
    let mut decoder = decoder_of(schema);
    for value in values {
        decoder.push(value).unwrap();
    }
    decoder.finish().unwrap()
}

fn fails(schema: &ProtobufSchema, value: &[u8]) -> String {
    let mut decoder = decoder_of(schema);
    match decoder.push(value) {
        Err(Fault::Bad(detail)) => {
            // Nothing of it is left.
            assert!(decoder.finish().unwrap().iter().all(Array::is_empty));
            detail
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_of_a_field_counts_and_messages_are_merged() {
    let schema = schema("shop.All");
    let fields = schema.fields(TimeUnit::Nanosecond);
    let column =
        |columns: &[ArrayRef], name: &str| Arc::clone(&columns[fields.find(name).unwrap().0]);
    // d = 1, d = 2, then 3 in four bytes, which is no d; t { x = 5, names: a }, t { names: b, deep { y = -1 } }
    let value = [
        0x20, 1, 0x20, 2, 0x25, 3, 0, 0, 0, 0xa2, 1, 5, 8, 5, 0x12, 1, b'a', 0xa2, 1, 7, 0x12, 1,
        b'b', 0x1a, 2, 8, 1,
    ];
    let columns = decode(&schema, &[&value]);
    assert_eq!(column(&columns, "d").as_primitive::<Int64Type>().values(), &[2]);
    let inner = column(&columns, "t");
    let inner = inner.as_struct();
    assert_eq!(inner.column(0).as_primitive::<arrow::datatypes::Int32Type>().value(0), 5);
    assert_eq!(inner.column(1).as_list::<i32>().value(0).len(), 2);
    assert_eq!(inner.column(2).as_struct().column(0).as_primitive::<Int64Type>().value(0), -1);
}

#[test]
fn members_of_a_oneof_take_each_other_back() {
    let schema = schema("shop.All");
    let fields = schema.fields(TimeUnit::Nanosecond);
    let at = |name: &str| fields.find(name).unwrap().0;
    // w1 = 5, then w2 = "x"; w3 {}, then w1 = 6; w2 = "y", then w3 { y = 1 }
    let values: [&[u8]; 3] = [
        &[0xf0, 1, 5, 0xfa, 1, 1, b'x'],
        &[0x82, 2, 0, 0xf0, 1, 6],
        &[0xfa, 1, 1, b'y', 0x82, 2, 2, 8, 2],
    ];
    let columns = decode(&schema, &values);
    let nulls =
        |name: &str| -> Vec<bool> { (0..3).map(|row| columns[at(name)].is_null(row)).collect() };
    assert_eq!(nulls("w1"), [true, false, true]);
    assert_eq!(nulls("w2"), [false, true, true]);
    assert_eq!(nulls("w3"), [true, true, false]);
}

#[test]
fn members_that_nobody_asked_for_take_others_back_too() {
    let schema = schema("shop.All");
    let at = |name: &str| schema.fields(TimeUnit::Nanosecond).find(name).unwrap().0;
    let rows = |name: &str, values: &[&[u8]]| -> Vec<bool> {
        // With one other column: the order of columns is not that of the schema.
        let mut decoder = decoder_of_columns(&schema, Some(&[at(name), at("d")]));
        for value in values {
            decoder.push(value).unwrap();
        }
        let columns = decoder.finish().unwrap();
        (0..values.len()).map(|row| columns[0].is_valid(row)).collect()
    };
    // w1 = 5; then w2 = "x"; before it; then w3 {}; then w2 as a number, which is no w2;
    // w2 = "x" between two
    let values: [&[u8]; 6] = [
        &[0x20, 1, 0xf0, 1, 5],
        &[0xf0, 1, 5, 0xfa, 1, 1, b'x'],
        &[0xfa, 1, 1, b'x', 0xf0, 1, 5, 0x20, 1],
        &[0xf0, 1, 5, 0x82, 2, 0],
        &[0xf0, 1, 5, 0xf8, 1, 1],
        &[0xf0, 1, 5, 0xfa, 1, 1, b'x', 0xf0, 1, 6],
    ];
    assert_eq!(rows("w1", &values), [true, false, true, false, true, true]);
    // w3 {}; then w1 = 5; between two
    let values: [&[u8]; 3] =
        [&[0x82, 2, 0], &[0x82, 2, 0, 0xf0, 1, 5], &[0x82, 2, 0, 0xf0, 1, 5, 0x82, 2, 2, 8, 2]];
    assert_eq!(rows("w3", &values), [true, false, true]);
}

/// A field, mostly of the wire type and with a content that fit it in `shop.Event` and `old.Old`;
/// the bytes are what its value is made from.
fn part(number: u64, roll: u8, bytes: [u8; 8]) -> Vec<u8> {
    const USUAL: u8 = 240;
    let natural = match number {
        1 | 8 => 1,
        2 | 7 => 5,
        10 | 11 | 14 | 16..=18 => 2,
        _ => 0,
    };
    let wire = if roll < USUAL { natural } else { u64::from(roll % 6) };
    let mut part = Vec::new();
    wire::put_varint(number << 3 | wire, &mut part);
    if roll == USUAL - 1 {
        // A tag that is longer than it must be.
        *part.last_mut().unwrap() |= 0x80;
        part.push(0);
    }
    let content = if roll < USUAL { number } else { u64::from(bytes[0] % 20) };
    match (wire, content) {
        (0, _) => wire::put_varint(u64::from_le_bytes(bytes) >> (bytes[5] % 64), &mut part),
        (1, _) => part.extend(bytes),
        (2, 10 | 14) => {
            part.push(bytes[1] % 20);
            let text = bytes.iter().cycle().take(usize::from(bytes[1] % 20));
            part.extend(text.map(|byte| byte & 0x7f));
        }
        (2, 11) => part.extend([3, 0xff, bytes[2], 0]),
        (2, 16 | 18) => part.extend([2, 0x08, bytes[3] & 0x7f]),
        (2, 17) => part.extend([5, 0x0a, 1, b'k', 0x10, bytes[4] & 0x7f]),
        (2, _) => part.extend([3, bytes[2] & 0x7f, bytes[3] & 0x7f, bytes[4] & 0x7f]),
        (3, _) => {
            part.extend([0x08, bytes[3] & 0x7f]);
            wire::put_varint(number << 3 | 4, &mut part);
        }
        (5, _) => part.extend(&bytes[..4]),
        _ => {}
    }
    part
}

/// An event with some of its fields, one bit each.
fn event(fields: u32, bytes: [u8; 8]) -> Vec<u8> {
    let numbers = (1..=18).chain([500]).filter(|number| fields >> (number % 32) & 1 == 1);
    numbers.flat_map(|number| part(number, 0, bytes)).collect()
}

#[test]
fn a_value_that_is_unusual_costs_its_block_only() {
    const ALL: u32 = u32::MAX;
    let schema = schema("shop.Event");
    let good = event(ALL, [7; 8]);
    let with = |more: &[u8]| [&good[..], more].concat();
    let unusual: [(&str, Vec<u8>); 8] = [
        ("a field again", with(&part(500, 0, [1; 8]))),
        ("a field too late", with(&part(3, 0, [1; 8]))),
        ("a message again", with(&part(16, 0, [1; 8]))),
        ("another wire type", [part(1, 240, [2; 8]), event(ALL & !2, [7; 8])].concat()),
        ("a number that is cut off", with(&[0xa0, 0x1f])),
        ("field 0", with(&[0])),
        ("text that is none", with(&[0x52, 1, 0xff])),
        ("the end of a group", with(&[0x0c])),
    ];
    for (what, value) in unusual {
        for at in [63, 64] {
            let mut values = vec![Some(good.clone()); 130];
            values[at] = Some(value.clone());
            let blocks = assert_blocks_are_rows(|| decoder_of(&schema), &values);
            assert_eq!(blocks, 2, "{what}");
        }
    }
    // What is only unknown costs nothing.
    let unknown: Vec<u8> =
        [3, 200, 501].into_iter().flat_map(|number| part(number, 0, [9; 8])).collect();
    let values = vec![Some([unknown, event(0, [0; 8])].concat()); 130];
    let columns: Vec<usize> =
        (0..schema.fields(TimeUnit::Nanosecond).len()).filter(|at| *at != 2).collect();
    let blocks = assert_blocks_are_rows(|| decoder_of_columns(&schema, Some(&columns)), &values);
    assert_eq!(blocks, 3);
}

#[test]
fn a_block_that_failed_leaves_no_text_of_an_enum() {
    let text = "syntax = \"proto3\"; enum E { A = 0; } message S { E e = 1; } \
                message M { S s = 1; E f = 2; int64 x = 3; }";
    let schema = ProtobufSchema::parse(text, &[], Vec::new(), Some("M")).unwrap();
    let mut decoder = decoder_of(&schema);
    // The enum of s is 999, and x is cut off.
    let bad = [0x0a, 3, 0x08, 0xe7, 7, 0x10, 9, 0x18];
    assert_eq!(decoder.push_block(&[&[], &bad[..]].map(Value::new)), 0);
    assert!(decoder.push(&bad).is_err());
    assert_eq!(decoder.push_block(&[&[][..], &[0x10, 8], &[0x10, 8]].map(Value::new)), 3);
    let columns = decoder.finish().unwrap();
    let texts = |column: &ArrayRef| {
        let dictionary = column.as_dictionary::<arrow::datatypes::Int32Type>();
        dictionary.values().as_string::<i32>().iter().flatten().collect::<Vec<_>>().join(" ")
    };
    assert_eq!(texts(columns[0].as_struct().column(0)), "A");
    assert_eq!(texts(&columns[1]), "A 8");
}

#[test]
fn damage_is_told_and_leaves_nothing() {
    let schema = schema("shop.All");
    assert!(fails(&schema, &[0x20]).contains("ends early"));
    assert!(fails(&schema, &[0x72, 5, b'a']).contains("ends early"));
    assert!(fails(&schema, &[0x72, 1, 0xff]).contains("field \"n\": the text is not UTF-8"));
    assert!(fails(&schema, &[0x20, 1, 0x07]).contains("no field 0"));
    assert!(fails(&schema, &[0x0f]).contains("wire type 7"));
    // A list of a billion items that are not there.
    assert!(fails(&schema, &[0x8a, 1, 0xff, 0xff, 0xff, 0xff, 3, 1]).contains("ends early"));
    assert!(fails(&schema, &[0xa2, 1, 3, 0x12, 1, 0xff]).contains("field \"t.names\""));
}

#[test]
fn messages_that_hold_themselves_are_kept_as_bytes() {
    let schema = schema("shop.Tree");
    let columns = decode(&schema, &[&[0x0a, 1, b'a', 0x12, 3, 0x0a, 1, b'b']]);
    assert_eq!(columns[1].as_binary_view().value(0), &[0x0a, 1, b'b']);
}

#[test]
fn numbers_that_an_enum_does_not_have_are_their_digits() {
    let schema = schema("shop.All");
    let at = schema.fields(TimeUnit::Nanosecond).find("p").unwrap().0;
    let columns = decode(&schema, &[&[0x80, 1, 7], &[], &[0x80, 1, 9]]);
    let names = arrow::compute::cast(&columns[at], &arrow::datatypes::DataType::Utf8).unwrap();
    let names: Vec<_> = names.as_string::<i32>().iter().map(Option::unwrap).collect();
    assert_eq!(names, ["BLUE", "RED", "9"]);
}

#[test]
fn nulls_without_a_type_are_left_out_only_where_they_are_read_as_nulls() {
    let written = |field: &str| {
        let text =
            format!("syntax = \"proto3\"; message R {{ {field} }} message M {{ int32 a = 1; }}");
        let schema = ProtobufSchema::parse(&text, &[], Vec::new(), Some("R")).unwrap();
        let nulls: ArrayRef = Arc::new(NullArray::new(1));
        let rows = RecordBatch::try_from_iter([("x", nulls)]).unwrap();
        let mut output = Vec::new();
        let writer = ProtobufWriter::new(&rows, &schema, &[]).unwrap();
        writer.write(0, &mut output).map(|()| output)
    };
    for refused in [
        "int32 x = 1;",
        "uint64 x = 1;",
        "string x = 1;",
        "bytes x = 1;",
        "bool x = 1;",
        "double x = 1;",
        "E x = 1; enum E { A = 0; }",
        "repeated uint32 x = 1;",
        "repeated M x = 1;",
        "map<string, M> x = 1;",
    ] {
        assert!(written(refused).unwrap_err().contains("\"x\" is null"), "{refused}");
    }
    for optional in ["optional uint32 x = 1;", "M x = 1;", "oneof o { string x = 1; }"] {
        assert_eq!(written(optional), Ok(Vec::new()), "{optional}");
    }
}

#[test]
fn paths_to_messages_come_back() {
    for indexes in [vec![0], vec![1], vec![2, 0, 5]] {
        let mut schema = schema("shop.All");
        schema.set_indexes(indexes.clone());
        let mut bytes = Vec::new();
        schema.put_indexes(&mut bytes);
        bytes.push(9);
        assert_eq!(schema::unframe_indexes(&bytes).unwrap(), (indexes, &[9_u8][..]));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_rows_or_errors(values in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
        let schema = schema("shop.All");
        let mut decoder = decoder_of(&schema);
        for value in &values {
            if decoder.push(value).is_err() {
                decoder.push_null();
            }
        }
        for column in decoder.finish().unwrap() {
            prop_assert_eq!(column.len(), values.len());
            column.to_data().validate_full().unwrap();
        }
    }

    #[test]
    fn blocks_are_read_as_rows_are(
        message in prop::sample::select(vec!["shop.Event", "shop.All", "old.Old"]),
        base in prop::collection::vec(any::<(prop::sample::Index, u8, [u8; 8])>(), 0..12),
        values in prop::collection::vec(
            prop::option::weighted(0.99, (
                any::<[u8; 8]>(),
                prop::option::weighted(0.03, any::<(prop::sample::Index, u8, [u8; 8])>()),
                prop::option::weighted(0.02, any::<(prop::sample::Index, u8)>()),
            )),
            0..150,
        ),
        unwanted in any::<prop::sample::Index>(),
        in_order: bool,
    ) {
        let schema = schema(message);
        let columns = schema.fields(TimeUnit::Nanosecond).len();
        let left_out = unwanted.index(columns + 1);
        let wanted: Vec<usize> = (0..columns).filter(|at| *at != left_out).collect();
        let numbers: Vec<u64> = (1..=35).chain([500]).collect();
        let values: Vec<Option<Vec<u8>>> = values.iter().map(|value| {
            let (mixed, more, damage) = value.as_ref()?;
            // Most values have the same fields.
            let mut parts: Vec<(u64, Vec<u8>)> = base.iter().chain(more).map(|(at, roll, bytes)| {
                let number = numbers[at.index(numbers.len())];
                let mut bytes = *bytes;
                bytes.iter_mut().zip(mixed).for_each(|(byte, mixed)| *byte ^= mixed);
                (number, part(number, *roll, bytes))
            }).collect();
            if in_order {
                parts.sort_by_key(|(number, _)| *number);
            }
            let mut value: Vec<u8> = parts.into_iter().flat_map(|(_, part)| part).collect();
            if let Some((at, byte)) = damage && !value.is_empty() {
                let at = at.index(value.len());
                value[at] = *byte;
            }
            Some(value)
        }).collect();
        assert_blocks_are_rows(|| decoder_of_columns(&schema, Some(&wanted)), &values);
    }

    #[test]
    fn good_events_in_order_are_read_in_blocks(
        values in prop::collection::vec(any::<(u32, [u8; 8])>(), 1..150),
    ) {
        let schema = schema("shop.Event");
        let values: Vec<_> =
            values.iter().map(|(fields, bytes)| Some(event(*fields, *bytes))).collect();
        let blocks = assert_blocks_are_rows(|| decoder_of(&schema), &values);
        prop_assert_eq!(blocks, values.len().div_ceil(BLOCK_ROWS));
    }

    #[test]
    fn what_is_read_is_written_and_read_again(values in prop::collection::vec(prop::collection::vec((0_u8..36, any::<u8>(), any::<[u8; 8]>()), 0..12), 1..8)) {
        let schema = schema("shop.All");
        let mut decoder = decoder_of(&schema);
        for fields in &values {
            let mut value = Vec::new();
            for (number, size, bytes) in fields {
                let wire = match number {
                    1 | 10 | 12 => 1,
                    2 | 9 | 11 => 5,
                    14 | 15 | 18..=21 | 31..=34 => 2,
                    _ => 0,
                };
                wire::put_varint(u64::from((*number).max(1)) << 3 | wire, &mut value);
                match wire {
                    1 => value.extend(bytes),
                    5 => value.extend(&bytes[..4]),
                    2 => value.push(0),
                    _ => wire::put_varint(u64::from(*size), &mut value),
                }
            }
            if decoder.push(&value).is_err() {
                decoder.push_null();
            }
        }
        let columns = decoder.finish().unwrap();
        let batch = |columns| RecordBatch::try_new(Arc::new(Schema::new(schema.fields(TimeUnit::Nanosecond))), columns).unwrap();
        let rows = batch(columns);
        let writer = ProtobufWriter::new(&rows, &schema, &[]).unwrap();
        let mut again = decoder_of(&schema);
        let mut second = Vec::new();
        for row in 0..rows.num_rows() {
            let mut output = Vec::new();
            writer.write(row, &mut output).unwrap();
            again.push(&output).unwrap();
            second.push(output);
        }
        let rows = batch(again.finish().unwrap());
        let writer = ProtobufWriter::new(&rows, &schema, &[]).unwrap();
        for (row, expected) in second.iter().enumerate() {
            let mut output = Vec::new();
            writer.write(row, &mut output).unwrap();
            prop_assert_eq!(&output, expected);
        }
    }
}
