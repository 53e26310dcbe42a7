//! Transactions as a kind of coordinator: what [`super::Runtime`](super::runtime::Runtime) must know about
//! [`crate::machine::transaction`].

mod markers;
mod records;
mod settings;

use std::sync::Arc;

use bytes::Bytes;

use super::kind::{KeyAndValue, Kind};
use super::runtime::ShardHandle;
use crate::broker::change::Change;
use crate::broker::connection::BoxFuture;
use crate::error::Result;
use crate::machine::transaction::{
    TransactionConfig, TransactionNews, TransactionRecord, TransactionRequest, TransactionShard,
};

pub(in crate::broker) use self::markers::MarkerSender;
pub(in crate::broker) use self::settings::transactions_topic;

/// The topic that holds the transactional ids.
pub(in crate::broker) const TRANSACTIONS_TOPIC: &str = "__transaction_state";

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Transactions;

impl Kind for Transactions {
    const TOPIC: &'static str = TRANSACTIONS_TOPIC;
    const WHAT: &'static str = "transactions";

    type Machine = TransactionShard;
    /// The settings; none before the first change.
    type World = Option<Arc<TransactionConfig>>;
    type Attendant = Arc<MarkerSender>;

    fn machine(seed: u64) -> TransactionShard {
        TransactionShard::new(settings::UNKNOWN, seed)
    }

    fn look(world: &mut Self::World, change: &Change<'_>) -> bool {
        if !change.has_new_config && world.is_some() && !settings::has_new_version(world, change) {
            return false;
        }
        let config = settings::transaction_config(change.config, change.image);
        let has_changed = world.as_deref() != Some(&config);
        *world = Some(Arc::new(config));
        has_changed
    }

    fn news(before: Option<&Self::World>, now: &Self::World) -> Vec<TransactionNews> {
        let is_known = before.is_some_and(|before| before == now);
        let config = now.iter().filter(|_| !is_known);
        config.map(|config| TransactionNews::Config(Arc::clone(config))).collect()
    }

    fn attend(sender: &Arc<MarkerSender>, shard: ShardHandle<Self>) -> Option<BoxFuture<()>> {
        Some(Box::pin(markers::attend(Arc::clone(sender), shard)))
    }

    fn encode(record: &TransactionRecord) -> Result<KeyAndValue> {
        records::encode(record)
    }

    fn decode(key: Bytes, value: Option<Bytes>) -> Result<Option<TransactionRecord>> {
        records::decode(key, value)
    }

    /// What most often finds everything as it is: partitions that belong to the transaction already.
    fn report(request: &TransactionRequest) -> Option<&Arc<str>> {
        match request {
            TransactionRequest::Add(asked) | TransactionRequest::Verify(asked) => {
                Some(&asked.transactional_id)
            }
            _ => None,
        }
    }

    fn subject(record: &TransactionRecord) -> Option<&Arc<str>> {
        Some(&record.transactional_id)
    }

    fn subjects<'a>(request: &'a TransactionRequest, mut each: impl FnMut(&'a Arc<str>)) {
        match request {
            TransactionRequest::Init(asked) => each(&asked.transactional_id),
            TransactionRequest::Add(asked) | TransactionRequest::Verify(asked) => {
                each(&asked.transactional_id);
            }
            TransactionRequest::End(asked) => each(&asked.transactional_id),
            TransactionRequest::MarkersAnswered(answers) => {
                answers.iter().for_each(|answer| each(&answer.transactional_id));
            }
            TransactionRequest::Describe { .. }
            | TransactionRequest::List(_)
            | TransactionRequest::TakeMarkers => {}
        }
    }
}
