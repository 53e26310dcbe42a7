//! A simulated cluster: replicas, their disks, a network, and time. Everything follows from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use bytes::Bytes;

use super::super::*;
use super::checks::Checks;
use super::disk::{Disk, Image, Write};
use crate::types::{SplitMix64, Uuid};

pub(super) const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How hard a run is.
#[derive(Clone, Debug)]
pub(super) struct Faults {
    /// In 1000 messages.
    pub(super) lost: u64,
    pub(super) doubled: u64,
    pub(super) delay: (Duration, Duration),
    pub(super) disk: (Duration, Duration),
    /// In 1000 writes, one that takes long, and how long at most.
    pub(super) stalled: (u64, Duration),
}

impl Faults {
    pub(super) fn none() -> Self {
        let (delay, disk) = ((ms(1), ms(3)), (ms(1), ms(5)));
        Self { lost: 0, doubled: 0, delay, disk, stalled: (0, Duration::ZERO) }
    }
}

#[derive(Clone, Debug, Hash)]
pub(super) enum Wire {
    Request(Request),
    Response(Response<u64>),
}

#[derive(Clone, Debug)]
pub(super) enum Action {
    Deliver { from: usize, to: usize, wire: Wire },
    Tick(usize),
    VoteDone(usize, u32),
    WriteDone(usize, u32),
}

pub(super) struct Node {
    pub(super) key: ReplicaKey,
    pub(super) replica: Option<Quorum<u64>>,
    pub(super) incarnation: u32,
    pub(super) disk: Disk,
    /// The log as it can be read.
    pub(super) log: Image,
    pub(super) high_watermark: Offset,
    pub(super) download: Vec<u8>,
    pub(super) tick: Option<Duration>,
    /// How many votes, and how many writes, the sync under way covers.
    pub(super) vote_sync: usize,
    pub(super) write_sync: usize,
    /// As a leader: when each node was heard last, and since when it leads.
    pub(super) heard: BTreeMap<usize, Duration>,
    pub(super) led_since: Duration,
}

impl Node {
    pub(super) fn is_leader(&self) -> bool {
        self.replica.as_ref().is_some_and(Quorum::is_leader)
    }
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: SplitMix64,
    pub(super) nodes: Vec<Node>,
    pub(super) faults: Faults,
    /// From, to.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) checks: Checks,
    pub(super) steps: u64,
    pub(super) verbose: bool,
    /// Proposals that are waited for, by tag: the node.
    pub(super) waiting: BTreeMap<Tag, usize>,
    pub(super) outcomes: BTreeMap<Tag, Result<Offset, Refusal>>,
    /// What lost disks held. What they acknowledged may still be on its way.
    pub(super) emptied: Vec<(ReplicaKey, Disk)>,
    pub(super) elections: u64,
    pub(super) snapshots_installed: u64,
    pub(super) truncations: u64,
    pub(super) prune_hard: bool,
    /// Nodes whose disks begin no sync.
    pub(super) stalled: BTreeSet<usize>,
    pub(super) configured: VoterSet,
    pub(super) timing: Timing,
    pub(super) planted: &'static [Mutation],
    pub(super) queue: BTreeMap<(Duration, u64), Action>,
    pub(super) sequence: u64,
    /// Who waits for an answer: the node, and the replica that it was.
    pub(super) tokens: BTreeMap<Token, (usize, ReplicaKey)>,
    pub(super) trace: DefaultHasher,
    pub(super) snapshots: BTreeMap<OffsetAndEpoch, (Snapshot, Bytes)>,
    pub(super) last_tag: u64,
}

pub(super) fn key(node: usize, generation: u8) -> ReplicaKey {
    ReplicaKey { id: NodeId(node as i32), directory_id: Uuid([generation + 1; 16]) }
}

pub(super) fn voter(key: ReplicaKey) -> Voter {
    Voter { key, endpoints: Vec::new() }
}

impl World {
    /// `voters` voters, and behind them `observers` observers, all of them running.
    pub(super) fn new(
        seed: u64,
        voters: usize,
        observers: usize,
        planted: &'static [Mutation],
    ) -> Self {
        let configured = VoterSet::new((0..voters).map(|node| voter(key(node, 0))));
        Self::with(seed, configured, voters + observers, Timing::default(), planted)
    }

