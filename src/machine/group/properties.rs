//! What holds for every sequence of requests: each is answered once, and the log yields the state.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;

use super::rig::{GROUP, Rig, commit_request, join_request, subscription};
use super::shard::Group;
use super::*;
use crate::machine::Replicated as _;
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TimestampMs};

#[derive(Clone, Debug)]
enum Step {
    Join { who: usize, is_static: bool, known: bool, topics: usize, protocols: usize },
    Sync { who: usize, generation: i32 },
    Heartbeat { who: usize, generation: i32 },
    Leave { who: usize, by_instance: bool },
    Commit { who: usize, generation: i32, topic: usize, offset: i64 },
    CommitInTransaction { producer: i64, topic: usize, offset: i64 },
    EndTransaction { producer: i64, committed: bool },
    DeleteOffsets { topic: usize },
    Delete,
    Pass { duration_ms: i64 },
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let who = 0..4_usize;
    let generation = -1..2_i32;
    prop_oneof![
        6 => (who.clone(), any::<bool>(), any::<bool>(), 0..3_usize, 0..3_usize).prop_map(
            |(who, is_static, known, topics, protocols)| {
                Step::Join { who, is_static, known, topics, protocols }
            }
        ),
        4 => (who.clone(), generation.clone())
            .prop_map(|(who, generation)| Step::Sync { who, generation }),
        3 => (who.clone(), generation.clone())
            .prop_map(|(who, generation)| Step::Heartbeat { who, generation }),
        1 => (who.clone(), any::<bool>())
            .prop_map(|(who, by_instance)| Step::Leave { who, by_instance }),
        2 => (who, generation, 0..2_usize, 0..100_i64).prop_map(
            |(who, generation, topic, offset)| Step::Commit { who, generation, topic, offset }
        ),
        3 => (0..3_i64, 0..2_usize, 100..200_i64).prop_map(|(producer, topic, offset)| {
            Step::CommitInTransaction { producer, topic, offset }
        }),
        2 => (0..3_i64, any::<bool>())
            .prop_map(|(producer, committed)| Step::EndTransaction { producer, committed }),
        1 => (0..2_usize).prop_map(|topic| Step::DeleteOffsets { topic }),
        1 => Just(Step::Delete),
        4 => prop_oneof![0..4_000_i64, 3_000..70_000_i64]
            .prop_map(|duration_ms| Step::Pass { duration_ms }),
        1 => Just(Step::Restart),
    ]
}

const TOPICS: [&str; 2] = ["t", "u"];

fn producer(id: i64) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(0) }
}

/// Drives a rig with steps: members are those known from the last joins.
struct Driver {
    rig: Rig,
    /// The id that each of four clients has, and whether it is static.
    ids: [(String, bool); 4],
    joins: Vec<(usize, RequestId)>,
}

impl Driver {
    fn new() -> Self {
        let config = GroupConfig {
            classic_size_max: 3,
            offsets_retention_ms: 200_000,
            offsets_retention_check_interval_ms: 50_000,
            ..GroupConfig::default()
        };
        Self { rig: Rig::new(config), ids: Default::default(), joins: Vec::new() }
    }

    /// Reads the ids from the answers received.
    fn learn(&mut self) {
        let rig = &self.rig;
        let (done, waiting): (Vec<_>, Vec<_>) =
            self.joins.drain(..).partition(|(_, join)| rig.is_answered(*join));
        self.joins = waiting;
        for (who, join) in done {
            let Some(GroupReply::Join(reply)) = self.rig.peek(join) else { continue };
            let is_lost = reply.error.as_ref().is_some_and(|error| {
                matches!(
                    error.code,
                    crate::error::ErrorCode::UnknownMemberId
                        | crate::error::ErrorCode::FencedInstanceId
                )
            });
            self.ids[who].0 = if is_lost { String::new() } else { reply.member_id.to_string() };
        }
    }

