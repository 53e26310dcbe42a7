"""Single records whose values are encoded by a format."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from importlib.machinery import ModuleSpec
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ottla

if TYPE_CHECKING:
    from registries import Registry

NOON = datetime(2024, 5, 1, 12, 0, 0, 250_000, tzinfo=timezone.utc)


def texts(kafka: ottla.Client, topic: str) -> list[str]:
    found = kafka.scan(topic, value=ottla.text(), columns=["value"]).head(99)
    values: list[str] = found["value"].to_pylist()
    return values


def test_a_mapping_is_json(kafka: ottla.Client, remote: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"id": 1, "tags": ["a", None], "to": {"x": 1.5, "y": True}, "no": None})
    remote.send(name, MappingProxyType({"id": 2}), value_format="json", key=42)
    kafka.send(name, {"big": 2**64 - 1, "many": [1, 2.5], "rows": [{"a": 1}, {"b": 2}]})
    kafka.send(name, {"n": np.int64(5), "id": uuid.UUID(int=1), "empty": [], "none": {}})
    kafka.send(name, {})
    assert texts(kafka, name) == [
        '{"id":1,"tags":["a",null],"to":{"x":1.5,"y":true},"no":null}',
        '{"id":2}',
        '{"big":18446744073709551615,"many":[1,2.5],"rows":[{"a":1},{"b":2}]}',
        '{"n":5,"id":"00000000-0000-0000-0000-000000000001","empty":[],"none":{}}',
        "{}",
    ]
    assert kafka.scan(name, columns=["key"]).head()["key"].to_pylist()[1] == b"42"


def test_the_bytes_are_those_of_write(kafka: ottla.Client, name: str) -> None:
    import polars as pl

    row = {"id": 7, "when": NOON, "day": date(2024, 5, 1), "name": "Anna", "share": 0.5}
    kafka.create_topic(name, partitions=1)
    kafka.send(name, row)
    kafka.write(name, pl.DataFrame([row]), value=ottla.json())
    sent, written = texts(kafka, name)
    assert sent == written


def test_times_and_decimals(kafka: ottla.Client, name: str) -> None:
    naive = datetime(2024, 5, 1, 12)  # noqa: DTZ001 (naive is UTC)
    zone = timezone(timedelta(hours=2))
    kafka.send(
        name,
        {
            "naive": naive,
            "zone": naive.replace(tzinfo=zone),
            "old": datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=timezone.utc),
            "time": time(1, 2, 3, 4),
            "prices": [Decimal("1.5"), Decimal("-20.25"), Decimal(3)],
        },
    )
    schema = {"naive": "timestamp[us, UTC]", "zone": "timestamp[us, UTC]"}
    (row,) = kafka.scan(name, value=ottla.json(schema), columns=list(schema)).head().to_pylist()
    assert row["naive"] == naive.replace(tzinfo=timezone.utc)
    assert row["zone"] == naive.replace(tzinfo=zone)
    (text,) = texts(kafka, name)
    assert "1969-12-31T23:59:59.999999" in text
    assert "01:02:03.000004" in text
    assert "-20.25" in text


def test_text_bytes_and_nulls(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, "x", value_format="text")
    kafka.send(name, b"\x00", value_format=ottla.raw())
    kafka.send(name, None, key="gone", value_format=ottla.json())
    assert kafka.scan(name, columns=["value"]).head()["value"].to_pylist() == [b"x", b"\x00", None]


POINT = {
    "type": "record",
    "name": "Point",
    "fields": [
        {"name": "x", "type": "int"},
        {"name": "y", "type": ["null", "double"], "default": None},
        {"name": "label", "type": "string", "default": "none"},
        {"name": "when", "type": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
         "default": None},
        {"name": "counts", "type": {"type": "map", "values": "long"}, "default": {}},
        {"name": "price", "type": ["null", {"type": "bytes", "logicalType": "decimal",
         "precision": 9, "scale": 2}], "default": None},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["A", "B"]},
         "default": "A"},
    ],
}  # fmt: skip


def test_avro_with_a_schema(kafka: ottla.Client, name: str) -> None:
    value = ottla.avro(POINT)
    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"x": 1}, value_format=value)
    full = {
        "x": 2,
        "y": 0.5,
        "label": "b",
        "when": NOON,
        "counts": {"a": 1, "b": 2},
        "price": Decimal("9.75"),
        "kind": "B",
    }
    kafka.send(name, full, value_format=value)
    columns = [field["name"] for field in POINT["fields"]]  # type: ignore[index]
    rows = kafka.scan(name, value=value, columns=columns).head().to_pylist()
    assert {**rows[0], "counts": dict(rows[0]["counts"])} == {
        "x": 1,
        "y": None,
        "label": "none",
        "when": None,
        "counts": {},
        "price": None,
        "kind": "A",
    }
    assert {**rows[1], "counts": dict(rows[1]["counts"])} == full
    with pytest.raises(ottla.ConfigError, match="without a default"):
        kafka.send(name, {"y": 1.0}, value_format=value)
    with pytest.raises(ottla.ConfigError, match="not in the Avro schema"):
        kafka.send(name, {"x": 1, "z": 1}, value_format=value)
    with pytest.raises(ottla.ConfigError, match="x"):
        kafka.send(name, {"x": 2**40}, value_format=value)
    with pytest.raises(ottla.ConfigError, match="no schema can be derived"):
        kafka.send(name, {"x": 1}, value_format=ottla.avro())
    with pytest.raises(TypeError, match="mapping"):
        kafka.send(name, "x", value_format=value)
    assert kafka.scan(name).count() == 2


def test_a_schema_that_is_no_record_takes_bare_values(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, "text", value_format=ottla.avro("string"))
    kafka.send(name, 5, value_format=ottla.avro("long"))
    found = kafka.scan(name, columns=["value"]).head()["value"].to_pylist()
    assert sorted(found) == [b"\x08text", b"\x0a"]


def test_protobuf_with_a_schema(kafka: ottla.Client, name: str) -> None:
    text = """syntax = "proto3";
    message Order { int64 id = 1; repeated string tags = 2; map<string, int32> counts = 3;
                    Address to = 4; optional double share = 5; }
    message Address { string city = 1; }"""
    value = ottla.protobuf(text, message="Order")
    order = {"id": 7, "tags": ["a", "b"], "counts": {"x": 1}, "to": {"city": "Prag"}}
    kafka.send(name, order, value_format=value)
    columns = ["id", "tags", "counts", "to", "share"]
    (row,) = kafka.scan(name, value=value, columns=columns).head().to_pylist()
    assert {**row, "counts": dict(row["counts"])} == {**order, "share": None}
    with pytest.raises(ottla.ConfigError, match="not a field"):
        kafka.send(name, {"other": 1}, value_format=value)
    with pytest.raises(ottla.ConfigError, match="no schema can be derived"):
        kafka.send(name, {"id": 1}, value_format=ottla.protobuf())


@pytest.mark.parametrize("given", [True, False])
def test_schemas_of_a_registry(
    kafka: ottla.Client, name: str, registry: Registry, *, given: bool
) -> None:
    known = ottla.SchemaRegistry(registry.url)
    if given:
        value = ottla.avro(POINT, registry=known)
    else:
        value = ottla.avro(registry=known)
        with pytest.raises(ottla.KafkaError, match=f"{name}-value"):
            kafka.send(name, {"x": 1}, value_format=value)
        kafka.send(name, {"x": 0}, value_format=ottla.avro(POINT, registry=known))
    for number in range(5):
        kafka.send_async(name, {"x": number, "y": 1}, value_format=value)
    kafka.flush(30)
    scan = kafka.scan(name, value=ottla.avro(registry=registry.url), columns=["x"])
    assert sorted(scan.to_polars()["x"].to_list())[-5:] == [0, 1, 2, 3, 4]


def test_producers_and_event_loops_make_values_too(broker: ottla.Broker, name: str) -> None:
    with ottla.Producer(broker.bootstrap_servers) as producer:
        producer.send(name, {"id": 1}, value_format="json").result(30)

    async def send() -> Any:
        async with broker.client() as kafka:
            return await kafka.send_async(name, {"id": 2}, key=5)

    assert asyncio.run(send()).topic == name
    with broker.client() as kafka:
        assert sorted(texts(kafka, name)) == ['{"id":1}', '{"id":2}']


def test_integers_beside_floats_stay_exact(kafka: ottla.Client, name: str) -> None:
    big = 2**53 + 1
    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"a": [big, 0.5], "b": [2**63, 0.5], "c": [[big], [0.5]]})
    kafka.send(name, {"d": [{"x": big}, {"x": 0.5}], "e": [1, "x", None, [True]]})
    assert texts(kafka, name) == [
        '{"a":[9007199254740993,0.5],"b":[9223372036854775808,0.5],"c":[[9007199254740993],[0.5]]}',
        '{"d":[{"x":9007199254740993},{"x":0.5}],"e":[1,"x",null,[true]]}',
    ]
    # Formats with one type for all items take what a float is exactly, and refuse the rest.
    schema = {"type": "record", "name": "R", "fields": [
        {"name": "a", "type": {"type": "array", "items": "double"}}]}  # fmt: skip
    for value in (ottla.avro(schema), ottla.arrow_ipc()):
        kafka.send(name, {"a": [2**53, 0.5]}, value_format=value)
        for wrong in (big, 2**63 + 1, 10**400):
            with pytest.raises(ValueError, match=rf"a\.\[\]: {wrong} and a float"):
                kafka.send(name, {"a": [wrong, 0.5]}, value_format=value)
    with pytest.raises(ValueError, match=r"a\.\[\]\.x: .* and a float"):
        kafka.send(name, {"a": [{"x": big}, {"x": 0.5}]}, value_format=ottla.arrow_ipc())
    assert kafka.scan(name).count() == 4


def test_scalars_of_numpy_and_pandas(kafka: ottla.Client, name: str) -> None:
    import pandas as pd

    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"a": [np.bool_(True), np.float32(0.5), np.uint64(2**64 - 1), np.str_("x")]})
    kafka.send(name, {"a": pd.NaT, "b": [pd.NA, None], "c": np.datetime64("NaT")})
    moment = np.datetime64("2024-05-01T12:00:00.000001000", "ns")
    kafka.send(name, {"a": moment, "b": np.timedelta64(5_000, "ns"), "c": np.datetime64("2024-05")})
    kafka.send(name, {"a": pd.Timestamp(moment), "b": pd.Timedelta(1, "us")})
    assert texts(kafka, name) == [
        '{"a":[true,0.5,18446744073709551615,"x"]}',
        '{"a":null,"b":[null,null],"c":null}',
        '{"a":"2024-05-01T12:00:00.000001Z","b":"PT0.000005S","c":"2024-05-01"}',
        '{"a":"2024-05-01T12:00:00.000001Z","b":"PT0.000001S"}',
    ]
    for nanosecond in (
        pd.Timedelta(1, "ns"),
        pd.Timestamp(1, unit="ns"),
        np.timedelta64(1, "ns"),
        moment + np.timedelta64(1, "ns"),
    ):
        for value in (ottla.json(), ottla.arrow_ipc()):
            with pytest.raises(ValueError, match=r"^a: .*nanoseconds"):
                kafka.send(name, {"a": nanosecond}, value_format=value)
    assert kafka.scan(name).count() == 4


class Twice(Mapping[str, int]):
    """A mapping that has a key twice, as those of web frameworks may."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[str]:
        return iter(["k", "k"])


