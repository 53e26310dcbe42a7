"""Where a scan or a consumer starts and ends, converted for the engine."""

from __future__ import annotations

import re
import time as _time
from collections.abc import Mapping
from datetime import date, datetime, timedelta, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Union

from ottla._imported import imported
from ottla._records import plain
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from ottla.typing import TimeUnit

__all__ = [
    "Bound",
    "Limit",
    "NativeBound",
    "milliseconds",
    "native_bound",
    "seconds",
    "timestamp",
    "ts",
]

#: What users may pass as the start or end.
Bound = Union[None, str, datetime, date, timedelta, "Mapping[int, Any]", "Mapping[str, Any]"]

#: What the engine takes: a word, a time in milliseconds, or offsets by partition.
NativeBound = tuple[str, Any]

#: The units of numpy that are finer than Python's times.
_FINE = ("ns", "ps", "fs", "as")
#: The largest offset of Kafka's protocol.
_OFFSET_MAX = 2**63 - 1

_UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}


def ts(unit: TimeUnit = "ms") -> str:
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
        raise ConfigError(f"unit {unit!r} must be one of s, ms, us, ns")
    return f"timestamp[{unit}, UTC]"


def timestamp(value: float, unit: TimeUnit) -> datetime:
    """Convert a number since 1970, UTC, to a time; the unit is never guessed.

    Parameters
    ----------
    value : int or float
        The time since the start of 1970, UTC.
    unit : {"s", "ms", "us", "ns"}
        The unit of the value.

    Returns
    -------
    datetime.datetime
        The time, in UTC, rounded to microseconds, the finest that a datetime has.

    Examples
    --------
    >>> import ottla
    >>> ottla.timestamp(1_357_034_400_000, "ms").isoformat()
    '2013-01-01T10:00:00+00:00'
    """
    if unit not in _UNITS:
        raise ConfigError(f"unit {unit!r} must be one of s, ms, us, ns")
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    try:
        # A float has too few digits for some integers.
        return epoch + timedelta(microseconds=round(Fraction(value) * 1_000_000 / _UNITS[unit]))
    except OverflowError:
        raise ConfigError(
            f"{value!r} {unit} after 1970 is not in the years 1 to 9999, which Python's times can "
            "have"
        ) from None


