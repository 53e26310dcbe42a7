"""Change events of Debezium, as its connectors write them with each of their converters."""

from __future__ import annotations

import base64
import json
import warnings
from datetime import date, datetime, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import ottla

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

if TYPE_CHECKING:
    from typing import Literal

    from registries import Registry

ANNA = {"id": 1, "name": "Anna"}
ANNE = {"id": 1, "name": "Anne"}
BEN = {"id": 2, "name": None}
SOURCE = {"version": "2.7", "connector": "postgresql", "table": "users", "lsn": 5}
NOON = datetime(2024, 5, 1, 12, tzinfo=timezone.utc)


def event(op: str, before: Any, after: Any, second: int) -> dict[str, Any]:
    moment = int(NOON.timestamp() * 1000) + second * 1000
    return {"before": before, "after": after, "source": SOURCE, "op": op, "ts_ms": moment}


EVENTS = [
    event("r", None, ANNA, 0),
    event("c", None, BEN, 1),
    event("u", ANNA, ANNE, 2),
    event("d", ANNE, None, 3),
]
#: The rows, and the tombstone after the deletion.
ROWS: list[dict[str, Any]] = [
    {**ANNA, "op": "r", "is_tombstone": False},
    {**BEN, "op": "c", "is_tombstone": False},
    {**ANNE, "op": "u", "is_tombstone": False},
    {**ANNE, "op": "d", "is_tombstone": False},
    {"id": None, "name": None, "op": None, "is_tombstone": True},
]
COLUMNS = ["id", "name", "op", "is_tombstone"]
ROW = {"id": "int64", "name": "utf8"}


def send(kafka: ottla.Client, topic: str, *, wrapped: bool) -> None:
    for one in EVENTS:
        value = {"schema": {"type": "struct", "fields": []}, "payload": one} if wrapped else one
        kafka.send(topic, json.dumps(value), partition=0)
    kafka.send(topic, None, partition=0)


@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("schema", [ROW, None])
def test_rows_of_json_events(kafka: ottla.Client, name: str, schema: Any, *, wrapped: bool) -> None:
    send(kafka, name, wrapped=wrapped)
    value = ottla.debezium(ottla.json(schema), unwrap=True)
    scan = kafka.scan(name, value=value, columns=COLUMNS)
    assert scan.head(10).to_pylist() == ROWS
    assert scan.to_polars()["name"].to_list() == [row["name"] for row in ROWS]
    with kafka.consumer(
        name, start="earliest", until="caught_up", value=value, columns=COLUMNS
    ) as consumer:
        assert [row for batch in consumer for row in batch.to_pylist()] == ROWS


@pytest.mark.parametrize("wrapped", [True, False])
def test_the_parts_of_json_events(kafka: ottla.Client, name: str, *, wrapped: bool) -> None:
    send(kafka, name, wrapped=wrapped)
    names = ["before", "after", "source", "op", "ts_ms"]
    found = kafka.scan(name, value=ottla.debezium(), columns=names).head(10)
    assert found.schema["ts_ms"] == "timestamp[ms, UTC]"
    rows = found.to_pylist()
    assert [row["before"] for row in rows] == [None, None, ANNA, ANNE, None]
    assert [row["after"] for row in rows] == [ANNA, BEN, ANNE, None, None]
    assert [row["op"] for row in rows] == ["r", "c", "u", "d", None]
    assert rows[0]["source"] == SOURCE
    assert rows[0]["ts_ms"] == NOON
    typed = kafka.scan(name, value=ottla.debezium(ottla.json(ROW)), columns=["after", "source"])
    assert typed.head().to_pylist()[0]["after"] == ANNA
    assert json.loads(typed.head().to_pylist()[0]["source"]) == SOURCE


def test_both_converters_in_one_topic(kafka: ottla.Client, name: str) -> None:
    send(kafka, name, wrapped=True)
    send(kafka, name, wrapped=False)
    value = ottla.debezium(ottla.json(ROW), unwrap=True)
    assert kafka.scan(name, value=value, columns=COLUMNS).head(20).to_pylist() == 2 * ROWS


