//! The accumulator against a broker that checks sequences as Kafka does.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const NODE: NodeId = NodeId(1);

fn partition(index: i32) -> TopicPartition {
    TopicPartition::new("orders", index)
}

fn accumulator(settings: Settings) -> Accumulator<Vec<u32>> {
    let mut accumulator = Accumulator::new(settings);
    accumulator.set_producer(ProducerId(7), ProducerEpoch(0));
    accumulator
}

fn drain(accumulator: &mut Accumulator<Vec<u32>>, now: i64) -> Vec<Drained<Vec<u32>>> {
    accumulator.drain(TimestampMs(now), NODE, |_| Some(NODE))
}

#[test]
fn an_open_batch_leaves_after_its_linger_or_when_it_is_full() {
    let mut accumulator = accumulator(Settings { batch_bytes: 100, ..Settings::default() });
    let tp = partition(0);
    accumulator.append(TimestampMs(0), &tp, 60, Vec::new).0.push(1);
    accumulator.seal_lingered(TimestampMs(4));
    assert!(!accumulator.has_ready(TimestampMs(4)));
    assert_eq!(accumulator.next_deadline(TimestampMs(4)), Some(TimestampMs(5)));
    let (batch, closed) = accumulator.append(TimestampMs(4), &tp, 60, Vec::new);
    batch.push(2);
    assert!(closed, "the second record has no room in the first batch");
    let mut first = drain(&mut accumulator, 4);
    assert_eq!(first.iter().map(|batch| batch.payload.clone()).collect::<Vec<_>>(), [vec![1]]);
    accumulator.settle(TimestampMs(5), first.remove(0), Verdict::Acknowledged, 0);
    accumulator.seal_lingered(TimestampMs(9));
    assert_eq!(drain(&mut accumulator, 9)[0].payload, [2]);
    assert_eq!(accumulator.buffered_bytes(), 60);
}

#[test]
fn a_request_takes_one_batch_of_each_partition_up_to_its_size() {
    let settings = Settings { request_bytes_max: 100, idempotent: false, ..Settings::default() };
    let mut accumulator = accumulator(settings);
    for index in 0..3 {
        for number in 0..2 {
            accumulator.append_batch(TimestampMs(0), &partition(index), 50, 1, vec![number]);
        }
    }
    let taken = |drained: Vec<Drained<_>>| {
        drained.into_iter().map(|batch| batch.partition.partition.0).collect::<Vec<_>>()
    };
    assert_eq!(taken(drain(&mut accumulator, 0)), [0, 1]);
    assert_eq!(taken(drain(&mut accumulator, 0)), [2, 0], "partitions are served in turn");
    accumulator.append_batch(TimestampMs(0), &partition(9), 5_000, 1, vec![]);
    assert_eq!(taken(drain(&mut accumulator, 0)), [1, 2]);
    assert_eq!(taken(drain(&mut accumulator, 0)), [9], "too large for a request still leaves");
}

#[test]
fn no_batch_leaves_before_the_producer_has_its_id() {
    let mut accumulator = Accumulator::new(Settings::default());
    accumulator.append_batch(TimestampMs(0), &partition(0), 10, 1, vec![1]);
    assert!(accumulator.needs_producer_id());
    assert!(drain(&mut accumulator, 0).is_empty());
    accumulator.set_producer(ProducerId(1), ProducerEpoch(0));
    assert_eq!(drain(&mut accumulator, 0).len(), 1);
}

#[test]
fn a_batch_expires_while_it_waits_and_is_not_retried_after() {
    let settings = Settings { delivery_timeout_ms: 1_000, ..Settings::default() };
    let mut accumulator = accumulator(settings);
    accumulator.append_batch(TimestampMs(0), &partition(0), 10, 1, vec![1]);
    accumulator.append_batch(TimestampMs(0), &partition(0), 10, 1, vec![2]);
    let sent = drain(&mut accumulator, 0).remove(0);
    let expired = accumulator.expire(TimestampMs(1_000));
    assert_eq!(expired.len(), 1);
    assert_eq!(expired[0].2, Failure::Expired(None));
    let code = ErrorCode::NotEnoughReplicas;
    let settled = accumulator.settle(TimestampMs(1_000), sent, Verdict::Refused(code), 0);
    assert!(matches!(settled, Settled::Failed(_, Failure::Expired(Some(given))) if given == code));
    assert!(accumulator.is_idle());
    assert_eq!(accumulator.buffered_bytes(), 0);
}

