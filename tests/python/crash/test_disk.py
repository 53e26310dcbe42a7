"""A full disk and a damaged segment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from processes import BrokerProcess, missing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK_BYTES = 24 << 20
BALLAST_BYTES = 8 << 20


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
