//! A member of the consumer protocol, step by step.

use super::*;

const TOPIC: TopicId = crate::types::Uuid([7; 16]);

struct Bench {
    member: Consumer,
    now: TimestampMs,
}

fn some(list: &[i32]) -> Partitions {
    list.iter().map(|&index| TopicPartition::new("t", index)).collect()
}

fn ids(list: &[i32]) -> PartitionIds {
    list.iter().map(|&index| (TOPIC, PartitionIndex(index))).collect()
}

fn names() -> Event {
    Event::Names([(TOPIC, Arc::from("t"))].into())
}

fn wanted() -> Wanted {
    Wanted::Topics([Arc::from("t")].into())
}

impl Bench {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            instance_id: None,
            rack: None,
            assignors: Vec::new(),
            remote_assignor: None,
            heartbeat_ms: 3_000,
            rebalance_ms: 60_000,
            poll_ms_max: None,
            backoff: crate::machine::client::backoff::Backoff::default(),
        };
        change(&mut settings);
        let now = TimestampMs(1_000);
        Self { member: Consumer::new(settings, "me".to_owned(), now, 7), now }
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

    fn beaten(&mut self, epoch: i32, assignment: Option<&[i32]>) -> Vec<Effect> {
        let attempt = self.member.attempt;
        let assignment = assignment.map(ids);
        let answer = Ok(Answer::Beaten(Beaten { epoch, interval_ms: 5_000, assignment }));
        self.step(Event::Answered { attempt, answer })
    }

    fn refuse(&mut self, code: ErrorCode) -> Vec<Effect> {
        let attempt = self.member.attempt;
        let answer = Err(Refusal { code, detail: "no".to_owned() });
        self.step(Event::Answered { attempt, answer })
    }

    /// In the group with partitions 0 and 1, in epoch 3.
    fn stable_with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut bench = Self::with(change);
        bench.step(Event::Wanted(wanted()));
        bench.step(names());
        let effects = bench.beaten(3, Some(&[0, 1]));
        assert_eq!(effects[0], Effect::Assign(some(&[0, 1])));
        assert_eq!(beat(&effects).owned, Some(ids(&[0, 1])));
        bench.beaten(3, None);
        assert!(bench.member.is_stable());
        bench
    }
}

/// The only heartbeat among the effects.
#[track_caller]
fn beat(effects: &[Effect]) -> &Beat {
    let mut beats = effects.iter().filter_map(|effect| match effect {
        Effect::Send { request: Request::Beat(beat), .. } => Some(beat),
        _ => None,
    });
    let first = beats.next().expect("a heartbeat");
    assert_eq!(beats.next(), None);
    first
}

#[test]
fn a_member_joins_with_everything_and_acknowledges_at_once() {
    let mut bench = Bench::new();
    let effects = bench.step(Event::Wanted(wanted()));
    let expected = Beat {
        member_id: "me".to_owned(),
        epoch: 0,
        joining: true,
        wanted: Some(wanted()),
        owned: Some(ids(&[])),
    };
    assert_eq!(beat(&effects), &expected);
    let effects = bench.beaten(1, Some(&[0]));
    assert_eq!(effects, [Effect::Resolve([TOPIC].into())]);
    let effects = bench.step(names());
    assert_eq!(effects[0], Effect::Assign(some(&[0])));
    let acknowledged = beat(&effects);
    assert_eq!((acknowledged.epoch, acknowledged.wanted.clone()), (1, None));
    assert_eq!(acknowledged.owned, Some(ids(&[0])));
    assert_eq!(bench.beaten(1, None), []);
    let effects = bench.later(5_000);
    assert_eq!(beat(&effects), &Beat { member_id: "me".to_owned(), epoch: 1, ..Beat::default() });
}

#[test]
fn a_revocation_is_acknowledged_when_the_caller_gave_up() {
    let mut bench = Bench::stable_with(|_| {});
    bench.later(5_000);
    let effects = bench.beaten(3, Some(&[1]));
    assert_eq!(effects, [Effect::Revoke(some(&[0]))]);
    let effects = bench.later(5_000);
    assert_eq!(beat(&effects).owned, Some(ids(&[0, 1])), "it is not given up yet");
    assert_eq!(bench.beaten(3, None), []);
    let effects = bench.step(Event::Released);
    assert_eq!(beat(&effects).owned, Some(ids(&[1])));
    let effects = bench.beaten(4, Some(&[1, 2]));
    assert_eq!(effects[0], Effect::Assign(some(&[2])));
    assert_eq!(beat(&effects).owned, Some(ids(&[1, 2])));
    assert_eq!(bench.member.identity().generation, 4);
}

