//! What is written is read back, and its sizes are those that were asked for.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryViewArray, BooleanArray, DictionaryArray, DurationSecondArray,
    Int64Array, ListArray, NullArray, StringArray, StringViewArray, StructArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit};
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::read::{Room, check};
use super::write::slice_bytes;
use super::{IpcCompression, IpcFormat, IpcTarget};
use crate::columnar::formats::reading::{Columns, DecodeValues};
use crate::columnar::{
    DecodeOptions, Decoder, EncodedBatch, Encoder, FetchedBytes, OnError, ValueFormat, ValueSource,
    WriteOptions,
};
use crate::types::{PartitionIndex, TimestampMs, TopicPartition};

fn rows(from: i64, count: i64) -> RecordBatch {
    let numbers = Int64Array::from_iter_values(from..from + count);
    let texts: StringViewArray = (from..from + count)
        .map(|n| (n % 5 != 0).then(|| format!("a text of some length {n}")))
        .collect();
    RecordBatch::try_from_iter_with_nullable([
        ("n", Arc::new(numbers) as ArrayRef, true),
        ("text", Arc::new(texts), true),
    ])
    .unwrap()
}

fn options(target: IpcTarget, key: bool, batch_size: usize) -> WriteOptions {
    WriteOptions {
        value: ValueSource::ArrowIpc(target),
        key: key.then(|| "n".to_owned()),
        partition_count: 3,
        batch_size,
        ..WriteOptions::default()
    }
}

/// The numbers of the rows of each record, by partition.
fn records(batches: &[EncodedBatch]) -> Vec<(i32, i64, i64)> {
    let columns = ["partition", "offset", "n"].map(str::to_owned).to_vec();
    let value = ValueFormat::ArrowIpc(IpcFormat::inferred());
    let options = DecodeOptions { value, columns: Some(columns), ..DecodeOptions::default() };
    let mut decoder = Decoder::new(options).unwrap();
    for batch in batches {
        let partition = TopicPartition::new("t", batch.partition);
        decoder.push(FetchedBytes::whole(partition, batch.bytes.clone()));
    }
    let mut found = Vec::new();
    while let Some(output) = decoder.next(true).unwrap() {
        let column = |at: usize| output.rows.column(at).as_primitive::<Int64Type>().values();
        let partitions = output.rows.column(0).as_primitive::<Int32Type>().values();
        for ((partition, offset), n) in partitions.iter().zip(column(1)).zip(column(2)) {
            found.push((*partition, *offset, *n));
        }
    }
    found
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn every_row_is_in_one_record_that_is_not_too_large(
        sizes in proptest::collection::vec(0_i64..400, 1..6),
        max_rows in 1_usize..300,
        batch_size in 500_usize..20_000,
        key in any::<bool>(),
        compression in proptest::option::of(prop_oneof![
            Just(IpcCompression::Lz4),
            Just(IpcCompression::Zstd),
        ]),
    ) {
        let target = IpcTarget { exclude: Vec::new(), max_rows, compression };
        let mut encoder = Encoder::new(options(target, key, batch_size)).unwrap();
        let mut from = 0;
        for size in sizes {
            // Keys go to their partition, and rows without one to the first.
            let partition = |key: Option<&[u8]>, _: usize| {
                let last = key.and_then(|key| key.last()).copied().unwrap_or(0);
                PartitionIndex(i32::from(last % 3))
            };
            encoder.push(&rows(from, size), TimestampMs(5), partition).unwrap();
            from += size;
        }
        let batches = encoder.finish().unwrap();
        let found = records(&batches);
        let mut numbers: Vec<i64> = found.iter().map(|(_, _, n)| *n).collect();
        numbers.sort_unstable();
        prop_assert_eq!(numbers, (0..from).collect::<Vec<_>>());
        for batch in &batches {
            // One row may be larger than a batch.
            prop_assert!(batch.bytes.len() <= batch_size || batch.record_count == 1);
        }
        for pair in found.windows(2) {
            if let [(one, _, before), (other, _, after)] = pair && one == other && !key {
                prop_assert!(before < after);
            }
        }
    }
}

/// A stream of so many rows.
fn value_of(count: i64, compression: Option<IpcCompression>) -> Vec<u8> {
    let target = IpcTarget { exclude: Vec::new(), max_rows: 100, compression };
    super::one_stream(&rows(0, count), &target).unwrap()
}

