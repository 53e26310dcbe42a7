//! ListOffsets: v1-v11.
//!
//! Behaviour: latest (-1) is the end that the isolation level may read, with the leader epoch; earliest
//! (-2) and earliest local (-4) are where the log starts, altogether and on this disk, with the epoch of that record; max
//! timestamp (-3) is the record with the largest timestamp on this disk; the latest tiered offset (-5) is the last one in the
//! tier, or -1; earliest pending upload (-6) is the one behind it. A timestamp finds the first record that is not older,
//! by its own timestamp, not that of its batch, in the tier or else on this disk; when there is none, the offset is -1
//! without an error. A record at or beyond the readable end is not found either. Versions: v2 isolation; v4
//! leader epochs; v7 max timestamp (KIP-734); v8 earliest local (KIP-405); v9 latest tiered; v10
//! timeout, which a search in the tier does not exceed; v11 earliest pending upload. Errors:
//! UNKNOWN_TOPIC_OR_PARTITION, NOT_LEADER_OR_FOLLOWER, FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH;
//! OFFSET_NOT_AVAILABLE (before v5 LEADER_NOT_AVAILABLE) for the end, or what may lie beyond it, while a new leader does
//! not know how far its followers are; UNSUPPORTED_VERSION for a special timestamp newer than the request; INVALID_REQUEST for a
//! partition that is listed twice; KAFKA_STORAGE_ERROR; REQUEST_TIMED_OUT.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use tokio::time::Instant;

use super::topics::{TopicKey, Topics};
use crate::broker::blocking::blocking;
use crate::broker::dispatch::Call;
use crate::broker::partition::{Isolation, Partition};
use crate::broker::storage::log_config;
use crate::error::{Error, ErrorCode, Result};
use crate::protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TimestampMs};

/// How long the tier is searched for a request that does not say.
const TIER_TIMEOUT: Duration = Duration::from_secs(30);
/// How many partitions are searched at a time.
const SEARCHES: usize = 4;

const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// The first version that has a special timestamp; `None` for one that no version has.
fn since(timestamp: i64) -> Option<i16> {
    match timestamp {
        0.. | LATEST | EARLIEST => Some(1),
        MAX_TIMESTAMP => Some(7),
        EARLIEST_LOCAL => Some(8),
        LATEST_TIERED => Some(9),
        EARLIEST_PENDING_UPLOAD => Some(11),
        _ => None,
    }
}

/// One partition of the request, found or not.
struct Lookup {
    partition: Result<Arc<Partition>>,
    timestamp: i64,
}

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &ListOffsetsRequest,
) -> Result<ListOffsetsResponse> {
    let isolation = match (request.replica_id, request.isolation_level) {
        (-1, 1) => Isolation::Committed,
        (-1, _) => Isolation::Uncommitted,
        _ => Isolation::Everything,
    };
    let answers = loop {
        let lookups = find_all(call, request);
        let before = local_starts(&lookups);
        let answers = look_up(call, request, lookups, isolation).await?;
        // What went to the tier meanwhile was in neither place when it was searched.
        if before.is_empty() || before == local_starts(&find_all(call, request)) {
            break answers;
        }
    };
    let mut answers = answers.into_iter();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let partitions = topic.partitions.iter().zip(answers.by_ref());
        let partitions = partitions
            .map(|(partition, answer)| respond(call, partition.partition_index, answer))
            .collect();
        topics.push(ListOffsetsTopicResponse { name: topic.name.clone(), partitions });
    }
    Ok(ListOffsetsResponse { topics, ..ListOffsetsResponse::default() })
}

/// Where the disk has the partitions that are searched for a time.
fn local_starts(lookups: &[Lookup]) -> Vec<Option<Offset>> {
    let searched = lookups.iter().filter(|lookup| lookup.timestamp >= 0);
    let start = |lookup: &Lookup| {
        lookup.partition.as_ref().ok().map(|partition| partition.reader().local_start_offset())
    };
    searched.map(start).collect()
}

/// Looks in the tier, and on this disk.
async fn look_up(
    call: &Call<'_>,
    request: &ListOffsetsRequest,
    lookups: Vec<Lookup>,
    isolation: Isolation,
) -> Result<Vec<Result<Found>>> {
    let searches = |lookup: &Lookup| lookup.timestamp >= 0 || lookup.timestamp == MAX_TIMESTAMP;
    let answer = move |lookups: Vec<Lookup>| -> Vec<Result<Found>> {
        let one = |lookup: Lookup| by_timestamp(&*lookup.partition?, lookup.timestamp, isolation);
        lookups.into_iter().map(one).collect()
    };
    let cold = search_tier(call, request, &lookups, isolation).await;
    let mut answers = if lookups.iter().any(searches) {
        // A search reads indexes and batches, possibly from disk.
        blocking(&call.state.env().threads, move || Ok(answer(lookups))).await?
    } else {
        answer(lookups)
    };
    for (answer, cold) in answers.iter_mut().zip(cold) {
        // What the tier has comes before what is here.
        if let Some(cold) = cold {
            *answer = cold;
        }
    }
    Ok(answers)
}

