//! The cluster, its log directories, quorum and ACLs, word for word at every version.

use ottla::protocol::Str;
use ottla::protocol::messages::add_raft_voter::{AddRaftVoterRequest, Listener};
use ottla::protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use ottla::protocol::messages::alter_replica_log_dirs::{
    AlterReplicaLogDir, AlterReplicaLogDirTopic, AlterReplicaLogDirsRequest,
};
use ottla::protocol::messages::create_acls::{AclCreation, CreateAclsRequest};
use ottla::protocol::messages::delete_acls::{DeleteAclsFilter, DeleteAclsRequest};
use ottla::protocol::messages::describe_acls::DescribeAclsRequest;
use ottla::protocol::messages::describe_cluster::DescribeClusterRequest;
use ottla::protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use ottla::protocol::messages::describe_quorum::{DescribeQuorumRequest, PartitionData, TopicData};
use ottla::protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use ottla::protocol::messages::list_partition_reassignments::{
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsTopics,
};
use ottla::protocol::messages::own::TierState;
use ottla::protocol::messages::remove_raft_voter::RemoveRaftVoterRequest;
use ottla::protocol::messages::unregister_broker::UnregisterBrokerRequest;
use ottla::protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use ottla::types::Uuid;

use crate::batches::batch;
use crate::transcript::Script;
use crate::wire_produce::produce_to;

against_both!(
    transcript:
    describe_cluster,
    describe_log_dirs,
    alter_replica_log_dirs,
    list_partition_reassignments,
    alter_partition_reassignments,
    elect_leaders,
    update_features,
    unregister_broker,
    describe_quorum,
    raft_voters,
    acls,
);

/// The cluster is described at every version.
fn describe_cluster(talk: &mut Script) {
    let plain = DescribeClusterRequest::default();
    let cluster = talk.call(0, plain.clone()).cluster_id;
    talk.mask(&cluster, "cluster");
    for version in 0..=2 {
        talk.ask("the cluster", version, plain.clone());
        let operations =
            DescribeClusterRequest { include_cluster_authorized_operations: true, ..plain.clone() };
        talk.ask("with operations", version, operations);
        if version >= 1 {
            for endpoint_type in [2, 0, 9] {
                let request = DescribeClusterRequest { endpoint_type, ..plain.clone() };
                talk.ask(&format!("endpoints of type {endpoint_type}"), version, request);
            }
        }
        if version >= 2 {
            let fenced = DescribeClusterRequest { include_fenced_brokers: true, ..plain.clone() };
            talk.ask("with fenced brokers", version, fenced);
        }
    }
}

/// Log directories are described at every version.
fn describe_log_dirs(talk: &mut Script) {
    // Ours, and not sent of a topic without a tier.
    let own = format!(", tier: {:?}", TierState::default());
    let topic = talk.topic("topic", 2);
    talk.call(11, produce_to(&topic, &[(0, Some(batch(3)))], 11));
    let missing = talk.name("missing");
    let of = |name: &Str, partitions: &[i32]| DescribableLogDirTopic {
        topic: name.clone(),
        partitions: partitions.to_vec(),
    };
    for version in 1..=5 {
        for (label, topics) in [
            ("everything", None),
            ("nothing", Some(Vec::new())),
            ("two partitions", Some(vec![of(&topic.0, &[0, 1])])),
            ("the same partition twice", Some(vec![of(&topic.0, &[0, 0])])),
            ("an unknown partition", Some(vec![of(&topic.0, &[0, 9])])),
            ("an unknown topic", Some(vec![of(&missing, &[0])])),
            ("no partitions", Some(vec![of(&topic.0, &[])])),
        ] {
            let mut answer = talk.call(version, DescribeLogDirsRequest { topics });
            for result in &mut answer.results {
                result.log_dir = "<directory>".into();
                // 1: it is reported.
                result.total_bytes = result.total_bytes.min(1);
                result.usable_bytes = result.usable_bytes.min(1);
                result.topics.retain(|found| found.name == topic.0 || found.name == missing);
                for topic in &mut result.topics {
                    topic.partitions.sort_by_key(|partition| partition.partition_index);
                }
            }
            talk.note_text(label, version, &format!("{answer:?}").replace(&own, ""));
        }
    }
}

