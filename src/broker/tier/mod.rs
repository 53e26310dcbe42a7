//! The tier of the partitions that are led here: closed segments are uploaded, verified, and named by a manifest, and
//! only then may the log delete them.
//!
//! [`crate::machine::tier`] decides, [`crate::tier`] makes files and keeps them.

mod partition;
mod reading;
#[cfg(test)]
mod reading_tests;
mod shelf;

pub(super) use partition::TieredPartition;
pub(super) use reading::{ColdFiles, ColdRead, ColdWant, TierReader};
