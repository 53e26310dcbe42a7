//! Listing, describing, resetting and deleting consumer groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Admin, check, outer};
use crate::client::cluster::Lane;
use crate::client::consumer::group::{OffsetAndMetadata, wire};
use crate::client::coordinator::{Coordinator, by_topic};
use crate::client::errors;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::consumer_group_describe::{
    Assignment as Described, ConsumerGroupDescribeRequest, DescribedGroup as DescribedConsumer,
    Member as DescribedMember,
};
use crate::protocol::messages::delete_groups::DeleteGroupsRequest;
use crate::protocol::messages::describe_groups::{
    DescribeGroupsRequest, DescribedGroup, DescribedGroupMember,
};
use crate::protocol::messages::list_groups::ListGroupsRequest;
use crate::protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use crate::protocol::{ApiKey, Str};
use crate::types::{NodeId, TopicPartition};

/// Which groups to list; all by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupFilter {
    /// Only groups in these states, as Kafka names them: `Stable`, `Empty`, …
    pub states: Vec<String>,
    /// Only groups of these types: `classic`, `consumer`.
    pub types: Vec<String>,
}

/// A group in a list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupListing {
    /// `group.id`.
    pub group_id: String,
    /// `consumer` for consumer groups; empty for one that only has offsets.
    pub protocol_type: String,
    /// As Kafka names it; empty with brokers before Kafka 2.6.
    pub state: String,
    /// `classic` or `consumer`; empty with brokers before Kafka 3.8.
    pub group_type: String,
    /// The broker that listed it: its coordinator.
    pub coordinator: NodeId,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDescription {
    /// `group.id`.
    pub group_id: String,
    /// `classic` or `consumer`.
    pub group_type: String,
    /// As Kafka names it: `Stable`, `Empty`, `Dead`, …
    pub state: String,
    /// The assignor in use; empty when there is none.
    pub assignor: String,
    /// The group epoch; -1 for a classic group, which does not report it.
    pub epoch: i32,
    /// Its coordinator.
    pub coordinator: NodeId,
    /// Its members.
    pub members: Vec<GroupMember>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// The id that the coordinator gave it.
    pub member_id: String,
    /// `group.instance.id`.
    pub instance_id: Option<String>,
    /// `client.id`.
    pub client_id: String,
    /// Its host.
    pub host: String,
    /// `client.rack`.
    pub rack: Option<String>,
    /// The member epoch; -1 in a classic group.
    pub epoch: i32,
    /// The topics that it subscribed to, as far as the group reports them.
    pub topics: BTreeSet<String>,
    /// The pattern that it subscribed with.
    pub pattern: Option<String>,
    /// Its partitions.
    pub assignment: BTreeSet<TopicPartition>,
    /// Its target assignment, where that is known and different.
    pub target: Option<BTreeSet<TopicPartition>>,
}

impl Admin {
    fn coordinator(&self, group: &str) -> Coordinator {
        Coordinator::new(Arc::clone(&self.cluster), group)
    }

    /// The groups of the cluster, in order.
    ///
    /// # Errors
    ///
    /// When a broker does not answer in time, or is too old for the filter.
    pub async fn list_groups(&self, filter: &GroupFilter) -> Result<Vec<GroupListing>> {
        let ask = |node| self.try_list_groups(node, filter);
        Ok(self.of_all_brokers("listing groups", ask).await?.into_iter().collect())
    }

    async fn try_list_groups(
        &self,
        node: NodeId,
        filter: &GroupFilter,
    ) -> Result<Vec<GroupListing>> {
        let route = self.cluster.route(node, Lane::Control).await?;
        let version = route.version(ApiKey::ListGroups)?;
        for (is_asked, since, what) in
            [(!filter.states.is_empty(), 4, "state"), (!filter.types.is_empty(), 5, "type")]
        {
            if is_asked && version < since {
                let context = format!("listing groups by {what}: broker {node} is too old for it");
                return Err(errors::unsupported(context));
            }
        }
        let texts = |texts: &[String]| texts.iter().map(|text| Str::from(text.as_str())).collect();
        let request = ListGroupsRequest {
            states_filter: texts(&filter.states),
            types_filter: texts(&filter.types),
        };
        let response = route.call_at(request, version, self.timeout()).await?;
        check(response.error_code, None, || format!("listing the groups of broker {node}"))?;
        let listing = |group: crate::protocol::messages::list_groups::ListedGroup| GroupListing {
            group_id: group.group_id.to_string(),
            protocol_type: group.protocol_type.to_string(),
            state: group.group_state.to_string(),
            group_type: group.group_type.to_lowercase(),
            coordinator: node,
        };
        Ok(response.groups.into_iter().map(listing).collect())
    }

