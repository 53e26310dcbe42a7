//! Which columns the fields of values become: flat ones, of types that every kind of table has.

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Field, Fields, TimeUnit};

use crate::columnar::types;
use crate::error::{Error, Result};
use crate::tier::schema::{self, UTC};

/// How many columns there may be.
pub(super) const COLUMNS_MAX: usize = 256;
/// How long a name may be.
const NAME_BYTES_MAX: usize = 255;
/// What Delta Lake and Spark do not take in names.
const NOT_IN_NAMES: &[char] = &[' ', ',', ';', '{', '}', '(', ')', '='];
/// The types, as errors list them.
pub(super) const TYPES: &str = "bool, int8 to int64, uint8 to uint64, float32, float64, string, binary, date32, timestamp[us, UTC] (or ms, s), \
                     decimal128[p, s]";

/// A column: a field, or one within structs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Leaf {
    /// The position among the decoded fields, then within each struct.
    pub(super) path: Vec<usize>,
    /// How it wants to be called.
    pub(super) name: String,
    /// Its type in a file.
    pub(super) data_type: DataType,
}

/// The columns of the fields at these positions. Structs are taken apart; the names of their members are joined by `_`.
///
/// # Errors
///
/// An invalid argument for a field that cannot be a column.
pub(super) fn flatten(all: &Fields, wanted: &[usize]) -> Result<Vec<Leaf>> {
    let mut leaves = Vec::new();
    let fields = wanted.iter().filter_map(|&index| all.get(index));
    for (position, field) in fields.enumerate() {
        walk(field, vec![position], field.name().clone(), &mut leaves)?;
    }
    if leaves.is_empty() {
        return Err(Error::invalid("it names no column"));
    }
    for leaf in &mut leaves {
        check_name(&leaf.name)?;
        if schema::is_taken(&leaf.name) {
            leaf.name.insert_str(0, "value_");
        }
    }
    let mut names: Vec<(String, &str)> =
        leaves.iter().map(|leaf| (leaf.name.to_lowercase(), leaf.name.as_str())).collect();
    names.sort();
    let twice = names.windows(2).find_map(|pair| match pair {
        [(one, first), (other, second)] if one == other => Some((first, second)),
        _ => None,
    });
    if let Some((first, second)) = twice {
        return Err(Error::invalid(format!(
            "there would be two columns {first:?} and {second:?}, which are one name where case does not count: leave a field out"
        )));
    }
    Ok(leaves)
}

fn walk(field: &Field, path: Vec<usize>, name: String, leaves: &mut Vec<Leaf>) -> Result<()> {
    if let DataType::Struct(members) = field.data_type() {
        for (index, member) in members.iter().enumerate() {
            let path = path.iter().copied().chain([index]).collect();
            walk(member, path, format!("{name}_{}", member.name()), leaves)?;
        }
        return Ok(());
    }
    let Some(data_type) = column_type(field.data_type()) else {
        let found = types::name(field.data_type());
        return Err(Error::invalid(format!(
            "field {name:?} is {found}, and typed columns are flat and of types that every table has: {TYPES}; leave the field out, \
             it stays in the value"
        )));
    };
    if leaves.len() >= COLUMNS_MAX {
        return Err(Error::invalid(format!(
            "it has more than {COLUMNS_MAX} columns: leave fields out, they stay in the value"
        )));
    }
    leaves.push(Leaf { path, name, data_type });
    Ok(())
}

fn check_name(name: &str) -> Result<()> {
    let is_bad = |one: char| NOT_IN_NAMES.contains(&one) || one.is_control();
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains(is_bad) {
        return Err(Error::invalid(format!(
            "{name:?} is no name for a column: tables want 1 to {NAME_BYTES_MAX} bytes, without spaces, control characters and any of ,;{{}}()=; \
             leave the field out, it stays in the value"
        )));
    }
    Ok(())
}

/// The largest values of a fixed size that get a column, in bytes.
const FIXED_SIZE_MAX: i32 = 1024;

/// The type of the column for what a decoder gives: the same, or one that has all its values. None for types that not
/// all tables have.
fn column_type(decoded: &DataType) -> Option<DataType> {
    Some(match decoded {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32 => decoded.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8View,
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => DataType::Utf8View,
        DataType::Binary
        | DataType::LargeBinary
        | DataType::BinaryView
        // A null takes as much memory as a value while it is decoded.
        | DataType::FixedSizeBinary(1..=FIXED_SIZE_MAX) => DataType::BinaryView,
        // What is finer than a microsecond would be lost.
        DataType::Timestamp(unit, Some(_)) if *unit != TimeUnit::Nanosecond => {
            DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *precision <= DECIMAL128_MAX_PRECISION
                && u8::try_from(*scale).is_ok_and(|scale| scale <= *precision) =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        _ => return None,
    })
}

/// The name of the type of a column; [`table_type`] reads it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8View => "string".to_owned(),
        DataType::BinaryView => "binary".to_owned(),
        other => types::name(other),
    }
}

/// The type of a column with a name as [`type_name`] gives it.
///
/// # Errors
///
/// It is no such name.
pub(in crate::tier) fn table_type(name: &str) -> Result<DataType> {
    let unknown = || Error::invalid(format!("there are no columns of type {name:?}"));
    types::parse(name).ok().and_then(|found| column_type(&found)).ok_or_else(unknown)
}
