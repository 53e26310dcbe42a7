//! Closing a producer: reports what was not acknowledged, by topic and number.
//!
//! A record whose delivery nobody kept fails unnoticed. Such failures are counted, and while the
//! producer closes those of all records, so that closing reports what was lost. The wait is limited
//! by the caller and by `delivery.timeout.ms`; it does not wait for a closed broker in this process,
//! since that never comes back.
//!
//! - **CLO-1** A failed batch is counted under the lock that removes it from the accumulator, so
//!   closing finds it in one of the two.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::delivery::Promise;
use super::trouble::Troubles;
use super::{Inner, Payload, Producer};
use crate::client::cluster::Cluster;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::accumulator::Verdict;
use crate::types::TopicPartition;

/// How many topics are named.
const TOPICS_SHOWN: usize = 10;

/// Records that failed without anybody being told.
#[derive(Debug, Default)]
pub(super) struct Lost {
    /// While the producer closes, all failures count.
    is_closing: bool,
    records: BTreeMap<Arc<str>, u64>,
    /// Why the first of them failed.
    reason: Option<Error>,
}

impl Lost {
    /// Counts the records of a failed batch that nobody else is told about (CLO-1).
    pub(super) fn note(&mut self, promise: &Promise, reason: &Error) {
        let records = if self.is_closing { promise.records() } else { promise.unheard() };
        if records == 0 {
            return;
        }
        let count = self.records.entry(Arc::clone(promise.topic())).or_default();
        *count = count.saturating_add(records);
        self.reason.get_or_insert_with(|| reason.clone());
    }
}

/// Records that were not acknowledged when their producers closed.
#[derive(Debug, Default)]
#[must_use = "somebody has to be told"]
pub struct Unacknowledged {
    records: BTreeMap<Arc<str>, u64>,
    /// Why the first of them failed; present if there are any.
    reason: Option<Error>,
}

impl Unacknowledged {
    /// The records of both.
    pub fn and(mut self, other: Self) -> Self {
        self.add(other.records);
        self.reason = self.reason.or(other.reason);
        self
    }

    /// One error for all of them.
    ///
    /// # Errors
    ///
    /// When there are any; the error has their topics and number.
    pub fn into_result(self) -> Result<()> {
        let Some(reason) = self.reason else { return Ok(()) };
        Err(within(reason, &described(&self.records)))
    }

    fn add(&mut self, records: BTreeMap<Arc<str>, u64>) {
        for (topic, count) in records {
            let known = self.records.entry(topic).or_default();
            *known = known.saturating_add(count);
        }
    }
}

impl Producer {
    /// Refuses new records, and waits until all are acknowledged or have failed: for at most
    /// `timeout`, and never longer than `delivery.timeout.ms`. If the caller knows that the broker
    /// is `gone`, and why, it does not wait. The result is what was not acknowledged, now or
    /// earlier without anybody being told.
    pub async fn drain(&self, timeout: Duration, gone: Option<&str>) -> Unacknowledged {
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
        let mut state = self.inner.state();
        // Even within the timeout, since a sender that has ended leaves them behind.
        let unsettled = state.accumulator.unsettled();
        let lost = Lost { is_closing: true, ..Lost::default() };
        let lost = std::mem::replace(&mut state.lost, lost);
        let why = || match gone {
            Some(why) => Error::told(ErrorCode::NetworkException, why),
            None if in_time => {
                Error::kafka(ErrorCode::UnknownServerError, "the task that sends them has ended")
            }
            None => {
                let mut waiting = state.accumulator.waiting_partitions();
                let trouble = waiting.find_map(|one| self.inner.trouble(&state.troubles, one));
                let trouble = trouble.or_else(|| self.inner.cluster.obstacle());
                let what = if trouble.is_some() { "" } else { "no answer" };
                Error::timeout(what, timeout).because(trouble)
            }
        };
        let reason = lost.reason.or_else(|| (!unsettled.is_empty()).then(why));
        let mut unacknowledged = Unacknowledged { records: lost.records, reason };
        unacknowledged.add(unsettled);
        unacknowledged
    }
}

/// The error of many records, of which one failed for this reason.
fn within(reason: Error, whole: &str) -> Error {
    let join = |part: String| {
        if part.is_empty() { whole.to_owned() } else { format!("{whole}: {part}") }
    };
    match reason {
        Error::Kafka { code, context, is_told, source } => {
            Error::Kafka { code, context: join(context), is_told, source }
        }
        Error::Timeout { what, after_ms, source } => {
            Error::Timeout { what: join(what), after_ms, source }
        }
        other => {
            let code = other.code();
            Error::told(code, whole).because(Some(Arc::new(other)))
        }
    }
}

