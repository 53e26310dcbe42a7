//! `RecordBatch`: rows as Python sees them.
//!
//! A handle on Arrow arrays, as `Column` is. Nothing is copied when it is created, sliced or exported
//! through the PyCapsule interface; the Python documentation of a method says what it copies.

use std::sync::Arc;

use arrow::array::UInt64Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::{RecordBatch as Rows, RecordBatchIterator, RecordBatchReader};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyIndexError, PyKeyError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyCapsule, PyDict, PyIterator, PyList, PySlice, PyString, PyTuple};

use super::column::Column;
use super::interop::{self, arrow_error};
use super::pickled::{self, PlainSpan};
use super::values;
use super::whole::Whole;
use crate::columnar::{Decoded, PartitionProgress, Tombstones, compact, nbytes, to_plain, types};
use crate::error::{Error, Result};
use crate::types::{PartitionIndex, TopicPartition};

/// What a pickled batch knows besides its rows: the fields of the batch, in order.
type PickledFacts = (Vec<PlainSpan>, usize, Vec<bool>, bool, bool);

/// What pickle calls to make a batch again, and with what: the rows as a stream, and the facts.
type Pickled<'py> = (Bound<'py, PyAny>, (Bound<'py, PyBytes>, PickledFacts));

/// The records `[start, end)` of one partition.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) topic: Arc<str>,
    pub(super) partition: PartitionIndex,
    pub(super) start: i64,
    pub(super) end: i64,
}

/// What several outputs of a decoder cover together, by partition.
pub(super) fn spans<'a>(progress: impl Iterator<Item = &'a PartitionProgress>) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::new();
    for one in progress {
        let TopicPartition { topic, partition } = &one.partition;
        let known =
            spans.iter_mut().find(|span| span.topic == *topic && span.partition == *partition);
        match known {
            Some(span) => {
                span.start = span.start.min(one.from.0);
                span.end = span.end.max(one.next.0);
            }
            None => spans.push(Span {
                topic: Arc::clone(topic),
                partition: *partition,
                start: one.from.0,
                end: one.next.0,
            }),
        }
    }
    spans
}

impl From<Decoded> for RecordBatch {
    fn from(decoded: Decoded) -> Self {
        let spans = spans(decoded.progress.iter());
        Self {
            tombstones: decoded.tombstones,
            hides_errors: decoded.hides_errors,
            num_rejected: decoded.rejected.len(),
            ..Self::new(decoded.rows, spans)
        }
    }
}

/// A number of rows that a caller asks for.
fn row_count(n: i64) -> Result<usize> {
    usize::try_from(n).map_err(|_negative| {
        Error::invalid(format!("n={n} is negative: pass the number of rows that you want"))
    })
}

