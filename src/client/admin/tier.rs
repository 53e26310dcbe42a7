//! What the tier has of a topic, and having it take the rest.
//!
//! Offsets come from ListOffsets, as any broker with KIP-405 tells them; files and bytes from the leader, if it is one of ottla,
//! which tells them in a field of its own of DescribeLogDirs. The store is not read from here: this machine may
//! not reach it, and only the leader knows which of its files count.
//!
//! What is to be copied at once is moved to the place of the tier by AlterReplicaLogDirs, which begins a move and does not
//! wait for it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::offsets::leader_of;
use super::{Admin, Resource, ResourceType, check};
use crate::client::admin::types::OffsetSpec;
use crate::client::cluster::{Lane, TopicInfo};
use crate::client::config::IsolationLevel;
use crate::client::errors;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::Str;
use crate::protocol::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use crate::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest,
};
use crate::types::{NodeId, Offset, PartitionIndex, TopicPartition};

const ENABLED: &str = "remote.storage.enable";
const COPY_DISABLED: &str = "remote.log.copy.disable";
const PLACE: &str = "ottla.tier.url";
/// How often it is asked how far the copy is: the first time, and the later ones.
const POLL_MIN: Duration = Duration::from_millis(20);
/// How often leaders that have forgotten what is to be copied are asked again.
const ASKS_MAX: u32 = 20;
const POLL_MAX: Duration = Duration::from_millis(500);

/// What the tier has of a topic.
#[derive(Clone, Debug)]
pub struct TopicTier {
    /// Whether the topic has a tier (`remote.storage.enable`).
    pub is_enabled: bool,
    /// Whether closed segments are copied there (not `remote.log.copy.disable`).
    pub copies: bool,
    /// Where the tier is, as a broker of ottla says.
    pub place: Option<String>,
    /// The partitions, by number.
    pub partitions: Vec<TierPartition>,
}

/// What the tier has of a partition; none for what the cluster does not tell.
#[derive(Clone, Debug)]
pub struct TierPartition {
    /// Its number.
    pub partition: PartitionIndex,
    /// The log start offset.
    pub start: Option<Offset>,
    /// The first offset on the disk of the leader.
    pub local_start: Option<Offset>,
    /// The offset behind the last one in the tier.
    pub tiered_end: Option<Offset>,
    /// The first offset that is to be copied.
    pub pending: Option<Offset>,
    /// The high watermark.
    pub end: Option<Offset>,
    /// How many bytes the log has on the disk of the leader.
    pub local_bytes: Option<i64>,
    /// How many files there are.
    pub files: Option<i64>,
    /// How many bytes they have.
    pub file_bytes: Option<i64>,
    /// How many bytes their batches had in the log.
    pub log_bytes: Option<i64>,
    /// How many bytes the segments have that are not in the tier, or not wholly.
    pub pending_bytes: Option<i64>,
    /// Why the copy does not get on.
    pub failure: Option<String>,
}

/// Offsets that are to come to the tier: from the first that was not there to the end of what was committed.
pub type Offload = BTreeMap<PartitionIndex, Range<Offset>>;

/// Where a broker says that its tier is.
enum Place {
    At(String),
    /// It is a broker of ottla, without a tier.
    Unset,
    /// It knows no such setting.
    Unknown,
}

/// What leaders say of their partitions.
type Stored = BTreeMap<PartitionIndex, DescribeLogDirsPartition>;

/// Offsets by partition.
type Offsets = BTreeMap<PartitionIndex, Offset>;

/// What the cluster says of the partitions of a topic.
#[derive(Debug, Default)]
struct Told {
    start: Offsets,
    local_start: Offsets,
    latest_tiered: Offsets,
    /// None where the broker is too old to be asked; then it has to be found out.
    pending: Option<Offsets>,
    end: Offsets,
    stored: Stored,
}

impl Told {
    fn of(&self, partition: PartitionIndex, is_enabled: bool) -> TierPartition {
        let get = |offsets: &Offsets| offsets.get(&partition).copied();
        let start = get(&self.start);
        // Without a tier, all of the log is there.
        let local_start = if is_enabled { get(&self.local_start) } else { start };
        let tiered_end = get(&self.latest_tiered).map(|last| last.plus(1));
        let is_all_here = is_enabled && start.is_some() && local_start == start;
        let pending = match &self.pending {
            Some(told) => get(told),
            None => pending_of(start, tiered_end, is_all_here),
        };
        let own = self.stored.get(&partition);
        let number =
            |of: fn(&DescribeLogDirsPartition) -> i64| own.map(of).filter(|&number| number >= 0);
        TierPartition {
            partition,
            start,
            local_start,
            tiered_end,
            pending,
            end: get(&self.end),
            local_bytes: number(|one| one.partition_size),
            files: number(|one| one.tier.files),
            file_bytes: number(|one| one.tier.file_bytes),
            log_bytes: number(|one| one.tier.log_bytes),
            pending_bytes: number(|one| one.tier.pending_bytes),
            failure: own.and_then(|one| one.tier.failure.as_ref()).map(Str::to_string),
        }
    }
}

