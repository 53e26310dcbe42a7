//! The table of the machine: state, call and answer to state and outcome, for both versions; and random schedules.

use proptest::prelude::*;

use super::*;

const DEADLINE: TimestampMs = TimestampMs(10_000);

#[expect(clippy::unnecessary_wraps, reason = "an answer may be without one")]
fn identity(epoch: i16) -> Option<(ProducerId, ProducerEpoch)> {
    Some((ProducerId(7), ProducerEpoch(epoch)))
}

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("orders", index)
}

const fn said(code: ErrorCode) -> Answer {
    Answer::Said(code, None)
}

const OK: Answer = said(ErrorCode::None);

/// Carries out an operation with these answers; then the time runs out. Returns what was called, too.
fn carry_out(
    machine: &mut Transaction,
    operation: Operation,
    answers: &[Answer],
) -> (Vec<Call>, Result<(), Failure>) {
    let mut calls = Vec::new();
    let completed = if operation == Operation::Commit { machine.complete() } else { Ok(()) };
    if let Err(failure) = completed.and_then(|()| machine.start(operation, DEADLINE)) {
        return (calls, Err(failure));
    }
    let mut answers = answers.iter();
    let mut now = TimestampMs(0);
    loop {
        match machine.next(now) {
            Next::Done(outcome) => return (calls, outcome),
            Next::Wait(until) => {
                assert!(until > now, "a wait is for something to come");
                now = until;
            }
            Next::Call(call) => match answers.next() {
                Some(answer) => {
                    calls.push(call);
                    machine.answered(now, *answer, 0);
                }
                None => now = DEADLINE,
            },
        }
    }
}

fn ready(version: Version) -> Transaction {
    let mut machine = Transaction::new(Backoff::default());
    assert!(machine.needs_initialization(version));
    let given = Answer::Said(ErrorCode::None, identity(3));
    let (calls, outcome) = carry_out(&mut machine, Operation::Initialize, &[given]);
    assert_eq!((calls, outcome), (vec![Call::Initialize], Ok(())));
    assert_eq!((machine.state(), machine.producer()), (State::Ready, identity(3)));
    machine
}

/// In a transaction that has a partition.
fn open(version: Version) -> Transaction {
    let mut machine = ready(version);
    assert!(!machine.needs_initialization(version));
    machine.begin(version).unwrap();
    write(&mut machine);
    machine
}

fn write(machine: &mut Transaction) {
    machine.join(&partition(0)).unwrap();
    if machine.version() == Version::One {
        assert!(!machine.may_send(&partition(0)), "TXN-1");
        assert_eq!(machine.to_add(TimestampMs(0)), [partition(0)]);
        machine.added(TimestampMs(0), OK, 0);
    }
    assert!(machine.may_send(&partition(0)));
}

fn reason(call: Call, code: ErrorCode) -> Reason {
    Reason { call: Some(call), code: Some(code), expired: false }
}

