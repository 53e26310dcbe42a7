//! What topics with a tier must be like.

use super::tests::Cluster;
use super::*;
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
fn a_topic_with_a_tier_has_replicas_that_move_like_others() {
    let mut cluster = cluster();
    cluster.create(topic(2, &[TIERED])).unwrap();
    let state = cluster.controller.image().partition("t", PartitionIndex(0)).unwrap();
    let other = (1..=3).map(NodeId).find(|id| !state.replicas.contains(id)).unwrap();
    let replicas = vec![state.leader, other];
    let partition = TopicPartition::new("t", 0);
    let reassignments = vec![Reassignment { partition, replicas: Some(replicas) }];
    let allow_replication_factor_change = false;
    let command = AlterPartitionReassignments { reassignments, allow_replication_factor_change };
    cluster.ask(command).pop().unwrap().unwrap();
    let state = cluster.controller.image().partition("t", PartitionIndex(0)).unwrap();
    assert_eq!(state.adding, [other]);
}

#[test]
fn a_topic_with_several_replicas_gets_a_tier() {
    let mut cluster = cluster();
    cluster.create(topic(2, &[])).unwrap();
    cluster.incremental(ConfigResource::Topic("t".into()), TIERED.0, TIERED.1).unwrap();
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
