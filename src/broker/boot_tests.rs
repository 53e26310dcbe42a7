//! Boots whose quorum answers when the test lets it.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::broker::metadata_log::tests::{RemoteLeader, ToRemote};
use crate::error::ErrorCode;
use crate::machine::metadata::{MetadataRecord, PartitionImage, PartitionRecord};
use crate::protocol::messages::api_versions::ApiVersionsRequest;
use crate::protocol::messages::describe_quorum::DescribeQuorumRequest;
use crate::protocol::messages::metadata::MetadataRequest;
use crate::protocol::{Request, RequestHeader, Response, frame};
use crate::types::{LeaderEpoch, PartitionEpoch, Uuid};

/// A broker's settings and directory; its port is any that is free.
struct Site {
    options: BrokerOptions,
    directory: tempfile::TempDir,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listeners = Some("PLAINTEXT://127.0.0.1:0".to_owned());
        let options = BrokerOptions { listeners, ..BrokerOptions::in_directory(directory.path()) };
        Self { options, directory }
    }

    /// Opens the sockets.
    fn listen(&self) -> (Env, BrokerConfig, Reception) {
        let env = Env::real();
        let (config, _) = resolve(&self.options).unwrap();
        let listeners = Listeners::bind(&env.net, &config.listeners, socket_options(&config));
        let reception = Reception::open(listeners.unwrap(), &config);
        (env, config, reception)
    }

    /// Goes on to where the quorum is to be started.
    async fn found(&self, (env, config, reception): (Env, BrokerConfig, Reception)) -> Foundation {
        let given = Some(self.directory.path().to_path_buf());
        let (directory, temporary) = open_directory(&env, &config, given).await.unwrap();
        Foundation { env, config, reception, directory, temporary }
    }
}

/// Starts a broker on a quorum of the test's.
#[cfg(feature = "sim")]
pub(in crate::broker) async fn start_on(
    env: Env,
    options: &BrokerOptions,
    metadata: Arc<dyn MetadataLog>,
) -> Result<Broker> {
    let (config, given) = resolve(options)?;
    let listeners = Listeners::bind(&env.net, &config.listeners, socket_options(&config))?;
    let reception = Reception::open(listeners, &config);
    let (directory, temporary) = open_directory(&env, &config, given).await?;
    let foundation = Foundation { env, config, reception, directory, temporary };
    finish(foundation.carry(metadata).await?).await
}

/// The records of a topic with one partition, of which broker 1 has the only replica.
fn topic(name: &str) -> Vec<MetadataRecord> {
    let id = Uuid([5; 16]);
    let state = PartitionImage {
        replicas: vec![NodeId(1)],
        isr: vec![NodeId(1)],
        removing: vec![],
        adding: vec![],
        leader: NodeId::NONE,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    };
    let name = name.into();
    vec![MetadataRecord::Topic { name, id }, PartitionRecord::create(id, 0, &state)]
}

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    async fn send(&mut self, version: i16, request: impl Into<Request>) {
        let request = request.into();
        let header = RequestHeader {
            api_key: request.api().to_i16(),
            api_version: version,
            correlation_id: 1,
            client_id: None,
        };
        let chunks = frame::encode_request(&header, &request).unwrap();
        self.stream.write_all(&chunks.concat()).await.unwrap();
    }

    /// The next answer; none when the connection ends.
    async fn receive(&mut self, like: impl Into<Request>, version: i16) -> Option<Response> {
        let length = self.stream.read_u32().await.ok()?;
        let mut body = vec![0; length as usize];
        self.stream.read_exact(&mut body).await.ok()?;
        let api = like.into().api();
        Some(frame::decode_response(api, version, Bytes::from(body)).unwrap().1)
    }

    async fn api_versions(&mut self) -> bool {
        let request = ApiVersionsRequest {
            client_software_name: "test".into(),
            client_software_version: "1".into(),
            ..ApiVersionsRequest::default()
        };
        self.send(4, request.clone()).await;
        let Some(Response::ApiVersions(answer)) = self.receive(request, 4).await else {
            return false;
        };
        assert_eq!(answer.error_code, 0);
        assert!(answer.api_keys.len() > 20);
        true
    }
}

async fn phase(broker: &Broker, phase: Phase) {
    broker.reception().progress().reached(phase).await.unwrap();
}

