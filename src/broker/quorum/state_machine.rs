//! Applies committed entries to the image, and sends the image to subscribers.

use std::io::Cursor;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use openraft::storage::{RaftSnapshotBuilder, RaftStateMachine};
use openraft::{AnyError, EntryPayload, OptionalSend, SnapshotMeta};
use tokio::sync::mpsc;

use super::snapshot::Checkpoint;
use super::store::{PartitionStore, any};
use super::types::{
    Entry, LogId, Membership, StorageError, StorageIOError, TypeConfig, epoch, offset,
};
use crate::error::Result;
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataUpdate};
use crate::types::NodeId;

type Snapshot = openraft::Snapshot<TypeConfig>;
type Meta = SnapshotMeta<NodeId, openraft::BasicNode>;

/// The current image, and its subscribers.
#[derive(Debug)]
pub(super) struct Shared {
    image: ArcSwap<MetadataImage>,
    subscribers: Mutex<Vec<mpsc::Sender<MetadataUpdate>>>,
}

impl Shared {
    pub(super) fn new(snapshot: Option<&Checkpoint>) -> Self {
        let image = snapshot.map_or_else(MetadataImage::empty, |snapshot| snapshot.image.clone());
        Self { image: ArcSwap::from_pointee(image), subscribers: Mutex::default() }
    }

    pub(super) fn image(&self) -> Arc<MetadataImage> {
        self.image.load_full()
    }

    pub(super) fn subscribe(
        &self,
        updates_max: usize,
    ) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>) {
        let (sender, receiver) = mpsc::channel(updates_max);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(sender);
        // Under the lock, so that the first update that this subscriber gets directly follows this
        // image.
        (self.image(), receiver)
    }

    /// Makes the next image the current one and tells the subscribers, in order (one caller).
    async fn publish(&self, delta: MetadataDelta, image: MetadataImage) {
        let update = MetadataUpdate { delta: Arc::new(delta), image: Arc::new(image) };
        let subscribers = {
            let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
            subscribers.retain(|subscriber| !subscriber.is_closed());
            self.image.store(update.image.clone());
            subscribers.clone()
        };
        for subscriber in subscribers {
            // A subscriber that has gone is dropped next time.
            drop(subscriber.send(update.clone()).await);
        }
    }
}

/// The state machine of the quorum.
#[derive(Debug)]
pub(super) struct StateMachine {
    shared: Arc<Shared>,
    store: PartitionStore,
    last: Option<LogId>,
    membership: Membership,
}

impl StateMachine {
    pub(super) fn new(
        shared: Arc<Shared>,
        snapshot: Option<Checkpoint>,
        store: PartitionStore,
    ) -> Self {
        let (last, membership) = match snapshot {
            Some(snapshot) => (snapshot.last, snapshot.membership),
            None => (None, Membership::default()),
        };
        Self { shared, store, last, membership }
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotBuilder = SnapshotBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, Membership), StorageError> {
        Ok((self.last, self.membership.clone()))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<()>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut replies = Vec::new();
        let mut delta = MetadataDelta::new(MetadataImage::clone(&self.shared.image()));
        for entry in entries {
            let id = entry.log_id;
            match entry.payload {
                EntryPayload::Blank => {}
                EntryPayload::Membership(membership) => {
                    self.membership = Membership::new(Some(id), membership);
                }
                EntryPayload::Normal(records) => {
                    for record in &records {
                        delta
                            .replay(record)
                            .map_err(|error| StorageIOError::apply(id, any(&error)))?;
                    }
                }
            }
            self.last = Some(id);
            replies.push(());
        }
        if let Some(last) = self.last {
            let image = delta.apply(offset(last.index), epoch(last.leader_id.term));
            self.shared.publish(delta, image).await;
        }
        Ok(replies)
    }

    async fn get_snapshot_builder(&mut self) -> SnapshotBuilder {
        SnapshotBuilder {
            checkpoint: Checkpoint {
                last: self.last,
                membership: self.membership.clone(),
                image: MetadataImage::clone(&self.shared.image()),
            },
            store: self.store.clone(),
        }
    }

    async fn begin_receiving_snapshot(&mut self) -> Result<Box<Cursor<Vec<u8>>>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &Meta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let failed = |error: AnyError| StorageIOError::read_snapshot(Some(meta.signature()), error);
        let checkpoint =
            Checkpoint::decode(snapshot.get_ref()).map_err(|error| failed(any(&error)))?;
        let stored = checkpoint.clone();
        self.store
            .run(move |store| store.save_checkpoint(&stored))
            .await
            .map_err(|error| failed(any(&error)))?;
        let before = MetadataImage::clone(&self.shared.image());
        let delta = MetadataDelta::between(before, &checkpoint.image);
        self.last = checkpoint.last;
        self.membership = checkpoint.membership;
        self.shared.publish(delta, checkpoint.image).await;
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, StorageError> {
        let loaded = self.store.run(|store| store.load_checkpoint()).await;
        let loaded = loaded.map_err(|error| StorageIOError::read_snapshot(None, any(&error)))?;
        let Some(checkpoint) = loaded else { return Ok(None) };
        let encoded = to_snapshot(&checkpoint);
        Ok(Some(encoded.map_err(|error| StorageIOError::read_snapshot(None, any(&error)))?))
    }
}

/// Writes a snapshot while entries are applied.
#[derive(Debug)]
pub(super) struct SnapshotBuilder {
    checkpoint: Checkpoint,
    store: PartitionStore,
}

impl RaftSnapshotBuilder<TypeConfig> for SnapshotBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot, StorageError> {
        let checkpoint = self.checkpoint.clone();
        let built = self
            .store
            .run(move |store| {
                store.save_checkpoint(&checkpoint)?;
                to_snapshot(&checkpoint)
            })
            .await;
        Ok(built.map_err(|error| StorageIOError::write_snapshot(None, any(&error)))?)
    }
}

fn to_snapshot(checkpoint: &Checkpoint) -> Result<Snapshot> {
    let meta = Meta {
        last_log_id: checkpoint.last,
        last_membership: checkpoint.membership.clone(),
        snapshot_id: checkpoint.id(),
    };
    Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(checkpoint.encode()?)) })
}
