//! What the writer of a log publishes to its readers.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use arc_swap::ArcSwap;

use super::epochs::EpochCache;
use super::health::Health;
use super::producers::{AbortedTransaction, Producers};
use super::segment::Segment;
use super::stability::Stability;
use super::verification::Verifications;
use crate::env::File;
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::types::{Offset, TopicPartition};

/// The segments of a log, oldest first; never empty, the last is the active one.
#[derive(Debug)]
pub(super) struct View {
    pub(super) segments: Vec<Arc<Segment>>,
}

impl View {
    /// The index of the segment whose range holds `offset`; the first for earlier offsets.
    pub(super) fn index_of(&self, offset: Offset) -> usize {
        self.segments.partition_point(|segment| segment.base_offset <= offset).saturating_sub(1)
    }
}

/// How far the log is durable. The generation changes when the log is truncated, so that a sync
/// begun earlier does not claim offsets that now mean other records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Synced {
    pub(super) generation: u64,
    pub(super) recovery_point: Offset,
}

/// What must be synced besides the active segment's batches. Entries stay listed until a sync that
/// covers them succeeds, so that no later sync can claim more than is durable (`SYN-1`).
#[derive(Debug, Default)]
pub(super) struct Dirty {
    /// Rises with every change.
    pub(super) mark: u64,
    /// Sealed segments, indexes and snapshots, each with the mark of its change.
    pub(super) files: Vec<(u64, Arc<dyn File>)>,
    /// The mark of the last creation, rename or removal of a file.
    pub(super) directory: Option<u64>,
    /// The mark of the last change of the leader epochs.
    pub(super) epochs: Option<u64>,
}

impl Dirty {
    pub(super) fn file(&mut self, file: Arc<dyn File>) {
        self.mark += 1;
        self.files.push((self.mark, file));
        self.directory = Some(self.mark);
    }

    /// A file whose name is durable, or will be: each time that it has grown. It is listed once.
    pub(super) fn grown(&mut self, file: &Arc<dyn File>) {
        self.mark += 1;
        self.files.retain(|(_, listed)| !Arc::ptr_eq(listed, file));
        self.files.push((self.mark, Arc::clone(file)));
    }

    pub(super) fn directory(&mut self) {
        self.mark += 1;
        self.directory = Some(self.mark);
    }

    pub(super) fn epochs(&mut self) {
        self.mark += 1;
        self.epochs = Some(self.mark);
    }

    /// Records that everything up to `mark` is durable.
    pub(super) fn done(&mut self, mark: u64) {
        self.files.retain(|(changed, _)| *changed > mark);
        self.directory = self.directory.filter(|&changed| changed > mark);
        self.epochs = self.epochs.filter(|&changed| changed > mark);
    }
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) partition: TopicPartition,
    pub(super) view: ArcSwap<View>,
    pub(super) epochs: ArcSwap<EpochCache>,
    pub(super) health: Health,
    pub(super) uncompressed_bytes_max: usize,
    log_start: AtomicI64,
    local_start: AtomicI64,
    /// Where the tier starts and ends, as far as that is known: -1 at first.
    tiered_start: AtomicI64,
    tiered_end: AtomicI64,
    log_end: AtomicI64,
    high_watermark: AtomicI64,
    /// How often files that a reader may have open were cut or replaced.
    cuts: AtomicU64,
    synced: Mutex<Synced>,
    dirty: Mutex<Dirty>,
    producers: Mutex<Producers>,
    stability: Stability,
    /// Locked after the producers, where both are.
    verifications: Mutex<Verifications>,
    /// Oldest marker first.
    aborted: RwLock<Vec<AbortedTransaction>>,
}

impl Shared {
    pub(super) fn new(
        partition: TopicPartition,
        health: Health,
        uncompressed_bytes_max: usize,
    ) -> Self {
        Self {
            partition,
            view: ArcSwap::from_pointee(View { segments: Vec::new() }),
            epochs: ArcSwap::default(),
            health,
            uncompressed_bytes_max,
            log_start: AtomicI64::new(0),
            local_start: AtomicI64::new(0),
            tiered_start: AtomicI64::new(Offset::UNKNOWN.0),
            tiered_end: AtomicI64::new(Offset::UNKNOWN.0),
            log_end: AtomicI64::new(0),
            high_watermark: AtomicI64::new(0),
            cuts: AtomicU64::new(0),
            synced: Mutex::new(Synced { generation: 0, recovery_point: Offset::ZERO }),
            dirty: Mutex::default(),
            producers: Mutex::default(),
            stability: Stability::new(),
            verifications: Mutex::default(),
            aborted: RwLock::default(),
        }
    }

    /// The first offset that may be read.
    pub(super) fn log_start(&self) -> Offset {
        Offset(self.log_start.load(Ordering::Acquire))
    }

    /// The first offset that may be read from the segments here. It is the log start as long as there is no other
    /// place to read from; a tier keeps what lies between the two.
    pub(super) fn local_start(&self) -> Offset {
        Offset(self.local_start.load(Ordering::Acquire))
    }

    /// The tier has every record of the log before it; [`Offset::UNKNOWN`] as long as nobody has said so.
    pub(super) fn tiered_end(&self) -> Offset {
        Offset(self.tiered_end.load(Ordering::Acquire))
    }

