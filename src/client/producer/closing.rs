//! The end of a producer: what was not acknowledged is told, by topic and number.
//!
//! A record whose delivery nobody kept fails unheard. Such failures are counted, and those of all
//! records while the producer closes, so that closing says what was lost. How long it waits is
//! bounded by the caller and by `delivery.timeout.ms`; it does not wait for a broker in this process
//! that was closed, since that never comes back.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::{Promise, Reason};
use super::{Inner, Payload, Producer};
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;

/// So many topics are named.
const TOPICS_SHOWN: usize = 10;

/// Records that failed, and that nobody was told of.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// While the producer closes all failures count.
    is_closing: bool,
    records: BTreeMap<Arc<str>, u64>,
    /// Why the first of them failed.
    reason: Option<Reason>,
}

impl Lost {
    /// Counts a batch that failed, if nobody else hears of it.
    pub(super) fn note(&mut self, promise: &Promise, reason: &Reason) {
        if !self.is_closing && promise.is_awaited() {
            return;
        }
        let count = self.records.entry(Arc::clone(promise.topic())).or_default();
        *count = count.saturating_add(u64::from(promise.records().unsigned_abs()));
        self.reason.get_or_insert_with(|| reason.clone());
    }
}

impl Producer {
    /// Refuses new records, and waits until all are acknowledged or have failed: for at most
    /// `timeout`, and never longer than `delivery.timeout.ms`. Where the caller knows that the
    /// broker is `gone`, and how, it waits for nothing.
    ///
    /// # Errors
    ///
    /// Records were not acknowledged: now, or before without anybody being told.
    pub async fn drain(&self, timeout: Duration, gone: Option<&str>) -> Result<()> {
        {
            let mut state = self.inner.state();
            state.closed = true;
            state.lost.is_closing = true;
        }
        if let Some(why) = gone {
            self.inner.abandon_broker(why);
        }
        let longest = self.inner.config.delivery_timeout;
        let timeout = if gone.is_some() { Duration::ZERO } else { timeout.min(longest) };
        let in_time = tokio::time::timeout(timeout, self.flush()).await.is_ok();
        let (unsettled, lost, trouble) = {
            let mut state = self.inner.state();
            let unsettled = if in_time { BTreeMap::new() } else { state.accumulator.unsettled() };
            let lost = Lost { is_closing: true, ..Lost::default() };
            (unsettled, std::mem::replace(&mut state.lost, lost), state.trouble.clone())
        };
        let mut topics = lost.records;
        for (topic, count) in unsettled {
            let known = topics.entry(topic).or_default();
            *known = known.saturating_add(count);
        }
        if topics.is_empty() {
            return Ok(());
        }
        let mut what = described(&topics);
        Err(match (lost.reason, gone) {
            (Some(reason), _) => reason.within(&what),
            (None, Some(why)) => {
                Error::kafka(ErrorCode::NetworkException, format!("{what}: {why}"))
            }
            (None, None) => {
                if let Some(trouble) = trouble {
                    what.push_str(": ");
                    what.push_str(&trouble);
                }
                let after_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                Error::Timeout { what, after_ms }
            }
        })
    }
}

impl Inner {
    /// The end of a batch that failed. Who waits for progress is woken by the caller, when all
    /// failures of one moment are counted.
    pub(super) fn give_up(&self, payload: Payload, reason: Reason) {
        self.state().lost.note(&payload.promise, &reason);
        self.memory.add_permits(payload.charged);
        payload.promise.fail(reason);
    }

    /// Gives up all that waits.
    pub(super) fn abandon(&self, reason_of: impl Fn(&TopicPartition) -> Reason) {
        let failed: Vec<(Payload, Reason)> = {
            let mut state = self.state();
            let waiting = state.accumulator.abandon(|_| true).into_iter();
            let failed = waiting.map(|(partition, payload)| (payload, reason_of(&partition)));
            let failed: Vec<_> = failed.collect();
            for (payload, reason) in &failed {
                state.lost.note(&payload.promise, reason);
            }
            failed
        };
        for (payload, reason) in failed {
            self.memory.add_permits(payload.charged);
            payload.promise.fail(reason);
        }
        self.progress.notify_waiters();
    }

    /// Gives up all that waits for a broker that does not come back.
    pub(super) fn abandon_broker(&self, why: &str) {
        self.abandon(|partition| {
            let context = format!("producing to {partition}: {why}");
            Reason::Kafka(ErrorCode::NetworkException, context)
        });
    }
}

/// Which records were not acknowledged.
fn described(topics: &BTreeMap<Arc<str>, u64>) -> String {
    let total: u64 = topics.values().sum();
    let (noun, verb) = if total == 1 { ("record", "was") } else { ("records", "were") };
    let mut text = format!("{total} {noun} {verb} not acknowledged (");
    for (index, (topic, count)) in topics.iter().take(TOPICS_SHOWN).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a text does not fail.
        write!(text, "{comma}topic {topic:?}: {count}").ok();
    }
    if topics.len() > TOPICS_SHOWN {
        write!(text, ", and {} topics more", topics.len().saturating_sub(TOPICS_SHOWN)).ok();
    }
    text.push(')');
    text
}
