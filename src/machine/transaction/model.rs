//! Random schedules of producers that come, work, lose answers and are fenced, while coordinators restart and markers get
//! lost, judged by what any transactional client may rely on.

use std::collections::{BTreeMap, BTreeSet};

use super::rig::{Rig, TIMEOUT_MS};
use super::*;
use crate::error::ErrorCode;
use crate::types::{SplitMix64, TopicPartition};

const IDS: [&str; 2] = ["t", "u"];
const PARTITIONS: [(&str, i32); 4] = [("a", 0), ("a", 1), ("b", 0), ("gone", 0)];

/// One run of a client program; whoever is started anew is another.
#[derive(Clone, Debug)]
struct Client {
    id: &'static str,
    /// Which instance it is.
    instance: u64,
    producer: Option<Producer>,
    version: i16,
    /// How long the log was when the transaction began, if it has.
    began: Option<usize>,
    /// What it has asked for, and was not told the outcome of.
    unknown_end: Option<bool>,
}

/// What was found out from the log about one id.
#[derive(Debug, Default)]
struct Followed {
    state: Option<TransactionState>,
    partitions: BTreeSet<TopicPartition>,
    /// The partitions that have a marker, while the markers are written.
    marked: BTreeSet<TopicPartition>,
}

struct World {
    rig: Rig,
    random: SplitMix64,
    clients: Vec<Client>,
    instances: u64,
    /// Who was told which id and epoch.
    told: BTreeMap<Producer, (u64, &'static str)>,
    followed: BTreeMap<&'static str, Followed>,
    followed_to: usize,
    /// Markers on their way.
    on_the_way: Vec<Markers>,
    /// Which transactions were seen to end, for the sense of the test.
    commits: usize,
    aborts: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = SplitMix64::new(seed);
        let version = [0, 1, 2, 2][draw(&mut random, 4)];
        Self {
            rig: Rig::new(version),
            random,
            clients: Vec::new(),
            instances: 0,
            told: BTreeMap::new(),
            followed: BTreeMap::new(),
            followed_to: 0,
            on_the_way: Vec::new(),
            commits: 0,
            aborts: 0,
        }
    }

    fn draw(&mut self, below: usize) -> usize {
        draw(&mut self.random, below)
    }

    fn one_in(&mut self, count: usize) -> bool {
        self.draw(count) == 0
    }

    /// The answer, if it gets to the client. What was decided may also be lost with the answer.
    fn lose<T>(&mut self, before: usize, answer: T) -> Option<T> {
        if !self.one_in(10) {
            return Some(answer);
        }
        if self.one_in(2) {
            self.rig.restart_at(before);
            self.followed.values_mut().for_each(|followed| followed.marked.clear());
            self.followed_to = self.followed_to.min(before);
        }
        None
    }

    fn tell(&mut self, who: usize, producer: Producer) {
        let Client { instance, id, .. } = self.clients[who];
        assert!((0..EPOCH_MAX).contains(&producer.epoch), "{producer:?} can be fenced");
        let before = self.told.insert(producer, (instance, id));
        assert!(
            before.is_none_or(|before| before == (instance, id)),
            "{producer:?} was told twice"
        );
        self.clients[who].producer = Some(producer);
    }

    fn start_client(&mut self) {
        let id = IDS[self.draw(IDS.len())];
        let version = [0, 2][self.draw(2)];
        self.instances += 1;
        let instance = self.instances;
        let fresh =
            Client { id, instance, producer: None, version, began: None, unknown_end: None };
        if self.clients.len() < 4 {
            self.clients.push(fresh);
        } else {
            let place = self.draw(4);
            self.clients[place] = fresh;
        }
    }

    fn init(&mut self, who: usize) {
        let before = self.rig.log.len();
        let Client { id, producer, .. } = self.clients[who];
        let result = self.rig.init_of(id, producer);
        match self.lose(before, result) {
            Some(Ok(producer)) => {
                self.clients[who].began = None;
                self.clients[who].unknown_end = None;
                self.tell(who, producer);
            }
            // It has been fenced, and its program ends.
            Some(Err(ErrorCode::ProducerFenced | ErrorCode::InvalidProducerIdMapping)) => {
                self.clients[who].producer = None;
                self.instances += 1;
                self.clients[who].instance = self.instances;
                self.clients[who].began = None;
                self.clients[who].unknown_end = None;
            }
            Some(Err(code)) => assert_eq!(code, ErrorCode::ConcurrentTransactions),
            None => {}
        }
    }

