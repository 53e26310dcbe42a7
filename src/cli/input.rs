//! Reading records from files and standard input, on a thread of their own.
//!
//! Input compressed with gzip or zstd is recognised by its first bytes and decompressed; other
//! compression formats are refused, so that no record is made from compressed bytes. A byte order
//! mark does not count as part of the first line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use arrow::array::{BinaryViewArray, RecordBatch};
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc;

use super::Failure;
use super::csv::{self, CsvTypes, RowLines};
use super::produce::not_json_object;
use crate::columnar::ValueFormat;
use crate::error::{Error, Result};

/// What a file contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// One record per line, unchanged.
    Lines,
    /// One JSON object per line, unchanged.
    Json,
    /// CSV with a header; a record's value is the row as a JSON object. Its members are text (an
    /// empty field is null) unless --infer or --schema says otherwise.
    Csv,
    /// Parquet; a record's value is the row as a JSON object.
    Parquet,
}

impl InputFormat {
    /// The format that the file's name suggests, or lines.
    pub(super) fn of(file: Option<&Path>) -> Self {
        let named = file.map(|file| match file.extension().and_then(|end| end.to_str()) {
            Some("gz" | "zst" | "zstd") => file.with_extension(""),
            _ => file.to_path_buf(),
        });
        let extension = named.as_deref().and_then(|file| file.extension()?.to_str());
        match extension {
            Some("json" | "jsonl" | "ndjson") => Self::Json,
            Some("csv") => Self::Csv,
            Some("parquet" | "pq") => Self::Parquet,
            _ => Self::Lines,
        }
    }
}

/// The rows of a table at most.
const ROWS: usize = 16 * 1024;
const LINES_MAX: usize = 1_000;
/// How many pieces are read ahead.
const AHEAD: usize = 4;

/// Some lines without their ends, or the error that ended the reading.
pub(super) type Lines = Result<Vec<Vec<u8>>>;

fn open(file: Option<&Path>) -> Result<Source> {
    let raw: Box<dyn Read + Send> = match file {
        Some(path) => {
            let file = File::options().read(true).open(path);
            Box::new(file.map_err(|error| Error::io("open", path, error))?)
        }
        None => Box::new(io::stdin()),
    };
    Ok(Source::Fresh(Some(BufReader::with_capacity(1 << 16, raw))))
}

/// The input, decompressed; the first read finds out how.
enum Source {
    Fresh(Option<BufReader<Box<dyn Read + Send>>>),
    Known(Box<dyn Read + Send>),
}

impl Source {
    fn recognise(mut raw: BufReader<Box<dyn Read + Send>>) -> io::Result<Box<dyn Read + Send>> {
        const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
        let start = raw.fill_buf()?;
        let refused: Option<&str> = match start {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some("compressed with xz"),
            [b'B', b'Z', b'h', b'1'..=b'9', b'1', b'A', b'Y', ..] => Some("compressed with bzip2"),
            [4, 0x22, 0x4d, 0x18, ..] => Some("compressed with lz4"),
            [b'P', b'K', 3, 4, ..] => Some("a zip archive"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
            _ => None,
        };
        if let Some(what) = refused {
            let detail = format!("it is {what}, which ottla cannot read: convert it first");
            return Err(io::Error::new(io::ErrorKind::InvalidData, detail));
        }
        if start.starts_with(&[0x1f, 0x8b]) {
            return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(raw)));
        }
        if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return Ok(Box::new(zstd::stream::read::Decoder::with_buffer(raw)?));
        }
        if start.starts_with(BYTE_ORDER_MARK) {
            raw.consume(BYTE_ORDER_MARK.len());
        }
        Ok(Box::new(raw))
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self {
                Self::Known(source) => return source.read(buffer),
                Self::Fresh(raw) => {
                    let Some(raw) = raw.take() else { return Ok(0) };
                    *self = Self::Known(Self::recognise(raw)?);
                }
            }
        }
    }
}

pub(super) fn name(file: Option<&Path>) -> &Path {
    file.unwrap_or_else(|| Path::new("standard input"))
}

/// Reads lines; those available at once are handed over together.
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

/// Tables, read ahead.
pub(super) type Rows = mpsc::Receiver<Result<RecordBatch>>;

