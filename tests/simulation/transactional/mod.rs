//! Transactions on whole nodes: producers that are killed, fenced and timed out, readers of both kinds, and a group that copies
//! one topic into another exactly once, on a node that is alone ([`alone`]) and on three or five ([`together`]).
//!
//! ```text
//! writers, their twins ─► orders ──► copiers (a group, offsets in the transaction) ─► copies
//!                           │                                                            │
//!        readers of what is committed, readers of everything, an observer of last stable offsets
//!                           │
//!                        History ──► checker: a view for each kind of reader, and what only transactions do wrong
//! ```
//!
//! The faults are those of `broker` and of `cluster`. A quarter of the seeds speak version 1 of transactions, a quarter begins with
//! it and goes on with version 2.

mod alone;
mod copiers;
mod planted;
mod readers;
mod regained;
mod stable;
mod together;
mod writers;

use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use ottla::client::IsolationLevel;
use ottla::columnar::DecodeOptions;
use ottla::env::sim::{SimRandom, SimRun};
use ottla::protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use ottla::types::TopicPartition;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::broker::clients::{PARTITIONS, Peer, Plan, Shared, TOPIC};
use crate::broker::frames::Wire;
use crate::broker::node::Serving;
use copiers::Copying;
use readers::Until;

/// The topic that the group copies into.
pub(super) const COPIES: &str = "copies";
/// How long transactions may take to come to an end after everybody has stopped, and all is well.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take until a transaction is committed after the last fault.
const COMMITS_WITHIN: Duration = Duration::from_secs(20);

/// Everything that is written.
fn partitions() -> impl Iterator<Item = TopicPartition> {
    let of = |topic: &'static str| (0..PARTITIONS).map(move |one| TopicPartition::new(topic, one));
    of(TOPIC).chain(of(COPIES))
}

fn decode() -> DecodeOptions {
    let columns = ["topic", "partition", "offset", "value"].map(str::to_owned);
    DecodeOptions { columns: Some(columns.to_vec()), views: false, ..DecodeOptions::default() }
}

/// A record that was read.
#[derive(Clone, Debug)]
struct Row {
    partition: TopicPartition,
    offset: i64,
    value: String,
}

fn rows(batch: &RecordBatch) -> Vec<Row> {
    let topics = batch["topic"].as_dictionary::<Int32Type>();
    let names = topics.values().as_string::<i32>();
    let partitions = batch["partition"].as_primitive::<Int32Type>();
    let offsets = batch["offset"].as_primitive::<Int64Type>();
    let values = batch["value"].as_binary::<i32>();
    let row = |at: usize| {
        assert!(values.is_valid(at));
        let topic = names.value(topics.keys().value(at) as usize);
        Row {
            partition: TopicPartition::new(topic, partitions.value(at)),
            offset: offsets.value(at),
            value: String::from_utf8_lossy(values.value(at)).into_owned(),
        }
    };
    (0..batch.num_rows()).map(row).collect()
}

/// Which version of transactions a run speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Versions {
    One,
    OneThenTwo,
    Two,
}

impl Versions {
    fn of(seed: u64) -> Self {
        match SimRandom::stream(seed, "transaction.version").below(4) {
            0 => Self::One,
            1 => Self::OneThenTwo,
            _ => Self::Two,
        }
    }
}

/// Where it happens.
struct Stage<'a> {
    run: &'a SimRun,
    plan: Plan,
    servings: Vec<Serving>,
    witness: &'a Shared,
    admin: Peer,
    /// How many transactions a writer begins.
    transactions: usize,
}

/// Who takes part.
struct Cast {
    writing: Vec<JoinHandle<()>>,
    copying: Vec<JoinHandle<()>>,
    watching: Vec<JoinHandle<()>>,
    copied: Copying,
    stop: CancellationToken,
}

impl<'a> Stage<'a> {
    /// Creates the topics.
    async fn set(
        run: &'a SimRun,
        plan: Plan,
        servings: Vec<Serving>,
        witness: &'a Shared,
        transactions: usize,
    ) -> Self {
        let admin = Peer::new(run, &plan, 0, witness);
        if Versions::of(run.seed) != Versions::Two {
            assert!(admin.set_version(1).await, "version 1 is refused");
        }
        for topic in [TOPIC, COPIES] {
            admin.create_topic(topic).await.unwrap();
        }
        Self { run, plan, servings, witness, admin, transactions }
    }

    fn peer(&self, index: u8) -> Peer {
        Peer::new(self.run, &self.plan, index, self.witness)
    }

