//! Round trips, third-party codecs, golden bytes and hostile input.

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::compression::Scratch;
use super::control::{ControlType, TransactionMarker, read_control_batch};
use super::*;
use crate::error::ErrorCode;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, TimestampMs};

const LIMIT: usize = 1 << 20;

type OwnedHeaders = Vec<(Vec<u8>, Option<Vec<u8>>)>;

#[derive(Clone, Debug, PartialEq)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

fn owned(view: &RecordView<'_>) -> Owned {
    Owned {
        timestamp: view.timestamp.0,
        key: view.key.map(<[u8]>::to_vec),
        value: view.value.map(<[u8]>::to_vec),
        headers: view
            .headers
            .map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)))
            .collect(),
    }
}

fn build(records: &[Owned], options: BatchOptions) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for record in records {
        let headers: Vec<_> = record
            .headers
            .iter()
            .map(|(key, value)| Header { key, value: value.as_deref() })
            .collect();
        builder
            .append(
                TimestampMs(record.timestamp),
                record.key.as_deref(),
                record.value.as_deref(),
                &headers,
            )
            .unwrap();
    }
    builder.finish().unwrap()
}

fn read(bytes: &Bytes) -> Vec<Owned> {
    let mut all = Vec::new();
    for batch in Batches::new(bytes.clone()) {
        let batch = batch.unwrap();
        batch.verify_crc().unwrap();
        let records = batch.records(LIMIT).unwrap();
        all.extend(records.iter().map(|record| owned(&record.unwrap())));
    }
    all
}

fn some_records(count: usize) -> Vec<Owned> {
    (0..count)
        .map(|index| Owned {
            timestamp: 1_700_000_000_000 + index as i64 * 7,
            key: (index % 3 != 0).then(|| format!("key-{index}").into_bytes()),
            value: (index % 5 != 4).then(|| vec![b'v'; index * 11 % 300]),
            headers: (0..index % 4)
                .map(|at| (b"same".to_vec(), (at != 1).then(|| vec![at as u8; at])))
                .collect(),
        })
        .collect()
}

fn any_bytes() -> impl Strategy<Value = Option<Vec<u8>>> {
    proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200))
}

fn any_record() -> impl Strategy<Value = Owned> {
    let header = (proptest::collection::vec(any::<u8>(), 0..20), any_bytes());
    (any::<i64>(), any_bytes(), any_bytes(), proptest::collection::vec(header, 0..4))
        .prop_map(|(timestamp, key, value, headers)| Owned { timestamp, key, value, headers })
}

