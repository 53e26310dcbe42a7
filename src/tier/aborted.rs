//! Which batches of a log were aborted.

use std::collections::BTreeMap;

use crate::log::AbortedTransaction;
use crate::record::BatchHeader;
use crate::types::{Offset, ProducerId};

/// The aborted transactions of a stretch of a log, by producer.
#[derive(Debug)]
pub struct AbortedRanges(BTreeMap<ProducerId, Vec<(Offset, Offset)>>);

impl AbortedRanges {
    /// Takes all that have records in the stretch.
    #[must_use]
    pub fn new(aborted: &[AbortedTransaction]) -> Self {
        let mut ranges = BTreeMap::<_, Vec<_>>::new();
        for one in aborted {
            let range = (one.first_offset, one.last_offset);
            ranges.entry(one.producer_id).or_default().push(range);
        }
        Self(ranges)
    }

    /// Whether a batch is of one of them.
    #[must_use]
    pub fn hold(&self, header: &BatchHeader) -> bool {
        let at = header.base_offset;
        let holds = |(first, last): &(Offset, Offset)| (*first..=*last).contains(&at);
        header.is_transactional()
            && self.0.get(&header.producer_id).is_some_and(|ranges| ranges.iter().any(holds))
    }
}
