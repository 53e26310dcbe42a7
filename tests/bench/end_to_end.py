"""End-to-end figures, seen from Python: ``make bench`` runs this with the installed wheel.

Each figure is the median of several rounds and is printed with what it was measured on. Nothing
here asserts a time: figures that matter are compared by a person, or as ratios within one run.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD_BYTES = 150
MEMORY_TEST_BYTES = 2 << 30


def median(measure: Callable[[], float], rounds: int) -> float:
    """Return the median of several measurements."""
    return statistics.median(measure() for _ in range(rounds))


def status_kib(pid: int, field: str) -> int:
    """Return a field of /proc/PID/status in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1])
    return 0


def binary_table(rows: int) -> pa.Table:
    """Return keys and opaque values of 150 bytes together."""
    keys = pa.array([b"key-%04d" % (number % 1000) for number in range(1000)])
    values = pa.array([bytes([65 + number % 26]) * (RECORD_BYTES - 8) for number in range(1000)])
    index = pa.array(np.arange(rows) % 1000)
    return pa.table({"key": keys.take(index), "value": values.take(index)})


def event_table(rows: int) -> pa.Table:
    """Return eight typed columns whose JSON is about 150 bytes a row."""
    random = np.random.default_rng(7)
    names = pa.array(["alpha", "beta", "gamma", "delta"])
    return pa.table(
        {
            "id": pa.array(np.arange(rows, dtype=np.int64)),
            "customer": pa.array(random.integers(0, 100_000, rows)),
            "amount": pa.array(np.round(random.random(rows) * 1000, 2)),
            "tax": pa.array(np.round(random.random(rows) * 100, 2)),
            "paid": pa.array(random.random(rows) > 0.5),
            "name": names.take(pa.array(random.integers(0, 4, rows))),
            "city": names.take(pa.array(random.integers(0, 4, rows))),
            "ts": pa.array(1_700_000_000_000 + np.arange(rows, dtype=np.int64)),
        }
    )


EVENT_TYPES = {
    "id": "int64",
    "customer": "int64",
    "amount": "float64",
    "tax": "float64",
    "paid": "bool",
    "name": "string",
    "city": "string",
    "ts": "int64",
}


def embedded(rounds: int, rows: int) -> dict[str, float]:
    """Measure writes and scans against an embedded broker in this process."""
    figures: dict[str, float] = {}
    binary, events = binary_table(rows), event_table(rows)
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        broker = ottla.Broker(directory + "/data", durability="os")
        figures["embedded broker ready, ms (first)"] = (time.perf_counter() - start) * 1e3
        client = broker.client()
        names = iter(range(10_000))

        def write(table: pa.Table, **options: Any) -> float:
            topic = f"write-{next(names)}"
            client.create_topic(topic, partitions=1)
            start = time.perf_counter()
            client.write(topic, table, **options)
            rate = float(table.num_rows / (time.perf_counter() - start))
            client.delete_topic(topic)
            return rate

        figures["write, binary values, rows/s"] = median(
            lambda: write(binary, key="key", value=ottla.raw("value")), rounds
        )
        figures["write, JSON values of 8 columns, rows/s"] = median(
            lambda: write(events, value=ottla.json()), rounds
        )
        client.create_topic("binary", partitions=1)
        client.write("binary", binary, key="key", value=ottla.raw("value"))
        client.create_topic("events", partitions=1)
        client.write("events", events, value=ottla.json())

        def scan(source: ottla.Client, topic: str, **options: Any) -> float:
            start = time.perf_counter()
            found = sum(batch.num_rows for batch in source.scan(topic, **options))
            elapsed = time.perf_counter() - start
            assert found == rows
            return rows / elapsed

        figures["scan, embedded, 150 B records to Arrow, rows/s"] = median(
            lambda: scan(client, "binary"), rounds
        )
        figures["scan, embedded, JSON to 8 typed columns, rows/s"] = median(
            lambda: scan(client, "events", value=ottla.json(EVENT_TYPES)), rounds
        )
        remote = ottla.connect(broker.bootstrap_servers)
        figures["scan, loopback TCP, 150 B records to Arrow, rows/s"] = median(
            lambda: scan(remote, "binary"), rounds
        )
        remote.close()
        broker.close()

    def ready() -> float:
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            with ottla.Broker(directory + "/data"):
                return (time.perf_counter() - start) * 1e3

    figures["embedded broker ready, ms"] = median(ready, max(rounds, 5))
    return figures


