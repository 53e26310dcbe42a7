"""Protobuf values, against Google's own package and confluent-kafka's serializers."""

from __future__ import annotations

import random
import warnings
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import ottla

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import SchemaRegistryClient
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from grpc_tools import protoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registries import Registry

SHOP = """
syntax = "proto3";
package shop;

import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";
import "google/protobuf/wrappers.proto";

enum Colour { RED = 0; GREEN = 1; BLUE = 7; }

message Inner {
  int32 x = 1;
  repeated string names = 2;
  message Deep { sint64 y = 1; optional bool z = 2; }
  Deep deep = 3;
}

message Everything {
  double a = 1;
  float b = 2;
  int32 c = 3;
  int64 d = 4;
  uint32 e = 5;
  uint64 f = 6;
  sint32 g = 7;
  sint64 h = 8;
  fixed32 i = 9;
  fixed64 j = 10;
  sfixed32 k = 11;
  sfixed64 l = 12;
  bool m = 13;
  string n = 14;
  bytes o = 15;
  Colour p = 16;
  repeated int64 q = 17;
  repeated string r = 18;
  map<string, int64> s = 19;
  Inner t = 20;
  repeated Inner u = 21;
  map<int32, Inner> v = 2000;
  oneof choice { int64 w1 = 30; string w2 = 31; Inner.Deep w3 = 32; }
  google.protobuf.Timestamp x = 33;
  google.protobuf.Int64Value y = 34;
  optional int32 z = 35;
  repeated Colour aa = 36;
  repeated double ab = 37 [packed = false];
  google.protobuf.Duration ac = 38;
  optional string ad = 39;
}
"""

NAMES = [*"abcdefghijklmnopqrstuv", "w1", "w2", "w3", "x", "y", "z", "aa", "ab", "ac", "ad"]


def compiled(text: str, folder: Path) -> bytes:
    """Compile with Google's compiler."""
    source = folder / "schema.proto"
    source.write_text(text)
    out = folder / "schema.desc"
    include = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main(["", *arguments, str(source)]) == 0
    return out.read_bytes()


def message_class(descriptors: bytes, name: str) -> Any:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(descriptors).file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(name))


