"""Avro values, against fastavro: both directions, whatever the schema."""

from __future__ import annotations

import io
import json
import random
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar

import fastavro
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path

    from ottla.formats import Format

Record = dict[str, Any]


def record(*fields: tuple[str, Any], name: str = "Row") -> Record:
    return {
        "type": "record",
        "name": name,
        "fields": [{"name": field, "type": kind} for field, kind in fields],
    }


def encode(schema: Any, value: Any) -> bytes:
    target = io.BytesIO()
    fastavro.schemaless_writer(target, fastavro.parse_schema(schema), value)
    return target.getvalue()


def decode(schema: Any, data: bytes) -> Any:
    source = io.BytesIO(data)
    value = fastavro.schemaless_reader(source, fastavro.parse_schema(schema), None)
    assert not source.read()
    return value


def logical(kind: str, name: str, **more: int) -> Record:
    return {"type": kind, "logicalType": name, **more}


def send_all(kafka: ottla.Client, topic: str, values: list[bytes | None]) -> None:
    for value in values[:-1]:
        kafka.send_async(topic, value, partition=0)
    kafka.send(topic, values[-1], partition=0)


def read(kafka: ottla.Client, topic: str, value: Format, names: list[str]) -> list[Record]:
    return kafka.scan(topic, value=value, columns=names).head(10_000).to_pylist()


EVERYTHING = record(
    ("flag", "boolean"),
    ("small", "int"),
    ("large", "long"),
    ("ratio", "float"),
    ("exact", "double"),
    ("blob", "bytes"),
    ("text", "string"),
    ("maybe", ["null", "string"]),
    ("maybe_last", ["long", "null"]),
    ("colour", {"type": "enum", "name": "Colour", "symbols": ["RED", "GREEN", "BLUE"]}),
    ("numbers", {"type": "array", "items": "long"}),
    ("holes", {"type": "array", "items": ["null", "double"]}),
    ("scores", {"type": "map", "values": "int"}),
    ("inner", record(("x", "int"), ("deep", record(("y", "string"), name="Deep")), name="Inner")),
    ("inners", {"type": "array", "items": "Inner"}),
    ("maybe_inner", ["null", "Inner"]),
    ("digest", {"type": "fixed", "name": "Digest", "size": 4}),
    ("day", logical("int", "date")),
    ("noon", logical("int", "time-millis")),
    ("tea", logical("long", "time-micros")),
    ("at_ms", logical("long", "timestamp-millis")),
    ("at_us", logical("long", "timestamp-micros")),
    ("local_us", logical("long", "local-timestamp-micros")),
    ("price", logical("bytes", "decimal", precision=12, scale=2)),
    ("maybe_price", ["null", logical("bytes", "decimal", precision=30, scale=6)]),
)


def some_row(random: random.Random) -> Record:
    def text() -> str:
        letters = 'aéλ😀 \n"\\0'
        return "".join(random.choice(letters) for _ in range(random.randrange(30)))

    def inner() -> Record:
        return {"x": random.randrange(-(2**31), 2**31), "deep": {"y": text()}}

    moment = datetime(2020, 1, 1, tzinfo=timezone.utc) + timedelta(
        milliseconds=random.randrange(-(10**12), 10**12)
    )
    micros = moment + timedelta(microseconds=random.randrange(1000))
    bits = random.randrange(1, 63)
    return {
        "flag": random.random() < 0.5,
        "small": random.randrange(-(2**31), 2**31) >> random.randrange(31),
        "large": random.randrange(-(2**bits), 2**bits),
        "ratio": random.randrange(-1000, 1000) / 8,
        "exact": random.gauss(0, 1e9),
        "blob": random.randbytes(random.randrange(30)),
        "text": text(),
        "maybe": random.choice([None, text()]),
        "maybe_last": random.choice([None, random.randrange(100)]),
        "colour": random.choice(["RED", "GREEN", "BLUE"]),
        "numbers": [random.randrange(-100, 100) for _ in range(random.randrange(5))],
        "holes": [random.choice([None, 0.5]) for _ in range(random.randrange(5))],
        "scores": {f"k{n}": random.randrange(100) for n in range(random.randrange(4))},
        "inner": inner(),
        "inners": [inner() for _ in range(random.randrange(3))],
        "maybe_inner": random.choice([None, inner()]),
        "digest": random.randbytes(4),
        "day": date(1970, 1, 1) + timedelta(days=random.randrange(-50_000, 50_000)),
        "noon": time(random.randrange(24), random.randrange(60), 1, 5000),
        "tea": time(random.randrange(24), random.randrange(60), 1, 5),
        "at_ms": moment,
        "at_us": micros,
        "local_us": micros.replace(tzinfo=None),
        "price": Decimal(random.randrange(-(10**12) + 1, 10**12)).scaleb(-2),
        "maybe_price": random.choice([None, Decimal(random.randrange(10**30)).scaleb(-6)]),
    }