#[test]
fn what_each_answer_means() {
    use Call::{Abort, AddOffsets, AddPartitions, Commit, CommitOffsets, Initialize};
    use Judgement::{Abortable, Fatal, Fenced, Refused, Retry, RetrySoon};
    let all = [Initialize, AddPartitions, AddOffsets, CommitOffsets, Commit, Abort];
    let later = [AddPartitions, AddOffsets, CommitOffsets, Commit, Abort];
    let rows: &[(ErrorCode, &[Call], Judgement)] = &[
        (ErrorCode::None, &all, Judgement::Accepted),
        (ErrorCode::ConcurrentTransactions, &all, RetrySoon),
        (ErrorCode::NotCoordinator, &all, Retry),
        (ErrorCode::CoordinatorNotAvailable, &all, Retry),
        (ErrorCode::CoordinatorLoadInProgress, &all, Retry),
        (ErrorCode::UnknownTopicOrPartition, &all, Retry),
        (ErrorCode::RequestTimedOut, &all, Retry),
        (ErrorCode::ProducerFenced, &all, Fenced),
        (ErrorCode::InvalidProducerEpoch, &all, Fenced),
        (ErrorCode::InvalidTransactionTimeout, &[Initialize], Refused),
        (ErrorCode::TransactionalIdAuthorizationFailed, &[Initialize], Refused),
        (ErrorCode::TransactionalIdAuthorizationFailed, &later, Fatal),
        (ErrorCode::TransactionAbortable, &[Initialize], Refused),
        (
            ErrorCode::TransactionAbortable,
            &[AddPartitions, AddOffsets, CommitOffsets, Commit],
            Abortable,
        ),
        (ErrorCode::TransactionAbortable, &[Abort], Fatal),
        (ErrorCode::InvalidProducerIdMapping, &later, Fatal),
        (ErrorCode::InvalidTxnState, &[AddPartitions, AddOffsets, CommitOffsets, Abort], Fatal),
        (ErrorCode::UnknownProducerId, &later, Abortable),
        (ErrorCode::TopicAuthorizationFailed, &[AddPartitions, CommitOffsets], Abortable),
        (ErrorCode::OperationNotAttempted, &[AddPartitions], Abortable),
        (ErrorCode::GroupAuthorizationFailed, &[AddOffsets, CommitOffsets], Abortable),
        (ErrorCode::UnknownMemberId, &[CommitOffsets], Abortable),
        (ErrorCode::IllegalGeneration, &[CommitOffsets], Abortable),
        (ErrorCode::FencedInstanceId, &[CommitOffsets], Abortable),
        (ErrorCode::StaleMemberEpoch, &[CommitOffsets], Abortable),
        (ErrorCode::UnsupportedForMessageFormat, &[CommitOffsets], Fatal),
        (ErrorCode::UnknownServerError, &later, Fatal),
    ];
    for (code, calls, judgement) in rows {
        for &call in *calls {
            for version in [Version::One, Version::Two] {
                assert_eq!(judge(call, version, *code), *judgement, "{call:?} {code} {version:?}");
            }
        }
    }
    assert_eq!(judge(Commit, Version::One, ErrorCode::InvalidTxnState), Fatal);
    assert_eq!(judge(Commit, Version::Two, ErrorCode::InvalidTxnState), Abortable);
}

/// Version, answers, and what follows.
type Row<'a> = (Version, &'a [Answer], State, Result<(), Failure>);

#[test]
fn a_commit_ends_in_the_state_of_the_table() {
    use State::{Abortable, Fatal, Ready, Uninitialized};
    let abortable = |code| Err(Failure::Abortable(reason(Call::Commit, code)));
    let load = said(ErrorCode::CoordinatorLoadInProgress);
    let expired = |code| Reason { call: Some(Call::Commit), code, expired: true };
    let rows: &[Row<'_>] = &[
        (Version::One, &[OK], Ready, Ok(())),
        (Version::One, &[said(ErrorCode::ConcurrentTransactions), OK], Ready, Ok(())),
        // TXN-3: the lost request has the epoch of the transactions to come.
        (Version::One, &[Answer::Lost, OK], Uninitialized, Ok(())),
        (Version::One, &[Answer::NotAsked, OK], Ready, Ok(())),
        (Version::Two, &[Answer::Said(ErrorCode::None, identity(4))], Ready, Ok(())),
        (Version::Two, &[Answer::Lost, Answer::Said(ErrorCode::None, identity(4))], Ready, Ok(())),
        (
            Version::Two,
            &[said(ErrorCode::TransactionAbortable)],
            Abortable,
            abortable(ErrorCode::TransactionAbortable),
        ),
        (
            Version::Two,
            &[said(ErrorCode::InvalidTxnState)],
            Abortable,
            abortable(ErrorCode::InvalidTxnState),
        ),
        (
            Version::Two,
            &[said(ErrorCode::ProducerFenced)],
            Fatal,
            Err(Failure::Fenced { in_doubt: false }),
        ),
        (
            Version::Two,
            &[Answer::Lost, said(ErrorCode::ProducerFenced)],
            Fatal,
            Err(Failure::Fenced { in_doubt: true }),
        ),
        (
            Version::One,
            &[said(ErrorCode::InvalidProducerEpoch)],
            Fatal,
            Err(Failure::Fenced { in_doubt: false }),
        ),
        // TXN-2: asked and not answered is not known ...
        (Version::One, &[Answer::Lost], Uninitialized, Err(Failure::Unknown(expired(None)))),
        (Version::Two, &[Answer::Lost], Uninitialized, Err(Failure::Unknown(expired(None)))),
        (
            Version::Two,
            &[said(ErrorCode::CoordinatorNotAvailable)],
            Uninitialized,
            Err(Failure::Unknown(expired(Some(ErrorCode::CoordinatorNotAvailable)))),
        ),
        // ... but what was never carried out is not committed, for certain.
        (Version::Two, &[], Abortable, Err(Failure::Abortable(expired(None)))),
        (Version::Two, &[Answer::NotAsked], Abortable, Err(Failure::Abortable(expired(None)))),
        (
            Version::Two,
            &[load],
            Abortable,
            Err(Failure::Abortable(expired(Some(ErrorCode::CoordinatorLoadInProgress)))),
        ),
    ];
    for (version, answers, state, outcome) in rows {
        let mut machine = open(*version);
        let (calls, told) = carry_out(&mut machine, Operation::Commit, answers);
        assert_eq!((machine.state(), told), (*state, *outcome), "{version:?} {answers:?}");
        assert_eq!(calls, vec![Call::Commit; answers.len()]);
        let epoch = if *state == Ready && *version == Version::Two { 4 } else { 3 };
        assert_eq!(machine.producer(), identity(epoch), "{version:?} {answers:?}");
    }
}

