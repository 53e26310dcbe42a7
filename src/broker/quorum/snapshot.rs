//! `<offset>-<epoch>.checkpoint`: the image as records, up to an entry of the log.
//!
//! ```text
//! {"version":1,"last":{"index":…,"term":…,"leader":…},"members":{…},…,"records":N}
//! {"version":1,"record":{…}}          N lines, MetadataImage::to_records
//! 1a2b3c4d                            CRC-32C of the lines above
//! ```
//!
//! The offset in the name is that of the first entry not in it, the epoch that of the last entry in
//! it, as in Apache Kafka. A new snapshot is on disk before an older one is removed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::hard_state::{checked_lines, write_file};
use super::types::{LogId, Members, Membership, VersionOnly, epoch, log_id, offset};
use crate::env::Disk;
use crate::error::{Error, Result};
use crate::machine::metadata::{MetadataDelta, MetadataImage, MetadataRecord};
use crate::types::NodeId;

const VERSION: u16 = 1;
const EXTENSION: &str = ".checkpoint";

/// An image, with its position in the log.
#[derive(Clone, Debug)]
pub(super) struct Checkpoint {
    /// The last entry in it.
    pub(super) last: Option<LogId>,
    /// Who votes.
    pub(super) membership: Membership,
    /// The image.
    pub(super) image: MetadataImage,
}

#[derive(Serialize, Deserialize)]
struct Header {
    version: u16,
    last: Option<Last>,
    members: Members,
    /// The entry that set these voters.
    members_since: Option<Last>,
    records: usize,
}

#[derive(Serialize, Deserialize)]
struct Last {
    index: u64,
    term: u64,
    leader: NodeId,
}

impl Last {
    fn of(id: LogId) -> Self {
        Self { index: id.index, term: id.leader_id.term, leader: id.leader_id.node_id }
    }

    fn id(self) -> LogId {
        log_id(self.term, self.leader, self.index)
    }
}

impl Checkpoint {
    /// Its unique name.
    pub(super) fn id(&self) -> String {
        let end = self.last.map_or(0, |last| last.index + 1);
        let term = self.last.map_or(0, |last| last.leader_id.term);
        format!("{end:020}-{term:010}")
    }

    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        let records = self.image.to_records();
        let header = Header {
            version: VERSION,
            last: self.last.map(Last::of),
            members: Members::of(self.membership.membership()),
            members_since: self.membership.log_id().map(Last::of),
            records: records.len(),
        };
        let mut bytes = serde_json::to_vec(&header)
            .map_err(|error| Error::malformed("metadata snapshot", error.to_string()))?;
        for record in &records {
            bytes.push(b'\n');
            bytes.extend(record.encode()?);
        }
        let sum = crc32c::crc32c(&bytes);
        bytes.extend(format!("\n{sum:08x}\n").into_bytes());
        Ok(bytes)
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self> {
        let malformed = |why: String| Error::malformed("metadata snapshot", why);
        let body = checked_lines(bytes).map_err(malformed)?;
        let mut lines = body.split(|&byte| byte == b'\n');
        let first = lines.next().unwrap_or_default();
        let unread = |error: serde_json::Error| malformed(error.to_string());
        let VersionOnly { version } = serde_json::from_slice(first).map_err(unread)?;
        if version > VERSION {
            let what = "metadata snapshot".to_owned();
            return Err(Error::Newer { what, version: version.into(), known: VERSION });
        }
        let header: Header = serde_json::from_slice(first).map_err(unread)?;
        let mut delta = MetadataDelta::new(MetadataImage::empty());
        let mut count = 0;
        for line in lines {
            delta.replay(&MetadataRecord::decode(line)?)?;
            count += 1;
        }
        if count != header.records {
            return Err(malformed(format!("{count} records instead of {}", header.records)));
        }
        let last = header.last.map(Last::id);
        let image = match last {
            Some(last) => delta.apply(offset(last.index), epoch(last.leader_id.term)),
            None => MetadataImage::empty(),
        };
        let since = header.members_since.map(Last::id);
        let membership = Membership::new(since, header.members.membership());
        Ok(Self { last, membership, image })
    }

    /// Writes it and removes the older ones.
    pub(super) fn save(&self, disk: &dyn Disk, directory: &Path, fsync: bool) -> Result<()> {
        let path = directory.join(format!("{}{EXTENSION}", self.id()));
        write_file(disk, &path, &self.encode()?, fsync)?;
        for older in list(disk, directory)?.into_iter().filter(|older| *older < path) {
            disk.remove_file(&older).map_err(|error| Error::io("remove", &older, error))?;
        }
        Ok(())
    }

    /// The newest one of a directory.
    pub(super) fn load(disk: &dyn Disk, directory: &Path) -> Result<Option<Self>> {
        let Some(path) = list(disk, directory)?.pop() else { return Ok(None) };
        let bytes = disk.read(&path).map_err(|error| Error::io("read", &path, error))?;
        let read = Self::decode(&bytes.unwrap_or_default());
        read.map(Some).map_err(|error| error.in_file(&path))
    }
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
