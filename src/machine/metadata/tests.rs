use super::*;
use crate::types::{
    BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionEpoch, PartitionIndex, ProducerId, Uuid,
};

fn topic(name: &str, id: u8) -> MetadataRecord {
    MetadataRecord::Topic { name: name.into(), id: Uuid([id; 16]) }
}

fn partition(id: u8, partition: i32) -> MetadataRecord {
    let state = PartitionImage {
        replicas: vec![NodeId(1), NodeId(2)],
        isr: vec![NodeId(1)],
        removing: vec![],
        adding: vec![],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: NodeId(1),
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    };
    PartitionRecord::create(Uuid([id; 16]), PartitionIndex(partition), &state)
}

fn leader_change(id: u8, leader: i32, leader_epoch: i32, partition_epoch: i32) -> MetadataRecord {
    let epochs = (LeaderEpoch(leader_epoch), PartitionEpoch(partition_epoch));
    MetadataRecord::ChangePartition(PartitionRecord {
        isr: Some(vec![NodeId(1), NodeId(2)]),
        leader: Some(NodeId(leader)),
        ..PartitionRecord::change(Uuid([id; 16]), PartitionIndex(0), epochs.0, epochs.1)
    })
}

fn config(resource: ConfigResource, name: &str, value: Option<&str>) -> MetadataRecord {
    MetadataRecord::Config { resource, name: name.into(), value: value.map(str::to_owned) }
}

fn broker(id: i32, epoch: i64) -> MetadataRecord {
    MetadataRecord::RegisterBroker {
        id: NodeId(id),
        incarnation: Uuid([7; 16]),
        directory_id: Uuid([8; 16]),
        epoch: BrokerEpoch(epoch),
        endpoints: vec![Endpoint {
            listener: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9092,
            security_protocol: 0,
        }],
        rack: Some("r1".into()),
        fenced: true,
    }
}

fn replay(base: &MetadataImage, records: &[MetadataRecord]) -> MetadataImage {
    let mut delta = MetadataDelta::new(base.clone());
    for record in records {
        delta.replay(record).unwrap();
    }
    delta.apply(Offset(9), LeaderEpoch(1))
}

fn sample() -> Vec<MetadataRecord> {
    vec![
        MetadataRecord::Cluster { id: "c".into() },
        MetadataRecord::Feature { name: "metadata.version".into(), level: 30 },
        broker(1, 5),
        MetadataRecord::ChangeBroker {
            id: NodeId(1),
            epoch: BrokerEpoch(5),
            fenced: false,
            shutting_down: true,
        },
        topic("b", 2),
        partition(2, 0),
        partition(2, 1),
        topic("a", 1),
        partition(1, 0),
        leader_change(1, 2, 1, 1),
        config(ConfigResource::Topic("a".into()), "retention.ms", Some("5")),
        config(ConfigResource::Broker(NodeId(1)), "log.segment.bytes", Some("6000000")),
        config(ConfigResource::ClusterDefault, "log.retention.ms", Some("7")),
        MetadataRecord::ProducerIds {
            broker: NodeId(1),
            broker_epoch: BrokerEpoch(5),
            next: ProducerId(1000),
        },
    ]
}

#[test]
fn every_record_is_the_same_after_encoding() {
    for record in sample() {
        let bytes = record.encode().unwrap();
        assert_eq!(MetadataRecord::decode(&bytes).unwrap(), record);
    }
}

#[test]
fn the_encoding_is_this_text() {
    // Compat: these bytes are on disk; changing them needs a new version that still reads them.
    let text = |record: MetadataRecord| String::from_utf8(record.encode().unwrap()).unwrap();
    assert_eq!(
        text(topic("a", 1)),
        r#"{"version":1,"record":{"topic":{"name":"a","id":"AQEBAQEBAQEBAQEBAQEBAQ"}}}"#
    );
    assert_eq!(
        text(partition(1, 2)),
        r#"{"version":1,"record":{"partition":{"topic_id":"AQEBAQEBAQEBAQEBAQEBAQ","partition":2,"replicas":[1,2],"isr":[1],"removing":[],"adding":[],"leader":1,"leader_epoch":0,"partition_epoch":0}}}"#
    );
    assert_eq!(
        text(leader_change(1, 2, 3, 4)),
        r#"{"version":1,"record":{"change_partition":{"topic_id":"AQEBAQEBAQEBAQEBAQEBAQ","partition":0,"isr":[1,2],"leader":2,"leader_epoch":3,"partition_epoch":4}}}"#
    );
    assert_eq!(
        text(config(ConfigResource::ClusterDefault, "n", None)),
        r#"{"version":1,"record":{"config":{"resource":"cluster_default","name":"n","value":null}}}"#
    );
    assert_eq!(
        text(broker(1, 5)),
        r#"{"version":2,"record":{"register_broker":{"id":1,"incarnation":"BwcHBwcHBwcHBwcHBwcHBw","directory_id":"CAgICAgICAgICAgICAgICA","epoch":5,"endpoints":[{"listener":"PLAINTEXT","host":"localhost","port":9092,"security_protocol":0}],"rack":"r1","fenced":true}}}"#
    );
}

