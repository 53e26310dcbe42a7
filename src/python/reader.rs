//! What Python's consumers read with: assigned partitions, or membership in a group.
//!
//! Both are polled in the same way, so waiting, dead letters and what is left over from an
//! interrupted call are implemented once. The engine allows one caller at a time; it is behind an
//! async lock, so that a poll from an event loop and a call from a thread wait for each other
//! instead of racing. A long poll releases the lock from time to time.
//!
//! ```text
//!   engine ──poll──► ready (a number, rows or a change) ──► the caller says that it has the number
//!      ▲                │ seek, pause, position, lag, close
//!      └─── given back ─┘
//! ```
//!
//! What a poll returns stays ready until the caller confirms that it has it
//! ([`Reader::set_handed`]): after an interrupt, a cancelled `await` or an exception in a callback,
//! the next poll returns the same again, and what was not handed out counts as unread: any call
//! that asks for a position, or changes it, gives it back first.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex as Guarded, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use crate::client::{
    AssignedConsumer, Client, DeadLetters, GroupConsumer, GroupHandle, PollOptions, Polled, StartAt,
};
use crate::error::{Error, Result};
use crate::types::{Offset, TopicPartition};

/// How often a waiting poll checks whether the consumer was closed, and lets other calls in.
const LOOK: Duration = Duration::from_millis(100);

const CLOSED: Error = Error::Closed { what: "the consumer" };

/// The source of the rows.
#[derive(Debug)]
pub(super) enum Engine {
    /// Partitions that the caller named, with their ends, if any.
    Assigned { consumer: Box<AssignedConsumer>, ends: Option<BTreeMap<TopicPartition, Offset>> },
    /// Partitions that a group assigns.
    Group(Box<GroupConsumer>),
}

impl Engine {
    async fn poll(&mut self, options: PollOptions) -> Result<Option<Polled>> {
        match self {
            Self::Group(consumer) => consumer.poll(options).await,
            Self::Assigned { consumer, ends } => {
                if let Some(ends) = ends
                    && is_behind(consumer, ends).await?
                {
                    return Ok(Some(Polled::CaughtUp));
                }
                Ok(consumer.poll(options).await?.map(Polled::Batch))
            }
        }
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        match self {
            Self::Group(consumer) => consumer.assignment(),
            Self::Assigned { consumer, .. } => consumer.assignment(),
        }
    }

    pub(super) async fn positions(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<(TopicPartition, i64)>> {
        let mut found = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let position = match self {
                Self::Group(consumer) => consumer.position(partition).await?,
                Self::Assigned { consumer, .. } => consumer.position(partition).await?,
            };
            found.push((partition.clone(), position.0));
        }
        Ok(found)
    }

    pub(super) fn seek(&mut self, partition: &TopicPartition, to: StartAt) -> Result<()> {
        match self {
            Self::Group(consumer) => consumer.seek(partition, to),
            Self::Assigned { consumer, .. } => consumer.seek(partition, to),
        }
    }

    pub(super) fn pause(&mut self, partition: &TopicPartition) -> Result<()> {
        match self {
            Self::Group(consumer) => consumer.pause(partition),
            Self::Assigned { consumer, .. } => consumer.pause(partition),
        }
    }

    pub(super) fn resume(&mut self, partition: &TopicPartition) -> Result<()> {
        match self {
            Self::Group(consumer) => consumer.resume(partition),
            Self::Assigned { consumer, .. } => consumer.resume(partition),
        }
    }

    /// The offsets up to the pinned ends of a member; none while unknown.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self {
            Self::Group(consumer) => consumer.remaining(),
            Self::Assigned { .. } => None,
        }
    }

    pub(super) async fn end_offsets(&self) -> Result<BTreeMap<TopicPartition, Offset>> {
        match self {
            Self::Group(consumer) => consumer.end_offsets().await,
            Self::Assigned { consumer, .. } => consumer.end_offsets().await,
        }
    }
}

