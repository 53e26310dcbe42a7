//! A borrowed view of batches: splitting bytes into batches and batches into records.

use std::cell::RefCell;

use bytes::Bytes;

use crate::error::{Error, Result};
use crate::record::compression::{Codec, Compression, Scratch};
use crate::record::header::{BatchHeader, HEADER_SIZE, TimestampType, corrupt, invalid, peek_size};
use crate::record::walk::{RawRecord, WalkError, Walker, check_headers, header_at, part};
use crate::types::{Offset, TimestampMs};

/// One batch: its parsed header and its bytes.
#[derive(Clone, Debug)]
pub struct Batch {
    header: BatchHeader,
    bytes: Bytes,
}

impl Batch {
    /// Takes the batch at the start of `bytes`; anything after it is cut off without a copy.
    ///
    /// # Errors
    /// As [`BatchHeader::parse`], and `CORRUPT_MESSAGE` when the batch is incomplete.
    pub fn parse(bytes: &Bytes) -> Result<Self> {
        let header = BatchHeader::parse(bytes)?;
        if header.size_bytes > bytes.len() {
            return Err(corrupt(
                header.base_offset,
                format!("only {} of its {} bytes are present", bytes.len(), header.size_bytes),
            ));
        }
        Ok(Self { header, bytes: bytes.slice(..header.size_bytes) })
    }

    /// The header.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The whole batch.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The whole batch, giving up the view.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// The records as they are stored, compressed or not.
    #[must_use]
    fn stored_records(&self) -> Bytes {
        self.bytes.slice(HEADER_SIZE.min(self.bytes.len())..)
    }

    /// Compares the stored CRC-32C with that of the bytes.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` when they differ.
    pub fn verify_crc(&self) -> Result<()> {
        self.header.verify_crc(&self.bytes)
    }

    /// The records, decompressed where needed to at most `limit` bytes.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` when they do not decompress or are larger than `limit`.
    pub fn records(&self, limit: usize) -> Result<Records> {
        let data = self.uncompressed(limit)?;
        self.header.check_count(data.len())?;
        Ok(Records { header: self.header, data })
    }

    /// The records' bytes, decompressed where needed; otherwise without a copy.
    ///
    /// # Errors
    /// As [`Batch::records`].
    pub fn uncompressed(&self, limit: usize) -> Result<Bytes> {
        let stored = self.stored_records();
        if self.header.compression == Compression::None {
            return Ok(stored);
        }
        Codec::decompress(self.header.compression, &stored, limit)
            .map(Bytes::from)
            .map_err(|detail| corrupt(self.header.base_offset, detail))
    }

    /// Passes on the records' bytes, decompressed where needed into memory that the thread keeps.
    ///
    /// # Errors
    /// As [`Batch::records`], and those of `look`.
    pub(super) fn look_at_uncompressed<T>(
        &self,
        limit: usize,
        look: impl FnOnce(&[u8]) -> Result<T>,
    ) -> Result<T> {
        thread_local! {
            static SCRATCH: RefCell<Scratch> = RefCell::default();
        }
        let stored = self.stored_records();
        if self.header.compression == Compression::None {
            return look(&stored);
        }
        let packed = (self.header.compression, &*stored);
        SCRATCH.with_borrow_mut(|scratch| {
            scratch.with(packed, limit, |data| {
                look(data.map_err(|detail| corrupt(self.header.base_offset, detail))?)
            })
        })
    }
}

/// An incomplete batch at the end of some bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// Where it starts.
    pub position: usize,
    /// How many of its bytes are present.
    pub present: usize,
    /// Its size, if at least its length field is present.
    pub size_bytes: Option<usize>,
}

/// Splits bytes into batches without a copy.
///
/// A fetch response may end in a part of a batch, and so may a segment after a crash: the
/// iteration ends before it and [`Batches::truncated`] reports it. An impossible batch is an error,
/// after which the iteration is over.
#[derive(Clone, Debug)]
pub struct Batches {
    bytes: Bytes,
    position: usize,
    truncated: Option<Truncated>,
    failed: bool,
}

impl Batches {
    /// Starts at the first byte.
    #[must_use]
    pub const fn new(bytes: Bytes) -> Self {
        Self { bytes, position: 0, truncated: None, failed: false }
    }

