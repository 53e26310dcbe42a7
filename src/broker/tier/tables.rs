//! Keeps the Delta tables of topics: each says what the manifests of the partitions say.
//!
//! ```text
//! drivers ─► manifests in memory ─► what the table lacks ─► statistics of new files ─► the next commit, created only if absent
//!                                        ▲                                                  │ somebody was first
//!                                        └──────────── the commits that came meanwhile ◀────┘
//! ```
//!
//! [`DeltaTable`] decides. A table is made of the manifests and compared with them, so nothing has to be remembered: what a
//! crash has left out, the next comparison finds. Nobody waits for it; a table that cannot be written falls behind, and
//! the log says so.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::objects::{is_noted, read_columns};
use super::reading::ColdFiles;
use super::rest;
use super::table_log::TableLog;
use crate::broker::state::BrokerState;
use crate::config::TierTable;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::tier::{FileEntry, TableAbout, TableChanges, TableOwner};
use crate::store::{Created, Store};
use crate::tier::delta_schema;
use crate::types::{PartitionIndex, TimestampMs, TopicId};

/// How often manifests are compared with tables at least, and how often at most.
const LOOK_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(30));
/// After a failure a table waits this long, twice as long after the next, and so on.
const RETRY_INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How many files are opened for their statistics at a time.
const INSPECTIONS: usize = 4;
/// How often it is seen whether a table is still as it was left: somebody may have removed it, or written to it.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often others may be first before it is tried again later.
const ROUNDS_MAX: usize = 1000;

/// Keeps all tables until the broker stops.
pub(super) async fn keep(
    state: &Arc<BrokerState>,
    store: &Arc<dyn Store>,
    stop: &CancellationToken,
) {
    let (shortest, longest) = LOOK_INTERVAL;
    let pause = state.config().tier.interval.clamp(shortest, longest);
    let mut tables = Tables { state: Arc::clone(state), known: BTreeMap::new() };
    while !stop.is_cancelled() {
        let look = AssertUnwindSafe(tables.look(store)).catch_unwind();
        let looked = tokio::select! {
            biased;
            // What is left out is found at the next start.
            () = stop.cancelled() => return,
            looked = look => looked,
        };
        match looked {
            Ok(true) => rest(pause, stop).await,
            Ok(false) => {}
            Err(_reported) => {
                tracing::error!(
                    "keeping the Delta tables panicked; they stay as they are before a restart"
                );
                return;
            }
        }
    }
}

/// Closes the table of a topic that was deleted. One that cannot be read or written is left as it is: without its files it
/// shows nothing that is not so, and the files do not wait for it.
pub(super) async fn close_deleted(
    store: &Arc<dyn Store>,
    topic: &str,
    id: TopicId,
    now: TimestampMs,
) {
    let mut log = TableLog::new(Arc::clone(store), topic);
    if let Err(error) = close(&mut log, id, true, now).await {
        tracing::warn!(topic, error = %error.chain(), "the Delta table of a deleted topic is left as it is");
    }
}

async fn close(log: &mut TableLog, id: TopicId, deleted: bool, now: TimestampMs) -> Result<()> {
    for _ in 0..ROUNDS_MAX {
        log.refresh().await?;
        let Some(text) = log.table().closing(id, deleted, now).map_err(Error::invalid)? else {
            return Ok(());
        };
        if log.commit(text).await? == Created::Created {
            return Ok(());
        }
    }
    Err(others_are_first())
}

fn others_are_first() -> Error {
    Error::kafka(ErrorCode::KafkaStorageError, "others have written to the table all the time")
}

/// A topic with a tier, of which something is led here.
#[derive(Debug)]
struct Topic {
    id: TopicId,
    name: Arc<str>,
    has_table: bool,
    /// The partitions that are led here, as far as their manifests were read.
    led: Vec<ColdFiles>,
}

#[derive(Debug)]
struct Tables {
    state: Arc<BrokerState>,
    known: BTreeMap<TopicId, Known>,
}

/// What is known of the table of a topic.
#[derive(Debug)]
struct Known {
    log: TableLog,
    /// The versions of the manifests that the table was compared with.
    followed: BTreeMap<PartitionIndex, u64>,
    /// Whether it is closed, or there is none.
    is_closed: bool,
    failures: u32,
    pause_until: Option<Instant>,
    /// When it was last seen whether the table is as it was left.
    checked_at: Option<Instant>,
}

