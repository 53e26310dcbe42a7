//! A consumer group (KIP-848) under faults: members that come, go, crash and change their minds, a
//! network that loses and repeats, a coordinator that restarts and loses what it had not committed.
//!
//! The network behaves like a connection: the requests of one client arrive in order, each perhaps
//! twice in a row; when something is lost, so is everything that the client has in flight. A client
//! that gets no answer for a whole session gives up its partitions on its own.
//!
//! Checked at every moment: `CONSUMER-1` (no partition with two clients, nor with two members),
//! `CONSUMER-3` (epochs only grow), GROUP-1 (each request has one answer). Checked when the faults
//! have stopped: `CONSUMER-2`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ottla::error::ErrorCode;
use ottla::machine::coordinator::Coordinator as _;
use ottla::machine::group::{
    ConsumerHeartbeatReply, ConsumerHeartbeatRequest, DescribedConsumerGroup, Effect, Event,
    GroupConfig, GroupError, GroupNews, GroupRecord, GroupReply, GroupRequest, GroupShard,
    RequestId, TopicPartitions, TopicView, TopicsView,
};
use ottla::machine::{Machine, Replicated as _};
use ottla::types::{TimestampMs, TopicId, Uuid};

const SLOTS: usize = 6;
const SESSION_MS: i64 = 45_000;
const HEARTBEAT_MS: i64 = 5_000;
const PATIENCE_MS: i64 = 3_000;
const STEP_MS: i64 = 100;
const STORM_MS: i64 = 900_000;
const CALM_MS: i64 = 300_000;

type Partition = (TopicId, i32);
type Answer = Result<ConsumerHeartbeatReply, GroupError>;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn within(&mut self, end_ms: i64) -> i64 {
        i64::try_from(self.below(end_ms.unsigned_abs())).unwrap()
    }

    /// Whether something with `chance` in a million happens.
    fn one_in_a_million(&mut self, chance: u64) -> bool {
        self.below(1_000_000) < chance
    }
}

/// What a client subscribes to.
#[derive(Clone, PartialEq)]
enum Interest {
    Names(BTreeSet<&'static str>),
    Regex(&'static str),
}

impl Interest {
    fn random(random: &mut Random) -> Self {
        if random.below(4) == 0 {
            return Self::Regex(["a|b", "[bc].*", ".*"][usize::try_from(random.below(3)).unwrap()]);
        }
        let names = ["a", "b", "c-new"].into_iter().filter(|_| random.below(3) != 0);
        Self::Names(names.collect())
    }

    fn covers(&self, topic: &str) -> bool {
        match self {
            Self::Names(names) => names.contains(topic),
            Self::Regex("a|b") => matches!(topic, "a" | "b"),
            Self::Regex("[bc].*") => topic.starts_with(['b', 'c']),
            Self::Regex(_) => true,
        }
    }
}

/// A member as its own process sees it.
struct Client {
    id: Arc<str>,
    instance: Option<Arc<str>>,
    interest: Interest,
    epoch: i32,
    owned: BTreeSet<Partition>,
    /// What it is to own; whatever is not in it is given up at `revoke_at`.
    wanted: BTreeSet<Partition>,
    revoke_at: i64,
    /// The request that is waiting for its answer, and since when.
    waits: Option<(RequestId, i64)>,
    next_heartbeat: i64,
    /// The next request carries every field.
    full: bool,
    /// When it last sent a request that was answered well.
    heard: i64,
    leaves: Option<i32>,
}

impl Client {
    fn abandon(&mut self, now: i64) {
        self.epoch = 0;
        self.owned.clear();
        self.wanted.clear();
        self.full = true;
        self.next_heartbeat = now;
    }

    fn request(&self) -> ConsumerHeartbeatRequest {
        let owned = (self.full || self.owned != self.wanted || self.leaves.is_none())
            .then(|| listed(&self.owned));
        let full = self.full && self.leaves.is_none();
        ConsumerHeartbeatRequest {
            group_id: "g".into(),
            member_id: Arc::clone(&self.id),
            member_epoch: self.leaves.unwrap_or(self.epoch),
            instance_id: self.instance.clone(),
            rack_id: None,
            client_id: "client".into(),
            client_host: "/127.0.0.1".into(),
            rebalance_timeout_ms: if full { 600_000 } else { -1 },
            subscribed_topic_names: full.then(|| match &self.interest {
                Interest::Names(names) => names.iter().map(|&name| name.into()).collect(),
                Interest::Regex(_) => Vec::new(),
            }),
            subscribed_topic_regex: full.then(|| match &self.interest {
                Interest::Names(_) => "".into(),
                Interest::Regex(regex) => (*regex).into(),
            }),
            server_assignor: None,
            topic_partitions: owned,
            requires_member_id: true,
        }
    }
}

fn listed(partitions: &BTreeSet<Partition>) -> Vec<TopicPartitions> {
    let mut by_topic: BTreeMap<TopicId, Vec<i32>> = BTreeMap::new();
    for &(topic, index) in partitions {
        by_topic.entry(topic).or_default().push(index);
    }
    by_topic
        .into_iter()
        .map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions })
        .collect()
}

