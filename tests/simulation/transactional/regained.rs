//! A member that is silent for so long that another one has its partition, and that has it again before its caller hears of
//! either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ottla::client::{
    AutoOffsetReset, ConsumerConfig, GroupConsumer, GroupOptions, GroupProtocol, OffsetAndMetadata,
    PollOptions, Polled, Subscription,
};
use ottla::env::sim::SimRun;
use ottla::error::ErrorCode;
use ottla::types::{Offset, TopicPartition};

use super::decode;
use crate::broker::clients::{Peer, Plan, Promise, TOPIC, address_of};
use crate::broker::node::{ADDRESS, BROKER, Node};
use crate::report::Report;

const WAIT: PollOptions = PollOptions { max_wait: Duration::from_secs(60), fill: false };

async fn member(peer: &Peer, protocol: GroupProtocol) -> GroupConsumer {
    let config = ConsumerConfig {
        auto_offset_reset: Some(AutoOffsetReset::Earliest),
        ..ConsumerConfig::default()
    };
    let topics = Subscription::Topics(vec![TOPIC.to_owned()]);
    let options = GroupOptions {
        protocol,
        session_timeout: Duration::from_secs(2),
        heartbeat_interval: Duration::from_millis(300),
        ..GroupOptions::new("group", topics)
    };
    let client = peer.connect().await.client;
    client.group_consumer_with(config, options, decode()).unwrap()
}

/// Polls until there are rows.
async fn read(member: &mut GroupConsumer) {
    while !matches!(member.poll(WAIT).await.unwrap(), Some(Polled::Batch(_))) {}
}

async fn live(run: &SimRun, protocol: GroupProtocol, peers: [Peer; 3]) {
    let [admin, silent, other] = peers;
    admin.create_topic(TOPIC).await.unwrap();
    assert!(admin.send_one(&admin.connect().await.client, 0, "a").await);
    let read_to = OffsetAndMetadata::from(Offset(1));
    let offsets = BTreeMap::from([(TopicPartition::new(TOPIC, 0), read_to)]);

    let mut member = member(&silent, protocol).await;
    read(&mut member).await;
    let before = member.handle().metadata_of_owner(&offsets).unwrap();
    for (from, to) in [(BROKER, address_of(1)), (address_of(1), BROKER)] {
        run.net.cut(from, to);
    }
    let mut taking_over = self::member(&other, protocol).await;
    read(&mut taking_over).await;
    taking_over.handle().commit(&offsets).await.unwrap();
    taking_over.close().await.unwrap();
    run.net.heal();
    // Long enough for everything that the member does by itself.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let again = member.handle().metadata();
    assert_ne!((&again.member_id, again.generation), (&before.member_id, before.generation));

    let refused = member.handle().metadata_of_owner(&offsets).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::IllegalGeneration, "{}", refused.chain());
    let refused = member.handle().commit(&offsets).await.unwrap_err();
    assert_eq!(refused.code(), ErrorCode::IllegalGeneration, "{}", refused.chain());
    assert!(matches!(member.poll(WAIT).await.unwrap(), Some(Polled::Lost { .. })));
    assert!(matches!(member.poll(WAIT).await.unwrap(), Some(Polled::Assigned(_))));
    // It had the partition all the time, in this very generation.
    assert_eq!(member.handle().metadata_of_owner(&offsets).unwrap(), again);
}

#[test]
fn what_was_read_before_a_partition_was_lost_is_not_committed() {
    for protocol in [GroupProtocol::Classic, GroupProtocol::Consumer] {
        let report = Report::of(async |witness| {
            let run = SimRun::new(1);
            let node = Node::start(&run).await;
            let disks = vec![Arc::clone(&node.machine.disk)];
            let promise = Promise { disks, copies: 1, synced: true };
            let plan = Plan { servers: vec![ADDRESS.to_owned()], records: 0, pause_ms: 1, promise };
            let peers = [0, 1, 2].map(|index| Peer::new(&run, &plan, index, witness));
            live(&run, protocol, peers).await;
            (run, Vec::new())
        });
        assert_eq!(report.findings, Vec::<String>::new());
    }
}