def test_rows_of_avro_events(kafka: ottla.Client, name: str, registry: Registry) -> None:
    row = {
        "type": "record",
        "name": "Value",
        "fields": [
            {"name": "id", "type": "long"},
            {"name": "name", "type": ["null", "string"], "default": None},
        ],
    }
    source = {
        "type": "record",
        "name": "Source",
        "fields": [
            {"name": "version", "type": "string"},
            {"name": "connector", "type": "string"},
            {"name": "table", "type": "string"},
            {"name": "lsn", "type": ["null", "long"], "default": None},
        ],
    }
    envelope = {
        "type": "record",
        "name": "Envelope",
        "namespace": "db.public.users",
        "fields": [
            {"name": "before", "type": ["null", row], "default": None},
            {"name": "after", "type": ["null", "Value"], "default": None},
            {"name": "source", "type": source},
            {"name": "op", "type": "string"},
            {"name": "ts_ms", "type": ["null", "long"], "default": None},
        ],
    }
    with SchemaRegistryClient({"url": registry.url}) as client:
        serializer = AvroSerializer(client, json.dumps(envelope))
        context = SerializationContext(name, MessageField.VALUE)
        for one in EVENTS:
            kafka.send(name, serializer(one, context), partition=0)
    kafka.send(name, None, partition=0)
    for columns_from in ("latest", "first"):
        inner = ottla.avro(registry=registry.url, columns_from=columns_from)
        rows = kafka.scan(name, value=ottla.debezium(inner, unwrap=True), columns=COLUMNS)
        assert rows.head(10).to_pylist() == ROWS
        parts = kafka.scan(name, value=ottla.debezium(inner), columns=["before", "op", "ts_ms"])
        assert parts.head(10).to_pylist()[3] == {
            "before": ANNE,
            "op": "d",
            "ts_ms": NOON.replace(second=3),
        }


def test_a_row_with_the_names_of_the_envelope(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, '{"before": null, "after": {"op": 5, "id": 1}, "op": "c", "ts_ms": 0}')
    value = ottla.debezium(unwrap=True)
    (row,) = kafka.scan(name, value=value, columns=["id", "op", "__op", "ts_ms"]).head().to_pylist()
    assert (row["id"], row["op"], row["__op"]) == (1, 5, "c")
    assert row["ts_ms"] == datetime(1970, 1, 1, tzinfo=timezone.utc)


def test_what_is_no_event_does_not_decode(kafka: ottla.Client, name: str) -> None:
    send(kafka, name, wrapped=False)
    kafka.send(name, '{"id": 3}', partition=0)
    value = ottla.debezium(ottla.json(ROW), unwrap=True)
    with pytest.raises(ottla.DecodeError, match=r"5.*not a Debezium event"):
        list(kafka.scan(name, value=value))
    kafka.send(name, "nonsense", partition=0)
    found = kafka.scan(name, value=value, columns=["id", "error"], on_error="column")
    assert [row["error"] is None for row in found.head(10).to_pylist()] == [True] * 5 + [False] * 2
    kept = kafka.scan(name, value=value, columns=COLUMNS, on_error=f"dlq:{name}.dlq")
    assert [row for batch in kept for row in batch.to_pylist()] == ROWS
    assert kafka.scan(f"{name}.dlq").count() == 2
    other = f"{name}.other"
    kafka.send(other, '{"id": 3}')
    with pytest.raises(ottla.DecodeError, match="not a Debezium event"):
        kafka.scan(other, value=ottla.debezium()).head()


def test_mistakes_are_told(kafka: ottla.Client, name: str) -> None:
    with pytest.raises(ottla.ConfigError, match=r"json\(\), avro\(\)"):
        ottla.debezium(ottla.raw())
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match="for reading"):
        kafka.write(name, pa.table({"id": [1]}), value=ottla.debezium())
    assert repr(ottla.debezium(unwrap=True)) == "ottla.debezium(ottla.json(), unwrap=True)"


PROTO = """syntax = "proto3";
package db;
message Envelope {
  optional Value before = 1;
  optional Value after = 2;
  Source source = 3;
  string op = 4;
  optional int64 ts_ms = 5;
}
message Value { int64 id = 1; optional string name = 2; }
message Source { string version = 1; string connector = 2; string table = 3; int64 lsn = 4; }
"""


def test_rows_of_protobuf_events(kafka: ottla.Client, name: str, registry: Registry) -> None:
    known = ottla.SchemaRegistry(registry.url)
    for one in EVENTS:
        value = ottla.protobuf(PROTO, message="db.Envelope", registry=known)
        kafka.send(name, one, value_format=value, partition=0)
    kafka.send(name, None, partition=0)
    formats = [
        ottla.protobuf(PROTO, message="db.Envelope", framed=True),
        ottla.protobuf(registry=known),
        ottla.protobuf(registry=known, columns_from="first"),
    ]
    for inner in formats:
        rows = kafka.scan(name, value=ottla.debezium(inner, unwrap=True), columns=COLUMNS)
        assert rows.head(10).to_pylist() == ROWS
        parts = kafka.scan(
            name, value=ottla.debezium(inner), columns=["before", "source", "op", "ts_ms"]
        )
        assert parts.head(10).to_pylist()[3] == {
            "before": ANNE,
            "source": SOURCE,
            "op": "d",
            "ts_ms": NOON.replace(second=3),
        }
    with kafka.consumer(
        name,
        group_id=name,
        auto_offset_reset="earliest",
        until="caught_up",
        value=ottla.debezium(formats[1], unwrap=True),
        columns=COLUMNS,
    ) as consumer:
        assert [row for batch in consumer for row in batch.to_pylist()] == ROWS


