//! Where a copy begins whose leader does not have on its disk any more what would come next.
//!
//! It begins where a file of the tier ends: there, the file says what the leaders' epochs and the producers were. The log of
//! the leader goes on from there, since its disk has everything from its local start on.

use std::sync::Arc;

use super::ColdFiles;
use super::objects::Manifests;
use super::reading::at_end;
use crate::broker::partition::Partition;
use crate::env::Threads;
use crate::error::{Error, ErrorCode, Result};
use crate::log::Beginning;
use crate::types::Offset;

/// Finds the first place from the leader's local start on. Of the log start, the leader has told.
///
/// # Errors
///
/// `KAFKA_STORAGE_ERROR` when the tier has no such place, as far as can be seen from here; those of the store;
/// [`Error::Corrupt`].
pub(in crate::broker) async fn find_beginning(
    threads: &Threads,
    partition: &Partition,
    (log_start, local_start): (Offset, Offset),
) -> Result<Beginning> {
    let name = partition.name();
    let refused = |why: &str| {
        let context = format!(
            "the offsets of {name} before {local_start} are in the tier of its leader, and this replica cannot begin: {why}"
        );
        Error::kafka(ErrorCode::KafkaStorageError, context)
    };
    let tier = partition.tier().ok_or_else(|| {
        refused("this broker has no tier; set remote.log.storage.system.enable and ottla.tier.url as on the others")
    })?;
    let (id, index) = partition.key();
    let manifest = Manifests::new(Arc::clone(tier.store()), id, index).read().await?;
    let (key, name) = (partition.key(), name.clone());
    let files = ColdFiles { key, name, tier, manifest: Arc::new(manifest) };
    for entry in files.manifest.content().reaching(local_start) {
        let end = at_end(threads, &files, entry).await?;
        // Files of the first releases do not always know them.
        if !end.producers.is_empty() {
            let (offset, epochs, producers) = (end.end_offset, end.epochs, end.producers);
            return Ok(Beginning { offset, log_start, epochs, producers });
        }
    }
    Err(refused(
        "no file of the tier ends there or behind, as it is seen from this broker; see that ottla.tier.url is the same place on all",
    ))
}
