use super::super::rig::{GROUP, Rig, join_request, subscription};
use super::super::{
    ConsumerGroupValue, Effect, Event, GroupConfig, GroupRecord, GroupRequest, JoinRequest,
    RequestId, SyncRequest,
};
use super::*;
use crate::machine::{Machine, Replicated as _};

fn rig() -> Rig {
    Rig::new(GroupConfig::default())
}

fn member_of(reply: &JoinReply) -> &str {
    &reply.member_id
}

#[test]
fn a_new_group_waits_for_its_delay_and_its_first_member_leads() {
    let mut rig = rig();
    let join = rig.join(join_request(""));
    rig.pass(2_999);
    assert!(!rig.is_answered(join));
    rig.pass(1);
    let reply = rig.joined(join);
    assert_eq!((reply.error.as_ref(), reply.generation_id), (None, 1));
    assert_eq!((reply.leader.clone(), reply.members.len()), (reply.member_id.clone(), 1));
    assert_eq!(reply.members[0].metadata, subscription(&["t"]));
    assert!(reply.member_id.starts_with("client-"), "{}", reply.member_id);
    assert_eq!(rig.describe().state, "CompletingRebalance");
}

#[test]
fn members_who_keep_coming_extend_the_initial_delay_up_to_the_rebalance_timeout() {
    let mut rig = rig();
    let request = || JoinRequest { rebalance_timeout_ms: 10_000, ..join_request("") };
    let mut joins = vec![rig.join(request())];
    for _ in 0..4 {
        rig.pass(2_400);
        assert!(joins.iter().all(|&join| !rig.is_answered(join)));
        joins.push(rig.join(request()));
    }
    // 9.6 s: the delay would extend to 12 s, but the timeout of 10 s cuts it short.
    rig.pass(400);
    let generations: Vec<_> =
        joins.into_iter().map(|join| rig.joined(join).generation_id).collect();
    assert_eq!(generations, [1; 5]);
}

#[test]
fn a_dynamic_member_is_sent_back_with_an_id_which_is_good_for_one_session() {
    let mut rig = rig();
    let ask = || JoinRequest { requires_known_member_id: true, ..join_request("") };
    let first = rig.join(ask());
    let first = rig.joined(first);
    assert_eq!(first.error.unwrap().code, ErrorCode::MemberIdRequired);
    let join = rig.join(join_request(&first.member_id));
    let second = rig.join(ask());
    let second = rig.joined(second).member_id;
    rig.pass(60_000);
    assert_eq!(rig.joined(join).members.len(), 1);
    assert_eq!(rig.join_error(join_request(&second)), ErrorCode::UnknownMemberId);
}

#[test]
fn a_rebalance_waits_for_those_who_hold_an_id() {
    let mut rig = rig();
    let (ids, _) = rig.stable(1);
    let pending = rig.join(JoinRequest { requires_known_member_id: true, ..join_request("") });
    let pending = rig.joined(pending).member_id;
    let leader = rig.join(join_request(&ids[0]));
    rig.pass(1_000);
    assert!(!rig.is_answered(leader));
    assert_eq!(rig.leave(&[(&pending, None)]), [ErrorCode::None]);
    assert_eq!(rig.joined(leader).members.len(), 1);
}

#[test]
fn the_assignment_is_in_the_log_before_anybody_is_told() {
    let mut rig = rig();
    let joins = [rig.join(join_request("")), rig.join(join_request(""))];
    rig.pass(6_000);
    let [one, two] = joins.map(|join| rig.joined(join));
    let (leader, follower) = if member_of(&one) == &*one.leader { (one, two) } else { (two, one) };
    assert!(follower.members.is_empty());
    let waits = rig.sync(&follower.member_id, 1, &[]);
    assert!(!rig.is_answered(waits));
    let mut out = Vec::new();
    let request = GroupRequest::Sync(SyncRequest {
        group_id: GROUP.into(),
        generation_id: 1,
        member_id: leader.member_id,
        instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("range".into()),
        assignments: vec![(follower.member_id.clone(), Bytes::from_static(b"all"))],
    });
    rig.shard.step(rig.now, Event::Request { id: RequestId(99), request }, &mut out);
    let Some((Effect::Append { records, reply: None }, replies)) = out.split_first() else {
        panic!("{out:?}")
    };
    let [GroupRecord::GroupMetadata { value: Some(value), .. }] = &records[..] else {
        panic!("{records:?}")
    };
    assert_eq!((value.generation, value.members.len()), (1, 2));
    assert_eq!(value.members.iter().map(|member| member.assignment.len()).sum::<usize>(), 3);
    assert_eq!(replies.len(), 2);
    assert_eq!(rig.describe().state, "Stable");
    let again = rig.sync(&follower.member_id, 1, &[]);
    assert_eq!(rig.synced(again).unwrap(), "all");
}

