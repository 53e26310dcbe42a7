//! WriteTxnMarkers: v1-v2.
//!
//! Behaviour: writes the markers that end transactions to partitions that this broker leads; asked by transaction
//! coordinators, and by administrators who abort what hangs. Answered when all are committed, each partition with its own
//! error. Markers for the topic of offsets go through the coordinator of the groups. Versions: v2 says by which
//! version of transactions the coordinator goes; from 2 on the epoch of a marker is newer than that of its
//! transaction. Errors, per partition: UNKNOWN_TOPIC_OR_PARTITION; NOT_LEADER_OR_FOLLOWER; INVALID_PRODUCER_EPOCH;
//! TRANSACTION_COORDINATOR_FENCED; NOT_ENOUGH_REPLICAS; REQUEST_TIMED_OUT; KAFKA_STORAGE_ERROR.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;

use super::topics::{TopicKey, Topics};
use crate::broker::coordinator::OFFSETS_TOPIC;
use crate::broker::dispatch::{Answer, Call};
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Append;
use crate::machine::coordinator::{Producer, TransactionEnd};
use crate::protocol::messages::write_txn_markers::{
    WritableTxnMarker, WritableTxnMarkerPartitionResult, WritableTxnMarkerResult,
    WritableTxnMarkerTopicResult, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use crate::record::control::TransactionMarker;
use crate::types::{ProducerEpoch, ProducerId};

/// How long the followers may take; Kafka's default of `request.timeout.ms`.
const COMMITTED_MAX: Duration = Duration::from_secs(30);

/// One marker in one partition; the numbers are those of its place in the answer.
struct Place {
    at: (usize, usize, usize),
    topic: crate::protocol::Str,
    partition: i32,
    end: TransactionEnd,
}

pub(in crate::broker) fn handle(call: &Call<'_>, request: &WriteTxnMarkersRequest) -> Answer {
    let mut response = WriteTxnMarkersResponse::default();
    let mut places = Vec::new();
    for marker in &request.markers {
        // In Kafka's answer, only partitions that were asked for have a place.
        let topics: Vec<_> =
            marker.topics.iter().filter(|topic| !topic.partition_indexes.is_empty()).collect();
        if topics.is_empty() {
            continue;
        }
        let mut result =
            WritableTxnMarkerResult { producer_id: marker.producer_id, topics: Vec::new() };
        for topic in topics {
            let mut partitions = Vec::new();
            for &partition_index in &topic.partition_indexes {
                places.push(Place {
                    at: (response.markers.len(), result.topics.len(), partitions.len()),
                    topic: topic.name.clone(),
                    partition: partition_index,
                    end: end_of(marker),
                });
                partitions
                    .push(WritableTxnMarkerPartitionResult { partition_index, error_code: 0 });
            }
            let name = topic.name.clone();
            result.topics.push(WritableTxnMarkerTopicResult { name, partitions });
        }
        response.markers.push(result);
    }
    let (state, known) = (Arc::clone(call.state), Topics::of(call));
    Answer::Later(Box::pin(async move {
        let write = |place: &Place| {
            let written = write(&state, &known, place.topic.clone(), place.partition, place.end);
            async move { tokio::time::timeout(COMMITTED_MAX, written).await }
        };
        let outcomes = join_all(places.iter().map(write)).await;
        for (Place { at: (marker, topic, partition), .. }, outcome) in places.iter().zip(outcomes) {
            let error_code = match outcome {
                Ok(Ok(())) => ErrorCode::None,
                Ok(Err(error)) => error.code(),
                Err(_elapsed) => ErrorCode::RequestTimedOut,
            };
            let found = response.markers.get_mut(*marker);
            let found = found.and_then(|marker| marker.topics.get_mut(*topic));
            if let Some(place) = found.and_then(|topic| topic.partitions.get_mut(*partition)) {
                place.error_code = error_code.to_i16();
            }
        }
        Ok(response.into())
    }))
}

fn end_of(marker: &WritableTxnMarker) -> TransactionEnd {
    TransactionEnd {
        producer: Producer {
            id: ProducerId(marker.producer_id),
            epoch: ProducerEpoch(marker.producer_epoch),
        },
        committed: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
        transaction_version: marker.transaction_version.into(),
    }
}

/// Writes a marker; returns when it is committed.
async fn write(
    state: &BrokerState,
    known: &Topics,
    topic: crate::protocol::Str,
    partition: i32,
    end: TransactionEnd,
) -> Result<()> {
    let led = known.leader(TopicKey::Name(&topic), partition)?;
    if &*topic == OFFSETS_TOPIC {
        return state.coordinators().complete_transaction(partition, end).await;
    }
    let TransactionEnd { producer, committed, coordinator_epoch, transaction_version } = end;
    let marker = TransactionMarker { committed, coordinator_epoch };
    let batch = marker.batch(producer.id, producer.epoch, state.env().clock.now())?;
    let append = Append::Marker { batch, transaction_version };
    let appended = state.log_threads().append_own(&led, led.leader_epoch(), append).await?;
    appended.await.map_err(|_dropped| {
        let context = format!("{} was closed", led.name());
        Error::kafka(ErrorCode::NotLeaderOrFollower, context)
    })??;
    Ok(())
}
