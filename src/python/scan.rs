//! Scans: bounded reads as values, as iterators of batches and as Arrow streams.
//!
//! The engine's scan resolves the bounds. Added here is what a value needs beyond them:
//! - the columns of values are found out once per scan, not once per reading;
//! - with `max_rows` partitions are read one after the other, so that each reading gives the same
//!   rows (without it they come in the order in which they were fetched);
//! - a scan in a forked child reads through the child's own session.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::OnceLock;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::compute::{SortColumn, concat_batches, filter_record_batch, lexsort_to_indices, take};
use arrow::datatypes::{Int32Type, Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch as Rows;
use pyo3::prelude::*;
use pyo3::types::{PyCapsule, PyDict};

use super::admin::existing;
use super::batch::{RecordBatch, Span, spans};
use super::batches::Batches;
use super::client::Client;
use super::convert::{self, ReadArguments};
use super::interop::{self, arrow_error};
use super::stream::Stream;
use super::whole::{self, Whole};
use super::{archive, process, runtime};
use crate::client::{
    Bound as Place, Client as Engine, DeadLetters, Scan as Bounds, ScanOptions, ScanReader,
};
use crate::columnar::{DecodeOptions, Decoded, OnError, Tombstones, ValueFormat, types};
use crate::error::{Error, Result};
use crate::types::{Offset, PartitionIndex};

/// The keyword arguments of `client.scan`, besides those of a consumer, as `_scan.py` passes them.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct OwnArguments {
    partitions: Option<Vec<PartitionIndex>>,
    max_rows: Option<Whole<usize>>,
    batch_rows: Whole<usize>,
}

/// A part of a topic; see `ottla.Scan`.
#[pyclass(frozen, module = "ottla._ottla")]
#[derive(Debug)]
pub(super) struct Scan {
    client: Py<Client>,
    bounds: Bounds,
    options: ScanOptions,
    max_rows: Option<usize>,
    process: u32,
    /// How rows are decoded once the columns of values are known.
    settled: OnceLock<DecodeOptions>,
    on_error: String,
    /// The offsets of the rows that `max_rows` leaves, once they were asked for.
    cut: OnceLock<BTreeMap<PartitionIndex, (i64, i64)>>,
}

impl Scan {
    /// Resolves the bounds.
    pub(super) fn resolve(
        client: &Bound<'_, Client>,
        topic: &str,
        (start, end): (Place, Place),
        arguments: &Bound<'_, PyDict>,
        timeout: Option<f64>,
    ) -> PyResult<Self> {
        let shared: ReadArguments = convert::arguments(arguments)?;
        let own: OwnArguments = convert::arguments(arguments)?;
        let (max_rows, batch_rows) = (whole::number(own.max_rows), own.batch_rows.0);
        let rows = max_rows.map_or(batch_rows, |most| batch_rows.min(most.max(1)));
        let decode = shared.decode(rows)?;
        // Says at once when the dead letter topic has no name.
        let _writer = client.get().dead_letters(&shared.on_error)?;
        let options = ScanOptions {
            start,
            end,
            partitions: own.partitions,
            isolation_level: shared.isolation_level()?,
            on_data_loss: Some(shared.on_data_loss()?),
            decode,
        };
        let engine = client.get().engine()?;
        let what = format!("the bounds of the scan of {topic}");
        let timeout = runtime::timeout(timeout)?;
        let resolving = options.clone();
        let bounds = runtime::wait_for(client.py(), &engine, &what, timeout, async {
            existing(&engine, topic).await?;
            engine.scan(topic, resolving).await
        })?;
        Ok(Self {
            client: client.clone().unbind(),
            bounds,
            options,
            max_rows,
            process: process::current(),
            settled: OnceLock::new(),
            on_error: shared.on_error,
            cut: OnceLock::new(),
        })
    }

    /// How rows are decoded; finds out the columns of the values at the first call.
    fn decode(&self, py: Python<'_>) -> PyResult<DecodeOptions> {
        if let Some(settled) = self.settled.get() {
            return Ok(settled.clone());
        }
        let mut decode = self.options.decode.clone();
        if !decode.value.is_settled() {
            decode.value = self.settle(py, &decode)?;
        }
        Ok(self.settled.get_or_init(|| decode).clone())
    }

