//! Every command and every reply is the same after bytes and back; what is not one is refused.

use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;
use crate::config::{AlterOp, ConfigChange};
use crate::machine::controller::{
    ConfigAlteration, CreatedTopic, DeletedTopic, Election, FeatureUpdate, HeartbeatState,
    IncrementalAlteration, IsrChange, IsrState, NewPartitions, NewTopic, Predecessor,
    ProducerIdBlock, Reassignment, TopicRef, UpgradeType,
};
use crate::machine::metadata::{ConfigResource, Endpoint};
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, PartitionEpoch, PartitionIndex, ProducerId, TopicPartition,
    Uuid,
};

fn text() -> impl Strategy<Value = String> {
    prop_oneof![".{0,12}", Just("\u{0}\n\"\\{}\u{1F980}".to_owned())]
}

fn name() -> impl Strategy<Value = Arc<str>> {
    text().prop_map(Into::into)
}

fn node() -> impl Strategy<Value = NodeId> {
    any::<i32>().prop_map(NodeId)
}

fn id() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid)
}

fn epoch() -> impl Strategy<Value = BrokerEpoch> {
    any::<i64>().prop_map(BrokerEpoch)
}

fn some<T: fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
    prop::collection::vec(of, 0..3)
}

fn maybe<T: fmt::Debug>(of: impl Strategy<Value = T>) -> impl Strategy<Value = Option<T>> {
    prop::option::of(of)
}

fn topic_partition() -> impl Strategy<Value = TopicPartition> {
    (name(), any::<i32>()).prop_map(|(topic, index)| TopicPartition::new(topic, index))
}

fn resource() -> impl Strategy<Value = ConfigResource> {
    prop_oneof![
        name().prop_map(ConfigResource::Topic),
        node().prop_map(ConfigResource::Broker),
        Just(ConfigResource::ClusterDefault),
        name().prop_map(ConfigResource::Group),
    ]
}

fn registration() -> impl Strategy<Value = BrokerRegistration> {
    let endpoint = (name(), name(), any::<u16>(), any::<i16>()).prop_map(
        |(listener, host, port, security_protocol)| Endpoint {
            listener,
            host,
            port,
            security_protocol,
        },
    );
    let predecessor = (any::<i64>().prop_map(BrokerEpoch), any::<bool>(), maybe(text()))
        .prop_map(|(epoch, left_all, durability)| Predecessor { epoch, left_all, durability });
    let process = ([id(), id()], any::<[bool; 2]>(), maybe(predecessor));
    (node(), process, maybe(name()), some(endpoint), maybe(name())).prop_map(
        |(id, process, cluster_id, endpoints, rack)| {
            let ([incarnation, directory_id], [is_first, ready], predecessor) = process;
            BrokerRegistration {
                id,
                incarnation,
                directory_id,
                is_first,
                predecessor,
                cluster_id,
                endpoints,
                rack,
                ready,
            }
        },
    )
}

fn new_topic() -> impl Strategy<Value = NewTopic> {
    let assignments = some((any::<i32>().prop_map(PartitionIndex), some(node())));
    (name(), any::<i32>(), any::<i16>(), assignments, some((text(), maybe(text())))).prop_map(
        |(name, partitions, replication_factor, assignments, configs)| NewTopic {
            name,
            partitions,
            replication_factor,
            assignments,
            configs,
        },
    )
}

fn change() -> impl Strategy<Value = ConfigChange> {
    const OPS: &[AlterOp] = &[AlterOp::Set, AlterOp::Delete, AlterOp::Append, AlterOp::Subtract];
    (text(), prop::sample::select(OPS), maybe(text())).prop_map(|(name, op, value)| ConfigChange {
        name,
        op,
        value,
    })
}

fn isr_change() -> impl Strategy<Value = IsrChange> {
    (id(), any::<i32>(), any::<i32>(), any::<i32>(), some((node(), epoch()))).prop_map(
        |(topic_id, partition, leader_epoch, partition_epoch, isr)| IsrChange {
            topic_id,
            partition: PartitionIndex(partition),
            leader_epoch: LeaderEpoch(leader_epoch),
            partition_epoch: PartitionEpoch(partition_epoch),
            isr,
        },
    )
}

