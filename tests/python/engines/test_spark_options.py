"""The options of the Spark source are typed, and what is not known is refused. Needs no Spark."""

from __future__ import annotations

import re

import pytest

import ottla
from ottla._spark_options import Options, options_of

ADDRESS = {"kafka.bootstrap.servers": "host:9092", "topic": "orders"}


def test_options_become_arguments() -> None:
    given = {
        **ADDRESS,
        "kafka.client.id": "spark",
        "start": '{"0": 5}',
        "END": "2024-05-01",
        "partitions": "0, 2",
        "columns": "offset, id",
        "value": '{"id": "int64"}',
        "batch_rows": "500",
        "parts": "7",
        "timeout": "2.5",
    }
    assert options_of(given, "read") == Options(
        settings={"bootstrap.servers": "host:9092", "client.id": "spark"},
        topic="orders",
        value=ottla.json({"id": "int64"}),
        parts=7,
        max_offsets=None,
        others={
            "start": {"0": 5},
            "end": "2024-05-01",
            "partitions": [0, 2],
            "columns": ["offset", "id"],
            "batch_rows": 500,
            "timeout": 2.5,
        },
    )
    stream = options_of({**ADDRESS, "max_offsets_per_trigger": "9"}, "readStream")
    assert (stream.max_offsets, stream.value, stream.others) == (9, None, {})
    written = options_of(
        {**ADDRESS, "key": "id", "partition": "3", "headers": '{"h": "column"}', "acks": "1"},
        "write",
    )
    assert written.others == {
        "key": "id",
        "partition": 3,
        "headers": {"h": "column"},
        "acks": "1",
    }
    assert options_of({**ADDRESS, "partition": "place"}, "write").others == {"partition": "place"}
    # Spark hands this one to every sink of a stream.
    assert options_of({**ADDRESS, "checkpointLocation": "x"}, "writeStream").others == {}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"start": '{"10": 0, "2": 5}'}, [2, 10]),
        ({"start": '{"1": 0, "2": 5}', "partitions": "2"}, [2]),
        ({"start": '{"orders": {"1": 0}}'}, None),
        ({"start": "{}"}, None),
        ({"start": "earliest"}, None),
        ({}, None),
    ],
)
def test_a_stream_that_starts_at_offsets_of_partitions_reads_only_these(
    given: dict[str, str], wanted: list[int] | None
) -> None:
    stream = options_of({**ADDRESS, **given}, "readStream")
    assert stream.others.get("partitions") == wanted
    # The offsets of a bounded read select by themselves.
    bounded = options_of({**ADDRESS, "start": '{"1": 0}'}, "read")
    assert "partitions" not in bounded.others


def test_the_scans_of_such_a_stream_have_only_these_partitions(
    kafka: ottla.Client, filled: str
) -> None:
    given = {**ADDRESS, "topic": filled, "start": '{"1": 3}'}
    others = options_of(given, "readStream").others
    assert kafka.scan(filled, **others).offsets == {1: (3, 10)}
    # As the stream goes on from its checkpoint.
    since = kafka.scan(filled, **(others | {"start": {filled: {1: 5}}}))
    assert since.offsets == {1: (5, 10)}
    latest = kafka.scan(filled, **(others | {"start": "latest", "end": "latest"}))
    assert latest.offsets == {1: (10, 10)}


def test_formats_are_named() -> None:
    schema = '{"type": "record", "name": "r", "fields": [{"name": "id", "type": "long"}]}'
    for value, wanted, infers in [
        ("raw", ottla.raw(), False),
        ("text", ottla.text(), False),
        ("json", ottla.json(), True),
        ('{"id": "int64"}', ottla.json({"id": "int64"}), False),
    ]:
        options = options_of({**ADDRESS, "value": value}, "read")
        assert (options.value, options.infers) == (wanted, infers)
    avro = options_of({**ADDRESS, "value": "avro", "value_schema": schema}, "read")
    assert (avro.value, avro.infers) == (ottla.avro(schema), False)
    latest = options_of({**ADDRESS, "value": "avro", "registry": "http://localhost:1"}, "read")
    assert not latest.infers


@pytest.mark.parametrize(
    ("use", "given", "message"),
    [
        ("read", {"topic": "t"}, "name the cluster"),
        ("read", {"kafka.bootstrap.servers": "h:1"}, "name the topic"),
        ("load", {**ADDRESS, "colums": "x"}, "did you mean columns"),
        ("load", {**ADDRESS, "bootstrap.servers": "x"}, "did you mean kafka.bootstrap.servers"),
        ("load", {**ADDRESS, "path": "orders"}, "a topic is no path"),
        ("readStream", {**ADDRESS, "end": "latest"}, "end is one of read, not of readStream"),
        ("read", {**ADDRESS, "max_offsets_per_trigger": "1"}, "is one of readStream, not of read"),
        ("write", {**ADDRESS, "start": "x"}, "start is one of read and readStream, not of write"),
        ("write", {**ADDRESS, "checkpointLocation": "x"}, "checkpointlocation is not known"),
        ("read", {**ADDRESS, "batch_rows": "many"}, "option batch_rows='many'"),
        ("read", {**ADDRESS, "partitions": "0-3"}, "option partitions='0-3'"),
        ("read", {**ADDRESS, "start": "{0: 5}"}, "option start='{0: 5}'"),
        ("read", {**ADDRESS, "parts": "0"}, "at least one part"),
        ("readStream", {**ADDRESS, "start": '{"a": 5}'}, "option start={'a': 5}"),
        ("readStream", {**ADDRESS, "max_offsets_per_trigger": "0"}, "at least 1"),
        ("read", {**ADDRESS, "value": "protobuf"}, "use raw, text, json or avro"),
        ("read", {**ADDRESS, "value": "{id: int64}"}, "is not JSON"),
        ("read", {**ADDRESS, "value": "json", "registry": "http://h"}, "registry belongs to"),
        ("read", {**ADDRESS, "value_schema": "{}"}, "value_schema belongs to"),
    ],
)
def test_what_is_not_understood_is_refused(use: str, given: dict[str, str], message: str) -> None:
    with pytest.raises(ottla.ConfigError, match=re.escape(message)):
        options_of(given, use)
