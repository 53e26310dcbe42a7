//! What a leader does for its followers: it answers their fetches, and learns from these how far they have come.
//!
//! The rules are in [`crate::machine::replica`]; here they get what happens, and what they decide becomes visible: the
//! high watermark, who waited for it, and the ISR that the controller is asked for.
//!
//! Invariants:
//! - `LEAD-1` a fetch says how far its follower has come only in the epoch in which it was compared with the log, and
//!   only when the log of the follower does not diverge.

use std::sync::Arc;
use std::time::Duration;

use super::role::Standing;
use super::{FetchRead, Isolation, Partition, Room, Source};
#[cfg(feature = "sim")]
use crate::env::sim::{Mutation, is_planted};
use crate::error::{Error, ErrorCode, Result};
use crate::machine::fetch_session::{FetchInterest, FollowerView};
use crate::machine::replica::{FetchRefusal, FollowerFetch, IsrAnswer, IsrRequest, Token};
use crate::types::{BrokerEpoch, LeaderEpoch, NodeId};

/// A broker that fetches, in the registration that the metadata knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Follower {
    pub(in crate::broker) node: NodeId,
    pub(in crate::broker) broker_epoch: BrokerEpoch,
}

impl Partition {
    /// Whether what followers copy from here is counted, and may be held back.
    pub(in crate::broker) fn is_leader_throttled(&self) -> bool {
        let standing = self.standing.load();
        standing.config.leader_throttled_replicas.contains(self.name.partition, self.node_id.0)
    }

    /// Whether a follower is in the ISR, as this leader knows it.
    pub(in crate::broker) fn has_in_sync(&self, node: NodeId) -> bool {
        self.state().replica.has_in_sync(node)
    }

    /// Why the fetch of a follower that has no replica is refused, as Kafka does. Whoever calls himself a follower and is
    /// none learns nothing, and moves nothing.
    ///
    /// `UNKNOWN_LEADER_EPOCH` when it names the epoch, which may be right, but not for this follower, so that it
    /// asks again; `NOT_LEADER_OR_FOLLOWER` when it does not, or this broker does not lead; `FENCED_LEADER_EPOCH`.
    pub(in crate::broker) fn refuse_follower(&self, epoch: LeaderEpoch) -> Error {
        let checked = self.check_leader().and_then(|()| self.check_epoch(epoch));
        checked.err().unwrap_or_else(|| self.no_replica(epoch))
    }

    fn no_replica(&self, epoch: LeaderEpoch) -> Error {
        let code = match epoch {
            LeaderEpoch::UNKNOWN => ErrorCode::NotLeaderOrFollower,
            _ => ErrorCode::UnknownLeaderEpoch,
        };
        Error::kafka(code, format!("the follower is not a replica of {}", self.name))
    }

    /// Reads for a follower, up to the log end. With `now`, this is the moment at which its fetch came; without, it
    /// came before, and is only read for once more.
    ///
    /// # Errors
    ///
    /// As [`Partition::fetch`] and [`Partition::refuse_follower`]; `NOT_LEADER_OR_FOLLOWER` for a broker that has been
    /// registered again since.
    pub(in crate::broker) fn fetch_for_follower(
        &self,
        follower: Follower,
        interest: &FetchInterest,
        room: Room,
        now: Option<Duration>,
    ) -> Result<FetchRead> {
        let epoch = interest.current_leader_epoch;
        self.check_leader()?;
        self.check_epoch(epoch)?;
        let token = {
            let standing = self.standing.load();
            if !standing.followers.contains(&follower.node) {
                return Err(self.no_replica(epoch));
            }
            standing.token
        };
        let leader_end = self.reader.log_end_offset();
        let mut read = self.fetch(interest, room, Isolation::Everything, Source::Leader)?;
        if read.is_cold {
            let context = format!("{} has offset {} in its tier", self.name, interest.fetch_offset);
            return Err(Error::kafka(ErrorCode::OffsetMovedToTieredStorage, context));
        }
        let is_alike = read.diverging.is_none();
        #[cfg(feature = "sim")]
        let is_alike = is_alike || is_planted(Mutation::TrustsDiverged);
        if let Some(now) = now
            && is_alike
        {
            let fetch = FollowerFetch {
                node: follower.node,
                broker_epoch: follower.broker_epoch,
                offset: interest.fetch_offset,
                leader_end,
                log_start: Some(interest.known.log_start)
                    .filter(|start| *start != FollowerView::UNASKED.log_start),
                local_start: Some(interest.known.local_start)
                    .filter(|start| *start != FollowerView::UNASKED.local_start),
            };
            self.follower_fetched(token, &fetch, now)?;
            read.high_watermark = self.high_watermark();
        }
        Ok(read)
    }

    fn follower_fetched(&self, token: Token, fetch: &FollowerFetch, now: Duration) -> Result<()> {
        let refused = |why: &str| {
            let context = format!("{} does not answer this follower: {why}", self.name);
            Error::kafka(ErrorCode::NotLeaderOrFollower, context)
        };
        let mut state = self.state();
        if state.replica.token() != token {
            // `LEAD-1`
            return Err(refused("its leader has changed meanwhile"));
        }
        let effects = state.replica.fetched(fetch, now).map_err(|refusal| match refusal {
            FetchRefusal::NotLeader => refused("this broker does not lead it"),
            FetchRefusal::NotReplica => refused("it is not a replica"),
            FetchRefusal::StaleBroker => refused("it has been registered again since"),
        })?;
        let moved = self.publish(&mut state, &effects);
        drop(state);
        if moved {
            self.parking.wake(&self.key);
        }
        Ok(())
    }

    /// Time has passed: followers that lag leave the ISR.
    pub(in crate::broker) fn tick(&self, now: Duration) {
        let standing = self.standing.load();
        let leads = standing.token.leads().is_some() && standing.closed.is_none();
        if !leads || standing.followers.is_empty() {
            return;
        }
        let mut state = self.state();
        let effects = state.replica.tick(now);
        let moved = self.publish(&mut state, &effects);
        drop(state);
        if moved {
            self.parking.wake(&self.key);
        }
    }

    /// The controller answered a request for another ISR. Returns the request when it is to be sent once more.
    pub(in crate::broker) fn isr_answered(
        &self,
        request: &IsrRequest,
        answer: IsrAnswer,
    ) -> Option<IsrRequest> {
        let mut state = self.state();
        let mut effects = state.replica.isr_answered(request, answer);
        let again = effects.request.take();
        let moved = self.publish(&mut state, &effects);
        let before = self.standing.load();
        if let Some(in_sync) = state.replica.in_sync()
            && in_sync != before.in_sync
        {
            // Producers are admitted by what the controller said last, before it is in the image here.
            self.standing.store(Arc::new(Standing { in_sync, ..Standing::clone(&before) }));
        }
        drop(state);
        if moved {
            self.parking.wake(&self.key);
        }
        again
    }
}
