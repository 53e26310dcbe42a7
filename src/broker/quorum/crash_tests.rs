//! Power cuts at every point, on a simulated disk.

use super::entry::Entry;
use super::snapshot::Checkpoint;
use super::store::Job;
use super::tests::{content, create, options_on, register, retain};
use super::*;
use crate::env::sim::Simulation;
use crate::machine::metadata::MetadataRecord;
use crate::machine::quorum::{OffsetAndEpoch, Payload};

/// Opens, changes things, and says what was answered before the machine stopped.
async fn live(simulation: &Simulation, process: u8) -> (bool, Vec<MetadataRecord>) {
    let log_dir = std::path::Path::new("/data");
    let options = options_on(simulation.env(), log_dir);
    let Ok(quorum) = Quorum::open(options).await else { return (false, Vec::new()) };
    let mut answered = content(&quorum);
    let mut whole = register(&quorum, process).await.is_ok();
    for name in ["a", "b"] {
        if whole {
            answered = content(&quorum);
            whole = create(&quorum, &format!("{name}{process}")).await.is_ok()
                && retain(&quorum, &format!("{name}{process}"), 5).await.is_ok();
        }
    }
    if whole {
        answered = content(&quorum);
    }
    // After a crash there is nothing to close.
    drop(quorum.shutdown().await);
    (whole, answered)
}

#[tokio::test]
async fn nothing_that_was_answered_is_lost_by_a_power_cut_at_any_call() {
    let mut call = 0;
    loop {
        let simulation = Simulation::new(call);
        simulation.disk.crash_after(call);
        let (whole, answered) = live(&simulation, 1).await;
        let crashed = simulation.disk.has_crashed();
        assert!(whole || crashed, "call {call}: failed without a crash");
        simulation.disk.power_cut();
        let quorum = Quorum::open(options_on(simulation.env(), std::path::Path::new("/data")))
            .await
            .unwrap_or_else(|error| panic!("seed and call {call}: {}", error.chain()));
        let now = content(&quorum);
        for record in &answered {
            // A partition may have changed since, by a command that was not answered.
            let lasting =
                matches!(record, MetadataRecord::Topic { .. } | MetadataRecord::Cluster { .. });
            assert!(!lasting || now.contains(record), "seed and call {call}: lost {record:?}");
        }
        assert!(!whole || now == answered, "seed and call {call}");
        assert!(register(&quorum, 2).await.is_ok());
        assert!(create(&quorum, "after").await.is_ok());
        quorum.shutdown().await.unwrap();
        if !crashed {
            break;
        }
        call += 1;
    }
    assert!(call > 20, "only {call} calls");
}

#[tokio::test]
async fn a_full_disk_refuses_commands_until_there_is_room() {
    let simulation = Simulation::new(1);
    let quorum =
        Quorum::open(options_on(simulation.env(), std::path::Path::new("/data"))).await.unwrap();
    register(&quorum, 1).await.unwrap();
    simulation.disk.set_capacity(simulation.disk.used_bytes() + 100);
    let error = create(&quorum, "refused").await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::KafkaStorageError, "{error}");
    assert!(quorum.image().topic("refused").is_none());
    simulation.disk.set_capacity(u64::MAX);
    create(&quorum, "accepted").await.unwrap();
    quorum.shutdown().await.unwrap();
}

fn entries(range: std::ops::Range<i64>) -> Vec<Entry> {
    let record = MetadataRecord::Cluster { id: "test-cluster".into() };
    let value = entry::encode_records(NodeId(1), &[record]).unwrap();
    let epoch = LeaderEpoch(1);
    let entry =
        |offset| Entry { offset: Offset(offset), epoch, payload: Payload::Records(value.clone()) };
    range.map(entry).collect()
}

