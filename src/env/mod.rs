//! The only way to the clock, the disk, the network, threads and randomness.
//!
//! Nothing above this module asks the operating system for the time, a file, a socket, a thread or a random
//! number: it is handed an [`Env`]. This lets the simulation tests run a whole broker on a disk that loses power
//! and a network that is cut, and replay the run from its seed (ADR 0019).
//!
//! Timers and deadlines are tokio's, which a simulation runs on paused time.
//!
//! - [`real`]: the operating system. The only `unsafe` of the storage path is in
//!   `real/storage.rs`.
//! - `sim` (feature `sim`): a seeded disk with a model of unsynced pages and unsynced directory
//!   entries, a network, threads that are tasks, a clock, and random streams from one seed.
//!
//! # What a disk promises
//!
//! The contract that `log` is written against; both implementations honour it.
//!
//! - `DISK-1`: bytes written are visible to every later read through any handle and any mapping of
//!   the same file (one page cache), including mappings created before the write.
//! - `DISK-2`: bytes survive a power cut only after [`File::sync_data`]; before that, each page is
//!   lost, kept or torn independently, and the length is anything between the synced and the
//!   current one.
//! - `DISK-3`: a created, renamed or removed directory entry survives a power cut only after
//!   [`Disk::sync_dir`] of its directory. A rename within a directory is atomic: afterwards the
//!   name refers to the old file or the new one, never to neither.
//! - `DISK-4`: bytes handed out from a [`Mapping`] stay unchanged and readable for as long as they
//!   are held, whatever happens to the name of the file, the handle or the directory. In return
//!   [`File::write_all_at`] and [`File::set_len`] refuse to touch what was handed out; [`File::set_len`] even if that
//!   was through another handle.
//! - `DISK-5`: bytes written and names changed survive the end of the process; what only a sync would have saved is
//!   lost with the machine, and then [`Disk::boot_id`] is another one.

mod links;
mod net;
pub mod real;
#[cfg(feature = "sim")]
pub mod sim;
mod threads;

use std::any::Any;
use std::fmt::Debug;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

pub use links::Links;
pub use net::{Listener, Net, ReadHalf, SocketOptions, Transport, WriteHalf};
pub use threads::{Interruptible, Queue, Thread, Threads};

use crate::types::{Stored, TimestampMs, Uuid};

/// The surroundings of a component: clock, disk, network, threads and randomness. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Env {
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// The disk.
    pub disk: Arc<dyn Disk>,
    /// The source of identifiers.
    pub random: Arc<dyn Random>,
    /// The network.
    pub net: Net,
    /// Threads, and work that blocks.
    pub threads: Threads,
}

impl Env {
    /// The operating system's clock, files, sockets, threads and random numbers.
    #[must_use]
    pub fn real() -> Self {
        Self {
            clock: Arc::new(real::RealClock::new()),
            disk: Arc::new(real::RealDisk::new()),
            random: Arc::new(real::RealRandom),
            net: Net::Real,
            threads: Threads::Real,
        }
    }
}

/// Tells the time.
pub trait Clock: Send + Sync + Debug {
    /// The wall clock, which may jump.
    fn now(&self) -> TimestampMs;

    /// Time since some fixed moment; never goes backwards.
    fn monotonic(&self) -> Duration;
}

/// A source of random bytes; not meant for keys.
pub trait Random: Send + Sync + Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);

    /// A random number.
    fn u64(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A random (version 4) identifier that is not one of Kafka's reserved ones.
    fn uuid(&self) -> Uuid {
        loop {
            let mut bytes = [0; 16];
            self.fill(&mut bytes);
            let uuid = Uuid::from_random(bytes);
            // Kafka never creates an id whose text starts with a dash: tools take it for an option.
            if !uuid.to_string().starts_with('-') {
                return uuid;
            }
        }
    }
}

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    ReadWrite,
    /// Read and write; created when it is missing.
    Create,
    /// Read and write; emptied when it exists, by creating a new file, so that mappings of the old
    /// one are not affected.
    CreateEmpty,
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The last part of the path. Names that are not UTF-8 are left out of listings.
    pub name: String,
    /// Whether it is a directory.
    pub is_dir: bool,
    /// The length of a file.
    pub size_bytes: u64,
    /// When the file was last written, if known.
    pub modified: TimestampMs,
}

