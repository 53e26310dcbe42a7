"""Arrow IPC streams as values: a record of many rows."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

import ottla


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def points(start: int, count: int) -> pa.RecordBatch:
    numbers = range(start, start + count)
    return pa.record_batch(
        {
            "x": pa.array(numbers, pa.int64()),
            "name": pa.array([f"a name of some length {n}" for n in numbers], pa.string()),
            "tags": pa.array([[str(n)] * (n % 3) for n in numbers], pa.list_(pa.string())),
            "kind": pa.array(
                ["even" if n % 2 == 0 else None for n in numbers], pa.string()
            ).dictionary_encode(),
        }
    )


NAMES = ["x", "name", "tags", "kind"]


@pytest.fixture
def rows(kafka: ottla.Client, name: str) -> list[dict[str, Any]]:
    """Three records of 3, 0 and 2 + 2 rows."""
    kafka.send(name, stream(points(0, 3)), key="a", partition=0)
    kafka.send(name, stream(points(3, 0)), key="b", partition=0)
    kafka.send(name, stream(points(3, 2), points(5, 2)), key="c", partition=0)
    rows: list[dict[str, Any]] = points(0, 7).to_pylist()
    return rows


def test_rows_come_with_the_columns_of_their_records(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=["offset", "key", *NAMES])
    found = scan.head(100).to_pylist()
    assert [{one: row[one] for one in NAMES} for row in found] == rows
    assert [row["offset"] for row in found] == [0] * 3 + [2] * 4
    assert [row["key"] for row in found] == [b"a"] * 3 + [b"c"] * 4
    assert scan.count() == 7
    assert scan.to_polars()["x"].to_list() == list(range(7))
    assert scan.to_pyarrow().select(NAMES).to_pylist() == rows
    assert kafka[name].tail(2, value=ottla.arrow_ipc())["x"].to_pylist() == [5, 6]
    assert kafka.scan(name, value=ottla.arrow_ipc(), columns=["offset"]).head(9).num_rows == 7


def test_a_consumer_and_its_offsets(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    with kafka.consumer(
        name, start="earliest", until="caught_up", value=ottla.arrow_ipc(), columns=NAMES
    ) as consumer:
        batches = list(consumer)
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert batches[-1].offsets == {name: {0: (0, 3)}}
    (cut,) = kafka.scan(name, value=ottla.arrow_ipc(), max_rows=5)
    assert cut["x"].to_pylist() == [0, 1, 2, 3, 4]
    assert cut.offsets == {name: {0: (0, 0)}}


def test_columns_are_those_of_the_schema(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    assert rows
    kafka.send(name, stream(pa.record_batch({"x": pa.array([9], pa.int8())})), partition=0)
    kafka.send(name, None, partition=0)
    value = ottla.arrow_ipc({"x": "float64", "more": "utf8"})
    scan = kafka.scan(name, value=value, columns=["x", "more", "is_tombstone"])
    found = scan.head(100).to_pylist()
    assert [row["x"] for row in found] == [*range(7), 9, None]
    assert {row["more"] for row in found} == {None}
    assert [row["is_tombstone"] for row in found] == [False] * 8 + [True]


def test_what_does_not_decode(kafka: ottla.Client, name: str) -> None:
    good = stream(points(0, 2))
    (kafka.send(name, good, partition=0), kafka.send(name, "nonsense", partition=0))
    kafka.send(name, good[: len(good) // 2], partition=0)
    kafka.send(name, b"\xff\xff\xff\xff\xff\xff\xff\x7f", partition=0)
    packed = stream(points(0, 2), options=pa.ipc.IpcWriteOptions(compression="lz4"))
    kafka.send(name, packed, partition=0)
    kafka.send(name, good, partition=0)
    value = ottla.arrow_ipc()
    with pytest.raises(ottla.DecodeError, match=r"1.*no Arrow IPC stream"):
        list(kafka.scan(name, value=value))
    names = ["offset", "x", "error"]
    found = kafka.scan(name, value=value, columns=names, on_error="column").head(20).to_pylist()
    assert [row["offset"] for row in found] == [0, 0, 1, 2, 3, 4, 5, 5]
    assert [row["x"] for row in found] == [0, 1, None, None, None, None, 0, 1]
    assert [row["error"] is None for row in found] == [True] * 2 + [False] * 4 + [True] * 2
    assert "compressed" in found[5]["error"]
    kept = kafka.scan(name, value=value, columns=["x"], on_error=f"dlq:{name}.dlq")
    assert [x for batch in kept for x in batch["x"].to_pylist()] == [0, 1, 0, 1]
    letters = kafka.scan(f"{name}.dlq", columns=["value"]).head(9)["value"].to_pylist()
    assert letters[0] == b"nonsense"
    assert len(letters) == 4


def test_writing_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match="for reading"):
        kafka.write(name, pa.table({"x": [1]}), value=ottla.arrow_ipc())