    fn generation(&mut self, relative: i32) -> i32 {
        let Some(Group::Classic(group)) = self.rig.shard.groups.get(GROUP) else { return relative };
        group.to_value().generation + relative
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Join { who, is_static, known, topics, protocols } => {
                let (id, was_static) = self.ids[who].clone();
                let id = if known { id } else { String::new() };
                let is_static = if id.is_empty() { is_static } else { was_static };
                self.ids[who].1 = is_static;
                let names: &[&str] = [&["range"][..], &["range", "sticky"], &["sticky"]][protocols];
                let protocols = names.iter().map(|name| ClassicProtocol {
                    name: (*name).into(),
                    metadata: subscription(&TOPICS[..topics]),
                });
                let request = JoinRequest {
                    instance_id: is_static.then(|| format!("i{who}").into()),
                    protocols: protocols.collect(),
                    requires_known_member_id: who < 3,
                    supports_skipping_assignment: who < 2,
                    ..join_request(&id)
                };
                let join = self.rig.join(request);
                self.joins.push((who, join));
            }
            Step::Sync { who, generation } => {
                let generation = self.generation(generation);
                let ids = self.ids.clone();
                let give: Vec<_> = ids.iter().map(|(id, _)| (id.as_str(), id.as_str())).collect();
                self.rig.sync(&ids[who].0, generation, &give);
            }
            Step::Heartbeat { who, generation } => {
                let generation = self.generation(generation);
                let id = self.ids[who].0.clone();
                self.rig.heartbeat(&id, generation);
            }
            Step::Leave { who, by_instance } => {
                let (id, _) = self.ids[who].clone();
                let instance = format!("i{who}");
                let one = if by_instance { ("", Some(&*instance)) } else { (&*id, None) };
                self.rig.leave(&[one]);
            }
            Step::Commit { who, generation, topic, offset } => {
                let generation = self.generation(generation);
                let id = self.ids[who].0.clone();
                let request = commit_request(&id, generation, TOPICS[topic], offset);
                self.rig.commit_request(request);
            }
            Step::CommitInTransaction { producer, topic, offset } => {
                let transaction = Some(self::producer(producer));
                let request = commit_request("", -1, TOPICS[topic], offset);
                self.rig.commit_request(CommitOffsetsRequest { transaction, ..request });
            }
            Step::EndTransaction { producer, committed } => {
                self.rig.ask(GroupRequest::EndTransaction(TransactionEnd {
                    producer: self::producer(producer),
                    committed,
                    coordinator_epoch: 0,
                    transaction_version: 1,
                }));
            }
            Step::DeleteOffsets { topic } => {
                let topics = vec![(TOPICS[topic].into(), vec![PartitionIndex(0)])];
                let request = DeleteOffsetsRequest { group_id: GROUP.into(), topics };
                self.rig.ask(GroupRequest::DeleteOffsets(request));
            }
            Step::Delete => {
                self.rig.ask(GroupRequest::Delete { groups: vec![GROUP.into()] });
            }
            Step::Pass { duration_ms } => self.rig.pass(duration_ms),
            Step::Restart => self.rig.restart(),
        }
        self.learn();
    }
}

/// The part of a shard's state that the log must yield: offsets, and groups between rebalances.
fn quiet_state(shard: &GroupShard) -> (Vec<GroupRecord>, BTreeMap<String, ClassicGroupValue>) {
    let mut groups = BTreeMap::new();
    for (id, group) in &shard.groups {
        let Group::Classic(group) = group else { continue };
        let quiet = matches!(group.state().name(), "Stable" | "Empty");
        // A group that only ever had offsets is in the log only through them.
        let has_record = group.protocol_type().is_some() || group.to_value() != only_offsets();
        if quiet && has_record {
            groups.insert(id.to_string(), group.to_value());
        }
    }
    (shard.offsets.records(), groups)
}

fn only_offsets() -> ClassicGroupValue {
    ClassicGroupValue {
        protocol_type: "".into(),
        generation: 0,
        protocol: None,
        leader: None,
        current_state_timestamp: TimestampMs::NONE,
        members: Vec::new(),
    }
}

/// Whether the transaction that a record is part of was committed; `None` while it is open.
fn outcome(log: &[GroupRecord], index: usize, producer: ProducerId) -> Option<bool> {
    log[index..].iter().find_map(|record| match record {
        GroupRecord::TransactionEnd { producer: of, committed } if *of == producer => {
            Some(*committed)
        }
        _ => None,
    })
}

