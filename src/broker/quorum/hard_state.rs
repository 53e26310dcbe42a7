//! `quorum-state`: what a voter must not forget, in a small file of its own.
//!
//! Two slots of 4 KiB that are written in turn; each is a line of JSON with an increasing number,
//! the line's CRC-32C as eight hexadecimal digits, and padding. The intact slot with the higher
//! number counts, so a torn write leaves the previous state. An election costs one write and one
//! fdatasync: a rename would cost three times as much, and every start of an embedded broker
//! includes an election. The file itself is created with a rename, with two valid slots.
//!
//! It is written for every vote and wherever the log is cut, which is rare; appends do not touch it. Version 1 was
//! openraft's: a term, who got the vote, and the last entry that the log no longer has. It is read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::voters::{StoredReplica, VersionOnly};
use crate::env::{Disk, File, OpenMode};
use crate::error::{Error, Result};
use crate::machine::quorum::{OffsetAndEpoch, ReplicaKey, VoteState};
use crate::types::{LeaderEpoch, NodeId, Offset, Uuid};

const FILE: &str = "quorum-state";
const VERSION: u16 = 2;
const WHAT: &str = "quorum state";
const SLOT_BYTES: usize = 4096;
const SLOTS: u64 = 2;

/// What a voter must not forget.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct HardState {
    /// The last vote.
    pub(super) vote: VoteState,
    /// Where the log starts; what is before is in the snapshot.
    pub(super) start: OffsetAndEpoch,
    /// Below this the log was complete and synced.
    pub(super) recovery_point: Offset,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    version: u16,
    sequence: u64,
    epoch: LeaderEpoch,
    voted: Option<StoredReplica>,
    start: Offset,
    /// The epoch of the record before `start`.
    start_epoch: LeaderEpoch,
    recovery_point: Offset,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredV1 {
    #[serde(rename = "version")]
    _version: u16,
    sequence: u64,
    vote: Option<VoteV1>,
    /// A hint that nobody needs.
    #[serde(rename = "committed")]
    _committed: Option<LogIdV1>,
    purged: Option<LogIdV1>,
    recovery_point: Offset,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VoteV1 {
    term: u64,
    node: NodeId,
    #[serde(rename = "committed")]
    _committed: bool,
}

/// An entry as version 1 names it, also in snapshots.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LogIdV1 {
    index: u64,
    term: u64,
    #[serde(rename = "leader")]
    _leader: NodeId,
}

impl LogIdV1 {
    /// The end of a log in which this is the last entry.
    pub(super) fn end(self) -> Result<OffsetAndEpoch, String> {
        let index = i64::try_from(self.index).map_err(|error| error.to_string())?;
        Ok(OffsetAndEpoch::new(Offset(index).next(), epoch_v1(self.term)?))
    }
}

fn epoch_v1(term: u64) -> Result<LeaderEpoch, String> {
    i32::try_from(term).map(LeaderEpoch).map_err(|_large| format!("term {term} is no epoch"))
}

impl StoredV1 {
    fn state(self) -> Result<HardState, String> {
        let vote = match self.vote {
            Some(VoteV1 { term, node, .. }) => VoteState {
                epoch: epoch_v1(term)?,
                voted: Some(ReplicaKey { id: node, directory_id: Uuid::ZERO }),
            },
            None => VoteState::default(),
        };
        let start = self.purged.map_or(Ok(OffsetAndEpoch::default()), LogIdV1::end)?;
        Ok(HardState { vote, start, recovery_point: self.recovery_point })
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
    pub(super) fn state(&self) -> HardState {
        self.state
    }

    /// Replaces the state; when this returns it is on disk, unless `fsync` is off.
    pub(super) fn save(&mut self, state: HardState) -> Result<()> {
        self.write(state)?;
        if !self.fsync {
            return Ok(());
        }
        self.file.sync_data().map_err(|error| Error::io("sync", &self.path, error))
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
            epoch: self.vote.epoch,
            voted: self.vote.voted.map(StoredReplica::of),
            start: self.start.offset,
            start_epoch: self.start.epoch,
            recovery_point: self.recovery_point,
        };
        let bytes = serde_json::to_vec(&stored)
            .map_err(|error| Error::malformed(WHAT, error.to_string()))?;
        Ok(slot(bytes))
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
        if version < VERSION {
            let stored: StoredV1 = serde_json::from_slice(body).map_err(unread)?;
            let sequence = stored.sequence;
            let state = stored.state().map_err(|why| Error::malformed(WHAT, why))?;
            return Ok((sequence, state));
        }
        let stored: Stored = serde_json::from_slice(body).map_err(unread)?;
        let state = Self {
            vote: VoteState { epoch: stored.epoch, voted: stored.voted.map(StoredReplica::key) },
            start: OffsetAndEpoch::new(stored.start, stored.start_epoch),
            recovery_point: stored.recovery_point,
        };
        Ok((stored.sequence, state))
    }
}

