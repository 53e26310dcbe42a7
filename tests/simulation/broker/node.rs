//! A broker under test: one machine, whose process comes and goes.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ottla::broker::{Broker, BrokerOptions};
use ottla::env::sim::{SimDisk, SimMachine, SimRun};
use ottla::env::{Disk, Env};
use ottla::protocol::Service;
use ottla::types::NodeId;
use tokio_util::sync::CancellationToken;

use super::tiered;
use crate::cluster::tiered::WithShared;

pub(crate) const BROKER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
pub(crate) const ADDRESS: &str = "10.0.0.1:9092";

/// How long the node may take until it serves.
const START_MAX: Duration = Duration::from_secs(120);

/// The process of the broker, for the clients that live in it.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) env: Env,
    pub(crate) service: Arc<dyn Service>,
    pub(crate) node: NodeId,
    /// The process is gone, and everything in it.
    pub(crate) ended: CancellationToken,
}

/// The process that serves now. Clients look at it from time to time: those who wait for a channel to change
/// are woken in an order that tokio draws.
pub(crate) type Serving = Arc<Mutex<Option<Process>>>;

/// See the module.
pub(crate) struct Node {
    run: SimRun,
    name: String,
    options: BrokerOptions,
    pub(crate) machine: SimMachine,
    broker: Option<Broker>,
    pub(crate) serving: Serving,
    /// The disk of a tier that it shares with other nodes.
    shared: Option<Arc<SimDisk>>,
}

/// The settings of a broker whose groups, segments and checkpoints do something within a few seconds.
pub(crate) fn options(address: &str) -> BrokerOptions {
    let options = BrokerOptions {
        listeners: Some(format!("PLAINTEXT://{address}")),
        ..BrokerOptions::in_directory("/data")
    };
    options
        .with("offsets.topic.num.partitions", "1")
        .with("group.initial.rebalance.delay.ms", "300")
        .with("group.min.session.timeout.ms", "2000")
        .with("group.consumer.min.session.timeout.ms", "2000")
        .with("group.consumer.session.timeout.ms", "2000")
        .with("group.consumer.min.heartbeat.interval.ms", "300")
        .with("group.consumer.heartbeat.interval.ms", "300")
        .with("transaction.state.log.num.partitions", "2")
        .with("transaction.abort.timed.out.transaction.cleanup.interval.ms", "500")
        .with("log.roll.ms", "2000")
        .with("log.retention.check.interval.ms", "1500")
        .with("log.flush.offset.checkpoint.interval.ms", "700")
}

impl Node {
    /// One that is alone, and runs.
    pub(crate) async fn start(run: &SimRun) -> Self {
        Self::start_with(run, options(ADDRESS)).await
    }

    /// The same, with other settings.
    pub(crate) async fn start_with(run: &SimRun, options: BrokerOptions) -> Self {
        let machine = run.machine("broker", BROKER);
        let mut node = Self::new(run, "node", machine, options);
        node.boot().await;
        node
    }

    /// One that does not run yet.
    pub(crate) fn new(
        run: &SimRun,
        name: &str,
        machine: SimMachine,
        options: BrokerOptions,
    ) -> Self {
        let (run, name, serving) = (run.clone(), name.to_owned(), Serving::default());
        Self { run, name, options, machine, broker: None, serving, shared: None }
    }

    /// Gives it a tier that it shares with other nodes, before it runs.
    pub(crate) fn give_tier(&mut self, disk: &Arc<SimDisk>) {
        self.options = tiered::options(self.options.clone());
        self.shared = Some(Arc::clone(disk));
    }

    fn env(&self) -> Env {
        let env = self.machine.env();
        match &self.shared {
            None => env,
            Some(shared) => {
                let own = Arc::clone(&env.disk);
                let shared: Arc<dyn Disk> = Arc::<SimDisk>::clone(shared);
                Env { disk: Arc::new(WithShared { own, shared }), ..env }
            }
        }
    }

    fn note(&self, what: &str) {
        self.run.trace.note(|| format!("{} {what}", self.name));
    }

    /// Starts the process, as often as it takes: a fault may hit a start.
    pub(crate) async fn boot(&mut self) {
        let deadline = tokio::time::Instant::now() + START_MAX;
        loop {
            self.note("boots");
            let env = self.env();
            match Broker::start_on(env.clone(), self.options.clone()).await {
                Ok(broker) => {
                    self.note("serves");
                    let (service, node) = (broker.service(), broker.node_id());
                    let process = Process { env, service, node, ended: CancellationToken::new() };
                    *self.serving.lock().unwrap() = Some(process);
                    self.broker = Some(broker);
                    return;
                }
                Err(error) => {
                    self.note(&format!("failed: {}", error.chain()));
                    assert!(tokio::time::Instant::now() < deadline, "{}", error.chain());
                    if self.machine.disk.has_crashed() {
                        self.machine.power_cut();
                    } else {
                        self.machine.kill();
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    /// Cuts the power, and has it back after a while.
    pub(crate) async fn power_cut(&mut self, off: Duration) {
        self.note("loses power");
        self.machine.power_cut();
        self.end_process();
        tokio::time::sleep(off).await;
        self.boot().await;
    }

    /// Cuts the power in the middle of one of the next calls to the disk.
    pub(crate) async fn power_cut_within(&mut self, calls: u64, off: Duration) {
        self.machine.disk.crash_after(calls);
        for _ in 0..400 {
            if self.machine.disk.has_crashed() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.power_cut(off).await;
    }

    /// Ends the process, and starts it again after a while.
    pub(crate) async fn kill(&mut self, off: Duration) {
        self.note("is killed");
        self.machine.kill();
        self.end_process();
        tokio::time::sleep(off).await;
        self.boot().await;
    }

    /// Stops the process in order, and starts it again.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.boot().await;
    }

    /// Stops the process in order.
    pub(crate) async fn stop(&mut self) {
        self.note("stops");
        if let Some(broker) = self.broker.take() {
            // Faults may still be about.
            drop(broker.shutdown().await);
        }
        self.machine.kill();
        self.end_process();
    }

    /// Whoever was in the process is told, and does nothing any more.
    fn end_process(&mut self) {
        drop(self.broker.take());
        if let Some(process) = self.serving.lock().unwrap().take() {
            process.ended.cancel();
        }
    }
}
