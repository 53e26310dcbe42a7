//! Producers of transactions: most are committed, some are aborted, given up, or last too long.

use std::time::Duration;

use bytes::Bytes;
use ottla::client::producer::Delivery;
use ottla::client::{Client, ProducerConfig, ProducerRecord, TransactionalProducer};
use ottla::error::{Error, ErrorCode};
use ottla::types::TopicPartition;
use tokio::time::Instant;

use super::{COMMITS_WITHIN, partitions};
use crate::broker::clients::{Connected, Peer};
use crate::history::{Event, Origin};

/// The longest pause before a transaction.
const PAUSE_MS: u64 = 700;

/// What a producer is told that nobody has taken over from, or that did not last too long.
fn is_usual(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::ProducerFenced | ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidTxnState
    )
}

/// How the end of a transaction was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Committed,
    Aborted,
    Unknown,
}

/// An open transaction.
pub(super) struct Writing<'a> {
    peer: &'a Peer,
    process: String,
    name: String,
    producer: &'a TransactionalProducer,
    deliveries: Vec<(TopicPartition, String, Delivery)>,
}

impl<'a> Writing<'a> {
    pub(super) fn begin(
        peer: &'a Peer,
        process: &str,
        name: String,
        producer: &'a TransactionalProducer,
    ) -> Self {
        let (process, deliveries) = (process.to_owned(), Vec::new());
        let transaction = name.clone();
        peer.note(Event::Begin { process: process.clone(), transaction });
        Self { peer, process, name, producer, deliveries }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends a value; whether the transaction takes it.
    pub(super) async fn write(
        &mut self,
        partition: TopicPartition,
        value: String,
        of: Option<Origin>,
    ) -> bool {
        self.peer.note(Event::Write {
            process: self.process.clone(),
            transaction: self.name.clone(),
            partition: partition.to_string(),
            value: value.clone(),
            of,
        });
        let record = ProducerRecord {
            partition: Some(partition.partition),
            ..ProducerRecord::new(&*partition.topic, Bytes::from(value.clone()))
        };
        match self.producer.producer().send(record).await {
            Ok(delivery) => self.deliveries.push((partition, value, delivery)),
            Err(_) => return false,
        }
        true
    }

    /// Waits for what was sent.
    pub(super) async fn delivered(&mut self) {
        for (partition, value, delivery) in std::mem::take(&mut self.deliveries) {
            if let Ok(told) = delivery.wait().await {
                let (process, transaction) = (self.process.clone(), self.name.clone());
                let (partition, offset) = (partition.to_string(), told.offset.0);
                self.peer.check_promise(&partition, &value, offset);
                self.peer.note(Event::Wrote { process, transaction, partition, value, offset });
            }
        }
    }

    fn decided(&self, committed: bool) {
        self.peer.note(Event::Decided { transaction: self.name.clone(), committed });
    }

    pub(super) async fn abort(mut self) -> Told {
        self.peer.note(Event::End { transaction: self.name.clone(), commits: false });
        let told = self.producer.abort().await;
        if told.is_ok() {
            self.decided(false);
        }
        self.look_at(told);
        self.delivered().await;
        // Nobody asked to commit it.
        Told::Aborted
    }

    pub(super) async fn commit(mut self) -> Told {
        self.peer.note(Event::End { transaction: self.name.clone(), commits: true });
        let told = self.producer.commit().await;
        let came_to = match &told {
            Ok(()) => Told::Committed,
            Err(error) if error.code() == ErrorCode::TransactionAbortable => Told::Aborted,
            Err(_) => Told::Unknown,
        };
        match came_to {
            Told::Committed => self.decided(true),
            Told::Aborted => {
                self.decided(false);
                let told = self.producer.abort().await;
                self.look_at(told);
            }
            Told::Unknown => self.look_at(told),
        }
        self.delivered().await;
        came_to
    }

    /// There are few reasons for which a producer has to stop.
    fn look_at(&self, told: Result<(), Error>) {
        if let Err(error) = told
            && self.producer.is_over()
            && !is_usual(error.code())
        {
            self.peer.complain(&format!("{} cannot go on: {}", self.name, error.chain()));
        }
    }
}

/// What becomes of a producer after a transaction.
#[derive(PartialEq, Eq)]
enum Then {
    GoesOn,
    /// There will be another one with its id.
    IsGone,
}

impl Peer {
    /// Begins so many transactions, with one producer after the other.
    pub(super) async fn write_transactions(self, id: &'static str, transactions: usize) {
        let mut begun = 0;
        while begun < transactions {
            let Connected { client, ended } = self.connect().await;
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = self.write_some(&client, id, &mut begun, transactions) => {}
            }
        }
    }

