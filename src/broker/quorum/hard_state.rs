//! `quorum-state`: what a voter must not forget, in a small file of its own.
//!
//! Two lines: a line of JSON and its CRC-32C as eight hexadecimal digits. Written to a temporary
//! file, synced, renamed: a crash leaves the old state or the new one. It is written for every
//! vote, every purge and at the end, which is rare; appends do not touch it.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::types::{LogId, Vote, log_id};
use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::types::{NodeId, Offset};

const FILE: &str = "quorum-state";
const VERSION: u16 = 1;

/// What a voter must not forget.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct HardState {
    /// The last vote.
    pub(super) vote: Option<Vote>,
    /// Everything up to here is committed, and perhaps more.
    pub(super) committed: Option<LogId>,
    /// Everything up to here is in the snapshot and gone from the log.
    pub(super) purged: Option<LogId>,
    /// Below this the log was whole and synced.
    pub(super) recovery_point: Offset,
    /// The log was closed in order.
    pub(super) clean: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u16,
    vote: Option<StoredVote>,
    committed: Option<StoredLogId>,
    purged: Option<StoredLogId>,
    recovery_point: Offset,
    clean: bool,
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

impl HardState {
    /// Reads the file of a directory; the default when there is none.
    pub(super) fn load(disk: &dyn Disk, directory: &Path) -> Result<Self> {
        let path = directory.join(FILE);
        let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        match bytes {
            None => Ok(Self::default()),
            Some(bytes) => Self::decode(&bytes).map_err(|why| Error::corrupt(&path, 0, why)),
        }
    }

    /// Writes the file; when this returns it is on disk, unless `fsync` is off.
    pub(super) fn save(&self, disk: &dyn Disk, directory: &Path, fsync: bool) -> Result<()> {
        write_file(disk, &directory.join(FILE), &self.encode()?, fsync)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        let stored = Stored {
            version: VERSION,
            vote: self.vote.as_ref().map(|vote| StoredVote {
                term: vote.leader_id.term,
                node: vote.leader_id.node_id,
                committed: vote.committed,
            }),
            committed: self.committed.as_ref().map(StoredLogId::of),
            purged: self.purged.as_ref().map(StoredLogId::of),
            recovery_point: self.recovery_point,
            clean: self.clean,
        };
        let mut bytes = serde_json::to_vec(&stored)
            .map_err(|error| Error::malformed("quorum state", error.to_string()))?;
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(format!("\n{sum:08x}\n").into_bytes());
        Ok(bytes)
    }

    fn decode(bytes: &[u8]) -> Result<Self, String> {
        let body = checked_lines(bytes)?;
        let stored: Stored = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        if stored.version != VERSION {
            return Err(format!(
                "version {} is not known; this build reads {VERSION}",
                stored.version
            ));
        }
        let vote = stored.vote.map(|vote| {
            let mut read = Vote::new(vote.term, vote.node);
            read.committed = vote.committed;
            read
        });
        Ok(Self {
            vote,
            committed: stored.committed.map(|id| id.id()),
            purged: stored.purged.map(|id| id.id()),
            recovery_point: stored.recovery_point,
            clean: stored.clean,
        })
    }
}

/// The lines before the last one, which is their checksum.
pub(super) fn checked_lines(bytes: &[u8]) -> Result<&[u8], String> {
    let text = bytes.strip_suffix(b"\n").ok_or("it does not end with a line")?;
    let end = text.iter().rposition(|&byte| byte == b'\n').ok_or("it has no checksum")?;
    let (body, sum) = text.split_at(end);
    let sum = sum.get(1..).and_then(|sum| std::str::from_utf8(sum).ok());
    let sum = sum.and_then(|sum| u32::from_str_radix(sum, 16).ok()).ok_or("it has no checksum")?;
    if sum == crc32c::crc32c(body) { Ok(body) } else { Err("its checksum is wrong".to_owned()) }
}

/// Replaces a file as a whole.
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
    fn the_state_is_the_same_after_writing_and_a_flipped_bit_is_found() {
        let mut vote = Vote::new(3, NodeId(1));
        vote.committed = true;
        let state = HardState {
            vote: Some(vote),
            committed: Some(log_id(2, NodeId(1), 7)),
            purged: None,
            recovery_point: Offset(8),
            clean: true,
        };
        let bytes = state.encode().unwrap();
        assert_eq!(HardState::decode(&bytes).unwrap(), state);
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            assert_ne!(HardState::decode(&damaged).ok().as_ref(), Some(&state), "byte {place}");
        }
    }
}
