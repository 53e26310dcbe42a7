//! Partitions as they are named in arguments: `orders`, `orders:0`, and with replicas, `orders:0=1,2`.

use std::str::FromStr;
use std::sync::Arc;

use super::super::Failure;
use crate::client::admin::{Admin, Placed};
use crate::client::{PartitionInfo, TopicInfo};
use crate::error::{Error, ErrorCode};
use crate::types::{NodeId, PartitionIndex, TopicPartition};

/// A topic, or one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct Target {
    pub(in crate::cli) topic: String,
    pub(in crate::cli) partition: Option<PartitionIndex>,
    /// Where it is to go, if that is said.
    pub(in crate::cli) replicas: Option<Vec<NodeId>>,
}

/// A list of brokers, as in `1,2,3`.
pub(super) fn nodes(text: &str) -> Result<Vec<NodeId>, String> {
    let node = |one: &str| {
        let id = one.trim().parse::<i32>().ok().filter(|id| *id >= 0);
        id.map(NodeId).ok_or_else(|| format!("{one:?} is not the id of a broker"))
    };
    text.split(',').map(node).collect()
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, replicas) = match text.split_once('=') {
            Some((name, replicas)) => (name, Some(nodes(replicas)?)),
            None => (text, None),
        };
        let (topic, partition) = match name.split_once(':') {
            Some((topic, index)) => {
                let known = index.parse::<PartitionIndex>().ok().filter(|it| it.place().is_some());
                let wrong = || format!("{index:?} is not the number of a partition");
                (topic, Some(known.ok_or_else(wrong)?))
            }
            None => (name, None),
        };
        if topic.is_empty() {
            return Err("use TOPIC, TOPIC:PARTITION or TOPIC:PARTITION=BROKER,…".to_owned());
        }
        if replicas.is_some() && partition.is_none() {
            return Err(format!("name the partition whose brokers these are: {topic}:0=…"));
        }
        Ok(Self { topic: topic.to_owned(), partition, replicas })
    }
}

/// A partition of a topic.
pub(super) fn named(topic: &TopicInfo, info: &PartitionInfo) -> TopicPartition {
    TopicPartition::new(Arc::clone(&topic.name), info.partition)
}

/// All partitions of topics, where they are.
pub(super) fn all(topics: &[Arc<TopicInfo>]) -> Vec<Placed> {
    let of = |topic: &Arc<TopicInfo>| -> Vec<Placed> {
        let one = |info: &PartitionInfo| Placed {
            partition: named(topic, info),
            replicas: info.replicas.clone(),
        };
        topic.partitions.iter().map(one).collect()
    };
    topics.iter().flat_map(of).collect()
}

/// The partitions that are meant, in order and each once.
pub(in crate::cli) async fn chosen(
    admin: &Admin,
    topics: &[Arc<TopicInfo>],
    targets: &[Target],
) -> Result<Vec<TopicPartition>, Failure> {
    let mut found = std::collections::BTreeSet::new();
    for target in targets {
        let Some(topic) = topics.iter().find(|topic| *topic.name == *target.topic) else {
            let error = Error::kafka(ErrorCode::UnknownTopicOrPartition, target.topic.clone());
            return Err(admin.with_nearest(&target.topic, error).await.into());
        };
        match target.partition {
            None => found.extend(topic.partitions.iter().map(|info| named(topic, info))),
            Some(index) => match topic.partition(index) {
                Some(info) => {
                    found.insert(named(topic, info));
                }
                None => {
                    let text = format!(
                        "topic {} has no partition {index}, it has {}",
                        topic.name,
                        topic.partition_count()
                    );
                    return Err(Error::told(ErrorCode::UnknownTopicOrPartition, text).into());
                }
            },
        }
    }
    Ok(found.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_named_with_or_without_their_brokers() {
        let target = |topic: &str, partition, replicas: Option<&[i32]>| Target {
            topic: topic.to_owned(),
            partition,
            replicas: replicas.map(|ids| ids.iter().copied().map(NodeId).collect()),
        };
        assert_eq!("orders".parse(), Ok(target("orders", None, None)));
        assert_eq!("orders:3".parse(), Ok(target("orders", Some(PartitionIndex(3)), None)));
        assert_eq!(
            "orders:0=2, 1".parse(),
            Ok(target("orders", Some(PartitionIndex(0)), Some(&[2, 1])))
        );
        for wrong in ["", ":1", "orders:x", "orders:-1", "orders=1", "orders:0=", "orders:0=1,x"] {
            assert!(wrong.parse::<Target>().is_err(), "{wrong}");
        }
    }
}
