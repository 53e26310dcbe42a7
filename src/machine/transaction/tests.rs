//! The tables of the requests: what each is answered in each state, and what it leaves.

use super::rig::{ID, Rig, TIMEOUT_MS, partitions};
use super::*;
use crate::error::ErrorCode;
use crate::machine::Machine as _;
use crate::types::ProducerId;

const ONE: &[(&str, i32)] = &[("a", 0)];
const TWO: &[(&str, i32)] = &[("a", 0), ("b", 1)];

fn at(id: i64, epoch: i16) -> Producer {
    Producer { id: ProducerId(id), epoch }
}

/// A rig with a producer in this state.
fn in_state(version: i16, state: TransactionState) -> (Rig, Producer) {
    let mut rig = Rig::new(version);
    let mut producer = rig.init(None).unwrap();
    if state != TransactionState::Empty {
        rig.add(producer, TWO, version).unwrap();
    }
    let commits =
        matches!(state, TransactionState::PrepareCommit | TransactionState::CompleteCommit);
    if !matches!(state, TransactionState::Empty | TransactionState::Ongoing) {
        let ended = rig.end(producer, commits, version).unwrap();
        producer = if version >= 2 { ended } else { producer };
    }
    if matches!(state, TransactionState::CompleteCommit | TransactionState::CompleteAbort) {
        rig.settle();
    }
    assert_eq!(rig.state(), state);
    (rig, producer)
}

const ALL: [TransactionState; 6] = [
    TransactionState::Empty,
    TransactionState::Ongoing,
    TransactionState::PrepareCommit,
    TransactionState::PrepareAbort,
    TransactionState::CompleteCommit,
    TransactionState::CompleteAbort,
];

#[test]
fn whoever_comes_gets_the_next_epoch_and_fences_whoever_was_there() {
    for version in [0, 1, 2] {
        let mut rig = Rig::new(version);
        let first = rig.init(None).unwrap();
        assert_eq!(first, at(1000, 0));
        let second = rig.init(None).unwrap();
        assert_eq!(second, at(1000, 1));
        assert_eq!(rig.add(first, ONE, version), Err(ErrorCode::ProducerFenced));
        assert_eq!(rig.end(first, true, version), Err(ErrorCode::ProducerFenced));
        assert_eq!(rig.add(second, ONE, version), Ok(()));
        // Another transactional id has another producer id.
        assert_eq!(rig.init_of("u", None), Ok(at(1001, 0)));
        let elsewhere = rig.add_of("u", second, ONE, version);
        assert_eq!(elsewhere, Err(ErrorCode::InvalidProducerIdMapping));
        let unknown = rig.add_of("v", second, ONE, version);
        assert_eq!(unknown, Err(ErrorCode::InvalidProducerIdMapping));
        let unknown = rig.end_of("v", second, true, version);
        assert_eq!(unknown, Err(ErrorCode::InvalidProducerIdMapping));
    }
}

#[test]
fn a_timeout_is_positive_and_at_most_what_the_broker_allows() {
    let mut rig = Rig::new(2);
    for (timeout_ms, allowed) in
        [(-1, false), (0, false), (1, true), (900_000, true), (900_001, false)]
    {
        let request = InitRequest {
            transactional_id: ID.into(),
            timeout_ms,
            expected: None,
            fresh: Some(ProducerId(5)),
        };
        let TransactionReply::Producer(result) = rig.tell(TransactionRequest::Init(request)) else {
            panic!("not a producer")
        };
        let refused = result == Err(ErrorCode::InvalidTransactionTimeout);
        assert_eq!((refused, result.is_ok()), (!allowed, allowed), "{timeout_ms}");
    }
}

