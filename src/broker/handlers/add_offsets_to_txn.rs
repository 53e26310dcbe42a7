//! AddOffsetsToTxn: v0-v4.
//!
//! Behaviour: adds the partition of `__consumer_offsets` that a group belongs to, to a transaction that is coordinated
//! here; the producer then commits offsets of the group with TxnOffsetCommit. Clients of the second version of
//! transactions do not need it. Versions: v2 PRODUCER_FENCED, before it INVALID_PRODUCER_EPOCH. Errors: as
//! AddPartitionsToTxn, for the request as a whole.

use std::sync::Arc;

use super::{groups, transactions};
use crate::broker::coordinator::{OFFSETS_TOPIC, partition_of};
use crate::broker::dispatch::{Answer, Call};
use crate::broker::transactions::AddOrVerify;
use crate::error::Result;
use crate::machine::transaction::{AddPartitionsRequest, Producer};
use crate::protocol::messages::add_offsets_to_txn::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse,
};
use crate::types::{ProducerId, TopicPartition};

/// The first version with PRODUCER_FENCED.
const FENCED_SINCE: i16 = 2;

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &AddOffsetsToTxnRequest,
) -> Result<Answer> {
    let count = groups::partition_count(call).await?;
    let partition = TopicPartition::new(OFFSETS_TOPIC, partition_of(&request.group_id, count));
    let asked = AddPartitionsRequest {
        transactional_id: (&request.transactional_id).into(),
        producer: Producer { id: ProducerId(request.producer_id), epoch: request.producer_epoch },
        partitions: [partition.clone()].into(),
        version: 0,
    };
    let (state, version) = (Arc::clone(call.state), call.context.api_version);
    Ok(Answer::Later(Box::pin(async move {
        let added = state.add_partitions_here(asked, AddOrVerify::Add).await;
        let code = transactions::for_client(added.of(&partition), version, FENCED_SINCE);
        let error_code = code.to_i16();
        Ok(AddOffsetsToTxnResponse { error_code, throttle_time_ms: 0 }.into())
    })))
}
