//! The variable-length numbers of Avro and Protobuf: seven bits a byte, the low ones first.

/// Why there is no number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::columnar) enum VarintError {
    /// The bytes end inside of it.
    Truncated,
    /// It has more than ten bytes.
    TooLong,
}

/// A number has at most so many bytes; the last of so many holds one bit of a 64-bit number.
pub(in crate::columnar) const SIZE_MAX: usize = 10;

/// The number at the start of some bytes, and how many it takes. Bits beyond 64 are dropped.
#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a hot loop")]
pub(in crate::columnar) fn read(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    match bytes {
        [one @ 0..=0x7f, ..] => Ok((u64::from(*one), 1)),
        [one, two @ 0..=0x7f, ..] => Ok((u64::from(*one & 0x7f) | (u64::from(*two) << 7), 2)),
        _ => read_long(bytes),
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of a hot loop")]
fn read_long(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    // All groups at once where the number ends within eight bytes, without a branch for its size.
    if let Some(chunk) = bytes.first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let ends = !word & 0x8080_8080_8080_8080;
        if ends != 0 {
            let last_bit = ends.trailing_zeros();
            let kept = word & (u64::MAX >> (63_u32.wrapping_sub(last_bit)));
            return Ok((join_groups(kept), (last_bit as usize >> 3).wrapping_add(1)));
        }
    }
    read_any(bytes)
}

/// Closes the gaps that the highest bit of each byte leaves.
#[inline]
const fn join_groups(word: u64) -> u64 {
    let word = (word & 0x007f_007f_007f_007f) | ((word & 0x7f00_7f00_7f00_7f00) >> 1);
    let word = (word & 0x0000_3fff_0000_3fff) | ((word & 0x3fff_0000_3fff_0000) >> 2);
    (word & 0x0fff_ffff) | ((word & 0x0fff_ffff_0000_0000) >> 4)
}

#[inline(never)]
fn read_any(bytes: &[u8]) -> Result<(u64, usize), VarintError> {
    let mut value = 0_u64;
    let mut shift = 0_u32;
    for (at, &byte) in bytes.iter().take(SIZE_MAX).enumerate() {
        value |= u64::from(byte & 0x7f).wrapping_shl(shift);
        if byte < 0x80 {
            return Ok((value, at.wrapping_add(1)));
        }
        shift = shift.wrapping_add(7);
    }
    Err(if bytes.len() < SIZE_MAX { VarintError::Truncated } else { VarintError::TooLong })
}

/// The signed number that a zigzag one stands for.
#[inline]
pub(in crate::columnar) const fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn all_ways_read_the_same(
            number: u64,
            shift in 0_u32..64,
            behind: [u8; 9],
            kept in 0_usize..10,
            cut in 0_usize..10,
        ) {
            let mut bytes = Vec::new();
            let mut rest = number >> shift;
            while rest >= 0x80 {
                bytes.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            bytes.push(rest as u8);
            let size = bytes.len();
            bytes.extend(behind.iter().take(kept));
            prop_assert_eq!(read(&bytes), Ok((number >> shift, size)));
            prop_assert_eq!(read(&bytes), read_any(&bytes));
            if cut < size {
                bytes.truncate(cut);
                prop_assert_eq!(read(&bytes), Err(VarintError::Truncated));
            }
        }

        #[test]
        fn any_bytes_are_read_alike(bytes: [u8; 12], size in 0_usize..12) {
            prop_assert_eq!(read(&bytes[..size]), read_any(&bytes[..size]));
        }
    }

    #[test]
    fn a_number_of_eleven_bytes_is_none() {
        assert_eq!(read(&[0xff; 11]), Err(VarintError::TooLong));
    }
}
