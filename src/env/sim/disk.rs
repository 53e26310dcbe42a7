//! A disk in memory that can lose power, fill up, fail and rot.
//!
//! # The fault model
//!
//! What the log must survive, through [`SimDisk::power_cut`]:
//!
//! - every page that was written since the file's last sync is independently lost, kept or torn
//!   (part of it is new, the rest old);
//! - the length of a file is anything between the synced and the current one; bytes between that
//!   never reached the disk read as zeros;
//! - directory entries that were created, renamed or removed since the directory's last sync are
//!   there or not: depending on the seed, either a prefix of the changes happened (a journal), or
//!   each independently. A rename is one change: the name always refers to the old file or the new
//!   one.
//!
//! Besides: [`SimDisk::set_capacity`] (a write that does not fit is cut short and fails),
//! [`SimDisk::inject`] (an I/O error at a chosen call), [`SimDisk::crash_after`] (the machine stops
//! at the n-th modifying call: from then on every call fails until the power cut),
//! [`SimDisk::flip_bit`].

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::{SimFile, SimLock};
use super::{SimRandom, Trace};
use crate::env::{DirEntry, Disk, File, Lock, OpenMode};
use crate::types::TimestampMs;

pub(super) const PAGE: usize = 4096;
const ROOT: u64 = 0;

/// An error for a call to raise.
#[derive(Clone, Debug)]
pub struct Fault {
    /// The call: `write`, `sync`, `open`, `rename`, `remove`, `create`, `link`, `set_len` or `sync_dir`.
    pub call: &'static str,
    /// Only for paths that end like this.
    pub path_suffix: String,
    /// How many such calls succeed first.
    pub skip: u64,
    /// The error.
    pub kind: io::ErrorKind,
}

/// A simulated disk.
#[derive(Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
    /// Whose boot this handle belongs to; none for one that outlives them.
    boot: Option<u64>,
}

#[derive(Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Debug, Default)]
pub(super) struct FileNode {
    pub(super) data: Vec<u8>,
    pub(super) durable: Vec<u8>,
    pub(super) dirty: BTreeSet<usize>,
    /// The end of what this boot has handed out of mappings.
    pub(super) fence: u64,
}

#[derive(Debug, Default)]
struct DirNode {
    entries: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    /// The changes since the last sync, in order.
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, u64),
    Unlink(String),
    Rename(String, String, u64),
}

