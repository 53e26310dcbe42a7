//! `ApiVersions`, Metadata and `DescribeTopicPartitions`, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::api::ApiKey;
use ottla::protocol::messages::api_versions::ApiVersionsRequest;
use ottla::protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use ottla::protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use ottla::types::Uuid;

use crate::transcript::Script;

against_both!(
    transcript:
    api_versions,
    api_versions_meant,
    unknown_versions,
    metadata,
    describe_topic_partitions,
);

/// The first version that asks by id.
const BY_ID: i16 = 10;

/// The versions of the APIs are those of Apache Kafka.
fn api_versions(talk: &mut Script) {
    for version in 0..=5 {
        let ours = |name: &str| ApiVersionsRequest {
            client_software_name: name.into(),
            client_software_version: "1.0".into(),
            ..ApiVersionsRequest::default()
        };
        let mut all = talk.call(version, ours("test"));
        let mut others = all.api_keys.clone();
        all.api_keys.sort_by_key(|api| api.api_key);
        all.api_keys.retain(|api| served(api.api_key));
        others.retain(|api| !served(api.api_key));
        all.supported_features.sort_by(|one, other| one.name.cmp(&other.name));
        all.finalized_features.sort_by(|one, other| one.name.cmp(&other.name));
        // It counts writes to the metadata.
        all.finalized_features_epoch = all.finalized_features_epoch.min(0);
        let features = (
            std::mem::take(&mut all.supported_features),
            std::mem::take(&mut all.finalized_features),
        );
        talk.note("the APIs that are served", version, &all);
        let mut others: Vec<i16> = others.iter().map(|api| api.api_key).collect();
        others.sort_unstable();
        talk.note("other APIs", version, &others);
        talk.note("features", version, &features);
        if version >= 3 {
            for name in ["", "a b", "-a", "a-", "a.b-c"] {
                let mut answer = talk.call(version, ours(name));
                answer.api_keys.clear();
                answer.supported_features.clear();
                answer.finalized_features.clear();
                answer.finalized_features_epoch = 0;
                talk.note(&format!("a client named {name:?}"), version, &answer);
            }
        }
    }
}

/// A client says which broker it means.
fn api_versions_meant(talk: &mut Script) {
    let metadata = talk.call(12, by_name(&[]));
    let (cluster, node) = (metadata.cluster_id.unwrap(), metadata.controller_id);
    for (label, cluster_id, node_id) in [
        ("nothing", None, -1),
        ("the broker", Some(cluster.clone()), node),
        ("another cluster", Some("other".into()), node),
        ("another broker", Some(cluster.clone()), node + 1),
        ("no broker of the cluster", Some(cluster.clone()), -2),
        ("a cluster without a name", Some(Str::EMPTY), node),
        ("only the cluster", Some(cluster), -1),
        ("only the broker", None, node),
    ] {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1.0".into(),
            cluster_id,
            node_id,
        };
        let answer = talk.call(5, request);
        talk.note(label, 5, &(answer.error_code, answer.api_keys.is_empty()));
    }
}

/// Whether clients are answered.
fn served(api: i16) -> bool {
    ApiKey::from_i16(api).is_some_and(|api| api.is_served() && !api.is_between_nodes())
}

/// What is not known ends the connection.
fn unknown_versions(talk: &mut Script) {
    // Whatever the version, the answer is one of version 0.
    for version in [6, 99, -1] {
        let mut line = talk.connect();
        line.send_raw(ApiKey::ApiVersions.to_i16(), version, &[0, 1, 1, 0]);
        talk.note(&format!("ApiVersions v{version}"), 0, &line.receive_raw());
    }
    let asked =
        |api: &&ApiKey| api.is_served() && !api.is_between_nodes() && **api != ApiKey::ApiVersions;
    for api in ApiKey::ALL.iter().filter(asked) {
        let versions = api.versions();
        for version in [versions.max + 1, versions.min - 1] {
            let mut line = talk.connect();
            line.send_raw(api.to_i16(), version, &[0; 16]);
            talk.note(&format!("{api:?} v{version}"), 0, &line.receive_raw());
        }
    }
    let mut line = talk.connect();
    line.send_raw(999, 0, &[0; 16]);
    talk.note("an API that does not exist", 0, &line.receive_raw());
}

