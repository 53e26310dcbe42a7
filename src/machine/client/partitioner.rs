//! Which partition a record goes to.
//!
//! A record with a key goes to `murmur2(key) mod partitions`, bit for bit as the Java client
//! computes it, so that producers of every language agree on where a key lives. A record without a
//! key sticks to one partition until about a batch has been written there, then moves on (KIP-480,
//! KIP-794): batches fill up, and partitions with short queues get more of them.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use crate::types::PartitionIndex;

/// The 32-bit murmur2 hash with Kafka's seed; the number is what Java prints.
#[must_use]
fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const MULTIPLIER: u32 = 0x5bd1_e995;
    const SHIFT: u32 = 24;

    let length = u32::try_from(data.len() & 0xffff_ffff).unwrap_or(0);
    let mut hash = SEED ^ length;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = chunk.iter().rev().fold(0_u32, |word, &byte| (word << 8) | u32::from(byte));
        word = word.wrapping_mul(MULTIPLIER);
        word ^= word >> SHIFT;
        word = word.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let word = rest.iter().rev().fold(0_u32, |word, &byte| (word << 8) | u32::from(byte));
        hash = (hash ^ word).wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^= hash >> 15;
    hash.cast_signed()
}

/// The partition of a key among `partitions`, as the Java client's default partitioner chooses it.
///
/// `partitions` is the topic's count, including those without a leader; 0 gives 0.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> PartitionIndex {
    PartitionIndex(if partitions <= 0 { 0 } else { (murmur2(key) & i32::MAX) % partitions })
}

/// A partition that may be chosen for a record without a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The partition.
    pub partition: PartitionIndex,
    /// How many batches wait for it.
    pub queued: u32,
}

/// The sticky choice of one topic.
#[derive(Clone, Debug, Default)]
pub struct Sticky {
    current: Option<PartitionIndex>,
    written_bytes: usize,
}

impl Sticky {
    /// The current sticky partition, if any.
    #[must_use]
    pub const fn current(&self) -> Option<PartitionIndex> {
        self.current
    }

    /// The partition to write to now; chooses one when there is none, or when the current one is
    /// no longer a candidate. `None` when there are no candidates.
    ///
    /// Partitions with shorter queues are more likely, in proportion to how much shorter.
    pub fn partition(&mut self, candidates: &[Candidate], random: u64) -> Option<PartitionIndex> {
        if let Some(current) = self.current
            && candidates.iter().any(|candidate| candidate.partition == current)
        {
            return Some(current);
        }
        let chosen = choose(candidates, random);
        self.current = chosen;
        self.written_bytes = 0;
        chosen
    }

    /// Notes what was written to the current partition, and leaves it after about `batch_bytes`:
    /// at the end of a batch if possible, after twice as much in any case.
    pub fn written(&mut self, bytes: usize, batch_bytes: usize, batch_ended: bool) {
        self.written_bytes = self.written_bytes.saturating_add(bytes);
        let enough = self.written_bytes >= batch_bytes;
        if (enough && batch_ended) || self.written_bytes >= batch_bytes.saturating_mul(2) {
            self.current = None;
        }
    }
}

/// Draws a candidate with a weight of `longest queue + 1 - its queue`.
fn choose(candidates: &[Candidate], random: u64) -> Option<PartitionIndex> {
    let longest = candidates.iter().map(|candidate| candidate.queued).max()?;
    let weight = |candidate: &Candidate| u64::from(longest - candidate.queued) + 1;
    let total: u64 = candidates.iter().map(weight).sum();
    let mut drawn = random % total;
    for candidate in candidates {
        let own = weight(candidate);
        if drawn < own {
            return Some(candidate.partition);
        }
        drawn -= own;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_what_the_java_client_computes() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (text, hash) in vectors {
            assert_eq!(murmur2(text.as_bytes()), hash, "{text}");
        }
    }

    #[test]
    fn a_key_without_partitions_to_choose_from_goes_to_the_first() {
        assert_eq!(partition_for_key(b"key", 0), PartitionIndex(0));
        assert_eq!(partition_for_key(b"key", 1), PartitionIndex(0));
    }

    #[test]
    fn a_null_key_sticks_until_a_batch_is_full() {
        let candidates: Vec<_> =
            PartitionIndex::all(3).map(|partition| Candidate { partition, queued: 0 }).collect();
        let mut sticky = Sticky::default();
        assert_eq!(sticky.partition(&candidates, 1), Some(PartitionIndex(1)));
        sticky.written(50, 100, false);
        assert_eq!(sticky.partition(&candidates, 2), Some(PartitionIndex(1)));
        sticky.written(60, 100, false);
        assert_eq!(
            sticky.partition(&candidates, 2),
            Some(PartitionIndex(1)),
            "the batch is not at its end"
        );
        sticky.written(1, 100, true);
        assert_eq!(sticky.partition(&candidates, 2), Some(PartitionIndex(2)));
        sticky.written(200, 100, false);
        assert_eq!(
            sticky.partition(&candidates, 0),
            Some(PartitionIndex(0)),
            "twice the size moves on anyway"
        );
    }

    #[test]
    fn short_queues_are_more_likely() {
        let candidates = [(0, 3), (1, 0)]
            .map(|(index, queued)| Candidate { partition: PartitionIndex(index), queued });
        let chosen = (0..5).map(|random| choose(&candidates, random)).collect::<Vec<_>>();
        assert_eq!(
            chosen.iter().filter(|&&partition| partition == Some(PartitionIndex(1))).count(),
            4
        );
        assert_eq!(choose(&[], 7), None);
    }

    proptest::proptest! {
        #[test]
        fn a_key_always_has_a_partition(key: Vec<u8>, partitions in 1_i32..10_000) {
            let partition = partition_for_key(&key, partitions);
            proptest::prop_assert!(partition.is_below(partitions));
        }
    }
}
