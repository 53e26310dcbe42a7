"""Where a scan or a consumer starts and ends: from what users write to what the engine takes."""

from __future__ import annotations

import re
import time as _time
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any, Union

from ottla.errors import ConfigError

__all__ = ["Bound", "NativeBound", "milliseconds", "native_bound", "seconds", "timestamp", "ts"]

#: What users may write for the start or end of a read.
Bound = Union[None, str, datetime, date, timedelta, "Mapping[int, Any]", "Mapping[str, Any]"]

#: What the engine takes: a word, a time in milliseconds, or offsets by partition.
NativeBound = tuple[str, Any]

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def ts(unit: str = "ms") -> str:
    """Name the type of a JSON number that counts time since 1970, UTC.

    Parameters
    ----------
    unit : {"s", "ms", "us", "ns"}, default "ms"
        The unit of the number.

    Returns
    -------
    str
        The type, for the schema of :func:`ottla.json`.

    Raises
    ------
    ConfigError
        When the unit is not one of the four.

    Examples
    --------
    >>> import ottla
    >>> ottla.ts("ms")
    'timestamp[ms, UTC]'
    """
    if unit not in _UNITS:
        raise ConfigError(f"unit {unit!r} is none of s, ms, us, ns")
    return f"timestamp[{unit}, UTC]"


def timestamp(value: float, unit: str) -> datetime:
    """Turn a number since 1970, UTC, into a time; the unit is never guessed.

    Parameters
    ----------
    value : int or float
        The time since the start of 1970, UTC.
    unit : {"s", "ms", "us", "ns"}
        The unit of the value.

    Returns
    -------
    datetime.datetime
        The time, in UTC.

    Examples
    --------
    >>> import ottla
    >>> ottla.timestamp(1_357_034_400_000, "ms").isoformat()
    '2013-01-01T10:00:00+00:00'
    """
    if unit not in _UNITS:
        raise ConfigError(f"unit {unit!r} is none of s, ms, us, ns")
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    return epoch + timedelta(microseconds=value * 1_000_000 / _UNITS[unit])


def milliseconds(moment: Any) -> int:
    """Turn a time into milliseconds since 1970; a naive time is UTC."""
    if isinstance(moment, str):
        moment = _parse(moment)
    if not isinstance(moment, date):
        if isinstance(moment, (int, float)) and not isinstance(moment, bool):
            raise TypeError(
                f"{moment!r} has no unit: pass a datetime, or ottla.timestamp({moment!r}, 'ms')"
            )
        raise TypeError(f"a time is a datetime, a date or ISO 8601 text, not {moment!r}")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=timezone.utc)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    # Rounded down, so that a start never skips a record of its own millisecond.
    return int((moment - epoch) // timedelta(milliseconds=1))


def _parse(text: str) -> datetime:
    # Python 3.10 reads neither "Z" nor fractions of other than 3 or 6 digits.
    normal = re.sub(r"[zZ]$", "+00:00", text.strip())
    normal = re.sub(
        r"\.(\d+)", lambda match: "." + match.group(1)[:6].ljust(6, "0"), normal, count=1
    )
    try:
        return datetime.fromisoformat(normal)
    except ValueError:
        raise ConfigError(
            f"{text!r} is not a place in a topic: pass 'earliest', 'latest', an ISO 8601 time "
            "(UTC when it has no zone), a datetime, a negative timedelta, or {partition: offset}"
        ) from None


def native_bound(bound: Any, default: str, side: str, topic: str | None = None) -> NativeBound:
    """Turn a bound into what the engine takes.

    Parameters
    ----------
    bound : Bound
        What the user wrote.
    default : {"earliest", "latest"}
        What ``None`` means.
    side : {"start", "end"}
        Which of a pair of offsets counts, and the word for messages.
    topic : str, optional
        The topic whose offsets are taken out of offsets by topic.
    """
    if bound is None:
        return (default, None)
    if isinstance(bound, str):
        word = bound.strip().lower()
        if word in ("earliest", "latest"):
            return (word, None)
        return ("time", milliseconds(bound))
    if isinstance(bound, (datetime, date)):
        return ("time", milliseconds(bound))
    if isinstance(bound, timedelta):
        if bound > timedelta(0):
            raise ConfigError(f"{side}={bound!r} lies in the future: pass a negative timedelta")
        return ("time", int(_time.time() * 1000) + bound // timedelta(milliseconds=1))
    if isinstance(bound, Mapping):
        return ("offsets", _offsets(bound, side, topic))
    if isinstance(bound, (int, float)):
        raise TypeError(
            f"{side}={bound!r} has no unit: pass a datetime, ottla.timestamp({bound!r}, 'ms'), "
            f"or {{partition: {bound!r}}} for an offset"
        )
    raise TypeError(f"{side} cannot be a {type(bound).__name__}")


def _offsets(bound: Mapping[Any, Any], side: str, topic: str | None) -> dict[int, int]:
    if any(isinstance(value, Mapping) for value in bound.values()):
        if topic not in bound:
            raise ConfigError(f"{side}= has offsets of {', '.join(bound)}, not of {topic}")
        bound = bound[topic]
    return {int(key): _offset(value, side) for key, value in bound.items()}


def _offset(value: Any, side: str) -> int:
    if isinstance(value, (tuple, list)):
        if len(value) != 2:  # noqa: PLR2004
            raise ConfigError(f"{value!r} is not a pair of offsets")
        value = value[0 if side == "start" else 1]
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"an offset is an integer, not {value!r}")
    number = int(value.__index__())
    if number < 0:
        raise ConfigError(f"offset {number} is negative; use client[topic].tail(n) for the newest")
    return number


def seconds(timeout: float | timedelta | None) -> float | None:
    """Turn a timeout into seconds; ``None`` waits for ever."""
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    return None if timeout is None else float(timeout)
