//! The commits of a Delta table, as the store has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, stream};

use super::objects::version_path;
use crate::error::{Error, Result};
use crate::machine::tier::DeltaTable;
use crate::store::{Created, Store};
use crate::tier::names;

const EXTENSION: &str = ".json";
const DIGITS: usize = 20;
/// How many commits are read at a time.
const READS: usize = 16;
/// How many commits are looked for one by one; more are listed.
const PROBES: usize = 16;
/// No commit is larger; one of ours has a thousand files.
const SIZE_MAX: u64 = 64 << 20;

/// The log of a table. What was read is remembered, and compared by its sizes with what is there.
#[derive(Debug)]
pub(super) struct TableLog {
    store: Arc<dyn Store>,
    folder: String,
    sizes: Vec<u64>,
    table: DeltaTable,
}

impl TableLog {
    pub(super) fn new(store: Arc<dyn Store>, topic: &str) -> Self {
        let folder = names::table_log(topic);
        Self { store, folder, sizes: Vec::new(), table: DeltaTable::default() }
    }

    /// The table, as of the last [`TableLog::refresh`].
    pub(super) const fn table(&self) -> &DeltaTable {
        &self.table
    }

    /// Reads what is new.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] when a commit is missing, or is none; those of the store.
    pub(super) async fn refresh(&mut self) -> Result<()> {
        let sizes = match self.look_behind().await? {
            Some(sizes) => sizes,
            None => self.list().await?,
        };
        // Whoever removes a table has it made again.
        if !sizes.starts_with(&self.sizes) {
            self.forget();
        }
        let read = self.read(&sizes).await;
        if read.is_err() {
            self.forget();
        }
        read
    }

    /// The sizes of all commits by looking at the newest that was read, and behind it, one by one: a table of a hundred
    /// thousand commits is not listed for one more. None when that does not do: nothing was read yet, what was is not
    /// there any more, or there are many.
    async fn look_behind(&self) -> Result<Option<Vec<u64>>> {
        let mut sizes = self.sizes.clone();
        if sizes.is_empty() || !self.is_same().await? {
            return Ok(None);
        }
        for version in (sizes.len() as u64..).take(PROBES) {
            match self.store.size(&version_path(&self.folder, version)).await? {
                Some(size) => sizes.push(size),
                None => return Ok(Some(sizes)),
            }
        }
        Ok(None)
    }

    /// Whether the store has the commits that were read, as far as the first and the last one tell, and none behind them.
    pub(super) async fn is_current(&self) -> Result<bool> {
        let next = self.sizes.len() as u64;
        Ok(self.store.size(&version_path(&self.folder, next)).await?.is_none()
            && self.is_same().await?)
    }

    /// Whether the first and the last commit that were read are there as they were; those of a table that was made again
    /// are others.
    async fn is_same(&self) -> Result<bool> {
        for place in BTreeSet::from([0, self.sizes.len().saturating_sub(1)]) {
            let there = self.store.size(&version_path(&self.folder, place as u64)).await?;
            if there != self.sizes.get(place).copied() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn read(&mut self, sizes: &[u64]) -> Result<()> {
        let known = self.sizes.len();
        let new = (known as u64..).zip(sizes.iter().skip(known).copied());
        let reads: Vec<_> = new.map(|(version, size)| self.get(version, size)).collect();
        let mut commits = stream::iter(reads).buffered(READS);
        while let Some(commit) = commits.next().await {
            let (size, text) = commit?;
            let version = self.table.next_version();
            self.table.apply(&text).map_err(|why| {
                Error::corrupt(self.store.name(&version_path(&self.folder, version)), 0, why)
            })?;
            self.sizes.push(size);
        }
        Ok(())
    }

    /// Reads a commit; with its size, to be remembered.
    fn get(&self, version: u64, size: u64) -> BoxFuture<'static, Result<(u64, String)>> {
        let path = version_path(&self.folder, version);
        let name = self.store.name(&path);
        let got = (size <= SIZE_MAX).then(|| self.store.get(&path, 0..size));
        async move {
            let damaged = |why: String| Error::corrupt(name, 0, why);
            let Some(got) = got else { return Err(damaged(format!("it has {size} bytes"))) };
            let text = String::from_utf8(got.await?.into());
            Ok((size, text.map_err(|error| damaged(error.to_string()))?))
        }
        .boxed()
    }

    fn forget(&mut self) {
        self.sizes.clear();
        self.table = DeltaTable::default();
    }

    /// The sizes of all commits.
    async fn list(&self) -> Result<Vec<u64>> {
        let objects = self.store.list(&self.folder).await?;
        let mut sizes = Vec::new();
        for object in objects {
            // Others write checkpoints beside them.
            let name = object.path.rsplit('/').next().unwrap_or_default();
            let digits = name.strip_suffix(EXTENSION).filter(|digits| digits.len() == DIGITS);
            let Some(version) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
                continue;
            };
            let next = sizes.len() as u64;
            if version != next {
                let missing = self.store.name(&version_path(&self.folder, next));
                let why = format!("commit {next} is missing, and commit {version} is there");
                return Err(Error::corrupt(missing, 0, why));
            }
            sizes.push(object.size);
        }
        Ok(sizes)
    }

