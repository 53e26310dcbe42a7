//! The peers that the cases of a client run against.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ottla::broker::{Broker, BrokerOptions};
use ottla::client::admin::NewTopic;
use ottla::client::{Client, ClientConfig};

use crate::{journal, node};

/// A client of one peer.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
}

impl Peer {
    /// A topic that nobody else uses.
    pub(crate) async fn topic(&self, partitions: i32) -> String {
        let mut topic = NewTopic::new(unique("case"), partitions);
        // Records of the cases are old, and a case may take longer than it is until a broker looks for such.
        topic.configs.insert("retention.ms".into(), "-1".into());
        self.topic_with(topic).await
    }

    pub(crate) async fn topic_with(&self, topic: NewTopic) -> String {
        let name = topic.name.clone();
        let created = self.client.admin().create_topics(&[topic], false).await.unwrap();
        created.into_iter().next().unwrap().unwrap();
        name
    }
}

/// A name that no other case and no other run uses.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    format!("{what}-{}-{}", now.as_nanos(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn run(peers: impl Future<Output = ()>) {
    let _shown = journal::keep();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(peers);
}

/// Longer than `delivery.timeout.ms` and the other limits of a client, whose errors say what they waited for.
const PATIENCE: Duration = Duration::from_secs(150);

async fn limited(name: &str, peer: &'static str, case: impl Future<Output = ()>) {
    let finished = tokio::time::timeout(PATIENCE, case).await;
    finished.unwrap_or_else(|_| panic!("{name} takes too long with {peer}"));
}

/// A client of the broker at this address, over TCP.
fn remote(servers: &str) -> Client {
    Client::connect(ClientConfig::for_servers(servers).unwrap()).unwrap()
}

/// Runs a case against our broker in the same process: in process and over TCP.
pub(crate) fn against_ottla<F: Future<Output = ()>>(name: &str, case: impl Fn(Peer) -> F) {
    run(async {
        let broker = Broker::start(BrokerOptions::in_memory()).await.unwrap();
        let node = Some(broker.node_id());
        let local = Client::local(broker.service(), node, ClientConfig::default()).unwrap();
        let remote = remote(&broker.bootstrap_servers());
        for (peer, client) in [("ottla in-process", local), ("ottla over TCP", remote)] {
            limited(name, peer, case(Peer { name: peer, client })).await;
        }
        broker.shutdown().await.unwrap();
    });
}

/// Runs a case against a live Apache Kafka.
pub(crate) fn against_kafka<F: Future<Output = ()>>(name: &str, case: impl Fn(Peer) -> F) {
    let peer = "Apache Kafka";
    let address = node::address();
    run(async {
        let client = remote(address);
        limited(name, peer, case(Peer { name: peer, client })).await;
    });
}

/// Runs a case against a live Apache Kafka that does transactions as before 4.0.
pub(crate) fn against_old_transactions<F: Future<Output = ()>>(
    name: &str,
    case: impl Fn(Peer) -> F,
) {
    let peer = "Apache Kafka with transaction.version=1";
    let address = node::address_with_old_transactions();
    run(async {
        let client = remote(address);
        limited(name, peer, case(Peer { name: peer, client })).await;
    });
}