impl Inner {
    /// What is in the way of a partition's records: the broker's last answer to them, or why it
    /// cannot be reached.
    pub(super) fn trouble(
        &self,
        troubles: &Troubles,
        partition: &TopicPartition,
    ) -> Option<Arc<Error>> {
        let Cluster { obstacles, .. } = &*self.cluster;
        let answer = obstacles.of_partition(partition);
        answer.or_else(|| troubles.of(partition, &self.cluster.snapshot()))
    }

    /// Ends a failed batch, which is counted (CLO-1). The caller wakes those who wait for progress,
    /// once for all failures.
    pub(super) fn give_up(&self, payload: Payload, reason: Error) {
        self.memory.add_permits(payload.charged);
        payload.promise.fail(reason);
    }

    /// What a refusal means now. A full disk may have room again later; who closes does not wait for
    /// that.
    pub(super) fn refused(&self, code: ErrorCode) -> Verdict {
        if self.gives_up(code) { Verdict::GivenUp(code) } else { Verdict::Refused(code) }
    }

    /// As [`Self::refused`], of an error that concerns all records.
    pub(super) fn is_final(&self, error: &Error) -> bool {
        self.gives_up(error.code())
    }

    fn gives_up(&self, code: ErrorCode) -> bool {
        code == ErrorCode::KafkaStorageError && self.state().lost.is_closing
    }

    /// Abandons everything that waits.
    pub(super) fn abandon(&self, reason_of: impl Fn(&TopicPartition) -> Error) {
        let failed: Vec<(Payload, Error)> = {
            let mut state = self.state();
            let waiting = state.accumulator.abandon(|_| true).into_iter();
            let failed = waiting.map(|(partition, payload)| (payload, reason_of(&partition)));
            let failed: Vec<_> = failed.collect();
            for (payload, reason) in &failed {
                state.note_lost(payload, reason);
            }
            failed
        };
        if failed.is_empty() {
            return;
        }
        for (payload, reason) in failed {
            self.give_up(payload, reason);
        }
        self.progress.notify_waiters();
    }

    /// Abandons everything that waits for a broker that will not come back.
    pub(super) fn abandon_broker(&self, why: &str) {
        self.abandon(|partition| {
            let context = format!("producing to {partition}: {why}");
            Error::told(ErrorCode::NetworkException, context)
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
        // Writing to a string does not fail.
        write!(text, "{comma}topic {topic:?}: {count}").ok();
    }
    if topics.len() > TOPICS_SHOWN {
        write!(text, ", and {} more topics", topics.len().saturating_sub(TOPICS_SHOWN)).ok();
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::super::Content;
    use super::*;
    use crate::client::ClientConfig;
    use crate::types::TimestampMs;
    use bytes::Bytes;

    fn producer() -> Producer {
        let cluster = Arc::new(Cluster::over_tcp(crate::env::Env::real(), ClientConfig::default()));
        Producer::start(cluster, ClientConfig::default().producer).unwrap()
    }

    /// Accepts a batch of records that nobody keeps a delivery of.
    fn accept(producer: &Producer, topic: &str, records: i32) {
        let partition = TopicPartition::new(topic, 0);
        let promise = Promise::new(partition.clone(), records, TimestampMs::NONE);
        let content = Content::Sealed { bytes: Bytes::new(), stamp: None };
        let payload = Payload { content, promise, charged: 0, transactional: false };
        let now = producer.inner.cluster.now();
        producer.inner.state().accumulator.append_batch(now, &partition, 1, records, payload);
    }

    fn told(unacknowledged: Unacknowledged) -> String {
        unacknowledged.into_result().unwrap_err().to_string()
    }

    #[tokio::test]
    async fn a_sender_that_ended_leaves_its_records_unacknowledged() {
        let mut producer = producer();
        producer.task.abort();
        assert!((&mut producer.task).await.is_err());
        accept(&producer, "orders", 3);
        let told = told(producer.drain(Duration::MAX, None).await);
        assert!(told.contains("3 records") && told.contains("has ended"), "{told}");
    }

    #[tokio::test]
    async fn what_several_producers_lost_is_one_error() {
        let mut all = Unacknowledged::default();
        for (topic, records) in [("orders", 2), ("users", 1), ("orders", 5)] {
            let producer = producer();
            accept(&producer, topic, records);
            all = all.and(producer.drain(Duration::MAX, Some("it burned")).await);
            // It is reported once.
            producer.drain(Duration::ZERO, None).await.into_result().unwrap();
        }
        all = all.and(producer().drain(Duration::MAX, None).await);
        let expected = r#"8 records were not acknowledged (topic "orders": 7, topic "users": 1)"#;
        let told = told(all);
        assert!(told.contains(expected) && told.contains("it burned"), "{told}");
    }
}
