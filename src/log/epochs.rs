//! Which leader wrote which offsets (KIP-101, KIP-279, KIP-320).
//!
//! A list of (epoch, first offset), ascending in both, kept in `leader-epoch-checkpoint`. Followers
//! and consumers use it to find where their log diverges from the leader's.

use crate::types::{LeaderEpoch, Offset};

use super::checkpoint;

/// One leader's term.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEntry {
    /// The epoch.
    pub epoch: LeaderEpoch,
    /// The log end when its leader was made, and so the offset of its first record, once there is one.
    pub start_offset: Offset,
}

/// Where a term ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The term.
    pub epoch: LeaderEpoch,
    /// The offset after its last record.
    pub end_offset: Offset,
}

/// How a copy that ends somewhere compares with a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Divergence {
    /// It is a prefix of the log, as far as epochs tell.
    None,
    /// It has records that the log has not, and is to be cut: to where this term ended, or to where the copy's last
    /// term up to this one did, whichever comes first.
    At(EpochEnd),
    /// The log does not reach back far enough to tell.
    Unknown,
}

/// The terms of a log, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EpochCache {
    entries: Vec<EpochEntry>,
}

impl EpochCache {
    /// These terms; none when they do not ascend.
    pub(super) fn of(entries: &[EpochEntry]) -> Option<Self> {
        let ascend = |(one, next): (&EpochEntry, &EpochEntry)| {
            one.epoch < next.epoch && one.start_offset <= next.start_offset
        };
        let follow = entries.iter().zip(entries.iter().skip(1)).all(ascend);
        follow.then(|| Self { entries: entries.to_vec() })
    }

