//! `ottla cluster`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::CommandResult;
use super::options::{Connection, Format};
use super::output::{write_json, write_line, write_rows};
use crate::client::BrokerInfo;
use crate::error::ErrorCode;

#[derive(Debug, Subcommand)]
pub(super) enum ClusterCommand {
    /// Show brokers, controller, quorum and features.
    Describe(DescribeArguments),
}

#[derive(Debug, Args)]
pub(super) struct DescribeArguments {
    /// How to write the description.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: ClusterCommand) -> CommandResult {
    let ClusterCommand::Describe(arguments) = command;
    let admin = arguments.connection.client()?.admin();
    let cluster = admin.describe_cluster().await?;
    // Clusters with ZooKeeper have no quorum.
    let quorum = match admin.describe_quorum().await {
        Ok(quorum) => Some(quorum),
        Err(error) if error.code() == ErrorCode::UnsupportedVersion => None,
        Err(error) => return Err(error.into()),
    };
    let features = admin.describe_features().await?;
    if arguments.output == Format::Json {
        let broker = |info: &BrokerInfo| json!({"id": info.id.0, "host": info.host, "port": info.port, "rack": info.rack});
        let feature = |feature: &crate::client::admin::Feature| {
            json!({
                "name": feature.name,
                "supported": feature.supported.map(|(min, max)| [min, max]),
                "finalized": feature.finalized,
            })
        };
        return write_json(&json!({
            "cluster_id": cluster.cluster_id,
            "controller": cluster.controller.map(|id| id.0),
            "brokers": cluster.brokers.iter().map(broker).collect::<Vec<_>>(),
            "quorum": quorum.as_ref().map(|quorum| json!({
                "leader": quorum.leader.0,
                "leader_epoch": quorum.leader_epoch.0,
                "high_watermark": quorum.high_watermark.0,
                "voters": quorum.voters.iter().map(|voter| voter.id.0).collect::<Vec<_>>(),
                "observers": quorum.observers.iter().map(|node| node.id.0).collect::<Vec<_>>(),
            })),
            "features": features.iter().map(feature).collect::<Vec<_>>(),
        }));
    }
    write_line(&format!("cluster {}", cluster.cluster_id.as_deref().unwrap_or("without an id")))?;
    let rows: Vec<Vec<Value>> = cluster
        .brokers
        .iter()
        .map(|info| {
            let is_controller = cluster.controller == Some(info.id);
            let role = if is_controller { "controller" } else { "" };
            vec![json!(info.id.0), json!(info.address()), json!(info.rack), json!(role)]
        })
        .collect();
    write_rows(Format::Table, &["broker", "address", "rack", ""], &rows)?;
    if let Some(quorum) = quorum {
        write_line(&format!(
            "quorum: leader {} in epoch {}, {} committed, {} voters",
            quorum.leader,
            quorum.leader_epoch,
            quorum.high_watermark,
            quorum.voters.len()
        ))?;
    }
    for feature in features {
        let finalized =
            feature.finalized.map_or_else(|| "off".to_owned(), |level| level.to_string());
        write_line(&format!("feature {} {finalized}", feature.name))?;
    }
    Ok(())
}