fn code<T: std::fmt::Debug>(result: crate::error::Result<T>) -> ErrorCode {
    result.unwrap_err().code()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_come_back_from_every_codec(
        records in proptest::collection::vec(any_record(), 1..30),
        codec in 0_i16..5,
        base in 0_i64..1 << 50,
    ) {
        let options = BatchOptions {
            compression: Compression::from_id(codec).unwrap(),
            base_offset: Offset(base),
            ..BatchOptions::default()
        };
        let bytes = build(&records, options);
        prop_assert_eq!(&read(&bytes), &records);
        let batch = Batch::parse(&bytes).unwrap();
        let facts = validate_for_append(&batch, AppendRules::client(LIMIT)).unwrap();
        let max = records.iter().map(|record| record.timestamp).max().unwrap().max(-1);
        prop_assert_eq!(facts.max_timestamp.0, max);
        prop_assert_eq!(facts.record_count as usize, records.len());
        let keyless = records.iter().position(|record| record.key.is_none());
        prop_assert_eq!(facts.first_keyless.map(|index| index as usize), keyless);
        if let Some(at) = records.iter().position(|record| record.timestamp == max) {
            prop_assert_eq!(facts.max_timestamp_offset_delta as usize, at);
        }
    }

    #[test]
    fn bytes_with_flipped_bits_are_an_error_or_the_same_records(
        at in 0_usize..4000, bit in 0_u32..8, codec in 0_i16..5,
    ) {
        let options = BatchOptions {
            compression: Compression::from_id(codec).unwrap(),
            ..BatchOptions::default()
        };
        let records = some_records(20);
        let mut bytes = build(&records, options).to_vec();
        let at = at % bytes.len();
        bytes[at] ^= 1 << bit;
        let whole = Bytes::from(bytes);
        for batch in Batches::new(whole).flatten() {
            let outside_of_the_crc = at < 8 || (12..16).contains(&at);
            prop_assert_eq!(batch.verify_crc().is_ok(), outside_of_the_crc);
            // Nothing panics without the CRC check either.
            if let Ok(records) = batch.records(LIMIT) {
                records.iter().for_each(drop);
            }
        }
    }

    #[test]
    fn arbitrary_bytes_behind_a_good_header_do_no_harm(
        junk in proptest::collection::vec(any::<u8>(), 0..400),
        codec in 0_i16..8,
        count in -3_i32..60,
    ) {
        let mut bytes = build(&some_records(1), BatchOptions::default()).to_vec();
        bytes.truncate(HEADER_SIZE);
        bytes.extend_from_slice(&junk);
        let length = (bytes.len() - LENGTH_PREFIX_SIZE) as i32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[21..23].copy_from_slice(&codec.to_be_bytes());
        bytes[57..61].copy_from_slice(&count.to_be_bytes());
        for batch in Batches::new(Bytes::from(bytes)).flatten() {
            if let Ok(records) = batch.records(LIMIT) {
                records.iter().for_each(drop);
            }
            validate_for_append(&batch, AppendRules::client(LIMIT)).ok();
        }
    }

    #[test]
    fn numbers_are_the_same_after_varint_and_back(value in any::<i64>(), small in any::<i32>()) {
        let mut bytes = Vec::new();
        walk::put_varint(&mut bytes, value);
        prop_assert_eq!(bytes.len(), walk::varint_size(value));
        bytes.clear();
        walk::put_varint(&mut bytes, i64::from(small));
        prop_assert_eq!(bytes.len(), walk::varint_size(i64::from(small)));
        prop_assert!(bytes.len() <= 5);
    }
}

#[test]
fn a_batch_has_the_bytes_that_kafka_gives_it() {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
        base_sequence: Sequence(3),
        ..BatchOptions::default()
    });
    let header = Header { key: b"h", value: None };
    builder.append(TimestampMs(1000), Some(b"k"), Some(b"vv"), &[header]).unwrap();
    builder.append(TimestampMs(1005), None, None, &[]).unwrap();
    let bytes = builder.finish().unwrap();
    let expected: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 0, // base offset
        0, 0, 0, 69, // length
        255, 255, 255, 255, // leader epoch
        2,   // magic
        0, 0, 0, 0, // crc, below
        0, 0, // attributes
        0, 0, 0, 1, // last offset delta
        0, 0, 0, 0, 0, 0, 3, 232, // base timestamp
        0, 0, 0, 0, 0, 0, 3, 237, // max timestamp
        0, 0, 0, 0, 0, 0, 0, 7, // producer id
        0, 1, // producer epoch
        0, 0, 0, 3, // base sequence
        0, 0, 0, 2, // count
        24, 0, 0, 0, 2, b'k', 4, b'v', b'v', 2, 2, b'h', 1, // first record
        12, 0, 10, 2, 1, 1, 0, // second record
    ];
    let crc = crc32c::crc32c(&expected[21..]).to_be_bytes();
    assert_eq!(bytes[..17], expected[..17]);
    assert_eq!(bytes[17..21], crc);
    assert_eq!(bytes[21..], expected[21..]);
}

