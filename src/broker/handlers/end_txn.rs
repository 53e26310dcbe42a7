//! EndTxn: v0-v5.
//!
//! Behaviour: commits or aborts. It is answered as soon as that is decided in the log of the coordinator; the markers
//! are written meanwhile, and until they are, whatever comes next gets CONCURRENT_TRANSACTIONS. Versions: v2
//! PRODUCER_FENCED, before it INVALID_PRODUCER_EPOCH; v5 the second version of transactions (KIP-890), with the id and
//! epoch that the producer has from then on. Errors: INVALID_REQUEST for an empty transactional id;
//! INVALID_PRODUCER_ID_MAPPING; PRODUCER_FENCED; INVALID_TXN_STATE; CONCURRENT_TRANSACTIONS; NOT_COORDINATOR,
//! COORDINATOR_NOT_AVAILABLE, COORDINATOR_LOAD_IN_PROGRESS.

use std::sync::Arc;

use super::transactions;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::words;
use crate::error::{ErrorCode, Result};
use crate::machine::transaction::{EndRequest, Producer, TransactionRequest};
use crate::protocol::messages::end_txn::{EndTxnRequest, EndTxnResponse};
use crate::types::ProducerId;

/// The first version with PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;
/// The first version that only clients of the second version of transactions use.
const SECOND_SINCE: i16 = 5;

pub(in crate::broker) async fn handle(call: &Call<'_>, request: &EndTxnRequest) -> Result<Answer> {
    if request.transactional_id.is_empty() {
        return Err(words::no_transactional_id());
    }
    let version = call.context.api_version;
    let asked = EndRequest {
        transactional_id: (&request.transactional_id).into(),
        producer: Producer { id: ProducerId(request.producer_id), epoch: request.producer_epoch },
        commits: request.committed,
        version: if version >= SECOND_SINCE { 2 } else { 0 },
        fresh: None,
    };
    let pending = call.state.send_transaction(TransactionRequest::End(asked.clone())).await?;
    let state = Arc::clone(call.state);
    Ok(Answer::Later(Box::pin(async move {
        let again =
            |fresh| TransactionRequest::End(EndRequest { fresh: Some(fresh), ..asked.clone() });
        let result = transactions::producer(&state, pending.wait().await, again).await;
        let (code, producer) = match result {
            Ok(producer) => (ErrorCode::None, producer),
            Err(code) => (transactions::for_client(code, version, FENCED_SINCE), Producer::NONE),
        };
        let response = EndTxnResponse {
            error_code: code.to_i16(),
            producer_id: producer.id.0,
            producer_epoch: producer.epoch,
            throttle_time_ms: 0,
        };
        Ok(response.into())
    })))
}