#[test]
fn what_an_earlier_build_stored_is_read() {
    // Compat: taken from a log that was written when the two kinds had their own fields.
    for stored in [
        r#"{"version":1,"record":{"partition":{"topic_id":"CU7DSyX6TnG9k3-1qTcp8Q","partition":0,"replicas":[1],"isr":[1],"removing":[],"adding":[],"leader":1,"leader_epoch":0,"partition_epoch":0}}}"#,
        r#"{"version":1,"record":{"change_partition":{"topic_id":"CU7DSyX6TnG9k3-1qTcp8Q","partition":0,"leader":1,"leader_epoch":1,"partition_epoch":1}}}"#,
    ] {
        let record = MetadataRecord::decode(stored.as_bytes()).unwrap();
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), stored);
    }
    let stored = r#"{"version":3,"record":{"change_partition":{"topic_id":"CU7DSyX6TnG9k3-1qTcp8Q","partition":0,"isr":[],"elr":[2,1],"last_known_elr":[1],"leader":-1,"leader_epoch":2,"partition_epoch":2}}}"#;
    let record = MetadataRecord::decode(stored.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), stored);
    // A registration of version 1 did not name the directory.
    let stored = r#"{"version":1,"record":{"register_broker":{"id":1,"incarnation":"BwcHBwcHBwcHBwcHBwcHBw","epoch":5,"endpoints":[],"rack":null,"fenced":false}}}"#;
    let record = MetadataRecord::decode(stored.as_bytes()).unwrap();
    let MetadataRecord::RegisterBroker { directory_id, epoch, .. } = record else {
        panic!("{record:?}")
    };
    assert_eq!((directory_id, epoch), (Uuid::ZERO, BrokerEpoch(5)));
}

#[test]
fn what_a_newer_version_wrote_is_refused() {
    let refused = |text: &str| MetadataRecord::decode(text.as_bytes()).unwrap_err().to_string();
    assert!(refused(r#"{"version":4,"record":{"anything":1}}"#).contains("reads up to 3"));
    assert!(refused(r#"{"version":1,"record":{"share_group":{}}}"#).contains("unknown variant"));
    let extra = r#"{"version":1,"record":{"remove_topic":{"id":"AQEBAQEBAQEBAQEBAQEBAQ","x":1}}}"#;
    assert!(refused(extra).contains("unknown field"));
    assert!(refused("").contains("malformed"));
}

#[test]
fn a_snapshot_replays_to_the_same_image() {
    let image = replay(&MetadataImage::empty(), &sample());
    assert_eq!(replay(&MetadataImage::empty(), &image.to_records()), image);
    let names: Vec<&str> = image.topics().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(image.topic_by_id(Uuid([2; 16])).unwrap().partition_count(), 2);
    assert_eq!(image.partition("a", PartitionIndex(0)).unwrap().leader, NodeId(2));
    assert_eq!(image.topic_config("a")["retention.ms"], "5");
    assert!(image.topic_config("b").is_empty());
    assert_eq!(image.topics_from("aa").count(), 1);
    assert_eq!(
        (image.next_producer_id(), image.feature("metadata.version")),
        (ProducerId(1000), 30)
    );
}

#[test]
fn only_changed_topics_are_rebuilt() {
    let before = replay(&MetadataImage::empty(), &sample());
    let after = replay(&before, &[leader_change(1, 1, 2, 2)]);
    assert!(std::sync::Arc::ptr_eq(before.topic("b").unwrap(), after.topic("b").unwrap()));
    assert_eq!(before.partition("a", PartitionIndex(0)).unwrap().leader, NodeId(2));
    assert_eq!(after.partition("a", PartitionIndex(0)).unwrap().leader, NodeId(1));
}

#[test]
fn a_deleted_topic_takes_its_settings_along_and_leaves_its_name_free() {
    let before = replay(&MetadataImage::empty(), &sample());
    let mut delta = MetadataDelta::new(before);
    delta.replay(&MetadataRecord::RemoveTopic { id: Uuid([1; 16]) }).unwrap();
    delta.replay(&topic("a", 3)).unwrap();
    delta.replay(&partition(3, 0)).unwrap();
    let after = delta.apply(Offset(20), LeaderEpoch(1));
    assert_eq!(after.topic("a").unwrap().id, Uuid([3; 16]));
    assert!(after.topic_by_id(Uuid([1; 16])).is_none());
    assert!(after.topic_config("a").is_empty());
    assert_eq!(delta.deleted_topics().len(), 1);
    let changed: Vec<_> = delta.changed_partitions().iter().copied().collect();
    assert_eq!(changed, [(Uuid([3; 16]), PartitionIndex(0))]);
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    let image = replay(&MetadataImage::empty(), &sample());
    let refused = |record: &MetadataRecord| {
        MetadataDelta::new(image.clone()).replay(record).unwrap_err().to_string()
    };
    assert!(refused(&topic("a", 9)).contains("already exists"));
    assert!(refused(&topic("c", 1)).contains("in use already"));
    assert!(refused(&partition(9, 0)).contains("not known"));
    assert!(refused(&partition(2, 3)).contains("does not follow"));
    let change = PartitionRecord::change(
        Uuid([2; 16]),
        PartitionIndex(2),
        LeaderEpoch(0),
        PartitionEpoch(0),
    );
    assert!(refused(&MetadataRecord::Partition(change)).contains("lacks a field"));
    assert!(refused(&leader_change(1, 2, 0, 2)).contains("falls"));
    assert!(refused(&leader_change(1, 2, 1, 1)).contains("falls"));
    assert!(refused(&leader_change(1, 3, 2, 2)).contains("contradicts"));
    assert!(refused(&broker(1, 4)).contains("falls"));
    assert!(refused(&MetadataRecord::Cluster { id: "d".into() }).contains("changes"));
}
