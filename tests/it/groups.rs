//! Groups through sockets: their topic, their log, and what ends them.

use std::time::Duration;

use bytes::Bytes;
use ottla::broker::BrokerOptions;
use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
};
use ottla::protocol::messages::delete_topics::DeleteTopicsRequest;
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use ottla::protocol::messages::describe_groups::DescribeGroupsRequest;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::heartbeat::HeartbeatRequest;
use ottla::protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ottla::protocol::messages::metadata::MetadataRequest;
use ottla::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use ottla::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::support::{Client, TestBroker};

const OFFSETS: &str = "__consumer_offsets";

#[track_caller]
fn check_code(code: i16, expected: ErrorCode) {
    assert_eq!(ErrorCode::from_i16(code), expected);
}

fn join(group: &str, member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol { name: "range".into(), metadata: Bytes::new() };
    JoinGroupRequest {
        group_id: group.into(),
        session_timeout_ms: 10_000,
        rebalance_timeout_ms: 10_000,
        member_id: member.into(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol],
        ..JoinGroupRequest::default()
    }
}

/// Joins as the only member, and assigns to itself.
pub(crate) fn enter(client: &mut Client, group: &str) -> (i32, Str) {
    let joined: JoinGroupResponse = client.call(3, join(group, ""));
    check_code(joined.error_code, ErrorCode::None);
    let (generation, member) = (joined.generation_id, joined.member_id);
    let share = SyncGroupRequestAssignment {
        member_id: member.clone(),
        assignment: Bytes::from_static(b"share"),
    };
    let request = SyncGroupRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.clone(),
        assignments: vec![share],
        ..SyncGroupRequest::default()
    };
    assert_eq!(client.call(3, request).assignment, b"share".as_slice());
    (generation, member)
}

pub(crate) fn heartbeat(
    client: &mut Client,
    group: &str,
    generation: i32,
    member: &Str,
) -> ErrorCode {
    let request = HeartbeatRequest {
        group_id: group.into(),
        generation_id: generation,
        member_id: member.clone(),
        ..HeartbeatRequest::default()
    };
    ErrorCode::from_i16(client.call(4, request).error_code)
}

fn commit(client: &mut Client, group: &str, from: (i32, &str), topic: &str, offset: i64) -> i16 {
    let request = commit_request(group, from, topic, offset);
    client.call(9, request).topics[0].partitions[0].error_code
}

pub(crate) fn commit_request(
    group: &str,
    from: (i32, &str),
    topic: &str,
    offset: i64,
) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        committed_offset: offset,
        committed_metadata: Some("note".into()),
        ..OffsetCommitRequestPartition::default()
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: from.0,
        member_id: from.1.into(),
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Every committed offset of a group.
fn committed(client: &mut Client, group: &str) -> Vec<(String, i64, String)> {
    let group = OffsetFetchRequestGroup {
        group_id: group.into(),
        topics: None,
        ..OffsetFetchRequestGroup::default()
    };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    let answered = client.call(9, request).groups.remove(0);
    check_code(answered.error_code, ErrorCode::None);
    let topics = answered.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            let metadata = partition.metadata.as_deref().unwrap_or_default().to_owned();
            (topic.name.as_str().to_owned(), partition.committed_offset, metadata)
        })
    });
    topics.collect()
}

fn state(client: &mut Client, group: &str) -> (String, usize) {
    let request = DescribeGroupsRequest { groups: vec![group.into()], ..Default::default() };
    let group = client.call(5, request).groups.remove(0);
    (group.group_state.as_str().to_owned(), group.members.len())
}

