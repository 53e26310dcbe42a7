//! The high watermark of a partition, as its leader computes it.
//!
//! Why: a consumer may only see records that no single failure can take back, and an `acks=all`
//! reply may only be sent for such records. Both are the same line, the high watermark.
//!
//! Invariants:
//! - `HW-1` the high watermark never moves back while the leader epoch lasts.
//! - `HW-2` it is never beyond the end of any member of the ISR, where the leader's own end is its
//!   log end, or its synced end when the partition's durability is fsync.
//! - `HW-3` it is never before the log start offset.
//!
//! ```text
//! log start <= high watermark <= synced end (fsync) <= log end
//!                             <= end of each follower in the ISR
//! ```
//!
//! Pure: the shell reports appends, syncs and fetches of followers, and publishes what comes back.

use std::collections::BTreeMap;

use crate::types::{NodeId, Offset};

/// What the leader's own copy counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalDurability {
    /// What was written counts; the operating system has it (`durability=os`, or replicated).
    Written,
    /// What was synced counts (`durability=fsync`, or one copy only).
    Synced,
}

/// The leader's view of a partition's replicas.
#[derive(Debug)]
pub struct Leader {
    durability: LocalDurability,
    log_end: Offset,
    synced_end: Offset,
    /// The log end offsets of the followers in the ISR.
    followers: BTreeMap<NodeId, Offset>,
    high_watermark: Offset,
}

impl Leader {
    /// A leader whose whole log was found on disk, and is synced there.
    pub fn new(durability: LocalDurability, log_end: Offset) -> Self {
        let (synced_end, high_watermark) = (log_end, log_end);
        Self { durability, log_end, synced_end, followers: BTreeMap::new(), high_watermark }
    }

    /// The line up to which consumers may read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether an append must be followed by a sync for the high watermark to move.
    pub fn needs_sync(&self) -> bool {
        self.durability == LocalDurability::Synced && self.synced_end < self.log_end
    }

    /// The leader appended up to `log_end`. Returns the high watermark when it moved.
    pub fn appended(&mut self, log_end: Offset) -> Option<Offset> {
        self.log_end = self.log_end.max(log_end);
        self.advance()
    }

    /// Everything before `end` is on stable storage. Returns the high watermark when it moved.
    pub fn synced(&mut self, end: Offset) -> Option<Offset> {
        self.synced_end = self.synced_end.max(end.min(self.log_end));
        self.advance()
    }

    /// The durability of the partition was changed. Returns the high watermark when it moved; it
    /// stays where it is when the new rule would put it further back.
    pub fn set_durability(&mut self, durability: LocalDurability) -> Option<Offset> {
        self.durability = durability;
        self.advance()
    }

    /// The log starts at `offset` now. Returns the high watermark when it had to follow.
    pub fn log_started_at(&mut self, offset: Offset) -> Option<Offset> {
        if offset <= self.high_watermark {
            return None;
        }
        self.log_end = self.log_end.max(offset);
        self.synced_end = self.synced_end.max(offset);
        self.high_watermark = offset;
        Some(offset)
    }

    /// Follower `node` is in the ISR and has everything before `end`.
    pub fn follower_at(&mut self, node: NodeId, end: Offset) -> Option<Offset> {
        self.followers.insert(node, end);
        self.advance()
    }

    /// Follower `node` left the ISR.
    pub fn follower_left(&mut self, node: NodeId) -> Option<Offset> {
        self.followers.remove(&node);
        self.advance()
    }

    fn advance(&mut self) -> Option<Offset> {
        let own = match self.durability {
            LocalDurability::Written => self.log_end,
            LocalDurability::Synced => self.synced_end,
        };
        let line = self.followers.values().copied().fold(own, Ord::min);
        if line <= self.high_watermark {
            return None;
        }
        self.high_watermark = line;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_records_are_visible_at_once_without_fsync() {
        let mut leader = Leader::new(LocalDurability::Written, Offset(5));
        assert_eq!(leader.high_watermark(), Offset(5));
        assert_eq!(leader.appended(Offset(8)), Some(Offset(8)));
        assert!(!leader.needs_sync());
        assert_eq!(leader.appended(Offset(8)), None);
    }

    #[test]
    fn with_fsync_a_record_is_visible_once_it_is_synced() {
        let mut leader = Leader::new(LocalDurability::Synced, Offset(0));
        assert_eq!(leader.appended(Offset(3)), None);
        assert!(leader.needs_sync());
        assert_eq!(leader.appended(Offset(6)), None);
        assert_eq!(leader.synced(Offset(3)), Some(Offset(3)));
        assert!(leader.needs_sync());
        assert_eq!(leader.synced(Offset(100)), Some(Offset(6)), "never beyond the log end");
        assert!(!leader.needs_sync());
    }

    #[test]
    fn a_stricter_durability_does_not_take_records_back() {
        let mut leader = Leader::new(LocalDurability::Written, Offset(0));
        leader.appended(Offset(4));
        assert_eq!(leader.set_durability(LocalDurability::Synced), None);
        assert_eq!(leader.high_watermark(), Offset(4));
        leader.appended(Offset(5));
        assert_eq!(leader.high_watermark(), Offset(4));
        assert_eq!(leader.synced(Offset(5)), Some(Offset(5)));
    }

    #[test]
    fn high_watermark_follows_the_slowest_replica() {
        let mut leader = Leader::new(LocalDurability::Written, Offset(0));
        leader.follower_at(NodeId(2), Offset(0));
        leader.follower_at(NodeId(3), Offset(0));
        assert_eq!(leader.appended(Offset(10)), None);
        assert_eq!(leader.follower_at(NodeId(2), Offset(10)), None);
        assert_eq!(leader.follower_at(NodeId(3), Offset(7)), Some(Offset(7)));
        assert_eq!(leader.follower_left(NodeId(3)), Some(Offset(10)));
    }

    #[test]
    fn a_log_that_starts_later_pulls_the_high_watermark_along() {
        let mut leader = Leader::new(LocalDurability::Synced, Offset(2));
        assert_eq!(leader.log_started_at(Offset(1)), None);
        assert_eq!(leader.log_started_at(Offset(9)), Some(Offset(9)));
        assert_eq!(leader.high_watermark(), Offset(9));
    }
}
