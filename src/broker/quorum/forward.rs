//! Takes commands to the node that leads.
//!
//! A command travels once (COMMAND-2). It is tried again only where it certainly was not proposed: there was no leader
//! to send it to, or whoever got it said NOT_CONTROLLER; so an election takes some time, and nothing else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::peers::Peers;
use super::shared::Shared;
use super::submitter::not_controller;
use crate::broker::metadata_log::{Forwarded, Question, arrived, refused_unasked};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::{AnyCommand, CommandAnswer};
use crate::machine::quorum::LeaderAndEpoch;
use crate::types::NodeId;

/// How many commands are on their way at a time.
const UNDER_WAY_MAX: usize = 256;
/// How long a command waits for a leader that takes it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before the same leader is asked again.
const PAUSE: Duration = Duration::from_millis(50);

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Forwarder {
    node_id: NodeId,
    peers: Arc<dyn Peers>,
    shared: Arc<Shared>,
    /// To this node's own controller, should it lead meanwhile.
    commands: mpsc::Sender<Box<dyn Question>>,
    stopping: CancellationToken,
    room: Arc<Semaphore>,
}

impl Forwarder {
    pub(super) fn new(
        node_id: NodeId,
        peers: Arc<dyn Peers>,
        shared: &Arc<Shared>,
        commands: mpsc::Sender<Box<dyn Question>>,
        stopping: &CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let (shared, stopping) = (Arc::clone(shared), stopping.clone());
        Self { node_id, peers, shared, commands, stopping, room }
    }

    /// Has a question answered elsewhere. Returns once it is on its way.
    pub(super) async fn forward(&self, question: Box<dyn Question>) {
        let room = tokio::select! {
            biased;
            room = Arc::clone(&self.room).acquire_owned() => room.ok(),
            () = self.stopping.cancelled() => None,
        };
        let Some(room) = room else {
            question.refuse(Error::Closed { what: "the metadata quorum" });
            return;
        };
        let Some(Forwarded { command, answered }) = question.forward() else { return };
        let own = self.clone();
        tokio::spawn(async move {
            let answer = tokio::select! {
                biased;
                answer = own.ask(command) => answer,
                () = own.stopping.cancelled() => {
                    Err(Error::Closed { what: "the metadata quorum" })
                }
            };
            answered(answer);
            drop(room);
        });
    }

    async fn ask(&self, command: AnyCommand) -> Result<CommandAnswer> {
        let until = Instant::now() + PATIENCE;
        loop {
            let current = self.shared.leader().get();
            let answer = self.ask_leader(&current, &command).await;
            let refusal = match answer {
                Ok(answer) => match refused_unasked(&answer) {
                    Some(refusal) => refusal,
                    None => return Ok(answer),
                },
                Err(error) if error.code() == ErrorCode::NotController => error,
                Err(error) => return Err(error),
            };
            let now = Instant::now();
            if now >= until {
                return Err(refusal);
            }
            let pause = if current.leader.is_some() { PAUSE } else { until - now };
            let changed = self.shared.leader().wait_for(|known| *known != current);
            drop(tokio::time::timeout(pause, changed).await);
        }
    }

    async fn ask_leader(
        &self,
        current: &LeaderAndEpoch,
        command: &AnyCommand,
    ) -> Result<CommandAnswer> {
        match &current.leader {
            None => Err(not_controller(None)),
            Some(leader) if leader.id == self.node_id => self.ask_here(command.clone()).await,
            Some(leader) => self.peers.forward(leader.clone(), command.clone()).await,
        }
    }

    /// This node leads by now.
    async fn ask_here(&self, command: AnyCommand) -> Result<CommandAnswer> {
        let (sender, receiver) = oneshot::channel();
        let closed = || Error::Closed { what: "the metadata quorum" };
        let question = arrived(command, move |answer| drop(sender.send(answer)));
        self.commands.send(question).await.map_err(|_unsent| closed())?;
        receiver.await.map_err(|_dropped| closed())
    }
}
