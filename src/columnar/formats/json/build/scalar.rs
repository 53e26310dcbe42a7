//! Values of simple types from the nodes of a tape.

use arrow::datatypes::{TimeUnit, i256};
use simd_json::{Node, StaticNode};

use super::super::{Doc, clock, number};
use super::Mismatch;
use super::text::node_text;

#[cold]
pub(super) fn mismatch(doc: &Doc<'_>, at: usize, wanted: &str) -> Mismatch {
    const SHOWN_MAX: usize = 60;
    let text = node_text(doc, at);
    let shown: String = text.chars().take(SHOWN_MAX).collect();
    let more = if shown.len() < text.len() { "…" } else { "" };
    Mismatch::new(format!("{shown}{more} is not {wanted}"))
}

#[inline]
pub(super) fn whole<T: TryFrom<i64> + TryFrom<u64> + std::str::FromStr>(
    doc: &Doc<'_>,
    at: usize,
    wanted: &str,
) -> Result<T, Mismatch> {
    let value = match doc.get(at) {
        Some(Node::Static(StaticNode::I64(value))) => T::try_from(*value).ok(),
        Some(Node::Static(StaticNode::U64(value))) => T::try_from(*value).ok(),
        // `3.0` and `1e3` are whole, judged by their text and not by the nearest float.
        Some(Node::Static(StaticNode::F64(_))) => {
            number::scaled(doc.number_text(at), 0).and_then(|digits| digits.parse().ok())
        }
        Some(Node::String(text)) => text.parse().ok(),
        _ => None,
    };
    value.ok_or_else(|| mismatch(doc, at, wanted))
}

/// The bound below which a float holds every whole number.
const FLOAT_WHOLE_MAX: u64 = 1 << 53;

/// Whether a float may be unable to hold a whole number.
#[inline]
pub(in crate::columnar::formats::json) const fn is_wide(value: i64) -> bool {
    value.unsigned_abs() > FLOAT_WHOLE_MAX
}

/// A float; where it must be `exact`, whole numbers are not rounded to one.
#[inline]
#[expect(clippy::cast_precision_loss, reason = "JSON has one number type; a float was asked for")]
pub(super) fn float(doc: &Doc<'_>, at: usize, exact: bool) -> Result<f64, Mismatch> {
    let value = match doc.get(at) {
        Some(Node::Static(StaticNode::F64(value))) if value.is_nan() => {
            let text = doc.number_text(at);
            let is_whole = !text.bytes().any(|byte| matches!(byte, b'.' | b'e' | b'E'));
            finite(text).filter(|_| !(exact && is_whole))
        }
        Some(Node::Static(StaticNode::F64(value))) => Some(*value),
        Some(Node::Static(StaticNode::I64(value))) if !(exact && is_wide(*value)) => {
            Some(*value as f64)
        }
        Some(Node::Static(StaticNode::U64(value))) if !(exact && *value > FLOAT_WHOLE_MAX) => {
            Some(*value as f64)
        }
        Some(Node::String(text)) => finite(text).or(match *text {
            "NaN" | "nan" => Some(f64::NAN),
            "Infinity" | "inf" | "+Infinity" | "+inf" => Some(f64::INFINITY),
            "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
            _ => None,
        }),
        _ => None,
    };
    value.ok_or_else(|| mismatch(doc, at, "a number that the column's type holds"))
}

