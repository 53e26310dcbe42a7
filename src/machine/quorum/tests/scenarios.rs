//! What a quorum does in single situations, and how fast.

use std::time::Duration;

use super::super::leading::Pace;
use super::super::*;
use super::world::{Faults, World, key, ms, voter};
use crate::types::Uuid;

const SEEDS: std::ops::Range<u64> = 0..30;

/// A cluster that has a leader and has committed something.
fn working(seed: u64, voters: usize, observers: usize) -> (World, usize) {
    working_with(seed, voters, observers, &[])
}

fn working_with(
    seed: u64,
    voters: usize,
    observers: usize,
    planted: &'static [Mutation],
) -> (World, usize) {
    let mut world = World::new(seed, voters, observers, planted);
    assert!(world.run_until(ms(5_000), |world| world.leader().is_some()));
    let leader = world.leader().unwrap();
    world.propose(leader);
    world.run_for(ms(500));
    assert_eq!(world.leader(), Some(leader));
    assert!(world.waiting.is_empty());
    (world, leader)
}

/// How long it takes until another node leads.
fn until_led_anew(world: &mut World, old: usize) -> Duration {
    let since = world.now;
    let led = |world: &World| world.leader().is_some_and(|leader| leader != old);
    assert!(world.run_until(since + ms(10_000), led), "nobody leads");
    world.now.saturating_sub(since)
}

fn others(world: &World, node: usize) -> Vec<usize> {
    (0..world.nodes.len()).filter(|other| *other != node).collect()
}

#[test]
fn one_voter_alone_leads_and_commits_without_waiting() {
    let me = voter(key(0, 0));
    let options = Options {
        voters: VoterSet::new([me.clone()]),
        me,
        bootstrap: 0,
        timing: Timing::default(),
        seed: 1,
    };
    let mut out = Vec::new();
    let mut replica = Quorum::<u64>::start(options, Stored::default(), Duration::ZERO, &mut out);
    let [Effect::SaveVote(vote, state), Effect::LeaderChanged(_)] = &out[..] else {
        panic!("{out:?}")
    };
    assert_eq!(*state, VoteState { epoch: LeaderEpoch(1), voted: Some(key(0, 0)) });
    let mut next = Vec::new();
    replica.step(Duration::ZERO, Event::VoteStored(*vote), &mut next);
    let appended = next.iter().find_map(|effect| match effect {
        Effect::Append(ticket, entries) => Some((*ticket, entries.len())),
        _ => None,
    });
    let (ticket, count) = appended.unwrap();
    assert!(replica.is_leader());
    assert_eq!(count, 2, "the leader's record, and the voters, which no log has yet");
    let mut last = Vec::new();
    let propose = Event::Propose { tag: Tag(7), payload: 70 };
    replica.step(Duration::ZERO, propose, &mut last);
    replica.step(Duration::ZERO, Event::LogStored(Ticket(ticket.0 + 1)), &mut last);
    assert!(last.contains(&Effect::Committed(Offset(3))), "{last:?}");
    assert!(last.contains(&Effect::Outcome(Tag(7), Ok(Offset(2)))), "{last:?}");
}

/// How long a cluster is without a leader when all see at about the same time that its process is dead.
fn after_a_crash(seed: u64, voters: usize, planted: &'static [Mutation]) -> Duration {
    let (mut world, leader) = working_with(seed, voters, 0, planted);
    world.kill(leader);
    for (place, node) in others(&world, leader).into_iter().enumerate() {
        world.run_for(ms(3 * place as u64));
        world.step(node, Event::Crashed(NodeId(leader as i32)));
    }
    until_led_anew(&mut world, leader)
}

#[test]
fn proof_of_a_crash_makes_a_new_leader_at_once() {
    for voters in [3, 5] {
        for seed in SEEDS {
            let time = after_a_crash(seed, voters, &[]);
            assert!(time < ms(250), "seed {seed}, {voters} voters: {time:?}");
        }
    }
    let mut times = SEEDS.map(|seed| after_a_crash(seed, 3, &[Mutation::SplitVotesWait]));
    assert!(times.any(|time| time > ms(900)), "two candidates that wait for each other");
}

#[test]
fn silence_makes_a_new_leader_after_the_election_timeout() {
    for seed in SEEDS {
        let (mut world, leader) = working(seed, 3, 1);
        world.kill(leader);
        let time = until_led_anew(&mut world, leader);
        assert!(time > ms(800) && time < ms(1700), "seed {seed}: {time:?}");
    }
}

