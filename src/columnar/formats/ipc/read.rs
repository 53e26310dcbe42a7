//! Reads rows from streams.
//!
//! The rows of a value come one after another, each next to the offset, the key and so on of its
//! record; a value without rows yields none. Columns are those of a schema or of the first value, and
//! are found by name in the others ([`super::fit`]). A column that the first value lacks is an error
//! of its value; one that a schema lacks is not read.
//!
//! An output ends before a value that it has no room for ([`Room`]), so that the result for a
//! record never depends on its neighbours.

use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BinaryViewArray, new_empty_array, new_null_array};
use arrow::compute::concat;
use arrow::datatypes::{Field, Fields};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::{FieldNode, MessageHeader, RecordBatch as Batch, root_as_message};

use super::IpcFormat;
use super::fit::{check_members, fit, is_untyped, made_bytes, null_bytes, typed_by};
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::fail::with_excerpt;
use crate::columnar::formats::json::all_nullable;
use crate::columnar::formats::reading::{Columns, DecodeValues, Look, Probe};
use crate::columnar::read::assemble::Assembled;
use crate::error::{Error, Result};

/// The marker before the length of a message.
const CONTINUATION: u32 = u32::MAX;
/// A record with more rows per byte than this is refused; an Arrow batch has at most that many
/// bits.
const ROWS_PER_BYTE: usize = 8;
/// The most uncompressed bytes that the compressed buffers of a value may have.
const UNCOMPRESSED_BYTES_MAX: usize = 256 << 20;
/// The most bytes that a row of nulls may take: fixed-size types take their size for nulls, too.
const NULL_BYTES_MAX: usize = 64 << 20;
/// How many values are examined for the type of a column that has only nulls.
const LOOKED_AT_MAX: usize = 100;
/// The prefix of a compressed buffer: its uncompressed length.
const PREFIX: usize = 8;

/// How much room an output has.
#[derive(Clone, Copy, Debug)]
pub(in crate::columnar) struct Room {
    pub(super) rows: usize,
    /// The bytes of the values, of their uncompressed buffers, and of the nulls in columns that
    /// they lack.
    pub(super) bytes: usize,
}

impl Room {
    const OUTPUT: Self = Self { rows: 1 << 27, bytes: 1 << 30 };

    const fn holds(self, rows: usize, bytes: usize) -> bool {
        rows <= self.rows && bytes <= self.bytes
    }

    const fn less(self, rows: usize, bytes: usize) -> Self {
        Self { rows: self.rows.saturating_sub(rows), bytes: self.bytes.saturating_sub(bytes) }
    }
}

/// The columns of a value.
///
/// # Errors
/// What is wrong with it.
pub(in crate::columnar) fn fields_of(value: &[u8]) -> Result<Fields, String> {
    check(value)?;
    let fields = guarded(|| {
        let reader = StreamReader::try_new(Cursor::new(value), None)?;
        Ok(reader.schema().fields().clone())
    })?;
    check_fields(&fields)?;
    Ok(fields.iter().map(|field| Arc::new(Field::clone(field).with_nullable(true))).collect())
}

/// Finds the columns in the first values.
#[derive(Debug, Default)]
pub(in crate::columnar) struct IpcProbe {
    fields: Option<Fields>,
    looked_at: usize,
}

impl IpcProbe {
    /// Examines a value; the columns, once nothing more is to be learned about them.
    fn add(&mut self, value: &[u8]) -> Option<Fields> {
        // Invalid values are left to `on_error`.
        let found = fields_of(value).ok()?;
        let fields = match &self.fields {
            Some(before) => typed_by(before, &found),
            None => found,
        };
        let is_typed = !fields.iter().any(|field| is_untyped(field.data_type()));
        self.looked_at = self.looked_at.saturating_add(1);
        self.fields = Some(fields);
        self.fields.clone().filter(|_| is_typed || self.looked_at >= LOOKED_AT_MAX)
    }
}

fn with(fields: Fields, found: bool) -> ValueFormat {
    ValueFormat::ArrowIpc(IpcFormat { fields: Some(fields), found })
}

impl Probe for IpcProbe {
    fn look(&mut self, assembled: &Assembled) -> Result<Look> {
        let mut values = assembled.values().into_iter().flatten().flatten();
        let found = values.find_map(|value| self.add(value));
        Ok(found.map_or(Look::More, |fields| Look::Settled(with(fields, true))))
    }

    /// Determines which values are invalid.
    fn unsettled(&self, named: Fields) -> ValueFormat {
        with(named, false)
    }

