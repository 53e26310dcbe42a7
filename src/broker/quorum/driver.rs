//! Drives the machine: brings it what happens, and carries out what it wants, in its order.
//!
//! The only task that steps it. Nothing here waits for a disk or a network: storage is two [queues](super::queues),
//! requests go through the [outbox](super::outbox), committed entries to the [applier](super::applier).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::entry::Entry;
use super::feed::Feed;
use super::outbox::Outbox;
use super::peers::Target;
use super::queues::{Done, LogQueue, VoteQueue};
use super::shared::{Leading, Shared};
use super::snapshot::read_part;
use super::store::{CHUNK_BYTES, Facts, Job, read_entries};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::log::LogReader;
use crate::machine::quorum::{
    self, Effect, Event, FetchResponse, FetchSnapshotResponse, Found, Leader, LeaderAndEpoch,
    OffsetAndEpoch, Peer, Refusal, Request, Response, Tag, Token, VoterChange,
};
use crate::types::{NodeId, Offset};

/// The machine, whose records are the values of their entries.
pub(super) type Machine = quorum::Quorum<Bytes>;

/// How many reads for answers are done and wait.
const READS_MAX: usize = 64;
/// How long a leader that stops waits for others to hear of it.
const FAREWELL_MAX: Duration = Duration::from_millis(500);

/// Something that the driver is asked for.
#[derive(Debug)]
pub(super) enum Ask {
    /// To have an entry committed.
    Propose(Bytes, oneshot::Sender<Result<Offset, Refusal>>),
    /// To change who votes.
    ChangeVoters {
        /// How.
        change: VoterChange,
        /// Whether to answer as soon as the leader has the record, and not only once it is committed.
        when_appended: bool,
        /// For the answer.
        answer: oneshot::Sender<Result<Offset, Refusal>>,
    },
    /// To answer another node.
    Request(Box<Request>, oneshot::Sender<Response<Bytes>>),
    /// To take note of a snapshot.
    SnapshotTaken {
        /// The snapshot.
        id: OffsetAndEpoch,
        /// Where the log shall start.
        log_start: Offset,
    },
    /// To take note that a node's process is proven to have ended.
    Crashed(NodeId),
    /// To lead no more, and not to stand for election.
    Resign,
    /// To stop.
    Stop,
}

/// Entries that were read from disk for an answer.
#[derive(Debug)]
struct ReadForAnswer {
    token: Token,
    response: FetchResponse<Bytes>,
    /// How often the log had been cut when the answer was due.
    cuts: u64,
    entries: Result<Vec<Entry>>,
}

/// Everything that the task owns.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) env: Env,
    pub(super) machine: Arc<Mutex<Machine>>,
    pub(super) votes: VoteQueue,
    pub(super) log: LogQueue,
    pub(super) outbox: Outbox,
    pub(super) feed: Arc<Feed>,
    pub(super) shared: Arc<Shared>,
    pub(super) facts: Arc<Facts>,
    pub(super) reader: LogReader,
    pub(super) directory: PathBuf,
    pub(super) asks: mpsc::Receiver<Ask>,
    pub(super) tables: Tables,
}

/// Who waits for what.
#[derive(Debug)]
pub(super) struct Tables {
    tokens: BTreeMap<Token, oneshot::Sender<Response<Bytes>>>,
    tags: BTreeMap<Tag, oneshot::Sender<Result<Offset, Refusal>>>,
    last_number: u64,
    cuts: u64,
    /// The leader that was followed last, and when it was last heard.
    heard: Option<(NodeId, Duration)>,
    reads: mpsc::Receiver<ReadForAnswer>,
    read: mpsc::Sender<ReadForAnswer>,
}

impl Default for Tables {
    fn default() -> Self {
        let (read, reads) = mpsc::channel(READS_MAX);
        let (tokens, tags) = (BTreeMap::new(), BTreeMap::new());
        Self { tokens, tags, last_number: 0, cuts: 0, heard: None, reads, read }
    }
}

