//! Derives a Protobuf schema from the columns of a table, for writing without one.
//!
//! | Arrow                                         | Protobuf                                      |
//! |-----------------------------------------------|-----------------------------------------------|
//! | bool; float16, float32; float64               | bool; float; double                           |
//! | int8, int16, int32; int64                     | int32; int64                                  |
//! | uint8, uint16, uint32; uint64                 | uint32; uint64                                |
//! | utf8, UUIDs; binary, fixed size too           | string; bytes                                 |
//! | timestamp; duration                           | google.protobuf.Timestamp; .Duration          |
//! | dictionary                                    | as its values                                 |
//! | list; map; struct                             | repeated; map; a message inside of this one   |
//!
//! Fields have the numbers of their columns, from 1 on (19000 to 19999 belong to Protobuf).
//! Nullable scalars are `optional`; lists and maps cannot be, so a null there is refused. All other
//! types are refused, with the name of the column.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema};

use super::build::DEPTH_MAX;
use super::schema::ProtobufSchema;
use crate::columnar::write::shown::is_uuid;
use crate::error::{Error, Result};

/// Numbers that Protobuf keeps for itself.
const RESERVED: std::ops::Range<usize> = 19_000..20_000;
const TIMESTAMP: &str = "google.protobuf.Timestamp";
const DURATION: &str = "google.protobuf.Duration";

impl ProtobufSchema {
    /// The schema of a table: a message with a field for each column except those left out. The
    /// name of the message may include a package.
    ///
    /// # Errors
    /// An invalid argument for names that are not valid in Protobuf, and types that it does not
    /// have.
    pub fn of_table(table: &ArrowSchema, message: &str, exclude: &[String]) -> Result<Self> {
        if !message.split('.').all(is_identifier) {
            return Err(Error::invalid(format!(
                "{message:?} is not a name for a Protobuf message: its parts have letters, digits and \
                 _, and do not begin with a digit"
            )));
        }
        let (package, name) = match message.rsplit_once('.') {
            Some((package, name)) => (Some(package), name),
            None => (None, message),
        };
        let fields = table.fields().iter().filter(|field| !exclude.contains(field.name()));
        let mut deriver = Deriver { names: vec![name.to_owned()], ..Deriver::default() };
        let body = deriver.message(name, &fields.cloned().collect(), "", 0)?;
        let mut text = "syntax = \"proto3\";\n".to_owned();
        if let Some(package) = package {
            put(&mut text, format_args!("package {package};\n"));
        }
        for (is_used, file) in [(deriver.durations, "duration"), (deriver.timestamps, "timestamp")]
        {
            if is_used {
                put(&mut text, format_args!("import \"google/protobuf/{file}.proto\";\n"));
            }
        }
        text.push('\n');
        text.push_str(&body);
        Self::parse(&text, &[], Vec::new(), Some(message))
    }

    /// The name of the message of a topic's values.
    pub(in crate::columnar) fn message_of(topic: &str) -> String {
        let mut name = camel(topic);
        name.push_str("Value");
        if name.starts_with(|one: char| one.is_ascii_digit()) {
            name.insert(0, '_');
        }
        name
    }
}

fn put(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a text does not fail.
    text.write_fmt(arguments).ok();
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|one: char| one.is_ascii_alphabetic() || one == '_')
        && name.chars().all(|one| one.is_ascii_alphanumeric() || one == '_')
}

/// A name in the style of messages: `order_line` becomes `OrderLine`.
fn camel(name: &str) -> String {
    let mut found = String::new();
    let mut is_first = true;
    for one in name.chars() {
        if !one.is_ascii_alphanumeric() {
            is_first = true;
        } else if is_first {
            found.push(one.to_ascii_uppercase());
            is_first = false;
        } else {
            found.push(one);
        }
    }
    found
}

/// The form in which the names of a message's fields must differ, since their names in Protobuf's
/// JSON must: without underscores and case.
fn plain_name(name: &str) -> String {
    name.chars().filter(|one| *one != '_').map(|one| one.to_ascii_lowercase()).collect()
}

