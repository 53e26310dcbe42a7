//! Heartbeats of members: joins, fencing, reconciliation, leaves.

use super::*;
use crate::machine::group::{DescribedConsumerMember, LeaveRequest, LeavingMember};
use crate::types::PartitionIndex;

#[test]
fn the_first_member_gets_everything_at_once() {
    let mut bench = Bench::new(&[("a", 3), ("b", 1)]);
    let reply = bench.heartbeat(join("m1", &["a", "b", "unknown"])).unwrap();
    assert_eq!(reply.member_epoch, 1);
    assert_eq!(reply.heartbeat_interval_ms, 5_000);
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1, 2]), ("b", &[0])]));
    assert_eq!(bench.state(), ("Stable", 1, 1));
    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, None), "REPORT-2");
}

#[test]
fn a_second_member_waits_until_the_first_has_given_up() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    let reply = bench.heartbeat(join("m2", &["a"])).unwrap();
    assert_eq!((reply.member_epoch, assigned(&reply)), (2, partitions(&[])), "CONSUMER-1");
    assert_eq!(bench.state().0, "Reconciling");

    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    let kept = assigned(&reply);
    assert_eq!((reply.member_epoch, kept.clone().unwrap()["a"].len()), (1, 2), "RECONCILE-3");
    // It has not given anything up yet.
    let reply = bench.heartbeat(report("m1", 1, &[("a", &[0, 1, 2, 3])])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, None));
    assert_eq!(bench.heartbeat(alive("m2", 2)).unwrap().assignment, None, "RECONCILE-2");

    let mine = kept.unwrap()["a"].clone();
    let reply = bench.heartbeat(report("m1", 1, &[("a", &mine)])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, None));
    let reply = bench.heartbeat(alive("m2", 2)).unwrap();
    let theirs: Vec<i32> = (0..4).filter(|index| !mine.contains(index)).collect();
    assert_eq!(assigned(&reply), partitions(&[("a", &theirs)]));
    assert_eq!(bench.state(), ("Stable", 2, 2));
}

#[test]
fn what_a_member_leaves_behind_goes_to_the_others() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    let reply = bench.heartbeat(alive("m1", -1)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (-1, None));
    assert_eq!(bench.state().0, "Assigning");
    let reply = bench.heartbeat(alive("m2", 2)).unwrap();
    assert_eq!(reply.member_epoch, 3);
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1])]));
    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::UnknownMemberId);
    bench.heartbeat(alive("m2", -1)).unwrap();
    assert_eq!(bench.state(), ("Empty", 4, 4));
}

#[test]
fn a_silent_member_is_removed_when_its_session_ends() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.wait(44_000);
    bench.heartbeat(alive("m2", 2)).unwrap();
    bench.wait(1_000);
    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::UnknownMemberId);
    let reply = bench.heartbeat(alive("m2", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1])]));
}

#[test]
fn a_member_that_does_not_give_up_in_time_is_removed() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    for _ in 0..5 {
        bench.wait(11_000);
        bench.heartbeat(report("m1", 1, &[("a", &[0, 1])])).unwrap();
        bench.heartbeat(alive("m2", 2)).unwrap();
    }
    bench.wait(5_000);
    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(assigned(&bench.heartbeat(alive("m2", 2)).unwrap()), partitions(&[("a", &[0, 1])]));
}

#[test]
fn a_lost_answer_is_given_again_and_any_other_epoch_is_fenced() {
    let mut bench = Bench::new(&[("a", 2)]);
    let first = bench.heartbeat(join("m1", &["a"])).unwrap();
    let again = bench.heartbeat(join("m1", &["a"])).unwrap();
    assert_eq!(first, again, "REPORT-1");
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    let moved = bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    assert_eq!(moved.member_epoch, 2);
    // Its answer is lost; the client sends all that it knows.
    let full = ConsumerHeartbeatRequest {
        rebalance_timeout_ms: 60_000,
        subscribed_topic_names: Some(vec!["a".into()]),
        ..report("m1", 1, &[("a", &[0])])
    };
    let again = bench.heartbeat(full).unwrap();
    assert_eq!((again.member_epoch, assigned(&again)), (2, partitions(&[("a", &[0])])));

    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.refusal(report("m1", 1, &[("a", &[0, 1])])), ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.refusal(alive("m1", 3)), ErrorCode::FencedMemberEpoch);
    assert_eq!(bench.refusal(join("m1", &["a"])), ErrorCode::FencedMemberEpoch, "REPORT-3");
}

