//! The peers that the cases run against.

use std::sync::atomic::{AtomicU64, Ordering};

use ottla::broker::{Broker, BrokerOptions};
use ottla::client::admin::NewTopic;
use ottla::client::{Client, ClientConfig};

/// A client of one peer.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    pub(crate) client: Client,
}

impl Peer {
    /// A topic that nobody else uses.
    pub(crate) async fn topic(&self, partitions: i32) -> String {
        self.topic_with(NewTopic::new(unique("case"), partitions)).await
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

/// The harness cannot say that a part of a test was skipped, so this says it, in every run that does
/// not include it.
#[test]
#[ignore = "skipped: Apache Kafka takes part only where OTTLA_CONFORMANCE_SERVERS names one; run with --include-ignored"]
fn apache_kafka_takes_part() {
    let servers = std::env::var("OTTLA_CONFORMANCE_SERVERS");
    assert!(
        servers.is_ok_and(|servers| !servers.is_empty()),
        "OTTLA_CONFORMANCE_SERVERS is not set"
    );
}

/// Runs a case against every available peer: our broker in the same process, in process and over
/// TCP, and Apache Kafka.
pub(crate) fn against_all<F: Future<Output = ()>>(case: impl Fn(Peer) -> F) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let limited = async |peer: Peer| {
            let (name, limit) = (peer.name, std::time::Duration::from_secs(60));
            let run = tokio::time::timeout(limit, case(peer)).await;
            run.unwrap_or_else(|_| panic!("the case takes too long with {name}"));
        };
        let broker = Broker::start(BrokerOptions::in_memory()).await.unwrap();
        let local =
            Client::local(broker.service(), Some(broker.node_id()), ClientConfig::default())
                .unwrap();
        limited(Peer { name: "ottla in-process", client: local }).await;
        let config = ClientConfig::for_servers(&broker.bootstrap_servers()).unwrap();
        let remote = Client::connect(config).unwrap();
        limited(Peer { name: "ottla over TCP", client: remote }).await;
        broker.shutdown().await.unwrap();
        // Where it is not set, `apache_kafka_takes_part` says so.
        if let Ok(servers) = std::env::var("OTTLA_CONFORMANCE_SERVERS") {
            let config = ClientConfig::for_servers(&servers).unwrap();
            let client = Client::connect(config).unwrap();
            limited(Peer { name: "Apache Kafka", client }).await;
        }
    });
}