    /// The format with its columns, from the registry or from the first values.
    fn settle(&self, py: Python<'_>, decode: &DecodeOptions) -> PyResult<ValueFormat> {
        let what = "the schema of the values";
        let offsets = self.bounds.offsets();
        let (value, topic) = (decode.value.clone(), offsets.topic.clone());
        let value = runtime::wait(py, what, None, async move {
            tokio::task::spawn_blocking(move || value.settle_for(&topic)).await.map_err(
                |error| {
                    Error::invalid(format!("asking for the schema of the values failed: {error}"))
                },
            )?
        })?;
        if value.is_settled() {
            return Ok(value);
        }
        if offsets.count() == 0 {
            return Ok(ValueFormat::without_columns());
        }
        let mut reading = self.begin(decode.clone(), false)?;
        let found = runtime::wait(py, what, None, async move { reading.settled().await })?;
        if decode.value.is_many_rows() && !found.is_many_rows() {
            // No value tells columns; rows and records are still not one to one.
            return Ok(decode.value.columnless());
        }
        Ok(found)
    }

    /// Begins a reading.
    fn begin(&self, mut decode: DecodeOptions, in_order: bool) -> Result<Reading> {
        let engine = self.client.get().engine()?;
        let in_order = in_order || self.max_rows.is_some();
        // Where rows are cut off, their offsets tell how far it was read.
        decode.offsets = in_order;
        let options = ScanOptions { decode: decode.clone(), ..self.options.clone() };
        let offsets = self.bounds.offsets();
        let mut parts = VecDeque::new();
        let mut current = None;
        if in_order {
            for (&partition, range) in &offsets.partitions {
                let mut part = offsets.clone();
                part.partitions = BTreeMap::from([(partition, *range)]);
                parts.push_back(part);
            }
        } else if self.process == process::current() {
            let _context = runtime::handle()?.enter();
            current = Some(self.bounds.decoded_as(decode)?.read()?);
        } else {
            parts.push_back(offsets.clone());
        }
        // In a fork, a thread that is not there may hold what the scan remembers.
        let origin = (self.process == process::current()).then(|| self.bounds.clone());
        let (letters, unsent) = (None, None);
        Ok(Reading {
            engine,
            options,
            origin,
            parts,
            current,
            left: self.max_rows,
            letters,
            unsent,
        })
    }

    /// Some of its rows.
    fn batch(&self, (rows, tombstones): (Rows, Tombstones), covered: Vec<Span>) -> RecordBatch {
        let mut batch = RecordBatch::new(rows, covered);
        (batch.tombstones, batch.hides_errors) = (tombstones, self.hides_errors());
        batch
    }

    /// As [`DecodeOptions::hides_errors`].
    pub(super) fn hides_errors(&self) -> bool {
        self.options.decode.hides_errors()
    }

    /// Begins a reading with the scan's own columns.
    pub(super) fn read(&self, py: Python<'_>) -> PyResult<(Reading, SchemaRef)> {
        let decode = self.decode(py)?;
        let schema = convert::schema_of(&decode, &self.options, self.bounds.offsets())?;
        let mut reading = self.begin(decode, false)?;
        reading.letters = self.client.get().dead_letters(&self.on_error)?;
        Ok((reading, schema))
    }

    /// How rows are decoded where only their number matters.
    fn counting(&self, py: Python<'_>) -> PyResult<DecodeOptions> {
        let many = self.options.decode.value.is_many_rows();
        if many || self.options.decode.on_error == OnError::SetAside {
            // Which rows there are only decoding tells.
            return self.decode(py);
        }
        Ok(DecodeOptions {
            columns: Some(Vec::new()),
            headers: Vec::new(),
            value: ValueFormat::Raw,
            ..self.options.decode.clone()
        })
    }

    /// Where a reading stops that hands out at most so many rows.
    fn stop(&self, py: Python<'_>, most: usize) -> PyResult<Stop> {
        let mut reading = self.begin(self.counting(py)?, true)?;
        runtime::wait(py, "the end of the rows", None, async move {
            let (mut rows, mut stop) = (0_usize, Stop::Before);
            while let Some(decoded) = reading.next().await? {
                rows = rows.saturating_add(decoded.rows.num_rows());
                if let Some(last) = decoded.progress.last() {
                    stop = Stop::At(last.partition.partition, last.next.0);
                }
            }
            Ok(if rows < most { Stop::Nowhere } else { stop })
        })
    }