impl Tables {
    fn number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn answer(&mut self, token: Token, response: Response<Bytes>) {
        if let Some(asker) = self.tokens.remove(&token) {
            // Who asked may have gone.
            drop(asker.send(response));
        }
    }
}

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    GoOn,
    Stop,
}

impl Driver {
    /// Carries out `effects`, those of the start, and runs until it is told to stop. Then the files are closed.
    pub(super) async fn run(
        mut self,
        effects: Vec<Effect<Bytes>>,
        applier: JoinHandle<()>,
    ) -> Result<()> {
        let mut ended = self.serve(effects).await;
        if ended.is_ok() {
            ended = self.wind_down().await;
        }
        if let Err(error) = &ended {
            self.shared.fail(error.clone());
        }
        self.shared.leading().change(|leading| *leading = None);
        self.tables.tags.clear();
        self.tables.tokens.clear();
        self.asks.close();
        self.feed.close();
        // It has reported by itself if it failed.
        drop(applier.await);
        let closed = self.log.close().await;
        match self.shared.failure() {
            Some(failure) => Err(failure),
            None => closed,
        }
    }

    async fn serve(&mut self, effects: Vec<Effect<Bytes>>) -> Result<()> {
        self.carry_out(effects)?;
        while self.turn(true).await? == Next::GoOn {}
        Ok(())
    }

    /// Hands the leadership over, and finishes what was begun.
    async fn wind_down(&mut self) -> Result<()> {
        self.votes.stop_waiting();
        self.log.stop_waiting();
        self.step(Event::Resign)?;
        let until = tokio::time::Instant::now() + FAREWELL_MAX;
        while !(self.votes.is_idle() && self.log.is_idle()) {
            self.turn(false).await?;
        }
        while self.outbox.says_farewell() {
            match tokio::time::timeout_at(until, self.turn(false)).await {
                Ok(Ok(_goes_on)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_late) => break,
            }
        }
        Ok(())
    }

    /// Waits until something happens, and brings it to the machine.
    async fn turn(&mut self, takes_asks: bool) -> Result<Next> {
        let now = self.env.clock.monotonic();
        let mut deadline = self.machine().next_deadline();
        if deadline.is_some_and(|deadline| now >= deadline) {
            self.step(Event::Tick)?;
            deadline = self.machine().next_deadline();
        }
        let wait = deadline.map(|deadline| deadline.saturating_sub(now));
        tokio::select! {
            biased;
            () = self.shared.failed() => {
                let failure = self.shared.failure();
                return Err(failure.unwrap_or(Error::Closed { what: "the metadata quorum" }));
            }
            stored = self.votes.stored() => self.step(Event::VoteStored(stored?))?,
            done = self.log.done() => self.on_stored(done?)?,
            Some(read) = self.tables.reads.recv() => self.on_read(read),
            answer = self.outbox.answer() => {
                if let Some((from, response)) = answer
                    && self.has_room_for(&response)
                {
                    self.step(Event::Response { from, response })?;
                }
            }
            ask = self.asks.recv(), if takes_asks => match ask {
                Some(ask) => return self.on_ask(ask),
                None => return Ok(Next::Stop),
            },
            () = sleep(wait) => {}
        }
        Ok(Next::GoOn)
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&mut self, event: Event<Bytes>) -> Result<()> {
        let mut effects = Vec::new();
        let mut machine = self.machine();
        // What comes of the event may be that it is not followed any more.
        let heard = machine.leader_heard();
        machine.step(self.env.clock.monotonic(), event, &mut effects);
        drop(machine);
        self.tables.heard = heard.or(self.tables.heard);
        self.carry_out(effects)
    }

