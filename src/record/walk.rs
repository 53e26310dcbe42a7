//! The only parser of records: a cursor over the uncompressed records of a batch.
//!
//! ```text
//! length │ attributes │ timestamp delta │ offset delta │ key length │ key │ value length │ value │
//! varint │ i8         │ varlong         │ varint       │ varint     │     │ varint       │       │
//! header count │ (key length │ key │ value length │ value)*
//! varint       │  varint     │     │ varint       │
//! ```
//!
//! A [`RawRecord`] holds positions, not slices, so that a caller may keep it while the buffer
//! moves, and so that columns build views from it without pointer arithmetic. Every position
//! was checked to be inside the record. Varints are zigzag; their first two bytes are handled
//! inline, since nearly all are that short.
//!
//! Nearly all records have more in common: no headers, and small numbers. [`Walker::next_short`]
//! reads such a record from three words of eight bytes, at half the cost, and leaves all others
//! to [`Walker::next_record`], which alone decides whether a record is valid.

/// Why a walk stopped before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// The bytes end inside a record.
    Truncated,
    /// A varint has more bytes than its type allows.
    Varint,
    /// The length of a record, key, value or header is impossible.
    Length,
    /// The fields of a record do not fill its length.
    Unfilled,
    /// The header count is impossible.
    HeaderCount,
    /// The offset of a record is not one that its batch covers.
    Offset,
}

impl WalkError {
    /// What is wrong, in words.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Truncated => "the bytes end inside a record",
            Self::Varint => "a variable-length number has too many bytes",
            Self::Length => "the length of a record or of one of its fields is impossible",
            Self::Unfilled => "a record's length does not match its fields",
            Self::HeaderCount => "the number of record headers is impossible",
            Self::Offset => "a record has an offset that its batch does not cover",
        }
    }
}

/// One record as deltas and positions in the walked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRecord {
    /// The distance from the base timestamp.
    pub timestamp_delta: i64,
    /// The distance from the base offset.
    pub offset_delta: i32,
    /// Where the key starts.
    pub key_at: usize,
    /// The size of the key; negative for a null key.
    pub key_size: i32,
    /// Where the value starts.
    pub value_at: usize,
    /// The size of the value; negative for a null value.
    pub value_size: i32,
    /// Where the headers start, after their count.
    pub headers_at: usize,
    /// The number of headers.
    pub header_count: i32,
    /// Where the record ends.
    pub end: usize,
}

impl RawRecord {
    /// The key, in the walked bytes; none for a null key.
    #[must_use]
    #[inline]
    pub fn key<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        part(bytes, self.key_at, self.key_size)
    }

    /// The value, in the walked bytes; none for a null value.
    #[must_use]
    #[inline]
    pub fn value<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        part(bytes, self.value_at, self.value_size)
    }
}

/// A field that may be null, which its size then says.
#[inline]
pub(super) fn part(bytes: &[u8], at: usize, size: i32) -> Option<&[u8]> {
    let size = usize::try_from(size).ok()?;
    bytes.get(at..at.saturating_add(size))
}

/// A record without headers whose numbers are small, as deltas and positions in the walked bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShortRecord {
    pub(crate) timestamp_delta: i32,
    pub(crate) offset_delta: i32,
    pub(crate) key_at: u32,
    /// Negative for a null key.
    pub(crate) key_size: i32,
    pub(crate) value_at: u32,
    /// Negative for a null value.
    pub(crate) value_size: i32,
}