/// A slot with its checksum.
fn slot(mut line: Vec<u8>) -> Vec<u8> {
    let sum = crc32c::crc32c(&line);
    line.extend(format!("\n{sum:08x}\n").into_bytes());
    line.resize(SLOT_BYTES, b' ');
    line
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

    fn voted(epoch: i32, directory: u8) -> VoteState {
        let key = ReplicaKey { id: NodeId(1), directory_id: Uuid([directory; 16]) };
        VoteState { epoch: LeaderEpoch(epoch), voted: Some(key) }
    }

    #[test]
    fn a_torn_or_rotten_slot_leaves_the_state_before_it() {
        let older = HardState { recovery_point: Offset(8), ..HardState::default() };
        let start = OffsetAndEpoch::new(Offset(7), LeaderEpoch(2));
        let newer = HardState { vote: voted(3, 9), start, ..older };
        let slots = [older.encode(4).unwrap(), newer.encode(5).unwrap()].concat();
        assert_eq!(newest(&slots).unwrap(), (5, newer));
        let text = slots[SLOT_BYTES..].iter().rposition(|&byte| byte == b'\n').unwrap();
        for place in 0..text {
            let mut damaged = slots.clone();
            damaged[SLOT_BYTES + place] ^= 0x10;
            assert_eq!(newest(&damaged).unwrap(), (4, older), "byte {place}");
        }
        assert!(newest(&slots[..50]).is_err());
        assert!(newest(&[]).is_err());
    }

    #[test]
    fn a_slot_of_a_newer_release_is_not_passed_over_for_an_older_one() {
        let older = HardState::default().encode(4).unwrap();
        let newer = slot(br#"{"version":3,"sequence":5,"something":"new"}"#.to_vec());
        let error = newest(&[older, newer].concat()).unwrap_err().in_file("/data/quorum-state");
        assert_eq!(
            error.to_string(),
            "quorum state in /data/quorum-state has version 3, and this release of ottla reads up to \
             2: start the newer release that wrote it, or use another data directory"
        );
    }

    #[test]
    fn the_state_of_version_1_is_read_also_beside_one_of_version_2() {
        let v1 = slot(
            br#"{"version":1,"sequence":4,"vote":{"term":3,"node":1,"committed":true},"committed":{"index":9,"term":3,"leader":1},"purged":{"index":6,"term":2,"leader":1},"recovery_point":7}"#
                .to_vec(),
        );
        let empty = slot(
            br#"{"version":1,"sequence":3,"vote":null,"committed":null,"purged":null,"recovery_point":0}"#
                .to_vec(),
        );
        assert_eq!(newest(&empty).unwrap(), (3, HardState::default()));
        let expected = HardState {
            vote: voted(3, 0),
            start: OffsetAndEpoch::new(Offset(7), LeaderEpoch(2)),
            recovery_point: Offset(7),
        };
        assert_eq!(newest(&[v1.clone(), empty].concat()).unwrap(), (4, expected));
        let v2 = HardState { vote: voted(4, 9), ..expected };
        assert_eq!(newest(&[v1, v2.encode(5).unwrap()].concat()).unwrap(), (5, v2));
        let large = slot(
            br#"{"version":1,"sequence":3,"vote":{"term":3000000000,"node":1,"committed":true},"committed":null,"purged":null,"recovery_point":0}"#
                .to_vec(),
        );
        assert!(newest(&large).is_err());
    }
}
