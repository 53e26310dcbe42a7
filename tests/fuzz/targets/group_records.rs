//! What groups store in `__consumer_offsets` and put into JoinGroup: an error, or a value that
//! comes back.

use bytes::Bytes;
use ottla::protocol::Message;
use ottla::protocol::records::consumer_protocol::{AssignedPartition, ConsumerProtocolAssignment};
use ottla::protocol::records::offset_commit::{OffsetCommitKey, OffsetCommitValue};
use ottla::protocol::records::{
    read_embedded, read_key, read_value, record_type, write_key, write_versioned,
};

pub(crate) fn run(input: &[u8]) {
    let Some((choice, bytes)) = input.split_first() else { return };
    let bytes = Bytes::copy_from_slice(bytes);
    match choice % 3 {
        0 => {
            let Ok((kind, rest)) = record_type(bytes) else { return };
            if let Ok(key) = read_key::<OffsetCommitKey>(rest) {
                let again = write_key(kind, &key).expect("what was read");
                let (kind_again, rest) = record_type(again).expect("our own bytes");
                assert_eq!(kind_again, kind);
                assert_eq!(read_key::<OffsetCommitKey>(rest).expect("our own bytes"), key);
            }
        }
        1 => round_trip::<OffsetCommitValue>(bytes),
        _ => {
            let Ok((version, assignment)) = read_embedded::<ConsumerProtocolAssignment>(bytes)
            else {
                return;
            };
            let version = version.min(ConsumerProtocolAssignment::SCHEMA.versions.max);
            let again = write_versioned(&assignment, version).expect("what was read");
            assert_eq!(read_embedded(again).expect("our own bytes"), (version, assignment));
        }
    }
}

fn round_trip<M: Message>(bytes: Bytes) {
    let version = bytes.first_chunk().map(|version| i16::from_be_bytes(*version));
    if let Ok(value) = read_value::<M>(bytes) {
        let again = write_versioned(&value, version.expect("it was read")).expect("what was read");
        assert_eq!(read_value::<M>(again).expect("our own bytes"), value);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let key = OffsetCommitKey { group: "group".into(), topic: "topic".into(), partition: 2 };
    let key = write_key(1, &key).expect("a key");
    let mut seeds = vec![[&[0][..], &key].concat()];
    let value = OffsetCommitValue { offset: 7, ..OffsetCommitValue::default() };
    for version in [0, 1, 3, 4] {
        let bytes = write_versioned(&value, version).expect("a value");
        seeds.push([&[1][..], &bytes].concat());
    }
    let partitions = AssignedPartition { topic: "t".into(), partitions: vec![0, 1] };
    let assignment =
        ConsumerProtocolAssignment { assigned_partitions: vec![partitions], user_data: None };
    for version in 0..4 {
        let bytes = write_versioned(&assignment, version).expect("an assignment");
        seeds.push([&[2][..], &bytes].concat());
    }
    seeds
}
