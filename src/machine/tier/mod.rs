//! The tier of one partition, as its leader decides about it: what is uploaded, what may go, and in which order.
//!
//! ```text
//!            Lead                     read                    create: this is mine
//!  follower ──────▶ reads the manifest ───▶ claims a version ─────────────────────▶ leads: upload, verify, create
//!      ▲                   ▲                      │ someone wrote it                      retention, deletion
//!      │ Resign, or        └──────────────────────┴── of an older epoch ◀───────────────────────┘
//!      └── a newer epoch was there first
//! ```
//!
//! # Invariants
//!
//! - `TIER-6` A file counts from the moment that a version of the manifest names it. Only then may the log delete what it
//!   holds.
//! - `TIER-7` Whoever leads writes versions only behind the one that claims its epoch. A leader that was replaced finds the
//!   name of its next version taken, and stops.
//! - `TIER-8` A version may exist although its writer was told that it failed. The writer tries the same version again, and
//!   finds its own words.
//! - `TIER-9` Before a file is deleted, a version dooms it, and what is doomed never counts again. An upload that nobody
//!   knows (an orphan) is doomed like others. That needs no clock: it was seen before the version that dooms it, so
//!   it is not of a leader who claimed after that version, and earlier ones cannot name it any more.
//! - `TIER-10` The log start moves first, files that lie before it are doomed then.
//!
//! The machine knows no store: it says what is to be done, and is told how it went, once for each.

mod columns;
mod delta_table;
mod manifest;
mod term;

#[cfg(test)]
mod delta_table_tests;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use super::Machine;
use crate::types::{LeaderEpoch, Offset, TimestampMs};

pub use columns::{COLUMNS_FORMAT, Column, Columns, ColumnsVersion};
pub use delta_table::{DeltaTable, TableAbout, TableChanges, TableOwner};
pub use manifest::{
    Claim, Content, Delta, FileEntry, MANIFEST_FORMAT, Manifest, SNAPSHOT_EVERY, Says, Version,
};

use term::Term;

/// After a failure everything waits this long, twice as long after the next, and so on.
const RETRY_MS_MIN: i64 = 500;
const RETRY_MS_MAX: i64 = 60_000;

/// What is to be kept where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TierRules {
    /// Whether closed segments are uploaded (not `remote.log.copy.disable`).
    pub copies: bool,
    /// `retention.ms`; none for no limit.
    pub retention_ms: Option<i64>,
    /// `retention.bytes`; none for no limit.
    pub retention_bytes: Option<u64>,
    /// How long a file is left to its readers after it was doomed (`file.delete.delay.ms`).
    pub delete_delay_ms: i64,
    /// How often the files in the store are compared with the manifest.
    pub list_interval_ms: i64,
}

/// A closed segment that lies wholly below the last stable offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClosedSegment {
    /// Its first offset.
    pub base_offset: Offset,
    /// The offset behind its last one.
    pub end_offset: Offset,
}

/// What the log is like.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogView {
    /// Where the log starts altogether.
    pub log_start: Offset,
    /// Where it ends.
    pub log_end: Offset,
    /// How many bytes lie here behind the last file, those of open segments too.
    pub local_bytes: u64,
    /// The closed segments, in order.
    pub closed: Vec<ClosedSegment>,
    /// Which epochs begin where.
    pub lineage: Vec<(LeaderEpoch, Offset)>,
}

impl LogView {
    /// Whether the log has, or had, the records of a file, as far as epochs tell: not if an unclean election has chosen a
    /// leader without them, or the log is another one.
    #[must_use]
    pub fn has(&self, file: &FileEntry) -> bool {
        let Some((first, _)) = self.lineage.first() else {
            return file.end_offset <= self.log_end;
        };
        let later = self.lineage.iter().find(|(epoch, _)| *epoch > file.last_epoch);
        let end = later.map_or(self.log_end, |(_, start)| *start);
        // Of the epochs before the log start nothing is known here.
        let is_known = self.lineage.iter().any(|(epoch, _)| *epoch == file.last_epoch);
        (is_known || file.last_epoch < *first) && file.end_offset <= end
    }
}

/// What an upload has found out about its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uploaded {
    /// See [`FileEntry::last_epoch`].
    pub last_epoch: LeaderEpoch,
    /// See [`FileEntry::max_timestamp`].
    pub max_timestamp: TimestampMs,
    /// See [`FileEntry::log_bytes`].
    pub log_bytes: u64,
    /// See [`FileEntry::file_bytes`].
    pub file_bytes: u64,
    /// See [`FileEntry::crc32c`].
    pub crc32c: u32,
}