#[test]
fn a_leader_that_stops_hands_over() {
    for seed in SEEDS {
        let (mut world, leader) = working(seed, 3, 0);
        world.step(leader, Event::Resign);
        let time = until_led_anew(&mut world, leader);
        assert!(time < ms(100), "seed {seed}: {time:?}");
        world.run_for(ms(5_000));
        assert_ne!(world.leader(), Some(leader), "it stands no more");
    }
}

#[test]
fn everything_restarted_at_once_has_a_leader_in_less_than_a_second() {
    for seed in SEEDS {
        let (mut world, _) = working(seed, 3, 0);
        for node in 0..3 {
            world.kill(node);
        }
        for node in 0..3 {
            world.start(node);
        }
        let since = world.now;
        assert!(world.run_until(since + ms(1000), |world| world.leader().is_some()), "seed {seed}");
    }
}

/// Whether a leader stays when only one follower is left, and its disk, like the leader's, stands still for four
/// seconds.
fn leads_on_stalled_disks(seed: u64, planted: &'static [Mutation]) -> bool {
    let (mut world, leader) = working_with(seed, 3, 0, planted);
    let [one, other] = others(&world, leader)[..] else { unreachable!() };
    let epoch = world.epoch(leader);
    world.kill(other);
    world.faults.disk = (ms(4_000), ms(4_000));
    let tag = world.propose(leader);
    world.run_for(ms(3_500));
    let stays = (world.leader(), world.epoch(one)) == (Some(leader), epoch);
    assert!(!matches!(world.outcomes.get(&tag), Some(Ok(_))), "nothing is committed meanwhile");
    world.faults = Faults::none();
    world.run_for(ms(6_000));
    stays && matches!(world.outcomes.get(&tag), Some(Ok(_))) && world.epoch(one) == epoch
}

#[test]
fn disks_that_stand_still_cost_no_leader() {
    for seed in SEEDS {
        assert!(leads_on_stalled_disks(seed, &[]), "seed {seed}");
    }
    assert!(
        !SEEDS
            .into_iter()
            .all(|seed| { leads_on_stalled_disks(seed, &[Mutation::BusyReplicaIsSilent]) })
    );
}

#[test]
fn a_leader_whose_disk_stands_still_commits_what_the_others_have_and_takes_no_end_of_proposals() {
    let (mut world, leader) = working(8, 3, 0);
    let [one, other] = others(&world, leader)[..] else { unreachable!() };
    world.stalled.insert(leader);
    let tag = world.propose(leader);
    world.run_for(ms(500));
    assert!(matches!(world.outcomes.get(&tag), Some(Ok(_))), "two others have it");
    let mut refused = 0;
    for _ in 0..2 * PROPOSALS_MAX {
        let tag = world.propose(leader);
        world.run_for(ms(1));
        refused += u64::from(world.outcomes.get(&tag) == Some(&Err(Refusal::TooManyProposals)));
    }
    assert!(refused > 900, "{refused}");
    assert!(world.nodes[leader].disk.writes.len() <= PROPOSALS_MAX + 2);
    assert!(world.nodes[leader].is_leader());
    world.stalled.clear();
    world.sync(leader);
    world.run_for(ms(2_000));
    let ends = [leader, one, other].map(|node| world.nodes[node].high_watermark);
    assert_eq!((ends[0], ends[1]), (ends[1], ends[2]));
}

#[test]
fn a_node_that_was_cut_off_follows_again_and_deposes_nobody() {
    for seed in SEEDS {
        let (mut world, leader) = working(seed, 3, 1);
        let epoch = world.epoch(leader);
        for node in others(&world, leader) {
            for peer in others(&world, node) {
                world.cut.insert((node, peer));
                world.cut.insert((peer, node));
            }
            world.run_for(ms(5_000));
            world.cut.clear();
            let tag = world.propose(leader);
            world.run_for(ms(1_000));
            assert!(matches!(world.outcomes.get(&tag), Some(Ok(_))), "seed {seed}");
            assert_eq!(world.epoch(leader), epoch, "seed {seed}");
            let ends: Vec<_> = world.nodes.iter().map(|node| node.high_watermark).collect();
            assert!(ends.iter().all(|end| *end == ends[0]), "seed {seed}: {ends:?}");
        }
    }
}

#[test]
fn a_leader_without_a_majority_resigns_and_says_so() {
    for seed in SEEDS {
        let (mut world, leader) = working(seed, 3, 0);
        for peer in others(&world, leader) {
            world.cut.insert((peer, leader));
            world.cut.insert((leader, peer));
        }
        let tag = world.propose(leader);
        world.run_for(ms(1_800));
        assert!(!world.nodes[leader].is_leader(), "seed {seed}");
        assert_eq!(world.outcomes.get(&tag), Some(&Err(Refusal::LeadershipLost)), "seed {seed}");
        world.run_for(ms(1_000));
        assert!(world.leader().is_some_and(|new| new != leader), "seed {seed}");
    }
}

