//! Groups as a kind of coordinator: what [`super::Runtime`] must know about [`crate::machine::group`].

mod records;
mod settings;

use std::sync::Arc;

use bytes::Bytes;

use super::fencing::OfTransaction;
use super::kind::{KeyAndValue, Kind};
use super::runtime::Runtime;
use crate::broker::change::Change;
use crate::error::{ErrorCode, Result};
use crate::machine::coordinator::TransactionEnd;
use crate::machine::group::{
    GroupConfig, GroupNews, GroupRecord, GroupRequest, GroupShard, TopicsView,
};
use crate::machine::metadata::ConfigResource;
use crate::types::{PartitionIndex, ProducerId, TopicId};

pub(in crate::broker) use self::settings::offsets_topic;

/// The topic that holds groups and their offsets.
pub(in crate::broker) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Groups;

/// What every shard of groups must know about the cluster.
#[derive(Clone, Debug, Default)]
pub(in crate::broker) struct GroupsWorld {
    topics: Arc<TopicsView>,
    config: Arc<GroupConfig>,
}

impl Kind for Groups {
    const TOPIC: &'static str = OFFSETS_TOPIC;
    const WHAT: &'static str = "groups";

    type Machine = GroupShard;
    type World = GroupsWorld;
    type Attendant = ();

    fn machine(seed: u64) -> GroupShard {
        GroupShard::new(GroupConfig::default(), seed)
    }

    fn look(world: &mut GroupsWorld, change: &Change<'_>) -> bool {
        let topics = world.topics.after(change.delta, change.image);
        let is_setting = |resource: &ConfigResource| matches!(resource, ConfigResource::Group(_));
        let config = (change.has_new_config || change.alters(is_setting))
            .then(|| settings::group_config(change.config, change.image))
            .filter(|config| *config != *world.config);
        let has_changed = topics.is_some() || config.is_some();
        if let Some(topics) = topics {
            world.topics = Arc::new(topics);
        }
        if let Some(config) = config {
            world.config = Arc::new(config);
        }
        has_changed
    }

    fn news(before: Option<&GroupsWorld>, now: &GroupsWorld) -> Vec<GroupNews> {
        let mut news = Vec::new();
        if before.is_none_or(|before| !Arc::ptr_eq(&before.config, &now.config)) {
            news.push(GroupNews::Config(Arc::clone(&now.config)));
        }
        if before.is_none_or(|before| !Arc::ptr_eq(&before.topics, &now.topics)) {
            news.push(GroupNews::Topics(Arc::clone(&now.topics)));
            let gone: Vec<(TopicId, Arc<str>)> = before
                .into_iter()
                .flat_map(|before| before.topics.iter())
                .filter(|topic| now.topics.topic_by_id(topic.id).is_none())
                .map(|topic| (topic.id, Arc::clone(&topic.name)))
                .collect();
            if !gone.is_empty() {
                news.push(GroupNews::TopicsDeleted(gone));
            }
        }
        news
    }

    fn encode(record: &GroupRecord) -> Result<KeyAndValue> {
        records::encode(record)
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<GroupRecord>> {
        records::decode(key, value)
    }

    fn in_transaction(record: GroupRecord, producer: ProducerId) -> GroupRecord {
        match record {
            GroupRecord::OffsetCommit { key, value: Some(value) } => {
                GroupRecord::PendingOffset { producer, key, value }
            }
            // Nobody writes others in a transaction; to Kafka they count at once.
            record => record,
        }
    }

    fn transaction_end(producer: ProducerId, committed: bool) -> Option<GroupRecord> {
        Some(GroupRecord::TransactionEnd { producer, committed })
    }

    fn of_transaction(request: &GroupRequest) -> Option<OfTransaction> {
        match request {
            GroupRequest::CommitOffsets(request) => request.transaction.map(OfTransaction::Part),
            GroupRequest::EndTransaction(end) => Some(OfTransaction::End(*end)),
            _ => None,
        }
    }

    fn report(request: &GroupRequest) -> Option<&Arc<str>> {
        match request {
            GroupRequest::Heartbeat(request) => Some(&request.group_id),
            GroupRequest::ConsumerHeartbeat(request) => Some(&request.group_id),
            _ => None,
        }
    }

    /// Committed offsets are nothing that a heartbeat is answered with.
    fn subject(record: &GroupRecord) -> Option<&Arc<str>> {
        match record {
            GroupRecord::OffsetCommit { .. } | GroupRecord::PendingOffset { .. } => None,
            record => record.group(),
        }
    }

    /// Those whose members the request is about.
    fn subjects<'a>(request: &'a GroupRequest, mut each: impl FnMut(&'a Arc<str>)) {
        match request {
            GroupRequest::Join(request) => each(&request.group_id),
            GroupRequest::Sync(request) => each(&request.group_id),
            GroupRequest::Leave(request) => each(&request.group_id),
            GroupRequest::ConsumerHeartbeat(request) => each(&request.group_id),
            GroupRequest::Delete { groups } => groups.iter().for_each(each),
            _ => {}
        }
    }
}

impl Runtime<Groups> {
    /// Ends the transaction of a producer in a partition of the topic of offsets: writes the marker, after which the
    /// offsets that it committed there count or are forgotten. Returns when the marker is committed.
    ///
    /// The marker goes through the shard so that it has its place among the commits, in the state as in the log.
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER` while the partition is not led or not read back here, and when it could not be written;
    /// `INVALID_PRODUCER_EPOCH`, `TRANSACTION_COORDINATOR_FENCED`.
    pub(in crate::broker) async fn complete_transaction(
        &self,
        partition: PartitionIndex,
        end: TransactionEnd,
    ) -> Result<()> {
        let ended = match self.send(partition, GroupRequest::EndTransaction(end)).await {
            Ok(pending) => pending.wait().await,
            Err(error) => Err(error),
        };
        match ended {
            Ok(_) => Ok(()),
            // The transaction coordinator tries again at the leader, as for any other partition.
            Err(error) if is_of_coordinator(error.code()) => {
                Err(error.under_code(ErrorCode::NotLeaderOrFollower))
            }
            Err(error) => Err(error),
        }
    }
}

const fn is_of_coordinator(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::NotCoordinator
    )
}

/// The partition of `count` that a group belongs to: the absolute value of Java's hash of its id,
/// over UTF-16 as in Java, modulo the count.
pub(in crate::broker) fn partition_of(group: &str, count: i32) -> PartitionIndex {
    let hash = group
        .encode_utf16()
        .fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    // Kafka's `Utils.abs`: the smallest integer, which has no positive counterpart, counts as 0.
    PartitionIndex(hash.checked_abs().unwrap_or(0).checked_rem(count).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::{PartitionIndex, partition_of};

    #[test]
    fn groups_map_to_partitions_as_in_kafka() {
        // The hashes were computed by Java: "".hashCode() and so on.
        for (group, hash) in [("", 0), ("a", 97), ("group", 98_629_247), ("\u{1f980}", 1_772_802)] {
            assert_eq!(partition_of(group, 50), PartitionIndex(hash % 50), "{group}");
        }
        // "polygenelubricants".hashCode() is the smallest integer.
        assert_eq!(partition_of("polygenelubricants", 50), PartitionIndex(0));
        assert_eq!(partition_of("a", 0), PartitionIndex(0));
    }
}
