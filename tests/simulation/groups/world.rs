//! Clock, network, log and coordinator of the simulation, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ottla::error::ErrorCode;
use ottla::machine::coordinator::Coordinator as _;
use ottla::machine::group::{
    Effect, Event, FetchOffsetsRequest, GroupConfig, GroupRecord, GroupReply, GroupRequest,
    GroupShard, RequestId,
};
use ottla::machine::{Machine, Replicated as _};
use ottla::types::TimestampMs;

use super::client::{Client, PARTITIONS, Phase};

const GROUPS: [&str; 2] = ["g", "h"];
const CLIENTS: usize = 8;
const CHAOS_MS: i64 = 180_000;
/// Long enough for all timeouts, one after another.
const REST_MS: i64 = 400_000;

/// An event at a point in time.
#[derive(Debug)]
enum Happening {
    /// A client checks what to do.
    Wake(usize),
    /// A client has waited long enough for an answer.
    GiveUp(usize, u64),
    /// A request reaches the coordinator.
    Request { from: Option<(usize, u64)>, request: GroupRequest },
    /// An answer reaches a client.
    Answer { to: usize, token: u64, reply: GroupReply },
    /// The log has committed what was appended up to here.
    Committed { life: u64, end: usize },
    /// The deadline of the coordinator.
    Tick { life: u64, at: i64 },
    /// The coordinator dies, and another one replays the log.
    CoordinatorCrash { again: bool },
    /// The coordinator is back.
    CoordinatorUp,
    /// A fault hits a client.
    Fate,
    /// The offsets are checked from time to time.
    Look,
    /// The state that the coordinator found in its log is checked.
    LookOnce,
}

/// An answer that waits for the log.
struct Held {
    end: usize,
    request: RequestId,
    reply: GroupReply,
}

