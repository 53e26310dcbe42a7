//! What the tier has of a topic, as plain values; `python/ottla/_tier.py` builds objects from them.

use std::collections::BTreeMap;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

use crate::client::admin::{Offload, TierPartition, TopicTier};
use crate::types::{Offset, PartitionIndex};

/// The first offset and the one behind the last, by partition.
pub(super) type Offsets = BTreeMap<PartitionIndex, (i64, i64)>;

pub(super) fn offloading(topic: &str) -> String {
    format!("the copy of topic {topic} to the tier")
}

pub(super) fn offsets(offload: &Offload) -> Offsets {
    let pair = |(index, range): (&PartitionIndex, &std::ops::Range<Offset>)| {
        (*index, (range.start.0, range.end.0))
    };
    offload.iter().map(pair).collect()
}

pub(super) fn ranges(offsets: Offsets) -> Offload {
    let range = |(index, (start, end))| (index, Offset(start)..Offset(end));
    offsets.into_iter().map(range).collect()
}

pub(super) fn describe<'py>(py: Python<'py>, tier: &TopicTier) -> PyResult<Bound<'py, PyDict>> {
    let described = PyDict::new(py);
    described.set_item("enabled", tier.is_enabled)?;
    described.set_item("copies", tier.copies)?;
    described.set_item("place", &tier.place)?;
    let partitions = PyList::empty(py);
    for one in &tier.partitions {
        partitions.append(partition(py, one)?)?;
    }
    described.set_item("partitions", partitions)?;
    Ok(described)
}

fn partition<'py>(py: Python<'py>, one: &TierPartition) -> PyResult<Bound<'py, PyDict>> {
    let number = |offset: Option<Offset>| offset.map(|offset| offset.0);
    let described = PyDict::new(py);
    described.set_item("partition", one.partition)?;
    described.set_item("start", number(one.start))?;
    described.set_item("local_start", number(one.local_start))?;
    described.set_item("tiered_end", number(one.tiered_end))?;
    described.set_item("pending", number(one.pending))?;
    described.set_item("end", number(one.end))?;
    described.set_item("local_bytes", one.local_bytes)?;
    described.set_item("files", one.files)?;
    described.set_item("bytes", one.file_bytes)?;
    described.set_item("log_bytes", one.log_bytes)?;
    described.set_item("lag_bytes", one.pending_bytes)?;
    described.set_item("failure", &one.failure)?;
    Ok(described)
}
