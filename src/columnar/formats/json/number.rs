//! Numbers as text, for those that the machine's number types cannot hold.
//!
//! JSON does not limit numbers. The parser has 64-bit integers and floats; a number that fits
//! neither is kept as text, and a decimal is read only from its text.

use arrow::datatypes::i256;

/// The places of all numbers of a JSON text, in order. For text that is not JSON the result is
/// arbitrary.
pub(super) fn places(text: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0_usize;
    while let Some(&byte) = text.get(at) {
        match byte {
            b'"' => at = behind_string(text, at),
            b'-' | b'0'..=b'9' => {
                let rest = text.get(at..).unwrap_or_default();
                let is_part =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                let size = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                let end = at.saturating_add(size);
                found.push(at..end);
                at = end;
            }
            _ => at = at.saturating_add(1),
        }
    }
    found
}

fn behind_string(text: &[u8], quote_at: usize) -> usize {
    let mut at = quote_at.saturating_add(1);
    loop {
        match text.get(at) {
            Some(b'"') => return at.saturating_add(1),
            Some(b'\\') => at = at.saturating_add(2),
            Some(_) => at = at.saturating_add(1),
            None => return text.len(),
        }
    }
}

/// Whether a text is a number by JSON's grammar and may be more than the parser can hold.
pub(super) fn is_outsize(text: &[u8]) -> bool {
    /// This many digits always fit 64 bits.
    const DIGITS_MAX: usize = 18;
    let is_long = text.len() > DIGITS_MAX || text.iter().any(|byte| matches!(byte, b'e' | b'E'));
    is_long && is_number(text)
}

fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text.starts_with(b"0")) {
        return false;
    }
    let mut rest = text.get(whole..).unwrap_or_default();
    if let Some(fraction) = rest.strip_prefix(b".") {
        let places = digits(fraction);
        if places == 0 {
            return false;
        }
        rest = fraction.get(places..).unwrap_or_default();
    }
    let Some((b'e' | b'E', power)) = rest.split_first() else { return rest.is_empty() };
    let power = power.strip_prefix(b"-").or_else(|| power.strip_prefix(b"+")).unwrap_or(power);
    !power.is_empty() && digits(power) == power.len()
}

/// The digits of `text` times ten to the power of `scale`, if that is a whole number: with a sign
/// where it is negative, and without leading zeros.
pub(in crate::columnar) fn scaled(text: &str, scale: i8) -> Option<String> {
    /// More zeros than any type has digits.
    const ZEROS_MAX: i64 = 100;
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", mantissa.strip_prefix('+').unwrap_or(mantissa)),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let digits = format!("{whole}{fraction}");
    let kept = digits.trim_end_matches('0');
    let zeros = i64::try_from(digits.len().checked_sub(kept.len())?).ok()?;
    let kept = kept.trim_start_matches('0');
    if kept.is_empty() {
        return Some("0".to_owned());
    }
    let places = i64::try_from(fraction.len()).ok()?;
    let shift = power.checked_sub(places)?.checked_add(zeros)?.checked_add(i64::from(scale))?;
    if !(0..=ZEROS_MAX).contains(&shift) {
        return None;
    }
    let zeros = "0".repeat(usize::try_from(shift).ok()?);
    Some(format!("{sign}{kept}{zeros}"))
}

fn fits(digits: &str, precision: u8) -> bool {
    digits.trim_start_matches('-').len() <= usize::from(precision)
}

/// The unscaled value of a decimal, if the type can hold every digit.
pub(super) fn decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let digits = scaled(text, scale)?;
    if fits(&digits, precision) { digits.parse().ok() } else { None }
}

/// As [`decimal`], for the wider type.
pub(in crate::columnar) fn decimal256(text: &str, precision: u8, scale: i8) -> Option<i256> {
    let digits = scaled(text, scale)?;
    if fits(&digits, precision) { i256::from_string(&digits) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_have_every_digit_or_are_refused() {
        for (text, scale, wanted) in [
            ("12.50", 2, Some(1250)),
            ("12.5", 1, Some(125)),
            ("12.345", 2, None),
            ("1e3", 0, Some(1000)),
            ("1.50e1", 0, Some(15)),
            ("-0.00", 0, Some(0)),
            ("1200", -2, Some(12)),
            ("1201", -2, None),
            ("1e999999999999", 0, None),
            ("1e-5", 2, None),
            ("99999999999999999999999999999999999999", 0, Some(10_i128.pow(38) - 1)),
            ("100000000000000000000000000000000000000", 0, None),
            ("", 0, None),
            (".", 0, None),
            ("1x", 0, None),
            ("--1", 0, None),
        ] {
            assert_eq!(decimal(text, 38, scale), wanted, "{text}");
        }
        assert_eq!(decimal("100", 2, 0), None);
        let long = "123456789012345678901234567890123456789012345678901234567890.5";
        assert_eq!(decimal256(long, 76, 1).unwrap().to_string(), long.replace('.', ""));
    }

    #[test]
    fn the_numbers_of_a_text_are_found_outside_of_its_strings() {
        let text = br#"{"a1": [-1, 2.5e+3], "b\"2": "3", "c": 4}"#;
        let found: Vec<&[u8]> = places(text).into_iter().map(|place| &text[place]).collect();
        assert_eq!(found, [&b"-1"[..], b"2.5e+3", b"4"]);
    }

    #[test]
    fn only_numbers_of_the_grammar_are_taken_for_long_ones() {
        for good in ["100000000000000000000", "-1e400", "1.5E+5", "0e1"] {
            assert!(is_outsize(good.as_bytes()), "{good}");
        }
        for bad in ["1", "0100000000000000000000", "1e", "1.e5", "1e5.5", "-e5", "1e+", "--1e5"] {
            assert!(!is_outsize(bad.as_bytes()), "{bad}");
        }
    }
}
