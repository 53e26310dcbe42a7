//! Which brokers have which partitions: moving replicas, electing leaders, and forgetting brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admin, check, is_about_controller, millis};
use crate::client::admin::types::{Election, PartitionReassignment};
use crate::client::errors;
use crate::client::route::Route;
use crate::error::Result;
use crate::protocol::Str;
use crate::protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use crate::protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use crate::protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use crate::protocol::messages::unregister_broker::UnregisterBrokerRequest;
use crate::types::{NodeId, TopicPartition};

/// How many partitions, or topics, one request is about: a controller decides one after another.
const PER_REQUEST: usize = 1000;

/// Outcomes by partition.
type Outcomes = BTreeMap<TopicPartition, Result<()>>;

impl Admin {
    /// Moves partitions to other replicas, of which the first is the preferred leader; without replicas, cancels
    /// what is under way. Returns once the controller has taken it up; [`Admin::list_partition_reassignments`]
    /// tells what is not finished.
    ///
    /// # Errors
    ///
    /// Per partition for example `INVALID_REPLICA_ASSIGNMENT`, `NO_REASSIGNMENT_IN_PROGRESS`,
    /// `UNKNOWN_TOPIC_OR_PARTITION`.
    pub async fn alter_partition_reassignments(
        &self,
        targets: &BTreeMap<TopicPartition, Option<Vec<NodeId>>>,
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let all: Vec<_> = targets.iter().collect();
        let mut outcomes = Outcomes::new();
        for some in all.chunks(PER_REQUEST) {
            let told = self
                .cluster
                .retry("moving partitions", async || {
                    let route = self.cluster.controller_route().await?;
                    self.try_alter_reassignments(&route, some).await
                })
                .await?;
            outcomes.extend(told);
        }
        Ok(outcomes)
    }

    async fn try_alter_reassignments(
        &self,
        route: &Route,
        targets: &[(&TopicPartition, &Option<Vec<NodeId>>)],
    ) -> Result<Outcomes> {
        let mut topics: BTreeMap<&str, Vec<ReassignablePartition>> = BTreeMap::new();
        for (partition, replicas) in targets {
            topics.entry(&partition.topic).or_default().push(ReassignablePartition {
                partition_index: partition.partition.0,
                replicas: replicas.as_ref().map(|ids| ids.iter().map(|id| id.0).collect()),
            });
        }
        let topic =
            |(name, partitions): (&str, _)| ReassignableTopic { name: Str::from(name), partitions };
        let request = AlterPartitionReassignmentsRequest {
            timeout_ms: millis(self.timeout()),
            topics: topics.into_iter().map(topic).collect(),
            ..AlterPartitionReassignmentsRequest::default()
        };
        let response = route.call(request, self.timeout()).await?;
        check(response.error_code, response.error_message.as_ref(), || {
            "moving partitions".to_owned()
        })?;
        let told = response.responses.into_iter().flat_map(|topic| {
            let name: Arc<str> = Arc::from(&*topic.name);
            topic.partitions.into_iter().map(move |one| Told {
                partition: TopicPartition::new(Arc::clone(&name), one.partition_index),
                error_code: one.error_code,
                message: one.error_message,
            })
        });
        outcomes("moving", told, targets.iter().map(|(partition, _)| *partition))
    }

    /// The partitions that are being moved.
    ///
    /// # Errors
    ///
    /// When no broker answers; `UNSUPPORTED_VERSION` before Kafka 2.4.
    pub async fn list_partition_reassignments(
        &self,
    ) -> Result<BTreeMap<TopicPartition, PartitionReassignment>> {
        let response = self
            .cluster
            .retry("listing the moves", async || {
                let route = self.cluster.controller_route().await?;
                let request = ListPartitionReassignmentsRequest {
                    timeout_ms: millis(self.timeout()),
                    topics: None,
                };
                let response = route.call(request, self.timeout()).await?;
                check(response.error_code, response.error_message.as_ref(), || {
                    "listing the moves".to_owned()
                })?;
                Ok(response)
            })
            .await?;
        let nodes = |ids: Vec<i32>| ids.into_iter().map(NodeId).collect();
        let mut moves = BTreeMap::new();
        for topic in response.topics {
            for one in topic.partitions {
                let found = PartitionReassignment {
                    replicas: nodes(one.replicas),
                    adding: nodes(one.adding_replicas),
                    removing: nodes(one.removing_replicas),
                };
                moves.insert(TopicPartition::new(&*topic.name, one.partition_index), found);
            }
        }
        Ok(moves)
    }

