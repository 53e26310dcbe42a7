//! DeleteTopics: v1-v6.
//!
//! Behaviour: each topic independently, by name or by id; when the answer arrives they are gone
//! from Metadata. Their files are renamed at once and removed later (`file.delete.delay.ms`).
//! Versions: v5 messages; v6 topic ids. Errors: UNKNOWN_TOPIC_OR_PARTITION, UNKNOWN_TOPIC_ID;
//! TOPIC_DELETION_DISABLED by `delete.topic.enable` (INVALID_REQUEST up to v2, which does not know
//! it); INVALID_REQUEST for a topic that is listed twice, named by both name and id, or by neither;
//! REQUEST_TIMED_OUT.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::broker::dispatch::Call;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{DeleteTopics, Refusal, TopicRef};
use crate::protocol::Str;
use crate::protocol::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicsRequest, DeleteTopicsResponse,
};
use crate::types::{TopicId, Uuid};

pub(in crate::broker) async fn handle(
    call: &Call<'_>,
    request: &DeleteTopicsRequest,
) -> Result<DeleteTopicsResponse> {
    if !call.state.config().delete_topic_enable {
        let code = if call.context.api_version < 3 {
            ErrorCode::InvalidRequest
        } else {
            ErrorCode::TopicDeletionDisabled
        };
        return Err(Error::kafka(code, "delete.topic.enable is false"));
    }
    let mut responses = Vec::new();
    let wanted = collect(request, &mut responses);
    let command = DeleteTopics { topics: wanted.clone() };
    let results = call.state.submit(command, request.timeout_ms).await?;
    for (topic, result) in wanted.iter().zip(results) {
        responses.push(match (topic, result) {
            (_, Ok(deleted)) => entry(Some(&deleted.name), deleted.id, None),
            (TopicRef::Name(name), Err(refusal)) => entry(Some(name), Uuid::ZERO, Some(refusal)),
            (TopicRef::Id(id), Err(refusal)) => entry(None, *id, Some(refusal)),
        });
    }
    Ok(DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() })
}

fn entry(
    name: Option<&Arc<str>>,
    topic_id: TopicId,
    refusal: Option<Refusal>,
) -> DeletableTopicResult {
    let (code, message) =
        refusal.map_or((ErrorCode::None, None), |refusal| (refusal.code, Some(refusal.message)));
    DeletableTopicResult {
        name: name.map(Str::from),
        topic_id,
        error_code: code.to_i16(),
        error_message: message.map(Str::from),
    }
}

/// The topics that are listed once; the others are answered here.
fn collect(
    request: &DeleteTopicsRequest,
    responses: &mut Vec<DeletableTopicResult>,
) -> Vec<TopicRef> {
    let mut counts: BTreeMap<TopicRef, usize> = BTreeMap::new();
    let mut order = Vec::new();
    let mut add = |topic: TopicRef| {
        let count = counts.entry(topic.clone()).or_insert(0);
        *count += 1;
        if *count == 1 {
            order.push(topic);
        }
    };
    let refuse = |message: &str| Some(Refusal::new(ErrorCode::InvalidRequest, message));
    for name in &request.topic_names {
        add(TopicRef::Name(name.into()));
    }
    for topic in &request.topics {
        match (&topic.name, topic.topic_id == Uuid::ZERO) {
            (None, true) => {
                let refusal = refuse("Neither topic name nor id were specified.");
                responses.push(entry(None, Uuid::ZERO, refusal));
            }
            (None, false) => add(TopicRef::Id(topic.topic_id)),
            (Some(name), true) => add(TopicRef::Name(name.into())),
            (Some(name), false) => {
                let refusal = refuse("You may not specify both topic name and topic id.");
                responses.push(entry(Some(&name.into()), topic.topic_id, refusal));
            }
        }
    }
    let twice: BTreeSet<&TopicRef> =
        counts.iter().filter(|(_, count)| **count > 1).map(|(topic, _)| topic).collect();
    for topic in &twice {
        responses.push(match topic {
            TopicRef::Name(name) => entry(Some(name), Uuid::ZERO, refuse("Duplicate topic name.")),
            TopicRef::Id(id) => entry(None, *id, refuse("Duplicate topic id.")),
        });
    }
    order.retain(|topic| !twice.contains(topic));
    order
}