    /// All rows in the order of the partitions, as one batch. Only looks: what does not decode is
    /// left out and not sent to a dead letter topic.
    fn collect(
        &self,
        py: Python<'_>,
        mut decode: DecodeOptions,
        most: Option<usize>,
    ) -> PyResult<Collected> {
        let schema = convert::schema_of(&decode, &self.options, self.bounds.offsets())?;
        if let Some(most) = most {
            decode.max_rows = decode.max_rows.min(most.max(1));
        }
        let mut reading = self.begin(decode, true)?;
        reading.left = most;
        let read = runtime::wait(py, "the rows of a scan", None, async move {
            let mut all = Vec::new();
            while let Some(decoded) = reading.next().await? {
                all.push(decoded);
            }
            Ok(all)
        })?;
        let covered = spans(read.iter().flat_map(|decoded| &decoded.progress));
        let mut rejected = BTreeSet::new();
        let mut rows = Vec::with_capacity(read.len());
        let mut tombstones = Vec::with_capacity(read.len());
        for decoded in read {
            let places = decoded.rejected.iter();
            rejected.extend(places.map(|one| (one.partition.partition, one.offset.0)));
            tombstones.push((decoded.tombstones, decoded.rows.num_rows()));
            rows.push(decoded.rows);
        }
        let rows = py.detach(|| concat_batches(&schema, &rows)).map_err(arrow_error)?;
        let tombstones = Tombstones::concat(&tombstones);
        Ok(Collected { rows, covered, tombstones, rejected })
    }
}

/// Where `max_rows` cuts a scan off, whose partitions are read one after the other.
#[derive(Clone, Copy, Debug)]
enum Stop {
    /// Nothing is cut off.
    Nowhere,
    /// Before the first row.
    Before,
    /// In this partition, before this offset.
    At(PartitionIndex, i64),
}

/// Rows that were read to the end.
struct Collected {
    rows: Rows,
    covered: Vec<Span>,
    tombstones: Tombstones,
    /// The partitions and offsets of the records that were set aside.
    rejected: BTreeSet<(PartitionIndex, i64)>,
}

/// One reading of a scan: a reader, or readers of one partition after the other.
pub(super) struct Reading {
    engine: Engine,
    options: ScanOptions,
    /// The scan, with whose other readings this one is compared.
    origin: Option<Bounds>,
    parts: VecDeque<crate::client::Offsets>,
    current: Option<ScanReader>,
    /// How many rows may still be handed out.
    left: Option<usize>,
    /// Where records go that did not decode.
    letters: Option<DeadLetters>,
    /// What was read, and may not be handed out before its dead letters are acknowledged.
    unsent: Option<Decoded>,
}

impl Reading {
    /// The next rows, once the records beside them that did not decode are acknowledged.
    pub(super) async fn next(&mut self) -> Result<Option<Decoded>> {
        let Some(letters) = self.letters.clone() else { return self.read_next().await };
        if self.unsent.is_none() {
            self.unsent = self.read_next().await?;
        }
        if let Some(decoded) = &self.unsent {
            // Nothing is taken out before it worked: an interrupt or an error repeats it.
            letters.send(&decoded.rejected).await?;
        }
        Ok(self.unsent.take())
    }

    async fn read_next(&mut self) -> Result<Option<Decoded>> {
        loop {
            if self.left == Some(0) {
                return Ok(None);
            }
            let reader = if let Some(reader) = &mut self.current {
                reader
            } else {
                let Some(part) = self.parts.pop_front() else { return Ok(None) };
                self.current.insert(self.begin(&part).await?)
            };
            match reader.next().await? {
                Some(decoded) => return Ok(Some(self.limit(decoded))),
                None if self.parts.is_empty() => return Ok(None),
                None => self.current = None,
            }
        }
    }

    /// Begins to read some partitions.
    async fn begin(&self, part: &crate::client::Offsets) -> Result<ScanReader> {
        let scan = self.engine.scan_again(part, self.options.clone()).await?;
        match &self.origin {
            Some(origin) => scan.compared_with(origin).read(),
            None => scan.read(),
        }
    }

