//! What is wrong between the nodes of a cluster: each is asked itself, and the answers are compared.
//!
//! Why: a cluster is broken where its nodes do not see each other, and then each tells something else. Whoever asks
//! one of them only, as every client does, is told half of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::super::CommandResult;
use super::Findings;
use crate::client::admin::{NodeView, QuorumView, RegisteredBroker};
use crate::client::{BrokerInfo, Client, ClientConfig, PartitionInfo, TopicInfo};
use crate::error::{Error, Result};
use crate::types::NodeId;

/// After how much silence a voter is in trouble; it asks several times a second.
const SILENCE_MS: u64 = 3000;
/// How many partitions a finding names.
const NAMED_MAX: usize = 10;

/// The nodes, each with what it says, or why it says nothing.
type Views = BTreeMap<NodeId, (BrokerInfo, Result<NodeView>)>;

pub(super) async fn examine(
    client: &Client,
    config: &ClientConfig,
    findings: &mut Findings,
) -> CommandResult {
    let brokers = match client.admin().registered_brokers().await {
        Ok(brokers) => brokers,
        Err(error) => return findings.bad("brokers", error.chain(), "check the broker's log"),
    };
    let views = ask_all(&brokers, config).await;
    let Some((teller, view)) = freshest(&views) else {
        let text = "no node answers when it is asked itself".to_owned();
        return findings.bad("brokers", text, "check their logs");
    };
    taking_part(view.brokers.as_deref().unwrap_or(&brokers), &views, findings)?;
    if views.len() > 1 {
        quorum(teller, view, &views, findings)?;
    }
    match &view.topics {
        Ok(topics) => {
            partitions(topics, findings)?;
            copies(client, topics, findings).await
        }
        Err(error) => findings.bad("leaders", error.chain(), "check the broker's log"),
    }
}

/// Asks the nodes at the same time.
async fn ask_all(brokers: &[RegisteredBroker], config: &ClientConfig) -> Views {
    let asking = brokers.iter().map(async |broker| {
        let info = broker.info.clone();
        (info.id, (info.clone(), ask(&info, config.clone()).await))
    });
    futures::future::join_all(asking).await.into_iter().collect()
}

async fn ask(info: &BrokerInfo, mut config: ClientConfig) -> Result<NodeView> {
    config.bootstrap_servers = vec![info.address()];
    let limit = config.request_timeout;
    let admin = Client::connect(config)?.admin();
    let asked = tokio::time::timeout(limit * 3, admin.seen_by(NodeId::NONE)).await;
    asked.unwrap_or_else(|_| Err(Error::timeout("asking the node", limit * 3)))
}

/// The view of the node whose quorum has the newest leader.
fn freshest(views: &Views) -> Option<(NodeId, &NodeView)> {
    let answers = views.iter().filter_map(|(id, (_, view))| Some((*id, view.as_ref().ok()?)));
    answers.max_by_key(|(_, view)| view.quorum.as_ref().ok().map(|quorum| quorum.leader_epoch))
}

