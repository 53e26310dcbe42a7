//! Fetch: v4-v18.
//!
//! Behaviour: whole batches, starting with the one that holds the requested offset; at least one batch
//! even above every limit (KIP-74); records as they are in the log, not copied. Waits until `min_bytes`
//! are available or `max_wait_ms` have passed; a move of the high watermark wakes it. Without a
//! session, every partition of the request is in the response; in a session, those with news (KIP-227).
//! read_uncommitted reads to the high watermark, read_committed to the last stable offset, with the
//! aborted transactions of the range, by first offset. A follower (v15, a broker of the cluster in its registration)
//! reads to the log end, which moves the ISR and the high watermark; a high watermark or a log start that it does not
//! know are told at once. Versions: v4 isolation; v5 log start offset; v7
//! sessions; v9 leader epochs (KIP-320); v11 rack: with `replica.selector.class` the leader names a replica in the
//! consumer's rack instead of records (KIP-392), and followers serve consumers up to the high watermark that they know; v12 last
//! fetched epoch and divergence (KIP-595); v13 topic ids; v15 replica state; v16 leader endpoints
//! (KIP-951); v17 directory id and v18 high watermark of followers. Errors: OFFSET_OUT_OF_RANGE;
//! NOT_LEADER_OR_FOLLOWER; FENCED_LEADER_EPOCH, UNKNOWN_LEADER_EPOCH; one of the two for a follower that is no
//! replica; UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID; FETCH_SESSION_ID_NOT_FOUND,
//! INVALID_FETCH_SESSION_EPOCH, FETCH_SESSION_TOPIC_ID_ERROR; UNSUPPORTED_COMPRESSION_TYPE for a zstd
//! topic before v10; KAFKA_STORAGE_ERROR (NOT_LEADER_OR_FOLLOWER up to v5, which does not know it), also where a file of
//! the tier is damaged, missing or cannot be reached; OFFSET_MOVED_TO_TIERED_STORAGE for a follower below the local start.

mod cold;
mod following;

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::common;
use super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::broker::parking::{Awaited, PartitionKey};
use crate::broker::partition::{FetchRead, Follower, Isolation, Partition, Room, Source};
use crate::env::Threads;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::fetch_session::{
    FINAL_EPOCH, FetchContext, FetchInterest, FetchKey, FetchOutcome, FetchTopicKey, FollowerView,
    SessionRequest,
};
use crate::protocol::messages::fetch::{
    AbortedTransaction, EpochEndOffset, FetchPartition, FetchRequest, FetchResponse,
    FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use crate::protocol::{Records, Str};
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId, Offset, PartitionIndex, Uuid};

/// The `replica_id` of a consumer, and of a tool that reads like one.
const CONSUMER: i32 = -1;
const DEBUGGER: i32 = -2;

const READ_COMMITTED: i8 = 1;

/// The first version in which a consumer can be sent to another replica.
const NEARBY_SINCE: i16 = 11;

/// The limits of one request.
#[derive(Clone)]
struct Limits {
    min_bytes: usize,
    max_bytes: usize,
    isolation: Isolation,
    fetcher: Fetcher,
    version: i16,
    /// The brokers in the rack of the consumer, if it is to read there and not here.
    near: Arc<[NodeId]>,
}

impl Limits {
    /// Whether a follower may answer: to consumers that know of it, as in Kafka whether or not they name a rack.
    fn is_for_any_replica(&self) -> bool {
        matches!(self.fetcher, Fetcher::Consumer) && self.version >= NEARBY_SINCE
    }
}

/// Who fetches.
#[derive(Clone, Copy)]
enum Fetcher {
    /// A client, or a tool that reads like one.
    Consumer,
    /// A broker in its registration. Whether it has a replica of a partition is looked at there.
    Follower(Follower),
    /// Somebody who calls himself a follower, and is no broker as far as this one can tell.
    Stranger,
    /// A broker in a registration that it had before.
    Former,
}

impl Fetcher {
    const fn awaits(self) -> Awaited {
        match self {
            Self::Consumer | Self::Stranger | Self::Former => Awaited::Committed,
            Self::Follower(_) => Awaited::Appended,
        }
    }
}

/// Which read of a request it is.
#[derive(Clone, Copy)]
enum Read {
    /// The first, at this moment: what a follower asks for tells how far it has come.
    First(Duration),
    /// One after it had to wait.
    Later,
}

