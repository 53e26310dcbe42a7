//! Produce and `InitProducerId`, word for word at every version.

use bytes::Bytes;
use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use ottla::record::{BatchBuilder, BatchOptions, Compression};
use ottla::types::{TimestampMs, Uuid};

use crate::batches::{TIME, batch, batch_with, old_message, patched, sequenced};
use crate::transcript::Script;

against_both!(transcript: produce, produce_settings, produce_idempotent, init_producer_id);

/// The first version with topic ids instead of names.
const BY_ID: i16 = 13;
const TIMEOUT_MS: i32 = 20_000;

type Topic = (Str, Uuid);

/// A request for several partitions of a topic.
pub(crate) fn produce_to(
    topic: &Topic,
    parts: &[(i32, Option<Bytes>)],
    version: i16,
) -> ProduceRequest {
    let by_id = version >= BY_ID;
    let part = |(index, records): &(i32, Option<Bytes>)| PartitionProduceData {
        index: *index,
        records: records.clone().map(Into::into),
    };
    ProduceRequest {
        transactional_id: None,
        acks: 1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![TopicProduceData {
            name: if by_id { Str::EMPTY } else { topic.0.clone() },
            topic_id: if by_id { topic.1 } else { Uuid::ZERO },
            partition_data: parts.iter().map(part).collect(),
        }],
    }
}

/// Records an answer without messages and without the append time. We have a message for every
/// error, Apache Kafka has one only for refused records.
fn ask(talk: &mut Script, label: &str, version: i16, request: ProduceRequest) {
    let mut answer = talk.call(version, request);
    for topic in &mut answer.responses {
        topic.partition_responses.sort_by_key(|partition| partition.index);
        for partition in &mut topic.partition_responses {
            partition.log_append_time_ms = partition.log_append_time_ms.min(0);
            partition.error_message = None;
            for error in &mut partition.record_errors {
                error.batch_index_error_message =
                    error.batch_index_error_message.as_ref().map(|_| "…".into());
            }
        }
    }
    answer.responses.sort_by(|one, other| one.name.cmp(&other.name));
    talk.note(label, version, &answer);
}

fn end_offset(talk: &mut Script, topic: &Topic) -> i64 {
    let latest = ListOffsetsPartition { timestamp: -1, ..ListOffsetsPartition::default() };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: topic.0.clone(), partitions: vec![latest] }],
        ..ListOffsetsRequest::default()
    };
    talk.call(2, request).topics[0].partitions[0].offset
}

/// Batches are produced at every version.
fn produce(talk: &mut Script) {
    let missing = (talk.name("missing"), Uuid([7; 16]));
    talk.mask(&missing.1, "unknown id");
    for version in 3..=13 {
        let topic = talk.topic_at("topic", version, 2);
        accepted(talk, version, &topic);
        misaddressed(talk, version, &topic, &missing);
        damaged(talk, version, &topic);
    }
}

fn accepted(talk: &mut Script, version: i16, topic: &Topic) {
    let with_acks =
        |acks| ProduceRequest { acks, ..produce_to(topic, &[(0, Some(batch(2)))], version) };
    ask(talk, "acks 1", version, with_acks(1));
    ask(talk, "acks all", version, with_acks(-1));
    // It is not answered, but the next request is.
    let mut line = talk.connect();
    line.send(version, with_acks(0));
    line.send_raw(18, 0, &[]);
    line.receive_raw().unwrap();
    let end = end_offset(talk, topic);
    talk.note("the end after acks 0", version, &end);
    for acks in [2, -2] {
        ask(talk, &format!("acks {acks}"), version, with_acks(acks));
    }
    let both = [(1, Some(batch(1))), (0, Some(batch(1)))];
    ask(talk, "two partitions", version, produce_to(topic, &both, version));
    for compression in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd]
    {
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let records = batch_with(options, TIME, 3);
        let label = format!("{compression:?}");
        ask(talk, &label, version, produce_to(topic, &[(0, Some(records))], version));
    }
}

