//! A member of the classic protocol, step by step.

use std::collections::BTreeMap;

use super::*;
use crate::types::TopicPartition;

struct Bench {
    member: Classic,
    now: TimestampMs,
}

fn some(list: &[i32]) -> Partitions {
    list.iter().map(|&index| TopicPartition::new("t", index)).collect()
}

fn wanted() -> Event {
    Event::Wanted(Wanted::Topics([Arc::from("t")].into()))
}

impl Bench {
    fn new(assignors: &[Assignor]) -> Self {
        Self::with(assignors, |_| {})
    }

    fn with(assignors: &[Assignor], change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            instance_id: None,
            rack: None,
            assignors: assignors.to_vec(),
            remote_assignor: None,
            heartbeat_ms: 3_000,
            rebalance_ms: 60_000,
            poll_ms_max: None,
            backoff: crate::machine::client::backoff::Backoff::default(),
        };
        change(&mut settings);
        let now = TimestampMs(1_000);
        Self { member: Classic::new(settings, now, 7), now }
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.member.step(self.now, event, &mut out);
        out
    }

    fn later(&mut self, ms: i64) -> Vec<Effect> {
        self.now = self.now.plus(ms);
        self.step(Event::Tick)
    }

    fn answer(&mut self, answer: Answer) -> Vec<Effect> {
        let attempt = self.member.attempt;
        self.step(Event::Answered { attempt, answer: Ok(answer) })
    }

    fn refuse(&mut self, code: ErrorCode) -> Vec<Effect> {
        let attempt = self.member.attempt;
        let answer = Err(Refusal { code, detail: "no".to_owned() });
        self.step(Event::Answered { attempt, answer })
    }

    fn joined(&mut self, generation: i32) -> Vec<Effect> {
        let assignor = self.member.settings.assignors[0].name().to_owned();
        self.answer(Answer::Joined(Joined {
            member_id: "me".to_owned(),
            generation,
            assignor,
            members: None,
            skip_assignment: false,
        }))
    }

    /// In the group with partitions 0 and 1, in generation 1.
    fn stable(assignors: &[Assignor]) -> Self {
        Self::stable_with(assignors, |_| {})
    }

    fn stable_with(assignors: &[Assignor], change: impl FnOnce(&mut Settings)) -> Self {
        let mut bench = Self::with(assignors, change);
        bench.step(wanted());
        bench.joined(1);
        let effects = bench.answer(Answer::Synced(some(&[0, 1])));
        assert_eq!(effects, [Effect::Assign(some(&[0, 1]))]);
        bench
    }
}

/// The only request among the effects.
#[track_caller]
fn request(effects: &[Effect]) -> &Request {
    let mut requests = effects.iter().filter_map(|effect| match effect {
        Effect::Send { request, .. } => Some(request),
        _ => None,
    });
    let first = requests.next().expect("a request");
    assert_eq!(requests.next(), None);
    first
}

#[track_caller]
fn joins_with(effects: &[Effect]) -> (String, Partitions, Option<i32>) {
    let Request::Join { member_id, protocols, .. } = request(effects) else {
        panic!("no join: {effects:?}")
    };
    let first = &protocols[0].1;
    (member_id.clone(), first.owned.iter().cloned().collect(), first.generation)
}

#[test]
fn a_new_member_joins_under_the_id_that_it_is_given() {
    let mut bench = Bench::new(&[Assignor::Range]);
    let effects = bench.step(wanted());
    assert_eq!(joins_with(&effects), (String::new(), some(&[]), Some(-1)));
    let effects = bench.answer(Answer::MemberIdRequired("me-1".to_owned()));
    assert_eq!(joins_with(&effects).0, "me-1");
}

