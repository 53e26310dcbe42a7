"""What users try with rows: each library has all of them, or says what to do instead."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import ottla

FORM = {"n": "int64", "text": "utf8"}
COUNT = 6
#: What holds rows, as it comes from a client and a topic.
HOLDERS: dict[str, Callable[[ottla.Client, str], Any]] = {
    "scan": lambda kafka, topic: kafka.scan(topic, value=FORM, batch_rows=2),
    "batch": lambda kafka, topic: kafka.scan(topic, value=FORM).head(COUNT),
    "table": lambda kafka, topic: kafka.table(topic, value=FORM),
    "window": lambda kafka, topic: next(kafka.windows(topic, "1d", idle="skip", value=FORM)),
}


@pytest.fixture
def filled(kafka: ottla.Client, name: str) -> str:
    """A topic with rows of a day, and one of a later day."""
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    for number in range(COUNT):
        row = {"n": number, "text": f"text {number}"}
        kafka.send(name, row, key=f"{number}", timestamp=start + timedelta(hours=number))
    return name


def held(kafka: ottla.Client, topic: str, kind: str) -> Any:
    if kind == "window":
        kafka.send(topic, {"n": -1}, key="later", timestamp="2026-01-03")
    return HOLDERS[kind](kafka, topic)


@pytest.mark.parametrize("kind", HOLDERS)
def test_libraries_have_all_rows(kafka: ottla.Client, filled: str, kind: str) -> None:
    rows = held(kafka, filled, kind)
    wanted = list(range(COUNT))
    frames: dict[str, list[int]] = {
        "polars": pl.DataFrame(rows)["n"].to_list(),
        "polars, from_arrow": pl.from_arrow(rows).struct.field("n").to_list(),
        "polars, lazy": pl.LazyFrame(rows).collect()["n"].to_list(),
        "pyarrow": pa.table(rows)["n"].to_pylist(),
        "pyarrow, in batches": pa.RecordBatchReader.from_stream(rows).read_all()["n"].to_pylist(),
        "duckdb": [row[0] for row in duckdb.sql("SELECT n FROM rows").fetchall()],
        "to_polars": rows.to_polars()["n"].to_list(),
        "to_pandas": rows.to_pandas()["n"].to_list(),
        "to_pyarrow": rows.to_pyarrow()["n"].to_pylist(),
    }
    if kind != "scan":  # a scan yields its batches
        frames["rows"] = [row["n"] for row in rows]
    assert {name: sorted(found) for name, found in frames.items()} == dict.fromkeys(frames, wanted)


@pytest.mark.parametrize("kind", HOLDERS)
def test_what_would_make_something_else_of_rows_is_refused(
    kafka: ottla.Client, filled: str, kind: str
) -> None:
    rows = held(kafka, filled, kind)
    with pytest.raises(TypeError, match=rf"a {kind} is not an array: to_pandas\(\)"):
        pd.DataFrame(rows)


def test_a_batch_is_a_sequence_of_rows(kafka: ottla.Client, filled: str) -> None:
    batch = kafka.scan(filled, value=FORM, columns=["n", "text"]).head(COUNT)
    rows = [{"n": number, "text": f"text {number}"} for number in range(COUNT)]
    assert list(batch) == rows
    assert [row["n"] for row in batch[1:4]] == [1, 2, 3]
    assert batch[-1] == rows[-1]
    assert pd.DataFrame(list(batch)).to_dict("records") == rows
    assert pl.DataFrame(list(batch)).to_dicts() == rows
    assert pa.Table.from_pylist(list(batch)).to_pylist() == rows


def test_a_batch_gives_some_of_its_columns(kafka: ottla.Client, filled: str) -> None:
    batch = kafka.scan(filled, value=FORM).head(COUNT)
    some = batch.select(["text", "offset"])
    assert some.column_names == ["text", "offset"]
    assert some[0] == {"text": "text 0", "offset": 0}
    assert some.offsets == batch.offsets, "they are the same records"
    assert batch[["n"]].column_names == ["n"]
    assert batch[["n"]][2:4].to_polars()["n"].to_list() == [2, 3]
    assert batch.select(()).num_rows == COUNT
    with pytest.raises(KeyError, match=r"no column \\?\"m\\?\"; there are topic, partition"):
        batch.select(["n", "m"])
    with pytest.raises(TypeError):
        batch.select("n")
    with pytest.raises(TypeError, match="a list of them"):
        batch[("n", "text")]  # type: ignore[call-overload]
    assert batch._ipython_key_completions_() == batch.column_names
