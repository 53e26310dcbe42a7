//! Brokers: registration, heartbeats, fencing, leaving, and their blocks of producer ids.
//!
//! ```text
//!            register                heartbeat, caught up
//!   (none) ───────────► fenced ────────────────────────────► active
//!                         ▲  ◄──── silence, or its own wish ────┤
//!                         │                                     │ wants to stop
//!                         └─ may stop, or ─ shutting down ◄─────┘
//!                            silence
//! ```
//!
//! A broker that registers anew, in a new process, need not wait for the end of its predecessor's session when it has
//! the predecessor's directory: the lock of the directory proves that the predecessor is gone. (Kafka waits.) That holds
//! for the first registration of a process alone. One that was running, and was superseded, must not supersede its
//! successor in turn: then there are two copies of one directory, and their processes would take turns for ever.

use std::sync::Arc;
use std::time::Duration;

use super::command::{Bootstrap, BrokerHeartbeat, BrokerRegistration, Refusal};
use super::items::{HeartbeatState, Predecessor, ProducerIdBlock};
use super::partitions::Left;
use super::{Controller, Heard, PRODUCER_ID_BLOCK_SIZE};
use crate::error::ErrorCode;
use crate::machine::metadata::{BrokerImage, MetadataRecord};
#[cfg(test)]
use crate::machine::replica::mistakes::{Mistake, is_planted};
use crate::types::{BrokerEpoch, NodeId, Offset, ProducerId, Uuid};

