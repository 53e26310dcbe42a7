//! What is written is read back, and its sizes are those that were asked for.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringViewArray};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;

use super::read::check;
use super::{IpcCompression, IpcTarget};
use crate::columnar::{
    Chunk, DecodeOptions, Decoder, EncodedBatch, Encoder, ValueFormat, ValueSource, WriteOptions,
};
use crate::types::{TimestampMs, TopicPartition};

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
    let value = ValueFormat::ArrowIpc(None);
    let options = DecodeOptions { value, columns: Some(columns), ..DecodeOptions::default() };
    let mut decoder = Decoder::new(options).unwrap();
    for batch in batches {
        let partition = TopicPartition::new("t", batch.partition);
        decoder.push(Chunk::whole(partition, batch.bytes.clone()));
    }
    let mut found = Vec::new();
    while let Some(output) = decoder.next(true).unwrap() {
        use arrow::array::AsArray;
        use arrow::datatypes::{Int32Type, Int64Type};
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
                key.map_or(0, |key| i32::from(key.last().copied().unwrap_or(0) % 3))
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

    #[test]
    fn damage_is_an_error_and_not_a_panic(at in 0_usize..1_500, byte in any::<u8>(), zstd: bool) {
        let compression = Some(if zstd { IpcCompression::Zstd } else { IpcCompression::Lz4 });
        let target = IpcTarget { exclude: Vec::new(), max_rows: 100, compression };
        let mut value = super::one_stream(&rows(0, 50), &target).unwrap();
        let at = at % value.len();
        value[at] = byte;
        let column = arrow::array::BinaryViewArray::from_iter_values([&value]);
        let fields = rows(0, 0).schema().fields().clone();
        let decoder = super::IpcDecoder::new(fields);
        let _read = decoder.decode(&column, &mut |_, _| Ok(())).unwrap();
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
