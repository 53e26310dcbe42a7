//! Vote: v0-v2.
//! BeginQuorumEpoch: v0-v1.
//! EndQuorumEpoch: v0-v1.
//! FetchSnapshot: v0-v1.
//! UpdateRaftVoter: v0.
//! Envelope: v0.
//!
//! What the nodes of a cluster ask each other about its metadata log; a Fetch of `__cluster_metadata-0` by a replica
//! comes here, too.
//! Behaviour: KRaft's (KIP-595, KIP-853, KIP-996); `machine/quorum` decides, `quorum/frames` says how it looks. An
//! Envelope carries a command of another node to the controller, in ottla's own form: it is from a node, not on
//! behalf of a client, so the principal names the node and its cluster. What is asked waits until what the answer promises is on disk.
//! Versions: as Kafka's; v1 and later of the first four know voters by directory id.
//! Errors: INCONSISTENT_CLUSTER_ID; FENCED_LEADER_EPOCH with the current epoch; NOT_LEADER_OR_FOLLOWER,
//! SNAPSHOT_NOT_FOUND, POSITION_OUT_OF_RANGE; UNKNOWN_TOPIC_OR_PARTITION for any other partition, INVALID_REQUEST for
//! several, and for an epoch that cannot be; INCONSISTENT_VOTER_SET when the sender has the id of this node, or is not
//! known and names neither its cluster nor, to read, its directory; PRINCIPAL_DESERIALIZATION_FAILURE for an Envelope of
//! anybody else.

use crate::broker::dispatch::{Answer, Call};
use crate::broker::metadata_log::failed;
use crate::broker::quorum::frames;
use crate::broker::quorum::links::Sender;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::AnyCommand;
use crate::machine::quorum::{self, ReplicaKey};
use crate::protocol::messages::envelope::{EnvelopeRequest, EnvelopeResponse};
use crate::protocol::{Request, Response};
use crate::types::{LeaderEpoch, NodeId, Uuid};

/// More elections than a cluster can have had; far enough from the end that the next one has an epoch.
const EPOCH_MAX: LeaderEpoch = LeaderEpoch(1 << 30);

/// Everything but Envelope.
pub(in crate::broker) fn handle(call: &Call<'_>, request: &Request) -> Result<Answer> {
    let asked = frames::read_request(call.state.cluster_id(), request)?;
    check(call, asked.sender(), asked.epoch())?;
    check_sender(call, &asked, frames::cluster_of(request))?;
    let told = call.state.metadata().answer(asked.clone());
    Ok(Answer::Later(Box::pin(async move {
        let told = told.await.ok_or_else(|| {
            let context = "the metadata quorum of this node does not run";
            Error::kafka(ErrorCode::CoordinatorNotAvailable, context)
        })?;
        frames::answer(&asked, told)
    })))
}

/// Envelope.
pub(in crate::broker) fn envelope(call: &Call<'_>, request: &EnvelopeRequest) -> Result<Answer> {
    let principal = request.request_principal.as_deref().unwrap_or_default();
    let sender: Sender = serde_json::from_slice(principal).map_err(|_not_ours| {
        let context = "the envelope is not from a node of an ottla cluster";
        Error::kafka(ErrorCode::PrincipalDeserializationFailure, context)
    })?;
    frames::check_cluster(call.state.cluster_id(), sender.cluster_id.as_deref())?;
    check(call, sender.node_id, LeaderEpoch(0))?;
    let command = AnyCommand::decode(&request.request_data);
    let done = command.map(|command| call.state.metadata().carry_out(command));
    Ok(Answer::Later(Box::pin(async move {
        let answer = match done {
            Ok(done) => done.await,
            Err(error) => failed(&error),
        };
        // Only a sentence of many megabytes could not be written; an empty answer is malformed for the other side.
        let bytes = answer.encode().or_else(|error| failed(&error).encode()).unwrap_or_default();
        let response = EnvelopeResponse { response_data: Some(bytes.into()), error_code: 0 };
        Ok(Response::from(response))
    })))
}

/// Refuses who is no other node of this cluster, as far as can be told without authentication, and epochs that nobody
/// reaches by elections.
pub(super) fn check(call: &Call<'_>, sender: NodeId, epoch: LeaderEpoch) -> Result<()> {
    let me = call.state.node_id();
    if sender == me || sender.0 < 0 {
        let context = format!("the sender says that it is node {sender}; this is node {me}");
        return Err(Error::kafka(ErrorCode::InconsistentVoterSet, context));
    }
    if epoch.0 < 0 || epoch > EPOCH_MAX {
        let context = format!("{epoch} is no epoch of a metadata quorum");
        return Err(Error::kafka(ErrorCode::InvalidRequest, context));
    }
    Ok(())
}

/// Who wants to change something here must be a node of this cluster that is known here, or name the cluster: a voter
/// that was added a moment ago may be known to others only. Whoever only reads need not know yet which cluster it joins.
fn check_sender(
    call: &Call<'_>,
    request: &quorum::Request,
    cluster_id: Option<&str>,
) -> Result<()> {
    let (state, sender) = (call.state, request.sender());
    match request {
        quorum::Request::Fetch(asked) => check_directory(call, asked.replica)?,
        quorum::Request::FetchSnapshot(asked) => check_directory(call, asked.replica)?,
        _ if cluster_id.is_some() && cluster_id == state.cluster_id() => {}
        _ if state.other_nodes().contains_key(&sender) => {}
        _ => {
            let context = format!("node {sender} is not known here, and does not name the cluster");
            return Err(Error::kafka(ErrorCode::InconsistentVoterSet, context));
        }
    }
    Ok(())
}

/// An observer is told apart by its directory.
fn check_directory(call: &Call<'_>, replica: ReplicaKey) -> Result<()> {
    if replica.directory_id == Uuid::ZERO
        && call.state.metadata().voters().get(replica.id).is_none()
    {
        let context = format!("node {} is no voter, and does not name its directory", replica.id);
        return Err(Error::kafka(ErrorCode::InconsistentVoterSet, context));
    }
    Ok(())
}