/// Rows of a topic as Arrow columns.
///
/// Returned by scans and consumers. Any library with Arrow support reads it directly, through the
/// PyCapsule interface (`polars.DataFrame(batch)`, `pyarrow.table(batch)`); `batch["offset"]` is a
/// `Column`, `batch[["offset", "value"]]` a batch of some columns, `batch[0]` a row as a dictionary,
/// `batch[2:5]` a batch of some rows, and iterating yields the rows. The memory stays valid after
/// the broker is closed, the topic deleted and the directory removed.
///
/// Examples
/// --------
/// >>> import ottla
/// >>> with ottla.Broker() as broker:
/// ...     kafka = broker.client()
/// ...     _ = kafka.write("orders", [{"id": 1, "amount": 5}, {"id": 2, "amount": 7}])
/// ...     batch = kafka.scan("orders", value="json", columns=["offset", "id", "amount"]).head()
/// >>> batch.num_rows, batch.num_columns, batch.column_names, batch.schema["id"]
/// (2, 3, ['offset', 'id', 'amount'], 'int64')
/// >>> batch[0], batch["amount"].to_pylist(), batch[1:].to_pylist()
/// ({'offset': 0, 'id': 1, 'amount': 5}, [5, 7], [{'offset': 1, 'id': 2, 'amount': 7}])
/// >>> batch.select(["id"]).head(1).to_pylist(), batch.tail(1)["id"].to_pylist()
/// ([{'id': 1}], [2])
/// >>> batch.offsets, batch.num_rejected
/// ({'orders': {0: (0, 2)}}, 0)
/// >>> batch.to_polars().rows(), batch.to_pandas()["id"].tolist()
/// ([(0, 1, 5), (1, 2, 7)], [1, 2])
/// >>> batch.to_pyarrow().num_rows, batch.to_numpy()["amount"].sum().item()
/// (2, 12)
/// >>> batch.compact().nbytes <= batch.nbytes, batch.plain().num_rows
/// (True, 2)
/// >>> import deltalake
/// >>> deltalake.write_deltalake("lake", batch, commit_properties=batch.delta_txn("etl"))
/// >>> ottla.delta_offsets("lake", "etl")("orders", 0)
/// 2
#[pyclass(frozen, module = "ottla")]
#[derive(Debug)]
pub(super) struct RecordBatch {
    pub(super) rows: Rows,
    spans: Vec<Span>,
    num_rejected: usize,
    /// The rows whose records have no value, for whoever writes them again.
    pub(super) tombstones: Tombstones,
    /// Whether nulls may stand for what did not decode.
    pub(super) hides_errors: bool,
    /// Whether rows were left out, so that the spans do not match these rows.
    is_part: bool,
}

impl RecordBatch {
    pub(super) fn new(rows: Rows, spans: Vec<Span>) -> Self {
        Self {
            rows,
            spans,
            num_rejected: 0,
            tombstones: Tombstones::NONE,
            hides_errors: false,
            is_part: false,
        }
    }

    /// The same rows in other columns.
    fn with_rows(&self, rows: Rows) -> Self {
        self.with((rows, self.tombstones.clone()), self.is_part)
    }

    /// Other rows for the same records.
    fn with(&self, (rows, tombstones): (Rows, Tombstones), is_part: bool) -> Self {
        Self {
            rows,
            spans: self.spans.clone(),
            num_rejected: self.num_rejected,
            tombstones,
            hides_errors: self.hides_errors,
            is_part,
        }
    }

    fn column(&self, name: &str) -> PyResult<Column> {
        match self.rows.schema_ref().column_with_name(name) {
            Some((index, field)) => Ok(Column {
                field: Arc::new(field.clone()),
                array: Arc::clone(self.rows.column(index)),
            }),
            None => Err(self.no_column(name)),
        }
    }

    /// The same rows with some of the columns, in that order.
    fn project(&self, names: &[String]) -> PyResult<Self> {
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let Some((place, _field)) = self.rows.schema_ref().column_with_name(name) else {
                return Err(self.no_column(name));
            };
            places.push(place);
        }
        Ok(self.with_rows(self.rows.project(&places).map_err(arrow_error)?))
    }

    fn no_column(&self, name: &str) -> PyErr {
        PyKeyError::new_err(format!("no column {name:?}; there are {}", self.names().join(", ")))
    }

    fn names(&self) -> Vec<String> {
        self.rows.schema_ref().fields().iter().map(|field| field.name().clone()).collect()
    }

    fn slice(&self, offset: usize, length: usize) -> Self {
        let is_part = self.is_part || length < self.rows.num_rows();
        let rows = self.rows.slice(offset, length);
        self.with((rows, self.tombstones.slice(offset, length)), is_part)
    }

    /// The rows of a slice of Python's.
    fn taken(&self, start: isize, step: isize, count: usize) -> PyResult<Self> {
        let first = usize::try_from(start).unwrap_or(0);
        if step == 1 || count <= 1 {
            return Ok(self.slice(first.min(self.rows.num_rows()), count));
        }
        let place = |nth: usize| {
            let way = isize::try_from(nth).unwrap_or(isize::MAX).saturating_mul(step);
            u64::try_from(start.saturating_add(way)).unwrap_or(0)
        };
        let places = UInt64Array::from_iter_values((0..count).map(place));
        let rows = take_record_batch(&self.rows, &places).map_err(arrow_error)?;
        let tombstones = self.tombstones.take(&places).map_err(arrow_error)?;
        let is_part = self.is_part || count < self.rows.num_rows();
        Ok(self.with((rows, tombstones), is_part))
    }

    /// A row as a dictionary.
    fn row<'py>(&self, py: Python<'py>, row: usize) -> PyResult<Bound<'py, PyDict>> {
        let dict = PyDict::new(py);
        for (field, column) in self.rows.schema_ref().fields().iter().zip(self.rows.columns()) {
            dict.set_item(field.name(), values::value(py, column, row)?)?;
        }
        Ok(dict)
    }
}

