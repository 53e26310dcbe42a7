//! The classic protocol of groups, word for word at every version.

use bytes::Bytes;
use ottla::protocol::Str;
use ottla::protocol::messages::delete_groups::DeleteGroupsRequest;
use ottla::protocol::messages::describe_groups::{DescribeGroupsRequest, DescribeGroupsResponse};
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::heartbeat::HeartbeatRequest;
use ottla::protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use ottla::protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use ottla::protocol::messages::list_groups::{ListGroupsRequest, ListGroupsResponse};
use ottla::protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};

use crate::transcript::Script;

against_both!(transcript: find_coordinator, classic_life, classic_rebalance, classic_static);

/// The error that sends a member back with an id.
const MEMBER_ID_REQUIRED: i16 = 79;

pub(crate) fn join(group: &Str, member: &Str, version: i16) -> JoinGroupRequest {
    let protocol = |name: &'static str, metadata: &'static [u8]| JoinGroupRequestProtocol {
        name: name.into(),
        metadata: Bytes::from_static(metadata),
    };
    JoinGroupRequest {
        group_id: group.clone(),
        session_timeout_ms: 20_000,
        rebalance_timeout_ms: if version >= 1 { 20_000 } else { -1 },
        member_id: member.clone(),
        protocol_type: "consumer".into(),
        protocols: vec![protocol("first", b"one"), protocol("second", b"two")],
        ..JoinGroupRequest::default()
    }
}

/// A static member.
fn instance(name: &'static str, request: JoinGroupRequest) -> JoinGroupRequest {
    JoinGroupRequest { group_instance_id: Some(name.into()), ..request }
}

pub(crate) fn sync(
    group: &Str,
    generation: i32,
    member: &Str,
    shares: &[&Str],
) -> SyncGroupRequest {
    let share = |member: &&Str| SyncGroupRequestAssignment {
        member_id: (*member).clone(),
        assignment: Bytes::from_static(b"share"),
    };
    SyncGroupRequest {
        group_id: group.clone(),
        generation_id: generation,
        member_id: member.clone(),
        assignments: shares.iter().map(share).collect(),
        ..SyncGroupRequest::default()
    }
}

pub(crate) fn heartbeat(group: &Str, generation: i32, member: &Str) -> HeartbeatRequest {
    HeartbeatRequest {
        group_id: group.clone(),
        generation_id: generation,
        member_id: member.clone(),
        ..HeartbeatRequest::default()
    }
}

pub(crate) fn leave(group: &Str, member: &Str, version: i16) -> LeaveGroupRequest {
    let identity = MemberIdentity { member_id: member.clone(), ..MemberIdentity::default() };
    let many = version >= 3;
    LeaveGroupRequest {
        group_id: group.clone(),
        member_id: if many { Str::EMPTY } else { member.clone() },
        members: if many { vec![identity] } else { Vec::new() },
    }
}

pub(crate) fn describe(talk: &mut Script, label: &str, version: i16, group: &Str) {
    let request = DescribeGroupsRequest {
        groups: vec![group.clone()],
        include_authorized_operations: version >= 3,
    };
    let mut response: DescribeGroupsResponse = talk.call(version, request);
    response.groups[0].members.sort_by(|one, other| one.member_id.cmp(&other.member_id));
    talk.note(label, version, &response);
}

