//! AlterPartition: v2-v3.
//! BrokerRegistration: v0-v4.
//! BrokerHeartbeat: v0-v2.
//! AllocateProducerIds: v0.
//!
//! What the brokers of a cluster ask its controller. Every other command of theirs, and these from a node of an earlier
//! release, come in an Envelope.
//! Behaviour: Kafka's frames, with what these have no place for in tagged fields of ottla's own
//! (`quorum/frames/commands.rs`); the controller decides, and what it decided is committed when it is answered. Carried out
//! by the node that leads the metadata quorum, and by no other.
//! Versions: BrokerRegistration v2 names the log directory, without which a broker is not registered; v3 the registration
//! before. BrokerHeartbeat v1 and v2: log directories that are offline or cordoned are not known here, since there is one.
//! AlterPartition v2 does not name the registrations of the members.
//! Errors: NOT_CONTROLLER; those of the controller, for example STALE_BROKER_EPOCH, BROKER_ID_NOT_REGISTERED,
//! DUPLICATE_BROKER_REGISTRATION, INCONSISTENT_CLUSTER_ID with both ids, and of a partition FENCED_LEADER_EPOCH,
//! INVALID_UPDATE_VERSION, INELIGIBLE_REPLICA; UNSUPPORTED_VERSION for a broker that is no node of ottla;
//! INCONSISTENT_VOTER_SET when the sender has the id of this node.

use super::quorum::check;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::quorum::frames;
use crate::error::Result;
use crate::protocol::Request;
use crate::types::{LeaderEpoch, NodeId};

pub(in crate::broker) fn handle(call: &Call<'_>, request: &Request) -> Result<Answer> {
    let sender = match request {
        Request::BrokerRegistration(body) => {
            let theirs = Some(&*body.cluster_id).filter(|id| !id.is_empty());
            frames::check_cluster(call.state.cluster_id(), theirs)?;
            body.broker_id
        }
        Request::BrokerHeartbeat(body) => body.broker_id,
        Request::AlterPartition(body) => body.broker_id,
        Request::AllocateProducerIds(body) => body.broker_id,
        _ => NodeId::NONE.0,
    };
    check(call, NodeId(sender), LeaderEpoch(0))?;
    let done = call.state.metadata().carry_out(frames::read_command(request)?);
    let request = request.clone();
    Ok(Answer::Later(Box::pin(async move { frames::command_answer(&request, &done.await) })))
}
