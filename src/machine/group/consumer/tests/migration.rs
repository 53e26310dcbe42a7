//! Groups that go from the classic protocol to the consumer protocol and back.

use bytes::Bytes;

use super::*;
use crate::machine::group::embedded;
use crate::machine::group::{
    ClassicProtocol, CommitOffsetsRequest, CommitPartition, CommitTopic, FetchOffsetsRequest,
    HeartbeatRequest, JoinReply, JoinRequest, LeaveRequest, LeavingMember, MigrationPolicy,
    SyncReply, SyncRequest,
};
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// A subscription of version 1: topics, and what is owned.
fn subscription(topics: &[&str], owned: &[(&str, &[i32])]) -> Bytes {
    let mut bytes = vec![0, 1];
    let count = |bytes: &mut Vec<u8>, count: usize| {
        bytes.extend(i32::try_from(count).unwrap().to_be_bytes());
    };
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend(i16::try_from(text.len()).unwrap().to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    count(&mut bytes, topics.len());
    for topic in topics {
        text(&mut bytes, topic);
    }
    bytes.extend([0xff; 4]);
    count(&mut bytes, owned.len());
    for (topic, partitions) in owned {
        text(&mut bytes, topic);
        count(&mut bytes, partitions.len());
        for partition in *partitions {
            bytes.extend(partition.to_be_bytes());
        }
    }
    bytes.into()
}

fn classic(member: &str, topics: &[&str], owned: &[(&str, &[i32])]) -> JoinRequest {
    JoinRequest {
        group_id: "g".into(),
        member_id: member.into(),
        instance_id: None,
        client_id: "classic".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 45_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![ClassicProtocol {
            name: "range".into(),
            metadata: subscription(topics, owned),
        }],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
    }
}

impl Bench {
    fn join_classic(&mut self, request: JoinRequest) -> JoinReply {
        match self.ask(GroupRequest::Join(request)) {
            GroupReply::Join(reply) => reply,
            other => panic!("another reply: {other:?}"),
        }
    }

    fn sync_classic(
        &mut self,
        member: &str,
        generation: i32,
        assignments: &[(&str, Bytes)],
    ) -> SyncReply {
        let request = SyncRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: member.into(),
            instance_id: None,
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments: assignments.iter().map(|(id, b)| ((*id).into(), b.clone())).collect(),
        };
        match self.ask(GroupRequest::Sync(request)) {
            GroupReply::Sync(reply) => reply,
            other => panic!("another reply: {other:?}"),
        }
    }

    fn beat_classic(&mut self, member: &str, generation: i32) -> ErrorCode {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            generation_id: generation,
            member_id: member.into(),
            instance_id: None,
        };
        match self.ask(GroupRequest::Heartbeat(request)) {
            GroupReply::Heartbeat(result) => result.err().map_or(ErrorCode::None, |e| e.code),
            other => panic!("another reply: {other:?}"),
        }
    }

    fn commit(&mut self, member: &str, epoch: i32, partition: i32, knows: bool) -> ErrorCode {
        let request = CommitOffsetsRequest {
            group_id: "g".into(),
            generation_or_epoch: epoch,
            member_id: member.into(),
            instance_id: None,
            retention_ms: None,
            knows_member_epochs: knows,
            transaction: None,
            topics: vec![CommitTopic {
                name: "a".into(),
                id: TopicId::ZERO,
                partitions: vec![CommitPartition {
                    partition: PartitionIndex(partition),
                    offset: Offset(3),
                    leader_epoch: LeaderEpoch::UNKNOWN,
                    metadata: None,
                }],
            }],
        };
        match self.ask(GroupRequest::CommitOffsets(request)) {
            GroupReply::CommitOffsets(Ok(topics)) => topics[0].partitions[0].1,
            GroupReply::CommitOffsets(Err(error)) => error.code,
            other => panic!("another reply: {other:?}"),
        }
    }

    fn fetch(&mut self, member: Option<&str>, epoch: i32) -> ErrorCode {
        let request = FetchOffsetsRequest {
            group_id: "g".into(),
            member_id: member.map(Into::into),
            member_epoch: epoch,
            topics: None,
            require_stable: false,
        };
        match self.ask(GroupRequest::FetchOffsets(request)) {
            GroupReply::FetchOffsets(result) => result.err().map_or(ErrorCode::None, |e| e.code),
            other => panic!("another reply: {other:?}"),
        }
    }

    /// A stable classic group of one member with all of topic `a`, in generation 1.
    fn with_classic_member(config: GroupConfig) -> (Self, Arc<str>) {
        let mut bench = Self::with(
            &[("a", 2)],
            GroupConfig {
                classic_initial_rebalance_delay_ms: 0,
                consumer_assignment_interval_ms: 0,
                ..config
            },
        );
        let mut replies = bench.step(Event::Request {
            id: RequestId(999),
            request: GroupRequest::Join(classic("", &["a"], &[])),
        });
        replies.extend(bench.step(Event::Tick));
        let Some((_, GroupReply::Join(joined))) = replies.pop() else { panic!("no answer") };
        assert_eq!(joined.error, None);
        let all =
            embedded::write_assignment(&[("a".into(), PartitionIndex::list(&[0, 1]))], b"\0\x01");
        let id = joined.member_id;
        let synced = bench.sync_classic(&id, 1, &[(&id, all)]);
        assert_eq!(synced.error, None);
        (bench, id)
    }
}

