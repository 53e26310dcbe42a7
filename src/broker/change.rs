//! One step of the metadata, as the parts of the broker act on it: each looks at what has changed, and at nothing else.

use crate::config::BrokerConfig;
use crate::machine::metadata::{ConfigResource, MetadataDelta, MetadataImage};

/// See the module. The first change of a broker starts from the empty image.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'a> {
    /// What changed.
    pub(super) delta: &'a MetadataDelta,
    /// The metadata after the change.
    pub(super) image: &'a MetadataImage,
    /// The settings of this broker after the change.
    pub(super) config: &'a BrokerConfig,
    /// Whether these settings may differ from those before.
    pub(super) has_new_config: bool,
}

impl Change<'_> {
    /// Whether the settings of one of these resources changed.
    pub(super) fn alters(&self, is_one: impl Fn(&ConfigResource) -> bool) -> bool {
        self.delta.changed_configs().any(is_one)
    }

    /// Whether the topic, or a partition of it, changed in any way.
    pub(super) fn touches(&self, topic: &str) -> bool {
        self.delta.changed_topics().any(|changed| &*changed.name == topic)
            || self.delta.deleted_topics().values().any(|deleted| &*deleted.name == topic)
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
pub(super) mod tests;
