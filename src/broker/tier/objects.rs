//! What is in a store besides the files: the manifests, and whose tier it is.
//!
//! ```text
//! _ottla/cluster.json                                   the cluster that the tier belongs to
//! _ottla/topics/<topic id>.json                         the name of a topic that has, or had, files here
//! _ottla/manifests/<topic id>/<partition>/<version>.json
//! _ottla/columns/<topic id>/<version>.json              the typed columns of a topic
//! ```
//!
//! Each is created once and never changed. Each carries a checksum of what it says.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, Result};
use crate::machine::tier::{
    COLUMNS_FORMAT, Columns, ColumnsVersion, Creation, MANIFEST_FORMAT, Manifest, SNAPSHOT_EVERY,
    Version,
};
use crate::store::{Created, Store};
use crate::types::{PartitionIndex, TopicId, Uuid};

const CLUSTER: &str = "_ottla/cluster.json";
const TOPICS: &str = "_ottla/topics";
const MANIFESTS: &str = "_ottla/manifests";
const COLUMNS: &str = "_ottla/columns";
const EXTENSION: &str = ".json";
/// The encoding of what is not a manifest.
const FORMAT: u16 = 1;
/// Nothing here is larger; a version that says everything has 200 bytes for each file.
const SIZE_MAX: u64 = 256 << 20;

/// What is stored: a value, and the CRC-32C of its text.
#[derive(Serialize, Deserialize)]
struct Sealed<T> {
    crc32c: u32,
    value: T,
}

/// The part that all formats have.
#[derive(Deserialize)]
struct Format {
    format: u16,
}

/// Whose tier it is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Cluster {
    format: u16,
    cluster_id: String,
}

/// A topic with files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TopicEntry {
    format: u16,
    pub(super) topic: String,
    pub(super) topic_id: Uuid,
}

fn seal<T: Serialize>(value: &T) -> Result<Bytes> {
    let failed = |error: serde_json::Error| Error::invalid(error.to_string());
    let text = serde_json::to_vec(value).map_err(failed)?;
    let sealed = Sealed { crc32c: crc32c::crc32c(&text), value };
    serde_json::to_vec(&sealed).map(Bytes::from).map_err(failed)
}

/// Reads what was sealed.
///
/// # Errors
///
/// The reason, as text.
fn unseal<T: Serialize + DeserializeOwned>(bytes: &[u8], format: u16) -> Result<T, String> {
    let told: Sealed<Format> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if told.value.format != format {
        let found = told.value.format;
        return Err(format!("it has format {found}, and this release reads {format}"));
    }
    let Sealed { crc32c, value }: Sealed<T> =
        serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let text = serde_json::to_vec(&value).map_err(|error| error.to_string())?;
    let computed = crc32c::crc32c(&text);
    if computed != crc32c {
        return Err(format!("the checksum is {computed:#010x}, but {crc32c:#010x} is stored"));
    }
    Ok(value)
}

async fn read<T: Serialize + DeserializeOwned>(
    store: &dyn Store,
    path: &str,
    format: u16,
) -> Result<T> {
    let missing = || Error::io("read", store.name(path), io::ErrorKind::NotFound.into());
    let size = store.size(path).await?.ok_or_else(missing)?;
    let damaged = |why: String| Error::corrupt(store.name(path), 0, why);
    if size > SIZE_MAX {
        return Err(damaged(format!("it has {size} bytes")));
    }
    let bytes = store.get(path, 0..size).await?;
    unseal(&bytes, format).map_err(damaged)
}

/// Fails if the tier belongs to another cluster; makes it one of this cluster if it belongs to none.
///
/// # Errors
///
/// An invalid argument for the tier of another cluster; those of the store.
pub(super) async fn check_cluster(store: &dyn Store, cluster_id: &str) -> Result<()> {
    let own = Cluster { format: FORMAT, cluster_id: cluster_id.to_owned() };
    if store.create(CLUSTER, seal(&own)?).await? == Created::Created {
        return Ok(());
    }
    let found: Cluster = read(store, CLUSTER, FORMAT).await?;
    if found == own {
        return Ok(());
    }
    let (path, other) = (store.name(CLUSTER), found.cluster_id);
    Err(Error::invalid(format!(
        "the tier belongs to the cluster {other}, as {} says, and this is the cluster {cluster_id}: \
         set ottla.tier.url to a place of its own",
        path.display()
    )))
}

fn hex(id: Uuid) -> String {
    format!("{:032x}", u128::from_be_bytes(id.0))
}

