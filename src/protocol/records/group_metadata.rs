//! A generation of a group of the classic protocol, with its members and their assignments.

use bytes::Bytes;

use crate::protocol::primitives::Str;

message! {
    /// The key of record type 2.
    struct GroupMetadataKey versions [0] flexible [none] {
        group: Str, "group" [0];
    }

    /// The value of record type 2.
    struct GroupMetadataValue versions [0-4] flexible [4+] {
        protocol_type: Str, "protocolType" [0+];
        generation: i32, "generation" [0+];
        protocol: Option<Str> = Some(Str::EMPTY), "protocol" [0+] nullable [0+];
        leader: Option<Str> = Some(Str::EMPTY), "leader" [0+] nullable [0+];
        current_state_timestamp: i64 = -1, "currentStateTimestamp" [2+], ignorable;
        members: Vec<MemberMetadata>, "members" [0+];
    }

    /// An element of [`GroupMetadataValue::members`].
    struct MemberMetadata {
        member_id: Str, "memberId" [0+];
        group_instance_id: Option<Str>, "groupInstanceId" [3+] nullable [3+], ignorable;
        client_id: Str, "clientId" [0+];
        client_host: Str, "clientHost" [0+];
        rebalance_timeout: i32 = -1, "rebalanceTimeout" [1+], ignorable;
        session_timeout: i32, "sessionTimeout" [0+];
        subscription: Bytes, "subscription" [0+];
        assignment: Bytes, "assignment" [0+];
    }
}
