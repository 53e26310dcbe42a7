//! Transactions: records in several partitions, and offsets of a group, that all become visible or none.
//!
//! ```text
//! begin, send_offsets, commit, abort ──► machine::client::transaction ──► calls to the coordinators
//!                                             ▲
//! send, write ──► Producer ──► sender task ───┘ (which partitions, which version; what failed)
//! ```
//!
//! Decisions are the machine's; this module carries out one operation at a time. An operation goes on when its caller
//! stops waiting, so that a commit is never left half asked for; the next operation waits for it.
//! A commit whose outcome cannot be learnt is [`Error::UnknownOutcome`]; the producer then starts over with a new epoch,
//! which settles the old transaction, before it begins another one.

mod calls;
#[cfg(test)]
mod tests;
mod visibility;
mod words;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(in crate::client) use calls::{Answered, Coordinators, Identity};
pub(in crate::client) use visibility::{Unmarked, own_commits};

use crate::client::cluster::Cluster;
use crate::client::config::ProducerConfig;
use crate::client::consumer::group::{GroupMetadata, OffsetAndMetadata};
use crate::client::producer::{Producer, Transactional};
use crate::error::{Error, Result};
use crate::machine::client::transaction::{Next, Operation, State, Version};
use crate::types::{TimestampMs, TopicPartition};

use calls::Offsets;

/// The feature that says how transactions are done.
const FEATURE: &str = "transaction.version";

/// How long the end waits for the answer to what was asked last.
const LAST_ANSWER_MAX: Duration = Duration::from_secs(5);

/// A producer of transactions, one at a time, under an id that only one producer has at a time.
///
/// Records are sent by [`Self::producer`]. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TransactionalProducer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    producer: Arc<Producer>,
    coordinators: Arc<Coordinators>,
    cluster: Arc<Cluster>,
    /// Held by the operation that is under way.
    turn: tokio::sync::Mutex<()>,
    /// Nobody will begin a transaction any more, so the id is not taken over either.
    is_given_up: AtomicBool,
}

impl TransactionalProducer {
    pub(crate) fn start(cluster: Arc<Cluster>, id: &str, config: &ProducerConfig) -> Result<Self> {
        if id.is_empty() {
            return Err(Error::invalid("the transactional id is empty"));
        }
        let config = config.for_transactions()?;
        let coordinators = Arc::new(Coordinators::new(Arc::clone(&cluster), id, &config));
        let producer =
            Producer::start_with(Arc::clone(&cluster), config, Some(Arc::clone(&coordinators)))?;
        let producer = Arc::new(producer);
        let (turn, is_given_up) = (tokio::sync::Mutex::new(()), AtomicBool::new(false));
        let shared = Shared { producer, coordinators, cluster, turn, is_given_up };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The transactional id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.coordinators.id()
    }

    /// What records are sent with, between [`Self::begin`] and the end of the transaction.
    #[must_use]
    pub fn producer(&self) -> &Arc<Producer> {
        &self.shared.producer
    }

