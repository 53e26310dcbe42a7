//! Routes a frame to its handler, and turns the answer into bytes.
//!
//! Why: this is the only place that knows every API. The match is exhaustive: an API added to
//! `protocol/api.rs` does not compile until it has a handler and an error form here.
//!
//! Invariants:
//! - `DISPATCH-1` a malformed frame or an unknown API closes its connection and does nothing else. The log has
//!   one line for a malformed frame, and one for each client and API that is not served (see
//!   [`unserved`](super::unserved)).
//! - `DISPATCH-2` ApiVersions of an unknown version is answered in v0 with UNSUPPORTED_VERSION and the
//!   list, never by closing: that is how clients find out what they may send.
//! - `DISPATCH-3` an error or a panic of a handler becomes an answer in the form of its API, early or late, and so
//!   does a response that cannot be encoded; a panic is UNKNOWN_SERVER_ERROR and is logged.
//! - `DISPATCH-4` Produce requests of one client in the process append in the order of its calls, whichever of the
//!   futures is polled first and whatever a handler waits for: out of order, they would be refused or reordered.
//!   As on a connection, no more than `PIPELINE_MAX` of them are unanswered; the next one waits.
//!
//! Sockets use [`FrameHandler`], the in-process client uses [`Service`]; both end in
//! [`BrokerState::answer`].

use std::future::{Future, ready};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::OptionFuture;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::task::unconstrained;
use tokio_util::sync::CancellationToken;

use super::connection::{BoxFuture, FrameHandler, Handled, PIPELINE_MAX, PeerInfo};
use super::handlers;
use super::handlers::api_versions::Known;
use super::listener::Reached;
use super::phase::{Phase, Progress};
use super::quorum::frames;
use super::state::BrokerState;
use super::unserved::{self, Unserved};
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::frame::{self, Incoming};
use crate::protocol::{ApiKey, Request, RequestHeader, Response, Service, ServiceFuture, Str, api};
use crate::types::Chunk;

/// Who asks, and how. All but the names that the client gives itself is the broker's own knowledge.
#[derive(Debug)]
pub(super) struct RequestContext {
    /// The version of the request, which is also that of the response.
    pub(super) api_version: i16,
    pub(super) client_id: Option<Str>,
    /// The client at the other end of the connection; `None` in-process.
    pub(super) peer: Option<Arc<PeerInfo>>,
}

impl RequestContext {
    /// The listener and the address by which the client knows this broker; `None` in-process.
    pub(super) fn reached(&self) -> Option<&Reached> {
        self.peer.as_ref().map(|peer| &peer.reached)
    }
}

/// A request being handled.
pub(super) struct Call<'a> {
    pub(super) state: &'a Arc<BrokerState>,
    pub(super) context: &'a RequestContext,
    /// Cancelled when nobody waits for the answer any longer.
    pub(super) gone: &'a CancellationToken,
}

/// The answer of a handler.
pub(super) enum Answer {
    /// This response.
    Now(Response),
    /// A later response; the next request of the connection may begin.
    Later(BoxFuture<Result<Response>>),
    /// No response (Produce with `acks=0`). An error closes the connection, which is the only way to tell.
    Unanswered(BoxFuture<Result<()>>),
}

impl<T: Into<Response>> From<T> for Answer {
    fn from(response: T) -> Self {
        Self::Now(response.into())
    }
}

impl BrokerState {
    /// Answers a request, whatever happens.
    async fn answer(call: &Call<'_>, request: &Request) -> Answer {
        let version = call.context.api_version;
        match caught(route(call, request)).await {
            Ok(answer) => answer,
            Err(error) => Answer::Now(refused(request, version, &error)),
        }
    }
}

/// Answers a request that this broker makes of itself, as it answers one of another broker.
///
/// # Errors
///
/// The broker does not answer with a response of the API.
pub(super) async fn ask_itself<C: api::Call>(
    state: &Arc<BrokerState>,
    request: C,
) -> Result<C::Response> {
    let context =
        RequestContext { api_version: C::API.versions().max, client_id: None, peer: None };
    let gone = CancellationToken::new();
    let request = request.into();
    let call = Call { state, context: &context, gone: &gone };
    let response = match BrokerState::answer(&call, &request).await {
        Answer::Now(response) => response,
        Answer::Later(wait) => awaited(&request, context.api_version, wait).await,
        Answer::Unanswered(wait) => {
            wait.await?;
            return Err(Error::malformed("answer", "there is none"));
        }
    };
    C::answer(response).ok_or_else(|| Error::malformed("answer", "it is that of another API"))
}

