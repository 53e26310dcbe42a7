//! The role of this broker's replica of a partition, and the high watermark that follows from it.
//!
//! Why: a consumer may only see records that no single failure can take back, and an `acks=all`
//! reply may only be sent for such records. Both are the same line, the high watermark. Who moves it, and
//! who may append at all, is decided by the controller's elections: the machine turns what the metadata
//! says into a [`Token`], which whoever appends must hold.
//!
//! Invariants:
//! - `HW-1` the high watermark never moves back.
//! - `HW-2` it moves only to where every member of the ISR has come, as far as is known, where the leader's
//!   own end is its log end, or its synced end when the partition's durability is fsync. Only a leader moves
//!   it, and it is never beyond the leader's log end.
//! - `HW-3` it is never before the log start offset.
//! - `ROLE-1` the leader epoch never goes back, and within an epoch the role stays.
//!
//! ```text
//! log start <= high watermark <= synced end (fsync) <= log end
//!                             <= end of each follower in the ISR
//!
//!            ┌───────────── each arrow is a later epoch ─────────────┐
//!            v                                                       v
//! leader of epoch n  <──>  follower of epoch n  <──>  offline (no leader, or not told yet)
//! ```
//!
//! Pure: the shell reports metadata, appends, syncs and fetches of followers, and publishes what comes back.

use std::collections::BTreeMap;

use crate::machine::metadata::PartitionImage;
use crate::types::{LeaderEpoch, NodeId, Offset};

/// What the leader's own copy counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LocalDurability {
    /// What was written counts; the operating system has it (`durability=os`, or replicated).
    Written,
    /// What was synced counts (`durability=fsync`, or one copy only).
    Synced,
}

/// What a replica is to its partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It appends what producers bring, and decides what is committed.
    Leader,
    /// It copies the leader.
    Follower,
    /// The partition has no leader, or the metadata has not said anything yet.
    Offline,
}

/// A role in an epoch. Only the machine makes one ([`Replica::assign`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    role: Role,
    epoch: LeaderEpoch,
}

impl Token {
    /// Before the metadata has said anything.
    pub const NONE: Self = Self { role: Role::Offline, epoch: LeaderEpoch::UNKNOWN };

    /// What the metadata makes of `node`.
    #[must_use]
    pub fn of(node: NodeId, image: &PartitionImage) -> Self {
        let role = match image.leader {
            NodeId::NONE => Role::Offline,
            leader if leader == node => Role::Leader,
            _ => Role::Follower,
        };
        Self { role, epoch: image.leader_epoch }
    }

    /// The role.
    #[must_use]
    pub const fn role(self) -> Role {
        self.role
    }

    /// The epoch of the partition's leader, whoever that is.
    #[must_use]
    pub const fn epoch(self) -> LeaderEpoch {
        self.epoch
    }

    /// The epoch that appends belong to, if this is a leader's token.
    #[must_use]
    pub const fn leads(self) -> Option<LeaderEpoch> {
        match self.role {
            Role::Leader => Some(self.epoch),
            Role::Follower | Role::Offline => None,
        }
    }
}

/// What of a log was found on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where the log starts.
    pub log_start: Offset,
    /// Where it ends.
    pub log_end: Offset,
    /// How far it is synced.
    pub synced_end: Offset,
    /// The high watermark when it was last saved, which may be beyond what a crash left.
    pub high_watermark: Offset,
}

/// A contradiction between the metadata and what the replica was told before (`ROLE-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WentBack {
    /// What the replica is.
    pub current: Token,
    /// What it was told to become.
    pub asked: Token,
}

/// One replica's view of its partition.
#[derive(Debug)]
pub struct Replica {
    node: NodeId,
    token: Token,
    durability: LocalDurability,
    log_end: Offset,
    synced_end: Offset,
    /// The other members of the ISR, and how far each is known to have come in this epoch.
    others: BTreeMap<NodeId, Option<Offset>>,
    high_watermark: Offset,
}

