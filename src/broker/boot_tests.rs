//! Boots whose quorum answers when the test lets it.

use std::net::SocketAddr;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;

use super::*;
use crate::broker::metadata_log::tests::{RemoteLeader, ToRemote};
use crate::error::ErrorCode;
use crate::machine::controller::{AnyCommand, BrokerHeartbeat};
use crate::machine::metadata::{MetadataRecord, PartitionImage, PartitionRecord};
use crate::protocol::messages::api_versions::ApiVersionsRequest;
use crate::protocol::messages::describe_quorum::DescribeQuorumRequest;
use crate::protocol::messages::metadata::MetadataRequest;
use crate::protocol::{Request, RequestHeader, Response, frame};
use crate::types::{LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid};

/// As many commands as come.
const ANY: usize = usize::MAX >> 4;

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

    /// Of a cluster with node 9, which leads it. Sessions are short, heartbeats frequent.
    fn of_cluster() -> Self {
        let mut site = Self::new();
        site.options = site
            .options
            .with("controller.quorum.voters", "1@localhost:7,9@localhost:8")
            .with("broker.heartbeat.interval.ms", "5")
            .with("broker.session.timeout.ms", "600");
        site
    }

    /// Boots with this leader.
    async fn join(&self, remote: &Arc<RemoteLeader>) -> Result<Broker> {
        let foundation = self.found(self.listen()).await;
        finish(foundation.carry(Arc::new(ToRemote(Arc::clone(remote)))).await.unwrap(), None).await
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
        Foundation { env, config, reception, directory, temporary, store: None }
    }
}

/// The id that is in the directory of a broker that is closed.
fn cluster_id(site: &Site) -> Option<String> {
    let directory = LogDirectory::open(&Env::real(), site.directory.path(), NodeId(1), None);
    directory.unwrap().meta().cluster_id
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
    let foundation = Foundation { env, config, reception, directory, temporary, store: None };
    finish(foundation.carry(metadata).await?, None).await
}

/// The records of a topic with one partition, of which broker 1 has the only replica.
fn topic(name: &str) -> Vec<MetadataRecord> {
    replicated(name, &[1])
}

/// The records of a topic with one partition on these brokers, all in sync.
fn replicated(name: &str, brokers: &[i32]) -> Vec<MetadataRecord> {
    let id = Uuid([5; 16]);
    let nodes: Vec<NodeId> = brokers.iter().copied().map(NodeId).collect();
    let state = PartitionImage {
        replicas: nodes.clone(),
        isr: nodes,
        removing: vec![],
        adding: vec![],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: NodeId::NONE,
        leader_epoch: LeaderEpoch(0),
        partition_epoch: PartitionEpoch(0),
    };
    let name = name.into();
    vec![MetadataRecord::Topic { name, id }, PartitionRecord::create(id, PartitionIndex(0), &state)]
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
    let address = listening.2.bound()[0].address;
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
    let address = foundation.reception.bound()[0].address;
    let mut client = Client::connect(address).await;
    assert!(client.api_versions().await);
    let all = MetadataRequest { topics: None, ..MetadataRequest::default() };
    client.send(12, all.clone()).await;
    let remote = RemoteLeader::new(10);
    remote.commit(&[MetadataRecord::Cluster { id: "another".into() }]);
    let broker = foundation.carry(Arc::new(ToRemote(Arc::clone(&remote)))).await.unwrap();
    let error = finish(broker, None).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::InconsistentClusterId);
    let own = cluster_id(&site).unwrap();
    assert!(error.to_string().contains(&own) && error.to_string().contains("another"), "{error}");
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
    let mut client = Client::connect(foundation.reception.bound()[0].address).await;
    assert!(client.api_versions().await);
    // A quorum without a leader.
    let remote = RemoteLeader::new(0);
    let broker = foundation.carry(Arc::new(ToRemote(remote))).await.unwrap();
    {
        let finished = finish(broker, None);
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

#[tokio::test]
async fn a_node_of_a_cluster_adopts_its_id_and_leads_once_a_heartbeat_says_that_it_can() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let mut asked = remote.watch();
    remote.commit(&[MetadataRecord::Cluster { id: "theirs".into() }]);
    remote.commit(&topic("there"));
    let (_, mut updates) = ToRemote(Arc::clone(&remote)).subscribe();
    let broker = site.join(&remote).await.unwrap();
    assert_eq!(broker.cluster_id(), "theirs");
    let registered = loop {
        let image = updates.recv().await.unwrap().image;
        if image.broker(NodeId(1)).is_some() {
            break image.offset;
        }
    };
    let image = broker.state().image();
    assert!(!image.broker(NodeId(1)).unwrap().fenced);
    assert_eq!(image.partition("there", PartitionIndex(0)).unwrap().leader, NodeId(1));
    broker.shutdown().await.unwrap();
    assert_eq!(cluster_id(&site).as_deref(), Some("theirs"));
    // It came fenced, and did not ask to be unfenced before it knew the metadata as of its registration.
    let mut commands = Vec::new();
    while let Ok(command) = asked.try_recv() {
        commands.push(command);
    }
    let Some(AnyCommand::Bootstrap(bootstrap)) = commands.first() else { panic!("{commands:?}") };
    assert!(bootstrap.is_proposal);
    let is_registration = |command: &AnyCommand| match command {
        AnyCommand::BrokerRegistration(one) => !one.ready && one.is_first,
        _ => false,
    };
    assert!(is_registration(&commands[1]), "{:?}", commands[1]);
    let beats: Vec<_> = commands.iter().filter_map(heartbeat).collect();
    let able = beats.iter().find(|beat| !beat.want_fence).unwrap();
    assert!(able.metadata_offset >= registered, "{able:?}");
    assert!(beats.first().unwrap().want_fence);
    // The next start knows the cluster.
    let mut asked = remote.watch();
    site.join(&remote).await.unwrap().shutdown().await.unwrap();
    let Ok(AnyCommand::Bootstrap(bootstrap)) = asked.try_recv() else { panic!("no bootstrap") };
    assert_eq!((&*bootstrap.cluster_id, bootstrap.is_proposal), ("theirs", false));
}

