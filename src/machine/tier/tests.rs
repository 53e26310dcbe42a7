//! A store that delays, fails, and applies what it then says has failed; leaders that change, and do not know it.
//!
//! Each seed is one run: three brokers with copies of one partition, whose segments end at different offsets, and
//! a store. After every step each record must be on the disk of the leader or in exactly one live file that is there.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::types::NodeId;

/// Random numbers from a seed.
#[derive(Debug)]
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// What is in the store.
#[derive(Debug, Default)]
struct Store {
    versions: BTreeMap<u64, Version>,
    /// The offsets that a file holds.
    files: BTreeMap<String, (Offset, Offset)>,
    /// The manifest as of the newest version.
    newest: Manifest,
}

impl Store {
    fn manifest(&self) -> Manifest {
        let mut manifest = Manifest::default();
        let last = self.versions.keys().next_back().copied().unwrap_or(0);
        let from = last / SNAPSHOT_EVERY * SNAPSHOT_EVERY;
        for (_, version) in self.versions.range(from..) {
            manifest.apply(version).unwrap();
        }
        manifest
    }

    fn carry_out(&mut self, effect: &Effect) -> Reply {
        match effect {
            Effect::Read => Reply::Read(Ok(self.manifest())),
            Effect::Create(version) => Reply::Created(match self.versions.get(&version.version) {
                Some(there) => Creation::Exists(Box::new(there.clone())),
                None => {
                    self.newest.apply(version).unwrap();
                    self.versions.insert(version.version, (**version).clone());
                    Creation::Created
                }
            }),
            Effect::Upload { name, base_offset, end_offset } => {
                self.files.insert(name.clone(), (*base_offset, *end_offset));
                Reply::Uploaded(Ok(uploaded(*base_offset, *end_offset)))
            }
            Effect::List => Reply::Listed(Ok(self.files.keys().cloned().collect())),
            Effect::Delete(name) => {
                self.files.remove(name);
                Reply::Deleted(Ok(()))
            }
            other => panic!("{other:?} is not for the store"),
        }
    }
}

/// Ten bytes a record; its time is its offset, in seconds.
fn uploaded(base: Offset, end: Offset) -> Uploaded {
    let count = u64::try_from(end.0 - base.0).unwrap();
    Uploaded {
        last_epoch: LeaderEpoch(0),
        max_timestamp: TimestampMs(end.0 * 1000),
        log_bytes: count * 10,
        file_bytes: count,
        crc32c: 0,
    }
}

/// What is told when the store did not answer.
fn failed(effect: &Effect) -> Reply {
    let why = "the store does not answer".to_owned();
    match effect {
        Effect::Read => Reply::Read(Err(why)),
        Effect::Create(_) => Reply::Created(Creation::Failed(why)),
        Effect::Upload { .. } => Reply::Uploaded(Err(why)),
        Effect::List => Reply::Listed(Err(why)),
        Effect::Delete(_) => Reply::Deleted(Err(why)),
        other => panic!("{other:?} is not for the store"),
    }
}

#[derive(Debug)]
enum Later {
    /// The store does something, and says so, or that it failed.
    Apply {
        broker: usize,
        term: u64,
        effect: Effect,
        tells: Option<bool>,
    },
    Tell {
        broker: usize,
        term: u64,
        reply: Reply,
    },
    Resign {
        broker: usize,
        term: u64,
    },
}

#[derive(Debug)]
struct Broker {
    tier: PartitionTier,
    /// Segments are closed at multiples of this.
    segment: i64,
    local_start: Offset,
}

#[derive(Debug)]
struct Run {
    dice: Dice,
    faults: bool,
    now: i64,
    sequence: u64,
    later: BTreeMap<(i64, u64), Later>,
    store: Store,
    brokers: Vec<Broker>,
    leader: usize,
    epoch: i32,
    claims: u64,
    log_start: Offset,
    log_end: i64,
    /// Names that were live once.
    live: BTreeSet<String>,
    fenced: usize,
}