#[test]
fn a_caller_that_is_too_late_loses_what_it_was_to_give_up() {
    let mut bench = Bench::stable_with(|_| {});
    bench.later(5_000);
    bench.beaten(3, Some(&[1]));
    let effects = bench.later(55_000);
    assert!(matches!(&effects[0], Effect::Lose { partitions, .. } if *partitions == some(&[0])));
    assert_eq!(beat(&effects).owned, Some(ids(&[1])));
}

#[test]
fn a_fenced_member_loses_everything_and_joins_with_epoch_zero() {
    for code in [ErrorCode::FencedMemberEpoch, ErrorCode::UnknownMemberId] {
        let mut bench = Bench::stable_with(|_| {});
        bench.later(5_000);
        let effects = bench.refuse(code);
        assert!(matches!(&effects[0], Effect::Lose { partitions, .. } if partitions.len() == 2));
        let joining = beat(&effects);
        assert_eq!((joining.epoch, joining.joining), (0, true));
        assert_eq!(joining.owned, Some(ids(&[])));
    }
}

#[test]
fn after_a_lost_answer_everything_is_said_again() {
    let mut bench = Bench::stable_with(|_| {});
    bench.later(5_000);
    assert_eq!(bench.refuse(ErrorCode::NetworkException), []);
    let effects = bench.later(200);
    let again = beat(&effects);
    assert_eq!((again.epoch, again.joining), (3, true));
    assert_eq!((again.wanted.clone(), again.owned.clone()), (Some(wanted()), Some(ids(&[0, 1]))));
    assert_eq!(bench.member.owned(), &some(&[0, 1]));
}

#[test]
fn an_empty_assignment_counts_once_the_coordinator_repeats_it() {
    let mut bench = Bench::new();
    bench.step(Event::Wanted(wanted()));
    bench.beaten(1, Some(&[]));
    bench.beaten(1, Some(&[]));
    assert!(!bench.member.is_stable());
    bench.later(5_000);
    assert_eq!(bench.beaten(1, None), [Effect::Assign(some(&[]))]);
    assert!(bench.member.is_stable());
}

#[test]
fn a_static_member_waits_for_its_predecessor_and_leaves_for_a_while() {
    let fixed = |settings: &mut Settings| settings.instance_id = Some("one".to_owned());
    let mut bench = Bench::with(fixed);
    bench.step(Event::Wanted(wanted()));
    assert_eq!(bench.refuse(ErrorCode::UnreleasedInstanceId), []);
    assert_eq!(beat(&bench.later(1_000)).epoch, 0);
    bench.now = bench.now.plus(UNRELEASED_MS);
    let effects = bench.refuse(ErrorCode::UnreleasedInstanceId);
    assert!(matches!(effects[..], [Effect::Fail(_)]), "{effects:?}");
    let mut bench = Bench::stable_with(fixed);
    assert_eq!(beat(&bench.step(Event::Close)).epoch, LEAVE_FOR_A_WHILE);
}

#[test]
fn a_caller_that_stays_away_leaves_and_may_come_back() {
    let mut bench = Bench::stable_with(|settings| settings.poll_ms_max = Some(10_000));
    let effects = bench.later(10_000);
    assert!(matches!(&effects[0], Effect::Lose { reason, .. } if reason.contains("10000 ms")));
    assert_eq!(beat(&effects).epoch, LEAVE);
    assert_eq!(bench.member.next_deadline(), None);
    let effects = bench.step(Event::Seen);
    assert_eq!(beat(&effects).epoch, 0);
}

#[test]
fn a_leave_does_not_overtake_the_joining() {
    let leaves = |effects: &[Effect]| {
        let epoch = |effect: &Effect| match effect {
            Effect::Send { request: Request::Beat(beat), .. } => Some(beat.epoch),
            _ => None,
        };
        effects.iter().filter_map(epoch).eq([LEAVE])
    };
    for is_refused in [false, true] {
        let mut bench = Bench::new();
        bench.step(Event::Wanted(wanted()));
        assert_eq!(bench.step(Event::Close), []);
        assert_eq!(bench.later(60_000), [], "it waits for the answer");
        assert!(bench.member.is_leaving());
        let effects = if is_refused {
            bench.refuse(ErrorCode::NetworkException)
        } else {
            bench.beaten(1, Some(&[0]))
        };
        assert!(leaves(&effects), "{effects:?}");
        assert!(!bench.member.is_leaving());
    }
    let mut bench = Bench::new();
    bench.step(Event::Wanted(wanted()));
    bench.beaten(1, None);
    assert!(leaves(&bench.step(Event::Close)));
}
