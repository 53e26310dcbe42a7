//! The states of a small cluster, and what can happen next in each.
//!
//! A step is anything that can happen next: a message arrives that was sent at any time before (so messages are lost,
//! doubled and reordered), a timer ends, a write becomes stable, a node loses what was not, something is proposed.
//! All timeouts are zero, so each may end before any other. Bounds: the epochs, the proposals, the crashes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::super::*;
use super::checks::Checks;
use super::disk::{Disk, Image, Write};
use super::world::{key, voter};

/// What is searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) nodes: usize,
    pub(super) voters: usize,
    pub(super) epochs: i32,
    pub(super) proposals: u8,
    pub(super) crashes: u8,
    /// How often the voters change: nodes that do not vote are added, those that do removed.
    pub(super) changes: u8,
    /// How many snapshots are taken.
    pub(super) snapshots: u8,
    /// Whether what is written takes a step of its own to be stable, in which all else can happen.
    pub(super) slow_disks: bool,
    /// The search ends here at the latest.
    pub(super) states: usize,
}

impl Bounds {
    pub(super) const fn new(nodes: usize, epochs: i32, proposals: u8, crashes: u8) -> Self {
        Self {
            nodes,
            voters: nodes,
            epochs,
            proposals,
            crashes,
            changes: 0,
            snapshots: 0,
            slow_disks: true,
            states: 20_000,
        }
    }
}
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Wire {
    Request(Request),
    Response(Response<u64>),
}

