//! What the checker finds in histories, and what a file of one must be.

use crate::history::checker::check;
use crate::history::{Event, History};

const PARTITION: &str = "orders-0";
const GROUP: &str = "readers";

/// Two sends, a poll of the first, and what comes behind them.
fn history(more: impl IntoIterator<Item = Event>) -> History {
    let mut events = [send("a"), send("b")].to_vec();
    events.extend([acknowledged("a", 0), acknowledged("b", 1)]);
    events.push(poll(0, "a"));
    events.extend(more);
    History { events }
}

fn send(value: &str) -> Event {
    Event::Send { process: "producer".into(), partition: PARTITION.into(), value: value.into() }
}

fn acknowledged(value: &str, offset: i64) -> Event {
    let (process, partition) = ("producer".into(), PARTITION.into());
    Event::Acknowledged { process, partition, value: value.into(), offset }
}

fn refused(value: &str) -> Event {
    Event::Refused { process: "producer".into(), partition: PARTITION.into(), value: value.into() }
}

fn poll(offset: i64, value: &str) -> Event {
    poll_by("consumer", offset, value)
}

fn poll_by(process: &str, offset: i64, value: &str) -> Event {
    let (process, partition) = (process.into(), PARTITION.into());
    Event::Poll { process, partition, offset, value: value.into() }
}

fn drained() -> Event {
    Event::Drained { process: "consumer".into(), partition: PARTITION.into() }
}

fn assigned(process: &str, offset: i64) -> Event {
    let (group, partition) = (GROUP.into(), PARTITION.into());
    Event::Assigned { process: process.into(), group, partition, offset }
}

fn revoked(process: &str) -> Event {
    let (group, partition) = (GROUP.into(), PARTITION.into());
    Event::Revoked { process: process.into(), group, partition }
}

/// A commit that was acknowledged.
fn commits(process: &str, offset: i64) -> [Event; 2] {
    let (process, group, partition) = (process.to_owned(), GROUP.to_owned(), PARTITION.to_owned());
    [
        Event::Commit {
            process: process.clone(),
            group: group.clone(),
            partition: partition.clone(),
            offset,
        },
        Event::Committed { process, group, partition, offset },
    ]
}

fn settled() -> Event {
    Event::Settled { group: GROUP.into(), partition: PARTITION.into() }
}

/// The names of what is found.
fn names(more: impl IntoIterator<Item = Event>) -> Vec<String> {
    let found = check(&history(more));
    let name = |anomaly| format!("{anomaly:?}").split(' ').next().unwrap().to_owned();
    found.into_iter().map(name).collect()
}

#[test]
fn a_log_that_was_read_in_order_is_in_order() {
    assert_eq!(names([]), [""; 0]);
    assert_eq!(names([poll(1, "b"), drained()]), [""; 0]);
    // Offsets of control records are nobody's, and what is unknown may be there or not.
    assert_eq!(names([send("c"), poll(1, "b"), poll(5, "c")]), [""; 0]);
    assert_eq!(names([send("c"), send("d"), refused("d")]), [""; 0]);
}

#[test]
fn every_anomaly_of_a_log_is_found() {
    let c = || [send("c"), acknowledged("c", 2)];
    assert_eq!(names(c().into_iter().chain([poll(2, "c")])), ["LostWrite", "PollSkip"]);
    assert_eq!(names([poll(1, "b")].into_iter().chain(c()).chain([drained()])), ["Unseen"]);
    assert_eq!(names([send("d"), poll(1, "d")]), ["InconsistentOffsets", "LostWrite"]);
    assert_eq!(names([poll(1, "b"), poll(2, "b")]), ["Duplicate"]);
    assert_eq!(names([poll(1, "b"), poll(0, "a")]), ["NonmonotonicPoll"]);
    let again = Event::Assign { process: "consumer".into(), partition: PARTITION.into() };
    assert_eq!(names([poll(1, "b"), again, poll(0, "a")]), [""; 0]);
    let back = [send("d"), send("e"), acknowledged("d", 3), acknowledged("e", 2)];
    let read = [poll(1, "b"), poll(2, "e"), poll(3, "d")];
    assert_eq!(names(back.into_iter().chain(read)), ["NonmonotonicSend"]);
    let aborted = [send("f"), poll(1, "b"), poll(2, "f"), refused("f")];
    assert_eq!(names(aborted), ["AbortedRead"]);
    assert_eq!(names([poll(1, "b"), poll(2, "g")]), ["Invented"]);
    assert_eq!(names([acknowledged("g", 2)]), ["Invented"]);
    assert_eq!(names([send("b")]), ["SentTwice"]);
}

#[test]
fn a_group_reads_everything_and_keeps_its_offsets() {
    let begin = [assigned("m", 0), poll_by("m", 0, "a"), poll_by("m", 1, "b")];
    let goes_on = [revoked("m"), assigned("n", 2), settled()];
    let all = begin.iter().cloned().chain(commits("m", 2)).chain(goes_on);
    assert_eq!(names(all), [""; 0]);
    // Read again what was not committed.
    let crash = [Event::Ended { process: "m".into() }, assigned("n", 0), poll_by("n", 0, "a")];
    assert_eq!(names(begin.into_iter().chain(crash).chain([settled()])), [""; 0]);
}

#[test]
fn every_anomaly_of_a_group_is_found() {
    let begin = || [assigned("m", 0), poll_by("m", 0, "a")].into_iter();
    assert_eq!(names(begin().chain(commits("m", 2))), ["CommitSkip"]);
    let back = commits("m", 1).into_iter().chain([revoked("m"), assigned("n", 0)]);
    assert_eq!(names(begin().chain(back)), ["OffsetsWentBack"]);
    assert_eq!(names(begin().chain([settled()])), ["UnseenByGroup"]);
    assert_eq!(names(begin().chain([revoked("m"), poll_by("m", 1, "b")])), ["StrayPoll"]);
    let read = begin().chain([poll_by("m", 1, "b")]);
    assert_eq!(names(read.clone().chain([revoked("m"), settled()])), ["Owners"]);
    assert_eq!(names(read.chain([assigned("n", 0), settled()])), ["Owners"]);
}

#[test]
fn a_file_of_a_history_is_read_as_it_was_written() {
    let all = history([assigned("m", 0), drained(), settled(), refused("b"), revoked("m")]);
    assert_eq!(History::parse(&all.to_text()).unwrap(), all);
    let line = r#"{"op":"poll","process":"c1","partition":"orders-0","offset":12,"value":"p1-7"}"#;
    assert_eq!(History::parse(line).unwrap().to_text(), format!("{line}\n"));
}

#[test]
fn a_line_that_is_no_event_is_refused() {
    let refused = |line: &str| History::parse(&format!("{}{line}\n", history([]).to_text()));
    for line in [
        "",
        r#"{"op":"poll","process":"c1","partition":"orders-0","offset":12}"#,
        r#"{"op":"seek","process":"c1","partition":"orders-0"}"#,
        r#"{"op":"drained","process":"c1","partition":"orders-0","offset":1}"#,
        r#"{"op":"drained","process":"c1","#,
    ] {
        let error = refused(line).unwrap_err().to_string();
        assert!(error.starts_with("line 6: "), "{line}: {error}");
    }
}