pub(super) struct World {
    seed: u64,
    random: u64,
    now: i64,
    happenings: BTreeMap<(i64, u64), Happening>,
    sequence: u64,
    faults: bool,
    clients: Vec<Client>,
    next_token: u64,
    next_offset: i64,
    // The coordinator.
    life: u64,
    tick_at: Option<i64>,
    shard: Option<GroupShard>,
    log: Vec<GroupRecord>,
    committed: usize,
    held: Vec<Held>,
    open: BTreeMap<RequestId, Option<(usize, u64)>>,
    requests: BTreeMap<RequestId, GroupRequest>,
    next_request: u64,
    // What is known from outside.
    owners: BTreeMap<(Arc<str>, i32, u8), Arc<str>>,
    /// When the coordinator accepted which commit, by group, partition and offset.
    taken: BTreeMap<(Arc<str>, i32, i64), u64>,
    /// The newest commit that was acknowledged, by group and partition.
    acknowledged: BTreeMap<(Arc<str>, i32), u64>,
    commits: u64,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            random: seed,
            now: 1_000_000,
            happenings: BTreeMap::new(),
            sequence: 0,
            faults: true,
            clients: Vec::new(),
            next_token: 0,
            next_offset: 0,
            life: 0,
            tick_at: None,
            shard: None,
            log: Vec::new(),
            committed: 0,
            held: Vec::new(),
            open: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            owners: BTreeMap::new(),
            taken: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            commits: 0,
        };
        for index in 0..CLIENTS {
            let instance = (index % 4 == 1).then(|| format!("i{index}"));
            world.clients.push(Client::new(GROUPS[index % 2], instance, index % 4 == 2));
        }
        world
    }

    pub(super) fn acknowledged_commits(&self) -> u64 {
        self.commits
    }

    pub(super) fn generations(&self) -> u64 {
        let generations: BTreeSet<_> =
            self.owners.keys().map(|(group, generation, _)| (group, generation)).collect();
        generations.len() as u64
    }

    pub(super) fn run(&mut self) {
        self.coordinator_up();
        for index in 0..CLIENTS {
            let delay = self.below(10_000);
            self.clients[index].start();
            self.after(delay, Happening::Wake(index));
        }
        self.after(2_000, Happening::Fate);
        self.after(2_000, Happening::Look);
        let first = self.below(60_000);
        self.after(5_000 + first, Happening::CoordinatorCrash { again: true });
        self.pass_until(self.now + CHAOS_MS);
        self.faults = false;
        if self.shard.is_none() {
            self.coordinator_up();
        }
        self.pass_until(self.now + REST_MS);
        self.check_convergence();
        for client in &mut self.clients {
            client.crash();
        }
        self.pass_until(self.now + REST_MS);
        assert!(
            self.open.is_empty(),
            "seed {}: SIM-GROUP-4: without an answer: {:?}",
            self.seed,
            self.open.keys().map(|id| &self.requests[id]).collect::<Vec<_>>()
        );
    }

    fn pass_until(&mut self, end: i64) {
        while let Some(entry) = self.happenings.first_entry() {
            if entry.key().0 > end {
                break;
            }
            let ((at, _), happening) = entry.remove_entry();
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Wake(client) => self.wake(client),
            Happening::GiveUp(client, token) => {
                if self.clients[client].waits_for == Some(token) {
                    self.clients[client].waits_for = None;
                    if self.clients[client].phase == Phase::Leaving {
                        self.clients[client].crash();
                    }
                }
            }
            Happening::Request { from, request } => self.request(from, request),
            Happening::Answer { to, token, reply } => self.answer(to, token, &reply),
            Happening::Committed { life, end } if life == self.life => self.commit_log(end),
            Happening::Tick { life, at } if life == self.life && self.tick_at == Some(at) => {
                self.tick_at = None;
                self.step(Event::Tick);
            }
            Happening::Committed { .. } | Happening::Tick { .. } => {}
            Happening::CoordinatorCrash { again } => self.coordinator_crash(again),
            Happening::CoordinatorUp => self.coordinator_up(),
            Happening::Fate => self.fate(),
            Happening::Look => {
                let again = 500 + self.below(4_000);
                self.after(again, Happening::Look);
                self.look();
            }
            Happening::LookOnce => self.look(),
        }
    }

    // --- clients and network

    fn wake(&mut self, index: usize) {
        let again = 500 + self.below(1_500);
        self.after(again, Happening::Wake(index));
        if self.clients[index].waits_for.is_some() {
            return;
        }
        let commits = self.below(3) == 0;
        self.next_offset += 1;
        let Some(request) = self.clients[index].next_request(commits, self.next_offset) else {
            return;
        };
        self.next_token += 1;
        let token = self.next_token;
        self.clients[index].waits_for = Some(token);
        let patience = self.clients[index].patience_ms();
        self.after(patience, Happening::GiveUp(index, token));
        let copies = match self.below(40) {
            0 | 1 if self.faults => 0,
            2 | 3 if self.faults => 2,
            _ => 1,
        };
        for _ in 0..copies {
            let delay = self.delay();
            let (from, request) = (Some((index, token)), request.clone());
            self.after(delay, Happening::Request { from, request });
        }
    }

    fn answer(&mut self, to: usize, token: u64, reply: &GroupReply) {
        if self.clients[to].waits_for != Some(token) {
            return;
        }
        let generation = self.clients[to].generation;
        self.clients[to].answered(reply);
        let client = &self.clients[to];
        let GroupReply::Sync(sync) = reply else { return };
        if client.phase != Phase::Member || sync.error.is_some() {
            return;
        }
        for &partition in &client.owned {
            let owner = self
                .owners
                .entry((client.group.clone(), generation, partition))
                .or_insert_with(|| client.identity());
            assert_eq!(
                *owner,
                client.identity(),
                "seed {}: SIM-GROUP-1: partition {partition} of group {} in generation \
                 {generation}",
                self.seed,
                client.group
            );
        }
    }

    fn fate(&mut self) {
        if !self.faults {
            for index in 0..CLIENTS / 2 {
                if self.clients[index].phase == Phase::Down {
                    self.clients[index].start();
                }
            }
            return;
        }
        let again = 500 + self.below(8_000);
        self.after(again, Happening::Fate);
        let index = self.below(CLIENTS as i64) as usize;
        let leaves = self.below(3) == 0;
        let client = &mut self.clients[index];
        match client.phase {
            Phase::Down => client.start(),
            Phase::Member if leaves => client.phase = Phase::Leaving,
            _ => client.crash(),
        }
    }

    /// Reads all offsets of the groups.
    fn look(&mut self) {
        for group in GROUPS {
            let request = GroupRequest::FetchOffsets(FetchOffsetsRequest {
                group_id: group.into(),
                member_id: None,
                member_epoch: -1,
                topics: None,
                require_stable: true,
            });
            self.request(None, request);
        }
    }

    fn check_convergence(&self) {
        for group in GROUPS {
            let here = |client: &&Client| &*client.group == group && client.phase != Phase::Down;
            let live: Vec<&Client> = self.clients.iter().filter(here).collect();
            let mut owned: Vec<u8> = Vec::new();
            for client in &live {
                assert!(
                    client.phase == Phase::Member && client.beats > 10,
                    "seed {}: SIM-GROUP-3: {client:?} has no assignment that lasts",
                    self.seed
                );
                assert_eq!(client.generation, live[0].generation, "seed {}", self.seed);
                owned.extend(&client.owned);
            }
            owned.sort_unstable();
            let all: Vec<u8> = if live.is_empty() { Vec::new() } else { (0..PARTITIONS).collect() };
            assert_eq!(owned, all, "seed {}: SIM-GROUP-3: owners in group {group}", self.seed);
        }
    }

    // --- the coordinator

    fn coordinator_crash(&mut self, again: bool) {
        if !self.faults {
            return;
        }
        if again {
            let next = 10_000 + self.below(60_000);
            self.after(next, Happening::CoordinatorCrash { again });
        }
        if self.shard.take().is_none() {
            return;
        }
        self.life += 1;
        self.tick_at = None;
        // Whatever was on its way to the log may be there or not, in order.
        let lost = self.below((self.log.len() - self.committed + 1) as i64) as usize;
        self.log.truncate(self.log.len() - lost);
        self.committed = self.log.len();
        self.held.clear();
        for (_, from) in std::mem::take(&mut self.open) {
            // The connection breaks: a client notices, sooner or later.
            if let Some((client, token)) = from {
                let delay = self.delay();
                self.after(delay, Happening::GiveUp(client, token));
            }
        }
        let down = self.below(5_000);
        self.after(down, Happening::CoordinatorUp);
    }

    fn coordinator_up(&mut self) {
        if self.shard.is_some() {
            return;
        }
        let config =
            GroupConfig { classic_initial_rebalance_delay_ms: 1_000, ..Default::default() };
        let mut shard = GroupShard::new(config, self.seed * 1_000 + self.life);
        for record in &self.log {
            shard.apply(record).unwrap();
        }
        let mut effects = Vec::new();
        shard.restored(TimestampMs(self.now), &mut effects);
        self.shard = Some(shard);
        self.carry_out(effects);
        self.after(0, Happening::LookOnce);
    }

    fn request(&mut self, from: Option<(usize, u64)>, request: GroupRequest) {
        if self.shard.is_none() {
            return;
        }
        self.next_request += 1;
        let id = RequestId(self.next_request);
        self.open.insert(id, from);
        self.requests.insert(id, request.clone());
        self.step(Event::Request { id, request });
    }

    fn step(&mut self, event: Event) {
        let Some(shard) = &mut self.shard else { return };
        let mut effects = Vec::new();
        shard.step(TimestampMs(self.now), event, &mut effects);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            let answer = match effect {
                Effect::Append { records, reply } => {
                    self.log.extend(records);
                    let slow = self.faults && self.below(4) == 0;
                    let delay = 1 + self.below(if slow { 500 } else { 30 });
                    if self.faults && self.below(40) == 0 {
                        // The worst moment: what is appended is not committed yet.
                        let soon = self.below(40);
                        self.after(soon, Happening::CoordinatorCrash { again: false });
                    }
                    let (life, end) = (self.life, self.log.len());
                    self.after(delay, Happening::Committed { life, end });
                    reply
                }
                Effect::Reply { request, reply } => Some((request, reply)),
                Effect::Undo(misfit) => panic!("{misfit}"),
            };
            let Some((request, reply)) = answer else { continue };
            self.take_commit(request, &reply);
            self.held.push(Held { end: self.log.len(), request, reply });
        }
        self.commit_log(self.committed);
        if let Some(deadline) = self.shard.as_ref().and_then(Machine::next_deadline) {
            // A shell is sometimes late.
            let delay = (deadline.0 - self.now).max(0) + self.below(20);
            let at = self.now + delay;
            if self.tick_at.is_none_or(|planned| at < planned) {
                self.tick_at = Some(at);
                self.after(delay, Happening::Tick { life: self.life, at });
            }
        }
    }

    /// Remembers the order in which commits were accepted.
    fn take_commit(&mut self, request: RequestId, reply: &GroupReply) {
        let GroupReply::CommitOffsets(Ok(_)) = reply else { return };
        let GroupRequest::CommitOffsets(commit) = &self.requests[&request] else { return };
        for partition in &commit.topics[0].partitions {
            let key = (commit.group_id.clone(), partition.partition, partition.offset.0);
            self.taken.insert(key, request.0);
        }
    }

    /// Gives the answers that need nothing more from the log.
    fn commit_log(&mut self, end: usize) {
        self.committed = self.committed.max(end);
        let (ready, held) =
            std::mem::take(&mut self.held).into_iter().partition(|held| held.end <= self.committed);
        self.held = held;
        for Held { request, reply, .. } in ready {
            let from = self.open.remove(&request);
            let from = from.unwrap_or_else(|| {
                panic!("seed {}: SIM-GROUP-4: {request:?} is answered again: {reply:?}", self.seed)
            });
            self.check_offsets(request, &reply);
            if let Some((to, token)) = from {
                let delay = self.delay();
                self.after(delay, Happening::Answer { to, token, reply });
            }
        }
    }

    fn check_offsets(&mut self, request: RequestId, reply: &GroupReply) {
        match (&self.requests[&request], reply) {
            (GroupRequest::CommitOffsets(commit), GroupReply::CommitOffsets(Ok(_))) => {
                self.commits += 1;
                for partition in &commit.topics[0].partitions {
                    let newest = self
                        .acknowledged
                        .entry((commit.group_id.clone(), partition.partition))
                        .or_default();
                    *newest = (*newest).max(request.0);
                }
            }
            (GroupRequest::FetchOffsets(fetch), GroupReply::FetchOffsets(Ok(topics))) => {
                let mut shown = BTreeMap::new();
                for partition in topics.iter().flat_map(|topic| &topic.partitions) {
                    assert_eq!(partition.error, ErrorCode::None);
                    shown.insert(partition.partition, partition.offset.0);
                }
                for partition in 0..i32::from(PARTITIONS) {
                    let key = (fetch.group_id.clone(), partition);
                    let Some(&newest) = self.acknowledged.get(&key) else { continue };
                    let taken = shown
                        .get(&partition)
                        .and_then(|&offset| self.taken.get(&(key.0.clone(), partition, offset)));
                    assert!(
                        taken.is_some_and(|&taken| taken >= newest),
                        "seed {}: SIM-GROUP-2: {key:?} shows {:?} of request {taken:?} after \
                         request {newest} was acknowledged",
                        self.seed,
                        shown.get(&partition)
                    );
                }
            }
            _ => {}
        }
    }

    // --- time and chance

    fn after(&mut self, delay_ms: i64, happening: Happening) {
        self.sequence += 1;
        self.happenings.insert((self.now + delay_ms, self.sequence), happening);
    }

    /// How long a message is in transit.
    fn delay(&mut self) -> i64 {
        if self.faults && self.below(30) == 0 { self.below(8_000) } else { 1 + self.below(200) }
    }

    fn below(&mut self, end: i64) -> i64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end as u64) as i64
    }
}
