//! Any sequence of commands keeps the invariants of the metadata.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{AlterOp, ConfigChange, TopicConfig};
use crate::machine::group::TopicsView;
use crate::machine::metadata::ELR_FEATURE;
use crate::types::{BrokerEpoch, PartitionIndex, TopicId, TopicPartition, Uuid};

fn node() -> impl Strategy<Value = NodeId> {
    (1..5).prop_map(NodeId)
}

fn name() -> impl Strategy<Value = std::sync::Arc<str>> {
    prop::sample::select(vec!["a", "b", "c.d", "c_d", "..", "e"]).prop_map(Into::into)
}

const MIN_IN_SYNC: &str = "min.insync.replicas";

/// Any command.
#[derive(Clone, Debug)]
enum Asked {
    CreateTopics(CreateTopics),
    DeleteTopics(DeleteTopics),
    CreatePartitions(CreatePartitions),
    Register(BrokerRegistration),
    Heartbeat(BrokerHeartbeat),
    Unregister(UnregisterBroker),
    Bury(BuryBroker),
    AlterPartition(AlterPartition),
    ElectLeaders(ElectLeaders),
    AlterConfigs(IncrementalAlterConfigs),
    ProducerIds(AllocateProducerIds),
    Reassign(AlterPartitionReassignments),
    Features(UpdateFeatures),
}

impl Asked {
    fn decide(self, controller: &mut Controller, now: Duration) -> Vec<MetadataRecord> {
        match self {
            Self::CreateTopics(command) => controller.decide(now, command).records,
            Self::DeleteTopics(command) => controller.decide(now, command).records,
            Self::CreatePartitions(command) => controller.decide(now, command).records,
            Self::Register(command) => controller.decide(now, command).records,
            Self::Heartbeat(command) => controller.decide(now, command).records,
            Self::Unregister(command) => controller.decide(now, command).records,
            Self::Bury(command) => controller.decide(now, command).records,
            Self::AlterPartition(command) => controller.decide(now, command).records,
            Self::ElectLeaders(command) => controller.decide(now, command).records,
            Self::AlterConfigs(command) => controller.decide(now, command).records,
            Self::ProducerIds(command) => controller.decide(now, command).records,
            Self::Reassign(command) => controller.decide(now, command).records,
            Self::Features(command) => controller.decide(now, command).records,
        }
    }
}

/// A step: a command, or time that passes while the controller runs or stands still. Epochs are filled in from the
/// image.
#[derive(Clone, Debug)]
enum Step {
    Command(Asked),
    Isr { topic: std::sync::Arc<str>, partition: PartitionIndex, keep: u8 },
    Pass(u64),
    Stall(u64),
}

fn registration() -> impl Strategy<Value = Asked> {
    let predecessor = prop::option::of((-1..12_i64, any::<bool>(), any::<bool>()));
    let registered = (node(), any::<[u8; 2]>(), any::<[bool; 2]>(), predecessor);
    registered.prop_map(|(id, from, [ready, is_first], predecessor)| {
        let predecessor = predecessor.map(|(epoch, left_all, by_fsync)| Predecessor {
            epoch: BrokerEpoch(epoch),
            left_all,
            durability: by_fsync.then(|| "fsync".to_owned()),
        });
        Asked::Register(BrokerRegistration {
            id,
            incarnation: Uuid([from[0] % 3; 16]),
            directory_id: Uuid([from[1] % 2; 16]),
            is_first,
            predecessor,
            cluster_id: None,
            endpoints: vec![],
            rack: Some(format!("r{}", id.0 % 2).into()),
            ready,
        })
    })
}