/// An error as an answer in the form of the request's API.
fn refused(request: &Request, version: i16, error: &Error) -> Response {
    tracing::debug!(api = %request.api(), error = %error.chain(), "request refused");
    handlers::errors::response(request, version, error)
}

/// A later response, whatever happens until it is there.
async fn awaited(request: &Request, version: i16, wait: BoxFuture<Result<Response>>) -> Response {
    caught(wait).await.unwrap_or_else(|error| refused(request, version, &error))
}

/// Turns a panic into an error.
async fn caught<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(result) => result,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(panic = text, "a request handler panicked");
            Err(words::broker_failed(ErrorCode::UnknownServerError, "handled the request"))
        }
    }
}

/// One arm for each API.
#[expect(clippy::too_many_lines, reason = "a table, of which each line is read alone")]
async fn route(call: &Call<'_>, request: &Request) -> Result<Answer> {
    use handlers as h;
    Ok(match request {
        Request::ApiVersions(body) => {
            h::api_versions::handle(&Known::of(call.state), call.context, body).into()
        }
        Request::Metadata(body) => h::metadata::handle(call, body).await?.into(),
        Request::Produce(body) => h::produce::handle(call, body).await?,
        Request::Fetch(body) if frames::is_for_metadata(body) => h::quorum::handle(call, request)?,
        Request::Fetch(body) => h::fetch::handle(call, body).await?.into(),
        Request::ListOffsets(body) => h::list_offsets::handle(call, body).await?.into(),
        Request::OffsetForLeaderEpoch(body) => {
            h::offset_for_leader_epoch::handle(call, body).into()
        }
        Request::InitProducerId(body) => h::init_producer_id::handle(call, body).await?,
        Request::FindCoordinator(body) => h::find_coordinator::handle(call, body).await.into(),
        Request::CreateTopics(body) => h::create_topics::handle(call, body).await?.into(),
        Request::DeleteTopics(body) => h::delete_topics::handle(call, body).await?.into(),
        Request::CreatePartitions(body) => h::create_partitions::handle(call, body).await?.into(),
        Request::DeleteRecords(body) => h::delete_records::handle(call, body).await.into(),
        Request::DescribeConfigs(body) => h::describe_configs::handle(call, body).into(),
        Request::AlterConfigs(body) => h::alter_configs::legacy(call, body).await?.into(),
        Request::IncrementalAlterConfigs(body) => {
            h::alter_configs::incremental(call, body).await?.into()
        }
        Request::ListConfigResources(body) => h::list_config_resources::handle(call, body).into(),
        Request::DescribeCluster(body) => h::describe_cluster::handle(call, body).into(),
        Request::DescribeTopicPartitions(body) => {
            h::describe_topic_partitions::handle(call, body)?.into()
        }
        Request::DescribeLogDirs(body) => h::describe_log_dirs::handle(call, body).into(),
        Request::DescribeProducers(body) => h::describe_producers::handle(call, body).into(),
        Request::ListPartitionReassignments(body) => {
            h::list_partition_reassignments::handle(call, body).into()
        }
        Request::AlterPartitionReassignments(body) => {
            h::alter_partition_reassignments::handle(call, body).await?.into()
        }
        Request::ElectLeaders(body) => h::elect_leaders::handle(call, body).await?.into(),
        Request::UpdateFeatures(body) => h::update_features::handle(call, body).await?.into(),
        Request::UnregisterBroker(body) => h::unregister_broker::handle(call, body).await?.into(),
        Request::AlterReplicaLogDirs(body) => {
            h::alter_replica_log_dirs::handle(call, body).await.into()
        }
        Request::DescribeQuorum(body) => h::describe_quorum::handle(call, body),
        Request::AddRaftVoter(body) => h::raft_voters::add(call, body)?,
        Request::RemoveRaftVoter(body) => h::raft_voters::remove(call, body)?,
        Request::Vote(_)
        | Request::BeginQuorumEpoch(_)
        | Request::EndQuorumEpoch(_)
        | Request::FetchSnapshot(_)
        | Request::UpdateRaftVoter(_) => h::quorum::handle(call, request)?,
        Request::Envelope(body) => h::quorum::envelope(call, body)?,
        Request::AlterPartition(_)
        | Request::BrokerRegistration(_)
        | Request::BrokerHeartbeat(_)
        | Request::AllocateProducerIds(_) => h::broker_commands::handle(call, request)?,
        Request::DescribeAcls(_) => h::acls::describe().into(),
        Request::CreateAcls(body) => h::acls::create(body).into(),
        Request::DeleteAcls(body) => h::acls::delete(body).into(),
        Request::JoinGroup(body) => h::join_group::handle(call, body).await?,
        Request::SyncGroup(body) => h::sync_group::handle(call, body).await?,
        Request::Heartbeat(body) => h::heartbeat::handle(call, body).await?,
        Request::LeaveGroup(body) => h::leave_group::handle(call, body).await?,
        Request::OffsetCommit(body) => h::offset_commit::handle(call, body).await?,
        Request::OffsetFetch(body) => h::offset_fetch::handle(call, body).await?,
        Request::OffsetDelete(body) => h::offset_delete::handle(call, body).await?,
        Request::DescribeGroups(body) => h::describe_groups::handle(call, body).await?,
        Request::ListGroups(body) => h::list_groups::handle(call, body).await?,
        Request::DeleteGroups(body) => h::delete_groups::handle(call, body).await?,
        Request::ConsumerGroupHeartbeat(body) => {
            h::consumer_group_heartbeat::handle(call, body).await?
        }
        Request::ConsumerGroupDescribe(body) => {
            h::consumer_group_describe::handle(call, body).await?
        }
        Request::AddPartitionsToTxn(body) => h::add_partitions_to_txn::handle(call, body),
        Request::AddOffsetsToTxn(body) => h::add_offsets_to_txn::handle(call, body).await?,
        Request::EndTxn(body) => h::end_txn::handle(call, body).await?,
        Request::DescribeTransactions(body) => h::describe_transactions::handle(call, body),
        Request::ListTransactions(body) => h::list_transactions::handle(call, body)?,
        Request::TxnOffsetCommit(body) => h::txn_offset_commit::handle(call, body).await?,
        Request::WriteTxnMarkers(body) => h::write_txn_markers::handle(call, body).await?,
    })
}