def some_rows(count: int) -> list[Record]:
    source = random.Random(7)
    return [some_row(source) for _ in range(count)]


NAMES = [field["name"] for field in EVERYTHING["fields"]]


def test_what_fastavro_wrote_is_read_to_the_same_values(kafka: ottla.Client, name: str) -> None:
    rows = some_rows(300)
    send_all(kafka, name, [encode(EVERYTHING, row) for row in rows])
    assert read(kafka, name, ottla.avro(EVERYTHING), NAMES) == rows


def test_fastavro_reads_what_was_written(kafka: ottla.Client, name: str) -> None:
    rows = some_rows(300)
    send_all(kafka, name, [encode(EVERYTHING, row) for row in rows])
    scan = kafka.scan(name, value=ottla.avro(EVERYTHING), columns=NAMES)
    again = f"{name}.again"
    assert kafka.write(again, scan, value=ottla.avro(EVERYTHING), partition=0) == 300
    values = kafka.scan(again, columns=["value"]).head(1000)["value"].to_pylist()
    assert [decode(EVERYTHING, value) for value in values] == rows


def test_the_columns_have_the_types_of_the_schema(kafka: ottla.Client, name: str) -> None:
    scan = kafka.scan(*make(kafka, name), value=ottla.avro(EVERYTHING), columns=NAMES)
    assert scan.schema == {
        "flag": "bool",
        "small": "int32",
        "large": "int64",
        "ratio": "float32",
        "exact": "float64",
        "blob": "binary_view",
        "text": "string_view",
        "maybe": "string_view",
        "maybe_last": "int64",
        "colour": "dictionary<utf8>",
        "numbers": "list<int64>",
        "holes": "list<float64>",
        "scores": "map<string_view, int32>",
        "inner": "struct<x: int32, deep: struct<y: string_view>>",
        "inners": "list<struct<x: int32, deep: struct<y: string_view>>>",
        "maybe_inner": "struct<x: int32, deep: struct<y: string_view>>",
        "digest": "fixed_size_binary[4]",
        "day": "date32",
        "noon": "time32[ms]",
        "tea": "time64[us]",
        "at_ms": "timestamp[ms, UTC]",
        "at_us": "timestamp[us, UTC]",
        "local_us": "timestamp[us]",
        "price": "decimal128[12, 2]",
        "maybe_price": "decimal128[30, 6]",
    }


def make(kafka: ottla.Client, name: str) -> tuple[str]:
    kafka.create_topic(name, partitions=1)
    return (name,)


def test_dataframes_take_all_of_it(kafka: ottla.Client, name: str) -> None:
    rows = some_rows(20)
    send_all(kafka, name, [encode(EVERYTHING, row) for row in rows])
    scan = kafka.scan(name, value=ottla.avro(EVERYTHING), columns=NAMES)
    assert scan.to_pyarrow()["text"].to_pylist() == [row["text"] for row in rows]
    assert scan.to_polars()["price"].to_list() == [row["price"] for row in rows]
    assert scan.to_pandas()["large"].to_list() == [row["large"] for row in rows]
    batch = scan.head(20).compact()
    assert batch.to_pylist() == rows
    plain = scan.head(20).plain()
    assert plain.schema["scores"] == "map<utf8, int32>"
    assert plain.to_pylist() == rows


def test_a_union_of_several_types_is_a_struct_of_them(kafka: ottla.Client, name: str) -> None:
    schema = record(("id", ["null", "long", "string", record(("a", "int"), name="A")]))
    values: list[Any] = [5, "five", None, {"a": 5}]
    send_all(kafka, name, [encode(schema, {"id": value}) for value in values])
    found = kafka.scan(name, value=ottla.avro(schema), columns=["id"])
    assert found.head().to_pylist() == [
        {"id": {"long": 5, "string": None, "A": None}},
        {"id": {"long": None, "string": "five", "A": None}},
        {"id": None},
        {"id": {"long": None, "string": None, "A": {"a": 5}}},
    ]
    kafka.write(f"{name}.again", found, value=ottla.avro(schema), partition=0)
    again = kafka.scan(f"{name}.again", columns=["value"]).head()["value"].to_pylist()
    assert [decode(schema, value)["id"] for value in again] == values


