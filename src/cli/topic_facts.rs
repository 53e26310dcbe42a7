//! What `ottla topics describe` shows of topics: where the partitions are, from which offset to which, how large, and
//! the settings that differ from the defaults.
//!
//! Nobody counts the records of a partition: there are as many offsets as are between its start and its end, and at
//! most as many records. Compaction and transactions leave offsets without a record. A topic that is compacted says
//! so; that there were transactions is known while one is open, and while the leader knows a producer that wrote one.
//!
//! What a broker does not tell is left out, and said on standard error: whoever describes topics often does because
//! a broker is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::options::Format;
use super::output::{ids, note, write_json, write_line, write_rows};
use super::{CommandResult, Failure};
use crate::client::admin::{Admin, ConfigEntry, ConfigSource, OffsetSpec, Resource};
use crate::client::{Client, IsolationLevel, PartitionInfo, TopicInfo};
use crate::error::Error;
use crate::types::{NodeId, Offset, TopicPartition};

/// How many partitions are asked about at once.
const AT_ONCE: usize = 16;

/// Why there may be fewer records than offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fewer {
    Compaction,
    Transactions,
}

impl Fewer {
    const fn name(self) -> &'static str {
        match self {
            Self::Compaction => "compaction",
            Self::Transactions => "transactions",
        }
    }

    const fn words(self) -> &'static str {
        match self {
            Self::Compaction => "compaction removes records",
            Self::Transactions => {
                "transactions have offsets of their own, and records that were aborted"
            }
        }
    }
}

/// The offsets of a partition.
#[derive(Clone, Copy, Debug)]
struct Extent {
    start: Offset,
    end: Offset,
    last_stable: Offset,
}

/// What the leaders and the replicas of some topics tell.
#[derive(Debug, Default)]
struct Facts {
    extents: BTreeMap<TopicPartition, Extent>,
    sizes: BTreeMap<TopicPartition, BTreeMap<NodeId, i64>>,
    /// The partitions of which it is known that there were transactions.
    transactional: BTreeSet<TopicPartition>,
    is_complete: bool,
}

/// The settings of a topic.
#[derive(Debug, Default)]
struct Configs {
    is_compacted: bool,
    /// Those that were set on the topic.
    own: BTreeMap<String, String>,
    /// Those that it has from the brokers, who do not have the default.
    of_brokers: BTreeMap<String, String>,
}

/// Writes descriptions of the topics.
pub(super) async fn write(
    client: &Client,
    topics: &[Arc<TopicInfo>],
    format: Format,
) -> CommandResult {
    let facts = facts(&client.admin(), topics).await;
    let mut documents = Vec::new();
    for topic in topics {
        let configs = configs(client, &topic.name).await?;
        match format {
            Format::Json => documents.push(document(topic, &facts, &configs)),
            Format::Table => write_topic(topic, &facts, &configs)?,
        }
    }
    if format == Format::Json {
        write_json(&Value::Array(documents))?;
    }
    if facts.is_complete { Ok(()) } else { Err(Failure::Told) }
}

async fn configs(client: &Client, topic: &str) -> Result<Configs, Failure> {
    let described = client.admin().describe_configs(&[Resource::topic(topic)], false).await?;
    let mut configs = Configs::default();
    let entries = described.into_iter().next().transpose()?.unwrap_or_default();
    for ConfigEntry { name, value, source, .. } in entries {
        let value = value.unwrap_or_default();
        if name == "cleanup.policy" {
            configs.is_compacted = value.split(',').any(|one| one.trim() == "compact");
        }
        match source {
            ConfigSource::Topic => configs.own.insert(name, value),
            ConfigSource::DynamicBroker
            | ConfigSource::DynamicDefaultBroker
            | ConfigSource::StaticBroker => configs.of_brokers.insert(name, value),
            ConfigSource::Default | ConfigSource::Unknown | ConfigSource::Other(_) => None,
        };
    }
    Ok(configs)
}

