use super::*;
use crate::types::PartitionIndex;

fn key(topic: &str, partition: i32) -> FetchKey {
    FetchKey { topic: FetchTopicKey::Name(topic.into()), partition: PartitionIndex(partition) }
}

fn at(offset: i64) -> FetchInterest {
    FetchInterest {
        fetch_offset: Offset(offset),
        max_bytes: 1000,
        current_leader_epoch: LeaderEpoch::UNKNOWN,
        last_fetched_epoch: LeaderEpoch::UNKNOWN,
        known: FollowerView::UNASKED,
    }
}

fn request(session_id: i32, epoch: i32, interests: &[(&str, i32, i64)]) -> SessionRequest {
    let interests =
        interests.iter().map(|&(topic, part, offset)| (key(topic, part), at(offset))).collect();
    SessionRequest {
        session_id,
        epoch,
        uses_topic_ids: false,
        privileged: false,
        interests,
        forgotten: Vec::new(),
    }
}

fn quiet(high_watermark: i64) -> FetchOutcome {
    FetchOutcome {
        must_respond: false,
        has_records: false,
        error: ErrorCode::None,
        high_watermark: Offset(high_watermark),
        log_start_offset: Offset(0),
    }
}

fn with_records(high_watermark: i64) -> FetchOutcome {
    FetchOutcome { has_records: true, ..quiet(high_watermark) }
}

const NOW: TimestampMs = TimestampMs(1_000_000);

/// Opens a session on `interests`, all at high watermark 10, and returns its id.
fn open(sessions: &mut FetchSessions, now: TimestampMs, interests: &[(&str, i32, i64)]) -> i32 {
    let context = sessions.open(now, request(NO_SESSION, INITIAL_EPOCH, interests)).unwrap();
    let outcomes = vec![quiet(10); interests.len()];
    let response = sessions.close(now, &context, &outcomes);
    assert_eq!(response.included, vec![true; interests.len()], "a full response names all");
    response.session_id
}

#[test]
fn an_incremental_response_names_only_what_changed() {
    let mut sessions = FetchSessions::new(10, 120_000, 7);
    let id = open(&mut sessions, NOW, &[("a", 0, 0), ("a", 1, 0), ("b", 0, 5)]);
    assert_ne!(id, NO_SESSION);
    let context = sessions.open(NOW, request(id, 1, &[])).unwrap();
    assert_eq!(context.interests.len(), 3);
    let response = sessions.close(NOW, &context, &[quiet(10), with_records(12), quiet(10)]);
    assert_eq!(response.included, [false, true, false]);
    assert_eq!(response.session_id, id);
    // The one with records moved to the end of the queue.
    let context = sessions.open(NOW, request(id, 2, &[("a", 1, 12)])).unwrap();
    let keys: Vec<_> = context.interests.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [key("a", 0), key("b", 0), key("a", 1)]);
    assert_eq!(context.interests[2].1, at(12));
    let failed = FetchOutcome { error: ErrorCode::KafkaStorageError, ..quiet(10) };
    let response = sessions.close(NOW, &context, &[quiet(11), failed, quiet(12)]);
    assert_eq!(response.included, [true, true, false]);
    // The error is over and nothing else changed: it is reported again.
    let context = sessions.open(NOW, request(id, 3, &[])).unwrap();
    let response = sessions.close(NOW, &context, &[quiet(11), quiet(10), quiet(12)]);
    assert_eq!(response.included, [false, true, false]);
}

#[test]
fn forgotten_partitions_are_gone_and_an_empty_session_ends() {
    let mut sessions = FetchSessions::new(10, 120_000, 7);
    let id = open(&mut sessions, NOW, &[("a", 0, 0), ("b", 0, 0)]);
    let mut next = request(id, 1, &[("c", 0, 0)]);
    next.forgotten = vec![key("a", 0), key("never", 9)];
    let context = sessions.open(NOW, next).unwrap();
    let keys: Vec<_> = context.interests.iter().map(|(key, _)| key.clone()).collect();
    assert_eq!(keys, [key("b", 0), key("c", 0)]);
    let mut last = request(id, 2, &[]);
    last.forgotten = vec![key("b", 0), key("c", 0)];
    let context = sessions.open(NOW, last).unwrap();
    assert_eq!(context.interests, []);
    assert_eq!(sessions.close(NOW, &context, &[]).session_id, NO_SESSION);
    assert!(sessions.is_empty());
}

