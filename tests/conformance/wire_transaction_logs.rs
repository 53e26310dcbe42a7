//! Transactions in the logs of partitions, word for word at every version: what is produced, fetched and listed, and
//! the markers.

use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::describe_producers::{
    DescribeProducersRequest, TopicRequest as ProducersOf,
};
use ottla::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::produce::ProduceRequest;
use ottla::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use ottla::types::Uuid;

use crate::batches::{TIME, batch, sequenced, shape};
use crate::transactions::{Ids, Producer, Topic};
use crate::transcript::{Script, until};
use crate::wire_produce::produce_to;

against_both!(
    transcript:
    transactions_produce,
    transactions_fetch,
    transactions_list_offsets,
    transactions_producers,
    transactions_markers,
);

const MIB: i32 = 1 << 20;
/// The first version of Produce that adds partitions to the transaction.
const ADDS: i16 = 12;
/// The version whose clients know TRANSACTION_ABORTABLE, and add partitions themselves.
const ABORTABLE: i16 = 11;
const FETCH_BY_ID: i16 = 13;

/// Records code and base offset of the only partition.
fn ask_produce(talk: &mut Script, label: &str, version: i16, request: ProduceRequest) -> ErrorCode {
    let mut answer = talk.call(version, request.clone());
    // What waits for the transaction before.
    let is_busy = |code: i16| ErrorCode::from_i16(code) == ErrorCode::ConcurrentTransactions;
    until(|| {
        if is_busy(answer.responses[0].partition_responses[0].error_code) {
            answer = talk.call(version, request.clone());
        }
        !is_busy(answer.responses[0].partition_responses[0].error_code)
    });
    let partition = &answer.responses[0].partition_responses[0];
    talk.note_text(label, version, &format!("{:?}", (partition.error_code, partition.base_offset)));
    ErrorCode::from_i16(partition.error_code)
}

/// Asks for something that the coordinator refuses, in the words of the version. Apache Kafka's broker asks its coordinator
/// for several producers at once, and tells them all in the words of the first one; then it is asked again.
fn ask_outside(talk: &mut Script, label: &str, version: i16, request: &ProduceRequest) {
    let refusal = match version {
        ABORTABLE => ErrorCode::TransactionAbortable,
        _ => ErrorCode::InvalidTxnState,
    };
    until(|| {
        let answer = talk.call(version, request.clone());
        let partition = &answer.responses[0].partition_responses[0];
        let is_right = ErrorCode::from_i16(partition.error_code) == refusal;
        if is_right {
            let text = format!("{:?}", (partition.error_code, partition.base_offset));
            talk.note_text(label, version, &text);
        }
        is_right
    });
}

/// Transactional batches are produced at every version.
fn transactions_produce(talk: &mut Script) {
    for version in 3..=13 {
        let topic = talk.topic_at("topic", version, 2);
        let one = Producer::new(talk, &format!("one{version}"));
        if version < ADDS {
            let early = one.produces(&topic, 0, (0, 1), version);
            ask_outside(talk, "a partition that was not added", version, &early);
            one.add(talk, &topic, &[0]);
        }
        let nameless =
            ProduceRequest { transactional_id: None, ..one.produces(&topic, 0, (0, 1), version) };
        ask_produce(talk, "no transactional id", version, nameless);
        ask_produce(talk, "the first batch", version, one.produces(&topic, 0, (0, 2), version));
        ask_produce(
            talk,
            "the first batch again",
            version,
            one.produces(&topic, 0, (0, 2), version),
        );
        ask_produce(talk, "the second batch", version, one.produces(&topic, 0, (2, 1), version));
        ask_produce(talk, "a gap", version, one.produces(&topic, 0, (9, 1), version));
        let outside = produce_to(&topic, &[(0, Some(sequenced(one.id, one.epoch, 3, 1)))], version);
        ask_produce(talk, "outside of the transaction that is open", version, outside);
        let older = one.off(0, -1).produces(&topic, 0, (0, 1), version);
        ask_produce(talk, "an older epoch", version, older);
        let newer = one.off(0, 1).produces(&topic, 0, (0, 1), version);
        ask_produce(talk, "a newer epoch", version, newer);
        let foreign = one.off(1_000_000, 0).produces(&topic, 0, (0, 1), version);
        ask_produce(talk, "another producer", version, foreign);
        let plain = ProduceRequest {
            transactional_id: Some(one.name.clone()),
            ..produce_to(&topic, &[(1, Some(batch(1)))], version)
        };
        ask_produce(talk, "records without a transaction", version, plain);
        one.end(talk, true);
        if version < ADDS {
            let late = one.produces(&topic, 0, (3, 1), version);
            ask_outside(talk, "after the end", version, &late);
            one.add(talk, &topic, &[0]);
        }
        ask_produce(
            talk,
            "of the next transaction",
            version,
            one.produces(&topic, 0, (3, 1), version),
        );
        one.end(talk, false);
        let mut two = one.clone();
        two.renew(talk);
        let fenced = one.produces(&topic, 0, (4, 1), version);
        ask_produce(talk, "of a producer that was fenced", version, fenced);
        if version < ADDS {
            two.add(talk, &topic, &[0]);
        }
        let first = two.produces(&topic, 0, (0, 1), version);
        ask_produce(talk, "of the one that fenced it", version, first);
        let fenced = one.produces(&topic, 0, (4, 1), version);
        ask_produce(talk, "of a producer that was fenced here", version, fenced);
        two.end(talk, true);
    }
}