/// The rows of one value, or why it has none.
fn decoded(value: &[u8]) -> Result<RecordBatch, String> {
    let schema = rows(0, 0).schema();
    let mut decoder = super::IpcDecoder::new(schema.fields(), false, &[0, 1]);
    let mut errors = Vec::new();
    let values = BinaryViewArray::from_iter_values([value]);
    let read = decoder.decode(&values, &mut |row, detail| {
        errors.push((row, detail));
        Ok(())
    });
    let Columns::Many { columns, records, done } = read.unwrap() else { unreachable!() };
    assert_eq!(done, 1);
    let found = RecordBatch::try_new(schema, columns).unwrap();
    assert_eq!(records, vec![0; found.num_rows()]);
    match errors.pop() {
        None => Ok(found),
        Some((row, detail)) => {
            assert_eq!((row, errors.len(), found.num_rows()), (0, 0, 1));
            assert!(found.columns().iter().all(|column| column.is_null(0)));
            Err(detail)
        }
    }
}

const COMPRESSIONS: [Option<IpcCompression>; 3] =
    [None, Some(IpcCompression::Lz4), Some(IpcCompression::Zstd)];

#[test]
fn a_value_that_ends_early_is_an_error() {
    /// The mark of the end, which may be left out.
    const END: usize = 8;
    for compression in COMPRESSIONS {
        let value = value_of(50, compression);
        // The schema alone is a stream too, of no rows.
        let schema = 8 + u32::from_le_bytes(value[4..8].try_into().unwrap()) as usize;
        for length in 0..value.len() {
            match decoded(&value[..length]) {
                Ok(found) if length + END >= value.len() => assert_eq!(found, rows(0, 50)),
                Ok(found) => assert!(
                    (schema..schema + 4).contains(&length) && found.num_rows() == 0,
                    "{length} of {} bytes",
                    value.len()
                ),
                Err(detail) => assert!(detail.contains("Arrow IPC stream"), "{detail}"),
            }
        }
    }
}

#[test]
fn a_wrong_length_is_an_error() {
    for compression in COMPRESSIONS {
        let value = value_of(50, compression);
        // Of the batch and of its two columns, then those that compressed buffers claim.
        let mut counts = vec![(50_i64, 3)];
        if compression.is_some() {
            counts.push((50 * 8, 1));
        }
        for (count, times) in counts {
            let at: Vec<usize> = (0..value.len() - 8)
                .filter(|&at| value[at..at + 8] == count.to_le_bytes())
                .collect();
            assert!(at.len() >= times, "{at:?}");
            for at in at {
                for wrong in [count - 1, count + 1, -1, 1 << 40, i64::MAX] {
                    let mut damaged = value.clone();
                    damaged[at..at + 8].copy_from_slice(&wrong.to_le_bytes());
                    let found = decoded(&damaged);
                    assert!(found.is_err(), "{wrong} at {at}: {found:?}");
                }
            }
        }
    }
}

#[test]
fn a_flipped_bit_never_makes_more_or_fewer_rows() {
    for compression in COMPRESSIONS {
        let value = value_of(50, compression);
        assert_eq!(decoded(&value).unwrap(), rows(0, 50));
        let mut errors = 0;
        for at in 0..value.len() {
            for mask in [1, 0x40, 0xff] {
                let mut damaged = value.clone();
                damaged[at] ^= mask;
                match decoded(&damaged) {
                    Ok(found) => assert_eq!(found.num_rows(), 50, "{mask} at {at}"),
                    Err(_detail) => errors += 1,
                }
            }
        }
        assert!(errors > 100, "{errors}");
    }
}

#[test]
fn each_record_without_a_key_asks_for_a_partition() {
    let target = IpcTarget { exclude: Vec::new(), max_rows: 30, compression: None };
    let mut encoder = Encoder::new(options(target, false, 1 << 20)).unwrap();
    let mut turn = 0;
    for slice in 0..8 {
        let partitioner = |_: Option<&[u8]>, _| {
            turn += 1;
            PartitionIndex(turn % 3)
        };
        encoder.push(&rows(slice * 100, 100), TimestampMs(5), partitioner).unwrap();
    }
    // 26 of 30 rows, and the rest.
    assert_eq!(turn, 27);
    for (partition, _, n) in records(&encoder.finish().unwrap()) {
        assert_eq!(i64::from(partition), (n / 30 + 1) % 3, "row {n}");
    }
}