#[test]
fn another_decoder_reads_what_we_write() {
    use kafka_protocol::records as theirs;
    for codec in Compression::ALL {
        let records: Vec<Owned> = some_records(50)
            .into_iter()
            // Their headers are a map, so keys must differ.
            .map(|record| Owned { headers: record.headers.into_iter().take(1).collect(), ..record })
            .collect();
        let options = BatchOptions {
            compression: codec,
            base_offset: Offset(100),
            producer_id: ProducerId(9),
            producer_epoch: ProducerEpoch(2),
            base_sequence: Sequence(40),
            transactional: true,
            ..BatchOptions::default()
        };
        let mut bytes = build(&records, options);
        let set = theirs::RecordBatchDecoder::decode(&mut bytes).unwrap();
        assert_eq!(set.records.len(), 50);
        for (index, (their, our)) in set.records.iter().zip(&records).enumerate() {
            assert_eq!(their.offset, 100 + index as i64);
            assert_eq!(their.timestamp, our.timestamp);
            assert_eq!(their.producer_id, 9);
            assert_eq!(their.sequence, 40 + index as i32);
            assert!(their.transactional);
            assert_eq!(their.key.as_deref(), our.key.as_deref());
            assert_eq!(their.value.as_deref(), our.value.as_deref());
            let headers: OwnedHeaders = their
                .headers
                .iter()
                .map(|(key, value)| (key.as_bytes().to_vec(), value.as_deref().map(<[u8]>::to_vec)))
                .collect();
            assert_eq!(headers, our.headers);
        }
    }
}

#[test]
fn we_read_what_another_encoder_writes() {
    use kafka_protocol::records as theirs;
    let codecs = [
        theirs::Compression::None,
        theirs::Compression::Gzip,
        theirs::Compression::Snappy,
        theirs::Compression::Lz4,
        theirs::Compression::Zstd,
    ];
    for compression in codecs {
        let records: Vec<_> = (0..40_i32)
            .map(|index| theirs::Record {
                transactional: false,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: 4,
                producer_id: -1,
                producer_epoch: -1,
                timestamp_type: theirs::TimestampType::Creation,
                offset: i64::from(index),
                sequence: index,
                timestamp: 1_000_000 - i64::from(index),
                key: (index % 2 == 0).then(|| Bytes::from(index.to_string())),
                value: (index % 7 != 0).then(|| Bytes::from(vec![b'x'; index as usize * 40])),
                headers: [("trace".into(), Some(Bytes::from_static(b"1")))].into_iter().collect(),
            })
            .collect();
        let mut buffer = BytesMut::new();
        let options = theirs::RecordEncodeOptions { version: 2, compression };
        theirs::RecordBatchEncoder::encode(&mut buffer, &records, &options).unwrap();
        let bytes = buffer.freeze();
        let mut seen = 0;
        for batch in Batches::new(bytes) {
            let batch = batch.unwrap();
            batch.verify_crc().unwrap();
            for record in &batch.records(LIMIT).unwrap() {
                let record = record.unwrap();
                let their = &records[usize::try_from(record.offset.0).unwrap()];
                assert_eq!(record.timestamp.0, their.timestamp);
                assert_eq!(record.key, their.key.as_deref());
                assert_eq!(record.value, their.value.as_deref());
                assert_eq!(record.headers.last_with_key(b"trace").unwrap().value, Some(&b"1"[..]));
                seen += 1;
            }
        }
        assert_eq!(seen, 40);
    }
}

#[test]
fn a_partial_last_batch_is_told_and_not_an_error() {
    let first = build(&some_records(3), BatchOptions::default());
    let second = build(&some_records(9), BatchOptions::default());
    let both = [&first[..], &second[..]].concat();
    for cut in first.len()..=both.len() {
        let mut batches = Batches::new(Bytes::copy_from_slice(&both[..cut]));
        assert!(batches.next().unwrap().is_ok());
        let whole = cut == both.len();
        assert_eq!(batches.next().is_some(), whole, "cut at {cut}");
        assert!(batches.next().is_none());
        let truncated = batches.truncated();
        if whole || cut == first.len() {
            assert_eq!(truncated, None);
        } else {
            let truncated = truncated.unwrap();
            assert_eq!(truncated.position, first.len());
            assert_eq!(truncated.present, cut - first.len());
            let known = cut - first.len() >= LENGTH_PREFIX_SIZE;
            assert_eq!(truncated.size_bytes, known.then_some(second.len()));
        }
    }
}

