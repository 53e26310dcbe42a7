//! What Delta Lake wants to know of files: the schema of a table, and the statistics of a file.

use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use chrono::{DateTime, Datelike, SecondsFormat};
use parquet::file::metadata::{ColumnChunkMetaData, RowGroupMetaData};
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

use super::reader::TierFile;
use super::schema::{IN_PATH, OFFSET, TIMESTAMP, schema};
use super::values::table_type;
use crate::error::{Error, Result};

/// The columns of a table, as Delta's `schemaString`. The first two are in the path of a file, and not in the file; the
/// typed ones, by their names and the names of their types, come last.
///
/// # Errors
///
/// An invalid argument for a type that this release does not know.
pub fn delta_schema<'a>(typed: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<String> {
    let [topic, partition] = IN_PATH;
    let topic = Field::new(topic, DataType::Utf8, false);
    let in_path = [topic, Field::new(partition, DataType::Int32, false)];
    let in_file = schema();
    let typed = typed.into_iter().map(|(name, of)| Ok(Field::new(name, table_type(of)?, true)));
    let typed = typed.collect::<Result<Vec<Field>>>()?;
    let fields = in_path.iter().chain(of(in_file.fields())).chain(&typed);
    structure(fields).map(|schema| schema.to_string())
}

fn structure<'a>(fields: impl IntoIterator<Item = &'a Field>) -> Result<Value> {
    let field = |field: &Field| {
        let (name, nullable) = (field.name(), field.is_nullable());
        let data_type = type_of(field.data_type())?;
        Ok(json!({"name": name, "type": data_type, "nullable": nullable, "metadata": {}}))
    };
    let fields = fields.into_iter().map(field).collect::<Result<Vec<Value>>>()?;
    Ok(json!({"type": "struct", "fields": fields}))
}

fn type_of(data_type: &DataType) -> Result<Value> {
    Ok(match data_type {
        DataType::Boolean => json!("boolean"),
        DataType::Int8 => json!("byte"),
        DataType::Int16 => json!("short"),
        DataType::Int32 => json!("integer"),
        DataType::Int64 => json!("long"),
        DataType::Float32 => json!("float"),
        DataType::Float64 => json!("double"),
        DataType::Decimal128(precision, scale) => json!(format!("decimal({precision},{scale})")),
        DataType::Date32 => json!("date"),
        DataType::Utf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::BinaryView => json!("binary"),
        DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => json!("timestamp"),
        DataType::List(element) => json!({
            "type": "array",
            "elementType": type_of(element.data_type())?,
            "containsNull": element.is_nullable(),
        }),
        DataType::Struct(fields) => structure(of(fields))?,
        other => return Err(Error::invalid(format!("Delta has no type for {other}"))),
    })
}

fn of(fields: &Fields) -> impl Iterator<Item = &Field> {
    fields.iter().map(AsRef::as_ref)
}

/// What the values of a column lie between.
#[derive(Clone, Copy, Debug, Default)]
struct Bounds {
    range: Option<(i64, i64)>,
    nulls: u64,
}

impl Bounds {
    /// Takes the statistics of a row group; false when they are not there.
    fn take(&mut self, column: Option<&ColumnChunkMetaData>) -> bool {
        let Some(Statistics::Int64(found)) = column.and_then(ColumnChunkMetaData::statistics)
        else {
            return false;
        };
        let nulls = found.null_count_opt().unwrap_or(0);
        self.nulls += nulls;
        let values = column.map_or(0, ColumnChunkMetaData::num_values);
        match (found.min_opt(), found.max_opt()) {
            (Some(&low), Some(&high)) => {
                let (before_low, before_high) = self.range.unwrap_or((low, high));
                self.range = Some((low.min(before_low), high.max(before_high)));
                true
            }
            _ => i64::try_from(nulls) == Ok(values),
        }
    }
}

/// Delta's text for a time; none outside of the years that all can read.
fn time(micros: i64) -> Option<Value> {
    let time =
        DateTime::from_timestamp_micros(micros).filter(|time| (0..=9999).contains(&time.year()))?;
    Some(json!(time.to_rfc3339_opts(SecondsFormat::Millis, true)))
}

impl TierFile {
    /// The statistics of the file, as Delta's `stats`: the number of rows, and between which values offsets and
    /// timestamps lie.
    #[must_use]
    pub fn delta_statistics(&self) -> String {
        let (mut offsets, mut times) = (Bounds::default(), Bounds::default());
        let (mut has_offsets, mut has_times) = (true, true);
        for group in self.row_groups() {
            has_offsets &= offsets.take(column(group, OFFSET));
            has_times &= times.take(column(group, TIMESTAMP));
        }
        let (mut low, mut high, mut nulls) = (Map::new(), Map::new(), Map::new());
        if has_offsets {
            nulls.insert(OFFSET.to_owned(), json!(offsets.nulls));
            if let Some((first, last)) = offsets.range {
                low.insert(OFFSET.to_owned(), json!(first));
                high.insert(OFFSET.to_owned(), json!(last));
            }
        }
        if has_times {
            nulls.insert(TIMESTAMP.to_owned(), json!(times.nulls));
            let range = times.range.and_then(|(first, last)| time(first).zip(time(last)));
            if let Some((first, last)) = range {
                low.insert(TIMESTAMP.to_owned(), first);
                high.insert(TIMESTAMP.to_owned(), last);
            }
        }
        let rows = self.totals().rows;
        json!({"numRecords": rows, "minValues": low, "maxValues": high, "nullCount": nulls})
            .to_string()
    }
}

fn column<'a>(group: &'a RowGroupMetaData, name: &str) -> Option<&'a ColumnChunkMetaData> {
    group.columns().iter().find(|column| column.column_path().string() == name)
}
