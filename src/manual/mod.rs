//! The manual: documents that are versioned with the code. This module has no code.
//!
//! - [`guarantees`]: what is promised, and under which conditions.
//! - [`compatibility`]: APIs and versions served, and what differs from Apache Kafka.
//! - [`performance`]: the aims, the measurements, and why they differ where they do.
//! - [`types`]: which Arrow types each value format carries, and what comes back.
//! - [`command_line`]: exit statuses, formats of values, and groups on the command line.
//! - [`tier`]: closed segments as Parquet: turning it on, looking at it, having it take the rest.
//! - [`engines`]: reading and writing topics with Dask, Ray and Spark.
//! - [`delta`]: topics in the tier as Delta Lake tables.
//! - [`glossary`]: one meaning per word.
//! - [`decisions`]: why things are as they are, as numbered records.

#[doc = include_str!("guarantees.md")]
pub mod guarantees {}

#[doc = include_str!("compatibility.md")]
pub mod compatibility {}

#[doc = include_str!("performance.md")]
pub mod performance {}

#[doc = include_str!("types.md")]
pub mod types {}

#[doc = include_str!("command_line.md")]
pub mod command_line {}

#[doc = include_str!("tier.md")]
pub mod tier {}

#[doc = include_str!("engines.md")]
pub mod engines {}

#[doc = include_str!("delta.md")]
pub mod delta {}

#[doc = include_str!("glossary.md")]
pub mod glossary {}

/// Decisions with their context and the alternatives weighed; superseded by number, never edited.
///
/// - `0001-log-threading.md`
/// - `0002-own-wire-codec.md`
/// - `0003-consensus-crate.md`
/// - `0004-arrow-view-types.md`
/// - `0005-durability.md`
/// - `0006-mapped-reads.md`
/// - `0007-config-table.md`
/// - `0008-unsafe-code.md`
/// - `0009-dependencies.md`
/// - `0010-no-room-before-its-tenant.md`
/// - `0011-own-avro-decoder.md`
/// - `0012-group-coordinators.md`
/// - `0013-own-protobuf-decoder.md`
/// - `0014-what-was-acknowledged-is-there.md`
/// - `0015-settings-without-effect.md`
/// - `0016-decoding-threads.md`
/// - `0017-a-disk-that-stands-still.md`
/// - `0018-an-epoch-starts-with-its-leader.md`
/// - `0019-the-whole-broker-simulated.md`
/// - `0020-own-metadata-quorum.md`
/// - `0021-nodes-among-themselves.md`
/// - `0022-voters-come-and-go.md`
/// - `0023-who-lost-records-and-who-may-lead.md`
/// - `0024-transactions.md`
/// - `0025-brokers-ask-in-kafkas-frames.md`
/// - `0026-a-scan-goes-on-from-a-group.md`
/// - `0027-tables-are-runs-in-files.md`
/// - `0028-the-tier.md`
/// - `0029-engines-past-one-machine.md`
/// - `0030-a-delta-table-follows-the-tier.md`
/// - `0031-replicas-and-the-tier.md`
pub mod decisions {}
