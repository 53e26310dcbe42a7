//! Drives [`PartitionTier`] for one partition: tells it what the log and the metadata are like, does what it says, and makes
//! known what came of it.
//!
//! A broker that leads again, after a restart too, claims anew. Whatever fails is tried again, at growing intervals,
//! and the log says what, why, and what to do; meanwhile records are taken and served, and segments stay here.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::TieredPartition;
use super::objects::{Manifests, note_topic, tag};
use super::upload::Upload;
use crate::broker::partition::{Isolation, Partition};
use crate::broker::state::BrokerState;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{LogReader, ReadRequest};
use crate::machine::Machine;
use crate::machine::tier::{
    Claim, ClosedSegment, Creation, Effect, Event, LogView, Manifest, PartitionTier, Reply,
    TierRules, Version,
};
use crate::tier::names;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// How often the files in the store are compared with the manifest.
const LIST_INTERVAL_MS: i64 = 6 * 60 * 60 * 1000;
/// The shortest pause between two looks, however short the interval is.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// The longest pause while somebody waits for records to be in the tier: they may become stable at any time.
const WANTED_INTERVAL: Duration = Duration::from_millis(100);

/// What the drivers of a broker share.
#[derive(Debug)]
pub(super) struct Drivers {
    pub(super) state: Arc<BrokerState>,
    /// One file is made at a time: a group of rows is in memory.
    pub(super) uploads: Semaphore,
    /// Where files are made.
    pub(super) folder: PathBuf,
}

/// The driver of a partition.
pub(super) struct Driver {
    shared: Arc<Drivers>,
    partition: Arc<Partition>,
    tier: Arc<TieredPartition>,
    manifests: Manifests,
    tag: String,
    machine: PartitionTier,
    /// The epoch that is led here, as the machine knows.
    led: Option<LeaderEpoch>,
    rules: TierRules,
    running: FuturesUnordered<BoxFuture<'static, (u64, Reply)>>,
    /// The version that readers know.
    published: Option<u64>,
    /// The version that the log knows.
    claimed: Option<u64>,
    /// Whether the last thing that was done failed.
    has_failed: bool,
    /// Who writes the tier instead of this leader.
    fenced: Option<String>,
    /// Why the log cannot be read.
    unreadable: Option<String>,
    stop: CancellationToken,
}

impl Driver {
    pub(super) fn new(
        shared: Arc<Drivers>,
        partition: Arc<Partition>,
        tier: Arc<TieredPartition>,
        stop: CancellationToken,
    ) -> Self {
        let (id, index) = partition.key();
        let rules = rules(&partition);
        let tag = tag(id);
        Self {
            manifests: Manifests::new(Arc::clone(tier.store()), id, index),
            machine: PartitionTier::new(tag.clone(), rules),
            shared,
            partition,
            tier,
            tag,
            led: None,
            rules,
            running: FuturesUnordered::new(),
            published: None,
            claimed: None,
            has_failed: false,
            fenced: None,
            unreadable: None,
            stop,
        }
    }