#[test]
fn an_output_ends_before_the_value_that_it_has_no_room_for() {
    let target =
        IpcTarget { exclude: Vec::new(), max_rows: 50, compression: Some(IpcCompression::Lz4) };
    let mut encoder = Encoder::new(options(target, false, 1 << 20)).unwrap();
    for record in 0..7 {
        encoder
            .push(&rows(record * 50, 50), TimestampMs(5), |_, _| {
                PartitionIndex((record % 2) as i32)
            })
            .unwrap();
    }
    let batches = encoder.finish().unwrap();
    let value = value_of(50, Some(IpcCompression::Lz4));
    let size = value.len() + check(&value).unwrap();
    let one = Room { rows: 1 << 20, bytes: size * 3 / 2 };
    let two = Room { rows: 100, bytes: 1 << 30 };
    let none = Room { rows: 49, bytes: 1 << 30 };
    for (room, outputs, expected) in [(one, 7, 350), (two, 4, 350), (none, 1, 7)] {
        let mut decoder = Decoder::new(DecodeOptions {
            value: ValueFormat::ArrowIpc(IpcFormat::given(rows(0, 0).schema().fields().clone())),
            columns: Some(["partition", "offset", "n"].map(str::to_owned).to_vec()),
            on_error: OnError::Null,
            ..DecodeOptions::default()
        })
        .unwrap();
        decoder.set_room(room);
        for batch in &batches {
            let partition = TopicPartition::new("t", batch.partition);
            decoder.push(FetchedBytes::whole(partition, batch.bytes.clone()));
        }
        let mut next = [0, 0];
        let mut numbers = Vec::new();
        let mut count = 0;
        while let Some(output) = decoder.next(true).unwrap() {
            count += 1;
            let mut ends = next;
            for progress in &output.progress {
                let at = progress.partition.partition.place().unwrap();
                assert_eq!(progress.from.0, next[at], "{:?}", output.progress);
                ends[at] = progress.next.0;
            }
            let partitions = output.rows.column(0).as_primitive::<Int32Type>();
            let offsets = output.rows.column(1).as_primitive::<Int64Type>();
            for (partition, offset) in partitions.values().iter().zip(offsets.values()) {
                let at = *partition as usize;
                assert!((next[at]..ends[at]).contains(offset), "{:?}", output.progress);
            }
            numbers.extend(output.rows.column(2).as_primitive::<Int64Type>().iter());
            next = ends;
        }
        assert_eq!(next, [4, 3]);
        assert_eq!((count, numbers.len()), (outputs, expected));
        numbers.sort_unstable();
        numbers.dedup();
        // A value that no output has room for is its own error.
        assert_eq!(numbers.len(), if expected == 7 { 1 } else { 350 });
    }
}

#[test]
fn types_of_a_huge_fixed_size_are_refused() {
    let float = || Arc::new(Field::new("item", DataType::Float32, true));
    let huge = DataType::FixedSizeList(float(), i32::MAX);
    let wide = DataType::FixedSizeList(float(), 1 << 14);
    let nested = |of: DataType| Arc::new(Field::new("of", of, true));
    let types = [
        huge.clone(),
        DataType::FixedSizeBinary(i32::MAX),
        DataType::FixedSizeList(nested(wide), 1 << 14),
        DataType::List(nested(huge.clone())),
        DataType::Struct(vec![nested(DataType::LargeList(nested(huge)))].into()),
    ];
    for of in types {
        let schema = Schema::new(vec![Field::new("n", of, true)]);
        let value = StreamWriter::try_new(Vec::new(), &schema).unwrap().into_inner().unwrap();
        let error = super::read::fields_of(&value).unwrap_err();
        assert!(error.contains("fixed-size"), "{error}");
        assert!(decoded(&value).unwrap_err().starts_with(&error));
    }
    let usual = DataType::List(nested(DataType::FixedSizeList(float(), 4096)));
    let schema = Schema::new(vec![Field::new("n", usual, true)]);
    let value = StreamWriter::try_new(Vec::new(), &schema).unwrap().into_inner().unwrap();
    assert_eq!(super::read::fields_of(&value).unwrap(), *schema.fields());
}

