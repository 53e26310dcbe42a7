//! Fetch, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use ottla::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, FetchableTopicResponse,
    ForgottenTopic, ReplicaState,
};
use ottla::types::Uuid;

use crate::batches::{batch, shape};
use crate::transcript::Script;
use crate::wire_produce::produce_to;

against_both!(transcript: fetch, fetch_sessions);

/// The first version with topic ids instead of names.
const BY_ID: i16 = 13;
/// The first version with sessions.
const SESSIONS: i16 = 7;
const MIB: i32 = 1 << 20;

type Topic = (Str, Uuid);

fn part(partition: i32, fetch_offset: i64) -> FetchPartition {
    FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: MIB,
        ..FetchPartition::default()
    }
}

fn fetch_of(topic: &Topic, parts: &[FetchPartition], version: i16) -> FetchRequest {
    let by_id = version >= BY_ID;
    FetchRequest {
        max_bytes: MIB,
        topics: vec![FetchTopic {
            topic: if by_id { Str::EMPTY } else { topic.0.clone() },
            topic_id: if by_id { topic.1 } else { Uuid::ZERO },
            partitions: parts.to_vec(),
        }],
        ..FetchRequest::default()
    }
}

/// Records an answer, with the shapes of the batches instead of the bytes.
fn ask(talk: &mut Script, label: &str, version: i16, request: FetchRequest) {
    let answer = talk.call(version, request);
    note(talk, label, version, &answer);
}

/// Records only the codes, of the answer and of each partition.
fn ask_codes(talk: &mut Script, label: &str, version: i16, request: FetchRequest) {
    let answer = talk.call(version, request);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    let codes: Vec<_> = partitions.map(|part| (part.partition_index, part.error_code)).collect();
    talk.note(label, version, &(answer.error_code, codes));
}

fn note(talk: &mut Script, label: &str, version: i16, answer: &FetchResponse) {
    let mut shown = answer.clone();
    let unknown =
        |topic: &FetchableTopicResponse| topic.partitions.iter().any(|p| p.error_code != 0);
    shown.responses.sort_by_key(|topic| (unknown(topic), topic.topic.clone()));
    let mut shapes = Vec::new();
    for topic in &mut shown.responses {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
        for partition in &mut topic.partitions {
            if partition.error_code != 0 {
                // None or no list, depending on where the error was found.
                partition.aborted_transactions = None;
            }
            shapes.push(shape(partition.records.take().as_ref()));
        }
    }
    // Fields that no version carries are left out, since there are many answers.
    let text = format!("{shown:?}, {shapes:?}")
        .replace("diverging_epoch: EpochEndOffset { epoch: -1, end_offset: -1 }, ", "")
        .replace("current_leader: LeaderIdAndEpoch { leader_id: -1, leader_epoch: -1 }, ", "")
        .replace("snapshot_id: SnapshotId { end_offset: -1, epoch: -1 }, ", "")
        .replace(", local_log_start_offset: -1", "")
        .replace("preferred_read_replica: -1, records: None ", "");
    talk.note_text(label, version, &text);
}

/// A topic of two partitions with three batches of two records each in the first and one in the second.
fn filled(talk: &mut Script, what: &str) -> Topic {
    let topic = talk.topic_with(what, 2, &[("retention.ms", "-1")]);
    for partition in [0, 0, 0, 1] {
        let answer = talk.call(11, produce_to(&topic, &[(partition, Some(batch(2)))], 11));
        assert_eq!(answer.responses[0].partition_responses[0].error_code, 0, "{answer:?}");
    }
    topic
}

/// Records are fetched at every version.
fn fetch(talk: &mut Script) {
    let topic = filled(talk, "topic");
    let short = filled(talk, "short");
    let from_two = DeleteRecordsPartition { partition_index: 0, offset: 2 };
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic { name: short.0.clone(), partitions: vec![from_two] }],
        timeout_ms: 20_000,
    };
    assert_eq!(talk.call(2, request).topics[0].partitions[0].error_code, 0);
    let missing = (talk.name("missing"), Uuid([7; 16]));
    talk.mask(&missing.1, "unknown id");
    for version in 4..=18 {
        positions(talk, version, &topic, &short, &missing);
        limits(talk, version, &topic);
        epochs(talk, version, &topic);
    }
}

