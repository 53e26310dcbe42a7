//! The tier of the partitions that are led here: closed segments are uploaded, verified, and named by a manifest, and
//! only then may the log delete them.
//!
//! ```text
//! partitions ─► driver of each ─► machine/tier: what next? ─► upload: log ─► file ─► compared ─► store ─► read back
//!                     ▲                                       manifest: the next version, created only if absent
//!                     └────────────── how it went ◀───────────┘
//! ```
//!
//! [`crate::machine::tier`] decides, [`crate::tier`] makes files, [`crate::store`] keeps them. `tables` has the Delta tables of
//! topics follow the manifests.
//!
//! # Invariants
//!
//! - `TIERING-1` Readers know a manifest before the log may delete what it has (`TIER-6`).
//! - `TIERING-2` Only what is durable in the log is uploaded: a power cut must not leave a log that ends before its tier. The
//!   driver has closed segments synced, which with `durability=os`, or with copies on other nodes, nobody else may ever do.
//! - `TIERING-3` A tier that lacks what only it can have is left alone, and nothing is deleted for its sake.
//! - `TIERING-4` Nobody who produces waits for a store.

mod beginning;
mod driver;
mod objects;
mod partition;
mod purge;
mod reading;
#[cfg(test)]
mod reading_tests;
mod shelf;
mod table_log;
mod tables;
mod upload;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::driver::{Driver, Drivers};
use super::blocking::blocking;
use super::parking::PartitionKey;
use super::partition::Partition;
use super::state::BrokerState;
use crate::config::TierConfig;
use crate::env::Env;
use crate::error::{Error, Result};
use crate::store::{CloudStore, FolderStore, Location, Store};
use crate::types::{TopicId, TopicPartition};

pub(super) use beginning::find_beginning;
pub(super) use partition::TieredPartition;
pub(super) use reading::{ColdFiles, ColdRead, ColdWant, TierReader};

/// Where files are made, in the data directory.
const FOLDER: &str = ".tier";
/// How often it is seen whether there are partitions without a driver.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How often a store that did not answer is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(10);

/// Opens the store that the settings name.
///
/// # Errors
///
/// A place that is none, or cannot be used.
pub(super) async fn open(env: &Env, config: &TierConfig) -> Result<Option<Arc<dyn Store>>> {
    let Some(url) = &config.url else { return Ok(None) };
    let own = env.clone();
    Ok(Some(match Location::parse(url)? {
        Location::Folder(root) => {
            Arc::new(blocking(&env.threads, move || FolderStore::open(&root, own)).await?)
        }
        Location::Cloud(url) => Arc::new(CloudStore::open(&url, own)?),
    }))
}

