"""Columns of Python objects as Arrow arrays that keep every value, or a refusal.

Arrow libraries choose a type for such a column by its first values and convert the others to it:
they cut a time to its date, nanoseconds to microseconds, and take NaN for null. Here a type holds
all values exactly, or the column is refused, with the row and what does not go with what. Values
inside lists and dictionaries are treated in the same way, as columns of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, Any
from uuid import UUID

from ottla._imported import imported
from ottla._moments import datetimes, durations
from ottla._values import shown

if TYPE_CHECKING:
    from ottla._values import Values
    from ottla.errors import ConfigError

__all__ = ["array_of"]

_INT64 = range(-(2**63), 2**63)
_UINT64 = range(2**64)
_DECIMAL_DIGITS_MAX = 76
#: Kinds of values that one type can hold together: the kind that then counts.
_TOGETHER = {frozenset({"int", "float"}): "float", frozenset({"int", "decimal"}): "decimal"}


def array_of(found: Values) -> Any:
    """Return the Arrow array of values.

    Raises
    ------
    ConfigError
        When no type of Arrow holds all of them exactly.
    """
    import pyarrow as pa

    found = _without_missing(found)
    types = set(map(type, found.values)) - {type(None)}
    kinds = {_kind_of(one) or "" for one in types}
    if "" in kinds:
        unknown = next(
            at
            for at, value in enumerate(found.values)
            if value is not None and _kind_of(type(value)) is None
        )
        raise _unknown(found, unknown)
    if not kinds:
        return pa.nulls(len(found.values))
    kind = kinds.pop() if len(kinds) == 1 else _TOGETHER.get(frozenset(kinds))
    if kind is None:
        raise _mixed(found)
    if kind in {"bool", "int", "float"} and len(types) == 1:
        numpy = imported("numpy")
        one = next(iter(types))
        if numpy is not None and issubclass(one, numpy.generic) and one is not numpy.longdouble:
            values = [None if value is None else value.item() for value in found.values]
            return pa.array(values, pa.from_numpy_dtype(numpy.dtype(one)), from_pandas=False)
    return _MAKERS[kind](found)


def _kind_of(kind: type) -> str | None:
    """Return the kind of the values of a type; none when Arrow has nothing for them."""
    arrow, numpy = imported("pyarrow"), imported("numpy")
    if arrow is not None and issubclass(kind, (arrow.Scalar, arrow.MonthDayNano)):
        # The latter is a tuple, too.
        return "scalar" if issubclass(kind, arrow.Scalar) else "interval"
    if numpy is not None and issubclass(kind, numpy.generic):
        # Of numpy, times of a span are a kind of integers.
        if issubclass(kind, numpy.timedelta64):
            return "duration"
        for base, name in (
            (numpy.bool_, "bool"),
            (numpy.integer, "int"),
            (numpy.floating, "float"),
            (numpy.datetime64, "datetime"),
        ):
            if issubclass(kind, base):
                return name
    elif numpy is not None and issubclass(kind, numpy.ndarray):
        return "list"
    return next((name for base, name in _KINDS if issubclass(kind, base)), None)


#: Kinds of values by their types; the first that fits.
_KINDS: list[tuple[type, str]] = [
    (bool, "bool"),
    (int, "int"),
    (float, "float"),
    (str, "text"),
    (bytes, "bytes"),
    (bytearray, "bytes"),
    (memoryview, "bytes"),
    (datetime, "datetime"),
    (date, "date"),
    (timedelta, "duration"),
    (time, "time"),
    (Decimal, "decimal"),
    (UUID, "uuid"),
    (Mapping, "dict"),
    (list, "list"),
    (tuple, "list"),
]


def _without_missing(found: Values) -> Values:
    """Replace what pandas and numpy have for a value that is missing, and days of numpy."""
    types = set(map(type, found.values))
    pandas, numpy = imported("pandas"), imported("numpy")
    missing = () if pandas is None else (type(pandas.NA), type(pandas.NaT))
    times = () if numpy is None else (numpy.datetime64, numpy.timedelta64)
    if not any(issubclass(one, (*missing, *times)) for one in types):
        return found

    def plain(value: Any) -> Any:
        if isinstance(value, missing) or (isinstance(value, times) and numpy.isnat(value)):
            return None
        if isinstance(value, times) and numpy.datetime_data(value.dtype)[0] in {"Y", "M", "W", "D"}:
            # Dates, if Python has them; spans of years and months remain integers.
            item = value.item()
            return item if isinstance(item, date) else value
        return value

    return found._replace(values=[plain(value) for value in found.values])


def _unknown(found: Values, at: int) -> ConfigError:
    before = {type(value).__name__ for value in found.values[:at] if value is not None}
    others = f", but those before it are {', '.join(sorted(before))}" if before else ""
    return found.refusal(f"Arrow has no type for its values: {found.at(at)}{others}")


#: What helps with two kinds of values; the column stands for the braces.
_REMEDIES = {
    frozenset({"date", "datetime"}): "Make times of the dates, with pandas.to_datetime({})",
    frozenset({"bytes", "text"}): "Decode the bytes, or encode the texts, so that all are the same",
    frozenset({"float", "decimal"}): "Make decimals of all, or floats, with {}.astype(float)",
}


def _two(found: Values, first: int, second: int, kinds: frozenset[str]) -> ConfigError:
    remedy = _REMEDIES.get(kinds, "").format(found.column.expression)
    return found.disagreement(first, second, remedy=f"{remedy}, or leave it out" if remedy else "")


def _mixed(found: Values) -> ConfigError:
    """Refuse values of two kinds, by the first of the one that comes second."""
    first: tuple[int, str] | None = None
    for at, value in enumerate(found.values):
        if value is None:
            continue
        kind = _kind_of(type(value)) or ""
        if first is None:
            first = (at, kind)
        elif kind != first[1] and frozenset({kind, first[1]}) not in _TOGETHER:
            return _two(found, first[0], at, frozenset({kind, first[1]}))
    # Integers go with each of two kinds that do not go with each other.
    place: dict[str, int] = {}
    for at, value in enumerate(found.values):
        if value is not None:
            place.setdefault(_kind_of(type(value)) or "", at)
    one, other = sorted(at for kind, at in place.items() if kind != "int")[:2]
    return _two(found, one, other, frozenset(place) - {"int"})


# Arrays of one kind of values each.


def _bools(found: Values) -> Any:
    import pyarrow as pa

    return pa.array([None if one is None else bool(one) for one in found.values], pa.bool_())


def _ints(found: Values) -> Any:
    import pyarrow as pa

    values = [None if one is None else int(one) for one in found.values]
    numbers = [one for one in values if one is not None]
    low, high = min(numbers), max(numbers)
    if low in _INT64 and high in _INT64:
        return pa.array(values, pa.int64())
    if low >= 0 and high in _UINT64:
        return pa.array(values, pa.uint64())
    extreme = values.index(high if high not in _INT64 else low)
    expression = found.column.expression
    raise found.out_of_range(
        extreme,
        "which does not fit 64 bits"
        if high not in _UINT64 or low not in _INT64
        else "which does not fit 64 bits with a sign, but "
        f"{found.at(values.index(low))}, which has one",
        f"Make decimals of the integers, with {expression}.map(decimal.Decimal), or texts, with "
        f"{expression}.astype(str)",
    )


def _floats(found: Values) -> Any:
    import pyarrow as pa

    def exact(value: Any) -> float | None:
        """Return the float that is equal, if there is one."""
        if _kind_of(type(value)) == "int":
            # numpy compares its integers with floats as floats.
            value = int(value)
        try:
            number = float(value)
        except OverflowError:
            return None
        # NaN is not equal to itself.
        return number if number == value or value != value else None  # noqa: PLR0124

    if set(map(type, found.values)) <= {float, type(None)}:
        return pa.array(found.values, pa.float64(), from_pandas=False)
    values: list[float | None] = []
    for at, value in enumerate(found.values):
        number = None if value is None else exact(value)
        if value is not None and number is None:
            is_float = [_kind_of(type(one)) == "float" for one in found.values]
            other = next(place for place, floating in enumerate(is_float) if floating)
            floats = f", but {found.at(other)}" if other != at else ""
            expression = found.column.expression
            raise found.out_of_range(
                at,
                f"which a float of 64 bits does not hold exactly{floats}",
                f"Make decimals of all, with {expression}.map(decimal.Decimal), or texts, with "
                f"{expression}.astype(str)",
            )
        values.append(number)
    return pa.array(values, pa.float64(), from_pandas=False)


def _decimals(found: Values) -> Any:
    import pyarrow as pa

    values: list[Decimal | None] = []
    whole, scale = 0, 0
    for at, value in enumerate(found.values):
        if value is None:
            values.append(None)
            continue
        if isinstance(value, Decimal) and not value.is_finite():
            missing = ", which is not the same as a missing value" if value.is_nan() else ""
            raise found.out_of_range(
                at,
                f"and decimals of Arrow are finite{missing}",
                f"Replace it, for example with {found.column.expression}.map(lambda one: one if "
                "one is None or one.is_finite() else None)",
            )
        number = Decimal(int(value)) if not isinstance(value, Decimal) else value
        _sign, digits, power = number.as_tuple()
        exponent = int(power)
        if not number:
            # Of a zero, digits before the point do not count.
            number, digits, exponent = Decimal((0, (0,), min(exponent, 0))), (), min(exponent, 0)
        whole, scale = max(whole, len(digits) + exponent), max(scale, -exponent)
        if whole + scale > _DECIMAL_DIGITS_MAX:
            raise found.out_of_range(
                at,
                f"with which the column needs decimals of {whole + scale} digits, {scale} of them "
                f"after the point; Arrow has {_DECIMAL_DIGITS_MAX} at most",
            )
        values.append(number)
    precision = max(whole + scale, 1)
    make = pa.decimal128 if precision <= 38 else pa.decimal256  # noqa: PLR2004
    return pa.array(values, make(precision, scale))


def _texts(found: Values) -> Any:
    import pyarrow as pa

    try:
        return _of_any_size(found.values, pa.string(), pa.large_string())
    except UnicodeEncodeError as error:
        for at, value in enumerate(found.values):
            if any("\ud800" <= one <= "\udfff" for one in value or ""):
                raise found.out_of_range(
                    at, "which has a lone surrogate that UTF-8 cannot represent"
                ) from error
        raise


def _bytes(found: Values) -> Any:
    import pyarrow as pa

    values = [None if one is None else bytes(one) for one in found.values]
    return _of_any_size(values, pa.binary(), pa.large_binary())


def _of_any_size(values: list[Any], kind: Any, large: Any) -> Any:
    """Return an array with offsets of 32 bits, or of 64 where these are too small."""
    import pyarrow as pa

    made = pa.array(values, kind)
    return pa.array(values, large) if isinstance(made, pa.ChunkedArray) else made


def _dates(found: Values) -> Any:
    import pyarrow as pa

    return pa.array(found.values, pa.date32())


def _times(found: Values) -> Any:
    import pyarrow as pa

    for at, value in enumerate(found.values):
        if value is not None and value.tzinfo is not None:
            raise found.out_of_range(
                at, "a time of day with a time zone, which would be lost: remove its tzinfo"
            )
    return pa.array(found.values, pa.time64("us"))


def _uuids(found: Values) -> Any:
    import pyarrow as pa

    if not hasattr(pa, "uuid"):
        # An older pyarrow; the text is what the formats make of a UUID.
        return pa.array([None if one is None else str(one) for one in found.values], pa.string())
    values = [None if one is None else one.bytes for one in found.values]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


def _lists(found: Values) -> Any:
    import pyarrow as pa

    numpy = imported("numpy")
    given = [value for value in found.values if value is not None]
    if numpy is not None:
        for at, value in enumerate(found.values):
            if isinstance(value, numpy.ndarray) and value.ndim == 0:
                raise found.out_of_range(at, "an array without dimensions")
    lengths = [0 if value is None else len(value) for value in found.values]
    dtype = _common_dtype(given, numpy)
    if dtype is not None:
        items = pa.array(numpy.concatenate(given), pa.from_numpy_dtype(dtype), from_pandas=False)
    else:
        flat = [item for value in given for item in value]
        rows = [row for row, size in zip(found.rows, lengths, strict=True) for _ in range(size)]
        items = array_of(found.inside(flat, rows, "[]")) if flat else pa.nulls(0)
    ends = [0, *accumulate(lengths)]
    is_large = ends[-1] not in range(2**31)
    offsets = pa.array(ends, pa.int64() if is_large else pa.int32())
    make = (pa.LargeListArray if is_large else pa.ListArray).from_arrays
    return make(offsets, items, mask=pa.array([value is None for value in found.values]))


def _common_dtype(given: list[Any], numpy: Any) -> Any:
    """Return the type of arrays of numpy that can be joined as they are."""
    if numpy is None or set(map(type, given)) != {numpy.ndarray}:
        return None
    dtypes = {value.dtype for value in given}
    if len(dtypes) > 1 or any(value.ndim != 1 for value in given):
        return None
    dtype = dtypes.pop()
    is_plain = dtype.kind in "biuf" and dtype.itemsize <= 8 and dtype.isnative  # noqa: PLR2004
    return dtype if is_plain else None


def _dicts(found: Values) -> Any:
    import pyarrow as pa

    names: dict[str, None] = {}
    for at, value in enumerate(found.values):
        for name in value or ():
            if not isinstance(name, str):
                raise found.out_of_range(at, f"which has a key that is no text, {shown(name)}")
            names[str(name)] = None
    mask = pa.array([value is None for value in found.values])
    if not names:
        return pa.array([None if one is None else {} for one in found.values], pa.struct([]))
    members = [
        array_of(
            found.inside(
                [None if value is None else value.get(name) for value in found.values],
                found.rows,
                f".{name}",
            )
        )
        for name in names
    ]
    fields = [pa.field(name, one.type) for name, one in zip(names, members, strict=True)]
    return pa.StructArray.from_arrays(members, fields=fields, mask=mask)


def _intervals(found: Values) -> Any:
    import pyarrow as pa

    return pa.array(found.values, pa.month_day_nano_interval())


def _scalars(found: Values) -> Any:
    """Return an array of scalars of pyarrow, which know their type."""
    import pyarrow as pa

    first = next(at for at, value in enumerate(found.values) if value is not None)
    kind = found.values[first].type
    for at, value in enumerate(found.values):
        if value is not None and value.type != kind:
            raise found.disagreement(first, at)
    made = pa.array([one for one in found.values if one is not None], kind)
    # A null of Python is not taken among them.
    places = accumulate(one is not None for one in found.values)
    taken = [None if one is None else n - 1 for one, n in zip(found.values, places, strict=True)]
    return made.take(pa.array(taken, pa.int64()))


_MAKERS = {
    "bool": _bools,
    "int": _ints,
    "float": _floats,
    "decimal": _decimals,
    "text": _texts,
    "bytes": _bytes,
    "date": _dates,
    "time": _times,
    "datetime": datetimes,
    "duration": durations,
    "uuid": _uuids,
    "interval": _intervals,
    "scalar": _scalars,
    "list": _lists,
    "dict": _dicts,
}
