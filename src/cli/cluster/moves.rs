//! `ottla cluster reassign` and `drain`: moving partitions to other brokers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde_json::{Value, json};

use super::super::options::{Connection, Format};
use super::super::output::{ids, note, progress_bar, write_json, write_line, write_rows};
use super::super::{CommandResult, Failure};
use super::elect::is_fine;
use super::targets::{Target, all, chosen, nodes};
use super::throttle::{self, Copied, Throttle};
use crate::client::TopicInfo;
use crate::client::admin::{
    Admin, Election, PartitionReassignment, Placed, Placement, RegisteredBroker,
};
use crate::error::{Error, ErrorCode, Result};
use crate::types::{NodeId, TopicPartition};

/// How often it is asked what is left.
const POLL: Duration = Duration::from_millis(300);
/// How long brokers may take to know what the controller has decided.
const KNOWN_BY_ALL: Duration = Duration::from_secs(10);

/// How to wait for the copies.
#[derive(Debug, Args)]
struct Waiting {
    /// Only show what would be moved.
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until the replicas are where they are to be.
    #[arg(long)]
    no_wait: bool,
    /// How long to wait, in seconds; without it, until it is done.
    #[arg(long, value_name = "SECONDS", conflicts_with = "no_wait")]
    timeout: Option<u32>,
    /// Limit what each broker sends and takes of these copies, in bytes per second, until they are there.
    #[arg(long, value_name = "BYTES", conflicts_with = "dry_run",
          value_parser = clap::value_parser!(u64).range(1..))]
    throttle: Option<u64>,
    /// How to write what was moved.
    #[arg(long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct ReassignArguments {
    /// Topics or partitions to spread over the brokers, or partitions with the brokers that they are to have, the
    /// first of which is to lead.
    #[arg(value_name = "TOPIC[:PARTITION[=BROKER,…]]")]
    targets: Vec<Target>,
    /// Spread over these brokers; over all that take part when not given.
    #[arg(long, value_name = "BROKER,…", value_parser = Brokers::parse)]
    brokers: Option<Brokers>,
    /// How many replicas each partition is to have; as many as now when not given.
    #[arg(long, value_name = "COUNT")]
    replication_factor: Option<u16>,
    /// List what is being moved.
    #[arg(long, conflicts_with_all = ["targets", "brokers", "replication_factor", "cancel", "dry_run", "throttle"])]
    list: bool,
    /// Lift all throttles of replication, also those that kafka-reassign-partitions has set.
    #[arg(long, conflicts_with_all = ["targets", "brokers", "replication_factor", "list", "cancel", "dry_run", "throttle"])]
    unthrottle: bool,
    /// Stop what is being moved, of these partitions or of all, and return to the replicas before.
    #[arg(long, conflicts_with_all = ["brokers", "replication_factor", "throttle"])]
    cancel: bool,
    #[command(flatten)]
    waiting: Waiting,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DrainArguments {
    /// The broker.
    #[arg(value_name = "BROKER")]
    broker: i32,
    /// Where every other broker has a replica already, leave the partition with one replica less.
    #[arg(long)]
    fewer_replicas: bool,
    #[command(flatten)]
    waiting: Waiting,
}

/// A list of brokers in one argument.
#[derive(Clone, Debug)]
struct Brokers(Vec<NodeId>);

impl Brokers {
    fn parse(text: &str) -> std::result::Result<Self, String> {
        nodes(text).map(Self)
    }
}

/// The cluster as it is to be changed.
struct View {
    admin: Admin,
    brokers: Vec<RegisteredBroker>,
    topics: Vec<Arc<TopicInfo>>,
    /// All partitions, with the replicas that they will have when all moves are done.
    placed: Vec<Placed>,
    moves: BTreeMap<TopicPartition, PartitionReassignment>,
}

impl View {
    async fn of(admin: Admin) -> Result<Self> {
        let brokers = admin.registered_brokers().await?;
        let topics = admin.all_topics().await?;
        let moves = admin.list_partition_reassignments().await?;
        let mut placed = all(&topics);
        for one in &mut placed {
            if let Some(under_way) = moves.get(&one.partition) {
                one.replicas = under_way.target();
            }
        }
        Ok(Self { admin, brokers, topics, placed, moves })
    }

