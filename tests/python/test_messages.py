"""What errors say: what was attempted, in the user's words, once, and what may help."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def timed(second: int | None) -> pa.Table:
    """A table whose second row has a time in seconds."""
    return pa.table({"at": pa.array([1, second], pa.int64()).view(pa.timestamp("s"))})


def dated(millis: int) -> pa.Table:
    """A table whose second row has a date in milliseconds."""
    return pa.table({"at": pa.array([0, millis], pa.int64()).view(pa.date64())})


def avro(kind: Any) -> ottla.Format:
    fields = [{"name": "a", "type": kind}]
    return ottla.avro({"type": "record", "name": "R", "fields": fields})


#: What a wrong call says, whole.
SAID: dict[str, tuple[Callable[[Any], object], type[Exception], str]] = {
    "no partitions": (
        lambda kafka: kafka.create_topic("a", partitions=0),
        ottla.ConfigError,
        (
            "partitions=0: a topic has at least one partition. Omit the argument to use the "
            "broker's num.partitions"
        ),
    ),
    "half a partition": (
        lambda kafka: kafka.create_topic("a", partitions=0.5),
        TypeError,
        "partitions= takes a whole number, not 0.5",
    ),
    "a topic twice": (
        lambda kafka: kafka.create_topic("events"),
        ottla.TopicExistsError,
        "topic 'events' already exists (TOPIC_ALREADY_EXISTS)",
    ),
    "a partition that is not there": (
        lambda kafka: kafka.send("events", "value", partition=7),
        ottla.UnknownTopicError,
        "topic events has no partition 7: it has one, partition 0 (UNKNOWN_TOPIC_OR_PARTITION)",
    ),
    "a partition that is not there, scanned": (
        lambda kafka: kafka.scan("events", partitions=[7]),
        ottla.UnknownTopicError,
        "topic events has no partition 7: it has one, partition 0 (UNKNOWN_TOPIC_OR_PARTITION)",
    ),
    "a partition that is not there, consumed": (
        lambda kafka: kafka.consumer("events", partitions=[7]),
        ottla.UnknownTopicError,
        "topic events has no partition 7: it has one, partition 0 (UNKNOWN_TOPIC_OR_PARTITION)",
    ),
    "partitions that are one": (
        lambda kafka: kafka.scan("events", partitions=0),
        TypeError,
        "partitions= takes the numbers of partitions, for example [0, 1], not 0",
    ),
    "partitions of a topic that are one": (
        lambda kafka: kafka.consumer({"events": 0}),
        TypeError,
        "the value of 'events' takes the numbers of partitions, for example [0, 1], not 0",
    ),
    "a group that is not there": (
        lambda kafka: kafka.groups["nobody"],
        ottla.KafkaError,
        "there is no group nobody (GROUP_ID_NOT_FOUND)",
    ),
    "a group that is not there, deleted": (
        lambda kafka: kafka.groups.delete("nobody"),
        ottla.KafkaError,
        "there is no group nobody (GROUP_ID_NOT_FOUND)",
    ),
    "a broker that is not there": (
        lambda kafka: kafka.configs(broker=9),
        ottla.KafkaError,
        "there is no broker 9; the brokers are 1 (BROKER_ID_NOT_REGISTERED)",
    ),
    "a registry for all": (
        lambda _: ottla.connect("localhost:1", config={"schema.registry.url": "http://r:8081"}),
        ottla.ConfigError,
        (
            "schema.registry.url is not a setting of a client: pass registry= to the format, for "
            'example value=ottla.avro(registry=ottla.SchemaRegistry("http://localhost:8081"))'
        ),
    ),
    "no columns": (
        lambda kafka: kafka.scan("events", columns="offset"),
        TypeError,
        "columns= takes a list of names, for example ['offset'], not 'offset'",
    ),
    "no bound": (
        lambda kafka: kafka.scan("events", start=object()),
        TypeError,
        (
            "start= takes 'earliest', 'latest', a time, a negative timedelta or "
            "{partition: offset}, not object"
        ),
    ),
    "a bound that is a bool": (
        lambda kafka: kafka.scan("events", start=True),
        TypeError,
        (
            "start= takes 'earliest', 'latest', a time, a negative timedelta or "
            "{partition: offset}, not True"
        ),
    ),
    "records to delete that are a bool": (
        lambda kafka: kafka.delete_records("events", True),
        TypeError,
        (
            "before= takes 'earliest', 'latest', a time, a negative timedelta or "
            "{partition: offset}, not True"
        ),
    ),
    "records to delete that are a number": (
        lambda kafka: kafka.delete_records("events", 5),
        TypeError,
        (
            "before=5 has no unit: pass a datetime, ottla.timestamp(5, 'ms'), or {partition: 5} "
            "for an offset"
        ),
    ),
    "records to delete in no partition": (
        lambda kafka: kafka.delete_records("events", {}),
        ottla.ConfigError,
        "before={} names no partition",
    ),
    "offsets at a number": (
        lambda kafka: kafka.offsets("events", 5),
        TypeError,
        (
            "at=5 has no unit: pass a datetime, ottla.timestamp(5, 'ms'), or {partition: 5} for "
            "an offset"
        ),
    ),
    "a bound in a far year": (
        lambda kafka: kafka.scan("events", start="12024-01-01"),
        ottla.ConfigError,
        "start='12024-01-01' is not in the years 1 to 9999, which Python's times can have",
    ),
    "a bound of numpy in a far year": (
        lambda kafka: kafka.scan("events", end=np.datetime64("12024-01-01")),
        ottla.ConfigError,
        (
            "end=np.datetime64('12024-01-01') is not in the years 1 to 9999, which Python's times "
            "can have"
        ),
    ),
    "a timestamp in a far year": (
        lambda kafka: kafka.send("events", "x", timestamp="10000-01-01T00:00:00Z"),
        ottla.ConfigError,
        (
            "timestamp='10000-01-01T00:00:00Z' is not in the years 1 to 9999, which Python's "
            "times can have"
        ),
    ),
    "a number that is a far year": (
        lambda _: ottla.timestamp(2**62, "s"),
        ottla.ConfigError,
        (
            "4611686018427387904 s after 1970 is not in the years 1 to 9999, which Python's times "
            "can have"
        ),
    ),
    "a timestamp that Kafka does not have": (
        lambda kafka: kafka.write("events", timed(2**62), timestamp="at"),
        ottla.ConfigError,
        (
            'row 1: timestamp column "at": 4611686018427387904 (Timestamp(s)) is out of range: '
            "Kafka's timestamps are milliseconds in 64 bits"
        ),
    ),
    "a timestamp that is null": (
        lambda kafka: kafka.write("events", timed(None), timestamp="at"),
        ottla.ConfigError,
        (
            'row 1: the timestamp column "at" is null; fill it, or write these rows separately, '
            "without a timestamp column"
        ),
    ),
    "a partition that is no partition": (
        lambda kafka: kafka.write("events", pl.DataFrame({"p": [0, 2**40]}), partition="p"),
        ottla.ConfigError,
        'row 1: partition column "p": 1099511627776 is not a partition',
    ),
    "a number that its schema does not hold": (
        lambda kafka: kafka.write("events", pl.DataFrame({"a": [1, 2**40]}), value=avro("int")),
        ottla.ConfigError,
        'row 1: column "a": 1099511627776 does not fit Int32; cast it first',
    ),
    "a number in a list that its schema does not hold": (
        lambda kafka: kafka.write(
            "events",
            pl.DataFrame({"a": [[1, 2], [], [3, 2**40]]}),
            value=avro({"type": "array", "items": "int"}),
        ),
        ottla.ConfigError,
        'row 2: column "a[]": 1099511627776 does not fit Int32; cast it first',
    ),
    "a decimal that its schema does not hold": (
        lambda kafka: kafka.write(
            "events",
            pl.DataFrame({"a": [Decimal("1.5"), Decimal("12345.6")]}),
            value=avro({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 1}),
        ),
        ottla.ConfigError,
        'row 1: column "a": 12345.6 does not fit Decimal256(4, 1); cast it first',
    ),
    "a date that JSON would not read back": (
        lambda kafka: kafka.write("events", dated(2**31 * 86_400_000), value=ottla.json()),
        ottla.ConfigError,
        (
            'row 1: column "at": a date64 of 185542587187200000 ms is beyond the days that 32 bits '
            "hold; cast it to a timestamp"
        ),
    ),
    "a date that is a time": (
        lambda kafka: kafka.write("events", dated(1), value=ottla.json()),
        ottla.ConfigError,
        'row 1: column "at": a date64 of 1 ms is not midnight; cast it to a timestamp',
    ),
    "no time": (
        lambda kafka: kafka.topics(timeout="soon"),
        TypeError,
        "a timeout must be a number of seconds or a timedelta, not 'soon'",
    ),
}


@pytest.fixture(scope="module")
def kafka() -> Iterator[ottla.Client]:
    """A client of a broker with one topic of one partition."""
    with ottla.Broker(config={"node.id": 1}) as broker, broker.client() as client:
        client.create_topic("events", partitions=1)
        yield client


@pytest.mark.parametrize("name", SAID)
def test_a_wrong_call_says_what_is_wrong_once(name: str, kafka: ottla.Client) -> None:
    call, kind, said = SAID[name]
    with pytest.raises(kind) as raised:
        call(kafka)
    assert str(raised.value) == said


@pytest.mark.parametrize(
    "call",
    [
        lambda kafka: kafka.create_topic(5),
        lambda kafka: kafka.delete_topic(5),
        lambda kafka: kafka.create_partitions(5, 2),
        lambda kafka: kafka.send(5, "value"),
        lambda kafka: kafka.send_async(5, "value"),
        lambda kafka: kafka.write(5, pl.DataFrame({"id": [1]})),
        lambda kafka: kafka.scan(5),
        lambda kafka: kafka.consumer(5),
        lambda kafka: kafka.consumer([5]),
        lambda kafka: kafka.consumer({5: [0]}),
        lambda kafka: kafka.consumer(5, group_id="g"),
        lambda kafka: kafka.configs(5),
        lambda kafka: kafka.offsets(5),
        lambda kafka: kafka.delete_records(5),
        lambda kafka: kafka.groups.reset("g", 5, "latest"),
        lambda kafka: kafka[5],
    ],
)
def test_the_name_of_a_topic_is_a_str(call: Callable[[Any], object], kafka: ottla.Client) -> None:
    with pytest.raises(TypeError, match="the name of a topic must be a str, not int"):
        call(kafka)


def test_a_missing_topic_is_named_with_the_nearest(kafka: ottla.Client) -> None:
    for call in (
        lambda: kafka.scan("event"),
        lambda: kafka.consumer("event"),
        lambda: kafka.offsets("event"),
        lambda: kafka.delete_topic("event"),
        lambda: kafka.create_partitions("event", 2),
        lambda: kafka.configs("event"),
        lambda: kafka.groups.reset("g", "event", "latest"),
    ):
        with pytest.raises(ottla.UnknownTopicError, match=r"no topic event; did you mean events\?"):
            call()
