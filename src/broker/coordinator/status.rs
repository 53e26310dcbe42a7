//! The state of a shard, for those who wait until it serves.

use std::sync::Arc;

use crate::broker::watched::Watched;

/// The state of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Status {
    /// Its log is being read.
    Loading,
    /// It serves requests.
    Active,
    /// Its log cannot be read, for this reason.
    Failed(String),
    /// Its task has ended.
    Ended,
}

/// The state, as the shard's task sets it.
#[derive(Debug)]
pub(super) struct Setter(Arc<Watched<Status>>);

/// The state, as others see it.
#[derive(Clone, Debug)]
pub(super) struct Shown(Arc<Watched<Status>>);

/// The state of a shard that is loading.
pub(super) fn loading() -> (Setter, Shown) {
    let status = Arc::new(Watched::new(Status::Loading));
    (Setter(Arc::clone(&status)), Shown(status))
}

impl Setter {
    pub(super) fn set(&self, status: Status) {
        self.0.change(|now| *now = status);
    }

    pub(super) fn is(&self, status: &Status) -> bool {
        self.0.get() == *status
    }
}

impl Drop for Setter {
    fn drop(&mut self) {
        self.set(Status::Ended);
    }
}

impl Shown {
    /// Whether the shard serves requests.
    pub(super) fn is_active(&self) -> bool {
        self.0.get() == Status::Active
    }

    /// The state as soon as the shard is not loading.
    pub(super) async fn loaded(&self) -> Status {
        self.0.wait_for(|status| *status != Status::Loading).await
    }
}