    /// A broker that there is.
    fn known(&self, id: NodeId) -> Result<&RegisteredBroker> {
        let unknown = || Error::no_broker(id, self.brokers.iter().map(|one| one.info.id));
        self.brokers.iter().find(|broker| broker.info.id == id).ok_or_else(unknown)
    }

    fn active(&self) -> BTreeSet<NodeId> {
        let active = self.brokers.iter().filter(|broker| broker.is_active());
        active.map(|broker| broker.info.id).collect()
    }

    /// What a plan has copied.
    fn copies(&self, plan: &[Placed]) -> Vec<Copied> {
        let from = |partition: &TopicPartition| {
            let topic = self.topics.iter().find(|topic| topic.name == partition.topic)?;
            Some(topic.partition(partition.partition)?.replicas.clone())
        };
        let copied = |one: &Placed| Copied {
            partition: one.partition.clone(),
            from: from(&one.partition).unwrap_or_default(),
            to: one.replicas.clone(),
        };
        plan.iter().map(copied).collect()
    }

    /// Those of a plan that change anything.
    fn changes(&self, plan: Vec<Placed>) -> Vec<Placed> {
        let now: BTreeMap<_, _> = self.placed.iter().map(|one| (&one.partition, one)).collect();
        plan.into_iter().filter(|one| now.get(&one.partition) != Some(&one)).collect()
    }

    /// Nobody can copy a partition that nobody leads.
    fn check_leaders(&self, plan: &[Placed]) -> CommandResult {
        let leads = |one: &&Placed| {
            let topic = self.topics.iter().find(|topic| topic.name == one.partition.topic);
            let info = topic.and_then(|topic| topic.partition(one.partition.partition));
            info.is_none_or(|info| info.leader.is_some())
        };
        match plan.iter().find(|one| !leads(one)) {
            None => Ok(()),
            Some(one) => {
                let text = format!(
                    "{} has no leader, so nobody can copy it: start the brokers that have its \
                     replicas first",
                    one.partition
                );
                Err(Error::told(ErrorCode::LeaderNotAvailable, text).into())
            }
        }
    }
}

pub(super) async fn reassign(arguments: &ReassignArguments) -> CommandResult {
    let view = View::of(arguments.waiting.connection.client()?.admin()).await?;
    if arguments.unthrottle {
        return throttle::lift_all(&view.admin, &view.active(), arguments.waiting.output).await;
    }
    if arguments.list {
        return list(arguments.waiting.output, &view.moves);
    }
    if arguments.cancel {
        return cancel(arguments, &view).await;
    }
    if arguments.targets.is_empty() {
        let text = "name topics or partitions to move, or use --list, --cancel or --unthrottle";
        return Err(Failure::Usage(text.to_owned()));
    }
    let plan = reassign_plan(arguments, &view).await?;
    let plan = view.changes(plan);
    if plan.is_empty() {
        note("nothing to move: all of them are there already, or on their way");
    }
    carry_out(&view, &plan, &arguments.waiting).await
}

async fn reassign_plan(arguments: &ReassignArguments, view: &View) -> Result<Vec<Placed>, Failure> {
    let (by_hand, to_spread): (Vec<_>, Vec<_>) =
        arguments.targets.iter().cloned().partition(|target| target.replicas.is_some());
    let meant = chosen(&view.admin, &view.topics, &by_hand).await?;
    let mut plan = Vec::new();
    for partition in meant {
        let targets = by_hand.iter().filter(|target| {
            *target.topic == *partition.topic && target.partition == Some(partition.partition)
        });
        let replicas: Vec<_> = targets.filter_map(|target| target.replicas.clone()).collect();
        let [replicas] = replicas.as_slice() else {
            return Err(Failure::Usage(format!("{partition} is named twice")));
        };
        for id in replicas {
            view.known(*id)?;
        }
        plan.push(Placed { partition, replicas: replicas.clone() });
    }
    if !plan.is_empty() && to_spread.is_empty() {
        if arguments.brokers.is_some() || arguments.replication_factor.is_some() {
            let text = "--brokers and --replication-factor are for partitions without brokers of \
                        their own";
            return Err(Failure::Usage(text.to_owned()));
        }
        return Ok(plan);
    }
    let targets: BTreeSet<NodeId> = match &arguments.brokers {
        None => view.active(),
        Some(Brokers(named)) => {
            for id in named {
                if !view.known(*id)?.is_active() {
                    let text = format!("broker {id} has stopped; start it before it gets replicas");
                    return Err(Error::told(ErrorCode::InvalidReplicaAssignment, text).into());
                }
            }
            named.iter().copied().collect()
        }
    };
    let wanted = chosen(&view.admin, &view.topics, &to_spread).await?;
    if let Some(twice) = plan.iter().find(|one| wanted.contains(&one.partition)) {
        return Err(Failure::Usage(format!("{} is named twice", twice.partition)));
    }
    let wanted: BTreeSet<_> = wanted.into_iter().collect();
    let placed = view.placed.iter().filter(|one| wanted.contains(&one.partition));
    let placed: Vec<Placed> = placed.cloned().collect();
    let factor = arguments.replication_factor.map(usize::from);
    let most = placed.iter().map(|one| factor.unwrap_or(one.replicas.len())).max().unwrap_or(0);
    if factor == Some(0) || most > targets.len() {
        let text = format!("{most} replicas do not fit {} brokers", targets.len());
        return Err(Failure::Usage(text));
    }
    plan.extend(Placement::new(&view.brokers, &targets, &view.placed).spread(&placed, factor));
    Ok(plan)
}

