//! A log directory: its lock, its owner, its partitions and its checkpoints.
//!
//! The checkpoints are text files that cover all partitions of the directory. They are hints for the next
//! start; each is replaced atomically. `DIR-1`: a recovery point in the checkpoint is never above what is
//! durable in the partition of that name, nor a high watermark above what was committed: they are lowered before a
//! log is truncated, and dropped before a log of that name is created. `DIR-2`: a log with gaps has an entry in the cleaner's checkpoint, and none of
//! the gaps is above its recovery point in the checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::checkpoint;
use super::health::Health;
use super::layout;
use super::predecessor::{self, Predecessor};
use super::properties::{self, MetaProperties};
use crate::env::{Env, Lock};
use crate::error::{Error, ErrorCode, Result};
use crate::types::{BrokerEpoch, NodeId, Offset, PartitionIndex, TopicId, TopicPartition};

/// The suffix of a partition's directory that is about to be removed.
const DELETE_SUFFIX: &str = "-delete";
/// The suffix of a partition's directory that the metadata does not know.
const STRAY_SUFFIX: &str = "-stray";
/// The longest name that file systems allow.
const NAME_BYTES_MAX: usize = 255;

/// A partition found in a log directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionDirectory {
    /// The partition, from the directory's name.
    pub partition: TopicPartition,
    /// The topic's id; none when it was never written.
    pub topic_id: Option<TopicId>,
    /// The path.
    pub path: PathBuf,
}

/// The cluster of a directory that is opened.
#[derive(Clone, Copy)]
enum Belongs<'a> {
    /// This one.
    To(&'a str),
    /// Whichever it belongs to; a new directory begins a cluster.
    ToNewCluster,
    /// Whichever it belongs to; a new directory will be told.
    ToWhichItJoins,
}

/// A log directory that this process has locked.
#[derive(Debug)]
pub struct LogDirectory {
    env: Env,
    path: PathBuf,
    health: Health,
    meta: Mutex<MetaProperties>,
    was_clean: bool,
    predecessor: Option<Predecessor>,
    /// As which broker this process uses it.
    broker_epoch: Mutex<BrokerEpoch>,
    checkpoints: Mutex<Checkpoints>,
    _lock: Box<dyn Lock>,
}

/// The content of the checkpoint files.
#[derive(Debug, Default)]
struct Checkpoints {
    recovery_points: BTreeMap<TopicPartition, Offset>,
    log_start_offsets: BTreeMap<TopicPartition, Offset>,
    high_watermarks: BTreeMap<TopicPartition, Offset>,
    cleaner_offsets: BTreeMap<TopicPartition, Offset>,
    /// The text of each file as last read or written.
    on_disk: BTreeMap<&'static str, String>,
    /// Whether every change is in the files.
    is_on_disk: bool,
}

/// What the checkpoints say about a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckpointedOffsets {
    /// The offset up to which the log was synced.
    pub recovery_point: Offset,
    /// Where the log starts.
    pub log_start_offset: Offset,
    /// The offset up to which the log was committed.
    pub high_watermark: Offset,
}

impl LogDirectory {
    /// Locks a log directory, creating it when it is missing.
    ///
    /// `cluster_id` is compared with the one found; a new directory gets it, or a random one. One that was opened by
    /// [`LogDirectory::open_to_join`] and has not adopted an id yet still does not have one.
    ///
    /// # Errors
    ///
    /// [`Error::InUse`] when another process holds the lock; [`Error::Newer`];
    /// [`Error::InvalidArgument`] when the directory belongs to another node or cluster;
    /// [`Error::Io`]; [`Error::Corrupt`].
    pub fn open(env: &Env, path: &Path, node_id: NodeId, cluster_id: Option<&str>) -> Result<Self> {
        Self::open_as(env, path, node_id, cluster_id.map_or(Belongs::ToNewCluster, Belongs::To))
    }

    /// As [`LogDirectory::open`], but a new directory belongs to no cluster until it is told which: the cluster that it
    /// joins has an id, or will have one.
    ///
    /// # Errors
    ///
    /// As [`LogDirectory::open`].
    pub fn open_to_join(env: &Env, path: &Path, node_id: NodeId) -> Result<Self> {
        Self::open_as(env, path, node_id, Belongs::ToWhichItJoins)
    }

