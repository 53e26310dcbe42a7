"""Apache Kafka's own performance tools, at their defaults, against both brokers."""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING

from processes import JavaTools
from versus.measure import (
    BROKER_CPU,
    CLIENT_LIMIT,
    Span,
    cpu_seconds,
    own_cpu_seconds,
    thread_seconds,
)
from versus.servers import create_topic, delete_topic
from versus.throughput import GIB, Shape

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

HEAP = "-Xmx512M"  # what Apache Kafka's scripts give these tools
LOOK_EVERY_S = 0.05
TIMEOUT_S = 120
_numbers = itertools.count()

AXES = [Shape(100), Shape(1024), Shape(1024, "lz4"), Shape(1024, "zstd"), Shape(100, acks="1")]
AXES += [Shape(100, partitions=10), Shape(100, partitions=100)]


def run(libs: str, server: Server, tool: str, *arguments: str) -> tuple[str, Span]:
    """Run a tool to its end; return what it printed and what it took, its start included."""
    command = ["java", HEAP, "-cp", f"{libs}/*", JavaTools.CLASSES[tool], *arguments]
    span, threads = Span(), {}
    before, own, begin = cpu_seconds(server.pid), own_cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.perf_counter() < begin + TIMEOUT_S:
                # Threads are gone with the process: what they had used when last seen counts.
                threads.update(thread_seconds(process.pid))
                time.sleep(LOOK_EVERY_S)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        printed = output.read()
    assert process.returncode == 0, f"{command}:\n{printed}"
    span.seconds = time.perf_counter() - begin
    span.server_cpu = cpu_seconds(server.pid) - before
    span.client_cpu = own_cpu_seconds() - own
    span.busiest_thread = max(threads.values(), default=0.0)
    return printed, span


def note(results: Results, what: str, server: Server, span: Span, rate: float, gib: float) -> None:
    """Write down the tool's own rate, and CPU of both sides."""
    results.add(f"{what}: records/s", server.name, rate)
    results.add(f"{what}: {BROKER_CPU}", server.name, span.server_cpu / gib, lower=True)
    cores = span.client_cpu / span.seconds
    results.explain(f"{what}: cores that the client uses", server.name, cores)
    results.explain(f"{what}: {CLIENT_LIMIT}", server.name, span.busiest_thread / span.seconds)


def produce(
    results: Results, server: Server, libs: str, topic: str, shape: Shape, count: int
) -> None:
    """Fill a topic with the producer's tool."""
    printed, span = run(
        libs,
        server,
        "producer-perf-test",
        *("--bootstrap-server", server.bootstrap, "--topic", topic, "--throughput", "-1"),
        *("--num-records", str(count), "--record-size", str(shape.size)),
        *("--command-property", f"acks={shape.acks}", f"compression.type={shape.codec}"),
    )
    rate = float(re.findall(r"([\d.]+) records/sec", printed)[-1])
    what = f"produce, Java perf test, {shape}"
    note(results, what, server, span, rate, count * shape.size / GIB)


def consume(
    results: Results, server: Server, libs: str, topic: str, shape: Shape, count: int
) -> None:
    """Read a topic with the consumer's tool."""
    printed, span = run(
        libs,
        server,
        "consumer-perf-test",
        *("--bootstrap-server", server.bootstrap, "--topic", topic, "--group", topic),
        *("--num-records", str(count), "--hide-header", "--timeout", "60000"),
    )
    # The last cell is records/s while it fetched, after the rebalance.
    rows = [line.split(",") for line in printed.splitlines() if line.count(",") >= 9]
    what = f"consume, Java perf test, {shape}"
    note(results, what, server, span, float(rows[-1][-1]), count * shape.size / GIB)


def perf_tools(
    results: Results, servers: list[Server], libs: str, shapes: list[Shape], records: int
) -> None:
    """One round of each shape."""
    for shape in shapes:
        count = shape.count(records)
        for server in servers:
            topic = f"java-{next(_numbers)}"
            create_topic(server, topic, shape.partitions)
            produce(results, server, libs, topic, shape, count)
            consume(results, server, libs, topic, shape, count)
            delete_topic(server, topic)