#[test]
fn after_an_unknown_outcome_nothing_begins_without_a_new_epoch() {
    for version in [Version::One, Version::Two] {
        let mut machine = open(version);
        let (_, outcome) = carry_out(&mut machine, Operation::Commit, &[Answer::Lost]);
        assert!(matches!(outcome, Err(Failure::Unknown(_))));
        assert!(machine.needs_initialization(version));
        assert_eq!(machine.begin(version), Err(Failure::Misplaced(State::Uninitialized)));
        assert!(machine.join(&partition(0)).is_err());
        let again = Answer::Said(ErrorCode::None, identity(4));
        let answers = [said(ErrorCode::ConcurrentTransactions), Answer::Lost, again];
        let (calls, outcome) = carry_out(&mut machine, Operation::Initialize, &answers);
        assert_eq!((calls, outcome), (vec![Call::Initialize; 3], Ok(())));
        assert_eq!(machine.producer(), identity(4));
        machine.begin(version).unwrap();
    }
}

#[test]
fn a_coordinator_that_completes_the_transaction_before_is_asked_again_after_20_ms() {
    let mut machine = ready(Version::One);
    machine.begin(Version::One).unwrap();
    machine.join(&partition(0)).unwrap();
    assert_eq!(machine.to_add(TimestampMs(100)).len(), 1);
    assert!(machine.is_adding() && machine.to_add(TimestampMs(100)).is_empty());
    machine.added(TimestampMs(100), said(ErrorCode::ConcurrentTransactions), 0);
    assert_eq!(machine.add_at(), Some(TimestampMs(120)));
    assert!(machine.to_add(TimestampMs(119)).is_empty());
    assert_eq!(machine.to_add(TimestampMs(120)), [partition(0)]);
    machine.added(TimestampMs(120), OK, 0);
    assert!(machine.may_send(&partition(0)) && machine.add_at().is_none());

    machine.start(Operation::Offsets, DEADLINE).unwrap();
    assert_eq!(machine.next(TimestampMs(200)), Next::Call(Call::AddOffsets));
    machine.answered(TimestampMs(200), said(ErrorCode::ConcurrentTransactions), 0);
    assert_eq!(machine.next(TimestampMs(200)), Next::Wait(TimestampMs(220)));
    assert_eq!(machine.next(TimestampMs(220)), Next::Call(Call::AddOffsets));
    machine.answered(TimestampMs(220), OK, 0);
    assert_eq!(machine.next(TimestampMs(220)), Next::Call(Call::CommitOffsets));
}

