//! A store that is a bucket: Amazon S3 and what speaks its protocol, Google Cloud Storage, Azure Blob Storage.
//!
//! Credentials, region and endpoint are taken from the environment, by the names that the tools of these stores use
//! (`AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL`, `AWS_ALLOW_HTTP`, `GOOGLE_APPLICATION_CREDENTIALS`,
//! `AZURE_STORAGE_ACCOUNT_NAME`, …). [`object_store`] speaks with them; a request of it that fails is tried a few times
//! more, and whoever asked decides about the rest.
//!
//! An object gets its name with the end of its upload (`STORE-1`), and who creates one asks that there be none
//! (`If-None-Match: *`, `x-goog-if-generation-match: 0`), which only one is granted (`STORE-2`).

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path as Key;
use object_store::{
    ClientOptions, ObjectStore, ObjectStoreExt, ObjectStoreScheme, PutMode, PutPayload,
    RetryConfig, WriteMultipart,
};
use url::Url;

use super::{Created, Object, Store};
use crate::env::{Env, File, OpenMode};
use crate::error::{Error, Result};

/// A file is uploaded in parts of this size (S3 wants at least 5 MiB).
const PART_BYTES: usize = 8 << 20;
/// So many parts of a file are under way.
const PARTS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request with its answer may take, a part of a file being the largest.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
const RETRIES: usize = 3;
/// Where a machine of Amazon's is asked for credentials when the environment has none.
const MACHINE_CREDENTIALS: &str = "169.254.169.254";

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CloudStore {
    bucket: Arc<dyn ObjectStore>,
    /// What all paths are below.
    prefix: Key,
    /// The URL, as errors name it.
    name: Arc<str>,
    env: Env,
}

impl CloudStore {
    /// Prepares to speak with a store. Does no request.
    ///
    /// # Errors
    ///
    /// A URL of no such store, or settings in the environment that make no sense.
    pub fn open(url: &Url, env: Env) -> Result<Self> {
        let (scheme, prefix) = scheme_of(url)?;
        // reqwest takes what the process has. Whoever was first has installed the same.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = ClientOptions::new()
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig {
            max_retries: RETRIES,
            retry_timeout: REQUEST_TIMEOUT,
            ..RetryConfig::default()
        };
        let bucket: object_store::Result<Arc<dyn ObjectStore>> = match scheme {
            ObjectStoreScheme::AmazonS3 => AmazonS3Builder::from_env()
                .with_url(url.as_str())
                .with_client_options(from_environment(client, "AWS_ALLOW_HTTP"))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            ObjectStoreScheme::GoogleCloudStorage => GoogleCloudStorageBuilder::from_env()
                .with_url(url.as_str())
                .with_client_options(client)
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
            _ => MicrosoftAzureBuilder::from_env()
                .with_url(url.as_str())
                .with_client_options(from_environment(client, "AZURE_ALLOW_HTTP"))
                .with_retry(retry)
                .build()
                .map(|store| Arc::new(store) as _),
        };
        let bucket = bucket.map_err(|error| Error::invalid(format!("{url}: {error}")))?;
        let name = Arc::from(url.as_str().trim_end_matches('/'));
        Ok(Self { bucket, prefix, name, env })
    }

    fn key(&self, path: &str) -> Result<Key> {
        let path =
            Key::parse(path).map_err(|error| Error::invalid(format!("{}: {error}", self.name)))?;
        Ok(self.prefix.parts().chain(path.parts()).collect())
    }

    fn run<T, W>(
        &self,
        doing: &'static str,
        path: &str,
        work: impl FnOnce(Arc<dyn ObjectStore>, Key) -> W,
    ) -> BoxFuture<'static, Result<T>>
    where
        T: Send + 'static,
        W: Future<Output = object_store::Result<T>> + Send + 'static,
    {
        let name = self.name(path);
        match self.key(path) {
            Err(error) => futures::future::err(error).boxed(),
            Ok(key) => work(Arc::clone(&self.bucket), key)
                .map(move |done| done.map_err(|error| failed(doing, &name, error)))
                .boxed(),
        }
    }
}

/// Which kind of store it is, and the prefix in it.
pub(super) fn scheme_of(url: &Url) -> Result<(ObjectStoreScheme, Key)> {
    use ObjectStoreScheme::{AmazonS3, GoogleCloudStorage, MicrosoftAzure};
    match ObjectStoreScheme::parse(url) {
        Ok((scheme @ (AmazonS3 | GoogleCloudStorage | MicrosoftAzure), prefix)) => {
            Ok((scheme, prefix))
        }
        Ok(_) => Err(Error::invalid(format!("{url} is no S3, Google Cloud or Azure store"))),
        Err(error) => Err(Error::invalid(format!("{url}: {error}"))),
    }
}

/// Options of a client replace those that its builder has from the environment.
fn from_environment(client: ClientOptions, allow_http: &str) -> ClientOptions {
    let allows = std::env::var(allow_http).is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    client.with_allow_http(allows)
}

