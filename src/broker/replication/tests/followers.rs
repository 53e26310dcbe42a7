//! Whole brokers that copy from each other while they come, go and lead.

use std::time::Duration;

use super::rig::{Cluster, LAG, simulate};
use crate::error::ErrorCode;

#[test]
fn replicas_are_alike_byte_for_byte() {
    simulate(async {
        for seed in 0..3 {
            let cluster = Cluster::start(seed, &[1, 2, 3]).await;
            cluster.create(&[1, 2, 3], &[("min.insync.replicas", "2")]).await;
            for index in 0..20 {
                let acks = if index % 3 == 0 { 1 } else { -1 };
                assert_eq!(cluster.produce(1, acks, &format!("value {index}")).await, Ok(index));
            }
            cluster.settled(&[1, 2, 3]).await;
            assert_eq!(cluster.isr(), [1, 2, 3]);
            // A follower takes no records of clients.
            assert_eq!(cluster.produce(2, -1, "x").await, Err(ErrorCode::NotLeaderOrFollower));
        }
    });
}

#[test]
fn who_is_gone_leaves_the_isr_and_who_comes_back_joins_it() {
    simulate(async {
        let mut cluster = Cluster::start(1, &[1, 2]).await;
        cluster.create(&[1, 2], &[]).await;
        assert_eq!(cluster.produce(1, -1, "a").await, Ok(0));
        cluster.kill(2);
        let began = tokio::time::Instant::now();
        assert_eq!(cluster.produce(1, -1, "b").await, Ok(1), "one is enough");
        assert!(began.elapsed() > LAG / 2, "{:?}", began.elapsed());
        assert_eq!(cluster.isr(), [1]);
        let began = tokio::time::Instant::now();
        assert_eq!(cluster.produce(1, -1, "c").await, Ok(2));
        assert!(began.elapsed() < LAG / 2, "{:?}", began.elapsed());
        cluster.boot(2).await;
        cluster.until("it is in sync again", |cluster| cluster.isr() == [1, 2]).await;
        cluster.settled(&[1, 2]).await;
        // From now on it counts.
        cluster.cut(1, 2);
        let waits = cluster.produce_within(1, -1, "d", 200).await;
        assert_eq!(ErrorCode::from_i16(waits.error_code), ErrorCode::RequestTimedOut);
        cluster.heal();
        assert_eq!(cluster.produce(1, -1, "e").await, Ok(4));
        cluster.settled(&[1, 2]).await;
    });
}

#[test]
fn with_two_in_sync_demanded_nothing_is_committed_by_one() {
    simulate(async {
        let mut cluster = Cluster::start(2, &[1, 2]).await;
        cluster.create(&[1, 2], &[("min.insync.replicas", "2")]).await;
        assert_eq!(cluster.produce(1, -1, "a").await, Ok(0));
        cluster.kill(2);
        let waits = cluster.produce_within(1, -1, "b", 500).await;
        assert_eq!(ErrorCode::from_i16(waits.error_code), ErrorCode::RequestTimedOut);
        cluster.until("2 is out", |cluster| cluster.isr() == [1]).await;
        assert_eq!(cluster.produce(1, -1, "c").await, Err(ErrorCode::NotEnoughReplicas));
        assert_eq!((cluster.end(1), cluster.high_watermark(1)), (2, 1));
        cluster.boot(2).await;
        cluster.settled(&[1, 2]).await;
        assert_eq!(cluster.produce(1, -1, "d").await, Ok(2));
    });
}

#[test]
pub(super) fn a_leader_that_was_replaced_cuts_what_it_alone_has() {
    simulate(async {
        for seed in 0..4 {
            let cluster = Cluster::start(seed, &[1, 2]).await;
            cluster.create(&[1, 2], &[]).await;
            assert_eq!(cluster.produce(1, -1, "a").await, Ok(0));
            cluster.cut(1, 2);
            assert_eq!(cluster.produce(1, 1, "lost").await, Ok(1));
            assert_eq!(cluster.produce(1, 1, "lost, too").await, Ok(2));
            cluster.lead(2, &[2]).await;
            assert_eq!(cluster.produce(2, -1, "b").await, Ok(1));
            if seed % 2 == 0 {
                // As long as what it is to cut.
                assert_eq!(cluster.produce(2, -1, "c").await, Ok(2));
                assert_eq!(cluster.produce(2, -1, "d").await, Ok(3));
            }
            cluster.heal();
            cluster.until("1 is in sync", |cluster| cluster.isr() == [1, 2]).await;
            cluster.settled(&[2, 1]).await;
            let text = String::from_utf8_lossy(&cluster.segments(1)).into_owned();
            assert!(text.contains('b') && !text.contains("lost"), "{text}");
            // And back, without a record in between.
            cluster.lead(1, &[1, 2]).await;
            cluster.lead(2, &[1, 2]).await;
            cluster.lead(1, &[1, 2]).await;
            assert_eq!(cluster.produce(1, -1, "e").await, Ok(2 + i64::from(seed % 2 == 0) * 2));
            cluster.settled(&[1, 2]).await;
        }
    });
}

#[test]
pub(super) fn a_leader_that_never_wrote_in_its_epoch_copies_what_was_there_before() {
    simulate(async {
        let cluster = Cluster::start(3, &[1, 2]).await;
        cluster.create(&[1, 2], &[]).await;
        cluster.cut(1, 2);
        // 1 has a record of the first epoch that 2 does not have, and leads again after 2 has led without writing.
        assert_eq!(cluster.produce(1, 1, "a").await, Ok(0));
        cluster.lead(2, &[2, 1]).await;
        cluster.lead(1, &[2, 1]).await;
        cluster.heal();
        assert_eq!(cluster.produce(1, -1, "b").await, Ok(1));
        cluster.settled(&[1, 2]).await;
    });
}