/// Fails if the tier is that of another cluster.
///
/// # Errors
///
/// As the name says. A store that does not answer is asked again, later.
pub(super) async fn check(state: &BrokerState) -> Result<()> {
    let Some(store) = state.partitions().store() else { return Ok(()) };
    match objects::check_cluster(&**store, state.cluster_id().unwrap_or_default()).await {
        Err(error @ Error::InvalidArgument(_)) => Err(error),
        Err(error) => {
            tracing::warn!(error = %error.chain(), "the tier cannot be used now");
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Starts to tier.
pub(super) fn start(state: &Arc<BrokerState>, tasks: &TaskTracker, stop: &CancellationToken) {
    if let Some(store) = state.partitions().store() {
        let (state, store, stop) = (Arc::clone(state), Arc::clone(store), stop.clone());
        tasks.spawn(async move {
            if prepare(&state, &*store, &stop).await {
                let tables = tables::keep(&state, &store, &stop);
                tokio::join!(manage(&state, &store, &stop), tables);
            }
        });
    }
}

/// Waits for the store, and empties the folder where files are made; false when the broker stops, or the tier is not ours.
async fn prepare(state: &Arc<BrokerState>, store: &dyn Store, stop: &CancellationToken) -> bool {
    let folder = state.partitions().storage().path().join(FOLDER);
    let own = Arc::clone(state);
    let emptied = blocking(&state.env().threads, move || empty(own.env(), &folder)).await;
    if let Err(error) = emptied {
        tracing::warn!(error = %error.chain(), "what was left of unfinished files is not removed");
    }
    while !stop.is_cancelled() {
        match objects::check_cluster(store, state.cluster_id().unwrap_or_default()).await {
            Ok(()) => return true,
            Err(error) => {
                let why = error.chain();
                tracing::error!(error = why, "nothing is tiered");
                for tier in state.partitions().all().iter().filter_map(|one| one.tier()) {
                    tier.set_failure(Some(&why));
                }
            }
        }
        rest(RETRY_INTERVAL, stop).await;
    }
    false
}

fn empty(env: &Env, folder: &Path) -> Result<()> {
    match env.disk.remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", folder, error))
        }
        _ => Ok(()),
    }
}

async fn rest(duration: Duration, stop: &CancellationToken) {
    tokio::select! {
        biased;
        () = stop.cancelled() => {}
        () = tokio::time::sleep(duration) => {}
    }
}

/// Gives each partition with a tier a driver, and has the files of deleted topics removed.
async fn manage(state: &Arc<BrokerState>, store: &Arc<dyn Store>, stop: &CancellationToken) {
    let shared = Arc::new(Drivers {
        state: Arc::clone(state),
        uploads: Semaphore::new(1),
        folder: state.partitions().storage().path().join(FOLDER),
    });
    let mut running: JoinSet<(PartitionKey, TopicPartition)> = JoinSet::new();
    let mut driven: BTreeMap<PartitionKey, Arc<TieredPartition>> = BTreeMap::new();
    let (mut purge_is_due, mut purge_failures) = (true, 0_u32);
    let mut ended: BTreeMap<TopicId, Arc<str>> = BTreeMap::new();
    while !stop.is_cancelled() {
        for partition in state.partitions().all() {
            let Some(tier) = partition.tier() else { continue };
            if driven.contains_key(&partition.key()) || tier.is_clear() {
                continue;
            }
            driven.insert(partition.key(), Arc::clone(&tier));
            running.spawn(drive(Arc::clone(&shared), partition, tier, stop.clone()));
        }
        if purge_is_due {
            let busy: BTreeSet<_> = driven.keys().map(|(topic, _)| *topic).collect();
            match purge::purge(state, store, &busy, &ended).await {
                Ok(()) => {
                    (purge_is_due, purge_failures) = (false, 0);
                    ended.retain(|topic, _| busy.contains(topic));
                }
                Err(error) => {
                    if purge_failures.is_power_of_two() || purge_failures == 0 {
                        tracing::warn!(error = %error.chain(), "the files of deleted topics stay in the tier for now");
                    }
                    purge_failures += 1;
                }
            }
        }
        let pause = if purge_failures > 0 { RETRY_INTERVAL } else { LOOK_INTERVAL };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            Some(gone) = running.join_next(), if !running.is_empty() => {
                if let Ok((key, name)) = gone {
                    driven.remove(&key);
                    ended.insert(key.0, Arc::clone(&name.topic));
                    purge_is_due = true;
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
    while running.join_next().await.is_some() {}
}

async fn drive(
    shared: Arc<Drivers>,
    partition: Arc<Partition>,
    tier: Arc<TieredPartition>,
    stop: CancellationToken,
) -> (PartitionKey, TopicPartition) {
    let (key, name) = (partition.key(), partition.name().clone());
    let driver = Driver::new(shared, partition, Arc::clone(&tier), stop.clone());
    if AssertUnwindSafe(driver.run()).catch_unwind().await.is_err() {
        tracing::error!(partition = %name, "tiering panicked; nothing is tiered before a restart");
        tier.set_failure(Some("tiering panicked; the broker has to be restarted"));
        stop.cancelled().await;
    }
    (key, name)
}
