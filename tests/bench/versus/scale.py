"""Starting, coming back, and many partitions and connections."""

from __future__ import annotations

import itertools
import socket
import time
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient

from versus.measure import cpu_seconds, memory_mib
from versus.servers import Kafka, Ottla, create_topic, delete_topic
from versus.throughput import Shape, produce

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

CONNECTIONS = 1000
_numbers = itertools.count()


def starts(results: Results, libs: str) -> None:
    """One round: from nothing to ready, idle memory, and back after a kill with data."""
    for make in (Ottla, lambda: Kafka(libs)):
        begin = time.perf_counter()
        server: Server = make()
        elapsed = time.perf_counter() - begin
        if server.name != "ottla":
            # Its directory was formatted by a program of its own before; only the start counts.
            elapsed = server.restart_after_kill()
        results.add("ready, s", server.name, elapsed, wanted=20, lower=True)
        time.sleep(2)  # a virtual machine goes on loading after it is ready
        idle = memory_mib(server.pid, "VmRSS")
        results.add("resident memory idle, MiB", server.name, idle, wanted=20, lower=True)
        create_topic(server, "load", 4)
        produce(server, "load", Shape(1024, partitions=4), 200_000)
        again = server.restart_after_kill()
        results.add("ready again after kill -9, s", server.name, again, wanted=30, lower=True)
        server.end()


def partitions(results: Results, servers: list[Server], counts: list[int]) -> None:
    """Create topics of many partitions, and write to each of them."""
    for count in counts:
        for server in servers:
            topic = f"wide-{next(_numbers)}"
            begin = time.perf_counter()
            create_topic(server, topic, count)
            what = f"{count:,} partitions"
            elapsed = time.perf_counter() - begin
            results.add(f"{what}: created within, s", server.name, elapsed, lower=True)
            begin = time.perf_counter()
            produce_to_each(server, topic, count)
            elapsed = time.perf_counter() - begin
            results.add(f"{what}: one record to each, s", server.name, elapsed, lower=True)
            resident = memory_mib(server.pid, "VmRSS")
            results.add(f"{what}: resident memory, MiB", server.name, resident, lower=True)
            delete_topic(server, topic)


def produce_to_each(server: Server, topic: str, count: int) -> None:
    """Write one record to every partition."""
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": server.bootstrap, "acks": "all"})
    for partition in range(count):
        producer.produce(topic, b"value", partition=partition)
    assert producer.flush(120) == 0


def connections(results: Results, servers: list[Server]) -> None:
    """Open many connections, and ask for metadata beside them."""
    for server in servers:
        host, port = server.bootstrap.rsplit(":", 1)
        before = memory_mib(server.pid, "VmRSS")
        cpu = cpu_seconds(server.pid)
        sockets = [socket.create_connection((host, int(port))) for _ in range(CONNECTIONS)]
        admin = AdminClient({"bootstrap.servers": server.bootstrap})
        begin = time.perf_counter()
        admin.list_topics(timeout=30)
        elapsed = (time.perf_counter() - begin) * 1e3
        what = f"{CONNECTIONS:,} connections"
        grown = max(memory_mib(server.pid, "VmRSS") - before, 0.1)
        results.add(f"{what}: memory more, MiB", server.name, grown, lower=True)
        results.add(f"{what}: metadata beside them, ms", server.name, elapsed, lower=True)
        used = max(cpu_seconds(server.pid) - cpu, 0.01)
        results.add(f"{what}: CPU s to open them", server.name, used, lower=True)
        for each in sockets:
            each.close()
