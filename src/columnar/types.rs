//! The names of Arrow types, as `ottla.json` takes them and `batch.schema` shows them.
//!
//! ```text
//! type = name | name '[' argument {',' argument} ']' | 'list<' type '>' | 'map<' type ',' type '>'
//!      | 'struct<' name ':' type {',' …} '>'
//! ```

use std::sync::Arc;

use arrow::datatypes::{
    DECIMAL32_MAX_PRECISION, DECIMAL64_MAX_PRECISION, DECIMAL128_MAX_PRECISION,
    DECIMAL256_MAX_PRECISION, DataType, Field, Fields, TimeUnit,
};

use crate::error::{Error, Result};

/// How deep lists and structs may be nested.
const DEPTH_MAX: usize = 32;

/// Reads the name of a type.
///
/// # Errors
///
/// When it is not one, with a list of those that exist.
pub fn parse(text: &str) -> Result<DataType> {
    let mut parser = Parser { rest: text, depth: 0 };
    let data_type = parser.data_type().ok_or_else(|| unknown(text))?;
    if parser.rest.trim().is_empty() { Ok(data_type) } else { Err(unknown(text)) }
}

fn unknown(text: &str) -> Error {
    Error::invalid(format!(
        "{text:?} is not a type: use bool, int8 to int64, uint8 to uint64, float32, float64, utf8, \
         binary, date32, timestamp[ms] or timestamp[ms, UTC] (s, ms, us, ns), time64[us], \
         duration[us], decimal128[p, s], uuid, list<type>, map<utf8, type>, \
         struct<name: type, …>, a Python type such as int or datetime, or an Arrow type object"
    ))
}

/// A field whose type is given by name; that of a UUID is marked as such.
///
/// # Errors
///
/// As [`parse`].
pub fn parse_field(name: &str, text: &str) -> Result<Field> {
    let field = Field::new(name, parse(text)?, true);
    if text.trim().eq_ignore_ascii_case("uuid") {
        let metadata = [("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())];
        return Ok(field.with_metadata(metadata));
    }
    Ok(field)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, expected: char) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(expected)?;
        Some(())
    }

    /// Takes what precedes one of the characters.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let end = self.rest.find(ends).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word.trim()
    }

    fn data_type(&mut self) -> Option<DataType> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return None;
        }
        let name = self.until(&['[', '<', ',', '>', ']']).to_ascii_lowercase();
        let data_type = match name.as_str() {
            "list" | "large_list" => {
                self.eat('<')?;
                let item = Arc::new(Field::new("item", self.data_type()?, true));
                self.eat('>')?;
                if name == "list" { DataType::List(item) } else { DataType::LargeList(item) }
            }
            "fixed_size_list" => {
                self.eat('<')?;
                let item = Arc::new(Field::new("item", self.data_type()?, true));
                self.eat('>')?;
                DataType::FixedSizeList(item, self.size()?)
            }
            "map" => {
                self.eat('<')?;
                let key = Field::new("key", self.data_type()?, false);
                self.eat(',')?;
                let value = Field::new("value", self.data_type()?, true);
                self.eat('>')?;
                let entries = DataType::Struct(vec![key, value].into());
                DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
            }
            "dictionary" => {
                self.eat('<')?;
                let values = self.data_type()?;
                self.eat('>')?;
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(values))
            }
            "struct" => DataType::Struct(self.fields()?),
            "timestamp" => self.timestamp()?,
            "time32" => DataType::Time32(self.unit()?),
            "time64" => DataType::Time64(self.unit()?),
            "duration" => DataType::Duration(self.unit()?),
            "fixed_size_binary" => DataType::FixedSizeBinary(self.size()?),
            "decimal" | "decimal32" | "decimal64" | "decimal128" | "decimal256" => {
                self.decimal(&name)?
            }
            other => simple(other)?,
        };
        self.depth -= 1;
        Some(data_type)
    }

    fn fields(&mut self) -> Option<Fields> {
        self.eat('<')?;
        let mut fields = Vec::new();
        loop {
            let name = self.until(&[':']).to_owned();
            self.eat(':')?;
            fields.push(Field::new(name, self.data_type()?, true));
            if self.eat('>').is_some() {
                return Some(fields.into());
            }
            self.eat(',')?;
        }
    }

    fn decimal(&mut self, name: &str) -> Option<DataType> {
        self.eat('[')?;
        let precision = self.until(&[',']).parse().ok()?;
        self.eat(',')?;
        let scale = self.until(&[']']).parse().ok()?;
        self.eat(']')?;
        let (most, made) = match name {
            "decimal32" => (DECIMAL32_MAX_PRECISION, DataType::Decimal32(precision, scale)),
            "decimal64" => (DECIMAL64_MAX_PRECISION, DataType::Decimal64(precision, scale)),
            "decimal256" => (DECIMAL256_MAX_PRECISION, DataType::Decimal256(precision, scale)),
            _ => (DECIMAL128_MAX_PRECISION, DataType::Decimal128(precision, scale)),
        };
        (1..=most).contains(&precision).then_some(made)
    }

    fn size(&mut self) -> Option<i32> {
        self.eat('[')?;
        let size = self.until(&[']']).parse().ok()?;
        self.eat(']')?;
        (size >= 0).then_some(size)
    }

    fn unit(&mut self) -> Option<TimeUnit> {
        self.eat('[')?;
        let unit = unit_of(self.until(&[']']))?;
        self.eat(']')?;
        Some(unit)
    }

    fn timestamp(&mut self) -> Option<DataType> {
        self.eat('[')?;
        let unit = unit_of(self.until(&[',', ']']))?;
        let zone = if self.eat(',').is_some() {
            let zone = self.until(&[']']);
            Some(zone.strip_prefix("tz=").unwrap_or(zone).into())
        } else {
            None
        };
        self.eat(']')?;
        Some(DataType::Timestamp(unit, zone))
    }
}

