//! What a leader checks and changes in a batch before it is written.
//!
//! The bytes of the records are not touched: base offset, leader epoch and, for `LogAppendTime`, the
//! timestamps lie in the 61 bytes of the header, of which a private copy is patched. Batches are
//! rewritten only when the topic asks for a codec other than the producer's.

use bytes::Bytes;

use super::config::LogConfig;
use super::verification::Guard;
use crate::error::{Error, ErrorCode, Result};
use crate::record::control::{TransactionMarker, read_control_batch};
use crate::record::{
    AppendFacts, AppendRules, Batch, BatchBuilder, BatchHeader, BatchOptions, Batches, Compression,
    HEADER_SIZE, Header, TimestampType, patch_base_offset_and_epoch, validate_for_append,
};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// What a leader appends, by who wrote it: what is asked of a producer's batch is not asked of our own.
#[derive(Clone, Debug)]
pub enum Append {
    /// One data batch of a producer, whose header whoever received it has read. Sequence, timestamps and the
    /// absence of control records are checked.
    Produced {
        /// The batch.
        batch: Batch,
        /// Of the verification, when it begins a transaction here.
        guard: Option<Guard>,
    },
    /// Batches of a coordinator or of the metadata quorum on this node: any number, control batches too.
    Own {
        /// The batches.
        records: Bytes,
        /// Of the verification, when they begin a producer's transaction here.
        guard: Option<Guard>,
    },
    /// The batch that ends a transaction.
    Marker {
        /// The batch.
        batch: Bytes,
        /// The version of transactions that its coordinator goes by.
        transaction_version: i16,
    },
}

/// What an append shows for the right to be part of a transaction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Proof {
    Produced(Option<Guard>),
    Own(Option<Guard>),
    Marker(i16),
}

impl Proof {
    /// The guard, and the version of transactions, of what was not produced.
    pub(super) const fn of_own(self) -> (Option<Guard>, i16) {
        match self {
            Self::Produced(guard) | Self::Own(guard) => (guard, 0),
            Self::Marker(version) => (None, version),
        }
    }
}

impl Append {
    /// Batches of this node that belong to no transaction.
    #[must_use]
    pub const fn own(records: Bytes) -> Self {
        Self::Own { records, guard: None }
    }

    /// The records of a producer.
    ///
    /// # Errors
    ///
    /// `INVALID_RECORD` for anything but one batch, `CORRUPT_MESSAGE` for a part of one.
    pub fn produced(records: &Bytes) -> Result<Self> {
        if records.is_empty() {
            return Err(no_batch());
        }
        let batch = Batch::parse(records)?;
        if batch.bytes().len() < records.len() {
            let detail = "a produce request holds more than one batch for the partition";
            return Err(Error::kafka(ErrorCode::InvalidRecord, detail));
        }
        Ok(Self::Produced { batch, guard: None })
    }

    /// What is checked.
    const fn origin(&self) -> Origin {
        match self {
            Self::Produced { .. } => Origin::Producer,
            Self::Own { .. } | Self::Marker { .. } => Origin::ThisNode,
        }
    }

    pub(super) const fn proof(&self) -> Proof {
        match self {
            Self::Produced { guard, .. } => Proof::Produced(*guard),
            Self::Own { guard, .. } => Proof::Own(*guard),
            Self::Marker { transaction_version, .. } => Proof::Marker(*transaction_version),
        }
    }
}

/// Who wrote a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    Producer,
    ThisNode,
}

/// A batch ready to be written.
#[derive(Clone, Debug)]
pub(super) struct Prepared {
    /// The header as it will be on disk.
    pub(super) header: BatchHeader,
    fixed: [u8; HEADER_SIZE],
    batch: Batch,
    marker: Option<TransactionMarker>,
}

/// How many bad records of a batch are named in the answer.
const REFUSED_RECORDS_MAX: usize = 100;

const AT_CRC: usize = 17;
const AT_ATTRIBUTES: usize = 21;
const AT_MAX_TIMESTAMP: usize = 35;

impl Prepared {
    /// Takes a batch with its offsets and epoch as they are.
    pub(super) fn as_is(batch: Batch) -> Result<Self> {
        let fixed = batch.bytes().first_chunk::<HEADER_SIZE>().copied();
        let fixed = fixed.ok_or_else(|| Error::malformed("batch", "shorter than its header"))?;
        let marker = read_marker(&batch)?;
        Ok(Self { header: *batch.header(), fixed, batch, marker })
    }

    /// The two parts of the batch on disk.
    pub(super) fn parts(&self) -> [&[u8]; 2] {
        [&self.fixed, self.body()]
    }

    fn body(&self) -> &[u8] {
        self.batch.bytes().get(HEADER_SIZE..).unwrap_or_default()
    }

