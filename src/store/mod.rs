//! Where the tier is kept: objects with paths, in a folder or in an object store.
//!
//! # Invariants
//!
//! - `STORE-1` What was put or created survives, and is complete: an object is there with all its bytes or not at all.
//! - `STORE-2` Of several that create one path, one is told that it did. Nothing that exists is ever changed by
//!   [`Store::create`].
//! - `STORE-3` A call that failed may have been carried out all the same.
//! - `STORE-4` A store that is away is an error, never an empty store.
//! - `STORE-5` What is created is not there before what was created beside it survives: of numbered versions, no power cut
//!   leaves a later one without an earlier one.
//!
//! Paths are relative, with `/` between their parts, as in `topic=orders/partition=0/….parquet`.

mod cloud;
mod folder;
mod guard;
mod location;
#[cfg(feature = "sim")]
mod sim;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use futures::future::BoxFuture;

use crate::error::Result;

pub use cloud::CloudStore;
pub use folder::FolderStore;
pub use guard::GuardedStore;
pub use location::Location;
#[cfg(feature = "sim")]
pub use sim::SimBucket;

/// Something in a store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its path.
    pub path: String,
    /// Its size.
    pub size: u64,
}

/// What became of [`Store::create`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is there now, and was not before.
    Created,
    /// There is something with this path already, maybe of an earlier attempt that failed.
    Exists,
}

/// A store. See the module.
pub trait Store: Send + Sync + Debug {
    /// How errors and the log name an object: the URL of the store and its path.
    fn name(&self, path: &str) -> PathBuf;

    /// The objects below a folder, in the order of their paths; none when there is no such folder.
    fn list(&self, folder: &str) -> BoxFuture<'static, Result<Vec<Object>>>;

    /// The bytes of a range that is inside of the object.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::error::Error::Io) with [`NotFound`](std::io::ErrorKind::NotFound) when there is no such object,
    /// and with [`UnexpectedEof`](std::io::ErrorKind::UnexpectedEof) when it ends before the range does.
    fn get(&self, path: &str, range: Range<u64>) -> BoxFuture<'static, Result<Bytes>>;

    /// The size of an object; none when it does not exist.
    fn size(&self, path: &str) -> BoxFuture<'static, Result<Option<u64>>>;

    /// Makes an object of a local file, instead of one that is there already.
    fn put(&self, path: &str, file: PathBuf) -> BoxFuture<'static, Result<()>>;

    /// Makes an object unless there is one with this path.
    fn create(&self, path: &str, bytes: Bytes) -> BoxFuture<'static, Result<Created>>;

    /// Deletes an object; one that does not exist is deleted already.
    fn delete(&self, path: &str) -> BoxFuture<'static, Result<()>>;
}
