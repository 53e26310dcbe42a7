//! Topics created, extended and deleted, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use ottla::protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use ottla::types::Uuid;

use crate::transcript::Script;

against_both!(transcript: create_topics, delete_topics, create_partitions);

/// Long enough for every answer.
const TIMEOUT_MS: i32 = 20_000;
/// Not the default in Apache Kafka, which writes it for the whole cluster; shown once.
const INHERITED: &str = "min.insync.replicas";
/// A broker that does not exist.
const NOBODY: i32 = 99;

fn create(topics: Vec<CreatableTopic>) -> CreateTopicsRequest {
    CreateTopicsRequest { topics, timeout_ms: TIMEOUT_MS, validate_only: false }
}

fn topic(name: &Str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
    CreatableTopic {
        name: name.clone(),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    }
}

fn with_configs(name: &Str, configs: &[(&str, Option<&str>)]) -> CreatableTopic {
    let config = |&(name, value): &(&str, Option<&str>)| CreatableTopicConfig {
        name: name.into(),
        value: value.map(Str::from),
    };
    CreatableTopic { configs: configs.iter().map(config).collect(), ..topic(name, 1, 1) }
}

fn with_assignments(name: &Str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
    let assignment = |&(partition_index, brokers): &(i32, &[i32])| CreatableReplicaAssignment {
        partition_index,
        broker_ids: brokers.to_vec(),
    };
    CreatableTopic {
        assignments: assignments.iter().map(assignment).collect(),
        ..topic(name, -1, -1)
    }
}

/// Asks, and records the answer by name, without the settings that every topic has.
fn ask_create(talk: &mut Script, label: &str, version: i16, request: CreateTopicsRequest) {
    let mut answer = talk.call(version, request);
    answer.topics.sort_by(|one, other| one.name.cmp(&other.name));
    for topic in &mut answer.topics {
        let shown = topic.topic_id;
        if shown != Uuid::ZERO {
            talk.mask(&shown, "new id");
        }
        if let Some(configs) = &mut topic.configs {
            // 5: the default.
            configs.retain(|config| config.config_source != 5 && &*config.name != INHERITED);
        }
    }
    talk.note(label, version, &answer);
}

/// Topics are created at every version.
fn create_topics(talk: &mut Script) {
    talk.mask(&"l".repeat(250), "long");
    for version in 2..=7 {
        created(talk, version);
        refused(talk, version);
        assigned(talk, version);
        configured(talk, version);
    }
}

fn created(talk: &mut Script, version: i16) {
    let plain = talk.name_at("plain", version);
    let only_validated = |topics| CreateTopicsRequest { validate_only: true, ..create(topics) };
    ask_create(talk, "validated", version, only_validated(vec![topic(&plain, 2, 1)]));
    ask_create(talk, "validated again", version, only_validated(vec![topic(&plain, 2, 1)]));
    let mut answer = talk.call(version, create(vec![topic(&plain, 2, 1)]));
    talk.mask(&answer.topics[0].topic_id, "new id");
    if let Some(configs) = &mut answer.topics[0].configs {
        configs.sort_by(|one, other| one.name.cmp(&other.name));
    }
    for config in answer.topics[0].configs.take().unwrap_or_default() {
        talk.note(&format!("plain: {}", config.name), version, &config);
    }
    talk.note("plain", version, &answer);
    talk.wait_for(&plain, true);
    ask_create(talk, "again", version, create(vec![topic(&plain, 2, 1)]));
    ask_create(talk, "again, validated", version, only_validated(vec![topic(&plain, 2, 1)]));
    let defaults = talk.name_at("defaults", version);
    ask_create(talk, "defaults", version, create(vec![topic(&defaults, -1, -1)]));
    let (one, two) = (talk.name_at("first", version), talk.name_at("second", version));
    let topics = vec![topic(&one, 1, 1), topic(&plain, 1, 1), topic(&two, 2, 1)];
    ask_create(talk, "three, one of which exists", version, create(topics));
    ask_create(talk, "none", version, create(Vec::new()));
}

