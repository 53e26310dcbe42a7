"""Protobuf schemas: made from columns, and registered with what they import."""

from __future__ import annotations

import warnings
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

import ottla

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
    from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from grpc_tools import protoc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from registries import Registry

WHEN = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=timezone.utc)


@pytest.fixture
def confluent(registry: Registry) -> Iterator[SchemaRegistryClient]:
    """confluent-kafka's client of the registry."""
    with SchemaRegistryClient({"url": registry.url}) as client:
        yield client


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def classes(folder: Path, *files: str) -> dict[str, Any]:
    """Compile .proto files with Google's compiler; return the classes by their full names."""
    out = folder / "all.desc"
    include = Path(protoc.__file__).parent / "_proto"
    arguments = [f"-I{folder}", f"-I{include}", "--include_imports", f"--descriptor_set_out={out}"]
    assert protoc.main(["", *arguments, *(str(folder / name) for name in files)]) == 0
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
        pool.Add(file)
    names = [
        f"{file.package}.{message.name}".lstrip(".")
        for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file
        for message in file.message_type
    ]
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(name)) for name in names
    }


def values(kafka: ottla.Client, topic: str) -> list[bytes]:
    found: list[bytes] = kafka.scan(topic, columns=["value"]).head(1000)["value"].to_pylist()
    return found


