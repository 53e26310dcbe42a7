//! The typed columns of rows, whatever their values are.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryViewArray, Int64Array, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::cast;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Leaf, ValueSchema};
use crate::columnar::ValueDecoder;
use crate::error::{Error, Result};
use crate::tier::schema;
use crate::types::Offset;

/// The entry of a footer that says what became of the values.
pub(in crate::tier) const VALUES_KEY: &str = "ottla.values";
/// How much is decoded at a time: rows times columns.
const CELLS_MAX: usize = 1 << 18;
const ROWS_MAX: usize = 8 << 10;
/// A cause is cut to this.
const CAUSE_CHARS_MAX: usize = 300;

/// What became of the values of a file, as its footer says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValueReport {
    /// How they were decoded.
    pub format: String,
    /// The typed columns.
    pub columns: Vec<String>,
    /// How many values did not decode: they have nulls in all typed columns.
    pub undecoded: u64,
    /// The first of them, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<Undecoded>,
    /// The offset of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<Offset>,
}

/// A value that did not decode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undecoded {
    /// Its offset.
    pub offset: Offset,
    /// What is wrong with it.
    pub cause: String,
}

/// Decodes the values of a file.
#[derive(Debug)]
pub(in crate::tier) struct ValueDecoding {
    schema: ValueSchema,
    decoder: ValueDecoder,
    report: ValueReport,
}

impl ValueDecoding {
    /// Begins; `names` are those of the columns in the file.
    ///
    /// # Errors
    ///
    /// None that can occur: the schema was tried when it was read.
    pub(in crate::tier) fn new(schema: ValueSchema, names: Vec<String>) -> Result<Self> {
        let decoder = ValueDecoder::new(&schema.format, &schema.wanted)?;
        let report = ValueReport {
            format: schema.format_name.to_owned(),
            columns: names,
            undecoded: 0,
            first: None,
            last_offset: None,
        };
        Ok(Self { schema, decoder, report })
    }

    pub(in crate::tier) const fn report(&self) -> &ValueReport {
        &self.report
    }

    /// How many rows [`ValueDecoding::columns`] is to be given: memory is bounded by that.
    pub(in crate::tier) fn rows_max(&self) -> usize {
        (CELLS_MAX / self.schema.leaves.len().max(1)).clamp(1, ROWS_MAX)
    }

    /// The typed columns of rows. Whatever is wrong with their values, there are some.
    ///
    /// # Errors
    ///
    /// The rows are none of the tier.
    pub(in crate::tier) fn columns(&mut self, rows: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let column = |name: &str| rows.column_by_name(name);
        let values = column(schema::VALUE).and_then(|values| values.as_binary_opt::<i32>());
        let offsets =
            column(schema::OFFSET).and_then(|offsets| offsets.as_primitive_opt::<Int64Type>());
        let (Some(values), Some(offsets)) = (values, offsets) else {
            return Err(Error::invalid("the rows have no offsets and values"));
        };
        let values = BinaryViewArray::from(values);
        let mut bad = Vec::new();
        let decoded = catch(|| self.decode(&values, &mut bad));
        let columns = decoded.unwrap_or_else(|cause| {
            // What a decoder has left of such rows is of no use.
            if let Ok(fresh) = ValueDecoder::new(&self.schema.format, &self.schema.wanted) {
                self.decoder = fresh;
            }
            let present = (0..values.len()).filter(|row| values.is_valid(*row));
            bad = present.map(|row| (row, cause.clone())).collect();
            let nulls = |leaf: &Leaf| new_null_array(&leaf.data_type, values.len());
            self.schema.leaves.iter().map(nulls).collect()
        });
        self.note(&bad, offsets);
        Ok(columns)
    }

