"""Columns of Python objects are written exactly, or refused with the rows that do not agree."""

from __future__ import annotations

import enum
import math
import re
import uuid
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from fractions import Fraction
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ottla
import properties

_numbers = count()
DAY = date(2020, 1, 1)
NOON = datetime(2020, 1, 1, 12)  # noqa: DTZ001
PLUS_TWO = timezone(timedelta(hours=2))
UTC = timezone.utc
NANOSECOND = pd.Timestamp(1, unit="ns")


def frame(values: list[Any], library: str = "pandas") -> Any:
    if library == "polars":
        return pl.DataFrame({"a": pl.Series("a", values, dtype=pl.Object)})
    return pd.DataFrame({"a": pd.Series(values, dtype=object)})


def read(kafka: ottla.Client, data: Any, form: ottla.Format, reader: ottla.Format) -> Any:
    topic = f"objects-{next(_numbers)}"
    kafka.create_topic(topic, partitions=1)
    kafka.write(topic, data, value=form)
    return kafka.scan(topic, value=reader, columns=["a"]).to_pyarrow()["a"]


def written(kafka: ottla.Client, data: Any) -> Any:
    """Return a column as it is read back; Arrow IPC keeps its type."""
    return read(kafka, data, ottla.arrow_ipc(), ottla.arrow_ipc())


REFUSED: list[tuple[list[Any], str]] = [
    ([DAY, NOON], r"row 1 is datetime.datetime\(.*\(datetime\), but row 0 is .*\(date\)"),
    ([None, NOON, DAY], r"row 2 is .*\(date\), but row 1 is .*\(datetime\).*to_datetime"),
    ([b"a", "b"], r"row 1 is 'b' \(str\), but row 0 is b'a' \(bytes\).*ecode"),
    (["b", b"\xff"], r"row 1 is .*\(bytes\), but row 0 is 'b' \(str\)"),
    ([Decimal("NaN"), Decimal(1)], r"row 0 is Decimal\('NaN'\).*finite.*missing.*\.map"),
    ([Decimal(1), Decimal("-Infinity")], r"row 1 is Decimal\('-Infinity'\).*finite"),
    ([Decimal("sNaN")], r"row 0 is Decimal\('sNaN'\).*finite"),
    ([Decimal(1), 1.5], r"row 1 is 1.5 \(float\), but row 0 is .*\(Decimal\)"),
    ([1, Decimal(1), 1.5], r"row 2 is 1.5 \(float\), but row 1 is .*\(Decimal\)"),
    ([Decimal("1e76"), Decimal("0.1")], r"row 0 is .* 77 digits"),
    ([Decimal("1e75"), Decimal("0.01")], r"row 1 is .* 78 digits, 2 of them after the point"),
    ([NOON, NOON.replace(tzinfo=UTC)], r"row 1 .*with a time zone.*row 0 .*without.*utc=True"),
    ([NOON.replace(tzinfo=UTC), NOON], r"row 1 .*without a time zone.*row 0 .*with a time zone"),
    ([True, 2], r"row 1 is 2 \(int\), but row 0 is True \(bool\)"),
    ([np.bool_(True), 1], r"row 1 is 1 \(int\), but row 0 is .*\(bool\)"),
    ([1.5, False], r"row 1 is False \(bool\), but row 0 is 1.5 \(float\)"),
    ([2**53 + 1, 0.5], r"row 0 is 9007199254740993 \(int\).*float.*row 1 is 0.5.*decimal\.Decimal"),
    ([0.5, np.int64(2**53 + 1)], r"row 1 is np\.int64\(9007199254740993\).*row 0 is 0.5"),
    ([0.5, 10**400], r"row 1 is 1000.*… \(int\).*not hold exactly"),
    ([1, 2**64], r"row 1 is 18446744073709551616 \(int\), which does not fit 64 bits"),
    ([2**63, -1], r"row 0 is 9223372036854775808 .*row 1 is -1"),
    ([-(2**63) - 1], r"row 0 is -9223372036854775809 \(int\), which does not fit"),
    (["a", 1], r"row 1 is 1 \(int\), but row 0 is 'a' \(str\)"),
    ([uuid.UUID(int=1), b"a" * 16], r"row 1 is .*\(bytes\), but row 0 is .*\(UUID\)"),
    ([time(1), time(2, tzinfo=UTC)], r"row 1 is .*time of day with a time zone"),
    ([NOON.replace(year=1600), NANOSECOND], r"row 0 is .*beyond .* ns; row 1 is .*which needs"),
    ([timedelta.max, timedelta(1)], r"row 0 is .*beyond Arrow's times in us"),
    ([timedelta(1), np.timedelta64(2**62, "D")], r"row 1 is .*beyond Arrow's times in s"),
    ([np.timedelta64(1, "M")], r"row 0 is .*no fixed length"),
    ([np.datetime64(1, "ps")], r"row 0 is .*below the nanosecond"),
    (["a", "\ud800"], r"row 1 is '\\ud800' \(str\), which has a lone surrogate"),
    ([{1}], r"no type for its values: row 0 is \{1\} \(set\)"),
    ([Fraction(1, 3)], r"row 0 is Fraction\(1, 3\)"),
    ([pd.Period("2020-01")], r"row 0 is Period"),
    ([pd.DateOffset(month=1)], r"row 0 is <DateOffset"),
    ([np.array(1)], r"row 0 is array\(1\) \(ndarray\), an array without dimensions"),
    ([{1: 2}], r"row 0 is \{1: 2\} \(dict\), which has a key that is no text, 1"),
    ([[1], {"b": 1}], r"row 1 is \{'b': 1\} \(dict\), but row 0 is \[1\] \(list\)"),
    ([[1], ["b"]], r"row 1 has 'b' \(str\) at \[\], but row 0 has 1 \(int\) at \[\]"),
    ([[1, "b"]], r"row 0 has 'b' \(str\) at \[\], but row 0 has 1 \(int\) at \[\]"),
    ([{"b": [DAY]}, {"b": [NOON]}], r"row 1 has .*\(datetime\) at \.b\[\].*\(date\) at \.b\[\]"),
    ([[np.array([2**53 + 1])], [np.array([0.5])]], r"row 0 has .*9007199254740993.* at \[\]\[\]"),
    ([[Decimal("NaN")]], r"row 0 has Decimal\('NaN'\) \(Decimal\) at \[\]"),
    ([pa.scalar(1), 2], r"row 1 is 2 \(int\), but row 0 is .*\(Int64Scalar\)"),
    ([pa.scalar(1), pa.scalar(1, pa.int8())], r"row 1 is .*Int8Scalar.*row 0 is .*Int64Scalar"),
]