impl Controller {
    pub(super) fn bootstrap(
        &self,
        Bootstrap { cluster_id, is_proposal }: Bootstrap,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<Arc<str>, Refusal> {
        let id = match self.image.cluster_id() {
            Some(known) if *known != cluster_id && !is_proposal => {
                return Err(other_cluster(&cluster_id, known));
            }
            Some(known) => known.clone(),
            None => {
                records.push(MetadataRecord::Cluster { id: cluster_id.clone() });
                cluster_id
            }
        };
        self.add_features(records);
        Ok(id)
    }

    pub(super) fn register(
        &mut self,
        now: Duration,
        registration: BrokerRegistration,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<BrokerEpoch, Refusal> {
        let id = registration.id;
        if let (Some(theirs), Some(ours)) = (&registration.cluster_id, self.image.cluster_id())
            && theirs != ours
        {
            return Err(other_cluster(theirs, ours));
        }
        if id.0 < 0 {
            let text = format!("{id} is not a node id");
            return Err(Refusal::new(ErrorCode::InvalidRegistration, text));
        }
        let known = self.image.broker(id).cloned();
        if let Some(known) = &known {
            if known.incarnation == registration.incarnation {
                return Ok(known.epoch);
            }
            let is_proven_dead = registration.is_first
                && known.directory_id != Uuid::ZERO
                && known.directory_id == registration.directory_id;
            if self.heard.contains_key(&id) && !known.shutting_down && !is_proven_dead {
                let text = format!(
                    "broker {id} is already running as another process, with the directory {}; give \
                     this one, with the directory {}, a different node.id",
                    known.directory_id, registration.directory_id
                );
                return Err(Refusal::new(ErrorCode::DuplicateBrokerRegistration, text));
            }
        }
        let left = known.map_or(Left::Unknown, |known| self.left(&known, registration.predecessor));
        let epoch = BrokerEpoch(self.image.last_broker_epoch().0 + 1);
        records.push(MetadataRecord::RegisterBroker {
            id,
            incarnation: registration.incarnation,
            directory_id: registration.directory_id,
            epoch,
            endpoints: registration.endpoints,
            rack: registration.rack,
            fenced: !registration.ready,
        });
        if registration.ready {
            // A new process starts a new term: followers and clients must see a higher one, because
            // what the old process had not synced may be gone.
            self.lead_anew(id, &left, records);
        } else {
            self.leave_leadership(id, &left, records);
        }
        self.hear(id, now, Offset::UNKNOWN);
        Ok(epoch)
    }

    /// What a broker that registers anew has of what it had in the registration that is known.
    fn left(&self, known: &BrokerImage, predecessor: Option<Predecessor>) -> Left<'_> {
        #[cfg(test)]
        if is_planted(Mistake::TrustsLostCopies) {
            return Left::All;
        }
        match predecessor.filter(|one| one.epoch == known.epoch) {
            Some(Predecessor { left_all: true, .. }) => Left::All,
            Some(Predecessor { durability: Some(durability), .. }) => self
                .policies_of(known.id, &durability)
                .map_or(Left::Unknown, |policies| Left::Synced(Box::new(policies))),
            Some(Predecessor { durability: None, .. }) | None => Left::Unknown,
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Duration,
        heartbeat: &BrokerHeartbeat,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<HeartbeatState, Refusal> {
        let broker = self.checked_broker(heartbeat.id, heartbeat.epoch)?;
        self.hear(heartbeat.id, now, heartbeat.metadata_offset);
        let wants_shutdown = heartbeat.want_shutdown;
        let shutting_down = broker.shutting_down || (wants_shutdown && !broker.fenced);
        let may_stop =
            wants_shutdown && (broker.fenced || self.others_know(broker.id, heartbeat.handed_over));
        let fenced = heartbeat.want_fence || may_stop;
        if (fenced, shutting_down) != (broker.fenced, broker.shutting_down) {
            records.push(MetadataRecord::ChangeBroker {
                id: broker.id,
                epoch: broker.epoch,
                fenced,
                shutting_down,
            });
            if fenced || shutting_down {
                self.leave_leadership(broker.id, &Left::All, records);
            } else {
                self.take_leadership(broker.id, records);
            }
        }
        // Once this is committed it leads nothing.
        Ok(HeartbeatState { fenced, may_stop })
    }

    /// Whether every other active broker has the metadata up to an offset in effect: their clients are then told of the
    /// new leaders before the old one closes its connections.
    fn others_know(&self, id: NodeId, handed_over: Option<Offset>) -> bool {
        let mut others =
            self.image.brokers().filter(|broker| broker.id != id && broker.is_active());
        others.all(|broker| {
            let heard = self.heard.get(&broker.id);
            let metadata = heard.map_or(Offset::UNKNOWN, |heard| heard.metadata);
            !self.is_watched(broker.id) || handed_over.is_some_and(|offset| metadata >= offset)
        })
    }

    /// Whether a broker must be heard from. One that was started alone lives as long as its controller does; that others
    /// have joined it matters to a controller on one of them.
    pub(super) fn is_watched(&self, id: NodeId) -> bool {
        id != self.local || self.config.has_peers()
    }

    fn hear(&mut self, id: NodeId, at: Duration, metadata: Offset) {
        if self.is_watched(id) {
            self.heard.insert(id, Heard { at, metadata });
        }
    }

    pub(super) fn unregister(
        &mut self,
        id: NodeId,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        let Some(broker) = self.image.broker(id).cloned() else {
            let text = format!("broker {id} is not registered");
            return Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, text));
        };
        if !self.is_watched(id) || (broker.is_active() && self.heard.contains_key(&id)) {
            let text = format!(
                "broker {id} is running, and would serve on without its partitions; stop it first"
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        self.leave_leadership(id, &Left::All, records);
        records.push(MetadataRecord::UnregisterBroker { id, epoch: broker.epoch });
        self.heard.remove(&id);
        Ok(())
    }

    /// Fences the brokers whose session ended.
    pub(super) fn fence_silent(&mut self, now: Duration) -> Vec<MetadataRecord> {
        let silent: Vec<NodeId> = self
            .heard
            .iter()
            .filter(|(_, heard)| self.session_end(**heard) <= now)
            .map(|(id, _)| *id)
            .collect();
        let mut records = Vec::new();
        // One at a time: which replica can take over depends on who else is gone.
        if let Some(id) = silent.first() {
            self.fence(*id, &mut records);
        }
        records
    }

    /// Fences a broker whose process is proven to have ended. A report about an earlier process is none about this one.
    pub(super) fn bury(
        &mut self,
        id: NodeId,
        epoch: BrokerEpoch,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        self.checked_broker(id, epoch)?;
        self.fence(id, records);
        Ok(())
    }

    fn fence(&mut self, id: NodeId, records: &mut Vec<MetadataRecord>) {
        self.heard.remove(&id);
        let Some(broker) = self.image.broker(id).cloned().filter(|broker| !broker.fenced) else {
            return;
        };
        records.push(MetadataRecord::ChangeBroker {
            id,
            epoch: broker.epoch,
            fenced: true,
            shutting_down: broker.shutting_down,
        });
        self.leave_leadership(id, &Left::All, records);
    }

    /// Gives every broker that may lead a whole session to report to this new controller.
    pub(super) fn give_time(&mut self, now: Duration) {
        let unfenced = self.image.brokers().filter(|broker| !broker.fenced);
        let ids: Vec<NodeId> = unfenced.map(|broker| broker.id).collect();
        for id in ids {
            self.hear(id, now, Offset::UNKNOWN);
        }
    }

    /// Has a session begin when its broker was last heard, up to half a session ago: whoever lives has the other half
    /// to find the new controller, also if it was this node that heard nothing.
    pub(super) fn count_silence(&mut self, now: Duration) {
        let Some((id, last)) = self.silent.take() else { return };
        let half = Duration::from_millis(self.config.cluster.session_timeout_ms.into()) / 2;
        if let Some(heard) = self.heard.get_mut(&id) {
            heard.at = heard.at.min(last.max(now.saturating_sub(half)));
        }
    }

    pub(super) fn session_end(&self, heard: Heard) -> Duration {
        heard.at + Duration::from_millis(self.config.cluster.session_timeout_ms.into())
    }

    pub(super) fn allocate_producer_ids(
        &self,
        broker: NodeId,
        epoch: BrokerEpoch,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<ProducerIdBlock, Refusal> {
        self.checked_broker(broker, epoch)?;
        let first = self.image.next_producer_id();
        let next = first.0.checked_add(i64::from(PRODUCER_ID_BLOCK_SIZE)).ok_or_else(|| {
            Refusal::new(ErrorCode::UnknownServerError, "there are no producer ids left")
        })?;
        let next = ProducerId(next);
        records.push(MetadataRecord::ProducerIds { broker, broker_epoch: epoch, next });
        Ok(ProducerIdBlock { first, count: PRODUCER_ID_BLOCK_SIZE })
    }

    /// The broker with this very registration.
    pub(super) fn checked_broker(
        &self,
        id: NodeId,
        epoch: BrokerEpoch,
    ) -> Result<Arc<BrokerImage>, Refusal> {
        match self.image.broker(id) {
            None => {
                let text = format!("broker {id} is not registered");
                Err(Refusal::new(ErrorCode::BrokerIdNotRegistered, text))
            }
            Some(broker) if broker.epoch != epoch => {
                let text = format!(
                    "broker {id} is registered with epoch {}, the request has {epoch}",
                    broker.epoch
                );
                Err(Refusal::new(ErrorCode::StaleBrokerEpoch, text))
            }
            Some(broker) => Ok(broker.clone()),
        }
    }

    /// Whether a broker is registered, and if so, whether it may get replicas.
    pub(super) fn known_active(&self, id: NodeId) -> Option<bool> {
        self.image.broker(id).map(|broker| broker.is_active())
    }

    pub(super) fn is_active(&self, id: NodeId) -> bool {
        self.known_active(id) == Some(true)
    }
}

fn other_cluster(theirs: &str, ours: &str) -> Refusal {
    let text = format!("the data belong to cluster {theirs}, but this is cluster {ours}");
    Refusal::new(ErrorCode::InconsistentClusterId, text)
}
