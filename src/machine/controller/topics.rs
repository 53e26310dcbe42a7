//! Creating and deleting topics, and adding partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::command::Refusal;
use super::items::{CreatedTopic, DeletedTopic, NewPartitions, NewTopic, TopicRef};
use super::names::{Collisions, METADATA_TOPIC, check_topic_name};
use super::placement::{check_assignment, place};
use super::{Controller, PARTITIONS_PER_COMMAND_MAX};
use crate::config::{
    BrokerConfig, ConfigMap, Scope, TopicConfig, check_all, check_local_retention,
};
use crate::error::ErrorCode;
use crate::machine::metadata::{
    ConfigResource, MetadataRecord, PartitionImage, PartitionRecord, TopicImage,
};
use crate::types::{LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, TopicId, Uuid};

/// What a command may still create.
struct Room {
    partitions: usize,
    /// How many replicas it has given to each broker so far.
    given: BTreeMap<NodeId, usize>,
}

impl Room {
    const fn new() -> Self {
        Self { partitions: PARTITIONS_PER_COMMAND_MAX, given: BTreeMap::new() }
    }

    fn check(&self, partitions: usize) -> Result<(), Refusal> {
        if partitions <= self.partitions {
            return Ok(());
        }
        let text = format!(
            "one request may create at most {PARTITIONS_PER_COMMAND_MAX} partitions; split it into \
             several requests"
        );
        Err(Refusal::new(ErrorCode::PolicyViolation, text))
    }
}

/// What the topics of one command share.
struct Batch {
    inherited: BrokerConfig,
    collisions: Collisions,
    room: Room,
    validate_only: bool,
}