#[test]
fn a_batch_that_too_few_replicas_have_is_sent_again_under_its_number() {
    let mut accumulator = accumulator(Settings::default());
    accumulator.append_batch(TimestampMs(0), &partition(0), 10, 5, vec![1]);
    let sent = drain(&mut accumulator, 0).remove(0);
    let stamp = sent.stamp;
    let few = Verdict::Refused(ErrorCode::NotEnoughReplicasAfterAppend);
    assert!(matches!(accumulator.settle(TimestampMs(1), sent, few, 0), Settled::Retrying));
    // It may be in the log: with the same number, the leader recognises it.
    assert_eq!(drain(&mut accumulator, 1_000).remove(0).stamp, stamp);
}

#[test]
fn nothing_follows_the_first_batch_before_the_leader_knows_the_producer() {
    let mut accumulator = accumulator(Settings::default());
    for number in 0..3 {
        accumulator.append_batch(TimestampMs(0), &partition(0), 10, 5, vec![number]);
    }
    let first = drain(&mut accumulator, 0).remove(0);
    assert!(drain(&mut accumulator, 0).is_empty());
    let refused = Verdict::Refused(ErrorCode::NotEnoughReplicas);
    assert!(matches!(accumulator.settle(TimestampMs(1), first, refused, 0), Settled::Retrying));
    let first = drain(&mut accumulator, 1_000).remove(0);
    assert_eq!((&first.payload[..], first.stamp.sequence), (&[0][..], Sequence(0)));
    accumulator.settle(TimestampMs(1_000), first, Verdict::Acknowledged, 0);
    assert_eq!(drain(&mut accumulator, 1_000).remove(0).payload, [1]);
    assert_eq!(drain(&mut accumulator, 1_000).remove(0).payload, [2], "several are in flight");
}

#[test]
fn after_a_refused_batch_the_numbers_start_again_under_a_higher_epoch() {
    let mut accumulator = accumulator(Settings::default());
    for number in 0..4 {
        accumulator.append_batch(TimestampMs(0), &partition(0), 10, 5, vec![number]);
    }
    let known = drain(&mut accumulator, 0).remove(0);
    accumulator.settle(TimestampMs(0), known, Verdict::Acknowledged, 0);
    let first = drain(&mut accumulator, 0).remove(0);
    let second = drain(&mut accumulator, 0).remove(0);
    assert_eq!((first.stamp.sequence, second.stamp.sequence), (Sequence(5), Sequence(10)));
    let refused = Verdict::Refused(ErrorCode::MessageTooLarge);
    assert!(matches!(
        accumulator.settle(TimestampMs(1), first, refused, 0),
        Settled::Failed(_, Failure::Refused(ErrorCode::MessageTooLarge))
    ));
    assert!(drain(&mut accumulator, 1).is_empty(), "not while the second is on its way");
    let gap = Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber);
    assert!(matches!(accumulator.settle(TimestampMs(1), second, gap, 0), Settled::Retrying));
    let again = drain(&mut accumulator, 1_000).remove(0);
    assert_eq!(again.payload, [2]);
    assert_eq!((again.stamp.epoch, again.stamp.sequence), (ProducerEpoch(1), Sequence(0)));
}

/// A partition leader that checks producer epochs and sequences as Kafka does: of a producer that it does not know it
/// takes any.
#[derive(Default)]
struct Leader {
    epoch: i16,
    next: Option<i32>,
    recent: Vec<(i16, i32)>,
    log: Vec<u32>,
}

