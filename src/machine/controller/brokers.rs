//! Brokers: registration, heartbeats, fencing, leaving, and their blocks of producer ids.
//!
//! ```text
//!            register                heartbeat, caught up
//!   (none) ───────────► fenced ────────────────────────────► active
//!                         ▲  ◄──── silence, or its own wish ────┤
//!                         │                                     │ wants to stop
//!                         └────── silence ── shutting down ◄────┘
//! ```

use std::sync::Arc;
use std::time::Duration;

use super::command::{BrokerHeartbeat, BrokerRegistration, Refusal};
use super::items::{HeartbeatState, ProducerIdBlock};
use super::{Controller, PRODUCER_ID_BLOCK_SIZE};
use crate::error::ErrorCode;
use crate::machine::metadata::{BrokerImage, MetadataRecord};
use crate::types::{BrokerEpoch, NodeId, ProducerId};

impl Controller {
    pub(super) fn bootstrap(
        &self,
        cluster_id: &Arc<str>,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<(), Refusal> {
        if let Some(known) = self.image.cluster_id() {
            if known != cluster_id {
                return Err(other_cluster(cluster_id, known));
            }
        } else {
            records.push(MetadataRecord::Cluster { id: cluster_id.clone() });
        }
        self.add_features(records);
        Ok(())
    }

    pub(super) fn register(
        &mut self,
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
        if let Some(known) = self.image.broker(id) {
            if known.incarnation == registration.incarnation {
                return Ok(known.epoch);
            }
            if self.heard.contains_key(&id) && !known.shutting_down {
                let text = format!(
                    "broker {id} is already running as another process; give this one a different \
                     node.id"
                );
                return Err(Refusal::new(ErrorCode::DuplicateBrokerRegistration, text));
            }
        }
        let epoch = BrokerEpoch(self.image.last_broker_epoch().0 + 1);
        records.push(MetadataRecord::RegisterBroker {
            id,
            incarnation: registration.incarnation,
            epoch,
            endpoints: registration.endpoints,
            rack: registration.rack,
            fenced: !registration.ready,
        });
        self.heard.remove(&id);
        if registration.ready {
            // A new process starts a new term: followers and clients must see a higher one, because
            // what the old process had not synced may be gone.
            self.lead_anew(id, records);
        } else {
            self.leave_leadership(id, records);
        }
        Ok(epoch)
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Duration,
        heartbeat: &BrokerHeartbeat,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<HeartbeatState, Refusal> {
        let broker = self.checked_broker(heartbeat.id, heartbeat.epoch)?;
        if heartbeat.id != self.local {
            self.heard.insert(heartbeat.id, now);
        }
        let shutting_down = broker.shutting_down || (heartbeat.want_shutdown && !broker.fenced);
        let fenced = heartbeat.want_fence || (broker.fenced && heartbeat.want_shutdown);
        if (fenced, shutting_down) != (broker.fenced, broker.shutting_down) {
            records.push(MetadataRecord::ChangeBroker {
                id: broker.id,
                epoch: broker.epoch,
                fenced,
                shutting_down,
            });
            if fenced || shutting_down {
                self.leave_leadership(broker.id, records);
            } else {
                self.take_leadership(broker.id, records);
            }
        }
        // Once this is committed it leads nothing.
        let may_stop = shutting_down || (fenced && heartbeat.want_shutdown);
        Ok(HeartbeatState { fenced, may_stop })
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
        if id == self.local || (broker.is_active() && self.heard.contains_key(&id)) {
            let text = format!(
                "broker {id} is running, and would serve on without its partitions; stop it first"
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        self.leave_leadership(id, records);
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
        let Some(id) = silent.first() else { return records };
        self.heard.remove(id);
        if let Some(broker) = self.image.broker(*id).cloned().filter(|broker| !broker.fenced) {
            records.push(MetadataRecord::ChangeBroker {
                id: *id,
                epoch: broker.epoch,
                fenced: true,
                shutting_down: broker.shutting_down,
            });
            self.leave_leadership(*id, &mut records);
        }
        records
    }

    /// Gives every other active broker a whole session to report to this new controller.
    pub(super) fn give_time(&mut self, now: Duration) {
        let local = self.local;
        let others = self.image.brokers().filter(|broker| !broker.fenced && broker.id != local);
        self.heard.extend(others.map(|broker| (broker.id, now)));
    }

    pub(super) fn session_end(&self, heard: Duration) -> Duration {
        let timeout = self.config.broker_session_timeout_ms.max(0).unsigned_abs();
        heard + Duration::from_millis(timeout.into())
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
