//! Values as JSON text, appended to bytes.

use arrow::datatypes::TimeUnit;

use super::super::clock::per_second;
use super::NonFinite;
use crate::columnar::formats::fail::Fail;

const DIGIT_PAIRS: [[u8; 2]; 100] = {
    let mut pairs = [[0; 2]; 100];
    let mut number = 0;
    while number < 100 {
        pairs[number] = [b'0' + (number / 10) as u8, b'0' + (number % 10) as u8];
        number += 1;
    }
    pairs
};

pub(crate) fn put_u64(output: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    while number >= 100 {
        at = at.wrapping_sub(2);
        let pair = DIGIT_PAIRS[(number % 100) as usize];
        digits[at] = pair[0];
        digits[at.wrapping_add(1)] = pair[1];
        number /= 100;
    }
    if number >= 10 {
        at = at.wrapping_sub(2);
        let pair = DIGIT_PAIRS[number as usize];
        digits[at] = pair[0];
        digits[at.wrapping_add(1)] = pair[1];
    } else {
        at = at.wrapping_sub(1);
        digits[at] = b'0'.wrapping_add(number as u8);
    }
    output.extend_from_slice(&digits[at..]);
}

pub(crate) fn put_i64(output: &mut Vec<u8>, number: i64) {
    if number < 0 {
        output.push(b'-');
    }
    put_u64(output, number.unsigned_abs());
}

/// Appends a finite number.
pub(super) fn put_number<T: serde::Serialize>(output: &mut Vec<u8>, number: &T) {
    // Writing to memory does not fail.
    serde_json::to_writer(&mut *output, number).ok();
}

#[cold]
pub(super) fn put_non_finite(
    output: &mut Vec<u8>,
    number: f64,
    how: NonFinite,
) -> Result<(), Fail> {
    let name = if number.is_nan() {
        "NaN"
    } else if number > 0.0 {
        "Infinity"
    } else {
        "-Infinity"
    };
    match how {
        NonFinite::Refuse => {
            return Err(Fail::new(format!(
                "JSON has no {name}; json(nan=\"null\") writes null for it, json(nan=\"text\") \
                 the string \"{name}\""
            )));
        }
        NonFinite::Null => output.extend_from_slice(b"null"),
        NonFinite::Text => put_string(output, name),
    }
    Ok(())
}

pub(super) fn put_uuid(output: &mut Vec<u8>, bytes: &[u8]) {
    output.push(b'"');
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            output.push(b'-');
        }
        put_hex(output, *byte);
    }
    output.push(b'"');
}

fn put_hex(output: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    output.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
}

/// Appends the digits of a fraction, as many as the unit has.
fn put_fraction(output: &mut Vec<u8>, fraction: i64, unit: TimeUnit) {
    let mut place = per_second(unit) / 10;
    if place > 0 {
        output.push(b'.');
    }
    while place > 0 {
        output.push(b'0'.wrapping_add((fraction / place % 10) as u8));
        place /= 10;
    }
}

pub(super) fn put_time_of_day(
    output: &mut Vec<u8>,
    value: i64,
    unit: TimeUnit,
) -> Result<(), Fail> {
    let rate = per_second(unit);
    let seconds = value.div_euclid(rate);
    if !(0..86_400).contains(&seconds) {
        return Err(Fail::new(format!("{value} {unit:?}s since midnight are not a time of day")));
    }
    output.push(b'"');
    put_two(output, seconds / 3600);
    output.push(b':');
    put_two(output, seconds / 60 % 60);
    output.push(b':');
    put_two(output, seconds % 60);
    put_fraction(output, value.rem_euclid(rate), unit);
    output.push(b'"');
    Ok(())
}

pub(super) fn put_duration(output: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let rate = per_second(unit).unsigned_abs();
    let size = value.unsigned_abs();
    output.extend_from_slice(if value < 0 { b"\"-PT" } else { b"\"PT" });
    put_u64(output, size / rate);
    let fraction = size % rate;
    if fraction > 0 {
        put_fraction(output, fraction as i64, unit);
        while output.last() == Some(&b'0') {
            output.pop();
        }
    }
    output.extend_from_slice(b"S\"");
}