    /// Runs until the partition is not here any more, has no tier, or the broker stops.
    pub(super) async fn run(mut self) {
        let tier = Arc::clone(&self.tier);
        while !self.stop.is_cancelled() && self.is_wanted() {
            self.look().await;
            let pause = self.pause();
            tokio::select! {
                biased;
                () = self.stop.cancelled() => break,
                Some((term, reply)) = self.running.next(), if !self.running.is_empty() => {
                    let (before, has_failed) = (self.failure(), reply.has_failed());
                    self.step(Event::Done { term, reply }).await;
                    self.report(has_failed || self.failure() != before);
                }
                () = tier.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        self.forget().await;
        // What is on its way to the store is there or not when the files of a deleted topic are looked for.
        let (running, stop) = (&mut self.running, &self.stop);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = async { while running.next().await.is_some() {} } => {}
        }
        if self.is_removed() && self.is_empty() {
            self.tier.set_clear();
        }
    }

    /// Nobody looks after the tier here any more.
    async fn forget(&mut self) {
        self.on_partition(Partition::forget_tier).await;
    }

    /// Whether there is something to do here, now or later.
    fn is_wanted(&self) -> bool {
        let open = self.shared.state.partitions().get(&self.partition.key());
        let is_open = open.is_some_and(|open| Arc::ptr_eq(&open, &self.partition));
        let is_same = self.partition.tier().is_some_and(|tier| Arc::ptr_eq(&tier, &self.tier));
        is_open && is_same && !(self.is_removed() && self.is_empty())
    }

    /// Whether the topic has no tier any more.
    fn is_removed(&self) -> bool {
        !self.partition.config().tier.is_enabled()
    }

    /// Whether nothing is left.
    fn is_empty(&self) -> bool {
        let manifest = self.machine.manifest();
        manifest.is_some_and(|manifest| {
            let content = manifest.content();
            content.files.is_empty() && content.doomed.is_empty()
        })
    }

    fn now(&self) -> TimestampMs {
        self.shared.state.env().clock.now()
    }

    fn pause(&self) -> Duration {
        let mut interval = self.shared.state.config().tier.interval.max(INTERVAL_MIN);
        if self.is_waited_for() {
            interval = interval.min(WANTED_INTERVAL);
        }
        let Some(deadline) = self.machine.next_deadline() else { return interval };
        let left = u64::try_from(deadline.0.saturating_sub(self.now().0)).unwrap_or(0);
        // The deadline is not reached before the clock has passed it.
        interval.min(Duration::from_millis(left + 1)).max(INTERVAL_MIN)
    }

    /// Whether somebody waits for records to be in the tier that are not.
    fn is_waited_for(&self) -> bool {
        let reader = self.partition.reader();
        let wanted = self.tier.wanted().min(reader.log_end_offset());
        let tiered = self.machine.manifest().and_then(|manifest| manifest.content().end_offset());
        let may_copy = self.led.is_some() && self.rules.copies && self.fenced.is_none();
        may_copy && tiered.unwrap_or_default().max(reader.log_start_offset()) < wanted
    }

    /// Tells the machine what has changed.
    async fn look(&mut self) {
        let led = self.partition.led().ok();
        if led != self.led {
            self.led = led;
            // With the epoch, the partition has forgotten what was known of its tier.
            (self.published, self.claimed, self.fenced) = (None, None, None);
            let event = led.map_or(Event::Resign, |leader_epoch| {
                Event::Lead(Claim {
                    leader_epoch,
                    broker: self.shared.state.node_id(),
                    token: self.shared.state.env().random.uuid().to_string(),
                })
            });
            self.step(event).await;
        }
        let rules = rules(&self.partition);
        if rules != self.rules {
            self.rules = rules;
            self.step(Event::Rules(rules)).await;
        }
        if self.led.is_none() {
            return;
        }
        let view = self.view();
        if self.partition.led().ok() != self.led {
            // It may be the log of a copy that another leader had cut.
            return;
        }
        match view {
            Ok(view) => {
                self.unreadable = None;
                self.step(Event::Log(view)).await;
            }
            Err(error) => {
                let (partition, error) = (self.partition.name(), error.chain());
                if self.unreadable.as_ref() != Some(&error) {
                    tracing::warn!(%partition, error, "the log cannot be read for the tier");
                }
                self.unreadable = Some(error);
                self.tell_failure();
            }
        }
    }

    /// What the log is like.
    fn view(&self) -> Result<LogView> {
        let reader = self.partition.reader();
        let log_end = reader.log_end_offset();
        let lineage = lineage(reader);
        if self.is_removed() {
            // All of it lies before the log, so to speak.
            let log_start = Offset(i64::MAX);
            return Ok(LogView { log_start, log_end, lineage, ..LogView::default() });
        }
        let log_start = reader.log_start_offset();
        let decided = self.partition.end(Isolation::Committed).min(self.partition.high_watermark());
        let mut segments = reader.closed_segments(decided);
        if !self.partition.is_volatile() {
            // What a power cut could take from the log must not be in the tier already (`TIERING-2`).
            let durable = reader.recovery_point();
            if self.rules.copies && segments.last().is_some_and(|last| last.end_offset > durable) {
                self.shared.state.log_threads().sync(&self.partition);
            }
            segments.retain(|segment| segment.end_offset <= durable);
        }
        let tiered = self.machine.manifest().and_then(|manifest| manifest.content().end_offset());
        let tiered = tiered.unwrap_or(log_start);
        // Segments end elsewhere than files where another broker led: what the tier has a part of is not counted twice.
        let in_tier = segments.iter().filter(|segment| segment.base_offset < tiered);
        let in_tier: u64 = in_tier.map(|segment| segment.size_bytes).sum();
        let mut closed: Vec<ClosedSegment> = segments
            .iter()
            .map(|one| ClosedSegment { base_offset: one.base_offset, end_offset: one.end_offset })
            .collect();
        if let Some(first) = closed.first_mut() {
            let start = reader.local_start_offset();
            if first.base_offset < start && start < first.end_offset {
                // The first batch that is left.
                first.base_offset = reader
                    .read(ReadRequest {
                        offset: start,
                        max_bytes: 1,
                        upper: first.end_offset,
                        at_least_one: true,
                    })?
                    .base_offset;
            }
        }
        let local_bytes = reader.size_bytes().saturating_sub(in_tier);
        Ok(LogView { log_start, log_end, local_bytes, closed, lineage })
    }

    /// Takes a step of the machine, makes its manifest known, and begins what it says.
    async fn step(&mut self, event: Event) {
        let mut effects = Vec::new();
        self.machine.step(self.now(), event, &mut effects);
        // Each version of this leader, from the one that claims on.
        let is_claimed = self.machine.is_claimed()
            && self.machine.manifest().map(Manifest::version) != self.claimed;
        if is_claimed {
            self.claimed = self.machine.manifest().map(Manifest::version);
        }
        self.publish(is_claimed).await;
        for effect in effects {
            self.begin(effect).await;
        }
        self.tell_failure();
    }

    fn failure(&self) -> Option<String> {
        self.machine.failure().map(str::to_owned)
    }

    /// Makes known why the tier does not get on.
    fn tell_failure(&self) {
        let own = self.fenced.as_deref().or(self.unreadable.as_deref());
        self.tier.set_failure(self.machine.failure().or(own));
    }

    /// Makes the manifest known. Before this leader has a version of its own, only to readers; then to the log, which may
    /// delete what it names.
    async fn publish(&mut self, is_claimed: bool) {
        let manifest = self.machine.manifest();
        let version = manifest.map(Manifest::version);
        if version == self.published && !is_claimed {
            return;
        }
        self.published = version;
        let Some(epoch) = self.led else { return };
        match manifest {
            Some(manifest) if is_claimed && !self.is_removed() => {
                let (manifest, reader) = (manifest.clone(), self.partition.reader());
                let local_start = reader.local_start_offset();
                // Whoever deleted all of it could not save where the log starts.
                let is_lost =
                    manifest.content().files.is_empty() && reader.log_start_offset() < local_start;
                if is_lost {
                    let partition = self.partition.name();
                    tracing::warn!(%partition, start = local_start.0, "the tier has nothing any more: the log starts here");
                }
                self.on_partition(move |partition| {
                    partition.publish_tier(epoch, &manifest)?;
                    if is_lost {
                        partition.raise_log_start(epoch, local_start)?;
                    }
                    Ok(())
                })
                .await;
            }
            _ => self.partition.show_tier(epoch, manifest),
        }
    }

    fn on_partition(
        &self,
        work: impl FnOnce(&Partition) -> Result<()> + Send + 'static,
    ) -> BoxFuture<'static, ()> {
        let (shared, partition) = (Arc::clone(&self.shared), Arc::clone(&self.partition));
        async move {
            if let Err(error) = shared.state.log_threads().run_on(&partition, work).await {
                let partition = partition.name();
                tracing::debug!(%partition, error = %error.chain(), "the log was not told of its tier");
            }
        }
        .boxed()
    }

