//! Values of any bytes as JSON, text and raw: arrays that are valid, or an error, never a panic;
//! and records of any bytes as columns.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla::columnar::{Chunk, DecodeOptions, Decoder, OnError, ValueFormat};
use ottla::record::{BatchBuilder, BatchOptions, patch_producer};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs, TopicPartition};

fuzz_target!(|input: (u8, Vec<Option<Vec<u8>>>, &[u8])| {
    let (choice, values, records) = input;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for value in &values {
        builder.append(TimestampMs(1), Some(b"key"), value.as_deref(), &[]).expect("small");
    }
    let good = builder.finish().expect("no compression");
    let mut bad = good.to_vec();
    bad.extend_from_slice(records);
    let length = i32::try_from(bad.len() - 12).expect("small input");
    bad[8..12].copy_from_slice(&length.to_be_bytes());
    patch_producer(&mut bad, ProducerId(-1), ProducerEpoch(-1), Sequence(-1)).expect("whole");
    let value = match choice % 3 {
        0 => ValueFormat::Raw,
        1 => ValueFormat::Text,
        _ => ValueFormat::json_inferred(),
    };
    let options = DecodeOptions {
        value,
        on_error: OnError::Column,
        max_rows: 5,
        views: choice & 0x80 == 0,
        decompressed_size_max: 1 << 16,
        ..DecodeOptions::default()
    };
    let mut decoder = Decoder::new(options).expect("good options");
    for bytes in [good, Bytes::from(bad)] {
        decoder.push(Chunk::whole(TopicPartition::new("fuzz", 0), bytes));
    }
    let mut rows = 0;
    let mut errors = 0;
    // An error ends a chunk, not the decoder; a schema that cannot be stays an error.
    while errors < 4 {
        let output = match decoder.next(true) {
            Ok(Some(output)) => output,
            Ok(None) => break,
            Err(_) => {
                errors += 1;
                continue;
            }
        };
        rows += output.rows.num_rows();
        for column in output.rows.columns() {
            column.to_data().validate_full().expect("a valid array");
        }
    }
    assert!(errors > 3 || rows >= values.len());
});