impl Change {
    fn apply(&self, entries: &mut BTreeMap<String, u64>) {
        match self {
            Self::Link(name, id) => {
                entries.insert(name.clone(), *id);
            }
            Self::Unlink(name) => {
                entries.remove(name);
            }
            Self::Rename(from, to, id) => {
                entries.remove(from);
                entries.insert(to.clone(), *id);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct State {
    nodes: BTreeMap<u64, Node>,
    next_id: u64,
    /// Handles from an earlier boot are dead.
    pub(super) boot: u64,
    power_cuts: u64,
    pub(super) capacity: u64,
    calls: u64,
    crash_after: Option<u64>,
    crashed: bool,
    faults: Vec<Fault>,
    pub(super) locks: BTreeSet<PathBuf>,
    random: SimRandom,
    trace: Trace,
    /// Tells others that the machine has stopped.
    stopped: Arc<AtomicBool>,
}

impl SimDisk {
    /// An empty disk whose faults are drawn from `random`.
    #[must_use]
    pub fn new(random: SimRandom) -> Self {
        let state = State {
            nodes: BTreeMap::from([(ROOT, Node::Dir(DirNode::default()))]),
            next_id: ROOT + 1,
            boot: 0,
            power_cuts: 0,
            capacity: u64::MAX,
            calls: 0,
            crash_after: None,
            crashed: false,
            faults: Vec::new(),
            locks: BTreeSet::new(),
            random,
            trace: Trace::default(),
            stopped: Arc::default(),
        };
        Self { state: Arc::new(Mutex::new(state)), boot: None }
    }

    /// The disk for a process: every call fails once that was killed or lost its power.
    #[must_use]
    pub fn of_this_boot(&self) -> Self {
        Self { boot: Some(self.state().boot), state: Arc::clone(&self.state) }
    }

    /// Notes every modifying call.
    pub fn set_trace(&self, trace: Trace) {
        self.state().trace = trace;
    }

    /// Whether the machine has stopped, as of now and later, until it boots.
    #[must_use]
    pub fn stopped(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.state().stopped)
    }

    /// The state, for a call of a process.
    fn running(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state();
        if self.boot.is_some_and(|boot| boot != state.boot) {
            return Err(io::Error::other("the process is from before the crash"));
        }
        state.alive()?;
        Ok(state)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many modifying calls were made: the number of points where a crash can be placed.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    /// Stops the machine after this many more modifying calls: every later call fails.
    pub fn crash_after(&self, calls: u64) {
        let mut state = self.state();
        state.crash_after = Some(state.calls + calls);
    }

    /// Whether the machine was stopped by [`SimDisk::crash_after`].
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().crashed
    }

    /// Limits the sum of all files' lengths.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// The sum of all files' lengths.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used()
    }

    /// Raises an error at a later call, once.
    pub fn inject(&self, fault: Fault) {
        self.state().faults.push(fault);
    }

    /// Takes back the errors that were not raised yet.
    pub fn forget_faults(&self) {
        self.state().faults.clear();
    }

    /// What a file holds; only what was synced, if `synced`.
    ///
    /// # Errors
    ///
    /// There is no such file.
    pub fn content(&self, path: &Path, synced: bool) -> io::Result<Vec<u8>> {
        let mut state = self.state();
        let id = state.find(path)?;
        let file = state.file(id)?;
        Ok(if synced { file.durable.clone() } else { file.data.clone() })
    }

    /// The names in a directory, for a test that looks at it, also while the machine stands still.
    ///
    /// # Errors
    ///
    /// When there is no such directory.
    pub fn names(&self, path: &Path) -> io::Result<Vec<String>> {
        Ok(self.state().dir(path)?.entries.keys().cloned().collect())
    }

    /// Flips one bit of a file, on the disk and in the cache.
    ///
    /// # Errors
    ///
    /// When there is no such byte.
    pub fn flip_bit(&self, path: &Path, byte: usize, bit: u8) -> io::Result<()> {
        let mut state = self.state();
        let id = state.find(path)?;
        let file = state.file(id)?;
        let place = file.data.get_mut(byte).ok_or(io::ErrorKind::UnexpectedEof)?;
        *place ^= 1 << (bit % 8);
        if let Some(place) = file.durable.get_mut(byte) {
            *place ^= 1 << (bit % 8);
        }
        Ok(())
    }

    /// Ends the processes of the machine, as `kill -9` does: written bytes stay, handles and locks
    /// are gone.
    pub fn kill(&self) {
        self.state().reboot();
    }

    /// Cuts the power: see the fault model. The disk may be used again afterwards.
    pub fn power_cut(&self) {
        let mut state = self.state();
        state.power_cuts += 1;
        let ids: Vec<u64> = state.nodes.keys().copied().collect();
        for id in ids {
            let Some(mut node) = state.nodes.remove(&id) else { continue };
            match &mut node {
                Node::File(file) => file.lose_power(&state.random),
                Node::Dir(dir) => dir.lose_power(&state.random),
            }
            state.nodes.insert(id, node);
        }
        state.reboot();
        state.collect();
    }
}

impl FileNode {
    pub(super) fn check_fence(&self, position: u64) -> io::Result<()> {
        if position < self.fence {
            let end = self.fence;
            let text = format!("byte {position} was handed out of a mapping, up to {end}");
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(())
    }

    fn lose_power(&mut self, random: &SimRandom) {
        let (synced, current) = (self.durable.len(), self.data.len());
        let spread = synced.abs_diff(current) as u64;
        let len = synced.min(current) + usize::try_from(random.below(spread + 1)).unwrap_or(0);
        let mut kept = std::mem::take(&mut self.durable);
        kept.resize(len, 0);
        for page in std::mem::take(&mut self.dirty) {
            let start = page * PAGE;
            let end = (start + PAGE).min(len).min(current);
            let take = match random.below(3) {
                0 => 0,
                1 => PAGE,
                _ => usize::try_from(random.below(PAGE as u64)).unwrap_or(0),
            };
            let end = end.min(start + take);
            if let (Some(target), Some(source)) =
                (kept.get_mut(start..end), self.data.get(start..end))
            {
                target.copy_from_slice(source);
            }
        }
        self.data.clone_from(&kept);
        self.durable = kept;
    }
}

impl DirNode {
    fn lose_power(&mut self, random: &SimRandom) {
        let pending = std::mem::take(&mut self.pending);
        let journal = random.one_in(2);
        let prefix = random.below(pending.len() as u64 + 1);
        for (index, change) in (0_u64..).zip(&pending) {
            if if journal { index < prefix } else { random.one_in(2) } {
                change.apply(&mut self.durable);
            }
        }
        self.entries.clone_from(&self.durable);
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.entries);
        self.pending.push(change);
    }
}

fn not_found() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn split(path: &Path) -> io::Result<(&Path, String)> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(not_found)?;
    Ok((parent, name.to_owned()))
}

impl State {
    /// The sum of the lengths of all files that have a name.
    pub(super) fn used(&self) -> u64 {
        let entries = self.nodes.values().filter_map(|node| match node {
            Node::Dir(dir) => Some(dir.entries.values()),
            Node::File(_) => None,
        });
        let size = |id: &u64| match self.nodes.get(id) {
            Some(Node::File(file)) => file.data.len() as u64,
            _ => 0,
        };
        // A file with two names is there once.
        entries.flatten().collect::<BTreeSet<_>>().into_iter().map(size).sum()
    }

