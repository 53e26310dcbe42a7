"""Every column of every table comes back equal, or ``write`` refuses the table."""

from __future__ import annotations

from itertools import count
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ottla
import properties

_numbers = count()

NAMES = st.one_of(
    st.sampled_from(["value", "key", "timestamp", "offset", "partition", "topic", "headers"]),
    st.sampled_from(["index", "level_0", "__index_level_0__", "timestamp_type", "error", "0"]),
    st.text('aß"\\ .\n', min_size=1, max_size=4),
)
KINDS: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "int64": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "utf8": (pa.string(), st.text(max_size=5)),
    "bool": (pa.bool_(), st.booleans()),
    "float64": (pa.float64(), st.floats(allow_nan=False, allow_infinity=False)),
}


@st.composite
def tables(draw: st.DrawFn) -> tuple[pa.Table, dict[str, str]]:
    """Return a table, and the types of its columns by the names of ``ottla.json``."""
    names = draw(st.lists(NAMES, min_size=1, max_size=4, unique_by=str.lower))
    rows = draw(st.integers(0, 4))
    columns, kinds = [], {}
    for name in names:
        kinds[name] = draw(st.sampled_from(sorted(KINDS)))
        arrow, values = KINDS[kinds[name]]
        columns.append(pa.array([draw(values) for _ in range(rows)], arrow))
    return pa.table(columns, names=names), kinds


def of_pandas(table: pa.Table, index: str) -> tuple[pd.DataFrame, bool]:
    """Return a frame with an index of a kind, and whether it must be refused."""
    frame, names = table.to_pandas(), table.column_names
    rows = len(frame)
    made = {
        "": lambda: frame,
        "named": lambda: frame.set_index(names[0]),
        "levels": lambda: frame.set_index(names[:2]),
        "shuffled": lambda: frame.set_index(pd.Index(range(rows)[::-1])),
        "range": lambda: frame.set_index(pd.RangeIndex(rows)),
        "times": lambda: frame.set_index(pd.date_range("2024-01-01", periods=rows)),
        "texts": lambda: frame.set_index(pd.Index([str(n) for n in range(rows)], dtype=object)),
        "taken": lambda: frame.rename_axis(names[-1]),
    }
    return made[index](), index == "taken" or (index in ("times", "texts") and rows > 0)


def made(library: str, table: pa.Table, index: str) -> tuple[Any, bool]:
    if library == "polars":
        return pl.DataFrame(table), False
    if library == "pandas":
        return of_pandas(table, index)
    if library == "duckdb":
        return duckdb.from_arrow(table), False
    return table, False


@pytest.mark.parametrize("library", ["polars", "pandas", "pyarrow", "duckdb"])
@settings(properties.SLOW, max_examples=60)
@given(
    given=tables(),
    index=st.sampled_from(["", "named", "levels", "shuffled", "range", "times", "texts", "taken"]),
    keyed=st.booleans(),
)
def test_every_column_comes_back_or_the_table_is_refused(
    kafka: ottla.Client,
    library: str,
    given: tuple[pa.Table, dict[str, str]],
    index: str,
    keyed: bool,
) -> None:
    table, kinds = given
    topic = f"property-{library}-{next(_numbers)}"
    kafka.create_topic(topic, partitions=1)
    data, must_refuse = made(library, table, index)
    names = list(kinds)
    key = names[0] if keyed and kinds[names[0]] != "float64" else None
    # A column of texts that is called value is one as it is, if no other is lost.
    is_whole = kinds.get("value") == "utf8" and key != "value"
    plain = is_whole and set(names) <= {"value", key}
    if must_refuse or (is_whole and not plain):
        with pytest.raises(ottla.ConfigError):
            kafka.write(topic, data, key=key)
        assert kafka.scan(topic).count() == 0
        return
    assert kafka.write(topic, data, key=key) == table.num_rows
    if plain:
        found = kafka.scan(topic, value=ottla.text(), columns=["value"]).to_pyarrow()
        assert found["value"].to_pylist() == table["value"].to_pylist()
    else:
        scan = kafka.scan(topic, value=ottla.json(kinds), columns=names)
        for name in names:
            assert scan.to_pyarrow()[name].to_pylist() == table[name].to_pylist()
    if key is not None:
        keys = kafka.scan(topic, columns=["key"]).to_pyarrow()["key"].to_pylist()
        texts = [
            str(one).lower() if isinstance(one, bool) else str(one)
            for one in table[key].to_pylist()
        ]
        assert keys == [one.encode() for one in texts]