const SEEDS: u64 = 200;

const RULES: TierRules = TierRules {
    copies: true,
    retention_ms: None,
    retention_bytes: Some(4000),
    delete_delay_ms: 2000,
    list_interval_ms: 9000,
};

impl Run {
    fn new(seed: u64) -> Self {
        let broker = |segment| Broker {
            tier: PartitionTier::new("0a0b0c0d", RULES),
            segment,
            local_start: Offset::ZERO,
        };
        Self {
            dice: Dice(seed),
            faults: true,
            now: 0,
            sequence: 0,
            later: BTreeMap::new(),
            store: Store::default(),
            brokers: [7, 10, 13].map(broker).into(),
            leader: 0,
            epoch: 0,
            claims: 0,
            log_start: Offset::ZERO,
            log_end: 0,
            live: BTreeSet::new(),
            fenced: 0,
        }
    }

    fn at(&mut self, delay: u64, later: Later) {
        self.sequence += 1;
        self.later.insert((self.now + i64::try_from(delay).unwrap(), self.sequence), later);
    }

    fn view(&self, broker: usize) -> LogView {
        let Broker { segment, local_start, .. } = self.brokers[broker];
        let closed =
            (local_start.0 / segment..self.log_end / segment).map(|number| ClosedSegment {
                base_offset: Offset(number * segment),
                end_offset: Offset((number + 1) * segment),
            });
        let manifest = self.brokers[broker].tier.manifest();
        let end = manifest.and_then(|manifest| manifest.content().end_offset());
        let local = self.log_end - end.unwrap_or(self.log_start).0;
        LogView {
            log_start: self.log_start,
            log_end: Offset(self.log_end),
            local_bytes: u64::try_from(local).unwrap_or(0) * 10,
            closed: closed.collect(),
            lineage: vec![(LeaderEpoch(0), Offset::ZERO)],
        }
    }

    fn step(&mut self, broker: usize, event: Event) {
        let mut effects = Vec::new();
        let now = TimestampMs(self.now);
        self.brokers[broker].tier.step(now, event, &mut effects);
        let term = self.brokers[broker].tier.term();
        for effect in effects {
            self.carry_out(broker, term, effect);
        }
    }

    fn carry_out(&mut self, broker: usize, term: u64, effect: Effect) {
        match effect {
            Effect::RaiseLogStart(offset) => {
                // Only the leader can move it.
                if broker == self.leader && !self.dice.chance(20) {
                    assert!(offset.0 <= self.log_end);
                    self.log_start = self.log_start.max(offset);
                }
            }
            Effect::Tiered(end) => {
                // The log deletes whatever it may, at once.
                let broker = &mut self.brokers[broker];
                let boundary = Offset(end.0 / broker.segment * broker.segment);
                broker.local_start = broker.local_start.max(boundary);
            }
            Effect::Fenced(_) => self.fenced += 1,
            effect => self.send(broker, term, effect),
        }
    }

    fn send(&mut self, broker: usize, term: u64, effect: Effect) {
        let delay = 1 + self.dice.below(200);
        if !self.faults {
            self.at(delay, Later::Apply { broker, term, effect, tells: Some(true) });
            return;
        }
        match self.dice.below(10) {
            0 => {
                let reply = failed(&effect);
                self.at(delay, Later::Tell { broker, term, reply });
            }
            // Applied, and the reply is lost.
            1 | 2 => self.at(delay, Later::Apply { broker, term, effect, tells: Some(false) }),
            // Given up, and applied much later.
            3 => {
                let reply = failed(&effect);
                self.at(delay, Later::Tell { broker, term, reply });
                let delay = delay + self.dice.below(30_000);
                self.at(delay, Later::Apply { broker, term, effect, tells: None });
            }
            4 => {
                let delay = self.dice.below(20_000);
                self.at(delay, Later::Apply { broker, term, effect, tells: Some(true) });
            }
            _ => self.at(delay, Later::Apply { broker, term, effect, tells: Some(true) }),
        }
    }