/// Reassignments are listed.
fn list_partition_reassignments(talk: &mut Script) {
    let (topic, _) = talk.topic("topic", 1);
    let missing = talk.name("missing");
    let of = |name: &Str, partitions: &[i32]| ListPartitionReassignmentsTopics {
        name: name.clone(),
        partition_indexes: partitions.to_vec(),
    };
    for (label, topics) in [
        ("everything", None),
        ("nothing", Some(Vec::new())),
        ("a partition", Some(vec![of(&topic, &[0])])),
        ("an unknown partition", Some(vec![of(&topic, &[9])])),
        ("an unknown topic", Some(vec![of(&missing, &[0])])),
        ("no partitions", Some(vec![of(&topic, &[])])),
    ] {
        let request = ListPartitionReassignmentsRequest { timeout_ms: 20_000, topics };
        talk.ask(label, 0, request);
    }
}

/// Replicas are moved between log directories, of which there is one.
fn alter_replica_log_dirs(talk: &mut Script) {
    let (topic, _) = talk.topic("topic", 2);
    let missing = talk.name("missing");
    let described = talk.call(5, DescribeLogDirsRequest { topics: Some(Vec::new()) });
    let here = described.results[0].log_dir.clone();
    let of = |path: &Str, name: &Str, partitions: &[i32]| AlterReplicaLogDir {
        path: path.clone(),
        topics: vec![AlterReplicaLogDirTopic {
            name: name.clone(),
            partitions: partitions.to_vec(),
        }],
    };
    let elsewhere = Str::from_static("/not/a/log/directory");
    for version in 1..=2 {
        for (label, dirs) in [
            ("where it is", vec![of(&here, &topic, &[0])]),
            ("a directory that does not exist", vec![of(&elsewhere, &topic, &[0])]),
            ("an unknown partition", vec![of(&here, &topic, &[9])]),
            ("an unknown topic", vec![of(&here, &missing, &[0])]),
            ("an unknown topic elsewhere", vec![of(&elsewhere, &missing, &[0])]),
            ("no partitions", vec![of(&here, &topic, &[])]),
            ("nothing", Vec::new()),
        ] {
            let mut answer = talk.call(version, AlterReplicaLogDirsRequest { dirs });
            answer.results.retain(|result| !result.partitions.is_empty());
            talk.note(label, version, &answer);
        }
    }
}

/// Partitions are moved to other brokers, of which there are none.
fn alter_partition_reassignments(talk: &mut Script) {
    let (topic, _) = talk.topic("topic", 2);
    let missing = talk.name("missing");
    let of = |name: &Str, partition_index: i32, replicas: Option<&[i32]>| ReassignableTopic {
        name: name.clone(),
        partitions: vec![ReassignablePartition {
            partition_index,
            replicas: replicas.map(<[i32]>::to_vec),
        }],
    };
    for version in 0..=1 {
        for (label, topics) in [
            ("where it is", vec![of(&topic, 0, Some(&[1]))]),
            ("a broker that does not exist", vec![of(&topic, 0, Some(&[1, 7]))]),
            ("a broker below 0", vec![of(&topic, 0, Some(&[-1]))]),
            ("a broker twice", vec![of(&topic, 0, Some(&[1, 1]))]),
            ("no brokers", vec![of(&topic, 0, Some(&[]))]),
            ("cancel nothing", vec![of(&topic, 1, None)]),
            ("an unknown partition", vec![of(&topic, 9, Some(&[1]))]),
            ("an unknown topic", vec![of(&missing, 0, Some(&[1]))]),
            ("cancel an unknown topic", vec![of(&missing, 0, None)]),
            ("two topics", vec![of(&topic, 0, Some(&[1])), of(&missing, 0, Some(&[1]))]),
            ("nothing", Vec::new()),
        ] {
            for allow_replication_factor_change in [true, false] {
                if version == 0 && !allow_replication_factor_change {
                    continue;
                }
                let request = AlterPartitionReassignmentsRequest {
                    timeout_ms: 20_000,
                    allow_replication_factor_change,
                    topics: topics.clone(),
                };
                talk.ask(label, version, request);
            }
        }
    }
}

