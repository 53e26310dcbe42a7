//! What a follower does to its log: it appends what its leader has, and cuts what its leader has not.
//!
//! Who asks the leader is in [`crate::broker::replication`]. Between a question and its answer, the role may have changed
//! and the log with it: the answer is taken only where the log stands as it stood, in the epoch in which it was asked.
//!
//! Invariants:
//! - `FOLLOW-1` an answer to another epoch, or to another end of the log, changes nothing.
//! - `FOLLOW-2` the log is cut before the high watermark is taken that came with a divergence, and never after something
//!   was copied in the same epoch (`ROLE-2`).
//! - `FOLLOW-3` with `durability=fsync`, what was copied is synced before the next fetch says that it is there.
//! - `FOLLOW-4` of a topic with a tier, a follower deletes what its leader does not have on its disk any more, and nothing
//!   else: only the leader knows what the tier has.
//! - `FOLLOW-5` a copy begins in the middle of a log only with what is known there of epochs and producers, which the tier has;
//!   a crash leaves a copy that begins with it, or one that is empty.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::role::Ledger;
use super::{Partition, State};
use crate::config::Durability;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::log::{Beginning, EpochEnd};
use crate::machine::fetch_session::FollowerView;
use crate::machine::replica::{FromLeader, Role, Truncation, TruncationRefusal};
use crate::types::{LeaderEpoch, Offset, TimestampMs};

/// Where a copy stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct CopyPoint {
    /// The epoch of its leader.
    pub(in crate::broker) epoch: LeaderEpoch,
    /// The log end.
    pub(in crate::broker) end: Offset,
    /// The epoch of the last record, unless there is none.
    pub(in crate::broker) last_epoch: LeaderEpoch,
    /// What it has heard from the leader.
    pub(in crate::broker) known: FollowerView,
}

/// Something that was copied.
#[derive(Debug)]
pub(in crate::broker) struct Copied {
    /// Whether a sync must follow.
    pub(in crate::broker) needs_sync: bool,
    /// To be awaited before the next fetch; it fails when nobody syncs any more.
    pub(in crate::broker) synced: Option<oneshot::Receiver<()>>,
}

/// Why a copy is to be cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Cut {
    /// Its last epoch is not the leader's there, or ended earlier: at this point of the leader's log.
    Diverged(EpochEnd),
    /// Where it ends, the leader has nothing: its log is this.
    OutOfRange { start: Offset, end: Offset },
}

/// What is done to the log.
#[derive(Clone, Copy, Debug)]
enum Way<'a> {
    To(Offset),
    StartOver(Offset),
    Begin(&'a Beginning),
}

impl Way<'_> {
    const fn end(self) -> Offset {
        match self {
            Self::To(end) | Self::StartOver(end) => end,
            Self::Begin(beginning) => beginning.offset,
        }
    }
}

/// Lowers what the checkpoints say of a log.
pub(in crate::broker) type Lower<'a> = &'a dyn Fn(Offset) -> Result<()>;

impl Partition {
    /// Where this copy stands; none when it follows nobody.
    pub(in crate::broker) fn copy_point(&self) -> Option<CopyPoint> {
        let standing = self.standing.load();
        if standing.closed.is_some() || standing.token.role() != Role::Follower {
            return None;
        }
        let end = self.reader.log_end_offset();
        let has_tier = standing.config.tier.is_enabled();
        Some(CopyPoint {
            epoch: standing.token.epoch(),
            end,
            last_epoch: self.reader.last_epoch().unwrap_or(LeaderEpoch::UNKNOWN),
            known: FollowerView {
                high_watermark: self.high_watermark(),
                log_start: self.reader.log_start_offset(),
                local_start: if has_tier {
                    self.reader.local_start_offset()
                } else {
                    FollowerView::UNASKED.local_start
                },
            },
        })
    }

    /// Whether what is copied here is counted, and may be held back.
    pub(in crate::broker) fn is_follower_throttled(&self) -> bool {
        let standing = self.standing.load();
        standing.config.follower_throttled_replicas.contains(self.name.partition, self.node_id.0)
    }

    /// Appends what the leader answered to a fetch at `point`, and takes its high watermark and log start. None when the
    /// copy stands elsewhere by now. Blocks.
    ///
    /// # Errors
    ///
    /// The records do not continue the log, or are damaged; those of the log.
    pub(in crate::broker) fn copy(
        &self,
        point: &CopyPoint,
        records: &Bytes,
        from: FromLeader,
        now: TimestampMs,
    ) -> Result<Option<Copied>> {
        self.with_ledger(|ledger| {
            if !self.stands_at(ledger, point) {
                return Ok(None);
            }
            let appended = ledger.log.append_as_follower(records, point.epoch, now);
            // Also if it failed: some of it may have been appended.
            let mut state = self.state();
            let effects = state.replica.appended(ledger.log.log_end_offset());
            let mut moved = self.publish(&mut state, &effects);
            appended?;
            let (effects, starts) = state.replica.heard(from);
            moved |= self.publish(&mut state, &effects);
            let copied = self.copied(&mut state);
            drop(state);
            if moved {
                self.parking.wake(&self.key);
            }
            if starts.log > ledger.log.log_start_offset() {
                ledger.log.delete_records_before(starts.log, self.high_watermark())?;
            }
            // `FOLLOW-4`
            if starts.local > self.reader.local_start_offset() {
                ledger.log.delete_tiered_before(starts.local)?;
            }
            Ok(Some(copied))
        })
    }

