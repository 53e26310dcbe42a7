//! DescribeCluster: v0-v2.
//!
//! Behaviour: the brokers that are alive, with the addresses that this client can use, the cluster id
//! and the controller (this broker: every broker forwards what is for the controller).
//! Versions: v1 endpoint type (KIP-919); v2 fenced brokers when asked for (KIP-1073).
//! Errors: MISMATCHED_ENDPOINT_TYPE for the controllers' endpoint, which ottla does not have;
//! UNSUPPORTED_ENDPOINT_TYPE for one that does not exist.

use super::common::{self, CLUSTER_OPERATIONS};
use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS => Some((
            ErrorCode::MismatchedEndpointType,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of \
             type CONTROLLER",
        )),
        _ => Some((ErrorCode::UnsupportedEndpointType, "Unsupported endpoint type")),
    };
    if let Some((code, message)) = refused {
        return DescribeClusterResponse {
            error_code: code.to_i16(),
            error_message: Some(message.into()),
            ..DescribeClusterResponse::default()
        };
    }
    let listed = |node: &common::BrokerNode| !node.fenced || request.include_fenced_brokers;
    DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: call.state.cluster_id().unwrap_or_default().into(),
        controller_id: call.state.node_id().0,
        brokers: common::all_brokers(call.state, call.context.reached())
            .into_iter()
            .filter(listed)
            .map(|node| DescribeClusterBroker {
                broker_id: node.id.0,
                host: node.host,
                port: node.port,
                rack: node.rack,
                is_fenced: node.fenced,
            })
            .collect(),
        cluster_authorized_operations: if request.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..DescribeClusterResponse::default()
    }
}