/// Leaders are elected, where the only broker leads already.
fn elect_leaders(talk: &mut Script) {
    let (topic, _) = talk.topic("topic", 2);
    let missing = talk.name("missing");
    let of = |topic: &Str, partitions: &[i32]| TopicPartitions {
        topic: topic.clone(),
        partitions: partitions.to_vec(),
    };
    for version in 0..=2 {
        for (label, topics) in [
            ("two partitions", vec![of(&topic, &[1, 0])]),
            ("an unknown partition", vec![of(&topic, &[0, 9])]),
            ("an unknown topic", vec![of(&missing, &[0])]),
            ("two topics", vec![of(&missing, &[0]), of(&topic, &[0])]),
            ("no partitions", vec![of(&topic, &[])]),
            ("nothing", Vec::new()),
        ] {
            for election_type in [0, 1, 9] {
                if version == 0 && election_type > 0 {
                    continue;
                }
                let request = ElectLeadersRequest {
                    election_type,
                    topic_partitions: Some(topics.clone()),
                    timeout_ms: 20_000,
                };
                talk.ask(&format!("{label}, type {election_type}"), version, request);
            }
        }
        // Topics of other conversations come and go; none of them has something to elect.
        let everything = ElectLeadersRequest { topic_partitions: None, ..Default::default() };
        let mut answer = talk.call(version, everything);
        answer.replica_election_results.retain(|result| !result.partition_result.is_empty());
        talk.note("everything", version, &answer);
    }
}

/// Features are changed; what is asked for leaves them as they are.
fn update_features(talk: &mut Script) {
    let of = |feature: &str, max_version_level: i16, upgrade_type: i8| FeatureUpdateKey {
        feature: feature.into(),
        max_version_level,
        allow_downgrade: false,
        upgrade_type,
    };
    for version in 0..=2 {
        for (label, updates) in [
            ("the level it has", vec![of("group.version", 1, 1)]),
            ("a level too high", vec![of("group.version", 99, 1)]),
            ("a level below 0", vec![of("group.version", -1, 1)]),
            ("lower without saying so", vec![of("group.version", 0, 1)]),
            ("an unknown feature", vec![of("no.such.feature", 1, 1)]),
            ("an unknown feature at 0", vec![of("no.such.feature", 0, 1)]),
            ("one of two refused", vec![of("group.version", 1, 1), of("no.such.feature", 1, 1)]),
            ("nothing", Vec::new()),
        ] {
            for validate_only in [true, false] {
                if version == 0 && validate_only {
                    continue;
                }
                let request = UpdateFeaturesRequest {
                    timeout_ms: 20_000,
                    feature_updates: updates.clone(),
                    validate_only,
                };
                talk.ask(label, version, request);
            }
        }
        if version == 0 {
            continue;
        }
        for (label, update) in [
            ("a safe downgrade to the same level", of("group.version", 1, 2)),
            ("an unsafe downgrade to the same level", of("group.version", 1, 3)),
            ("a safe downgrade", of("group.version", 0, 2)),
            ("a way that does not exist", of("group.version", 1, 9)),
            ("the metadata below the lowest", of("metadata.version", 1, 2)),
            ("the metadata beyond the highest", of("metadata.version", 99, 1)),
        ] {
            let request = UpdateFeaturesRequest {
                timeout_ms: 20_000,
                feature_updates: vec![update],
                validate_only: true,
            };
            talk.ask(label, version, request);
        }
    }
}

/// Brokers that do not exist are forgotten.
fn unregister_broker(talk: &mut Script) {
    for broker_id in [77, -1] {
        talk.ask(&format!("broker {broker_id}"), 0, UnregisterBrokerRequest { broker_id });
    }
}

