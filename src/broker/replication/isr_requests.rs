//! What leaders ask the controller for, and the task that asks it.
//!
//! Why: a leader decides under a lock, and the controller may be far away. Requests of all partitions that come up
//! while one command is on its way travel together in the next.
//!
//! Invariants:
//! - `ISR-1` one command is under way at a time, and in it one request of a partition.
//! - `ISR-2` the leader that asked is told of every answer, also that there is none; what it wants to ask once more, waits
//!   a little, so that a controller that cannot answer is not flooded.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::broker::parking::PartitionKey;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode};
use crate::machine::controller::{AlterPartition, IsrChange, IsrState, Refusal};
use crate::machine::replica::{IsrAnswer, IsrRequest};

/// How long until a request is sent once more.
const BACKOFF: Duration = Duration::from_millis(50);
/// How long the controller may take; who has not been told whether it did it asks again.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The requests that are to be sent. A leader has one at a time; a later one is of a later epoch.
#[derive(Debug, Default)]
pub(in crate::broker) struct IsrRequests {
    waiting: Mutex<BTreeMap<PartitionKey, IsrRequest>>,
    arrived: Notify,
}

impl IsrRequests {
    fn waiting(&self) -> MutexGuard<'_, BTreeMap<PartitionKey, IsrRequest>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has a request sent.
    pub(in crate::broker) fn put(&self, key: PartitionKey, request: IsrRequest) {
        self.waiting().insert(key, request);
        self.arrived.notify_one();
    }

    /// Has a request sent once more, unless the leader asks for something else by now.
    fn put_back(&self, key: PartitionKey, request: IsrRequest) {
        self.waiting().entry(key).or_insert(request);
        self.arrived.notify_one();
    }

    fn take(&self) -> Vec<(PartitionKey, IsrRequest)> {
        std::mem::take(&mut *self.waiting()).into_iter().collect()
    }
}

/// Sends requests until the broker stops.
pub(in crate::broker) async fn send_isr_requests(state: Arc<BrokerState>, stop: CancellationToken) {
    let requests = Arc::clone(state.partitions().isr_requests());
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = requests.arrived.notified() => {}
        }
        let asked = requests.take();
        if asked.is_empty() {
            continue;
        }
        let answers = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            answers = ask(&state, &asked) => answers,
        };
        let mut again = Vec::new();
        for ((key, request), answer) in asked.into_iter().zip(answers) {
            report(key, &request, &answer);
            if let Some(partition) = state.partitions().get(&key)
                && let Some(request) = partition.isr_answered(&request, answer)
            {
                again.push((key, request));
            }
        }
        if again.is_empty() {
            continue;
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BACKOFF) => {}
        }
        for (key, request) in again {
            requests.put_back(key, request);
        }
    }
}

/// One answer for each request, in their order.
async fn ask(state: &BrokerState, asked: &[(PartitionKey, IsrRequest)]) -> Vec<IsrAnswer> {
    let change = |((topic_id, partition), request): &(PartitionKey, IsrRequest)| IsrChange {
        topic_id: *topic_id,
        partition: *partition,
        leader_epoch: request.leader_epoch,
        partition_epoch: request.partition_epoch,
        isr: request.isr.iter().map(|member| (member.node, member.broker_epoch)).collect(),
    };
    let command = AlterPartition {
        broker: state.node_id(),
        epoch: state.broker_epoch(),
        changes: asked.iter().map(change).collect(),
    };
    let submitted = tokio::time::timeout(ANSWER_MAX, state.metadata().submit(command)).await;
    let submitted = submitted.unwrap_or_else(|_elapsed| {
        Err(Error::timeout("the controller to alter an ISR", ANSWER_MAX))
    });
    let refused = |code: ErrorCode| vec![IsrAnswer::Refused(code); asked.len()];
    match submitted.map(|committed| committed.reply) {
        Ok(Ok(answers)) if answers.len() == asked.len() => {
            answers.into_iter().map(IsrAnswer::from).collect()
        }
        Ok(Ok(_)) => refused(ErrorCode::UnknownServerError),
        Ok(Err(refusal)) => refused(refusal.code),
        Err(error) => refused(error.code()),
    }
}

impl From<Result<IsrState, Refusal>> for IsrAnswer {
    fn from(answer: Result<IsrState, Refusal>) -> Self {
        match answer {
            Ok(IsrState { leader_epoch, partition_epoch, isr, .. }) => {
                Self::Committed { leader_epoch, partition_epoch, isr }
            }
            Err(refusal) => Self::Refused(refusal.code),
        }
    }
}

fn report((topic_id, partition): PartitionKey, request: &IsrRequest, answer: &IsrAnswer) {
    let wanted: Vec<i32> = request.isr.iter().map(|member| member.node.0).collect();
    match answer {
        IsrAnswer::Committed { .. } => {
            tracing::info!(%topic_id, partition = partition.0, isr = ?wanted, "the ISR has changed");
        }
        IsrAnswer::Refused(code) => {
            tracing::debug!(%topic_id, partition = partition.0, isr = ?wanted, ?code, "the ISR was not changed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderEpoch, PartitionEpoch, PartitionIndex, Uuid};

    fn request(leader_epoch: i32) -> IsrRequest {
        let leader_epoch = LeaderEpoch(leader_epoch);
        IsrRequest { leader_epoch, partition_epoch: PartitionEpoch(0), isr: Vec::new() }
    }

    #[test]
    fn what_is_sent_once_more_gives_way_to_what_was_asked_since() {
        let (requests, key) = (IsrRequests::default(), (Uuid([1; 16]), PartitionIndex(0)));
        requests.put(key, request(1));
        assert_eq!(requests.take(), [(key, request(1))]);
        requests.put(key, request(2));
        requests.put_back(key, request(1));
        assert_eq!(requests.take(), [(key, request(2))]);
        requests.put_back(key, request(2));
        requests.put(key, request(3));
        assert_eq!(requests.take(), [(key, request(3))]);
        assert!(requests.take().is_empty());
    }
}
