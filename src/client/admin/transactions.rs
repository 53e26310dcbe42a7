//! Transactions as an operator sees them: which there are, what they hold up, and ending one that nobody else ends.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{ActiveProducer, Admin, check, outer};
use crate::client::cluster::Lane;
use crate::client::coordinator::Coordinator;
use crate::client::errors;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::describe_transactions::DescribeTransactionsRequest;
use crate::protocol::messages::list_transactions::ListTransactionsRequest;
use crate::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerTopic, WriteTxnMarkersRequest,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{NodeId, ProducerEpoch, ProducerId, TimestampMs, TopicPartition};

/// Which transactions are listed; all that are left empty do not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TransactionFilter {
    /// In one of these states, for example `Ongoing`.
    pub states: Vec<String>,
    /// Of one of these producers.
    pub producer_ids: Vec<ProducerId>,
    /// Open for longer than this, in milliseconds.
    pub longer_than_ms: Option<i64>,
    /// Whose whole transactional id matches this regular expression, as the broker reads it.
    pub pattern: Option<String>,
}

/// A transactional id, in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TransactionListing {
    /// `transactional.id`.
    pub transactional_id: String,
    /// Its producer.
    pub producer_id: ProducerId,
    /// The state, in Kafka's words.
    pub state: String,
    /// Its coordinator.
    pub coordinator: NodeId,
}

/// A transactional id, with its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionDescription {
    /// `transactional.id`.
    pub transactional_id: String,
    /// Its coordinator.
    pub coordinator: NodeId,
    /// The state, in Kafka's words.
    pub state: String,
    /// Its producer.
    pub producer_id: ProducerId,
    /// The producer's epoch.
    pub producer_epoch: ProducerEpoch,
    /// `transaction.timeout.ms`.
    pub timeout_ms: i32,
    /// When the transaction began, if one is open.
    pub started_at: Option<TimestampMs>,
    /// Its partitions; when it is ending, those that wait for their marker.
    pub partitions: BTreeSet<TopicPartition>,
}

/// A transaction that is open in a partition, and that no coordinator will end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HangingTransaction {
    /// Where it holds up readers.
    pub partition: TopicPartition,
    /// Its producer, with the offset at which it began there.
    pub producer: ActiveProducer,
}

impl Admin {
    /// The transactional ids of the cluster, in order.
    ///
    /// # Errors
    ///
    /// When a broker does not answer in time, is too old for the filter, or does not know a state or the pattern.
    pub async fn list_transactions(
        &self,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>> {
        let ask = |node| self.try_list_transactions(node, filter);
        Ok(self.of_all_brokers("listing transactions", ask).await?.into_iter().collect())
    }

    async fn try_list_transactions(
        &self,
        node: NodeId,
        filter: &TransactionFilter,
    ) -> Result<Vec<TransactionListing>> {
        let route = self.cluster.route(node, Lane::Control).await?;
        let version = route.version(ApiKey::ListTransactions)?;
        for (is_asked, since, what) in [
            (filter.longer_than_ms.is_some(), 1, "duration"),
            (filter.pattern.is_some(), 2, "pattern"),
        ] {
            if is_asked && version < since {
                let context =
                    format!("listing transactions by {what}: broker {node} is too old for it");
                return Err(errors::unsupported(context));
            }
        }
        let request = ListTransactionsRequest {
            state_filters: filter.states.iter().map(|state| Str::from(state.as_str())).collect(),
            producer_id_filters: filter.producer_ids.iter().map(|id| id.0).collect(),
            duration_filter: filter.longer_than_ms.unwrap_or(-1),
            transactional_id_pattern: filter.pattern.as_deref().map(Str::from),
        };
        let response = route.call_at(request, version, self.timeout()).await?;
        check(response.error_code, None, || format!("listing the transactions of broker {node}"))?;
        if let Some(unknown) = response.unknown_state_filters.first() {
            return Err(Error::invalid(format!(
                "there is no state {:?} of a transaction; the states are Empty, Ongoing, PrepareCommit, \
                 PrepareAbort, CompleteCommit, CompleteAbort, PrepareEpochFence and Dead",
                unknown.as_str()
            )));
        }
        let listing = |one: crate::protocol::messages::list_transactions::TransactionState| {
            TransactionListing {
                transactional_id: one.transactional_id.to_string(),
                producer_id: ProducerId(one.producer_id),
                state: one.transaction_state.to_string(),
                coordinator: node,
            }
        };
        let mut listed: Vec<_> = response.transaction_states.into_iter().map(listing).collect();
        if filter.longer_than_ms.is_some() {
            // To Apache Kafka, what has not begun is older than anything.
            listed.retain(|one| one.state == "Ongoing" || one.state.starts_with("Prepare"));
        }
        Ok(listed)
    }

    /// The transactions of some ids.
    ///
    /// # Errors
    ///
    /// Per id `TRANSACTIONAL_ID_NOT_FOUND`, or the error of its coordinator.
    pub async fn describe_transactions(
        &self,
        ids: &[&str],
    ) -> Result<Vec<Result<TransactionDescription>>> {
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let coordinator = Coordinator::of_transactions(Arc::clone(&self.cluster), *id);
            let described = self
                .cluster
                .retry("describing transactions", async || describe_transaction(&coordinator).await)
                .await;
            results.push(outer(described)?);
        }
        Ok(results)
    }

