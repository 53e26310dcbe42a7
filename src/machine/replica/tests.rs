use std::time::Duration;

use proptest::prelude::*;

use super::mistakes::plant;
use super::model::{Answered, LAG, Model, Step};
use super::*;
use crate::error::ErrorCode;
use crate::types::PartitionEpoch;

pub(super) const ME: NodeId = NodeId(1);

pub(super) fn image(leader: i32, epoch: i32, isr: &[i32]) -> PartitionImage {
    PartitionImage {
        replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
        isr: isr.iter().copied().map(NodeId).collect(),
        removing: Vec::new(),
        adding: Vec::new(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: NodeId(leader),
        leader_epoch: LeaderEpoch(epoch),
        partition_epoch: PartitionEpoch(0),
    }
}

const fn rules(durability: LocalDurability, min_in_sync: usize) -> Rules {
    Rules { durability, min_in_sync, lag_time_max: LAG }
}

struct Nobody;

impl Brokers for Nobody {
    fn active_epoch(&self, _node: NodeId) -> Option<BrokerEpoch> {
        None
    }
}

/// Brokers 2 and 3, registered under these epochs.
struct Both;

impl Brokers for Both {
    fn active_epoch(&self, node: NodeId) -> Option<BrokerEpoch> {
        Some(BrokerEpoch(10 + i64::from(node.0)))
    }
}

fn moved(effects: Effects) -> Option<Offset> {
    assert_eq!(effects.request, None);
    effects.high_watermark
}

/// A replica whose log was found whole, with its high watermark at the start.
fn found(durability: LocalDurability, log_end: i64) -> Replica {
    let (log_end, log_start) = (Offset(log_end), Offset(0));
    let found = Found { log_start, log_end, synced_end: log_end, high_watermark: log_start };
    Replica::new(ME, rules(durability, 1), found)
}

fn assign(replica: &mut Replica, image: &PartitionImage) -> Option<Offset> {
    moved(replica.assign(image, &Both, Duration::ZERO).unwrap())
}

fn leader(durability: LocalDurability, log_end: i64) -> Replica {
    let mut replica = found(durability, log_end);
    assign(&mut replica, &image(1, 0, &[1]));
    replica
}

fn fetch(node: i32, offset: i64, leader_end: i64) -> FollowerFetch {
    FollowerFetch {
        node: NodeId(node),
        broker_epoch: BrokerEpoch(10 + i64::from(node)),
        offset: Offset(offset),
        leader_end: Offset(leader_end),
        log_start: None,
        local_start: None,
    }
}

fn nodes(request: &IsrRequest) -> Vec<i32> {
    request.isr.iter().map(|member| member.node.0).collect()
}

#[test]
fn the_only_replica_commits_what_it_has_when_it_leads() {
    let mut replica = found(LocalDurability::Written, 5);
    assert_eq!(replica.high_watermark(), Offset(0), "not before it leads");
    assert_eq!(assign(&mut replica, &image(1, 0, &[1])), Some(Offset(5)));
    assert_eq!(moved(replica.appended(Offset(8))), Some(Offset(8)));
    assert!(!replica.needs_sync());
    assert_eq!(moved(replica.appended(Offset(8))), None);
}

#[test]
fn a_leader_with_followers_keeps_the_high_watermark_that_was_saved() {
    let ends = Found {
        log_start: Offset(2),
        log_end: Offset(9),
        synced_end: Offset(9),
        high_watermark: Offset(4),
    };
    let written = rules(LocalDurability::Written, 1);
    let mut replica = Replica::new(ME, written, ends);
    assert_eq!(assign(&mut replica, &image(1, 3, &[1, 2])), None);
    assert_eq!(replica.high_watermark(), Offset(4));
    let now = Duration::ZERO;
    let fetched = replica.fetched(&fetch(2, 6, 9), now).unwrap();
    assert_eq!(moved(fetched), Some(Offset(6)));
    // What a crash took away is not committed, what was deleted is.
    let lost = Found { high_watermark: Offset(12), ..ends };
    assert_eq!(Replica::new(ME, written, lost).high_watermark(), Offset(9));
    let deleted = Found { high_watermark: Offset(0), ..ends };
    assert_eq!(Replica::new(ME, written, deleted).high_watermark(), Offset(2));
}

#[test]
fn with_fsync_a_record_is_visible_once_it_is_synced() {
    let mut replica = leader(LocalDurability::Synced, 0);
    assert_eq!(moved(replica.appended(Offset(3))), None);
    assert!(replica.needs_sync());
    assert_eq!(moved(replica.appended(Offset(6))), None);
    assert_eq!(moved(replica.synced(Offset(3))), Some(Offset(3)));
    assert!(replica.needs_sync());
    assert_eq!(moved(replica.synced(Offset(100))), Some(Offset(6)), "never beyond the log end");
    assert!(!replica.needs_sync());
}

#[test]
fn a_stricter_durability_does_not_take_records_back() {
    let mut replica = leader(LocalDurability::Written, 0);
    drop(replica.appended(Offset(4)));
    assert_eq!(moved(replica.set_rules(rules(LocalDurability::Synced, 1))), None);
    assert_eq!(replica.high_watermark(), Offset(4));
    drop(replica.appended(Offset(5)));
    assert_eq!(replica.high_watermark(), Offset(4));
    assert_eq!(moved(replica.synced(Offset(5))), Some(Offset(5)));
}

#[test]
fn high_watermark_follows_the_slowest_replica() {
    let mut replica = found(LocalDurability::Written, 0);
    assign(&mut replica, &image(1, 0, &[1, 2, 3]));
    let now = Duration::ZERO;
    let fetched = |replica: &mut Replica, node, offset| {
        moved(replica.fetched(&fetch(node, offset, 10), now).unwrap())
    };
    assert_eq!(moved(replica.appended(Offset(10))), None);
    assert_eq!(fetched(&mut replica, 2, 10), None, "3 was not heard of yet");
    assert_eq!(fetched(&mut replica, 3, 7), Some(Offset(7)));
    let later = PartitionImage { partition_epoch: PartitionEpoch(1), ..image(1, 0, &[1, 2]) };
    assert_eq!(assign(&mut replica, &later), None, "3 may come back at once");
    let effects = replica.tick(LAG * 2);
    assert_eq!(effects.high_watermark, Some(Offset(10)));
    assert_eq!(fetched(&mut replica, 3, 8), None, "it is not in the ISR");
    // In a new epoch nothing is known of the followers.
    assert_eq!(assign(&mut replica, &image(1, 1, &[1, 2])), None);
    assert_eq!(moved(replica.appended(Offset(11))), None);
}

#[test]
fn a_follower_joins_and_counts_before_the_controller_has_said_so() {
    let mut replica = leader(LocalDurability::Written, 4);
    let now = Duration::ZERO;
    drop(replica.appended(Offset(6)));
    assert_eq!(replica.high_watermark(), Offset(6));
    let effects = replica.fetched(&fetch(2, 5, 6), now).unwrap();
    assert_eq!(effects, Effects::default(), "it has not come to the high watermark");
    let stranger = FollowerFetch { broker_epoch: BrokerEpoch(11), ..fetch(2, 6, 6) };
    assert_eq!(replica.fetched(&stranger, now), Err(FetchRefusal::StaleBroker));
    assert_eq!(replica.fetched(&fetch(4, 6, 6), now), Err(FetchRefusal::NotReplica));
    let request = replica.fetched(&fetch(2, 6, 6), now).unwrap().request.unwrap();
    assert_eq!(nodes(&request), [1, 2]);
    assert_eq!(request.isr[1].broker_epoch, BrokerEpoch(12));
    // One change at a time.
    assert_eq!(replica.fetched(&fetch(3, 6, 6), now).unwrap().request, None);
    assert_eq!(moved(replica.appended(Offset(8))), None, "2 must have it, too");
    // The controller that does not know its own mind is asked again; a refusal ends it.
    let refused = |code| IsrAnswer::Refused(code);
    let again = replica.isr_answered(&request, refused(ErrorCode::NotController)).request;
    assert_eq!(again.as_ref(), Some(&request));
    let effects = replica.isr_answered(&request, refused(ErrorCode::InvalidUpdateVersion));
    assert_eq!(effects, Effects::default(), "the metadata will tell");
    let effects = replica.isr_answered(&request, refused(ErrorCode::IneligibleReplica));
    assert_eq!(effects, Effects::default(), "2 and 3 are caught up and may join");
    let request = replica.fetched(&fetch(2, 8, 8), now).unwrap().request.unwrap();
    let committed = IsrAnswer::Committed {
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(1),
        isr: vec![NodeId(1), NodeId(2)],
    };
    drop(replica.isr_answered(&request, committed.clone()));
    assert_eq!(replica.in_sync(), Some(2));
    // An image from before says nothing new, and neither does an answer that comes twice.
    assign(&mut replica, &image(1, 0, &[1]));
    assert_eq!(replica.isr_answered(&request, committed), Effects::default());
    assert_eq!(replica.in_sync(), Some(2));
    // Who does not keep up leaves: not at once, as nobody knows when it was that something was appended.
    drop(replica.appended(Offset(9)));
    assert_eq!(replica.tick(LAG * 2).request, None);
    let request = replica.tick(LAG * 4).request.unwrap();
    assert_eq!(nodes(&request), [1]);
    assert_eq!(replica.in_sync(), Some(2), "not before the controller has said so");
    // The answer may overtake a lower minimum, which comes with the metadata.
    let smaller = IsrAnswer::Committed {
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(2),
        isr: vec![NodeId(1)],
    };
    assert_eq!(replica.isr_answered(&request, smaller), Effects::default());
    assert_eq!(replica.in_sync(), Some(2));
    let image = PartitionImage { partition_epoch: PartitionEpoch(2), ..image(1, 0, &[1]) };
    assign(&mut replica, &image);
    assert_eq!(replica.in_sync(), Some(1));
}

#[test]
fn consumers_are_sent_to_replicas_that_have_what_they_ask_for() {
    let mut replica = found(LocalDurability::Written, 0);
    assign(&mut replica, &image(1, 0, &[1, 2, 3]));
    drop(replica.appended(Offset(10)));
    let near = [NodeId(2), NodeId(3)];
    assert_eq!(replica.nearest(&near, Offset(0)), None, "nothing is known of them");
    let now = Duration::ZERO;
    let from = |node, offset, start| FollowerFetch {
        log_start: Some(Offset(start)),
        ..fetch(node, offset, 10)
    };
    drop(replica.fetched(&from(2, 8, 4), now).unwrap());
    drop(replica.fetched(&from(3, 9, 6), now).unwrap());
    for (offset, nearest) in [(3, None), (4, Some(2)), (6, Some(3)), (9, Some(3)), (10, None)] {
        assert_eq!(replica.nearest(&near, Offset(offset)), nearest.map(NodeId), "{offset}");
    }
    assert_eq!(replica.nearest(&[NodeId(4)], Offset(8)), None);
    let smaller = PartitionImage { partition_epoch: PartitionEpoch(1), ..image(1, 0, &[1, 2]) };
    assign(&mut replica, &smaller);
    assert_eq!(replica.nearest(&near, Offset(8)), Some(NodeId(2)), "3 lags");
    assert!(!replica.have_deleted(Offset(5)), "2 has more");
    drop(replica.fetched(&from(2, 10, 5), now).unwrap());
    assert!(replica.have_deleted(Offset(5)));
    assert!(!replica.have_deleted(Offset(7)), "3 counts although it is not in sync");
    let with_tier = FollowerFetch { local_start: Some(Offset(9)), ..from(2, 10, 5) };
    drop(replica.fetched(&with_tier, now).unwrap());
    assert_eq!(replica.nearest(&near, Offset(8)), None, "2 has it in the tier only");
    assert_eq!(replica.nearest(&near, Offset(9)), Some(NodeId(2)));
}

#[test]
fn without_enough_in_sync_nothing_is_committed() {
    let mut replica = leader(LocalDurability::Written, 0);
    drop(replica.set_rules(rules(LocalDurability::Written, 2)));
    assert_eq!(moved(replica.appended(Offset(3))), None);
    assert_eq!(moved(replica.set_rules(rules(LocalDurability::Written, 1))), Some(Offset(3)));
}

#[test]
fn a_broker_that_nobody_knows_does_not_join() {
    let mut replica = found(LocalDurability::Written, 0);
    drop(replica.assign(&image(1, 0, &[1]), &Nobody, Duration::ZERO).unwrap());
    let effects = replica.fetched(&fetch(2, 0, 0), Duration::ZERO).unwrap();
    assert_eq!(effects.request, None);
}

#[test]
fn a_follower_cuts_its_log_before_it_copies_and_believes_its_leader_as_far_as_it_can() {
    let mut replica = leader(LocalDurability::Written, 6);
    let clean = Truncation::Clean;
    let settled = |replica: &Replica| Err(TruncationRefusal::Settled(replica.token()));
    assert_eq!(replica.truncated(Offset(6), clean), settled(&replica), "it leads");
    assign(&mut replica, &image(2, 1, &[1, 2]));
    assert_eq!(replica.truncated(Offset(5), clean), Err(TruncationRefusal::Committed(Offset(6))));
    assert_eq!(replica.truncated(Offset(5), Truncation::Unclean), Ok(()));
    assert_eq!(replica.high_watermark(), Offset(5));
    let from = |high_watermark, log_start| FromLeader {
        high_watermark: Offset(high_watermark),
        log_start: Offset(log_start),
        local_start: None,
    };
    drop(replica.appended(Offset(7)));
    let (effects, starts) = replica.heard(from(9, 3));
    let start = Offset(3);
    assert_eq!((moved(effects), starts), (Some(Offset(7)), Starts { log: start, local: start }));
    for (told, local) in [(5, 5), (8, 7)] {
        let (_, starts) =
            replica.heard(FromLeader { local_start: Some(Offset(told)), ..from(9, 3) });
        assert_eq!(
            starts,
            Starts { log: start, local: Offset(local) },
            "as far as it is committed"
        );
    }
    let (effects, _) = replica.heard(from(4, 3));
    assert_eq!((moved(effects), replica.high_watermark()), (None, Offset(7)), "HW-1");
    assert_eq!(replica.truncated(Offset(7), clean), settled(&replica), "it has copied");
    // The leader has deleted what would have come next.
    assert_eq!(replica.truncated(Offset(30), clean), Ok(()));
    assert_eq!(replica.high_watermark(), Offset(30));
}

#[test]
fn an_epoch_does_not_go_back_and_has_one_leader() {
    let mut replica = leader(LocalDurability::Written, 0);
    assign(&mut replica, &image(1, 4, &[1]));
    for contradiction in [image(1, 3, &[1]), image(2, 4, &[1, 2]), image(-1, 4, &[1])] {
        let refused = replica.assign(&contradiction, &Both, Duration::ZERO).unwrap_err();
        assert_eq!(refused.asked, Token::of(ME, &contradiction));
        assert_eq!(replica.token().leads(), Some(LeaderEpoch(4)));
    }
    assign(&mut replica, &image(2, 5, &[2]));
    assert_eq!((replica.token().role(), replica.token().leads()), (Role::Follower, None));
    assign(&mut replica, &image(-1, 6, &[2]));
    assert_eq!(replica.token().role(), Role::Offline);
}

fn step() -> impl Strategy<Value = Step> {
    let isr = proptest::sample::subsequence(vec![1, 2, 3], 1..=3);
    let answer = prop_oneof![
        4 => Just(Answered::Committed),
        2 => Just(Answered::Ineligible),
        1 => Just(Answered::OutOfDate),
        1 => Just(Answered::NotController),
    ];
    prop_oneof![
        3 => (prop_oneof![5 => Just(1), 2 => Just(2), 1 => Just(-1)], -1..3, isr, -1..3).prop_map(
            |(leader, epochs_on, isr, changes_on)| {
                Step::Assign { leader, epochs_on, isr, changes_on }
            }
        ),
        2 => (2..4_i32, proptest::option::weighted(0.8, 10..16_i64))
            .prop_map(|(node, epoch)| Step::Register { node, epoch }),
        1 => (any::<bool>(), 1..4_usize)
            .prop_map(|(synced_counts, min_in_sync)| Step::Rules { synced_counts, min_in_sync }),
        5 => (0..4_i64).prop_map(Step::Append),
        2 => (0..3_i64).prop_map(Step::Sync),
        12 => (2..5_i32, 0..4_i64, 0..3_i64, prop_oneof![Just(-1_i64), 10..16_i64]).prop_map(
            |(node, behind, before, broker_epoch)| {
                Step::Fetch { node: node.min(4), behind, before, broker_epoch }
            }
        ),
        4 => (0..150_u64).prop_map(Step::Tick),
        4 => answer.prop_map(Step::Answer),
        3 => (0..40_i64, 0..40_i64)
            .prop_map(|(high_watermark, log_start)| Step::Heard { high_watermark, log_start }),
        2 => (-2..6_i64, proptest::bool::weighted(0.2))
            .prop_map(|(back, unclean)| Step::Truncate { back, unclean }),
    ]
}

/// Steps of which the first makes this replica the leader or a follower.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let first = prop_oneof![3 => Just(1), 1 => Just(2)].prop_map(|leader| Step::Assign {
        leader,
        epochs_on: 1,
        isr: vec![1, 2],
        changes_on: 0,
    });
    (first, proptest::collection::vec(step(), 1..80))
        .prop_map(|(first, rest)| std::iter::once(first).chain(rest).collect())
}

fn check(steps: &[Step]) {
    let mut model = Model::new(rules(LocalDurability::Written, 1));
    let mut replica = found(LocalDurability::Written, 0);
    for step in steps {
        let before = replica.high_watermark();
        model.apply(step, &mut replica);
        model.compare(&replica, before, step);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn a_replica_keeps_the_rules(steps in steps()) {
        check(&steps);
    }
}

/// Every mistake that can be planted is found by what [`a_replica_keeps_the_rules`] does.
#[test]
fn planted_mistakes_are_found() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

    let missed: Vec<Mistake> = Mistake::ALL
        .into_iter()
        .filter(|mistake| {
            let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            let mut runner = TestRunner::new_with_rng(Config::default(), rng);
            plant(Some(*mistake));
            let found = (0..3000).any(|_| {
                let steps = steps().new_tree(&mut runner).unwrap().current();
                std::panic::catch_unwind(|| check(&steps)).is_err()
            });
            plant(None);
            !found
        })
        .collect();
    assert_eq!(missed, []);
}
