//! Whole machines on one network, in one runtime with paused time.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::{SimClock, SimDisk, SimNet, SimRandom, SimThreads, Trace};
use crate::env::{Env, Net, Threads};
use crate::types::TimestampMs;

/// One run: what its machines share. It is a function of its seed if the runtime has one thread and paused
/// time, and if nobody asks the operating system for anything.
#[derive(Clone, Debug)]
pub struct SimRun {
    /// The seed.
    pub seed: u64,
    /// The clock of all machines, which is tokio's.
    pub clock: Arc<SimClock>,
    /// What happened.
    pub trace: Trace,
    /// The network.
    pub net: SimNet,
}

impl SimRun {
    /// Begins a run, within its runtime.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let clock = Arc::new(SimClock::of_runtime(TimestampMs(1_700_000_000_000)));
        let trace = Trace::new(Arc::clone(&clock));
        let net = SimNet::new(SimRandom::stream(seed, "network"), trace.clone());
        Self { seed, clock, trace, net }
    }

    /// A machine with an empty disk.
    #[must_use]
    pub fn machine(&self, name: &str, ip: IpAddr) -> SimMachine {
        let stream = |purpose: &str| SimRandom::stream(self.seed, &format!("{name} {purpose}"));
        let disk = SimDisk::new(stream("disk"));
        disk.set_trace(self.trace.clone());
        // As if it had one thread or two: appends go to the log thread, or are made at once.
        let of_runtime = if stream("runtime").one_in(2) { 1 } else { 2 };
        SimMachine {
            run: self.clone(),
            name: name.to_owned(),
            ip,
            disk: Arc::new(disk),
            threads: Arc::new(SimThreads::new(stream("threads"), of_runtime)),
            starts: AtomicU64::new(0),
        }
    }
}

/// A machine, which goes on after its processes ended.
#[derive(Debug)]
pub struct SimMachine {
    run: SimRun,
    name: String,
    /// Its address.
    pub ip: IpAddr,
    /// Its disk.
    pub disk: Arc<SimDisk>,
    /// Its threads.
    pub threads: Arc<SimThreads>,
    starts: AtomicU64,
}

impl SimMachine {
    /// The machine as a process on it sees it that is started now. It is of no use any more once the process is
    /// killed or the power cut, so that no task of a dead process does anything.
    pub fn env(&self) -> Env {
        let start = self.starts.fetch_add(1, Ordering::Relaxed);
        let purpose = format!("{} identifiers {start}", self.name);
        Env {
            clock: Arc::<SimClock>::clone(&self.run.clock),
            disk: Arc::new(self.disk.of_this_boot()),
            random: Arc::new(SimRandom::stream(self.run.seed, &purpose)),
            net: Net::Sim(self.run.net.host(self.ip, self.disk.stopped())),
            threads: Threads::Sim(Arc::clone(&self.threads)),
        }
    }

    /// Ends its processes; what they wrote stays.
    pub fn kill(&self) {
        self.run.net.stop(self.ip, true);
        self.disk.kill();
    }

    /// Cuts its power; it has it back when the next process is started.
    pub fn power_cut(&self) {
        self.run.net.stop(self.ip, false);
        self.disk.power_cut();
    }
}
