//! A bucket of a simulation: it has what real ones have, and what goes wrong with them is drawn from the seed.
//!
//! It is on no machine, so it survives all of them. A request that was sent is carried out whatever becomes of its sender,
//! maybe late; a process that ended sends none any more. What goes wrong:
//!
//! - a request is refused (503), or its answer takes long;
//! - it is carried out, and the answer is lost;
//! - it is taken for lost, and carried out seconds later;
//! - it is never answered, and carried out or not;
//! - a body ends too early;
//! - a list is made page by page, while others write; and it may lack what is new, as the cache of a shared folder does.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use super::{Created, Object, Store};
use crate::env::Env;
use crate::env::sim::{SimRandom, Trace};
use crate::error::{Error, Result};

/// How long a request and its answer are on their way, each.
const WAY_MS: u64 = 4;
/// How much longer an answer may take.
const SLOW_MS: u64 = 5000;
/// How much later a request may be carried out that was taken for lost.
const LATE_MS: u64 = 15_000;
/// For how long a list may lack what is new.
const UNLISTED_MS: u64 = 3000;
/// How many objects a page of a list has.
const PAGE: usize = 7;

/// See the module. Clones are the same bucket.
#[derive(Clone, Debug)]
pub struct SimBucket(Arc<Bucket>);

#[derive(Debug)]
struct Bucket {
    random: SimRandom,
    trace: Trace,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Stored>,
    /// Of so many requests one goes wrong; none while this is 0.
    one_in: u64,
    requests: u64,
    stop: Option<Stop>,
    /// Nothing is carried out or answered any more.
    has_stopped: bool,
}

/// When nothing is answered any more.
#[derive(Clone, Copy, Debug)]
struct Stop {
    at: u64,
    /// Whether the request at that point is carried out.
    applies: bool,
}

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    since: Instant,
}

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Refused,
    Slow,
    ReplyLost,
    Late,
    NoAnswer {
        applies: bool,
    },
    /// A body that ends too early, or a list without what is new.
    Spoiled,
}

impl SimBucket {
    /// An empty bucket, with which nothing goes wrong.
    #[must_use]
    pub fn new(random: SimRandom, trace: Trace) -> Self {
        Self(Arc::new(Bucket { random, trace, state: Mutex::default() }))
    }

    /// The bucket as a process sees it, until that has ended.
    #[must_use]
    pub fn of_process(&self, env: Env, has_ended: Arc<AtomicBool>) -> Arc<dyn Store> {
        Arc::new(SimStore { bucket: self.clone(), env, has_ended })
    }

    /// Of so many requests one goes wrong from now on; none if this is 0.
    pub fn disturb(&self, one_in: u64) {
        self.state().one_in = one_in;
    }

    /// Has the bucket fall silent after this many more requests; whether the last one is carried out is said.
    pub fn stop_after(&self, requests: u64, applies: bool) {
        let mut state = self.state();
        state.stop = Some(Stop { at: state.requests + requests, applies });
    }

    /// Whether it is silent.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.state().has_stopped
    }

    /// Has it answer again.
    pub fn go_on(&self) {
        let mut state = self.state();
        (state.stop, state.has_stopped) = (None, false);
    }

    /// The paths that begin so, in order, whatever goes wrong.
    #[must_use]
    pub fn paths(&self, prefix: &str) -> Vec<String> {
        let state = self.state();
        let paths = state.objects.keys().filter(|path| path.starts_with(prefix));
        paths.cloned().collect()
    }

    /// What an object holds, whatever goes wrong.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<Bytes> {
        self.state().objects.get(path).map(|stored| stored.bytes.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request is there: what will go wrong with it.
    fn draw(&self, what: &str, path: &str) -> Fault {
        let mut state = self.state();
        let at = state.requests;
        state.requests += 1;
        let stop = state.stop.filter(|stop| stop.at == at);
        let fault = if let Some(Stop { applies, .. }) = stop {
            state.has_stopped = true;
            Fault::NoAnswer { applies }
        } else if state.has_stopped {
            Fault::NoAnswer { applies: false }
        } else if state.one_in == 0 || !self.0.random.one_in(state.one_in) {
            Fault::None
        } else {
            match self.0.random.below(20) {
                0..=4 => Fault::Refused,
                5..=10 => Fault::ReplyLost,
                11..=13 => Fault::Late,
                14 => Fault::NoAnswer { applies: self.0.random.one_in(2) },
                15..=17 => Fault::Slow,
                _ => Fault::Spoiled,
            }
        };
        self.0.trace.note(|| format!("bucket {what} {path}: {fault:?}"));
        fault
    }

    async fn rest(&self, max_ms: u64) {
        tokio::time::sleep(Duration::from_millis(self.0.random.below(max_ms))).await;
    }
}

/// The bucket as a process sees it.
#[derive(Clone, Debug)]
struct SimStore {
    bucket: SimBucket,
    env: Env,
    has_ended: Arc<AtomicBool>,
}

fn refused() -> io::Error {
    io::Error::other("503 Service Unavailable")
}

fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the connection was lost")
}

impl SimStore {
    /// A process that ended does nothing.
    fn check(&self) -> io::Result<()> {
        let has_ended = self.has_ended.load(Ordering::Acquire);
        if has_ended { Err(io::Error::other("the process has ended")) } else { Ok(()) }
    }

