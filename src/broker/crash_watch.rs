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

use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::membership;
use super::state::BrokerState;
use crate::config::QuorumVoter;
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

/// Watches one node until the broker stops.
pub(super) async fn watch(state: Arc<BrokerState>, voter: QuorumVoter, stop: CancellationToken) {
    let watching = async {
        loop {
            watch_once(&state, &voter).await;
        }
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

async fn watch_once(state: &BrokerState, voter: &QuorumVoter) {
    let (net, address) = (&state.env().net, voter.address());
    let client_id = format!("ottla-node-{}-watch", state.node_id());
    let Ok(link) = Link::open(net, &address, &client_id).await else {
        tokio::time::sleep(RETRY).await;
        return;
    };
    link.closed().await;
    let node = NodeId(voter.id);
    let epoch = state.image().broker(node).map(|broker| broker.epoch);
    // `CRASH-3`
    state.doubt(node, true);
    if is_refused(net, &address).await {
        report(state, voter, epoch).await;
    }
    state.doubt(node, false);
}

/// Whether nobody listens there any more.
async fn is_refused(net: &Net, address: &str) -> bool {
    let Ok(addresses) = net.lookup(address).await else { return false };
    for _ in 0..PROBES {
        match tokio::time::timeout(PROBE_MAX, net.connect(&addresses)).await {
            Ok(Ok(_)) => return false,
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => return true,
            Ok(Err(_)) | Err(_) => tokio::time::sleep(PROBE_INTERVAL).await,
        }
    }
    false
}

async fn report(state: &BrokerState, voter: &QuorumVoter, epoch: Option<BrokerEpoch>) {
    tracing::warn!(node = voter.id, "the process of a node has ended");
    state.metadata().crashed(NodeId(voter.id));
    let Some(epoch) = epoch else { return };
    // Until there is a controller again; all nodes report it, and the first report counts.
    let config = state.config();
    let buried =
        membership::ask(state.metadata(), &config, BuryBroker { id: NodeId(voter.id), epoch });
    match tokio::time::timeout(membership::session(&config), buried).await {
        Ok(Ok(answer)) => {
            // Others lead here, too, when this is in effect.
            let applied = state.published(answer.offset);
            drop(tokio::time::timeout(membership::session(&config), applied).await);
            if let Err(refusal) = answer.reply {
                tracing::debug!(node = voter.id, reason = refusal.message, "it is back already");
            }
        }
        Ok(Err(error)) => {
            tracing::debug!(node = voter.id, error = %error.chain(), "the controller was not told");
        }
        Err(_) => tracing::debug!(node = voter.id, "there is no controller that could be told"),
    }
}
