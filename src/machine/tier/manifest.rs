//! The manifest of a partition: which files are its tier.
//!
//! It is a sequence of versions, each an object of its own that is created only if it does not exist yet. All stores can
//! do that, folders too, so who of two leaders was first is decided by the store. A version says what it changes;
//! every 64th says everything, so that a reader begins there. Versions are never removed: a leader that is long gone
//! must not find the name of its next version free.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs};

/// The encoding of a version.
pub const MANIFEST_FORMAT: u16 = 1;
/// Every version with a number that this divides says everything.
pub const SNAPSHOT_EVERY: u64 = 64;

/// Who writes versions: a broker, as the leader of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The epoch.
    pub leader_epoch: LeaderEpoch,
    /// The broker.
    pub broker: NodeId,
    /// Tells this claim from all others, those of the same broker too.
    pub token: String,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Its name in the folder of the partition.
    pub name: String,
    /// The first offset.
    pub base_offset: Offset,
    /// The offset behind the last one.
    pub end_offset: Offset,
    /// The epoch of the last batch.
    pub last_epoch: LeaderEpoch,
    /// The largest timestamp.
    pub max_timestamp: TimestampMs,
    /// How many bytes its batches had in the log.
    pub log_bytes: u64,
    /// Its own size.
    pub file_bytes: u64,
    /// The CRC-32C of the whole file.
    pub crc32c: u32,
}

/// What a version changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Delta {
    /// A file that follows the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub add: Option<FileEntry>,
    /// Files that are to be deleted: those at the start or the end of the tier, or ones that never belonged to it.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub doom: BTreeSet<String>,
    /// Files that are deleted.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub forget: BTreeSet<String>,
}

impl Delta {
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// The tier of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Content {
    /// The files, without gaps.
    pub files: Vec<FileEntry>,
    /// The names of files that are to be deleted. Nothing here is ever one of `files` again.
    pub doomed: BTreeSet<String>,
    /// Up to where there ever was a file.
    #[serde(default)]
    pub reached: Offset,
}

impl Content {
    /// The first offset; none when there are no files.
    #[must_use]
    pub fn start_offset(&self) -> Option<Offset> {
        self.files.first().map(|file| file.base_offset)
    }

    /// The offset behind the last one; none when there are no files.
    #[must_use]
    pub fn end_offset(&self) -> Option<Offset> {
        self.files.last().map(|file| file.end_offset)
    }

    /// The files that end at an offset or behind.
    pub fn reaching(&self, offset: Offset) -> impl Iterator<Item = &FileEntry> {
        self.files.iter().skip_while(move |file| file.end_offset < offset)
    }

    fn apply(&mut self, delta: &Delta) -> Result<(), String> {
        self.files.retain(|file| !delta.doom.contains(&file.name));
        self.doomed.extend(delta.doom.iter().cloned());
        self.doomed.retain(|name| !delta.forget.contains(name));
        if let Some(file) = &delta.add {
            if self.doomed.contains(&file.name) {
                return Err(format!("file {} is to be deleted", file.name));
            }
            self.files.push(file.clone());
            self.reached = self.reached.max(file.end_offset);
        }
        self.check()
    }

    fn check(&self) -> Result<(), String> {
        let mut next = self.start_offset();
        for file in &self.files {
            if Some(file.base_offset) != next || file.end_offset <= file.base_offset {
                let (name, base, end) = (&file.name, file.base_offset, file.end_offset);
                return Err(format!("file {name} of offsets {base} to {end} does not follow"));
            }
            next = Some(file.end_offset);
        }
        Ok(())
    }
}

/// What a version says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Says {
    /// What changes.
    Delta(Delta),
    /// Everything.
    Snapshot(Content),
}

/// One version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The encoding.
    pub format: u16,
    /// Its number, from 1.
    pub version: u64,
    /// Who wrote it.
    pub claim: Claim,
    /// What it says.
    pub says: Says,
}

/// The manifest as of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Manifest {
    version: u64,
    claim: Option<Claim>,
    content: Content,
}

impl Manifest {
    /// The number of its newest version; 0 before there is one.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Who wrote that.
    #[must_use]
    pub const fn claim(&self) -> Option<&Claim> {
        self.claim.as_ref()
    }

    /// The files.
    #[must_use]
    pub const fn content(&self) -> &Content {
        &self.content
    }

    /// The version that follows, with a change.
    ///
    /// # Errors
    ///
    /// When the change does not fit.
    pub fn next(&self, claim: &Claim, delta: Delta) -> Result<Version, String> {
        let version = self.version + 1;
        let mut after = self.content.clone();
        after.apply(&delta)?;
        let says = if version.is_multiple_of(SNAPSHOT_EVERY) {
            Says::Snapshot(after)
        } else {
            Says::Delta(delta)
        };
        Ok(Version { format: MANIFEST_FORMAT, version, claim: claim.clone(), says })
    }

    /// Takes the next version, or to begin with one that says everything.
    ///
    /// # Errors
    ///
    /// When it does not follow: the store has lost one, or it is damaged.
    pub fn apply(&mut self, next: &Version) -> Result<(), String> {
        let Version { format, version, claim, says } = next;
        if *format != MANIFEST_FORMAT {
            return Err(format!(
                "version {version} of the manifest has format {format}, and this release reads {MANIFEST_FORMAT}"
            ));
        }
        let begins = self.version == 0 && matches!(says, Says::Snapshot(_));
        if *version != self.version + 1 && !begins {
            let before = self.version;
            return Err(format!("version {version} of the manifest follows version {before}"));
        }
        if let Some(before) =
            self.claim.as_ref().filter(|before| before.leader_epoch > claim.leader_epoch)
        {
            return Err(format!(
                "version {version} of the manifest is of epoch {}, after one of epoch {}",
                claim.leader_epoch, before.leader_epoch
            ));
        }
        let mut content = self.content.clone();
        match says {
            Says::Delta(delta) => content.apply(delta),
            Says::Snapshot(all) => {
                content = all.clone();
                content.check()
            }
        }
        .map_err(|detail| format!("version {version} of the manifest: {detail}"))?;
        self.content = content;
        self.version = *version;
        self.claim = Some(claim.clone());
        Ok(())
    }
}
