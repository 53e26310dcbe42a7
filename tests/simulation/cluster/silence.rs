//! A leader that stands still, and clients with their default timeouts, which are longer.

use std::time::Duration;

use bytes::Bytes;
use ottla::client::producer::{Producer, ProducerRecord};
use ottla::client::{Client, ClientConfig, PollOptions, StartAt};
use ottla::env::sim::SimRun;
use ottla::types::{NodeId, TopicPartition};
use tokio::time::Instant;

use super::nodes::{Cluster, ip};
use crate::broker::clients::{Peer, Plan, TOPIC, address_of, decode};
use crate::report::Report;

/// The session of the node ends after 3 s; then a second may pass until the clients ask.
const SERVED_WITHIN: Duration = Duration::from_secs(6);

async fn send(producer: &Producer, value: &'static str) {
    let record = ProducerRecord {
        partition: Some(0.into()),
        ..ProducerRecord::new(TOPIC, Bytes::from(value))
    };
    let delivery = producer.send(record).await.unwrap();
    delivery.wait().await.unwrap();
}

#[test]
fn a_leader_that_stands_still_is_left_by_producers_and_consumers() {
    let report = Report::of(async |witness| {
        let run = SimRun::new(5);
        let mut cluster = Cluster::new(&run, 3);
        let servers = cluster.servers();
        let promise = cluster.promise();
        let plan = Plan { servers: servers.clone(), records: 0, pause_ms: 0, promise };
        cluster.boot_all().await;
        let peer = Peer::new(&run, &plan, 1, witness);
        peer.create_topic(TOPIC).await.unwrap();
        let config = ClientConfig { bootstrap_servers: servers, ..ClientConfig::default() };
        assert!(config.request_timeout > SERVED_WITHIN);
        let client = Client::connect_on(peer.own_env(), config).unwrap();
        let producer = client.producer().unwrap();
        let mut consumer = client.consumer(decode()).unwrap();
        let partition = TopicPartition::new(TOPIC, 0);
        consumer.assign(&[(partition, StartAt::Earliest)]).await.unwrap();
        let mut rows = async || {
            let wait = PollOptions { max_wait: Duration::from_secs(60), fill: false };
            consumer.poll(wait).await.unwrap().unwrap().rows.num_rows()
        };
        send(&producer, "one").await;
        assert_eq!(rows().await, 1);

        let described = client.admin().describe_topics(&[TOPIC]).await.unwrap().remove(0).unwrap();
        let NodeId(leader) = described.partitions[0].leader.unwrap();
        let leader = ip(leader as u8);
        let others = (1..=3).map(ip).chain([address_of(1)]).filter(|other| *other != leader);
        for other in others {
            run.net.cut(leader, other);
            run.net.cut(other, leader);
        }
        let began = Instant::now();
        send(&producer, "two").await;
        let acknowledged = began.elapsed();
        assert_eq!(rows().await, 1);
        let read = began.elapsed();
        run.net.heal();
        assert!(read < SERVED_WITHIN, "acknowledged after {acknowledged:?}, read after {read:?}");
        drop((producer, consumer, client));
        cluster.stop_all().await;
        (run, Vec::new())
    });
    assert_eq!(report.findings, Vec::<String>::new());
}