/// Holds an advisory lock until it is dropped.
pub trait Lock: Send + Sync + Debug {}

/// Files and directories. All calls block.
pub trait Disk: Send + Sync + Debug {
    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// The entries of a directory, by name.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;

    /// Creates a directory and its missing parents, and syncs the parents of those created.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Renames a file or directory, replacing any file with the new name.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name, in one step, unless that name is taken: then it fails with
    /// [`io::ErrorKind::AlreadyExists`]. Of several that want one name, one gets it.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory with everything in it.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes the entries of a directory durable. Does nothing where the platform has no such call.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Whether something with this name exists.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Takes an exclusive advisory lock on a file, which is created when missing. `None` when
    /// someone else holds it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// How many files and sockets the process may have open; `None` if there is no limit.
    fn open_files_max(&self) -> Option<u64>;

    /// How many bytes may still be written to the file system of `path`.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// The size of the file system of `path`.
    fn total_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Names the time since the machine was started: as long as the name is the same, everything that was written is
    /// there, synced or not, whichever processes ended. `None` where the system does not say, which proves nothing.
    fn boot_id(&self) -> Option<String>;

    /// Reads a whole file. `None` when no file has this name.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let file = match self.open(path, OpenMode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let len = usize::try_from(file.len()?).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Some(bytes))
    }

    /// Replaces the content of a file so that a power cut leaves the old content or the new one:
    /// writes `NAME.tmp`, syncs it, renames it, syncs the directory.
    fn write_atomically(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        {
            let file = self.open(&temporary, OpenMode::CreateEmpty)?;
            file.write_all_at(&[bytes], 0)?;
            file.sync_data()?;
        }
        self.rename(&temporary, path)?;
        match path.parent() {
            Some(parent) => self.sync_dir(parent),
            None => Ok(()),
        }
    }
}

/// An open file. Positions are explicit, so a handle may be shared between threads.
pub trait File: Send + Sync + Debug {
    /// The current length.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reads into `buffer`; returns how many bytes, 0 at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;

    /// Fills `buffer`, or fails with [`io::ErrorKind::UnexpectedEof`].
    fn read_exact_at(&self, buffer: &mut [u8], position: u64) -> io::Result<()> {
        let mut done = 0;
        while done < buffer.len() {
            let rest = buffer.get_mut(done..).unwrap_or_default();
            match self.read_at(rest, position + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes all parts, one after the other, in one system call where the platform can. On an error
    /// any prefix may have been written.
    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()>;

    /// Makes the content and the length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Truncates or extends (with zeros) the file.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Whether somebody holds bytes from `position` on that came out of a mapping of this file, through whatever
    /// handle of this process.
    fn is_handed_out(&self, position: u64) -> io::Result<bool>;

    /// Prepares to read the first `limit` bytes without copies. The file may still be shorter;
    /// bytes become readable as it grows.
    fn map(&self, limit: u64) -> io::Result<Arc<dyn Mapping>>;
}

/// A file in memory. See `DISK-4`.
pub trait Mapping: Send + Sync + Debug + Any {
    /// The bytes of `range`, without a copy; the result keeps the mapping alive.
    ///
    /// The caller must know that the range was written: asking beyond the end of the file or the
    /// mapping's limit is an error.
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes>;

    /// The location of `position` for a socket that takes bytes from files directly; `None` where
    /// that is not available, or too many files are open. Valid for bytes that were handed out.
    fn stored(&self, position: u64) -> Option<Stored>;

    /// Brings the pages of `range` into memory; blocks while they are read from the disk.
    fn prefault(&self, range: Range<u64>);
}