#[test]
fn voters_come_and_go_one_at_a_time() {
    let (mut world, leader) = working(3, 3, 1);
    let add = |node: usize| VoterChange::Add(voter(key(node, 0)));
    let remove = |node: usize| VoterChange::Remove(key(node, 0));
    let refused = |world: &World, tag: Tag| world.outcomes[&tag].unwrap_err();

    let unknown = VoterChange::Add(voter(ReplicaKey { id: NodeId(9), ..key(0, 0) }));
    let tag = world.change(leader, unknown);
    assert_eq!(refused(&world, tag), Refusal::NotCaughtUp);
    let tag = world.change(leader, add(leader));
    assert_eq!(refused(&world, tag), Refusal::DuplicateVoter);
    let tag = world.change(leader, remove(3));
    assert_eq!(refused(&world, tag), Refusal::VoterNotFound);
    let added = world.change(leader, add(3));
    let tag = world.change(leader, remove(others(&world, leader)[0]));
    assert_eq!(refused(&world, tag), Refusal::ChangePending);
    world.run_for(ms(500));
    assert!(world.outcomes[&added].is_ok());

    // The leader goes: it leads until that is committed, and no longer.
    let removed = world.change(leader, remove(leader));
    assert!(world.nodes[leader].is_leader());
    world.run_for(ms(1_000));
    assert!(world.outcomes[&removed].is_ok());
    let new = world.leader().unwrap();
    assert_ne!(new, leader);
    world.propose(new);
    world.run_for(ms(500));
    let replica = world.nodes[leader].replica.as_ref().unwrap();
    assert_eq!(replica.voters().len(), 3, "it follows as an observer");
    assert_eq!(world.nodes[leader].high_watermark, world.nodes[new].high_watermark);
}

#[test]
fn an_observer_finds_the_next_leader_by_itself() {
    for (seed, is_proven) in [(21, false), (22, true)] {
        let (mut world, leader) = working(seed, 3, 1);
        world.kill(leader);
        if is_proven {
            for node in others(&world, leader) {
                world.step(node, Event::Crashed(NodeId(i32::try_from(leader).unwrap())));
            }
        }
        until_led_anew(&mut world, leader);
        let new = world.leader().unwrap();
        world.propose(new);
        world.run_for(ms(2_000));
        assert_eq!(world.nodes[3].high_watermark, world.nodes[new].high_watermark, "seed {seed}");
        assert_eq!(world.nodes[3].log.end(), world.nodes[new].log.end(), "seed {seed}");
    }
}

#[test]
fn voters_of_a_configuration_are_recorded_with_their_directories() {
    let configured =
        (0..3).map(|node| voter(ReplicaKey { id: NodeId(node), directory_id: Uuid::ZERO }));
    let mut world = World::with(5, VoterSet::new(configured), 3, Timing::default(), &[]);
    world.run_for(ms(6_000));
    let leader = world.leader().unwrap();
    let voters = world.nodes[leader].replica.as_ref().unwrap().voters().clone();
    let expected: Vec<_> = (0..3).map(|node| key(node, 0)).collect();
    assert_eq!(voters.iter().map(|voter| voter.key).collect::<Vec<_>>(), expected);
}

#[test]
fn a_new_node_gets_the_snapshot_and_what_follows() {
    let (mut world, leader) = working(4, 3, 1);
    world.kill(3);
    world.prune_hard = true;
    for _ in 0..20 {
        world.propose(leader);
    }
    world.run_for(ms(200));
    world.snapshot(leader);
    world.propose(leader);
    world.start(3);
    world.run_for(ms(1_500));
    assert_eq!(world.snapshots_installed, 1);
    assert_eq!(world.nodes[3].log.end(), world.nodes[leader].log.end());
    assert_eq!(world.nodes[3].high_watermark, world.nodes[leader].high_watermark);
}

#[test]
fn a_leader_tells_how_far_everybody_is() {
    let (mut world, leader) = working(8, 3, 1);
    let replica = world.nodes[leader].replica.as_ref().unwrap();
    let (progress, end) = (replica.progress(), replica.log_end());
    assert_eq!(progress.len(), 3);
    for known in progress {
        assert_eq!(known.end, Some(end), "{known:?}");
        let recent = Some(world.now.saturating_sub(ms(500)));
        assert!(known.last_fetch >= recent && known.caught_up >= recent, "{known:?}");
    }
    let gone = others(&world, leader)[0];
    world.kill(gone);
    let since = world.now;
    for _ in 0..20 {
        world.propose(leader);
        world.run_for(ms(100));
    }
    let replica = world.nodes[leader].replica.as_ref().unwrap();
    let progress = replica.progress();
    let known = progress.iter().find(|known| known.key == world.nodes[gone].key).unwrap();
    assert!(known.end < Some(replica.log_end()), "{known:?}");
    assert!(known.last_fetch <= Some(since) && known.caught_up <= Some(since), "{known:?}");
}

