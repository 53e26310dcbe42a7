//! The log directory of a broker: opening and deleting logs in it, checkpoints, and closing it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::partition::{OpenLog, Partition};
use crate::config::{self, BrokerConfig, TopicConfig};
use crate::env::{Env, Threads};
use crate::error::{Error, Result};
use crate::log::{
    CheckpointedOffsets, Health, LocalRetention, Log, LogConfig, LogDirectory, MetaProperties,
    OpenOptions, Predecessor,
};
use crate::record::{Compression, TimestampType};
use crate::types::{BrokerEpoch, Offset, TopicId, TopicPartition};

/// A compressed batch that would grow beyond this is treated as a decompression bomb, unless four
/// times `max.message.bytes` is larger. Kafka has no such limit.
const UNCOMPRESSED_BYTES_MAX: usize = 64 << 20;

/// See the module.
#[derive(Debug)]
pub(super) struct Storage {
    env: Env,
    path: PathBuf,
    health: Health,
    was_clean: bool,
    /// `None` once it was closed.
    directory: RwLock<Option<Arc<LogDirectory>>>,
    /// Held by those who write checkpoints, and alone by who cuts a log: nobody is to write what held before.
    cutting: RwLock<()>,
}

impl Storage {
    pub(super) fn new(env: &Env, directory: Arc<LogDirectory>) -> Self {
        Self {
            env: env.clone(),
            path: directory.path().to_path_buf(),
            health: directory.health(),
            was_clean: directory.was_clean(),
            directory: RwLock::new(Some(directory)),
            cutting: RwLock::new(()),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn health(&self) -> &Health {
        &self.health
    }

    pub(super) fn monotonic(&self) -> Duration {
        self.env.clock.monotonic()
    }

    pub(super) fn threads(&self) -> &Threads {
        &self.env.threads
    }

    /// The cluster, the node and the identity of the directory.
    ///
    /// # Errors
    ///
    /// It is closed.
    pub(super) fn meta(&self) -> Result<MetaProperties> {
        Ok(self.directory()?.meta())
    }

    /// Makes the directory one of this cluster; see [`LogDirectory::adopt`]. Blocks.
    pub(super) fn adopt(&self, cluster_id: &str) -> Result<()> {
        self.directory()?.adopt(cluster_id)
    }

    /// Who used the directory before; see [`LogDirectory::predecessor`].
    ///
    /// # Errors
    ///
    /// It is closed.
    pub(super) fn predecessor(&self) -> Result<Option<Predecessor>> {
        Ok(self.directory()?.predecessor().cloned())
    }

    /// See [`LogDirectory::note_registration`]. Blocks.
    pub(super) fn note_registration(&self, epoch: BrokerEpoch, durability: &str) -> Result<()> {
        self.directory()?.note_registration(epoch, durability)
    }

    fn directory(&self) -> Result<Arc<LogDirectory>> {
        let directory = self.directory.read().unwrap_or_else(PoisonError::into_inner);
        directory.clone().ok_or(Error::Closed { what: "the log directory" })
    }

    /// How many bytes can still be written; -1 when unknown.
    pub(super) fn usable_bytes(&self) -> i64 {
        let free = self.directory().and_then(|directory| directory.free_bytes());
        free.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// How large the file system is; -1 when unknown.
    pub(super) fn total_bytes(&self) -> i64 {
        let total = self.directory().and_then(|directory| directory.total_bytes());
        total.map_or(-1, |bytes| i64::try_from(bytes).unwrap_or(i64::MAX))
    }

    /// Opens the log of a partition, or creates it, and tells the high watermark that was saved for it. A log
    /// under its name that belongs to another topic is set aside: an interrupted deletion leaves such a log, and so
    /// does lost metadata.
    ///
    /// # Errors
    ///
    /// Damage, and errors of the operating system.
    pub(super) fn open_log(
        &self,
        partition: &TopicPartition,
        topic_id: TopicId,
        config: LogConfig,
    ) -> Result<OpenLog> {
        let directory = self.directory()?;
        let path = directory.partition_path(partition);
        let failed = |error| Error::io("open", &path, error);
        let mut is_new = !self.env.disk.exists(&path).map_err(failed)?;
        if !is_new && let Some(id) = foreign_topic(&directory, partition, topic_id)? {
            let kept = directory.set_stray_aside(partition)?;
            tracing::warn!(
                %partition,
                topic_id = %id,
                path = %kept.display(),
                "set aside the log of an unknown topic; remove it if nobody needs it"
            );
            is_new = true;
        }
        if is_new && directory.may_know(partition) {
            directory.forget([partition])?;
        }
        let offsets = directory.checkpointed(partition);
        let options = OpenOptions {
            partition: partition.clone(),
            topic_id,
            config,
            health: self.health.clone(),
            recovery_point: offsets.recovery_point,
            log_start_offset: offsets.log_start_offset,
            clean_shutdown: self.was_clean,
            clean_until: directory.cleaner_offset(partition),
        };
        if is_new {
            let log = Log::create(&self.env, &path, options)?;
            return Ok(OpenLog { log, high_watermark: offsets.high_watermark });
        }
        let (log, report) = Log::open(&self.env, &path, options)?;
        if report.scanned_bytes > 0 || report.truncated_bytes > 0 {
            tracing::info!(%partition, ?report, "recovered");
        }
        Ok(OpenLog { log, high_watermark: offsets.high_watermark })
    }

    /// Deletes logs from the directory. The caller removes their files in the background, with
    /// [`Storage::remove`].
    ///
    /// # Errors
    ///
    /// When the directory is offline or closed; within, an error of the operating system for one log,
    /// whose directory the next start then finds as a stray.
    pub(super) fn delete_logs(&self, logs: Vec<Log>) -> Result<Vec<Result<PathBuf>>> {
        let partitions: Vec<TopicPartition> =
            logs.into_iter().map(|log| log.partition().clone()).collect();
        self.directory()?.delete_partitions(&partitions)
    }

    /// Removes what [`Storage::delete_logs`] renamed.
    pub(super) fn remove(&self, path: &Path) {
        let removed = self.directory().and_then(|directory| directory.remove_dir(path));
        if let Err(error) = removed {
            tracing::warn!(error = %error.chain(), "deleted log left for the next start to remove");
        }
    }

    /// Reports directories that belong to no topic. They are left alone: only a person can tell
    /// whether the data or the metadata is wrong.
    pub(super) fn report_strays(&self, is_known: impl Fn(&TopicPartition, TopicId) -> bool) {
        let found = self.directory().and_then(|directory| directory.partitions());
        for found in found.unwrap_or_default() {
            let Some(id) = found.topic_id else { continue };
            if !found.partition.topic.starts_with("__cluster_metadata")
                && !is_known(&found.partition, id)
            {
                tracing::warn!(path = %found.path.display(), "log belongs to no topic");
            }
        }
    }

    /// The topics that have logs on this disk, known or not.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub(super) fn topic_ids(&self) -> Result<BTreeSet<TopicId>> {
        Ok(self.directory()?.partitions()?.into_iter().filter_map(|found| found.topic_id).collect())
    }

    /// Writes the checkpoints of `partitions`.
    ///
    /// # Errors
    ///
    /// Errors of the operating system; another call may succeed.
    pub(super) fn checkpoint<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a Arc<Partition>>,
    ) -> Result<()> {
        let _uncut = self.cutting.read().unwrap_or_else(PoisonError::into_inner);
        let offsets = partitions.into_iter().map(|partition| {
            let reader = partition.reader();
            let offsets = CheckpointedOffsets {
                recovery_point: reader.recovery_point(),
                log_start_offset: reader.log_start_offset(),
                high_watermark: partition.high_watermark(),
            };
            (partition.name().clone(), offsets)
        });
        self.directory()?.write_checkpoints(offsets)
    }

    /// Has a log cut, by work that is given what lowers its checkpoints, to be called before (`DIR-1`). Blocks.
    pub(super) fn cut<R>(
        &self,
        partition: &TopicPartition,
        work: impl FnOnce(&dyn Fn(Offset) -> Result<()>) -> R,
    ) -> R {
        let _alone = self.cutting.write().unwrap_or_else(PoisonError::into_inner);
        work(&|offset| self.directory()?.lower_checkpoints(partition, offset))
    }

    /// The offset up to which a log was compacted; none when it never was.
    ///
    /// # Errors
    ///
    /// When the directory is closed.
    pub(super) fn cleaner_offset(&self, partition: &TopicPartition) -> Result<Option<Offset>> {
        Ok(self.directory()?.cleaner_offset(partition))
    }

    /// Saves the offsets up to which a log is compacted and synced.
    ///
    /// # Errors
    ///
    /// Errors of the operating system; another call may succeed.
    pub(super) fn write_cleaner_offset(
        &self,
        partition: &Partition,
        clean_until: Offset,
    ) -> Result<()> {
        let _uncut = self.cutting.read().unwrap_or_else(PoisonError::into_inner);
        let recovery_point = partition.reader().recovery_point();
        self.directory()?.write_cleaner_offset(partition.name(), clean_until, recovery_point)
    }

    /// Marks the directory as cleanly shut down, and unlocks it.
    ///
    /// # Errors
    ///
    /// Errors of the operating system, or when the directory is still in use; the logs are then
    /// recovered at the next start.
    pub(super) fn close(&self, in_order: bool) -> Result<()> {
        let directory = self.directory.write().unwrap_or_else(PoisonError::into_inner).take();
        let Some(directory) = directory.and_then(Arc::into_inner) else {
            return Err(Error::Closed { what: "the log directory" });
        };
        if in_order { directory.close() } else { Ok(()) }
    }
}

/// The topic that a partition's directory belongs to, when it is a different one.
fn foreign_topic(
    directory: &LogDirectory,
    partition: &TopicPartition,
    topic_id: TopicId,
) -> Result<Option<TopicId>> {
    Ok(directory.topic_id_of(partition)?.filter(|&id| id != topic_id))
}

/// What is kept on this disk of a topic with a tier. What is not copied is nowhere else: the limits of the whole count.
fn local_retention(topic: &TopicConfig) -> LocalRetention {
    let (ms, bytes) = (topic.retention_ms, topic.retention_bytes);
    if !topic.tier.copies() {
        return LocalRetention { ms, bytes, copies: false };
    }
    let local = &topic.local_retention;
    LocalRetention { ms: local.ms_of(ms), bytes: local.bytes_of(bytes), copies: true }
}

/// The settings of a log.
pub(super) fn log_config(topic: &TopicConfig, broker: &BrokerConfig) -> LogConfig {
    let bytes = |value: i32| u32::try_from(value).unwrap_or(0);
    LogConfig {
        segment_bytes: bytes(topic.segment_bytes),
        // The active segment is never compacted, so it must not grow older than that.
        segment_ms: if topic.cleanup_policy.compact {
            topic.segment_ms.min(topic.max_compaction_lag_ms)
        } else {
            topic.segment_ms
        },
        segment_jitter_ms: topic.segment_jitter_ms,
        segment_index_bytes: bytes(topic.segment_index_bytes),
        index_interval_bytes: bytes(topic.index_interval_bytes),
        retention_ms: topic.retention_ms,
        retention_bytes: topic.retention_bytes,
        local_retention: topic.tier.is_enabled().then(|| local_retention(topic)),
        max_message_bytes: bytes(topic.max_message_bytes),
        message_timestamp_type: match topic.message_timestamp_type {
            config::TimestampType::CreateTime => TimestampType::CreateTime,
            config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        message_timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
        message_timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
        compression_type: match topic.compression_type {
            config::CompressionType::Producer => None,
            config::CompressionType::Uncompressed => Some(Compression::None),
            config::CompressionType::Gzip => Some(Compression::Gzip),
            config::CompressionType::Snappy => Some(Compression::Snappy),
            config::CompressionType::Lz4 => Some(Compression::Lz4),
            config::CompressionType::Zstd => Some(Compression::Zstd),
        },
        compression_level: match topic.compression_type {
            config::CompressionType::Gzip => Some(topic.compression_gzip_level),
            config::CompressionType::Lz4 => Some(topic.compression_lz4_level),
            config::CompressionType::Zstd => Some(topic.compression_zstd_level),
            _ => None,
        },
        compacted: topic.cleanup_policy.compact,
        delete_retention_ms: topic.delete_retention_ms,
        min_compaction_lag_ms: topic.min_compaction_lag_ms,
        max_compaction_lag_ms: topic.max_compaction_lag_ms,
        min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
        delete_old: topic.cleanup_policy.delete,
        file_delete_delay_ms: u64::try_from(topic.file_delete_delay_ms).unwrap_or(0),
        producer_id_expiration_ms: i64::from(broker.producer_id_expiration_ms),
        verifies_transactions: broker.verification.is_enabled,
        uncompressed_bytes_max: usize::try_from(topic.max_message_bytes)
            .unwrap_or(0)
            .saturating_mul(4)
            .max(UNCOMPRESSED_BYTES_MAX),
        decompressed_record_bytes_max: usize::try_from(topic.max_decompressed_message_bytes)
            .unwrap_or(usize::MAX),
    }
}