/// The first partition: committed, aborted and open transactions among other records. The second: nothing open.
///
/// ```text
/// 0-1 plain, 2 a, 3 b, 4 a aborted, 5 b again, 6 b committed, 7 plain, 8 a, 9 a aborted, 10 c open, 11 plain
/// ```
fn filled(talk: &mut Script, ids: &mut Ids) -> (Topic, Producer) {
    let topic = talk.topic("topic", 2);
    let [a, b, c] = ["a", "b", "c"].map(|what| Producer::new(talk, what));
    for one in [&a, &b, &c] {
        ids.show(&mut one.id.clone());
    }
    let plain = |talk: &mut Script, count| {
        let answer = talk.call(11, produce_to(&topic, &[(0, Some(batch(count)))], 11));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
    };
    plain(talk, 2);
    a.write(talk, &topic, 0, (0, 1));
    b.write(talk, &topic, 0, (0, 1));
    a.end(talk, false);
    b.write(talk, &topic, 0, (1, 1));
    b.end(talk, true);
    plain(talk, 1);
    a.write(talk, &topic, 0, (1, 1));
    a.write(talk, &topic, 1, (0, 2));
    a.end(talk, false);
    c.write(talk, &topic, 0, (0, 1));
    plain(talk, 1);
    (topic, c)
}

/// Committed records are fetched at every version.
fn transactions_fetch(talk: &mut Script) {
    let ids = &mut Ids::default();
    let (topic, open) = filled(talk, ids);
    for version in 4..=18 {
        for (label, partition, offset, max_bytes) in [
            ("from the start", 0, 0, MIB),
            ("from inside a transaction", 0, 3, MIB),
            ("from an abort marker", 0, 4, MIB),
            ("from a commit marker", 0, 6, MIB),
            ("from the second transaction", 0, 8, MIB),
            ("from the last abort marker", 0, 9, MIB),
            ("from the last stable offset", 0, 10, MIB),
            ("from behind it", 0, 11, MIB),
            ("from the end", 0, 12, MIB),
            ("from behind the end", 0, 13, MIB),
            ("one batch from the start", 0, 0, 1),
            ("one batch from inside a transaction", 0, 3, 1),
            ("an aborted transaction alone", 1, 0, MIB),
            ("the end of an aborted transaction alone", 1, 3, MIB),
        ] {
            for (how, isolation_level) in [("committed", 1), ("uncommitted", 0)] {
                let part = FetchPartition {
                    partition,
                    fetch_offset: offset,
                    partition_max_bytes: max_bytes,
                    ..FetchPartition::default()
                };
                let by_id = version >= FETCH_BY_ID;
                let request = FetchRequest {
                    isolation_level,
                    max_bytes,
                    topics: vec![FetchTopic {
                        topic: if by_id { Str::EMPTY } else { topic.0.clone() },
                        topic_id: if by_id { topic.1 } else { Uuid::ZERO },
                        partitions: vec![part],
                    }],
                    ..FetchRequest::default()
                };
                note_fetch(talk, ids, (&format!("{label}, {how}"), version), request);
            }
        }
    }
    open.end(talk, false);
}