/// A partition of the request, found or not.
struct Target {
    interest: FetchInterest,
    partition: Result<Arc<Partition>>,
    /// A follower gets no records of it now: it is throttled.
    is_held_back: bool,
}

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &FetchRequest,
) -> Result<FetchResponse> {
    let version = call.context.api_version;
    let limits = limits(call, request, version);
    if let Fetcher::Follower(follower) = limits.fetcher
        && request.session_epoch != FINAL_EPOCH
    {
        return Ok(following::handle(call, request, &limits, follower).await);
    }
    let now = call.state.env().clock.now();
    let sessions = call.state.fetch_sessions();
    let opened = {
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.open(now, session_request(request, version))
    };
    let context = match opened {
        Ok(context) => context,
        Err(code) => {
            let error_code = code.to_i16();
            return Ok(FetchResponse { error_code, ..FetchResponse::default() });
        }
    };
    let targets: Arc<[Target]> = find_targets(call, &context, &limits).into();
    let max_wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    let reads = read_or_wait(call, &targets, &limits, max_wait).await;
    let partitions: Vec<PartitionData> = context
        .interests
        .iter()
        .zip(&*targets)
        .zip(reads)
        .map(|(((key, _), target), read)| partition_data(key, target, read, &limits))
        .collect();
    let outcomes: Vec<FetchOutcome> = partitions.iter().map(outcome).collect();
    let now = call.state.env().clock.now();
    let session = {
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.close(now, &context, &outcomes)
    };
    let mut response = FetchResponse {
        error_code: session.error.to_i16(),
        session_id: session.session_id,
        ..FetchResponse::default()
    };
    if session.error.is_ok() {
        let kept = partitions.into_iter().zip(session.included);
        let kept = context.interests.into_iter().zip(kept).filter(|(_, (_, included))| *included);
        fill(call, &mut response, kept.map(|((key, _), (data, _))| (key, data)));
    }
    Ok(response)
}

