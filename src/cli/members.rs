//! `ottla consume --group`: reading as a member of a group.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use tokio::time::Instant;

use super::output::note;
use super::read::ConsumeArguments;
use super::signals::Signals;
use super::taking::{Letters, Patience, Taken};
use super::{CommandResult, Failure};
use crate::client::{
    AutoOffsetReset, Client, GroupConsumer, GroupOptions, GroupProtocol, PollOptions, Polled,
    Subscription,
};
use crate::error::{Error, ErrorCode};
use crate::types::TopicPartition;

/// How long telling how many members there are may hold up reading.
const COUNTING_MAX: Duration = Duration::from_secs(2);

const ENDS_HERE: &str =
    "the output ends here, so that what it has can be committed before others read it";
const LOST: &str = "partitions were lost before the output was complete: nothing of it is committed, and others read the \
                    same records again";

pub(super) async fn consume(arguments: &ConsumeArguments, group: &str) -> CommandResult {
    let reading = &arguments.reading;
    if !reading.partitions.is_empty() {
        let detail = "a group assigns the partitions itself; omit either --partition or --group";
        return Err(Failure::Usage(detail.to_owned()));
    }
    let topics = Subscription::Topics(vec![reading.topic.get()?.to_owned()]);
    let mut options = GroupOptions::new(group, topics);
    options.protocol = GroupProtocol::parse(&arguments.group_protocol)?;
    let decode = reading.decode(arguments.output)?;
    let client = reading.client()?;
    let letters = reading.letters(&client).await?;
    let mut config = client.config().consumer.clone();
    if arguments.from_beginning {
        config.auto_offset_reset = Some(AutoOffsetReset::Earliest);
    }
    let members = Members { client: &client, group };
    note(&format!("joining group {group}{}", members.before().await));
    let mut consumer = client.group_consumer_with(config, options, decode)?;
    let written = write_rows(arguments, &members, &mut consumer, letters).await;
    let closed = consumer.close().await;
    written.and(closed.map_err(Failure::from))
}

/// The members of a group, for people.
struct Members<'a> {
    client: &'a Client,
    group: &'a str,
}

impl Members<'_> {
    /// How many there are; none where the coordinator does not say so soon.
    async fn count(&self) -> Option<usize> {
        let (admin, names) = (self.client.admin(), [self.group]);
        let described = tokio::time::timeout(COUNTING_MAX, admin.describe_groups(&names)).await;
        match described.ok()?.ok()?.into_iter().next()? {
            Ok(group) => Some(group.members.len()),
            Err(error) if error.code() == ErrorCode::GroupIdNotFound => Some(0),
            Err(_) => None,
        }
    }

    /// Before this one joins.
    async fn before(&self) -> String {
        self.count().await.map_or_else(String::new, |count| match count {
            0 => ", which has no members".to_owned(),
            1 => ", which has 1 member".to_owned(),
            count => format!(", which has {count} members"),
        })
    }

    /// With this one.
    async fn now(&self) -> String {
        let group = self.group;
        self.count().await.map_or_else(String::new, |count| match count {
            1 => format!("; group {group} has 1 member"),
            count => format!("; group {group} has {count} members"),
        })
    }
}

