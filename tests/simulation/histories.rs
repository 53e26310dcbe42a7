//! What the checker finds in histories, and what a file of one must be.

use crate::history::checker::check;
use crate::history::{Event, History, Origin};

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

// Transactions: values of `orders-0` and `orders-1`, made of those of `in-0`, under one producer.

const OTHER: &str = "orders-1";
const INPUT: &str = "in-0";

fn begin(transaction: &str) -> Event {
    Event::Begin { process: "producer".into(), transaction: transaction.into() }
}

fn write(transaction: &str, partition: &str, value: &str) -> Event {
    Event::Write {
        process: "producer".into(),
        transaction: transaction.into(),
        partition: partition.into(),
        value: value.into(),
        of: None,
    }
}

/// A write of what was made from a record of the input.
fn made(transaction: &str, value: &str, offset: i64) -> Event {
    let origin = Origin { partition: INPUT.into(), offset };
    match write(transaction, PARTITION, value) {
        Event::Write { process, transaction, partition, value, .. } => {
            Event::Write { process, transaction, partition, value, of: Some(origin) }
        }
        other => other,
    }
}

fn wrote(transaction: &str, partition: &str, value: &str, offset: i64) -> Event {
    Event::Wrote {
        process: "producer".into(),
        transaction: transaction.into(),
        partition: partition.into(),
        value: value.into(),
        offset,
    }
}

fn offsets(transaction: &str, offset: i64) -> Event {
    let (group, partition) = (GROUP.into(), INPUT.into());
    let (process, transaction) = ("member".into(), transaction.into());
    Event::Offsets { process, transaction, group, partition, offset }
}

fn end(transaction: &str, commits: bool) -> Event {
    Event::End { transaction: transaction.into(), commits }
}

fn decided(transaction: &str, committed: bool) -> Event {
    Event::Decided { transaction: transaction.into(), committed }
}

fn stable(epoch: i32, offset: i64) -> Event {
    Event::Stable { partition: PARTITION.into(), epoch, offset }
}

/// A poll of the reader of what is committed.
fn sees(partition: &str, offset: i64, value: &str) -> Event {
    let (process, partition, value) = ("committed".into(), partition.into(), value.into());
    Event::Poll { process, partition, offset, value }
}

/// That reader has read everything.
fn sees_no_more(partition: &str) -> Event {
    Event::Drained { process: "committed".into(), partition: partition.into() }
}

/// The names of what is found in a history of transactions.
fn names_of(events: impl IntoIterator<Item = Event>) -> Vec<String> {
    let readers = ["committed", "member"].map(str::to_owned);
    let readers = readers.map(|process| Event::ReadsCommitted { process });
    let events = readers.into_iter().chain(events).collect();
    let name = |anomaly| format!("{anomaly:?}").split(' ').next().unwrap().to_owned();
    check(&History { events }).into_iter().map(name).collect()
}

/// A transaction with a value in each of two partitions, both acknowledged, at offsets 0.
fn transaction(name: &str) -> impl Iterator<Item = Event> {
    let (first, second) = (format!("{name}.a"), format!("{name}.b"));
    let written = [write(name, PARTITION, &first), write(name, OTHER, &second)];
    let told = [wrote(name, PARTITION, &first, 0), wrote(name, OTHER, &second, 0)];
    std::iter::once(begin(name)).chain(written).chain(told)
}

#[test]
fn transactions_that_are_whole_are_in_order() {
    let whole = || [sees(PARTITION, 0, "t.a"), sees(OTHER, 0, "t.b")].into_iter();
    let drained = || [sees_no_more(PARTITION), sees_no_more(OTHER)].into_iter();
    let committed = [end("t", true), decided("t", true)];
    let none: [&str; 0] = [];
    assert_eq!(names_of(transaction("t").chain(committed).chain(whole()).chain(drained())), none);
    // A reader of everything sees it before, and also when it is aborted.
    let early = [poll(0, "t.a"), stable(0, 0), end("t", false), decided("t", false), stable(0, 2)];
    assert_eq!(names_of(transaction("t").chain(early).chain(drained())), none);
    // Nobody was told: it is all there, or nothing of it is.
    let asked = || transaction("t").chain([end("t", true)]);
    assert_eq!(names_of(asked().chain(whole()).chain(drained())), none);
    assert_eq!(names_of(asked().chain(drained())), none);
    assert_eq!(names_of(transaction("t").chain(drained())), none);
}

#[test]
fn every_anomaly_of_transactions_is_found() {
    let t = || transaction("t");
    let sees_a = || [sees(PARTITION, 0, "t.a")].into_iter();
    let drained = || [sees_no_more(PARTITION), sees_no_more(OTHER)].into_iter();
    let committed = || [end("t", true), decided("t", true)].into_iter();
    let aborted = || [end("t", false), decided("t", false)].into_iter();
    assert_eq!(names_of(t().chain(aborted()).chain(sees_a())), ["AbortedRead"]);
    assert_eq!(names_of(t().chain(sees_a())), ["AbortedRead"]);
    // A commit that was refused.
    let refused = [end("t", true), decided("t", false)];
    assert_eq!(names_of(t().chain(refused).chain(sees_a())), ["AbortedRead"]);
    let whole = sees_a().chain([sees(OTHER, 0, "t.b")]);
    assert_eq!(names_of(t().chain(sees_a()).chain(committed())), ["EarlyRead"]);
    let torn = sees_a().chain(drained());
    assert_eq!(names_of(t().chain([end("t", true)]).chain(torn.clone())), ["Torn"]);
    assert_eq!(names_of(t().chain(committed()).chain(torn)), ["Unseen", "Torn"]);
    assert_eq!(names_of(t().chain(committed()).chain(drained())), ["Unseen", "Unseen"]);
    // What others read behind it shows that it is gone, before anything is drained.
    let more = [send("z"), acknowledged("z", 5), sees(PARTITION, 5, "z")];
    assert_eq!(names_of(t().chain(committed()).chain(more)), ["LostWrite"]);
    let before = [begin("u"), write("u", PARTITION, "u.a"), end("u", true)];
    let seen = whole.chain([sees(PARTITION, 3, "u.a")]);
    assert_eq!(names_of(t().chain(committed()).chain(before).chain(seen)), [""; 0]);
    let reversed = [poll(7, "t.c"), end("t", true), sees(PARTITION, 7, "t.c")];
    let out_of_order = [begin("t"), write("t", PARTITION, "t.c"), write("t", PARTITION, "t.d")];
    let out_of_order = out_of_order.into_iter().chain([poll(6, "t.d")]).chain(reversed);
    assert!(names_of(out_of_order).contains(&"NonmonotonicWrite".to_owned()));
}

