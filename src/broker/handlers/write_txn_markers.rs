//! WriteTxnMarkers: v1-v2.
//!
//! Behaviour: the coordinator of a transaction, or an administrator who ends one that hangs, has its end written into
//! partitions that are led here; answered per partition when the marker is committed. In a partition of the topic of offsets the
//! coordinator of its groups writes the marker, and knows what it decides when it is answered. A marker is written also
//! where the producer has nothing. Versions: v2 the version of transactions that the coordinator goes by (KIP-1228): from 2 on
//! a marker that ends something is of a newer epoch than what it ends. Errors, per partition: UNKNOWN_TOPIC_OR_PARTITION;
//! NOT_LEADER_OR_FOLLOWER, also while the coordinator of the groups is not ready; NOT_ENOUGH_REPLICAS;
//! INVALID_PRODUCER_EPOCH for a marker of an epoch that is over; TRANSACTION_COORDINATOR_FENCED for one of an older coordinator than
//! the last; REQUEST_TIMED_OUT; KAFKA_STORAGE_ERROR.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::topics::{TopicKey, Topics};
use crate::broker::coordinator::OFFSETS_TOPIC;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::partition::Appended;
use crate::broker::state::BrokerState;
use crate::broker::words;
use crate::error::{ErrorCode, Result};
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::protocol::Str;
use crate::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::record::control::TransactionMarker;
use crate::types::{PartitionIndex, ProducerEpoch, ProducerId};

/// How long a marker may take; as in Kafka, by default.
const WRITTEN_WITHIN: Duration = Duration::from_secs(30);

/// The producer, the topic and the partition of a marker.
type Place = (i64, Str, PartitionIndex);

/// What a marker waits for.
enum What {
    /// It is handed to the log.
    Appended(Appended),
    /// The coordinator of the groups is to write it.
    Groups(TransactionEnd),
}

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &WriteTxnMarkersRequest,
) -> Result<Answer> {
    let deadline = Instant::now() + WRITTEN_WITHIN;
    let known = Topics::of(call);
    let mut results = Results::default();
    let mut pending = Vec::new();
    for marker in &request.markers {
        for topic in &marker.topics {
            for index in topic.partition_indexes.iter().copied().map(PartitionIndex) {
                let place = (marker.producer_id, topic.name.clone(), index);
                match begin(call, &known, marker, (&topic.name, index)).await {
                    Ok(what) => pending.push((place, what)),
                    Err(error) => results.fill(place, error.code()),
                }
            }
        }
    }
    let state = Arc::clone(call.state);
    Ok(Answer::Later(Box::pin(async move {
        let written = pending.into_iter().map(|(place, what)| {
            let state = &state;
            async move {
                let written = written(state, what, place.2);
                let in_time = tokio::time::timeout_at(deadline, written).await;
                (place, in_time.unwrap_or(ErrorCode::RequestTimedOut))
            }
        });
        for (place, code) in futures::future::join_all(written).await {
            results.fill(place, code);
        }
        Ok(results.response.into())
    })))
}

/// Hands a marker to its partition.
async fn begin(
    call: &Call<'_>,
    known: &Topics,
    marker: &WritableTxnMarker,
    (name, index): (&Str, PartitionIndex),
) -> Result<What> {
    let topic = known.find(TopicKey::Name(name))?;
    let partition = call.state.partitions().leader(topic, index)?;
    let (producer_id, epoch) =
        (ProducerId(marker.producer_id), ProducerEpoch(marker.producer_epoch));
    let (committed, coordinator_epoch) = (marker.transaction_result, marker.coordinator_epoch);
    let transaction_version = i16::from(marker.transaction_version);
    if &*topic.name == OFFSETS_TOPIC {
        return Ok(What::Groups(TransactionEnd {
            producer: Producer { id: producer_id, epoch },
            committed,
            coordinator_epoch,
            transaction_version,
        }));
    }
    let batch = TransactionMarker { committed, coordinator_epoch };
    let batch = batch.batch(producer_id, epoch, call.state.env().clock.now())?;
    let log_threads = call.state.log_threads();
    Ok(What::Appended(log_threads.append_marker(&partition, batch, transaction_version).await?))
}

/// What became of a marker.
async fn written(state: &BrokerState, what: What, index: PartitionIndex) -> ErrorCode {
    let written = match what {
        What::Groups(end) => state.coordinators().complete_transaction(index, end).await,
        What::Appended(appended) => {
            let closed = |_dropped| Err(words::closed_before_commit("the marker was"));
            appended.await.map_or_else(closed, |answer| answer.map(drop))
        }
    };
    match written {
        Ok(()) => ErrorCode::None,
        Err(error) => {
            tracing::debug!(error = %error.chain(), "a transaction marker was not written");
            error.code()
        }
    }
}

/// The answer. All that is about one producer is together, as in Kafka.
#[derive(Default)]
struct Results {
    response: WriteTxnMarkersResponse,
    /// Where in the answer each producer is, each topic of one, and each partition of that.
    producers: BTreeMap<i64, usize>,
    topics: BTreeMap<(usize, Str), usize>,
    partitions: BTreeMap<(usize, usize, PartitionIndex), usize>,
}

impl Results {
    /// A later code for the same partition takes the place of the one before.
    fn fill(&mut self, (producer_id, name, index): Place, code: ErrorCode) {
        let markers = &mut self.response.markers;
        let at = *self.producers.entry(producer_id).or_insert_with(|| {
            markers.push(WritableTxnMarkerResult {
                producer_id,
                ..WritableTxnMarkerResult::default()
            });
            markers.len() - 1
        });
        let Some(WritableTxnMarkerResult { topics, .. }) = markers.get_mut(at) else { return };
        let topic = *self.topics.entry((at, name.clone())).or_insert_with(|| {
            topics.push(WritableTxnMarkerTopicResult {
                name,
                ..WritableTxnMarkerTopicResult::default()
            });
            topics.len() - 1
        });
        let Some(WritableTxnMarkerTopicResult { partitions, .. }) = topics.get_mut(topic) else {
            return;
        };
        let (partition_index, error_code) = (index.0, code.to_i16());
        let place = *self.partitions.entry((at, topic, index)).or_insert_with(|| {
            partitions.push(WritableTxnMarkerPartitionResult { partition_index, error_code });
            partitions.len() - 1
        });
        if let Some(result) = partitions.get_mut(place) {
            result.error_code = error_code;
        }
    }
}