/// The part of the listing about this group.
pub(crate) fn list(
    talk: &mut Script,
    label: &str,
    version: i16,
    group: &Str,
    filters: (&[&'static str], &[&'static str]),
) {
    let words = |list: &[&'static str]| list.iter().map(|&word| word.into()).collect();
    let request =
        ListGroupsRequest { states_filter: words(filters.0), types_filter: words(filters.1) };
    let response: ListGroupsResponse = talk.call(version, request);
    let listed: Vec<_> = response.groups.iter().filter(|one| one.group_id == *group).collect();
    talk.note(label, version, &(response.error_code, listed));
}

pub(crate) fn delete(talk: &mut Script, label: &str, version: i16, group: &Str) {
    let request = DeleteGroupsRequest { groups_names: vec![group.clone()] };
    talk.ask(label, version, request);
}

/// Joins; the second time with the id from the first answer if there was none.
pub(crate) fn enter(
    talk: &mut Script,
    request: JoinGroupRequest,
    version: i16,
) -> JoinGroupResponse {
    let response = talk.call(version, request.clone());
    if response.error_code != MEMBER_ID_REQUIRED {
        return response;
    }
    talk.call(version, JoinGroupRequest { member_id: response.member_id, ..request })
}

/// The coordinator is found at every version.
fn find_coordinator(talk: &mut Script) {
    let group = talk.group("group");
    for version in 0..=6 {
        let many = version >= 4;
        let request = |key: &Str, key_type: i8| FindCoordinatorRequest {
            key: if many { Str::EMPTY } else { key.clone() },
            key_type: if version >= 1 { key_type } else { 0 },
            coordinator_keys: if many { vec![key.clone()] } else { Vec::new() },
        };
        let mut found = talk.call(version, request(&group, 0));
        // The broker differs.
        assert!(found.host.is_empty() == many);
        (found.node_id, found.port, found.host) = (0, 0, Str::EMPTY);
        for one in &mut found.coordinators {
            assert!(one.port > 0);
            (one.node_id, one.port, one.host) = (0, 0, Str::EMPTY);
        }
        talk.note("a group", version, &found);
        if version >= 1 {
            talk.ask("a key type that does not exist", version, request(&group, 9));
        }
        if many {
            let keys = vec![group.clone(), "".into(), group.clone()];
            let request = FindCoordinatorRequest { coordinator_keys: keys, ..Default::default() };
            let found = talk.call(version, request);
            let keys = found.coordinators.into_iter().map(|one| (one.key, one.error_code));
            let keys: Vec<_> = keys.collect();
            talk.note("three keys", version, &keys);
        }
    }
}

/// A classic group lives and ends at every version.
fn classic_life(talk: &mut Script) {
    for version in 0..=9 {
        live(talk, version);
    }
}

fn live(talk: &mut Script, version: i16) {
    let group = talk.group(&format!("life{version}"));
    talk.mask(&group, "group");
    let nobody = Str::from_static("nobody");
    let small = version.min(4);
    let middle = version.min(5);
    let large = version.min(6);
    describe(talk, "describe: before", large, &group);
    for (label, wrong) in [
        (
            "join: no group id",
            JoinGroupRequest { group_id: Str::EMPTY, ..join(&group, &"".into(), version) },
        ),
        (
            "join: short session",
            JoinGroupRequest { session_timeout_ms: 1, ..join(&group, &"".into(), version) },
        ),
        (
            "join: long session",
            JoinGroupRequest { session_timeout_ms: i32::MAX, ..join(&group, &"".into(), version) },
        ),
        (
            "join: no protocols",
            JoinGroupRequest { protocols: Vec::new(), ..join(&group, &"".into(), version) },
        ),
        (
            "join: no type",
            JoinGroupRequest { protocol_type: Str::EMPTY, ..join(&group, &"".into(), version) },
        ),
        ("join: unknown member of no group", join(&group, &nobody, version)),
    ] {
        talk.ask(label, version, wrong);
    }
    let sync = |generation: i32, member: &Str, shares: &[&Str]| {
        let request = sync(&group, generation, member, shares);
        if middle < 5 {
            return request;
        }
        let (kind, name) = (Some("consumer".into()), Some("first".into()));
        SyncGroupRequest { protocol_type: kind, protocol_name: name, ..request }
    };
    talk.ask("heartbeat: no group", small, heartbeat(&group, 1, &nobody));
    talk.ask("heartbeat: no group id", small, heartbeat(&"".into(), 1, &nobody));
    talk.ask("sync: no group", middle, sync(1, &nobody, &[]));
    talk.ask(
        "sync: no group id",
        middle,
        SyncGroupRequest { group_id: Str::EMPTY, ..sync(1, &nobody, &[]) },
    );
    talk.ask("leave: no group", middle, leave(&group, &nobody, middle));
    talk.ask("leave: no group id", middle, leave(&"".into(), &nobody, middle));

    let first = talk.ask("join: the first", version, join(&group, &"".into(), version));
    let member = first.member_id.clone();
    talk.mask(&member, "member");
    let first = if first.error_code == MEMBER_ID_REQUIRED {
        describe(talk, "describe: an id is given out", large, &group);
        list(talk, "list: an id is given out", middle, &group, (&[], &[]));
        talk.ask("join: with the id", version, join(&group, &member, version))
    } else {
        first
    };
    let generation = first.generation_id;
    describe(talk, "describe: completing", large, &group);
    list(talk, "list: completing", middle, &group, (&[], &[]));
    talk.ask("heartbeat: completing", small, heartbeat(&group, generation, &member));
    talk.ask("join: again, the same", version, join(&group, &member, version));
    talk.ask("sync: another generation", middle, sync(77, &member, &[]));
    talk.ask("sync: another member", middle, sync(generation, &nobody, &[]));
    if middle >= 5 {
        for (label, kind, protocol) in
            [("another type", "connect", "first"), ("another protocol", "consumer", "third")]
        {
            let request = SyncGroupRequest {
                protocol_type: Some(kind.into()),
                protocol_name: Some(protocol.into()),
                ..sync(generation, &member, &[])
            };
            talk.ask(&format!("sync: {label}"), middle, request);
        }
    }
    talk.ask("sync: the leader", middle, sync(generation, &member, &[&member, &nobody]));
    talk.ask("sync: again", middle, sync(generation, &member, &[]));
    describe(talk, "describe: stable", large, &group);
    list(talk, "list: stable", middle, &group, (&[], &[]));
    if middle >= 4 {
        list(talk, "list: by state", middle, &group, (&["Empty", "stable"], &[]));
        list(talk, "list: by another state", middle, &group, (&["Empty", "Nonsense"], &[]));
    }
    if middle >= 5 {
        list(talk, "list: by type", middle, &group, (&[], &["CLASSIC"]));
        list(talk, "list: by another type", middle, &group, (&[], &["consumer", "nonsense"]));
    }
    talk.ask("heartbeat: stable", small, heartbeat(&group, generation, &member));
    talk.ask("heartbeat: another generation", small, heartbeat(&group, generation + 1, &member));
    talk.ask("heartbeat: another member", small, heartbeat(&group, generation, &nobody));
    let unlike = JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol { name: "third".into(), metadata: Bytes::new() }],
        ..join(&group, &"".into(), version)
    };
    talk.ask("join: no common protocol", version, unlike);
    let unlike =
        JoinGroupRequest { protocol_type: "connect".into(), ..join(&group, &"".into(), version) };
    talk.ask("join: another type", version, unlike);
    talk.ask("join: unknown member", version, join(&group, &nobody, version));
    let again = talk.ask("join: the leader again", version, join(&group, &member, version));
    let generation = again.generation_id;
    talk.ask("sync: the next generation", middle, sync(generation, &member, &[&member]));
    delete(talk, "delete: with a member", version.min(3), &group);
    talk.ask("leave: another member", middle, leave(&group, &nobody, middle));
    talk.ask("leave", middle, leave(&group, &member, middle));
    talk.ask("leave: again", middle, leave(&group, &member, middle));
    describe(talk, "describe: empty", large, &group);
    list(talk, "list: empty", middle, &group, (&[], &[]));
    talk.ask("heartbeat: empty", small, heartbeat(&group, generation, &member));
    talk.ask("sync: empty", middle, sync(generation, &member, &[]));
    talk.ask("join: empty, with the old id", version, join(&group, &member, version));
    delete(talk, "delete", version.min(3), &group);
    delete(talk, "delete: again", version.min(3), &group);
    describe(talk, "describe: deleted", large, &group);
}

