//! Transactional producers of conversations, and what they ask.

use bytes::Bytes;
use ottla::error::ErrorCode;
use ottla::protocol::Str;
use ottla::protocol::messages::add_offsets_to_txn::AddOffsetsToTxnRequest;
use ottla::protocol::messages::add_partitions_to_txn::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use ottla::protocol::messages::describe_transactions::DescribeTransactionsRequest;
use ottla::protocol::messages::end_txn::EndTxnRequest;
use ottla::protocol::messages::find_coordinator::FindCoordinatorRequest;
use ottla::protocol::messages::init_producer_id::InitProducerIdRequest;
use ottla::protocol::messages::produce::ProduceRequest;
use ottla::record::BatchOptions;
use ottla::types::{ProducerEpoch, ProducerId, Sequence, Uuid};

use crate::batches::{TIME, batch_with};
use crate::transcript::{Script, until};
use crate::wire_produce::produce_to;

pub(crate) type Topic = (Str, Uuid);

pub(crate) const TIMEOUT_MS: i32 = 60_000;
/// The first version of `AddPartitionsToTxn` for several transactions.
const MANY: i16 = 4;
/// The first version of `EndTxn` that raises the epoch.
const RAISES: i16 = 5;

/// Whether a coordinator says that it is to be asked again.
pub(crate) fn is_busy(code: i16) -> bool {
    matches!(
        ErrorCode::from_i16(code),
        ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::NotCoordinator
            | ErrorCode::ConcurrentTransactions
    )
}

/// A transactional producer.
#[derive(Clone)]
pub(crate) struct Producer {
    pub(crate) name: Str,
    pub(crate) id: i64,
    pub(crate) epoch: i16,
}

/// A transactional id of this run whose coordinator answers.
pub(crate) fn transactional(talk: &mut Script, what: &str) -> Str {
    let name = talk.name(&what.replace([' ', ','], "-"));
    let find = FindCoordinatorRequest {
        key_type: 1,
        coordinator_keys: vec![name.clone()],
        ..FindCoordinatorRequest::default()
    };
    until(|| !is_busy(talk.call(4, find.clone()).coordinators[0].error_code));
    let ask = || DescribeTransactionsRequest { transactional_ids: vec![name.clone()] };
    until(|| !is_busy(talk.call(0, ask()).transaction_states[0].error_code));
    name
}

pub(crate) fn init(name: &Str, (producer_id, producer_epoch): (i64, i16)) -> InitProducerIdRequest {
    InitProducerIdRequest {
        transactional_id: Some(name.clone()),
        transaction_timeout_ms: TIMEOUT_MS,
        producer_id,
        producer_epoch,
        ..InitProducerIdRequest::default()
    }
}

impl Producer {
    /// One that has no transaction yet.
    pub(crate) fn new(talk: &mut Script, what: &str) -> Self {
        let name = transactional(talk, what);
        let mut one = Self { name, id: -1, epoch: -1 };
        one.renew(talk);
        one
    }

    /// Gets the next epoch.
    pub(crate) fn renew(&mut self, talk: &mut Script) {
        let mut answer = talk.call(4, init(&self.name, (-1, -1)));
        until(|| {
            if is_busy(answer.error_code) {
                answer = talk.call(4, init(&self.name, (-1, -1)));
            }
            !is_busy(answer.error_code)
        });
        assert_eq!(answer.error_code, 0, "{answer:?}");
        (self.id, self.epoch) = (answer.producer_id, answer.producer_epoch);
    }

    /// The same with another id or epoch, counted from its own.
    pub(crate) fn off(&self, id: i64, epoch: i16) -> Self {
        Self { name: self.name.clone(), id: self.id + id, epoch: self.epoch + epoch }
    }

    /// Adds partitions to its transaction.
    pub(crate) fn adds(&self, parts: &[(&Str, &[i32])], version: i16) -> AddPartitionsToTxnRequest {
        self.asks_of(parts, version, false)
    }

    /// Asks whether partitions belong to its transaction; only from version 4 on.
    pub(crate) fn verifies(
        &self,
        parts: &[(&Str, &[i32])],
        version: i16,
    ) -> AddPartitionsToTxnRequest {
        self.asks_of(parts, version, true)
    }

