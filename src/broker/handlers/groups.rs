//! What the handlers of group requests share: the path to a group's coordinator and back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::common;
use crate::broker::coordinator::{OFFSETS_TOPIC, PendingReply, offsets_topic, partition_of};
use crate::broker::dispatch::{Answer, Call};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::group::{GroupError, GroupReply, GroupRequest};
use crate::protocol::{Response, Str};
use crate::types::PartitionIndex;

/// Every operation that exists on a group: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub(super) const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

pub(super) fn names(list: &[Str]) -> Vec<Arc<str>> {
    list.iter().map(Arc::from).collect()
}

pub(super) fn optional(text: Option<&Str>) -> Option<Arc<str>> {
    text.map(Arc::from)
}

/// The number of an error, 0 for none.
pub(super) fn code(error: Option<&GroupError>) -> i16 {
    error.map_or(0, |error| error.code.to_i16())
}

/// How many partitions the offsets topic has; it is created when it does not exist.
///
/// # Errors
///
/// `COORDINATOR_NOT_AVAILABLE` when it could not be created.
pub(super) async fn partition_count(call: &Call<'_>) -> Result<i32> {
    let topic = || offsets_topic(&call.state.config(), &call.state.image());
    common::partitions_of_state(call.state, OFFSETS_TOPIC, topic).await
}

/// Passes a request to the coordinator of a group.
///
/// # Errors
///
/// Those of [`partition_count`] and of the coordinator.
pub(super) async fn send(
    call: &Call<'_>,
    group: &str,
    request: GroupRequest,
) -> Result<PendingReply> {
    let count = partition_count(call).await?;
    call.state.coordinators().send(partition_of(group, count), request).await
}

/// The feature that the consumer protocol comes with, and the level from which on it is there.
const CONSUMER_PROTOCOL: (&str, i16) = ("group.version", 1);

/// Refuses a request of the consumer protocol (KIP-848) when the cluster has turned it off.
///
/// # Errors
///
/// `UNSUPPORTED_VERSION`.
pub(super) fn check_consumer_protocol(call: &Call<'_>) -> Result<()> {
    let (feature, level) = CONSUMER_PROTOCOL;
    if call.state.image().feature(feature) >= level {
        return Ok(());
    }
    let context = format!(
        "the consumer protocol is turned off: {feature} is below {level} (kafka-features upgrade \
         --feature {feature}={level} turns it on)"
    );
    Err(Error::kafka(ErrorCode::UnsupportedVersion, context))
}

/// Passes one request to each shard that has some of `groups`; yields their ids and the pending
/// answer.
pub(super) async fn send_each(
    call: &Call<'_>,
    groups: &[Str],
    request: impl Fn(Vec<Arc<str>>) -> GroupRequest,
) -> Result<Vec<(Vec<Arc<str>>, Result<PendingReply>)>> {
    let count = partition_count(call).await?;
    let mut shards: BTreeMap<PartitionIndex, Vec<Arc<str>>> = BTreeMap::new();
    for group in groups {
        shards.entry(partition_of(group, count)).or_default().push(group.into());
    }
    let mut sent = Vec::with_capacity(shards.len());
    for (partition, groups) in shards {
        let pending = call.state.coordinators().send(partition, request(groups.clone())).await;
        sent.push((groups, pending));
    }
    Ok(sent)
}

/// What a shard answered for its groups, or why it did not.
pub(super) async fn wait(pending: Result<PendingReply>) -> Result<GroupReply, GroupError> {
    let waited = match pending {
        Ok(pending) => pending.wait().await,
        Err(error) => Err(error),
    };
    waited.map_err(|error| GroupError::new(error.code(), error.chain()))
}

/// The answer is to a different question; a bug in ottla.
pub(super) fn wrong_reply() -> GroupError {
    let text = "the coordinator's answer has an unexpected form";
    GroupError::new(ErrorCode::UnknownServerError, text)
}

/// Puts results back into the order of the request; each is taken by the id of its group.
pub(super) fn in_order<T>(
    groups: &[Str],
    results: Vec<T>,
    id: impl Fn(&T) -> &str,
    missing: impl Fn(&Str, GroupError) -> T,
) -> Vec<T> {
    let mut found: BTreeMap<String, Vec<T>> = BTreeMap::new();
    for result in results {
        found.entry(id(&result).to_owned()).or_default().push(result);
    }
    let take = |group: &Str| {
        let result = found.get_mut(group.as_str()).and_then(Vec::pop);
        result.unwrap_or_else(|| missing(group, wrong_reply()))
    };
    groups.iter().map(take).collect()
}

/// Answers once the coordinator has answered; the connection's next request may begin meanwhile.
pub(super) fn later(
    pending: PendingReply,
    show: impl FnOnce(GroupReply) -> Option<Response> + Send + 'static,
) -> Answer {
    Answer::Later(Box::pin(async move {
        show(pending.wait().await?).ok_or_else(|| {
            let error = wrong_reply();
            Error::kafka(error.code, error.message)
        })
    }))
}

/// The host of the client as Kafka prints it: in Java's format of an address without a name.
pub(super) fn client_host(call: &Call<'_>) -> Arc<str> {
    match call.context.peer.as_ref().map(|peer| peer.address.ip().to_canonical()) {
        None => "in-process".into(),
        Some(IpAddr::V4(address)) => format!("/{address}").into(),
        Some(IpAddr::V6(address)) => {
            let groups = address.segments().map(|segment| format!("{segment:x}"));
            format!("/{}", groups.join(":")).into()
        }
    }
}

/// The client id; empty when the client gave none.
pub(super) fn client_id(call: &Call<'_>) -> Arc<str> {
    call.context.client_id.as_ref().map_or_else(|| "".into(), Arc::from)
}

#[cfg(test)]
mod tests {
    use super::GROUP_OPERATIONS;

    #[test]
    fn the_operations_of_groups_are_kafkas_bits() {
        assert_eq!(GROUP_OPERATIONS, 3400);
    }
}