    /// Cuts off what is beyond the limit.
    fn limit(&mut self, mut decoded: Decoded) -> Decoded {
        let Some(left) = &mut self.left else { return decoded };
        let rows = decoded.rows.num_rows();
        if rows > *left {
            decoded.rows = decoded.rows.slice(0, *left);
            decoded.tombstones = decoded.tombstones.slice(0, *left);
            // The partitions come one after the other.
            for progress in &mut decoded.progress {
                progress.next =
                    next_offset(decoded.offsets.as_ref(), *left).unwrap_or(progress.from);
                decoded.rejected.retain(|record| record.offset < progress.next);
            }
            decoded.offsets = decoded.offsets.map(|offsets| offsets.slice(0, *left));
        }
        *left = left.saturating_sub(rows);
        decoded
    }

    /// The format with its columns, from the first values.
    async fn settled(&mut self) -> Result<ValueFormat> {
        if self.current.is_none() {
            let Some(part) = self.parts.pop_front() else {
                return Ok(ValueFormat::without_columns());
            };
            self.current = Some(self.begin(&part).await?);
        }
        let Some(reader) = &mut self.current else { return Ok(ValueFormat::without_columns()) };
        reader.settled().await
    }
}

/// The offset to go on with behind the first `kept` of some more rows: that of the record behind
/// the last one, or of that record itself where rows of it were cut off.
fn next_offset(offsets: Option<&Int64Array>, kept: usize) -> Option<Offset> {
    let offsets = offsets?.values();
    let last = *offsets.get(kept.checked_sub(1)?)?;
    let cut = offsets.get(kept).is_some_and(|following| *following == last);
    Some(if cut { Offset(last) } else { Offset(last).next() })
}

#[pymethods]
impl Scan {
    #[getter]
    fn topic(&self) -> &str {
        &self.bounds.offsets().topic
    }

    /// The id of the topic when the bounds were resolved; zeros where brokers have none.
    #[getter]
    fn topic_id(&self) -> String {
        self.bounds.offsets().topic_id.to_string()
    }

    /// The bounds, before `max_rows` cuts anything off.
    #[getter]
    fn bounds(&self) -> BTreeMap<PartitionIndex, (i64, i64)> {
        let ranges = &self.bounds.offsets().partitions;
        ranges.iter().map(|(&one, range)| (one, (range.start.0, range.end.0))).collect()
    }

    /// How many offsets of each partition an open transaction held back when the bounds were resolved.
    #[getter]
    fn held_back(&self) -> BTreeMap<PartitionIndex, i64> {
        self.bounds.held_back().clone()
    }

    /// The offsets of the rows that readings hand out; with `max_rows`, the first call finds out.
    #[getter]
    fn offsets(&self, py: Python<'_>) -> PyResult<BTreeMap<PartitionIndex, (i64, i64)>> {
        let all = self.bounds();
        let (Some(most), offsets) = (self.max_rows, self.bounds.offsets().count()) else {
            return Ok(all);
        };
        let is_whole = usize::try_from(offsets).is_ok_and(|offsets| offsets <= most);
        if is_whole && !self.options.decode.value.is_many_rows() {
            return Ok(all);
        }
        if let Some(known) = self.cut.get() {
            return Ok(known.clone());
        }
        let stop = self.stop(py, most)?;
        let cut = all.into_iter().map(|(one, (start, end))| {
            // Partitions are read one after the other.
            let end = match stop {
                Stop::Nowhere => end,
                Stop::At(last, _) if one < last => end,
                Stop::At(last, next) if one == last => next,
                Stop::At(..) | Stop::Before => start,
            };
            (one, (start, end))
        });
        Ok(self.cut.get_or_init(|| cut.collect()).clone())
    }