    fn reboot(&mut self) {
        self.boot += 1;
        self.crashed = false;
        self.stopped.store(false, Ordering::Release);
        self.crash_after = None;
        self.locks.clear();
        for node in self.nodes.values_mut() {
            if let Node::File(file) = node {
                file.fence = 0;
            }
        }
    }

    /// Drops files that neither a durable nor a current entry names.
    fn collect(&mut self) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Dir(dir) = node {
                named.extend(dir.entries.values().chain(dir.durable.values()));
            }
        }
        self.nodes.retain(|id, _| named.contains(id));
    }

    pub(super) fn alive(&self) -> io::Result<()> {
        if self.crashed { Err(io::Error::other("the machine has stopped")) } else { Ok(()) }
    }

    /// Counts a modifying call, and fails it when it is due to.
    pub(super) fn changing(&mut self, call: &'static str, path: &Path) -> io::Result<()> {
        self.alive()?;
        if self.crash_after.is_some_and(|last| self.calls >= last) {
            self.crashed = true;
            self.stopped.store(true, Ordering::Release);
        }
        self.alive()?;
        self.calls += 1;
        let text = path.to_string_lossy();
        self.trace.note(|| format!("disk {call} {text}"));
        let matching = self
            .faults
            .iter()
            .position(|fault| fault.call == call && text.ends_with(&fault.path_suffix));
        if let Some(index) = matching
            && let Some(fault) = self.faults.get_mut(index)
        {
            if fault.skip > 0 {
                fault.skip -= 1;
            } else {
                return Err(self.faults.remove(index).kind.into());
            }
        }
        Ok(())
    }

    pub(super) fn note(&self, what: impl FnOnce() -> String) {
        self.trace.note(what);
    }

    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut id = ROOT;
        for part in path.components() {
            let std::path::Component::Normal(name) = part else { continue };
            let name = name.to_str().ok_or_else(not_found)?;
            match self.nodes.get(&id) {
                Some(Node::Dir(dir)) => id = *dir.entries.get(name).ok_or_else(not_found)?,
                _ => return Err(not_found()),
            }
        }
        Ok(id)
    }

    pub(super) fn file(&mut self, id: u64) -> io::Result<&mut FileNode> {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Ok(file),
            _ => Err(not_found()),
        }
    }

    fn dir(&mut self, path: &Path) -> io::Result<&mut DirNode> {
        let id = self.find(path)?;
        match self.nodes.get_mut(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn add(&mut self, parent: &Path, name: String, node: Node) -> io::Result<u64> {
        let id = self.next_id;
        self.dir(parent)?.change(Change::Link(name, id));
        self.next_id += 1;
        self.nodes.insert(id, node);
        Ok(id)
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.running()?;
        let found = state.find(path);
        let id = match (found, mode) {
            (Ok(id), OpenMode::Read | OpenMode::ReadWrite | OpenMode::Create) => id,
            (Err(error), OpenMode::Read | OpenMode::ReadWrite) => return Err(error),
            (found, _) => {
                state.changing("open", path)?;
                let (parent, name) = split(path)?;
                if found.is_ok() {
                    state.dir(parent)?.change(Change::Unlink(name.clone()));
                }
                state.add(parent, name, Node::File(FileNode::default()))?
            }
        };
        state.file(id)?;
        Ok(Arc::new(SimFile {
            state: Arc::clone(&self.state),
            id,
            boot: state.boot,
            path: path.to_path_buf(),
        }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let mut state = self.running()?;
        let entries = state.dir(path)?.entries.clone();
        let entry = |(name, id): (String, u64)| {
            let (is_dir, size_bytes) = match state.nodes.get(&id) {
                Some(Node::File(file)) => (false, file.data.len() as u64),
                _ => (true, 0),
            };
            DirEntry { name, is_dir, size_bytes, modified: TimestampMs::NONE }
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        let mut current = PathBuf::new();
        for part in path.components() {
            current.push(part);
            if state.find(&current).is_err() {
                state.changing("create", &current)?;
                let (parent, name) = split(&current)?;
                let parent = parent.to_path_buf();
                state.add(&parent, name, Node::Dir(DirNode::default()))?;
                state.changing("sync_dir", &parent)?;
                let dir = state.dir(&parent)?;
                dir.durable.clone_from(&dir.entries);
                dir.pending.clear();
            }
        }
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        let id = state.find(from)?;
        state.changing("rename", from)?;
        let ((old, old_name), (new, new_name)) = (split(from)?, split(to)?);
        if old == new {
            state.dir(old)?.change(Change::Rename(old_name, new_name, id));
        } else {
            state.dir(new)?.change(Change::Link(new_name, id));
            state.dir(old)?.change(Change::Unlink(old_name));
        }
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        let id = state.find(from)?;
        state.file(id)?;
        if state.find(to).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.changing("link", to)?;
        let (parent, name) = split(to)?;
        state.dir(parent)?.change(Change::Link(name, id));
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        let id = state.find(path)?;
        state.file(id)?;
        state.changing("remove", path)?;
        let (parent, name) = split(path)?;
        state.dir(parent)?.change(Change::Unlink(name));
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.dir(path)?;
        state.changing("remove", path)?;
        let (parent, name) = split(path)?;
        state.dir(parent)?.change(Change::Unlink(name));
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.running()?;
        state.changing("sync_dir", path)?;
        let dir = state.dir(path)?;
        dir.durable.clone_from(&dir.entries);
        dir.pending.clear();
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.running()?;
        Ok(state.find(path).is_ok())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        drop(self.open(path, OpenMode::Create)?);
        let mut state = self.running()?;
        if !state.locks.insert(path.to_path_buf()) {
            return Ok(None);
        }
        let boot = state.boot;
        Ok(Some(Box::new(SimLock {
            state: Arc::clone(&self.state),
            path: path.to_path_buf(),
            boot,
        })))
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        let state = self.running()?;
        Ok(state.capacity.saturating_sub(state.used()))
    }

    fn total_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.running()?.capacity)
    }

    fn open_files_max(&self) -> Option<u64> {
        None
    }

    fn boot_id(&self) -> Option<String> {
        Some(format!("power-on-{}", self.state().power_cuts))
    }
}
