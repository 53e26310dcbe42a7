//! The coordinator of a group or of a transactional id: finding it, calling it, and the offsets that a group keeps.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::client::cluster::{Cluster, Lane};
use crate::client::consumer::group::{GroupMetadata, OffsetAndMetadata};
use crate::client::errors;
use crate::client::route::Route;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::api::Call;
use crate::protocol::messages::find_coordinator::FindCoordinatorRequest;
use crate::protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use crate::protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
    OffsetFetchResponse,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{LeaderEpoch, NodeId, Offset, TopicPartition};

/// What is coordinated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Group,
    Transactions,
}

impl Kind {
    /// The key type in FindCoordinator.
    const fn key_type(self) -> i8 {
        match self {
            Self::Group => 0,
            Self::Transactions => 1,
        }
    }
}

/// The last version of OffsetCommit and OffsetFetch that uses topic names.
const NAMES_UNTIL: i16 = 9;

/// Committed offsets by partition.
pub(crate) type Committed = BTreeMap<TopicPartition, OffsetAndMetadata>;

/// The route to the coordinator of one group, or of one transactional id; looked up when needed, and again after it
/// moved.
#[derive(Debug)]
pub(crate) struct Coordinator {
    pub(crate) cluster: Arc<Cluster>,
    /// The group, or the transactional id.
    pub(crate) id: String,
    kind: Kind,
    node: Mutex<Option<NodeId>>,
}

impl Coordinator {
    pub(crate) fn new(cluster: Arc<Cluster>, group_id: impl Into<String>) -> Self {
        Self { cluster, id: group_id.into(), kind: Kind::Group, node: Mutex::new(None) }
    }

