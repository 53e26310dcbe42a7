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

use super::{Partition, Waiting, min_isr};
use crate::broker::log_threads::{LogThreads, Reply};
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::Log;
use crate::record::BatchHeader;
use crate::types::{Offset, TimestampMs};

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
    /// Appends records, now or by way of the log thread. The receiver is answered when `acks` is reached.
    ///
    /// # Errors
    ///
    /// This broker does not lead the partition, or too few replicas are in sync.
    pub(in crate::broker) async fn append(
        self: &Arc<Self>,
        threads: &LogThreads,
        records: Bytes,
        acks: Acks,
    ) -> Result<oneshot::Receiver<Result<AppendAnswer>>> {
        self.check_leader()?;
        if acks == Acks::All {
            self.check_isr()?;
        }
        let (reply, receiver) = oneshot::channel();
        threads.append(self, records, (acks, reply)).await?;
        Ok(receiver)
    }

    /// Appends by way of the log thread with `acks=all`, for a task that is not to wait for the disk.
    ///
    /// # Errors
    ///
    /// As [`Partition::append`].
    pub(in crate::broker) async fn queue_append(
        self: &Arc<Self>,
        threads: &LogThreads,
        records: Bytes,
    ) -> Result<oneshot::Receiver<Result<AppendAnswer>>> {
        self.check_leader()?;
        self.check_isr()?;
        let (reply, receiver) = oneshot::channel();
        threads.queue(self, records, (Acks::All, reply)).await?;
        Ok(receiver)
    }

    /// `min.insync.replicas` above the number of replicas counts as that number.
    fn check_isr(&self) -> Result<()> {
        let state = self.state();
        let wanted = min_isr(&state.config, state.replicas);
        if state.isr >= wanted {
            return Ok(());
        }
        let context = format!("{} has {} replicas in sync, not {wanted}", self.name, state.isr);
        Err(Error::kafka(ErrorCode::NotEnoughReplicas, context))
    }

    /// Appends, on the log thread. Returns whether a sync must follow.
    pub(in crate::broker) fn append_now(
        &self,
        records: &Bytes,
        now: TimestampMs,
        reply: Reply,
    ) -> bool {
        let mut reply = Some(reply);
        let append = |log: &mut Log| Ok(self.append_to(log, records, now, &mut reply));
        let appended = self.check_leader().and_then(|()| self.with_log(append));
        let error = match appended {
            Ok(needs_sync) => return needs_sync,
            Err(error) => error,
        };
        if let Some((_, reply)) = reply {
            // Nobody listens any more when the connection is gone.
            drop(reply.send(Err(error)));
        }
        false
    }

    /// Appends and takes the reply, unless the log thread has something to do for this partition, somebody works on
    /// its log, or more than a write is due. Returns whether a sync must follow.
    pub(in crate::broker) fn try_append(
        &self,
        (records, header): (&Bytes, &BatchHeader),
        now: TimestampMs,
        reply: &mut Option<Reply>,
    ) -> bool {
        if self.queued.load(Ordering::Acquire) > 0 {
            return false;
        }
        let Ok(mut log) = self.log.try_lock() else { return false };
        match log.as_mut() {
            Some(log) if log.appends_by_a_write(header, now) => {
                self.append_to(log, records, now, reply)
            }
            _ => false,
        }
    }

    /// Appends, and answers who asked or has them wait. Returns whether a sync must follow.
    fn append_to(
        &self,
        log: &mut Log,
        records: &Bytes,
        now: TimestampMs,
        reply: &mut Option<Reply>,
    ) -> bool {
        let Some((acks, reply)) = reply.take() else { return false };
        let epoch = self.leader_epoch();
        let appended = self.check_leader().and_then(|()| log.append_as_leader(records, epoch, now));
        let info = match appended {
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
        let moved = state.leader.appended(self.reader.log_end_offset());
        #[cfg(feature = "sim")]
        if is_planted(Mutation::ShowsBeforeSync) {
            self.high_watermark.store(until.0, Ordering::Release);
            self.parking.wake(&self.key);
        }
        #[cfg(feature = "sim")]
        let acks = if is_planted(Mutation::AcknowledgesBeforeSync) { Acks::None } else { acks };
        if let Some(high_watermark) = moved {
            self.publish(&mut state, high_watermark);
        }
        // With one copy, what the leader has for sure is what is committed: acks=1 waits for it as well, so that
        // whoever was told of a record finds it below the end of the log (ADR 0014).
        if acks == Acks::None || state.leader.high_watermark() >= until {
            drop(reply.send(Ok(answer)));
        } else if let Some(code) = state.closed {
            // Whoever closed it has answered those who waited.
            drop(reply.send(Err(Error::kafka(code, format!("{} was closed", self.name)))));
        } else {
            state.waiting.push_back(Waiting { until, answer, reply });
        }
        let needs_sync = self.needs_sync(&state);
        drop(state);
        if moved.is_some() {
            self.parking.wake(&self.key);
        }
        needs_sync
    }
}