    /// Where the next batch starts: the end of the last one that was returned.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.position
    }

    /// What is left after the last complete batch, once the iteration has ended.
    #[must_use]
    pub const fn truncated(&self) -> Option<Truncated> {
        self.truncated
    }

    fn read(&mut self) -> Result<Option<Batch>> {
        let rest = self.bytes.get(self.position..).unwrap_or_default();
        if rest.is_empty() {
            return Ok(None);
        }
        let size_bytes = peek_size(rest)?;
        match size_bytes {
            Some(size) if size <= rest.len() => {
                let batch = Batch::parse(&self.bytes.slice(self.position..))?;
                self.position = self.position.saturating_add(size);
                Ok(Some(batch))
            }
            _ => {
                let position = self.position;
                self.truncated = Some(Truncated { position, present: rest.len(), size_bytes });
                Ok(None)
            }
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed || self.truncated.is_some() {
            return None;
        }
        let next = self.read();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// The uncompressed records of one batch.
#[derive(Clone, Debug)]
pub struct Records {
    header: BatchHeader,
    data: Bytes,
}

impl Records {
    /// The header of the batch.
    #[must_use]
    pub const fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The uncompressed bytes that contain the records.
    #[must_use]
    pub const fn data(&self) -> &Bytes {
        &self.data
    }

    /// Iterates the records in order; ends after the first error.
    #[must_use]
    pub fn iter(&self) -> RecordsIter<'_> {
        RecordsIter {
            records: self,
            walker: Walker::new(&self.data),
            left: self.header.record_count,
            failed: false,
        }
    }
}

impl<'a> IntoIterator for &'a Records {
    type Item = Result<RecordView<'a>>;
    type IntoIter = RecordsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The iteration of [`Records`]: exactly as many as the header counts, or an error.
#[derive(Clone, Debug)]
pub struct RecordsIter<'a> {
    records: &'a Records,
    walker: Walker<'a>,
    left: i32,
    failed: bool,
}

impl<'a> RecordsIter<'a> {
    fn read(&mut self) -> Result<Option<RecordView<'a>>> {
        let header = &self.records.header;
        if self.left <= 0 {
            if self.walker.is_at_end() {
                return Ok(None);
            }
            let count = header.record_count;
            return Err(invalid(header.base_offset, format!("more bytes than {count} records")));
        }
        if self.walker.is_at_end() {
            let have = header.record_count.saturating_sub(self.left);
            let count = header.record_count;
            return Err(invalid(header.base_offset, format!("{have} records instead of {count}")));
        }
        let data: &'a [u8] = &self.records.data;
        let raw = self.walker.next_record().map_err(|error| self.broken(error))?;
        check_headers(data, &raw).map_err(|error| self.broken(error))?;
        self.left = self.left.saturating_sub(1);
        Ok(Some(RecordView::new(header, data, &raw)))
    }

    #[cold]
    fn broken(&self, error: WalkError) -> Error {
        broken_record(&self.records.header, self.walker.position(), error)
    }
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<RecordView<'a>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read();
        self.failed = next.is_err();
        next.transpose()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, usize::try_from(self.left).ok().map(|left| left.saturating_add(1)))
    }
}

pub(crate) fn broken_record(header: &BatchHeader, position: usize, error: WalkError) -> Error {
    invalid(header.base_offset, format!("at byte {position} of the records: {}", error.text()))
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    /// The offset.
    pub offset: Offset,
    /// The timestamp; the batch's when the broker set it.
    pub timestamp: TimestampMs,
    /// The key; none for a null key.
    pub key: Option<&'a [u8]>,
    /// The value; none for a null value, a tombstone.
    pub value: Option<&'a [u8]>,
    /// The headers in order, including duplicates.
    pub headers: Headers<'a>,
}

impl<'a> RecordView<'a> {
    fn new(header: &BatchHeader, data: &'a [u8], raw: &RawRecord) -> Self {
        let timestamp = match header.timestamp_type() {
            TimestampType::CreateTime => {
                TimestampMs(header.base_timestamp.0.wrapping_add(raw.timestamp_delta))
            }
            TimestampType::LogAppendTime => header.max_timestamp,
        };
        Self {
            offset: Offset(header.base_offset.0.wrapping_add(i64::from(raw.offset_delta))),
            timestamp,
            key: raw.key(data),
            value: raw.value(data),
            headers: Headers::of_raw(data, raw),
        }
    }
}

/// One record header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The key; Kafka's clients write UTF-8, but nobody checks.
    pub key: &'a [u8],
    /// The value; none for a null value.
    pub value: Option<&'a [u8]>,
}

/// The headers of one record: an iterator over them in order.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    data: &'a [u8],
    at: usize,
    end: usize,
    left: usize,
}

impl std::fmt::Debug for Headers<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(*self).finish()
    }
}

impl<'a> Headers<'a> {
    /// The headers of a raw record of `data`; the iteration ends early where they are malformed, so
    /// call [`super::check_headers`] first.
    #[must_use]
    pub fn of_raw(data: &'a [u8], raw: &RawRecord) -> Self {
        let left = usize::try_from(raw.header_count).unwrap_or(0);
        Self { data, at: raw.headers_at, end: raw.end, left }
    }

    /// The value of the last header with this key, as Kafka's `lastHeader`.
    #[must_use]
    pub fn last_with_key(&self, key: &[u8]) -> Option<Header<'a>> {
        (*self).filter(|header| header.key == key).last()
    }
}

#[expect(clippy::copy_iterator, reason = "a record view stays `Copy`; the state is four words")]
impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        if self.left == 0 {
            return None;
        }
        // The record's headers were walked before the record was returned.
        let raw = header_at(self.data, self.at, self.end).ok()?;
        self.left = self.left.saturating_sub(1);
        self.at = raw.end;
        let key_end = raw.key_at.saturating_add(raw.key_size);
        Some(Header {
            key: self.data.get(raw.key_at..key_end)?,
            value: part(self.data, raw.value_at, raw.value_size),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Headers<'_> {}
