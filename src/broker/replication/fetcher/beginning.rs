//! Copies that begin in the middle of a log: what they would copy next, the leader has only in its tier.
//!
//! ```text
//! Fetch ──► OFFSET_MOVED_TO_TIERED_STORAGE ──► the leader's starts ──► manifest, end of a file ──► is that the leader's log? ──► begin
//! ```
//!
//! That takes as long as the store does, so each waits for its store by itself, beside the fetches of all others, and is asked
//! for again when it has begun. What fails is tried again like a fetch that fails.

use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use super::{Asked, EARLIEST, Fetcher, SILENCE_MAX};
use crate::broker::link::Link;
use crate::broker::partition::Partition;
use crate::broker::tier::find_beginning;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Beginning;
use crate::protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};

/// How many copies of one leader begin at a time.
const AT_ONCE: usize = 4;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(60);

const EARLIEST_LOCAL: i64 = -4;

impl Fetcher {
    /// Has a copy begin when its turn comes.
    pub(super) fn want_beginning(&self, asked: Asked) {
        self.shared().beginning.insert(asked.key, Some(asked));
        self.begins.notify_one();
    }

    /// Has copies begin, forever.
    pub(super) async fn begin_copies(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < AT_ONCE
                && let Some(asked) = self.next_beginning()
            {
                running.push(async move {
                    let patience = tokio::time::timeout(PATIENCE, self.begin(&asked));
                    let begun = patience.await.unwrap_or_else(|_elapsed| {
                        Err(Error::timeout(format!("the tier of {}", asked.name()), PATIENCE))
                    });
                    (asked, begun)
                });
            }
            tokio::select! {
                biased;
                Some((asked, begun)) = running.next(), if !running.is_empty() => {
                    self.begun(&asked, begun);
                }
                () = self.begins.notified() => {}
            }
        }
    }

    fn next_beginning(&self) -> Option<Asked> {
        self.shared().beginning.values_mut().find_map(Option::take)
    }

    /// The leader is asked again, at once or after a while.
    fn begun(&self, asked: &Asked, begun: Result<()>) {
        match begun {
            Ok(()) => self.succeeded(asked),
            Err(error) => self.failed(asked, &error),
        }
        let mut shared = self.shared();
        shared.beginning.remove(&asked.key);
        shared.stirred.insert(asked.key);
        drop(shared);
        self.changed.notify_one();
    }

    async fn begin(&self, asked: &Asked) -> Result<()> {
        let address = self.address();
        let address = address.ok_or_else(|| refused("its leader is not registered", asked))?;
        let client_id = format!("broker-{}-beginning", self.parts.node_id);
        let link = Link::open(&self.parts.env.net, &address, &client_id).await?;
        let local_start = self.offset_of_leader(&link, asked, EARLIEST_LOCAL).await??;
        let log_start = self.offset_of_leader(&link, asked, EARLIEST).await??;
        if local_start <= asked.point.end || local_start <= log_start {
            // It has moved on, or was another leader's answer.
            return Ok(());
        }
        let (threads, starts) = (&self.parts.env.threads, (log_start, local_start));
        let beginning = find_beginning(threads, &asked.partition, starts).await?;
        self.check_lineage(&link, asked, &beginning).await?;
        let (point, storage) = (asked.point, self.parts.storage.clone());
        let work = move |partition: &Partition| {
            storage.cut(partition.name(), |lower| partition.begin(&point, &beginning, lower))
        };
        self.parts.log_threads.run_on(&asked.partition, work).await.map(drop)
    }

    /// Fails when the leader's log is not the one that the tier has: after an unclean election its leader leaves it alone.
    async fn check_lineage(&self, link: &Link, asked: &Asked, beginning: &Beginning) -> Result<()> {
        let last = beginning.epochs.iter().rev().find(|one| one.start_offset < beginning.offset);
        let last = last.ok_or_else(|| refused("the tier knows of no leader epoch", asked))?;
        let name = asked.name();
        let wanted = OffsetForLeaderPartition {
            partition: name.partition.0,
            current_leader_epoch: asked.point.epoch.0,
            leader_epoch: last.epoch.0,
        };
        let topic = OffsetForLeaderTopic { topic: (&name.topic).into(), partitions: vec![wanted] };
        let request =
            OffsetForLeaderEpochRequest { replica_id: self.parts.node_id.0, topics: vec![topic] };
        let response = link.call(request, SILENCE_MAX).await?;
        let told = response.topics.into_iter().flat_map(|topic| topic.partitions).next();
        let told = told.ok_or_else(|| refused("its leader does not tell of its epochs", asked))?;
        ErrorCode::from_i16(told.error_code)
            .into_result(format!("the leader does not tell of the epochs of {name}"))?;
        if told.leader_epoch == last.epoch.0 && told.end_offset >= beginning.offset.0 {
            return Ok(());
        }
        let why = format!(
            "the tier has offsets up to {} of epoch {}, which the log of its leader does not have",
            beginning.offset, last.epoch
        );
        Err(refused(&why, asked))
    }
}

fn refused(why: &str, asked: &Asked) -> Error {
    let context = format!("the copy of {} cannot begin: {why}", asked.name());
    Error::kafka(ErrorCode::KafkaStorageError, context)
}
