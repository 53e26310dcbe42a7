//! What a partition and whoever reads it know of its tier.

use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use tokio::sync::Notify;

use crate::machine::tier::Manifest;
use crate::store::Store;
use crate::tier::names;
use crate::types::TopicPartition;

/// The tier of a partition that is led here.
#[derive(Debug)]
pub(in crate::broker) struct TieredPartition {
    store: Arc<dyn Store>,
    folder: String,
    manifest: ArcSwapOption<Manifest>,
    /// The driver should look: the role or the settings have changed.
    changed: Notify,
}

impl TieredPartition {
    pub(in crate::broker) fn new(store: Arc<dyn Store>, partition: &TopicPartition) -> Self {
        Self {
            store,
            folder: names::folder(&partition.topic, partition.partition),
            manifest: ArcSwapOption::empty(),
            changed: Notify::new(),
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

    /// Has the driver look.
    pub(in crate::broker) fn wake(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`TieredPartition::wake`].
    pub(in crate::broker) async fn changed(&self) {
        self.changed.notified().await;
    }
}
