//! Which columns an output has, under which names: Kafka's, those of decoded values, or both.
//!
//! - Raw and text values are a single column, `value`, among the Kafka columns.
//! - The fields of JSON values are separate columns, after the Kafka columns. There is no `value`;
//!   its bytes are available as `value_raw` when that is requested by name.
//! - Where a field has the name of a Kafka column (or of `error`, `value_raw`), **all** of these
//!   move into one struct column `_kafka`, and the fields keep their names: a column never
//!   changes its meaning with the data. They are then requested as `_kafka` or `_kafka.offset`. If a
//!   field is called `_kafka` too, the struct's name gets one more leading underscore.
//! - A header with its own column has the name given for it, next to the fields.
//! - `is_tombstone` says whether the value is null; it exists when it is requested by name.
//! - With `on_error = column`, `error` (utf8, null where decoding succeeded) and `value_raw`
//!   follow.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::columns::{KafkaColumn, Projection, unknown_column};
use super::convert::{plain_array, plain_type};
use super::headers::HeaderField;
use crate::error::{Error, Result};

/// The struct that Kafka columns move into when names collide.
pub const KAFKA_STRUCT: &str = "_kafka";
/// The column of decode errors.
const ERROR_COLUMN: &str = "error";
/// The column of undecoded values next to decoded ones.
pub const VALUE_RAW_COLUMN: &str = "value_raw";

/// The column that marks tombstones.
pub const TOMBSTONE_COLUMN: &str = "is_tombstone";

/// Where one column of the output comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Kafka(KafkaColumn),
    Field(usize),
    Header(usize),
    Tombstone,
    Error,
    Raw,
}

impl Origin {
    /// Whether it is never moved: its name was chosen by the schema or the caller.
    fn is_field(self) -> bool {
        matches!(self, Self::Field(_) | Self::Header(_))
    }
}

/// How the output depends on the value format.
#[expect(clippy::struct_excessive_bools, reason = "each says whether one column is there")]
#[derive(Clone, Debug)]
pub(super) struct Shape<'a> {
    /// The fields of decoded values; none where `value` is one column.
    pub(super) fields: Option<&'a Fields>,
    pub(super) headers: &'a [HeaderField],
    pub(super) text_key: bool,
    pub(super) text_value: bool,
    pub(super) error_column: bool,
    pub(super) plain: bool,
}

/// The columns of an output.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    schema: SchemaRef,
    /// The origin of each column; those of the struct's children where there is one.
    columns: Vec<Origin>,
    /// The position of the struct among the columns, and its children.
    kafka: Option<(usize, Vec<Origin>)>,
    plain: bool,
}

impl Layout {
    pub(super) fn new(shape: &Shape<'_>, wanted: Option<&[String]>) -> Result<Self> {
        let nested = shape.fields.filter(|fields| collides(fields)).map(struct_name);
        let nested = nested.as_deref();
        check_headers(shape)?;
        let origins = match wanted {
            Some(names) => {
                let mut origins = Vec::with_capacity(names.len());
                for name in names {
                    resolve(shape, nested, name, &mut origins)?;
                }
                origins
            }
            None => default_origins(shape),
        };
        Ok(Self::of(shape, nested, origins))
    }

    fn of(shape: &Shape<'_>, nested: Option<&str>, mut origins: Vec<Origin>) -> Self {
        let Some(struct_name) = nested else {
            let fields: Vec<FieldRef> =
                origins.iter().map(|&origin| Arc::new(field_of(shape, origin))).collect();
            let schema = Arc::new(Schema::new(fields));
            return Self { schema, columns: origins, kafka: None, plain: shape.plain };
        };
        let kafka: Vec<Origin> =
            origins.iter().copied().filter(|origin| !origin.is_field()).collect();
        let at = origins.iter().position(|origin| !origin.is_field());
        origins.retain(|origin| origin.is_field());
        let mut fields: Vec<FieldRef> =
            origins.iter().map(|&origin| Arc::new(field_of(shape, origin))).collect();
        let kafka = at.map(|at| {
            let at = at.min(fields.len());
            let children: Fields =
                kafka.iter().map(|&origin| Arc::new(field_of(shape, origin))).collect();
            let field = Field::new(struct_name, DataType::Struct(children), false);
            fields.insert(at, Arc::new(field));
            (at, kafka)
        });
        let schema = Arc::new(Schema::new(fields));
        Self { schema, columns: origins, kafka, plain: shape.plain }
    }

