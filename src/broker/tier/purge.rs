//! The files of topics that were deleted.
//!
//! Which topics have files is in the store, so that they are found after a crash, too. A topic that this broker does not
//! know was deleted, if what it knows is not old: it waits for a change of its own to take effect here, after it looked
//! into the store. And if its log is not on this disk: the log of an unknown topic says that it is the metadata that was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::driver::is_of;
use super::objects::{TopicEntry, forget_topic, tag, topics};
use super::tables::close_deleted;
use crate::broker::blocking::blocking;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::AllocateProducerIds;
use crate::store::Store;
use crate::types::TopicId;

const BARRIER_TIMEOUT_MS: i32 = 30_000;

/// Deletes the files of deleted topics, but for those in `busy`: somebody may still write some. What was led here until just
/// now (`led`) is looked for in any case: another broker, which knew of the deletion before, may have removed the topic
/// from the store before the last of its files came.
pub(super) async fn purge(
    state: &Arc<BrokerState>,
    store: &Arc<dyn Store>,
    busy: &BTreeSet<TopicId>,
    led: &BTreeMap<TopicId, Arc<str>>,
) -> Result<()> {
    let mut gone = topics(&**store).await?;
    let noted: BTreeSet<TopicId> = gone.iter().map(|one| one.topic_id).collect();
    let others = led.iter().filter(|(id, _)| !noted.contains(id));
    gone.extend(others.map(|(id, topic)| TopicEntry::new(topic, *id)));
    let is_gone = |state: &BrokerState, one: &TopicEntry| {
        // A change that is being applied closes the partitions before the image is another one.
        let is_known = state.image().topic_by_id(one.topic_id).is_some();
        let is_deleted = !is_known || state.partitions().is_deleted(one.topic_id);
        !busy.contains(&one.topic_id) && is_deleted
    };
    gone.retain(|one| is_gone(state, one));
    if gone.is_empty() {
        return Ok(());
    }
    let barrier = AllocateProducerIds { broker: state.node_id(), epoch: state.broker_epoch() };
    state.submit(barrier, BARRIER_TIMEOUT_MS).await??;
    gone.retain(|one| is_gone(state, one));
    let storage = Arc::clone(state.partitions().storage());
    let here = blocking(&state.env().threads, move || storage.topic_ids()).await?;
    if let Some(one) = gone.iter().find(|one| here.contains(&one.topic_id)) {
        let context = format!(
            "the cluster does not know the topic {} ({}), but its log is in the data directory: restore the metadata, or, if it was \
             deleted, remove the directories of its partitions",
            one.topic, one.topic_id
        );
        return Err(Error::kafka(ErrorCode::UnknownTopicId, context));
    }
    for one in gone {
        // Whoever reads the table is told first.
        close_deleted(store, &one.topic, one.topic_id, state.env().clock.now()).await;
        let files = delete_files(state, &**store, &one).await?;
        forget_topic(&**store, one.topic_id).await?;
        tracing::info!(topic = one.topic, topic_id = %one.topic_id, files, "removed a deleted topic from the tier");
    }
    Ok(())
}

async fn delete_files(state: &BrokerState, store: &dyn Store, gone: &TopicEntry) -> Result<usize> {
    let own = tag(gone.topic_id);
    if state.image().topics().any(|topic| *topic.name == *gone.topic && tag(topic.id) == own) {
        tracing::error!(
            topic = gone.topic,
            "files of a deleted topic look like those of the one that came after, and are left"
        );
        return Ok(0);
    }
    let mut count = 0;
    for object in store.list(&format!("topic={}", gone.topic)).await? {
        let name = object.path.rsplit('/').next().unwrap_or_default();
        if is_of(name, &own) {
            store.delete(&object.path).await?;
            count += 1;
        }
    }
    Ok(count)
}
