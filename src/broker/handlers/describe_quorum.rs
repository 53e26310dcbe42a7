//! DescribeQuorum: v0-v2.
//!
//! Behaviour: leader, epoch, high watermark and voters of the metadata log (KIP-595), which is named
//! `__cluster_metadata-0` as in Apache Kafka. There are no observers: every broker votes.
//! Versions: v1 times of the last fetch; v2 directory ids, endpoints of the voters, messages.
//! Errors: UNKNOWN_TOPIC_OR_PARTITION for any other partition.

use super::common;
use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::machine::controller::METADATA_TOPIC;
use crate::protocol::Str;
use crate::protocol::messages::describe_quorum::{
    DescribeQuorumRequest, DescribeQuorumResponse, Listener, Node, PartitionQuorum, ReplicaState,
    TopicData, TopicQuorum,
};
use crate::types::Uuid;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeQuorumRequest,
) -> DescribeQuorumResponse {
    let status = call.state.quorum();
    let version = call.context.api_version;
    let now = call.state.env().clock.now();
    let voter = |voter: &crate::broker::metadata_log::VoterStatus| {
        let leads = voter.id == status.leader;
        ReplicaState {
            replica_id: voter.id.0,
            // Version 2 added directory ids and nodes.
            replica_directory_id: if version >= 2 { voter.directory_id } else { Uuid::ZERO },
            log_end_offset: voter.log_end_offset.0,
            last_fetch_timestamp: if leads { now.0 } else { -1 },
            last_caught_up_timestamp: if leads { now.0 } else { voter.last_caught_up.0 },
        }
    };
    let partition = |topic: &str, index: i32| {
        if topic != METADATA_TOPIC || index != 0 {
            return PartitionQuorum {
                partition_index: index,
                error_code: ErrorCode::UnknownTopicOrPartition.to_i16(),
                error_message: Some(Str::from_static("only __cluster_metadata-0 has a quorum")),
                ..PartitionQuorum::default()
            };
        }
        PartitionQuorum {
            partition_index: index,
            leader_id: status.leader.0,
            leader_epoch: status.epoch.0,
            high_watermark: status.high_watermark.0,
            current_voters: status.voters.iter().map(voter).collect(),
            ..PartitionQuorum::default()
        }
    };
    let topic = |topic: &TopicData| TopicQuorum {
        topic_name: topic.topic_name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|wanted| partition(&topic.topic_name, wanted.partition_index))
            .collect(),
    };
    let nodes = common::all_brokers(call.state, call.context.reached())
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
    DescribeQuorumResponse {
        topics: request.topics.iter().map(topic).collect(),
        nodes: if version >= 2 { nodes } else { Vec::new() },
        ..DescribeQuorumResponse::default()
    }
}
