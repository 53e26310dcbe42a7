//! Offsets that are committed in transactions.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::rig::{GROUP, Rig, commit_request, join_request};
use super::*;
use crate::error::ErrorCode;
use crate::machine::coordinator::{Coordinator as _, Producer, TransactionEnd};
use crate::types::{Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, Uuid};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;
const UNSTABLE: Result<i64, ErrorCode> = Err(ErrorCode::UnstableOffsetCommit);

fn producer(id: i64) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(0) }
}

/// What a producer commits that does not say which member reads.
fn part(id: i64, topic: &str, offset: i64) -> CommitOffsetsRequest {
    let transaction = Some(producer(id));
    CommitOffsetsRequest { transaction, ..commit_request("", -1, topic, offset) }
}

struct Transactions(Rig);

impl Transactions {
    fn new() -> Self {
        Self(Rig::new(GroupConfig::default()))
    }

    fn commit(&mut self, id: i64, topic: &str, offset: i64) {
        assert_eq!(self.0.commit_request(part(id, topic, offset)), ErrorCode::None);
    }

    fn plain(&mut self, topic: &str, offset: i64) {
        assert_eq!(self.0.commit(("", -1), topic, offset), ErrorCode::None);
    }

    fn end(&mut self, id: i64, committed: bool) {
        let end = TransactionEnd {
            producer: producer(id),
            committed,
            coordinator_epoch: 3,
            transaction_version: 1,
        };
        let reply = self.0.tell(GroupRequest::EndTransaction(end));
        assert_eq!(reply, GroupReply::EndTransaction);
    }

    /// The offset of partition 0 of a topic; -1 for none.
    fn read(&mut self, topic: &str, require_stable: bool) -> Result<i64, ErrorCode> {
        let topics = vec![FetchTopic {
            name: topic.into(),
            id: Uuid::ZERO,
            partitions: vec![PartitionIndex(0)],
        }];
        let request = FetchOffsetsRequest {
            group_id: GROUP.into(),
            member_id: None,
            member_epoch: -1,
            topics: Some(topics),
            require_stable,
        };
        match self.0.tell(GroupRequest::FetchOffsets(request)) {
            GroupReply::FetchOffsets(Ok(topics)) => {
                let FetchedPartition { offset, error, .. } = topics[0].partitions[0];
                if error.is_ok() { Ok(offset.0) } else { Err(error) }
            }
            other => panic!("{other:?}"),
        }
    }

    /// The same before and after a restart.
    fn reads(&mut self, topic: &str, stable: Result<i64, ErrorCode>, offset: i64) {
        for _ in 0..2 {
            assert_eq!(self.read(topic, true), stable, "{topic}, stable");
            assert_eq!(self.read(topic, false), Ok(offset), "{topic}");
            self.0.restart();
        }
    }

    fn state(&mut self) -> &'static str {
        self.0.describe().state
    }
}

#[test]
fn an_offset_counts_from_the_marker_on_or_never() {
    let mut rig = Transactions::new();
    rig.plain("t", 5);
    rig.commit(1, "t", 10);
    rig.commit(1, "u", 20);
    rig.reads("t", UNSTABLE, 5);
    rig.reads("u", UNSTABLE, -1);
    rig.end(1, true);
    rig.reads("t", Ok(10), 10);
    rig.reads("u", Ok(20), 20);
    rig.commit(1, "t", 11);
    rig.reads("t", UNSTABLE, 10);
    rig.end(1, false);
    rig.reads("t", Ok(10), 10);
}

#[test]
fn the_last_offset_of_a_transaction_counts() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    rig.commit(1, "t", 7);
    rig.end(1, true);
    rig.reads("t", Ok(7), 7);
}

#[test]
fn a_marker_of_a_producer_that_committed_nothing_changes_nothing() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    rig.end(2, true);
    rig.end(3, false);
    rig.reads("t", UNSTABLE, -1);
    rig.end(1, true);
    rig.end(1, false);
    rig.reads("t", Ok(10), 10);
}

#[test]
fn the_later_record_decides_not_the_later_marker() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    rig.plain("t", 5);
    rig.plain("u", 5);
    rig.commit(1, "u", 10);
    rig.reads("t", UNSTABLE, 5);
    rig.end(1, true);
    rig.reads("t", Ok(5), 5);
    rig.reads("u", Ok(10), 10);
    // Of two transactions as well.
    rig.commit(1, "t", 30);
    rig.commit(2, "t", 40);
    rig.end(2, true);
    rig.reads("t", UNSTABLE, 40);
    rig.end(1, true);
    rig.reads("t", Ok(40), 40);
}

