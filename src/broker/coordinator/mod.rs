//! Coordinators: the tasks that serve groups, and whatever else keeps its state in an internal topic.
//!
//! Why: a machine ([`crate::machine::coordinator`]) decides; this module makes its decisions durable. Each state
//! partition that this broker leads has one task (`shard`), which alone knows what maps to it. [`Runtime`] starts and
//! stops the tasks as the metadata requires, and passes requests to them. None of this knows what is coordinated: a
//! [`Kind`](kind::Kind) says so, and [`groups`] is one.
//!
//! ```text
//! handler -> Runtime::send -> queue -> shard task -> machine, step
//!                                         |  records: one batch, acks=all
//!    reply  <-  when it is committed  <---+
//! ```
//!
//! Invariants:
//! - `COORD-1` a request is answered exactly once, even at a shutdown or when leadership is lost.
//! - `COORD-2` an answer that depends on records is given once they are committed, and so is every
//!   answer that was decided after them: nobody reads what may still be lost. Reports (heartbeats) about subjects
//!   (groups) that the records say nothing about do not depend on them, and are answered while the disk is waited for.
//! - `COORD-3` a shard's state is defined by its log: it is read back at the start, and again after
//!   a failed append. A record that cannot be read or does not fit fails the load: nothing is passed over but types
//!   that a newer version may have written.
//!   Its records are appended in the epoch in which it was read, or not at all.
//!   So is what was done in transactions: a replay reads transactional batches and the markers that end them.
//! - `COORD-4` a group belongs to the partition given by Kafka's hash of its id.

mod ahead;
mod batch;
mod fencing;
mod groups;
mod kind;
mod replay;
mod runtime;
mod shard;
mod status;
#[cfg(test)]
mod tests;
mod transactions;
#[cfg(test)]
mod transactions_tests;

use crate::machine::group::GroupReply;
use crate::machine::metadata::MetadataImage;
use crate::machine::transaction::TransactionReply;

pub(super) use self::fencing::Proof;
pub(super) use self::groups::{OFFSETS_TOPIC, offsets_topic, partition_of};
pub(super) use self::runtime::ShardParts;
pub(super) use self::transactions::{MarkerSender, TRANSACTIONS_TOPIC, transactions_topic};

/// The group coordinators of this broker.
pub(super) type GroupCoordinators = runtime::Runtime<groups::Groups>;
/// A request about groups that was passed to a shard; its answer comes later.
pub(super) type PendingReply = runtime::PendingReply<GroupReply>;

/// The transaction coordinators of this broker.
pub(super) type TransactionCoordinators = runtime::Runtime<transactions::Transactions>;
/// A request about transactions that was passed to a shard; its answer comes later.
pub(super) type PendingTransaction = runtime::PendingReply<TransactionReply>;

/// How many copies a topic of coordinators has, unless that is set or there are fewer brokers.
const REPLICAS: i16 = 3;

/// How many copies a new topic of coordinators gets.
fn replicas(set: Option<i16>, image: &MetadataImage) -> i16 {
    let brokers = i16::try_from(image.brokers().len()).unwrap_or(i16::MAX);
    set.unwrap_or(brokers.clamp(1, REPLICAS))
}