    /// In the process of one of the nodes.
    fn inside(&self, index: u8) -> Peer {
        let serving = &self.servings[index as usize % self.servings.len()];
        Peer::inside((self.run, &self.plan), index, serving, self.witness)
    }

    fn begin(&self) -> Cast {
        use IsolationLevel::{ReadCommitted, ReadUncommitted};
        let (stop, copied) = (CancellationToken::new(), Copying::new(self.run.seed));
        let count = self.transactions;
        let mut writing = vec![
            tokio::spawn(self.peer(1).write_transactions("w1", count)),
            tokio::spawn(self.peer(2).write_transactions("w2", count)),
            tokio::spawn(self.inside(1).write_transactions("w3", count)),
            // It takes the id over, and loses it again.
            tokio::spawn(self.peer(3).write_transactions("w1", count / 4)),
            tokio::spawn(self.peer(4).produce()),
        ];
        if Versions::of(self.run.seed) == Versions::OneThenTwo {
            writing.push(tokio::spawn(self.peer(10).raise_version()));
        }
        let readers = [
            (self.peer(5), ReadCommitted),
            (self.inside(2), ReadCommitted),
            (self.peer(6), ReadUncommitted),
        ];
        let reading = readers
            .map(|(peer, isolation)| tokio::spawn(peer.read(isolation, Until::Told(stop.clone()))));
        let mut watching = Vec::from(reading);
        watching.push(tokio::spawn(self.peer(9).observe(stop.clone())));
        let copiers = [self.peer(7), self.peer(8), self.inside(3)];
        let copying = copiers.map(|peer| tokio::spawn(peer.copy(copied.clone())));
        Cast { writing, copying: copying.into(), watching, copied, stop }
    }

    /// Everybody comes to an end, and what there is then is read.
    async fn end(&self, cast: Cast, healed: Instant) -> Result<(), JoinError> {
        use IsolationLevel::{ReadCommitted, ReadUncommitted};
        tokio::spawn(self.peer(11).show_that_it_commits(healed)).await?;
        for task in cast.writing {
            task.await?;
        }
        if !self.admin.await_settled(SETTLED_WITHIN).await {
            // Nobody would come to an end.
            return Ok(());
        }
        let read = self.peer(12).drain(ReadCommitted).await;
        cast.copied.settle(&self.admin, &read).await;
        for task in cast.copying {
            task.await?;
        }
        self.admin.await_settled(SETTLED_WITHIN).await;
        cast.stop.cancel();
        for task in cast.watching {
            task.await?;
        }
        tokio::spawn(self.peer(13).read(ReadCommitted, Until::End)).await?;
        tokio::spawn(self.inside(4).read(ReadCommitted, Until::End)).await?;
        tokio::spawn(self.peer(14).read(ReadUncommitted, Until::End)).await
    }

    /// As [`Self::end`], within a bounded time.
    async fn end_within(&self, limit: Duration, cast: Cast, healed: Instant) {
        let copied = cast.copied.clone();
        match tokio::time::timeout(limit, self.end(cast, healed)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.admin.complain(&format!("a client panicked: {error}")),
            Err(_) => {
                let left = self.admin.unsettled().await;
                let what =
                    format!("the clients do not come to an end; {}; {left:?}", copied.describe());
                self.admin.complain(&what);
            }
        }
    }
}

impl Peer {
    /// Has the cluster agree on a version of transactions; whether it did.
    async fn set_version(&self, version: i16) -> bool {
        const SAFE_DOWNGRADE: i8 = 2;
        const UPGRADE: i8 = 1;
        let update = FeatureUpdateKey {
            feature: "transaction.version".into(),
            max_version_level: version,
            upgrade_type: if version == 1 { SAFE_DOWNGRADE } else { UPGRADE },
            ..FeatureUpdateKey::default()
        };
        let request = UpdateFeaturesRequest { feature_updates: vec![update], ..Default::default() };
        let server = &self.plan.servers[self.random.below(self.plan.servers.len() as u64) as usize];
        let Some(mut wire) = Wire::connect(&self.own_env(), server).await else { return false };
        let call = tokio::time::timeout(Duration::from_secs(5), wire.call(1, request));
        let Ok(Some(answer)) = call.await else { return false };
        let results = answer.results.iter().map(|result| result.error_code);
        answer.error_code == 0 && results.max().unwrap_or(0) == 0
    }

    /// Goes on to version 2 in the middle of it.
    async fn raise_version(self) {
        self.rest(10_000).await;
        while !self.set_version(2).await {
            self.rest(1000).await;
        }
    }
}