#[test]
fn older_formats_are_refused_with_their_own_code() {
    for magic in [0, 1] {
        let mut bytes = build(&some_records(1), BatchOptions::default()).to_vec();
        bytes[16] = magic;
        let error = Batches::new(Bytes::from(bytes)).next().unwrap().unwrap_err();
        assert_eq!(error.code(), ErrorCode::UnsupportedForMessageFormat);
        assert!(error.to_string().contains("magic"), "{error}");
    }
    let mut bytes = build(&some_records(1), BatchOptions::default()).to_vec();
    bytes[16] = 3;
    assert_eq!(code(Batch::parse(&Bytes::from(bytes))), ErrorCode::CorruptMessage);
}

#[test]
fn lengths_that_cannot_be_are_corrupt() {
    for length in [-1, 0, 48, i32::MIN, i32::MAX] {
        let mut bytes = build(&some_records(1), BatchOptions::default()).to_vec();
        bytes[8..12].copy_from_slice(&i32::to_be_bytes(length));
        let mut batches = Batches::new(Bytes::from(bytes));
        assert_eq!(code(batches.next().unwrap()), ErrorCode::CorruptMessage, "{length}");
        assert!(batches.next().is_none());
    }
}

#[test]
fn a_count_beyond_the_bytes_is_refused_before_room_is_made() {
    let mut bytes = build(&some_records(2), BatchOptions::default()).to_vec();
    bytes[57..61].copy_from_slice(&i32::MAX.to_be_bytes());
    let batch = Batch::parse(&Bytes::from(bytes)).unwrap();
    assert_eq!(code(batch.records(LIMIT)), ErrorCode::InvalidRecord);
}

#[test]
fn a_bomb_ends_at_the_limit() {
    let zeros = vec![0_u8; 64 << 20];
    for codec in &Compression::ALL[1..] {
        let mut packed = Vec::new();
        compress(*codec, None, &zeros, &mut packed).unwrap();
        let error = decompress(*codec, &packed, 1 << 20).unwrap_err();
        assert_eq!(error.code(), ErrorCode::CorruptMessage);
        assert!(error.to_string().contains("limit"), "{codec}: {error}");
        assert_eq!(decompress(*codec, &packed, zeros.len()).unwrap().len(), zeros.len());
        assert!(decompress(*codec, &packed, zeros.len() - 1).is_err());
    }
}

#[test]
fn cut_off_streams_are_errors() {
    let text: Vec<u8> =
        (0..50_000_u32).flat_map(|n| (n * n % 251).to_string().into_bytes()).collect();
    for codec in &Compression::ALL[1..] {
        let mut packed = Vec::new();
        compress(*codec, None, &text, &mut packed).unwrap();
        assert_eq!(decompress(*codec, &packed, text.len()).unwrap(), text);
        for cut in [1, 5, 11, packed.len() / 2, packed.len() - 3] {
            assert!(decompress(*codec, &packed[..cut], text.len()).is_err(), "{codec} at {cut}");
        }
    }
}

/// The result with reused memory; it must equal the result with fresh memory.
fn unpack(
    scratch: &mut Scratch,
    codec: Compression,
    packed: &[u8],
    limit: usize,
) -> Option<Vec<u8>> {
    let found = scratch.with((codec, packed), limit, |data| data.map(<[u8]>::to_vec));
    let fresh = decompress(codec, packed, limit);
    assert_eq!(found.as_ref().ok(), fresh.as_ref().ok());
    found.ok()
}

#[test]
fn memory_that_was_used_before_makes_no_difference() {
    const ENOUGH: usize = 16 << 20;
    let noise: Vec<u8> = (0..6_000_000_u32).map(|n| (n.wrapping_mul(n) >> 7) as u8).collect();
    let texts = [&noise[..300_000], b"", &noise[..70], &noise[..], &noise[9..40_000], b"short"];
    let mut scratch = Scratch::default();
    for text in texts {
        for codec in Compression::ALL {
            let mut packed = Vec::new();
            compress(codec, None, text, &mut packed).unwrap();
            assert_eq!(unpack(&mut scratch, codec, &packed, ENOUGH).as_deref(), Some(text));
            let limited = unpack(&mut scratch, codec, &packed, text.len().saturating_sub(1));
            assert_eq!(limited.is_none(), !text.is_empty(), "{codec}");
            unpack(&mut scratch, codec, &packed[..packed.len() / 2], ENOUGH);
            assert_eq!(unpack(&mut scratch, codec, &packed, text.len()).as_deref(), Some(text));
        }
    }
}

