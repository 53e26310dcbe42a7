//! Creating, changing and describing topics, from Python.
//!
//! Names, lists and dictionaries of plain values are passed here; `python/ottla/_admin.py` and
//! `_topic.py` build objects from them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use super::archive::{Raised, Told};
use super::client::Client;
use super::convert::Place;
use super::{runtime, tier};
use crate::client::admin::{
    ConfigChange, ConfigSource, ListedOffset, NewTopic, OffsetSpec, Resource, ResourceType,
};
use crate::client::{Client as Engine, PartitionInfo, TopicInfo};
use crate::error::{Error, Result};
use crate::types::{NodeId, Offset, PartitionIndex, TopicPartition};

/// The topic operations of a client; see `ottla.Client`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Admin {
    client: Py<Client>,
}

impl Admin {
    pub(super) fn new(client: Py<Client>) -> Self {
        Self { client }
    }

    /// Runs one call of the engine.
    pub(super) fn run<F, T>(
        &self,
        py: Python<'_>,
        what: &str,
        timeout: Option<f64>,
        call: impl FnOnce(Engine) -> F,
    ) -> PyResult<T>
    where
        F: Future<Output = Result<T>> + Send,
        T: Send,
    {
        let timeout: Option<Duration> = runtime::timeout(timeout)?;
        let engine = self.client.get().engine()?;
        let running = call(engine.clone());
        runtime::wait_for(py, &engine, what, timeout, running)
    }
}

/// A topic's current metadata. Unlike for a producer, a missing topic is an error at once.
pub(super) async fn existing(engine: &Engine, topic: &str) -> Result<Arc<TopicInfo>> {
    let admin = engine.admin();
    named(engine, topic, first(admin.describe_topics(&[topic]).await?, "Metadata")).await
}

/// Suggests the most similar topic when one does not exist.
pub(super) async fn named<T>(engine: &Engine, topic: &str, result: Result<T>) -> Result<T> {
    engine.admin().named(topic, result).await
}

/// The offsets of a topic's partitions at a position. Where a lookup by time finds no record that
/// late, the end.
pub(super) async fn offsets_at(
    engine: &Engine,
    topic: &str,
    at: OffsetSpec,
) -> Result<BTreeMap<PartitionIndex, i64>> {
    let info = existing(engine, topic).await?;
    let wanted = |spec: OffsetSpec| -> BTreeMap<TopicPartition, OffsetSpec> {
        let named = |one| TopicPartition::new(Arc::clone(&info.name), one);
        info.partitions.iter().map(|one| (named(one.partition), spec)).collect()
    };
    let isolation = engine.config().consumer.isolation_level;
    let found = engine.admin().list_offsets(&wanted(at), isolation).await?;
    let missing: BTreeMap<TopicPartition, OffsetSpec> = found
        .iter()
        .filter(|(_, listed)| listed.offset.is_none())
        .map(|(partition, _)| (partition.clone(), OffsetSpec::Latest))
        .collect();
    let ends = if missing.is_empty() {
        BTreeMap::new()
    } else {
        engine.admin().list_offsets(&missing, isolation).await?
    };
    let offset = |listed: &ListedOffset| listed.offset.map(|offset| offset.0);
    found
        .iter()
        .map(|(partition, listed)| {
            let offset = offset(listed).or_else(|| ends.get(partition).and_then(offset));
            let offset = offset.ok_or_else(|| {
                Error::invalid(format!("{partition} has neither such an offset nor an end"))
            })?;
            Ok((partition.partition, offset))
        })
        .collect()
}

fn first<T>(results: Vec<Result<T>>, what: &'static str) -> Result<T> {
    results.into_iter().next().unwrap_or_else(|| Err(Error::malformed(what, "an empty answer")))
}

fn resource(kind: &str, name: &str) -> Result<Resource> {
    let kind = match kind {
        "topic" => ResourceType::Topic,
        "broker" => ResourceType::Broker,
        other => return Err(Error::invalid(format!("{other:?} has no settings"))),
    };
    Ok(Resource { kind, name: name.to_owned() })
}

#[pymethods]
impl Admin {
    #[expect(clippy::too_many_arguments, reason = "the arguments of the Python method")]
    #[pyo3(signature = (name, partitions, replication_factor, assignment, config, validate_only, timeout))]
    fn create_topic(
        &self,
        py: Python<'_>,
        name: String,
        partitions: Option<i32>,
        replication_factor: Option<i16>,
        assignment: BTreeMap<PartitionIndex, Vec<i32>>,
        config: BTreeMap<String, String>,
        validate_only: bool,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let what = format!("the creation of topic {name}");
        let nodes = |nodes: Vec<i32>| nodes.into_iter().map(NodeId).collect();
        let topic = NewTopic {
            name,
            partitions,
            replication_factor,
            assignments: assignment.into_iter().map(|(one, at)| (one, nodes(at))).collect(),
            configs: config,
        };
        self.run(py, &what, timeout, |engine| async move {
            let results = engine.admin().create_topics(&[topic], validate_only).await?;
            first(results, "CreateTopics").map(|_created| ())
        })
    }