impl Replica {
    /// A replica that the metadata has said nothing about yet.
    ///
    /// The saved high watermark is trusted as far as the log reaches (`HW-2`, `HW-3`).
    pub fn new(node: NodeId, durability: LocalDurability, found: Found) -> Self {
        Self {
            node,
            token: Token::NONE,
            durability,
            log_end: found.log_end,
            synced_end: found.synced_end.min(found.log_end),
            others: BTreeMap::new(),
            high_watermark: found.high_watermark.max(found.log_start).min(found.log_end),
        }
    }

    /// The role and the epoch.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The line up to which consumers may read.
    pub fn high_watermark(&self) -> Offset {
        self.high_watermark
    }

    /// Whether an append must be followed by a sync for the high watermark to move.
    pub fn needs_sync(&self) -> bool {
        self.durability == LocalDurability::Synced && self.synced_end < self.log_end
    }

    /// The metadata changed: role, epoch, or the members of the ISR. What is known of the followers is
    /// forgotten in a new epoch only. Returns the high watermark when it moved.
    ///
    /// # Errors
    ///
    /// The metadata contradicts what it said before (`ROLE-1`); nothing is changed then.
    pub fn assign(&mut self, image: &PartitionImage) -> Result<Option<Offset>, WentBack> {
        let (current, asked) = (self.token, Token::of(self.node, image));
        if asked.epoch < current.epoch || asked.epoch == current.epoch && asked.role != current.role
        {
            return Err(WentBack { current, asked });
        }
        let known = |node| if asked == current { self.others.get(node).copied()? } else { None };
        let others = image.isr.iter().filter(|node| **node != self.node);
        self.others = others.map(|node| (*node, known(node))).collect();
        self.token = asked;
        Ok(self.advance())
    }