fn unit_of(name: &str) -> Option<TimeUnit> {
    Some(match name {
        "s" => TimeUnit::Second,
        "ms" => TimeUnit::Millisecond,
        "us" => TimeUnit::Microsecond,
        "ns" => TimeUnit::Nanosecond,
        _ => return None,
    })
}

fn simple(name: &str) -> Option<DataType> {
    Some(match name {
        "null" => DataType::Null,
        "bool" | "boolean" => DataType::Boolean,
        "float16" => DataType::Float16,
        "date64" => DataType::Date64,
        "uuid" => DataType::FixedSizeBinary(16),
        "int8" => DataType::Int8,
        "int16" => DataType::Int16,
        "int32" | "int" => DataType::Int32,
        "int64" | "long" => DataType::Int64,
        "uint8" => DataType::UInt8,
        "uint16" => DataType::UInt16,
        "uint32" => DataType::UInt32,
        "uint64" => DataType::UInt64,
        "float32" | "float" => DataType::Float32,
        "float64" | "double" => DataType::Float64,
        "utf8" | "string" | "str" | "text" => DataType::Utf8,
        "large_utf8" | "large_string" => DataType::LargeUtf8,
        "utf8_view" | "string_view" => DataType::Utf8View,
        "binary" | "bytes" => DataType::Binary,
        "large_binary" => DataType::LargeBinary,
        "binary_view" => DataType::BinaryView,
        "date" | "date32" => DataType::Date32,
        _ => return None,
    })
}

/// The name of a type; [`parse`] reads it.
#[must_use]
pub fn name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View => "string_view".to_owned(),
        DataType::BinaryView => "binary_view".to_owned(),
        DataType::LargeUtf8 => "large_utf8".to_owned(),
        DataType::LargeBinary => "large_binary".to_owned(),
        DataType::Boolean => "bool".to_owned(),
        DataType::Timestamp(unit, None) => format!("timestamp[{}]", unit_name(*unit)),
        DataType::Timestamp(unit, Some(zone)) => format!("timestamp[{}, {zone}]", unit_name(*unit)),
        DataType::Decimal32(precision, scale) => format!("decimal32[{precision}, {scale}]"),
        DataType::Decimal64(precision, scale) => format!("decimal64[{precision}, {scale}]"),
        DataType::Decimal128(precision, scale) => format!("decimal128[{precision}, {scale}]"),
        DataType::Decimal256(precision, scale) => format!("decimal256[{precision}, {scale}]"),
        DataType::Duration(unit) => format!("duration[{}]", unit_name(*unit)),
        DataType::FixedSizeList(item, size) => {
            format!("fixed_size_list<{}>[{size}]", name(item.data_type()))
        }
        DataType::List(item) => format!("list<{}>", name(item.data_type())),
        DataType::LargeList(item) => format!("large_list<{}>", name(item.data_type())),
        DataType::Struct(fields) => {
            let field =
                |field: &Arc<Field>| format!("{}: {}", field.name(), name(field.data_type()));
            format!("struct<{}>", fields.iter().map(field).collect::<Vec<_>>().join(", "))
        }
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields) => {
                let types: Vec<String> =
                    fields.iter().map(|field| name(field.data_type())).collect();
                format!("map<{}>", types.join(", "))
            }
            other => format!("map<{}>", name(other)),
        },
        DataType::Date32 => "date32".to_owned(),
        DataType::Time32(unit) => format!("time32[{}]", unit_name(*unit)),
        DataType::Time64(unit) => format!("time64[{}]", unit_name(*unit)),
        DataType::FixedSizeBinary(size) => format!("fixed_size_binary[{size}]"),
        DataType::Dictionary(_, values) => format!("dictionary<{}>", name(values)),
        other => other.to_string().to_lowercase(),
    }
}

const fn unit_name(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "us",
        TimeUnit::Nanosecond => "ns",
    }
}
