//! What is appended of producers, in and out of transactions, and what their transactions hold back.

use super::*;
use crate::record::{BatchBuilder, BatchOptions};

fn header(epoch: i16, sequence: i32, count: i32, offset: i64) -> BatchHeader {
    let mut builder = BatchBuilder::new(BatchOptions {
        base_offset: Offset(offset),
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(epoch),
        base_sequence: Sequence(sequence),
        ..BatchOptions::default()
    });
    for _ in 0..count {
        builder.append(TimestampMs(1), None, Some(b"v"), &[]).unwrap();
    }
    BatchHeader::parse(&builder.finish().unwrap()).unwrap()
}

fn check(producers: &Producers, header: &BatchHeader) -> Result<Check, ErrorCode> {
    let verified = Verified { verifications: None, is_required: true };
    producers.check(header, None, verified).map_err(|error| error.code())
}

#[test]
fn sequences_must_follow_and_duplicates_are_found() {
    let mut producers = Producers::default();
    // Nothing is known: any sequence may come first.
    let first = header(0, 17, 3, 100);
    assert_eq!(check(&producers, &first), Ok(Check::Append));
    producers.apply(&first, None, TimestampMs(5));
    let Ok(Check::Duplicate(found)) = check(&producers, &first) else { panic!("no duplicate") };
    assert_eq!((found.first_offset(), found.last_offset), (Offset(100), Offset(102)));
    let refused = Err(ErrorCode::OutOfOrderSequenceNumber);
    assert_eq!(check(&producers, &header(0, 21, 1, 103)), refused);
    assert_eq!(check(&producers, &header(0, 17, 2, 103)), refused);
    assert_eq!(check(&producers, &header(1, 20, 1, 103)), refused, "a new epoch starts with 0");
    for (sequence, offset) in (20..26).zip(103..) {
        let next = header(0, sequence, 1, offset);
        assert_eq!(check(&producers, &next), Ok(Check::Append));
        producers.apply(&next, None, TimestampMs(5));
    }
    // The first batch is no longer among the last five.
    assert_eq!(check(&producers, &first), refused);
    assert!(matches!(check(&producers, &header(0, 21, 1, 0)), Ok(Check::Duplicate(_))));
    let newer = header(1, 0, 1, 200);
    assert_eq!(check(&producers, &newer), Ok(Check::Append));
    producers.apply(&newer, None, TimestampMs(6));
    assert_eq!(check(&producers, &header(0, 26, 1, 201)), Err(ErrorCode::InvalidProducerEpoch));
    producers.expire(TimestampMs(100), 50);
    assert_eq!(check(&producers, &header(0, 26, 1, 201)), Ok(Check::Append));
}

#[test]
fn a_sequence_wraps_to_zero() {
    let mut producers = Producers::default();
    producers.apply(&header(0, i32::MAX - 1, 2, 0), None, TimestampMs(0));
    assert_eq!(check(&producers, &header(0, 0, 2, 2)), Ok(Check::Append));
    producers.apply(&header(0, 0, 2, 2), None, TimestampMs(0));
    assert_eq!(check(&producers, &header(0, 2, 1, 4)), Ok(Check::Append));
    let straddling = header(1, i32::MAX, 3, 10);
    producers.apply(&straddling, None, TimestampMs(0));
    let Ok(Check::Duplicate(found)) = check(&producers, &straddling) else { panic!() };
    assert_eq!(found.first_sequence(), Sequence(i32::MAX));
    assert_eq!(check(&producers, &header(1, 2, 1, 13)), Ok(Check::Append));
}

const ID: ProducerId = ProducerId(7);

fn transactional(epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
    let mut header = header(epoch, sequence, 1, offset);
    header.attributes = header.attributes.with_transactional(true);
    header
}

fn of(producer: i64, header: BatchHeader) -> BatchHeader {
    BatchHeader { producer_id: ProducerId(producer), ..header }
}

fn marker_at(epoch: i16, offset: i64) -> BatchHeader {
    let mut header = transactional(epoch, -1, offset);
    header.attributes = header.attributes.with_control(true);
    header
}

const fn ends(committed: bool, coordinator_epoch: i32) -> TransactionMarker {
    TransactionMarker { committed, coordinator_epoch }
}

