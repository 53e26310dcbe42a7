//! The only task that calls the controller.
//!
//! It takes the queued commands, steps the controller through them, appends all their records as
//! one entry, and answers once it is committed and applied, so many commands share one fsync.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::driver::Ask;
use super::entry;
use super::forward::Forwarder;
use super::shared::{Leading, Shared};
use super::stopped;
use crate::broker::full_disk;
use crate::broker::metadata_log::{Answer, Question};
use crate::env::Env;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::Controller;
use crate::machine::metadata::{MetadataImage, MetadataRecord};
use crate::machine::quorum::Refusal;
use crate::types::{LeaderEpoch, NodeId, Offset};

/// The most commands that share an entry.
const BATCH_MAX: usize = 256;
/// The most records in an entry, so that it stays far below the size of a segment. Only a decision
/// about a broker that leads more partitions than this is split.
const RECORDS_MAX: usize = 12_000;
/// The free space required on disk to write metadata.
const ROOM_BYTES: u64 = 1 << 20;

/// How long a proposal may take once the quorum is to stop; then this node resigns.
const STOP_PATIENCE: Duration = Duration::from_secs(1);

/// Everything that the task owns.
pub(super) struct Submitter {
    pub(super) node_id: NodeId,
    pub(super) env: Env,
    pub(super) shared: Arc<Shared>,
    pub(super) controller: Controller,
    pub(super) stopping: CancellationToken,
    pub(super) waiting: mpsc::Receiver<Box<dyn Question>>,
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) driver: JoinHandle<Result<()>>,
    pub(super) forwarder: Forwarder,
    /// Where the metadata log is.
    pub(super) directory: PathBuf,
    /// The epoch for which the controller is ready.
    pub(super) ready_for: Option<LeaderEpoch>,
    /// The last epoch for which it was.
    pub(super) began: Option<LeaderEpoch>,
}

/// The commands of one entry, decided but not yet committed.
#[derive(Default)]
struct Batch {
    records: Vec<MetadataRecord>,
    answers: Vec<Answer>,
}

impl Submitter {
    /// Runs until it is told to stop and has answered what was sent; then has the log closed.
    pub(super) async fn run(mut self) -> Result<()> {
        self.serve().await;
        // It may have stopped by itself.
        drop(self.asks.send(Ask::Stop).await);
        self.driver.await.map_err(stopped)?
    }

