//! Scans: exactly the rows between two bounds, as Arrow batches, as often as one likes.
//!
//! A [`Scan`] is a value. Its bounds are resolved once, when it is made, to offsets per partition
//! ([`Scan::offsets`]); reading it twice gives the same rows, or an error: when records of the range
//! were deleted, or compacted since another reading, the log was truncated, or the topic was
//! re-created (its id tells), that is [`Error::DataLoss`], never a shorter result. With
//! [`OnDataLoss::Warn`] it is a warning.
//!
//! A partition is read when its position reaches the end, not when a number of rows was seen: gaps
//! left by compaction and transactions are no rows. With [`IsolationLevel::ReadCommitted`] a range ends before the first
//! transaction that is open when it is resolved; [`Scan::held_back`] says how much that leaves out. Rows come in order within a partition; between
//! partitions they come in turns, by what was fetched first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

use crate::client::admin::{OffsetSpec, list_offsets};
use crate::client::batch_reader::BatchReader;
use crate::client::cluster::{Cluster, TopicInfo};
use crate::client::config::{ConsumerConfig, IsolationLevel, OnDataLoss};
use crate::client::consumer::Prefetcher;
use crate::client::decoding::{Pipeline, Turn};
use crate::client::recount::{Memory, Recount};
use crate::client::transaction::own_commits;
use crate::columnar::{DecodeOptions, Decoded, Decoder, FetchedBytes, ValueFormat};
use crate::error::{Error, Result};
pub use crate::machine::client::bounds::{Bound, Offsets, Range};
use crate::machine::client::bounds::{Extent, LookedUp, resolve};
use crate::types::{Offset, PartitionIndex, TopicPartition, Uuid};

/// What to read of a topic, and as what.
#[derive(Clone, Debug)]
pub struct ScanOptions {
    /// The start of the range, part of it.
    pub start: Bound,
    /// The end of the range, not part of it.
    pub end: Bound,
    /// The partitions; all when none.
    pub partitions: Option<Vec<PartitionIndex>>,
    /// Which records of transactions are read; the client's setting when none.
    pub isolation_level: Option<IsolationLevel>,
    /// What to do when records are gone; the client's setting when none.
    pub on_data_loss: Option<OnDataLoss>,
    /// Columns, formats and batch size.
    pub decode: DecodeOptions,
}

impl Default for ScanOptions {
    fn default() -> Self {
        Self {
            start: Bound::Earliest,
            end: Bound::Latest,
            partitions: None,
            isolation_level: None,
            on_data_loss: None,
            decode: DecodeOptions::default(),
        }
    }
}

/// A range of a topic's records. See the module's documentation.
#[derive(Clone, Debug)]
pub struct Scan {
    cluster: Arc<Cluster>,
    offsets: Arc<Offsets>,
    held_back: Arc<BTreeMap<PartitionIndex, i64>>,
    config: ConsumerConfig,
    decode: DecodeOptions,
    memory: Arc<Memory>,
}

impl Scan {
    /// Resolves the bounds.
    pub(crate) async fn resolve(
        cluster: Arc<Cluster>,
        topic: &str,
        mut options: ScanOptions,
    ) -> Result<Self> {
        options.start = options.start.start_in(topic)?;
        options.end = options.end.end_in(topic)?;
        // Reports early what is wrong with the columns.
        Decoder::new(options.decode.clone())?;
        let config = consumer_config(&cluster, &options);
        let info = cluster
            .retry("looking up a topic", async || cluster.fresh_topic(topic, false).await)
            .await?;
        let wanted = partitions_of(&info, &options)?;
        let isolation = config.isolation_level;
        if isolation == IsolationLevel::ReadCommitted {
            own_commits(&cluster, &BTreeSet::from([topic])).await?;
        }
        let tolerate_loss = config.on_data_loss == OnDataLoss::Warn;
        let (extents, written) =
            futures::future::try_join(extents(&cluster, &wanted, isolation), async {
                match isolation {
                    IsolationLevel::ReadUncommitted => Ok(BTreeMap::new()),
                    IsolationLevel::ReadCommitted => high_watermarks(&cluster, &wanted).await,
                }
            })
            .await?;
        let now = cluster.env.clock.now();
        let lookup = async |bound: &Bound| match bound.timestamp(now) {
            Some(timestamp) => {
                let spec = OffsetSpec::Timestamp(timestamp);
                let wanted = wanted.iter().map(|partition| (partition.clone(), spec)).collect();
                list_offsets(&cluster, &wanted, isolation).await
            }
            None => Ok(BTreeMap::new()),
        };
        let starts = lookup(&options.start).await?;
        let ends = lookup(&options.end).await?;
        let (mut ranges, mut held_back) = (BTreeMap::new(), BTreeMap::new());
        for partition in &wanted {
            let Some(extent) = extents.get(partition) else { continue };
            let looked_up = LookedUp {
                start: starts.get(partition).and_then(|listed| listed.offset),
                end: ends.get(partition).and_then(|listed| listed.offset),
            };
            let bounds = (&options.start, &options.end);
            let resolved = resolve(partition, bounds, extent, looked_up, tolerate_loss)?;
            if let Some(detail) = resolved.lost {
                tracing::warn!(%partition, detail, "data loss");
            }
            let beyond = written.get(partition).map_or(0, |&end| end.since(extent.end));
            if beyond > 0 && resolved.range.end >= extent.end {
                held_back.insert(partition.partition, beyond);
            }
            ranges.insert(partition.partition, resolved.range);
        }
        let memory = Arc::new(Memory::new(ranges.len()));
        let offsets = Offsets { topic: topic.to_owned(), topic_id: info.id, partitions: ranges };
        Ok(Self {
            cluster,
            offsets: Arc::new(offsets),
            held_back: Arc::new(held_back),
            config,
            decode: options.decode,
            memory,
        })
    }

