//! Turns the values that builders collected into arrays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array,
    FixedSizeBinaryArray, FixedSizeListArray, ListArray, MapArray, NullArray, PrimitiveArray,
    StructArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, Float32Type, Float64Type, Int8Type, Int16Type,
    Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow::error::ArrowError;

use super::{ColumnBuilder, Data};

impl ColumnBuilder {
    pub(super) fn finish(&mut self) -> Result<ArrayRef, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let valid = std::mem::take(&mut self.valid);
        let any_null = std::mem::take(&mut self.any_null);
        let nulls = any_null.then(|| NullBuffer::new(BooleanBuffer::from(valid)));
        let array: ArrayRef = match &mut self.data {
            Data::Null => Arc::new(NullArray::new(rows)),
            Data::Bool(values) => {
                let values = BooleanBuffer::from(std::mem::take(values));
                Arc::new(BooleanArray::new(values, nulls))
            }
            Data::I8(values) => primitive::<Int8Type>(values, nulls),
            Data::I16(values) => primitive::<Int16Type>(values, nulls),
            Data::I32(values) => primitive::<Int32Type>(values, nulls),
            // A time of day gets its type at the end.
            Data::I64(values) | Data::TimeOfDay(_, values) => primitive::<Int64Type>(values, nulls),
            Data::U8(values) => primitive::<UInt8Type>(values, nulls),
            Data::U16(values) => primitive::<UInt16Type>(values, nulls),
            Data::U32(values) => primitive::<UInt32Type>(values, nulls),
            Data::U64(values) => primitive::<UInt64Type>(values, nulls),
            Data::F16(values) | Data::F32(values) => primitive::<Float32Type>(values, nulls),
            Data::F64(values) => primitive::<Float64Type>(values, nulls),
            Data::Date(values) => primitive::<Date32Type>(values, nulls),
            Data::Time(of, values) => times(of.unit(), values, nulls),
            Data::Decimal(precision, scale, values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                let array = Decimal128Array::try_new(values, nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Data::Decimal256(precision, scale, values) => {
                let values = ScalarBuffer::from(std::mem::take(values));
                let array = Decimal256Array::try_new(values, nulls)?;
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Data::Duration(unit, values) => durations(*unit, values, nulls),
            Data::Text(texts) | Data::JsonText(texts) => Arc::new(texts.finish()),
            Data::Fixed(size, bytes) => {
                let size = i32::try_from(*size).unwrap_or(i32::MAX);
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(FixedSizeBinaryArray::try_new(size, bytes, nulls)?)
            }
            Data::Binary(ends, bytes) => {
                let offsets = take_offsets(ends);
                let bytes = Buffer::from_vec(std::mem::take(bytes));
                Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?)
            }
            _ => self.finish_nested(rows, nulls)?,
        };
        // Layouts of text, bytes and lists, and zones, that are not built directly.
        let wanted = self.field.data_type();
        if array.data_type() == wanted { Ok(array) } else { relabel(&array, wanted) }
    }
    /// Lists, maps and structs.
    fn finish_nested(
        &mut self,
        rows: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef, ArrowError> {
        let unexpected = || ArrowError::SchemaError("the type of the column differs".to_owned());
        Ok(match &mut self.data {
            Data::FixedList(size, items) => {
                let size = i32::try_from(*size).unwrap_or(i32::MAX);
                let item = Arc::clone(&items.field);
                Arc::new(FixedSizeListArray::try_new(item, size, items.finish()?, nulls)?)
            }
            Data::Map(ends, parts) => {
                let DataType::Map(entries, sorted) = self.field.data_type() else {
                    return Err(unexpected());
                };
                let DataType::Struct(fields) = entries.data_type() else {
                    return Err(unexpected());
                };
                let columns = parts.iter_mut().map(Self::finish).collect::<Result<Vec<_>, _>>()?;
                let rows = StructArray::try_new(fields.clone(), columns, None)?;
                let (entries, offsets) = (Arc::clone(entries), take_offsets(ends));
                Arc::new(MapArray::try_new(entries, offsets, rows, nulls, *sorted)?)
            }
            Data::List(ends, items) => {
                let offsets = take_offsets(ends);
                let item = Arc::clone(&items.field);
                Arc::new(ListArray::try_new(item, offsets, items.finish()?, nulls)?)
            }
            Data::Object(object) => {
                object.rows = 0;
                let children = object.columns.iter_mut().map(Self::finish);
                let children = children.collect::<Result<Vec<_>, _>>()?;
                let DataType::Struct(fields) = self.field.data_type() else {
                    return Err(unexpected());
                };
                let fields = fields.clone();
                Arc::new(StructArray::try_new_with_length(fields, children, nulls, rows)?)
            }
            _ => return Err(unexpected()),
        })
    }
}

fn times(unit: TimeUnit, values: &mut Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match unit {
        TimeUnit::Second => primitive::<TimestampSecondType>(values, nulls),
        TimeUnit::Millisecond => primitive::<TimestampMillisecondType>(values, nulls),
        TimeUnit::Microsecond => primitive::<TimestampMicrosecondType>(values, nulls),
        TimeUnit::Nanosecond => primitive::<TimestampNanosecondType>(values, nulls),
    }
}

fn durations(unit: TimeUnit, values: &mut Vec<i64>, nulls: Option<NullBuffer>) -> ArrayRef {
    match unit {
        TimeUnit::Second => primitive::<DurationSecondType>(values, nulls),
        TimeUnit::Millisecond => primitive::<DurationMillisecondType>(values, nulls),
        TimeUnit::Microsecond => primitive::<DurationMicrosecondType>(values, nulls),
        TimeUnit::Nanosecond => primitive::<DurationNanosecondType>(values, nulls),
    }
}

/// The same values in another layout or with a time zone.
fn relabel(array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, ArrowError> {
    match wanted {
        // A cast would treat the values as local times of the zone.
        DataType::Timestamp(..) => {
            let data = array.to_data().into_builder().data_type(wanted.clone()).build()?;
            Ok(arrow::array::make_array(data))
        }
        DataType::Time32(_) => cast(&cast(array, &DataType::Int32)?, wanted),
        DataType::Dictionary(_, values) if array.data_type() != &**values => {
            cast(&relabel(array, values)?, wanted)
        }
        _ => cast(array, wanted),
    }
}

fn primitive<T: ArrowPrimitiveType>(
    values: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(std::mem::take(values)), nulls))
}

fn take_offsets(ends: &mut Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(ends, vec![0])))
}
