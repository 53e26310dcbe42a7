//! Appending to a partition: by the log thread that it belongs to, or by who brings the records.
//!
//! Invariants:
//! - `APPEND-1` records that are brought one after the other are appended in that order: nobody appends by
//!   himself while the log thread has something to do for the partition.
//! - `APPEND-2` the log is held until the high watermark knows of the append, so that those who wait for it
//!   wait in the order of their offsets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::Partition;
use super::role::Ledger;
use crate::broker::words;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Append, AppendInfo, Guard};
use crate::record::Batch;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// When a produce request is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Acks {
    /// Never.
    None,
    /// When the leader has the records for sure: on its disk, where that is what its durability asks for.
    Leader,
    /// When they are committed.
    All,
}

impl Acks {
    /// Reads the field of a request; `None` for a number that is not one.
    pub(in crate::broker) fn from_i16(acks: i16) -> Option<Self> {
        match acks {
            0 => Some(Self::None),
            1 => Some(Self::Leader),
            -1 => Some(Self::All),
            _ => None,
        }
    }
}

/// What a producer is told.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct AppendAnswer {
    /// The offset of the first record, also of a duplicate.
    pub(in crate::broker) base_offset: Offset,
    /// The broker's time, when the topic is stamped with it; else -1.
    pub(in crate::broker) log_append_time: TimestampMs,
    /// Where the log starts.
    pub(in crate::broker) log_start_offset: Offset,
}

/// The outcome of an append, once it is known.
pub(in crate::broker) type Appended = oneshot::Receiver<Result<AppendAnswer>>;

/// Records to append, and who is told of the outcome.
pub(in crate::broker) struct Appending {
    append: Append,
    /// The only epoch in which it may be appended, if there is one: the task of an older leader decided by what
    /// it knew then.
    epoch: Option<LeaderEpoch>,
    acks: Acks,
    reply: oneshot::Sender<Result<AppendAnswer>>,
}

impl Appending {
    /// A producer's batch, in whatever epoch it comes. The receiver is answered when `acks` is reached.
    pub(in crate::broker) fn produced(
        batch: Batch,
        guard: Option<Guard>,
        acks: Acks,
    ) -> (Self, Appended) {
        let (reply, receiver) = oneshot::channel();
        (Self { append: Append::Produced { batch, guard }, epoch: None, acks, reply }, receiver)
    }

    /// The end of a transaction, in whatever epoch it comes.
    pub(in crate::broker) fn marker(batch: Bytes, transaction_version: i16) -> (Self, Appended) {
        let (reply, receiver) = oneshot::channel();
        let append = Append::Marker { batch, transaction_version };
        (Self { append, epoch: None, acks: Acks::All, reply }, receiver)
    }

    /// Records of a coordinator that became active in `epoch`.
    pub(in crate::broker) fn own(append: Append, epoch: LeaderEpoch) -> (Self, Appended) {
        let (reply, receiver) = oneshot::channel();
        (Self { append, epoch: Some(epoch), acks: Acks::All, reply }, receiver)
    }

    fn refuse(self, error: Error) {
        // Nobody listens any more when the connection is gone.
        drop(self.reply.send(Err(error)));
    }
}

/// A producer that waits.
pub(super) struct Waiting {
    pub(super) until: Offset,
    pub(super) answer: AppendAnswer,
    pub(super) reply: oneshot::Sender<Result<AppendAnswer>>,
}

/// A partition for which a log thread has something to do, or will have when there is room in its queue.
pub(in crate::broker) struct Queued(Arc<Partition>);

impl Queued {
    pub(in crate::broker) fn new(partition: &Arc<Partition>) -> Self {
        partition.queued.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(partition))
    }

    pub(in crate::broker) const fn partition(&self) -> &Arc<Partition> {
        &self.0
    }
}

impl Drop for Queued {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Partition {
    /// Appends, on the log thread. Returns whether a sync must follow.
    pub(in crate::broker) fn append_now(&self, appending: Appending, now: TimestampMs) -> bool {
        let mut appending = Some(appending);
        let appended = self.with_ledger(|ledger| {
            Ok(appending.take().is_some_and(|one| self.append_to(ledger, one, now)))
        });
        match (appended, appending) {
            (Ok(needs_sync), _) => needs_sync,
            (Err(error), appending) => {
                if let Some(appending) = appending {
                    appending.refuse(error);
                }
                false
            }
        }
    }