    fn add(&mut self, who: usize) {
        let Client { id, producer: Some(producer), version, .. } = self.clients[who] else {
            return;
        };
        if self.clients[who].unknown_end.is_some() {
            return;
        }
        let (before, place) = (self.rig.log.len(), self.draw(PARTITIONS.len()));
        self.clients[who].began.get_or_insert(before);
        let result = self.rig.add_of(id, producer, &[PARTITIONS[place]], version);
        if let Some(Err(code)) = self.lose(before, result)
            && code != ErrorCode::ConcurrentTransactions
        {
            let fenced = [ErrorCode::ProducerFenced, ErrorCode::InvalidProducerIdMapping];
            assert!(fenced.contains(&code), "{code:?}");
        }
    }

    fn end(&mut self, who: usize) {
        let Client { id, producer: Some(producer), version, began, unknown_end, .. } =
            self.clients[who]
        else {
            return;
        };
        let commits = unknown_end.unwrap_or_else(|| self.one_in(2));
        let before = self.rig.log.len();
        let result = self.rig.end_of(id, producer, commits, version);
        let Some(result) = self.lose(before, result) else {
            self.clients[who].unknown_end = Some(commits);
            return;
        };
        match result {
            Ok(next) => {
                if let Some(began) = began {
                    self.check_end(id, began, commits);
                }
                self.clients[who].began = None;
                self.clients[who].unknown_end = None;
                if version >= 2 {
                    self.tell(who, next);
                }
            }
            Err(ErrorCode::ConcurrentTransactions) => {
                self.clients[who].unknown_end = Some(commits);
            }
            Err(_) => self.clients[who].unknown_end = None,
        }
    }

    /// Whoever was told how its transaction ended finds it so in the log.
    fn check_end(&self, id: &str, began: usize, commits: bool) {
        let decided = self.rig.log[began.min(self.rig.log.len())..]
            .iter()
            .filter(|record| &*record.transactional_id == id)
            .filter_map(|record| record.value.as_ref())
            .find(|value| value.state.is_prepared() && !value.partitions.is_empty());
        let Some(decided) = decided else {
            assert!(!commits || self.nothing_was_added(id, began), "committed, and not decided");
            return;
        };
        let committed = decided.state == TransactionState::PrepareCommit;
        assert_eq!(committed, commits, "{id} was told otherwise: {decided:?}");
    }

    fn nothing_was_added(&self, id: &str, began: usize) -> bool {
        !self.rig.log[began.min(self.rig.log.len())..]
            .iter()
            .filter(|record| &*record.transactional_id == id)
            .filter_map(|record| record.value.as_ref())
            .any(|value| value.state == TransactionState::Ongoing)
    }

    fn markers(&mut self) {
        let before = self.rig.log.len();
        let taken = self.rig.take();
        for markers in &taken {
            let id = IDS.into_iter().find(|id| **id == *markers.transactional_id).unwrap();
            self.follow();
            let followed = &self.followed[id];
            let commits = followed.state == Some(TransactionState::PrepareCommit);
            assert!(followed.state.is_some_and(TransactionState::is_prepared), "not decided yet");
            assert_eq!(markers.commits, commits);
            assert!(markers.partitions.is_subset(&followed.partitions), "foreign partitions");
        }
        assert_eq!(self.rig.log.len(), before);
        self.on_the_way.extend(taken);
        self.on_the_way.truncate(50);
    }

    fn answer_markers(&mut self) {
        if self.on_the_way.is_empty() {
            return;
        }
        let place = self.draw(self.on_the_way.len());
        let markers = self.on_the_way.swap_remove(place);
        self.follow();
        let id = IDS.into_iter().find(|id| **id == *markers.transactional_id).unwrap();
        let mut outcomes = Vec::new();
        for partition in &markers.partitions {
            let outcome = match self.draw(3) {
                0 => MarkerOutcome::Again,
                _ if &*partition.topic == "gone" => MarkerOutcome::Gone,
                _ => MarkerOutcome::Written,
            };
            if outcome != MarkerOutcome::Again && markers.round == self.rig.shard.round {
                self.followed.get_mut(id).unwrap().marked.insert(partition.clone());
            }
            outcomes.push((partition.clone(), outcome));
        }
        if self.one_in(8) {
            // The answer is lost with the coordinator; the next one has the markers written once more.
            self.restart();
            return;
        }
        self.rig.answered(&markers, outcomes);
    }

