//! Control records: the markers that end a transaction, and those of KRaft's own log.
//!
//! A control record's key gives its version and type; the value of a transaction marker gives
//! the epoch of the transaction coordinator that wrote it (KIP-98). A control batch holds exactly
//! one record, which no consumer gets to see.

use bytes::Bytes;

use crate::error::{Error, ErrorCode, Result};
use crate::record::batch::{Batch, RecordView};
use crate::record::builder::{BatchBuilder, BatchOptions};
use crate::types::{ProducerEpoch, ProducerId, TimestampMs};

const KEY_VERSION: i16 = 0;
const MARKER_VERSION: i16 = 0;

/// The records of a control batch are small; more is a bomb.
const CONTROL_BATCH_SIZE_MAX: usize = 64 * 1024;

/// What a control record means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// The producer's transaction is aborted.
    Abort,
    /// The producer's transaction is committed.
    Commit,
    /// A KRaft leader took over.
    LeaderChange,
    /// The head of a KRaft snapshot.
    SnapshotHeader,
    /// The foot of a KRaft snapshot.
    SnapshotFooter,
    /// The version of the KRaft protocol.
    KraftVersion,
    /// The voters of a KRaft quorum.
    KraftVoters,
    /// A type of a later Kafka.
    Unknown(i16),
}

impl ControlType {
    /// The type for a number.
    #[must_use]
    pub const fn from_id(id: i16) -> Self {
        match id {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            other => Self::Unknown(other),
        }
    }

    /// The number.
    #[must_use]
    pub const fn id(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(other) => other,
        }
    }

    /// Reads the key of a control record.
    ///
    /// # Errors
    /// `INVALID_RECORD` when it is not one.
    pub fn parse_key(key: &[u8]) -> Result<Self> {
        let Some(&[v0, v1, t0, t1]) = key.first_chunk::<4>() else {
            return Err(invalid(format!("its key has {} bytes instead of 4", key.len())));
        };
        let version = i16::from_be_bytes([v0, v1]);
        if version < KEY_VERSION {
            return Err(invalid(format!("its key has version {version}")));
        }
        Ok(Self::from_id(i16::from_be_bytes([t0, t1])))
    }

    /// Writes the key of a control record.
    #[must_use]
    pub const fn key(self) -> [u8; 4] {
        let [v0, v1] = KEY_VERSION.to_be_bytes();
        let [t0, t1] = self.id().to_be_bytes();
        [v0, v1, t0, t1]
    }
}

/// The end of a transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionMarker {
    /// Whether the transaction is committed; aborted otherwise.
    pub committed: bool,
    /// The epoch of the coordinator that decided.
    pub coordinator_epoch: i32,
}

impl TransactionMarker {
    /// Reads a control record; none for one that does not end a transaction.
    ///
    /// # Errors
    /// `INVALID_RECORD` when key or value are not those of a control record.
    pub fn parse(record: &RecordView<'_>) -> Result<Option<Self>> {
        let key = record.key.ok_or_else(|| invalid("its key is null"))?;
        let committed = match ControlType::parse_key(key)? {
            ControlType::Commit => true,
            ControlType::Abort => false,
            _ => return Ok(None),
        };
        let value = record.value.ok_or_else(|| invalid("its value is null"))?;
        let Some(&[v0, v1, e0, e1, e2, e3]) = value.first_chunk::<6>() else {
            return Err(invalid(format!("its value has {} bytes instead of 6", value.len())));
        };
        let version = i16::from_be_bytes([v0, v1]);
        if version < MARKER_VERSION {
            return Err(invalid(format!("its value has version {version}")));
        }
        let coordinator_epoch = i32::from_be_bytes([e0, e1, e2, e3]);
        Ok(Some(Self { committed, coordinator_epoch }))
    }

    /// The value of the control record.
    #[must_use]
    pub const fn value(self) -> [u8; 6] {
        let [v0, v1] = MARKER_VERSION.to_be_bytes();
        let [e0, e1, e2, e3] = self.coordinator_epoch.to_be_bytes();
        [v0, v1, e0, e1, e2, e3]
    }

    /// The whole batch that ends the transaction of a producer; offset and epoch of the leader
    /// are set when it is appended.
    ///
    /// # Errors
    /// None that can occur; see [`BatchBuilder::finish`].
    pub fn batch(
        self,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        timestamp: TimestampMs,
    ) -> Result<Bytes> {
        let kind = if self.committed { ControlType::Commit } else { ControlType::Abort };
        let mut builder = BatchBuilder::new(BatchOptions {
            producer_id,
            producer_epoch,
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        builder.append(timestamp, Some(&kind.key()), Some(&self.value()), &[])?;
        builder.finish()
    }
}

/// The type of the one record of a control batch, and what it says if it ends a transaction.
///
/// # Errors
/// `INVALID_RECORD` when the batch does not hold exactly one control record.
pub fn read_control_batch(batch: &Batch) -> Result<(ControlType, Option<TransactionMarker>)> {
    let records = batch.records(CONTROL_BATCH_SIZE_MAX)?;
    let first = records.iter().next().ok_or_else(|| invalid("the batch is empty"))??;
    let key = first.key.ok_or_else(|| invalid("its key is null"))?;
    Ok((ControlType::parse_key(key)?, TransactionMarker::parse(&first)?))
}

fn invalid(detail: impl AsRef<str>) -> Error {
    Error::kafka(ErrorCode::InvalidRecord, format!("invalid control record: {}", detail.as_ref()))
}
