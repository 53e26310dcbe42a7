//! What holds for members that come, go, crash and change their minds, with answers that are lost: no partition
//! has two members (CONSUMER-1), each has one in the end (CONSUMER-2), epochs only grow (CONSUMER-3).

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::machine::group::DescribedConsumerGroup;
use crate::types::PartitionIndex;

const SESSION_MS: i64 = 45_000;
const MEMBERS: usize = 4;
const TOPICS: [&str; 3] = ["a", "b", "c"];

type Partitions = BTreeSet<(TopicId, PartitionIndex)>;

#[derive(Clone, Debug)]
enum Step {
    Start { who: usize, topics: usize },
    Crash { who: usize },
    Leave { who: usize },
    Subscribe { who: usize, topics: usize },
    Beat { who: usize, is_heard: bool },
    Release { who: usize },
    Pass { duration_ms: i64 },
    Topic { partitions: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0..MEMBERS;
    let topics = 1..8_usize;
    prop_oneof![
        3 => (who.clone(), topics.clone()).prop_map(|(who, topics)| Step::Start { who, topics }),
        1 => who.clone().prop_map(|who| Step::Crash { who }),
        1 => who.clone().prop_map(|who| Step::Leave { who }),
        1 => (who.clone(), topics).prop_map(|(who, topics)| Step::Subscribe { who, topics }),
        9 => (who.clone(), prop::bool::weighted(0.8))
            .prop_map(|(who, is_heard)| Step::Beat { who, is_heard }),
        4 => who.prop_map(|who| Step::Release { who }),
        3 => (100..40_000_i64).prop_map(|duration_ms| Step::Pass { duration_ms }),
        1 => (0..5_usize).prop_map(|partitions| Step::Topic { partitions }),
        1 => Just(Step::Restart),
    ]
}

/// A member as its own process sees it.
struct Client {
    id: String,
    epoch: i32,
    topics: usize,
    owned: Partitions,
    wanted: Partitions,
    /// When it last sent a request whose answer it heard.
    heard: TimestampMs,
    /// The next request has every field.
    is_full: bool,
}

impl Client {
    fn abandon(&mut self) {
        self.epoch = 0;
        self.owned.clear();
        self.wanted.clear();
        self.is_full = true;
    }

    fn covers(&self, topic: usize) -> bool {
        self.topics & (1 << topic) != 0
    }

    fn request(&self) -> ConsumerHeartbeatRequest {
        let names: Vec<&str> =
            (0..TOPICS.len()).filter(|&at| self.covers(at)).map(|at| TOPICS[at]).collect();
        let mut owned: BTreeMap<TopicId, Vec<PartitionIndex>> = BTreeMap::new();
        for &(topic, index) in &self.owned {
            owned.entry(topic).or_default().push(index);
        }
        let owned = owned
            .into_iter()
            .map(|(topic_id, partitions)| TopicPartitions { topic_id, partitions });
        let request = if self.is_full { join(&self.id, &names) } else { alive(&self.id, 0) };
        ConsumerHeartbeatRequest {
            member_epoch: self.epoch,
            rebalance_timeout_ms: if self.is_full { 600_000 } else { -1 },
            topic_partitions: Some(owned.collect()),
            ..request
        }
    }
}

struct Members {
    bench: Bench,
    clients: [Option<Client>; MEMBERS],
    /// How many partitions each topic has.
    counts: [usize; TOPICS.len()],
    started: usize,
}

impl Members {
    fn new() -> Self {
        let counts = [5, 2, 0];
        let mut members =
            Self { bench: Bench::new(&[]), clients: Default::default(), counts, started: 0 };
        members.tell_topics();
        members
    }

    fn tell_topics(&mut self) {
        let there = TOPICS.into_iter().zip(self.counts).filter(|(_, count)| *count > 0);
        self.bench.set_topics(&there.collect::<Vec<_>>());
    }

