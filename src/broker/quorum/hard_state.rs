//! `quorum-state`: what a voter must not forget, in a small file of its own.
//!
//! Two slots of 4 KiB that are written in turn; each is a line of JSON with an increasing number,
//! the line's CRC-32C as eight hexadecimal digits, and padding. The intact slot with the higher
//! number counts, so a torn write leaves the previous state. An election costs one write and one
//! fdatasync: a rename would cost three times as much, and every start of an embedded broker
//! includes an election. The file itself is created with a rename, with two valid slots.
//!
//! It is written for every vote and every purge, which is rare; appends do not touch it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::types::{LogId, VersionOnly, Vote, log_id};
use crate::env::{Disk, File, OpenMode};
use crate::error::{Error, Result};
use crate::types::{NodeId, Offset};

const FILE: &str = "quorum-state";
const VERSION: u16 = 1;
const WHAT: &str = "quorum state";
const SLOT_BYTES: usize = 4096;
const SLOTS: u64 = 2;

/// What a voter must not forget.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HardState {
    /// The last vote.
    pub(super) vote: Option<Vote>,
    /// Everything up to here is committed, and perhaps more.
    pub(super) committed: Option<LogId>,
    /// Everything up to here is in the snapshot and gone from the log.
    pub(super) purged: Option<LogId>,
    /// Below this the log was complete and synced.
    pub(super) recovery_point: Offset,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u16,
    sequence: u64,
    vote: Option<StoredVote>,
    committed: Option<StoredLogId>,
    purged: Option<StoredLogId>,
    recovery_point: Offset,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredVote {
    term: u64,
    node: NodeId,
    committed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredLogId {
    index: u64,
    term: u64,
    leader: NodeId,
}

impl StoredLogId {
    fn of(id: &LogId) -> Self {
        Self { index: id.index, term: id.leader_id.term, leader: id.leader_id.node_id }
    }

    fn id(&self) -> LogId {
        log_id(self.term, self.leader, self.index)
    }
}

/// The file, open.
#[derive(Debug)]
pub(super) struct StateFile {
    file: Arc<dyn File>,
    path: PathBuf,
    fsync: bool,
    /// The number of the newest slot.
    sequence: u64,
    state: HardState,
}

impl StateFile {
    /// Opens the file of a directory, creating it when it is missing.
    pub(super) fn open(disk: &dyn Disk, directory: &Path, fsync: bool) -> Result<Self> {
        let path = directory.join(FILE);
        let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        let (sequence, state) = match bytes {
            Some(bytes) => newest(&bytes).map_err(|error| error.in_file(&path))?,
            None => {
                let state = HardState::default();
                let slots = [state.encode(0)?, state.encode(1)?].concat();
                write_file(disk, &path, &slots, fsync)?;
                (1, state)
            }
        };
        let file = disk.open(&path, OpenMode::ReadWrite);
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        Ok(Self { file, path, fsync, sequence, state })
    }

    /// The state.
    pub(super) fn state(&self) -> &HardState {
        &self.state
    }

    /// Records a value that may be written later.
    pub(super) fn note_committed(&mut self, committed: Option<LogId>) {
        self.state.committed = committed;
    }

    /// Replaces the state; when this returns it is on disk, unless `fsync` is off.
    pub(super) fn save(&mut self, state: HardState) -> Result<()> {
        self.write(state)?;
        if !self.fsync {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
    }

    /// Replaces the vote. That a majority granted a vote need not be on disk: without it, the node
    /// stands for the same vote again.
    pub(super) fn save_vote(&mut self, vote: Vote) -> Result<()> {
        let granted = self.state.vote.is_some_and(|known| known.leader_id == vote.leader_id);
        let state = HardState { vote: Some(vote), ..self.state.clone() };
        if granted && vote.committed { self.write(state) } else { self.save(state) }
    }

    fn write(&mut self, state: HardState) -> Result<()> {
        let sequence = self.sequence + 1;
        let slot = state.encode(sequence)?;
        let position = sequence % SLOTS * SLOT_BYTES as u64;
        self.file
            .write_all_at(&[&slot], position)
            .map_err(|error| Error::io("write", &self.path, error))?;
        self.sequence = sequence;
        self.state = state;
        Ok(())
    }
}

/// The newest intact slot of a file. One from a newer release counts: the older one next to it is
/// out of date.
fn newest(bytes: &[u8]) -> Result<(u64, HardState)> {
    let mut best = None;
    let mut why = Error::malformed(WHAT, "it is empty");
    for slot in bytes.chunks(SLOT_BYTES) {
        match HardState::decode(slot) {
            Ok(read) => {
                if best.as_ref().is_none_or(|(sequence, _)| *sequence < read.0) {
                    best = Some(read);
                }
            }
            Err(error @ Error::Newer { .. }) => return Err(error),
            Err(error) => why = error,
        }
    }
    best.ok_or(why)
}

impl HardState {
    fn encode(&self, sequence: u64) -> Result<Vec<u8>> {
        let stored = Stored {
            version: VERSION,
            sequence,
            vote: self.vote.as_ref().map(|vote| StoredVote {
                term: vote.leader_id.term,
                node: vote.leader_id.node_id,
                committed: vote.committed,
            }),
            committed: self.committed.as_ref().map(StoredLogId::of),
            purged: self.purged.as_ref().map(StoredLogId::of),
            recovery_point: self.recovery_point,
        };
        let mut bytes = serde_json::to_vec(&stored)
            .map_err(|error| Error::malformed(WHAT, error.to_string()))?;
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(format!("\n{sum:08x}\n").into_bytes());
        bytes.resize(SLOT_BYTES, b' ');
        Ok(bytes)
    }

    fn decode(slot: &[u8]) -> Result<(u64, Self)> {
        let unread = |error: serde_json::Error| Error::malformed(WHAT, error.to_string());
        let body = checked_lines(slot.trim_ascii_end());
        let body = body.map_err(|why| Error::malformed(WHAT, why))?;
        let VersionOnly { version } = serde_json::from_slice(body).map_err(unread)?;
        if version > VERSION {
            let what = WHAT.to_owned();
            return Err(Error::Newer { what, version: version.into(), known: VERSION });
        }
        let stored: Stored = serde_json::from_slice(body).map_err(unread)?;
        let vote = stored.vote.map(|vote| {
            let mut read = Vote::new(vote.term, vote.node);
            read.committed = vote.committed;
            read
        });
        let state = Self {
            vote,
            committed: stored.committed.map(|id| id.id()),
            purged: stored.purged.map(|id| id.id()),
            recovery_point: stored.recovery_point,
        };
        Ok((stored.sequence, state))
    }
}

/// The lines before the last one, which is their checksum.
pub(super) fn checked_lines(bytes: &[u8]) -> Result<&[u8], String> {
    let text = bytes.trim_ascii_end();
    let end = text.iter().rposition(|&byte| byte == b'\n').ok_or("it has no checksum")?;
    let (body, sum) = text.split_at(end);
    let sum = sum.get(1..).and_then(|sum| std::str::from_utf8(sum).ok());
    let sum = sum.and_then(|sum| u32::from_str_radix(sum, 16).ok()).ok_or("it has no checksum")?;
    if sum == crc32c::crc32c(body) { Ok(body) } else { Err("its checksum is wrong".to_owned()) }
}

/// Replaces a whole file.
pub(super) fn write_file(disk: &dyn Disk, path: &Path, bytes: &[u8], fsync: bool) -> Result<()> {
    let written =
        if fsync { disk.write_atomically(path, bytes) } else { rename_over(disk, path, bytes) };
    written.map_err(|error| Error::io("write", path, error))
}

fn rename_over(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    let temporary = PathBuf::from(temporary);
    disk.open(&temporary, OpenMode::CreateEmpty)?.write_all_at(&[bytes], 0)?;
    disk.rename(&temporary, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_or_rotten_slot_leaves_the_state_before_it() {
        let mut vote = Vote::new(3, NodeId(1));
        vote.committed = true;
        let older = HardState { recovery_point: Offset(8), ..HardState::default() };
        let newer =
            HardState { vote: Some(vote), committed: Some(log_id(2, NodeId(1), 7)), ..older };
        let slots = [older.encode(4).unwrap(), newer.encode(5).unwrap()].concat();
        assert_eq!(newest(&slots).unwrap(), (5, newer));
        let text = slots[SLOT_BYTES..].iter().rposition(|&byte| byte == b'\n').unwrap();
        for place in 0..text {
            let mut damaged = slots.clone();
            damaged[SLOT_BYTES + place] ^= 0x10;
            assert_eq!(newest(&damaged).unwrap(), (4, older.clone()), "byte {place}");
        }
        assert!(newest(&slots[..50]).is_err());
        assert!(newest(&[]).is_err());
    }

    #[test]
    fn a_slot_of_a_newer_release_is_not_passed_over_for_an_older_one() {
        let older = HardState::default().encode(4).unwrap();
        let text = br#"{"version":2,"sequence":5,"something":"new"}"#;
        let mut newer = text.to_vec();
        newer.extend(format!("\n{:08x}\n", crc32c::crc32c(text)).into_bytes());
        newer.resize(SLOT_BYTES, b' ');
        let error = newest(&[older, newer].concat()).unwrap_err().in_file("/data/quorum-state");
        assert_eq!(
            error.to_string(),
            "quorum state in /data/quorum-state has version 2, and this release of ottla reads up to \
             1: start the newer release that wrote it, or use another data directory"
        );
    }
}