/// What is said of a batch whose verification began as `first`.
fn verified(
    producers: &Producers,
    header: &BatchHeader,
    first: (i16, i32, bool),
) -> Result<Check, ErrorCode> {
    let mut verifications = Verifications::default();
    let first = crate::log::FirstBatch {
        producer_id: ID,
        producer_epoch: ProducerEpoch(first.0),
        base_sequence: Sequence(first.1),
        supports_epoch_bump: first.2,
    };
    let guard = verifications.begin(&first, TimestampMs(0));
    let verified = Verified { verifications: Some(&verifications), is_required: true };
    producers.check(header, Some(guard), verified).map_err(|error| error.code())
}

#[test]
fn a_transaction_begins_verified_and_goes_on_in_its_epoch() {
    let mut producers = Producers::default();
    let first = transactional(2, 0, 10);
    assert_eq!(check(&producers, &first), Err(ErrorCode::InvalidTxnState));
    let none = Verifications::default();
    let optional = Verified { verifications: Some(&none), is_required: false };
    assert_eq!(producers.check(&first, None, optional).unwrap(), Check::Append);
    assert_eq!(verified(&producers, &first, (2, 0, true)), Ok(Check::Append));
    producers.apply(&first, None, TimestampMs(0));
    let next = transactional(2, 1, 11);
    assert_eq!(check(&producers, &next), Ok(Check::Append), "the transaction is open");
    assert_eq!(check(&producers, &header(2, 1, 1, 11)), Err(ErrorCode::InvalidTxnState));
    assert_eq!(check(&producers, &transactional(3, 0, 11)), Err(ErrorCode::InvalidTxnState));
    let older = transactional(1, 0, 11);
    assert_eq!(check(&producers, &older), Err(ErrorCode::InvalidProducerEpoch), "first of all");
    assert!(matches!(check(&producers, &first), Ok(Check::Duplicate(_))));
}

#[test]
fn a_later_batch_does_not_overtake_the_one_that_is_verified() {
    let producers = Producers::default();
    let refused = Err(ErrorCode::OutOfOrderSequenceNumber);
    let batch = |sequence| transactional(2, sequence, 10);
    assert_eq!(verified(&producers, &batch(5), (2, 3, false)), refused);
    assert_eq!(verified(&producers, &batch(3), (2, 3, false)), Ok(Check::Append));
    assert_eq!(verified(&producers, &batch(3), (2, 3, true)), refused, "every epoch begins with 0");
    assert_eq!(verified(&producers, &batch(0), (2, 0, true)), Ok(Check::Append));
}

#[test]
fn a_marker_is_checked_by_its_epoch_its_version_and_its_coordinator() {
    let mut producers = Producers::default();
    let check = |producers: &Producers, epoch, coordinator_epoch, transaction_version| {
        let (header, marker) = (marker_at(epoch, 20), Some(ends(true, coordinator_epoch)));
        let own = OwnBatch { header: &header, marker, transaction_version, guard: None };
        let verified = Verified { verifications: None, is_required: true };
        producers.check_own(&own, verified).map_err(|error| error.code())
    };
    assert_eq!(check(&producers, 0, 0, 2), Ok(()), "of a producer that is not known");
    producers.apply(&transactional(4, 0, 10), None, TimestampMs(0));
    let stale = Err(ErrorCode::InvalidProducerEpoch);
    assert_eq!(check(&producers, 3, 0, 0), stale);
    assert_eq!(check(&producers, 4, 0, 1), Ok(()));
    assert_eq!(check(&producers, 4, 0, 2), stale);
    assert_eq!(check(&producers, 5, 0, 2), Ok(()));
    producers.apply(&marker_at(5, 20), Some(ends(true, 8)), TimestampMs(0));
    assert_eq!(check(&producers, 6, 7, 2), Err(ErrorCode::TransactionCoordinatorFenced));
    assert_eq!(check(&producers, 6, 8, 2), Ok(()));
    assert_eq!(check(&producers, 5, 8, 2), Ok(()), "the same marker again");
    assert_eq!(check(&producers, 5, 8, 1), Ok(()));
    assert_eq!(check(&producers, 4, 8, 2), stale);
    // There is no epoch after the last one.
    producers.apply(&transactional(i16::MAX, 0, 30), None, TimestampMs(0));
    assert_eq!(check(&producers, i16::MAX, 8, 2), Ok(()));
}

