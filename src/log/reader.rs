//! Reading a log from any thread, without a lock.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::epochs::{Divergence, EpochEnd, EpochEntry};
use super::producers::{AbortedTransaction, ProducerState};
use super::segment::{ReadBatches, SegmentRead, Want};
use super::shared::Shared;
use super::verification::{FirstBatch, Guard};
use crate::error::{Error, ErrorCode, Result};
use crate::types::{LeaderEpoch, Offset, ProducerId, Stored, TimestampMs};

/// What to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The batch that holds this offset comes first.
    pub offset: Offset,
    /// At most this many bytes.
    pub max_bytes: u64,
    /// No batch that reaches this offset or beyond: the high watermark, the last stable offset or the
    /// log end offset.
    pub upper: Offset,
    /// Whether the first batch is returned even when it alone is larger than `max_bytes` (KIP-74).
    pub at_least_one: bool,
}

/// Whole batches, as they are on disk.
#[derive(Clone, Debug)]
pub struct ReadResult {
    /// The batches; empty when there is nothing to read. They stay valid after the log is closed, cut and
    /// deleted. What is not committed is a copy; what is, is not.
    pub records: Bytes,
    /// Where they are stored, for sockets that can send bytes from files directly.
    pub stored: Option<Stored>,
    /// The base offset of the first batch, which may be below the requested offset; the requested
    /// offset when there is none.
    pub base_offset: Offset,
    /// The offset to read next.
    pub next_offset: Offset,
    /// The log start offset.
    pub log_start_offset: Offset,
    /// The log end offset.
    pub log_end_offset: Offset,
}

/// A segment that nothing is appended to any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its first offset.
    pub base_offset: Offset,
    /// Where the next segment begins.
    pub end_offset: Offset,
    /// Its size.
    pub size_bytes: u64,
}

/// Reads a log; cheap to clone, valid for as long as it is held.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

/// The high watermark of a log. It belongs to the log because of what may be mapped (ADR 0006), and is moved by
/// whoever knows what the replicas have, on any thread but one at a time.
#[derive(Debug)]
pub struct HighWatermark {
    pub(super) shared: Arc<Shared>,
}

impl HighWatermark {
    /// Where it is.
    #[must_use]
    pub fn get(&self) -> Offset {
        self.shared.high_watermark()
    }

    /// Moves it to `offset`, at most to the log end; it does not go back.
    pub fn raise(&self, offset: Offset) {
        self.shared.raise_high_watermark(offset.min(self.shared.log_end()));
    }
}

/// Begins the verification of transactions, on any thread.
#[derive(Clone, Debug)]
pub struct Verifier {
    pub(super) shared: Arc<Shared>,
}

/// How often a read starts over because its segment was deleted or rewritten meanwhile.
const RETRIES_MAX: usize = 3;

impl LogReader {
    /// The first offset that may be read.
    #[must_use]
    pub fn log_start_offset(&self) -> Offset {
        self.shared.log_start()
    }

    /// The first offset that may be read from this disk; never below the log start offset.
    #[must_use]
    pub fn local_start_offset(&self) -> Offset {
        self.shared.local_start()
    }

    /// The offset behind the last one that the tier is known to have; none without a tier, and before that is known.
    #[must_use]
    pub fn tiered_end_offset(&self) -> Option<Offset> {
        Some(self.shared.tiered_end()).filter(|end| end.0 >= 0)
    }

    /// The offset that the next record gets.
    #[must_use]
    pub fn log_end_offset(&self) -> Offset {
        self.shared.log_end()
    }

    /// The end of what is committed, as far as the log was told by a [`HighWatermark`].
    #[must_use]
    pub fn high_watermark(&self) -> Offset {
        self.shared.high_watermark()
    }

    /// Every offset below it survives a power cut.
    #[must_use]
    pub fn recovery_point(&self) -> Offset {
        self.shared.synced().recovery_point
    }

    /// The most bytes that the records of a batch may have uncompressed.
    #[must_use]
    pub fn uncompressed_bytes_max(&self) -> usize {
        self.shared.uncompressed_bytes_max
    }