/// Part of the name of each file: which topic it is of.
pub(super) fn tag(id: TopicId) -> String {
    hex(id).chars().take(8).collect()
}

fn topic_path(id: TopicId) -> String {
    format!("{TOPICS}/{}{EXTENSION}", hex(id))
}

impl TopicEntry {
    pub(super) fn new(topic: &str, topic_id: TopicId) -> Self {
        Self { format: FORMAT, topic: topic.to_owned(), topic_id }
    }
}

/// Notes that a topic has files, so that they are found when it is gone.
pub(super) async fn note_topic(store: &dyn Store, topic: &str, id: TopicId) -> Result<()> {
    let entry = TopicEntry::new(topic, id);
    store.create(&topic_path(id), seal(&entry)?).await.map(drop)
}

/// Whether a topic has, or had, files that may still be there.
pub(super) async fn is_noted(store: &dyn Store, id: TopicId) -> Result<bool> {
    Ok(store.size(&topic_path(id)).await?.is_some())
}

/// All topics that have, or had, files.
pub(super) async fn topics(store: &dyn Store) -> Result<Vec<TopicEntry>> {
    let mut found = Vec::new();
    for object in store.list(TOPICS).await? {
        match read(store, &object.path, FORMAT).await {
            // Another broker has removed it meanwhile.
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            entry => found.push(entry?),
        }
    }
    Ok(found)
}

/// Forgets a topic: its manifests first, and last that it was there.
pub(super) async fn forget_topic(store: &dyn Store, id: TopicId) -> Result<()> {
    for folder in [MANIFESTS, COLUMNS] {
        for object in store.list(&format!("{folder}/{}", hex(id))).await? {
            store.delete(&object.path).await?;
        }
    }
    store.delete(&topic_path(id)).await
}

/// The number of a version, by its path.
fn version_of(path: &str) -> Option<u64> {
    path.rsplit('/').next()?.strip_suffix(EXTENSION)?.parse().ok()
}

/// Where a version is.
pub(super) fn version_path(folder: &str, version: u64) -> String {
    format!("{folder}/{version:020}{EXTENSION}")
}

/// The number of the newest version in a folder; 0 where there is none.
async fn newest_version(store: &dyn Store, folder: &str) -> Result<u64> {
    let objects = store.list(folder).await?;
    let mut newest =
        objects.iter().filter_map(|object| version_of(&object.path)).max().unwrap_or(0);
    // The list of a shared folder may be one that somebody remembers.
    while store.size(&version_path(folder, newest + 1)).await?.is_some() {
        newest += 1;
    }
    Ok(newest)
}

fn columns_folder(id: TopicId) -> String {
    format!("{COLUMNS}/{}", hex(id))
}

/// The typed columns of a topic, as of the newest version of their list.
///
/// # Errors
///
/// [`Error::Corrupt`] when it is damaged; those of the store.
pub(super) async fn read_columns(store: &dyn Store, id: TopicId) -> Result<Columns> {
    let folder = columns_folder(id);
    let newest = newest_version(store, &folder).await?;
    if newest == 0 {
        return Ok(Columns::default());
    }
    let path = version_path(&folder, newest);
    let version: ColumnsVersion = read(store, &path, COLUMNS_FORMAT).await?;
    let damaged = |why: String| Error::corrupt(store.name(&path), 0, why);
    if version.version != newest {
        return Err(damaged(format!("it is version {}", version.version)));
    }
    Columns::of(version).map_err(damaged)
}

/// Makes the next version of the list, unless somebody else has made one with its number.
pub(super) async fn create_columns(
    store: &dyn Store,
    id: TopicId,
    version: &ColumnsVersion,
) -> Result<Created> {
    store.create(&version_path(&columns_folder(id), version.version), seal(version)?).await
}

/// The manifest of a partition.
#[derive(Clone, Debug)]
pub(super) struct Manifests {
    store: Arc<dyn Store>,
    folder: String,
}

impl Manifests {
    pub(super) fn new(store: Arc<dyn Store>, id: TopicId, partition: PartitionIndex) -> Self {
        Self { store, folder: format!("{MANIFESTS}/{}/{partition}", hex(id)) }
    }

    fn path(&self, version: u64) -> String {
        version_path(&self.folder, version)
    }

    /// Reads the newest version, with those that it builds upon.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when one is damaged or missing; those of the store.
    pub(super) async fn read(&self) -> Result<Manifest> {
        let newest = newest_version(&*self.store, &self.folder).await?;
        if newest == 0 {
            return Ok(Manifest::default());
        }
        let mut manifest = Manifest::default();
        for version in (newest / SNAPSHOT_EVERY * SNAPSHOT_EVERY).max(1)..=newest {
            let path = self.path(version);
            let next: Version = read(&*self.store, &path, MANIFEST_FORMAT).await?;
            let applied = manifest.apply(&next);
            applied.map_err(|why| Error::corrupt(self.store.name(&path), 0, why))?;
        }
        Ok(manifest)
    }

