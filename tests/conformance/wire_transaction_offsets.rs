//! Offsets that are committed in transactions, word for word at every version.

use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::delete_groups::DeleteGroupsRequest;
use ottla::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::protocol::messages::offset_fetch::OffsetFetchRequest;
use ottla::protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use ottla::types::Uuid;

use crate::transactions::{Producer, Topic};
use crate::transcript::{Script, until};
use crate::wire_classic::{enter, join, sync};
use crate::wire_offsets::{commit, fetch, partition};

against_both!(
    transcript:
    transactions_offsets,
    transactions_offsets_of_members,
    transactions_offsets_pending,
);

/// The first version with topic ids instead of names.
const BY_ID: i16 = 6;
/// The first version that adds the group to the transaction.
const ADDS: i16 = 5;

fn part(partition_index: i32, offset: i64) -> TxnOffsetCommitRequestPartition {
    TxnOffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        ..TxnOffsetCommitRequestPartition::default()
    }
}

/// A commit by a producer that does not say which member reads.
fn commits(
    by: &Producer,
    group: &Str,
    topic: &Topic,
    partitions: &[TxnOffsetCommitRequestPartition],
    version: i16,
) -> TxnOffsetCommitRequest {
    let by_id = version >= BY_ID;
    TxnOffsetCommitRequest {
        transactional_id: by.name.clone(),
        group_id: group.clone(),
        producer_id: by.id,
        producer_epoch: by.epoch,
        topics: vec![TxnOffsetCommitRequestTopic {
            name: if by_id { Str::EMPTY } else { topic.0.clone() },
            topic_id: if by_id { topic.1 } else { Uuid::ZERO },
            partitions: partitions.to_vec(),
        }],
        ..TxnOffsetCommitRequest::default()
    }
}

/// Records the outcome, in the order of the partitions, without topics that have none.
fn ask(talk: &mut Script, label: &str, version: i16, request: TxnOffsetCommitRequest) {
    let mut answer = talk.call(version, request);
    answer.topics.retain(|topic| !topic.partitions.is_empty());
    for topic in &mut answer.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    talk.note(label, version, &answer);
}

/// Records offset and error of a partition, stable and as it counts now.
fn note_offset(talk: &mut Script, label: &str, at: i16, group: &Str, topic: &Topic) {
    let mut found = [false, true].map(|require_stable| {
        let request =
            OffsetFetchRequest { require_stable, ..fetch(group, Some(&[(topic, &[0])]), 9) };
        let answer = talk.call(9, request).groups.remove(0);
        let partition = &answer.topics[0].partitions[0];
        (answer.error_code, partition.committed_offset, partition.error_code)
    });
    found.sort_unstable();
    talk.note_text(label, at, &format!("{found:?}"));
}

/// Offsets are committed in transactions at every version.
fn transactions_offsets(talk: &mut Script) {
    let topic = talk.topic("topic", 3);
    let missing = (talk.name("missing"), Uuid([7; 16]));
    talk.mask(&missing.1, "missing");
    for version in 0..=6 {
        let group = talk.group(&format!("group{version}"));
        talk.mask(&group, "group");
        let one = Producer::new(talk, &format!("one{version}"));
        let by_one = |partitions: &[_]| commits(&one, &group, &topic, partitions, version);
        if version < ADDS {
            ask(talk, "the group is not added", version, by_one(&[part(0, 1)]));
            one.add_group(talk, &group);
        }
        for (label, request) in [
            (
                "no group id",
                TxnOffsetCommitRequest { group_id: Str::EMPTY, ..by_one(&[part(0, 1)]) },
            ),
            ("no topics", TxnOffsetCommitRequest { topics: Vec::new(), ..by_one(&[]) }),
            ("no partitions", by_one(&[])),
            ("an unknown topic", commits(&one, &group, &missing, &[part(0, 1)], version)),
            (
                "of another producer",
                commits(&one.off(1_000_000, 0), &group, &topic, &[part(0, 1)], version),
            ),
            ("of an older epoch", commits(&one.off(0, -1), &group, &topic, &[part(0, 1)], version)),
            ("of a newer epoch", commits(&one.off(0, 1), &group, &topic, &[part(0, 1)], version)),
            (
                "no transactional id",
                TxnOffsetCommitRequest { transactional_id: Str::EMPTY, ..by_one(&[part(0, 1)]) },
            ),
        ] {
            ask(talk, label, version, request);
        }
        let unknown = [part(0, 5), part(3, 5), part(-1, 5)];
        ask(talk, "an unknown partition", version, by_one(&unknown));
        note_offset(talk, "what is pending", version, &group, &topic);
        let long = TxnOffsetCommitRequestPartition {
            committed_metadata: Some("x".repeat(4097).into()),
            ..part(1, 1)
        };
        ask(talk, "long metadata", version, by_one(&[long, part(2, 1)]));
        let bare = TxnOffsetCommitRequestPartition { committed_metadata: None, ..part(0, 7) };
        ask(talk, "no metadata", version, by_one(&[bare]));
        ask(talk, "below nothing", version, by_one(&[part(1, -7)]));
        ask(talk, "its last", version, by_one(&[part(0, 8)]));
        if version >= 3 {
            let of_member = |member: &str, generation| TxnOffsetCommitRequest {
                member_id: member.into(),
                generation_id_or_member_epoch: generation,
                ..by_one(&[part(0, 9)])
            };
            ask(talk, "somebody of no group", version, of_member("m", 1));
            ask(talk, "a generation of no group", version, of_member("", 0));
            ask(talk, "somebody without a generation", version, of_member("m", -1));
            note_offset(talk, "what is pending then", version, &group, &topic);
        }
        one.end(talk, true);
        note_offset(talk, "what counts after the commit", version, &group, &topic);
        if version < ADDS {
            // At version 4, Apache Kafka has been seen to answer as at older ones, for a moment.
            let older = ErrorCode::InvalidTxnState.to_i16();
            let mut code = || {
                let answer = talk.call(version, by_one(&[part(0, 10)]));
                answer.topics[0].partitions[0].error_code
            };
            until(|| version < 4 || code() != older);
            ask(talk, "after the end", version, by_one(&[part(0, 10)]));
            one.add_group(talk, &group);
        }
        ask(talk, "of the next transaction", version, by_one(&[part(0, 11)]));
        one.end(talk, false);
        note_offset(talk, "what counts after the abort", version, &group, &topic);
        let mut two = one.clone();
        two.renew(talk);
        ask(talk, "of a producer that was fenced", version, by_one(&[part(0, 12)]));
    }
}

