//! Consumers that read from the replica in their rack (KIP-392). Each broker has a rack of its own.

use super::rig::{As, Ask, Cluster, simulate};
use crate::error::ErrorCode;
use crate::protocol::messages::fetch::PartitionData;
use crate::types::BrokerEpoch;

fn seen(answer: &PartitionData) -> (ErrorCode, i32, bool) {
    let has_records = answer.records.as_ref().is_some_and(|records| !records.is_empty());
    (ErrorCode::from_i16(answer.error_code), answer.preferred_read_replica, has_records)
}

async fn with_three_records() -> Cluster {
    let cluster = Cluster::start(1, &[1, 2]).await;
    cluster.create(&[1, 2], &[]).await;
    for index in 0..3 {
        assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
    }
    cluster.settled(&[1, 2]).await;
    // What the follower says of itself is known.
    assert_eq!(cluster.delete_records(1, 1).await, 0);
    cluster
}

#[test]
fn consumers_are_sent_to_their_rack_and_served_there() {
    simulate(async {
        let cluster = with_three_records().await;
        let near = Ask { rack: "r2", ..Ask::at(1) };
        let sent = cluster.fetch(1, None, near).await;
        assert_eq!(seen(&sent), (ErrorCode::None, 2, false));
        let read = cluster.fetch(2, None, near).await;
        assert_eq!(seen(&read), (ErrorCode::None, -1, true));
        assert_eq!((read.high_watermark, read.log_start_offset), (3, 1));
        for rack in ["", "r1", "r9"] {
            let read = cluster.fetch(1, None, Ask { rack, ..near }).await;
            assert_eq!(seen(&read), (ErrorCode::None, -1, true), "{rack}");
        }
        // Nobody is sent where the records are missing: deleted, or not there yet.
        let early = cluster.fetch(1, None, Ask { offset: 0, ..near }).await;
        assert_eq!(seen(&early), (ErrorCode::OffsetOutOfRange, -1, false));
        cluster.cut(1, 2);
        assert_eq!(cluster.produce(1, 1, "not copied").await, Ok(3));
        let late = cluster.fetch(1, None, Ask { offset: 4, ..near }).await;
        assert_eq!(seen(&late), (ErrorCode::None, -1, false));
        // Clients that do not know of it are not served by a follower.
        let old = As { node: -1, epoch: BrokerEpoch::UNKNOWN, version: 10 };
        let refused = cluster.fetch(2, Some(old), near).await;
        assert_eq!(seen(&refused), (ErrorCode::NotLeaderOrFollower, -1, false));
    });
}

#[test]
fn a_follower_shows_what_it_knows_to_be_committed() {
    simulate(async {
        let cluster = with_three_records().await;
        let wait = Ask { wait_ms: 60_000, rack: "r2", ..Ask::at(3) };
        let began = tokio::time::Instant::now();
        let (read, produced) =
            tokio::join!(cluster.fetch(2, None, wait), cluster.produce(1, -1, "new"));
        assert_eq!((seen(&read), produced), ((ErrorCode::None, -1, true), Ok(3)));
        assert!(began.elapsed().as_secs() < 1, "it is woken: {:?}", began.elapsed());
        // It has the next record, and does not know that it is committed, as long as it cannot ask.
        cluster.settled(&[1, 2]).await;
        cluster.cut_one_way(2, 1);
        let copied = cluster.end(2);
        let produced = cluster.produce_within(1, 1, "newer", 100).await;
        assert_eq!(produced.error_code, 0);
        cluster.until("2 has it", |cluster| cluster.end(2) > copied).await;
        let read = cluster.fetch(2, None, Ask { wait_ms: 0, ..wait }).await;
        assert_eq!((read.high_watermark, seen(&read).2), (4, true));
        let read = cluster.fetch(2, None, Ask { offset: 4, wait_ms: 0, ..wait }).await;
        assert_eq!(seen(&read), (ErrorCode::None, -1, false), "it is not committed");
        let beyond = cluster.fetch(2, None, Ask { offset: 9, wait_ms: 0, ..wait }).await;
        assert_eq!(seen(&beyond).0, ErrorCode::OffsetOutOfRange);
    });
}
