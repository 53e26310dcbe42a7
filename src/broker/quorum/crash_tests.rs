//! Power cuts at every point, on a simulated disk.

use super::tests::{content, create, options_on, register, retain};
use super::*;
use crate::env::sim::Simulation;
use crate::machine::metadata::MetadataRecord;

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
