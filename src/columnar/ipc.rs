//! Arrow IPC streams as values: a record holds a schema and the rows of one batch or several.
//!
//! Rows of a value come one after the other, each beside the offset, the key and so on of its
//! record; a value without rows gives none. Columns are those of the first value, found by name in
//! the others: what a value lacks is null there, and a type that differs is cast.
//!
//! Invariant **IP-1**: lengths inside of a value are compared with its size before Arrow's reader
//! sees it, so that a small value takes little memory and damage is an error of its record.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, new_empty_array, new_null_array};
use arrow::compute::{CastOptions, cast_with_options, concat};
use arrow::datatypes::{Field, Fields};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{FieldNode, RecordBatch as Batch, root_as_message};

use super::values::Columns;
use crate::error::{Error, Result};

/// What comes before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// Rows beyond this many of a record are refused; a batch of Arrow has at most as many bits.
const ROWS_PER_BYTE: usize = 8;
/// So many rows an output may have.
const OUTPUT_ROWS_MAX: usize = 1 << 27;

/// The columns of a value.
///
/// # Errors
/// What is wrong with it.
pub(super) fn fields_of(value: &[u8]) -> Result<Fields, String> {
    check(value)?;
    guarded(|| {
        let reader = StreamReader::try_new(Cursor::new(value), None)?;
        let fields = reader.schema().fields().clone();
        Ok(fields.iter().map(|field| Arc::new(Field::clone(field).with_nullable(true))).collect())
    })
}

/// Decodes values into some of the columns.
#[derive(Debug)]
pub(super) struct IpcDecoder {
    fields: Fields,
}

impl IpcDecoder {
    pub(super) const fn new(fields: Fields) -> Self {
        Self { fields }
    }

    pub(super) fn decode(
        &self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.fields.len()];
        let mut records: Vec<u32> = Vec::with_capacity(values.len());
        for (row, value) in values.iter().enumerate() {
            let read = match value {
                None => None,
                Some(value) => match self.read(value) {
                    Ok(read) if records.len().saturating_add(read.1) <= OUTPUT_ROWS_MAX => {
                        Some(read)
                    }
                    Ok(_) => {
                        bad(row, "the batch has too many rows; lower max_rows".to_owned())?;
                        None
                    }
                    Err(detail) => {
                        bad(row, detail)?;
                        None
                    }
                },
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
    fn read(&self, value: &[u8]) -> Result<(Vec<Vec<ArrayRef>>, usize), String> {
        check(value)?;
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

/// Compares all lengths with the size of the value (IP-1).
fn check(value: &[u8]) -> Result<(), String> {
    let cut = || "the Arrow IPC stream ends early".to_owned();
    let mut rest = value;
    let mut next = |size: usize| {
        let (taken, behind) = rest.split_at_checked(size)?;
        rest = behind;
        Some(taken)
    };
    let word =
        |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let mut messages = 0_usize;
    loop {
        let Some(first) = next(4) else {
            // The end may be left out.
            return if messages > 0 {
                Ok(())
            } else {
                Err("the value is no Arrow IPC stream".into())
            };
        };
        let mut size = word(first);
        if size == CONTINUATION {
            size = word(next(4).ok_or_else(cut)?);
        }
        if size == 0 {
            return if messages > 0 {
                Ok(())
            } else {
                Err("the value is no Arrow IPC stream".into())
            };
        }
        let metadata = next(size as usize).ok_or_else(|| {
            if messages == 0 { "the value is no Arrow IPC stream".to_owned() } else { cut() }
        })?;
        let message = root_as_message(metadata)
            .map_err(|error| format!("the value is no Arrow IPC stream: {error}"))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_source| cut())?;
        next(body).ok_or_else(cut)?;
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        for batch in message.header_as_record_batch().into_iter().chain(dictionary) {
            check_batch(&batch, body, value.len())?;
        }
        messages = messages.saturating_add(1);
    }
}

fn check_batch(batch: &Batch<'_>, body: usize, size: usize) -> Result<(), String> {
    if batch.compression().is_some() {
        return Err("the Arrow IPC stream is compressed: let Kafka compress, not Arrow".to_owned());
    }
    let most = size.saturating_mul(ROWS_PER_BYTE) as i64;
    let lengths = batch.nodes().into_iter().flatten().map(FieldNode::length);
    if lengths.chain([batch.length()]).any(|length| !(0..=most).contains(&length)) {
        return Err(format!("an Arrow IPC stream of {size} bytes claims {} rows", batch.length()));
    }
    let fits = |offset: i64, length: i64| {
        offset >= 0
            && length >= 0
            && offset.checked_add(length).is_some_and(|end| end <= body as i64)
    };
    let mut buffers = batch.buffers().into_iter().flatten();
    if buffers.all(|buffer| fits(buffer.offset(), buffer.length())) {
        return Ok(());
    }
    Err("the Arrow IPC stream ends early".to_owned())
}
