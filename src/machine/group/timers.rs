//! Deadlines in order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::TimestampMs;

/// What a deadline is for. A key has one deadline at most.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TimerKey {
    /// Look for offsets that have expired.
    OffsetExpiry,
    /// A deadline of one group.
    Group(Arc<str>, GroupTimer),
}

/// What a deadline of a group is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum GroupTimer {
    /// The join phase of a classic group ends.
    ClassicJoin,
    /// The sync phase of a classic group ends.
    ClassicSync,
    /// A member, pending or not, of a classic group was silent for too long.
    ClassicSession(Arc<str>),
    /// A member of a consumer group was silent for too long.
    ConsumerSession(Arc<str>),
    /// A member of a consumer group took too long to give up partitions.
    ConsumerRebalance(Arc<str>),
    /// A classic member of a consumer group took too long to join again.
    ConsumerJoin(Arc<str>),
    /// A classic member of a consumer group took too long to sync.
    ConsumerSync(Arc<str>),
}

/// The deadlines of a shard: set, moved and cancelled in O(log n).
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: BTreeMap<TimerKey, TimestampMs>,
    order: BTreeSet<(TimestampMs, TimerKey)>,
}

impl Timers {
    /// Sets the deadline of `key`, in place of the one it had.
    pub(super) fn set(&mut self, key: TimerKey, deadline: TimestampMs) {
        if let Some(before) = self.deadlines.insert(key.clone(), deadline) {
            if before == deadline {
                return;
            }
            let entry = (before, key);
            self.order.remove(&entry);
            self.order.insert((deadline, entry.1));
        } else {
            self.order.insert((deadline, key));
        }
    }

    /// Removes the deadline of `key`.
    pub(super) fn cancel(&mut self, key: &TimerKey) {
        if let Some((key, deadline)) = self.deadlines.remove_entry(key) {
            self.order.remove(&(deadline, key));
        }
    }

    /// Removes every deadline of a group.
    pub(super) fn cancel_group(&mut self, group: &Arc<str>) {
        let first = TimerKey::Group(Arc::clone(group), GroupTimer::ClassicJoin);
        let of_group = |key: &TimerKey| matches!(key, TimerKey::Group(name, _) if name == group);
        loop {
            let Some((key, _)) = self.deadlines.range(&first..).next() else { return };
            if !of_group(key) {
                return;
            }
            let key = key.clone();
            self.cancel(&key);
        }
    }

    /// Moves every deadline.
    pub(super) fn shift(&mut self, by_ms: i64) {
        for deadline in self.deadlines.values_mut() {
            *deadline = deadline.plus(by_ms);
        }
        let moved = std::mem::take(&mut self.order).into_iter();
        self.order = moved.map(|(deadline, key)| (deadline.plus(by_ms), key)).collect();
    }

    /// The deadline of `key`.
    pub(super) fn get(&self, key: &TimerKey) -> Option<TimestampMs> {
        self.deadlines.get(key).copied()
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<TimestampMs> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// Takes the earliest deadline that has been reached.
    pub(super) fn pop_due(&mut self, now: TimestampMs) -> Option<TimerKey> {
        if self.next()? > now {
            return None;
        }
        let (_, key) = self.order.pop_first()?;
        self.deadlines.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(group: &str, member: &str) -> TimerKey {
        TimerKey::Group(group.into(), GroupTimer::ClassicSession(member.into()))
    }

    #[test]
    fn a_key_has_one_deadline_and_the_earliest_is_due_first() {
        let mut timers = Timers::default();
        timers.set(key("g", "a"), TimestampMs(10));
        timers.set(key("g", "b"), TimestampMs(5));
        timers.set(key("g", "a"), TimestampMs(3));
        assert_eq!(timers.next(), Some(TimestampMs(3)));
        assert_eq!(timers.pop_due(TimestampMs(2)), None);
        assert_eq!(timers.pop_due(TimestampMs(20)), Some(key("g", "a")));
        assert_eq!(timers.pop_due(TimestampMs(20)), Some(key("g", "b")));
        assert_eq!(timers.pop_due(TimestampMs(20)), None);
    }

    #[test]
    fn deadlines_move_with_a_clock_that_is_set() {
        let mut timers = Timers::default();
        timers.set(key("g", "a"), TimestampMs(10));
        timers.set(key("g", "b"), TimestampMs(5));
        timers.shift(-4);
        assert_eq!(timers.next(), Some(TimestampMs(1)));
        timers.shift(100);
        assert_eq!(timers.get(&key("g", "a")), Some(TimestampMs(106)));
        timers.set(key("g", "b"), TimestampMs(200));
        assert_eq!(timers.pop_due(TimestampMs(106)), Some(key("g", "a")));
        assert_eq!(timers.next(), Some(TimestampMs(200)));
    }

    #[test]
    fn the_deadlines_of_a_group_go_together() {
        let mut timers = Timers::default();
        timers.set(TimerKey::OffsetExpiry, TimestampMs(1));
        timers.set(key("f", "a"), TimestampMs(1));
        timers.set(key("g", "a"), TimestampMs(1));
        timers.set(key("g", "b"), TimestampMs(1));
        timers.set(TimerKey::Group("g".into(), GroupTimer::ClassicSync), TimestampMs(1));
        timers.set(key("h", "a"), TimestampMs(1));
        timers.cancel_group(&"g".into());
        assert_eq!(timers.deadlines.len(), 3);
        assert_eq!(timers.order.len(), 3);
        assert_eq!(timers.get(&key("g", "a")), None);
        assert_eq!(timers.get(&key("h", "a")), Some(TimestampMs(1)));
    }
}
