//! The fixed 61 bytes at the start of a batch: parsing, writing and patching.

use crate::error::{Error, ErrorCode, Result};
use crate::record::compression::Compression;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

/// The size of a batch header.
pub const HEADER_SIZE: usize = 61;
/// Base offset and length: what is needed to know where a batch ends.
pub const LENGTH_PREFIX_SIZE: usize = 12;

/// The value of the batch length field of a batch without records.
const LENGTH_FIELD_MIN: i32 = 49;
const CURRENT_MAGIC: i8 = 2;
/// Length, attributes, two deltas, two field lengths and the header count, one byte each.
const RECORD_SIZE_MIN: usize = 7;

pub(super) const AT_BASE_OFFSET: usize = 0;
pub(super) const AT_LENGTH: usize = 8;
pub(super) const AT_LEADER_EPOCH: usize = 12;
pub(super) const AT_MAGIC: usize = 16;
pub(super) const AT_CRC: usize = 17;
pub(super) const AT_ATTRIBUTES: usize = 21;
pub(super) const AT_LAST_OFFSET_DELTA: usize = 23;
pub(super) const AT_BASE_TIMESTAMP: usize = 27;
pub(super) const AT_MAX_TIMESTAMP: usize = 35;
pub(super) const AT_PRODUCER_ID: usize = 43;
pub(super) const AT_PRODUCER_EPOCH: usize = 51;
pub(super) const AT_BASE_SEQUENCE: usize = 53;
pub(super) const AT_RECORD_COUNT: usize = 57;

/// What the timestamps of a batch mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TimestampType {
    /// The producer set them.
    #[default]
    CreateTime,
    /// The broker set one for the whole batch when it appended it.
    LogAppendTime,
}

impl TimestampType {
    /// Kafka's name, as in `message.timestamp.type`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::CreateTime => "CreateTime",
            Self::LogAppendTime => "LogAppendTime",
        }
    }
}

/// The attribute bits of a batch.
///
/// ```text
/// bit   15 … 7   6               5        4              3               2 1 0
///       unused   delete horizon  control  transactional  timestamp type  compression
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes(pub i16);

impl Attributes {
    const COMPRESSION: i16 = 0b111;
    const LOG_APPEND_TIME: i16 = 1 << 3;
    const TRANSACTIONAL: i16 = 1 << 4;
    const CONTROL: i16 = 1 << 5;
    const DELETE_HORIZON: i16 = 1 << 6;

    /// How the records are compressed.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` for a codec number that does not exist.
    pub fn compression(self) -> Result<Compression> {
        Compression::from_id(self.0 & Self::COMPRESSION)
    }

