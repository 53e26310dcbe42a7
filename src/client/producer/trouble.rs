//! Why brokers cannot be reached, for the errors of records that could not be sent.
//!
//! An entry ends when the broker answers: it is not reported for records that fail later for
//! another reason.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::client::cluster::Snapshot;
use crate::error::Error;
use crate::types::{NodeId, TopicPartition};

/// The current troubles, by broker; `None` is for metadata requests.
#[derive(Debug, Default)]
pub(super) struct Troubles(BTreeMap<Option<NodeId>, Arc<Error>>);

impl Troubles {
    pub(super) fn note(&mut self, with: Option<NodeId>, why: Error) {
        self.0.insert(with, Arc::new(why));
    }

    /// It works again.
    pub(super) fn end(&mut self, with: Option<NodeId>) {
        self.0.remove(&with);
    }

    /// Why a partition's records cannot be sent.
    pub(super) fn of(&self, partition: &TopicPartition, snapshot: &Snapshot) -> Option<Arc<Error>> {
        self.with(snapshot.leader(partition).map(|leader| leader.node))
    }

    fn with(&self, leader: Option<NodeId>) -> Option<Arc<Error>> {
        // If no broker can be asked for the leader, there is effectively none.
        self.0.get(&leader).or_else(|| self.0.get(&None)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_over_when_its_broker_answers() {
        let (one, two) = (Some(NodeId(1)), Some(NodeId(2)));
        let mut troubles = Troubles::default();
        let told = |troubles: &Troubles, of| troubles.with(of).map(|error| error.to_string());
        let said = |text: &str| Some(text.to_owned());
        troubles.note(one, Error::invalid("refused"));
        assert_eq!((told(&troubles, one), told(&troubles, two)), (said("refused"), None));
        troubles.end(two);
        troubles.end(None);
        assert_eq!(told(&troubles, one), said("refused"));
        troubles.note(None, Error::invalid("no metadata"));
        assert_eq!(told(&troubles, two), said("no metadata"));
        troubles.end(one);
        assert_eq!(told(&troubles, one), said("no metadata"));
        troubles.end(None);
        assert_eq!(told(&troubles, one), None);
    }
}
