//! ListTransactions (API key 66).

use crate::protocol::primitives::Str;

message! {
    /// The body of the ListTransactions request.
    struct ListTransactionsRequest versions [0-2] flexible [0+] {
        state_filters: Vec<Str>, "StateFilters" [0+];
        producer_id_filters: Vec<i64>, "ProducerIdFilters" [0+];
        duration_filter: i64 = -1, "DurationFilter" [1+];
        transactional_id_pattern: Option<Str>, "TransactionalIdPattern" [2+] nullable [2+];
    }

    /// The body of the ListTransactions response.
    struct ListTransactionsResponse versions [0-2] flexible [0+] {
        throttle_time_ms: i32, "ThrottleTimeMs" [0+];
        error_code: i16, "ErrorCode" [0+];
        unknown_state_filters: Vec<Str>, "UnknownStateFilters" [0+];
        transaction_states: Vec<TransactionState>, "TransactionStates" [0+];
    }

    /// An element of [`ListTransactionsResponse::transaction_states`].
    struct TransactionState {
        transactional_id: Str, "TransactionalId" [0+];
        producer_id: i64, "ProducerId" [0+];
        transaction_state: Str, "TransactionState" [0+];
    }
}