#[test]
fn wrong_ids_epochs_and_kinds_of_names_are_refused() {
    let mut sessions = FetchSessions::new(10, 120_000, 7);
    let id = open(&mut sessions, NOW, &[("a", 0, 0)]);
    let check = |sessions: &mut FetchSessions, request: SessionRequest, code: ErrorCode| {
        assert_eq!(sessions.open(NOW, request).unwrap_err(), code);
    };
    check(&mut sessions, request(id ^ 1, 1, &[]), ErrorCode::FetchSessionIdNotFound);
    check(&mut sessions, request(NO_SESSION, 1, &[]), ErrorCode::FetchSessionIdNotFound);
    check(&mut sessions, request(id, 2, &[]), ErrorCode::InvalidFetchSessionEpoch);
    let by_id = SessionRequest { uses_topic_ids: true, ..request(id, 1, &[]) };
    check(&mut sessions, by_id, ErrorCode::FetchSessionTopicIdError);
    // None of these used up the epoch.
    assert!(sessions.open(NOW, request(id, 1, &[])).is_ok());
}

#[test]
fn an_answer_that_was_overtaken_is_an_error() {
    let mut sessions = FetchSessions::new(10, 120_000, 7);
    let id = open(&mut sessions, NOW, &[("a", 0, 0)]);
    let slow = sessions.open(NOW, request(id, 1, &[])).unwrap();
    let fast = sessions.open(NOW, request(id, 2, &[])).unwrap();
    assert_eq!(sessions.close(NOW, &fast, &[quiet(11)]).error, ErrorCode::None);
    let late = sessions.close(NOW, &slow, &[quiet(11)]);
    assert_eq!(late.error, ErrorCode::InvalidFetchSessionEpoch);
}

#[test]
fn a_final_epoch_ends_the_session_and_a_new_one_replaces_it() {
    let mut sessions = FetchSessions::new(10, 120_000, 7);
    let id = open(&mut sessions, NOW, &[("a", 0, 0)]);
    let again = sessions.open(NOW, request(id, INITIAL_EPOCH, &[("a", 0, 0)])).unwrap();
    assert!(sessions.is_empty());
    let second = sessions.close(NOW, &again, &[quiet(1)]).session_id;
    assert_ne!(second, id);
    let context = sessions.open(NOW, request(second, FINAL_EPOCH, &[("a", 0, 0)])).unwrap();
    assert_eq!(sessions.close(NOW, &context, &[quiet(1)]).session_id, NO_SESSION);
    assert!(sessions.is_empty());
}

#[test]
fn slots_are_bounded_and_the_stale_give_way() {
    let mut sessions = FetchSessions::new(2, 120_000, 7);
    let first = open(&mut sessions, NOW, &[("a", 0, 0)]);
    let second = open(&mut sessions, NOW.plus(1), &[("a", 0, 0), ("a", 1, 0)]);
    assert_eq!(open(&mut sessions, NOW.plus(2), &[("a", 0, 0)]), NO_SESSION, "all are young");
    let third = open(&mut sessions, NOW.plus(120_001), &[("a", 0, 0)]);
    assert_ne!(third, NO_SESSION);
    let gone = sessions.open(NOW.plus(120_001), request(first, 1, &[]));
    assert_eq!(gone.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
    assert_eq!(sessions.len(), 2);
    // `second` is old now, and in use: a larger one may take its place, a smaller one may not.
    sessions.open(NOW.plus(200_000), request(second, 1, &[])).unwrap();
    assert_eq!(open(&mut sessions, NOW.plus(200_001), &[("a", 0, 0)]), NO_SESSION);
    let big = [("a", 0, 0), ("a", 1, 0), ("a", 2, 0)];
    assert_ne!(open(&mut sessions, NOW.plus(200_002), &big), NO_SESSION);
    let gone = sessions.open(NOW.plus(200_003), request(second, 2, &[]));
    assert_eq!(gone.unwrap_err(), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn epochs_wrap_to_one() {
    assert_eq!(next_epoch(i32::MAX), 1);
    assert_eq!(next_epoch(1), 2);
    assert_eq!(next_epoch(FINAL_EPOCH), FINAL_EPOCH);
}
