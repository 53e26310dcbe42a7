//! The hand-over of partitions to the caller: what it was told that it has, and what it must still
//! hear.
//!
//! The membership goes on while the caller is busy. Here its doings are kept until the caller comes,
//! folded together so that the caller hears of each partition at most once for every kind: what was
//! assigned and taken away meanwhile is not mentioned, and needs no consent.
//!
//! Invariants:
//! - HND-1: the caller hears of partitions in the order lost, revoked, assigned.
//! - HND-2: a partition that is told as revoked or lost was told as assigned before, and every
//!   partition is with the caller at most once.
//! - HND-3: what the caller has of a partition counts for nothing ([`Handover::is_outdated`]) once that was lost, also if the member has
//!   it again: another member may have had it meanwhile.
//! - HND-4: the memory is bounded by the partitions of the assignment, however long the caller stays
//!   away.

use super::Partitions;
use crate::types::TopicPartition;

/// What the caller is to hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// These are gone.
    Lost {
        /// The partitions.
        partitions: Partitions,
        /// How that came about.
        reason: String,
    },
    /// These are to be given up.
    Revoked(Partitions),
    /// These are the caller's.
    Assigned(Partitions),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum First {
    #[default]
    Unknown,
    Made,
    Told,
}

/// The ledger. See the module's documentation.
#[derive(Debug, Default)]
pub struct Handover {
    /// What the caller knows that it has.
    held: Partitions,
    lost: Partitions,
    reason: String,
    revoked: Partitions,
    assigned: Partitions,
    /// The caller was told of a revocation and has not come back.
    giving_up: bool,
    /// The caller consented to the last revocation, or it had nothing of it.
    released: bool,
    /// The caller waits for its first assignment; it hears of that one even if it is empty.
    first: First,
}

impl Handover {
    /// The member got partitions.
    pub fn assign(&mut self, partitions: Partitions) {
        self.assigned.extend(partitions);
        if self.first == First::Unknown {
            self.first = First::Made;
        }
    }

    /// The member must give partitions up. The consent may be there at once
    /// ([`Self::take_release`]).
    pub fn revoke(&mut self, partitions: &Partitions) {
        for partition in partitions {
            if !self.assigned.remove(partition) && self.held.contains(partition) {
                self.revoked.insert(partition.clone());
            }
        }
        self.released = self.revoked.is_empty() && !self.giving_up;
    }

    /// The member lost partitions.
    pub fn lose(&mut self, partitions: &Partitions, reason: String) {
        self.reason = reason;
        for partition in partitions {
            if !self.assigned.remove(partition) && self.held.contains(partition) {
                self.revoked.remove(partition);
                self.lost.insert(partition.clone());
            }
        }
        // Nobody waits for a consent any more.
        self.giving_up = false;
        self.released = false;
    }

    /// The caller comes back: it consents to what it was told last. Says whether that was a
    /// revocation.
    pub fn acknowledge(&mut self) -> bool {
        let consents = std::mem::take(&mut self.giving_up);
        self.released |= consents;
        consents
    }

    /// Whether the caller consented since this was last asked.
    pub fn take_release(&mut self) -> bool {
        std::mem::take(&mut self.released)
    }

    /// What the caller must hear next.
    pub fn tell(&mut self) -> Option<Told> {
        if !self.lost.is_empty() {
            let partitions = std::mem::take(&mut self.lost);
            self.held.retain(|one| !partitions.contains(one));
            return Some(Told::Lost { partitions, reason: self.reason.clone() });
        }
        if !self.revoked.is_empty() {
            let partitions = std::mem::take(&mut self.revoked);
            self.held.retain(|one| !partitions.contains(one));
            self.giving_up = true;
            return Some(Told::Revoked(partitions));
        }
        if self.is_assignment_due() {
            self.first = First::Told;
            let partitions = std::mem::take(&mut self.assigned);
            self.held.extend(partitions.iter().cloned());
            return Some(Told::Assigned(partitions));
        }
        None
    }

    fn is_assignment_due(&self) -> bool {
        self.first == First::Made || !self.assigned.is_empty()
    }

