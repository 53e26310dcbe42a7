//! Topics, settings, offsets, the cluster.

use std::collections::{BTreeMap, BTreeSet};

use ottla::client::IsolationLevel;
use ottla::client::admin::{ConfigChange, ConfigSource, Election, NewTopic, OffsetSpec, Resource};
use ottla::client::producer::ProducerRecord;
use ottla::error::ErrorCode;
use ottla::types::{NodeId, Offset, TimestampMs, TopicPartition, Uuid};

use crate::peers::{Peer, unique};

against_both!(
    peers:
    topics_are_created_described_grown_and_deleted,
    settings_are_described_and_changed,
    offsets_are_looked_up_and_records_deleted,
    a_topic_without_a_tier_is_described_and_not_copied,
    the_cluster_is_described,
    partitions_and_brokers_are_operated,
);

async fn topics_are_created_described_grown_and_deleted(peer: Peer) {
    let admin = peer.client.admin();
    let name = unique("admin");
    let topic = NewTopic::new(&name, 3).config("retention.ms", "12345");
    let validated = admin.create_topics(std::slice::from_ref(&topic), true).await.unwrap();
    assert!(validated[0].is_ok(), "{}: {validated:?}", peer.name);
    let created = admin.create_topics(std::slice::from_ref(&topic), false).await.unwrap();
    let created = created.into_iter().next().unwrap().unwrap();
    assert_ne!(created.id, Uuid::ZERO);
    assert_eq!(created.partitions, Some(3));

    let again = admin.create_topics(&[topic], false).await.unwrap();
    assert_eq!(again[0].as_ref().unwrap_err().code(), ErrorCode::TopicAlreadyExists);

    // Brokers hear of it a moment after the controller has done it.
    let described = loop {
        let described = admin.describe_topics(&[&name, "no-such-topic"]).await.unwrap();
        if described[0].is_ok() {
            break described;
        }
        tokio::task::yield_now().await;
    };
    let info = described[0].as_ref().unwrap();
    assert_eq!((info.id, info.partition_count()), (created.id, 3));
    assert!(info.partitions.iter().all(|partition| partition.leader.is_some()));
    assert!(info.partitions.iter().all(|partition| partition.isr.len() == 1));
    let missing = described[1].as_ref().unwrap_err();
    assert_eq!(missing.code(), ErrorCode::UnknownTopicOrPartition);

    admin.create_partitions(&name, 5, false).await.unwrap();
    let error = admin.create_partitions(&name, 2, false).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidPartitions, "{error}");
    while peer.client.topic(&name).await.unwrap().partition_count() != 5 {
        tokio::task::yield_now().await;
    }
    let listed = admin.list_topics().await.unwrap();
    assert!(listed.iter().any(|topic| *topic.name == name));

    let deleted = admin.delete_topics(&[&name, "no-such-topic"]).await.unwrap();
    assert!(deleted[0].is_ok());
    let error = deleted[1].as_ref().unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownTopicOrPartition);
}

async fn settings_are_described_and_changed(peer: Peer) {
    let admin = peer.client.admin();
    let name = peer.topic(1).await;
    let resource = Resource::topic(&name);
    let value_of = async |key: &str| {
        let described =
            admin.describe_configs(std::slice::from_ref(&resource), true).await.unwrap();
        let entries = described.into_iter().next().unwrap().unwrap();
        assert!(entries.len() > 20);
        let entry = entries.into_iter().find(|entry| entry.name == key).unwrap();
        (entry.value.unwrap(), entry.source)
    };
    assert_eq!(value_of("cleanup.policy").await, ("delete".to_owned(), ConfigSource::Default));
    let set = |value: &str| ConfigChange::Set(value.to_owned());
    let changes = BTreeMap::from([("retention.ms".to_owned(), set("777"))]);
    admin.alter_configs(&resource, &changes, false).await.unwrap();
    // Brokers hear of a change a moment after the controller has accepted it.
    while value_of("retention.ms").await != ("777".to_owned(), ConfigSource::Topic) {
        tokio::task::yield_now().await;
    }
    let changes = BTreeMap::from([("retention.ms".to_owned(), ConfigChange::Delete)]);
    admin.alter_configs(&resource, &changes, false).await.unwrap();
    while value_of("retention.ms").await.1 == ConfigSource::Topic {
        tokio::task::yield_now().await;
    }
    let changes = BTreeMap::from([("retention.ms".to_owned(), set("soon"))]);
    let error = admin.alter_configs(&resource, &changes, false).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InvalidConfig, "{error}");
    let missing = admin.describe_configs(&[Resource::topic("no-such-topic")], false).await;
    let missing = missing.unwrap().into_iter().next().unwrap().unwrap_err();
    assert_eq!(missing.code(), ErrorCode::UnknownTopicOrPartition);
}

