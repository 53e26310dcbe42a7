//! Why brokers cannot be reached, for the errors of the records that they did not take.
//!
//! A trouble is over when the broker answers: it is not told of records that fail later, for
//! another reason.

use std::collections::BTreeMap;

use crate::client::cluster::Snapshot;
use crate::types::{NodeId, TopicPartition};

/// The troubles of now, by broker; without one, that of asking for metadata.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Option<NodeId>, String>);

impl Troubles {
    pub(super) fn note(&mut self, with: Option<NodeId>, why: String) {
        self.0.insert(with, why);
    }

    /// It works again.
    pub(super) fn end(&mut self, with: Option<NodeId>) {
        self.0.remove(&with);
    }

    /// Why a partition's records are not taken.
    pub(super) fn of(&self, partition: &TopicPartition, snapshot: &Snapshot) -> Option<&str> {
        self.with(snapshot.leader(partition).map(|(leader, _)| leader))
    }

    fn with(&self, leader: Option<NodeId>) -> Option<&str> {
        // A leader that nobody can be asked for is as good as none.
        self.0.get(&leader).or_else(|| self.0.get(&None)).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_over_when_its_broker_answers() {
        let (one, two) = (Some(NodeId(1)), Some(NodeId(2)));
        let mut troubles = Troubles::default();
        troubles.note(one, "refused".to_owned());
        assert_eq!((troubles.with(one), troubles.with(two)), (Some("refused"), None));
        troubles.end(two);
        troubles.end(None);
        assert_eq!(troubles.with(one), Some("refused"));
        troubles.note(None, "no metadata".to_owned());
        assert_eq!(troubles.with(two), Some("no metadata"));
        troubles.end(one);
        assert_eq!(troubles.with(one), Some("no metadata"));
        troubles.end(None);
        assert_eq!(troubles.with(one), None);
    }
}
