//! What topics with a tier must be like.

use super::tests::Cluster;
use super::*;
use crate::error::ErrorCode;
use crate::machine::metadata::ConfigResource;
use crate::types::{NodeId, PartitionIndex, TopicPartition};

const TIERED: (&str, &str) = ("remote.storage.enable", "true");

fn cluster() -> Cluster {
    let settings =
        [("remote.log.storage.system.enable", "true"), ("ottla.tier.url", "file:///tier")];
    Cluster::with_settings(&settings).start(3, &[])
}

fn topic(replicas: i16, configs: &[(&str, &str)]) -> NewTopic {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
    NewTopic { configs: configs.iter().map(own).collect(), ..NewTopic::new("t", 1, replicas) }
}

#[test]
fn a_topic_with_a_tier_has_one_replica_that_stays_where_it_is() {
    let mut cluster = cluster();
    let refusal = cluster.create(topic(2, &[TIERED])).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidReplicationFactor);
    assert!(refusal.message.contains("not 2"), "{}", refusal.message);

    cluster.create(topic(1, &[TIERED])).unwrap();
    let state = cluster.controller.image().partition("t", PartitionIndex(0)).unwrap();
    let (own, other) = (state.leader, NodeId(state.leader.0 % 3 + 1));
    let mut reassign = |target: &[NodeId]| {
        let partition = TopicPartition::new("t", 0);
        let reassignments = vec![Reassignment { partition, replicas: Some(target.to_vec()) }];
        let allow_replication_factor_change = true;
        let command =
            AlterPartitionReassignments { reassignments, allow_replication_factor_change };
        cluster.ask(command).pop().unwrap().map_err(|refusal| refusal.code)
    };
    assert_eq!(reassign(&[own, other]), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(reassign(&[other]), Err(ErrorCode::InvalidReplicaAssignment));
    assert_eq!(reassign(&[own]), Ok(()));
}

#[test]
fn a_topic_with_several_replicas_gets_no_tier() {
    let mut cluster = cluster();
    cluster.create(topic(2, &[])).unwrap();
    let resource = ConfigResource::Topic("t".into());
    let refusal = cluster.incremental(resource, TIERED.0, TIERED.1).unwrap_err();
    assert_eq!(refusal.code, ErrorCode::InvalidReplicationFactor);
}

#[test]
fn a_tier_goes_when_it_is_said_that_its_files_go() {
    let mut cluster = cluster();
    cluster.create(topic(1, &[TIERED])).unwrap();
    let resource = ConfigResource::Topic("t".into());
    let mut set = |name: &str, value: &str| {
        cluster.incremental(resource.clone(), name, value).map_err(|refusal| refusal.message)
    };
    let refused = set(TIERED.0, "false").unwrap_err();
    assert!(refused.contains("without deleting remote data"), "{refused}");
    let refused = set("cleanup.policy", "compact").unwrap_err();
    assert!(refused.contains("cleanup.policy=delete"), "{refused}");
    set("remote.log.copy.disable", "true").unwrap();
    set("remote.log.delete.on.disable", "true").unwrap();
    set(TIERED.0, "false").unwrap();
    set("cleanup.policy", "compact").unwrap();
}
