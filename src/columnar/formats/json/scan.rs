//! Reads the JSON that most producers write straight into columns, without a tape.
//!
//! The values of a topic look alike: a flat object, its fields in the same order, numbers and short
//! strings without escapes. This reader walks such a value once, many values at a time where they
//! have the same members ([`super::build`]). If anything is out of the ordinary
//! (an escape, a nested value, an exponent, a number of many digits, a field that occurs twice, a
//! value that does not fit its field) it gives up, and the general parser, which alone judges
//! values and words the errors, reads the row again.
//!
//! Invariants:
//!
//! - **JF-1** Whatever is accepted here is JSON, and the general parser reads the same from it.
//! - **JF-2** A reader that gives up has pushed at most this row: the caller truncates it.
//! - **JF-3** What is remembered about earlier rows (the order of keys) only speeds up the next.

use arrow::datatypes::TimeUnit;

/// More keys, or longer ones, are not remembered.
const KEYS_MAX: usize = 256;
const LEAD_SIZE_MAX: usize = 128;

/// What is between the values of an object: a brace or comma, white space, a key and a colon.
/// Remembered in the order of the previous row, with the columns that the keys go to, so that the
/// next row only has to be compared with it.
#[derive(Debug, Default)]
pub(super) struct KeyOrder {
    leads: Vec<Lead>,
    /// How many keys the last row had.
    count: usize,
}

/// What is in front of a value.
#[derive(Debug)]
pub(super) struct Lead {
    /// The first sixteen bytes, padded with zeros, and which of them count.
    word: u128,
    mask: u128,
    /// The last sixteen bytes, where there are more.
    last: u128,
    bytes: Vec<u8>,
    column: Option<usize>,
}

const WORD: usize = size_of::<u128>();

impl Lead {
    fn new(bytes: &[u8], column: Option<usize>) -> Self {
        let mut first = [0; WORD];
        let mut counts = [0; WORD];
        for ((first, counts), byte) in first.iter_mut().zip(&mut counts).zip(bytes) {
            (*first, *counts) = (*byte, 0xff);
        }
        let (word, mask) = (u128::from_le_bytes(first), u128::from_le_bytes(counts));
        let last = bytes.last_chunk().map_or(0, |last| u128::from_le_bytes(*last));
        Self { word, mask, last, bytes: bytes.to_vec(), column }
    }

    #[inline]
    fn is_at(&self, rest: &[u8]) -> bool {
        let Some(first) = rest.first_chunk::<WORD>() else {
            return rest.starts_with(&self.bytes);
        };
        u128::from_le_bytes(*first) & self.mask == self.word
            && (self.bytes.len() <= WORD || self.is_long_at(rest))
    }

    /// As [`Self::is_at`], behind the first word.
    #[inline]
    fn is_long_at(&self, rest: &[u8]) -> bool {
        let size = self.bytes.len();
        if size > 2 * WORD {
            return rest.starts_with(&self.bytes);
        }
        let last = rest.get(size.wrapping_sub(WORD)..).and_then(|rest| rest.first_chunk());
        last.is_some_and(|last| u128::from_le_bytes(*last) == self.last)
    }

    /// What is behind it, if it comes first, maybe after white space.
    #[inline]
    pub(super) fn strip<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        if self.is_at(rest) { rest.get(self.bytes.len()..) } else { self.strip_blank(rest) }
    }

    #[cold]
    fn strip_blank<'a>(&self, rest: &'a [u8]) -> Option<&'a [u8]> {
        rest.get(blank(rest, 0)..)?.strip_prefix(&*self.bytes)
    }

    /// The column of the value.
    pub(super) const fn column(&self) -> Option<usize> {
        self.column
    }
}

impl KeyOrder {
    /// What was in front of the values of the last row; nothing if not all of it is remembered.
    pub(super) fn usual(&self) -> &[Lead] {
        self.leads.get(..self.count).unwrap_or_default()
    }

    /// Ends a row of so many keys.
    #[inline]
    pub(super) const fn end(&mut self, count: usize) {
        self.count = count;
    }