#[test]
fn version_two_adds_nothing_and_sends_offsets_at_once() {
    let mut machine = ready(Version::Two);
    machine.begin(Version::Two).unwrap();
    machine.join(&partition(0)).unwrap();
    assert!(machine.to_add(TimestampMs(0)).is_empty() && machine.may_send(&partition(0)));
    let (calls, outcome) = carry_out(&mut machine, Operation::Offsets, &[OK]);
    assert_eq!((calls, outcome), (vec![Call::CommitOffsets], Ok(())));
}

#[test]
fn what_was_accepted_is_added_and_sent_before_the_commit() {
    let mut machine = ready(Version::One);
    machine.begin(Version::One).unwrap();
    machine.join(&partition(0)).unwrap();
    machine.complete().unwrap();
    assert_eq!(machine.join(&partition(0)), Err(Failure::Misplaced(State::Committing)));
    assert_eq!(machine.to_add(TimestampMs(0)), [partition(0)]);
    machine.added(TimestampMs(0), OK, 0);
    assert!(machine.may_send(&partition(0)) && machine.obstacle().is_none());
    machine.batch_failed(None, true);
    assert_eq!(machine.state(), State::Abortable);
    assert!(machine.start(Operation::Commit, DEADLINE).is_err());
    machine.give_up().unwrap();
}

#[test]
fn an_empty_transaction_ends_without_a_request() {
    for version in [Version::One, Version::Two] {
        let mut machine = ready(version);
        machine.begin(version).unwrap();
        assert_eq!(carry_out(&mut machine, Operation::Commit, &[]), (Vec::new(), Ok(())));
        assert_eq!(machine.state(), State::Ready);
        machine.begin(version).unwrap();
        machine.give_up().unwrap();
        assert_eq!(carry_out(&mut machine, Operation::Abort, &[]), (Vec::new(), Ok(())));
        assert_eq!(machine.state(), State::Ready);
    }
}

#[test]
fn what_was_not_added_is_not_aborted() {
    for (answer, wants_epoch) in
        [(said(ErrorCode::ConcurrentTransactions), false), (Answer::Lost, true)]
    {
        let mut machine = ready(Version::One);
        machine.begin(Version::One).unwrap();
        machine.join(&partition(0)).unwrap();
        machine.to_add(TimestampMs(0));
        machine.added(TimestampMs(0), answer, 0);
        machine.give_up().unwrap();
        // A coordinator that does not have it says INVALID_TXN_STATE.
        assert_eq!(carry_out(&mut machine, Operation::Abort, &[]), (Vec::new(), Ok(())));
        assert_eq!(machine.needs_initialization(Version::One), wants_epoch, "TXN-3");
    }
}

#[test]
fn a_failed_batch_leaves_only_the_abort() {
    for version in [Version::One, Version::Two] {
        let mut machine = open(version);
        machine.batch_failed(Some(ErrorCode::MessageTooLarge), false);
        machine.batch_failed(Some(ErrorCode::InvalidRecord), false);
        let first = Reason { call: None, code: Some(ErrorCode::MessageTooLarge), expired: false };
        let failure = Failure::Abortable(first);
        assert_eq!(machine.obstacle(), Some(failure), "the first reason stays");
        assert!(!machine.may_send(&partition(0)), "TXN-5");
        assert_eq!(machine.join(&partition(1)), Err(failure));
        assert_eq!(carry_out(&mut machine, Operation::Commit, &[]).1, Err(failure));
        assert_eq!(carry_out(&mut machine, Operation::Offsets, &[]).1, Err(failure));
        assert_eq!(machine.begin(version), Err(failure));
        machine.give_up().unwrap();
        let given = if version == Version::Two { identity(4) } else { None };
        let answer = Answer::Said(ErrorCode::None, given);
        assert_eq!(carry_out(&mut machine, Operation::Abort, &[answer]).1, Ok(()));
        // In version 1 the sequence has a gap under an epoch that goes on.
        assert_eq!(machine.needs_initialization(version), version == Version::One);
    }
}

