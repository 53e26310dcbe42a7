//! Batches of any bytes: an error, or records that come back; with a matching checksum, too.

use bytes::Bytes;
use ottla::record::{
    AppendRules, Batch, BatchBuilder, BatchOptions, Batches, Compression, Header, patch_producer,
    validate_for_append,
};
use ottla::types::{ProducerEpoch, ProducerId, Sequence, TimestampMs};

const LIMIT: usize = 1 << 16;

pub(crate) fn run(input: &[u8]) {
    let Some((fit_checksum, bytes)) = input.split_first() else { return };
    let mut bytes = bytes.to_vec();
    if fit_checksum % 2 == 1 && bytes.len() > 61 {
        bytes[16] = 2;
        let length = i32::try_from(bytes.len() - 12).expect("small input");
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        let sequence = Sequence(if bytes[60] % 2 == 0 { -1 } else { 5 });
        patch_producer(&mut bytes, ProducerId(-1), ProducerEpoch(-1), sequence).expect("whole");
    }
    for batch in Batches::new(Bytes::from(bytes)).flatten() {
        check(&batch);
    }
}

fn check(batch: &Batch) {
    let accepted = validate_for_append(batch, AppendRules::client(LIMIT));
    let Ok(records) = batch.records(LIMIT) else {
        assert!(accepted.is_err());
        return;
    };
    let read: Result<Vec<_>, _> = records.iter().collect();
    let Ok(read) = read else {
        assert!(accepted.is_err());
        return;
    };
    assert_eq!(read.len(), usize::try_from(batch.header().record_count).expect("not negative"));
    let Ok(facts) = accepted else { return };
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for record in &read {
        let headers: Vec<Header<'_>> = record.headers.collect();
        builder.append(record.timestamp, record.key, record.value, &headers).expect("small");
    }
    let again = Batch::parse(&builder.finish().expect("no compression")).expect("our own batch");
    let facts_again = validate_for_append(&again, AppendRules::client(usize::MAX)).expect("ours");
    assert_eq!(facts_again.record_count, facts.record_count);
    assert_eq!(facts_again.first_keyless, facts.first_keyless);
}

/// A batch of every codec, as it is and with its checksum to be fixed.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for compression in Compression::ALL {
        let mut builder =
            BatchBuilder::new(BatchOptions { compression, ..BatchOptions::default() });
        let header = Header { key: b"h", value: Some(b"v") };
        for number in 0..3 {
            let key = (number != 1).then_some(&b"key"[..]);
            builder.append(TimestampMs(number), key, Some(b"value"), &[header]).expect("small");
        }
        let batch = builder.finish().expect("a small batch");
        seeds.extend([0, 1].map(|mend| [&[mend][..], &batch].concat()));
    }
    seeds
}