def test_protobuf_values_that_are_no_events(kafka: ottla.Client, name: str) -> None:
    value = ottla.protobuf(PROTO, message="db.Envelope")
    kafka.send(name, {"ts_ms": 5}, value_format=value)
    with pytest.raises(ottla.DecodeError, match="not a Debezium event"):
        kafka.scan(name, value=ottla.debezium(value)).head()
    row = ottla.protobuf(PROTO, message="db.Value")
    with pytest.raises(ottla.ConfigError, match="not Debezium events"):
        kafka.scan(name, value=ottla.debezium(row)).head()


def unwrapped(kafka: ottla.Client, topic: str, value: ottla.Format, *events: Any) -> list[Any]:
    """Send events, and return their rows without the columns of records."""
    for one in events:
        kafka.send(topic, json.dumps(one), partition=0)
    found = kafka.scan(topic, value=value, on_error="column").head(100)
    reserved = {"topic", "partition", "offset", "timestamp", "timestamp_type", "key", "headers"}
    names = [name for name in found.schema if name not in reserved | {"value_raw", "ts_ms"}]
    return [{name: row[name] for name in names} for row in found.to_pylist()]


def test_a_row_has_the_columns_before_and_after_a_change(kafka: ottla.Client, name: str) -> None:
    dropped = {"id": 1, "old": "x"}
    events = [event("c", None, {"id": 1}, 0), event("d", dropped, None, 1)]
    rows = unwrapped(kafka, name, ottla.debezium(unwrap=True), *events)
    assert rows == [
        {"id": 1, "old": None, "op": "c", "error": None},
        {"id": 1, "old": "x", "op": "d", "error": None},
    ]
    parts = kafka.scan(name, value=ottla.debezium(), columns=["before", "after"]).head().to_pylist()
    assert parts == [
        {"before": None, "after": {"id": 1, "old": None}},
        {"before": dropped, "after": None},
    ]