fn by_name(names: &[&Str]) -> MetadataRequest {
    let topic = |name: &&Str| MetadataRequestTopic {
        name: Some((*name).clone()),
        ..MetadataRequestTopic::default()
    };
    MetadataRequest {
        topics: Some(names.iter().map(topic).collect()),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    }
}

fn by_id(ids: &[Uuid]) -> MetadataRequest {
    let topic = |id: &Uuid| MetadataRequestTopic { topic_id: *id, name: None };
    MetadataRequest { topics: Some(ids.iter().map(topic).collect()), ..by_name(&[]) }
}

/// What a broker says about topics, in its own order.
fn sorted(mut answer: MetadataResponse) -> MetadataResponse {
    answer
        .topics
        .sort_by(|one, other| (&one.name, one.error_code).cmp(&(&other.name, other.error_code)));
    for topic in &mut answer.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    answer
}

fn ask(talk: &mut Script, label: &str, version: i16, request: MetadataRequest) {
    let answer = sorted(talk.call(version, request));
    talk.note(label, version, &answer);
}

/// Metadata at every version.
fn metadata(talk: &mut Script) {
    let cluster = talk.call(12, by_name(&[])).cluster_id.unwrap();
    talk.mask(&cluster, "cluster");
    talk.mask(&"l".repeat(250), "long");
    let (one, two) = (talk.topic("one", 2), talk.topic("two", 1));
    let missing = talk.name("missing");
    for version in 0..=13 {
        ask_metadata(talk, version, &one, &two, &missing);
        if version >= BY_ID {
            metadata_by_id(talk, version, &one, &two);
        }
    }
}

fn ask_metadata(
    talk: &mut Script,
    version: i16,
    one: &(Str, Uuid),
    two: &(Str, Uuid),
    missing: &Str,
) {
    // Before version 4, asking always creates the topic.
    let asked = |names: &[&Str]| MetadataRequest {
        allow_auto_topic_creation: version < 4,
        ..by_name(names)
    };
    ask(talk, "one topic", version, asked(&[&one.0]));
    ask(talk, "two topics", version, asked(&[&two.0, &one.0]));
    ask(talk, "the same twice", version, asked(&[&one.0, &one.0]));
    for (label, name) in [
        ("no name", ""),
        ("a name with a space", "bad name"),
        ("a dot", "."),
        ("a name that is too long", &"l".repeat(250)),
    ] {
        ask(talk, label, version, asked(&[&name.into()]));
    }
    let mine = one.0.split_once("-one").unwrap().0.to_owned();
    let everything = if version == 0 { Some(Vec::new()) } else { None };
    let mut all = talk.call(version, MetadataRequest { topics: everything, ..asked(&[]) });
    let own = ["-one", "-two"].map(|what| format!("{mine}{what}"));
    all.topics.retain(|topic| own.iter().any(|own| topic.name.as_deref() == Some(own.as_str())));
    talk.note("all topics", version, &sorted(all));
    if version >= 1 {
        ask(talk, "no topics", version, asked(&[]));
    }
    if version >= 4 {
        ask(talk, "an unknown topic", version, asked(&[missing, &one.0]));
    }
    let absent = talk.name_at("absent", version);
    let creating = MetadataRequest { allow_auto_topic_creation: true, ..by_name(&[&absent]) };
    let answer = talk.call(version, creating);
    let made = &answer.topics[0];
    let summary = (&made.name, made.error_code, made.partitions.len());
    talk.note("a topic that is made", version, &summary);
    talk.wait_for(&absent, true);
    let mut made = talk.call(version, asked(&[&absent]));
    talk.mask(&made.topics[0].topic_id, "id of absent");
    made.brokers.clear();
    talk.note("a topic that was made", version, &made);
    let illegal = MetadataRequest { allow_auto_topic_creation: true, ..by_name(&[&"a/b".into()]) };
    ask(talk, "an illegal name that is not made", version, illegal);
    let own = by_name(&[&"__cluster_metadata".into()]);
    let own = MetadataRequest { allow_auto_topic_creation: true, ..own };
    ask(talk, "the metadata's own topic", version, own);
    if version >= 8 {
        let operations =
            MetadataRequest { include_topic_authorized_operations: true, ..asked(&[&one.0]) };
        ask(talk, "with operations on topics", version, operations);
    }
    if (8..=10).contains(&version) {
        let operations =
            MetadataRequest { include_cluster_authorized_operations: true, ..asked(&[&one.0]) };
        ask(talk, "with operations on the cluster", version, operations);
    }
}

