//! Applies committed entries to the image, and takes snapshots of it.
//!
//! A task of its own: a subscriber that lags holds up the image, but not the quorum.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::driver::Ask;
use super::entry::{self, Entry};
use super::feed::{Feed, Work};
use super::shared::Shared;
use super::snapshot::Checkpoint;
use super::store::{CHUNK_BYTES, Facts, directory_of, read_entries};
use super::{QuorumOptions, stopped};
use crate::env::Env;
use crate::error::Result;
use crate::log::LogReader;
use crate::machine::metadata::{MetadataDelta, MetadataImage};
use crate::machine::quorum::{OffsetAndEpoch, Payload, VoterSet};
use crate::types::Offset;

/// The number of entries, however small, after which a snapshot is taken.
const ENTRIES_BETWEEN_SNAPSHOTS: i64 = 20_000;
/// How long to wait until a snapshot is tried again for which there was no room.
const FULL_DISK_PAUSE: Duration = Duration::from_secs(5);

/// When snapshots are taken, and where they go.
#[derive(Clone, Debug)]
pub(super) struct SnapshotOptions {
    /// The directory of the metadata log.
    pub(super) directory: PathBuf,
    /// Whether they are synced.
    pub(super) fsync: bool,
    /// The bytes of log after which one is taken.
    pub(super) limit_bytes: u64,
}

impl SnapshotOptions {
    pub(super) fn of(options: &QuorumOptions) -> Self {
        let limit_bytes = options.config.metadata_log_max_record_bytes_between_snapshots;
        Self {
            directory: directory_of(&options.log_dir),
            fsync: options.fsync,
            limit_bytes: u64::try_from(limit_bytes).unwrap_or(u64::MAX),
        }
    }
}

/// Everything that the task owns.
#[derive(Debug)]
pub(super) struct Applier {
    pub(super) env: Env,
    pub(super) feed: Arc<Feed>,
    pub(super) shared: Arc<Shared>,
    pub(super) reader: LogReader,
    pub(super) facts: Arc<Facts>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) snapshots: SnapshotOptions,
    /// The end of what is applied.
    pub(super) applied: OffsetAndEpoch,
    /// Who votes there.
    pub(super) voters: VoterSet,
    /// The end of the last snapshot.
    pub(super) snapshot_end: Offset,
    pub(super) saving: Option<JoinHandle<()>>,
}

impl Applier {
    /// Runs until there is nothing more to apply.
    pub(super) async fn run(mut self) {
        if let Err(error) = self.apply_all().await {
            self.shared.fail(error);
        }
        self.shared.close();
        if let Some(saving) = self.saving.take() {
            drop(saving.await);
        }
    }

    async fn apply_all(&mut self) -> Result<()> {
        loop {
            match self.feed.next(self.applied.offset).await {
                Work::Entries(entries) => self.apply(entries).await?,
                Work::OnDisk(from, end) => {
                    let reader = self.reader.clone();
                    let read = move || read_entries(&reader, from, end, CHUNK_BYTES);
                    match self.env.threads.spawn_blocking(read).await.map_err(stopped)? {
                        Ok(entries) => self.apply(entries).await?,
                        Err(_gone) if self.feed.is_replaced() => {}
                        Err(error) => return Err(error),
                    }
                }
                Work::Snapshot(checkpoint) => self.load(*checkpoint).await,
                Work::End => return Ok(()),
            }
            self.take_snapshot();
        }
    }

    async fn apply(&mut self, entries: Vec<Entry>) -> Result<()> {
        let mut delta = MetadataDelta::new(MetadataImage::clone(&self.shared.image()));
        for entry in entries {
            match entry.payload {
                Payload::LeaderChange { .. } => {}
                Payload::Voters(voters) => self.voters = voters,
                Payload::Records(value) => {
                    for record in entry::decode_records(&value)? {
                        delta.replay(&record)?;
                    }
                }
            }
            self.applied = OffsetAndEpoch::new(entry.offset.next(), entry.epoch);
        }
        let OffsetAndEpoch { offset, epoch } = self.applied;
        let image = delta.apply(Offset(offset.0 - 1), epoch);
        self.publish(delta, image).await;
        Ok(())
    }

    /// A subscriber that does not read holds this up, until the quorum stops.
    async fn publish(&self, delta: MetadataDelta, image: MetadataImage) {
        tokio::select! {
            biased;
            () = self.shared.publish(delta, image) => {}
            () = self.asks.closed() => {}
        }
    }

    async fn load(&mut self, checkpoint: Checkpoint) {
        let Checkpoint { id, voters, image } = checkpoint;
        let before = MetadataImage::clone(&self.shared.image());
        let delta = MetadataDelta::between(before, &image);
        (self.applied, self.voters, self.snapshot_end) = (id, voters, id.offset);
        self.publish(delta, image).await;
    }

    /// Begins to take a snapshot, if one is due and none is being taken.
    fn take_snapshot(&mut self) {
        let unsaved_bytes = self.facts.unsaved_bytes.load(Ordering::Relaxed);
        let is_due = unsaved_bytes > self.snapshots.limit_bytes
            || self.applied.offset.since(self.snapshot_end) >= ENTRIES_BETWEEN_SNAPSHOTS;
        let is_busy = self.saving.as_ref().is_some_and(|saving| !saving.is_finished());
        if !is_due || is_busy || self.applied.offset <= self.snapshot_end {
            return;
        }
        self.facts.unsaved_bytes.fetch_sub(unsaved_bytes, Ordering::Relaxed);
        // Other replicas that lag a little are spared the snapshot.
        let is_alone = self.voters.len() == 1;
        let log_start = if is_alone { self.applied.offset } else { self.snapshot_end };
        self.snapshot_end = self.applied.offset;
        let checkpoint = Checkpoint {
            id: self.applied,
            voters: self.voters.clone(),
            image: MetadataImage::clone(&self.shared.image()),
        };
        self.saving = Some(tokio::spawn(save(
            self.env.clone(),
            self.snapshots.clone(),
            Arc::new(checkpoint),
            log_start,
            self.asks.clone(),
            Arc::clone(&self.shared),
        )));
    }
}

/// Saves a snapshot, as soon as there is room for it, and tells the driver.
async fn save(
    env: Env,
    options: SnapshotOptions,
    checkpoint: Arc<Checkpoint>,
    log_start: Offset,
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
) {
    let id = checkpoint.id;
    loop {
        let (disk, checkpoint) = (Arc::clone(&env.disk), Arc::clone(&checkpoint));
        let SnapshotOptions { directory, fsync, .. } = options.clone();
        let save = move || checkpoint.save(&*disk, &directory, fsync);
        let saved = env.threads.spawn_blocking(save).await.map_err(stopped);
        match saved.and_then(|saved| saved) {
            Ok(()) => break,
            Err(error) if error.is_disk_full() => {
                tracing::warn!(error = %error.chain(), "disk full: a metadata snapshot waits");
                tokio::select! {
                    biased;
                    () = asks.closed() => return,
                    () = tokio::time::sleep(FULL_DISK_PAUSE) => {}
                }
            }
            Err(error) => return shared.fail(error),
        }
    }
    drop(asks.send(Ask::SnapshotTaken { id, log_start }).await);
}

/// Where the image of a quorum that starts is, and who votes there.
pub(super) fn beginning(
    checkpoint: Option<&Checkpoint>,
    voters: &VoterSet,
) -> (OffsetAndEpoch, VoterSet) {
    match checkpoint {
        Some(checkpoint) => (checkpoint.id, checkpoint.voters.clone()),
        None => (OffsetAndEpoch::default(), voters.clone()),
    }
}