def test_of_a_member_that_is_there_twice_the_last_counts(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    rest = '"op":"c","op":"r","ts_ms":1}'
    kafka.send(name, '{"before":null,"after":{"id":1},"after":{"id":2,"id":3},' + rest)
    kafka.send(
        name, '{"payload":{"after":{"id":1},' + rest + ',"payload":{"after":{"id":3},' + rest + "}"
    )
    form = ottla.debezium(unwrap=True)
    for columns in (["id"], ["op"], ["id", "op"]):
        found = kafka.scan(name, value=form, columns=columns).to_pyarrow().to_pylist()
        assert found == [{one: {"id": 3, "op": "r"}[one] for one in columns}] * 2
    after = kafka.scan(name, value=ottla.debezium(unwrap=False), columns=["after"]).to_pyarrow()
    assert after["after"].to_pylist() == [{"id": 3}] * 2


def test_events_without_a_row_have_op_and_nulls(kafka: ottla.Client, name: str) -> None:
    truncation = {"op": "t", "ts_ms": 0, "before": None, "after": None}
    rows = unwrapped(kafka, name, ottla.debezium(unwrap=True), truncation, truncation)
    assert rows == [{"before": None, "after": None, "op": "t", "error": None}] * 2
    asked = kafka.scan(name, value=ottla.debezium(unwrap=True), columns=["id", "op"])
    assert asked.head().to_pylist() == [{"id": None, "op": "t"}] * 2
    # The columns of rows come with rows, also in a consumer that began without any.
    value = ottla.debezium(unwrap=True)
    with kafka.consumer(name, start="earliest", value=value) as consumer:
        first = consumer.poll(30)
        assert first is not None
        assert [row["op"] for row in first.to_pylist()] == ["t", "t"]
        kafka.send(name, json.dumps(event("c", None, ANNA, 0)), partition=0)
        second = consumer.poll(30)
        assert second is not None
        (row,) = second.to_pylist()
        assert (row["id"], row["name"], row["op"]) == (1, "Anna", "c")
    scan = kafka.scan(name, value=value, columns=["name", "op"]).head()
    assert [(row["name"], row["op"]) for row in scan.to_pylist()] == [
        (None, "t"),
        (None, "t"),
        ("Anna", "c"),
    ]


def test_documents_of_mongodb_are_text(kafka: ottla.Client, name: str) -> None:
    document = '{"_id": {"$oid": "63e3"}, "n": {"$numberLong": "5"}}'
    updated = {"updatedFields": '{"n": 6}', "removedFields": None}
    change = {"op": "u", "ts_ms": 0, "before": None, "after": None, "updateDescription": updated}
    rows = unwrapped(
        kafka, name, ottla.debezium(unwrap=True), event("c", None, document, 0), change
    )
    assert [(row["after"], row["op"], row["error"]) for row in rows] == [
        (document, "c", None),
        (None, "u", None),
    ]
    assert rows[1]["updateDescription"]["updatedFields"] == '{"n": 6}'
    with pytest.raises(ottla.DecodeError, match=r"documents.*without a schema of the row"):
        kafka.scan(name, value=ottla.debezium(ottla.json(ROW), unwrap=True)).head()


def base64_of(number: int) -> str:
    """As Kafka Connect writes the unscaled number of a decimal."""
    size = number.bit_length() // 8 + 1
    return base64.b64encode(number.to_bytes(size, "big", signed=True)).decode()


def connect_schema(scale: int) -> dict[str, Any]:
    """The part of an event's schema that says what its row is."""
    decimal = {
        "type": "bytes",
        "name": "org.apache.kafka.connect.data.Decimal",
        "parameters": {"scale": str(scale), "connect.decimal.precision": "9"},
    }
    fields = [
        {"type": "int32", "field": "id"},
        {**decimal, "field": "price"},
        {"type": "array", "items": decimal, "field": "prices"},
        {"type": "int32", "name": "org.apache.kafka.connect.data.Date", "field": "day"},
        {"type": "bytes", "field": "blob"},
    ]
    rows = [{"type": "struct", "fields": fields, "field": part} for part in ("before", "after")]
    return {"type": "struct", "fields": [*rows, {"type": "string", "field": "op"}]}


@pytest.mark.parametrize("given", [False, True])
def test_decimals_are_read_by_the_schema_beside_the_event(
    kafka: ottla.Client, name: str, *, given: bool
) -> None:
    def wrapped(scale: int, number: int) -> Any:
        text = base64_of(number)
        row = {"id": 1, "price": text, "prices": [text, None], "day": 19_000, "blob": "AAEC"}
        return {"schema": connect_schema(scale), "payload": event("c", None, row, 0)}

    types = {
        "id": "int32",
        "price": "decimal128[11, 4]",
        "prices": "list<decimal128[11, 4]>",
        "day": "date32",
        "blob": "binary",
    }
    value = ottla.debezium(ottla.json(types if given else None), unwrap=True)
    # A column that was altered has another scale.
    rows = unwrapped(kafka, name, value, wrapped(2, -1250), wrapped(4, 1), wrapped(2, 1250))
    assert [row["price"] for row in rows] == [Decimal("-12.5"), Decimal("0.0001"), Decimal("12.5")]
    assert [row["prices"] for row in rows] == [[row["price"], None] for row in rows]
    assert rows[0]["day"] == date(2022, 1, 8)
    assert rows[0]["blob"] == b"\0\1\2"
    narrow = ottla.debezium(ottla.json({"price": "decimal128[9, 2]"}), unwrap=True)
    with pytest.raises(ottla.DecodeError, match=r'offset 1: column "price".*cannot hold'):
        list(kafka.scan(name, value=narrow))


def test_decimals_are_read_by_the_type_that_is_given(kafka: ottla.Client, name: str) -> None:
    row = ottla.json({"price": "decimal128[9, 2]"})
    values = ["12.50", base64_of(-1250), 12.5, {"scale": 1, "value": base64_of(125)}, None]
    events = [event("c", None, {"price": one}, 0) for one in values]
    found = unwrapped(kafka, name, ottla.debezium(row, unwrap=True), *events)
    price = Decimal("12.50")
    assert [one["price"] for one in found] == [price, -price, price, price, None]
    assert [one["error"] for one in found] == [None] * 5
    both = f"{name}.both"
    (found_row,) = unwrapped(
        kafka, both, ottla.debezium(row, unwrap=True), event("c", None, {"price": "1250"}, 0)
    )
    assert found_row["price"] is None
    assert found_row["op"] is None
    assert "decimals=" in found_row["error"]
    unscaled = int.from_bytes(base64.b64decode("1250"), "big", signed=True)
    readings: dict[Literal["precise", "string"], Decimal] = {
        "string": Decimal(1250),
        "precise": Decimal(unscaled) / 100,
    }
    for decimals, wanted in readings.items():
        value = ottla.debezium(row, unwrap=True, decimals=decimals)
        assert kafka.scan(both, value=value, columns=["price"]).head()["price"].to_pylist() == [
            wanted
        ]
        parts = ottla.debezium(row, decimals=decimals)
        after = kafka.scan(both, value=parts, columns=["after"]).head()["after"].to_pylist()
        assert after == [{"price": wanted}]
    with pytest.raises(ottla.ConfigError, match="precise or string"):
        ottla.debezium(decimals="text")  # type: ignore[arg-type]
