//! That a client reads what it has committed.
//!
//! A commit is answered as soon as it is decided; its markers reach the partitions afterwards, and until then readers of
//! what is committed stop in front of the transaction. That is Kafka's protocol, and for other processes it stays so.
//! But a program that commits and then reads to the end must find its own records. So whoever resolves such an end
//! first waits for the markers of the transactions that the same client has committed. It costs one request for each
//! transactional id that has committed since, and none without transactions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::client::admin::describe_transaction;
use crate::client::cluster::Cluster;
use crate::client::coordinator::Coordinator;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::backoff::Backoff;

/// How long to wait before asking again. Markers take a millisecond or two where everybody is well.
const WAITS: Backoff = Backoff { initial_ms: 2, max_ms: 100 };

/// The transactional ids that have committed, with the number of the last commit. It is bounded by the producers of
/// the client.
#[derive(Debug, Default)]
pub(in crate::client) struct Unmarked(Mutex<BTreeMap<Arc<str>, u64>>);

impl Unmarked {
    fn ids(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A transaction was committed.
    pub(super) fn note(&self, id: &str) {
        let mut ids = self.ids();
        if let Some(number) = ids.get_mut(id) {
            *number += 1;
        } else {
            ids.insert(Arc::from(id), 0);
        }
    }

    /// The markers of a commit are written, unless there was another one meanwhile.
    fn forget(&self, id: &str, number: u64) {
        let mut ids = self.ids();
        if ids.get(id) == Some(&number) {
            ids.remove(id);
        }
    }
}

/// Waits until records in some topics that this client has committed are visible to readers of what is committed.
///
/// # Errors
///
/// They are not within `default.api.timeout.ms`: a coordinator or the leader of a partition cannot be reached.
pub(in crate::client) async fn own_commits(
    cluster: &Arc<Cluster>,
    topics: &BTreeSet<&str>,
) -> Result<()> {
    let unmarked: Vec<(Arc<str>, u64)> =
        cluster.unmarked.ids().iter().map(|(id, number)| (Arc::clone(id), *number)).collect();
    let deadline = Instant::now() + cluster.config.api_timeout;
    for (id, number) in unmarked {
        let coordinator = Coordinator::of_transactions(Arc::clone(cluster), &*id);
        if is_marked(&coordinator, topics, deadline).await? {
            cluster.unmarked.forget(&id, number);
        }
    }
    Ok(())
}

/// Waits for the markers in some topics; says whether those elsewhere are written, too.
async fn is_marked(
    coordinator: &Coordinator,
    topics: &BTreeSet<&str>,
    deadline: Instant,
) -> Result<bool> {
    let cluster = &coordinator.cluster;
    let mut last = None;
    let mut failures = 0;
    loop {
        match tokio::time::timeout_at(deadline, describe_transaction(coordinator)).await {
            Ok(Ok(found)) if !found.state.starts_with("Prepare") => return Ok(true),
            Ok(Ok(found)) if !found.partitions.iter().any(|one| topics.contains(&*one.topic)) => {
                return Ok(false);
            }
            Ok(Ok(_)) => {}
            // It has expired; or the cluster cannot tell, as Apache Kafka before 3.0.
            Ok(Err(error)) if is_over(error.code()) => return Ok(true),
            Ok(Err(error)) if error.retriable() => last = Some(Arc::new(error)),
            Ok(Err(error)) => return Err(error),
            Err(_) => {
                let what = format!(
                    "waiting until what transactional id {} has committed can be read",
                    coordinator.id
                );
                let error = Error::timeout(what, cluster.config.api_timeout);
                return Err(error.because(last.or_else(|| cluster.obstacle())));
            }
        }
        failures += 1;
        let wait = Duration::from_millis(WAITS.delay_ms(failures, cluster.env.random.u64()));
        tokio::time::sleep_until(deadline.min(Instant::now() + wait)).await;
    }
}

const fn is_over(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::TransactionalIdNotFound | ErrorCode::UnsupportedVersion)
}
