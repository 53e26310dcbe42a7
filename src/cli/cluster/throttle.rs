//! A limit for the copies of a move (`--throttle`), as `kafka-reassign-partitions --throttle` sets it: the replicas are
//! listed in the settings of their topics, and the rates are in those of the brokers.
//!
//! It is lifted when the copies are there; everything that was set before is set again. Where nobody waits for the
//! copies, or the command ends early, it stays until `ottla cluster reassign --unthrottle`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;

use super::super::CommandResult;
use super::super::options::Format;
use super::super::output::{ids, note, write_json, write_line};
use crate::client::admin::{Admin, ConfigChange, ConfigEntry, ConfigSource, Resource};
use crate::error::{ErrorCode, Result};
use crate::types::{NodeId, TopicPartition};

const LEADERS: &str = "leader.replication.throttled.replicas";
const FOLLOWERS: &str = "follower.replication.throttled.replicas";
const RATES: [&str; 2] =
    ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
/// A list of all replicas.
const ALL: &str = "*";

/// What a user does about a limit that is left behind.
const REMEDY: &str = "`ottla cluster reassign --unthrottle` lifts it";

/// A partition that is to be moved.
pub(super) struct Copied {
    pub(super) partition: TopicPartition,
    /// Who has it.
    pub(super) from: Vec<NodeId>,
    /// Who is to have it.
    pub(super) to: Vec<NodeId>,
}

