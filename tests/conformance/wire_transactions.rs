//! Transactions at their coordinator, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopicResult,
};
use ottla::protocol::messages::describe_transactions::DescribeTransactionsRequest;
use ottla::protocol::messages::end_txn::EndTxnRequest;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use ottla::protocol::messages::list_transactions::ListTransactionsRequest;

use crate::transactions::{Ids, Producer, init, is_busy, transactional};
use crate::transcript::{Script, until};

against_both!(
    transcript:
    transactional_ids,
    transactions_partitions,
    transactions_groups,
    transactions_end,
    transactions_end_raising,
    describe_transactions,
    list_transactions,
    transaction_coordinator,
);

/// Records what a producer is told, with an id that says which of those of the conversation it is.
fn ask_init(
    talk: &mut Script,
    ids: &mut Ids,
    label: &str,
    version: i16,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let answer = talk.call(version, request.clone());
    let mut shown = answer.clone();
    ids.show(&mut shown.producer_id);
    talk.note(label, version, &shown);
    answer
}

/// Producers get ids and epochs, fence each other, and come back.
fn transactional_ids(talk: &mut Script) {
    for version in 0..=5 {
        let mut ids = Ids::default();
        let ids = &mut ids;
        let name = transactional(talk, &format!("of v{version}"));
        for (label, timeout) in [
            ("a timeout of 0", 0),
            ("a timeout below 0", -1),
            ("a timeout above the largest", 900_001),
        ] {
            let request =
                InitProducerIdRequest { transaction_timeout_ms: timeout, ..init(&name, (-1, -1)) };
            ask_init(talk, ids, label, version, &request);
        }
        let largest =
            InitProducerIdRequest { transaction_timeout_ms: 900_000, ..init(&name, (-1, -1)) };
        let first = ask_init(talk, ids, "the largest timeout", version, &largest);
        let nameless = init(&Str::EMPTY, (-1, -1));
        ask_init(talk, ids, "an empty id", version, &nameless);
        ask_init(talk, ids, "again", version, &init(&name, (-1, -1)));
        if version >= 3 {
            let id = first.producer_id;
            for (label, known) in [
                ("with its epoch", (id, 1)),
                ("with its epoch, once more", (id, 1)),
                ("with an older epoch", (id, 0)),
                ("with a newer epoch", (id, 9)),
                ("with another id", (id + 1_000_000, 2)),
                ("with an id only", (id, -1)),
                ("with an epoch only", (-1, 2)),
                ("with its epoch again", (id, 2)),
            ] {
                ask_init(talk, ids, label, version, &init(&name, known));
            }
            let fresh = transactional(talk, &format!("fresh of v{version}"));
            let foreign = init(&fresh, (id, 1));
            ask_init(talk, ids, "a new id with the producer of another", version, &foreign);
        }
        let topic = talk.topic(&format!("topic{version}"), 1);
        let mut one = Producer::new(talk, &format!("one of v{version}"));
        one.add(talk, &topic, &[0]);
        let mut with_ids = Ids::default();
        with_ids.show(&mut one.id.clone());
        let ids = &mut with_ids;
        let fencing = init(&one.name, (-1, -1));
        ask_init(talk, ids, "while a transaction is open", version, &fencing);
        one.settle(talk);
        let after = ask_init(talk, ids, "after it was aborted", version, &fencing);
        let ended = talk.call(version.min(4), one.ends(true));
        talk.note("the end of the producer that was fenced", version, &ended);
        one.epoch = after.producer_epoch;
        one.add(talk, &topic, &[0]);
        if version >= 3 {
            let itself = init(&one.name, (one.id, one.epoch));
            ask_init(talk, ids, "itself while its transaction is open", version, &itself);
            one.settle(talk);
            ask_init(talk, ids, "itself after that", version, &itself);
        }
    }
}

/// Adds or verifies, and records the codes in a fixed order.
fn ask_partitions(
    talk: &mut Script,
    label: &str,
    version: i16,
    request: AddPartitionsToTxnRequest,
) {
    let sort = |topics: &mut Vec<AddPartitionsToTxnTopicResult>| {
        topics.sort_by(|one, other| one.name.cmp(&other.name));
        for topic in topics {
            topic.results_by_partition.sort_by_key(|partition| partition.partition_index);
        }
    };
    let mut answer = talk.call(version, request);
    sort(&mut answer.results_by_topic_v3_and_below);
    answer.results_by_transaction.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    for transaction in &mut answer.results_by_transaction {
        sort(&mut transaction.topic_results);
    }
    talk.note(label, version, &answer);
}

