//! The consumer protocol (KIP-848), word for word at every version.

use bytes::Bytes;
use ottla::protocol::Str;
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::consumer_group_describe::ConsumerGroupDescribeRequest;
use ottla::protocol::messages::consumer_group_heartbeat::{
    ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, OwnedTopicPartitions,
};
use ottla::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use ottla::protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use ottla::protocol::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol};
use ottla::protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ottla::protocol::messages::list_config_resources::ListConfigResourcesRequest;
use ottla::protocol::messages::offset_commit::OffsetCommitRequest;
use ottla::protocol::messages::offset_fetch::OffsetFetchRequest;
use ottla::types::Uuid;

use crate::transcript::{Connection, Script, until};
use crate::wire_classic::{delete, describe, enter, heartbeat, join, leave, list, sync};
use crate::wire_offsets::{commit, fetch, partition};

against_both!(
    transcript:
    consumer_refusals,
    consumer_life,
    consumer_static,
    empty_groups_convert,
    groups_convert,
    group_configs,
);

type Beat = ConsumerGroupHeartbeatRequest;

/// A member that joins.
fn first(group: &Str, member: &Str, topic: &Str) -> Beat {
    Beat {
        group_id: group.clone(),
        member_id: member.clone(),
        rebalance_timeout_ms: 30_000,
        subscribed_topic_names: Some(vec![topic.clone()]),
        topic_partitions: Some(Vec::new()),
        ..Beat::default()
    }
}

/// A member that reports what has not changed.
fn next(group: &Str, member: &Str, epoch: i32) -> Beat {
    Beat {
        group_id: group.clone(),
        member_id: member.clone(),
        member_epoch: epoch,
        ..Beat::default()
    }
}

fn owned(topic: Uuid, partitions: &[i32]) -> Vec<OwnedTopicPartitions> {
    vec![OwnedTopicPartitions { topic_id: topic, partitions: partitions.to_vec() }]
}

fn sorted(mut response: ConsumerGroupHeartbeatResponse) -> ConsumerGroupHeartbeatResponse {
    for topic in response.assignment.iter_mut().flat_map(|all| &mut all.topic_partitions) {
        topic.partitions.sort_unstable();
    }
    response
}

fn ask(talk: &mut Script, label: &str, version: i16, request: Beat) -> i32 {
    let response = sorted(talk.call(version, request));
    talk.note(label, version, &response);
    response.member_epoch
}

/// Reports until the coordinator has assigned this many partitions; records its answer.
fn until_assigned(
    talk: &mut Script,
    connection: &mut Connection,
    label: &str,
    (group, member, count): (&Str, &Str, usize),
    mut response: ConsumerGroupHeartbeatResponse,
) -> i32 {
    loop {
        assert_eq!(response.error_code, 0, "{response:?}");
        let assigned = response.assignment.as_ref().map_or(0, |assignment| {
            assignment.topic_partitions.iter().map(|topic| topic.partitions.len()).sum()
        });
        if assigned == count {
            talk.epochs_from(response.member_epoch);
            talk.note(label, 1, &sorted(response.clone()));
            return response.member_epoch;
        }
        response = connection.call(1, next(group, member, response.member_epoch));
    }
}

/// A topic that the coordinators have heard of: Apache Kafka answers the creation before that.
fn known_topic(talk: &mut Script, partitions: i32) -> (Str, Uuid) {
    let topic = talk.topic("topic", partitions);
    let (group, member) = (talk.group("scout"), Str::from("scout"));
    let mut response = talk.call(1, first(&group, &member, &topic.0));
    while response.assignment.as_ref().is_none_or(|all| all.topic_partitions.is_empty()) {
        assert_eq!(response.error_code, 0, "{response:?}");
        response = talk.call(1, next(&group, &member, response.member_epoch));
    }
    talk.call(1, next(&group, &member, -1));
    topic
}

