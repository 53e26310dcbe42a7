//! The fetcher task of one consumer or scan: looks up positions, fetches ahead, fills the buffer.
//!
//! Requests are sessionless (KIP-227 with epoch -1): every request names its partitions and every
//! answer lists them, which every broker handles correctly, and the bytes that a session saves only
//! matter with hundreds of partitions. At most one fetch is in flight per node, over its own
//! connection.

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use super::request::{self, Answer, FetchAnswers};
use super::shared::{Buffered, Failure, Shared, State};
use crate::client::admin::{ListedOffset, OffsetSpec};
use crate::client::cluster::Snapshot;
use crate::client::config::{AutoOffsetReset, OnDataLoss};
use crate::columnar::FetchedBytes;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::fetching::{Position, Reset, Target};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, TopicPartition, Uuid};

/// How long a fetch waits at the broker while another partition waits for room in the buffer.
const SHORT_WAIT: Duration = Duration::from_millis(20);

/// How many times in a row a topic must be missing before it counts as deleted.
const MISSING_MAX: u32 = 5;

enum Event {
    Fetched {
        node: NodeId,
        targets: Vec<Target<Position>>,
        result: Result<FetchAnswers>,
    },
    Positioned {
        targets: Vec<Target<Reset>>,
        result: Result<BTreeMap<TopicPartition, ListedOffset>>,
    },
    /// The range held by the partition of a refused position.
    Located {
        target: Target<Position>,
        result: Result<(Offset, Offset)>,
    },
    Validated {
        target: Target<Position>,
        under: LeaderEpoch,
        result: Result<Option<Offset>>,
    },
    Refreshed(Vec<(String, ErrorCode)>),
}

struct Fetcher {
    shared: Arc<Shared>,
    events: FuturesUnordered<BoxFuture<'static, Event>>,
    busy: BTreeSet<NodeId>,
    refreshing: bool,
    wants_refresh: bool,
    refresh_at: TimestampMs,
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    let mut fetcher = Fetcher::new(Arc::clone(&shared));
    loop {
        fetcher.turn();
        let now = shared.cluster.now();
        let deadline = fetcher.next_deadline(now);
        let wait_ms = deadline.map_or(u64::MAX, |at| u64::try_from(at.0 - now.0).unwrap_or(0));
        let wait = Duration::from_millis(wait_ms.clamp(1, 60_000));
        tokio::select! {
            biased;
            Some(event) = fetcher.events.next() => fetcher.handle(event),
            () = shared.work.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Fetcher {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            events: FuturesUnordered::new(),
            busy: BTreeSet::new(),
            refreshing: false,
            wants_refresh: false,
            refresh_at: TimestampMs::NONE,
        }
    }

    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        let refresh = self.wants_refresh.then_some(self.refresh_at).filter(|&at| at > now);
        let machine = self.shared.state().machine.next_deadline(now);
        refresh.into_iter().chain(machine).min()
    }

    /// Starts everything that can be started now.
    fn turn(&mut self) {
        let shared = Arc::clone(&self.shared);
        let now = shared.cluster.now();
        let snapshot = shared.cluster.snapshot();
        {
            let mut state = shared.state();
            // A caller that seeks after a failure waits for the new position.
            self.start_resets(&mut state, now);
            if state.failure.is_some() {
                return;
            }
            self.start_validations(&mut state, now, &snapshot);
            self.start_fetches(&mut state, now, &snapshot);
        }
        self.start_refresh(now);
    }

    fn start_resets(&mut self, state: &mut State, now: TimestampMs) {
        let targets = state.machine.take_resets(now);
        if targets.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.events.push(Box::pin(async move {
            let spec = |reset| match reset {
                Reset::Earliest => OffsetSpec::Earliest,
                Reset::Latest => OffsetSpec::Latest,
                Reset::Timestamp(timestamp) => OffsetSpec::Timestamp(timestamp),
            };
            let wanted = targets
                .iter()
                .map(|target| (target.partition.clone(), spec(target.what)))
                .collect();
            let isolation = shared.config.isolation_level;
            let result = request::list_offsets_or_end(&shared.cluster, &wanted, isolation).await;
            Event::Positioned { targets, result }
        }));
    }