    /// Creates a version.
    pub(super) async fn create(&self, version: &Version) -> Creation {
        let path = self.path(version.version);
        let created = async {
            match self.store.create(&path, seal(version)?).await? {
                Created::Created => Ok(Creation::Created),
                #[cfg(feature = "sim")]
                Created::Exists if is_planted(Mutation::ForgetsOwnVersions) => {
                    Err(Error::invalid("somebody has written it"))
                }
                Created::Exists => {
                    let there = read(&*self.store, &path, MANIFEST_FORMAT).await?;
                    Ok(Creation::Exists(Box::new(there)))
                }
            }
        };
        created.await.unwrap_or_else(|error: Error| Creation::Failed(error.chain()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::machine::tier::{Claim, Delta, FileEntry};
    use crate::store::FolderStore;
    use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs};
    use tempfile::TempDir;

    fn store() -> (TempDir, Arc<dyn Store>) {
        let directory = TempDir::new().unwrap();
        let store = FolderStore::open(directory.path(), Env::real()).unwrap();
        (directory, Arc::new(store))
    }

    #[tokio::test]
    async fn a_tier_belongs_to_one_cluster() {
        let (_directory, store) = store();
        check_cluster(&*store, "first").await.unwrap();
        check_cluster(&*store, "first").await.unwrap();
        let error = check_cluster(&*store, "second").await.unwrap_err().to_string();
        assert!(error.contains("belongs to the cluster first"), "{error}");
    }

    #[tokio::test]
    async fn the_newest_manifest_comes_back_and_damage_is_named() {
        let (directory, store) = store();
        let id = Uuid([7; 16]);
        let manifests = Manifests::new(Arc::clone(&store), id, PartitionIndex(3));
        assert_eq!(manifests.read().await.unwrap(), Manifest::default());
        let claim =
            Claim { leader_epoch: LeaderEpoch(2), broker: NodeId(1), token: "a".to_owned() };
        let mut manifest = Manifest::default();
        for number in 0..150 {
            let add = (number > 0).then(|| FileEntry {
                name: format!("file-{number}"),
                base_offset: Offset(number * 10),
                end_offset: Offset(number * 10 + 10),
                last_epoch: LeaderEpoch(2),
                max_timestamp: TimestampMs(number),
                log_bytes: 100,
                file_bytes: 50,
                crc32c: 9,
            });
            let version = manifest.next(&claim, Delta { add, ..Delta::default() }).unwrap();
            assert_eq!(manifests.create(&version).await, Creation::Created);
            assert_eq!(
                manifests.create(&version).await,
                Creation::Exists(Box::new(version.clone()))
            );
            manifest.apply(&version).unwrap();
            assert_eq!(manifests.read().await.unwrap(), manifest);
        }
        let damaged = directory.path().join(manifests.path(140));
        let text = std::fs::read_to_string(&damaged).unwrap();
        std::fs::write(&damaged, text.replace("\"log_bytes\":100", "\"log_bytes\":101")).unwrap();
        let error = manifests.read().await.unwrap_err().to_string();
        assert!(
            error.contains("00000000000000000140.json") && error.contains("checksum"),
            "{error}"
        );
        std::fs::write(&damaged, text.replace("\"format\":1", "\"format\":2")).unwrap();
        let error = manifests.read().await.unwrap_err().to_string();
        assert!(error.contains("format 2"), "{error}");
        std::fs::remove_file(&damaged).unwrap();
        assert!(manifests.read().await.unwrap_err().to_string().contains("140.json"));
    }

    #[tokio::test]
    async fn topics_are_noted_and_forgotten() {
        let (_directory, store) = store();
        let (one, other) = (Uuid([1; 16]), Uuid([2; 16]));
        note_topic(&*store, "orders", one).await.unwrap();
        note_topic(&*store, "orders", one).await.unwrap();
        note_topic(&*store, "events", other).await.unwrap();
        let found = topics(&*store).await.unwrap();
        let names: Vec<_> = found.iter().map(|one| (&*one.topic, one.topic_id)).collect();
        assert_eq!(names, [("orders", one), ("events", other)]);
        forget_topic(&*store, one).await.unwrap();
        assert_eq!(topics(&*store).await.unwrap(), found[1..]);
    }
}
