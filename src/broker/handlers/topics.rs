//! The one lookup of topics: by name or by id, and of their partitions that are led here.
//!
//! Why: whether a topic exists for a request, and how it is said that it does not, is decided here
//! and nowhere else. It is also the place where an authorizer will hide topics from those who may not
//! see them; then `find` will be told what they want to do, which nobody would look at yet.
//!
//! Topics that the controller is to change are looked up there instead: here one could be missing that was
//! created on another node a moment ago.

use std::sync::Arc;

use crate::broker::dispatch::Call;
use crate::broker::partition::Partition;
use crate::broker::state::BrokerState;
use crate::error::{Error, ErrorCode, Result};
use crate::machine::controller::check_topic_name;
use crate::machine::fetch_session::FetchTopicKey;
use crate::machine::metadata::{MetadataImage, TopicImage};
use crate::types::{PartitionIndex, TopicId};

/// What a request calls a topic.
#[derive(Clone, Copy)]
pub(super) enum TopicKey<'a> {
    /// By name.
    Name(&'a str),
    /// By id (KIP-516).
    Id(TopicId),
}

impl<'a> TopicKey<'a> {
    /// By name or, from the version on that has ids, by id.
    pub(super) const fn of(name: &'a str, id: TopicId, by_id: bool) -> Self {
        if by_id { Self::Id(id) } else { Self::Name(name) }
    }
}

impl<'a> From<&'a FetchTopicKey> for TopicKey<'a> {
    fn from(key: &'a FetchTopicKey) -> Self {
        match key {
            FetchTopicKey::Id(id) => Self::Id(*id),
            FetchTopicKey::Name(name) => Self::Name(name),
        }
    }
}

/// The topics that exist for one request: those of one image, whatever is published meanwhile.
pub(super) struct Topics {
    state: Arc<BrokerState>,
    image: Arc<MetadataImage>,
}

impl Topics {
    pub(super) fn of(call: &Call<'_>) -> Self {
        Self { state: Arc::clone(call.state), image: call.state.image() }
    }

    /// Those that exist by now, for an answer that had to wait.
    pub(super) fn as_of_now(&self) -> Self {
        Self { state: Arc::clone(&self.state), image: self.state.image() }
    }

    /// The image that they are in.
    pub(super) fn image(&self) -> &Arc<MetadataImage> {
        &self.image
    }

    /// All of them, by name.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.image.topics()
    }

    /// A topic.
    ///
    /// # Errors
    ///
    /// `UNKNOWN_TOPIC_OR_PARTITION` or, by id, `UNKNOWN_TOPIC_ID`.
    pub(super) fn find(&self, key: TopicKey<'_>) -> Result<&Arc<TopicImage>> {
        let found = match key {
            TopicKey::Id(id) => self.image.topic_by_id(id),
            TopicKey::Name(name) => self.image.topic(name),
        };
        found.ok_or_else(|| unknown(key))
    }

    /// A topic whose partitions are here; not one that is being deleted, although the image still has it.
    fn find_open(&self, key: TopicKey<'_>) -> Result<&Arc<TopicImage>> {
        let found = self.find(key)?;
        if self.state.partitions().is_deleted(found.id) { Err(unknown(key)) } else { Ok(found) }
    }

    /// A topic by its name, for answers that tell a name without a topic from one that no topic can
    /// have.
    ///
    /// # Errors
    ///
    /// As [`Self::find`]; `INVALID_TOPIC_EXCEPTION`.
    pub(super) fn find_valid(&self, name: &str) -> Result<&Arc<TopicImage>> {
        let found = self.find(TopicKey::Name(name));
        if found.is_err() {
            check_topic_name(name)?;
        }
        found
    }

    /// A partition that this broker leads.
    ///
    /// # Errors
    ///
    /// As [`Self::find`], and those of [`Partitions::leader`](crate::broker::partitions::Partitions).
    pub(super) fn leader(
        &self,
        key: TopicKey<'_>,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>> {
        self.state.partitions().leader(self.find_open(key)?, index)
    }

    /// A partition that this broker leads, or copies from its leader.
    ///
    /// # Errors
    ///
    /// As [`Self::leader`].
    pub(super) fn replica(
        &self,
        key: TopicKey<'_>,
        index: PartitionIndex,
    ) -> Result<Arc<Partition>> {
        self.state.partitions().replica(self.find_open(key)?, index)
    }
}

fn unknown(key: TopicKey<'_>) -> Error {
    match key {
        TopicKey::Id(id) => {
            Error::kafka(ErrorCode::UnknownTopicId, format!("there is no topic with id {id}"))
        }
        TopicKey::Name(name) => {
            let context = format!("topic {name:?} does not exist");
            Error::kafka(ErrorCode::UnknownTopicOrPartition, context)
        }
    }
}
