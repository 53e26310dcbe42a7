//! Writing batches: records are appended, then the batch is sealed once.
//!
//! Space for the header is reserved in front of the records, so an uncompressed batch is sealed
//! without a copy.

use bytes::Bytes;

use crate::error::{Error, ErrorCode, Result};
use crate::record::batch::Header;
use crate::record::compression::{Compression, compress};
use crate::record::header::{Attributes, BatchHeader, HEADER_SIZE, TimestampType, renew_crc};
use crate::record::walk::{put_varint, varint_size};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// What goes into a batch besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// The offset of the first record; producers write 0 and the leader replaces it.
    pub base_offset: Offset,
    /// The epoch of the leader; producers write -1 and the leader replaces it.
    pub leader_epoch: LeaderEpoch,
    /// How to compress.
    pub compression: Compression,
    /// The codec's level; its default when none.
    pub level: Option<i32>,
    /// The producer; -1 for one that is not idempotent.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record.
    pub base_sequence: Sequence,
    /// Whether the batch belongs to a transaction.
    pub transactional: bool,
    /// Whether the batch holds control records.
    pub control: bool,
    /// Gives every record this time, as a broker does under `LogAppendTime`.
    pub log_append_time: Option<TimestampMs>,
    /// From when compaction may drop the batch's tombstones.
    pub delete_horizon: Option<TimestampMs>,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            base_offset: Offset::ZERO,
            leader_epoch: LeaderEpoch::UNKNOWN,
            compression: Compression::None,
            level: None,
            producer_id: ProducerId::NONE,
            producer_epoch: ProducerEpoch::NONE,
            base_sequence: Sequence::NONE,
            transactional: false,
            control: false,
            log_append_time: None,
            delete_horizon: None,
        }
    }
}

