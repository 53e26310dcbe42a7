//! What a partition and whoever reads it know of its tier.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::machine::tier::Manifest;
use crate::store::Store;
use crate::tier::names;
use crate::types::{Offset, TopicPartition};

/// The tier of a partition that is led here.
#[derive(Debug)]
pub(in crate::broker) struct TieredPartition {
    store: Arc<dyn Store>,
    folder: String,
    manifest: ArcSwapOption<Manifest>,
    /// The driver should look: the role or the settings have changed.
    changed: Notify,
    /// Whether the store says of the topic that it has files.
    is_noted: AtomicBool,
    /// Whether the log was empty when this began, so that nothing can be in the tier before the manifest says so.
    is_new: bool,
    /// Whether nothing is left of a tier that was taken away.
    is_clear: AtomicBool,
    /// Up to where somebody waits for the log to be in the tier.
    wanted: AtomicI64,
    /// Why the tier does not get on.
    failure: ArcSwapOption<String>,
}

impl TieredPartition {
    pub(in crate::broker) fn new(
        store: Arc<dyn Store>,
        partition: &TopicPartition,
        is_new: bool,
    ) -> Self {
        Self {
            store,
            folder: names::folder(&partition.topic, partition.partition),
            manifest: ArcSwapOption::empty(),
            changed: Notify::new(),
            is_noted: AtomicBool::new(false),
            is_new,
            is_clear: AtomicBool::new(false),
            wanted: AtomicI64::new(Offset::UNKNOWN.0),
            failure: ArcSwapOption::empty(),
        }
    }

    /// Where its files are.
    pub(in crate::broker) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The path of a file in the store.
    pub(in crate::broker) fn path(&self, name: &str) -> String {
        format!("{}/{name}", self.folder)
    }

    /// How errors and the log name a file.
    pub(in crate::broker) fn name(&self, name: &str) -> PathBuf {
        self.store.name(&self.path(name))
    }

    /// The folder of its files.
    pub(in crate::broker) fn folder(&self) -> &str {
        &self.folder
    }

    /// The manifest, as this leader last wrote it; none before it was read. Its files may be read for
    /// `file.delete.delay.ms` after a newer one has left them out.
    pub(in crate::broker) fn manifest(&self) -> Option<Arc<Manifest>> {
        self.manifest.load_full()
    }

    /// Makes a manifest known to readers; none when this broker does not lead any more.
    pub(in crate::broker) fn publish(&self, manifest: Option<&Manifest>) {
        self.manifest.store(manifest.map(|manifest| Arc::new(manifest.clone())));
    }

    /// Whether its log was empty when it began.
    pub(in crate::broker) const fn is_new(&self) -> bool {
        self.is_new
    }

    /// Has the driver look, or another one begin.
    pub(in crate::broker) fn wake(&self) {
        self.is_clear.store(false, Ordering::Release);
        self.changed.notify_one();
    }

    /// Whether there is nothing to do, before [`TieredPartition::wake`] is called.
    pub(super) fn is_clear(&self) -> bool {
        self.is_clear.load(Ordering::Acquire)
    }

    pub(super) fn set_clear(&self) {
        self.is_clear.store(true, Ordering::Release);
    }

    /// Whether the store is known to name the topic.
    pub(super) fn is_noted(&self) -> bool {
        self.is_noted.load(Ordering::Acquire)
    }

    pub(super) fn set_noted(&self) {
        self.is_noted.store(true, Ordering::Release);
    }

    /// Has what lies before `end` copied as soon as it is in closed segments.
    pub(in crate::broker) fn want(&self, end: Offset) {
        self.wanted.fetch_max(end.0, Ordering::AcqRel);
        self.wake();
    }

    /// Up to where somebody has asked for the log to be copied soon; unknown when nobody has.
    pub(in crate::broker) fn wanted(&self) -> Offset {
        Offset(self.wanted.load(Ordering::Acquire))
    }

    /// Why the tier does not get on; none while it does.
    pub(in crate::broker) fn failure(&self) -> Option<Arc<String>> {
        self.failure.load_full()
    }

    pub(super) fn set_failure(&self, why: Option<&str>) {
        self.failure.store(why.map(|why| Arc::new(why.to_owned())));
    }

    /// Waits for [`TieredPartition::wake`].
    pub(in crate::broker) async fn changed(&self) {
        self.changed.notified().await;
    }
}
