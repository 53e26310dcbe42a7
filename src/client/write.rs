//! Writing tables: Arrow rows in, acknowledged offsets out.
//!
//! ```text
//! rows ──► blocks: values made, in the pool ──► batches filled, in order ──► compressed, in the pool ──► sent
//! ```
//!
//! Values are made, and batches compressed, by a [`WorkerPool`] while the batches before them are on their way;
//! the caller's thread puts records into batches, in the order of the rows, so what is written does not
//! depend on the number of threads. A few blocks and batches may be ahead, and the producer's memory
//! bounds what was sent and is not acknowledged. [`write`] returns when every row is acknowledged, or with
//! the first failure. After a failure nothing more is sent, and [`TableWriter::abandon`] says what was
//! acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::client::admin::{Admin, Resource};
use crate::client::producer::{BatchAck, BatchDelivery, EncodedBatch, Producer};
use crate::client::worker_pool::{self, Promise, WorkerPool};
use crate::columnar::{self, Encoder, Prepared, Tombstones, WriteOptions};
use crate::error::{Error, Result};
use crate::machine::client::bounds::Range;
use crate::machine::client::partitioner::partition_for_key;
use crate::types::{Offset, PartitionIndex, TimestampMs, TopicPartition};

/// Rows without a key change their partition after so many; where records have many rows, each of them
/// changes it.
const SLICE_ROWS: usize = 16 * 1024;
/// The values of so many rows are made at once.
const BLOCK_ROWS: usize = SLICE_ROWS / 4;

/// What was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteReport {
    /// The rows that were acknowledged.
    pub rows: u64,
    /// The bytes of their batches.
    pub bytes: u64,
    /// The number of batches.
    pub batches: u64,
    /// The offsets per partition, from the first to behind the last; other producers' records may
    /// lie between them. Empty with `acks=0`.
    pub offsets: BTreeMap<PartitionIndex, Range>,
    /// That rows are older than the topic keeps them.
    pub expired: Option<Expired>,
}

/// Rows that are older than their topic keeps rows: they are deleted soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The time of the oldest row.
    pub oldest: TimestampMs,
    /// The topic's `retention.ms`.
    pub retention_ms: i64,
}

impl Expired {
    /// What a user should know; `remedy` is how to keep the records, in the words of the interface.
    #[must_use]
    pub fn text(&self, topic: &str, remedy: &str) -> String {
        let oldest = chrono::DateTime::from_timestamp_millis(self.oldest.0).map_or_else(
            || format!("{} ms", self.oldest.0),
            |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string(),
        );
        format!(
            "topic {topic} deletes records older than retention.ms={} ({}), counted from their \
             timestamps, and the oldest record written has {oldest}: {remedy}",
            self.retention_ms,
            duration(self.retention_ms)
        )
    }
}

/// Writes tables to one topic, piece by piece.
#[derive(Debug)]
pub struct TableWriter {
    producer: Arc<Producer>,
    topic: Arc<str>,
    partition_count: i32,
    pool: WorkerPool,
    /// Once the schema of the values is settled, with the first rows.
    encoder: Option<(Encoder, Arc<WriteOptions>)>,
    /// Until then.
    options: Option<WriteOptions>,
    /// Which partition rows without a key go to.
    turn: u64,
    /// Blocks whose values are being made.
    preparing: VecDeque<Block>,
    /// Batches that are being compressed.
    sealing: VecDeque<Promise<Result<columnar::EncodedBatch>>>,
    pending: VecDeque<(BatchDelivery, usize)>,
    report: WriteReport,
    /// How long the topic keeps records, if it deletes any by their time.
    retention_ms: Option<i64>,
}

/// A block of rows whose values are being made.
#[derive(Debug)]
struct Block {
    prepared: Promise<Prepared>,
    /// When the rows came.
    now: TimestampMs,
    /// Whether rows without a key change their partition before it.
    turns: bool,
}

impl TableWriter {
    /// Prepares writing. Partition count and compression in `options` are replaced by those of the
    /// topic and the producer, and batches are kept below the topic's `max.message.bytes`.
    ///
    /// # Errors
    ///
    /// The topic does not exist, or the options do not fit it.
    pub async fn start(
        producer: Arc<Producer>,
        topic: &str,
        options: WriteOptions,
    ) -> Result<Self> {
        let info = producer.topic(topic).await?;
        let settings = topic_settings(&producer, topic).await;
        let number = |name: &str| settings.get(name).and_then(|value| value.parse::<i64>().ok());
        let batch_size = match number("max.message.bytes").and_then(|size| size.try_into().ok()) {
            Some(size) => options.batch_size.min(size),
            None => options.batch_size,
        };
        let is = |name: &str, word: &str| {
            settings.get(name).is_some_and(|value| value.split(',').any(|one| one.trim() == word))
        };
        let retention_ms = number("retention.ms").filter(|&ms| {
            ms >= 0
                && is("cleanup.policy", "delete")
                && !is("message.timestamp.type", "LogAppendTime")
        });
        let options = WriteOptions {
            partition_count: info.partition_count(),
            compression: producer.config().compression,
            compression_level: producer.config().compression_level,
            batch_size,
            ..options
        };
        let threads = worker_pool::threads(
            &producer.cluster().env.threads,
            producer.cluster().config.threads,
        );
        Ok(Self {
            topic: Arc::clone(&info.name),
            partition_count: info.partition_count(),
            pool: WorkerPool::beside(&producer.cluster().env.threads, threads),
            encoder: None,
            options: Some(options),
            turn: producer.random(),
            producer,
            preparing: VecDeque::new(),
            sealing: VecDeque::new(),
            pending: VecDeque::new(),
            report: WriteReport::default(),
            retention_ms,
        })
    }