    fn open_as(env: &Env, path: &Path, node_id: NodeId, belongs: Belongs<'_>) -> Result<Self> {
        env.disk.create_dir_all(path).map_err(|error| Error::io("create", path, error))?;
        let lock_path = path.join(layout::LOCK);
        let lock =
            env.disk.lock(&lock_path).map_err(|error| Error::io("lock", &lock_path, error))?;
        let lock = lock.ok_or_else(|| Error::InUse {
            path: path.to_path_buf(),
            detail: holder(env, &lock_path),
        })?;
        let meta = load_meta(env, path, node_id, belongs)?;
        let mut on_disk = BTreeMap::new();
        let mut read = |name: &'static str| -> Result<BTreeMap<TopicPartition, Offset>> {
            let file = path.join(name);
            let bytes = env.disk.read(&file).map_err(|error| Error::io("read", &file, error))?;
            let Some(bytes) = bytes else { return Ok(BTreeMap::new()) };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let offsets = checkpoint::decode_offsets(&text)
                .map_err(|detail| Error::corrupt(&file, 0, detail))?;
            on_disk.insert(name, text);
            Ok(offsets)
        };
        let mut checkpoints = Checkpoints {
            recovery_points: read(layout::RECOVERY_POINTS)?,
            log_start_offsets: read(layout::LOG_START_OFFSETS)?,
            high_watermarks: read(layout::HIGH_WATERMARKS)?,
            cleaner_offsets: read(layout::CLEANER_OFFSETS)?,
            on_disk: BTreeMap::new(),
            is_on_disk: true,
        };
        checkpoints.on_disk = on_disk;
        let (was_clean, predecessor) = predecessor::take(env, path)?;
        let health = Health::new(path);
        let (disk, home) = (Arc::clone(&env.disk), path.to_path_buf());
        health.on_offline(move || predecessor::forget(&*disk, &home));
        let directory = Self {
            env: env.clone(),
            path: path.to_path_buf(),
            health,
            meta: Mutex::new(meta),
            was_clean,
            predecessor,
            broker_epoch: Mutex::new(BrokerEpoch::UNKNOWN),
            checkpoints: Mutex::new(checkpoints),
            _lock: lock,
        };
        directory.remove_deleted()?;
        Ok(directory)
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the directory may be used; shared with every log in it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// The cluster and the node that the directory belongs to.
    #[must_use]
    pub fn meta(&self) -> MetaProperties {
        self.meta.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes the directory one of this cluster, for good. When this returns, that is durable; after a crash before, the
    /// directory belongs to no cluster, as before.
    ///
    /// # Errors
    ///
    /// `INCONSISTENT_CLUSTER_ID` when it belongs to another; [`Error::Io`].
    pub fn adopt(&self, cluster_id: &str) -> Result<()> {
        let mut meta = self.meta.lock().unwrap_or_else(PoisonError::into_inner);
        match &meta.cluster_id {
            Some(known) if known == cluster_id => Ok(()),
            Some(known) => {
                let path = self.path.display();
                let text = format!(
                    "log directory {path} belongs to cluster {known}, but this is cluster {cluster_id}"
                );
                Err(Error::kafka(ErrorCode::InconsistentClusterId, text))
            }
            None => {
                let adopted =
                    MetaProperties { cluster_id: Some(cluster_id.to_owned()), ..meta.clone() };
                write_meta(&self.env, &self.path, &adopted)?;
                *meta = adopted;
                Ok(())
            }
        }
    }

    /// Whether the directory was shut down cleanly before it was opened.
    #[must_use]
    pub const fn was_clean(&self) -> bool {
        self.was_clean
    }

    /// Who used the directory before, and what is left of it; none if that is not known.
    #[must_use]
    pub const fn predecessor(&self) -> Option<&Predecessor> {
        self.predecessor.as_ref()
    }

    /// Notes for the next process as which broker this one uses the directory, and its `durability`.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; what this process leaves then counts for less.
    pub fn note_registration(&self, broker_epoch: BrokerEpoch, durability: &str) -> Result<()> {
        self.health.check()?;
        let mut known = self.broker_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        predecessor::note(&self.env, &self.path, broker_epoch, Some(durability.to_owned()))?;
        *known = broker_epoch;
        Ok(())
    }

    /// The number of bytes that can still be written.
    pub fn free_bytes(&self) -> Result<u64> {
        self.env
            .disk
            .free_bytes(&self.path)
            .map_err(|error| Error::io("measure", &self.path, error))
    }

    /// The size in bytes of the file system that holds the directory.
    pub fn total_bytes(&self) -> Result<u64> {
        self.env
            .disk
            .total_bytes(&self.path)
            .map_err(|error| Error::io("measure", &self.path, error))
    }

    /// The path of a partition.
    #[must_use]
    pub fn partition_path(&self, partition: &TopicPartition) -> PathBuf {
        self.path.join(partition.to_string())
    }

    /// The partitions in the directory, by name. Only the metadata can tell which of them are
    /// strays.
    pub fn partitions(&self) -> Result<Vec<PartitionDirectory>> {
        let listed = self.env.disk.read_dir(&self.path);
        let mut found = Vec::new();
        for entry in listed.map_err(|error| Error::io("list", &self.path, error))? {
            if !entry.is_dir {
                continue;
            }
            let Some(partition) = parse_partition(&entry.name) else { continue };
            let path = self.path.join(&entry.name);
            let topic_id = properties::read_topic_id(&*self.env.disk, &path)?;
            found.push(PartitionDirectory { partition, topic_id, path });
        }
        Ok(found)
    }

    /// The topic that the directory of a partition belongs to; none when it does not say, or is missing.
    pub fn topic_id_of(&self, partition: &TopicPartition) -> Result<Option<TopicId>> {
        properties::read_topic_id(&*self.env.disk, &self.partition_path(partition))
    }

    /// What the checkpoints say about a partition; zeros for one that they do not name.
    #[must_use]
    pub fn checkpointed(&self, partition: &TopicPartition) -> CheckpointedOffsets {
        let checkpoints = self.checkpoints();
        let get = |offsets: &BTreeMap<TopicPartition, Offset>| {
            offsets.get(partition).copied().unwrap_or(Offset::ZERO)
        };
        CheckpointedOffsets {
            recovery_point: get(&checkpoints.recovery_points),
            log_start_offset: get(&checkpoints.log_start_offsets),
            high_watermark: get(&checkpoints.high_watermarks),
        }
    }

    /// Writes the checkpoints of the given partitions; the entries of others are kept. A file whose
    /// content would not change is not written.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; another call may succeed.
    pub fn write_checkpoints(
        &self,
        offsets: impl IntoIterator<Item = (TopicPartition, CheckpointedOffsets)>,
    ) -> Result<()> {
        self.health.check()?;
        self.change(|checkpoints| {
            for (partition, offsets) in offsets {
                let entries = [
                    (&mut checkpoints.recovery_points, offsets.recovery_point),
                    (&mut checkpoints.log_start_offsets, offsets.log_start_offset),
                    (&mut checkpoints.high_watermarks, offsets.high_watermark),
                ];
                for (file, offset) in entries {
                    file.insert(partition.clone(), offset);
                }
            }
        })
    }

    /// The offset up to which a log was compacted; none when it never was.
    #[must_use]
    pub fn cleaner_offset(&self, partition: &TopicPartition) -> Option<Offset> {
        self.checkpoints().cleaner_offsets.get(partition).copied()
    }

    /// Records the offset up to which a log is compacted. Must also be called, with the clean offset of
    /// that moment, before the first segment is replaced: from then on the log has gaps, whatever its
    /// policy becomes, but none above its recovery point (`DIR-2`).
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; another call may succeed.
    pub fn write_cleaner_offset(
        &self,
        partition: &TopicPartition,
        clean_until: Offset,
        recovery_point: Offset,
    ) -> Result<()> {
        self.health.check()?;
        self.change(|checkpoints| {
            checkpoints.cleaner_offsets.insert(partition.clone(), clean_until);
            checkpoints.recovery_points.insert(partition.clone(), recovery_point);
        })
    }

    /// Lowers what the checkpoints say of a partition to `offset`, where a batch starts, as epochs do. Must be called
    /// before [`super::Log::truncate_to`] (`DIR-1`): recovery must not miss what is cut, and what follows it later
    /// must not count as committed before it is.
    pub fn lower_checkpoints(&self, partition: &TopicPartition, offset: Offset) -> Result<()> {
        self.change(|checkpoints| {
            for file in [
                &mut checkpoints.recovery_points,
                &mut checkpoints.log_start_offsets,
                &mut checkpoints.high_watermarks,
                &mut checkpoints.cleaner_offsets,
            ] {
                if let Some(entry) = file.get_mut(partition) {
                    *entry = (*entry).min(offset);
                }
            }
        })
    }

    /// Forgets partitions and renames their directories, which makes room for new ones of the same names.
    /// The renamed directories are returned, in the order of `partitions`; remove them with
    /// [`LogDirectory::remove_dir`] when nobody has to wait for it, or the next start does. Readers of the
    /// logs are not disturbed. The checkpoints are written and the directory is synced once, however many
    /// partitions are deleted. A full disk, which may be the reason for deleting them, is no obstacle:
    /// their checkpoint entries are then dropped in memory, and in the files before a log is created.
    ///
    /// # Errors
    ///
    /// [`Error::Offline`] when it is not certain that the renames are durable; within,
    /// [`Error::Io`] for each that could not be renamed.
    pub fn delete_partitions(&self, partitions: &[TopicPartition]) -> Result<Vec<Result<PathBuf>>> {
        if let Err(error) = self.forget(partitions) {
            tracing::warn!(error = %error.chain(), "checkpoints not written yet");
        }
        let renamed = partitions.iter().map(|one| self.rename_aside(one, DELETE_SUFFIX)).collect();
        self.sync()?;
        Ok(renamed)
    }

    /// Forgets a partition that belongs to no known topic and renames its directory, which makes room for a
    /// new one of the same name. Only an operator removes the renamed directory: data that the metadata
    /// does not know may still be somebody's only copy.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn set_stray_aside(&self, partition: &TopicPartition) -> Result<PathBuf> {
        self.forget([partition])?;
        let renamed = self.rename_aside(partition, STRAY_SUFFIX)?;
        self.sync()?;
        Ok(renamed)
    }