impl Leader {
    fn append(&mut self, stamp: Stamp, payload: &[u32]) -> Result<(), ErrorCode> {
        let (epoch, sequence) = (stamp.epoch.0, stamp.sequence.0);
        if self.recent.contains(&(epoch, sequence)) {
            return Ok(());
        }
        if epoch < self.epoch {
            return Err(ErrorCode::InvalidProducerEpoch);
        }
        let next = match self.next {
            None => sequence,
            Some(_) if epoch > self.epoch => 0,
            Some(next) => next,
        };
        if sequence != next {
            return Err(ErrorCode::OutOfOrderSequenceNumber);
        }
        self.epoch = epoch;
        self.next = Some(next + i32::try_from(payload.len()).unwrap());
        self.log.extend(payload);
        self.recent.push((epoch, sequence));
        if self.recent.len() > 5 {
            self.recent.remove(0);
        }
        Ok(())
    }
}

/// What happens to the next request on the wire.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    LostBefore,
    LostAfter,
    NotLeader,
    TooLarge,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Arrives),
        1 => Just(Fate::LostBefore),
        1 => Just(Fate::LostAfter),
        1 => Just(Fate::NotLeader),
        1 => Just(Fate::TooLarge),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Append(i32, u8),
    Send,
    Answer(usize, Fate),
    Wait(u16),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..3_i32, 1..4_u8).prop_map(|(partition, records)| Step::Append(partition, records)),
        Just(Step::Send),
        (0..8_usize, fate()).prop_map(|(which, fate)| Step::Answer(which, fate)),
        (1..400_u16).prop_map(Step::Wait),
    ]
}

/// The accumulator, its leaders, and what the caller was told.
struct Rig {
    accumulator: Accumulator<Vec<u32>>,
    leaders: BTreeMap<i32, Leader>,
    on_the_wire: Vec<Drained<Vec<u32>>>,
    appended: BTreeMap<i32, Vec<u32>>,
    acknowledged: BTreeMap<i32, Vec<u32>>,
    failed: Vec<u32>,
    now: i64,
    next_value: u32,
}

impl Rig {
    fn run(&mut self, step: &Step) {
        match *step {
            Step::Append(index, records) => {
                let values: Vec<u32> =
                    (0..u32::from(records)).map(|number| self.next_value + number).collect();
                self.next_value += u32::from(records);
                self.appended.entry(index).or_default().extend(&values);
                let count = i32::from(records);
                let now = TimestampMs(self.now);
                self.accumulator.append_batch(now, &partition(index), 10, count, values);
            }
            Step::Send => self.on_the_wire.extend(drain(&mut self.accumulator, self.now)),
            Step::Answer(which, fate) if !self.on_the_wire.is_empty() => {
                let batch = self.on_the_wire.remove(which % self.on_the_wire.len());
                self.answer(batch, fate);
            }
            Step::Answer(..) => {}
            Step::Wait(ms) => self.now += i64::from(ms),
        }
    }

    fn answer(&mut self, batch: Drained<Vec<u32>>, fate: Fate) {
        let index = batch.partition.partition;
        let leader = self.leaders.entry(index.0).or_default();
        let verdict = match fate {
            Fate::LostBefore => Verdict::Lost,
            Fate::LostAfter => {
                leader.append(batch.stamp, &batch.payload).ok();
                Verdict::Lost
            }
            Fate::NotLeader => Verdict::Refused(ErrorCode::NotLeaderOrFollower),
            Fate::TooLarge => Verdict::Refused(ErrorCode::MessageTooLarge),
            Fate::Arrives => match leader.append(batch.stamp, &batch.payload) {
                Ok(()) => Verdict::Acknowledged,
                Err(code) => Verdict::Refused(code),
            },
        };
        match self.accumulator.settle(TimestampMs(self.now), batch, verdict, 200) {
            Settled::Acknowledged(values) => {
                self.acknowledged.entry(index.0).or_default().extend(values);
            }
            Settled::Retrying => {}
            Settled::Failed(values, _) => self.failed.extend(values),
        }
    }
}

