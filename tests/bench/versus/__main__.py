"""Run the comparison, or compare two runs: ``python -m versus compare BEFORE.json AFTER.json``."""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from versus import compare
from versus.measure import OTTLA

if TYPE_CHECKING:
    from collections.abc import Callable

    from versus.clusters import Cluster
    from versus.measure import Results
    from versus.servers import Server

SHARED_PARTS = ["throughput", "java", "latency", "transactions", "frames", "tables", "windows"]
"""With brokers that run the whole time."""
PARTS = ["limits", "starts", *SHARED_PARTS, "memory", "scale", "tier"]
CLUSTER_PARTS = ["cluster", "cluster-transactions", "failover", "cluster-scale"]
"""With three nodes of each kind; they take long, and are asked for by name."""


@dataclass(frozen=True)
class Sizes:
    """How much work a measurement does."""

    records: int = 1_000_000
    seconds: float = 5
    memory_bytes: int = 2 << 30
    load: int = 200_000
    connections: int = 1_000
    java_step: int = 1
    """Every n-th shape: starting virtual machines is most of a smoke run."""
    partitions: tuple[int, ...] = (1_000,)
    most_partitions: tuple[int, ...] = (10_000,)
    """In the first round only: it takes as long as all the others together."""
    changes: int = 1_000_000
    """Of the table; a key has ten of them."""
    kills: int = 10
    """How often a round kills a leader; Apache Kafka takes half a minute for each."""


QUICK = Sizes(50_000, 1, 64 << 20, 20_000, 100, 6, (100,), (1_000,), 50_000, 1)


def options(arguments: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="versus", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5; quick: 1)")
    parser.add_argument(
        "--part",
        action="append",
        choices=PARTS + CLUSTER_PARTS,
        help="only this part; may be given several times",
    )
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test; its figures mean nothing"
    )
    parser.add_argument("--kills", type=int, help="kills in a round of the part failover")
    parser.add_argument(
        "--client",
        action="append",
        choices=["confluent-kafka", "ottla", "Java", "franz-go"],
        help="a client of the part failover (default confluent-kafka); may be given several times",
    )
    parser.add_argument(
        "--partitions", action="append", type=int, help="partitions in the part cluster-scale"
    )
    parser.add_argument("--records", type=int, help="records in a measurement")
    parser.add_argument("--changes", type=int, help="changes of the table in the part tables")
    parser.add_argument(
        "--full", action="store_true", help="every combination of sizes, codecs, acks…"
    )
    parser.add_argument("--ours", action="store_true", help="without Apache Kafka and the peers")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--picture", type=Path, help="draw the ratios into this file (.png, .svg)")
    return parser.parse_args(arguments)


