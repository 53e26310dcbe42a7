//! The two ways to stable storage: votes, and the log. Each has what waits done by one call beside the tasks, so that
//! a single sync covers it, and neither waits for the other.
//!
//! A full disk is waited out here (STORE-2). The machine bounds what waits.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::snapshot::Checkpoint;
use super::stopped;
use super::store::{Job, Store, Votes};
use crate::env::Threads;
use crate::error::{Error, Result};
use crate::machine::quorum::{Ticket, VoteState};

/// How long to wait before retrying when the disk is full.
const FULL_DISK_PAUSE: Duration = Duration::from_millis(200);
/// How many bytes of a snapshot wait to be written, at most.
const PARTS_BYTES_MAX: usize = 8 << 20;

/// Waits until a full disk is tried again.
#[derive(Debug, Default)]
struct Pause {
    until: Option<Instant>,
    /// A full disk is no longer waited out.
    is_over: bool,
}

impl Pause {
    /// Whether the error passes, so that it is worth to wait.
    fn begin(&mut self, error: &Error) -> bool {
        let waits = error.is_disk_full() && !self.is_over;
        if waits {
            tracing::warn!(error = %error.chain(), "disk full: the metadata log waits");
            self.until = Some(Instant::now() + FULL_DISK_PAUSE);
        }
        waits
    }

    async fn end(&mut self) {
        match self.until {
            Some(until) => tokio::time::sleep_until(until).await,
            None => pending().await,
        }
        self.until = None;
    }
}

/// The votes that wait: only the last one matters.
#[derive(Debug)]
pub(super) struct VoteQueue {
    threads: Threads,
    votes: Votes,
    waiting: Option<(Ticket, VoteState)>,
    running: Option<(Ticket, VoteState, JoinHandle<Result<()>>)>,
    pause: Pause,
}

impl VoteQueue {
    pub(super) fn new(threads: Threads, votes: Votes) -> Self {
        Self { threads, votes, waiting: None, running: None, pause: Pause::default() }
    }

    pub(super) fn push(&mut self, ticket: Ticket, vote: VoteState) {
        self.waiting = Some((ticket, vote));
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_none() && self.running.is_none()
    }

    pub(super) fn stop_waiting(&mut self) {
        self.pause = Pause { until: None, is_over: true };
    }

    /// Waits until a vote is on stable storage. May be dropped and called again.
    pub(super) async fn stored(&mut self) -> Result<Ticket> {
        loop {
            if self.running.is_none()
                && self.pause.until.is_none()
                && let Some((ticket, vote)) = self.waiting.take()
            {
                let votes = self.votes.clone();
                let saving = self.threads.spawn_blocking(move || votes.save(vote));
                self.running = Some((ticket, vote, saving));
            }
            let Some((_, _, saving)) = &mut self.running else {
                self.pause.end().await;
                continue;
            };
            let saved = saving.await;
            let Some((ticket, vote, _)) = self.running.take() else { continue };
            match saved.map_err(stopped)? {
                Ok(()) => return Ok(ticket),
                Err(error) if self.pause.begin(&error) => {
                    self.waiting.get_or_insert((ticket, vote));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// What was done to the log.
#[derive(Debug)]
pub(super) struct Done {
    /// Everything up to here is on stable storage.
    pub(super) ticket: Option<Ticket>,
    /// Snapshots that took the place of the log.
    pub(super) installed: Vec<Checkpoint>,
}

#[derive(Debug, Default)]
struct Batch {
    ticket: Option<Ticket>,
    jobs: VecDeque<Job>,
    installed: Vec<Checkpoint>,
}

impl Batch {
    fn is_empty(&self) -> bool {
        self.ticket.is_none() && self.jobs.is_empty()
    }
}

type Running = JoinHandle<(Store, Batch, Result<()>)>;

/// What is to be done to the log.
#[derive(Debug)]
pub(super) struct LogQueue {
    threads: Threads,
    /// None while it is at work.
    store: Option<Store>,
    waiting: Batch,
    running: Option<Running>,
    pause: Pause,
}

impl LogQueue {
    pub(super) fn new(threads: Threads, store: Store) -> Self {
        let (waiting, pause) = (Batch::default(), Pause::default());
        Self { threads, store: Some(store), waiting, running: None, pause }
    }

    pub(super) fn push(&mut self, ticket: Option<Ticket>, job: Job) {
        self.waiting.ticket = ticket.or(self.waiting.ticket);
        self.waiting.jobs.push_back(job);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.running.is_none()
    }

    /// Whether there is room for another part of a snapshot.
    pub(super) fn takes_parts(&self) -> bool {
        let size = |job: &Job| match job {
            Job::WritePart { bytes, .. } => bytes.len(),
            _ => 0,
        };
        self.waiting.jobs.iter().map(size).sum::<usize>() < PARTS_BYTES_MAX
    }

    pub(super) fn stop_waiting(&mut self) {
        self.pause = Pause { until: None, is_over: true };
    }

    fn begin(&mut self) {
        if self.pause.until.is_some() || self.waiting.is_empty() {
            return;
        }
        let Some(mut store) = self.store.take() else { return };
        let mut batch = std::mem::take(&mut self.waiting);
        self.running = Some(self.threads.spawn_blocking(move || {
            let done = store.run(&mut batch.jobs, &mut batch.installed);
            (store, batch, done)
        }));
    }

    /// Waits until something was done. May be dropped and called again.
    pub(super) async fn done(&mut self) -> Result<Done> {
        loop {
            self.begin();
            let Some(running) = &mut self.running else {
                self.pause.end().await;
                continue;
            };
            let joined = running.await;
            self.running = None;
            let (store, mut batch, done) = joined.map_err(stopped)?;
            self.store = Some(store);
            match done {
                Ok(()) => return Ok(Done { ticket: batch.ticket, installed: batch.installed }),
                Err(error) if self.pause.begin(&error) => {
                    batch.jobs.append(&mut self.waiting.jobs);
                    batch.ticket = self.waiting.ticket.or(batch.ticket);
                    self.waiting = batch;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Closes the files; what waits is not done any more.
    pub(super) async fn close(&mut self) -> Result<()> {
        if let Some(running) = self.running.take() {
            let (store, ..) = running.await.map_err(stopped)?;
            self.store = Some(store);
        }
        let Some(mut store) = self.store.take() else { return Ok(()) };
        self.threads.spawn_blocking(move || store.close()).await.map_err(stopped)?
    }
}
