//! DescribeQuorum: v0-v2.
//!
//! Behaviour: leader, epoch, high watermark, voters and observers of the metadata log (KIP-595, KIP-853), which is named
//! `__cluster_metadata-0` as in Apache Kafka. Only the leader knows how far the others are, so the other nodes ask it. A node listens for clients
//! where it listens for the quorum; one that no broker of this id is registered for is listed as the voters describe it.
//! Versions: v1 times of the last fetch; v2 directory ids, endpoints of the voters, messages.
//! Errors: UNKNOWN_TOPIC_OR_PARTITION for any other partition; NOT_LEADER_OR_FOLLOWER
//! when nobody is known to lead.

use std::time::Duration;

use super::common;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::link::Link;
use crate::broker::metadata_log::{QuorumStatus, ReplicaStatus};
use crate::error::ErrorCode;
use crate::machine::controller::METADATA_TOPIC;
use crate::machine::metadata::Endpoint;
use crate::protocol::Str;
use crate::protocol::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionQuorum, ReplicaState,
    TopicData, TopicQuorum,
};
use crate::types::{NodeId, PartitionIndex, Uuid};

/// How long the leader may take.
const LEADER_MAX: Duration = Duration::from_secs(5);
/// How this node names itself to the leader. Who is asked under this name asks nobody else.
const FORWARDED_BY: &str = "ottla-node-describing-";

pub(in crate::broker) fn handle(call: &Call<'_>, request: &DescribeQuorumRequest) -> Answer {
    let status = call.state.quorum();
    let Some(address) = leader_elsewhere(call, &status) else {
        return describe(call, request, &status).into();
    };
    let (net, request) = (call.state.env().net.clone(), request.clone());
    let name = format!("{FORWARDED_BY}{}", call.state.node_id());
    let version = call.context.api_version;
    Answer::Later(Box::pin(async move {
        let link = Link::open(&net, &address, &name).await?;
        let mut told = link.call(request, LEADER_MAX).await?;
        if version < 2 {
            told.nodes.clear();
            for partition in told.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                let voters = partition.current_voters.iter_mut();
                for replica in voters.chain(&mut partition.observers) {
                    replica.replica_directory_id = Uuid::ZERO;
                }
            }
        }
        Ok(told.into())
    }))
}

/// Where the leader is to be asked, if that is another node.
fn leader_elsewhere(call: &Call<'_>, status: &QuorumStatus) -> Option<String> {
    let is_forwarded =
        call.context.client_id.as_deref().is_some_and(|name| name.starts_with(FORWARDED_BY));
    call.state.address_of(status.leader).filter(|_| !is_forwarded)
}

/// What this node knows.
fn describe(
    call: &Call<'_>,
    request: &DescribeQuorumRequest,
    status: &QuorumStatus,
) -> DescribeQuorumResponse {
    let version = call.context.api_version;
    let replica = |replica: &ReplicaStatus| ReplicaState {
        replica_id: replica.id.0,
        // Version 2 added directory ids and nodes.
        replica_directory_id: if version >= 2 { replica.directory_id } else { Uuid::ZERO },
        log_end_offset: replica.log_end_offset.0,
        last_fetch_timestamp: replica.last_fetch.0,
        last_caught_up_timestamp: replica.last_caught_up.0,
    };
    let refused = |index: PartitionIndex, error: ErrorCode, message: String| PartitionQuorum {
        partition_index: index.0,
        error_code: error.to_i16(),
        error_message: Some(Str::from(message.as_str())),
        ..PartitionQuorum::default()
    };
    let partition = |topic: &str, index: PartitionIndex| {
        if topic != METADATA_TOPIC || index != PartitionIndex(0) {
            let message = "only __cluster_metadata-0 has a quorum".to_owned();
            return refused(index, ErrorCode::UnknownTopicOrPartition, message);
        }
        if status.leader != call.state.node_id() {
            let (me, leader) = (call.state.node_id(), status.leader);
            let message = if leader == NodeId::NONE {
                let voters: Vec<_> = status.voters.iter().map(|one| one.id.to_string()).collect();
                format!(
                    "node {me} knows no leader of the metadata quorum in epoch {}; its voters are {}",
                    status.epoch,
                    voters.join(", ")
                )
            } else {
                format!("node {me} does not lead the metadata quorum, {leader} does")
            };
            return refused(index, ErrorCode::NotLeaderOrFollower, message);
        }
        PartitionQuorum {
            partition_index: index.0,
            leader_id: status.leader.0,
            leader_epoch: status.epoch.0,
            high_watermark: status.high_watermark.0,
            current_voters: status.voters.iter().map(replica).collect(),
            observers: status.observers.iter().map(replica).collect(),
            ..PartitionQuorum::default()
        }
    };
    let topic = |topic: &TopicData| TopicQuorum {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| partition(&topic.topic_name, PartitionIndex(wanted.partition_index)))
            .collect(),
    };
    let nodes = if version >= 2 { nodes(call, status) } else { Vec::new() };
    DescribeQuorumResponse {
        topics: request.topics.iter().map(topic).collect(),
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

/// The registered brokers, and voters that are not among them.
fn nodes(call: &Call<'_>, status: &QuorumStatus) -> Vec<Node> {
    let mut nodes: Vec<Node> = common::all_brokers(call.state, call.context.reached())
        .into_iter()
        .map(|node| Node {
            node_id: node.id.0,
            listeners: vec![Listener {
                name: Str::from_static("PLAINTEXT"),
                host: node.host,
                port: u16::try_from(node.port).unwrap_or(0),
            }],
        })
        .collect();
    for (id, endpoints) in &status.endpoints {
        if !endpoints.is_empty() && nodes.iter().all(|node| node.node_id != id.0) {
            let listener = |endpoint: &Endpoint| Listener {
                name: Str::from(&endpoint.listener),
                host: Str::from(&endpoint.host),
                port: endpoint.port,
            };
            let listeners = endpoints.iter().map(listener).collect();
            nodes.push(Node { node_id: id.0, listeners });
        }
    }
    nodes
}
