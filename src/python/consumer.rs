//! Consumers of assigned partitions.
//!
//! The engine's consumer wants one caller at a time; it sits behind an async lock, so that a poll of
//! an event loop and a call of a thread wait for each other instead of racing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use pyo3::types::PyDict;
use tokio::sync::Mutex;

use super::admin::existing;
use super::batch::RecordBatch;
use super::client::Client;
use super::convert::{self, Format, Place};
use super::pending::Pending;
use super::process::OfProcess;
use super::runtime;
use super::scan::isolation_level;
use crate::client::{
    AssignedConsumer, Bound as At, Client as Engine, DeadLetters, OnDataLoss, PollOptions, StartAt,
};
use crate::columnar::Decoded;
use crate::error::{Error, Result};
use crate::types::{Offset, TopicPartition};

/// How often a waiting poll looks whether the consumer was closed or has caught up.
const LOOK: Duration = Duration::from_millis(100);

/// Offsets by topic and partition, as Python sees them.
pub(super) type Offsets = BTreeMap<String, BTreeMap<i32, i64>>;

/// The keyword arguments of `client.consumer`, as `_client.py` passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Arguments {
    value: Option<Format>,
    columns: Option<Vec<String>>,
    isolation_level: Option<String>,
    on_error: String,
    on_data_loss: String,
    max_rows: usize,
    max_bytes: Option<usize>,
    max_wait: f64,
    memory_limit: Option<usize>,
    string_view: bool,
    until_caught_up: bool,
}

/// The engine's consumer and what it gave that was not handed out yet.
#[derive(Debug)]
struct Reading {
    engine: AssignedConsumer,
    /// Rows that wait for the acknowledgement of the dead letters beside them.
    unsent: Option<Decoded>,
}