/// The entry point for sockets, from the first phase of a boot on.
#[derive(Debug)]
pub(super) struct Dispatcher {
    progress: Arc<Progress>,
    unserved: Unserved,
}

impl Dispatcher {
    pub(super) fn new(progress: Arc<Progress>) -> Arc<Self> {
        Arc::new(Self { progress, unserved: Unserved::default() })
    }
}

impl FrameHandler for Dispatcher {
    fn handle(self: Arc<Self>, peer: Arc<PeerInfo>, frame: Bytes) -> BoxFuture<Result<Handled>> {
        Box::pin(async move {
            // The bytes are shared, not copied.
            let bytes = frame.clone();
            let incoming = frame::decode_request(frame).inspect_err(|_| {
                let header = frame::request_header(bytes).ok();
                if let Some(header) = header.filter(unserved::is_unserved) {
                    self.unserved.note(&header, &peer);
                }
            });
            match incoming? {
                Incoming::UnknownApiVersions(header) => {
                    let response = Response::ApiVersions(api::api_versions_fallback());
                    let chunks = frame::encode_response(header.correlation_id, 0, &response)?;
                    Ok(Handled::Reply(chunks))
                }
                Incoming::Request(header, request) => {
                    self.handle_request(peer, header, request).await
                }
            }
        })
    }
}

impl Dispatcher {
    async fn handle_request(
        &self,
        peer: Arc<PeerInfo>,
        header: RequestHeader,
        request: Request,
    ) -> Result<Handled> {
        let (version, correlation_id) = (header.api_version, header.correlation_id);
        let gone = peer.gone.clone();
        let client_id = header.client_id;
        let context = RequestContext { api_version: version, client_id, peer: Some(peer) };
        let phase = Phase::answering(&request);
        let Some(state) = self.progress.reached(phase).await? else {
            let response = self.answer_early(&context, &request);
            return encode(&request, correlation_id, version, &response).map(Handled::Reply);
        };
        let call = Call { state, context: &context, gone: &gone };
        match BrokerState::answer(&call, &request).await {
            Answer::Now(response) => {
                encode(&request, correlation_id, version, &response).map(Handled::Reply)
            }
            Answer::Later(wait) => Ok(Handled::Later(Box::pin({
                let request = handlers::errors::without_records(request);
                async move {
                    let response = awaited(&request, version, wait).await;
                    encode(&request, correlation_id, version, &response).map(Some)
                }
            }))),
            Answer::Unanswered(wait) => {
                Ok(Handled::Later(Box::pin(async move { caught(wait).await.map(|()| None) })))
            }
        }
    }
}