/// Writes what arrives, and commits it once it is in the file: a batch at a time, or, in a format
/// that is nothing before its end, at the end. SIGINT and SIGTERM are such an end.
async fn write_rows(
    arguments: &ConsumeArguments,
    members: &Members<'_>,
    consumer: &mut GroupConsumer,
    mut letters: Letters,
) -> CommandResult {
    let reading = &arguments.reading;
    let mut writer = reading.writer(arguments.output)?;
    let mut left = reading.max_messages.unwrap_or(u64::MAX);
    let mut patience = Patience::new(arguments.timeout_ms);
    let mut changed_at = Instant::now();
    let mut done = BTreeMap::new();
    let mut signals = Signals::listen()?;
    let mut ended = Ok(());
    while left > 0 {
        let max_wait = patience.max_wait();
        let polled = tokio::select! {
            biased;
            () = signals.wait() => break,
            polled = consumer.poll(PollOptions { max_wait, fill: false }) => polled?,
        };
        match polled {
            Some(Polled::Batch(decoded)) => {
                let taken = Taken::of(decoded, left);
                letters.send(&taken).await?;
                writer.write(&taken.rows)?;
                done.extend(taken.ends());
                if writer.persist()? {
                    consumer.handle().commit(&std::mem::take(&mut done)).await?;
                }
                tracing::debug!(rows = taken.rows.num_rows(), "rows taken over");
                left = left.saturating_sub(taken.rows.num_rows() as u64);
                patience.restart();
                changed_at = Instant::now();
            }
            Some(Polled::Assigned(partitions)) => {
                note(&format!("assigned {}{}", list(&partitions), members.now().await));
                patience.restart();
                changed_at = Instant::now();
            }
            Some(Polled::Revoked(partitions)) => {
                note(&format!("revoked {}", list(&partitions)));
                changed_at = Instant::now();
                if partitions.iter().any(|one| done.contains_key(one)) {
                    // Others read on from what is committed, and the file is nothing before its end.
                    note(ENDS_HERE);
                    break;
                }
            }
            Some(Polled::Lost { partitions, reason }) => {
                note(&format!("lost {}: {reason}", list(&partitions)));
                changed_at = Instant::now();
                if partitions.iter().any(|one| done.contains_key(one)) {
                    return Err(Failure::Output(io::Error::other(LOST)));
                }
            }
            Some(Polled::CaughtUp) => break,
            None if patience.is_over() => {
                match end_of_waiting(members, consumer, &patience, changed_at).await? {
                    Some(end) => {
                        ended = end;
                        break;
                    }
                    None => patience.restart(),
                }
            }
            // The log, which is on standard error as well, says whom the member waits for.
            Some(Polled::Waiting(_)) | None => {}
        }
    }
    // Also what came before an end that is none is written and committed.
    writer.finish(reading.columns(arguments.output).as_deref())?;
    let committed = consumer.handle().commit(&done).await;
    letters.tell();
    ended.and(committed.map(drop).map_err(Failure::from))
}

/// What to end with when nothing has arrived for too long; none when nothing can, because it joins, or others do.
async fn end_of_waiting(
    members: &Members<'_>,
    consumer: &mut GroupConsumer,
    patience: &Patience,
    changed_at: Instant,
) -> Result<Option<CommandResult>, Failure> {
    if consumer.has_its_partitions().await? {
        return Ok(Some(patience.check(members.client, &consumer.assignment()).await));
    }
    let refused = refuse_to_wait(members, changed_at).await;
    Ok(refused.is_err().then_some(refused))
}

/// Gives up joining when the coordinator cannot be asked after as long as other calls would wait; others of the group are
/// waited for however long they take.
async fn refuse_to_wait(members: &Members<'_>, since: Instant) -> CommandResult {
    let most = members.client.config().api_timeout;
    if since.elapsed() < most {
        return Ok(());
    }
    let (admin, names) = (members.client.admin(), [members.group]);
    let unknown = |error: &Error| error.code() == ErrorCode::GroupIdNotFound;
    match tokio::time::timeout(COUNTING_MAX, admin.describe_groups(&names)).await {
        Ok(Ok(groups)) => match groups.into_iter().next() {
            Some(Err(error)) if !unknown(&error) => Err(error.into()),
            _ => Ok(()),
        },
        Ok(Err(error)) => Err(error.into()),
        Err(_elapsed) => {
            let error = Error::timeout(format!("joining group {}", members.group), most);
            Err(error.because(members.client.obstacle()).into())
        }
    }
}

fn list(partitions: &[TopicPartition]) -> String {
    let names: Vec<String> = partitions.iter().map(ToString::to_string).collect();
    if names.is_empty() { "no partitions".to_owned() } else { names.join(", ") }
}
