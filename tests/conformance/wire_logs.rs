//! `ListOffsets`, `OffsetForLeaderEpoch`, `DeleteRecords` and `DescribeProducers`, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ottla::protocol::messages::describe_producers::{
    DescribeProducersRequest, TopicRequest as ProducersOf,
};
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use ottla::protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use ottla::record::BatchOptions;
use ottla::types::Uuid;

use crate::batches::{TIME, batch, batch_with, sequenced};
use crate::transcript::Script;
use crate::wire_produce::produce_to;

against_both!(
    transcript:
    list_offsets,
    offset_for_leader_epoch,
    delete_records,
    describe_producers,
);

type Topic = (Str, Uuid);

fn write(talk: &mut Script, topic: &Topic, records: bytes::Bytes) {
    let answer = talk.call(11, produce_to(topic, &[(0, Some(records))], 11));
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
}

fn list(name: &Str, parts: &[(i32, i64)]) -> ListOffsetsRequest {
    let part = |&(partition_index, timestamp): &(i32, i64)| ListOffsetsPartition {
        partition_index,
        timestamp,
        ..ListOffsetsPartition::default()
    };
    ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic {
            name: name.clone(),
            partitions: parts.iter().map(part).collect(),
        }],
        timeout_ms: 20_000,
        ..ListOffsetsRequest::default()
    }
}

/// Offsets are listed at every version.
fn list_offsets(talk: &mut Script) {
    let topic = talk.topic_with("topic", 2, &[("retention.ms", "-1")]);
    // Timestamps go back once: the largest is not that of the last record.
    write(talk, &topic, batch(3));
    write(talk, &topic, batch_with(BatchOptions::default(), TIME + 60_000, 2));
    write(talk, &topic, batch_with(BatchOptions::default(), TIME + 30_000, 2));
    let missing = talk.name("missing");
    for version in 1..=11 {
        listed(talk, version, &topic.0, &missing);
    }
}

fn listed(talk: &mut Script, version: i16, topic: &Str, missing: &Str) {
    for special in (-8..0).rev() {
        talk.ask(&format!("timestamp {special}"), version, list(topic, &[(0, special)]));
        let label = format!("timestamp {special} of an empty partition");
        talk.ask(&label, version, list(topic, &[(1, special)]));
    }
    for after in [-1, 0, 1, 2000, 2001, 30_000, 60_000, 61_000, 61_001] {
        let label = format!("{after} ms after the first");
        talk.ask(&label, version, list(topic, &[(0, TIME + after)]));
    }
    talk.ask("a time in an empty partition", version, list(topic, &[(1, TIME)]));
    for (label, request) in [
        ("two partitions", list(topic, &[(1, -1), (0, -1)])),
        ("the same partition twice", list(topic, &[(0, -1), (0, -2)])),
        ("the same partition thrice, and another", list(topic, &[(0, -1), (0, -2), (1, -1)])),
        ("an unknown partition", list(topic, &[(9, -1)])),
        ("a negative partition", list(topic, &[(-1, -1)])),
        ("an unknown topic", list(missing, &[(0, -1)])),
        ("no name", list(&Str::EMPTY, &[(0, -1)])),
        ("an illegal name", list(&"bad name".into(), &[(0, -1)])),
        ("no partitions", list(topic, &[])),
        ("no topics", ListOffsetsRequest { topics: Vec::new(), ..list(topic, &[]) }),
        ("for a debugger", ListOffsetsRequest { replica_id: -2, ..list(topic, &[(0, -1)]) }),
        ("as a broker", ListOffsetsRequest { replica_id: 5, ..list(topic, &[(0, -1)]) }),
    ] {
        let mut answer = talk.call(version, request);
        for topic in &mut answer.topics {
            topic.partitions.sort_by_key(|partition| partition.partition_index);
        }
        talk.note(label, version, &answer);
    }
    if version >= 2 {
        let committed = ListOffsetsRequest { isolation_level: 1, ..list(topic, &[(0, -1)]) };
        talk.ask("isolation level 1", version, committed.clone());
        let answer = talk.call(version, ListOffsetsRequest { isolation_level: 2, ..committed });
        talk.note("isolation level 2", version, &answer.topics[0].partitions[0].error_code);
    }
    if version >= 4 {
        for epoch in [0, 1, -2] {
            let mut request = list(topic, &[(0, -1)]);
            request.topics[0].partitions[0].current_leader_epoch = epoch;
            talk.ask(&format!("leader epoch {epoch}"), version, request);
        }
    }
}