    async fn serve(&mut self) {
        loop {
            let ready_for = self.ready_for;
            let leads_otherwise =
                |leading: &Option<Leading>| leading.map(|leading| leading.epoch) != ready_for;
            let deadline = ready_for.and_then(|_leads| self.controller.next_deadline());
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
                _ = self.shared.leading().wait_for(leads_otherwise) => None,
                () = until_deadline(&self.env, deadline) => None,
            };
            if self.lead().await {
                let batch = self.decide(question);
                self.commit(batch).await;
            } else if let Some(question) = question {
                self.pass_on(question).await;
            }
        }
    }

    /// Whether this node leads; then the controller knows everything committed.
    async fn lead(&mut self) -> bool {
        while let Some(leading) = self.shared.leading().get() {
            if self.ready_for == Some(leading.epoch) {
                return true;
            }
            let is_ready = tokio::select! {
                biased;
                is_applied = self.shared.applied(leading.start) => is_applied,
                _ = self.shared.leading().wait_for(|known| *known != Some(leading)) => continue,
                () = self.stopping.cancelled() => false,
            };
            if is_ready {
                self.restore();
                // When it begins anew in the same epoch, the heartbeats of that epoch are forgotten.
                let is_new = self.began.replace(leading.epoch) != Some(leading.epoch);
                self.controller.note_silence(leading.before.filter(|_| is_new));
                self.ready_for = Some(leading.epoch);
            } else if self.stopping.is_cancelled() {
                break;
            } else {
                // The quorum has failed, and is about to say so.
                self.shared.leading().wait_for(|known| *known != Some(leading)).await;
            }
        }
        if self.ready_for.take().is_some() {
            // Only the leader runs timers.
            self.restore();
        }
        false
    }

    /// Another node is to answer, if there is one.
    async fn pass_on(&self, question: Box<dyn Question>) {
        match self.shared.failure() {
            Some(failure) => question.refuse(super::fatal(&failure)),
            None => self.forwarder.forward(question).await,
        }
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

    /// Has the records committed, waits until they are applied, and answers.
    async fn commit(&mut self, batch: Batch) {
        let offset = match self.propose(batch.records).await {
            Ok(offset) => offset,
            Err(error) => {
                // As far as is known, what the controller decided did not happen.
                self.ready_for = None;
                for answer in batch.answers {
                    answer(Err(error.clone()));
                }
                return;
            }
        };
        for answer in batch.answers {
            answer(Ok(offset));
        }
    }

    /// The offset at which all that the controller knows is committed.
    async fn propose(&self, records: Vec<MetadataRecord>) -> Result<Offset> {
        let mut committed = self.shared.image().offset;
        if records.is_empty() {
            return Ok(committed);
        }
        if !self.has_room() {
            let text = format!(
                "the disk is full: the metadata log in {} needs {} MiB of free space",
                self.directory.display(),
                ROOM_BYTES >> 20
            );
            full_disk::warn(&self.directory, &text);
            return Err(Error::kafka(ErrorCode::KafkaStorageError, text));
        }
        for (index, part) in records.chunks(RECORDS_MAX).enumerate() {
            let value = entry::encode_records(self.node_id, part)?;
            committed = match self.propose_one(value).await? {
                Ok(offset) => offset,
                // A part of it is committed.
                Err(Refusal::NotLeader) if index > 0 => {
                    return Err(self.refused(Refusal::LeadershipLost));
                }
                Err(refusal) => return Err(self.refused(refusal)),
            };
        }
        if !self.shared.applied(committed).await {
            return Err(self.failure());
        }
        Ok(committed)
    }

    async fn propose_one(&self, value: bytes::Bytes) -> Result<Result<Offset, Refusal>> {
        let (answer, mut outcome) = oneshot::channel();
        if self.asks.send(Ask::Propose(value, answer)).await.is_err() {
            return Err(self.failure());
        }
        let told = tokio::select! {
            biased;
            told = &mut outcome => told,
            () = self.stopped_waiting() => {
                // Nobody else may be there to commit it.
                drop(self.asks.send(Ask::Resign).await);
                outcome.await
            }
        };
        told.map_err(|_dropped| self.failure())
    }

    async fn stopped_waiting(&self) {
        self.stopping.cancelled().await;
        tokio::time::sleep(STOP_PATIENCE).await;
    }

    fn refused(&self, refusal: Refusal) -> Error {
        match refusal {
            // It was not proposed, so that it may be asked elsewhere.
            Refusal::NotLeader => {
                let leader = self.shared.leader().get().leader;
                not_controller(leader.map(|leader| leader.id))
            }
            Refusal::LeadershipLost => {
                let text = "this node lost the leadership of the metadata quorum before the change was known to be \
                            committed; it may have been";
                Error::kafka(ErrorCode::RequestTimedOut, text)
            }
            other => {
                let text = format!("the metadata quorum does not take the change: {other:?}");
                Error::kafka(ErrorCode::RequestTimedOut, text)
            }
        }
    }

    fn failure(&self) -> Error {
        let failure = self.shared.failure();
        super::fatal(&failure.unwrap_or(Error::Closed { what: "the metadata log" }))
    }

    fn has_room(&self) -> bool {
        self.env.disk.free_bytes(&self.directory).is_ok_and(|free| free >= ROOM_BYTES)
    }
}

/// Whoever was asked does not lead.
pub(super) fn not_controller(leader: Option<NodeId>) -> Error {
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