#[test]
fn batches_that_say_the_producer_is_replaced_end_it() {
    for (code, state) in [
        (ErrorCode::ProducerFenced, State::Fatal),
        (ErrorCode::InvalidProducerIdMapping, State::Fatal),
        (ErrorCode::UnsupportedVersion, State::Fatal),
        (ErrorCode::InvalidProducerEpoch, State::Abortable),
        (ErrorCode::InvalidTxnState, State::Abortable),
        (ErrorCode::OutOfOrderSequenceNumber, State::Abortable),
        (ErrorCode::TransactionAbortable, State::Abortable),
    ] {
        let mut machine = open(Version::Two);
        machine.batch_failed(Some(code), false);
        assert_eq!(machine.state(), state, "{code}");
        assert_eq!(machine.give_up().is_ok(), state == State::Abortable);
    }
    // What expired is never about the producer.
    let mut machine = open(Version::Two);
    machine.batch_failed(Some(ErrorCode::ProducerFenced), true);
    assert_eq!(machine.state(), State::Abortable);
}

#[test]
fn an_abort_without_an_answer_leaves_it_to_the_next_epoch() {
    let mut machine = open(Version::Two);
    machine.give_up().unwrap();
    let (_, outcome) = carry_out(&mut machine, Operation::Abort, &[Answer::Lost]);
    assert!(matches!(outcome, Err(Failure::Refused(Reason { expired: true, .. }))));
    assert_eq!(machine.state(), State::Uninitialized);
}

#[test]
fn a_new_version_begins_with_a_new_epoch_and_an_old_one_does_not() {
    let mut machine = open(Version::One);
    assert_eq!(carry_out(&mut machine, Operation::Commit, &[OK]).1, Ok(()));
    assert!(!machine.needs_initialization(Version::One));
    assert!(machine.needs_initialization(Version::Two));
    let mut machine = open(Version::Two);
    let given = Answer::Said(ErrorCode::None, identity(4));
    assert_eq!(carry_out(&mut machine, Operation::Commit, &[given]).1, Ok(()));
    assert!(!machine.needs_initialization(Version::One));
    machine.begin(Version::One).unwrap();
    write(&mut machine);
}

#[test]
fn a_refused_initialization_can_be_tried_again_and_a_fenced_one_cannot() {
    let mut machine = Transaction::new(Backoff::default());
    let refused = said(ErrorCode::InvalidTransactionTimeout);
    let (_, outcome) = carry_out(&mut machine, Operation::Initialize, &[refused]);
    let why = reason(Call::Initialize, ErrorCode::InvalidTransactionTimeout);
    assert_eq!(outcome, Err(Failure::Refused(why)));
    assert_eq!(machine.state(), State::Uninitialized);
    let fenced = said(ErrorCode::ProducerFenced);
    let (_, outcome) = carry_out(&mut machine, Operation::Initialize, &[fenced]);
    assert_eq!(outcome, Err(Failure::Fenced { in_doubt: false }));
    let (calls, _) = carry_out(&mut machine, Operation::Initialize, &[OK]);
    assert!(calls.is_empty() && machine.state() == State::Fatal);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin(Version),
    Write,
    Offsets,
    BatchFails(ErrorCode),
    Commit,
    Abort,
}

fn answers() -> impl Strategy<Value = Vec<Answer>> {
    let codes = prop_oneof![
        4 => Just(ErrorCode::None),
        1 => prop::sample::select(ErrorCode::ALL),
    ];
    let answer = prop_oneof![
        5 => codes.prop_map(said),
        1 => Just(Answer::Lost),
        1 => Just(Answer::NotAsked),
    ];
    prop::collection::vec(answer, 0..4)
}

