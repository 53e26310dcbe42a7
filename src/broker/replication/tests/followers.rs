//! Whole brokers that copy from each other while they come, go and lead.

use std::time::Duration;

use super::rig::{Ask, Cluster, LAG, simulate};
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
            // A follower serves no client.
            let answer = cluster.fetch(2, None, Ask::at(0)).await;
            assert_eq!(ErrorCode::from_i16(answer.error_code), ErrorCode::NotLeaderOrFollower);
            assert_eq!(cluster.produce(2, -1, "x").await, Err(ErrorCode::NotLeaderOrFollower));
        }
    });
}
