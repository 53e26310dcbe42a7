//! The Delta Lake table of a topic: which files it names, and what its next commit says.
//!
//! A table is a sequence of commits, each an object that is created only if it does not exist yet, as the versions of
//! a manifest are. A commit is a list of actions, one JSON object a line, in the words of Delta's protocol: `add` and
//! `remove` for files, `metaData` and `protocol` for the table, `txn` for how far a writer has come.
//!
//! # Invariants
//!
//! - `TABLE-1` What the table says of a partition, it says after a version of that partition's manifest, which it names in a
//!   `txn`. A leader with an older version changes nothing: whoever creates the next commit has read all before it.
//! - `TABLE-2` No commit removes a file that the manifest names: those who clean up tables delete what was removed. A table that
//!   is not kept any more is closed instead: it asks its readers for a feature that none has, so nobody takes what it
//!   says for what is there, and nobody cleans it up.
//! - `TABLE-3` There is one table for a name. Of two topics with that name the later one takes it over, once the other is
//!   known to be deleted.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::manifest::{FileEntry, Manifest};
use crate::types::{PartitionIndex, TimestampMs, TopicId, Uuid};

/// The most files that one commit adds.
const ADDS_MAX: usize = 1000;
/// The most files that one commit removes.
const REMOVES_MAX: usize = 1000;
/// Writers that do not know it leave the table alone: they would rewrite files that carry more than rows.
const WRITER_FEATURE: &str = "ottlaTier";
/// Columns that are never null are an invariant, to Spark, which has the table say so.
const NOT_NULL_FEATURE: &str = "invariants";
/// Asked of readers, who then say that they do not have it.
const CLOSED_FEATURE: &str = "ottlaTableIsOff";
const TOPIC_ID: &str = "ottla.topic.id";
const TOPIC_DELETED: &str = "ottla.topic.deleted";
/// Whoever writes a checkpoint is to leave the commits before it, which brokers read from the first on.
const KEEPS_COMMITS: (&str, &str) = ("delta.enableExpiredLogCleanup", "false");
const TOPIC_COLUMN: &str = "topic";
const PARTITION_COLUMN: &str = "partition";