/// Two members rebalance.
fn classic_rebalance(talk: &mut Script) {
    for version in [3, 5, 9] {
        rebalance(talk, version);
    }
}

fn rebalance(talk: &mut Script, version: i16) {
    let group = talk.group(&format!("pair{version}"));
    talk.mask(&group, "group");
    let first = enter(talk, join(&group, &"".into(), version), version);
    let one = first.member_id.clone();
    talk.mask(&one, "one");
    talk.call(3, sync(&group, first.generation_id, &one, &[&one]));

    let mut second = talk.connect();
    let asked = join(&group, &"".into(), version);
    let two = if version >= 4 {
        let refused = second.call(version, asked.clone());
        second.send(version, JoinGroupRequest { member_id: refused.member_id.clone(), ..asked });
        refused.member_id
    } else {
        second.send(version, asked);
        Str::EMPTY
    };
    // The second member waits until the first one joins.
    let told = |talk: &mut Script, generation| {
        talk.call(3, heartbeat(&group, generation, &one)).error_code
    };
    while told(talk, 1) == 0 {}
    talk.ask("heartbeat: rebalancing", 3, heartbeat(&group, 1, &one));
    talk.ask("sync: rebalancing", 3, sync(&group, 1, &one, &[]));
    list(talk, "list: rebalancing", 5, &group, (&[], &[]));
    let mut again = talk.call(version, join(&group, &one, version));
    let answer = second.receive::<JoinGroupRequest>(version);
    let two = if two.is_empty() { answer.member_id.clone() } else { two };
    talk.mask(&two, "two");
    again.members.sort_by_key(|member| member.member_id != one);
    talk.note("join: the leader", version, &again);
    talk.note("join: the other", version, &answer);

    talk.ask("heartbeat: completing", 3, heartbeat(&group, 2, &one));
    second.send(3, sync(&group, 2, &two, &[]));
    talk.ask("sync: the leader forgets one", 3, sync(&group, 2, &one, &[&one]));
    let answer = second.receive::<SyncGroupRequest>(3);
    talk.note("sync: the forgotten one", 3, &answer);
    // A follower that rejoins with unchanged data learns the generation and nothing more.
    let answer = second.call(version, join(&group, &two, version));
    talk.note("join: the follower again", version, &answer);
    let other = JoinGroupRequest {
        protocols: vec![JoinGroupRequestProtocol { name: "second".into(), metadata: Bytes::new() }],
        ..join(&group, &two, version)
    };
    second.send(version, other);
    while told(talk, 2) == 0 {}
    talk.ask("leave: the leader, in a rebalance", 3, leave(&group, &one, 3));
    let answer = second.receive::<JoinGroupRequest>(version);
    talk.note("join: the follower leads", version, &answer);
    let request = LeaveGroupRequest {
        group_id: group.clone(),
        members: [&two, &one, &two]
            .map(|member| MemberIdentity { member_id: member.clone(), ..Default::default() })
            .into(),
        ..LeaveGroupRequest::default()
    };
    talk.ask("leave: three at once", 3, request);
    list(talk, "list: left", 5, &group, (&[], &[]));
}

