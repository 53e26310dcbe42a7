"""What our client promises, against every broker."""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from ottla.typing import CompressionType

UTC = timezone.utc
START = datetime(2026, 1, 1, tzinfo=UTC)


def table(rows: int) -> pa.Table:
    return pa.table(
        {
            "id": pa.array(range(rows), pa.int64()),
            "name": pa.array([None if n % 7 == 0 else f"name {n}" for n in range(rows)]),
            "amount": pa.array([n / 4 for n in range(rows)]),
            "at": pa.array(
                [START + timedelta(seconds=n) for n in range(rows)], pa.timestamp("ms", tz="UTC")
            ),
        }
    )


TYPES = {"id": "int64", "name": "string", "amount": "float64", "at": "timestamp[ms, UTC]"}


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_table_comes_back_as_it_went_in(
    client: ottla.Client, topic: str, codec: CompressionType
) -> None:
    rows = table(5_000)
    written = client.write(
        topic, rows, key="id", timestamp="at", value=ottla.json(), compression_type=codec
    )
    assert written == 5_000
    scan = client.scan(topic, value=ottla.json(TYPES), columns=list(TYPES))
    assert scan.count() == 5_000
    found = pa.table(scan.to_pyarrow()).select(list(TYPES)).sort_by("id")
    assert found.to_pydict() == rows.to_pydict()
    again = pa.table(scan.to_pyarrow()).select(list(TYPES)).sort_by("id")
    assert again == found, "a scan is a value"


def test_keys_decide_the_partition_as_in_java(client: ottla.Client, topic: str) -> None:
    # murmur2 of these keys, without the sign, modulo three
    expected = {b"21": 0, b"foobar": 0, b"abc": 0, b"a-little-bit-long-string": 2}
    for key in expected:
        client.send(topic, value=b"", key=key)
    found = client.scan(topic).to_pyarrow()
    partitions = dict(zip(found["key"].to_pylist(), found["partition"].to_pylist(), strict=True))
    assert partitions == expected


def test_one_record_keeps_every_part(client: ottla.Client, topic: str) -> None:
    metadata = client.send(
        topic,
        value=None,
        key=b"k",
        partition=1,
        headers=[("h", b"1"), ("h", b"2"), ("n", None)],
        timestamp=START,
    )
    assert (metadata.topic, metadata.partition, metadata.offset) == (topic, 1, 0)
    (row,) = client.scan(topic).to_pyarrow().to_pylist()
    assert (row["key"], row["value"], row["timestamp"]) == (b"k", None, START)
    assert [(h["key"], h["value"]) for h in row["headers"]] == [
        ("h", b"1"),
        ("h", b"2"),
        ("n", None),
    ]


def test_a_scan_is_bounded_by_time_and_by_offset(client: ottla.Client, topic: str) -> None:
    rows = table(1_000)
    client.write(topic, rows, partition=0, timestamp="at", value=ottla.json())
    by_time = client.scan(
        topic, start=START + timedelta(seconds=100), end=START + timedelta(seconds=250)
    )
    assert by_time.offsets[0] == (100, 250)
    assert by_time.count() == 150
    assert by_time.to_pyarrow()["offset"].to_pylist() == list(range(100, 250))
    past = client.scan(topic, start=START + timedelta(days=1))
    assert past.count() == 0
    by_offset = client.scan(topic, start={0: 990}, end={0: 995}, partitions=[0])
    assert by_offset.to_pyarrow()["offset"].to_pylist() == list(range(990, 995))


def test_a_scan_does_not_see_what_came_later(client: ottla.Client, topic: str) -> None:
    client.send(topic, value=b"before", partition=0)
    scan = client.scan(topic)
    client.send(topic, value=b"after", partition=0)
    assert scan.to_pyarrow()["value"].to_pylist() == [b"before"]


def test_a_scan_never_truncates_in_silence(client: ottla.Client, topic: str) -> None:
    client.write(topic, table(100), partition=0, value=ottla.json())
    scan = client.scan(topic)
    client.delete_records(topic, {0: 50})
    with pytest.raises(ottla.DataLossError, match=topic):
        scan.to_pyarrow()
    fresh = client.scan(topic)
    assert fresh.offsets[0] == (50, 100)


def test_a_recreated_topic_is_another_topic(client: ottla.Client, topic: str) -> None:
    client.send(topic, value=b"old", partition=0)
    scan = client.scan(topic)
    client.delete_topic(topic)
    for _ in range(200):  # Apache Kafka answers before the name is free
        try:
            client.create_topic(topic, partitions=3)
            break
        except ottla.KafkaError:
            continue
    client.send(topic, value=b"new", partition=0)
    with pytest.raises(ottla.KafkaError, match=topic):
        scan.to_pyarrow()


def test_a_consumer_of_assigned_partitions_follows_the_end(
    client: ottla.Client, topic: str
) -> None:
    with client.consumer(topic, auto_offset_reset="earliest") as consumer:
        seen: list[bytes] = []
        for number in range(5):
            client.send(topic, value=b"%d" % number, partition=number % 3)
            while len(seen) <= number:
                batch = consumer.poll(timeout=20)
                assert batch is not None, "nothing came for twenty seconds"
                seen.extend(pa.table(batch)["value"].cast(pa.binary()).to_pylist())
        assert seen == [b"0", b"1", b"2", b"3", b"4"]
        assert sum(consumer.lag()[topic].values()) == 0


def await_retention(client: ottla.Client, topic: str, wanted: str) -> None:
    # A node of Apache Kafka answers before its brokers have heard of the change.
    deadline = time.monotonic() + 20
    while (found := client[topic].config["retention.ms"]) != wanted:
        assert time.monotonic() < deadline, f"{found} instead of {wanted}"


def test_configurations_are_read_and_altered(client: ottla.Client, topic: str) -> None:
    client.alter_configs(topic, {"retention.ms": "123456"})
    await_retention(client, topic, "123456")
    with pytest.raises(ottla.KafkaError, match=r"no\.such\.key"):
        client.alter_configs(topic, {"no.such.key": "1"})
    client.alter_configs(topic, {"retention.ms": None})
    await_retention(client, topic, "604800000")


def test_topics_are_created_listed_grown_and_deleted(client: ottla.Client, topic: str) -> None:
    assert topic in client.topics()
    with pytest.raises(ottla.TopicExistsError, match=topic):
        client.create_topic(topic, partitions=3)
    client.create_topic(topic, partitions=3, exist_ok=True)
    client.create_partitions(topic, 5)
    assert client[topic].num_partitions == 5
    client.delete_topic(topic)
    with pytest.raises(ottla.UnknownTopicError, match=topic):
        client.scan(topic)


def test_head_and_tail_show_the_ends(client: ottla.Client, topic: str) -> None:
    client.write(topic, table(50), partition=2, value=ottla.json())
    assert pa.table(client[topic].head(3))["offset"].to_pylist() == [0, 1, 2]
    assert pa.table(client[topic].tail(3))["offset"].to_pylist() == [47, 48, 49]