#[pymethods]
impl RecordBatch {
    /// The number of rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.rows.num_rows()
    }

    /// The number of columns.
    #[getter]
    fn num_columns(&self) -> usize {
        self.rows.num_columns()
    }

    /// The names of the columns, in order.
    #[getter]
    fn column_names(&self) -> Vec<String> {
        self.names()
    }

    /// The types of the columns by name.
    #[getter]
    fn schema<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let types = PyDict::new(py);
        for field in self.rows.schema_ref().fields() {
            types.set_item(field.name(), types::name(field.data_type()))?;
        }
        Ok(types)
    }

    /// The size in bytes of the memory that these rows keep alive: shared buffers count once, and
    /// in full, however few of their rows are left. See `compact`.
    #[getter]
    fn nbytes(&self) -> usize {
        nbytes(&self.rows)
    }

    /// The records that the rows cover, as `{topic: {partition: (start, end)}}`, end exclusive.
    ///
    /// They can be stored as JSON and passed back as `resume=` of a consumer, which continues at the
    /// ends, or as `start=` and `end=` of a scan, which reads the same records again. A part of a
    /// batch (`batch[2:5]`, `batch.head()`) has none: the offsets of a batch cover all its rows.
    #[getter]
    fn offsets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        if self.is_part {
            return Err(Error::invalid(
                "some rows of a batch have no offsets of their own, since those of a batch cover all \
                 its rows: use those of the batch itself, or the columns partition and offset",
            )
            .into());
        }
        self._spans(py)
    }

    fn _spans<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let offsets = PyDict::new(py);
        for span in &self.spans {
            let topic = if let Some(known) = offsets.get_item(&*span.topic)? {
                known.cast_into::<PyDict>()?
            } else {
                let fresh = PyDict::new(py);
                offsets.set_item(&*span.topic, &fresh)?;
                fresh
            };
            topic.set_item(span.partition, (span.start, span.end))?;
        }
        Ok(offsets)
    }

    /// How many of these records could not be decoded and went to the topic of
    /// `on_error="dlq:TOPIC"`.
    #[getter]
    fn num_rejected(&self) -> usize {
        self.num_rejected
    }

    /// Return the `deltalake.CommitProperties` that write these offsets with the rows.
    ///
    /// `write_deltalake(table, batch, mode="append", commit_properties=batch.delta_txn("etl"))` adds
    /// the rows and the offsets in one commit: both or neither. Continue with `consumer(topic,
    /// resume=ottla.delta_offsets(table, "etl"))`.
    ///
    /// Parameters
    /// ----------
    /// app : str
    ///     The name of the program; a table may hold the offsets of several.
    /// table : deltalake.DeltaTable, optional
    ///     The table as loaded; pass the same object to `write_deltalake`. Raises `FencedError` when
    ///     the table already has these rows, and `write_deltalake` fails when another program
    ///     writes them in the meantime.
    #[pyo3(signature = (app, *, table=None))]
    fn delta_txn<'py>(
        slf: &Bound<'py, Self>,
        app: &str,
        table: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let offsets = slf.get().offsets(slf.py())?;
        slf.py().import("ottla._offsets")?.call_method1("delta_txn", (offsets, app, table))
    }

    fn __len__(&self) -> usize {
        self.rows.num_rows()
    }

    /// How pickle makes it again. Copies; releases the GIL.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<Pickled<'py>> {
        let stream = py.detach(|| pickled::to_stream(&self.rows))?;
        let facts = (
            pickled::plain_spans(&self.spans),
            self.num_rejected,
            pickled::marks(&self.tombstones, self.rows.num_rows()),
            self.hides_errors,
            self.is_part,
        );
        Ok((frames(py)?.getattr("pickled_batch")?, (PyBytes::new(py, &stream), facts)))
    }

    /// The batch of what `__reduce__` returned.
    #[staticmethod]
    fn _of_pickle(py: Python<'_>, stream: &[u8], facts: PickledFacts) -> PyResult<Self> {
        let (spans, num_rejected, marks, hides_errors, is_part) = facts;
        let rows = py.detach(|| pickled::of_stream(stream))?;
        let batch = Self::new(rows, pickled::spans_of(spans));
        let tombstones = pickled::of_marks(marks);
        Ok(Self { num_rejected, tombstones, hides_errors, is_part, ..batch })
    }

    /// A column by its name, a row as a dictionary by its number, a batch of the rows of a slice, or
    /// one of the columns of a list.
    fn __getitem__<'py>(
        &self,
        py: Python<'py>,
        item: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let length = self.rows.num_rows();
        if let Ok(name) = item.cast::<PyString>() {
            return self.column(&name.to_cow()?)?.into_bound_py_any(py);
        }
        if let Ok(slice) = item.cast::<PySlice>() {
            let range = slice.indices(isize::try_from(length).unwrap_or(isize::MAX))?;
            return self.taken(range.start, range.step, range.slicelength)?.into_bound_py_any(py);
        }
        if let Ok(names) = item.cast::<PyList>() {
            return self.project(&names.extract::<Vec<String>>()?)?.into_bound_py_any(py);
        }
        let Ok(index) = item.extract::<isize>() else {
            return Err(PyTypeError::new_err(format!(
                "batch[…] takes the name of a column, a list of them, the number of a row or a slice \
                 of rows, not {}",
                item.get_type().qualname()?
            )));
        };
        let place = if index < 0 { index.checked_add_unsigned(length) } else { Some(index) };
        match place.and_then(|place| usize::try_from(place).ok()).filter(|place| *place < length) {
            Some(place) => Ok(self.row(py, place)?.into_any()),
            None => Err(PyIndexError::new_err(format!("row {index} of {length}"))),
        }
    }

    /// The rows as dictionaries, as `to_pylist` makes them.
    fn __iter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyIterator>> {
        self.to_pylist(py)?.try_iter()
    }

    #[pyo3(signature = (dtype=None, copy=None))]
    #[expect(unused_variables, clippy::unused_self, reason = "the protocol of numpy")]
    fn __array__(
        &self,
        dtype: Option<&Bound<'_, PyAny>>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        Err(PyTypeError::new_err(
            "a batch is not an array: to_pandas() returns a pandas.DataFrame, to_numpy() an array \
             for each column",
        ))
    }

    fn __contains__(&self, name: &str) -> bool {
        self.rows.schema_ref().column_with_name(name).is_some()
    }

    /// Return the first `n` rows; shares the memory.
    ///
    /// Parameters
    /// ----------
    /// n : int, default 5
    ///     How many rows.
    #[pyo3(signature = (n=Whole(5)), text_signature = "($self, n=5)")]
    fn head(&self, n: Whole<i64>) -> PyResult<Self> {
        Ok(self.slice(0, row_count(n.0)?.min(self.rows.num_rows())))
    }

    /// Return the last `n` rows; shares the memory.
    ///
    /// Parameters
    /// ----------
    /// n : int, default 5
    ///     How many rows.
    #[pyo3(signature = (n=Whole(5)), text_signature = "($self, n=5)")]
    fn tail(&self, n: Whole<i64>) -> PyResult<Self> {
        let length = row_count(n.0)?.min(self.rows.num_rows());
        Ok(self.slice(self.rows.num_rows() - length, length))
    }

    /// Return the same rows with some of the columns, in that order; shares the memory.
    ///
    /// Parameters
    /// ----------
    /// columns : sequence of str
    ///     The names of the columns; one that the batch does not have is a `KeyError`. Columns of a
    ///     topic that nobody needs are better left out of the scan (`columns=`), where they cost
    ///     nothing.
    fn select(&self, columns: Vec<String>) -> PyResult<Self> {
        self.project(&columns)
    }

    /// What a notebook offers after `batch["`.
    fn _ipython_key_completions_(&self) -> Vec<String> {
        self.names()
    }

    /// Return a copy of the rows in their own memory, so that segments or responses can be
    /// released.
    ///
    /// Copies; releases the GIL.
    fn compact(&self, py: Python<'_>) -> PyResult<Self> {
        let rows = py.detach(|| compact(&self.rows))?;
        Ok(self.with_rows(rows))
    }

    /// Return the rows as a list of dictionaries; times become `datetime` in UTC. Copies.
    fn to_pylist<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for row in 0..self.rows.num_rows() {
            list.append(self.row(py, row)?)?;
        }
        Ok(list)
    }

    /// Return a `numpy.ndarray` per column, in a dictionary.
    ///
    /// Numbers, booleans and times without nulls are read-only views of the batch's memory; with
    /// nulls they become floats with NaN, or times with NaT. Text, bytes and lists become objects.
    fn to_numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("numpy_columns", (slf,))
    }

    /// Return a `pyarrow.RecordBatch`.
    ///
    /// Parameters
    /// ----------
    /// string_view : bool, default False
    ///     Keep view types, which share the memory of the batch; otherwise text and bytes are
    ///     copied into plain types.
    #[pyo3(signature = (*, string_view=false))]
    fn to_pyarrow<'py>(slf: &Bound<'py, Self>, string_view: bool) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("pyarrow_batch", (slf, string_view))
    }

    /// Return a `pandas.DataFrame`; `options` are those of `pyarrow.Table.to_pandas`.
    #[pyo3(signature = (**options))]
    fn to_pandas<'py>(
        slf: &Bound<'py, Self>,
        options: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method("pandas_frame", (slf,), options)
    }

    /// Return a `polars.DataFrame` that shares the memory.
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        frames(slf.py())?.call_method1("polars_frame", (slf,))
    }

    /// Return the same rows with plain utf8 and binary columns instead of views, as some functions
    /// of pyarrow need. Copies text and bytes; releases the GIL.
    fn plain(&self, py: Python<'_>) -> PyResult<Self> {
        let rows = py.detach(|| to_plain(&self.rows))?;
        Ok(self.with_rows(rows))
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        interop::export_schema(py, self.rows.schema_ref())
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_array__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        interop::export_batch(py, &self.rows, requested_schema)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<&Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let reader: Box<dyn RecordBatchReader + Send> =
            Box::new(RecordBatchIterator::new([Ok(self.rows.clone())], self.rows.schema()));
        interop::export_stream(py, reader, requested_schema)
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        frames(slf.py())?.call_method1("batch_text", (slf,))?.extract()
    }

    fn _repr_html_(slf: &Bound<'_, Self>) -> PyResult<String> {
        frames(slf.py())?.call_method1("batch_html", (slf,))?.extract()
    }
}

/// The Python part of conversions and displays.
pub(super) fn frames(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("ottla._frames")
}