struct World {
    seed: u64,
    random: Random,
    now: i64,
    shard: GroupShard,
    config: GroupConfig,
    /// What is committed.
    log: Vec<GroupRecord>,
    /// What is not committed yet, with the time when it will be.
    appends: VecDeque<(i64, Effect)>,
    /// Requests and answers on their way, by client.
    requests: BTreeMap<usize, VecDeque<(i64, RequestId, ConsumerHeartbeatRequest)>>,
    replies: BTreeMap<usize, VecDeque<(i64, RequestId, Answer)>>,
    senders: BTreeMap<RequestId, usize>,
    clients: Vec<Option<Client>>,
    topics: BTreeMap<&'static str, (TopicId, usize)>,
    next_id: u64,
    /// The epochs that the coordinator has shown in committed answers: group, and members.
    group_epoch: i32,
    answered: u64,
    converged: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let config = GroupConfig {
            consumer_assignment_interval_ms: if random.below(2) == 0 { 0 } else { 1_000 },
            ..GroupConfig::default()
        };
        let mut world = Self {
            seed,
            shard: GroupShard::new(config.clone(), seed),
            config,
            random,
            now: 1_000,
            log: Vec::new(),
            appends: VecDeque::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            senders: BTreeMap::new(),
            clients: (0..SLOTS).map(|_| None).collect(),
            topics: BTreeMap::from([("a", (Uuid([1; 16]), 5)), ("b", (Uuid([2; 16]), 2))]),
            next_id: 0,
            group_epoch: 0,
            answered: 0,
            converged: 0,
        };
        world.tell_topics();
        world
    }

    fn step(&mut self, event: Event) {
        let asked = match &event {
            Event::Request { id, .. } => Some(*id),
            _ => None,
        };
        let mut effects = Vec::new();
        self.shard.step(TimestampMs(self.now), event, &mut effects);
        let answers: Vec<RequestId> = effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Append { reply, .. } => reply.as_ref().map(|(id, _)| *id),
                Effect::Reply { request, .. } => Some(*request),
                Effect::Undo(misfit) => panic!("seed {}: {misfit}", self.seed),
            })
            .collect();
        assert_eq!(answers, asked.into_iter().collect::<Vec<_>>(), "GROUP-1, seed {}", self.seed);
        for effect in effects {
            let after = self.appends.back().map_or(self.now, |(at, _)| *at);
            let at = after.max(self.now + self.random.within(60));
            self.appends.push_back((at, effect));
        }
    }

    fn tell_topics(&mut self) {
        let view = TopicsView::new(self.topics.iter().map(|(&name, &(id, count))| TopicView {
            id,
            name: name.into(),
            racks: vec![Vec::new(); count],
        }));
        self.step(Event::News(GroupNews::Topics(Arc::new(view))));
    }

    /// The coordinator is gone with everything it had not committed; another one reads the log.
    fn crash_coordinator(&mut self) {
        self.appends.clear();
        self.requests.clear();
        self.replies.clear();
        self.shard = GroupShard::new(self.config.clone(), self.random.next());
        for record in &self.log {
            self.shard.apply(record).unwrap();
        }
        self.shard.restored(TimestampMs(self.now), &mut Vec::new());
        self.tell_topics();
    }

    fn commit(&mut self) {
        while self.appends.front().is_some_and(|(at, _)| *at <= self.now) {
            let Some((_, effect)) = self.appends.pop_front() else { return };
            let reply = match effect {
                Effect::Append { records, reply } => {
                    self.log.extend(records);
                    reply
                }
                Effect::Reply { request, reply } => Some((request, reply)),
                Effect::Undo(misfit) => panic!("{misfit}"),
            };
            let Some((id, GroupReply::ConsumerHeartbeat(result))) = reply else { continue };
            let Some(&slot) = self.senders.get(&id) else { continue };
            let queue = self.replies.entry(slot).or_default();
            let after = queue.back().map_or(self.now, |(at, ..)| *at);
            let at = after.max(self.now + self.random.within(200));
            queue.push_back((at, id, result));
        }
    }

    /// The connection of a client is lost, with everything in transit.
    fn cut(&mut self, slot: usize) {
        self.requests.remove(&slot);
        self.replies.remove(&slot);
    }

    fn deliver(&mut self, faults: bool) {
        for slot in 0..SLOTS {
            if faults && self.random.one_in_a_million(15_000) {
                self.cut(slot);
            }
            while let Some(queue) = self.requests.get_mut(&slot)
                && queue.front().is_some_and(|(at, ..)| *at <= self.now)
                && let Some((_, id, request)) = queue.pop_front()
            {
                let times = if faults && self.random.below(20) == 0 { 2 } else { 1 };
                for _ in 0..times {
                    let request = GroupRequest::ConsumerHeartbeat(request.clone());
                    self.step(Event::Request { id, request });
                }
            }
            while let Some(queue) = self.replies.get_mut(&slot)
                && queue.front().is_some_and(|(at, ..)| *at <= self.now)
                && let Some((_, id, result)) = queue.pop_front()
            {
                self.hear(slot, id, result);
            }
        }
    }

    fn hear(&mut self, slot: usize, id: RequestId, result: Answer) {
        let now = self.now;
        let Some(client) = &mut self.clients[slot] else { return };
        let Some((awaited, sent)) = client.waits else { return };
        if awaited != id {
            return;
        }
        client.waits = None;
        self.answered += 1;
        if client.leaves.is_some() {
            self.clients[slot] = None;
            return;
        }
        match result {
            Ok(reply) => {
                assert!(
                    reply.member_epoch >= client.epoch && reply.member_epoch > 0,
                    "CONSUMER-3, seed {}: {} after {}",
                    self.seed,
                    reply.member_epoch,
                    client.epoch
                );
                client.epoch = reply.member_epoch;
                client.full = false;
                client.heard = sent;
                client.next_heartbeat = sent + HEARTBEAT_MS;
                if let Some(assignment) = reply.assignment {
                    client.wanted = assignment
                        .iter()
                        .flat_map(|entry| entry.partitions.iter().map(|&i| (entry.topic_id, i)))
                        .collect();
                    client.revoke_at = now + self.random.within(8_000);
                    client.owned.extend(client.wanted.iter().copied());
                }
            }
            Err(error) => match error.code {
                ErrorCode::FencedMemberEpoch | ErrorCode::UnknownMemberId => client.abandon(now),
                ErrorCode::UnreleasedInstanceId => client.next_heartbeat = now + 1_000,
                ErrorCode::FencedInstanceId => self.clients[slot] = None,
                code => panic!("seed {}: {code:?} {}", self.seed, error.message),
            },
        }
    }

    fn act(&mut self, slot: usize) {
        let now = self.now;
        let Some(client) = &mut self.clients[slot] else { return };
        if now - client.heard >= SESSION_MS - 1_000 && client.epoch > 0 {
            client.abandon(now);
            client.waits = None;
            client.heard = now;
        }
        if client.owned != client.wanted && now >= client.revoke_at {
            client.owned.retain(|partition| client.wanted.contains(partition));
            client.next_heartbeat = now;
        }
        if let Some((_, since)) = client.waits {
            if now - since < PATIENCE_MS {
                return;
            }
            client.waits = None;
            client.full = true;
            client.next_heartbeat = now;
            if client.leaves.is_some() {
                self.clients[slot] = None;
            }
            return self.cut(slot);
        }
        if now < client.next_heartbeat {
            return;
        }
        self.next_id += 1;
        let id = RequestId(self.next_id);
        client.waits = Some((id, now));
        let request = client.request();
        self.senders.insert(id, slot);
        let at = now + self.random.within(200);
        let queue = self.requests.entry(slot).or_default();
        let at = queue.back().map_or(at, |(last, ..)| at.max(*last));
        queue.push_back((at, id, request));
    }

    fn start(&mut self, slot: usize) {
        self.next_id += 1;
        self.clients[slot] = Some(Client {
            id: format!("member-{}", self.next_id).into(),
            instance: (slot < 2).then(|| format!("instance-{slot}").into()),
            interest: Interest::random(&mut self.random),
            epoch: 0,
            owned: BTreeSet::new(),
            wanted: BTreeSet::new(),
            revoke_at: 0,
            waits: None,
            next_heartbeat: self.now,
            full: true,
            heard: self.now,
            leaves: None,
        });
        self.cut(slot);
    }

    fn trouble(&mut self) {
        for slot in 0..SLOTS {
            if self.clients[slot].is_none() {
                if self.random.one_in_a_million(5_000) {
                    self.start(slot);
                }
            } else if self.random.one_in_a_million(400) {
                self.clients[slot] = None;
                self.cut(slot);
            } else if self.random.one_in_a_million(700) {
                let for_a_while = self.random.below(2) == 0;
                let now = self.now;
                if let Some(client) = &mut self.clients[slot]
                    && client.waits.is_none()
                    && client.epoch > 0
                {
                    client.owned.clear();
                    client.wanted.clear();
                    client.next_heartbeat = now;
                    let stays = for_a_while && client.instance.is_some();
                    client.leaves = Some(if stays { -2 } else { -1 });
                }
            } else if self.random.one_in_a_million(1_500) {
                let interest = Interest::random(&mut self.random);
                if let Some(client) = &mut self.clients[slot]
                    && client.leaves.is_none()
                {
                    client.interest = interest;
                    client.full = true;
                }
            }
        }
        if self.random.one_in_a_million(1_000) {
            self.crash_coordinator();
        }
        if self.random.one_in_a_million(1_500) {
            match self.random.below(4) {
                0 => {
                    let id = Uuid([u8::try_from(3 + self.random.below(200)).unwrap(); 16]);
                    self.topics.insert("c-new", (id, 3));
                }
                1 => {
                    self.topics.remove("c-new");
                }
                _ => {
                    if let Some((_, count)) = self.topics.get_mut("b") {
                        *count = (*count + 1).min(9);
                    }
                }
            }
            self.tell_topics();
        }
    }

    fn describe(&mut self) -> Option<DescribedConsumerGroup> {
        let request = GroupRequest::ConsumerDescribe { groups: vec!["g".into()] };
        let mut effects = Vec::new();
        let event = Event::Request { id: RequestId(0), request };
        self.shard.step(TimestampMs(self.now), event, &mut effects);
        match effects.pop() {
            Some(Effect::Reply { reply: GroupReply::ConsumerDescribe(mut list), .. }) => {
                list.pop().filter(|group| group.error.is_none())
            }
            other => panic!("seed {}: {other:?}", self.seed),
        }
    }

    fn check(&mut self) {
        let mut owners: BTreeMap<Partition, usize> = BTreeMap::new();
        for (slot, client) in self.clients.iter().enumerate() {
            for &partition in client.iter().flat_map(|client| &client.owned) {
                if let Some(other) = owners.insert(partition, slot) {
                    panic!(
                        "CONSUMER-1, seed {} at {}: clients {other} and {slot} own {partition:?}",
                        self.seed, self.now
                    );
                }
            }
        }
        if self.now % 1_000 != 0 {
            return;
        }
        let Some(group) = self.describe() else { return };
        let mut held: BTreeSet<Partition> = BTreeSet::new();
        for member in &group.members {
            for entry in &member.assignment {
                for &index in &entry.partitions {
                    assert!(
                        held.insert((entry.topic_id, index)),
                        "CONSUMER-1, seed {}: two members have {}-{index}",
                        self.seed,
                        entry.topic_name
                    );
                }
            }
        }
    }

    fn tick(&mut self, faults: bool) {
        self.now += STEP_MS;
        if self.shard.next_deadline().is_some_and(|at| at.0 <= self.now) {
            self.step(Event::Tick);
        }
        if faults {
            self.trouble();
        }
        for slot in 0..SLOTS {
            self.act(slot);
        }
        self.deliver(faults);
        self.commit();
        self.check();
    }

    /// CONSUMER-2: the members present have every partition that anyone wants.
    fn assert_converged(&mut self) {
        let seed = self.seed;
        let alive: Vec<&Client> = self.clients.iter().flatten().collect();
        let wanted: BTreeSet<Partition> = self
            .topics
            .iter()
            .filter(|(name, _)| alive.iter().any(|client| client.interest.covers(name)))
            .flat_map(|(_, &(id, count))| (0..i32::try_from(count).unwrap()).map(move |i| (id, i)))
            .collect();
        let owned: BTreeSet<Partition> =
            alive.iter().flat_map(|client| client.owned.iter().copied()).collect();
        assert_eq!(owned, wanted, "CONSUMER-2, seed {seed}");
        let counts: BTreeMap<Arc<str>, usize> =
            alive.iter().map(|client| (Arc::clone(&client.id), client.owned.len())).collect();
        if counts.is_empty() {
            return;
        }
        self.converged += 1;
        let group = self.describe().unwrap();
        assert_eq!(group.state, "Stable", "CONSUMER-2, seed {seed}");
        assert!(group.group_epoch >= self.group_epoch, "CONSUMER-3, seed {seed}");
        self.group_epoch = group.group_epoch;
        let held: BTreeMap<Arc<str>, usize> = group
            .members
            .iter()
            .map(|member| {
                let count = member.assignment.iter().map(|entry| entry.partitions.len()).sum();
                (Arc::clone(&member.member_id), count)
            })
            .collect();
        assert_eq!(held, counts, "CONSUMER-2, seed {seed}: members and clients");
    }

    fn run(seed: u64) -> (u64, u64) {
        let mut world = Self::new(seed);
        for _ in 0..2 {
            let end = world.now + STORM_MS;
            while world.now < end {
                world.tick(true);
            }
            // Clients that are leaving do so; the others stay.
            let end = world.now + CALM_MS;
            while world.now < end {
                world.tick(false);
            }
            world.assert_converged();
        }
        (world.answered, world.converged)
    }
}

#[test]
fn members_share_every_partition_and_never_two_one_whatever_happens() {
    let first: u64 = std::env::var("OTTLA_SEED").map_or(1, |seed| seed.parse().unwrap());
    let (mut answered, mut converged) = (0, 0);
    for seed in first..first + 8 {
        let (more, calm) = World::run(seed);
        answered += more;
        converged += calm;
    }
    assert!(answered > 10_000 && converged >= 12, "the simulation is idle: {answered} {converged}");
}
