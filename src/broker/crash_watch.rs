//! Watches the processes of the other nodes, and proves that one of them has ended.
//!
//! Why: silence proves nothing for a second or more, because a disk may stand still and a process may be starved. But the
//! end of a process shows at once: the operating system closes its connections, and refuses new ones. Whoever sees
//! both tells the quorum, which need not wait to elect another leader, and the controller, which need not wait for a
//! session to end. A machine that is lost, or a cable that is cut, is not seen here: then only silence tells.
//!
//! Invariants:
//! - `CRASH-1` a node is reported only if a connection to it has ended and a new one to the same address is refused.
//! - `CRASH-2` the report names the registration that was known while the connection stood, so that it says nothing of
//!   the next process of the node.
//! - `CRASH-3` from the end of the connection until it is known whether the node lives, and others lead if it does not,
//!   clients are told that its partitions have no leader: one that is sent to the dead once more may wait for a
//!   second before it asks again (librdkafka), while it asks often for a leader that is yet to be elected.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Link;
use super::membership;
use super::state::BrokerState;
use super::watched::Watched;
use crate::env::Net;
use crate::machine::controller::BuryBroker;
use crate::types::{BrokerEpoch, NodeId};

/// How long to wait before the next try to connect.
const RETRY: Duration = Duration::from_millis(250);
/// How often a new connection is tried, after one has ended, and for how long each time: while a process is taken
/// apart, connections may neither be accepted nor refused.
const PROBES: usize = 10;
const PROBE_MAX: Duration = Duration::from_millis(60);
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long a client may wait until it is known which of the nodes answer.
const LOOK_MAX: Duration = Duration::from_millis(20);
/// When a connection is given up on which a question was asked.
const ANSWER_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
enum Sight {
    /// There is a connection.
    Connected(Arc<Link>),
    /// The connection has just ended, and it is not known whether the node lives.
    Doubted,
    /// The process has ended, and it is not known whether others lead what it led.
    Dead,
    /// The process has ended, others lead, and no new process has been seen.
    Replaced,
}

/// What is known of the processes of the other nodes.
#[derive(Debug)]
pub(super) struct Sighted {
    nodes: Watched<BTreeMap<NodeId, Sight>>,
}

impl Default for Sighted {
    fn default() -> Self {
        Self { nodes: Watched::new(BTreeMap::new()) }
    }
}

impl Sighted {
    fn see(&self, node: NodeId, sight: Option<Sight>) {
        self.nodes.change(|nodes| {
            match sight {
                Some(sight) => nodes.insert(node, sight),
                None => nodes.remove(&node),
            };
        });
    }

    /// The nodes to which clients are not sent: it is not known whether they live, or who leads instead.
    pub(super) fn doubted(&self) -> BTreeSet<NodeId> {
        let nodes = self.nodes.get();
        let doubted =
            nodes.iter().filter(|(_, sight)| matches!(sight, Sight::Doubted | Sight::Dead));
        doubted.map(|(id, _)| *id).collect()
    }

    /// Returns once something is so of the nodes whose processes have ended, and of which no new one has been seen.
    pub(super) async fn ended_when(&self, is_so: impl Fn(&dyn Fn(NodeId) -> bool) -> bool) {
        let is_met = |nodes: &BTreeMap<NodeId, Sight>| {
            is_so(&|node| matches!(nodes.get(&node), Some(Sight::Dead | Sight::Replaced)))
        };
        self.nodes.wait_for(is_met).await;
    }

    /// Asks every node for a sign of life, for at most [`LOOK_MAX`]: a client that saw its leader die asks so soon
    /// that the end of the connection from here may not have been noticed yet. Silence is no reason to doubt.
    pub(super) async fn look(&self) {
        let links: Vec<(NodeId, Arc<Link>)> = self
            .nodes
            .get()
            .into_iter()
            .filter_map(|(id, sight)| match sight {
                Sight::Connected(link) => Some((id, link)),
                Sight::Doubted | Sight::Dead | Sight::Replaced => None,
            })
            .collect();
        let asking = links.iter().map(async |(id, link)| {
            let answer = tokio::time::timeout(LOOK_MAX, link.ping(ANSWER_MAX)).await;
            if matches!(answer, Ok(Err(_))) {
                let is_same = |sight: &Sight| {
                    matches!(sight, Sight::Connected(known) if Arc::ptr_eq(known, link))
                };
                self.nodes.change(|nodes| {
                    if nodes.get(id).is_some_and(is_same) {
                        nodes.insert(*id, Sight::Doubted);
                    }
                });
            }
        });
        futures::future::join_all(asking).await;
    }
}