    /// The column of the next key and where its value starts; `at` is the start of the object or
    /// the place after the previous value, and `place` counts the keys. None for anything that is
    /// not of the simple kind, including by `lookup`.
    #[inline]
    pub(super) fn lead_in(
        &mut self,
        bytes: &[u8],
        at: usize,
        place: usize,
        lookup: impl FnOnce(&[u8]) -> Option<Option<usize>>,
    ) -> Option<(Option<usize>, usize)> {
        if let Some(lead) = self.leads.get(place)
            && lead.is_at(bytes.get(at..)?)
        {
            return Some((lead.column, at.wrapping_add(lead.bytes.len())));
        }
        self.learn(bytes, at, place, lookup)
    }

    #[cold]
    fn learn(
        &mut self,
        bytes: &[u8],
        from: usize,
        place: usize,
        lookup: impl FnOnce(&[u8]) -> Option<Option<usize>>,
    ) -> Option<(Option<usize>, usize)> {
        let opening = if place == 0 { b'{' } else { b',' };
        let at = one(bytes, blank(bytes, from), opening)?;
        let key_at = one(bytes, blank(bytes, at), b'"')?;
        let (key, behind) = string(bytes, key_at)?;
        let colon_at = blank(bytes, behind);
        let value_at = blank(bytes, one(bytes, colon_at, b':')?);
        let column = lookup(key.as_bytes())?;
        let lead = bytes.get(from..value_at)?;
        if lead.len() <= LEAD_SIZE_MAX {
            let lead = Lead::new(lead, column);
            if let Some(known) = self.leads.get_mut(place) {
                *known = lead;
            } else if place == self.leads.len() && place < KEYS_MAX {
                self.leads.push(lead);
            }
        }
        Some((column, value_at))
    }
}

/// The place after the white space at `at`.
#[inline]
pub(super) fn blank(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at = at.wrapping_add(1);
    }
    at
}

/// The place after `byte`, if it is at `at`.
#[inline]
pub(super) fn one(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    (bytes.get(at) == Some(&byte)).then(|| at.wrapping_add(1))
}

/// The place after `word`, if it is at `at`.
#[inline]
pub(super) fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes.get(at..)?.starts_with(word).then(|| at.wrapping_add(word.len()))
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The string whose text starts at `at`, and the place after its closing quote.
#[inline]
pub(super) fn string(bytes: &[u8], at: usize) -> Option<(&str, usize)> {
    let end = string_end(bytes, at)?;
    let text = simdutf8::basic::from_utf8(bytes.get(at..end)?).ok()?;
    Some((text, end.wrapping_add(1)))
}

/// The place after the closing quote of a string that is not wanted.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
pub(super) fn skip_string(bytes: &[u8], at: usize) -> Option<usize> {
    let (end, is_ascii) = string_span(bytes, at)?;
    let is_text = is_ascii || simdutf8::basic::from_utf8(bytes.get(at..end)?).is_ok();
    is_text.then(|| end.wrapping_add(1))
}

/// `true` or `false` at `at`, and the place after it.
#[inline]
pub(super) fn boolean(bytes: &[u8], at: usize) -> Option<(bool, usize)> {
    let rest = bytes.get(at..)?;
    // A mixed column would mispredict a branch per row, so there is none on the value.
    let Some(five) = rest.first_chunk::<5>() else {
        return rest.starts_with(b"true").then(|| (true, at.wrapping_add(4)));
    };
    let is_true = five.first_chunk::<4>() == Some(b"true");
    let is_false = five == b"false";
    (is_true | is_false).then(|| (is_true, at.wrapping_add(5).wrapping_sub(usize::from(is_true))))
}

/// The place of the closing quote; none where an escape or a control character comes before.
#[inline]
pub(super) fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    string_span(bytes, at).map(|(end, _)| end)
}

/// The place of the closing quote, and whether everything before it is ASCII; none where an escape
/// or a control character comes before.
#[inline]
fn string_span(bytes: &[u8], mut at: usize) -> Option<(usize, bool)> {
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut seen = 0_u64;
    while let Some(word) = bytes.get(at..)?.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let below = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        // A borrow can mark a byte after a marked one, so the first mark is always right.
        let found = below | zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c));
        if found != 0 {
            at = at.wrapping_add((found.trailing_zeros() / 8) as usize);
            let before = found & found.wrapping_neg();
            seen |= word & before.wrapping_sub(1);
            return (bytes.get(at) == Some(&b'"')).then_some((at, seen & HIGH == 0));
        }
        seen |= word;
        at = at.wrapping_add(8);
    }
    loop {
        match bytes.get(at)? {
            b'"' => return Some((at, seen & HIGH == 0)),
            b'\\' | ..0x20 => return None,
            byte => seen |= u64::from(*byte),
        }
        at = at.wrapping_add(1);
    }
}