def test_tombstones_are_null_rows(kafka: ottla.Client, name: str) -> None:
    schema = record(("id", "int"))
    send_all(kafka, name, [encode(schema, {"id": 1}), None])
    rows = read(kafka, name, ottla.avro(schema), ["offset", "id", "is_tombstone"])
    assert rows == [
        {"offset": 0, "id": 1, "is_tombstone": False},
        {"offset": 1, "id": None, "is_tombstone": True},
    ]


def test_headers_are_columns(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, "a", headers=[("trace", "x"), ("trace", "y"), ("bin", b"\xff")])
    kafka.send(name, "b")
    kafka.send(name, "c", headers={"trace": b"\xff"})
    columns: list[str | ottla.Header] = [
        "value",
        ottla.header("trace"),
        ottla.header("bin", name="raw bytes", text=False),
    ]
    with pytest.raises(ottla.DecodeError, match=r"header.*UTF-8"):
        list(kafka.scan(name, columns=columns))
    rows = kafka.scan(name, columns=columns, value=ottla.text(), on_error="null").head().to_pylist()
    assert rows == [
        {"value": "a", "trace": "y", "raw bytes": b"\xff"},
        {"value": "b", "trace": None, "raw bytes": None},
        {"value": "c", "trace": None, "raw bytes": None},
    ]
    with kafka.consumer(
        name,
        start="earliest",
        until="caught_up",
        columns=["offset", ottla.header("bin")],
        on_error="null",
    ) as consumer:
        (batch,) = consumer
    assert batch.schema == {"offset": "int64", "bin": "string_view"}
    assert repr(columns[1]) == "ottla.header('trace')"
    with pytest.raises(ottla.ConfigError, match="taken"):
        kafka.scan(name, columns=[ottla.header("offset")]).head()
    tail = kafka[name].tail(1, columns=["offset", columns[2]], on_error="null")
    assert tail.to_pylist() == [{"offset": 2, "raw bytes": None}]
    assert kafka.scan(name, columns=columns).count() == 3


class TestWhatDoesNotDecode:
    SCHEMA = record(("id", "int"), ("name", "string"))

    @pytest.fixture
    def topic(self, kafka: ottla.Client, name: str) -> str:
        good = encode(self.SCHEMA, {"id": 1, "name": "one"})
        # Truncated, with extra bytes, and with a text of a billion bytes.
        bad = [good[:-1], good + b"\0", b"\x02\xfe\xff\xff\xff\x0f"]
        send_all(kafka, name, [good, *bad, good])
        return name

    def test_raises(self, kafka: ottla.Client, topic: str) -> None:
        with pytest.raises(ottla.DecodeError, match=rf'{topic}.*1.*"name".*ends early'):
            list(kafka.scan(topic, value=ottla.avro(self.SCHEMA)))

    def test_becomes_null(self, kafka: ottla.Client, topic: str) -> None:
        scan = kafka.scan(topic, value=ottla.avro(self.SCHEMA), columns=["id"], on_error="null")
        assert scan.head()["id"].to_pylist() == [1, None, None, None, 1]

    def test_is_told_in_a_column(self, kafka: ottla.Client, topic: str) -> None:
        scan = kafka.scan(topic, value=ottla.avro(self.SCHEMA), on_error="column")
        batch = scan.head()
        errors = batch["error"].to_pylist()
        assert errors[0] is errors[4] is None
        assert "ends early" in errors[1]
        assert "1 bytes are left" in errors[2]
        assert "ends early" in errors[3]
        assert batch["value_raw"].to_pylist()[2].endswith(b"\0")

    def test_goes_to_a_dead_letter_topic(self, kafka: ottla.Client, topic: str) -> None:
        with kafka.consumer(
            topic,
            start="earliest",
            until="caught_up",
            value=ottla.avro(self.SCHEMA),
            on_error=f"dlq:{topic}.dlq",
        ) as consumer:
            found = [id_ for batch in consumer for id_ in batch["id"].to_pylist()]
        assert found == [1, 1]
        assert kafka.scan(f"{topic}.dlq").count() == 3


