//! The requests of a member, encoded for the version that the coordinator knows, with answers in
//! the machine's types.
//!
//! Joins, syncs and heartbeats use a separate connection, because a join is answered only when the
//! rebalance is over. A leave does not use it: it must not wait behind a join.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::options::GroupOptions;
use crate::client::cluster::Lane;
use crate::client::coordinator::{Coordinator, by_topic};
use crate::client::errors;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::group::assignor::{Assignor, MemberSubscription, Members};
use crate::machine::client::group::{
    Answer, Beat, Beaten, Joined, PartitionIds, Partitions, Request, Wanted,
};
use crate::protocol::Str;
use crate::protocol::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, OwnedTopicPartitions,
};
use crate::protocol::messages::heartbeat::HeartbeatRequest;
use crate::protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use crate::protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use crate::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use crate::protocol::records::consumer_protocol::{
    AssignedPartition, ConsumerProtocolAssignment, ConsumerProtocolSubscription, OwnedPartition,
};
use crate::protocol::records::{read_embedded, write_versioned};
use crate::types::{PartitionIndex, TopicId, TopicPartition};

/// The protocol type of groups whose members consume.
pub(crate) const CONSUMER: &str = "consumer";

/// The version in which subscriptions and assignments are written; older members read the part that
/// they know.
const EMBEDDED_VERSION: i16 = 3;

/// How long after the rebalance timeout the answer to a join may still come.
const JOIN_SLACK: Duration = Duration::from_secs(5);

/// What the requests of a member have in common.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) coordinator: Arc<Coordinator>,
    pub(super) options: Arc<GroupOptions>,
    pub(super) lane: Lane,
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}

impl Wire {
    fn group_id(&self) -> Str {
        Str::from(self.options.group_id.as_str())
    }

    fn instance_id(&self) -> Option<Str> {
        self.options.instance_id.as_deref().map(Str::from)
    }

    /// The instance id, for versions that have it; older ones cannot have static members.
    fn instance_since(&self, known: bool) -> Result<Option<Str>> {
        let instance_id = self.instance_id();
        if instance_id.is_some() && !known {
            let context = "group.instance.id: the broker is too old for static members";
            return Err(errors::unsupported(context));
        }
        Ok(instance_id)
    }

    /// For requests whose answer waits for other members.
    fn patient(&self) -> Duration {
        let config = &self.coordinator.cluster.config;
        config.request_timeout.max(self.options.rebalance_timeout.saturating_add(JOIN_SLACK))
    }

    fn prompt(&self) -> Duration {
        self.coordinator.cluster.config.request_timeout
    }

    /// Sends a request and reads its answer.
    pub(super) async fn send(&self, request: Request) -> Result<Answer> {
        match request {
            Request::Join { member_id, protocols, reason } => {
                self.join(&member_id, &protocols, reason).await
            }
            Request::Sync { member_id, generation, assignor, assignment } => {
                self.sync(&member_id, generation, assignor, assignment).await
            }
            Request::Heartbeat { member_id, generation } => {
                self.heartbeat(&member_id, generation).await
            }
            Request::Leave { member_id, reason } => self.leave(&member_id, reason).await,
            Request::Beat(beat) => self.beat(beat).await,
        }
    }

    async fn join(
        &self,
        member_id: &str,
        protocols: &[(Assignor, MemberSubscription)],
        reason: &'static str,
    ) -> Result<Answer> {
        let build = |version| {
            let protocol = |(assignor, subscription): &(Assignor, MemberSubscription)| {
                Ok(JoinGroupRequestProtocol {
                    name: Str::from_static(assignor.name()),
                    metadata: write_subscription(subscription)?,
                })
            };
            Ok(JoinGroupRequest {
                group_id: self.group_id(),
                session_timeout_ms: millis(self.options.session_timeout),
                rebalance_timeout_ms: millis(self.options.rebalance_timeout),
                member_id: Str::from(member_id),
                group_instance_id: self.instance_since(version >= 5)?,
                protocol_type: Str::from_static(CONSUMER),
                protocols: protocols.iter().map(protocol).collect::<Result<_>>()?,
                reason: Some(Str::from_static(reason)),
            })
        };
        let response = self.coordinator.call(self.lane, self.patient(), i16::MAX, build).await?;
        if ErrorCode::from_i16(response.error_code) == ErrorCode::MemberIdRequired {
            return Ok(Answer::MemberIdRequired(response.member_id.to_string()));
        }
        self.coordinator.check(response.error_code, || "joining".to_owned())?;
        Ok(Answer::Joined(joined(response)?))
    }

