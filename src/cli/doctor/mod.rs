//! `ottla doctor`: why can a broker not be reached, and what is wrong between the nodes of its cluster?
//!
//! Follows a client's path step by step: the name, the connection, the versions, the addresses that
//! the brokers advertise (where most surprises are: a client uses the bootstrap address only once),
//! the nodes, one by one ([`nodes`]). Each step reports what it found; a failed one says what to do.

mod nodes;

use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::options::{Connection, Format};
use super::output::{write_json, write_line};
use super::{CommandResult, Failure};
use crate::client::{Client, ClientConfig};
use crate::error::{Error, ErrorCode};
use crate::types::NodeId;

#[derive(Debug, Args)]
pub(super) struct DoctorArguments {
    /// The broker; --bootstrap-server does the same.
    #[arg(value_name = "HOST:PORT")]
    address: Option<String>,
    /// How to write the findings.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// What one step found.
struct Finding {
    step: &'static str,
    is_good: bool,
    detail: String,
    remedy: Option<String>,
}

struct Findings {
    format: Format,
    list: Vec<Finding>,
}

impl Findings {
    fn good(&mut self, step: &'static str, detail: String) -> CommandResult {
        self.add(Finding { step, is_good: true, detail, remedy: None })
    }

    fn bad(&mut self, step: &'static str, detail: String, remedy: &str) -> CommandResult {
        self.add(Finding { step, is_good: false, detail, remedy: Some(remedy.to_owned()) })
    }

    /// Keeps a finding, and prints it at once in the format for people.
    fn add(&mut self, finding: Finding) -> CommandResult {
        if self.format == Format::Table {
            let mark = if finding.is_good { "ok  " } else { "FAIL" };
            write_line(&format!("{mark} {:<10} {}", finding.step, finding.detail))?;
            if let Some(remedy) = &finding.remedy {
                write_line(&format!("     {:<10} -> {remedy}", ""))?;
            }
        }
        self.list.push(finding);
        Ok(())
    }

