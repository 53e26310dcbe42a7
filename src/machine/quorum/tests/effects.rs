//! What a simulated replica wants done, done: on its disk, in the network, and against the checks.

use std::hash::Hash;
use std::time::Duration;

use super::super::*;
use super::checks::Checks;
use super::disk::Write;
use super::world::{Action, Wire, World};

impl World {
    pub(super) fn carry_out(&mut self, node: usize, effects: Vec<Effect<u64>>) {
        for effect in effects {
            effect.hash(&mut self.trace);
            self.tell(|| format!("{node}    {effect:?}"));
            self.do_one(node, effect);
        }
        let deadline = self.nodes[node].replica.as_ref().and_then(Quorum::next_deadline);
        if let Some(deadline) = deadline {
            // A process is never called exactly in time.
            let at = deadline.max(self.now) + Duration::from_micros(50 + self.draw(100));
            if self.nodes[node].tick.is_none_or(|tick| tick > at || tick <= self.now) {
                self.nodes[node].tick = Some(at);
                self.schedule(at, Action::Tick(node));
            }
        }
        let me = &self.nodes[node];
        if let Some(replica) = &me.replica {
            assert_eq!(replica.log_end(), me.log.end(), "node {node} knows its log");
            assert_eq!(replica.until(me.log.end()), me.log.last(), "node {node} knows its log");
            assert_eq!(replica.high_watermark(), me.high_watermark);
            assert!(replica.stable_end() <= me.disk.log.end(), "QUORUM-E: not all of it is stable");
        }
    }

    fn do_one(&mut self, node: usize, effect: Effect<u64>) {
        match effect {
            Effect::SaveVote(..)
            | Effect::Append(..)
            | Effect::Truncate(..)
            | Effect::Prune(..)
            | Effect::WriteSnapshot { .. }
            | Effect::InstallSnapshot(_) => self.put(node, effect),
            Effect::Send(..)
            | Effect::Answer(..)
            | Effect::AnswerRecords { .. }
            | Effect::AnswerSnapshot { .. }
            | Effect::Abandon(_) => self.tell_others(node, effect),
            Effect::Committed(end) => self.committed(node, end),
            Effect::Outcome(tag, outcome) => self.has_outcome(node, tag, outcome),
            Effect::BecameLeader { epoch, start } => {
                self.elections += 1;
                let me = &mut self.nodes[node];
                assert_eq!(start, me.log.end());
                me.heard.clear();
                me.led_since = self.now;
                let me = &self.nodes[node];
                self.checks.elected(me.key, epoch, &me.log, &me.disk);
            }
            Effect::LostLeadership | Effect::LeaderChanged(_) => {}
            Effect::Halt(why) => panic!("node {node} halts: {why}"),
        }
    }

    fn has_outcome(&mut self, node: usize, tag: Tag, outcome: Result<Offset, Refusal>) {
        self.waiting.remove(&tag);
        if let Ok(offset) = outcome
            && let Some(entry) = self.nodes[node].log.get(offset)
        {
            let is_committed = self.checks.is_committed(offset, entry.epoch);
            assert!(is_committed, "{tag:?} is not committed");
            let is_it = match entry.payload {
                Payload::Records(payload) => payload == tag.0,
                Payload::Voters(_) => true,
                Payload::LeaderChange { .. } => false,
            };
            assert!(is_it, "{tag:?} is not what is committed at {offset}");
        }
        self.outcomes.insert(tag, outcome);
    }

