//! The nodes of a cluster, each on a machine of its own.

use std::cell::Cell;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::future::join_all;
use ottla::env::sim::{SimDisk, SimRandom, SimRun};
use tokio::time::Instant;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

use crate::broker::clients::Promise;
use crate::broker::node::{Node, options};

const MIN_IN_SYNC: usize = 2;

/// See the module.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Node>,
    /// Whether what was acknowledged survives the loss of power.
    pub(crate) by_fsync: bool,
    /// Where the tier is that they share.
    pub(crate) tier: Option<Arc<SimDisk>>,
}

impl Cluster {
    /// One whose nodes do not run yet.
    pub(crate) fn new(run: &SimRun, size: u8) -> Self {
        let by_fsync = SimRandom::stream(run.seed, "durability").one_in(2);
        let voters: Vec<String> = (1..=size).map(|id| format!("{id}@{}", address(id))).collect();
        let voters = voters.join(",");
        let node = |id: u8| {
            let options = options(&address(id))
                .with("node.id", id.to_string())
                .with("controller.quorum.voters", voters.clone())
                .with("durability", if by_fsync { "fsync" } else { "auto" })
                .with("default.replication.factor", "3")
                .with("offsets.topic.replication.factor", "3")
                .with("transaction.state.log.replication.factor", "3")
                .with("min.insync.replicas", MIN_IN_SYNC.to_string())
                // Each replica is compacted when its broker likes: they are equal only before.
                .with("log.cleaner.enable", "false")
                .with("replica.lag.time.max.ms", "3000")
                .with("replica.high.watermark.checkpoint.interval.ms", "700");
            let name = format!("node{id}");
            Node::new(run, &name, run.machine(&name, ip(id)), options)
        };
        Self { nodes: (1..=size).map(node).collect(), by_fsync, tier: None }
    }

    /// Gives the nodes, which do not run yet, a tier that they share.
    pub(crate) fn give_tier(&mut self, run: &SimRun) {
        let disk = run.machine("store", ip(99)).disk;
        for node in &mut self.nodes {
            node.give_tier(&disk);
        }
        self.tier = Some(disk);
    }

    pub(crate) fn servers(&self) -> Vec<String> {
        (1..=self.nodes.len()).map(|id| address(id as u8)).collect()
    }

    /// What is promised of a record that is acknowledged.
    pub(crate) fn promise(&self) -> Promise {
        let disks = self.nodes.iter().map(|node| Arc::clone(&node.machine.disk)).collect();
        // What is in the tier may be gone from the disks by the time that it is acknowledged.
        let copies = if self.tier.is_some() { 0 } else { MIN_IN_SYNC };
        Promise { disks, copies, synced: self.by_fsync }
    }

    /// Starts all nodes at the same time: none of them can be there without a majority.
    pub(crate) async fn boot_all(&mut self) {
        join_all(self.nodes.iter_mut().map(Node::boot)).await;
    }

    /// Stops all nodes in order, at the same time.
    pub(crate) async fn stop_all(&mut self) {
        join_all(self.nodes.iter_mut().map(Node::stop)).await;
    }
}

pub(crate) fn ip(id: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, id))
}

pub(crate) fn address(id: u8) -> String {
    format!("{}:9092", ip(id))
}

thread_local! {
    static BEGAN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The log of the nodes has the time since then.
pub(crate) fn tell_time_since(began: Instant) {
    BEGAN.set(Some(began));
}

struct SimTime;

impl FormatTime for SimTime {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        let ms = BEGAN.get().map_or(0, |began| began.elapsed().as_millis());
        write!(writer, "{ms}")
    }
}

/// Prints what the nodes log, as `OTTLA_LOG` asks.
pub(crate) fn log() {
    if let Ok(filter) = tracing_subscriber::EnvFilter::try_from_env("OTTLA_LOG") {
        let logging = tracing_subscriber::fmt().with_env_filter(filter).with_timer(SimTime);
        logging.with_ansi(false).with_writer(std::io::stderr).init();
    }
}