/// Partitions are added to transactions.
fn transactions_partitions(talk: &mut Script) {
    let topic = talk.topic("topic", 3);
    let other = talk.topic("other", 1);
    let missing = talk.name("missing");
    for version in 0..=5 {
        let nobody = transactional(talk, &format!("nobody{version}"));
        let nobody = Producer { name: nobody, id: 7, epoch: 0 };
        talk.mask(&nobody.name, "nobody");
        let one = Producer::new(talk, &format!("one{version}"));
        talk.mask(&one.name, "one");
        let (name, all): (_, &[i32]) = (&topic.0, &[0, 1]);
        let nameless = Producer { name: Str::EMPTY, ..one.clone() };
        for (label, request) in [
            ("no transactional id", nameless.adds(&[(name, all)], version)),
            ("of nobody", nobody.adds(&[(name, all)], version)),
            ("of another producer", one.off(1_000_000, 0).adds(&[(name, all)], version)),
            ("of an older epoch", one.off(0, -1).adds(&[(name, all)], version)),
            ("of a newer epoch", one.off(0, 1).adds(&[(name, all)], version)),
            ("no topics", one.adds(&[], version)),
            ("no partitions", one.adds(&[(name, &[])], version)),
            ("an unknown topic", one.adds(&[(&missing, &[0])], version)),
            ("an unknown partition among others", one.adds(&[(name, &[0, 9])], version)),
            ("a topic twice", one.adds(&[(name, &[0]), (name, &[1])], version)),
            ("a partition", one.adds(&[(name, &[0])], version)),
            ("it again", one.adds(&[(name, &[0])], version)),
            ("more of them", one.adds(&[(name, &[0, 1, 2]), (&other.0, &[0])], version)),
        ] {
            ask_partitions(talk, label, version, request);
        }
        if version >= 4 {
            let two = Producer::new(talk, &format!("two{version}"));
            talk.mask(&two.name, "two");
            two.add(talk, &topic, &[1]);
            for (label, request) in [
                ("verify: of nobody", nobody.verifies(&[(name, all)], version)),
                ("verify: some that belong", two.verifies(&[(name, all)], version)),
                ("verify: all belong", two.verifies(&[(name, &[1])], version)),
                ("verify: an unknown topic", two.verifies(&[(&missing, &[1])], version)),
                (
                    "verify: another producer",
                    two.off(1_000_000, 0).verifies(&[(name, &[1])], version),
                ),
                ("verify: an older epoch", two.off(0, -1).verifies(&[(name, &[1])], version)),
                ("verify: a newer epoch", two.off(0, 1).verifies(&[(name, &[1])], version)),
            ] {
                ask_partitions(talk, label, version, request);
            }
            let mut both = one.verifies(&[(name, all)], version);
            both.transactions.extend(two.adds(&[(name, all)], version).transactions);
            ask_partitions(talk, "several transactions", version, both);
            two.end(talk, true);
            ask_partitions(
                talk,
                "verify: after the end",
                version,
                two.verifies(&[(name, &[1])], version),
            );
        }
        one.end(talk, true);
        ask_partitions(talk, "the next transaction", version, one.adds(&[(name, &[0])], version));
        one.end(talk, false);
    }
}

/// Groups are added to transactions.
fn transactions_groups(talk: &mut Script) {
    let group = talk.group("group");
    for version in 0..=4 {
        let nobody = transactional(talk, &format!("nobody{version}"));
        let nobody = Producer { name: nobody, id: 7, epoch: 0 };
        let one = Producer::new(talk, &format!("one{version}"));
        let nameless = Producer { name: Str::EMPTY, ..one.clone() };
        for (label, request) in [
            ("no transactional id", nameless.adds_group(&group)),
            ("no group", one.adds_group(&Str::EMPTY)),
            ("of nobody", nobody.adds_group(&group)),
            ("of another producer", one.off(1_000_000, 0).adds_group(&group)),
            ("of an older epoch", one.off(0, -1).adds_group(&group)),
            ("of a newer epoch", one.off(0, 1).adds_group(&group)),
            ("a group", one.adds_group(&group)),
            ("it again", one.adds_group(&group)),
        ] {
            talk.ask(label, version, request);
        }
        one.end(talk, true);
    }
}