    fn copied(&self, state: &mut State) -> Copied {
        let standing = self.standing.load();
        #[cfg(feature = "sim")]
        if is_planted(Mutation::FetchesBeforeSync) {
            return Copied { needs_sync: self.needs_sync(state), synced: None };
        }
        let must_wait = standing.config.durability == Durability::Fsync
            && state.replica.needs_sync()
            && standing.closed.is_none();
        let synced = must_wait.then(|| {
            let (sender, receiver) = oneshot::channel();
            state.waiting_for_sync.push((self.reader.log_end_offset(), sender));
            receiver
        });
        Copied { needs_sync: self.needs_sync(state), synced }
    }

    /// Cuts the copy, which stood at `point` when the leader was asked. Returns where it ends now; none when it stands
    /// elsewhere. Blocks.
    ///
    /// # Errors
    ///
    /// The leader's log changed within its epoch, or the log could not be cut, which takes it offline.
    pub(in crate::broker) fn cut(
        &self,
        point: &CopyPoint,
        cut: Cut,
        lower: Lower<'_>,
    ) -> Result<Option<Offset>> {
        self.with_ledger(|ledger| {
            if !self.stands_at(ledger, point) {
                return Ok(None);
            }
            let way = match cut {
                Cut::Diverged(leader) => Way::To(self.reader.common_end(leader)),
                Cut::OutOfRange { end, .. } if end < point.end => Way::To(end),
                Cut::OutOfRange { start, .. } if start > point.end => Way::StartOver(start),
                Cut::OutOfRange { .. } => return Ok(Some(point.end)),
            };
            #[cfg(feature = "sim")]
            if is_planted(Mutation::KeepsDivergence) {
                return Ok(Some(point.end));
            }
            self.go(ledger, way, lower).map(Some)
        })
    }

    /// Has the copy begin, empty, where its leader's tier ends and its leader's disk goes on, with what is known there.
    /// Returns where; none when the copy, which stood at `point` when the leader was asked, stands elsewhere by now. Blocks.
    ///
    /// # Errors
    ///
    /// What is known makes no sense, or the log could not be cut, which takes it offline.
    pub(in crate::broker) fn begin(
        &self,
        point: &CopyPoint,
        beginning: &Beginning,
        lower: Lower<'_>,
    ) -> Result<Option<Offset>> {
        beginning.check()?;
        self.with_ledger(|ledger| {
            let has_tier = self.config().tier.is_enabled();
            if !has_tier || !self.stands_at(ledger, point) || beginning.offset <= point.end {
                return Ok(None);
            }
            self.go(ledger, Way::Begin(beginning), lower).map(Some)
        })
    }

    fn go(&self, ledger: &mut Ledger, way: Way<'_>, lower: Lower<'_>) -> Result<Offset> {
        let truncation = self.check_cut(way)?;
        let done = self.cut_log(ledger, way, truncation, lower);
        if let Err(error) = &done {
            tracing::error!(partition = %self.name, error = %error.chain(), "could not cut the log");
            self.close(ErrorCode::KafkaStorageError);
        }
        done
    }

    /// `FOLLOW-1`
    fn stands_at(&self, ledger: &Ledger, point: &CopyPoint) -> bool {
        #[cfg(feature = "sim")]
        if is_planted(Mutation::TakesLateAnswers) {
            return ledger.token.role() == Role::Follower;
        }
        ledger.token.role() == Role::Follower
            && ledger.token.epoch() == point.epoch
            && ledger.log.log_end_offset() == point.end
            && self.standing.load().closed.is_none()
    }

    fn check_cut(&self, way: Way<'_>) -> Result<Truncation> {
        let end = way.end();
        let state = self.state();
        let refused = |refusal: TruncationRefusal| {
            let name = &self.name;
            Error::invalid(format!("{name} is not cut at {end}, as its leader asks: {refusal:?}"))
        };
        match state.replica.check_truncation(end, Truncation::Clean) {
            Ok(()) => Ok(Truncation::Clean),
            Err(TruncationRefusal::Committed(high_watermark)) => {
                state.replica.check_truncation(end, Truncation::Unclean).map_err(refused)?;
                // Kafka's followers do the same: the leader decides, and without this the replicas would differ forever.
                tracing::warn!(
                    partition = %self.name, %end, %high_watermark,
                    "the leader lacks records that were committed: after an unclean election, or lost unsynced"
                );
                Ok(Truncation::Unclean)
            }
            Err(refusal) => Err(refused(refusal)),
        }
    }

    fn cut_log(
        &self,
        ledger: &mut Ledger,
        way: Way<'_>,
        truncation: Truncation,
        lower: Lower<'_>,
    ) -> Result<Offset> {
        let (log, before) = (&mut ledger.log, self.reader.log_end_offset());
        let end = match (way, truncation) {
            (Way::StartOver(start), _) => {
                lower(Offset::ZERO)?;
                log.restart_at(start)?
            }
            (Way::Begin(beginning), _) => {
                lower(Offset::ZERO)?;
                log.begin_at(beginning)?
            }
            (Way::To(end), Truncation::Clean) => {
                lower(end)?;
                log.truncate_to(end)?
            }
            (Way::To(end), Truncation::Unclean) => {
                lower(if end < self.reader.local_start_offset() { Offset::ZERO } else { end })?;
                log.truncate_uncleanly(end)?
            }
        };
        tracing::info!(partition = %self.name, %before, %end, ?way, "cut the log");
        let mut state = self.state();
        // A whole batch goes, which may have begun before.
        let unclean = truncation == Truncation::Unclean || end < state.replica.high_watermark();
        let truncation = if unclean { Truncation::Unclean } else { Truncation::Clean };
        state.replica.truncated(end, truncation).map_err(|refusal| {
            Error::invalid(format!("{} was cut at {end}, against {refusal:?}", self.name))
        })?;
        Ok(end)
    }
}
