//! Which subjects (groups, say) a machine's state is ahead of its log for, while an append is in progress.
//!
//! Why: an append takes as long as its disk, and the members of a thousand groups report to the shard meanwhile. A
//! report about a group that the append says nothing about can be answered at once: everything that the
//! answer tells is committed (`COORD-2`).

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kind::{Kind, RecordOf, ReplyOf, RequestOf};
use crate::machine::coordinator::Effect;

/// The subjects whose reports wait.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    subjects: BTreeSet<Arc<str>>,
}

impl Ahead {
    /// Those that effects which are not carried out yet say something about.
    pub(super) fn of<K: Kind>(effects: &[Effect<RecordOf<K>, ReplyOf<K>>]) -> Self {
        let mut ahead = Self::default();
        for effect in effects {
            ahead.note::<K>(effect);
        }
        ahead
    }

    pub(super) fn note<K: Kind>(&mut self, effect: &Effect<RecordOf<K>, ReplyOf<K>>) {
        let (Effect::Append { records, .. } | Effect::AppendInTransaction { records, .. }) = effect
        else {
            return;
        };
        self.subjects.extend(records.iter().filter_map(K::subject).map(Arc::clone));
    }

    /// Takes note of a request that is kept for later; reports behind it are not to overtake it.
    pub(super) fn keep<K: Kind>(&mut self, request: &RequestOf<K>) {
        K::subjects(request, |subject| {
            self.subjects.insert(Arc::clone(subject));
        });
    }

    /// Whether a request is a report that can be answered now.
    pub(super) fn lets_through<K: Kind>(&self, request: &RequestOf<K>) -> bool {
        K::report(request).is_some_and(|subject| !self.subjects.contains(subject))
    }
}
