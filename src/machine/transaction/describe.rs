//! What is shown of transactions.

use std::sync::Arc;

use regex::Regex;

use super::record::TransactionState;
use super::request::{
    DescribedTransaction, ListTransactionsRequest, ListedTransaction, TransactionReply,
};
use super::shard::{Transaction, TransactionShard};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::pattern::{self, PATTERN_BYTES_MAX};

/// An expression that whole transactional ids are compared with. Comparing takes time linear in the id.
///
/// # Errors
///
/// `INVALID_REGULAR_EXPRESSION`.
pub fn compile_pattern(text: &str) -> Result<Regex> {
    let refused = |why: &str| {
        let context = format!("the pattern {text:?} is not a regular expression: {why}");
        Error::kafka(ErrorCode::InvalidRegularExpression, context)
    };
    if text.len() > PATTERN_BYTES_MAX {
        return Err(refused(&format!("it has more than {PATTERN_BYTES_MAX} bytes")));
    }
    pattern::compile_whole(text).map_err(|error| refused(&error.to_string()))
}

/// Takes a DescribeTransactions.
pub(super) fn describe(shard: &TransactionShard, ids: Vec<Arc<str>>) -> TransactionReply {
    let describe = |id: Arc<str>| {
        let found = match shard.transactions.get(&id) {
            _ if id.is_empty() => Err(ErrorCode::InvalidRequest),
            None => Err(ErrorCode::TransactionalIdNotFound),
            Some(transaction) => Ok(described(transaction)),
        };
        (id, found)
    };
    TransactionReply::Described(ids.into_iter().map(describe).collect())
}

fn described(Transaction { value, unmarked, .. }: &Transaction) -> DescribedTransaction {
    let partitions = match value.state {
        TransactionState::Ongoing => (*value.partitions).clone(),
        _ => unmarked.clone(),
    };
    DescribedTransaction {
        producer: value.producer(),
        timeout_ms: value.timeout_ms,
        state: value.state,
        start: value.start,
        partitions,
    }
}

/// Takes a ListTransactions.
pub(super) fn list(
    shard: &TransactionShard,
    request: &ListTransactionsRequest,
) -> TransactionReply {
    let ListTransactionsRequest { states, producer_ids, duration_ms, pattern } = request;
    let fits = |(id, transaction): &(&Arc<str>, &Transaction)| {
        let value = &transaction.value;
        let age_ms = shard.now.0.saturating_sub(value.start.0);
        (producer_ids.is_empty() || producer_ids.contains(&value.producer_id))
            && (states.is_empty() || states.iter().any(|name| **name == *value.state.name()))
            && (*duration_ms < 0 || age_ms > *duration_ms)
            && pattern.as_ref().is_none_or(|pattern| pattern.is_match(id))
    };
    let listed = |(id, transaction): (&Arc<str>, &Transaction)| ListedTransaction {
        transactional_id: Arc::clone(id),
        producer_id: transaction.value.producer_id,
        state: transaction.value.state,
    };
    TransactionReply::Listed(shard.transactions.iter().filter(fits).map(listed).collect())
}
