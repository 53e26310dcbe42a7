//! The types of a row, from the `schema` that Kafka Connect's JSON converter writes with an event.
//!
//! | Kafka Connect                          | Arrow                                             |
//! |----------------------------------------|---------------------------------------------------|
//! | boolean, int8 … int64, float, double   | bool, int8 … int64, float32, float64              |
//! | string, bytes                          | utf8_view, binary_view                            |
//! | Decimal                                | decimal of the scale, and of 38 digits unless the schema says how many |
//! | Date, Time, Timestamp                  | date32, time32(ms), timestamp(ms, UTC)            |
//! | array, struct, map with keys of text   | list, struct, map                                 |
//!
//! Debezium's own types (`io.debezium.time.…`) are read as the numbers and texts that they are stored
//! as, as in Avro.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use serde_json::Value;

use crate::columnar::columns::UTC;

const DECIMAL: &str = "org.apache.kafka.connect.data.Decimal";

/// How the values of a column of decimals are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The two's complement of the unscaled number, as base64; with this scale.
    Bytes(i8),
    /// Digits, or a struct with its own scale.
    Shown,
}

/// What a schema says about the columns of a row, by path.
pub(super) type Forms = BTreeMap<String, Form>;

/// The members of an event's schema that are rows.
fn rows(schema: &Value) -> impl Iterator<Item = &Value> {
    let members = schema.get("fields").and_then(Value::as_array).into_iter().flatten();
    let is_row = |one: &&Value| matches!(field_name(one), Some("before" | "after"));
    let rows = members.filter(is_row).filter(|one| text(one, "type") == Some("struct"));
    // The one after a change first, so that its columns come first.
    let mut rows: Vec<&Value> = rows.collect();
    rows.sort_by_key(|one| field_name(one) != Some("after"));
    rows.into_iter()
}

/// The fields of an event's row; none if the schema does not say.
pub(super) fn row_fields(schema: &Value) -> Fields {
    rows(schema).fold(Fields::empty(), |known, row| union(&known, &fields(row)))
}

/// How the decimals of an event's row are written.
pub(super) fn forms(schema: &Value) -> Forms {
    let mut forms = Forms::new();
    rows(schema).for_each(|row| find_forms(row, "", &mut forms));
    forms
}

/// The fields of both; a field that differs has the type of the first, except decimals, which get a
/// type that holds both.
pub(super) fn union(known: &Fields, more: &Fields) -> Fields {
    let mut all: Vec<FieldRef> = known.iter().cloned().collect();
    for field in more {
        match all.iter_mut().find(|one| one.name() == field.name()) {
            Some(one) => {
                if let Some(wider) = wider(one.data_type(), field.data_type()) {
                    *one = Arc::new(Field::clone(one).with_data_type(wider));
                }
            }
            None => all.push(Arc::clone(field)),
        }
    }
    all.into()
}

/// A type that holds both; none if there is no other than the first.
fn wider(one: &DataType, other: &DataType) -> Option<DataType> {
    match (one, other) {
        (DataType::Struct(known), DataType::Struct(more)) => {
            return Some(DataType::Struct(union(known, more)));
        }
        (DataType::List(item), DataType::List(more)) => {
            let wider = wider(item.data_type(), more.data_type())?;
            return Some(DataType::List(Arc::new(Field::clone(item).with_data_type(wider))));
        }
        _ => {}
    }
    let parts = |data_type: &DataType| match data_type {
        DataType::Decimal128(digits, scale) | DataType::Decimal256(digits, scale) => {
            Some((i16::from(*digits), i16::from(*scale)))
        }
        _ => None,
    };
    let ((digits, scale), (more, places)) = (parts(one)?, parts(other)?);
    let both = scale.max(places);
    let whole = digits.saturating_sub(scale).max(more.saturating_sub(places));
    Some(decimal_type(whole.saturating_add(both), both))
}

fn decimal_type(digits: i16, scale: i16) -> DataType {
    let scale = scale.clamp(0, 76);
    let digits = u8::try_from(digits.clamp(scale.max(1), 76)).unwrap_or(76);
    let scale = i8::try_from(scale).unwrap_or(76);
    if digits <= 38 {
        DataType::Decimal128(digits, scale)
    } else {
        DataType::Decimal256(digits, scale)
    }
}

fn text<'a>(schema: &'a Value, key: &str) -> Option<&'a str> {
    schema.get(key).and_then(Value::as_str)
}

fn field_name(schema: &Value) -> Option<&str> {
    text(schema, "field")
}

fn members(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let members = schema.get("fields").and_then(Value::as_array).into_iter().flatten();
    members.filter_map(|member| Some((field_name(member)?, member)))
}

fn fields(schema: &Value) -> Fields {
    let members = members(schema);
    members.filter_map(|(name, one)| Some(Field::new(name, data_type(one)?, true))).collect()
}