/// Which topic a table is of, and what its rows are like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableAbout {
    /// The name of the topic.
    pub topic: String,
    /// Its id.
    pub topic_id: TopicId,
    /// The columns, as Delta's `schemaString`.
    pub schema: String,
}

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableOwner {
    /// There is no table yet.
    Nobody,
    /// A topic's.
    Topic {
        /// Its id.
        id: TopicId,
        /// Whether the topic was deleted.
        is_deleted: bool,
    },
    /// It was not written by a broker.
    Stranger,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Protocol {
    min_reader_version: u32,
    min_writer_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reader_features: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    writer_features: Option<BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(default)]
    format: Format,
    schema_string: String,
    partition_columns: Vec<String>,
    #[serde(default)]
    configuration: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created_time: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Format {
    provider: String,
    options: BTreeMap<String, String>,
}

impl Default for Format {
    fn default() -> Self {
        Self { provider: "parquet".to_owned(), options: BTreeMap::new() }
    }
}

/// How far the writer of a partition has come: the version of its manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Transaction {
    app_id: String,
    version: i64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Add {
    path: String,
    partition_values: BTreeMap<&'static str, String>,
    size: u64,
    modification_time: i64,
    data_change: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    stats: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Remove {
    path: String,
    deletion_timestamp: i64,
    data_change: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CommitInfo {
    timestamp: i64,
    operation: &'static str,
    operation_parameters: BTreeMap<String, String>,
    engine_info: &'static str,
}

/// A line of a commit, to be written.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
enum Action {
    CommitInfo(CommitInfo),
    Protocol(Protocol),
    #[serde(rename = "metaData")]
    Metadata(Metadata),
    Txn(Transaction),
    Add(Add),
    Remove(Remove),
}

/// What is read of a line. The rest is of no use here.
#[derive(Debug, Deserialize)]
struct Line {
    protocol: Option<Protocol>,
    #[serde(rename = "metaData")]
    metadata: Option<Metadata>,
    txn: Option<Transaction>,
    add: Option<Named>,
    remove: Option<Named>,
}

#[derive(Debug, Deserialize)]
struct Named {
    path: String,
}

/// A table as of its newest commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeltaTable {
    commits: u64,
    protocol: Option<Protocol>,
    metadata: Option<Metadata>,
    /// The paths of its files, from the folder of the topic on.
    files: BTreeSet<String>,
    transactions: BTreeMap<String, i64>,
}

/// What a commit is to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableChanges {
    adds: Vec<(PartitionIndex, FileEntry)>,
    removes: Vec<String>,
    transactions: Vec<Transaction>,
    /// Whether it says what the table is, because that is not said yet, or otherwise.
    opens: bool,
    is_complete: bool,
}

impl DeltaTable {
    /// The number of the next commit.
    #[must_use]
    pub const fn next_version(&self) -> u64 {
        self.commits
    }

    /// Takes the next commit.
    ///
    /// # Errors
    ///
    /// It is not what Delta's protocol says. Then half of it may be taken.
    pub fn apply(&mut self, commit: &str) -> Result<(), String> {
        for line in commit.lines().filter(|line| !line.trim().is_empty()) {
            let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
            self.protocol = line.protocol.or_else(|| self.protocol.take());
            self.metadata = line.metadata.or_else(|| self.metadata.take());
            if let Some(Transaction { app_id, version }) = line.txn {
                self.transactions.insert(app_id, version);
            }
            if let Some(removed) = line.remove {
                self.files.remove(&removed.path);
            }
            self.files.extend(line.add.map(|added| added.path));
        }
        self.commits += 1;
        Ok(())
    }

    /// Whose table it is.
    #[must_use]
    pub fn owner(&self) -> TableOwner {
        if self.commits == 0 {
            return TableOwner::Nobody;
        }
        let said = |name: &str| self.metadata.as_ref()?.configuration.get(name);
        match said(TOPIC_ID).and_then(|id| Uuid::parse(id)) {
            None => TableOwner::Stranger,
            Some(id) => TableOwner::Topic { id, is_deleted: said(TOPIC_DELETED).is_some() },
        }
    }

    /// What the next commit is to change, so that the table names the files of these manifests. The rest of the table
    /// is left as it is; that of another topic goes.
    #[must_use]
    pub fn changes<'a>(
        &self,
        about: &TableAbout,
        manifests: impl IntoIterator<Item = (PartitionIndex, &'a Manifest)>,
    ) -> TableChanges {
        let is_own = matches!(self.owner(), TableOwner::Topic { id, .. } if id == about.topic_id);
        let expected = self.metadata.as_ref().map(|known| Metadata {
            created_time: known.created_time,
            ..metadata(about, TimestampMs::NONE)
        });
        let is_open =
            self.protocol == Some(open()) && self.metadata.is_some() && self.metadata == expected;
        let mut changes = TableChanges {
            adds: Vec::new(),
            removes: Vec::new(),
            transactions: Vec::new(),
            opens: !is_open,
            is_complete: true,
        };
        if !is_own {
            changes.removes.extend(self.files.iter().take(REMOVES_MAX).cloned());
            if changes.removes.len() < self.files.len() {
                // What is left goes before the table is another topic's, which would not know all of it for its own.
                return TableChanges { opens: false, is_complete: false, ..changes };
            }
        }
        for (index, manifest) in manifests {
            let app_id = format!("ottla/{}/{index}", about.topic_id);
            let version = i64::try_from(manifest.version()).unwrap_or(i64::MAX);
            let known = self.transactions.get(&app_id).copied();
            // `TABLE-1`.
            if known.is_some_and(|known| known > version) {
                continue;
            }
            let folder = folder(index);
            let files = &manifest.content().files;
            if is_own {
                let wanted: BTreeSet<_> =
                    files.iter().map(|file| format!("{folder}{}", file.name)).collect();
                let there = self.files.range(folder.clone()..);
                let there = there.take_while(|path| path.starts_with(&folder));
                let mut gone = there.filter(|path| !wanted.contains(*path));
                let room = REMOVES_MAX - changes.removes.len();
                changes.removes.extend(gone.by_ref().take(room).cloned());
                changes.is_complete &= gone.next().is_none();
            }
            let is_new = |file: &&FileEntry| {
                !is_own || !self.files.contains(&format!("{folder}{}", file.name))
            };
            let mut new = files.iter().filter(is_new);
            let room = ADDS_MAX - changes.adds.len();
            changes.adds.extend(new.by_ref().take(room).map(|file| (index, file.clone())));
            changes.is_complete &= new.next().is_none();
            // Of an incomplete commit, too: a leader with an older version would take its files away.
            if known != Some(version) {
                changes.transactions.push(Transaction { app_id, version });
            }
        }
        changes
    }

    /// The commit that closes the table of a topic (`TABLE-2`), for good if the topic was deleted; none when it is not the
    /// topic's, or is closed.
    ///
    /// # Errors
    ///
    /// None that can occur.
    pub fn closing(
        &self,
        topic_id: TopicId,
        deleted: bool,
        now: TimestampMs,
    ) -> Result<Option<String>, String> {
        match self.owner() {
            TableOwner::Topic { id, is_deleted } if id == topic_id => {
                if self.protocol == Some(closed()) && (is_deleted || !deleted) {
                    return Ok(None);
                }
            }
            _ => return Ok(None),
        }
        let mut actions = vec![commit_info("CLOSE", now), Action::Protocol(closed())];
        if let Some(metadata) = self.metadata.clone().filter(|_| deleted) {
            let mut configuration = metadata.configuration;
            configuration.insert(TOPIC_DELETED.to_owned(), "true".to_owned());
            actions.push(Action::Metadata(Metadata { configuration, ..metadata }));
        }
        lines(actions).map(Some)
    }
}

impl TableChanges {
    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.adds.is_empty() && self.removes.is_empty() && !self.opens
    }

    /// Whether the table is what it should be after this commit; there may be too many files for one.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// The files that are added.
    #[must_use]
    pub fn adds(&self) -> &[(PartitionIndex, FileEntry)] {
        &self.adds
    }

    /// How many files are removed.
    #[must_use]
    pub fn remove_count(&self) -> usize {
        self.removes.len()
    }

    /// The commit; `statistics` are those of the files that are added, in their order, as far as they are known.
    ///
    /// # Errors
    ///
    /// None that can occur.
    pub fn commit(
        self,
        about: &TableAbout,
        statistics: Vec<Option<String>>,
        now: TimestampMs,
    ) -> Result<String, String> {
        let mut actions = vec![commit_info("FOLLOW", now)];
        if self.opens {
            actions.push(Action::Protocol(open()));
            actions.push(Action::Metadata(metadata(about, now)));
        }
        actions.extend(self.transactions.into_iter().map(Action::Txn));
        // Whoever follows the table has to know that rows go, so both change data.
        actions.extend(self.removes.into_iter().map(|path| {
            Action::Remove(Remove { path, deletion_timestamp: now.0, data_change: true })
        }));
        let statistics = statistics.into_iter().chain(std::iter::repeat(None));
        actions.extend(self.adds.into_iter().zip(statistics).map(|((index, file), stats)| {
            Action::Add(Add {
                path: format!("{}{}", folder(index), file.name),
                partition_values: BTreeMap::from([
                    (TOPIC_COLUMN, about.topic.clone()),
                    (PARTITION_COLUMN, index.to_string()),
                ]),
                size: file.file_bytes,
                modification_time: now.0,
                data_change: true,
                stats,
            })
        }));
        lines(actions)
    }
}

