//! What the run of a seed came to, and that a seed is one run.

use std::fmt::{Debug, Write as _};
use std::ops::Range;
use std::panic::RefUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ottla::env::sim::SimRun;
use tokio::time::Instant;

use crate::broker::clients::Shared;
use crate::cluster::nodes;
use crate::history::{Event, History, checker};

/// What a run came to.
pub(crate) struct Report {
    pub(crate) history: History,
    pub(crate) findings: Vec<String>,
    trace: Vec<String>,
    pub(crate) hash: u64,
    /// How long the run was in its own time.
    pub(crate) took: Duration,
}

impl Report {
    /// Carries out a run, on one thread and in paused time; it returns the topics that should be there.
    pub(crate) fn of(live: impl AsyncFnOnce(&Shared) -> (SimRun, Vec<String>)) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let witness = Shared::default();
        let (run, missing, took) = runtime.block_on(async {
            let began = Instant::now();
            let (run, missing) = live(&witness).await;
            (run, missing, began.elapsed())
        });
        let (hash, trace) = (run.trace.hash(), run.trace.lines());
        drop(runtime);
        let witness = witness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut findings: Vec<String> =
            checker::check(&witness.history).iter().map(|anomaly| format!("{anomaly:?}")).collect();
        findings.extend(witness.complaints);
        findings.extend(
            missing.iter().map(|topic| format!("topic {topic} was acknowledged, and is gone")),
        );
        Self { history: witness.history, findings, trace, hash, took }
    }

    /// How often clients asked for something.
    pub(crate) fn operations(&self) -> usize {
        let (mut count, mut before) = (0, None);
        for event in &self.history.events {
            let polls = match event {
                Event::Poll { process, partition, .. } => Some((process, partition)),
                _ => None,
            };
            let asks = matches!(
                event,
                Event::Send { .. }
                    | Event::Commit { .. }
                    | Event::Assigned { .. }
                    | Event::Write { .. }
                    | Event::Offsets { .. }
                    | Event::End { .. }
            );
            // The rows of one poll stand one after the other.
            count += usize::from(asks || polls.is_some() && polls != before);
            before = polls;
        }
        count
    }

    /// Prints everything that happened, and what it came to.
    pub(crate) fn print(&self) {
        let (operations, acknowledged) = (self.operations(), self.history.acknowledged());
        let ends = [true, false].map(|committed| self.history.decided(committed));
        let (text, took, hash) = (self.text(), self.took, self.hash);
        eprintln!(
            "{text}hash {hash:016x}, {took:?}, {operations} operations, {acknowledged} acknowledged"
        );
        eprintln!("{} transactions committed, {} aborted", ends[0], ends[1]);
        eprintln!("findings {:#?}", self.findings);
    }

    /// Everything that happened, a line each.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for line in &self.trace {
            let _ = writeln!(text, "{line}");
        }
        for event in &self.history.events {
            let _ = writeln!(text, "{event}");
        }
        text
    }
}

/// What is tried of one kind of run.
pub(crate) struct Suite {
    /// The module with the test `replayed`.
    pub(crate) module: &'static str,
    /// The seeds that are tried each time.
    pub(crate) seeds: Range<u64>,
    /// How many fresh ones are tried besides.
    pub(crate) fresh: u64,
    /// A run in which fewer records are acknowledged proves nothing.
    pub(crate) acknowledged_min: usize,
    pub(crate) run: fn(u64) -> Report,
}

impl Suite {
    /// Tries its seeds.
    pub(crate) fn try_seeds(&self) {
        for seed in self.seeds.clone() {
            self.check(seed);
        }
    }