#[test]
fn the_offsets_topic_comes_with_the_first_group() {
    let node =
        TestBroker::start(BrokerOptions::in_memory().with("offsets.topic.num.partitions", "7"));
    let mut client = node.client();
    let names = |client: &mut Client| {
        let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
        let topics = client.call(12, request).topics;
        let shown = topics.into_iter().map(|topic| {
            let name = topic.name.unwrap().as_str().to_owned();
            (name, topic.is_internal, topic.partitions.len())
        });
        shown.collect::<Vec<_>>()
    };
    assert_eq!(names(&mut client), []);
    let request =
        FindCoordinatorRequest { coordinator_keys: vec!["g".into()], ..Default::default() };
    let found = client.call(4, request).coordinators.remove(0);
    check_code(found.error_code, ErrorCode::None);
    assert_eq!(found.port, i32::from(node.address().port()));
    assert_eq!(names(&mut client), [(OFFSETS.to_owned(), true, 7)]);

    let resource = DescribeConfigsResource {
        resource_type: 2,
        resource_name: OFFSETS.into(),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
    let result = client.call(4, request).results.remove(0);
    for (name, value) in [
        ("cleanup.policy", "compact"),
        ("compression.type", "producer"),
        ("segment.bytes", "104857600"),
    ] {
        let found = result.configs.iter().find(|config| config.name.as_str() == name).unwrap();
        assert_eq!(found.value.as_deref(), Some(value), "{name}");
    }
}

#[test]
fn a_group_waits_for_more_members_unless_the_broker_is_within_a_process() {
    for (standalone, expected) in [(false, "0"), (true, "3000")] {
        let node = TestBroker::start(BrokerOptions { standalone, ..BrokerOptions::in_memory() });
        let resource = DescribeConfigsResource {
            resource_type: 4,
            resource_name: node.broker().node_id().to_string().into(),
            configuration_keys: Some(vec!["group.initial.rebalance.delay.ms".into()]),
        };
        let request = DescribeConfigsRequest { resources: vec![resource], ..Default::default() };
        let result = node.client().call(4, request).results.remove(0);
        assert_eq!(result.configs[0].value.as_deref(), Some(expected), "standalone: {standalone}");
    }
}

#[test]
fn groups_and_offsets_survive_a_crash_and_members_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let options = || BrokerOptions::in_directory(directory.path().join("data"));
    let node = TestBroker::start(options());
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let (generation, member) = enter(&mut client, "g");
    for offset in 1..=20 {
        let from = (generation, member.as_str());
        check_code(commit(&mut client, "g", from, "t", offset), ErrorCode::None);
    }
    check_code(commit(&mut client, "of nobody", (-1, ""), "t", 5), ErrorCode::None);
    check_code(commit(&mut client, "gone", (-1, ""), "t", 6), ErrorCode::None);
    let request = ottla::protocol::messages::delete_groups::DeleteGroupsRequest {
        groups_names: vec!["gone".into()],
    };
    check_code(client.call(2, request).results[0].error_code, ErrorCode::None);

    node.crash();
    for crash in [true, false, true] {
        let node = TestBroker::start(options());
        let mut client = node.client();
        let expected = |offset| vec![("t".to_owned(), offset, "note".to_owned())];
        assert_eq!(committed(&mut client, "g"), expected(20));
        assert_eq!(committed(&mut client, "of nobody"), expected(5));
        assert_eq!(committed(&mut client, "gone"), []);
        assert_eq!(state(&mut client, "g"), ("Stable".to_owned(), 1));
        assert_eq!(state(&mut client, "gone").0, "Dead");
        assert_eq!(heartbeat(&mut client, "g", generation, &member), ErrorCode::None);
        if crash {
            node.crash();
        } else {
            node.stop();
        }
    }
}

#[test]
fn a_silent_member_is_out_and_its_successor_is_not_kept_waiting() {
    let options = BrokerOptions::in_memory().with("group.min.session.timeout.ms", "10");
    let node = TestBroker::start(options);
    let mut client = node.client();
    let joined = client.call(3, JoinGroupRequest { session_timeout_ms: 50, ..join("g", "") });
    let (generation, member) = (joined.generation_id, joined.member_id);
    let mut other = node.client();
    let joined = other.call(3, join("g", ""));
    check_code(joined.error_code, ErrorCode::None);
    assert_eq!((joined.leader, joined.generation_id), (joined.member_id, generation + 1));
    let code = heartbeat(&mut client, "g", generation, &member);
    assert_eq!(code, ErrorCode::UnknownMemberId);
}

