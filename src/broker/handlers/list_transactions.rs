//! ListTransactions: v0-v2.
//!
//! Behaviour: the transactional ids that are coordinated here, by id, and how they stand. Filters: names of states, of
//! which those that Kafka does not know are returned; producer ids; v1 how long the transaction has lasted at least; v2 a
//! regular expression for the whole id. Errors: INVALID_REGULAR_EXPRESSION; COORDINATOR_NOT_AVAILABLE,
//! COORDINATOR_LOAD_IN_PROGRESS.

use std::sync::Arc;

use crate::broker::dispatch::{Answer, Call};
use crate::broker::state::BrokerState;
use crate::error::{ErrorCode, Result};
use crate::machine::transaction as machine;
use crate::machine::transaction::{TransactionReply, TransactionRequest};
use crate::protocol::Str;
use crate::protocol::messages::list_transactions::{
    ListTransactionsRequest, ListTransactionsResponse, TransactionState,
};
use crate::types::ProducerId;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &ListTransactionsRequest,
) -> Result<Answer> {
    let pattern = request.transactional_id_pattern.as_deref().filter(|pattern| !pattern.is_empty());
    let pattern = pattern.map(machine::compile_pattern).transpose()?;
    let wanted = machine::ListTransactionsRequest {
        states: request.state_filters.iter().map(Arc::from).collect(),
        producer_ids: request.producer_id_filters.iter().copied().map(ProducerId).collect(),
        duration_ms: request.duration_filter,
        pattern,
    };
    let is_unknown = |name: &&Str| !machine::TransactionState::is_name(name);
    let unknown_state_filters: Vec<Str> =
        request.state_filters.iter().filter(is_unknown).cloned().collect();
    let state = Arc::clone(call.state);
    Ok(Answer::Later(Box::pin(async move {
        let (error_code, mut transaction_states) = match list(&state, wanted).await {
            Ok(states) => (0, states),
            Err(code) => (code.to_i16(), Vec::new()),
        };
        transaction_states
            .sort_by(|one, other| one.transactional_id.as_str().cmp(&other.transactional_id));
        let response = ListTransactionsResponse {
            error_code,
            unknown_state_filters,
            transaction_states,
            throttle_time_ms: 0,
        };
        Ok(response.into())
    })))
}

async fn list(
    state: &BrokerState,
    wanted: machine::ListTransactionsRequest,
) -> Result<Vec<TransactionState>, ErrorCode> {
    let coordinators = state.transactions();
    let mut pending = Vec::new();
    for partition in coordinators.led() {
        match coordinators.send(partition, TransactionRequest::List(wanted.clone())).await {
            Ok(sent) => pending.push(sent),
            // Its transactional ids now belong to another broker.
            Err(error) if error.code() == ErrorCode::NotCoordinator => {}
            Err(error) => return Err(error.code()),
        }
    }
    let mut states = Vec::new();
    for sent in pending {
        match sent.wait().await {
            Ok(TransactionReply::Listed(listed)) => {
                states.extend(listed.into_iter().map(|one| TransactionState {
                    transactional_id: one.transactional_id.into(),
                    producer_id: one.producer_id.0,
                    transaction_state: Str::from_static(one.state.name()),
                }));
            }
            Ok(_) => return Err(ErrorCode::UnknownServerError),
            Err(error) if error.code() == ErrorCode::NotCoordinator => {}
            Err(error) => return Err(error.code()),
        }
    }
    Ok(states)
}