    fn step(&mut self, step: &Step) {
        let now = self.bench.now;
        match *step {
            Step::Start { who, topics } => {
                if self.clients[who].is_some() {
                    return;
                }
                self.started += 1;
                self.clients[who] = Some(Client {
                    id: format!("member-{}", self.started),
                    epoch: 0,
                    topics,
                    owned: Partitions::new(),
                    wanted: Partitions::new(),
                    heard: now,
                    is_full: true,
                });
                self.beat(who, true);
            }
            Step::Crash { who } => self.clients[who] = None,
            Step::Leave { who } => {
                if let Some(client) = self.clients[who].take().filter(|client| client.epoch > 0) {
                    self.bench.heartbeat(alive(&client.id, -1)).ok();
                }
            }
            Step::Subscribe { who, topics } => {
                if let Some(client) = &mut self.clients[who] {
                    client.topics = topics;
                    client.is_full = true;
                }
            }
            Step::Beat { who, is_heard } => self.beat(who, is_heard),
            Step::Release { who } => self.release(who),
            Step::Pass { duration_ms } => {
                for client in self.clients.iter_mut().flatten() {
                    if now.0 + duration_ms - client.heard.0 >= SESSION_MS - 1_000 {
                        client.abandon();
                        client.heard = now;
                    }
                }
                self.bench.wait(duration_ms);
            }
            Step::Topic { partitions } => {
                // A topic does not shrink, but it may be deleted.
                let grown = partitions.max(self.counts[2]);
                self.counts[2] = if partitions == 0 { 0 } else { grown };
                self.tell_topics();
            }
            Step::Restart => self.bench.restart(),
        }
    }

    fn release(&mut self, who: usize) {
        if let Some(client) = &mut self.clients[who] {
            client.owned.retain(|partition| client.wanted.contains(partition));
        }
    }

    fn beat(&mut self, who: usize, is_heard: bool) {
        let Some(client) = &mut self.clients[who] else { return };
        let result = self.bench.heartbeat(client.request());
        if !is_heard {
            client.is_full = true;
            return;
        }
        match result {
            Ok(reply) => {
                assert!(reply.member_epoch >= client.epoch.max(1), "CONSUMER-3");
                client.epoch = reply.member_epoch;
                client.is_full = false;
                client.heard = self.bench.now;
                if let Some(assignment) = reply.assignment {
                    let listed = assignment.iter();
                    let each = listed.flat_map(|entry| {
                        entry.partitions.iter().map(|&index| (entry.topic_id, index))
                    });
                    client.wanted = each.collect();
                    client.owned.extend(client.wanted.iter().copied());
                }
            }
            Err(error) => {
                let expected = [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId];
                assert!(expected.contains(&error.code), "{:?} {}", error.code, error.message);
                client.abandon();
            }
        }
    }

    fn describe(&mut self) -> Option<DescribedConsumerGroup> {
        match self.bench.ask(GroupRequest::ConsumerDescribe { groups: vec!["g".into()] }) {
            GroupReply::ConsumerDescribe(mut list) => {
                list.pop().filter(|group| group.error.is_none())
            }
            other => panic!("another reply: {other:?}"),
        }
    }

    /// CONSUMER-1, as the clients see it and as the coordinator does.
    fn assert_one_each(&mut self) {
        let mut owned = Partitions::new();
        for client in self.clients.iter().flatten() {
            for &partition in &client.owned {
                assert!(owned.insert(partition), "CONSUMER-1: two clients have {partition:?}");
            }
        }
        let mut held = Partitions::new();
        for member in self.describe().into_iter().flat_map(|group| group.members) {
            for entry in &member.assignment {
                for &index in &entry.partitions {
                    let is_first = held.insert((entry.topic_id, index));
                    assert!(is_first, "CONSUMER-1: two members have {}-{index}", entry.topic_name);
                }
            }
        }
    }

    /// CONSUMER-2: those present have every partition that any of them wants.
    fn assert_converges(&mut self) {
        // The dead must be found dead first, while the others show that they live.
        for _ in 0..20 {
            self.step(&Step::Pass { duration_ms: 5_000 });
            for who in 0..MEMBERS {
                self.release(who);
                self.beat(who, true);
            }
            self.assert_one_each();
        }
        let alive: Vec<&Client> = self.clients.iter().flatten().collect();
        let mut wanted = Partitions::new();
        for (at, (name, count)) in TOPICS.into_iter().zip(self.counts).enumerate() {
            if alive.iter().any(|client| client.covers(at)) {
                wanted.extend((0..count).map(|place| (topic_id(name), PartitionIndex::at(place))));
            }
        }
        let owned: Partitions = alive.iter().flat_map(|client| client.owned.clone()).collect();
        assert_eq!(owned, wanted, "CONSUMER-2");
        if !alive.is_empty() {
            assert_eq!(self.describe().unwrap().state, "Stable", "CONSUMER-2");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn members_share_every_partition_and_never_two_one(
        steps in prop::collection::vec(steps(), 1..80)
    ) {
        let mut members = Members::new();
        for step in &steps {
            members.step(step);
            members.assert_one_each();
        }
        members.assert_converges();
    }
}