    async fn begin(&mut self, effect: Effect) {
        let term = self.machine.term();
        let future = match effect {
            Effect::Read => self.read(),
            Effect::Create(version) => self.create(*version),
            Effect::Upload { name, base_offset, end_offset } => {
                self.upload(name, base_offset, end_offset)
            }
            Effect::List => self.list(),
            Effect::Delete(name) => {
                let deleted = self.tier.store().delete(&self.tier.path(&name));
                deleted
                    .map(|deleted| Reply::Deleted(deleted.map_err(|error| error.chain())))
                    .boxed()
            }
            Effect::RaiseLogStart(start) => {
                let partition = self.partition.name();
                tracing::info!(%partition, start = start.0, "what lies before is too old or too much");
                let Some(epoch) = self.led else { return };
                let raised =
                    self.on_partition(move |partition| partition.raise_log_start(epoch, start));
                return raised.await;
            }
            // See `publish`.
            Effect::Tiered(_) => return,
            Effect::Fenced(Claim { leader_epoch, broker, .. }) => {
                let partition = self.partition.name();
                self.fenced = Some(format!(
                    "broker {broker} writes the tier, as the leader of epoch {leader_epoch}"
                ));
                tracing::warn!(
                    %partition, %leader_epoch, %broker,
                    "the tier is written by a later leader; this one leaves it alone"
                );
                return;
            }
        };
        self.running.push(future.map(move |reply| (term, reply)).boxed());
    }