#[test]
fn who_has_what_there_was_at_its_last_fetch_had_caught_up_then() {
    let mut pace = Pace::default();
    let times = [
        // Never at the end, and nothing is known of before.
        (10, 5, 8, None),
        // What there was at 10, it has now.
        (20, 8, 12, Some(10)),
        // It falls behind.
        (30, 11, 15, Some(10)),
        (40, 15, 15, Some(40)),
        (50, 15, 16, Some(40)),
    ];
    for (at, end, leader_end, expected) in times {
        pace.fetched(ms(at), Offset(end), Offset(leader_end));
        assert_eq!(pace.caught_up(), expected.map(ms), "at {at}");
    }
}

#[test]
fn what_waits_is_bounded() {
    let (mut world, leader) = working(6, 3, 0);
    for peer in others(&world, leader) {
        world.kill(peer);
    }
    let tags: Vec<_> = (0..=PROPOSALS_MAX).map(|_| world.propose(leader)).collect();
    let refused = tags.iter().filter(|tag| world.outcomes.contains_key(tag));
    let refused: Vec<_> = refused.map(|tag| world.outcomes[tag]).collect();
    assert_eq!(refused, [Err(Refusal::TooManyProposals)]);

    let replica = world.nodes[leader].replica.as_mut().unwrap();
    let (epoch, last) = (replica.current().epoch, replica.until(replica.log_end()));
    let mut out = Vec::new();
    for stranger in 0..2 * OBSERVERS_MAX {
        let id = NodeId(100 + stranger as i32);
        let request = FetchRequest {
            epoch,
            replica: ReplicaKey { id, directory_id: Uuid([9; 16]) },
            last,
            sent: world.now,
            high_watermark: Offset(i64::MAX),
            max_wait: ms(100),
            wants_records: true,
        };
        let token = Token(1_000_000 + stranger as u64);
        let event = Event::Request { token, request: Request::Fetch(request) };
        replica.step(world.now, event, &mut out);
    }
    assert!(replica.progress().len() <= OBSERVERS_MAX + 3);
    let abandoned = out.iter().filter(|effect| matches!(effect, Effect::Abandon(_))).count();
    assert!(abandoned >= OBSERVERS_MAX - 3, "{abandoned}");
}

#[test]
fn a_request_that_makes_no_sense_changes_nothing() {
    let (mut world, leader) = working(7, 3, 0);
    let before = (world.leader(), world.epoch(leader), world.nodes[leader].high_watermark);
    let stranger = ReplicaKey { id: NodeId(7), directory_id: Uuid([7; 16]) };
    let replica = world.nodes[leader].replica.as_mut().unwrap();
    let epoch = replica.current().epoch;
    let me = key(leader, 0);
    let far = OffsetAndEpoch { epoch, offset: Offset(1_000_000) };
    let vote = |voter, candidate, last| VoteRequest {
        epoch: LeaderEpoch(99),
        candidate,
        voter,
        last,
        pre_vote: false,
    };
    let fetch = |replica, last| FetchRequest {
        epoch,
        replica,
        last,
        sent: ms(1),
        high_watermark: Offset::ZERO,
        max_wait: ms(100),
        wants_records: true,
    };
    let late = OffsetAndEpoch { epoch: LeaderEpoch(99), offset: Offset(9) };
    let requests = [
        Request::Vote(vote(stranger, stranger, far)),
        Request::Vote(vote(me, me, far)),
        Request::Vote(vote(me, stranger, late)),
        Request::Fetch(fetch(me, far)),
        Request::Fetch(fetch(stranger, far)),
        Request::Fetch(fetch(key(others(&world, leader)[0], 0), far)),
    ];
    let replica = world.nodes[leader].replica.as_mut().unwrap();
    let mut out = Vec::new();
    for (number, request) in requests.into_iter().enumerate() {
        let token = Token(1_000_000 + number as u64);
        replica.step(world.now, Event::Request { token, request }, &mut out);
        assert!(replica.is_leader(), "request {number}");
    }
    let own = |token: &Token| token.0 >= 1_000_000;
    let answers =
        out.iter().filter(|effect| matches!(effect, Effect::Answer(token, _) if own(token)));
    let answers = answers.count();
    assert_eq!(answers, 6, "{out:?}");
    world.run_for(ms(500));
    assert_eq!((world.leader(), world.epoch(leader), world.nodes[leader].high_watermark), before);
}