    /// This broker appended up to `log_end`. Returns the high watermark when it moved.
    ///
    /// # Panics
    ///
    /// When the log has become shorter, which only happens in a new epoch.
    pub fn appended(&mut self, log_end: Offset) -> Option<Offset> {
        assert!(log_end >= self.log_end, "the log went back from {} to {log_end}", self.log_end);
        self.log_end = log_end;
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

    /// Follower `node` has everything before `end`; of no account unless it is in the ISR. Returns the high
    /// watermark when it moved.
    pub fn follower_at(&mut self, node: NodeId, end: Offset) -> Option<Offset> {
        *self.others.get_mut(&node)? = Some(end);
        self.advance()
    }

    fn advance(&mut self) -> Option<Offset> {
        self.token.leads()?;
        let own = match self.durability {
            LocalDurability::Written => self.log_end,
            LocalDurability::Synced => self.synced_end,
        };
        // One that has not been heard of holds the line.
        let line = self.others.values().try_fold(own, |line, end| Some(line.min((*end)?)))?;
        if line <= self.high_watermark {
            return None;
        }
        assert!(line <= self.log_end, "HW-2: {line} is beyond the log end {}", self.log_end);
        self.high_watermark = line;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::types::PartitionEpoch;

    const ME: NodeId = NodeId(1);

    fn image(leader: i32, epoch: i32, isr: &[i32]) -> PartitionImage {
        PartitionImage {
            replicas: vec![NodeId(1), NodeId(2), NodeId(3)],
            isr: isr.iter().copied().map(NodeId).collect(),
            removing: Vec::new(),
            adding: Vec::new(),
            leader: NodeId(leader),
            leader_epoch: LeaderEpoch(epoch),
            partition_epoch: PartitionEpoch(0),
        }
    }

    /// A replica whose log was found whole, with its high watermark at the start.
    fn found(durability: LocalDurability, log_end: i64) -> Replica {
        let (log_end, log_start) = (Offset(log_end), Offset(0));
        let found = Found { log_start, log_end, synced_end: log_end, high_watermark: log_start };
        Replica::new(ME, durability, found)
    }

    fn leader(durability: LocalDurability, log_end: i64) -> Replica {
        let mut replica = found(durability, log_end);
        replica.assign(&image(1, 0, &[1])).unwrap();
        replica
    }

    #[test]
    fn the_only_replica_commits_what_it_has_when_it_leads() {
        let mut replica = found(LocalDurability::Written, 5);
        assert_eq!(replica.high_watermark(), Offset(0), "not before it leads");
        assert_eq!(replica.assign(&image(1, 0, &[1])), Ok(Some(Offset(5))));
        assert_eq!(replica.appended(Offset(8)), Some(Offset(8)));
        assert!(!replica.needs_sync());
        assert_eq!(replica.appended(Offset(8)), None);
    }

    #[test]
    fn a_leader_with_followers_keeps_the_high_watermark_that_was_saved() {
        let ends = Found {
            log_start: Offset(2),
            log_end: Offset(9),
            synced_end: Offset(9),
            high_watermark: Offset(4),
        };
        let mut replica = Replica::new(ME, LocalDurability::Written, ends);
        assert_eq!(replica.assign(&image(1, 3, &[1, 2])), Ok(None));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert_eq!(replica.follower_at(NodeId(2), Offset(6)), Some(Offset(6)));
        // What a crash took away is not committed, what was deleted is.
        let lost = Found { high_watermark: Offset(12), ..ends };
        assert_eq!(Replica::new(ME, LocalDurability::Written, lost).high_watermark(), Offset(9));
        let deleted = Found { high_watermark: Offset(0), ..ends };
        assert_eq!(Replica::new(ME, LocalDurability::Written, deleted).high_watermark(), Offset(2));
    }

    #[test]
    fn with_fsync_a_record_is_visible_once_it_is_synced() {
        let mut replica = leader(LocalDurability::Synced, 0);
        assert_eq!(replica.appended(Offset(3)), None);
        assert!(replica.needs_sync());
        assert_eq!(replica.appended(Offset(6)), None);
        assert_eq!(replica.synced(Offset(3)), Some(Offset(3)));
        assert!(replica.needs_sync());
        assert_eq!(replica.synced(Offset(100)), Some(Offset(6)), "never beyond the log end");
        assert!(!replica.needs_sync());
    }

    #[test]
    fn a_stricter_durability_does_not_take_records_back() {
        let mut replica = leader(LocalDurability::Written, 0);
        replica.appended(Offset(4));
        assert_eq!(replica.set_durability(LocalDurability::Synced), None);
        assert_eq!(replica.high_watermark(), Offset(4));
        replica.appended(Offset(5));
        assert_eq!(replica.high_watermark(), Offset(4));
        assert_eq!(replica.synced(Offset(5)), Some(Offset(5)));
    }

    #[test]
    fn high_watermark_follows_the_slowest_replica() {
        let mut replica = found(LocalDurability::Written, 0);
        replica.assign(&image(1, 0, &[1, 2, 3])).unwrap();
        assert_eq!(replica.appended(Offset(10)), None);
        assert_eq!(replica.follower_at(NodeId(2), Offset(10)), None, "3 was not heard of yet");
        assert_eq!(replica.follower_at(NodeId(3), Offset(7)), Some(Offset(7)));
        assert_eq!(replica.assign(&image(1, 0, &[1, 2])), Ok(Some(Offset(10))));
        assert_eq!(replica.follower_at(NodeId(3), Offset(8)), None, "it is not in the ISR");
        // In a new epoch nothing is known of the followers.
        assert_eq!(replica.assign(&image(1, 1, &[1, 2])), Ok(None));
        assert_eq!(replica.appended(Offset(11)), None);
    }

    #[test]
    fn an_epoch_does_not_go_back_and_has_one_leader() {
        let mut replica = leader(LocalDurability::Written, 0);
        replica.assign(&image(1, 4, &[1])).unwrap();
        for contradiction in [image(1, 3, &[1]), image(2, 4, &[1, 2]), image(-1, 4, &[1])] {
            let refused = replica.assign(&contradiction).unwrap_err();
            assert_eq!(refused.asked, Token::of(ME, &contradiction));
            assert_eq!(replica.token().leads(), Some(LeaderEpoch(4)));
        }
        replica.assign(&image(2, 5, &[2])).unwrap();
        assert_eq!((replica.token().role(), replica.token().leads()), (Role::Follower, None));
        replica.assign(&image(-1, 6, &[2])).unwrap();
        assert_eq!(replica.token().role(), Role::Offline);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Assign { leader: i32, epoch: i32, isr: Vec<i32> },
        Append(i64),
        Sync(i64),
        Durability(bool),
        Follower(i32, i64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let isr = proptest::sample::subsequence(vec![1, 2, 3], 1..=3);
        prop_oneof![
            2 => (prop_oneof![3 => Just(1), 1 => Just(2), 1 => Just(-1)], 0..6, isr)
                .prop_map(|(leader, epoch, isr)| Step::Assign { leader, epoch, isr }),
            3 => (0..4_i64).prop_map(Step::Append),
            2 => (0..40_i64).prop_map(Step::Sync),
            1 => any::<bool>().prop_map(Step::Durability),
            4 => (2..4, 0..40_i64).prop_map(|(node, end)| Step::Follower(node, end)),
        ]
    }

    /// What the rules allow, said without the machine.
    struct Model {
        token: Token,
        isr: Vec<i32>,
        ends: BTreeMap<i32, i64>,
        log_end: i64,
        synced_end: i64,
        synced_counts: bool,
    }

    impl Model {
        /// The end of the shortest copy in the ISR; none when one is not known.
        fn shortest(&self) -> Option<i64> {
            let own = if self.synced_counts { self.synced_end } else { self.log_end };
            let others = self.isr.iter().filter(|node| **node != ME.0);
            let mut ends = others.map(|node| self.ends.get(node).copied());
            ends.try_fold(own, |shortest, end| Some(shortest.min(end?)))
        }

        fn apply(&mut self, step: &Step, replica: &mut Replica) {
            match step {
                Step::Assign { leader, epoch, isr } => {
                    let image = image(*leader, *epoch, isr);
                    let asked = Token::of(ME, &image);
                    let later = asked.epoch() > self.token.epoch();
                    let assigned = replica.assign(&image);
                    assert_eq!(assigned.is_ok(), later || asked == self.token, "ROLE-1");
                    if assigned.is_ok() {
                        if later {
                            self.ends.clear();
                        }
                        self.ends.retain(|node, _| isr.contains(node));
                        self.isr.clone_from(isr);
                        self.token = asked;
                    }
                }
                Step::Append(count) => {
                    self.log_end += count;
                    replica.appended(Offset(self.log_end));
                }
                Step::Sync(end) => {
                    self.synced_end = self.synced_end.max((*end).min(self.log_end));
                    replica.synced(Offset(*end));
                }
                Step::Durability(synced) => {
                    self.synced_counts = *synced;
                    replica.set_durability(match synced {
                        true => LocalDurability::Synced,
                        false => LocalDurability::Written,
                    });
                }
                Step::Follower(node, end) => {
                    let end = (*end).min(self.log_end);
                    if self.isr.contains(node) {
                        self.ends.insert(*node, end);
                    }
                    replica.follower_at(NodeId(*node), Offset(end));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn the_high_watermark_keeps_its_rules(steps in proptest::collection::vec(step(), 1..60)) {
            let mut replica = found(LocalDurability::Written, 0);
            let mut model = Model {
                token: Token::NONE,
                isr: Vec::new(),
                ends: BTreeMap::new(),
                log_end: 0,
                synced_end: 0,
                synced_counts: false,
            };
            for step in &steps {
                let before = replica.high_watermark();
                model.apply(step, &mut replica);
                let after = replica.high_watermark();
                prop_assert_eq!(replica.token(), model.token);
                prop_assert!(after >= before, "HW-1");
                prop_assert!(after.0 <= model.log_end, "HW-2");
                match (model.token.leads(), model.shortest()) {
                    // A leader commits all that every member of the ISR has.
                    (Some(_), Some(shortest)) => {
                        prop_assert_eq!(after.0, before.0.max(shortest), "HW-2");
                    }
                    _ => prop_assert_eq!(after, before, "HW-2: nobody else moves it"),
                }
            }
        }
    }
}
