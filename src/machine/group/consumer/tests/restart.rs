//! Groups that are rebuilt from their records.

use super::*;

#[test]
fn members_go_on_after_the_coordinator_has_restarted() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    bench.restart();
    let reply = bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, None));
    bench.restart();
    let reply = bench.heartbeat(alive("m2", 2)).unwrap();
    assert_eq!(assigned(&reply), partitions(&[("a", &[1])]));
    assert_eq!(bench.state(), ("Stable", 2, 2));
}

#[test]
fn sessions_begin_anew_with_a_new_coordinator() {
    let mut bench = Bench::new(&[("a", 1)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.now = bench.now.plus(100_000);
    bench.restart();
    bench.wait(44_999);
    assert_eq!(bench.state().0, "Stable");
    bench.wait(1);
    assert_eq!(bench.state().0, "Empty");
}

#[test]
fn a_member_that_was_giving_up_has_its_time_again_after_a_restart() {
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    bench.wait(40_000);
    bench.restart();
    for _ in 0..2 {
        bench.wait(30_000);
        bench.heartbeat(alive("m2", 2)).unwrap();
        drop(bench.heartbeat(alive("m1", 1)));
    }
    assert_eq!(bench.refusal(alive("m1", 1)), ErrorCode::UnknownMemberId);
}

#[test]
fn the_tombstones_of_a_group_leave_nothing() {
    let mut bench = Bench::new(&[("a-1", 2)]);
    let request = ConsumerHeartbeatRequest {
        subscribed_topic_regex: Some("a-.*".into()),
        ..join("m1", &["b"])
    };
    bench.heartbeat(request).unwrap();
    let group: Arc<str> = "g".into();
    let mut records = Vec::new();
    bench.shard.groups[&group].tombstones(&group, &mut records);
    for record in &records {
        bench.shard.apply(record).unwrap();
    }
    assert_eq!(snapshot(&bench.shard), Vec::new());
    for record in &records {
        bench.shard.apply(record).unwrap();
    }
}

#[test]
fn a_compacted_log_may_give_a_partition_to_two_members_for_a_while() {
    // The record in which m1 gave up partition 1 was compacted away by a later one of m1's.
    let mut bench = Bench::new(&[("a", 2)]);
    bench.heartbeat(join("m1", &["a"])).unwrap();
    bench.heartbeat(join("m2", &["a"])).unwrap();
    bench.heartbeat(alive("m1", 1)).unwrap();
    bench.heartbeat(report("m1", 1, &[("a", &[0])])).unwrap();
    bench.heartbeat(alive("m2", 2)).unwrap();
    let mut last: BTreeMap<String, usize> = BTreeMap::new();
    let key = |record: &GroupRecord| match record {
        GroupRecord::ConsumerGroupCurrentMemberAssignment { member, .. } => format!("8 {member}"),
        GroupRecord::ConsumerGroupTargetAssignmentMember { member, .. } => format!("7 {member}"),
        GroupRecord::ConsumerGroupMemberMetadata { member, .. } => format!("5 {member}"),
        GroupRecord::ConsumerGroupMetadata { .. } => "3".to_owned(),
        _ => "6".to_owned(),
    };
    for (place, record) in bench.log.iter().enumerate() {
        last.insert(key(record), place);
    }
    let mut places: Vec<usize> = last.into_values().collect();
    places.sort_unstable();
    let whole = snapshot(&bench.shard);
    bench.log = places.into_iter().map(|place| bench.log[place].clone()).collect();
    bench.restart();
    assert_eq!(snapshot(&bench.shard), whole);
    assert_eq!(bench.state().0, "Stable");
}
