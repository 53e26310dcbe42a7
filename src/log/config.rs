//! What a log is told about its topic.

use crate::record::{Compression, TimestampType};

/// How much of what the tier has as well stays on this disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRetention {
    /// Delete tiered segments whose newest record is older; -1 for never (`local.retention.ms`).
    pub ms: i64,
    /// Delete the oldest tiered segments while the log takes more on this disk; -1 for never
    /// (`local.retention.bytes`).
    pub bytes: i64,
    /// Whether segments are copied to the tier, so that none may be deleted before (not `remote.log.copy.disable`).
    pub copies: bool,
}

/// The settings of one partition's log, resolved from broker and topic configuration by the caller.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// Roll before a segment grows beyond this (`segment.bytes`).
    pub segment_bytes: u32,
    /// Roll when the first record of the segment is this old (`segment.ms`).
    pub segment_ms: i64,
    /// A random amount up to this is subtracted from `segment_ms` for each segment, so that the
    /// segments of many partitions do not roll at once (`segment.jitter.ms`).
    pub segment_jitter_ms: i64,
    /// Roll when an index of the segment has this size (`segment.index.bytes`).
    pub segment_index_bytes: u32,
    /// One index entry for about this many bytes of batches (`index.interval.bytes`).
    pub index_interval_bytes: u32,
    /// Delete segments whose newest record is older; -1 for never (`retention.ms`).
    pub retention_ms: i64,
    /// Delete the oldest segments while the log is larger; -1 for never (`retention.bytes`).
    pub retention_bytes: i64,
    /// Set for a topic with a tier (`remote.storage.enable`): the limits above are then those of the whole, which
    /// the tier enforces.
    pub local_retention: Option<LocalRetention>,
    /// The largest batch that is accepted (`max.message.bytes`).
    pub max_message_bytes: u32,
    /// Who sets the timestamps (`message.timestamp.type`).
    pub message_timestamp_type: TimestampType,
    /// How far a record's timestamp may be in the past (`message.timestamp.before.max.ms`).
    pub message_timestamp_before_max_ms: i64,
    /// How far a record's timestamp may be in the future (`message.timestamp.after.max.ms`).
    pub message_timestamp_after_max_ms: i64,
    /// The codec of stored batches; none keeps the producer's (`compression.type`).
    pub compression_type: Option<Compression>,
    /// The level for `compression_type`; none for the codec's default (`compression.*.level`).
    pub compression_level: Option<i32>,
    /// Whether the topic is compacted, so that every record needs a key (`cleanup.policy`).
    pub compacted: bool,
    /// Whether retention deletes segments (`cleanup.policy` has `delete`).
    pub delete_old: bool,
    /// How long a tombstone is kept after it was first compacted (`delete.retention.ms`).
    pub delete_retention_ms: i64,
    /// How long records are protected from compaction (`min.compaction.lag.ms`).
    pub min_compaction_lag_ms: i64,
    /// How long a record may wait for compaction at most (`max.compaction.lag.ms`).
    pub max_compaction_lag_ms: i64,
    /// Compaction is due when more than this part of the log is dirty
    /// (`min.cleanable.dirty.ratio`).
    pub min_cleanable_dirty_ratio: f64,
    /// How long the files of a deleted segment are kept under another name
    /// (`file.delete.delay.ms`).
    pub file_delete_delay_ms: u64,
    /// Forget a producer that has been silent for this long (`producer.id.expiration.ms`).
    pub producer_id_expiration_ms: i64,
    /// Whether the first batch of a transaction must have been verified
    /// (`transaction.partition.verification.enable`).
    pub verifies_transactions: bool,
    /// The largest uncompressed size of one batch's records; protects against decompression bombs.
    pub uncompressed_bytes_max: usize,
    /// The largest record in a compressed batch, by its size before compression
    /// (`max.decompressed.message.bytes`).
    pub decompressed_record_bytes_max: usize,
}

impl Default for LogConfig {
    /// Apache Kafka's defaults.
    fn default() -> Self {
        const HOUR_MS: i64 = 3_600_000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * HOUR_MS,
            segment_jitter_ms: 0,
            segment_index_bytes: 10 << 20,
            index_interval_bytes: 4096,
            retention_ms: 7 * 24 * HOUR_MS,
            retention_bytes: -1,
            local_retention: None,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_after_max_ms: HOUR_MS,
            compression_type: None,
            compression_level: None,
            compacted: false,
            delete_old: true,
            delete_retention_ms: 24 * HOUR_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            file_delete_delay_ms: 60_000,
            producer_id_expiration_ms: 24 * HOUR_MS,
            verifies_transactions: true,
            uncompressed_bytes_max: 1 << 30,
            decompressed_record_bytes_max: 2_147_483_639,
        }
    }
}

impl LogConfig {
    /// The largest number of entries in an index whose entries have `entry_bytes`.
    pub(super) fn index_entries_max(&self, entry_bytes: u32) -> usize {
        (self.segment_index_bytes / entry_bytes) as usize
    }
}
