//! Committed offsets and the groups that administrators see.

use std::sync::Arc;

use super::rig::{GROUP, Rig, commit_request, join_request};
use super::*;
use crate::error::ErrorCode;
use crate::machine::coordinator::{Coordinator as _, Effect};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, Uuid};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn rig() -> Rig {
    Rig::new(GroupConfig::default())
}

fn fetch(rig: &mut Rig, topics: &[(&str, &[i32])]) -> Vec<FetchedTopic> {
    let topics = topics.iter().map(|(name, partitions)| FetchTopic {
        name: (*name).into(),
        id: Uuid::ZERO,
        partitions: PartitionIndex::list(partitions),
    });
    let request = FetchOffsetsRequest {
        group_id: GROUP.into(),
        member_id: None,
        member_epoch: -1,
        topics: Some(topics.collect()),
        require_stable: false,
    };
    match rig.tell(GroupRequest::FetchOffsets(request)) {
        GroupReply::FetchOffsets(Ok(topics)) => topics,
        other => panic!("{other:?}"),
    }
}

fn delete_offsets(rig: &mut Rig, topic: &str) -> ErrorCode {
    let topics = vec![(Arc::from(topic), vec![PartitionIndex(0)])];
    let request = DeleteOffsetsRequest { group_id: GROUP.into(), topics };
    match rig.tell(GroupRequest::DeleteOffsets(request)) {
        GroupReply::DeleteOffsets(Ok(topics)) => topics[0].partitions[0].1,
        GroupReply::DeleteOffsets(Err(error)) => error.code,
        other => panic!("{other:?}"),
    }
}

fn delete_group(rig: &mut Rig) -> ErrorCode {
    match rig.tell(GroupRequest::Delete { groups: vec![GROUP.into()] }) {
        GroupReply::Delete(mut groups) => rig::code(groups.remove(0).1),
        other => panic!("{other:?}"),
    }
}

fn list(rig: &mut Rig, states: &[&str], types: &[&str]) -> Vec<ListedGroup> {
    let words = |words: &[&str]| words.iter().map(|word| Arc::from(*word)).collect();
    let request = ListRequest { states: words(states), types: words(types) };
    match rig.tell(GroupRequest::List(request)) {
        GroupReply::List(groups) => groups,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_offset_comes_back_with_its_metadata_and_epoch_and_survives_a_restart() {
    let mut rig = rig();
    assert_eq!(rig.commit(("", -1), "t", 42), ErrorCode::None);
    for _ in 0..2 {
        let topics = fetch(&mut rig, &[("t", &[0, 1]), ("u", &[7])]);
        let found = &topics[0].partitions[0];
        assert_eq!((found.offset, found.leader_epoch), (Offset(42), LeaderEpoch(3)));
        assert_eq!(&*found.metadata, "note");
        for none in [&topics[0].partitions[1], &topics[1].partitions[0]] {
            assert_eq!((none.offset, none.leader_epoch), (Offset(-1), LeaderEpoch(-1)));
            assert_eq!((&*none.metadata, none.error), ("", ErrorCode::None));
        }
        assert_eq!(rig.offsets(), [("t".to_owned(), 0, 42)]);
        rig.restart();
    }
}

#[test]
fn a_group_without_offsets_has_none() {
    let mut rig = rig();
    assert_eq!(fetch(&mut rig, &[("t", &[0])])[0].partitions[0].offset, Offset(-1));
    assert_eq!(rig.offsets(), []);
}

#[test]
fn metadata_that_is_too_long_loses_its_partition_alone() {
    let mut rig = rig();
    let mut request = commit_request("", -1, "t", 1);
    let mut long = request.topics[0].partitions[0].clone();
    long.partition = PartitionIndex(1);
    long.metadata = Some("x".repeat(4097).into());
    request.topics[0].partitions.push(long);
    let reply = rig.tell(GroupRequest::CommitOffsets(request));
    let GroupReply::CommitOffsets(Ok(topics)) = reply else { panic!("{reply:?}") };
    let codes = [
        (PartitionIndex(0), ErrorCode::None),
        (PartitionIndex(1), ErrorCode::OffsetMetadataTooLarge),
    ];
    assert_eq!(topics[0].partitions, codes);
    assert_eq!(rig.offsets().len(), 1);
}

#[test]
fn metadata_is_measured_as_java_does() {
    let mut rig = rig();
    let mut request = commit_request("", -1, "t", 1);
    request.topics[0].partitions[0].metadata = Some("\u{20ac}".repeat(4096).into());
    assert_eq!(rig.commit_request(request), ErrorCode::None);
}

#[test]
fn commits_are_refused_by_what_is_wrong_with_them() {
    let mut rig = rig();
    let older =
        CommitOffsetsRequest { knows_member_epochs: false, ..commit_request("m", 3, "t", 1) };
    assert_eq!(rig.commit_request(older), ErrorCode::IllegalGeneration);
    assert_eq!(rig.commit(("m", 3), "t", 1), ErrorCode::GroupIdNotFound);
    let (ids, generation) = rig.stable(1);
    assert_eq!(rig.commit((&ids[0], generation), "t", 1), ErrorCode::None);
    assert_eq!(rig.commit((&ids[0], generation + 1), "t", 1), ErrorCode::IllegalGeneration);
    assert_eq!(rig.commit(("nobody", generation), "t", 1), ErrorCode::UnknownMemberId);
    assert_eq!(rig.commit(("", -1), "t", 1), ErrorCode::UnknownMemberId);
    let mut by_instance = commit_request(&ids[0], generation, "t", 1);
    by_instance.instance_id = Some("i".into());
    assert_eq!(rig.commit_request(by_instance), ErrorCode::UnknownMemberId);
    let join = rig.join(join_request(&ids[0]));
    let generation = rig.joined(join).generation_id;
    assert_eq!(rig.commit((&ids[0], generation), "t", 1), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_member_may_commit_what_it_did_while_the_group_rebalances() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(1);
    rig.join(join_request(""));
    assert_eq!(rig.commit((&ids[0], generation), "t", 8), ErrorCode::None);
    assert_eq!(rig.offsets(), [("t".to_owned(), 0, 8)]);
}

#[test]
fn a_commit_keeps_the_session() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(1);
    for offset in 0..5 {
        rig.pass(9_000);
        assert_eq!(rig.commit((&ids[0], generation), "t", offset), ErrorCode::None);
    }
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::None);
}

#[test]
fn offsets_of_a_group_with_members_stay_and_expire_from_when_it_became_empty() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(1);
    rig.commit((&ids[0], generation), "t", 5);
    for _ in 0..(8 * DAY_MS / 9_000) {
        rig.pass(9_000);
        rig.heartbeat(&ids[0], generation);
    }
    assert_eq!(rig.offsets().len(), 1);
    rig.leave(&[(&ids[0], None)]);
    rig.pass(7 * DAY_MS - 1);
    rig.restart();
    assert_eq!(rig.offsets().len(), 1);
    rig.pass(600_000);
    assert_eq!(rig.offsets().len(), 0);
    assert_eq!(rig.describe().state, "Dead");
    rig.restart();
    assert_eq!(rig.describe().state, "Dead");
}

