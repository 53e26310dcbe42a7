//! The only task that calls the controller.
//!
//! It takes the queued commands, steps the controller through them, appends all their records as
//! one entry, and answers once it is committed and applied, so many commands share one fsync.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::state_machine::Shared;
use super::store::PartitionStore;
use super::types::TypeConfig;
use crate::broker::full_disk;
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::Machine;
use crate::machine::controller::{Command, Controller, Decision, Event, Reply};
use crate::machine::metadata::{MetadataImage, MetadataRecord};
use crate::types::{NodeId, TimestampMs};

/// The most commands that share an entry.
const BATCH_MAX: usize = 256;
/// The most records in an entry, so that it stays far below the size of a segment. Only a decision
/// about a broker that leads more partitions than this is split.
const RECORDS_MAX: usize = 12_000;
/// The free space required on disk to write metadata.
const ROOM_BYTES: u64 = 1 << 20;

/// A command, and who waits for its result.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) command: Command,
    pub(super) reply: oneshot::Sender<Result<Reply>>,
}

/// Everything that the task owns.
pub(super) struct Submitter {
    pub(super) node_id: NodeId,
    pub(super) env: Env,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) shared: Arc<Shared>,
    pub(super) store: PartitionStore,
    pub(super) controller: Controller,
    pub(super) stopping: CancellationToken,
    pub(super) waiting: mpsc::Receiver<Submission>,
    /// The bytes of log after which a snapshot is requested.
    pub(super) limit_bytes: u64,
}

/// The commands of one entry, decided but not yet committed.
#[derive(Default)]
struct Batch {
    records: Vec<MetadataRecord>,
    answers: Vec<(oneshot::Sender<Result<Reply>>, Reply)>,
}

impl Submitter {
    /// Runs until it is told to stop and has answered what was sent; then closes the log.
    pub(super) async fn run(mut self) -> Result<()> {
        self.serve().await;
        drop(self.raft.shutdown().await);
        self.store.close().await
    }

    async fn serve(&mut self) {
        let mut term = None;
        loop {
            let submission = tokio::select! {
                biased;
                () = self.stopping.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
                submission = self.waiting.recv() => match submission {
                    Some(submission) => Some(submission),
                    None => return,
                },
                () = until_deadline(&self.env, self.controller.next_deadline()) => None,
            };
            if let Err(error) = self.lead(&mut term).await {
                if let Some(submission) = submission {
                    // The requester may have stopped waiting.
                    drop(submission.reply.send(Err(error)));
                }
                continue;
            }
            let batch = self.decide(submission);
            self.commit(batch).await;
        }
    }

    /// Makes sure that this node leads, and that the controller knows everything committed.
    async fn lead(&mut self, term: &mut Option<u64>) -> Result<()> {
        let (leader, current, failure) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let failure = metrics.running_state.as_ref().err().map(ToString::to_string);
            (metrics.current_leader, metrics.current_term, failure)
        };
        if let Some(failure) = failure {
            return Err(super::fatal(&failure));
        }
        if leader != Some(self.node_id) {
            *term = None;
            // Only the leader runs timers.
            self.restore();
            return Err(not_controller(leader));
        }
        if *term != Some(current) {
            self.raft
                .ensure_linearizable()
                .await
                .map_err(|error| Error::kafka(ErrorCode::NotController, error.to_string()))?;
            self.restore();
            *term = Some(current);
        }
        Ok(())
    }

    fn restore(&mut self) {
        self.controller.restore(MetadataImage::clone(&self.shared.image()));
    }

    /// Steps the controller through the first command and those queued behind it.
    fn decide(&mut self, first: Option<Submission>) -> Batch {
        let mut batch = Batch::default();
        match first {
            None => self.step(Event::Tick, None, &mut batch),
            Some(first) => self.command(first, &mut batch),
        }
        for _ in 1..BATCH_MAX {
            if batch.records.len() >= RECORDS_MAX / 2 {
                break;
            }
            match self.waiting.try_recv() {
                Ok(next) => self.command(next, &mut batch),
                Err(_) => break,
            }
        }
        batch
    }

    fn command(&mut self, submission: Submission, batch: &mut Batch) {
        let Submission { command, reply } = submission;
        self.step(Event::Command { request: 0, command }, Some(reply), batch);
    }

    fn step(
        &mut self,
        event: Event,
        waiter: Option<oneshot::Sender<Result<Reply>>>,
        batch: &mut Batch,
    ) {
        let mut decisions = Vec::with_capacity(1);
        self.controller.step(self.env.clock.now(), event, &mut decisions);
        let Some(Decision { records, reply, .. }) = decisions.pop() else { return };
        if let Err(error) = self.controller.apply_all(&records) {
            tracing::error!(error = %error.chain(), "the controller contradicts itself");
            if let Some(waiter) = waiter {
                drop(waiter.send(Err(error)));
            }
            return;
        }
        batch.records.extend(records);
        batch.answers.extend(waiter.map(|waiter| (waiter, reply)));
    }

    /// Appends the records, waits until they are applied, and answers.
    async fn commit(&mut self, batch: Batch) {
        let result = self.append(batch.records).await;
        if let Err((code, text)) = result {
            // As far as is known, what the controller decided did not happen.
            self.restore();
            for (waiter, _) in batch.answers {
                drop(waiter.send(Err(Error::kafka(code, text.clone()))));
            }
            return;
        }
        for (waiter, reply) in batch.answers {
            drop(waiter.send(Ok(reply)));
        }
        if self.store.unsaved_bytes() > self.limit_bytes
            && let Err(error) = self.raft.trigger().snapshot().await
        {
            tracing::warn!(%error, "could not request a snapshot of the metadata");
        }
    }

    async fn append(&mut self, records: Vec<MetadataRecord>) -> Result<(), (ErrorCode, String)> {
        if records.is_empty() {
            return Ok(());
        }
        if !self.store.has_room(ROOM_BYTES) {
            let path = self.store.directory();
            let text = format!(
                "the disk is full: the metadata log in {} needs {} MiB of free space",
                path.display(),
                ROOM_BYTES >> 20
            );
            full_disk::warn(&path, &text);
            return Err((ErrorCode::KafkaStorageError, text));
        }
        let mut rest = records;
        while !rest.is_empty() {
            let behind = rest.split_off(rest.len().min(RECORDS_MAX));
            match self.raft.client_write(std::mem::replace(&mut rest, behind)).await {
                Ok(_) => {}
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    let error = not_controller(to.leader_id);
                    return Err((ErrorCode::NotController, error.to_string()));
                }
                Err(error) => return Err((ErrorCode::KafkaStorageError, error.to_string())),
            }
        }
        Ok(())
    }
}

fn not_controller(leader: Option<NodeId>) -> Error {
    let text = match leader {
        Some(leader) => format!("node {leader} leads the metadata quorum"),
        None => "the metadata quorum has no leader".to_owned(),
    };
    Error::kafka(ErrorCode::NotController, text)
}

async fn until_deadline(env: &Env, deadline: Option<TimestampMs>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => {
            let left = deadline.0.saturating_sub(env.clock.now().0);
            tokio::time::sleep(Duration::from_millis(u64::try_from(left).unwrap_or(0))).await;
        }
    }
}