    /// The settings of a producer of transactions; how long a transaction may last is drawn.
    pub(super) fn transactional_config(&self, client: &Client) -> ProducerConfig {
        let ms = |min, max| Duration::from_millis(min + self.random.below(max - min));
        ProducerConfig {
            transaction_timeout: ms(2500, 6000),
            block_max: ms(2000, 12_000),
            ..client.config().producer.clone()
        }
    }

    async fn write_some(&self, client: &Client, id: &str, begun: &mut usize, transactions: usize) {
        let config = self.transactional_config(client);
        let producer = client.transactional(id, &config).unwrap();
        while *begun < transactions {
            self.rest(PAUSE_MS).await;
            match producer.begin().await {
                Ok(()) => {}
                Err(_) if producer.is_over() => return,
                Err(_) => continue,
            }
            let name = format!("{}/{begun}", self.name);
            *begun += 1;
            let then = self.write_one(name, &producer, config.transaction_timeout).await;
            if then == Then::IsGone {
                return;
            }
        }
    }

    async fn write_one(
        &self,
        name: String,
        producer: &TransactionalProducer,
        timeout: Duration,
    ) -> Then {
        let all: Vec<TopicPartition> = partitions().collect();
        let mut writing = Writing::begin(self, &self.name, name, producer);
        for count in 0..=self.random.below(5) {
            if self.random.one_in(3) {
                self.rest(400).await;
            }
            let partition = &all[self.random.below(all.len() as u64) as usize];
            let filling = "x".repeat(self.random.below(200) as usize);
            let value = format!("{}.{count}-{filling}", writing.name());
            if !writing.write(partition.clone(), value, None).await {
                break;
            }
        }
        let mut waits = self.random.one_in(2);
        match self.random.below(13) {
            0 | 1 => {
                if waits {
                    writing.delivered().await;
                }
                writing.abort().await;
                return if producer.is_over() { Then::IsGone } else { Then::GoesOn };
            }
            2 => {
                self.kill();
                return Then::IsGone;
            }
            3 => return Then::IsGone,
            4 => {
                // Longer than it may last.
                writing.delivered().await;
                waits = false;
                tokio::time::sleep(timeout).await;
                self.rest(1500).await;
            }
            _ => {}
        }
        if waits {
            writing.delivered().await;
        }
        writing.commit().await;
        if producer.is_over() { Then::IsGone } else { Then::GoesOn }
    }

    /// A transaction in every partition is committed within a bounded time.
    pub(super) async fn show_that_it_commits(self, healed: Instant) {
        let Connected { client, .. } = self.connect().await;
        let config = self.transactional_config(&client);
        for attempt in 0_u32.. {
            let producer = client.transactional("last", &config).unwrap();
            if producer.begin().await.is_ok() {
                let name = format!("{}/{attempt}", self.name);
                let mut writing = Writing::begin(&self, &self.name, name, &producer);
                for (count, partition) in partitions().enumerate() {
                    let value = format!("{}.{count}-", writing.name());
                    if !writing.write(partition, value, None).await {
                        break;
                    }
                }
                if writing.commit().await == Told::Committed {
                    break;
                }
            }
            if healed.elapsed() > COMMITS_WITHIN * 3 {
                break;
            }
        }
        let took = healed.elapsed();
        if took > COMMITS_WITHIN {
            self.complain(&format!(
                "a transaction was committed only {took:?} after the last fault"
            ));
        }
    }
}