fn list(format: Format, moves: &BTreeMap<TopicPartition, PartitionReassignment>) -> CommandResult {
    let row = |(partition, one): (&TopicPartition, &PartitionReassignment)| -> Vec<Value> {
        vec![
            json!(&*partition.topic),
            json!(partition.partition),
            ids(&one.replicas),
            ids(&one.adding),
            ids(&one.removing),
        ]
    };
    let rows: Vec<_> = moves.iter().map(row).collect();
    if rows.is_empty() && format == Format::Table {
        return write_line("nothing is being moved");
    }
    write_rows(format, &["topic", "partition", "replicas", "adding", "removing"], &rows)
}

async fn cancel(arguments: &ReassignArguments, view: &View) -> CommandResult {
    if arguments.targets.iter().any(|target| target.replicas.is_some()) {
        let text = "--cancel returns to the replicas before; do not name any".to_owned();
        return Err(Failure::Usage(text));
    }
    let chosen = chosen(&view.admin, &view.topics, &arguments.targets).await?;
    let is_meant = |partition: &&TopicPartition| chosen.is_empty() || chosen.contains(partition);
    let meant: Vec<_> = view.moves.keys().filter(is_meant).cloned().collect();
    if !arguments.waiting.dry_run {
        let targets = meant.iter().map(|partition| (partition.clone(), None)).collect();
        let outcomes = view.admin.alter_partition_reassignments(&targets).await?;
        // What has arrived meanwhile can stay there.
        all_done(outcomes, |code| code == ErrorCode::NoReassignmentInProgress)?;
    }
    let rows: Vec<Vec<Value>> = meant
        .iter()
        .map(|partition| vec![json!(&*partition.topic), json!(partition.partition)])
        .collect();
    if rows.is_empty() && arguments.waiting.output == Format::Table {
        return write_line("nothing is being moved");
    }
    write_rows(arguments.waiting.output, &["topic", "cancelled partition"], &rows)
}

/// The first failure that is not to be passed over, if there is one.
fn all_done(
    outcomes: BTreeMap<TopicPartition, Result<()>>,
    is_fine: impl Fn(ErrorCode) -> bool,
) -> Result<()> {
    let failures = outcomes.into_values().filter_map(Result::err);
    failures.into_iter().find(|error| !is_fine(error.code())).map_or(Ok(()), Err)
}

/// Has partitions moved, waits, and writes what was moved.
async fn carry_out(view: &View, plan: &[Placed], waiting: &Waiting) -> CommandResult {
    if !waiting.dry_run && !plan.is_empty() {
        move_all(view, plan, waiting).await?;
    }
    if plan.is_empty() && waiting.output == Format::Table {
        return Ok(());
    }
    write_rows(waiting.output, &["topic", "partition", "before", "replicas"], &rows(view, plan))
}

fn rows(view: &View, plan: &[Placed]) -> Vec<Vec<Value>> {
    let before: BTreeMap<_, _> =
        view.placed.iter().map(|one| (&one.partition, ids(&one.replicas))).collect();
    let row = |one: &Placed| {
        vec![
            json!(&*one.partition.topic),
            json!(one.partition.partition),
            before.get(&one.partition).cloned().unwrap_or_default(),
            ids(&one.replicas),
        ]
    };
    plan.iter().map(row).collect()
}