impl Reading {
    /// Takes back what was not handed out, so that the positions are those of the caller.
    fn give_back(&mut self) -> Result<()> {
        for one in self.unsent.take().into_iter().flat_map(|decoded| decoded.progress) {
            self.engine.seek(&one.partition, StartAt::Offset(one.from))?;
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Inner {
    reading: Mutex<Reading>,
    /// Where records go that did not decode.
    letters: Option<DeadLetters>,
    /// How long a batch that is not full waits for more rows.
    fill: Duration,
    /// Where the consumer ends; empty when it does not.
    ends: BTreeMap<TopicPartition, Offset>,
    closed: AtomicBool,
}

impl Inner {
    /// The next rows; none when the time is over, or at the end.
    async fn poll(&self, timeout: Option<Duration>) -> Result<Option<Decoded>> {
        let started = Instant::now();
        let left = || timeout.map(|timeout| timeout.saturating_sub(started.elapsed()));
        let mut reading = self.reading.lock().await;
        let mut fill = !self.fill.is_zero();
        loop {
            if self.closed.load(Ordering::SeqCst) {
                return Err(Error::Closed { what: "the consumer" });
            }
            if reading.unsent.is_some() {
                return self.hand_out(&mut reading).await;
            }
            if self.caught_up(&mut reading).await? {
                return Ok(None);
            }
            let longest = if fill { self.fill } else { LOOK };
            let max_wait = left().map_or(longest, |left| left.min(longest));
            reading.unsent = reading.engine.poll(PollOptions { max_wait, fill }).await?;
            if reading.unsent.is_some() {
                continue;
            }
            fill = false;
            if left().is_some_and(|left| left.is_zero()) {
                return Ok(None);
            }
        }
    }

    /// The rows that were read, once the dead letters beside them are acknowledged. An error or an
    /// interrupt leaves them for the next call.
    async fn hand_out(&self, reading: &mut Reading) -> Result<Option<Decoded>> {
        if let (Some(letters), Some(decoded)) = (&self.letters, &reading.unsent) {
            letters.send(&decoded.rejected).await?;
        }
        Ok(reading.unsent.take())
    }

    async fn caught_up(&self, reading: &mut Reading) -> Result<bool> {
        if self.ends.is_empty() || reading.unsent.is_some() {
            return Ok(false);
        }
        for (partition, end) in &self.ends {
            if reading.engine.position(partition).await? < *end {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A live reader; see `ottla.Consumer`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Consumer {
    inner: OfProcess<Inner>,
    assignment: Vec<TopicPartition>,
}

/// The partitions of an assignment with their starts.
async fn assigned(
    engine: &Engine,
    topics: BTreeMap<String, Option<Vec<i32>>>,
    start: &At,
    resume: &Offsets,
) -> Result<Vec<(TopicPartition, StartAt)>> {
    let mut found = Vec::new();
    for (topic, chosen) in topics {
        let info = existing(engine, &topic).await?;
        let partitions =
            chosen.unwrap_or_else(|| info.partitions.iter().map(|one| one.partition).collect());
        let known = |one: i32| resume.get(&topic).and_then(|offsets| offsets.get(&one));
        for one in partitions {
            let partition = TopicPartition::new(Arc::clone(&info.name), one);
            match known(one) {
                Some(offset) => found.push((partition, StartAt::Offset(Offset(*offset)))),
                None if start.covers(one) => {
                    found.push((partition.clone(), start_of(&partition, start)?));
                }
                None => {}
            }
        }
    }
    if found.is_empty() {
        return Err(Error::invalid("no partition is assigned"));
    }
    Ok(found)
}

fn start_of(partition: &TopicPartition, start: &At) -> Result<StartAt> {
    match start {
        At::Earliest => Ok(StartAt::Earliest),
        At::Latest => Ok(StartAt::Latest),
        At::Timestamp(time) => Ok(StartAt::Timestamp(*time)),
        At::Offsets(offsets) => match offsets.get(&partition.partition) {
            Some(offset) => Ok(StartAt::Offset(*offset)),
            None => Err(Error::invalid(format!("no offset is given for {partition}"))),
        },
        other => Err(Error::invalid(format!("a consumer cannot start at {other:?}"))),
    }
}

impl Consumer {
    pub(super) fn start(
        client: &Bound<'_, Client>,
        topics: BTreeMap<String, Option<Vec<i32>>>,
        (start, resume): (At, Offsets),
        arguments: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let arguments: Arguments = arguments.extract()?;
        let mut decode = convert::decode_options(
            arguments.value.as_ref(),
            arguments.columns,
            &arguments.on_error,
            arguments.max_rows,
            arguments.string_view,
        )?;
        decode.max_bytes = arguments.max_bytes.unwrap_or(usize::MAX);
        let letters = client.get().dead_letters(&arguments.on_error)?;
        let engine = client.get().engine()?;
        let mut config = engine.config().consumer.clone();
        config.on_data_loss = OnDataLoss::parse(&arguments.on_data_loss)?;
        if let Some(level) = isolation_level(arguments.isolation_level.as_deref())? {
            config.isolation_level = level;
        }
        if let Some(limit) = arguments.memory_limit {
            config.memory_bytes = limit.max(1);
            config.partition_bytes_max = config.partition_bytes_max.min(limit.max(1));
            config.fetch_bytes_max = config.fetch_bytes_max.min(limit.max(1));
        }
        let fill = runtime::timeout(Some(arguments.max_wait))?.unwrap_or(Duration::MAX);
        let until = arguments.until_caught_up;
        let timeout = runtime::timeout(timeout)?;
        let inner = runtime::wait(client.py(), "the assignment", timeout, async move {
            let assignment = assigned(&engine, topics, &start, &resume).await?;
            let mut consumer = engine.consumer_with(config, decode)?;
            consumer.assign(&assignment).await?;
            let ends = if until { consumer.end_offsets().await? } else { BTreeMap::new() };
            let reading = Mutex::new(Reading { engine: consumer, unsent: None });
            Ok(Inner { reading, letters, fill, ends, closed: AtomicBool::new(false) })
        })?;
        let assignment =
            inner.reading.try_lock().map_or_else(|_held| Vec::new(), |one| one.engine.assignment());
        Ok(Self { inner: OfProcess::new(inner), assignment })
    }

    fn inner(&self) -> Result<Arc<Inner>> {
        let inner = self.inner.get("the consumer", "make a new consumer there")?;
        if inner.closed.load(Ordering::SeqCst) {
            return Err(Error::Closed { what: "the consumer" });
        }
        Ok(Arc::clone(inner))
    }

    /// The partitions that are named, or all.
    fn named(&self, partitions: Option<Vec<(String, i32)>>) -> Vec<TopicPartition> {
        match partitions {
            None => self.assignment.clone(),
            Some(named) => named
                .into_iter()
                .map(|(topic, partition)| TopicPartition::new(topic, partition))
                .collect(),
        }
    }
}

fn by_topic(offsets: impl IntoIterator<Item = (TopicPartition, i64)>) -> Offsets {
    let mut topics = Offsets::new();
    for (partition, offset) in offsets {
        let topic = topics.entry(partition.topic.to_string()).or_default();
        topic.insert(partition.partition, offset);
    }
    topics
}

async fn positions(
    engine: &mut AssignedConsumer,
    assignment: &[TopicPartition],
) -> Result<Vec<(TopicPartition, i64)>> {
    let mut found = Vec::with_capacity(assignment.len());
    for partition in assignment {
        found.push((partition.clone(), engine.position(partition).await?.0));
    }
    Ok(found)
}

#[pymethods]
impl Consumer {
    #[getter]
    fn assignment(&self) -> Vec<(String, i32)> {
        self.assignment.iter().map(|one| (one.topic.to_string(), one.partition)).collect()
    }

    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<RecordBatch>> {
        let inner = self.inner()?;
        let timeout = runtime::timeout(timeout)?;
        let polled =
            runtime::wait(py, "the next batch", None, async move { inner.poll(timeout).await })?;
        Ok(polled.map(RecordBatch::from))
    }

    fn poll_async(&self) -> PyResult<Pending> {
        let inner = self.inner()?;
        let polling = async move { inner.poll(None).await };
        Ok(Pending::new("the next batch", polling, |py, polled: &Option<Decoded>| match polled {
            Some(decoded) => Ok(Py::new(py, RecordBatch::from(decoded.clone()))?.into_any()),
            None => Ok(py.None()),
        }))
    }

    fn seek(
        &self,
        py: Python<'_>,
        to: Place,
        topic: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let inner = self.inner()?;
        let chosen: Vec<TopicPartition> = self
            .assignment
            .iter()
            .filter(|one| topic.is_none_or(|topic| topic == &*one.topic))
            .filter(|one| to.0.covers(one.partition))
            .cloned()
            .collect();
        let topics: std::collections::BTreeSet<_> = chosen.iter().map(|one| &one.topic).collect();
        if topics.len() > 1 && matches!(to.0, At::Offsets(_)) {
            return Err(Error::invalid("name the topic: the consumer has several").into());
        }
        if chosen.is_empty() {
            return Err(Error::invalid("no such partition is assigned").into());
        }
        let timeout = runtime::timeout(timeout)?;
        runtime::wait(py, "the place to seek", timeout, async move {
            let mut reading = inner.reading.lock().await;
            reading.give_back()?;
            let engine = &mut reading.engine;
            for partition in &chosen {
                engine.seek(partition, start_of(partition, &to.0)?)?;
            }
            positions(engine, &chosen).await.map(|_known| ())
        })
    }

    fn position(&self, py: Python<'_>) -> PyResult<Offsets> {
        let inner = self.inner()?;
        let assignment = self.assignment.clone();
        let found = runtime::wait(py, "the position", None, async move {
            let mut reading = inner.reading.lock().await;
            reading.give_back()?;
            positions(&mut reading.engine, &assignment).await
        })?;
        Ok(by_topic(found))
    }

    fn pause(&self, py: Python<'_>, partitions: Option<Vec<(String, i32)>>) -> PyResult<()> {
        let (inner, named) = (self.inner()?, self.named(partitions));
        runtime::wait(py, "the consumer", None, async move {
            let mut reading = inner.reading.lock().await;
            reading.give_back()?;
            let engine = &mut reading.engine;
            for (partition, position) in positions(engine, &named).await? {
                engine.pause(&partition)?;
                // What was fetched ahead would still be handed out; a pause holds at once, as in
                // Java. Seeking to where it is forgets it.
                engine.seek(&partition, StartAt::Offset(Offset(position)))?;
            }
            Ok(())
        })
    }

    fn resume(&self, py: Python<'_>, partitions: Option<Vec<(String, i32)>>) -> PyResult<()> {
        let (inner, named) = (self.inner()?, self.named(partitions));
        runtime::wait(py, "the consumer", None, async move {
            let engine = &mut inner.reading.lock().await.engine;
            named.iter().try_for_each(|partition| engine.resume(partition))
        })
    }

    fn lag(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Offsets> {
        let inner = self.inner()?;
        let assignment = self.assignment.clone();
        let timeout = runtime::timeout(timeout)?;
        let found = runtime::wait(py, "the lag", timeout, async move {
            let mut reading = inner.reading.lock().await;
            reading.give_back()?;
            let engine = &mut reading.engine;
            let ends = engine.end_offsets().await?;
            let mut found = positions(engine, &assignment).await?;
            for (partition, offset) in &mut found {
                let end = ends.get(partition).map_or(*offset, |end| end.0);
                *offset = (end - *offset).max(0);
            }
            Ok(found)
        })?;
        Ok(by_topic(found))
    }

    fn caught_up(&self, py: Python<'_>) -> PyResult<bool> {
        let inner = self.inner()?;
        if inner.ends.is_empty() {
            return Ok(false);
        }
        runtime::wait(py, "the position", None, async move {
            inner.caught_up(&mut *inner.reading.lock().await).await
        })
    }

    #[getter]
    fn closed(&self) -> bool {
        self.inner.peek().is_none_or(|inner| inner.closed.load(Ordering::SeqCst))
    }

    fn close(&self) {
        if let Some(inner) = self.inner.peek() {
            // A poll of another thread ends at its next look.
            inner.closed.store(true, Ordering::SeqCst);
        }
    }
}
