//! Listing, describing, resetting and deleting groups, from Python.
//!
//! Names, lists and dictionaries of plain values are passed here; `python/ottla/_groups.py` builds
//! objects from them.

use std::collections::{BTreeMap, BTreeSet};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::admin::Admin;
use super::client::Client;
use super::consumer::{Offsets, pairs};
use crate::client::admin::{
    GroupDescription, GroupFilter, GroupMember, GroupPartition, PlannedOffset, ResetTo, TopicScope,
    all_or_first_error,
};
use crate::error::Error;
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicPartition};

/// The groups of a cluster; see `ottla.Groups`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Groups {
    admin: Admin,
}

/// Topic, partition, old offset, new offset.
type PlannedRow = (String, PartitionIndex, Option<i64>, i64);

/// Where offsets are to be set, as `_groups.py` passes it: a word and its argument.
#[derive(Debug)]
struct Aim(ResetTo);

impl<'py> FromPyObject<'_, 'py> for Aim {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        let (word, detail) = object.extract::<(String, Bound<'py, PyAny>)>()?;
        Ok(Self(match word.as_str() {
            "earliest" => ResetTo::Earliest,
            "latest" => ResetTo::Latest,
            "current" => ResetTo::Current,
            "offset" => ResetTo::Offset(Offset(detail.extract()?)),
            "offsets" => {
                let offsets: BTreeMap<PartitionIndex, i64> = detail.extract()?;
                let known = offsets.into_iter().map(|(one, offset)| (one, Offset(offset)));
                ResetTo::Offsets(known.collect())
            }
            "time" => ResetTo::Timestamp(TimestampMs(detail.extract()?)),
            "shift" => ResetTo::Shift(detail.extract()?),
            other => return Err(Error::invalid(format!("{other:?} is no place")).into()),
        }))
    }
}

impl Groups {
    pub(super) fn new(client: Py<Client>) -> Self {
        Self { admin: Admin::new(client) }
    }
}

fn scope(topics: BTreeMap<String, Option<BTreeSet<PartitionIndex>>>) -> Option<TopicScope> {
    Some(topics).filter(|topics| !topics.is_empty())
}

/// Offsets by partition, as the engine represents them.
fn by_partition(offsets: &Offsets) -> impl Iterator<Item = (TopicPartition, i64)> {
    offsets.iter().flat_map(|(topic, partitions)| {
        let named = |(one, offset): (&PartitionIndex, &i64)| {
            (TopicPartition::new(topic.as_str(), *one), *offset)
        };
        partitions.iter().map(named)
    })
}

