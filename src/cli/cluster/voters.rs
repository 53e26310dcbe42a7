//! `ottla cluster voters`: who votes in the metadata quorum.

use clap::Args;
use serde_json::{Value, json};

use super::super::options::{Connection, Format};
use super::super::output::{write_json, write_line, write_rows};
use super::super::{CommandResult, Failure};
use super::describe::Arguments;
use crate::client::admin::{Admin, QuorumDescription, QuorumReplica, RaftVoterEndpoint};
use crate::error::{Error, ErrorCode, Result};
use crate::types::{NodeId, TimestampMs, Uuid};

/// The listener of an endpoint that names none.
const LISTENER: &str = "PLAINTEXT";

#[derive(Debug, Args)]
pub(in crate::cli) struct AddArguments {
    #[command(flatten)]
    who: Who,
    /// Where the other voters reach the node, for example 10.0.0.4:9092 or CONTROLLER://10.0.0.4:9093; may be given
    /// several times. Where the cluster says that the node listens, when not given.
    #[arg(long = "endpoint", value_name = "[LISTENER://]HOST:PORT", value_parser = endpoint)]
    endpoints: Vec<RaftVoterEndpoint>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct RemoveArguments {
    #[command(flatten)]
    who: Who,
}

/// A node of the metadata quorum.
#[derive(Debug, Args)]
struct Who {
    /// The node.
    #[arg(value_name = "NODE")]
    node: i32,
    /// The id of its log directory, as `ottla cluster voters describe` shows it; what the quorum knows of the node
    /// when not given.
    #[arg(long, value_name = "ID", value_parser = directory_id)]
    directory_id: Option<Uuid>,
    /// How to write the outcome.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

fn directory_id(text: &str) -> std::result::Result<Uuid, String> {
    let id = Uuid::parse(text).filter(|id| *id != Uuid::ZERO);
    id.ok_or_else(|| "it is not the id of a directory, which has 22 characters".to_owned())
}

fn endpoint(text: &str) -> std::result::Result<RaftVoterEndpoint, String> {
    let (listener, address) = text.split_once("://").unwrap_or((LISTENER, text));
    let split = address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
    match split {
        Some((host, port)) if !host.is_empty() && !listener.is_empty() && port != 0 => {
            // An IPv6 address is in brackets only where a port follows.
            let host = host.trim_start_matches('[').trim_end_matches(']');
            Ok(RaftVoterEndpoint { listener: listener.to_owned(), host: host.to_owned(), port })
        }
        _ => Err("use HOST:PORT or LISTENER://HOST:PORT".to_owned()),
    }
}

/// The nodes of a quorum, for an error.
fn named(replicas: &[QuorumReplica]) -> String {
    let ids: Vec<String> = replicas.iter().map(|replica| replica.id.to_string()).collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}

fn voter(quorum: &QuorumDescription, id: NodeId) -> Option<&QuorumReplica> {
    quorum.voters.iter().find(|voter| voter.id == id)
}

/// The directory with which a node follows the quorum. Of several that one was heard of last: the others were lost.
fn directory_of_observer(quorum: &QuorumDescription, id: NodeId) -> Result<Uuid> {
    let of_node = quorum.observers.iter().filter(|observer| observer.id == id);
    let Some(observer) = of_node.max_by_key(|observer| observer.last_fetch) else {
        let text = format!(
            "node {id} does not follow the metadata quorum (voters: {}; observers: {}): start it with --join first",
            named(&quorum.voters),
            named(&quorum.observers)
        );
        return Err(Error::told(ErrorCode::BrokerIdNotRegistered, text));
    };
    observer.directory_id.ok_or_else(|| {
        let text = format!(
            "the cluster does not tell the directory of node {id}: name it with --directory-id"
        );
        Error::told(ErrorCode::InvalidRequest, text)
    })
}

pub(super) async fn add(arguments: &AddArguments) -> CommandResult {
    let who = &arguments.who;
    let (id, admin) = (NodeId(who.node), who.connection.client()?.admin());
    let quorum = admin.describe_quorum().await?;
    if let Some(known) = voter(&quorum, id) {
        return Err(votes_already(&quorum, known).into());
    }
    let directory_id = match who.directory_id {
        Some(given) => given,
        None => directory_of_observer(&quorum, id)?,
    };
    let endpoints = if arguments.endpoints.is_empty() {
        quorum.endpoints.get(&id).cloned().unwrap_or_default()
    } else {
        arguments.endpoints.clone()
    };
    if endpoints.is_empty() {
        // Apache Kafka tells it of voters only.
        let text =
            format!("the cluster does not tell where node {id} listens: name it with --endpoint");
        return Err(Failure::Usage(text));
    }
    admin.add_raft_voter(id, directory_id, &endpoints).await?;
    report(&admin, who, directory_id, "votes in the metadata quorum").await
}

fn votes_already(quorum: &QuorumDescription, known: &QuorumReplica) -> Error {
    let id = known.id;
    let is_other = |one: &&QuorumReplica| one.id == id && one.directory_id != known.directory_id;
    let text = if quorum.observers.iter().any(|one| is_other(&one)) {
        format!(
            "node {id} votes with a directory that it has no more: `ottla cluster voters remove {id}` first, then add \
             it again"
        )
    } else {
        format!("node {id} votes already")
    };
    Error::told(ErrorCode::DuplicateVoter, text)
}

pub(super) async fn remove(arguments: &RemoveArguments) -> CommandResult {
    let who = &arguments.who;
    let (id, admin) = (NodeId(who.node), who.connection.client()?.admin());
    let quorum = admin.describe_quorum().await?;
    let Some(known) = voter(&quorum, id) else {
        let text = format!(
            "node {id} is no voter of the metadata quorum; the voters are {}",
            named(&quorum.voters)
        );
        return Err(Error::told(ErrorCode::VoterNotFound, text).into());
    };
    if quorum.voters.len() == 1 {
        let text = format!(
            "node {id} is the only voter: without it there is no quorum; add another first, with `ottla cluster voters \
             add`"
        );
        return Err(Error::told(ErrorCode::VoterNotFound, text).into());
    }
    let Some(directory_id) = who.directory_id.or(known.directory_id) else {
        let text = format!(
            "the cluster does not tell the directory of node {id}: name it with --directory-id"
        );
        return Err(Failure::Usage(text));
    };
    admin.remove_raft_voter(id, directory_id).await?;
    report(&admin, who, directory_id, "does not vote in the metadata quorum any more").await
}

/// Writes what was done, and who votes now.
async fn report(admin: &Admin, who: &Who, directory_id: Uuid, done: &str) -> CommandResult {
    let quorum = admin.describe_quorum().await?;
    if who.output == Format::Json {
        let ids =
            |replicas: &[QuorumReplica]| replicas.iter().map(|one| one.id.0).collect::<Vec<_>>();
        return write_json(&json!({
            "node": who.node,
            "directory_id": directory_id.to_string(),
            "voters": ids(&quorum.voters),
            "observers": ids(&quorum.observers),
        }));
    }
    write_line(&format!("node {} {done}; the voters are {}", who.node, named(&quorum.voters)))?;
    if quorum.voters.len() == 2 {
        write_line(
            "with two voters, both are needed: a third lets the quorum go on without one of them",
        )?;
    }
    Ok(())
}

pub(super) async fn describe(arguments: &Arguments) -> CommandResult {
    let quorum = arguments.connection.client()?.admin().describe_quorum().await?;
    let leader = quorum.voters.iter().find(|voter| voter.id == quorum.leader);
    let end = leader.map_or(quorum.high_watermark, |leader| leader.log_end_offset);
    // The times are of the leader's clock, and its own time is that of the answer.
    let now = leader.map(|leader| leader.last_caught_up).filter(|now| now.0 >= 0);
    let since = |time: TimestampMs| {
        now.filter(|_| time.0 >= 0).map(|now| now.0.saturating_sub(time.0).max(0))
    };
    let row = |replica: &QuorumReplica, role: &str| -> Vec<Value> {
        let is_leader = replica.id == quorum.leader;
        vec![
            json!(replica.id.0),
            json!(if is_leader { "leader" } else { role }),
            json!(replica.directory_id.map(|id| id.to_string())),
            json!(replica.log_end_offset.0),
            json!(end.0 - replica.log_end_offset.0),
            json!(if is_leader { None } else { since(replica.last_fetch) }),
            json!(if is_leader { None } else { since(replica.last_caught_up) }),
        ]
    };
    let voters = quorum.voters.iter().map(|replica| row(replica, "voter"));
    let observers = quorum.observers.iter().map(|replica| row(replica, "observer"));
    let rows: Vec<_> = voters.chain(observers).collect();
    if arguments.output == Format::Table {
        write_line(&format!(
            "leader {} in epoch {}, {} committed",
            quorum.leader, quorum.leader_epoch, quorum.high_watermark
        ))?;
    }
    let header =
        ["node", "role", "directory id", "log end", "lag", "ms since fetch", "ms since caught up"];
    write_rows(arguments.output, &header, &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_have_a_host_and_a_port() {
        let read = |text| endpoint(text).map(|one| (one.listener, one.host, one.port));
        let told =
            |listener: &str, host: &str, port| Ok((listener.to_owned(), host.to_owned(), port));
        assert_eq!(read("h:9092"), told("PLAINTEXT", "h", 9092));
        assert_eq!(read("CONTROLLER://[::1]:9093"), told("CONTROLLER", "::1", 9093));
        for wrong in ["", "h", "h:", ":1", "h:0", "h:70000", "://h:1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_directory_is_that_of_which_something_was_heard_last() {
        let observer = |id, byte, last_fetch| QuorumReplica {
            id: NodeId(id),
            directory_id: Some(Uuid([byte; 16])),
            log_end_offset: crate::types::Offset(1),
            last_fetch: TimestampMs(last_fetch),
            last_caught_up: TimestampMs(-1),
        };
        let quorum = QuorumDescription {
            leader: NodeId(1),
            leader_epoch: crate::types::LeaderEpoch(1),
            high_watermark: crate::types::Offset(1),
            voters: vec![observer(1, 1, 9)],
            observers: vec![observer(2, 2, 7), observer(2, 3, -1), observer(3, 4, 9)],
            endpoints: std::collections::BTreeMap::new(),
        };
        assert_eq!(directory_of_observer(&quorum, NodeId(2)).unwrap(), Uuid([2; 16]));
        let refused = directory_of_observer(&quorum, NodeId(4)).unwrap_err().to_string();
        assert!(refused.contains("observers: 2, 2, 3") && refused.contains("--join"), "{refused}");
    }
}
