//! FindCoordinator: v0-v6.
//!
//! Behaviour: there are no groups and no transactions yet. A group's coordinator is "not available",
//! which a client may ask for again; a transaction's is refused for good, so that a transactional
//! producer fails at once instead of waiting for its time-out.
//! Versions: v1 key type and message; v4 many keys at once (KIP-699).
//! Errors: COORDINATOR_NOT_AVAILABLE for groups and share groups; UNSUPPORTED_VERSION for
//! transactions; INVALID_REQUEST for a key type that does not exist.

use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::protocol::Str;
use crate::protocol::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};

const NO_NODE: i32 = -1;

fn answer(key_type: i8) -> (ErrorCode, &'static str) {
    match key_type {
        0 | 2 => (ErrorCode::CoordinatorNotAvailable, "this broker has no group coordinator yet"),
        1 => (ErrorCode::UnsupportedVersion, "this broker has no transactions yet"),
        _ => (ErrorCode::InvalidRequest, "the key type is not known"),
    }
}

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let (code, message) = answer(request.key_type);
    if call.context.api_version < 4 {
        return FindCoordinatorResponse {
            error_code: code.to_i16(),
            error_message: Some(Str::from_static(message)),
            node_id: NO_NODE,
            port: -1,
            ..FindCoordinatorResponse::default()
        };
    }
    let coordinator = |key: &Str| Coordinator {
        key: key.clone(),
        node_id: NO_NODE,
        port: -1,
        error_code: code.to_i16(),
        error_message: Some(Str::from_static(message)),
        ..Coordinator::default()
    };
    let coordinators = request.coordinator_keys.iter().map(coordinator).collect();
    FindCoordinatorResponse { coordinators, ..FindCoordinatorResponse::default() }
}
