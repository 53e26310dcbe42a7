//! The group coordinator of one `__consumer_offsets` partition, without I/O.
//!
//! A [`GroupShard`] holds every group whose id maps to the partition: classic groups (members join,
//! one of them assigns), consumer groups (KIP-848: members report, the coordinator assigns), and
//! the offsets they committed. Its hard state is the sum of the partition's records; its soft state
//! (who waits for an answer, when a session ends) is gone when another broker takes over.
//!
//! ```text
//! request ──► step ──► Append { records, reply }   to the log; the reply when it is committed
//!                 ├──► AppendInTransaction         the same, in a producer's transaction
//!                 ├──► EndTransaction              its marker
//!                 └──► Reply                       when all that was appended before is committed
//! restart:  apply(record)* ──► restored ──► step …
//! ```
//!
//! Invariants, held by the tests beside this module and by `tests/simulation/broker`:
//!
//! - GROUP-1: every request is answered exactly once: immediately, when the group progresses, or
//!   when a deadline passes. A member that asks again while it waits gets its answer on the newest
//!   request; the older one gets an error that makes its sender come back.
//! - GROUP-2: replaying the records of a shard yields its hard state.
//! - GROUP-3: an answer never depends on a record that comes after it in the log.
//! - GROUP-4: a heartbeat, a commit and the next deadline cost O(log n); no request copies a group.
//!
//! - GROUP-5: a record that does not fit the state is an error, in a replay as in a decision of the shard itself. The
//!   latter is undone before anything of it is in the log.
//!
//! - GROUP-6: an offset that was committed in a transaction counts from when the marker that commits the transaction is
//!   in the log, unless a later record of the same partition counts already.
//!
//! When an append fails, the runtime answers everyone who is waiting with an error and builds the
//! shard again from the log.
//!
//! Pure; run by `broker::coordinator`, as any [`coordinator`](super::coordinator) is. Kafka's counterparts are `GroupMetadataManager` and
//! `OffsetMetadataManager`.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod admin;
mod classic;
mod config;
mod consumer;
mod embedded;
mod offset_table;
mod offsets;
#[cfg(test)]
mod offsets_tests;
#[cfg(test)]
mod properties;
mod record;
mod reply;
mod request;
#[cfg(test)]
mod rig;
mod shard;
mod timers;
mod topics;
#[cfg(test)]
mod transactions_tests;

pub use config::{GroupConfig, GroupOverrides, MigrationPolicy};
pub use record::{
    AssignedPartitions, ClassicGroupValue, ClassicMemberMetadata, ClassicMemberValue,
    ClassicProtocol, ConsumerGroupValue, ConsumerMemberValue, CurrentAssignmentValue, GroupRecord,
    OffsetKey, OffsetValue, RegularExpressionValue, TargetAssignmentValue, TopicPartitions,
};
pub use reply::{
    ConsumerHeartbeatReply, DescribedConsumerGroup, DescribedConsumerMember, DescribedGroup,
    DescribedMember, FetchedPartition, FetchedTopic, GroupError, GroupReply, JoinReply,
    JoinedMember, LeftMember, ListedGroup, NamedPartitions, PartitionResults, SyncReply,
};
pub use request::{
    CommitOffsetsRequest, CommitPartition, CommitTopic, ConsumerHeartbeatRequest,
    DeleteOffsetsRequest, Effect, Event, FetchOffsetsRequest, FetchTopic, GroupNews, GroupRequest,
    HeartbeatRequest, JoinRequest, LeaveRequest, LeavingMember, ListRequest, RequestId,
    SyncRequest,
};
pub use shard::GroupShard;
pub use topics::{TopicView, TopicsView};