/// A number with few digits and without an exponent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    /// One without a point.
    Whole(i64),
    /// One with a point.
    Float(f64),
}

/// This many digits always fit an i64.
const DIGITS_MAX: usize = 18;
/// Below this, digits and power of ten are exact floats, so one division rounds correctly.
const EXACT_MAX: u64 = 1 << 53;
const POWERS: [f64; 19] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16,
    1e17, 1e18,
];

const TENS: [u64; 9] = [1, 10, 100, 1000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000];

/// The whole number at `at` without its sign, whether there is one, the count of its digits, and the
/// place after it.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
fn whole_part(bytes: &[u8], at: usize) -> Option<(u64, bool, usize, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at.wrapping_add(usize::from(negative));
    let (whole, at) = digits(bytes, start, 0)?;
    let count = at.wrapping_sub(start);
    if count == 0 || count > DIGITS_MAX || (count > 1 && bytes.get(start) == Some(&b'0')) {
        return None;
    }
    Some((whole, negative, count, at))
}

/// As [`number`], of numbers without a point.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
pub(super) fn whole(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    let (whole, negative, _, at) = whole_part(bytes, at)?;
    if !is_behind_value(*bytes.get(at)?) || (negative && whole == 0) {
        return None;
    }
    let whole = whole as i64;
    Some((if negative { whole.wrapping_neg() } else { whole }, at))
}

/// The number at `at` and the place after it.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
#[expect(clippy::cast_precision_loss, reason = "EXACT_MAX was checked")]
pub(super) fn number(bytes: &[u8], at: usize) -> Option<(Number, usize)> {
    let (whole, negative, count, mut at) = whole_part(bytes, at)?;
    let number = if bytes.get(at) == Some(&b'.') {
        let point = at;
        let (mantissa, end) = digits(bytes, point.wrapping_add(1), whole)?;
        let places = end.wrapping_sub(point).wrapping_sub(1);
        if places == 0 || count.wrapping_add(places) > DIGITS_MAX || mantissa >= EXACT_MAX {
            return None;
        }
        at = end;
        let value = mantissa as f64 / POWERS.get(places)?;
        Number::Float(if negative { -value } else { value })
    } else if negative {
        if whole == 0 {
            return None;
        }
        Number::Whole((whole as i64).wrapping_neg())
    } else {
        Number::Whole(whole as i64)
    };
    is_behind_value(*bytes.get(at)?).then_some((number, at))
}

/// How many of eight bytes are digits, from the first on, where a digit was XORed with the digit 0.
#[inline]
const fn digit_count(digits: u64) -> u32 {
    // A carry can mark a byte after a marked one, so the first mark is always right.
    let others = (digits.wrapping_add(ONES * 0x76) | digits) & HIGH;
    others.trailing_zeros() / 8
}

/// Appends the digits at `at` to a number, which wraps when there are too many.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
fn digits(bytes: &[u8], mut at: usize, mut number: u64) -> Option<(u64, usize)> {
    // Eight at a time: the count of digits varies from row to row, so a loop over them would
    // mispredict its end each time.
    while let Some(chunk) = bytes.get(at..)?.first_chunk::<8>() {
        let digits = u64::from_le_bytes(*chunk) ^ (ONES * 0x30);
        let count = digit_count(digits);
        if count == 0 {
            return Some((number, at));
        }
        // The digits move to the high end, zeros come before them.
        let word = digits.wrapping_shl(64_u32.wrapping_sub(count.wrapping_mul(8)));
        let word = word.wrapping_mul(10).wrapping_add(word >> 8) & 0x00ff_00ff_00ff_00ff;
        let word = word.wrapping_mul(100).wrapping_add(word >> 16) & 0x0000_ffff_0000_ffff;
        let word = word.wrapping_mul(10_000).wrapping_add(word >> 32) & 0xffff_ffff;
        number = number.wrapping_mul(*TENS.get(count as usize)?).wrapping_add(word);
        at = at.wrapping_add(count as usize);
        if count < 8 {
            return Some((number, at));
        }
    }
    loop {
        let digit = bytes.get(at)?.wrapping_sub(b'0');
        if digit > 9 {
            return Some((number, at));
        }
        number = number.wrapping_mul(10).wrapping_add(u64::from(digit));
        at = at.wrapping_add(1);
    }
}

