//! The status of the quorum, for those who ask about it.

use std::time::Duration;

use super::Quorum;
use super::driver::Machine;
use crate::broker::metadata_log::{QuorumStatus, ReplicaStatus};
use crate::env::Clock;
use crate::machine::quorum::{Progress, ReplicaKey, VoterSet};
use crate::types::{NodeId, Offset, TimestampMs, Uuid};

/// How long an observer is named that is not heard any more, as in Apache Kafka.
const OBSERVER_SILENCE_MS: i64 = 300_000;

impl Quorum {
    /// What this node knows of the quorum: everything if it leads, otherwise who leads and who votes.
    pub(in crate::broker) fn status(&self, clock: &dyn Clock, node_id: NodeId) -> QuorumStatus {
        let high_watermark = self.high_watermark();
        let machine = self.machine();
        let current = machine.current();
        let leader = current.leader.as_ref().map_or(NodeId::NONE, |leader| leader.id);
        let voters = machine.voters();
        let mut known: Vec<ReplicaStatus> =
            machine.progress().iter().map(|progress| in_wall_time(clock, progress)).collect();
        if machine.is_leader() {
            known.push(own(&machine, clock, node_id));
        }
        let now = clock.now();
        let voter = |key: ReplicaKey| {
            let of_node = known.iter().filter(|known| key_of(known).matches(&key));
            // Where the voter's directory is not known, the one that was heard last.
            let latest = of_node.max_by_key(|known| known.last_fetch);
            latest.copied().unwrap_or_else(|| unknown(key))
        };
        QuorumStatus {
            leader,
            epoch: current.epoch,
            high_watermark,
            voters: voters.iter().map(|known| voter(known.key)).collect(),
            observers: known.iter().filter(|one| observes(voters, one, now)).copied().collect(),
            endpoints: voters.iter().map(|voter| (voter.key.id, voter.endpoints.clone())).collect(),
        }
    }
}

fn key_of(status: &ReplicaStatus) -> ReplicaKey {
    ReplicaKey { id: status.id, directory_id: status.directory_id }
}

/// Whether a replica is an observer, and has been heard lately.
fn observes(voters: &VoterSet, status: &ReplicaStatus, now: TimestampMs) -> bool {
    let silence = now.0.saturating_sub(status.last_fetch.0);
    !voters.contains(&key_of(status)) && silence <= OBSERVER_SILENCE_MS
}

fn unknown(key: ReplicaKey) -> ReplicaStatus {
    ReplicaStatus {
        id: key.id,
        directory_id: key.directory_id,
        log_end_offset: Offset::UNKNOWN,
        last_fetch: TimestampMs::NONE,
        last_caught_up: TimestampMs::NONE,
    }
}

/// The leader itself, which has caught up with itself now.
fn own(machine: &Machine, clock: &dyn Clock, node_id: NodeId) -> ReplicaStatus {
    let me = machine.voters().get(node_id);
    ReplicaStatus {
        id: node_id,
        directory_id: me.map_or(Uuid::ZERO, |me| me.key.directory_id),
        log_end_offset: machine.log_end(),
        last_fetch: clock.now(),
        last_caught_up: clock.now(),
    }
}

fn in_wall_time(clock: &dyn Clock, progress: &Progress) -> ReplicaStatus {
    let (now, monotonic) = (clock.now(), clock.monotonic());
    let at = |at: Option<Duration>| {
        at.map_or(TimestampMs::NONE, |at| {
            let ago = monotonic.saturating_sub(at).as_millis();
            TimestampMs(now.0.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX)).max(0))
        })
    };
    ReplicaStatus {
        log_end_offset: progress.end.unwrap_or(Offset::UNKNOWN),
        last_fetch: at(progress.last_fetch),
        last_caught_up: at(progress.caught_up),
        ..unknown(progress.key)
    }
}