async fn facts(admin: &Admin, topics: &[Arc<TopicInfo>]) -> Facts {
    let mut leaders: BTreeMap<NodeId, BTreeSet<TopicPartition>> = BTreeMap::new();
    let mut replicas: BTreeMap<NodeId, BTreeSet<TopicPartition>> = BTreeMap::new();
    for topic in topics {
        for info in &topic.partitions {
            let partition = TopicPartition::new(Arc::clone(&topic.name), info.partition);
            for replica in info.replicas.iter().filter(|one| !info.offline.contains(one)) {
                replicas.entry(*replica).or_default().insert(partition.clone());
            }
            if let Some(leader) = info.leader {
                leaders.entry(leader).or_default().insert(partition);
            }
        }
    }
    let mut facts = Facts { is_complete: true, ..Facts::default() };
    let refused = |what: &str, broker: NodeId, error: &Error| {
        note(&format!("ottla: broker {broker} does not tell {what}: {}", error.chain()));
    };
    let asked = leaders.iter().map(async |(&leader, all)| (leader, extents(admin, all).await));
    for (leader, told) in futures::future::join_all(asked).await {
        match told {
            Ok(told) => facts.extents.extend(told),
            Err(error) => {
                refused("offsets", leader, &error);
                facts.is_complete = false;
            }
        }
    }
    let asked = replicas
        .iter()
        .map(async |(&broker, all)| (broker, admin.describe_log_dirs_of(broker, all).await));
    for (broker, told) in futures::future::join_all(asked).await {
        match told {
            Ok(told) => {
                for (partition, size) in told.into_iter().flat_map(|one| one.partitions) {
                    facts.sizes.entry(partition).or_default().insert(broker, size);
                }
            }
            Err(error) => {
                refused("sizes", broker, &error);
                facts.is_complete = false;
            }
        }
    }
    facts.transactional = transactional(admin, &facts.extents).await;
    facts
}

/// The extents of partitions of one leader.
async fn extents(
    admin: &Admin,
    partitions: &BTreeSet<TopicPartition>,
) -> Result<BTreeMap<TopicPartition, Extent>, Error> {
    let all = |spec| partitions.iter().map(|one| (one.clone(), spec)).collect::<BTreeMap<_, _>>();
    let (earliest, latest) = (all(OffsetSpec::Earliest), all(OffsetSpec::Latest));
    let (starts, ends, stable) = futures::future::try_join3(
        admin.list_offsets(&earliest, IsolationLevel::ReadUncommitted),
        admin.list_offsets(&latest, IsolationLevel::ReadUncommitted),
        admin.list_offsets(&latest, IsolationLevel::ReadCommitted),
    )
    .await?;
    let extent = |partition: &TopicPartition| {
        let (start, end) = (starts.get(partition)?.offset?, ends.get(partition)?.offset?);
        let last_stable = stable.get(partition)?.offset?;
        Some((partition.clone(), Extent { start, end, last_stable }))
    };
    Ok(partitions.iter().filter_map(extent).collect())
}

/// Those partitions of which it is known that there were transactions.
async fn transactional(
    admin: &Admin,
    extents: &BTreeMap<TopicPartition, Extent>,
) -> BTreeSet<TopicPartition> {
    let is_open = |extent: &Extent| extent.last_stable < extent.end;
    let open = extents.iter().filter(|(_, extent)| is_open(extent));
    let mut found: BTreeSet<TopicPartition> =
        open.map(|(partition, _)| partition.clone()).collect();
    let unknown =
        extents.iter().filter(|(_, extent)| !is_open(extent) && extent.start < extent.end);
    let asked = unknown.map(async |(partition, _)| {
        // A broker that cannot tell knows of none.
        let producers = admin.describe_producers(partition).await.unwrap_or_default();
        let is_transactional = producers.iter().any(|one| one.coordinator_epoch >= 0);
        is_transactional.then(|| partition.clone())
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_ONCE);
    while let Some(answer) = answers.next().await {
        found.extend(answer);
    }
    found
}

impl Facts {
    fn of<'a>(
        &'a self,
        topic: &TopicInfo,
        info: &PartitionInfo,
        configs: &Configs,
    ) -> PartitionFacts<'a> {
        let partition = TopicPartition::new(Arc::clone(&topic.name), info.partition);
        let mut fewer = Vec::new();
        if configs.is_compacted {
            fewer.push(Fewer::Compaction);
        }
        if self.transactional.contains(&partition) {
            fewer.push(Fewer::Transactions);
        }
        let sizes = self.sizes.get(&partition);
        let size = info.leader.and_then(|leader| sizes?.get(&leader).copied());
        PartitionFacts { extent: self.extents.get(&partition).copied(), size, sizes, fewer }
    }
}