#[test]
fn the_leader_assigns_to_everybody_once_it_knows_the_topics() {
    let mut bench = Bench::new(&[Assignor::Range]);
    bench.step(wanted());
    let subscription =
        MemberSubscription { topics: vec![Arc::from("t")], ..MemberSubscription::default() };
    let members = ["me", "you"].map(|id| (id.to_owned(), subscription.clone())).into();
    let effects = bench.answer(Answer::Joined(Joined {
        member_id: "me".to_owned(),
        generation: 4,
        assignor: "range".to_owned(),
        members: Some(members),
        skip_assignment: false,
    }));
    assert_eq!(effects, [Effect::LookUp([Arc::from("t")].into())]);
    let topics = |count| Topics::from([(Arc::from("t"), vec![BTreeSet::new(); count])]);
    let effects = bench.step(Event::Topics(topics(4)));
    let Request::Sync { assignment, generation: 4, .. } = request(&effects) else {
        panic!("no sync: {effects:?}")
    };
    let counts: BTreeMap<&str, usize> =
        assignment.iter().map(|(id, given)| (id.as_str(), given.len())).collect();
    assert_eq!(counts, BTreeMap::from([("me", 2), ("you", 2)]));
    bench.answer(Answer::Synced(some(&[0, 1])));
    assert_eq!(bench.step(Event::Topics(topics(4))), []);
    let effects = bench.step(Event::Topics(topics(6)));
    assert_eq!(effects, [Effect::Revoke(some(&[0, 1]))], "the topic grew");
}

#[test]
fn an_eager_member_gives_everything_up_before_it_joins_again() {
    let mut bench = Bench::stable(&[Assignor::Range, Assignor::CooperativeSticky]);
    bench.later(3_000);
    let effects = bench.refuse(ErrorCode::RebalanceInProgress);
    assert_eq!(effects, [Effect::Revoke(some(&[0, 1]))]);
    assert_eq!(bench.member.owned(), &some(&[0, 1]), "the caller may still commit");
    let effects = bench.step(Event::Released);
    assert_eq!(joins_with(&effects), ("me".to_owned(), some(&[]), Some(1)));
    assert_eq!(bench.member.owned(), &some(&[]));
}

#[test]
fn a_cooperative_member_keeps_what_stays_and_joins_once_more() {
    let mut bench = Bench::stable(&[Assignor::CooperativeSticky]);
    bench.later(3_000);
    let effects = bench.refuse(ErrorCode::RebalanceInProgress);
    assert_eq!(joins_with(&effects), ("me".to_owned(), some(&[0, 1]), Some(1)));
    bench.joined(2);
    let effects = bench.answer(Answer::Synced(some(&[1, 2])));
    assert_eq!(effects, [Effect::Assign(some(&[2])), Effect::Revoke(some(&[0]))]);
    let effects = bench.step(Event::Released);
    assert_eq!(joins_with(&effects), ("me".to_owned(), some(&[1, 2]), Some(2)));
}

#[test]
fn heartbeats_go_on_while_the_caller_is_waited_for() {
    let mut bench = Bench::stable(&[Assignor::Range]);
    bench.later(3_000);
    bench.refuse(ErrorCode::RebalanceInProgress);
    for _ in 0..5 {
        let effects = bench.later(3_000);
        assert!(matches!(request(&effects), Request::Heartbeat { generation: 1, .. }));
        assert_eq!(bench.refuse(ErrorCode::RebalanceInProgress), []);
    }
}

#[test]
fn a_caller_that_is_too_late_loses_what_it_was_to_give_up() {
    let mut bench = Bench::stable(&[Assignor::Range]);
    bench.later(3_000);
    bench.refuse(ErrorCode::RebalanceInProgress);
    let effects = bench.later(57_000);
    let Effect::Lose { partitions, reason } = &effects[0] else { panic!("{effects:?}") };
    assert_eq!(partitions, &some(&[0, 1]));
    assert!(reason.contains("60000 ms"), "{reason}");
    assert_eq!(joins_with(&effects).1, some(&[]));
    assert_eq!(bench.step(Event::Released), [], "it comes too late");
}

#[test]
fn a_member_that_is_put_out_loses_everything_and_joins_anew() {
    for (code, member_id) in
        [(ErrorCode::UnknownMemberId, ""), (ErrorCode::IllegalGeneration, "me")]
    {
        let mut bench = Bench::stable(&[Assignor::CooperativeSticky]);
        bench.later(3_000);
        let effects = bench.refuse(code);
        assert!(
            matches!(&effects[0], Effect::Lose { partitions, .. } if *partitions == some(&[0, 1]))
        );
        let (id, owned, _) = joins_with(&effects);
        assert_eq!((id.as_str(), owned), (member_id, some(&[])));
    }
}