#[test]
fn members_are_told_to_join_again_and_who_does_not_is_out() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(3);
    let newcomer = rig.join(join_request(""));
    for id in &ids {
        assert_eq!(rig.heartbeat(id, generation), ErrorCode::RebalanceInProgress);
    }
    let back: Vec<_> = ids[1..].iter().map(|id| rig.join(join_request(id))).collect();
    for _ in 0..12 {
        rig.pass(5_000);
        // It is alive, yet does not join.
        rig.heartbeat(&ids[0], generation);
    }
    let reply = rig.joined(newcomer);
    assert_eq!(reply.generation_id, generation + 1);
    let replies: Vec<_> = back.into_iter().map(|join| rig.joined(join)).collect();
    assert!(replies.iter().all(|reply| reply.generation_id == generation + 1));
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
    assert_eq!(rig.describe().members.len(), 3);
    assert_ne!(reply.leader, ids[0]);
}

#[test]
fn a_rebalance_ends_with_the_last_join() {
    let mut rig = rig();
    let (ids, _) = rig.stable(2);
    let newcomer = rig.join(join_request(""));
    let one = rig.join(join_request(&ids[0]));
    assert!(!rig.is_answered(one));
    let two = rig.join(join_request(&ids[1]));
    for join in [newcomer, one, two] {
        assert_eq!(rig.joined(join).generation_id, 2);
    }
}

#[test]
fn heartbeats_name_what_is_wrong() {
    let mut rig = rig();
    assert_eq!(rig.heartbeat("nobody", 1), ErrorCode::UnknownMemberId);
    let (ids, generation) = rig.stable(1);
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::None);
    assert_eq!(rig.heartbeat(&ids[0], generation + 1), ErrorCode::IllegalGeneration);
    assert_eq!(rig.heartbeat("nobody", generation), ErrorCode::UnknownMemberId);
    let instance = rig.static_heartbeat(&ids[0], generation, Some("i"));
    assert_eq!(instance, ErrorCode::UnknownMemberId);
}

#[test]
fn a_silent_member_is_lost_after_its_session_and_the_others_rebalance() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(2);
    rig.pass(9_000);
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::None);
    rig.pass(1_000);
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let join = rig.join(join_request(&ids[0]));
    assert_eq!(rig.joined(join).members.len(), 1);
}

#[test]
fn the_last_member_leaves_an_empty_generation_in_the_log() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(1);
    assert_eq!(
        rig.leave(&[(&ids[0], None), ("nobody", None)]),
        [ErrorCode::None, ErrorCode::UnknownMemberId]
    );
    assert_eq!(rig.describe().state, "Empty");
    let Some(GroupRecord::GroupMetadata { value: Some(value), .. }) = rig.log.last() else {
        panic!("{:?}", rig.log.last())
    };
    assert_eq!((value.generation, value.members.len(), &value.leader), (generation + 1, 0, &None));
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::UnknownMemberId);
}

#[test]
fn one_who_waits_for_an_answer_is_not_silent() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(2);
    let join = rig.join(join_request(&ids[0]));
    for _ in 0..6 {
        rig.pass(8_000);
        assert_eq!(rig.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
    }
    assert!(!rig.is_answered(join));
    let other = rig.join(join_request(&ids[1]));
    assert_eq!(rig.joined(join).generation_id, 2);
    assert_eq!(rig.joined(other).generation_id, 2);
}

#[test]
fn a_join_that_is_repeated_answers_the_newest_and_sends_the_older_back() {
    let mut rig = rig();
    let (ids, _) = rig.stable(2);
    let first = rig.join(join_request(&ids[0]));
    let second = rig.join(join_request(&ids[0]));
    assert_eq!(rig.joined(first).error.unwrap().code, ErrorCode::RebalanceInProgress);
    let other = rig.join(join_request(&ids[1]));
    assert_eq!(rig.joined(second).generation_id, 2);
    assert_eq!(rig.joined(other).generation_id, 2);
}