#[test]
fn zstd_frames_that_do_not_say_their_size_are_read_to_their_end() {
    let mut scratch = Scratch::default();
    let mut zstd = |packed: &[u8], limit| unpack(&mut scratch, Compression::Zstd, packed, limit);
    let skippable = [0x53, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9];
    for size in [0, 1, 16_383, 16_384, 16_385, 40_000, LIMIT - 1, LIMIT] {
        let text: Vec<u8> = (0..size).map(|n| (n / 3) as u8).collect();
        let frame = zstd::stream::encode_all(&*text, 3).unwrap();
        assert_eq!(zstd(&frame, LIMIT).as_ref(), Some(&text), "{size}");
        assert_eq!(zstd(&frame, size).as_ref(), Some(&text));
        assert_eq!(zstd(&frame, size.saturating_sub(1)).is_some(), size == 0);
        let twice = [&frame[..], &skippable, &frame].concat();
        assert_eq!(zstd(&twice, 2 * size), Some([&*text, &*text].concat()));
        assert_eq!(zstd(&[&skippable, &frame[..]].concat(), size).as_ref(), Some(&text));
        assert_eq!(zstd(&[&frame[..], &skippable].concat(), size).as_ref(), Some(&text));
        for behind in [&b"x"[..], b"xyz", b"no frame", &skippable[..7], &frame[..5]] {
            assert_eq!(zstd(&[&frame[..], behind].concat(), LIMIT), None, "{size} {behind:?}");
        }
        for cut in 1..frame.len().min(20) {
            assert_eq!(zstd(&frame[..frame.len() - cut], LIMIT), None, "{size} cut by {cut}");
        }
    }
    assert_eq!(zstd(&skippable, 10), Some(Vec::new()));
    // A frame of version 0.7, and one that needs a missing dictionary.
    assert_eq!(zstd(&[0x27, 0xb5, 0x2f, 0xfd, 0, 0, 0, 0], LIMIT), None);
    assert_eq!(zstd(&[0x28, 0xb5, 0x2f, 0xfd, 0x21, 7, 1, 9, 0, 0, b'x'], LIMIT), None);
    assert_eq!(
        zstd(&zstd::stream::encode_all(&b"good"[..], 3).unwrap(), LIMIT),
        Some(b"good".to_vec())
    );
}