/// Has partitions moved, at a limited rate if one is given, and waits unless nobody wants to.
async fn move_all(view: &View, plan: &[Placed], waiting: &Waiting) -> CommandResult {
    view.check_leaders(plan)?;
    let admin = &view.admin;
    let throttle = match waiting.throttle {
        Some(rate) => Some(Throttle::begin(admin, &view.copies(plan), &view.active(), rate).await?),
        None => None,
    };
    let begun = begin(admin, plan).await;
    if begun.is_ok() && waiting.no_wait {
        if throttle.is_some() {
            Throttle::stays();
        }
        return Ok(());
    }
    let done = match begun {
        // Some of them may be under way.
        Err(failure) => Err(failure),
        Ok(()) => wait(admin, plan, waiting.timeout).await,
    };
    match throttle {
        Some(throttle) if done.is_ok() => throttle.end(admin).await,
        Some(_) => Throttle::stays(),
        None => {}
    }
    done
}

async fn begin(admin: &Admin, plan: &[Placed]) -> CommandResult {
    let targets = plan.iter().map(|one| (one.partition.clone(), Some(one.replicas.clone())));
    let outcomes = admin.alter_partition_reassignments(&targets.collect()).await?;
    Ok(all_done(outcomes, |_| false)?)
}

/// Waits until partitions are where they are to be, and their preferred replicas lead.
async fn wait(admin: &Admin, plan: &[Placed], timeout: Option<u32>) -> CommandResult {
    let bar = progress_bar(plan.len() as u64, "partitions");
    let limit = timeout.map(|seconds| Duration::from_secs(seconds.into()));
    let arriving = arrive(admin, plan, &bar);
    let arrived = match limit {
        None => arriving.await,
        Some(limit) => match tokio::time::timeout(limit, arriving).await {
            Ok(arrived) => arrived,
            Err(_) => {
                bar.finish_and_clear();
                let left = admin.list_partition_reassignments().await?;
                let left = plan.iter().filter(|one| left.contains_key(&one.partition)).count();
                let text = format!(
                    "{left} of {} partitions are still being copied; this goes on: see `ottla \
                     cluster reassign --list`, or stop it with --cancel",
                    plan.len()
                );
                return Err(Error::told(ErrorCode::RequestTimedOut, text).into());
            }
        },
    };
    bar.finish_and_clear();
    arrived?;
    let partitions = plan.iter().map(|one| one.partition.clone()).collect();
    let elected = admin.elect_leaders(Election::Preferred, Some(&partitions)).await?;
    let late = elected.values().filter(|outcome| !is_fine(outcome)).count();
    if late > 0 {
        note(&format!("{late} preferred leaders are not in sync yet; see `ottla cluster elect`"));
    }
    Ok(())
}

async fn arrive(admin: &Admin, plan: &[Placed], bar: &ProgressBar) -> Result<()> {
    loop {
        let moves = admin.list_partition_reassignments().await?;
        let left = plan.iter().filter(|one| moves.contains_key(&one.partition)).count();
        bar.set_position((plan.len() - left) as u64);
        if left == 0 {
            break;
        }
        tokio::time::sleep(POLL).await;
    }
    let begin = tokio::time::Instant::now();
    loop {
        let now = all(&admin.all_topics().await?);
        let now: BTreeMap<_, _> = now.iter().map(|one| (&one.partition, one)).collect();
        // A topic that was deleted meanwhile need not be anywhere.
        let elsewhere = |one: &&Placed| now.get(&one.partition).is_some_and(|found| found != one);
        let Some(one) = plan.iter().find(elsewhere) else { return Ok(()) };
        // A broker that is asked may not know yet what the controller has done.
        if begin.elapsed() > KNOWN_BY_ALL {
            let text = format!(
                "{} is not where it was to go: somebody has cancelled or changed the move",
                one.partition
            );
            return Err(Error::told(ErrorCode::NoReassignmentInProgress, text));
        }
        tokio::time::sleep(POLL).await;
    }
}

