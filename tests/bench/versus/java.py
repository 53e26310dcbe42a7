"""Apache Kafka's own performance tools, at their defaults, against both brokers."""

from __future__ import annotations

import contextlib
import itertools
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from processes import JavaTools
from versus.measure import Span, cpu_seconds, cpu_seconds_of, thread_seconds
from versus.servers import create_topic, delete_topic
from versus.throughput import Shape, note

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

HEAP = "-Xmx512M"  # what Apache Kafka's scripts pass to these tools
LOOK_EVERY_S = 0.05
TIMEOUT_S = 120
_numbers = itertools.count()

AXES = [Shape(100), Shape(1024), Shape(1024, "lz4"), Shape(1024, "zstd"), Shape(100, acks="1")]
AXES += [Shape(100, partitions=10), Shape(100, partitions=100)]


@dataclass(frozen=True)
class Look:
    """CPU time used up to some moment."""

    at: float
    server: float
    client: float
    threads: dict[str, float]
    """For each thread of the client."""


def look(server: Server, client: int) -> Look:
    """Look at both processes."""
    used = cpu_seconds_of(server.pids), cpu_seconds(client)
    return Look(time.perf_counter(), *used, thread_seconds(client))


def run(libs: str, server: Server, tool: str, *arguments: str) -> tuple[str, float, Span]:
    """Run a tool to its end; return what it printed, and CPU: of the broker in all, and a span."""
    command = ["java", HEAP, "-cp", f"{libs}/*", JavaTools.CLASSES[tool], *arguments]
    looks: list[Look] = []
    begin = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None and time.perf_counter() < begin + TIMEOUT_S:
                with contextlib.suppress(OSError):  # it exited between the two lines
                    looks.append(look(server, process.pid))
                time.sleep(LOOK_EVERY_S)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        printed = output.read()
    assert process.returncode == 0, f"{command}:\n{printed}"
    return printed, cpu_seconds_of(server.pids) - looks[0].server, second_half(looks)


def second_half(looks: list[Look]) -> Span:
    """What was used during the second half of the broker's work.

    This leaves out the start of the virtual machine, the group's wait for more members, and the
    end.
    """
    begin, work = looks[0].server, looks[-1].server - looks[0].server
    first = max(index for index, one in enumerate(looks) if one.server <= begin + work / 2)
    last = min(index for index, one in enumerate(looks) if one.server >= begin + work * 99 / 100)
    threads: dict[str, float] = {}
    for one in looks[first : last + 1]:
        threads.update(one.threads)  # for an exited one, what it had used when last seen
    before, after = looks[first], looks[last]
    return Span(
        seconds=after.at - before.at,
        server_cpu=after.server - before.server,
        client_cpu=after.client - before.client,
        busiest_thread=max(used - before.threads.get(name, 0.0) for name, used in threads.items()),
    )


def produce(
    results: Results, server: Server, libs: str, topic: str, shape: Shape, count: int
) -> None:
    """Fill a topic with the producer's tool."""
    printed, cpu, span = run(
        libs,
        server,
        "producer-perf-test",
        *("--bootstrap-server", server.bootstrap, "--topic", topic, "--throughput", "-1"),
        *("--num-records", str(count), "--record-size", str(shape.size)),
        *("--command-property", f"acks={shape.acks}", f"compression.type={shape.codec}"),
    )
    rate = float(re.findall(r"([\d.]+) records/sec", printed)[-1])
    note(results, f"produce, Java perf test, {shape}", server, rate, cpu / shape.gib(count), span)


def consume(
    results: Results, server: Server, libs: str, topic: str, shape: Shape, count: int
) -> None:
    """Read a topic with the consumer's tool."""
    printed, cpu, span = run(
        libs,
        server,
        "consumer-perf-test",
        *("--bootstrap-server", server.bootstrap, "--topic", topic, "--group", topic),
        *("--num-records", str(count), "--hide-header", "--timeout", "60000"),
    )
    # The last cell is records/s while it fetched, after the rebalance.
    rows = [line.split(",") for line in printed.splitlines() if line.count(",") >= 9]
    rate = float(rows[-1][-1])
    note(results, f"consume, Java perf test, {shape}", server, rate, cpu / shape.gib(count), span)


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
