//! The fetch of a follower in its session: it names what has changed for it, and is told what has moved here.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Fetcher, Limits, Read, Target, Topics, fill, interest, is_enough, is_news, partition_data,
    read_warm,
};
use crate::broker::dispatch::Call;
use crate::broker::handlers::topics::TopicKey;
use crate::broker::parking::PartitionKey;
use crate::broker::partition::{FetchRead, Follower};
use crate::broker::replication::{SessionFetch, Wanted};
use crate::error::Result;
use crate::machine::fetch_session::{FetchKey, FetchTopicKey};
use crate::protocol::messages::fetch::{FetchPartition, FetchRequest, FetchResponse};
use crate::types::PartitionIndex;

/// What was read at once.
struct Round {
    keys: Vec<PartitionKey>,
    targets: Arc<[Target]>,
    reads: Vec<Result<FetchRead>>,
}

impl Round {
    async fn read(
        call: &Call<'_>,
        (follower, wanted): (Follower, Wanted),
        limits: &Limits,
        which: Read,
    ) -> Self {
        let topics = Topics::of(call);
        let find = |(topic_id, index)| topics.leader(TopicKey::Id(topic_id), index);
        let throttle = &call.state.throttles().leader;
        let is_exceeded = throttle.pause(call.state.env().clock.monotonic()).is_some();
        let target = |(key, interest): (PartitionKey, _)| {
            let partition = find(key);
            let is_held_back = is_exceeded
                && partition.as_ref().is_ok_and(|partition| {
                    partition.is_leader_throttled() && !partition.has_in_sync(follower.node)
                });
            (key, Target { interest, partition, is_held_back })
        };
        let (keys, targets): (Vec<_>, Vec<_>) = wanted.into_iter().map(target).unzip();
        let targets: Arc<[Target]> = targets.into();
        let reads = read_warm(&call.state.env().threads, &targets, limits, which).await;
        Self { keys, targets, reads }
    }

    /// How many bytes of records count for the throttle.
    fn throttled_bytes(&self) -> usize {
        let bytes = |(target, read): (&Target, &Result<FetchRead>)| {
            let is_counted =
                target.partition.as_ref().is_ok_and(|found| found.is_leader_throttled());
            read.as_ref().map_or(0, |read| if is_counted { read.records.len() } else { 0 })
        };
        self.targets.iter().zip(&self.reads).map(bytes).sum()
    }

    fn is_enough(&self, limits: &Limits) -> bool {
        is_enough(&self.targets, &self.reads, limits)
    }

    /// Those for which something holds.
    fn select<'a>(
        &'a self,
        holds: impl Fn(&Target, &Result<FetchRead>) -> bool + 'a,
    ) -> impl DoubleEndedIterator<Item = PartitionKey> + 'a {
        let found = self.targets.iter().zip(&self.reads);
        let found = self.keys.iter().zip(found.collect::<Vec<_>>());
        found.filter(move |(_, (target, read))| holds(target, read)).map(|(key, _)| *key)
    }
}

fn has_records(_: &Target, read: &Result<FetchRead>) -> bool {
    read.as_ref().is_ok_and(|read| !read.records.is_empty())
}

/// Whether there was no room for what there is.
fn is_left_out(target: &Target, read: &Result<FetchRead>) -> bool {
    match (read, &target.partition) {
        (Ok(read), Ok(partition)) => {
            read.records.is_empty()
                && read.diverging.is_none()
                && partition.has_beyond(target.interest.fetch_offset)
        }
        _ => false,
    }
}

/// Whether the follower is to be told of it.
fn is_said(target: &Target, read: &Result<FetchRead>, fetcher: Fetcher) -> bool {
    read.as_ref().map_or(true, |read| {
        let has_something = !read.records.is_empty() || read.diverging.is_some();
        has_something || is_news(&target.interest, read, fetcher)
    })
}

pub(super) async fn handle(
    call: &Call<'_>,
    request: &FetchRequest,
    limits: &Limits,
    follower: Follower,
) -> FetchResponse {
    let fetch = session_fetch(request);
    let is_full = fetch.is_full();
    let (session, named) = match call.state.follower_sessions().open(follower, fetch) {
        Ok(opened) => opened,
        Err(code) => {
            return FetchResponse { error_code: code.to_i16(), ..FetchResponse::default() };
        }
    };
    let max_wait = Duration::from_millis(request.max_wait_ms.max(0).unsigned_abs().into());
    // A first fetch is answered at once, with everything that it names.
    let deadline = Instant::now() + if is_full { Duration::ZERO } else { max_wait };
    let came = Read::First(call.state.env().clock.monotonic());
    let mut round = Round::read(call, (follower, named), limits, came).await;
    let mut is_later = false;
    // They do not move by themselves once they are held back no longer.
    let mut held_back = Vec::new();
    while !is_full && !round.is_enough(limits) {
        // What is read once more for this fetch tells nothing of the follower: the next fetch does.
        session.put_back(round.select(|target, read| is_later || has_records(target, read)));
        let ended = tokio::select! {
            biased;
            () = session.moved() => false,
            () = call.gone.cancelled() => true,
            () = tokio::time::sleep_until(deadline) => true,
        };
        if ended {
            break;
        }
        held_back.extend(round.select(|target, _| target.is_held_back));
        round = Round::read(call, (follower, session.take_moved()), limits, Read::Later).await;
        is_later = true;
    }
    session.put_back(round.select(|target, read| is_later || is_left_out(target, read)));
    session.put_back(held_back);
    let throttle = &call.state.throttles().leader;
    throttle.record(round.throttled_bytes(), call.state.env().clock.monotonic());
    if let Some(served) = round.select(has_records).next_back() {
        session.served(served);
    }
    let mut response = FetchResponse { session_id: session.id(), ..FetchResponse::default() };
    let Round { keys, targets, reads } = round;
    let found = keys.into_iter().zip(targets.iter()).zip(reads);
    let said = found.filter(|((_, target), read)| is_full || is_said(target, read, limits.fetcher));
    let said = said.map(|(((topic_id, partition), target), read)| {
        let key = FetchKey { topic: FetchTopicKey::Id(topic_id), partition };
        let data = partition_data(&key, target, read, limits);
        (key, data)
    });
    fill(call, &mut response, said);
    response
}

fn session_fetch(request: &FetchRequest) -> SessionFetch {
    let named = request.topics.iter().flat_map(|topic| {
        let key = |wanted: &FetchPartition| (topic.topic_id, PartitionIndex(wanted.partition));
        topic.partitions.iter().map(move |wanted| (key(wanted), interest(wanted)))
    });
    let forgotten = request.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.topic_id, PartitionIndex(*partition)))
    });
    SessionFetch {
        session_id: request.session_id,
        epoch: request.session_epoch,
        interests: named.collect(),
        forgotten: forgotten.collect(),
    }
}
