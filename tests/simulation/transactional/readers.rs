//! Readers of what is committed, and of everything.

use std::collections::BTreeMap;
use std::time::Duration;

use ottla::client::{Client, ConsumerConfig, IsolationLevel, PollOptions, StartAt};
use ottla::error::Error;
use ottla::types::TopicPartition;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{decode, partitions, rows};
use crate::broker::clients::{Connected, PATIENCE, Peer, is_at};
use crate::history::Event;

/// Small answers, so that transactions are read in pieces.
const ANSWER_BYTES: usize = 1500;

/// How far somebody reads.
#[derive(Clone)]
pub(super) enum Until {
    Told(CancellationToken),
    End,
}

/// The offset behind the last record of each partition.
pub(super) type Behind = BTreeMap<TopicPartition, i64>;

pub(super) fn config(isolation_level: IsolationLevel) -> ConsumerConfig {
    ConsumerConfig { isolation_level, partition_bytes_max: ANSWER_BYTES, ..Default::default() }
}

impl Peer {
    /// Reads all partitions from the start.
    pub(super) async fn read(self, isolation: IsolationLevel, until: Until) {
        self.reads_as(&self.name, isolation);
        loop {
            let Connected { client, ended } = self.connect().await;
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                result = self.read_with(&client, isolation, &until) => match result {
                    Ok(_) => return,
                    Err(error) if self.is_stopping(&error) => ended.cancelled().await,
                    Err(error) => return self.complain(&error.chain()),
                },
            }
        }
    }

    /// Reads everything once, and returns how far that is.
    pub(super) async fn drain(self, isolation: IsolationLevel) -> Behind {
        self.reads_as(&self.name, isolation);
        let Connected { client, .. } = self.connect().await;
        match self.read_with(&client, isolation, &Until::End).await {
            Ok(behind) => behind,
            Err(error) => {
                self.complain(&error.chain());
                Behind::new()
            }
        }
    }

    pub(super) fn reads_as(&self, process: &str, isolation: IsolationLevel) {
        if isolation == IsolationLevel::ReadCommitted {
            self.note(Event::ReadsCommitted { process: process.to_owned() });
        }
    }

    async fn read_with(
        &self,
        client: &Client,
        isolation: IsolationLevel,
        until: &Until,
    ) -> Result<Behind, Error> {
        let mut consumer = client.consumer_with(config(isolation), decode())?;
        let starts: Vec<_> = partitions().map(|one| (one, StartAt::Earliest)).collect();
        while let Err(error) = consumer.assign(&starts).await {
            if !error.retriable() {
                return Err(error);
            }
            self.rest(100).await;
        }
        for partition in partitions() {
            let (process, partition) = (self.name.clone(), partition.to_string());
            self.note(Event::Assign { process, partition });
        }
        let deadline = Instant::now() + PATIENCE;
        let ends = match until {
            Until::Told(_) => None,
            Until::End => Some(self.ends_of(&consumer).await),
        };
        let wait = PollOptions { max_wait: Duration::from_millis(500), fill: false };
        let mut behind = Behind::new();
        loop {
            match consumer.poll(wait).await {
                Ok(Some(decoded)) => {
                    for row in rows(&decoded.rows) {
                        behind.insert(row.partition.clone(), row.offset + 1);
                        self.note(Event::Poll {
                            process: self.name.clone(),
                            partition: row.partition.to_string(),
                            offset: row.offset,
                            value: row.value,
                        });
                    }
                }
                Ok(None) => {}
                Err(error) if error.retriable() => {}
                Err(error) => return Err(error),
            }
            if matches!(until, Until::Told(stop) if stop.is_cancelled()) {
                return Ok(behind);
            }
            let Some(ends) = &ends else { continue };
            if is_at(&mut consumer, ends).await {
                for partition in ends.keys() {
                    let (process, partition) = (self.name.clone(), partition.to_string());
                    self.note(Event::Drained { process, partition });
                }
                return Ok(behind);
            }
            if Instant::now() >= deadline {
                return Err(Error::timeout("draining the log", PATIENCE));
            }
        }
    }
}
