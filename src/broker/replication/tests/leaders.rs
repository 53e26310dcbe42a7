//! What a leader makes of the fetches of followers, who are the test.

use std::time::Duration;

use super::rig::{As, Ask, Cluster, LAG, simulate};
use crate::error::ErrorCode;
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData, ReplicaState,
};
use crate::types::BrokerEpoch;

fn code(answer: &PartitionData) -> ErrorCode {
    ErrorCode::from_i16(answer.error_code)
}

fn has_records(answer: &PartitionData) -> bool {
    answer.records.as_ref().is_some_and(|records| !records.is_empty())
}

/// Broker 1, and broker 2 whom the test plays.
async fn alone(configs: &[(&str, &str)]) -> (Cluster, As) {
    let cluster = Cluster::start(1, &[1]).await;
    let epoch = cluster.register(2).await;
    cluster.create(&[1, 2], configs).await;
    (cluster, As { node: 2, epoch, version: 18 })
}

#[test]
pub(super) fn a_follower_reads_what_is_not_committed_and_its_next_fetch_commits_it() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        let produced = cluster.produce(1, -1, "a");
        tokio::pin!(produced);
        let waits = async {
            cluster.until("it is appended", |cluster| cluster.end(1) == 1).await;
            let seen = cluster.fetch(1, None, Ask::at(0)).await;
            assert!(!has_records(&seen), "consumers do not see it");
            let copied = cluster.fetch(1, Some(follower), Ask::at(0)).await;
            assert!(has_records(&copied));
            assert_eq!((code(&copied), copied.high_watermark), (ErrorCode::None, 0));
            assert_eq!(cluster.high_watermark(1), 0);
        };
        tokio::select! {
            biased;
            done = &mut produced => panic!("acknowledged by one copy: {done:?}"),
            () = waits => {}
        }
        let next = cluster.fetch(1, Some(follower), Ask::at(1)).await;
        assert_eq!(next.high_watermark, 1);
        assert_eq!(produced.await, Ok(0));
        assert!(has_records(&cluster.fetch(1, None, Ask::at(0)).await));
    });
}

#[test]
fn a_follower_is_woken_by_records_and_by_a_high_watermark_that_moves_alone() {
    simulate(async {
        let cluster = Cluster::start(2, &[1]).await;
        let [two, three] = [cluster.register(2).await, cluster.register(3).await];
        let [two, three] =
            [(2, two), (3, three)].map(|(node, epoch)| As { node, epoch, version: 18 });
        cluster.create(&[1, 2, 3], &[("min.insync.replicas", "2")]).await;
        let wait = |offset, known| Ask { wait_ms: 60_000, known, ..Ask::at(offset) };
        let before = tokio::time::Instant::now();
        let waiting = cluster.fetch(1, Some(two), wait(0, 0));
        let (copied, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(cluster.produce(1, 1, "a").await, Ok(0));
        });
        assert!(has_records(&copied));
        // 2 has it and waits; 3 brings the high watermark.
        let waiting = cluster.fetch(1, Some(two), wait(1, 0));
        let (told, ()) = tokio::join!(waiting, async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            cluster.fetch(1, Some(three), Ask::at(1)).await;
        });
        assert_eq!((told.high_watermark, has_records(&told)), (1, false));
        assert!(before.elapsed() < Duration::from_secs(1), "{:?}", before.elapsed());
    });
}

#[test]
fn who_is_no_follower_learns_nothing_and_moves_nothing() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        let stranger = cluster.register(3).await;
        cluster.lead(1, &[1, 2]).await;
        assert_eq!(cluster.produce(1, 1, "a").await, Ok(0));
        let epoch = cluster.state().leader_epoch.0;
        let check = async |who: As, leader_epoch: i32, expected: ErrorCode| {
            let ask = Ask { leader_epoch, ..Ask::at(1) };
            let answer = cluster.fetch(1, Some(who), ask).await;
            assert_eq!(code(&answer), expected, "{} v{}", who.node, who.version);
            assert!(!has_records(&answer));
            assert_eq!((cluster.high_watermark(1), cluster.isr()), (0, vec![1, 2]));
        };
        let (unknown, not_leader) = (ErrorCode::UnknownLeaderEpoch, ErrorCode::NotLeaderOrFollower);
        // A client that takes the number of a follower, in versions without a registration, or with another.
        for version in [12, 14] {
            check(As { version, ..follower }, -1, not_leader).await;
            check(As { version, ..follower }, epoch, unknown).await;
        }
        for other in [-1, follower.epoch.0 + 1] {
            check(As { epoch: BrokerEpoch(other), ..follower }, epoch, unknown).await;
        }
        let former = BrokerEpoch(follower.epoch.0 - 1);
        check(As { epoch: former, ..follower }, epoch, not_leader).await;
        // A broker without a replica, and nobody.
        check(As { node: 3, epoch: stranger, version: 18 }, epoch, unknown).await;
        check(As { node: 4, epoch: stranger, version: 18 }, -1, not_leader).await;
        // Itself, in other epochs of the leader.
        check(follower, epoch - 1, ErrorCode::FencedLeaderEpoch).await;
        check(follower, epoch + 1, unknown).await;
        // And beyond the end.
        let answer = cluster.fetch(1, Some(follower), Ask::at(2)).await;
        assert_eq!(code(&answer), ErrorCode::OffsetOutOfRange);
        assert_eq!(cluster.high_watermark(1), 0);
        let right =
            cluster.fetch(1, Some(follower), Ask { leader_epoch: epoch, ..Ask::at(1) }).await;
        assert_eq!((code(&right), right.high_watermark), (ErrorCode::None, 1));
    });
}

