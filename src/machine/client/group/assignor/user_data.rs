//! What `sticky` and `cooperative-sticky` write beside a subscription: bytes that members of all
//! clients read, in the form of Kafka's `StickyAssignor` and `CooperativeStickyAssignor`.
//!
//! ```text
//! sticky v1:    [topic: string, [partition: int32]] generation: int32      (v0: no generation)
//! cooperative:  generation: int32
//! ```
//!
//! Bytes that cannot be read count as none: a member of a newer or broken client must not keep the
//! group from being assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::MemberSubscription;
use crate::types::{PartitionIndex, TopicPartition};

/// The generation of a member that never was in one.
pub(super) const NO_GENERATION: i32 = -1;

/// Partitions that a member says it holds, with the generation in which it got them.
pub(super) type Held = (Vec<TopicPartition>, i32);

pub(super) fn cooperative(generation: i32) -> Vec<u8> {
    generation.to_be_bytes().to_vec()
}

pub(super) fn sticky(held: &BTreeSet<TopicPartition>, generation: i32) -> Vec<u8> {
    let mut topics: BTreeMap<&str, Vec<PartitionIndex>> = BTreeMap::new();
    for partition in held {
        topics.entry(&partition.topic).or_default().push(partition.partition);
    }
    let mut bytes = count(topics.len()).to_vec();
    for (topic, partitions) in topics {
        let length = i16::try_from(topic.len()).unwrap_or(i16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(topic.as_bytes());
        bytes.extend_from_slice(&count(partitions.len()));
        for partition in partitions {
            bytes.extend_from_slice(&partition.0.to_be_bytes());
        }
    }
    bytes.extend_from_slice(&generation.to_be_bytes());
    bytes
}

fn count(length: usize) -> [u8; 4] {
    i32::try_from(length).unwrap_or(i32::MAX).to_be_bytes()
}

/// What a member of `sticky` held.
pub(super) fn held(member: &MemberSubscription) -> Held {
    let data = member.user_data.as_deref().unwrap_or_default();
    read_sticky(data).unwrap_or((Vec::new(), NO_GENERATION))
}

/// The generation of a member of `cooperative-sticky`: from its subscription, or from members
/// before Kafka 3.4 from its user data.
pub(super) fn generation(member: &MemberSubscription) -> i32 {
    member
        .generation
        .or_else(|| Some(i32::from_be_bytes(*member.user_data.as_deref()?.first_chunk()?)))
        .unwrap_or(NO_GENERATION)
}

fn read_sticky(mut data: &[u8]) -> Option<Held> {
    let mut partitions = Vec::new();
    for _ in 0..read_i32(&mut data)? {
        let (length, rest) = data.split_first_chunk()?;
        let length = usize::try_from(i16::from_be_bytes(*length)).ok()?;
        let (topic, rest) = rest.split_at_checked(length)?;
        let topic: Arc<str> = Arc::from(std::str::from_utf8(topic).ok()?);
        data = rest;
        for _ in 0..read_i32(&mut data)? {
            partitions.push(TopicPartition::new(Arc::clone(&topic), read_i32(&mut data)?));
        }
    }
    // Version 0 ends here.
    Some((partitions, read_i32(&mut data).unwrap_or(NO_GENERATION)))
}

fn read_i32(data: &mut &[u8]) -> Option<i32> {
    let (number, rest) = data.split_first_chunk()?;
    *data = rest;
    Some(i32::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(user_data: &[u8]) -> MemberSubscription {
        MemberSubscription { user_data: Some(user_data.to_vec()), ..MemberSubscription::default() }
    }

    #[test]
    fn the_user_data_of_sticky_are_those_of_java() {
        let held_now: BTreeSet<_> =
            [("t", 0), ("t", 2), ("u", 1)].map(|(t, p)| TopicPartition::new(t, p)).into();
        let bytes = sticky(&held_now, 7);
        let expected = [
            0, 0, 0, 2, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 1, b'u', 0, 0, 0, 1, 0,
            0, 0, 1, 0, 0, 0, 7,
        ];
        assert_eq!(bytes, expected);
        let (partitions, generation) = held(&member(&bytes));
        assert_eq!((partitions.into_iter().collect::<BTreeSet<_>>(), generation), (held_now, 7));
        let (partitions, generation) = held(&member(&bytes[..bytes.len() - 4]));
        assert_eq!((partitions.len(), generation), (3, NO_GENERATION));
    }

    #[test]
    fn the_generation_of_an_older_cooperative_member_is_in_its_user_data() {
        assert_eq!(generation(&member(&cooperative(12))), 12);
        let newer = MemberSubscription { generation: Some(13), ..member(&cooperative(12)) };
        assert_eq!(generation(&newer), 13);
        assert_eq!(generation(&member(&[0])), NO_GENERATION);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes: Vec<u8>) {
            let _held = held(&member(&bytes));
        }
    }
}
