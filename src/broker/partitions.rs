//! The partitions of this broker, kept in line with the metadata image.
//!
//! [`Partitions::apply`] acts on what changed: it opens, creates, changes or deletes the partitions that are
//! in the delta, and all of them at the start. It blocks, and is called by one thread at a time.
//!
//! Invariants:
//! - `PARTS-1` after `apply` there is an open log for every replica that the image places here, except
//!   those whose log is damaged; these answer KAFKA_STORAGE_ERROR, and the others are served.
//! - `PARTS-2` a log that is not in the image is closed to everybody before its files are renamed.
//! - `PARTS-3` no file is deleted because of another cluster's image: the log directory contains the
//!   cluster's id, which is checked first.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use super::change::Change;
use super::parallel;
use super::parking::PartitionKey;
use super::partition::{Assignment, Partition, Surroundings};
use super::replication::IsrRequests;
use super::storage::{Storage, log_config};
use crate::broker::words;
use crate::config::{BrokerConfig, TopicConfig};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::{ConfigResource, PartitionImage, TopicImage};
use crate::store::Store;
use crate::types::{NodeId, PartitionIndex, TopicId, TopicPartition};

/// How many directories of deleted partitions are removed at once.
const REMOVED_AT_ONCE: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Partitions {
    around: Surroundings,
    storage: Arc<Storage>,
    open: RwLock<BTreeMap<PartitionKey, Arc<Partition>>>,
    /// Those that could not be opened, and why.
    failed: RwLock<BTreeMap<PartitionKey, String>>,
    /// The topics that the last change deleted: as long as it is being applied, the image still has them.
    deleted: RwLock<BTreeSet<TopicId>>,
    /// Renamed directories of deleted partitions, and when (monotonic) to remove them.
    doomed: Mutex<Vec<(PathBuf, Duration)>>,
}

/// A replica that the image places here.
struct Wanted<'a> {
    key: PartitionKey,
    topic: &'a TopicImage,
    index: PartitionIndex,
    state: &'a PartitionImage,
    config: Arc<TopicConfig>,
}

impl Partitions {
    pub(super) fn new(around: Surroundings, storage: Arc<Storage>) -> Self {
        Self {
            around,
            storage,
            open: RwLock::default(),
            failed: RwLock::default(),
            deleted: RwLock::default(),
            doomed: Mutex::default(),
        }
    }

    pub(super) fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// Where tiers are; none on a broker without.
    pub(super) const fn store(&self) -> Option<&Arc<dyn Store>> {
        self.around.store.as_ref()
    }

    /// Whether the data is temporary.
    pub(super) fn is_volatile(&self) -> bool {
        self.around.volatile
    }

    /// What those that are led here ask the controller for.
    pub(super) fn isr_requests(&self) -> &Arc<IsrRequests> {
        &self.around.isr_requests
    }