    /// Accepts rows; waits for memory, not for acknowledgements.
    ///
    /// # Errors
    ///
    /// A column of these rows or of those before does not fit, or a batch before failed. What was
    /// written before stays written.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.write_records(rows, &Tombstones::NONE).await
    }

    /// As [`Self::write`], for rows that were read from a topic: tombstones stay tombstones.
    ///
    /// # Errors
    ///
    /// As [`Self::write`].
    pub async fn write_records(
        &mut self,
        rows: &RecordBatch,
        tombstones: &Tombstones,
    ) -> Result<()> {
        self.settle(rows).await?;
        let many = self.encoder.as_ref().is_some_and(|(encoder, _)| encoder.has_many_rows());
        // Records of many rows are assembled in row order; little can be prepared in parallel.
        let block_rows = if many { SLICE_ROWS } else { BLOCK_ROWS };
        for start in (0..rows.num_rows()).step_by(block_rows) {
            self.encode(self.ahead_max()).await?;
            let Some((_, options)) = &self.encoder else {
                return Err(Error::Closed { what: "the writer" });
            };
            let length = block_rows.min(rows.num_rows() - start);
            let (block, options) = (rows.slice(start, length), Arc::clone(options));
            let tombstones = tombstones.slice(start, length);
            let prepared = self.pool.promise(move || Prepared::new(&block, &tombstones, &options));
            let turns = start.is_multiple_of(SLICE_ROWS);
            self.preparing.push_back(Block { prepared, now: self.producer.wall_clock(), turns });
        }
        self.collect_done().await
    }

    /// How many blocks, and how many batches, may be in the hands of the pool.
    fn ahead_max(&self) -> usize {
        self.pool.threads().saturating_mul(2)
    }

    /// Finds or registers the schema of the values.
    async fn settle(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(mut options) = self.options.take() else { return Ok(()) };
        distinct(&rows.schema())?;
        if !options.value.is_settled() {
            let others: Vec<String> = options.other_columns().cloned().collect();
            let (topic, schema) = (Arc::clone(&self.topic), rows.schema());
            let value = options.value;
            let threads = &self.producer.cluster().env.threads;
            let settling = threads.spawn_blocking(move || value.settle(&topic, &schema, &others));
            options.value = settling.await.map_err(|error| {
                Error::invalid(format!("settling the schema of the values failed: {error}"))
            })??;
        }
        self.encoder = Some((Encoder::new(options.clone())?, Arc::new(options)));
        Ok(())
    }

    /// Puts blocks into batches until at most so many are left.
    async fn encode(&mut self, left: usize) -> Result<()> {
        while self.preparing.len() > left {
            if let Some(block) = self.preparing.front() {
                self.pool.ended(&block.prepared).await;
            }
            let (Some(block), Some((encoder, _))) = (self.preparing.pop_front(), &mut self.encoder)
            else {
                return Err(Error::Closed { what: "the writer" });
            };
            let prepared = block.prepared.take("encoding")?;
            let (partitions, turn) = (self.partition_count, &mut self.turn);
            let pushed = push(encoder, prepared, (block.now, block.turns), partitions, turn);
            for batch in encoder.take_full() {
                self.sealing.push_back(self.pool.promise(move || batch.seal()));
            }
            if pushed.is_err() {
                // The rows before stay written, however many threads there are.
                self.send_sealed(0).await?;
                return pushed;
            }
            self.send_sealed(self.ahead_max()).await?;
            self.collect_done().await?;
        }
        Ok(())
    }

    /// Sends batches, in order, until at most so many are left.
    async fn send_sealed(&mut self, left: usize) -> Result<()> {
        while self.sealing.len() > left {
            if let Some(sealing) = self.sealing.front() {
                self.pool.ended(sealing).await;
            }
            let Some(sealing) = self.sealing.pop_front() else { break };
            let batch = sealing.take("compressing")??;
            let partition = TopicPartition::new(Arc::clone(&self.topic), batch.partition);
            let bytes = batch.bytes.len();
            let batch = EncodedBatch::new(batch.bytes)?;
            let deliveries = self.producer.send_batches(&partition, vec![batch]).await?;
            self.pending.extend(deliveries.into_iter().map(|delivery| (delivery, bytes)));
        }
        Ok(())
    }

    /// Takes what is acknowledged already, so that a failure ends the writing early.
    async fn collect_done(&mut self) -> Result<()> {
        while self.pending.front().is_some_and(|(delivery, _)| delivery.is_done()) {
            self.collect_one().await?;
        }
        Ok(())
    }

    async fn collect_one(&mut self) -> Result<()> {
        // Removed only once it is settled, since an abandoned wait may be started again.
        let Some((delivery, bytes)) = self.pending.front().cloned() else { return Ok(()) };
        let settled = delivery.wait().await;
        self.pending.pop_front();
        self.report.add(&settled?, bytes);
        Ok(())
    }

    /// The rows that are acknowledged so far.
    #[must_use]
    pub const fn report(&self) -> &WriteReport {
        &self.report
    }

    /// Sends the rest and waits for all acknowledgements.
    ///
    /// # Errors
    ///
    /// The first batch that failed, with its partition.
    pub async fn finish(&mut self) -> Result<WriteReport> {
        self.encode(0).await?;
        if let Some((mut encoder, _)) = self.encoder.take() {
            self.report.expired = self.expired(encoder.oldest());
            for batch in encoder.finish_full()? {
                self.sealing.push_back(self.pool.promise(move || batch.seal()));
            }
        }
        self.send_sealed(0).await?;
        while !self.pending.is_empty() {
            self.collect_one().await?;
        }
        Ok(self.report.clone())
    }

    /// After a failure: sends no more, waits for what is on its way, and returns what was
    /// acknowledged. More may be written than that where a batch failed without an answer.
    ///
    /// With `is_patient` false it does not wait, and counts what is acknowledged by now.
    pub async fn abandon(&mut self, is_patient: bool) -> WriteReport {
        self.encoder = None;
        self.preparing.clear();
        self.sealing.clear();
        while self.pending.front().is_some_and(|(delivery, _)| is_patient || delivery.is_done()) {
            self.collect_one().await.ok();
        }
        self.report.clone()
    }

    fn expired(&self, oldest: Option<TimestampMs>) -> Option<Expired> {
        let (oldest, retention_ms) = (oldest?, self.retention_ms?);
        let age = self.producer.wall_clock().0.saturating_sub(oldest.0);
        (age > retention_ms).then_some(Expired { oldest, retention_ms })
    }
}

