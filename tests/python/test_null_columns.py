"""Columns of only nulls, with no type but Arrow's ``null``, from every library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable

ROWS = [{"id": 1, "note": None}, {"id": 2, "note": None}]
NESTED = [{"id": 1, "deep": {"a": None, "b": [None, None]}}, {"id": 2, "deep": None}]

FRAMES: dict[str, Callable[[], Any]] = {
    "polars": lambda: pl.DataFrame(ROWS),
    "polars, a slice": lambda: pl.DataFrame([*ROWS, *ROWS])[2:],
    "polars, chunks": lambda: pl.concat([pl.DataFrame(ROWS[:1]), pl.DataFrame(ROWS[1:])]),
    "pandas": lambda: pd.DataFrame(ROWS),
    "pyarrow": lambda: pa.Table.from_pylist(ROWS),
    "a pyarrow batch": lambda: pa.RecordBatch.from_pylist(ROWS),
    "duckdb": lambda: duckdb.sql("SELECT unnest([1, 2]) AS id, NULL AS note"),
}

NESTED_FRAMES: dict[str, Callable[[], Any]] = {
    "polars": lambda: pl.DataFrame(NESTED),
    "pyarrow": lambda: pa.Table.from_pylist(NESTED),
}


def read(kafka: ottla.Client, topic: str, value: ottla.Format, names: list[str]) -> Any:
    return kafka.scan(topic, value=value, columns=names).head(100).to_pylist()


@pytest.mark.parametrize("library", FRAMES)
def test_a_column_of_nulls_is_written_in_every_format(
    library: str, ottla_client: ottla.Client
) -> None:
    frame = FRAMES[library]
    kafka = ottla_client
    kafka.write("json", frame())
    assert read(kafka, "json", ottla.json(), ["id", "note"]) == ROWS
    kafka.write("ipc", frame(), value=ottla.arrow_ipc())
    assert read(kafka, "ipc", ottla.arrow_ipc(), ["id", "note"]) == ROWS
    maybe = {"name": "note", "type": ["null", "string"]}
    for topic, note in (("maybe", maybe), ("never", {"name": "note", "type": "null"})):
        avro = ottla.avro(
            {"type": "record", "name": "R", "fields": [{"name": "id", "type": "long"}, note]}
        )
        kafka.write(topic, frame(), value=avro)
        assert read(kafka, topic, avro, ["id", "note"]) == ROWS
    protobuf = ottla.protobuf(
        'syntax = "proto3"; message R { int64 id = 1; optional string note = 2; }'
    )
    kafka.write("protobuf", frame(), value=protobuf)
    assert read(kafka, "protobuf", protobuf, ["id", "note"]) == ROWS
    with pytest.raises(ottla.ConfigError, match=r'"note" has only nulls.*pass a schema'):
        kafka.write("protobuf", frame(), value=ottla.protobuf())


@pytest.mark.parametrize("library", FRAMES)
def test_a_column_of_nulls_can_be_keys_values_and_headers(
    library: str, ottla_client: ottla.Client
) -> None:
    frame = FRAMES[library]
    kafka = ottla_client
    for value in (ottla.raw("note"), ottla.text("note")):
        kafka.write("nulls", frame(), key="note", headers="note", value=value)
    kafka.write("nulls", frame(), headers=[ottla.header("note")], value=ottla.raw("note"))
    rows = read(kafka, "nulls", ottla.raw(), ["key", "value", "headers"])
    assert rows == [{"key": None, "value": None, "headers": []}] * 6


@pytest.mark.parametrize("library", NESTED_FRAMES)
def test_nulls_without_a_type_may_lie_in_structs_and_lists(
    library: str, ottla_client: ottla.Client
) -> None:
    frame = NESTED_FRAMES[library]
    kafka = ottla_client
    for topic, value in (("json", ottla.json()), ("ipc", ottla.arrow_ipc())):
        kafka.write(topic, frame(), value=value)
        assert read(kafka, topic, value, ["id", "deep"]) == NESTED
    avro = ottla.avro(
        {
            "type": "record",
            "name": "R",
            "fields": [
                {"name": "id", "type": "long"},
                {
                    "name": "deep",
                    "type": [
                        "null",
                        {
                            "type": "record",
                            "name": "Deep",
                            "fields": [
                                {"name": "a", "type": "null"},
                                {"name": "b", "type": {"type": "array", "items": "null"}},
                            ],
                        },
                    ],
                },
            ],
        }
    )
    kafka.write("avro", frame(), value=avro)
    assert read(kafka, "avro", avro, ["id", "deep"]) == NESTED


def test_an_array_that_is_no_table_is_refused_by_its_type(ottla_client: ottla.Client) -> None:
    arrays = [pl.Series([1]), pa.chunked_array([[1]]), pa.array([1])]
    for array in arrays:
        with pytest.raises(TypeError, match="one column of Int64 without a name"):
            ottla_client.write("words", array)
    with pytest.raises(ValueError, match="1 rows are null as a whole"):
        ottla_client.write("words", pa.array([{"a": 1}, None]))