    #[getter]
    fn max_rows(&self) -> usize {
        let offsets = usize::try_from(self.bounds.offsets().count()).unwrap_or(usize::MAX);
        self.max_rows.map_or(offsets, |most| most.min(offsets))
    }

    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let schema = convert::schema(&self.decode(py)?)?;
        let described = PyDict::new(py);
        for field in schema.fields() {
            described.set_item(field.name(), types::name(field.data_type()))?;
        }
        Ok(described)
    }

    fn count(&self, py: Python<'_>) -> PyResult<usize> {
        let mut reading = self.begin(self.counting(py)?, false)?;
        runtime::wait(py, "the number of rows", None, async move {
            let mut rows = 0;
            while let Some(decoded) = reading.next().await? {
                rows += decoded.rows.num_rows();
            }
            Ok(rows)
        })
    }

    fn batches(&self, py: Python<'_>) -> PyResult<Batches> {
        let (reading, _schema) = self.read(py)?;
        Ok(Batches::new(reading))
    }

    fn collect_head(&self, py: Python<'_>, n: usize) -> PyResult<RecordBatch> {
        let most = self.max_rows.map_or(n, |most| most.min(n));
        let found = self.collect(py, self.decode(py)?, Some(most))?;
        Ok(self.batch((found.rows, found.tombstones), found.covered))
    }

    /// The newest rows by timestamp: a first reading finds them, a second one decodes.
    fn collect_tail(&self, py: Python<'_>, n: usize) -> PyResult<RecordBatch> {
        let names = ["timestamp", "partition", "offset"].map(str::to_owned).to_vec();
        let decode = self.decode(py)?;
        let mut order = decode.clone();
        order.columns = Some(names);
        order.headers = Vec::new();
        order.value = ValueFormat::Raw;
        let Collected { rows, covered, tombstones, rejected } =
            self.collect(py, decode, self.max_rows)?;
        if self.options.decode.value.is_many_rows() {
            // Rows are no records there: the last ones in the order of partitions.
            let count = rows.num_rows().min(n);
            let from = rows.num_rows().saturating_sub(count);
            let newest = (rows.slice(from, count), tombstones.slice(from, count));
            return Ok(self.batch(newest, covered));
        }
        let most = self.max_rows.map(|most| most.saturating_add(rejected.len()));
        let keys = self.collect(py, order, most)?.rows;
        let keys = without(&keys, &rejected, rows.num_rows())?;
        let by: Vec<SortColumn> = keys
            .columns()
            .iter()
            .map(|column| SortColumn { values: ArrayRef::clone(column), options: None })
            .collect();
        let sorted = lexsort_to_indices(&by, None).map_err(arrow_error)?;
        let skip = sorted.len().saturating_sub(n);
        let newest: UInt64Array =
            sorted.values().iter().skip(skip).map(|&row| u64::from(row)).collect();
        let tombstones = tombstones.take(&newest).map_err(arrow_error)?;
        let columns = rows.columns().iter().map(|column| take(column, &newest, None));
        let columns = columns.collect::<Result<Vec<_>, _>>().map_err(arrow_error)?;
        let options =
            arrow::record_batch::RecordBatchOptions::new().with_row_count(Some(newest.len()));
        let rows = Rows::try_new_with_options(rows.schema(), columns, &options);
        Ok(self.batch((rows.map_err(arrow_error)?, tombstones), covered))
    }

    #[pyo3(signature = (plain, progress))]
    fn stream(slf: &Bound<'_, Self>, plain: bool, progress: Option<Py<PyAny>>) -> Stream {
        Stream::new(slf.clone().unbind(), plain, progress)
    }

    /// Writes the records to files of the tier below a folder; returns their paths.
    fn to_parquet(
        &self,
        py: Python<'_>,
        folder: PathBuf,
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Vec<PathBuf>> {
        if self.max_rows.is_some() {
            let detail = "to_parquet() writes all records between the bounds: give end= instead of max_rows=";
            return Err(Error::invalid(detail).into());
        }
        let engine = self.client.get().engine()?;
        let (bounds, options) = (self.bounds.clone(), self.options.clone());
        let is_here = self.process == process::current();
        let scan = async move {
            if is_here { Ok(bounds) } else { engine.scan_again(bounds.offsets(), options).await }
        };
        archive::write(py, scan, folder, progress)
    }

    pub(super) fn __arrow_c_schema__<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        interop::export_schema(py, convert::schema(&self.decode(py)?)?.as_ref())
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        slf: &Bound<'py, Self>,
        requested_schema: Option<&Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        Self::stream(slf, false, None).__arrow_c_stream__(slf.py(), requested_schema)
    }
}

/// The first `count` rows of `[timestamp, partition, offset]` without those that were set aside.
fn without(
    keys: &Rows,
    rejected: &BTreeSet<(PartitionIndex, i64)>,
    count: usize,
) -> PyResult<Rows> {
    let partitions = keys.column(1).as_primitive::<Int32Type>().values().iter();
    let offsets = keys.column(2).as_primitive::<Int64Type>().values().iter();
    let keep = partitions
        .zip(offsets)
        .map(|(one, at)| Some(!rejected.contains(&(PartitionIndex(*one), *at))));
    let kept = filter_record_batch(keys, &keep.collect()).map_err(arrow_error)?;
    Ok(kept.slice(0, count.min(kept.num_rows())))
}
