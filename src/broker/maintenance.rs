//! Periodic work: retention, rolling by age, checkpoints, followers that lag, freeing unused memory.
//!
//! Each runs as a separate task, at the interval of its setting, and ends when the broker stops. Work
//! on a log is done on its log thread, between appends; a partition that fails does not hold up the
//! others.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::partition::Partition;
use super::partitions::lag_time_max;
use super::receive_buffers::ReceiveBuffers;
use super::state::BrokerState;
use crate::error::ErrorCode;

/// The shortest interval of a timer.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// How often files of deleted partitions and unused buffers are checked for removal.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// How often in a `replica.lag.time.max.ms` it is seen whether followers lag.
const LAG_CHECKS: u32 = 4;

/// Starts the timers.
pub(super) fn start(
    state: &Arc<BrokerState>,
    buffers: &ReceiveBuffers,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) {
    let config = state.config();
    let retention = interval(config.log_retention_check_interval_ms);
    let checkpoints = interval(
        i64::from(config.recovery_point_checkpoint_interval_ms)
            .min(i64::from(config.log_start_checkpoint_interval_ms))
            .min(config.high_watermark_checkpoint_interval_ms),
    );
    let (retained, stopped) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move {
        while sleep(retention, &stopped).await {
            for partition in retained.partitions().all() {
                clean(&retained, &partition).await;
            }
        }
    });
    let (swept, stopped) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move {
        while sleep(SWEEP_INTERVAL, &stopped).await {
            remove_doomed(&swept, &stopped).await;
        }
    });
    let flushes = interval(config.log_flush_scheduler_interval_ms).min(SWEEP_INTERVAL);
    let (flushed, stopped) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move {
        while sleep(flushes, &stopped).await {
            let now = flushed.env().clock.monotonic();
            for partition in flushed.partitions().all() {
                if partition.is_flush_due(now) {
                    flushed.log_threads().sync(&partition);
                }
            }
        }
    });
    let lags = (lag_time_max(&config) / LAG_CHECKS).max(INTERVAL_MIN);
    let (watched, stopped) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move {
        while sleep(lags, &stopped).await {
            let now = watched.env().clock.monotonic();
            for partition in watched.partitions().all() {
                partition.tick(now);
            }
        }
    });
    let (buffers, stopped) = (buffers.clone(), stop.clone());
    tasks.spawn(async move {
        while sleep(SWEEP_INTERVAL, &stopped).await {
            buffers.sweep();
        }
    });
    let (checkpointed, stopped) = (Arc::clone(state), stop.clone());
    tasks.spawn(async move {
        while sleep(checkpoints, &stopped).await {
            checkpoint(&checkpointed).await;
        }
    });
}

fn interval(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0)).max(INTERVAL_MIN)
}

/// Sleeps; false when the broker stops.
async fn sleep(duration: Duration, stop: &CancellationToken) -> bool {
    tokio::select! {
        biased;
        () = stop.cancelled() => false,
        () = tokio::time::sleep(duration) => true,
    }
}

/// Rolls by age, deletes by age and size, forgets inactive producers.
async fn clean(state: &Arc<BrokerState>, partition: &Arc<Partition>) {
    let now = state.env().clock.now();
    let cleaned = state.log_threads().run_on(partition, move |partition| partition.clean(now));
    match cleaned.await {
        Ok(deleted) if deleted.segments > 0 => tracing::info!(
            partition = %partition.name(),
            segments = deleted.segments,
            bytes = deleted.bytes,
            "deleted by retention"
        ),
        Ok(_) => {}
        // The disk fills up meanwhile.
        Err(error) if error.code() == ErrorCode::KafkaStorageError => {
            tracing::warn!(partition = %partition.name(), error = %error.chain(), "retention failed");
        }
        Err(error) => {
            tracing::debug!(partition = %partition.name(), error = %error.chain(), "retention failed");
        }
    }
}

/// Removes the files of deleted partitions that are due, until the broker stops.
async fn remove_doomed(state: &Arc<BrokerState>, stop: &CancellationToken) {
    while state.partitions().has_doomed() && !stop.is_cancelled() {
        let swept = Arc::clone(state);
        let threads = &state.env().threads;
        let removed = threads.spawn_blocking(move || swept.partitions().remove_some_doomed());
        match removed.await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => return tracing::warn!(%error, "could not remove deleted logs"),
        }
    }
}

async fn checkpoint(state: &Arc<BrokerState>) {
    let saved = Arc::clone(state);
    let written = state.env().threads.spawn_blocking(move || {
        let partitions = saved.partitions();
        partitions.storage().checkpoint(&partitions.all())
    });
    if let Ok(Err(error)) = written.await {
        tracing::warn!(error = %error.chain(), "could not write the checkpoints");
    }
}
