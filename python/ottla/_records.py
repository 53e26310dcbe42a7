"""The parts of a single record, converted from what users pass to bytes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any, Union
from uuid import UUID

from ottla._imported import imported
from ottla.errors import ConfigError

__all__ = ["Headers", "Key", "header_pairs", "key_bytes", "part_bytes", "plain"]

#: The types that the key of a record may have.
Key = Union[bytes, str, int, Decimal, UUID, date, time, None]  # noqa: UP007 (read by Python 3.10)

Headers = Mapping[str, "bytes | str | None"] | Sequence[tuple[str, "bytes | str | None"]] | None

#: Further types that the parts of a record may have, as named in messages.
_MORE = {
    "value": ", a mapping",
    "key": ", int, bool, Decimal, UUID, date, time, datetime",
}


def plain(value: Any) -> Any:
    """Return the Python value that a scalar of numpy stands for; ``None`` for a null of pandas.

    Anything else is returned as it is. No digit is lost: nanoseconds, which Python's times do not
    have, are refused.
    """
    if type(value).__module__.partition(".")[0] == "pandas":
        return None if type(value).__name__ in ("NaTType", "NAType") else value
    numpy = imported("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return value
    if value.dtype.kind in "mM":
        return _plain_time(value, numpy)
    item = value.item()
    # An item of `longdouble` is a `longdouble`.
    return item if isinstance(item, (bool, int, float, str, bytes)) else value


def _plain_time(value: Any, numpy: Any) -> Any:
    """Return the Python value of a ``datetime64`` or ``timedelta64``."""
    if numpy.isnat(value):
        return None
    if numpy.datetime_data(value.dtype) == ("ns", 1):
        micros = value.astype(f"{value.dtype.kind}8[us]")
        if micros != value:
            raise ConfigError(
                f"{value} has nanoseconds, which need a table; round it, or use write()"
            )
        value = micros
    # Without a unit, or where Python has no such time, an item is a number.
    item = value.item()
    return item if isinstance(item, (date, timedelta)) else value


def part_bytes(value: object, what: str, *, of_mapping: bool = True) -> bytes | None:
    """Return the bytes of a part of a record; a value may also be a mapping in some formats."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise ConfigError(
                f"the {what} {value!r} has a lone surrogate, which UTF-8 cannot represent"
            ) from None
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    more = _MORE.get(what, "") if of_mapping else ""
    raise TypeError(f"a {what} must be bytes, str{more} or None, not {type(value).__name__}")


def key_bytes(key: object) -> bytes | None:
    """Return the bytes of a key, the same as ``write`` produces from a column's value."""
    key = plain(key)
    if isinstance(key, bool):
        key = "true" if key else "false"
    elif isinstance(key, (int, UUID)):
        key = str(key)
    elif isinstance(key, Decimal):
        if not key.is_finite():
            raise ConfigError(f"key {key} is not a finite number")
        key = format(key, "f")
    elif isinstance(key, datetime):
        moment = key.replace(tzinfo=timezone.utc) if key.tzinfo is None else key
        moment = moment.astimezone(timezone.utc).replace(tzinfo=None)
        key = f"{moment.isoformat(timespec=_digits(moment))}Z"
    elif isinstance(key, date):
        key = key.isoformat()
    elif isinstance(key, time):
        if key.tzinfo is not None:
            raise TypeError("a key that is a time must have no time zone: pass a datetime")
        key = key.isoformat(timespec=_digits(key))
    return part_bytes(key, "key")


def _digits(moment: datetime | time) -> str:
    """Return how many digits the fraction of a second needs."""
    if getattr(moment, "nanosecond", 0):
        return "nanoseconds"
    if not moment.microsecond:
        return "seconds"
    return "microseconds" if moment.microsecond % 1000 else "milliseconds"


def header_pairs(headers: Any) -> list[tuple[str, bytes | None]]:
    """Return the names and values of headers."""
    if headers is None:
        return []
    if isinstance(headers, (str, bytes)) or not isinstance(headers, Iterable):
        raise TypeError("headers must be a mapping, or a sequence of pairs of a name and a value")
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [_header(pair) for pair in pairs]


def _header(pair: object) -> tuple[str, bytes | None]:
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:  # noqa: PLR2004
        raise TypeError(f"a header must be a pair of a name and a value, not {pair!r}")
    name, value = pair
    if isinstance(name, (bytes, bytearray)):
        # As other clients hand them out.
        try:
            name = name.decode()
        except UnicodeDecodeError:
            raise ConfigError(
                f"the name of a header must be UTF-8, which {name!r} is not"
            ) from None
    if not isinstance(name, str):
        raise TypeError(f"the name of a header must be a str, not {type(name).__name__}: {name!r}")
    return (name, part_bytes(value, f"header {name!r}"))