    /// Makes the next commit, unless somebody else has made one with its number.
    pub(super) async fn commit(&mut self, text: String) -> Result<Created> {
        let path = version_path(&self.folder, self.table.next_version());
        self.store.create(&path, Bytes::from(text)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::store::FolderStore;

    fn add(path: &str) -> String {
        format!("{{\"add\":{{\"path\":\"{path}\"}}}}\n")
    }

    #[tokio::test]
    async fn commits_are_read_once_and_a_table_that_was_removed_begins_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = FolderStore::open(directory.path(), Env::real()).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let folder = directory.path().join("topic=orders/_delta_log");
        let (mut one, mut other) =
            (TableLog::new(Arc::clone(&store), "orders"), TableLog::new(store, "orders"));
        for log in [&mut one, &mut other] {
            log.refresh().await.unwrap();
            assert_eq!(log.table().next_version(), 0);
        }
        assert_eq!(one.commit(add("a")).await.unwrap(), Created::Created);
        assert_eq!(other.commit(add("b")).await.unwrap(), Created::Exists);
        other.refresh().await.unwrap();
        assert_eq!(other.commit(add("b")).await.unwrap(), Created::Created);
        for name in ["_last_checkpoint", "00000000000000000001.checkpoint.parquet", "1.json"] {
            std::fs::write(folder.join(name), "other things").unwrap();
        }
        one.refresh().await.unwrap();
        other.refresh().await.unwrap();
        assert_eq!(one.table(), other.table());
        assert_eq!(one.table().next_version(), 2);

        let first = folder.join("00000000000000000000.json");
        let text = std::fs::read_to_string(&first).unwrap();
        std::fs::remove_file(&first).unwrap();
        let mut anew = TableLog::new(Arc::clone(&one.store), "orders");
        let error = anew.refresh().await.unwrap_err().to_string();
        assert!(error.contains("commit 0 is missing"), "{error}");
        std::fs::write(&first, text.replace("add", "\u{1}")).unwrap();
        let error = anew.refresh().await.unwrap_err().to_string();
        assert!(error.contains("00000000000000000000.json"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(!other.is_current().await.unwrap(), "it was removed");
        one.refresh().await.unwrap();
        assert!(one.is_current().await.unwrap());
        assert_eq!(one.table(), &DeltaTable::default());
        assert_eq!(one.commit(add("c")).await.unwrap(), Created::Created);
        assert!(!one.is_current().await.unwrap(), "a commit was not read yet");
    }

    #[cfg(feature = "sim")]
    #[tokio::test(start_paused = true)]
    async fn a_long_table_is_not_listed_for_one_more_commit() {
        use crate::env::sim::{SimRandom, SimRun};
        use crate::store::SimBucket;
        let run = SimRun::new(1);
        let machine = run.machine("node", [10, 0, 0, 1].into());
        let bucket = SimBucket::new(SimRandom::stream(1, "bucket"), run.trace.clone());
        let store = bucket.of_process(machine.env(), machine.disk.stopped());
        let (mut one, mut other) =
            (TableLog::new(Arc::clone(&store), "orders"), TableLog::new(store, "orders"));
        for number in 0..60 {
            one.refresh().await.unwrap();
            assert_eq!(one.commit(add(&number.to_string())).await.unwrap(), Created::Created);
            one.refresh().await.unwrap();
            // It is seldom there: what it missed is read one by one, or by a list.
            if number % 25 == 3 {
                other.refresh().await.unwrap();
                assert_eq!(other.table(), one.table());
            }
        }
        let lists = run.trace.lines().iter().filter(|line| line.contains("bucket list")).count();
        // An empty table is listed, and its first commit is found by a list; the other one lists what it is far behind.
        assert_eq!(lists, 2 + 3);
    }
}