fn alterations() -> impl Strategy<Value = AnyCommand> {
    let whole = (resource(), some((text(), maybe(text()))))
        .prop_map(|(resource, settings)| ConfigAlteration { resource, settings });
    let incremental = (resource(), some(change()))
        .prop_map(|(resource, changes)| IncrementalAlteration { resource, changes });
    prop_oneof![
        (some(whole), any::<bool>()).prop_map(|(resources, validate_only)| {
            AlterConfigs { resources, validate_only }.pack()
        }),
        (some(incremental), any::<bool>()).prop_map(|(resources, validate_only)| {
            IncrementalAlterConfigs { resources, validate_only }.pack()
        }),
    ]
}

fn of_topics() -> impl Strategy<Value = AnyCommand> {
    let key = prop_oneof![name().prop_map(TopicRef::Name), id().prop_map(TopicRef::Id)];
    let partitions = (name(), any::<i32>(), maybe(some(some(node()))))
        .prop_map(|(name, count, assignments)| NewPartitions { name, count, assignments });
    prop_oneof![
        (some(new_topic()), any::<bool>()).prop_map(|(topics, validate_only)| CreateTopics {
            topics,
            validate_only
        }
        .pack()),
        some(key).prop_map(|topics| DeleteTopics { topics }.pack()),
        (some(partitions), any::<bool>()).prop_map(|(topics, validate_only)| CreatePartitions {
            topics,
            validate_only
        }
        .pack()),
    ]
}

fn of_cluster() -> impl Strategy<Value = AnyCommand> {
    const WAYS: &[UpgradeType] =
        &[UpgradeType::Upgrade, UpgradeType::SafeDowngrade, UpgradeType::UnsafeDowngrade];
    let reassignment = (topic_partition(), maybe(some(node())))
        .prop_map(|(partition, replicas)| Reassignment { partition, replicas });
    let update = (name(), any::<i16>(), prop::sample::select(WAYS))
        .prop_map(|(feature, level, upgrade)| FeatureUpdate { feature, level, upgrade });
    prop_oneof![
        (some(reassignment), any::<bool>()).prop_map(
            |(reassignments, allow_replication_factor_change)| AlterPartitionReassignments {
                reassignments,
                allow_replication_factor_change,
            }
            .pack()
        ),
        (some(update), any::<bool>()).prop_map(|(updates, validate_only)| UpdateFeatures {
            updates,
            validate_only
        }
        .pack()),
    ]
}

fn command() -> impl Strategy<Value = AnyCommand> {
    let heartbeat = (node(), epoch(), any::<i64>(), any::<[bool; 2]>(), maybe(any::<i64>()))
        .prop_map(|(id, epoch, metadata, [want_fence, want_shutdown], handed_over)| {
            BrokerHeartbeat {
                id,
                epoch,
                metadata_offset: Offset(metadata),
                want_fence,
                want_shutdown,
                handed_over: handed_over.map(Offset),
            }
        });
    let elections = prop::sample::select(&[Election::Preferred, Election::Unclean][..]);
    prop_oneof![
        (name(), any::<bool>()).prop_map(|(cluster_id, is_proposal)| Bootstrap {
            cluster_id,
            is_proposal
        }
        .pack()),
        registration().prop_map(Travels::pack),
        heartbeat.prop_map(Travels::pack),
        node().prop_map(|id| UnregisterBroker { id }.pack()),
        (node(), epoch()).prop_map(|(id, epoch)| BuryBroker { id, epoch }.pack()),
        of_topics(),
        alterations(),
        of_cluster(),
        (node(), epoch(), some(isr_change())).prop_map(|(broker, epoch, changes)| AlterPartition {
            broker,
            epoch,
            changes
        }
        .pack()),
        (elections, maybe(some(topic_partition())))
            .prop_map(|(election, partitions)| ElectLeaders { election, partitions }.pack()),
        (node(), epoch()).prop_map(|(broker, epoch)| AllocateProducerIds { broker, epoch }.pack()),
    ]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (prop::sample::select(ErrorCode::ALL), text())
        .prop_map(|(code, message)| Refusal::new(code, message))
}

