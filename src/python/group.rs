//! Membership in a group: what Python passes for it, and commits.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;

use super::consumer::{Offsets, by_topic};
use super::reader::{Engine, Reader};
use crate::client::{
    Assignor, AutoOffsetReset, ClientConfig, ConsumerConfig, GroupOptions, GroupProtocol,
    OffsetAndMetadata, Subscription,
};
use crate::error::{Error, Result};
use crate::types::{Offset, TopicPartition};

/// The keyword arguments of `client.consumer` that concern the group, as `_membership.py` passes
/// them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(super) struct Arguments {
    topics: Vec<String>,
    pattern: Option<String>,
    group_id: String,
    group_instance_id: Option<String>,
    group_protocol: String,
    group_remote_assignor: Option<String>,
    partition_assignment_strategy: Option<Vec<String>>,
    session_timeout_ms: Option<u64>,
    heartbeat_interval_ms: Option<u64>,
    max_poll_interval_ms: Option<u64>,
    rebalance_timeout_ms: Option<u64>,
    auto_offset_reset: Option<String>,
    /// The caller has offsets of its own.
    resumes: bool,
    auto_commit_interval_ms: Option<u64>,
}

impl Arguments {
    /// Where partitions begin of which the group has no offset.
    pub(super) fn reset(&self, client: &ClientConfig, config: &mut ConsumerConfig) -> Result<()> {
        if let Some(reset) = &self.auto_offset_reset {
            let mut parsed = client.clone();
            parsed.set_all([("auto.offset.reset", reset.as_str())])?;
            config.auto_offset_reset = parsed.consumer.auto_offset_reset;
        }
        if self.resumes {
            // Partitions that its offsets do not name were added since.
            config.auto_offset_reset.get_or_insert(AutoOffsetReset::Earliest);
        }
        Ok(())
    }

    /// The settings of the member.
    pub(super) fn options(&self, until_caught_up: bool) -> Result<GroupOptions> {
        let subscription = match &self.pattern {
            Some(pattern) => Subscription::Pattern(pattern.clone()),
            None => Subscription::Topics(self.topics.clone()),
        };
        let mut options = GroupOptions::new(self.group_id.as_str(), subscription);
        options.protocol = GroupProtocol::parse(&self.group_protocol)?;
        options.instance_id.clone_from(&self.group_instance_id);
        options.remote_assignor.clone_from(&self.group_remote_assignor);
        options.until_caught_up = until_caught_up;
        self.refuse_classic_settings(options.protocol)?;
        if let Some(names) = &self.partition_assignment_strategy {
            options.assignors =
                names.iter().map(|name| Assignor::parse(name)).collect::<Result<_>>()?;
        }
        if let Some(timeout) = self.session_timeout_ms {
            options.session_timeout = Duration::from_millis(timeout);
            // A third of the session, as Kafka advises, unless the caller says otherwise.
            options.heartbeat_interval =
                options.heartbeat_interval.min(options.session_timeout / 3);
        }
        if let Some(interval) = self.heartbeat_interval_ms {
            options.heartbeat_interval = Duration::from_millis(interval);
        }
        if let Some(timeout) = self.rebalance_timeout_ms {
            options.rebalance_timeout = Duration::from_millis(timeout);
        }
        options.max_poll_interval = self.max_poll_interval_ms.map(Duration::from_millis);
        options.auto_commit = self.auto_commit_interval_ms.map(Duration::from_millis);
        Ok(options)
    }

    fn refuse_classic_settings(&self, protocol: GroupProtocol) -> Result<()> {
        if protocol == GroupProtocol::Classic {
            return Ok(());
        }
        let refused = [
            (self.partition_assignment_strategy.is_some(), "partition_assignment_strategy"),
            (self.session_timeout_ms.is_some(), "session_timeout_ms"),
            (self.heartbeat_interval_ms.is_some(), "heartbeat_interval_ms"),
        ];
        match refused.iter().find(|(is_given, _)| *is_given) {
            None => Ok(()),
            Some((_, name)) => Err(Error::invalid(format!(
                "{name} is only for group_protocol=\"classic\"; with \"consumer\" the coordinator \
                 decides: see group_remote_assignor, and the group's settings \
                 consumer.session.timeout.ms and consumer.heartbeat.interval.ms"
            ))),
        }
    }
}

/// Commits the given offsets, or what the caller has finished; returns what was committed.
pub(super) async fn commit(reader: Arc<Reader>, offsets: Option<Offsets>) -> Result<Offsets> {
    let Some(offsets) = offsets else {
        let mut reading = reader.lock().await;
        let Engine::Group(consumer) = reading.engine()? else {
            return Err(Error::invalid("the consumer is not a member of a group"));
        };
        let done = consumer.commit_finished().await?;
        return Ok(by_topic(done.into_iter().map(|(partition, offset)| (partition, offset.0))));
    };
    let mut wanted = BTreeMap::new();
    for (topic, partitions) in &offsets {
        for (partition, offset) in partitions {
            let partition = TopicPartition::new(topic.as_str(), *partition);
            wanted.insert(partition, OffsetAndMetadata::from(Offset(*offset)));
        }
    }
    reader.member()?.commit(&wanted).await?;
    Ok(offsets)
}

/// Releases partitions whose revocation was reported.
pub(super) fn acknowledge(engine: &mut Engine) {
    if let Engine::Group(consumer) = engine {
        consumer.acknowledge_revocation();
    }
}