    fn decode(
        &mut self,
        values: &BinaryViewArray,
        bad: &mut Vec<(usize, String)>,
    ) -> Result<Vec<ArrayRef>> {
        let decoded = self.decoder.decode(values, &mut |row, cause| {
            bad.push((row, cause));
            Ok(())
        })?;
        let failed = |error: ArrowError| Error::invalid(error.to_string());
        let leaves = self.schema.leaves.iter();
        let columns = leaves.map(|leaf| take(leaf, &decoded, bad)).collect::<Result<Vec<_>, _>>();
        let mut columns = columns.map_err(failed)?;
        if columns.iter().any(|column| column.len() != values.len()) {
            return Err(Error::invalid("the decoder did not give a row for each value"));
        }
        bad.sort_by_key(|(row, _)| *row);
        bad.dedup_by_key(|(row, _)| *row);
        if !bad.is_empty() {
            let mut is_good = vec![true; values.len()];
            for (row, _) in &*bad {
                if let Some(is_good) = is_good.get_mut(*row) {
                    *is_good = false;
                }
            }
            let is_good = NullBuffer::new(BooleanBuffer::from(is_good));
            let mask = |column: &ArrayRef| mask(column, &is_good);
            columns = columns.iter().map(mask).collect::<Result<_, _>>().map_err(failed)?;
        }
        Ok(columns)
    }

    fn note(&mut self, bad: &[(usize, String)], offsets: &Int64Array) {
        let offset = |row: usize| Offset(offsets.values().get(row).copied().unwrap_or_default());
        let (Some((first, cause)), Some((last, _))) = (bad.first(), bad.last()) else { return };
        self.report.undecoded += bad.len() as u64;
        self.report.last_offset = Some(offset(*last));
        self.report.first.get_or_insert_with(|| Undecoded {
            offset: offset(*first),
            cause: cause.chars().take(CAUSE_CHARS_MAX).collect(),
        });
    }
}

/// The outcome of work that must not stop a file, also where it panics.
fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_reported) => Err("the decoder panicked: a bug, please report it".to_owned()),
    }
}

/// The column of a leaf. What its type cannot express is bad.
fn take(
    leaf: &Leaf,
    decoded: &[ArrayRef],
    bad: &mut Vec<(usize, String)>,
) -> Result<ArrayRef, ArrowError> {
    let missing = || ArrowError::SchemaError(format!("column {:?} was not decoded", leaf.name));
    let (first, within) = leaf.path.split_first().ok_or_else(missing)?;
    let mut column = Arc::clone(decoded.get(*first).ok_or_else(missing)?);
    for index in within {
        let structure = column.as_struct_opt().ok_or_else(missing)?;
        let member = structure.columns().get(*index).ok_or_else(missing)?;
        let nulls = structure.nulls();
        column = nulls.map_or_else(|| Ok(Arc::clone(member)), |nulls| mask(member, nulls))?;
    }
    if *column.data_type() == leaf.data_type {
        return Ok(column);
    }
    let converted = cast(&column, &leaf.data_type)?;
    if converted.logical_null_count() > column.logical_null_count() {
        let lost = (0..column.len()).filter(|row| column.is_valid(*row) && converted.is_null(*row));
        let cause = format!("field {:?}: a column of microseconds cannot express it", leaf.name);
        bad.extend(lost.map(|row| (row, cause.clone())));
    }
    Ok(converted)
}

/// The same column, with nulls where `valid` says so, too.
fn mask(column: &ArrayRef, valid: &NullBuffer) -> Result<ArrayRef, ArrowError> {
    let nulls = NullBuffer::union(column.nulls(), Some(valid));
    let masked = column.to_data().into_builder().nulls(nulls).build()?;
    Ok(arrow::array::make_array(masked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_panics_is_an_outcome() {
        assert_eq!(catch(|| Ok(1)), Ok(1));
        let refused: Result<(), String> = catch(|| Err(Error::invalid("so")));
        assert_eq!(refused.unwrap_err(), "so");
        let panicked: Result<(), String> = catch(|| panic!("a bug"));
        assert!(panicked.unwrap_err().contains("panicked"));
    }
}
