//! The types that openraft is configured with, and conversions between its numbers and ours.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;

use openraft::BasicNode;
use serde::{Deserialize, Serialize};

use crate::machine::metadata::MetadataRecord;
use crate::types::{LeaderEpoch, NodeId, Offset};

openraft::declare_raft_types!(
    /// The metadata quorum.
    pub(super) TypeConfig:
        D = Vec<MetadataRecord>,
        R = (),
        NodeId = NodeId,
);

pub(super) type Entry = openraft::Entry<TypeConfig>;
pub(super) type LogId = openraft::LogId<NodeId>;
pub(super) type Vote = openraft::Vote<NodeId>;
pub(super) type Membership = openraft::StoredMembership<NodeId, BasicNode>;
pub(super) type StorageError = openraft::StorageError<NodeId>;
pub(super) type StorageIOError = openraft::StorageIOError<NodeId>;

/// The log offset of an index.
pub(super) fn offset(index: u64) -> Offset {
    Offset(i64::try_from(index).unwrap_or(i64::MAX))
}

/// The index of a log offset.
pub(super) fn index(offset: Offset) -> u64 {
    u64::try_from(offset.0).unwrap_or(0)
}

/// The leader epoch of a term.
pub(super) fn epoch(term: u64) -> LeaderEpoch {
    LeaderEpoch(i32::try_from(term).unwrap_or(i32::MAX))
}

/// A log id.
pub(super) fn log_id(term: u64, leader: NodeId, index: u64) -> LogId {
    LogId::new(openraft::CommittedLeaderId::new(term, leader), index)
}

/// The voters, in our own format, which does not change with openraft's.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Members {
    /// One set of voters; two while one replaces the other.
    voters: Vec<BTreeSet<NodeId>>,
    /// Every node, voter or not.
    nodes: Vec<Member>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Member {
    id: NodeId,
    address: String,
}

impl Members {
    pub(super) fn of(membership: &openraft::Membership<NodeId, BasicNode>) -> Self {
        let nodes = membership.nodes();
        Self {
            voters: membership.get_joint_config().clone(),
            nodes: nodes.map(|(id, node)| Member { id: *id, address: node.addr.clone() }).collect(),
        }
    }

    pub(super) fn membership(self) -> openraft::Membership<NodeId, BasicNode> {
        let nodes = self.nodes.into_iter().map(|node| (node.id, BasicNode::new(node.address)));
        openraft::Membership::new(self.voters, nodes.collect::<BTreeMap<_, _>>())
    }
}

/// The first thing to be read from every file: in a newer version, the rest may mean anything.
#[derive(Deserialize)]
pub(super) struct VersionOnly {
    pub(super) version: u16,
}