@pytest.fixture(scope="module")
def descriptors(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compiled(SHOP, tmp_path_factory.mktemp("proto"))


@pytest.fixture(scope="module")
def everything(descriptors: bytes) -> Any:
    """The class of the message."""
    return message_class(descriptors, "shop.Everything")


def fill(message: Any, source: random.Random) -> Any:  # noqa: C901, PLR0912
    """Set some fields of a message of any type."""
    for field in message.DESCRIPTOR.fields:
        if source.random() < 0.35:
            continue
        repeated = field.is_repeated
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            for _ in range(source.randrange(4)):
                key = some(entry.fields_by_name["key"], source)
                target = getattr(message, field.name)
                if entry.fields_by_name["value"].message_type is None:
                    target[key] = some(entry.fields_by_name["value"], source)
                else:
                    fill(target[key], source)
        elif repeated:
            for _ in range(source.randrange(4)):
                if entry is None:
                    getattr(message, field.name).append(some(field, source))
                else:
                    fill(getattr(message, field.name).add(), source)
        elif entry is None:
            setattr(message, field.name, some(field, source))
        elif entry.full_name in {"google.protobuf.Timestamp", "google.protobuf.Duration"}:
            inner = getattr(message, field.name)
            inner.seconds = source.randrange(-(10**9), 10**9)
            nanos = source.randrange(10**6) * 1000
            negative = inner.seconds < 0 and entry.name == "Duration"
            inner.nanos = -nanos if negative else nanos
        else:
            getattr(message, field.name).SetInParent()
            fill(getattr(message, field.name), source)
    return message


def some(field: Any, source: random.Random) -> Any:  # noqa: PLR0911
    kinds = type(field)
    bits = source.randrange(1, 31)
    match field.type:
        case kinds.TYPE_DOUBLE:
            return source.gauss(0, 1e6)
        case kinds.TYPE_FLOAT:
            return source.randrange(-999, 999) / 8
        case kinds.TYPE_BOOL:
            return source.random() < 0.5
        case kinds.TYPE_STRING:
            return "aé😀"[: source.randrange(4)] * source.randrange(60)
        case kinds.TYPE_BYTES:
            return source.randbytes(source.randrange(200))
        case kinds.TYPE_ENUM:
            return source.choice([0, 1, 7])
        case kinds.TYPE_UINT32 | kinds.TYPE_FIXED32:
            return source.randrange(2**32) >> bits
        case kinds.TYPE_UINT64 | kinds.TYPE_FIXED64:
            return source.randrange(2**64) >> 2 * bits
        case kinds.TYPE_INT32 | kinds.TYPE_SINT32 | kinds.TYPE_SFIXED32:
            return source.randrange(-(2**31), 2**31) >> bits
        case _:
            return source.randrange(-(2**63), 2**63) >> 2 * bits


def shown(message: Any) -> dict[str, Any]:
    """Show a message as the row that it should become."""
    row: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        entry = field.message_type
        repeated = field.is_repeated
        if entry is not None and entry.GetOptions().map_entry:
            inner = entry.fields_by_name["value"]
            row[field.name] = {key: shown_one(inner, one) for key, one in value.items()}
        elif repeated:
            row[field.name] = [shown_one(field, one) for one in value]
        elif field.has_presence and not message.HasField(field.name):
            row[field.name] = None
        else:
            row[field.name] = shown_one(field, value)
    return row


def shown_one(field: Any, value: Any) -> Any:
    if field.enum_type is not None:
        known = field.enum_type.values_by_number.get(value)
        return str(value) if known is None else known.name
    match field.message_type and field.message_type.full_name:
        case None:
            return value
        case "google.protobuf.Timestamp":
            micros = value.seconds * 10**6 + value.nanos // 1000
            return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=micros)
        case "google.protobuf.Duration":
            return timedelta(microseconds=value.seconds * 10**6 + value.nanos // 1000)
        case "google.protobuf.Int64Value":
            return value.value
        case _:
            return shown(value)


def send_all(kafka: ottla.Client, topic: str, values: list[bytes | None]) -> None:
    for value in values[:-1]:
        kafka.send_async(topic, value, partition=0)
    kafka.send(topic, values[-1], partition=0)


@pytest.fixture
def messages(kafka: ottla.Client, name: str, everything: Any) -> list[Any]:
    source = random.Random(3)
    messages = [fill(everything(), source) for _ in range(300)]
    send_all(kafka, name, [one.SerializeToString() for one in messages])
    return messages


def test_what_google_wrote_is_read_to_the_same_values(
    kafka: ottla.Client, name: str, messages: list[Any]
) -> None:
    scan = kafka.scan(name, value=ottla.protobuf(SHOP, message="Everything"), columns=NAMES)
    assert scan.head(1000).to_pylist() == [shown(one) for one in messages]


def test_google_reads_what_was_written(
    kafka: ottla.Client, name: str, messages: list[Any], everything: Any
) -> None:
    value = ottla.protobuf(SHOP, message="shop.Everything")
    scan = kafka.scan(name, value=value, columns=NAMES)
    kafka.write(f"{name}.again", scan, value=value, partition=0)
    again = kafka.scan(f"{name}.again", columns=["value"]).head(1000)["value"].to_pylist()
    assert [everything.FromString(one) for one in again] == messages
    # Without maps, whose order is free, the bytes are the same.
    plain = [one for one in zip(again, messages, strict=True) if len(one[1].s) < 2 > len(one[1].v)]
    assert len(plain) > 50
    assert all(one == message.SerializeToString() for one, message in plain)


def test_the_schema_may_come_in_many_ways(
    kafka: ottla.Client,
    name: str,
    messages: list[Any],
    everything: Any,
    descriptors: bytes,
    tmp_path: Path,
) -> None:
    (tmp_path / "shop.proto").write_text(SHOP)
    (tmp_path / "shop.desc").write_bytes(descriptors)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "shop.proto").write_text(SHOP)
    (tmp_path / "main.proto").write_text(
        'syntax = "proto3"; import public "sub/shop.proto";\n'
        "message Box { shop.Everything it = 1; }"
    )
    expected = [one.d for one in messages]
    for schema, message in [
        (everything, None),
        (everything.DESCRIPTOR, None),
        (descriptors, "shop.Everything"),
        (tmp_path / "shop.proto", "Everything"),
        (tmp_path / "shop.desc", "Everything"),
    ]:
        value = ottla.protobuf(schema, message=message)
        found = kafka.scan(name, value=value, columns=["d"]).head(1000)
        assert found["d"].to_pylist() == expected
    boxed = kafka.scan(name, value=ottla.protobuf(tmp_path / "main.proto"), on_error="null")
    assert boxed.schema["it"].startswith("struct<a: float64")


def test_the_columns_have_the_types_of_the_message(
    kafka: ottla.Client, name: str, messages: list[Any]
) -> None:
    value = ottla.protobuf(SHOP, message="Everything")
    schema = kafka.scan(name, value=value, columns=NAMES).schema
    assert len(messages) == 300
    assert schema["e"] == "uint32"
    assert schema["f"] == "uint64"
    assert schema["p"] == "dictionary<utf8>"
    assert schema["q"] == "list<int64>"
    assert schema["s"] == "map<string_view, int64>"
    assert schema["t"].startswith("struct<x: int32, names: list<string_view>, deep: struct<")
    assert schema["x"] == "timestamp[ns, UTC]"
    assert schema["y"] == "int64"
    table = kafka.scan(name, value=value, columns=NAMES).to_pyarrow()
    assert table["f"].to_pylist() == [one.f for one in messages]
    frame = kafka.scan(name, value=value, columns=["a", "n", "x"]).to_polars()
    assert frame["n"].to_list() == [one.n for one in messages]


