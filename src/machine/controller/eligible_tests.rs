//! Eligible leaders, and brokers that come back without what they had.

use super::tests::{Cluster, assigned, registration, report};
use super::*;
use crate::error::ErrorCode;
use crate::types::{BrokerEpoch, PartitionIndex};

/// Three brokers with one partition on all of them, of which two must be in sync, or another topic of this kind.
fn three(configs: &[(&str, &str)]) -> Cluster {
    let mut cluster = Cluster::of_voters(3);
    let config = |(name, value): &(&str, &str)| ((*name).to_owned(), Some((*value).to_owned()));
    let configs = configs.iter().map(config).collect();
    cluster.create(NewTopic { configs, ..assigned("t", &[&[1, 2, 3]]) }).unwrap();
    cluster
}

fn replicated() -> Cluster {
    three(&[("min.insync.replicas", "2")])
}

/// Leader, ISR, ELR and last leader.
fn state(cluster: &Cluster) -> (i32, Vec<i32>, Vec<i32>, Vec<i32>) {
    let state = cluster.controller.image().partition("t", PartitionIndex(0)).unwrap();
    let ids = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<_>>();
    (state.leader.0, ids(&state.isr), ids(&state.elr), ids(&state.last_known_elr))
}

fn epoch(cluster: &Cluster, id: i32) -> BrokerEpoch {
    cluster.controller.image().broker(NodeId(id)).unwrap().epoch
}

fn bury(cluster: &mut Cluster, id: i32) {
    let epoch = epoch(cluster, id);
    cluster.ask(BuryBroker { id: NodeId(id), epoch }).unwrap();
}

/// A broker is started again, by a new process, and is not active yet.
fn register(cluster: &mut Cluster, id: i32, predecessor: impl Into<Option<Predecessor>>) -> i64 {
    let last = cluster.controller.image().last_broker_epoch().0;
    let process = 100 + u8::try_from(last).unwrap();
    let predecessor = predecessor.into();
    let again = BrokerRegistration { predecessor, ..registration(id, process, 1) };
    cluster.ask(again).unwrap().0
}

fn start(cluster: &mut Cluster, id: i32, predecessor: impl Into<Option<Predecessor>>) {
    let epoch = register(cluster, id, predecessor);
    cluster.heartbeat(id, epoch, false, false);
}

fn with_everything(cluster: &Cluster, id: i32) -> Predecessor {
    Predecessor { epoch: epoch(cluster, id), left_all: true, durability: None }
}

fn after_a_power_cut(cluster: &Cluster, id: i32, durability: &str) -> Predecessor {
    let epoch = epoch(cluster, id);
    Predecessor { epoch, left_all: false, durability: Some(durability.to_owned()) }
}

fn fall(cluster: &mut Cluster) {
    for id in [3, 2, 1] {
        bury(cluster, id);
    }
}

#[test]
fn whoever_leaves_while_nothing_is_committed_can_still_lead() {
    let mut cluster = replicated();
    bury(&mut cluster, 3);
    assert_eq!(state(&cluster), (1, vec![1, 2], vec![], vec![]), "3 misses what 1 and 2 commit");
    bury(&mut cluster, 2);
    assert_eq!(state(&cluster), (1, vec![1], vec![2], vec![]));
    bury(&mut cluster, 1);
    assert_eq!(state(&cluster), (-1, vec![], vec![2, 1], vec![1]));
    let three = with_everything(&cluster, 3);
    start(&mut cluster, 3, three);
    assert_eq!(state(&cluster).0, -1, "3 is not eligible");
    let two = with_everything(&cluster, 2);
    start(&mut cluster, 2, two);
    assert_eq!(state(&cluster), (2, vec![2], vec![1], vec![]));
    report(&mut cluster, &[2, 3]).unwrap();
    assert_eq!(state(&cluster), (2, vec![2, 3], vec![], vec![]), "enough are in sync");
}

