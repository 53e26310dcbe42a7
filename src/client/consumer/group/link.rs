//! What the membership task and the caller's side of a consumer share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::client::consumer::fetcher::Shared;
use crate::error::Error;
use crate::machine::client::group::handover::{Handover, Told};
use crate::machine::client::group::{Identity, Partitions};

/// The membership as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    pub(super) identity: Identity,
    /// What the member may commit: also what the caller is about to give up.
    pub(super) owned: Partitions,
    /// It has what it is to have, and no rebalance is known.
    pub(super) is_stable: bool,
    /// How partitions were lost last.
    pub(super) lost_reason: String,
}

#[expect(clippy::struct_excessive_bools, reason = "facts that hold or not, one by one")]
#[derive(Debug, Default)]
struct Seam {
    handover: Handover,
    failure: Option<Error>,
    /// What the caller is to hear of the member's waiting for others, if that is news; empty when
    /// it is over.
    waiting: Option<String>,
    /// The membership has ended.
    is_over: bool,
    /// The caller is inside of a poll.
    is_polling: bool,
    /// The caller polled since the task last looked.
    was_seen: bool,
    closing: bool,
}

/// What the task finds when it looks.
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
    /// The caller waits for rows and for us at one place.
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

    /// Changes what the caller is to hear, and wakes it.
    pub(super) fn hand_over(&self, change: impl FnOnce(&mut Handover)) {
        change(&mut self.seam().handover);
        self.reader.ready.notify_one();
    }

    /// The membership ended, by an error or because the caller wanted it.
    pub(super) fn end(&self, error: Option<Error>) {
        let mut seam = self.seam();
        seam.is_over = true;
        seam.failure = seam.failure.take().or(error);
        drop(seam);
        self.reader.ready.notify_one();
    }

    /// Tells the caller what the member waits for; nothing when the wait is over.
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

    /// What the task must know of the caller.
    pub(super) fn notice(&self) -> Noticed {
        let mut seam = self.seam();
        let seen = std::mem::take(&mut seam.was_seen) || seam.is_polling;
        Noticed { seen, released: seam.handover.take_release(), closing: seam.closing }
    }

    /// Whether the caller consented to a revocation.
    pub(super) fn take_release(&self) -> bool {
        self.seam().handover.take_release()
    }

    /// The caller comes back: it consents to what it was told last.
    pub(super) fn acknowledge(&self) {
        if self.seam().handover.acknowledge() {
            self.work.notify_one();
        }
    }

    pub(super) fn wake_caller(&self) {
        self.reader.ready.notify_one();
    }

    /// The caller begins or ends a poll; `tell` wakes the task, which matters where the distance of
    /// polls is limited.
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

    /// Whether the caller must hear something before more rows.
    pub(super) fn has_news(&self) -> bool {
        let seam = self.seam();
        let is_about_partitions = seam.failure.is_some() || seam.handover.is_waiting();
        seam.is_over || is_about_partitions || seam.waiting.is_some()
    }
}