async fn is_behind(
    consumer: &mut AssignedConsumer,
    ends: &BTreeMap<TopicPartition, Offset>,
) -> Result<bool> {
    for (partition, end) in ends {
        let position = consumer.position(partition).await?;
        // A position beyond the end may belong to a record that does not exist.
        let exists = || {
            let marks = consumer.marks(partition);
            position == *end || marks.is_some_and(|marks| marks.high_watermark >= position)
        };
        if position < *end || !exists() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What the engine returned, and the caller may not have yet.
#[derive(Debug)]
struct Ready {
    /// Increases with everything that becomes ready.
    number: u64,
    polled: Polled,
    /// Whether the dead letters that go with the rows are acknowledged.
    is_sent: bool,
}

/// The engine, and what it returned that was not handed out yet.
#[derive(Debug)]
pub(super) struct ReaderState {
    /// Present until the consumer is closed.
    engine: Option<Engine>,
    ready: Option<Ready>,
    last_number: u64,
}

impl ReaderState {
    pub(super) fn engine(&mut self) -> Result<&mut Engine> {
        self.engine.as_mut().ok_or(CLOSED)
    }

    /// The engine at the caller's positions: rows that were not handed out are given back. A change
    /// of the assignment that was not reported stays ready.
    pub(super) fn engine_of_caller(&mut self) -> Result<&mut Engine> {
        let engine = self.engine.as_mut().ok_or(CLOSED)?;
        match self.ready.as_ref().map(|ready| &ready.polled) {
            Some(Polled::Batch(decoded)) => {
                for one in &decoded.progress {
                    engine.seek(&one.partition, StartAt::Offset(one.from))?;
                }
                self.ready = None;
            }
            Some(Polled::CaughtUp) => self.ready = None,
            _ => {}
        }
        Ok(engine)
    }

    /// Keeps what the engine returned until the caller has it.
    fn keep(&mut self, polled: Polled) {
        self.last_number += 1;
        self.ready = Some(Ready { number: self.last_number, polled, is_sent: false });
    }
}

/// How to poll.
#[derive(Debug)]
pub(super) struct Manner {
    /// Where records that cannot be decoded go.
    pub(super) letters: Option<DeadLetters>,
    /// How long a batch that is not full waits for more rows.
    pub(super) fill: Duration,
}

/// A consumer of either kind.
#[derive(Debug)]
pub(super) struct Reader {
    client: Client,
    reading: Mutex<ReaderState>,
    manner: Manner,
    /// The assignment reported to the caller.
    assignment: Guarded<Vec<TopicPartition>>,
    /// The membership, if there is one.
    member: Option<GroupHandle>,
    /// The number of what the caller has.
    handed: AtomicU64,
    closed: AtomicBool,
}

impl Reader {
    pub(super) fn new(client: Client, engine: Engine, manner: Manner) -> Self {
        let member = match &engine {
            Engine::Group(consumer) => Some(consumer.handle().clone()),
            Engine::Assigned { .. } => None,
        };
        Self {
            client,
            assignment: Guarded::new(engine.assignment()),
            member,
            reading: Mutex::new(ReaderState { engine: Some(engine), ready: None, last_number: 0 }),
            manner,
            handed: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// The client that it reads with.
    pub(super) const fn client(&self) -> &Client {
        &self.client
    }

    /// The membership.
    ///
    /// # Errors
    ///
    /// When the consumer is not a member of a group.
    pub(super) fn member(&self) -> Result<&GroupHandle> {
        self.member.as_ref().ok_or_else(|| {
            Error::invalid(
                "the consumer is not a member of a group that could store offsets: create it with \
                 group_id=…, or keep batch.offsets with your results",
            )
        })
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Refuses a closed consumer.
    ///
    /// # Errors
    ///
    /// When it is closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(CLOSED) } else { Ok(()) }
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, ReaderState> {
        let mut reading = self.reading.lock().await;
        let handed = self.handed.load(Ordering::SeqCst);
        if reading.ready.as_ref().is_some_and(|ready| ready.number <= handed) {
            reading.ready = None;
        }
        reading
    }

    /// The caller has what was ready under this number.
    pub(super) fn set_handed(&self, number: u64) {
        self.handed.fetch_max(number, Ordering::SeqCst);
    }

    /// Whether what became ready under this number still is, so that it was not given back.
    pub(super) async fn is_ready(&self, number: u64) -> bool {
        self.lock().await.ready.as_ref().is_some_and(|ready| ready.number == number)
    }

    /// The next rows, the next change of the assignment, or the end, with the number by which the
    /// caller confirms it; none if the time is up.
    pub(super) async fn poll(&self, timeout: Option<Duration>) -> Result<Option<(u64, Polled)>> {
        let started = Instant::now();
        let left = || timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let mut fill = !self.manner.fill.is_zero();
        loop {
            self.check_open()?;
            let mut reading = self.lock().await;
            if reading.ready.is_none() {
                let longest = if fill { self.manner.fill } else { LOOK };
                let max_wait = left().map_or(longest, |left| left.min(longest));
                let options = PollOptions { max_wait, fill };
                match reading.engine()?.poll(options).await? {
                    Some(polled) => {
                        reading.keep(polled);
                        let now = reading.engine()?.assignment();
                        *self.assignment.lock().unwrap_or_else(PoisonError::into_inner) = now;
                    }
                    None => fill = false,
                }
            }
            if let Some(ready) = &mut reading.ready {
                return self.hand_out(ready).await.map(Some);
            }
            drop(reading);
            if left().is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// What is ready, once its dead letters are acknowledged. An error or an interrupt leaves it
    /// for the next call.
    async fn hand_out(&self, ready: &mut Ready) -> Result<(u64, Polled)> {
        if let (Some(letters), Polled::Batch(decoded), false) =
            (&self.manner.letters, &ready.polled, ready.is_sent)
        {
            letters.send(&decoded.rejected).await?;
            ready.is_sent = true;
        }
        Ok((ready.number, ready.polled.clone()))
    }

    /// Makes every poll end at its next look.
    pub(super) fn begin_close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Stops reading, and leaves the group. What was last handed out is finished, unless the caller
    /// failed. Does nothing when that was done; a call that was interrupted is made again.
    pub(super) async fn close(&self, failed: bool) -> Result<()> {
        let mut reading = self.lock().await;
        if reading.engine.is_none() {
            return Ok(());
        }
        let given_back = reading.engine_of_caller().map(drop);
        let engine = reading.engine.take();
        drop(reading);
        match engine {
            Some(Engine::Group(consumer)) if failed => consumer.close_unfinished().await?,
            Some(Engine::Group(consumer)) => consumer.close().await?,
            Some(Engine::Assigned { .. }) | None => {}
        }
        given_back
    }
}
