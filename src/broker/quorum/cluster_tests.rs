//! Several whole quorums in one process, on simulated machines and paused time, with a network that is function calls.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::peers::Target;
use super::tests::{options_on, register, retain};
use super::*;
use crate::broker::connection::BoxFuture;
use crate::config::ConfigMap;
use crate::env::sim::{SimMachine, SimRun};
use crate::machine::controller::{CreateTopics, NewTopic};
use crate::machine::quorum::{Found, Leader, Peer};
use crate::types::TimestampMs;

/// How long a request takes, one way.
const DELAY: Duration = Duration::from_millis(1);
/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);
const NODES: i32 = 3;

/// A process of a node, and whether it lives.
#[derive(Clone, Debug)]
struct Process {
    quorum: Arc<Quorum>,
    lives: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct Net {
    nodes: Mutex<BTreeMap<NodeId, Process>>,
    /// Nobody hears these, and they hear nobody.
    cut: Mutex<BTreeSet<NodeId>>,
    snapshot_parts: Mutex<usize>,
}

fn unreachable() -> Error {
    Error::kafka(ErrorCode::NotController, "it is not reached")
}

#[derive(Clone, Debug)]
struct Wire {
    net: Arc<Net>,
    from: NodeId,
    lives: Arc<AtomicBool>,
}

impl Wire {
    fn reach(&self, to: NodeId) -> Result<Process> {
        let cut = self.net.cut.lock().unwrap();
        let is_cut = cut.contains(&self.from) || cut.contains(&to);
        let target = self.net.nodes.lock().unwrap().get(&to).cloned();
        let lives = self.lives.load(Ordering::Relaxed);
        target.filter(|_| lives && !is_cut).ok_or_else(unreachable)
    }
}

impl Peers for Wire {
    fn call(&self, to: Target, request: Request) -> BoxFuture<Result<Response<Bytes>>> {
        let id = match to.peer {
            Peer::Node(id) => {
                assert_eq!(to.endpoints.len(), 1, "it is known where {id} listens");
                id
            }
            // The first address of the list of those who join.
            Peer::Bootstrap(_) => NodeId(1),
        };
        let own = self.clone();
        Box::pin(async move {
            tokio::time::sleep(DELAY).await;
            let target = own.reach(id)?;
            let answered = tokio::time::timeout(PATIENCE, target.quorum.handle(request)).await;
            let mut response = answered.ok().flatten().ok_or_else(unreachable)?;
            tokio::time::sleep(DELAY).await;
            own.reach(id)?;
            if !target.lives.load(Ordering::Relaxed) {
                return Err(unreachable());
            }
            match &mut response {
                Response::Fetch(fetched) => {
                    if let Found::Records(entries) = &mut fetched.found {
                        // As frames carry them.
                        let bytes = batches::encode(entries.iter(), TimestampMs(7)).unwrap();
                        let (start, end) = (Offset::ZERO, Offset(i64::MAX));
                        *entries = batches::decode(bytes, start, end).unwrap();
                    }
                }
                Response::FetchSnapshot(_) => *own.net.snapshot_parts.lock().unwrap() += 1,
                _ => {}
            }
            Ok(response)
        })
    }

    fn forward(&self, leader: Leader, command: AnyCommand) -> BoxFuture<Result<CommandAnswer>> {
        assert_eq!(leader.endpoints.len(), 1, "it is known where the leader listens");
        let own = self.clone();
        Box::pin(async move {
            tokio::time::sleep(DELAY).await;
            let target = own.reach(leader.id)?;
            let answer = target.quorum.arrived(command).await;
            tokio::time::sleep(DELAY).await;
            Ok(answer)
        })
    }
}

struct Cluster {
    net: Arc<Net>,
    machines: BTreeMap<NodeId, SimMachine>,
    limit_bytes: i64,
    /// Node 1 was alone, and the others join it.
    grows: bool,
}

fn voter(id: NodeId) -> Voter {
    let endpoint = Endpoint {
        listener: "PLAINTEXT".into(),
        host: format!("node-{id}").into(),
        port: 9092,
        security_protocol: 0,
    };
    Voter { key: ReplicaKey { id, directory_id: Uuid::ZERO }, endpoints: vec![endpoint] }
}

fn ids() -> impl Iterator<Item = NodeId> {
    (1..=NODES).map(NodeId)
}

impl Cluster {
    async fn start(seed: u64, limit_bytes: i64) -> Self {
        let cluster = Self::off(seed, limit_bytes, false);
        for id in ids() {
            cluster.boot(id).await;
        }
        cluster
    }