fn ask_end(
    talk: &mut Script,
    ids: &mut Ids,
    label: &str,
    version: i16,
    request: EndTxnRequest,
) -> (i16, i64, i16) {
    let answer = talk.call(version, request);
    let mut shown = answer.clone();
    ids.show(&mut shown.producer_id);
    talk.note(label, version, &shown);
    (answer.error_code, answer.producer_id, answer.producer_epoch)
}

/// Transactions end, for clients whose epochs stay.
fn transactions_end(talk: &mut Script) {
    let topic = talk.topic("topic", 2);
    for version in 0..=4 {
        let ids = &mut Ids::default();
        let nobody = transactional(talk, &format!("nobody{version}"));
        let nobody = Producer { name: nobody, id: 7, epoch: 0 };
        let mut one = Producer::new(talk, &format!("one{version}"));
        one.renew(talk);
        let nameless = Producer { name: Str::EMPTY, ..one.clone() };
        for (label, request) in [
            ("no transactional id", nameless.ends(true)),
            ("of nobody", nobody.ends(true)),
            ("commit: empty", one.ends(true)),
            ("abort: empty", one.ends(false)),
        ] {
            ask_end(talk, ids, label, version, request);
        }
        one.add(talk, &topic, &[0]);
        for (label, request) in [
            ("of another producer", one.off(1_000_000, 0).ends(true)),
            ("of an older epoch", one.off(0, -1).ends(true)),
            ("of a newer epoch", one.off(0, 1).ends(true)),
            ("commit", one.ends(true)),
        ] {
            ask_end(talk, ids, label, version, request);
        }
        let state = one.settle(talk);
        talk.note("the state after a commit", version, &state);
        for (label, request) in [
            ("commit: committed", one.ends(true)),
            ("abort: committed", one.ends(false)),
            ("of an older epoch: committed", one.off(0, -1).ends(true)),
            ("of a newer epoch: committed", one.off(0, 1).ends(true)),
        ] {
            ask_end(talk, ids, label, version, request);
        }
        one.add(talk, &topic, &[0, 1]);
        ask_end(talk, ids, "abort", version, one.ends(false));
        let state = one.settle(talk);
        talk.note("the state after an abort", version, &state);
        for (label, request) in
            [("commit: aborted", one.ends(true)), ("abort: aborted", one.ends(false))]
        {
            ask_end(talk, ids, label, version, request);
        }
    }
}

