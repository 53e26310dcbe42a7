"""JSON, by property: what is written comes back equal, and any JSON text is read or is an error.

Tables of every Arrow type that the manual's page on types says JSON carries are made by
hypothesis; random JSON documents are read by Python's ``json`` and by a scan.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from decimal import Context, Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator

_topics = itertools.count()
UTC = dt.timezone.utc
SLOW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.fixture(scope="module")
def shared() -> Iterator[ottla.Client]:
    """A client for all examples of a property."""
    with ottla.Broker() as broker, broker.client() as client:
        yield client


def topic() -> str:
    """Return the name of a new topic."""
    return f"json-{next(_topics)}"


# --- tables --------------------------------------------------------------------------------------

BITS = (8, 16, 32, 64)
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def numbers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    """All integers of a size, extremes among them."""
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.integers(low, high) | st.sampled_from([low, high, 0])


def decimals(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """All decimals of a type."""
    most = 10**precision - 1
    context = Context(prec=80)
    unscaled = st.integers(-most, most) | st.sampled_from([-most, most, 0])
    return unscaled.map(lambda one: Decimal(one).scaleb(-scale, context))


def of_numbers(kind: pa.DataType, bits: int = 64) -> tuple[pa.DataType, Any]:
    """A type whose values are made from those of integers."""
    return kind, numbers(bits, True)


SIMPLE: list[tuple[pa.DataType, Any]] = [
    (pa.null(), st.none()),
    (pa.bool_(), st.booleans()),
    *((getattr(pa, f"int{bits}")(), numbers(bits, True)) for bits in BITS),
    *((getattr(pa, f"uint{bits}")(), numbers(bits, False)) for bits in BITS),
    (pa.float16(), st.floats(width=16, allow_nan=False, allow_infinity=False)),
    (pa.float32(), st.floats(width=32, allow_nan=False, allow_infinity=False)),
    (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
    (pa.decimal32(9, 2), decimals(9, 2)),
    (pa.decimal64(18, 18), decimals(18, 18)),
    (pa.decimal128(38, 10), decimals(38, 10)),
    (pa.decimal256(76, 0), decimals(76, 0)),
    (pa.string(), TEXT),
    (pa.large_string(), TEXT),
    (pa.string_view(), TEXT),
    (pa.binary(), st.binary(max_size=20)),
    (pa.large_binary(), st.binary(max_size=20)),
    (pa.binary_view(), st.binary(max_size=20)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    of_numbers(pa.date32(), 32),
    (pa.date64(), st.integers(-(10**8), 10**8).map(lambda days: days * 86_400_000)),
    *(of_numbers(pa.timestamp(unit)) for unit in UNITS),
    of_numbers(pa.timestamp("us", "Europe/Prague")),
    *(
        (
            getattr(pa, f"time{32 if unit in {'s', 'ms'} else 64}")(unit),
            st.integers(0, 86_400 * rate - 1),
        )
        for unit, rate in UNITS.items()
    ),
    *(of_numbers(pa.duration(unit)) for unit in UNITS),
    (pa.dictionary(pa.int8(), pa.string()), TEXT),
    (pa.dictionary(pa.int32(), pa.int64()), numbers(64, True)),
]


def array(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """An array of values, times by their numbers."""
    if pa.types.is_temporal(kind):
        bits = pa.int32() if kind.bit_width == 32 else pa.int64()
        return pa.array(values, bits).view(kind)
    if pa.types.is_dictionary(kind):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if pa.types.is_float16(kind):
        return pa.array(values, pa.float32()).cast(kind)
    return pa.array(values, kind)


def column_of(kind: pa.DataType, values: Any, rows: int) -> st.SearchStrategy[pa.Array]:
    """Columns of a type, nulls among them."""
    lists = st.lists(st.none() | values, min_size=rows, max_size=rows)
    return lists.map(lambda made: array(kind, made))


def nested(inner: pa.DataType, values: Any, rows: int) -> st.SearchStrategy[pa.Array]:
    """Lists, maps and structs of a type."""

    @st.composite
    def build(draw: st.DrawFn) -> pa.Array:
        shape = draw(st.sampled_from(["list", "large_list", "fixed", "struct", "map"]))
        sizes = draw(st.lists(st.none() | st.integers(0, 3), min_size=rows, max_size=rows))
        if shape == "fixed":
            sizes = [2] * rows
        total = rows if shape == "struct" else sum(size or 0 for size in sizes)
        items = draw(column_of(inner, values, total))
        mask = pa.array([size is None for size in sizes], pa.bool_())
        ends = [0, *itertools.accumulate(size or 0 for size in sizes)]
        if shape == "struct":
            one = pa.StructArray.from_arrays([items, items], names=["x", 'y "z"'], mask=mask)
        elif shape == "fixed":
            one = pa.FixedSizeListArray.from_arrays(items, 2)
        elif shape == "map":
            keys = pa.array([f"k{number}" for number in range(total)], pa.string())
            kind = pa.map_(pa.string(), inner)
            one = pa.MapArray.from_arrays(pa.array(ends, pa.int32()), keys, items, type=kind)
        else:
            large = shape == "large_list"
            made = (pa.LargeListArray if large else pa.ListArray).from_arrays
            one = made(pa.array(ends, pa.int64() if large else pa.int32()), items, mask=mask)
        return one

    return build()


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Tables of some columns, in chunks."""
    rows = draw(st.integers(0, 8))
    kinds = draw(st.lists(st.sampled_from(SIMPLE), min_size=1, max_size=5))
    columns = []
    for kind, values in kinds:
        deep = draw(st.booleans())
        columns.append(draw((nested if deep else column_of)(kind, values, rows)))
    table = pa.table({f"c{number}": one for number, one in enumerate(columns)})
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table[:cut], table[cut:]])