/// What became of a version that was to be created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Creation {
    /// It is there.
    Created,
    /// There is one with this number already.
    Exists(Box<Version>),
    /// Nobody knows, and why.
    Failed(String),
}

/// How something went that was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The newest manifest.
    Read(Result<Manifest, String>),
    /// See [`Creation`].
    Created(Creation),
    /// The file is in the store, was read back there, and gives back the log.
    Uploaded(Result<Uploaded, String>),
    /// The names of all files in the folder of the partition.
    Listed(Result<Vec<String>, String>),
    /// The file is not in the store any more.
    Deleted(Result<(), String>),
}

/// What can happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// This broker leads the partition, by this claim.
    Lead(Claim),
    /// It does not any more.
    Resign,
    /// The log has changed, or time has passed.
    Log(LogView),
    /// Other rules hold.
    Rules(TierRules),
    /// An effect is done. Effects of earlier terms do not count.
    Done {
        /// The term that the effect was for.
        term: u64,
        /// How it went.
        reply: Reply,
    },
    /// The deadline has come.
    Elapsed,
}

/// What is to be done. All but the last three are answered by [`Event::Done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Read the newest manifest.
    Read,
    /// Create a version if there is none with its number.
    Create(Box<Version>),
    /// Make a file of these offsets, compare it with the log, upload it under this name, and read it back.
    Upload {
        /// The name.
        name: String,
        /// The first offset.
        base_offset: Offset,
        /// The offset behind the last one.
        end_offset: Offset,
    },
    /// List the files of the partition.
    List,
    /// Delete a file.
    Delete(String),
    /// Let the log start here.
    RaiseLogStart(Offset),
    /// The tier has what lies before this offset: the log may delete it.
    Tiered(Offset),
    /// Another leader was here: this one is done.
    Fenced(Claim),
}

/// The tier of a partition. See the module.
#[derive(Debug)]
pub struct PartitionTier {
    /// Part of the name of each file: which topic it is of.
    tag: String,
    rules: TierRules,
    /// Counts the terms; what belongs to an earlier one does not count.
    term: u64,
    current: Option<Term>,
    /// What this term has seen of the log. Without it nobody knows whether the files are of it.
    log: Option<LogView>,
    /// Why the last attempt at each kind of thing failed, until one succeeds: that files can be deleted says nothing of
    /// whether they can be copied.
    failures: BTreeMap<Kind, String>,
}

/// What can fail; what matters most comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Manifest,
    Upload,
    List,
    Delete,
}

impl Reply {
    /// What was tried, and why it failed if it did.
    fn outcome(&self) -> (Kind, Option<&String>) {
        match self {
            Self::Read(read) => (Kind::Manifest, read.as_ref().err()),
            Self::Created(Creation::Failed(why)) => (Kind::Manifest, Some(why)),
            Self::Created(_) => (Kind::Manifest, None),
            Self::Uploaded(uploaded) => (Kind::Upload, uploaded.as_ref().err()),
            Self::Listed(listed) => (Kind::List, listed.as_ref().err()),
            Self::Deleted(deleted) => (Kind::Delete, deleted.as_ref().err()),
        }
    }

    /// Whether it did not work.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.outcome().1.is_some()
    }
}

impl PartitionTier {
    /// A partition that is not led here.
    #[must_use]
    pub fn new(tag: impl Into<String>, rules: TierRules) -> Self {
        let tag = tag.into();
        Self { tag, rules, term: 0, current: None, log: None, failures: BTreeMap::new() }
    }

