//! Somebody who moves leaders about: the order of the replicas is changed, and the preferred leader elected.

use std::time::Duration;

use ottla::env::sim::SimRandom;
use ottla::protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use ottla::protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use tokio_util::sync::CancellationToken;

use crate::broker::clients::Peer;
use crate::broker::frames::Wire;

/// The topic of offsets.
pub(crate) const OFFSETS: &str = "__consumer_offsets";
const REPLICAS: usize = 3;
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// What a preferred leader is elected with.
const PREFERRED: i8 = 0;

/// Moves leaders, and with five nodes replicas, of these topics with so many partitions, until all is well.
pub(crate) async fn play(
    peer: Peer,
    nodes: usize,
    topics: Vec<(&'static str, i32)>,
    all_well: CancellationToken,
) {
    while !all_well.is_cancelled() {
        peer.rest(6000).await;
        let (topic, partitions) = topics[peer.random.below(topics.len() as u64) as usize];
        let partition = peer.random.below(partitions as u64) as i32;
        let replicas = some_nodes(&peer.random, nodes);
        let servers = &peer.plan.servers;
        let server = &servers[peer.random.below(servers.len() as u64) as usize];
        let Some(mut wire) = Wire::connect(&peer.own_env(), server).await else { continue };
        let reassigning = wire.call(0, reassign(topic, partition, replicas));
        // Whether it is done or not, the cluster must bear it. After no answer, the next one would be taken for it.
        let Ok(Some(_)) = tokio::time::timeout(ANSWER_MAX, reassigning).await else { continue };
        peer.rest(1000).await;
        drop(tokio::time::timeout(ANSWER_MAX, wire.call(2, elect(topic, partition))).await);
    }
}

fn some_nodes(random: &SimRandom, nodes: usize) -> Vec<i32> {
    let mut left: Vec<i32> = (1..=nodes as i32).collect();
    (0..REPLICAS).map(|_| left.remove(random.below(left.len() as u64) as usize)).collect()
}

fn reassign(topic: &str, index: i32, replicas: Vec<i32>) -> AlterPartitionReassignmentsRequest {
    let partition = ReassignablePartition { partition_index: index, replicas: Some(replicas) };
    let topic = ReassignableTopic { name: topic.into(), partitions: vec![partition] };
    let topics = vec![topic];
    AlterPartitionReassignmentsRequest {
        timeout_ms: 1000,
        topics,
        ..AlterPartitionReassignmentsRequest::default()
    }
}

fn elect(topic: &str, index: i32) -> ElectLeadersRequest {
    let partitions = TopicPartitions { topic: topic.into(), partitions: vec![index] };
    ElectLeadersRequest {
        election_type: PREFERRED,
        topic_partitions: Some(vec![partitions]),
        timeout_ms: 1000,
    }
}
