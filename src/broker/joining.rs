//! A node that joins a cluster: what keeps it out, and how it becomes a voter.
//!
//! Where it asks is in `controller.quorum.bootstrap.servers`. It begins as an observer of the metadata quorum, adopts the
//! id of the cluster, and serves as a broker like any other. With `controller.quorum.auto.join.enable`, it then becomes a
//! voter, as long as there are fewer than [`VOTERS_MAX`]: three are enough to survive the loss of one, and every further
//! one slows down each change of the metadata. (Apache Kafka has no such limit.)
//!
//! Invariants:
//! - `JOIN-1` a node asks to become a voter only once it is registered, so that no other process with its id runs.
//! - `JOIN-2` a node that was a voter, and is removed, stays an observer until it is started again.
//! - `JOIN-3` a voter whose directory was lost takes its own place again, and nobody else's: its predecessor is removed
//!   by name and directory before it is added.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::boot;
use super::link::Link;
use super::listener::BoundListener;
use super::state::BrokerState;
use crate::config::{BrokerConfig, QuorumVoter};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::METADATA_TOPIC;
use crate::machine::metadata::Endpoint;
use crate::machine::quorum::ReplicaKey;
use crate::protocol::Str;
use crate::protocol::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use crate::protocol::messages::describe_cluster::DescribeClusterRequest;
use crate::protocol::messages::describe_quorum::{
    DescribeQuorumRequest, PartitionData, ReplicaState, TopicData,
};
use crate::protocol::messages::remove_raft_voter::RemoveRaftVoterRequest;
use crate::types::NodeId;

/// How many voters there are before nodes stop making themselves voters.
pub(super) const VOTERS_MAX: usize = 3;
/// How a node names itself that makes itself a voter: the leader then keeps to [`VOTERS_MAX`].
pub(super) const JOINING: &str = "ottla-node-joining-";

/// How long a boot takes its course before it is asked what may keep it from ending; and between two such questions.
const QUESTIONS: Duration = Duration::from_secs(1);
/// How long a node that could start at once waits for those that it is to join.
const ALONE_MAX: Duration = Duration::from_secs(2);
/// How long an answer may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How long to wait before the next try to become a voter.
const RETRY: Duration = Duration::from_millis(250);

/// Where other voters reach this node: by the listeners of controllers if it has any, otherwise by that of brokers.
pub(super) fn voter_endpoints(
    config: &BrokerConfig,
    bound: &[Arc<BoundListener>],
) -> Vec<Endpoint> {
    let of_controllers = bound.iter().filter(|bound| config.is_of_controllers(bound.name()));
    let of_controllers = boot::endpoints_of(of_controllers);
    if !of_controllers.is_empty() {
        return of_controllers;
    }
    let mut endpoints = boot::endpoints(config, bound);
    endpoints.retain(|one| *one.listener == *config.replication.inter_broker_listener);
    endpoints
}

/// The addresses at which the settings say that other nodes are.
fn addresses(state: &BrokerState) -> Vec<String> {
    let config = state.config();
    let listed = config.other_voters().map(QuorumVoter::address);
    config.bootstrap_servers.iter().cloned().chain(listed).collect()
}

/// Asks the nodes that this one is to find why it could never join them, and ends when there is a reason.
pub(super) async fn refusal(state: &BrokerState) -> Error {
    let addresses = addresses(state);
    if addresses.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(QUESTIONS).await;
        for address in &addresses {
            match refused_at(state, address).await {
                Ok(Some(refusal)) => return refusal,
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(address, error = %error.chain(), "no answer from a node");
                }
            }
        }
    }
}

/// A node that is the only voter of its log waits for nobody, and would serve beside the cluster that it is to join. If
/// that answers at once, it says whether it is the same.
///
/// # Errors
///
/// It is another one.
pub(super) async fn check_alone(state: &BrokerState) -> Result<()> {
    let (addresses, voters) = (addresses(state), state.metadata().voters());
    if addresses.is_empty() || voters.len() != 1 || voters.get(state.node_id()).is_none() {
        return Ok(());
    }
    let asked =
        addresses.iter().map(|address| tokio::time::timeout(ALONE_MAX, refused_at(state, address)));
    let told = futures::future::join_all(asked).await;
    let refusal = told.into_iter().find_map(|told| told.ok()?.ok()?);
    refusal.map_or(Ok(()), Err)
}