#[test]
pub(super) fn a_follower_whose_log_diverges_is_told_where_and_moves_nothing() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        let first = cluster.state().leader_epoch.0;
        assert_eq!(cluster.produce(1, 1, "a").await, Ok(0));
        cluster.lead(1, &[1, 2]).await;
        cluster.lead(1, &[1, 2]).await;
        assert_eq!(cluster.produce(1, 1, "b").await, Ok(1));
        // It led in between, and wrote what this log has not.
        let ask = Ask { last_epoch: first + 1, leader_epoch: first + 2, ..Ask::at(2) };
        let answer = cluster.fetch(1, Some(follower), ask).await;
        let end = (answer.diverging_epoch.epoch, answer.diverging_epoch.end_offset);
        assert_eq!((code(&answer), end), (ErrorCode::None, (first, 1)));
        assert!(!has_records(&answer));
        assert_eq!(cluster.high_watermark(1), 0);
        let ask = Ask { last_epoch: first, leader_epoch: first + 2, ..Ask::at(1) };
        let answer = cluster.fetch(1, Some(follower), ask).await;
        assert_eq!(answer.diverging_epoch.epoch, -1);
        assert!(has_records(&answer));
        assert_eq!(cluster.high_watermark(1), 1);
    });
}

#[test]
fn who_lags_leaves_the_isr_and_who_has_caught_up_joins_it() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        let began = tokio::time::Instant::now();
        assert_eq!(cluster.produce(1, -1, "a").await, Ok(0), "once it is alone");
        let took = began.elapsed();
        assert!(took > LAG / 2 && took < LAG * 2, "{took:?}");
        assert_eq!(cluster.isr(), [1]);
        cluster.fetch(1, Some(follower), Ask::at(0)).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(cluster.isr(), [1], "it has not come to the high watermark");
        cluster.fetch(1, Some(follower), Ask::at(1)).await;
        cluster.until("it joins", |cluster| cluster.isr() == [1, 2]).await;
    });
}

#[test]
pub(super) fn acks_all_is_refused_as_long_as_too_few_are_in_sync() {
    simulate(async {
        let (cluster, follower) = alone(&[("min.insync.replicas", "2")]).await;
        let answer = cluster.produce_within(1, -1, "a", 500).await;
        assert_eq!(ErrorCode::from_i16(answer.error_code), ErrorCode::RequestTimedOut);
        cluster.until("2 lags", |cluster| cluster.isr() == [1]).await;
        assert_eq!(cluster.produce(1, -1, "b").await, Err(ErrorCode::NotEnoughReplicas));
        assert_eq!(cluster.end(1), 1);
        assert_eq!(cluster.produce(1, 1, "c").await, Ok(1));
        assert_eq!(cluster.high_watermark(1), 0, "frozen");
        cluster.fetch(1, Some(follower), Ask::at(2)).await;
        cluster.until("2 is back", |cluster| cluster.high_watermark(1) == 2).await;
        // As soon as the controller has said so, whether the metadata has arrived here or not.
        let (done, _) = tokio::join!(cluster.produce(1, -1, "d"), async {
            cluster.until("d is there", |cluster| cluster.end(1) == 3).await;
            cluster.fetch(1, Some(follower), Ask::at(3)).await
        });
        assert_eq!(done, Ok(2));
    });
}

#[test]
fn a_new_leader_tells_no_end_before_it_knows_how_far_its_followers_are() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        assert_eq!(cluster.produce(1, 1, "a").await, Ok(0));
        assert_eq!(cluster.latest(1, 11).await, (ErrorCode::None, 0));
        cluster.lead(1, &[1, 2]).await;
        assert_eq!(cluster.latest(1, 11).await.0, ErrorCode::OffsetNotAvailable);
        assert_eq!(cluster.latest(1, 4).await.0, ErrorCode::LeaderNotAvailable);
        cluster.fetch(1, Some(follower), Ask::at(1)).await;
        assert_eq!(cluster.latest(1, 11).await, (ErrorCode::None, 1));
    });
}

