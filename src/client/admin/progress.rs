//! The progress of groups, and resetting it.
//!
//! Like Kafka's `kafka-consumer-groups`, this computes both on the client's side, from committed
//! offsets and the offsets of the partitions. A reset is planned first, so that it can be shown
//! before it is made.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admin, all_or_first_error};
use crate::client::admin::types::OffsetSpec;
use crate::client::config::IsolationLevel;
use crate::client::consumer::group::OffsetAndMetadata;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicPartition};

/// Partitions by topic; none means all of a topic.
pub type TopicScope = BTreeMap<String, Option<BTreeSet<PartitionIndex>>>;

/// A partition, as a group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// The group's committed offset.
    pub committed: Option<OffsetAndMetadata>,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// Where the group catches up: the high watermark.
    pub log_end_offset: Offset,
    /// How many offsets are left to read; none where nothing is committed, because where the group
    /// would begin is for its members to decide.
    pub lag: Option<i64>,
    /// The member to which it is assigned, as its index in the description.
    pub member: Option<usize>,
}

/// How many offsets are left to read in all partitions of a group together; none when that is unknown
/// for one of them, or for all because nothing is committed or assigned.
#[must_use]
pub fn total_lag(partitions: &[GroupPartition]) -> Option<i64> {
    if partitions.is_empty() {
        return None;
    }
    partitions.iter().map(|one| one.lag).sum()
}

/// Where a reset sets the offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The log start offset.
    Earliest,
    /// The end.
    Latest,
    /// The current offset; useful where it is outside the log.
    Current,
    /// This offset, in every partition.
    Offset(Offset),
    /// Offsets by partition; the others stay unchanged.
    Offsets(BTreeMap<PartitionIndex, Offset>),
    /// The first record at or after this time, or the end.
    Timestamp(TimestampMs),
    /// By this many offsets: forward, or back when negative.
    Shift(i64),
}

/// What a reset changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedOffset {
    /// The offset committed now.
    pub from: Option<Offset>,
    /// The new offset, which is within the log.
    pub to: Offset,
}

/// The two ends of partitions.
type Ends = BTreeMap<TopicPartition, (Offset, Offset)>;

impl Admin {
    /// The partitions of a group with their lag: those with a committed offset, and those assigned
    /// to a member. `members` are the assignments of the members, in the order of the description.
    ///
    /// # Errors
    ///
    /// When a broker does not answer in time, or refuses.
    pub async fn group_partitions(
        &self,
        group: &str,
        members: &[&BTreeSet<TopicPartition>],
    ) -> Result<Vec<GroupPartition>> {
        let committed = self.group_offsets(group, None).await?;
        let mut partitions: BTreeSet<TopicPartition> = committed.keys().cloned().collect();
        partitions.extend(members.iter().flat_map(|assigned| assigned.iter().cloned()));
        let ends = self.ends(&partitions).await?;
        let known = |partition: TopicPartition| {
            // A topic that was deleted meanwhile is left out.
            let &(log_start_offset, log_end_offset) = ends.get(&partition)?;
            let committed = committed.get(&partition).cloned();
            let member = members.iter().position(|assigned| assigned.contains(&partition));
            let lag = match &committed {
                Some(it) => Some(log_end_offset.since(it.offset).max(0)),
                // There never was a record, wherever the group begins.
                None => (log_end_offset.0 == 0).then_some(0),
            };
            Some(GroupPartition {
                partition,
                committed,
                log_start_offset,
                log_end_offset,
                lag,
                member,
            })
        };
        Ok(partitions.into_iter().filter_map(known).collect())
    }

    /// The ends of the partitions that exist.
    async fn ends(&self, partitions: &BTreeSet<TopicPartition>) -> Result<Ends> {
        let names: BTreeSet<&str> = partitions.iter().map(|one| &*one.topic).collect();
        let mut existing = BTreeSet::new();
        for name in names {
            match all_or_first_error(self.describe_topics(&[name]).await?) {
                Ok(topics) => existing.extend(topics.into_iter().flat_map(|topic| {
                    let of = Arc::clone(&topic.name);
                    let all: Vec<PartitionIndex> =
                        topic.partitions.iter().map(|it| it.partition).collect();
                    all.into_iter().map(move |one| TopicPartition::new(Arc::clone(&of), one))
                })),
                Err(error) if error.code() == ErrorCode::UnknownTopicOrPartition => {}
                Err(error) => return Err(error),
            }
        }
        let wanted: BTreeSet<&TopicPartition> =
            partitions.iter().filter(|one| existing.contains(*one)).collect();
        let starts = self.at(&wanted, OffsetSpec::Earliest).await?;
        let ends = self.at(&wanted, OffsetSpec::Latest).await?;
        let both =
            |one: &&TopicPartition| Some(((*one).clone(), (*starts.get(*one)?, *ends.get(*one)?)));
        Ok(wanted.iter().filter_map(both).collect())
    }

