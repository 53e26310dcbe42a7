//! The state that the membership task and the caller's side of a consumer share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::client::consumer::shared::Shared;
use crate::error::Error;
use crate::machine::client::group::handover::{Handover, Told};
use crate::machine::client::group::{Identity, Partitions};
use crate::types::TopicPartition;

/// The current membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) identity: Identity,
    /// What the member may commit, including what the caller is about to release.
    pub(super) owned: Partitions,
    /// It has its target assignment, and no rebalance is known.
    pub(super) is_stable: bool,
    /// How partitions were last lost.
    pub(super) lost_reason: String,
}

#[expect(clippy::struct_excessive_bools, reason = "facts that hold or not, one by one")]
#[derive(Debug, Default)]
struct Seam {
    handover: Handover,
    failure: Option<Error>,
    /// What to tell the caller about the member's wait for others, if it is news; empty when the
    /// wait is over.
    waiting: Option<String>,
    /// The membership has ended.
    is_over: bool,
    /// The caller is inside a poll.
    is_polling: bool,
    /// The caller has polled since the task last looked.
    was_seen: bool,
    closing: bool,
}

/// What the task sees when it looks.
#[derive(Debug)]
pub(super) struct Noticed {
    pub(super) seen: bool,
    pub(super) released: bool,
    pub(super) closing: bool,
}

#[derive(Debug)]
pub(super) struct Link {
    seam: Mutex<Seam>,
    /// Wakes the task.
    pub(super) work: Notify,
    pub(super) view: watch::Sender<View>,
    /// The caller waits for rows and for this in one place.
    reader: Arc<Shared>,
}

impl Link {
    pub(super) fn new(reader: Arc<Shared>) -> Self {
        let view = View {
            identity: Identity { member_id: String::new(), generation: -1 },
            owned: Partitions::new(),
            is_stable: false,
            lost_reason: String::new(),
        };
        Self { seam: Mutex::default(), work: Notify::new(), view: watch::Sender::new(view), reader }
    }

    fn seam(&self) -> MutexGuard<'_, Seam> {
        self.seam.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what the caller is to be told, and wakes it.
    pub(super) fn hand_over(&self, change: impl FnOnce(&mut Handover)) {
        change(&mut self.seam().handover);
        self.reader.ready.notify_one();
    }

    /// The membership has ended, through an error or at the caller's request.
    pub(super) fn end(&self, error: Option<Error>) {
        let mut seam = self.seam();
        seam.is_over = true;
        seam.failure = seam.failure.take().or(error);
        drop(seam);
        self.reader.ready.notify_one();
    }

    /// Tells the caller what the member waits for; `None` when the wait is over.
    pub(super) fn say_waiting(&self, words: String) {
        self.seam().waiting = Some(words);
        self.reader.ready.notify_one();
    }

    pub(super) fn take_waiting(&self) -> Option<String> {
        self.seam().waiting.take()
    }

    pub(super) fn is_over(&self) -> bool {
        self.seam().is_over
    }

    pub(super) fn take_failure(&self) -> Option<Error> {
        self.seam().failure.take()
    }

    /// What the task must know about the caller.
    pub(super) fn notice(&self) -> Noticed {
        let mut seam = self.seam();
        let seen = std::mem::take(&mut seam.was_seen) || seam.is_polling;
        Noticed { seen, released: seam.handover.take_release(), closing: seam.closing }
    }

    /// Whether the caller has consented to a revocation.
    pub(super) fn take_release(&self) -> bool {
        self.seam().handover.take_release()
    }

    /// The caller has returned: it consents to what it was last told.
    pub(super) fn acknowledge(&self) {
        if self.seam().handover.acknowledge() {
            self.work.notify_one();
        }
    }

    pub(super) fn wake_caller(&self) {
        self.reader.ready.notify_one();
    }

    /// The caller begins or ends a poll; `tell` wakes the task, which matters if the interval
    /// between polls is limited.
    pub(super) fn polls(&self, is_polling: bool, tell: bool) {
        let mut seam = self.seam();
        seam.is_polling = is_polling;
        seam.was_seen = true;
        drop(seam);
        if tell {
            self.work.notify_one();
        }
    }

    pub(super) fn close(&self) {
        self.seam().closing = true;
        self.work.notify_one();
    }

    pub(super) fn tell(&self) -> Option<Told> {
        self.seam().handover.tell()
    }

    /// Whether what the caller has of a partition is from before that was lost, though the member may have it again.
    pub(super) fn is_outdated(&self, partition: &TopicPartition) -> bool {
        self.seam().handover.is_outdated(partition)
    }

    /// Whether the caller must be told something before it gets more rows.
    pub(super) fn has_news(&self) -> bool {
        let seam = self.seam();
        let is_about_partitions = seam.failure.is_some() || seam.handover.is_waiting();
        seam.is_over || is_about_partitions || seam.waiting.is_some()
    }
}