fn refused(talk: &mut Script, version: i16) {
    let name = talk.name_at("refused", version);
    let dotted = talk.name_at("dotted.name", version);
    ask_create(talk, "a dotted name", version, create(vec![topic(&dotted, 1, 1)]));
    talk.wait_for(&dotted, true);
    let collides: Str = dotted.replace('.', "_").into();
    talk.mask(&collides, "dotted_name");
    for (label, topic) in [
        ("no partitions", topic(&name, 0, 1)),
        ("fewer than no partitions", topic(&name, -2, 1)),
        ("no replicas", topic(&name, 1, 0)),
        ("fewer than no replicas", topic(&name, 1, -2)),
        ("more replicas than brokers", topic(&name, 1, 2)),
        ("too many partitions", topic(&name, 1_000_000, 1)),
        ("no name", topic(&Str::EMPTY, 1, 1)),
        ("a dot", topic(&".".into(), 1, 1)),
        ("two dots", topic(&"..".into(), 1, 1)),
        ("a space", topic(&"bad name".into(), 1, 1)),
        ("a name that is too long", topic(&"l".repeat(250).into(), 1, 1)),
        ("a name that collides", topic(&collides, 1, 1)),
        ("the metadata's own topic", topic(&"__cluster_metadata".into(), 1, 1)),
    ] {
        ask_create(talk, label, version, create(vec![topic.clone()]));
        let validated = CreateTopicsRequest { validate_only: true, ..create(vec![topic]) };
        ask_create(talk, &format!("{label}, validated"), version, validated);
    }
    let twice = vec![topic(&name, 1, 1), topic(&name, 2, 1)];
    ask_create(talk, "the same twice", version, create(twice));
    let timeless = CreateTopicsRequest { timeout_ms: -1, ..create(vec![topic(&dotted, 1, 1)]) };
    ask_create(talk, "again, with a negative timeout", version, timeless);
}

fn assigned(talk: &mut Script, version: i16) {
    let good = talk.name_at("assigned", version);
    let request = create(vec![with_assignments(&good, &[(1, &[1]), (0, &[1])])]);
    ask_create(talk, "assigned by hand", version, request);
    let name = talk.name_at("unassigned", version);
    let counted = CreatableTopic { num_partitions: 1, ..with_assignments(&name, &[(0, &[1])]) };
    let replicated =
        CreatableTopic { replication_factor: 1, ..with_assignments(&name, &[(0, &[1])]) };
    for (label, topic) in [
        ("assigned and counted", counted),
        ("assigned and replicated", replicated),
        ("assigned with a gap", with_assignments(&name, &[(0, &[1]), (2, &[1])])),
        ("assigned from 1", with_assignments(&name, &[(1, &[1])])),
        ("assigned below 0", with_assignments(&name, &[(-1, &[1])])),
        ("assigned to nobody", with_assignments(&name, &[(0, &[NOBODY])])),
        ("assigned below nobody", with_assignments(&name, &[(0, &[-1])])),
        ("assigned twice", with_assignments(&name, &[(0, &[1]), (0, &[1])])),
        ("assigned to one twice", with_assignments(&name, &[(0, &[1, 1])])),
        ("assigned to none", with_assignments(&name, &[(0, &[])])),
        ("assigned unevenly", with_assignments(&name, &[(0, &[1]), (1, &[])])),
    ] {
        ask_create(talk, label, version, create(vec![topic]));
    }
}

fn configured(talk: &mut Script, version: i16) {
    let good = talk.name_at("configured", version);
    let settings = [("retention.ms", Some("1000")), ("cleanup.policy", Some("compact,delete"))];
    ask_create(talk, "configured", version, create(vec![with_configs(&good, &settings)]));
    for (label, settings) in [
        ("no number", &[("retention.ms", Some("x"))][..]),
        ("too small", &[("segment.bytes", Some("1"))]),
        ("an unknown setting", &[("no.such.setting", Some("1"))]),
        ("a setting without a value", &[("retention.ms", None)]),
        ("a setting with an empty value", &[("retention.ms", Some(""))]),
        ("an empty list", &[("cleanup.policy", Some(""))]),
        ("an unknown policy", &[("cleanup.policy", Some("shrink"))]),
        ("a setting without a name", &[("", Some("1"))]),
        ("a setting twice", &[("retention.ms", Some("1")), ("retention.ms", Some("2"))]),
        ("spaces around a number", &[("retention.ms", Some(" 1 "))]),
        ("capitals", &[("cleanup.policy", Some("DELETE"))]),
        ("a log of its own form", &[("message.format.version", Some("3.0"))]),
        ("local above total retention", &[("local.retention.ms", Some("999999999999"))]),
    ] {
        let name = talk.name_at(label, version);
        ask_create(talk, label, version, create(vec![with_configs(&name, settings)]));
    }
}

/// A deletion by name at any version.
fn delete(names: &[&Str], version: i16) -> DeleteTopicsRequest {
    let state =
        |name: &&Str| DeleteTopicState { name: Some((*name).clone()), topic_id: Uuid::ZERO };
    let by_state = version >= 6;
    DeleteTopicsRequest {
        topics: names.iter().filter(|_| by_state).map(state).collect(),
        topic_names: names.iter().filter(|_| !by_state).map(|name| (*name).clone()).collect(),
        timeout_ms: TIMEOUT_MS,
    }
}

fn ask_delete(talk: &mut Script, label: &str, version: i16, request: DeleteTopicsRequest) {
    let mut answer = talk.call(version, request);
    answer.responses.sort_by(|one, other| {
        (&one.name, one.topic_id, one.error_code).cmp(&(
            &other.name,
            other.topic_id,
            other.error_code,
        ))
    });
    talk.note(label, version, &answer);
}