fn command() -> impl Strategy<Value = Asked> {
    let new_topic = (name(), -1..5_i32, -1..4_i16, any::<[bool; 2]>(), prop::option::of(node()))
        .prop_map(|(name, partitions, replicas, [unclean, two_in_sync], manual)| {
            let mut topic = NewTopic::new(name, partitions, replicas);
            if unclean {
                topic.configs =
                    vec![("unclean.leader.election.enable".into(), Some("true".into()))];
            }
            if two_in_sync {
                topic.configs.push((MIN_IN_SYNC.into(), Some("2".into())));
            }
            if let Some(node) = manual {
                topic = NewTopic { partitions: -1, replication_factor: -1, ..topic };
                topic.assignments = vec![(PartitionIndex(0), vec![node, NodeId(1)])];
            }
            topic
        });
    prop_oneof![
        3 => (prop::collection::vec(new_topic, 1..3), any::<bool>())
            .prop_map(|(topics, validate_only)| Asked::CreateTopics(CreateTopics { topics, validate_only })),
        1 => name().prop_map(|name| {
            Asked::DeleteTopics(DeleteTopics { topics: vec![TopicRef::Name(name)] })
        }),
        1 => (name(), 0..8_i32).prop_map(|(name, count)| Asked::CreatePartitions(CreatePartitions {
            topics: vec![NewPartitions { name, count, assignments: None }],
            validate_only: false,
        })),
        3 => registration(),
        4 => (node(), prop::bool::weighted(0.2), prop::bool::weighted(0.1)).prop_map(
            |(id, want_fence, want_shutdown)| Asked::Heartbeat(BrokerHeartbeat {
                id,
                epoch: BrokerEpoch::UNKNOWN,
                metadata_offset: Offset(1),
                want_fence,
                want_shutdown,
                handed_over: want_shutdown.then_some(Offset(1)),
            })
        ),
        1 => node().prop_map(|id| Asked::Unregister(UnregisterBroker { id })),
        1 => node().prop_map(|id| Asked::Bury(BuryBroker { id, epoch: BrokerEpoch::UNKNOWN })),
        1 => any::<bool>().prop_map(|preferred| Asked::ElectLeaders(ElectLeaders {
            election: if preferred { Election::Preferred } else { Election::Unclean },
            partitions: None,
        })),
        1 => name().prop_map(|name| Asked::ElectLeaders(ElectLeaders {
            election: Election::Unclean,
            partitions: Some(vec![TopicPartition::new(name, 0)]),
        })),
        1 => (name(), 0..9_i64).prop_map(|(name, value)| Asked::AlterConfigs(IncrementalAlterConfigs {
            resources: vec![IncrementalAlteration {
                resource: ConfigResource::Topic(name),
                changes: vec![ConfigChange {
                    name: "retention.ms".into(),
                    op: AlterOp::Set,
                    value: Some(value.to_string()),
                }],
            }],
            validate_only: false,
        })),
        4 => of_cluster(),
        1 => node().prop_map(|broker| Asked::ProducerIds(AllocateProducerIds {
            broker,
            epoch: BrokerEpoch::UNKNOWN,
        })),
    ]
}

/// A command about the replicas of a partition or the features.
fn of_cluster() -> impl Strategy<Value = Asked> {
    prop_oneof![
        3 => (name(), 0..3_i32, prop::option::of(prop::collection::vec(node(), 1..4)), any::<bool>())
            .prop_map(|(topic, index, replicas, allow_replication_factor_change)| {
                let partition = TopicPartition::new(topic, index);
                let reassignments = vec![Reassignment { partition, replicas }];
                Asked::Reassign(AlterPartitionReassignments {
                    reassignments,
                    allow_replication_factor_change,
                })
            }),
        1 => (name(), 1..4_u8).prop_map(|(name, value)| Asked::AlterConfigs(IncrementalAlterConfigs {
            resources: vec![IncrementalAlteration {
                resource: ConfigResource::Topic(name),
                changes: vec![ConfigChange {
                    name: MIN_IN_SYNC.into(),
                    op: AlterOp::Set,
                    value: Some(value.to_string()),
                }],
            }],
            validate_only: false,
        })),
        1 => (0..2_i16, any::<[bool; 2]>()).prop_map(|(level, [up, elr])| Asked::Features(UpdateFeatures {
            updates: vec![FeatureUpdate {
                feature: if elr { ELR_FEATURE } else { "group.version" }.into(),
                level,
                upgrade: if up { UpgradeType::Upgrade } else { UpgradeType::SafeDowngrade },
            }],
            validate_only: false,
        })),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => command().prop_map(Step::Command),
        2 => (name(), (0..4).prop_map(PartitionIndex), any::<u8>())
            .prop_map(|(topic, partition, keep)| Step::Isr { topic, partition, keep }),
        1 => (0..12_000_u64).prop_map(Step::Pass),
        1 => (0..60_000_u64).prop_map(Step::Stall),
    ]
}

