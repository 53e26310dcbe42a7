//! Whom a member waits for, according to the coordinator's description of the group.

use std::sync::Arc;

use super::options::GroupOptions;
use crate::client::admin::{Admin, GroupDescription, GroupMember};
use crate::client::cluster::Cluster;
use crate::machine::client::group::waiting::Standing;
use crate::types::TopicPartition;

/// How many members and partitions a message names.
const NAMED_MAX: usize = 3;

/// What the coordinator said, and what to report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Situation {
    pub(super) standing: Standing,
    /// What the member waits for.
    pub(super) words: String,
    /// Whom it waits for.
    pub(super) who: String,
}

impl Situation {
    /// Nothing to report.
    pub(super) const UNKNOWN: Self = Self::plain(Standing::Unknown);

    const fn plain(standing: Standing) -> Self {
        Self { standing, words: String::new(), who: String::new() }
    }

    fn waiting(words: String, who: &[&GroupMember]) -> Self {
        let name =
            |one: &&GroupMember| format!("{} ({}, {})", one.member_id, one.client_id, one.host);
        let names: Vec<String> = who.iter().take(NAMED_MAX).map(name).collect();
        Self { standing: Standing::Waiting, words, who: with_more(&names, who.len()) }
    }
}

/// Asks the coordinator.
pub(super) async fn ask(
    cluster: Arc<Cluster>,
    options: Arc<GroupOptions>,
    member_id: String,
) -> Situation {
    let admin = Admin::new(cluster);
    let described = admin.describe_groups(&[options.group_id.as_str()]).await;
    match described.map(|groups| groups.into_iter().next()) {
        Ok(Some(Ok(group))) => look(&group, &member_id, options.instance_id.as_deref()),
        Ok(Some(Err(error))) | Err(error) => {
            tracing::debug!(error = %error.chain(), "asking for the members of the group failed");
            Situation::UNKNOWN
        }
        Ok(None) => Situation::UNKNOWN,
    }
}

fn look(group: &GroupDescription, member_id: &str, instance_id: Option<&str>) -> Situation {
    if group.group_type == "consumer" {
        return look_at_consumer(group, member_id, instance_id);
    }
    let others: Vec<&GroupMember> =
        group.members.iter().filter(|one| one.member_id != member_id).collect();
    match group.state.as_str() {
        "PreparingRebalance" if !others.is_empty() => {
            let words = format!("waiting for {} to join the rebalance", members(others.len()));
            Situation::waiting(words, &others)
        }
        "CompletingRebalance" if !others.is_empty() => {
            let words = "waiting for the leader of the group to assign the partitions";
            Situation::waiting(words.to_owned(), &others)
        }
        "Stable" => Situation::plain(Standing::Content),
        _ => Situation::UNKNOWN,
    }
}

fn look_at_consumer(
    group: &GroupDescription,
    member_id: &str,
    instance_id: Option<&str>,
) -> Situation {
    let Some(own) = group.members.iter().find(|one| one.member_id == member_id) else {
        let is_same = |one: &&GroupMember| one.instance_id.as_deref() == instance_id;
        let former = instance_id.and_then(|_| group.members.iter().find(is_same));
        let Some(former) = former else { return Situation::UNKNOWN };
        let words = "waiting for the former member of the same group.instance.id to go";
        return Situation::waiting(words.to_owned(), &[former]);
    };
    let target = own.target.as_ref().unwrap_or(&own.assignment);
    let lacking: Vec<&TopicPartition> = target.difference(&own.assignment).collect();
    let has_some = |one: &&GroupMember| {
        one.member_id != member_id && lacking.iter().any(|it| one.assignment.contains(*it))
    };
    let holders: Vec<&GroupMember> = group.members.iter().filter(has_some).collect();
    if holders.is_empty() {
        let is_complete = lacking.is_empty() && own.epoch == group.epoch;
        let standing = if is_complete { Standing::Content } else { Standing::Unknown };
        return Situation::plain(standing);
    }
    let names: Vec<String> = lacking.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let partitions = with_more(&names, lacking.len());
    let words = format!("waiting for {} to give up {partitions}", members(holders.len()));
    Situation::waiting(words, &holders)
}

fn members(count: usize) -> String {
    if count == 1 { "another member".to_owned() } else { format!("{count} other members") }
}

fn with_more(named: &[String], count: usize) -> String {
    let more = count.saturating_sub(named.len());
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    named.join(", ") + &rest
}