    /// The terms, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[EpochEntry] {
        &self.entries
    }

    /// The newest epoch, which may have no record yet.
    #[must_use]
    pub fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|entry| entry.epoch)
    }

    /// The epoch that the record at `offset` was written in.
    #[must_use]
    pub fn epoch_of(&self, offset: Offset) -> Option<LeaderEpoch> {
        let after = self.entries.partition_point(|entry| entry.start_offset <= offset);
        Some(self.entries.get(after.checked_sub(1)?)?.epoch)
    }

    /// Records that a batch of `epoch` starts at `offset`; returns whether that is a new term.
    ///
    /// Entries that contradict it (a later epoch, or a later start) are dropped, as Kafka does.
    pub(super) fn assign(&mut self, epoch: LeaderEpoch, offset: Offset) -> bool {
        if epoch.0 < 0 || self.latest() == Some(epoch) {
            return false;
        }
        self.entries.retain(|entry| entry.epoch < epoch && entry.start_offset < offset);
        self.entries.push(EpochEntry { epoch, start_offset: offset });
        true
    }

    /// Records a batch found by recovery: only an epoch newer than the known ones matters.
    pub(super) fn assign_if_newer(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if self.latest().is_none_or(|latest| epoch > latest) {
            self.assign(epoch, offset);
        }
    }

    /// Forgets terms that start at `end` or later; returns whether there were any.
    pub(super) fn truncate_end(&mut self, end: Offset) -> bool {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.start_offset < end);
        self.entries.len() != before
    }

    /// Forgets terms that end at `start` or earlier; the term that contains `start` then begins
    /// there.
    pub(super) fn truncate_start(&mut self, start: Offset) -> bool {
        let after = self.entries.partition_point(|entry| entry.start_offset <= start);
        let Some(holder) = after.checked_sub(1) else { return false };
        let changed =
            holder > 0 || self.entries.first().is_some_and(|first| first.start_offset != start);
        self.entries.drain(..holder);
        if let Some(first) = self.entries.first_mut() {
            first.start_offset = start;
        }
        changed
    }

    /// The largest epoch that is at most `requested` and the offset where it ends, as Kafka's
    /// `LeaderEpochFileCache.endOffsetFor`: none when the epoch is unknown or in the future.
    #[must_use]
    pub fn end_offset_for(&self, requested: LeaderEpoch, log_end: Offset) -> Option<EpochEnd> {
        if requested.0 < 0 {
            return None;
        }
        if self.latest() == Some(requested) {
            return Some(EpochEnd { epoch: requested, end_offset: log_end });
        }
        let above = self.entries.partition_point(|entry| entry.epoch <= requested);
        let end_offset = self.entries.get(above)?.start_offset;
        let floor = above.checked_sub(1).and_then(|floor| self.entries.get(floor));
        Some(EpochEnd { epoch: floor.map_or(requested, |floor| floor.epoch), end_offset })
    }

    /// Where a copy diverges that ends at `offset` with a record of `last_epoch` (KIP-595).
    #[must_use]
    pub fn divergence(
        &self,
        last_epoch: LeaderEpoch,
        offset: Offset,
        log_end: Offset,
    ) -> Divergence {
        match self.end_offset_for(last_epoch, log_end) {
            None => Divergence::Unknown,
            Some(end) if end.epoch < last_epoch || end.end_offset < offset => Divergence::At(end),
            Some(_) => Divergence::None,
        }
    }

    /// Where a copy with these terms, which ends at `log_end`, is to be cut when its leader answers that it diverges: what
    /// lies before may be the leader's.
    #[must_use]
    pub fn common_end(&self, leader: EpochEnd, log_end: Offset) -> Offset {
        let own = self.end_offset_for(leader.epoch, log_end);
        own.map_or(log_end, |own| own.end_offset).min(leader.end_offset).min(log_end)
    }

    /// The text of `leader-epoch-checkpoint`.
    pub(super) fn encode(&self) -> String {
        let lines =
            self.entries.iter().map(|entry| format!("{} {}", entry.epoch, entry.start_offset));
        checkpoint::encode(lines)
    }

    /// Reads what [`EpochCache::encode`] writes.
    ///
    /// # Errors
    ///
    /// The reason, as text.
    pub(super) fn decode(text: &str) -> Result<Self, String> {
        let mut cache = Self::default();
        for line in checkpoint::decode(text)? {
            let entry = line.split_once(' ').and_then(|(epoch, offset)| {
                Some(EpochEntry {
                    epoch: LeaderEpoch(epoch.parse().ok()?),
                    start_offset: Offset(offset.trim().parse().ok()?),
                })
            });
            let entry = entry.ok_or_else(|| format!("not an epoch and an offset: {line:?}"))?;
            let ascends = cache.entries.last().is_none_or(|last| {
                last.epoch < entry.epoch && last.start_offset <= entry.start_offset
            });
            if !ascends {
                return Err(format!("epochs do not ascend at {line:?}"));
            }
            cache.entries.push(entry);
        }
        Ok(cache)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(terms: &[(i32, i64)]) -> EpochCache {
        let mut cache = EpochCache::default();
        for &(epoch, offset) in terms {
            assert!(cache.assign(LeaderEpoch(epoch), Offset(offset)));
        }
        cache
    }

    fn check_end(cache: &EpochCache, requested: i32, expected: (i32, i64)) {
        let end = cache.end_offset_for(LeaderEpoch(requested), Offset(100));
        let found = end.map_or((-1, -1), |end| (end.epoch.0, end.end_offset.0));
        assert_eq!(found, expected, "for epoch {requested}");
    }

    #[test]
    fn an_epoch_ends_where_the_next_one_starts() {
        let cache = cache(&[(2, 10), (4, 20), (7, 50)]);
        check_end(&cache, 7, (7, 100));
        check_end(&cache, 4, (4, 50));
        check_end(&cache, 5, (4, 50));
        check_end(&cache, 2, (2, 20));
        check_end(&cache, 1, (1, 10));
        check_end(&cache, 8, (-1, -1));
        check_end(&cache, -1, (-1, -1));
        check_end(&EpochCache::default(), 3, (-1, -1));
        assert_eq!(cache.epoch_of(Offset(49)), Some(LeaderEpoch(4)));
        assert_eq!(cache.epoch_of(Offset(9)), None);
    }

    #[test]
    fn a_copy_diverges_where_its_last_epoch_ended_here() {
        let cache = cache(&[(2, 10), (4, 20), (7, 50)]);
        let check = |epoch, offset, expected: Option<Option<(i32, i64)>>| {
            let at = |(epoch, end): (i32, i64)| {
                Divergence::At(EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(end) })
            };
            let expected =
                expected.map_or(Divergence::Unknown, |end| end.map_or(Divergence::None, at));
            let found = cache.divergence(LeaderEpoch(epoch), Offset(offset), Offset(100));
            assert_eq!(found, expected, "epoch {epoch}, offset {offset}");
        };
        check(7, 80, Some(None));
        check(7, 101, Some(Some((7, 100))));
        check(4, 50, Some(None));
        check(4, 51, Some(Some((4, 50))));
        // Epochs that were never here, also where the copy is not longer.
        check(5, 40, Some(Some((4, 50))));
        check(3, 15, Some(Some((2, 20))));
        check(8, 40, None);
        check(-1, 40, None);
    }

    #[test]
    fn a_copy_is_cut_to_where_either_term_ended() {
        let copy = cache(&[(2, 10), (4, 20), (7, 50)]);
        let check = |(epoch, end), expected| {
            let leader = EpochEnd { epoch: LeaderEpoch(epoch), end_offset: Offset(end) };
            let found = copy.common_end(leader, Offset(80));
            assert_eq!(found, Offset(expected), "epoch {epoch} ends at {end}");
        };
        check((7, 60), 60);
        check((7, 90), 80);
        check((4, 45), 45);
        check((4, 55), 50);
        // Epochs that the copy has nothing of.
        check((5, 55), 50);
        check((5, 30), 30);
        check((3, 25), 20);
        check((1, 25), 10);
    }

    #[test]
    fn both_ends_are_cut_as_kafka_does() {
        let mut terms = cache(&[(2, 10), (4, 20), (7, 50)]);
        assert!(!terms.truncate_end(Offset(51)));
        assert!(terms.truncate_end(Offset(50)));
        assert!(terms.truncate_start(Offset(30)));
        assert_eq!(terms, cache(&[(4, 30)]));
        assert!(!terms.truncate_start(Offset(20)));
        assert!(!terms.truncate_start(Offset(30)));
    }

    #[test]
    fn the_file_comes_back() {
        let terms = cache(&[(0, 0), (4, 20)]);
        assert_eq!(terms.encode(), "0\n2\n0 0\n4 20\n");
        assert_eq!(EpochCache::decode(&terms.encode()), Ok(terms));
        assert!(EpochCache::decode("0\n2\n0 0\n").is_err());
        assert!(EpochCache::decode("1\n0\n").is_err());
        assert!(EpochCache::decode("0\n2\n5 0\n4 9\n").is_err());
    }
}