    /// Sends a request, which has `apply` done.
    async fn send<T>(
        self,
        what: &'static str,
        path: String,
        apply: impl FnOnce(&SimBucket, &str, bool) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let bucket = self.bucket.clone();
        bucket.rest(WAY_MS).await;
        self.check()?;
        let fault = bucket.draw(what, &path);
        match fault {
            Fault::Refused => return Err(refused()),
            Fault::Late => {
                tokio::spawn(async move {
                    bucket.rest(LATE_MS).await;
                    bucket.0.trace.note(|| format!("bucket {what} {path} comes late"));
                    drop(apply(&bucket, &path, false));
                });
                return Err(silent());
            }
            Fault::NoAnswer { applies } => {
                if applies {
                    drop(apply(&bucket, &path, false));
                }
                return std::future::pending().await;
            }
            _ => {}
        }
        // Only what is read can be spoiled.
        let is_lost = fault == Fault::Spoiled && !matches!(what, "read" | "list");
        let done = apply(&bucket, &path, fault == Fault::Spoiled);
        bucket.rest(if fault == Fault::Slow { SLOW_MS } else { WAY_MS }).await;
        self.check()?;
        if fault == Fault::ReplyLost || is_lost { Err(silent()) } else { done }
    }

    /// A request that goes on when nobody waits for it any more.
    fn request<T: Send + 'static>(
        &self,
        what: &'static str,
        path: &str,
        apply: impl FnOnce(&SimBucket, &str, bool) -> io::Result<T> + Send + 'static,
    ) -> BoxFuture<'static, Result<T>> {
        let (own, name, path) = (self.clone(), self.name(path), path.to_owned());
        let sent = async move { tokio::spawn(own.send(what, path, apply)).await };
        answered(what, name, sent).boxed()
    }

    /// The objects below a folder, page by page.
    async fn pages(self, folder: String) -> io::Result<Vec<Object>> {
        let listed = |bucket: &SimBucket, folder: &str, is_spoiled: bool| {
            let lag = if is_spoiled { UNLISTED_MS } else { 0 };
            Ok((bucket.page(folder, "", lag), lag))
        };
        let (bucket, path) = (self.bucket.clone(), folder.clone());
        let (mut objects, lag) = self.send("list", path, listed).await?;
        let mut from = 0;
        while objects.len() == from + PAGE {
            bucket.rest(WAY_MS).await;
            from = objects.len();
            let last = objects.last().map(|object| object.path.clone()).unwrap_or_default();
            objects.extend(bucket.page(&folder, &last, lag));
        }
        Ok(objects)
    }
}

async fn answered<T>(
    what: &'static str,
    name: PathBuf,
    sent: impl Future<Output = Result<io::Result<T>, tokio::task::JoinError>>,
) -> Result<T> {
    let answer = sent.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    answer.map_err(|error| Error::io(what, name, error))
}

impl SimBucket {
    fn page(&self, folder: &str, after: &str, lag_ms: u64) -> Vec<Object> {
        let state = self.state();
        let is_listed = |stored: &Stored| {
            lag_ms == 0 || stored.since.elapsed() >= Duration::from_millis(lag_ms)
        };
        let below = |path: &str| {
            let rest = path.strip_prefix(folder);
            folder.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let objects = state
            .objects
            .iter()
            .filter(|(path, stored)| path.as_str() > after && below(path) && is_listed(stored));
        let object = |(path, stored): (&String, &Stored)| Object {
            path: path.clone(),
            size: stored.bytes.len() as u64,
        };
        objects.take(PAGE).map(object).collect()
    }

    fn store(&self, path: &str, bytes: Bytes) {
        self.state().objects.insert(path.to_owned(), Stored { bytes, since: Instant::now() });
    }

    fn find(&self, path: &str) -> io::Result<Bytes> {
        self.content(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A part of an object.
fn part(bytes: &Bytes, range: Range<u64>) -> io::Result<Bytes> {
    let place = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
    let (start, end) = (place(range.start), place(range.end));
    if start > end || end > bytes.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes.slice(start..end))
}

impl Store for SimStore {
    fn name(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("sim://bucket/{path}"))
    }

    fn list(&self, folder: &str) -> BoxFuture<'static, Result<Vec<Object>>> {
        let folder = folder.trim_end_matches('/').to_owned();
        let (own, name) = (self.clone(), self.name(&folder));
        let sent = async move { tokio::spawn(own.pages(folder)).await };
        answered("list", name, sent).boxed()
    }

    fn get(&self, path: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        self.request("read", path, move |bucket, path, is_spoiled| {
            let mut bytes = part(&bucket.find(path)?, range)?;
            if is_spoiled {
                let kept = bucket.0.random.below(bytes.len() as u64);
                bytes.truncate(usize::try_from(kept).unwrap_or(0));
            }
            Ok(bytes)
        })
    }

    fn size(&self, path: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        self.request("look at", path, |bucket, path, _| {
            Ok(bucket.content(path).map(|bytes| bytes.len() as u64))
        })
    }

    fn put(&self, path: &str, file: PathBuf) -> BoxFuture<'static, Result<()>> {
        let (own, path) = (self.clone(), path.to_owned());
        async move {
            let bytes =
                own.env.disk.read(&file).map_err(|error| Error::io("read", &file, error))?;
            let missing = || Error::io("read", &file, io::ErrorKind::NotFound.into());
            let bytes = Bytes::from(bytes.ok_or_else(missing)?);
            let store = move |bucket: &SimBucket, path: &str, _: bool| {
                bucket.store(path, bytes);
                Ok(())
            };
            own.request("write", &path, store).await
        }
        .boxed()
    }

    fn create(&self, path: &str, bytes: Bytes) -> BoxFuture<'static, Result<Created>> {
        self.request("create", path, move |bucket, path, _| {
            if bucket.content(path).is_some() {
                return Ok(Created::Exists);
            }
            bucket.store(path, bytes);
            Ok(Created::Created)
        })
    }

    fn delete(&self, path: &str) -> BoxFuture<'static, Result<()>> {
        self.request("delete", path, |bucket, path, _| {
            bucket.state().objects.remove(path);
            Ok(())
        })
    }
}
