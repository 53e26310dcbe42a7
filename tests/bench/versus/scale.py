"""Starting, restarting, and many partitions and connections."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from typing import TYPE_CHECKING

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from versus.measure import cpu_seconds_of, memory_mib
from versus.servers import create_topic, delete_topic
from versus.throughput import Shape, produce

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

API_VERSIONS = struct.pack(">ihhih", 10, 18, 0, 1, -1)
"""A request of version 0 without a client id, preceded by its length."""
PATIENCE_S = 300
"""A broker that opens thousands of files at once answers late."""
_numbers = itertools.count()


def starts(results: Results, server: Server, records: int) -> None:
    """Time to ready, idle memory, and restart after a kill with data."""
    results.add("ready, s", server.name, server.ready_seconds, lower=True)
    time.sleep(2)  # a virtual machine keeps loading after it is ready
    idle = memory_mib(server.pids, "VmRSS")
    results.add("resident memory idle, MiB", server.name, idle, lower=True)
    create_topic(server, "load", 4)
    produce(server, "load", Shape(1024, partitions=4), records)
    again = server.restart_after_kill()
    results.add("ready again after kill -9, s", server.name, again, lower=True)


def partitions(results: Results, server: Server, count: int, where: str = "") -> None:
    """Create a topic of many partitions, write to each of them, and restart with them.

    ``where`` goes before the names.
    """
    topic, what = f"wide-{next(_numbers)}", f"{where}{count:,} partitions"
    begin = time.perf_counter()
    create_topic(server, topic, count)
    elapsed = time.perf_counter() - begin
    results.add(f"{what}: created within, s", server.name, elapsed, lower=True)
    begin = time.perf_counter()
    produce_to_each(server, topic, count)
    elapsed = time.perf_counter() - begin
    results.add(f"{what}: one record to each, s", server.name, elapsed, lower=True)
    resident = memory_mib(server.pids, "VmRSS")
    results.add(f"{what}: resident memory, MiB", server.name, resident, lower=True)
    again = server.restart_after_kill()
    results.add(f"{what}: ready again after kill -9, s", server.name, again, lower=True)
    delete_topic(server, topic)


def produce_to_each(server: Server, topic: str, count: int) -> None:
    """Write one record to every partition."""
    producer = Producer(
        {
            "bootstrap.servers": server.bootstrap,
            "acks": "all",
            "request.timeout.ms": PATIENCE_S * 1000,
            "socket.timeout.ms": PATIENCE_S * 1000,
            "message.timeout.ms": PATIENCE_S * 1000,
        }
    )
    # The node that is asked may not have heard of all of them yet.
    begin = time.perf_counter()
    while len(producer.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions) < count:
        assert time.perf_counter() < begin + PATIENCE_S, "a node does not hear of all partitions"
    for partition in range(count):
        producer.produce(topic, b"value", partition=partition)
    assert producer.flush(PATIENCE_S) == 0


def connections(results: Results, server: Server, count: int) -> None:
    """Open many connections, send a request on each, and ask for metadata on another."""
    host, port = server.bootstrap.rsplit(":", 1)
    what = f"{count:,} connections"
    before, cpu = memory_mib(server.pids, "VmRSS"), cpu_seconds_of(server.pids)
    begin = time.perf_counter()
    sockets = [socket.create_connection((host, int(port)), timeout=60) for _ in range(count)]
    for each in sockets:
        each.sendall(API_VERSIONS)
    for each in sockets:
        assert each.recv(4, socket.MSG_WAITALL)
    elapsed = time.perf_counter() - begin
    results.add(f"{what}: opened, one answer on each, s", server.name, elapsed, lower=True)
    used = cpu_seconds_of(server.pids) - cpu
    results.add(f"{what}: CPU s of the broker for that", server.name, used, lower=True)
    grown = max(memory_mib(server.pids, "VmRSS") - before, 0.1)
    results.add(f"{what}: memory more, MiB", server.name, grown, lower=True)
    begin = time.perf_counter()
    AdminClient({"bootstrap.servers": server.bootstrap}).list_topics(timeout=30)
    elapsed = (time.perf_counter() - begin) * 1e3
    results.add(f"{what}: a new client's metadata, ms", server.name, elapsed, lower=True)
    for each in sockets:
        each.close()