    /// The partition that a client asks for, if this broker leads it.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`, `NOT_LEADER_OR_FOLLOWER`, `KAFKA_STORAGE_ERROR`.
    pub(super) fn leader(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>> {
        let partition = self.find(topic, index)?;
        partition.check_leader()?;
        Ok(partition)
    }

    /// The partition that a consumer reads, if this broker leads it or copies its leader.
    ///
    /// # Errors
    ///
    /// As [`Self::leader`].
    pub(super) fn replica(
        &self,
        topic: &TopicImage,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>> {
        let partition = self.find(topic, index)?;
        partition.check_replica()?;
        Ok(partition)
    }

    fn find(&self, topic: &TopicImage, index: PartitionIndex) -> Result<Arc<Partition>> {
        let name = || TopicPartition::new(Arc::clone(&topic.name), index);
        if topic.partition(index).is_none() {
            let context = format!("partition {} does not exist", name());
            return Err(Error::kafka(ErrorCode::UnknownTopicOrPartition, context));
        }
        if self.is_deleted(topic.id) {
            let context = format!("topic {} does not exist any more", topic.name);
            return Err(Error::kafka(ErrorCode::UnknownTopicOrPartition, context));
        }
        let key = (topic.id, index);
        if let Some(partition) = self.get(&key) {
            return Ok(partition);
        }
        let failed = self.failed.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(why) = failed.get(&key) {
            let context = format!("{} could not be opened: {why}", name());
            return Err(Error::kafka(ErrorCode::KafkaStorageError, context));
        }
        Err(words::not_led(ErrorCode::NotLeaderOrFollower, &name()))
    }

    /// Whether a topic has just been deleted, although the image may still have it.
    pub(super) fn is_deleted(&self, topic: TopicId) -> bool {
        self.deleted.read().unwrap_or_else(PoisonError::into_inner).contains(&topic)
    }

    /// An open partition.
    pub(super) fn get(&self, key: &PartitionKey) -> Option<Arc<Partition>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// All open partitions, in the order of their ids.
    pub(super) fn all(&self) -> Vec<Arc<Partition>> {
        self.open.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Opens, creates, changes and deletes partitions as a change requires. Blocks.
    pub(super) fn apply(&self, change: &Change<'_>) {
        self.delete_others(change);
        let mut missing = Vec::new();
        for wanted in self.wanted(change) {
            match self.get(&wanted.key) {
                Some(partition) => self.update(&partition, &wanted, change),
                None if self.has_failed(&wanted.key) => {}
                None => missing.push(wanted),
            }
        }
        self.open_all(&missing, change);
    }

    /// The replicas placed here that the change is about: partitions that changed, those of topics whose settings
    /// changed, those with a follower that registered, left, or is fenced or not any more, and all when the broker's
    /// settings changed.
    fn wanted<'a>(&self, change: &Change<'a>) -> Vec<Wanted<'a>> {
        let Change { delta, image, .. } = *change;
        let mut wanted = Vec::new();
        if change.has_new_config {
            for topic in image.topics() {
                self.want(change, topic, topic.indexed(), &mut wanted);
            }
            return wanted;
        }
        let mut reconfigured = BTreeSet::new();
        for resource in delta.changed_configs() {
            if let ConfigResource::Topic(name) = resource
                && let Some(topic) = image.topic(name)
            {
                reconfigured.insert(topic.id);
                self.want(change, topic, topic.indexed(), &mut wanted);
            }
        }
        for topic in delta.changed_topics().filter(|topic| !reconfigured.contains(&topic.id)) {
            let keys = delta
                .changed_partitions()
                .range((topic.id, PartitionIndex(0))..=(topic.id, PartitionIndex(i32::MAX)));
            let changed = keys.filter_map(|&(_, index)| Some((index, topic.partition(index)?)));
            self.want(change, topic, changed, &mut wanted);
        }
        self.want_followed_by_changed(change, &mut wanted);
        wanted
    }

    /// Those led here of which a broker has a replica that changed: it may join the ISR now, or not any more.
    fn want_followed_by_changed<'a>(&self, change: &Change<'a>, wanted: &mut Vec<Wanted<'a>>) {
        let me = self.around.node_id;
        let brokers: BTreeSet<NodeId> =
            change.delta.changed_brokers().filter(|broker| *broker != me).collect();
        if brokers.is_empty() {
            return;
        }
        let is_followed = |state: &PartitionImage| {
            state.leader == me && state.replicas.iter().any(|id| brokers.contains(id))
        };
        for topic in change.image.topics() {
            let followed = topic.indexed().filter(|(_, state)| is_followed(state));
            self.want(change, topic, followed, wanted);
        }
    }

    fn want<'a>(
        &self,
        change: &Change<'a>,
        topic: &'a TopicImage,
        partitions: impl Iterator<Item = (PartitionIndex, &'a PartitionImage)>,
        wanted: &mut Vec<Wanted<'a>>,
    ) {
        let settings = change.image.topic_config(&topic.name);
        let config = match TopicConfig::resolve(settings, change.config) {
            Ok(config) => Arc::new(config),
            Err(error) => {
                tracing::error!(topic = %topic.name, %error, "a stored setting is not acceptable");
                return;
            }
        };
        for (index, state) in partitions {
            if state.replicas.contains(&self.around.node_id) {
                let (key, config) = ((topic.id, index), Arc::clone(&config));
                wanted.push(Wanted { key, topic, index, state, config });
            }
        }
    }

