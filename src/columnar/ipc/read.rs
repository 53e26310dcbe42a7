//! Rows out of streams.
//!
//! Rows of a value come one after the other, each beside the offset, the key and so on of its
//! record; a value without rows gives none. Columns are those of the first value, found by name in
//! the others: what a value lacks is null there, and a type that differs is cast.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, new_empty_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{Field, Fields};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{FieldNode, RecordBatch as Batch, root_as_message};

use crate::columnar::values::Columns;
use crate::error::{Error, Result};

/// What comes before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// Rows beyond this many of a record are refused; a batch of Arrow has at most as many bits.
const ROWS_PER_BYTE: usize = 8;
/// So many rows an output may have.
const OUTPUT_ROWS_MAX: usize = 1 << 27;
/// The bytes that the compressed buffers of a value may have uncompressed.
const UNCOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// The same for all values of an output.
const OUTPUT_BYTES_MAX: usize = 1 << 30;
/// What comes before a compressed buffer: its length uncompressed.
const PREFIX: usize = 8;

/// The columns of a value.
///
/// # Errors
/// What is wrong with it.
pub(in crate::columnar) fn fields_of(value: &[u8]) -> Result<Fields, String> {
    check(value)?;
    guarded(|| {
        let reader = StreamReader::try_new(Cursor::new(value), None)?;
        let fields = reader.schema().fields().clone();
        Ok(fields.iter().map(|field| Arc::new(Field::clone(field).with_nullable(true))).collect())
    })
}

/// Decodes values into some of the columns.
#[derive(Debug)]
pub(in crate::columnar) struct IpcDecoder {
    fields: Fields,
}

impl IpcDecoder {
    pub(in crate::columnar) const fn new(fields: Fields) -> Self {
        Self { fields }
    }

    pub(in crate::columnar) fn decode(
        &self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.fields.len()];
        let mut records: Vec<u32> = Vec::with_capacity(values.len());
        let mut bytes_left = OUTPUT_BYTES_MAX;
        for (row, value) in values.iter().enumerate() {
            let read = match value.map(|value| self.read(value, &mut bytes_left)) {
                None => None,
                Some(Ok(read)) if records.len().saturating_add(read.1) <= OUTPUT_ROWS_MAX => {
                    Some(read)
                }
                Some(Ok(_)) => {
                    bad(row, "the batch has too many rows; lower max_rows".to_owned())?;
                    None
                }
                Some(Err(detail)) => {
                    bad(row, detail)?;
                    None
                }
            };
            let Some((columns, rows)) = read else {
                records.push(row as u32);
                for (part, field) in parts.iter_mut().zip(&self.fields) {
                    part.push(new_null_array(field.data_type(), 1));
                }
                continue;
            };
            records.extend(std::iter::repeat_n(row as u32, rows));
            parts.iter_mut().zip(columns).for_each(|(part, column)| part.extend(column));
        }
        let columns = parts.iter().zip(&self.fields).map(|(part, field)| {
            let arrays: Vec<&dyn Array> = part.iter().map(AsRef::as_ref).collect();
            if arrays.is_empty() {
                return Ok(new_empty_array(field.data_type()));
            }
            concat(&arrays)
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>().map_err(|error| {
            Error::invalid(format!("could not put the batches of values together: {error}"))
        })?;
        Ok(Columns::Many(columns, records))
    }

    /// The parts of each column in a value, and the number of its rows.
    fn read(
        &self,
        value: &[u8],
        bytes_left: &mut usize,
    ) -> Result<(Vec<Vec<ArrayRef>>, usize), String> {
        let unpacked = check(value)?;
        *bytes_left = bytes_left.checked_sub(unpacked).ok_or_else(|| {
            format!(
                "the Arrow IPC streams of the batch have more than {OUTPUT_BYTES_MAX} bytes \
                 uncompressed; lower max_bytes or max_rows"
            )
        })?;
        guarded(|| {
            let mut columns: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.fields.len()];
            let mut rows = 0_usize;
            for batch in StreamReader::try_new(Cursor::new(value), None)? {
                let batch = batch?;
                rows = rows.saturating_add(batch.num_rows());
                for (column, field) in columns.iter_mut().zip(&self.fields) {
                    column.push(match batch.column_by_name(field.name()) {
                        Some(array) => {
                            let options = CastOptions { safe: false, ..CastOptions::default() };
                            cast_with_options(array, field.data_type(), &options)?
                        }
                        None => new_null_array(field.data_type(), batch.num_rows()),
                    });
                }
            }
            Ok((columns, rows))
        })
    }
}