    /// Elects leaders of partitions, or of all (`None`), and returns the outcomes; of all, those that needed no
    /// election are left out.
    ///
    /// # Errors
    ///
    /// Per partition for example `ELECTION_NOT_NEEDED`, `PREFERRED_LEADER_NOT_AVAILABLE`,
    /// `ELIGIBLE_LEADERS_NOT_AVAILABLE`.
    pub async fn elect_leaders(
        &self,
        election: Election,
        partitions: Option<&BTreeSet<TopicPartition>>,
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        self.cluster
            .retry("electing leaders", async || {
                let route = self.cluster.controller_route().await?;
                self.try_elect_leaders(&route, election, partitions).await
            })
            .await
    }

    async fn try_elect_leaders(
        &self,
        route: &Route,
        election: Election,
        partitions: Option<&BTreeSet<TopicPartition>>,
    ) -> Result<Outcomes> {
        let by_topic = partitions.map(|partitions| {
            let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
            for partition in partitions {
                topics.entry(&partition.topic).or_default().push(partition.partition.0);
            }
            let topic = |(name, partitions): (&str, _)| TopicPartitions {
                topic: Str::from(name),
                partitions,
            };
            topics.into_iter().map(topic).collect()
        });
        let request = ElectLeadersRequest {
            election_type: election as i8,
            topic_partitions: by_topic,
            timeout_ms: millis(self.timeout()),
        };
        let response = route.call(request, self.timeout()).await?;
        check(response.error_code, None, || "electing leaders".to_owned())?;
        let told = response.replica_election_results.into_iter().flat_map(|topic| {
            let name: Arc<str> = Arc::from(&*topic.topic);
            topic.partition_result.into_iter().map(move |one| Told {
                partition: TopicPartition::new(Arc::clone(&name), one.partition_id),
                error_code: one.error_code,
                message: one.error_message,
            })
        });
        outcomes("electing the leader of", told, partitions.into_iter().flatten())
    }

    /// Forgets a broker that will not come back; it must have stopped.
    ///
    /// # Errors
    ///
    /// `BROKER_ID_NOT_REGISTERED`; of ottla, `INVALID_REQUEST` for a broker that is running.
    pub async fn unregister_broker(&self, id: NodeId) -> Result<()> {
        self.cluster
            .retry("unregistering a broker", async || {
                let route = self.cluster.any_route().await?;
                let request = UnregisterBrokerRequest { broker_id: id.0 };
                let response = route.call(request, self.timeout()).await?;
                if is_about_controller(response.error_code) {
                    return Err(errors::not_controller("unregistering a broker"));
                }
                check(response.error_code, response.error_message.as_ref(), || {
                    format!("unregistering broker {id}")
                })
            })
            .await
    }
}

/// What an answer says of a partition.
struct Told {
    partition: TopicPartition,
    error_code: i16,
    message: Option<Str>,
}

/// The outcomes by partition, of which none may be missing. A controller that is none any more has done nothing.
fn outcomes<'a>(
    doing: &str,
    told: impl Iterator<Item = Told>,
    asked: impl Iterator<Item = &'a TopicPartition>,
) -> Result<Outcomes> {
    let mut outcomes = Outcomes::new();
    for Told { partition, error_code, message } in told {
        let what = || format!("{doing} {partition}");
        if is_about_controller(error_code) {
            return Err(errors::not_controller(what()));
        }
        let outcome = check(error_code, message.as_ref(), what);
        outcomes.insert(partition, outcome);
    }
    for partition in asked {
        outcomes.entry(partition.clone()).or_insert_with(|| Err(errors::not_mentioned(partition)));
    }
    Ok(outcomes)
}