fn look(talk: &mut Script, label: &str, version: i16, group: &Str) {
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.clone()],
        include_authorized_operations: true,
    };
    let mut response = talk.call(version, request);
    response.groups[0].members.sort_by(|one, other| one.member_id.cmp(&other.member_id));
    for member in &mut response.groups[0].members {
        for assignment in [&mut member.assignment, &mut member.target_assignment] {
            for topic in &mut assignment.topic_partitions {
                topic.partitions.sort_unstable();
            }
        }
    }
    talk.note(label, version, &response);
}

/// What no consumer group takes is refused.
fn consumer_refusals(talk: &mut Script) {
    let (topic, id) = talk.topic("topic", 1);
    for version in 0..=1 {
        let group = talk.group(&format!("none{version}"));
        talk.mask(&group, "group");
        let member = Str::from_static("member");
        let joins = || first(&group, &member, &topic);
        let text = |text: &'static str| Some(Str::from(text));
        for (label, request) in [
            ("no group id", Beat { group_id: Str::EMPTY, ..joins() }),
            ("an empty instance", Beat { instance_id: text(""), ..joins() }),
            ("an empty rack", Beat { rack_id: text(""), ..joins() }),
            ("an empty assignor", Beat { server_assignor: text(""), ..joins() }),
            ("an unknown assignor", Beat { server_assignor: text("magic"), ..joins() }),
            ("no rebalance timeout", Beat { rebalance_timeout_ms: -1, ..joins() }),
            ("no partitions", Beat { topic_partitions: None, ..joins() }),
            ("joins with partitions", Beat { topic_partitions: Some(owned(id, &[0])), ..joins() }),
            ("no topics", Beat { subscribed_topic_names: None, ..joins() }),
            ("epoch -3", next(&group, &member, -3)),
            ("epoch -2 without an instance", next(&group, &member, -2)),
            ("reports to no group", next(&group, &member, 1)),
            ("leaves no group", next(&group, &member, -1)),
            ("leaves without an id", next(&group, &Str::EMPTY, -1)),
            ("reports without an id", next(&group, &Str::EMPTY, 1)),
        ] {
            ask(talk, label, version, request);
        }
        if version >= 1 {
            ask(talk, "joins without an id", 1, first(&group, &Str::EMPTY, &topic));
            let regex = |regex: &'static str| Beat {
                subscribed_topic_names: None,
                subscribed_topic_regex: text(regex),
                ..joins()
            };
            ask(talk, "an expression that is none", 1, regex("(a"));
            ask(talk, "no expression", 1, regex(""));
            ask(talk, "leaves again", 1, next(&group, &member, -1));
        }
        look(talk, "describe: no group", version, &group);
        look(talk, "describe: no group id", version, &"".into());
    }
}