/// Lets Arrow's reader read; it panics on some kinds of damage.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| format!("the Arrow IPC stream is damaged: {error}")),
        Err(_panic) => Err("the Arrow IPC stream is damaged".to_owned()),
    }
}

/// Compares all lengths with the size of the value (IP-1); the bytes that its compressed buffers
/// will take.
pub(super) fn check(value: &[u8]) -> Result<usize, String> {
    let cut = || "the Arrow IPC stream ends early".to_owned();
    let none = || "the value is no Arrow IPC stream".to_owned();
    let mut rest = value;
    let mut next = |size: usize| {
        let (taken, behind) = rest.split_at_checked(size)?;
        rest = behind;
        Some(taken)
    };
    let word =
        |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let mut messages = 0_usize;
    let mut unpacked = 0_usize;
    loop {
        // The end may be left out.
        let mut size = next(4).map_or(0, word);
        if size == CONTINUATION {
            size = word(next(4).ok_or_else(cut)?);
        }
        if size == 0 {
            return if messages > 0 { Ok(unpacked) } else { Err(none()) };
        }
        let metadata =
            next(size as usize).ok_or_else(|| if messages == 0 { none() } else { cut() })?;
        let message = root_as_message(metadata)
            .map_err(|error| format!("the value is no Arrow IPC stream: {error}"))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_source| cut())?;
        let body = next(body).ok_or_else(cut)?;
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        for batch in message.header_as_record_batch().into_iter().chain(dictionary) {
            check_batch(&batch, body, value.len(), &mut unpacked)?;
        }
        messages = messages.saturating_add(1);
    }
}

fn check_batch(
    batch: &Batch<'_>,
    body: &[u8],
    size: usize,
    unpacked: &mut usize,
) -> Result<(), String> {
    for buffer in batch.buffers().into_iter().flatten() {
        let at = usize::try_from(buffer.offset()).ok();
        let length = usize::try_from(buffer.length()).ok();
        let buffer = at
            .zip(length)
            .and_then(|(at, length)| body.get(at..)?.get(..length))
            .ok_or("the Arrow IPC stream ends early")?;
        if batch.compression().is_some() && !buffer.is_empty() {
            *unpacked = unpacked.saturating_add(unpacked_size(buffer)?);
        }
    }
    if *unpacked > UNCOMPRESSED_BYTES_MAX {
        return Err(format!(
            "an Arrow IPC stream of {size} bytes claims {unpacked} uncompressed; at most \
             {UNCOMPRESSED_BYTES_MAX} are taken"
        ));
    }
    let most = size.max(*unpacked).saturating_mul(ROWS_PER_BYTE) as i64;
    let lengths = batch.nodes().into_iter().flatten().map(FieldNode::length);
    if lengths.chain([batch.length()]).any(|length| !(0..=most).contains(&length)) {
        return Err(format!("an Arrow IPC stream of {size} bytes claims {} rows", batch.length()));
    }
    Ok(())
}

/// The length that a compressed buffer claims to have uncompressed; nothing is allocated for one
/// that is stored as it is.
fn unpacked_size(buffer: &[u8]) -> Result<usize, String> {
    let prefix = buffer.first_chunk::<PREFIX>().ok_or("the Arrow IPC stream ends early")?;
    match i64::from_le_bytes(*prefix) {
        -1 => Ok(0),
        claimed => usize::try_from(claimed).map_err(|_source| {
            format!("a buffer of the Arrow IPC stream claims {claimed} bytes uncompressed")
        }),
    }
}
