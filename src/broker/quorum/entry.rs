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
//! The index and the term are not included: they are the record's offset and leader epoch.

use openraft::EntryPayload;
use serde::{Deserialize, Serialize};

use super::types::{Entry, Members, VersionOnly, log_id};
use crate::error::{Error, Result};
use crate::machine::metadata::MetadataRecord;
use crate::types::NodeId;

const VERSION: u16 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u16,
    /// The node that led the term.
    leader: NodeId,
    #[serde(flatten)]
    kind: Kind,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    /// The first entry of a term.
    Blank,
    /// Metadata records follow, one per line.
    Records,
    /// Who votes from here on.
    Membership { members: Members },
}

/// The value of an entry.
pub(super) fn encode(entry: &Entry) -> Result<Vec<u8>> {
    let (kind, records): (_, &[MetadataRecord]) = match &entry.payload {
        EntryPayload::Blank => (Kind::Blank, &[]),
        EntryPayload::Normal(records) => (Kind::Records, records),
        EntryPayload::Membership(membership) => {
            (Kind::Membership { members: Members::of(membership) }, &[])
        }
    };
    let header = Header { version: VERSION, leader: entry.log_id.leader_id.node_id, kind };
    let mut value = serde_json::to_vec(&header).map_err(malformed)?;
    for record in records {
        value.push(b'\n');
        value.extend(record.encode()?);
    }
    Ok(value)
}

/// The entry of a value.
pub(super) fn decode(index: u64, term: u64, value: &[u8]) -> Result<Entry> {
    let mut lines = value.split(|&byte| byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let VersionOnly { version } = serde_json::from_slice(first).map_err(malformed)?;
    if version > VERSION {
        let what = format!("entry {index} of the metadata log");
        return Err(Error::Newer { what, version: version.into(), known: VERSION });
    }
    let header: Header = serde_json::from_slice(first).map_err(malformed)?;
    let payload = match header.kind {
        Kind::Blank => EntryPayload::Blank,
        Kind::Membership { members } => EntryPayload::Membership(members.membership()),
        Kind::Records => {
            EntryPayload::Normal(lines.map(MetadataRecord::decode).collect::<Result<_>>()?)
        }
    };
    Ok(Entry { log_id: log_id(term, header.leader, index), payload })
}

fn malformed(error: serde_json::Error) -> Error {
    Error::malformed("entry of the metadata log", error.to_string())
}

pub(super) fn value(_one: &crate::machine::quorum::Entry<bytes::Bytes>) -> Result<Vec<u8>> {
    unimplemented!()
}
pub(super) fn parse(
    _o: crate::types::Offset,
    _e: crate::types::LeaderEpoch,
    _v: bytes::Bytes,
) -> Result<crate::machine::quorum::Entry<bytes::Bytes>> {
    unimplemented!()
}