    /// Whether there is something to hear.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.is_assignment_due() || !self.lost.is_empty() || !self.revoked.is_empty()
    }

    /// Whether the caller has yet to hear that a partition was lost, or that the member has it, for the first time or again (HND-3).
    #[must_use]
    pub fn is_outdated(&self, partition: &TopicPartition) -> bool {
        self.lost.contains(partition) || self.assigned.contains(partition)
    }

    /// What the caller knows that it has.
    #[must_use]
    pub const fn held(&self) -> &Partitions {
        &self.held
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn some(list: &[i32]) -> Partitions {
        list.iter().map(|&index| TopicPartition::new("t", index)).collect()
    }

    #[test]
    fn a_revocation_waits_for_the_caller() {
        let mut ledger = Handover::default();
        ledger.assign(some(&[0, 1]));
        assert_eq!(ledger.tell(), Some(Told::Assigned(some(&[0, 1]))));
        ledger.revoke(&some(&[0]));
        assert!(!ledger.take_release());
        ledger.acknowledge();
        assert!(!ledger.take_release(), "it was not told yet");
        assert_eq!(ledger.tell(), Some(Told::Revoked(some(&[0]))));
        assert!(!ledger.take_release());
        ledger.acknowledge();
        assert!(ledger.take_release());
        assert!(!ledger.take_release());
        assert_eq!(ledger.held(), &some(&[1]));
    }

    #[test]
    fn what_the_caller_never_heard_of_needs_no_consent() {
        let mut ledger = Handover::default();
        ledger.assign(some(&[0]));
        ledger.revoke(&some(&[0]));
        assert!(ledger.take_release());
        assert_eq!(ledger.tell(), Some(Told::Assigned(some(&[]))));
        assert_eq!(ledger.tell(), None);
    }

    #[test]
    fn what_was_revoked_and_lost_is_told_once() {
        let mut ledger = Handover::default();
        ledger.assign(some(&[0, 1]));
        ledger.tell();
        ledger.revoke(&some(&[0, 1]));
        ledger.lose(&some(&[0, 1]), "late".to_owned());
        ledger.assign(some(&[1]));
        let lost = Told::Lost { partitions: some(&[0, 1]), reason: "late".to_owned() };
        assert_eq!(ledger.tell(), Some(lost));
        assert_eq!(ledger.tell(), Some(Told::Assigned(some(&[1]))));
        assert_eq!(ledger.tell(), None);
        ledger.acknowledge();
        assert!(!ledger.take_release());
    }

    #[test]
    fn what_was_lost_and_is_there_again_is_another_matter() {
        let partition = TopicPartition::new("t", 0);
        let mut ledger = Handover::default();
        ledger.assign(some(&[0]));
        assert!(ledger.is_outdated(&partition), "the caller knows nothing of it");
        ledger.tell();
        assert!(!ledger.is_outdated(&partition));
        ledger.revoke(&some(&[0]));
        assert!(!ledger.is_outdated(&partition), "until the caller has given it up");
        ledger.lose(&some(&[0]), "silent for too long".to_owned());
        assert!(ledger.is_outdated(&partition));
        ledger.assign(some(&[0]));
        assert!(ledger.is_outdated(&partition));
        ledger.tell();
        assert!(ledger.is_outdated(&partition), "it was only told that it was lost");
        ledger.tell();
        assert!(!ledger.is_outdated(&partition));
    }

    proptest! {
        #[test]
        fn the_caller_hears_a_history_that_holds_together(
            steps in prop::collection::vec((0_u8..6, prop::collection::btree_set(0_i32..4, 0..4)), 0..60),
        ) {
            let mut ledger = Handover::default();
            let (mut member, mut caller) = (Partitions::new(), Partitions::new());
            for (step, set) in steps {
                let set = some(&set.into_iter().collect::<Vec<_>>());
                match step {
                    0 => {
                        let new: Partitions = set.difference(&member).cloned().collect();
                        member.extend(new.iter().cloned());
                        ledger.assign(new);
                    }
                    1 => {
                        let old: Partitions = set.intersection(&member).cloned().collect();
                        member.retain(|one| !old.contains(one));
                        ledger.revoke(&old);
                    }
                    2 => {
                        let old: Partitions = set.intersection(&member).cloned().collect();
                        member.retain(|one| !old.contains(one));
                        ledger.lose(&old, String::new());
                    }
                    3 => drop(ledger.acknowledge()),
                    _ => match ledger.tell() {
                        Some(Told::Assigned(new)) => {
                            prop_assert!(new.is_disjoint(&caller));
                            caller.extend(new);
                        }
                        Some(Told::Revoked(old) | Told::Lost { partitions: old, .. }) => {
                            prop_assert!(old.is_subset(&caller));
                            caller.retain(|one| !old.contains(one));
                        }
                        None => prop_assert!(!ledger.is_waiting()),
                    },
                }
                prop_assert_eq!(&caller, ledger.held());
            }
            while let Some(told) = ledger.tell() {
                match told {
                    Told::Assigned(new) => caller.extend(new),
                    Told::Revoked(old) | Told::Lost { partitions: old, .. } => {
                        caller.retain(|one| !old.contains(one));
                    }
                }
            }
            let caller: BTreeSet<_> = caller.into_iter().collect();
            prop_assert_eq!(caller, member);
        }
    }
}