impl Tables {
    /// Compares manifests that have changed with the tables.
    /// Whether all of them follow is told; a table that is far behind takes a commit at a time, so that others have
    /// theirs.
    async fn look(&mut self, store: &Arc<dyn Store>) -> bool {
        let mut all_follow = true;
        let topics = self.topics();
        self.known.retain(|id, _| topics.contains_key(id));
        for topic in topics.into_values() {
            let known = self
                .known
                .entry(topic.id)
                .or_insert_with(|| Known::new(Arc::clone(store), &topic.name));
            if known.pause_until.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            let done = if topic.has_table {
                known.follow(&self.state, &**store, &topic).await
            } else {
                known.close(&topic, self.state.env().clock.now()).await.map(|()| true)
            };
            all_follow &= !matches!(done, Ok(false));
            known.report(&topic, done.map(drop));
        }
        all_follow
    }

    fn topics(&self) -> BTreeMap<TopicId, Topic> {
        let mut topics = BTreeMap::new();
        for partition in self.state.partitions().all() {
            let Some(tier) = partition.tier().filter(|_| partition.check_leader().is_ok()) else {
                continue;
            };
            let (key, name, config) = (partition.key(), partition.name(), partition.config());
            let topic = topics.entry(key.0).or_insert_with(|| Topic {
                id: key.0,
                name: Arc::clone(&name.topic),
                has_table: config.tier_table == TierTable::Delta && config.tier.is_enabled(),
                led: Vec::new(),
            });
            if let Some(manifest) = tier.manifest() {
                topic.led.push(ColdFiles { key, name: name.clone(), tier, manifest });
            }
        }
        topics
    }
}

impl Known {
    fn new(store: Arc<dyn Store>, topic: &str) -> Self {
        Self {
            log: TableLog::new(store, topic),
            followed: BTreeMap::new(),
            is_closed: false,
            failures: 0,
            pause_until: None,
            checked_at: None,
        }
    }

    /// Closes the table, if there is one.
    async fn close(&mut self, topic: &Topic, now: TimestampMs) -> Result<()> {
        if !self.is_closed {
            close(&mut self.log, topic.id, false, now).await?;
            self.is_closed = true;
            self.followed.clear();
        }
        Ok(())
    }

    /// Has the table say what the manifests say, or more of it than before: then it is false.
    async fn follow(
        &mut self,
        state: &BrokerState,
        store: &dyn Store,
        topic: &Topic,
    ) -> Result<bool> {
        self.is_closed = false;
        let versions: BTreeMap<PartitionIndex, u64> =
            topic.led.iter().map(|led| (led.name.partition, led.manifest.version())).collect();
        // What is led here no more is compared anew when it is again.
        self.followed.retain(|index, version| versions.get(index) == Some(version));
        if self.followed == versions {
            if self.checked_at.is_some_and(|at| at.elapsed() < CHECK_INTERVAL) {
                return Ok(true);
            }
            self.checked_at = Some(Instant::now());
            if self.log.is_current().await? {
                return Ok(true);
            }
            self.followed.clear();
        }
        let (name, topic_id) = (topic.name.to_string(), topic.id);
        for _ in 0..ROUNDS_MAX {
            self.log.refresh().await?;
            if !may_write(&self.log, store, topic).await? {
                return Ok(true);
            }
            // After the table, so that it never loses a column that another broker gave it.
            let schema = schema_of(store, topic_id).await?;
            let about = TableAbout { topic: name.clone(), topic_id, schema };
            let manifests = topic.led.iter().map(|led| (led.name.partition, &*led.manifest));
            let changes = self.log.table().changes(&about, manifests);
            let (is_last, is_done) = (changes.is_complete(), changes.is_empty());
            if is_done || self.commit(state, topic, &about, changes).await? == Created::Created {
                if is_done || is_last {
                    self.followed = versions;
                }
                return Ok(is_done || is_last);
            }
        }
        Err(others_are_first())
    }

