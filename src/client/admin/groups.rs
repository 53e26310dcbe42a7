//! Listing, describing, resetting and deleting consumer groups.

use std::collections::{BTreeMap, BTreeSet};

use super::Admin;
use crate::client::consumer::group::OffsetAndMetadata;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{NodeId, TopicPartition};

/// Which groups to list; nothing given means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Only groups in these states, in Kafka's words: `Stable`, `Empty`, …
    pub states: Vec<String>,
    /// Only groups of these types: `classic`, `consumer`.
    pub types: Vec<String>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// `group.id`.
    pub group_id: String,
    /// `consumer` for consumer groups; empty for one that only has offsets.
    pub protocol_type: String,
    /// In Kafka's words; empty with brokers before Kafka 2.6.
    pub state: String,
    /// `classic` or `consumer`; empty with brokers before Kafka 3.8.
    pub group_type: String,
    /// The broker that told of it: its coordinator.
    pub coordinator: NodeId,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// `group.id`.
    pub group_id: String,
    /// `classic` or `consumer`.
    pub group_type: String,
    /// In Kafka's words: `Stable`, `Empty`, `Dead`, …
    pub state: String,
    /// The assignor in use; empty when there is none.
    pub assignor: String,
    /// The group epoch; -1 for a classic group, which does not tell.
    pub epoch: i32,
    /// Its coordinator.
    pub coordinator: NodeId,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// What the coordinator calls it.
    pub member_id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Its host.
    pub host: String,
    /// `client.rack`.
    pub rack: Option<String>,
    /// The member epoch; -1 in a classic group.
    pub epoch: i32,
    /// The topics that it asked for, as far as the group tells.
    pub topics: BTreeSet<String>,
    /// The pattern that it asked for.
    pub pattern: Option<String>,
    /// Its partitions.
    pub assignment: BTreeSet<TopicPartition>,
    /// What it is to have, where that is known and another set.
    pub target: Option<BTreeSet<TopicPartition>>,
}

fn not_yet() -> Error {
    Error::kafka(ErrorCode::UnsupportedVersion, "consumer groups")
}

impl Admin {
    /// The groups of the cluster, in order.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time, or is too old for the filter.
    pub async fn list_groups(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>> {
        let _ = filter;
        Err(not_yet())
    }

    /// State and members of groups of both protocols.
    ///
    /// # Errors
    ///
    /// Per group `GROUP_ID_NOT_FOUND`, or what its coordinator refused.
    pub async fn describe_groups(&self, ids: &[&str]) -> Result<Vec<Result<GroupDescription>>> {
        let _ = ids;
        Err(not_yet())
    }

    /// The committed offsets of a group, of some partitions or (`None`) of all that it has.
    ///
    /// # Errors
    ///
    /// The coordinator does not answer in time, or refuses.
    pub async fn group_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        let _ = (group, partitions);
        Err(not_yet())
    }

    /// Sets the committed offsets of a group without members; makes the group when there is none.
    ///
    /// # Errors
    ///
    /// Per partition; as a whole `UNKNOWN_MEMBER_ID` while the group has members.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let _ = (group, offsets);
        Err(not_yet())
    }

    /// Forgets committed offsets of a group.
    ///
    /// # Errors
    ///
    /// Per partition `GROUP_SUBSCRIBED_TO_TOPIC` while a member consumes the topic.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let _ = (group, partitions);
        Err(not_yet())
    }

    /// Deletes groups without members.
    ///
    /// # Errors
    ///
    /// Per group `NON_EMPTY_GROUP`, `GROUP_ID_NOT_FOUND`.
    pub async fn delete_groups(&self, ids: &[&str]) -> Result<Vec<Result<()>>> {
        let _ = ids;
        Err(not_yet())
    }
}
