//! Whether a member has all that it is going to get.
//!
//! A member that reads up to the ends must not stop with half of its partitions. It cannot tell by
//! itself: a coordinator of the consumer protocol answers with nothing until it has assigned, and in
//! a cooperative rebalance partitions are nobody's for a moment. The coordinator knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::options::{GroupOptions, Subscription};
use crate::client::admin::{Admin, GroupDescription};
use crate::client::cluster::{Cluster, PartitionInfo, Snapshot};
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;

/// Asks the coordinator whether a member has all that the group has for it now.
pub(super) async fn is_settled(cluster: &Arc<Cluster>, group: &str, member: &str) -> Result<bool> {
    let admin = Admin::new(Arc::clone(cluster));
    let described = admin.describe_groups(&[group]).await?;
    match described.into_iter().next() {
        Some(Ok(group)) => Ok(has_all(&group, member, &cluster.snapshot())),
        // It may have moved, or forgotten the member: the membership finds out.
        Some(Err(error)) => {
            tracing::debug!(error = %error.chain(), "asking for the state of the group failed");
            Ok(false)
        }
        None => Ok(false),
    }
}

/// Whether anything could come at all: reading that ends with nothing because a name was mistyped
/// looks like reading that has caught up.
///
/// # Errors
///
/// None of the topics exists.
pub(super) async fn check_topics(cluster: &Cluster, options: &GroupOptions) -> Result<()> {
    let Subscription::Topics(topics) = &options.subscription else { return Ok(()) };
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    cluster.refresh(Some(&names)).await?;
    let snapshot = cluster.snapshot();
    if names.iter().any(|name| snapshot.topics.contains_key(*name)) {
        return Ok(());
    }
    let named = if let [name] = names[..] {
        format!("topic {name}")
    } else {
        format!("topics {}", names.join(", "))
    };
    let context = format!("{named}, which group {} was to read", options.group_id);
    Err(Error::kafka(ErrorCode::UnknownTopicOrPartition, context))
}

fn has_all(group: &GroupDescription, member: &str, cluster: &Snapshot) -> bool {
    let Some(own) = group.members.iter().find(|one| one.member_id == member) else {
        return false;
    };
    if own.epoch >= 0 && own.epoch != group.epoch {
        return false;
    }
    if own.target.is_some() {
        return false;
    }
    if group.group_type == "consumer" {
        return true;
    }
    // In a classic group everything is somebody's, or a rebalance follows.
    let owned: BTreeSet<&TopicPartition> =
        group.members.iter().flat_map(|one| &one.assignment).collect();
    let topics = own.topics.iter().filter_map(|name| cluster.topics.get(name.as_str()));
    group.state == "Stable"
        && topics
            .flat_map(|topic| {
                let named = |one: &PartitionInfo| {
                    TopicPartition::new(Arc::clone(&topic.name), one.partition)
                };
                topic.partitions.iter().map(named)
            })
            .all(|partition| owned.contains(&partition))
}