fn failed(doing: &'static str, name: &Path, error: object_store::Error) -> Error {
    use object_store::Error as Said;
    let error = match error {
        Said::NotFound { .. } => io::Error::new(io::ErrorKind::NotFound, error),
        Said::PermissionDenied { .. } | Said::Unauthenticated { .. } => {
            let text = format!(
                "{error}: see whether the credentials in the environment are right, and may do this"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        _ if error.to_string().contains(MACHINE_CREDENTIALS) => {
            let text = format!(
                "the environment has no credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY), nor has the machine: {error}"
            );
            io::Error::new(io::ErrorKind::PermissionDenied, text)
        }
        _ => io::Error::other(error),
    };
    Error::io(doing, name, error)
}

/// The next part of a file; empty at its end.
fn part(file: &dyn File, at: u64) -> io::Result<Bytes> {
    let mut part = vec![0; PART_BYTES];
    let mut length = 0;
    while let Some(rest) = part.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at + length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    part.truncate(length);
    Ok(part.into())
}

/// A local file that is read in parts, beside the tasks.
struct Parts {
    env: Env,
    path: PathBuf,
    file: Arc<dyn File>,
    at: u64,
}

impl Parts {
    async fn open(env: Env, path: PathBuf) -> Result<Self> {
        let (own, name) = (env.clone(), path.clone());
        let open = env.threads.spawn_blocking(move || own.disk.open(&name, OpenMode::Read));
        let file = open.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let file = file.map_err(|error| Error::io("open", &path, error))?;
        Ok(Self { env, path, file, at: 0 })
    }

    async fn next(&mut self) -> Result<Bytes> {
        let (file, at) = (Arc::clone(&self.file), self.at);
        let read = self.env.threads.spawn_blocking(move || part(&*file, at));
        let read = read.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let bytes = read.map_err(|error| Error::io("read", &self.path, error))?;
        self.at += bytes.len() as u64;
        Ok(bytes)
    }
}

/// Uploads a file, of which `first` is the beginning, in parts.
async fn upload(
    upload: &mut WriteMultipart,
    first: Bytes,
    parts: &mut Parts,
    failed: impl Fn(object_store::Error) -> Error,
) -> Result<()> {
    let mut bytes = first;
    while !bytes.is_empty() {
        upload.wait_for_capacity(PARTS).await.map_err(&failed)?;
        upload.put(bytes);
        bytes = parts.next().await?;
    }
    Ok(())
}

impl Store for CloudStore {
    fn name(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("{}/{path}", self.name))
    }

    fn list(&self, folder: &str) -> BoxFuture<'static, Result<Vec<Object>>> {
        let prefix = self.prefix.clone();
        self.run("list", folder, move |bucket, key| async move {
            let mut objects: Vec<Object> = bucket
                .list(Some(&key))
                .try_filter_map(|meta| {
                    let path = meta.location.prefix_match(&prefix).map(|parts| {
                        let parts: Key = parts.collect();
                        Object { path: parts.to_string(), size: meta.size }
                    });
                    futures::future::ok(path)
                })
                .try_collect()
                .await?;
            objects.sort();
            Ok(objects)
        })
    }

    fn get(&self, path: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>> {
        if range.is_empty() {
            return futures::future::ok(Bytes::new()).boxed();
        }
        let (name, length) = (self.name(path), range.end - range.start);
        let get = self
            .run("read", path, |bucket, key| async move { bucket.get_range(&key, range).await });
        get.map(move |got| {
            let bytes = got?;
            if bytes.len() as u64 != length {
                let error = io::Error::from(io::ErrorKind::UnexpectedEof);
                return Err(Error::io("read", &name, error));
            }
            Ok(bytes)
        })
        .boxed()
    }

    fn size(&self, path: &str) -> BoxFuture<'static, Result<Option<u64>>> {
        self.run("look at", path, |bucket, key| async move {
            match bucket.head(&key).await {
                Ok(meta) => Ok(Some(meta.size)),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn put(&self, path: &str, file: PathBuf) -> BoxFuture<'static, Result<()>> {
        let (key, name) = (self.key(path), self.name(path));
        let (bucket, env) = (Arc::clone(&self.bucket), self.env.clone());
        async move {
            let failed = |error| failed("write", &name, error);
            let key = key?;
            let mut parts = Parts::open(env, file).await?;
            let first = parts.next().await?;
            if first.len() < PART_BYTES {
                bucket.put(&key, first.into()).await.map_err(failed)?;
                return Ok(());
            }
            let begun = bucket.put_multipart(&key).await.map_err(failed)?;
            let mut begun = WriteMultipart::new_with_chunk_size(begun, PART_BYTES);
            if let Err(error) = upload(&mut begun, first, &mut parts, failed).await {
                // Parts that stay cost money until the bucket's own rules remove them.
                if let Err(left) = begun.abort().await {
                    tracing::warn!(object = %name.display(), error = %left, "parts of an upload are left");
                }
                return Err(error);
            }
            begun.finish().await.map_err(failed)?;
            Ok(())
        }
        .boxed()
    }

    fn create(&self, path: &str, bytes: Bytes) -> BoxFuture<'static, Result<Created>> {
        self.run("create", path, |bucket, key| async move {
            let payload = PutPayload::from_bytes(bytes);
            match bucket.put_opts(&key, payload, PutMode::Create.into()).await {
                Ok(_) => Ok(Created::Created),
                Err(object_store::Error::AlreadyExists { .. }) => Ok(Created::Exists),
                Err(error) => Err(error),
            }
        })
    }

    fn delete(&self, path: &str) -> BoxFuture<'static, Result<()>> {
        self.run("delete", path, |bucket, key| async move {
            match bucket.delete(&key).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(error),
            }
        })
    }
}