/// A limit that was set, and what was there before.
#[derive(Default)]
pub(super) struct Throttle {
    /// What was added to the lists of a topic.
    lists: BTreeMap<String, Vec<(&'static str, Vec<String>)>>,
    /// The rates before, of each broker.
    rates: BTreeMap<NodeId, BTreeMap<String, ConfigChange>>,
}

/// The settings of a resource, as far as they are made for it.
async fn settings(
    admin: &Admin,
    resource: &Resource,
    source: ConfigSource,
) -> Result<BTreeMap<String, String>> {
    let described = admin.describe_configs(std::slice::from_ref(resource), false).await?;
    let entries = described.into_iter().next().transpose()?.unwrap_or_default();
    let own = entries.into_iter().filter(|entry| entry.source == source);
    Ok(own.map(|ConfigEntry { name, value, .. }| (name, value.unwrap_or_default())).collect())
}

fn names(list: Option<&String>) -> Vec<String> {
    let names = list.map_or("", String::as_str).split(',').map(str::trim);
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// What is to be listed of each topic: whoever may lead what is copied, and who copies it.
fn listed(moves: &[Copied]) -> BTreeMap<String, [Vec<String>; 2]> {
    let mut lists: BTreeMap<String, [Vec<String>; 2]> = BTreeMap::new();
    for Copied { partition, from, to } in moves {
        let index = partition.partition;
        let named = |id: &NodeId| format!("{index}:{id}");
        let [leaders, followers] = lists.entry(partition.topic.to_string()).or_default();
        leaders.extend(from.iter().map(named));
        followers.extend(to.iter().filter(|id| !from.contains(id)).map(named));
    }
    lists
}

impl Throttle {
    /// Limits what each of the brokers that take part sends and takes of these copies.
    pub(super) async fn begin(
        admin: &Admin,
        moves: &[Copied],
        active: &BTreeSet<NodeId>,
        bytes_per_second: u64,
    ) -> Result<Self> {
        let mut throttle = Self::default();
        match throttle.set(admin, moves, active, bytes_per_second).await {
            Ok(()) => Ok(throttle),
            Err(error) => {
                throttle.end(admin).await;
                Err(error)
            }
        }
    }

    async fn set(
        &mut self,
        admin: &Admin,
        moves: &[Copied],
        active: &BTreeSet<NodeId>,
        bytes_per_second: u64,
    ) -> Result<()> {
        for (topic, lists) in listed(moves) {
            let resource = Resource::topic(&*topic);
            let before = settings(admin, &resource, ConfigSource::Topic).await?;
            let mut changes = BTreeMap::new();
            for (setting, wanted) in [LEADERS, FOLLOWERS].into_iter().zip(lists) {
                let known = names(before.get(setting));
                let new: Vec<String> = wanted
                    .into_iter()
                    .filter(|name| !known.contains(name) && known != [ALL])
                    .collect();
                if !new.is_empty() {
                    changes.insert(setting.to_owned(), ConfigChange::Append(new.join(",")));
                    self.lists.entry(topic.clone()).or_default().push((setting, new));
                }
            }
            if !changes.is_empty() {
                admin.alter_configs(&resource, &changes, false).await?;
            }
        }
        let involved: BTreeSet<NodeId> =
            moves.iter().flat_map(|one| one.from.iter().chain(&one.to)).copied().collect();
        for id in involved.intersection(active) {
            let resource = Resource::broker(*id);
            let before = settings(admin, &resource, ConfigSource::DynamicBroker).await?;
            let restored = RATES.map(|rate| {
                let before = before.get(rate).cloned();
                (rate.to_owned(), before.map_or(ConfigChange::Delete, ConfigChange::Set))
            });
            let changes = RATES
                .map(|rate| (rate.to_owned(), ConfigChange::Set(bytes_per_second.to_string())));
            self.rates.insert(*id, restored.into());
            admin.alter_configs(&resource, &changes.into(), false).await?;
        }
        Ok(())
    }

    /// Lifts the limit. What cannot be lifted is told, and does not undo the move.
    pub(super) async fn end(self, admin: &Admin) {
        for (id, changes) in self.rates {
            let done = admin.alter_configs(&Resource::broker(id), &changes, false).await;
            tell(&format!("broker {id}"), done);
        }
        for (topic, lists) in self.lists {
            let done = Self::unlist(admin, &topic, lists).await;
            tell(&format!("topic {topic}"), done);
        }
    }

    async fn unlist(
        admin: &Admin,
        topic: &str,
        lists: Vec<(&'static str, Vec<String>)>,
    ) -> Result<()> {
        let resource = Resource::topic(topic);
        let now = settings(admin, &resource, ConfigSource::Topic).await?;
        let mut changes = BTreeMap::new();
        for (setting, ours) in lists {
            let is_ours = |name: &String| ours.contains(name);
            let change = if names(now.get(setting)).iter().all(is_ours) {
                ConfigChange::Delete
            } else {
                ConfigChange::Subtract(ours.join(","))
            };
            changes.insert(setting.to_owned(), change);
        }
        admin.alter_configs(&resource, &changes, false).await
    }

    /// Says that the limit stays.
    pub(super) fn stays() {
        note(&format!("the throttle stays: {REMEDY}"));
    }
}

fn tell(what: &str, done: Result<()>) {
    if let Err(error) = done {
        note(&format!("the throttle of {what} stays: {}; {REMEDY}", error.chain()));
    }
}

/// `--unthrottle`: lifts every limit, whoever set it.
pub(super) async fn lift_all(
    admin: &Admin,
    active: &BTreeSet<NodeId>,
    format: Format,
) -> CommandResult {
    let mut brokers = Vec::new();
    for id in active {
        if lift(admin, &Resource::broker(*id), ConfigSource::DynamicBroker, &RATES).await? {
            brokers.push(*id);
        }
    }
    let mut topics = Vec::new();
    for topic in admin.all_topics().await? {
        let resource = Resource::topic(&*topic.name);
        match lift(admin, &resource, ConfigSource::Topic, &[LEADERS, FOLLOWERS]).await {
            Ok(true) => topics.push(topic.name.to_string()),
            Ok(false) => {}
            // Deleted since it was listed.
            Err(error) if error.code() == ErrorCode::UnknownTopicOrPartition => {}
            Err(error) => return Err(error.into()),
        }
    }
    if format == Format::Json {
        return write_json(&json!({"brokers": ids(&brokers), "topics": topics}));
    }
    if brokers.is_empty() && topics.is_empty() {
        return write_line("nothing is throttled");
    }
    let brokers: Vec<String> = brokers.iter().map(ToString::to_string).collect();
    write_line(&format!(
        "lifted the throttles of brokers {} and topics {}",
        if brokers.is_empty() { "(none)".to_owned() } else { brokers.join(", ") },
        if topics.is_empty() { "(none)".to_owned() } else { topics.join(", ") },
    ))
}

/// Whether there was something to lift.
async fn lift(
    admin: &Admin,
    resource: &Resource,
    source: ConfigSource,
    names: &[&str],
) -> Result<bool> {
    let set = settings(admin, resource, source).await?;
    let set = names.iter().filter(|name| set.contains_key(**name));
    let changes: BTreeMap<String, ConfigChange> =
        set.map(|name| ((*name).to_owned(), ConfigChange::Delete)).collect();
    if changes.is_empty() {
        return Ok(false);
    }
    admin.alter_configs(resource, &changes, false).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_lead_and_whoever_copies_is_listed() {
        let of = |topic: &str, partition: i32, from: &[i32], to: &[i32]| Copied {
            partition: TopicPartition::new(topic, partition),
            from: from.iter().copied().map(NodeId).collect(),
            to: to.iter().copied().map(NodeId).collect(),
        };
        let moves =
            [of("a", 0, &[1, 2], &[2, 3]), of("a", 1, &[3], &[3]), of("b", 7, &[1], &[4, 5])];
        let lists = listed(&moves);
        assert_eq!(lists["a"][0], ["0:1", "0:2", "1:3"]);
        assert_eq!(lists["a"][1], ["0:3"]);
        assert_eq!(lists["b"], [vec!["7:1"], vec!["7:4", "7:5"]]);
    }
}
