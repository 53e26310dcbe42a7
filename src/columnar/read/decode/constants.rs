//! The columns that are the same for all rows of a run: topic, partition, type of the timestamp.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, DictionaryArray, Int8Array, Int32Array, StringArray};
use arrow::datatypes::{Int8Type, Int32Type};
use arrow::error::ArrowError;

use super::Run;
use crate::columnar::columns::KafkaColumn;
use crate::record::TimestampType;
use crate::types::PartitionIndex;

/// The columns that depend on the run alone.
pub(super) const CONSTANT_COLUMNS: [KafkaColumn; 3] =
    [KafkaColumn::Topic, KafkaColumn::Partition, KafkaColumn::TimestampType];

/// [`CONSTANT_COLUMNS`] of an output with one run. The next output is usually of the same partition,
/// and shares them.
#[derive(Debug)]
pub(in crate::columnar) struct Constants {
    partition: (Arc<str>, PartitionIndex),
    timestamp_type: TimestampType,
    columns: [ArrayRef; 3],
}

impl Constants {
    pub(super) fn reused(
        last: &mut Option<Self>,
        runs: &[Run],
        partitions: &[(Arc<str>, PartitionIndex)],
        rows: usize,
    ) -> Result<[ArrayRef; 3], ArrowError> {
        let single = match runs {
            [run] => partitions.get(run.partition).map(|partition| (run, partition)),
            _ => None,
        };
        if let (Some((run, partition)), Some(last)) = (single, &*last)
            && last.partition == *partition
            && last.timestamp_type == run.timestamp_type
        {
            let [topic, ..] = &last.columns;
            if topic.len() >= rows {
                return Ok(last.columns.each_ref().map(|column| column.slice(0, rows)));
            }
        }
        let index = |run: &Run| {
            let known = partitions.get(run.partition);
            known.map_or(PartitionIndex::NONE, |(_, index)| *index).0
        };
        let columns = [
            topic_column(runs, partitions, rows)?,
            Arc::new(Int32Array::from(repeat(runs, rows, index))),
            timestamp_type_column(runs, rows)?,
        ];
        if let Some((run, partition)) = single {
            *last = Some(Self {
                partition: partition.clone(),
                timestamp_type: run.timestamp_type,
                columns: columns.clone(),
            });
        }
        Ok(columns)
    }
}

fn repeat<T: Copy>(runs: &[Run], rows: usize, value: impl Fn(&Run) -> T) -> Vec<T> {
    let mut values = Vec::with_capacity(rows);
    for run in runs {
        values.extend(std::iter::repeat_n(value(run), run.rows));
    }
    values
}

fn topic_column(
    runs: &[Run],
    partitions: &[(Arc<str>, PartitionIndex)],
    rows: usize,
) -> Result<ArrayRef, ArrowError> {
    let mut topics: Vec<&str> = Vec::new();
    let codes: Vec<i32> = partitions
        .iter()
        .map(|(topic, _)| {
            let known = topics.iter().position(|known| *known == &**topic);
            known.unwrap_or_else(|| {
                topics.push(topic);
                topics.len().saturating_sub(1)
            }) as i32
        })
        .collect();
    let keys = repeat(runs, rows, |run| codes.get(run.partition).copied().unwrap_or(0));
    let values = Arc::new(StringArray::from(topics));
    Ok(Arc::new(DictionaryArray::<Int32Type>::try_new(Int32Array::from(keys), values)?))
}

fn timestamp_type_column(runs: &[Run], rows: usize) -> Result<ArrayRef, ArrowError> {
    let names = [TimestampType::CreateTime, TimestampType::LogAppendTime];
    let keys = repeat(runs, rows, |run| run.timestamp_type as i8);
    let values = Arc::new(StringArray::from_iter_values(names.map(TimestampType::name)));
    Ok(Arc::new(DictionaryArray::<Int8Type>::try_new(Int8Array::from(keys), values)?))
}
