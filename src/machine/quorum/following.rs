//! What a replica does that does not lead: it finds the leader and copies its log.

use std::time::Duration;

use super::log::OffsetAndEpoch;
use super::message::{BeginQuorumEpochRequest, EndQuorumEpochRequest, Entry, FetchRequest};
use super::message::{Effect, FetchResponse, FetchSnapshotRequest, FetchSnapshotResponse, Found};
use super::message::{LeaderAndEpoch, Peer, Request, Response, Token, UpdateVoterRequest};
use super::role::{Asked, Download, Role};
use super::voters::Snapshot;
use super::{Mutation, Quorum};
use crate::types::{NodeId, Offset};

/// How many heartbeats a follower waits for an answer before it fetches again.
const PATIENCE: u32 = 3;
/// How many heartbeats pass between two requests to be described differently.
const UPDATE_INTERVAL: u32 = 10;

impl<P> Quorum<P> {
    /// Asks anybody who leads.
    pub(super) fn probe(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let probe_again = now + self.timing.heartbeat;
        let Role::Unattached(unattached) = &mut self.role else { return };
        if now < unattached.probe {
            return;
        }
        unattached.probe = probe_again;
        let me = self.me.key.id;
        let voters = self.voters.last().iter().map(|voter| voter.key.id);
        let voters = voters.filter(|id| *id != me).map(Peer::Node);
        let peers: Vec<_> = voters.chain((0..self.bootstrap).map(Peer::Bootstrap)).collect();
        if !peers.is_empty() {
            let peer = peers[self.chance.below(peers.len())];
            out.push(Effect::Send(peer, Request::Fetch(self.fetch_request(now))));
        }
    }

    fn fetch_request(&self, now: Duration) -> FetchRequest {
        let unsynced = self.has(Mutation::UnsyncedIsAcknowledged);
        let end = if unsynced { self.log.end() } else { self.log.stable() };
        let is_idle = self.log.is_stable() || unsynced;
        let known = match &self.role {
            Role::Follower(follower) => follower.high_watermark,
            _ => self.high_watermark,
        };
        FetchRequest {
            epoch: self.vote.epoch,
            replica: self.me.key,
            last: self.log.until(end),
            sent: now,
            high_watermark: known,
            max_wait: self.timing.heartbeat,
            wants_records: is_idle && self.installing.is_none(),
        }
    }

    /// Fetches from the leader, when that is due.
    pub(super) fn fetch(&mut self, now: Duration, out: &mut Vec<Effect<P>>) {
        let (epoch, replica) = (self.vote.epoch, self.me.key);
        let request = self.fetch_request(now);
        let heartbeat = self.timing.heartbeat;
        let described = self.voters.last().get(replica.id);
        let is_silent = self.has(Mutation::BusyReplicaIsSilent);
        let is_misdescribed =
            described.is_some_and(|voter| *voter != self.me && voter.key.matches(&replica));
        let Role::Follower(follower) = &mut self.role else { return };
        if now < follower.fetch || (is_silent && !request.wants_records) {
            return;
        }
        follower.fetch = now + PATIENCE * heartbeat;
        let peer = Peer::Node(follower.leader.id);
        if let Some(download) = follower.download {
            follower.asked = Some(Asked::Snapshot(download));
            let Download { id: snapshot, position } = download;
            let request = FetchSnapshotRequest { epoch, replica, snapshot, position };
            out.push(Effect::Send(peer, Request::FetchSnapshot(request)));
        } else {
            follower.asked = Some(Asked::Records(request.last, now));
            out.push(Effect::Send(peer, Request::Fetch(request)));
        }
        if is_misdescribed && now >= follower.update {
            follower.update = now + UPDATE_INTERVAL * heartbeat;
            let request = UpdateVoterRequest { epoch, voter: self.me.clone() };
            out.push(Effect::Send(peer, Request::UpdateVoter(request)));
        }
    }

    /// Something was stored, which the next fetch acknowledges: now.
    pub(super) fn fetch_again(&mut self, now: Duration) {
        if let Role::Follower(follower) = &mut self.role
            && follower.download.is_none()
        {
            follower.fetch = now;
        }
    }

    pub(super) fn on_begin(
        &mut self,
        now: Duration,
        token: Token,
        request: BeginQuorumEpochRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let BeginQuorumEpochRequest { epoch, leader, voter } = request;
        if voter.matches(&self.me.key) {
            let id = leader.id;
            self.observe(now, &LeaderAndEpoch { epoch, leader: Some(leader) }, out);
            if self.follows(id) && epoch == self.vote.epoch {
                self.heard_leader(now);
            }
        }
        self.answer(token, Response::Current(self.current()), out);
    }

    pub(super) fn on_end(
        &mut self,
        now: Duration,
        token: Token,
        request: &EndQuorumEpochRequest,
        out: &mut Vec<Effect<P>>,
    ) {
        let leader = Some(request.leader.clone());
        self.observe(now, &LeaderAndEpoch { epoch: request.epoch, leader }, out);
        if self.follows(request.leader.id) && request.epoch == self.vote.epoch {
            let me = |successor: &super::ReplicaKey| successor.matches(&self.me.key);
            let place = request.successors.iter().position(me);
            let place = place.unwrap_or(request.successors.len());
            // The best one at once, the others when it had the time to be elected.
            let after = self.timing.heartbeat * u32::try_from(place).unwrap_or(u32::MAX).min(10);
            self.leader_is_gone(now);
            if let Role::Follower(follower) = &mut self.role {
                follower.election = if place == 0 { now } else { now + after };
            }
        }
        self.answer(token, Response::Current(self.current()), out);
    }