#[test]
fn a_request_that_makes_no_sense_is_refused() {
    let mut bench = Bench::new(&[("a", 1)]);
    let cases: Vec<ConsumerHeartbeatRequest> = vec![
        ConsumerHeartbeatRequest { group_id: "".into(), ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest { instance_id: Some("".into()), ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest { rack_id: Some("".into()), ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest { rebalance_timeout_ms: -1, ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest { topic_partitions: None, ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest { subscribed_topic_names: None, ..join("m1", &["a"]) },
        ConsumerHeartbeatRequest {
            topic_partitions: Some(owned(&[("a", &[0])])),
            ..join("m1", &["a"])
        },
        join("", &["a"]),
        ConsumerHeartbeatRequest { requires_member_id: false, ..alive("", 3) },
        alive("m1", -2),
        alive("m1", -3),
    ];
    for request in cases {
        assert_eq!(bench.refusal(request.clone()), ErrorCode::InvalidRequest, "{request:?}");
    }
    let unsupported =
        ConsumerHeartbeatRequest { server_assignor: Some("x".into()), ..join("m1", &["a"]) };
    assert_eq!(bench.refusal(unsupported), ErrorCode::UnsupportedAssignor);
    let bad =
        ConsumerHeartbeatRequest { subscribed_topic_regex: Some("(".into()), ..join("m1", &["a"]) };
    assert_eq!(bench.refusal(bad), ErrorCode::InvalidRegularExpression);
    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::GroupIdNotFound);
    assert_eq!(bench.refusal(alive("m1", -1)), ErrorCode::GroupIdNotFound);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    assert_eq!(bench.refusal(alive("m2", 1)), ErrorCode::UnknownMemberId);
    assert_eq!(bench.refusal(alive("m2", -1)), ErrorCode::UnknownMemberId);
}

#[test]
fn the_coordinator_names_a_member_of_an_old_client() {
    let mut bench = Bench::new(&[("a", 1)]);
    let request = ConsumerHeartbeatRequest { requires_member_id: false, ..join("", &["a"]) };
    let reply = bench.heartbeat(request).unwrap();
    assert_eq!(reply.member_id.len(), 36);
    bench.heartbeat(alive(&reply.member_id, 1)).unwrap();
}

#[test]
fn a_full_group_takes_nobody_else() {
    let config = GroupConfig { consumer_size_max: 1, ..GroupConfig::default() };
    let mut bench = Bench::with(&[("a", 1)], config);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    assert_eq!(bench.refusal(join("m2", &["a"])), ErrorCode::GroupMaxSizeReached);
    bench.heartbeat(alive("m1", 1)).unwrap();
}

#[test]
fn a_full_group_takes_its_static_members_back() {
    let fixed = |request| ConsumerHeartbeatRequest { instance_id: Some("i".into()), ..request };
    let config = GroupConfig { consumer_size_max: 1, ..GroupConfig::default() };
    let mut bench = Bench::with(&[("a", 1)], config);
    bench.heartbeat(fixed(join("m1", &["a"]))).unwrap();
    bench.heartbeat(fixed(alive("m1", -2))).unwrap();
    bench.heartbeat(fixed(join("m2", &["a"]))).unwrap();
    let other = ConsumerHeartbeatRequest { instance_id: Some("j".into()), ..join("m3", &["a"]) };
    assert_eq!(bench.refusal(other), ErrorCode::GroupMaxSizeReached);
}

#[test]
fn another_assignor_makes_a_new_assignment() {
    let with = |name: &str, request| ConsumerHeartbeatRequest {
        server_assignor: Some(name.into()),
        ..request
    };
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(with("uniform", join("m1", &["a"]))).unwrap();
    assert_eq!(bench.state(), ("Stable", 1, 1));
    assert_eq!(bench.heartbeat(with("range", alive("m1", 1))).unwrap().member_epoch, 2);
    assert_eq!(bench.state(), ("Stable", 2, 2));
    assert_eq!(bench.heartbeat(with("range", alive("m1", 2))).unwrap().member_epoch, 2);
}

#[test]
fn a_static_member_comes_back_to_its_partitions() {
    let fixed = |request| ConsumerHeartbeatRequest { instance_id: Some("i".into()), ..request };
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(fixed(join("m1", &["a"]))).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    assert_eq!(bench.refusal(fixed(join("m3", &["a"]))), ErrorCode::UnreleasedInstanceId);
    let reply = bench.heartbeat(fixed(alive("m1", -2))).unwrap();
    assert_eq!(reply.member_epoch, -2);
    bench.heartbeat(fixed(alive("m1", -2))).unwrap();
    let epoch = bench.state().1;

    // m2 gets none of it meanwhile, and no new target is computed.
    assert_eq!(bench.heartbeat(alive("m2", 2)).unwrap().assignment, None);
    let reply = bench.heartbeat(fixed(join("m3", &["a"]))).unwrap();
    assert_eq!((reply.member_epoch, bench.state().1), (epoch, epoch));
    assert_eq!(assigned(&reply).unwrap()["a"].len(), 1);
    assert_eq!(assigned(&bench.heartbeat(alive("m2", 2)).unwrap()).unwrap()["a"].len(), 1);
    assert_eq!(bench.refusal(fixed(alive("m1", 1))), ErrorCode::FencedInstanceId);
    assert_eq!(
        bench.refusal(ConsumerHeartbeatRequest {
            instance_id: Some("other".into()),
            ..alive("m3", 2)
        }),
        ErrorCode::UnknownMemberId
    );
    assert_eq!(bench.state().0, "Stable");
}

#[test]
fn a_static_member_that_does_not_come_back_loses_its_partitions() {
    let fixed = |request| ConsumerHeartbeatRequest { instance_id: Some("i".into()), ..request };
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(fixed(join("m1", &["a"]))).unwrap();
    bench.heartbeat(fixed(alive("m1", -2))).unwrap();
    bench.wait(45_000);
    assert_eq!(bench.state().0, "Empty");
}

#[test]
fn a_change_of_the_subscription_takes_effect_at_once() {
    let mut bench = Bench::new(&[("a", 1), ("b", 1)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    let change = ConsumerHeartbeatRequest {
        subscribed_topic_names: Some(vec!["b".into()]),
        ..alive("m1", 1)
    };
    let reply = bench.heartbeat(change).unwrap();
    assert_eq!((reply.member_epoch, assigned(&reply)), (1, partitions(&[])));
    let reply = bench.heartbeat(report("m1", 1, &[])).unwrap();
    assert_eq!((reply.member_epoch, assigned(&reply)), (2, partitions(&[("b", &[0])])));
}

#[test]
fn new_partitions_and_topics_are_divided_when_they_appear() {
    let mut bench = Bench::new(&[("a", 1)]);
    bench.heartbeat(join("m1", &["a", "later"])).unwrap();
    bench.set_topics(&[("a", 2), ("later", 1), ("other", 1)]);
    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!(reply.member_epoch, 2);
    assert_eq!(assigned(&reply), partitions(&[("a", &[0, 1]), ("later", &[0])]));
    bench.set_topics(&[("a", 2), ("later", 1), ("other", 5)]);
    assert_eq!(bench.heartbeat(alive("m1", 2)).unwrap().assignment, None);
    assert_eq!(bench.state().1, 2, "a topic that nobody subscribes to raises no epoch");

    bench.set_topics(&[("later", 1)]);
    let reply = bench.heartbeat(alive("m1", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("later", &[0])]));
    let reply = bench.heartbeat(report("m1", 2, &[("later", &[0])])).unwrap();
    assert_eq!((reply.member_epoch, bench.state().0), (3, "Stable"));
}

#[test]
fn a_regular_expression_follows_the_topics() {
    let mut bench = Bench::new(&[("a-1", 1), ("b-1", 1)]);
    let request = ConsumerHeartbeatRequest {
        subscribed_topic_names: None,
        subscribed_topic_regex: Some("a-.*".into()),
        ..join("m1", &[])
    };
    let reply = bench.heartbeat(request).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a-1", &[0])]));
    bench.set_topics(&[("a-1", 1), ("a-2", 1), ("b-1", 1)]);
    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a-1", &[0]), ("a-2", &[0])]));

    // It drops the expression; its record goes too.
    let request = ConsumerHeartbeatRequest {
        subscribed_topic_names: Some(vec!["b-1".into()]),
        subscribed_topic_regex: Some("".into()),
        ..report("m1", 2, &[])
    };
    let reply = bench.heartbeat(request).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("b-1", &[0])]));
    let dropped = bench.log.iter().any(|record| {
        matches!(record, GroupRecord::ConsumerGroupRegularExpression { value: None, .. })
    });
    assert!(dropped);
}

#[test]
fn the_assignor_that_most_members_ask_for_is_used() {
    let mut bench = Bench::new(&[("a", 2), ("b", 2)]);
    let range =
        |request| ConsumerHeartbeatRequest { server_assignor: Some("range".into()), ..request };
    bench.heartbeat(range(join("m1", &["a", "b"]))).unwrap();
    bench.heartbeat(range(join("m2", &["a", "b"]))).unwrap();
    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[0]), ("b", &[0])]));
}

