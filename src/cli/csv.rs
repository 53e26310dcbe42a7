//! CSV to rows.
//!
//! Splitting follows RFC 4180, but lines may end in any of the three ways. Text behind a closing quote is
//! refused: what the field was meant to be is anybody's guess. Two more things are done here that readers of CSV
//! usually do not: an empty line is an empty field where there is one column and is refused where there
//! are several, since skipping it would lose a row; and every error names the line of the file, also
//! behind fields of several lines.

use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray, RecordBatch, StringArray,
    StringBuilder,
};
use arrow::compute::cast;
use arrow::compute::kernels::cast_utils::Parser;
use arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, Fields, Float64Type, Int64Type, Schema, SchemaRef,
    TimeUnit, UInt64Type,
};

use super::input::Tables;
use crate::columnar::{excerpt, parse_time};
use crate::error::{Error, Result};

/// How many rows are read to infer the types of columns.
const INFER_ROWS: usize = 1_000;
/// The rows of a table at most, and the bytes after which it has enough.
const ROWS: usize = 16 * 1024;
const TABLE_BYTES: usize = 16 << 20;
/// What a whole number of a column that was inferred as float64 would have to be.
const ROUNDED: &str = "equal to a float64, which its column was inferred to be and which would round it; \
                       --schema NAME=float64 rounds such numbers";
/// The longest row. Without a limit, a quote that is never closed would have the rest of the file read
/// into memory.
const ROW_BYTES_MAX: usize = 1 << 30;

/// The types of a CSV file's columns; text by default.
#[derive(Clone, Debug, Default)]
pub(super) struct CsvTypes {
    /// Whether types are inferred from the first rows.
    pub(super) is_inferred: bool,
    /// Names of columns and of their types.
    pub(super) named: Vec<(String, String)>,
    /// The column that is the timestamp of records.
    pub(super) timestamp: Option<String>,
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
            let name = field.name();
            let named = self.named.iter().find(|(one, _)| one == name);
            let data_type = match named {
                Some((_, data_type)) => type_named(data_type)?,
                None if self.is_inferred && !field.data_type().is_null() => {
                    field.data_type().clone()
                }
                None => DataType::Utf8,
            };
            if data_type == DataType::Utf8 && self.is_timestamp(name) {
                let infer = if self.is_inferred { "" } else { ", or --infer" };
                return Err(Error::invalid(format!(
                    "--timestamp {name}: the column is text; have it read as times with \
                     --schema {name}=timestamp{infer}"
                )));
            }
            Ok(Field::new(name, data_type, true))
        };
        Ok(Schema::new(inferred.fields().iter().map(field).collect::<Result<Vec<_>>>()?))
    }

    fn is_timestamp(&self, name: &str) -> bool {
        self.timestamp.as_deref() == Some(name)
    }
}

/// Fields from the names of columns and of their types; a time has this zone.
pub(super) fn fields_named(named: &[(String, String)], zone: Option<&str>) -> Result<Fields> {
    let field = |(name, data_type): &(String, String)| {
        let data_type = match type_named(data_type)? {
            DataType::Timestamp(unit, None) => DataType::Timestamp(unit, zone.map(Into::into)),
            other => other,
        };
        Ok(Field::new(name, data_type, true))
    };
    Ok(named.iter().map(field).collect::<Result<Vec<_>>>()?.into())
}

fn type_named(name: &str) -> Result<DataType> {
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
                "--schema: {other:?} is not a type for a column: use text, int64, uint64, \
                 float64, bool, date or timestamp (ISO 8601, UTC)"
            )));
        }
    })
}

/// On which line of the file each row begins, for errors that only know the row.
#[derive(Clone, Debug, Default)]
pub(super) struct RowLines(Arc<Mutex<Vec<(usize, u64)>>>);