def titles(cases: list[Any]) -> list[str]:
    """Name cases by their values, in every process alike."""
    return [re.sub(r" at 0x\w+", "", str(values))[:40] for values, _ in cases]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize(("values", "told"), REFUSED, ids=titles(REFUSED))
def test_a_column_without_one_exact_type_is_refused(
    kafka: ottla.Client, name: str, library: str, values: list[Any], told: str
) -> None:
    data = frame(values, library)
    kind = "object in pandas" if library == "pandas" else "Object in polars"
    for form in (ottla.json(), ottla.arrow_ipc()):
        with pytest.raises(ottla.ConfigError, match=f"column 'a' is {kind}: .*{told}") as refused:
            kafka.write(name, data, value=form)
        # Every message says what to do about it.
        assert "df['a']" in str(refused.value) or "leave it out" in str(refused.value)
    with pytest.raises(ottla.ConfigError, match=told):
        kafka.send(name, data, value_format=ottla.arrow_ipc())
    assert name not in kafka.topics()


def test_a_list_that_contains_itself_is_refused(kafka: ottla.Client, name: str) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ottla.ConfigError, match="row 0 is nested more than"):
        kafka.write(name, frame([endless]))


class Grade(enum.IntEnum):
    GOOD = 1


EXACT: list[tuple[list[Any], str]] = [
    ([NANOSECOND, NOON, None], "timestamp[ns]"),
    ([NOON, pd.Timestamp(NOON), np.datetime64(NOON, "s")], "timestamp[us]"),
    ([pd.Timedelta(1, "ns"), timedelta(1), np.timedelta64(2, "D")], "duration[ns]"),
    ([timedelta(days=10**9 - 1, milliseconds=1)], "duration[ms]"),
    ([np.datetime64(DAY), DAY, np.datetime64("NaT")], "date32[day]"),
    ([NOON.replace(tzinfo=PLUS_TWO), NOON.replace(tzinfo=UTC)], "timestamp[us, tz=UTC]"),
    ([NOON.replace(tzinfo=PLUS_TWO)], "timestamp[us, tz=+02:00]"),
    ([pd.Timestamp(NOON, tz="Europe/Prague")], "timestamp[us, tz=Europe/Prague]"),
    ([2**63, 1], "uint64"),
    ([1, None, -(2**63)], "int64"),
    ([Grade.GOOD, 2], "int64"),
    ([1, 2.5, 2**53], "double"),
    ([1.5, 2**70], "double"),
    ([np.float32(0.1), 0.1], "double"),
    ([np.float32(0.1), None], "float"),
    ([np.int8(1), np.int8(-1)], "int8"),
    ([np.bool_(True), False], "bool"),
    ([Decimal("1E+3"), Decimal("0E+9"), Decimal("-0.50"), 7], "decimal128(6, 2)"),
    ([Decimal(10**75)], "decimal256(76, 0)"),
    ([bytearray(b"a"), memoryview(b"b"), b"c"], "binary"),
    ([time(1, 2, 3, 4)], "time64[us]"),
    ([uuid.UUID(int=1), None], "extension<arrow.uuid>"),
    ([(1, 2), [3], np.array([4]), None], "list<item: int64>"),
    ([np.array([1.5, np.nan]), np.array([])], "list<item: double>"),
    ([np.array([[1], [2]])], "list<item: list<item: int64>>"),
    ([{"b": 1}, {"c": [uuid.UUID(int=1)]}, None], "struct"),
    ([{}, None], "struct<>"),
    ([pa.scalar(1), None], "int64"),
    ([pa.MonthDayNano((1, 2, 3))], "month_day_nano_interval"),
    ([[math.nan, 1.5]], "list<item: double>"),
]


