//! DeleteTopics (API key 20).

use crate::protocol::primitives::Str;
use crate::types::Uuid;

message! {
    /// The body of the DeleteTopics request.
    struct DeleteTopicsRequest versions [1-6] flexible [4+] {
        topics: Vec<DeleteTopicState>, "Topics" [6+];
        topic_names: Vec<Str>, "TopicNames" [0-5], ignorable;
        timeout_ms: i32, "TimeoutMs" [0+];
    }

    /// An element of [`DeleteTopicsRequest::topics`].
    struct DeleteTopicState {
        name: Option<Str>, "Name" [6+] nullable [6+];
        topic_id: Uuid, "TopicId" [6+];
    }

    /// The body of the DeleteTopics response.
    struct DeleteTopicsResponse versions [1-6] flexible [4+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [1+], ignorable;
        responses: Vec<DeletableTopicResult>, "Responses" [0+];
    }

    /// An element of [`DeleteTopicsResponse::responses`].
    struct DeletableTopicResult {
        name: Option<Str> = Some(Str::EMPTY), "Name" [0+] nullable [6+];
        topic_id: Uuid, "TopicId" [6+], ignorable;
        error_code: i16, "ErrorCode" [0+];
        error_message: Option<Str>, "ErrorMessage" [5+] nullable [5+], ignorable;
    }
}
