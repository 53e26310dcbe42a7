//! Consumers, as Python sees them: of assigned partitions, and of groups.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::admin::existing;
use super::batch::RecordBatch;
use super::client::Client;
use super::convert::{self, Place, ReadArguments};
use super::group;
use super::pending::Pending;
use super::process::OfProcess;
use super::reader::{Engine as Source, Manner, Reader};
use super::runtime;
use super::whole::Whole;
use crate::client::{
    Bound as At, Client as Engine, ConsumerConfig, GroupMetadata, Polled, StartAt,
};
use crate::columnar::DecodeOptions;
use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex, TopicPartition};

/// Offsets by topic and partition, as Python sees them.
pub(super) type Offsets = BTreeMap<String, BTreeMap<PartitionIndex, i64>>;

/// The keyword arguments of `client.consumer` that concern reading, besides those of a scan, as
/// `_consumer.py` passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct OwnArguments {
    max_rows: Whole<usize>,
    max_bytes: Option<Whole<usize>>,
    max_wait: f64,
    memory_limit: Option<Whole<usize>>,
    until_caught_up: bool,
}

/// What a consumer reads, and how.
struct Arguments {
    shared: ReadArguments,
    own: OwnArguments,
}

impl Arguments {
    fn new(arguments: &Bound<'_, PyDict>) -> PyResult<Self> {
        let (shared, own) = (convert::arguments(arguments)?, convert::arguments(arguments)?);
        Ok(Self { shared, own })
    }

    fn decode(&self) -> Result<DecodeOptions> {
        let mut decode = self.shared.decode(self.own.max_rows.0)?;
        if let Some(Whole(most)) = self.own.max_bytes {
            decode.max_bytes = most;
        }
        Ok(decode)
    }

    fn config(&self, mut config: ConsumerConfig) -> Result<ConsumerConfig> {
        config.on_data_loss = self.shared.on_data_loss()?;
        if let Some(level) = self.shared.isolation_level()? {
            config.isolation_level = level;
        }
        if let Some(Whole(limit)) = self.own.memory_limit {
            config.memory_bytes = limit.max(1);
            config.partition_bytes_max = config.partition_bytes_max.min(limit.max(1));
            config.fetch_bytes_max = config.fetch_bytes_max.min(limit.max(1));
        }
        Ok(config)
    }

    fn manner(&self, client: &Client) -> Result<Manner> {
        let letters = client.dead_letters(&self.shared.on_error)?;
        let wait = self.own.max_wait;
        let fill = runtime::timeout(Some(wait)).map_err(|_out_of_range| {
            Error::invalid(format!("max_wait={wait} is not a valid number of seconds"))
        })?;
        let fill = fill.unwrap_or(Duration::MAX);
        Ok(Manner { letters, fill })
    }
}

/// A live reader; see `ottla.Consumer`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Consumer {
    reader: OfProcess<Reader>,
}

