//! What the broker needs from the metadata quorum.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;

use super::connection::BoxFuture;
use crate::error::Result;
use crate::machine::controller::{Command, Reply};
use crate::machine::metadata::MetadataImage;
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

/// The status of a member of the quorum.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoterStatus {
    /// The member.
    pub(super) id: NodeId,
    /// Its log directory.
    pub(super) directory_id: Uuid,
    /// The end of its log; -1 when unknown.
    pub(super) log_end_offset: Offset,
    /// When it was last caught up; -1 when unknown.
    pub(super) last_caught_up: TimestampMs,
}

/// The status of the quorum.
#[derive(Clone, Debug)]
pub(super) struct QuorumStatus {
    /// Its leader; none during an election.
    pub(super) leader: NodeId,
    /// The leader's term.
    pub(super) epoch: LeaderEpoch,
    /// Everything before is committed.
    pub(super) high_watermark: Offset,
    /// The members.
    pub(super) voters: Vec<VoterStatus>,
}

/// The replicated log of metadata.
pub(super) trait MetadataLog: Send + Sync + Debug {
    /// Sends a command to the controller. The reply comes once its records are committed and in the
    /// image.
    fn submit(&self, command: Command) -> BoxFuture<Result<Reply>>;

    /// The newest committed image, whenever there is one.
    fn subscribe(&self) -> watch::Receiver<Arc<MetadataImage>>;

    /// The status of the quorum.
    fn status(&self) -> QuorumStatus;

    /// Stops; what was committed is on disk.
    fn shutdown(&self) -> BoxFuture<()>;
}
