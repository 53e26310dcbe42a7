//! A store that is a folder.
//!
//! An object is written under another name in `_ottla/tmp`, synced, and then gets its name, so it is there with all its
//! bytes or not at all (`STORE-1`). Whoever creates gets the name by a link, which only one can (`STORE-2`). What is
//! beside it has its names for certain by then (`STORE-5`).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::sync::Semaphore;

use super::{Created, Object, Store};
use crate::env::{Disk, Env, OpenMode};
use crate::error::{Error, ErrorCode, Result};

const TEMPORARY: &str = "_ottla/tmp";
const COPY_BYTES: usize = 1 << 20;
/// How many threads work on the folder at a time: one that hangs must not take all threads that there are.
const CALLS: usize = 16;
/// A file that was begun so long ago is of a program that does not exist any more.
const ABANDONED_MS: i64 = 24 * 60 * 60 * 1000;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FolderStore(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    env: Env,
    /// Names of temporary files: part of them is random, the rest is counted.
    random: u64,
    count: AtomicU64,
    calls: Arc<Semaphore>,
}

impl FolderStore {
    /// Opens the folder, which is created when it is missing, and removes what was begun there long ago. Blocks.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn open(root: &Path, env: Env) -> Result<Self> {
        let random = env.random.u64();
        let (count, calls) = (AtomicU64::new(0), Arc::new(Semaphore::new(CALLS)));
        let inner = Inner { root: root.to_path_buf(), env, random, count, calls };
        let temporary = inner.path(TEMPORARY);
        let disk = &inner.env.disk;
        disk.create_dir_all(&temporary).map_err(|error| Error::io("create", &temporary, error))?;
        let entries =
            disk.read_dir(&temporary).map_err(|error| Error::io("list", &temporary, error))?;
        let before = inner.env.clock.now().plus(-ABANDONED_MS);
        for entry in entries.iter().filter(|entry| entry.modified.0 >= 0 && !entry.is_dir) {
            if entry.modified < before {
                inner.remove(&temporary.join(&entry.name))?;
            }
        }
        Ok(Self(Arc::new(inner)))
    }

    fn run<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Inner, &Path) -> Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let (inner, path) = (Arc::clone(&self.0), self.0.path(path));
        async move {
            let threads = inner.env.threads.clone();
            // Nobody closes it. The call keeps its turn also when nobody waits for it any more.
            let turn = Arc::clone(&inner.calls).acquire_owned().await.ok();
            let task = threads.spawn_blocking(move || {
                let _turn = turn;
                inner.check()?;
                work(&inner, &path)
            });
            task.await.unwrap_or_else(|error| {
                let context = format!("an access to the tier failed: {error}");
                Err(Error::kafka(ErrorCode::UnknownServerError, context))
            })
        }
        .boxed()
    }
}

impl Inner {
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn disk(&self) -> &dyn Disk {
        &*self.env.disk
    }

    /// Fails when the folder is away (`STORE-4`): nothing of ours is there, not even what [`FolderStore::open`] made.
    fn check(&self) -> Result<()> {
        let path = self.path(TEMPORARY);
        match self.disk().exists(&path) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::io("find the tier at", &self.root, away())),
            Err(error) => Err(Error::io("find the tier at", &self.root, error)),
        }
    }

    fn remove(&self, path: &Path) -> Result<()> {
        match self.disk().remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("remove", path, error))
            }
            _ => Ok(()),
        }
    }

    /// Creates the folder that something is to be in.
    fn prepare(&self, path: &Path) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.root);
        self.disk().create_dir_all(folder).map_err(|error| Error::io("create", folder, error))
    }

    /// Writes a temporary file, has it given its name, and makes that durable.
    fn publish<T>(
        &self,
        path: &Path,
        write: impl FnOnce(&dyn crate::env::File) -> Result<()>,
        name: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        self.prepare(path)?;
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let temporary = self.path(TEMPORARY).join(format!("{:016x}-{count}", self.random));
        let written = self.write_and_name(&temporary, write, name);
        // After a rename there is none. One that stays is removed in a day.
        drop(self.remove(&temporary));
        let named = written?;
        self.sync_folder(path)?;
        Ok(named)
    }

    /// Makes the names beside an object durable. Whoever creates does so before, too: the name of an object that was created
    /// although it failed may be lost, and versions that are numbered must not have a hole (`STORE-5`).
    fn sync_folder(&self, path: &Path) -> Result<()> {
        let Some(folder) = path.parent() else { return Ok(()) };
        self.disk().sync_dir(folder).map_err(|error| Error::io("sync", folder, error))
    }

    fn write_and_name<T>(
        &self,
        temporary: &Path,
        write: impl FnOnce(&dyn crate::env::File) -> Result<()>,
        name: impl FnOnce(&Path) -> Result<T>,
    ) -> Result<T> {
        let file = self
            .disk()
            .open(temporary, OpenMode::CreateEmpty)
            .map_err(|error| Error::io("create", temporary, error))?;
        write(&*file)?;
        file.sync_data().map_err(|error| Error::io("sync", temporary, error))?;
        drop(file);
        name(temporary)
    }

    fn list_into(&self, folder: &Path, prefix: &str, found: &mut Vec<Object>) -> Result<()> {
        let entries = match self.disk().read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(Error::io("list", folder, error)),
        };
        for entry in entries {
            let path = if prefix.is_empty() {
                entry.name.clone()
            } else {
                format!("{prefix}/{}", entry.name)
            };
            if path == TEMPORARY {
                continue;
            }
            if entry.is_dir {
                self.list_into(&folder.join(&entry.name), &path, found)?;
            } else {
                found.push(Object { path, size: entry.size_bytes });
            }
        }
        Ok(())
    }
}