#[test]
fn nulls_of_a_fixed_size_take_room() {
    let of = DataType::FixedSizeBinary(1 << 20);
    let fields = Fields::from(vec![Field::new("wide", of, true)]);
    let mut decoder = super::IpcDecoder::new(&fields, false, &[0]);
    decoder.room.bytes = 8 << 20;
    // No column `wide` in these, and not even a value in those.
    let value = value_of(3, None);
    for (value, most) in [(Some(value.as_slice()), 2), (None, 8)] {
        let values = BinaryViewArray::from_iter(vec![value; 20]);
        let read = decoder.decode(&values, &mut |_, detail| panic!("{detail}")).unwrap();
        let Columns::Many { done, .. } = read else { unreachable!() };
        assert_eq!(done, most);
    }
    let mut bad = Vec::new();
    let values = BinaryViewArray::from_iter_values([value_of(9, None)]);
    decoder
        .decode(&values, &mut |row, detail| {
            bad.push((row, detail));
            Ok(())
        })
        .unwrap();
    assert_eq!(bad.len(), 1);
    assert!(bad[0].1.contains("9437184 bytes"), "{bad:?}");
}

#[test]
fn rows_that_wait_are_bounded_by_their_bytes() {
    let target = IpcTarget { exclude: Vec::new(), max_rows: 1000, compression: None };
    let mut encoder = Encoder::new(options(target, false, 1 << 20)).unwrap();
    let large = StringViewArray::from_iter_values(["x".repeat(65 << 20)]);
    let large = RecordBatch::try_from_iter([("text", Arc::new(large) as ArrayRef)]).unwrap();
    for _ in 0..2 {
        encoder.push(&large, TimestampMs(5), |_, _| PartitionIndex(0)).unwrap();
    }
    assert_eq!(encoder.take_full().len(), 1);
}

#[test]
fn a_slice_counts_its_own_bytes() {
    let lists = Int64Array::from_iter_values(0..100_000);
    let offsets = OffsetBuffer::from_lengths(vec![100; 1000]);
    let item = Arc::new(Field::new_list_field(DataType::Int64, true));
    let lists: ArrayRef = Arc::new(ListArray::new(item, offsets, Arc::new(lists), None));
    let kinds = (0..1000).map(|n| format!("kind {n}")).collect::<Vec<_>>();
    let kinds: DictionaryArray<Int32Type> = kinds.iter().map(String::as_str).collect();
    for column in [lists, Arc::new(kinds) as ArrayRef] {
        let all = RecordBatch::try_from_iter([("n", column)]).unwrap();
        let (whole, part) = (slice_bytes(&all), slice_bytes(&all.slice(500, 10)));
        assert!((whole / 200..whole / 50).contains(&part), "{part} of {whole}");
    }
}

#[test]
fn what_buffers_claim_is_compared_with_a_bound() {
    let target =
        IpcTarget { exclude: Vec::new(), max_rows: 1, compression: Some(IpcCompression::Lz4) };
    let zeros = Int64Array::from_iter_values(std::iter::repeat_n(0, 40_000_000));
    let bomb = RecordBatch::try_from_iter([("n", Arc::new(zeros) as ArrayRef)]).unwrap();
    let error = super::one_stream(&bomb, &target).unwrap_err().to_string();
    assert!(error.contains("claims 320000000 uncompressed"), "{error}");
    let small = super::one_stream(&rows(0, 1000), &target).unwrap();
    assert!(check(&small).unwrap() > small.len());
}

/// What a column becomes in the type of another.
fn fitted(array: &ArrayRef, to: &DataType, found: bool) -> Result<ArrayRef, String> {
    super::fit::fit("x", array, to, found)
}

#[test]
fn members_are_found_by_name_and_those_without_a_place_are_errors_where_columns_were_found() {
    let numbers = |from| Arc::new(Int64Array::from_iter_values([from])) as ArrayRef;
    let members = |names: [&str; 2]| {
        let field = |name| Arc::new(Field::new(name, DataType::Int64, true));
        let members = [(field(names[0]), numbers(1)), (field(names[1]), numbers(2))];
        Arc::new(StructArray::from(members.to_vec())) as ArrayRef
    };
    let listed = |items: ArrayRef| {
        let item = Arc::new(Field::new_list_field(items.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths([1]), items, None)) as ArrayRef
    };
    let (ab, ba, bc) = (members(["a", "b"]), members(["b", "a"]), members(["b", "c"]));
    let found = fitted(&ba, ab.data_type(), true).unwrap();
    assert_eq!(found.as_struct().column(0).as_ref(), numbers(2).as_ref());
    assert_eq!(found.as_struct().column(1).as_ref(), numbers(1).as_ref());
    for (array, to) in
        [(&bc, ab.data_type()), (&listed(bc.clone()), listed(ab.clone()).data_type())]
    {
        let error = fitted(array, to, true).unwrap_err();
        assert!(error.contains(".c\" is not among the columns"), "{error}");
        let found = fitted(array, to, false).unwrap();
        let found = found.as_list_opt::<i32>().map_or(&found, |lists| lists.values());
        assert!(found.as_struct().column(0).is_null(0));
        assert_eq!(found.as_struct().column(1).as_ref(), numbers(1).as_ref());
    }
    // Neither are a list and its item the same, nor two columns of one name.
    fitted(&ab, listed(ab.clone()).data_type(), false).unwrap_err();
    fitted(&listed(numbers(1)), &DataType::Utf8, false).unwrap_err();
    fitted(&members(["a", "a"]), ab.data_type(), false).unwrap_err();
}

