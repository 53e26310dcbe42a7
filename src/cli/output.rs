//! Writing results: tables for people, JSON for programs, records in several forms.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use arrow::ipc::writer::StreamWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::options::Format;
use super::{CommandResult, Failure};
use crate::error::Error;

/// Writes rows of text as a table, or as a JSON array of objects.
pub(super) fn write_rows(format: Format, header: &[&str], rows: &[Vec<Value>]) -> CommandResult {
    match format {
        Format::Json => {
            let object = |row: &Vec<Value>| -> Value {
                header.iter().map(|name| name.replace(' ', "_")).zip(row.iter().cloned()).collect()
            };
            write_json(&Value::Array(rows.iter().map(object).collect()))
        }
        Format::Table => {
            let mut table = new_table(header);
            for row in rows {
                table.add_row(row.iter().map(plain));
            }
            writeln!(io::stdout(), "{table}").map_err(Failure::from)
        }
    }
}

/// Writes a value on one line.
pub(super) fn write_json(value: &Value) -> CommandResult {
    writeln!(io::stdout(), "{value}").map_err(Failure::from)
}

/// Writes a line.
pub(super) fn write_line(line: &str) -> CommandResult {
    writeln!(io::stdout(), "{line}").map_err(Failure::from)
}

/// Writes a line to standard error, for anything that is not a result.
pub(super) fn note(line: &str) {
    writeln!(io::stderr(), "{line}").ok();
}

fn new_table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    // Lines are not cut when piped.
    if io::stdout().is_terminal() {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(header.to_vec());
    table
}

/// A value in the format for people.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RecordFormat {
    /// The bytes of the value and a line end.
    Value,
    /// A table of the first rows, for people.
    Table,
    /// A JSON object per line.
    Json,
    /// CSV with a header.
    Csv,
    /// A Parquet file.
    Parquet,
    /// An Arrow IPC stream.
    ArrowIpc,
}

const NO_COLUMNS: &str = "the output is empty: no record came, so nothing has told the columns of values; --schema or \
                          --value-schema names them from the start";

/// Writes records batch by batch.
pub(super) struct RecordWriter {
    sink: Sink,
    /// The file that is written, to sync it; none for standard output and pipes.
    file: Option<File>,
    written: u64,
    /// The columns of the rows that came first, which all later ones must have.
    columns: Option<SchemaRef>,
}

enum Sink {
    Value(Box<dyn Write + Send>),
    Table {
        batches: Vec<RecordBatch>,
        limit: usize,
        out: Box<dyn Write + Send>,
    },
    Json(Box<dyn Write + Send>),
    Csv {
        out: Box<dyn Write + Send>,
        has_header: bool,
    },
    Parquet {
        out: Option<Box<dyn Write + Send>>,
        writer: Option<Box<parquet::arrow::ArrowWriter<Box<dyn Write + Send>>>>,
    },
    ArrowIpc {
        out: Option<Box<dyn Write + Send>>,
        writer: Option<Box<StreamWriter<Box<dyn Write + Send>>>>,
    },
}

fn format_error(error: impl std::fmt::Display) -> Failure {
    Failure::Error(Error::invalid(error.to_string()))
}

