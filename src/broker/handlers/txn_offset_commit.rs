//! TxnOffsetCommit: v0-v6.
//!
//! Behaviour: stores offsets of a group that count when the producer's transaction is committed; answered once they
//! are committed to the log. Before the first of a transaction, the transaction coordinator confirms that the group is
//! part of it or, from v5 on, makes it part. Versions: v2 leader epochs (KIP-320); v3 the member that reads, which is checked as
//! for OffsetCommit (KIP-447), but a rebalance is no reason to refuse; v4 TRANSACTION_ABORTABLE (KIP-890); v5 adds the group to the
//! transaction; v6 topic ids, GROUP_ID_NOT_FOUND, STALE_MEMBER_EPOCH (KIP-1319). Errors, per partition:
//! UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID; INVALID_GROUP_ID; OFFSET_METADATA_TOO_LARGE; UNKNOWN_MEMBER_ID;
//! FENCED_INSTANCE_ID; ILLEGAL_GENERATION; STALE_MEMBER_EPOCH; GROUP_ID_NOT_FOUND; INVALID_PRODUCER_EPOCH;
//! INVALID_PRODUCER_ID_MAPPING; INVALID_TXN_STATE; TRANSACTION_ABORTABLE; CONCURRENT_TRANSACTIONS; NOT_COORDINATOR;
//! COORDINATOR_NOT_AVAILABLE; COORDINATOR_LOAD_IN_PROGRESS, which before v2 is COORDINATOR_NOT_AVAILABLE.

use std::sync::Arc;

use super::topics::{TopicKey, Topics};
use super::{commits, groups};
use crate::broker::coordinator::{OFFSETS_TOPIC, Proof, partition_of};
use crate::broker::dispatch::{Answer, Call};
use crate::broker::state::BrokerState;
use crate::broker::transactions::AddOrVerify;
use crate::broker::words;
use crate::error::{Error, ErrorCode, Result};
use crate::log::FirstBatch;
use crate::machine::coordinator::Producer;
use crate::machine::group::{
    CommitOffsetsRequest, CommitTopic, GroupError, GroupReply, GroupRequest,
};
use crate::protocol::messages::txn_offset_commit::{
    TxnOffsetCommitRequest, TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    TxnOffsetCommitResponse, TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use crate::types::{PartitionIndex, ProducerEpoch, ProducerId, Sequence, TopicPartition};

/// The first version whose clients know COORDINATOR_LOAD_IN_PROGRESS here (KAFKA-7296).
const KNOWS_LOADING: i16 = 2;
/// The first version whose clients know TRANSACTION_ABORTABLE (KIP-890).
const KNOWS_ABORTABLE: i16 = 4;
/// The first version that makes the group part of the transaction.
const ADDS: i16 = 5;
/// The first version with topic ids instead of names, and with the errors of the consumer protocol.
const TOPIC_IDS: i16 = 6;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &TxnOffsetCommitRequest,
) -> Result<Answer> {
    let version = call.context.api_version;
    let known = Topics::of(call);
    let mut response = TxnOffsetCommitResponse::default();
    let mut topics = Vec::new();
    for topic in &request.topics {
        let (shown, wanted) = split(topic, version, &known);
        response.topics.push(shown);
        topics.extend(wanted);
    }
    if topics.is_empty() {
        return Ok(response.into());
    }
    let producer = Producer {
        id: ProducerId(request.producer_id),
        epoch: ProducerEpoch(request.producer_epoch),
    };
    let commit = CommitOffsetsRequest {
        group_id: (&request.group_id).into(),
        generation_or_epoch: request.generation_id_or_member_epoch,
        member_id: (&request.member_id).into(),
        instance_id: groups::optional(request.group_instance_id.as_ref()),
        retention_ms: None,
        knows_member_epochs: version >= TOPIC_IDS,
        transaction: Some(producer),
        topics,
    };
    let count = if request.group_id.is_empty() {
        Err(words::no_group_id())
    } else {
        groups::partition_count(call).await
    };
    let (state, transactional_id) = (Arc::clone(call.state), request.transactional_id.clone());
    Ok(Answer::Later(Box::pin(async move {
        let committed = match count {
            Ok(count) => {
                let partition = partition_of(&commit.group_id, count);
                self::commit(&state, (&transactional_id, version), partition, commit).await
            }
            Err(error) => Err(error),
        };
        let result = match committed {
            Ok(GroupReply::CommitOffsets(result)) => result,
            Ok(_) => Err(groups::wrong_reply()),
            Err(error) => Err(GroupError::new(error.code(), error.chain())),
        };
        commits::fill(places(&mut response), result, |code| to_client(code, version));
        Ok(response.into())
    })))
}

