//! UnregisterBroker: v0.
//!
//! Behaviour: forgets a broker that will not come back; it leaves every ISR. Errors:
//! BROKER_ID_NOT_REGISTERED; INVALID_REQUEST for a broker that is running; REQUEST_TIMED_OUT.

use super::common;
use crate::broker::dispatch::Call;
use crate::error::Result;
use crate::machine::controller::UnregisterBroker;
use crate::protocol::messages::unregister_broker::{
    UnregisterBrokerRequest, UnregisterBrokerResponse,
};
use crate::types::NodeId;

/// How long the controller may take; the request does not say.
const TIMEOUT_MS: i32 = 30_000;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &UnregisterBrokerRequest,
) -> Result<UnregisterBrokerResponse> {
    let command = UnregisterBroker { id: NodeId(request.broker_id) };
    let (error_code, error_message) =
        common::refusal(call.state.submit(command, TIMEOUT_MS).await?);
    Ok(UnregisterBrokerResponse { error_code, error_message, throttle_time_ms: 0 })
}