/// A consumer group lives and ends.
fn consumer_life(talk: &mut Script) {
    let (topic, id) = known_topic(talk, 4);
    let named = (topic.clone(), id);
    let (group, one, two) = (talk.group("group"), Str::from("one"), Str::from("two"));
    let mut line = talk.connect();
    let response = line.call(1, first(&group, &one, &topic));
    let base = until_assigned(talk, &mut line, "one joins", (&group, &one, 4), response);
    ask(talk, "it reports", 1, next(&group, &one, base));
    let report =
        Beat { topic_partitions: Some(owned(id, &[0, 1, 2, 3])), ..next(&group, &one, base) };
    ask(talk, "it says what it owns", 1, report.clone());
    let full = Beat { member_epoch: base, ..first(&group, &one, &topic) };
    ask(talk, "it says everything", 1, full);
    ask(talk, "an epoch above", 1, next(&group, &one, base + 1));
    ask(talk, "a stranger", 1, next(&group, &"x".into(), base));
    ask(talk, "a stranger leaves", 1, next(&group, &"x".into(), -1));
    ask(
        talk,
        "a stranger, static",
        1,
        Beat { instance_id: Some("i".into()), ..next(&group, &"x".into(), base) },
    );
    for version in 0..=1 {
        look(talk, "describe: one", version, &group);
    }
    for version in 0..=6 {
        describe(talk, "describe, the classic way", version, &group);
    }
    for version in 0..=5 {
        list(talk, "list", version, &group, (&[], &[]));
    }
    list(talk, "list: by type", 5, &group, (&["stable"], &["Consumer"]));
    delete(talk, "delete: with a member", 3, &group);

    for version in 2..=10 {
        let from = |epoch: i32, member: &Str, offset: i64| OffsetCommitRequest {
            generation_id_or_member_epoch: epoch,
            member_id: member.clone(),
            ..commit(&group, &named, &[partition(1, offset)], version)
        };
        talk.ask("commit: the member", version, from(base, &one, 10));
        talk.ask("commit: an epoch above", version, from(base + 1, &one, 11));
        talk.ask("commit: an epoch below", version, from(base - 1, &one, 12));
        talk.ask("commit: no epoch", version, from(-1, &one, 13));
        talk.ask("commit: a stranger", version, from(base, &"x".into(), 14));
        talk.ask("commit: nobody", version, from(-1, &"".into(), 15));
    }
    for version in 1..=10 {
        talk.ask("fetch: nobody", version, fetch(&group, Some(&[(&named, &[1])]), version));
    }
    for version in 9..=10 {
        for (label, member, epoch) in [
            ("the member", &one, base),
            ("an epoch above", &one, base + 1),
            ("an epoch below", &one, base - 1),
            ("no epoch", &one, -1),
            ("a stranger", &two, base),
        ] {
            let mut request: OffsetFetchRequest = fetch(&group, Some(&[(&named, &[1])]), version);
            request.groups[0].member_id = Some(member.clone());
            request.groups[0].member_epoch = epoch;
            talk.ask(&format!("fetch: {label}"), version, request);
        }
    }
    let unlike =
        JoinGroupRequest { protocol_type: "connect".into(), ..join(&group, &"".into(), 9) };
    talk.ask("a classic member of another type", 9, unlike);
    talk.ask("a classic heartbeat", 4, heartbeat(&group, 1, &one));
    talk.ask("a classic sync", 4, sync(&group, 1, &one, &[]));

    // The second member waits for the partitions that the first one gives up.
    let mut other = talk.connect();
    let mut joined = other.call(1, first(&group, &two, &topic));
    // Soon after the last assignment the next one is delayed.
    while joined.member_epoch != base + 1 {
        assert_eq!(joined.error_code, 0, "{joined:?}");
        joined = other.call(1, next(&group, &two, joined.member_epoch));
    }
    let mut answer = line.call(1, next(&group, &one, base));
    while answer.assignment.is_none() {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer = line.call(1, next(&group, &one, base));
    }
    talk.note("one is to give up two", 1, &sorted(answer.clone()));
    look(talk, "describe: one gives up", 1, &group);
    list(talk, "list: one gives up", 5, &group, (&[], &[]));
    ask(talk, "it has not given up", 1, report);
    let kept = answer.assignment.unwrap().topic_partitions.remove(0).partitions;
    let gave = Beat { topic_partitions: Some(owned(id, &kept)), ..next(&group, &one, base) };
    ask(talk, "it gave up", 1, gave.clone());
    ask(talk, "its answer was lost", 1, gave);
    let of_two = until_assigned(talk, &mut other, "two gets them", (&group, &two, 2), joined);
    assert_eq!(of_two, base + 1);
    look(talk, "describe: two", 1, &group);
    ask(talk, "two leaves", 1, next(&group, &two, -1));
    let mut answer = line.call(1, next(&group, &one, base + 1));
    while answer.assignment.is_none() {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer = line.call(1, next(&group, &one, answer.member_epoch));
    }
    talk.note("one has them back", 1, &sorted(answer));
    talk.ask("one is removed, the classic way", 5, leave(&group, &one, 5));
    look(talk, "describe: empty", 1, &group);
    list(talk, "list: empty", 5, &group, (&[], &[]));
    talk.ask("commit: nobody, it is empty", 9, commit(&group, &named, &[partition(0, 1)], 9));
    delete(talk, "delete", 3, &group);
    look(talk, "describe: deleted", 1, &group);
}

