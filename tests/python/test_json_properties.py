"""JSON, by property: what is written comes back equal, and any JSON text is read or is an error.

Tables of every Arrow type that the manual's page on types says JSON carries are made by
hypothesis; random JSON documents are read by Python's ``json`` and by a scan.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import math
from decimal import Decimal
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import ottla
import properties
from arrow_tables import TEXT, numbers, same, tables

_topics = itertools.count()
UTC = dt.timezone.utc
SLOW = settings(properties.SLOW, max_examples=40)


def topic() -> str:
    """Return the name of a new topic."""
    return f"json-{next(_topics)}"


# --- tables --------------------------------------------------------------------------------------


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