pub(super) async fn drain(arguments: &DrainArguments) -> CommandResult {
    let (broker, waiting) = (NodeId(arguments.broker), &arguments.waiting);
    let admin = waiting.connection.client()?.admin();
    let mut moved = Vec::new();
    let mut done = BTreeMap::new();
    // Topics that are created meanwhile may get replicas there.
    loop {
        let mut view = View::of(admin.clone()).await?;
        // The broker that was asked may be behind.
        for one in &mut view.placed {
            if let Some(replicas) = done.get(&one.partition) {
                one.replicas.clone_from(replicas);
            }
        }
        view.known(broker)?;
        let plan = drain_plan(arguments, &view).await?;
        if plan.is_empty() {
            // What is on its way from an earlier command is to arrive, too.
            let leaving = view.moves.iter().filter(|(partition, one)| {
                one.replicas.contains(&broker) && !done.contains_key(*partition)
            });
            let leaving: Vec<Placed> = leaving
                .map(|(partition, one)| Placed {
                    partition: partition.clone(),
                    replicas: one.target(),
                })
                .collect();
            if leaving.is_empty() || waiting.no_wait || waiting.dry_run {
                break;
            }
            wait(&admin, &leaving, waiting.timeout).await?;
            done.extend(leaving.into_iter().map(|one| (one.partition, one.replicas)));
            continue;
        }
        moved.extend(rows(&view, &plan));
        if waiting.dry_run {
            break;
        }
        move_all(&view, &plan, waiting).await?;
        if waiting.no_wait {
            break;
        }
        done.extend(plan.into_iter().map(|one| (one.partition, one.replicas)));
    }
    report_drained(&admin, broker, &moved, waiting).await
}

async fn report_drained(
    admin: &Admin,
    broker: NodeId,
    moved: &[Vec<Value>],
    waiting: &Waiting,
) -> CommandResult {
    let is_voter = admin
        .describe_quorum()
        .await
        .is_ok_and(|quorum| quorum.voters.iter().any(|voter| voter.id == broker));
    if waiting.output == Format::Json {
        let row = |row: &Vec<Value>| {
            let names = ["topic", "partition", "before", "replicas"];
            names.into_iter().map(str::to_owned).zip(row.iter().cloned()).collect::<Value>()
        };
        return write_json(&json!({
            "broker": broker.0,
            "is_empty": !waiting.dry_run && !waiting.no_wait,
            "is_voter": is_voter,
            "moved": moved.iter().map(row).collect::<Vec<_>>(),
        }));
    }
    if !moved.is_empty() {
        write_rows(Format::Table, &["topic", "partition", "before", "replicas"], moved)?;
    }
    if waiting.dry_run || waiting.no_wait {
        return Ok(());
    }
    write_line(&format!(
        "broker {broker} has no replicas any more: it can be stopped, then `ottla cluster unregister \
         {broker}` forgets it"
    ))?;
    if is_voter {
        write_line(&format!(
            "it still votes in the metadata quorum: `ottla cluster voters remove {broker}` before it is stopped for good"
        ))?;
    }
    Ok(())
}

async fn drain_plan(arguments: &DrainArguments, view: &View) -> Result<Vec<Placed>, Failure> {
    let broker = NodeId(arguments.broker);
    let mut targets = view.active();
    targets.remove(&broker);
    let plan = Placement::new(&view.brokers, &targets, &view.placed).without(broker, &view.placed);
    let counts: BTreeMap<_, _> =
        view.placed.iter().map(|one| (&one.partition, one.replicas.len())).collect();
    let is_shorter = |one: &&Placed| counts.get(&one.partition) > Some(&one.replicas.len());
    let shorter: Vec<&Placed> = plan.iter().filter(is_shorter).collect();
    let Some(first) = shorter.first() else { return Ok(plan) };
    let refuse = |text| Err(Failure::Error(Error::told(ErrorCode::InvalidReplicaAssignment, text)));
    if !arguments.fewer_replicas || first.replicas.is_empty() {
        return refuse(format!(
            "no broker can take the replicas of {} partitions, for example of {}, since all others \
             have one already or have stopped: start another broker{}",
            shorter.len(),
            first.partition,
            if first.replicas.is_empty() {
                ""
            } else {
                ", or pass --fewer-replicas to leave them with one replica less"
            }
        ));
    }
    let names: BTreeSet<&str> = shorter.iter().map(|one| &*one.partition.topic).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let least = view.admin.min_insync_replicas(&names).await?;
    for one in shorter {
        let least = least.get(&*one.partition.topic).copied().unwrap_or(1);
        if one.replicas.len() < least {
            return refuse(format!(
                "{} would have {} replicas, fewer than its min.insync.replicas of {least}: start \
                 another broker, or lower the setting first",
                one.partition,
                one.replicas.len(),
            ));
        }
    }
    Ok(plan)
}