#[test]
fn a_broker_that_lost_records_is_in_sync_nowhere() {
    let mut cluster = replicated();
    // Also if nobody noticed that it was gone.
    for (durability, isr) in [("os", vec![1, 3]), ("auto", vec![1, 3])] {
        let two = after_a_power_cut(&cluster, 2, durability);
        start(&mut cluster, 2, two);
        assert_eq!(state(&cluster), (1, isr, vec![], vec![]));
        report(&mut cluster, &[1, 2, 3]).unwrap();
    }
    let former = Predecessor { epoch: BrokerEpoch(0), left_all: true, durability: None };
    for predecessor in [None, Some(former)] {
        start(&mut cluster, 2, predecessor);
        assert_eq!(state(&cluster).1, [1, 3]);
        report(&mut cluster, &[1, 2, 3]).unwrap();
    }
    // The leader, too: others have everything.
    let one = after_a_power_cut(&cluster, 1, "os");
    start(&mut cluster, 1, one);
    assert_eq!(state(&cluster), (2, vec![2, 3], vec![], vec![]));
}

#[test]
fn when_all_lost_records_the_last_leader_leads() {
    let mut cluster = replicated();
    fall(&mut cluster);
    for (id, elr) in [(2, vec![1]), (1, vec![])] {
        let cut = after_a_power_cut(&cluster, id, "os");
        register(&mut cluster, id, cut);
        assert_eq!(state(&cluster), (-1, vec![], elr, vec![1]));
    }
    let two = epoch(&cluster, 2).0;
    cluster.heartbeat(2, two, false, false);
    assert_eq!(state(&cluster).0, -1, "it is not waited for in vain: the last leader comes back");
    let one = epoch(&cluster, 1).0;
    cluster.heartbeat(1, one, false, false);
    assert_eq!(state(&cluster), (1, vec![1], vec![], vec![]));
}

#[test]
fn what_was_synced_is_not_lost() {
    // By the topic, and by the broker.
    let by_topic = [("min.insync.replicas", "2"), ("durability", "fsync")];
    let by_broker = [("min.insync.replicas", "2")];
    let cases = [(&by_topic[..], "os"), (&by_broker, "fsync")];
    for (configs, durability) in cases {
        let mut cluster = three(configs);
        let two = after_a_power_cut(&cluster, 2, durability);
        bury(&mut cluster, 2);
        bury(&mut cluster, 3);
        bury(&mut cluster, 1);
        let before = state(&cluster);
        register(&mut cluster, 2, two);
        assert_eq!(state(&cluster), before, "{durability}");
        register(&mut cluster, 2, None::<Predecessor>);
        assert!(!state(&cluster).2.contains(&2), "{durability}: nobody knows how it was used");
    }
    // By default only a single copy is: those who follow a leader do not wait for their disks.
    let mut cluster = three(&[]);
    cluster.create(assigned("single", &[&[2]])).unwrap();
    let two = after_a_power_cut(&cluster, 2, "auto");
    register(&mut cluster, 2, two);
    assert_eq!(state(&cluster).1, [1, 3]);
    let single = cluster.controller.image().partition("single", PartitionIndex(0)).unwrap();
    assert_eq!((&single.isr[..], &single.elr[..]), (&[][..], &[NodeId(2)][..]));
}

#[test]
fn a_single_broker_that_lost_records_leads_on() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let configs = vec![("durability".to_owned(), Some("os".to_owned()))];
    cluster.create(NewTopic { configs, ..assigned("t", &[&[1]]) }).unwrap();
    let again = BrokerRegistration { ready: true, ..registration(1, 9, 1) };
    cluster.ask(again).unwrap();
    assert_eq!(state(&cluster), (1, vec![1], vec![], vec![]));
    assert!(cluster.partition("t", 0).2 > 0, "in a new term");
}

