//! Column builders that the decoders of binary formats append to.
//!
//! A [`Column`] grows value by value, in the values' form in memory: a date is an i32, a timestamp
//! an i64. It is created for an Arrow field, and becomes an array of exactly that field.
//!
//! Invariants:
//!
//! - **CB-1** `truncate(n)` restores a column to its state when it had `n` rows, whatever was
//!   appended since, in part or in full, so a value that fails half-way leaves no trace.
//! - **CB-2** A null in a non-nullable column is a placeholder: it is masked by the null of a
//!   parent.

mod extend;

use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, BooleanArray, DictionaryArray, Int32Array, ListArray, MapArray, NullArray,
    StringArray, StructArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields, Int32Type};
use arrow::error::ArrowError;

use crate::columnar::read::decode::{BytesBuilder, TextBuilder};
use crate::error::{Error, Result};

/// The values of a column, in their form in memory.
#[derive(Debug)]
enum Data {
    Null,
    Bool(Vec<bool>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    I128(Vec<i128>),
    I256(Vec<arrow::datatypes::i256>),
    Text(TextBuilder),
    Bytes(BytesBuilder),
    Fixed(usize, Vec<u8>),
    Symbols(Vec<i32>, Symbols),
    List(Vec<i32>, Box<Column>),
    Map(Vec<i32>, Fields, Vec<Column>),
    Struct(Fields, Vec<Column>),
}

/// How many texts a dictionary may have, including those that its schema does not name.
const SYMBOLS_MAX: usize = 4096;

/// The texts that a dictionary column refers to.
#[derive(Debug, Default)]
struct Symbols {
    known: Vec<String>,
    /// The rows that added the most recent texts, since the last array.
    brought: Vec<usize>,
    finished: Option<ArrayRef>,
}

impl Symbols {
    /// Removes the texts added by this and later rows.
    fn truncate(&mut self, rows: usize) {
        while self.brought.pop_if(|row| *row >= rows).is_some() {
            self.known.pop();
            self.finished = None;
        }
    }