/// Transactions end, for clients whose epoch is raised with each.
fn transactions_end_raising(talk: &mut Script) {
    let version = 5;
    let topic = talk.topic("topic", 2);
    let ids = &mut Ids::default();
    let nobody = transactional(talk, "nobody");
    let nobody = Producer { name: nobody, id: 7, epoch: 0 };
    let mut one = Producer::new(talk, "one");
    one.renew(talk);
    ids.show(&mut one.id.clone());
    let nameless = Producer { name: Str::EMPTY, ..one.clone() };
    for (label, request) in [
        ("no transactional id", nameless.ends(true)),
        ("of nobody", nobody.ends(true)),
        ("commit: empty", one.ends(true)),
        ("of an older epoch: empty", one.off(0, -1).ends(false)),
        ("of a newer epoch: empty", one.off(0, 1).ends(false)),
    ] {
        ask_end(talk, ids, label, version, request);
    }
    let (_, id, epoch) = ask_end(talk, ids, "abort: empty", version, one.ends(false));
    let state = one.settle(talk);
    talk.note("the state after the abort of nothing", version, &state);
    ask_end(talk, ids, "abort: empty, once more", version, one.ends(false));
    (one.id, one.epoch) = (id, epoch);
    one.add(talk, &topic, &[0]);
    for (label, request) in [
        ("of another producer", one.off(1_000_000, 0).ends(true)),
        ("of an older epoch", one.off(0, -1).ends(true)),
        ("of a newer epoch", one.off(0, 1).ends(true)),
    ] {
        ask_end(talk, ids, label, version, request);
    }
    let before = one.clone();
    let (_, id, epoch) = ask_end(talk, ids, "commit", version, one.ends(true));
    (one.id, one.epoch) = (id, epoch);
    let state = one.settle(talk);
    talk.note("the state after a commit", version, &state);
    for (label, request) in [
        ("commit: committed, by who did not hear", before.ends(true)),
        ("abort: committed, by who did not hear", before.ends(false)),
        ("commit: committed", one.ends(true)),
        ("of an older epoch: committed", before.off(0, -1).ends(true)),
        ("of a newer epoch: committed", one.off(0, 1).ends(true)),
    ] {
        ask_end(talk, ids, label, version, request);
    }
    let (_, id, epoch) = ask_end(talk, ids, "abort: committed", version, one.ends(false));
    (one.id, one.epoch) = (id, epoch);
    one.settle(talk);
    one.add(talk, &topic, &[0, 1]);
    let before = one.clone();
    let (_, id, epoch) = ask_end(talk, ids, "abort", version, one.ends(false));
    (one.id, one.epoch) = (id, epoch);
    let state = one.settle(talk);
    talk.note("the state after an abort", version, &state);
    for (label, request) in [
        ("commit: aborted, by who did not hear", before.ends(true)),
        ("abort: aborted, by who did not hear", before.ends(false)),
        ("commit: aborted", one.ends(true)),
        ("abort: aborted", one.ends(false)),
    ] {
        ask_end(talk, ids, label, version, request);
    }
    // A new producer takes over, and the one before is fenced.
    one.settle(talk);
    one.renew(talk);
    one.add(talk, &topic, &[0]);
    let fenced = one.clone();
    one.renew(talk);
    ask_end(talk, ids, "by a producer that was fenced", version, fenced.ends(true));
}

/// Records the states, with times only as whether they are known.
fn ask_describe(talk: &mut Script, ids: &mut Ids, label: &str, names: &[&Str]) {
    let request = DescribeTransactionsRequest {
        transactional_ids: names.iter().map(|&name| name.clone()).collect(),
    };
    let mut answer = talk.call(0, request);
    for state in &mut answer.transaction_states {
        // Where there is no transaction, there is no id, though the answer says 0.
        if state.error_code == 0 {
            ids.show(&mut state.producer_id);
        }
        state.transaction_start_time_ms = state.transaction_start_time_ms.signum();
        state.topics.sort_by(|one, other| one.topic.cmp(&other.topic));
        for topic in &mut state.topics {
            topic.partitions.sort_unstable();
        }
    }
    talk.note(label, 0, &answer);
}

/// Transactions are described.
fn describe_transactions(talk: &mut Script) {
    let topic = talk.topic("topic", 2);
    let other = talk.topic("other", 1);
    let ids = &mut Ids::default();
    let nobody = transactional(talk, "nobody");
    ask_describe(talk, ids, "of nobody", &[&nobody]);
    ask_describe(talk, ids, "no transactional id", &[&Str::EMPTY]);
    ask_describe(talk, ids, "nothing", &[]);
    let one = Producer::new(talk, "one");
    ask_describe(talk, ids, "empty", &[&one.name]);
    one.add(talk, &topic, &[1, 0]);
    one.add(talk, &other, &[0]);
    ask_describe(talk, ids, "open", &[&one.name]);
    let two = Producer::new(talk, "two");
    ask_describe(talk, ids, "several", &[&two.name, &nobody, &one.name, &one.name]);
    one.end(talk, true);
    ask_describe(talk, ids, "committed", &[&one.name]);
    one.add(talk, &topic, &[0]);
    one.end(talk, false);
    ask_describe(talk, ids, "aborted", &[&one.name]);
}