/// Records what is said of the partition, and the shapes of the batches.
fn note_fetch(
    talk: &mut Script,
    ids: &mut Ids,
    (label, version): (&str, i16),
    request: FetchRequest,
) {
    let mut answer = talk.call(version, request);
    let partition = &mut answer.responses[0].partitions[0];
    for aborted in partition.aborted_transactions.iter_mut().flatten() {
        ids.show(&mut aborted.producer_id);
    }
    if partition.error_code != 0 {
        // None or no list, depending on where the error was found.
        partition.aborted_transactions = None;
    }
    let records = shape(partition.records.as_ref());
    // Markers are of the time at which they were written.
    let hidden = regex::Regex::new("attributes (48|50), times [^]]*").unwrap();
    let text = format!(
        "error {}, high watermark {}, last stable {}, aborted {:?}, {}",
        partition.error_code,
        partition.high_watermark,
        partition.last_stable_offset,
        partition.aborted_transactions,
        hidden.replace_all(&records, "attributes $1"),
    );
    talk.note_text(label, version, &text);
}

/// Offsets of committed records are listed at every version that tells them apart.
fn transactions_list_offsets(talk: &mut Script) {
    let (topic, open) = filled(talk, &mut Ids::default());
    for version in 2..=11 {
        for (label, timestamp) in [
            ("latest", -1),
            ("earliest", -2),
            ("the time of the first", TIME),
            ("a time after all", TIME + 10_000_000_000_000),
        ] {
            for (how, isolation_level) in [("committed", 1), ("uncommitted", 0)] {
                let part = |partition_index| ListOffsetsPartition {
                    partition_index,
                    timestamp,
                    ..ListOffsetsPartition::default()
                };
                let request = ListOffsetsRequest {
                    replica_id: -1,
                    isolation_level,
                    topics: vec![ListOffsetsTopic {
                        name: topic.0.clone(),
                        partitions: vec![part(0), part(1)],
                    }],
                    timeout_ms: 20_000,
                };
                let mut answer = talk.call(version, request);
                answer.topics[0].partitions.sort_by_key(|partition| partition.partition_index);
                talk.note(&format!("{label}, {how}"), version, &answer);
            }
        }
    }
    open.end(talk, false);
}

/// Producers with transactions are described.
fn transactions_producers(talk: &mut Script) {
    let ids = &mut Ids::default();
    let (topic, open) = filled(talk, ids);
    let describe = |talk: &mut Script, ids: &mut Ids, label: &str| {
        let request = DescribeProducersRequest {
            topics: vec![ProducersOf { name: topic.0.clone(), partition_indexes: vec![0, 1] }],
        };
        let mut answer = talk.call(0, request);
        let partitions = &mut answer.topics[0].partitions;
        partitions.sort_by_key(|partition| partition.partition_index);
        for partition in partitions {
            for producer in &mut partition.active_producers {
                ids.show(&mut producer.producer_id);
                producer.last_timestamp = producer.last_timestamp.signum();
                producer.coordinator_epoch = producer.coordinator_epoch.min(0);
            }
            partition.active_producers.sort_by_key(|producer| producer.producer_id);
        }
        talk.note(label, 0, &answer);
    };
    describe(talk, ids, "one is open");
    open.end(talk, true);
    describe(talk, ids, "none is open");
    let mut next = open.clone();
    next.renew(talk);
    next.write(talk, &topic, 1, (0, 1));
    describe(talk, ids, "of the next epoch");
    next.end(talk, false);
}

/// A marker for partitions of topics.
fn marker(
    by: &Producer,
    committed: bool,
    (coordinator_epoch, transaction_version): (i32, i8),
    parts: &[(&Str, &[i32])],
) -> WritableTxnMarker {
    let topic = |&(name, partitions): &(&Str, &[i32])| WritableTxnMarkerTopic {
        name: name.clone(),
        partition_indexes: partitions.to_vec(),
    };
    WritableTxnMarker {
        producer_id: by.id,
        producer_epoch: by.epoch,
        transaction_result: committed,
        topics: parts.iter().map(topic).collect(),
        coordinator_epoch,
        transaction_version,
    }
}