    fn array(&mut self) -> ArrayRef {
        self.brought.clear();
        let known = &self.known;
        let make = || Arc::new(StringArray::from_iter_values(known)) as ArrayRef;
        Arc::clone(self.finished.get_or_insert_with(make))
    }
}

/// A column while it is being built.
#[derive(Debug)]
pub(in crate::columnar) struct Column {
    field: FieldRef,
    data: Data,
    rows: usize,
    /// Filled from the first null on.
    valid: Vec<bool>,
    any_null: bool,
}

macro_rules! push_value {
    ($name:ident, $kind:ident, $type:ty) => {
        #[inline]
        pub(in crate::columnar) fn $name(&mut self, value: $type) {
            match &mut self.data {
                Data::$kind(values) => {
                    values.push(value);
                    self.grown();
                }
                _ => self.unfit(),
            }
        }
    };
}

impl Column {
    /// An empty column. `symbols` gives the texts of dictionaries by the path of their field.
    ///
    /// # Errors
    /// An invalid argument for a type that no decoder produces.
    pub(in crate::columnar) fn new(field: &FieldRef) -> Result<Self> {
        let data = match field.data_type() {
            DataType::Null => Data::Null,
            DataType::Boolean => Data::Bool(Vec::new()),
            DataType::Int32 | DataType::UInt32 | DataType::Date32 | DataType::Time32(_) => {
                Data::I32(Vec::new())
            }
            DataType::Int64
            | DataType::UInt64
            | DataType::Time64(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_) => Data::I64(Vec::new()),
            DataType::Float32 => Data::F32(Vec::new()),
            DataType::Float64 => Data::F64(Vec::new()),
            DataType::Decimal128(..) => Data::I128(Vec::new()),
            DataType::Decimal256(..) => Data::I256(Vec::new()),
            DataType::Utf8View => Data::Text(TextBuilder::default()),
            DataType::BinaryView => Data::Bytes(BytesBuilder::default()),
            DataType::FixedSizeBinary(size) => {
                Data::Fixed(usize::try_from(*size).unwrap_or(0), Vec::new())
            }
            DataType::Dictionary(key, value)
                if **key == DataType::Int32 && **value == DataType::Utf8 =>
            {
                Data::Symbols(Vec::new(), Symbols::default())
            }
            DataType::List(item) => Data::List(vec![0], Box::new(Self::new(item)?)),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) if fields.len() == 2 => {
                    Data::Map(vec![0], fields.clone(), Self::all(fields)?)
                }
                other => {
                    return Err(Error::invalid(format!("a map cannot have {other}")));
                }
            },
            DataType::Struct(fields) => Data::Struct(fields.clone(), Self::all(fields)?),
            other => {
                let name = field.name();
                return Err(Error::invalid(format!("field {name:?}: cannot decode to {other}")));
            }
        };
        let field = Arc::clone(field);
        Ok(Self { field, data, rows: 0, valid: Vec::new(), any_null: false })
    }

    /// An empty column for each field.
    pub(in crate::columnar) fn all(fields: &Fields) -> Result<Vec<Self>> {
        fields.iter().map(Self::new).collect()
    }

    /// Sets the texts of a dictionary column; does nothing for others.
    pub(in crate::columnar) fn set_symbols(&mut self, texts: impl IntoIterator<Item = String>) {
        if let Data::Symbols(_, symbols) = &mut self.data {
            symbols.known = texts.into_iter().collect();
        }
    }

    #[inline]
    pub(in crate::columnar) const fn len(&self) -> usize {
        self.rows
    }

    #[inline]
    fn grown(&mut self) {
        self.rows = self.rows.wrapping_add(1);
        if self.any_null {
            self.valid.push(true);
        }
    }

    /// The reader and the column were created for different types: a bug, but not worth a panic.
    #[cold]
    fn unfit(&mut self) {
        debug_assert!(false, "{:?} was given another type", self.field);
        self.push_null();
    }

    push_value!(push_bool, Bool, bool);
    push_value!(push_i32, I32, i32);
    push_value!(push_i64, I64, i64);
    push_value!(push_f32, F32, f32);
    push_value!(push_f64, F64, f64);
    push_value!(push_bytes, Bytes, &[u8]);

    /// Appends the first `size` bytes as text; false where they are not UTF-8.
    #[inline]
    pub(in crate::columnar) fn push_utf8(&mut self, bytes: &[u8], size: usize) -> bool {
        let Data::Text(values) = &mut self.data else {
            self.unfit();
            return true;
        };
        let is_text = values.push_utf8(bytes, size);
        if is_text {
            self.grown();
        }
        is_text
    }

    /// Appends the two's complement of a decimal, most significant byte first; false where it has
    /// more digits than the type.
    pub(in crate::columnar) fn push_decimal(&mut self, bytes: &[u8]) -> bool {
        let negative = bytes.first().is_some_and(|first| *first >= 0x80);
        let filler = if negative { 0xff } else { 0 };
        let mut wide = [filler; 32];
        let kept = bytes.iter().rev().zip(wide.iter_mut().rev());
        kept.for_each(|(byte, slot)| *slot = *byte);
        let cut = bytes.len().saturating_sub(wide.len());
        if bytes.iter().take(cut).any(|byte| *byte != filler)
            || (cut > 0 && (wide.first().is_some_and(|first| *first >= 0x80) != negative))
        {
            return false;
        }
        let value = arrow::datatypes::i256::from_be_bytes(wide);
        match (&mut self.data, self.field.data_type()) {
            (Data::I128(values), DataType::Decimal128(precision, _)) => {
                let fits = value.to_i128().filter(|value| {
                    10_u128
                        .checked_pow(u32::from(*precision))
                        .is_none_or(|end| value.unsigned_abs() < end)
                });
                let Some(value) = fits else { return false };
                values.push(value);
            }
            (Data::I256(values), DataType::Decimal256(precision, scale)) => {
                use arrow::datatypes::{Decimal256Type, DecimalType};
                if Decimal256Type::validate_decimal_precision(value, *precision, *scale).is_err() {
                    return false;
                }
                values.push(value);
            }
            _ => {
                self.unfit();
                return true;
            }
        }
        self.grown();
        true
    }

    /// Appends bytes of the column's fixed size.
    pub(in crate::columnar) fn push_fixed(&mut self, bytes: &[u8]) {
        match &mut self.data {
            Data::Fixed(size, values) if bytes.len() == *size => {
                values.extend_from_slice(bytes);
                self.grown();
            }
            _ => self.unfit(),
        }
    }

    /// Appends the text with this index among the dictionary's.
    #[inline]
    pub(in crate::columnar) fn push_symbol(&mut self, index: i32) {
        match &mut self.data {
            Data::Symbols(indices, symbols)
                if usize::try_from(index).is_ok_and(|index| index < symbols.known.len()) =>
            {
                indices.push(index);
                self.grown();
            }
            _ => self.unfit(),
        }
    }

    /// Appends a text that may be new to the dictionary; false where it has too many.
    #[cold]
    pub(in crate::columnar) fn push_new_symbol(&mut self, text: &str) -> bool {
        let Data::Symbols(indices, symbols) = &mut self.data else {
            self.unfit();
            return true;
        };
        let found = symbols.known.iter().position(|known| known == text);
        let at = found.unwrap_or(symbols.known.len());
        if found.is_none() {
            if at >= SYMBOLS_MAX {
                return false;
            }
            symbols.known.push(text.to_owned());
            symbols.brought.push(indices.len());
            symbols.finished = None;
        }
        self.push_symbol(at as i32);
        true
    }

    /// The items of a list, to be appended to before [`Self::close`].
    #[inline]
    pub(in crate::columnar) fn items(&mut self) -> Option<&mut Self> {
        match &mut self.data {
            Data::List(_, items) => Some(items),
            _ => None,
        }
    }

    /// The keys and the values of a map, to be appended to before [`Self::close`].
    #[inline]
    pub(in crate::columnar) fn entries(&mut self) -> Option<(&mut Self, &mut Self)> {
        match &mut self.data {
            Data::Map(_, _, columns) => match columns.as_mut_slice() {
                [keys, values] => Some((keys, values)),
                _ => None,
            },
            _ => None,
        }
    }

    /// The members of a struct, to be appended to before [`Self::close`].
    #[inline]
    pub(in crate::columnar) fn members(&mut self) -> Option<&mut Vec<Self>> {
        match &mut self.data {
            Data::Struct(_, columns) => Some(columns),
            _ => None,
        }
    }

    /// Ends a list, a map or a struct whose parts were appended; false where lists became too long
    /// for 32-bit offsets.
    #[inline]
    pub(in crate::columnar) fn close(&mut self) -> bool {
        let end = match &self.data {
            Data::List(_, items) => items.rows,
            Data::Map(_, _, columns) => columns.first().map_or(0, Self::len),
            _ => 0,
        };
        match &mut self.data {
            Data::List(ends, _) | Data::Map(ends, ..) => match i32::try_from(end) {
                Ok(end) => ends.push(end),
                Err(_) => return false,
            },
            _ => {}
        }
        self.grown();
        true
    }

    /// Appends a null (CB-2).
    pub(in crate::columnar) fn push_null(&mut self) {
        match &mut self.data {
            Data::Null => {}
            Data::Bool(values) => values.push(false),
            Data::I32(values) | Data::Symbols(values, _) => values.push(0),
            Data::I64(values) => values.push(0),
            Data::F32(values) => values.push(0.0),
            Data::F64(values) => values.push(0.0),
            Data::I128(values) => values.push(0),
            Data::I256(values) => values.push(arrow::datatypes::i256::ZERO),
            Data::Text(values) if self.field.is_nullable() => values.push_null(),
            Data::Bytes(values) if self.field.is_nullable() => values.push_null(),
            Data::Text(values) => values.push(""),
            Data::Bytes(values) => values.push(&[]),
            Data::Fixed(size, values) => values.resize(values.len().saturating_add(*size), 0),
            Data::List(ends, _) | Data::Map(ends, ..) => {
                ends.push(ends.last().copied().unwrap_or(0));
            }
            Data::Struct(_, columns) => columns.iter_mut().for_each(Self::push_null),
        }
        self.rows = self.rows.wrapping_add(1);
        if self.field.is_nullable() {
            if !self.any_null {
                self.any_null = true;
                self.valid.resize(self.rows.wrapping_sub(1), true);
            }
            self.valid.push(false);
        } else if self.any_null {
            self.valid.push(true);
        }
    }

    /// Removes rows (CB-1).
    pub(in crate::columnar) fn truncate(&mut self, rows: usize) {
        match &mut self.data {
            Data::Null => {}
            Data::Bool(values) => values.truncate(rows),
            Data::I32(values) => values.truncate(rows),
            Data::Symbols(values, symbols) => {
                values.truncate(rows);
                symbols.truncate(rows);
            }
            Data::I64(values) => values.truncate(rows),
            Data::F32(values) => values.truncate(rows),
            Data::F64(values) => values.truncate(rows),
            Data::I128(values) => values.truncate(rows),
            Data::I256(values) => values.truncate(rows),
            Data::Text(values) => values.truncate(rows),
            Data::Bytes(values) => values.truncate(rows),
            Data::Fixed(size, values) => values.truncate(rows.saturating_mul(*size)),
            Data::List(ends, items) => {
                ends.truncate(rows.saturating_add(1));
                items.truncate(ends.last().copied().unwrap_or(0).unsigned_abs() as usize);
            }
            Data::Map(ends, _, columns) => {
                ends.truncate(rows.saturating_add(1));
                let entries = ends.last().copied().unwrap_or(0).unsigned_abs() as usize;
                for column in columns {
                    column.truncate(entries);
                }
            }
            Data::Struct(_, columns) => {
                for column in columns {
                    column.truncate(rows);
                }
            }
        }
        self.valid.truncate(rows);
        self.rows = self.rows.min(rows);
    }

    /// Makes room for rows that will follow.
    pub(in crate::columnar) fn reserve(&mut self, rows: usize) {
        match &mut self.data {
            Data::Bool(values) => values.reserve(rows),
            Data::I32(values) | Data::Symbols(values, _) => values.reserve(rows),
            Data::I64(values) => values.reserve(rows),
            Data::F32(values) => values.reserve(rows),
            Data::F64(values) => values.reserve(rows),
            Data::Text(values) => values.reserve(rows),
            Data::Bytes(values) => values.reserve(rows),
            Data::List(ends, _) | Data::Map(ends, ..) => ends.reserve(rows),
            Data::Struct(_, columns) => columns.iter_mut().for_each(|one| one.reserve(rows)),
            // Rarer types grow as needed.
            _ => {}
        }
    }

    /// The array of all rows; the column is empty afterwards.
    pub(in crate::columnar) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let valid = std::mem::take(&mut self.valid);
        let any_null = std::mem::take(&mut self.any_null);
        let nulls = any_null.then(|| NullBuffer::new(BooleanBuffer::from(valid)));
        let plain = |buffer: Buffer, nulls: Option<NullBuffer>| {
            let data = ArrayData::builder(self.field.data_type().clone()).len(rows);
            Ok::<_, ArrowError>(make_array(data.add_buffer(buffer).nulls(nulls).build()?))
        };
        Ok(match &mut self.data {
            Data::Null => Arc::new(NullArray::new(rows)),
            Data::Bool(values) => {
                Arc::new(BooleanArray::new(BooleanBuffer::from(std::mem::take(values)), nulls))
            }
            Data::I32(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::I64(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::F32(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::F64(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::I128(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::I256(values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::Fixed(_, values) => plain(Buffer::from_vec(std::mem::take(values)), nulls)?,
            Data::Text(values) => Arc::new(values.finish()),
            Data::Bytes(values) => Arc::new(values.finish()),
            Data::Symbols(indices, symbols) => {
                let keys = ScalarBuffer::from(std::mem::take(indices));
                let keys = Int32Array::try_new(keys, nulls)?;
                Arc::new(DictionaryArray::<Int32Type>::try_new(keys, symbols.array())?)
            }
            Data::List(ends, items) => {
                let field = Arc::clone(&items.field);
                Arc::new(ListArray::try_new(field, take_offsets(ends), items.finish()?, nulls)?)
            }
            Data::Map(ends, fields, columns) => {
                let entries = columns.first().map_or(0, Self::len);
                let children = columns.iter_mut().map(Self::finish);
                let children = children.collect::<Result<Vec<_>, _>>()?;
                let entries =
                    StructArray::try_new_with_length(fields.clone(), children, None, entries)?;
                let DataType::Map(field, sorted) = self.field.data_type() else {
                    return Err(ArrowError::SchemaError("a map was expected".to_owned()));
                };
                let (field, offsets) = (Arc::clone(field), take_offsets(ends));
                Arc::new(MapArray::try_new(field, offsets, entries, nulls, *sorted)?)
            }
            Data::Struct(fields, columns) => {
                let children = columns.iter_mut().map(Self::finish);
                let children = children.collect::<Result<Vec<_>, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields.clone(), children, nulls, rows)?)
            }
        })
    }
}

fn take_offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])))
}