    /// Where the tier starts; [`Offset::UNKNOWN`] as long as nobody has said so.
    pub(super) fn tiered_start(&self) -> Offset {
        Offset(self.tiered_start.load(Ordering::Acquire))
    }

    /// What the tier has may shrink, too, when its files are found not to be of this log.
    pub(super) fn set_tiered(&self, start: Offset, end: Offset) {
        self.tiered_start.store(start.0, Ordering::Release);
        self.tiered_end.store(end.0, Ordering::Release);
    }

    /// Nothing is known of the tier any more.
    pub(super) fn forget_tiered(&self) {
        self.set_tiered(Offset::UNKNOWN, Offset::UNKNOWN);
    }

    pub(super) fn log_end(&self) -> Offset {
        Offset(self.log_end.load(Ordering::Acquire))
    }

    /// What lies below is not cut but by an unclean election, and may be mapped.
    pub(super) fn high_watermark(&self) -> Offset {
        Offset(self.high_watermark.load(Ordering::Acquire))
    }

    /// Moves the high watermark on, and what may be mapped with it, before anybody is told.
    pub(super) fn raise_high_watermark(&self, offset: Offset) {
        let before = self.high_watermark();
        if offset <= before {
            return;
        }
        let view = self.view.load();
        let passed = view.segments.iter().skip(view.index_of(before));
        for segment in passed.take_while(|segment| segment.base_offset < offset) {
            segment.commit(offset);
        }
        self.high_watermark.store(offset.0, Ordering::Release);
        if self.stability.is_changed_by(offset) {
            self.change_producers(|producers| producers.on_high_watermark(offset));
        }
    }

    /// The end of what `read_committed` consumers may see (`STB-1`).
    pub(super) fn last_stable_offset(&self) -> Offset {
        let high_watermark = self.high_watermark();
        let first_unstable = self.stability.first_unstable();
        #[cfg(feature = "sim")]
        if is_planted(Mutation::ShowsOpenTransactions) {
            return high_watermark;
        }
        if first_unstable >= high_watermark {
            return high_watermark;
        }
        // Records of an open transaction may have been deleted.
        first_unstable.max(self.log_start()).min(high_watermark)
    }

    /// Sets the high watermark, in a log that nobody reads yet, or that starts over or was cut below it.
    pub(super) fn reset_high_watermark(&self, offset: Offset) {
        self.high_watermark.store(offset.0, Ordering::Release);
    }

    pub(super) fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::Acquire)
    }

    /// Tells readers that what they read from a file by now may be torn. Must be called between publishing the
    /// new view and changing a file: then whoever finds the same number before and after reading has read
    /// what his view says.
    pub(super) fn note_cut(&self) {
        self.cuts.fetch_add(1, Ordering::AcqRel);
    }

    /// Nothing before `offset` is in the log any more, here or elsewhere.
    pub(super) fn raise_log_start(&self, offset: Offset) {
        // What is here never starts before the log, whoever looks when.
        self.raise_local_start(offset);
        self.log_start.fetch_max(offset.0, Ordering::AcqRel);
    }

    /// Nothing before `offset` is on this disk any more.
    pub(super) fn raise_local_start(&self, offset: Offset) {
        self.local_start.fetch_max(offset.0, Ordering::AcqRel);
    }

    /// Sets where a log starts that is opened, starts over, or was cut to before its start: altogether, and on this disk.
    pub(super) fn open_at(&self, log_start: Offset, local_start: Offset) {
        self.log_start.store(log_start.0, Ordering::Release);
        self.local_start.store(local_start.max(log_start).0, Ordering::Release);
    }

    /// Publishes the end; the segments must have been published before.
    pub(super) fn set_log_end(&self, offset: Offset) {
        self.log_end.store(offset.0, Ordering::Release);
    }

    pub(super) fn synced(&self) -> MutexGuard<'_, Synced> {
        self.synced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dirty(&self) -> MutexGuard<'_, Dirty> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn producers(&self) -> MutexGuard<'_, Producers> {
        self.producers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of the producers, and publishes what of the log is stable then.
    pub(super) fn change_producers<R>(&self, change: impl FnOnce(&mut Producers) -> R) -> R {
        let mut producers = self.producers();
        let result = change(&mut producers);
        self.stability.publish(&producers);
        result
    }

    pub(super) fn verifications(&self) -> MutexGuard<'_, Verifications> {
        self.verifications.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn aborted(&self) -> RwLockReadGuard<'_, Vec<AbortedTransaction>> {
        self.aborted.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn aborted_mut(&self) -> RwLockWriteGuard<'_, Vec<AbortedTransaction>> {
        self.aborted.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_log_may_start_before_what_is_on_this_disk_but_not_after() {
        let shared =
            Shared::new(TopicPartition::new("orders", 0), Health::new(Path::new("data")), 1);
        let starts = || (shared.log_start().0, shared.local_start().0);
        shared.raise_local_start(Offset(5));
        assert_eq!(starts(), (0, 5));
        shared.raise_log_start(Offset(3));
        assert_eq!(starts(), (3, 5));
        shared.raise_log_start(Offset(7));
        assert_eq!(starts(), (7, 7));
        shared.raise_log_start(Offset(2));
        shared.raise_local_start(Offset(6));
        assert_eq!(starts(), (7, 7));
    }
}
