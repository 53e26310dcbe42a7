//! Transcripts of conversations with a broker: Apache Kafka's answers are kept in `recorded/`, and
//! our broker must answer the same, byte for byte, except for names, ids, the wording of messages,
//! and what the table of [`crate::difference_table`] lists. A live Apache Kafka must answer as
//! recorded, without exception.
//!
//! `OTTLA_UPDATE=1 OTTLA_KAFKA_LIBS=… cargo test --test conformance apache_kafka -- --ignored`
//! rewrites the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use ottla::broker::{Broker, BrokerOptions};
use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::api::{ApiKey, Call};
use ottla::protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use ottla::protocol::messages::describe_groups::DescribeGroupsRequest;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic, ListOffsetsTopicResponse,
};
use ottla::protocol::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use ottla::types::Uuid;
use regex::Regex;

use crate::compare::{API_LABEL, check, check_with_differences};
use crate::node;
use crate::peers::unique;
use crate::wire_client::{PATIENCE, WireClient};

/// A connection of a script: one request at a time, or several before it reads.
pub(crate) struct Connection {
    wire: WireClient,
    /// The number of the request that was sent last.
    sent: i32,
    answered: Answered,
}

/// The last answer on any connection of a script.
type Answered = Arc<Mutex<Option<(ApiKey, i16)>>>;

impl Connection {
    fn open(address: &str, answered: Answered) -> Self {
        Self { wire: WireClient::connect(address), sent: 0, answered }
    }

    /// Sends a request that no schema describes: `body` behind a header without a client id.
    pub(crate) fn send_raw(&mut self, api_key: i16, version: i16, body: &[u8]) {
        self.sent = self.wire.send_raw(api_key, version, body);
    }

    /// The next answer after its correlation id; `None` when the peer hangs up instead.
    pub(crate) fn receive_raw(&mut self) -> Option<Bytes> {
        let frame = self.wire.next_frame()?;
        assert_eq!(frame[..4], self.sent.to_be_bytes());
        Some(frame.slice(4..))
    }

    /// Sends a request; [`Self::receive`] takes its answer.
    pub(crate) fn send<C: Call>(&mut self, version: i16, request: C) {
        self.sent = self.wire.send(version, request);
    }

    /// Takes the answer to the request that was sent last.
    pub(crate) fn receive<C: Call>(&mut self, version: i16) -> C::Response {
        let response = self.wire.receive::<C>(version, self.sent);
        *self.answered.lock().unwrap() = Some((C::API, version));
        response
    }

    pub(crate) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        let response = self.wire.call(version, request);
        *self.answered.lock().unwrap() = Some((C::API, version));
        response
    }
}

/// Asks until the answer is the right one: Apache Kafka answers before its broker has heard what its
/// controller did.
#[track_caller]
pub(crate) fn until(mut is_right: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is_right() {
        assert!(begin.elapsed() < PATIENCE, "the broker does not come to it");
    }
}

/// A conversation.
pub(crate) struct Script {
    address: String,
    connection: Connection,
    /// What makes the names of this run unique.
    run: String,
    /// Text that is shown under another name.
    masks: Vec<(String, String)>,
    /// The question, and which versions got which answer.
    notes: Vec<(String, Vec<(i16, String)>)>,
    places: BTreeMap<String, usize>,
    answered: Answered,
    /// The APIs and versions whose answers were recorded.
    noted: BTreeSet<(ApiKey, i16)>,
    /// Epochs are shown by their distance from this one.
    epoch: i32,
}

impl Script {
    fn new(address: &str) -> Self {
        let answered = Answered::default();
        let port = address.rsplit(':').next().unwrap();
        Self {
            address: address.to_owned(),
            connection: Connection::open(address, Arc::clone(&answered)),
            // Always of the same length, because some lengths are shown.
            run: format!("{:_<40}", unique("run")),
            masks: vec![(format!("port: {port}"), "port: <port>".to_owned())],
            notes: Vec::new(),
            places: BTreeMap::new(),
            answered,
            noted: BTreeSet::new(),
            epoch: 0,
        }
    }