fn put_two(output: &mut Vec<u8>, number: i64) {
    output.extend_from_slice(&DIGIT_PAIRS[(number.unsigned_abs() % 100) as usize]);
}

/// Appends `YYYY-MM-DD` of days since 1970-01-01 (Howard Hinnant's civil_from_days).
pub(super) fn put_date(output: &mut Vec<u8>, days: i64) {
    let shifted = days.saturating_add(719_468);
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    if (0..=9999).contains(&year) {
        put_two(output, year / 100);
        put_two(output, year % 100);
    } else {
        // ISO 8601 writes years of more than four digits with a sign.
        output.push(if year < 0 { b'-' } else { b'+' });
        put_u64(output, year.unsigned_abs());
    }
    output.push(b'-');
    put_two(output, month);
    output.push(b'-');
    put_two(output, day);
}

pub(super) fn put_time(output: &mut Vec<u8>, value: i64, unit: TimeUnit) {
    let (per_second, digits) = match unit {
        TimeUnit::Second => (1, 0),
        TimeUnit::Millisecond => (1000, 3),
        TimeUnit::Microsecond => (1_000_000, 6),
        TimeUnit::Nanosecond => (1_000_000_000, 9),
    };
    let seconds = value.div_euclid(per_second);
    let mut fraction = value.rem_euclid(per_second);
    let second_of_day = seconds.rem_euclid(86_400);
    output.push(b'"');
    put_date(output, seconds.div_euclid(86_400));
    // `T00:00:00.`, and the digits of the fraction.
    let mut clock = *b"T00:00:00.000000000";
    let mut set_two = |at: usize, number: i64| {
        [clock[at], clock[at + 1]] = DIGIT_PAIRS[(number.unsigned_abs() % 100) as usize];
    };
    set_two(1, second_of_day / 3600);
    set_two(4, second_of_day / 60 % 60);
    set_two(7, second_of_day % 60);
    for place in clock[10..10 + digits].iter_mut().rev() {
        *place = b'0' + (fraction % 10) as u8;
        fraction /= 10;
    }
    let size = if digits == 0 { 9 } else { 10 + digits };
    output.extend_from_slice(&clock[..size]);
    output.extend_from_slice(b"Z\"");
}

/// Appends a JSON string.
pub(crate) fn put_string(output: &mut Vec<u8>, text: &str) {
    put_text(output, text.as_bytes());
}

/// Appends a JSON string of bytes that are UTF-8.
#[inline]
pub(super) fn put_text(output: &mut Vec<u8>, text: &[u8]) {
    output.push(b'"');
    if has_escape(text) {
        put_escaped(output, text);
    } else {
        output.extend_from_slice(text);
    }
    output.push(b'"');
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Whether a byte must be escaped: below 0x20, a quote or a backslash. Eight bytes at a time.
#[inline]
fn has_escape(text: &[u8]) -> bool {
    let zero_byte = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = text.as_chunks::<8>();
    let mut found = 0_u64;
    for word in words {
        let word = u64::from_le_bytes(*word);
        let below = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        found |= below | zero_byte(word ^ (ONES * 0x22)) | zero_byte(word ^ (ONES * 0x5c));
    }
    found != 0 || rest.iter().any(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\')
}

#[cold]
fn put_escaped(output: &mut Vec<u8>, text: &[u8]) {
    for &byte in text {
        let short = match byte {
            b'"' | b'\\' => byte,
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            0x08 => b'b',
            0x0c => b'f',
            0..0x20 => {
                output.extend_from_slice(b"\\u00");
                put_hex(output, byte);
                continue;
            }
            _ => {
                output.push(byte);
                continue;
            }
        };
        output.extend_from_slice(&[b'\\', short]);
    }
}