    /// Follows the log: states come in their order, with the partitions that were added.
    fn follow(&mut self) {
        for record in &self.rig.log[self.followed_to..] {
            let id = IDS.into_iter().find(|id| **id == *record.transactional_id).unwrap();
            let followed = self.followed.entry(id).or_default();
            let Some(value) = &record.value else {
                assert!(followed.state.is_some_and(TransactionState::is_idle), "forgotten open");
                *followed = Followed::default();
                continue;
            };
            use TransactionState as S;
            let before = followed.state.unwrap_or(S::Empty);
            match value.state {
                S::Empty => assert!(before.is_idle()),
                S::Ongoing => {
                    assert!(before.is_idle() || before == S::Ongoing);
                    let kept = before == S::Ongoing;
                    assert!(!kept || followed.partitions.is_subset(&value.partitions));
                }
                S::PrepareCommit => assert_eq!(before, S::Ongoing),
                S::PrepareAbort => assert!(!before.is_prepared()),
                S::CompleteCommit => assert_eq!(before, S::PrepareCommit),
                S::CompleteAbort => assert!(matches!(before, S::PrepareAbort | S::CompleteAbort)),
            }
            if value.state.is_prepared() {
                let open =
                    if before == S::Ongoing { followed.partitions.clone() } else { [].into() };
                assert_eq!(*value.partitions, open, "exactly its partitions");
                followed.marked.clear();
            }
            if matches!(value.state, S::CompleteCommit | S::CompleteAbort) && before.is_prepared() {
                assert_eq!(followed.marked, followed.partitions, "complete without a marker");
                match value.state {
                    S::CompleteCommit => self.commits += 1,
                    _ => self.aborts += 1,
                }
            }
            followed.state = Some(value.state);
            followed.partitions.clone_from(&value.partitions);
        }
        self.followed_to = self.rig.log.len();
    }

    fn step(&mut self) {
        let who = (!self.clients.is_empty()).then(|| self.draw(self.clients.len()));
        match (self.draw(24), who) {
            (0, _) | (_, None) => self.start_client(),
            (1..=3, Some(who)) => self.init(who),
            (4..=8, Some(who)) => self.add(who),
            (9..=13, Some(who)) => self.end(who),
            (14..=16, _) => self.markers(),
            (17..=19, _) => self.answer_markers(),
            (20, _) => {
                let longest = [100, 20_000, i64::from(TIMEOUT_MS) * 2, 800_000][self.draw(4)];
                self.rig.pass(longest);
            }
            (21, _) => self.restart(),
            (22, _) => self.run_epochs_out(),
            _ => {
                let id = IDS[self.draw(IDS.len())];
                let Some(value) = self.rig.shard.transactions.get(id) else { return };
                let producer = value.value.producer();
                if id == rig::ID {
                    drop(self.rig.verify(producer, &PARTITIONS));
                }
            }
        }
        self.follow();
    }

    /// Brings an idle id near to its last epoch, as many transactions would.
    fn run_epochs_out(&mut self) {
        let Some(value) = self.rig.shard.transactions.get(rig::ID) else { return };
        if value.value.state == TransactionState::Empty && value.value.producer_epoch < 1000 {
            let near = i16::try_from(self.draw(4)).unwrap();
            self.rig.set_epoch(EPOCH_MAX - 1 - near);
        }
    }

    /// Markers that were handed out stay on their way.
    fn restart(&mut self) {
        self.rig.restart();
        self.followed.values_mut().for_each(|followed| followed.marked.clear());
    }

    /// Everything that is open comes to its end.
    fn finish(&mut self) {
        self.restart();
        self.rig.pass(i64::from(TIMEOUT_MS) * 2);
        for _ in 0..2 {
            for markers in self.rig.take() {
                let id = IDS.into_iter().find(|id| **id == *markers.transactional_id).unwrap();
                self.follow();
                self.followed.get_mut(id).unwrap().marked.extend(markers.partitions.clone());
                self.rig.fared(&markers, MarkerOutcome::Written);
            }
        }
        self.follow();
        for (id, followed) in &self.followed {
            let state = followed.state.unwrap_or(TransactionState::Empty);
            assert!(state.is_idle(), "{id} hangs in {state:?}");
        }
    }
}

fn draw(random: &mut SplitMix64, below: usize) -> usize {
    usize::try_from(random.draw() % u64::try_from(below).unwrap()).unwrap()
}

fn run(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    for _ in 0..300 {
        world.step();
    }
    world.finish();
    (world.commits, world.aborts)
}

#[test]
fn producers_can_rely_on_what_they_are_told() {
    let (mut commits, mut aborts) = (0, 0);
    for seed in 0..1500 {
        let result = std::panic::catch_unwind(|| run(seed));
        let (committed, aborted) = result.unwrap_or_else(|_| panic!("seed {seed}"));
        commits += committed;
        aborts += aborted;
    }
    assert!(commits > 1000 && aborts > 1000, "{commits} commits and {aborts} aborts say little");
}