/// Makes sure that the group is part of the transaction, and commits the offsets.
async fn commit(
    state: &BrokerState,
    (transactional_id, version): (&str, i16),
    partition: PartitionIndex,
    commit: CommitOffsetsRequest,
) -> Result<GroupReply> {
    let proof = match commit.transaction {
        Some(producer) => {
            take_part(state, (transactional_id, version), producer, partition).await?
        }
        None => Proof::Unneeded,
    };
    let request = GroupRequest::CommitOffsets(commit);
    state.coordinators().send_with(partition, request, proof).await?.wait().await
}

/// Has the transaction coordinator confirm that a partition of the topic of offsets is part of a transaction or, from
/// the version on that asks for it, make it part. Where the transaction is open, it is.
async fn take_part(
    state: &BrokerState,
    (transactional_id, version): (&str, i16),
    producer: Producer,
    partition: PartitionIndex,
) -> Result<Proof> {
    let name = TopicPartition::new(OFFSETS_TOPIC, partition);
    let image = state.image();
    let topic = image.topic(OFFSETS_TOPIC);
    let led = topic.map(|topic| state.partitions().leader(topic, partition)).transpose();
    let Ok(Some(led)) = led else {
        return Err(words::not_led(ErrorCode::NotCoordinator, &name));
    };
    let how = if version >= ADDS { AddOrVerify::Add } else { AddOrVerify::Verify };
    if how == AddOrVerify::Verify && !state.config().verification.is_enabled {
        return Ok(Proof::Unneeded);
    }
    let first = FirstBatch {
        producer_id: producer.id,
        producer_epoch: producer.epoch,
        base_sequence: Sequence(0),
        supports_epoch_bump: how == AddOrVerify::Add,
    };
    let verifier = led.reader().verifier();
    let Some(guard) = verifier.begin(&first, state.env().clock.now())? else {
        return Ok(Proof::Open);
    };
    let asked = state.add_partitions(
        transactional_id,
        producer.id,
        producer.epoch.0,
        std::slice::from_ref(&name),
        how,
    );
    match asked.await.first().copied().unwrap_or(ErrorCode::UnknownServerError) {
        ErrorCode::None => Ok(Proof::Confirmed(guard)),
        code => {
            if !code.retriable() {
                verifier.give_up(&first, guard);
            }
            let context = format!(
                "the offsets in {name} are not part of the transaction of {transactional_id:?}"
            );
            Err(Error::kafka(to_client(code, version), context))
        }
    }
}

/// See [`commits::split`].
fn split(
    topic: &TxnOffsetCommitRequestTopic,
    version: i16,
    topics: &Topics,
) -> (TxnOffsetCommitResponseTopic, Option<CommitTopic>) {
    let key = TopicKey::of(&topic.name, topic.topic_id, version >= TOPIC_IDS);
    let partition = |partition: &TxnOffsetCommitRequestPartition| {
        let at = (partition.committed_offset, partition.committed_leader_epoch);
        let index = PartitionIndex(partition.partition_index);
        commits::partition(index, at, partition.committed_metadata.as_ref())
    };
    let asked = topic.partitions.iter().map(partition).collect();
    let (codes, wanted) = commits::split(topics, key, asked);
    let told = topic.partitions.iter().zip(codes).map(|(partition, code)| {
        TxnOffsetCommitResponsePartition {
            partition_index: partition.partition_index,
            error_code: code.to_i16(),
        }
    });
    let shown = TxnOffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: told.collect(),
    };
    (shown, wanted)
}

/// Where the result for each partition is told.
fn places(response: &mut TxnOffsetCommitResponse) -> impl Iterator<Item = &mut i16> {
    let partitions = response.topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    partitions.map(|partition| &mut partition.error_code)
}

/// What the coordinators say, in words that the client knows.
const fn to_client(code: ErrorCode, version: i16) -> ErrorCode {
    match code {
        ErrorCode::CoordinatorLoadInProgress | ErrorCode::NetworkException
            if version < KNOWS_LOADING =>
        {
            ErrorCode::CoordinatorNotAvailable
        }
        // Older clients do not expect it here; this one makes them try again without looking for a coordinator.
        ErrorCode::NetworkException => ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::TransactionAbortable if version < KNOWS_ABORTABLE => ErrorCode::InvalidTxnState,
        code => code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_clients_are_told_what_they_know() {
        let loading = ErrorCode::CoordinatorLoadInProgress;
        let cases = [
            (loading, 1, ErrorCode::CoordinatorNotAvailable),
            (loading, 2, loading),
            (ErrorCode::NetworkException, 1, ErrorCode::CoordinatorNotAvailable),
            (ErrorCode::NetworkException, 6, loading),
            (ErrorCode::TransactionAbortable, 3, ErrorCode::InvalidTxnState),
            (ErrorCode::TransactionAbortable, 4, ErrorCode::TransactionAbortable),
            (ErrorCode::ConcurrentTransactions, 5, ErrorCode::ConcurrentTransactions),
        ];
        for (code, version, told) in cases {
            assert_eq!(to_client(code, version), told, "{code:?} at version {version}");
        }
    }
}