/// The last value of every key up to the first open transaction, as a compacted log has it: without what was aborted.
fn compacted(log: &[GroupRecord]) -> Vec<GroupRecord> {
    let is_open = |(index, record): &(usize, &GroupRecord)| match record {
        GroupRecord::PendingOffset { producer, .. } => outcome(log, *index, *producer).is_none(),
        _ => false,
    };
    let stable = log.iter().enumerate().find(is_open).map_or(log.len(), |(index, _)| index);
    let mut last: BTreeMap<String, (usize, &GroupRecord)> = BTreeMap::new();
    for (index, record) in log[..stable].iter().enumerate() {
        let key = match record {
            GroupRecord::PendingOffset { producer, .. }
                if outcome(log, index, *producer) == Some(false) =>
            {
                continue;
            }
            GroupRecord::OffsetCommit { key, .. } | GroupRecord::PendingOffset { key, .. } => {
                format!("{key:?}")
            }
            GroupRecord::TransactionEnd { .. } => format!("marker {index}"),
            other => format!("group {:?}", other.group()),
        };
        last.insert(key, (index, record));
    }
    let mut kept: Vec<_> = last.into_values().collect();
    kept.sort_by_key(|(index, _)| *index);
    kept.into_iter().map(|(_, record)| record).chain(&log[stable..]).cloned().collect()
}

/// The offsets that count, found otherwise than a shard does: of the records of a partition after the last tombstone,
/// the last one that is in no transaction or in one that was committed.
fn counting(log: &[GroupRecord]) -> BTreeMap<OffsetKey, Offset> {
    let mut last: BTreeMap<OffsetKey, Offset> = BTreeMap::new();
    for (index, record) in log.iter().enumerate() {
        match record {
            GroupRecord::OffsetCommit { key, value: None } => {
                last.remove(key);
            }
            GroupRecord::OffsetCommit { key, value: Some(value) } => {
                last.insert(key.clone(), value.offset);
            }
            GroupRecord::PendingOffset { producer, key, value }
                if outcome(log, index, *producer) == Some(true) =>
            {
                last.insert(key.clone(), value.offset);
            }
            _ => {}
        }
    }
    last
}

fn counting_in(shard: &GroupShard) -> BTreeMap<OffsetKey, Offset> {
    let records = shard.offsets.records().into_iter();
    records
        .filter_map(|record| match record {
            GroupRecord::OffsetCommit { key, value } => Some((key, value?.offset)),
            _ => None,
        })
        .collect()
}

fn replay(log: &[GroupRecord]) -> GroupShard {
    let mut shard = GroupShard::new(GroupConfig::default(), 1);
    for record in log {
        shard.apply(record).unwrap();
    }
    shard
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_request_is_answered_once_and_the_log_gives_the_state(
        steps in proptest::collection::vec(steps(), 1..60)
    ) {
        let mut driver = Driver::new();
        for step in &steps {
            driver.step(step);
            prop_assert_eq!(counting_in(&driver.rig.shard), counting(&driver.rig.log));
            let (offsets, groups) = quiet_state(&driver.rig.shard);
            for log in [driver.rig.log.clone(), compacted(&driver.rig.log)] {
                let (replayed_offsets, replayed) = quiet_state(&replay(&log));
                prop_assert_eq!(&replayed_offsets, &offsets);
                for (id, group) in &groups {
                    prop_assert_eq!(replayed.get(id), Some(group), "after {:?}", step);
                }
                let live = &driver.rig.shard.groups;
                prop_assert!(replayed.keys().all(|id| live.contains_key(&**id)), "after {:?}", step);
            }
        }
        // The longest that anyone may wait: a new member's patience, then a rebalance.
        driver.rig.pass(1_000_000);
        prop_assert_eq!(driver.rig.waiting(), vec![]);
    }
}

#[test]
fn what_is_in_the_way_of_a_record_is_nothing() {
    let value = ClassicGroupValue {
        protocol_type: "consumer".into(),
        generation: i32::MAX,
        protocol: None,
        leader: Some("not a member".into()),
        current_state_timestamp: TimestampMs::NONE,
        members: vec![ClassicMemberValue {
            member_id: "m".into(),
            instance_id: None,
            client_id: "c".into(),
            client_host: "/h".into(),
            rebalance_timeout_ms: -1,
            session_timeout_ms: 1,
            subscription: Bytes::from_static(b"no subscription"),
            assignment: Bytes::new(),
        }],
    };
    let record = GroupRecord::GroupMetadata { group: GROUP.into(), value: Some(value) };
    let mut rig = Rig::new(GroupConfig::default());
    rig.log.push(record);
    rig.restart();
    rig.join(join_request(""));
    rig.pass(1_000_000);
    assert_eq!(rig.waiting(), vec![]);
}