/// Topics are deleted at every version.
fn delete_topics(talk: &mut Script) {
    let missing = talk.name("missing");
    for version in 1..=6 {
        let (one, two) = (talk.topic_at("one", version, 2), talk.topic_at("two", version, 1));
        ask_delete(talk, "two topics", version, delete(&[&one.0, &two.0], version));
        talk.wait_for(&one.0, false);
        talk.wait_for(&two.0, false);
        ask_delete(talk, "again", version, delete(&[&one.0], version));
        ask_delete(talk, "an unknown topic", version, delete(&[&missing], version));
        ask_delete(talk, "no name", version, delete(&[&Str::EMPTY], version));
        ask_delete(talk, "an illegal name", version, delete(&[&"bad name".into()], version));
        ask_delete(talk, "nothing", version, delete(&[], version));
        let kept = talk.topic_at("kept", version, 1);
        ask_delete(talk, "the same twice", version, delete(&[&kept.0, &kept.0], version));
        let again = talk.topic_at("again", version, 1);
        let more = delete(&[&missing, &again.0], version);
        ask_delete(talk, "one that exists and one that does not", version, more);
    }
    deleted_by_id(talk);
}

fn deleted_by_id(talk: &mut Script) {
    let unknown = Uuid([7; 16]);
    talk.mask(&unknown, "unknown id");
    let topics: Vec<_> =
        ["a", "b", "c", "d"].iter().map(|what| talk.topic(&format!("by-id-{what}"), 1)).collect();
    let by = |name: Option<&Str>, topic_id| DeleteTopicState { name: name.cloned(), topic_id };
    for (label, states) in [
        ("by id", vec![by(None, topics[0].1)]),
        ("by an unknown id", vec![by(None, unknown)]),
        ("by name and id", vec![by(Some(&topics[1].0), topics[1].1)]),
        ("by neither", vec![by(None, Uuid::ZERO)]),
        ("by an id twice", vec![by(None, topics[2].1), by(None, topics[2].1)]),
        ("by name, and by id", vec![by(Some(&topics[3].0), Uuid::ZERO), by(None, topics[3].1)]),
    ] {
        let request = DeleteTopicsRequest { topics: states, ..delete(&[], 6) };
        ask_delete(talk, label, 6, request);
    }
}

fn grow(name: &Str, count: i32, assignments: Option<&[&[i32]]>) -> CreatePartitionsTopic {
    let assignment = |brokers: &&[i32]| CreatePartitionsAssignment { broker_ids: brokers.to_vec() };
    CreatePartitionsTopic {
        name: name.clone(),
        count,
        assignments: assignments.map(|list| list.iter().map(assignment).collect()),
    }
}

/// Partitions are added at every version.
fn create_partitions(talk: &mut Script) {
    let missing = talk.name("missing");
    for version in 0..=3 {
        let (name, _) = talk.topic_at("topic", version, 2);
        for (label, topics, validate_only) in [
            ("validated", vec![grow(&name, 3, None)], true),
            ("one more", vec![grow(&name, 3, None)], false),
            ("the same count", vec![grow(&name, 3, None)], false),
            ("the same count, validated", vec![grow(&name, 3, None)], true),
            ("fewer", vec![grow(&name, 1, None)], false),
            ("none", vec![grow(&name, 0, None)], false),
            ("fewer than none", vec![grow(&name, -1, None)], false),
            ("too many", vec![grow(&name, 1_000_000, None)], true),
            ("an unknown topic", vec![grow(&missing, 3, None)], false),
            ("an unknown topic, validated", vec![grow(&missing, 3, None)], true),
            ("no name", vec![grow(&Str::EMPTY, 3, None)], false),
            ("no topics", Vec::new(), false),
            ("assigned", vec![grow(&name, 4, Some(&[&[1]]))], false),
            ("assigned too often", vec![grow(&name, 5, Some(&[&[1], &[1]]))], false),
            ("assigned too seldom", vec![grow(&name, 6, Some(&[&[1]]))], false),
            ("assigned not at all", vec![grow(&name, 5, Some(&[]))], true),
            ("assigned to nobody", vec![grow(&name, 5, Some(&[&[NOBODY]]))], false),
            ("assigned to one twice", vec![grow(&name, 5, Some(&[&[1, 1]]))], false),
            ("assigned to none", vec![grow(&name, 5, Some(&[&[]]))], false),
            ("twice", vec![grow(&name, 5, None), grow(&name, 6, None)], false),
            ("one that is good", vec![grow(&missing, 5, None), grow(&name, 5, None)], false),
        ] {
            let request = CreatePartitionsRequest { topics, timeout_ms: TIMEOUT_MS, validate_only };
            let mut answer = talk.call(version, request);
            answer.results.sort_by(|one, other| one.name.cmp(&other.name));
            talk.note(label, version, &answer);
        }
    }
}