class TestEvolution:
    OLD: ClassVar = record(("id", "int"), ("name", "string"), ("gone", "string"))
    NEW: ClassVar[Record] = {
        "type": "record",
        "name": "Row",
        "fields": [
            {"name": "city", "type": "string", "default": "nowhere"},
            {"name": "id", "type": "long"},
            {"name": "title", "type": ["null", "string"], "aliases": ["name"], "default": None},
        ],
    }

    def test_fastavro_resolves_alike(self, kafka: ottla.Client, name: str, registry: Any) -> None:
        old = registry.register(f"{name}-value", self.OLD)
        new = registry.register(f"{name}-value", self.NEW)
        row = {"id": 7, "name": "n", "gone": "g"}
        later = {"city": "Rome", "id": 2**40, "title": None}
        values = [(old, self.OLD, row), (new, self.NEW, later), (old, self.OLD, row)]
        send_all(
            kafka,
            name,
            [b"\0" + id_.to_bytes(4, "big") + encode(schema, one) for id_, schema, one in values],
        )
        expected = [
            fastavro.schemaless_reader(
                io.BytesIO(encode(schema, one)),
                fastavro.parse_schema(schema),
                fastavro.parse_schema(self.NEW),
            )
            for _, schema, one in values
        ]
        columns = ["city", "id", "title"]
        latest = ottla.avro(registry=registry.url)
        assert read(kafka, name, latest, columns) == expected
        given = ottla.avro(self.NEW, registry=registry.url)
        assert read(kafka, name, given, columns) == expected
        first = ottla.avro(registry=registry.url, columns_from="first")
        with pytest.raises(ottla.DecodeError, match=rf"{name}.*1.*schema 2"):
            list(kafka.scan(name, value=first))
        found = kafka.scan(name, value=first, columns=["id", "gone"], on_error="null")
        ids = found.head()["id"].to_pylist()
        assert (ids[0], ids[2]) == (7, 7)


def test_the_schema_may_come_in_many_ways(kafka: ottla.Client, name: str, tmp_path: Path) -> None:
    schema = record(("id", "int"))
    file = tmp_path / "row.avsc"
    file.write_text(json.dumps(schema))
    send_all(kafka, name, [encode(schema, {"id": 1})])
    for given in (schema, json.dumps(schema), file):
        assert read(kafka, name, ottla.avro(given), ["id"]) == [{"id": 1}]


def test_a_schema_from_the_table_is_made_when_writing(kafka: ottla.Client, name: str) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int32()),
            "name": ["a", None],
            "when": pa.array([0, 1], pa.timestamp("us", "UTC")),
            "where": ["x", "y"],
        }
    )
    kafka.write(name, table, key="where", value=ottla.avro(exclude=["name"]), partition=0)
    schema = record(
        ("id", ["null", "int"]), ("when", ["null", logical("long", "timestamp-micros")])
    )
    values = kafka.scan(name, columns=["value"]).head()["value"].to_pylist()
    assert [decode(schema, value)["id"] for value in values] == [1, 2]


def test_mistakes_are_told(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match="schema"):
        kafka.scan(name, value=ottla.avro()).head()
    with pytest.raises(ottla.ConfigError, match="Avro schema"):
        kafka.scan(name, value=ottla.avro('{"type": "recrod"}'))
    with pytest.raises(ottla.ConfigError, match="exclude"):
        kafka.scan(name, value=ottla.avro("int", exclude=["a"]))
    with pytest.raises(ottla.ConfigError, match=r"columns_from"):
        ottla.avro(columns_from="oldest")
    with pytest.raises(TypeError, match="schema"):
        ottla.avro(5)
    table = pa.table({"id": [1], "more": [2]})
    with pytest.raises(ottla.ConfigError, match='"more" is not in the Avro schema'):
        kafka.write(name, table, value=ottla.avro(record(("id", "long"))))
    with pytest.raises(ottla.ConfigError, match=r'column "id".*null'):
        kafka.write(
            name,
            pa.table({"id": pa.array([None], pa.int64())}),
            value=ottla.avro(record(("id", "long"))),
        )
    with pytest.raises(ottla.ConfigError, match="registry"):
        kafka.write(name, pa.table({"id": [1]}), value=ottla.avro(framed=True))
