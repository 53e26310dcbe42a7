"""Moments and spans of time of Python, pandas and numpy as Arrow arrays, with every digit.

They become microseconds, or nanoseconds where one of them needs these. Nothing is rounded, and what
is beyond the range of the unit is refused.
"""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ottla._imported import imported

if TYPE_CHECKING:
    from ottla._values import Values
    from ottla.errors import ConfigError

__all__ = ["datetimes", "durations"]

_INT64 = range(-(2**63), 2**63)
#: The ordinal of 1970-01-01.
_EPOCH = date(1970, 1, 1).toordinal()
#: Attoseconds, the finest unit of numpy, by unit.
_ATTOSECONDS = {
    "D": 86_400 * 10**18,
    "W": 7 * 86_400 * 10**18,
    "h": 3_600 * 10**18,
    "m": 60 * 10**18,
    "s": 10**18,
    "ms": 10**15,
    "us": 10**12,
    "ns": 10**9,
    "ps": 10**6,
    "fs": 10**3,
    "as": 1,
}


def datetimes(found: Values) -> Any:
    import pyarrow as pa

    are_plain = set(map(type, found.values)) <= {datetime, type(None)}
    if are_plain and all(value is None or value.tzinfo is None for value in found.values):
        return pa.array(found.values, pa.timestamp("us"))
    aware: int | None = None
    naive: int | None = None
    zones: list[Any] = []
    numbers: list[int | None] = []
    for at, value in enumerate(found.values):
        if value is None:
            numbers.append(None)
            continue
        offset = value.utcoffset() if isinstance(value, datetime) else None
        if offset is None:
            naive = at if naive is None else naive
        else:
            aware = at if aware is None else aware
            if not any(value.tzinfo is zone or value.tzinfo == zone for zone in zones[:2]):
                zones.append(value.tzinfo)
        if naive is not None and aware is not None:
            raise _zoned(found, naive, aware)
        numbers.append(_attoseconds(found, at))
    zone = None if aware is None else _zone(found.values[aware], zones)
    return _of_unit(found, numbers, lambda unit: pa.timestamp(unit, zone))


def _zoned(found: Values, naive: int, aware: int) -> ConfigError:
    told = {naive: "datetime without a time zone", aware: "datetime with a time zone"}
    first, second = sorted(told)
    return found.disagreement(
        first,
        second,
        (told[first], told[second]),
        "Give all of them a time zone; if those without one are UTC, with "
        f"pandas.to_datetime({found.column.expression}, utc=True)",
    )


def _zone(value: Any, zones: list[Any]) -> str:
    """Return the zone of a column of moments: that of all, or UTC."""
    import pyarrow as pa

    if len(zones) > 1:
        return "UTC"
    try:
        return str(pa.scalar(value).type.tz)
    except (pa.ArrowException, TypeError, ValueError):
        # An offset that has seconds, for example.
        return "UTC"


def durations(found: Values) -> Any:
    import pyarrow as pa

    numbers = [
        None if value is None else _attoseconds(found, at) for at, value in enumerate(found.values)
    ]
    return _of_unit(found, numbers, pa.duration)


def _attoseconds(found: Values, at: int) -> int:
    """Return the time since 1970, or a span of time, in attoseconds."""
    value = found.values[at]
    numpy, pandas = imported("numpy"), imported("pandas")
    if pandas is not None and isinstance(value, (pandas.Timestamp, pandas.Timedelta)):
        # In UTC, and in the unit of the value.
        value = value.asm8
    if numpy is not None and isinstance(value, (numpy.datetime64, numpy.timedelta64)):
        unit, count = numpy.datetime_data(value.dtype)
        if unit not in _ATTOSECONDS:
            raise found.out_of_range(at, "whose unit has no fixed length, or is no unit")
        return int(value.astype("int64")) * int(count) * _ATTOSECONDS[unit]
    if isinstance(value, timedelta):
        span = value
    else:
        span = timedelta(
            days=value.toordinal() - _EPOCH,
            hours=value.hour,
            minutes=value.minute,
            seconds=value.second,
            microseconds=value.microsecond,
        ) - (value.utcoffset() or timedelta())
    micros = (span.days * 86_400 + span.seconds) * 1_000_000 + span.microseconds
    return micros * _ATTOSECONDS["us"]


def _of_unit(found: Values, numbers: list[int | None], kind: Any) -> Any:
    """Return times in microseconds; in nanoseconds or longer units where some need these."""
    import pyarrow as pa

    def finer(unit: str) -> int | None:
        """Return the first that has digits below a unit."""
        rate = _ATTOSECONDS[unit]
        return next((at for at, one in enumerate(numbers) if one and one % rate), None)

    def beyond(unit: str) -> int | None:
        """Return the first that is out of the range of a unit."""
        rate = _ATTOSECONDS[unit]
        return next(
            (at for at, one in enumerate(numbers) if one and one // rate not in _INT64), None
        )

    too_fine = finer("ns")
    if too_fine is not None:
        raise found.out_of_range(too_fine, "which has digits below the nanosecond; Arrow has none")
    fine = finer("us")
    units = ["ns"] if fine is not None else ["us", "ms", "s"]
    exact = [one for one in units if finer(one) is None]
    unit = next((one for one in exact if beyond(one) is None), None)
    if unit is None:
        place = beyond(exact[-1]) or 0
        reason = "" if fine is None else f"; {found.at(fine)}, which needs them"
        raise found.out_of_range(place, f"beyond Arrow's times in {exact[-1]}{reason}")
    rate = _ATTOSECONDS[unit]
    values = [None if one is None else one // rate for one in numbers]
    return pa.array(values, pa.int64()).view(kind(unit))