/// Static members of consumer groups may be away.
fn consumer_static(talk: &mut Script) {
    let (topic, _) = known_topic(talk, 2);
    let group = talk.group("group");
    let (old, new) = (Str::from("old"), Str::from("new"));
    let is = |request: Beat| Beat { instance_id: Some("i".into()), ..request };
    let mut line = talk.connect();
    let mut answer = line.call(1, is(first(&group, &old, &topic)));
    loop {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer = line.call(1, is(next(&group, &old, answer.member_epoch)));
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![group.clone()],
            ..ConsumerGroupDescribeRequest::default()
        };
        if line.call(1, request).groups[0].members[0].assignment.topic_partitions.len() == 1 {
            break;
        }
    }
    let epoch = answer.member_epoch;
    talk.epochs_from(epoch);
    look(talk, "describe: it is there", 1, &group);
    ask(talk, "another joins as it", 1, is(first(&group, &new, &topic)));
    ask(talk, "another reports as it", 1, is(next(&group, &new, epoch)));
    ask(talk, "it reports without its instance", 1, next(&group, &old, epoch));
    ask(talk, "another leaves as it", 1, is(next(&group, &new, -1)));
    ask(talk, "it leaves for a while", 1, is(next(&group, &old, -2)));
    look(talk, "describe: it is away", 1, &group);
    let back = line.call(1, is(first(&group, &new, &topic)));
    talk.note("it is back by another id", 1, &sorted(back));
    look(talk, "describe: it is back", 1, &group);
    ask(talk, "its former self", 1, is(next(&group, &old, epoch)));
    ask(
        talk,
        "an unknown instance",
        1,
        Beat { instance_id: Some("j".into()), ..next(&group, &new, epoch) },
    );
    ask(talk, "it leaves for good", 1, is(next(&group, &new, -1)));
    look(talk, "describe: it is gone", 1, &group);

    let mut answer = line.call(1, is(first(&group, &old, &topic)));
    while answer.assignment.as_ref().is_none_or(|all| all.topic_partitions.is_empty()) {
        assert_eq!(answer.error_code, 0, "{answer:?}");
        answer = line.call(1, is(next(&group, &old, answer.member_epoch)));
    }
    let identity = |member: &Str, instance: &'static str| MemberIdentity {
        member_id: member.clone(),
        group_instance_id: Some(instance.into()),
        ..MemberIdentity::default()
    };
    let nobody = Str::EMPTY;
    let members = [(&nobody, "j"), (&new, "i"), (&nobody, "i"), (&nobody, "i")];
    let request = LeaveGroupRequest {
        group_id: group.clone(),
        members: members.map(|(member, instance)| identity(member, instance)).into(),
        ..LeaveGroupRequest::default()
    };
    talk.ask("an administrator removes it", 5, request);
    list(talk, "list: it was removed", 5, &group, (&[], &[]));
}

/// A group changes its protocol when nobody is in it.
fn empty_groups_convert(talk: &mut Script) {
    let (topic, id) = known_topic(talk, 1);
    let named = (topic.clone(), id);
    let group = talk.group("group");
    talk.call(9, commit(&group, &named, &[partition(0, 7)], 9));
    let member = Str::from("one");
    let mut line = talk.connect();
    let response = line.call(1, first(&group, &member, &topic));
    until_assigned(talk, &mut line, "a consumer joins", (&group, &member, 1), response);
    talk.ask("fetch: as before", 9, fetch(&group, None, 9));
    line.call(1, next(&group, &member, -1));
    list(talk, "list: left", 5, &group, (&[], &[]));
    let joined = enter(talk, join(&group, &"".into(), 9), 9);
    talk.mask(&joined.member_id, "classic");
    talk.note("a classic member joins", 9, &joined);
    list(talk, "list: classic", 5, &group, (&[], &[]));
    talk.ask("fetch: still as before", 9, fetch(&group, None, 9));
    ask(
        talk,
        "a consumer among those that do not say what they read",
        1,
        first(&group, &member, &topic),
    );
    talk.call(5, leave(&group, &joined.member_id, 5));
    let kind = JoinGroupRequest { protocol_type: "connect".into(), ..join(&group, &"".into(), 9) };
    let joined = enter(talk, kind, 9);
    ask(talk, "a consumer among members of another type", 1, first(&group, &member, &topic));
    talk.call(5, leave(&group, &joined.member_id, 5));
}

