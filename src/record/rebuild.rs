//! Putting a stored batch back together: its header is known, its records come one by one.
//!
//! A [`super::BatchBuilder`] derives the header from the records. Here it is the other way round: the header says what
//! they are counted from, so that a batch comes back as it was written, to the byte if its records were in the
//! shortest encoding.

use bytes::Bytes;

use super::batch::Header;
use super::builder::put_record;
use super::compression::Compression;
use super::header::{BatchHeader, HEADER_SIZE, renew_crc};
use crate::error::Result;

/// The uncompressed records of a batch whose header is known.
#[derive(Clone, Debug)]
pub struct BatchRebuilder {
    /// An empty header, then the records.
    buffer: Vec<u8>,
}

impl BatchRebuilder {
    /// No records yet, and room for `capacity` bytes of them.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(capacity.saturating_add(HEADER_SIZE));
        buffer.resize(HEADER_SIZE, 0);
        Self { buffer }
    }

    /// Appends a record, given by its distances from the base timestamp and the base offset of the header.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` when the batch becomes larger than an i32 can express.
    pub fn append(
        &mut self,
        deltas: (i64, i32),
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<()> {
        put_record(&mut self.buffer, deltas, key, value, headers)
    }

    /// The records so far.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        self.buffer.get(HEADER_SIZE..).unwrap_or_default()
    }

    /// The batch with everything else from `header`: uncompressed, and with the size and the checksum that it then has.
    ///
    /// # Errors
    /// None that can occur.
    pub fn finish(mut self, header: &BatchHeader) -> Result<Bytes> {
        let header = BatchHeader {
            size_bytes: self.buffer.len(),
            attributes: header.attributes.with_compression(Compression::None),
            ..*header
        };
        if let Some(fixed) = self.buffer.first_chunk_mut::<HEADER_SIZE>() {
            header.write(fixed);
        }
        renew_crc(&mut self.buffer)?;
        Ok(Bytes::from(self.buffer))
    }
}