pub(super) type Tables = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Reads rows.
pub(super) fn tables(
    file: Option<&Path>,
    format: InputFormat,
    types: CsvTypes,
    lines: &RowLines,
) -> Result<Rows, Failure> {
    let tables =
        match format {
            InputFormat::Csv => csv::tables(open(file)?, name(file), types, lines.clone())
                .map_err(|failed| match failed {
                    csv::Refused::Types(error) => error.into(),
                    csv::Refused::File(error) => Failure::data(error),
                })?,
            InputFormat::Parquet => parquet(file).map_err(Failure::data)?,
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

/// Reads JSON objects, one per line, as rows of this format.
pub(super) fn objects(file: Option<&Path>, format: ValueFormat) -> Result<Rows> {
    let mut lines = lines(file)?;
    let path = name(file).to_path_buf();
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut done = 0_usize;
        while let Some(some) = lines.blocking_recv() {
            let rows = some.and_then(|some| {
                let rows = objects_of(&some, &format).map_err(|(line, detail)| {
                    let line = done.saturating_add(line);
                    Error::invalid(format!("{}, line {line}: {detail}", path.display()))
                });
                done = done.saturating_add(some.len());
                rows
            });
            let is_failed = rows.is_err();
            if sender.blocking_send(rows).is_err() || is_failed {
                return;
            }
        }
    });
    Ok(receiver)
}

/// The objects on these lines as rows; otherwise the first line that is none, counted from 1, and why.
fn objects_of(lines: &[Vec<u8>], format: &ValueFormat) -> Result<RecordBatch, (usize, String)> {
    for (line, text) in lines.iter().enumerate() {
        // A decoder of values takes an empty one for a null.
        if text.trim_ascii().is_empty() {
            return Err((line.saturating_add(1), not_json_object(text)));
        }
    }
    let values = BinaryViewArray::from_iter_values(lines);
    format.rows_of(&values).map_err(|error| match error {
        Error::Row { row, detail } => (row.saturating_add(1), detail),
        other => (1, other.to_string()),
    })
}

fn parquet(file: Option<&Path>) -> Result<Tables> {
    let path = name(file).to_path_buf();
    let broken = |path: &Path, error: &dyn std::fmt::Display| {
        Error::invalid(format!("{}: {error}", path.display()))
    };
    // The metadata of a Parquet file is at its end: input that cannot seek is read whole.
    let reader = match file {
        Some(file) if is_parquet(file)? => {
            let opened = File::options().read(true).open(file);
            let opened = opened.map_err(|error| Error::io("open", file, error))?;
            ParquetRecordBatchReaderBuilder::try_new(opened)
                .and_then(|builder| builder.with_batch_size(ROWS).build())
        }
        file => {
            let mut bytes = Vec::new();
            let read = open(file)?.read_to_end(&mut bytes);
            read.map_err(|error| Error::io("read", &path, error))?;
            ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes))
                .and_then(|builder| builder.with_batch_size(ROWS).build())
        }
    };
    let reader = reader.map_err(|error| broken(&path, &error))?;
    Ok(Box::new(reader.map(move |rows| rows.map_err(|error| broken(&path, &error)))))
}

fn is_parquet(file: &Path) -> Result<bool> {
    let mut start = [0; 4];
    let opened = File::options().read(true).open(file);
    let mut opened = opened.map_err(|error| Error::io("open", file, error))?;
    Ok(opened.read_exact(&mut start).is_ok() && start == *b"PAR1")
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(name);
        File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap()
            .write_all(bytes)
            .unwrap();
        (directory, path)
    }

    fn text(bytes: &[u8]) -> io::Result<String> {
        let (_directory, path) = written("x", bytes);
        let mut text = String::new();
        open(Some(&path)).unwrap().read_to_string(&mut text).map(|_| text)
    }

    #[test]
    fn compressed_files_are_told_by_their_first_bytes() {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(b"a\nb\n").unwrap();
        let gzip = gzip.finish().unwrap();
        assert_eq!(text(&gzip).unwrap(), "a\nb\n");
        assert_eq!(text(&[gzip.clone(), gzip.clone()].concat()).unwrap(), "a\nb\na\nb\n");
        assert!(text(&gzip[..gzip.len() - 3]).is_err(), "a truncated file is an error");
        let zstd = zstd::encode_all(&b"c\n"[..], 1).unwrap();
        assert_eq!(text(&zstd).unwrap(), "c\n");
        assert_eq!(text(b"\xef\xbb\xbfid\n").unwrap(), "id\n");
        for refused in [&b"\xfd7zXZ\0.."[..], b"PK\x03\x04..", b"BZh91AY&SY", b"\xff\xfei\0"] {
            assert!(text(refused).unwrap_err().to_string().contains("convert it first"));
        }
        for plain in ["", "x", "BZhello", "PKW\n"] {
            assert_eq!(text(plain.as_bytes()).unwrap(), plain);
        }
    }

    #[test]
    fn the_name_of_a_compressed_file_says_what_is_in_it() {
        let of = |name: &str| InputFormat::of(Some(Path::new(name)));
        assert_eq!(of("a.csv.gz"), InputFormat::Csv);
        assert_eq!(of("a.jsonl.zst"), InputFormat::Json);
        assert_eq!(of("a.parquet"), InputFormat::Parquet);
        assert_eq!(of("a.gz"), InputFormat::Lines);
    }
}