impl Admin {
    /// What the tier has of a topic, now.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn tier(&self, topic: &str) -> Result<TopicTier> {
        let (is_enabled, copies) = self.tier_settings(topic).await?;
        let all = self.partitions_of(topic).await?;
        let told = self.told(&all, is_enabled).await?;
        let place = match all.first() {
            Some(first) if is_enabled => {
                let leader = leader_of(&self.cluster, first).await?.node;
                self.place(leader).await.ok()
            }
            _ => None,
        };
        let place = match place {
            Some(Place::At(place)) => Some(place),
            _ => None,
        };
        let partitions = all.iter().map(|one| told.of(one.partition, is_enabled)).collect();
        Ok(TopicTier { is_enabled, copies, place, partitions })
    }

    async fn told(&self, all: &[TopicPartition], is_enabled: bool) -> Result<Told> {
        let read = IsolationLevel::ReadUncommitted;
        let mut told = Told::default();
        if is_enabled {
            told.latest_tiered = self.offsets(all, OffsetSpec::LatestTiered, read).await?;
            told.pending = self.known_offsets(all, OffsetSpec::EarliestPendingUpload, read).await?;
            told.local_start = self.offsets(all, OffsetSpec::EarliestLocal, read).await?;
        }
        told.start = self.offsets(all, OffsetSpec::Earliest, read).await?;
        // The end last, so that nothing is beyond it.
        told.end = self.offsets(all, OffsetSpec::Latest, read).await?;
        told.stored = self.stored(all).await?;
        Ok(told)
    }

    /// The names of the topics that have a tier, sorted.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn tiered_topics(&self) -> Result<Vec<String>> {
        let topics = self.list_topics().await?;
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        let values = self.setting_of(&names, ENABLED).await?;
        Ok(values.into_iter().filter(|(_, value)| is_true(value)).map(|(name, _)| name).collect())
    }

    /// Begins to copy all that is committed in a topic to its tier: active segments are closed for it.
    ///
    /// # Errors
    ///
    /// `INVALID_CONFIG` when the topic has no tier, or nothing is copied there; `UNSUPPORTED_VERSION` when the brokers
    /// are not ottla's.
    pub async fn offload(&self, topic: &str) -> Result<Offload> {
        let (is_enabled, copies) = self.tier_settings(topic).await?;
        let all = self.partitions_of(topic).await?;
        let refused = |why: &str| Err(Error::told(ErrorCode::InvalidConfig, why));
        if let (false, Some(first)) = (is_enabled, all.first()) {
            let leader = leader_of(&self.cluster, first).await?.node;
            copyable(self.place(leader).await?)?;
            return refused(&format!("topic {topic} has no tier: set {ENABLED}=true"));
        }
        if !copies {
            return refused(&format!(
                "nothing is copied to the tier of topic {topic}: set {COPY_DISABLED}=false"
            ));
        }
        let ends = self.offsets(&all, OffsetSpec::Latest, IsolationLevel::ReadCommitted).await?;
        let starts =
            self.offsets(&all, OffsetSpec::Earliest, IsolationLevel::ReadUncommitted).await?;
        self.copy_now(&all).await?;
        let stored = self.stored(&all).await?;
        let range = |name: &TopicPartition| {
            let index = name.partition;
            let end = *ends.get(&index).ok_or_else(|| errors::not_mentioned(name))?;
            let start = starts.get(&index).copied().unwrap_or(Offset::ZERO);
            let pending = pending_in(&stored, index).unwrap_or(start);
            Ok((index, pending.min(end)..end))
        };
        all.iter().map(range).collect()
    }

    /// Waits until the tier has what was to come there. Tells how many of the offsets have, whenever it has asked.
    ///
    /// # Errors
    ///
    /// Those of `tell`; those of [`Admin::offload`], as when the topic has no tier any more.
    pub async fn await_offload(
        &self,
        topic: &str,
        offload: &Offload,
        mut tell: impl FnMut(i64) -> Result<()>,
    ) -> Result<()> {
        let all = named(topic, offload);
        let total: i64 = offload.values().map(|range| range.end.0 - range.start.0).sum();
        let (mut pause, mut done) = (POLL_MIN, 0);
        let mut asked_again = BTreeMap::new();
        loop {
            let stored = self.stored(&all).await?;
            let mut left = 0;
            let mut forgotten = Vec::new();
            for (name, (index, range)) in all.iter().zip(offload) {
                let missing = left_of(range, pending_in(&stored, *index));
                left += missing;
                let wanted = stored.get(index).map_or(-1, |one| one.tier.wanted_offset);
                if missing > 0 && wanted < range.end.0 {
                    let times = asked_again.entry(*index).or_insert(0);
                    if *times == ASKS_MAX {
                        let end = range.end;
                        let context = format!(
                            "{name} ends before offset {end}, up to which it was to be copied: the topic is another one by now, or has lost its end"
                        );
                        return Err(Error::told(ErrorCode::OffsetOutOfRange, context));
                    }
                    *times += 1;
                    forgotten.push(name.clone());
                }
            }
            // A leader that was just started knows less for a moment.
            done = (total - left).max(done);
            tell(done)?;
            if left == 0 {
                return Ok(());
            }
            if !forgotten.is_empty() {
                // The leader is another one, or was started again.
                self.copy_now(&forgotten).await?;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
    }

    /// What is still to come to the tier, and what is in its way, a sentence for each partition.
    ///
    /// # Errors
    ///
    /// When a broker does not answer.
    pub async fn offload_obstacles(&self, topic: &str, offload: &Offload) -> Result<Vec<String>> {
        let all = named(topic, offload);
        let stored = self.stored(&all).await?;
        let stable = self.offsets(&all, OffsetSpec::Latest, IsolationLevel::ReadCommitted).await?;
        let mut obstacles = Vec::new();
        for (name, (index, range)) in all.iter().zip(offload) {
            let missing = left_of(range, pending_in(&stored, *index));
            if missing > 0 {
                let why = obstacle(stored.get(index), stable.get(index).copied());
                let from = range.end.plus(-missing);
                obstacles
                    .push(format!("{name} from offset {from} to {}, because {why}", range.end));
            }
        }
        Ok(obstacles)
    }

    /// Whether a topic has a tier, and whether it is copied there.
    async fn tier_settings(&self, topic: &str) -> Result<(bool, bool)> {
        let described = self.describe_configs(&[Resource::topic(topic)], false).await?;
        let described = described.into_iter().next();
        let entries = described.unwrap_or_else(|| Err(errors::not_mentioned(topic)))?;
        let is_set = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name);
            entry.and_then(|entry| entry.value.as_deref()).is_some_and(is_true)
        };
        let is_enabled = is_set(ENABLED);
        Ok((is_enabled, is_enabled && !is_set(COPY_DISABLED)))
    }

    async fn partitions_of(&self, topic: &str) -> Result<Vec<TopicPartition>> {
        let described = self.describe_topics(&[topic]).await?.into_iter().next();
        let info: Arc<TopicInfo> =
            described.unwrap_or_else(|| Err(errors::not_mentioned(topic)))?;
        let named = |index| TopicPartition::new(Arc::clone(&info.name), index);
        Ok(info.partitions.iter().map(|one| named(one.partition)).collect())
    }

    /// An offset of each partition that has such a one; of none when the brokers are too old for it.
    async fn offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation_level: IsolationLevel,
    ) -> Result<Offsets> {
        let known = self.known_offsets(partitions, spec, isolation_level).await?;
        Ok(known.unwrap_or_default())
    }

    /// The same; none when the brokers are too old for it.
    async fn known_offsets(
        &self,
        partitions: &[TopicPartition],
        spec: OffsetSpec,
        isolation_level: IsolationLevel,
    ) -> Result<Option<Offsets>> {
        let wanted = partitions.iter().map(|one| (one.clone(), spec)).collect();
        match self.list_offsets(&wanted, isolation_level).await {
            Ok(listed) => {
                let listed = listed.into_iter();
                let known = listed.filter_map(|(name, one)| Some((name.partition, one.offset?)));
                Ok(Some(known.collect()))
            }
            Err(error) if error.code() == ErrorCode::UnsupportedVersion => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the tier of a broker is.
    async fn place(&self, broker: NodeId) -> Result<Place> {
        let route = self.cluster.route(broker, Lane::Control).await?;
        let request = DescribeConfigsRequest {
            resources: vec![DescribeConfigsResource {
                resource_type: ResourceType::Broker as i8,
                resource_name: Str::from(broker.to_string()),
                configuration_keys: Some(vec![Str::from_static(PLACE)]),
            }],
            ..DescribeConfigsRequest::default()
        };
        let response = route.call(request, self.timeout()).await?;
        let what = || format!("the settings of broker {broker}");
        let result =
            response.results.into_iter().next().ok_or_else(|| errors::not_mentioned(what()))?;
        check(result.error_code, result.error_message.as_ref(), what)?;
        let entry = result.configs.into_iter().find(|entry| &*entry.name == PLACE);
        Ok(match entry.map(|entry| entry.value) {
            Some(Some(place)) if !place.is_empty() => Place::At(place.to_string()),
            Some(_) => Place::Unset,
            None => Place::Unknown,
        })
    }

    async fn by_leader(
        &self,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<NodeId, Vec<TopicPartition>>> {
        let mut by_leader: BTreeMap<NodeId, Vec<TopicPartition>> = BTreeMap::new();
        for partition in partitions {
            let leader = leader_of(&self.cluster, partition).await?.node;
            by_leader.entry(leader).or_default().push(partition.clone());
        }
        Ok(by_leader)
    }

    /// What the leaders of partitions of a topic say of them; nothing where they may not tell.
    async fn stored(&self, partitions: &[TopicPartition]) -> Result<Stored> {
        let what = "describing log directories";
        self.cluster.retry(what, async || self.try_stored(partitions).await).await
    }

    async fn try_stored(&self, partitions: &[TopicPartition]) -> Result<Stored> {
        let mut stored = Stored::new();
        for (leader, partitions) in self.by_leader(partitions).await? {
            let route = self.cluster.route(leader, Lane::Control).await?;
            let asked = topics(&partitions, |topic, partitions| DescribableLogDirTopic {
                topic,
                partitions,
            });
            let request = DescribeLogDirsRequest { topics: Some(asked) };
            let response = route.call(request, self.timeout()).await?;
            let told =
                check(response.error_code, None, || format!("log directories of broker {leader}"));
            match told {
                Err(error) if error.code() == ErrorCode::ClusterAuthorizationFailed => continue,
                told => told?,
            }
            for topic in response.results.into_iter().flat_map(|result| result.topics) {
                // What is being moved to another directory is there twice.
                let current = topic.partitions.into_iter().filter(|one| !one.is_future_key);
                stored.extend(current.map(|one| (PartitionIndex(one.partition_index), one)));
            }
        }
        Ok(stored)
    }

    /// Has the leaders of partitions of a topic copy what is in their logs.
    async fn copy_now(&self, partitions: &[TopicPartition]) -> Result<()> {
        let what = "copying to the tier";
        self.cluster.retry(what, async || self.try_copy_now(partitions).await).await
    }

    async fn try_copy_now(&self, partitions: &[TopicPartition]) -> Result<()> {
        for (leader, partitions) in self.by_leader(partitions).await? {
            let path = copyable(self.place(leader).await?)?;
            let route = self.cluster.route(leader, Lane::Control).await?;
            let moved = topics(&partitions, |name, partitions| AlterReplicaLogDirTopic {
                name,
                partitions,
            });
            let dirs = vec![AlterReplicaLogDir { path: Str::from(path), topics: moved }];
            let request = AlterReplicaLogDirsRequest { dirs };
            let response = route.call(request, self.timeout()).await?;
            for topic in response.results {
                for one in topic.partitions {
                    let code = ErrorCode::from_i16(one.error_code);
                    if code == ErrorCode::LogDirNotFound {
                        let text = format!(
                            "broker {leader} is of a release that does not copy to the tier when it is asked to"
                        );
                        return Err(Error::told(ErrorCode::UnsupportedVersion, text));
                    }
                    let (name, index) = (&*topic.topic_name, one.partition_index);
                    code.into_result(format!("copying {name}-{index} to the tier"))?;
                }
            }
        }
        Ok(())
    }
}

/// The partitions of a topic that are to be copied.
fn named(topic: &str, offload: &Offload) -> Vec<TopicPartition> {
    let topic: Arc<str> = Arc::from(topic);
    offload.keys().map(|index| TopicPartition::new(Arc::clone(&topic), *index)).collect()
}

/// Partitions of one topic, or of several, in the form of a request.
fn topics<T>(partitions: &[TopicPartition], make: impl Fn(Str, Vec<i32>) -> T) -> Vec<T> {
    let mut by_topic: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for one in partitions {
        by_topic.entry(&one.topic).or_default().push(one.partition.0);
    }
    by_topic.into_iter().map(|(name, partitions)| make(Str::from(name), partitions)).collect()
}

fn is_true(value: &str) -> bool {
    value.eq_ignore_ascii_case("true")
}

/// The place of a tier that a broker copies to when it is asked.
fn copyable(place: Place) -> Result<String> {
    match place {
        Place::At(path) => Ok(path),
        Place::Unset => Err(Error::told(
            ErrorCode::InvalidConfig,
            format!(
                "the broker has no tier: start it with remote.log.storage.system.enable=true and {PLACE}=file:///path/to/a/folder"
            ),
        )),
        Place::Unknown => Err(Error::told(
            ErrorCode::UnsupportedVersion,
            "only brokers of ottla copy to the tier when they are asked to; others do once a segment is closed, as \
             segment.ms and segment.bytes say",
        )),
    }
}

/// The first offset that is to be copied, where the broker is too old to be asked: as Kafka finds it.
fn pending_of(
    start: Option<Offset>,
    tiered_end: Option<Offset>,
    is_all_here: bool,
) -> Option<Offset> {
    match tiered_end {
        Some(end) => Some(start.map_or(end, |start| end.max(start))),
        // Nothing was copied yet.
        None => start.filter(|_| is_all_here),
    }
}

fn pending_in(stored: &Stored, index: PartitionIndex) -> Option<Offset> {
    let pending = stored.get(&index)?.tier.pending_offset;
    Some(Offset(pending)).filter(|offset| *offset >= Offset::ZERO)
}

/// How many of the offsets are not in the tier.
fn left_of(range: &Range<Offset>, pending: Option<Offset>) -> i64 {
    let pending = pending.unwrap_or(range.start).max(range.start).min(range.end);
    range.end.0 - pending.0
}

/// Why a partition is not in the tier as far as it is to be.
fn obstacle(told: Option<&DescribeLogDirsPartition>, stable: Option<Offset>) -> String {
    let Some(tier) = told.map(|told| &told.tier) else {
        return "its leader does not tell how far the copy is".to_owned();
    };
    if let Some(failure) = &tier.failure {
        return failure.to_string();
    }
    match stable {
        Some(stable) if stable.0 < tier.wanted_offset => format!(
            "a transaction is open, or records are not replicated, from offset {stable} on, and a segment is copied when all of it is stable"
        ),
        _ if tier.pending_offset < 0 => {
            "its leader has not read yet which files there are".to_owned()
        }
        _ => "the copy takes longer".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::own::TierState;

    #[test]
    fn what_is_pending_is_found_as_kafka_finds_it() {
        let offset = |number: i64| Some(Offset(number));
        assert_eq!(pending_of(offset(5), offset(80), false), offset(80));
        assert_eq!(pending_of(offset(90), offset(80), false), offset(90), "retention was faster");
        assert_eq!(pending_of(offset(5), None, true), offset(5), "nothing was copied yet");
        assert_eq!(pending_of(offset(5), None, false), None, "something was, nobody knows what");
        assert_eq!(pending_of(None, None, false), None);
    }

    #[test]
    fn what_is_left_never_leaves_the_range() {
        let range = Offset(10)..Offset(50);
        let left = |pending: Option<i64>| left_of(&range, pending.map(Offset));
        assert_eq!([None, Some(0), Some(10)].map(left), [40, 40, 40]);
        assert_eq!([Some(30), Some(50), Some(70)].map(left), [20, 0, 0]);
    }

    #[test]
    fn an_obstacle_is_named() {
        let told = |tier: TierState| DescribeLogDirsPartition { tier, ..Default::default() };
        let state = TierState { wanted_offset: 50, pending_offset: 10, ..TierState::default() };
        let why = |tier: TierState, stable: i64| obstacle(Some(&told(tier)), Some(Offset(stable)));
        assert!(why(state.clone(), 20).contains("from offset 20 on"));
        assert!(why(state.clone(), 50).contains("takes longer"));
        let unread = TierState { pending_offset: -1, ..state };
        assert!(why(unread.clone(), 50).contains("which files"));
        let failed = TierState { failure: Some(Str::from_static("no room")), ..unread };
        assert_eq!(why(failed, 20), "no room");
        assert!(obstacle(None, None).contains("does not tell"));
    }

    #[test]
    fn only_a_broker_with_a_place_copies() {
        assert_eq!(copyable(Place::At("/tier".to_owned())).unwrap(), "/tier");
        assert_eq!(copyable(Place::Unset).unwrap_err().code(), ErrorCode::InvalidConfig);
        assert_eq!(copyable(Place::Unknown).unwrap_err().code(), ErrorCode::UnsupportedVersion);
    }
}
