//! Groups on a real log: what transactions leave there, and what is read back.

use super::fencing::{OfTransaction, Proof};
use super::groups::Groups;
use super::kind::Kind as _;
use super::tests::Rig;
use crate::broker::partition::Isolation;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{FirstBatch, ReadRequest};
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::machine::group::{
    CommitOffsetsRequest, CommitPartition, CommitTopic, FetchOffsetsRequest, FetchTopic,
    GroupReply, GroupRequest,
};
use crate::record::control::read_control_batch;
use crate::record::{Batch, Batches};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicId,
};

const UNSTABLE: Result<i64, ErrorCode> = Err(ErrorCode::UnstableOffsetCommit);

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch: ProducerEpoch(epoch) }
}

fn commit_of(transaction: Option<Producer>, offsets: &[(i32, i64)], note: &str) -> GroupRequest {
    let partition = |&(partition, offset): &(i32, i64)| CommitPartition {
        partition: PartitionIndex(partition),
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::UNKNOWN,
        metadata: Some(note.into()),
    };
    let partitions = offsets.iter().map(partition).collect();
    GroupRequest::CommitOffsets(CommitOffsetsRequest {
        group_id: "g".into(),
        generation_or_epoch: -1,
        member_id: "".into(),
        instance_id: None,
        retention_ms: None,
        knows_member_epochs: true,
        transaction,
        topics: vec![CommitTopic { name: "t".into(), id: TopicId::ZERO, partitions }],
    })
}

fn end_of(
    producer: Producer,
    committed: bool,
    coordinator_epoch: i32,
    version: i16,
) -> GroupRequest {
    GroupRequest::EndTransaction(TransactionEnd {
        producer,
        committed,
        coordinator_epoch,
        transaction_version: version,
    })
}

impl Rig<Groups> {
    /// What a handler has for a request after the transaction coordinator has said yes.
    fn proof(&self, request: &GroupRequest) -> Proof {
        let Some(OfTransaction::Part(producer)) = Groups::of_transaction(request) else {
            return Proof::Unneeded;
        };
        let first = FirstBatch {
            producer_id: producer.id,
            producer_epoch: producer.epoch,
            base_sequence: Sequence(0),
            supports_epoch_bump: false,
        };
        match self.partition.reader().verifier().begin(&first, TimestampMs(0)) {
            Ok(Some(guard)) => Proof::Confirmed(guard),
            // A producer that was fenced has got as far as that, too.
            Ok(None) | Err(_) => Proof::Open,
        }
    }

    async fn tell(&self, request: GroupRequest) -> Result<GroupReply> {
        let proof = self.proof(&request);
        self.runtime.send_with(PartitionIndex(0), request, proof).await?.wait().await
    }

    /// Queues requests in this order, before the shard takes the first, and waits for all answers.
    async fn queue<const N: usize>(&self, requests: [GroupRequest; N]) -> [Result<GroupReply>; N] {
        let mut pending = Vec::new();
        for request in requests {
            let proof = self.proof(&request);
            pending.push(self.runtime.send_with(PartitionIndex(0), request, proof).await.unwrap());
        }
        let mut replies = Vec::new();
        for pending in pending {
            replies.push(pending.wait().await);
        }
        replies.try_into().unwrap()
    }

    /// Commits the offset of one partition.
    async fn commit(&self, by: Option<Producer>, partition: i32, offset: i64) -> Result<()> {
        match self.tell(commit_of(by, &[(partition, offset)], "")).await? {
            GroupReply::CommitOffsets(Ok(topics)) => {
                assert_eq!(topics[0].partitions, [(partition.into(), ErrorCode::None)]);
                Ok(())
            }
            other => panic!("{other:?}"),
        }
    }

    async fn end(&self, by: Producer, committed: bool, epoch: i32, version: i16) -> Result<()> {
        let GroupRequest::EndTransaction(end) = end_of(by, committed, epoch, version) else {
            unreachable!()
        };
        self.runtime.complete_transaction(PartitionIndex(0), end).await
    }

    async fn offset(&self, partition: i32) -> Result<i64, ErrorCode> {
        let topics = vec![FetchTopic {
            name: "t".into(),
            id: TopicId::ZERO,
            partitions: vec![PartitionIndex(partition)],
        }];
        let request = FetchOffsetsRequest {
            group_id: "g".into(),
            member_id: None,
            member_epoch: -1,
            topics: Some(topics),
            require_stable: true,
        };
        match self.tell(GroupRequest::FetchOffsets(request)).await.unwrap() {
            GroupReply::FetchOffsets(Ok(topics)) => match &topics[0].partitions[0] {
                found if found.error.is_ok() => Ok(found.offset.0),
                found => Err(found.error),
            },
            other => panic!("{other:?}"),
        }
    }