    /// The size of all segments.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.shared.view.load().segments.iter().map(|segment| segment.size()).sum()
    }

    /// The number of segments.
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.shared.view.load().segments.len()
    }

    /// The closed segments that lie wholly below an offset, oldest first.
    #[must_use]
    pub fn closed_segments(&self, upper: Offset) -> Vec<ClosedSegment> {
        let view = self.shared.view.load();
        let following = view.segments.iter().skip(1);
        let closed = view.segments.iter().zip(following).map(|(segment, next)| ClosedSegment {
            base_offset: segment.base_offset,
            end_offset: next.base_offset,
            size_bytes: segment.size(),
        });
        closed.take_while(|segment| segment.end_offset <= upper).collect()
    }

    /// Reads whole batches. May wait for the disk: see [`LogReader::is_cold`].
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] outside of [log start, log end]; [`Error::Corrupt`] when a batch is
    /// not what was written; [`Error::Offline`].
    pub fn read(&self, request: ReadRequest) -> Result<ReadResult> {
        self.shared.health.check()?;
        self.retrying(|| self.try_read(&request))
    }

    fn try_read(&self, request: &ReadRequest) -> Result<ReadResult> {
        let log_end_offset = self.shared.log_end();
        self.check_range(request.offset, log_end_offset)?;
        let want = Want {
            offset: request.offset,
            max_bytes: request.max_bytes,
            upper: request.upper.min(log_end_offset),
            at_least_one: request.at_least_one,
        };
        let read = if want.offset < want.upper { self.read_view(&want)? } else { None };
        let read = read.unwrap_or_else(|| ReadBatches {
            records: Bytes::new(),
            stored: None,
            base_offset: request.offset,
            next_offset: request.offset,
        });
        Ok(ReadResult {
            records: read.records,
            stored: read.stored,
            base_offset: read.base_offset,
            next_offset: read.next_offset,
            log_start_offset: self.shared.log_start(),
            log_end_offset,
        })
    }

    fn read_view(&self, want: &Want) -> Result<Option<ReadBatches>> {
        let view = self.shared.view.load();
        let epochs = self.shared.epochs.load();
        for segment in view.segments.iter().skip(view.index_of(want.offset)) {
            if segment.base_offset >= want.upper {
                break;
            }
            if segment.next_offset() <= want.offset || segment.size() == 0 {
                continue;
            }
            match segment.read(want, &epochs)? {
                SegmentRead::Batches(read) => return Ok(Some(read)),
                SegmentRead::Stop => return Ok(None),
                SegmentRead::Beyond => {}
            }
        }
        Ok(None)
    }

    /// Whether an offset is in the segments here.
    fn check_range(&self, offset: Offset, end: Offset) -> Result<()> {
        let start = self.shared.local_start();
        if offset < start || offset > end {
            let partition = self.shared.partition.clone();
            return Err(Error::OffsetOutOfRange { partition, offset, start, end });
        }
        Ok(())
    }

    /// A segment's file may disappear between the load of the view and the opening of the file. The
    /// view has then changed too, and loading it again gives the answer. What is read into a buffer while the log
    /// is cut may be torn (`CUT-2`), and is read again.
    fn retrying<T>(&self, attempt: impl Fn() -> Result<T>) -> Result<T> {
        let mut left = RETRIES_MAX;
        loop {
            let cuts = self.shared.cuts();
            let before = self.shared.view.load_full();
            let done = attempt();
            left -= 1;
            match &done {
                _ if cuts != self.shared.cuts() => left = RETRIES_MAX,
                Err(Error::Io { source, .. })
                    if left > 0
                        && matches!(
                            source.kind(),
                            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof
                        )
                        && !Arc::ptr_eq(&before, &self.shared.view.load()) => {}
                _ => return done,
            }
        }
    }

    /// Whether [`LogReader::read`] would probably wait for the disk, because the range was neither
    /// appended nor read by this process before: such a read belongs on a blocking thread.
    #[must_use]
    pub fn is_cold(&self, request: &ReadRequest) -> bool {
        let upper = request.upper.min(self.shared.log_end());
        if request.offset >= upper || request.offset < self.shared.local_start() {
            return false;
        }
        let want = Want {
            offset: request.offset,
            max_bytes: request.max_bytes,
            upper,
            at_least_one: request.at_least_one,
        };
        let view = self.shared.view.load();
        view.segments.get(view.index_of(want.offset)).is_some_and(|segment| segment.is_cold(&want))
    }

    /// The first record below `upper` that is at least as late as `timestamp`: its timestamp, offset
    /// and leader epoch. May wait for the disk.
    pub fn offset_for_timestamp(
        &self,
        timestamp: TimestampMs,
        upper: Offset,
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        self.shared.health.check()?;
        self.retrying(|| {
            let upper = upper.min(self.shared.log_end());
            let from = self.shared.local_start();
            let epochs = self.shared.epochs.load();
            let view = self.shared.view.load();
            for segment in view.segments.iter().skip(view.index_of(from)) {
                if segment.base_offset >= upper || segment.size() == 0 {
                    continue;
                }
                if segment.max_timestamp()? < timestamp {
                    continue;
                }
                let limits = (self.shared.uncompressed_bytes_max, &**epochs);
                let found = segment.find_timestamp(timestamp, from, upper, limits)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        })
    }

    /// The first record with the largest timestamp of the log below `upper` (KIP-734). May wait
    /// for the disk.
    pub fn max_timestamp(
        &self,
        upper: Offset,
    ) -> Result<Option<(TimestampMs, Offset, LeaderEpoch)>> {
        self.shared.health.check()?;
        let largest = self.retrying(|| {
            let view = self.shared.view.load();
            let mut largest = TimestampMs::NONE;
            for segment in view.segments.iter().filter(|segment| segment.size() > 0) {
                largest = largest.max(segment.max_timestamp()?);
            }
            Ok(largest)
        })?;
        if largest.0 < 0 { Ok(None) } else { self.offset_for_timestamp(largest, upper) }
    }

    /// The largest epoch that is at most `epoch`, and the offset where it ends (KIP-101, KIP-279).
    #[must_use]
    pub fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<EpochEnd> {
        let end = self.shared.log_end();
        self.shared.epochs.load().end_offset_for(epoch, end)
    }

    /// Where a copy diverges from this log that ends at `offset` with a record of `last_epoch` (KIP-595).
    #[must_use]
    pub fn divergence(&self, last_epoch: LeaderEpoch, offset: Offset) -> Divergence {
        let end = self.shared.log_end();
        self.shared.epochs.load().divergence(last_epoch, offset, end)
    }

    /// Where this log is to be cut when its leader's diverges from it. See [`EpochCache::common_end`](super::epochs::EpochCache::common_end).
    #[must_use]
    pub fn common_end(&self, leader: EpochEnd) -> Offset {
        self.shared.epochs.load().common_end(leader, self.shared.log_end())
    }

    /// The epoch of the last record; none when there is no record.
    #[must_use]
    pub fn last_epoch(&self) -> Option<LeaderEpoch> {
        let (start, end) = (self.shared.log_start(), self.shared.log_end());
        if end > start { self.epoch_of(Offset(end.0 - 1)) } else { None }
    }

    /// The epoch that the record at `offset` was written in.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.shared.epochs.load().epoch_of(offset)
    }

    /// The leaders' terms, oldest first.
    #[must_use]
    pub fn epochs(&self) -> Vec<EpochEntry> {
        self.shared.epochs.load().entries().to_vec()
    }

    /// The idempotent and transactional producers, by id.
    #[must_use]
    pub fn producers(&self) -> Vec<ProducerState> {
        self.shared.producers().states().cloned().collect()
    }

    /// One of them.
    #[must_use]
    pub fn producer(&self, id: ProducerId) -> Option<ProducerState> {
        self.shared.producers().get(id).cloned()
    }

    /// What begins the verification of transactions.
    #[must_use]
    pub fn verifier(&self) -> Verifier {
        Verifier { shared: Arc::clone(&self.shared) }
    }

    /// Where `read_committed` consumers must stop: the start of the first transaction that is open or
    /// whose end is not yet below the high watermark.
    #[must_use]
    pub fn last_stable_offset(&self) -> Offset {
        self.shared.last_stable_offset()
    }

    /// The aborted transactions with records in `[start, end)`, by first offset.
    #[must_use]
    pub fn aborted_transactions(&self, start: Offset, end: Offset) -> Vec<AbortedTransaction> {
        let aborted = self.shared.aborted();
        let from = aborted.partition_point(|entry| entry.last_offset < start);
        let mut found = Vec::new();
        for entry in aborted.get(from..).unwrap_or_default() {
            if entry.first_offset < end {
                found.push(*entry);
            }
            // Whatever ended later began behind what was stable then.
            if entry.last_stable_offset >= end {
                break;
            }
        }
        found.sort_by_key(|entry| entry.first_offset);
        found
    }
}