fn outcome<T: fmt::Debug>(
    of: impl Strategy<Value = T>,
) -> impl Strategy<Value = Result<T, Refusal>> {
    let refused = refusal();
    (of, maybe(refused)).prop_map(|(fine, refused)| refused.map_or(Ok(fine), Err))
}

fn reply() -> impl Strategy<Value = AnyReply> {
    let none = || outcome(Just(()));
    let created = (id(), any::<i32>(), any::<i16>(), some((text(), text()))).prop_map(
        |(id, partitions, replication_factor, configs)| CreatedTopic {
            id,
            partitions,
            replication_factor,
            configs: configs.into_iter().collect(),
        },
    );
    let deleted = (name(), id()).prop_map(|(name, id)| DeletedTopic { name, id });
    let state = (node(), any::<i32>(), some(node()), any::<i32>()).prop_map(
        |(leader, leader_epoch, isr, partition_epoch)| IsrState {
            leader,
            leader_epoch: LeaderEpoch(leader_epoch),
            isr,
            partition_epoch: PartitionEpoch(partition_epoch),
        },
    );
    let heartbeat = (any::<bool>(), any::<bool>())
        .prop_map(|(fenced, may_stop)| HeartbeatState { fenced, may_stop });
    let block = (any::<i64>(), any::<i32>())
        .prop_map(|(first, count)| ProducerIdBlock { first: ProducerId(first), count });
    prop_oneof![
        outcome(name()).prop_map(AnyReply::Bootstrap),
        outcome(epoch()).prop_map(AnyReply::BrokerRegistration),
        outcome(heartbeat).prop_map(AnyReply::BrokerHeartbeat),
        none().prop_map(AnyReply::UnregisterBroker),
        none().prop_map(AnyReply::BuryBroker),
        some(outcome(created)).prop_map(AnyReply::CreateTopics),
        some(outcome(deleted)).prop_map(AnyReply::DeleteTopics),
        some(none()).prop_map(AnyReply::CreatePartitions),
        some(none()).prop_map(AnyReply::AlterConfigs),
        some(none()).prop_map(AnyReply::IncrementalAlterConfigs),
        outcome(some(outcome(state))).prop_map(AnyReply::AlterPartition),
        some((topic_partition(), none())).prop_map(AnyReply::ElectLeaders),
        some(none()).prop_map(AnyReply::AlterPartitionReassignments),
        none().prop_map(AnyReply::UpdateFeatures),
        outcome(block).prop_map(AnyReply::AllocateProducerIds),
    ]
}