#[test]
fn offsets_of_a_topic_nobody_reads_any_more_expire_from_their_commit() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(1);
    rig.commit((&ids[0], generation), "t", 5);
    rig.commit((&ids[0], generation), "other", 5);
    for _ in 0..(7 * DAY_MS / 9_000 + 100) {
        rig.pass(9_000);
        rig.heartbeat(&ids[0], generation);
    }
    assert_eq!(rig.offsets(), [("t".to_owned(), 0, 5)]);
    assert_eq!(rig.describe().state, "Stable");
}

#[test]
fn offsets_of_a_group_without_members_expire_from_their_commit() {
    let mut rig = rig();
    rig.commit(("", -1), "t", 5);
    rig.pass(6 * DAY_MS);
    rig.commit(("", -1), "u", 5);
    rig.pass(DAY_MS + 600_000);
    assert_eq!(rig.offsets(), [("u".to_owned(), 0, 5)]);
    rig.pass(7 * DAY_MS);
    assert_eq!(rig.describe().state, "Dead");
}

#[test]
fn a_retention_of_its_own_is_kept() {
    let mut rig = rig();
    let short =
        CommitOffsetsRequest { retention_ms: Some(1_000), ..commit_request("", -1, "t", 1) };
    rig.commit_request(short);
    rig.commit(("", -1), "u", 1);
    rig.pass(1_200_000);
    assert_eq!(rig.offsets(), [("u".to_owned(), 0, 1)]);
}

#[test]
fn offsets_go_with_their_topic_but_not_with_an_older_one_of_the_same_name() {
    let mut rig = rig();
    let [old, new] = [1, 2].map(|byte| Uuid([byte; 16]));
    rig.commit(("", -1), "t", 1);
    let mut request = commit_request("", -1, "u", 1);
    request.topics[0].id = new;
    rig.commit_request(request);
    let gone = |id| Event::News(GroupNews::TopicsDeleted(vec![(id, "t".into()), (id, "u".into())]));
    rig.event(gone(old));
    assert_eq!(rig.offsets(), [("u".to_owned(), 0, 1)]);
    rig.event(gone(new));
    assert_eq!(rig.offsets(), []);
}

#[test]
fn offsets_go_with_a_topic_that_was_deleted_while_no_coordinator_was_there() {
    let mut rig = rig();
    rig.commit(("", -1), "t", 1);
    let mut request = commit_request("", -1, "u", 1);
    request.topics[0].id = Uuid([2; 16]);
    rig.commit_request(request);
    // The next coordinator knows of no topic; what was committed without an id may be of any.
    for _ in 0..2 {
        rig.restart();
        assert_eq!(rig.offsets(), [("t".to_owned(), 0, 1)]);
    }
}