    /// No node runs yet.
    fn off(seed: u64, limit_bytes: i64, grows: bool) -> Self {
        let run = SimRun::new(seed);
        let machine = |id: NodeId| {
            let ip = IpAddr::V4(Ipv4Addr::new(10, 0, 0, u8::try_from(id.0).unwrap()));
            (id, run.machine(&format!("m{id}"), ip))
        };
        let machines = ids().map(machine).collect();
        Self { net: Arc::default(), machines, limit_bytes, grows }
    }

    async fn boot(&self, id: NodeId) {
        let settings = ConfigMap::from([(
            "metadata.log.max.record.bytes.between.snapshots".to_owned(),
            self.limit_bytes.to_string(),
        )]);
        let mut options = options_on(self.machines[&id].env(), Path::new("/data"));
        options.node_id = id;
        options.directory_id = Uuid([u8::try_from(id.0).unwrap(); 16]);
        options.endpoints = voter(id).endpoints;
        if self.grows {
            options.bootstrap = usize::from(id != NodeId(1));
        } else {
            options.voters = VoterSet::new(ids().map(voter));
        }
        options.config = BrokerConfig::resolve(&settings).unwrap();
        let lives = Arc::new(AtomicBool::new(true));
        let wire = Wire { net: Arc::clone(&self.net), from: id, lives: Arc::clone(&lives) };
        let quorum = Arc::new(Quorum::open_among(options, Arc::new(wire)).await.unwrap());
        self.net.nodes.lock().unwrap().insert(id, Process { quorum, lives });
    }

    fn node(&self, id: NodeId) -> Arc<Quorum> {
        Arc::clone(&self.net.nodes.lock().unwrap()[&id].quorum)
    }

    /// The process of a node ends at once: its disk fails from here on.
    fn kill(&self, id: NodeId) {
        self.machines[&id].kill();
        let process = self.net.nodes.lock().unwrap().remove(&id).unwrap();
        process.lives.store(false, Ordering::Relaxed);
    }

    /// Who leads, as `asked` learns it.
    async fn leader(&self, asked: NodeId) -> NodeId {
        let node = self.node(asked);
        let is_known = |current: &machine::LeaderAndEpoch| current.leader.is_some();
        within(node.shared.leader().wait_for(is_known)).await.leader.unwrap().id
    }

    async fn create(&self, asked: NodeId, name: &str) -> Offset {
        let topics = vec![NewTopic::new(name, 1, 1)];
        let created = self.node(asked).submit(CreateTopics { topics, validate_only: false });
        let created = within(created).await.unwrap();
        created.reply[0].as_ref().unwrap();
        created.offset
    }

    async fn check(&self, asked: NodeId, offset: Offset, names: &[String]) {
        let node = self.node(asked);
        assert!(within(node.shared.applied(offset)).await);
        let image = node.image();
        for name in names {
            assert!(image.topic(name).is_some(), "node {asked} has lost {name}");
        }
    }