class Run:
    """Rounds of the requested parts."""

    def __init__(self, arguments: argparse.Namespace, results: Results, libs: str | None) -> None:
        from versus.clusters import KafkaCluster, OttlaCluster
        from versus.servers import Kafka, Ottla

        self.results, self.libs = results, libs
        self.sizes = QUICK if arguments.quick else Sizes()
        chosen = arguments.part or PARTS
        self.parts = [part for part in PARTS + CLUSTER_PARTS if part in chosen]
        if libs is None and "java" in self.parts:
            self.parts.remove("java")
        self.records = arguments.records or self.sizes.records
        self.changes = arguments.changes or self.sizes.changes
        self.full = arguments.full
        self.kills = arguments.kills or self.sizes.kills
        self.clients = arguments.client or ["confluent-kafka"]
        self.partitions = arguments.partitions or self.sizes.partitions
        self.makers: list[Callable[[], Server]] = [Ottla]
        self.cluster_makers: list[Callable[[], Cluster]] = [OttlaCluster]
        if libs is not None:
            self.makers.append(partial(Kafka, libs))
            self.cluster_makers.append(partial(KafkaCluster, libs))
        self.servers: list[Server] = []
        self.failed: list[str] = []

    def rounds(self, count: int) -> None:
        """Measure; the brokers that most parts share run the whole time."""
        with ExitStack() as stack:
            if set(SHARED_PARTS) & set(self.parts):
                for make in self.makers:
                    server = make()
                    stack.callback(server.end)
                    self.servers.append(server)
                    warm_up(server, self.sizes.load)
            for number in range(count):
                self._round(number, count)
                self.servers.reverse()  # the first one finds a colder machine
                self.makers.reverse()
                self.cluster_makers.reverse()

    def _round(self, number: int, count: int) -> None:
        from versus import limits, tiered

        limits.copies(self.results)
        for part in self.parts:
            begin = time.monotonic()
            try:
                if part == "tier":
                    others = self.libs is not None
                    seconds = self.sizes.seconds
                    tiered.round_of_tier(self.results, self.records, seconds, others=others)
                elif part in {"starts", "memory", "scale"}:
                    self._fresh(part, first=number == 0)
                elif part in CLUSTER_PARTS:
                    self._cluster(part)
                else:
                    self._shared(part)
            except Exception:  # noqa: BLE001 (the other parts can still run)
                self.failed.append(f"round {number + 1}: {part}")
                traceback.print_exc()
            took = time.monotonic() - begin
            print(f"round {number + 1} of {count}: {part} took {took:.0f} s", file=sys.stderr)

    def _shared(self, part: str) -> None:
        from versus import frames, java, latency, limits, throughput, transactional

        results, servers = self.results, self.servers
        if part == "limits":
            limits.disk(results)
        elif part == "throughput":
            shapes = throughput.FULL if self.full else throughput.AXES
            throughput.confluent(results, servers, shapes, self.records)
        elif part == "java":
            assert self.libs is not None
            shapes = throughput.FULL if self.full else java.AXES[:: self.sizes.java_step]
            java.perf_tools(results, servers, self.libs, shapes, self.records)
        elif part == "latency":
            latency.produce_to_consume(results, servers, self.sizes.seconds)
        elif part == "transactions":
            transactional.commits(results, servers, self.sizes.seconds)
            transactional.isolation_levels(results, servers, self.records // 4)
        elif part == "frames":
            others = self.libs is not None
            frames.round_of_frames(results, servers, self.records, others=others)
        elif part in {"tables", "windows"}:
            self._kept(part)

    def _kept(self, part: str) -> None:
        """Measure what is kept of a topic, with our broker."""
        from versus import tables, windows

        for server in self.servers:
            if server.name != OTTLA:
                continue
            if part == "tables":
                tables.round_of_tables(self.results, server, self.changes)
            else:
                windows.round_of_windows(self.results, server, self.records)

    def _cluster(self, part: str) -> None:
        """Measure clusters of three nodes, one after the other."""
        from versus import loads, replicated, transactional

        results, makers = self.results, self.cluster_makers
        if part == "cluster":
            replicated.carry(results, makers, self.records, self.sizes.seconds)
        elif part == "cluster-transactions":
            transactional.on_three(results, makers, self.sizes.seconds, replicated.WHERE)
        elif part == "failover":
            found = loads.clients(kafka_libs())
            missing = [name for name in self.clients if name not in found]
            assert not missing, f"{missing} need Go or Apache Kafka's jars"
            clients = {name: found[name] for name in self.clients}
            replicated.lose_nodes(results, makers, clients, self.kills)
        else:
            replicated.many_partitions(results, makers, self.partitions)

    def _fresh(self, part: str, *, first: bool) -> None:
        """Measure brokers that have done nothing before."""
        from versus import scale, throughput
        from versus.servers import FromWheel, fresh

        makers = list(self.makers)
        if part == "starts" and os.environ.get("OTTLA_BIN"):
            makers.append(FromWheel)
        for make in makers:
            with fresh(make) as server:
                if part == "starts":
                    scale.starts(self.results, server, self.sizes.load)
                elif part == "memory":
                    throughput.memory_after(self.results, server, self.sizes.memory_bytes)
                else:
                    scale.connections(self.results, server, self.sizes.connections)
                    counts = self.sizes.partitions
                    for partitions in counts + self.sizes.most_partitions * first:
                        scale.partitions(self.results, server, partitions)


def warm_up(server: Server, records: int) -> None:
    """Let a virtual machine compile the code that it will run: a broker in use is not cold."""
    from versus import throughput
    from versus.servers import create_topic, delete_topic

    shape = throughput.Shape(100)
    create_topic(server, "warm", shape.partitions)
    throughput.produce(server, "warm", shape, records)
    throughput.consume(server, "warm", shape.partitions, records).close()
    delete_topic(server, "warm")


def kafka_libs() -> str | None:
    """Return the folder of Apache Kafka's jars."""
    libs = os.environ.get("OTTLA_KAFKA_LIBS", "")
    if not Path(libs).is_dir() or not libs or shutil.which("java") is None:
        return None
    return libs


def main(arguments: list[str]) -> int:
    """Run it."""
    if arguments[:1] == ["compare"]:
        return compare.main(arguments[1:])
    chosen = options(arguments)
    libs = None if chosen.ours else kafka_libs()
    if libs is None and not chosen.ours:
        print(
            "Apache Kafka is missing: OTTLA_KAFKA_LIBS must name the folder of its jars, and java "
            "must be on the path; or leave the peers out with --ours",
            file=sys.stderr,
        )
        return 2
    from versus import report
    from versus.measure import Results

    # When `timeout` or a service manager stops this program, the brokers stop, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results, begin = Results(), time.monotonic()
    run = Run(chosen, results, libs)
    try:
        run.rounds(chosen.rounds or (1 if chosen.quick else 5))
    except KeyboardInterrupt:
        run.failed.append("interrupted; what was measured until then follows")
    print(report.as_text(results))
    print("".join(f"\nFAILED  {part}" for part in run.failed))
    print(f"\nthe run took {(time.monotonic() - begin) / 60:.1f} minutes")
    if chosen.json:
        chosen.json.parent.mkdir(parents=True, exist_ok=True)
        chosen.json.write_text(report.as_json(results))
    if chosen.picture:
        chosen.picture.parent.mkdir(parents=True, exist_ok=True)
        report.draw(results, chosen.picture)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
