//! Replicas that are copied at a limited rate. Each limit is a thousand bytes per second, and a fetch brings one batch.

use std::time::Duration;

use tokio::time::Instant;

use super::rig::{Cluster, simulate};
use crate::machine::metadata::{ConfigResource, MetadataRecord};
use crate::types::{NodeId, PartitionIndex};

/// The value of each record.
const VALUE_BYTES: usize = 1000;
/// How many records a broker is to copy.
const RECORDS: u64 = 20;
/// What nothing takes that is not held back.
const AT_ONCE: Duration = Duration::from_secs(1);

const RATE: &str = "1000";
const NO_RATE: &str = "9223372036854775807";

fn set(cluster: &Cluster, resource: ConfigResource, name: &str, value: &str) {
    let (name, value) = (name.into(), Some(value.into()));
    cluster.controller.commit(&[MetadataRecord::Config { resource, name, value }]);
}

/// Two brokers, the second of which comes back without what was written meanwhile; with these settings of the topic.
async fn behind(configs: &[(&str, &str)]) -> Cluster {
    let settings = [("replica.fetch.max.bytes", "1")];
    let mut cluster = Cluster::start_with(1, &[1, 2], &settings).await;
    cluster.create(&[1, 2], configs).await;
    cluster.create_named("other", &[1, 2], &[]).await;
    assert_eq!(cluster.produce(1, -1, "first").await, Ok(0));
    cluster.kill(2);
    let value = "v".repeat(VALUE_BYTES);
    for index in 1..=RECORDS {
        assert_eq!(cluster.produce(1, -1, &value).await, Ok(index.cast_signed()));
        assert_eq!(cluster.produce_to("other", 1, 1, &value, 1000).await.error_code, 0);
    }
    assert_eq!(cluster.isr(), [1]);
    cluster
}

/// How long it takes until the second broker, which starts now, is in sync; and how long until it has the other topic.
async fn catches_up(cluster: &mut Cluster) -> (Duration, Duration) {
    let began = Instant::now();
    cluster.boot(2).await;
    let other = (cluster.id_of("other"), PartitionIndex(0));
    let has_other = |cluster: &Cluster| {
        let end = |id| cluster.replica(id, &other).reader().log_end_offset();
        end(1) == end(2)
    };
    cluster.until("the other topic is there", has_other).await;
    let beside = began.elapsed();
    cluster.until("it is in sync", |cluster| cluster.isr() == [1, 2]).await;
    let took = began.elapsed();
    cluster.settled(&[1, 2]).await;
    (took, beside)
}

#[test]
fn each_side_keeps_to_its_limit_and_holds_up_nothing_else() {
    simulate(async {
        for (side, broker) in [("leader", 1), ("follower", 2)] {
            let listed = format!("{side}.replication.throttled.replicas");
            let rate = format!("{side}.replication.throttled.rate");
            for (replicas, is_limited) in [("*", true), ("0:1,0:2", true), ("0:9,1:1,1:2", false)] {
                let mut cluster = behind(&[(&listed, replicas)]).await;
                set(&cluster, ConfigResource::Broker(NodeId(broker)), &rate, RATE);
                let (took, beside) = catches_up(&mut cluster).await;
                let what = format!("{side}, {replicas}: {took:?}, {beside:?}");
                // All but what fits into the first window.
                let expected = Duration::from_secs(RECORDS - 2);
                assert_eq!(took > expected, is_limited, "{what}");
                assert!(took < expected * 2, "{what}");
                assert!(beside < AT_ONCE, "{what}");
            }
        }
    });
}

#[test]
fn a_limit_that_is_lifted_counts_no_more() {
    simulate(async {
        for side in ["leader", "follower"] {
            let (listed, rate) = (
                format!("{side}.replication.throttled.replicas"),
                format!("{side}.replication.throttled.rate"),
            );
            for lift_rate in [true, false] {
                let mut cluster = behind(&[(&listed, "*")]).await;
                // Nearly nothing.
                set(&cluster, ConfigResource::ClusterDefault, &rate, "1");
                cluster.boot(2).await;
                tokio::time::sleep(Duration::from_secs(5)).await;
                assert_eq!(cluster.isr(), [1]);
                if lift_rate {
                    set(&cluster, ConfigResource::ClusterDefault, &rate, NO_RATE);
                } else {
                    set(&cluster, ConfigResource::Topic("orders".into()), &listed, "");
                }
                let began = Instant::now();
                cluster.until("it is in sync", |cluster| cluster.isr() == [1, 2]).await;
                assert!(began.elapsed() < AT_ONCE * 2, "{side}: {:?}", began.elapsed());
            }
        }
    });
}

#[test]
fn who_is_in_sync_is_not_held_back() {
    simulate(async {
        let settings = [
            ("leader.replication.throttled.rate", "1"),
            ("follower.replication.throttled.rate", "1"),
        ];
        let cluster = Cluster::start_with(2, &[1, 2], &settings).await;
        let listed = [
            ("leader.replication.throttled.replicas", "*"),
            ("follower.replication.throttled.replicas", "*"),
            ("min.insync.replicas", "2"),
        ];
        cluster.create(&[1, 2], &listed).await;
        let value = "v".repeat(VALUE_BYTES);
        let began = Instant::now();
        for index in 0..20 {
            assert_eq!(cluster.produce(1, -1, &value).await, Ok(index));
        }
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        assert_eq!(cluster.isr(), [1, 2]);
    });
}
