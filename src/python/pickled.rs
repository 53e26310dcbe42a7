//! Batches as bytes, so that Python can hand them to other processes.
//!
//! The rows travel as an Arrow IPC stream, compacted first: the views of a batch may point into a whole segment. Beside
//! them goes what a batch knows about its records, which makes a copy as good as the original: offsets can be
//! committed and stored, and tombstones stay tombstones when it is written again.

use arrow::array::BooleanArray;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch as Rows;

use super::batch::Span;
use crate::columnar::{Tombstones, compact};
use crate::error::{Error, Result};

/// The records `[start, end)` of a topic and a partition, as Python keeps them.
pub(super) type PlainSpan = (String, i32, i64, i64);

/// The rows as an Arrow IPC stream.
pub(super) fn to_stream(rows: &Rows) -> Result<Vec<u8>> {
    let rows = compact(rows)?;
    let written = || {
        let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
        writer.write(&rows)?;
        writer.finish()?;
        writer.into_inner()
    };
    written().map_err(|error: ArrowError| Error::invalid(format!("pickling a batch: {error}")))
}

/// The rows of an Arrow IPC stream.
pub(super) fn of_stream(stream: &[u8]) -> Result<Rows> {
    let mut reader = StreamReader::try_new(stream, None).map_err(|error| refusal(&error))?;
    match reader.next() {
        Some(rows) => rows.map_err(|error| refusal(&error)),
        None => Err(Error::invalid("a pickled batch has no rows")),
    }
}

fn refusal(error: &ArrowError) -> Error {
    Error::invalid(format!("a pickled batch cannot be read: {error}"))
}

/// The rows that are tombstones, one by one; nothing where there are none.
pub(super) fn marks(tombstones: &Tombstones, rows: usize) -> Vec<bool> {
    if tombstones.any() { (0..rows).map(|row| tombstones.contains(row)).collect() } else { vec![] }
}

/// The opposite of [`marks`].
pub(super) fn of_marks(marks: Vec<bool>) -> Tombstones {
    if marks.is_empty() { Tombstones::NONE } else { Tombstones::marked(&BooleanArray::from(marks)) }
}

/// What Python keeps of spans.
pub(super) fn plain_spans(spans: &[Span]) -> Vec<PlainSpan> {
    spans.iter().map(|one| (one.topic.to_string(), one.partition.0, one.start, one.end)).collect()
}

/// The opposite of [`plain_spans`].
pub(super) fn spans_of(plain: Vec<PlainSpan>) -> Vec<Span> {
    let span = |(topic, partition, start, end): PlainSpan| Span {
        topic: topic.into(),
        partition: partition.into(),
        start,
        end,
    };
    plain.into_iter().map(span).collect()
}