    fn happen(&mut self, later: Later) {
        match later {
            Later::Apply { broker, term, effect, tells } => {
                let reply = self.store.carry_out(&effect);
                let reply = match tells {
                    None => return,
                    Some(true) => reply,
                    Some(false) => failed(&effect),
                };
                self.at(1, Later::Tell { broker, term, reply });
            }
            Later::Tell { broker, term, reply } => self.step(broker, Event::Done { term, reply }),
            Later::Resign { broker, term } => {
                if self.brokers[broker].tier.term() == term {
                    self.step(broker, Event::Resign);
                }
            }
        }
    }

    /// Another broker leads, and the one that did learns it when it learns it.
    fn elect(&mut self) {
        let before = self.leader;
        self.leader = usize::try_from(self.dice.below(3)).unwrap();
        self.epoch += 1;
        if before != self.leader {
            let term = self.brokers[before].tier.term();
            let delay = self.dice.below(20_000);
            self.at(delay, Later::Resign { broker: before, term });
        }
        self.claims += 1;
        let claim = Claim {
            leader_epoch: LeaderEpoch(self.epoch),
            broker: NodeId(i32::try_from(self.leader).unwrap()),
            token: format!("claim-{}", self.claims),
        };
        let view = self.view(self.leader);
        self.step(self.leader, Event::Lead(claim));
        self.step(self.leader, Event::Log(view));
    }

    /// Every record is here or there, and every live file is there.
    fn check(&mut self) {
        let content = self.store.newest.content();
        for file in &content.files {
            let there = self.store.files.get(&file.name);
            assert_eq!(there, Some(&(file.base_offset, file.end_offset)), "{}", file.name);
            if !self.live.contains(&file.name) {
                self.live.insert(file.name.clone());
            }
        }
        // Files follow each other without gaps: `Manifest::apply` has seen to that.
        let local = self.brokers[self.leader].local_start.min(Offset(self.log_end));
        if self.log_start < local {
            let start = content.start_offset().unwrap();
            assert!(start <= self.log_start, "{start} at {}", self.now);
            assert!(content.end_offset().unwrap() >= local, "{content:?} at {}", self.now);
        }
    }

    fn advance(&mut self, until: i64) {
        loop {
            let deadlines = (0..3).filter_map(|broker| {
                let at = self.brokers[broker].tier.next_deadline()?;
                Some((at.0.max(self.now), broker))
            });
            let elapsed = deadlines.min();
            let next = self.later.first_key_value().map(|((at, _), _)| *at);
            match (elapsed, next) {
                (Some((at, broker)), next) if at <= until && next.is_none_or(|next| at < next) => {
                    self.now = at;
                    self.step(broker, Event::Elapsed);
                }
                (_, Some(at)) if at <= until => {
                    let (_, later) = self.later.pop_first().unwrap();
                    self.now = self.now.max(at);
                    self.happen(later);
                }
                _ => break,
            }
            self.check();
        }
        self.now = until;
    }

    fn run(&mut self) {
        self.elect();
        for _ in 0..60 {
            self.log_end += i64::try_from(self.dice.below(40)).unwrap();
            if self.dice.chance(12) {
                self.elect();
            }
            for broker in 0..3 {
                let view = self.view(broker);
                self.step(broker, Event::Log(view));
            }
            let pause = i64::try_from(self.dice.below(3000)).unwrap();
            self.advance(self.now + pause);
        }
    }