async fn offsets_are_looked_up_and_records_deleted(peer: Peer) {
    let admin = peer.client.admin();
    let name = peer.topic(1).await;
    let partition = TopicPartition::new(name.as_str(), 0);
    let producer = peer.client.producer().unwrap();
    for index in 0..10 {
        let mut record = ProducerRecord::new(name.as_str(), format!("{index}"));
        record.timestamp = Some(TimestampMs(1_700_000_000_000 + index * 1_000));
        producer.send_and_wait(record).await.unwrap();
    }
    let look_up = async |spec| {
        let wanted = BTreeMap::from([(partition.clone(), spec)]);
        let listed = admin.list_offsets(&wanted, IsolationLevel::ReadUncommitted).await;
        listed.unwrap()[&partition]
    };
    assert_eq!(look_up(OffsetSpec::Earliest).await.offset, Some(Offset(0)));
    assert_eq!(look_up(OffsetSpec::Latest).await.offset, Some(Offset(10)));
    assert_eq!(look_up(OffsetSpec::MaxTimestamp).await.offset, Some(Offset(9)));
    let at = |ms: i64| OffsetSpec::Timestamp(TimestampMs(1_700_000_000_000 + ms));
    assert_eq!(look_up(at(3_500)).await.offset, Some(Offset(4)));
    assert_eq!(look_up(at(4_000)).await.timestamp, TimestampMs(1_700_000_004_000));
    assert_eq!(look_up(at(60_000)).await.offset, None, "past the end");

    let before = BTreeMap::from([(partition.clone(), Offset(4))]);
    let starts = admin.delete_records(&before).await.unwrap();
    assert_eq!(starts[&partition], Offset(4));
    assert_eq!(look_up(OffsetSpec::Earliest).await.offset, Some(Offset(4)));
    let before = BTreeMap::from([(partition.clone(), Offset(400))]);
    let error = admin.delete_records(&before).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::OffsetOutOfRange);

    let producers = admin.describe_producers(&partition).await.unwrap();
    assert_eq!(producers.len(), 1);
    producer.close(std::time::Duration::from_secs(10)).await.unwrap();
}

async fn a_topic_without_a_tier_is_described_and_not_copied(peer: Peer) {
    let admin = peer.client.admin();
    let name = peer.topic(1).await;
    let partition = TopicPartition::new(name.as_str(), 0);
    let producer = peer.client.producer().unwrap();
    for index in 0..3 {
        let record = ProducerRecord::new(name.as_str(), format!("{index}"));
        producer.send_and_wait(record).await.unwrap();
    }
    for (spec, expected) in [
        (OffsetSpec::EarliestLocal, Some(Offset(0))),
        (OffsetSpec::LatestTiered, None),
        (OffsetSpec::EarliestPendingUpload, None),
    ] {
        let wanted = BTreeMap::from([(partition.clone(), spec)]);
        let listed = admin.list_offsets(&wanted, IsolationLevel::ReadUncommitted).await.unwrap();
        assert_eq!(listed[&partition].offset, expected, "{spec:?} of {}", peer.name);
    }
    let tier = admin.tier(&name).await.unwrap();
    assert_eq!((tier.is_enabled, tier.copies, tier.place), (false, false, None));
    let one = &tier.partitions[0];
    let (start, end) = (Some(Offset(0)), Some(Offset(3)));
    assert_eq!((one.start, one.local_start, one.end), (start, start, end));
    assert_eq!((one.tiered_end, one.pending, one.files, one.file_bytes), (None, None, None, None));
    assert!(one.local_bytes > Some(0), "{one:?}");
    let refused = admin.offload(&name).await.unwrap_err();
    let code = match peer.name {
        "Apache Kafka" => ErrorCode::UnsupportedVersion,
        _ => ErrorCode::InvalidConfig,
    };
    assert_eq!(refused.code(), code, "{refused}");
    producer.close(std::time::Duration::from_secs(10)).await.unwrap();
}