    fn read(&self) -> BoxFuture<'static, Reply> {
        let (manifests, partition) = (self.manifests.clone(), Arc::clone(&self.partition));
        let is_removed = self.is_removed();
        async move {
            let read = async {
                let manifest = manifests.read().await?;
                if !is_removed {
                    check_complete(&manifest, &partition)?;
                    check_same(&manifest, &partition)?;
                }
                Ok(manifest)
            };
            Reply::Read(read.await.map_err(|error: Error| error.chain()))
        }
        .boxed()
    }

    fn create(&self, version: Version) -> BoxFuture<'static, Reply> {
        let (manifests, tier) = (self.manifests.clone(), Arc::clone(&self.tier));
        let (topic, id) = (Arc::clone(&self.partition.name().topic), self.partition.key().0);
        async move {
            // Before there is anything that would be found only by it.
            if !tier.is_noted() {
                if let Err(error) = note_topic(&**tier.store(), &topic, id).await {
                    return Reply::Created(Creation::Failed(error.chain()));
                }
                tier.set_noted();
            }
            Reply::Created(manifests.create(&version).await)
        }
        .boxed()
    }

    fn upload(
        &self,
        name: String,
        base_offset: Offset,
        end_offset: Offset,
    ) -> BoxFuture<'static, Reply> {
        let upload = Upload {
            partition: Arc::clone(&self.partition),
            tier: Arc::clone(&self.tier),
            folder: self.shared.folder.clone(),
            name,
            base_offset,
            end_offset,
            stop: self.stop.clone(),
        };
        let shared = Arc::clone(&self.shared);
        async move {
            let partition = Arc::clone(&upload.partition);
            // Nobody closes it.
            let _turn = shared.uploads.acquire().await.ok();
            let uploaded = upload.run(&shared.state).await;
            if let Ok(uploaded) = &uploaded {
                let (partition, bytes) = (partition.name(), uploaded.log_bytes);
                let (base, end) = (base_offset.0, end_offset.0);
                tracing::debug!(%partition, base, end, bytes, "copied to the tier");
            }
            Reply::Uploaded(uploaded.map_err(|error| {
                format!("offsets {base_offset} to {end_offset}: {}", error.chain())
            }))
        }
        .boxed()
    }

    /// The files of this topic in the folder: another one may have had the same name.
    fn list(&self) -> BoxFuture<'static, Reply> {
        let listed = self.tier.store().list(self.tier.folder());
        let tag = self.tag.clone();
        listed
            .map(move |listed| {
                let own = |path: String| {
                    #[cfg(feature = "sim")]
                    if is_planted(Mutation::OverlooksOrphans) {
                        return None;
                    }
                    let name = path.rsplit('/').next()?;
                    is_of(name, &tag).then(|| name.to_owned())
                };
                let listed = listed.map(|objects| {
                    objects.into_iter().filter_map(|object| own(object.path)).collect()
                });
                Reply::Listed(listed.map_err(|error| error.chain()))
            })
            .boxed()
    }

    /// Says what has just failed, and that nothing does any more.
    fn report(&mut self, has_failed: bool) {
        let partition = self.partition.name();
        match self.machine.failure() {
            Some(_) if !has_failed => {}
            Some(why) => tracing::warn!(
                %partition, why, tier = %self.tier.name("").display(),
                "the tier of the partition does not get on; segments stay on this disk, and it is tried again: see that \
                 the place of the tier is there, can be written to and has room"
            ),
            None if self.has_failed => tracing::info!(%partition, "the tier gets on again"),
            None => {}
        }
        self.has_failed = self.machine.failure().is_some();
    }
}