    /// Without faults, everything comes to rest: what can be in the tier is, and nothing else.
    fn settle(&mut self) {
        self.faults = false;
        for _ in 0..60 {
            for broker in 0..3 {
                let view = self.view(broker);
                self.step(broker, Event::Log(view));
            }
            self.advance(self.now + 5000);
        }
        let manifest = self.store.manifest();
        let content = manifest.content();
        let names: BTreeSet<&String> = content.files.iter().map(|file| &file.name).collect();
        assert!(self.store.files.keys().eq(names), "{:?} {content:?}", self.store.files);
        assert!(content.doomed.is_empty(), "{content:?}");
        let segment = self.brokers[self.leader].segment;
        if let Some(end) = content.end_offset() {
            assert!(end.0 >= self.log_end / segment * segment, "{end} of {}", self.log_end);
        }
        let bytes: u64 = content.files.iter().map(|file| file.log_bytes).sum();
        assert!(bytes <= 4000 + 400, "{bytes}");
    }
}

#[test]
fn every_record_is_somewhere_whatever_the_store_and_the_leaders_do() {
    let (mut files, mut fenced) = (0, 0);
    for seed in 0..SEEDS {
        let mut run = Run::new(seed);
        run.run();
        run.settle();
        files += run.live.len();
        fenced += run.fenced;
    }
    // The runs did what they are for.
    assert!(files > 4000 && fenced > 50, "{files} files, {fenced} fenced");
}

fn claim(epoch: i32) -> Claim {
    let token = format!("of {epoch}");
    Claim { leader_epoch: LeaderEpoch(epoch), broker: NodeId(epoch), token }
}

fn leading(view: LogView, rules: TierRules) -> (PartitionTier, Store) {
    let (mut tier, mut store) = (PartitionTier::new("0a0b0c0d", rules), Store::default());
    drive(&mut tier, &mut store, 0, [Event::Lead(claim(1)), Event::Log(view)]);
    (tier, store)
}

/// Takes events, and has the store do at once what follows from them; returns what else does.
fn drive(
    tier: &mut PartitionTier,
    store: &mut Store,
    now: i64,
    events: impl IntoIterator<Item = Event>,
) -> Vec<Effect> {
    let mut others = Vec::new();
    let mut events: std::collections::VecDeque<Event> = events.into_iter().collect();
    while let Some(event) = events.pop_front() {
        let mut effects = Vec::new();
        tier.step(TimestampMs(now), event, &mut effects);
        for effect in effects {
            match effect {
                Effect::RaiseLogStart(_) | Effect::Tiered(_) | Effect::Fenced(_) => {
                    others.push(effect);
                }
                effect => {
                    let reply = store.carry_out(&effect);
                    events.push_back(Event::Done { term: tier.term(), reply });
                }
            }
        }
    }
    others
}

fn view(log_start: i64, closed: &[i64]) -> LogView {
    LogView {
        log_start: Offset(log_start),
        log_end: Offset(closed.last().copied().unwrap_or(0) + 5),
        local_bytes: 0,
        closed: closed
            .windows(2)
            .map(|ends| ClosedSegment { base_offset: Offset(ends[0]), end_offset: Offset(ends[1]) })
            .collect(),
        lineage: vec![(LeaderEpoch(0), Offset::ZERO)],
    }
}

const KEEP: TierRules = TierRules { retention_bytes: None, ..RULES };

#[test]
fn nothing_is_doomed_before_the_log_was_seen_in_this_term() {
    let (mut tier, mut store) = leading(view(0, &[0, 10, 20, 30]), KEEP);
    drive(&mut tier, &mut store, 0, [Event::Resign, Event::Log(LogView::default())]);
    drive(&mut tier, &mut store, 0, [Event::Lead(claim(2)), Event::Elapsed]);
    assert!(tier.is_claimed());
    let files = |tier: &PartitionTier| tier.manifest().unwrap().content().files.len();
    assert_eq!((files(&tier), store.files.len()), (3, 3));
    assert_eq!(tier.next_deadline(), None);
    drive(&mut tier, &mut store, 0, [Event::Log(view(0, &[0, 10, 20, 30, 40]))]);
    assert_eq!((files(&tier), store.files.len()), (4, 4));
}

