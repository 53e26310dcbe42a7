//! The fetches of a follower, each a part of its session: what it asks for, and what the answer is about.

use std::sync::Arc;
use std::time::Duration;

use super::fetcher::FetcherParts;
use crate::broker::parking::PartitionKey;
use crate::broker::partition::{CopyPoint, Partition};
use crate::machine::fetch_session::{FetchSessionHandler, FollowerView, SessionPart};
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, ForgottenTopic, PartitionData,
    ReplicaState,
};
use crate::types::{Offset, PartitionIndex, TopicPartition};

/// What a follower asks its leader for.
pub(super) type Session = FetchSessionHandler<PartitionKey, Asked>;

/// A partition, and where its copy stood when the leader was asked.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) key: PartitionKey,
    pub(super) partition: Arc<Partition>,
    pub(super) point: CopyPoint,
    /// The leader is told again after each assignment: it may have forgotten what it knew.
    pub(super) assignment: u64,
}

impl PartialEq for Asked {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.partition, &other.partition)
            && (self.key, self.point, self.assignment) == (other.key, other.point, other.assignment)
    }
}

impl Asked {
    pub(super) fn name(&self) -> &TopicPartition {
        self.partition.name()
    }

    /// Whether it is about the same copy, in the epoch that it has by now.
    pub(super) fn is_about(&self, partition: &Arc<Partition>) -> bool {
        Arc::ptr_eq(&self.partition, partition) && self.point.epoch == partition.leader_epoch()
    }

    fn wanted(&self, max_bytes: i32) -> FetchPartition {
        let CopyPoint { epoch, end, last_epoch, known } = self.point;
        FetchPartition {
            partition: self.key.1.0,
            current_leader_epoch: epoch.0,
            fetch_offset: end.0,
            last_fetched_epoch: last_epoch.0,
            log_start_offset: known.log_start.0,
            partition_max_bytes: max_bytes,
            high_watermark: known.high_watermark.0,
            local_log_start_offset: match known.local_start {
                start if start == FollowerView::UNASKED.local_start => Offset::UNKNOWN.0,
                start => start.0,
            },
            ..FetchPartition::default()
        }
    }
}

/// The request for a part of a session.
pub(super) fn request(
    part: SessionPart<PartitionKey, Asked>,
    parts: &FetcherParts,
    wait: Duration,
) -> FetchRequest {
    let config = &parts.config;
    let mut topics: Vec<FetchTopic> = Vec::new();
    for ((topic_id, _), asked) in part.interests {
        let wanted = asked.wanted(config.fetch_max_bytes);
        match topics.last_mut() {
            Some(topic) if topic.topic_id == topic_id => topic.partitions.push(wanted),
            _ => topics.push(FetchTopic {
                topic_id,
                partitions: vec![wanted],
                ..FetchTopic::default()
            }),
        }
    }
    let mut forgotten: Vec<ForgottenTopic> = Vec::new();
    for (topic_id, partition) in part.forgotten {
        match forgotten.last_mut() {
            Some(topic) if topic.topic_id == topic_id => topic.partitions.push(partition.0),
            _ => forgotten.push(ForgottenTopic {
                topic_id,
                partitions: vec![partition.0],
                ..ForgottenTopic::default()
            }),
        }
    }
    FetchRequest {
        replica_state: ReplicaState {
            replica_id: parts.node_id.0,
            replica_epoch: parts.registration(),
        },
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: config.fetch_min_bytes,
        max_bytes: config.fetch_response_max_bytes,
        session_id: part.session_id,
        session_epoch: part.epoch,
        topics,
        forgotten_topics_data: forgotten,
        ..FetchRequest::default()
    }
}

/// What the response says, and about which question.
pub(super) fn answers(session: &Session, response: FetchResponse) -> Vec<(Asked, PartitionData)> {
    let data = response.responses.into_iter().flat_map(|topic| {
        let id = topic.topic_id;
        topic
            .partitions
            .into_iter()
            .map(move |data| ((id, PartitionIndex(data.partition_index)), data))
    });
    data.filter_map(|(key, data)| Some((session.wanted(&key)?.clone(), data))).collect()
}