/// Whether a name is that of a file of a topic.
pub(super) fn is_of(name: &str, tag: &str) -> bool {
    names::offsets(name).is_some() && name.split('-').nth(2) == Some(tag)
}

fn rules(partition: &Partition) -> TierRules {
    let config = partition.config();
    let limit = |value: i64| (value >= 0).then_some(value);
    TierRules {
        copies: config.tier.copies(),
        retention_ms: limit(config.retention_ms).filter(|_| config.cleanup_policy.delete),
        retention_bytes: limit(config.retention_bytes)
            .filter(|_| config.cleanup_policy.delete)
            .map(i64::unsigned_abs),
        delete_delay_ms: config.file_delete_delay_ms,
        list_interval_ms: LIST_INTERVAL_MS,
    }
}

/// Fails when there are offsets that only the tier can have, and it does not: the store is another one, or has lost
/// something. Then nothing is written there, and nothing deleted here.
fn check_complete(manifest: &Manifest, partition: &Partition) -> Result<()> {
    let reader = partition.reader();
    let (log_start, local_start) = (reader.log_start_offset(), reader.local_start_offset());
    let end = manifest.content().end_offset();
    let is_complete = match end {
        // Whoever deleted all of it had it before.
        None => manifest.content().reached >= local_start,
        Some(end) => end >= local_start,
    };
    if log_start >= local_start || is_complete {
        return Ok(());
    }
    let from = end.unwrap_or(log_start).max(log_start);
    let name = partition.name();
    let context = format!(
        "the tier does not have the offsets {from} to {local_start} of {name}, and they are nowhere else: bring back the \
         store that had them, or delete the records before offset {local_start}"
    );
    Err(Error::kafka(ErrorCode::KafkaStorageError, context))
}

/// Fails when the log is not the one that the files were made of: it is that of the only replica, whose disk was lost or
/// replaced, or of one that was elected although it lacks what was committed. What the tier has may be all there is, and must
/// not be taken for that of a history that nobody chose. A copy that began in the middle has the epochs of all before.
fn check_same(manifest: &Manifest, partition: &Partition) -> Result<()> {
    let reader = partition.reader();
    let log = LogView {
        log_end: reader.log_end_offset(),
        lineage: lineage(reader),
        ..LogView::default()
    };
    let Some(file) = manifest.content().files.iter().find(|file| !log.has(file)) else {
        return Ok(());
    };
    let (name, end, file_end) = (partition.name(), log.log_end, file.end_offset);
    let context = format!(
        "the log of {name}, which ends at offset {end}, is not the one whose records up to {file_end} the tier has: its directory \
         was lost or replaced, or it leads without records that were committed, after an unclean election. Nothing is copied or deleted. \
         Bring back the directory, or have a replica lead that has them; or give up what the tier has, by \
         remote.storage.enable=false with remote.log.delete.on.disable=true"
    );
    Err(Error::kafka(ErrorCode::KafkaStorageError, context))
}

/// Which epochs begin where.
fn lineage(reader: &LogReader) -> Vec<(LeaderEpoch, Offset)> {
    reader.epochs().into_iter().map(|one| (one.epoch, one.start_offset)).collect()
}