fn answer() -> impl Strategy<Value = CommandAnswer> {
    prop_oneof![
        4 => (any::<i64>(), reply())
            .prop_map(|(offset, reply)| CommandAnswer::Committed { offset: Offset(offset), reply }),
        1 => refusal().prop_map(CommandAnswer::Failed),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn commands_are_the_same_after_bytes_and_back(command in command()) {
        let bytes = command.encode().unwrap();
        prop_assert_eq!(AnyCommand::decode(&bytes).unwrap(), command);
    }

    #[test]
    fn answers_are_the_same_after_bytes_and_back(answer in answer()) {
        let bytes = answer.encode().unwrap();
        prop_assert_eq!(CommandAnswer::decode(&bytes).unwrap(), answer);
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(
        command in command(), answer in answer(), at in any::<usize>(), byte in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        for mut bytes in [command.encode().unwrap(), answer.encode().unwrap(), noise] {
            drop(AnyCommand::decode(&bytes));
            drop(CommandAnswer::decode(&bytes));
            if !bytes.is_empty() {
                let at = at % bytes.len();
                bytes[at] = byte;
                drop(AnyCommand::decode(&bytes));
                drop(CommandAnswer::decode(&bytes));
                drop(AnyCommand::decode(&bytes[..at]));
                drop(CommandAnswer::decode(&bytes[..at]));
            }
        }
    }
}

/// The first word within `key`, which names the kind.
fn kind(bytes: &[u8], key: &str) -> Option<String> {
    let line: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let inner = key.split('.').try_fold(&line, |value, key| value.get(key))?;
    inner.as_object()?.keys().next().cloned()
}

#[test]
fn no_kind_is_left_out_above() {
    let mut runner = TestRunner::deterministic();
    let mut commands = BTreeSet::new();
    let mut replies = BTreeSet::new();
    for _ in 0..1000 {
        let command = command().new_tree(&mut runner).unwrap().current();
        commands.extend(kind(&command.encode().unwrap(), "command"));
        let answer = answer().new_tree(&mut runner).unwrap().current();
        replies.extend(kind(&answer.encode().unwrap(), "answer.committed.reply"));
    }
    assert_eq!(commands, replies);
    assert_eq!(commands.len(), KINDS, "{commands:?}");
}

#[test]
fn what_is_not_known_is_refused_by_name() {
    let refused = |text: &str| AnyCommand::decode(text.as_bytes()).unwrap_err();
    let newer = refused(r#"{"version":3,"command":{"levitate":{}}}"#);
    assert_eq!(newer.code(), ErrorCode::UnsupportedVersion);
    for (text, word) in [
        (r#"{"version":1,"command":{"levitate":{}}}"#, "levitate"),
        (r#"{"version":1,"command":{"unregister_broker":{"id":1,"why":"x"}}}"#, "why"),
        (r#"{"version":1,"command":{"unregister_broker":{}}}"#, "id"),
        (r#"{"version":0,"command":{"unregister_broker":{"id":1}}}"#, "version 0"),
        (r#"{"command":{"unregister_broker":{"id":1}}}"#, "version"),
        ("", "EOF"),
    ] {
        let error = refused(text).to_string();
        assert!(error.contains(word), "{text}: {error}");
    }
    let deep = format!(r#"{{"version":1,"command":{}"#, "[".repeat(1_000_000));
    assert!(AnyCommand::decode(deep.as_bytes()).is_err());
}

#[test]
fn length_is_bounded_both_ways() {
    let long = "x".repeat(COMMAND_BYTES_MAX);
    let command = Bootstrap { cluster_id: long.as_str().into(), is_proposal: false }.pack();
    assert_eq!(command.encode().unwrap_err().code(), ErrorCode::InvalidRequest);
    let bytes = format!(r#"{{"version":1,"command":{{"bootstrap":{{"cluster_id":"{long}"}}}}}}"#);
    assert_eq!(AnyCommand::decode(bytes.as_bytes()).unwrap_err().code(), ErrorCode::InvalidRequest);
}

#[test]
fn the_form_is_kept() {
    // A registration of version 1 did not name its predecessor.
    let text = r#"{"version":1,"command":{"broker_registration":{"id":1,"incarnation":"BwcHBwcHBwcHBwcHBwcHBw","directory_id":"BwcHBwcHBwcHBwcHBwcHBw","is_first":true,"cluster_id":null,"endpoints":[],"rack":null,"ready":true}}}"#;
    let read = AnyCommand::decode(text.as_bytes()).unwrap();
    assert!(matches!(read, AnyCommand::BrokerRegistration(one) if one.predecessor.is_none()));
    let command = DeleteTopics { topics: vec![TopicRef::Name("orders".into())] }.pack();
    let text = r#"{"version":2,"command":{"delete_topics":{"topics":[{"name":"orders"}]}}}"#;
    assert_eq!(String::from_utf8(command.encode().unwrap()).unwrap(), text);
    let refused = Refusal::new(ErrorCode::UnknownTopicOrPartition, "gone");
    let reply = AnyReply::DeleteTopics(vec![Err(refused)]);
    let answer = CommandAnswer::Committed { offset: Offset(17), reply };
    let text = r#"{"version":2,"answer":{"committed":{"offset":17,"reply":{"delete_topics":[{"Err":{"code":3,"message":"gone"}}]}}}}"#;
    assert_eq!(String::from_utf8(answer.encode().unwrap()).unwrap(), text);
}