#[test]
fn old_files_go_after_the_log_start_has_moved() {
    let (mut tier, mut store) = leading(view(0, &[0, 10, 20, 30]), KEEP);
    assert_eq!(store.files.len(), 3);
    // The first two files are 10 and 20 s old, and 15 s are kept.
    let rules = TierRules { retention_ms: Some(15_000), ..KEEP };
    let asked = drive(&mut tier, &mut store, 36_000, [Event::Rules(rules)]);
    assert_eq!(asked, [Effect::RaiseLogStart(Offset(20))]);
    assert_eq!(store.files.len(), 3);
    let moved = view(20, &[0, 10, 20, 30]);
    drive(&mut tier, &mut store, 36_000, [Event::Log(moved)]);
    let content = tier.manifest().unwrap().content().clone();
    assert_eq!((content.start_offset(), content.doomed.len()), (Some(Offset(20)), 2));
    assert_eq!(store.files.len(), 3);
    assert_eq!(tier.next_deadline(), Some(TimestampMs(9000).max(TimestampMs(38_000))));
    drive(&mut tier, &mut store, 38_000, [Event::Elapsed]);
    assert_eq!(store.files.len(), 1);
    assert!(tier.manifest().unwrap().content().doomed.is_empty());
}

#[test]
fn files_that_the_log_has_diverged_from_go() {
    let (mut tier, mut store) = leading(view(0, &[0, 10, 20, 30]), KEEP);
    // An unclean election: from offset 15 on, the log was written by a leader of epoch 1.
    let lineage = vec![(LeaderEpoch(0), Offset::ZERO), (LeaderEpoch(1), Offset(15))];
    let diverged = LogView { lineage, ..view(0, &[0, 10, 20, 30]) };
    let only_deletes = Event::Rules(TierRules { copies: false, ..KEEP });
    let others = drive(&mut tier, &mut store, 50, [only_deletes, Event::Log(diverged)]);
    let content = tier.manifest().unwrap().content();
    assert_eq!(others.first(), Some(&Effect::Tiered(Offset(10))));
    assert_eq!((content.start_offset(), content.doomed.len()), (Some(Offset::ZERO), 2));
}

#[test]
fn a_leader_that_was_replaced_stops() {
    let (mut tier, mut store) = leading(view(0, &[0, 10]), KEEP);
    let mut newer = PartitionTier::new("0a0b0c0d", KEEP);
    drive(&mut newer, &mut store, 10, [Event::Lead(claim(2)), Event::Log(view(0, &[0, 10]))]);
    let others = drive(&mut tier, &mut store, 20, [Event::Log(view(0, &[0, 10, 20]))]);
    assert_eq!(others, [Effect::Fenced(claim(2))]);
    assert_eq!(store.manifest().content().end_offset(), Some(Offset(10)));
    // What it had uploaded is found by the one that leads, and goes.
    assert_eq!(store.files.len(), 2);
    drive(&mut newer, &mut store, 10_000, [Event::Elapsed]);
    drive(&mut newer, &mut store, 13_000, [Event::Elapsed]);
    assert_eq!(store.files.len(), 1);
}

#[test]
fn every_64th_version_says_everything_and_others_are_read_from_it() {
    let ends: Vec<i64> = (0..=200).map(|number| number * 10).collect();
    let (tier, store) = leading(view(0, &ends), KEEP);
    assert_eq!(store.manifest(), *tier.manifest().unwrap());
    assert_eq!(store.manifest().content().files.len(), 200);
    let says = |number: u64| &store.versions[&number].says;
    assert!(matches!(says(64), Says::Snapshot(content) if content.files.len() == 63));
    assert!(matches!(says(65), Says::Delta(_)));
    let text = serde_json::to_string(&store.versions[&2]).unwrap();
    assert_eq!(serde_json::from_str::<Version>(&text).unwrap(), store.versions[&2]);
}