#[test]
fn nulls_fit_every_type_and_values_do_not_fit_a_column_of_nulls() {
    let nulls = Arc::new(NullArray::new(3)) as ArrayRef;
    let number = Arc::new(Int64Array::from_iter_values([1])) as ArrayRef;
    for of in
        [DataType::Int64, DataType::Utf8View, rows(0, 1).schema().field(0).data_type().clone()]
    {
        let found = fitted(&nulls, &of, true).unwrap();
        assert_eq!((found.data_type(), found.null_count()), (&of, 3));
    }
    let error = fitted(&number, &DataType::Null, true).unwrap_err();
    assert!(error.contains("pass arrow_ipc() a schema"), "{error}");
}

#[test]
fn members_that_are_missing_in_the_items_of_a_list_take_room() {
    let item = |members: Fields| Arc::new(Field::new_list_field(DataType::Struct(members), true));
    let wide = Field::new("wide", DataType::FixedSizeBinary(1 << 20), true);
    let column = DataType::List(item(vec![wide].into()));
    let items = Arc::new(StructArray::new_empty_fields(1000, None)) as ArrayRef;
    let lists =
        ListArray::new(item(Fields::empty()), OffsetBuffer::from_lengths([1000]), items, None);
    let batch = RecordBatch::try_from_iter([("n", Arc::new(lists) as ArrayRef)]).unwrap();
    let target = IpcTarget { exclude: Vec::new(), max_rows: 100, compression: None };
    let value = super::one_stream(&batch, &target).unwrap();
    let fields = Fields::from(vec![Field::new("n", column, true)]);
    let mut decoder = super::IpcDecoder::new(&fields, false, &[0]);
    decoder.room.bytes = 8 << 20;
    let mut bad = Vec::new();
    let values = BinaryViewArray::from_iter_values([value]);
    let mut note = |_, detail| {
        bad.push(detail);
        Ok(())
    };
    decoder.decode(&values, &mut note).unwrap();
    assert!(bad.len() == 1 && bad[0].contains("bytes in addition"), "{bad:?}");
}

#[test]
fn a_cast_changes_neither_a_value_nor_what_it_means() {
    let text = |value: &str| Arc::new(StringArray::from(vec![value])) as ArrayRef;
    let seconds = DataType::Timestamp(TimeUnit::Second, None);
    for (value, to) in [
        ("7", DataType::Int64),
        ("1.5", DataType::Float64),
        ("1.20", DataType::Decimal128(5, 2)),
        ("true", DataType::Boolean),
        ("2024-02-03", DataType::Date32),
        ("2024-02-03T10:00:00", seconds.clone()),
    ] {
        let found = fitted(&text(value), &to, false).unwrap();
        assert_eq!((found.data_type(), found.null_count()), (&to, 0), "{value}");
    }
    for (value, to) in [
        ("007", DataType::Int64),
        (" 7", DataType::Int64),
        ("1e400", DataType::Float64),
        ("9007199254740993", DataType::Float64),
        ("1.239", DataType::Decimal128(5, 2)),
        ("yes", DataType::Boolean),
        ("2024-02-03T10:00:00", DataType::Date32),
        ("2024-02-03T10:00:00.999", seconds.clone()),
    ] {
        let error = fitted(&text(value), &to, false).unwrap_err();
        assert!(error.contains("cannot be read as"), "{value}: {error}");
    }
    let durations = Arc::new(DurationSecondArray::from(vec![5])) as ArrayRef;
    let flags = Arc::new(BooleanArray::from(vec![true])) as ArrayRef;
    let five = Arc::new(Int64Array::from(vec![5])) as ArrayRef;
    for (array, to) in
        [(&durations, &DataType::Int64), (&flags, &DataType::Int64), (&five, &seconds)]
    {
        fitted(array, to, false).unwrap_err();
    }
}