    fn has_failed(&self, key: &PartitionKey) -> bool {
        self.failed.read().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    fn update(&self, partition: &Partition, wanted: &Wanted<'_>, change: &Change<'_>) {
        // Some settings of a log are the broker's.
        if change.has_new_config || *partition.config() != *wanted.config {
            let config = log_config(&wanted.config, change.config);
            let changed = partition.with_log(|log| {
                log.update_config(config);
                Ok(())
            });
            if let Err(error) = changed {
                tracing::debug!(partition = %partition.name(), error = %error.chain(), "change failed");
            }
        }
        partition.update(&self.assignment(wanted, change));
    }

    fn assignment<'a>(&self, wanted: &Wanted<'a>, change: &Change<'a>) -> Assignment<'a> {
        Assignment {
            state: wanted.state,
            config: Arc::clone(&wanted.config),
            brokers: change.image,
            lag_time_max: lag_time_max(change.config),
            now: self.storage.monotonic(),
        }
    }

    /// Opens logs, several at a time: after a crash each is scanned from its recovery point.
    fn open_all(&self, missing: &[Wanted<'_>], change: &Change<'_>) {
        let open =
            |wanted: &Wanted<'_>| contained("opened a log", || self.open_one(wanted, change));
        let opened = parallel::each(self.storage.threads(), missing, open);
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        let mut failed = self.failed.write().unwrap_or_else(PoisonError::into_inner);
        for (key, result) in missing.iter().map(|wanted| wanted.key).zip(opened) {
            match result {
                Ok(partition) => {
                    open.insert(key, partition);
                }
                Err(error) => {
                    let (id, index) = key;
                    tracing::error!(
                        topic_id = %id, partition = index.0, error = %error.chain(),
                        "a partition could not be opened and stays offline"
                    );
                    failed.insert(key, error.chain());
                }
            }
        }
    }

    fn open_one(&self, wanted: &Wanted<'_>, change: &Change<'_>) -> Result<Arc<Partition>> {
        let name = TopicPartition::new(Arc::clone(&wanted.topic.name), wanted.index);
        let config = log_config(&wanted.config, change.config);
        let log = self.storage.open_log(&name, wanted.topic.id, config)?;
        Partition::new(wanted.key, log, &self.assignment(wanted, change), &self.around)
    }

    fn doom(&self, path: PathBuf, delay: Duration) {
        let due = self.storage.monotonic() + delay;
        self.doomed.lock().unwrap_or_else(PoisonError::into_inner).push((path, due));
    }

    /// Removes the files of some deleted partitions whose delay has passed. Returns whether there may
    /// be more. Blocks, but not for long.
    pub(super) fn remove_some_doomed(&self) -> bool {
        let now = self.storage.monotonic();
        let due: Vec<_> = self
            .doomed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extract_if(.., |(_, when)| *when <= now)
            .take(REMOVED_AT_ONCE)
            .collect();
        for (path, _) in &due {
            self.storage.remove(path);
        }
        due.len() == REMOVED_AT_ONCE
    }

    /// Whether files of deleted partitions are still to be removed.
    pub(super) fn has_doomed(&self) -> bool {
        !self.doomed.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Deletes what the change takes away from this broker.
    fn delete_others(&self, change: &Change<'_>) {
        let Change { delta, image, .. } = *change;
        let (is_gone, is_elsewhere) =
            (ErrorCode::UnknownTopicOrPartition, ErrorCode::NotLeaderOrFollower);
        {
            let mut known = self.deleted.write().unwrap_or_else(PoisonError::into_inner);
            *known = delta.deleted_topics().keys().copied().collect();
        }
        let deleted = delta.deleted_topics().iter();
        let deleted = deleted
            .flat_map(|(id, topic)| topic.indexed().map(move |(index, _)| ((*id, index), is_gone)));
        let moved = delta.changed_partitions().iter().filter_map(|&(id, index)| {
            match image.topic_by_id(id).and_then(|topic| topic.partition(index)) {
                None => Some(((id, index), is_gone)),
                Some(state) if state.replicas.contains(&self.around.node_id) => None,
                // Clients are to ask who leads it now, not to think that it is gone.
                Some(_) => Some(((id, index), is_elsewhere)),
            }
        });
        let keys: Vec<(PartitionKey, ErrorCode)> = deleted.chain(moved).collect();
        if keys.is_empty() {
            return;
        }
        let gone: Vec<(Arc<Partition>, ErrorCode)> = {
            let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
            keys.iter().filter_map(|(key, code)| Some((open.remove(key)?, *code))).collect()
        };
        {
            let mut failed = self.failed.write().unwrap_or_else(PoisonError::into_inner);
            for (key, _) in &keys {
                failed.remove(key);
            }
        }
        if !gone.is_empty() {
            self.delete(&gone);
        }
    }

    /// Closes partitions, each with what its clients are told, and deletes their logs.
    fn delete(&self, gone: &[(Arc<Partition>, ErrorCode)]) {
        let mut delays = Vec::with_capacity(gone.len());
        let mut logs = Vec::with_capacity(gone.len());
        for (partition, code) in gone {
            partition.close(*code);
            if let Some(log) = partition.take_log() {
                delays.push(Duration::from_millis(log.config().file_delete_delay_ms));
                logs.push(log);
            }
        }
        let renamed = match contained("deleted logs", || self.storage.delete_logs(logs)) {
            Ok(renamed) => renamed,
            Err(error) => {
                return tracing::warn!(
                    logs = delays.len(),
                    error = %error.chain(),
                    "deleted logs will be removed at the next start"
                );
            }
        };
        for (path, delay) in renamed.into_iter().zip(delays) {
            match path {
                Ok(path) => self.doom(path, delay),
                Err(error) => tracing::warn!(error = %error.chain(), "could not delete a log"),
            }
        }
    }
}

/// How long a follower may lag.
pub(super) fn lag_time_max(config: &BrokerConfig) -> Duration {
    Duration::from_millis(config.replication.lag_time_max_ms.max(0).unsigned_abs())
}

/// Makes an error of a panic: one log that is damaged is not to keep the others from being served.
fn contained<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_reported| Err(words::broker_failed(ErrorCode::KafkaStorageError, what)))
}