    fn batches(&self) -> Vec<Batch> {
        let upper = self.partition.end(Isolation::Everything);
        let request =
            ReadRequest { offset: Offset::ZERO, max_bytes: 1 << 20, upper, at_least_one: true };
        let read = self.partition.reader().read(request).unwrap();
        Batches::new(read.records).collect::<Result<_>>().unwrap()
    }
}

fn started() -> Rig<Groups> {
    let rig = Rig::new(&Env::real());
    rig.lead();
    rig
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> ErrorCode {
    result.as_ref().map_or_else(Error::code, |_| ErrorCode::None)
}

#[tokio::test]
async fn what_a_transaction_committed_is_read_back_with_its_end() {
    let rig = started();
    let one = producer(7, 0);
    rig.commit(None, 0, 5).await.unwrap();
    rig.commit(Some(one), 0, 10).await.unwrap();
    rig.commit(Some(one), 1, 20).await.unwrap();
    for _ in 0..2 {
        assert_eq!((rig.offset(0).await, rig.offset(1).await), (UNSTABLE, UNSTABLE));
        rig.restart();
    }
    rig.end(one, true, 3, 1).await.unwrap();
    rig.commit(Some(one), 0, 11).await.unwrap();
    for _ in 0..2 {
        assert_eq!((rig.offset(0).await, rig.offset(1).await), (UNSTABLE, Ok(20)));
        rig.restart();
    }
    rig.end(one, false, 3, 1).await.unwrap();
    for _ in 0..2 {
        assert_eq!((rig.offset(0).await, rig.offset(1).await), (Ok(10), Ok(20)));
        rig.restart();
    }
}

#[tokio::test]
async fn transactions_are_batches_and_markers_of_their_producer() {
    let rig = started();
    let one = producer(7, 2);
    rig.commit(None, 0, 5).await.unwrap();
    rig.tell(commit_of(Some(one), &[(0, 10), (1, 20)], "")).await.unwrap();
    rig.end(one, true, 3, 1).await.unwrap();
    let batches = rig.batches();
    let shape: Vec<_> = batches
        .iter()
        .map(|batch| {
            let header = batch.header();
            let kind = (header.is_transactional(), header.is_control());
            (kind, header.producer_id.0, header.producer_epoch.0, header.record_count)
        })
        .collect();
    let expected = [((false, false), -1, -1, 1), ((true, false), 7, 2, 2), ((true, true), 7, 2, 1)];
    assert_eq!(shape, expected);
    let (_, marker) = read_control_batch(&batches[2]).unwrap();
    let marker = marker.unwrap();
    assert_eq!((marker.committed, marker.coordinator_epoch), (true, 3));
}

#[tokio::test]
async fn a_producer_that_was_fenced_harms_nobody() {
    let rig = started();
    rig.commit(Some(producer(7, 3)), 0, 10).await.unwrap();
    let end = rig.log_end();
    let part = commit_of(Some(producer(7, 2)), &[(0, 11)], "");
    let [fenced, other] = rig.queue([part, commit_of(None, &[(1, 5)], "")]).await;
    assert_eq!(code(fenced), ErrorCode::InvalidProducerEpoch);
    assert_eq!(code(other), ErrorCode::None);
    assert_eq!(rig.log_end(), Offset(end.0 + 1));
    let late = rig.end(producer(7, 2), true, 0, 1).await;
    assert_eq!(code(late), ErrorCode::InvalidProducerEpoch);
    assert_eq!(rig.offset(0).await, UNSTABLE);
    // Version 2 raises the epoch with each transaction; a marker of the same one is of another.
    let same = rig.end(producer(7, 3), true, 0, 2).await;
    assert_eq!(code(same), ErrorCode::InvalidProducerEpoch);
    rig.end(producer(7, 4), true, 0, 2).await.unwrap();
    assert_eq!(rig.offset(0).await, Ok(10));
    // Its coordinator may not have heard of it, and writes it once more.
    rig.end(producer(7, 4), true, 0, 2).await.unwrap();
    let before = rig.end(producer(7, 3), true, 0, 2).await;
    assert_eq!(code(before), ErrorCode::InvalidProducerEpoch);
}

#[tokio::test]
async fn what_was_confirmed_for_a_transaction_that_has_ended_meanwhile_is_refused() {
    let rig = started();
    let one = producer(7, 0);
    let late = commit_of(Some(one), &[(0, 10)], "");
    let proof = rig.proof(&late);
    rig.end(one, false, 0, 1).await.unwrap();
    let end = rig.log_end();
    let late = rig.runtime.send_with(PartitionIndex(0), late, proof).await.unwrap();
    let other = rig.runtime.send(PartitionIndex(0), commit_of(None, &[(1, 5)], "")).await.unwrap();
    assert_eq!(code(late.wait().await), ErrorCode::InvalidTxnState);
    // Nobody else is told of an error, and nothing is read back.
    assert_eq!(code(other.wait().await), ErrorCode::None);
    assert_eq!(rig.log_end(), Offset(end.0 + 1));
    rig.commit(Some(one), 0, 11).await.unwrap();
    let again = commit_of(Some(one), &[(0, 12)], "");
    let proof = rig.proof(&again);
    rig.end(one, true, 0, 1).await.unwrap();
    let again = rig.runtime.send_with(PartitionIndex(0), again, proof).await.unwrap();
    assert_eq!(code(again.wait().await), ErrorCode::InvalidTxnState);
    assert_eq!(rig.offset(0).await, Ok(11));
}

#[tokio::test]
async fn a_marker_for_a_partition_that_is_not_led_here_is_tried_elsewhere() {
    let rig: Rig<Groups> = Rig::new(&Env::real());
    let elsewhere = rig.end(producer(7, 0), true, 0, 1).await;
    assert_eq!(code(elsewhere), ErrorCode::NotLeaderOrFollower);
}

#[tokio::test]
async fn a_coordinator_that_was_fenced_ends_nothing() {
    let rig = started();
    let one = producer(7, 0);
    rig.end(one, false, 5, 1).await.unwrap();
    rig.commit(Some(one), 0, 10).await.unwrap();
    let old = rig.end(one, false, 4, 1).await;
    assert_eq!(code(old), ErrorCode::TransactionCoordinatorFenced);
    assert_eq!(rig.offset(0).await, UNSTABLE);
    rig.end(one, true, 5, 1).await.unwrap();
    assert_eq!(rig.offset(0).await, Ok(10));
}

#[tokio::test]
async fn the_end_of_a_transaction_and_what_comes_after_it_are_not_of_one_step() {
    let rig = started();
    rig.commit(Some(producer(7, 0)), 0, 10).await.unwrap();
    // The epoch of the marker fences what is queued behind it.
    let requests = [
        end_of(producer(7, 1), true, 0, 2),
        commit_of(Some(producer(7, 0)), &[(0, 11)], ""),
        commit_of(None, &[(1, 5)], ""),
    ];
    let [ended, late, other] = rig.queue(requests).await;
    assert_eq!(code(ended), ErrorCode::None);
    assert_eq!(code(late), ErrorCode::InvalidProducerEpoch);
    assert_eq!(code(other), ErrorCode::None);
    assert_eq!(rig.offset(0).await, Ok(10));
}

#[tokio::test]
async fn what_many_producers_commit_at_one_time_is_in_the_log_in_the_order_in_which_it_counts() {
    let rig = started();
    let (a, b, c) = (producer(1, 0), producer(2, 0), producer(3, 0));
    rig.commit(None, 2, 9).await.unwrap();
    let commits = [
        commit_of(Some(a), &[(0, 10)], ""),
        commit_of(None, &[(0, 11)], ""),
        commit_of(Some(b), &[(0, 12)], ""),
        commit_of(Some(c), &[(1, 13)], ""),
        commit_of(None, &[(1, 14)], ""),
    ];
    for reply in rig.queue(commits).await {
        reply.unwrap();
    }
    assert_eq!(rig.batches().len(), 6);
    for reply in rig.queue([a, b, c].map(|one| end_of(one, true, 0, 1))).await {
        reply.unwrap();
    }
    for _ in 0..2 {
        assert_eq!((rig.offset(0).await, rig.offset(1).await), (Ok(12), Ok(14)));
        rig.restart();
    }
}

#[tokio::test]
async fn after_an_append_that_failed_the_state_is_that_of_the_log() {
    let rig = started();
    let (a, b, c) = (producer(1, 0), producer(2, 0), producer(3, 0));
    rig.commit(Some(a), 0, 1).await.unwrap();
    // More than a batch may have.
    let many: Vec<(i32, i64)> = (0..300).map(|partition| (partition, 2)).collect();
    let too_much = commit_of(Some(b), &many, &"x".repeat(4096));
    let requests = [commit_of(Some(c), &[(1, 3)], ""), too_much, end_of(a, true, 0, 1)];
    let [before, failed, after] = rig.queue(requests).await;
    assert_eq!(code(before), ErrorCode::None);
    assert_eq!(code(failed), ErrorCode::UnknownServerError);
    let mut now = Vec::new();
    for partition in 0..3 {
        now.push(rig.offset(partition).await);
    }
    assert_eq!(now[2], Ok(-1), "what was not written does not count");
    // What was handed over behind it came to the log, although its sender was told of an error.
    assert!(after.is_err());
    assert_eq!(now[0], Ok(1));
    rig.restart();
    for (partition, before) in (0..).zip(now) {
        assert_eq!(rig.offset(partition).await, before);
    }
}
