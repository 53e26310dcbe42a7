//! Headers of records as columns: the list of all headers, or one with a given name.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, ListArray, StringArray, StructArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::decode::{BytesBuilder, text_column};
use crate::columnar::columns::{header_fields, header_item};
use crate::record::{Headers, RawRecord, WalkError, check_headers};

/// One header as a column: if a record has several with its name, the last one counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderField {
    /// The key of the header.
    pub key: String,
    /// The name of the column.
    pub column: String,
    /// Whether the column is text; bytes otherwise.
    pub text: bool,
}

impl HeaderField {
    pub(in crate::columnar) const fn data_type(&self) -> DataType {
        if self.text { DataType::Utf8View } else { DataType::BinaryView }
    }

    /// The column, and the rows whose header should be text but is not; they are null.
    pub(in crate::columnar) fn column(&self, headers: &ArrayRef) -> (ArrayRef, Vec<usize>) {
        let lists = headers.as_list::<i32>();
        let entries = lists.values().as_struct();
        let keys = entries.column(0).as_string::<i32>();
        let values = entries.column(1).as_binary::<i32>();
        let mut column = BytesBuilder::default();
        column.reserve(lists.len());
        for range in lists.offsets().windows(2) {
            let entries = match range {
                [start, end] => start.unsigned_abs() as usize..end.unsigned_abs() as usize,
                _ => 0..0,
            };
            let found = entries.rev().find(|&entry| keys.value(entry) == self.key);
            match found.filter(|&entry| values.is_valid(entry)) {
                Some(entry) => column.push(values.value(entry)),
                None => column.push_null(),
            }
        }
        let bytes = column.finish();
        if self.text {
            let (text, bad) = text_column(&bytes);
            return (Arc::new(text), bad);
        }
        (Arc::new(bytes), Vec::new())
    }
}

/// The list of headers of each row, copied: headers are few and small.
#[derive(Debug)]
pub(in crate::columnar) struct HeaderColumn {
    ends: Vec<i32>,
    keys: Vec<u8>,
    key_ends: Vec<i32>,
    values: Vec<u8>,
    value_ends: Vec<i32>,
    value_valid: Vec<bool>,
}

impl HeaderColumn {
    pub(in crate::columnar) fn new() -> Self {
        Self {
            ends: vec![0],
            keys: Vec::new(),
            key_ends: vec![0],
            values: Vec::new(),
            value_ends: vec![0],
            value_valid: Vec::new(),
        }
    }

    pub(in crate::columnar) const fn bytes(&self) -> usize {
        self.keys.len().saturating_add(self.values.len())
    }

    pub(in crate::columnar) fn push(
        &mut self,
        data: &[u8],
        record: &RawRecord,
    ) -> Result<(), WalkError> {
        if record.header_count != 0 {
            check_headers(data, record)?;
        }
        for header in Headers::of_raw(data, record) {
            self.keys.extend_from_slice(String::from_utf8_lossy(header.key).as_bytes());
            self.key_ends.push(self.keys.len() as i32);
            self.values.extend_from_slice(header.value.unwrap_or_default());
            self.value_ends.push(self.values.len() as i32);
            self.value_valid.push(header.value.is_some());
        }
        self.ends.push(self.value_valid.len() as i32);
        Ok(())
    }

    pub(in crate::columnar) fn reserve(&mut self, rows: usize) {
        self.ends.reserve(rows);
    }

    /// Rows without headers.
    pub(in crate::columnar) fn push_empty(&mut self, rows: usize) {
        self.ends.extend(std::iter::repeat_n(self.value_valid.len() as i32, rows));
    }

    pub(in crate::columnar) fn finish(self) -> Result<ArrayRef, ArrowError> {
        let offsets = |ends: Vec<i32>| OffsetBuffer::new(ScalarBuffer::from(ends));
        let count = self.value_valid.len();
        let value_nulls = NullBuffer::from(self.value_valid);
        let value_nulls = (value_nulls.null_count() > 0).then_some(value_nulls);
        let key_bytes = Buffer::from_vec(self.keys);
        let keys = StringArray::try_new(offsets(self.key_ends), key_bytes, None)?;
        let value_bytes = Buffer::from_vec(self.values);
        let values = BinaryArray::try_new(offsets(self.value_ends), value_bytes, value_nulls)?;
        let children: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(values)];
        let entries = StructArray::try_new_with_length(header_fields(), children, None, count)?;
        let entries = Arc::new(entries);
        Ok(Arc::new(ListArray::try_new(header_item(), offsets(self.ends), entries, None)?))
    }
}