    fn asks_of(
        &self,
        parts: &[(&Str, &[i32])],
        version: i16,
        verify_only: bool,
    ) -> AddPartitionsToTxnRequest {
        let topic = |&(name, partitions): &(&Str, &[i32])| AddPartitionsToTxnTopic {
            name: name.clone(),
            partitions: partitions.to_vec(),
        };
        let topics = parts.iter().map(topic).collect();
        if version < MANY {
            return AddPartitionsToTxnRequest {
                v3_and_below_transactional_id: self.name.clone(),
                v3_and_below_producer_id: self.id,
                v3_and_below_producer_epoch: self.epoch,
                v3_and_below_topics: topics,
                ..AddPartitionsToTxnRequest::default()
            };
        }
        let transaction = AddPartitionsToTxnTransaction {
            transactional_id: self.name.clone(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            verify_only,
            topics,
        };
        AddPartitionsToTxnRequest { transactions: vec![transaction], ..Default::default() }
    }

    /// Adds partitions of a topic, and waits until it is done.
    pub(crate) fn add(&self, talk: &mut Script, topic: &Topic, partitions: &[i32]) {
        until(|| {
            let answer = talk.call(3, self.adds(&[(&topic.0, partitions)], 3));
            let code = &answer.results_by_topic_v3_and_below[0].results_by_partition[0];
            let code = code.partition_error_code;
            assert!(code == 0 || is_busy(code), "{answer:?}");
            code == 0
        });
    }

    /// Adds a group.
    pub(crate) fn adds_group(&self, group: &Str) -> AddOffsetsToTxnRequest {
        AddOffsetsToTxnRequest {
            transactional_id: self.name.clone(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            group_id: group.clone(),
        }
    }

    /// The same, and waits until it is done.
    pub(crate) fn add_group(&self, talk: &mut Script, group: &Str) {
        until(|| {
            let code = talk.call(3, self.adds_group(group)).error_code;
            assert!(code == 0 || is_busy(code), "{code}");
            code == 0
        });
    }

    /// A batch of its transaction.
    pub(crate) fn batch(&self, sequence: i32, count: usize) -> Bytes {
        let options = BatchOptions {
            producer_id: ProducerId(self.id),
            producer_epoch: ProducerEpoch(self.epoch),
            base_sequence: Sequence(sequence),
            transactional: true,
            ..BatchOptions::default()
        };
        batch_with(options, TIME, count)
    }

    /// Produces such a batch to a partition.
    pub(crate) fn produces(
        &self,
        topic: &Topic,
        partition: i32,
        (sequence, count): (i32, usize),
        version: i16,
    ) -> ProduceRequest {
        ProduceRequest {
            transactional_id: Some(self.name.clone()),
            acks: -1,
            ..produce_to(topic, &[(partition, Some(self.batch(sequence, count)))], version)
        }
    }

    /// The same, after the partition was added, and waits until it is done.
    pub(crate) fn write(&self, talk: &mut Script, topic: &Topic, partition: i32, at: (i32, usize)) {
        self.add(talk, topic, &[partition]);
        until(|| {
            let answer = talk.call(11, self.produces(topic, partition, at, 11));
            let code = answer.responses[0].partition_responses[0].error_code;
            let code = ErrorCode::from_i16(code);
            assert!(code.is_ok() || code == ErrorCode::NotEnoughReplicas, "{answer:?}");
            code.is_ok()
        });
    }

    pub(crate) fn ends(&self, committed: bool) -> EndTxnRequest {
        EndTxnRequest {
            transactional_id: self.name.clone(),
            producer_id: self.id,
            producer_epoch: self.epoch,
            committed,
        }
    }

    /// Ends its transaction without a new epoch, and waits until the markers are written.
    pub(crate) fn end(&self, talk: &mut Script, committed: bool) {
        let answer = talk.call(RAISES - 1, self.ends(committed));
        assert_eq!(answer.error_code, 0, "{answer:?}");
        self.settle(talk);
    }

    /// Waits until the markers of the transaction that ended are written. Returns its state.
    pub(crate) fn settle(&self, talk: &mut Script) -> Str {
        let ask = || DescribeTransactionsRequest { transactional_ids: vec![self.name.clone()] };
        let mut state = Str::EMPTY;
        until(|| {
            let answer = talk.call(0, ask()).transaction_states.remove(0);
            assert_eq!(answer.error_code, 0, "{answer:?}");
            state = answer.transaction_state;
            !state.starts_with("Prepare")
        });
        state
    }
}

/// Producer ids, which are of the cluster, by the order in which a conversation meets them.
#[derive(Default)]
pub(crate) struct Ids(Vec<i64>);

impl Ids {
    pub(crate) fn show(&mut self, id: &mut i64) {
        if *id < 0 {
            return;
        }
        let known = self.0.iter().position(|known| known == id);
        let place = known.unwrap_or(self.0.len());
        if known.is_none() {
            self.0.push(*id);
        }
        *id = i64::try_from(place).unwrap();
    }
}
