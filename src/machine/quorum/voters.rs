//! Who votes: replicas by id and log directory, sets of them, and the sets that the log holds (KIP-853).
//!
//! A set counts from the moment its record is in the log, committed or not, as Raft wants it; a truncation
//! takes it back. Sets change one replica at a time, so that any majority of one set and any of the next
//! have a replica in common.

use std::collections::BTreeMap;

use super::log::OffsetAndEpoch;
use crate::machine::metadata::Endpoint;
use crate::types::{NodeId, Offset, Uuid};

/// A replica of the log. A node whose directory was lost is another replica, and no voter any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaKey {
    /// The node.
    pub id: NodeId,
    /// Its log directory; zero where it is not known, as for voters that a configuration lists.
    pub directory_id: Uuid,
}

impl ReplicaKey {
    /// Whether `other` is this replica as far as is known: without a directory id, the node decides.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.id == other.id
            && (self.directory_id == other.directory_id
                || self.directory_id == Uuid::ZERO
                || other.directory_id == Uuid::ZERO)
    }
}

/// A replica that votes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Voter {
    /// The replica.
    pub key: ReplicaKey,
    /// Where it listens for the others.
    pub endpoints: Vec<Endpoint>,
}

/// The replicas that vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct VoterSet(BTreeMap<NodeId, Voter>);

impl VoterSet {
    /// A set.
    pub fn new(voters: impl IntoIterator<Item = Voter>) -> Self {
        Self(voters.into_iter().map(|voter| (voter.key.id, voter)).collect())
    }

    /// Every voter, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Voter> {
        self.0.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nobody votes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The voter of a node.
    #[must_use]
    pub fn get(&self, id: NodeId) -> Option<&Voter> {
        self.0.get(&id)
    }

    /// Whether the replica votes.
    #[must_use]
    pub fn contains(&self, key: &ReplicaKey) -> bool {
        self.0.get(&key.id).is_some_and(|voter| voter.key.matches(key))
    }

    /// How many are a majority.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// The set with a voter more, or with another description of the same one.
    #[must_use]
    pub fn with(&self, voter: Voter) -> Self {
        let mut set = self.clone();
        set.0.insert(voter.key.id, voter);
        set
    }

    /// The set without a node.
    #[must_use]
    pub fn without(&self, id: NodeId) -> Self {
        let mut set = self.clone();
        set.0.remove(&id);
        set
    }
}

/// The sets that the snapshot and the log hold, by the offset of their record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct VoterHistory {
    /// Before the log says anything: of the snapshot, or of the configuration.
    base: VoterSet,
    /// Whether `base` was ever in a log.
    recorded: bool,
    changes: BTreeMap<Offset, VoterSet>,
}

impl VoterHistory {
    pub(super) fn new(base: VoterSet, recorded: bool, changes: BTreeMap<Offset, VoterSet>) -> Self {
        Self { base, recorded, changes }
    }

    /// The set that counts.
    pub(super) fn last(&self) -> &VoterSet {
        self.changes.last_key_value().map_or(&self.base, |(_, set)| set)
    }

    /// The set below `end`, which is what a snapshot up to there holds.
    pub(super) fn below(&self, end: Offset) -> &VoterSet {
        self.changes.range(..end).next_back().map_or(&self.base, |(_, set)| set)
    }

    /// Whether the replica votes in a set that may be the last committed one, when everything below `committed` is
    /// known to be.
    pub(super) fn may_count(&self, key: &ReplicaKey, committed: Offset) -> bool {
        let later = self.changes.range(committed..).map(|(_, set)| set);
        self.below(committed).contains(key) || later.into_iter().any(|set| set.contains(key))
    }

    /// Where the record of the set that counts is, if it is still in the log.
    pub(super) fn last_offset(&self) -> Option<Offset> {
        self.changes.last_key_value().map(|(offset, _)| *offset)
    }

    /// Whether the set that counts comes from a log.
    pub(super) fn is_recorded(&self) -> bool {
        self.recorded || !self.changes.is_empty()
    }

    pub(super) fn record(&mut self, offset: Offset, set: VoterSet) {
        self.changes.insert(offset, set);
    }

    pub(super) fn truncate(&mut self, end: Offset) {
        self.changes.split_off(&end);
    }

    /// The log starts at `start` now.
    pub(super) fn prune(&mut self, start: Offset) {
        let kept = self.changes.split_off(&start);
        if let Some((_, set)) = std::mem::replace(&mut self.changes, kept).pop_last() {
            self.base = set;
            self.recorded = true;
        }
    }

    /// A snapshot takes the place of the whole log.
    pub(super) fn replace(&mut self, set: VoterSet) {
        *self = Self::new(set, true, BTreeMap::new());
    }
}

/// A snapshot, with what it says about the voters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Snapshot {
    /// Everything before this offset is in it, and the record before it has this epoch.
    pub id: OffsetAndEpoch,
    /// The voters there.
    pub voters: VoterSet,
}