    /// The state and members of groups, of both protocols.
    ///
    /// # Errors
    ///
    /// Per group `GROUP_ID_NOT_FOUND`, or the error of its coordinator.
    pub async fn describe_groups(&self, ids: &[&str]) -> Result<Vec<Result<GroupDescription>>> {
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let coordinator = self.coordinator(id);
            let result = self
                .cluster
                .retry("describing groups", async || self.try_describe(&coordinator).await)
                .await;
            results.push(outer(result)?);
        }
        Ok(results)
    }

    async fn try_describe(&self, coordinator: &Coordinator) -> Result<GroupDescription> {
        let (_, route) = coordinator.route(Lane::Control).await?;
        if route.version(ApiKey::ConsumerGroupDescribe).is_ok() {
            match self.describe_consumer(coordinator).await {
                // It may be a classic one.
                Err(error) if error.code() == ErrorCode::GroupIdNotFound => {}
                described => return described,
            }
        }
        self.describe_classic(coordinator).await
    }

    async fn describe_consumer(&self, coordinator: &Coordinator) -> Result<GroupDescription> {
        let request = ConsumerGroupDescribeRequest {
            group_ids: vec![Str::from(coordinator.id.as_str())],
            include_authorized_operations: false,
        };
        let response =
            coordinator.call(Lane::Control, self.timeout(), i16::MAX, |_| Ok(request)).await?;
        let group = only(response.groups, &coordinator.id)?;
        let message = group.error_message.as_deref().filter(|text| !text.is_empty());
        coordinator.check(group.error_code, || message.unwrap_or("describing it").to_owned())?;
        Ok(consumer_description(group, coordinator.node().await?))
    }

    async fn describe_classic(&self, coordinator: &Coordinator) -> Result<GroupDescription> {
        let request = DescribeGroupsRequest {
            groups: vec![Str::from(coordinator.id.as_str())],
            include_authorized_operations: false,
        };
        let response =
            coordinator.call(Lane::Control, self.timeout(), i16::MAX, |_| Ok(request)).await?;
        let group = only(response.groups, &coordinator.id)?;
        let message = group.error_message.as_deref().filter(|text| !text.is_empty());
        coordinator.check(group.error_code, || message.unwrap_or("describing it").to_owned())?;
        if &*group.group_state == "Dead" && group.members.is_empty() {
            // How brokers before Kafka 4 report a missing group.
            coordinator
                .check(ErrorCode::GroupIdNotFound.to_i16(), || "describing it".to_owned())?;
        }
        classic_description(group, coordinator.node().await?)
    }

    /// The committed offsets of a group, for some partitions or (`None`) for all that have one.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer in time, or refuses.
    pub async fn group_offsets(
        &self,
        group: &str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, OffsetAndMetadata>> {
        self.coordinator(group).committed(partitions, false).await
    }

    /// Sets the committed offsets of a group without members; creates the group when it does not
    /// exist.
    ///
    /// # Errors
    ///
    /// Per partition; for the whole call `NON_EMPTY_GROUP` while the group has members.
    pub async fn alter_group_offsets(
        &self,
        group: &str,
        offsets: &BTreeMap<TopicPartition, OffsetAndMetadata>,
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let coordinator = self.coordinator(group);
        let what = |partition: &TopicPartition| format!("group {group}: setting {partition}");
        let codes = self
            .cluster
            .retry("altering offsets", async || {
                let codes = coordinator.commit(None, offsets).await?;
                let moved = |code: ErrorCode| {
                    code.retriable() && code != ErrorCode::UnknownTopicOrPartition
                };
                match codes.iter().find(|(_, code)| moved(**code)) {
                    Some((partition, &code)) if code != ErrorCode::RebalanceInProgress => {
                        Err(Error::kafka(code, what(partition)))
                    }
                    _ => Ok(codes),
                }
            })
            .await?;
        let has_members = |code: &ErrorCode| {
            matches!(
                code,
                ErrorCode::UnknownMemberId
                    | ErrorCode::IllegalGeneration
                    | ErrorCode::RebalanceInProgress
                    | ErrorCode::StaleMemberEpoch
            )
        };
        if codes.values().any(has_members) {
            let what = "setting offsets; stop its members first";
            return Err(errors::of_group(ErrorCode::NonEmptyGroup, group, what));
        }
        let result = |(partition, code): (TopicPartition, ErrorCode)| {
            let result = code.into_result(what(&partition));
            (partition, result)
        };
        Ok(codes.into_iter().map(result).collect())
    }

    /// Deletes committed offsets of a group.
    ///
    /// # Errors
    ///
    /// Per partition `GROUP_SUBSCRIBED_TO_TOPIC` while a member consumes the topic.
    pub async fn delete_group_offsets(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<BTreeMap<TopicPartition, Result<()>>> {
        let coordinator = self.coordinator(group);
        let response = self
            .cluster
            .retry("deleting offsets", async || {
                let partition = |partition_index| OffsetDeleteRequestPartition { partition_index };
                let topic = |(name, indexes): (&str, Vec<i32>)| OffsetDeleteRequestTopic {
                    name: Str::from(name),
                    partitions: indexes.into_iter().map(partition).collect(),
                };
                let request = OffsetDeleteRequest {
                    group_id: Str::from(group),
                    topics: by_topic(partitions.iter()).into_iter().map(topic).collect(),
                };
                let response = coordinator
                    .call(Lane::Control, self.timeout(), i16::MAX, |_| Ok(request))
                    .await?;
                coordinator.check(response.error_code, || "deleting offsets".to_owned())?;
                Ok(response)
            })
            .await?;
        let mut results = BTreeMap::new();
        for topic in response.topics {
            for one in topic.partitions {
                let partition = TopicPartition::new(&*topic.name, one.partition_index);
                let result = check(one.error_code, None, || {
                    format!("group {group}: deleting the offset of {partition}")
                });
                results.insert(partition, result);
            }
        }
        Ok(results)
    }

    /// Deletes groups without members.
    ///
    /// # Errors
    ///
    /// Per group `NON_EMPTY_GROUP`, `GROUP_ID_NOT_FOUND`.
    pub async fn delete_groups(&self, ids: &[&str]) -> Result<Vec<Result<()>>> {
        let mut results = Vec::with_capacity(ids.len());
        for id in ids {
            let coordinator = self.coordinator(id);
            let result = self
                .cluster
                .retry("deleting groups", async || {
                    let request = DeleteGroupsRequest { groups_names: vec![Str::from(*id)] };
                    let response = coordinator
                        .call(Lane::Control, self.timeout(), i16::MAX, |_| Ok(request))
                        .await?;
                    let group = only(response.results, id)?;
                    let why =
                        group.error_message.map_or_else(String::new, |why| format!(": {why}"));
                    coordinator.check(group.error_code, || format!("it was not deleted{why}"))
                })
                .await;
            results.push(outer(result)?);
        }
        Ok(results)
    }
}

fn only<T>(answers: Vec<T>, group: &str) -> Result<T> {
    answers.into_iter().next().ok_or_else(|| errors::not_mentioned(format_args!("group {group}")))
}

fn consumer_description(group: DescribedConsumer, coordinator: NodeId) -> GroupDescription {
    GroupDescription {
        group_id: group.group_id.to_string(),
        group_type: "consumer".to_owned(),
        state: group.group_state.to_string(),
        assignor: group.assignor_name.to_string(),
        epoch: group.group_epoch,
        coordinator,
        members: group.members.into_iter().map(consumer_member).collect(),
    }
}

fn consumer_member(member: DescribedMember) -> GroupMember {
    let partitions = |assignment: Described| -> BTreeSet<TopicPartition> {
        let mut partitions = BTreeSet::new();
        for topic in assignment.topic_partitions {
            let name: Arc<str> = Arc::from(topic.topic_name.as_str());
            let one = |index: i32| TopicPartition::new(Arc::clone(&name), index);
            partitions.extend(topic.partitions.into_iter().map(one));
        }
        partitions
    };
    let text = |text: Option<Str>| text.map(|text| text.to_string());
    let assignment = partitions(member.assignment);
    let target = partitions(member.target_assignment);
    GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: text(member.instance_id),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        rack: text(member.rack_id),
        epoch: member.member_epoch,
        topics: member.subscribed_topic_names.iter().map(ToString::to_string).collect(),
        pattern: text(member.subscribed_topic_regex).filter(|pattern| !pattern.is_empty()),
        target: Some(target).filter(|target| *target != assignment),
        assignment,
    }
}

