"""Transactions with confluent-kafka: records, how long commits take, what read_committed costs."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition

from versus.measure import BROKER_CPU, CLIENT_LIMIT, measured
from versus.servers import create_topic, delete_topic, fresh
from versus.throughput import GIB, some_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from versus.clusters import Cluster
    from versus.measure import Results
    from versus.servers import Server

SIZE, PARTITIONS = 100, 3
PATIENCE_S = 60
AT_ONCE = 1_000
READS = 3
"""Each level reads this often, by turns: what is compared is a few per cent."""
_numbers = itertools.count()


@dataclass(frozen=True)
class Rhythm:
    """When a transaction is committed: after so many records, or after so long."""

    name: str
    records: int | None = None
    seconds: float | None = None


RHYTHMS = [Rhythm("100 ms", seconds=0.1), Rhythm("10 records", records=10)]


@dataclass
class Written:
    """What was committed."""

    records: int = 0
    commits_ms: list[float] = field(default_factory=list)


def writer(server: Server) -> Producer:
    """Return a transactional producer that is ready."""
    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "transactional.id": f"versus-{next(_numbers)}",
            "linger.ms": 0,
            "queue.buffering.max.messages": 200_000,
            "batch.size": 1_000_000,
        }
    )
    producer.init_transactions(PATIENCE_S)
    return producer


def one_transaction(producer: Producer, topic: str, values: list[bytes], rhythm: Rhythm) -> int:
    """Begin a transaction and produce, up to the commit; return the number of records."""
    producer.begin_transaction()
    if rhythm.records is not None:
        for number in range(rhythm.records):
            producer.produce(topic, values[number], partition=number % PARTITIONS)
        return rhythm.records
    assert rhythm.seconds is not None
    end, sent = time.perf_counter() + rhythm.seconds, 0
    while time.perf_counter() < end:
        partition = sent // AT_ONCE % PARTITIONS
        batch = [{"value": value, "partition": partition} for value in values]
        queued = producer.produce_batch(topic, batch)
        sent += queued
        producer.poll(0 if queued == len(batch) else 0.001)
    return sent


def write(server: Server, topic: str, rhythm: Rhythm, seconds: float) -> Written:
    """Commit transactions one after the other for so long."""
    producer, values, written = writer(server), some_values(SIZE), Written()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        written.records += one_transaction(producer, topic, values[:AT_ONCE], rhythm)
        begin = time.perf_counter()
        producer.commit_transaction(PATIENCE_S)
        written.commits_ms.append((time.perf_counter() - begin) * 1e3)
    return written


def read(server: Server, topic: str, isolation: str) -> int:
    """Read the topic to its end; return the number of records."""
    consumer = Consumer(
        {
            "bootstrap.servers": server.bootstrap,
            "group.id": "versus",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "fetch.queue.backoff.ms": 5,
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    found = ends = 0
    while ends < PARTITIONS:
        messages = consumer.consume(10_000, 1)
        ended = sum(message.error() is not None for message in messages)
        ends += ended
        found += len(messages) - ended
    consumer.close()
    return found


def commits(results: Results, servers: Sequence[Server], seconds: float, where: str = "") -> None:
    """Measure each rhythm; ``where`` goes before the names."""
    for rhythm, server in itertools.product(RHYTHMS, servers):
        topic = f"transactional-{next(_numbers)}"
        create_topic(server, topic, PARTITIONS)
        write(server, topic, rhythm, seconds / 5)  # warm
        with measured(server.pids) as span:
            written = write(server, topic, rhythm, seconds)
        what = f"{where}transactions, a commit every {rhythm.name}"
        results.add(f"{what}: records/s", server.name, written.records / span.seconds)
        results.explain(f"{what}: {CLIENT_LIMIT}", server.name, span.at_limit)
        cpu = span.server_cpu / len(written.commits_ms) * 1e3
        results.add(f"{what}: CPU ms of the broker for each", server.name, cpu, lower=True)
        took = sorted(written.commits_ms)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            value = took[min(int(len(took) * share), len(took) - 1)]
            results.add(f"{what}: commit {name}, ms", server.name, value, lower=True)
        delete_topic(server, topic)


def isolation_levels(results: Results, servers: Sequence[Server], records: int) -> None:
    """Read the same committed records with both levels: what the broker uses for them."""
    for server in servers:
        topic = f"isolation-{next(_numbers)}"
        create_topic(server, topic, PARTITIONS)
        producer, values = writer(server), some_values(SIZE)
        rhythm, sent = Rhythm("100 records", records=100), 0
        while sent < records:
            sent += one_transaction(producer, topic, values, rhythm)
            producer.commit_transaction(PATIENCE_S)
        used = {"read_uncommitted": 0.0, "read_committed": 0.0}
        for level in [*used] * READS:
            with measured(server.pids) as span:
                found = read(server, topic, level)
            assert found == sent, f"{level} of {server.name} found {found} of {sent} records"
            used[level] += span.server_cpu
        for level, seconds in used.items():
            cpu = seconds / (READS * sent * SIZE / GIB)
            results.add(
                f"read transactions of 100 records: {BROKER_CPU}",
                f"{server.name}, {level}",
                cpu,
                lower=True,
            )
        delete_topic(server, topic)


def on_three(
    results: Results, makers: Sequence[Callable[[], Cluster]], seconds: float, where: str
) -> None:
    """Measure commits on three nodes, one cluster at a time."""
    for make in makers:
        with fresh(make) as cluster:
            commits(results, [cluster], seconds, where)