/// Watches all other nodes of the cluster, as they come and go, until the broker stops.
pub(super) async fn watch_all(
    state: Arc<BrokerState>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let mut watched: BTreeMap<NodeId, (String, CancellationToken)> = BTreeMap::new();
    loop {
        let nodes = state.other_nodes();
        watched.retain(|node, (address, over)| {
            let stays = nodes.get(node) == Some(address);
            if !stays {
                over.cancel();
            }
            stays
        });
        for (node, address) in &nodes {
            watched.entry(*node).or_insert_with(|| {
                let over = stop.child_token();
                let one = watch(Arc::clone(&state), *node, address.clone(), over.clone());
                tasks.spawn(one);
                (address.clone(), over)
            });
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = state.published_when(|_| state.other_nodes() != nodes) => {}
        }
    }
}

/// Watches one node.
async fn watch(state: Arc<BrokerState>, node: NodeId, address: String, stop: CancellationToken) {
    let watching = async {
        loop {
            watch_once(&state, node, &address).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watching => {}
    }
    state.sighted().see(node, None);
}

async fn watch_once(state: &BrokerState, node: NodeId, address: &str) {
    let net = &state.env().net;
    let client_id = format!("ottla-node-{}-watch", state.node_id());
    let Ok(link) = Link::open(net, address, &client_id).await else {
        tokio::time::sleep(RETRY).await;
        return;
    };
    let link = Arc::new(link);
    state.sighted().see(node, Some(Sight::Connected(Arc::clone(&link))));
    link.closed().await;
    let epoch = state.image().broker(node).map(|broker| broker.epoch);
    // `CRASH-3`
    state.sighted().see(node, Some(Sight::Doubted));
    if !is_refused(net, address, &client_id).await {
        state.sighted().see(node, None);
        return;
    }
    // A node that leaves does not wait for this report: there may be nobody left who takes it.
    state.sighted().see(node, Some(Sight::Dead));
    report(state, node, epoch).await;
    state.sighted().see(node, Some(Sight::Replaced));
}

/// Whether nobody listens there any more.
async fn is_refused(net: &Net, address: &str, client_id: &str) -> bool {
    let Ok(addresses) = net.lookup(address).await else { return false };
    for _ in 0..PROBES {
        match tokio::time::timeout(PROBE_MAX, net.connect(&addresses)).await {
            // The socket of a process that is taken apart may take a connection for which nobody is there any more.
            Ok(Ok(_)) => {
                let answered = tokio::time::timeout(PROBE_MAX, Link::open(net, address, client_id));
                if matches!(answered.await, Ok(Ok(_))) {
                    return false;
                }
            }
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return true,
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
    false
}

async fn report(state: &BrokerState, node: NodeId, epoch: Option<BrokerEpoch>) {
    let image = state.image();
    if image.broker(node).is_none_or(|broker| broker.shutting_down || broker.fenced) {
        tracing::info!(%node, "the process of a node has ended, as it said");
    } else {
        tracing::warn!(%node, "the process of a node has ended");
    }
    state.metadata().crashed(node);
    let Some(epoch) = epoch else { return };
    // Until there is a controller again; all nodes report it, and the first report counts.
    let config = state.config();
    let buried = membership::ask(state, BuryBroker { id: node, epoch });
    match tokio::time::timeout(membership::session(&config), buried).await {
        Ok(Ok(answer)) => {
            // Others lead here, too, when this is in effect.
            let applied = state.published(answer.offset);
            drop(tokio::time::timeout(membership::session(&config), applied).await);
            if let Err(refusal) = answer.reply {
                tracing::debug!(%node, reason = refusal.message, "it is back already");
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(%node, error = %error.chain(), "the controller was not told");
        }
        Err(_) => tracing::debug!(%node, "there is no controller that could be told"),
    }
}
