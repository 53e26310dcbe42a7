//! No bytes make a decoder allocate more than a small multiple of their number.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use bytes::Bytes;
use ottla::protocol::frame;
use ottla::protocol::primitives::{BUDGET_BASE_BYTES, BUDGET_FACTOR};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::catalog;
use crate::random::{self, Choices};

/// Counts what the current thread holds, and its peak.
#[derive(Debug)]
struct Counting;

thread_local! {
    static HELD: Cell<i64> = const { Cell::new(0) };
    static PEAK: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // `try_with`: a thread that ends still frees.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: every call is passed to `System` unchanged.
#[allow(unsafe_code, reason = "an allocator cannot be written otherwise")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(i64::try_from(layout.size()).unwrap_or(i64::MAX));
        // SAFETY: the contract is the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-i64::try_from(layout.size()).unwrap_or(i64::MAX));
        // SAFETY: the contract is the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that the thread held beyond what it held before.
fn peak_of<T>(work: impl FnOnce() -> T) -> (T, i64) {
    let before = HELD.get();
    PEAK.set(before);
    let result = work();
    (result, PEAK.get() - before)
}

/// What decoding `length` bytes may allocate; the constant covers errors and small allocations.
fn bound(length: usize) -> i64 {
    i64::try_from(BUDGET_FACTOR * length + BUDGET_BASE_BYTES + 4096).unwrap()
}

fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
}

/// Bytes that look like lengths and counts more often than by chance.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just(vec![0xff, 0xff, 0xff, 0xff]),
        Just(vec![0x7f, 0xff, 0xff, 0xff]),
        Just(vec![0x80, 0x00, 0x00, 0x00]),
        Just(vec![0x00, 0x00, 0x00, 0x10]),
        Just(vec![0x00, 0x00, 0x40, 0x00]),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0x0f]),
        Just(vec![0xff, 0xff, 0xff, 0xff, 0x07]),
        Just(vec![0x80, 0x80, 0x01]),
        Just(vec![0x7f, 0xff]),
        Just(vec![0x00]),
        Just(vec![0x01]),
        Just(vec![0x00; 64]),
        Just(vec![0x01; 64]),
        Just(vec![0x02; 300]),
        vec(any::<u8>(), 0..40),
    ];
    vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

#[test]
fn hostile_bytes_allocate_no_more_than_a_small_multiple() {
    for case in catalog::all() {
        let outcome = runner(64).run(&hostile(), |bytes| {
            let length = bytes.len();
            let bytes = Bytes::from(bytes);
            for version in case.versions() {
                let bytes = bytes.clone();
                let (_, peak) = peak_of(|| (case.decode)(bytes, version).is_ok());
                prop_assert!(peak <= bound(length), "v{version}: {peak} bytes for {length}");
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}

#[test]
fn honest_messages_stay_within_the_budget() {
    for case in catalog::all() {
        let outcome = runner(16).run(&vec(any::<u8>(), 0..2000), |decisions| {
            for version in case.versions() {
                let choices = &mut Choices::new(&decisions);
                let bytes = Bytes::from(random::message(&case.schema, version, choices));
                let length = bytes.len();
                let (left, peak) = peak_of(|| (case.decode)(bytes, version));
                prop_assert_eq!(left.map_err(|error| error.to_string()), Ok(0));
                prop_assert!(peak <= bound(length), "v{version}: {peak} bytes for {length}");
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}

#[test]
fn a_frame_of_seven_bytes_does_not_reserve_gigabytes() {
    // Metadata version 4: a count of topics and nothing else.
    for count in [i32::MAX, i32::MIN, -2, 0x1000_0000, 2] {
        let mut bytes = vec![0, 3, 0, 4, 0, 0, 0, 1, 0xff, 0xff];
        bytes.extend(count.to_be_bytes());
        let length = bytes.len();
        let frame = Bytes::from(bytes);
        let (outcome, peak) = peak_of(|| frame::decode_request(frame));
        assert!(outcome.is_err());
        assert!(peak <= bound(length), "{peak} bytes");
    }
}

#[test]
fn a_frame_of_empty_elements_is_refused_or_in_proportion() {
    for case in catalog::all() {
        for version in case.versions() {
            for fill in [0_u8, 1, 2, 0x7f] {
                // A count in each encoding, wherever the message starts with one.
                for head in [&[0, 0, 0x80, 0][..], &[0x80, 0x80, 0x02], &[]] {
                    let mut bytes = head.to_vec();
                    bytes.resize(1 << 16, fill);
                    let length = bytes.len();
                    let bytes = Bytes::from(bytes);
                    let (_, peak) = peak_of(|| (case.decode)(bytes, version).is_ok());
                    assert!(peak <= bound(length), "{} v{version}: {peak}", case.name());
                }
            }
        }
    }
}
