//! Committed offsets, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use ottla::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use ottla::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use ottla::types::Uuid;

use crate::transcript::Script;
use crate::wire_classic::{delete, describe, enter, join, leave, list, sync};

against_both!(transcript: offsets, offsets_of_members, offset_delete);

/// The first versions with topic ids instead of names.
const COMMIT_BY_ID: i16 = 10;
const FETCH_BY_ID: i16 = 10;
/// The first version that asks for many groups.
const FETCH_MANY: i16 = 8;

pub(crate) fn partition(partition_index: i32, offset: i64) -> OffsetCommitRequestPartition {
    OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    }
}

/// A commit by no member.
pub(crate) fn commit(
    group: &Str,
    topic: &(Str, Uuid),
    partitions: &[OffsetCommitRequestPartition],
    version: i16,
) -> OffsetCommitRequest {
    let by_id = version >= COMMIT_BY_ID;
    OffsetCommitRequest {
        group_id: group.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: if by_id { Str::EMPTY } else { topic.0.clone() },
            topic_id: if by_id { topic.1 } else { Uuid::ZERO },
            partitions: partitions.to_vec(),
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Partitions of a topic.
type Place<'a> = (&'a (Str, Uuid), &'a [i32]);

/// Asks for partitions of topics, or for everything.
pub(crate) fn fetch(group: &Str, topics: Option<&[Place<'_>]>, version: i16) -> OffsetFetchRequest {
    if version < FETCH_MANY {
        let topic = |&(topic, partitions): &Place<'_>| OffsetFetchRequestTopic {
            name: topic.0.clone(),
            partition_indexes: partitions.to_vec(),
        };
        return OffsetFetchRequest {
            group_id: group.clone(),
            topics: topics.map(|list| list.iter().map(topic).collect()),
            ..OffsetFetchRequest::default()
        };
    }
    let by_id = version >= FETCH_BY_ID;
    let topic = |&(topic, partitions): &Place<'_>| OffsetFetchRequestTopics {
        name: if by_id { Str::EMPTY } else { topic.0.clone() },
        topic_id: if by_id { topic.1 } else { Uuid::ZERO },
        partition_indexes: partitions.to_vec(),
    };
    let group = OffsetFetchRequestGroup {
        group_id: group.clone(),
        topics: topics.map(|list| list.iter().map(topic).collect()),
        ..OffsetFetchRequestGroup::default()
    };
    OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() }
}

/// Records what is fetched, in a fixed order.
fn ask_fetch(talk: &mut Script, label: &str, version: i16, request: OffsetFetchRequest) {
    let mut response: OffsetFetchResponse = talk.call(version, request);
    response.topics.sort_by(|one, other| one.name.cmp(&other.name));
    for topic in &mut response.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    for group in &mut response.groups {
        group.topics.sort_by_key(|topic| topic.partitions[0].committed_offset);
        for topic in &mut group.topics {
            topic.partitions.sort_by_key(|partition| partition.partition_index);
        }
    }
    talk.note(label, version, &response);
}

/// Records the outcome of a commit, in the order of the partitions, without topics that have none.
fn ask_commit(talk: &mut Script, label: &str, version: i16, request: OffsetCommitRequest) {
    let mut response = talk.call(version, request);
    response.topics.retain(|topic| !topic.partitions.is_empty());
    for topic in &mut response.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    talk.note(label, version, &response);
}

/// Offsets are committed and fetched at every version.
fn offsets(talk: &mut Script) {
    let topic = talk.topic("topic", 3);
    let missing = (talk.name("missing"), Uuid([7; 16]));
    talk.mask(&missing.1, "missing");
    talk.mask(&"é".repeat(2100), "long");
    for version in 1..=10 {
        ask_offsets(talk, &topic, &missing, version);
    }
}