#[test]
fn all_offsets_of_a_group_are_those_that_count() {
    let mut rig = Transactions::new();
    rig.plain("t", 5);
    rig.plain("v", 6);
    rig.commit(1, "t", 10);
    rig.commit(1, "u", 20);
    // It is asked for stable ones.
    let found = rig.0.offsets();
    assert_eq!(found, [("t".to_owned(), 0, -1), ("v".to_owned(), 0, 6)]);
}

#[test]
fn deleting_an_offset_takes_what_a_transaction_committed() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    rig.plain("u", 5);
    rig.commit(1, "u", 20);
    rig.commit(2, "u", 21);
    rig.commit(1, "v", 30);
    for topic in ["t", "u", "never"] {
        let topics = vec![(Arc::from(topic), vec![PartitionIndex(0)])];
        let request = DeleteOffsetsRequest { group_id: GROUP.into(), topics };
        let reply = rig.0.tell(GroupRequest::DeleteOffsets(request));
        assert!(matches!(reply, GroupReply::DeleteOffsets(Ok(_))), "{reply:?}");
    }
    rig.reads("t", Ok(-1), -1);
    rig.reads("u", Ok(-1), -1);
    rig.end(1, true);
    rig.end(2, true);
    rig.reads("t", Ok(-1), -1);
    rig.reads("u", Ok(-1), -1);
    rig.reads("v", Ok(30), 30);
}

#[test]
fn what_a_transaction_commits_after_the_deletion_counts() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    let topics = vec![(Arc::from("t"), vec![PartitionIndex(0)])];
    let request = DeleteOffsetsRequest { group_id: GROUP.into(), topics };
    rig.0.tell(GroupRequest::DeleteOffsets(request));
    rig.commit(1, "t", 11);
    rig.reads("t", UNSTABLE, -1);
    rig.end(1, true);
    rig.reads("t", Ok(11), 11);
}

#[test]
fn an_offset_that_a_transaction_may_change_does_not_expire_nor_does_its_group() {
    let mut rig = Transactions::new();
    rig.plain("t", 5);
    rig.plain("u", 6);
    rig.commit(1, "t", 10);
    rig.0.pass(8 * DAY_MS);
    rig.reads("t", UNSTABLE, 5);
    rig.reads("u", Ok(-1), -1);
    rig.end(1, false);
    rig.0.pass(600_000);
    rig.reads("t", Ok(-1), -1);
    assert_eq!(rig.state(), "Dead");
    // A group that exists for nothing else.
    rig.commit(1, "t", 10);
    rig.0.pass(8 * DAY_MS);
    rig.reads("t", UNSTABLE, -1);
    assert_eq!(rig.state(), "Empty");
    rig.end(1, false);
    rig.0.pass(600_000);
    assert_eq!(rig.state(), "Dead");
}

#[test]
fn an_offset_expires_from_its_record_not_from_the_marker() {
    let mut rig = Transactions::new();
    rig.commit(1, "t", 10);
    rig.0.pass(8 * DAY_MS);
    rig.end(1, true);
    rig.reads("t", Ok(10), 10);
    rig.0.pass(600_000);
    rig.reads("t", Ok(-1), -1);
}

#[test]
fn a_group_is_deleted_with_what_transactions_committed() {
    let mut rig = Transactions::new();
    rig.plain("t", 5);
    rig.commit(1, "t", 10);
    rig.commit(1, "u", 20);
    let before = rig.0.log.len();
    let reply = rig.0.tell(GroupRequest::Delete { groups: vec![GROUP.into()] });
    assert_eq!(reply, GroupReply::Delete(vec![(GROUP.into(), Ok(()))]));
    let tombstones: BTreeSet<_> = rig.0.log[before..]
        .iter()
        .filter_map(|record| match record {
            GroupRecord::OffsetCommit { key, value: None } => Some(&*key.topic),
            _ => None,
        })
        .collect();
    assert_eq!(tombstones, BTreeSet::from(["t", "u"]));
    rig.end(1, true);
    rig.reads("t", Ok(-1), -1);
    rig.reads("u", Ok(-1), -1);
    assert_eq!(rig.state(), "Dead");
}

#[test]
fn what_a_transaction_committed_goes_with_its_topic() {
    let [old, new] = [1, 2].map(|byte| Uuid([byte; 16]));
    let of = |mut request: CommitOffsetsRequest, id: TopicId| {
        request.topics[0].id = id;
        request
    };
    let mut rig = Transactions::new();
    rig.0.commit_request(of(part(1, "t", 10), old));
    rig.0.commit_request(of(part(1, "u", 10), new));
    // One that counts, of a later topic of the same name, stays.
    rig.0.commit_request(of(part(1, "v", 10), old));
    rig.0.commit_request(of(commit_request("", -1, "v", 7), new));
    rig.0.event(Event::News(GroupNews::TopicsDeleted(vec![(old, "t".into()), (old, "v".into())])));
    rig.end(1, true);
    let found = rig.0.offsets();
    assert_eq!(found, [("u".to_owned(), 0, 10), ("v".to_owned(), 0, 7)]);
}

