//! The only task that calls the controller.
//!
//! It takes the queued commands, steps the controller through them, appends all their records as
//! one entry, and answers once it is committed and applied, so many commands share one fsync.

use std::sync::Arc;
use std::time::Duration;

use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::state_machine::Shared;
use super::store::PartitionStore;
use super::types::{TypeConfig, offset};
use crate::broker::full_disk;
use crate::broker::metadata_log::{Answer, Question};
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::Controller;
use crate::machine::metadata::{MetadataImage, MetadataRecord};
use crate::types::{NodeId, Offset};

/// The most commands that share an entry.
const BATCH_MAX: usize = 256;
/// The most records in an entry, so that it stays far below the size of a segment. Only a decision
/// about a broker that leads more partitions than this is split.
const RECORDS_MAX: usize = 12_000;
/// The free space required on disk to write metadata.
const ROOM_BYTES: u64 = 1 << 20;

/// Everything that the task owns.
pub(super) struct Submitter {
    pub(super) node_id: NodeId,
    pub(super) env: Env,
    pub(super) raft: Raft<TypeConfig>,
    pub(super) shared: Arc<Shared>,
    pub(super) store: PartitionStore,
    pub(super) controller: Controller,
    pub(super) stopping: CancellationToken,
    pub(super) waiting: mpsc::Receiver<Box<dyn Question>>,
    /// The bytes of log after which a snapshot is requested.
    pub(super) limit_bytes: u64,
}

/// The commands of one entry, decided but not yet committed.
#[derive(Default)]
struct Batch {
    records: Vec<MetadataRecord>,
    answers: Vec<Answer>,
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
            let question = tokio::select! {
                biased;
                () = self.stopping.cancelled(), if !self.waiting.is_closed() => {
                    self.waiting.close();
                    continue;
                }
                question = self.waiting.recv() => match question {
                    Some(question) => Some(question),
                    None => return,
                },
                () = until_deadline(&self.env, self.controller.next_deadline()) => None,
            };
            if let Err(error) = self.lead(&mut term).await {
                if let Some(question) = question {
                    question.refuse(error);
                }
                continue;
            }
            let batch = self.decide(question);
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
            if term.take().is_some() {
                // Only the leader runs timers.
                self.restore();
            }
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

    /// Takes the controller through the first question and those queued behind it; without one, the deadline has
    /// passed.
    fn decide(&mut self, first: Option<Box<dyn Question>>) -> Batch {
        let mut batch = Batch::default();
        match first {
            None => {
                let records = self.controller.tick(self.env.clock.monotonic());
                self.take(&mut batch, records, None);
            }
            Some(first) => self.ask(first, &mut batch),
        }
        for _ in 1..BATCH_MAX {
            if batch.records.len() >= RECORDS_MAX / 2 {
                break;
            }
            match self.waiting.try_recv() {
                Ok(next) => self.ask(next, &mut batch),
                Err(_) => break,
            }
        }
        batch
    }

    fn ask(&mut self, question: Box<dyn Question>, batch: &mut Batch) {
        let (records, answer) = question.ask(&mut self.controller, self.env.clock.monotonic());
        self.take(batch, records, Some(answer));
    }

    fn take(&mut self, batch: &mut Batch, records: Vec<MetadataRecord>, answer: Option<Answer>) {
        if let Err(error) = self.controller.apply_all(&records) {
            tracing::error!(error = %error.chain(), "the controller contradicts itself");
            if let Some(answer) = answer {
                answer(Err(error));
            }
            return;
        }
        batch.records.extend(records);
        batch.answers.extend(answer);
    }

    /// Appends the records, waits until they are applied, and answers.
    async fn commit(&mut self, batch: Batch) {
        let offset = match self.append(batch.records).await {
            Ok(offset) => offset,
            Err((code, text)) => {
                // As far as is known, what the controller decided did not happen.
                self.restore();
                for answer in batch.answers {
                    answer(Err(Error::kafka(code, text.clone())));
                }
                return;
            }
        };
        for answer in batch.answers {
            answer(Ok(offset));
        }
        if self.store.unsaved_bytes() > self.limit_bytes
            && let Err(error) = self.raft.trigger().snapshot().await
        {
            tracing::warn!(%error, "could not request a snapshot of the metadata");
        }
    }

    /// The offset at which all that the controller knows is committed.
    async fn append(
        &mut self,
        records: Vec<MetadataRecord>,
    ) -> Result<Offset, (ErrorCode, String)> {
        let mut committed = self.shared.image().offset;
        if records.is_empty() {
            return Ok(committed);
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
                Ok(written) => committed = offset(written.log_id.index),
                Err(RaftError::APIError(ClientWriteError::ForwardToLeader(to))) => {
                    let error = not_controller(to.leader_id);
                    return Err((ErrorCode::NotController, error.to_string()));
                }
                Err(error) => return Err((ErrorCode::KafkaStorageError, error.to_string())),
            }
        }
        Ok(committed)
    }
}

fn not_controller(leader: Option<NodeId>) -> Error {
    let text = match leader {
        Some(leader) => format!("node {leader} leads the metadata quorum"),
        None => "the metadata quorum has no leader".to_owned(),
    };
    Error::kafka(ErrorCode::NotController, text)
}

async fn until_deadline(env: &Env, deadline: Option<Duration>) {
    match deadline {
        None => std::future::pending().await,
        Some(deadline) => {
            tokio::time::sleep(deadline.saturating_sub(env.clock.monotonic())).await;
        }
    }
}
