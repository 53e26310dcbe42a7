//! Reads bytes from any of Arrow's layouts for them.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryViewArray, FixedSizeBinaryArray, LargeBinaryArray,
    LargeStringArray, StringArray, StringViewArray,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;

use crate::error::{Error, Result};

/// A column of text or bytes.
#[derive(Clone, Debug)]
pub(crate) enum BytesColumn {
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Bytes(BinaryArray),
    LargeBytes(LargeBinaryArray),
    BytesView(BinaryViewArray),
    FixedBytes(FixedSizeBinaryArray),
}

impl BytesColumn {
    /// Wraps a column of utf8 or binary in any layout, including dictionaries.
    ///
    /// # Errors
    /// An invalid argument for any other type.
    pub(crate) fn new(name: &str, array: &ArrayRef) -> Result<Self> {
        Ok(match array.data_type() {
            DataType::Utf8 => Self::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Self::LargeText(array.as_string().clone()),
            DataType::Utf8View => Self::TextView(array.as_string_view().clone()),
            DataType::Binary => Self::Bytes(array.as_binary().clone()),
            DataType::LargeBinary => Self::LargeBytes(array.as_binary().clone()),
            DataType::BinaryView => Self::BytesView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(_) => Self::FixedBytes(array.as_fixed_size_binary().clone()),
            DataType::Dictionary(_, values) => {
                let plain = cast(array, values)
                    .map_err(|error| Error::invalid(format!("column {name:?}: {error}")))?;
                return Self::new(name, &plain);
            }
            DataType::Null => {
                let nulls = BinaryArray::new_null(array.len());
                return Self::new(name, &(Arc::new(nulls) as ArrayRef));
            }
            other => {
                return Err(Error::invalid(format!(
                    "column {name:?} is {other}, but utf8 or binary is needed"
                )));
            }
        })
    }

    /// The bytes of a row; none for a null.
    #[inline]
    pub(crate) fn get(&self, row: usize) -> Option<&[u8]> {
        match self {
            Self::Text(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::LargeText(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::TextView(array) => array.is_valid(row).then(|| array.value(row).as_bytes()),
            Self::Bytes(array) => array.is_valid(row).then(|| array.value(row)),
            Self::LargeBytes(array) => array.is_valid(row).then(|| array.value(row)),
            Self::BytesView(array) => array.is_valid(row).then(|| array.value(row)),
            Self::FixedBytes(array) => array.is_valid(row).then(|| array.value(row)),
        }
    }
}