fn ask_offsets(talk: &mut Script, topic: &(Str, Uuid), missing: &(Str, Uuid), version: i16) {
    let group = talk.group(&format!("offsets{version}"));
    talk.mask(&group, "group");
    let write = version.max(2);
    ask_fetch(talk, "fetch: no group", version, fetch(&group, Some(&[(topic, &[0, 9])]), version));
    let by_nobody = |partitions: &[_]| commit(&group, topic, partitions, write);
    for (label, request) in [
        (
            "no group id",
            OffsetCommitRequest { group_id: Str::EMPTY, ..by_nobody(&[partition(0, 1)]) },
        ),
        (
            "a member of no group",
            OffsetCommitRequest {
                member_id: "m".into(),
                generation_id_or_member_epoch: 1,
                ..by_nobody(&[partition(0, 1)])
            },
        ),
        (
            "a generation of no group",
            OffsetCommitRequest {
                generation_id_or_member_epoch: 0,
                ..by_nobody(&[partition(0, 1)])
            },
        ),
        ("no topics", OffsetCommitRequest { topics: Vec::new(), ..by_nobody(&[]) }),
        ("no partitions", by_nobody(&[])),
        ("an unknown topic", commit(&group, missing, &[partition(0, 1)], write)),
        ("an unknown partition", by_nobody(&[partition(0, 5), partition(3, 5), partition(-1, 5)])),
    ] {
        ask_commit(talk, &format!("commit: {label}"), write, request);
    }
    let rich = |text: Option<String>, epoch: i32| OffsetCommitRequestPartition {
        committed_metadata: text.map(Str::from),
        committed_leader_epoch: if write >= 6 { epoch } else { -1 },
        ..partition(1, 11)
    };
    ask_commit(talk, "commit: long metadata", write, by_nobody(&[rich(Some("x".repeat(4097)), 3)]));
    ask_commit(talk, "commit: metadata", write, by_nobody(&[rich(Some("é".repeat(2100)), 3)]));
    ask_commit(
        talk,
        "commit: no metadata",
        write,
        by_nobody(&[OffsetCommitRequestPartition { partition_index: 2, ..rich(None, 0) }]),
    );
    ask_commit(
        talk,
        "commit: twice the same",
        write,
        by_nobody(&[partition(0, 1), partition(0, 2)]),
    );
    ask_commit(talk, "commit: below nothing", write, by_nobody(&[partition(0, -7)]));
    let both: &[Place<'_>] = &[(topic, &[2, 1, 0, 9]), (missing, &[0])];
    ask_fetch(talk, "fetch: by name", version, fetch(&group, Some(both), version));
    ask_fetch(talk, "fetch: nothing", version, fetch(&group, Some(&[]), version));
    if version >= 2 {
        ask_fetch(talk, "fetch: everything", version, fetch(&group, None, version));
        let nobody = talk.group("nobody");
        ask_fetch(talk, "fetch: everything of no group", version, fetch(&nobody, None, version));
    }
    if version >= 7 {
        let stable = OffsetFetchRequest {
            require_stable: true,
            ..fetch(&group, Some(&[(topic, &[0])]), version)
        };
        ask_fetch(talk, "fetch: stable", version, stable);
    }
    if version >= FETCH_MANY {
        let mut request = fetch(&group, Some(&[(topic, &[0])]), version);
        let other = fetch(&talk.group("nobody"), None, version).groups.remove(0);
        request.groups.extend([other, request.groups[0].clone()]);
        ask_fetch(talk, "fetch: many groups", version, request);
    }
    if version >= 9 {
        let mut request = fetch(&group, Some(&[(topic, &[0])]), version);
        request.groups[0].member_id = Some("m".into());
        request.groups[0].member_epoch = 3;
        ask_fetch(talk, "fetch: as a member of a classic group", version, request);
    }
    describe(talk, "describe: offsets only", version.min(6), &group);
    list(talk, "list: offsets only", version.min(5), &group, (&[], &[]));
    delete(talk, "delete: offsets only", version.min(3), &group);
    ask_fetch(talk, "fetch: deleted", version, fetch(&group, Some(&[(topic, &[0])]), version));
}

/// A group with members keeps its offsets to itself.
fn offsets_of_members(talk: &mut Script) {
    let topic = talk.topic("topic", 2);
    for version in 2..=10 {
        of_members(talk, &topic, version);
    }
}

fn of_members(talk: &mut Script, topic: &(Str, Uuid), version: i16) {
    let group = talk.group(&format!("members{version}"));
    talk.mask(&group, "group");
    let joined = enter(talk, join(&group, &"".into(), 9), 9);
    let member = joined.member_id;
    let from = |generation: i32, member: &Str, offset: i64| OffsetCommitRequest {
        generation_id_or_member_epoch: generation,
        member_id: member.clone(),
        ..commit(&group, topic, &[partition(0, offset)], version)
    };
    talk.ask("commit: completing", version, from(1, &member, 1));
    talk.call(4, sync(&group, 1, &member, &[&member]));
    talk.ask("commit: its member", version, from(1, &member, 2));
    talk.ask("commit: another generation", version, from(2, &member, 3));
    talk.ask("commit: an earlier generation", version, from(0, &member, 3));
    talk.ask("commit: no generation", version, from(-1, &member, 4));
    talk.ask("commit: nobody", version, from(-1, &"".into(), 5));
    talk.ask("commit: somebody", version, from(1, &"x".into(), 6));
    if version >= 7 {
        let request =
            OffsetCommitRequest { group_instance_id: Some("i".into()), ..from(1, &member, 7) };
        talk.ask("commit: an unknown instance", version, request);
    }
    ask_fetch(talk, "fetch", version, fetch(&group, Some(&[(topic, &[0])]), version));
    talk.call(5, leave(&group, &member, 5));
    talk.ask("commit: a member that left", version, from(1, &member, 8));
    talk.ask("commit: nobody, it is empty", version, from(-1, &"".into(), 9));
    talk.ask("commit: somebody, without generation", version, from(-1, &"x".into(), 10));
    ask_fetch(talk, "fetch: afterwards", version, fetch(&group, Some(&[(topic, &[0])]), version));
}

/// Records the outcome of a deletion, in the order of the partitions.
fn ask_delete(talk: &mut Script, label: &str, request: OffsetDeleteRequest) {
    let mut response = talk.call(0, request);
    for topic in &mut response.topics {
        topic.partitions.sort_by_key(|partition| partition.partition_index);
    }
    talk.note(label, 0, &response);
}

/// Offsets are deleted where nobody reads.
fn offset_delete(talk: &mut Script) {
    let topic = talk.topic("topic", 3);
    let (read, free) = (talk.group("read"), talk.group("free"));
    let drop = |group: &Str, name: &Str, partitions: &[i32]| OffsetDeleteRequest {
        group_id: group.clone(),
        topics: vec![OffsetDeleteRequestTopic {
            name: name.clone(),
            partitions: partitions
                .iter()
                .map(|&partition_index| OffsetDeleteRequestPartition { partition_index })
                .collect(),
        }],
    };
    ask_delete(talk, "no group", drop(&free, &topic.0, &[0]));
    ask_delete(talk, "no group id", drop(&"".into(), &topic.0, &[0]));
    let partitions = [partition(0, 1), partition(1, 2)];
    talk.call(9, commit(&free, &topic, &partitions, 9));
    ask_delete(talk, "an unknown topic", drop(&free, &talk.name("missing"), &[0]));
    ask_delete(talk, "some partitions", drop(&free, &topic.0, &[0, 9, 2]));
    ask_fetch(talk, "what is left", 9, fetch(&free, Some(&[(&topic, &[0, 1])]), 9));
    ask_delete(
        talk,
        "nothing",
        OffsetDeleteRequest { group_id: free.clone(), ..Default::default() },
    );
    ask_delete(talk, "the rest", drop(&free, &topic.0, &[1]));
    list(talk, "list: nothing is left", 5, &free, (&[], &[]));

    // Members of another type do not say what they read.
    talk.call(9, commit(&read, &topic, &partitions, 9));
    let request = join(&read, &"".into(), 9);
    let request = ottla::protocol::messages::join_group::JoinGroupRequest {
        protocol_type: "connect".into(),
        ..request
    };
    let joined = enter(talk, request, 9);
    talk.call(4, sync(&read, 1, &joined.member_id, &[]));
    ask_delete(talk, "of members of another type", drop(&read, &topic.0, &[0]));
    talk.call(5, leave(&read, &joined.member_id, 5));

    // Those of consumers do; these name the topic as Kafka's own consumers would.
    let name = topic.0.as_bytes();
    let mut metadata = vec![0, 1, 0, 0, 0, 1, 0, u8::try_from(name.len()).unwrap()];
    metadata.extend_from_slice(name);
    metadata.extend_from_slice(&[0xff; 4]);
    metadata.extend_from_slice(&[0; 4]);
    let mut request = join(&read, &"".into(), 9);
    for protocol in &mut request.protocols {
        protocol.metadata = metadata.clone().into();
    }
    let joined = enter(talk, request, 9);
    talk.call(4, sync(&read, joined.generation_id, &joined.member_id, &[]));
    ask_delete(talk, "that a member reads", drop(&read, &topic.0, &[0, 9]));
    let other = talk.topic("other", 1);
    let joined = OffsetCommitRequest {
        generation_id_or_member_epoch: joined.generation_id,
        member_id: joined.member_id,
        ..commit(&read, &other, &[partition(0, 5)], 9)
    };
    talk.ask("commit: a topic that is not read", 9, joined);
    ask_delete(talk, "that no member reads", drop(&read, &other.0, &[0]));
    ask_fetch(talk, "what is left there", 9, fetch(&read, None, 9));
}
