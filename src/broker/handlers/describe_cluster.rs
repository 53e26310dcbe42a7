//! DescribeCluster: v0-v2.
//!
//! Behaviour: the brokers that are alive, with the addresses that this client can use, the cluster id
//! and the controller (this broker: every broker forwards what is for the controller).
//! Versions: v1 endpoint type (KIP-919); v2 fenced brokers when asked for (KIP-1073).
//! Who asks for the controllers at a listener of controllers is told the voters of the metadata quorum, and who leads it.
//! Errors: MISMATCHED_ENDPOINT_TYPE for the controllers at any other listener; UNSUPPORTED_ENDPOINT_TYPE for an
//! endpoint that does not exist.

use super::common::{self, CLUSTER_OPERATIONS};
use crate::broker::dispatch::Call;
use crate::error::ErrorCode;
use crate::machine::metadata::Endpoint;
use crate::protocol::Str;
use crate::protocol::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use crate::types::NodeId;

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub(in crate::broker) fn handle(
    call: &Call<'_>,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let reached = call.context.reached().map(|reached| reached.listener.name());
    let at_controllers =
        reached.is_some_and(|listener| call.state.config().is_of_controllers(listener));
    let refused = match request.endpoint_type {
        BROKERS => None,
        CONTROLLERS if at_controllers => {
            return controllers(call, request, reached.unwrap_or_default());
        }
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

/// The voters of the metadata quorum, by the listener that was reached or, where they have none of that name, by their first.
fn controllers(
    call: &Call<'_>,
    request: &DescribeClusterRequest,
    listener: &str,
) -> DescribeClusterResponse {
    let status = call.state.quorum();
    let broker = |(id, endpoints): &(NodeId, Vec<Endpoint>)| {
        let named = endpoints.iter().find(|endpoint| *endpoint.listener == *listener);
        let endpoint = named.or(endpoints.first())?;
        Some(DescribeClusterBroker {
            broker_id: id.0,
            host: Str::from(&endpoint.host),
            port: i32::from(endpoint.port),
            ..DescribeClusterBroker::default()
        })
    };
    DescribeClusterResponse {
        endpoint_type: request.endpoint_type,
        cluster_id: call.state.cluster_id().unwrap_or_default().into(),
        controller_id: status.leader.0,
        brokers: status.endpoints.iter().filter_map(broker).collect(),
        ..DescribeClusterResponse::default()
    }
}
