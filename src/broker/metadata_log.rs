//! What the broker needs from the metadata quorum.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connection::BoxFuture;
use crate::error::{Error, Result};
use crate::machine::controller::{Command, Controller, Decision};
use crate::machine::metadata::{MetadataImage, MetadataRecord, MetadataUpdate};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

/// The status of a member of the quorum.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoterStatus {
    /// The member.
    pub(super) id: NodeId,
    /// Its log directory.
    pub(super) directory_id: Uuid,
    /// The end of its log; -1 when unknown.
    pub(super) log_end_offset: Offset,
    /// When it was last caught up; -1 when unknown.
    pub(super) last_caught_up: TimestampMs,
}

/// The status of the quorum.
#[derive(Clone, Debug)]
pub(super) struct QuorumStatus {
    /// Its leader; none during an election.
    pub(super) leader: NodeId,
    /// The leader's term.
    pub(super) epoch: LeaderEpoch,
    /// Everything before is committed.
    pub(super) high_watermark: Offset,
    /// The members.
    pub(super) voters: Vec<VoterStatus>,
}

/// The reply to a command, and where it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed<R> {
    /// The reply.
    pub reply: R,
    /// Whoever has applied the metadata log up to this offset sees what the reply says.
    pub offset: Offset,
}

/// Gives the reply, with the offset at which its records are committed, or says that they are not.
pub(super) type Answer = Box<dyn FnOnce(Result<Offset>) + Send>;

/// A command on its way to the controller, with the one who waits for the reply. Only these two know the type.
pub(super) trait Question: Send + Debug {
    /// Asks the controller: the records, and what to call once they are committed.
    fn ask(
        self: Box<Self>,
        controller: &mut Controller,
        now: Duration,
    ) -> (Vec<MetadataRecord>, Answer);

    /// Answers without having asked.
    fn refuse(self: Box<Self>, error: Error);
}

#[derive(Debug)]
struct Asked<C: Command> {
    command: C,
    reply: oneshot::Sender<Result<Committed<C::Reply>>>,
}

impl<C: Command> Question for Asked<C> {
    fn ask(
        self: Box<Self>,
        controller: &mut Controller,
        now: Duration,
    ) -> (Vec<MetadataRecord>, Answer) {
        let Self { command, reply: waiter } = *self;
        let Decision { records, reply } = controller.decide(now, command);
        let answer = move |outcome: Result<Offset>| {
            // The requester may have stopped waiting.
            drop(waiter.send(outcome.map(|offset| Committed { reply, offset })));
        };
        (records, Box::new(answer))
    }

    fn refuse(self: Box<Self>, error: Error) {
        drop(self.reply.send(Err(error)));
    }
}

/// Sends a command as a question, and waits for its reply.
pub(super) async fn submit<C: Command, S: Future<Output = Result<()>>>(
    command: C,
    send: impl FnOnce(Box<dyn Question>) -> S,
) -> Result<Committed<C::Reply>> {
    let (reply, answer) = oneshot::channel();
    send(Box::new(Asked { command, reply })).await?;
    answer.await.map_err(|_dropped| Error::Closed { what: "the metadata quorum" })?
}

impl dyn MetadataLog {
    /// Sends a command to the controller. The reply comes once its records are committed; who needs them in the
    /// image waits for the offset there.
    ///
    /// # Errors
    ///
    /// Nothing is known to have been done: there is no leader, the disk failed, or the log was closed.
    pub(super) async fn submit<C: Command>(&self, command: C) -> Result<Committed<C::Reply>> {
        submit(command, |question| self.send(question)).await
    }
}

/// The replicated log of metadata.
pub(super) trait MetadataLog: Send + Sync + Debug {
    /// Hands a question to the controller.
    fn send(&self, question: Box<dyn Question>) -> BoxFuture<Result<()>>;

    /// The metadata as of now, and every change from there on. The subscriber must keep reading.
    fn subscribe(&self) -> (Arc<MetadataImage>, mpsc::Receiver<MetadataUpdate>);

    /// The status of the quorum.
    fn status(&self) -> QuorumStatus;

    /// Stops; what was committed is on disk.
    fn shutdown(&self) -> BoxFuture<()>;
}