#[test]
fn a_sync_that_is_repeated_answers_the_newest_and_sends_the_older_back() {
    let mut rig = rig();
    let joins = [rig.join(join_request("")), rig.join(join_request(""))];
    rig.pass(6_000);
    let replies = joins.map(|join| rig.joined(join));
    let leader = replies[0].leader.clone();
    let follower = replies.iter().find(|reply| reply.member_id != leader).unwrap();
    let first = rig.sync(&follower.member_id, 1, &[]);
    let second = rig.sync(&follower.member_id, 1, &[]);
    assert_eq!(rig.synced(first), Err(ErrorCode::RebalanceInProgress));
    let lead = rig.sync(&leader, 1, &[(&follower.member_id, "p0")]);
    assert_eq!(rig.synced(second).unwrap(), "p0");
    assert_eq!(rig.synced(lead).unwrap(), "");
}

#[test]
fn those_who_do_not_sync_in_time_are_out() {
    let mut rig = rig();
    let request = || JoinRequest {
        rebalance_timeout_ms: 5_000,
        session_timeout_ms: 20_000,
        ..join_request("")
    };
    let joins = [rig.join(request()), rig.join(request())];
    rig.pass(6_000);
    let replies = joins.map(|join| rig.joined(join));
    let leader = replies[0].leader.clone();
    let follower = replies.iter().find(|reply| reply.member_id != leader).unwrap();
    let waits = rig.sync(&follower.member_id, 1, &[]);
    rig.pass(5_000);
    assert_eq!(rig.synced(waits), Err(ErrorCode::RebalanceInProgress));
    assert_eq!(rig.heartbeat(&leader, 1), ErrorCode::UnknownMemberId);
    let join = rig.join(JoinRequest { member_id: follower.member_id.clone(), ..request() });
    assert_eq!(rig.joined(join).leader, follower.member_id);
}

#[test]
fn a_member_that_leaves_while_it_waits_is_answered() {
    let mut rig = rig();
    let joins = [rig.join(join_request("")), rig.join(join_request(""))];
    rig.pass(6_000);
    let replies = joins.map(|join| rig.joined(join));
    let leader = replies[0].leader.clone();
    let follower = replies.iter().find(|reply| reply.member_id != leader).unwrap();
    let waits = rig.sync(&follower.member_id, 1, &[]);
    assert_eq!(rig.leave(&[(&follower.member_id, None)]), [ErrorCode::None]);
    assert_eq!(rig.synced(waits), Err(ErrorCode::UnknownMemberId));
    let join = rig.join(join_request(&leader));
    assert_eq!(rig.joined(join).members.len(), 1);
}

#[test]
fn a_leader_that_joins_again_rebalances_and_a_follower_does_not() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(2);
    let follower = rig.join(join_request(&ids[1]));
    assert_eq!(rig.joined(follower).generation_id, generation);
    let leader = rig.join(join_request(&ids[0]));
    assert!(!rig.is_answered(leader));
    assert_eq!(rig.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_follower_with_another_subscription_rebalances() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(2);
    let mut request = join_request(&ids[1]);
    request.protocols[0].metadata = subscription(&["t", "u"]);
    let follower = rig.join(request);
    assert!(!rig.is_answered(follower));
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
}

fn supports(names: &[&str]) -> Vec<ClassicProtocol> {
    let protocol = |name: &&str| ClassicProtocol { name: (*name).into(), metadata: Bytes::new() };
    names.iter().map(protocol).collect()
}

#[test]
fn the_protocol_most_members_like_best_wins_among_those_all_support() {
    let mut rig = rig();
    let wishes: [&[&str]; 3] = [&["c", "a", "b"], &["b", "a"], &["b", "a", "c"]];
    let joins = wishes
        .map(|names| rig.join(JoinRequest { protocols: supports(names), ..join_request("") }));
    rig.pass(9_000);
    for join in joins {
        assert_eq!(rig.joined(join).protocol_name.as_deref(), Some("b"));
    }
}