    fn rename_aside(&self, partition: &TopicPartition, end: &str) -> Result<PathBuf> {
        let path = self.partition_path(partition);
        let unique = format!("{:016x}{:016x}", self.env.random.u64(), self.env.random.u64());
        let suffix = format!("-{}.{unique}{end}", partition.partition);
        let keep = NAME_BYTES_MAX.saturating_sub(suffix.len());
        let topic: String = partition.topic.chars().take(keep).collect();
        let renamed = self.path.join(format!("{topic}{suffix}"));
        self.env.disk.rename(&path, &renamed).map_err(|error| Error::io("rename", &path, error))?;
        Ok(renamed)
    }

    /// Whether the checkpoint files may still mention a partition that has no log: it must be forgotten
    /// before a log of its name is created.
    #[must_use]
    pub fn may_know(&self, partition: &TopicPartition) -> bool {
        let is_on_disk = self.checkpoints().is_on_disk;
        !is_on_disk
            || self.checkpointed(partition) != CheckpointedOffsets::default()
            || self.cleaner_offset(partition).is_some()
    }

    /// Drops what the checkpoints say about partitions (`DIR-1`): must be called before a log of
    /// the same name is created again.
    pub fn forget<'a>(
        &self,
        partitions: impl IntoIterator<Item = &'a TopicPartition>,
    ) -> Result<()> {
        self.change(|checkpoints| {
            for partition in partitions {
                checkpoints.recovery_points.remove(partition);
                checkpoints.log_start_offsets.remove(partition);
                checkpoints.high_watermarks.remove(partition);
                checkpoints.cleaner_offsets.remove(partition);
            }
        })
    }

    /// Removes a directory that [`LogDirectory::delete_partitions`] returned.
    pub fn remove_dir(&self, path: &Path) -> Result<()> {
        self.env.disk.remove_dir_all(path).map_err(|error| Error::io("remove", path, error))
    }

    /// Marks the directory as cleanly shut down: must be called last, when every log was closed
    /// without an error and the checkpoints are written. Releases the lock.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] or [`Error::Offline`]; the logs are then recovered at the next start.
    pub fn close(self) -> Result<()> {
        self.health.check()?;
        let path = self.path.join(layout::CLEAN_SHUTDOWN);
        let broker_epoch = *self.broker_epoch.lock().unwrap_or_else(PoisonError::into_inner);
        let marker = predecessor::clean_shutdown(broker_epoch);
        self.env
            .disk
            .write_atomically(&path, marker.as_bytes())
            .map_err(|error| Error::io("write", &path, error))
    }

    fn checkpoints(&self) -> MutexGuard<'_, Checkpoints> {
        self.checkpoints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the checkpoints and writes the files whose content differs then. On an error the
    /// change is kept in memory and written with the next one.
    fn change(&self, change: impl FnOnce(&mut Checkpoints)) -> Result<()> {
        let mut checkpoints = self.checkpoints();
        change(&mut checkpoints);
        checkpoints.is_on_disk = false;
        for (name, text) in checkpoints.texts() {
            let path = self.path.join(name);
            let known = checkpoints.on_disk.get(name);
            let unused = name == layout::CLEANER_OFFSETS
                && known.is_none()
                && checkpoints.cleaner_offsets.is_empty();
            let same = || known == Some(&text) && self.env.disk.exists(&path).unwrap_or(false);
            if unused || same() {
                continue;
            }
            checkpoints.on_disk.remove(name);
            self.env
                .disk
                .write_atomically(&path, text.as_bytes())
                .map_err(|error| Error::io("write", &path, error))?;
            checkpoints.on_disk.insert(name, text);
        }
        checkpoints.is_on_disk = true;
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        if let Err(error) = self.env.disk.sync_dir(&self.path) {
            self.health.take_offline(format!("could not sync {}: {error}", self.path.display()));
        }
        self.health.check()
    }

    fn remove_deleted(&self) -> Result<()> {
        let listed = self.env.disk.read_dir(&self.path);
        for entry in listed.map_err(|error| Error::io("list", &self.path, error))? {
            if entry.is_dir && entry.name.ends_with(DELETE_SUFFIX) && entry.name.contains('.') {
                self.remove_dir(&self.path.join(&entry.name))?;
            }
        }
        Ok(())
    }
}