impl Verifier {
    /// Before the first batch of a transaction is verified: whoever appends it must show the guard. None when the
    /// transaction is open here, so that nothing is to be verified.
    ///
    /// # Errors
    ///
    /// `INVALID_PRODUCER_EPOCH` when the epoch of the producer is over.
    pub fn begin(&self, batch: &FirstBatch, now: TimestampMs) -> Result<Option<Guard>> {
        let producers = self.shared.producers();
        if let Some(state) = producers.get(batch.producer_id) {
            if batch.producer_epoch < state.epoch {
                let (id, epoch, newer) = (batch.producer_id, batch.producer_epoch, state.epoch);
                let detail =
                    format!("producer {id} with epoch {epoch}: epoch {newer} of it is newer");
                return Err(Error::kafka(ErrorCode::InvalidProducerEpoch, detail));
            }
            if state.has_open_transaction(batch.producer_epoch) {
                return Ok(None);
            }
        }
        Ok(Some(self.shared.verifications().begin(batch, now)))
    }

    /// Whether a verification that has begun still counts.
    #[must_use]
    pub fn accepts(&self, producer: ProducerId, guard: Guard) -> bool {
        self.shared.verifications().accept(producer, Some(guard))
    }

    /// The coordinator refused for good: the guard is worth nothing any more.
    pub fn give_up(&self, batch: &FirstBatch, guard: Guard) {
        self.shared.verifications().give_up(batch, guard);
    }
}
