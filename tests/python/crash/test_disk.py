"""A full disk and a damaged segment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import polars as pl
import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import ottla
from processes import BrokerProcess, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK_BYTES = 24 << 20
BALLAST_BYTES = 8 << 20

#: A guard against waiting for ever.
HANG_SECONDS = 30.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    mount = shutil.which("mount")
    point = tmp_path / "disk"
    point.mkdir()
    if sys.platform != "linux" or mount is None or os.geteuid() != 0:
        missing("a small file system", "run as root on Linux, where a tmpfs can be mounted")
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(point)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        missing("a small file system", f"mount said: {made.stderr}")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def produce(
    bootstrap: str, first: int, count: int, timeout_ms: int
) -> tuple[list[tuple[int, int]], list[KafkaError]]:
    """Send ``count`` records of 10 kB; return (offset, number) of the acknowledged, and errors."""
    acknowledged: list[tuple[int, int]] = []
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Message) -> None:
        if error is None:
            acknowledged.append((message.offset(), int(message.key())))
        else:
            failed.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "acks": "all",
            "retry.backoff.max.ms": 100,
            "delivery.timeout.ms": timeout_ms,
            "batch.size": 100_000,
        }
    )
    for number in range(first, first + count):
        producer.produce("events", b"x" * 10_000, str(number), partition=0, on_delivery=delivered)
        producer.poll(0)
    assert producer.flush(60) == 0
    return acknowledged, failed


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    broker = BrokerProcess(small_disk / "data", "-o", "log.segment.bytes=4000000")
    ballast.write_bytes(bytes(BALLAST_BYTES))
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic("events", 1, 1)])["events"].result(30)

    kept, failed = produce(broker.bootstrap, 0, 2_400, 3_000)
    assert failed, "24 MB went into a disk with 16 MiB of room"
    assert kept, broker.stderr()
    assert broker.process.poll() is None, broker.stderr()
    assert "the disk is full: could not" in broker.stderr(), "the log does not say it"
    assert str(small_disk / "data") in broker.stderr()
    assert read(broker.bootstrap, kept) == sorted(kept), "not readable while the disk is full"

    ballast.unlink()
    more, failed = produce(broker.bootstrap, 10_000, 100, 30_000)
    assert failed == [], broker.stderr()
    assert len(more) == 100
    assert read(broker.bootstrap, kept + more) == sorted(kept + more)
    broker.kill()
    broker = BrokerProcess(small_disk / "data")
    assert read(broker.bootstrap, kept + more) == sorted(kept + more)
    assert broker.stop() == 0


def fill(disk: Path) -> None:
    """Take all that is left."""
    with suppress(OSError), (disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(64 << 10))


@contextmanager
def refused(kind: type[ottla.KafkaError], told: str) -> Iterator[None]:
    """Expect an error that says that the disk is full, and where, in reasonable time."""
    began = time.monotonic()
    with pytest.raises(kind, match=told) as raised:
        yield
    assert "the disk is full" in str(raised.value)
    assert time.monotonic() - began < HANG_SECONDS


@pytest.mark.parametrize("transport", ["embedded", "tcp"])
def test_a_full_disk_is_named_by_every_call(small_disk: Path, transport: str) -> None:
    data = small_disk / "data"
    broker = ottla.Broker(data)
    client = (
        broker.client(linger_ms=0)
        if transport == "embedded"
        else ottla.connect(broker.bootstrap_servers, linger_ms=0)
    )
    client.create_topic("events")
    client.send("events", "before")
    fill(small_disk)

    large, where = b"x" * 200_000, f"the disk is full: could not .*{data}/events-0"
    with refused(ottla.TimeoutError, where):
        client.send("events", large, timeout=1)
    with refused(ottla.TimeoutError, where):
        client.send_async("events", large).result(1)
    with refused(ottla.TimeoutError, where):
        client.write("events", pl.DataFrame({"value": [large]}), timeout=1)
    with refused(ottla.TimeoutError, where):
        client.flush(timeout=1)
    with refused(ottla.StorageError, f"topic other.*{data}"):
        client.create_topic("other")
    with refused(ottla.StorageError, f"topic new.*{data}"):
        client.send("new", "value")
    with refused(ottla.StorageError, f"topic new.*{data}"):
        client.write("new", pl.DataFrame({"value": ["value"]}))
    assert client.scan("events").head()["value"].to_pylist() == [b"before"]
    with refused(
        ottla.StorageError, f'3 records were not acknowledged .topic "events": 3.*{where}'
    ):
        client.close()
    # It may have something to say of its checkpoints.
    with suppress(ottla.StorageError):
        broker.close(HANG_SECONDS)


def test_what_waits_for_room_is_written_when_there_is_some(small_disk: Path) -> None:
    with ottla.Broker(small_disk / "data") as broker, broker.client(linger_ms=0) as client:
        client.create_topic("events")
        fill(small_disk)
        pending = client.send_async("events", b"x" * 200_000)
        with pytest.raises(ottla.TimeoutError, match="the disk is full") as raised:
            pending.result(1)
        assert isinstance(raised.value.__cause__, ottla.StorageError)
        (small_disk / "ballast").unlink()
        assert pending.result(HANG_SECONDS).offset == 0


def test_a_client_that_never_sent_does_not_wait_for_room_when_it_closes(small_disk: Path) -> None:
    broker = ottla.Broker(small_disk / "data")
    client = broker.client(linger_ms=0)
    client.create_topic("events")
    fill(small_disk)
    client.send_async("events", "value")
    with refused(ottla.StorageError, "1 record was not acknowledged"):
        client.close()
    with suppress(ottla.StorageError):
        broker.close(HANG_SECONDS)


def read(bootstrap: str, wanted: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Read the partition to its end; return (offset, number) of those that were asked for."""
    offsets = {offset for offset, _ in wanted}
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "none",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition("events", 0, 0)])
    found: list[tuple[int, int]] = []
    while True:
        message = consumer.poll(30)
        assert message is not None, "no answer for 30 seconds"
        if message.error() is not None:
            assert message.error().code() == KafkaError._PARTITION_EOF
            consumer.close()
            return found
        if message.offset() in offsets:
            found.append((message.offset(), int(message.key())))


def test_a_flipped_bit_is_reported_and_not_served(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data", "-o", "log.segment.bytes=1048576")
    producer = Producer({"bootstrap.servers": broker.bootstrap, "batch.num.messages": 10})
    for number in range(3_000):
        producer.produce("events", b"payload %d" % number + b"." * 1000, partition=0)
    assert producer.flush(30) == 0
    assert broker.stop() == 0

    segment = tmp_path / "data" / "events-0" / ("0" * 20 + ".log")
    content = bytearray(segment.read_bytes())
    place = content.index(b"payload 57.")
    content[place] ^= 1
    segment.write_bytes(bytes(content))

    broker = BrokerProcess(tmp_path / "data")
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "none",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "check.crcs": True,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition("events", 0, 0)])
    seen = []
    for _ in range(60):
        message = consumer.poll(0.5)
        if message is None:
            if segment.name in broker.stderr():
                break
            continue
        if message.error() is None:
            seen.append(message.value())
        elif message.error().code() == KafkaError._PARTITION_EOF:
            break
    consumer.close()
    assert all(value.startswith(b"payload ") for value in seen)
    assert b"payload 57" not in {value.split(b".")[0] for value in seen}
    assert segment.name in broker.stderr(), "the damage was not reported with its file"
    produce_after = Producer({"bootstrap.servers": broker.bootstrap, "acks": "all"})
    produce_after.produce("other", b"still serving")
    assert produce_after.flush(30) == 0
    broker.kill()
