//! What the tasks of a quorum share: the image with its subscribers, who leads, and why it stopped.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::broker::watched::Watched;
use crate::error::Error;
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataUpdate};
use crate::machine::quorum::LeaderAndEpoch;
use crate::types::{LeaderEpoch, NodeId, Offset};

/// This node leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leading {
    /// The epoch.
    pub(super) epoch: LeaderEpoch,
    /// Once this is applied, so is everything that an earlier leader committed.
    pub(super) start: Offset,
    /// The node that was followed before, and when it was last heard.
    pub(super) before: Option<(NodeId, Duration)>,
}

/// How far the subscribers were told, and who waits for that.
#[derive(Debug)]
struct Applied {
    offset: Offset,
    waiting: Vec<(Offset, oneshot::Sender<()>)>,
    is_over: bool,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    image: ArcSwap<MetadataImage>,
    subscribers: Mutex<Vec<mpsc::Sender<MetadataUpdate>>>,
    applied: Mutex<Applied>,
    leading: Watched<Option<Leading>>,
    leader: Watched<LeaderAndEpoch>,
    failure: Mutex<Option<Error>>,
    failed: CancellationToken,
}

impl Shared {
    pub(super) fn new(image: MetadataImage) -> Self {
        let offset = image.offset;
        Self {
            image: ArcSwap::from_pointee(image),
            subscribers: Mutex::default(),
            applied: Mutex::new(Applied { offset, waiting: Vec::new(), is_over: false }),
            leading: Watched::new(None),
            leader: Watched::new(LeaderAndEpoch { epoch: LeaderEpoch::UNKNOWN, leader: None }),
            failure: Mutex::default(),
            failed: CancellationToken::new(),
        }
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
    pub(super) async fn publish(&self, delta: MetadataDelta, image: MetadataImage) {
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
        self.wake(update.image.offset);
    }

    fn lock_applied(&self) -> MutexGuard<'_, Applied> {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, offset: Offset) {
        let mut applied = self.lock_applied();
        applied.offset = offset;
        let all = std::mem::take(&mut applied.waiting);
        let (done, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|(at, _)| *at <= offset);
        applied.waiting = rest;
        drop(applied);
        for (_, waiter) in done {
            _ = waiter.send(());
        }
    }

    /// Waits until the entry at this offset is applied, and the subscribers were told; false if that never will be.
    pub(super) async fn applied(&self, offset: Offset) -> bool {
        let receiver = {
            let mut applied = self.lock_applied();
            if applied.offset >= offset {
                return true;
            }
            if applied.is_over {
                return false;
            }
            let (sender, receiver) = oneshot::channel();
            // Who lost interest is forgotten.
            applied.waiting.retain(|(_, waiter)| !waiter.is_closed());
            applied.waiting.push((offset, sender));
            receiver
        };
        receiver.await.is_ok()
    }

    /// Nothing is applied any more.
    pub(super) fn close(&self) {
        let mut applied = self.lock_applied();
        applied.is_over = true;
        applied.waiting.clear();
    }

    /// Whether this node leads.
    pub(super) const fn leading(&self) -> &Watched<Option<Leading>> {
        &self.leading
    }

    /// Who leads, as far as is known.
    pub(super) const fn leader(&self) -> &Watched<LeaderAndEpoch> {
        &self.leader
    }

    /// Why the quorum stopped by itself, if it did.
    pub(super) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The quorum cannot go on. The first reason is kept.
    pub(super) fn fail(&self, error: Error) {
        {
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            if failure.is_none() {
                let why = error.chain();
                if matches!(error, Error::Closed { .. }) {
                    // It was told to.
                    tracing::debug!(error = %why, "the metadata quorum stops");
                } else {
                    tracing::error!(error = %why, "the metadata quorum stops");
                }
                *failure = Some(error);
            }
        }
        self.failed.cancel();
    }

    /// Waits until it cannot.
    pub(super) async fn failed(&self) {
        self.failed.cancelled().await;
    }
}