/// Records those of this conversation.
fn ask_list(
    talk: &mut Script,
    ids: &mut Ids,
    (label, version): (&str, i16),
    request: ListTransactionsRequest,
) {
    let own = talk.name("");
    let mut answer = talk.call(version, request);
    answer.transaction_states.retain(|state| state.transactional_id.starts_with(&*own));
    answer.transaction_states.sort_by(|a, b| a.transactional_id.cmp(&b.transactional_id));
    answer.unknown_state_filters.sort();
    for state in &mut answer.transaction_states {
        ids.show(&mut state.producer_id);
    }
    talk.note(label, version, &answer);
}

/// Transactions are listed at every version.
fn list_transactions(talk: &mut Script) {
    let topic = talk.topic("topic", 1);
    let ids = &mut Ids::default();
    let open = Producer::new(talk, "a-open");
    let done = Producer::new(talk, "b-committed");
    let undone = Producer::new(talk, "c-aborted");
    let fresh = Producer::new(talk, "d-empty");
    for one in [&open, &done, &undone, &fresh] {
        ids.show(&mut one.id.clone());
    }
    for one in [&open, &done, &undone] {
        one.add(talk, &topic, &[0]);
    }
    done.end(talk, true);
    undone.end(talk, false);
    let all = ListTransactionsRequest::default;
    let words = |words: &[&str]| words.iter().map(|&word| Str::from(word)).collect::<Vec<_>>();
    for version in 0..=2 {
        for (label, request) in [
            ("all", all()),
            ("open", ListTransactionsRequest { state_filters: words(&["Ongoing"]), ..all() }),
            (
                "two states",
                ListTransactionsRequest {
                    state_filters: words(&["Empty", "CompleteAbort"]),
                    ..all()
                },
            ),
            (
                "a state in small letters",
                ListTransactionsRequest { state_filters: words(&["ongoing"]), ..all() },
            ),
            (
                "an unknown state among others",
                ListTransactionsRequest { state_filters: words(&["Ongoing", "Sleeping"]), ..all() },
            ),
            (
                "unknown states",
                ListTransactionsRequest { state_filters: words(&["Sleeping", ""]), ..all() },
            ),
            (
                "two producers",
                ListTransactionsRequest { producer_id_filters: vec![open.id, fresh.id], ..all() },
            ),
            (
                "a producer in another state",
                ListTransactionsRequest {
                    producer_id_filters: vec![open.id],
                    state_filters: words(&["Empty"]),
                    ..all()
                },
            ),
            (
                "no such producer",
                ListTransactionsRequest { producer_id_filters: vec![-7], ..all() },
            ),
        ] {
            ask_list(talk, ids, (label, version), request);
        }
        if version >= 1 {
            for (label, duration_filter) in
                [("for 0 ms", 0), ("for an hour", 3_600_000), ("for less than 0 ms", -5)]
            {
                let request = ListTransactionsRequest { duration_filter, ..all() };
                ask_list(talk, ids, (label, version), request);
            }
        }
        if version >= 2 {
            for (label, pattern) in [
                ("a pattern", ".*-[ab]-.*"),
                ("a pattern of the beginning", "run.*"),
                ("a part of names", "open"),
                ("an empty pattern", ""),
                ("a pattern that is none", "(["),
            ] {
                let transactional_id_pattern = Some(pattern.into());
                let request = ListTransactionsRequest { transactional_id_pattern, ..all() };
                ask_list(talk, ids, (label, version), request);
            }
        }
    }
    open.end(talk, false);
}

/// Coordinators of transactions are found at every version.
fn transaction_coordinator(talk: &mut Script) {
    let name = transactional(talk, "one");
    for version in 1..=6 {
        let request = |key: &Str| {
            if version < 4 {
                return FindCoordinatorRequest {
                    key: key.clone(),
                    key_type: 1,
                    ..FindCoordinatorRequest::default()
                };
            }
            FindCoordinatorRequest {
                key_type: 1,
                coordinator_keys: vec![key.clone()],
                ..FindCoordinatorRequest::default()
            }
        };
        for (label, key) in [("a transactional id", &name), ("an empty one", &Str::EMPTY)] {
            let busy =
                |answer: &ottla::protocol::messages::find_coordinator::FindCoordinatorResponse| {
                    is_busy(answer.error_code)
                        || answer.coordinators.iter().any(|found| is_busy(found.error_code))
                };
            until(|| !busy(&talk.call(version, request(key))));
            talk.ask(label, version, request(key));
        }
    }
}
