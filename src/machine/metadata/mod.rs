//! The metadata of the cluster: records, what they add up to, and what changed.
//!
//! Everything that the cluster agrees on (topics, partitions and their leaders, settings, brokers,
//! features, producer-id blocks) is a log of [`MetadataRecord`]s. Replaying records on an image
//! yields a [`MetadataDelta`]; applying the delta yields the next [`MetadataImage`]. An image never
//! changes: its holder sees one moment of the cluster, and cloning it only bumps a few counters.
//!
//! ```text
//! image N ──► MetadataDelta::new ──replay(record)*──► apply(offset, epoch) ──► image N+1
//!                                        │
//!                                        └── what changed: publishers act on (delta, image N+1)
//! ```
//!
//! Invariants, held by `replay` and by the property tests of the controller:
//!
//! - META-1: replaying `image.to_records()` on an empty image yields the same image.
//! - META-2: a partition has no leader or one in its ISR, its ISR and its ELR are subsets of its replicas without a
//!   common member, and neither of its epochs ever decreases.
//! - META-3: partitions of a topic are numbered from 0 without a gap; a topic id is never reused.
//! - META-4: a record that does not fit the image (unknown topic, decreasing epoch) is an error,
//!   not a guess: the log is damaged or was written by a newer version.
//!
//! Pure; called by the controller (to decide), by `broker::quorum` (to apply what is committed)
//! and by every handler (to read).
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod delta;
mod image;
mod record;

pub use delta::{MetadataDelta, MetadataUpdate};
pub use image::{
    BrokerImage, ELR_FEATURE, Endpoint, MetadataImage, PartitionImage, SUPPORTED_FEATURES,
    SupportedFeature, TRANSACTION_FEATURE, TopicImage,
};
pub(crate) use record::uuid_text;
pub use record::{ConfigResource, MetadataRecord, PartitionRecord, is_internal_topic};

#[cfg(test)]
mod tests;
