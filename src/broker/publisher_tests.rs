//! Changes whose application panics, as often as the test wants.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::broker::change::tests::{Rig, create, remove};
use crate::error::ErrorCode;

/// A publisher that panics before it applies a change, for as long as there are faults left.
struct Publisher {
    faults: Arc<AtomicU32>,
    updates: mpsc::Sender<MetadataUpdate>,
    task: tokio::task::JoinHandle<()>,
}

impl Publisher {
    fn start(rig: &Rig) -> Self {
        let (updates, receiver) = mpsc::channel(10);
        let faults = Arc::new(AtomicU32::new(0));
        let (state, left) = (Arc::clone(&rig.state), Arc::clone(&faults));
        let apply = move |state: &BrokerState, update: &MetadataUpdate| {
            let less = |left: u32| left.checked_sub(1);
            if left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less).is_ok() {
                std::panic::resume_unwind(Box::new("on purpose"));
            }
            state.follow(update);
        };
        let task = tokio::spawn(async move {
            publish_by(&state, receiver, &CancellationToken::new(), apply).await;
        });
        Self { faults, updates, task }
    }
}

#[tokio::test]
async fn a_change_that_could_not_be_applied_is_tried_again() {
    let mut rig = Rig::new();
    let publisher = Publisher::start(&rig);
    publisher.faults.store(2, Ordering::SeqCst);
    let update = rig.change(&create("a", 1, 1));
    let created = update.image.offset;
    publisher.updates.send(update).await.unwrap();
    rig.state.published(created).await.unwrap();
    assert_eq!(publisher.faults.load(Ordering::SeqCst), 0);
    assert_eq!(rig.open(), ["a-0"]);
    drop(publisher.updates);
    publisher.task.await.unwrap();
}

#[tokio::test]
async fn who_waits_for_a_change_that_cannot_be_applied_is_told() {
    let mut rig = Rig::new();
    let publisher = Publisher::start(&rig);
    publisher.faults.store(u32::MAX, Ordering::SeqCst);
    let update = rig.change(&create("a", 1, 1));
    let created = update.image.offset;
    publisher.updates.send(update).await.unwrap();
    let error = rig.state.published(created).await.unwrap_err();
    assert_eq!(error.code(), ErrorCode::UnknownServerError);
    // It is made up for all the same, together with what came after it.
    let mut next = vec![remove(1)];
    next.extend(create("b", 2, 1));
    let update = rig.change(&next);
    let last = update.image.offset;
    publisher.updates.send(update).await.unwrap();
    publisher.faults.store(0, Ordering::SeqCst);
    rig.state.published_when(|image| image.offset == last).await;
    rig.state.published(created).await.unwrap();
    assert_eq!(rig.open(), ["b-0"]);
}
