//! What the broker needs of the metadata quorum.

use std::fmt::Debug;
use std::sync::Arc;

use tokio::sync::watch;

use super::connection::BoxFuture;
use crate::error::Result;
use crate::machine::controller::{Command, Reply};
use crate::machine::metadata::MetadataImage;
use crate::types::{LeaderEpoch, NodeId, Offset, TimestampMs, Uuid};

/// How a member of the quorum stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct VoterStatus {
    /// The member.
    pub(super) id: NodeId,
    /// Its log directory.
    pub(super) directory_id: Uuid,
    /// Where its log ends; -1 when not known.
    pub(super) log_end_offset: Offset,
    /// When it last had everything; -1 when not known.
    pub(super) last_caught_up: TimestampMs,
}

/// How the quorum stands.
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
    /// Gives a command to the controller. The reply comes after its records were committed and are in
    /// the image.
    fn submit(&self, command: Command) -> BoxFuture<Result<Reply>>;

    /// Every committed image; the newest only.
    fn subscribe(&self) -> watch::Receiver<Arc<MetadataImage>>;

    /// How the quorum stands.
    fn status(&self) -> QuorumStatus;

    /// Stops; what was committed is on disk.
    fn shutdown(&self) -> BoxFuture<()>;
}