impl Dispatcher {
    /// Answers while there is no state: the phases say what can be answered then.
    fn answer_early(&self, context: &RequestContext, request: &Request) -> Response {
        if let Request::ApiVersions(body) = request {
            let known = Known::early(self.progress.node_id());
            return handlers::api_versions::handle(&known, context, body).into();
        }
        let context_of_error = format!("{} is answered before the quorum runs", request.api());
        let error = Error::kafka(ErrorCode::UnknownServerError, context_of_error);
        refused(request, context.api_version, &error)
    }
}

/// A response that cannot be encoded is a bug in ottla; the client is told so.
fn encode(
    request: &Request,
    correlation_id: i32,
    version: i16,
    response: &Response,
) -> Result<Vec<Chunk>> {
    let failed = match frame::encode_response(correlation_id, version, response) {
        Ok(chunks) => return Ok(chunks),
        Err(error) => error,
    };
    tracing::error!(api = %request.api(), version, error = %failed.chain(), "response not encoded");
    let unknown = Error::kafka(ErrorCode::UnknownServerError, "the response cannot be encoded");
    let response = handlers::errors::response(request, version, &unknown);
    frame::encode_response(correlation_id, version, &response)
}

/// The order in which the Produce requests of one client in the process begin, and their bound.
#[derive(Debug)]
struct Turns {
    /// Held by the one that is beginning its appends.
    appending: Arc<Mutex<()>>,
    /// As on a connection: only these requests hold records.
    unanswered: Arc<Semaphore>,
}

/// The turn of one Produce request.
#[derive(Debug)]
struct Turn {
    /// Until the appends have begun; waits for their end overlap, as on a connection.
    appending: OwnedMutexGuard<()>,
    /// Until it is answered.
    place: OwnedSemaphorePermit,
}

impl Default for Turns {
    fn default() -> Self {
        Self { appending: Arc::default(), unanswered: Arc::new(Semaphore::new(PIPELINE_MAX)) }
    }
}

impl Turns {
    /// A turn to append. It is asked for at once: turns come in the order of these calls, whatever is polled first.
    fn next(&self) -> BoxFuture<Result<Turn>> {
        let appending = Arc::clone(&self.appending).lock_owned();
        let place = Arc::clone(&self.unanswered).acquire_owned();
        let both = async move {
            let (appending, place) = futures::join!(appending, place);
            let place = place.map_err(|_closed| Error::Closed { what: "the broker" })?;
            Ok(Turn { appending, place })
        };
        // Not subject to the caller's budget, without which the first poll would not join the queues.
        let mut turn = Box::pin(unconstrained(both));
        match turn.as_mut().now_or_never() {
            Some(turn) => Box::pin(ready(turn)),
            None => turn,
        }
    }
}

/// The in-process entry point of one client.
#[derive(Debug)]
pub(super) struct LocalService {
    state: Arc<BrokerState>,
    stop: CancellationToken,
    turns: Turns,
}

impl LocalService {
    pub(super) fn new(state: Arc<BrokerState>, stop: CancellationToken) -> Arc<Self> {
        Arc::new(Self { state, stop, turns: Turns::default() })
    }
}

impl Service for LocalService {
    fn call(&self, client_id: &Str, version: i16, request: Request) -> ServiceFuture {
        let state = Arc::clone(&self.state);
        // Dropped with the future: a fetch whose caller gave up is removed from the purgatory.
        let gone = self.stop.child_token();
        let context =
            RequestContext { api_version: version, client_id: Some(client_id.clone()), peer: None };
        let turn = (request.api() == ApiKey::Produce).then(|| self.turns.next());
        Box::pin(async move {
            let turn = OptionFuture::from(turn).await.transpose()?;
            let (appending, _place) =
                turn.map_or((None, None), |turn| (Some(turn.appending), Some(turn.place)));
            if gone.is_cancelled() {
                return Err(Error::Closed { what: "the broker" });
            }
            check_version(request.api(), version)?;
            let call = Call { state: &state, context: &context, gone: &gone };
            let answer = BrokerState::answer(&call, &request).await;
            drop(appending);
            match answer {
                Answer::Now(response) => Ok(Some(response)),
                Answer::Later(wait) => {
                    let request = handlers::errors::without_records(request);
                    Ok(Some(awaited(&request, version, wait).await))
                }
                Answer::Unanswered(wait) => caught(wait).await.map(|()| None),
            }
        })
    }
}