/// Static members come back and fence their former selves.
fn classic_static(talk: &mut Script) {
    for version in [5, 8, 9] {
        stay(talk, version);
    }
}

fn stay(talk: &mut Script, version: i16) {
    let group = talk.group(&format!("static{version}"));
    talk.mask(&group, "group");
    let first =
        talk.ask("join: an instance", version, instance("i", join(&group, &"".into(), version)));
    let old = first.member_id;
    talk.mask(&old, "old");
    talk.call(3, sync(&group, 1, &old, &[&old]));
    let fenced =
        JoinGroupRequest { member_id: "other".into(), ..join(&group, &"".into(), version) };
    talk.ask("join: an instance, another id", version, instance("i", fenced.clone()));
    talk.ask("join: another instance, some id", version, instance("j", fenced));
    let back =
        talk.ask("join: it is back", version, instance("i", join(&group, &"".into(), version)));
    let new = back.member_id;
    talk.mask(&new, "new");
    describe(talk, "describe: it is back", 5, &group);
    for member in [&old, &new] {
        let shown = if *member == old { "old" } else { "new" };
        let beat = HeartbeatRequest {
            group_instance_id: Some("i".into()),
            ..heartbeat(&group, 1, member)
        };
        talk.ask(&format!("heartbeat: {shown} id"), 4, beat.clone());
        let beat = HeartbeatRequest { group_instance_id: Some("j".into()), ..beat };
        talk.ask(&format!("heartbeat: {shown} id, unknown instance"), 4, beat);
        talk.ask(&format!("heartbeat: {shown} id, no instance"), 4, heartbeat(&group, 1, member));
        let request = SyncGroupRequest {
            group_instance_id: Some("i".into()),
            ..sync(&group, 1, member, &[])
        };
        talk.ask(&format!("sync: {shown} id"), 4, request);
        let request = instance("i", join(&group, member, version));
        talk.ask(&format!("join: {shown} id"), version, request);
    }
    let identity = |member: &Str, instance: &'static str| MemberIdentity {
        member_id: member.clone(),
        group_instance_id: Some(instance.into()),
        ..MemberIdentity::default()
    };
    let members = [
        identity(&old, "i"),
        identity(&"".into(), "j"),
        identity(&new, "j"),
        identity(&"".into(), "i"),
        identity(&"".into(), "i"),
    ];
    let request = LeaveGroupRequest {
        group_id: group.clone(),
        members: members.into(),
        ..LeaveGroupRequest::default()
    };
    talk.ask("leave: an administrator removes", 5, request);
    list(talk, "list: removed", 5, &group, (&[], &[]));
}