@pytest.mark.parametrize("library", ["pandas", "polars"])
@pytest.mark.parametrize(("values", "kind"), EXACT, ids=titles(EXACT))
def test_a_column_with_one_exact_type_is_written(
    kafka: ottla.Client, library: str, values: list[Any], kind: str
) -> None:
    found = written(kafka, frame(values, library))
    assert str(found.type).startswith(kind)
    assert_same(found, values, library)


def test_a_time_that_microseconds_do_not_reach_keeps_its_seconds(kafka: ottla.Client) -> None:
    found = written(kafka, frame([np.datetime64(2**62, "s"), np.datetime64(1, "s"), None]))
    assert found.type == pa.timestamp("s")
    assert found.cast(pa.int64()).to_pylist() == [2**62, 1, None]


def test_nan_is_missing_in_a_column_of_pandas_and_nowhere_else(kafka: ottla.Client) -> None:
    assert written(kafka, frame(["a", math.nan, None])).to_pylist() == ["a", None, None]
    assert written(kafka, frame([1, np.float32("nan"), pd.NA])).to_pylist() == [1, None, None]
    with pytest.raises(ottla.ConfigError, match=r"row 1 is nan \(float\), but row 0 is 'a'"):
        written(kafka, frame(["a", math.nan], "polars"))
    with pytest.raises(ottla.ConfigError, match="NaN"):
        read(kafka, frame([[math.nan, 1.5]]), ottla.json(), ottla.json())


def test_categories_and_index_levels_are_treated_as_columns(kafka: ottla.Client) -> None:
    days = pd.Categorical([DAY, None, DAY])
    found = written(kafka, pd.DataFrame({"a": days}))
    assert pa.types.is_dictionary(found.type)
    assert found.to_pylist() == [DAY, None, DAY]
    mixed = pd.Categorical([NOON, DAY], categories=pd.Index([DAY, NOON], dtype=object))
    with pytest.raises(ottla.ConfigError, match=r"categories of objects.*row 1 .*\(date\)"):
        written(kafka, pd.DataFrame({"a": mixed}))
    unused = pd.Categorical([DAY], categories=pd.Index([DAY, NOON], dtype=object))
    with pytest.raises(ottla.ConfigError, match="categories of objects"):
        written(kafka, pd.DataFrame({"a": unused}))
    level = pd.DataFrame({"n": [1, 2]}, index=pd.Index([DAY, NOON], dtype=object, name="a"))
    with pytest.raises(ottla.ConfigError, match=r"column 'a' is object.*row 1"):
        written(kafka, level)