def same(found: pa.Table, expected: pa.Table) -> None:
    """Compare tables; dictionaries by their values, for their order is not kept."""
    assert found.num_rows == expected.num_rows
    for name in expected.column_names:
        one, other = found[name], expected[name]
        assert one.type == other.type, name
        if pa.types.is_dictionary(other.type):
            one, other = one.cast(other.type.value_type), other.cast(other.type.value_type)
        plain = [chunked.combine_chunks() for chunked in (one, other)]
        shown = [_numbers(part).to_pylist() for part in plain]
        assert shown[0] == shown[1], (name, other.type)


def _numbers(one: Any) -> Any:
    """Times as numbers, since Python has no object for all of them; also inside of others."""
    kind = one.type
    if pa.types.is_temporal(kind):
        return one.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    if pa.types.is_dictionary(kind):
        return one.cast(kind.value_type)
    if pa.types.is_struct(kind):
        fields = [_numbers(part) for part in one.flatten()]
        names = [f"f{number}" for number in range(len(fields))]
        return pa.StructArray.from_arrays(fields, names=names, mask=one.is_null())
    if pa.types.is_map(kind):
        ends = [0, *itertools.accumulate(len(row.as_py() or []) for row in _lengths(one))]
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), _numbers(_items(one)))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        ends = [0, *itertools.accumulate(_sizes(one))]
        return pa.ListArray.from_arrays(
            pa.array(ends, pa.int32()), _numbers(one.flatten()), mask=one.is_null()
        )
    return one


def _sizes(one: Any) -> list[int]:
    import pyarrow.compute as pc

    return [size or 0 for size in pc.list_value_length(one).to_pylist()]


def _lengths(one: Any) -> Any:
    keys = pa.ListArray.from_arrays(one.offsets, one.keys)
    return list(keys)


def _items(one: Any) -> Any:
    first, last = one.offsets[0].as_py(), one.offsets[len(one)].as_py()
    return one.items[first:last]


@SLOW
@given(tables())
def test_every_type_that_json_carries_comes_back_equal(
    shared: ottla.Client, table: pa.Table
) -> None:
    name = topic()
    shared.create_topic(name)
    shared.write(name, table, value=ottla.json())
    columns = table.column_names
    scan = shared.scan(name, value=ottla.json(table.schema), columns=columns)
    same(scan.to_pyarrow(string_view=True), table)


#: What is inferred from the JSON of a type, where all values fit it.
INFERRED = [
    (pa.bool_(), st.booleans(), "bool"),
    (pa.int64(), numbers(64, True), "int64"),
    (pa.uint64(), numbers(64, False) | st.just(2**64 - 1), "uint64"),
    (pa.float64(), st.floats(allow_nan=False, allow_infinity=False), "float64"),
    (pa.string(), TEXT, "string_view"),
]