#[test]
fn a_broker_that_stops_answers_those_who_wait_for_others() {
    let node = TestBroker::start(BrokerOptions::in_memory());
    let mut first = node.client();
    enter(&mut first, "g");
    // The first member never comes back, and the rebalance timeout is long.
    let mut second = node.client();
    let asked = second.send(3, JoinGroupRequest { rebalance_timeout_ms: 60_000, ..join("g", "") });
    let mut third = node.client();
    while state(&mut third, "g").0 != "PreparingRebalance" {}
    let begin = std::time::Instant::now();
    node.stop();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    // The answer, or the end of the connection: it does not hang.
    if let Some(frame) = second.next_frame() {
        assert_eq!(frame[..4], asked.to_be_bytes());
    }
}

#[test]
fn a_group_that_is_full_turns_newcomers_away() {
    let node = TestBroker::start(BrokerOptions::in_memory().with("group.max.size", "1"));
    let mut client = node.client();
    enter(&mut client, "g");
    let code = client.call(3, join("g", "")).error_code;
    check_code(code, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn offsets_go_with_their_topic() {
    let node = TestBroker::in_memory();
    let mut client = node.client();
    for topic in ["stays", "goes"] {
        client.create_topic(topic, 1, &[]);
        check_code(commit(&mut client, "g", (-1, ""), topic, 1), ErrorCode::None);
    }
    assert_eq!(committed(&mut client, "g").len(), 2);
    let request = DeleteTopicsRequest {
        topic_names: vec!["goes".into()],
        timeout_ms: 10_000,
        ..DeleteTopicsRequest::default()
    };
    check_code(client.call(5, request).responses[0].error_code, ErrorCode::None);
    while committed(&mut client, "g").len() > 1 {}
    assert_eq!(committed(&mut client, "g")[0].0, "stays");
}

#[test]
fn consumer_groups_hear_of_new_partitions() {
    use ottla::protocol::messages::create_partitions::{
        CreatePartitionsRequest, CreatePartitionsTopic,
    };

    let node = TestBroker::in_memory();
    let mut client = node.client();
    client.create_topic("t", 1, &[]);
    let beat = ConsumerGroupHeartbeatRequest {
        group_id: "g".into(),
        member_id: "m".into(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec!["t".into()]),
        topic_partitions: Some(Vec::new()),
        ..ConsumerGroupHeartbeatRequest::default()
    };
    let count = |response: &ConsumerGroupHeartbeatResponse| {
        check_code(response.error_code, ErrorCode::None);
        let assignment = response.assignment.as_ref()?;
        Some(assignment.topic_partitions.iter().map(|topic| topic.partitions.len()).sum::<usize>())
    };
    let joined = client.call(1, beat);
    assert_eq!(count(&joined), Some(1));
    let topic = CreatePartitionsTopic { name: "t".into(), count: 5, assignments: None };
    let request =
        CreatePartitionsRequest { topics: vec![topic], timeout_ms: 5000, ..Default::default() };
    check_code(client.call(3, request).results[0].error_code, ErrorCode::None);
    let mut epoch = joined.member_epoch;
    loop {
        let response = client.call(
            1,
            ConsumerGroupHeartbeatRequest {
                group_id: "g".into(),
                member_id: "m".into(),
                member_epoch: epoch,
                ..ConsumerGroupHeartbeatRequest::default()
            },
        );
        epoch = response.member_epoch;
        if count(&response) == Some(5) {
            break;
        }
    }
    assert!(epoch > joined.member_epoch);
}