#[tokio::test]
async fn the_first_node_of_a_cluster_proposes_its_id() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let broker = site.join(&remote).await.unwrap();
    let id = broker.cluster_id().to_owned();
    assert_eq!(broker.state().image().cluster_id().map(|id| &**id), Some(&*id));
    broker.shutdown().await.unwrap();
    assert_eq!(cluster_id(&site), Some(id));
}

#[tokio::test]
async fn a_node_that_nobody_answers_says_for_whom_it_waited() {
    let mut site = Site::of_cluster();
    site.options = site.options.with("initial.broker.registration.timeout.ms", "300");
    let remote = RemoteLeader::new(ANY);
    remote.lead(false);
    let error = site.join(&remote).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RequestTimedOut);
    assert!(error.to_string().contains("waiting for 9@localhost:8"), "{error}");
    assert!(remote.is_shut_down());
    assert_eq!(cluster_id(&site), None);
}

#[tokio::test]
async fn heartbeats_go_on_when_the_controller_leads_again_or_answers_again() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let broker = site.join(&remote).await.unwrap();
    let mut asked = remote.watch();
    remote.lead(false);
    for _ in 0..4 {
        next_heartbeat(&mut asked).await;
    }
    remote.lead(true);
    next_heartbeat(&mut asked).await;
    // What was never answered is asked again.
    remote.swallow(2);
    for _ in 0..4 {
        let beat = next_heartbeat(&mut asked).await;
        assert_eq!(beat.epoch, BrokerEpoch(0));
    }
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_the_controller_does_not_know_registers_anew() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    remote.commit(&topic("there"));
    let broker = site.join(&remote).await.unwrap();
    let before = broker.state().image();
    let before = before.broker(NodeId(1)).unwrap();
    let mut asked = remote.watch();
    let gone = MetadataRecord::UnregisterBroker { id: NodeId(1), epoch: before.epoch };
    remote.commit(&[gone]);
    let again = loop {
        if let AnyCommand::BrokerRegistration(again) = next(&mut asked).await {
            break again;
        }
    };
    assert!(!again.is_first && !again.ready);
    assert_eq!(again.incarnation, before.incarnation, "MEMBER-1");
    let leads = |image: &MetadataImage| {
        let own = image.broker(NodeId(1));
        own.is_some_and(|own| own.epoch > before.epoch && !own.fenced)
    };
    let leads = broker.state().published_when(leads);
    tokio::time::timeout(Duration::from_secs(20), leads).await.expect("it stays fenced");
    assert_eq!(
        broker.state().image().partition("there", PartitionIndex(0)).unwrap().leader,
        NodeId(1)
    );
    assert!(!broker.state().partitions().storage().health().is_offline());
    broker.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_broker_that_was_replaced_stays_away() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let broker = site.join(&remote).await.unwrap();
    let meta = broker.state().partitions().storage().meta().unwrap();
    // A process with a copy of the directory.
    let copy = BrokerRegistration {
        id: NodeId(1),
        incarnation: Uuid([9; 16]),
        directory_id: meta.directory_id,
        is_first: true,
        predecessor: None,
        cluster_id: None,
        endpoints: vec![],
        rack: None,
        ready: false,
    };
    let log: Arc<dyn MetadataLog> = Arc::new(ToRemote(Arc::clone(&remote)));
    let mut asked = remote.watch();
    let epoch = log.submit(copy).await.unwrap().reply.unwrap();
    // Whatever it asks for, it is refused; and it does not ask for long.
    let mut count = 0;
    while !broker.state().partitions().storage().health().is_offline() {
        assert!(count < 100, "it takes the place of the other again and again");
        next(&mut asked).await;
        count += 1;
    }
    let own = broker.state().image();
    assert!(own.broker(NodeId(1)).is_some_and(|own| own.epoch <= epoch));
    assert!(broker.shutdown().await.is_err(), "the directory is offline");
}

