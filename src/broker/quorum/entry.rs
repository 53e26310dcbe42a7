//! One entry of the quorum's log as the value of one record.
//!
//! Lines of JSON: a header, then one line for each metadata record
//! ([`MetadataRecord::encode`]), so that a person can read a dump of the log.
//!
//! ```text
//! {"version":1,"leader":1,"kind":"records"}
//! {"version":1,"record":{"topic":{…}}}
//! {"version":1,"record":{"partition":{…}}}
//! ```
//!
//! The offset and the epoch are not included: they are those of the record and its batch. `blank` is the first entry of an
//! epoch; `voters`, which is version 2, says who votes, as `membership` did in version 1. An entry of records travels
//! and is stored as its leader wrote it, and is read where it is applied.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::voters::{Members, StoredVoters, VersionOnly};
use crate::error::{Error, Result};
use crate::machine::metadata::MetadataRecord;
use crate::machine::quorum::{self, Payload};
use crate::types::{LeaderEpoch, NodeId, Offset};

/// The version of most entries: of all that an older release can read.
const VERSION: u16 = 1;
/// The newest version.
const VERSION_MAX: u16 = 2;

/// An entry; its records are the value in which they are stored.
pub(in crate::broker) type Entry = quorum::Entry<Bytes>;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u16,
    /// The node that led the epoch; version 2 does without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader: Option<NodeId>,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    /// The first entry of an epoch.
    Blank,
    /// Metadata records follow, one per line.
    Records,
    /// Who votes from here on.
    Voters { voters: StoredVoters },
    /// The same, up to version 1.
    #[serde(skip_serializing)]
    Membership { members: Members },
}

/// The value of an entry.
pub(in crate::broker) fn encode(entry: &Entry) -> Result<Bytes> {
    let header = match &entry.payload {
        Payload::Records(value) => return Ok(value.clone()),
        Payload::LeaderChange { leader } => {
            Header { version: VERSION, leader: Some(*leader), kind: Kind::Blank }
        }
        Payload::Voters(voters) => Header {
            version: VERSION_MAX,
            leader: None,
            kind: Kind::Voters { voters: StoredVoters::of(voters) },
        },
    };
    Ok(serde_json::to_vec(&header).map_err(malformed)?.into())
}

/// The value of an entry of records that this node, as the leader, is about to propose.
pub(super) fn encode_records(leader: NodeId, records: &[MetadataRecord]) -> Result<Bytes> {
    let header = Header { version: VERSION, leader: Some(leader), kind: Kind::Records };
    let mut value = serde_json::to_vec(&header).map_err(malformed)?;
    for record in records {
        value.push(b'\n');
        value.extend(record.encode()?);
    }
    Ok(value.into())
}

/// The entry of a value. Its records are not looked at.
pub(in crate::broker) fn decode(offset: Offset, epoch: LeaderEpoch, value: &[u8]) -> Result<Entry> {
    let first = value.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let VersionOnly { version } = serde_json::from_slice(first).map_err(malformed)?;
    if version > VERSION_MAX {
        let what = format!("entry {offset} of the metadata log");
        return Err(Error::Newer { what, version: version.into(), known: VERSION_MAX });
    }
    let header: Header = serde_json::from_slice(first).map_err(malformed)?;
    let payload = match header.kind {
        Kind::Blank => Payload::LeaderChange { leader: header.leader.unwrap_or(NodeId::NONE) },
        Kind::Voters { voters } => Payload::Voters(voters.voters()),
        Kind::Membership { members } => {
            let voters = members.voters();
            Payload::Voters(voters.map_err(|why| Error::malformed(WHAT, why))?)
        }
        Kind::Records => Payload::Records(Bytes::copy_from_slice(value)),
    };
    Ok(Entry { offset, epoch, payload })
}

/// The records in the value of an entry of records.
pub(super) fn decode_records(value: &[u8]) -> Result<Vec<MetadataRecord>> {
    value.split(|&byte| byte == b'\n').skip(1).map(MetadataRecord::decode).collect()
}

const WHAT: &str = "entry of the metadata log";

fn malformed(error: serde_json::Error) -> Error {
    Error::malformed(WHAT, error.to_string())
}