    async fn at(
        &self,
        partitions: &BTreeSet<&TopicPartition>,
        spec: OffsetSpec,
    ) -> Result<BTreeMap<TopicPartition, Offset>> {
        let wanted = partitions.iter().map(|one| ((*one).clone(), spec)).collect();
        let listed = self.list_offsets(&wanted, IsolationLevel::ReadUncommitted).await?;
        Ok(listed.into_iter().filter_map(|(one, listed)| Some((one, listed.offset?))).collect())
    }

    /// Computes the new offsets of a group, without changing anything. Without a scope, this covers
    /// all partitions for which the group has an offset.
    ///
    /// # Errors
    ///
    /// When a topic or partition does not exist, a partition to shift has no offset, or there is
    /// nothing to reset.
    pub async fn plan_group_reset(
        &self,
        group: &str,
        scope: Option<&TopicScope>,
        to: &ResetTo,
    ) -> Result<BTreeMap<TopicPartition, PlannedOffset>> {
        let committed = self.group_offsets(group, None).await?;
        let mut partitions = match scope {
            Some(scope) => self.in_scope(scope).await?,
            None => committed.keys().cloned().collect(),
        };
        if let ResetTo::Offsets(offsets) = to {
            partitions.retain(|one| offsets.contains_key(&one.partition));
        }
        if partitions.is_empty() {
            return Err(Error::invalid(format!(
                "group {group}: there is no offset to reset; name a topic"
            )));
        }
        let ends = self.ends(&partitions).await?;
        let times = match to {
            ResetTo::Timestamp(time) => {
                let wanted = ends.keys().collect();
                self.at(&wanted, OffsetSpec::Timestamp(*time)).await?
            }
            _ => BTreeMap::new(),
        };
        let mut plan = BTreeMap::new();
        for (partition, (start, end)) in ends {
            let from = committed.get(&partition).map(|it| it.offset);
            let current = || {
                from.ok_or_else(|| {
                    Error::invalid(format!("group {group} has no offset for {partition} to shift"))
                })
            };
            let to = match to {
                ResetTo::Earliest => start,
                ResetTo::Latest => end,
                ResetTo::Current => current()?,
                ResetTo::Offset(offset) => *offset,
                ResetTo::Offsets(offsets) => {
                    offsets.get(&partition.partition).copied().unwrap_or(end)
                }
                ResetTo::Timestamp(_) => times.get(&partition).copied().unwrap_or(end),
                ResetTo::Shift(by) => Offset(current()?.0.saturating_add(*by)),
            };
            plan.insert(partition, PlannedOffset { from, to: to.clamp(start, end.max(start)) });
        }
        Ok(plan)
    }

    async fn in_scope(&self, scope: &TopicScope) -> Result<BTreeSet<TopicPartition>> {
        let mut partitions = BTreeSet::new();
        for (name, chosen) in scope {
            let described = all_or_first_error(self.describe_topics(&[name.as_str()]).await?);
            for topic in self.named(name, described).await? {
                let all: BTreeSet<PartitionIndex> =
                    topic.partitions.iter().map(|it| it.partition).collect();
                let chosen = chosen.as_ref().unwrap_or(&all);
                if let Some(missing) = chosen.difference(&all).next() {
                    return Err(Error::no_partition(name, *missing, all.len()));
                }
                let named =
                    |&one: &PartitionIndex| TopicPartition::new(Arc::clone(&topic.name), one);
                partitions.extend(chosen.iter().map(named));
            }
        }
        Ok(partitions)
    }

    /// Carries out the plan.
    ///
    /// # Errors
    ///
    /// `NON_EMPTY_GROUP` while the group has members; the first refusal of a partition.
    pub async fn reset_group(
        &self,
        group: &str,
        plan: &BTreeMap<TopicPartition, PlannedOffset>,
    ) -> Result<()> {
        let offsets = plan
            .iter()
            .map(|(partition, planned)| (partition.clone(), OffsetAndMetadata::from(planned.to)))
            .collect();
        let results = self.alter_group_offsets(group, &offsets).await?;
        all_or_first_error(results.into_values().collect()).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_with_an_unknown_part_is_unknown() {
        let of = |lags: &[Option<i64>]| {
            let partition = |lag: &Option<i64>| GroupPartition {
                partition: TopicPartition::new("t", 0),
                committed: None,
                log_start_offset: Offset(0),
                log_end_offset: Offset(9),
                lag: *lag,
                member: None,
            };
            total_lag(&lags.iter().map(partition).collect::<Vec<_>>())
        };
        assert_eq!(of(&[Some(4), Some(0)]), Some(4));
        assert_eq!(of(&[Some(4), None]), None);
        assert_eq!(of(&[]), None);
    }
}