class Program:
    """``ottla broker start``, timed."""

    INSTALLED = Path(sysconfig.get_path("scripts")) / "ottla"

    def __init__(
        self, directory: Path, *options: str, port: int = 0, program: Path | None = None
    ) -> None:
        program = program or Path(os.environ.get("OTTLA_BIN") or self.INSTALLED)
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [
                str(program),
                "broker",
                "start",
                "--data-dir",
                str(directory),
                "--listeners",
                f"PLAINTEXT://127.0.0.1:{port}",
                *options,
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.bootstrap = self.process.stdout.readline().split()[1].removeprefix("bootstrap=")
        self.ready_ms = (time.perf_counter() - start) * 1e3

    def kill(self) -> None:
        """Kill it, as a crash does."""
        self.process.kill()
        self.process.wait()


def program(rounds: int) -> dict[str, float]:
    """Measure the broker as a program: start, and restart after a kill under load."""
    figures: dict[str, float] = {}
    ready, again = [], []
    for _ in range(max(rounds, 3)):
        with tempfile.TemporaryDirectory() as directory:
            broker = Program(Path(directory) / "data")
            ready.append(broker.ready_ms)
            client = ottla.connect(broker.bootstrap)
            client.create_topic("load", partitions=4)
            table = binary_table(200_000)
            written = threading.Event()

            def load(
                client: ottla.Client = client,
                table: pa.Table = table,
                written: threading.Event = written,
            ) -> None:
                try:
                    while True:
                        client.write("load", table, key="key", value=ottla.raw("value"), timeout=10)
                        written.set()
                except ottla.KafkaError:
                    return

            worker = threading.Thread(target=load, daemon=True)
            worker.start()
            written.wait(30)
            broker.kill()
            broker = Program(Path(directory) / "data", port=int(broker.bootstrap.rsplit(":")[-1]))
            again.append(broker.ready_ms)
            broker.kill()
            worker.join(30)
            # A broker that was killed leaves its directory behind.
            with contextlib.suppress(ottla.TimeoutError):
                client.close(timeout=1)
    figures["ottla broker start ready, ms"] = statistics.median(ready)
    figures["ready again after kill -9 under load, ms"] = statistics.median(again)
    return figures


def memory() -> dict[str, float]:
    """Measure what the program needs when idle, and while 2 GiB are written and read."""
    figures: dict[str, float] = {}
    if os.environ.get("OTTLA_BIN"):
        with tempfile.TemporaryDirectory() as directory:
            broker = Program(Path(directory) / "data", program=Program.INSTALLED)
            idle = status_kib(broker.process.pid, "VmRSS") / 1024
            figures["from the wheel: ottla broker start ready, ms"] = broker.ready_ms
            figures["from the wheel: resident memory idle, MiB"] = idle
            broker.kill()
    with tempfile.TemporaryDirectory() as directory:
        broker = Program(Path(directory) / "data", "-o", "durability=os")
        pid = broker.process.pid
        figures["resident memory idle, MiB"] = status_kib(pid, "VmRSS") / 1024
        client = ottla.connect(broker.bootstrap)
        client.create_topic("memory", partitions=4)
        table = binary_table(500_000)
        anonymous = [status_kib(pid, "RssAnon") / 1024]
        total = 0
        while total < MEMORY_TEST_BYTES:
            client.write("memory", table, key="key", value=ottla.raw("value"))
            total += table.num_rows * RECORD_BYTES
            anonymous.append(status_kib(pid, "RssAnon") / 1024)
        start = time.perf_counter()
        rows = sum(batch.num_rows for batch in client.scan("memory"))
        figures["scan of 2 GiB over loopback TCP, rows/s"] = rows / (time.perf_counter() - start)
        anonymous.append(status_kib(pid, "RssAnon") / 1024)
        figures["anonymous memory before 2 GiB in and out, MiB"] = anonymous[0]
        figures["anonymous memory after the first write, MiB"] = anonymous[1]
        figures["anonymous memory at most, MiB"] = max(anonymous)
        figures["anonymous memory after 2 GiB in and out, MiB"] = anonymous[-1]
        client.close()
        broker.kill()
    return figures


def machine() -> str:
    """Describe where the figures come from."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"


def main() -> int:
    """Run the requested parts and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="measurements for each median")
    parser.add_argument("--rows", type=int, default=2_000_000, help="rows of a table")
    parser.add_argument("--part", choices=["all", "embedded", "program"], default="all")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    figures: dict[str, float] = {}
    if arguments.part != "program":
        figures |= embedded(arguments.rounds, arguments.rows)
    if arguments.part != "embedded" and sys.platform == "linux":
        figures |= program(arguments.rounds)
        figures |= memory()
    if arguments.json:
        print(json.dumps({"machine": machine(), "figures": figures}, indent=2))
        return 0
    print(f"machine: {machine()}")
    print(f"command: {' '.join(sys.argv)}")
    for name, value in figures.items():
        print(f"  {name:<55} {value:>14,.1f}" if value < 1e4 else f"  {name:<55} {value:>14,.0f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
