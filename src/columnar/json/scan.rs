//! Reads the JSON that most producers write straight into columns, without a tape.
//!
//! The values of a topic look alike: a flat object, its fields in the same order, numbers and short
//! strings without escapes. This reader walks such a value once. If anything is out of the ordinary
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
}

#[derive(Debug)]
struct Lead {
    /// The first sixteen bytes, padded with zeros, and which of them count.
    word: u128,
    mask: u128,
    bytes: Vec<u8>,
    column: Option<usize>,
}

impl Lead {
    fn new(bytes: &[u8], column: Option<usize>) -> Self {
        let mut first = [0; 16];
        let mut counts = [0; 16];
        for ((first, counts), byte) in first.iter_mut().zip(&mut counts).zip(bytes) {
            (*first, *counts) = (*byte, 0xff);
        }
        let (word, mask) = (u128::from_le_bytes(first), u128::from_le_bytes(counts));
        Self { word, mask, bytes: bytes.to_vec(), column }
    }

    #[inline]
    fn is_at(&self, rest: &[u8]) -> bool {
        let Some(first) = rest.first_chunk::<16>() else { return rest.starts_with(&self.bytes) };
        u128::from_le_bytes(*first) & self.mask == self.word
            && (self.bytes.len() <= first.len() || rest.starts_with(&self.bytes))
    }
}

impl KeyOrder {
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
pub(super) fn string_end(bytes: &[u8], mut at: usize) -> Option<usize> {
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    while let Some(word) = bytes.get(at..)?.first_chunk::<8>() {
        let word = u64::from_le_bytes(*word);
        let below = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        // A borrow can mark a byte after a marked one, so the first mark is always right.
        let found = below | zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c));
        if found != 0 {
            at = at.wrapping_add((found.trailing_zeros() / 8) as usize);
            return (bytes.get(at) == Some(&b'"')).then_some(at);
        }
        at = at.wrapping_add(8);
    }
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' | ..0x20 => return None,
            _ => at = at.wrapping_add(1),
        }
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

/// The number at `at` and the place after it.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "EXACT_MAX was checked")]
pub(super) fn number(bytes: &[u8], at: usize) -> Option<(Number, usize)> {
    let negative = bytes.get(at) == Some(&b'-');
    let start = at.wrapping_add(usize::from(negative));
    let (whole, mut at) = digits(bytes, start, 0)?;
    let count = at.wrapping_sub(start);
    if count == 0 || count > DIGITS_MAX || (count > 1 && bytes.get(start) == Some(&b'0')) {
        return None;
    }
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
    match bytes.get(at) {
        Some(b',' | b'}' | b' ' | b'\n' | b'\r' | b'\t') => Some((number, at)),
        _ => None,
    }
}