    pub(super) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn origins(&self) -> impl Iterator<Item = Origin> + '_ {
        let nested = self.kafka.iter().flat_map(|(_, children)| children.iter().copied());
        self.columns.iter().copied().chain(nested)
    }

    /// The Kafka columns that the output itself shows.
    pub(super) fn projection(&self) -> Projection {
        self.origins().fold(Projection::NONE, |set, origin| match origin {
            Origin::Kafka(column) => set.with(column),
            Origin::Raw | Origin::Tombstone => set.with(KafkaColumn::Value),
            Origin::Header(_) => set.with(KafkaColumn::Headers),
            Origin::Field(_) | Origin::Error => set,
        })
    }

    /// Whether the output has a column of this origin.
    pub(super) fn shows(&self, origin: Origin) -> bool {
        self.origins().any(|known| known == origin)
    }

    /// The indices of the value fields that the output shows, in the order of the schema.
    pub(super) fn fields(&self) -> Vec<usize> {
        let mut fields: Vec<usize> = self
            .origins()
            .filter_map(|origin| match origin {
                Origin::Field(index) => Some(index),
                _ => None,
            })
            .collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    }

    /// Puts the output together.
    pub(super) fn assemble(
        &self,
        rows: usize,
        mut column: impl FnMut(Origin) -> Option<ArrayRef>,
    ) -> Result<RecordBatch> {
        let mut get = |origin: Origin| {
            let array = column(origin)
                .ok_or_else(|| Error::invalid(format!("column {origin:?} was not decoded")))?;
            if self.plain { plain_array(&array) } else { Ok(array) }
        };
        let mut arrays =
            self.columns.iter().map(|&origin| get(origin)).collect::<Result<Vec<_>>>()?;
        if let Some((at, origins)) = &self.kafka {
            let children = origins.iter().map(|&origin| get(origin)).collect::<Result<Vec<_>>>()?;
            let DataType::Struct(fields) = self.schema.field(*at).data_type() else {
                return Err(Error::invalid("the Kafka columns are not a struct"));
            };
            let kafka = StructArray::try_new_with_length(fields.clone(), children, None, rows)
                .map_err(internal)?;
            arrays.insert(*at, Arc::new(kafka));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), arrays, &options)
            .map_err(internal)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `map_err`")]
fn internal(error: arrow::error::ArrowError) -> Error {
    Error::invalid(format!("could not assemble the columns: {error}"))
}

/// Whether a name refers to a column that every output may have.
pub(super) fn is_reserved(name: &str) -> bool {
    let inside = name.strip_prefix(KAFKA_STRUCT).is_some_and(|rest| rest.starts_with('.'));
    reserved(name).is_some() || inside || [KAFKA_STRUCT, TOMBSTONE_COLUMN].contains(&name)
}

fn reserved(name: &str) -> Option<Origin> {
    match name {
        ERROR_COLUMN => Some(Origin::Error),
        VALUE_RAW_COLUMN => Some(Origin::Raw),
        _ => KafkaColumn::from_name(name)
            .filter(|column| *column != KafkaColumn::Value)
            .map(Origin::Kafka),
    }
}

/// The columns of single headers must not clash with others.
fn check_headers(shape: &Shape<'_>) -> Result<()> {
    for (at, header) in shape.headers.iter().enumerate() {
        let name = &header.column;
        let taken = KafkaColumn::from_name(name).is_some()
            || [ERROR_COLUMN, VALUE_RAW_COLUMN, KAFKA_STRUCT, TOMBSTONE_COLUMN]
                .contains(&name.as_str())
            || shape.fields.is_some_and(|fields| fields.find(name).is_some())
            || shape.headers.iter().take(at).any(|other| other.column == *name);
        if taken {
            return Err(Error::invalid(format!(
                "the column of header {:?} would be {name:?}, which is taken; choose another",
                header.key
            )));
        }
    }
    Ok(())
}