    /// Appends, unless the log thread has something to do for this partition, somebody works on its log, or more
    /// than a write is due: what is to be appended stays with the caller then. Returns whether a sync must follow.
    pub(in crate::broker) fn try_append(
        &self,
        appending: &mut Option<Appending>,
        now: TimestampMs,
    ) -> bool {
        if self.queued.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Ok(mut ledger) = self.ledger.try_lock() else { return false };
        let Some(ledger) = ledger.as_mut() else { return false };
        let is_write = |one: &mut Appending| ledger.log.appends_by_a_write(&one.append, now);
        appending.take_if(is_write).is_some_and(|one| self.append_to(ledger, one, now))
    }

    /// Tells when everything is committed that the log has now, or that this will not be known here. May wait for an
    /// append.
    ///
    /// # Errors
    ///
    /// This broker does not lead the partition.
    pub(in crate::broker) fn committed(&self) -> Result<Appended> {
        let (reply, receiver) = oneshot::channel();
        self.with_ledger(|ledger| {
            self.standing.load().leads(&self.name)?;
            let until = ledger.log.log_end_offset();
            let answer = AppendAnswer {
                base_offset: until,
                log_append_time: TimestampMs::NONE,
                log_start_offset: ledger.log.log_start_offset(),
            };
            let mut state = self.state();
            if state.replica.high_watermark() >= until {
                drop(reply.send(Ok(answer)));
            } else if let Some(code) = self.standing.load().closed {
                return Err(words::partition_closed(code, &self.name));
            } else {
                // In the order of offsets, as the log is held (`APPEND-2`).
                state.waiting.push_back(Waiting { until, answer, reply });
            }
            Ok(())
        })?;
        Ok(receiver)
    }

    /// Appends, and answers who asked or has them wait. Returns whether a sync must follow.
    fn append_to(&self, ledger: &mut Ledger, appending: Appending, now: TimestampMs) -> bool {
        let Appending { append, epoch, acks, reply } = appending;
        let info = match self.write(ledger, append, (epoch, acks), now) {
            Ok(info) => info,
            Err(error) => {
                drop(reply.send(Err(error)));
                return false;
            }
        };
        let answer = AppendAnswer {
            base_offset: info.base_offset,
            log_append_time: info.log_append_time,
            log_start_offset: info.log_start_offset,
        };
        let until = info.last_offset.next();
        let mut state = self.state();
        let effects = state.replica.appended(self.reader.log_end_offset());
        #[cfg(feature = "sim")]
        if is_planted(Mutation::ShowsBeforeSync) {
            self.high_watermark.raise(until);
            self.parking.wake(&self.key);
        }
        #[cfg(feature = "sim")]
        let acks = if is_planted(Mutation::AcknowledgesBeforeSync) { Acks::None } else { acks };
        let moved = self.publish(&mut state, &effects);
        // With one copy, what the leader has for sure is what is committed: whoever was told of a record finds it
        // below the end of the log, also with acks=1 (ADR 0014). With several, only acks=all waits for the others.
        let reached = match acks {
            Acks::None => true,
            Acks::Leader => state.replica.stored_end() >= until,
            Acks::All => state.replica.high_watermark() >= until,
        };
        if reached {
            drop(reply.send(Ok(answer)));
        } else if let Some(code) = self.standing.load().closed {
            // Whoever closed it has answered those who waited.
            drop(reply.send(Err(words::partition_closed(code, &self.name))));
        } else {
            let queue = match acks {
                Acks::All => &mut state.waiting,
                Acks::Leader | Acks::None => &mut state.waiting_for_leader,
            };
            let last = queue.back().map(|last| last.until);
            // A duplicate waits for what the original waits for, which may be further back.
            assert!(last <= Some(until) || info.duplicate, "APPEND-2: {until} after {last:?}");
            queue.push_back(Waiting { until, answer, reply });
        }
        let needs_sync = self.needs_sync(&state);
        drop(state);
        if moved {
            self.parking.wake(&self.key);
        } else if !self.standing.load().followers.is_empty() {
            self.parking.wake_followers(&self.key);
        }
        needs_sync
    }

    /// Writes in the epoch of the token that lies with the log, which nobody can change meanwhile.
    fn write(
        &self,
        ledger: &mut Ledger,
        append: Append,
        (wanted, acks): (Option<LeaderEpoch>, Acks),
        now: TimestampMs,
    ) -> Result<AppendInfo> {
        let standing = self.standing.load();
        standing.leads(&self.name)?;
        if acks == Acks::All {
            standing.check_in_sync(&self.name)?;
        }
        let epoch = ledger.token.leads();
        let epoch = epoch
            .ok_or_else(|| words::partition_closed(ErrorCode::NotLeaderOrFollower, &self.name))?;
        if let Some(wanted) = wanted
            && wanted != epoch
        {
            let code = ErrorCode::NotLeaderOrFollower;
            return Err(words::other_epoch(code, &self.name, epoch, wanted));
        }
        ledger.log.append(append, epoch, now)
    }
}