impl Wire {
    fn epoch(&self) -> LeaderEpoch {
        match self {
            Self::Request(request) => Checks::epoch(request),
            Self::Response(response) => response.current().epoch,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Message {
    from: usize,
    to: usize,
    wire: Wire,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct Node {
    pub(super) replica: Quorum<u64>,
    disk: Disk,
    log: Image,
    high_watermark: Offset,
}

#[derive(Clone, Debug, Hash)]
pub(super) struct State {
    pub(super) nodes: Vec<Arc<Node>>,
    pub(super) network: BTreeMap<u64, Arc<Message>>,
    pub(super) checks: Arc<Checks>,
    /// Every snapshot that was taken.
    snapshots: BTreeMap<OffsetAndEpoch, Snapshot>,
    proposed: u8,
    crashed: u8,
    changed: u8,
    snapped: u8,
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Deliver(u64),
    Tick(usize),
    VoteStored(usize),
    LogStored(usize),
    Crash(usize),
    Propose(usize),
    Change(usize, VoterChange),
    Snapshot(usize),
}

pub(super) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

pub(super) struct Search {
    pub(super) bounds: Bounds,
    pub(super) planted: &'static [Mutation],
}

const NOW: Duration = Duration::ZERO;

impl Search {
    fn options(&self, node: usize) -> Options {
        let zero = Duration::ZERO;
        let timing =
            Timing { election_min: zero, election_max: zero, heartbeat: zero, crash_jitter: zero };
        let voters = VoterSet::new((0..self.bounds.voters).map(|node| voter(key(node, 0))));
        Options { me: voter(key(node, 0)), voters, bootstrap: 0, timing, seed: 0 }
    }

    fn replica(&self, node: usize, disk: &Disk, out: &mut Vec<Effect<u64>>) -> Quorum<u64> {
        let mut replica = Quorum::at_rest(self.options(node), disk.found(), NOW);
        replica.planted = self.planted;
        replica.wake_up(NOW, out);
        replica
    }

    pub(super) fn first(&self) -> State {
        let mut state = State {
            nodes: Vec::new(),
            network: BTreeMap::new(),
            checks: Arc::default(),
            snapshots: BTreeMap::new(),
            proposed: 0,
            crashed: 0,
            changed: 0,
            snapped: 0,
        };
        let mut all = Vec::new();
        for node in 0..self.bounds.nodes {
            // The voters are recorded already.
            let voters = self.options(node).voters;
            let snapshot = Some(Snapshot { id: OffsetAndEpoch::default(), voters });
            let disk = Disk { snapshot, ..Disk::default() };
            let mut effects = Vec::new();
            let replica = self.replica(node, &disk, &mut effects);
            let (log, high_watermark) = (Image::default(), Offset::ZERO);
            state.nodes.push(Arc::new(Node { replica, disk, log, high_watermark }));
            all.push(effects);
        }
        for (node, effects) in all.into_iter().enumerate() {
            carry_out(&mut state, node, effects);
        }
        state
    }

    pub(super) fn actions(&self, state: &State) -> Vec<Action> {
        let mut actions: Vec<_> = state.network.keys().map(|id| Action::Deliver(*id)).collect();
        for (index, node) in state.nodes.iter().enumerate() {
            if !node.disk.votes.is_empty() {
                actions.push(Action::VoteStored(index));
            }
            if !node.disk.writes.is_empty() {
                actions.push(Action::LogStored(index));
            }
            if node.replica.next_deadline().is_some() {
                actions.push(Action::Tick(index));
            }
            if state.crashed < self.bounds.crashes {
                actions.push(Action::Crash(index));
            }
            if state.snapped < self.bounds.snapshots
                && node.high_watermark > node.log.start.offset
                && node.disk.log.end() >= node.high_watermark
                && node.disk.writes.is_empty()
            {
                actions.push(Action::Snapshot(index));
            }
            if !node.replica.is_leader() {
                continue;
            }
            if state.proposed < self.bounds.proposals {
                actions.push(Action::Propose(index));
            }
            if state.changed < self.bounds.changes {
                for other in 0..self.bounds.nodes {
                    let key = key(other, 0);
                    let votes = node.replica.voters().contains(&key);
                    let change =
                        if votes { VoterChange::Remove(key) } else { VoterChange::Add(voter(key)) };
                    actions.push(Action::Change(index, change));
                }
            }
        }
        actions
    }

    pub(super) fn after(&self, state: &State, action: &Action) -> State {
        let mut next = state.clone();
        match action {
            Action::Deliver(id) => {
                let message = Arc::clone(&next.network[id]);
                let event = match &message.wire {
                    Wire::Request(request) => Event::Request {
                        token: Token(message.from as u64),
                        request: request.clone(),
                    },
                    Wire::Response(response) => {
                        let from = NodeId(message.from as i32);
                        Event::Response { from, response: response.clone() }
                    }
                };
                step(&mut next, message.to, event);
            }
            Action::Tick(node) => step(&mut next, *node, Event::Tick),
            Action::VoteStored(node) => store_vote(&mut next, *node),
            Action::LogStored(node) => store_write(&mut next, *node),
            Action::Crash(node) => {
                next.crashed += 1;
                let me = Arc::make_mut(&mut next.nodes[*node]);
                me.disk.votes.clear();
                me.disk.writes.clear();
                me.log = me.disk.log.clone();
                let snapshot = me.disk.snapshot.as_ref();
                me.high_watermark = snapshot.map_or(Offset::ZERO, |snapshot| snapshot.id.offset);
                let mut effects = Vec::new();
                me.replica = self.replica(*node, &me.disk, &mut effects);
                carry_out(&mut next, *node, effects);
            }
            Action::Propose(node) => {
                next.proposed += 1;
                let payload = u64::from(next.proposed);
                step(&mut next, *node, Event::Propose { tag: Tag(payload), payload });
            }
            Action::Change(node, change) => {
                next.changed += 1;
                let tag = Tag(100 + u64::from(next.changed));
                step(&mut next, *node, Event::ChangeVoters { tag, change: change.clone() });
            }
            Action::Snapshot(node) => {
                next.snapped += 1;
                let me = Arc::make_mut(&mut next.nodes[*node]);
                let id = me.replica.until(me.high_watermark);
                let voters = me.replica.voters_below(id.offset).clone();
                let snapshot = Snapshot { id, voters };
                me.disk.snapshot = Some(snapshot.clone());
                let known = next.snapshots.entry(id).or_insert_with(|| snapshot.clone());
                assert_eq!(*known, snapshot, "QUORUM-D: two snapshots of the same place differ");
                step(&mut next, *node, Event::SnapshotTaken { id, log_start: id.offset });
            }
        }
        for node in 0..next.nodes.len() {
            while !self.bounds.slow_disks && store(&mut next, node) {}
            renumber(Arc::make_mut(&mut next.nodes[node]));
        }
        // What comes from an epoch that the receiver has left for good changes nothing there.
        let epochs: Vec<_> = next.nodes.iter().map(|node| node.disk.vote.epoch).collect();
        next.network.retain(|_, message| message.wire.epoch() >= epochs[message.to]);
        next
    }

    pub(super) fn is_within(&self, state: &State) -> bool {
        state.nodes.iter().all(|node| node.replica.current().epoch.0 <= self.bounds.epochs)
    }
}

fn step(state: &mut State, node: usize, event: Event<u64>) {
    let mut effects = Vec::new();
    Arc::make_mut(&mut state.nodes[node]).replica.step(NOW, event, &mut effects);
    carry_out(state, node, effects);
}

fn store_vote(state: &mut State, node: usize) {
    if let Some(ticket) = Arc::make_mut(&mut state.nodes[node]).disk.finish_vote() {
        step(state, node, Event::VoteStored(ticket));
    }
}

fn store_write(state: &mut State, node: usize) {
    let me = Arc::make_mut(&mut state.nodes[node]);
    match me.disk.finish_write() {
        Some((_, Write::Install(snapshot))) => {
            me.log.apply(&Write::Install(snapshot.clone()));
            me.high_watermark = me.high_watermark.max(snapshot.id.offset);
            step(state, node, Event::SnapshotInstalled(snapshot));
        }
        Some((ticket, _)) => step(state, node, Event::LogStored(ticket)),
        None => {}
    }
}

/// Stores the first of what is under way, if anything is.
fn store(state: &mut State, node: usize) -> bool {
    let disk = &state.nodes[node].disk;
    let (votes, writes) = (disk.votes.len(), disk.writes.len());
    if votes > 0 {
        store_vote(state, node);
    } else if writes > 0 {
        store_write(state, node);
    }
    votes + writes > 0
}

/// Numbers what is under way from 1: how much there has been makes no difference.
fn renumber(node: &mut Node) {
    let base = node.replica.vote_stored.0;
    node.replica.vote_stored.0 = 0;
    node.replica.vote_asked.0 -= base;
    for (ticket, ..) in &mut node.replica.held {
        ticket.0 -= base;
    }
    for (ticket, _) in &mut node.disk.votes {
        ticket.0 -= base;
    }
    let base = node.replica.log.renumber();
    for (ticket, _) in &mut node.disk.writes {
        ticket.0 = ticket.0.saturating_sub(base);
    }
}

fn send(state: &mut State, from: usize, to: usize, mut wire: Wire) {
    if let Wire::Request(Request::Fetch(request)) = &mut wire {
        // It only decides whether to wait, and nobody waits here.
        request.high_watermark = Offset::ZERO;
    }
    let is_dull = match &wire {
        // A voter that does not know the leader asks for it; what it is told, others tell as well.
        Wire::Request(Request::Fetch(request)) => {
            let replica = &state.nodes[from].replica;
            let is_voter = replica.voters().contains(&request.replica);
            let follows = matches!(replica.role, Role::Follower(_));
            (is_voter && !follows) || !request.wants_records
        }
        Wire::Request(Request::EndQuorumEpoch(_)) | Wire::Response(Response::Current(_)) => true,
        _ => false,
    };
    if !is_dull && from != to {
        let message = Message { from, to, wire };
        state.network.entry(hash(&message)).or_insert_with(|| Arc::new(message));
    }
}

fn carry_out(state: &mut State, index: usize, effects: Vec<Effect<u64>>) {
    for effect in effects {
        let node = Arc::make_mut(&mut state.nodes[index]);
        let checks = Arc::make_mut(&mut state.checks);
        match effect {
            Effect::SaveVote(ticket, vote) => node.disk.votes.push_back((ticket, vote)),
            Effect::Append(ticket, entries) => {
                for entry in &entries {
                    checks.appended(node.log.last().epoch, entry);
                    node.log.apply(&Write::Append(vec![entry.clone()]));
                }
                node.disk.writes.push_back((ticket, Write::Append(entries)));
            }
            Effect::Truncate(ticket, end) => {
                assert!(end >= node.high_watermark, "QUORUM-D: committed is cut");
                node.log.apply(&Write::Truncate(end));
                node.disk.writes.push_back((ticket, Write::Truncate(end)));
            }
            Effect::Prune(ticket, start) => {
                node.log.apply(&Write::Prune(start));
                node.disk.writes.push_back((ticket, Write::Prune(start)));
            }
            Effect::Send(Peer::Node(to), request) => {
                Checks::sent(&request, &node.disk);
                send(state, index, to.0 as usize, Wire::Request(request));
            }
            Effect::Answer(token, response) => {
                answer(state, index, token.0 as usize, response);
            }
            Effect::AnswerRecords { token, mut response, end } => {
                let records = node.log.read(response.last.offset, end, 8);
                response.found = Found::Records(records);
                answer(state, index, token.0 as usize, Response::Fetch(response));
            }
            Effect::AnswerSnapshot { token, mut response } => {
                let known = node.disk.snapshot.as_ref();
                if known.is_some_and(|known| known.id == response.snapshot) {
                    // All of it at once, and nothing in it: the logs are compared anyway.
                    let bytes = bytes::Bytes::from_static(b"all");
                    response.part = Some(SnapshotPart { size: 3, bytes });
                }
                answer(state, index, token.0 as usize, Response::FetchSnapshot(response));
            }
            Effect::InstallSnapshot(id) => {
                let snapshot = state.snapshots[&id].clone();
                node.disk.writes.push_back((Ticket(0), Write::Install(snapshot)));
            }
            Effect::Committed(end) => committed(state, index, end),
            Effect::BecameLeader { epoch, .. } => {
                checks.elected(key(index, 0), epoch, &node.log, &node.disk);
            }
            Effect::Send(Peer::Bootstrap(_), _)
            | Effect::WriteSnapshot { .. }
            | Effect::Abandon(_)
            | Effect::Outcome(..)
            | Effect::LostLeadership
            | Effect::LeaderChanged(_) => {}
            Effect::Halt(why) => panic!("node {index} halts: {why}"),
        }
    }
}

fn committed(state: &mut State, index: usize, end: Offset) {
    let node = Arc::make_mut(&mut state.nodes[index]);
    let (before, id) = (node.high_watermark, NodeId(index as i32));
    assert!(end >= before, "QUORUM-D: the high watermark goes back");
    node.high_watermark = end;
    let epoch = node.replica.current().epoch;
    Arc::make_mut(&mut state.checks).committed(id, before, end, &node.log, epoch);
    if node.replica.is_leader() {
        let node = &state.nodes[index];
        let disks = state.nodes.iter().enumerate();
        let disks = disks.map(|(index, node)| (key(index, 0), &node.disk));
        let (leader, voters) = (node.replica.current(), node.replica.voters());
        Checks::counted(end, &leader, &node.log, voters, disks);
    }
}

fn answer(state: &mut State, index: usize, to: usize, response: Response<u64>) {
    if let Response::Vote(vote) = &response
        && vote.granted
        && !vote.pre_vote
    {
        let saved = state.nodes[index].disk.vote.epoch;
        assert!(saved >= vote.epoch, "QUORUM-E: an unsaved vote");
        Arc::make_mut(&mut state.checks).voted(key(index, 0), vote.epoch, key(to, 0));
    }
    send(state, index, to, Wire::Response(response));
}