#[test]
fn a_thread_keeps_little_of_what_a_bomb_took() {
    const KEPT_MAX: usize = 5 << 20;
    let mut scratch = Scratch::default();
    let zeros = vec![0_u8; 64 << 20];
    for codec in &Compression::ALL[1..] {
        let mut packed = Vec::new();
        compress(*codec, None, &zeros, &mut packed).unwrap();
        for limit in [32 << 20, 64 << 20] {
            let is_ok = scratch.with((*codec, &packed), limit, |data| data.is_ok());
            assert_eq!(is_ok, limit == zeros.len());
            assert!(scratch.kept().iter().all(|kept| *kept < KEPT_MAX), "{:?}", scratch.kept());
        }
    }
    // A window of 64 MiB, in a frame that does not say its size.
    let mut encoder = zstd::stream::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(26).unwrap();
    std::io::copy(&mut &zeros[..], &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    assert!(scratch.with((Compression::Zstd, &packed), zeros.len(), |data| data.is_ok()));
    assert!(scratch.kept().iter().all(|kept| *kept < KEPT_MAX), "{:?}", scratch.kept());
}

#[test]
fn snappy_is_read_raw_and_framed() {
    let text = b"the quick brown fox ".repeat(5000);
    let raw = snap::raw::Encoder::new().compress_vec(&text).unwrap();
    assert_eq!(decompress(Compression::Snappy, &raw, LIMIT).unwrap(), text);
    let mut framed = Vec::new();
    compress(Compression::Snappy, None, &text, &mut framed).unwrap();
    assert_eq!(&framed[..16], b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    assert_eq!(decompress(Compression::Snappy, &framed, LIMIT).unwrap(), text);
}

#[test]
fn levels_are_those_of_kafka() {
    let text = b"level ".repeat(1000);
    for (codec, levels) in [
        (Compression::Gzip, [-1, 1, 9].as_slice()),
        (Compression::Lz4, &[1, 9, 17]),
        (Compression::Zstd, &[-131_072, 1, 22]),
    ] {
        for &level in levels {
            let mut packed = Vec::new();
            compress(codec, Some(level), &text, &mut packed).unwrap();
            assert_eq!(decompress(codec, &packed, LIMIT).unwrap(), text, "{codec} {level}");
        }
    }
    for (codec, level) in [(Compression::Gzip, 10), (Compression::Lz4, 0), (Compression::Snappy, 1)]
    {
        assert!(compress(codec, Some(level), &text, &mut Vec::new()).is_err());
    }
}

#[test]
fn patched_offset_and_epoch_keep_the_checksum() {
    let mut bytes = build(&some_records(4), BatchOptions::default()).to_vec();
    patch_base_offset_and_epoch(&mut bytes, Offset(42), LeaderEpoch(5)).unwrap();
    let batch = Batch::parse(&Bytes::from(bytes)).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().base_offset, Offset(42));
    assert_eq!(batch.header().leader_epoch, LeaderEpoch(5));
    assert_eq!(batch.header().next_offset(), Offset(46));
    let records = batch.records(LIMIT).unwrap();
    assert_eq!(records.iter().last().unwrap().unwrap().offset, Offset(45));
    assert!(patch_base_offset_and_epoch(&mut [0; 60], Offset(1), LeaderEpoch(1)).is_err());
}

#[test]
fn log_append_time_is_every_records_time() {
    let mut bytes = build(&some_records(4), BatchOptions::default()).to_vec();
    patch_max_timestamp(&mut bytes, TimestampType::LogAppendTime, TimestampMs(77)).unwrap();
    let batch = Batch::parse(&Bytes::from(bytes)).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().timestamp_type(), TimestampType::LogAppendTime);
    let records = batch.records(LIMIT).unwrap();
    assert!(records.iter().all(|record| record.unwrap().timestamp == TimestampMs(77)));
    let facts = validate_for_append(&batch, AppendRules::client(LIMIT)).unwrap();
    assert_eq!(facts.max_timestamp, TimestampMs(77));
}

#[test]
fn a_patched_producer_keeps_the_records() {
    let mut bytes = build(&some_records(4), BatchOptions::default()).to_vec();
    patch_producer(&mut bytes, ProducerId(5), ProducerEpoch(6), Sequence(i32::MAX)).unwrap();
    let batch = Batch::parse(&Bytes::from(bytes)).unwrap();
    batch.verify_crc().unwrap();
    assert_eq!(batch.header().last_sequence(), Sequence(2));
    assert!(!batch.header().is_transactional());
    let mut bytes = BytesMut::from(&batch.into_bytes()[..]);
    patch_transaction(&mut bytes, ProducerId(5), ProducerEpoch(7), Sequence(0)).unwrap();
    let batch = Batch::parse(&bytes.freeze()).unwrap();
    batch.verify_crc().unwrap();
    assert!(batch.header().is_transactional());
    assert_eq!(batch.header().producer_epoch, ProducerEpoch(7));
}

#[test]
fn a_transaction_marker_is_the_same_after_bytes_and_back() {
    for committed in [true, false] {
        let marker = TransactionMarker { committed, coordinator_epoch: 12 };
        let bytes = marker.batch(ProducerId(3), ProducerEpoch(4), TimestampMs(99)).unwrap();
        let batch = Batch::parse(&bytes).unwrap();
        assert!(batch.header().is_control() && batch.header().is_transactional());
        let kind = if committed { ControlType::Commit } else { ControlType::Abort };
        assert_eq!(read_control_batch(&batch).unwrap(), (kind, Some(marker)));
        let refused = validate_for_append(&batch, AppendRules::client(LIMIT));
        assert_eq!(code(refused), ErrorCode::InvalidRecord);
        let rules = AppendRules { control: true, uncompressed_size_max: LIMIT };
        validate_for_append(&batch, rules).unwrap();
    }
    assert!(ControlType::parse_key(&[0, 0, 0]).is_err());
}

