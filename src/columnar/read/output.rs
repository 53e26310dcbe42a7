//! From the Kafka columns of an output to its rows: values decoded, errors judged, columns laid out.
//!
//! What is made depends on the assembled columns alone and never on outputs before, so outputs may be
//! made in any order, and by several of these at once ([`super::block`]).

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, Int64Array};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;

use super::assemble::Assembled;
use super::decode::text_column;
use super::decoder::{DecodeOptions, Decoded, KeyFormat, OnError};
use super::headers::HeaderField;
use super::layout::{Layout, Origin, Shape};
use super::rejected::{REJECTED_COLUMNS, Source, set_aside};
use super::row_errors::{RowErrors, locate};
use super::tombstones::Tombstones;
use crate::columnar::columns::{KafkaColumn, Projection};
use crate::columnar::formats::ValueFormat;
use crate::columnar::formats::reading::{Columns, DecodeValues};
use crate::columnar::formats::registry::SchemaRequest;
use crate::error::Result;
use crate::types::TopicPartition;

/// From filled Kafka columns to an output.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each says what is done with one column")]
pub(in crate::columnar) struct Output {
    pub(in crate::columnar) layout: Layout,
    pub(in crate::columnar) format: ValueFormat,
    headers: Vec<HeaderField>,
    pub(in crate::columnar) values: Box<dyn DecodeValues>,
    /// The position of each decoded field among all fields.
    indices: Vec<usize>,
    /// Whether values are decoded.
    decodes: bool,
    text_key: bool,
    text_value: bool,
    on_error: OnError,
    offsets: bool,
    /// Whether rows have fields of decoded values, in which a tombstone looks like other nulls.
    has_fields: bool,
    hides_errors: bool,
    /// Whether view types are copied into plain ones.
    plain: bool,
}

/// What became of an output.
pub(in crate::columnar) enum Made {
    /// With the records that it had no room for.
    Output(Box<(Decoded, Option<Assembled>)>),
    Schema(SchemaRequest),
}

impl Output {
    pub(in crate::columnar) fn new(options: &DecodeOptions, settled: &ValueFormat) -> Result<Self> {
        let text_key = options.key == KeyFormat::Text;
        let text_value = settled.is_text();
        let fields = settled.fields()?;
        let shape = Shape {
            fields: fields.as_ref(),
            headers: &options.headers,
            text_key,
            text_value,
            error_column: options.on_error == OnError::Column && options.may_fail(),
            plain: !options.views,
        };
        let layout = Layout::new(&shape, options.columns.as_deref())?;
        let mut indices = layout.fields();
        let shows_errors = layout.shows(Origin::Error);
        if shows_errors && indices.is_empty() {
            // Errors of no column in particular are those of all.
            indices = (0..fields.as_ref().map_or(0, |fields| fields.len())).collect();
        }
        let values = settled.decoder(&indices)?;
        let judges = settled.is_unknown() && (options.columns.is_none() || shows_errors);
        let decodes = !indices.is_empty() || settled.is_many_rows() || judges;
        Ok(Self {
            layout,
            format: settled.clone(),
            headers: options.headers.clone(),
            values,
            indices,
            decodes,
            text_key,
            text_value,
            on_error: options.on_error,
            offsets: options.offsets,
            has_fields: fields.is_some(),
            hides_errors: options.hides_errors(),
            plain: !options.views,
        })
    }

    /// The Kafka columns that decoding needs, shown or not.
    pub(in crate::columnar) fn projection(&self) -> Projection {
        let mut projection = self.layout.projection();
        if self.offsets {
            projection = projection.with(KafkaColumn::Offset);
        }
        let decodes = self.decodes;
        // Texts that are not shown are looked at all the same where what is wrong with them is.
        if decodes || (self.text_value && self.layout.shows(Origin::Error)) {
            projection = projection.with(KafkaColumn::Value);
        }
        if decodes || self.text_key || self.text_value || self.headers.iter().any(|one| one.text) {
            // Errors name it.
            projection = projection.with(KafkaColumn::Offset);
            if self.on_error == OnError::SetAside {
                projection = projection.and(REJECTED_COLUMNS);
            }
        }
        projection
    }

    /// Whether there is more to do for a row than to name its columns: values are decoded, or bytes
    /// are checked or copied.
    pub(in crate::columnar) fn works(&self) -> bool {
        let text = self.text_key || self.text_value || !self.headers.is_empty();
        self.decodes || text || self.plain
    }

