//! Converts the default of a field from JSON to Avro's binary encoding.

use serde_json::Value;

use super::schema::Schema;
use super::write::{put_bytes, put_long};

/// Encodes a default. Its bytes are written as text, one character per byte.
pub(super) fn encode(json: &Value, schema: &Schema, output: &mut Vec<u8>) -> Result<(), String> {
    let wrong = || format!("{json} is not of type {}", schema.name());
    match (schema, json) {
        (Schema::Null, Value::Null) => {}
        (Schema::Boolean, Value::Bool(value)) => output.push(u8::from(*value)),
        (Schema::Int(_), Value::Number(_)) => {
            let value = json.as_i64().and_then(|value| i32::try_from(value).ok());
            put_long(value.ok_or_else(wrong)?.into(), output);
        }
        (Schema::Long(_), Value::Number(_)) => put_long(json.as_i64().ok_or_else(wrong)?, output),
        (Schema::Float, _) => {
            output.extend_from_slice(&(float(json).ok_or_else(wrong)? as f32).to_le_bytes());
        }
        (Schema::Double, _) => {
            output.extend_from_slice(&float(json).ok_or_else(wrong)?.to_le_bytes());
        }
        (Schema::Bytes(_), Value::String(text)) => {
            put_bytes(&latin(text).ok_or_else(wrong)?, output);
        }
        (Schema::String, Value::String(text)) => put_bytes(text.as_bytes(), output),
        (Schema::Fixed(fixed), Value::String(text)) => {
            let bytes = latin(text).filter(|bytes| bytes.len() == fixed.size);
            output.extend_from_slice(&bytes.ok_or_else(wrong)?);
        }
        (Schema::Enum(known), Value::String(text)) => {
            let index = known.symbols.iter().position(|symbol| symbol == text);
            put_long(index.ok_or_else(wrong)? as i64, output);
        }
        (Schema::Array(items), Value::Array(values)) => {
            if !values.is_empty() {
                put_long(values.len() as i64, output);
                for value in values {
                    encode(value, items, output)?;
                }
            }
            put_long(0, output);
        }
        (Schema::Map(schema), Value::Object(entries)) => {
            if !entries.is_empty() {
                put_long(entries.len() as i64, output);
                for (key, value) in entries {
                    put_bytes(key.as_bytes(), output);
                    encode(value, schema, output)?;
                }
            }
            put_long(0, output);
        }
        (Schema::Record(record), Value::Object(members)) => {
            for field in &record.fields {
                let value = members.get(&field.name).or(field.default.as_ref());
                encode(value.ok_or_else(wrong)?, &field.schema, output)?;
            }
        }
        (Schema::Union(branches), _) => {
            // The first branch, according to the specification; defaults for later ones occur as
            // well.
            let start = output.len();
            for (index, branch) in branches.iter().enumerate() {
                put_long(index as i64, output);
                if encode(json, branch, output).is_ok() {
                    return Ok(());
                }
                output.truncate(start);
            }
            return Err(wrong());
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn float(json: &Value) -> Option<f64> {
    match json {
        Value::Number(_) => json.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    }
}

fn latin(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|one| u8::try_from(u32::from(one)).ok()).collect()
}