/// Ends of epochs at every version.
fn offset_for_leader_epoch(talk: &mut Script) {
    let topic = talk.topic_with("topic", 2, &[("retention.ms", "-1")]);
    write(talk, &topic, batch(3));
    let missing = talk.name("missing");
    for version in 2..=4 {
        for (label, name, partition, current, epoch) in [
            ("the first epoch", &topic.0, 0, -1, 0),
            ("an epoch to come", &topic.0, 0, -1, 5),
            ("no epoch", &topic.0, 0, -1, -1),
            ("an epoch below -1", &topic.0, 0, -1, -2),
            ("an empty partition", &topic.0, 1, -1, 0),
            ("the leader's epoch", &topic.0, 0, 0, 0),
            ("a leader's epoch to come", &topic.0, 0, 5, 0),
            ("a leader's epoch below -1", &topic.0, 0, -2, 0),
            ("an unknown partition", &topic.0, 9, -1, 0),
            ("an unknown topic", &missing, 0, -1, 0),
            ("no name", &Str::EMPTY, 0, -1, 0),
        ] {
            let partition = OffsetForLeaderPartition {
                partition,
                current_leader_epoch: current,
                leader_epoch: epoch,
            };
            let topic = OffsetForLeaderTopic { topic: name.clone(), partitions: vec![partition] };
            for replica_id in [-1, -2, 5] {
                let topics = vec![topic.clone()];
                let request = OffsetForLeaderEpochRequest { replica_id, topics };
                talk.ask(&format!("{label}, as {replica_id}"), version, request);
            }
        }
        let request = OffsetForLeaderEpochRequest::default();
        talk.ask("no topics", version, request);
    }
}

/// Records are deleted at every version.
fn delete_records(talk: &mut Script) {
    let compacted = talk.topic_with("compacted", 1, &[("cleanup.policy", "compact")]);
    let both =
        talk.topic_with("both", 1, &[("cleanup.policy", "compact,delete"), ("retention.ms", "-1")]);
    let neither = talk.topic_with("neither", 1, &[("cleanup.policy", ""), ("retention.ms", "-1")]);
    for topic in [&compacted, &both, &neither] {
        write(talk, topic, batch(3));
    }
    let missing = talk.name("missing");
    for version in 0..=2 {
        let topic = talk.topic_at("topic", version, 1);
        write(talk, &topic, batch(3));
        write(talk, &topic, batch(3));
        for (label, name, partition, offset) in [
            ("inside a batch", &topic.0, 0, 2),
            ("before what is deleted", &topic.0, 0, 1),
            ("where it begins", &topic.0, 0, 2),
            ("behind the end", &topic.0, 0, 7),
            ("below -1", &topic.0, 0, -2),
            ("all by the offset", &topic.0, 0, 6),
            ("all", &topic.0, 0, -1),
            ("an unknown partition", &topic.0, 9, 1),
            ("an unknown topic", &missing, 0, 1),
            ("no name", &Str::EMPTY, 0, 1),
            ("of a compacted topic", &compacted.0, 0, 1),
            ("of a topic that is compacted and deleted", &both.0, 0, 1),
            ("of a topic that is neither", &neither.0, 0, 1),
        ] {
            let part = DeleteRecordsPartition { partition_index: partition, offset };
            let topics = vec![DeleteRecordsTopic { name: name.clone(), partitions: vec![part] }];
            let request = DeleteRecordsRequest { topics, timeout_ms: 20_000 };
            talk.ask(label, version, request);
        }
        let offsets = talk.call(1, list(&topic.0, &[(0, -2)])).topics.remove(0).partitions;
        talk.note("where it begins at last", version, &offsets);
        talk.ask("nothing", version, DeleteRecordsRequest::default());
    }
}

/// Producers are described.
fn describe_producers(talk: &mut Script) {
    let topic = talk.topic_with("topic", 2, &[("retention.ms", "-1")]);
    let null = InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
    let id = talk.call(4, null).producer_id;
    write(talk, &topic, sequenced(id, 0, 0, 3));
    write(talk, &topic, sequenced(id, 1, 0, 2));
    write(talk, &topic, batch(1));
    talk.mask(&format!("producer_id: {id},"), "producer id");
    let missing = talk.name("missing");
    for (label, name, partitions) in [
        ("a partition", &topic.0, &[0][..]),
        ("an empty partition", &topic.0, &[1]),
        ("two partitions", &topic.0, &[0, 1]),
        ("an unknown partition", &topic.0, &[9]),
        ("an unknown topic", &missing, &[0]),
        ("an illegal name", &"bad name".into(), &[0]),
        ("no partitions", &topic.0, &[]),
    ] {
        let topics =
            vec![ProducersOf { name: name.clone(), partition_indexes: partitions.to_vec() }];
        let mut answer = talk.call(0, DescribeProducersRequest { topics });
        let found = answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
        for producer in found.flat_map(|partition| &mut partition.active_producers) {
            // 1: it is told; for the record in Apache Kafka, for the append here.
            producer.last_timestamp = producer.last_timestamp.min(1);
        }
        talk.note(label, 0, &answer);
    }
    talk.ask("nothing", 0, DescribeProducersRequest::default());
}