fn steps() -> impl Strategy<Value = Vec<(Step, Vec<Answer>)>> {
    let version = prop_oneof![Just(Version::One), Just(Version::Two)];
    let step = prop_oneof![
        3 => version.prop_map(Step::Begin),
        3 => Just(Step::Write),
        1 => Just(Step::Offsets),
        1 => prop::sample::select(ErrorCode::ALL).prop_map(Step::BatchFails),
        2 => Just(Step::Commit),
        1 => Just(Step::Abort),
    ];
    prop::collection::vec((step, answers()), 1..40)
}

proptest! {
    /// A coordinator that raises the epoch whenever Kafka's does: what is told as committed was committed, what is
    /// told as not committed was not, and no request can be taken for one of a later transaction.
    #[test]
    fn random_schedules_keep_the_invariants(steps in steps()) {
        let mut machine = Transaction::new(Backoff::default());
        let mut epoch = 0;
        // The epochs of requests that were lost, and may arrive late.
        let mut late = BTreeSet::new();
        for (step, mut answers) in steps {
            let before = machine.state();
            let operation = match step {
                Step::Begin(version) => {
                    if machine.needs_initialization(version) {
                        epoch += 1;
                        answers.push(Answer::Said(ErrorCode::None, identity(epoch)));
                        for answer in &mut answers {
                            if let Answer::Said(ErrorCode::None, given) = answer {
                                *given = identity(epoch);
                            }
                        }
                        drop(carry_out(&mut machine, Operation::Initialize, &answers));
                    }
                    if machine.begin(version).is_ok() {
                        let (_, ProducerEpoch(own)) = machine.producer().unwrap();
                        prop_assert!(!late.contains(&own), "TXN-2, TXN-3: {own} of {late:?}");
                    }
                    continue;
                }
                Step::Write => {
                    let joined = machine.join(&partition(0));
                    prop_assert_eq!(joined.is_ok(), before == State::InTransaction);
                    let asked = machine.to_add(TimestampMs(1_000_000));
                    if !asked.is_empty() {
                        let answer = answers.first().copied().unwrap_or(OK);
                        if answer == Answer::Lost {
                            late.insert(epoch);
                        }
                        machine.added(TimestampMs(0), answer, 0);
                        let added = answer == OK;
                        prop_assert_eq!(machine.may_send(&partition(0)), added, "TXN-1");
                    }
                    continue;
                }
                Step::BatchFails(code) => {
                    if before == State::InTransaction && !code.is_ok() {
                        machine.batch_failed(Some(code), false);
                        prop_assert!(!machine.may_send(&partition(0)), "TXN-5");
                    }
                    continue;
                }
                Step::Offsets => Operation::Offsets,
                Step::Commit => Operation::Commit,
                Step::Abort => {
                    if machine.give_up().is_err() { continue }
                    Operation::Abort
                }
            };
            if machine.version() == Version::Two && operation != Operation::Offsets {
                for answer in &mut answers {
                    if let Answer::Said(ErrorCode::None, given) = answer {
                        *given = identity(epoch + 1);
                    }
                }
            }
            let asked = machine.producer();
            let (calls, outcome) = carry_out(&mut machine, operation, &answers);
            let given = &answers[..calls.len()];
            if given.contains(&Answer::Lost) {
                late.insert(asked.unwrap().1.0);
            }
            if machine.producer() != asked {
                epoch += 1;
            }
            if operation != Operation::Commit || calls.is_empty() {
                continue;
            }
            let is_accepted = matches!(given.last(), Some(Answer::Said(ErrorCode::None, _)));
            prop_assert_eq!(outcome.is_ok(), is_accepted);
            let may_be_committed = given.iter().any(|answer| match answer {
                Answer::Lost => true,
                Answer::Said(code, _) => is_doubtful(*code) && code.retriable(),
                Answer::NotAsked => false,
            });
            match outcome {
                Ok(()) => {}
                Err(Failure::Unknown(_)) => prop_assert!(may_be_committed),
                Err(Failure::Fenced { in_doubt } | Failure::Fatal { in_doubt, .. }) => {
                    prop_assert_eq!(in_doubt, may_be_committed);
                }
                // With version 2 the coordinator said so.
                Err(_) => prop_assert!(!may_be_committed || machine.version() == Version::Two),
            }
        }
    }
}