/// The fetch of a follower in its session, which waits for at most so long.
fn in_session(
    cluster: &Cluster,
    who: As,
    (session_id, session_epoch): (i32, i32),
    wanted: &[(&str, i64)],
    wait_ms: i32,
) -> FetchRequest {
    let topic = |(name, offset): &(&str, i64)| FetchTopic {
        topic_id: cluster.id_of(name),
        partitions: vec![FetchPartition {
            fetch_offset: *offset,
            partition_max_bytes: 1,
            high_watermark: i64::MAX,
            ..FetchPartition::default()
        }],
        ..FetchTopic::default()
    };
    let (replica_id, replica_epoch) = (who.node, who.epoch.0);
    FetchRequest {
        replica_state: ReplicaState { replica_id, replica_epoch },
        max_wait_ms: wait_ms,
        min_bytes: 1,
        max_bytes: 1,
        session_id,
        session_epoch,
        topics: wanted.iter().map(topic).collect(),
        ..FetchRequest::default()
    }
}

#[test]
fn in_its_session_a_follower_is_told_of_what_has_moved_and_of_nothing_twice() {
    simulate(async {
        let (cluster, follower) = alone(&[]).await;
        cluster.create_named("other", &[1, 2], &[]).await;
        cluster.create_named("idle", &[1, 2], &[]).await;
        let ask = async |session, wanted: &[(&str, i64)], wait_ms| {
            let request = in_session(&cluster, follower, session, wanted, wait_ms);
            cluster.call(1, 18, request).await
        };
        let told = |response: &FetchResponse| {
            assert_eq!(response.error_code, 0);
            let names = ["orders", "other", "idle"];
            let is_told = |name: &&str| {
                let mut topics = response.responses.iter();
                topics.any(|topic| topic.topic_id == cluster.id_of(name))
            };
            names.into_iter().filter(is_told).collect::<Vec<_>>()
        };
        let began = tokio::time::Instant::now();
        let all = [("orders", 0), ("other", 0), ("idle", 0)];
        let first = ask((0, 0), &all, 60_000).await;
        assert_eq!(told(&first), ["orders", "other", "idle"]);
        assert!(began.elapsed() < Duration::from_secs(1), "a first fetch does not wait");
        let session = first.session_id;
        // It waits, and is told of the one that moves.
        let (moved, produced) = tokio::join!(
            ask((session, 1), &[], 60_000),
            cluster.produce_to("other", 1, 1, "a", 60_000)
        );
        assert_eq!(produced.error_code, 0);
        assert_eq!(told(&moved), ["other"]);
        // Two have something, and there is room for one: the other one has its turn next, although nothing moves.
        cluster.produce_to("idle", 1, 1, "b", 60_000).await;
        cluster.produce_to("orders", 1, 1, "c", 60_000).await;
        let one = told(&ask((session, 2), &[("other", 1)], 60_000).await);
        assert_eq!(one.len(), 1, "{one:?}");
        let two = told(&ask((session, 3), &[(one[0], 1)], 0).await);
        let mut both = [&*one, &*two].concat();
        both.sort_unstable();
        assert_eq!(both, ["idle", "orders"]);
        // It has everything now: nothing moves, nothing is said.
        let quiet = ask((session, 4), &[(two[0], 1)], 200).await;
        assert_eq!(told(&quiet), Vec::<&str>::new());
        assert_eq!(cluster.high_watermark(1), 1, "both have it");
        // Out of turn, or of a session that is none.
        let refused = ask((session, 3), &[], 0).await;
        let code = ErrorCode::from_i16(refused.error_code);
        assert_eq!(code, ErrorCode::InvalidFetchSessionEpoch);
        let refused = ask((session ^ 1, 5), &[], 0).await;
        let code = ErrorCode::from_i16(refused.error_code);
        assert_eq!(code, ErrorCode::FetchSessionIdNotFound);
    });
}

#[test]
fn who_has_everything_stays_in_sync_however_long_nothing_is_appended() {
    simulate(async {
        let cluster = Cluster::start(5, &[1, 2]).await;
        cluster.create(&[1, 2], &[]).await;
        assert_eq!(cluster.produce(1, -1, "a").await, Ok(0));
        tokio::time::sleep(LAG * 20).await;
        assert_eq!(cluster.isr(), [1, 2]);
        cluster.cut(1, 2);
        assert_eq!(cluster.produce(1, 1, "b").await, Ok(1));
        tokio::time::sleep(LAG / 2).await;
        assert_eq!(cluster.isr(), [1, 2], "it has the time of a lag");
        cluster.until("it leaves", |cluster| cluster.isr() == [1]).await;
    });
}