    fn on_ask(&mut self, ask: Ask) -> Result<Next> {
        match ask {
            Ask::Propose(payload, answer) => {
                let tag = Tag(self.tables.number());
                self.tables.tags.insert(tag, answer);
                self.step(Event::Propose { tag, payload })?;
            }
            Ask::ChangeVoters { change, when_appended, answer } => {
                let tag = Tag(self.tables.number());
                self.tables.tags.insert(tag, answer);
                let end = self.machine().log_end();
                self.step(Event::ChangeVoters { tag, change })?;
                // What is refused is refused at once.
                if when_appended && let Some(asker) = self.tables.tags.remove(&tag) {
                    // Who asked may have gone.
                    _ = asker.send(Ok(end));
                }
            }
            Ask::Request(request, answer) => {
                let token = Token(self.tables.number());
                self.tables.tokens.insert(token, answer);
                self.step(Event::Request { token, request: *request })?;
            }
            Ask::SnapshotTaken { id, log_start } => {
                self.step(Event::SnapshotTaken { id, log_start })?;
            }
            Ask::Crashed(node) => self.step(Event::Crashed(node))?,
            Ask::Resign => self.step(Event::Resign)?,
            Ask::Stop => return Ok(Next::Stop),
        }
        Ok(Next::GoOn)
    }

    fn on_stored(&mut self, done: Done) -> Result<()> {
        if let Some(ticket) = done.ticket {
            self.step(Event::LogStored(ticket))?;
        }
        for checkpoint in done.installed {
            let snapshot = checkpoint.snapshot();
            self.feed.install(checkpoint);
            self.step(Event::SnapshotInstalled(snapshot))?;
        }
        let stable = self.machine().stable_end();
        self.feed.trim(stable);
        Ok(())
    }

    /// A part of a snapshot for which there is no room is as good as lost: it is asked for again.
    fn has_room_for(&self, response: &Response<Bytes>) -> bool {
        !matches!(response, Response::FetchSnapshot(_)) || self.log.takes_parts()
    }

    fn carry_out(&mut self, effects: Vec<Effect<Bytes>>) -> Result<()> {
        for effect in effects {
            self.carry_out_one(effect)?;
        }
        Ok(())
    }

    fn carry_out_one(&mut self, effect: Effect<Bytes>) -> Result<()> {
        match effect {
            Effect::SaveVote(ticket, vote) => self.votes.push(ticket, vote),
            Effect::Append(ticket, entries) => {
                self.feed.append(&entries);
                self.log.push(Some(ticket), Job::Append(entries));
            }
            Effect::Truncate(ticket, end) => {
                tracing::info!(offset = %end, "the metadata log is cut, as the leader's is another");
                self.tables.cuts += 1;
                self.feed.truncate(end);
                self.log.push(Some(ticket), Job::Truncate(end));
            }
            Effect::Prune(ticket, start) => {
                let start = self.machine().until(start);
                self.log.push(Some(ticket), Job::Prune(start));
            }
            Effect::WriteSnapshot { id: _, position, bytes } => {
                self.log.push(None, Job::WritePart { position, bytes });
            }
            Effect::InstallSnapshot(id) => {
                tracing::info!(offset = %id.offset, "a snapshot of the leader replaces the metadata log");
                self.tables.cuts += 1;
                self.feed.begin_install();
                self.log.push(None, Job::Install(id));
            }
            Effect::Send(peer, request) => {
                let target = self.target(peer);
                self.outbox.send(target, request);
            }
            Effect::Answer(token, response) => self.tables.answer(token, response),
            Effect::AnswerRecords { token, response, end } => {
                self.answer_records(token, response, end);
            }
            Effect::AnswerSnapshot { token, response } => self.answer_snapshot(token, response),
            Effect::Abandon(token) => drop(self.tables.tokens.remove(&token)),
            Effect::Committed(offset) => {
                self.facts.commit(offset);
                self.feed.commit(offset);
            }
            Effect::Outcome(tag, outcome) => {
                if let Some(asker) = self.tables.tags.remove(&tag) {
                    _ = asker.send(outcome);
                }
            }
            Effect::BecameLeader { epoch, start } => {
                let leading = Leading { epoch, start, before: self.tables.heard.take() };
                self.shared.leading().change(|known| *known = Some(leading));
            }
            Effect::LostLeadership => self.shared.leading().change(|known| *known = None),
            Effect::LeaderChanged(current) => {
                self.log_leader(&current);
                let leader = self.leader(current);
                self.shared.leader().change(|known| *known = leader);
            }
            Effect::Halt(why) => {
                return Err(Error::corrupt(&self.directory, 0, why));
            }
        }
        Ok(())
    }