    fn give_up(&self) -> Option<ValueFormat> {
        self.fields.clone().map(|fields| with(fields, true))
    }
}

/// Refuses columns in which a single null takes a lot of memory.
fn check_fields(fields: &Fields) -> Result<(), String> {
    let sizes = fields.iter().map(|field| null_bytes(field.data_type(), true));
    let bytes = sizes.fold(0, usize::saturating_add);
    if bytes <= NULL_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the columns of the Arrow IPC stream have fixed-size types that take {bytes} bytes per \
         row; at most {NULL_BYTES_MAX} are accepted"
    ))
}

/// The rows of a value.
struct Part {
    /// The arrays of each column.
    columns: Vec<Vec<ArrayRef>>,
    rows: usize,
    /// The bytes that they take in addition to the value's own.
    bytes: usize,
}

/// Decodes values into some of the columns.
#[derive(Debug)]
pub(in crate::columnar) struct IpcDecoder {
    fields: Fields,
    /// All columns, and whether they were found in the first values: then others are errors.
    known: Fields,
    found: bool,
    /// The bytes of a row of nulls.
    null_row: usize,
    pub(in crate::columnar) room: Room,
}

impl IpcDecoder {
    /// A decoder for some of the columns.
    pub(in crate::columnar) fn new(known: &Fields, found: bool, wanted: &[usize]) -> Self {
        let known = all_nullable(known);
        let fields: Fields = wanted.iter().filter_map(|&index| known.get(index).cloned()).collect();
        let sizes = fields.iter().map(|field| null_bytes(field.data_type(), false));
        let null_row = sizes.fold(0, usize::saturating_add);
        Self { fields, known, found, null_row, room: Room::OUTPUT }
    }

    /// The row of a record whose value is null or cannot be decoded.
    fn nulls(&self) -> Part {
        let null = |field: &Arc<Field>| vec![new_null_array(field.data_type(), 1)];
        Part { columns: self.fields.iter().map(null).collect(), rows: 1, bytes: self.null_row }
    }

    /// The rows of a value; none where there is no room left for them.
    fn read(&self, value: &[u8], left: Room) -> Result<Option<Part>, String> {
        let columns = vec![Vec::new(); self.fields.len()];
        let mut part = Part { columns, rows: 0, bytes: check(value)? };
        if !self.fits(&part, left)? {
            return Ok(None);
        }
        guarded(|| {
            let reader = StreamReader::try_new(Cursor::new(value), None)?;
            if let Err(detail) = check_fields(reader.schema().fields()) {
                return Ok(Err(detail));
            }
            for batch in reader {
                let batch = batch?;
                let members = batch.schema_ref().fields();
                if let Err(detail) = check_members("", members, &self.known, self.found) {
                    return Ok(Err(detail));
                }
                let rows = batch.num_rows();
                part.rows = part.rows.saturating_add(rows);
                let found: Vec<Option<&ArrayRef>> =
                    self.fields.iter().map(|field| batch.column_by_name(field.name())).collect();
                for (array, field) in found.iter().zip(&self.fields) {
                    part.bytes = part.bytes.saturating_add(made_bytes(*array, rows, field));
                }
                match self.fits(&part, left) {
                    Ok(true) => {}
                    Ok(false) => return Ok(Ok(None)),
                    Err(detail) => return Ok(Err(detail)),
                }
                for ((column, array), field) in part.columns.iter_mut().zip(found).zip(&self.fields)
                {
                    column.push(match array {
                        Some(array) => {
                            match fit(field.name(), array, field.data_type(), self.found) {
                                Ok(array) => array,
                                Err(detail) => return Ok(Err(detail)),
                            }
                        }
                        None => new_null_array(field.data_type(), rows),
                    });
                }
            }
            Ok(Ok(Some(part)))
        })?
    }

    /// Whether there is room left.
    ///
    /// # Errors
    /// When even an empty output has no room for the value.
    fn fits(&self, part: &Part, left: Room) -> Result<bool, String> {
        if self.room.holds(part.rows, part.bytes) {
            return Ok(left.holds(part.rows, part.bytes));
        }
        Err(format!(
            "the Arrow IPC stream has {} rows or more, and {} bytes in addition to the value's; at \
             most {} and {} are accepted",
            part.rows, part.bytes, self.room.rows, self.room.bytes
        ))
    }
}

