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


def test_scalars_of_numpy_and_pandas_are_keys_and_times(kafka: ottla.Client, name: str) -> None:
    import numpy as np
    import pandas as pd
    import polars as pl

    kafka.create_topic(name, partitions=1)
    moment = np.datetime64("2024-05-01T12:00:00.000001", "us")
    keys = [
        pl.Series([7])[0],
        pd.Series([7])[0],
        np.uint8(7),
        np.bool_(True),
        np.str_("k"),
        np.bytes_(b"k"),
        moment,
        pd.Timestamp("2024-05-01T12:00:00.000000001"),
        pd.NaT,
    ]
    for key in keys:
        kafka.send(name, "x", key=key, partition=np.int64(0))
    found = kafka[name].head(99).to_pylist()
    # The same text as of a column.
    assert [row["key"] for row in found] == [
        b"7", b"7", b"7", b"true", b"k", b"k",
        b"2024-05-01T12:00:00.000001Z", b"2024-05-01T12:00:00.000000001Z", None,
    ]  # fmt: skip
    with pytest.raises(TypeError, match=r"a key must be .*, not float"):
        kafka.send(name, "x", key=np.float64(0.5))
    with pytest.raises(ottla.ConfigError, match="nanoseconds"):
        kafka.send(name, "x", key=np.datetime64(1, "ns"))

    end = kafka.scan(name).end
    noon = "2024-05-01T12:00:00.001999999"
    for time in (
        np.datetime64(noon, "ns"),
        pd.Timestamp(noon, tz="UTC"),
        np.datetime64(noon, "us"),
    ):
        kafka.send(name, "x", timestamp=time)
    times = [row["timestamp"] for row in kafka.scan(name, end).head().to_pylist()]
    assert times == [datetime(2024, 5, 1, 12, 0, 0, 1000, tzinfo=timezone.utc)] * 3
    assert kafka.scan(name, np.datetime64("2100-01-01")).count() == 0
    for missing in (np.datetime64("NaT"), pd.NaT):
        with pytest.raises(ottla.ConfigError, match="NaT"):
            kafka.send(name, "x", timestamp=missing)
        with pytest.raises(ottla.ConfigError, match="start= is NaT"):
            kafka.scan(name, missing)


def test_what_is_refused_says_which_argument_and_why(kafka: ottla.Client, name: str) -> None:
    for word in ("earliest", "yesterday"):
        with pytest.raises(ottla.ConfigError, match=f"timestamp='{word}' is not a time: pass ISO"):
            kafka.send(name, "x", timestamp=word)
    for start in ('{"o":{"0":1}}', " [1]"):
        with pytest.raises(ottla.ConfigError, match=r"start= is JSON text: .*json\.loads"):
            kafka.scan(name, start)
    with pytest.raises(ottla.ConfigError, match="'soon' is not a position"):
        kafka.scan(name, "soon")
    for format_ in ("text", ottla.raw()):
        with pytest.raises(TypeError, match=r"ottla\.(text|raw)\(\) is bytes or str .*\"json\""):
            kafka.send(name, {"a": 1}, value_format=format_)
        with pytest.raises(TypeError, match="a value must be bytes, str or None, not int"):
            kafka.send(name, 1, value_format=format_)
    for part in ({"value": "\ud800"}, {"key": "\ud800"}, {"headers": {"h": "\ud800"}}):
        words = "key|value|header 'h'"
        with pytest.raises(
            ottla.ConfigError, match=rf"the ({words}) '.ud800' has a lone surrogate"
        ):
            kafka.send(name, **part)


def test_what_a_broker_refuses_is_said_once(kafka: ottla.Client, name: str) -> None:
    import polars as pl

    compacted, small = f"{name}-compacted", f"{name}-small"
    kafka.create_topic(name, partitions=1)
    kafka.create_topic(compacted, partitions=1, config={"cleanup.policy": "compact"})
    kafka.create_topic(small, partitions=1, config={"max.message.bytes": 200})
    future = datetime(2200, 1, 1, tzinfo=timezone.utc)
    for topic, code, value, timestamp in (
        (name, "INVALID_TIMESTAMP", "x", future),
        (compacted, "INVALID_RECORD", "x", None),
        (small, "MESSAGE_TOO_LARGE", "x" * 500, None),
    ):
        rows = pl.DataFrame({"value": [value], "t": [timestamp or datetime.now(timezone.utc)]})
        with pytest.raises(ottla.KafkaError) as sent:
            kafka.send(topic, value, timestamp=timestamp)
        with pytest.raises(ottla.KafkaError) as written:
            kafka.write(topic, rows, timestamp="t")
        for error in (sent, written):
            text = str(error.value)
            assert text.startswith(f"producing to {topic}-0: "), text
            assert error.value.name == code
            assert text.count(code) == 1, text
            for words in ("record 0 of the batch", "larger than", "clock", "has no key"):
                assert text.count(words) <= 1, text


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