/// The quorum is described at every version.
fn describe_quorum(talk: &mut Script) {
    for version in 0..=2 {
        for (label, topic, partitions) in [
            ("the metadata", "__cluster_metadata", &[0][..]),
            ("another partition", "__cluster_metadata", &[1]),
            ("no partitions", "__cluster_metadata", &[]),
            ("another topic", "other", &[0]),
            ("no name", "", &[0]),
        ] {
            let part = |&partition_index: &i32| PartitionData { partition_index };
            let partitions = partitions.iter().map(part).collect();
            let topics = vec![TopicData { topic_name: topic.into(), partitions }];
            let mut answer = talk.call(version, DescribeQuorumRequest { topics });
            for partition in answer.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                // 1: it is reported; both count on.
                partition.leader_epoch = partition.leader_epoch.min(1);
                partition.high_watermark = partition.high_watermark.min(1);
                for voter in &mut partition.current_voters {
                    voter.log_end_offset = voter.log_end_offset.min(1);
                    voter.last_fetch_timestamp = voter.last_fetch_timestamp.min(1);
                    voter.last_caught_up_timestamp = voter.last_caught_up_timestamp.min(1);
                    // Apache Kafka reports it for voters that were added later.
                    voter.replica_directory_id = Uuid::ZERO;
                }
            }
            // In Apache Kafka the controller has its own listener, which is not reported with
            // errors.
            for node in &mut answer.nodes {
                node.listeners.clear();
            }
            if label != "the metadata" {
                answer.nodes.clear();
            }
            talk.note(label, version, &answer);
        }
        let mut answer = talk.call(version, DescribeQuorumRequest::default());
        answer.nodes.clear();
        talk.note("nothing", version, &answer);
    }
}

/// Voters that cannot be added or removed, at every version.
fn raft_voters(talk: &mut Script) {
    let (directory, other) = (Uuid([7; 16]), Some(Str::from("another")));
    let listener = || Listener { name: "CONTROLLER".into(), host: "127.0.0.1".into(), port: 1 };
    for version in 0..=1 {
        for (label, cluster_id, voter_id, voter_directory_id, listeners) in [
            ("another cluster", other.clone(), 77, directory, vec![listener()]),
            ("no directory", None, 77, Uuid::ZERO, vec![listener()]),
            ("a negative id", None, -1, directory, vec![listener()]),
            ("no listener", None, 77, directory, vec![]),
            ("a node that votes", None, 1, directory, vec![listener()]),
            ("a node that is not reached", None, 77, directory, vec![listener()]),
        ] {
            let request = AddRaftVoterRequest {
                cluster_id,
                timeout_ms: 10_000,
                voter_id,
                voter_directory_id,
                listeners,
                ack_when_committed: true,
            };
            talk.ask(label, version, request);
        }
    }
    for (label, cluster_id, voter_id, voter_directory_id) in [
        ("removed from another cluster", other, 1, directory),
        ("removed without a directory", None, 1, Uuid::ZERO),
        ("a node that does not vote", None, 77, directory),
        ("a node with another directory", None, 1, directory),
    ] {
        let request = RemoveRaftVoterRequest { cluster_id, voter_id, voter_directory_id };
        talk.ask(label, 0, request);
    }
}

/// ACLs need an authorizer at every version.
fn acls(talk: &mut Script) {
    for version in 1..=3 {
        let everything = DescribeAclsRequest {
            resource_type_filter: 1,
            resource_name_filter: None,
            pattern_type_filter: 1,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        };
        talk.ask("described", version, everything);
        let acl = AclCreation {
            resource_type: 2,
            resource_name: "topic".into(),
            resource_pattern_type: 3,
            principal: "User:test".into(),
            host: "*".into(),
            operation: 3,
            permission_type: 3,
        };
        let bad = AclCreation { principal: "test".into(), ..acl.clone() };
        for (label, creations) in [
            ("created", vec![acl.clone()]),
            ("two created", vec![acl.clone(), acl]),
            ("a principal without a kind", vec![bad]),
            ("none created", Vec::new()),
        ] {
            talk.ask(label, version, CreateAclsRequest { creations });
        }
        let filter = DeleteAclsFilter {
            resource_type_filter: 1,
            resource_name_filter: None,
            pattern_type_filter: 1,
            principal_filter: None,
            host_filter: None,
            operation: 1,
            permission_type: 1,
        };
        for (label, filters) in [
            ("deleted", vec![filter.clone()]),
            ("two deleted", vec![filter.clone(), filter]),
            ("none deleted", Vec::new()),
        ] {
            talk.ask(label, version, DeleteAclsRequest { filters });
        }
    }
}