/// The columns of the rows of values.
#[derive(Debug)]
pub(in crate::columnar) struct Rows {
    pub(in crate::columnar) columns: Vec<Column>,
    rows: usize,
}

impl Rows {
    pub(in crate::columnar) fn new(fields: &Fields) -> Result<Self> {
        Ok(Self { columns: Column::all(fields)?, rows: 0 })
    }

    /// Ends a row: keeps what was appended if reading succeeded, removes it otherwise.
    #[inline]
    pub(in crate::columnar) fn end_row<E>(&mut self, read: Result<(), E>) -> Result<(), E> {
        self.end_rows(1, read)
    }

    /// Ends some rows: keeps all if reading all of them succeeded, removes all otherwise.
    #[inline]
    pub(in crate::columnar) fn end_rows<E>(
        &mut self,
        count: usize,
        read: Result<(), E>,
    ) -> Result<(), E> {
        match read {
            Ok(()) => self.rows = self.rows.wrapping_add(count),
            Err(_) => self.truncate(),
        }
        read
    }

    #[cold]
    fn truncate(&mut self) {
        let rows = self.rows;
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
    }

    pub(in crate::columnar) fn push_null(&mut self) {
        self.columns.iter_mut().for_each(Column::push_null);
        self.rows = self.rows.wrapping_add(1);
    }

    pub(in crate::columnar) fn reserve(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.reserve(rows));
    }

    pub(in crate::columnar) fn finish(&mut self) -> Result<Vec<ArrayRef>> {
        self.rows = 0;
        self.columns
            .iter_mut()
            .map(Column::finish)
            .collect::<Result<_, _>>()
            .map_err(|error| Error::invalid(format!("could not build a column: {error}")))
    }
}