/// Writes one batch.
#[derive(Clone, Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    /// An empty header, then the uncompressed records.
    buffer: Vec<u8>,
    record_count: i32,
    last_offset_delta: i32,
    base_timestamp: Option<i64>,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// An empty batch.
    #[must_use]
    pub fn new(options: BatchOptions) -> Self {
        Self::with_capacity(options, 0)
    }

    /// An empty batch with room for `capacity` bytes of records.
    #[must_use]
    pub fn with_capacity(options: BatchOptions, capacity: usize) -> Self {
        let mut buffer = Vec::with_capacity(capacity.saturating_add(HEADER_SIZE));
        buffer.resize(HEADER_SIZE, 0);
        Self {
            options,
            buffer,
            record_count: 0,
            last_offset_delta: -1,
            base_timestamp: options.delete_horizon.map(|horizon| horizon.0),
            max_timestamp: TimestampMs::NONE.0,
        }
    }

    /// Appends a record at the next offset.
    ///
    /// # Errors
    /// `MESSAGE_TOO_LARGE` when the record, or the batch with it, is larger than an i32 can
    /// express.
    #[inline]
    pub fn append(
        &mut self,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<()> {
        let delta = self.last_offset_delta.checked_add(1).ok_or_else(too_large)?;
        self.append_delta(delta, timestamp, key, value, headers)
    }

    /// Appends a record at an offset after the last one, as compaction does.
    ///
    /// # Errors
    /// As [`BatchBuilder::append`], and an invalid argument for an offset that is not after the
    /// last one.
    pub fn append_at(
        &mut self,
        offset: Offset,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<()> {
        let delta = offset.0.checked_sub(self.options.base_offset.0);
        let delta = delta.and_then(|delta| i32::try_from(delta).ok());
        match delta {
            Some(delta) if delta > self.last_offset_delta => {
                self.append_delta(delta, timestamp, key, value, headers)
            }
            _ => Err(Error::invalid(format!(
                "offset {offset} does not fit after the last one of a batch from {}",
                self.options.base_offset
            ))),
        }
    }

    #[inline]
    fn append_delta(
        &mut self,
        offset_delta: i32,
        timestamp: TimestampMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) -> Result<()> {
        let base = self.base_timestamp.unwrap_or(timestamp.0);
        let deltas = (timestamp.0.wrapping_sub(base), offset_delta);
        put_record(&mut self.buffer, deltas, key, value, headers)?;
        self.base_timestamp = Some(base);
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
        self.last_offset_delta = offset_delta;
        self.record_count = self.record_count.saturating_add(1);
        Ok(())
    }

    /// The number of records.
    #[must_use]
    pub const fn record_count(&self) -> i32 {
        self.record_count
    }

    /// Whether there is no record yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.record_count == 0
    }

    /// The size of the batch if it were sealed now without compression: an upper bound of its
    /// size for records that compress at all.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Sets the producer state; idempotent producers know it only when the batch is sent.
    pub fn set_producer(&mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: Sequence) {
        self.options.producer_id = id;
        self.options.producer_epoch = epoch;
        self.options.base_sequence = base_sequence;
    }

    /// Keeps offsets up to `last` in the batch although their records are gone (compaction).
    ///
    /// # Errors
    /// An invalid argument when `last` is before the last record or does not fit the batch.
    pub fn extend_to(&mut self, last: Offset) -> Result<()> {
        let delta = last.0.checked_sub(self.options.base_offset.0);
        match delta.and_then(|delta| i32::try_from(delta).ok()) {
            Some(delta) if delta >= self.last_offset_delta => {
                self.last_offset_delta = delta;
                Ok(())
            }
            _ => Err(Error::invalid(format!("a batch cannot be extended to offset {last}"))),
        }
    }

    /// Raises the batch's largest timestamp to at least this: compaction keeps that of removed
    /// records.
    pub fn raise_max_timestamp(&mut self, timestamp: TimestampMs) {
        self.max_timestamp = self.max_timestamp.max(timestamp.0);
    }

    /// Seals the batch.
    ///
    /// # Errors
    /// An invalid argument for a compression level that the codec does not have.
    pub fn finish(self) -> Result<Bytes> {
        let options = self.options;
        let mut bytes = self.buffer;
        // An empty batch (kept by compaction for its producer state) has nothing to compress.
        let compression =
            if self.record_count == 0 { Compression::None } else { options.compression };
        if compression != Compression::None {
            let mut packed = Vec::with_capacity(bytes.len() / 2);
            packed.resize(HEADER_SIZE, 0);
            let records = bytes.get(HEADER_SIZE..).unwrap_or_default();
            compress(compression, options.level, records, &mut packed)?;
            bytes = packed;
        }
        if i32::try_from(bytes.len()).is_err() {
            return Err(too_large());
        }
        let timestamp_type = match options.log_append_time {
            Some(_) => TimestampType::LogAppendTime,
            None => TimestampType::CreateTime,
        };
        let header = BatchHeader {
            base_offset: options.base_offset,
            size_bytes: bytes.len(),
            leader_epoch: options.leader_epoch,
            crc: 0,
            attributes: Attributes::default()
                .with_compression(compression)
                .with_timestamp_type(timestamp_type)
                .with_transactional(options.transactional)
                .with_control(options.control)
                .with_delete_horizon(options.delete_horizon.is_some()),
            compression,
            last_offset_delta: self.last_offset_delta.max(0),
            base_timestamp: TimestampMs(self.base_timestamp.unwrap_or(TimestampMs::NONE.0)),
            max_timestamp: options.log_append_time.unwrap_or(TimestampMs(self.max_timestamp)),
            producer_id: options.producer_id,
            producer_epoch: options.producer_epoch,
            base_sequence: options.base_sequence,
            record_count: self.record_count,
        };
        if let Some(fixed) = bytes.first_chunk_mut::<HEADER_SIZE>() {
            header.write(fixed);
        }
        renew_crc(&mut bytes)?;
        Ok(Bytes::from(bytes))
    }
}