    async fn commit(
        &mut self,
        state: &BrokerState,
        topic: &Topic,
        about: &TableAbout,
        changes: TableChanges,
    ) -> Result<Created> {
        let inspections: Vec<_> = changes
            .adds()
            .iter()
            .map(|(index, entry)| inspect(state, topic, *index, entry))
            .collect();
        let statistics: Vec<Option<String>> =
            stream::iter(inspections).buffered(INSPECTIONS).try_collect().await?;
        let (added, removed) = (changes.adds().len(), changes.remove_count());
        let now = state.env().clock.now();
        let text = changes.commit(about, statistics, now).map_err(Error::invalid)?;
        let version = self.log.table().next_version();
        let created = self.log.commit(text).await?;
        if created == Created::Created {
            let topic = &about.topic;
            tracing::debug!(topic, version, added, removed, "committed to the Delta table");
        }
        Ok(created)
    }

    fn report(&mut self, topic: &Topic, done: Result<()>) {
        let name = &topic.name;
        match done {
            Ok(()) => {
                if topic.has_table && self.failures > 1 {
                    tracing::info!(topic = %name, "the Delta table gets on again");
                }
                (self.failures, self.pause_until) = (0, None);
            }
            Err(error) => {
                self.failures += 1;
                let (shortest, longest) = RETRY_INTERVAL;
                let pause = shortest.saturating_mul(1 << (self.failures - 1).min(10)).min(longest);
                self.pause_until = Some(Instant::now() + pause);
                let has_table = topic.has_table || self.log.table().next_version() > 0;
                // The first may be a topic of this name that is still being deleted.
                if has_table && self.failures > 1 && self.failures.is_power_of_two() {
                    tracing::warn!(
                        topic = %name, error = %error.chain(),
                        "the Delta table does not follow the tier, and it is tried again; the tier itself goes on. If the table is damaged, \
                         remove its folder _delta_log, and it is made again; an object below _ottla has to be restored"
                    );
                }
            }
        }
    }
}

/// The columns of a table: those that all files have, and all that the topic ever had. Where a file lacks some, readers of
/// Delta have nulls.
async fn schema_of(store: &dyn Store, topic_id: TopicId) -> Result<String> {
    let known = read_columns(store, topic_id).await?;
    let typed = known.all().iter().map(|column| (column.name.as_str(), column.data_type.as_str()));
    delta_schema(typed)
}

/// The statistics of a file, as far as it can be read.
async fn inspect(
    state: &BrokerState,
    topic: &Topic,
    index: PartitionIndex,
    entry: &FileEntry,
) -> Result<Option<String>> {
    let led = topic.led.iter().find(|led| led.name.partition == index);
    let Some(led) = led else { return Ok(None) };
    match state.tier_reader().inspect(led, entry).await {
        Ok(file) => Ok(Some(file.delta_statistics())),
        // It is part of the topic all the same, and whoever reads it finds out.
        Err(error) if is_damaged(&error) => {
            let (topic, error) = (&topic.name, error.chain());
            tracing::warn!(%topic, error, "the Delta table names a file that is damaged");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Whether a file is damaged, cut or gone, and not only out of reach.
fn is_damaged(error: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, UnexpectedEof};
    match error {
        Error::Corrupt { .. } => true,
        Error::Io { source, .. } => matches!(source.kind(), NotFound | UnexpectedEof),
        _ => false,
    }
}

/// Whether the table is the topic's, or may become it (`TABLE-3`); false when the topic was deleted.
///
/// # Errors
///
/// It is somebody else's.
async fn may_write(log: &TableLog, store: &dyn Store, topic: &Topic) -> Result<bool> {
    let refuse = |context: String| Err(Error::kafka(ErrorCode::KafkaStorageError, context));
    match log.table().owner() {
        TableOwner::Nobody => Ok(true),
        TableOwner::Topic { id, is_deleted } if id == topic.id => Ok(!is_deleted),
        TableOwner::Topic { id, is_deleted } => {
            if is_deleted || !is_noted(store, id).await? {
                return Ok(true);
            }
            refuse(format!(
                "the table is of an earlier topic with this name, {id}, whose files are not removed yet"
            ))
        }
        TableOwner::Stranger => {
            refuse("there is a Delta table that no broker has written".to_owned())
        }
    }
}