impl DecodeValues for IpcDecoder {
    /// Decodes values up to the first one for which there is no room after the others.
    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        let mut parts: Vec<Vec<ArrayRef>> = vec![Vec::new(); self.fields.len()];
        let mut records: Vec<u32> = Vec::with_capacity(values.len());
        let mut room = self.room;
        let mut done = 0;
        for (row, value) in values.iter().enumerate() {
            let size = value.map_or(0, <[u8]>::len);
            if row > 0 && !room.holds(1, size.saturating_add(self.null_row)) {
                break;
            }
            let part = match value.map(|value| self.read(value, room)) {
                None => self.nulls(),
                Some(Ok(Some(part))) => part,
                Some(Ok(None)) => break,
                Some(Err(detail)) => {
                    bad(row, with_excerpt(detail, value.unwrap_or_default()))?;
                    self.nulls()
                }
            };
            room = room.less(part.rows, size.saturating_add(part.bytes));
            records.extend(std::iter::repeat_n(row as u32, part.rows));
            parts.iter_mut().zip(part.columns).for_each(|(all, column)| all.extend(column));
            done = row.saturating_add(1);
        }
        let columns = parts.iter().zip(&self.fields).map(|(part, field)| {
            let arrays: Vec<&dyn Array> = part.iter().map(AsRef::as_ref).collect();
            if arrays.is_empty() {
                return Ok(new_empty_array(field.data_type()));
            }
            concat(&arrays)
        });
        let columns = columns.collect::<Result<Vec<_>, ArrowError>>().map_err(|error| {
            Error::invalid(format!("could not combine the batches of values: {error}"))
        })?;
        Ok(Columns::Many { columns, records, done })
    }
}

/// Calls Arrow's reader, which panics on some kinds of damage.
fn guarded<T>(read: impl FnOnce() -> Result<T, ArrowError>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(_)) | Err(_) => Err("the Arrow IPC stream is damaged".to_owned()),
    }
}

/// Compares all lengths with the size of the value (IP-1); the bytes that its compressed buffers
/// will take.
pub(super) fn check(value: &[u8]) -> Result<usize, String> {
    let cut = || "the Arrow IPC stream ends early".to_owned();
    let none = || "the value is not an Arrow IPC stream".to_owned();
    let behind = || "the Arrow IPC stream has bytes after its end".to_owned();
    let mut rest = value;
    let word =
        |bytes: &[u8]| bytes.first_chunk::<4>().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    let mut messages = 0_usize;
    let mut unpacked = 0_usize;
    loop {
        // The end marker may be missing.
        let mut size = next(&mut rest, 4).map_or(0, word);
        if size == CONTINUATION {
            size = word(next(&mut rest, 4).ok_or_else(cut)?);
        }
        if size == 0 && messages == 0 {
            return Err(none());
        }
        if size == 0 {
            // Arrow's reader does not look beyond the end; rows would be lost.
            let is_more = rest.iter().any(|byte| *byte != 0);
            return if is_more { Err(behind()) } else { Ok(unpacked) };
        }
        let metadata = next(&mut rest, size as usize)
            .ok_or_else(|| if messages == 0 { none() } else { cut() })?;
        let message = root_as_message(metadata)
            .map_err(|_error| "the value is not an Arrow IPC stream".to_owned())?;
        let body = usize::try_from(message.bodyLength()).map_err(|_source| cut())?;
        let body = next(&mut rest, body).ok_or_else(cut)?;
        // Arrow's reader treats a message of an unknown kind as the end.
        if !matches!(
            message.header_type(),
            MessageHeader::Schema | MessageHeader::DictionaryBatch | MessageHeader::RecordBatch
        ) {
            return Err("a message of the Arrow IPC stream is of an unknown kind".to_owned());
        }
        let dictionary = message.header_as_dictionary_batch().and_then(|batch| batch.data());
        for batch in message.header_as_record_batch().into_iter().chain(dictionary) {
            check_batch(&batch, body, value.len(), &mut unpacked)?;
        }
        messages = messages.saturating_add(1);
    }
}

fn next<'a>(rest: &mut &'a [u8], size: usize) -> Option<&'a [u8]> {
    let (taken, behind) = rest.split_at_checked(size)?;
    *rest = behind;
    Some(taken)
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
             {UNCOMPRESSED_BYTES_MAX} are accepted"
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
/// that is stored uncompressed.
fn unpacked_size(buffer: &[u8]) -> Result<usize, String> {
    let prefix = buffer.first_chunk::<PREFIX>().ok_or("the Arrow IPC stream ends early")?;
    match i64::from_le_bytes(*prefix) {
        -1 => Ok(0),
        claimed => usize::try_from(claimed).map_err(|_source| {
            format!("a buffer of the Arrow IPC stream claims {claimed} bytes uncompressed")
        }),
    }
}