#[test]
fn deleted_records_are_deleted_everywhere() {
    simulate(async {
        let mut cluster = Cluster::start(1, &[1, 2]).await;
        cluster.create(&[1, 2], &[]).await;
        for index in 0..6 {
            assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
        }
        let began = tokio::time::Instant::now();
        assert_eq!(cluster.delete_records(1, 4).await, 0);
        let start = |cluster: &Cluster| cluster.partition(2).reader().log_start_offset().0;
        assert_eq!(start(&cluster), 4, "the answer came after both had deleted them");
        assert!(began.elapsed() < Duration::from_millis(100), "not after the wait of a fetch");
        // Who was away meanwhile, and is behind the start, starts over there.
        cluster.kill(2);
        for index in 6..9 {
            assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
        }
        // It is waited for as long as it counts as alive.
        let timed_out = ErrorCode::RequestTimedOut.to_i16();
        assert_eq!(cluster.delete_records(1, 8).await, timed_out);
        assert_eq!(cluster.partition(1).reader().log_start_offset().0, 8);
        let waits = cluster.delete_records(1, -1);
        let fences = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.fence(2);
        };
        assert_eq!(tokio::join!(waits, fences).0, 0);
        assert_eq!(cluster.produce(1, -1, "after").await, Ok(9));
        cluster.boot(2).await;
        cluster.until("it is in sync again", |cluster| cluster.isr() == [1, 2]).await;
        assert_eq!((start(&cluster), cluster.end(2)), (9, 10));
        assert_eq!(cluster.produce(1, -1, "more").await, Ok(10));
        cluster.lead(2, &[1, 2]).await;
        assert_eq!(cluster.produce(2, -1, "more").await, Ok(11));
    });
}

#[test]
pub(super) fn with_fsync_no_power_cut_takes_what_is_acknowledged() {
    simulate(async {
        for seed in 0..4 {
            let mut cluster = Cluster::start(seed, &[1, 2]).await;
            let configs = [("durability", "fsync"), ("min.insync.replicas", "2")];
            cluster.create(&[1, 2], &configs).await;
            cluster.slow_syncs(2, 300);
            for index in 0..5 {
                assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
            }
            cluster.power_cut(1);
            cluster.power_cut(2);
            cluster.boot(2).await;
            assert_eq!(cluster.end(2), 5, "seed {seed}: the follower had synced them");
            cluster.boot(1).await;
            assert_eq!(cluster.end(1), 5, "seed {seed}");
            let leader = cluster.leader().await;
            cluster.until("both are in sync", |cluster| cluster.isr() == [1, 2]).await;
            assert_eq!(cluster.produce(leader, -1, "value").await, Ok(5));
            cluster.settled(&[1, 2]).await;
        }
    });
}

#[test]
pub(super) fn a_copy_that_lost_its_end_does_not_lead() {
    simulate(async {
        for seed in 0..4 {
            let mut cluster = Cluster::start(seed, &[1, 2]).await;
            let configs = [("durability", "os"), ("min.insync.replicas", "2")];
            cluster.create(&[1, 2], &configs).await;
            for index in 0..5 {
                assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
            }
            // The page cache outlives a process that is killed, and not a machine without power.
            cluster.kill(2);
            cluster.boot(2).await;
            assert_eq!(cluster.end(2), 5);
            cluster.until("2 is in sync", |cluster| cluster.isr() == [1, 2]).await;
            cluster.kill(1);
            cluster.power_cut(2);
            cluster.boot(2).await;
            assert!(cluster.end(2) < 5, "seed {seed}: it was not synced");
            cluster.boot(1).await;
            assert_eq!(cluster.leader().await, 1);
            cluster.until("both are in sync", |cluster| cluster.isr() == [1, 2]).await;
            cluster.settled(&[1, 2]).await;
            assert_eq!(cluster.end(2), 5, "seed {seed}: acknowledged by two, and lost");
        }
    });
}

#[test]
fn the_high_watermark_of_a_follower_outlives_it() {
    simulate(async {
        let mut cluster = Cluster::start(1, &[1, 2]).await;
        cluster.create(&[1, 2], &[]).await;
        for index in 0..5 {
            assert_eq!(cluster.produce(1, -1, "value").await, Ok(index));
        }
        cluster.settled(&[1, 2]).await;
        cluster.stop(2).await;
        cluster.cut(1, 2);
        cluster.boot(2).await;
        assert_eq!(cluster.high_watermark(2), 5);
    });
}

#[test]
pub(super) fn an_answer_of_a_leader_that_was_replaced_meanwhile_is_dropped() {
    simulate(async {
        for seed in 4..8 {
            let cluster = Cluster::start(seed, &[1, 2, 3]).await;
            cluster.create(&[1, 2, 3], &[]).await;
            // So that 2 goes on fetching from 1.
            cluster.create_named("other", &[1, 2], &[]).await;
            cluster.settled(&[1, 2, 3]).await;
            // By now, each follower waits for something to copy.
            tokio::time::sleep(Duration::from_millis(100)).await;
            cluster.cut_one_way(1, 2);
            cluster.cut(1, 3);
            assert_eq!(cluster.produce(1, 1, "lost").await, Ok(0));
            // The answer is on its way.
            tokio::time::sleep(Duration::from_millis(700)).await;
            cluster.lead(3, &[2, 3]).await;
            cluster.heal();
            tokio::time::sleep(Duration::from_millis(700)).await;
            assert_eq!(cluster.produce(3, -1, "kept").await, Ok(0));
            cluster.settled(&[3, 2, 1]).await;
        }
    });
}