    /// Whether a transaction is open; it may be one that can only be aborted.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let state = self.shared.producer.transaction(|one| one.machine.state());
        matches!(
            state,
            Ok(State::InTransaction | State::Committing | State::Aborting | State::Abortable)
        )
    }

    /// Whether this producer cannot continue: another one took over, or something else was fatal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        let state = self.shared.producer.transaction(|one| one.machine.state());
        matches!(state, Ok(State::Fatal) | Err(_))
    }

    /// Gets an epoch: producers with the same id are fenced from now on, and what they left open is aborted. It is
    /// done by the first [`Self::begin`], if not before.
    ///
    /// # Errors
    ///
    /// The coordinator cannot be reached within `max.block.ms`, or refuses.
    pub async fn initialize(&self) -> Result<()> {
        self.carry_out(|shared| async move {
            let needed = shared.transaction(|one| one.machine.state() == State::Uninitialized)?;
            if needed { shared.run(Operation::Initialize, None).await } else { Ok(()) }
        })
        .await
    }

    /// Begins a transaction. Its version is that which the cluster has finalized.
    ///
    /// # Errors
    ///
    /// One is open; another producer has taken over the id (`PRODUCER_FENCED`); or no epoch could be got, as with
    /// [`Self::initialize`].
    pub async fn begin(&self) -> Result<()> {
        self.carry_out(|shared| async move {
            let version = shared.version();
            if shared.transaction(|one| one.machine.needs_initialization(version))? {
                shared.run(Operation::Initialize, None).await?;
            }
            // The features of the cluster are known only now, if this was the first connection.
            let version = shared.version();
            shared.decide(|one| {
                one.machine.begin(version)?;
                one.cause = None;
                Ok(())
            })
        })
        .await
    }

    /// Makes offsets of a group part of the transaction: the group has them when it is committed. `member` is who
    /// read them: a member that lost its partitions is refused. An offset is that of the next record to read.
    ///
    /// # Errors
    ///
    /// No transaction is open, or it can only be aborted now: `TRANSACTION_ABORTABLE`, whose source says why.
    pub async fn send_offsets(
        &self,
        offsets: BTreeMap<TopicPartition, OffsetAndMetadata>,
        member: GroupMetadata,
    ) -> Result<()> {
        if let Some((partition, value)) = offsets.iter().find(|(_, value)| value.offset.0 < 0) {
            let text = format!("offset {} of {partition} is negative", value.offset);
            return Err(Error::invalid(text));
        }
        let cluster = Arc::clone(&self.shared.cluster);
        let offsets = Offsets::new(cluster, offsets, member);
        self.carry_out(|shared| async move {
            if offsets.is_empty() {
                return Ok(());
            }
            shared.run(Operation::Offsets, Some(&offsets)).await
        })
        .await
    }

    /// Sends what is left, waits for its acknowledgement, and commits.
    ///
    /// # Errors
    ///
    /// - `TRANSACTION_ABORTABLE`: it was not committed, and must be aborted. The source says why.
    /// - [`Error::UnknownOutcome`]: nobody knows. It may have been committed, or it is aborted when the next
    ///   transaction begins.
    /// - `PRODUCER_FENCED` and others: this producer cannot continue.
    pub async fn commit(&self) -> Result<()> {
        self.carry_out(|shared| async move {
            shared.decide(|one| one.machine.complete())?;
            shared.producer.flush().await;
            shared.run(Operation::Commit, None).await?;
            shared.cluster.unmarked.note(shared.coordinators.id());
            Ok(())
        })
        .await
    }

    /// Gives up what is not sent yet, waits for what is on its way, and aborts. Without an open transaction it does
    /// nothing.
    ///
    /// # Errors
    ///
    /// The coordinator was not reached within `max.block.ms`: it is aborted when the next transaction begins, or
    /// after its timeout. Or this producer cannot continue.
    pub async fn abort(&self) -> Result<()> {
        self.carry_out(|shared| async move {
            use State::{Ready, Uninitialized};
            if shared.transaction(|one| matches!(one.machine.state(), Ready | Uninitialized))? {
                return Ok(());
            }
            shared.decide(|one| one.machine.give_up())?;
            shared.producer.settled().await;
            shared.run(Operation::Abort, None).await
        })
        .await
    }

    /// Has an [`Self::initialize`] that is under way end before it asks again: it would fence whoever has the id by then.
    pub fn give_up(&self) {
        self.shared.is_given_up.store(true, Ordering::SeqCst);
    }

    /// Aborts an open transaction, and stops.
    ///
    /// # Errors
    ///
    /// As [`Self::abort`], or the time is over; it has stopped nevertheless.
    pub async fn close(&self, timeout: Duration) -> Result<()> {
        let aborted = if self.is_open() {
            let aborting = tokio::time::timeout(timeout, self.abort()).await;
            aborting.unwrap_or_else(|_elapsed| {
                let what = format!("aborting the open transaction of {}", self.id());
                Err(Error::timeout(what, timeout).because(self.shared.cluster.obstacle()))
            })
        } else {
            Ok(())
        };
        self.give_up();
        // What was asked last is answered before a successor asks.
        let last = self.shared.turn.lock();
        tokio::time::timeout(timeout.min(LAST_ANSWER_MAX), last).await.ok();
        let rest = self.shared.producer.drain(Duration::ZERO, None).await.into_result();
        aborted.and(rest)
    }

    /// Carries out an operation after those before it, and to its end, whether or not the caller waits.
    async fn carry_out<F>(
        &self,
        operation: impl FnOnce(Arc<Shared>) -> F + Send + 'static,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        let task = tokio::spawn(async move {
            let _turn = shared.turn.lock().await;
            operation(Arc::clone(&shared)).await
        });
        task.await.unwrap_or(Err(Error::Closed { what: "the runtime of the producer" }))
    }
}

impl Shared {
    fn transaction<T>(&self, look: impl FnOnce(&mut Transactional) -> T) -> Result<T> {
        self.producer.transaction(look)
    }

    /// Asks the machine for something; its refusal becomes an error.
    fn decide<T>(
        &self,
        ask: impl FnOnce(&mut Transactional) -> Result<T, crate::machine::client::transaction::Failure>,
    ) -> Result<T> {
        self.transaction(|one| ask(one).map_err(|failure| (failure, one.cause.clone())))?
            .map_err(|(failure, cause)| self.coordinators.error(failure, cause))
    }

    fn version(&self) -> Version {
        Version::of_feature(self.cluster.finalized(FEATURE))
    }

    fn deadline(&self) -> TimestampMs {
        let limit = self.producer.config().block_max.as_millis();
        self.cluster.now().plus(i64::try_from(limit).unwrap_or(i64::MAX))
    }

    /// Does what the machine says until the operation has ended.
    async fn run(&self, operation: Operation, offsets: Option<&Offsets>) -> Result<()> {
        let deadline = self.deadline();
        self.decide(|one| one.machine.start(operation, deadline))?;
        let mut last = None;
        loop {
            if operation == Operation::Initialize && self.is_given_up.load(Ordering::SeqCst) {
                return Err(Error::Closed { what: "the transactional producer" });
            }
            let now = self.cluster.now();
            let (next, version, producer) = self.transaction(|one| {
                let next = one.machine.next(now);
                (next, one.machine.version(), one.machine.producer())
            })?;
            match next {
                Next::Wait(until) => {
                    let wait =
                        u64::try_from(until.0.saturating_sub(self.cluster.now().0)).unwrap_or(0);
                    tokio::time::sleep(Duration::from_millis(wait)).await;
                }
                Next::Call(call) => {
                    let left = u64::try_from(deadline.0.saturating_sub(now.0)).unwrap_or(0);
                    let limit = Duration::from_millis(left);
                    let asking = self.coordinators.ask(call, version, producer, offsets, limit);
                    let Answered { answer, error } = asking.await;
                    last = error.or(last);
                    let (now, random) = (self.cluster.now(), self.cluster.env.random.u64());
                    self.transaction(|one| one.machine.answered(now, answer, random))?;
                }
                Next::Done(Ok(())) => return Ok(()),
                Next::Done(Err(failure)) => {
                    let last = last.or_else(|| self.cluster.obstacle());
                    self.transaction(|one| one.cause = one.cause.take().or_else(|| last.clone()))?;
                    return Err(self.coordinators.error(failure, last));
                }
            }
        }
    }
}
