//! Makes true on this broker, one after the other, the changes that are committed.
//!
//! Why: the partitions, the coordinators and the answers to commands all wait for this one task. It must neither end
//! nor stand still because of a single change.
//!
//! Invariants:
//! - `PUBLISH-1` a change that could not be applied (something panicked) is tried again, later and later; with it come
//!   the changes that are committed meanwhile.
//! - `PUBLISH-2` whoever waits for a change is told after [`TRIES`] failures that it is committed but not in effect
//!   here; it is not left waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::blocking::blocking;
use super::state::BrokerState;
use crate::machine::metadata::MetadataUpdate;

/// After how many failures nobody is left waiting for a change.
const TRIES: u32 = 3;
/// How long to wait after the first failure; twice as long after each further one.
const BACKOFF: Duration = Duration::from_millis(100);
/// The longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Applies updates until there are no more.
pub(super) async fn publish(
    state: Arc<BrokerState>,
    updates: mpsc::Receiver<MetadataUpdate>,
    stop: CancellationToken,
) {
    publish_by(&state, updates, &stop, BrokerState::follow).await;
}

async fn publish_by(
    state: &Arc<BrokerState>,
    mut updates: mpsc::Receiver<MetadataUpdate>,
    stop: &CancellationToken,
    apply: impl Fn(&BrokerState, &MetadataUpdate) + Clone + Send + 'static,
) {
    loop {
        let update = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            update = updates.recv() => update,
        };
        let Some(mut update) = update else { return };
        let mut failures = 0;
        while !is_applied(state, update.clone(), apply.clone()).await {
            failures += 1;
            if failures >= TRIES {
                state.give_up(update.image.offset);
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = tokio::time::sleep(backoff(failures)) => {}
            }
            // A later image contains this change; `follow` sees that steps are missing.
            while let Ok(later) = updates.try_recv() {
                update = later;
            }
        }
    }
}

fn backoff(failures: u32) -> Duration {
    BACKOFF.saturating_mul(2_u32.saturating_pow(failures - 1)).min(BACKOFF_MAX)
}

async fn is_applied(
    state: &Arc<BrokerState>,
    update: MetadataUpdate,
    apply: impl FnOnce(&BrokerState, &MetadataUpdate) + Send + 'static,
) -> bool {
    let (applying, offset) = (Arc::clone(state), update.image.offset);
    let applied = blocking(&state.env().threads, move || {
        apply(&applying, &update);
        Ok(())
    });
    match applied.await {
        Ok(()) => true,
        Err(error) => {
            let error = error.chain();
            tracing::error!(%offset, error, "a metadata change could not be applied; trying again");
            false
        }
    }
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
