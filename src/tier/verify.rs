//! Whether a file gives back what it was made of.
//!
//! Before a file counts, it is read back and compared with the log: whatever is wrong with a codec, an encoder or a
//! disk shows before the segment is deleted, and not in the year after. Later, without the log, a file is compared
//! with its own checksums.

use super::reader::TierFile;
use super::rows::{Row, Rows};
use crate::error::{Error, Result};
use crate::record::{Batch, BatchHeader, Compression, Header, RecordView, TimestampType};

/// Compares a file with the batches of the log that it was made of, in their order.
///
/// # Errors
///
/// [`Error::Corrupt`] with the first difference; the errors of `batches`.
pub fn compare(
    file: &TierFile,
    batches: impl IntoIterator<Item = Result<Batch>>,
    uncompressed_bytes_max: usize,
) -> Result<()> {
    file.check_bytes()?;
    let mut batches = batches.into_iter();
    for group in 0..file.group_count() {
        let loaded = file.load(group)?;
        let rebuilt = file.rebuild(group, &loaded)?;
        let rows = loaded.rows.as_ref().and_then(Rows::of);
        let mut first = 0;
        for (line, served) in loaded.lines.iter().zip(&rebuilt) {
            let base_offset = line.header.base_offset;
            let differs = |detail: &str| {
                let detail = format!("record batch at offset {base_offset}: {detail}");
                Error::corrupt(file.path(), 0, detail)
            };
            let Some(logged) = batches.next().transpose()? else {
                return Err(differs("it is not in the log"));
            };
            compare_batch(&logged, served, uncompressed_bytes_max)
                .map_err(|detail| differs(&detail))?;
            if let (Some(rows), Some(_)) = (&rows, line.raw)
                && line.has_rows
            {
                compare_rows(&logged, rows, first, uncompressed_bytes_max)
                    .map_err(|detail| differs(&detail))?;
            }
            first += line.row_count();
        }
    }
    match batches.next().transpose()? {
        None => Ok(()),
        Some(batch) => {
            let offset = batch.header().base_offset;
            let detail = format!("record batch at offset {offset} of the log is missing");
            Err(Error::corrupt(file.path(), 0, detail))
        }
    }
}

/// Compares everything in a file with its checksums, and puts every batch together.
///
/// # Errors
///
/// [`Error::Corrupt`] with the place of the first damage.
pub fn check(file: &TierFile) -> Result<()> {
    file.check_bytes()?;
    let mut next = file.about().base_offset;
    for group in 0..file.group_count() {
        let loaded = file.load(group)?;
        for batch in file.rebuild(group, &loaded)? {
            let header = batch.header();
            if header.base_offset < next || header.next_offset() > file.about().end_offset {
                let detail =
                    format!("record batch at offset {} is out of place", header.base_offset);
                return Err(Error::corrupt(file.path(), 0, detail));
            }
            next = header.next_offset();
        }
    }
    Ok(())
}

/// What of a header must not differ: all but what a compressed batch has by being compressed.
fn essence(header: &BatchHeader) -> BatchHeader {
    BatchHeader {
        size_bytes: 0,
        crc: 0,
        attributes: header.attributes.with_compression(Compression::None),
        compression: Compression::None,
        ..*header
    }
}

fn compare_batch(logged: &Batch, served: &Batch, limit: usize) -> Result<(), String> {
    if logged.bytes() == served.bytes() {
        return Ok(());
    }
    let header = logged.header();
    if header.compression == Compression::None
        && header.timestamp_type() == TimestampType::CreateTime
    {
        return Err("its bytes are not those of the log".to_owned());
    }
    if essence(header) != essence(served.header()) {
        return Err("its header is not that of the log".to_owned());
    }
    let records = |batch: &Batch| batch.records(limit).map_err(|error| error.to_string());
    let (logged, served) = (records(logged)?, records(served)?);
    let mut expected = logged.iter();
    for found in &served {
        let found = found.map_err(|error| error.to_string())?;
        let expected = expected.next().transpose().map_err(|error| error.to_string())?;
        if !expected.is_some_and(|expected| same(&expected, &found)) {
            return Err(format!("the record at offset {} is not that of the log", found.offset));
        }
    }
    match expected.next() {
        None => Ok(()),
        Some(_) => Err("records are missing".to_owned()),
    }
}

fn same(left: &RecordView<'_>, right: &RecordView<'_>) -> bool {
    (left.offset, left.timestamp, left.key, left.value)
        == (right.offset, right.timestamp, right.key, right.value)
        && left.headers.eq(right.headers)
}

/// Compares the rows of a batch that is kept as it was with its records, as far as rows can say them.
fn compare_rows(logged: &Batch, rows: &Rows<'_>, first: usize, limit: usize) -> Result<(), String> {
    let records = logged.records(limit).map_err(|error| error.to_string())?;
    let mut headers = Vec::new();
    for (index, record) in (first..).zip(records.iter()) {
        let record = record.map_err(|error| error.to_string())?;
        let row = rows.get(index, &mut headers);
        let expected: Vec<Header<'_>> = record.headers.collect();
        let expected = Row {
            offset: record.offset,
            timestamp: record.timestamp,
            key: record.key,
            value: record.value,
            headers: &expected,
        };
        if !row.says(&expected) {
            return Err(format!("the row of offset {} is not that of the log", record.offset));
        }
    }
    Ok(())
}