fn ask_markers(
    talk: &mut Script,
    ids: &mut Ids,
    (label, version): (&str, i16),
    markers: Vec<WritableTxnMarker>,
) {
    let mut answer = talk.call(version, WriteTxnMarkersRequest { markers });
    for marker in &mut answer.markers {
        ids.show(&mut marker.producer_id);
        marker.topics.sort_by(|one, other| one.name.cmp(&other.name));
        for topic in &mut marker.topics {
            topic.partitions.sort_by_key(|partition| partition.partition_index);
        }
    }
    answer.markers.sort_by_key(|marker| marker.producer_id);
    talk.note(label, version, &answer);
}

/// Markers are written from outside, as administrators end what hangs.
fn transactions_markers(talk: &mut Script) {
    for version in 1..=2 {
        let ids = &mut Ids::default();
        let topic = talk.topic_at("topic", version, 2);
        let missing = talk.name("missing");
        let one = Producer::new(talk, &format!("one{version}"));
        ids.show(&mut one.id.clone());
        let name = &topic.0;
        // Of no producer that the coordinator knows.
        let free = Producer { id: 900_000_000 + i64::from(version), epoch: 3, ..one.clone() };
        ids.show(&mut free.id.clone());
        ask_markers(talk, ids, ("none", version), Vec::new());
        let to =
            |parts: &[(&Str, &[i32])], by: &Producer, epoch| marker(by, false, (epoch, 0), parts);
        for (label, markers) in [
            ("no topics", vec![to(&[], &free, 5)]),
            ("no partitions", vec![to(&[(name, &[])], &free, 5)]),
            ("an unknown topic", vec![to(&[(&missing, &[0])], &free, 5)]),
            ("an unknown partition among others", vec![to(&[(name, &[0, 9])], &free, 5)]),
            ("of an older coordinator", vec![to(&[(name, &[0])], &free, 4)]),
            ("of an older epoch", vec![to(&[(name, &[0])], &free.off(0, -1), 5)]),
            ("once more", vec![to(&[(name, &[0])], &free, 5)]),
            ("of a newer epoch and coordinator", vec![to(&[(name, &[0])], &free.off(0, 1), 6)]),
            (
                "several",
                vec![to(&[(name, &[1])], &free, 7), to(&[(name, &[0, 1])], &free.off(10, 0), 7)],
            ),
        ] {
            ask_markers(talk, ids, (label, version), markers);
        }
        if version >= 2 {
            let second = |by: &Producer| vec![marker(by, false, (9, 2), &[(name, &[0])])];
            ask_markers(
                talk,
                ids,
                ("version 2: of the epoch itself", version),
                second(&free.off(0, 1)),
            );
            ask_markers(
                talk,
                ids,
                ("version 2: of a newer epoch", version),
                second(&free.off(0, 2)),
            );
            let later = vec![marker(&free.off(0, 3), false, (9, 9), &[(name, &[0])])];
            ask_markers(talk, ids, ("a version to come", version), later);
        }
        // An open transaction is ended behind the back of its coordinator.
        one.write(talk, &topic, 1, (0, 1));
        ask_markers(
            talk,
            ids,
            ("an open transaction", version),
            vec![to(&[(name, &[1])], &one, 7)],
        );
        let late = one.produces(&topic, 1, (1, 1), 10);
        let answer = talk.call(10, late);
        let partition = &answer.responses[0].partition_responses[0];
        let text = format!("{:?}", (partition.error_code, partition.base_offset));
        talk.note_text("its next batch, which its coordinator still knows of", version, &text);
        let group = talk.group("group");
        drop(group);
        let offsets: Str = "__consumer_offsets".into();
        ask_markers(
            talk,
            ids,
            ("for offsets", version),
            vec![to(&[(&offsets, &[0, 99])], &free, 5)],
        );
        ask_markers(
            talk,
            ids,
            ("for offsets, of an older epoch", version),
            vec![to(&[(&offsets, &[0])], &free.off(0, -1), 5)],
        );
    }
}
