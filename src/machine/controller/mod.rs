//! The controller: it decides what the cluster should become.
//!
//! A [`Command`] comes in, a [`Decision`] goes out: the records that carry it out and the reply, of the command's
//! own type, to give once they are committed. The controller reads its image of the metadata and never changes
//! it itself: the shell appends the records and feeds them back through [`Replicated::apply`].
//!
//! ```text
//! handler ──Command──► decide ──Decision{records, reply}──► append ──► apply(record)*
//!                                        └───────── after commit ──────────► handler
//! ```
//!
//! Its time is the monotonic clock. It wants to be called every [`STEP_INTERVAL_MAX`] while it waits for brokers;
//! when it was not, because the disk or the machine stood still, it adds the difference to all their deadlines: what
//! they sent meanwhile, it could not hear.
//!
//! The image here may run ahead of what is committed: the shell applies a decision's records before
//! it steps the next command, so that a batch of commands can be appended at once. When an append
//! fails, the shell restores the committed image and refuses the commands of that batch.
//!
//! Invariants (the property test drives any sequence of commands against them):
//!
//! - CTRL-1: a refused item has no record, but for an ISR whose change led to a new leader; a reply without a
//!   refusal has its records.
//! - CTRL-2: META-1 to META-4 hold after every decision.
//! - CTRL-3: a leader is an unfenced broker that is not shutting down, from the ISR; when that is empty, from the ELR;
//!   when that is empty, too, the last leader; or any replica where the topic allows an unclean election.
//! - CTRL-4: the same seed, settings and commands give the same records.
//! - CTRL-5: the index of leaders, ISRs and ELRs equals the image.
//! - CTRL-6: whoever may lack what is committed is in neither ISR nor ELR: a replica leaves both when its broker
//!   registers without what it had, and the ELR has members only while nothing is committed.
//!
//! Pure; nothing here assumes that there is one node. Called by `broker::quorum` on the leader.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod brokers;
mod change;
mod command;
mod configs;
mod features;
mod index;
mod items;
mod names;
mod partitions;
mod placement;
mod random;
mod reassignment;
mod topics;
mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::{BrokerConfig, ConfigMap};
use crate::error::{Error, Result};
use crate::machine::Replicated;
use crate::machine::metadata::{ConfigResource, MetadataDelta, MetadataImage, MetadataRecord};
use crate::types::{NodeId, Offset};

pub use command::{
    AllocateProducerIds, AlterConfigs, AlterPartition, AlterPartitionReassignments, Bootstrap,
    BrokerHeartbeat, BrokerRegistration, BuryBroker, Command, CreatePartitions, CreateTopics,
    DeleteTopics, ElectLeaders, IncrementalAlterConfigs, Refusal, UnregisterBroker, UpdateFeatures,
};
pub use configs::config_resource;
pub use items::{
    ConfigAlteration, CreatedTopic, DeletedTopic, Election, FeatureUpdate, HeartbeatState,
    IncrementalAlteration, IsrChange, IsrState, NewPartitions, NewTopic, Predecessor,
    ProducerIdBlock, Reassignment, TopicRef, UpgradeType,
};
pub use names::{METADATA_TOPIC, check_topic_name};
pub use wire::{AnyCommand, AnyReply, COMMAND_VERSION, CommandAnswer, Travels};

use index::PartitionsByBroker;
use random::Draw;

/// The most partitions that one command may create.
pub const PARTITIONS_PER_COMMAND_MAX: usize = 10_000;
/// How many producer ids a broker gets at a time.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1000;

/// How long the controller may go without being called while it waits for brokers.
pub const STEP_INTERVAL_MAX: Duration = Duration::from_millis(500);

/// Append `records` as one, apply them, and then reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision<R> {
    /// What changes; nothing when a command was refused, or only checked.
    pub records: Vec<MetadataRecord>,
    /// What to answer once the records are committed.
    pub reply: R,
}

/// The controller of a cluster.
#[derive(Clone, Debug)]
pub struct Controller {
    /// The node in whose process this controller runs.
    local: NodeId,
    /// The settings of this node; defaults of topics come from here.
    config: BrokerConfig,
    /// The most replicas that a node may have. Nodes are taken to be alike.
    replicas_max: usize,
    /// The metadata, committed or about to be.
    image: MetadataImage,
    /// The source of ids and of starting points for placements.
    draw: Draw,
    /// The partitions of the image by broker.
    index: PartitionsByBroker,
    /// What was last heard from each broker. Soft: it is reset with every leadership.
    heard: BTreeMap<NodeId, Heard>,
    /// When it was last called in this leadership.
    called: Option<Duration>,
    /// When leaders are next moved back to preferred replicas. Soft.
    next_balance: Duration,
    /// A broker that was last heard before this leadership, and when. Soft.
    silent: Option<(NodeId, Duration)>,
}