fn scale_of(schema: &Value) -> i16 {
    let scale = schema.get("parameters").and_then(|parameters| text(parameters, "scale"));
    scale.and_then(|scale| scale.parse().ok()).unwrap_or(0)
}

/// The type of a field; none for a type without a column.
fn data_type(schema: &Value) -> Option<DataType> {
    let name = text(schema, "name").unwrap_or_default();
    let connect = name.strip_prefix("org.apache.kafka.connect.data.").unwrap_or_default();
    Some(match (text(schema, "type")?, connect) {
        ("boolean", _) => DataType::Boolean,
        ("int8", _) => DataType::Int8,
        ("int16", _) => DataType::Int16,
        ("int32", "Date") => DataType::Date32,
        ("int32", "Time") => DataType::Time32(TimeUnit::Millisecond),
        ("int32", _) => DataType::Int32,
        ("int64", "Timestamp") => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        ("int64", _) => DataType::Int64,
        ("float", _) => DataType::Float32,
        ("double", _) => DataType::Float64,
        ("string", _) => DataType::Utf8View,
        ("bytes", "Decimal") => {
            let parameters = schema.get("parameters");
            let digits = parameters.and_then(|one| text(one, "connect.decimal.precision"));
            let digits = digits.and_then(|digits| digits.parse().ok()).filter(|one| *one > 0);
            let scale = scale_of(schema);
            decimal_type(digits.unwrap_or_else(|| scale.saturating_add(1).max(38)), scale)
        }
        ("bytes", _) => DataType::BinaryView,
        ("array", _) => {
            let item = data_type(schema.get("items")?)?;
            DataType::List(Arc::new(Field::new("item", item, true)))
        }
        // Maps with other keys are written as lists of pairs.
        ("map", _) if text(schema.get("keys")?, "type") == Some("string") => {
            let pair = Fields::from(vec![
                Field::new("key", DataType::Utf8View, false),
                Field::new("value", data_type(schema.get("values")?)?, true),
            ]);
            DataType::Map(Arc::new(Field::new("entries", DataType::Struct(pair), false)), false)
        }
        ("struct", _) => DataType::Struct(Some(fields(schema)).filter(|all| !all.is_empty())?),
        _ => return None,
    })
}

fn find_forms(schema: &Value, path: &str, forms: &mut Forms) {
    for (name, member) in members(schema) {
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        find_form(member, path, forms);
    }
}

fn find_form(schema: &Value, path: String, forms: &mut Forms) {
    match text(schema, "type") {
        Some("array") => {
            if let Some(items) = schema.get("items") {
                find_form(items, format!("{path}[]"), forms);
            }
        }
        Some("map") => {
            if let Some(values) = schema.get("values") {
                find_form(values, format!("{path}{{}}"), forms);
            }
        }
        Some("struct") => {
            find_forms(schema, &path, forms);
            forms.insert(path, Form::Shown);
        }
        Some("bytes") if text(schema, "name") == Some(DECIMAL) => {
            let scale = i8::try_from(scale_of(schema)).unwrap_or(i8::MAX);
            forms.insert(path, Form::Bytes(scale));
        }
        _ => {
            forms.insert(path, Form::Shown);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(row: &Value) -> Value {
        let row = |name: &str| json!({ "type": "struct", "field": name, "fields": row });
        json!({ "type": "struct", "fields": [row("before"), row("after")] })
    }

    #[test]
    fn the_types_of_a_row_are_those_of_its_schema() {
        let decimal = json!({ "type": "bytes", "name": DECIMAL, "parameters": { "scale": "2" } });
        let mut price = decimal.clone();
        price["field"] = json!("price");
        let day = json!({
            "type": "int32", "name": "org.apache.kafka.connect.data.Date", "field": "day"
        });
        let micros = json!({
            "type": "int64", "name": "io.debezium.time.MicroTimestamp", "field": "micros"
        });
        let prices = json!({ "type": "array", "items": decimal, "field": "prices" });
        let odd = json!({ "type": "map", "keys": { "type": "int32" }, "values": { "type": "int32" },
                          "field": "odd" });
        let schema = event(&json!([price, day, micros, prices, odd]));
        let fields = row_fields(&schema);
        let found: Vec<_> =
            fields.iter().map(|one| format!("{}: {}", one.name(), one.data_type())).collect();
        let wanted = [
            "price: Decimal128(38, 2)",
            "day: Date32",
            "micros: Int64",
            "prices: List(Decimal128(38, 2))",
        ];
        assert_eq!(found, wanted);
        let forms = forms(&schema);
        assert_eq!(forms["price"], Form::Bytes(2));
        assert_eq!(forms["prices[]"], Form::Bytes(2));
        assert_eq!(forms["day"], Form::Shown);
    }

    #[test]
    fn a_decimal_of_two_schemas_has_room_for_both() {
        let fields = |digits, scale| {
            Fields::from(vec![Field::new("x", DataType::Decimal128(digits, scale), true)])
        };
        assert_eq!(union(&fields(10, 2), &fields(6, 4)), fields(12, 4));
    }
}