#[test]
fn the_offsets_of_each_group_are_deleted_by_an_append_of_their_own() {
    let mut rig = rig();
    for group in ["one", "two", "three"] {
        let mut request = commit_request("", -1, "u", 1);
        request.group_id = group.into();
        request.topics[0].id = Uuid([2; 16]);
        rig.commit_request(request);
    }
    let mut effects = Vec::new();
    rig.shard.restored(rig.now, &mut effects);
    let appends: Vec<usize> = effects
        .iter()
        .map(|effect| match effect {
            Effect::Append { records, .. } => records.len(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(appends, [1, 1, 1]);
}

#[test]
fn offsets_of_a_topic_that_is_read_are_not_deleted() {
    let mut rig = rig();
    assert_eq!(delete_offsets(&mut rig, "t"), ErrorCode::GroupIdNotFound);
    let (ids, generation) = rig.stable(1);
    rig.commit((&ids[0], generation), "t", 1);
    rig.commit((&ids[0], generation), "u", 1);
    assert_eq!(delete_offsets(&mut rig, "t"), ErrorCode::GroupSubscribedToTopic);
    assert_eq!(delete_offsets(&mut rig, "u"), ErrorCode::None);
    assert_eq!(delete_offsets(&mut rig, "never"), ErrorCode::None);
    assert_eq!(rig.offsets(), [("t".to_owned(), 0, 1)]);
    rig.leave(&[(&ids[0], None)]);
    assert_eq!(delete_offsets(&mut rig, "t"), ErrorCode::None);
    assert_eq!(rig.offsets(), []);
}

#[test]
fn offsets_of_a_group_that_does_not_consume_are_not_deleted_while_it_has_members() {
    let mut rig = rig();
    rig.join(JoinRequest { protocol_type: "connect".into(), ..join_request("") });
    rig.pass(3_000);
    assert_eq!(delete_offsets(&mut rig, "t"), ErrorCode::NonEmptyGroup);
}

#[test]
fn a_group_is_deleted_with_its_offsets_when_nobody_is_in_it() {
    let mut rig = rig();
    assert_eq!(delete_group(&mut rig), ErrorCode::GroupIdNotFound);
    let (ids, generation) = rig.stable(1);
    rig.commit((&ids[0], generation), "t", 1);
    assert_eq!(delete_group(&mut rig), ErrorCode::NonEmptyGroup);
    rig.leave(&[(&ids[0], None)]);
    assert_eq!(delete_group(&mut rig), ErrorCode::None);
    for _ in 0..2 {
        assert_eq!(rig.offsets(), []);
        assert_eq!(rig.describe().error.unwrap().code, ErrorCode::GroupIdNotFound);
        rig.restart();
    }
}

#[test]
fn groups_are_listed_by_state_and_type_in_any_case() {
    let mut rig = rig();
    rig.stable(1);
    let simple = CommitOffsetsRequest { group_id: "s".into(), ..commit_request("", -1, "t", 1) };
    rig.commit_request(simple);
    let names = |groups: Vec<ListedGroup>| {
        groups
            .into_iter()
            .map(|group| (group.group_id.to_string(), group.state))
            .collect::<Vec<_>>()
    };
    let both = [("g".to_owned(), "Stable"), ("s".to_owned(), "Empty")];
    assert_eq!(names(list(&mut rig, &[], &[])), both);
    assert_eq!(names(list(&mut rig, &["stable", " EMPTY "], &["Classic"])), both);
    assert_eq!(names(list(&mut rig, &["stable"], &[])), both[..1]);
    assert_eq!(names(list(&mut rig, &[], &["consumer"])), []);
    assert_eq!(&*list(&mut rig, &[], &[])[0].protocol_type, "consumer");
    assert_eq!(&*list(&mut rig, &[], &[])[1].protocol_type, "");
}

#[test]
fn a_group_is_described_with_what_its_members_have() {
    let mut rig = rig();
    let (ids, _) = rig.stable(2);
    let group = rig.describe();
    assert_eq!(
        (group.state, &*group.protocol_type, &*group.protocol),
        ("Stable", "consumer", "range")
    );
    for member in &group.members {
        assert_eq!(member.metadata, rig::subscription(&["t"]));
        assert_eq!(member.assignment, member.member_id.as_bytes());
        assert_eq!((&*member.client_id, &*member.client_host), ("client", "/127.0.0.1"));
    }
    rig.join(join_request(&ids[0]));
    let group = rig.describe();
    assert_eq!((group.state, &*group.protocol), ("PreparingRebalance", ""));
    assert!(group.members.iter().all(|member| member.metadata.is_empty()));
}
