//! DescribeCluster (API key 60).

use crate::protocol::primitives::Str;

message! {
    /// The body of the DescribeCluster request.
    struct DescribeClusterRequest versions [0-2] flexible [0+] {
        include_cluster_authorized_operations: bool, "IncludeClusterAuthorizedOperations" [0+];
        endpoint_type: i8 = 1, "EndpointType" [1+];
        include_fenced_brokers: bool, "IncludeFencedBrokers" [2+];
    }

    /// The body of the DescribeCluster response.
    struct DescribeClusterResponse versions [0-2] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [0+] nullable [0+];
        endpoint_type: i8 = 1, "EndpointType" [1+];
        cluster_id: Str, "ClusterId" [0+];
        controller_id: i32 = -1, "ControllerId" [0+];
        brokers: Vec<DescribeClusterBroker>, "Brokers" [0+];
        cluster_authorized_operations: i32 = i32::MIN, "ClusterAuthorizedOperations" [0+];
    }

    /// An element of [`DescribeClusterResponse::brokers`].
    struct DescribeClusterBroker {
        broker_id: i32, "BrokerId" [0+];
        host: Str, "Host" [0+];
        port: i32, "Port" [0+];
        rack: Option<Str>, "Rack" [0+] nullable [0+];
        is_fenced: bool, "IsFenced" [2+];
    }
}