impl RecordWriter {
    /// Opens the file, or uses standard output. `limit` is the number of rows of a table.
    pub(super) fn open(
        format: RecordFormat,
        file: Option<&Path>,
        limit: usize,
    ) -> Result<Self, Failure> {
        let mut synced = None;
        let out: Box<dyn Write + Send> = match file {
            Some(path) => {
                let failed = |error| Error::io("create", path, error);
                let file = File::options().write(true).create(true).truncate(true).open(path);
                let file = file.map_err(failed)?;
                // A pipe, or a device such as /dev/stdout, cannot be synced.
                if file.metadata().map_err(failed)?.is_file() {
                    synced = Some(file.try_clone().map_err(failed)?);
                }
                Box::new(io::BufWriter::new(file))
            }
            None if matches!(format, RecordFormat::Parquet | RecordFormat::ArrowIpc)
                && io::stdout().is_terminal() =>
            {
                let detail = "this output is not for a terminal; use --output-file FILE, or a pipe";
                return Err(Failure::Usage(detail.to_owned()));
            }
            None => Box::new(io::BufWriter::new(io::stdout())),
        };
        let sink = match format {
            RecordFormat::Value => Sink::Value(out),
            RecordFormat::Table => Sink::Table { batches: Vec::new(), limit, out },
            RecordFormat::Json => Sink::Json(out),
            RecordFormat::Csv => Sink::Csv { out, has_header: false },
            RecordFormat::Parquet => Sink::Parquet { out: Some(out), writer: None },
            RecordFormat::ArrowIpc => Sink::ArrowIpc { out: Some(out), writer: None },
        };
        Ok(Self { sink, file: synced, written: 0, columns: None })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> CommandResult {
        if rows.num_rows() == 0 {
            // The columns of values may not be known yet.
            return Ok(());
        }
        self.check_columns(rows)?;
        self.written += rows.num_rows() as u64;
        match &mut self.sink {
            Sink::Value(out) => write_values(out, rows),
            Sink::Table { batches, limit, .. } => {
                let kept: usize = batches.iter().map(RecordBatch::num_rows).sum();
                let wanted = limit.saturating_sub(kept).min(rows.num_rows());
                if wanted > 0 {
                    batches.push(printable(&rows.slice(0, wanted))?);
                }
                Ok(())
            }
            Sink::Json(out) => {
                let rows = printable(rows)?;
                let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
                let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(&mut *out);
                writer.write(&rows).and_then(|()| writer.finish()).map_err(arrow_failure)
            }
            Sink::Csv { out, has_header } => {
                let rows = flat(&printable(rows)?)?;
                let builder = arrow::csv::WriterBuilder::new().with_header(!*has_header);
                *has_header = true;
                // Its writer makes a text of an error of the output; a vector has none.
                let mut lines = Vec::new();
                builder.build(&mut lines).write(&rows).map_err(arrow_failure)?;
                out.write_all(&lines).map_err(Failure::from)
            }
            Sink::Parquet { out, writer } => {
                if writer.is_none()
                    && let Some(out) = out.take()
                {
                    let compression = parquet::basic::Compression::ZSTD(
                        parquet::basic::ZstdLevel::try_new(1).map_err(format_error)?,
                    );
                    let properties = parquet::file::properties::WriterProperties::builder()
                        .set_compression(compression)
                        .build();
                    let made =
                        parquet::arrow::ArrowWriter::try_new(out, rows.schema(), Some(properties));
                    *writer = Some(Box::new(made.map_err(parquet_failure)?));
                }
                match writer {
                    Some(writer) => writer.write(rows).map_err(parquet_failure),
                    None => Ok(()),
                }
            }
            Sink::ArrowIpc { out, writer } => {
                if let Some(out) = out.take() {
                    let made = StreamWriter::try_new(out, &rows.schema()).map_err(arrow_failure)?;
                    *writer = Some(Box::new(made));
                }
                match writer {
                    Some(writer) => writer.write(rows).map_err(arrow_failure),
                    None => Ok(()),
                }
            }
        }
    }

    /// Fails for rows that have other columns than those before, in formats that have no place for them: their writers
    /// would leave out what is more, or write what nobody can read.
    fn check_columns(&mut self, rows: &RecordBatch) -> CommandResult {
        if matches!(self.sink, Sink::Value(_) | Sink::Table { .. } | Sink::Json(_)) {
            return Ok(());
        }
        let now = rows.schema();
        let before = self.columns.get_or_insert_with(|| Arc::clone(&now));
        let of = |schema: &Schema| -> Vec<(String, DataType)> {
            let fields = schema.fields().iter();
            fields.map(|field| (field.name().clone(), field.data_type().clone())).collect()
        };
        if of(before) == of(&now) {
            return Ok(());
        }
        let names = |schema: &Schema| {
            let fields = schema.fields().iter();
            let fields = fields.map(|field| format!("{} {}", field.name(), field.data_type()));
            fields.collect::<Vec<_>>().join(", ")
        };
        let text = format!(
            "the next rows have the columns ({}), and those before have ({}): the columns of values were found from the first \
             records; --schema or --value-schema names them from the start, and --output json takes any",
            names(&now),
            names(before)
        );
        Err(Failure::Output(io::Error::other(text)))
    }

    /// Makes what was written visible, in formats that are complete after each row.
    pub(super) fn flush(&mut self) -> CommandResult {
        match &mut self.sink {
            Sink::Value(out) | Sink::Json(out) | Sink::Csv { out, .. } => {
                out.flush().map_err(Failure::from)
            }
            Sink::ArrowIpc { writer, .. } => {
                writer.as_mut().map_or(Ok(()), |writer| writer.flush()).map_err(arrow_failure)
            }
            Sink::Table { .. } | Sink::Parquet { .. } => Ok(()),
        }
    }

    /// As [`Self::flush`]; also makes it durable. Whether that is all that was written: a table
    /// and a Parquet file are nothing before their end.
    pub(super) fn persist(&mut self) -> Result<bool, Failure> {
        if matches!(self.sink, Sink::Table { .. } | Sink::Parquet { .. }) {
            return Ok(false);
        }
        self.flush()?;
        sync(self.file.as_ref())?;
        Ok(true)
    }

    /// Writes what is left, and makes a file durable. `schema` is used for a result without rows; where no value has
    /// told the columns, nothing can be written.
    pub(super) fn finish(self, schema: Option<&Schema>) -> CommandResult {
        let file = self.file;
        let needs_columns = matches!(self.sink, Sink::Parquet { .. } | Sink::ArrowIpc { .. });
        if needs_columns && self.written == 0 && schema.is_none() {
            note(NO_COLUMNS);
        }
        match self.sink {
            Sink::Value(mut out) | Sink::Json(mut out) | Sink::Csv { mut out, .. } => {
                out.flush().map_err(Failure::from)
            }
            Sink::Table { batches, mut out, limit } => {
                write_table(&mut out, &batches, schema)?;
                let kept = self.written.min(limit as u64);
                if kept < self.written {
                    let hidden = self.written - kept;
                    writeln!(out, "… and {hidden} more rows (--max-rows)")?;
                }
                out.flush().map_err(Failure::from)
            }
            Sink::Parquet { out, writer } => match (writer, out, schema) {
                (Some(writer), ..) => {
                    let mut out = writer.into_inner().map_err(parquet_failure)?;
                    out.flush().map_err(Failure::from)
                }
                (None, Some(out), Some(schema)) => {
                    let schema = Arc::new(schema.clone());
                    let writer = parquet::arrow::ArrowWriter::try_new(out, schema, None);
                    let mut out = writer
                        .and_then(parquet::arrow::ArrowWriter::into_inner)
                        .map_err(parquet_failure)?;
                    out.flush().map_err(Failure::from)
                }
                _ => Ok(()),
            },
            Sink::ArrowIpc { out, writer } => {
                let writer = match (writer, out, schema) {
                    (Some(writer), ..) => Some(*writer),
                    (None, Some(out), Some(schema)) => {
                        Some(StreamWriter::try_new(out, schema).map_err(arrow_failure)?)
                    }
                    _ => None,
                };
                match writer {
                    // The mark of its end is written, too.
                    Some(writer) => {
                        let mut out = writer.into_inner().map_err(arrow_failure)?;
                        out.flush().map_err(Failure::from)
                    }
                    None => Ok(()),
                }
            }
        }?;
        sync(file.as_ref())
    }
}

fn sync(file: Option<&File>) -> CommandResult {
    file.map_or(Ok(()), File::sync_data).map_err(Failure::from)
}

/// An error of an Arrow writer; an error of the underlying pipe keeps its kind.
fn arrow_failure(error: arrow::error::ArrowError) -> Failure {
    match error {
        arrow::error::ArrowError::IoError(_, error) => Failure::Output(error),
        other => format_error(other),
    }
}

/// The same of Parquet's writer.
fn parquet_failure(error: parquet::errors::ParquetError) -> Failure {
    match error {
        parquet::errors::ParquetError::External(source) => match source.downcast::<io::Error>() {
            Ok(error) => Failure::Output(*error),
            Err(source) => format_error(source),
        },
        other => format_error(other),
    }
}

fn write_values(out: &mut impl Write, rows: &RecordBatch) -> CommandResult {
    let column = rows
        .column_by_name("value")
        .ok_or_else(|| Failure::Usage("there is no column named value to write".to_owned()))?;
    let values = cast(column, &DataType::Binary).map_err(format_error)?;
    for value in values.as_binary::<i32>() {
        out.write_all(value.unwrap_or_default())?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn write_table(
    out: &mut impl Write,
    batches: &[RecordBatch],
    schema: Option<&Schema>,
) -> CommandResult {
    let known = batches.first().map(RecordBatch::schema);
    let Some(schema) = known.as_deref().or(schema) else { return Ok(()) };
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    let mut table = new_table(&names);
    let options = FormatOptions::default().with_null("");
    for batch in batches {
        let formatters: Vec<ArrayFormatter<'_>> = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &options))
            .collect::<Result<_, _>>()
            .map_err(format_error)?;
        for row in 0..batch.num_rows() {
            table.add_row(formatters.iter().map(|column| column.value(row).to_string()));
        }
    }
    writeln!(out, "{table}").map_err(Failure::from)
}

/// The rows, with bytes as text, or as hexadecimal digits where they are not UTF-8.
fn printable(rows: &RecordBatch) -> Result<RecordBatch, Failure> {
    let columns: Vec<ArrayRef> =
        rows.columns().iter().map(printable_array).collect::<Result<_, _>>()?;
    let fields: Vec<Field> = rows
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| field.as_ref().clone().with_data_type(column.data_type().clone()))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(format_error)
}

fn printable_array(array: &ArrayRef) -> Result<ArrayRef, Failure> {
    match array.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = cast(array, &DataType::Binary).map_err(format_error)?;
            let text = |value: Option<&[u8]>| value.map(printable_bytes);
            let texts: StringArray = bytes.as_binary::<i32>().iter().map(text).collect();
            Ok(Arc::new(texts))
        }
        DataType::Utf8View => cast(array, &DataType::Utf8).map_err(format_error),
        DataType::Dictionary(_, value) => cast(array, value).map_err(format_error),
        // The same zone under a name that can be printed without a table of zones.
        DataType::Timestamp(unit, Some(zone)) if &**zone == "UTC" => {
            let offset = DataType::Timestamp(*unit, Some("+00:00".into()));
            let data = array.to_data().into_builder().data_type(offset).build();
            Ok(arrow::array::make_array(data.map_err(format_error)?))
        }
        DataType::List(field) => {
            let list = array.as_list::<i32>();
            let values = printable_array(list.values())?;
            let field: FieldRef =
                Arc::new(field.as_ref().clone().with_data_type(values.data_type().clone()));
            let list =
                ListArray::try_new(field, list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(list.map_err(format_error)?))
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct();
            let values: Vec<ArrayRef> =
                columns.columns().iter().map(printable_array).collect::<Result<_, _>>()?;
            let fields: Vec<Field> = fields
                .iter()
                .zip(&values)
                .map(|(field, values)| {
                    field.as_ref().clone().with_data_type(values.data_type().clone())
                })
                .collect();
            let made = StructArray::try_new(fields.into(), values, columns.nulls().cloned());
            Ok(Arc::new(made.map_err(format_error)?))
        }
        _ => Ok(Arc::clone(array)),
    }
}