#[test]
fn a_producer_goes_on_from_what_it_had_and_is_known_when_it_asks_again() {
    let mut rig = Rig::new(2);
    let first = rig.init(None).unwrap();
    let second = rig.init(Some(first));
    assert_eq!(second, Ok(at(1000, 1)));
    assert_eq!(rig.init(Some(first)), second, "asked again");
    assert_eq!(rig.init(Some(at(1000, 7))), Err(ErrorCode::ProducerFenced));
    assert_eq!(rig.init(Some(at(7, 1))), Err(ErrorCode::ProducerFenced), "of another id");
    // Another producer comes: from then on the first one is fenced.
    assert_eq!(rig.init(None), Ok(at(1000, 2)));
    assert_eq!(rig.init(Some(at(1000, 1))), Err(ErrorCode::ProducerFenced));
    // For an id that nobody knows any more, whatever the producer had.
    assert_eq!(rig.init_of("forgotten", Some(at(3, 3))), Ok(at(1001, 0)));
}

#[test]
fn an_open_transaction_is_aborted_before_the_next_producer_comes() {
    for version in [0, 2] {
        let (mut rig, old) = in_state(version, TransactionState::Ongoing);
        for _ in 0..2 {
            assert_eq!(rig.init(None), Err(ErrorCode::ConcurrentTransactions));
        }
        assert_eq!(rig.state(), TransactionState::PrepareAbort);
        assert_eq!(rig.value().producer(), at(1000, 1), "fenced");
        let markers = rig.take();
        let [marker] = &*markers else { panic!("{markers:?}") };
        assert!(!marker.commits && marker.partitions == partitions(TWO));
        assert_eq!((marker.producer, marker.version), (at(1000, 1), version));
        rig.fared(marker, MarkerOutcome::Written);
        assert_eq!(rig.state(), TransactionState::CompleteAbort);
        assert_eq!(rig.init(None), Ok(at(1000, 2)));
        assert_eq!(rig.end(old, true, version), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn partitions_are_added_in_every_state_but_while_markers_are_written() {
    for version in [0, 2] {
        for state in ALL {
            let (mut rig, producer) = in_state(version, state);
            let before = rig.log.len();
            let result = rig.add(producer, &[("c", 2)], version);
            if state.is_prepared() {
                assert_eq!(result, Err(ErrorCode::ConcurrentTransactions), "{state:?}");
                assert_eq!(rig.log.len(), before);
                continue;
            }
            assert_eq!(result, Ok(()), "{state:?}");
            let mut all = partitions(&[("c", 2)]);
            if state == TransactionState::Ongoing {
                all.extend(partitions(TWO));
            }
            assert_eq!(*rig.value().partitions, all);
            assert_eq!((rig.state(), rig.value().version), (TransactionState::Ongoing, version));
            // What is there already, costs no record.
            let before = rig.log.len();
            assert_eq!(rig.add(producer, &[("c", 2)], version), Ok(()));
            assert_eq!(rig.log.len(), before);
            // Neither does a foreigner.
            let (other, fenced) = (at(7, 0), at(1000, producer.epoch - 1));
            assert_eq!(rig.add(other, ONE, version), Err(ErrorCode::InvalidProducerIdMapping));
            assert_eq!(rig.add(fenced, ONE, version), Err(ErrorCode::ProducerFenced));
            assert_eq!(rig.log.len(), before);
        }
    }
}

#[test]
fn leaders_are_told_which_partitions_belong_to_the_transaction() {
    for state in ALL {
        let (mut rig, producer) = in_state(2, state);
        let answer = rig.verify(producer, &[("a", 0), ("c", 2)]);
        let expected = match state {
            TransactionState::Ongoing => Ok(partitions(&[("c", 2)])),
            state if state.is_prepared() => Err(ErrorCode::ConcurrentTransactions),
            _ => Ok(partitions(&[("a", 0), ("c", 2)])),
        };
        // The epoch comes first: the producer is told the next one before the markers are written.
        assert_eq!(answer, expected, "{state:?}");
        let fenced = at(1000, producer.epoch - 1);
        assert_eq!(rig.verify(fenced, ONE), Err(ErrorCode::ProducerFenced));
        assert_eq!(rig.verify(at(7, 0), ONE), Err(ErrorCode::InvalidProducerIdMapping));
    }
}

#[test]
fn the_first_version_ends_what_is_open_and_repeats_what_it_said() {
    use ErrorCode::{ConcurrentTransactions, InvalidTxnState};
    for state in ALL {
        for commits in [true, false] {
            let (mut rig, producer) = in_state(0, state);
            let before = rig.log.len();
            let result = rig.end(producer, commits, 0);
            let expected = match (state, commits) {
                (TransactionState::Ongoing, _)
                | (TransactionState::CompleteCommit, true)
                | (TransactionState::CompleteAbort, false) => Ok(Producer::NONE),
                (state, _) if state.is_prepared() => Err(ConcurrentTransactions),
                _ => Err(InvalidTxnState),
            };
            assert_eq!(result, expected, "{state:?} {commits}");
            let appended = usize::from(state == TransactionState::Ongoing);
            assert_eq!(rig.log.len(), before + appended);
            assert_eq!(rig.value().producer(), producer, "the epoch stays");
            for other in [at(1000, producer.epoch + 1), at(1000, producer.epoch - 1)] {
                assert_eq!(rig.end(other, commits, 0), Err(ErrorCode::ProducerFenced));
            }
            assert_eq!(rig.end(at(7, 0), commits, 0), Err(ErrorCode::InvalidProducerIdMapping));
        }
    }
}

/// Kafka's table (KIP-890): who asks with the epoch before repeats a request, who asks with the current one begins anew.
#[test]
fn the_second_version_raises_the_epoch_at_each_end() {
    use ErrorCode::{ConcurrentTransactions, InvalidTxnState, ProducerFenced};
    for state in ALL {
        for (commits, repeats) in [(true, true), (true, false), (false, true), (false, false)] {
            let (mut rig, producer) = in_state(2, state);
            let asks = at(1000, producer.epoch - i16::from(repeats));
            let before = rig.log.len();
            let result = rig.end(asks, commits, 2);
            let raised = Ok(at(1000, producer.epoch + 1));
            let expected = match (state, repeats, commits) {
                (state, _, _) if state.is_prepared() => Err(ConcurrentTransactions),
                (TransactionState::Empty | TransactionState::Ongoing, true, _) => {
                    Err(ProducerFenced)
                }
                (TransactionState::Ongoing, false, _) | (_, false, false) => raised,
                (TransactionState::CompleteCommit, true, true)
                | (TransactionState::CompleteAbort, true, false) => Ok(producer),
                _ => Err(InvalidTxnState),
            };
            assert_eq!(result, expected, "{state:?} commits: {commits} repeats: {repeats}");
            let appended = match (result == raised, state) {
                (false, _) => 0,
                (true, TransactionState::Ongoing) => 1,
                // An empty transaction is over at once.
                (true, _) => 2,
            };
            assert_eq!(rig.log.len(), before + appended);
            let other = rig.end(at(7, 0), commits, 2);
            let unknown = if rig.state().is_prepared() {
                ConcurrentTransactions
            } else {
                ErrorCode::InvalidProducerIdMapping
            };
            assert_eq!(other, Err(unknown));
            if !rig.state().is_prepared() {
                let beyond = at(1000, rig.value().producer_epoch + 1);
                assert_eq!(rig.end(beyond, commits, 2), Err(ProducerFenced));
            }
        }
    }
}

#[test]
fn the_state_is_kept_while_and_after_markers_are_written() {
    let (mut rig, producer) = in_state(2, TransactionState::PrepareCommit);
    assert_eq!(producer, at(1000, 1));
    let markers = rig.take();
    assert_eq!((markers[0].producer, markers[0].commits), (producer, true));
    rig.answered(&markers[0], vec![(partitions(ONE).pop_first().unwrap(), MarkerOutcome::Written)]);
    assert_eq!(rig.state(), TransactionState::PrepareCommit, "one has no marker yet");
    let TransactionReply::Described(described) =
        rig.tell(TransactionRequest::Describe { ids: vec![ID.into(), "".into(), "u".into()] })
    else {
        panic!("not described")
    };
    let [(_, Ok(one)), (_, Err(empty)), (_, Err(unknown))] = &*described else {
        panic!("{described:?}")
    };
    assert_eq!(one.partitions, partitions(&[("b", 1)]));
    assert_eq!((*empty, *unknown), (ErrorCode::InvalidRequest, ErrorCode::TransactionalIdNotFound));
    rig.fared(&markers[0], MarkerOutcome::Written);
    assert_eq!(rig.state(), TransactionState::CompleteCommit);
    assert!(rig.value().partitions.is_empty());
    assert_eq!(rig.value().producer(), producer);
}

#[test]
fn where_the_epochs_run_out_the_next_transaction_has_another_id() {
    let (mut rig, _) = in_state(2, TransactionState::Empty);
    let last = rig.set_epoch(EPOCH_MAX - 1);
    rig.add(last, ONE, 2).unwrap();
    let next = rig.end(last, true, 2);
    assert_eq!(next, Ok(at(1001, 0)));
    assert_eq!(rig.value().producer(), at(1000, EPOCH_MAX), "of the markers");
    // The next id survives a coordinator, and so does whoever repeats the request.
    for _ in 0..2 {
        rig.restart();
        assert_eq!(rig.end(last, true, 2), Err(ErrorCode::ConcurrentTransactions));
    }
    let markers = rig.take();
    assert_eq!(markers[0].producer, at(1000, EPOCH_MAX));
    rig.fared(&markers[0], MarkerOutcome::Written);
    assert_eq!(rig.value().producer(), at(1001, 0));
    rig.restart();
    assert_eq!(rig.end(last, true, 2), next, "repeated");
    assert_eq!(rig.end(last, false, 2), Err(ErrorCode::InvalidTxnState));
    assert_eq!(rig.add(last, ONE, 2), Err(ErrorCode::InvalidProducerIdMapping));
    rig.add(at(1001, 0), ONE, 2).unwrap();
    let since = rig.end(last, true, 2);
    assert_eq!(since, Err(ErrorCode::InvalidProducerIdMapping), "another transaction");
}

#[test]
fn an_empty_transaction_also_gives_another_id_where_the_epochs_run_out() {
    let (mut rig, _) = in_state(2, TransactionState::Empty);
    let last = rig.set_epoch(EPOCH_MAX - 1);
    assert_eq!(rig.end(last, false, 2), Ok(at(1001, 0)));
    assert_eq!(rig.end(last, false, 2), Ok(at(1001, 0)), "repeated");
    assert_eq!(rig.init(None), Ok(at(1001, 1)));
}

#[test]
fn a_producer_that_comes_when_the_epochs_have_run_out_gets_another_id() {
    for expects in [false, true] {
        let (mut rig, _) = in_state(2, TransactionState::Empty);
        let last = rig.set_epoch(EPOCH_MAX - 1);
        let expected = expects.then_some(last);
        assert_eq!(rig.init(expected), Ok(at(1001, 0)));
        // Asked again, by the one that said what it had.
        let again = rig.init(Some(last));
        assert_eq!(again, if expects { Ok(at(1001, 0)) } else { Err(ErrorCode::ProducerFenced) });
        assert_eq!(rig.add(last, ONE, 2), Err(ErrorCode::InvalidProducerIdMapping));
    }
    // The last epoch that is told to anybody; who asks again has it, too.
    let (mut rig, _) = in_state(2, TransactionState::Empty);
    let before = rig.set_epoch(EPOCH_MAX - 2);
    assert_eq!(rig.init(Some(before)), Ok(at(1000, EPOCH_MAX - 1)));
    assert_eq!(rig.init(Some(before)), Ok(at(1000, EPOCH_MAX - 1)));
    assert_eq!(rig.init(Some(at(1000, 3))), Err(ErrorCode::ProducerFenced));
}

#[test]
fn the_highest_epoch_fences_and_is_told_to_nobody() {
    for (repeats, commits) in [(true, false), (true, true), (false, false)] {
        let (mut rig, _) = in_state(2, TransactionState::Empty);
        let last = rig.set_epoch(EPOCH_MAX - 1);
        rig.add(last, ONE, 2).unwrap();
        rig.pass(i64::from(TIMEOUT_MS) + 10_001);
        rig.settle();
        let highest = at(1000, EPOCH_MAX);
        assert_eq!(
            (rig.state(), rig.value().producer()),
            (TransactionState::CompleteAbort, highest)
        );
        // Who makes it up is nobody.
        assert_eq!(rig.add(highest, ONE, 2), Err(ErrorCode::ProducerFenced));
        assert_eq!(rig.verify(highest, ONE), Err(ErrorCode::ProducerFenced));
        for version in [0, 2] {
            assert_eq!(rig.end(highest, commits, version), Err(ErrorCode::ProducerFenced));
        }
        // Who lost its transaction goes on under another id.
        let next = if repeats { rig.end(last, commits, 2) } else { rig.init(Some(last)) };
        if commits {
            assert_eq!(next, Err(ErrorCode::InvalidTxnState));
        } else {
            assert_eq!(next, Ok(at(1001, 0)));
            let again = if repeats { rig.end(last, commits, 2) } else { rig.init(Some(last)) };
            assert_eq!(again, next, "repeated");
        }
    }
}

#[test]
fn a_transaction_that_lasts_too_long_is_aborted_and_its_producer_fenced() {
    for version in [0, 2] {
        let (mut rig, producer) = in_state(version, TransactionState::Ongoing);
        rig.pass(i64::from(TIMEOUT_MS) - 1);
        assert_eq!(rig.state(), TransactionState::Ongoing);
        // Neither does it begin anew with more partitions.
        rig.add(producer, &[("c", 2)], version).unwrap();
        rig.pass(10_001);
        assert_eq!(rig.state(), TransactionState::PrepareAbort);
        rig.settle();
        let fenced = rig.add(producer, ONE, version);
        assert_eq!(fenced, Err(ErrorCode::ProducerFenced));
        let (abort, commit) = (rig.end(producer, false, version), rig.end(producer, true, version));
        if version == 2 {
            // Its abort finds what it asks for, and the next epoch with it.
            assert_eq!((abort, commit), (Ok(at(1000, 1)), Err(ErrorCode::InvalidTxnState)));
        } else {
            let fenced = Err(ErrorCode::ProducerFenced);
            assert_eq!((abort, commit), (fenced, fenced));
        }
        assert_eq!(rig.init(None), Ok(at(1000, 2)));
    }
}

#[test]
fn a_timeout_counts_time_and_not_the_clock() {
    let (mut rig, _) = in_state(2, TransactionState::Ongoing);
    for by_ms in [3_600_000, -7_200_000] {
        rig.now = rig.now.plus(by_ms);
        rig.event(Event::ClockSet { by_ms });
        rig.pass(20_000);
        assert_eq!(rig.state(), TransactionState::Ongoing, "{by_ms}");
    }
    rig.pass(40_000);
    assert_eq!(rig.state(), TransactionState::PrepareAbort);
    // Under another coordinator it passes once more at most, whatever the clock there says.
    let (mut rig, _) = in_state(2, TransactionState::Ongoing);
    rig.now = rig.now.plus(-3_600_000);
    rig.restart();
    rig.pass(i64::from(TIMEOUT_MS) + 10_001);
    assert_eq!(rig.state(), TransactionState::PrepareAbort);
}

#[test]
fn an_id_that_nobody_uses_is_forgotten() {
    for state in ALL {
        let (mut rig, producer) = in_state(2, state);
        if state == TransactionState::Ongoing {
            // Here is nobody to write markers, so that it never ends.
            rig.pass(i64::from(TIMEOUT_MS) + 10_001);
            rig.restart();
        }
        let expires = state.is_idle();
        rig.pass(500_000);
        assert!(rig.shard.transactions.contains_key(ID));
        rig.pass(300_000);
        assert_eq!(rig.shard.transactions.contains_key(ID), !expires, "{state:?}");
        if expires {
            assert_eq!(rig.log.last().map(|record| record.value.is_none()), Some(true));
            assert_eq!(rig.add(producer, ONE, 2), Err(ErrorCode::InvalidProducerIdMapping));
            assert_eq!(rig.shard.next_deadline(), None);
            rig.restart();
            assert_eq!(rig.init(None), Ok(at(1001, 0)));
        }
    }
}

#[test]
fn markers_are_handed_out_once_and_tried_again_until_each_is_written() {
    let (mut rig, _) = in_state(2, TransactionState::PrepareAbort);
    let markers = rig.take();
    let [marker] = &*markers else { panic!("{markers:?}") };
    assert_eq!(marker.partitions, partitions(TWO));
    // A later question answers an earlier one.
    let (first, second) =
        (rig.ask(TransactionRequest::TakeMarkers), rig.ask(TransactionRequest::TakeMarkers));
    assert_eq!(rig.answer(first), Some(TransactionReply::Markers(Vec::new())));
    assert_eq!(rig.answer(second), None);
    let [a, b] = &*marker.partitions.iter().cloned().collect::<Vec<_>>() else { panic!("not two") };
    let outcomes = vec![(a.clone(), MarkerOutcome::Written), (b.clone(), MarkerOutcome::Again)];
    rig.answered(marker, outcomes);
    assert_eq!(rig.answer(second), None, "not at once");
    rig.pass(20);
    let Some(TransactionReply::Markers(again)) = rig.answer(second) else { panic!("not again") };
    assert_eq!(again[0].partitions, [b.clone()].into());
    for _ in 0..20 {
        rig.fared(&again[0], MarkerOutcome::Again);
        rig.pass(640);
        assert_eq!(rig.take(), again);
    }
    assert_eq!(rig.state(), TransactionState::PrepareAbort);
    rig.fared(&again[0], MarkerOutcome::Gone);
    assert_eq!(rig.state(), TransactionState::CompleteAbort);
    // Late answers change nothing.
    let before = rig.log.len();
    rig.fared(marker, MarkerOutcome::Written);
    assert_eq!(rig.log.len(), before);
}

#[test]
fn a_later_answer_of_an_earlier_end_is_not_taken_for_this_one() {
    let (mut rig, producer) = in_state(2, TransactionState::PrepareCommit);
    let old = rig.take();
    rig.fared(&old[0], MarkerOutcome::Written);
    rig.add(producer, TWO, 2).unwrap();
    rig.end(producer, false, 2).unwrap();
    rig.fared(&old[0], MarkerOutcome::Written);
    assert_eq!(rig.state(), TransactionState::PrepareAbort);
    assert_eq!(rig.take().len(), 1);
}

#[test]
fn after_a_restart_all_markers_are_handed_out_once_more() {
    for state in [TransactionState::PrepareCommit, TransactionState::PrepareAbort] {
        for version in [0, 1, 2] {
            let (mut rig, producer) = in_state(version, state);
            let before = rig.take();
            rig.restart();
            let after = rig.take();
            assert_eq!(after[0].partitions, partitions(TWO));
            assert_eq!(
                (after[0].producer, after[0].commits),
                (before[0].producer, before[0].commits)
            );
            rig.fared(&before[0], MarkerOutcome::Written);
            assert_eq!(rig.state(), state, "those are still on their way");
            rig.fared(&after[0], MarkerOutcome::Written);
            assert!(rig.state().is_idle());
            assert_eq!(rig.value().producer(), producer);
        }
    }
}

#[test]
fn many_transactions_end_at_once() {
    let mut rig = Rig::new(2);
    for index in 0..10_000 {
        let id = format!("t{index}");
        let producer = rig.init_of(&id, None).unwrap();
        rig.add_of(&id, producer, ONE, 2).unwrap();
    }
    rig.pass(i64::from(TIMEOUT_MS) + 10_001);
    let mut ended = 0;
    loop {
        let markers = rig.take();
        if markers.is_empty() {
            break;
        }
        ended += markers.len();
        for markers in &markers {
            rig.fared(markers, MarkerOutcome::Written);
        }
    }
    assert_eq!(ended, 10_000);
    let list = ListTransactionsRequest { duration_ms: -1, ..ListTransactionsRequest::default() };
    let TransactionReply::Listed(listed) = rig.tell(TransactionRequest::List(list)) else {
        panic!("not a list")
    };
    assert!(listed.iter().all(|one| one.state == TransactionState::CompleteAbort));
    assert_eq!(listed.len(), 10_000);
}

#[test]
fn transactions_are_listed_by_state_id_age_and_pattern() {
    let mut rig = Rig::new(2);
    for id in ["a-1", "a-2", "b"] {
        let producer = rig.init_of(id, None).unwrap();
        if id != "b" {
            rig.add_of(id, producer, ONE, 2).unwrap();
        }
        rig.pass(1000);
    }
    let mut listed = |request: ListTransactionsRequest| {
        let TransactionReply::Listed(listed) = rig.tell(TransactionRequest::List(request)) else {
            panic!("not a list")
        };
        listed.into_iter().map(|one| one.transactional_id.to_string()).collect::<Vec<_>>().join(" ")
    };
    let all = ListTransactionsRequest { duration_ms: -1, ..ListTransactionsRequest::default() };
    assert_eq!(listed(all.clone()), "a-1 a-2 b");
    let states = vec!["Ongoing".into(), "Whatever".into()];
    assert_eq!(listed(ListTransactionsRequest { states, ..all.clone() }), "a-1 a-2");
    let states = vec!["Whatever".into()];
    assert_eq!(listed(ListTransactionsRequest { states, ..all.clone() }), "");
    let producer_ids = [ProducerId(1001)].into();
    assert_eq!(listed(ListTransactionsRequest { producer_ids, ..all.clone() }), "a-2");
    let ongoing = vec!["Ongoing".into()];
    let older = ListTransactionsRequest { duration_ms: 2000, states: ongoing, ..all.clone() };
    assert_eq!(listed(older), "a-1");
    let pattern = Some(compile_pattern("a|b").unwrap());
    assert_eq!(listed(ListTransactionsRequest { pattern, ..all.clone() }), "b", "the whole id");
    let pattern = Some(compile_pattern("a-.").unwrap());
    assert_eq!(listed(ListTransactionsRequest { pattern, ..all }), "a-1 a-2");
    for wrong in ["(", "a)(b", &"a".repeat(20_000)] {
        let code = compile_pattern(wrong).unwrap_err().code();
        assert_eq!(code, ErrorCode::InvalidRegularExpression);
    }
}

#[test]
fn a_damaged_record_is_refused() {
    use crate::machine::Replicated as _;
    let (mut rig, _) = in_state(2, TransactionState::Ongoing);
    let good = rig.value().clone();
    for value in [
        TransactionValue { producer_id: ProducerId(-1), ..good.clone() },
        TransactionValue { producer_epoch: -1, ..good.clone() },
        TransactionValue { state: TransactionState::Empty, ..good },
    ] {
        let record =
            TransactionRecord { transactional_id: ID.into(), value: Some(value), has_tags: true };
        assert!(rig.shard.apply(&record).is_err());
    }
}