/// A store that has a log of `length` entries of epoch 1, and fetches and installs a snapshot. Whether it was installed.
fn install(options: &QuorumOptions, length: i64, checkpoint: &Checkpoint) -> Result<()> {
    let mut store = Store::open(options)?.store;
    store.run(&mut [Job::Append(entries(0..length))].into(), &mut Vec::new())?;
    let bytes = Bytes::from(checkpoint.encode()?);
    let part = |from: usize, to: usize| Job::WritePart {
        position: from as u64,
        bytes: bytes.slice(from..to),
    };
    let jobs = [part(0, 50), part(50, bytes.len()), Job::Install(checkpoint.id)];
    let mut installed = Vec::new();
    store.run(&mut jobs.into(), &mut installed)?;
    assert_eq!(installed.len(), 1);
    store.run(&mut [Job::Append(entries_after(checkpoint.id))].into(), &mut Vec::new())
}

fn entries_after(id: OffsetAndEpoch) -> Vec<Entry> {
    let payload = Payload::LeaderChange { leader: NodeId(2) };
    vec![Entry { offset: id.offset, epoch: id.epoch, payload }]
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_whole_or_not_at_all() {
    let id = OffsetAndEpoch::new(Offset(10), LeaderEpoch(2));
    let checkpoint = Checkpoint { id, voters: VoterSet::default(), image: MetadataImage::empty() };
    // Beyond the log; and in the middle of one that holds something else there.
    for length in [5, 20] {
        let (mut call, mut replaced, mut kept) = (0, 0, 0);
        loop {
            let simulation = Simulation::new(call);
            simulation.disk.crash_after(call);
            let options = options_on(simulation.env(), std::path::Path::new("/data"));
            let is_whole = install(&options, length, &checkpoint).is_ok();
            let crashed = simulation.disk.has_crashed();
            simulation.disk.power_cut();
            let options = options_on(simulation.env(), std::path::Path::new("/data"));
            let opened = Store::open(&options)
                .unwrap_or_else(|error| panic!("{length}, call {call}: {}", error.chain()));
            let stored = &opened.stored;
            if let Some(snapshot) = &stored.snapshot {
                replaced += 1;
                assert_eq!((snapshot.id, stored.start), (id, id), "{length}, call {call}");
                assert!(stored.end <= Offset(11), "{length}, call {call}");
                let after = [(LeaderEpoch(2), Offset(10))];
                let epochs = if stored.end == Offset(11) { &after[..] } else { &[] };
                assert_eq!(stored.epochs, epochs, "{length}, call {call}");
            } else {
                kept += 1;
                assert_eq!(stored.start, OffsetAndEpoch::default());
                assert!(stored.end <= Offset(length));
            }
            assert!(!is_whole || stored.end == Offset(11), "{length}, call {call}");
            let mut store = opened.store;
            let (end, epoch) = (store.end(), LeaderEpoch(3));
            let payload = Payload::LeaderChange { leader: NodeId(1) };
            let more = vec![Entry { offset: end, epoch, payload }];
            store.run(&mut [Job::Append(more)].into(), &mut Vec::new()).unwrap();
            drop(store);
            let again = Store::open(&options).unwrap();
            assert_eq!(again.stored.end, end.next(), "{length}, call {call}");
            if !crashed {
                break;
            }
            call += 1;
        }
        assert!(replaced > 5 && kept > 5, "{length}: {replaced} replaced, {kept} kept");
    }
}

#[tokio::test]
async fn a_full_disk_that_fills_up_below_the_quorum_is_waited_out() {
    let simulation = Simulation::new(2);
    let options = options_on(simulation.env(), std::path::Path::new("/data"));
    let opened = Store::open(&options).unwrap();
    let mut queue = LogQueue::new(options.env.threads.clone(), opened.store);
    simulation.disk.set_capacity(simulation.disk.used_bytes());
    let ticket = |number| Some(crate::machine::quorum::Ticket(number));
    queue.push(ticket(1), Job::Append(entries(0..3)));
    let waiting = tokio::time::timeout(Duration::from_millis(50), queue.done()).await;
    assert!(waiting.is_err(), "there is no room");
    queue.push(ticket(2), Job::Append(entries(3..5)));
    simulation.disk.set_capacity(u64::MAX);
    let done = queue.done().await.unwrap();
    assert_eq!(done.ticket, ticket(2));
    queue.close().await.unwrap();
    assert_eq!(Store::open(&options).unwrap().stored.end, Offset(5));
}