proptest! {
    /// ACC-1, ACC-2 and ACC-4: whatever the wire does, each record ends acknowledged or failed;
    /// what was acknowledged is in the log once, in the order of appending.
    #[test]
    fn acknowledged_records_lie_in_the_log_once_and_in_order(
        steps in proptest::collection::vec(step(), 1..120)
    ) {
        let settings = Settings { delivery_timeout_ms: i64::MAX / 4, ..Settings::default() };
        let mut rig = Rig {
            accumulator: accumulator(settings),
            leaders: BTreeMap::new(),
            on_the_wire: Vec::new(),
            appended: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            failed: Vec::new(),
            now: 0,
            next_value: 0,
        };
        for step in &steps {
            rig.run(step);
        }
        for _ in 0..10_000 {
            if rig.accumulator.is_idle() {
                break;
            }
            rig.now += 2_000;
            rig.run(&Step::Send);
            rig.run(&Step::Answer(0, Fate::Arrives));
        }
        prop_assert!(rig.accumulator.is_idle());
        prop_assert_eq!(rig.accumulator.buffered_bytes(), 0);
        for (index, appended) in &rig.appended {
            let log = rig.leaders.remove(index).unwrap_or_default().log;
            let acknowledged = rig.acknowledged.remove(index).unwrap_or_default();
            let mut once = log.clone();
            once.sort_unstable();
            once.dedup();
            prop_assert_eq!(once.len(), log.len(), "a record is in the log twice");
            prop_assert!(acknowledged.iter().all(|value| log.contains(value)));
            let told = acknowledged.len()
                + rig.failed.iter().filter(|value| appended.contains(value)).count();
            prop_assert_eq!(told, appended.len());
            prop_assert!(log.is_sorted(), "records are out of order: {:?}", log);
        }
    }
}

#[test]
fn within_a_transaction_a_gap_waits_for_the_epoch_of_the_next_one() {
    let settings = Settings { transactional: true, ..Settings::default() };
    let mut accumulator = accumulator(settings);
    let tp = partition(0);
    let append = |accumulator: &mut Accumulator<Vec<u32>>, number| {
        accumulator.append_batch(TimestampMs(0), &tp, 10, 1, vec![number]);
    };
    append(&mut accumulator, 1);
    let first = drain(&mut accumulator, 0).remove(0);
    accumulator.settle(TimestampMs(1), first, Verdict::Acknowledged, 0);
    (2..=4).for_each(|number| append(&mut accumulator, number));
    let second = drain(&mut accumulator, 1).remove(0);
    let third = drain(&mut accumulator, 1).remove(0);
    assert_eq!((second.stamp.sequence, third.stamp.sequence), (Sequence(1), Sequence(2)));
    assert!(accumulator.is_in_flight() && !accumulator.has_gap());
    // While an older one is on its way, a number out of order is only early.
    let early = Verdict::Refused(ErrorCode::OutOfOrderSequenceNumber);
    assert!(matches!(accumulator.settle(TimestampMs(2), third, early, 0), Settled::Retrying));
    let settled = accumulator.settle(TimestampMs(2), second, early, 0);
    assert!(matches!(settled, Settled::Failed(..)), "the epoch is not ours to raise");
    assert!(accumulator.has_gap() && !accumulator.is_in_flight());
    assert!(drain(&mut accumulator, 10_000).is_empty(), "ACC-7");
    assert_eq!(accumulator.abandon(|_| true).len(), 2);
    assert!(accumulator.has_gap());

    accumulator.set_producer(ProducerId(7), ProducerEpoch(1));
    append(&mut accumulator, 5);
    append(&mut accumulator, 6);
    let stamps = [0, 1].map(|_| drain(&mut accumulator, 10_000).remove(0).stamp);
    let stamp = |number| Stamp {
        producer_id: ProducerId(7),
        epoch: ProducerEpoch(1),
        sequence: Sequence(number),
    };
    assert_eq!(stamps, [stamp(0), stamp(1)], "leaders that know the id take both at once");
}