async fn refused_at(state: &BrokerState, address: &str) -> Result<Option<Error>> {
    let name = format!("ottla-node-{}-boot", state.node_id());
    let link = Link::open(&state.env().net, address, &name).await?;
    let (me, meta) = (state.node_id(), state.partitions().storage().meta()?);
    let topic = TopicData {
        topic_name: Str::from_static(METADATA_TOPIC),
        partitions: vec![PartitionData { partition_index: 0 }],
    };
    let quorum = link.call(DescribeQuorumRequest { topics: vec![topic] }, ANSWER_MAX).await?;
    let mut partitions = quorum.topics.into_iter().flat_map(|topic| topic.partitions);
    // Only who leads says so, and with this directory that could only be this process.
    let is_other = |voter: &ReplicaState| {
        voter.replica_id == me.0 && voter.replica_directory_id != meta.directory_id
    };
    let is_taken = partitions.any(|told| {
        let leads = told.error_code == 0 && told.leader_id == me.0;
        leads && told.current_voters.iter().any(is_other)
    });
    if is_taken {
        let text = format!(
            "node {me} of the cluster at {address} is another process, which is running; give this one a different \
             node.id"
        );
        return Ok(Some(Error::told(ErrorCode::DuplicateBrokerRegistration, text)));
    }
    let Some(ours) = meta.cluster_id else { return Ok(None) };
    let question = DescribeClusterRequest { endpoint_type: 1, ..DescribeClusterRequest::default() };
    let theirs = link.call(question, ANSWER_MAX).await?.cluster_id;
    if theirs.is_empty() || *theirs == *ours {
        return Ok(None);
    }
    let text = format!(
        "the data of this node belong to cluster {ours}, but the node at {address} belongs to cluster {theirs}"
    );
    Ok(Some(Error::told(ErrorCode::InconsistentClusterId, text)))
}

/// Makes this node a voter, if the settings say so and there are too few. `endpoints` is where the others reach it.
pub(super) async fn become_voter(
    state: Arc<BrokerState>,
    endpoints: Vec<Endpoint>,
    stop: CancellationToken,
) {
    if !state.config().auto_join {
        return;
    }
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = try_to_vote(&state, &endpoints) => {}
    }
}

async fn try_to_vote(state: &BrokerState, endpoints: &[Endpoint]) {
    let mut said = None;
    loop {
        match next_step(state, endpoints).await {
            Ok(Step::Again) => {}
            Ok(Step::Votes) => {
                tracing::info!(node = %state.node_id(), "votes in the metadata quorum");
                return;
            }
            Ok(Step::Observes) => {
                let voters = state.metadata().voters().len();
                tracing::info!(node = %state.node_id(), voters, "stays an observer of the metadata quorum");
                return;
            }
            Err(error) => {
                // Once for each reason.
                let why = error.chain();
                if said.as_ref() != Some(&why) {
                    tracing::info!(node = %state.node_id(), reason = why, "not a voter of the metadata quorum yet");
                    said = Some(why);
                }
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

enum Step {
    Votes,
    Observes,
    Again,
}

async fn next_step(state: &BrokerState, endpoints: &[Endpoint]) -> Result<Step> {
    let directory_id = state.partitions().storage().meta()?.directory_id;
    let me = ReplicaKey { id: state.node_id(), directory_id };
    let voters = state.metadata().voters();
    if voters.contains(&me) {
        return Ok(Step::Votes);
    }
    let predecessor = voters.get(me.id).map(|voter| voter.key);
    // A node of a larger quorum would be removed, and not added again.
    let is_place_free = predecessor.is_some() && voters.len() <= VOTERS_MAX;
    if voters.len() >= VOTERS_MAX && !is_place_free {
        return Ok(Step::Observes);
    }
    let leader = state.quorum().leader;
    let no_leader = || Error::told(ErrorCode::NotController, "nobody leads the metadata quorum");
    let address = state.address_of(leader).filter(|_| leader != NodeId::NONE);
    let address = address.ok_or_else(no_leader)?;
    let name = format!("{JOINING}{}", me.id);
    let link = Link::open(&state.env().net, &address, &name).await?;
    let cluster_id = state.cluster_id().map(Str::from);
    let (code, message) = if let Some(predecessor) = predecessor {
        tracing::info!(node = %me.id, directory = %predecessor.directory_id, "takes the place of its predecessor");
        let request = RemoveRaftVoterRequest {
            cluster_id,
            voter_id: predecessor.id.0,
            voter_directory_id: predecessor.directory_id,
        };
        let told = link.call(request, ANSWER_MAX).await?;
        (told.error_code, told.error_message)
    } else {
        let listener = |endpoint: &Endpoint| Listener {
            name: Str::from(&*endpoint.listener),
            host: Str::from(&*endpoint.host),
            port: endpoint.port,
        };
        let request = AddRaftVoterRequest {
            cluster_id,
            timeout_ms: i32::try_from(ANSWER_MAX.as_millis()).unwrap_or(i32::MAX),
            voter_id: me.id.0,
            voter_directory_id: me.directory_id,
            listeners: endpoints.iter().map(listener).collect(),
            ack_when_committed: true,
        };
        let told = link.call(request, ANSWER_MAX + QUESTIONS).await?;
        (told.error_code, told.error_message)
    };
    match ErrorCode::from_i16(code) {
        ErrorCode::None => Ok(Step::Again),
        ErrorCode::PolicyViolation => Ok(Step::Observes),
        code => Err(Error::told(code, message.as_deref().unwrap_or_default())),
    }
}