fn printable_bytes(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes.iter().fold(String::from("0x"), |mut text, byte| {
            write!(text, "{byte:02x}").ok();
            text
        }),
    }
}

/// Nested columns as text, for CSV.
fn flat(rows: &RecordBatch) -> Result<RecordBatch, Failure> {
    let options = FormatOptions::default().with_null("");
    let columns = rows
        .columns()
        .iter()
        .map(|column| {
            if !column.data_type().is_nested() {
                return Ok(Arc::clone(column));
            }
            let formatter = ArrayFormatter::try_new(column, &options).map_err(format_error)?;
            let texts = (0..column.len())
                .map(|row| (!column.is_null(row)).then(|| formatter.value(row).to_string()));
            Ok(Arc::new(texts.collect::<StringArray>()) as ArrayRef)
        })
        .collect::<Result<Vec<_>, Failure>>()?;
    let fields: Vec<Field> = rows
        .schema()
        .fields()
        .iter()
        .zip(&columns)
        .map(|(field, column)| Field::new(field.name(), column.data_type().clone(), true))
        .collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).map_err(format_error)
}

/// A progress bar on a terminal, nothing elsewhere. `total` of 0 counts without an end.
pub(super) fn progress_bar(total: u64, unit: &str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = if total == 0 {
        (ProgressBar::new_spinner(), format!("{{spinner}} {{human_pos}} {unit} {{per_sec}}"))
    } else {
        let template = format!("{{bar:40}} {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}}");
        (ProgressBar::new(total), template)
    };
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// `1234567.8` as `1,234,568`.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A list of ids as JSON.
pub(super) fn ids(ids: &[crate::types::NodeId]) -> Value {
    json!(ids.iter().map(|id| id.0).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use arrow::array::Int64Array;

    use super::*;

    fn rows(columns: &[(&str, &[i64])]) -> RecordBatch {
        let column = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as ArrayRef;
        RecordBatch::try_from_iter(columns.iter().map(|(name, values)| (*name, column(values))))
            .unwrap()
    }

    #[test]
    fn rows_with_other_columns_are_refused_where_they_would_be_cut_short() {
        let directory = tempfile::tempdir().unwrap();
        let formats = [RecordFormat::Csv, RecordFormat::Parquet, RecordFormat::ArrowIpc];
        for format in formats {
            let path = directory.path().join("out");
            let mut writer = RecordWriter::open(format, Some(&path), 10).unwrap();
            // As of records that are all dead letters, of which the columns are not known.
            writer.write(&rows(&[("offset", &[])])).unwrap();
            writer.write(&rows(&[("offset", &[1]), ("a", &[1])])).unwrap();
            let refused = writer.write(&rows(&[("offset", &[2]), ("a", &[2]), ("b", &[2])]));
            let Err(Failure::Output(error)) = refused else { panic!("{format:?}: {refused:?}") };
            assert!(error.to_string().contains("b Int64"), "{error}");
            writer.write(&rows(&[("offset", &[3]), ("a", &[3])])).unwrap();
            writer.finish(None).unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() > 0);
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_printed_as_digits() {
        assert_eq!(printable_bytes(b"text"), "text");
        assert_eq!(printable_bytes(&[0xff, 0x01]), "0xff01");
        assert_eq!(thousands(1_234_567.8), "1,234,568");
        assert_eq!(thousands(12.0), "12");
    }
}