fn given(reply: &SyncReply) -> Vec<(Arc<str>, Vec<i32>)> {
    assert_eq!(reply.error, None);
    let all = embedded::assignment(&reply.assignment).unwrap();
    all.into_iter().map(|(topic, indexes)| (topic, PartitionIndex::numbers(&indexes))).collect()
}

#[test]
fn a_group_goes_up_and_down_without_a_partition_in_two_places() {
    let (mut bench, id) = Bench::with_classic_member(GroupConfig::default());
    let reply = bench.heartbeat(join("new", &["a"])).unwrap();
    assert_eq!((reply.member_epoch, assigned(&reply)), (2, partitions(&[])), "CONSUMER-1");
    assert_eq!(bench.state(), ("Reconciling", 2, 2));

    // The classic member is told to join, says what it owns, and must give one up.
    assert_eq!(bench.beat_classic(&id, 1), ErrorCode::RebalanceInProgress);
    let reply = bench.join_classic(classic(&id, &["a"], &[("a", &[0, 1])]));
    assert_eq!((reply.error, reply.generation_id), (None, 1));
    assert_eq!(given(&bench.sync_classic(&id, 1, &[])), [("a".into(), vec![0])]);
    assert_eq!(bench.heartbeat(alive("new", 2)).unwrap().assignment, None, "CONSUMER-1");
    assert_eq!(bench.beat_classic(&id, 1), ErrorCode::RebalanceInProgress);
    let reply = bench.join_classic(classic(&id, &["a"], &[("a", &[0])]));
    assert_eq!((reply.error, reply.generation_id), (None, 2));
    assert_eq!(given(&bench.sync_classic(&id, 2, &[])), [("a".into(), vec![0])]);
    assert_eq!(bench.beat_classic(&id, 2), ErrorCode::None);
    let reply = bench.heartbeat(alive("new", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[1])]));
    assert_eq!(bench.state(), ("Stable", 2, 2));

    // The last one of the new protocol leaves.
    bench.heartbeat(alive("new", -1)).unwrap();
    assert_eq!(bench.state().0, "");
    assert_eq!(bench.beat_classic(&id, 2), ErrorCode::RebalanceInProgress);
    let reply = bench.join_classic(classic(&id, &["a"], &[("a", &[0])]));
    assert_eq!((reply.error, reply.generation_id, reply.leader), (None, 3, id));
}

#[test]
fn a_classic_member_that_does_not_join_again_is_removed() {
    let (mut bench, id) = Bench::with_classic_member(GroupConfig::default());
    bench.heartbeat(join("new", &["a"])).unwrap();
    for epoch in [1, 1, 1] {
        assert_eq!(bench.beat_classic(&id, epoch), ErrorCode::RebalanceInProgress);
        bench.heartbeat(alive("new", 2)).unwrap();
        bench.wait(29_000);
    }
    assert_eq!(bench.beat_classic(&id, 1), ErrorCode::UnknownMemberId);
    let reply = bench.heartbeat(alive("new", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1])]));
}

#[test]
fn without_the_policy_a_classic_group_stays_what_it_is() {
    let config = GroupConfig {
        consumer_migration_policy: MigrationPolicy::Disabled,
        ..GroupConfig::default()
    };
    let (mut bench, id) = Bench::with_classic_member(config);
    assert_eq!(bench.refusal(join("new", &["a"])), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.beat_classic(&id, 1), ErrorCode::None);
}

#[test]
fn without_the_policy_a_consumer_group_keeps_its_classic_members() {
    let config = GroupConfig {
        consumer_migration_policy: MigrationPolicy::Upgrade,
        ..GroupConfig::default()
    };
    let (mut bench, id) = Bench::with_classic_member(config);
    bench.heartbeat(join("new", &["a"])).unwrap();
    bench.heartbeat(alive("new", -1)).unwrap();
    assert_eq!(bench.beat_classic(&id, 1), ErrorCode::RebalanceInProgress);
    let reply = bench.join_classic(classic(&id, &["a"], &[("a", &[0, 1])]));
    assert_eq!((reply.error, reply.generation_id), (None, 3));
    assert_eq!(given(&bench.sync_classic(&id, 3, &[])), [("a".into(), vec![0, 1])]);
}

