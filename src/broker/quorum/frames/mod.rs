//! The quorum's requests and responses as Kafka's frames, both ways.
//!
//! What the machine says in plain values, Kafka says in Vote, BeginQuorumEpoch, EndQuorumEpoch, Fetch, FetchSnapshot and
//! UpdateRaftVoter, each of them for the partition `__cluster_metadata-0`. Where a frame has no place for something:
//!
//! - A response repeats the place, time and position of its request; [`read_answer`] takes them from the request.
//! - A replica that wants no records, because it is busy with those from before, asks for 0 bytes of them.
//! - The endpoints of the leader are one host and port.
//!
//! The records of a Fetch response are batches as everywhere in Kafka, one for each entry; the value of a
//! record is an [`entry`](super::entry). The bytes of a snapshot are those of the file.
//!
//! What brokers ask of the controller is in [`commands`].
//!
//! Before anything is taken from a frame, the id of the cluster, the topic and the number of partitions are checked:
//! whoever means another cluster is told INCONSISTENT_CLUSTER_ID, and the machine never hears of it.

mod commands;
mod requests;
mod responses;

pub(in crate::broker) use commands::{
    command_answer, command_request, read_command, read_command_answer,
};
pub(in crate::broker) use requests::{check_cluster, cluster_of, read_request, request};
pub(in crate::broker) use responses::{answer, read_answer};

use super::batches;
use super::entry::Entry;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::METADATA_TOPIC;
use crate::machine::metadata::Endpoint;
use crate::machine::quorum::{OffsetAndEpoch, ReplicaKey};
use crate::protocol::messages::{fetch, fetch_snapshot as snapshot};
use crate::protocol::{Records, Str};
use crate::record::Batches;
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

/// The topic id that Apache Kafka reserves for the metadata log.
pub(in crate::broker) const METADATA_TOPIC_ID: Uuid =
    Uuid([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
/// How many bytes of records, or of a snapshot, a replica asks for at a time.
const FETCH_BYTES: i32 = 8 << 20;

static TOPIC: Str = Str::from_static(METADATA_TOPIC);

/// Whether a Fetch is for the metadata log: it names it alone.
pub(in crate::broker) fn is_for_metadata(request: &fetch::FetchRequest) -> bool {
    let [topic] = &*request.topics else { return false };
    topic.topic_id == METADATA_TOPIC_ID || *topic.topic == *METADATA_TOPIC
}

/// The one partition of a frame.
fn only<T, P>(topics: &[T], parts: impl Fn(&T) -> (&Str, &Vec<P>)) -> Result<&P> {
    let [topic] = topics else { return Err(refused(ErrorCode::InvalidRequest)) };
    let (name, partitions) = parts(topic);
    let [partition] = &**partitions else { return Err(refused(ErrorCode::InvalidRequest)) };
    if **name == *METADATA_TOPIC { Ok(partition) } else { Err(other_partition()) }
}

fn check_index(index: i32) -> Result<()> {
    if index == 0 { Ok(()) } else { Err(other_partition()) }
}

fn other_partition() -> Error {
    let text = format!("only {METADATA_TOPIC}-0 has a quorum");
    Error::kafka(ErrorCode::UnknownTopicOrPartition, text)
}

fn refused(code: ErrorCode) -> Error {
    Error::kafka(code, "a request of the metadata quorum")
}

fn key(id: i32, directory_id: Uuid) -> ReplicaKey {
    ReplicaKey { id: NodeId(id), directory_id }
}

fn place(offset: i64, epoch: i32) -> OffsetAndEpoch {
    OffsetAndEpoch::new(Offset(offset), LeaderEpoch(epoch))
}

fn endpoint(name: &str, host: &str, port: u16) -> Endpoint {
    Endpoint { listener: name.into(), host: host.into(), port, security_protocol: 0 }
}

fn snapshot_id(id: OffsetAndEpoch) -> snapshot::SnapshotId {
    snapshot::SnapshotId { end_offset: id.offset.0, epoch: id.epoch.0 }
}

/// Entries as batches.
fn records(entries: &[Entry]) -> Result<Records> {
    Ok(batches::encode(entries, TimestampMs(0))?.into())
}

/// Batches as entries.
fn entries(records: Option<&Records>) -> Result<Vec<Entry>> {
    let Some(records) = records else { return Ok(Vec::new()) };
    let bytes = records.clone().into_bytes();
    for batch in Batches::new(bytes.clone()) {
        batch?.verify_crc()?;
    }
    batches::decode(bytes, Offset::ZERO, Offset(i64::MAX))
}

#[cfg(test)]
mod tests;