#[test]
fn a_coordinator_that_moved_costs_no_partition() {
    let mut bench = Bench::stable(&[Assignor::Range]);
    bench.later(3_000);
    for code in [ErrorCode::NotCoordinator, ErrorCode::NetworkException, ErrorCode::RequestTimedOut]
    {
        assert_eq!(bench.refuse(code), []);
        let effects = bench.later(100);
        assert!(matches!(request(&effects), Request::Heartbeat { .. }));
    }
    assert_eq!(bench.member.owned(), &some(&[0, 1]));
}

#[test]
fn an_old_answer_changes_nothing() {
    let mut bench = Bench::stable(&[Assignor::Range]);
    bench.later(3_000);
    let old = bench.member.attempt;
    bench.refuse(ErrorCode::RebalanceInProgress);
    bench.step(Event::Released);
    let answer = Err(Refusal { code: ErrorCode::FencedInstanceId, detail: String::new() });
    assert_eq!(bench.step(Event::Answered { attempt: old, answer }), []);
    assert_eq!(bench.member.state, State::Joining);
}

#[test]
fn what_cannot_be_repaired_ends_the_membership() {
    let mut bench = Bench::stable(&[Assignor::Range]);
    bench.later(3_000);
    let effects = bench.refuse(ErrorCode::FencedInstanceId);
    assert!(matches!(effects[..], [Effect::Lose { .. }, Effect::Fail(_)]), "{effects:?}");
    assert_eq!(bench.member.next_deadline(), None);
}

#[test]
fn a_caller_that_stays_away_leaves_and_may_come_back() {
    let limited = |settings: &mut Settings| settings.poll_ms_max = Some(10_000);
    let mut bench = Bench::stable_with(&[Assignor::Range], limited);
    bench.now = bench.now.plus(9_999);
    bench.step(Event::Seen);
    let effects = bench.later(10_000);
    assert!(matches!(&effects[0], Effect::Lose { reason, .. } if reason.contains("10000 ms")));
    assert!(matches!(request(&effects), Request::Leave { .. }));
    assert_eq!(bench.member.next_deadline(), None);
    let effects = bench.step(Event::Seen);
    assert_eq!(joins_with(&effects).0, "");
}

#[test]
fn a_static_member_goes_without_leaving() {
    let fixed = |settings: &mut Settings| settings.instance_id = Some("one".to_owned());
    let mut bench = Bench::stable_with(&[Assignor::Range], fixed);
    assert_eq!(bench.step(Event::Close), []);
    let mut bench = Bench::stable(&[Assignor::Range]);
    let effects = bench.step(Event::Close);
    assert!(matches!(request(&effects), Request::Leave { .. }));
}

#[test]
fn a_subscription_that_changes_during_a_rebalance_leads_to_another_one() {
    let mut bench = Bench::new(&[Assignor::CooperativeSticky]);
    bench.step(wanted());
    bench.joined(1);
    let both = Wanted::Topics([Arc::from("t"), Arc::from("u")].into());
    assert_eq!(bench.step(Event::Wanted(both)), []);
    let effects = bench.answer(Answer::Synced(some(&[0])));
    assert_eq!(effects[0], Effect::Assign(some(&[0])));
    assert_eq!(joins_with(&effects).1, some(&[0]));
}

#[test]
fn who_is_closed_before_it_has_a_name_leaves_with_it() {
    let leaves = |effects: &[Effect], name: &str| {
        let sent = effects.iter().filter_map(|effect| match effect {
            Effect::Send { request: Request::Leave { member_id, .. }, .. } => Some(member_id),
            _ => None,
        });
        sent.eq([name])
    };
    let mut bench = Bench::new(&[Assignor::Range]);
    bench.step(wanted());
    assert_eq!(bench.step(Event::Close), [], "the coordinator has not said who it is");
    assert!(bench.member.is_leaving());
    let effects = bench.answer(Answer::MemberIdRequired("m".to_owned()));
    assert!(leaves(&effects, "m"), "it would be waited for: {effects:?}");
    assert!(!bench.member.is_leaving());

    let mut bench = Bench::new(&[Assignor::Range]);
    bench.step(wanted());
    bench.answer(Answer::MemberIdRequired("m".to_owned()));
    assert!(leaves(&bench.step(Event::Close), "m"));

    let mut bench = Bench::new(&[Assignor::Range]);
    bench.step(wanted());
    bench.step(Event::Close);
    assert_eq!(bench.refuse(ErrorCode::NetworkException), []);
    assert!(!bench.member.is_leaving());
}