    pub(super) fn with(
        seed: u64,
        configured: VoterSet,
        nodes: usize,
        timing: Timing,
        planted: &'static [Mutation],
    ) -> Self {
        let node = |node: usize| Node {
            key: key(node, 0),
            replica: None,
            incarnation: 0,
            disk: Disk::default(),
            log: Image::default(),
            high_watermark: Offset::ZERO,
            download: Vec::new(),
            tick: None,
            vote_sync: 0,
            write_sync: 0,
            heard: BTreeMap::new(),
            led_since: Duration::ZERO,
        };
        let mut world = Self {
            now: Duration::ZERO,
            random: SplitMix64::new(seed),
            nodes: (0..nodes).map(node).collect(),
            faults: Faults::none(),
            cut: BTreeSet::new(),
            checks: Checks::default(),
            steps: 0,
            verbose: false,
            waiting: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            emptied: Vec::new(),
            elections: 0,
            snapshots_installed: 0,
            truncations: 0,
            prune_hard: false,
            stalled: BTreeSet::new(),
            configured,
            timing,
            planted,
            queue: BTreeMap::new(),
            sequence: 0,
            tokens: BTreeMap::new(),
            trace: DefaultHasher::new(),
            snapshots: BTreeMap::new(),
            last_tag: 0,
        };
        for node in 0..nodes {
            world.start(node);
        }
        world
    }

    pub(super) fn trace(&self) -> u64 {
        self.trace.finish()
    }

    pub(super) fn draw(&mut self, count: u64) -> u64 {
        self.random.draw() % count
    }

    pub(super) fn between(&mut self, (min, max): (Duration, Duration)) -> Duration {
        let range = max.saturating_sub(min).as_micros() as u64 + 1;
        min + Duration::from_micros(self.draw(range))
    }

