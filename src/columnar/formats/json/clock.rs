//! Reads ISO 8601 dates, times and durations, in all the forms that producers write.
//!
//! [`super::scan::IsoTimes`] reads the most common forms of a time; this module reads them and the
//! others.

use arrow::datatypes::TimeUnit;

use super::scan::IsoTimes;

pub(super) const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => 1_000_000_000,
    }
}

const NANOS: i64 = 1_000_000_000;

/// What is left of a text.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn eat(&mut self, byte: u8) -> bool {
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn eat_any(&mut self, bytes: &[u8]) -> bool {
        bytes.iter().any(|&byte| self.eat(byte))
    }

    /// The leading digits; none where their number is out of range.
    fn digits(&mut self, counts: std::ops::RangeInclusive<usize>) -> Option<&'a [u8]> {
        let count = self.0.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let count = count.min(*counts.end());
        let (digits, rest) = self.0.split_at_checked(count).filter(|_| counts.contains(&count))?;
        self.0 = rest;
        Some(digits)
    }

    /// The leading number of at most 20 digits.
    fn wide(&mut self, counts: std::ops::RangeInclusive<usize>) -> Option<i128> {
        let digits = self.digits(counts)?;
        Some(
            digits
                .iter()
                .fold(0, |number, digit| number * 10 + i128::from(digit.wrapping_sub(b'0'))),
        )
    }

    fn number(&mut self, counts: std::ops::RangeInclusive<usize>) -> Option<i64> {
        self.wide(counts)?.try_into().ok()
    }

    fn two(&mut self) -> Option<i64> {
        self.number(2..=2)
    }

    /// The nanoseconds of a fraction, if there is one; further digits must be zeros.
    fn fraction(&mut self) -> Option<i64> {
        if !self.eat_any(b".,") {
            return Some(0);
        }
        let digits = self.digits(1..=usize::MAX)?;
        let (kept, behind) = digits.split_at(digits.len().min(9));
        if behind.iter().any(|&digit| digit != b'0') {
            return None;
        }
        let padded = kept.iter().copied().chain(std::iter::repeat(b'0')).take(9);
        Some(padded.fold(0, |nanos, digit| nanos * 10 + i64::from(digit.wrapping_sub(b'0'))))
    }

    /// Days since 1970-01-01. Years of more than four digits have a sign.
    fn date(&mut self) -> Option<i64> {
        let negative = self.eat(b'-');
        let signed = negative || self.eat(b'+');
        let year = self.number(if signed { 4..=12 } else { 4..=4 })?;
        let year = if negative { -year } else { year };
        let month = self.eat(b'-').then(|| self.two())??;
        let day = self.eat(b'-').then(|| self.two())??;
        if day < 1 || day > days_of_month(year, month)? {
            return None;
        }
        Some(days_since_epoch(year, month, day))
    }

    /// Nanoseconds since midnight; seconds may be left out.
    fn time(&mut self) -> Option<i64> {
        let hour = self.two()?;
        let minute = self.eat(b':').then(|| self.two())??;
        let (second, nanos) = if self.eat(b':') { (self.two()?, self.fraction()?) } else { (0, 0) };
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        Some(((hour * 60 + minute) * 60 + second) * NANOS + nanos)
    }

    /// Nanoseconds since midnight in the basic format, `hhmmss`.
    fn basic_time(&mut self) -> Option<i64> {
        let (hour, minute, second) = (self.two()?, self.two()?, self.two()?);
        let is_valid = hour <= 23 && minute <= 59 && second <= 59;
        is_valid.then_some(((hour * 60 + minute) * 60 + second) * NANOS)
    }

    /// Seconds east of Greenwich; UTC where there is no zone. Java writes the name of the zone
    /// after the offset, in brackets.
    fn zone(&mut self) -> Option<i64> {
        if self.0.is_empty() {
            return Some(0);
        }
        // As databases write it.
        self.eat(b' ');
        let seconds = if self.eat_any(b"Zz") {
            0
        } else {
            let negative = self.eat(b'-');
            if !negative && !self.eat(b'+') {
                return None;
            }
            let hours = self.two()?;
            let minutes = if self.eat(b':') || !self.0.is_empty() && self.0.first() != Some(&b'[') {
                self.two()?
            } else {
                0
            };
            let seconds = if self.eat(b':') { self.two()? } else { 0 };
            if hours > 23 || minutes > 59 || seconds > 59 {
                return None;
            }
            let seconds = (hours * 60 + minutes) * 60 + seconds;
            if negative { -seconds } else { seconds }
        };
        if let Some(name) = self.0.strip_prefix(b"[").and_then(|rest| rest.strip_suffix(b"]"))
            && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/_+-".contains(byte))
        {
            self.0 = &[];
        }
        Some(seconds)
    }

    fn end(&self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(super) fn date(text: &str) -> Option<i32> {
    let mut rest = Rest(text.as_bytes());
    let days = rest.date()?;
    rest.end()?;
    i32::try_from(days).ok()
}

/// A time as text, in the unit.
///
/// # Errors
/// What the text would have to be.
pub fn time(text: &str, unit: TimeUnit) -> Result<i64, String> {
    if let Some((value, size)) = IsoTimes::new(unit).read(text.as_bytes())
        && size == text.len()
    {
        return Ok(value);
    }
    if let Some(finer) = finer(text, unit) {
        return Err(finer);
    }
    moment(text, unit).ok_or_else(|| "an ISO 8601 time that the column's unit reaches".to_owned())
}

/// What a time with more digits than the unit has would have to be; zeros do not count.
fn finer(text: &str, unit: TimeUnit) -> Option<String> {
    Rest(text.as_bytes()).date()?;
    let (_, fraction) = text.split_once(['.', ','])?;
    let digits = fraction.bytes().take_while(u8::is_ascii_digit);
    let places = digits.enumerate().filter(|(_, digit)| *digit != b'0').last();
    let places = places.map_or(0, |(place, _)| place.saturating_add(1));
    let (held, name) = match unit {
        TimeUnit::Second => (0, "s"),
        TimeUnit::Millisecond => (3, "ms"),
        TimeUnit::Microsecond => (6, "us"),
        TimeUnit::Nanosecond => (9, "ns"),
    };
    let remedy = match places {
        _ if places <= held => return None,
        0..=3 => "timestamp[ms] has them",
        4..=6 => "timestamp[us] has them",
        7..=9 => "timestamp[ns] has them",
        _ => "no timestamp has them; read it as utf8",
    };
    Some(format!("a time without digits beyond those of timestamp[{name}]; {remedy}"))
}

/// A moment in the unit, which must hold its fraction exactly: a date, optionally with a time of day
/// and a zone.
pub(super) fn moment(text: &str, unit: TimeUnit) -> Option<i64> {
    let mut rest = Rest(text.as_bytes());
    let days = rest.date()?;
    let mut nanos = 0;
    let mut zone = 0;
    if rest.eat_any(b"Tt ") {
        nanos = if rest.0.get(2) == Some(&b':') { rest.time()? } else { rest.basic_time()? };
        zone = rest.zone()?;
    }
    rest.end()?;
    let seconds = i128::from(days) * 86_400 + i128::from(nanos / NANOS) - i128::from(zone);
    let rate = per_second(unit);
    let divisor = NANOS / rate;
    if nanos % divisor != 0 {
        return None;
    }
    let fraction = (nanos % NANOS) / divisor;
    i64::try_from(seconds * i128::from(rate) + i128::from(fraction)).ok()
}

/// A time of day in the unit, which must hold its fraction exactly.
pub(super) fn time_of_day(text: &str, unit: TimeUnit) -> Option<i64> {
    let mut rest = Rest(text.as_bytes());
    let nanos = rest.time()?;
    rest.end()?;
    let divisor = NANOS / per_second(unit);
    (nanos % divisor == 0).then_some(nanos / divisor)
}

/// A duration of weeks, days, hours, minutes and seconds in the unit, which must hold its fraction
/// exactly. The sign comes before everything or before a number.
pub(super) fn duration(text: &str, unit: TimeUnit) -> Option<i64> {
    let mut rest = Rest(text.as_bytes());
    let negative = rest.eat(b'-');
    if !negative {
        rest.eat(b'+');
    }
    rest.eat(b'P').then_some(())?;
    let mut nanos = 0_i128;
    let mut parts = 0;
    let mut units: &[(u8, i64)] = &[(b'W', 604_800), (b'D', 86_400)];
    let mut has_clock = false;
    loop {
        if !has_clock && rest.eat(b'T') {
            has_clock = true;
            units = &[(b'H', 3600), (b'M', 60), (b'S', 1)];
        }
        if rest.0.is_empty() {
            break;
        }
        parts += 1;
        let minus = rest.eat(b'-');
        let whole = rest.wide(1..=20)?;
        let fraction = rest.fraction()?;
        let (name, behind) = rest.0.split_first()?;
        let place = units.iter().position(|(unit, _)| unit == name)?;
        let (_, seconds) = units.get(place)?;
        if fraction != 0 && *name != b'S' {
            return None;
        }
        rest.0 = behind;
        units = units.get(place.saturating_add(1)..)?;
        let part = whole * i128::from(*seconds) * i128::from(NANOS) + i128::from(fraction);
        nanos += if minus { -part } else { part };
    }
    if parts == 0 {
        return None;
    }
    let nanos = if negative { -nanos } else { nanos };
    let divisor = i128::from(NANOS / per_second(unit));
    if nanos % divisor != 0 {
        return None;
    }
    i64::try_from(nanos / divisor).ok()
}

const fn days_of_month(year: i64, month: i64) -> Option<i64> {
    Some(match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => return None,
    })
}

