//! Whether a member has all that it is going to get.
//!
//! A member that reads up to the ends must not stop with half of its partitions. It cannot tell by
//! itself: a coordinator of the consumer protocol answers with nothing until it has assigned, and in
//! a cooperative rebalance partitions are nobody's for a moment. The coordinator knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::client::admin::{Admin, GroupDescription};
use crate::client::cluster::{Cluster, PartitionInfo, Snapshot};
use crate::error::Result;
use crate::types::TopicPartition;

/// Asks the coordinator whether a member has all that the group has for it now.
pub(super) async fn is_settled(
    cluster: Arc<Cluster>,
    group: String,
    member: String,
) -> Result<bool> {
    let admin = Admin::new(Arc::clone(&cluster));
    let described = admin.describe_groups(&[group.as_str()]).await?;
    match described.into_iter().next() {
        Some(Ok(group)) => Ok(has_all(&group, &member, &cluster.snapshot())),
        // It may have moved, or forgotten the member: the membership finds out.
        Some(Err(error)) => {
            tracing::debug!(error = %error.chain(), "asking for the state of the group failed");
            Ok(false)
        }
        None => Ok(false),
    }
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
