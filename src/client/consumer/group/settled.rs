//! Determines whether a member has all the partitions that it will get.
//!
//! A member that reads up to the ends must not stop with only half of its partitions. It cannot tell
//! by itself: a coordinator of the consumer protocol sends no partitions until it has assigned them,
//! and in a cooperative rebalance partitions have no owner for a moment. The coordinator knows. What it
//! says may arrive before its answer to a heartbeat that has more partitions for the member, on another
//! connection; so it counts only where the member knows as much.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::watch;

use super::link::View;
use super::options::{GroupOptions, Subscription, whole_name};
use crate::client::admin::{Admin, GroupDescription};
use crate::client::cluster::{Cluster, PartitionInfo, Snapshot};
use crate::error::{Error, ErrorCode, Result};
use crate::types::TopicPartition;

/// Asks the coordinator whether a member has everything that the group currently has for it.
pub(super) async fn is_settled(
    cluster: &Arc<Cluster>,
    group: &str,
    view: &watch::Sender<View>,
) -> Result<bool> {
    let admin = Admin::new(Arc::clone(cluster));
    let described = admin.describe_groups(&[group]).await?;
    match described.into_iter().next() {
        Some(Ok(group)) => Ok(has_all(&group, &view.borrow(), &cluster.snapshot())),
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

fn has_all(group: &GroupDescription, view: &View, cluster: &Snapshot) -> bool {
    let member = &view.identity.member_id;
    let Some(own) = group.members.iter().find(|one| one.member_id == *member) else {
        return false;
    };
    if own.epoch >= 0 && (own.epoch != group.epoch || own.epoch != view.identity.generation) {
        return false;
    }
    if own.target.is_some() || !own.assignment.is_subset(&view.owned) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::admin::GroupMember;
    use crate::machine::client::group::Identity;
    use crate::types::NodeId;

    fn partitions(numbers: &[i32]) -> BTreeSet<TopicPartition> {
        numbers.iter().map(|&number| TopicPartition::new("t", number)).collect()
    }

    fn view(generation: i32, owned: &[i32]) -> View {
        View {
            identity: Identity { member_id: "a".to_owned(), generation },
            owned: partitions(owned),
            is_stable: true,
            lost_reason: String::new(),
        }
    }

    /// A group of the consumer protocol with one member.
    fn group(epoch: i32, own: i32, assignment: &[i32], target: Option<&[i32]>) -> GroupDescription {
        GroupDescription {
            group_id: "g".to_owned(),
            group_type: "consumer".to_owned(),
            state: "Stable".to_owned(),
            assignor: "uniform".to_owned(),
            epoch,
            coordinator: NodeId(1),
            members: vec![GroupMember {
                member_id: "a".to_owned(),
                instance_id: None,
                client_id: String::new(),
                host: String::new(),
                rack: None,
                epoch: own,
                topics: BTreeSet::new(),
                pattern: None,
                assignment: partitions(assignment),
                target: target.map(partitions),
            }],
        }
    }

    #[test]
    fn a_member_has_all_when_it_knows_what_the_coordinator_gave_it() {
        let snapshot = Snapshot::default();
        let has_all = |group: &GroupDescription, view: &View| has_all(group, view, &snapshot);
        assert!(has_all(&group(5, 5, &[0, 1], None), &view(5, &[0, 1])));
        assert!(has_all(&group(5, 5, &[], None), &view(5, &[])));
        // The group is about to assign.
        assert!(!has_all(&group(6, 5, &[0], None), &view(5, &[0])));
        assert!(!has_all(&group(5, 5, &[0], Some(&[0, 1])), &view(5, &[0])));
        // Another member died, and the answer with its partitions is on its way.
        assert!(!has_all(&group(6, 6, &[0, 1], None), &view(5, &[0])));
        assert!(!has_all(&group(5, 5, &[0, 1], None), &view(5, &[0])));
        // The group has forgotten the member.
        let other = View {
            identity: Identity { member_id: "b".to_owned(), generation: 5 },
            ..view(5, &[0])
        };
        assert!(!has_all(&group(5, 5, &[0], None), &other));
    }
}
