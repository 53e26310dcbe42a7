//! BrokerRegistration (API key 62).

use super::own::Outcome;
use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the BrokerRegistration request.
    struct BrokerRegistrationRequest versions [0-4] flexible [0+] {
        broker_id: i32, "BrokerId" [0+];
        cluster_id: Str, "ClusterId" [0+];
        incarnation_id: Uuid, "IncarnationId" [0+];
        listeners: Vec<Listener>, "Listeners" [0+];
        features: Vec<Feature>, "Features" [0+];
        rack: Option<Str> = Some(Str::EMPTY), "Rack" [0+] nullable [0+];
        is_migrating_zk_broker: bool = false, "IsMigratingZkBroker" [1+];
        log_dirs: Vec<Uuid>, "LogDirs" [2+], ignorable;
        previous_broker_epoch: i64 = -1, "PreviousBrokerEpoch" [3+], ignorable;
        ottla: OttlaRegistration, "Ottla" [0+] tag 10000 [0+];
    }

    /// An element of [`BrokerRegistrationRequest::listeners`].
    struct Listener {
        name: Str, "Name" [0+];
        host: Str, "Host" [0+];
        port: u16, "Port" [0+];
        security_protocol: i16, "SecurityProtocol" [0+];
    }

    /// An element of [`BrokerRegistrationRequest::features`].
    struct Feature {
        name: Str, "Name" [0+];
        min_supported_version: i16, "MinSupportedVersion" [0+];
        max_supported_version: i16, "MaxSupportedVersion" [0+];
    }

    /// The value of [`BrokerRegistrationRequest::ottla`].
    struct OttlaRegistration {
        command_version: i16, "CommandVersion" [0+];
        is_first: bool, "IsFirst" [0+];
        is_ready: bool, "IsReady" [0+];
        left_all: bool, "LeftAll" [0+];
        durability: Option<Str>, "Durability" [0+] nullable [0+];
    }

    /// The body of the BrokerRegistration response.
    struct BrokerRegistrationResponse versions [0-4] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        broker_epoch: i64 = -1, "BrokerEpoch" [0+];
        ottla: Outcome, "Ottla" [0+] tag 10000 [0+];
    }
}
