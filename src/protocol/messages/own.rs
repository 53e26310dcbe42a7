//! What ottla's nodes add to what Kafka's brokers and controllers say, to each other and to clients.
//!
//! It is in tagged fields from [`OWN_TAGS`](crate::protocol::schema::OWN_TAGS) on, which nobody else reads: the rest of
//! a frame is Kafka's.

use crate::protocol::primitives::Str;

message! {
    /// What came of a command to the controller.
    struct Outcome {
        offset: i64 = -1, "Offset" [0+];
        message: Option<Str>, "Message" [0+] nullable [0+];
    }

    /// What the leader of a partition knows of its tier; numbers that it does not know are -1.
    struct TierState {
        files: i64 = -1, "Files" [0+];
        file_bytes: i64 = -1, "FileBytes" [0+];
        log_bytes: i64 = -1, "LogBytes" [0+];
        pending_offset: i64 = -1, "PendingOffset" [0+];
        pending_bytes: i64 = -1, "PendingBytes" [0+];
        wanted_offset: i64 = -1, "WantedOffset" [0+];
        failure: Option<Str>, "Failure" [0+] nullable [0+];
    }
}
