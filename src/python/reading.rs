//! What the consumers of Python read with: assigned partitions, or membership in a group.
//!
//! Both are polled in the same way, so waiting, dead letters and what is left over from an
//! interrupted call exist once. The engine wants one caller at a time; it sits behind an async lock,
//! so that a poll of an event loop and a call of a thread wait for each other instead of racing. A
//! long poll gives the lock away from time to time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex as Guarded, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, MutexGuard};

use crate::client::{
    AssignedConsumer, DeadLetters, GroupConsumer, GroupHandle, PollOptions, Polled, StartAt,
};
use crate::columnar::Decoded;
use crate::error::{Error, Result};
use crate::types::{Offset, TopicPartition};

/// How often a waiting poll looks whether the consumer was closed, and lets others in.
const LOOK: Duration = Duration::from_millis(100);

const CLOSED: Error = Error::Closed { what: "the consumer" };

/// What gives the rows.
#[derive(Debug)]
pub(super) enum Engine {
    /// Partitions that the caller named, and where they end if they do.
    Assigned { consumer: Box<AssignedConsumer>, ends: Option<BTreeMap<TopicPartition, Offset>> },
    /// Those that a group assigns.
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

    /// The offsets up to the pinned ends of a member; none while that is not known.
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
        if consumer.position(partition).await? < *end {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The engine and what it gave that was not handed out yet.
#[derive(Debug)]
pub(super) struct Reading {
    /// There until the consumer is closed.
    engine: Option<Engine>,
    /// Rows that wait for the acknowledgement of the dead letters beside them.
    unsent: Option<Decoded>,
}

impl Reading {
    pub(super) fn engine(&mut self) -> Result<&mut Engine> {
        self.engine.as_mut().ok_or(CLOSED)
    }

    /// The engine at the positions of the caller: what was not handed out is given back.
    pub(super) fn engine_of_caller(&mut self) -> Result<&mut Engine> {
        let engine = self.engine.as_mut().ok_or(CLOSED)?;
        for one in self.unsent.take().into_iter().flat_map(|decoded| decoded.progress) {
            engine.seek(&one.partition, StartAt::Offset(one.from))?;
        }
        Ok(engine)
    }
}

/// How to poll.
#[derive(Debug)]
pub(super) struct Manner {
    /// Where records go that did not decode.
    pub(super) letters: Option<DeadLetters>,
    /// How long a batch that is not full waits for more rows.
    pub(super) fill: Duration,
}

/// A consumer of either kind.
#[derive(Debug)]
pub(super) struct Reader {
    reading: Mutex<Reading>,
    manner: Manner,
    /// What the caller was told that it has.
    assignment: Guarded<Vec<TopicPartition>>,
    /// The membership, if there is one.
    member: Option<GroupHandle>,
    closed: AtomicBool,
}

impl Reader {
    pub(super) fn new(engine: Engine, manner: Manner) -> Self {
        let member = match &engine {
            Engine::Group(consumer) => Some(consumer.handle().clone()),
            Engine::Assigned { .. } => None,
        };
        Self {
            assignment: Guarded::new(engine.assignment()),
            member,
            reading: Mutex::new(Reading { engine: Some(engine), unsent: None }),
            manner,
            closed: AtomicBool::new(false),
        }
    }

    /// The membership.
    ///
    /// # Errors
    ///
    /// The consumer is of no group.
    pub(super) fn member(&self) -> Result<&GroupHandle> {
        self.member.as_ref().ok_or_else(|| {
            Error::invalid(
                "the consumer is of no group, which could keep offsets for it: make it with \
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
    /// It is closed.
    pub(super) fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(CLOSED) } else { Ok(()) }
    }

    pub(super) fn assignment(&self) -> Vec<TopicPartition> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn lock(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().await
    }

    /// The next rows or the next change of the assignment; none when the time is over, or at the
    /// end.
    pub(super) async fn poll(&self, timeout: Option<Duration>) -> Result<Option<Polled>> {
        let started = Instant::now();
        let left = || timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let mut fill = !self.manner.fill.is_zero();
        loop {
            self.check_open()?;
            let mut reading = self.reading.lock().await;
            if reading.unsent.is_none() {
                let longest = if fill { self.manner.fill } else { LOOK };
                let max_wait = left().map_or(longest, |left| left.min(longest));
                let options = PollOptions { max_wait, fill };
                match reading.engine()?.poll(options).await? {
                    Some(Polled::Batch(decoded)) => reading.unsent = Some(decoded),
                    Some(Polled::CaughtUp) => return Ok(None),
                    Some(change) => {
                        let now = reading.engine()?.assignment();
                        *self.assignment.lock().unwrap_or_else(PoisonError::into_inner) = now;
                        return Ok(Some(change));
                    }
                    None => fill = false,
                }
            }
            if reading.unsent.is_some() {
                return self.hand_out(&mut reading).await;
            }
            drop(reading);
            if left().is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// The rows that were read, once the dead letters beside them are acknowledged. An error or an
    /// interrupt leaves them for the next call.
    async fn hand_out(&self, reading: &mut Reading) -> Result<Option<Polled>> {
        if let (Some(letters), Some(decoded)) = (&self.manner.letters, &reading.unsent) {
            letters.send(&decoded.rejected).await?;
        }
        Ok(reading.unsent.take().map(Polled::Batch))
    }

    /// Makes every poll end at its next look; whether the consumer was open.
    pub(super) fn begin_close(&self) -> bool {
        !self.closed.swap(true, Ordering::SeqCst)
    }

    /// Ends the reading, and leaves the group. What was handed out last is finished, unless the
    /// caller failed.
    pub(super) async fn close(&self, failed: bool) -> Result<()> {
        let mut reading = self.reading.lock().await;
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