/// The last sign of life of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Heard {
    /// When; what the controller itself stood still since is added.
    at: Duration,
    /// The offset up to which the metadata was in effect there.
    metadata: Offset,
}

impl Controller {
    /// A controller that starts from `image`. The seed must differ from start to start.
    #[must_use]
    pub fn new(local: NodeId, config: BrokerConfig, image: MetadataImage, seed: [u64; 2]) -> Self {
        let index = PartitionsByBroker::of(&image);
        let draw = Draw::new(seed);
        let (heard, called) = (BTreeMap::new(), None);
        let (next_balance, silent) = (Duration::ZERO, None);
        let replicas_max = usize::MAX;
        Self {
            local,
            config,
            replicas_max,
            image,
            draw,
            index,
            heard,
            called,
            next_balance,
            silent,
        }
    }

    /// The same, on nodes whose processes may have so many files open. Each replica has one; an eighth is left for
    /// connections and everything else.
    #[must_use]
    pub fn with_files_max(mut self, files: Option<u64>) -> Self {
        let replicas = files.map(|files| files - files / 8);
        self.replicas_max =
            replicas.map_or(usize::MAX, |max| usize::try_from(max).unwrap_or(usize::MAX));
        self
    }

    /// The metadata as of the last record that was applied.
    #[must_use]
    pub fn image(&self) -> &MetadataImage {
        &self.image
    }

    /// The settings that topics inherit: this node's, and those made at run time for all.
    fn inherited(&self) -> BrokerConfig {
        let cluster = self.image.config(&ConfigResource::ClusterDefault);
        // Stored settings have been checked; if they do not resolve, the static settings apply.
        self.config.with_dynamic(cluster, &ConfigMap::new()).unwrap_or_else(|_| self.config.clone())
    }

    /// Takes a command, at a time of the monotonic clock.
    pub fn decide<C: Command>(&mut self, now: Duration, command: C) -> Decision<C::Reply> {
        self.wake(now);
        let mut records = Vec::new();
        let reply = command.decide(self, now, &mut records);
        Decision { records, reply }
    }

    /// Says what changes because the deadline has passed.
    pub fn tick(&mut self, now: Duration) -> Vec<MetadataRecord> {
        self.wake(now);
        let mut records = self.fence_silent(now);
        if records.is_empty() {
            self.balance(now, &mut records);
        }
        records
    }

    /// When [`Controller::tick`] must be called at the latest; `None` when it only waits for commands.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Duration> {
        let first = self.heard.values().min_by_key(|heard| heard.at)?;
        let session = self.session_end(*first);
        Some(self.called.map_or(session, |called| session.min(called + STEP_INTERVAL_MAX)))
    }

    /// Takes note of the time, and adds to every deadline what the controller itself stood still.
    fn wake(&mut self, now: Duration) {
        match self.called.replace(now) {
            None => {
                self.give_time(now);
                self.count_silence(now);
                self.next_balance = now + self.balance_interval();
            }
            Some(before) => {
                let stall = now.saturating_sub(before).saturating_sub(STEP_INTERVAL_MAX);
                for heard in self.heard.values_mut() {
                    heard.at += stall;
                }
            }
        }
    }
}

impl Replicated for Controller {
    type Record = MetadataRecord;
    type Error = Error;

    /// Takes one record. Use [`Controller::apply_all`] for many: every call creates an image.
    fn apply(&mut self, record: &MetadataRecord) -> Result<()> {
        self.apply_all(std::slice::from_ref(record))
    }
}

impl Controller {
    /// Starts again from an image, and forgets the soft state.
    pub fn restore(&mut self, image: MetadataImage) {
        self.index = PartitionsByBroker::of(&image);
        self.image = image;
        self.heard.clear();
        self.called = None;
        self.silent = None;
    }

    /// Before a leadership begins: this broker was last heard then, in another way than by its heartbeats. It led the
    /// quorum, so its silence is why there is another leader.
    pub fn note_silence(&mut self, silent: Option<(NodeId, Duration)>) {
        self.silent = silent;
    }

    /// Takes the records of one decision.
    ///
    /// # Errors
    ///
    /// A record that does not fit; the image is then unchanged.
    pub fn apply_all(&mut self, records: &[MetadataRecord]) -> Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        let mut delta = MetadataDelta::new(self.image.clone());
        for record in records {
            delta.replay(record)?;
        }
        self.image = delta.apply(self.image.offset, self.image.epoch);
        self.index.follow(&delta, &self.image);
        Ok(())
    }
}

#[cfg(test)]
mod eligible_tests;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tier_tests;