def test_columns_keep_their_order_and_names(kafka: ottla.Client, name: str) -> None:
    data = pd.DataFrame(
        {
            ("x", 1): pd.Series([1, 2]),
            7: pd.Series(["a", None], dtype=object),
            "b": pd.Series([1.5, 2.5]),
            "": pd.Series([DAY, None], dtype=object),
        }
    )
    data.columns = pd.Index([("x", 1), 7, "b", ""], dtype=object, tupleize_cols=False)
    kafka.write(name, data, value=ottla.json())
    found = kafka.scan(name, value=ottla.text(), columns=["value"]).to_pyarrow()
    assert sorted(found["value"].to_pylist()) == [
        """{"('x', '1')":1,"7":"a","b":1.5,"":"2020-01-01"}""",
        """{"('x', '1')":2,"7":null,"b":2.5,"":null}""",
    ]


# The property: whatever objects a column has, they come back equal, or the column is refused.

ZONES: list[tzinfo] = [UTC, PLUS_TWO, ZoneInfo("Europe/Prague"), timezone(timedelta(seconds=61))]
NUMBERS = st.one_of(
    st.booleans(),
    st.integers(-(2**65), 2**65),
    st.integers(2**53 - 2, 2**53 + 2),
    st.floats(),
    st.decimals(),
    st.builds(np.int64, st.integers(-(2**63), 2**63 - 1)),
    st.builds(np.uint64, st.integers(0, 2**64 - 1)),
    st.builds(np.float32, st.floats(width=32)),
)
MOMENTS = st.one_of(
    st.dates(),
    st.datetimes(),
    st.datetimes(timezones=st.sampled_from(ZONES)),
    st.builds(lambda number: pd.Timestamp(number, unit="ns"), st.integers(-(2**62), 2**62)),
    st.builds(lambda number: np.datetime64(number, "ns"), st.integers(-(2**63) + 1, 2**63 - 1)),
    st.builds(lambda number: np.datetime64(number, "D"), st.integers(-(2**33), 2**33)),
    st.times(timezones=st.none() | st.just(UTC)),
    st.timedeltas(),
    st.builds(lambda number: np.timedelta64(number, "us"), st.integers(-(2**63) + 1, 2**63 - 1)),
    st.builds(lambda number: pd.Timedelta(number, "ns"), st.integers(-(2**62), 2**62)),
)
TEXTS = st.one_of(st.text(max_size=3), st.binary(max_size=3), st.uuids(), st.just("\ud800"))
NOTHING = st.sampled_from([None, pd.NA, pd.NaT, math.nan, np.datetime64("NaT")])
#: Kinds that may be taken for each other.
FAMILIES: dict[str, list[st.SearchStrategy[Any]]] = {
    "numbers": [
        st.integers(2**53, 2**53 + 3),
        st.builds(np.int64, st.integers(2**53, 2**53 + 3)),
        st.floats(-9, 9),
        st.floats(),
    ],
    "decimals": [
        st.integers(-9, 9),
        st.decimals(places=2, min_value=-99, max_value=99),
        st.decimals(),
        st.floats(-9, 9),
    ],
    "moments": [
        st.dates(),
        st.datetimes(),
        st.datetimes(timezones=st.sampled_from(ZONES)),
        st.builds(pd.Timestamp, st.integers(-(2**62), 2**62)),
    ],
    "texts": [st.text(max_size=3), TEXTS, st.binary(max_size=3)],
    "arrays": [
        st.lists(st.floats(), max_size=2).map(np.array),
        st.lists(st.integers(2**53, 2**53 + 3), max_size=2).map(np.array),
        st.lists(st.floats(-9, 9), max_size=2),
    ],
    "everything": [NUMBERS, MOMENTS, TEXTS],
}


def objects(simple: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    keys = st.sampled_from(["x", "y", 'z"'])
    return st.recursive(
        simple,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(keys, inner, max_size=2),
            st.tuples(inner),
        ),
        max_leaves=4,
    )


@st.composite
def columns(draw: st.DrawFn, family: list[st.SearchStrategy[Any]]) -> list[Any]:
    few = [draw(st.sampled_from(family)), draw(st.sampled_from(family))]
    few += draw(st.sampled_from([[], [], [NOTHING]]))
    made = objects(st.one_of(few)) if draw(st.booleans()) else st.one_of(few)
    return draw(st.lists(made, min_size=2, max_size=5))


def is_missing(value: Any) -> bool:
    return (
        value is None
        or value is pd.NA
        or value is pd.NaT
        or (isinstance(value, (np.datetime64, np.timedelta64)) and bool(np.isnat(value)))
    )


