"""The schema registry: caching, authentication, errors, and Confluent's own serializers."""

from __future__ import annotations

import socket
import warnings
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import ottla
from registries import Registry

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from confluent_kafka.schema_registry import Schema, SchemaReference, SchemaRegistryClient
    from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
    from confluent_kafka.serialization import MessageField, SerializationContext

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = """{
  "type": "record", "name": "User", "namespace": "shop",
  "fields": [
    {"name": "id", "type": "long"},
    {"name": "email", "type": ["null", "string"], "default": null},
    {"name": "tags", "type": {"type": "array", "items": "string"}}
  ]
}"""
USERS = [
    {"id": 1, "email": "a@example.org", "tags": ["x", "y"]},
    {"id": 2, "email": None, "tags": []},
]
COLUMNS = ["id", "email", "tags"]


def context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def users(kafka: ottla.Client, topic: str, value: ottla.Format) -> list[dict[str, Any]]:
    return kafka.scan(topic, value=value, columns=COLUMNS).head(100).to_pylist()


@pytest.fixture
def confluent(registry: Registry) -> Iterator[SchemaRegistryClient]:
    """confluent-kafka's client of the registry."""
    with SchemaRegistryClient({"url": registry.url}) as client:
        yield client


@pytest.fixture
def written(
    kafka: ottla.Client, name: str, registry: Registry, confluent: SchemaRegistryClient
) -> str:
    """A topic that confluent-kafka's serializer wrote to."""
    serializer = AvroSerializer(confluent, USER)
    for user in USERS:
        kafka.send(name, serializer(user, context(name)))
    registry.requests.clear()
    return name


def test_what_confluents_serializer_wrote(
    kafka: ottla.Client, written: str, registry: Registry
) -> None:
    assert users(kafka, written, ottla.avro(registry=registry.url)) == USERS
    first = ottla.avro(registry={"url": registry.url}, columns_from="first")
    assert users(kafka, written, first) == USERS
    with kafka.consumer(
        written, start="earliest", until="caught_up", value=first, columns=COLUMNS
    ) as consumer:
        assert [row for batch in consumer for row in batch.to_pylist()] == USERS


@pytest.mark.parametrize("given", [True, False])
def test_confluents_deserializer_reads_what_was_written(
    kafka: ottla.Client,
    name: str,
    registry: Registry,
    confluent: SchemaRegistryClient,
    *,
    given: bool,
) -> None:
    table = pa.Table.from_pylist(USERS)
    value = ottla.avro(USER if given else None, registry=registry.url)
    assert kafka.write(name, table, value=value, partition=0) == 2
    assert list(registry.subjects) == [f"{name}-value"]
    deserializer = AvroDeserializer(confluent)
    values = kafka.scan(name, columns=["value"]).head()["value"].to_pylist()
    assert [deserializer(one, context(name)) for one in values] == USERS
    assert users(kafka, name, ottla.avro(registry=registry.url)) == USERS


def test_a_schema_is_asked_for_once(kafka: ottla.Client, written: str, registry: Registry) -> None:
    known = ottla.SchemaRegistry(registry.url)
    value = ottla.avro(registry=known, columns_from="first")
    for _ in range(3):
        assert users(kafka, written, value) == USERS
    assert registry.requests == ["GET /schemas/ids/1"]
    for _ in range(3):
        assert users(kafka, written, ottla.avro(registry=known)) == USERS
    assert registry.requests[1:] == [f"GET /subjects/{written}-value/versions/latest"]
    # The same URL is the same registry.
    registry.requests.clear()
    for _ in range(3):
        users(kafka, written, ottla.avro(registry=registry.url))
    assert len(registry.requests) == 1


def test_a_schema_is_registered_once(kafka: ottla.Client, name: str, registry: Registry) -> None:
    table = pa.Table.from_pylist(USERS)
    for _ in range(3):
        kafka.write(name, table, value=ottla.avro(USER, registry=registry.url))
    assert registry.requests == [f"POST /subjects/{name}-value/versions"]


def test_without_auto_register_the_schema_must_be_known(
    kafka: ottla.Client, name: str, registry: Registry
) -> None:
    table = pa.Table.from_pylist(USERS)
    careful = ottla.avro(USER, registry=registry.url, auto_register=False)
    with pytest.raises(ottla.ConfigError, match=rf"{name}-value.*auto_register=True"):
        kafka.write(name, table, value=careful)
    latest = ottla.avro(registry=registry.url, auto_register=False)
    with pytest.raises(ottla.ConfigError, match=rf"{name}-value.*{registry.url}.*not found"):
        kafka.write(name, table, value=latest)
    registry.register(f"{name}-value", USER)
    assert kafka.write(name, table, value=careful) == 2
    assert kafka.write(name, table, value=latest) == 2
    assert users(kafka, name, latest) == 2 * USERS
    assert len(registry.schemas) == 1