def test_old_and_new_messages_are_read_alike(kafka: ottla.Client, name: str) -> None:
    old = 'syntax = "proto3"; message M { int32 a = 1; string gone = 2; }'
    new = 'syntax = "proto3"; message M { string late = 3; int64 a = 1; optional bool b = 4; }'
    table = pa.table({"a": [1, -2], "gone": ["x", ""]})
    kafka.write(name, table, value=ottla.protobuf(old), partition=0)
    found = kafka.scan(name, value=ottla.protobuf(new), columns=["late", "a", "b"]).head()
    assert found.to_pylist() == [{"late": "", "a": 1, "b": None}, {"late": "", "a": -2, "b": None}]


class TestRegistry:
    @pytest.fixture
    def confluent(self, registry: Registry) -> Iterator[SchemaRegistryClient]:
        with SchemaRegistryClient({"url": registry.url}) as client:
            yield client

    @staticmethod
    def context(topic: str) -> SerializationContext:
        return SerializationContext(topic, MessageField.VALUE)

    @pytest.fixture
    def plain(self, tmp_path: Path) -> Any:
        """A file of two messages, of which the second has one inside."""
        text = """syntax = "proto3"; package bank;
            message Other { int32 n = 1; }
            message Account { int64 id = 1; string owner = 2; message Entry { double sum = 1; }
                              repeated Entry entries = 3; }"""
        return text, compiled(text, tmp_path)

    @pytest.mark.parametrize("which", ["Other", "Account", "Account.Entry"])
    def test_what_confluents_serializer_wrote(
        self,
        kafka: ottla.Client,
        name: str,
        registry: Registry,
        confluent: SchemaRegistryClient,
        plain: Any,
        which: str,
    ) -> None:
        kind = message_class(plain[1], f"bank.{which}")
        serializer = ProtobufSerializer(kind, confluent, {"use.deprecated.format": False})
        source = random.Random(1)
        messages = [fill(kind(), source) for _ in range(20)]
        send_all(kafka, name, [serializer(one, self.context(name)) for one in messages])
        names = [field.name for field in kind.DESCRIPTOR.fields]
        expected = [shown(one) for one in messages]
        registry.requests.clear()
        first = ottla.protobuf(registry=registry.url, columns_from="first")
        latest = ottla.protobuf(registry=registry.url, message=which.rsplit(".", maxsplit=1)[-1])
        given = ottla.protobuf(kind, registry=registry.url)
        for value in (first, latest, given):
            found = kafka.scan(name, value=value, columns=names).head(100).to_pylist()
            assert found == expected
        assert registry.requests.count("GET /schemas/ids/1") <= 1

    @pytest.mark.parametrize("which", ["Other", "Account", "Account.Entry"])
    def test_confluents_deserializer_reads_what_was_written(
        self,
        kafka: ottla.Client,
        name: str,
        registry: Registry,
        confluent: SchemaRegistryClient,
        plain: Any,
        which: str,
    ) -> None:
        kind = message_class(plain[1], f"bank.{which}")
        source = random.Random(2)
        messages = [fill(kind(), source) for _ in range(20)]
        bare = ottla.protobuf(kind)
        send_all(kafka, name, [one.SerializeToString() for one in messages])
        rows = kafka.scan(name, value=bare, columns=[one.name for one in kind.DESCRIPTOR.fields])
        deserializer = ProtobufDeserializer(kind, {"use.deprecated.format": False}, confluent)
        for schema in (plain[0], kind):
            topic = f"{name}.{'text' if isinstance(schema, str) else 'class'}"
            value = ottla.protobuf(
                schema, message=which.rsplit(".", maxsplit=1)[-1], registry=registry.url
            )
            kafka.write(topic, rows, value=value, partition=0)
            found = kafka.scan(topic, columns=["value"]).head(100)["value"].to_pylist()
            assert [deserializer(one, self.context(topic)) for one in found] == messages
        again = ottla.protobuf(
            message=which.rsplit(".", maxsplit=1)[-1],
            registry=registry.url,
            subject=f"{name}.text-value",
        )
        kafka.write(f"{name}.latest", rows, value=again, partition=0)
        assert kafka.scan(f"{name}.latest", value=again).count() == 20

    def test_values_of_another_message_do_not_decode(
        self,
        kafka: ottla.Client,
        name: str,
        registry: Registry,
        confluent: SchemaRegistryClient,
        plain: Any,
    ) -> None:
        for which in ("Other", "Account"):
            kind = message_class(plain[1], f"bank.{which}")
            serializer = ProtobufSerializer(kind, confluent, {"use.deprecated.format": False})
            kafka.send(name, serializer(kind(), self.context(name)))
        value = ottla.protobuf(registry=registry.url, message="Account")
        with pytest.raises(ottla.DecodeError, match=r'is a "bank.Other", not a "bank.Account"'):
            list(kafka.scan(name, value=value))
        found = kafka.scan(name, value=value, columns=["id"], on_error="null").head()
        assert found["id"].to_pylist() == [None, 0]

    def test_schemas_may_import_others(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        registry.register("geo", 'syntax = "proto3"; message Point { int32 x = 1; }', "PROTOBUF")
        text = 'syntax = "proto3"; import "geo.proto"; message Place { Point at = 1; }'
        reference = {"name": "geo.proto", "subject": "geo", "version": 1}
        registry.register(f"{name}-value", text, "PROTOBUF", [reference])
        kafka.send(name, b"\0\0\0\0\x02\0" + b"\x0a\x02\x08\x05")
        value = ottla.protobuf(registry=registry.url)
        found = kafka.scan(name, value=value, columns=["at"]).head()
        assert found.to_pylist() == [{"at": {"x": 5}}]
        kafka.write(
            f"{name}.again",
            found,
            value=ottla.protobuf(registry=registry.url, subject=f"{name}-value"),
        )
        (again,) = kafka.scan(f"{name}.again", columns=["value"]).head()["value"].to_pylist()
        assert again == b"\0\0\0\0\x02\0" + b"\x0a\x02\x08\x05"


class TestWhatDoesNotDecode:
    SCHEMA = 'syntax = "proto3"; message M { int32 id = 1; string name = 2; }'

    @pytest.fixture
    def topic(self, kafka: ottla.Client, name: str) -> str:
        good = b"\x08\x01\x12\x03one"
        # Truncated, not UTF-8, and a text of four billion bytes.
        bad = [good[:-1], b"\x12\x01\xff", b"\x12\xff\xff\xff\xff\x0f"]
        send_all(kafka, name, [good, *bad, None, good])
        return name

    def test_raise_null_column_and_dead_letters(self, kafka: ottla.Client, topic: str) -> None:
        value = ottla.protobuf(self.SCHEMA)
        with pytest.raises(ottla.DecodeError, match=r'1.*field "name".*ends early|ends early'):
            list(kafka.scan(topic, value=value))
        columns = ["id", "name", "is_tombstone"]
        scan = kafka.scan(topic, value=value, columns=columns, on_error="null")
        assert scan.head(10)["id"].to_pylist() == [1, None, None, None, None, 1]
        assert scan.head(10)["is_tombstone"].to_pylist() == [False] * 4 + [True, False]
        errors = kafka.scan(topic, value=value, on_error="column").head(10)["error"].to_pylist()
        assert [error is None for error in errors] == [True, False, False, False, True, True]
        assert "UTF-8" in errors[2]
        with kafka.consumer(
            topic, start="earliest", until="caught_up", value=value, on_error=f"dlq:{topic}.dlq"
        ) as consumer:
            found = [id_ for batch in consumer for id_ in batch["id"].to_pylist()]
        assert found == [1, None, 1]
        assert kafka.scan(f"{topic}.dlq").count() == 3


def test_mistakes_are_told(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match=r"Protobuf schema:.*expected"):
        kafka.scan(name, value=ottla.protobuf("message {"))
    with pytest.raises(ottla.ConfigError, match=r"several messages.*shop\.Everything"):
        kafka.scan(name, value=ottla.protobuf(SHOP))
    with pytest.raises(ottla.ConfigError, match=r'no message "Nothing".*shop\.Inner'):
        kafka.scan(name, value=ottla.protobuf(SHOP, message="Nothing"))
    with pytest.raises(ottla.ConfigError, match="schema"):
        kafka.scan(name, value=ottla.protobuf()).head()
    with pytest.raises(ottla.ConfigError, match="FileDescriptorSet"):
        kafka.scan(name, value=ottla.protobuf(b"nonsense")).head()
    two = 'syntax = "proto3"; message M { oneof o { int32 a = 1; int32 b = 2; } }'
    table = pa.table({"a": [1], "b": [2]})
    with pytest.raises(ottla.ConfigError, match=r'"a" and "b" are members of the same oneof'):
        kafka.write(name, table, value=ottla.protobuf(two))
    with pytest.raises(ottla.ConfigError, match=r'"c" is not a field'):
        kafka.write(name, pa.table({"c": [1]}), value=ottla.protobuf(two))