fn session_request(request: &FetchRequest, version: i16) -> SessionRequest {
    let topic_key = |name: &Str, id: Uuid| {
        if version >= 13 { FetchTopicKey::Id(id) } else { FetchTopicKey::Name(name.into()) }
    };
    let mut interests = Vec::new();
    for topic in &request.topics {
        let key = topic_key(&topic.topic, topic.topic_id);
        for partition in &topic.partitions {
            let key =
                FetchKey { topic: key.clone(), partition: PartitionIndex(partition.partition) };
            interests.push((key, interest(partition)));
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let key = topic_key(&topic.topic, topic.topic_id);
        let keys = topic.partitions.iter();
        forgotten.extend(keys.map(|&partition| FetchKey {
            topic: key.clone(),
            partition: PartitionIndex(partition),
        }));
    }
    // Before version 7 there are no sessions; the fields then have their defaults, which say so.
    SessionRequest {
        session_id: request.session_id,
        epoch: request.session_epoch,
        uses_topic_ids: version >= 13,
        privileged: replica_id(request, version) >= 0,
        interests,
        forgotten,
    }
}

fn interest(partition: &FetchPartition) -> FetchInterest {
    FetchInterest {
        fetch_offset: Offset(partition.fetch_offset),
        max_bytes: partition.partition_max_bytes,
        current_leader_epoch: LeaderEpoch(partition.current_leader_epoch),
        last_fetched_epoch: LeaderEpoch(partition.last_fetched_epoch),
        known: known(partition),
    }
}

/// What the fetcher knows, as far as it says: a consumer says nothing, an old follower not everything.
fn known(partition: &FetchPartition) -> FollowerView {
    let or_unasked = |offset: i64| if offset < 0 { Offset(i64::MAX) } else { Offset(offset) };
    FollowerView {
        high_watermark: Offset(partition.high_watermark),
        log_start: or_unasked(partition.log_start_offset),
        local_start: or_unasked(partition.local_log_start_offset),
    }
}

fn replica_id(request: &FetchRequest, version: i16) -> i32 {
    if version >= 15 { request.replica_state.replica_id } else { request.replica_id }
}

fn limits(call: &Call<'_>, request: &FetchRequest, version: i16) -> Limits {
    let fetch_max_bytes = call.state.config().fetch_max_bytes;
    let max_bytes = usize::try_from(request.max_bytes.min(fetch_max_bytes).max(0)).unwrap_or(0);
    let min_bytes = usize::try_from(request.min_bytes.max(0)).unwrap_or(0).min(max_bytes);
    let fetcher = fetcher(call, request, version);
    Limits {
        min_bytes,
        max_bytes,
        isolation: match (fetcher, request.isolation_level) {
            (Fetcher::Follower(_), _) => Isolation::Everything,
            (_, READ_COMMITTED) => Isolation::Committed,
            _ => Isolation::Uncommitted,
        },
        near: near(call, request, fetcher),
        fetcher,
        version,
    }
}

/// The brokers that a consumer is sent to: those in its rack, unless this one is there, too.
fn near(call: &Call<'_>, request: &FetchRequest, fetcher: Fetcher) -> Arc<[NodeId]> {
    let rack = request.rack_id.as_str();
    let is_asked = matches!(fetcher, Fetcher::Consumer) && !rack.is_empty();
    if !is_asked || !call.state.config().replication.is_rack_aware {
        return Arc::default();
    }
    let nodes = common::brokers(call.state, call.context.reached());
    let near = nodes.iter().filter(|node| node.rack.as_deref() == Some(rack)).map(|node| node.id);
    let near: Arc<[NodeId]> = near.collect();
    if near.contains(&call.state.node_id()) { Arc::default() } else { near }
}

/// A follower is a broker that names its registration, comes in by the listener of brokers, and is known by that
/// registration here. Before v15 it cannot name it, and a client that just takes a broker's number would move the
/// high watermark.
fn fetcher(call: &Call<'_>, request: &FetchRequest, version: i16) -> Fetcher {
    let replica = replica_id(request, version);
    if replica == CONSUMER || replica == DEBUGGER {
        return Fetcher::Consumer;
    }
    let (node, named) = (NodeId(replica), BrokerEpoch(request.replica_state.replica_epoch));
    let listener = &call.state.config().replication.inter_broker_listener;
    let is_inside = call.context.reached().is_some_and(|way| way.listener.name() == listener);
    let image = call.state.image();
    let known = image.broker(node).filter(|_| is_inside && version >= 15);
    match known.map(|known| known.epoch) {
        Some(broker_epoch) if broker_epoch == named => {
            Fetcher::Follower(Follower { node, broker_epoch })
        }
        Some(newer) if newer > named && named != BrokerEpoch::UNKNOWN => Fetcher::Former,
        _ => Fetcher::Stranger,
    }
}

fn find_targets(call: &Call<'_>, context: &FetchContext, limits: &Limits) -> Vec<Target> {
    let topics = Topics::of(call);
    let find = |key: &FetchKey| {
        let (topic, index) = (TopicKey::from(&key.topic), key.partition);
        if limits.is_for_any_replica() {
            topics.replica(topic, index)
        } else {
            topics.leader(topic, index)
        }
    };
    context
        .interests
        .iter()
        .map(|(key, interest)| Target {
            interest: *interest,
            partition: find(key),
            is_held_back: false,
        })
        .collect()
}

/// Reads; if that yields too little, waits for a partition to move and reads again.
async fn read_or_wait(
    call: &Call<'_>,
    targets: &Arc<[Target]>,
    limits: &Limits,
    max_wait: Duration,
) -> Vec<Result<FetchRead>> {
    let came = Read::First(call.state.env().clock.monotonic());
    let first = read_everywhere(call, targets, limits, came).await;
    if max_wait.is_zero() || targets.is_empty() || is_enough(targets, &first, limits) {
        return first;
    }
    let keys: Vec<PartitionKey> = targets
        .iter()
        .filter_map(|target| target.partition.as_ref().ok().map(|partition| partition.key()))
        .collect();
    let deadline = Instant::now() + max_wait;
    let Some(parked) = call.state.parking().park(limits.fetcher.awaits(), keys) else {
        return first;
    };
    drop(first);
    loop {
        // Park first, read afterwards: whatever moves in between wakes the wait below.
        let reads = read_everywhere(call, targets, limits, Read::Later).await;
        if is_enough(targets, &reads, limits) {
            return reads;
        }
        let ended = tokio::select! {
            biased;
            () = parked.moved() => false,
            () = call.gone.cancelled() => true,
            () = tokio::time::sleep_until(deadline) => true,
        };
        if ended {
            return reads;
        }
    }
}

fn is_enough(targets: &[Target], reads: &[Result<FetchRead>], limits: &Limits) -> bool {
    let mut bytes = 0;
    for (target, read) in targets.iter().zip(reads) {
        match read {
            Ok(read) if read.is_cold || is_news(&target.interest, read, limits.fetcher) => {
                return true;
            }
            Ok(read) if read.diverging.is_none() && read.preferred.is_none() => {
                bytes += read.records.len();
            }
            _ => return true,
        }
    }
    bytes >= limits.min_bytes
}

/// Whether a follower is to be told of something else than records: of a high watermark that it can follow, or of a
/// log that starts later, altogether or on this disk.
fn is_news(interest: &FetchInterest, read: &FetchRead, fetcher: Fetcher) -> bool {
    let FollowerView { high_watermark, log_start, local_start } = interest.known;
    matches!(fetcher, Fetcher::Follower(_))
        && (read.high_watermark.min(interest.fetch_offset) > high_watermark
            || read.log_start_offset > log_start
            || read.local_start_offset.min(interest.fetch_offset) > local_start)
}

/// Reads from this disk, and what it has no more from the tier: the one place of a fetch that may wait for bytes.
async fn read_everywhere(
    call: &Call<'_>,
    targets: &Arc<[Target]>,
    limits: &Limits,
    which: Read,
) -> Vec<Result<FetchRead>> {
    let mut reads = read_warm(&call.state.env().threads, targets, limits, which).await;
    cold::fill(call, targets, limits, &mut reads).await;
    reads
}

/// Reads on a blocking thread when the read would have to wait for the disk.
async fn read_warm(
    threads: &Threads,
    targets: &Arc<[Target]>,
    limits: &Limits,
    which: Read,
) -> Vec<Result<FetchRead>> {
    let is_cold = |target: &Target| match &target.partition {
        Ok(partition) => partition.is_cold(&target.interest, limits.max_bytes, limits.isolation),
        Err(_) => false,
    };
    if targets.iter().any(is_cold) {
        let (cold, own) = (Arc::clone(targets), limits.clone());
        if let Ok(reads) = threads.spawn_blocking(move || read_all(&cold, &own, which)).await {
            return reads;
        }
    }
    read_all(targets, limits, which)
}

fn read_all(targets: &[Target], limits: &Limits, which: Read) -> Vec<Result<FetchRead>> {
    let mut left = limits.max_bytes;
    let mut at_least_one = true;
    let mut reads = Vec::with_capacity(targets.len());
    for target in targets {
        let read = read_one(target, limits, (left, at_least_one), which);
        if let Ok(read) = &read {
            let size = read.records.len();
            at_least_one &= size == 0;
            left = left.saturating_sub(size);
        }
        reads.push(read);
    }
    reads
}

fn read_one(
    target: &Target,
    limits: &Limits,
    (left, at_least_one): (usize, bool),
    which: Read,
) -> Result<FetchRead> {
    let partition = match &target.partition {
        Ok(partition) => partition,
        Err(error) => return Err(Error::kafka(error.code(), error.to_string())),
    };
    match limits.fetcher {
        Fetcher::Stranger => {
            return Err(partition.refuse_follower(target.interest.current_leader_epoch));
        }
        Fetcher::Former => {
            let context = "the follower has been registered again since";
            return Err(Error::kafka(ErrorCode::NotLeaderOrFollower, context));
        }
        Fetcher::Consumer | Fetcher::Follower(_) => {}
    }
    if limits.version < 10 && partition.compresses_with_zstd() {
        let context = format!("{} is compressed with zstd", partition.name());
        return Err(Error::kafka(ErrorCode::UnsupportedCompressionType, context));
    }
    let asked = usize::try_from(target.interest.max_bytes.max(0)).unwrap_or(0);
    let room = if target.is_held_back {
        Room { max_bytes: 0, at_least_one: false }
    } else {
        Room { max_bytes: asked.min(left), at_least_one }
    };
    match limits.fetcher {
        Fetcher::Follower(follower) => {
            let came = match which {
                Read::First(now) => Some(now),
                Read::Later => None,
            };
            partition.fetch_for_follower(follower, &target.interest, room, came)
        }
        _ if limits.is_for_any_replica() => {
            let from = Source::Replica(&limits.near);
            partition.fetch(&target.interest, room, limits.isolation, from)
        }
        _ => partition.fetch(&target.interest, room, limits.isolation, Source::Leader),
    }
}

fn partition_data(
    key: &FetchKey,
    target: &Target,
    read: Result<FetchRead>,
    limits: &Limits,
) -> PartitionData {
    let partition_index = key.partition.0;
    let read = match read {
        Ok(read) => read,
        Err(error) => {
            report(key, target, &error);
            let code = match error.code() {
                ErrorCode::KafkaStorageError if limits.version <= 5 => {
                    ErrorCode::NotLeaderOrFollower
                }
                code => code,
            };
            return PartitionData {
                partition_index,
                error_code: code.to_i16(),
                high_watermark: -1,
                records: Some(Records::new()),
                ..PartitionData::default()
            };
        }
    };
    let aborted = |entry: &crate::log::AbortedTransaction| AbortedTransaction {
        producer_id: entry.producer_id.0,
        first_offset: entry.first_offset.0,
    };
    PartitionData {
        partition_index,
        high_watermark: read.high_watermark.0,
        last_stable_offset: read.last_stable_offset.0,
        log_start_offset: read.log_start_offset.0,
        diverging_epoch: read.diverging.map_or_else(EpochEndOffset::default, |end| {
            EpochEndOffset { epoch: end.epoch.0, end_offset: end.end_offset.0 }
        }),
        aborted_transactions: (limits.isolation == Isolation::Committed)
            .then(|| read.aborted.iter().map(aborted).collect()),
        preferred_read_replica: read.preferred.map_or(-1, |node| node.0),
        records: Some(read.records),
        local_log_start_offset: match limits.fetcher {
            Fetcher::Follower(_) if target.interest.known.local_start != Offset(i64::MAX) => {
                read.local_start_offset.0
            }
            _ => Offset::UNKNOWN.0,
        },
        ..PartitionData::default()
    }
}

/// Damage on disk needs an operator's attention; a client's mistake does not.
fn report(key: &FetchKey, target: &Target, error: &Error) {
    let (partition, offset) = (key.partition, target.interest.fetch_offset);
    match (error, &target.partition) {
        (Error::Corrupt { .. } | Error::Io { .. }, Ok(found)) => {
            let partition = found.name();
            tracing::error!(%partition, %offset, error = %error.chain(), "records cannot be read");
        }
        _ => {
            tracing::debug!(partition = partition.0, %offset, error = %error.chain(), "fetch failed");
        }
    }
}

fn outcome(data: &PartitionData) -> FetchOutcome {
    FetchOutcome {
        must_respond: data.diverging_epoch.epoch >= 0 || data.preferred_read_replica >= 0,
        has_records: data.records.as_ref().is_some_and(|records| !records.is_empty()),
        error: ErrorCode::from_i16(data.error_code),
        high_watermark: Offset(data.high_watermark),
        log_start_offset: Offset(data.log_start_offset),
    }
}

/// Puts partitions into the response, grouping consecutive ones of the same topic.
fn fill(
    call: &Call<'_>,
    response: &mut FetchResponse,
    kept: impl Iterator<Item = (FetchKey, PartitionData)>,
) {
    let mut current: Option<FetchTopicKey> = None;
    for (key, data) in kept {
        if current.as_ref() != Some(&key.topic) {
            let mut topic = FetchableTopicResponse::default();
            match &key.topic {
                FetchTopicKey::Id(id) => topic.topic_id = *id,
                FetchTopicKey::Name(name) => topic.topic = Str::from(name),
            }
            response.responses.push(topic);
            current = Some(key.topic);
        }
        if let Some(topic) = response.responses.last_mut() {
            topic.partitions.push(data);
        }
    }
    if call.context.api_version >= 16 {
        name_leaders(call, response);
    }
}

/// Names the leader where the client asked the wrong broker (KIP-951).
fn name_leaders(call: &Call<'_>, response: &mut FetchResponse) {
    let codes = [ErrorCode::NotLeaderOrFollower, ErrorCode::FencedLeaderEpoch];
    let stale = |data: &PartitionData| codes.contains(&ErrorCode::from_i16(data.error_code));
    if !response.responses.iter().any(|topic| topic.partitions.iter().any(stale)) {
        return;
    }
    let topics = Topics::of(call);
    let nodes = common::brokers(call.state, call.context.reached());
    for topic in &mut response.responses {
        let Ok(known) = topics.find(TopicKey::Id(topic.topic_id)) else { continue };
        for data in topic.partitions.iter_mut().filter(|data| stale(data)) {
            let Some(known) = known.partition(PartitionIndex(data.partition_index)) else {
                continue;
            };
            data.current_leader =
                LeaderIdAndEpoch { leader_id: known.leader.0, leader_epoch: known.leader_epoch.0 };
            let is_listed = |node: &NodeEndpoint| node.node_id == known.leader.0;
            if response.node_endpoints.iter().any(is_listed) {
                continue;
            }
            if let Some(node) = nodes.iter().find(|node| node.id == known.leader) {
                response.node_endpoints.push(NodeEndpoint {
                    node_id: node.id.0,
                    host: node.host.clone(),
                    port: node.port,
                    rack: node.rack.clone(),
                });
            }
        }
    }
}
