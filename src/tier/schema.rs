//! The columns of a file, as every reader of Parquet sees them, and how they are encoded.
//!
//! The topic and the partition are in the path only: a reader that takes them from there refuses a file that has them
//! inside, too. Types and field ids are those that Iceberg and Delta ask for.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use parquet::arrow::PARQUET_FIELD_ID_META_KEY;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::SortingColumn;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use crate::error::{Error, Result};

pub(super) const OFFSET: &str = "offset";
pub(super) const TIMESTAMP: &str = "timestamp";
pub(super) const KEY: &str = "key";
pub(super) const VALUE: &str = "value";
pub(super) const HEADERS: &str = "headers";
pub(super) const UTC: &str = "UTC";
/// The columns that all files have.
pub(super) const COMMON: [&str; 5] = [OFFSET, TIMESTAMP, KEY, VALUE, HEADERS];
/// What readers of folders make columns of, too.
pub(super) const IN_PATH: [&str; 2] = ["topic", "partition"];

const PAGE_BYTES: usize = 256 << 10;
/// Statistics of longer keys are cut to this, and stay bounds.
const STATISTICS_BYTES_MAX: usize = 64;
const ZSTD_LEVEL: i32 = 1;

fn field(name: &str, data_type: DataType, nullable: bool, id: u32) -> Field {
    let metadata = HashMap::from([(PARQUET_FIELD_ID_META_KEY.to_owned(), id.to_string())]);
    Field::new(name, data_type, nullable).with_metadata(metadata)
}

/// The key and the value of a header.
pub(super) fn header_fields() -> Fields {
    Fields::from(vec![
        field("key", DataType::Utf8, false, 7),
        field("value", DataType::Binary, true, 8),
    ])
}

/// One header of a list.
pub(super) fn header_field() -> Field {
    field("element", DataType::Struct(header_fields()), false, 6)
}

/// The name of a column that all files have, or that is in their path, where case does not count.
pub(super) fn is_taken(name: &str) -> bool {
    let taken = COMMON.iter().chain(&IN_PATH);
    taken.into_iter().any(|taken| taken.eq_ignore_ascii_case(name))
}

/// A typed column, behind those that all files have.
#[derive(Clone, Debug)]
pub(super) struct TypedColumn {
    pub(super) name: String,
    pub(super) data_type: DataType,
    pub(super) id: u32,
}

/// The columns of a file.
pub(super) fn schema_with(typed: &[TypedColumn]) -> SchemaRef {
    let common = schema();
    if typed.is_empty() {
        return common;
    }
    let typed =
        typed.iter().map(|one| field(&one.name, one.data_type.clone(), true, one.id)).map(Arc::new);
    Arc::new(Schema::new(common.fields().iter().cloned().chain(typed).collect::<Vec<_>>()))
}

/// The columns that all files have.
pub(super) fn schema() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
    Arc::new(Schema::new(vec![
        field(OFFSET, DataType::Int64, false, 1),
        field(TIMESTAMP, timestamp, true, 2),
        field(KEY, DataType::Binary, true, 3),
        field(VALUE, DataType::Binary, true, 4),
        field(HEADERS, DataType::List(Arc::new(header_field())), false, 5),
    ]))
}

/// How the columns are written. Row groups end where the writer says. Typed columns are as Parquet has them by default:
/// with dictionaries where these help, and with statistics, so that readers skip what cannot match.
///
/// # Errors
///
/// None that can occur: the level is one that zstd has.
pub(super) fn properties(typed: &[TypedColumn]) -> Result<WriterProperties> {
    let level =
        ZstdLevel::try_new(ZSTD_LEVEL).map_err(|error| Error::invalid(error.to_string()))?;
    let column = |name: &str| ColumnPath::from(name);
    let header = |name: &str| {
        ColumnPath::new([HEADERS, "list", "element", name].map(str::to_owned).to_vec())
    };
    let sorting = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
    let mut builder = WriterProperties::builder()
        .set_created_by(format!("ottla {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None)
        .set_data_page_size_limit(PAGE_BYTES)
        .set_sorting_columns(Some(vec![sorting]))
        .set_statistics_truncate_length(Some(STATISTICS_BYTES_MAX))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_dictionary_enabled(false)
        .set_column_dictionary_enabled(header("key"), true)
        .set_column_dictionary_enabled(header("value"), true);
    for name in [OFFSET, TIMESTAMP, KEY] {
        builder = builder.set_column_statistics_enabled(column(name), EnabledStatistics::Page);
    }
    for name in [OFFSET, TIMESTAMP] {
        builder = builder.set_column_encoding(column(name), Encoding::DELTA_BINARY_PACKED);
    }
    for name in [KEY, VALUE] {
        builder = builder.set_column_encoding(column(name), Encoding::DELTA_LENGTH_BYTE_ARRAY);
    }
    for one in typed {
        let path = ColumnPath::new(vec![one.name.clone()]);
        builder = builder
            .set_column_statistics_enabled(path.clone(), EnabledStatistics::Page)
            .set_column_dictionary_enabled(path, true);
    }
    Ok(builder.build())
}