fn list<'a>(ids: impl IntoIterator<Item = &'a NodeId>) -> String {
    ids.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Whether all brokers take part.
fn taking_part(
    brokers: &[RegisteredBroker],
    views: &Views,
    findings: &mut Findings,
) -> CommandResult {
    let fenced: Vec<&RegisteredBroker> = brokers.iter().filter(|one| !one.is_active()).collect();
    if fenced.is_empty() {
        let ids = brokers.iter().map(|broker| &broker.info.id);
        return findings.good("brokers", format!("{} take part", list(ids)));
    }
    for broker in fenced {
        let (id, address) = (broker.info.id, broker.info.address());
        let answers = views.get(&id).is_some_and(|(_, view)| view.is_ok());
        let (detail, remedy) = if answers {
            (
                format!(
                    "broker {id} answers at {address}, but the controller does not hear from it: \
                     it is fenced and leads nothing"
                ),
                "its process runs, so it cannot reach the other nodes, or they it: check the \
                 network between them, and that the listener by which it advertises itself to \
                 brokers can be reached from their machines",
            )
        } else {
            (
                format!("broker {id} is registered, but fenced, and does not answer at {address}"),
                "start it; if it will not come back: `ottla cluster drain`, then `ottla cluster \
                 unregister`",
            )
        };
        findings.bad("brokers", detail, remedy)?;
    }
    Ok(())
}

/// Whether the nodes agree about who leads the metadata quorum, and the leader hears from its voters.
fn quorum(
    teller: NodeId,
    view: &NodeView,
    views: &Views,
    findings: &mut Findings,
) -> CommandResult {
    let newest = match &view.quorum {
        Ok(newest) => newest,
        Err(error) => {
            let detail = format!("node {teller} knows no leader: {}", error.chain());
            let remedy = "a majority of the voters has to see each other: start those that have \
                          stopped, and check the network between them";
            return findings.bad("quorum", detail, remedy);
        }
    };
    let (leader, epoch) = (newest.leader, newest.leader_epoch);
    let mut is_good = true;
    for (id, (info, view)) in views {
        let Ok(view) = view else { continue };
        let said = match &view.quorum {
            Ok(other) if (other.leader, other.leader_epoch) == (leader, epoch) => continue,
            Ok(other) => format!(
                "node {id} takes node {} for the leader, in epoch {}",
                other.leader, other.leader_epoch
            ),
            Err(error) => format!("node {id} does not find the leader: {}", error.chain()),
        };
        is_good = false;
        let detail = format!(
            "{said}; of node {teller}, node {leader} leads in epoch {epoch}: {id} does not see {leader}"
        );
        let remedy = format!(
            "check the connections from the machine of node {id} ({}) to node {leader}{}; `ottla \
             doctor` there tries them",
            info.address(),
            views
                .get(&leader)
                .map_or_else(String::new, |(info, _)| format!(" ({})", info.address()))
        );
        findings.bad("quorum", detail, &remedy)?;
    }
    is_good &= silent_voters(newest, views, findings)?;
    if is_good {
        let voters = list(newest.silences_ms.keys());
        let detail = format!("node {leader} leads in epoch {epoch}; {voters} vote and follow it");
        return findings.good("quorum", detail);
    }
    Ok(())
}

/// Tells of voters that the leader does not hear from; whether there are none.
fn silent_voters(
    quorum: &QuorumView,
    views: &Views,
    findings: &mut Findings,
) -> Result<bool, super::super::Failure> {
    let silences = quorum.silences_ms.iter().filter(|(id, _)| **id != quorum.leader);
    let silent: Vec<(NodeId, Option<u64>)> = silences
        .filter(|(_, silence)| silence.is_none_or(|ms| ms > SILENCE_MS))
        .map(|(id, silence)| (*id, *silence))
        .collect();
    let (all, majority) = (quorum.silences_ms.len(), quorum.silences_ms.len() / 2 + 1);
    let left = all - silent.len();
    for (id, silence) in &silent {
        let since = silence.map_or_else(
            || "never".to_owned(),
            |ms| format!("{:.1} s ago for the last time", Duration::from_millis(ms).as_secs_f64()),
        );
        let answers = views.get(id).is_some_and(|(_, view)| view.is_ok());
        let detail = format!(
            "the leader, node {}, has heard from voter {id} {since}; {left} of {all} voters are \
             there, {majority} are needed",
            quorum.leader
        );
        let remedy = if answers {
            format!("voter {id} runs: check the network from its machine to the leader")
        } else {
            format!("start node {id}")
        };
        findings.bad("quorum", detail, &remedy)?;
    }
    Ok(silent.is_empty())
}

/// Names some partitions.
fn names(partitions: &[String]) -> String {
    let some = partitions.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match partitions.len().saturating_sub(NAMED_MAX) {
        0 => some,
        more => format!("{some} and {more} more"),
    }
}

fn partitions_where(
    topics: &[Arc<TopicInfo>],
    holds: impl Fn(&TopicInfo, &PartitionInfo) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for topic in topics {
        let held = topic.partitions.iter().filter(|info| holds(topic, info));
        found.extend(held.map(|info| format!("{}-{}", topic.name, info.partition)));
    }
    found
}

/// Whether each partition has a leader.
fn partitions(topics: &[Arc<TopicInfo>], findings: &mut Findings) -> CommandResult {
    let leaderless = partitions_where(topics, |_, info| info.leader.is_none());
    if !leaderless.is_empty() {
        let detail = format!("without a leader: {}", names(&leaderless));
        return findings.bad("leaders", detail, "start the brokers that hold their replicas");
    }
    let total: usize = topics.iter().map(|topic| topic.partitions.len()).sum();
    let behind = partitions_where(topics, |_, info| info.isr.len() < info.replicas.len()).len();
    let detail = format!(
        "{} topics, {total} partitions, each with a leader; {behind} under-replicated",
        topics.len()
    );
    findings.good("leaders", detail)
}

/// Whether the copies are in sync, and enough of them for writes.
async fn copies(
    client: &Client,
    topics: &[Arc<TopicInfo>],
    findings: &mut Findings,
) -> CommandResult {
    let mut missing: BTreeMap<NodeId, BTreeSet<String>> = BTreeMap::new();
    for topic in topics {
        for info in &topic.partitions {
            for id in info.replicas.iter().filter(|id| !info.isr.contains(id)) {
                let name = format!("{}-{}", topic.name, info.partition);
                missing.entry(*id).or_default().insert(name);
            }
        }
    }
    for (id, partitions) in missing {
        let partitions: Vec<String> = partitions.into_iter().collect();
        let detail = format!("not in sync on broker {id}: {}", names(&partitions));
        let remedy = "a broker that has just started catches up; otherwise see above whether it \
                      takes part, and its log for what it cannot copy";
        findings.bad("copies", detail, remedy)?;
    }
    let named: Vec<&str> = topics.iter().map(|topic| &*topic.name).collect();
    let Ok(least) = client.admin().min_insync_replicas(&named).await else { return Ok(()) };
    let too_few = partitions_where(topics, |topic, info| {
        let least = least.get(&*topic.name).copied().unwrap_or(1);
        info.leader.is_some() && info.isr.len() < least.min(info.replicas.len())
    });
    if too_few.is_empty() {
        return Ok(());
    }
    let detail = format!(
        "fewer copies in sync than min.insync.replicas, so that acks=all is refused: {}",
        names(&too_few)
    );
    findings.bad("copies", detail, "start the brokers with the other copies")
}
