//! How far groups are, and setting them elsewhere.
//!
//! Kafka's `kafka-consumer-groups` computes both on its side; so do we, from committed offsets and
//! the offsets of the partitions. A reset is planned first, so that it can be shown before it is
//! done.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admin, all_or_first_error};
use crate::client::admin::types::OffsetSpec;
use crate::client::config::IsolationLevel;
use crate::client::consumer::group::OffsetAndMetadata;
use crate::error::{Error, ErrorCode, Result};
use crate::types::{Offset, TimestampMs, TopicPartition};

/// Partitions by topic; none stands for all of a topic.
pub type TopicScope = BTreeMap<String, Option<BTreeSet<i32>>>;

/// A partition as a group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupPartition {
    /// The partition.
    pub partition: TopicPartition,
    /// What the group committed.
    pub committed: Option<OffsetAndMetadata>,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// Where the group catches up: the high watermark.
    pub log_end_offset: Offset,
    /// How many offsets are left; none where nothing is committed.
    pub lag: Option<i64>,
    /// The member that has it, as its place in the description.
    pub member: Option<usize>,
}

/// Where a reset sets the offsets of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ResetTo {
    /// The log start offset.
    Earliest,
    /// The end.
    Latest,
    /// Where it is; of use where offsets lie outside of the log.
    Current,
    /// An offset, of every partition.
    Offset(Offset),
    /// Offsets of some partitions; the others stay.
    Offsets(BTreeMap<i32, Offset>),
    /// The first record of this time or later, or the end.
    Timestamp(TimestampMs),
    /// So many offsets forward, or back when negative.
    Shift(i64),
}

/// What a reset changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedOffset {
    /// What is committed now.
    pub from: Option<Offset>,
    /// What will be; within the log.
    pub to: Offset,
}

/// The two ends of partitions.
type Ends = BTreeMap<TopicPartition, (Offset, Offset)>;

impl Admin {
    /// The partitions of a group with their lag: those with a committed offset, and those that a
    /// member has. `members` are the assignments of the members, as described.
    ///
    /// # Errors
    ///
    /// A broker does not answer in time, or refuses.
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
            // Of a topic that was deleted meanwhile there is nothing to tell.
            let &(log_start_offset, log_end_offset) = ends.get(&partition)?;
            let committed = committed.get(&partition).cloned();
            let member = members.iter().position(|assigned| assigned.contains(&partition));
            let lag = committed.as_ref().map(|it| log_end_offset.since(it.offset).max(0));
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

    /// The ends of those partitions that exist.
    async fn ends(&self, partitions: &BTreeSet<TopicPartition>) -> Result<Ends> {
        let names: BTreeSet<&str> = partitions.iter().map(|one| &*one.topic).collect();
        let mut existing = BTreeSet::new();
        for name in names {
            match all_or_first_error(self.describe_topics(&[name]).await?) {
                Ok(topics) => existing.extend(topics.into_iter().flat_map(|topic| {
                    let of = Arc::clone(&topic.name);
                    let all: Vec<i32> = topic.partitions.iter().map(|it| it.partition).collect();
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

    /// Computes where the offsets of a group come to lie; changes nothing. Without a scope these are
    /// all partitions of which the group has an offset.
    ///
    /// # Errors
    ///
    /// A topic or partition does not exist; a shift of a partition without an offset; nothing to
    /// reset.
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
                    Error::invalid(format!("group {group} has no offset of {partition} to go from"))
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
            for topic in all_or_first_error(self.describe_topics(&[name.as_str()]).await?)? {
                let all: BTreeSet<i32> = topic.partitions.iter().map(|it| it.partition).collect();
                let chosen = chosen.as_ref().unwrap_or(&all);
                if let Some(missing) = chosen.difference(&all).next() {
                    let context = format!("{name}-{missing}; the topic has {}", all.len());
                    return Err(Error::kafka(ErrorCode::UnknownTopicOrPartition, context));
                }
                let named = |&one: &i32| TopicPartition::new(Arc::clone(&topic.name), one);
                partitions.extend(chosen.iter().map(named));
            }
        }
        Ok(partitions)
    }

    /// Does what was planned.
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