#[test]
fn batches_that_a_leader_must_not_append_are_refused() {
    let good = build(&some_records(4), BatchOptions::default()).to_vec();
    let check = |what: &str, expected: ErrorCode, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        header::renew_crc(&mut bytes).unwrap();
        let result = Batch::parse(&Bytes::from(bytes))
            .and_then(|batch| validate_for_append(&batch, AppendRules::client(LIMIT)));
        assert_eq!(result.unwrap_err().code(), expected, "{what}");
    };
    let invalid = ErrorCode::InvalidRecord;
    check("no records", invalid, &|bytes| bytes[57..61].copy_from_slice(&[0; 4]));
    check("count above", invalid, &|bytes| {
        bytes[60] = 5;
        bytes[26] = 4;
    });
    check("count below", invalid, &|bytes| {
        bytes[60] = 3;
        bytes[26] = 2;
    });
    check("last offset delta", invalid, &|bytes| bytes[26] = 7);
    check("control", invalid, &|bytes| bytes[22] |= 1 << 5);
    check("sequence", invalid, &|bytes| bytes[43..51].copy_from_slice(&[0; 8]));
    check("transactional without id", invalid, &|bytes| bytes[22] |= 1 << 4);
    check("delete horizon", invalid, &|bytes| bytes[22] |= 1 << 6);
    check("codec", ErrorCode::CorruptMessage, &|bytes| bytes[22] |= 5);
    check("offset delta", invalid, &|bytes| bytes[64] = 2);
    check("record length", invalid, &|bytes| bytes[61] += 2);
    let mut flipped = good.clone();
    flipped[70] ^= 1;
    let batch = Batch::parse(&Bytes::from(flipped)).unwrap();
    let result = validate_for_append(&batch, AppendRules::client(LIMIT));
    assert_eq!(code(result), ErrorCode::CorruptMessage);
}

#[test]
fn compaction_can_leave_holes_and_empty_batches() {
    let options = BatchOptions {
        base_offset: Offset(10),
        delete_horizon: Some(TimestampMs(5000)),
        ..BatchOptions::default()
    };
    let mut builder = BatchBuilder::new(options);
    builder.append_at(Offset(12), TimestampMs(4000), Some(b"k"), None, &[]).unwrap();
    assert!(builder.append_at(Offset(12), TimestampMs(1), None, None, &[]).is_err());
    builder.append_at(Offset(17), TimestampMs(6000), Some(b"l"), None, &[]).unwrap();
    builder.extend_to(Offset(19)).unwrap();
    let batch = Batch::parse(&builder.finish().unwrap()).unwrap();
    assert_eq!(batch.header().delete_horizon(), Some(TimestampMs(5000)));
    assert_eq!(batch.header().last_offset(), Offset(19));
    let records = batch.records(LIMIT).unwrap();
    let seen: Vec<_> = records
        .iter()
        .map(|record| record.unwrap())
        .map(|record| (record.offset.0, record.timestamp.0))
        .collect();
    assert_eq!(seen, [(12, 4000), (17, 6000)]);

    let mut empty = BatchBuilder::new(BatchOptions {
        compression: Compression::Zstd,
        ..BatchOptions::default()
    });
    empty.extend_to(Offset(3)).unwrap();
    let batch = Batch::parse(&empty.finish().unwrap()).unwrap();
    assert_eq!(batch.records(LIMIT).unwrap().iter().count(), 0);
    assert_eq!(batch.header().next_offset(), Offset(4));
}

#[test]
fn the_bound_of_a_records_size_holds() {
    let header = Header { key: b"abc", value: Some(b"defg") };
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.append(TimestampMs(i64::MIN), None, None, &[]).unwrap();
    let before = builder.size_bytes();
    builder.append(TimestampMs(i64::MAX / 2), Some(b"k"), Some(&[1; 300]), &[header]).unwrap();
    assert!(builder.size_bytes() - before <= record_size_upper_bound(1, 300, 7, 1));
}
