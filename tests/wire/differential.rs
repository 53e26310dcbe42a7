//! Encode and decode against bytes that we did not write, and against another implementation.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::catalog::{self, Case};
use crate::random::{self, Choices};

fn decisions() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..400)
}

fn runner(cases: u32) -> TestRunner {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    TestRunner::new(config)
}

#[test]
fn every_message_of_every_version_comes_back_byte_by_byte() {
    for case in catalog::all() {
        let outcome = runner(32).run(&decisions(), |decisions| {
            for version in case.versions() {
                let choices = &mut Choices::new(&decisions);
                let bytes = Bytes::from(random::message(&case.schema, version, choices));
                let left = (case.decode)(bytes.clone(), version);
                prop_assert_eq!(left.map_err(|error| error.to_string()), Ok(0), "v{}", version);
                let back = (case.round_trip)(bytes.clone(), version);
                let back = back.map_err(|error| error.to_string());
                prop_assert_eq!(back, Ok(bytes), "v{}", version);
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}

/// The versions of a message that both implementations know; says which are not compared.
fn compared_versions(case: &Case) -> Vec<i16> {
    let (compared, left_out): (Vec<_>, Vec<_>) =
        case.versions().partition(|&version| case.peer_versions.contains(version));
    if !left_out.is_empty() && case.api.is_some() {
        println!("not compared, unknown to kafka-protocol: {} {left_out:?}", case.name());
    }
    compared
}

#[test]
fn another_implementation_reads_and_writes_the_same_bytes() {
    for case in catalog::all() {
        let versions = compared_versions(&case);
        let outcome = runner(32).run(&decisions(), |decisions| {
            for &version in &versions {
                let choices = &mut Choices::new(&decisions);
                let bytes = Bytes::from(random::message(&case.schema, version, choices));
                let theirs = (case.peer_round_trip)(bytes.clone(), version);
                prop_assert_eq!(theirs, Ok(bytes), "v{}", version);
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}

#[test]
fn a_message_cut_short_or_spoiled_is_an_error_or_a_message_but_never_a_panic() {
    let strategy = (decisions(), any::<prop::sample::Index>(), any::<u8>());
    for case in catalog::all() {
        let outcome = runner(32).run(&strategy, |(decisions, place, byte)| {
            for version in case.versions() {
                let choices = &mut Choices::new(&decisions);
                let mut bytes = random::message(&case.schema, version, choices);
                if bytes.is_empty() {
                    continue;
                }
                let place = place.index(bytes.len());
                let cut = Bytes::from(bytes[..place].to_vec());
                prop_assert!((case.decode)(cut, version).is_err(), "v{}", version);
                bytes[place] = byte;
                // What can be read can be written; that it is equal is checked inside.
                if let Ok(0) = (case.decode)(Bytes::from(bytes.clone()), version) {
                    let back = (case.round_trip)(Bytes::from(bytes), version);
                    prop_assert!(back.is_ok(), "v{}: {:?}", version, back);
                }
            }
            Ok(())
        });
        outcome.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
    }
}
