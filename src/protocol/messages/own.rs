//! What ottla's nodes add to what Kafka's brokers and controllers say to each other.
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
}
