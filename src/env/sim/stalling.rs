//! A disk that can be made to stand still: whoever changes something then waits until it goes on, as the kernel has
//! writers wait for a device. What is read comes from memory, and goes on.

use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use crate::env::{DirEntry, Disk, File, Lock, Mapping, OpenMode};

#[derive(Debug, Default)]
struct Gate {
    /// Whether it is closed, and how many wait before it.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        self.changed.notify_all();
        while state.0 {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.1 -= 1;
    }
}

/// See the module.
#[derive(Clone, Debug)]
pub struct StallingDisk {
    inner: Arc<dyn Disk>,
    gate: Arc<Gate>,
}

impl StallingDisk {
    /// The disk `inner`, which can be made to stand still.
    pub fn over(inner: Arc<dyn Disk>) -> Self {
        Self { inner, gate: Arc::default() }
    }

    /// Lets it stand still, or go on.
    pub fn stall(&self, stalled: bool) {
        self.gate.state.lock().unwrap_or_else(PoisonError::into_inner).0 = stalled;
        self.gate.changed.notify_all();
    }

    /// How many calls wait for the disk.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.gate.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    /// Waits until `count` calls wait for the disk.
    pub fn wait_for(&self, count: usize) {
        let mut state = self.gate.state.lock().unwrap_or_else(PoisonError::into_inner);
        while state.1 < count {
            state = self.gate.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Disk for StallingDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        if matches!(mode, OpenMode::Create | OpenMode::CreateEmpty) {
            self.gate.pass();
        }
        let inner = self.inner.open(path, mode)?;
        Ok(Arc::new(StallingFile { inner, gate: Arc::clone(&self.gate) }))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.inner.read_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.inner.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.inner.lock(path)
    }

    fn open_files_max(&self) -> Option<u64> {
        self.inner.open_files_max()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.inner.total_bytes(path)
    }

    fn boot_id(&self) -> Option<String> {
        self.inner.boot_id()
    }
}

#[derive(Debug)]
struct StallingFile {
    inner: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for StallingFile {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, position)
    }

    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.gate.pass();
        self.inner.write_all_at(parts, position)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.inner.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.pass();
        self.inner.set_len(len)
    }

    fn is_handed_out(&self, position: u64) -> io::Result<bool> {
        self.inner.is_handed_out(position)
    }

    fn map(&self, limit: u64) -> io::Result<Arc<dyn Mapping>> {
        self.inner.map(limit)
    }
}