/// Appends the digits at `at` to a number, which wraps when there are too many.
#[inline]
fn digits(bytes: &[u8], mut at: usize, mut number: u64) -> Option<(u64, usize)> {
    // Eight at a time: the count of digits varies from row to row, so a loop over them would
    // mispredict its end each time.
    while let Some(chunk) = bytes.get(at..)?.first_chunk::<8>() {
        let digits = u64::from_le_bytes(*chunk) ^ (ONES * 0x30);
        // A carry can mark a byte after a marked one, so the first mark is always right.
        let others = (digits.wrapping_add(ONES * 0x76) | digits) & HIGH;
        let count = others.trailing_zeros() / 8;
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

/// The place after an unwanted value, if it is a simple one.
#[inline]
pub(super) fn skip(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' => string(bytes, at.wrapping_add(1)).map(|(_, behind)| behind),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        _ => number(bytes, at).map(|(_, behind)| behind),
    }
}

/// An ISO 8601 time as programs usually write it, in the unit: `YYYY-MM-DDTHH:MM:SS[.f…]` with `Z`
/// or `+00:00`. None for all other forms, which the general parser reads or refuses.
#[inline]
pub(super) fn iso_time(text: &[u8], unit: TimeUnit) -> Option<i64> {
    let fixed = text.first_chunk::<19>()?;
    if fixed[4] != b'-' || fixed[7] != b'-' || fixed[13] != b':' || fixed[16] != b':' {
        return None;
    }
    if fixed[10] != b'T' && fixed[10] != b' ' {
        return None;
    }
    let two = |high: u8, low: u8| {
        let (high, low) = (high.wrapping_sub(b'0'), low.wrapping_sub(b'0'));
        (high <= 9 && low <= 9).then(|| i64::from(high) * 10 + i64::from(low))
    };
    let year = two(fixed[0], fixed[1])? * 100 + two(fixed[2], fixed[3])?;
    let (month, day) = (two(fixed[5], fixed[6])?, two(fixed[8], fixed[9])?);
    let hour = two(fixed[11], fixed[12])?;
    let minute = two(fixed[14], fixed[15])?;
    let second = two(fixed[17], fixed[18])?;
    if year == 0 || hour > 23 || minute > 59 || second > 59 || day == 0 {
        return None;
    }
    if day > days_of_month(year, month)? {
        return None;
    }
    let (nanos, zone) = fraction(text)?;
    if zone != b"Z" && zone != b"+00:00" {
        return None;
    }
    let minutes = (days_since_epoch(year, month, day) * 24 + hour) * 60 + minute;
    let seconds = minutes * 60 + second;
    match unit {
        TimeUnit::Second => Some(seconds),
        TimeUnit::Millisecond => Some(seconds * 1000 + nanos / 1_000_000),
        TimeUnit::Microsecond => Some(seconds * 1_000_000 + nanos / 1000),
        TimeUnit::Nanosecond => seconds.checked_mul(1_000_000_000)?.checked_add(nanos),
    }
}

/// The nanoseconds after the seconds of a time, and the zone after them.
#[inline]
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    const PLACES_MAX: usize = 9;
    let rest = text.get(19..)?;
    let Some(rest) = rest.strip_prefix(b".") else { return Some((0, rest)) };
    let mut nanos = 0_i64;
    let mut places = 0;
    while let Some(digit) = rest.get(places).map(|byte| byte.wrapping_sub(b'0'))
        && digit <= 9
    {
        if places == PLACES_MAX {
            return None;
        }
        nanos = nanos * 10 + i64::from(digit);
        places += 1;
    }
    if places == 0 {
        return None;
    }
    for _ in places..PLACES_MAX {
        nanos *= 10;
    }
    Some((nanos, rest.get(places..)?))
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

    use super::*;

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
        for row in ["{\"a_rather_long_name\": 1}", " { \"a_rather_long_name\" : 1}"] {
            for _ in 0..2 {
                let place = row.find('1');
                let found = order.lead_in(row.as_bytes(), 0, 0, lookup);
                assert_eq!(found, place.map(|place| (Some(7), place)), "{row}");
            }
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
            match number(text.as_bytes(), 0) {
                Some((Number::Whole(value), _)) => prop_assert_eq!(parsed.unwrap().as_i64(), Some(value)),
                Some((Number::Float(value), _)) => {
                    // Not serde_json, which rounds twice unless told otherwise.
                    let exact: f64 = text[..text.len() - 1].parse().unwrap();
                    prop_assert!(parsed.is_ok());
                    prop_assert_eq!(value.to_bits(), exact.to_bits());
                }
                None => {}
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
            if let Some(time) = iso_time(text.as_bytes(), TimeUnit::Microsecond) {
                prop_assert_eq!(slow.map(|slow| slow.timestamp_micros()), Some(time));
                let seconds = iso_time(text.as_bytes(), TimeUnit::Second);
                prop_assert_eq!(slow.map(|slow| slow.timestamp()), seconds);
                let nanos = iso_time(text.as_bytes(), TimeUnit::Nanosecond);
                prop_assert_eq!(slow.and_then(|slow| slow.timestamp_nanos_opt()), nanos);
            } else {
                // Leap seconds are left to the general parser.
                prop_assert!(slow.is_none() || second == 60, "{}", text);
            }
        }
    }
}