    async fn sync(
        &self,
        member_id: &str,
        generation: i32,
        assignor: Assignor,
        assignment: BTreeMap<String, Vec<TopicPartition>>,
    ) -> Result<Answer> {
        let build = |version| {
            let one = |(member_id, partitions): (String, Vec<TopicPartition>)| {
                Ok(SyncGroupRequestAssignment {
                    member_id: Str::from(member_id.as_str()),
                    assignment: write_assignment(&partitions)?,
                })
            };
            Ok(SyncGroupRequest {
                group_id: self.group_id(),
                generation_id: generation,
                member_id: Str::from(member_id),
                group_instance_id: self.instance_since(version >= 3)?,
                protocol_type: Some(Str::from_static(CONSUMER)),
                protocol_name: Some(Str::from_static(assignor.name())),
                assignments: assignment.into_iter().map(one).collect::<Result<_>>()?,
            })
        };
        let response = self.coordinator.call(self.lane, self.patient(), i16::MAX, build).await?;
        self.coordinator.check(response.error_code, || "receiving its assignment".to_owned())?;
        Ok(Answer::Synced(read_assignment(response.assignment)?))
    }

    async fn heartbeat(&self, member_id: &str, generation: i32) -> Result<Answer> {
        let timeout = self.prompt().min(self.options.session_timeout);
        let build = |version| {
            Ok(HeartbeatRequest {
                group_id: self.group_id(),
                generation_id: generation,
                member_id: Str::from(member_id),
                group_instance_id: self.instance_since(version >= 3)?,
            })
        };
        let response = self.coordinator.call(self.lane, timeout, i16::MAX, build).await?;
        self.coordinator.check(response.error_code, || "a heartbeat".to_owned())?;
        Ok(Answer::Heard)
    }

    async fn leave(&self, member_id: &str, reason: &'static str) -> Result<Answer> {
        let build = |version| {
            let member = MemberIdentity {
                member_id: Str::from(member_id),
                reason: Some(Str::from_static(reason)),
                ..MemberIdentity::default()
            };
            Ok(LeaveGroupRequest {
                group_id: self.group_id(),
                member_id: Str::from(if version < 3 { member_id } else { "" }),
                members: if version < 3 { Vec::new() } else { vec![member] },
            })
        };
        let response = self.coordinator.call(Lane::Control, self.prompt(), i16::MAX, build).await?;
        self.coordinator.check(response.error_code, || "leaving".to_owned())?;
        Ok(Answer::Heard)
    }

    async fn beat(&self, beat: Beat) -> Result<Answer> {
        let is_leave = beat.epoch < 0;
        let lane = if is_leave { Lane::Control } else { self.lane };
        let build = |version| self.consumer_heartbeat(beat, version);
        let response = self.coordinator.call(lane, self.prompt(), i16::MAX, build).await;
        let response = response.map_err(|error| match error.code() {
            ErrorCode::UnsupportedVersion => Error::kafka(
                ErrorCode::UnsupportedVersion,
                format!("{error}; use group.protocol=classic with this cluster"),
            ),
            _ => error,
        })?;
        let what = || response.error_message.as_deref().unwrap_or("a heartbeat").to_owned();
        self.coordinator.check(response.error_code, what)?;
        Ok(Answer::Beaten(beaten(response)))
    }

    fn consumer_heartbeat(
        &self,
        beat: Beat,
        version: i16,
    ) -> Result<ConsumerGroupHeartbeatRequest> {
        let rack = self.coordinator.cluster.config.client_rack.as_str();
        let rack = Some(rack).filter(|rack| beat.joining && !rack.is_empty());
        let (mut topics, mut pattern) = (None, None);
        match beat.wanted {
            Some(Wanted::Topics(names)) => {
                topics = Some(names.iter().map(|name| Str::from(&**name)).collect());
            }
            Some(Wanted::Pattern(_)) if version < 1 => {
                let context = "a topic pattern: the broker is too old to match it";
                return Err(errors::unsupported(context));
            }
            Some(Wanted::Pattern(text)) => pattern = Some(Str::from(text.as_str())),
            None => {}
        }
        let rebalance_timeout_ms =
            if beat.joining { millis(self.options.rebalance_timeout) } else { -1 };
        let assignor = self.options.remote_assignor.as_deref().filter(|_| beat.joining);
        Ok(ConsumerGroupHeartbeatRequest {
            group_id: self.group_id(),
            member_id: Str::from(beat.member_id.as_str()),
            member_epoch: beat.epoch,
            instance_id: self.instance_id(),
            rack_id: rack.map(Str::from),
            rebalance_timeout_ms,
            subscribed_topic_names: topics,
            subscribed_topic_regex: pattern,
            server_assignor: assignor.map(Str::from),
            topic_partitions: beat.owned.map(|owned| owned_partitions(&owned)),
        })
    }
}

fn owned_partitions(owned: &PartitionIds) -> Vec<OwnedTopicPartitions> {
    let mut topics: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in owned {
        topics.entry(*topic).or_default().push(partition.0);
    }
    let one = |(topic_id, partitions)| OwnedTopicPartitions { topic_id, partitions };
    topics.into_iter().map(one).collect()
}