    /// One more connection.
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(&self.address, Arc::clone(&self.answered))
    }

    /// A name that only this run uses; shown without the part that makes it unique.
    pub(crate) fn name(&self, what: &str) -> Str {
        format!("{}-{what}", self.run).into()
    }

    /// A group of this run whose coordinator answers.
    pub(crate) fn group(&mut self, what: &str) -> Str {
        let group = self.name(what);
        let loads = |code: i16| {
            matches!(
                ErrorCode::from_i16(code),
                ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::CoordinatorNotAvailable
                    | ErrorCode::NotCoordinator
            )
        };
        let find = FindCoordinatorRequest {
            coordinator_keys: vec![group.clone()],
            ..FindCoordinatorRequest::default()
        };
        until(|| !loads(self.connection.call(4, find.clone()).coordinators[0].error_code));
        let describe = DescribeGroupsRequest { groups: vec![group.clone()], ..Default::default() };
        until(|| !loads(self.connection.call(5, describe.clone()).groups[0].error_code));
        group
    }

    /// A topic of this run, and its id, which is shown as the name in angle brackets.
    pub(crate) fn topic(&mut self, what: &str, partitions: i32) -> (Str, Uuid) {
        // The records of conversations have old timestamps.
        self.topic_with(what, partitions, &[("retention.ms", "-1")])
    }

    /// The same, with settings.
    pub(crate) fn topic_with(
        &mut self,
        what: &str,
        partitions: i32,
        settings: &[(&str, &str)],
    ) -> (Str, Uuid) {
        let name = self.name(what);
        let setting = |&(name, value): &(&str, &str)| CreatableTopicConfig {
            name: name.into(),
            value: Some(value.into()),
        };
        let topic = CreatableTopic {
            name: name.clone(),
            num_partitions: partitions,
            replication_factor: 1,
            configs: settings.iter().map(setting).collect(),
            ..CreatableTopic::default()
        };
        let request = CreateTopicsRequest {
            topics: vec![topic],
            timeout_ms: 20_000,
            ..CreateTopicsRequest::default()
        };
        let created = self.connection.call(7, request).topics.remove(0);
        assert_eq!(created.error_code, 0, "{created:?}");
        self.mask(&created.topic_id, what);
        self.wait_for(&name, true);
        let of_partition = |partition_index| ListOffsetsPartition {
            partition_index,
            timestamp: -1,
            ..ListOffsetsPartition::default()
        };
        let ends = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: name.clone(),
                partitions: (0..partitions).map(of_partition).collect(),
            }],
            ..ListOffsetsRequest::default()
        };
        let led = |topic: &ListOffsetsTopicResponse| {
            topic.partitions.iter().all(|partition| partition.error_code == 0)
        };
        until(|| self.connection.call(2, ends.clone()).topics.iter().all(led));
        (name, created.topic_id)
    }

    /// Asks until the broker knows a topic, or no longer knows it: Apache Kafka answers before
    /// that.
    pub(crate) fn wait_for(&mut self, name: &Str, known: bool) {
        let topic = MetadataRequestTopic { name: Some(name.clone()), ..Default::default() };
        let request = MetadataRequest {
            topics: Some(vec![topic]),
            allow_auto_topic_creation: false,
            ..MetadataRequest::default()
        };
        until(|| {
            let answer = self.connection.call(12, request.clone());
            (answer.topics[0].error_code == 0) == known
        });
    }

    /// A name of this run for each version, shown by its purpose.
    pub(crate) fn name_at(&mut self, what: &str, version: i16) -> Str {
        let name = self.name(&format!("{}-v{version:02}", what.replace(' ', "-")));
        self.mask(&name, what);
        name
    }

    /// A topic for each version, shown by its purpose.
    pub(crate) fn topic_at(&mut self, what: &str, version: i16, partitions: i32) -> (Str, Uuid) {
        let plain = what.replace([' ', ','], "-");
        let (name, id) = self.topic(&format!("{plain}-v{version:02}"), partitions);
        self.mask(&name, what);
        self.mask(&id, &format!("id of {what}"));
        (name, id)
    }

    /// Shows `what` as `name` in angle brackets from now on.
    pub(crate) fn mask(&mut self, what: &impl ToString, name: &str) {
        let what = what.to_string();
        if what != Uuid::ZERO.to_string() {
            self.masks.push((what, format!("<{name}>")));
        }
    }

    /// Shows epochs by their distance from this one: brokers start counting them at different
    /// numbers, and count further when a topic becomes known late.
    pub(crate) fn epochs_from(&mut self, epoch: i32) {
        self.epoch = epoch;
    }

    pub(crate) fn call<C: Call>(&mut self, version: i16, request: C) -> C::Response {
        self.connection.call(version, request)
    }

    /// Asks, and records the answer.
    pub(crate) fn ask<C: Call>(&mut self, label: &str, version: i16, request: C) -> C::Response
    where
        C::Response: Debug,
    {
        let response = self.connection.call(version, request);
        self.note(label, version, &response);
        response
    }

    /// Records an answer. Identical answers under the same label at neighbouring versions are shown
    /// once.
    pub(crate) fn note(&mut self, label: &str, version: i16, answer: &impl Debug) {
        self.note_text(label, version, &format!("{answer:?}"));
    }

    /// The same, for an answer that is already text.
    pub(crate) fn note_text(&mut self, label: &str, version: i16, text: &str) {
        let text = self.shown(text);
        let answered = *self.answered.lock().unwrap();
        self.noted.extend(answered.filter(|answered| answered.1 == version));
        let next = self.notes.len();
        let place = *self.places.entry(label.to_owned()).or_insert(next);
        if place == next {
            self.notes.push((label.to_owned(), Vec::new()));
        }
        self.notes[place].1.push((version, text));
    }

    fn shown(&self, text: &str) -> String {
        let mut shown = text.to_owned();
        for (what, name) in self.masks.iter().rev() {
            shown = shown.replace(what, name);
        }
        shown = shown.replace(&self.run, "~").replace("throttle_time_ms: 0, ", "");
        let message = Regex::new(
            r#"(error_code: -?[1-9][0-9]*), error_message: (None|Some\("([^"\\]|\\.)*"\))"#,
        );
        let uuid = Regex::new("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").unwrap();
        let epoch = Regex::new("(member|group|assignment)_epoch: ([1-9][0-9]*)").unwrap();
        let shown = message.unwrap().replace_all(&shown, "$1");
        let shown = uuid.replace_all(&shown, "<uuid>");
        let distance = |found: &regex::Captures<'_>| {
            let distance = found[2].parse::<i32>().unwrap() - self.epoch;
            format!("{}_epoch: {distance:+}", &found[1])
        };
        epoch.replace_all(&shown, distance).into_owned()
    }

    /// Everything that was recorded.
    fn finish(mut self) -> String {
        let noted = self.noted.iter().map(|(api, version)| (*version, format!("{api:?}")));
        self.notes.push((API_LABEL.to_owned(), noted.collect()));
        let mut text = String::new();
        for (label, answers) in self.notes {
            writeln!(text, "# {label}").unwrap();
            let follows = |one: &(i16, String), next: &(i16, String)| {
                one.1 == next.1 && (one.0 == next.0 || one.0 + 1 == next.0)
            };
            for same in answers.chunk_by(follows) {
                let (first, last) = (same[0].0, same[same.len() - 1].0);
                let versions =
                    if first == last { format!("v{first}") } else { format!("v{first}-v{last}") };
                writeln!(text, "{versions}: {}", same[0].1).unwrap();
            }
        }
        text
    }
}

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/conformance/recorded")
        .join(format!("{name}.txt"))
}

/// Has a conversation, and writes down the answers.
fn answers(address: &str, script: impl Fn(&mut Script)) -> String {
    let mut talk = Script::new(address);
    script(&mut talk);
    talk.finish()
}

/// Has a conversation with our broker.
pub(crate) fn against_ottla(name: &str, script: impl Fn(&mut Script)) {
    let recorded = std::fs::read_to_string(file(name)).unwrap();
    let options = BrokerOptions::in_memory().with("node.id", "1");
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let broker = runtime.block_on(Broker::start(options)).unwrap();
    let answers = answers(&broker.addresses()[0].to_string(), script);
    runtime.block_on(broker.shutdown()).unwrap();
    check_with_differences(name, &recorded, &answers);
}

/// Has a conversation with a live Apache Kafka; `OTTLA_UPDATE=1` records it.
pub(crate) fn against_kafka(name: &str, script: impl Fn(&mut Script)) {
    let answers = answers(node::address(), script);
    if std::env::var_os("OTTLA_UPDATE").is_some() {
        std::fs::write(file(name), answers).unwrap();
    } else {
        check("Apache Kafka", &std::fs::read_to_string(file(name)).unwrap(), &answers);
    }
}