#[test]
fn a_member_without_a_common_protocol_is_refused() {
    let mut rig = rig();
    rig.stable(2);
    let other = JoinRequest { protocols: supports(&["sticky"]), ..join_request("") };
    assert_eq!(rig.join_error(other), ErrorCode::InconsistentGroupProtocol);
    let other = JoinRequest { protocol_type: "connect".into(), ..join_request("") };
    assert_eq!(rig.join_error(other), ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_join_that_cannot_be_makes_no_group() {
    let mut rig = rig();
    let none = JoinRequest { protocols: Vec::new(), ..join_request("") };
    assert_eq!(rig.join_error(none), ErrorCode::InconsistentGroupProtocol);
    let soon = JoinRequest { session_timeout_ms: 5_999, ..join_request("") };
    assert_eq!(rig.join_error(soon), ErrorCode::InvalidSessionTimeout);
    let late = JoinRequest { session_timeout_ms: 1_800_001, ..join_request("") };
    assert_eq!(rig.join_error(late), ErrorCode::InvalidSessionTimeout);
    let nameless = JoinRequest { group_id: "".into(), ..join_request("") };
    assert_eq!(rig.join_error(nameless), ErrorCode::InvalidGroupId);
    assert_eq!(rig.join_error(join_request("from before")), ErrorCode::UnknownMemberId);
    assert_eq!(rig.describe().error.unwrap().code, ErrorCode::GroupIdNotFound);
    assert!(rig.log.is_empty());
}

#[test]
fn a_full_group_turns_newcomers_away() {
    let mut rig = Rig::new(GroupConfig { classic_size_max: 2, ..GroupConfig::default() });
    let (ids, _) = rig.stable(2);
    assert_eq!(rig.join_error(join_request("")), ErrorCode::GroupMaxSizeReached);
    let leader = rig.join(join_request(&ids[0]));
    let other = rig.join(join_request(&ids[1]));
    assert_eq!(rig.joined(leader).generation_id, 2);
    assert_eq!(rig.joined(other).generation_id, 2);
}

#[test]
fn a_group_that_is_over_its_size_after_a_restart_sheds_members_in_a_rebalance() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(3);
    rig.config.classic_size_max = 2;
    rig.restart();
    assert_eq!(rig.heartbeat(&ids[0], generation), ErrorCode::RebalanceInProgress);
    let stay = [rig.join(join_request(&ids[0])), rig.join(join_request(&ids[1]))];
    assert_eq!(rig.join_error(join_request(&ids[2])), ErrorCode::GroupMaxSizeReached);
    for join in stay {
        assert_eq!(rig.joined(join).generation_id, generation + 1);
    }
}

#[test]
fn a_restart_keeps_members_generation_and_assignments() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(3);
    let before = rig.describe();
    rig.restart();
    assert_eq!(rig.describe(), before);
    assert_eq!(rig.heartbeat(&ids[1], generation), ErrorCode::None);
    let sync = rig.sync(&ids[1], generation, &[]);
    assert_eq!(rig.synced(sync).unwrap(), ids[1].as_bytes());
    rig.pass(9_999);
    assert_eq!(rig.heartbeat(&ids[1], generation), ErrorCode::None);
    rig.pass(1);
    assert_eq!(rig.heartbeat(&ids[1], generation), ErrorCode::RebalanceInProgress);
}

fn static_request(instance: &str) -> JoinRequest {
    JoinRequest { instance_id: Some(instance.into()), ..join_request("") }
}

/// A stable group of static members `a`, which leads, and `b`. Gives their ids.
fn stable_statics(rig: &mut Rig) -> [Arc<str>; 2] {
    let joins = ["a", "b"].map(|instance| rig.join(static_request(instance)));
    rig.pass(6_000);
    let ids = joins.map(|join| rig.joined(join).member_id);
    let leader = rig.sync(&ids[0], 1, &[(&ids[0], "p0"), (&ids[1], "p1")]);
    let follower = rig.sync(&ids[1], 1, &[]);
    assert_eq!(rig.synced(leader).unwrap(), "p0");
    assert_eq!(rig.synced(follower).unwrap(), "p1");
    ids
}

#[test]
fn a_static_member_that_comes_back_keeps_its_assignment_without_a_rebalance() {
    let mut rig = rig();
    let [_, old] = stable_statics(&mut rig);
    let join = rig.join(static_request("b"));
    let reply = rig.joined(join);
    assert_eq!((reply.generation_id, reply.skip_assignment), (1, false));
    assert_ne!(reply.member_id, old);
    assert!(reply.member_id.starts_with("b-"), "{}", reply.member_id);
    let sync = rig.sync(&reply.member_id, 1, &[]);
    assert_eq!(rig.synced(sync).unwrap(), "p1");
    assert_eq!(rig.static_heartbeat(&old, 1, Some("b")), ErrorCode::FencedInstanceId);
    assert_eq!(rig.heartbeat(&old, 1), ErrorCode::UnknownMemberId);
    let fenced = JoinRequest { member_id: old, ..static_request("b") };
    assert_eq!(rig.join_error(fenced), ErrorCode::FencedInstanceId);
    rig.restart();
    assert_eq!(rig.static_heartbeat(&reply.member_id, 1, Some("b")), ErrorCode::None);
}