    fn delete_topic(&self, py: Python<'_>, name: &str, timeout: Option<f64>) -> PyResult<()> {
        let what = format!("the deletion of topic {name}");
        self.run(py, &what, timeout, |engine| async move {
            let deleted = first(engine.admin().delete_topics(&[name]).await?, "DeleteTopics");
            named(&engine, name, deleted).await
        })
    }

    fn create_partitions(
        &self,
        py: Python<'_>,
        name: &str,
        total: i32,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let what = format!("the creation of partitions of topic {name}");
        self.run(py, &what, timeout, |engine| async move {
            let created = engine.admin().create_partitions(name, total, false).await;
            named(&engine, name, created).await
        })
    }

    fn topics(
        &self,
        py: Python<'_>,
        internal: bool,
        timeout: Option<f64>,
    ) -> PyResult<Vec<String>> {
        let topics = self.run(py, "the list of topics", timeout, |engine| async move {
            if internal {
                engine.admin().all_topics().await
            } else {
                engine.admin().list_topics().await
            }
        })?;
        Ok(topics.iter().map(|topic| topic.name.to_string()).collect())
    }

    fn describe_topic<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let what = format!("the description of topic {name}");
        let topic =
            self.run(py, &what, timeout, |engine| async move { existing(&engine, name).await })?;
        describe(py, &topic)
    }

    fn describe_configs<'py>(
        &self,
        py: Python<'py>,
        kind: &str,
        name: &str,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let resource = resource(kind, name)?;
        let what = format!("the settings of {resource}");
        let entries = self.run(py, &what, timeout, |engine| async move {
            let described = engine.admin().describe_configs(&[resource], true).await?;
            named(&engine, name, first(described, "DescribeConfigs")).await
        })?;
        let settings = PyDict::new(py);
        for entry in entries {
            let setting = PyDict::new(py);
            setting.set_item("value", &entry.value)?;
            setting.set_item("source", entry.source.name())?;
            setting.set_item("is_default", entry.source == ConfigSource::Default)?;
            setting.set_item("read_only", entry.is_read_only)?;
            setting.set_item("sensitive", entry.is_sensitive)?;
            setting.set_item("documentation", &entry.documentation)?;
            settings.set_item(&entry.name, setting)?;
        }
        Ok(settings)
    }

    fn alter_configs(
        &self,
        py: Python<'_>,
        kind: &str,
        name: &str,
        changes: BTreeMap<String, Option<String>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let resource = resource(kind, name)?;
        let what = format!("the change of the settings of {resource}");
        let changes: BTreeMap<String, ConfigChange> = changes
            .into_iter()
            .map(|(name, value)| (name, value.map_or(ConfigChange::Delete, ConfigChange::Set)))
            .collect();
        self.run(py, &what, timeout, |engine| async move {
            let altered = engine.admin().alter_configs(&resource, &changes, false).await;
            named(&engine, name, altered).await
        })
    }

    fn describe_cluster<'py>(
        &self,
        py: Python<'py>,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let cluster =
            self.run(py, "the description of the cluster", timeout, |engine| async move {
                engine.admin().cluster_state().await
            })?;
        let described = PyDict::new(py);
        described.set_item("cluster_id", &cluster.cluster_id)?;
        described.set_item("controller_id", cluster.controller.map(|node| node.0))?;
        let brokers = PyList::empty(py);
        for broker in &cluster.brokers {
            let one = PyDict::new(py);
            one.set_item("node_id", broker.info.id.0)?;
            one.set_item("host", &broker.info.host)?;
            one.set_item("port", broker.info.port)?;
            one.set_item("rack", &broker.info.rack)?;
            one.set_item("fenced", broker.fenced)?;
            brokers.append(one)?;
        }
        described.set_item("brokers", brokers)?;
        let partitions = PyList::empty(py);
        for topic in &cluster.topics {
            for info in &topic.partitions {
                let one = partition(py, info)?;
                one.set_item("topic", &*topic.name)?;
                one.set_item("min_isr", cluster.min_isr(topic, info))?;
                partitions.append(one)?;
            }
        }
        described.set_item("partitions", partitions)?;
        Ok(described)
    }

    fn log_sizes(
        &self,
        py: Python<'_>,
        topic: &str,
        timeout: Option<f64>,
    ) -> PyResult<BTreeMap<PartitionIndex, i64>> {
        let directories = self.run(py, "the sizes of the logs", timeout, |engine| async move {
            engine.admin().describe_log_dirs().await
        })?;
        let mut sizes = BTreeMap::new();
        for (partition, size) in directories.iter().flat_map(|directory| &directory.partitions) {
            if &*partition.topic == topic {
                // The largest replica counts.
                let known: &mut i64 = sizes.entry(partition.partition).or_default();
                *known = (*known).max(*size);
            }
        }
        Ok(sizes)
    }

    fn list_offsets(
        &self,
        py: Python<'_>,
        topic: &str,
        at: Place,
        timeout: Option<f64>,
    ) -> PyResult<BTreeMap<PartitionIndex, i64>> {
        let spec = at.spec()?;
        let what = format!("the offsets of topic {topic}");
        self.run(py, &what, timeout, |engine| async move { offsets_at(&engine, topic, spec).await })
    }

    fn delete_records(
        &self,
        py: Python<'_>,
        topic: &str,
        before: BTreeMap<PartitionIndex, i64>,
        timeout: Option<f64>,
    ) -> PyResult<BTreeMap<PartitionIndex, i64>> {
        let name: Arc<str> = Arc::from(topic);
        let before: BTreeMap<TopicPartition, Offset> = before
            .into_iter()
            .map(|(one, offset)| (TopicPartition::new(Arc::clone(&name), one), Offset(offset)))
            .collect();
        let what = format!("the deletion of records of topic {topic}");
        let starts = self.run(py, &what, timeout, |engine| async move {
            let deleted = engine.admin().delete_records(&before).await;
            named(&engine, topic, deleted).await
        })?;
        Ok(starts.into_iter().map(|(one, offset)| (one.partition, offset.0)).collect())
    }

    fn tier<'py>(
        &self,
        py: Python<'py>,
        topic: &str,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let what = format!("the description of the tier of topic {topic}");
        let described = self.run(py, &what, timeout, |engine| async move {
            let described = engine.admin().tier(topic).await;
            named(&engine, topic, described).await
        })?;
        tier::describe(py, &described)
    }

    fn offload(
        &self,
        py: Python<'_>,
        topic: &str,
        timeout: Option<f64>,
    ) -> PyResult<tier::Offsets> {
        let what = tier::offloading(topic);
        let begun = self.run(py, &what, timeout, |engine| async move {
            let begun = engine.admin().offload(topic).await;
            named(&engine, topic, begun).await
        })?;
        Ok(tier::offsets(&begun))
    }

    fn await_offload(
        &self,
        py: Python<'_>,
        topic: &str,
        offsets: tier::Offsets,
        progress: Option<Py<PyAny>>,
        timeout: Option<f64>,
    ) -> PyResult<()> {
        let (what, offload) = (tier::offloading(topic), tier::ranges(offsets));
        let raised = Raised::default();
        let mut told = Told::new(progress, &raised);
        let tell = |done: i64| {
            told.tell(done, true);
            if raised.is_some() { Err(Error::Closed { what: "the progress" }) } else { Ok(()) }
        };
        let waited = self.run(py, &what, timeout, |engine| async move {
            let waited = engine.admin().await_offload(topic, &offload, tell).await;
            named(&engine, topic, waited).await
        });
        raised.take().map_or(waited, Err)
    }

    fn offload_obstacles(
        &self,
        py: Python<'_>,
        topic: &str,
        offsets: tier::Offsets,
        timeout: Option<f64>,
    ) -> PyResult<Vec<String>> {
        let (what, offload) = (tier::offloading(topic), tier::ranges(offsets));
        self.run(py, &what, timeout, |engine| async move {
            engine.admin().offload_obstacles(topic, &offload).await
        })
    }
}

fn describe<'py>(py: Python<'py>, topic: &TopicInfo) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("name", &*topic.name)?;
    described.set_item("topic_id", topic.id.to_string())?;
    described.set_item("internal", topic.is_internal)?;
    let partitions = PyList::empty(py);
    for info in &topic.partitions {
        partitions.append(partition(py, info)?)?;
    }
    described.set_item("partitions", partitions)?;
    Ok(described)
}

fn partition<'py>(py: Python<'py>, info: &PartitionInfo) -> PyResult<Bound<'py, PyDict>> {
    let numbers = |nodes: &[NodeId]| nodes.iter().map(|node| node.0).collect::<Vec<i32>>();
    let one = PyDict::new(py);
    one.set_item("partition", info.partition)?;
    one.set_item("leader", info.leader.map(|node| node.0))?;
    one.set_item("leader_epoch", info.leader_epoch.0)?;
    one.set_item("replicas", numbers(&info.replicas))?;
    one.set_item("isr", numbers(&info.isr))?;
    Ok(one)
}
