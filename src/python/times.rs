//! Python's times as numbers of Arrow, exactly or not at all.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

const DAY_US: i64 = 86_400_000_000;

/// The microseconds of a `timedelta`, unless it is one of pandas and has nanoseconds.
pub(super) fn duration(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    refuse_nanoseconds(value, intern!(value.py(), "nanoseconds"))?;
    microseconds(value)
}

/// The microseconds of a `timedelta`.
fn microseconds(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = value.py();
    let days: i64 = value.getattr(intern!(py, "days"))?.extract()?;
    let seconds: i64 = value.getattr(intern!(py, "seconds"))?.extract()?;
    let rest: i64 = value.getattr(intern!(py, "microseconds"))?.extract()?;
    days.checked_mul(DAY_US)
        .and_then(|sum| sum.checked_add(seconds.checked_mul(1_000_000)?)?.checked_add(rest))
        .ok_or_else(|| PyOverflowError::new_err("the duration does not fit 64 bits"))
}

/// The microseconds of a `datetime` since 1970; a naive one is UTC.
pub(super) fn since_epoch(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = value.py();
    refuse_nanoseconds(value, intern!(py, "nanosecond"))?;
    let offset = value.call_method0(intern!(py, "utcoffset"))?;
    let offset = if offset.is_none() { 0 } else { microseconds(&offset)? };
    let date = value.call_method0(intern!(py, "date"))?;
    let time = value.call_method0(intern!(py, "time"))?;
    let local = i64::from(days(&date)?).saturating_mul(DAY_US);
    Ok(local.saturating_add(time_of_day(&time)?).saturating_sub(offset))
}

/// Refuses times of pandas that have nanoseconds, which Python's times do not have.
fn refuse_nanoseconds(value: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> PyResult<()> {
    match value.getattr_opt(name)?.map(|more| more.extract::<i64>()).transpose()? {
        None | Some(0) => Ok(()),
        Some(more) => Err(PyValueError::new_err(format!(
            "{value} has {more} nanoseconds, which need a table; round it, or use write()"
        ))),
    }
}

/// The days of a `date` since 1970.
pub(super) fn days(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    /// The ordinal of 1970-01-01.
    const EPOCH: i32 = 719_163;
    let ordinal: i32 = value.call_method0(intern!(value.py(), "toordinal"))?.extract()?;
    Ok(ordinal.saturating_sub(EPOCH))
}

/// The microseconds of a `time` since midnight; its zone would be lost.
pub(super) fn time_of_day(value: &Bound<'_, PyAny>) -> PyResult<i64> {
    let py = value.py();
    if !value.getattr(intern!(py, "tzinfo"))?.is_none() {
        return Err(PyValueError::new_err(format!(
            "{value} is a time of day with a time zone, which would be lost: pass a datetime, or \
             the time without its zone"
        )));
    }
    let part = |name| value.getattr(name)?.extract::<i64>();
    let minutes = part(intern!(py, "hour"))? * 60 + part(intern!(py, "minute"))?;
    let seconds = minutes * 60 + part(intern!(py, "second"))?;
    Ok(seconds * 1_000_000 + part(intern!(py, "microsecond"))?)
}