/// Days from 1970-01-01 (Howard Hinnant's days_from_civil).
const fn days_since_epoch(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_forms_of_iso_8601() {
        let at_ten = moment("2024-01-01T10:00:00Z", TimeUnit::Second);
        assert_eq!(at_ten, Some(1_704_103_200));
        for same in [
            "2024-01-01T10:00",
            "2024-01-01T10:00Z",
            "2024-01-01 10:00:00",
            "2024-01-01T11:00+01:00",
            "2024-01-01T11:00:00.000000000+0100",
            "2024-01-01T11:00+01",
            "2024-01-01T11:00+01:00[Europe/Prague]",
            "2024-01-01T10:00Z[UTC]",
            "2023-12-31T22:30-11:30",
            "2024-01-01 11:00:00 +01",
            "2024-01-01T100000Z",
        ] {
            assert_eq!(moment(same, TimeUnit::Second), at_ten, "{same}");
        }
        assert_eq!(moment("1969-12-31T23:59:59.999", TimeUnit::Millisecond), Some(-1));
        assert_eq!(moment("-0001-01-01", TimeUnit::Second), Some(-62_198_755_200));
        assert_eq!(moment("+292278994-08-17T07:12:55.807Z", TimeUnit::Millisecond), Some(i64::MAX));
        for bad in ["2024-02-30", "2024-01-01T24:00", "2024-01-01T10", "24-01-01", "2024-01-01T"] {
            assert_eq!(moment(bad, TimeUnit::Second), None, "{bad}");
        }
        for bad in [
            "2024-01-01T10:00:60Z",
            "2016-12-31T23:59:60Z",
            "2024-01-01T10:60:00Z",
            "2024-01-01T10:00:00+00:60",
            "2024-01-01T10:00:00+01:75",
            "2024-01-01T10:00:00+0199",
            "2024-01-01T10:00:00 +01:60",
            "2024-01-01T10:00:00+24:00",
            "2024-01-01T100060Z",
            "2024-01-01T10:00:00  Z",
        ] {
            time(bad, TimeUnit::Second).unwrap_err();
        }
        for bad in ["2024-01-01T10:00+1", "2024-01-01T10:00 UTC", "2024-01-01T10:00+01:00[x y]"] {
            assert_eq!(moment(bad, TimeUnit::Second), None, "{bad}");
        }
    }

    #[test]
    fn a_fraction_that_the_unit_has_no_room_for_is_refused() {
        let at = |fraction: &str, unit| time(&format!("2024-01-01T10:00:00{fraction}"), unit);
        for zone in ["", "Z", "+00:00", "+02:00", "+02:00[Europe/Prague]"] {
            let at = |fraction: &str, unit| at(&format!("{fraction}{zone}"), unit);
            let hours = if zone.starts_with("+02") { 2 } else { 0 };
            let second = 1_704_103_200 - hours * 3600;
            assert_eq!(at(".120000000000", TimeUnit::Millisecond), Ok(second * 1000 + 120));
            assert_eq!(at(".000", TimeUnit::Second), Ok(second));
            for (fraction, unit, remedy) in [
                (".5", TimeUnit::Second, "timestamp[ms] has"),
                (".123456", TimeUnit::Millisecond, "timestamp[us] has"),
                (".1234567", TimeUnit::Microsecond, "timestamp[ns] has"),
                (".123456789", TimeUnit::Second, "timestamp[ns] has"),
                (".1234567891", TimeUnit::Nanosecond, "no timestamp has"),
            ] {
                assert!(at(fraction, unit).unwrap_err().contains(remedy), "{fraction}{zone}");
            }
        }
        assert!(time("9999-12-31", TimeUnit::Nanosecond).unwrap_err().contains("reaches"));
        assert!(time("1.5", TimeUnit::Second).unwrap_err().contains("ISO 8601"));
        assert_eq!(time_of_day("09:30", TimeUnit::Second), Some(34_200));
        assert_eq!(time_of_day("09:30:00.25", TimeUnit::Millisecond), Some(34_200_250));
        assert_eq!(time_of_day("09:30:00.25", TimeUnit::Second), None);
        assert_eq!(time_of_day("24:00", TimeUnit::Second), None);
        assert_eq!(duration("PT0.0015S", TimeUnit::Microsecond), Some(1500));
        assert_eq!(duration("PT0.0015S", TimeUnit::Millisecond), None);
    }

    #[test]
    fn durations_have_signs_and_parts() {
        for (text, wanted) in [
            ("PT90.5S", Some(90_500)),
            ("-PT0.001S", Some(-1)),
            ("PT-1.5S", Some(-1500)),
            ("P1DT2H3M4S", Some(93_784_000)),
            ("P2W", Some(1_209_600_000)),
            ("P", None),
            ("PT", None),
            ("P1M", None),
            ("PT1S2H", None),
            ("PT1S1S", None),
            ("P1.5D", None),
            ("1S", None),
        ] {
            assert_eq!(duration(text, TimeUnit::Millisecond), wanted, "{text}");
        }
        assert_eq!(duration("-PT9223372036854775808S", TimeUnit::Second), Some(i64::MIN));
    }
}
