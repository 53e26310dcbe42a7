//! The requests of a fetcher: built for the version that a broker knows, with answers in our own
//! types.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use crate::client::admin::{ListedOffset, OffsetSpec, list_offsets};
use crate::client::cluster::{Cluster, Lane};
use crate::client::config::{ClientConfig, ConsumerConfig, IsolationLevel};
use crate::client::errors;
use crate::client::route::Route;
use crate::columnar::AbortedTransaction;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::client::fetching::{Marks, Position, Target};
use crate::protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use crate::protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use crate::protocol::{ApiKey, Str};
use crate::record::Batches;
use crate::types::{LeaderEpoch, NodeId, Offset, ProducerId, TopicId, TopicPartition, Uuid};

/// The first version of Fetch that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;

/// A partition to be fetched.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) partition: TopicPartition,
    pub(super) topic_id: TopicId,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) offset: Offset,
}

/// The result for a partition without an error.
#[derive(Debug)]
pub(super) struct Answer {
    /// Whole batches, possibly followed by a partial one.
    pub(super) bytes: Bytes,
    /// The position after the last whole batch; none without one.
    pub(super) next: Option<Position>,
    pub(super) aborted: Option<Vec<AbortedTransaction>>,
    pub(super) marks: Marks,
    /// The high watermark, or the last stable offset for committed records.
    pub(super) readable_end: Offset,
    pub(super) preferred_replica: Option<NodeId>,
}

/// The result or the error of each partition.
pub(super) type FetchAnswers = BTreeMap<TopicPartition, std::result::Result<Answer, ErrorCode>>;

/// Sends one Fetch request and reads its answer.
pub(super) async fn fetch(
    route: &Route,
    client: &ClientConfig,
    config: &ConsumerConfig,
    wanted: &[Wanted],
    wait: Duration,
) -> Result<FetchAnswers> {
    let mut version = route.version(ApiKey::Fetch)?;
    if wanted.iter().any(|wanted| wanted.topic_id == Uuid::ZERO) {
        version = version.min(TOPIC_IDS_SINCE - 1);
    }
    let request = build(config, &client.client_rack, wanted, version, wait);
    let timeout = client.request_timeout.saturating_add(wait);
    let response = route.call_at(request, version, timeout).await?;
    ErrorCode::from_i16(response.error_code).into_result("fetching")?;
    read(response, config.isolation_level, wanted, version)
}

fn build(
    config: &ConsumerConfig,
    rack: &str,
    wanted: &[Wanted],
    version: i16,
    wait: Duration,
) -> FetchRequest {
    let size = |bytes: usize| i32::try_from(bytes).unwrap_or(i32::MAX);
    let mut topics: Vec<FetchTopic> = Vec::new();
    for wanted in wanted {
        let partition = FetchPartition {
            partition: wanted.partition.partition.0,
            current_leader_epoch: wanted.leader_epoch.0,
            fetch_offset: wanted.offset.0,
            partition_max_bytes: size(config.partition_bytes_max),
            ..FetchPartition::default()
        };
        let is_same = |topic: &FetchTopic| *topic.topic == *wanted.partition.topic;
        // The order keeps partitions fair, so topics may occur twice in it; a request names each
        // once.
        match topics.iter_mut().find(|topic| is_same(topic)) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: Str::from(&*wanted.partition.topic),
                topic_id: wanted.topic_id,
                partitions: vec![partition],
            }),
        }
    }
    if version >= TOPIC_IDS_SINCE {
        for topic in &mut topics {
            topic.topic = Str::EMPTY;
        }
    }
    FetchRequest {
        replica_id: -1,
        max_wait_ms: i32::try_from(wait.as_millis()).unwrap_or(i32::MAX),
        min_bytes: size(config.fetch_bytes_min),
        max_bytes: size(config.fetch_bytes_max),
        isolation_level: config.isolation_level.to_i8(),
        session_id: 0,
        session_epoch: -1,
        topics,
        rack_id: Str::from(rack),
        ..FetchRequest::default()
    }
}

fn read(
    response: FetchResponse,
    isolation_level: IsolationLevel,
    wanted: &[Wanted],
    version: i16,
) -> Result<FetchAnswers> {
    let mut answers = BTreeMap::new();
    for topic in response.responses {
        for data in topic.partitions {
            let asked = wanted.iter().find(|wanted| {
                wanted.partition.partition.0 == data.partition_index
                    && if version >= TOPIC_IDS_SINCE {
                        wanted.topic_id == topic.topic_id
                    } else {
                        *wanted.partition.topic == *topic.topic
                    }
            });
            let Some(asked) = asked else { continue };
            let code = ErrorCode::from_i16(data.error_code);
            let answer = if code.is_ok() {
                Ok(read_partition(data, asked, isolation_level)?)
            } else {
                Err(code)
            };
            answers.insert(asked.partition.clone(), answer);
        }
    }
    Ok(answers)
}

