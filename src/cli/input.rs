//! Reading records from files and standard input, on a thread of their own.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc;

use super::Failure;
use crate::error::{Error, Result};

/// What a file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// A record per line, as it is.
    Lines,
    /// A JSON object per line, as it is.
    Json,
    /// CSV with a header; a record's value is a JSON object of the row.
    Csv,
    /// Parquet; a record's value is a JSON object of the row.
    Parquet,
}

impl InputFormat {
    /// What the name of the file says, else lines.
    pub(super) fn of(file: Option<&Path>) -> Self {
        let extension = file.and_then(|file| file.extension()?.to_str());
        match extension {
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            Some("csv") => Self::Csv,
            Some("parquet" | "pq") => Self::Parquet,
            _ => Self::Lines,
        }
    }
}

/// How many rows of a CSV file are looked at to find the types of its columns.
const INFER_ROWS: usize = 1_000;
/// How much of a CSV stream is kept for that.
const INFER_BYTES: u64 = 1 << 20;
const ROWS: usize = 16 * 1024;
const LINES_MAX: usize = 1_000;
/// How many pieces are read ahead.
const AHEAD: usize = 4;

/// Some lines without their ends, or the error that ended the reading.
pub(super) type Lines = Result<Vec<Vec<u8>>>;

fn open(file: Option<&Path>) -> Result<Box<dyn Read + Send>> {
    match file {
        Some(path) => {
            let file = File::options().read(true).open(path);
            Ok(Box::new(file.map_err(|error| Error::io("open", path, error))?))
        }
        None => Ok(Box::new(io::stdin())),
    }
}

fn name(file: Option<&Path>) -> &Path {
    file.unwrap_or_else(|| Path::new("standard input"))
}

/// Reads lines; those that are there at once come together.
pub(super) fn lines(file: Option<&Path>) -> Result<mpsc::Receiver<Lines>> {
    let mut reader = BufReader::with_capacity(1 << 16, open(file)?);
    let path = name(file).to_path_buf();
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut lines = Vec::new();
        loop {
            let mut line = Vec::new();
            match reader.read_until(b'\n', &mut line) {
                Ok(0) => break,
                Ok(_) => {
                    if line.ends_with(b"\n") {
                        line.pop();
                    }
                    if line.ends_with(b"\r") {
                        line.pop();
                    }
                    lines.push(line);
                }
                Err(error) => {
                    sender.blocking_send(Err(Error::io("read", &path, error))).ok();
                    return;
                }
            }
            let has_more = reader.buffer().contains(&b'\n');
            if (!has_more || lines.len() >= LINES_MAX)
                && sender.blocking_send(Ok(std::mem::take(&mut lines))).is_err()
            {
                return;
            }
        }
        if !lines.is_empty() {
            sender.blocking_send(Ok(lines)).ok();
        }
    });
    Ok(receiver)
}

type Tables = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Reads rows.
pub(super) fn tables(
    file: Option<&Path>,
    format: InputFormat,
) -> std::result::Result<mpsc::Receiver<Result<RecordBatch>>, Failure> {
    let tables = match format {
        InputFormat::Csv => csv(file)?,
        InputFormat::Parquet => parquet(file)?,
        InputFormat::Lines | InputFormat::Json => {
            return Err(Failure::Usage("lines are not rows".to_owned()));
        }
    };
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        for rows in tables {
            let is_failed = rows.is_err();
            if sender.blocking_send(rows).is_err() || is_failed {
                return;
            }
        }
    });
    Ok(receiver)
}

fn csv(file: Option<&Path>) -> Result<Tables> {
    let path = name(file).to_path_buf();
    let broken = move |error: arrow::error::ArrowError| {
        Error::invalid(format!("{}: {error}", path.display()))
    };
    let mut reader = open(file)?;
    let mut head = Vec::new();
    reader
        .by_ref()
        .take(INFER_BYTES)
        .read_to_end(&mut head)
        .map_err(|error| Error::io("read", name(file), error))?;
    // A line that was cut in two must not decide about types.
    let whole = match head.iter().rposition(|&byte| byte == b'\n') {
        Some(last) if head.len() as u64 == INFER_BYTES => head.get(..=last).unwrap_or(&head),
        _ => &head,
    };
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (schema, _) =
        format.infer_schema(Cursor::new(whole), Some(INFER_ROWS)).map_err(broken.clone())?;
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(schema))
        .with_format(format)
        .with_batch_size(ROWS)
        .build(Cursor::new(head).chain(reader))
        .map_err(broken.clone())?;
    Ok(Box::new(reader.map(move |rows| rows.map_err(&broken))))
}

fn parquet(file: Option<&Path>) -> Result<Tables> {
    let path = name(file).to_path_buf();
    let broken = |path: &Path, error: &dyn std::fmt::Display| {
        Error::invalid(format!("{}: {error}", path.display()))
    };
    let reader = match file {
        Some(file) => {
            let opened = File::options().read(true).open(file);
            let opened = opened.map_err(|error| Error::io("open", file, error))?;
            ParquetRecordBatchReaderBuilder::try_new(opened)
                .and_then(|builder| builder.with_batch_size(ROWS).build())
        }
        None => {
            // The description of a Parquet file is at its end.
            let mut bytes = Vec::new();
            io::stdin().read_to_end(&mut bytes).map_err(|error| Error::io("read", &path, error))?;
            ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
                .and_then(|builder| builder.with_batch_size(ROWS).build())
        }
    };
    let reader = reader.map_err(|error| broken(&path, &error))?;
    Ok(Box::new(reader.map(move |rows| rows.map_err(|error| broken(&path, &error)))))
}
