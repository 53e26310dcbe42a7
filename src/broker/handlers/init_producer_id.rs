//! InitProducerId: v0-v5.
//!
//! Behaviour: a unique id for every idempotent producer, with epoch 0. Ids come from blocks that the
//! controller allocates, so that no two brokers give out the same. Versions: v3 the id and epoch that
//! a producer had (it gets a new id all the same, as in Kafka without a transactional id); v4
//! PRODUCER_FENCED; v5 transactions v2. v6 is not stable in Kafka 4.4. Errors: INVALID_REQUEST for an
//! id without an epoch or an epoch without an id, and for an empty transactional id;
//! UNSUPPORTED_VERSION for a transactional id: there are no transactions yet, and clients treat
//! this code as fatal.

use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &InitProducerIdRequest,
) -> Result<InitProducerIdResponse> {
    match request.transactional_id.as_deref() {
        None => {}
        Some("") => {
            let context = "the transactional id is empty";
            return Err(Error::kafka(ErrorCode::InvalidRequest, context));
        }
        Some(id) => {
            let context =
                format!("transactional id {id:?}: this broker does not support transactions yet");
            return Err(Error::kafka(ErrorCode::UnsupportedVersion, context));
        }
    }
    if (request.producer_id == -1) != (request.producer_epoch == -1) {
        let context = "a producer id and its epoch must be given together";
        return Err(Error::kafka(ErrorCode::InvalidRequest, context));
    }
    let id = call.state.next_producer_id().await?;
    Ok(InitProducerIdResponse {
        producer_id: id.0,
        producer_epoch: 0,
        ..InitProducerIdResponse::default()
    })
}
