//! What the handlers of transactional requests share.

use crate::broker::coordinator::{TRANSACTIONS_TOPIC, transactions_topic};
use crate::broker::dispatch::Call;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::transaction::{Producer, TransactionReply, TransactionRequest};

use super::common;

/// How often a request is made once more with a fresh producer id: the id may have been used up by another meanwhile.
const TRIES_MAX: usize = 3;

/// How many partitions the topic of transactions has; it is created when it does not exist.
///
/// # Errors
///
/// `COORDINATOR_NOT_AVAILABLE` when it could not be created.
pub(super) async fn partition_count(call: &Call<'_>) -> Result<i32> {
    let topic = || transactions_topic(&call.state.config(), &call.state.image());
    common::partitions_of_state(call.state, TRANSACTIONS_TOPIC, topic).await
}

/// The code for a client that has not heard of PRODUCER_FENCED before a version of the API.
pub(super) fn for_client(code: ErrorCode, version: i16, since: i16) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if version < since => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// The producer that the coordinator answers with. Where it needs a producer id that nobody has, it gets one.
pub(super) async fn producer(
    state: &BrokerState,
    first: Result<TransactionReply>,
    again: impl Fn(crate::types::ProducerId) -> TransactionRequest,
) -> Result<Producer, ErrorCode> {
    let mut reply = first;
    for _ in 0..TRIES_MAX {
        match reply {
            Ok(TransactionReply::Producer(result)) => return result,
            Ok(TransactionReply::NeedsProducerId) => {}
            Ok(_) => return Err(ErrorCode::UnknownServerError),
            Err(error) => return Err(error.code()),
        }
        let Ok(fresh) = state.next_producer_id().await.inspect_err(no_id) else {
            // What Kafka answers then, and clients try again upon.
            return Err(ErrorCode::CoordinatorLoadInProgress);
        };
        reply = state.ask_transaction(again(fresh)).await;
    }
    Err(ErrorCode::CoordinatorLoadInProgress)
}

fn no_id(error: &Error) {
    tracing::warn!(error = %error.chain(), "there is no producer id for a transactional producer");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_are_told_what_they_know() {
        let fenced = ErrorCode::ProducerFenced;
        assert_eq!(for_client(fenced, 1, 2), ErrorCode::InvalidProducerEpoch);
        assert_eq!(for_client(fenced, 2, 2), fenced);
        assert_eq!(for_client(ErrorCode::InvalidTxnState, 1, 2), ErrorCode::InvalidTxnState);
    }
}