/// Where the files of a partition are, from the folder of the topic on.
fn folder(index: PartitionIndex) -> String {
    format!("{PARTITION_COLUMN}={index}/")
}

/// What a table asks of those who read and write it.
fn open() -> Protocol {
    Protocol {
        min_reader_version: 1,
        min_writer_version: 7,
        reader_features: None,
        writer_features: Some(features([NOT_NULL_FEATURE, WRITER_FEATURE])),
    }
}

/// What a table asks that nobody is to read.
fn closed() -> Protocol {
    Protocol {
        min_reader_version: 3,
        min_writer_version: 7,
        reader_features: Some(features([CLOSED_FEATURE])),
        writer_features: Some(features([NOT_NULL_FEATURE, CLOSED_FEATURE, WRITER_FEATURE])),
    }
}

fn features<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

fn metadata(about: &TableAbout, now: TimestampMs) -> Metadata {
    let id = u128::from_be_bytes(about.topic_id.0);
    let part = |shift: u32, bits: u32| (id >> shift) & ((1 << bits) - 1);
    Metadata {
        id: format!(
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        ),
        name: Some(about.topic.clone()),
        format: Format::default(),
        schema_string: about.schema.clone(),
        partition_columns: [TOPIC_COLUMN, PARTITION_COLUMN].map(str::to_owned).to_vec(),
        configuration: BTreeMap::from([
            (TOPIC_ID.to_owned(), about.topic_id.to_string()),
            (KEEPS_COMMITS.0.to_owned(), KEEPS_COMMITS.1.to_owned()),
        ]),
        created_time: Some(now.0),
    }
}

fn commit_info(operation: &'static str, now: TimestampMs) -> Action {
    Action::CommitInfo(CommitInfo {
        timestamp: now.0,
        operation,
        operation_parameters: BTreeMap::new(),
        engine_info: concat!("ottla/", env!("CARGO_PKG_VERSION")),
    })
}

fn lines(actions: Vec<Action>) -> Result<String, String> {
    let mut text = String::new();
    for action in actions {
        text += &serde_json::to_string(&action).map_err(|error| error.to_string())?;
        text.push('\n');
    }
    Ok(text)
}