    fn start_validations(&mut self, state: &mut State, now: TimestampMs, snapshot: &Snapshot) {
        let epoch_of = |partition: &TopicPartition| {
            snapshot.leader(partition).map_or(LeaderEpoch::UNKNOWN, |(_, epoch)| epoch)
        };
        for target in state.machine.take_validations(now, epoch_of) {
            let under = epoch_of(&target.partition);
            let cluster = Arc::clone(&self.shared.cluster);
            self.events.push(Box::pin(async move {
                let result = request::end_of_epoch(&cluster, &target, under).await;
                Event::Validated { target, under, result }
            }));
        }
    }

    fn start_fetches(&mut self, state: &mut State, now: TimestampMs, snapshot: &Snapshot) {
        let State { machine, replicas, topic_ids, .. } = state;
        let node_of = |partition: &TopicPartition| {
            let (leader, epoch) = snapshot.leader(partition)?;
            let nearby = replicas.get(partition).filter(|node| snapshot.brokers.contains_key(node));
            Some((nearby.copied().unwrap_or(leader), epoch))
        };
        let leaders = machine.fetchable_leaders(now, |partition| Some(node_of(partition)?.0));
        for leader in leaders {
            let Some(node) = leader else {
                self.wants_refresh = true;
                continue;
            };
            if self.busy.contains(&node) {
                continue;
            }
            let targets = machine.take_fetches(now, node, node_of);
            if targets.is_empty() {
                continue;
            }
            let wait_max = self.shared.config.fetch_wait_max;
            let wait = if machine.lacks_room() { wait_max.min(SHORT_WAIT) } else { wait_max };
            let wanted: Vec<_> = targets
                .iter()
                .map(|target| request::Wanted {
                    partition: target.partition.clone(),
                    topic_id: topic_ids.get(&target.partition.topic).copied().unwrap_or(Uuid::ZERO),
                    leader_epoch: node_of(&target.partition)
                        .map_or(LeaderEpoch::UNKNOWN, |(_, epoch)| epoch),
                    offset: target.what.offset,
                })
                .collect();
            self.busy.insert(node);
            let shared = Arc::clone(&self.shared);
            self.events.push(Box::pin(async move {
                let Shared { cluster, config, lane, .. } = &*shared;
                let result = request::fetch(cluster, config, *lane, node, &wanted, wait).await;
                Event::Fetched { node, targets, result }
            }));
        }
    }

