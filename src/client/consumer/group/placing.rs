//! Determines where a member starts to read its assigned partitions.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::admin::{OffsetSpec, list_offsets};
use crate::client::config::{AutoOffsetReset, ConsumerConfig, IsolationLevel};
use crate::client::consumer::StartAt;
use crate::client::coordinator::{Committed, Coordinator};
use crate::client::transaction::own_commits;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::fetching::Position;
use crate::machine::client::group::Partitions;
use crate::types::{Offset, TopicId, TopicPartition};

/// A partition with its start.
#[derive(Debug)]
pub(super) struct Placed {
    pub(super) partition: TopicPartition,
    pub(super) topic_id: TopicId,
    /// The committed offset, or the start given by `auto.offset.reset`.
    pub(super) start: std::result::Result<Position, StartAt>,
    /// Where reading ends, if it does.
    pub(super) end: Option<Offset>,
}

/// The committed offsets. The end of a pending transaction is waited for however long it takes: its coordinator aborts
/// it after its timeout, and whoever gave up before would not get further by trying again.
async fn committed(
    coordinator: &Coordinator,
    partitions: &[TopicPartition],
    stable: bool,
) -> Result<Committed> {
    loop {
        match coordinator.committed(Some(partitions), stable).await {
            Err(error) if error.code() == ErrorCode::UnstableOffsetCommit => {
                tracing::warn!(
                    group = coordinator.id,
                    error = %error.chain(),
                    "waiting for the end of a transaction that has offsets of the group; a producer with its \
                     transactional id ends it, or its coordinator after transaction.timeout.ms"
                );
            }
            other => return other,
        }
    }
}

/// Finds the starts of partitions and, with `until_caught_up`, their ends. A topic that was deleted
/// meanwhile is left out: the next rebalance revokes its partitions.
pub(super) async fn place(
    coordinator: Arc<Coordinator>,
    config: ConsumerConfig,
    partitions: Partitions,
    until_caught_up: bool,
) -> Result<Vec<Placed>> {
    let cluster = &coordinator.cluster;
    let mut ids: BTreeMap<Arc<str>, Option<TopicId>> = BTreeMap::new();
    for partition in &partitions {
        let name = &partition.topic;
        if ids.contains_key(name) {
            continue;
        }
        let topic = cluster.retry("looking up a topic", async || cluster.topic(name).await).await;
        let id = match topic {
            Ok(topic) => Some(topic.id),
            Err(error) if error.code() == ErrorCode::UnknownTopicOrPartition => None,
            Err(error) => return Err(error),
        };
        ids.insert(Arc::clone(name), id);
    }
    let exists = |one: &&TopicPartition| ids.get(&one.topic).copied().flatten().is_some();
    let known: Vec<TopicPartition> = partitions.iter().filter(exists).cloned().collect();
    let stable = config.isolation_level == IsolationLevel::ReadCommitted;
    let committed = committed(&coordinator, &known, stable).await?;
    if config.auto_offset_reset == Some(AutoOffsetReset::Error)
        && let Some(partition) = known.iter().find(|one| !committed.contains_key(*one))
    {
        return Err(Error::invalid(format!(
            "group {} has no offset for {partition}, and auto.offset.reset is none; commit one, or \
             set auto.offset.reset",
            coordinator.id
        )));
    }
    let ends = if until_caught_up {
        if stable {
            own_commits(cluster, &ids.keys().map(|topic| &**topic).collect()).await?;
        }
        let wanted = known.iter().map(|one| (one.clone(), OffsetSpec::Latest)).collect();
        list_offsets(cluster, &wanted, config.isolation_level).await?
    } else {
        BTreeMap::new()
    };
    let placed = known.into_iter().map(|partition| {
        let committed = committed.get(&partition);
        let start = committed.map(|it| Position { offset: it.offset, epoch: it.leader_epoch });
        Placed {
            topic_id: ids.get(&partition.topic).copied().flatten().unwrap_or_default(),
            start: start.ok_or(StartAt::Default),
            end: ends.get(&partition).and_then(|listed| listed.offset),
            partition,
        }
    });
    Ok(placed.collect())
}
