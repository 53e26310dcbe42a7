//! Any sequence of commands keeps the invariants of the metadata.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::config::{AlterOp, ConfigChange};
use crate::types::{BrokerEpoch, TopicId, TopicPartition, Uuid};

fn node() -> impl Strategy<Value = NodeId> {
    (1..5).prop_map(NodeId)
}

fn name() -> impl Strategy<Value = std::sync::Arc<str>> {
    prop::sample::select(vec!["a", "b", "c.d", "c_d", "..", "e"]).prop_map(Into::into)
}

/// A step: a command, or time that passes. Epochs are filled in from the image.
#[derive(Clone, Debug)]
enum Step {
    Command(Command),
    Isr { topic: std::sync::Arc<str>, partition: i32, keep: u8 },
    Pass(i64),
}

fn command() -> impl Strategy<Value = Command> {
    let new_topic = (name(), -1..5_i32, -1..4_i16, any::<bool>(), prop::option::of(node()))
        .prop_map(|(name, partitions, replicas, unclean, manual)| {
            let mut topic = NewTopic::new(name, partitions, replicas);
            if unclean {
                topic.configs =
                    vec![("unclean.leader.election.enable".into(), Some("true".into()))];
            }
            if let Some(node) = manual {
                topic = NewTopic { partitions: -1, replication_factor: -1, ..topic };
                topic.assignments = vec![(0, vec![node, NodeId(1)])];
            }
            topic
        });
    prop_oneof![
        3 => (prop::collection::vec(new_topic, 1..3), any::<bool>())
            .prop_map(|(topics, validate_only)| Command::CreateTopics { topics, validate_only }),
        1 => name().prop_map(|name| Command::DeleteTopics { topics: vec![TopicRef::Name(name)] }),
        1 => (name(), 0..8_i32).prop_map(|(name, count)| Command::CreatePartitions {
            topics: vec![NewPartitions { name, count, assignments: None }],
            validate_only: false,
        }),
        3 => (node(), any::<[u8; 1]>(), any::<bool>()).prop_map(|(id, process, ready)| {
            Command::RegisterBroker(BrokerRegistration {
                id,
                incarnation: Uuid([process[0] % 3; 16]),
                cluster_id: None,
                endpoints: vec![],
                rack: Some(format!("r{}", id.0 % 2).into()),
                ready,
            })
        }),
        4 => (node(), prop::bool::weighted(0.2), prop::bool::weighted(0.1)).prop_map(
            |(id, want_fence, want_shutdown)| Command::Heartbeat(BrokerHeartbeat {
                id,
                epoch: BrokerEpoch::UNKNOWN,
                want_fence,
                want_shutdown,
            })
        ),
        1 => node().prop_map(|id| Command::UnregisterBroker { id }),
        1 => any::<bool>().prop_map(|preferred| Command::ElectLeaders {
            election: if preferred { Election::Preferred } else { Election::Unclean },
            partitions: None,
        }),
        1 => name().prop_map(|name| Command::ElectLeaders {
            election: Election::Unclean,
            partitions: Some(vec![TopicPartition::new(name, 0)]),
        }),
        1 => (name(), 0..9_i64).prop_map(|(name, value)| Command::IncrementalAlterConfigs {
            resources: vec![IncrementalAlteration {
                resource: ConfigResource::Topic(name),
                changes: vec![ConfigChange {
                    name: "retention.ms".into(),
                    op: AlterOp::Set,
                    value: Some(value.to_string()),
                }],
            }],
            validate_only: false,
        }),
        1 => node().prop_map(|broker| Command::AllocateProducerIds {
            broker,
            epoch: BrokerEpoch::UNKNOWN,
        }),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => command().prop_map(Step::Command),
        2 => (name(), 0..4_i32, any::<u8>())
            .prop_map(|(topic, partition, keep)| Step::Isr { topic, partition, keep }),
        1 => (0..12_000_i64).prop_map(Step::Pass),
    ]
}

/// Puts the epochs of the image into a command that has none.
fn complete(image: &MetadataImage, command: Command) -> Command {
    let known = |id| image.broker(id).map_or(BrokerEpoch::UNKNOWN, |broker| broker.epoch);
    match command {
        Command::Heartbeat(beat) => {
            Command::Heartbeat(BrokerHeartbeat { epoch: known(beat.id), ..beat })
        }
        Command::AllocateProducerIds { broker, .. } => {
            Command::AllocateProducerIds { broker, epoch: known(broker) }
        }
        other => other,
    }
}

fn isr_change(image: &MetadataImage, topic: &str, partition: i32, keep: u8) -> Option<Command> {
    let topic = image.topic(topic)?;
    let state = topic.partition(partition)?;
    let broker = state.leader;
    let kept = |&(place, node): &(usize, NodeId)| node == broker || keep & (1 << place) != 0;
    let isr = state.replicas.iter().copied().enumerate().filter(kept);
    Some(Command::AlterPartition {
        broker,
        epoch: image.broker(broker)?.epoch,
        changes: vec![IsrChange {
            topic_id: topic.id,
            partition,
            leader_epoch: state.leader_epoch,
            partition_epoch: state.partition_epoch,
            isr: isr.map(|(_, node)| (node, BrokerEpoch::UNKNOWN)).collect(),
        }],
    })
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
}

fn run(steps: Vec<Step>) -> MetadataImage {
    let empty = MetadataImage::empty();
    let mut controller = Controller::new(NodeId(1), BrokerConfig::default(), empty, [1, 2]);
    let mut now = 0;
    let mut ids = BTreeSet::new();
    for step in steps {
        let before = controller.image().clone();
        let event = match step {
            Step::Pass(time) => {
                now += time;
                Event::Tick
            }
            Step::Command(command) => {
                Event::Command { request: 1, command: complete(&before, command) }
            }
            Step::Isr { topic, partition, keep } => {
                match isr_change(&before, &topic, partition, keep) {
                    Some(command) => Event::Command { request: 1, command },
                    None => continue,
                }
            }
        };
        let mut out = Vec::new();
        controller.step(TimestampMs(now), event, &mut out);
        assert!(out.len() <= 1);
        assert_eq!(controller.image(), &before, "MACHINE-3: a step changed hard state");
        for decision in out {
            controller.apply_all(&decision.records).unwrap();
        }
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