#[tokio::test]
async fn a_broker_that_stops_hands_over_first() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let log: Arc<dyn MetadataLog> = Arc::new(ToRemote(Arc::clone(&remote)));
    let other = BrokerRegistration {
        id: NodeId(2),
        incarnation: Uuid([2; 16]),
        directory_id: Uuid([3; 16]),
        is_first: true,
        predecessor: None,
        cluster_id: None,
        endpoints: vec![],
        rack: None,
        ready: true,
    };
    let epoch = log.submit(other).await.unwrap().reply.unwrap();
    let broker = site.join(&remote).await.unwrap();
    remote.commit(&replicated("t", &[1, 2]));
    let partition = PartitionRecord {
        leader: Some(NodeId(1)),
        ..PartitionRecord::change(
            Uuid([5; 16]),
            PartitionIndex(0),
            LeaderEpoch(1),
            PartitionEpoch(1),
        )
    };
    remote.commit(&[MetadataRecord::ChangePartition(partition)]);
    let mut asked = remote.watch();
    let stopped = broker.shutdown();
    tokio::pin!(stopped);
    let handed_over = loop {
        tokio::select! {
            biased;
            ended = &mut stopped => panic!("before anybody knew: {ended:?}"),
            beat = next_heartbeat(&mut asked) => if let Some(offset) = beat.handed_over {
                break offset;
            },
        }
    };
    let (image, _) = log.subscribe();
    assert_eq!(image.partition("t", PartitionIndex(0)).unwrap().leader, NodeId(2));
    let own = image.broker(NodeId(1)).unwrap();
    assert!(own.shutting_down && !own.fenced);
    let knows = BrokerHeartbeat {
        id: NodeId(2),
        epoch,
        metadata_offset: handed_over,
        want_fence: false,
        want_shutdown: false,
        handed_over: None,
    };
    log.submit(knows).await.unwrap().reply.unwrap();
    stopped.await.unwrap();
    assert!(log.subscribe().0.broker(NodeId(1)).unwrap().fenced);
    assert!(site.directory.path().join(".kafka_cleanshutdown").exists());
}

#[tokio::test]
async fn a_broker_that_stops_does_not_wait_for_a_quorum_that_is_gone() {
    let site = Site::of_cluster();
    let remote = RemoteLeader::new(ANY);
    let broker = site.join(&remote).await.unwrap();
    remote.lead(false);
    let stopped = tokio::time::timeout(membership::LEAVE_MAX, broker.shutdown());
    stopped.await.expect("it waits as for a slow one").unwrap();
}

fn heartbeat(command: &AnyCommand) -> Option<BrokerHeartbeat> {
    match command {
        AnyCommand::BrokerHeartbeat(beat) => Some(*beat),
        _ => None,
    }
}

/// The next command that arrives; there is always one before long.
async fn next(asked: &mut UnboundedReceiver<AnyCommand>) -> AnyCommand {
    let next = tokio::time::timeout(Duration::from_secs(20), asked.recv()).await;
    next.expect("nothing arrives any more").unwrap()
}

/// The next heartbeat of broker 1.
async fn next_heartbeat(asked: &mut UnboundedReceiver<AnyCommand>) -> BrokerHeartbeat {
    loop {
        let command = next(asked).await;
        if let Some(beat) = heartbeat(&command).filter(|beat| beat.id == NodeId(1)) {
            return beat;
        }
    }
}