/// What is known of a partition.
struct PartitionFacts<'a> {
    extent: Option<Extent>,
    /// The size of the leader's copy.
    size: Option<i64>,
    sizes: Option<&'a BTreeMap<NodeId, i64>>,
    fewer: Vec<Fewer>,
}

impl PartitionFacts<'_> {
    fn records(&self) -> Option<i64> {
        self.extent.map(|extent| extent.end.since(extent.start))
    }
}

fn document(topic: &TopicInfo, facts: &Facts, configs: &Configs) -> Value {
    let partition = |info: &PartitionInfo| {
        let known = facts.of(topic, info, configs);
        let sizes = known.sizes.into_iter().flatten();
        json!({
            "partition": info.partition,
            "leader": info.leader.map(|leader| leader.0),
            "leader_epoch": info.leader_epoch.0,
            "replicas": ids(&info.replicas),
            "isr": ids(&info.isr),
            "offline": ids(&info.offline),
            "start": known.extent.map(|extent| extent.start.0),
            "end": known.extent.map(|extent| extent.end.0),
            "last_stable_offset": known.extent.map(|extent| extent.last_stable.0),
            "records_at_most": known.records(),
            "fewer_records_by": known.fewer.iter().map(|one| one.name()).collect::<Vec<_>>(),
            "size_bytes": known.size,
            "replica_size_bytes":
                sizes.map(|(id, size)| (id.0.to_string(), json!(size))).collect::<Value>(),
        })
    };
    json!({
        "topic": &*topic.name,
        "id": topic.id.to_string(),
        "is_internal": topic.is_internal,
        "configs": configs.own,
        "broker_configs": configs.of_brokers,
        "partitions": topic.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

/// The sum, if all are known.
fn sum(mut numbers: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    numbers.try_fold(0_i64, |sum, number| Some(sum.saturating_add(number?)))
}

fn bytes(size: Option<i64>) -> Value {
    let size = size.and_then(|size| u64::try_from(size).ok());
    json!(size.map(|size| HumanBytes(size).to_string()))
}

fn write_topic(topic: &TopicInfo, facts: &Facts, configs: &Configs) -> CommandResult {
    let settings = |all: &BTreeMap<String, String>| {
        let set: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        set.join(" ")
    };
    let known: Vec<_> =
        topic.partitions.iter().map(|info| (info, facts.of(topic, info, configs))).collect();
    let reasons: BTreeSet<Fewer> = known.iter().flat_map(|(_, it)| it.fewer.clone()).collect();
    let counted = |records: Option<i64>, is_bound: bool| {
        json!(records.map(|count| if is_bound {
            format!("≤ {count}")
        } else {
            count.to_string()
        }))
    };
    let shown = |value: Value| value.as_str().unwrap_or("unknown").to_owned();
    let records = sum(known.iter().map(|(_, it)| it.records()));
    let size = sum(known.iter().map(|(_, it)| it.size));
    let mut line = format!(
        "{}  id {}  partitions {}  records {}  size {}",
        topic.name,
        topic.id,
        topic.partition_count(),
        shown(counted(records, !reasons.is_empty())),
        shown(bytes(size)),
    );
    for (what, all) in [("", &configs.own), ("of the brokers: ", &configs.of_brokers)] {
        if !all.is_empty() {
            line.push_str("  ");
            line.push_str(what);
            line.push_str(&settings(all));
        }
    }
    write_line(&line)?;
    let row = |(info, known): &(&PartitionInfo, PartitionFacts<'_>)| {
        vec![
            json!(info.partition),
            info.leader.map_or_else(|| json!("none"), |leader| json!(leader.0)),
            json!(info.leader_epoch.0),
            ids(&info.replicas),
            ids(&info.isr),
            ids(&info.offline),
            json!(known.extent.map(|extent| extent.start.0)),
            json!(known.extent.map(|extent| extent.end.0)),
            counted(known.records(), !known.fewer.is_empty()),
            bytes(known.size),
        ]
    };
    let rows: Vec<Vec<Value>> = known.iter().map(row).collect();
    let header = [
        "partition",
        "leader",
        "leader epoch",
        "replicas",
        "isr",
        "offline",
        "start",
        "end",
        "records",
        "size",
    ];
    write_rows(Format::Table, &header, &rows)?;
    if reasons.is_empty() {
        return Ok(());
    }
    let why: Vec<&str> = reasons.iter().map(|one| one.words()).collect();
    write_line(&format!("≤ at most: {}", why.join("; ")))
}