fn positions(talk: &mut Script, version: i16, topic: &Topic, short: &Topic, missing: &Topic) {
    let both = [part(1, 0), part(0, 4)];
    for (label, topic, parts) in [
        ("from the start", topic, &[part(0, 0)][..]),
        ("from inside a batch", topic, &[part(0, 3)]),
        ("from the end", topic, &[part(0, 6)]),
        ("from behind the end", topic, &[part(0, 7)]),
        ("from below 0", topic, &[part(0, -1)]),
        ("from before what was deleted", short, &[part(0, 1)]),
        ("from where was deleted", short, &[part(0, 2)]),
        ("two partitions", topic, &both),
        ("the same partition twice", topic, &[part(0, 0), part(0, 4)]),
        ("an unknown partition", topic, &[part(9, 0)]),
        ("a negative partition", topic, &[part(-1, 0)]),
        ("a known and an unknown partition", topic, &[part(0, 4), part(9, 0)]),
        ("an unknown topic", missing, &[part(0, 0)]),
        ("no topic", &(Str::EMPTY, Uuid::ZERO), &[part(0, 0)]),
        ("no partitions", topic, &[]),
    ] {
        ask(talk, label, version, fetch_of(topic, parts, version));
    }
    let nothing = FetchRequest { topics: Vec::new(), ..FetchRequest::default() };
    ask(talk, "nothing", version, nothing);
    let committed = FetchRequest { isolation_level: 1, ..fetch_of(topic, &[part(0, 0)], version) };
    ask(talk, "isolation level 1", version, committed.clone());
    let unknown = FetchRequest { isolation_level: 2, ..committed };
    ask_codes(talk, "isolation level 2", version, unknown);
    let mut as_replica = fetch_of(topic, &[part(0, 0)], version);
    if version < 15 {
        as_replica.replica_id = 5;
    } else {
        as_replica.replica_state = ReplicaState { replica_id: 5, replica_epoch: 1 };
    }
    ask_codes(talk, "as a broker that is none", version, as_replica);
}

fn limits(talk: &mut Script, version: i16, topic: &Topic) {
    let limited = |partition, partition_max_bytes| FetchPartition {
        partition_max_bytes,
        ..part(partition, 0)
    };
    // A batch of two records has about 90 bytes.
    for (label, all, each) in [
        ("one byte of each partition", MIB, 1),
        ("no bytes of each partition", MIB, 0),
        ("fewer than no bytes of each partition", MIB, -1),
        ("150 bytes of each partition", MIB, 150),
        ("one byte", 1, MIB),
        ("no bytes", 0, MIB),
        ("fewer than no bytes", -1, MIB),
        ("100 bytes", 100, MIB),
        ("250 bytes", 250, MIB),
    ] {
        let parts = [limited(0, each), limited(1, each)];
        let request = FetchRequest { max_bytes: all, ..fetch_of(topic, &parts, version) };
        if all < 0 || each < 0 {
            ask_codes(talk, label, version, request);
        } else {
            ask(talk, label, version, request);
        }
    }
    for (label, min_bytes, max_wait_ms, offset) in [
        ("at least one byte, at once", 1, 0, 6),
        ("at least one byte, soon", 1, 5, 6),
        ("at least many bytes, soon", 1_000_000, 5, 0),
        ("at least fewer than no bytes", -1, 5, 6),
        ("a negative time to wait", 1, -1, 6),
    ] {
        let request = fetch_of(topic, &[part(0, offset)], version);
        let request = FetchRequest { min_bytes, max_wait_ms, ..request };
        ask(talk, label, version, request);
    }
}

