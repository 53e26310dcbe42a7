//! The fetcher task of one consumer or scan: looks up positions, fetches ahead, fills the buffer.
//!
//! Requests are sessionless (KIP-227 with epoch -1): every request names its partitions and every
//! answer lists them, which every broker handles correctly, and the bytes that a session saves only
//! matter with hundreds of partitions. At most one fetch is in flight per node, over its own
//! connection. What it has in common with the sender of a producer is in [`crate::client::driver`]; what becomes
//! of a position that does not exist is in [`super::positions`].

use std::collections::{BTreeMap, BTreeSet};
use std::slice;
use std::sync::Arc;
use std::time::Duration;

use super::request::{self, Answer, Extent, FetchAnswers};
use super::shared::{Buffered, Failure, Shared, State};
use crate::client::admin::{ListedOffset, OffsetSpec};
use crate::client::cluster::{Leader, Snapshot};
use crate::client::driver::{self, Driver, Refreshed};
use crate::columnar::FetchedBytes;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::fetching::{Position, Reset, Target};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, TopicPartition, Uuid};

/// How long a fetch waits at the broker while another partition waits for room in the buffer.
const SHORT_WAIT: Duration = Duration::from_millis(20);

pub(super) enum Event {
    Fetched {
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
        result: Result<Extent>,
    },
    Validated {
        target: Target<Position>,
        under: LeaderEpoch,
        result: Result<Option<Offset>>,
    },
}

pub(super) struct Fetcher {
    pub(super) shared: Arc<Shared>,
    pub(super) driver: Driver<Event>,
}

/// Runs until it is aborted.
pub(super) async fn run(shared: Arc<Shared>) {
    driver::run(Fetcher::new(Arc::clone(&shared)), &shared.work).await;
}

impl driver::Task for Fetcher {
    type Event = Event;

    fn driver(&mut self) -> &mut Driver<Event> {
        &mut self.driver
    }

    fn turn(&mut self, now: TimestampMs) {
        let shared = Arc::clone(&self.shared);
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
        self.driver.refresh(now, || shared.state().topic_ids.keys().cloned().collect());
    }

    fn next_deadline(&self, now: TimestampMs) -> Option<TimestampMs> {
        self.shared.state().machine.next_deadline(now)
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Fetched { targets, result } => self.fetched(targets, result),
            Event::Positioned { targets, result } => self.positioned(&targets, result),
            Event::Located { target, result } => self.located(&target, result),
            Event::Validated { target, under, result } => self.validated(&target, under, result),
        }
    }

    fn connected(&mut self, node: NodeId, result: Result<()>) {
        let Err(error) = result else { return };
        let shared = Arc::clone(&self.shared);
        let mut state = shared.state();
        if error.retriable() {
            // A nearby replica that cannot be reached has a leader.
            state.replicas.clear();
            return;
        }
        let snapshot = shared.cluster.snapshot();
        let State { machine, replicas, .. } = &mut *state;
        let now = shared.cluster.now();
        let node_of = |partition: &TopicPartition| node_of(partition, &snapshot, replicas, now);
        let targets = machine.take_fetches(now, node, node_of);
        drop(state);
        self.fail_at(&targets, error);
    }

    fn refreshed(&mut self, result: Refreshed) {
        self.check_topics(&result.unwrap_or_default());
    }
}

/// From where a partition is fetched, and its leader epoch.
fn node_of(
    partition: &TopicPartition,
    snapshot: &Snapshot,
    replicas: &BTreeMap<TopicPartition, (NodeId, TimestampMs)>,
    now: TimestampMs,
) -> Option<(NodeId, LeaderEpoch)> {
    let Leader { node: leader, epoch } = snapshot.leader(partition)?;
    let is_there = |(node, until): &&(NodeId, TimestampMs)| {
        snapshot.brokers.contains_key(node) && now < *until
    };
    let nearby = replicas.get(partition).filter(is_there);
    Some((nearby.map_or(leader, |(node, _)| *node), epoch))
}

impl Fetcher {
    fn new(shared: Arc<Shared>) -> Self {
        let driver = Driver::new(Arc::clone(&shared.cluster), shared.lane);
        Self { shared, driver }
    }

    fn start_resets(&mut self, state: &mut State, now: TimestampMs) {
        let targets = state.machine.take_resets(now);
        if targets.is_empty() {
            return;
        }
        let shared = Arc::clone(&self.shared);
        self.driver.start(async move {
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
        });
    }

    fn start_validations(&mut self, state: &mut State, now: TimestampMs, snapshot: &Snapshot) {
        let epoch_of = |partition: &TopicPartition| {
            snapshot.leader(partition).map_or(LeaderEpoch::UNKNOWN, |leader| leader.epoch)
        };
        for target in state.machine.take_validations(now, epoch_of) {
            let under = epoch_of(&target.partition);
            let cluster = Arc::clone(&self.shared.cluster);
            self.driver.start(async move {
                let result = request::end_of_epoch(&cluster, &target, under).await;
                Event::Validated { target, under, result }
            });
        }
    }

    fn start_fetches(&mut self, state: &mut State, now: TimestampMs, snapshot: &Snapshot) {
        let State { machine, replicas, topic_ids, .. } = state;
        let node_of = |partition: &TopicPartition| node_of(partition, snapshot, replicas, now);
        let leaders = machine.fetchable_leaders(now, |partition| Some(node_of(partition)?.0));
        for leader in leaders {
            let Some(node) = leader else {
                self.driver.want_metadata();
                continue;
            };
            if self.driver.unanswered(node) > 0 {
                continue;
            }
            let Some(route) = self.driver.route(node, now) else { continue };
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
            let shared = Arc::clone(&self.shared);
            self.driver.start_request(node, async move {
                let Shared { cluster, config, .. } = &*shared;
                let fetch = request::fetch(&route, &cluster.config, config, &wanted, wait);
                let result = cluster.unless_gone((node, &route), wait, fetch).await;
                Event::Fetched { targets, result }
            });
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
                self.driver.want_metadata();
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
            let lease = shared.cluster.config.metadata_max_age.as_millis();
            let until = shared.cluster.now().plus(i64::try_from(lease).unwrap_or(i64::MAX));
            replicas.insert(target.partition.clone(), (replica, until));
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
            self.driver.start(async move {
                let result = request::extent(&cluster, &target.partition, isolation).await;
                Event::Located { target, result }
            });
            return;
        }
        if !code.retriable() && code != ErrorCode::FetchSessionTopicIdError {
            let context = format!("fetching {} at offset {}", target.partition, target.what.offset);
            self.fail_at(slice::from_ref(target), Error::kafka(code, context));
            return;
        }
        tracing::debug!(partition = %target.partition, %code, "fetch refused");
        self.driver.want_metadata();
        let mut state = shared.state();
        state.replicas.remove(&target.partition);
        state.machine.failed(now, target, shared.random());
    }

    /// Fails, and fetches these again if the caller continues nevertheless, so that it gets the
    /// error again instead of nothing. What the caller has left meanwhile, by a seek for example,
    /// does not fail any more.
    pub(super) fn fail_at<What>(&self, targets: &[Target<What>], error: Error) {
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
    use crate::client::driver::Task as _;
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
        fetcher.turn(fetcher.shared.cluster.now());
        assert_eq!(fetcher.driver.waits_for(), 1, "the position is asked for");
        assert!(fetcher.shared.state().failure.is_some());
    }
}