/// Puts the epochs of the image into a command that has none.
fn complete(image: &MetadataImage, command: Asked) -> Asked {
    let known = |id| image.broker(id).map_or(BrokerEpoch::UNKNOWN, |broker| broker.epoch);
    match command {
        Asked::Heartbeat(beat) => {
            Asked::Heartbeat(BrokerHeartbeat { epoch: known(beat.id), ..beat })
        }
        Asked::ProducerIds(AllocateProducerIds { broker, .. }) => {
            Asked::ProducerIds(AllocateProducerIds { broker, epoch: known(broker) })
        }
        Asked::Bury(BuryBroker { id, .. }) => Asked::Bury(BuryBroker { id, epoch: known(id) }),
        other => other,
    }
}

fn isr_change(
    image: &MetadataImage,
    topic: &str,
    partition: PartitionIndex,
    keep: u8,
) -> Option<Asked> {
    let topic = image.topic(topic)?;
    let state = topic.partition(partition)?;
    let broker = state.leader;
    let kept = |&(place, node): &(usize, NodeId)| node == broker || keep & (1 << place) != 0;
    let isr = state.replicas.iter().copied().enumerate().filter(kept);
    Some(Asked::AlterPartition(AlterPartition {
        broker,
        epoch: image.broker(broker)?.epoch,
        changes: vec![IsrChange {
            topic_id: topic.id,
            partition,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.map(|(_, node)| (node, BrokerEpoch::UNKNOWN)).collect(),
        }],
    }))
}

fn check_image(before: &MetadataImage, after: &MetadataImage, ids: &mut BTreeSet<TopicId>) {
    for topic in after.topics() {
        if before.topic_by_id(topic.id).is_none() {
            assert!(ids.insert(topic.id), "META-3: an id was reused");
        }
        assert_eq!(after.topic_by_id(topic.id).unwrap().name, topic.name);
        assert!(!topic.partitions.is_empty());
        for (index, state) in topic.indexed() {
            assert!(state.isr.iter().all(|node| state.replicas.contains(node)), "META-2");
            let target = state.replicas.iter().filter(|node| !state.removing.contains(node));
            let is_done = target.clone().all(|node| state.isr.contains(node));
            assert!(!state.is_reassigning() || !is_done, "a complete reassignment goes on");
            assert!(target.count() > 0);
            if state.leader != NodeId::NONE {
                assert!(state.isr.contains(&state.leader), "META-2");
                assert!(after.broker(state.leader).unwrap().is_active(), "CTRL-3");
            }
            let earlier =
                before.topic_by_id(topic.id).and_then(|old| old.partition(index).cloned());
            if let Some(earlier) = earlier {
                assert!(state.leader_epoch >= earlier.leader_epoch, "META-2");
                assert!(state.partition_epoch >= earlier.partition_epoch, "META-2");
                let moved = state.leader != earlier.leader;
                assert!(!moved || state.leader_epoch > earlier.leader_epoch, "META-2");
                let left = earlier.replicas.iter().any(|node| !state.replicas.contains(node));
                assert!(!left || state.leader_epoch > earlier.leader_epoch, "a replica left");
            }
        }
    }
    for broker in after.brokers() {
        assert!(broker.epoch <= after.last_broker_epoch());
    }
    assert!(after.next_producer_id() >= before.next_producer_id());
    let mut delta = MetadataDelta::new(MetadataImage::empty());
    for record in after.to_records() {
        let bytes = record.encode().unwrap();
        delta.replay(&MetadataRecord::decode(&bytes).unwrap()).unwrap();
    }
    assert_eq!(&delta.apply(after.offset, after.epoch), after, "META-1");
    let between = MetadataDelta::between(before.clone(), after);
    assert_eq!(&between.apply(after.offset, after.epoch), after);
    check_view(&between, before, after);
}