fn full(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Makes the text of a file.
#[derive(Default)]
struct Deriver {
    /// The messages, each of which is named once in the file.
    names: Vec<String>,
    timestamps: bool,
    durations: bool,
}

impl Deriver {
    fn message(&mut self, name: &str, fields: &Fields, path: &str, depth: usize) -> Result<String> {
        check_names(fields, path)?;
        let indent = "  ".repeat(depth);
        let mut text = format!("{indent}message {name} {{\n");
        let mut number = 0_usize;
        for field in fields {
            number = number.saturating_add(1);
            if RESERVED.contains(&number) {
                number = RESERVED.end;
            }
            let column = Column { path: full(path, field.name()), siblings: fields, depth };
            let (typed, inner) = self.field(field, &column)?;
            if let Some(inner) = inner {
                text.push_str(&inner);
            }
            put(&mut text, format_args!("{indent}  {typed} {} = {number};\n", field.name()));
        }
        put(&mut text, format_args!("{indent}}}\n"));
        Ok(text)
    }

    /// The type of a field with its label, and the message that it needs.
    fn field(&mut self, field: &Field, column: &Column<'_>) -> Result<(String, Option<String>)> {
        match field.data_type() {
            DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
                let (typed, inner) = self.value(item, field, column)?;
                Ok((format!("repeated {typed}"), inner))
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(pair) = entries.data_type() else {
                    return Err(column.unfit(entries.data_type()));
                };
                let [key, value] = pair.as_ref() else {
                    return Err(column.unfit(entries.data_type()));
                };
                let key =
                    key_type(key.data_type()).ok_or_else(|| column.unfit(field.data_type()))?;
                let (typed, inner) = self.value(value, field, column)?;
                Ok((format!("map<{key}, {typed}>"), inner))
            }
            _ => {
                let (typed, inner) = self.value(field, field, column)?;
                // Whether a message is set is always known.
                let is_message = inner.is_some() || typed == TIMESTAMP || typed == DURATION;
                let label = if field.is_nullable() && !is_message { "optional " } else { "" };
                Ok((format!("{label}{typed}"), inner))
            }
        }
    }

    /// The type of a value outside a list.
    fn value(
        &mut self,
        value: &Field,
        field: &Field,
        column: &Column<'_>,
    ) -> Result<(String, Option<String>)> {
        let data_type = value.data_type();
        let name = match data_type {
            DataType::FixedSizeBinary(16) if is_uuid(value) => Some("string"),
            DataType::Dictionary(_, value) if scalar(value).is_some() => scalar(value),
            DataType::Timestamp(..) => {
                self.timestamps = true;
                Some(TIMESTAMP)
            }
            DataType::Duration(_) => {
                self.durations = true;
                Some(DURATION)
            }
            DataType::Struct(members) => {
                let depth = column.depth.saturating_add(1);
                if depth >= DEPTH_MAX {
                    return Err(Error::invalid(format!(
                        "column {:?} has structs nested {DEPTH_MAX} levels or more, which is too \
                         deep for Protobuf values",
                        column.path
                    )));
                }
                let name = self.unique(&camel(field.name()), column.siblings);
                let inner = self.message(&name, members, &column.path, depth)?;
                return Ok((name, Some(inner)));
            }
            other => scalar(other),
        };
        name.map(|name| (name.to_owned(), None)).ok_or_else(|| column.unfit(data_type))
    }

    /// A name for a message next to these fields: they share one scope.
    fn unique(&mut self, wanted: &str, siblings: &Fields) -> String {
        let wanted = if is_identifier(wanted) { wanted.to_owned() } else { format!("_{wanted}") };
        let is_taken = |names: &[String], name: &str| {
            names.iter().any(|used| used == name)
                || siblings.iter().any(|field| {
                    // A map defines a message for its entries.
                    field.name() == name || format!("{}Entry", camel(field.name())) == name
                })
        };
        let mut name = wanted.clone();
        let mut count = 2_usize;
        while is_taken(&self.names, &name) {
            name = format!("{wanted}{count}");
            count = count.saturating_add(1);
        }
        self.names.push(name.clone());
        name
    }
}

/// Where a field is.
struct Column<'a> {
    path: String,
    /// The fields of the message that it is in.
    siblings: &'a Fields,
    depth: usize,
}

impl Column<'_> {
    fn unfit(&self, data_type: &DataType) -> Error {
        let path = &self.path;
        Error::invalid(match data_type {
            DataType::Null => format!(
                "column {path:?} has only nulls, and no type that a Protobuf schema could name; \
                 cast it, leave it out with exclude=, or pass a schema"
            ),
            other => format!(
                "column {path:?} is or contains {other}, for which there is no Protobuf field; cast \
                 it, leave it out with exclude=, or pass a schema"
            ),
        })
    }
}

fn scalar(data_type: &DataType) -> Option<&'static str> {
    Some(match data_type {
        DataType::Boolean => "bool",
        DataType::Int8 | DataType::Int16 | DataType::Int32 => "int32",
        DataType::Int64 => "int64",
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 => "uint32",
        DataType::UInt64 => "uint64",
        DataType::Float16 | DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        | DataType::FixedSizeBinary(_) => "bytes",
        _ => return None,
    })
}

/// Protobuf has no maps with other keys.
fn key_type(data_type: &DataType) -> Option<&'static str> {
    let data_type = match data_type {
        DataType::Dictionary(_, value) => value,
        other => other,
    };
    scalar(data_type).filter(|name| !matches!(*name, "float" | "double" | "bytes"))
}

fn check_names(fields: &Fields, path: &str) -> Result<()> {
    let mut known: BTreeMap<String, &str> = BTreeMap::new();
    for field in fields {
        if !is_identifier(field.name()) {
            return Err(Error::invalid(format!(
                "column {:?} is not a name for a Protobuf field, which has letters, digits and _, and \
                 does not begin with a digit; rename it",
                full(path, field.name())
            )));
        }
        if let Some(other) = known.insert(plain_name(field.name()), field.name()) {
            return Err(Error::invalid(format!(
                "columns {:?} and {:?} differ only in case and underscores, which is not enough in a \
                 Protobuf message; rename one",
                full(path, other),
                full(path, field.name())
            )));
        }
    }
    Ok(())
}
