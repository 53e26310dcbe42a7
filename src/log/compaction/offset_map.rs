//! The last offset of every key, in bounded memory.
//!
//! As in Kafka, a key is represented by 128 bits of hash, so that an entry takes 24 bytes whatever the
//! key's length. The hash is seeded with secret random numbers: two keys that collide would lose one of
//! their records, and nobody who only writes keys can find such a pair.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "sizes of memory, and a place that is smaller than one of them"
)]

use std::hash::{DefaultHasher, Hasher};

use crate::env::Random;
use crate::types::Offset;

/// Two words of hash and one of offset.
const SLOT_BYTES: usize = 24;
const SLOTS_MIN: usize = 64;
/// An offset that no record has.
const FREE: u64 = u64::MAX;

#[derive(Clone, Copy, Debug)]
struct Slot {
    hash: [u64; 2],
    offset: u64,
}

/// Key → offset.
#[derive(Debug)]
pub(super) struct OffsetMap {
    seeds: [DefaultHasher; 2],
    slots: Vec<Slot>,
    len: usize,
    len_max: usize,
}

impl OffsetMap {
    /// A map of at most `bytes_max`, but no larger than `keys_max` keys need.
    pub(super) fn new(
        random: &dyn Random,
        bytes_max: usize,
        load_factor: f64,
        keys_max: u64,
    ) -> Self {
        let load_factor = load_factor.clamp(0.01, 0.95);
        let wanted = (keys_max as f64 / load_factor).ceil() as usize;
        let count = (bytes_max / SLOT_BYTES).min(wanted.saturating_add(1)).max(SLOTS_MIN);
        let seed = || {
            let mut hasher = DefaultHasher::new();
            hasher.write_u64(random.u64());
            hasher.write_u64(random.u64());
            hasher
        };
        Self {
            seeds: [seed(), seed()],
            slots: vec![Slot { hash: [0; 2], offset: FREE }; count],
            len: 0,
            len_max: (((count as f64) * load_factor) as usize).max(1),
        }
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let [mut first, mut second] = self.seeds.clone();
        first.write(key);
        second.write(key);
        [first.finish(), second.finish()]
    }

    /// The slot of a key, or the free one where it belongs; the load factor guarantees free ones.
    fn place(&self, hash: [u64; 2]) -> usize {
        let count = self.slots.len();
        let [spread, _] = hash;
        let mut place = ((u128::from(spread) * count as u128) >> 64) as usize;
        loop {
            match self.slots.get(place) {
                None => place = 0,
                Some(slot) if slot.offset == FREE || slot.hash == hash => return place,
                Some(_) => place += 1,
            }
        }
    }

    /// Records the offset of a key; false, without a change, when there is no room for another key.
    pub(super) fn put(&mut self, key: &[u8], offset: Offset) -> bool {
        let hash = self.hash(key);
        let place = self.place(hash);
        let full = self.len >= self.len_max;
        let Some(slot) = self.slots.get_mut(place) else { return false };
        if slot.offset == FREE {
            if full {
                return false;
            }
            self.len += 1;
        }
        *slot = Slot { hash, offset: offset.0.cast_unsigned() };
        true
    }

    /// The last offset of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<Offset> {
        let slot = self.slots.get(self.place(self.hash(key)))?;
        (slot.offset != FREE).then(|| Offset(slot.offset.cast_signed()))
    }

    /// The number of keys.
    pub(super) const fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::env::real::RealRandom;

    #[test]
    fn a_key_has_its_last_offset_and_a_full_map_says_so() {
        let mut map = OffsetMap::new(&RealRandom, 24 * 200, 0.9, 1 << 40);
        let mut model = BTreeMap::new();
        let mut refused = 0;
        for step in 0..2000_i64 {
            let key = format!("key {}", step * 7 % 250);
            if map.put(key.as_bytes(), Offset(step)) {
                model.insert(key, step);
            } else {
                assert!(!model.contains_key(&key));
                refused += 1;
            }
        }
        assert_eq!((map.len(), model.len()), (180, 180));
        assert!(refused > 0);
        for key in (0..250).map(|key| format!("key {key}")) {
            assert_eq!(map.get(key.as_bytes()), model.get(&key).map(|&offset| Offset(offset)));
        }
    }

    #[test]
    fn a_small_log_takes_a_small_map() {
        let map = OffsetMap::new(&RealRandom, 128 << 20, 0.9, 1000);
        assert!(map.slots.len() < 1200 && map.len_max >= 1000);
    }
}
