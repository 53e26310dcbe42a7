//! The transaction coordinator of one `__transaction_state` partition, without I/O.
//!
//! A [`TransactionShard`] holds every transactional id that maps to the partition: which producer id and epoch it has,
//! and how its transaction stands. Its hard state is the sum of the partition's records; its soft state (which markers
//! are still to be written, when a transaction times out) is built anew by whoever leads next.
//!
//! ```text
//!                        AddPartitions            EndTxn, timeout, InitProducerId
//!  Empty, Complete* ───────────────────► Ongoing ────────────────────────────────► Prepare*
//!        ▲                                                                            │ markers to every partition,
//!        └──────────────── Complete* ◄────────────────────────────────────────────────┘ which are all in the log
//! ```
//!
//! Both versions of transactions are served, whichever a producer speaks: with the second (KIP-890) the epoch is
//! raised at each end, so that nothing late of the last transaction can get into the next.
//!
//! Invariants, held by the tests beside this module:
//!
//! - TXN-1: no two producers are told the same id and epoch.
//! - TXN-2: a transaction whose commit was answered is committed in each of its partitions, and none that was aborted is;
//!   `Prepare*` decides, and is in the log before any marker is handed out.
//! - TXN-3: markers go to exactly the partitions of the transaction; `Complete*` follows once each is written, or its
//!   topic deleted.
//! - TXN-4: replaying the records of a shard, cut anywhere, and [`Coordinator::restored`](super::coordinator::Coordinator)
//!   yield a shard that goes on; only the last epoch is forgotten, as in Kafka, by which a repeated InitProducerId is
//!   known.
//! - TXN-5: no epoch is [`EPOCH_MAX`] when it is told to a producer: the coordinator can always fence whoever has it.
//!
//! Where more ids are needed, the machine says so ([`TransactionReply::NeedsProducerId`]), and is asked again with a fresh one.
//!
//! Pure; run by `broker::coordinator`, as any [`coordinator`](super::coordinator) is. Kafka's counterparts are `TransactionCoordinator`,
//! `TransactionStateManager` and `TransactionMetadata`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod describe;
mod ending;
mod init;
mod markers;
#[cfg(any(test, feature = "sim"))]
pub mod mistakes;
#[cfg(test)]
mod model;
mod partitions;
mod record;
mod request;
#[cfg(test)]
mod rig;
mod shard;
#[cfg(test)]
mod tests;
mod timers;

pub use describe::compile_pattern;
pub use markers::{MarkerAnswer, MarkerOutcome, Markers};
pub use record::{EPOCH_MAX, Producer, TransactionRecord, TransactionState, TransactionValue};
pub use request::{
    AddPartitionsRequest, DescribedTransaction, Effect, EndRequest, Event, InitRequest,
    ListTransactionsRequest, ListedTransaction, TransactionConfig, TransactionNews,
    TransactionReply, TransactionRequest,
};
pub use shard::TransactionShard;