#[test]
fn what_a_transaction_committed_goes_with_a_topic_that_was_deleted_meanwhile() {
    let mut rig = Transactions::new();
    let mut request = part(1, "t", 10);
    request.topics[0].id = Uuid([2; 16]);
    rig.0.commit_request(request);
    // The next coordinator knows of no topic.
    rig.0.restart();
    rig.end(1, true);
    rig.reads("t", Ok(-1), -1);
}

#[test]
fn offsets_of_a_transaction_are_refused_by_what_is_wrong_with_them() {
    let mut rig = Rig::new(GroupConfig::default());
    let by = |member: &str, generation: i32, knows: bool| CommitOffsetsRequest {
        transaction: Some(producer(1)),
        knows_member_epochs: knows,
        ..commit_request(member, generation, "t", 1)
    };
    assert_eq!(rig.commit_request(by("m", 3, false)), ErrorCode::IllegalGeneration);
    assert_eq!(rig.commit_request(by("m", 3, true)), ErrorCode::GroupIdNotFound);
    assert_eq!(rig.commit_request(by("m", -1, false)), ErrorCode::None, "a group of its own");
    let (ids, generation) = rig.stable(1);
    assert_eq!(rig.commit_request(by(&ids[0], generation, false)), ErrorCode::None);
    let later = by(&ids[0], generation + 1, false);
    assert_eq!(rig.commit_request(later), ErrorCode::IllegalGeneration);
    assert_eq!(rig.commit_request(by("x", generation, false)), ErrorCode::UnknownMemberId);
    assert_eq!(rig.commit_request(by("x", -1, false)), ErrorCode::UnknownMemberId);
    let mut by_instance = by(&ids[0], generation, false);
    by_instance.instance_id = Some("i".into());
    assert_eq!(rig.commit_request(by_instance), ErrorCode::UnknownMemberId);
    // Producers that do not know who reads are believed, and a rebalance is no reason to refuse.
    assert_eq!(rig.commit_request(by("", -1, false)), ErrorCode::None);
    let join = rig.join(join_request(&ids[0]));
    let generation = rig.joined(join).generation_id;
    assert_eq!(rig.commit((&ids[0], generation), "t", 1), ErrorCode::RebalanceInProgress);
    assert_eq!(rig.commit_request(by(&ids[0], generation, false)), ErrorCode::None);
}

#[test]
fn metadata_that_is_too_long_is_no_part_of_the_transaction() {
    let mut rig = Transactions::new();
    let mut request = part(1, "t", 10);
    let mut long = request.topics[0].partitions[0].clone();
    long.partition = PartitionIndex(1);
    long.metadata = Some("x".repeat(4097).into());
    request.topics[0].partitions.push(long.clone());
    let reply = rig.0.tell(GroupRequest::CommitOffsets(request));
    let GroupReply::CommitOffsets(Ok(topics)) = reply else { panic!("{reply:?}") };
    let codes = [
        (PartitionIndex(0), ErrorCode::None),
        (PartitionIndex(1), ErrorCode::OffsetMetadataTooLarge),
    ];
    assert_eq!(topics[0].partitions, codes);
    rig.end(1, true);
    assert_eq!(rig.0.offsets(), [("t".to_owned(), 0, 10)]);
    // Nothing is appended for nothing.
    let mut request = part(1, "t", 11);
    request.topics[0].partitions = vec![long];
    let before = rig.0.log.len();
    assert_eq!(rig.0.commit_request(request), ErrorCode::OffsetMetadataTooLarge);
    assert_eq!(rig.0.log.len(), before);
    assert_eq!(rig.read("t", true), Ok(10));
}

#[test]
fn a_producer_does_not_keep_the_session_of_a_member() {
    let mut rig = Rig::new(GroupConfig::default());
    let (ids, generation) = rig.stable(1);
    rig.pass(9_000);
    let by = CommitOffsetsRequest {
        transaction: Some(producer(1)),
        ..commit_request(&ids[0], generation, "t", 1)
    };
    assert_eq!(rig.commit_request(by), ErrorCode::None);
    rig.pass(2_000);
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn many_transactions_of_one_partition_end_one_by_one() {
    let mut rig = Transactions::new();
    for id in 0..100 {
        rig.commit(id, "t", id);
    }
    for id in 0..100 {
        assert_eq!(rig.read("t", true), UNSTABLE);
        rig.end(id, id % 2 == 0);
    }
    rig.reads("t", Ok(98), 98);
    let mut effects = Vec::new();
    rig.0.shard.restored(rig.0.now, &mut effects);
    assert_eq!(effects, []);
    assert_eq!(rig.read("t", false).map(Offset), Ok(Offset(98)));
}