    /// What concerns the disk.
    fn put(&mut self, node: usize, effect: Effect<u64>) {
        match effect {
            Effect::SaveVote(ticket, vote) => {
                self.nodes[node].disk.votes.push_back((ticket, vote));
                self.sync(node);
            }
            Effect::Append(ticket, entries) => {
                for entry in &entries {
                    let before = self.nodes[node].log.last().epoch;
                    self.checks.appended(before, entry);
                    self.nodes[node].log.apply(&Write::Append(vec![entry.clone()]));
                }
                self.write(node, ticket, Write::Append(entries));
            }
            Effect::Truncate(ticket, end) => {
                self.truncations += 1;
                assert!(end >= self.nodes[node].high_watermark, "QUORUM-D: committed is cut");
                self.nodes[node].log.apply(&Write::Truncate(end));
                self.write(node, ticket, Write::Truncate(end));
            }
            Effect::Prune(ticket, start) => {
                self.nodes[node].log.apply(&Write::Prune(start));
                self.write(node, ticket, Write::Prune(start));
            }
            Effect::WriteSnapshot { id: _, position, bytes } => {
                let download = &mut self.nodes[node].download;
                if position == 0 {
                    download.clear();
                }
                assert_eq!(download.len() as u64, position, "a gap in a snapshot");
                download.extend(bytes);
            }
            Effect::InstallSnapshot(id) => {
                let (snapshot, bytes) = self.snapshots[&id].clone();
                assert_eq!(self.nodes[node].download, bytes, "a snapshot was mangled");
                // It has no ticket: it is reported by itself.
                self.write(node, Ticket(0), Write::Install(snapshot));
            }
            _ => unreachable!("it does not concern the disk"),
        }
    }

    /// What concerns the network.
    fn tell_others(&mut self, node: usize, effect: Effect<u64>) {
        match effect {
            Effect::Send(peer, request) => {
                Checks::sent(&request, &self.nodes[node].disk);
                let to = match peer {
                    Peer::Node(id) => id.0 as usize,
                    Peer::Bootstrap(_) => self.draw(self.nodes.len() as u64) as usize,
                };
                if to != node {
                    self.send(node, to, Wire::Request(request));
                }
            }
            Effect::Answer(token, response) => self.answer(node, token, response),
            Effect::AnswerRecords { token, mut response, end } => {
                let count = 1 + self.draw(8) as usize;
                let records = self.nodes[node].log.read(response.last.offset, end, count);
                response.found = Found::Records(records);
                self.answer(node, token, Response::Fetch(response));
            }
            Effect::AnswerSnapshot { token, mut response } => {
                let known = self.nodes[node].disk.snapshot.as_ref();
                if known.is_some_and(|known| known.id == response.snapshot) {
                    let bytes = &self.snapshots[&response.snapshot].1;
                    let from = (response.position as usize).min(bytes.len());
                    let to = (from + 16).min(bytes.len());
                    let size = bytes.len() as u64;
                    response.part = Some(SnapshotPart { bytes: bytes.slice(from..to), size });
                }
                self.answer(node, token, Response::FetchSnapshot(response));
            }
            Effect::Abandon(token) => {
                self.tokens.remove(&token);
            }
            _ => unreachable!("it does not concern the network"),
        }
    }

    fn answer(&mut self, node: usize, token: Token, response: Response<u64>) {
        let Some((to, asker)) = self.tokens.remove(&token) else {
            panic!("{token:?} is answered twice")
        };
        if let Response::Vote(vote) = &response
            && vote.granted
            && !vote.pre_vote
        {
            self.checks.voted(self.nodes[node].key, vote.epoch, asker);
            assert!(self.nodes[node].disk.vote.epoch >= vote.epoch, "QUORUM-E: an unsaved vote");
        }
        self.send(node, to, Wire::Response(response));
    }

    fn committed(&mut self, node: usize, end: Offset) {
        let before = self.nodes[node].high_watermark;
        assert!(end >= before, "QUORUM-D: the high watermark goes back on {node}");
        self.nodes[node].high_watermark = end;
        let me = &self.nodes[node];
        let id = NodeId(node as i32);
        if let Some(replica) = &me.replica {
            let epoch = replica.current().epoch;
            self.checks.committed(id, before, end, &me.log, epoch);
            if me.is_leader() {
                let disks = self.nodes.iter().map(|node| (node.key, &node.disk));
                let emptied = self.emptied.iter().map(|(key, disk)| (*key, disk));
                let disks = disks.chain(emptied);
                Checks::counted(end, &replica.current(), &me.log, replica.voters(), disks);
            }
        }
    }
}
