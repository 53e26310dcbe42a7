//! What the broker needs from the metadata quorum.
//!
//! A command is asked where the controller leads. On another node it travels: [`Question::forward`] gives it away,
//! [`arrived`] makes it a question to the controller there, and what comes back is for the one who waits here. The
//! offset of the reply is one of the replicated log, so that the asker can wait for it in its own image.
//!
//! Invariants:
//! - `COMMAND-1` whoever submits a command gets one answer: the reply, or an error.
//! - `COMMAND-2` a command travels once: a node that gets it and does not lead either answers NOT_CONTROLLER.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::connection::BoxFuture;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{
    AnyCommand, Command, CommandAnswer, Controller, Decision, Refusal,
};
use crate::machine::metadata::{Endpoint, MetadataImage, MetadataRecord, MetadataUpdate};
use crate::machine::quorum::{self, Refusal as Refused, VoterChange, VoterSet};
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

/// The status of a replica of the metadata log.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReplicaStatus {
    /// The node.
    pub(super) id: NodeId,
    /// Its log directory; zero when unknown.
    pub(super) directory_id: Uuid,
    /// The end of its log; -1 when unknown.
    pub(super) log_end_offset: Offset,
    /// When it last fetched; -1 when unknown.
    pub(super) last_fetch: TimestampMs,
    /// When it was last caught up; -1 when unknown.
    pub(super) last_caught_up: TimestampMs,
}

/// The status of the quorum, as its leader knows it.
#[derive(Clone, Debug)]
pub(super) struct QuorumStatus {
    /// Its leader; none during an election.
    pub(super) leader: NodeId,
    /// The leader's epoch.
    pub(super) epoch: LeaderEpoch,
    /// Everything before is committed.
    pub(super) high_watermark: Offset,
    /// The voters. What others than the leader know of each other is only who they are.
    pub(super) voters: Vec<ReplicaStatus>,
    /// Who else fetches; empty on a node that does not lead.
    pub(super) observers: Vec<ReplicaStatus>,
    /// Where the voters listen for each other, as far as that is known.
    pub(super) endpoints: Vec<(NodeId, Vec<Endpoint>)>,
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

    /// Makes it ready to travel to the node that leads. Nothing when it came from there: then it is answered.
    fn forward(self: Box<Self>) -> Option<Forwarded>;

    /// Answers without having asked.
    fn refuse(self: Box<Self>, error: Error);
}

/// A question that travels.
pub(super) struct Forwarded {
    /// The command.
    pub(super) command: AnyCommand,
    /// To be called with what the other node answers, or why nothing came back.
    pub(super) answered: Box<dyn FnOnce(Result<CommandAnswer>) + Send>,
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

    fn forward(self: Box<Self>) -> Option<Forwarded> {
        let Self { command, reply: waiter } = *self;
        let answered = move |answer: Result<CommandAnswer>| {
            drop(waiter.send(answer.and_then(committed::<C>)));
        };
        Some(Forwarded { command: command.pack(), answered: Box::new(answered) })
    }

    fn refuse(self: Box<Self>, error: Error) {
        drop(self.reply.send(Err(error)));
    }
}

/// The answer to a command, from that of the node that leads.
fn committed<C: Command>(answer: CommandAnswer) -> Result<Committed<C::Reply>> {
    match answer {
        CommandAnswer::Failed(refusal) => Err(refusal.into()),
        CommandAnswer::Committed { offset, reply } => {
            let reply = C::unpack(reply).ok_or_else(|| {
                Error::malformed("answer to a command", "it is the reply to another command")
            })?;
            Ok(Committed { reply, offset })
        }
    }
}

/// A command that came from another node.
struct Arrived<R> {
    command: AnyCommand,
    respond: R,
}

impl<R> Debug for Arrived<R> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Arrived").field("command", &self.command).finish_non_exhaustive()
    }
}

/// A command that came from another node, as a question to the controller of this one. `respond` is called with what
/// to send back.
pub(super) fn arrived(
    command: AnyCommand,
    respond: impl FnOnce(CommandAnswer) + Send + 'static,
) -> Box<dyn Question> {
    Box::new(Arrived { command, respond })
}

/// Why a command was not even asked, when this says so: whoever got it does not lead.
pub(super) fn refused_unasked(answer: &CommandAnswer) -> Option<Error> {
    match answer {
        CommandAnswer::Failed(refusal) if refusal.code == ErrorCode::NotController => {
            Some(refusal.clone().into())
        }
        _ => None,
    }
}

/// Why a command that came from another node is not answered.
pub(super) fn failed(error: &Error) -> CommandAnswer {
    CommandAnswer::Failed(Refusal::new(error.code(), error.chain()))
}

impl<R: FnOnce(CommandAnswer) + Send> Question for Arrived<R>
where
    R: 'static,
{
    fn ask(
        self: Box<Self>,
        controller: &mut Controller,
        now: Duration,
    ) -> (Vec<MetadataRecord>, Answer) {
        let Self { command, respond } = *self;
        let Decision { records, reply } = command.decide(controller, now);
        let answer = move |outcome: Result<Offset>| match outcome {
            Ok(offset) => respond(CommandAnswer::Committed { offset, reply }),
            Err(error) => respond(failed(&error)),
        };
        (records, Box::new(answer))
    }

    fn forward(self: Box<Self>) -> Option<Forwarded> {
        let context = "this node does not lead the metadata quorum";
        self.refuse(Error::kafka(ErrorCode::NotController, context));
        None
    }

    fn refuse(self: Box<Self>, error: Error) {
        (self.respond)(failed(&error));
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

    /// The metadata as of now, which may be ahead of what is in effect on this broker.
    fn image(&self) -> Arc<MetadataImage>;

    /// The status of the quorum.
    fn status(&self) -> QuorumStatus;

    /// Who votes, as far as this node knows.
    fn voters(&self) -> VoterSet;

    /// Changes who votes, on the node that leads: until that is committed or, with `when_appended`, until it is in the
    /// leader's own log.
    fn change_voters(
        &self,
        change: VoterChange,
        when_appended: bool,
    ) -> BoxFuture<Result<Result<(), Refused>>>;

    /// Answers another node of the quorum; nothing when the quorum does not run any more.
    fn answer(&self, request: quorum::Request) -> BoxFuture<Option<quorum::Response<Bytes>>>;

    /// Has the controller carry out a command that came from another node, and returns what to send back.
    fn carry_out(&self, command: AnyCommand) -> BoxFuture<CommandAnswer>;

    /// The process of a node is proven to have ended.
    fn crashed(&self, node: NodeId);

    /// Ends without a word to the other nodes, as a killed process does.
    fn abandon(&self) -> BoxFuture<()>;

    /// Stops; what was committed is on disk, and another node leads if this one did.
    fn shutdown(&self) -> BoxFuture<()>;
}

#[cfg(test)]
#[path = "metadata_log_tests.rs"]
pub(super) mod tests;
