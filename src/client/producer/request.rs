//! The requests of a sender: built for the version that a broker knows; what their answers say of a batch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Payload;
use crate::client::cluster::Snapshot;
use crate::client::config::Acks;
use crate::client::errors;
use crate::client::route::Route;
use crate::error::{Error, ErrorCode};
use crate::machine::client::accumulator::Drained;
use crate::machine::client::transaction::Version;
use crate::protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use crate::protocol::{ApiKey, Records, Str};
use crate::types::{PartitionIndex, TopicPartition, Uuid};

/// The first version of Produce that names topics by id (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;

/// The first version of Produce that makes a partition part of the transaction (KIP-890).
const ADDS_SINCE: i16 = 12;

/// A request, in the version in which it is to be sent.
pub(super) struct Built {
    pub(super) request: ProduceRequest,
    pub(super) version: i16,
}

/// A request that cannot be built.
pub(super) struct Unbuildable {
    pub(super) error: Error,
    /// The place of the batch at fault; without one, none can be sent.
    pub(super) fault: Option<usize>,
}

/// The answers of one response, by partition.
pub(super) struct Answers<'a> {
    by_partition: BTreeMap<(Uuid, &'a str, PartitionIndex), &'a PartitionProduceResponse>,
    by_id: bool,
}

impl<'a> Answers<'a> {
    pub(super) fn of(response: &'a ProduceResponse, version: i16) -> Self {
        let by_id = version >= TOPIC_IDS_SINCE;
        let mut by_partition = BTreeMap::new();
        for topic in &response.responses {
            for answer in &topic.partition_responses {
                let (id, name) =
                    if by_id { (topic.topic_id, "") } else { (Uuid::ZERO, &*topic.name) };
                by_partition.insert((id, name, PartitionIndex(answer.index)), answer);
            }
        }
        Self { by_partition, by_id }
    }

    pub(super) fn get(
        &self,
        partition: &TopicPartition,
        snapshot: &Snapshot,
    ) -> Option<&'a PartitionProduceResponse> {
        let (id, name) = if self.by_id {
            let topic = snapshot.topics.get(&partition.topic);
            (topic.map_or(Uuid::ZERO, |topic| topic.id), "")
        } else {
            (Uuid::ZERO, &*partition.topic)
        };
        self.by_partition.get(&(id, name, partition.partition)).copied()
    }
}

/// What a refusal means to the caller, with the broker's message and a remedy.
pub(super) fn refusal(
    mut text: String,
    code: ErrorCode,
    answer: Option<&PartitionProduceResponse>,
) -> Error {
    let mut is_told = false;
    if let Some(answer) = answer {
        if let Some(message) = answer.error_message.as_ref().filter(|text| !text.is_empty()) {
            text.push_str(": ");
            // The code follows at the end of the text.
            text.push_str(message.strip_suffix(&format!(" ({code})")).unwrap_or(message));
            is_told = true;
        }
        if let Some(first) = answer.record_errors.first() {
            let message = first.batch_index_error_message.as_deref().unwrap_or_default();
            // The message of ottla's broker names the record, that of Apache Kafka does not.
            if !text.contains(message) {
                text.push_str("; record ");
                text.push_str(&first.batch_index.to_string());
                text.push_str(" of the batch: ");
                text.push_str(message);
            }
        }
    }
    if code == ErrorCode::MessageTooLarge {
        text.push_str("; raise max.message.bytes of the topic, or write smaller batches");
    }
    if is_told { Error::told(code, text) } else { Error::kafka(code, text) }
}

/// Builds one request of batches for one node; of a transactional producer, with its id and the version of the
/// transaction.
pub(super) fn build(
    route: &Route,
    batches: &mut [Drained<Payload>],
    snapshot: &Snapshot,
    acks: Acks,
    timeout: Duration,
    transaction: Option<(&str, Version)>,
) -> Result<Built, Unbuildable> {
    let all = |error| Unbuildable { error, fault: None };
    let mut version = route.version(ApiKey::Produce).map_err(all)?;
    let id_of = |topic: &str| snapshot.topics.get(topic).map_or(Uuid::ZERO, |topic| topic.id);
    if batches.iter().any(|batch| id_of(&batch.partition.topic) == Uuid::ZERO) {
        version = version.min(TOPIC_IDS_SINCE - 1);
    }
    match transaction {
        None => {}
        Some((_, Version::One)) => version = version.min(ADDS_SINCE - 1),
        Some((_, Version::Two)) if version >= ADDS_SINCE => {}
        Some((_, Version::Two)) => {
            let context =
                format!("a transaction, as the cluster does them (KIP-890), with {route}");
            return Err(all(errors::unsupported(context)));
        }
    }
    let mut topics: BTreeMap<Arc<str>, Vec<PartitionProduceData>> = BTreeMap::new();
    for (index, batch) in batches.iter_mut().enumerate() {
        let fault = |error| Unbuildable { error, fault: Some(index) };
        let bytes = batch.payload.seal(batch.stamp).map_err(fault)?;
        let data = PartitionProduceData {
            index: batch.partition.partition.0,
            records: Some(Records::from(bytes)),
        };
        topics.entry(Arc::clone(&batch.partition.topic)).or_default().push(data);
    }
    let topic_data = topics.into_iter().map(|(name, partition_data)| TopicProduceData {
        topic_id: if version >= TOPIC_IDS_SINCE { id_of(&name) } else { Uuid::ZERO },
        name: if version >= TOPIC_IDS_SINCE { Str::EMPTY } else { Str::from(&*name) },
        partition_data,
    });
    let request = ProduceRequest {
        transactional_id: transaction.map(|(id, _)| Str::from(id)),
        acks: acks.to_i16(),
        timeout_ms: i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: topic_data.collect(),
    };
    Ok(Built { request, version })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::messages::produce::BatchIndexAndErrorMessage;

    fn told(code: ErrorCode, message: &str, record: &str) -> String {
        let record = BatchIndexAndErrorMessage {
            batch_index: 3,
            batch_index_error_message: Some(record.into()),
        };
        let answer = PartitionProduceResponse {
            error_message: Some(message.into()),
            record_errors: vec![record],
            ..PartitionProduceResponse::default()
        };
        refusal("producing to x-0".to_owned(), code, Some(&answer)).to_string()
    }

    #[test]
    fn a_refusal_is_said_once() {
        let ours = Error::RecordsRefused {
            code: ErrorCode::InvalidRecord,
            detail: "record 3 of the batch: it has no key".to_owned(),
            records: Vec::new(),
        };
        assert_eq!(
            told(ErrorCode::InvalidRecord, &ours.to_string(), "it has no key"),
            "producing to x-0: record 3 of the batch: it has no key (INVALID_RECORD)"
        );
        assert_eq!(
            told(ErrorCode::InvalidRecord, "Some records were rejected.", "it has no key"),
            "producing to x-0: Some records were rejected.; record 3 of the batch: it has no key \
             (INVALID_RECORD)"
        );
    }
}
