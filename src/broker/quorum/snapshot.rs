//! `<offset>-<epoch>.checkpoint`: the image as records, up to an entry of the log.
//!
//! ```text
//! {"version":2,"end":…,"epoch":…,"voters":[…],"records":N}
//! {"version":1,"record":{…}}          N lines, MetadataImage::to_records
//! 1a2b3c4d                            CRC-32C of the lines above
//! ```
//!
//! The offset in the name is that of the first entry not in it, the epoch that of the last entry in
//! it, as in Apache Kafka. A new snapshot is on disk before an older one is removed. Version 1 has the voters without
//! their directories; it is read.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::hard_state::{LogIdV1, checked_lines, write_file};
use super::voters::{Members, StoredVoters, VersionOnly};
use crate::env::{Disk, OpenMode};
use crate::error::{Error, Result};
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataRecord};
use crate::machine::quorum::{OffsetAndEpoch, Snapshot, SnapshotPart, VoterSet};
use crate::types::{LeaderEpoch, Offset};

const VERSION: u16 = 2;
const EXTENSION: &str = ".checkpoint";
/// What is being fetched; it has no name of a snapshot until it is complete.
const FETCHED: &str = "fetched-snapshot.tmp";

/// An image, with its position in the log.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// The end of what is in it.
    pub(super) id: OffsetAndEpoch,
    /// Who votes there.
    pub(super) voters: VoterSet,
    /// The image.
    pub(super) image: MetadataImage,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u16,
    end: Offset,
    epoch: LeaderEpoch,
    voters: StoredVoters,
    records: usize,
}

#[derive(Deserialize)]
struct HeaderV1 {
    last: Option<LogIdV1>,
    members: Members,
    records: usize,
}

impl Header {
    fn decode(line: &[u8]) -> Result<Self> {
        let unread = |error: serde_json::Error| malformed(error.to_string());
        let VersionOnly { version } = serde_json::from_slice(line).map_err(unread)?;
        if version > VERSION {
            let what = WHAT.to_owned();
            return Err(Error::Newer { what, version: version.into(), known: VERSION });
        }
        if version == VERSION {
            return serde_json::from_slice(line).map_err(unread);
        }
        let old: HeaderV1 = serde_json::from_slice(line).map_err(unread)?;
        let end = old.last.map_or(Ok(OffsetAndEpoch::default()), LogIdV1::end);
        let end = end.map_err(malformed)?;
        let voters = StoredVoters::of(&old.members.voters().map_err(malformed)?);
        Ok(Self { version, end: end.offset, epoch: end.epoch, voters, records: old.records })
    }
}

const WHAT: &str = "metadata snapshot";

fn malformed(why: impl Into<String>) -> Error {
    Error::malformed(WHAT, why.into())
}

fn name(id: OffsetAndEpoch) -> String {
    format!("{:020}-{:010}{EXTENSION}", id.offset.0, id.epoch.0)
}

impl Checkpoint {
    /// What the quorum is told of it.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot { id: self.id, voters: self.voters.clone() }
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let records = self.image.to_records();
        let header = Header {
            version: VERSION,
            end: self.id.offset,
            epoch: self.id.epoch,
            voters: StoredVoters::of(&self.voters),
            records: records.len(),
        };
        let mut bytes =
            serde_json::to_vec(&header).map_err(|error| malformed(error.to_string()))?;
        for record in &records {
            bytes.push(b'\n');
            bytes.extend(record.encode()?);
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(format!("\n{sum:08x}\n").into_bytes());
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let body = checked_lines(bytes).map_err(malformed)?;
        let mut lines = body.split(|&byte| byte == b'\n');
        let header = Header::decode(lines.next().unwrap_or_default())?;
        let mut delta = MetadataDelta::new(MetadataImage::empty());
        let mut count = 0;
        for line in lines {
            delta.replay(&MetadataRecord::decode(line)?)?;
            count += 1;
        }
        if count != header.records {
            return Err(malformed(format!("{count} records instead of {}", header.records)));
        }
        let id = OffsetAndEpoch::new(header.end, header.epoch);
        let image = if id.offset > Offset::ZERO {
            delta.apply(Offset(id.offset.0 - 1), id.epoch)
        } else {
            MetadataImage::empty()
        };
        Ok(Self { id, voters: header.voters.voters(), image })
    }