/// Members of a group are checked.
fn transactions_offsets_of_members(talk: &mut Script) {
    let topic = talk.topic("topic", 2);
    for version in 3..=6 {
        let group = talk.group(&format!("group{version}"));
        talk.mask(&group, "group");
        let one = Producer::new(talk, &format!("one{version}"));
        one.add_group(talk, &group);
        let of_unknown = |generation| TxnOffsetCommitRequest {
            member_id: "m".into(),
            generation_id_or_member_epoch: generation,
            ..commits(&one, &group, &topic, &[part(0, 1)], version)
        };
        ask(talk, "a generation of no group", version, of_unknown(1));
        let joined = enter(talk, join(&group, &"".into(), 9), 9);
        let member = joined.member_id;
        let from = |generation, member: &Str, offset| TxnOffsetCommitRequest {
            generation_id_or_member_epoch: generation,
            member_id: member.clone(),
            ..commits(&one, &group, &topic, &[part(0, offset)], version)
        };
        ask(talk, "while it is being assigned", version, from(1, &member, 1));
        talk.call(4, sync(&group, 1, &member, &[&member]));
        for (label, request) in [
            ("its member", from(1, &member, 2)),
            ("another generation", from(2, &member, 3)),
            ("an earlier generation", from(0, &member, 3)),
            ("no generation", from(-1, &member, 4)),
            ("nobody", from(-1, &Str::EMPTY, 5)),
            ("somebody", from(1, &"x".into(), 6)),
            (
                "an unknown instance",
                TxnOffsetCommitRequest {
                    group_instance_id: Some("i".into()),
                    ..from(1, &member, 7)
                },
            ),
        ] {
            ask(talk, label, version, request);
        }
        one.end(talk, true);
        note_offset(talk, "what counts", version, &group, &topic);
    }
}

/// What is pending is read, overtaken and deleted.
fn transactions_offsets_pending(talk: &mut Script) {
    let topic = talk.topic("topic", 2);
    let group = talk.group("group");
    let one = Producer::new(talk, "one");
    let two = Producer::new(talk, "two");
    let writes = |talk: &mut Script, by: &Producer, offset| {
        by.add_group(talk, &group);
        let request = commits(by, &group, &topic, &[part(0, offset)], 3);
        let answer = talk.call(3, request);
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{answer:?}");
    };
    let plain = |talk: &mut Script, offset| {
        let answer = talk.call(9, commit(&group, &topic, &[partition(0, offset)], 9));
        assert_eq!(answer.topics[0].partitions[0].error_code, 0, "{answer:?}");
    };
    writes(talk, &one, 10);
    note_offset(talk, "pending alone", 3, &group, &topic);
    for (label, request) in [
        ("pending alone, everything", fetch(&group, None, 9)),
        (
            "pending alone, everything stable",
            OffsetFetchRequest { require_stable: true, ..fetch(&group, None, 9) },
        ),
    ] {
        talk.ask(label, 9, request);
    }
    plain(talk, 5);
    note_offset(talk, "overtaken", 3, &group, &topic);
    let everything = OffsetFetchRequest { require_stable: true, ..fetch(&group, None, 9) };
    talk.ask("overtaken, everything stable", 9, everything);
    one.end(talk, true);
    note_offset(talk, "overtaken and committed", 3, &group, &topic);
    writes(talk, &one, 20);
    writes(talk, &two, 30);
    two.end(talk, true);
    note_offset(talk, "two, the later one committed", 3, &group, &topic);
    one.end(talk, true);
    note_offset(talk, "two, both committed", 3, &group, &topic);
    writes(talk, &one, 40);
    let deletion = OffsetDeleteRequest {
        group_id: group.clone(),
        topics: vec![OffsetDeleteRequestTopic {
            name: topic.0.clone(),
            partitions: vec![OffsetDeleteRequestPartition { partition_index: 0 }],
        }],
    };
    talk.ask("deleted while pending", 0, deletion);
    note_offset(talk, "deleted while pending, before the end", 3, &group, &topic);
    one.end(talk, true);
    note_offset(talk, "deleted while pending, after the end", 3, &group, &topic);
    writes(talk, &one, 50);
    let deletion = DeleteGroupsRequest { groups_names: vec![group.clone()] };
    talk.ask("the group deleted while pending", 2, deletion);
    one.end(talk, true);
    note_offset(talk, "the group deleted while pending, after the end", 3, &group, &topic);
}
