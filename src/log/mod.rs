//! One partition on disk, in Apache Kafka's formats.
//!
//! A [`Log`] is a directory of segments: files of record batches with sparse indexes, the last of which
//! is appended to. Alongside are the producers' state (idempotence), the leader epochs and the
//! checkpoints of the [`LogDirectory`]. The module is synchronous; it knows no wire format, no thread
//! and no timer. The names of all files are in [`layout`](self).
//!
//! ```text
//!  one thread                                         any thread
//!  Log ── append ──▶ pwritev ──▶ publish ──┐          LogReader ── read ──▶ Bytes (mapped)
//!   │                                      ▼             ▲
//!   ├── sync_handle ──▶ SyncHandle     View (arc-swap) ──┘
//!   ├── roll, retention, truncate      end offsets (atomics)
//!   └── close
//! ```
//!
//! # Invariants
//!
//! - `LOG-1` One writer, any number of readers; a read takes no lock that an append holds while it writes.
//! - `LOG-2` Nothing is published before it is written. A failed write leaves the log as it was.
//! - `LOG-3` Bytes below the high watermark are never changed or cut in place: batches that were handed out outlive
//!   the segment, the log and the directory (the argument is in `env/real/storage.rs`). What lies above is copied to
//!   whoever reads it, and may be cut (`CUT-1`).
//! - `LOG-4` What a finished [`SyncHandle`] covers survives a power cut (`SYN-1`); a failed sync takes the
//!   directory offline (`SYN-2`).
//! - `LOG-5` After a crash the log is a prefix of what was appended, at least up to the recovery point (`REC-1`,
//!   `REC-2`).
//! - `LOG-6` A batch that rotted on disk is reported with file and position, not served.
//! - `LOG-7` Offsets ascend, and so do the epochs of their leaders (`EPOCH-1`).
//! - `LOG-8` What a `read_committed` consumer may see is decided: its transaction has ended, and the end is below the
//!   high watermark (`PRD-2`, `STB-1`); which transactions were aborted is known as long as their records are there (`TXI-1`).
//! - `LOG-9` A log starts before what is on this disk only as far as a tier has what lies between; what the tier is not known to
//!   have is not deleted for its sake (`RET-0`).
//!
//! # Why there is no cache of the newest appends
//!
//! Readers of the tail read the mapping of the active segment, up to the high watermark. The bytes that `pwritev` has copied into the
//! page cache are the ones the mapping shows (one coherent page cache on every Unix), so they are served
//! without another copy, without memory of our own to bound and without a second path to test. A cache of
//! the appended buffers would pin whole request frames and save only a page fault for each 64 KiB (the
//! kernel maps around a fault).
//!
//! # Example
//!
//! ```
//! use ottla::env::Env;
//! use ottla::log::{Health, Log, LogConfig, OpenOptions, ReadRequest};
//! use ottla::record::{BatchBuilder, BatchOptions};
//! use ottla::types::{LeaderEpoch, Offset, TimestampMs, TopicPartition};
//!
//! let directory = tempfile::tempdir().unwrap();
//! let env = Env::real();
//! let options = OpenOptions {
//!     partition: TopicPartition::new("orders", 0),
//!     topic_id: env.random.uuid(),
//!     config: LogConfig::default(),
//!     health: Health::new(directory.path()),
//!     recovery_point: Offset::ZERO,
//!     log_start_offset: Offset::ZERO,
//!     clean_shutdown: false,
//!     clean_until: None,
//! };
//! let mut log = Log::create(&env, &directory.path().join("orders-0"), options).unwrap();
//! let mut batch = BatchBuilder::new(BatchOptions::default());
//! batch.append(TimestampMs(1), None, Some(b"hello"), &[]).unwrap();
//! let info =
//!     log.append_as_leader(&batch.finish().unwrap(), LeaderEpoch(0), env.clock.now()).unwrap();
//! assert_eq!(info.base_offset, Offset(0));
//! assert_eq!(log.sync_handle().run().unwrap(), Offset(1)); // on any thread
//!
//! let request =
//!     ReadRequest { offset: Offset(0), max_bytes: 1 << 20, upper: Offset(1), at_least_one: true };
//! let read = log.reader().read(request).unwrap();
//! assert_eq!(read.next_offset, Offset(1));
//! ```

mod active;
mod append;
mod beginning;
mod checkpoint;
mod committed;
mod compaction;
mod config;
mod copying;
mod directory;
mod epochs;
mod health;
mod index;
mod layout;
mod leadership;
mod predecessor;
mod producers;
mod properties;
mod reader;
mod rebuild;
mod recovery;
mod retention;
mod scan;
mod segment;
mod shared;
mod snapshot;
mod stability;
mod sync;
mod transaction_index;
mod truncation;
mod verification;
mod verified;
mod writer;

pub use append::Append;
pub use beginning::Beginning;
pub use compaction::{Cleaned, Cleaner, CleanerLimits, CleanerSummary, Dirtiness, Progress};
pub use config::{LocalRetention, LogConfig};
pub use directory::{CheckpointedOffsets, LogDirectory, PartitionDirectory};
pub use epochs::{Divergence, EpochCache, EpochEnd, EpochEntry};
pub use health::Health;
pub use predecessor::Predecessor;
pub use producers::{AbortedTransaction, ProducerBatch, ProducerState};
pub use properties::MetaProperties;
pub use reader::{ClosedSegment, HighWatermark, LogReader, ReadRequest, ReadResult, Verifier};
pub use recovery::{OpenOptions, RecoveryReport};
pub use retention::Deleted;
pub use sync::SyncHandle;
pub use verification::{FirstBatch, Guard};
pub use writer::{AppendInfo, Log};