/// Appends a record, given by its distances from the base timestamp and the base offset, in the shortest encoding.
#[inline]
pub(super) fn put_record(
    buffer: &mut Vec<u8>,
    (timestamp_delta, offset_delta): (i64, i32),
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
) -> Result<()> {
    let offset_delta_wide = i64::from(offset_delta);
    let body = 1_usize
        .saturating_add(varint_size(timestamp_delta))
        .saturating_add(varint_size(offset_delta_wide))
        .saturating_add(nullable_size(key))
        .saturating_add(nullable_size(value))
        .saturating_add(headers_size(headers));
    let total = buffer.len().saturating_add(body).saturating_add(5);
    if i32::try_from(total).is_err() {
        return Err(too_large());
    }
    buffer.reserve(body.saturating_add(5).saturating_add(HEAD_MAX));
    let mut head = Head { bytes: [0; HEAD_MAX], size: 0 };
    head.put_varint(body as i64);
    head.put(0);
    head.put_varint(timestamp_delta);
    head.put_varint(offset_delta_wide);
    head.put_varint(key.map_or(-1, |key| key.len() as i64));
    head.append_to(buffer);
    buffer.extend_from_slice(key.unwrap_or_default());
    put_nullable(buffer, value);
    put_varint(buffer, headers.len() as i64);
    for header in headers {
        put_varint(buffer, header.key.len() as i64);
        buffer.extend_from_slice(header.key);
        put_nullable(buffer, header.value);
    }
    Ok(())
}

/// The most that a record of these sizes can occupy in a batch, for a producer that must decide
/// before it appends. `headers` is the sum of the sizes of all header keys and values.
#[must_use]
pub const fn record_size_upper_bound(
    key: usize,
    value: usize,
    headers: usize,
    header_count: usize,
) -> usize {
    // Length, attributes, timestamp delta, offset delta, key and value length, header count.
    const FIXED_MAX: usize = 5 + 1 + 10 + 5 + 5 + 5 + 5;
    FIXED_MAX
        .saturating_add(key)
        .saturating_add(value)
        .saturating_add(headers)
        .saturating_add(header_count.saturating_mul(10))
}

/// Room for the numbers in front of a key: 5 + 1 + 10 + 5 + 5 bytes, and a power of two.
const HEAD_MAX: usize = 32;

/// The numbers in front of a key, gathered so that the buffer grows once and by a fixed size.
struct Head {
    bytes: [u8; HEAD_MAX],
    size: usize,
}

impl Head {
    #[inline]
    fn put(&mut self, byte: u8) {
        // The mask changes nothing (26 bytes at most) and saves the check of the bound.
        if let Some(slot) = self.bytes.get_mut(self.size % HEAD_MAX) {
            *slot = byte;
        }
        self.size = self.size.wrapping_add(1);
    }

    #[inline]
    fn put_varint(&mut self, value: i64) {
        let mut raw = (value.wrapping_shl(1) ^ (value >> 63)) as u64;
        while raw >= 0x80 {
            self.put((raw as u8) | 0x80);
            raw >>= 7;
        }
        self.put(raw as u8);
    }

    #[inline]
    fn append_to(&self, output: &mut Vec<u8>) {
        let end = output.len().saturating_add(self.size);
        output.extend_from_slice(&self.bytes);
        output.truncate(end);
    }
}

#[cold]
fn too_large() -> Error {
    Error::kafka(ErrorCode::MessageTooLarge, "a record batch cannot be larger than 2 GiB")
}

#[inline]
fn nullable_size(field: Option<&[u8]>) -> usize {
    match field {
        None => 1,
        Some(bytes) => varint_size(bytes.len() as i64).saturating_add(bytes.len()),
    }
}

#[inline]
fn put_nullable(output: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => put_varint(output, -1),
        Some(bytes) => {
            put_varint(output, bytes.len() as i64);
            output.extend_from_slice(bytes);
        }
    }
}

#[inline]
fn headers_size(headers: &[Header<'_>]) -> usize {
    let count = varint_size(headers.len() as i64);
    headers.iter().fold(count, |sum, header| {
        sum.saturating_add(varint_size(header.key.len() as i64))
            .saturating_add(header.key.len())
            .saturating_add(nullable_size(header.value))
    })
}
