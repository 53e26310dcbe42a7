//! [`Decoder`]: a cursor over received bytes that trusts no length.

use bytes::{Buf, Bytes};

use crate::error::{Error, Result};
use crate::protocol::primitives::{STRING_MAX_BYTES, Str};
use crate::protocol::schema::VALUE;

/// How many bytes of collections may be allocated per byte of a frame.
///
/// A list of empty strings takes 32, which nobody needs; among honest messages, a list of topics
/// with one-letter names takes the most, at about 20.
pub const BUDGET_FACTOR: usize = 32;

/// What may be allocated on top of [`BUDGET_FACTOR`], so that tiny frames need no special
/// treatment.
pub const BUDGET_BASE_BYTES: usize = 16 * 1024;

/// Reads values from the front of a byte string.
#[derive(Clone, Debug)]
pub struct Decoder {
    bytes: Bytes,
    /// What collections may still take; see [`BUDGET_FACTOR`].
    budget_bytes: usize,
}

/// Declares a reader for a fixed-size number.
macro_rules! fixed {
    ($(#[$doc:meta])* $name:ident, $read:ident, $type:ty) => {
        $(#[$doc])*
        ///
        /// # Errors
        ///
        /// When too few bytes remain.
        pub fn $name(&mut self) -> Result<$type> {
            self.bytes.$read().map_err(|_cause| self.too_short(size_of::<$type>()))
        }
    };
}

impl Decoder {
    /// A decoder of a whole frame.
    pub fn new(bytes: Bytes) -> Self {
        let budget_bytes =
            bytes.len().saturating_mul(BUDGET_FACTOR).saturating_add(BUDGET_BASE_BYTES);
        Self { bytes, budget_bytes }
    }

    /// How many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    /// Whether all bytes were read.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes that are left.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    fixed!(
        /// Reads an 8-bit integer.
        get_i8, try_get_i8, i8
    );
    fixed!(
        /// Reads an unsigned 8-bit integer.
        get_u8, try_get_u8, u8
    );
    fixed!(
        /// Reads a 16-bit integer.
        get_i16, try_get_i16, i16
    );
    fixed!(
        /// Reads an unsigned 16-bit integer.
        get_u16, try_get_u16, u16
    );
    fixed!(
        /// Reads a 32-bit integer.
        get_i32, try_get_i32, i32
    );
    fixed!(
        /// Reads an unsigned 32-bit integer.
        get_u32, try_get_u32, u32
    );
    fixed!(
        /// Reads a 64-bit integer.
        get_i64, try_get_i64, i64
    );
    fixed!(
        /// Reads a floating-point number.
        get_f64, try_get_f64, f64
    );

    /// Reads a truth value; as Kafka does, every byte but 0 is true.
    ///
    /// # Errors
    ///
    /// When no byte remains.
    pub fn get_bool(&mut self) -> Result<bool> {
        Ok(self.get_i8()? != 0)
    }

    /// Reads sixteen bytes.
    pub(crate) fn get_16_bytes(&mut self) -> Result<[u8; 16]> {
        let mut bytes = [0; 16];
        self.bytes.try_copy_to_slice(&mut bytes).map_err(|_cause| self.too_short(16))?;
        Ok(bytes)
    }

    /// Reads an unsigned integer in groups of seven bits, least significant first.
    ///
    /// # Errors
    ///
    /// When the bytes end before the integer, or when it needs more than 32 bits.
    pub fn get_unsigned_varint(&mut self) -> Result<u32> {
        let mut value = 0_u32;
        for place in 0..5_u32 {
            let byte = self.get_u8()?;
            let bits = u32::from(byte & 0x7f);
            if place == 4 && bits > 0x0f {
                break;
            }
            value |= bits << place.saturating_mul(7);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::malformed(VALUE, "a varint of more than 32 bits"))
    }

    /// Takes the next `length` bytes as a slice of the frame.
    ///
    /// # Errors
    ///
    /// When too few bytes remain.
    pub fn take(&mut self, length: usize) -> Result<Bytes> {
        if length > self.bytes.len() {
            return Err(self.too_short(length));
        }
        Ok(self.bytes.split_to(length))
    }

    /// Reads a string preceded by its 16-bit or compact length; `None` is null.
    ///
    /// # Errors
    ///
    /// When the length is impossible or the bytes are not UTF-8.
    pub(crate) fn get_string(&mut self, compact: bool) -> Result<Option<Str>> {
        let length = if compact {
            self.get_compact_length()?
        } else {
            length_or_null(i32::from(self.get_i16()?))?
        };
        let Some(length) = length else {
            return Ok(None);
        };
        if length > STRING_MAX_BYTES {
            return Err(Error::malformed(VALUE, format!("a string of {length} bytes")));
        }
        let text = Str::from_utf8(self.take(length)?);
        text.map(Some).ok_or_else(|| Error::malformed(VALUE, "text that is not UTF-8"))
    }

    /// Reads the 32-bit or compact length of bytes, or the count of an array; `None` is null.
    pub(crate) fn get_length(&mut self, compact: bool) -> Result<Option<usize>> {
        if compact { self.get_compact_length() } else { length_or_null(self.get_i32()?) }
    }

    fn get_compact_length(&mut self) -> Result<Option<usize>> {
        match self.get_unsigned_varint()?.checked_sub(1) {
            None => Ok(None),
            Some(length) => {
                let length = i32::try_from(length)
                    .map_err(|_cause| Error::malformed(VALUE, format!("a length of {length}")))?;
                length_or_null(length)
            }
        }
    }

    /// Reads bytes preceded by their length; `None` is null.
    pub(crate) fn get_bytes(&mut self, compact: bool) -> Result<Option<Bytes>> {
        match self.get_length(compact)? {
            None => Ok(None),
            Some(length) => self.take(length).map(Some),
        }
    }

    /// Reads the count of an array whose elements take at least `min_bytes` on the wire and
    /// `element_bytes` in memory, and charges the budget for them; `None` is null.
    pub(crate) fn get_count(
        &mut self,
        compact: bool,
        min_bytes: usize,
        element_bytes: usize,
    ) -> Result<Option<usize>> {
        let Some(count) = self.get_length(compact)? else {
            return Ok(None);
        };
        if count.saturating_mul(min_bytes) > self.bytes.len() {
            let remaining = self.bytes.len();
            let detail = format!("{count} elements announced, {remaining} bytes left");
            return Err(Error::malformed(VALUE, detail));
        }
        let cost = count.saturating_mul(element_bytes);
        self.budget_bytes = self.budget_bytes.checked_sub(cost).ok_or_else(|| {
            Error::malformed(VALUE, format!("{count} elements out of proportion to the frame"))
        })?;
        Ok(Some(count))
    }

    /// Reads the tagged fields that end a structure; `known` reads the ones it knows and says
    /// so; the others are skipped.
    pub(crate) fn tags(
        &mut self,
        known: &mut dyn FnMut(u32, &mut Self) -> Result<bool>,
    ) -> Result<()> {
        let count = self.get_unsigned_varint()?;
        for _ in 0..count {
            let tag = self.get_unsigned_varint()?;
            let length = self.get_unsigned_varint()?;
            let field = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
            let rest = std::mem::replace(&mut self.bytes, field);
            let read = known(tag, self)?;
            if read && !self.bytes.is_empty() {
                let detail = format!("tag {tag} is {} bytes too long", self.bytes.len());
                return Err(Error::malformed("tagged field", detail));
            }
            self.bytes = rest;
        }
        Ok(())
    }

    fn too_short(&self, wanted: usize) -> Error {
        Error::malformed(VALUE, format!("{wanted} bytes wanted, {} left", self.bytes.len()))
    }
}

/// -1 is null; other negative lengths are refused.
fn length_or_null(length: i32) -> Result<Option<usize>> {
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length);
    length.map(Some).map_err(|_cause| Error::malformed(VALUE, "a negative length"))
}
