//! Deadlines: transactions that last too long, ids that nobody uses, markers to be written once more.
//!
//! As in Kafka, both are looked for from time to time rather than at the moment: the settings say how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::shard::TransactionShard;
use crate::types::TimestampMs;

/// The deadlines of a shard.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// When each ongoing transaction has lasted too long.
    timeouts: Deadlines,
    /// When markers are tried once more.
    retries: Deadlines,
    /// When to look for transactions that have lasted too long, while there are any.
    abort: Option<TimestampMs>,
    /// When to look for ids that nobody uses, while there are any.
    expiry: Option<TimestampMs>,
}

/// One deadline each, in order.
#[derive(Debug, Default)]
struct Deadlines {
    of: BTreeMap<Arc<str>, TimestampMs>,
    order: BTreeSet<(TimestampMs, Arc<str>)>,
}

impl Deadlines {
    fn set(&mut self, id: &Arc<str>, at: TimestampMs) {
        self.remove(id);
        self.of.insert(Arc::clone(id), at);
        self.order.insert((at, Arc::clone(id)));
    }

    fn remove(&mut self, id: &Arc<str>) {
        if let Some(at) = self.of.remove(id) {
            self.order.remove(&(at, Arc::clone(id)));
        }
    }

    fn next(&self) -> Option<TimestampMs> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Takes those whose deadline is before `end`.
    fn take_before(&mut self, end: TimestampMs) -> Vec<Arc<str>> {
        let mut taken = Vec::new();
        while self.next().is_some_and(|at| at < end) {
            if let Some((_, id)) = self.order.pop_first() {
                self.of.remove(&id);
                taken.push(id);
            }
        }
        taken
    }

    fn shift(&mut self, by_ms: i64) {
        for at in self.of.values_mut() {
            *at = at.plus(by_ms);
        }
        self.order = self.of.iter().map(|(id, at)| (*at, Arc::clone(id))).collect();
    }
}

impl Timers {
    /// The transaction is over.
    pub(super) fn ended(&mut self, id: &Arc<str>) {
        self.timeouts.remove(id);
    }

    /// The id is gone.
    pub(super) fn forget(&mut self, id: &Arc<str>) {
        self.timeouts.remove(id);
        self.retries.remove(id);
    }

    /// Has markers tried once more.
    pub(super) fn retry(&mut self, id: &Arc<str>, at: TimestampMs) {
        self.retries.set(id, at);
    }

    /// Moves every deadline along with a clock that was set.
    pub(super) fn shift(&mut self, by_ms: i64) {
        self.timeouts.shift(by_ms);
        self.retries.shift(by_ms);
        for at in [&mut self.abort, &mut self.expiry].into_iter().flatten() {
            *at = at.plus(by_ms);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<TimestampMs> {
        [self.retries.next(), self.abort, self.expiry].into_iter().flatten().min()
    }
}

impl TransactionShard {
    /// The transaction times out at this moment.
    pub(super) fn arm_timeout(&mut self, id: &Arc<str>, at: TimestampMs) {
        self.timers.timeouts.set(id, at);
        if self.timers.abort.is_none() {
            self.timers.abort = Some(self.now.plus(self.config.abort_interval_ms));
        }
    }

    /// There are ids that can expire.
    pub(super) fn arm_expiry(&mut self) {
        if self.timers.expiry.is_none() {
            self.timers.expiry = Some(self.now.plus(self.config.expiration_interval_ms));
        }
    }

    /// Deadlines have passed.
    pub(super) fn tick(&mut self) {
        let now = self.now;
        for id in self.timers.retries.take_before(now.plus(1)) {
            self.retry_markers(&id);
        }
        if self.timers.abort.is_some_and(|at| at <= now) {
            for id in self.timers.timeouts.take_before(now) {
                self.time_out(&id);
            }
            let is_needed = self.timers.timeouts.next().is_some();
            let next = now.plus(self.config.abort_interval_ms);
            self.timers.abort = is_needed.then_some(next);
        }
        if self.timers.expiry.is_some_and(|at| at <= now) {
            self.expire();
            let next = now.plus(self.config.expiration_interval_ms);
            self.timers.expiry = (!self.transactions.is_empty()).then_some(next);
        }
    }

    /// Forgets the ids that nobody has used for long. Each is an append of its own, so that they are cut into batches
    /// where these get too large.
    fn expire(&mut self) {
        let before = self.now.plus(-self.config.expiration_ms);
        let is_unused = |id: &Arc<str>| {
            self.value(id).is_some_and(|value| value.state.is_idle() && value.last_update <= before)
        };
        let unused: Vec<Arc<str>> =
            self.transactions.keys().filter(|id| is_unused(id)).map(Arc::clone).collect();
        for id in unused {
            let tombstone = self.record(&id, None);
            self.commit(vec![tombstone], None);
        }
    }
}