class TestFromColumns:
    """Schemas that are made from the columns of a table."""

    TABLE = pa.table(
        {
            "id": pa.array([1, -(2**62)], pa.int64()),
            "small": pa.array([1, None], pa.int8()),
            "big": pa.array([2**64 - 1, None], pa.uint64()),
            "share": pa.array([0.5, None], pa.float64()),
            "half": pa.array([0.5, None], pa.float32()),
            "name": pa.array(["a", None]),
            "raw": pa.array([b"\0\1", None]),
            "four": pa.array([b"abcd", None], pa.binary(4)),
            "is_open": pa.array([True, None]),
            "at": pa.array([WHEN, None], pa.timestamp("us", "UTC")),
            "took": pa.array([timedelta(seconds=-1, microseconds=5), None], pa.duration("us")),
            "kind": pa.array(["x", None]).dictionary_encode(),
            "tags": pa.array([["p", "q"], []], pa.list_(pa.string())),
            "counts": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int32())),
            "home": pa.array([{"street": "s", "no": 4, "deep": {"z": [1]}}, None]),
            "lines": pa.array([[{"sku": "k", "n": 2}], []]),
        }
    )

    @staticmethod
    def text(topic: str) -> str:
        """The schema that the table should have; written by hand."""
        return """syntax = "proto3";
            import "google/protobuf/timestamp.proto";
            import "google/protobuf/duration.proto";
            message NAME {
              optional int64 id = 1;
              optional int32 small = 2;
              optional uint64 big = 3;
              optional double share = 4;
              optional float half = 5;
              optional string name = 6;
              optional bytes raw = 7;
              optional bytes four = 8;
              optional bool is_open = 9;
              google.protobuf.Timestamp at = 10;
              google.protobuf.Duration took = 11;
              optional string kind = 12;
              repeated string tags = 13;
              map<string, int32> counts = 14;
              message Home {
                optional string street = 1;
                optional int64 no = 2;
                message Deep { repeated int64 z = 1; }
                Deep deep = 3;
              }
              Home home = 15;
              message Lines { optional string sku = 1; optional int64 n = 2; }
              repeated Lines lines = 16;
            }""".replace("NAME", topic)

    def test_every_type_goes_out_and_comes_back(self, kafka: ottla.Client, name: str) -> None:
        kafka.write(name, self.TABLE, value=ottla.protobuf(), partition=0)
        value = ottla.protobuf(self.text("M"))
        found = kafka.scan(name, value=value, columns=self.TABLE.column_names).head().to_pylist()
        expected = self.TABLE.to_pylist()
        for row in expected:
            row["counts"] = dict(row["counts"])
        assert found == expected

    def test_google_reads_it(self, kafka: ottla.Client, name: str, tmp_path: Path) -> None:
        (tmp_path / "m.proto").write_text(self.text("M"))
        message = classes(tmp_path, "m.proto")["M"]
        kafka.write(name, self.TABLE, value=ottla.protobuf(), partition=0)
        first, second = (message.FromString(value) for value in values(kafka, name))
        assert (first.id, first.small, first.big, first.name) == (1, 1, 2**64 - 1, "a")
        assert first.at.ToDatetime(timezone.utc) == WHEN
        assert first.took.ToTimedelta() == timedelta(seconds=-1, microseconds=5)
        assert dict(first.counts) == {"a": 1}
        assert first.home.deep.z == [1]
        assert first.lines[0].sku == "k"
        assert [field.name for field, _ in second.ListFields()] == ["id"]

    def test_it_is_registered_and_confluents_client_reads_it(
        self,
        kafka: ottla.Client,
        registry: Registry,
        confluent: SchemaRegistryClient,
        tmp_path: Path,
    ) -> None:
        topic = "open-orders.eu"
        kafka.write(topic, self.TABLE, value=ottla.protobuf(registry=registry.url), partition=0)
        registered = confluent.get_latest_version(f"{topic}-value").schema
        assert registered.schema_type == "PROTOBUF"
        # Google's compiler accepts the text and produces the same fields.
        (tmp_path / "derived.proto").write_text(registered.schema_str)
        (tmp_path / "expected.proto").write_text(self.text("Expected"))
        derived = classes(tmp_path, "derived.proto")["OpenOrdersEuValue"]
        expected = classes(tmp_path, "expected.proto")["Expected"]
        described = [
            [(one.name, one.number, one.type, one.is_repeated, one.has_presence) for one in fields]
            for fields in (derived.DESCRIPTOR.fields, expected.DESCRIPTOR.fields)
        ]
        assert described[0] == described[1]
        deserializer = ProtobufDeserializer(derived, {"use.deprecated.format": False}, confluent)
        first, second = (deserializer(value, context(topic)) for value in values(kafka, topic))
        assert (first.name, second.id) == ("a", -(2**62))
        # A reader without a schema has the columns.
        value = ottla.protobuf(registry=registry.url)
        found = kafka.scan(topic, value=value, columns=["id", "at"]).head().to_pylist()
        assert found == self.TABLE.select(["id", "at"]).to_pylist()

    def test_a_schema_that_is_there_comes_first(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        # Readers know the field numbers.
        text = 'syntax = "proto3"; message Old { int64 id = 7; string name = 3; }'
        registry.register(f"{name}-value", text, "PROTOBUF")
        value = ottla.protobuf(registry=registry.url)
        kafka.write(name, pa.table({"name": ["a"], "id": [5]}), value=value)
        assert values(kafka, name) == [b"\0\0\0\0\x01\0" + b"\x1a\x01a" + b"\x38\x05"]
        with pytest.raises(ottla.ConfigError, match=r'"more" is not a field.*"Old"'):
            kafka.write(name, pa.table({"more": [1]}), value=value)
        assert len(registry.schemas) == 1

    def test_without_auto_register_there_must_be_one(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        careful = ottla.protobuf(registry=registry.url, auto_register=False)
        with pytest.raises(ottla.ConfigError, match=rf"{name}-value"):
            kafka.write(name, pa.table({"id": [1]}), value=careful)
        assert registry.schemas == {}

    def test_the_message_may_be_named(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        value = ottla.protobuf(registry=registry.url, message="shop.v1.Order")
        kafka.write(name, pa.table({"id": [1]}), value=value)
        (schema,) = registry.schemas.values()
        assert "package shop.v1;" in schema["schema"]
        assert "message Order {" in schema["schema"]
        for wrong in ("a b", "shop..Order", "1st", ""):
            with pytest.raises(ottla.ConfigError, match="not a name for a Protobuf message"):
                kafka.write(name, pa.table({"id": [1]}), value=ottla.protobuf(message=wrong))

    def test_columns_that_place_a_record_are_not_in_it(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        table = pa.table({"id": [1], "who": ["k"], "at": [WHEN], "secret": ["s"]})
        value = ottla.protobuf(registry=registry.url, exclude=["secret"])
        kafka.write(name, table, value=value, key="who", timestamp="at")
        (schema,) = registry.schemas.values()
        assert "id = 1" in schema["schema"]
        assert not any(word in schema["schema"] for word in ("who", "at =", "secret"))

    def test_a_frame_of_polars(self, kafka: ottla.Client, name: str) -> None:
        frame = pl.DataFrame(
            {
                "n": pl.Series([1, 2], dtype=pl.UInt16),
                "naive": [datetime(2026, 1, 1), None],  # noqa: DTZ001
                "cat": pl.Series(["a", "b"], dtype=pl.Categorical),
                "list": [[1.5], []],
                "row": [{"a": "x"}, {"a": None}],
            }
        )
        kafka.write(name, frame, value=ottla.protobuf(), partition=0)
        text = """syntax = "proto3"; import "google/protobuf/timestamp.proto";
            message M { optional uint32 n = 1; google.protobuf.Timestamp naive = 2;
              optional string cat = 3; repeated double list = 4;
              message Row { optional string a = 1; } Row row = 5; }"""
        found = kafka.scan(name, value=ottla.protobuf(text), columns=frame.columns).to_polars()
        assert found["n"].to_list() == [1, 2]
        assert found["naive"].to_list() == [datetime(2026, 1, 1, tzinfo=timezone.utc), None]
        assert found["cat"].to_list() == ["a", "b"]
        assert found["list"].to_list() == [[1.5], []]
        assert found["row"].to_list() == [{"a": "x"}, {"a": None}]

    def test_names_that_meet_in_one_scope(
        self, kafka: ottla.Client, registry: Registry, tmp_path: Path
    ) -> None:
        inner = {"x": {"x": {"y": 1}}, "google": {"a": 1}}
        table = pa.table(
            {
                "Item": [{**inner, "at": WHEN}],
                "m": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int32())),
                "m_entry": [{"b": 1}],
                "google": [{"a": 1}],
                "message": ["text"],
                "_1st": [{"c": 1}],
                "scopes_value": [{"d": 1}],
            }
        )
        kafka.write("scopes", table, value=ottla.protobuf(registry=registry.url))
        (schema,) = registry.schemas.values()
        (tmp_path / "m.proto").write_text(schema["schema"])
        message = classes(tmp_path, "m.proto")["ScopesValue"]
        (value,) = values(kafka, "scopes")
        found = message.FromString(value[6:])
        assert found.Item.x.x.y == 1
        assert found.Item.at.ToDatetime(timezone.utc) == WHEN
        assert found.scopes_value.d == 1

    @pytest.mark.parametrize(
        ("column", "words"),
        [
            (pa.array([Decimal("1.5")]), "Decimal128"),
            (pa.array([WHEN.date()]), "Date32"),
            (pa.array([WHEN.time()]), "Time64"),
            (pa.array([[[1]]]), "List"),
            (pa.array([None]), "only nulls"),
            (pa.array([[(1.5, 1)]], pa.map_(pa.float64(), pa.int32())), "Map"),
        ],
    )
    @pytest.mark.parametrize("nested", [False, True])
    def test_what_does_not_fit_is_refused_by_the_name_of_the_column(
        self, kafka: ottla.Client, name: str, column: Any, words: str, *, nested: bool
    ) -> None:
        kafka.create_topic(name)
        table = pa.table({"id": [1], "bad": column})
        path = "bad"
        if nested:
            table = pa.table({"outer": pa.StructArray.from_arrays([column], ["bad"])})
            path = "outer.bad"
        with pytest.raises(ottla.ConfigError, match=rf'column "{path}".*{words}.*exclude='):
            kafka.write(name, table, value=ottla.protobuf())
        assert kafka.scan(name).count() == 0

    def test_names_that_do_not_fit_are_refused(self, kafka: ottla.Client, name: str) -> None:
        with pytest.raises(ottla.ConfigError, match=r'column "a b" is not a name.*rename'):
            kafka.write(name, pa.table({"a b": [1]}), value=ottla.protobuf())
        with pytest.raises(ottla.ConfigError, match=r'"o\.1" is not a name'):
            kafka.write(name, pa.table({"o": [{"1": 1}]}), value=ottla.protobuf())
        with pytest.raises(ottla.ConfigError, match=r'"a_b" and "aB" differ only in case'):
            kafka.write(name, pa.table({"a_b": [1], "aB": [1]}), value=ottla.protobuf())

    def test_a_null_in_a_list_is_refused_in_its_row(self, kafka: ottla.Client, name: str) -> None:
        with pytest.raises(ottla.ConfigError, match=r'"tags".*item 1 of the list is null'):
            kafka.write(name, pa.table({"tags": [["a", None]]}), value=ottla.protobuf())


UNIT = 'syntax = "proto3"; package base; message Unit { string name = 1; }'
MONEY = """syntax = "proto3"; package base; import "unit.proto"; import public "types/flag.proto";
import "google/protobuf/timestamp.proto";
message Money { int64 cents = 1; Unit unit = 2; google.protobuf.Timestamp at = 3; }"""
FLAG = 'syntax = "proto3"; package base; message Flag { bool up = 1; }'
ORDER = """syntax = "proto3"; package shop; import "money.proto"; import "unit.proto";
message Order { int64 id = 1; base.Money price = 2; base.Unit unit = 3; base.Flag flag = 4; }"""
FILES = {"unit.proto": UNIT, "money.proto": MONEY, "types/flag.proto": FLAG, "order.proto": ORDER}
ROWS = [
    {
        "id": 5,
        "price": {"cents": 250, "unit": {"name": "EUR"}, "at": WHEN},
        "unit": {"name": "piece"},
        "flag": {"up": True},
    }
]
NAMES = ["id", "price", "unit", "flag"]


class TestImports:
    """Schemas that import others, which are in the registry as well."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "types").mkdir()
        for name, text in FILES.items():
            (tmp_path / name).write_text(text)
        return tmp_path

    @pytest.fixture
    def order(self, folder: Path) -> Any:
        """Google's class of the message."""
        return classes(folder, "order.proto")["shop.Order"]

    @pytest.mark.parametrize("how", ["path", "class"])
    def test_they_are_registered_first_under_their_names(
        self,
        kafka: ottla.Client,
        name: str,
        registry: Registry,
        confluent: SchemaRegistryClient,
        folder: Path,
        order: Any,
        how: str,
    ) -> None:
        schema = folder / "order.proto" if how == "path" else order
        table = pa.Table.from_pylist(ROWS)
        value = ottla.protobuf(schema, registry=registry.url)
        kafka.write(name, table, value=value, partition=0)
        assert set(registry.subjects) == {
            "unit.proto",
            "types/flag.proto",
            "money.proto",
            f"{name}-value",
        }
        references = confluent.get_latest_version(f"{name}-value").schema.references
        assert [(one.name, one.subject, one.version) for one in references] == [
            ("money.proto", "money.proto", 1),
            ("unit.proto", "unit.proto", 1),
        ]
        of_money = confluent.get_latest_version("money.proto").schema.references
        assert [one.name for one in of_money] == ["unit.proto", "types/flag.proto"]
        # Confluent's reader, and ours from the registry alone.
        deserializer = ProtobufDeserializer(order, {"use.deprecated.format": False}, confluent)
        (found,) = (deserializer(one, context(name)) for one in values(kafka, name))
        assert (found.id, found.price.unit.name, found.flag.up) == (5, "EUR", True)
        fresh = ottla.SchemaRegistry(registry.url)
        for given in (
            ottla.protobuf(registry=fresh),
            ottla.protobuf(registry=fresh, columns_from="first"),
            value,
        ):
            assert kafka.scan(name, value=given, columns=NAMES).head().to_pylist() == ROWS
        # Known schemas are not registered again.
        before = len(registry.requests)
        kafka.write(name, table, value=value)
        assert registry.requests[before:] == []

    def test_what_confluents_serializer_wrote_and_registered(
        self,
        kafka: ottla.Client,
        name: str,
        registry: Registry,
        confluent: SchemaRegistryClient,
        order: Any,
    ) -> None:
        serializer = ProtobufSerializer(order, confluent, {"use.deprecated.format": False})
        message = order(id=5)
        message.price.unit.name = "EUR"
        message.price.cents = 250
        message.price.at.FromDatetime(WHEN)
        message.unit.name = "piece"
        message.flag.up = True
        kafka.send(name, serializer(message, context(name)), partition=0)
        for columns_from in ("latest", "first"):
            value = ottla.protobuf(registry=registry.url, columns_from=columns_from)
            assert kafka.scan(name, value=value, columns=NAMES).head().to_pylist() == ROWS
        # The same class registers the same: nothing is new, and the id is the same.
        ids = dict(registry.subjects)
        kafka.write(
            name,
            pa.Table.from_pylist(ROWS),
            value=ottla.protobuf(order, registry=registry.url, auto_register=False),
            partition=0,
        )
        assert registry.subjects == ids
        first, second = values(kafka, name)
        assert first == second

    def test_references_say_where_they_are(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        registry.register("common-unit", UNIT, "PROTOBUF")
        registry.register("common-flag", "syntax = 'proto3'; message Older {}", "PROTOBUF")
        registry.register("common-flag", FLAG, "PROTOBUF")
        of_money = [
            {"name": "unit.proto", "subject": "common-unit", "version": 1},
            {"name": "types/flag.proto", "subject": "common-flag", "version": 2},
        ]
        registry.register("common-money", MONEY, "PROTOBUF", of_money)
        references: list[Any] = [
            ("money.proto", "common-money", 1),
            SchemaReference("unit.proto", "common-unit", 1),
        ]
        value = ottla.protobuf(ORDER, registry=registry.url, references=references)
        kafka.write(name, pa.Table.from_pylist(ROWS), value=value)
        assert kafka.scan(name, value=value, columns=NAMES).head().to_pylist() == ROWS
        assert list(registry.subjects)[3:] == [f"{name}-value"]
        registered = registry.schemas[registry.subjects[f"{name}-value"][0]]
        assert [one["subject"] for one in registered["references"]] == [
            "common-money",
            "common-unit",
        ]
        of_registry = ottla.protobuf(registry=ottla.SchemaRegistry(registry.url))
        assert kafka.scan(name, value=of_registry, columns=NAMES).head().to_pylist() == ROWS

    def test_without_auto_register_all_must_be_known(
        self, kafka: ottla.Client, name: str, registry: Registry, folder: Path
    ) -> None:
        careful = ottla.protobuf(folder / "order.proto", registry=registry.url, auto_register=False)
        with pytest.raises(ottla.ConfigError, match=r"unit\.proto.*auto_register=True"):
            kafka.write(name, pa.Table.from_pylist(ROWS), value=careful)
        assert registry.schemas == {}

    def test_what_is_not_there_is_told(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        table = pa.Table.from_pylist(ROWS)
        with pytest.raises(ottla.ConfigError, match=r"money\.proto.*not found.*references="):
            kafka.write(name, table, value=ottla.protobuf(ORDER, registry=registry.url))
        missing = ottla.protobuf(
            ORDER, registry=registry.url, references=[("money.proto", "nowhere", 3)]
        )
        with pytest.raises(ottla.KafkaError, match=r'version 3 of subject "nowhere".*404'):
            kafka.write(name, table, value=missing)
        with pytest.raises(ottla.ConfigError, match="registry="):
            ottla.protobuf(ORDER, references=[("money.proto", "m", 1)])
        with pytest.raises(ottla.ConfigError, match="needs a schema"):
            ottla.protobuf(registry=registry.url, references=[("money.proto", "m", 1)])
        for wrong in ("money.proto", ("a", "b"), ("a", "b", "1"), {"name": "a"}):
            with pytest.raises(TypeError, match="name, subject, version"):
                ottla.protobuf(ORDER, registry=registry.url, references=[wrong])

    def test_references_without_end_are_refused(
        self, kafka: ottla.Client, name: str, registry: Registry
    ) -> None:
        # Each refers to two of the next: following them without a bound would never end.
        for at in range(1, 60):
            text = f'syntax = "proto3"; message M{at} {{}}'
            references = [
                {"name": f"{at + 1}-{side}.proto", "subject": f"s{(at + 1) % 60}", "version": 1}
                for side in "ab"
            ]
            registry.register(f"s{at}", text, "PROTOBUF", references)
        registry.register(
            "s0",
            'syntax = "proto3"; message M0 {}',
            "PROTOBUF",
            [{"name": "1.proto", "subject": "s1", "version": 1}],
        )
        kafka.create_topic(name)
        value = ottla.protobuf(registry=registry.url, subject="s1")
        with pytest.raises(ottla.ConfigError, match=r"too deeply|more than 1000"):
            kafka.scan(name, value=value).head()
        assert len(registry.requests) < 1100


def test_avro_refers_to_types_of_other_subjects(
    kafka: ottla.Client, name: str, registry: Registry
) -> None:
    point = '{"type": "record", "name": "geo.Point", "fields": [{"name": "x", "type": "int"}]}'
    registry.register("geo", point)
    text = '{"type": "record", "name": "Place", "fields": [{"name": "at", "type": "geo.Point"}]}'
    value = ottla.avro(text, registry=registry.url, references=[("geo.Point", "geo", 1)])
    rows = [{"at": {"x": 5}}]
    kafka.write(name, pa.Table.from_pylist(rows), value=value)
    for given in (value, ottla.avro(registry=ottla.SchemaRegistry(registry.url))):
        assert kafka.scan(name, value=given, columns=["at"]).head().to_pylist() == rows
    with pytest.raises(ottla.ConfigError, match="registry="):
        ottla.avro(text, references=[("geo.Point", "geo", 1)])
