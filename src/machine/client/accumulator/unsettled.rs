//! What an accumulator still holds: for a caller that stops waiting and has to say what it was
//! waiting for, or that ends a transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Accumulator;

impl<P> Accumulator<P> {
    /// The records that are open, queued or in flight, by topic.
    #[must_use]
    pub fn unsettled(&self) -> BTreeMap<Arc<str>, u64> {
        let mut topics: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        for (partition, queue) in &self.queues {
            let waiting = queue.open.iter().chain(&queue.sealed).map(|batch| batch.records);
            let sent = queue.in_flight.values().map(|batch| batch.records);
            let records: u64 = waiting.chain(sent).map(|one| u64::from(one.unsigned_abs())).sum();
            if records > 0 {
                let count = topics.entry(Arc::clone(&partition.topic)).or_default();
                *count = count.saturating_add(records);
            }
        }
        topics
    }

    /// Whether a batch was sent and has not been settled.
    #[must_use]
    pub fn is_in_flight(&self) -> bool {
        self.queues.values().any(|queue| !queue.in_flight.is_empty())
    }

    /// Whether numbers were used that will not reach a log.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.queues.values().any(|queue| queue.gap.is_some())
    }
}