/// CTRL-6, as far as one step shows it.
fn check_eligible(controller: &Controller, before: &MetadataImage) {
    let image = controller.image();
    for topic in image.topics() {
        let settings = TopicConfig::resolve(image.topic_config(&topic.name), &controller.config);
        let wanted = settings.unwrap().min_insync_replicas;
        for (index, state) in topic.indexed() {
            let is_enough = state.isr.len() >= state.min_in_sync(wanted);
            assert!(state.elr.is_empty() || !is_enough, "something may be committed: {state:?}");
            assert!(state.last_known_elr.is_empty() || state.leader == NodeId::NONE);
            let earlier =
                before.topic_by_id(topic.id).and_then(|old| old.partition(index).cloned());
            let Some(earlier) = earlier else { continue };
            let had = |node: &NodeId| earlier.isr.contains(node) || earlier.elr.contains(node);
            // Nobody becomes eligible who was neither in sync nor eligible.
            assert!(state.elr.iter().all(had));
        }
    }
}

/// The coordinators' view of the topics follows a change.
fn check_view(delta: &MetadataDelta, before: &MetadataImage, after: &MetadataImage) {
    let view = TopicsView::of(before);
    assert_eq!(view.after(delta, after).unwrap_or(view), TopicsView::of(after));
}

fn run(steps: Vec<Step>) -> MetadataImage {
    let empty = MetadataImage::empty();
    let mut controller = Controller::new(NodeId(1), BrokerConfig::default(), empty, [1, 2]);
    let mut now = Duration::ZERO;
    let mut ids = BTreeSet::new();
    for step in steps {
        let before = controller.image().clone();
        let records = match step {
            Step::Pass(ms) => {
                let until = now + Duration::from_millis(ms);
                now = controller.next_deadline().map_or(until, |next| next.clamp(now, until));
                controller.tick(now)
            }
            Step::Stall(ms) => {
                // Nobody's session ends because the controller stood still.
                now += STEP_INTERVAL_MAX + Duration::from_millis(ms);
                let left = |controller: &Controller, now: Duration| {
                    let sessions = controller.heard.iter();
                    sessions
                        .map(|(id, heard)| (*id, controller.session_end(*heard).checked_sub(now)))
                        .collect::<BTreeMap<_, _>>()
                };
                let called = controller.called.map(|called| called + STEP_INTERVAL_MAX);
                let expected = called.map(|called| left(&controller, called));
                controller.wake(now);
                assert!(expected.is_none_or(|expected| expected == left(&controller, now)));
                continue;
            }
            Step::Command(command) => complete(&before, command).decide(&mut controller, now),
            Step::Isr { topic, partition, keep } => {
                match isr_change(&before, &topic, partition, keep) {
                    Some(command) => command.decide(&mut controller, now),
                    None => continue,
                }
            }
        };
        assert_eq!(controller.image(), &before, "MACHINE-3: a decision changed hard state");
        controller.apply_all(&records).unwrap();
        check_eligible(&controller, &before);
        let mut delta = MetadataDelta::new(before.clone());
        for record in &records {
            delta.replay(record).unwrap();
        }
        check_view(&delta, &before, controller.image());
        assert_eq!(controller.index, PartitionsByBroker::of(controller.image()), "CTRL-5");
        check_image(&before, controller.image(), &mut ids);
    }
    controller.image().clone()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_commands_keep_the_invariants(steps in prop::collection::vec(step(), 1..60)) {
        let first = run(steps.clone());
        prop_assert_eq!(first, run(steps), "CTRL-4");
    }
}