async fn the_cluster_is_described(peer: Peer) {
    let admin = peer.client.admin();
    let cluster = admin.describe_cluster().await.unwrap();
    assert_eq!(cluster.brokers.len(), 1);
    assert!(cluster.cluster_id.is_some_and(|id| !id.is_empty()));
    let quorum = admin.describe_quorum().await.unwrap();
    assert_eq!(quorum.leader, cluster.brokers[0].id);
    assert_eq!(quorum.voters.len(), 1);
    let features = admin.describe_features().await.unwrap();
    assert!(features.iter().any(|feature| feature.name == "metadata.version"));
    let name = peer.topic(2).await;
    let mut record = ProducerRecord::new(name.as_str(), "x");
    record.partition = Some(1.into());
    peer.client.producer().unwrap().send_and_wait(record).await.unwrap();
    let directories = admin.describe_log_dirs().await.unwrap();
    assert!(directories.iter().any(|directory| {
        directory.partitions.contains_key(&TopicPartition::new(name.as_str(), 1))
    }));
    let broker = Resource::broker(cluster.brokers[0].id);
    let configs = admin.describe_configs(&[broker], false).await.unwrap();
    assert!(configs[0].as_ref().unwrap().iter().any(|entry| entry.name == "node.id"));
}

/// A cluster of one: nothing can be moved, and each refusal says why.
async fn partitions_and_brokers_are_operated(peer: Peer) {
    let admin = peer.client.admin();
    let name = peer.topic_with(NewTopic::new(unique("case"), 2).config("min.insync.replicas", "3"));
    let name = name.await;
    let cluster = loop {
        let cluster = admin.cluster_state().await.unwrap();
        if cluster.topics.iter().any(|topic| *topic.name == name) {
            break cluster;
        }
        tokio::task::yield_now().await;
    };
    let (broker, node) = (&cluster.brokers[0], cluster.brokers[0].info.id);
    assert_eq!((cluster.brokers.len(), broker.fenced), (1, Some(false)), "{}", peer.name);
    assert_eq!(cluster.controller, Some(node));
    assert_eq!(cluster.min_insync_replicas[&name], 3);
    assert_eq!((cluster.offline(), cluster.under_replicated()), (Vec::new(), Vec::new()));
    // No partition needs more copies in sync than it has.
    assert_eq!(cluster.under_min_isr(), Vec::new());
    let view = admin.seen_by(node).await.unwrap();
    assert_eq!(view.quorum.unwrap().leader, node);
    assert_eq!(view.brokers.unwrap(), cluster.brokers);
    assert!(view.topics.unwrap().iter().any(|topic| *topic.name == name));

    let partition = |index| TopicPartition::new(name.as_str(), index);
    let targets = BTreeMap::from([
        (partition(0), Some(vec![node])),
        (partition(1), Some(vec![NodeId(77)])),
        (partition(9), None),
    ]);
    let outcomes = admin.alter_partition_reassignments(&targets).await.unwrap();
    let codes: Vec<_> =
        outcomes.values().map(|told| told.as_ref().map_err(ottla::error::Error::code)).collect();
    let (misplaced, unknown) =
        (ErrorCode::InvalidReplicaAssignment, ErrorCode::UnknownTopicOrPartition);
    assert_eq!(codes, [Ok(&()), Err(misplaced), Err(unknown)]);
    assert!(admin.list_partition_reassignments().await.unwrap().is_empty());

    let partitions = BTreeSet::from([partition(0), partition(9)]);
    let elected = admin.elect_leaders(Election::Preferred, Some(&partitions)).await.unwrap();
    let codes: Vec<_> = elected.values().map(|told| told.as_ref().unwrap_err().code()).collect();
    assert_eq!(codes, [ErrorCode::ElectionNotNeeded, unknown]);
    let elected = admin.elect_leaders(Election::Preferred, None).await.unwrap();
    assert!(!elected.contains_key(&partition(0)), "{elected:?}");
    let refused = admin.unregister_broker(NodeId(77)).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::BrokerIdNotRegistered);
}