    /// Writes it and removes the older ones.
    pub(super) fn save(&self, disk: &dyn Disk, directory: &Path, fsync: bool) -> Result<()> {
        let path = directory.join(name(self.id));
        write_file(disk, &path, &self.encode()?, fsync)?;
        remove_older(disk, directory, self.id)
    }

    /// The newest one of a directory. Older ones, which a crash may leave, are removed.
    pub(super) fn load(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>> {
        let Some(path) = list(disk, directory)?.pop() else { return Ok(None) };
        let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        let checkpoint = Self::decode(&bytes.unwrap_or_default());
        let checkpoint = checkpoint.map_err(|error| error.in_file(&path))?;
        remove_older(disk, directory, checkpoint.id)?;
        Ok(Some(checkpoint))
    }
}

/// Removes the snapshots that end before this one.
pub(super) fn remove_older(disk: &dyn Disk, directory: &Path, id: OffsetAndEpoch) -> Result<()> {
    let path = directory.join(name(id));
    for older in list(disk, directory)?.into_iter().filter(|older| *older < path) {
        disk.remove_file(&older).map_err(|error| Error::io("remove", &older, error))?;
    }
    Ok(())
}

/// A part of a snapshot, for a replica that needs it; none when there is no such snapshot, or it ends before `position`.
pub(super) fn read_part(
    disk: &dyn Disk,
    directory: &Path,
    id: OffsetAndEpoch,
    position: u64,
    bytes_max: u64,
) -> Result<Option<SnapshotPart>> {
    let path = directory.join(name(id));
    let failed = |error| Error::io("read", &path, error);
    let file = match disk.open(&path, OpenMode::Read) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(failed)?,
    };
    let size = file.len().map_err(failed)?;
    let Some(left) = size.checked_sub(position) else { return Ok(None) };
    let mut bytes = vec![0; usize::try_from(left.min(bytes_max)).unwrap_or(usize::MAX)];
    file.read_exact_at(&mut bytes, position).map_err(failed)?;
    Ok(Some(SnapshotPart { bytes: Bytes::from(bytes), size }))
}

/// Adds a part to the snapshot that is being fetched; at position 0, a new one.
pub(super) fn write_part(
    disk: &dyn Disk,
    directory: &Path,
    position: u64,
    bytes: &[u8],
) -> Result<()> {
    let path = directory.join(FETCHED);
    let mode = if position == 0 { OpenMode::CreateEmpty } else { OpenMode::ReadWrite };
    let file = disk.open(&path, mode).map_err(|error| Error::io("open", &path, error))?;
    file.write_all_at(&[bytes], position).map_err(|error| Error::io("write", &path, error))
}

/// Reads the snapshot that was fetched, and gives it its name: from then on it is found when the log is opened.
pub(super) fn adopt(
    disk: &dyn Disk,
    directory: &Path,
    id: OffsetAndEpoch,
    fsync: bool,
) -> Result<Checkpoint> {
    let path = directory.join(FETCHED);
    let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
    let checkpoint = Checkpoint::decode(&bytes.unwrap_or_default());
    let checkpoint = checkpoint.map_err(|error| error.in_file(&path))?;
    if checkpoint.id != id {
        let (found, wanted) = (name(checkpoint.id), name(id));
        let text = format!("it is the snapshot {found} instead of {wanted}");
        return Err(Error::corrupt(&path, 0, text));
    }
    if fsync {
        let file = disk.open(&path, OpenMode::ReadWrite);
        let synced = file.and_then(|file| file.sync_data());
        synced.map_err(|error| Error::io("sync", &path, error))?;
    }
    let named = directory.join(name(id));
    disk.rename(&path, &named).map_err(|error| Error::io("rename", &named, error))?;
    if fsync {
        disk.sync_dir(directory).map_err(|error| Error::io("sync", directory, error))?;
    }
    Ok(checkpoint)
}

/// The snapshots of a directory, oldest first: their names have a fixed width.
fn list(disk: &dyn Disk, directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = disk.read_dir(directory).map_err(|error| Error::io("list", directory, error))?;
    let mut names: Vec<String> = entries
        .into_iter()
        .map(|entry| entry.name)
        .filter(|name| name.ends_with(EXTENSION))
        .collect();
    names.sort();
    Ok(names.into_iter().map(|name| directory.join(name)).collect())
}