    /// Takes the offsets of an earlier scan, for the same rows.
    pub(crate) async fn again(
        cluster: Arc<Cluster>,
        offsets: &Offsets,
        options: ScanOptions,
    ) -> Result<Self> {
        let bound = |of: fn(&Range) -> Offset| {
            let offsets = offsets.partitions.iter();
            Bound::Offsets(offsets.map(|(&partition, range)| (partition, of(range))).collect())
        };
        let options = ScanOptions {
            start: bound(|range| range.start),
            end: bound(|range| range.end),
            ..options
        };
        let scan = Self::resolve(cluster, &offsets.topic, options).await?;
        let (then, now) = (offsets.topic_id, scan.offsets.topic_id);
        if then != Uuid::ZERO && then != now {
            let detail = format!(
                "topic {} was deleted and re-created since the offsets were taken (its id was {then}, \
                 now it is {now})",
                offsets.topic
            );
            let partition = TopicPartition::new(offsets.topic.as_str(), 0);
            if scan.config.on_data_loss == OnDataLoss::Raise {
                return Err(Error::DataLoss { partition, detail });
            }
            tracing::warn!(detail, "data loss");
        }
        Ok(scan)
    }

    /// The resolved bounds. They can be kept as JSON and scanned again.
    #[must_use]
    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// How many offsets are behind the end of a partition because a transaction was open before them when the bounds
    /// were resolved; partitions that none holds back are left out. Empty when all records are read.
    #[must_use]
    pub fn held_back(&self) -> &BTreeMap<PartitionIndex, i64> {
        &self.held_back
    }

    /// The same rows, decoded otherwise.
    ///
    /// # Errors
    ///
    /// A column does not exist.
    pub fn decoded_as(&self, decode: DecodeOptions) -> Result<Self> {
        Decoder::new(decode.clone())?;
        Ok(Self { decode, ..self.clone() })
    }

    /// The same rows; its readings are compared with those of another scan from the same offsets,
    /// which may be of fewer or more partitions.
    #[must_use]
    pub fn compared_with(self, other: &Self) -> Self {
        Self { memory: Arc::clone(&other.memory), ..self }
    }

    /// Starts reading from the start of the range, in the current tokio runtime. May be called any
    /// number of times.
    ///
    /// # Errors
    ///
    /// A column does not exist.
    pub fn read(&self) -> Result<ScanReader> {
        let threads = self.decode.threads.or(self.cluster.config.threads);
        let decode = DecodeOptions { threads, ..self.decode.clone() };
        let pipeline = Pipeline::new(&self.cluster.env.threads, decode, self.config.memory_bytes)?;
        let prefetcher = self.prefetch(None);
        let total = self.offsets.count();
        let progress = ScanProgress { offsets_total: total, ..ScanProgress::default() };
        Ok(ScanReader {
            recount: self.recount(),
            offsets: Arc::clone(&self.offsets),
            prefetcher,
            pipeline,
            failure: None,
            ahead: None,
            ended: false,
            progress,
        })
    }

    /// As [`Scan::read`], for the batches of one partition as they are in the log.
    #[must_use]
    pub fn read_batches(&self, partition: PartitionIndex) -> BatchReader {
        BatchReader::new(self.prefetch(Some(partition)), self.recount())
    }

    fn recount(&self) -> Recount {
        let is_tolerant = self.config.on_data_loss == OnDataLoss::Warn;
        let (memory, offsets) = (Arc::clone(&self.memory), Arc::clone(&self.offsets));
        Recount::new(memory, offsets, is_tolerant)
    }