    /// Runs a seed twice; fails if the runs differ, if anything was found, or if too little was acknowledged. Returns how
    /// often clients asked for something.
    fn check(&self, seed: u64) -> usize {
        let (first, second) = ((self.run)(seed), (self.run)(seed));
        let replay = format!(
            "replay: OTTLA_SIM_SEED={seed} cargo test --features sim --test simulation {}::replayed -- --nocapture",
            self.module
        );
        if first.hash != second.hash {
            let pairs = first.trace.iter().zip(&second.trace);
            let place = pairs.take_while(|(one, other)| one == other).count();
            let at = |trace: &[String]| {
                let from = place.saturating_sub(5);
                trace.iter().skip(from).take(12).cloned().collect::<Vec<_>>().join("\n  ")
            };
            let (one, other) = (at(&first.trace), at(&second.trace));
            panic!(
                "seed {seed} is not deterministic, line {place}:\n  {one}\nor\n  {other}\n{replay}"
            );
        }
        assert!(
            first.findings.is_empty(),
            "seed {seed}: {} findings\n  {}\n{replay}",
            first.findings.len(),
            first.findings.join("\n  ")
        );
        let acknowledged = first.history.acknowledged();
        assert!(
            acknowledged >= self.acknowledged_min,
            "seed {seed}: only {acknowledged} are acknowledged"
        );
        first.operations() + second.operations()
    }

    /// Tries `OTTLA_SIM_RUNS` seeds from `OTTLA_SIM_FIRST` on, or as many as it takes for `OTTLA_SIM_OPERATIONS` operations
    /// of clients, on all processors; without either, a few. All that fail are named.
    pub(crate) fn try_fresh(&self) {
        let asked = |name: &str| Some(std::env::var(name).ok()?.parse::<u64>().unwrap());
        let (runs, wanted) = (asked("OTTLA_SIM_RUNS"), asked("OTTLA_SIM_OPERATIONS"));
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let first = asked("OTTLA_SIM_FIRST").unwrap_or(now.as_secs() << 16);
        let most = runs.unwrap_or(if wanted.is_some() { u64::MAX - first } else { self.fresh });
        let wanted = wanted.unwrap_or(u64::MAX);
        let (next, operations) = (AtomicU64::new(first), AtomicU64::new(0));
        let failed = Mutex::new(Vec::new());
        eprintln!("fresh seeds from {first} on");
        let work = || {
            while operations.load(Ordering::Relaxed) < wanted {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed - first >= most {
                    break;
                }
                match std::panic::catch_unwind(|| self.check(seed)) {
                    Ok(more) => drop(operations.fetch_add(more as u64, Ordering::Relaxed)),
                    Err(_) => failed.lock().unwrap().push(seed),
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |count| count.get() as u64);
        std::thread::scope(|scope| {
            for _ in 0..threads.min(most) {
                scope.spawn(work);
            }
        });
        let (failed, tried) =
            (failed.into_inner().unwrap(), next.into_inner().min(first + most) - first);
        let operations = operations.into_inner();
        eprintln!("{operations} operations of clients in {tried} runs, each twice");
        assert!(failed.is_empty(), "{} of {tried} seeds failed: {failed:?}", failed.len());
    }

    /// Runs the seed of `OTTLA_SIM_SEED`, and prints what happened; with `OTTLA_LOG=info` also what the nodes say.
    pub(crate) fn replay(&self) {
        let Ok(seed) = std::env::var("OTTLA_SIM_SEED") else { return };
        nodes::log();
        let seed = seed.parse().unwrap();
        (self.run)(seed).print();
        self.check(seed);
    }
}

/// The first seed that finds a planted fault, and what it finds.
pub(crate) fn finds(
    mut seeds: Range<u64>,
    run: impl Fn(u64) -> Report + RefUnwindSafe,
) -> Option<(u64, String)> {
    seeds.find_map(|seed| {
        // Where a fault keeps a node from starting, the run ends with a panic.
        let findings = std::panic::catch_unwind(|| run(seed).findings)
            .unwrap_or_else(|_| vec!["the run panicked".to_owned()]);
        Some((seed, findings.into_iter().next()?))
    })
}

/// Fails unless each planted fault is found within the seeds.
pub(crate) fn find_all<P: Copy + Debug + RefUnwindSafe>(
    planted: impl IntoIterator<Item = P>,
    seeds: &Range<u64>,
    run: fn(u64, Option<P>) -> Report,
) {
    let mut overlooked = Vec::new();
    for planted in planted {
        match finds(seeds.clone(), |seed| run(seed, Some(planted))) {
            Some((seed, finding)) => eprintln!("{planted:?}: seed {seed}: {finding:.100}"),
            None => overlooked.push(planted),
        }
    }
    assert!(overlooked.is_empty(), "not found within the seeds {seeds:?}: {overlooked:?}");
}