fn metadata_by_id(talk: &mut Script, version: i16, one: &(Str, Uuid), two: &(Str, Uuid)) {
    let unknown = Uuid([7; 16]);
    talk.mask(&unknown, "unknown id");
    ask(talk, "by id", version, by_id(&[one.1]));
    ask(talk, "by ids", version, by_id(&[two.1, one.1]));
    ask(talk, "by an unknown id", version, by_id(&[unknown, one.1]));
    ask(talk, "by the same id twice", version, by_id(&[one.1, one.1]));
    let both =
        |name: Option<&Str>, id: Uuid| MetadataRequestTopic { topic_id: id, name: name.cloned() };
    for (label, topics) in [
        ("by name and id", vec![both(Some(&one.0), one.1)]),
        ("by name and another's id", vec![both(Some(&one.0), two.1)]),
        ("by neither", vec![both(None, Uuid::ZERO)]),
        ("by a name and an id", vec![both(Some(&one.0), Uuid::ZERO), both(None, two.1)]),
    ] {
        let request = MetadataRequest { topics: Some(topics), ..by_name(&[]) };
        ask(talk, label, version, request);
    }
}

/// Topics are described in pages.
fn describe_topic_partitions(talk: &mut Script) {
    let (one, two) = (talk.topic("one", 3).0, talk.topic("two", 2).0);
    let missing = talk.name("zmissing");
    let all = [&two, &one, &missing];
    let cursor =
        |topic: &Str, partition_index| Some(Cursor { topic_name: topic.clone(), partition_index });
    let same = [&one, &one];
    for (label, names, limit, cursor) in [
        ("three topics", &all[..], 2000, None),
        ("the same twice", &same[..], 2000, None),
        ("a page", &all[..], 2, None),
        ("a page that ends with a topic", &all[..], 3, None),
        ("a page across topics", &all[..], 4, None),
        ("a page of everything", &all[..], 5, None),
        ("the second page", &all[..], 2, cursor(&one, 2)),
        ("from a topic", &all[..], 2000, cursor(&two, 0)),
        ("from behind a topic", &all[..], 2000, cursor(&one, 3)),
        ("from far behind a topic", &all[..], 2000, cursor(&one, 30)),
        ("from an unknown topic", &all[..], 2000, cursor(&missing, 0)),
        ("from a topic that is not asked for", &all[..2], 2000, cursor(&missing, 0)),
        ("from a negative partition", &all[..], 2000, cursor(&one, -1)),
        ("a limit of 0", &all[..], 0, None),
        ("a negative limit", &all[..], -1, None),
        ("everything from a topic", &[][..], 5, cursor(&one, 0)),
    ] {
        let topics = names.iter().map(|&name| TopicRequest { name: name.clone() }).collect();
        let request =
            DescribeTopicPartitionsRequest { topics, response_partition_limit: limit, cursor };
        let mut answer = talk.call(0, request);
        if names.is_empty() {
            // Other topics of a shared broker come next.
            answer.next_cursor = None;
        }
        talk.note(label, 0, &answer);
    }
    for name in ["", "bad name", "."] {
        let topics = vec![TopicRequest { name: name.into() }];
        let request =
            DescribeTopicPartitionsRequest { topics, ..DescribeTopicPartitionsRequest::default() };
        talk.ask(&format!("the name {name:?}"), 0, request);
    }
}
