//! Determines whether a member has all the partitions that it will get.
//!
//! A member that reads up to the ends must not stop with only half of its partitions. It cannot tell
//! by itself: a coordinator of the consumer protocol sends no partitions until it has assigned them,
//! and in a cooperative rebalance partitions have no owner for a moment. The coordinator knows.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::options::{GroupOptions, Subscription, whole_name};
use crate::client::admin::{Admin, GroupDescription};
use crate::client::cluster::{Cluster, PartitionInfo, Snapshot};
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;

/// Asks the coordinator whether a member has everything that the group currently has for it.
pub(super) async fn is_settled(cluster: &Arc<Cluster>, group: &str, member: &str) -> Result<bool> {
    let admin = Admin::new(Arc::clone(cluster));
    let described = admin.describe_groups(&[group]).await?;
    match described.into_iter().next() {
        Some(Ok(group)) => Ok(has_all(&group, member, &cluster.snapshot())),
        // It may have moved, or forgotten the member: the membership will find out.
        Some(Err(error)) => {
            tracing::debug!(error = %error.chain(), "asking for the state of the group failed");
            Ok(false)
        }
        None => Ok(false),
    }
}

/// Checks that there is anything to read: reading nothing because of a mistyped name would look
/// like having caught up.
///
/// # Errors
///
/// When none of the topics exists.
pub(super) async fn check_topics(cluster: &Cluster, options: &GroupOptions) -> Result<()> {
    let topics = match &options.subscription {
        Subscription::Topics(topics) => topics,
        Subscription::Pattern(pattern) => return check_pattern(cluster, options, pattern).await,
    };
    let names: Vec<&str> = topics.iter().map(String::as_str).collect();
    cluster.refresh(Some(&names)).await?;
    let snapshot = cluster.snapshot();
    let is_there = |name: &&&str| snapshot.topics.contains_key(**name);
    let missing: Vec<&str> = names.iter().filter(|name| !is_there(name)).copied().collect();
    if missing.len() < names.len() {
        if !missing.is_empty() {
            let (group, topics) = (&options.group_id, missing.join(", "));
            tracing::warn!(group, topics, "some topics do not exist; the others were read");
        }
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

async fn check_pattern(cluster: &Cluster, options: &GroupOptions, pattern: &str) -> Result<()> {
    // A coordinator that matches patterns itself uses another syntax; ottla's is close enough to
    // tell whether anything matches.
    let Ok(matches) = whole_name(pattern) else { return Ok(()) };
    cluster.refresh(None).await?;
    let snapshot = cluster.snapshot();
    let mut topics = snapshot.topics.values().filter(|topic| !topic.is_internal);
    if topics.any(|topic| matches.is_match(&topic.name)) {
        return Ok(());
    }
    let context =
        format!("no topic matches {pattern}, which group {} was to read", options.group_id);
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
    // In a classic group every partition has an owner, or a rebalance follows.
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