#[test]
fn a_new_target_waits_for_the_assignment_interval() {
    let mut bench = Bench::with(&[("a", 2)], GroupConfig::default());
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.wait(10);
    let reply = bench.heartbeat(join("m2", &["a"])).unwrap();
    assert_eq!((reply.member_epoch, assigned(&reply)), (1, partitions(&[])));
    assert_eq!(bench.heartbeat(alive("m1", 1)).unwrap().assignment, None);
    assert_eq!(bench.state(), ("Assigning", 2, 1));
    bench.wait(1_000);
    let reply = bench.heartbeat(alive("m1", 1)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[0])]));
    bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    let reply = bench.heartbeat(alive("m2", 1)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[1])]));
    assert_eq!(bench.state(), ("Stable", 2, 2));
}

/// What the members have, as it is described.
fn held(bench: &mut Bench) -> Vec<Vec<i32>> {
    let groups = vec!["g".into()];
    let GroupReply::ConsumerDescribe(list) = bench.ask(GroupRequest::ConsumerDescribe { groups })
    else {
        panic!("another reply")
    };
    let of = |member: &DescribedConsumerMember| {
        member
            .assignment
            .iter()
            .flat_map(|topic| PartitionIndex::numbers(&topic.partitions))
            .collect()
    };
    list[0].members.iter().map(of).collect()
}