fn check_version(api: ApiKey, version: i16) -> Result<()> {
    if api.is_served() && api.supports(version) {
        return Ok(());
    }
    Err(Error::unknown_version(api, version, api.versions()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
    use crate::protocol::messages::produce::{
        PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
    };

    fn produce() -> Request {
        let partition = PartitionProduceData { index: 3, ..PartitionProduceData::default() };
        let topic = TopicProduceData {
            name: Str::from_static("t"),
            partition_data: vec![partition],
            ..TopicProduceData::default()
        };
        ProduceRequest { acks: -1, topic_data: vec![topic], ..ProduceRequest::default() }.into()
    }

    #[tokio::test]
    async fn a_late_panic_is_an_answer_in_the_form_of_the_api() {
        let wait: BoxFuture<Result<Response>> =
            Box::pin(async { std::panic::resume_unwind(Box::new("on purpose")) });
        let Response::Produce(response) = awaited(&produce(), 9, wait).await else {
            panic!("not the form of Produce")
        };
        let [topic] = &*response.responses else { panic!("not one topic") };
        let [partition] = &*topic.partition_responses else { panic!("not one partition") };
        assert_eq!((topic.name.as_str(), partition.index), ("t", 3));
        let code = ErrorCode::from_i16(partition.error_code);
        assert_eq!(code, ErrorCode::UnknownServerError);
    }

    #[tokio::test]
    async fn turns_come_in_the_order_of_the_calls_and_no_more_than_a_connection_has() {
        let turns = Turns::default();
        let (first, second) = (turns.next(), turns.next());
        tokio::pin!(second);
        assert!(futures::poll!(second.as_mut()).is_pending());
        let Turn { appending, place } = first.await.unwrap();
        assert!(futures::poll!(second.as_mut()).is_pending());
        drop(appending);
        let mut places = vec![place, second.await.unwrap().place];
        while places.len() < PIPELINE_MAX {
            places.push(turns.next().await.unwrap().place);
        }
        let (next, last) = (turns.next(), turns.next());
        tokio::pin!(next, last);
        assert!(futures::poll!(last.as_mut()).is_pending());
        assert!(futures::poll!(next.as_mut()).is_pending());
        // One is answered, another is given up.
        places.truncate(PIPELINE_MAX - 2);
        assert!(futures::poll!(last.as_mut()).is_pending(), "before the one that was called first");
        drop(next.await.unwrap());
        assert!(last.await.is_ok());
    }

    #[tokio::test]
    async fn a_late_error_is_an_answer_too() {
        let error = Error::kafka(ErrorCode::NotCoordinator, "moved");
        let wait: BoxFuture<Result<Response>> = Box::pin(async { Err(error) });
        let request = HeartbeatRequest::default().into();
        let Response::Heartbeat(response) = awaited(&request, 4, wait).await else {
            panic!("not the form of Heartbeat")
        };
        assert_eq!(ErrorCode::from_i16(response.error_code), ErrorCode::NotCoordinator);
    }

    #[test]
    fn a_response_that_cannot_be_encoded_is_answered_as_an_error() {
        // Text of this version has 16 bits for its length.
        let text = "x".repeat(40_000);
        let mut response = ProduceResponse::default();
        response.responses.push(crate::protocol::messages::produce::TopicProduceResponse {
            name: text.as_str().into(),
            ..Default::default()
        });
        let chunks = encode(&produce(), 7, 8, &response.into()).unwrap();
        let bytes: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.to_vec()).collect();
        assert!(bytes.len() < 1000);
        let unknown = ErrorCode::UnknownServerError.to_i16().to_be_bytes();
        assert!(bytes.windows(2).any(|two| two == unknown));
        let fine = encode(&produce(), 7, 8, &HeartbeatResponse::default().into());
        assert!(fine.is_ok());
    }
}