#[test]
fn versions_that_do_not_follow_are_refused() {
    let (_, store) = leading(view(0, &[0, 10, 20]), KEEP);
    let [first, second, third] = [1, 2, 3].map(|number| store.versions[&number].clone());
    let mut manifest = Manifest::default();
    manifest.apply(&second).unwrap_err();
    manifest.apply(&first).unwrap();
    manifest.apply(&third).unwrap_err();
    let older = Version { claim: claim(0), ..second.clone() };
    manifest.apply(&older).unwrap_err();
    let newer = Version { format: MANIFEST_FORMAT + 1, ..second.clone() };
    assert!(manifest.apply(&newer).unwrap_err().contains("format 2"));
    manifest.apply(&second).unwrap();
    // A gap between two files.
    let Says::Delta(Delta { add: Some(file), .. }) = third.says.clone() else { panic!() };
    let gap = FileEntry { base_offset: Offset(11), ..file };
    let says = Says::Delta(Delta { add: Some(gap), ..Delta::default() });
    manifest.apply(&Version { says, ..third.clone() }).unwrap_err();
    manifest.apply(&third).unwrap();
}

#[test]
fn a_failing_store_is_asked_less_and_less_often() {
    let mut tier = PartitionTier::new("0a0b0c0d", KEEP);
    let mut effects = Vec::new();
    tier.step(TimestampMs(0), Event::Lead(claim(1)), &mut effects);
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..10 {
        assert_eq!(effects, [Effect::Read]);
        effects.clear();
        let reply = Reply::Read(Err("no route to host".to_owned()));
        tier.step(TimestampMs(now), Event::Done { term: 1, reply }, &mut effects);
        assert_eq!((effects.len(), tier.failure()), (0, Some("no route to host")));
        let next = tier.next_deadline().unwrap().0;
        pauses.push(next - now);
        now = next;
        tier.step(TimestampMs(now), Event::Elapsed, &mut effects);
    }
    let expected = [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000, 60_000];
    assert_eq!(pauses, expected);
}

#[test]
fn what_succeeds_says_nothing_of_what_fails() {
    let rules = TierRules { retention_ms: None, ..KEEP };
    let (mut tier, mut store) = leading(view(0, &[0, 10, 20, 30]), rules);
    let moved = view(10, &[0, 10, 20, 30, 40]);
    let mut effects = Vec::new();
    tier.step(TimestampMs(0), Event::Log(moved), &mut effects);
    let is_upload = |effect: &Effect| matches!(effect, Effect::Upload { .. });
    let mut now = 0;
    let mut pauses = Vec::new();
    for _ in 0..4 {
        let place = effects.iter().position(is_upload).unwrap();
        effects.remove(place);
        let why = Reply::Uploaded(Err("no room".to_owned()));
        let mut after = Vec::new();
        tier.step(TimestampMs(now), Event::Done { term: 1, reply: why }, &mut after);
        pauses.push(tier.next_deadline().unwrap().0 - now);
        // Meanwhile versions are created, and what was doomed is deleted.
        for effect in effects.drain(..).filter(|one| !matches!(one, Effect::Tiered(_))) {
            let reply = store.carry_out(&effect);
            tier.step(TimestampMs(now), Event::Done { term: 1, reply }, &mut after);
        }
        assert_eq!(tier.failure(), Some("no room"));
        now += *pauses.last().unwrap();
        tier.step(TimestampMs(now), Event::Elapsed, &mut after);
        effects = after;
    }
    assert_eq!(pauses, [500, 1000, 2000, 4000]);
    assert!(tier.manifest().unwrap().content().files.len() < 3, "the first file was doomed");
    for effect in effects.drain(..).filter(is_upload) {
        let reply = store.carry_out(&effect);
        drive(&mut tier, &mut store, now, [Event::Done { term: 1, reply }]);
    }
    assert_eq!(tier.failure(), None);
}
