//! Before batches of a transaction are appended: whether the transaction's coordinator knows of the partitions (KIP-890).
//!
//! A batch that continues a transaction which is open in its partition needs no question. For the others the coordinator
//! is asked once, for all partitions of the request: from v12 on to add them to the transaction, before that whether
//! they were added. What a client is told of its refusal depends on what clients of the version can make of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::topics::{TopicKey, Topics};
use crate::broker::dispatch::Call;
use crate::broker::partition::Partition;
use crate::broker::transactions::AddOrVerify;
use crate::error::{Error, ErrorCode, Result};
use crate::log::{FirstBatch, Guard};
use crate::protocol::messages::produce::{ProduceRequest, TopicProduceData};
use crate::record::BatchHeader;
use crate::types::{PartitionIndex, ProducerEpoch, ProducerId, TopicPartition};

/// The first version whose clients know TRANSACTION_ABORTABLE.
const KNOWS_ABORTABLE: i16 = 11;
/// The first version that adds partitions to the transaction.
const ADDS: i16 = 12;

/// The place of a partition in the request: that of its topic, and its own.
pub(super) type Place = (usize, usize);

/// What was found of the partitions that need more than an append.
#[derive(Debug, Default)]
pub(super) struct Verification(BTreeMap<Place, Result<Guard>>);

impl Verification {
    /// The guard with which a partition's batch is appended, if it needs one.
    ///
    /// # Errors
    ///
    /// The batch is not to be appended.
    pub(super) fn take(&mut self, place: Place) -> Result<Option<Guard>> {
        self.0.remove(&place).transpose()
    }
}

/// A batch that begins its transaction in a partition.
struct Beginning {
    place: Place,
    partition: Arc<Partition>,
    first: FirstBatch,
    guard: Guard,
}

/// Verifies what a request has of a transaction.
///
/// # Errors
///
/// All of the request is refused: TRANSACTIONAL_ID_AUTHORIZATION_FAILED for batches of a transaction without its id,
/// INVALID_PRODUCER_ID_MAPPING for those of several producers.
pub(super) async fn verify(
    call: &Call<'_>,
    request: &ProduceRequest,
    known: &Topics,
) -> Result<Verification> {
    let batches = batches_of_transactions(request);
    let Some((_, first)) = batches.first() else { return Ok(Verification::default()) };
    let producer = (first.producer_id, first.producer_epoch);
    let Some(id) = request.transactional_id.as_deref() else {
        let context = "a batch is part of a transaction, but the request names no transactional id";
        return Err(Error::kafka(ErrorCode::TransactionalIdAuthorizationFailed, context));
    };
    if batches.iter().any(|(_, header)| (header.producer_id, header.producer_epoch) != producer) {
        let context = format!("the batches of transactional id {id:?} are of several producers");
        return Err(Error::kafka(ErrorCode::InvalidProducerIdMapping, context));
    }
    let version = call.context.api_version;
    let how = if version >= ADDS { AddOrVerify::Add } else { AddOrVerify::Verify };
    if how == AddOrVerify::Verify && !call.state.config().verification.is_enabled {
        return Ok(Verification::default());
    }
    let mut found = Verification::default();
    let mut beginnings = Vec::new();
    for (place, header) in &batches {
        match begin(call, request, known, (*place, header)) {
            Ok(beginning) => beginnings.extend(beginning),
            Err(error) => drop(found.0.insert(*place, Err(error))),
        }
    }
    let asked: Vec<TopicPartition> =
        beginnings.iter().map(|one| one.partition.name().clone()).collect();
    let codes = call.state.add_partitions(id, producer.0, producer.1.0, &asked, how).await;
    for (Beginning { place, partition, first, guard }, code) in beginnings.into_iter().zip(codes) {
        let result = match code {
            ErrorCode::None => Ok(guard),
            code => {
                if is_final(code) {
                    partition.reader().verifier().give_up(&first, guard);
                }
                let name = partition.name();
                let context = format!("{name} could not be made part of the transaction: {code}");
                Err(Error::kafka(for_client(code, version), context))
            }
        };
        found.0.insert(place, result);
    }
    Ok(found)
}

/// The batches that say that they are part of a transaction. Those that are none at all are refused later.
fn batches_of_transactions(request: &ProduceRequest) -> Vec<(Place, BatchHeader)> {
    let mut batches = Vec::new();
    for (topic, data) in request.topic_data.iter().enumerate() {
        for (index, partition) in data.partition_data.iter().enumerate() {
            let Some(records) = &partition.records else { continue };
            let Ok(header) = BatchHeader::parse(&records.clone().into_bytes()) else { continue };
            if header.is_transactional() && header.has_producer_id() {
                batches.push(((topic, index), header));
            }
        }
    }
    batches
}

/// Begins the verification in one partition; none if its transaction is open there, or the partition cannot be
/// appended to, as its producer is about to hear.
fn begin(
    call: &Call<'_>,
    request: &ProduceRequest,
    known: &Topics,
    (place, header): (Place, &BatchHeader),
) -> Result<Option<Beginning>> {
    let version = call.context.api_version;
    let Some(topic) = request.topic_data.get(place.0) else { return Ok(None) };
    let Some(partition) = find(call, known, topic, (place.1, version)) else { return Ok(None) };
    let first = FirstBatch {
        producer_id: ProducerId(header.producer_id.0),
        producer_epoch: ProducerEpoch(header.producer_epoch.0),
        base_sequence: header.base_sequence,
        supports_epoch_bump: version >= ADDS,
    };
    let guard = partition.reader().verifier().begin(&first, call.state.env().clock.now())?;
    Ok(guard.map(|guard| Beginning { place, partition, first, guard }))
}

fn find(
    call: &Call<'_>,
    known: &Topics,
    topic: &TopicProduceData,
    (index, version): (usize, i16),
) -> Option<Arc<Partition>> {
    let found = known.find(TopicKey::of(&topic.name, topic.topic_id, version >= 13)).ok()?;
    let index = PartitionIndex(topic.partition_data.get(index)?.index);
    call.state.partitions().leader(found, index).ok()
}

/// Whether the coordinator will say the same of this producer in this epoch whenever it is asked.
const fn is_final(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidProducerIdMapping)
}

/// What a client is told. It tries again after NOT_ENOUGH_REPLICAS, which refreshes no metadata; older ones do not know
/// that they should after errors of coordinators, nor that a transaction can be aborted after TRANSACTION_ABORTABLE.
const fn for_client(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::NetworkException
        | ErrorCode::CoordinatorLoadInProgress
        | ErrorCode::CoordinatorNotAvailable
        | ErrorCode::NotCoordinator => ErrorCode::NotEnoughReplicas,
        // The end of the transaction before, which is being written.
        ErrorCode::ConcurrentTransactions if version < ADDS => ErrorCode::NotEnoughReplicas,
        ErrorCode::TransactionAbortable if version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        ErrorCode::ProducerFenced => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_told_what_they_can_use() {
        let told = |code| [10, 11, 12].map(|version| for_client(code, version));
        let retry = ErrorCode::NotEnoughReplicas;
        assert_eq!(told(ErrorCode::NotCoordinator), [retry; 3]);
        let concurrent = ErrorCode::ConcurrentTransactions;
        assert_eq!(told(concurrent), [retry, retry, concurrent]);
        let abortable = ErrorCode::TransactionAbortable;
        assert_eq!(told(abortable), [ErrorCode::InvalidTxnState, abortable, abortable]);
        assert_eq!(told(ErrorCode::InvalidProducerEpoch), [ErrorCode::InvalidProducerEpoch; 3]);
    }
}