    /// Begins to fetch the range, of all partitions or of one.
    fn prefetch(&self, only: Option<PartitionIndex>) -> Prefetcher {
        let prefetcher = Prefetcher::start(Arc::clone(&self.cluster), self.config.clone());
        let topic: Arc<str> = Arc::from(self.offsets.topic.as_str());
        let mut done = 0;
        for (&index, range) in &self.offsets.partitions {
            if !range.is_empty() && only.is_none_or(|only| only == index) {
                let partition = TopicPartition::new(Arc::clone(&topic), index);
                let id = self.offsets.topic_id;
                prefetcher.assign_range(partition, id, range.start, range.end);
                done += 1;
            }
        }
        let offsets = self.offsets.count();
        tracing::debug!(topic = %topic, partitions = done, offsets, "scan started");
        prefetcher
    }
}

fn consumer_config(cluster: &Cluster, options: &ScanOptions) -> ConsumerConfig {
    let mut config = cluster.config.consumer.clone();
    if let Some(isolation_level) = options.isolation_level {
        config.isolation_level = isolation_level;
    }
    if let Some(on_data_loss) = options.on_data_loss {
        config.on_data_loss = on_data_loss;
    }
    if cluster.is_local() {
        // In the same process a fetch hands out mapped files, so large ones cost nothing.
        config.partition_bytes_max = config.partition_bytes_max.max(32 << 20);
        config.fetch_bytes_max = config.fetch_bytes_max.max(128 << 20);
        config.memory_bytes = config.memory_bytes.max(128 << 20);
    }
    config
}

fn partitions_of(info: &TopicInfo, options: &ScanOptions) -> Result<Vec<TopicPartition>> {
    let named = |index: PartitionIndex| {
        if info.partition(index).is_some() {
            return Ok(());
        }
        Err(Error::no_partition(&info.name, index, info.partitions.len()))
    };
    for bound in [&options.start, &options.end] {
        if let Bound::Offsets(offsets) | Bound::Since(offsets) = bound {
            offsets.keys().try_for_each(|&index| named(index))?;
        }
    }
    if let Some(partitions) = &options.partitions {
        partitions.iter().try_for_each(|&index| named(index))?;
    }
    let is_wanted = |index: PartitionIndex| {
        options.start.covers(index)
            && options.end.covers(index)
            && options.partitions.as_ref().is_none_or(|partitions| partitions.contains(&index))
    };
    let wanted: Vec<TopicPartition> = info
        .partitions
        .iter()
        .filter(|partition| is_wanted(partition.partition))
        .map(|partition| TopicPartition::new(Arc::clone(&info.name), partition.partition))
        .collect();
    if wanted.is_empty() {
        refuse_contradiction(&info.name, options)?;
    }
    Ok(wanted)
}

/// Refuses bounds and partitions that have no partition in common: the scan would be empty, which
/// nobody asks for.
fn refuse_contradiction(topic: &str, options: &ScanOptions) -> Result<()> {
    let of_bound = |bound: &Bound| match bound {
        Bound::Offsets(offsets) => offsets.keys().copied().collect(),
        _ => Vec::new(),
    };
    let chosen = options.partitions.clone().unwrap_or_default();
    let named = [
        ("start", of_bound(&options.start)),
        ("end", of_bound(&options.end)),
        ("partitions", chosen),
    ];
    let told: Vec<String> = named
        .iter()
        .filter(|(_, partitions)| !partitions.is_empty())
        .map(|(what, partitions)| {
            let numbers: Vec<String> = partitions.iter().map(ToString::to_string).collect();
            format!("{what} names {}", numbers.join(", "))
        })
        .collect();
    if told.len() < 2 {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "no partition of topic {topic} is named by all of the arguments that select some, so nothing \
         would be read: {}",
        told.join("; ")
    )))
}

async fn extents(
    cluster: &Cluster,
    partitions: &[TopicPartition],
    isolation_level: IsolationLevel,
) -> Result<BTreeMap<TopicPartition, Extent>> {
    let all = |spec| partitions.iter().map(|partition| (partition.clone(), spec)).collect();
    let (starts, ends) = (all(OffsetSpec::Earliest), all(OffsetSpec::Latest));
    let (starts, ends) = futures::future::try_join(
        list_offsets(cluster, &starts, isolation_level),
        list_offsets(cluster, &ends, isolation_level),
    )
    .await?;
    let extent = |partition: &TopicPartition| {
        let start = starts.get(partition)?.offset?;
        let end = ends.get(partition)?.offset?;
        Some((partition.clone(), Extent { start, end }))
    };
    Ok(partitions.iter().filter_map(extent).collect())
}

/// The ends of partitions, open transactions included.
async fn high_watermarks(
    cluster: &Cluster,
    partitions: &[TopicPartition],
) -> Result<BTreeMap<TopicPartition, Offset>> {
    let wanted = partitions.iter().map(|one| (one.clone(), OffsetSpec::Latest)).collect();
    let listed = list_offsets(cluster, &wanted, IsolationLevel::ReadUncommitted).await?;
    Ok(listed
        .into_iter()
        .filter_map(|(partition, listed)| Some((partition, listed.offset?)))
        .collect())
}

