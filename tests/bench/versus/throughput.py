"""Produce and consume with clients that were not written here; CPU of the broker and the client."""

from __future__ import annotations

import itertools
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition

from versus.measure import measured
from versus.servers import create_topic, delete_topic

if TYPE_CHECKING:
    from processes import JavaTools
    from versus.measure import Results, Span
    from versus.servers import Server

GIB = 1 << 30
_numbers = itertools.count()


@dataclass(frozen=True)
class Shape:
    """What is produced."""

    size: int
    codec: str = "none"
    acks: str = "all"
    partitions: int = 1

    def __str__(self) -> str:
        partitions = f"{self.partitions} partition{'s' if self.partitions > 1 else ''}"
        return f"{self.size} B, {self.codec}, acks={self.acks}, {partitions}"


SAMPLE = [Shape(100), Shape(1024), Shape(1024, "lz4"), Shape(100, "none", "1", 10)]
FULL = [
    Shape(size, codec, acks, partitions)
    for size in (100, 1024)
    for codec in ("none", "lz4", "zstd")
    for acks in ("1", "all")
    for partitions in (1, 10, 100)
]


def note(results: Results, what: str, server: Server, span: Span, records: int, size: int) -> None:
    """Write down rate, and CPU of both sides."""
    gib = records * size / GIB
    results.add(f"{what}: records/s", server.name, records / span.seconds)
    cpu = f"{what}: CPU s of the broker per GiB"
    results.add(cpu, server.name, span.server_cpu / gib, wanted=3, lower=True)
    busy = f"{what}: cores that the client uses"
    results.add(busy, server.name, span.client_cpu / span.seconds, lower=True)


def produce(server: Server, topic: str, shape: Shape, records: int) -> None:
    """Produce with ``produce_batch`` of confluent-kafka, the fastest way that it has."""
    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "acks": shape.acks,
            "compression.type": shape.codec,
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
            "batch.size": 1_000_000,
        }
    )
    # Half of it repeats, so that a codec has something to do and something to save.
    value = bytes(range(256)) * 4
    batches = [
        [{"value": value[: shape.size], "partition": partition}] * 10_000
        for partition in range(shape.partitions)
    ]
    sent = 0
    for batch in itertools.cycle(batches):
        left = batch[: records - sent]
        while left:
            queued = producer.produce_batch(topic, [dict(message) for message in left])
            sent += queued
            left = left[queued:]
            producer.poll(0.01 if left else 0)
        if sent >= records:
            break
    assert producer.flush(120) == 0


def consume(server: Server, topic: str, partitions: int, records: int) -> None:
    """Consume with ``consume`` of confluent-kafka."""
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap,
            "group.id": "versus",
            "enable.auto.commit": False,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    found = 0
    while found < records:
        found += len(consumer.consume(min(10_000, records - found), 10))
    consumer.close()


def confluent(results: Results, servers: list[Server], shapes: list[Shape], records: int) -> None:
    """One round of each shape with confluent-kafka."""
    for shape in shapes:
        count = records if shape.size < 1000 else records // 4
        for server in servers:
            topic = f"confluent-{next(_numbers)}"
            create_topic(server, topic, shape.partitions)
            with measured(server.pid) as span:
                produce(server, topic, shape, count)
            note(results, f"produce, confluent-kafka, {shape}", server, span, count, shape.size)
            with measured(server.pid) as span:
                consume(server, topic, shape.partitions, count)
            note(results, f"consume, confluent-kafka, {shape}", server, span, count, shape.size)
            delete_topic(server, topic)


def java(results: Results, servers: list[Server], tools: JavaTools, records: int) -> None:
    """One round of the Java performance tools at their defaults."""
    for size in (100, 1024):
        count = records if size < 1000 else records // 4
        for server in servers:
            topic = f"java-{next(_numbers)}"
            create_topic(server, topic, 1)
            bootstrap = ("--bootstrap-server", server.bootstrap, "--topic", topic)
            with measured(server.pid) as span:
                printed = tools.run(
                    "producer-perf-test",
                    *bootstrap,
                    *("--num-records", str(count), "--record-size", str(size)),
                    *("--throughput", "-1"),
                )
            rate = re.findall(r"([\d.]+) records/sec", printed)[-1]
            what = f"produce, Java perf test, {size} B"
            results.add(f"{what}: records/s", server.name, float(rate))
            cpu = span.server_cpu / (count * size / GIB)
            results.add(
                f"{what}: CPU s of the broker per GiB", server.name, cpu, wanted=3, lower=True
            )
            with measured(server.pid) as span:
                printed = tools.run(
                    "consumer-perf-test",
                    *bootstrap,
                    *("--num-records", str(count), "--hide-header", "--timeout", "60000"),
                    *("--group", topic),
                )
            # The last cell is records/s while it fetched, after the rebalance.
            row = [cell.strip() for cell in printed.strip().splitlines()[-1].split(",")]
            what = f"consume, Java perf test, {size} B"
            results.add(f"{what}: records/s while fetching", server.name, float(row[-1]))
            cpu = span.server_cpu / (count * size / GIB)
            results.add(
                f"{what}: CPU s of the broker per GiB", server.name, cpu, wanted=3, lower=True
            )
            delete_topic(server, topic)


def memory_after(results: Results, servers: list[Server], total_bytes: int) -> None:
    """Anonymous memory of brokers after so much was produced."""
    from versus.measure import memory_mib

    shape = Shape(1024, partitions=4)
    for server in servers:
        create_topic(server, "memory", shape.partitions)
        produce(server, "memory", shape, total_bytes // shape.size)
        time.sleep(1)  # what was sent is still being let go
        anonymous = memory_mib(server.pid, "RssAnon")
        what = f"anonymous memory after {total_bytes >> 30} GiB produced, MiB"
        results.add(what, server.name, anonymous, wanted=10, lower=True)
        delete_topic(server, "memory")