def test_what_a_registry_answers_is_the_whole_error(
    kafka: ottla.Client, name: str, registry: Registry
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        refusing = f"http://127.0.0.1:{free.getsockname()[1]}"
        for url, words, wrong in (
            (f"{registry.url}/elsewhere", "HTTP 404", "malformed"),
            (refusing, "did not answer", "before a response"),
        ):
            with pytest.raises(ottla.KafkaError, match=words) as found:
                kafka.send(name, {"id": 1}, value_format=ottla.avro(USER, registry=url))
            assert wrong not in str(found.value)


def test_subjects_of_other_names(kafka: ottla.Client, name: str, registry: Registry) -> None:
    table = pa.Table.from_pylist(USERS)
    value = ottla.avro(USER, registry=registry.url, subject="shop.User/v 1")
    kafka.write(name, table, value=value, partition=0)
    assert list(registry.subjects) == ["shop.User/v 1"]
    with pytest.raises(ottla.ConfigError, match=rf"{name}-value.*subject=.*columns_from"):
        users(kafka, name, ottla.avro(registry=registry.url))
    by_subject = ottla.avro(registry=registry.url, subject="shop.User/v 1")
    assert users(kafka, name, by_subject) == USERS


class TestAuthentication:
    @pytest.fixture
    def private(self) -> Iterator[Registry]:
        with Registry(user=("key", "s3cret:")) as registry:
            yield registry

    def test_basic(self, kafka: ottla.Client, name: str, private: Registry) -> None:
        table = pa.Table.from_pylist(USERS)
        known = ottla.SchemaRegistry(private.url, username="key", password="s3cret:")
        assert kafka.write(name, table, value=ottla.avro(registry=known), partition=0) == 2
        in_url = private.url.replace("://", "://key:s3cret%3A@")
        as_settings = {"url": private.url, "basic.auth.user.info": "key:s3cret:"}
        for given in (in_url, as_settings):
            assert users(kafka, name, ottla.avro(registry=given)) == USERS
        assert "s3cret" not in repr(ottla.avro(registry=in_url)) + repr(known)

    def test_bearer(self, kafka: ottla.Client, name: str) -> None:
        with Registry(token="t0ken") as registry:
            known = ottla.SchemaRegistry(registry.url, token="t0ken")
            table = pa.Table.from_pylist(USERS)
            kafka.write(name, table, value=ottla.avro(registry=known), partition=0)
            assert users(kafka, name, ottla.avro(registry=known)) == USERS

    def test_a_stranger_is_told(self, kafka: ottla.Client, name: str, private: Registry) -> None:
        private.register(f"{name}-value", USER)
        kafka.send(name, b"\0\0\0\0\x01\x02")
        message = rf"{private.url}.*{name}-value.*401.*Unauthorized.*password"
        with pytest.raises(ottla.AuthorizationError, match=message):
            users(kafka, name, ottla.avro(registry=private.url))
        with pytest.raises(ottla.AuthorizationError, match=r"schema 1.*401"):
            users(kafka, name, ottla.avro(USER, registry=private.url))


def test_a_registry_that_stumbles_is_asked_again(
    kafka: ottla.Client, written: str, registry: Registry
) -> None:
    registry.failures = 2
    assert users(kafka, written, ottla.avro(registry=registry.url)) == USERS


def test_a_registry_that_is_away_is_an_error(kafka: ottla.Client, written: str) -> None:
    with Registry() as gone:
        url = gone.url
    with pytest.raises(ottla.ConnectionError, match=rf"{written}-value.*{url}"):
        users(kafka, written, ottla.avro(registry=url))
    with pytest.raises(ottla.ConnectionError, match=f"schema 1.*{url}"):
        users(kafka, written, ottla.avro(USER, registry=url))


def test_several_urls_are_tried(kafka: ottla.Client, written: str, registry: Registry) -> None:
    with Registry() as gone:
        url = gone.url
    assert users(kafka, written, ottla.avro(registry=f"{url},{registry.url}")) == USERS


def test_an_id_that_nobody_knows_is_a_value_that_does_not_decode(
    kafka: ottla.Client, written: str, registry: Registry
) -> None:
    kafka.send(written, b"\0\0\0\0\x63\x02")
    kafka.send(written, b"plain text")
    value = ottla.avro(registry=registry.url)
    with pytest.raises(ottla.DecodeError, match=rf"{registry.url} has no schema 99"):
        list(kafka.scan(written, value=value))
    rows = kafka.scan(written, value=value, on_error="column", columns=["id", "error"])
    found = rows.head().to_pylist()
    assert [row["id"] for row in found] == [1, 2, None, None]
    assert "begins with byte 112" in found[3]["error"]
    rest = kafka.scan(written, value=value, on_error=f"dlq:{written}.dlq", columns=["id"])
    assert [row["id"] for batch in rest for row in batch.to_pylist()] == [1, 2]
    assert kafka.scan(f"{written}.dlq").count() == 2
    assert registry.requests.count("GET /schemas/ids/99") == 1


def test_a_schema_of_another_kind_is_told(
    kafka: ottla.Client, name: str, registry: Registry
) -> None:
    registry.register(f"{name}-value", "{}", "JSON")
    kafka.send(name, b"\0\0\0\0\x01{}")
    with pytest.raises(ottla.ConfigError, match=rf"{name}-value.*JSON, not AVRO"):
        list(kafka.scan(name, value=ottla.avro(registry=registry.url)))
    with pytest.raises(ottla.DecodeError, match="JSON, not AVRO"):
        list(kafka.scan(name, value=ottla.avro(USER, registry=registry.url)))


def test_schemas_may_refer_to_others(
    kafka: ottla.Client, name: str, registry: Registry, confluent: SchemaRegistryClient
) -> None:
    registry.register(
        "geo", '{"type": "record", "name": "geo.Point", "fields": [{"name": "x", "type": "int"}]}'
    )
    text = '{"type": "record", "name": "Place", "fields": [{"name": "at", "type": "geo.Point"}]}'
    schema = Schema(text, "AVRO", [SchemaReference("geo.Point", "geo", 1)])
    place = {"at": {"x": 5}}
    kafka.send(name, AvroSerializer(confluent, schema)(place, context(name)))
    for value in (ottla.avro(registry=registry.url), ottla.avro(schema, registry=registry.url)):
        assert kafka.scan(name, value=value, columns=["at"]).head().to_pylist() == [place]
    kafka.write(
        f"{name}.again",
        pa.Table.from_pylist([place]),
        value=ottla.avro(schema, registry=registry.url),
    )
    (value,) = kafka.scan(f"{name}.again", columns=["value"]).head()["value"].to_pylist()
    assert AvroDeserializer(confluent)(value, context(name)) == place
    with pytest.raises(ottla.ConfigError, match="registry="):
        ottla.avro(schema)


def test_an_empty_topic_has_the_columns_of_the_latest_schema(
    kafka: ottla.Client, name: str, registry: Registry
) -> None:
    kafka.create_topic(name)
    registry.register(f"{name}-value", USER)
    latest = kafka.scan(name, value=ottla.avro(registry=registry.url))
    assert latest.to_polars().columns[-3:] == COLUMNS
    first = kafka.scan(name, value=ottla.avro(registry=registry.url, columns_from="first"))
    assert "id" not in first.to_polars().columns
    kafka.send(name, None)
    kafka.send(name, b"none of it")
    value = ottla.avro(registry=registry.url, columns_from="first")
    with pytest.raises(ottla.DecodeError, match=r"at offset 1: .*not with the 0 of a schema"):
        kafka.scan(name, value=value).to_polars()
    assert kafka.scan(name, value=value, on_error="null").to_polars().height == 2


def test_mistakes_are_told() -> None:
    with pytest.raises(ottla.ConfigError, match="http"):
        ottla.SchemaRegistry("localhost:8081")
    with pytest.raises(ottla.ConfigError, match="both a username"):
        ottla.SchemaRegistry("http://localhost:8081", username="me")
    with pytest.raises(ottla.ConfigError, match="one of them"):
        ottla.SchemaRegistry("http://me:x@localhost:8081", token="t")
    with pytest.raises(ottla.ConfigError, match=r"ssl\.key"):
        ottla.avro(registry={"url": "http://localhost", "ssl.key.location": "x"})
    with pytest.raises(TypeError, match="URL"):
        ottla.avro(registry=8081)  # type: ignore[arg-type]