def milliseconds(moment: Any) -> int:
    """Convert the time of a record to milliseconds since 1970; a naive time is UTC."""
    if isinstance(moment, str):
        found = _parse(moment)
        if found is None:
            _refuse_far(moment, "timestamp")
            raise ConfigError(
                f"timestamp={moment!r} is not a time: pass ISO 8601 text such as "
                "'2024-05-01T12:00:00Z' (UTC when it has no zone), a datetime or a date, or leave "
                "it out for the current time"
            )
        moment = found
    moment = _plain_time(moment, "timestamp")
    if not isinstance(moment, date):
        if isinstance(moment, (int, float)) and not isinstance(moment, bool):
            raise TypeError(
                f"{moment!r} has no unit: pass a datetime, or ottla.timestamp({moment!r}, 'ms')"
            )
        raise TypeError(f"a time must be a datetime, a date or ISO 8601 text, not {moment!r}")
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=timezone.utc)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    epoch = datetime(1970, 1, 1, tzinfo=timezone.utc)
    # Rounded down, so that a start never skips a record of its own millisecond.
    return int((moment - epoch) // timedelta(milliseconds=1))


def _plain_time(value: Any, argument: str) -> Any:
    """Return the Python value of a scalar of numpy or pandas, without its nanoseconds.

    Milliseconds are what counts, rounded down.
    """
    numpy = imported("numpy")
    if numpy is not None and isinstance(value, numpy.datetime64):
        unit, _count = numpy.datetime_data(value.dtype)
        value = value.astype("datetime64[us]") if unit in _FINE else value
    value = plain(value)
    if value is None:
        raise ConfigError(f"{argument}= is NaT, which is no time: pass a datetime")
    _refuse_far(value, argument)
    return value


def _refuse_far(moment: Any, name: str) -> None:
    """Refuse a time in a year that Python's do not have."""
    if isinstance(moment, str):
        is_far = re.match(r"\s*([+-]\d{4,}|\d{5,}|0000)-\d\d-\d\d", moment) is not None
    else:
        # Of pandas and numpy there may be others.
        numpy = imported("numpy")
        is_far = numpy is not None and isinstance(moment, numpy.datetime64)
        is_far |= isinstance(moment, date) and moment.year not in range(1, 10_000)
    if is_far:
        raise ConfigError(
            f"{name}={moment!r} is not in the years 1 to 9999, which Python's times can have"
        )


def _parse(text: str) -> datetime | None:
    # Python 3.10 reads neither "Z" nor fractions unless they have 3 or 6 digits.
    normal = re.sub(r"[zZ]$", "+00:00", text.strip())
    normal = re.sub(
        r"\.(\d+)", lambda match: "." + match.group(1)[:6].ljust(6, "0"), normal, count=1
    )
    try:
        return datetime.fromisoformat(normal)
    except ValueError:
        return None


def _of_text(text: str, name: str) -> NativeBound:
    """Convert a bound that is text: a word or a time."""
    word = text.strip().lower()
    if word in ("earliest", "latest"):
        return (word, None)
    moment = _parse(text)
    if moment is not None:
        return ("time", milliseconds(moment))
    if word.startswith(("{", "[")):
        raise ConfigError(f"{name}= is JSON text: pass what it stands for, {name}=json.loads(text)")
    _refuse_far(text, name)
    raise ConfigError(
        f"{text!r} is not a position in a topic: pass 'earliest', 'latest', an ISO 8601 time "
        "(UTC when it has no zone), a datetime, a negative timedelta, or {partition: offset}"
    )


def native_bound(
    bound: Any, default: str, side: str, topic: str | None = None, *, name: str = ""
) -> NativeBound:
    """Convert a bound to what the engine takes.

    Parameters
    ----------
    bound : Bound
        What the user passed.
    default : {"earliest", "latest"}
        What ``None`` means.
    side : {"start", "end"}
        Which of a pair of offsets counts.
    topic : str, optional
        The topic to select when offsets are by topic.
    name : str, optional
        What users call the argument; that of the side by default.
    """
    name = name or side
    if bound is None:
        return (default, None)
    if isinstance(bound, str):
        return _of_text(bound, name)
    bound = _plain_time(bound, name)
    if isinstance(bound, (datetime, date)):
        return ("time", milliseconds(bound))
    if isinstance(bound, timedelta):
        if bound > timedelta(0):
            raise ConfigError(f"{name}={bound!r} is in the future: pass a negative timedelta")
        return ("time", int(_time.time() * 1000) + bound // timedelta(milliseconds=1))
    if isinstance(bound, Mapping):
        return _offsets(bound, side, topic, name)
    if isinstance(bound, (int, float)) and not isinstance(bound, bool):
        raise TypeError(
            f"{name}={bound!r} has no unit: pass a datetime, ottla.timestamp({bound!r}, 'ms'), "
            f"or {{partition: {bound!r}}} for an offset"
        )
    given = repr(bound) if isinstance(bound, bool) else type(bound).__name__
    raise TypeError(
        f"{name}= takes 'earliest', 'latest', a time, a negative timedelta or "
        f"{{partition: offset}}, not {given}"
    )


def native_bounds(start: Any, end: Any, topic: str) -> tuple[NativeBound, NativeBound]:
    """Convert the bounds of a scan to what the engine takes.

    Ranges, such as the offsets of a batch, are accepted for both bounds or for the end: as a start
    alone they would repeat what was already read.
    """
    if isinstance(start, Mapping) and isinstance(end, Mapping):
        ranges = _of_topic(start, "start", topic)
        if has_ranges(start) and ranges == _of_topic(end, "end", topic):
            pairs = {int(key): _pair(value) for key, value in ranges.items()}
            return (
                ("offsets", {key: first for key, (first, _) in pairs.items()}),
                ("offsets", {key: last for key, (_, last) in pairs.items()}),
            )
    return native_bound(start, "earliest", "start", topic), native_bound(
        end, "latest", "end", topic
    )


def is_by_topic(offsets: Mapping[Any, Any]) -> bool:
    """Return whether offsets are by topic and partition, as in a checkpoint."""
    return any(isinstance(value, Mapping) for value in offsets.values())


def has_ranges(offsets: Mapping[Any, Any]) -> bool:
    """Return whether offsets, by partition or by topic and partition, are pairs."""
    return any(
        has_ranges(value) if isinstance(value, Mapping) else isinstance(value, (tuple, list))
        for value in offsets.values()
    )


def _of_topic(bound: Mapping[Any, Any], name: str, topic: str | None) -> Mapping[Any, Any]:
    if not is_by_topic(bound):
        return bound
    if topic not in bound:
        raise ConfigError(f"{name}= has offsets for {', '.join(map(str, bound))}, not for {topic}")
    found: Mapping[Any, Any] = bound[topic]
    return found


def _offsets(bound: Mapping[Any, Any], side: str, topic: str | None, name: str) -> NativeBound:
    of_topic = _of_topic(bound, name, topic)
    if side == "start" and has_ranges(of_topic):
        raise refusal_of_ranges(name)
    if side == "end" and not of_topic:
        raise ConfigError(f"{name}={bound!r} names no partition")
    remedy = "; use client[topic].tail(n) for the newest" if side == "start" else ""
    offsets = {int(key): _offset(value, remedy) for key, value in of_topic.items()}
    if side == "start" and (is_by_topic(bound) or not bound) and topic is not None:
        return ("checkpoint", {topic: offsets})
    return ("offsets", offsets)


def refusal_of_ranges(argument: str) -> ConfigError:
    """Return the error for ranges where single offsets are expected."""
    return ConfigError(
        f"{argument}= has ranges of offsets, which were already read. To continue after them, pass "
        "scan.end or consumer.position() to start=, or batch.offsets to resume= of a consumer; to "
        "scan the same records again, pass the ranges to start= and end="
    )


def _pair(value: Any) -> tuple[int, int]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:  # noqa: PLR2004
        raise ConfigError(f"{value!r} is not a pair of offsets")
    return _offset(value[0]), _offset(value[1])


def _offset(value: Any, remedy: str = "") -> int:
    if isinstance(value, (tuple, list)):
        value = _pair(value)[1]
    return offset_number(value, remedy)


def offset_number(value: Any, remedy: str = "") -> int:
    """Return an offset as an integer; ``remedy`` says what to do instead of a negative one."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"an offset must be an integer, not {value!r}")
    number = int(value.__index__())
    if number < 0:
        raise ConfigError(f"offset {number} is negative{remedy}")
    if number > _OFFSET_MAX:
        raise ConfigError(f"offset {number} is larger than any offset can be, {_OFFSET_MAX}")
    return number


def row_count(value: Any, name: str = "n") -> int:
    """Return a number of rows."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}={value!r}: pass a number of rows")
    number = int(value.__index__())
    if number < 0:
        raise ConfigError(f"{name}={number} is negative: pass the number of rows that you want")
    return number


class Limit:
    """The time limit that the steps of one call share.

    Parameters
    ----------
    timeout : float, datetime.timedelta or None
        In seconds; ``None`` for no limit.
    """

    def __init__(self, timeout: float | timedelta | None) -> None:
        self._seconds = seconds(timeout)
        self._started = _time.monotonic()

    def left(self) -> float | None:
        """Return the remaining seconds; ``None`` without a limit."""
        if self._seconds is None:
            return None
        return max(0.0, self._seconds - (_time.monotonic() - self._started))


def seconds(timeout: float | timedelta | None) -> float | None:
    """Convert a timeout to seconds; ``None`` waits forever."""
    if timeout is None:
        return None
    if isinstance(timeout, timedelta):
        return timeout.total_seconds()
    if isinstance(timeout, (bool, str, bytes)) or not hasattr(timeout, "__float__"):
        raise TypeError(f"a timeout must be a number of seconds or a timedelta, not {timeout!r}")
    return float(timeout)
