//! [`Encoder`]: one growing buffer, and the places where large byte strings are spliced in.

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::{Error, Result};
use crate::protocol::schema::{Tags, VALUE};
use crate::types::Chunk;

/// Byte strings from this length on are spliced; copying shorter ones costs less than writing
/// another piece.
pub const SPLICE_MIN_BYTES: usize = 1024;

/// Collects an outgoing message as pieces for a vectored write.
#[derive(Debug, Default)]
pub struct Encoder {
    buffer: BytesMut,
    /// Byte strings, each with the position in `buffer` before which it belongs; ascending.
    splices: Vec<(usize, Chunk)>,
    spliced_bytes: usize,
}

impl Encoder {
    /// An empty encoder.
    pub fn new() -> Self {
        Self::default()
    }

    /// An encoder that leaves room for a frame's length; see [`Encoder::finish_frame`].
    pub(crate) fn for_frame() -> Self {
        let mut encoder = Self { buffer: BytesMut::with_capacity(256), ..Self::default() };
        encoder.put_i32(0);
        encoder
    }

    /// The number of bytes so far.
    pub fn len(&self) -> usize {
        self.buffer.len().saturating_add(self.spliced_bytes)
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes a truth value.
    pub fn put_bool(&mut self, value: bool) {
        self.buffer.put_u8(u8::from(value));
    }

    /// Writes an 8-bit integer.
    pub fn put_i8(&mut self, value: i8) {
        self.buffer.put_i8(value);
    }

    /// Writes a 16-bit integer.
    pub fn put_i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    /// Writes an unsigned 16-bit integer.
    pub fn put_u16(&mut self, value: u16) {
        self.buffer.put_u16(value);
    }

    /// Writes a 32-bit integer.
    pub fn put_i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    /// Writes an unsigned 32-bit integer.
    pub fn put_u32(&mut self, value: u32) {
        self.buffer.put_u32(value);
    }

    /// Writes a 64-bit integer.
    pub fn put_i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// Writes a floating-point number.
    pub fn put_f64(&mut self, value: f64) {
        self.buffer.put_f64(value);
    }

    /// Writes bytes as they are.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    /// Writes bytes as they are; without a copy when there are many.
    pub fn put_bytes(&mut self, bytes: &Bytes) {
        if bytes.len() < SPLICE_MIN_BYTES {
            self.buffer.put_slice(bytes);
        } else {
            self.splice(bytes.clone().into());
        }
    }

    /// Writes bytes as they are; when there are many, without a copy and with their location in a
    /// file.
    pub(crate) fn put_chunk(&mut self, chunk: &Chunk) {
        if chunk.len() < SPLICE_MIN_BYTES {
            self.buffer.put_slice(chunk);
        } else {
            self.splice(chunk.clone());
        }
    }

    fn splice(&mut self, chunk: Chunk) {
        self.spliced_bytes = self.spliced_bytes.saturating_add(chunk.len());
        self.splices.push((self.buffer.len(), chunk));
    }

    /// Writes an unsigned integer in groups of seven bits, least significant first.
    pub fn put_unsigned_varint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.buffer.put_u8(u8::try_from(value & 0x7f).unwrap_or_default() | 0x80);
            value >>= 7;
        }
        self.buffer.put_u8(u8::try_from(value).unwrap_or_default());
    }

    /// Writes the length of a string: 16 bits, or compact.
    pub(crate) fn put_string_length(&mut self, length: Option<usize>, compact: bool) -> Result<()> {
        let length = match length {
            Some(length) => i16::try_from(length)
                .map_err(|_cause| Error::malformed(VALUE, format!("a string of {length} bytes")))?,
            None => -1,
        };
        if compact {
            self.put_compact_length(i32::from(length));
        } else {
            self.put_i16(length);
        }
        Ok(())
    }

    /// Writes the length of bytes, or the count of an array: 32 bits, or compact.
    pub(crate) fn put_length(&mut self, length: Option<usize>, compact: bool) -> Result<()> {
        let length = match length {
            Some(length) => i32::try_from(length)
                .ok()
                .filter(|&length| length < i32::MAX)
                .ok_or_else(|| Error::malformed(VALUE, format!("a length of {length}")))?,
            None => -1,
        };
        if compact {
            self.put_compact_length(length);
        } else {
            self.put_i32(length);
        }
        Ok(())
    }

    /// One more than the length, so that null is 0.
    fn put_compact_length(&mut self, length: i32) {
        self.put_unsigned_varint(length.saturating_add(1).unsigned_abs());
    }

    /// Writes the section of tagged fields that ends a structure of a flexible version.
    pub(crate) fn put_tags(&mut self, mut tags: Tags, flexible: bool) -> Result<()> {
        if !flexible {
            return Ok(());
        }
        tags.sort_by_key(|(tag, _)| *tag);
        let count = u32::try_from(tags.len());
        self.put_unsigned_varint(
            count.map_err(|_cause| Error::malformed("tagged fields", "too many"))?,
        );
        for (tag, field) in tags {
            let length = u32::try_from(field.len()).map_err(|_cause| {
                Error::malformed("tagged field", format!("tag {tag} is too long"))
            })?;
            self.put_unsigned_varint(tag);
            self.put_unsigned_varint(length);
            self.append(field);
        }
        Ok(())
    }

    fn append(&mut self, other: Self) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&other.buffer);
        let moved = other.splices.into_iter();
        self.splices.extend(moved.map(|(place, bytes)| (start.saturating_add(place), bytes)));
        self.spliced_bytes = self.spliced_bytes.saturating_add(other.spliced_bytes);
    }

    /// The message as consecutive pieces.
    pub fn finish(self) -> Vec<Chunk> {
        let mut buffer = self.buffer.freeze();
        if self.splices.is_empty() {
            return vec![buffer.into()];
        }
        let mut pieces = Vec::with_capacity(self.splices.len().saturating_mul(2).saturating_add(1));
        let mut taken = 0_usize;
        for (place, bytes) in self.splices {
            let between = buffer.split_to(place.saturating_sub(taken).min(buffer.len()));
            taken = place;
            if !between.is_empty() {
                pieces.push(between.into());
            }
            pieces.push(bytes);
        }
        if !buffer.is_empty() {
            pieces.push(buffer.into());
        }
        pieces
    }

    /// The message in one piece; copies only what was spliced.
    pub fn finish_joined(self) -> Bytes {
        if self.splices.is_empty() {
            return self.buffer.freeze();
        }
        let mut joined = BytesMut::with_capacity(self.len());
        for piece in self.finish() {
            joined.extend_from_slice(&piece);
        }
        joined.freeze()
    }

    /// Fills in the length at the start and returns the pieces of the frame.
    pub(crate) fn finish_frame(mut self) -> Result<Vec<Chunk>> {
        let length = self.len().saturating_sub(size_of::<i32>());
        let length = i32::try_from(length)
            .map_err(|_cause| Error::malformed("frame", format!("{length} bytes are too many")))?;
        if let Some(prefix) = self.buffer.first_chunk_mut() {
            *prefix = length.to_be_bytes();
        }
        Ok(self.finish())
    }
}
