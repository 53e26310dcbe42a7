"""Run the comparison: ``python -m versus [--rounds N] [--part PART]...``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from processes import JavaTools, kafka_libs
from versus import frames, latency, limits, report, scale, throughput
from versus.measure import Results
from versus.servers import Kafka, Ottla, Server

PARTS = ["limits", "starts", "throughput", "java", "latency", "frames", "memory", "scale"]


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="versus", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this; may repeat")
    parser.add_argument("--records", type=int, default=1_000_000, help="records of a measurement")
    parser.add_argument("--full", action="store_true", help="every size, codec, acks, partitions")
    parser.add_argument("--seconds", type=float, default=5, help="of a latency measurement")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--picture", type=Path, help="draw the ratios into this file (.png, .svg)")
    parser.add_argument("--before", type=Path, help="compare with the --json of an earlier run")
    parser.add_argument("--tolerance", type=float, default=0.2, help="of --before (default 0.2)")
    return parser.parse_args()


def one_round(
    results: Results, servers: list[Server], arguments: argparse.Namespace, java: JavaTools
) -> None:
    """Measure every part once."""
    parts, records = arguments.part or PARTS, arguments.records
    if "limits" in parts:
        limits.round_of_limits(results)
    if "starts" in parts:
        scale.starts(results, java.libs)
    if "throughput" in parts:
        shapes = throughput.FULL if arguments.full else throughput.SAMPLE
        throughput.confluent(results, servers, shapes, records)
    if "java" in parts:
        throughput.java(results, servers, java, records)
    if "latency" in parts:
        latency.produce_to_consume(results, servers, arguments.seconds)
    if "frames" in parts:
        frames.round_of_reads(results, servers, records)
    if "memory" in parts:
        throughput.memory_after(results, servers, 2 << 30)
    if "scale" in parts:
        scale.connections(results, servers)
        scale.partitions(results, servers, [1000, 10_000] if arguments.full else [1000])


def main() -> int:
    """Run it; 1 when ``--before`` shows that something fell behind."""
    arguments = options()
    java, results = JavaTools(kafka_libs()), Results()
    servers: list[Server] = [Ottla(), Kafka(java.libs)]
    try:
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
            one_round(results, servers, arguments, java)
            servers.reverse()  # who comes first finds a colder machine
    finally:
        for server in servers:
            server.end()
    print(report.as_text(results))
    if arguments.json:
        arguments.json.write_text(report.as_json(results))
    if arguments.picture:
        report.draw(results, arguments.picture)
    if arguments.before:
        behind = report.guard(results, arguments.before, arguments.tolerance)
        for line in behind:
            print(f"fell behind: {line}", file=sys.stderr)
        return 1 if behind else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
