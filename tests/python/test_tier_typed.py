"""Typed columns of the tier: every reader sees them, and no value or setting is in their way."""

from __future__ import annotations

import json
import struct
import subprocess
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest
from confluent_kafka import KafkaException, Producer
from deltalake import DeltaTable

import ottla
from test_tier_broker import PATIENCE, PROGRAM, Node, await_that, node, read_confluent
from test_tier_delta import alter, await_table, path_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["node"]

pytestmark = pytest.mark.timeout(180)

SCHEMA = "ottla.tier.value.schema"
JSON = {
    "format": "json",
    "columns": {
        "id": "int64",
        "status": "string",
        "buyer": {"country": "string"},
        "at": "timestamp[ms, UTC]",
        "offset": "int32",
    },
}


def produce(node: Node, values: list[bytes | None], topic: str = "orders") -> None:
    producer = Producer({"bootstrap.servers": node.bootstrap})
    for value in values:
        producer.produce(topic, value, partition=0)
    assert producer.flush(PATIENCE) == 0


def offload(node: Node, topic: str = "orders") -> None:
    with ottla.connect(node.bootstrap) as client:
        client[topic].offload(timeout=PATIENCE)


def place(node: Node, topic: str = "orders") -> str:
    return str(node.tier / f"topic={topic}" / "*" / "*.parquet")


def queried(node: Node, columns: str, topic: str = "orders") -> list[tuple[Any, ...]]:
    """Return columns of all files, in the order of offsets, as DuckDB reads them."""
    files = f"read_parquet('{place(node, topic)}', union_by_name=true)"
    found: list[tuple[Any, ...]]
    found = duckdb.sql(f'SELECT {columns} FROM {files} ORDER BY "offset"').fetchall()
    return found


def order(number: int) -> bytes:
    value = {"id": number, "status": "paid", "buyer": {"country": "FI"}, "offset": -number}
    return json.dumps({**value, "at": "2023-11-14T22:13:20.5Z", "other": [1]}).encode()


def test_json_values_have_columns_for_every_reader(node: Node) -> None:
    node.create("orders", ottla_tier_value_schema=json.dumps(JSON))
    bad = [b"", b"{", b"\xff\xfe", b'{"id": "x"}', b"[1]", b'{"id": 1e99}', b'{"buyer": 1}']
    values = [*(order(number) for number in range(200)), None, b"{}", *bad, order(9)]
    produce(node, values)
    offload(node)

    # DuckDB, pyarrow and Polars; what consumers get is what it was.
    expected: list[tuple[Any, ...]] = [(n, "paid", "FI", -n) for n in range(200)]
    expected += [(None, None, None, None)] * (2 + len(bad)) + [(9, "paid", "FI", -9)]
    columns = "id, status, buyer_country, value_offset"
    assert queried(node, columns) == expected
    assert queried(node, "value") == [(value,) for value in values]
    names = columns.split(", ")
    files = node.files("orders")
    tables = [
        pyarrow.dataset.dataset(files).to_table(names),
        pl.scan_parquet(place(node)).select(names).collect().to_arrow(),
    ]
    for table in tables:
        assert list(zip(*table.to_pydict().values(), strict=True)) == expected
    [(at, count)] = duckdb.sql(
        f"SELECT epoch_ms(\"at\"), count(*) FROM read_parquet('{place(node)}') "
        'WHERE "at" IS NOT NULL GROUP BY ALL'
    ).fetchall()
    assert (at, count) == (1_700_000_000_500, 201)
    read = read_confluent(node, "orders", len(values))
    assert [record.value for record in read] == values

    [line] = [line for line in node.log().splitlines() if "do not fit" in line]
    for part in ["orders-0", f"undecoded={len(bad)}", "first_offset=202", "last_offset=208"]:
        assert part in line
    assert "cause=" in line
    footer = pyarrow.parquet.read_metadata(files[0]).metadata
    told = json.loads(footer[b"ottla.values"])
    assert (told["undecoded"], told["first"]["offset"]) == (len(bad), 202)
    if PROGRAM:
        verify = [PROGRAM, "tier", "verify", str(node.tier)]
        subprocess.run(verify, check=True, capture_output=True, timeout=PATIENCE)


def test_avro_values_are_decoded_by_the_schema_of_their_id(node: Node) -> None:
    record = {"type": "record", "name": "Order"}
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}
    fields: list[dict[str, Any]] = [
        {"name": "id", "type": "long"},
        {"name": "price", "type": decimal},
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
    ]
    reader = {**record, "fields": fields}
    older = {**record, "fields": [fields[1], fields[0]]}
    schema = {
        "format": "avro",
        "schema": reader,
        "columns": ["id", "price"],
        "id": 7,
        "writers": {"6": older},
    }
    node.create("orders", ottla_tier_value_schema=json.dumps(schema))
    with ottla.connect(node.bootstrap) as client:
        client.create_topic("bare")
        rows = pa.table(
            {
                "id": [1, -5],
                "price": pa.array([Decimal(199), Decimal(-1)], pa.decimal128(9, 2)),
                "tags": [["a"], []],
            }
        )
        client["bare"].write(rows, value=ottla.avro(json.dumps(reader)))
        newer = [record.value for record in read_confluent(node, "bare", 2)]
        client["bare"].write(rows.drop_columns("tags"), value=ottla.avro(json.dumps(older)))
        before = [record.value for record in read_confluent(node, "bare", 4, start=2)]

    def framed(schema_id: int, value: bytes | None) -> bytes:
        assert value is not None
        return struct.pack(">bI", 0, schema_id) + value

    values = [framed(7, newer[0]), framed(6, before[1]), framed(8, newer[0]), newer[0], None]
    produce(node, values)
    offload(node)
    expected = [(1, Decimal(199)), (-5, Decimal(-1)), (None, None), (None, None), (None, None)]
    assert queried(node, "id, price") == expected
    assert queried(node, "value") == [(value,) for value in values]
    [line] = [line for line in node.log().splitlines() if "do not fit" in line]
    assert "the id 8" in line
    assert "undecoded=2" in line