/// The place after the digits at `at`.
#[inline]
fn digits_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(chunk) = bytes.get(at..)?.first_chunk::<8>() {
        let count = digit_count(u64::from_le_bytes(*chunk) ^ (ONES * 0x30));
        at = at.wrapping_add(count as usize);
        if count < 8 {
            return Some(at);
        }
    }
    while bytes.get(at)?.is_ascii_digit() {
        at = at.wrapping_add(1);
    }
    Some(at)
}

/// The place after a number that is not wanted: only its form is examined.
#[inline(always)]
#[expect(clippy::inline_always, reason = "the loop over a column's rows")]
pub(super) fn skip_number(bytes: &[u8], at: usize) -> Option<usize> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at.wrapping_add(usize::from(negative));
    let mut at = digits_end(bytes, start)?;
    let mut count = at.wrapping_sub(start);
    if count == 0 || (count > 1 && bytes.get(start) == Some(&b'0')) {
        return None;
    }
    if bytes.get(at) == Some(&b'.') {
        let point = at;
        at = digits_end(bytes, point.wrapping_add(1))?;
        let places = at.wrapping_sub(point).wrapping_sub(1);
        if places == 0 {
            return None;
        }
        count = count.wrapping_add(places);
    }
    (count <= DIGITS_MAX && is_behind_value(*bytes.get(at)?)).then_some(at)
}

/// Whether a byte may follow a value.
#[inline]
const fn is_behind_value(byte: u8) -> bool {
    matches!(byte, b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t')
}

/// The place after an unwanted value, if it is a simple one.
pub(super) fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => skip_string(bytes, at.wrapping_add(1)),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => skip_number(bytes, at),
    }
}

/// Eight bytes of a time: digits are where the text has zeros, the others are as they are.
struct Form {
    text: u64,
    /// What can be added to each byte without reaching its high bit, if it is of the form and was
    /// XORed with the text.
    room: u64,
}

const DATE: Form = Form::new(*b"0000-00-");
const CLOCK: Form = Form::new(*b"00:00:00");

impl Form {
    const fn new(text: [u8; 8]) -> Self {
        let text = u64::from_le_bytes(text);
        // Among the bytes of the forms, only the digits have bits 4 and 5 and not bit 3.
        let zeros = (text >> 4) & (text >> 5) & !(text >> 3) & ONES;
        Self { text, room: ONES * 0x7f - zeros * 9 }
    }

    /// The numbers that the digits at each place and the one after it make; none if the bytes are
    /// not of the form.
    #[inline]
    const fn pairs(&self, bytes: [u8; 8]) -> Option<[u8; 8]> {
        let digits = u64::from_le_bytes(bytes) ^ self.text;
        if (digits.wrapping_add(self.room) | digits) & HIGH != 0 {
            return None;
        }
        Some(digits.wrapping_mul(10).wrapping_add(digits >> 8).to_le_bytes())
    }
}

/// Reads ISO 8601 times as programs usually write them: `YYYY-MM-DDTHH:MM:SS[.f…]` with `Z` or
/// `+00:00`. All other forms are left to the general parser, which reads or refuses them.
///
/// Most times of a topic are of the same day as the one before, so that day is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct IsoTimes {
    unit: TimeUnit,
    /// The text of the last date, up to the letter behind it; no text is like this before the first.
    date: u128,
    /// The seconds from 1970 to that date.
    date_seconds: i64,
}

/// The bytes of a date and the letter behind it, in a word that begins with them.
const DATE_BYTES: u128 = (1 << 88) - 1;
/// The place behind the seconds.
const TIME_SIZE: usize = 19;