/// What a consumer says in the classic protocol when it subscribes to one topic.
fn subscription(topic: &Str) -> Bytes {
    let name = topic.as_bytes();
    let mut text = vec![0, 1, 0, 0, 0, 1, 0, u8::try_from(name.len()).unwrap()];
    text.extend_from_slice(name);
    text.extend_from_slice(&[0xff; 4]);
    text.extend_from_slice(&[0; 4]);
    text.into()
}

/// A group changes its protocol while it works.
fn groups_convert(talk: &mut Script) {
    let (topic, id) = known_topic(talk, 2);
    let group = talk.group("group");
    let asks = |member: &Str| JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol {
            name: "range".into(),
            metadata: subscription(&topic),
        }],
        ..join(&group, member, 9)
    };
    let joined = enter(talk, asks(&"".into()), 9);
    let classic = joined.member_id.clone();
    talk.mask(&classic, "classic");
    talk.note("a classic member joins", 9, &joined);
    // Version 1, two partitions of the topic, no user data.
    let mut share = vec![0, 1, 0, 0, 0, 1, 0, u8::try_from(topic.len()).unwrap()];
    share.extend_from_slice(topic.as_bytes());
    share.extend_from_slice(&[0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]);
    let mut request = sync(&group, 1, &classic, &[&classic]);
    request.assignments[0].assignment = share.into();
    assert_eq!(talk.call(4, request).error_code, 0);
    list(talk, "list: classic", 5, &group, (&[], &[]));

    let modern = Str::from("modern");
    let mut line = talk.connect();
    let entered = line.call(1, first(&group, &modern, &topic));
    assert_eq!(entered.error_code, 0, "{entered:?}");
    list(talk, "list: a consumer joined", 5, &group, (&[], &["consumer"]));
    while talk.call(4, heartbeat(&group, 1, &classic)).error_code == 0 {}
    talk.ask("the classic member is to join again", 4, heartbeat(&group, 1, &classic));
    let again = talk.call(9, asks(&classic));
    let mut generation = again.generation_id;
    talk.note(
        "it joins again",
        9,
        &(again.error_code, again.protocol_name, again.leader, again.members.len()),
    );
    let got = talk.call(4, sync(&group, generation, &classic, &[]));
    // Which one it is depends on the ids of the members.
    talk.note("it gets its share", 4, &(got.error_code, got.assignment.len()));
    let mut answer = entered;
    while answer.assignment.as_ref().is_none_or(|all| all.topic_partitions.is_empty()) {
        let beat = talk.call(4, heartbeat(&group, generation, &classic));
        if beat.error_code == 27 {
            generation = talk.call(9, asks(&classic)).generation_id;
            talk.call(4, sync(&group, generation, &classic, &[]));
        }
        answer = line.call(1, next(&group, &modern, answer.member_epoch));
        assert_eq!(answer.error_code, 0, "{answer:?}");
    }
    let request = ConsumerGroupDescribeRequest {
        group_ids: vec![group.clone()],
        ..ConsumerGroupDescribeRequest::default()
    };
    let mut found = talk.call(1, request).groups.remove(0);
    found.members.sort_by_key(|member| member.member_type);
    let members: Vec<_> = found
        .members
        .into_iter()
        .map(|member| {
            let topics = member.assignment.topic_partitions;
            let count: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
            (member.member_id, member.member_type, count)
        })
        .collect();
    talk.note("describe: both", 1, &(found.group_state, found.assignor_name, members));
    assert_eq!(id, answer.assignment.unwrap().topic_partitions[0].topic_id);
    ask(talk, "the consumer leaves", 1, next(&group, &modern, -1));
    list(talk, "list: the consumer left", 5, &group, (&[], &["classic"]));
    let told = |talk: &mut Script| talk.call(4, heartbeat(&group, generation, &classic));
    while told(talk).error_code == 0 {}
    talk.ask("the classic member joins anew", 4, heartbeat(&group, generation, &classic));
    let again = talk.call(9, asks(&classic));
    talk.note(
        "and leads",
        9,
        &(again.error_code, again.protocol_name, again.leader, again.members.len()),
    );
    talk.call(5, leave(&group, &classic, 5));
}

