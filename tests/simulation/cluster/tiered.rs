//! The same clients and faults, while the records go to a tier that all nodes share, and that fails now and then.

use std::io;
use std::path::Path;
use std::sync::Arc;

use ottla::env::{DirEntry, Disk, File, Lock, OpenMode};

use super::run_of;
use crate::broker::clients::TOPIC;
use crate::report::Suite;

const SUITE: Suite = Suite {
    module: "cluster::tiered",
    seeds: 3..4,
    fresh: 1,
    acknowledged_min: 60,
    run: |seed| run_of(seed, None, true),
};

/// Where the tier is, for every node.
const TIER: &str = "/tier";

/// The disk of a node, and the folder that it shares with the others. A process that has ended reaches neither.
#[derive(Debug)]
pub(crate) struct WithShared {
    pub(crate) own: Arc<dyn Disk>,
    pub(crate) shared: Arc<dyn Disk>,
}

impl WithShared {
    fn of(&self, path: &Path) -> io::Result<&dyn Disk> {
        if !path.starts_with(TIER) {
            return Ok(&*self.own);
        }
        self.own.exists(Path::new("/data"))?;
        Ok(&*self.shared)
    }
}

impl Disk for WithShared {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.of(path)?.open(path, mode)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.of(path)?.read_dir(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.of(path)?.create_dir_all(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(to)?.rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.of(to)?.link(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.of(path)?.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.of(path)?.remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.of(path)?.sync_dir(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.of(path)?.exists(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        self.of(path)?.lock(path)
    }

    fn open_files_max(&self) -> Option<u64> {
        self.own.open_files_max()
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.of(path)?.free_bytes(path)
    }

    fn total_bytes(&self, path: &Path) -> io::Result<u64> {
        self.of(path)?.total_bytes(path)
    }

    fn boot_id(&self) -> Option<String> {
        self.own.boot_id()
    }
}

/// Whether nothing was copied of a partition: then the run has shown nothing.
pub(super) fn fault_of_files(shared: &dyn Disk, index: i32) -> Option<String> {
    let folder = format!("{TIER}/topic={TOPIC}/partition={index}");
    let entries = shared.read_dir(Path::new(&folder)).unwrap_or_default();
    if entries.is_empty() {
        return Some(format!("{folder} has no file"));
    }
    None
}

#[test]
fn nothing_is_lost_and_each_seed_is_one_run() {
    SUITE.try_seeds();
}

#[test]
fn fresh_seeds_find_nothing() {
    SUITE.try_fresh();
}

#[test]
fn replayed() {
    SUITE.replay();
}