impl IsoTimes {
    pub(super) const fn new(unit: TimeUnit) -> Self {
        Self { unit, date: u128::MAX, date_seconds: 0 }
    }

    /// The unit of the times.
    pub(super) const fn unit(&self) -> TimeUnit {
        self.unit
    }

    /// The time that the text begins with, in the unit, and its size.
    #[inline]
    pub(super) fn read(&mut self, text: &[u8]) -> Option<(i64, usize)> {
        let date = u128::from_le_bytes(*text.first_chunk()?) & DATE_BYTES;
        if date != self.date {
            self.learn(date)?;
        }
        let [hour, _, _, minute, _, _, second, _] = CLOCK.pairs(*text.get(11..)?.first_chunk()?)?;
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let clock = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
        let seconds = self.date_seconds.wrapping_add(clock);
        // The most common one, without the loops of the others.
        if let Some([b'.', a, b, c, b'Z']) = text.get(TIME_SIZE..)?.first_chunk()
            && self.unit == TimeUnit::Millisecond
        {
            let (a, b, c) = (a.wrapping_sub(b'0'), b.wrapping_sub(b'0'), c.wrapping_sub(b'0'));
            if a <= 9 && b <= 9 && c <= 9 {
                let millis = i64::from(a) * 100 + i64::from(b) * 10 + i64::from(c);
                return Some((seconds * 1000 + millis, TIME_SIZE + 5));
            }
        }
        let (nanos, at) = fraction(text, TIME_SIZE)?;
        let zone = text.get(at..)?;
        let zone_size = match zone.first()? {
            b'Z' => 1,
            _ if zone.starts_with(b"+00:00") => 6,
            _ => return None,
        };
        // Digits that the unit does not have are refused by the general parser.
        let whole = |size: i64| (nanos % size == 0).then_some(nanos / size);
        let value = match self.unit {
            TimeUnit::Second => seconds + whole(1_000_000_000)?,
            TimeUnit::Millisecond => seconds * 1000 + whole(1_000_000)?,
            TimeUnit::Microsecond => seconds * 1_000_000 + whole(1000)?,
            TimeUnit::Nanosecond => seconds.checked_mul(1_000_000_000)?.checked_add(nanos)?,
        };
        Some((value, at.wrapping_add(zone_size)))
    }

    /// Remembers another date.
    #[inline(never)]
    fn learn(&mut self, date: u128) -> Option<()> {
        let [head @ .., tens, ones, separator, _, _, _, _, _] = date.to_le_bytes();
        let [century, _, year, _, _, month, _, _] = DATE.pairs(head)?;
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        if tens > 9 || ones > 9 || !matches!(separator, b'T' | b' ') {
            return None;
        }
        let year = i64::from(century) * 100 + i64::from(year);
        let (month, day) = (i64::from(month), i64::from(tens) * 10 + i64::from(ones));
        if year == 0 || day == 0 || day > days_of_month(year, month)? {
            return None;
        }
        self.date_seconds = days_since_epoch(year, month, day) * 86_400;
        self.date = date;
        Some(())
    }

    /// The time in quotes at `at`, in the unit, and the place after it.
    #[inline]
    pub(super) fn quoted(&mut self, bytes: &[u8], at: usize) -> Option<(i64, usize)> {
        let start = one(bytes, at, b'"')?;
        let (time, size) = self.read(bytes.get(start..)?)?;
        let behind = one(bytes, start.wrapping_add(size), b'"')?;
        Some((time, behind))
    }
}

/// The nanoseconds of the fraction at `at`, if there is one, and the place after it.
#[inline]
fn fraction(text: &[u8], at: usize) -> Option<(i64, usize)> {
    const PLACES_MAX: usize = 9;
    let Some(start) = one(text, at, b'.') else { return Some((0, at)) };
    let (number, end) = digits(text, start, 0)?;
    let places = end.wrapping_sub(start);
    if places == 0 || places > PLACES_MAX {
        return None;
    }
    let nanos = number.wrapping_mul(*TENS.get(PLACES_MAX.wrapping_sub(places))?);
    Some((nanos as i64, end))
}