/// Looks for timestamps in the tier; an answer for each partition that has one there, or an error.
async fn search_tier(
    call: &Call<'_>,
    request: &ListOffsetsRequest,
    lookups: &[Lookup],
    isolation: Isolation,
) -> Vec<Option<Result<Found>>> {
    let timeout = match call.context.api_version {
        10.. if request.timeout_ms > 0 => {
            Duration::from_millis(request.timeout_ms.unsigned_abs().into())
        }
        _ => TIER_TIMEOUT,
    };
    let deadline = Instant::now() + timeout;
    let search = |lookup: &Lookup| {
        let target = (TimestampMs(lookup.timestamp), lookup.partition.as_ref().ok().cloned());
        async move {
            let (timestamp, Some(partition)) = target else { return None };
            if timestamp.0 < 0 {
                return None;
            }
            let limit =
                log_config(&partition.config(), &call.state.config()).uncompressed_bytes_max;
            let (tier, end) = (call.state.tier_reader(), partition.end(isolation));
            let found = partition.find_in_tier(tier, (timestamp, limit), end);
            match tokio::time::timeout_at(deadline, found).await {
                Ok(found) => found.map(|found| found.map(Some)).transpose(),
                Err(_elapsed) => {
                    let what = format!("the tier of {} to be searched", partition.name());
                    Some(Err(Error::timeout(&what, timeout)))
                }
            }
        }
    };
    let searches: Vec<_> = lookups.iter().map(search).collect();
    futures::stream::iter(searches).buffered(SEARCHES).collect().await
}

fn find_all(call: &Call<'_>, request: &ListOffsetsRequest) -> Vec<Lookup> {
    let topics = Topics::of(call);
    let mut seen = BTreeSet::new();
    let mut twice = BTreeSet::new();
    let all = || {
        let topics = request.topics.iter();
        topics.flat_map(|topic| topic.partitions.iter().map(|one| (topic.name.as_str(), one)))
    };
    for (name, partition) in all() {
        if !seen.insert((name, partition.partition_index)) {
            twice.insert((name, partition.partition_index));
        }
    }
    let version = call.context.api_version;
    let find = |(name, wanted): (&str, &ListOffsetsPartition)| {
        let index = wanted.partition_index;
        let partition = if twice.contains(&(name, index)) {
            let context = format!("{name}-{index} is listed twice");
            Err(Error::kafka(ErrorCode::InvalidRequest, context))
        } else {
            find(&topics, name, wanted, version)
        };
        Lookup { partition, timestamp: wanted.timestamp }
    };
    all().map(find).collect()
}

type Found = Option<(TimestampMs, Offset, LeaderEpoch)>;

fn respond(call: &Call<'_>, index: i32, result: Result<Found>) -> ListOffsetsPartitionResponse {
    let mut response = ListOffsetsPartitionResponse {
        partition_index: index,
        ..ListOffsetsPartitionResponse::default()
    };
    match result {
        Ok(None) => {}
        Ok(Some((timestamp, offset, epoch))) => {
            response.timestamp = timestamp.0;
            response.offset = offset.0;
            if call.context.api_version >= 4 {
                response.leader_epoch = epoch.0;
            }
        }
        Err(error) => {
            response.error_code = match error.code() {
                ErrorCode::OffsetNotAvailable if call.context.api_version < 5 => {
                    ErrorCode::LeaderNotAvailable
                }
                code => code,
            }
            .to_i16();
        }
    }
    response
}

fn find(
    topics: &Topics,
    topic: &str,
    wanted: &ListOffsetsPartition,
    version: i16,
) -> Result<Arc<Partition>> {
    if since(wanted.timestamp).is_none_or(|since| version < since) {
        let context = format!("timestamp {} in version {version}", wanted.timestamp);
        return Err(Error::kafka(ErrorCode::UnsupportedVersion, context));
    }
    let partition = topics.leader(TopicKey::Name(topic), PartitionIndex(wanted.partition_index))?;
    partition.check_epoch(LeaderEpoch(wanted.current_leader_epoch))?;
    Ok(partition)
}

fn at_or_unknown(
    partition: &Partition,
    offset: Option<Offset>,
) -> (TimestampMs, Offset, LeaderEpoch) {
    let epoch = offset.and_then(|offset| partition.reader().epoch_of(offset));
    let (offset, epoch) =
        (offset.unwrap_or(Offset::UNKNOWN), epoch.unwrap_or(LeaderEpoch::UNKNOWN));
    (TimestampMs::NONE, offset, epoch)
}

fn by_timestamp(partition: &Partition, timestamp: i64, isolation: Isolation) -> Result<Found> {
    let end = partition.end(isolation);
    let reader = partition.reader();
    match timestamp {
        LATEST => {
            partition.check_end(isolation)?;
            Ok(Some((TimestampMs::NONE, end, partition.leader_epoch())))
        }
        EARLIEST | EARLIEST_LOCAL => {
            let start = match timestamp {
                EARLIEST => reader.log_start_offset(),
                _ => reader.local_start_offset(),
            };
            let epoch = reader.epoch_of(start).unwrap_or(LeaderEpoch::UNKNOWN);
            Ok(Some((TimestampMs::NONE, start, epoch)))
        }
        MAX_TIMESTAMP => {
            let found = reader.max_timestamp(end)?;
            if found.is_none() {
                partition.check_end(isolation)?;
            }
            Ok(found)
        }
        LATEST_TIERED => {
            let last = reader.tiered_end_offset().map(|end| end.plus(-1));
            Ok(Some(at_or_unknown(partition, last)))
        }
        EARLIEST_PENDING_UPLOAD => Ok(Some(at_or_unknown(partition, partition.pending_upload()))),
        _ => {
            let found = reader.offset_for_timestamp(TimestampMs(timestamp), end)?;
            let found = found.filter(|&(_, offset, _)| offset < end);
            if found.is_none() {
                partition.check_end(isolation)?;
            }
            Ok(found)
        }
    }
}