#[test]
fn a_static_leader_that_comes_back_is_told_not_to_assign() {
    let mut rig = rig();
    let [old, _] = stable_statics(&mut rig);
    let join = rig.join(static_request("a"));
    let reply = rig.joined(join);
    assert!(reply.skip_assignment && reply.leader == reply.member_id && reply.members.len() == 2);
    // A client from before KIP-814 is not told that it leads.
    let older = JoinRequest { supports_skipping_assignment: false, ..static_request("a") };
    let join = rig.join(older);
    let second = rig.joined(join);
    assert!(!second.skip_assignment && second.members.is_empty());
    assert_eq!(second.leader, reply.member_id);
    assert_ne!(second.leader, second.member_id);
    assert_ne!(old, reply.member_id);
}

#[test]
fn a_static_member_that_comes_back_while_its_generation_is_assigned_rebalances() {
    let mut rig = rig();
    let joins = ["a", "b"].map(|instance| rig.join(static_request(instance)));
    rig.pass(6_000);
    let ids = joins.map(|join| rig.joined(join).member_id);
    let waits = rig.sync(&ids[1], 1, &[]);
    let back = rig.join(static_request("b"));
    assert_eq!(rig.synced(waits), Err(ErrorCode::FencedInstanceId));
    let stale = rig.sync(&ids[0], 1, &[]);
    assert_eq!(rig.synced(stale), Err(ErrorCode::RebalanceInProgress));
    let other = JoinRequest { member_id: ids[0].clone(), ..static_request("a") };
    let other = rig.join(other);
    assert_eq!(rig.joined(back).generation_id, 2);
    assert_eq!(rig.joined(other).members.len(), 2);
}

#[test]
fn a_static_member_that_is_late_stays_and_is_removed_by_its_session_alone() {
    let mut rig = rig();
    let [leader, late] = stable_statics(&mut rig);
    let request = || JoinRequest { rebalance_timeout_ms: 4_000, ..static_request("a") };
    let join = rig.join(JoinRequest { member_id: leader, ..request() });
    assert!(!rig.is_answered(join));
    rig.pass(10_000);
    // The session of `b` expired while the leader waited.
    assert_eq!(rig.joined(join).members.len(), 1);
    assert_eq!(rig.static_heartbeat(&late, 1, Some("b")), ErrorCode::UnknownMemberId);
}

#[test]
fn an_administrator_removes_a_static_member_by_its_instance() {
    let mut rig = rig();
    let [leader, _] = stable_statics(&mut rig);
    let results = rig.leave(&[("", Some("b")), ("", Some("z")), ("nobody", Some("a")), ("", None)]);
    assert_eq!(
        results,
        [
            ErrorCode::None,
            ErrorCode::UnknownMemberId,
            ErrorCode::FencedInstanceId,
            ErrorCode::UnknownMemberId
        ]
    );
    assert_eq!(rig.static_heartbeat(&leader, 1, Some("a")), ErrorCode::RebalanceInProgress);
}

#[test]
fn a_sync_for_another_protocol_is_refused() {
    let mut rig = rig();
    let (ids, generation_id) = rig.stable(1);
    let id = rig.ask(GroupRequest::Sync(SyncRequest {
        group_id: GROUP.into(),
        generation_id,
        member_id: ids[0].clone(),
        instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol_name: Some("sticky".into()),
        assignments: Vec::new(),
    }));
    assert_eq!(rig.synced(id), Err(ErrorCode::InconsistentGroupProtocol));
    let wrong = rig.sync(&ids[0], generation_id + 1, &[]);
    assert_eq!(rig.synced(wrong), Err(ErrorCode::IllegalGeneration));
}

#[test]
fn a_stall_of_the_process_costs_nobody_whose_heartbeat_had_arrived() {
    let mut rig = rig();
    let (ids, generation) = rig.stable(3);
    rig.now = rig.now.plus(3_600_000);
    for id in &ids {
        assert_eq!(rig.heartbeat(id, generation), ErrorCode::None);
    }
    rig.event(Event::Tick);
    assert_eq!(rig.heartbeat(&ids[2], generation), ErrorCode::None);
}

#[test]
fn a_record_that_does_not_fit_is_an_error_and_undoes_its_step() {
    let mut rig = rig();
    rig.stable(1);
    let record = GroupRecord::ConsumerGroupMetadata {
        group: GROUP.into(),
        value: Some(ConsumerGroupValue { epoch: 1, metadata_hash: 0 }),
    };
    let misfit = rig.shard.apply(&record).unwrap_err();
    assert!(misfit.0.contains("g is a classic one"), "{misfit}");
    rig.shard.commit(vec![record], None);
    let mut out = Vec::new();
    rig.shard.step(rig.now, Event::Tick, &mut out);
    assert_eq!(out, [Effect::Undo(misfit)]);
}