    pub(in crate::columnar) fn make(&mut self, assembled: &Assembled) -> Result<Made> {
        let mut errors = RowErrors::new(self.on_error);
        let raw = assembled.filled.column(KafkaColumn::Value);
        let decodes = self.decodes;
        let (mut repeated, mut rest) = (None, None);
        let mut assembled = assembled;
        let fields = match raw.filter(|_| decodes) {
            Some(raw) => {
                let mut bad = |row, detail| errors.add("value", row, detail, assembled);
                match self.values.decode(raw.as_binary_view(), &mut bad)? {
                    Columns::Done(fields) => fields,
                    Columns::Many { columns, records, done } => {
                        errors.move_to(&records);
                        let mut taken = assembled.taken(&records)?;
                        if done < assembled.filled.rows {
                            let behind;
                            (taken.progress, behind) = assembled.split(done)?;
                            rest = Some(behind);
                        }
                        assembled = repeated.insert(taken);
                        columns
                    }
                    Columns::Schema(request) => return Ok(Made::Schema(request)),
                }
            }
            None => Vec::new(),
        };
        let raw = assembled.filled.column(KafkaColumn::Value);
        let rows = assembled.filled.rows;
        let mut texts = [None, None];
        let wanted = [
            (self.text_key, KafkaColumn::Key, "key"),
            (self.text_value, KafkaColumn::Value, "value"),
        ];
        for (slot, (wanted, column, what)) in texts.iter_mut().zip(wanted) {
            if let Some(bytes) = assembled.filled.column(column).filter(|_| wanted) {
                let bytes = bytes.as_binary_view();
                *slot = Some(checked_text(bytes, what, assembled, &mut errors)?);
            }
        }
        let [key_text, value_text] = texts;
        let headers = self.header_columns(assembled, &mut errors)?;
        let set_aside_rows = errors.take_set_aside();
        let error_column = self.layout.shows(Origin::Error).then(|| errors.column(rows));
        let batch = self.layout.assemble(rows, |origin| match origin {
            Origin::Kafka(KafkaColumn::Key) if self.text_key => key_text.clone(),
            Origin::Kafka(KafkaColumn::Value) if self.text_value => value_text.clone(),
            Origin::Kafka(column) => assembled.filled.column(column).cloned(),
            Origin::Field(index) => {
                let at = self.indices.iter().position(|&known| known == index)?;
                fields.get(at).cloned()
            }
            Origin::Header(index) => headers.get(index).cloned().flatten(),
            Origin::Tombstone => raw.map(tombstone_column),
            Origin::Error => error_column.clone(),
            Origin::Raw => raw.cloned(),
        })?;
        let (offsets, origins) = self.places(assembled, &set_aside_rows);
        let (rows, tombstones, rejected) = if set_aside_rows.is_empty() {
            (batch, self.tombstones(raw), Vec::new())
        } else {
            let source = Source {
                column: &|kind| assembled.filled.column(kind),
                partition: &|row| locate(assembled, row).0,
            };
            set_aside((&batch, &self.tombstones(raw)), set_aside_rows, &source)?
        };
        let (progress, hides_errors) = (assembled.progress.clone(), self.hides_errors);
        let decoded =
            Decoded { rows, progress, rejected, offsets, origins, tombstones, hides_errors };
        Ok(Made::Output(Box::new((decoded, rest))))
    }

    /// Where the rows are that are not set aside, if that is asked for.
    fn places(
        &self,
        assembled: &Assembled,
        set_aside: &[(usize, String)],
    ) -> (Option<Int64Array>, Vec<(TopicPartition, usize)>) {
        if !self.offsets {
            return (None, Vec::new());
        }
        (Some(offsets(assembled, set_aside)), origins(assembled, set_aside))
    }

    /// Those among the rows of these values that only they tell from others.
    fn tombstones(&self, values: Option<&ArrayRef>) -> Tombstones {
        match values.filter(|_| self.has_fields) {
            Some(values) => Tombstones::of(values.as_binary_view()),
            None => Tombstones::NONE,
        }
    }

    /// The columns of single headers that the output shows.
    fn header_columns(
        &self,
        assembled: &Assembled,
        errors: &mut RowErrors,
    ) -> Result<Vec<Option<ArrayRef>>> {
        let mut columns = Vec::with_capacity(self.headers.len());
        for (index, header) in self.headers.iter().enumerate() {
            let lists = assembled.filled.column(KafkaColumn::Headers);
            let Some(lists) = lists.filter(|_| self.layout.shows(Origin::Header(index))) else {
                columns.push(None);
                continue;
            };
            let (column, bad) = header.column(lists);
            for row in bad {
                let detail = format!("{:?} is not UTF-8", header.key);
                errors.add("header", row, detail, assembled)?;
            }
            columns.push(Some(column));
        }
        Ok(columns)
    }
}

fn tombstone_column(values: &ArrayRef) -> ArrayRef {
    let is_null = match values.nulls() {
        Some(nulls) => !nulls.inner(),
        None => BooleanBuffer::new_unset(values.len()),
    };
    Arc::new(BooleanArray::new(is_null, None))
}

/// The offsets of the rows that are not set aside.
fn offsets(assembled: &Assembled, set_aside: &[(usize, String)]) -> Int64Array {
    let Some(column) = assembled.filled.column(KafkaColumn::Offset) else {
        return Int64Array::from(Vec::<i64>::new());
    };
    let all: &Int64Array = column.as_primitive::<Int64Type>();
    if set_aside.is_empty() {
        return all.clone();
    }
    let bad: BTreeSet<usize> = set_aside.iter().map(|(row, _)| *row).collect();
    let kept = all.values().iter().enumerate().filter(|(row, _)| !bad.contains(row));
    kept.map(|(_, offset)| *offset).collect()
}

/// The partitions of the rows that are not set aside, as runs.
fn origins(assembled: &Assembled, set_aside: &[(usize, String)]) -> Vec<(TopicPartition, usize)> {
    let bad: BTreeSet<usize> = set_aside.iter().map(|(row, _)| *row).collect();
    let mut row = 0_usize;
    let mut kept = Vec::with_capacity(assembled.origins.len());
    for (partition, count) in &assembled.origins {
        let end = row.saturating_add(*count);
        kept.push((partition.clone(), count.saturating_sub(bad.range(row..end).count())));
        row = end;
    }
    kept
}

fn checked_text(
    bytes: &BinaryViewArray,
    what: &'static str,
    assembled: &Assembled,
    errors: &mut RowErrors,
) -> Result<ArrayRef> {
    let (text, bad) = text_column(bytes);
    for row in bad {
        errors.add(what, row, "the bytes are not UTF-8".to_owned(), assembled)?;
    }
    Ok(Arc::new(text))
}
