//! The cluster as a whole, and as each of its nodes sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Admin, ResourceType, check};
use crate::client::admin::types::{ClusterState, NodeView, QuorumView, RegisteredBroker};
use crate::client::cluster::{BrokerInfo, Lane};
use crate::client::route::Route;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::describe_cluster::DescribeClusterRequest;
use crate::protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use crate::protocol::messages::describe_quorum::{
    DescribeQuorumRequest, PartitionData, ReplicaState, TopicData,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{LeaderEpoch, NodeId};

/// How many topics one request is about.
const PER_REQUEST: usize = 1000;
/// How long to wait for the quorum.
const QUORUM_MAX: Duration = Duration::from_secs(2);
/// The first version that tells of brokers that are fenced.
const VERSION_OF_FENCED: i16 = 2;
const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";

impl Admin {
    /// The brokers that are registered, by id, also those that do not take part at the moment. A cluster
    /// that does not tell of these (Apache Kafka before 4.0) lists the others, and whether they are fenced is unknown.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn registered_brokers(&self) -> Result<Vec<RegisteredBroker>> {
        self.cluster
            .retry("describing the brokers", async || {
                self.cluster.refresh(Some(&[])).await?;
                let route = self.cluster.any_route().await?;
                self.brokers_by(&route).await
            })
            .await
    }

    /// Everything that a description of the cluster needs, of now. Memory grows with the partitions.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn cluster_state(&self) -> Result<ClusterState> {
        let brokers = self.registered_brokers().await?;
        let topics = self.all_topics().await?;
        let names: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
        let min_insync_replicas = self.min_insync_replicas(&names).await?;
        let told = self.cluster.snapshot();
        // A quorum without a leader is to be seen, not waited for.
        let controller = match tokio::time::timeout(QUORUM_MAX, self.describe_quorum()).await {
            Ok(Ok(quorum)) => Some(quorum.leader),
            Ok(Err(error)) if is_untold(error.code()) => told.controller,
            Ok(Err(_)) | Err(_) => None,
        };
        let cluster_id = told.cluster_id.clone();
        Ok(ClusterState { cluster_id, controller, brokers, topics, min_insync_replicas })
    }

    /// What one node, which is asked itself, says of the cluster. [`NodeId::NONE`] is the first of
    /// `bootstrap.servers` that answers. Each question waits for `request.timeout.ms` at most.
    ///
    /// # Errors
    ///
    /// When the node cannot be connected to.
    pub async fn seen_by(&self, node: NodeId) -> Result<NodeView> {
        let route = self.cluster.route(node, Lane::Control).await?;
        let quorum = self.quorum_by(&route).await;
        let brokers = self.brokers_by(&route).await;
        let topics = match self.cluster.refresh_by(&route).await {
            Ok(()) => Ok(self.cluster.snapshot().topics.values().cloned().collect()),
            Err(error) => Err(error),
        };
        Ok(NodeView { quorum, brokers, topics })
    }

    /// What one node, which is asked itself, says of the metadata quorum; see [`Admin::seen_by`]. One that is
    /// starting answers this, too.
    ///
    /// # Errors
    ///
    /// `NOT_LEADER_OR_FOLLOWER` when it knows no leader; when it cannot be connected to.
    pub async fn quorum_seen_by(&self, node: NodeId) -> Result<QuorumView> {
        let route = self.cluster.route(node, Lane::Control).await?;
        self.quorum_by(&route).await
    }

    async fn quorum_by(&self, route: &Route) -> Result<QuorumView> {
        let request = DescribeQuorumRequest {
            topics: vec![TopicData {
                topic_name: Str::from_static("__cluster_metadata"),
                partitions: vec![PartitionData { partition_index: 0 }],
            }],
        };
        let response = route.call(request, self.timeout()).await?;
        let what = || "the metadata quorum".to_owned();
        check(response.error_code, response.error_message.as_ref(), what)?;
        let mut partitions = response.topics.into_iter().flat_map(|topic| topic.partitions);
        let answer = partitions
            .next()
            .ok_or_else(|| Error::malformed("response", "it contains no quorum"))?;
        check(answer.error_code, answer.error_message.as_ref(), what)?;
        let leader = NodeId(answer.leader_id);
        // All times are of the leader's clock, and its own time is that of the answer.
        let own = answer.current_voters.iter().find(|voter| voter.replica_id == leader.0);
        let now = own.map_or(-1, |voter| voter.last_caught_up_timestamp);
        let silence = |voter: &ReplicaState| {
            let is_known = now >= 0 && voter.last_fetch_timestamp >= 0;
            let ms = now.saturating_sub(voter.last_fetch_timestamp);
            (NodeId(voter.replica_id), is_known.then(|| ms.max(0).unsigned_abs()))
        };
        Ok(QuorumView {
            leader,
            leader_epoch: LeaderEpoch(answer.leader_epoch),
            silences_ms: answer.current_voters.iter().map(silence).collect(),
        })
    }

    async fn brokers_by(&self, route: &Route) -> Result<Vec<RegisteredBroker>> {
        let version = route.version(ApiKey::DescribeCluster).unwrap_or(0);
        if version < VERSION_OF_FENCED {
            let known = self.cluster.snapshot();
            let unknown = |info: &BrokerInfo| RegisteredBroker { info: info.clone(), fenced: None };
            return Ok(known.brokers.values().map(unknown).collect());
        }
        let request = DescribeClusterRequest {
            include_fenced_brokers: true,
            ..DescribeClusterRequest::default()
        };
        let response = route.call_at(request, version, self.timeout()).await?;
        check(response.error_code, response.error_message.as_ref(), || {
            "describing the brokers".to_owned()
        })?;
        let mut brokers: Vec<_> = response
            .brokers
            .into_iter()
            .map(|broker| RegisteredBroker {
                info: BrokerInfo {
                    id: NodeId(broker.broker_id),
                    host: broker.host.to_string(),
                    port: broker.port,
                    rack: broker.rack.map(|rack| rack.to_string()),
                },
                fenced: Some(broker.is_fenced),
            })
            .collect();
        brokers.sort_unstable_by_key(|broker| broker.info.id);
        Ok(brokers)
    }

    /// `min.insync.replicas` of topics, in one request for many of them. Topics that do not exist, or whose
    /// settings the caller may not see, are left out.
    ///
    /// # Errors
    ///
    /// When no broker answers.
    pub async fn min_insync_replicas(&self, topics: &[&str]) -> Result<BTreeMap<String, usize>> {
        let values = self.setting_of(topics, MIN_INSYNC_REPLICAS).await?;
        let parsed = |(topic, value): (String, String)| Some((topic, value.parse().ok()?));
        Ok(values.into_iter().filter_map(parsed).collect())
    }

    /// A setting of topics, as [`Admin::min_insync_replicas`].
    pub(super) async fn setting_of(
        &self,
        topics: &[&str],
        name: &'static str,
    ) -> Result<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        for some in topics.chunks(PER_REQUEST) {
            let response = self
                .cluster
                .retry("describing configs", async || {
                    let resource = |topic: &&str| DescribeConfigsResource {
                        resource_type: ResourceType::Topic as i8,
                        resource_name: Str::from(*topic),
                        configuration_keys: Some(vec![Str::from_static(name)]),
                    };
                    let request = DescribeConfigsRequest {
                        resources: some.iter().map(resource).collect(),
                        ..DescribeConfigsRequest::default()
                    };
                    let route = self.cluster.any_route().await?;
                    route.call(request, self.timeout()).await
                })
                .await?;
            for result in response.results {
                let setting = result.configs.iter().find(|one| &*one.name == name);
                if let Some(value) = setting.and_then(|one| one.value.as_ref()) {
                    found.insert(result.resource_name.to_string(), value.to_string());
                }
            }
        }
        Ok(found)
    }
}

/// Whether there is no quorum (Apache Kafka with ZooKeeper), or none that the caller may see.
const fn is_untold(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::UnsupportedVersion | ErrorCode::ClusterAuthorizationFailed)
}
