//! The controller: it decides what the cluster should become.
//!
//! A [`Command`] comes in, a [`Decision`] goes out: the records that carry it out and the reply to
//! give once they are committed. The controller reads its image of the metadata and never changes
//! it itself: the shell appends the records and feeds them back through [`Replicated::apply`].
//!
//! ```text
//! handler ──Command──► step ──Decision{records, reply}──► append ──► apply(record)*
//!                                        └───────── after commit ──────────► handler
//! ```
//!
//! The image here may run ahead of what is committed: the shell applies a decision's records before
//! it steps the next command, so that a batch of commands can be appended at once. When an append
//! fails, the shell restores the committed image and refuses the commands of that batch.
//!
//! Invariants (the property test drives any sequence of commands against them):
//!
//! - CTRL-1: a refused item has no record; a reply without a refusal has its records.
//! - CTRL-2: META-1 to META-4 hold after every decision.
//! - CTRL-3: a leader is an unfenced broker that is not shutting down, from the ISR, unless the
//!   topic allows an unclean election.
//! - CTRL-4: the same seed, settings and commands give the same records.
//!
//! Pure; nothing here assumes that there is one node. Called by `broker::quorum` on the leader.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod brokers;
mod command;
mod configs;
mod names;
mod partitions;
mod placement;
mod random;
mod topics;

use std::collections::BTreeMap;

use crate::config::{BrokerConfig, ConfigMap, TopicConfig};
use crate::error::{Error, Result};
use crate::machine::metadata::{ConfigResource, MetadataDelta, MetadataImage, MetadataRecord};
use crate::machine::{Machine, Replicated};
use crate::types::{NodeId, TimestampMs};

pub use command::{
    BrokerHeartbeat, BrokerRegistration, Command, ConfigAlteration, CreatedTopic, DeletedTopic,
    Election, HeartbeatState, IncrementalAlteration, IsrChange, IsrState, NewPartitions, NewTopic,
    ProducerIdBlock, Refusal, Reply, TopicRef,
};
pub use configs::config_resource;
pub use names::{METADATA_TOPIC, check_topic_name};

use random::Draw;

/// The most partitions that one command may create.
pub const PARTITIONS_PER_COMMAND_MAX: usize = 10_000;
/// How many producer ids a broker gets at a time.
pub const PRODUCER_ID_BLOCK_SIZE: i32 = 1000;

/// Identifies a command until its reply.
pub type RequestId = u64;

/// What can happen to the controller.
#[derive(Clone, Debug)]
pub enum Event {
    /// A caller asks for something.
    Command {
        /// Who waits for the reply.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// The deadline has passed.
    Tick,
}

/// Append `records` as one, apply them, and then reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Who waits for the reply; nobody after a tick.
    pub request: Option<RequestId>,
    /// What changes; nothing when a command was refused, or only checked.
    pub records: Vec<MetadataRecord>,
    /// What to answer once the records are committed.
    pub reply: Reply,
}

/// The controller of a cluster.
#[derive(Clone, Debug)]
pub struct Controller {
    /// The node in whose process this controller runs: it lives as long as the controller does.
    local: NodeId,
    /// The settings of this node; defaults of topics come from here.
    config: BrokerConfig,
    /// The metadata, committed or about to be.
    image: MetadataImage,
    /// The source of ids and of starting points for placements.
    draw: Draw,
    /// When each other broker was last heard from. Soft: it is reset with every leadership.
    heard: BTreeMap<NodeId, TimestampMs>,
    /// Whether the brokers that were active before this leadership have been given their time.
    primed: bool,
}

impl Controller {
    /// A controller that starts from `image`. The seed must differ from start to start.
    #[must_use]
    pub fn new(local: NodeId, config: BrokerConfig, image: MetadataImage, seed: [u64; 2]) -> Self {
        Self { local, config, image, draw: Draw::new(seed), heard: BTreeMap::new(), primed: false }
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

    /// Whether a topic's leader may be elected outside its ISR.
    fn allows_unclean(&self, topic: &str, inherited: &BrokerConfig) -> bool {
        TopicConfig::resolve(self.image.topic_config(topic), inherited)
            .is_ok_and(|config| config.unclean_leader_election_enable)
    }

    fn decide(&mut self, now: TimestampMs, command: Command) -> (Vec<MetadataRecord>, Reply) {
        let mut records = Vec::new();
        let reply = match command {
            Command::Bootstrap { cluster_id } => self.bootstrap(&cluster_id, &mut records),
            Command::RegisterBroker(registration) => self.register(registration, &mut records),
            Command::Heartbeat(heartbeat) => self.heartbeat(now, &heartbeat, &mut records),
            Command::UnregisterBroker { id } => self.unregister(id, &mut records),
            Command::CreateTopics { topics, validate_only } => {
                self.create_topics(topics, validate_only, &mut records)
            }
            Command::DeleteTopics { topics } => self.delete_topics(&topics, &mut records),
            Command::CreatePartitions { topics, validate_only } => {
                self.create_partitions(topics, validate_only, &mut records)
            }
            Command::AlterConfigs { resources, validate_only } => {
                self.alter_configs(resources, validate_only, &mut records)
            }
            Command::IncrementalAlterConfigs { resources, validate_only } => {
                self.incremental_alter_configs(resources, validate_only, &mut records)
            }
            Command::AlterPartition { broker, epoch, changes } => {
                self.alter_partition(broker, epoch, &changes, &mut records)
            }
            Command::ElectLeaders { election, partitions } => {
                self.elect_leaders(election, partitions, &mut records)
            }
            Command::AllocateProducerIds { broker, epoch } => {
                self.allocate_producer_ids(broker, epoch, &mut records)
            }
        };
        (records, reply)
    }
}

impl Machine for Controller {
    type Event = Event;
    type Effect = Decision;

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Decision>) {
        if !self.primed {
            self.primed = true;
            self.give_time(now);
        }
        match event {
            Event::Command { request, command } => {
                let (records, reply) = self.decide(now, command);
                out.push(Decision { request: Some(request), records, reply });
            }
            Event::Tick => {
                let records = self.fence_silent(now);
                if !records.is_empty() {
                    out.push(Decision { request: None, records, reply: Reply::Done(Ok(())) });
                }
            }
        }
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        self.heard.values().min().map(|heard| self.session_end(*heard))
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
        self.image = image;
        self.heard.clear();
        self.primed = false;
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
        Ok(())
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