impl WriteReport {
    fn add(&mut self, ack: &BatchAck, bytes: usize) {
        self.rows += u64::from(ack.records.unsigned_abs());
        self.bytes += bytes as u64;
        self.batches += 1;
        if ack.base_offset >= Offset::ZERO {
            let start = ack.base_offset;
            let end = start.plus(i64::from(ack.records));
            let range = self.offsets.entry(ack.partition.partition).or_insert(Range { start, end });
            range.start = range.start.min(start);
            range.end = range.end.max(end);
        }
    }
}

/// Puts a block into batches.
fn push(
    encoder: &mut Encoder,
    prepared: Prepared,
    (now, turns): (TimestampMs, bool),
    partitions: i32,
    turn: &mut u64,
) -> Result<()> {
    let each_record = encoder.has_many_rows();
    if turns && !each_record {
        *turn = turn.wrapping_add(1);
    }
    encoder.push_prepared(prepared, now, |key, _| match key {
        Some(key) => partition_for_key(key, partitions),
        None => {
            if each_record {
                *turn = turn.wrapping_add(1);
            }
            let unkeyed = turn.checked_rem(u64::from(partitions.unsigned_abs())).unwrap_or(0);
            PartitionIndex(i32::try_from(unkeyed).unwrap_or(0))
        }
    })
}

/// The topic's settings, if the broker tells.
async fn topic_settings(producer: &Producer, topic: &str) -> BTreeMap<String, String> {
    let admin = Admin::new(producer.cluster());
    let described = admin.describe_configs(&[Resource::topic(topic)], false).await;
    let entries = described.ok().and_then(|all| all.into_iter().next()?.ok()).unwrap_or_default();
    entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?))).collect()
}

/// Refuses columns that share a name: a reader would find one of them.
fn distinct(schema: &Schema) -> Result<()> {
    let mut seen = BTreeSet::new();
    match schema.fields().iter().find(|field| !seen.insert(field.name())) {
        Some(field) => {
            Err(Error::invalid(format!("the table has two columns {:?}; rename one", field.name())))
        }
        None => Ok(()),
    }
}

/// A time in words: whole days where they are.
fn duration(ms: i64) -> String {
    const DAY: i64 = 86_400_000;
    match (ms / DAY, ms % DAY) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) if days > 0 => format!("{days} days"),
        _ => {
            let exact = std::time::Duration::from_millis(ms.unsigned_abs());
            humantime::format_duration(exact).to_string()
        }
    }
}

/// Writes a whole table and waits until all of it is acknowledged.
///
/// # Errors
///
/// A column does not fit, or a batch was not acknowledged.
pub async fn write(
    producer: Arc<Producer>,
    topic: &str,
    table: impl IntoIterator<Item = Result<RecordBatch>>,
    options: WriteOptions,
) -> Result<WriteReport> {
    let mut writer = TableWriter::start(producer, topic, options).await?;
    for rows in table {
        writer.write(&rows?).await?;
    }
    writer.finish().await
}