#[test]
fn what_a_member_is_to_give_up_is_still_described_as_its_own() {
    let mut bench = Bench::new(&[("a", 4)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    let kept = assigned(&bench.heartbeat(alive("m1", 1)).unwrap()).unwrap()["a"].clone();
    assert_eq!(kept.len(), 2);
    assert_eq!(held(&mut bench), [vec![0, 1, 2, 3], vec![]]);
    bench.heartbeat(report("m1", 1, &[("a", &kept)])).unwrap();
    assert_eq!(held(&mut bench), [kept, vec![]]);
}

#[test]
fn an_administrator_removes_members_of_the_consumer_protocol() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    let fixed = |member: &str| ConsumerHeartbeatRequest {
        instance_id: Some("i".into()),
        ..join(member, &["a"])
    };
    bench.heartbeat(fixed("m2")).unwrap();
    let mut remove = |member: &str, instance: Option<&str>| {
        let leaving =
            LeavingMember { member_id: member.into(), instance_id: instance.map(Into::into) };
        let request = LeaveRequest { group_id: "g".into(), members: vec![leaving] };
        match bench.ask(GroupRequest::Leave(request)) {
            GroupReply::Leave(Ok(mut left)) => left.remove(0).error.map(|error| error.code),
            other => panic!("another reply: {other:?}"),
        }
    };
    assert_eq!(remove("stranger", None), Some(ErrorCode::UnknownMemberId));
    assert_eq!(remove("", Some("j")), Some(ErrorCode::UnknownMemberId));
    assert_eq!(remove("m1", Some("i")), Some(ErrorCode::FencedInstanceId));
    assert_eq!(remove("", Some("i")), None);
    assert_eq!(remove("m1", None), None);
    assert_eq!(bench.state().0, "Empty");
}

#[test]
fn a_clock_that_is_set_ends_no_session_and_delays_no_assignment() {
    const HOUR_MS: i64 = 3_600_000;
    let mut bench = Bench::with(&[("a", 2)], GroupConfig::default());
    bench.wait(2 * HOUR_MS);
    let set = |bench: &mut Bench, by_ms: i64| {
        bench.now = bench.now.plus(by_ms);
        bench.step(Event::ClockSet { by_ms });
        bench.step(Event::Tick);
    };
    bench.heartbeat(join("m1", &["a"])).unwrap();
    set(&mut bench, HOUR_MS);
    bench.heartbeat(alive("m1", 1)).unwrap();
    set(&mut bench, -HOUR_MS);
    set(&mut bench, -HOUR_MS);
    let reply = bench.heartbeat(join("m2", &["a"])).unwrap();
    assert_eq!(reply.member_epoch, 2, "a target from an hour ahead does not hold it up");
    bench.wait(45_000);
    assert_eq!(bench.state().0, "Empty", "a member that is silent from then on is removed in time");
}
