//! What must hold at every step of every run, whatever happens.

use std::collections::BTreeMap;

use super::super::*;
use super::disk::{Disk, Image, Record};

/// What the replicas have done so far, all together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Checks {
    leaders: BTreeMap<LeaderEpoch, NodeId>,
    /// By offset and epoch: the record, and the epoch of the one before.
    appended: BTreeMap<(Offset, LeaderEpoch), (Record, LeaderEpoch)>,
    /// By offset: the record's epoch, and the epoch in which it was first known to be committed.
    committed: BTreeMap<Offset, (LeaderEpoch, LeaderEpoch)>,
    /// The votes that were told to somebody.
    votes: BTreeMap<(ReplicaKey, LeaderEpoch), ReplicaKey>,
}

impl Checks {
    /// QUORUM-A.
    pub(super) fn elected(
        &mut self,
        key: ReplicaKey,
        epoch: LeaderEpoch,
        log: &Image,
        disk: &Disk,
    ) {
        let node = key.id;
        let own = VoteState { epoch, voted: Some(key) };
        assert_eq!(disk.vote, own, "QUORUM-E: {node} leads by a vote that is not saved");
        let known = *self.leaders.entry(epoch).or_insert(node);
        assert_eq!(known, node, "QUORUM-A: epoch {epoch} has two leaders");
        for (offset, (of, since)) in self.committed.range(log.start.offset..) {
            let has = log.get(*offset).is_some_and(|entry| entry.epoch == *of);
            assert!(
                *since >= epoch || has,
                "QUORUM-C: the leader {node} of epoch {epoch} lacks {offset}, committed in {since}"
            );
        }
        if let Some((last, (_, since))) = self.committed.last_key_value() {
            assert!(*since >= epoch || *last < log.end(), "QUORUM-C: {node} lacks {last}");
        }
    }

    /// QUORUM-B, by induction.
    pub(super) fn appended(&mut self, before: LeaderEpoch, record: &Record) {
        assert!(record.epoch >= before, "QUORUM-B: epochs go back at {}", record.offset);
        let place = (record.offset, record.epoch);
        let known = self.appended.entry(place).or_insert_with(|| (record.clone(), before));
        assert_eq!((&known.0, known.1), (record, before), "QUORUM-B: logs differ at {place:?}");
    }

    /// QUORUM-D.
    pub(super) fn committed(
        &mut self,
        node: NodeId,
        from: Offset,
        to: Offset,
        log: &Image,
        now: LeaderEpoch,
    ) {
        for offset in from.0.max(log.start.offset.0)..to.0 {
            let offset = Offset(offset);
            let entry = log.get(offset);
            let entry = entry.unwrap_or_else(|| panic!("{node} commits {offset} and has it not"));
            let known = self.committed.entry(offset).or_insert((entry.epoch, now));
            assert_eq!(
                known.0, entry.epoch,
                "QUORUM-D: {node} commits another record at {offset} than others"
            );
            known.1 = known.1.min(now);
        }
    }

    /// A leader says that everything before `end` is committed: then a majority has it on stable storage.
    pub(super) fn counted<'a>(
        end: Offset,
        leader: &LeaderAndEpoch,
        log: &Image,
        voters: &VoterSet,
        disks: impl Iterator<Item = (ReplicaKey, &'a Disk)>,
    ) {
        let last = Offset(end.0 - 1);
        let Some(epoch) = log.get(last).map(|entry| entry.epoch) else { return };
        assert_eq!(epoch, leader.epoch, "QUORUM-F: {last} is of an older epoch");
        let having = disks.filter(|(key, disk)| {
            let is_there = disk.log.get(last).is_some_and(|entry| entry.epoch == epoch);
            voters.contains(key) && (is_there || disk.log.start.offset > last)
        });
        let having = having.count();
        assert!(
            having >= voters.majority(),
            "QUORUM-E: {last} is committed and on the disks of {having} of {} voters",
            voters.len()
        );
    }

    /// A vote left the node.
    pub(super) fn voted(&mut self, voter: ReplicaKey, epoch: LeaderEpoch, candidate: ReplicaKey) {
        let known = *self.votes.entry((voter, epoch)).or_insert(candidate);
        assert_eq!(known, candidate, "QUORUM-E: {voter:?} voted twice in epoch {epoch}");
    }

    /// The epoch that a request names.
    pub(super) fn epoch(request: &Request) -> LeaderEpoch {
        match request {
            Request::Vote(request) => request.epoch,
            Request::BeginQuorumEpoch(request) => request.epoch,
            Request::EndQuorumEpoch(request) => request.epoch,
            Request::Fetch(request) => request.epoch,
            Request::FetchSnapshot(request) => request.epoch,
            Request::UpdateVoter(request) => request.epoch,
        }
    }

    /// A request leaves the node.
    pub(super) fn sent(request: &Request, disk: &Disk) {
        let epoch = Self::epoch(request);
        assert!(epoch <= disk.vote.epoch, "QUORUM-E: a request in an epoch that is not saved");
    }

    /// The record's epoch at an offset that is committed.
    pub(super) fn is_committed(&self, offset: Offset, epoch: LeaderEpoch) -> bool {
        self.committed.get(&offset).is_some_and(|(known, _)| *known == epoch)
    }

    /// Where what is committed ends.
    pub(super) fn committed_end(&self) -> Offset {
        self.committed.last_key_value().map_or(Offset::ZERO, |(offset, _)| offset.next())
    }
}
