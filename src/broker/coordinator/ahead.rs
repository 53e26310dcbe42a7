//! Which groups a shard's state is ahead of its log for, while an append is in progress.
//!
//! Why: an append takes as long as its disk, and the members of a thousand groups report to the shard meanwhile. A
//! report of a member of a group that the append says nothing about can be answered at once: everything that the
//! answer tells is committed (`COORD-2`).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::machine::group::{Effect, GroupRecord, GroupRequest};

/// The groups whose members wait.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    groups: BTreeSet<Arc<str>>,
}

impl Ahead {
    /// Those that effects which are not carried out yet say something about. Committed offsets are nothing that
    /// a report is answered with.
    pub(super) fn of(effects: &[Effect]) -> Self {
        let mut ahead = Self::default();
        for effect in effects {
            ahead.note(effect);
        }
        ahead
    }

    pub(super) fn note(&mut self, effect: &Effect) {
        let Effect::Append { records, .. } = effect else { return };
        let of_members =
            records.iter().filter(|record| !matches!(record, GroupRecord::OffsetCommit { .. }));
        self.groups.extend(of_members.map(|record| Arc::clone(record.group())));
    }

    /// Takes note of a request that is kept for later; reports behind it are not to overtake it where it is about
    /// members.
    pub(super) fn keep(&mut self, request: &GroupRequest) {
        let group = match request {
            GroupRequest::Join(request) => &request.group_id,
            GroupRequest::Sync(request) => &request.group_id,
            GroupRequest::Leave(request) => &request.group_id,
            GroupRequest::ConsumerHeartbeat(request) => &request.group_id,
            GroupRequest::Delete { groups } => {
                self.groups.extend(groups.iter().cloned());
                return;
            }
            _ => return,
        };
        self.groups.insert(Arc::clone(group));
    }

    /// Whether a request is a report that can be answered now.
    pub(super) fn lets_through(&self, request: &GroupRequest) -> bool {
        match request {
            GroupRequest::Heartbeat(request) => !self.groups.contains(&request.group_id),
            GroupRequest::ConsumerHeartbeat(request) => !self.groups.contains(&request.group_id),
            _ => false,
        }
    }
}