fn read_partition(
    data: PartitionData,
    asked: &Wanted,
    isolation_level: IsolationLevel,
) -> Result<Answer> {
    let marks = Marks {
        log_start: Offset(data.log_start_offset),
        high_watermark: Offset(data.high_watermark),
        last_stable: Offset(data.last_stable_offset),
    };
    let is_committed = isolation_level == IsolationLevel::ReadCommitted;
    let readable_end = if is_committed { marks.last_stable } else { marks.high_watermark };
    let aborted = is_committed.then(|| {
        let list = data.aborted_transactions.unwrap_or_default();
        let mut aborted: Vec<AbortedTransaction> = list
            .into_iter()
            .map(|transaction| AbortedTransaction {
                producer_id: ProducerId(transaction.producer_id),
                first_offset: Offset(transaction.first_offset),
            })
            .collect();
        aborted.sort_unstable_by_key(|transaction| transaction.first_offset);
        aborted
    });
    let bytes = data.records.map(crate::protocol::Records::into_bytes).unwrap_or_default();
    let mut next = None;
    for batch in Batches::new(bytes.clone()) {
        let batch = batch.map_err(|error| {
            Error::at_offset(error.code(), &asked.partition, asked.offset, error)
        })?;
        let header = batch.header();
        if header.next_offset() > asked.offset {
            next = Some(Position { offset: header.next_offset(), epoch: header.leader_epoch });
        }
    }
    let preferred_replica = (data.preferred_read_replica >= 0 && bytes.is_empty())
        .then_some(NodeId(data.preferred_read_replica));
    Ok(Answer { bytes, next, aborted, marks, readable_end, preferred_replica })
}

/// Looks up offsets; a timestamp after all records yields the end.
pub(super) async fn list_offsets_or_end(
    cluster: &Cluster,
    wanted: &BTreeMap<TopicPartition, OffsetSpec>,
    isolation_level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, ListedOffset>> {
    let mut listed = list_offsets(cluster, wanted, isolation_level).await?;
    let late: BTreeMap<TopicPartition, OffsetSpec> = listed
        .iter()
        .filter(|(_, listed)| listed.offset.is_none())
        .map(|(partition, _)| (partition.clone(), OffsetSpec::Latest))
        .collect();
    if !late.is_empty() {
        listed.extend(list_offsets(cluster, &late, isolation_level).await?);
    }
    Ok(listed)
}

/// What a partition holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) log_start: Offset,
    pub(super) readable_end: Offset,
}

/// What a partition holds.
pub(super) async fn extent(
    cluster: &Cluster,
    partition: &TopicPartition,
    isolation_level: IsolationLevel,
) -> Result<Extent> {
    let lookup = async |spec| {
        let wanted = BTreeMap::from([(partition.clone(), spec)]);
        let listed = list_offsets(cluster, &wanted, isolation_level).await?;
        listed.get(partition).and_then(|listed| listed.offset).ok_or_else(|| {
            Error::malformed("response", format!("it has no offset for {partition}"))
        })
    };
    let log_start = lookup(OffsetSpec::Earliest).await?;
    Ok(Extent { log_start, readable_end: lookup(OffsetSpec::Latest).await? })
}

/// The end of the leader epoch in which a position was read: beyond it, the log has different
/// records now. `None` when the leader cannot tell.
pub(super) async fn end_of_epoch(
    cluster: &Cluster,
    target: &Target<Position>,
    under: LeaderEpoch,
) -> Result<Option<Offset>> {
    let partition = &target.partition;
    let leader = cluster.snapshot().leader(partition);
    let leader = leader.ok_or_else(|| errors::no_leader(partition))?;
    let route = cluster.route(leader.node, Lane::Control).await?;
    let version = match route.version(ApiKey::OffsetForLeaderEpoch) {
        // Version 3 is the first that needs no permission on the cluster; with older ones,
        // positions are not validated.
        Ok(version) if version >= 3 => version,
        _ => return Ok(None),
    };
    let request = OffsetForLeaderEpochRequest {
        replica_id: -1,
        topics: vec![OffsetForLeaderTopic {
            topic: Str::from(&*partition.topic),
            partitions: vec![OffsetForLeaderPartition {
                partition: partition.partition.0,
                current_leader_epoch: under.0,
                leader_epoch: target.what.epoch.0,
            }],
        }],
    };
    let response = route.call_at(request, version, cluster.config.request_timeout).await?;
    let answer = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
    let answer = answer.ok_or_else(|| errors::not_mentioned(partition))?;
    ErrorCode::from_i16(answer.error_code)
        .into_result(format!("validating the position of {partition}"))?;
    Ok(Some(Offset(answer.end_offset)).filter(|&end| end >= Offset::ZERO))
}