    /// How it ends a transaction, if it does.
    pub(super) const fn marker(&self) -> Option<TransactionMarker> {
        self.marker
    }

    /// Assigns the batch its place in the log.
    pub(super) fn place(&mut self, base_offset: Offset, leader_epoch: LeaderEpoch) -> Result<()> {
        if base_offset.0.checked_add(i64::from(self.header.last_offset_delta) + 1).is_none() {
            return Err(Error::invalid(format!("no offset is left after {base_offset}")));
        }
        patch_base_offset_and_epoch(&mut self.fixed, base_offset, leader_epoch)?;
        self.header.base_offset = base_offset;
        self.header.leader_epoch = leader_epoch;
        Ok(())
    }

    /// Sets timestamp type and largest timestamp and renews the CRC, when they differ.
    fn stamp(&mut self, timestamp_type: TimestampType, max_timestamp: TimestampMs) {
        let attributes = self.header.attributes.with_timestamp_type(timestamp_type);
        if attributes == self.header.attributes && max_timestamp == self.header.max_timestamp {
            return;
        }
        let mut put = |at: usize, bytes: &[u8]| {
            for (place, byte) in self.fixed.iter_mut().skip(at).zip(bytes) {
                *place = *byte;
            }
        };
        put(AT_ATTRIBUTES, &attributes.0.to_be_bytes());
        put(AT_MAX_TIMESTAMP, &max_timestamp.0.to_be_bytes());
        let head = crc32c::crc32c(self.fixed.get(AT_ATTRIBUTES..).unwrap_or_default());
        let crc =
            crc32c::crc32c_append(head, self.batch.bytes().get(HEADER_SIZE..).unwrap_or_default());
        for (place, byte) in self.fixed.iter_mut().skip(AT_CRC).zip(crc.to_be_bytes()) {
            *place = byte;
        }
        self.header.crc = crc;
        self.header.attributes = attributes;
        self.header.max_timestamp = max_timestamp;
    }
}

/// How a batch ends a transaction; none if it does not. One that compaction emptied no longer ends anything.
pub(super) fn read_marker(batch: &Batch) -> Result<Option<TransactionMarker>> {
    let header = batch.header();
    if !header.is_control() || !header.has_producer_id() || header.record_count == 0 {
        return Ok(None);
    }
    Ok(read_control_batch(batch)?.1)
}

/// Splits, checks and prepares the batches that a leader is asked to append. Offsets are not
/// assigned yet.
pub(super) fn prepare(
    append: Append,
    config: &LogConfig,
    now: TimestampMs,
) -> Result<Vec<Prepared>> {
    let origin = append.origin();
    let records = match append {
        Append::Produced { batch, .. } => {
            return Ok(vec![prepare_batch(batch, config, origin, now)?]);
        }
        Append::Own { records, .. } | Append::Marker { batch: records, .. } => records,
    };
    let mut prepared = Vec::with_capacity(1);
    let mut batches = Batches::new(records);
    for batch in &mut batches {
        prepared.push(prepare_batch(batch?, config, origin, now)?);
    }
    if batches.truncated().is_some() {
        let detail = "the records end in the middle of a batch";
        return Err(Error::kafka(ErrorCode::CorruptMessage, detail));
    }
    if prepared.is_empty() {
        return Err(no_batch());
    }
    Ok(prepared)
}

fn prepare_batch(
    batch: Batch,
    config: &LogConfig,
    origin: Origin,
    now: TimestampMs,
) -> Result<Prepared> {
    check_size(&batch, config)?;
    if origin == Origin::Producer && batch.header().timestamp_type() == TimestampType::LogAppendTime
    {
        let detail = "a producer must not set the timestamp type LogAppendTime";
        return Err(Error::kafka(ErrorCode::InvalidTimestamp, detail));
    }
    let rules = AppendRules {
        control: origin == Origin::ThisNode,
        uncompressed_size_max: config.uncompressed_bytes_max,
    };
    let facts = validate_for_append(&batch, rules)?;
    check_records(&batch, &facts, config)?;
    let needs_keys = config.compacted && !batch.header().is_control();
    let append_time = config.message_timestamp_type == TimestampType::LogAppendTime;
    let checks_time = !append_time && origin == Origin::Producer;
    let times = checks_time.then(|| Times::around(now, config));
    if needs_keys && facts.first_keyless.is_some()
        || times.as_ref().is_some_and(|times| times.refuse_any(&facts))
    {
        return Err(refused_records(&batch, config, (needs_keys, times.as_ref())));
    }
    let batch = recompress(batch, config)?;
    check_size(&batch, config)?;
    let mut prepared = Prepared::as_is(batch)?;
    if append_time {
        prepared.stamp(TimestampType::LogAppendTime, now);
    } else {
        let kept = prepared.header.timestamp_type();
        prepared.stamp(kept, facts.max_timestamp);
    }
    Ok(prepared)
}

