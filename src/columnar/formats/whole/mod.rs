//! Values that are one column of bytes or text, as they are; and records without values.

use arrow::array::BinaryViewArray;
use arrow::datatypes::Fields;
use arrow::record_batch::RecordBatch;

use super::reading::{Columns, DecodeValues, Probe, ReadFormat};
use super::writing::{ValueColumn, WriteFormat};
use crate::columnar::write::bytes_column::BytesColumn;
use crate::columnar::write::sources::column;
use crate::error::{Error, Result};

/// Values that are one column.
pub(super) struct Whole {
    text: bool,
}

pub(super) const BYTES: Whole = Whole { text: false };
pub(super) const TEXT: Whole = Whole { text: true };

impl ReadFormat for Whole {
    fn is_settled(&self) -> bool {
        true
    }

    fn may_fail(&self) -> bool {
        self.text
    }

    fn is_text(&self) -> bool {
        self.text
    }

    fn probe(&self) -> Result<Box<dyn Probe>> {
        Err(Error::invalid("the column of bytes or text is known"))
    }

    fn fields(&self) -> Result<Option<Fields>> {
        Ok(None)
    }

    fn decoder(&self, _wanted: &[usize]) -> Result<Box<dyn DecodeValues>> {
        Ok(Box::new(Untouched))
    }
}

/// Leaves values as they are.
#[derive(Debug)]
struct Untouched;

impl DecodeValues for Untouched {
    fn decode(
        &mut self,
        _values: &BinaryViewArray,
        _bad: &mut dyn FnMut(usize, String) -> Result<()>,
    ) -> Result<Columns> {
        Ok(Columns::Done(Vec::new()))
    }
}

/// A column that holds the values.
impl WriteFormat for String {
    fn named_columns(&self) -> &[String] {
        std::slice::from_ref(self)
    }

    fn values(&self, rows: &RecordBatch) -> Result<ValueColumn> {
        Ok(ValueColumn::Borrowed(BytesColumn::new(self, column(rows, self)?)?))
    }
}

/// Records without values.
pub(super) struct Tombstone;

impl WriteFormat for Tombstone {
    fn named_columns(&self) -> &[String] {
        &[]
    }

    fn values(&self, _rows: &RecordBatch) -> Result<ValueColumn> {
        Ok(ValueColumn::Null)
    }
}
