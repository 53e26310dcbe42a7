//! What a client decides: where a record goes, when a batch leaves, what is fetched next, which
//! offsets a scan covers.
//!
//! Pure state and arithmetic: the time and the random numbers come in as arguments, requests and
//! results are plain values, nothing here waits. `crate::client` feeds these machines from its
//! sockets and carries out what they say.
//!
//! - [`partitioner`]: murmur2 as every Kafka client computes it, and sticky choice for null keys.
//! - [`accumulator`]: which batch is sent when, in which order, with which sequence number.
//! - [`fetching`]: positions of assigned partitions, and what to fetch within the memory limit.
//! - [`bounds`]: the start and the end of a scan, resolved to offsets.
//! - [`seen`]: what the readings of a scan counted, to notice what compaction removed between them.
//! - [`group`]: membership of a consumer group, and the assignors of the classic protocol.
//! - [`transaction`]: what a transactional producer may do, and what the answers of coordinators mean.
//! - [`backoff`]: how long to wait before the next attempt.

pub mod accumulator;
pub mod backoff;
pub mod bounds;
pub mod fetching;
pub mod group;
pub mod partitioner;
pub mod seen;
pub mod transaction;