    fn start_refresh(&mut self, now: TimestampMs) {
        if !self.wants_refresh || self.refreshing || self.refresh_at > now {
            return;
        }
        self.wants_refresh = false;
        self.refreshing = true;
        let shared = Arc::clone(&self.shared);
        let pause_ms = shared.cluster.config.backoff.initial_ms;
        self.refresh_at = now.plus(i64::try_from(pause_ms).unwrap_or(i64::MAX));
        self.events.push(Box::pin(async move {
            let topics: Vec<Arc<str>> = shared.state().topic_ids.keys().cloned().collect();
            let names: Vec<&str> = topics.iter().map(AsRef::as_ref).collect();
            Event::Refreshed(shared.cluster.refresh(Some(&names)).await.unwrap_or_default())
        }));
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Fetched { node, targets, result } => {
                self.busy.remove(&node);
                self.fetched(targets, result);
            }
            Event::Positioned { targets, result } => self.positioned(&targets, result),
            Event::Located { target, result } => self.located(&target, result),
            Event::Validated { target, under, result } => self.validated(&target, under, result),
            Event::Refreshed(failures) => {
                self.refreshing = false;
                self.refreshed(&failures);
            }
        }
    }

    fn fetched(&mut self, targets: Vec<Target<Position>>, result: Result<FetchAnswers>) {
        let shared = Arc::clone(&self.shared);
        let now = shared.cluster.now();
        let mut answers = match result {
            Ok(answers) => answers,
            Err(error) => {
                if !error.retriable() {
                    self.fail_at(&targets, error);
                    return;
                }
                tracing::debug!(error = %error.chain(), "fetch failed");
                self.wants_refresh = true;
                let mut state = shared.state();
                state.replicas.clear();
                for target in &targets {
                    state.machine.failed(now, target, shared.random());
                }
                return;
            }
        };
        let is_all_empty = answers
            .values()
            .all(|answer| matches!(answer, Ok(Answer { bytes, .. }) if bytes.is_empty()));
        for target in targets {
            let Some(answer) = answers.remove(&target.partition) else {
                shared.state().machine.failed(now, &target, shared.random());
                continue;
            };
            match answer {
                Ok(answer) => self.accept(&target, answer, is_all_empty),
                Err(code) => self.refused(&target, code, now),
            }
        }
    }

    /// Buffers what was fetched from one partition.
    fn accept(&mut self, target: &Target<Position>, answer: Answer, is_all_empty: bool) {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        let State { machine, buffer, replicas, missing, short_since, .. } = &mut *state;
        missing.remove(&target.partition.topic);
        if let Some(replica) = answer.preferred_replica {
            replicas.insert(target.partition.clone(), replica);
            machine.released(target);
            return;
        }
        let end = machine.end(&target.partition);
        let mut next = answer.next.unwrap_or(target.what);
        // There is nothing between the position and the readable end: compaction removed the last
        // records.
        if let Some(end) =
            end.filter(|&end| is_all_empty && answer.next.is_none() && answer.readable_end >= end)
        {
            next = Position { offset: end, ..next };
        }
        if let Some(end) = end.filter(|&end| answer.next.is_none() && answer.readable_end < end) {
            // A new leader's high watermark may lag for a moment; a truncated log stays short.
            let now = shared.cluster.now();
            let since = *short_since.entry(target.partition.clone()).or_insert(now);
            let patience = shared.cluster.config.request_timeout.as_millis();
            if u128::try_from(now.0 - since.0).unwrap_or(0) > patience {
                let detail = format!(
                    "the log now ends at offset {}, before the resolved end {end}; it was \
                     truncated",
                    answer.readable_end
                );
                let partition = target.partition.clone();
                drop(state);
                return self
                    .fail_at(slice::from_ref(target), Error::DataLoss { partition, detail });
            }
        } else {
            short_since.remove(&target.partition);
        }
        let bytes = answer.bytes.len();
        if !machine.fetched(target, next, bytes, answer.marks) {
            return;
        }
        if next.offset > target.what.offset {
            let checks = shared.config.check_crcs.unwrap_or(!shared.cluster.is_local());
            let chunk = FetchedBytes {
                partition: target.partition.clone(),
                bytes: answer.bytes,
                start: target.what.offset,
                end: end.unwrap_or(Offset(i64::MAX)),
                aborted: answer.aborted,
                checked: !checks,
            };
            buffer.push_back(Buffered { chunk, generation: target.generation, next });
            drop(state);
            shared.ready.notify_one();
        }
    }

    /// Handles a partition's error.
    fn refused(&mut self, target: &Target<Position>, code: ErrorCode, now: TimestampMs) {
        let shared = Arc::clone(&self.shared);
        if code == ErrorCode::OffsetOutOfRange {
            let nearby = shared.state().replicas.remove(&target.partition);
            if nearby.is_some() {
                // A follower may lag behind; the leader knows better.
                shared.state().machine.released(target);
                return;
            }
            let (cluster, target) = (Arc::clone(&shared.cluster), target.clone());
            let isolation = shared.config.isolation_level;
            self.events.push(Box::pin(async move {
                let result = request::extent(&cluster, &target.partition, isolation).await;
                Event::Located { target, result }
            }));
            return;
        }
        if !code.retriable() && code != ErrorCode::FetchSessionTopicIdError {
            let context = format!("fetching {} at offset {}", target.partition, target.what.offset);
            self.fail_at(slice::from_ref(target), Error::kafka(code, context));
            return;
        }
        tracing::debug!(partition = %target.partition, %code, "fetch refused");
        self.wants_refresh = true;
        let mut state = shared.state();
        state.replicas.remove(&target.partition);
        state.machine.failed(now, target, shared.random());
    }

    /// The position does not exist, or no longer: that is data loss, or a matter of policy.
    fn located(&mut self, target: &Target<Position>, result: Result<(Offset, Offset)>) {
        let shared = Arc::clone(&self.shared);
        let offset = target.what.offset;
        let (start, log_end) = match result {
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

    fn positioned(
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

    fn validated(
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
                self.wants_refresh = true;
                let now = shared.cluster.now();
                shared.state().machine.failed(now, target, shared.random());
            }
        }
    }

    /// Checks whether the assigned topics are still the same.
    fn refreshed(&mut self, failures: &[(String, ErrorCode)]) {
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
                let is_missing = failures.iter().any(|(failed, code)| {
                    **failed == **name && *code == ErrorCode::UnknownTopicOrPartition
                });
                if is_missing {
                    let times = missing.entry(Arc::clone(name)).or_default();
                    *times += 1;
                    self.wants_refresh = true;
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

    /// Fails, and fetches these again if the caller continues nevertheless, so that it gets the
    /// error again instead of nothing. What the caller has left meanwhile, by a seek for example,
    /// does not fail any more.
    fn fail_at<What>(&self, targets: &[Target<What>], error: Error) {
        let now = self.shared.cluster.now();
        let mut state = self.shared.state();
        let mut partitions = BTreeSet::new();
        for target in targets {
            if state.machine.is_current(&target.partition, target.generation) {
                state.machine.failed(now, target, self.shared.random());
                partitions.insert(target.partition.clone());
            }
        }
        if partitions.is_empty() {
            return;
        }
        state.failure = Some(Failure { error, partitions });
        drop(state);
        self.shared.ready.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::cluster::{Cluster, Lane};
    use crate::client::config::{ClientConfig, ConsumerConfig};
    use crate::machine::client::backoff::Backoff;
    use crate::machine::client::fetching::{Fetching, Settings};

    fn fetcher() -> Fetcher {
        let config = ClientConfig::for_servers("nobody.invalid:9092").unwrap();
        let backoff = Backoff { initial_ms: 1, max_ms: 1 };
        let settings = Settings { memory_bytes: 1, partition_bytes: 1, backoff };
        let cluster = Arc::new(Cluster::over_tcp(crate::env::Env::real(), config));
        let lane = Lane::Fetch(u64::MAX);
        let machine = Fetching::new(settings);
        Fetcher::new(Arc::new(Shared::new(cluster, ConsumerConfig::default(), lane, machine)))
    }

    fn lost(partition: &TopicPartition) -> Error {
        Error::DataLoss { partition: partition.clone(), detail: "gone".to_owned() }
    }

    #[tokio::test]
    async fn what_the_caller_has_left_does_not_fail_any_more() {
        let fetcher = fetcher();
        let [one, other] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        let targets: Vec<Target<Position>> = {
            let mut state = fetcher.shared.state();
            for partition in [&one, &other] {
                state.machine.assign(partition.clone(), None);
                state.machine.seek(partition, Position::at(Offset(500)));
            }
            let leader = |_: &TopicPartition| Some((NodeId(1), LeaderEpoch(0)));
            state.machine.take_fetches(fetcher.shared.cluster.now(), NodeId(1), leader)
        };
        assert_eq!(targets.len(), 2);
        // The answer comes when the caller has sought.
        fetcher.shared.state().machine.reset(&one, Reset::Earliest);
        fetcher.fail_at(&targets[..1], lost(&one));
        assert!(fetcher.shared.state().failure.is_none());
        fetcher.fail_at(&targets, lost(&other));
        let failure = fetcher.shared.state().failure.take().unwrap();
        assert_eq!(failure.partitions, BTreeSet::from([other]));
    }

    #[tokio::test]
    async fn positions_are_looked_up_although_something_failed() {
        let mut fetcher = fetcher();
        let [one, other] = [0, 1].map(|partition| TopicPartition::new("t", partition));
        {
            let mut state = fetcher.shared.state();
            state.machine.assign(one.clone(), None);
            state.machine.reset(&one, Reset::Earliest);
            let partitions = BTreeSet::from([other.clone()]);
            state.failure = Some(Failure { error: lost(&other), partitions });
        }
        fetcher.turn();
        assert_eq!(fetcher.events.len(), 1, "the position is asked for");
        assert!(fetcher.shared.state().failure.is_some());
    }
}