    fn follows(&self, node: NodeId) -> bool {
        matches!(&self.role, Role::Follower(follower) if follower.leader.id == node)
    }

    fn heard_leader(&mut self, now: Duration) {
        let election = now + self.election_timeout();
        self.leader_gone = false;
        self.chance.settle();
        if let Role::Follower(follower) = &mut self.role {
            follower.heard = Some(now);
            follower.election = election;
        }
    }

    /// Whether a response answers what was asked of the leader last; then it is asked no more.
    fn take_answer(
        &mut self,
        now: Duration,
        from: NodeId,
        said: &LeaderAndEpoch,
        of: Asked,
    ) -> bool {
        let fetch_again = now + self.timing.heartbeat;
        let matches_any = self.has(Mutation::ResponseIsNotMatched);
        let Role::Follower(follower) = &mut self.role else { return false };
        let is_leader = follower.leader.id == from && said.epoch == self.vote.epoch;
        if !is_leader || !(follower.asked == Some(of) || matches_any) {
            return false;
        }
        follower.asked = None;
        follower.fetch = fetch_again;
        true
    }

    pub(super) fn on_fetched(
        &mut self,
        now: Duration,
        from: NodeId,
        response: FetchResponse<P>,
        out: &mut Vec<Effect<P>>,
    ) {
        let FetchResponse { last, sent, current, high_watermark, found } = response;
        if !self.take_answer(now, from, &current, Asked::Records(last, sent)) {
            return;
        }
        if matches!(found, Found::NotLeader) {
            if current.leader.is_none() {
                self.leader_is_gone(now);
            }
            return;
        }
        self.heard_leader(now);
        if let Role::Follower(follower) = &mut self.role {
            follower.high_watermark = follower.high_watermark.max(high_watermark);
        }
        let unmatched = self.has(Mutation::ResponseIsNotMatched);
        let is_current = (last == self.log.last() || unmatched)
            && (self.log.is_stable() || self.has(Mutation::UnsyncedIsAcknowledged))
            && self.installing.is_none();
        match found {
            Found::Records(entries) => {
                let mut agreed = last.offset;
                if entries.is_empty() {
                    self.fetch_again(now);
                } else if is_current && self.fits(&entries) {
                    self.append(entries, out);
                    agreed = self.log.end();
                }
                if self.has(Mutation::HeldUpHighWatermark) {
                    agreed = self.log.end();
                }
                self.commit(high_watermark.min(agreed), out);
            }
            Found::Diverging(theirs) if is_current => self.cut(theirs, out),
            Found::Snapshot(id) if is_current && id.offset > self.high_watermark => {
                if let Role::Follower(follower) = &mut self.role {
                    follower.download = Some(Download { id, position: 0 });
                    follower.fetch = now;
                }
            }
            Found::Diverging(_) | Found::Snapshot(_) | Found::NotLeader => {}
        }
    }

    /// Whether records continue this log, in epochs that can be.
    fn fits(&self, entries: &[Entry<P>]) -> bool {
        let OffsetAndEpoch { mut epoch, mut offset } = self.log.last();
        entries.iter().all(|entry| {
            let fits = entry.offset == offset && entry.epoch >= epoch;
            (epoch, offset) = (entry.epoch, offset.next());
            fits && entry.epoch <= self.vote.epoch
        })
    }

    /// Cuts what the leader does not have.
    fn cut(&mut self, theirs: OffsetAndEpoch, out: &mut Vec<Effect<P>>) {
        let end = self.log.common_end(theirs);
        if end < self.high_watermark || end >= self.log.end() {
            let why = format!(
                "the leader's log parts from this one at offset {end}, and everything before {} is \
                 committed",
                self.high_watermark
            );
            self.halt(why, out);
            return;
        }
        self.log.truncate(end);
        if !self.has(Mutation::VotersAreNotTruncated) {
            self.voters.truncate(end);
        }
        out.push(Effect::Truncate(self.log.ticket(), end));
    }

    pub(super) fn on_part(
        &mut self,
        now: Duration,
        from: NodeId,
        response: FetchSnapshotResponse,
        out: &mut Vec<Effect<P>>,
    ) {
        let FetchSnapshotResponse { snapshot: id, position, current, part } = response;
        let download = Download { id, position };
        if !self.take_answer(now, from, &current, Asked::Snapshot(download)) {
            return;
        }
        let Role::Follower(follower) = &mut self.role else { return };
        if follower.download.take() != Some(download) {
            return;
        }
        let Some(part) = part else { return };
        let behind = position + part.bytes.len() as u64;
        if behind > part.size || part.bytes.is_empty() {
            return;
        }
        follower.fetch = now;
        if behind < part.size {
            follower.download = Some(Download { id, position: behind });
        }
        self.heard_leader(now);
        out.push(Effect::WriteSnapshot { id, position, bytes: part.bytes });
        if behind == part.size {
            self.installing = Some(id);
            out.push(Effect::InstallSnapshot(id));
        }
    }

    /// A snapshot took the place of the log.
    pub(super) fn on_installed(
        &mut self,
        now: Duration,
        snapshot: Snapshot,
        out: &mut Vec<Effect<P>>,
    ) {
        self.installing = None;
        self.log.replace(snapshot.id);
        self.voters.replace(snapshot.voters);
        self.snapshot = Some(snapshot.id);
        self.commit(snapshot.id.offset, out);
        self.fetch_again(now);
    }

    /// The end of what is on stable storage.
    pub fn stable_end(&self) -> Offset {
        self.log.stable()
    }
}
