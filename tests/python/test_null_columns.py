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


#: Each kind of type is among the tests of the writers.
AVRO_TYPES: list[Any] = [
    {"type": "int", "logicalType": "date"},
    {"type": "record", "name": "N", "fields": [{"name": "a", "type": "int"}]},
]
PROTOBUF_FIELDS = ["E x = 1; enum E { A = 0; }", "map<string, int32> x = 1;"]


def refused(kafka: ottla.Client, topic: str, x: Any, value: ottla.Format, message: str) -> None:
    """Assert that a value of nothing but nulls is refused, however it is written."""
    for write in (
        lambda: kafka.send(topic, {"x": x, "y": 5}, value_format=value),
        lambda: kafka.send_async(topic, {"x": x, "y": 5}, value_format=value),
        lambda: kafka.write(topic, pl.DataFrame({"x": [x], "y": [5]}), value=value),
        lambda: kafka.write(topic, pa.table({"x": pa.array([x]), "y": [5]}), value=value),
    ):
        with pytest.raises(ottla.ConfigError, match=message):
            write()


@pytest.mark.parametrize("kind", AVRO_TYPES, ids=str)
def test_avro_refuses_nulls_without_a_type_where_its_schema_has_no_null(
    kafka: ottla.Client, name: str, kind: Any
) -> None:
    fields = [{"name": "x", "type": kind}, {"name": "y", "type": "int"}]
    value = ottla.avro({"type": "record", "name": "R", "fields": fields})
    refused(kafka, name, None, value, '"x" is null, which its Avro schema does not allow')
    branches = kind if isinstance(kind, list) else [kind]
    fields[0]["type"] = ["null", *branches]
    value = ottla.avro({"type": "record", "name": "R", "fields": fields})
    kafka.send(name, {"x": None, "y": 5}, value_format=value)
    kafka.write(name, pl.DataFrame({"x": [None], "y": [5]}), value=value)
    assert read(kafka, name, value, ["x", "y"]) == [{"x": None, "y": 5}] * 2


@pytest.mark.parametrize(
    ("kind", "x", "path"),
    [
        ({"type": "array", "items": "int"}, [None], r"x\[\]"),
        (
            {"type": "record", "name": "N", "fields": [{"name": "a", "type": "int"}]},
            {"a": None},
            "x.a",
        ),
    ],
    ids=["array", "record"],
)
def test_avro_refuses_nulls_without_a_type_that_lie_deeper(
    kafka: ottla.Client, name: str, kind: Any, x: Any, path: str
) -> None:
    fields = [{"name": "x", "type": kind}, {"name": "y", "type": "int"}]
    value = ottla.avro({"type": "record", "name": "R", "fields": fields})
    message = f'^(row 0: )?column "{path}" is null, which its Avro schema does not allow$'
    refused(kafka, name, x, value, message)


def test_a_map_of_nulls_without_a_type_is_refused(kafka: ottla.Client, name: str) -> None:
    nulls = pa.table({"x": pa.array([[("k", None)]], pa.map_(pa.string(), pa.null()))})
    schema = {"type": "map", "values": "int"}
    fields = [{"name": "x", "type": schema}]
    for value in (
        ottla.avro({"type": "record", "name": "R", "fields": fields}),
        ottla.protobuf('syntax = "proto3"; message R { map<string, int32> x = 1; }'),
    ):
        with pytest.raises(ottla.ConfigError, match="null"):
            kafka.write(name, nulls, value=value)
        with pytest.raises(ottla.ConfigError, match="null"):
            kafka.send(name, {"x": {"k": None}}, value_format=value)


@pytest.mark.parametrize("field", PROTOBUF_FIELDS)
def test_protobuf_refuses_nulls_without_a_type_that_would_be_read_as_something_else(
    kafka: ottla.Client, name: str, field: str
) -> None:
    value = ottla.protobuf(f'syntax = "proto3"; message R {{ int32 y = 2; {field} }}')
    refused(kafka, name, None, value, '"x" is null, and would be read as')
    if not field.startswith(("repeated", "map")):
        value = ottla.protobuf(f'syntax = "proto3"; message R {{ int32 y = 2; optional {field} }}')
        kafka.send(name, {"x": None, "y": 5}, value_format=value)
        kafka.write(name, pl.DataFrame({"x": [None], "y": [5]}), value=value)
        assert read(kafka, name, value, ["x", "y"]) == [{"x": None, "y": 5}] * 2


def test_protobuf_refuses_required_and_nested_nulls_without_a_type(
    kafka: ottla.Client, name: str
) -> None:
    required = "message R { required int32 x = 1; optional int32 y = 2; }"
    refused(kafka, name, None, ottla.protobuf(f'syntax = "proto2"; {required}'), "is required")
    nested = "message R { N x = 1; int32 y = 2; message N { int32 a = 1; } }"
    value = ottla.protobuf(f'syntax = "proto3"; {nested}')
    refused(kafka, name, {"a": None}, value, '"x.a" is null, and would be read as')
    kafka.send(name, {"x": None, "y": 5}, value_format=value)
    items = "message R { repeated int32 x = 1; int32 y = 2; }"
    value = ottla.protobuf(f'syntax = "proto3"; {items}')
    refused(kafka, name, [None], value, "item 0 of the list is null")
    kafka.send(name, {"x": [], "y": 5}, value_format=value)