    /// The coordinator of the transactions of an id.
    pub(crate) fn of_transactions(cluster: Arc<Cluster>, id: impl Into<String>) -> Self {
        Self { cluster, id: id.into(), kind: Kind::Transactions, node: Mutex::new(None) }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Option<NodeId>> {
        self.node.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks up the coordinator again next time.
    pub(crate) fn forget(&self) {
        *self.known() = None;
    }

    /// The broker that coordinates the group.
    pub(crate) async fn node(&self) -> Result<NodeId> {
        let known = *self.known();
        if let Some(node) = known {
            return Ok(node);
        }
        let node = self.find().await?;
        if !self.cluster.snapshot().brokers.contains_key(&node) {
            self.cluster.refresh(Some(&[])).await?;
        }
        *self.known() = Some(node);
        Ok(node)
    }

    async fn find(&self) -> Result<NodeId> {
        let ask = async |route: Arc<Route>| {
            let version = route.version(ApiKey::FindCoordinator)?;
            if self.kind != Kind::Group && version < 1 {
                let context =
                    "finding the coordinator of transactions: the broker is too old for it";
                return Err(errors::unsupported(context));
            }
            let key = Str::from(self.id.as_str());
            let key_type = self.kind.key_type();
            let mut request = FindCoordinatorRequest { key_type, ..Default::default() };
            if version >= 4 {
                request.coordinator_keys = vec![key];
            } else {
                request.key = key;
            }
            route.call_at(request, version, self.cluster.config.request_timeout).await
        };
        let response = self.cluster.ask_any(ask).await?;
        let (code, node) = match response.coordinators.first() {
            Some(found) => (found.error_code, found.node_id),
            None => (response.error_code, response.node_id),
        };
        self.check(code, || "looking up its coordinator".to_owned())?;
        Ok(NodeId(node))
    }

    pub(crate) async fn route(&self, lane: Lane) -> Result<(NodeId, Arc<Route>)> {
        let node = self.node().await?;
        let route = self.cluster.route(node, lane).await.inspect_err(|_| self.forget())?;
        Ok((node, route))
    }

    /// Calls the coordinator at the newest version up to a limit, with a request built for it.
    pub(crate) async fn call<C: Call>(
        &self,
        lane: Lane,
        timeout: Duration,
        version_max: i16,
        build: impl FnOnce(i16) -> Result<C>,
    ) -> Result<C::Response> {
        let (node, route) = self.route(lane).await?;
        let version = route.version(C::API)?.min(version_max);
        let answer = route.call_at(build(version)?, version, timeout);
        let answer = self.cluster.unless_gone((node, &route), Duration::ZERO, answer).await;
        answer.inspect_err(|_| self.forget())
    }

    /// `Ok`, or an error that names the group; a coordinator that moved is looked up again.
    pub(crate) fn check(&self, code: i16, what: impl FnOnce() -> String) -> Result<()> {
        let code = ErrorCode::from_i16(code);
        if code.is_ok() {
            return Ok(());
        }
        if matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) {
            self.forget();
        }
        if code == ErrorCode::GroupIdNotFound {
            return Err(Error::told(code, format!("there is no group {}", self.id)));
        }
        Err(match self.kind {
            Kind::Group => errors::of_group(code, &self.id, what()),
            Kind::Transactions => errors::of_transactional_id(code, &self.id, what()),
        })
    }

    /// Asks the coordinator once to store offsets; the answer is per partition. Without a member
    /// id, for a group that has no members.
    pub(crate) async fn commit(
        &self,
        member: Option<&GroupMetadata>,
        offsets: &Committed,
    ) -> Result<BTreeMap<TopicPartition, ErrorCode>> {
        let timeout = self.cluster.config.request_timeout;
        let response = self
            .call(Lane::Control, timeout, NAMES_UNTIL, |version| {
                let instance_id = member.and_then(|member| member.instance_id.as_deref());
                Ok(OffsetCommitRequest {
                    group_id: Str::from(self.id.as_str()),
                    generation_id_or_member_epoch: member.map_or(-1, |member| member.generation),
                    member_id: Str::from(member.map_or("", |member| &member.member_id)),
                    group_instance_id: instance_id.filter(|_| version >= 7).map(Str::from),
                    topics: commit_topics(offsets),
                    ..OffsetCommitRequest::default()
                })
            })
            .await?;
        let mut codes = BTreeMap::new();
        for topic in response.topics {
            let name: Arc<str> = Arc::from(topic.name.as_str());
            for partition in topic.partitions {
                let code = ErrorCode::from_i16(partition.error_code);
                if matches!(code, ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) {
                    self.forget();
                }
                codes.insert(
                    TopicPartition::new(Arc::clone(&name), partition.partition_index),
                    code,
                );
            }
        }
        match offsets.keys().find(|partition| !codes.contains_key(*partition)) {
            Some(missing) => {
                let detail = format!("the answer to a commit does not mention {missing}");
                Err(Error::malformed("response", detail))
            }
            None => Ok(codes),
        }
    }

    /// The committed offsets of some partitions, or (`None`) of all. Waits while the coordinator
    /// moves and, with `stable`, for pending transactions.
    pub(crate) async fn committed(
        &self,
        partitions: Option<&[TopicPartition]>,
        stable: bool,
    ) -> Result<Committed> {
        if partitions.is_some_and(<[_]>::is_empty) {
            return Ok(Committed::new());
        }
        let what = format!("fetching the offsets of group {}", self.id);
        self.cluster.retry(&what, async || self.try_committed(partitions, stable).await).await
    }

    async fn try_committed(
        &self,
        partitions: Option<&[TopicPartition]>,
        stable: bool,
    ) -> Result<Committed> {
        let timeout = self.cluster.config.request_timeout;
        let response = self
            .call(Lane::Control, timeout, NAMES_UNTIL, |version| {
                self.offset_fetch(version, partitions, stable)
            })
            .await?;
        self.read_committed(response)
    }

    fn offset_fetch(
        &self,
        version: i16,
        partitions: Option<&[TopicPartition]>,
        stable: bool,
    ) -> Result<OffsetFetchRequest> {
        if partitions.is_none() && version < 2 {
            let context = "fetching all offsets of a group: the broker is too old for it";
            return Err(errors::unsupported(context));
        }
        let topics = partitions.map(|partitions| by_topic(partitions.iter()));
        let group_id = Str::from(self.id.as_str());
        // Brokers before Kafka 2.5 cannot wait for pending transactions.
        let require_stable = stable && version >= 7;
        if version < 8 {
            let topic = |(name, partition_indexes): (&str, _)| OffsetFetchRequestTopic {
                name: Str::from(name),
                partition_indexes,
            };
            let topics = topics.map(|topics| topics.into_iter().map(topic).collect());
            return Ok(OffsetFetchRequest {
                group_id,
                topics,
                require_stable,
                ..OffsetFetchRequest::default()
            });
        }
        let topic = |(name, partition_indexes): (&str, _)| OffsetFetchRequestTopics {
            name: Str::from(name),
            partition_indexes,
            ..OffsetFetchRequestTopics::default()
        };
        let group = OffsetFetchRequestGroup {
            group_id,
            topics: topics.map(|topics| topics.into_iter().map(topic).collect()),
            ..OffsetFetchRequestGroup::default()
        };
        Ok(OffsetFetchRequest {
            groups: vec![group],
            require_stable,
            ..OffsetFetchRequest::default()
        })
    }

    fn read_committed(&self, response: OffsetFetchResponse) -> Result<Committed> {
        let what = || "fetching its offsets".to_owned();
        self.check(response.error_code, what)?;
        let mut committed = Committed::new();
        let mut add = |name: &str, index, offset, epoch, metadata: Option<Str>, code| {
            let partition = TopicPartition::new(name, index);
            self.check(code, || format!("fetching its offset for {partition}"))?;
            if offset >= 0 {
                let value = OffsetAndMetadata {
                    offset: Offset(offset),
                    leader_epoch: LeaderEpoch(epoch),
                    metadata: metadata.map(|text| text.to_string()).unwrap_or_default(),
                };
                committed.insert(partition, value);
            }
            Ok::<(), Error>(())
        };
        for topic in response.topics {
            for one in topic.partitions {
                let (offset, epoch) = (one.committed_offset, one.committed_leader_epoch);
                add(&topic.name, one.partition_index, offset, epoch, one.metadata, one.error_code)?;
            }
        }
        for group in response.groups {
            self.check(group.error_code, what)?;
            for topic in group.topics {
                for one in topic.partitions {
                    let (offset, epoch) = (one.committed_offset, one.committed_leader_epoch);
                    let (index, code) = (one.partition_index, one.error_code);
                    add(&topic.name, index, offset, epoch, one.metadata, code)?;
                }
            }
        }
        Ok(committed)
    }
}

/// The indexes of partitions, by topic, as requests have them.
pub(crate) fn by_topic<'a>(
    partitions: impl Iterator<Item = &'a TopicPartition>,
) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        topics.entry(&partition.topic).or_default().push(partition.partition.0);
    }
    topics
}

fn commit_topics(offsets: &Committed) -> Vec<OffsetCommitRequestTopic> {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for (partition, value) in offsets {
        topics.entry(&partition.topic).or_default().push(OffsetCommitRequestPartition {
            partition_index: partition.partition.0,
            committed_offset: value.offset.0,
            committed_leader_epoch: value.leader_epoch.0,
            committed_metadata: Some(Str::from(value.metadata.as_str())),
        });
    }
    let topic = |(name, partitions)| OffsetCommitRequestTopic {
        name: Str::from(name),
        partitions,
        ..OffsetCommitRequestTopic::default()
    };
    topics.into_iter().map(topic).collect()
}