@SLOW
@given(st.data())
def test_what_is_inferred_comes_back_equal(shared: ottla.Client, data: st.DataObject) -> None:
    columns, wanted = {}, {}
    for number, (_kind, values, inferred) in enumerate(INFERRED):
        made = data.draw(st.lists(values, min_size=1, max_size=4))
        if inferred == "uint64":
            made[0] = 2**64 - 1
        columns[f"c{number}"] = (made * 4)[:4]
        wanted[f"c{number}"] = inferred
    kinds = {f"c{number}": kind for number, (kind, _, _) in enumerate(INFERRED)}
    table = pa.table(columns, pa.schema(kinds))
    for source in (table, pl.from_arrow(table), table.to_pandas()):
        name = topic()
        shared.create_topic(name)
        shared.write(name, source, value=ottla.json())
        scan = shared.scan(name, value=ottla.json(), columns=[*columns])
        assert scan.schema == wanted
        assert scan.to_pyarrow().cast(table.schema).equals(table)


@SLOW
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "n": st.none() | numbers(64, True),
                "u": st.none() | numbers(64, False),
                "f": st.floats(allow_nan=False, allow_infinity=False),
                "s": st.none() | TEXT,
                "c": st.sampled_from(["red", "green", "blue"]),
                "at": st.datetimes(),
                "d": st.none() | st.dates(),
                "t": st.none() | st.times(),
                "td": st.none()
                | st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)),
                "l": st.lists(st.none() | TEXT, max_size=3),
                "o": st.fixed_dictionaries({"x": st.booleans()}),
            }
        ),
        min_size=1,
        max_size=5,
    )
)
def test_frames_of_polars_come_back_by_their_own_schema(
    shared: ottla.Client, rows: list[dict[str, Any]]
) -> None:
    frame = pl.DataFrame(
        rows,
        schema={
            "n": pl.Int64,
            "u": pl.UInt64,
            "f": pl.Float64,
            "s": pl.String,
            "c": pl.Categorical,
            "at": pl.Datetime("us"),
            "d": pl.Date,
            "t": pl.Time,
            "td": pl.Duration("us"),
            "l": pl.List(pl.String),
            "o": pl.Struct({"x": pl.Boolean}),
        },
    )
    name = topic()
    shared.create_topic(name)
    shared.write(name, frame, value=ottla.json())
    found = shared.scan(name, value=frame.schema, columns=frame.columns).to_polars()
    assert found.schema == frame.schema
    assert found.rows() == frame.rows()


def test_frames_of_pandas_come_back_by_their_own_dtypes(shared: ottla.Client) -> None:
    frame = pd.DataFrame(
        {
            "n": pd.array([1, None, -(2**63)], dtype="Int64"),
            "u": pd.array([0, 2**64 - 1, 1], dtype="uint64"),
            "f": [0.1, -0.0, 1e300],
            "b": [True, False, True],
            "at": pd.to_datetime(["2026-01-01", "1677-09-22", "2262-04-11"]).astype(
                "datetime64[ns]"
            ),
            "zone": pd.to_datetime(["2026-01-01"] * 3).tz_localize("Europe/Prague"),
            "td": pd.to_timedelta([1, -1, 10**15], unit="us"),
            "c": pd.Categorical(["x", "y", "x"]),
        }
    )
    name = topic()
    shared.create_topic(name)
    shared.write(name, frame, value=ottla.json())
    found = shared.scan(name, value=ottla.json(frame.dtypes), columns=[*frame]).to_pandas()
    for column in frame:
        expected, made = frame[column].tolist(), found[column].tolist()
        assert [None if pd.isna(one) else one for one in made] == [
            None if pd.isna(one) else one for one in expected
        ], column


# --- documents -----------------------------------------------------------------------------------

DIGITS = st.integers(0, 10**25).map(str) | st.integers(0, 999).map(str)
NUMBER_TEXTS = st.builds(
    "".join,
    st.tuples(
        st.sampled_from(["", "", "-"]),
        DIGITS,
        st.sampled_from(["", "", "."]).flatmap(
            lambda point: DIGITS.map(lambda digits: point + digits) if point else st.just("")
        ),
        st.sampled_from(["", "", "", "e5", "E+30", "e-12", "E400"]),
    ),
)
SPACE = st.sampled_from(["", "", " ", "\n\t ", "\r\n"])
STRING_TEXTS = st.builds(
    json.dumps, st.text(st.characters(), max_size=8), ensure_ascii=st.booleans()
) | st.sampled_from([r'"\ud83d\ude00"', r'"\ud800"', r'"\u0000"', r'"\/"', '"a\tb"', '"\x7f"'])


@st.composite
def objects(draw: st.DrawFn, inner: Any) -> str:
    """Objects with keys that occur twice."""
    keys = st.sampled_from(['"a"', '"b"', r'"\u0061"', '"c d"', '""'])
    space = draw(SPACE)
    members = draw(st.lists(st.tuples(keys, inner), min_size=1, max_size=4))
    body = f",{space}".join(f"{key}{space}:{space}{value}" for key, value in members)
    return f"{{{space}{body}{space}}}"


