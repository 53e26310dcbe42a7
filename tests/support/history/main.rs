//! Judges the histories in the files that it is given: prints what must not have happened, and fails if there is
//! anything.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used, reason = "a program for tests")]

#[path = "mod.rs"]
mod history;

use std::process::ExitCode;

use history::{History, checker};

fn main() -> ExitCode {
    let mut judged = 0;
    let mut is_bad = false;
    for file in std::env::args().skip(1) {
        let text = std::fs::read_to_string(&file).unwrap();
        match History::parse(&text) {
            Ok(history) => {
                for anomaly in checker::check(&history) {
                    println!("{file}: {anomaly:?}");
                    is_bad = true;
                }
                let (events, acknowledged) = (history.events.len(), history.acknowledged());
                println!("{file}: {events} events, {acknowledged} acknowledged");
            }
            Err(error) => {
                println!("{file}: {error}");
                is_bad = true;
            }
        }
        judged += 1;
    }
    if is_bad || judged == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