/// How far a scan was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// The offsets that are behind.
    pub offsets_done: i64,
    /// All offsets of the range.
    pub offsets_total: i64,
    /// The rows that were handed out.
    pub rows: u64,
    /// The bytes that were fetched for them.
    pub bytes: u64,
}

/// One reading of a scan.
#[derive(Debug)]
pub struct ScanReader {
    offsets: Arc<Offsets>,
    prefetcher: Prefetcher,
    recount: Recount,
    pipeline: Pipeline,
    /// What is wrong with what was fetched last; told once everything before it was handed out.
    failure: Option<Error>,
    /// Read ahead to know the schema.
    ahead: Option<Decoded>,
    ended: bool,
    progress: ScanProgress,
}

impl ScanReader {
    /// The schema of the batches; reads ahead where the fields of values are inferred.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub async fn schema(&mut self) -> Result<SchemaRef> {
        if let Some(schema) = self.pipeline.schema() {
            return Ok(schema);
        }
        if self.ahead.is_none() {
            self.ahead = self.decode_next().await?;
        }
        self.pipeline.schema().ok_or_else(|| {
            let topic = &self.offsets.topic;
            Error::invalid(format!("no value of topic {topic} to infer a schema from; give one"))
        })
    }

    /// The format of the values with its columns; reads ahead where they are found from values, and
    /// decodes no row. Without a value that tells them there are none.
    ///
    /// # Errors
    ///
    /// As [`Self::next`].
    pub async fn settled(&mut self) -> Result<ValueFormat> {
        loop {
            if let Some(format) = self.pipeline.look(self.ended).await? {
                return Ok(format);
            }
            if self.ended {
                return Ok(ValueFormat::without_columns());
            }
            self.fetch().await?;
        }
    }

    /// The next rows, and how far each partition was read with them; none at the end.
    ///
    /// # Errors
    ///
    /// [`Error::DataLoss`] when rows of the range do not exist any more, [`Error::Decode`] for a
    /// value that does not decode, or what a broker refused.
    pub async fn next(&mut self) -> Result<Option<Decoded>> {
        let decoded = match self.ahead.take() {
            Some(decoded) => Some(decoded),
            None => self.decode_next().await?,
        };
        let Some(decoded) = decoded else {
            self.progress.offsets_done = self.progress.offsets_total;
            return Ok(None);
        };
        self.progress.rows += decoded.rows.num_rows() as u64;
        for progress in &decoded.progress {
            let range = self.offsets.partitions.get(&progress.partition.partition);
            let end = range.map_or(progress.next, |range| range.end.min(progress.next));
            self.progress.offsets_done += end.since(progress.from);
        }
        Ok(Some(decoded))
    }

    async fn decode_next(&mut self) -> Result<Option<Decoded>> {
        loop {
            match self.pipeline.turn(self.ended).await? {
                Turn::Output(decoded) if decoded.has_records() => return Ok(Some(*decoded)),
                Turn::Output(_) => {}
                Turn::Input if self.ended => return Ok(None),
                Turn::Input => self.fetch().await?,
                Turn::Room if !self.ended && self.failure.is_none() => self.top_up().await,
                Turn::Room | Turn::Busy => self.pipeline.wait().await,
            }
        }
    }

    /// Gives the decoder more while it works; what is wrong must wait until it is done.
    async fn top_up(&mut self) {
        if let Err(error) = self.recount.check() {
            self.failure = Some(error);
            return;
        }
        match self.prefetcher.try_chunk() {
            Some((chunk, next)) => match self.recount.add(&chunk, next.offset) {
                Ok(()) => self.push(chunk),
                Err(error) => self.failure = Some(error),
            },
            None => {
                tokio::select! {
                    biased;
                    () = self.pipeline.wait() => {}
                    () = self.prefetcher.wait() => {}
                }
            }
        }
    }

    /// Gives the decoder what is fetched next.
    async fn fetch(&mut self) -> Result<()> {
        if let Some(error) = self.failure.take() {
            return Err(error);
        }
        self.recount.check()?;
        match self.prefetcher.try_next()? {
            (Some((chunk, next)), _) => {
                self.recount.add(&chunk, next.offset)?;
                self.push(chunk);
            }
            (None, true) => self.ended = true,
            (None, false) => self.prefetcher.wait().await,
        }
        Ok(())
    }

    fn push(&mut self, chunk: FetchedBytes) {
        self.progress.bytes += chunk.bytes.len() as u64;
        self.pipeline.push(chunk);
    }

    /// How far it was read.
    #[must_use]
    pub const fn progress(&self) -> ScanProgress {
        self.progress
    }
}