fn away() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "the folder is not there")
}

impl Store for FolderStore {
    fn name(&self, path: &str) -> PathBuf {
        self.0.path(path)
    }

    fn list(&self, folder: &str) -> BoxFuture<'static, Result<Vec<Object>>> {
        let prefix = folder.trim_end_matches('/').to_owned();
        self.run(&prefix.clone(), move |inner, folder| {
            let mut found = Vec::new();
            inner.list_into(folder, &prefix, &mut found)?;
            found.sort();
            Ok(found)
        })
    }

    fn get(&self, path: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        self.run(path, move |inner, path| {
            let failed = |error| Error::io("read", path, error);
            let file = inner.disk().open(path, OpenMode::Read).map_err(failed)?;
            // Before memory is taken for it.
            if range.end > file.len().map_err(failed)? || range.start > range.end {
                return Err(failed(io::ErrorKind::UnexpectedEof.into()));
            }
            let size = usize::try_from(range.end - range.start)
                .map_err(|error| failed(io::Error::other(error)))?;
            let mut bytes = vec![0; size];
            file.read_exact_at(&mut bytes, range.start).map_err(failed)?;
            Ok(bytes.into())
        })
    }

    fn size(&self, path: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        self.run(path, |inner, path| {
            let file = match inner.disk().open(path, OpenMode::Read) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::io("open", path, error)),
            };
            file.len().map(Some).map_err(|error| Error::io("read", path, error))
        })
    }

    fn put(&self, path: &str, file: PathBuf) -> BoxFuture<'static, Result<()>> {
        self.run(path, move |inner, path| {
            let copy = |target: &dyn crate::env::File| {
                let failed = |error| Error::io("read", &file, error);
                let source = inner.disk().open(&file, OpenMode::Read).map_err(failed)?;
                let mut buffer = vec![0; COPY_BYTES];
                let mut at = 0;
                loop {
                    let count = source.read_at(&mut buffer, at).map_err(failed)?;
                    let Some(bytes) = buffer.get(..count).filter(|bytes| !bytes.is_empty()) else {
                        return Ok(());
                    };
                    target
                        .write_all_at(&[bytes], at)
                        .map_err(|error| Error::io("write", path, error))?;
                    at += count as u64;
                }
            };
            inner.publish(path, copy, |temporary| {
                inner
                    .disk()
                    .rename(temporary, path)
                    .map_err(|error| Error::io("rename", temporary, error))
            })
        })
    }

    fn create(&self, path: &str, bytes: Bytes) -> BoxFuture<'static, Result<Created>> {
        self.run(path, move |inner, path| {
            let write = |target: &dyn crate::env::File| {
                target.write_all_at(&[&bytes], 0).map_err(|error| Error::io("write", path, error))
            };
            inner.publish(path, write, |temporary| {
                inner.sync_folder(path)?;
                match inner.disk().link(temporary, path) {
                    Ok(()) => Ok(Created::Created),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Ok(Created::Exists)
                    }
                    Err(error) => Err(Error::io("create", path, error)),
                }
            })
        })
    }

    fn delete(&self, path: &str) -> BoxFuture<'static, Result<()>> {
        self.run(path, |inner, path| {
            inner.remove(path)?;
            let Some(folder) = path.parent() else { return Ok(()) };
            match inner.disk().sync_dir(folder) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(Error::io("sync", folder, error))
                }
                _ => Ok(()),
            }
        })
    }
}
