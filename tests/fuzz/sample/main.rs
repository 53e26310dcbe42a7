//! A fair sample of fuzzing within the tests: every target on its seeds, on the corpus, and on some
//! thousand mutations of them.
//!
//! The mutations follow from a seed, so that a failure can be reproduced; it names the input and
//! how to run it alone. `OTTLA_FUZZ_SEED` and `OTTLA_FUZZ_ROUNDS` look elsewhere and longer; `make
//! fuzz` lets libFuzzer search by coverage, from the same inputs ([`corpus`]). An input that once failed
//! belongs in `tests/fuzz/corpus/TARGET/`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    clippy::missing_panics_doc,
    reason = "a test may stop at the first surprise, and is read rather than called"
)]

mod corpus;
#[path = "../../wire/random.rs"]
mod message;

#[path = "../targets/batch_decode.rs"]
mod batch_decode;
#[path = "../targets/columnar_decode.rs"]
mod columnar_decode;
#[path = "../targets/decompress.rs"]
mod decompress;
#[path = "../targets/frame.rs"]
mod frame;
#[path = "../targets/group_records.rs"]
mod group_records;
#[path = "../targets/request_decode.rs"]
mod request_decode;
#[path = "../targets/response_decode.rs"]
mod response_decode;

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Inputs are no larger than this: a decoder's mistakes show on small ones.
const INPUT_BYTES_MAX: usize = 4096;
const ROUNDS: u64 = 4000;
const SEED: u64 = 20_261_121;

/// Its name, what it does with an input, and what it begins with.
type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

macro_rules! targets {
    ($($name:ident),* $(,)?) => {
        const TARGETS: &[Target] = &[$((stringify!($name), $name::run, $name::seeds)),*];

        $(#[test]
        fn $name() {
            sample(stringify!($name), $name::run, $name::seeds());
        })*
    };
}

targets!(
    batch_decode,
    columnar_decode,
    decompress,
    frame,
    group_records,
    request_decode,
    response_decode,
);

fn sample(name: &str, run: fn(&[u8]), seeds: Vec<Vec<u8>>) {
    let setting = |name: &str, default| {
        std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
    };
    let (seed, rounds) = (setting("OTTLA_FUZZ_SEED", SEED), setting("OTTLA_FUZZ_ROUNDS", ROUNDS));
    let inputs = corpus::inputs(name, seeds);
    for input in &inputs {
        try_input(name, run, input, "a seed or an input of the corpus");
    }
    let mut random = Random(seed);
    for round in 0..rounds {
        let mut input: Vec<u8> = random.pick(&inputs).clone();
        for _ in 0..=random.below(4) {
            mutate(&mut input, random.pick::<Vec<u8>>(&inputs), &mut random);
        }
        input.truncate(INPUT_BYTES_MAX);
        try_input(name, run, &input, &format!("OTTLA_FUZZ_SEED={seed}, round {round}"));
    }
}

fn try_input(name: &str, run: fn(&[u8]), input: &[u8], origin: &str) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(input))) {
        let hex = input.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        eprintln!(
            "{name} fails on {origin}; put the input into tests/fuzz/corpus/{name}/ with\n\
             echo {hex} | xxd -r -p > tests/fuzz/corpus/{name}/$(date +%s)\n\
             and run: cargo test --test fuzz {name}"
        );
        std::panic::resume_unwind(panic);
    }
}

/// Splitmix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % (end.max(1) as u64)).expect("below a usize")
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers at which lengths and counts go wrong.
const EDGES: &[&[u8]] = &[
    &[0],
    &[1],
    &[0x7f],
    &[0x80],
    &[0xff],
    &[0xff, 0xff],
    &[0x7f, 0xff],
    &[0xff, 0xff, 0xff, 0xff],
    &[0x7f, 0xff, 0xff, 0xff],
    &[0x80, 0, 0, 0],
    &[0xff, 0xff, 0xff, 0xff, 0x0f],
    &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
];

fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let range = |random: &mut Random, length: usize| {
        let start = random.below(length + 1);
        start..start + random.below((length - start).min(64) + 1)
    };
    match random.below(7) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = random.next().to_le_bytes()[0],
        2 => input.truncate(at),
        3 => {
            let gone = range(random, input.len());
            input.drain(gone);
        }
        4 => {
            let piece = other[range(random, other.len())].to_vec();
            input.splice(at..at, piece);
        }
        5 => {
            let edge = random.pick(EDGES);
            let end = (at + edge.len()).min(input.len());
            input.splice(at..end, edge.iter().copied());
        }
        _ => input.insert(at, random.next().to_le_bytes()[0]),
    }
}