fn finite(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// A float of half the size.
#[inline]
pub(super) fn float32(doc: &Doc<'_>, at: usize) -> Result<f32, Mismatch> {
    let wide = float(doc, at, false)?;
    let value = wide as f32;
    if value.is_infinite() && wide.is_finite() {
        return Err(mismatch(doc, at, "a number that float32 holds"));
    }
    Ok(value)
}

/// A float that fits a quarter of the size, and is rounded to it when the column is complete.
pub(super) fn float16(doc: &Doc<'_>, at: usize) -> Result<f32, Mismatch> {
    /// Where float16 rounds to infinity.
    const BOUND: f32 = 65_520.0;
    let value = float32(doc, at)?;
    if value.is_finite() && value.abs() >= BOUND {
        return Err(mismatch(doc, at, "a number that float16 holds"));
    }
    Ok(value)
}

pub(super) fn time(doc: &Doc<'_>, at: usize, unit: TimeUnit) -> Result<i64, Mismatch> {
    let Some(Node::String(text)) = doc.get(at) else {
        return whole(doc, at, "a time: an ISO 8601 string or a whole number in the unit");
    };
    clock::time(text, unit).map_err(|wanted| mismatch(doc, at, &wanted))
}

pub(super) fn date(doc: &Doc<'_>, at: usize) -> Result<i32, Mismatch> {
    const WANTED: &str = "a date YYYY-MM-DD";
    match doc.get(at) {
        Some(Node::String(text)) => clock::date(text).ok_or_else(|| mismatch(doc, at, WANTED)),
        _ => whole(doc, at, WANTED),
    }
}

pub(super) fn time_of_day(doc: &Doc<'_>, at: usize, unit: TimeUnit) -> Result<i64, Mismatch> {
    const WANTED: &str = "a time of the day, HH:MM:SS with the digits of the column's unit";
    match doc.get(at) {
        Some(Node::String(text)) => clock::time_of_day(text, unit),
        _ => {
            let value: i64 = whole(doc, at, WANTED)?;
            let day = 86_400 * clock::per_second(unit);
            (0..day).contains(&value).then_some(value)
        }
    }
    .ok_or_else(|| mismatch(doc, at, WANTED))
}

pub(super) fn duration(doc: &Doc<'_>, at: usize, unit: TimeUnit) -> Result<i64, Mismatch> {
    const WANTED: &str = "a duration, PT1.5S with the digits of the column's unit";
    match doc.get(at) {
        Some(Node::String(text)) => {
            clock::duration(text, unit).ok_or_else(|| mismatch(doc, at, WANTED))
        }
        _ => whole(doc, at, WANTED),
    }
}

/// The text of a number, or of a string that may be one.
fn number_text(doc: &Doc<'_>, at: usize) -> String {
    match doc.get(at) {
        Some(Node::String(text)) => (*text).to_owned(),
        Some(Node::Static(StaticNode::F64(_))) => doc.number_text(at).to_owned(),
        Some(Node::Static(StaticNode::I64(value))) => value.to_string(),
        Some(Node::Static(StaticNode::U64(value))) => value.to_string(),
        _ => String::new(),
    }
}

fn no_decimal(doc: &Doc<'_>, at: usize, precision: u8, scale: i8) -> Mismatch {
    mismatch(doc, at, &format!("a number whose every digit fits decimal({precision}, {scale})"))
}

pub(super) fn decimal(
    doc: &Doc<'_>,
    at: usize,
    precision: u8,
    scale: i8,
) -> Result<i128, Mismatch> {
    number::decimal(&number_text(doc, at), precision, scale)
        .ok_or_else(|| no_decimal(doc, at, precision, scale))
}

pub(super) fn decimal256(
    doc: &Doc<'_>,
    at: usize,
    precision: u8,
    scale: i8,
) -> Result<i256, Mismatch> {
    number::decimal256(&number_text(doc, at), precision, scale)
        .ok_or_else(|| no_decimal(doc, at, precision, scale))
}

/// The bytes of a UUID's text, with or without hyphens.
pub(super) fn uuid(text: &str) -> Option<[u8; 16]> {
    let mut bytes = [0; 16];
    let is_hyphen = |at: usize| text.len() == 36 && [8, 13, 18, 23].contains(&at);
    let mut digits =
        text.bytes().enumerate().filter(|(at, byte)| !(is_hyphen(*at) && *byte == b'-'));
    for byte in &mut bytes {
        let mut four = || {
            let (_, digit) = digits.next()?;
            char::from(digit).to_digit(16)
        };
        let (high, low) = (four()?, four()?);
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    digits.next().is_none().then_some(bytes)
}