    /// Where a peer listens, as far as the voters or the leader say it.
    fn target(&self, peer: Peer) -> Target {
        let Peer::Node(id) = peer else { return Target { peer, endpoints: Vec::new() } };
        let machine = self.machine();
        let voter = machine.voters().get(id).map(|voter| voter.endpoints.clone());
        let leader = machine.current().leader.filter(|leader| leader.id == id);
        let leader = leader.map(|leader| leader.endpoints);
        let endpoints = leader.filter(|endpoints| !endpoints.is_empty()).or(voter);
        Target { peer, endpoints: endpoints.unwrap_or_default() }
    }

    /// Among several, it is worth a line who leads.
    fn log_leader(&self, current: &LeaderAndEpoch) {
        let (epoch, leader) = (current.epoch, current.leader.as_ref().map(|leader| leader.id.0));
        if self.machine().voters().len() > 1 {
            tracing::info!(%epoch, leader, "the leader of the metadata quorum");
        } else {
            tracing::debug!(%epoch, leader, "the leader of the metadata quorum");
        }
    }

    /// The leader, with where it listens.
    fn leader(&self, current: LeaderAndEpoch) -> LeaderAndEpoch {
        let endpoints = |id| self.target(Peer::Node(id)).endpoints;
        let leader =
            current.leader.map(|Leader { id, .. }| Leader { id, endpoints: endpoints(id) });
        LeaderAndEpoch { leader, ..current }
    }

    /// Answers with entries from memory, or reads them beside the tasks.
    fn answer_records(&mut self, token: Token, mut response: FetchResponse<Bytes>, end: Offset) {
        let from = response.last.offset;
        if let Some(entries) = self.feed.read(from, end) {
            response.found = Found::Records(entries);
            self.tables.answer(token, Response::Fetch(response));
            return;
        }
        let (reader, read, cuts) =
            (self.reader.clone(), self.tables.read.clone(), self.tables.cuts);
        let stable = self.machine().stable_end();
        let task = self
            .env
            .threads
            .spawn_blocking(move || read_entries(&reader, from, end.min(stable), CHUNK_BYTES));
        tokio::spawn(async move {
            let entries = task.await.map_err(super::stopped).and_then(|entries| entries);
            drop(read.send(ReadForAnswer { token, response, cuts, entries }).await);
        });
    }

    /// The log must be read as of when the answer was due: if it was cut since, there is no answer.
    fn on_read(&mut self, read: ReadForAnswer) {
        let ReadForAnswer { token, mut response, cuts, entries } = read;
        match entries {
            Ok(entries) if cuts == self.tables.cuts => {
                response.found = Found::Records(entries);
                self.tables.answer(token, Response::Fetch(response));
            }
            Ok(_) => drop(self.tables.tokens.remove(&token)),
            Err(error) => {
                tracing::warn!(error = %error.chain(), "could not read the metadata log for a replica");
                self.tables.tokens.remove(&token);
            }
        }
    }

    fn answer_snapshot(&mut self, token: Token, mut response: FetchSnapshotResponse) {
        let Some(asker) = self.tables.tokens.remove(&token) else { return };
        let (disk, directory) = (Arc::clone(&self.env.disk), self.directory.clone());
        let (id, position) = (response.snapshot, response.position);
        let bytes_max = u64::try_from(CHUNK_BYTES).unwrap_or(u64::MAX);
        let read = move || read_part(&*disk, &directory, id, position, bytes_max);
        let task = self.env.threads.spawn_blocking(read);
        tokio::spawn(async move {
            match task.await.map_err(super::stopped).and_then(|part| part) {
                Ok(part) => {
                    response.part = part;
                    drop(asker.send(Response::FetchSnapshot(response)));
                }
                Err(error) => {
                    tracing::warn!(error = %error.chain(), "could not read a metadata snapshot");
                }
            }
        });
    }
}

async fn sleep(duration: Option<Duration>) {
    match duration {
        Some(duration) => tokio::time::sleep(duration).await,
        None => std::future::pending().await,
    }
}
