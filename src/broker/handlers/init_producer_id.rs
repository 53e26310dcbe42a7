//! InitProducerId: v0-v5.
//!
//! Behaviour: without a transactional id, a unique id for an idempotent producer, with epoch 0. With one, the coordinator
//! gives the id that belongs to it and the next epoch, so that whoever had the epoch before is fenced; a transaction that
//! is open is aborted first, and the client asks again until that is done. Producer ids come from blocks that the
//! controller allocates, so that no two brokers give out the same. Versions: v3 the id and epoch that a producer had
//! (KIP-360); v4 PRODUCER_FENCED, before it INVALID_PRODUCER_EPOCH; v5 transactions v2. v6 is not stable in Kafka 4.4.
//! Errors: INVALID_REQUEST for an id without an epoch or an epoch without an id, and for an empty transactional id;
//! INVALID_TRANSACTION_TIMEOUT; CONCURRENT_TRANSACTIONS; PRODUCER_FENCED; NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE,
//! COORDINATOR_LOAD_IN_PROGRESS.

use std::sync::Arc;

use super::transactions;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::transaction::{InitRequest, Producer, TransactionRequest};
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use crate::types::ProducerId;

/// The first version with PRODUCER_FENCED.
const FENCED_SINCE: i16 = 4;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &InitProducerIdRequest,
) -> Result<Answer> {
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        let context = "a producer id and its epoch must be given together";
        return Err(Error::kafka(ErrorCode::InvalidRequest, context));
    }
    match request.transactional_id.as_deref() {
        None => {
            let id = call.state.next_producer_id().await?;
            Ok(answer(Ok(Producer { id, epoch: 0 })).into())
        }
        Some("") => Err(words::no_transactional_id()),
        Some(id) => transactional(call, id, request).await,
    }
}

async fn transactional(
    call: &Call<'_>,
    id: &str,
    request: &InitProducerIdRequest,
) -> Result<Answer> {
    let expected = Producer { id: ProducerId(request.producer_id), epoch: request.producer_epoch };
    let asked = InitRequest {
        transactional_id: id.into(),
        timeout_ms: request.transaction_timeout_ms,
        expected: (expected != Producer::NONE).then_some(expected),
        fresh: None,
    };
    let pending = call.state.send_transaction(TransactionRequest::Init(asked.clone())).await?;
    let (state, version) = (Arc::clone(call.state), call.context.api_version);
    Ok(Answer::Later(Box::pin(async move {
        let again =
            |fresh| TransactionRequest::Init(InitRequest { fresh: Some(fresh), ..asked.clone() });
        let result = transactions::producer(&state, pending.wait().await, again).await;
        let result = result.map_err(|code| transactions::for_client(code, version, FENCED_SINCE));
        Ok(answer(result).into())
    })))
}

fn answer(result: Result<Producer, ErrorCode>) -> InitProducerIdResponse {
    let (error_code, producer) = match result {
        Ok(producer) => (0, producer),
        Err(code) => (code.to_i16(), Producer::NONE),
    };
    InitProducerIdResponse {
        error_code,
        producer_id: producer.id.0,
        producer_epoch: producer.epoch,
        ..InitProducerIdResponse::default()
    }
}