    fn end(self) -> CommandResult {
        let is_good = self.list.iter().all(|finding| finding.is_good);
        if self.format == Format::Json {
            let one = |finding: &Finding| {
                json!({
                    "step": finding.step,
                    "ok": finding.is_good,
                    "detail": finding.detail,
                    "remedy": finding.remedy,
                })
            };
            let findings: Vec<Value> = self.list.iter().map(one).collect();
            write_json(&json!({"ok": is_good, "findings": findings}))?;
        }
        if is_good { Ok(()) } else { Err(Failure::Found) }
    }
}

pub(super) async fn run(arguments: DoctorArguments) -> CommandResult {
    let address = arguments.address.as_ref().unwrap_or(&arguments.connection.bootstrap_server);
    let mut findings = Findings { format: arguments.output, list: Vec::new() };
    for server in address.split(',').map(str::trim) {
        examine(server, &arguments, &mut findings).await?;
    }
    findings.end()
}

async fn examine(
    server: &str,
    arguments: &DoctorArguments,
    findings: &mut Findings,
) -> CommandResult {
    let mut config = arguments.connection.config()?;
    config.bootstrap_servers = ClientConfig::for_servers(server)?.bootstrap_servers;
    config.api_timeout = Duration::from_secs(5);
    config.connect_timeout = Duration::from_secs(5);
    config.request_timeout = Duration::from_secs(5);
    if !reach("name", server, findings).await? {
        return Ok(());
    }
    let client = Client::connect(config.clone())?;
    let admin = client.admin();
    match admin.describe_features().await {
        Ok(features) => {
            let level = features
                .iter()
                .find(|feature| feature.name == "metadata.version")
                .and_then(|feature| feature.finalized);
            let level =
                level.map_or_else(String::new, |level| format!(", metadata.version {level}"));
            findings.good("versions", format!("the broker speaks the Kafka protocol{level}"))?;
        }
        Err(error) => {
            let remedy = if is_silence(&error) {
                "the port is open, but nothing answers: is it a Kafka listener, and without TLS and \
                 SASL? If so, the broker hangs; see its log"
            } else {
                "check that this port is a Kafka listener. One with TLS or SASL does not understand \
                 plaintext requests; use a PLAINTEXT listener"
            };
            findings.bad("versions", error.chain(), remedy)?;
            return Ok(());
        }
    }
    let cluster = match admin.describe_cluster().await {
        Ok(cluster) => cluster,
        Err(error) => {
            // A broker that starts says what versions it speaks, and who leads the quorum; all other
            // requests wait.
            let quorum = admin.quorum_seen_by(NodeId::NONE).await;
            if let (true, Err(why)) = (is_silence(&error), quorum)
                && !is_silence(&why)
            {
                let remedy = "the broker waits for the metadata quorum, of which a majority has to \
                              see each other: start the other voters, and check the addresses in \
                              controller.quorum.voters and the network between them";
                findings.bad("quorum", why.chain(), remedy)?;
                return Ok(());
            }
            let remedy = if is_silence(&error) {
                "the broker tells its versions but answers nothing else yet: most likely it is still \
                 starting, since recovering logs after a crash may take minutes. Wait for its line \
                 `ready`, or see its log"
            } else {
                "check the broker's log"
            };
            findings.bad("metadata", error.chain(), remedy)?;
            return Ok(());
        }
    };
    let id = cluster.cluster_id.as_deref().unwrap_or("without an id").to_owned();
    findings.good("metadata", format!("cluster {id}, {} brokers", cluster.brokers.len()))?;
    for broker in &cluster.brokers {
        reach("advertised", &broker.address(), findings).await?;
    }
    nodes::examine(&client, &config, findings).await
}

/// Whether an answer did not come in time.
fn is_silence(error: &Error) -> bool {
    error.code() == ErrorCode::RequestTimedOut
}

/// Resolves a name and connects to its addresses.
async fn reach(
    step: &'static str,
    address: &str,
    findings: &mut Findings,
) -> Result<bool, Failure> {
    let resolved: Vec<_> = match tokio::net::lookup_host(address).await {
        Ok(resolved) => resolved.collect(),
        Err(error) => {
            let remedy = if step == "advertised" {
                "the broker advertises a name that this machine cannot resolve: set \
                 advertised.listeners to one that clients can"
            } else {
                "check the name, or use an IP address"
            };
            findings.bad(step, format!("{address} does not resolve: {error}"), remedy)?;
            return Ok(false);
        }
    };
    let mut is_reached = false;
    let mut failures = Vec::new();
    for socket in resolved {
        let start = Instant::now();
        let limit = Duration::from_secs(5);
        match tokio::time::timeout(limit, tokio::net::TcpStream::connect(socket)).await {
            Ok(Ok(_)) => {
                let ms = start.elapsed().as_millis();
                findings.good(step, format!("{address}: connected to {socket} in {ms} ms"))?;
                is_reached = true;
            }
            Ok(Err(error)) => failures.push(format!("{socket}: {error}")),
            Err(_) => failures.push(format!("{socket}: no answer within 5 s")),
        }
    }
    if !is_reached {
        let remedy = if step == "advertised" {
            "the bootstrap address works but the advertised one does not, so clients connect and then \
             hang: set advertised.listeners to an address that clients can reach"
        } else {
            "check that the broker runs and listens on this address. `localhost` may mean ::1 or \
             127.0.0.1; inside a container use its published port"
        };
        findings.bad(step, format!("{address}: {}", failures.join("; ")), remedy)?;
    }
    Ok(is_reached)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_step_fails_the_whole() {
        let mut findings = Findings { format: Format::Json, list: Vec::new() };
        findings.good("name", "fine".to_owned()).unwrap();
        assert!(findings.list.iter().all(|finding| finding.is_good));
        findings.bad("leaders", "none".to_owned(), "start them").unwrap();
        assert!(matches!(findings.end(), Err(Failure::Found)));
    }
}