    pub(super) fn schedule(&mut self, at: Duration, action: Action) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), action);
    }

    /// Starts a node that is down, from what is on its disk.
    pub(super) fn start(&mut self, node: usize) {
        let seed = self.random.draw();
        let me = &mut self.nodes[node];
        assert!(me.replica.is_none());
        let options = Options {
            me: voter(me.key),
            voters: self.configured.clone(),
            bootstrap: 1,
            timing: self.timing,
            seed,
        };
        me.log = me.disk.log.clone();
        me.high_watermark = me.disk.snapshot.as_ref().map_or(Offset::ZERO, |known| known.id.offset);
        me.tick = None;
        (me.vote_sync, me.write_sync) = (0, 0);
        let stored = me.disk.found();
        let mut effects = Vec::new();
        let mut replica = Quorum::at_rest(options, stored, self.now);
        replica.planted = self.planted;
        replica.wake_up(self.now, &mut effects);
        me.replica = Some(replica);
        self.carry_out(node, effects);
    }

    /// Kills a node; what was not stable may be lost.
    pub(super) fn kill(&mut self, node: usize) {
        let me = &mut self.nodes[node];
        if me.replica.take().is_none() {
            return;
        }
        me.incarnation += 1;
        me.disk.crash(&mut self.random);
        me.download.clear();
        self.waiting.retain(|_, at| *at != node);
        self.tell(|| format!("node {node} is killed"));
    }

    /// Kills a node and empties its disk.
    pub(super) fn wipe(&mut self, node: usize) {
        self.kill(node);
        let generation = self.nodes[node].key.directory_id.0[0];
        let disk = std::mem::take(&mut self.nodes[node].disk);
        self.emptied.push((self.nodes[node].key, disk));
        self.nodes[node].key = key(node, generation);
    }

    pub(super) fn tell(&self, what: impl FnOnce() -> String) {
        if self.verbose {
            println!("{:>10.3} {}", self.now.as_secs_f64() * 1000.0, what());
        }
    }

    /// Steps a replica that runs.
    pub(super) fn step(&mut self, node: usize, event: Event<u64>) {
        if self.nodes[node].replica.is_none() {
            return;
        }
        self.steps += 1;
        (self.now, node, &event).hash(&mut self.trace);
        self.tell(|| format!("{node} <- {event:?}"));
        let mut effects = Vec::new();
        let now = self.now;
        if let Some(replica) = &mut self.nodes[node].replica {
            replica.step(now, event, &mut effects);
        }
        self.carry_out(node, effects);
    }

    /// Does the first thing that is due until `until`.
    pub(super) fn proceed(&mut self, until: Duration) -> bool {
        let Some((&(at, sequence), _)) = self.queue.first_key_value() else { return false };
        if at > until {
            return false;
        }
        let action = self.queue.remove(&(at, sequence)).unwrap();
        self.now = self.now.max(at);
        match action {
            Action::Deliver { from, to, wire } => self.deliver(from, to, wire),
            Action::Tick(node) => {
                if self.nodes[node].tick == Some(at) {
                    self.nodes[node].tick = None;
                    self.step(node, Event::Tick);
                    self.check_leader(node);
                }
            }
            Action::VoteDone(node, incarnation) => {
                if self.nodes[node].incarnation == incarnation {
                    self.votes_done(node);
                }
            }
            Action::WriteDone(node, incarnation) => {
                if self.nodes[node].incarnation == incarnation {
                    self.writes_done(node);
                }
            }
        }
        true
    }

    fn votes_done(&mut self, node: usize) {
        let mut last = None;
        for _ in 0..std::mem::take(&mut self.nodes[node].vote_sync) {
            last = self.nodes[node].disk.finish_vote().or(last);
        }
        if let Some(ticket) = last {
            self.step(node, Event::VoteStored(ticket));
        }
        self.sync(node);
    }

    fn writes_done(&mut self, node: usize) {
        let mut last = None;
        for _ in 0..std::mem::take(&mut self.nodes[node].write_sync) {
            let Some((ticket, write)) = self.nodes[node].disk.finish_write() else { break };
            if let Write::Install(snapshot) = write {
                self.snapshots_installed += 1;
                self.nodes[node].log.apply(&Write::Install(snapshot.clone()));
                let high_watermark = &mut self.nodes[node].high_watermark;
                *high_watermark = snapshot.id.offset.max(*high_watermark);
                self.step(node, Event::SnapshotInstalled(snapshot));
            } else {
                last = Some(ticket);
            }
        }
        if let Some(ticket) = last {
            self.step(node, Event::LogStored(ticket));
        }
        self.sync(node);
    }

    /// Starts syncs of what has queued up while others were under way.
    pub(super) fn sync(&mut self, node: usize) {
        if self.stalled.contains(&node) {
            return;
        }
        let incarnation = self.nodes[node].incarnation;
        let votes = self.nodes[node].disk.votes.len();
        if votes > 0 && self.nodes[node].vote_sync == 0 {
            self.nodes[node].vote_sync = votes;
            let at = self.now + self.write_time();
            self.schedule(at, Action::VoteDone(node, incarnation));
        }
        let writes = self.nodes[node].disk.writes.len();
        if writes > 0 && self.nodes[node].write_sync == 0 {
            self.nodes[node].write_sync = writes;
            let at = self.now + self.write_time();
            self.schedule(at, Action::WriteDone(node, incarnation));
        }
    }

    /// Runs until then, or until `done`.
    pub(super) fn run_until(
        &mut self,
        until: Duration,
        mut done: impl FnMut(&Self) -> bool,
    ) -> bool {
        loop {
            if done(self) {
                return true;
            }
            if !self.proceed(until) {
                self.now = until;
                return done(self);
            }
        }
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    fn deliver(&mut self, from: usize, to: usize, wire: Wire) {
        if self.cut.contains(&(from, to)) || self.nodes[to].replica.is_none() {
            return;
        }
        match wire {
            Wire::Request(request) => {
                self.sequence += 1;
                let token = Token(self.sequence);
                let asker = match &request {
                    Request::Vote(request) => request.candidate,
                    _ => self.nodes[from].key,
                };
                self.tokens.insert(token, (from, asker));
                if matches!(request, Request::Fetch(_) | Request::FetchSnapshot(_)) {
                    let now = self.now;
                    self.nodes[to].heard.insert(from, now);
                }
                self.step(to, Event::Request { token, request });
            }
            Wire::Response(response) => {
                let from = NodeId(from as i32);
                self.step(to, Event::Response { from, response });
            }
        }
    }

    pub(super) fn send(&mut self, from: usize, to: usize, wire: Wire) {
        let copies = if self.draw(1000) < self.faults.doubled { 2 } else { 1 };
        for _ in 0..copies {
            if self.draw(1000) >= self.faults.lost {
                let at = self.now + self.between(self.faults.delay);
                self.schedule(at, Action::Deliver { from, to, wire: wire.clone() });
            }
        }
    }

    fn write_time(&mut self) -> Duration {
        let (stalled, longest) = self.faults.stalled;
        let time = self.between(self.faults.disk);
        if self.draw(1000) < stalled {
            time + self.between((Duration::ZERO, longest))
        } else {
            time
        }
    }

    pub(super) fn write(&mut self, node: usize, ticket: Ticket, write: Write) {
        self.nodes[node].disk.writes.push_back((ticket, write));
        self.sync(node);
    }

    /// QUORUM-G: a leader that no majority fetches from does not lead for long.
    fn check_leader(&self, node: usize) {
        let me = &self.nodes[node];
        let Some(replica) = me.replica.as_ref().filter(|replica| replica.is_leader()) else {
            return;
        };
        let voters = replica.voters();
        let limit = self.timing.election_max + ms(200);
        let fresh = voters.iter().filter(|voter| {
            let id = voter.key.id.0 as usize;
            let heard = me.heard.get(&id).copied().unwrap_or_default().max(me.led_since);
            id == node || self.now <= heard + limit
        });
        let fresh = fresh.count();
        assert!(fresh >= voters.majority(), "QUORUM-G: node {node} leads without a majority");
    }

    /// Proposes something at a node.
    pub(super) fn propose(&mut self, node: usize) -> Tag {
        self.last_tag += 1;
        let tag = Tag(self.last_tag);
        if self.nodes[node].replica.is_some() {
            self.waiting.insert(tag, node);
            self.step(node, Event::Propose { tag, payload: tag.0 });
        }
        tag
    }

    pub(super) fn change(&mut self, node: usize, change: VoterChange) -> Tag {
        self.last_tag += 1;
        let tag = Tag(self.last_tag);
        if self.nodes[node].replica.is_some() {
            self.waiting.insert(tag, node);
            self.step(node, Event::ChangeVoters { tag, change });
        }
        tag
    }

    /// A node writes a snapshot of what it has applied.
    pub(super) fn snapshot(&mut self, node: usize) {
        let me = &self.nodes[node];
        let Some(replica) = &me.replica else { return };
        let end = me.high_watermark;
        let installs = me.disk.writes.iter().any(|(_, write)| matches!(write, Write::Install(_)));
        if installs || end <= me.log.start.offset || end > me.log.end() || end > me.disk.log.end() {
            return;
        }
        let id = replica.until(end);
        let snapshot = Snapshot { id, voters: replica.voters_below(end).clone() };
        let text = format!("everything before {} of epoch {}", id.offset, id.epoch);
        let known = self.snapshots.entry(id).or_insert((snapshot.clone(), Bytes::from(text)));
        assert_eq!(known.0, snapshot, "QUORUM-D: two snapshots of the same place differ");
        let back = if self.prune_hard { 0 } else { self.draw(12) as i64 };
        let log_start = Offset((end.0 - back).max(0));
        self.nodes[node].disk.snapshot = Some(snapshot);
        self.step(node, Event::SnapshotTaken { id, log_start });
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leaders = self.nodes.iter().enumerate().filter(|(_, node)| node.is_leader());
        let epoch = |node: &Node| node.replica.as_ref().map(|replica| replica.current().epoch);
        leaders.max_by_key(|(_, node)| epoch(node)).map(|(index, _)| index)
    }

    pub(super) fn epoch(&self, node: usize) -> LeaderEpoch {
        let replica = self.nodes[node].replica.as_ref();
        replica.map_or(LeaderEpoch::UNKNOWN, |replica| replica.current().epoch)
    }
}