/// The partitions of an assignment with their starts.
async fn assigned(
    engine: &Engine,
    topics: BTreeMap<String, Option<Vec<PartitionIndex>>>,
    start: &At,
    resume: &Offsets,
) -> Result<Vec<(TopicPartition, StartAt)>> {
    let mut found = Vec::new();
    for (topic, chosen) in topics {
        let info = existing(engine, &topic).await?;
        let partitions =
            chosen.unwrap_or_else(|| info.partitions.iter().map(|one| one.partition).collect());
        let known = |one: PartitionIndex| resume.get(&topic).and_then(|offsets| offsets.get(&one));
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
    /// Reads partitions that the caller names.
    pub(super) fn start(
        client: &Bound<'_, Client>,
        topics: BTreeMap<String, Option<Vec<PartitionIndex>>>,
        (start, resume): (At, Offsets),
        arguments: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let arguments = Arguments::new(arguments)?;
        let decode = arguments.decode()?;
        let manner = arguments.manner(client.get())?;
        let engine = client.get().engine()?;
        let config = arguments.config(engine.config().consumer.clone())?;
        let until = arguments.own.until_caught_up;
        let timeout = runtime::timeout(timeout)?;
        let of = engine.clone();
        let source =
            runtime::wait_for(client.py(), &engine, "the assignment", timeout, async move {
                let assignment = assigned(&of, topics, &start, &resume).await?;
                let mut consumer = of.consumer_with(config, decode)?;
                consumer.assign(&assignment).await?;
                let ends = if until { Some(consumer.end_offsets().await?) } else { None };
                Ok(Source::Assigned { consumer: Box::new(consumer), ends })
            })?;
        Ok(Self { reader: OfProcess::new(Reader::new(engine, source, manner)) })
    }

    /// Joins a group. Waits for nothing: polls tell what is assigned.
    pub(super) fn join(
        client: &Bound<'_, Client>,
        arguments: &Bound<'_, PyDict>,
    ) -> PyResult<Self> {
        let group: group::Arguments = convert::arguments(arguments)?;
        let arguments = Arguments::new(arguments)?;
        let decode = arguments.decode()?;
        let manner = arguments.manner(client.get())?;
        let engine = client.get().engine()?;
        let mut config = arguments.config(engine.config().consumer.clone())?;
        group.reset(engine.config(), &mut config)?;
        let options = group.options(arguments.own.until_caught_up)?;
        let _context = runtime::handle()?.enter();
        let consumer = engine.group_consumer_with(config, options, decode)?;
        let source = Source::Group(Box::new(consumer));
        Ok(Self { reader: OfProcess::new(Reader::new(engine, source, manner)) })
    }

    pub(super) fn reader(&self) -> Result<Arc<Reader>> {
        let reader = self.reader.get("the consumer", "make a new consumer there")?;
        reader.check_open()?;
        Ok(Arc::clone(reader))
    }
}

/// The partitions that are named, or all that are assigned.
fn named(
    assigned: impl FnOnce() -> Vec<TopicPartition>,
    partitions: Option<Vec<(String, PartitionIndex)>>,
) -> Vec<TopicPartition> {
    let Some(named) = partitions else { return assigned() };
    named.into_iter().map(|(topic, partition)| TopicPartition::new(topic, partition)).collect()
}

/// Where a seek puts the partitions that are assigned.
fn places(
    mut chosen: Vec<TopicPartition>,
    topic: Option<&str>,
    to: &At,
) -> Result<Vec<(TopicPartition, StartAt)>> {
    chosen.retain(|one| topic.is_none_or(|topic| topic == &*one.topic));
    if let At::Offsets(offsets) = to {
        let is_there =
            |one: &&PartitionIndex| chosen.iter().any(|chosen| chosen.partition == **one);
        if let Some(missing) = offsets.keys().find(|one| !is_there(one)) {
            let assigned = chosen.iter().map(ToString::to_string).collect::<Vec<_>>();
            let assigned = if assigned.is_empty() {
                "no partition of its topic is assigned".to_owned()
            } else {
                format!("it is not among those assigned, {}", assigned.join(", "))
            };
            return Err(Error::invalid(format!("cannot seek in partition {missing}: {assigned}")));
        }
    }
    chosen.retain(|one| to.covers(one.partition));
    let topics: BTreeSet<_> = chosen.iter().map(|one| &one.topic).collect();
    if topics.len() > 1 && matches!(to, At::Offsets(_)) {
        return Err(Error::invalid("name the topic: the consumer has several"));
    }
    if chosen.is_empty() {
        return Err(Error::invalid("no such partition is assigned"));
    }
    let place = |one: TopicPartition| start_of(&one, to).map(|place| (one, place));
    chosen.into_iter().map(place).collect()
}

pub(super) fn by_topic(offsets: impl IntoIterator<Item = (TopicPartition, i64)>) -> Offsets {
    let mut topics = Offsets::new();
    for (partition, offset) in offsets {
        let topic = topics.entry(partition.topic.to_string()).or_default();
        topic.insert(partition.partition, offset);
    }
    topics
}

pub(super) fn pairs(partitions: &[TopicPartition]) -> Vec<(String, PartitionIndex)> {
    partitions.iter().map(|one| (one.topic.to_string(), one.partition)).collect()
}

/// What is ready and its number; None when nothing came in time.
fn numbered(py: Python<'_>, polled: Option<&(u64, Polled)>) -> PyResult<Py<PyAny>> {
    let Some((number, polled)) = polled else { return Ok(py.None()) };
    Ok((*number, to_python(py, polled)?).into_pyobject(py)?.into_any().unbind())
}

/// A batch; a change of the assignment, or a wait for other members, as `(kind, partitions, reason)`;
/// or None at the end.
fn to_python(py: Python<'_>, polled: &Polled) -> PyResult<Py<PyAny>> {
    let (kind, partitions, reason) = match polled {
        Polled::CaughtUp => return Ok(py.None()),
        Polled::Batch(decoded) => {
            return Ok(Py::new(py, RecordBatch::from(decoded.clone()))?.into_any());
        }
        Polled::Assigned(partitions) => ("assigned", partitions, ""),
        Polled::Revoked(partitions) => ("revoked", partitions, ""),
        Polled::Lost { partitions, reason } => ("lost", partitions, reason.as_str()),
        Polled::Waiting(words) => ("waiting", &Vec::new(), words.as_deref().unwrap_or_default()),
    };
    Ok((kind, pairs(partitions), reason).into_pyobject(py)?.into_any().unbind())
}

#[pymethods]
impl Consumer {
    #[getter]
    fn assignment(&self) -> Vec<(String, PartitionIndex)> {
        self.reader.peek().map_or_else(Vec::new, |reader| pairs(&reader.assignment()))
    }

    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Py<PyAny>> {
        let reader = self.reader()?;
        let timeout = runtime::timeout(timeout)?;
        let polling = async move { reader.poll(timeout).await };
        let polled = runtime::wait(py, "the next batch", None, polling)?;
        numbered(py, polled.as_ref())
    }

    fn poll_async(&self) -> PyResult<Pending> {
        let reader = self.reader()?;
        let client = reader.client().clone();
        let polling = async move { reader.poll(None).await };
        Ok(Pending::new(&client, "the next batch", polling, |py, polled| {
            numbered(py, polled.as_ref())
        }))
    }

    /// Whether what became ready under a number was not given back since.
    fn is_ready(&self, py: Python<'_>, number: u64) -> PyResult<bool> {
        let reader = self.reader()?;
        runtime::wait(py, "the consumer", None, async move { Ok(reader.is_ready(number).await) })
    }

    /// The number of what the caller has. An attribute, since Python looks for signals after it
    /// called a function, but not after it set an attribute: between this and the return of the
    /// caller nothing is raised.
    #[setter]
    fn set_handed(&self, number: u64) {
        if let Some(reader) = self.reader.peek() {
            reader.set_handed(number);
        }
    }

    fn seek(
        &self,
        py: Python<'_>,
        to: Place,
        topic: Option<&str>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let reader = self.reader()?;
        let timeout = runtime::timeout(timeout)?;
        let client = reader.client().clone();
        runtime::wait_for(py, &client, "the place to seek", timeout, async move {
            let mut reading = reader.lock().await;
            let engine = reading.engine_of_caller()?;
            let places = places(engine.assignment(), topic, &to.0)?;
            for (partition, place) in &places {
                engine.seek(partition, *place)?;
            }
            let partitions: Vec<_> = places.into_iter().map(|(partition, _)| partition).collect();
            engine.positions(&partitions).await.map(drop)
        })
    }

    fn position(&self, py: Python<'_>) -> PyResult<Offsets> {
        let reader = self.reader()?;
        let found = runtime::wait(py, "the position", None, async move {
            let mut reading = reader.lock().await;
            let engine = reading.engine_of_caller()?;
            let assignment = engine.assignment();
            engine.positions(&assignment).await
        })?;
        Ok(by_topic(found))
    }

    fn pause(
        &self,
        py: Python<'_>,
        partitions: Option<Vec<(String, PartitionIndex)>>,
    ) -> PyResult<()> {
        let reader = self.reader()?;
        runtime::wait(py, "the consumer", None, async move {
            let mut reading = reader.lock().await;
            let engine = reading.engine_of_caller()?;
            let named = named(|| engine.assignment(), partitions);
            for (partition, position) in engine.positions(&named).await? {
                engine.pause(&partition)?;
                // What was fetched ahead would still be handed out; a pause holds at once, as in
                // Java. Seeking to where it is forgets it.
                engine.seek(&partition, StartAt::Offset(Offset(position)))?;
            }
            Ok(())
        })
    }

    fn resume(
        &self,
        py: Python<'_>,
        partitions: Option<Vec<(String, PartitionIndex)>>,
    ) -> PyResult<()> {
        let reader = self.reader()?;
        runtime::wait(py, "the consumer", None, async move {
            let mut reading = reader.lock().await;
            let engine = reading.engine()?;
            let named = named(|| engine.assignment(), partitions);
            named.iter().try_for_each(|partition| engine.resume(partition))
        })
    }

    fn lag(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Offsets> {
        let reader = self.reader()?;
        let timeout = runtime::timeout(timeout)?;
        let client = reader.client().clone();
        let found = runtime::wait_for(py, &client, "the lag", timeout, async move {
            let mut reading = reader.lock().await;
            let engine = reading.engine_of_caller()?;
            let assignment = engine.assignment();
            let ends = engine.end_offsets().await?;
            let mut found = engine.positions(&assignment).await?;
            for (partition, offset) in &mut found {
                let end = ends.get(partition).map_or(*offset, |end| end.0);
                *offset = (end - *offset).max(0);
            }
            Ok(found)
        })?;
        Ok(by_topic(found))
    }

    /// The offsets between the positions of a member and the ends that were pinned; None while a
    /// position is not known.
    fn remaining(&self, py: Python<'_>) -> PyResult<Option<u64>> {
        let reader = self.reader()?;
        runtime::wait(py, "the consumer", None, async move {
            Ok(reader.lock().await.engine()?.remaining())
        })
    }

    fn commit(
        &self,
        py: Python<'_>,
        offsets: Option<Offsets>,
        timeout: Option<f64>,
    ) -> PyResult<Offsets> {
        let reader = self.reader()?;
        let _of_group = reader.member()?;
        let timeout = runtime::timeout(timeout)?;
        let client = reader.client().clone();
        let done = group::commit(reader, offsets);
        runtime::wait_for(py, &client, "the commit of offsets", timeout, done)
    }

    fn commit_async(&self, offsets: Option<Offsets>) -> PyResult<Pending> {
        let reader = self.reader()?;
        let _of_group = reader.member()?;
        let client = reader.client().clone();
        let done = group::commit(reader, offsets);
        Ok(Pending::new(&client, "the commit of offsets", done, |py, done| {
            Ok(done.clone().into_pyobject(py)?.into_any().unbind())
        }))
    }

    fn committed(
        &self,
        py: Python<'_>,
        partitions: Option<Vec<(String, PartitionIndex)>>,
        timeout: Option<f64>,
    ) -> PyResult<Offsets> {
        let reader = self.reader()?;
        let member = reader.member()?.clone();
        let named = named(|| reader.assignment(), partitions);
        let timeout = runtime::timeout(timeout)?;
        let asking = async move { member.committed(&named).await };
        let found =
            runtime::wait_for(py, reader.client(), "the committed offsets", timeout, asking)?;
        Ok(by_topic(found.into_iter().map(|(partition, one)| (partition, one.offset.0))))
    }

    /// Who the consumer is in its group: group, member, generation, instance.
    #[getter]
    fn member(&self) -> PyResult<(String, String, i32, Option<String>)> {
        let GroupMetadata { group_id, member_id, generation, instance_id } =
            self.reader()?.member()?.metadata();
        Ok((group_id, member_id, generation, instance_id))
    }

    /// Lets partitions go whose revocation was told.
    fn acknowledge(&self, py: Python<'_>) -> PyResult<()> {
        let reader = self.reader()?;
        runtime::wait(py, "the consumer", None, async move {
            group::acknowledge(reader.lock().await.engine()?);
            Ok(())
        })
    }

    #[getter]
    fn closed(&self) -> bool {
        self.reader.peek().is_none_or(Reader::is_closed)
    }

    fn close(&self, py: Python<'_>, failed: bool, timeout: Option<f64>) -> PyResult<()> {
        let Some(reader) = self.reader.peek() else { return Ok(()) };
        reader.begin_close();
        if !self.reader.is_here() {
            return Ok(());
        }
        let reader = Arc::clone(self.reader.get("the consumer", "close it there")?);
        let timeout = runtime::timeout(timeout)?;
        let client = reader.client().clone();
        let closing = async move { reader.close(failed).await };
        runtime::wait_for(py, &client, "the end of the consumer", timeout, closing)
    }
}