fn misaddressed(talk: &mut Script, version: i16, topic: &Topic, missing: &Topic) {
    let good = Some(batch(1));
    for (label, topic, parts) in [
        ("an unknown topic", missing, &[(0, good.clone())][..]),
        ("an unknown partition", topic, &[(9, good.clone())]),
        ("a negative partition", topic, &[(-1, good.clone())]),
        ("one that exists and one that does not", topic, &[(0, good.clone()), (9, good.clone())]),
        ("an illegal name", &("bad name".into(), Uuid::ZERO), &[(0, good.clone())]),
        ("no name", &(Str::EMPTY, Uuid::ZERO), &[(0, good.clone())]),
    ] {
        ask(talk, label, version, produce_to(topic, parts, version));
    }
    let answer = talk.call(version, produce_to(topic, &[], version));
    talk.note("no partitions", version, &answer.responses.len());
    let nothing = ProduceRequest { topic_data: Vec::new(), ..produce_to(topic, &[], version) };
    ask(talk, "nothing", version, nothing);
    talk.group("coordinator");
    if version < BY_ID {
        let offsets = ("__consumer_offsets".into(), Uuid::ZERO);
        ask(talk, "an internal topic", version, produce_to(&offsets, &[(0, good)], version));
    }
}

fn damaged(talk: &mut Script, version: i16, topic: &Topic) {
    let good = batch(2);
    let no_key = {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.append(TimestampMs(TIME), None, None, &[]).unwrap();
        builder.finish().unwrap()
    };
    let control = BatchOptions { control: true, ..BatchOptions::default() };
    for (label, records) in [
        ("no bytes", Some(Bytes::new())),
        ("a wrong checksum", Some(patched(&good, 17, &[1, 2, 3, 4], false))),
        ("a batch that is cut off", Some(good.slice(..good.len() - 1))),
        ("a header that is cut off", Some(good.slice(..40))),
        ("two batches", Some([&good[..], &good[..]].concat().into())),
        ("the first format", Some(old_message(0))),
        ("the second format", Some(old_message(1))),
        ("a format to come", Some(patched(&good, 16, &[3], true))),
        ("a length of 0", Some(patched(&good, 8, &[0; 4], false))),
        ("a codec to come", Some(patched(&good, 21, &[0, 7], true))),
        ("more records counted", Some(patched(&good, 57, &[0, 0, 0, 3], true))),
        ("fewer records counted", Some(patched(&good, 57, &[0, 0, 0, 1], true))),
        ("no records counted", Some(patched(&good, 57, &[0; 4], true))),
        ("another last offset", Some(patched(&good, 23, &[0, 0, 0, 9], true))),
        ("another base offset", Some(patched(&good, 0, &[0, 0, 0, 0, 0, 0, 0, 9], true))),
        ("a control batch", Some(batch_with(control, TIME, 1))),
        ("a record without key and value", Some(no_key)),
    ] {
        ask(talk, label, version, produce_to(topic, &[(1, records)], version));
    }
}

/// Topics refuse what their settings do not allow.
fn produce_settings(talk: &mut Script) {
    let mut topic = |what: &str, settings: &[(&str, &str)]| {
        // The records have old timestamps.
        let settings = [settings, &[("retention.ms", "-1")]].concat();
        talk.topic_with(what, 1, &settings)
    };
    let compacted = topic("compacted", &[("cleanup.policy", "compact")]);
    let small = topic("small", &[("max.message.bytes", "100")]);
    let stamped = topic("stamped", &[("message.timestamp.type", "LogAppendTime")]);
    let settings =
        [("message.timestamp.after.max.ms", "1000"), ("message.timestamp.before.max.ms", "1")];
    let timely = topic("timely", &settings);
    let guarded = topic("guarded", &[("min.insync.replicas", "2")]);
    let zipped = topic("zipped", &[("compression.type", "gzip")]);
    let mixed = {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for key in [Some(&b"key"[..]), None, Some(b"key"), None] {
            builder.append(TimestampMs(TIME), key, Some(b"value"), &[]).unwrap();
        }
        builder.finish().unwrap()
    };
    for version in 3..=13 {
        let future = batch_with(BatchOptions::default(), 4_000_000_000_000, 2);
        for (label, topic, records) in [
            ("keys that are missing", &compacted, &mixed),
            ("keys in a compacted topic", &compacted, &batch(1)),
            ("too large", &small, &batch(9)),
            ("of the broker's time", &stamped, &batch(1)),
            ("times that are too early", &timely, &batch(2)),
            ("times that are too late", &timely, &future),
            ("compressed by the broker", &zipped, &batch(3)),
            ("one copy is enough for acks 1", &guarded, &batch(1)),
        ] {
            ask(talk, label, version, produce_to(topic, &[(0, Some(records.clone()))], version));
        }
        let request = produce_to(&guarded, &[(0, Some(batch(1)))], version);
        ask(talk, "too few copies", version, ProduceRequest { acks: -1, ..request });
    }
}

