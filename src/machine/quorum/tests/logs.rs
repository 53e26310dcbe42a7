//! The bounds and epochs of a log, against the log as a list.

use super::super::log::{Log, Place};
use super::super::*;
use crate::types::SplitMix64;

/// A log and the list of its records' epochs, of which the first `start` are gone.
fn any(random: &mut SplitMix64) -> (Log, Vec<i32>, usize) {
    let mut log = Log::new(OffsetAndEpoch::default(), Offset::ZERO, Vec::new());
    let mut list: Vec<i32> = Vec::new();
    for _ in 0..random.draw() % 12 {
        let epoch = list.last().copied().unwrap_or(1) + (random.draw() % 3) as i32 / 2;
        log.appended(LeaderEpoch(epoch));
        list.push(epoch);
    }
    let end = random.draw() as usize % (list.len() + 1);
    if random.draw().is_multiple_of(3) {
        log.truncate(Offset(end as i64));
        list.truncate(end);
    }
    let start = random.draw() as usize % (list.len() + 1);
    let start = if random.draw().is_multiple_of(2) { start } else { 0 };
    log.prune(Offset(start as i64));
    (log, list, start)
}

fn epoch_before(list: &[i32], offset: usize) -> i32 {
    if offset == 0 { 0 } else { list[offset - 1] }
}

#[test]
fn a_log_knows_the_epochs_of_its_records() {
    let mut random = SplitMix64::new(1);
    for _ in 0..20_000 {
        let (log, list, start) = any(&mut random);
        for offset in start..=list.len() {
            let until = log.until(Offset(offset as i64));
            assert_eq!(until.epoch.0, epoch_before(&list, offset), "{log:?} {list:?}");
        }
    }
}

#[test]
fn two_logs_agree_on_where_they_part() {
    let mut random = SplitMix64::new(2);
    let (mut cuts, mut gone) = (0, 0);
    for _ in 0..50_000 {
        // As Raft makes them: the records of an epoch are the same wherever they are, so the epochs tell all.
        let (mut leader, theirs, _) = any(&mut random);
        let common = random.draw() as usize % (theirs.len() + 1);
        let mut ours = theirs[..common].to_vec();
        let mut follower = Log::new(OffsetAndEpoch::default(), Offset::ZERO, Vec::new());
        for epoch in &ours {
            follower.appended(LeaderEpoch(*epoch));
        }
        // Epochs that the leader never saw.
        let mut next = theirs.iter().max().copied().unwrap_or(0) + 100;
        let is_older = random.draw().is_multiple_of(2);
        if is_older && common < theirs.len() && epoch_before(&theirs, common) + 1 < theirs[common] {
            next = theirs[common] - 1;
        }
        for _ in 0..random.draw() % 4 {
            follower.appended(LeaderEpoch(next));
            ours.push(next);
        }
        let start = leader.start().offset.0 as usize;
        if random.draw().is_multiple_of(4) && start < theirs.len() {
            leader.prune(Offset((start + 1) as i64));
        }
        for round in 0.. {
            assert!(round < 20, "{leader:?} {follower:?} do not come together");
            let last = follower.last();
            match leader.place(last) {
                Place::Valid => {
                    let end = last.offset.0 as usize;
                    assert_eq!(theirs[..end], ours[..end], "{leader:?} {follower:?}");
                    break;
                }
                Place::Gone => {
                    assert!(leader.start().offset > Offset::ZERO);
                    gone += 1;
                    break;
                }
                Place::Diverging(known) => {
                    let end = follower.common_end(known);
                    assert!(end < last.offset, "{leader:?} {follower:?}: no progress");
                    assert!(
                        end.0 >= (common as i64).min(leader.end().0),
                        "{leader:?} {follower:?}: too much is cut"
                    );
                    follower.truncate(end);
                    ours.truncate(end.0 as usize);
                    cuts += 1;
                }
            }
        }
    }
    assert!(cuts > 5_000 && gone > 1_000, "{cuts} {gone}");
}

#[test]
fn what_is_stable_follows_the_disk_and_never_a_cut_record() {
    let mut log = Log::new(OffsetAndEpoch::default(), Offset::ZERO, Vec::new());
    let mut tickets = Vec::new();
    for _ in 0..3 {
        log.appended(LeaderEpoch(1));
        tickets.push(log.ticket());
    }
    assert!(log.stored(tickets[1]));
    assert_eq!(log.stable(), Offset(2));
    assert!(!log.stored(tickets[0]), "it is no news");
    log.truncate(Offset(1));
    let cut = log.ticket();
    assert_eq!(log.stable(), Offset(1));
    log.appended(LeaderEpoch(2));
    let added = log.ticket();
    assert!(log.stored(tickets[2]));
    assert_eq!(log.stable(), Offset(1), "the third record is to be cut");
    assert!(log.stored(cut));
    assert_eq!(log.stable(), Offset(1));
    assert!(log.stored(added));
    assert_eq!((log.stable(), log.is_stable()), (Offset(2), true));
}