def test_a_key_that_occurs_twice_is_refused(kafka: ottla.Client, name: str) -> None:
    for value in (ottla.json(), ottla.arrow_ipc()):
        with pytest.raises(ValueError, match=r'^a: .* two values for the key "k"'):
            kafka.send(name, {"a": Twice()}, value_format=value)


def test_members_can_be_left_out(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, {"a": 1, "b": 2}, value_format=ottla.json(exclude=["a"]))
    assert texts(kafka, name) == ['{"b":2}']
    with pytest.raises(ottla.ConfigError, match='no member "c"'):
        kafka.send(name, {"a": 1}, value_format=ottla.json(exclude=["c"]))


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.dictionaries(st.text(), json_values))
def test_json_says_what_the_values_are(broker: ottla.Broker, value: dict[str, object]) -> None:
    with broker.client() as kafka:
        sent = kafka.send("json-of-values", value)
        assert sent.offset is not None
        place = {sent.partition: sent.offset}, {sent.partition: sent.offset + 1}
        (row,) = kafka.scan("json-of-values", *place, value=ottla.text()).head().to_pylist()
    # As text, which tells 1, 1.0 and true apart.
    assert json.dumps(json.loads(row["value"])) == json.dumps(value)


def test_what_cannot_be_written_is_named(kafka: ottla.Client, name: str) -> None:
    inside: dict[str, Any] = {}
    inside["self"] = inside
    for value, words in (
        ({"a": {"b": object()}}, r"a\.b.*object"),
        ({"a": {1: 2}}, r"^a: the keys.*int: 1$"),
        ({1: 2}, r"^the keys.*int: 1$"),
        ({"a": [{"b": "\ud800"}]}, r"^a\.\[\]\.b: the text '.ud800' has a lone surrogate"),
        ({"a": {"\ud800": 1}}, "^a: the text '.ud800' has a lone surrogate"),
        ({"a": Decimal("1E-50")}, "^a: the decimal 1E-50 needs more than 38 digits"),
        ({"a": Decimal("1E+999999999")}, "^a: the decimal .* more than 38 digits"),
        ({"a": [Decimal("1E+30"), Decimal(10**38 + 1)]}, r"^a\.\[\]: the decimal .* 38 digits"),
        ({"a": Decimal("NaN")}, "^a: the decimal NaN is not a finite number"),
        ({"a": {"b": float("nan")}}, r"^a\.b: JSON has no NaN"),
        ({"a": time(1, tzinfo=timezone.utc)}, "^a: 01:00:00.00:00 is .* time zone"),
        ({"a": timedelta.max}, "^a: the duration does not fit"),
        ({"a": np.longdouble(1)}, "^a: values of type longdouble"),
        ({"a": np.timedelta64(1, "M")}, "^a: values of type timedelta64"),
        ({"a": 2**70}, r"a.*64 bits"),
        (inside, "deep"),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError), match=words):
            kafka.send(name, value)
    with pytest.raises(TypeError, match=r"a\.\[\]: the items of a list are int and str"):
        kafka.send(name, {"a": [1, "x"]}, value_format=ottla.arrow_ipc())
    # Arrays have the method of integers.
    for array in (np.array([1.0, 2.0]), np.array([1, 2]), np.array(1.5)):
        with pytest.raises(TypeError, match=r"v: values of type ndarray cannot be .*tolist"):
            kafka.send(name, {"v": array})
    with pytest.raises(OverflowError, match=r"v.*64 bits"):
        kafka.send(name, {"v": 2**64})
    kafka.send(name, {"v": np.array(5), "w": np.array([1.0, 2.0]).tolist()})
    assert texts(kafka, name) == ['{"v":5,"w":[1.0,2.0]}']
    with pytest.raises(TypeError, match="mapping"):
        kafka.send(name, [1], value_format="json")
    with pytest.raises(ottla.ConfigError, match="value_format='xml'"):
        kafka.send(name, {}, value_format="xml")  # type: ignore[arg-type]
    with pytest.raises(ottla.ConfigError, match="for reading"):
        kafka.send(name, {"a": 1}, value_format=ottla.debezium())


@pytest.mark.parametrize("package", ["numpy", "pandas", "pyarrow", "polars"])
def test_a_package_that_another_thread_is_importing_is_not_there_yet(
    kafka: ottla.Client, name: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    beginning = ModuleType(package)
    beginning.__spec__ = ModuleSpec(package, None)
    beginning.__spec__._initializing = True  # type: ignore[attr-defined]
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, package, beginning)
        kafka.send(name, "x")
        kafka.send(name, {"a": 1})
    assert texts(kafka, name) == ["x", '{"a":1}']