fn beaten(response: ConsumerGroupHeartbeatResponse) -> Beaten {
    let ids = |assignment: crate::protocol::messages::consumer_group_heartbeat::Assignment| {
        let topics = assignment.topic_partitions.into_iter();
        topics
            .flat_map(|topic| {
                topic.partitions.into_iter().map(move |one| (topic.topic_id, PartitionIndex(one)))
            })
            .collect()
    };
    Beaten {
        epoch: response.member_epoch,
        interval_ms: i64::from(response.heartbeat_interval_ms),
        assignment: response.assignment.map(ids),
    }
}

fn joined(response: JoinGroupResponse) -> Result<Joined> {
    let is_leader = response.leader == response.member_id;
    let mut members = Members::new();
    for member in response.members {
        let mut subscription = read_subscription(member.metadata)?;
        subscription.instance_id = member.group_instance_id.map(|id| id.to_string());
        members.insert(member.member_id.to_string(), subscription);
    }
    Ok(Joined {
        member_id: response.member_id.to_string(),
        generation: response.generation_id,
        assignor: response.protocol_name.map(|name| name.to_string()).unwrap_or_default(),
        members: is_leader.then_some(members),
        skip_assignment: response.skip_assignment,
    })
}

fn write_subscription(subscription: &MemberSubscription) -> Result<Bytes> {
    let owned = |(topic, partitions): (&str, Vec<i32>)| OwnedPartition {
        topic: Str::from(topic),
        partitions,
    };
    let message = ConsumerProtocolSubscription {
        topics: subscription.topics.iter().map(|topic| Str::from(&**topic)).collect(),
        user_data: subscription.user_data.clone().map(Bytes::from),
        owned_partitions: by_topic(subscription.owned.iter()).into_iter().map(owned).collect(),
        generation_id: subscription.generation.unwrap_or(-1),
        rack_id: subscription.rack.as_deref().map(Str::from),
    };
    write_versioned(&message, EMBEDDED_VERSION)
}

/// Reads the subscription that a member sends when it joins.
pub(crate) fn read_subscription(bytes: Bytes) -> Result<MemberSubscription> {
    let (version, message) = read_embedded::<ConsumerProtocolSubscription>(bytes)?;
    let mut owned = Vec::new();
    for topic in message.owned_partitions {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        owned.extend(
            topic.partitions.into_iter().map(|one| TopicPartition::new(Arc::clone(&name), one)),
        );
    }
    Ok(MemberSubscription {
        topics: message.topics.iter().map(|topic| Arc::from(topic.as_str())).collect(),
        user_data: message.user_data.map(|data| data.to_vec()),
        owned,
        // Members of version 1 own partitions but do not say in which generation.
        generation: (version >= 2).then_some(message.generation_id),
        rack: message.rack_id.map(|rack| rack.to_string()),
        instance_id: None,
    })
}

fn write_assignment(partitions: &[TopicPartition]) -> Result<Bytes> {
    let topic = |(topic, partitions): (&str, Vec<i32>)| AssignedPartition {
        topic: Str::from(topic),
        partitions,
    };
    let message = ConsumerProtocolAssignment {
        assigned_partitions: by_topic(partitions.iter()).into_iter().map(topic).collect(),
        user_data: None,
    };
    write_versioned(&message, EMBEDDED_VERSION)
}

/// Reads a member's assignment; no bytes mean no partitions.
pub(crate) fn read_assignment(bytes: Bytes) -> Result<Partitions> {
    if bytes.is_empty() {
        return Ok(BTreeSet::new());
    }
    let (_, message) = read_embedded::<ConsumerProtocolAssignment>(bytes)?;
    let mut partitions = Partitions::new();
    for topic in message.assigned_partitions {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        partitions.extend(
            topic.partitions.into_iter().map(|one| TopicPartition::new(Arc::clone(&name), one)),
        );
    }
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subscription_is_the_same_after_bytes_and_back() {
        let subscription = MemberSubscription {
            topics: vec![Arc::from("a"), Arc::from("b")],
            user_data: Some(vec![1, 2, 3]),
            owned: vec![TopicPartition::new("a", 0), TopicPartition::new("a", 3)],
            generation: Some(4),
            rack: Some("r".to_owned()),
            instance_id: None,
        };
        let bytes = write_subscription(&subscription).unwrap();
        assert_eq!(read_subscription(bytes).unwrap(), subscription);
    }

    #[test]
    fn an_assignment_is_the_same_after_bytes_and_back() {
        let partitions = [("a", 1), ("b", 0), ("b", 2)].map(|(t, p)| TopicPartition::new(t, p));
        let bytes = write_assignment(&partitions).unwrap();
        assert_eq!(read_assignment(bytes).unwrap(), Partitions::from(partitions));
        assert_eq!(read_assignment(Bytes::new()).unwrap(), Partitions::new());
    }
}