#[tokio::test]
async fn a_client_that_comes_early_waits_for_the_truth() {
    let site = Site::new();
    let listening = site.listen();
    let address = listening.2.addresses()[0];
    let mut early = Client::connect(address).await;
    assert!(early.api_versions().await, "before there is anything");
    let remote = RemoteLeader::new(0);
    remote.commit(&topic("there"));
    let foundation = site.found(listening).await;
    let broker = foundation.carry(Arc::new(ToRemote(Arc::clone(&remote)))).await.unwrap();

    let mut admin = Client::connect(address).await;
    admin.send(2, DescribeQuorumRequest::default()).await;
    let answer = admin.receive(DescribeQuorumRequest::default(), 2).await;
    assert!(matches!(answer, Some(Response::DescribeQuorum(_))), "{answer:?}");

    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    early.send(12, all.clone()).await;
    let asked = early.receive(all, 12);
    tokio::pin!(asked);
    let joined = join(&broker);
    tokio::pin!(joined);
    for next in [Phase::ClusterKnown, Phase::Registered] {
        tokio::select! {
            biased;
            answer = &mut asked => panic!("too early, before {next:?}: {answer:?}"),
            ended = &mut joined => panic!("too early, before {next:?}: {ended:?}"),
            () = async { remote.allow_one(); phase(&broker, next).await } => {}
        }
    }
    joined.await.unwrap();
    let Some(Response::Metadata(answer)) = asked.await else { panic!("no answer") };
    let [topic] = &*answer.topics else { panic!("{:?}", answer.topics) };
    assert_eq!((topic.name.as_deref(), topic.error_code), (Some("there"), 0));
    assert_eq!(topic.partitions[0].leader_id, 1);
    assert_eq!(answer.brokers.len(), 1);
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_boot_that_fails_closes_what_it_opened() {
    let site = Site::new();
    let foundation = site.found(site.listen()).await;
    let address = foundation.reception.addresses()[0];
    let mut client = Client::connect(address).await;
    assert!(client.api_versions().await);
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    client.send(12, all.clone()).await;
    let remote = RemoteLeader::new(10);
    remote.commit(&[MetadataRecord::Cluster { id: "another".into() }]);
    let broker = foundation.carry(Arc::new(ToRemote(Arc::clone(&remote)))).await.unwrap();
    let error = finish(broker).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InconsistentClusterId);
    assert!(client.receive(all, 12).await.is_none(), "the connection is closed");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
    assert!(remote.is_shut_down());
    assert!(!site.directory.path().join(".kafka_cleanshutdown").exists());
    // And so it can be started again, at once.
    Broker::start(site.options.clone()).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_boot_that_is_given_up_lets_go() {
    let site = Site::new();
    let foundation = site.found(site.listen()).await;
    let mut client = Client::connect(foundation.reception.addresses()[0]).await;
    assert!(client.api_versions().await);
    // A quorum without a leader.
    let remote = RemoteLeader::new(0);
    let broker = foundation.carry(Arc::new(ToRemote(remote))).await.unwrap();
    {
        let finished = finish(broker);
        tokio::pin!(finished);
        assert!(futures::poll!(finished.as_mut()).is_pending());
    }
    assert!(!client.api_versions().await, "the connection is closed");
    Broker::start(site.options.clone()).await.unwrap().shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broker_is_registered_with_each_of_its_listeners() {
    let options = BrokerOptions {
        listeners: Some("PLAINTEXT://localhost:0,OUTSIDE://127.0.0.1:0".to_owned()),
        ..BrokerOptions::in_memory()
    };
    let options = options
        .with("advertised.listeners", "OUTSIDE://broker.example:0")
        .with("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,OUTSIDE:PLAINTEXT");
    let broker = Broker::start(options).await.unwrap();
    let image = broker.state().image();
    let own = image.broker(broker.node_id()).unwrap();
    let port = |name: &str| {
        let bound = broker.reception().bound().iter().find(|bound| bound.name() == name);
        bound.unwrap().address.port()
    };
    let told: Vec<_> =
        own.endpoints.iter().map(|one| (&*one.listener, &*one.host, one.port)).collect();
    let expected = [
        ("PLAINTEXT", "localhost", port("PLAINTEXT")),
        ("OUTSIDE", "broker.example", port("OUTSIDE")),
    ];
    assert_eq!(told, expected);
    broker.shutdown().await.unwrap();
}
