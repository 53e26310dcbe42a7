//! The metadata quorum: describing it, and changing who votes.

use super::types::{QuorumDescription, QuorumReplica, RaftVoterEndpoint};
use super::{Admin, check, millis};
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::Str;
use crate::protocol::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use crate::protocol::messages::describe_quorum::{
    self, DescribeQuorumRequest, PartitionData, ReplicaState, TopicData,
};
use crate::protocol::messages::remove_raft_voter::RemoveRaftVoterRequest;
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

impl Admin {
    /// The metadata quorum: who leads, who votes, who only follows, and how far each of them is.
    ///
    /// # Errors
    ///
    /// `UNSUPPORTED_VERSION` where the cluster has none (Kafka with ZooKeeper).
    pub async fn describe_quorum(&self) -> Result<QuorumDescription> {
        self.cluster
            .retry("describing the quorum", async || {
                let route = self.cluster.any_route().await?;
                let request = DescribeQuorumRequest {
                    topics: vec![TopicData {
                        topic_name: Str::from_static("__cluster_metadata"),
                        partitions: vec![PartitionData { partition_index: 0 }],
                    }],
                };
                let response = route.call(request, self.timeout()).await?;
                check(
                    response.error_code,
                    Some(&response.error_message.unwrap_or_default()),
                    || "the metadata quorum".to_owned(),
                )?;
                let answer = response
                    .topics
                    .into_iter()
                    .flat_map(|topic| topic.partitions)
                    .next()
                    .ok_or_else(|| Error::malformed("response", "it contains no quorum"))?;
                ErrorCode::from_i16(answer.error_code).into_result("the metadata quorum")?;
                let replicas =
                    |states: Vec<ReplicaState>| states.into_iter().map(replica).collect();
                Ok(QuorumDescription {
                    leader: NodeId(answer.leader_id),
                    leader_epoch: LeaderEpoch(answer.leader_epoch),
                    high_watermark: Offset(answer.high_watermark),
                    voters: replicas(answer.current_voters),
                    observers: replicas(answer.observers),
                    endpoints: response.nodes.into_iter().map(endpoints).collect(),
                })
            })
            .await
    }

    /// Makes an observer of the metadata quorum a voter. `endpoints` is where the other voters reach it. Returns when
    /// that is committed.
    ///
    /// # Errors
    ///
    /// `DUPLICATE_VOTER`; `REQUEST_TIMED_OUT` for a node that is not reached, that does not follow closely, or while
    /// another change is under way; `INVALID_REQUEST` without a directory id or an endpoint.
    pub async fn add_raft_voter(
        &self,
        id: NodeId,
        directory_id: Uuid,
        endpoints: &[RaftVoterEndpoint],
    ) -> Result<()> {
        let listener = |endpoint: &RaftVoterEndpoint| Listener {
            name: Str::from(endpoint.listener.as_str()),
            host: Str::from(endpoint.host.as_str()),
            port: endpoint.port,
        };
        let request = AddRaftVoterRequest {
            cluster_id: None,
            timeout_ms: millis(self.timeout()),
            voter_id: id.0,
            voter_directory_id: directory_id,
            listeners: endpoints.iter().map(listener).collect(),
            ack_when_committed: true,
        };
        // Not repeated: a change whose answer was lost may have been made.
        let route = self.cluster.any_route().await?;
        let response = route.call(request, self.timeout()).await?;
        check(response.error_code, response.error_message.as_ref(), || {
            format!("adding node {id} to the voters of the metadata quorum")
        })
    }

    /// Makes a voter of the metadata quorum an observer. Returns when that is committed.
    ///
    /// # Errors
    ///
    /// `VOTER_NOT_FOUND`, also for the last voter, which stays; `REQUEST_TIMED_OUT` while another change is under way;
    /// `INVALID_REQUEST` without a directory id.
    pub async fn remove_raft_voter(&self, id: NodeId, directory_id: Uuid) -> Result<()> {
        let request = RemoveRaftVoterRequest {
            cluster_id: None,
            voter_id: id.0,
            voter_directory_id: directory_id,
        };
        let route = self.cluster.any_route().await?;
        let response = route.call(request, self.timeout()).await?;
        check(response.error_code, response.error_message.as_ref(), || {
            format!("removing node {id} from the voters of the metadata quorum")
        })
    }
}

fn replica(state: ReplicaState) -> QuorumReplica {
    QuorumReplica {
        id: NodeId(state.replica_id),
        directory_id: Some(state.replica_directory_id).filter(|id| *id != Uuid::ZERO),
        log_end_offset: Offset(state.log_end_offset),
        last_fetch: TimestampMs(state.last_fetch_timestamp),
        last_caught_up: TimestampMs(state.last_caught_up_timestamp),
    }
}

fn endpoints(node: describe_quorum::Node) -> (NodeId, Vec<RaftVoterEndpoint>) {
    let endpoint = |listener: describe_quorum::Listener| RaftVoterEndpoint {
        listener: listener.name.to_string(),
        host: listener.host.to_string(),
        port: listener.port,
    };
    (NodeId(node.node_id), node.listeners.into_iter().map(endpoint).collect())
}