/// Sequences of idempotent producers are checked.
fn produce_idempotent(talk: &mut Script) {
    for version in 3..=13 {
        let topic = talk.topic_at("topic", version, 1);
        let null =
            InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
        let id = talk.call(4, null).producer_id;
        for (label, epoch, sequence, count) in [
            ("the first", 0, 0, 2),
            ("the second", 0, 2, 2),
            ("the second again", 0, 2, 2),
            ("the first again", 0, 0, 2),
            ("a gap", 0, 9, 1),
            ("a step back", 0, 3, 1),
            ("an overlap", 0, 2, 3),
            ("a new epoch inside", 1, 4, 1),
            ("a new epoch", 1, 0, 1),
            ("the old epoch", 0, 4, 1),
            ("a sequence below 0", 1, -1, 1),
            ("an epoch below 0", -1, 0, 1),
            ("the third", 1, 1, 1),
            ("the fourth", 1, 2, 1),
            ("the fifth", 1, 3, 1),
            ("the sixth", 1, 4, 1),
            ("the seventh", 1, 5, 1),
            ("the third again", 1, 1, 1),
            ("the new epoch again", 1, 0, 1),
        ] {
            let records = sequenced(id, epoch, sequence, count);
            ask(talk, label, version, produce_to(&topic, &[(0, Some(records))], version));
        }
        let stranger = sequenced(id + 1_000_000, 0, 7, 1);
        let request = produce_to(&topic, &[(0, Some(stranger))], version);
        ask(talk, "a stranger that begins inside", version, request);
    }
}

/// Producer ids are given.
fn init_producer_id(talk: &mut Script) {
    for version in 0..=5 {
        let null = InitProducerIdRequest {
            transactional_id: None,
            transaction_timeout_ms: 1000,
            ..InitProducerIdRequest::default()
        };
        ask_id(talk, "idempotent", version, &null);
        let timeless = InitProducerIdRequest { transaction_timeout_ms: -1, ..null.clone() };
        ask_id(talk, "idempotent, without a timeout", version, &timeless);
        let nameless = InitProducerIdRequest { transactional_id: Some(Str::EMPTY), ..null.clone() };
        ask_id(talk, "an empty transactional id", version, &nameless);
        let name = talk.name_at("transactional", version);
        // Apache Kafka creates the coordinator's topic when it is asked for the coordinator.
        let find = FindCoordinatorRequest {
            key_type: 1,
            coordinator_keys: vec![name.clone()],
            ..FindCoordinatorRequest::default()
        };
        talk.call(4, find);
        let transactional = InitProducerIdRequest { transactional_id: Some(name), ..null.clone() };
        ask_id(talk, "transactional", version, &transactional);
        if version >= 3 {
            for (label, producer_id, producer_epoch) in [
                ("idempotent, with an id and epoch", 7, 3),
                ("idempotent, with an id", 7, -1),
                ("idempotent, with an epoch", -1, 3),
            ] {
                let request = InitProducerIdRequest { producer_id, producer_epoch, ..null.clone() };
                ask_id(talk, label, version, &request);
            }
        }
    }
}

/// Records the answer once the transaction coordinator is available.
fn ask_id(talk: &mut Script, label: &str, version: i16, request: &InitProducerIdRequest) {
    let mut answer = talk.call(version, request.clone());
    while matches!(
        ErrorCode::from_i16(answer.error_code),
        ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::ConcurrentTransactions
    ) {
        answer = talk.call(version, request.clone());
    }
    answer.producer_id = answer.producer_id.min(0);
    talk.note(label, version, &answer);
}
