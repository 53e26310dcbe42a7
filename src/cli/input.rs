//! Reading records from files and standard input, on a thread of their own.
//!
//! Input compressed with gzip or zstd is recognised by its first bytes and decompressed; other
//! compression formats are refused, so that no record is made from compressed bytes. A byte order
//! mark does not count as part of the first line.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tokio::sync::mpsc;

use super::Failure;
use crate::columnar::parse_time;
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

/// How many rows of a CSV file are read to infer the types of its columns.
const INFER_ROWS: usize = 1_000;
/// How much of a CSV stream is buffered for that.
const INFER_BYTES: u64 = 1 << 20;
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

fn name(file: Option<&Path>) -> &Path {
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

type Tables = Box<dyn Iterator<Item = Result<RecordBatch>> + Send>;

/// Reads rows.
pub(super) fn tables(
    file: Option<&Path>,
    format: InputFormat,
    types: &CsvTypes,
) -> std::result::Result<mpsc::Receiver<Result<RecordBatch>>, Failure> {
    let tables = match format {
        InputFormat::Csv => csv(file, types)?,
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

/// The types of a CSV file's columns; text by default.
#[derive(Debug, Default)]
pub(super) struct CsvTypes {
    /// Whether types are inferred from the first rows.
    pub(super) is_inferred: bool,
    /// Names of columns and of their types.
    pub(super) named: Vec<(String, String)>,
}

impl CsvTypes {
    fn apply(&self, inferred: &Schema) -> Result<Schema> {
        let columns: Vec<&str> = inferred.fields().iter().map(|it| it.name().as_str()).collect();
        for (name, _) in &self.named {
            if !columns.contains(&name.as_str()) {
                let known = columns.join(", ");
                return Err(Error::invalid(format!(
                    "--schema: there is no column {name:?}; there are {known}"
                )));
            }
        }
        let field = |field: &FieldRef| -> Result<Field> {
            let named = self.named.iter().find(|(name, _)| name == field.name());
            let data_type = match named {
                Some((_, data_type)) => csv_type(data_type)?,
                None if self.is_inferred && !field.data_type().is_null() => {
                    field.data_type().clone()
                }
                None => DataType::Utf8,
            };
            Ok(Field::new(field.name(), data_type, true))
        };
        Ok(Schema::new(inferred.fields().iter().map(field).collect::<Result<Vec<_>>>()?))
    }
}

fn csv_type(name: &str) -> Result<DataType> {
    Ok(match name {
        "utf8" | "string" | "str" | "text" => DataType::Utf8,
        "int64" | "int" | "long" => DataType::Int64,
        "uint64" => DataType::UInt64,
        "float64" | "float" | "double" => DataType::Float64,
        "bool" | "boolean" => DataType::Boolean,
        "date" | "date32" => DataType::Date32,
        "timestamp" => DataType::Timestamp(TimeUnit::Microsecond, None),
        other => {
            return Err(Error::invalid(format!(
                "--schema: {other:?} is not a type for a CSV column: use text, int64, uint64, \
                 float64, bool, date or timestamp (ISO 8601, UTC)"
            )));
        }
    })
}

fn csv(file: Option<&Path>, types: &CsvTypes) -> Result<Tables> {
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
    // A line that was cut in two must not influence the types.
    let whole = match head.iter().rposition(|&byte| byte == b'\n') {
        Some(last) if head.len() as u64 == INFER_BYTES => head.get(..=last).unwrap_or(&head),
        _ => &head,
    };
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (inferred, _) =
        format.infer_schema(Cursor::new(whole), Some(INFER_ROWS)).map_err(broken.clone())?;
    let wanted = Arc::new(types.apply(&inferred)?);
    // Arrow's reader would cut off digits of times.
    let read_as = |field: &FieldRef| match field.data_type() {
        DataType::Timestamp(..) => Arc::new(Field::clone(field).with_data_type(DataType::Utf8)),
        _ => Arc::clone(field),
    };
    let texts = Schema::new(wanted.fields().iter().map(read_as).collect::<Vec<_>>());
    let reader = arrow::csv::ReaderBuilder::new(Arc::new(texts))
        .with_format(format)
        .with_batch_size(ROWS)
        .build(Cursor::new(head).chain(reader))
        .map_err(broken.clone())?;
    let path = name(file).to_path_buf();
    let mut read = 0_usize;
    Ok(Box::new(reader.map(move |rows| {
        let rows = rows.map_err(&broken)?;
        let first = read;
        read = read.saturating_add(rows.num_rows());
        with_times(&rows, &wanted, first)
            .map_err(|detail| Error::invalid(format!("{}: {detail}", path.display())))
    })))
}

/// The rows with the times that some columns have as text; `first` is the number of the first row.
fn with_times(
    rows: &RecordBatch,
    wanted: &SchemaRef,
    first: usize,
) -> std::result::Result<RecordBatch, String> {
    let column = |(field, texts): (&FieldRef, &ArrayRef)| {
        let DataType::Timestamp(unit, zone) = field.data_type() else {
            return Ok(Arc::clone(texts));
        };
        let one = |(row, text): (usize, Option<&str>)| {
            let time = text.map(|text| parse_time(text.trim(), *unit)).transpose();
            time.map_err(|wanted| {
                format!(
                    "column {:?}, row {}: {} is not {wanted}; or leave the column as text",
                    field.name(),
                    first.saturating_add(row),
                    text.unwrap_or_default()
                )
            })
        };
        let times = texts.as_string::<i32>().iter().enumerate().map(one);
        let times: Int64Array = times.collect::<std::result::Result<_, _>>()?;
        cast(&times, &DataType::Timestamp(*unit, zone.clone())).map_err(|error| error.to_string())
    };
    let columns = wanted.fields().iter().zip(rows.columns()).map(column);
    let columns = columns.collect::<std::result::Result<Vec<_>, String>>()?;
    RecordBatch::try_new(Arc::clone(wanted), columns).map_err(|error| error.to_string())
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

    use arrow::datatypes::TimestampMicrosecondType;

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

    fn row(types: &CsvTypes) -> Result<Vec<String>> {
        let (_directory, path) = written("x.csv", b"zip,phone,n\n01234,+1555,7\n");
        let rows = csv(Some(&path), types)?.next().unwrap()?;
        let shown = |column: &ArrayRef| {
            let value = arrow::util::display::array_value_to_string(column, 0).unwrap();
            format!("{value}: {}", column.data_type())
        };
        Ok(rows.columns().iter().map(shown).collect())
    }

    #[test]
    fn a_time_of_csv_with_digits_that_its_type_has_no_room_for_is_refused() {
        let read = |text: &str, types: CsvTypes| {
            let (_directory, path) = written("x.csv", text.as_bytes());
            let rows = csv(Some(&path), &types)?.next().unwrap()?;
            Ok::<_, Error>(rows.column(0).as_primitive::<TimestampMicrosecondType>().clone())
        };
        let named = || CsvTypes {
            is_inferred: false,
            named: vec![("a".to_owned(), "timestamp".to_owned())],
        };
        let good = "a,b\n2024-01-01T10:00:00.123456000Z,1\n,2\n2024-01-01,3\n";
        let times = read(good, named()).unwrap();
        let wanted = [Some(1_704_103_200_123_456), None, Some(1_704_067_200_000_000)];
        assert_eq!(times.iter().collect::<Vec<_>>(), wanted);
        let error = read("a\n2024-01-01\n2024-01-01T10:00:00.1234567Z\n", named()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("column \"a\", row 1: 2024-01-01T10:00:00.1234567Z is"), "{error}");
        let inferred = || CsvTypes { is_inferred: true, named: Vec::new() };
        let rows = String::from("a\n") + &"2024-01-01T10:00:00\n".repeat(INFER_ROWS);
        let error = read(&(rows + "2024-01-01T10:00:00.5\n"), inferred()).unwrap_err();
        assert!(error.to_string().contains("timestamp[ms] has them"), "{error}");
    }

    #[test]
    fn columns_of_csv_are_text_unless_asked() {
        let named = |name: &str, kind: &str| vec![(name.to_owned(), kind.to_owned())];
        assert_eq!(row(&CsvTypes::default()).unwrap(), ["01234: Utf8", "+1555: Utf8", "7: Utf8"]);
        let inferred = CsvTypes { is_inferred: true, named: named("zip", "text") };
        assert_eq!(row(&inferred).unwrap(), ["01234: Utf8", "1555: Int64", "7: Int64"]);
        let typed = CsvTypes { is_inferred: false, named: named("n", "int64") };
        assert_eq!(row(&typed).unwrap(), ["01234: Utf8", "+1555: Utf8", "7: Int64"]);
        for wrong in [named("m", "int64"), named("n", "integer128"), named("phone", "bool")] {
            row(&CsvTypes { is_inferred: false, named: wrong }).unwrap_err();
        }
    }
}