#[test]
fn with_a_lower_minimum_nobody_is_eligible_who_is_not_in_sync() {
    let topic = ConfigResource::Topic("t".into());
    let mut cluster = replicated();
    bury(&mut cluster, 3);
    bury(&mut cluster, 2);
    cluster.incremental(topic.clone(), "min.insync.replicas", "3").unwrap();
    assert_eq!(state(&cluster), (1, vec![1], vec![2], vec![]));
    cluster.incremental(topic, "min.insync.replicas", "1").unwrap();
    assert_eq!(state(&cluster), (1, vec![1], vec![], vec![]));
    // While nobody leads nothing is committed, whatever the minimum; but whoever leads next may be enough.
    let mut cluster = replicated();
    fall(&mut cluster);
    let topic = ConfigResource::Topic("t".into());
    cluster.incremental(topic, "min.insync.replicas", "1").unwrap();
    assert_eq!(state(&cluster), (-1, vec![], vec![2, 1], vec![1]));
    let two = with_everything(&cluster, 2);
    start(&mut cluster, 2, two);
    assert_eq!(state(&cluster), (2, vec![2], vec![], vec![]));
    // The default of the cluster, which the topic then takes.
    let mut cluster = three(&[]);
    let default = ConfigResource::ClusterDefault;
    cluster.incremental(default.clone(), "min.insync.replicas", "3").unwrap();
    bury(&mut cluster, 3);
    assert_eq!(state(&cluster), (1, vec![1, 2], vec![3], vec![]));
    cluster.incremental(default, "min.insync.replicas", "2").unwrap();
    assert_eq!(state(&cluster), (1, vec![1, 2], vec![], vec![]));
}

#[test]
fn the_whole_cluster_has_one_minimum() {
    let mut cluster = Cluster::with_brokers(1, &[]);
    let stored = cluster.controller.image().config(&ConfigResource::ClusterDefault);
    assert_eq!(stored["min.insync.replicas"], "1");
    let code = |result: Result<(), Refusal>| result.unwrap_err().code;
    let broker = ConfigResource::Broker(NodeId(1));
    let refused = cluster.incremental(broker.clone(), "min.insync.replicas", "2");
    assert_eq!(code(refused), ErrorCode::InvalidConfig);
    cluster.incremental(broker, "message.max.bytes", "77").unwrap();
    let resource = ConfigResource::ClusterDefault;
    let resources = vec![ConfigAlteration { resource, settings: vec![] }];
    let refused = cluster.ask(AlterConfigs { resources, validate_only: true }).remove(0);
    assert_eq!(code(refused), ErrorCode::InvalidConfig);
}

#[test]
fn without_the_feature_the_last_member_stays_in_the_isr() {
    let mut cluster = replicated();
    let update = |level, upgrade| UpdateFeatures {
        updates: vec![FeatureUpdate {
            feature: crate::machine::metadata::ELR_FEATURE.into(),
            level,
            upgrade,
        }],
        validate_only: false,
    };
    bury(&mut cluster, 3);
    bury(&mut cluster, 2);
    cluster.ask(update(0, UpgradeType::SafeDowngrade)).unwrap();
    bury(&mut cluster, 1);
    assert_eq!(state(&cluster), (-1, vec![1], vec![], vec![]));
    register(&mut cluster, 1, None::<Predecessor>);
    assert_eq!(state(&cluster), (-1, vec![1], vec![], vec![]));
    let one = epoch(&cluster, 1).0;
    cluster.heartbeat(1, one, false, false);
    assert_eq!(state(&cluster), (1, vec![1], vec![], vec![]));
    cluster.ask(update(1, UpgradeType::Upgrade)).unwrap();
    bury(&mut cluster, 1);
    assert_eq!(state(&cluster), (-1, vec![], vec![1], vec![1]));
}

#[test]
fn an_unclean_election_looks_first_for_those_who_have_everything() {
    let elect = |cluster: &mut Cluster| {
        let partitions = None;
        cluster.ask(ElectLeaders { election: Election::Unclean, partitions }).len()
    };
    let mut cluster = replicated();
    fall(&mut cluster);
    let cut = after_a_power_cut(&cluster, 2, "os");
    start(&mut cluster, 2, cut);
    let three = with_everything(&cluster, 3);
    start(&mut cluster, 3, three);
    assert_eq!(state(&cluster), (-1, vec![], vec![1], vec![1]));
    assert_eq!(elect(&mut cluster), 1);
    assert_eq!(state(&cluster), (2, vec![2], vec![], vec![]), "1 has what is lost now");
}