fn classic_description(group: DescribedGroup, coordinator: NodeId) -> Result<GroupDescription> {
    // Groups of another protocol type (Kafka Connect, a schema registry) have their own format.
    let is_consumer = &*group.protocol_type == wire::CONSUMER || group.protocol_type.is_empty();
    let members = group.members.into_iter().map(|member| classic_member(member, is_consumer));
    Ok(GroupDescription {
        group_id: group.group_id.to_string(),
        group_type: "classic".to_owned(),
        state: group.group_state.to_string(),
        assignor: group.protocol_data.to_string(),
        epoch: -1,
        coordinator,
        members: members.collect::<Result<_>>()?,
    })
}

fn classic_member(member: DescribedGroupMember, is_consumer: bool) -> Result<GroupMember> {
    let has_words = is_consumer && !member.member_metadata.is_empty();
    let subscription = if has_words {
        wire::read_subscription(member.member_metadata)?
    } else {
        crate::machine::client::group::assignor::MemberSubscription::default()
    };
    let assignment = if is_consumer {
        wire::read_assignment(member.member_assignment)?
    } else {
        BTreeSet::new()
    };
    Ok(GroupMember {
        member_id: member.member_id.to_string(),
        instance_id: member.group_instance_id.map(|id| id.to_string()),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        rack: subscription.rack,
        epoch: -1,
        topics: subscription.topics.iter().map(ToString::to_string).collect(),
        pattern: None,
        assignment,
        target: None,
    })
}
