//! What the runtime must know about one kind of coordinator.

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;

use super::fencing::OfTransaction;
use super::runtime::ShardHandle;
use crate::broker::change::Change;
use crate::broker::connection::BoxFuture;
use crate::error::Result;
use crate::machine::Replicated;
use crate::machine::coordinator::Coordinator;
use crate::types::ProducerId;

/// A record as appended: its key, and its value or a tombstone.
pub(super) type KeyAndValue = (Bytes, Option<Bytes>);

pub(super) type RequestOf<K> = <<K as Kind>::Machine as Coordinator>::Request;
pub(super) type ReplyOf<K> = <<K as Kind>::Machine as Coordinator>::Reply;
pub(super) type NewsOf<K> = <<K as Kind>::Machine as Coordinator>::News;
pub(super) type RecordOf<K> = <<K as Kind>::Machine as Replicated>::Record;

/// One kind of coordinator, as a set of functions.
pub(in crate::broker) trait Kind: Debug + Sized + Send + Sync + 'static {
    /// The topic whose partitions hold the state.
    const TOPIC: &'static str;
    /// What is coordinated, in the plural, for messages.
    const WHAT: &'static str;

    /// The machine of one partition.
    type Machine: Coordinator + Debug + Send + 'static;
    /// What every machine must know about the cluster, at one moment; by default what is known before the first.
    type World: Clone + Debug + Default + Send + Sync + 'static;
    /// What acts on the decisions of the shards beside the log; `()` if nothing does.
    type Attendant: Clone + Debug + Send + Sync + 'static;

    /// A machine that knows nothing yet. The seed differs from one leadership to the next.
    fn machine(seed: u64) -> Self::Machine;

    /// Takes from a change what the machines must know; returns whether there was anything.
    fn look(world: &mut Self::World, change: &Change<'_>) -> bool;

    /// What a machine must be told that was last told `before`, or nothing yet.
    fn news(before: Option<&Self::World>, now: &Self::World) -> Vec<NewsOf<Self>>;

    /// What goes on beside a shard until it is stopped, if anything does.
    fn attend(_: &Self::Attendant, _: ShardHandle<Self>) -> Option<BoxFuture<()>> {
        None
    }

    /// Writes a record.
    ///
    /// # Errors
    ///
    /// A value that its schema cannot hold.
    fn encode(record: &RecordOf<Self>) -> Result<KeyAndValue>;

    /// Reads a record; `None` for a type that this version does not know.
    ///
    /// # Errors
    ///
    /// When the bytes do not match their type, or their version is unknown.
    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<RecordOf<Self>>>;

    /// A record as it counts in a transaction, for one that was read from a transactional batch; by default there
    /// is no difference.
    fn in_transaction(record: RecordOf<Self>, _producer: ProducerId) -> RecordOf<Self> {
        record
    }

    /// What the end of a transaction is to the machine; by default nothing.
    fn transaction_end(_producer: ProducerId, _committed: bool) -> Option<RecordOf<Self>> {
        None
    }

    /// What a request is to a transaction, by default nothing.
    fn of_transaction(_request: &RequestOf<Self>) -> Option<OfTransaction> {
        None
    }

    /// The request as a report, which may be answered while an append is in progress, with the subject that it is
    /// about: a group, for example.
    fn report(request: &RequestOf<Self>) -> Option<&Arc<str>>;

    /// The subject of which a report, once the record is decided, would tell what is not committed.
    fn subject(record: &RecordOf<Self>) -> Option<&Arc<str>>;

    /// The subjects whose reports must not overtake this request.
    fn subjects<'a>(request: &'a RequestOf<Self>, each: impl FnMut(&'a Arc<str>));
}
