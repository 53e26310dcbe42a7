//! `ottla cluster describe` and `brokers`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Value, json};

use super::super::CommandResult;
use super::super::options::{Connection, Format};
use super::super::output::{write_json, write_line, write_rows};
use crate::client::TopicInfo;
use crate::client::admin::{Admin, ClusterState, Feature, QuorumDescription, RegisteredBroker};
use crate::error::{ErrorCode, Result};
use crate::types::NodeId;

#[derive(Debug, Args)]
pub(in crate::cli) struct Arguments {
    /// How to write the description.
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Format,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// The quorum; none where there is none (Apache Kafka with ZooKeeper).
async fn quorum(admin: &Admin) -> Result<Option<QuorumDescription>> {
    match admin.describe_quorum().await {
        Ok(quorum) => Ok(Some(quorum)),
        Err(error) if error.code() == ErrorCode::UnsupportedVersion => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a broker has.
#[derive(Clone, Copy, Default)]
struct Holdings {
    leads: usize,
    preferred: usize,
    replicas: usize,
    in_sync: usize,
}

fn holdings(topics: &[std::sync::Arc<TopicInfo>]) -> BTreeMap<NodeId, Holdings> {
    let mut holdings: BTreeMap<NodeId, Holdings> = BTreeMap::new();
    for info in topics.iter().flat_map(|topic| &topic.partitions) {
        if let Some(id) = &info.leader {
            holdings.entry(*id).or_default().leads += 1;
        }
        if let Some(id) = info.replicas.first() {
            holdings.entry(*id).or_default().preferred += 1;
        }
        for id in &info.replicas {
            holdings.entry(*id).or_default().replicas += 1;
        }
        for id in &info.isr {
            holdings.entry(*id).or_default().in_sync += 1;
        }
    }
    holdings
}

const fn state(broker: &RegisteredBroker) -> &'static str {
    match broker.fenced {
        Some(true) => "fenced",
        Some(false) => "active",
        None => "unknown",
    }
}

fn total(cluster: &ClusterState) -> usize {
    cluster.topics.iter().map(|topic| topic.partitions.len()).sum()
}

fn document(
    cluster: &ClusterState,
    quorum: Option<&QuorumDescription>,
    features: &[Feature],
) -> Value {
    let broker = |broker: &RegisteredBroker| {
        let info = &broker.info;
        json!({
            "id": info.id.0, "host": info.host, "port": info.port, "rack": info.rack,
            "fenced": broker.fenced,
        })
    };
    let feature = |feature: &Feature| {
        json!({
            "name": feature.name,
            "supported": feature.supported.map(|(min, max)| [min, max]),
            "finalized": feature.finalized,
        })
    };
    json!({
        "cluster_id": cluster.cluster_id,
        "controller": cluster.controller.map(|id| id.0),
        "brokers": cluster.brokers.iter().map(broker).collect::<Vec<_>>(),
        "quorum": quorum.map(|quorum| json!({
            "leader": quorum.leader.0,
            "leader_epoch": quorum.leader_epoch.0,
            "high_watermark": quorum.high_watermark.0,
            "voters": quorum.voters.iter().map(|voter| voter.id.0).collect::<Vec<_>>(),
            "observers": quorum.observers.iter().map(|node| node.id.0).collect::<Vec<_>>(),
        })),
        "partitions": {
            "total": total(cluster),
            "offline": cluster.offline().len(),
            "under_replicated": cluster.under_replicated().len(),
            "under_min_isr": cluster.under_min_isr().len(),
        },
        "features": features.iter().map(feature).collect::<Vec<_>>(),
    })
}

pub(super) async fn cluster(arguments: &Arguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let cluster = admin.cluster_state().await?;
    let quorum = quorum(&admin).await?;
    let features = admin.describe_features().await?;
    if arguments.output == Format::Json {
        return write_json(&document(&cluster, quorum.as_ref(), &features));
    }
    write_line(&format!("cluster {}", cluster.cluster_id.as_deref().unwrap_or("without an id")))?;
    let rows: Vec<Vec<Value>> = cluster
        .brokers
        .iter()
        .map(|broker| {
            let info = &broker.info;
            let role = if cluster.controller == Some(info.id) { "controller" } else { "" };
            let (id, address) = (info.id.0, info.address());
            vec![json!(id), json!(address), json!(info.rack), json!(state(broker)), json!(role)]
        })
        .collect();
    write_rows(Format::Table, &["broker", "address", "rack", "state", ""], &rows)?;
    if let Some(quorum) = quorum {
        write_line(&format!(
            "quorum: leader {} in epoch {}, {} committed, {} voters",
            quorum.leader,
            quorum.leader_epoch,
            quorum.high_watermark,
            quorum.voters.len()
        ))?;
    }
    write_line(&format!(
        "partitions: {}, {} without a leader, {} under-replicated, {} below min.insync.replicas",
        total(&cluster),
        cluster.offline().len(),
        cluster.under_replicated().len(),
        cluster.under_min_isr().len()
    ))?;
    for feature in features {
        let finalized =
            feature.finalized.map_or_else(|| "off".to_owned(), |level| level.to_string());
        write_line(&format!("feature {} {finalized}", feature.name))?;
    }
    Ok(())
}

pub(super) async fn brokers(arguments: &Arguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let brokers = admin.registered_brokers().await?;
    let holdings = holdings(&admin.all_topics().await?);
    let row = |broker: &RegisteredBroker| -> Vec<Value> {
        let info = &broker.info;
        let has = holdings.get(&info.id).copied().unwrap_or_default();
        vec![
            json!(info.id.0),
            json!(info.address()),
            json!(info.rack),
            json!(state(broker)),
            json!(has.leads),
            json!(has.preferred),
            json!(has.replicas),
            json!(has.in_sync),
        ]
    };
    let rows: Vec<_> = brokers.iter().map(row).collect();
    let header =
        ["broker", "address", "rack", "state", "leads", "preferred", "replicas", "in sync"];
    write_rows(arguments.output, &header, &rows)
}