    /// What the timestamps mean.
    #[must_use]
    pub const fn timestamp_type(self) -> TimestampType {
        if self.0 & Self::LOG_APPEND_TIME == 0 {
            TimestampType::CreateTime
        } else {
            TimestampType::LogAppendTime
        }
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(self) -> bool {
        self.0 & Self::TRANSACTIONAL != 0
    }

    /// Whether the batch holds control records, which no consumer is shown.
    #[must_use]
    pub const fn is_control(self) -> bool {
        self.0 & Self::CONTROL != 0
    }

    /// Whether the base timestamp is the time from which compaction may drop the tombstones.
    #[must_use]
    pub const fn has_delete_horizon(self) -> bool {
        self.0 & Self::DELETE_HORIZON != 0
    }

    /// These attributes with another codec.
    #[must_use]
    pub const fn with_compression(self, compression: Compression) -> Self {
        Self((self.0 & !Self::COMPRESSION) | compression.id())
    }

    /// These attributes with another timestamp type.
    #[must_use]
    pub const fn with_timestamp_type(self, timestamp_type: TimestampType) -> Self {
        match timestamp_type {
            TimestampType::CreateTime => Self(self.0 & !Self::LOG_APPEND_TIME),
            TimestampType::LogAppendTime => Self(self.0 | Self::LOG_APPEND_TIME),
        }
    }

    /// These attributes with the transactional bit set or cleared.
    #[must_use]
    pub const fn with_transactional(self, set: bool) -> Self {
        self.with_bit(Self::TRANSACTIONAL, set)
    }

    /// These attributes with the control bit set or cleared.
    #[must_use]
    pub const fn with_control(self, set: bool) -> Self {
        self.with_bit(Self::CONTROL, set)
    }

    /// These attributes with the delete-horizon bit set or cleared.
    #[must_use]
    pub const fn with_delete_horizon(self, set: bool) -> Self {
        self.with_bit(Self::DELETE_HORIZON, set)
    }

    const fn with_bit(self, bit: i16, set: bool) -> Self {
        if set { Self(self.0 | bit) } else { Self(self.0 & !bit) }
    }
}

/// The parsed header of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// The offset of the first record the batch was written with (compaction may have removed
    /// that record since).
    pub base_offset: Offset,
    /// The size of the whole batch with its header.
    pub size_bytes: usize,
    /// The epoch of the leader that appended the batch; -1 when a producer wrote it.
    pub leader_epoch: LeaderEpoch,
    /// The stored CRC-32C; see [`super::Batch::verify_crc`].
    pub crc: u32,
    /// The attribute bits.
    pub attributes: Attributes,
    /// How the records are compressed.
    pub compression: Compression,
    /// The distance from the base offset to the last offset that the batch covers.
    pub last_offset_delta: i32,
    /// The timestamp that record deltas count from, or the delete horizon.
    pub base_timestamp: TimestampMs,
    /// The largest timestamp of the records, or the log append time.
    pub max_timestamp: TimestampMs,
    /// The producer; -1 for one that is not idempotent.
    pub producer_id: ProducerId,
    /// The producer's epoch; -1 for one that is not idempotent.
    pub producer_epoch: ProducerEpoch,
    /// The sequence of the first record; -1 for a producer that is not idempotent.
    pub base_sequence: Sequence,
    /// The number of records in the batch.
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which need not hold the records.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` for impossible lengths, counts or a codec, or fewer than
    /// [`HEADER_SIZE`] bytes; `UNSUPPORTED_FOR_MESSAGE_FORMAT` for magic 0 and 1.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let base_offset = peek_base_offset(bytes);
        if let Some(&magic) = bytes.get(AT_MAGIC) {
            check_magic(i8::from_be_bytes([magic]), base_offset)?;
        }
        let Some(fixed) = bytes.first_chunk::<HEADER_SIZE>() else {
            return Err(corrupt(
                base_offset,
                format!("{} bytes are fewer than a batch header of {HEADER_SIZE}", bytes.len()),
            ));
        };
        let size_bytes = whole_size(length_field(fixed), base_offset)?;
        let attributes = Attributes(i16::from_be_bytes(field(fixed, AT_ATTRIBUTES)));
        let header = Self {
            base_offset,
            size_bytes,
            leader_epoch: LeaderEpoch(i32::from_be_bytes(field(fixed, AT_LEADER_EPOCH))),
            crc: u32::from_be_bytes(field(fixed, AT_CRC)),
            attributes,
            compression: attributes
                .compression()
                .map_err(|error| corrupt(base_offset, error.to_string()))?,
            last_offset_delta: i32::from_be_bytes(field(fixed, AT_LAST_OFFSET_DELTA)),
            base_timestamp: TimestampMs(i64::from_be_bytes(field(fixed, AT_BASE_TIMESTAMP))),
            max_timestamp: TimestampMs(i64::from_be_bytes(field(fixed, AT_MAX_TIMESTAMP))),
            producer_id: ProducerId(i64::from_be_bytes(field(fixed, AT_PRODUCER_ID))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(fixed, AT_PRODUCER_EPOCH))),
            base_sequence: Sequence(i32::from_be_bytes(field(fixed, AT_BASE_SEQUENCE))),
            record_count: i32::from_be_bytes(field(fixed, AT_RECORD_COUNT)),
        };
        header.check()?;
        Ok(header)
    }

    fn check(&self) -> Result<()> {
        if self.record_count < 0 {
            return Err(corrupt(
                self.base_offset,
                format!("record count {} is negative", self.record_count),
            ));
        }
        if self.last_offset_delta < 0 {
            return Err(corrupt(
                self.base_offset,
                format!("last offset delta {} is negative", self.last_offset_delta),
            ));
        }
        if self.base_offset.0.checked_add(i64::from(self.last_offset_delta)).is_none() {
            return Err(corrupt(
                self.base_offset,
                format!(
                    "last offset delta {} goes beyond the largest offset",
                    self.last_offset_delta
                ),
            ));
        }
        Ok(())
    }

    /// Compares the stored CRC-32C with that of the whole batch in `bytes`.
    ///
    /// # Errors
    /// `CORRUPT_MESSAGE` when they differ.
    pub fn verify_crc(&self, bytes: &[u8]) -> Result<()> {
        let computed = crc32c::crc32c(bytes.get(AT_ATTRIBUTES..).unwrap_or_default());
        if computed == self.crc {
            return Ok(());
        }
        Err(corrupt(
            self.base_offset,
            format!("the checksum is {computed:#010x}, but {:#010x} is stored", self.crc),
        ))
    }

    /// RB-2: refuses a record count that `size` bytes cannot hold, before anyone allocates memory.
    ///
    /// # Errors
    /// `INVALID_RECORD` when they cannot.
    pub fn check_count(&self, size: usize) -> Result<()> {
        let count = usize::try_from(self.record_count).unwrap_or(usize::MAX);
        if count > size / RECORD_SIZE_MIN {
            return Err(invalid(
                self.base_offset,
                format!("{size} bytes cannot hold {count} records"),
            ));
        }
        Ok(())
    }

    /// The last offset that the batch covers.
    #[must_use]
    pub const fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.saturating_add(self.last_offset_delta as i64))
    }

    /// The offset after the batch.
    #[must_use]
    pub const fn next_offset(&self) -> Offset {
        Offset(self.last_offset().0.saturating_add(1))
    }

    /// What the timestamps mean.
    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        self.attributes.timestamp_type()
    }

    /// Whether the batch belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes.is_transactional()
    }

    /// Whether the batch holds control records.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes.is_control()
    }

    /// Whether an idempotent producer wrote the batch.
    #[must_use]
    pub const fn has_producer_id(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// The sequence of the last record; -1 for a producer that is not idempotent.
    #[must_use]
    pub fn last_sequence(&self) -> Sequence {
        if self.base_sequence == Sequence::NONE {
            Sequence::NONE
        } else {
            self.base_sequence.plus(self.last_offset_delta)
        }
    }

    /// The time from which compaction may drop the batch's tombstones, if it was set.
    #[must_use]
    pub const fn delete_horizon(&self) -> Option<TimestampMs> {
        if self.attributes.has_delete_horizon() { Some(self.base_timestamp) } else { None }
    }

    /// Writes the header into the first [`HEADER_SIZE`] bytes of `bytes`, CRC as stored in `self`.
    pub(super) fn write(&self, fixed: &mut [u8; HEADER_SIZE]) {
        let length = self.size_bytes.saturating_sub(LENGTH_PREFIX_SIZE);
        let length = i32::try_from(length).unwrap_or(i32::MAX);
        put(fixed, AT_BASE_OFFSET, self.base_offset.0.to_be_bytes());
        put(fixed, AT_LENGTH, length.to_be_bytes());
        put(fixed, AT_LEADER_EPOCH, self.leader_epoch.0.to_be_bytes());
        put(fixed, AT_MAGIC, CURRENT_MAGIC.to_be_bytes());
        put(fixed, AT_CRC, self.crc.to_be_bytes());
        put(fixed, AT_ATTRIBUTES, self.attributes.0.to_be_bytes());
        put(fixed, AT_LAST_OFFSET_DELTA, self.last_offset_delta.to_be_bytes());
        put(fixed, AT_BASE_TIMESTAMP, self.base_timestamp.0.to_be_bytes());
        put(fixed, AT_MAX_TIMESTAMP, self.max_timestamp.0.to_be_bytes());
        put(fixed, AT_PRODUCER_ID, self.producer_id.0.to_be_bytes());
        put(fixed, AT_PRODUCER_EPOCH, self.producer_epoch.0.to_be_bytes());
        put(fixed, AT_BASE_SEQUENCE, self.base_sequence.0.to_be_bytes());
        put(fixed, AT_RECORD_COUNT, self.record_count.to_be_bytes());
    }
}

/// Sets the base offset and the leader epoch of a batch; neither is covered by the CRC (RB-1).
///
/// # Errors
/// `CORRUPT_MESSAGE` when `batch` is shorter than a header.
pub fn patch_base_offset_and_epoch(
    batch: &mut [u8],
    base_offset: Offset,
    leader_epoch: LeaderEpoch,
) -> Result<()> {
    let fixed = fixed_mut(batch)?;
    put(fixed, AT_BASE_OFFSET, base_offset.0.to_be_bytes());
    put(fixed, AT_LEADER_EPOCH, leader_epoch.0.to_be_bytes());
    Ok(())
}

/// Sets the timestamp type and the largest timestamp of a whole batch and renews its CRC.
///
/// With [`TimestampType::LogAppendTime`] every record has `max_timestamp` from then on.
///
/// # Errors
/// `CORRUPT_MESSAGE` when `batch` is shorter than a header.
pub fn patch_max_timestamp(
    batch: &mut [u8],
    timestamp_type: TimestampType,
    max_timestamp: TimestampMs,
) -> Result<()> {
    let fixed = fixed_mut(batch)?;
    let attributes = Attributes(i16::from_be_bytes(field(fixed, AT_ATTRIBUTES)))
        .with_timestamp_type(timestamp_type);
    put(fixed, AT_ATTRIBUTES, attributes.0.to_be_bytes());
    put(fixed, AT_MAX_TIMESTAMP, max_timestamp.0.to_be_bytes());
    renew_crc(batch)
}

/// Sets the producer id, epoch and base sequence of a whole batch and renews its CRC: what a
/// producer does when its id changed while the batch waited to be resent.
///
/// # Errors
/// `CORRUPT_MESSAGE` when `batch` is shorter than a header.
pub fn patch_producer(
    batch: &mut [u8],
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
) -> Result<()> {
    let fixed = fixed_mut(batch)?;
    put(fixed, AT_PRODUCER_ID, producer_id.0.to_be_bytes());
    put(fixed, AT_PRODUCER_EPOCH, producer_epoch.0.to_be_bytes());
    put(fixed, AT_BASE_SEQUENCE, base_sequence.0.to_be_bytes());
    renew_crc(batch)
}

/// As [`patch_producer`], for a batch that then belongs to a transaction.
///
/// # Errors
/// As [`patch_producer`].
pub fn patch_transaction(
    batch: &mut [u8],
    producer_id: ProducerId,
    producer_epoch: ProducerEpoch,
    base_sequence: Sequence,
) -> Result<()> {
    let fixed = fixed_mut(batch)?;
    let attributes =
        Attributes(i16::from_be_bytes(field(fixed, AT_ATTRIBUTES))).with_transactional(true);
    put(fixed, AT_ATTRIBUTES, attributes.0.to_be_bytes());
    patch_producer(batch, producer_id, producer_epoch, base_sequence)
}

pub(super) fn renew_crc(batch: &mut [u8]) -> Result<()> {
    let crc = crc32c::crc32c(batch.get(AT_ATTRIBUTES..).unwrap_or_default());
    put(fixed_mut(batch)?, AT_CRC, crc.to_be_bytes());
    Ok(())
}

/// The size of the batch that starts at `bytes`, if its length can be read.
///
/// # Errors
/// `CORRUPT_MESSAGE` for a length that no batch can have; `UNSUPPORTED_FOR_MESSAGE_FORMAT` for an
/// older magic.
pub fn peek_size(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(prefix) = bytes.first_chunk::<LENGTH_PREFIX_SIZE>() else { return Ok(None) };
    let base_offset = peek_base_offset(bytes);
    if let Some(&magic) = bytes.get(AT_MAGIC) {
        check_magic(i8::from_be_bytes([magic]), base_offset)?;
    }
    whole_size(length_field(prefix), base_offset).map(Some)
}

pub(super) fn corrupt(base_offset: Offset, detail: impl AsRef<str>) -> Error {
    Error::of_batch(ErrorCode::CorruptMessage, base_offset, detail.as_ref())
}

pub(super) fn invalid(base_offset: Offset, detail: impl AsRef<str>) -> Error {
    Error::of_batch(ErrorCode::InvalidRecord, base_offset, detail.as_ref())
}

fn check_magic(magic: i8, base_offset: Offset) -> Result<()> {
    match magic {
        CURRENT_MAGIC => Ok(()),
        0 | 1 => Err(Error::kafka(
            ErrorCode::UnsupportedForMessageFormat,
            format!(
                "message set at offset {base_offset} has the format of Kafka before 0.11 (magic \
                 {magic}); only magic {CURRENT_MAGIC} is supported, so use a newer client"
            ),
        )),
        other => Err(corrupt(base_offset, format!("magic {other} does not exist"))),
    }
}

fn whole_size(length: i32, base_offset: Offset) -> Result<usize> {
    let size = usize::try_from(length).unwrap_or(0).saturating_add(LENGTH_PREFIX_SIZE);
    // A batch must itself be addressable with an i32, as Kafka's own buffers are.
    if length < LENGTH_FIELD_MIN || i32::try_from(size).is_err() {
        return Err(corrupt(base_offset, format!("batch length {length} is impossible")));
    }
    Ok(size)
}

fn peek_base_offset(bytes: &[u8]) -> Offset {
    bytes.first_chunk::<8>().map_or(Offset::UNKNOWN, |raw| Offset(i64::from_be_bytes(*raw)))
}

fn length_field<const N: usize>(fixed: &[u8; N]) -> i32 {
    i32::from_be_bytes(field(fixed, AT_LENGTH))
}

fn fixed_mut(batch: &mut [u8]) -> Result<&mut [u8; HEADER_SIZE]> {
    let base_offset = peek_base_offset(batch);
    batch
        .first_chunk_mut::<HEADER_SIZE>()
        .ok_or_else(|| corrupt(base_offset, "the batch is shorter than its header"))
}

/// The field at a constant position inside a header; zeros for a position outside, which no caller
/// uses.
fn field<const N: usize, const SIZE: usize>(fixed: &[u8; N], at: usize) -> [u8; SIZE] {
    fixed.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; SIZE])
}

fn put<const N: usize, const SIZE: usize>(fixed: &mut [u8; N], at: usize, value: [u8; SIZE]) {
    if let Some(place) = fixed.get_mut(at..).and_then(|rest| rest.first_chunk_mut()) {
        *place = value;
    }
}
