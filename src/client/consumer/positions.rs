//! What the fetcher does with positions: it finds them, validates them under a new leader, and tells data loss
//! where one does not exist any more, or its topic.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::sync::Arc;

use super::fetcher::Fetcher;
use super::request::Extent;
use super::shared::{Failure, State};
use crate::client::admin::ListedOffset;
use crate::client::cluster::TopicFailure;
use crate::client::config::{AutoOffsetReset, OnDataLoss};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::fetching::{Position, Reset, Target};
use crate::types::{LeaderEpoch, Offset, TopicPartition, Uuid};

/// How many times in a row a topic must be missing before it counts as deleted.
const MISSING_MAX: u32 = 5;

impl Fetcher {
    /// The position does not exist, or no longer: that is data loss, or a matter of policy.
    pub(super) fn located(&mut self, target: &Target<Position>, result: Result<Extent>) {
        let shared = Arc::clone(&self.shared);
        let offset = target.what.offset;
        let Extent { log_start: start, readable_end: log_end } = match result {
            Ok(extent) => extent,
            Err(error) => return self.fail_at(slice::from_ref(target), error),
        };
        let mut state = shared.state();
        if !state.machine.is_current(&target.partition, target.generation) {
            return;
        }
        if (start..=log_end).contains(&offset) {
            // It does exist; the broker that denied it was lagging behind.
            let now = shared.cluster.now();
            state.machine.failed(now, target, shared.random());
            return;
        }
        let reset = shared.config.auto_offset_reset.unwrap_or_default();
        let remedy = "read again from earliest, or tolerate it with on_data_loss=\"warn\"";
        let detail = if offset < start {
            format!(
                "the records from offset {offset} to {start} were deleted (retention or \
                 DeleteRecords) before they were read; {remedy}"
            )
        } else {
            format!(
                "offset {offset} is beyond the end of the log, {log_end}; the log was truncated or \
                 the topic re-created; {remedy}"
            )
        };
        let end = state.machine.end(&target.partition);
        let jump = match end {
            // The requested range ends before the log starts.
            Some(end) if start >= end && offset <= end => Some(end),
            _ if offset < start => Some(start),
            // The log was truncated: nothing more of this range exists.
            Some(end) if offset <= end => Some(end),
            // Beyond the end of the log: treated like a partition without an offset.
            _ => None,
        };
        let has_place = jump.is_some() || reset != AutoOffsetReset::Error;
        if shared.config.on_data_loss == OnDataLoss::Raise || !has_place {
            drop(state);
            let partition = target.partition.clone();
            self.fail_at(slice::from_ref(target), Error::DataLoss { partition, detail });
            return;
        }
        tracing::warn!(partition = %target.partition, detail, "data loss");
        match jump {
            Some(offset) => state.machine.seek(&target.partition, Position::at(offset)),
            None if reset == AutoOffsetReset::Earliest => {
                state.machine.reset(&target.partition, Reset::Earliest)
            }
            None => state.machine.reset(&target.partition, Reset::Latest),
        };
        drop(state);
        shared.ready.notify_one();
    }

    pub(super) fn positioned(
        &mut self,
        targets: &[Target<Reset>],
        result: Result<BTreeMap<TopicPartition, ListedOffset>>,
    ) {
        let shared = Arc::clone(&self.shared);
        let listed = match result {
            Ok(listed) => listed,
            Err(error) => return self.fail_at(targets, error),
        };
        let mut state = shared.state();
        for target in targets {
            match listed.get(&target.partition).and_then(|listed| listed.offset) {
                // The leader epoch is that of the record at the offset, not of the one before it.
                Some(offset) => drop(state.machine.positioned(target, Position::at(offset))),
                None => state.machine.failed(shared.cluster.now(), target, shared.random()),
            }
        }
        drop(state);
        shared.ready.notify_one();
    }

    pub(super) fn validated(
        &mut self,
        target: &Target<Position>,
        under: LeaderEpoch,
        result: Result<Option<Offset>>,
    ) {
        let shared = Arc::clone(&self.shared);
        match result {
            Ok(Some(end)) if end < target.what.offset => {
                let detail = format!(
                    "the log was truncated to offset {end} by a change of leader, but offset {} was \
                     already read",
                    target.what.offset
                );
                if shared.config.on_data_loss == OnDataLoss::Raise {
                    let partition = target.partition.clone();
                    self.fail_at(slice::from_ref(target), Error::DataLoss { partition, detail });
                    return;
                }
                tracing::warn!(partition = %target.partition, detail, "data loss");
                shared.state().machine.seek(&target.partition, Position::at(end));
            }
            Ok(_) => shared.state().machine.validated(target, under),
            Err(error) => {
                tracing::debug!(error = %error.chain(), "validating a position failed");
                self.driver.want_metadata();
                let now = shared.cluster.now();
                shared.state().machine.failed(now, target, shared.random());
            }
        }
    }

    /// Checks whether the assigned topics are still the same.
    pub(super) fn check_topics(&mut self, failures: &[TopicFailure]) {
        let shared = Arc::clone(&self.shared);
        let snapshot = shared.cluster.snapshot();
        let mut lost = None;
        {
            let mut state = shared.state();
            let State { topic_ids, missing, .. } = &mut *state;
            for (name, &id) in &*topic_ids {
                let now_id = snapshot.topics.get(name).map(|topic| topic.id);
                if let Some(now_id) = now_id.filter(|&now_id| now_id != id && id != Uuid::ZERO) {
                    let what = format!(
                        "topic {name} was deleted and re-created (its id was {id}, \
                                        now it is {now_id})"
                    );
                    lost = Some((Arc::clone(name), what));
                }
                let is_missing = failures.iter().any(|failure| {
                    *failure.name == **name && failure.code == ErrorCode::UnknownTopicOrPartition
                });
                if is_missing {
                    let times = missing.entry(Arc::clone(name)).or_default();
                    *times += 1;
                    self.driver.want_metadata();
                    if *times >= MISSING_MAX {
                        lost = Some((Arc::clone(name), format!("topic {name} was deleted")));
                    }
                }
            }
        }
        if let Some((name, what)) = lost {
            let mut state = shared.state();
            let assigned = state.machine.assignment();
            let partitions: BTreeSet<_> =
                assigned.filter(|partition| partition.topic == name).cloned().collect();
            // Of a topic that was taken away meanwhile, nothing is lost.
            let Some(partition) = partitions.first().cloned() else { return };
            let detail = format!("{what}; the records not yet read are lost");
            let error = Error::DataLoss { partition, detail };
            state.failure = Some(Failure { error, partitions });
            drop(state);
            shared.ready.notify_one();
        }
    }
}
