//! Requests to other nodes: a few of each kind under way to each of them, and one that waits.
//!
//! The machine repeats what is not answered, so a request that waits gives way to the next one of its kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::peers::{Peers, Target};
use crate::error::Result;
use crate::machine::quorum::{Peer, Request, Response};
use crate::types::NodeId;

/// How many requests of a kind are under way to a node at a time.
const UNDER_WAY_MAX: usize = 3;
/// How many answers wait for the driver.
const ANSWERS_MAX: usize = 64;

/// The kinds of requests, which do not wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Vote,
    BeginQuorumEpoch,
    EndQuorumEpoch,
    Fetch,
    FetchSnapshot,
    UpdateVoter,
}

impl Kind {
    const fn of(request: &Request) -> Self {
        match request {
            Request::Vote(_) => Self::Vote,
            Request::BeginQuorumEpoch(_) => Self::BeginQuorumEpoch,
            Request::EndQuorumEpoch(_) => Self::EndQuorumEpoch,
            Request::Fetch(_) => Self::Fetch,
            Request::FetchSnapshot(_) => Self::FetchSnapshot,
            Request::UpdateVoter(_) => Self::UpdateVoter,
        }
    }
}

#[derive(Debug, Default)]
struct Line {
    under_way: usize,
    waiting: Option<(Target, Request)>,
}

#[derive(Debug)]
struct Answer {
    line: (Peer, Kind),
    response: Result<Response<Bytes>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    peers: Arc<dyn Peers>,
    lines: BTreeMap<(Peer, Kind), Line>,
    answers: mpsc::Receiver<Answer>,
    answered: mpsc::Sender<Answer>,
}

impl Outbox {
    pub(super) fn new(peers: Arc<dyn Peers>) -> Self {
        let (answered, answers) = mpsc::channel(ANSWERS_MAX);
        Self { peers, lines: BTreeMap::new(), answers, answered }
    }

    /// Sends a request, or has it wait.
    pub(super) fn send(&mut self, to: Target, request: Request) {
        let name = (to.peer, Kind::of(&request));
        let line = self.lines.entry(name).or_default();
        if line.under_way >= UNDER_WAY_MAX {
            line.waiting = Some((to, request));
            return;
        }
        line.under_way += 1;
        let (call, answered) = (self.peers.call(to, request), self.answered.clone());
        tokio::spawn(async move {
            let response = call.await;
            // Nobody is there to hear it when the quorum has stopped.
            drop(answered.send(Answer { line: name, response }).await);
        });
    }

    /// Whether a leader's farewell is under way.
    pub(super) fn says_farewell(&self) -> bool {
        self.lines.iter().any(|((_, kind), line)| {
            *kind == Kind::EndQuorumEpoch && (line.under_way > 0 || line.waiting.is_some())
        })
    }

    /// Waits for the next answer, and says who gave it: nobody in particular at an address of the configuration. None where
    /// there was no answer. May be dropped and called again.
    pub(super) async fn answer(&mut self) -> Option<(NodeId, Response<Bytes>)> {
        // There is always a sender: this one.
        let Answer { line: name, response } = self.answers.recv().await?;
        if let Some(line) = self.lines.get_mut(&name) {
            line.under_way -= 1;
            if let Some((to, request)) = line.waiting.take() {
                self.send(to, request);
            } else if line.under_way == 0 {
                self.lines.remove(&name);
            }
        }
        let (peer, kind) = name;
        match response {
            Ok(response) => match peer {
                Peer::Node(id) => Some((id, response)),
                Peer::Bootstrap(_) => Some((NodeId::NONE, response)),
            },
            Err(error) => {
                tracing::debug!(?peer, ?kind, error = %error.chain(), "no answer from the quorum");
                None
            }
        }
    }
}