/// A name for the struct that no field has.
fn struct_name(fields: &Fields) -> String {
    let mut name = KAFKA_STRUCT.to_owned();
    while fields.find(&name).is_some() {
        name.insert(0, '_');
    }
    name
}

fn collides(fields: &Fields) -> bool {
    fields.iter().any(|field| reserved(field.name()).is_some())
}

fn default_origins(shape: &Shape<'_>) -> Vec<Origin> {
    let mut origins: Vec<Origin> = KafkaColumn::ALL.map(Origin::Kafka).into();
    if let Some(fields) = shape.fields {
        origins.retain(|origin| *origin != Origin::Kafka(KafkaColumn::Value));
        origins.extend((0..fields.len()).map(Origin::Field));
    }
    origins.extend((0..shape.headers.len()).map(Origin::Header));
    if shape.error_column {
        origins.extend([Origin::Error, Origin::Raw]);
    }
    origins
}

fn resolve(
    shape: &Shape<'_>,
    nested: Option<&str>,
    name: &str,
    origins: &mut Vec<Origin>,
) -> Result<()> {
    if nested == Some(name) {
        let all = default_origins(shape).into_iter().filter(|origin| !origin.is_field());
        origins.extend(all);
        return Ok(());
    }
    let field_index = |name: &str| {
        let header = || shape.headers.iter().position(|header| header.column == name);
        shape
            .fields
            .and_then(|fields| fields.find(name))
            .map(|(index, _)| Origin::Field(index))
            .or_else(|| header().map(Origin::Header))
    };
    let kafka = |name: &str| match reserved(name) {
        Some(Origin::Error) if !shape.error_column => None,
        // Without decoded values, `value` has their raw bytes, unless text replaces them.
        Some(Origin::Raw) if shape.fields.is_none() && !shape.error_column => None,
        None if name == TOMBSTONE_COLUMN => Some(Origin::Tombstone),
        None if name == "value" && shape.fields.is_none() => {
            Some(Origin::Kafka(KafkaColumn::Value))
        }
        other => other,
    };
    let inside =
        nested.and_then(|nested| name.strip_prefix(nested)).and_then(|rest| rest.strip_prefix('.'));
    let found = match inside {
        Some(child) => kafka(child),
        None if nested.is_some() => field_index(name),
        _ => field_index(name).or_else(|| kafka(name)),
    };
    let names = shape.fields.into_iter().flatten().map(|field| field.name().as_str());
    let origin = found.ok_or_else(|| unknown_column(name, names))?;
    if origins.contains(&origin) {
        return Err(Error::invalid(format!("column {name:?} is listed twice")));
    }
    origins.push(origin);
    Ok(())
}

fn field_of(shape: &Shape<'_>, origin: Origin) -> Field {
    let field = match origin {
        Origin::Kafka(column) => {
            let text = match column {
                KafkaColumn::Key => shape.text_key,
                KafkaColumn::Value => shape.text_value,
                _ => false,
            };
            let data_type = if text { DataType::Utf8View } else { column.data_type() };
            Field::new(column.name(), data_type, column.nullable())
        }
        Origin::Field(index) => match shape.fields.and_then(|fields| fields.get(index)) {
            Some(field) => Field::clone(field),
            None => Field::new("", DataType::Null, true),
        },
        Origin::Header(index) => match shape.headers.get(index) {
            Some(header) => Field::new(&header.column, header.data_type(), true),
            None => Field::new("", DataType::Null, true),
        },
        Origin::Tombstone => Field::new(TOMBSTONE_COLUMN, DataType::Boolean, false),
        Origin::Error => Field::new(ERROR_COLUMN, DataType::Utf8View, true),
        Origin::Raw => Field::new(VALUE_RAW_COLUMN, DataType::BinaryView, true),
    };
    if shape.plain {
        let data_type = plain_type(field.data_type());
        field.with_data_type(data_type)
    } else {
        field
    }
}