impl RowLines {
    /// Notes the line of the next row; only rows that are not on the line after the one before take
    /// memory.
    fn note(&self, row: usize, line: u64) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.last().is_none_or(|&(first, at)| line_in(first, at, row) != line) {
            known.push((row, line));
        }
    }

    /// The line of a row; none for files without lines.
    pub(super) fn line_of(&self, row: usize) -> Option<u64> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = known.partition_point(|&(first, _)| first <= row).checked_sub(1)?;
        known.get(place).map(|&(first, at)| line_in(first, at, row))
    }
}

const fn line_in(first: usize, at: u64, row: usize) -> u64 {
    at.saturating_add(row.saturating_sub(first) as u64)
}

/// Why a file is not read.
#[derive(Debug)]
pub(super) enum Refused {
    /// Types that were asked for do not fit its columns.
    Types(Error),
    /// It cannot be read, or is no CSV.
    File(Error),
}

/// The rows of CSV with a header, in tables; `path` is for errors.
pub(super) fn tables(
    source: impl Read + Send + 'static,
    path: &Path,
    types: CsvTypes,
    lines: RowLines,
) -> Result<Tables, Refused> {
    let path = path.to_path_buf();
    let mut rows = Rows::new(source);
    if !rows.read(&path).map_err(Refused::File)? {
        return Ok(Box::new(std::iter::empty()));
    }
    if rows.is_empty_line() {
        let error = at(&path, rows.first_line, "it is empty, but must name the columns");
        return Err(Refused::File(error));
    }
    let names = (0..rows.ends.len()).map(|column| rows.text(column, &path));
    let names = names.collect::<Result<Vec<String>>>().map_err(Refused::File)?;
    let mut reader = Reader { rows, path, names, empty_line: None, row: 0, row_lines: lines };
    let mut first = reader.texts().map_err(Refused::File)?;
    let wanted = match &first {
        Some(texts) => inferred(&texts.rows, types.is_inferred)
            .and_then(|inferred| types.apply(&inferred))
            .map_err(Refused::Types)?,
        None => return Ok(Box::new(std::iter::empty())),
    };
    let wanted = Arc::new(wanted);
    Ok(Box::new(std::iter::from_fn(move || {
        let texts = match first.take() {
            Some(texts) => Ok(Some(texts)),
            None => reader.texts(),
        };
        let typed = |texts: Texts| {
            let typed = texts.typed(&wanted, &types);
            typed.map_err(|(line, detail)| at(&reader.path, line, &detail))
        };
        texts.and_then(|texts| texts.map(typed).transpose()).transpose()
    })))
}

fn at(path: &Path, line: u64, detail: &str) -> Error {
    Error::invalid(format!("{}, line {line}: {detail}", path.display()))
}