#[test]
fn a_last_stable_offset_that_goes_back_or_too_far_is_found() {
    let t = || transaction("t");
    let committed = || [end("t", true), decided("t", true)].into_iter();
    let asked = |stable: Event| t().chain([stable]).chain(committed());
    assert_eq!(names_of(asked(stable(0, 0))), [""; 0]);
    assert_eq!(names_of(asked(stable(0, 1))), ["StablePassesOpen"]);
    assert_eq!(names_of(t().chain([end("t", true), stable(0, 1)])), [""; 0]);
    assert_eq!(names_of([stable(1, 5), stable(1, 4)]), ["StableWentBack"]);
    assert_eq!(names_of([stable(1, 5), stable(2, 4)]), ["StableWentBack"]);
    assert_eq!(names_of([stable(2, 5), stable(1, 6)]), ["StableWentBack"]);
    assert_eq!(names_of([stable(2, 5), stable(1, 4), stable(2, 5), stable(2, 9)]), [""; 0]);
}

#[test]
fn what_is_made_twice_or_not_at_all_is_found() {
    let input = |offset, value: &str| {
        let (process, partition) = ("source".to_owned(), INPUT.to_owned());
        let (again, value) = ((process.clone(), partition.clone()), value.to_owned());
        [
            Event::Send { process, partition, value: value.clone() },
            Event::Acknowledged { process: again.0, partition: again.1, value, offset },
        ]
    };
    let assigned = |offset| Event::Assigned {
        process: "member".into(),
        group: GROUP.into(),
        partition: INPUT.into(),
        offset,
    };
    let given = |offset, value: &str| {
        let (process, partition, value) = ("member".into(), INPUT.into(), value.into());
        Event::Poll { process, partition, offset, value }
    };
    let begin_reading = || {
        let given = [assigned(0), given(0, "a"), given(1, "b")];
        input(0, "a").into_iter().chain(input(1, "b")).chain(given)
    };
    let copies = |name: &str, values: &[(&str, i64)], until: i64, commits: bool| {
        let writes = values.iter().map(|(value, of)| made(name, value, *of));
        let ends = [offsets(name, until), end(name, commits), decided(name, commits)];
        std::iter::once(begin(name)).chain(writes).chain(ends).collect::<Vec<_>>()
    };
    let settled = || {
        let (group, partition) = (GROUP.to_owned(), INPUT.to_owned());
        [sees_no_more(PARTITION), Event::Settled { group, partition }].into_iter()
    };
    let both = copies("t", &[("t.a", 0), ("t.b", 1)], 2, true);
    let out = || [sees(PARTITION, 0, "t.a"), sees(PARTITION, 1, "t.b")].into_iter();
    let all = begin_reading().chain(both.clone()).chain(out()).chain(settled());
    assert_eq!(names_of(all), [""; 0]);
    // What was aborted is made once more.
    let first = copies("s", &[("s.a", 0)], 1, false);
    let all = begin_reading().chain(first).chain(both.clone()).chain(out()).chain(settled());
    assert_eq!(names_of(all), [""; 0]);

    let once_more = copies("u", &[("u.b", 1)], 2, true).into_iter();
    let once_more = once_more.chain([sees(PARTITION, 2, "u.b")]);
    let all = begin_reading().chain(both.clone()).chain(out()).chain(once_more);
    assert_eq!(names_of(all), ["MadeTwice"]);
    let one = copies("t", &[("t.a", 0)], 2, true).into_iter();
    let one = one.chain([sees(PARTITION, 0, "t.a")]);
    assert_eq!(names_of(begin_reading().chain(one).chain(settled())), ["NotMade"]);
    // The offsets of an aborted transaction, and those that were committed and are gone.
    let aborted = copies("t", &[("t.a", 0)], 1, false).into_iter().chain([assigned(1)]);
    assert_eq!(names_of(begin_reading().chain(aborted)), ["BeganTooFar"]);
    let back = both.into_iter().chain([assigned(0)]);
    assert_eq!(names_of(begin_reading().chain(back)), ["OffsetsWentBack"]);
}

#[test]
fn a_file_of_a_history_is_read_as_it_was_written() {
    let transactions = transaction("t").chain([made("t", "m", 3), offsets("t", 4), stable(2, 9)]);
    let ends = [end("t", true), decided("t", true)];
    let reader = Event::ReadsCommitted { process: "committed".into() };
    let all = transactions.chain(ends).chain([reader]);
    let all = all.chain([assigned("m", 0), drained(), settled(), refused("b"), revoked("m")]);
    let all = history(all);
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