#[pymethods]
impl Groups {
    fn list<'py>(
        &self,
        py: Python<'py>,
        states: Vec<String>,
        types: Vec<String>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let filter = GroupFilter { states, types };
        let groups = self.admin.run(py, "the list of groups", timeout, |engine| async move {
            engine.admin().list_groups(&filter).await
        })?;
        let list = PyList::empty(py);
        for group in groups {
            let one = PyDict::new(py);
            one.set_item("group_id", group.group_id)?;
            one.set_item("state", group.state)?;
            one.set_item("type", group.group_type)?;
            one.set_item("protocol_type", group.protocol_type)?;
            one.set_item("coordinator", group.coordinator.0)?;
            list.append(one)?;
        }
        Ok(list)
    }

    fn describe<'py>(
        &self,
        py: Python<'py>,
        group: &str,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let what = format!("the description of group {group}");
        let (described, partitions) = self.admin.run(py, &what, timeout, |engine| async move {
            let admin = engine.admin();
            let described = all_or_first_error(admin.describe_groups(&[group]).await?)?;
            let described = described
                .into_iter()
                .next()
                .ok_or_else(|| Error::malformed("DescribeGroups", "an empty answer"))?;
            let assigned: Vec<_> = described.members.iter().map(|one| &one.assignment).collect();
            let partitions = admin.group_partitions(group, &assigned).await?;
            Ok((described, partitions))
        })?;
        to_python(py, &described, &partitions)
    }

    /// What a reset would do: `[(topic, partition, from, to)]`.
    fn plan(
        &self,
        py: Python<'_>,
        group: &str,
        topics: BTreeMap<String, Option<BTreeSet<PartitionIndex>>>,
        to: Aim,
        timeout: Option<f64>,
    ) -> PyResult<Vec<PlannedRow>> {
        let scope = scope(topics);
        let what = format!("the offsets of group {group}");
        let plan = self.admin.run(py, &what, timeout, |engine| async move {
            engine.admin().plan_group_reset(group, scope.as_ref(), &to.0).await
        })?;
        let row = |(partition, planned): (TopicPartition, PlannedOffset)| {
            let from = planned.from.map(|offset| offset.0);
            (partition.topic.to_string(), partition.partition, from, planned.to.0)
        };
        Ok(plan.into_iter().map(row).collect())
    }

    fn reset(
        &self,
        py: Python<'_>,
        group: &str,
        offsets: Offsets,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let plan: BTreeMap<TopicPartition, PlannedOffset> = by_partition(&offsets)
            .map(|(partition, to)| (partition, PlannedOffset { from: None, to: Offset(to) }))
            .collect();
        let what = format!("the reset of group {group}");
        self.admin.run(py, &what, timeout, |engine| async move {
            engine.admin().reset_group(group, &plan).await
        })
    }

    fn delete(&self, py: Python<'_>, group: &str, timeout: Option<f64>) -> PyResult<()> {
        let what = format!("the deletion of group {group}");
        self.admin.run(py, &what, timeout, |engine| async move {
            all_or_first_error(engine.admin().delete_groups(&[group]).await?).map(drop)
        })
    }

    fn delete_offsets(
        &self,
        py: Python<'_>,
        group: &str,
        topic: &str,
        partitions: Option<BTreeSet<PartitionIndex>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let what = format!("the deletion of offsets of group {group}");
        self.admin.run(py, &what, timeout, |engine| async move {
            let admin = engine.admin();
            let known = admin.group_offsets(group, None).await?;
            let of_topic = known.into_keys().filter(|one| &*one.topic == topic);
            let chosen: Vec<TopicPartition> = of_topic
                .filter(|one| {
                    partitions.as_ref().is_none_or(|chosen| chosen.contains(&one.partition))
                })
                .collect();
            let results = admin.delete_group_offsets(group, &chosen).await?;
            all_or_first_error(results.into_values().collect()).map(drop)
        })
    }
}

fn to_python<'py>(
    py: Python<'py>,
    group: &GroupDescription,
    partitions: &[GroupPartition],
) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("group_id", &group.group_id)?;
    described.set_item("state", &group.state)?;
    described.set_item("type", &group.group_type)?;
    described.set_item("assignor", &group.assignor)?;
    described.set_item("epoch", (group.epoch >= 0).then_some(group.epoch))?;
    described.set_item("coordinator", group.coordinator.0)?;
    let members = PyList::empty(py);
    for member in &group.members {
        members.append(member_to_python(py, member)?)?;
    }
    described.set_item("members", members)?;
    let rows = PyList::empty(py);
    for one in partitions {
        let row = PyDict::new(py);
        row.set_item("topic", &*one.partition.topic)?;
        row.set_item("partition", one.partition.partition)?;
        row.set_item("committed_offset", one.committed.as_ref().map(|it| it.offset.0))?;
        row.set_item("log_end_offset", one.log_end_offset.0)?;
        row.set_item("lag", one.lag)?;
        let member = one.member.and_then(|index| group.members.get(index));
        row.set_item("member_id", member.map(|member| member.member_id.as_str()))?;
        row.set_item("client_id", member.map(|member| member.client_id.as_str()))?;
        row.set_item("host", member.map(|member| member.host.as_str()))?;
        row.set_item("metadata", one.committed.as_ref().map(|it| it.metadata.as_str()))?;
        rows.append(row)?;
    }
    described.set_item("partitions", rows)?;
    Ok(described)
}

fn member_to_python<'py>(py: Python<'py>, member: &GroupMember) -> PyResult<Bound<'py, PyDict>> {
    let assignment: Vec<TopicPartition> = member.assignment.iter().cloned().collect();
    let one = PyDict::new(py);
    one.set_item("member_id", &member.member_id)?;
    one.set_item("instance_id", &member.instance_id)?;
    one.set_item("client_id", &member.client_id)?;
    one.set_item("host", &member.host)?;
    one.set_item("rack", &member.rack)?;
    one.set_item("epoch", (member.epoch >= 0).then_some(member.epoch))?;
    one.set_item("topics", member.topics.iter().collect::<Vec<_>>())?;
    one.set_item("pattern", &member.pattern)?;
    one.set_item("assignment", pairs(&assignment))?;
    Ok(one)
}
