//! A single value, encoded by the writers of tables.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use arrow::record_batch::RecordBatch;

use super::prepared::Values;
use crate::columnar::formats::ValueSource;
use crate::columnar::formats::json::write::{NonFinite, ValueWriter, put_string};
use crate::columnar::read::tombstones::Tombstones;
use crate::error::{Error, Result};

/// The value of a table's only row; of all its rows, where records hold many.
///
/// # Errors
/// An invalid argument for a table with another number of rows, a format whose schema is not
/// settled, or columns that do not match it.
pub fn encode_value(rows: &RecordBatch, source: &ValueSource) -> Result<Option<Vec<u8>>> {
    if let Some(value) = source.combined(rows)? {
        return Ok(Some(value));
    }
    if rows.num_rows() != 1 {
        return Err(Error::invalid(format!("a value needs one row, not {}", rows.num_rows())));
    }
    let column = source.values(rows)?;
    let values = Values::new(&column, 1, &Tombstones::NONE);
    let value = values.get(&column, 0).map_err(Error::invalid)?;
    Ok(value.map(<[u8]>::to_vec))
}

/// Appends the first value of a column as JSON.
///
/// # Errors
/// What is wrong with a value or a type that JSON does not have.
pub fn put_json(
    field: &Field,
    column: &ArrayRef,
    non_finite: NonFinite,
    output: &mut Vec<u8>,
) -> std::result::Result<(), String> {
    let writer = ValueWriter::new(field, column, non_finite).map_err(|error| error.to_string())?;
    writer.write(0, output).map_err(|fail| fail.to_string())
}

/// Appends a JSON string.
pub fn put_json_string(output: &mut Vec<u8>, text: &str) {
    put_string(output, text);
}
