//! Writing tables: Arrow rows in, acknowledged offsets out.
//!
//! Rows are encoded column-wise on a blocking thread while the batches before them are on their
//! way; the producer's memory bounds how far the encoder may be ahead. [`write`] returns when every
//! row is acknowledged, or with the first failure. After a failure nothing more is sent, and
//! [`TableWriter::abandon`] says what was acknowledged.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;

use crate::client::admin::{Admin, Resource};
use crate::client::producer::{BatchAck, BatchDelivery, EncodedBatch, Producer};
use crate::columnar::{self, Encoder, WriteOptions};
use crate::error::{Error, Result};
use crate::machine::client::bounds::Range;
use crate::machine::client::partitioner::partition_for_key;
use crate::types::{Offset, TimestampMs, TopicPartition};

/// So many rows are encoded at once, and rows without a key change their partition after them;
/// where records have many rows, each of them changes it.
const SLICE_ROWS: usize = 16 * 1024;

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
    pub offsets: BTreeMap<i32, Range>,
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
    encoder: Option<Encoder>,
    /// Until the schema of the values is settled, with the first rows.
    options: Option<WriteOptions>,
    /// Which partition rows without a key go to.
    turn: u64,
    sealed: Vec<columnar::EncodedBatch>,
    pending: VecDeque<(BatchDelivery, usize)>,
    report: WriteReport,
    /// How long the topic keeps records, if it deletes any by their time.
    retention_ms: Option<i64>,
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
        Ok(Self {
            topic: Arc::clone(&info.name),
            partition_count: info.partition_count(),
            encoder: None,
            options: Some(options),
            turn: producer.random(),
            producer,
            sealed: Vec::new(),
            pending: VecDeque::new(),
            report: WriteReport::default(),
            retention_ms,
        })
    }

    /// Accepts rows; waits for memory, not for acknowledgements.
    ///
    /// # Errors
    ///
    /// A column does not fit, or a batch before failed. What was written before stays written.
    pub async fn write(&mut self, rows: &RecordBatch) -> Result<()> {
        self.settle(rows).await?;
        for start in (0..rows.num_rows()).step_by(SLICE_ROWS) {
            let length = SLICE_ROWS.min(rows.num_rows() - start);
            let slice = rows.slice(start, length);
            self.write_slice(slice, start).await?;
        }
        Ok(())
    }

    /// Finds or registers the schema of the values.
    async fn settle(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(mut options) = self.options.take() else { return Ok(()) };
        distinct(&rows.schema())?;
        if !options.value.is_settled() {
            let others: Vec<String> = options.other_columns().cloned().collect();
            let (topic, schema) = (Arc::clone(&self.topic), rows.schema());
            let value = options.value;
            let settling =
                tokio::task::spawn_blocking(move || value.settle(&topic, &schema, &others));
            options.value = settling.await.map_err(|error| {
                Error::invalid(format!("settling the schema of the values failed: {error}"))
            })??;
        }
        self.encoder = Some(Encoder::new(options)?);
        Ok(())
    }

    async fn write_slice(&mut self, rows: RecordBatch, first_row: usize) -> Result<()> {
        let mut encoder = self.encoder.take().ok_or(Error::Closed { what: "the writer" })?;
        let now = self.producer.wall_clock();
        let (partitions, mut turn) = (self.partition_count, self.turn);
        let encoding = tokio::task::spawn_blocking(move || {
            let encoded = encode(&mut encoder, &rows, now, partitions, &mut turn);
            (encoder, turn, encoded)
        });
        // The batches of the slice before are sent in the meantime.
        let sent = self.send_sealed().await;
        let (encoder, turn, encoded) = encoding.await.map_err(|error| {
            Error::invalid(format!("encoding rows from {first_row} on failed: {error}"))
        })?;
        (self.encoder, self.turn) = (Some(encoder), turn);
        sent?;
        self.sealed = encoded?;
        self.collect_done().await
    }

    async fn send_sealed(&mut self) -> Result<()> {
        for batch in std::mem::take(&mut self.sealed) {
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
        // Taken out once it is settled: a wait that is given up may be begun again.
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
        self.send_sealed().await?;
        if let Some(mut encoder) = self.encoder.take() {
            let oldest = encoder.oldest();
            let encoding = tokio::task::spawn_blocking(move || encoder.finish());
            let encoded = encoding.await.map_err(|error| {
                Error::invalid(format!("encoding the last rows failed: {error}"))
            })?;
            self.sealed = encoded?;
            self.report.expired = self.expired(oldest);
        }
        self.send_sealed().await?;
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
        self.sealed.clear();
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

fn encode(
    encoder: &mut Encoder,
    rows: &RecordBatch,
    now: TimestampMs,
    partitions: i32,
    turn: &mut u64,
) -> Result<Vec<columnar::EncodedBatch>> {
    let each_record = encoder.has_many_rows();
    if !each_record {
        *turn = turn.wrapping_add(1);
    }
    encoder.push(rows, now, |key, _| match key {
        Some(key) => partition_for_key(key, partitions),
        None => {
            if each_record {
                *turn = turn.wrapping_add(1);
            }
            let unkeyed = turn.checked_rem(u64::from(partitions.unsigned_abs())).unwrap_or(0);
            i32::try_from(unkeyed).unwrap_or(0)
        }
    })?;
    Ok(encoder.take_sealed())
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