/// Walks the uncompressed records of one batch.
#[derive(Clone, Copy, Debug)]
pub struct Walker<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Walker<'a> {
    /// Starts at the first record.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Continues at a position where an earlier walk stopped.
    #[must_use]
    pub const fn resume(bytes: &'a [u8], at: usize) -> Self {
        Self { bytes, at }
    }

    /// Where the next record starts.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Whether all bytes have been walked.
    #[must_use]
    pub const fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// The next record. Its headers were counted, not read: see [`check_headers`].
    ///
    /// # Errors
    /// A [`WalkError`] when the bytes are not a record; the walk cannot continue.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the loop around it is the hot loop of every reader")]
    pub fn next_record(&mut self) -> Result<RawRecord, WalkError> {
        let bytes = self.bytes;
        let (length, body) = varint(bytes, self.at)?;
        let end = field_end(body, length).ok_or(WalkError::Length)?;
        // One slice to the end of the record: whatever is inside it is inside `bytes`.
        let record = bytes.get(..end).ok_or(WalkError::Truncated)?;
        // One byte of attributes; no bit is used.
        let (timestamp_delta, at) = varlong(record, body.wrapping_add(1))?;
        let (offset_delta, at) = varint(record, at)?;
        let (key_size, key_at) = varint(record, at)?;
        let at = nullable_end(key_at, key_size);
        let (value_size, value_at) = varint(record, at)?;
        let at = nullable_end(value_at, value_size);
        let (header_count, headers_at) = varint(record, at)?;
        if header_count == 0 {
            if headers_at != end {
                return Err(WalkError::Unfilled);
            }
        } else if header_count < 0 || header_count as usize > end.wrapping_sub(headers_at) / 2 {
            return Err(WalkError::HeaderCount);
        }
        self.at = end;
        Ok(RawRecord {
            timestamp_delta,
            offset_delta,
            key_at,
            key_size,
            value_at,
            value_size,
            headers_at,
            header_count,
            end,
        })
    }
}

impl Walker<'_> {
    /// The next record, if it is of the common kind and its offset is not past
    /// `last_offset_delta`. `None` changes nothing: [`Walker::next_record`] then reads the record,
    /// or says what is wrong with it.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "the body of the hot loop of every scan")]
    pub(crate) fn next_short(&mut self, last_offset_delta: u32) -> Option<ShortRecord> {
        let bytes = self.bytes;
        let mut word = Word::at(bytes, self.at)?;
        let length = word.varint()?;
        let body = self.at.wrapping_add(word.used);
        let end = body.wrapping_add((length >> 1) as usize);
        let mut word = Word::at(bytes, body)?;
        word.skip_byte();
        let timestamp_delta = unzigzag_short(word.varint()?);
        let offset_delta = unzigzag_short(word.varint()?);
        let key_size = unzigzag_short(word.varint()?);
        let key_at = body.wrapping_add(word.used);
        let value_head = nullable_end(key_at, key_size);
        if word.used > size_of::<u64>() || offset_delta as u32 > last_offset_delta {
            return None;
        }
        let mut word = Word::at(bytes, value_head)?;
        let value_size = unzigzag_short(word.varint()?);
        let value_at = value_head.wrapping_add(word.used);
        let count_at = nullable_end(value_at, value_size);
        // The header count is the last byte. No field ends before it starts, so all of them are
        // inside the record and inside `bytes`. An odd length is a negative one.
        let fills = count_at.wrapping_add(1) == end && length & 1 == 0;
        if !fills || bytes.get(count_at) != Some(&0) || u32::try_from(end).is_err() {
            return None;
        }
        self.at = end;
        Some(ShortRecord {
            timestamp_delta,
            offset_delta,
            key_at: key_at as u32,
            key_size,
            value_at: value_at as u32,
            value_size,
        })
    }
}

/// Eight bytes, read from the low end.
struct Word {
    bits: u64,
    /// How many bytes were read; more than eight when zeros after the word were read too.
    used: usize,
}

impl Word {
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of the hot loop")]
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let chunk = bytes.get(at..)?.first_chunk::<8>()?;
        Some(Self { bits: u64::from_le_bytes(*chunk), used: 0 })
    }

    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of the hot loop")]
    const fn skip_byte(&mut self) {
        self.bits >>= 8;
        self.used = self.used.wrapping_add(1);
    }

    /// A varint of at most three bytes, still zigzag.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "part of the hot loop")]
    const fn varint(&mut self) -> Option<u32> {
        let bits = self.bits;
        let (raw, rest, size) = if bits & 0x80 == 0 {
            (bits & 0x7f, bits >> 8, 1)
        } else if bits & 0x8000 == 0 {
            ((bits & 0x7f) | ((bits >> 1) & 0x3f80), bits >> 16, 2)
        } else if bits & 0x80_0000 == 0 {
            let low = (bits & 0x7f) | ((bits >> 1) & 0x3f80);
            (low | ((bits >> 2) & 0x1f_c000), bits >> 24, 3)
        } else {
            return None;
        };
        self.bits = rest;
        self.used = self.used.wrapping_add(size);
        Some(raw as u32)
    }
}