impl Controller {
    pub(super) fn create_topics(
        &mut self,
        topics: Vec<NewTopic>,
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<CreatedTopic, Refusal>> {
        let twice = duplicates(topics.iter().map(|topic| topic.name.clone()));
        let mut batch = Batch {
            inherited: self.inherited(),
            collisions: Collisions::of(self.image.topics().map(|topic| &topic.name)),
            room: Room::new(),
            validate_only,
        };
        let create = |topic: NewTopic| {
            if twice.contains(&topic.name) {
                return Err(duplicate("topic", &topic.name));
            }
            self.create_topic(topic, &mut batch, records)
        };
        topics.into_iter().map(create).collect()
    }

    fn create_topic(
        &mut self,
        topic: NewTopic,
        batch: &mut Batch,
        records: &mut Vec<MetadataRecord>,
    ) -> Result<CreatedTopic, Refusal> {
        let name = topic.name.clone();
        check_topic_name(&name)?;
        if &*name == METADATA_TOPIC {
            let text = format!(
                "'{name}' is the cluster's own log and cannot be created as a \
                 topic"
            );
            return Err(Refusal::new(ErrorCode::InvalidRequest, text));
        }
        if self.image.topic(&name).is_some() {
            let text = format!("topic '{name}' already exists");
            return Err(Refusal::new(ErrorCode::TopicAlreadyExists, text));
        }
        if let Some(other) = batch.collisions.find(&name) {
            let text = format!(
                "topic '{name}' collides with topic '{other}': '.' and '_' are treated as \
                 the same character"
            );
            return Err(Refusal::new(ErrorCode::InvalidTopicException, text));
        }
        let configs = checked_settings(topic.configs.clone())?;
        check_local_retention(&TopicConfig::resolve(&configs, &batch.inherited)?)?;
        let rows = self.rows(&topic, batch)?;
        self.give(&mut batch.room, &name, &rows)?;
        batch.collisions.insert(&name);
        let id = if batch.validate_only { Uuid::ZERO } else { self.unused_topic_id() };
        let created = CreatedTopic {
            id,
            partitions: PartitionIndex::count(&rows),
            replication_factor: rows
                .first()
                .map_or(0, |row| i16::try_from(row.len()).unwrap_or(i16::MAX)),
            configs,
        };
        if !batch.validate_only {
            self.topic_records(&name, id, rows, &created.configs, records);
        }
        Ok(created)
    }

    /// Takes new replicas off what the command may create.
    fn give(&self, room: &mut Room, topic: &str, rows: &[Vec<NodeId>]) -> Result<(), Refusal> {
        let mut given = room.given.clone();
        for node in rows.iter().flatten() {
            *given.entry(*node).or_default() += 1;
        }
        for (node, more) in &given {
            let count = self.index.replicas_on(*node) + more;
            if count > self.replicas_max {
                let text = format!(
                    "topic '{topic}': node {node} would hold {count} replicas, with a file open for \
                     each; with the files that a process may open, {} are possible. Create fewer \
                     partitions, or raise the limit of every node (`ulimit -n`) and restart it",
                    self.replicas_max
                );
                return Err(Refusal::new(ErrorCode::PolicyViolation, text));
            }
        }
        room.given = given;
        room.partitions -= rows.len();
        Ok(())
    }

    fn topic_records(
        &self,
        name: &Arc<str>,
        id: TopicId,
        rows: Vec<Vec<NodeId>>,
        configs: &ConfigMap,
        records: &mut Vec<MetadataRecord>,
    ) {
        records.push(MetadataRecord::Topic { name: name.clone(), id });
        records.extend(configs.iter().map(|(setting, value)| MetadataRecord::Config {
            resource: ConfigResource::Topic(name.clone()),
            name: setting.clone(),
            value: Some(value.clone()),
        }));
        records.extend(
            PartitionIndex::enumerate(rows)
                .map(|(index, row)| self.partition_record(id, index, row)),
        );
    }

    fn partition_record(
        &self,
        topic_id: TopicId,
        partition: PartitionIndex,
        replicas: Vec<NodeId>,
    ) -> MetadataRecord {
        let isr: Vec<NodeId> =
            replicas.iter().copied().filter(|replica| self.is_active(*replica)).collect();
        let leader = isr.first().copied().unwrap_or(NodeId::NONE);
        let state = PartitionImage {
            replicas,
            isr,
            removing: Vec::new(),
            adding: Vec::new(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader,
            leader_epoch: LeaderEpoch(0),
            partition_epoch: PartitionEpoch(0),
        };
        PartitionRecord::create(topic_id, partition, &state)
    }

    fn unused_topic_id(&mut self) -> TopicId {
        loop {
            let id = self.draw.uuid();
            if id != Uuid::ZERO && self.image.topic_by_id(id).is_none() {
                return id;
            }
        }
    }

    /// The replicas of every partition of a new topic.
    fn rows(&mut self, topic: &NewTopic, batch: &Batch) -> Result<Vec<Vec<NodeId>>, Refusal> {
        if !topic.assignments.is_empty() {
            return self.manual_rows(topic, &batch.room);
        }
        let partitions = match topic.partitions {
            -1 => batch.inherited.num_partitions,
            count @ 1.. => count,
            _ => {
                let text = "the number of partitions must be positive, or -1 for the default";
                return Err(Refusal::new(ErrorCode::InvalidPartitions, text));
            }
        };
        let replicas = match topic.replication_factor {
            -1 => batch.inherited.default_replication_factor,
            count @ 1.. => i32::from(count),
            _ => {
                let text = "the replication factor must be positive, or -1 for the default";
                return Err(Refusal::new(ErrorCode::InvalidReplicationFactor, text));
            }
        };
        let partitions = usize::try_from(partitions).unwrap_or(usize::MAX);
        batch.room.check(partitions)?;
        let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
        place(self.image.brokers(), partitions, replicas, &mut self.draw)
    }

    fn manual_rows(&self, topic: &NewTopic, room: &Room) -> Result<Vec<Vec<NodeId>>, Refusal> {
        let refuse = |code, text: &str| Err(Refusal::new(code, text));
        if topic.replication_factor != -1 {
            let text = "with a manual assignment the replication factor must be -1";
            return refuse(ErrorCode::InvalidRequest, text);
        }
        if topic.partitions != -1 {
            let text = "with a manual assignment the number of partitions must be -1";
            return refuse(ErrorCode::InvalidRequest, text);
        }
        room.check(topic.assignments.len())?;
        let mut assignments: Vec<&(PartitionIndex, Vec<NodeId>)> =
            topic.assignments.iter().collect();
        assignments.sort_by_key(|(partition, _)| *partition);
        let consecutive = PartitionIndex::enumerate(&assignments)
            .all(|(index, (partition, _))| *partition == index);
        if !consecutive {
            let text = "the manual assignment must number its partitions 0, 1, 2 and so on, \
                        each once";
            return refuse(ErrorCode::InvalidReplicaAssignment, text);
        }
        let expected = assignments.first().map(|(_, replicas)| replicas.len());
        for (partition, replicas) in &assignments {
            check_assignment(*partition, replicas, expected, |id| self.known_active(id))?;
        }
        Ok(assignments.into_iter().map(|(_, replicas)| replicas.clone()).collect())
    }

    pub(super) fn delete_topics(
        &self,
        topics: &[TopicRef],
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<DeletedTopic, Refusal>> {
        let found: Vec<Option<&Arc<TopicImage>>> = topics
            .iter()
            .map(|topic| match topic {
                TopicRef::Name(name) => self.image.topic(name),
                TopicRef::Id(id) => self.image.topic_by_id(*id),
            })
            .collect();
        let twice = duplicates(found.iter().flatten().map(|topic| topic.id));
        let delete = |(given, topic): (&TopicRef, Option<&Arc<TopicImage>>)| {
            if !self.config.delete_topic_enable {
                let text = "deleting topics is turned off (delete.topic.enable=false)";
                return Err(Refusal::new(ErrorCode::TopicDeletionDisabled, text));
            }
            let topic = topic.ok_or_else(|| unknown(given))?;
            if twice.contains(&topic.id) {
                return Err(duplicate("topic", &topic.name));
            }
            records.push(MetadataRecord::RemoveTopic { id: topic.id });
            Ok(DeletedTopic { name: topic.name.clone(), id: topic.id })
        };
        topics.iter().zip(found).map(delete).collect()
    }

    pub(super) fn create_partitions(
        &mut self,
        topics: Vec<NewPartitions>,
        validate_only: bool,
        records: &mut Vec<MetadataRecord>,
    ) -> Vec<Result<(), Refusal>> {
        let twice = duplicates(topics.iter().map(|topic| topic.name.clone()));
        let mut room = Room::new();
        let create = |topic: NewPartitions| {
            if twice.contains(&topic.name) {
                return Err(duplicate("topic", &topic.name));
            }
            let name = topic.name.clone();
            let (id, from, rows) = self.additional_rows(topic, &room)?;
            self.give(&mut room, &name, &rows)?;
            if !validate_only {
                let new = PartitionIndex::enumerate_from(from, rows);
                records.extend(new.map(|(index, row)| self.partition_record(id, index, row)));
            }
            Ok(())
        };
        topics.into_iter().map(create).collect()
    }

    fn additional_rows(
        &mut self,
        topic: NewPartitions,
        room: &Room,
    ) -> Result<(TopicId, PartitionIndex, Vec<Vec<NodeId>>), Refusal> {
        let name = topic.name;
        let Some(known) = self.image.topic(&name).cloned() else {
            return Err(unknown(&TopicRef::Name(name)));
        };
        let count = known.partition_count();
        let added = match usize::try_from(i64::from(topic.count) - i64::from(count)) {
            Ok(added @ 1..) => added,
            Ok(_) => {
                let text = format!("topic '{name}' already has {count} partition(s)");
                return Err(Refusal::new(ErrorCode::InvalidPartitions, text));
            }
            Err(_) => {
                let text = format!(
                    "topic '{name}' has {count} partition(s), more than the {} asked for; \
                     partitions cannot be taken away",
                    topic.count
                );
                return Err(Refusal::new(ErrorCode::InvalidPartitions, text));
            }
        };
        room.check(added)?;
        let first = PartitionIndex(count);
        let replicas =
            known.partition(PartitionIndex(0)).map_or(1, |partition| partition.replicas.len());
        let rows = match topic.assignments {
            None => place(self.image.brokers(), added, replicas, &mut self.draw)?,
            Some(rows) if rows.len() == added => {
                for (partition, row) in PartitionIndex::enumerate_from(first, &rows) {
                    let active = |id| self.known_active(id);
                    check_assignment(partition, row, Some(replicas), active)?;
                }
                rows
            }
            Some(rows) => {
                let text = format!(
                    "{added} partition(s) are to be added to topic '{name}', but {} assignment(s) \
                     are given",
                    rows.len()
                );
                return Err(Refusal::new(ErrorCode::InvalidReplicaAssignment, text));
            }
        };
        Ok((known.id, first, rows))
    }
}

/// The settings of a new topic, checked.
pub(super) fn checked_settings(
    settings: Vec<(String, Option<String>)>,
) -> Result<ConfigMap, Refusal> {
    settings_of(Scope::Topic, settings)
}

/// Settings given as a list may name one twice; given as a map they cannot.
pub(super) fn settings_of(
    scope: Scope,
    settings: Vec<(String, Option<String>)>,
) -> Result<ConfigMap, Refusal> {
    let mut map = ConfigMap::new();
    for (name, value) in settings {
        let Some(value) = value else {
            let text = format!("null value not supported for configuration {name}");
            return Err(Refusal::new(ErrorCode::InvalidConfig, text));
        };
        if map.insert(name.clone(), value.trim().to_owned()).is_some() {
            return Err(duplicate("configuration", &name));
        }
    }
    check_all(scope, &map)?;
    Ok(map)
}

fn unknown(topic: &TopicRef) -> Refusal {
    match topic {
        TopicRef::Name(name) => Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("there is no topic '{}'", name.escape_debug()),
        ),
        TopicRef::Id(id) => {
            Refusal::new(ErrorCode::UnknownTopicId, format!("there is no topic with id {id}"))
        }
    }
}

pub(super) fn duplicate(what: &str, name: &str) -> Refusal {
    let text = format!("{what} '{}' is listed twice in the request", name.escape_debug());
    Refusal::new(ErrorCode::InvalidRequest, text)
}

/// Those that are listed more than once.
pub(super) fn duplicates<T: Ord>(all: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    all.filter_map(|one| seen.replace(one)).collect()
}