/// Records without a batch are to be appended.
pub(super) fn no_batch() -> Error {
    Error::kafka(ErrorCode::InvalidRecord, "there is no batch to append")
}

fn check_size(batch: &Batch, config: &LogConfig) -> Result<()> {
    let size = batch.bytes().len();
    if size > config.max_message_bytes as usize {
        let max = config.max_message_bytes;
        let detail = format!("a batch of {size} bytes is larger than max.message.bytes ({max})");
        return Err(Error::told(ErrorCode::MessageTooLarge, detail));
    }
    Ok(())
}

/// A record of a compressed batch may be large although the batch is small.
fn check_records(batch: &Batch, facts: &AppendFacts, config: &LogConfig) -> Result<()> {
    let (size, max) = (facts.largest_record_size, config.decompressed_record_bytes_max);
    if batch.header().compression == Compression::None || size <= max {
        return Ok(());
    }
    let detail = format!(
        "a record of {size} bytes before compression is larger than max.decompressed.message.bytes ({max})"
    );
    Err(Error::told(ErrorCode::InvalidRecord, detail))
}

/// The timestamps that `message.timestamp.before.max.ms` and `.after.max.ms` allow.
struct Times {
    now: TimestampMs,
    before_max: i64,
    after_max: i64,
}

impl Times {
    fn around(now: TimestampMs, config: &LogConfig) -> Self {
        let before_max = config.message_timestamp_before_max_ms;
        Self { now, before_max, after_max: config.message_timestamp_after_max_ms }
    }

    /// Why a timestamp is refused. A record without one is never refused.
    fn refuse(&self, timestamp: TimestampMs) -> Option<String> {
        let after = timestamp.0.saturating_sub(self.now.0);
        let before = self.now.0.saturating_sub(timestamp.0);
        let (name, limit) = match () {
            () if timestamp == TimestampMs::NONE => return None,
            () if before > self.before_max => ("before", self.before_max),
            () if after > self.after_max => ("after", self.after_max),
            () => return None,
        };
        Some(format!(
            "timestamp {timestamp} is further from the broker's clock ({}) than \
             message.timestamp.{name}.max.ms allows ({limit})",
            self.now
        ))
    }

    fn refuse_any(&self, facts: &AppendFacts) -> bool {
        let mut ends = [facts.min_timestamp, facts.max_timestamp].into_iter();
        ends.any(|timestamp| self.refuse(timestamp).is_some())
    }
}

/// Names the records for which a batch is refused, as Kafka does (KIP-467). Any wrong timestamp makes
/// the error `INVALID_TIMESTAMP`.
#[cold]
fn refused_records(
    batch: &Batch,
    config: &LogConfig,
    (needs_keys, times): (bool, Option<&Times>),
) -> Error {
    let records = match batch.records(config.uncompressed_bytes_max) {
        Ok(records) => records,
        Err(error) => return error,
    };
    let mut refused = Vec::new();
    let mut code = ErrorCode::InvalidRecord;
    for (index, record) in (0_i32..).zip(&records) {
        let Ok(record) = record else { break };
        if needs_keys && record.key.is_none() {
            refused.push((index, "it has no key, which a compacted topic needs".to_owned()));
        } else if let Some(why) = times.and_then(|times| times.refuse(record.timestamp)) {
            code = ErrorCode::InvalidTimestamp;
            refused.push((index, why));
        }
        if refused.len() == REFUSED_RECORDS_MAX {
            break;
        }
    }
    let first = refused.first().map(|(index, why)| format!("record {index} of the batch: {why}"));
    Error::RecordsRefused { code, detail: first.unwrap_or_default(), records: refused }
}

/// Whether the producer chose a codec other than the topic's.
pub(super) fn recompresses(header: &BatchHeader, config: &LogConfig) -> bool {
    config.compression_type.is_some_and(|target| target != header.compression)
        && !header.is_control()
}

/// Recompresses the batch with the topic's codec when the producer chose another.
fn recompress(batch: Batch, config: &LogConfig) -> Result<Batch> {
    let header = *batch.header();
    let Some(target) = config.compression_type else { return Ok(batch) };
    if !recompresses(&header, config) {
        return Ok(batch);
    }
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: header.base_offset,
        leader_epoch: header.leader_epoch,
        compression: target,
        level: if target == Compression::None { None } else { config.compression_level },
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.is_transactional(),
        ..BatchOptions::default()
    });
    let records = batch.records(config.uncompressed_bytes_max)?;
    let mut headers: Vec<Header<'_>> = Vec::new();
    for record in &records {
        let record = record?;
        headers.clear();
        headers.extend(record.headers);
        builder.append_at(record.offset, record.timestamp, record.key, record.value, &headers)?;
    }
    Batch::parse(&builder.finish()?)
}