/// One header as positions in the walked bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RawHeader {
    pub(crate) key_at: usize,
    pub(crate) key_size: usize,
    pub(crate) value_at: usize,
    /// Negative for a null value.
    pub(crate) value_size: i32,
    pub(crate) end: usize,
}

/// The header at `at` of a record that ends at `end`.
#[inline]
pub(crate) fn header_at(bytes: &[u8], at: usize, end: usize) -> Result<RawHeader, WalkError> {
    let record = bytes.get(..end).ok_or(WalkError::Truncated)?;
    let (key_size, key_at) = varint(record, at)?;
    let key_size = usize::try_from(key_size).map_err(|_negative| WalkError::Length)?;
    let key_end = key_at.checked_add(key_size).ok_or(WalkError::Length)?;
    let (value_size, value_at) = varint(record, key_end)?;
    let value_end = nullable_end(value_at, value_size);
    if value_end > end {
        return Err(WalkError::Length);
    }
    Ok(RawHeader { key_at, key_size, value_at, value_size, end: value_end })
}

/// Walks the headers of a record and checks that they end where the record does.
///
/// # Errors
/// A [`WalkError`] when they do not.
pub fn check_headers(bytes: &[u8], record: &RawRecord) -> Result<(), WalkError> {
    let mut at = record.headers_at;
    for _ in 0..record.header_count {
        at = header_at(bytes, at, record.end)?.end;
    }
    if at == record.end { Ok(()) } else { Err(WalkError::Unfilled) }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn field_end(at: usize, size: i32) -> Option<usize> {
    // A negative size becomes larger than any buffer and fails the bounds check that follows.
    if size < 0 { None } else { Some(at.wrapping_add(size as usize)) }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
const fn nullable_end(at: usize, size: i32) -> usize {
    // An end beyond the record makes the read of the next field fail.
    if size < 0 { at } else { at.wrapping_add(size as usize) }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
const fn unzigzag(raw: u64) -> i64 {
    ((raw >> 1) as i64) ^ ((raw & 1) as i64).wrapping_neg()
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
const fn unzigzag_short(raw: u32) -> i32 {
    (raw >> 1) as i32 ^ ((raw & 1) as i32).wrapping_neg()
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn varlong(bytes: &[u8], at: usize) -> Result<(i64, usize), WalkError> {
    let Some(&first) = bytes.get(at) else { return Err(WalkError::Truncated) };
    if first < 0x80 {
        return Ok((unzigzag(u64::from(first)), at.wrapping_add(1)));
    }
    let Some(&second) = bytes.get(at.wrapping_add(1)) else { return Err(WalkError::Truncated) };
    if second < 0x80 {
        let raw = u64::from(first & 0x7f) | (u64::from(second) << 7);
        return Ok((unzigzag(raw), at.wrapping_add(2)));
    }
    long_varint(bytes, at, 10).map(|(raw, end)| (unzigzag(raw), end))
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "part of the hot loop")]
fn varint(bytes: &[u8], at: usize) -> Result<(i32, usize), WalkError> {
    let Some(&first) = bytes.get(at) else { return Err(WalkError::Truncated) };
    if first < 0x80 {
        return Ok((unzigzag(u64::from(first)) as i32, at.wrapping_add(1)));
    }
    let Some(&second) = bytes.get(at.wrapping_add(1)) else { return Err(WalkError::Truncated) };
    if second < 0x80 {
        let raw = u64::from(first & 0x7f) | (u64::from(second) << 7);
        return Ok((unzigzag(raw) as i32, at.wrapping_add(2)));
    }
    let (raw, end) = long_varint(bytes, at, 5)?;
    // As in Java, bits above the 32nd are dropped.
    Ok((unzigzag(raw & 0xffff_ffff) as i32, end))
}

#[inline(never)]
fn long_varint(bytes: &[u8], at: usize, size_max: usize) -> Result<(u64, usize), WalkError> {
    let mut raw = 0_u64;
    let mut shift = 0_u32;
    for place in 0..size_max {
        let here = at.wrapping_add(place);
        let byte = *bytes.get(here).ok_or(WalkError::Truncated)?;
        raw |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Ok((raw, here.wrapping_add(1)));
        }
        shift = shift.wrapping_add(7);
    }
    Err(WalkError::Varint)
}

/// Appends a zigzag varint; 32-bit and 64-bit numbers are written the same way.
#[inline]
pub(crate) fn put_varint(output: &mut Vec<u8>, value: i64) {
    let mut raw = (value.wrapping_shl(1) ^ (value >> 63)) as u64;
    while raw >= 0x80 {
        output.push((raw as u8) | 0x80);
        raw >>= 7;
    }
    output.push(raw as u8);
}

/// The size of a zigzag varint.
#[inline]
pub(crate) const fn varint_size(value: i64) -> usize {
    let raw = (value.wrapping_shl(1) ^ (value >> 63)) as u64;
    let bits = 64_u32.wrapping_sub((raw | 1).leading_zeros());
    // ceil(bits / 7) without a division.
    (bits.wrapping_mul(9).wrapping_add(64) >> 6) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_number() -> impl Strategy<Value = i64> {
        let edges = [-65, -64, -1, 0, 63, 64, 8191, 8192, (1 << 20) - 1, 1 << 20, 1 << 40];
        prop_oneof![-3_i64..200, proptest::sample::select(edges.to_vec())]
    }

    fn record(
        (time, offset): (i64, i64),
        (key, value): (i64, i64),
        headers: i64,
        wrong: i64,
    ) -> Vec<u8> {
        let mut body = vec![0];
        put_varint(&mut body, time);
        put_varint(&mut body, offset);
        for size in [key, value] {
            put_varint(&mut body, size);
            body.resize(body.len() + usize::try_from(size.min(300)).unwrap_or(0), b'x');
        }
        put_varint(&mut body, headers);
        let mut bytes = Vec::new();
        put_varint(&mut bytes, body.len() as i64 + wrong);
        bytes.extend(body);
        bytes
    }

    /// The claim of [`Walker::next_short`].
    fn agrees(bytes: &[u8], at: usize, last: u32) -> bool {
        let mut walker = Walker::resume(bytes, at);
        let Some(short) = walker.next_short(last) else { return walker.position() == at };
        let mut general = Walker::resume(bytes, at);
        let record = general.next_record().unwrap();
        assert_eq!(walker.position(), general.position());
        assert!(short.offset_delta as u32 <= last && record.header_count == 0);
        assert!(record.end <= bytes.len());
        let (key, value) = (short.key_at as usize, short.value_at as usize);
        i64::from(short.timestamp_delta) == record.timestamp_delta
            && short.offset_delta == record.offset_delta
            && (key, short.key_size) == (record.key_at, record.key_size)
            && (value, short.value_size) == (record.value_at, record.value_size)
    }

    #[test]
    fn a_common_record_is_short() {
        let mut bytes = record((3, 70), (8, 142), 0, 0);
        bytes.extend([0; 8]);
        assert!(Walker::new(&bytes).next_short(70).is_some());
        assert!(Walker::new(&bytes).next_short(69).is_none());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_short_record_is_what_the_general_walk_finds(
            numbers in (any_number(), any_number()),
            sizes in (any_number(), any_number()),
            headers in -1_i64..3,
            wrong in -1_i64..2,
            flips in proptest::collection::vec((0_usize..400, any::<u8>()), 0..3),
            cut in 0_usize..20,
            at in 0_usize..3,
            last in prop_oneof![0_u32..100, Just(u32::MAX >> 1)],
        ) {
            let mut bytes = record(numbers, sizes, headers, wrong);
            bytes.extend([0; 12]);
            for (place, bits) in flips {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= bits;
                }
            }
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            prop_assert!(agrees(&bytes, at, last));
        }

        #[test]
        fn any_bytes_are_short_only_where_they_are_a_record(
            bytes in proptest::collection::vec(prop_oneof![Just(0_u8), 0_u8..40, any::<u8>()], 0..60),
        ) {
            prop_assert!(agrees(&bytes, 0, u32::MAX >> 1));
        }
    }
}