def test_a_changed_type_is_another_column_also_after_a_crash(node: Node) -> None:
    def turn(columns: dict[str, str]) -> None:
        schema = {"format": "json", "columns": columns} if columns else None
        alter(node.bootstrap, "orders", {SCHEMA: json.dumps(schema) if schema else ""})

    node.create("orders", ottla_tier_table="delta")
    produce(node, [b'{"id": 0}'])
    offload(node)
    await_table(node)
    turn({"id": "int64"})
    produce(node, [b'{"id": 1}'])
    offload(node)
    turn({"id": "string", "name": "string"})
    produce(node, [b'{"id": "2", "name": "two"}'])
    node.process.kill()
    node.start()
    offload(node)
    turn({"ID": "bool"})
    produce(node, [b'{"ID": true}'])
    offload(node)
    turn({"name": "string", "id": "int64"})
    produce(node, [b'{"id": 4, "name": "four"}'])
    offload(node)
    turn({})
    produce(node, [b'{"id": 5}'])
    offload(node)

    columns = ["id", "id_string", "name", "ID_bool"]
    expected = [
        (None, None, None, None),
        (1, None, None, None),
        (None, "2", "two", None),
        (None, None, None, True),
        (4, None, "four", None),
        (None, None, None, None),
    ]
    assert queried(node, ", ".join(columns)) == expected
    files = node.files("orders")
    assert len(files) == len(expected)
    unified = pa.unify_schemas([pyarrow.parquet.read_schema(file) for file in files])
    dataset = pyarrow.dataset.dataset(files, schema=unified)
    assert list(zip(*dataset.to_table(columns).to_pydict().values(), strict=True)) == expected
    scanned = pl.scan_parquet(
        place(node),
        schema=pl.Schema(pl.from_arrow(unified.empty_table()).schema),
        missing_columns="insert",
        extra_columns="ignore",
        hive_partitioning=False,
    )
    assert scanned.select(columns).collect().rows() == expected

    # The Delta table has all columns, in files from before them, too.
    await_table(node)
    table = DeltaTable(path_of(node.tier)).to_pyarrow_table().sort_by("offset")
    assert list(zip(*table.select(columns).to_pydict().values(), strict=True)) == expected
    assert (
        pl.scan_delta(path_of(node.tier)).sort("offset").select(columns).collect().rows()
        == expected
    )
    values = [record.value for record in read_confluent(node, "orders", len(expected))]
    assert values == [row[0] for row in queried(node, "value")]


def test_columns_of_a_deleted_topic_are_forgotten(node: Node) -> None:
    columns = node.tier / "_ottla" / "columns"
    node.create("orders", ottla_tier_value_schema=json.dumps(JSON))
    produce(node, [order(1)])
    offload(node)
    assert list(columns.rglob("*.json"))
    node.delete("orders")
    await_that(lambda: not list(columns.rglob("*.json")), node.log)
    node.create("orders", ottla_tier_value_schema='{"format": "json", "columns": {"id": "string"}}')
    produce(node, [b'{"id": "a"}'])
    offload(node)
    assert queried(node, "id") == [("a",)]


def test_a_damaged_list_of_columns_stops_nothing(node: Node) -> None:
    node.create("orders", ottla_tier_value_schema=json.dumps(JSON))
    produce(node, [order(1)])
    offload(node)
    [version] = (node.tier / "_ottla" / "columns").rglob("*.json")
    version.write_text(version.read_text().replace("buyer_country", "buyer_county"))
    produce(node, [order(2)])
    offload(node)
    first, second = (pyarrow.parquet.read_schema(file).names for file in node.files("orders"))
    assert "id" in first
    assert "id" not in second
    assert "has no typed columns" in node.log()
    assert len(read_confluent(node, "orders", 2)) == 2


REFUSED = [
    ({"format": "xml"}, "none of json, avro and protobuf"),
    ({"format": "json", "columns": {"a": "list<int64>"}}, 'field "a" is list<int64>'),
    ({"format": "avro", "schema": {"type": "recrod"}}, "Avro schema"),
]


@pytest.mark.parametrize(("schema", "why"), REFUSED)
def test_a_schema_that_cannot_be_is_refused(node: Node, schema: dict[str, Any], why: str) -> None:
    with pytest.raises(KafkaException, match=SCHEMA) as created:
        node.create("orders", ottla_tier_value_schema=json.dumps(schema))
    assert why in str(created.value)
    node.create("orders")
    with pytest.raises(KafkaException, match=SCHEMA) as altered:
        alter(node.bootstrap, "orders", {SCHEMA: json.dumps(schema)})
    assert why in str(altered.value)
    with pytest.raises(KafkaException, match=r"remote\.storage\.enable"):
        node.create(
            "events", remote_storage_enable="false", ottla_tier_value_schema=json.dumps(JSON)
        )


def test_a_topic_archived_by_a_scan_has_no_typed_columns(node: Node, tmp_path: Path) -> None:
    node.create("orders", ottla_tier_value_schema=json.dumps(JSON))
    produce(node, [order(1)])
    offload(node)
    with ottla.connect(node.bootstrap) as client:
        client["orders"].scan().to_parquet(tmp_path / "archive")
    [file] = (tmp_path / "archive").rglob("*.parquet")
    names = pyarrow.parquet.read_schema(file).names
    assert names == ["offset", "timestamp", "key", "value", "headers"]