    /// The number of the term, which effects belong to.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The manifest, once it has been read.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        self.current.as_ref()?.manifest.as_ref()
    }

    /// Whether a version of this term claims the partition, and none of a later epoch was seen.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.current.as_ref().is_some_and(|term| term.claimed.is_some() && !term.is_fenced)
    }

    /// Why the last attempt at something failed, until one at the same succeeds.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failures.values().next().map(String::as_str)
    }

    fn done(&mut self, now: TimestampMs, reply: Reply, out: &mut Vec<Effect>) {
        let Some(term) = &mut self.current else { return };
        let (kind, _) = reply.outcome();
        let outcome = match reply {
            Reply::Read(read) => {
                term.is_reading = false;
                read.map(|manifest| term.read(now, manifest, out))
            }
            Reply::Created(creation) => term.created(now, creation, out),
            Reply::Uploaded(uploaded) => {
                let taken = term.uploading.take();
                uploaded.map(|uploaded| {
                    term.uploaded = taken.map(|(name, segment)| FileEntry {
                        name,
                        base_offset: segment.base_offset,
                        end_offset: segment.end_offset,
                        last_epoch: uploaded.last_epoch,
                        max_timestamp: uploaded.max_timestamp,
                        log_bytes: uploaded.log_bytes,
                        file_bytes: uploaded.file_bytes,
                        crc32c: uploaded.crc32c,
                    });
                })
            }
            Reply::Listed(listed) => {
                term.is_listing = false;
                listed.map(|names| {
                    term.list_at = now.plus(self.rules.list_interval_ms);
                    term.find_orphans(names);
                })
            }
            Reply::Deleted(deleted) => {
                let name = term.deleting.take();
                deleted.map(|()| term.deleted.extend(name))
            }
        };
        match outcome {
            Ok(()) => {
                term.failures.remove(&kind);
                self.failures.remove(&kind);
            }
            Err(why) => {
                let failures = term.failures.entry(kind).or_insert(0);
                let doubled = RETRY_MS_MIN << (*failures).min(10);
                term.pause_until = Some(now.plus(doubled.min(RETRY_MS_MAX)));
                *failures += 1;
                self.failures.insert(kind, why);
            }
        }
    }

    /// Begins whatever can be begun.
    fn advance(&mut self, now: TimestampMs, out: &mut Vec<Effect>) {
        let Some(term) = self.current.as_mut().filter(|term| !term.is_fenced) else { return };
        // Unless the clock was set back.
        let is_pausing = |until: TimestampMs| now < until && until <= now.plus(RETRY_MS_MAX);
        if term.pause_until.is_some_and(is_pausing) {
            return;
        }
        term.pause_until = None;
        if term.manifest.is_none() {
            if !term.is_reading {
                term.is_reading = true;
                out.push(Effect::Read);
            }
            return;
        }
        // A claim says nothing of the log; whatever follows does.
        let unseen = LogView::default();
        let log = match &self.log {
            Some(log) => log,
            None if term.claimed.is_none() => &unseen,
            None => return,
        };
        if let Err(why) = term.create(now, &self.rules, log, out) {
            self.failures.insert(Kind::Manifest, why);
        }
        let (Some(claimed), Some(log)) = (term.claimed, &self.log) else { return };
        term.raise_log_start(now, &self.rules, log, out);
        if self.rules.copies {
            term.upload(&self.tag, claimed, log, out);
        }
        if !term.is_listing && now >= term.list_at {
            term.is_listing = true;
            out.push(Effect::List);
        }
        let due = term.due(now, &self.rules).next().cloned();
        if let Some(name) = due.filter(|_| term.deleting.is_none()) {
            term.deleting = Some(name.clone());
            out.push(Effect::Delete(name));
        }
    }
}

impl Machine for PartitionTier {
    type Event = Event;
    type Effect = Effect;

    fn step(&mut self, now: TimestampMs, event: Event, out: &mut Vec<Effect>) {
        match event {
            Event::Lead(claim) => {
                self.term += 1;
                self.failures.clear();
                self.log = None;
                self.current = Some(Term::new(claim, now));
            }
            Event::Resign => {
                self.term += 1;
                self.failures.clear();
                self.log = None;
                self.current = None;
            }
            Event::Log(log) => {
                self.log = Some(log);
                if let Some(term) = &mut self.current {
                    // Whoever was asked to raise the log start may have failed.
                    term.raised = Offset::ZERO;
                }
            }
            Event::Rules(rules) => self.rules = rules,
            Event::Done { term, reply } if term == self.term => self.done(now, reply, out),
            Event::Done { .. } | Event::Elapsed => {}
        }
        self.advance(now, out);
    }

    fn next_deadline(&self) -> Option<TimestampMs> {
        let term = self.current.as_ref().filter(|term| !term.is_fenced)?;
        if term.pause_until.is_some() {
            return term.pause_until;
        }
        term.claimed.and(self.log.as_ref())?;
        let list = (!term.is_listing).then_some(term.list_at);
        let doomed = term.doomed_at.iter().filter(|(name, _)| !term.deleted.contains(*name));
        let delete = doomed.map(|(_, at)| at.plus(self.rules.delete_delay_ms)).min();
        let delete = delete.filter(|_| term.deleting.is_none());
        list.into_iter().chain(delete).min()
    }
}