fn epochs(talk: &mut Script, version: i16, topic: &Topic) {
    let of_leader = |current_leader_epoch| FetchPartition { current_leader_epoch, ..part(0, 4) };
    if version >= 9 {
        for epoch in [0, 1] {
            let request = fetch_of(topic, &[of_leader(epoch)], version);
            ask(talk, &format!("leader epoch {epoch}"), version, request);
        }
        ask_codes(talk, "leader epoch -2", version, fetch_of(topic, &[of_leader(-2)], version));
    }
    if version >= 12 {
        for (epoch, offset) in [(0, 4), (0, 6), (0, 7), (3, 4), (3, 9), (-2, 4)] {
            let place = FetchPartition { last_fetched_epoch: epoch, ..part(0, offset) };
            let label = format!("at {offset} after epoch {epoch}");
            ask(talk, &label, version, fetch_of(topic, &[place], version));
        }
    }
}

/// Fetch sessions at every version.
fn fetch_sessions(talk: &mut Script) {
    let unknown = (talk.name("missing"), Uuid([7; 16]));
    talk.mask(&unknown.1, "unknown id");
    for version in SESSIONS..=18 {
        let topic = filled(talk, &format!("topic-{version:02}"));
        talk.mask(&topic.0, "topic");
        talk.mask(&topic.1, "id of topic");
        session(talk, version, &topic, &unknown);
    }
}

fn session(talk: &mut Script, version: i16, topic: &Topic, unknown: &Topic) {
    let in_session =
        |session_id, session_epoch, request| FetchRequest { session_id, session_epoch, ..request };
    let nothing = || FetchRequest { topics: Vec::new(), ..fetch_of(topic, &[], version) };
    let both = fetch_of(topic, &[part(0, 0), part(1, 2)], version);
    let opened = talk.call(version, in_session(0, 0, both));
    let id = opened.session_id;
    talk.mask(&format!("session_id: {id},"), "session");
    note(talk, "opened", version, &opened);
    let mut epoch = 0;
    let mut next = |talk: &mut Script, label: &str, request| {
        epoch += 1;
        ask(talk, label, version, in_session(id, epoch, request));
    };
    next(talk, "nothing new", nothing());
    next(talk, "from further on", fetch_of(topic, &[part(0, 6)], version));
    next(talk, "nothing new again", nothing());
    talk.call(11, produce_to(topic, &[(1, Some(batch(1)))], 11));
    next(talk, "one partition grew", nothing());
    next(talk, "one partition grew and was not read", nothing());
    next(talk, "the other partition as well", fetch_of(topic, &[part(0, 4), part(1, 3)], version));
    next(talk, "an unknown partition", fetch_of(topic, &[part(9, 0)], version));
    next(talk, "an unknown partition, still", nothing());
    let forget = |topic: &Topic, partitions: &[i32]| FetchRequest {
        forgotten_topics_data: vec![ForgottenTopic {
            topic: if version >= BY_ID { Str::EMPTY } else { topic.0.clone() },
            topic_id: if version >= BY_ID { topic.1 } else { Uuid::ZERO },
            partitions: partitions.to_vec(),
        }],
        ..nothing()
    };
    next(talk, "the unknown partition forgotten", forget(topic, &[9]));
    next(talk, "an unknown topic", fetch_of(unknown, &[part(0, 0)], version));
    next(talk, "an unknown topic, still", nothing());
    next(talk, "the unknown topic forgotten", forget(unknown, &[0]));
    next(talk, "forgotten what was never there", forget(topic, &[5]));
    next(talk, "out of range", fetch_of(topic, &[part(0, 99)], version));
    next(talk, "out of range, still", nothing());
    next(talk, "back in range", fetch_of(topic, &[part(0, 4)], version));
    for (label, session, at) in [
        ("the same epoch again", id, epoch),
        ("an epoch too far", id, epoch + 2),
        ("a session that is not there", 1, 1),
        ("a session below 0", -1, 1),
        ("no session", 0, 1),
        ("an epoch below -1", id, -2),
    ] {
        ask(talk, label, version, in_session(session, at, nothing()));
    }
    ask(talk, "closed", version, in_session(id, -1, nothing()));
    ask(talk, "closed again", version, in_session(id, -1, nothing()));
    ask(talk, "after it was closed", version, in_session(id, epoch + 1, nothing()));
}
