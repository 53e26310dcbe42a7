//! What every store is behind: each call ends, and each body is as long as it was asked for.
//!
//! A shared folder whose server is gone does not fail, it hangs; and whoever waits for it may hold what others need. A call
//! that has not ended in time counts as failed, and may be carried out all the same (`STORE-3`).

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Created, Object, Store};
use crate::env::{Env, OpenMode};
use crate::error::{Error, Result};

/// How long a call may take that carries next to nothing.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a list may take: a store tells a thousand objects at a time.
const LIST_MAX: Duration = Duration::from_secs(300);
/// Bytes that are carried take no longer than at this rate: a slow line, not a silent one.
const BYTES_PER_SECOND: u64 = 128 << 10;

/// See the module.
#[derive(Debug)]
pub struct GuardedStore {
    inner: Arc<dyn Store>,
    env: Env,
}

impl GuardedStore {
    /// A store whose calls end.
    #[must_use]
    pub fn over(inner: Arc<dyn Store>, env: Env) -> Self {
        Self { inner, env }
    }
}

/// How long a call with so many bytes may take.
const fn carrying(bytes: u64) -> Duration {
    ANSWER_MAX.saturating_add(Duration::from_secs(bytes / BYTES_PER_SECOND))
}

async fn within<T>(
    limit: Duration,
    doing: &'static str,
    name: PathBuf,
    call: BoxFuture<'static, Result<T>>,
) -> Result<T> {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_elapsed| {
        let why = format!("the store did not answer within {} seconds", limit.as_secs());
        Err(Error::io(doing, name, io::Error::new(io::ErrorKind::TimedOut, why)))
    })
}

impl Store for GuardedStore {
    fn name(&self, path: &str) -> PathBuf {
        self.inner.name(path)
    }

    fn list(&self, folder: &str) -> BoxFuture<'static, Result<Vec<Object>>> {
        within(LIST_MAX, "list", self.name(folder), self.inner.list(folder)).boxed()
    }

    fn get(&self, path: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        let (name, wanted) = (self.name(path), range.end.saturating_sub(range.start));
        let call = self.inner.get(path, range);
        async move {
            let bytes = within(carrying(wanted), "read", name.clone(), call).await?;
            let found = bytes.len() as u64;
            if found == wanted {
                return Ok(bytes);
            }
            // Not the end of the object, which the store says otherwise: another attempt may have all of it.
            let why = format!("the answer has {found} bytes instead of {wanted}");
            Err(Error::io("read", name, io::Error::other(why)))
        }
        .boxed()
    }

    fn size(&self, path: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        within(ANSWER_MAX, "look at", self.name(path), self.inner.size(path)).boxed()
    }

    fn put(&self, path: &str, file: PathBuf) -> BoxFuture<'static, Result<()>> {
        let (name, env, local) = (self.name(path), self.env.clone(), file.clone());
        let call = self.inner.put(path, file);
        async move {
            let (disk, opened) = (env.disk, local.clone());
            let length = move || disk.open(&opened, OpenMode::Read)?.len();
            let length = env.threads.spawn_blocking(length).await;
            let length = length.unwrap_or_else(|error| Err(io::Error::other(error)));
            let length = length.map_err(|error| Error::io("open", &local, error))?;
            within(carrying(length), "write", name, call).await
        }
        .boxed()
    }

    fn create(&self, path: &str, bytes: Bytes) -> BoxFuture<'static, Result<Created>> {
        let limit = carrying(bytes.len() as u64);
        within(limit, "create", self.name(path), self.inner.create(path, bytes)).boxed()
    }

    fn delete(&self, path: &str) -> BoxFuture<'static, Result<()>> {
        within(ANSWER_MAX, "delete", self.name(path), self.inner.delete(path)).boxed()
    }
}
