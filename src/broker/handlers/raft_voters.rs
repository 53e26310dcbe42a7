//! AddRaftVoter: v0-v1.
//! RemoveRaftVoter: v0.
//!
//! Behaviour: who votes in the metadata quorum, one change at a time (KIP-853). Every node takes these requests; the one
//! that leads carries them out. A new voter must be an observer that has everything that is committed, and the leader
//! must reach it under the first of its listeners, where it must say that it is that node of this cluster. A leader that
//! is removed leads until that is committed. What a node asks that joins by itself (`broker/joining.rs`) is refused once
//! there are as many voters as nodes make of themselves.
//! Versions: AddRaftVoter v1 may be answered when the leader has the change, before it is committed.
//! Errors: INCONSISTENT_CLUSTER_ID with both ids; NOT_LEADER_OR_FOLLOWER when nobody is known to lead; INVALID_REQUEST
//! without a directory id or a listener; DUPLICATE_VOTER; VOTER_NOT_FOUND, also for the last voter, which stays;
//! REQUEST_TIMED_OUT when another change stays under way, for a new voter that is not reached or does not follow closely,
//! and when a change is not committed in time: it may be yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::broker::dispatch::{Answer, Call};
use crate::broker::joining;
use crate::broker::link::{Greeting, Link};
use crate::broker::quorum::frames;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::metadata::Endpoint;
use crate::machine::quorum::{Refusal, ReplicaKey, Voter, VoterChange};
use crate::protocol::messages::add_raft_voter::{AddRaftVoterRequest, AddRaftVoterResponse};
use crate::protocol::messages::remove_raft_voter::{
    RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use crate::protocol::{Request, Response, Str};
use crate::types::{NodeId, Uuid};

/// How long a removal may take, whose request does not say it; and the most for an addition.
const CHANGE_MAX: Duration = Duration::from_secs(30);
/// How long to wait before the leader is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// How this node names itself to the leader. Who is asked under this name asks nobody else.
const FORWARDED_BY: &str = "ottla-node-voters-";

pub(in crate::broker) fn add(call: &Call<'_>, request: &AddRaftVoterRequest) -> Result<Answer> {
    frames::check_cluster(call.state.cluster_id(), request.cluster_id.as_deref())?;
    let voter = Voter {
        key: key(request.voter_id, request.voter_directory_id)?,
        endpoints: request
            .listeners
            .iter()
            .map(|listener| Endpoint {
                listener: (&*listener.name).into(),
                host: (&*listener.host).into(),
                port: listener.port,
                security_protocol: 0,
            })
            .collect(),
    };
    if voter.endpoints.is_empty() {
        return Err(Error::told(ErrorCode::InvalidRequest, "a voter without a listener"));
    }
    let limit = Duration::from_millis(request.timeout_ms.max(0).unsigned_abs().into());
    let asker = call.context.client_id.as_deref().unwrap_or_default();
    let change = Change {
        state: Arc::clone(call.state),
        is_forwarded: is_from_node(asker),
        joins_by_itself: asker.starts_with(joining::JOINING),
        limit: limit.min(CHANGE_MAX),
        when_appended: !request.ack_when_committed,
        request: request.clone().into(),
        asked: VoterChange::Add(voter),
    };
    Ok(change.answer(|code, message| {
        let (error_code, error_message) = (code.to_i16(), message);
        AddRaftVoterResponse { error_code, error_message, throttle_time_ms: 0 }.into()
    }))
}

pub(in crate::broker) fn remove(
    call: &Call<'_>,
    request: &RemoveRaftVoterRequest,
) -> Result<Answer> {
    frames::check_cluster(call.state.cluster_id(), request.cluster_id.as_deref())?;
    let asker = call.context.client_id.as_deref().unwrap_or_default();
    let change = Change {
        state: Arc::clone(call.state),
        is_forwarded: is_from_node(asker),
        joins_by_itself: false,
        limit: CHANGE_MAX,
        when_appended: false,
        request: request.clone().into(),
        asked: VoterChange::Remove(key(request.voter_id, request.voter_directory_id)?),
    };
    Ok(change.answer(|code, message| {
        let (error_code, error_message) = (code.to_i16(), message);
        RemoveRaftVoterResponse { error_code, error_message, throttle_time_ms: 0 }.into()
    }))
}

/// Whether another node asks, which looks for the leader itself.
fn is_from_node(client_id: &str) -> bool {
    client_id.starts_with(FORWARDED_BY) || client_id.starts_with(joining::JOINING)
}

fn key(id: i32, directory_id: Uuid) -> Result<ReplicaKey> {
    if id < 0 || directory_id == Uuid::ZERO {
        let text = "a voter is named by its node id and its directory id";
        return Err(Error::told(ErrorCode::InvalidRequest, text));
    }
    Ok(ReplicaKey { id: NodeId(id), directory_id })
}

/// A change that is asked for.
struct Change {
    state: Arc<BrokerState>,
    /// By another node, for somebody else or itself.
    is_forwarded: bool,
    joins_by_itself: bool,
    limit: Duration,
    when_appended: bool,
    request: Request,
    asked: VoterChange,
}

/// Nothing was done, and it is worth to try again.
enum NotYet {
    /// Who was asked does not lead.
    NotLeader,
    /// Another change is not committed yet.
    Pending,
}

impl Change {
    fn answer(
        self,
        response: impl FnOnce(ErrorCode, Option<Str>) -> Response + Send + 'static,
    ) -> Answer {
        Answer::Later(Box::pin(async move {
            let until = Instant::now() + self.limit;
            let done = tokio::time::timeout_at(until, self.carry_out()).await;
            let done = done.unwrap_or_else(|_elapsed| {
                let text = format!("the change was not committed within {:?}", self.limit);
                Err(Error::told(ErrorCode::RequestTimedOut, text))
            });
            Ok(match done {
                Ok(Some(told)) => told,
                Ok(None) => response(ErrorCode::None, None),
                Err(error) => response(error.code(), Some(Str::from(error.chain().as_str()))),
            })
        }))
    }

    /// Looks for the leader, and has it change the voters; what another node answered, if that leads.
    async fn carry_out(&self) -> Result<Option<Response>> {
        loop {
            let leader = self.state.quorum().leader;
            let done = if leader == self.state.node_id() {
                self.change_here().await?.map(|()| None)
            } else if let Some(address) = self.state.address_of(leader)
                && !self.is_forwarded
            {
                self.forward(&address).await?.map(Some)
            } else {
                Err(NotYet::NotLeader)
            };
            match done {
                Ok(done) => return Ok(done),
                Err(NotYet::NotLeader) if self.is_forwarded => {
                    let text =
                        format!("node {} does not lead the metadata quorum", self.state.node_id());
                    return Err(Error::told(ErrorCode::NotLeaderOrFollower, text));
                }
                Err(NotYet::NotLeader | NotYet::Pending) => tokio::time::sleep(PAUSE).await,
            }
        }
    }

    async fn forward(&self, address: &str) -> Result<Result<Response, NotYet>> {
        let name = format!("{FORWARDED_BY}{}", self.state.node_id());
        let Ok(link) = Link::open(&self.state.env().net, address, &name).await else {
            return Ok(Err(NotYet::NotLeader));
        };
        let told = link.exchange(&self.request, self.limit).await?;
        let code = match &told {
            Response::AddRaftVoter(body) => body.error_code,
            Response::RemoveRaftVoter(body) => body.error_code,
            _ => 0,
        };
        let is_leader = ErrorCode::from_i16(code) != ErrorCode::NotLeaderOrFollower;
        Ok(if is_leader { Ok(told) } else { Err(NotYet::NotLeader) })
    }

    async fn change_here(&self) -> Result<Result<(), NotYet>> {
        let voters = self.state.metadata().voters();
        if let VoterChange::Add(voter) = &self.asked {
            if let Some(known) = voters.get(voter.key.id) {
                return Err(refused(Refusal::DuplicateVoter, &known.key));
            }
            if self.joins_by_itself && voters.len() >= joining::VOTERS_MAX {
                let text = format!("there are {} voters already", voters.len());
                return Err(Error::told(ErrorCode::PolicyViolation, text));
            }
            self.greet(voter).await?;
        }
        let done = self.state.metadata().change_voters(self.asked.clone(), self.when_appended);
        match done.await? {
            Ok(()) => Ok(Ok(())),
            Err(Refusal::NotLeader) => Ok(Err(NotYet::NotLeader)),
            Err(Refusal::ChangePending) => Ok(Err(NotYet::Pending)),
            Err(refusal) => Err(refused(refusal, self.key())),
        }
    }

    fn key(&self) -> &ReplicaKey {
        match &self.asked {
            VoterChange::Add(voter) => &voter.key,
            VoterChange::Remove(key) => key,
        }
    }

    /// A voter that the others do not reach would count towards a majority without ever being part of one.
    async fn greet(&self, voter: &Voter) -> Result<()> {
        let Some(endpoint) = voter.endpoints.first() else { return Ok(()) };
        let (address, id) = (endpoint.address(), voter.key.id);
        let Some(cluster_id) = self.state.cluster_id() else { return Ok(()) };
        if id == self.state.node_id() {
            return Ok(());
        }
        let greeting = Greeting { cluster_id, node_id: id };
        let greeted = Link::meet(&self.state.env().net, &address, "ottla-node-greeting", greeting);
        greeted.await.map_err(|error| {
            let text = format!(
                "node {id} of this cluster does not answer at {address}: {}",
                error.chain()
            );
            Error::told(ErrorCode::RequestTimedOut, text)
        })
    }
}

fn refused(refusal: Refusal, key: &ReplicaKey) -> Error {
    let ReplicaKey { id, directory_id } = key;
    let (code, text) = match refusal {
        Refusal::DuplicateVoter => (
            ErrorCode::DuplicateVoter,
            format!("node {id} votes already, with the directory {directory_id}"),
        ),
        Refusal::VoterNotFound => (
            ErrorCode::VoterNotFound,
            format!("node {id} with the directory {directory_id} is no voter"),
        ),
        Refusal::LastVoter => (
            ErrorCode::VoterNotFound,
            format!("node {id} is the only voter: without it there is no quorum"),
        ),
        Refusal::NotCaughtUp => (
            ErrorCode::RequestTimedOut,
            format!(
                "node {id} with the directory {directory_id} does not follow the metadata log closely: start it, so \
                 that it joins the cluster, and wait until it has caught up"
            ),
        ),
        Refusal::ChangePending => (
            ErrorCode::RequestTimedOut,
            "another change of the voters is not committed yet".to_owned(),
        ),
        Refusal::TooManyProposals => {
            (ErrorCode::RequestTimedOut, "too much waits to be committed".to_owned())
        }
        Refusal::LeadershipLost | Refusal::NotLeader => (
            ErrorCode::RequestTimedOut,
            "the leadership moved before the change was known to be committed; it may have been"
                .to_owned(),
        ),
    };
    Error::told(code, text)
}