/// The types that the first rows suggest; text unless wanted.
fn inferred(texts: &RecordBatch, is_wanted: bool) -> Result<Schema> {
    let mut first = Vec::new();
    let mut put = |fields: &mut dyn Iterator<Item = &str>| {
        for (column, field) in fields.enumerate() {
            first.extend_from_slice(if column > 0 { b",\"" } else { b"\"" });
            first.extend_from_slice(field.replace('"', "\"\"").as_bytes());
            first.push(b'"');
        }
        first.push(b'\n');
    };
    if !is_wanted {
        return Ok(texts.schema_ref().as_ref().clone());
    }
    put(&mut texts.schema_ref().fields().iter().map(|field| field.name().as_str()));
    let columns: Vec<&StringArray> = texts.columns().iter().filter_map(as_texts).collect();
    for row in 0..texts.num_rows().min(INFER_ROWS) {
        put(&mut columns.iter().map(|one| if one.is_valid(row) { one.value(row) } else { "" }));
    }
    let format = arrow::csv::reader::Format::default().with_header(true);
    let (schema, _) = format
        .infer_schema(Cursor::new(first), None)
        .map_err(|error| Error::invalid(format!("--infer: {error}")))?;
    let fields = schema.fields().iter().zip(columns).map(|(field, texts)| {
        let mut first = texts.iter().take(INFER_ROWS).flatten();
        let is_rounded = field.data_type() == &DataType::Float64 && first.any(is_rounded);
        let data_type = if is_rounded { DataType::Utf8 } else { field.data_type().clone() };
        Field::new(field.name(), data_type, true)
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// Whether a text is a whole number that no float of 64 bits is equal to.
fn is_rounded(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let float: Option<f64> = text.parse().ok();
    // All digits of a float, if it is a whole number.
    let shown = float.map(|float| format!("{:.0}", float.abs()));
    shown.as_deref() != Some(digits.trim_start_matches('0')) && digits.bytes().any(|it| it != b'0')
}

fn as_texts(column: &ArrayRef) -> Option<&StringArray> {
    column.as_any().downcast_ref()
}

/// Reads tables of text.
struct Reader<R> {
    rows: Rows<R>,
    path: PathBuf,
    names: Vec<String>,
    /// An empty line that must be one of those at the end.
    empty_line: Option<u64>,
    /// The next row, and the lines of those before it.
    row: usize,
    row_lines: RowLines,
}

/// Rows as text, and the lines on which they begin.
struct Texts {
    rows: RecordBatch,
    lines: Vec<u64>,
}

impl<R: Read> Reader<R> {
    /// The next rows.
    fn texts(&mut self) -> Result<Option<Texts>> {
        let mut columns: Vec<_> = self.names.iter().map(|_| StringBuilder::new()).collect();
        let mut lines = Vec::new();
        let mut size: usize = 0;
        while lines.len() < ROWS && size < TABLE_BYTES && self.rows.read(&self.path)? {
            let line = self.rows.first_line;
            if self.names.len() > 1 && self.rows.is_empty_line() {
                self.empty_line.get_or_insert(line);
                continue;
            }
            if let Some(line) = self.empty_line {
                let wanted = self.names.len();
                let detail = format!("it is empty, but the header names {wanted} columns");
                return Err(at(&self.path, line, &detail));
            }
            self.check_width(line)?;
            for (column, texts) in columns.iter_mut().enumerate() {
                match self.rows.text(column, &self.path)? {
                    text if text.is_empty() => texts.append_null(),
                    text => texts.append_value(text),
                }
            }
            size = size.saturating_add(self.rows.bytes.len());
            lines.push(line);
            self.row_lines.note(self.row, line);
            self.row = self.row.saturating_add(1);
        }
        if lines.is_empty() {
            return Ok(None);
        }
        let fields = self.names.iter().map(|name| Field::new(name, DataType::Utf8, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let columns = columns.into_iter().map(|mut texts| Arc::new(texts.finish()) as ArrayRef);
        let rows = RecordBatch::try_new(schema, columns.collect())
            .map_err(|error| Error::invalid(format!("{}: {error}", self.path.display())))?;
        Ok(Some(Texts { rows, lines }))
    }

    fn check_width(&self, line: u64) -> Result<()> {
        let (found, wanted) = (self.rows.ends.len(), self.names.len());
        if found == wanted {
            return Ok(());
        }
        let count = |count: usize, what: &str| {
            format!("{count} {what}{}", if count == 1 { "" } else { "s" })
        };
        let (fields, columns) = (count(found, "field"), count(wanted, "column"));
        Err(at(&self.path, line, &format!("it has {fields}, but the header names {columns}")))
    }
}

impl Texts {
    /// The rows in columns of these types; otherwise the line of the first text that does not fit.
    fn typed(&self, wanted: &SchemaRef, types: &CsvTypes) -> Result<RecordBatch, (u64, String)> {
        let first_line = self.lines.first().copied().unwrap_or_default();
        let mut columns = Vec::with_capacity(wanted.fields().len());
        for (field, texts) in wanted.fields().iter().zip(self.rows.columns()) {
            let name = field.name();
            let column = Column { name, texts, lines: &self.lines };
            if types.is_timestamp(name)
                && let Some(line) = column.first_empty()
            {
                let detail = format!("column {name:?} is empty, but --timestamp needs a time");
                return Err((line, detail));
            }
            let is_named = types.named.iter().any(|(one, _)| one == name);
            columns.push(column.typed(field.data_type(), is_named)?);
        }
        RecordBatch::try_new(Arc::clone(wanted), columns)
            .map_err(|error| (first_line, error.to_string()))
    }
}

/// A column of text.
struct Column<'a> {
    name: &'a str,
    texts: &'a ArrayRef,
    lines: &'a [u64],
}

impl Column<'_> {
    /// The line of the first empty field.
    fn first_empty(&self) -> Option<u64> {
        let row = (0..self.texts.len()).find(|&row| self.texts.is_null(row))?;
        self.lines.get(row).copied()
    }

    /// The column in its type; a type that was asked for by name may round its numbers.
    fn typed(&self, data_type: &DataType, is_named: bool) -> Result<ArrayRef, (u64, String)> {
        match data_type {
            DataType::Int64 => {
                self.numbers::<Int64Type>("an int64 (a whole number of at most 64 bits)")
            }
            DataType::UInt64 => {
                self.numbers::<UInt64Type>("a uint64 (a whole number of at most 64 bits, from 0)")
            }
            DataType::Float64 => {
                let finite = |text: &str| Float64Type::parse(text).filter(|it| it.is_finite());
                let numbers = self.each(|text| match finite(text) {
                    _ if !is_named && is_rounded(text) => Err(ROUNDED.to_owned()),
                    number => number.ok_or_else(|| "a float64 (a finite number)".to_owned()),
                });
                Ok(Arc::new(PrimitiveArray::<Float64Type>::from(numbers?)))
            }
            DataType::Boolean => {
                let truths = self.each(|text| match text.to_ascii_lowercase().as_str() {
                    "true" => Ok(true),
                    "false" => Ok(false),
                    _ => Err("a bool (true or false)".to_owned()),
                });
                Ok(Arc::new(BooleanArray::from(truths?)))
            }
            DataType::Date32 => self.numbers::<Date32Type>("a date (such as 2026-01-31)"),
            DataType::Timestamp(unit, _) => {
                // Arrow's parser would cut off digits.
                let times = self.each(|text| parse_time(text.trim(), *unit))?;
                let times = PrimitiveArray::<Int64Type>::from(times);
                cast(&times, data_type).map_err(|error| (0, error.to_string()))
            }
            _ => Ok(Arc::clone(self.texts)),
        }
    }

    fn numbers<T: ArrowPrimitiveType + Parser>(
        &self,
        wanted: &str,
    ) -> Result<ArrayRef, (u64, String)> {
        let numbers = self.each(|text| T::parse(text).ok_or_else(|| wanted.to_owned()))?;
        Ok(Arc::new(numbers.into_iter().collect::<PrimitiveArray<T>>()))
    }

    /// Reads every text; `one` returns what it would have to be.
    fn each<T>(
        &self,
        one: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Vec<Option<T>>, (u64, String)> {
        let texts = as_texts(self.texts).into_iter().flatten().zip(self.lines);
        let read = |(text, line): (Option<&str>, &u64)| {
            let value = text.map(&one).transpose();
            value.map_err(|wanted| {
                let (name, text) = (self.name, excerpt(text.unwrap_or_default().as_bytes(), 0));
                let detail = format!(
                    "column {name:?}: {text} is not {wanted}; --schema {name}=text leaves the \
                     column as text"
                );
                (*line, detail)
            })
        };
        texts.map(read).collect()
    }
}

/// Where in a row a byte is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// At the first byte of the row.
    RowStart,
    /// At the first byte of another field.
    FieldStart,
    /// In a field without quotes.
    Plain,
    /// Between quotes.
    Quoted,
    /// Behind a quote, which closes the field unless another one follows.
    Quote,
}

/// Splits CSV into rows and their fields.
struct Rows<R> {
    source: BufReader<R>,
    /// The line that is read next, from 1.
    line: u64,
    /// Whether the last byte was `\r`, which ends a line together with a following `\n`.
    is_after_return: bool,
    /// The line on which the current row begins.
    first_line: u64,
    /// The fields of the current row without their quotes, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
    /// Whether the current row has quotes.
    is_quoted: bool,
}

impl<R: Read> Rows<R> {
    fn new(source: R) -> Self {
        Self {
            source: BufReader::with_capacity(1 << 16, source),
            line: 1,
            is_after_return: false,
            first_line: 1,
            bytes: Vec::new(),
            ends: Vec::new(),
            is_quoted: false,
        }
    }

    /// Whether the current row is a line without anything in it.
    fn is_empty_line(&self) -> bool {
        self.ends == [0] && !self.is_quoted
    }

    /// A field of the current row.
    fn text(&self, column: usize, path: &Path) -> Result<String> {
        let start = column.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(column).copied().unwrap_or_default();
        let bytes = self.bytes.get(start.copied().unwrap_or(0)..end).unwrap_or_default();
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(error) => {
                let detail = format!(
                    "field {} is not UTF-8, so convert the file first: {}",
                    column.saturating_add(1),
                    excerpt(bytes, error.valid_up_to())
                );
                Err(at(path, self.first_line, &detail))
            }
        }
    }

    /// Reads the next row; false at the end.
    fn read(&mut self, path: &Path) -> Result<bool> {
        self.bytes.clear();
        self.ends.clear();
        self.is_quoted = false;
        self.first_line = self.line;
        let mut place = Place::RowStart;
        loop {
            let chunk = match self.source.fill_buf() {
                Ok(chunk) => chunk,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("read", path, error)),
            };
            if chunk.is_empty() {
                return self.end(place, path);
            }
            let mut used: usize = 0;
            let mut is_whole = false;
            for &byte in chunk {
                used = used.saturating_add(1);
                let is_line_end = matches!(byte, b'\n' | b'\r');
                let is_second = byte == b'\n' && self.is_after_return;
                self.is_after_return = byte == b'\r';
                if is_line_end && !is_second {
                    self.line = self.line.saturating_add(1);
                }
                place = match (place, byte) {
                    (Place::Quoted, b'"') => Place::Quote,
                    (Place::Quoted, _) | (Place::Quote, b'"') => {
                        self.bytes.push(byte);
                        Place::Quoted
                    }
                    (Place::RowStart, b'\n') if is_second => {
                        // It belongs to the line before.
                        Place::RowStart
                    }
                    (_, b'\n' | b'\r') => {
                        is_whole = true;
                        break;
                    }
                    (_, b',') => {
                        self.ends.push(self.bytes.len());
                        Place::FieldStart
                    }
                    (Place::RowStart | Place::FieldStart, b'"') => {
                        self.is_quoted = true;
                        Place::Quoted
                    }
                    (Place::Quote, _) => {
                        let detail = format!(
                            "field {} goes on behind its closing quote; inside of a quoted field, a \
                             quote is written twice",
                            self.ends.len().saturating_add(1)
                        );
                        return Err(at(path, self.line, &detail));
                    }
                    _ => {
                        self.bytes.push(byte);
                        Place::Plain
                    }
                };
            }
            self.source.consume(used);
            if is_whole {
                self.ends.push(self.bytes.len());
                return Ok(true);
            }
            if self.bytes.len() > ROW_BYTES_MAX {
                let detail = "the row that begins here has more than 1 GiB; is a quote not closed?";
                return Err(at(path, self.first_line, detail));
            }
        }
    }

    /// Ends the last row, which may lack the end of its line.
    fn end(&mut self, place: Place, path: &Path) -> Result<bool> {
        match place {
            Place::RowStart => Ok(false),
            Place::Quoted => {
                let detail = "a quote is opened in the row that begins here and not closed until \
                              the end of the file";
                Err(at(path, self.first_line, detail))
            }
            Place::FieldStart | Place::Plain | Place::Quote => {
                self.ends.push(self.bytes.len());
                Ok(true)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::datatypes::TimestampMicrosecondType;
    use proptest::prelude::*;

    use super::*;

    fn read(text: impl AsRef<[u8]>, types: &CsvTypes) -> Result<Vec<RecordBatch>> {
        let source = Cursor::new(text.as_ref().to_vec());
        match tables(source, Path::new("x.csv"), types.clone(), RowLines::default()) {
            Ok(tables) => tables.collect(),
            Err(Refused::Types(error) | Refused::File(error)) => Err(error),
        }
    }

    fn named(name: &str, kind: &str) -> CsvTypes {
        CsvTypes { named: vec![(name.to_owned(), kind.to_owned())], ..CsvTypes::default() }
    }

    fn inferring() -> CsvTypes {
        CsvTypes { is_inferred: true, ..CsvTypes::default() }
    }

    fn texts(text: impl AsRef<[u8]>) -> Result<Vec<Vec<Option<String>>>> {
        let mut rows = Vec::new();
        for table in read(text, &CsvTypes::default())? {
            let columns: Vec<_> = table.columns().iter().filter_map(as_texts).collect();
            for row in 0..table.num_rows() {
                let field = |one: &&StringArray| one.is_valid(row).then(|| one.value(row).into());
                rows.push(columns.iter().map(field).collect());
            }
        }
        Ok(rows)
    }

    fn refusal(text: impl AsRef<[u8]>, types: &CsvTypes) -> String {
        read(text, types).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_line_is_a_null_in_one_column_and_an_error_between_rows_of_several() {
        let one = |values: [Option<&str>; 3]| values.map(|it| vec![it.map(str::to_owned)]).to_vec();
        for end in ["\n", "\r\n", "\r"] {
            let text = |text: &str| text.replace('\n', end);
            let wanted = one([Some("1"), None, Some("3")]);
            assert_eq!(texts(text("a\n1\n\n3\n")).unwrap(), wanted);
            assert_eq!(texts(text("a\n1\n\"\"\n3")).unwrap(), wanted);
            assert_eq!(texts(text("a\n1\n2\n\n")).unwrap(), one([Some("1"), Some("2"), None]));
            assert_eq!(texts(text("a,b\n1,2\n\n\n")).unwrap().len(), 1, "at the end of the file");
            let error = refusal(text("a,b\n1,2\n\n\n3,4\n"), &CsvTypes::default());
            assert!(error.contains("x.csv, line 3: it is empty, but"), "{error}");
            let error = refusal(text("\n1\n2\n"), &CsvTypes::default());
            assert!(error.contains("x.csv, line 1: it is empty, but must name"), "{error}");
        }
        assert!(texts("").unwrap().is_empty());
        assert!(texts("a,b\n").unwrap().is_empty());
    }

    #[test]
    fn each_row_has_its_line() {
        let lines = RowLines::default();
        let text = "a,b\n1,x\n2,\"y\nz\"\n3,x\n4,x\n5,\"\n\n\"\n6,x\n";
        let source = Cursor::new(text.as_bytes().to_vec());
        let path = Path::new("x.csv");
        let read = tables(source, path, CsvTypes::default(), lines.clone()).unwrap();
        assert_eq!(read.map(|table| table.unwrap().num_rows()).sum::<usize>(), 6);
        let found: Vec<_> = (0..6).map(|row| lines.line_of(row)).collect();
        assert_eq!(found, [2, 3, 5, 6, 7, 10].map(Some));
        assert_eq!(lines.0.lock().unwrap().len(), 3, "those behind rows of one line take nothing");
        assert_eq!(RowLines::default().line_of(0), None);
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let int = named("n", "int64");
        let error = refusal("n,t\n1,x\nabc,y\n", &int);
        let wanted = "x.csv, line 3: column \"n\": abc is not an int64 (a whole number of at most \
                      64 bits); --schema n=text leaves the column as text";
        assert!(error.contains(wanted), "{error}");
        for end in ["\n", "\r\n", "\r"] {
            let text = "n,t\n1,\"a\nb\n\"\n2,\"\n\"\nabc,\n".replace('\n', end);
            let error = refusal(text, &int);
            assert!(error.contains("line 7: column \"n\": abc is not"), "{error}");
        }
        for (kind, text) in [
            ("uint64", "-1"),
            ("float64", "NaN"),
            ("bool", "yes"),
            ("date", "2026-02-30"),
            ("timestamp", "soon"),
        ] {
            let error = refusal(format!("n\n\n{text}\n"), &named("n", kind));
            assert!(error.contains(&format!("line 3: column \"n\": {text} is not a")), "{error}");
        }
        let many = format!("n\n{}x\n", "1\n".repeat(ROWS + 5));
        let error = refusal(many, &inferring());
        assert!(error.contains(&format!("line {}: column \"n\": x is", ROWS + 7)), "{error}");
        for (text, wanted) in [
            (&b"a,b\n1,2\n3\n"[..], "line 3: it has 1 field, but the header names 2 columns"),
            (b"a\n1\n3,4\n", "line 3: it has 2 fields, but the header names 1 column"),
            (b"a,b\n1,gr\xfcn\n", "line 2: field 2 is not UTF-8, so convert the file first: gr"),
            (b"a,b\n1,\"2\n3,4\n", "line 2: a quote is opened in the row that begins here"),
            (b"a,b\n1,\"x\"y\n", "line 2: field 2 goes on behind its closing quote"),
            (b"a,b\n\"1\n\n\" ,2\n", "line 4: field 1 goes on behind its closing quote"),
        ] {
            for types in [CsvTypes::default(), inferring()] {
                let error = refusal(text, &types);
                assert!(error.contains(wanted), "{error}");
            }
        }
    }

    #[test]
    fn a_whole_number_is_not_rounded_unless_floats_are_asked_for() {
        let kind = |text: &str, types: &CsvTypes| {
            let tables = read(text, types).unwrap();
            tables[0].schema().field(0).data_type().clone()
        };
        for (text, wanted) in [
            ("n\n1\n0.5\n", DataType::Float64),
            ("n\n9007199254740992\n0.5\n", DataType::Float64),
            ("n\n9007199254740993\n0.5\n", DataType::Utf8),
            ("n\n0.5\n-9007199254740993\n", DataType::Utf8),
            ("n\n0.5\n123456789012345678901234567890\n", DataType::Utf8),
            ("n\n9007199254740993\n", DataType::Int64),
        ] {
            assert_eq!(kind(text, &inferring()), wanted, "{text}");
        }
        assert_eq!(kind("n\n9007199254740993\n0.5\n", &named("n", "float64")), DataType::Float64);
        let late = format!("n\n{}9007199254740993\n", "0.5\n".repeat(INFER_ROWS));
        let error = refusal(&late, &inferring());
        let wanted = "line 1002: column \"n\": 9007199254740993 is not equal to a float64";
        assert!(error.contains(wanted), "{error}");
        read(&late, &named("n", "float64")).unwrap();
        for exact in ["0", "-0", "007", "18446744073709551616", "1e400", "x", "", "-", "0.1"] {
            assert!(!is_rounded(exact), "{exact}");
        }
        let huge = "1".repeat(400);
        for rounded in ["9007199254740993", "-9007199254740993", "0018446744073709551617", &huge] {
            assert!(is_rounded(rounded), "{rounded}");
        }
    }

    #[test]
    fn a_column_of_timestamps_is_read_as_times_and_full() {
        let of = |types: CsvTypes| CsvTypes { timestamp: Some("t".to_owned()), ..types };
        let text = "t,n\n2024-01-01T10:00:00Z,1\n,2\n";
        let error = refusal(text, &of(CsvTypes::default()));
        assert!(error.contains("with --schema t=timestamp, or --infer"), "{error}");
        for types in [inferring(), named("t", "timestamp")] {
            let error = refusal(text, &of(types));
            assert!(error.contains("line 3: column \"t\" is empty, but --timestamp"), "{error}");
        }
    }

    #[test]
    fn a_time_of_csv_with_digits_that_its_type_has_no_room_for_is_refused() {
        let times = |text: &str, types: &CsvTypes| {
            let tables = read(text, types)?;
            Ok::<_, Error>(tables[0].column(0).as_primitive::<TimestampMicrosecondType>().clone())
        };
        let good = "a,b\n2024-01-01T10:00:00.123456000Z,1\n,2\n2024-01-01,3\n";
        let read = times(good, &named("a", "timestamp")).unwrap();
        let wanted = [Some(1_704_103_200_123_456), None, Some(1_704_067_200_000_000)];
        assert_eq!(read.iter().collect::<Vec<_>>(), wanted);
        let finer = "a\n2024-01-01\n2024-01-01T10:00:00.1234567Z\n";
        let error = times(finer, &named("a", "timestamp")).unwrap_err().to_string();
        let wanted = "line 3: column \"a\": 2024-01-01T10:00:00.1234567Z is not a time without";
        assert!(error.contains(wanted), "{error}");
        let rows = String::from("a\n") + &"2024-01-01T10:00:00\n".repeat(INFER_ROWS);
        let error = refusal(rows + "2024-01-01T10:00:00.5\n", &inferring());
        assert!(error.contains("timestamp[ms] has them"), "{error}");
    }

    #[test]
    fn columns_of_csv_are_text_unless_asked() {
        let row = |types: &CsvTypes| -> Result<Vec<String>> {
            let tables = read("zip,phone,n\n01234,+1555,7\n", types)?;
            let shown = |column: &ArrayRef| {
                let value = arrow::util::display::array_value_to_string(column, 0).unwrap();
                format!("{value}: {}", column.data_type())
            };
            Ok(tables[0].columns().iter().map(shown).collect())
        };
        assert_eq!(row(&CsvTypes::default()).unwrap(), ["01234: Utf8", "+1555: Utf8", "7: Utf8"]);
        let inferred = CsvTypes { is_inferred: true, ..named("zip", "text") };
        assert_eq!(row(&inferred).unwrap(), ["01234: Utf8", "1555: Int64", "7: Int64"]);
        assert_eq!(row(&named("n", "int64")).unwrap(), ["01234: Utf8", "+1555: Utf8", "7: Int64"]);
        for wrong in [named("m", "int64"), named("n", "integer128"), named("phone", "bool")] {
            row(&wrong).unwrap_err();
        }
    }

    proptest! {
        #[test]
        fn rows_are_split_as_arrow_splits_them(body in "[ab\",\n\r]{0,30}") {
            // Neither has what arrow's reader takes in silence.
            let text = format!("h,i\n{body}");
            let mut format = arrow::csv::ReaderBuilder::new(Arc::new(Schema::new(vec![
                Field::new("h", DataType::Utf8, true),
                Field::new("i", DataType::Utf8, true),
            ])));
            format = format.with_header(true);
            let theirs = format.build(Cursor::new(text.clone())).unwrap();
            let theirs: Result<Vec<_>, _> = theirs.collect();
            match (read(&text, &CsvTypes::default()), theirs) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Ok(ours), Err(error)) => prop_assert!(false, "{:?} {}", ours, error),
                (Err(error), Ok(_)) => {
                    let error = error.to_string();
                    let known = ["it is empty", "a quote is opened", "behind its closing quote"];
                    prop_assert!(known.iter().any(|one| error.contains(one)), "{}", error);
                }
                (Err(_), Err(_)) => {}
            }
        }
    }
}
