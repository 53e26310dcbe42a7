//! Brokers that stand still: their connections are open, and nothing comes.
//!
//! Why: a broker whose process has ended refuses connections, so its leaders are looked for elsewhere at once. One that
//! is stopped, or cut off, would be waited for until `request.timeout.ms` has passed, long after the cluster has given its
//! partitions to others. So after a second without an answer the others are asked:
//!
//! - **SIL-1** What anybody can answer is asked of one more broker for each second without an answer
//!   ([`Cluster::ask_any`]).
//! - **SIL-2** A connection is closed once another broker says that the silent one is not in the cluster any more
//!   ([`Cluster::unless_gone`]). Brokers that are fenced are not told to clients. Its requests are then repeated as after
//!   any connection that was lost.
//!
//! A broker that is only slow stays in the cluster, and is waited for.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::client::cluster::{Cluster, Lane};
use crate::client::route::Route;
use crate::error::Result;
use crate::types::NodeId;

/// A broker that is silent for this long may not be there any more.
const PATIENCE: Duration = Duration::from_secs(1);

impl Cluster {
    /// Asks any broker: a known one, another if that fails or is silent, and a bootstrap server (KIP-899) if
    /// all of them fail.
    pub(crate) async fn ask_any<T, F>(&self, ask: impl Fn(Arc<Route>) -> F) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let asked = async |node: NodeId| ask(self.route(node, Lane::Control).await?).await;
        let mut others = self.known_nodes().into_iter();
        let mut running = FuturesUnordered::new();
        running.extend(others.next().map(&asked));
        while !running.is_empty() {
            match tokio::time::timeout(PATIENCE, running.next()).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(error))) => {
                    tracing::debug!(error = %error.chain(), "asking another broker");
                }
                Ok(None) | Err(_) => {}
            }
            running.extend(others.next().map(&asked));
        }
        asked(NodeId::NONE).await
    }

    /// Waits for an answer of a broker, which by itself takes `delay` at most. If it takes longer, others are asked
    /// whether the broker is still in the cluster; if it is not, its connection is closed, and the wait fails.
    pub(crate) async fn unless_gone<T>(
        &self,
        (node, route): (NodeId, &Route),
        delay: Duration,
        answer: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut answer = pin!(answer);
        let mut patience = delay.saturating_add(PATIENCE);
        loop {
            if let Ok(answer) = tokio::time::timeout(patience, &mut answer).await {
                return answer;
            }
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                is_gone = self.is_gone(node) => if is_gone {
                    route.give_up();
                },
            }
            patience = PATIENCE;
        }
    }

    /// Whether another broker says that this one is not in the cluster.
    async fn is_gone(&self, node: NodeId) -> bool {
        for other in self.known_nodes().into_iter().filter(|&other| other != node) {
            let asking = async {
                let route = self.route(other, Lane::Control).await?;
                self.request_metadata(&route, Some(&[]), false).await
            };
            match tokio::time::timeout(PATIENCE, asking).await {
                Ok(Ok(answer)) => {
                    return answer.brokers.iter().all(|broker| broker.node_id != node.0);
                }
                Ok(Err(error)) => tracing::debug!(%other, error = %error.chain(), "not asked"),
                Err(_) => tracing::debug!(%other, "it is silent, too"),
            }
        }
        false
    }
}