@st.composite
def arrays(draw: st.DrawFn, inner: Any) -> str:
    """Arrays."""
    space = draw(SPACE)
    return f"[{space}{f'{space},'.join(draw(st.lists(inner, max_size=4)))}]"


WORDS = st.sampled_from(["true", "false", "null"])
NO_WORDS = st.sampled_from(
    ["nul", "NaN", "-Infinity", "01", "1.", "+1", ".5", "1e", "", "'a'", "]"]
)


def nested_values(leaves: Any) -> Any:
    """Values that may contain others."""
    return st.recursive(leaves, lambda inner: objects(inner) | arrays(inner), max_leaves=6)


GOOD = nested_values(NUMBER_TEXTS | STRING_TEXTS | WORDS)
BAD = nested_values(NUMBER_TEXTS | STRING_TEXTS | NO_WORDS)
DEEP = st.sampled_from([3, 900, 1020, 1100]).map(
    lambda depth: f'{{"a": {"[" * depth}{"]" * depth}}}'
)
ODD = GOOD | objects(BAD) | DEEP | st.text(max_size=6) | st.just("{}")
DOCUMENTS = st.tuples(
    st.lists(objects(GOOD), min_size=10, max_size=15), st.lists(ODD, min_size=3, max_size=6)
).flatmap(lambda parts: st.permutations([*parts[0], *parts[1]]))


class NoJsonError(ValueError):
    """What Python reads but JSON does not have."""


def read_by_python(document: str) -> Any:
    """Return the value of a document, with exact numbers; raises if it is not JSON."""

    def refuse(word: str) -> Any:
        raise NoJsonError(word)

    value = json.loads(document, parse_float=Decimal, parse_int=Decimal, parse_constant=refuse)
    json.dumps(value, default=str, ensure_ascii=False).encode()  # no surrogate is alone
    return value


def exact(document: str) -> Any:
    """Read the JSON text of a column the same way."""
    return json.loads(document, parse_float=Decimal, parse_int=Decimal)


# The message names the document: no need to look for a smaller example, which takes long.
@settings(SLOW, phases=[Phase.generate])
@given(DOCUMENTS)
def test_documents_are_what_python_reads_or_errors(
    shared: ottla.Client, documents: list[str]
) -> None:
    sent = [document for document in documents if _encodes(document)]
    name = topic()
    shared.create_topic(name)
    for document in sent:
        shared.send_async(name, document)
    shared.flush(30)
    text = shared.scan(name, value={"a": str, "b": str}, on_error="column").to_pyarrow().to_pylist()
    inferred = shared.scan(name, value=ottla.json(), on_error="column").to_pyarrow().to_pylist()
    for document, row, free in zip(sent, text, inferred, strict=True):
        try:
            value = read_by_python(document)
        except (ValueError, RecursionError):
            assert row["error"] is not None, document
            assert free["error"] is not None, document
            continue
        if not isinstance(value, dict):
            assert row["error"] is not None, document
            continue
        if row["error"] is not None:
            assert "nested too deep" in row["error"], (document, row)
            continue
        for member in ("a", "b"):
            expected, found = value.get(member), row[member]
            if isinstance(expected, str) or expected is None:
                assert found == expected, document
            else:
                assert exact(found) == expected, document
        if free["error"] is None:
            for member, expected in value.items():
                _agrees(free[member], expected, document)


def _encodes(document: str) -> bool:
    try:
        document.encode()
    except UnicodeEncodeError:
        return False
    return True


def _agrees(found: Any, expected: Any, document: str) -> None:
    """Whether an inferred column holds a value: as it is, as its JSON text, or as its float."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for name, one in expected.items():
            _agrees(found[name], one, document)
        assert all(one is None for name, one in found.items() if name not in expected), document
    elif isinstance(found, list) and isinstance(expected, list):
        assert len(found) == len(expected), document
        for one, other in zip(found, expected, strict=True):
            _agrees(one, other, document)
    elif isinstance(found, str) and not isinstance(expected, str):
        assert exact(found) == expected, document
    elif isinstance(found, float):
        assert isinstance(expected, Decimal), document
        assert math.isclose(found, float(expected), rel_tol=1e-15, abs_tol=5e-324), document
        if expected == expected.to_integral_value() and "." not in document:
            assert found == expected or "e" in document.lower(), document
    else:
        assert found == expected, document
