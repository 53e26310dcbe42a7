//! When a member should find out whether it waits for others, and when it should report it.
//!
//! A member that died keeps its place until its session ends, 45 s by default, and everybody waits
//! for it: a rebalance is not answered, or partitions stay with it. Without a report this looks like
//! a topic without records. A member only knows that it has no answer, or that partitions are
//! missing, so after a while it asks the coordinator.
//!
//! ```text
//!   Calm ──► Doubting ── it is time ──► Asking ──► Doubting: waits, or not known; asked again
//!    ▲                                     └─────► Content: it has all that it is to have
//!    └────────── from anywhere, once the member is sure that it waits for nobody
//! ```
//!
//! - WAI-1: a wait is reported at most once, and its end only if the wait was reported.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::types::TimestampMs;

/// How long to wait silently; longer than the first rebalance of a group takes with Apache Kafka
/// (`group.initial.rebalance.delay.ms` is 3 s).
const PATIENCE_MS: i64 = 4_000;

/// How often to check whether the member still waits for others.
const PERIOD_MS: i64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Calm,
    Doubting { since: TimestampMs, ask_at: TimestampMs, told: bool },
    Asking { since: TimestampMs, told: bool },
    Content,
}

/// What the coordinator said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The member waits for others.
    Waiting,
    /// It has its whole assignment.
    Content,
    /// The group is changing right now, or there was no answer.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Ask the coordinator, and pass the answer to [`Watch::answered`].
    Ask,
    /// Report that the member waits for others.
    Tell {
        /// How long it has been waiting.
        waited_ms: i64,
    },
    /// Report that it no longer does.
    Over {
        /// How long it was waiting.
        waited_ms: i64,
    },
}

/// The watch over one member. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Watch {
    stage: Stage,
    /// The epoch in which the member was last in doubt.
    epoch: Option<i32>,
}

impl Default for Watch {
    fn default() -> Self {
        Self { stage: Stage::Calm, epoch: None }
    }
}

impl Watch {
    /// Observes the member: `doubt` is the epoch in which it may be waiting for others, none when it
    /// is sure that it is not.
    pub fn look(&mut self, now: TimestampMs, doubt: Option<i32>) -> Option<Act> {
        let is_new = std::mem::replace(&mut self.epoch, doubt) != doubt;
        if doubt.is_none() {
            let stage = std::mem::replace(&mut self.stage, Stage::Calm);
            return match stage {
                Stage::Doubting { since, told: true, .. } | Stage::Asking { since, told: true } => {
                    Some(Act::Over { waited_ms: now.0.saturating_sub(since.0) })
                }
                _ => None,
            };
        }
        match self.stage {
            Stage::Content if !is_new => None,
            Stage::Calm | Stage::Content => {
                let ask_at = now.plus(PATIENCE_MS);
                self.stage = Stage::Doubting { since: now, ask_at, told: false };
                None
            }
            Stage::Doubting { since, ask_at, told } if ask_at <= now => {
                self.stage = Stage::Asking { since, told };
                Some(Act::Ask)
            }
            Stage::Doubting { .. } | Stage::Asking { .. } => None,
        }
    }

    /// Processes the coordinator's answer.
    pub fn answered(&mut self, now: TimestampMs, standing: Standing) -> Option<Act> {
        let Stage::Asking { since, told } = self.stage else { return None };
        let waited_ms = now.0.saturating_sub(since.0);
        let is_waiting = standing == Standing::Waiting;
        if standing == Standing::Content {
            self.stage = Stage::Content;
            return told.then_some(Act::Over { waited_ms });
        }
        let ask_at = now.plus(PERIOD_MS);
        self.stage = Stage::Doubting { since, ask_at, told: told || is_waiting };
        (is_waiting && !told).then_some(Act::Tell { waited_ms })
    }

    /// When to check again.
    #[must_use]
    pub const fn next_deadline(&self) -> Option<TimestampMs> {
        match self.stage {
            Stage::Doubting { ask_at, .. } => Some(ask_at),
            Stage::Calm | Stage::Asking { .. } | Stage::Content => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: i64) -> TimestampMs {
        TimestampMs(ms)
    }

    #[test]
    fn a_wait_is_told_once_and_so_is_its_end() {
        let mut watch = Watch::default();
        assert_eq!(watch.look(at(0), Some(1)), None);
        assert_eq!(watch.look(at(3_999), Some(1)), None, "it may be over soon");
        assert_eq!(watch.next_deadline(), Some(at(4_000)));
        assert_eq!(watch.look(at(4_000), Some(1)), Some(Act::Ask));
        assert_eq!(watch.look(at(4_001), Some(1)), None, "asked once");
        let tell = Some(Act::Tell { waited_ms: 4_100 });
        assert_eq!(watch.answered(at(4_100), Standing::Waiting), tell);
        assert_eq!(watch.look(at(6_100), Some(1)), Some(Act::Ask));
        assert_eq!(watch.answered(at(6_200), Standing::Waiting), None, "it was told");
        assert_eq!(watch.look(at(8_200), Some(2)), Some(Act::Ask));
        let over = Some(Act::Over { waited_ms: 8_300 });
        assert_eq!(watch.answered(at(8_300), Standing::Content), over);
        assert_eq!(watch.look(at(99_000), Some(2)), None, "content with it");
        assert_eq!(watch.look(at(99_000), Some(3)), None, "another epoch, another doubt");
        assert_eq!(watch.look(at(103_000), Some(3)), Some(Act::Ask));
    }

    #[test]
    fn a_short_wait_is_not_worth_a_word() {
        let mut watch = Watch::default();
        watch.look(at(0), Some(1));
        assert_eq!(watch.look(at(3_000), None), None);
        assert_eq!(watch.next_deadline(), None);
    }

    proptest! {
        #[test]
        fn what_is_told_is_over_before_it_is_told_again(
            steps in prop::collection::vec((0_i64..5_000, prop::option::of(0_i32..3), 0_u8..4), 0..200)
        ) {
            let (mut watch, mut now, mut told) = (Watch::default(), at(0), false);
            for (later, doubt, answer) in steps {
                now = now.plus(later);
                let standing = match answer {
                    0 => Some(Standing::Waiting),
                    1 => Some(Standing::Content),
                    2 => Some(Standing::Unknown),
                    _ => None,
                };
                let looked = watch.look(now, doubt);
                let answered = standing.and_then(|standing| watch.answered(now, standing));
                for act in [looked, answered].into_iter().flatten() {
                    match act {
                        Act::Ask => {}
                        Act::Tell { waited_ms } => {
                            prop_assert!(!told && waited_ms >= PATIENCE_MS && doubt.is_some());
                            told = true;
                        }
                        Act::Over { .. } => prop_assert!(std::mem::take(&mut told)),
                    }
                }
                if doubt.is_none() {
                    prop_assert!(!told, "sure of it, and silent");
                }
            }
        }
    }
}