/// Settings of groups are those of Apache Kafka.
fn group_configs(talk: &mut Script) {
    let group = talk.group("group");
    let described = |talk: &mut Script| {
        let resource = DescribeConfigsResource {
            resource_type: 32,
            resource_name: group.clone(),
            configuration_keys: None,
        };
        let request = DescribeConfigsRequest {
            resources: vec![resource],
            include_synonyms: true,
            ..DescribeConfigsRequest::default()
        };
        let mut result = talk.call(4, request).results.remove(0);
        result.configs.retain(|config| {
            ["consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"]
                .contains(&config.name.as_str())
        });
        result.configs.sort_by(|one, other| one.name.cmp(&other.name));
        result
    };
    let result = described(talk);
    talk.note("describe", 4, &result);
    let alter = |group: &Str, name: &'static str, op: i8, value: Option<&'static str>| {
        let config = AlterableConfig {
            name: name.into(),
            config_operation: op,
            value: value.map(Into::into),
        };
        let resource = AlterConfigsResource {
            resource_type: 32,
            resource_name: group.clone(),
            configs: vec![config],
        };
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false }
    };
    let session = "consumer.session.timeout.ms";
    for (label, name, op, value) in [
        ("an unknown setting", "consumer.magic", 0, Some("1")),
        ("no number", session, 0, Some("x")),
        ("below the least", session, 0, Some("1")),
        ("above the most", session, 0, Some("90000")),
        ("appended", session, 2, Some("50000")),
        ("good", session, 0, Some("50000")),
        ("good, the heartbeat", "consumer.heartbeat.interval.ms", 0, Some("7000")),
    ] {
        talk.ask(label, 1, alter(&group, name, op, value));
    }
    talk.ask("no group id", 1, alter(&"".into(), session, 0, Some("50000")));
    // The setting that was made last is known.
    until(|| described(talk).configs.iter().any(|one| one.value.as_deref() == Some("7000")));
    let result = described(talk);
    talk.note("describe: set", 4, &result);
    let request = ListConfigResourcesRequest { resource_types: vec![32] };
    let response = talk.call(1, request);
    let found: Vec<_> =
        response.config_resources.iter().filter(|one| one.resource_name == group).collect();
    talk.note("listed", 1, &found);
    let (topic, _) = talk.topic("topic", 1);
    let mut line = talk.connect();
    let member = Str::from("member");
    let response = line.call(1, first(&group, &member, &topic));
    let epoch = until_assigned(talk, &mut line, "a member is told", (&group, &member, 1), response);
    talk.ask("taken away", 1, alter(&group, session, 1, None));
    ask(talk, "a member goes on", 1, next(&group, &member, epoch));
    line.call(1, next(&group, &member, -1));

    let features = talk.call(
        4,
        ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..ApiVersionsRequest::default()
        },
    );
    let of_groups = |name: &Str| name.as_str() == "group.version";
    let supported: Vec<_> =
        features.supported_features.iter().filter(|one| of_groups(&one.name)).collect();
    let finalized: Vec<_> =
        features.finalized_features.iter().filter(|one| of_groups(&one.name)).collect();
    talk.note("features", 4, &(supported, finalized));
    let mut apis: Vec<_> = features
        .api_keys
        .iter()
        .filter(|api| matches!(api.api_key, 8..=16 | 42 | 47 | 68 | 69))
        .map(|api| (api.api_key, api.min_version, api.max_version))
        .collect();
    apis.sort_unstable();
    talk.note("versions", 4, &apis);
}