def assert_equal(found: Any, given: Any, is_missing_nan: bool = False) -> None:
    """Compare what was read with what was written, without any of the code that wrote it."""
    if isinstance(given, (list, tuple, np.ndarray)) and not isinstance(given, pa.MonthDayNano):
        assert isinstance(found, list)
        assert len(found) == len(given)
        for one, other in zip(found, given, strict=True):
            assert_equal(one, other)
    elif isinstance(given, Mapping):
        assert set(given) <= set(found)
        for name in found:
            assert_equal(found[name], given.get(name))
    elif is_missing(given):
        assert found is None
    elif isinstance(given, (bytearray, memoryview)):
        assert found == bytes(given)
    elif isinstance(given, pa.Scalar):
        assert found == given.as_py()
    elif isinstance(given, (float, np.floating)) and math.isnan(given):
        # For pandas, the value of a row that is missing.
        assert found is None if is_missing_nan else math.isnan(found)
    else:
        assert_same_scalar(found, given)


def assert_same(found: Any, given: list[Any], library: str) -> None:
    rows = found.to_pylist()
    assert len(rows) == len(given)
    for one, other in zip(rows, given, strict=True):
        assert_equal(one, other, is_missing_nan=library == "pandas")


def nanoseconds(value: Any) -> int:
    """The nanoseconds of a moment in UTC, or of a span."""
    if isinstance(value, (np.datetime64, np.timedelta64)):
        unit, _ = np.datetime_data(value.dtype)
        rates = {"D": 86_400 * 10**9, "s": 10**9, "us": 1000, "ns": 1}
        return int(value.astype("int64")) * rates[unit]
    if isinstance(value, (pd.Timestamp, pd.Timedelta)):
        rates = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}
        return int(value.asm8.astype("int64")) * rates[value.unit]
    if isinstance(value, timedelta):
        return int(value // timedelta(microseconds=1)) * 1000
    epoch = datetime(1970, 1, 1, tzinfo=None if value.tzinfo is None else UTC)
    return int((value - epoch) // timedelta(microseconds=1)) * 1000


def assert_same_scalar(found: Any, given: Any) -> None:
    times = (datetime, timedelta, np.datetime64, np.timedelta64)
    is_day = isinstance(given, np.datetime64) and np.datetime_data(given.dtype)[0] == "D"
    if is_day and type(found) is date:
        assert found == given.item()
    elif isinstance(given, times):
        assert isinstance(found, times)
        spans = (timedelta, np.timedelta64)
        assert isinstance(found, spans) == isinstance(given, spans)
        assert nanoseconds(found) == nanoseconds(given)
        zoned = [getattr(one, "tzinfo", None) is not None for one in (found, given)]
        assert zoned[0] == zoned[1]
    elif isinstance(given, (bool, np.bool_)):
        assert found is bool(given)
    elif isinstance(given, (int, np.integer)):
        assert not isinstance(found, (bool, str))
        assert found == int(given)
    elif isinstance(given, (float, np.floating)):
        assert type(found) is float
        assert found == float(given)
        assert math.copysign(1, found) == math.copysign(1, given)
    else:
        assert type(found) is type(given)
        assert found == given


@pytest.mark.parametrize("family", FAMILIES)
@settings(properties.SLOW, max_examples=80)
@given(drawn=st.data(), library=st.sampled_from(["pandas", "polars"]))
def test_objects_come_back_equal_or_are_refused(
    kafka: ottla.Client, family: str, drawn: st.DataObject, library: str
) -> None:
    values = drawn.draw(columns(FAMILIES[family]))
    data = frame(values, library)
    try:
        found = written(kafka, data)
    except ottla.ConfigError as refused:
        assert "column 'a'" in str(refused)  # noqa: PT017 - not every example is refused.
        assert "row" in str(refused)  # noqa: PT017
        return
    assert_same(found, values, library)
    # JSON carries the same, but for NaN and infinities, which it refuses.
    kind = found.type.storage_type if isinstance(found.type, pa.BaseExtensionType) else found.type
    try:
        again = read(kafka, data, ottla.json(), ottla.json(pa.schema([("a", kind)])))
    except ottla.ConfigError as refused:
        assert "JSON has no" in str(refused)  # noqa: PT017
        return
    if kind == found.type:
        assert_same(again, values, library)