#[inline]
const fn days_of_month(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1970-01-01 for years from 1 on (Howard Hinnant's days_from_civil).
#[inline]
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use arrow::compute::kernels::cast_utils::string_to_datetime;
    use chrono::Utc;
    use proptest::prelude::*;

    use super::super::clock;
    use super::*;

    fn iso_time(text: &[u8], unit: TimeUnit) -> Option<(i64, usize)> {
        IsoTimes::new(unit).read(text)
    }

    /// A time in a form that may be read here, of few days, or of one that does not exist.
    fn any_time() -> impl Strategy<Value = String> {
        let days =
            ["2024-02-29", "2023-02-29", "2026-11-18", "2026-11-19", "2026-1118T", "0000-01-01"];
        let fractions = "(\\.[0-9]{1,12})?|\\.[0-9]{3}|\\.[0-9]{2}[/:a]|\\.|,5";
        let zones = ["Z", "Z", "Z", "+00:00", "+02:00", "z", "", "ZZ", "+00:01"];
        (
            prop::sample::select(days.to_vec()),
            prop::sample::select(vec!["T", "T", "T", " ", "t", "_"]),
            (0..25, 0..61, 0..62),
            fractions,
            prop::sample::select(zones.to_vec()),
        )
            .prop_map(|(day, separator, (hour, minute, second), fraction, zone)| {
                format!("{day}{separator}{hour:02}:{minute:02}:{second:02}{fraction}{zone}")
            })
    }

    #[test]
    fn unusual_numbers_and_strings_are_left_to_the_general_parser() {
        for text in ["01,", "-,", "-0,", "1.,", ".5,", "1e3,", "1234567890123456789,", "1", "+1,"] {
            assert_eq!(number(text.as_bytes(), 0), None, "{text}");
        }
        for text in ["a\\n\"", "a\nb\"", "never closed", "a long one \\\" goes on\""] {
            assert_eq!(string(text.as_bytes(), 0), None, "{text}");
        }
        assert_eq!(string(b"\xff\"", 0), None);
        assert_eq!(string("příliš\" x".as_bytes(), 0), Some(("příliš", 10)));
        for time in ["2026-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:00:00"] {
            assert_eq!(iso_time(time.as_bytes(), TimeUnit::Second), None, "{time}");
        }
    }

    #[test]
    fn what_stands_between_values_is_compared_and_learned_anew_where_it_differs() {
        let lookup = |key: &[u8]| Some((key == b"a_rather_long_name").then_some(7));
        let mut order = KeyOrder::default();
        for row in [
            "{\"a_rather_long_name\": 1}",
            " { \"a_rather_long_name\" : 1}",
            " {            \"a_rather_long_name\" : 1}",
        ] {
            for _ in 0..2 {
                let place = row.find('1');
                let found = order.lead_in(row.as_bytes(), 0, 0, lookup);
                assert_eq!(found, place.map(|place| (Some(7), place)), "{row}");
            }
            let other = row.replace("name", "mane");
            let (column, _) = order.lead_in(other.as_bytes(), 0, 0, lookup).unwrap();
            assert_eq!(column, None, "{other}");
        }
        assert_eq!(order.lead_in(b",\"b\":2", 0, 1, lookup), Some((None, 5)));
        assert_eq!(order.lead_in(b",\"b\":2", 0, 1, lookup), Some((None, 5)));
        assert_eq!(order.lead_in(b",\"bc\":2", 0, 1, lookup), Some((None, 6)));
        for bad in ["{\"b\":2", ",,\"b\":2", "\"b\":2", ",\"b\"2", ",b:2", ",\"b", ""] {
            assert_eq!(order.lead_in(bad.as_bytes(), 0, 1, lookup), None, "{bad}");
        }
    }

    #[test]
    fn booleans_are_whole_words() {
        assert_eq!(boolean(b"true", 0), Some((true, 4)));
        assert_eq!(boolean(b" true}", 1), Some((true, 5)));
        assert_eq!(boolean(b"false", 0), Some((false, 5)));
        for bad in ["tru", "fals", "True,", "falsy", ""] {
            assert_eq!(boolean(bad.as_bytes(), 0), None, "{bad}");
        }
    }

    #[test]
    fn every_byte_of_a_time_counts() {
        let time = b"2026-11-29T10:59:08.120Z";
        let expected = Some((1_795_949_948_120, time.len()));
        assert_eq!(iso_time(time, TimeUnit::Millisecond), expected);
        for at in 0..time.len() {
            for byte in 0..=255 {
                let mut other = *time;
                other[at] = byte;
                let slow = std::str::from_utf8(&other).ok();
                let slow = slow.and_then(|text| string_to_datetime(&Utc, text).ok());
                if let Some((fast, size)) = iso_time(&other, TimeUnit::Millisecond)
                    && size == time.len()
                {
                    assert_eq!(slow.map(|slow| slow.timestamp_millis()), Some(fast), "{other:?}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn digits_are_read_alike_by_eights_and_one_by_one(
            text in "[0-9]{0,18}", behind in "[^0-9][ -ÿ]{0,9}", start in 0_u64..1000,
        ) {
            let all = format!("{text}{behind}");
            let number = text.bytes().fold(start, |number, digit| {
                number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))
            });
            prop_assert_eq!(digits(all.as_bytes(), 0, start), Some((number, text.len())));
        }

        #[test]
        fn numbers_are_what_serde_json_says(text in "-?[0-9]{1,10}(\\.[0-9]{1,9})?[,}]") {
            let parsed = serde_json::from_str::<serde_json::Value>(&text[..text.len() - 1]);
            let whole = whole(text.as_bytes(), 0);
            match number(text.as_bytes(), 0) {
                Some((Number::Whole(value), size)) => {
                    prop_assert_eq!(parsed.unwrap().as_i64(), Some(value));
                    prop_assert_eq!(whole, Some((value, size)));
                }
                Some((Number::Float(value), _)) => {
                    // Not serde_json, which rounds twice unless told otherwise.
                    let exact: f64 = text[..text.len() - 1].parse().unwrap();
                    prop_assert!(parsed.is_ok() && whole.is_none());
                    prop_assert_eq!(value.to_bits(), exact.to_bits());
                }
                None => prop_assert_eq!(whole, None),
            }
        }

        #[test]
        fn the_date_of_the_time_before_changes_nothing(
            texts in prop::collection::vec(any_time(), 1..40),
            unit in prop::sample::select(vec![
                TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond,
            ]),
        ) {
            let mut times = IsoTimes::new(unit);
            for text in texts {
                let read = times.read(text.as_bytes());
                prop_assert_eq!(read, iso_time(text.as_bytes(), unit), "{}", &text);
                if let Some((time, _)) = read.filter(|(_, size)| *size == text.len()) {
                    prop_assert_eq!(clock::moment(&text, unit), Some(time), "{}", &text);
                }
            }
        }

        #[test]
        fn times_are_what_the_general_parser_says(
            year in 1_i64..=9999, month in 1..=13, day in 1..=32, hour in 0..25, minute in 0..61,
            second in 0..61, fraction in "(\\.[0-9]{1,9})?", zone in "(Z|\\+00:00)",
        ) {
            let text = format!(
                "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}{zone}"
            );
            let slow = string_to_datetime(&Utc, &text).ok();
            let time_in = |unit| {
                let (time, size) = iso_time(text.as_bytes(), unit)?;
                assert_eq!(size, text.len());
                Some(time)
            };
            if let Some(time) = time_in(TimeUnit::Nanosecond) {
                let slow = slow.unwrap();
                prop_assert_eq!(slow.timestamp_nanos_opt(), Some(time));
                let nanos = slow.timestamp_subsec_nanos();
                let whole = |size: u32, time: i64| nanos.is_multiple_of(size).then_some(time);
                let micros = whole(1000, slow.timestamp_micros());
                prop_assert_eq!(time_in(TimeUnit::Microsecond), micros);
                let millis = whole(1_000_000, slow.timestamp_millis());
                prop_assert_eq!(time_in(TimeUnit::Millisecond), millis);
                let seconds = whole(1_000_000_000, slow.timestamp());
                prop_assert_eq!(time_in(TimeUnit::Second), seconds);
            } else if slow.is_some_and(|slow| slow.timestamp_nanos_opt().is_none()) {
                // Nanoseconds do not reach it.
            } else {
                // Leap seconds are left to the general parser.
                prop_assert!(slow.is_none() || second == 60, "{}", text);
            }
        }
    }
}