    /// Of some partitions, the transactions that are older than `older_than_ms`, and that no coordinator has: nobody
    /// ends them, and readers of what is committed wait behind them for ever. What is younger may be on its way to
    /// its coordinator, or its marker here.
    ///
    /// # Errors
    ///
    /// When a leader or a coordinator does not answer.
    pub async fn hanging_transactions(
        &self,
        partitions: &[TopicPartition],
        older_than_ms: i64,
    ) -> Result<Vec<HangingTransaction>> {
        let now = self.cluster.env.clock.now();
        let mut open: Vec<HangingTransaction> = Vec::new();
        for partition in partitions {
            let producers = self.describe_producers(partition).await?.into_iter();
            let old = producers.filter(|one| {
                one.transaction_start.is_some()
                    && now.0.saturating_sub(one.last_timestamp.0) > older_than_ms
            });
            let named = |producer| HangingTransaction { partition: partition.clone(), producer };
            open.extend(old.map(named));
        }
        if open.is_empty() {
            return Ok(open);
        }
        let ids: BTreeSet<ProducerId> = open.iter().map(|one| one.producer.id).collect();
        let filter = TransactionFilter {
            producer_ids: ids.into_iter().collect(),
            ..TransactionFilter::default()
        };
        let mut known: BTreeMap<ProducerId, BTreeSet<TopicPartition>> = BTreeMap::new();
        for listed in self.list_transactions(&filter).await? {
            let described = self.describe_transactions(&[&listed.transactional_id]).await?;
            for described in described {
                match described {
                    Ok(described) => {
                        known
                            .entry(described.producer_id)
                            .or_default()
                            .extend(described.partitions);
                    }
                    // It was there a moment ago.
                    Err(error) if error.code() == ErrorCode::TransactionalIdNotFound => {}
                    Err(error) => return Err(error),
                }
            }
        }
        open.retain(|one| {
            known
                .get(&one.producer.id)
                .is_none_or(|partitions| !partitions.contains(&one.partition))
        });
        Ok(open)
    }

    /// Writes the marker that aborts a producer's transaction in one partition, as its coordinator would. Only for one
    /// that hangs: where a coordinator has it, it would be torn.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_EPOCH` when the producer has another epoch by now; `TRANSACTION_COORDINATOR_FENCED`.
    pub async fn abort_transaction(
        &self,
        partition: &TopicPartition,
        producer: &ActiveProducer,
    ) -> Result<()> {
        let producer_epoch = i16::try_from(producer.epoch).map_err(|_out_of_range| {
            Error::invalid(format!("{} is not an epoch", producer.epoch))
        })?;
        self.cluster
            .retry("aborting a transaction", async || {
                let route = self.leader_route(partition).await?;
                let marker = WritableTxnMarker {
                    producer_id: producer.id.0,
                    producer_epoch,
                    transaction_result: false,
                    topics: vec![WritableTxnMarkerTopic {
                        name: Str::from(&*partition.topic),
                        partition_indexes: vec![partition.partition.0],
                    }],
                    // No marker of a coordinator was seen yet: the lowest epoch is not above that of any.
                    coordinator_epoch: producer.coordinator_epoch.max(0),
                    transaction_version: 0,
                };
                let request = WriteTxnMarkersRequest { markers: vec![marker] };
                let response = route.call(request, self.timeout()).await?;
                let answers = response.markers.into_iter().flat_map(|marker| marker.topics);
                let answer = answers
                    .flat_map(|topic| topic.partitions)
                    .find(|answer| answer.partition_index == partition.partition.0);
                let answer = answer.ok_or_else(|| errors::not_mentioned(partition))?;
                check(answer.error_code, None, || {
                    format!("aborting the transaction of producer {} in {partition}", producer.id)
                })
            })
            .await
    }
}

/// Asks the coordinator of a transactional id once.
pub(in crate::client) async fn describe_transaction(
    coordinator: &Coordinator,
) -> Result<TransactionDescription> {
    let id = coordinator.id.as_str();
    let node = coordinator.node().await?;
    let response = coordinator
        .call(Lane::Control, coordinator.cluster.config.request_timeout, i16::MAX, |_| {
            Ok(DescribeTransactionsRequest { transactional_ids: vec![Str::from(id)] })
        })
        .await?;
    let answer = response.transaction_states.into_iter().next();
    let answer = answer.ok_or_else(|| errors::not_mentioned(id))?;
    if ErrorCode::from_i16(answer.error_code) == ErrorCode::TransactionalIdNotFound {
        let text = format!("there is no transactional id {id}");
        return Err(Error::told(ErrorCode::TransactionalIdNotFound, text));
    }
    coordinator.check(answer.error_code, || "describing its transaction".to_owned())?;
    let partitions = answer.topics.iter().flat_map(|topic| {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        topic.partitions.iter().map(move |one| TopicPartition::new(Arc::clone(&name), *one))
    });
    Ok(TransactionDescription {
        transactional_id: id.to_owned(),
        coordinator: node,
        state: answer.transaction_state.to_string(),
        producer_id: ProducerId(answer.producer_id),
        producer_epoch: ProducerEpoch(answer.producer_epoch),
        timeout_ms: answer.transaction_timeout_ms,
        started_at: Some(TimestampMs(answer.transaction_start_time_ms))
            .filter(|&time| time > TimestampMs::NONE),
        partitions: partitions.collect(),
    })
}
