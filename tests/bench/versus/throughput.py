"""Produce and consume with confluent-kafka; CPU of the broker and of the client."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition

from versus.measure import BROKER_CPU, CLIENT_LIMIT, measured, memory_mib
from versus.servers import create_topic, delete_topic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from versus.measure import Results, Span
    from versus.servers import Server

GIB = 1 << 30
BATCH, DIFFERENT = 10_000, 1_000
_numbers = itertools.count()


@dataclass(frozen=True)
class Shape:
    """What is produced."""

    size: int
    codec: str = "none"
    acks: str = "all"
    partitions: int = 1
    idempotent: bool = False

    def __str__(self) -> str:
        partitions = f"{self.partitions} partition{'s' if self.partitions > 1 else ''}"
        idempotent = ", idempotent" * self.idempotent
        return f"{self.size} B, {self.codec}, acks={self.acks}, {partitions}{idempotent}"

    def count(self, records: int) -> int:
        """Return how many of them are as much work as this many small ones."""
        return records if self.size < 1000 else records // 4

    def gib(self, count: int) -> float:
        """Return the size of this many values."""
        return count * self.size / GIB


# Both sizes, then each of the other choices once.
AXES = [Shape(size, codec) for size in (100, 1024) for codec in ("none", "lz4", "zstd")]
AXES += [Shape(100, acks="1"), Shape(100, partitions=10), Shape(100, partitions=100)]
FULL = [
    Shape(size, codec, acks, partitions)
    for size in (100, 1024)
    for codec in ("none", "lz4", "zstd")
    for acks in ("1", "all")
    for partitions in (1, 10, 100)
]


def note(
    results: Results, what: str, server: Server, rate: float, broker_cpu: float, span: Span
) -> None:
    """Record the rate, the broker's CPU per GiB, and how busy the client was in part of it."""
    results.add(f"{what}: records/s", server.name, rate)
    results.add(f"{what}: {BROKER_CPU}", server.name, broker_cpu, lower=True)
    cores = span.client_cpu / span.seconds
    results.explain(f"{what}: cores that the client uses", server.name, cores)
    results.explain(f"{what}: {CLIENT_LIMIT}", server.name, span.at_limit)


def some_values(size: int) -> list[bytes]:
    """Return distinct values with half of their bytes in common, which a codec can compress."""
    random = Random(7)
    same = bytes(range(256)) * (size // 512 + 1)
    return [random.randbytes(size - size // 2) + same[: size // 2] for _ in range(DIFFERENT)]


def produce(server: Server, topic: str, shape: Shape, records: int) -> Producer:
    """Produce with ``produce_batch`` of confluent-kafka, the fastest way that it has.

    The producer is returned so that its threads, and what they used, are still there.
    """
    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "acks": shape.acks,
            "enable.idempotence": shape.idempotent,
            "compression.type": shape.codec,
            "linger.ms": 5,
            "queue.buffering.max.messages": 200_000,
            "batch.size": 1_000_000,
        }
    )
    values = some_values(shape.size)
    batches = [
        [{"value": value, "partition": partition} for value in values] * (BATCH // len(values))
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
    return producer


def consume(server: Server, topic: str, partitions: int, records: int) -> Consumer:
    """Consume with ``consume`` of confluent-kafka; the consumer is returned to be closed."""
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
    return consumer


def confluent(
    results: Results,
    servers: Sequence[Server],
    shapes: list[Shape],
    records: int,
    where: str = "",
) -> None:
    """One round of each shape with confluent-kafka; ``where`` goes before the names."""
    for shape in shapes:
        count = shape.count(records)
        for server in servers:
            topic = f"confluent-{next(_numbers)}"
            create_topic(server, topic, shape.partitions)
            with measured(server.pids) as span:
                producer = produce(server, topic, shape, count)
            what = f"{where}produce, confluent-kafka, {shape}"
            cpu = span.server_cpu / shape.gib(count)
            note(results, what, server, count / span.seconds, cpu, span)
            del producer
            with measured(server.pids) as span:
                consumer = consume(server, topic, shape.partitions, count)
            what = f"{where}consume, confluent-kafka, {shape}"
            cpu = span.server_cpu / shape.gib(count)
            note(results, what, server, count / span.seconds, cpu, span)
            consumer.close()
            delete_topic(server, topic)


def memory_after(results: Results, server: Server, total_bytes: int) -> None:
    """Anonymous memory of a fresh broker after this much was produced."""
    shape = Shape(1024, partitions=4)
    create_topic(server, "memory", shape.partitions)
    produce(server, "memory", shape, total_bytes // shape.size)
    time.sleep(1)  # what was sent is still being released
    what = f"anonymous memory after {total_bytes / GIB:.2g} GiB produced, MiB"
    results.add(what, server.name, memory_mib(server.pids, "RssAnon"), lower=True)