impl Checkpoints {
    fn texts(&self) -> [(&'static str, String); 4] {
        [
            (layout::RECOVERY_POINTS, checkpoint::encode_offsets(&self.recovery_points)),
            (layout::LOG_START_OFFSETS, checkpoint::encode_offsets(&self.log_start_offsets)),
            (layout::HIGH_WATERMARKS, checkpoint::encode_offsets(&self.high_watermarks)),
            (layout::CLEANER_OFFSETS, checkpoint::encode_offsets(&self.cleaner_offsets)),
        ]
    }
}

/// Who holds the lock of a directory, and what to do about it, as text.
fn holder(env: &Env, lock: &Path) -> String {
    let note = env.disk.read(lock).ok().flatten().unwrap_or_default();
    let process = std::str::from_utf8(&note).ok().and_then(|note| note.trim().parse::<u32>().ok());
    let (who, whose) = match process {
        Some(id) if id == std::process::id() => {
            ("another broker of this process".to_owned(), "close it".to_owned())
        }
        Some(id) => (format!("the broker of process {id}"), format!("stop process {id}")),
        None => ("another broker".to_owned(), "stop it".to_owned()),
    };
    format!("{who} holds {}; {whose}, or use another data directory", lock.display())
}

fn load_meta(
    env: &Env,
    path: &Path,
    node_id: NodeId,
    belongs: Belongs<'_>,
) -> Result<MetaProperties> {
    let file = path.join(layout::META_PROPERTIES);
    let bytes = env.disk.read(&file).map_err(|error| Error::io("read", &file, error))?;
    let Some(bytes) = bytes else {
        let cluster_id = match belongs {
            Belongs::To(id) => Some(id.to_owned()),
            Belongs::ToNewCluster => Some(env.random.uuid().to_string()),
            Belongs::ToWhichItJoins => None,
        };
        let meta = MetaProperties { cluster_id, node_id, directory_id: env.random.uuid() };
        write_meta(env, path, &meta)?;
        return Ok(meta);
    };
    let meta = MetaProperties::decode(&file, &String::from_utf8_lossy(&bytes))?;
    if meta.node_id != node_id {
        return Err(Error::invalid(format!(
            "log directory {} belongs to node {}, not {node_id}: set node.id={} or use another \
             directory",
            path.display(),
            meta.node_id,
            meta.node_id
        )));
    }
    if let (Belongs::To(expected), Some(known)) = (belongs, &meta.cluster_id)
        && expected != known
    {
        return Err(Error::invalid(format!(
            "log directory {} belongs to cluster {known}, not {expected}",
            path.display()
        )));
    }
    Ok(meta)
}

fn write_meta(env: &Env, path: &Path, meta: &MetaProperties) -> Result<()> {
    let file = path.join(layout::META_PROPERTIES);
    let written = env.disk.write_atomically(&file, meta.encode().as_bytes());
    written.map_err(|error| Error::io("write", &file, error))
}

/// The partition that a directory's name stands for; none for other names.
fn parse_partition(name: &str) -> Option<TopicPartition> {
    let (topic, number) = name.rsplit_once('-')?;
    let canonical = number.bytes().all(|byte| byte.is_ascii_digit());
    let partition: PartitionIndex = number.parse().ok()?;
    (canonical && !topic.is_empty() && partition.to_string() == number)
        .then(|| TopicPartition::new(topic, partition))
}
