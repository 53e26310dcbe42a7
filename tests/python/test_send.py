"""Sending single records."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timezone

import pytest

import ottla


def test_a_record_comes_back_as_it_was(kafka: ottla.Client, name: str) -> None:
    moment = datetime(2025, 2, 3, 4, 5, 6, 789_000, tzinfo=timezone.utc)
    sent = kafka.send(
        name,
        b"\x00\xff",
        key="k",
        partition=0,
        timestamp=moment,
        headers=[("a", b"1"), ("a", None), ("b", "text")],
    )
    assert (sent.topic, sent.partition, sent.offset) == (name, 0, 0)
    (row,) = kafka[name].head().to_pylist()
    assert row["key"] == b"k"
    assert row["value"] == b"\x00\xff"
    assert row["timestamp"] == moment
    assert row["headers"] == [
        {"key": "a", "value": b"1"},
        {"key": "a", "value": None},
        {"key": "b", "value": b"text"},
    ]
    assert (row["topic"], row["partition"], row["offset"]) == (name, 0, 0)


def test_nulls_stay_nulls(remote: ottla.Client, name: str) -> None:
    remote.send(name, None, key=None)
    remote.send(name, "", key="")
    rows = remote[name].head(columns=["key", "value"]).to_pylist()
    assert rows == [{"key": None, "value": None}, {"key": b"", "value": b""}]


def test_send_async_is_a_future_and_awaitable(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    pending = kafka.send_async(name, "first")
    assert pending.result(30).offset == 0
    assert pending.done()
    assert pending.exception() is None

    async def several() -> list[int | None]:
        sent = await asyncio.gather(*[kafka.send_async(name, str(n)) for n in range(50)])
        return [one.offset for one in sent]

    assert asyncio.run(several()) == list(range(1, 51))


def test_a_callback_runs_once_it_is_done(kafka: ottla.Client, name: str) -> None:
    ready = threading.Event()
    seen: list[ottla.Pending] = []

    def done(pending: ottla.Pending) -> None:
        seen.append(pending)
        ready.set()

    pending = kafka.send_async(name, "x")
    pending.add_done_callback(done)
    assert ready.wait(30)
    assert seen == [pending]


def test_a_record_that_is_too_large_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, config={"max.message.bytes": 1000})
    with pytest.raises(ottla.MessageTooLargeError):
        kafka.send(name, b"x" * 5000)


def test_a_partition_that_is_not_there_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    with pytest.raises(ottla.KafkaError, match="7"):
        kafka.send(name, "x", partition=7, timeout=30)


@pytest.mark.parametrize("bad", [5, 1.5, ["x"]])
def test_other_types_are_refused(kafka: ottla.Client, name: str, bad: object) -> None:
    with pytest.raises(TypeError, match="bytes"):
        kafka.send(name, bad)
    with pytest.raises(TypeError, match="bytes"):
        kafka.send(name, "x", key=[bad])  # type: ignore[arg-type]


def test_a_flush_waits_for_everything(kafka: ottla.Client, name: str) -> None:
    pending = [kafka.send_async(name, str(number)) for number in range(1000)]
    kafka.flush(30)
    assert all(one.done() for one in pending)


def test_keys_go_where_java_puts_them(kafka: ottla.Client, name: str) -> None:
    # From the murmur2 of Java's default partitioner.
    kafka.create_topic(name, partitions=6)
    places = [kafka.send(name, "x", key=key).partition for key in ("21", "foobar", "a-little")]
    assert places == [murmur2(key) % 6 for key in (b"21", b"foobar", b"a-little")]


def murmur2(data: bytes) -> int:
    """Hash as Kafka's Java client does, cut to 31 bits."""
    mask, m = 0xFFFFFFFF, 0x5BD1E995
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) // 4 * 4
    for place in range(0, whole, 4):
        k = int.from_bytes(data[place : place + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    for place in reversed(range(whole, len(data))):
        h ^= data[place] << (8 * (place - whole))
        if place == whole:
            h = h * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return (h ^ (h >> 15)) & 0x7FFFFFFF


def test_a_producer_of_its_own_and_one_of_a_client(broker: ottla.Broker, name: str) -> None:
    with ottla.Producer(broker.bootstrap_servers, linger_ms=0, compression_type="zstd") as one:
        pending = one.send(name, "x")
    assert pending.result(0).offset == 0
    with broker.client() as client, ottla.Producer(client) as other:
        other.send(name, "y")
        other.flush()
        assert client.scan(name).count() == 2
    with pytest.raises(ottla.ClosedError):
        client.send(name, "z")