    async fn stop(self) {
        let nodes = std::mem::take(&mut *self.net.nodes.lock().unwrap());
        for node in nodes.into_values() {
            node.quorum.shutdown().await.unwrap();
        }
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.expect("it takes too long")
}

/// The cluster has an id and a broker that can have partitions.
async fn begin(cluster: &Cluster) {
    let node = cluster.node(NodeId(1));
    let bootstrap = Bootstrap { cluster_id: "test-cluster".into(), is_proposal: false };
    within(node.submit(bootstrap)).await.unwrap().reply.unwrap();
    within(register(&node, 1)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_any_node_was_asked_survives_the_death_of_leaders() {
    for seed in 0..4 {
        let cluster = Cluster::start(seed, 1 << 20).await;
        begin(&cluster).await;
        let mut names = Vec::new();
        let mut last = Offset::ZERO;
        for round in 0..3 {
            for id in ids() {
                let name = format!("topic-{round}-{id}");
                last = last.max(cluster.create(id, &name).await);
                names.push(name);
            }
            let dead = cluster.leader(NodeId(1)).await;
            cluster.kill(dead);
            let others: Vec<NodeId> = ids().filter(|id| *id != dead).collect();
            let asked = others[round % 2];
            let is_another = |current: &machine::LeaderAndEpoch| {
                current.leader.as_ref().is_some_and(|leader| leader.id != dead)
            };
            let began = tokio::time::Instant::now();
            within(cluster.node(asked).shared.leader().wait_for(is_another)).await;
            let silence = began.elapsed();
            assert!(silence < Duration::from_secs(4), "seed {seed}: {silence:?} without a leader");
            let name = format!("meanwhile-{round}");
            last = last.max(cluster.create(asked, &name).await);
            names.push(name);
            cluster.boot(dead).await;
            for id in ids() {
                cluster.check(id, last, &names).await;
            }
        }
        assert_eq!(*cluster.net.snapshot_parts.lock().unwrap(), 0);
        // Everybody is known by directory in the end; a voter asks for that once a second.
        let node = cluster.node(NodeId(2));
        let is_known = |voter: &Voter| voter.key.directory_id != Uuid::ZERO;
        within(async {
            while !node.machine().voters().iter().all(is_known) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await;
        drop(node);
        for id in ids() {
            cluster.kill(id);
        }
        for id in ids() {
            cluster.boot(id).await;
        }
        let last = cluster.create(NodeId(3), "after-all").await;
        for id in ids() {
            cluster.check(id, last, &names).await;
        }
        cluster.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_that_was_away_catches_up_by_a_snapshot() {
    let cluster = Cluster::start(7, 4_000).await;
    begin(&cluster).await;
    let mut names = vec!["orders".to_owned()];
    cluster.create(NodeId(1), "orders").await;
    let leader = cluster.leader(NodeId(1)).await;
    let away = ids().find(|id| *id != leader).unwrap();
    let end = cluster.node(away).log_end_offset();
    cluster.kill(away);
    let node = cluster.node(leader);
    let mut ms = 0;
    while node.machine().log_start() <= end {
        within(retain(&node, "orders", ms)).await.unwrap();
        ms += 1;
        assert!(ms < 2_000, "the log is not cut");
    }
    cluster.boot(away).await;
    names.push("more".to_owned());
    let last = cluster.create(leader, "more").await;
    cluster.check(away, last, &names).await;
    assert!(*cluster.net.snapshot_parts.lock().unwrap() > 0);
    assert_eq!(cluster.node(away).image().to_records(), node.image().to_records());
    // It starts from it, too.
    cluster.kill(away);
    cluster.boot(away).await;
    let last = cluster.create(away, "last").await;
    cluster.check(away, last, &names).await;
    drop(node);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_cut_off_answers_that_it_does_not_know() {
    let cluster = Cluster::start(3, 1 << 20).await;
    begin(&cluster).await;
    let old = cluster.leader(NodeId(1)).await;
    let node = cluster.node(old);
    cluster.net.cut.lock().unwrap().insert(old);
    let topics = vec![NewTopic::new("unknown", 1, 1)];
    let create = CreateTopics { topics, validate_only: false };
    let error = within(node.submit(create)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::RequestTimedOut, "{error}");
    // Nobody leads here any more: commands wait for a leader, and are refused at last.
    let topics = vec![NewTopic::new("refused", 1, 1)];
    let create = CreateTopics { topics, validate_only: false };
    let error = within(node.submit(create)).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::NotController, "{error}");
    let other = ids().find(|id| *id != old).unwrap();
    let last = cluster.create(other, "known").await;
    cluster.net.cut.lock().unwrap().clear();
    cluster.check(old, last, &["known".to_owned()]).await;
    assert_eq!(node.image().to_records(), cluster.node(other).image().to_records());
    assert!(node.image().topic("refused").is_none());
    drop(node);
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn subscribers_of_every_node_see_every_change_in_order() {
    let cluster = Cluster::start(5, 1 << 20).await;
    begin(&cluster).await;
    let mut subscribed: Vec<_> = ids().map(|id| (id, cluster.node(id).subscribe())).collect();
    let mut last = Offset::ZERO;
    for count in 0..10 {
        last = cluster.create(NodeId(1 + count % NODES), &format!("topic-{count}")).await;
    }
    for (id, (image, updates)) in &mut subscribed {
        let mut names = Vec::new();
        while image.offset < last {
            let update = within(updates.recv()).await.unwrap();
            assert_eq!(update.delta.base(), &**image, "QUORUM-3 on node {id}");
            names.extend(update.delta.changed_topics().map(|topic| topic.name.to_string()));
            *image = update.image;
        }
        let expected: Vec<_> = (0..10).map(|count| format!("topic-{count}")).collect();
        assert_eq!(names, expected, "node {id}");
    }
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn the_leader_describes_everybody_and_the_others_who_leads() {
    let cluster = Cluster::start(11, 1 << 20).await;
    begin(&cluster).await;
    let last = cluster.create(NodeId(1), "topic").await;
    let leader = cluster.leader(NodeId(1)).await;
    let env = cluster.machines[&leader].env();
    let away = ids().find(|id| *id != leader).unwrap();
    cluster.kill(away);
    let killed = env.clock.now();
    // Less than a session: nobody sends heartbeats here.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let more = cluster.create(leader, "more").await;
    assert!(more > last);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = env.clock.now();
    let status = cluster.node(leader).status(&*env.clock, leader);
    assert_eq!((status.leader, status.high_watermark), (leader, more.next()));
    assert!(status.observers.is_empty());
    assert_eq!(
        status.voters.iter().map(|voter| voter.id).collect::<Vec<_>>(),
        ids().collect::<Vec<_>>()
    );
    for voter in &status.voters {
        let id = voter.id;
        assert_eq!(voter.directory_id, Uuid([u8::try_from(id.0).unwrap(); 16]), "node {id}");
        let is_away = id == away;
        assert_eq!(voter.log_end_offset == more.next(), !is_away, "{voter:?}");
        let oldest = if is_away { killed.0 - 1_000 } else { now.0 - 500 };
        let newest = if is_away { killed.0 + 10 } else { now.0 };
        for time in [voter.last_fetch, voter.last_caught_up] {
            assert!((oldest..=newest).contains(&time.0), "{voter:?} at {now}, killed at {killed}");
        }
    }
    assert!(status.endpoints.iter().all(|(id, endpoints)| *endpoints == voter(*id).endpoints));
    let other = ids().find(|id| *id != leader && *id != away).unwrap();
    let status = cluster.node(other).status(&*env.clock, other);
    assert_eq!((status.leader, status.voters.len()), (leader, 3));
    assert!(status.voters.iter().all(|voter| voter.log_end_offset == Offset::UNKNOWN));
    cluster.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_answers_first_and_hands_over() {
    let cluster = Cluster::start(13, 1 << 20).await;
    begin(&cluster).await;
    let leader = cluster.leader(NodeId(1)).await;
    let other = ids().find(|id| *id != leader).unwrap();
    let topics = vec![NewTopic::new("in-time", 1, 1)];
    let create = CreateTopics { topics, validate_only: false };
    let node = cluster.node(leader);
    let mut asked = Box::pin(node.submit(create));
    // It is sent, and not answered yet.
    assert!(futures::poll!(&mut asked).is_pending());
    let began = tokio::time::Instant::now();
    let stopped = node.shutdown();
    let in_time = within(asked).await.unwrap();
    within(stopped).await.unwrap();
    drop(node);
    cluster.net.nodes.lock().unwrap().remove(&leader);
    let last = cluster.create(other, "after").await;
    let silence = began.elapsed();
    assert!(silence < Duration::from_millis(800), "{silence:?}");
    assert!(last > in_time.offset);
    cluster.check(other, last, &["in-time".to_owned(), "after".to_owned()]).await;
    cluster.boot(leader).await;
    cluster.check(leader, last, &["in-time".to_owned(), "after".to_owned()]).await;
    cluster.stop().await;
}

impl Cluster {
    /// Asks whoever leads until it is done.
    async fn change(&self, asked: NodeId, change: VoterChange) {
        within(async {
            loop {
                let leader = self.leader(asked).await;
                let process = self.net.nodes.lock().unwrap().get(&leader).cloned();
                if let Some(process) = process {
                    match process.quorum.change_voters(change.clone(), false).await.unwrap() {
                        Ok(()) | Err(Refusal::DuplicateVoter | Refusal::VoterNotFound) => return,
                        Err(_not_yet) => {}
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
}

fn known(id: NodeId) -> Voter {
    let directory_id = Uuid([u8::try_from(id.0).unwrap(); 16]);
    Voter { key: ReplicaKey { id, directory_id }, ..voter(id) }
}

#[tokio::test(start_paused = true)]
async fn a_quorum_grows_from_one_node_and_survives_power_cuts_meanwhile() {
    for seed in 0..6 {
        let cluster = Cluster::off(seed, 4_000, true);
        cluster.boot(NodeId(1)).await;
        begin(&cluster).await;
        let mut names = vec!["first".to_owned()];
        let mut last = cluster.create(NodeId(1), "first").await;
        for id in [NodeId(2), NodeId(3)] {
            cluster.boot(id).await;
            cluster.check(id, last, &names).await;
            assert!(!cluster.node(id).voters().contains(&id), "an observer");
            let name = format!("by-observer-{id}");
            last = last.max(cluster.create(id, &name).await);
            names.push(name);
            cluster.change(id, VoterChange::Add(known(id))).await;
        }
        // Whoever is lost, with what its disk had not synced, is found again.
        for round in 0..3 {
            let lost = NodeId(1 + round);
            let process = cluster.net.nodes.lock().unwrap().remove(&lost).unwrap();
            process.lives.store(false, Ordering::Relaxed);
            cluster.machines[&lost].power_cut();
            let asked = ids().find(|id| *id != lost).unwrap();
            let name = format!("without-{lost}");
            let is_another = |current: &machine::LeaderAndEpoch| {
                current.leader.as_ref().is_some_and(|leader| leader.id != lost)
            };
            within(cluster.node(asked).shared.leader().wait_for(is_another)).await;
            last = last.max(cluster.create(asked, &name).await);
            names.push(name);
            cluster.boot(lost).await;
            for id in ids() {
                cluster.check(id, last, &names).await;
            }
        }
        // The leader is removed: another one leads, and it follows.
        let leader = cluster.leader(NodeId(2)).await;
        let asked = ids().find(|id| *id != leader).unwrap();
        cluster.change(asked, VoterChange::Remove(known(leader).key)).await;
        let is_another = |current: &machine::LeaderAndEpoch| {
            current.leader.as_ref().is_some_and(|new| new.id != leader)
        };
        within(cluster.node(leader).shared.leader().wait_for(is_another)).await;
        last = last.max(cluster.create(leader, "at-last").await);
        names.push("at-last".to_owned());
        for id in ids() {
            cluster.check(id, last, &names).await;
            assert_eq!(cluster.node(id).voters().len(), 2, "seed {seed}, node {id}");
        }
        cluster.stop().await;
    }
}
