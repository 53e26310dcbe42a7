//! Handles of the simulated disk: files, mappings and locks. Those from before a crash are dead.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::disk::{PAGE, State};
use crate::env::{File, Lock, Mapping};
use crate::types::Stored;

#[derive(Debug)]
pub(super) struct SimLock {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) path: PathBuf,
    pub(super) boot: u64,
}

impl Lock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.boot == self.boot {
            state.locks.remove(&self.path);
        }
    }
}

#[derive(Debug)]
pub(super) struct SimFile {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) id: u64,
    pub(super) boot: u64,
    pub(super) path: PathBuf,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.boot != self.boot {
            return Err(io::Error::other("the handle is from before the crash"));
        }
        state.alive()?;
        Ok(state)
    }
}

impl File for SimFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.file(self.id)?.data.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        let file = state.file(self.id)?;
        let start = usize::try_from(position).map_err(io::Error::other)?.min(file.data.len());
        let available = file.data.get(start..).unwrap_or_default();
        let count = available.len().min(buffer.len());
        for (place, byte) in buffer.iter_mut().zip(available) {
            *place = *byte;
        }
        Ok(count)
    }

    fn write_all_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.changing("write", &self.path)?;
        let bytes = parts.concat();
        state.note(|| format!("{:08x}+{} at {position}", crc32c::crc32c(&bytes), bytes.len()));
        let start = usize::try_from(position).map_err(io::Error::other)?;
        let room = state.capacity.saturating_sub(state.used());
        let file = state.file(self.id)?;
        file.check_fence(position)?;
        let growth = (start + bytes.len()).saturating_sub(file.data.len());
        let missing = usize::try_from((growth as u64).saturating_sub(room)).unwrap_or(usize::MAX);
        let fits = bytes.len().saturating_sub(missing);
        let end = start + fits;
        if end > file.data.len() && fits > 0 {
            file.data.resize(end, 0);
        }
        if let (Some(target), Some(source)) = (file.data.get_mut(start..end), bytes.get(..fits)) {
            target.copy_from_slice(source);
        }
        if fits > 0 {
            file.dirty.extend(start / PAGE..=(end - 1) / PAGE);
        }
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        state.changing("sync", &self.path)?;
        let file = state.file(self.id)?;
        file.durable.clone_from(&file.data);
        file.dirty.clear();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state()?;
        state.changing("set_len", &self.path)?;
        let file = state.file(self.id)?;
        file.check_fence(len)?;
        file.data.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn is_handed_out(&self, position: u64) -> io::Result<bool> {
        Ok(self.state()?.file(self.id)?.check_fence(position).is_err())
    }

    fn map(&self, limit: u64) -> io::Result<Arc<dyn Mapping>> {
        drop(self.state()?);
        Ok(Arc::new(SimMapping {
            file: Self {
                state: Arc::clone(&self.state),
                id: self.id,
                boot: self.boot,
                path: self.path.clone(),
            },
            limit,
        }))
    }
}

/// Hands out copies, which is what a real mapping shows of bytes that do not change, and remembers how far: nobody
/// may change those bytes, through whatever handle (`DISK-4`).
#[derive(Debug)]
struct SimMapping {
    file: SimFile,
    limit: u64,
}

impl Mapping for SimMapping {
    fn slice(self: Arc<Self>, range: Range<u64>) -> io::Result<Bytes> {
        if range.end > self.limit || range.end > self.file.len()? {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let len =
            usize::try_from(range.end.saturating_sub(range.start)).map_err(io::Error::other)?;
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, range.start)?;
        let mut state = self.file.state()?;
        let file = state.file(self.file.id)?;
        file.fence = file.fence.max(range.end);
        Ok(bytes.into())
    }

    fn stored(&self, _position: u64) -> Option<Stored> {
        None
    }

    fn prefault(&self, _range: Range<u64>) {}
}
