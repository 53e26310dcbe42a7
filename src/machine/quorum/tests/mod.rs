//! The proof: simulated clusters under faults, an exhaustive search of small ones, and planted mistakes
//! that one or the other must find.
//!
//! `OTTLA_QUORUM_SEED=7 cargo test --lib quorum::tests::simulation::replayed -- --ignored --nocapture` replays a
//! run and prints it; `OTTLA_QUORUM_RUNS=2000 cargo test --lib quorum::tests::simulation::many -- --ignored --nocapture`
//! does many runs on fresh seeds; `cargo test --release --lib quorum::tests::search -- --ignored` searches and walks further.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "test code"
)]

mod checks;
mod disk;
mod effects;
mod logs;
mod mutations;
mod scenarios;
mod search;
mod simulation;
mod states;
mod world;
