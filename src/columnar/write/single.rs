//! A single value, encoded by the writers of tables.

use arrow::array::ArrayRef;
use arrow::datatypes::Field;
use arrow::record_batch::RecordBatch;

use super::sources::RowValue;
use crate::columnar::formats::ipc::one_stream;
use crate::columnar::formats::json::write::{NonFinite, ValueWriter, put_string};
use crate::columnar::formats::target::ValueSource;
use crate::error::{Error, Result};

/// The value of a table's only row; for an Arrow IPC stream, that of all its rows.
///
/// # Errors
/// An invalid argument for a table with another number of rows, a format whose schema is not
/// settled, or columns that do not match it.
pub fn encode_value(rows: &RecordBatch, source: &ValueSource) -> Result<Option<Vec<u8>>> {
    if let ValueSource::ArrowIpc(target) = source {
        return one_stream(rows, target).map(Some);
    }
    if rows.num_rows() != 1 {
        return Err(Error::invalid(format!("a value needs one row, not {}", rows.num_rows())));
    }
    let mut value = RowValue::new(rows, source)?;
    value.read(0).map_err(Error::invalid)?;
    Ok(value.current(0).map(<[u8]>::to_vec))
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
