//! `ottla groups`.

use std::collections::{BTreeMap, BTreeSet};

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Value, json};

use super::options::{Connection, Format};
use super::output::{note, write_json, write_line, write_rows};
use super::{CommandResult, Failure};
use crate::client::Bound;
use crate::client::admin::{
    Admin, GroupDescription, GroupFilter, GroupMember, GroupPartition, PlannedOffset, ResetTo,
    TopicScope, all_or_first_error, total_lag,
};
use crate::error::Error;
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicPartition};

#[derive(Debug, Subcommand)]
pub(super) enum GroupsCommand {
    /// List the groups.
    List(ListArguments),
    /// Show offsets, lag and members.
    Describe(DescribeArguments),
    /// Set the committed offsets of a group without members; only shows what would change unless
    /// --execute is given.
    Reset(ResetArguments),
    /// Delete groups without members, or their offsets of a topic.
    Delete(DeleteArguments),
}

#[derive(Debug, Args)]
pub(super) struct ListArguments {
    /// Only groups in this state, for example Stable or Empty. May be given several times.
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    state: Vec<String>,
    /// Only groups of this type: classic or consumer.
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    types: Vec<String>,
    /// How to write the list.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

/// Groups, given with Kafka's `--group` or as plain arguments.
#[derive(Debug, Args)]
struct GroupNames {
    /// The groups.
    #[arg(value_name = "GROUP")]
    positional: Vec<String>,
    /// A group.
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
}

impl GroupNames {
    fn get(&self) -> Vec<&str> {
        self.positional.iter().chain(&self.group).map(String::as_str).collect()
    }
}

#[derive(Debug, Args)]
pub(super) struct DescribeArguments {
    #[command(flatten)]
    groups: GroupNames,
    /// Show the members with their partitions instead of offsets and lag.
    #[arg(long)]
    members: bool,
    /// How to write the description.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are the switches of a command")]
#[command(group(ArgGroup::new("to").required(true)))]
pub(super) struct ResetArguments {
    #[command(flatten)]
    groups: GroupNames,
    /// A topic, or some of its partitions as topic:0,1. May be given several times. Default: all
    /// topics for which the group has offsets.
    #[arg(long, value_name = "TOPIC[:PARTITIONS]")]
    topic: Vec<String>,
    /// To the first available record of each partition.
    #[arg(long, group = "to")]
    to_earliest: bool,
    /// To the end of each partition, after the last record.
    #[arg(long, group = "to")]
    to_latest: bool,
    /// Keep the current offsets, moved to the nearest available record where theirs is gone.
    #[arg(long, group = "to")]
    to_current: bool,
    /// To this offset.
    #[arg(long, group = "to", value_name = "OFFSET")]
    to_offset: Option<i64>,
    /// To the first record at or after a time, such as 2026-01-31T12:00:00Z.
    #[arg(long, group = "to", value_name = "TIME")]
    to_datetime: Option<String>,
    /// To the first record that is not older than this, such as 6h or PT6H.
    #[arg(long, group = "to", value_name = "DURATION")]
    by_duration: Option<String>,
    /// By this many offsets: forward, or back when negative.
    #[arg(long, group = "to", value_name = "COUNT", allow_hyphen_values = true)]
    shift_by: Option<i64>,
    /// Make the change.
    #[arg(long)]
    execute: bool,
    /// Only show what would change, which is the default.
    #[arg(long, conflicts_with = "execute")]
    dry_run: bool,
    /// How to write the changes.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArguments {
    #[command(flatten)]
    groups: GroupNames,
    /// Delete only the offsets of this topic, or of some of its partitions as topic:0,1.
    #[arg(long, value_name = "TOPIC[:PARTITIONS]")]
    topic: Vec<String>,
    #[command(flatten)]
    connection: Connection,
}

pub(super) async fn run(command: GroupsCommand) -> CommandResult {
    match command {
        GroupsCommand::List(arguments) => list(&arguments).await,
        GroupsCommand::Describe(arguments) => describe(&arguments).await,
        GroupsCommand::Reset(arguments) => reset(&arguments).await,
        GroupsCommand::Delete(arguments) => delete(&arguments).await,
    }
}

async fn list(arguments: &ListArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let filter = GroupFilter { states: arguments.state.clone(), types: arguments.types.clone() };
    let row = |group: crate::client::admin::GroupListing| {
        vec![
            json!(group.group_id),
            json!(group.state),
            json!(group.group_type),
            json!(group.coordinator.0),
        ]
    };
    let groups = admin.list_groups(&filter).await?;
    let rows: Vec<Vec<Value>> = groups.into_iter().map(row).collect();
    write_rows(arguments.output, &["group", "state", "type", "coordinator"], &rows)
}

async fn describe(arguments: &DescribeArguments) -> CommandResult {
    let admin = arguments.connection.client()?.admin();
    let listed = match arguments.groups.get() {
        named if named.is_empty() => {
            let all = admin.list_groups(&GroupFilter::default()).await?;
            all.into_iter().map(|group| group.group_id).collect()
        }
        named => named.into_iter().map(str::to_owned).collect::<Vec<String>>(),
    };
    let mut documents = Vec::new();
    for group in listed {
        let described = admin.describe_groups(&[group.as_str()]).await?;
        for described in all_or_first_error(described)? {
            let assigned: Vec<_> = described.members.iter().map(|one| &one.assignment).collect();
            let partitions = admin.group_partitions(&group, &assigned).await?;
            match arguments.output {
                Format::Json => documents.push(document(&described, &partitions)),
                Format::Table => write_group(&described, &partitions, arguments.members)?,
            }
        }
    }
    if arguments.output == Format::Json { write_json(&Value::Array(documents)) } else { Ok(()) }
}

fn text(partitions: &BTreeSet<TopicPartition>) -> String {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in partitions {
        topics.entry(&one.topic).or_default().push(one.partition.to_string());
    }
    let named = topics.into_iter().map(|(topic, of)| format!("{topic}:{}", of.join(",")));
    named.collect::<Vec<_>>().join(" ")
}

fn member_row(member: &GroupMember) -> Vec<Value> {
    vec![
        json!(member.member_id),
        json!(member.instance_id),
        json!(member.client_id),
        json!(member.host),
        json!(member.assignment.len()),
        json!(text(&member.assignment)),
    ]
}

const MEMBER_HEADER: [&str; 6] = ["member", "instance", "client", "host", "count", "partitions"];
const PARTITION_HEADER: [&str; 8] =
    ["topic", "partition", "committed offset", "log end offset", "lag", "member", "host", "client"];

fn partition_row(group: &GroupDescription, one: &GroupPartition) -> Vec<Value> {
    let member = one.member.and_then(|index| group.members.get(index));
    vec![
        json!(&*one.partition.topic),
        json!(one.partition.partition),
        json!(one.committed.as_ref().map(|it| it.offset.0)),
        json!(one.log_end_offset.0),
        json!(one.lag),
        json!(member.map(|member| member.member_id.as_str())),
        json!(member.map(|member| member.host.as_str())),
        json!(member.map(|member| member.client_id.as_str())),
    ]
}

fn document(group: &GroupDescription, partitions: &[GroupPartition]) -> Value {
    let object = |header: &[&str], row: Vec<Value>| -> Value {
        header.iter().map(|name| name.replace(' ', "_")).zip(row).collect()
    };
    let members = group.members.iter().map(|one| object(&MEMBER_HEADER, member_row(one)));
    let rows = partitions.iter().map(|one| object(&PARTITION_HEADER, partition_row(group, one)));
    json!({
        "group": group.group_id,
        "state": group.state,
        "type": group.group_type,
        "assignor": group.assignor,
        "epoch": (group.epoch >= 0).then_some(group.epoch),
        "coordinator": group.coordinator.0,
        "members": members.collect::<Vec<_>>(),
        "partitions": rows.collect::<Vec<_>>(),
    })
}

fn write_group(
    group: &GroupDescription,
    partitions: &[GroupPartition],
    members: bool,
) -> CommandResult {
    let assignor = match group.assignor.as_str() {
        "" => String::new(),
        name => format!("  assignor {name}"),
    };
    let lag = total_lag(partitions).map_or_else(|| "-".to_owned(), |lag| lag.to_string());
    write_line(&format!(
        "{}  {}  {}{assignor}  members {}  lag {lag}",
        group.group_id,
        group.state,
        group.group_type,
        group.members.len()
    ))?;
    if members {
        let rows: Vec<Vec<Value>> = group.members.iter().map(member_row).collect();
        return write_rows(Format::Table, &MEMBER_HEADER, &rows);
    }
    let rows: Vec<Vec<Value>> = partitions.iter().map(|one| partition_row(group, one)).collect();
    write_rows(Format::Table, &PARTITION_HEADER, &rows)
}

/// Reads `topic` or `topic:0,1`.
fn scope(topics: &[String]) -> Result<Option<TopicScope>, Failure> {
    let mut scope = TopicScope::new();
    for topic in topics {
        let Some((name, partitions)) = topic.rsplit_once(':') else {
            scope.insert(topic.clone(), None);
            continue;
        };
        let numbers =
            partitions.split(',').map(str::parse::<PartitionIndex>).collect::<Result<Vec<_>, _>>();
        let Ok(numbers) = numbers else {
            return Err(Failure::Usage(format!("{topic:?}: use TOPIC or TOPIC:0,1")));
        };
        let entry = scope.entry(name.to_owned());
        if let Some(chosen) = entry.or_insert_with(|| Some(BTreeSet::new())) {
            chosen.extend(numbers);
        }
    }
    Ok(Some(scope).filter(|scope| !scope.is_empty()))
}

impl ResetArguments {
    fn to(&self) -> Result<ResetTo, Failure> {
        if let Some(offset) = self.to_offset {
            return Ok(ResetTo::Offset(Offset(offset)));
        }
        if let Some(by) = self.shift_by {
            return Ok(ResetTo::Shift(by));
        }
        if let Some(time) = &self.to_datetime {
            return match Bound::parse(time)? {
                Bound::Timestamp(time) => Ok(ResetTo::Timestamp(time)),
                _ => Err(Failure::Usage(format!("--to-datetime {time:?} is not a time"))),
            };
        }
        if let Some(duration) = &self.by_duration {
            return ago(duration);
        }
        Ok(match (self.to_earliest, self.to_latest) {
            (true, _) => ResetTo::Earliest,
            (_, true) => ResetTo::Latest,
            _ => ResetTo::Current,
        })
    }
}

/// A duration ago: as in the other commands (`6h`), or as in Kafka's tool (`P1DT6H`).
fn ago(duration: &str) -> Result<ResetTo, Failure> {
    let usage = || Failure::Usage(format!("--by-duration {duration:?}: use 6h, 15min or PT6H"));
    let total_ms = if duration.starts_with(['P', 'p']) {
        iso_duration_ms(duration).ok_or_else(usage)?
    } else {
        match Bound::parse(&format!("-{}", duration.trim_start_matches('-')))? {
            Bound::Ago(total_ms) => i64::try_from(total_ms).unwrap_or(i64::MAX),
            _ => return Err(usage()),
        }
    };
    let now = TimestampMs(now_ms());
    Ok(ResetTo::Timestamp(TimestampMs(now.0.saturating_sub(total_ms))))
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Reads days, hours, minutes and seconds of ISO 8601: `P1DT2H30M5S`.
fn iso_duration_ms(text: &str) -> Option<i64> {
    let upper = text.to_ascii_uppercase();
    let body = upper.strip_prefix('P')?;
    let (days, times) = body.split_once('T').unwrap_or((body, ""));
    let mut total_ms = 0.0;
    let mut found = false;
    for (part, units) in [
        (days, &[('W', 604_800_000.0), ('D', 86_400_000.0)][..]),
        (times, &[('H', 3_600_000.0), ('M', 60_000.0), ('S', 1_000.0)][..]),
    ] {
        let mut rest = part;
        for &(letter, unit_ms) in units {
            if let Some((number, left)) = rest.split_once(letter) {
                total_ms += number.parse::<f64>().ok().filter(|it| *it >= 0.0)? * unit_ms;
                rest = left;
                found = true;
            }
        }
        if !rest.is_empty() {
            return None;
        }
    }
    #[expect(clippy::cast_possible_truncation, reason = "milliseconds of a duration people write")]
    let total_ms = total_ms as i64;
    found.then_some(total_ms)
}

async fn reset(arguments: &ResetArguments) -> CommandResult {
    let groups = arguments.groups.get();
    if groups.is_empty() {
        return Err(Failure::Usage("name the group to reset".to_owned()));
    }
    let (scope, to) = (scope(&arguments.topic)?, arguments.to()?);
    let admin = arguments.connection.client()?.admin();
    let mut rows = Vec::new();
    for group in groups {
        let plan = admin.plan_group_reset(group, scope.as_ref(), &to).await?;
        if arguments.execute {
            admin.reset_group(group, &plan).await?;
        }
        rows.extend(plan.iter().map(|(partition, planned)| planned_row(group, partition, planned)));
    }
    let header = ["group", "topic", "partition", "old offset", "new offset"];
    write_rows(arguments.output, &header, &rows)?;
    if !arguments.execute {
        note("nothing was changed; add --execute to make the change");
    }
    Ok(())
}

fn planned_row(group: &str, partition: &TopicPartition, planned: &PlannedOffset) -> Vec<Value> {
    vec![
        json!(group),
        json!(&*partition.topic),
        json!(partition.partition),
        json!(planned.from.map(|offset| offset.0)),
        json!(planned.to.0),
    ]
}

async fn delete(arguments: &DeleteArguments) -> CommandResult {
    let groups = arguments.groups.get();
    if groups.is_empty() {
        return Err(Failure::Usage("name the groups to delete".to_owned()));
    }
    let scope = scope(&arguments.topic)?;
    let admin = arguments.connection.client()?.admin();
    let mut failure = None;
    for group in groups {
        let (result, what) = match &scope {
            None => {
                let results = admin.delete_groups(&[group]).await?;
                (all_or_first_error(results).map(drop), format!("deleted group {group}"))
            }
            Some(scope) => (
                delete_offsets(&admin, group, scope).await,
                format!("deleted offsets of group {group}"),
            ),
        };
        match result {
            Ok(()) => write_line(&what)?,
            Err(error) => failure = Some(error),
        }
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

async fn delete_offsets(admin: &Admin, group: &str, scope: &TopicScope) -> Result<(), Error> {
    let known = admin.group_offsets(group, None).await?;
    let is_meant = |one: &TopicPartition| match scope.get(&*one.topic) {
        None => false,
        Some(None) => true,
        Some(Some(chosen)) => chosen.contains(&one.partition),
    };
    let chosen: Vec<TopicPartition> = known.into_keys().filter(is_meant).collect();
    if chosen.is_empty() {
        return Err(Error::invalid(format!("group {group} has no offsets of these topics")));
    }
    let results = admin.delete_group_offsets(group, &chosen).await?;
    all_or_first_error(results.into_values().collect()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_kafkas_tool_has_them() {
        for (text, wanted) in [
            ("PT6H", Some(21_600_000)),
            ("P1DT30M", Some(88_200_000)),
            ("PT1.5S", Some(1_500)),
            ("P", None),
            ("PT5X", None),
            ("P-1D", None),
        ] {
            assert_eq!(iso_duration_ms(text), wanted, "{text}");
        }
    }

    #[test]
    fn topics_may_name_partitions() {
        let read =
            |texts: &[&str]| scope(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert!(matches!(read(&[]), Ok(None)));
        let Ok(Some(found)) = read(&["a", "b:2,0", "b:1"]) else { panic!("it reads") };
        assert_eq!(found.get("a"), Some(&None));
        assert_eq!(found.get("b"), Some(&Some(PartitionIndex::all(3).collect())));
        assert!(read(&["b:x"]).is_err());
    }
}