#[test]
fn records_of_a_coordinator_need_a_guard_and_no_sequence() {
    let mut producers = Producers::default();
    let mut verifications = Verifications::default();
    let first = crate::log::FirstBatch {
        producer_id: ID,
        producer_epoch: ProducerEpoch(2),
        base_sequence: Sequence(0),
        supports_epoch_bump: true,
    };
    let right = Some(verifications.begin(&first, TimestampMs(0)));
    let check = |producers: &Producers, guard, header: &BatchHeader| {
        let own = OwnBatch { header, marker: None, transaction_version: 0, guard };
        let verified = Verified { verifications: Some(&verifications), is_required: true };
        producers.check_own(&own, verified).map_err(|error| error.code())
    };
    let batch = transactional(2, 9, 10);
    assert_eq!(check(&producers, None, &batch), Err(ErrorCode::InvalidTxnState));
    assert_eq!(check(&producers, right, &batch), Ok(()));
    producers.apply(&batch, None, TimestampMs(0));
    assert_eq!(check(&producers, None, &batch), Ok(()));
    assert_eq!(
        check(&producers, None, &transactional(1, 0, 11)),
        Err(ErrorCode::InvalidProducerEpoch)
    );
}

#[test]
fn what_is_unstable_waits_for_its_marker_below_the_high_watermark() {
    let mut producers = Producers::default();
    producers.apply(&transactional(0, 0, 5), None, TimestampMs(0));
    producers.apply(&of(8, transactional(0, 0, 7)), None, TimestampMs(0));
    assert_eq!(producers.first_unstable(), Some(Offset(5)));
    let abort = marker_at(0, 9);
    let aborted = producers.aborted_by([(&abort, Some(ends(false, 0)))]);
    let entry = AbortedTransaction {
        producer_id: ID,
        first_offset: Offset(5),
        last_offset: Offset(9),
        last_stable_offset: Offset(7),
    };
    assert_eq!(aborted, [entry]);
    producers.apply(&abort, Some(ends(false, 0)), TimestampMs(0));
    producers.on_high_watermark(Offset(9));
    assert_eq!(producers.first_unstable(), Some(Offset(5)), "the marker is at the high watermark");
    assert_eq!(producers.first_unstable_marker(), Some(Offset(9)));
    producers.on_high_watermark(Offset(10));
    assert_eq!(producers.first_unstable(), Some(Offset(7)));
    producers.expire(TimestampMs(1_000), 10);
    assert_eq!(producers.first_unstable(), Some(Offset(7)), "an open transaction does not expire");
    producers.apply(&of(8, marker_at(0, 11)), Some(ends(true, 0)), TimestampMs(0));
    producers.on_high_watermark(Offset(12));
    assert_eq!((producers.first_unstable(), producers.first_unstable_marker()), (None, None));
}

#[test]
fn what_several_batches_abort_is_known_before_they_count() {
    let mut producers = Producers::default();
    producers.apply(&of(9, transactional(0, 0, 3)), None, TimestampMs(0));
    let batches = [
        (transactional(0, 0, 5), None),
        (of(8, transactional(0, 0, 6)), None),
        (of(9, marker_at(0, 7)), Some(ends(true, 0))),
        (marker_at(0, 8), Some(ends(false, 0))),
        (transactional(0, 1, 9), None),
        (of(8, marker_at(0, 10)), Some(ends(false, 0))),
        (marker_at(0, 11), Some(ends(false, 0))),
        (marker_at(0, 12), Some(ends(false, 0))),
    ];
    let aborted = producers.aborted_by(batches.iter().map(|(header, marker)| (header, *marker)));
    let entries: Vec<_> = aborted
        .iter()
        .map(|entry| {
            let AbortedTransaction { producer_id, first_offset, last_offset, last_stable_offset } =
                *entry;
            (producer_id.0, first_offset.0, last_offset.0, last_stable_offset.0)
        })
        .collect();
    assert_eq!(entries, [(7, 5, 8, 6), (8, 6, 10, 9), (7, 9, 11, 12)]);
    let mut one_by_one = Vec::new();
    for (header, marker) in &batches {
        one_by_one.extend(producers.aborted_by([(header, *marker)]));
        producers.apply(header, *marker, TimestampMs(0));
    }
    assert_eq!(one_by_one, aborted);
}