#[test]
fn no_classic_member_joins_when_the_policy_is_disabled() {
    let policy = MigrationPolicy::Disabled;
    let config = GroupConfig { consumer_migration_policy: policy, ..GroupConfig::default() };
    let mut bench = Bench::with(&[("a", 2)], config);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    let refused = bench.join_classic(classic("", &["a"], &[])).error.unwrap();
    assert_eq!(refused.code, ErrorCode::InconsistentGroupProtocol);
    assert!(refused.message.contains("group.consumer.migration.policy"), "{}", refused.message);
}

#[test]
fn a_classic_newcomer_gets_an_id_and_then_its_share() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    let request = JoinRequest { requires_known_member_id: true, ..classic("", &["a"], &[]) };
    let reply = bench.join_classic(request);
    assert_eq!(reply.error.unwrap().code, ErrorCode::MemberIdRequired);
    let id = reply.member_id;
    let reply = bench.join_classic(classic(&id, &["a"], &[]));
    assert_eq!((reply.error, reply.generation_id), (None, 2));
    assert_eq!(given(&bench.sync_classic(&id, 2, &[])), []);
    assert_eq!(bench.beat_classic(&id, 2), ErrorCode::None, "m1 still has it");
    bench.heartbeat(alive("m1", 1)).unwrap();
    bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    assert_eq!(bench.beat_classic(&id, 2), ErrorCode::RebalanceInProgress);
    bench.join_classic(classic(&id, &["a"], &[]));
    assert_eq!(given(&bench.sync_classic(&id, 2, &[])), [("a".into(), vec![1])]);

    assert_eq!(bench.beat_classic(&id, 9), ErrorCode::IllegalGeneration);
    assert_eq!(bench.beat_classic("m1", 2), ErrorCode::UnknownMemberId);
    let stranger = JoinRequest { protocol_type: "connect".into(), ..classic("", &["a"], &[]) };
    assert_eq!(
        bench.join_classic(stranger).error.unwrap().code,
        ErrorCode::InconsistentGroupProtocol
    );
    let leave = LeaveRequest {
        group_id: "g".into(),
        members: vec![
            LeavingMember { member_id: id, instance_id: None },
            LeavingMember { member_id: "stranger".into(), instance_id: None },
        ],
    };
    let GroupReply::Leave(Ok(left)) = bench.ask(GroupRequest::Leave(leave)) else { panic!() };
    assert_eq!(left[0].error, None);
    assert_eq!(left[1].error.as_ref().unwrap().code, ErrorCode::UnknownMemberId);
    let reply = bench.heartbeat(alive("m1", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1])]));
}

#[test]
fn a_static_member_that_falls_back_takes_the_group_with_it() {
    let mut bench = Bench::new(&[("a", 1)]);
    let fixed = |request| ConsumerHeartbeatRequest { instance_id: Some("i".into()), ..request };
    bench.heartbeat(fixed(join("m1", &["a"]))).unwrap();
    let request = JoinRequest { instance_id: Some("i".into()), ..classic("", &["a"], &[]) };
    let reply = bench.join_classic(request);
    assert_eq!((reply.error, reply.generation_id), (None, 2));
    assert_eq!(reply.leader, reply.member_id);
    assert_eq!(bench.state().0, "");
}

#[test]
fn a_commit_is_checked_against_the_epochs_of_the_member() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!(bench.commit("m1", 1, 1, true), ErrorCode::None, "it gives 1 up, but still has it");
    bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    assert_eq!(bench.commit("m1", 2, 0, true), ErrorCode::None);
    assert_eq!(bench.commit("m1", 1, 0, true), ErrorCode::None, "KIP-1251");
    assert_eq!(bench.commit("m1", 1, 1, true), ErrorCode::StaleMemberEpoch);
    assert_eq!(bench.commit("m1", 0, 0, true), ErrorCode::StaleMemberEpoch);
    assert_eq!(bench.commit("m1", 3, 0, true), ErrorCode::StaleMemberEpoch);
    assert_eq!(bench.commit("m1", 2, 0, false), ErrorCode::UnsupportedVersion);
    assert_eq!(bench.commit("m9", 2, 0, true), ErrorCode::UnknownMemberId);
    assert_eq!(bench.commit("", -1, 0, true), ErrorCode::UnknownMemberId);
    assert_eq!(bench.fetch(Some("m1"), 2), ErrorCode::None);
    assert_eq!(bench.fetch(Some("m1"), 1), ErrorCode::StaleMemberEpoch);
    assert_eq!(bench.fetch(Some("m9"), 1), ErrorCode::UnknownMemberId);
    assert_eq!(bench.fetch(None, -1), ErrorCode::None);
    bench.heartbeat(alive("m1", -1)).unwrap();
    bench.heartbeat(alive("m2", -1)).unwrap();
    assert_eq!(bench.commit("", -1, 0, true), ErrorCode::None);
}
