"""What is measured of a process, and how many rounds become one figure."""

from __future__ import annotations

import contextlib
import os
import resource
import statistics
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

# Who is measured.
OTTLA, KAFKA, MACHINE = "ottla", "Apache Kafka", "this machine"
WHEEL = "ottla, from the wheel"
EMBEDDED, TCP = "ottla, embedded", "ottla, TCP"
AGAIN = "ottla, embedded, read again"
ONE_THREAD = "ottla, embedded, read again with threads=1"
ON_KAFKA = "ottla's client, Apache Kafka"
DEFAULT = "confluent-kafka, default settings"
TUNED = "confluent-kafka, fetch.queue.backoff.ms=5"
PRODUCE_BATCH = "produce_batch() of confluent-kafka, dicts built beforehand"
PRODUCE_TABLE = "produce_batch() of confluent-kafka, from the dataframe"
POLARS = "polars read_ndjson, the same bytes in memory"

TABLE, TABLE_FILES = "ottla's table", "ottla's table, in files"
BY_POLARS, BY_PANDAS = "polars by hand", "pandas by hand"
WINDOWS, QUIX, BYTEWAX = "ottla's windows", "Quix Streams", "Bytewax"

# What is measured, where more than one module speaks of it.
MEMCPY, LOOPBACK = "memcpy, GB/s", "loopback socket, GB/s"
TO_ARROW = "topic to Arrow table, 150 B records: rows/s"
TO_ARROW_ZSTD = "topic to Arrow table, 150 B records, zstd: rows/s"
TO_JSON = "topic to 8 typed columns, JSON: rows/s"
TO_SOME_JSON = "topic to 2 of 8 typed columns, JSON: rows/s"
TO_AVRO = "topic to 8 typed columns, Avro: rows/s"
FROM_ARROW = "dataframe to topic, 150 B records: rows/s"
FROM_JSON = "dataframe to topic, JSON of 8 columns: rows/s"
TABLE_BUILD = "latest row of each key, ten changes a key: changes/s"
TABLE_MEMORY = "latest row of each key: bytes of its process per key"
TABLE_PEAK = "latest row of each key: peak memory of its process, MiB"
TABLE_REFRESH = "latest row of each key, refresh of 1,000 changes: ms"
TABLE_SHOWN = "latest row of each key, refresh of 1,000 changes and a frame of all rows: ms"
TABLE_LINES = "latest row of each key: lines of code"
WINDOW_ROWS = "sums by minute and user, events in disorder: rows/s"
WINDOW_PEAK = "sums by minute and user: peak memory of its process, MiB"
WINDOW_LINES = "sums by minute and user: lines of code"
BROKER_CPU = "CPU s of the broker per GiB"
CORES_USED = "cores that its process uses"
SCALING = "all threads against one, per core"
CLIENT_LIMIT = "busy share of the client's busiest thread, or of all cores"

CORES = len(os.sched_getaffinity(0))


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in the kernel and outside of it."""
    return time.clock_gettime((~pid << 3) | 2)  # the clock id of a process, see clock_getres(2)


def cpu_seconds_of(pids: Iterable[int]) -> float:
    """Return the CPU time that several processes have used together."""
    return sum(map(cpu_seconds, pids))


def own_cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def thread_seconds(pid: int) -> dict[str, float]:
    """Return the CPU time of each thread of a process that lives."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError):  # it exited meanwhile
            found[task.name] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def memory_mib(pids: Iterable[int], field_name: str) -> float:
    """Return a field of ``/proc/PID/status``, for example VmRSS or RssAnon, of all in MiB."""
    return sum(_memory_mib(pid, field_name) for pid in pids)


def _memory_mib(pid: int, field_name: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field_name + ":"):
            return int(line.split()[1]) / 1024
    return 0.0


@dataclass
class Span:
    """What a piece of work took."""

    seconds: float = 0.0
    server_cpu: float = 0.0
    client_cpu: float = 0.0
    busiest_thread: float = 0.0
    """CPU time of the thread of the client that used most, of those that still live."""

    @property
    def at_limit(self) -> float:
        """How near to its limit the client was: 1 if a thread of it, or every core, had no pause.

        The cores count where the client, and not the broker, has most of them.
        """
        cores = (self.client_cpu + self.server_cpu) / CORES
        has_most = self.client_cpu >= self.server_cpu
        return max(self.busiest_thread, cores if has_most else 0.0) / self.seconds


@contextmanager
def measured(pids: Sequence[int]) -> Iterator[Span]:
    """Measure a piece of work: wall time, CPU of the server's processes, CPU of this one."""
    span = Span()
    server, threads = cpu_seconds_of(pids), thread_seconds(os.getpid())
    client, begin = own_cpu_seconds(), time.perf_counter()
    yield span
    span.seconds = time.perf_counter() - begin
    span.client_cpu = own_cpu_seconds() - client
    span.server_cpu = cpu_seconds_of(pids) - server
    after = thread_seconds(os.getpid())
    span.busiest_thread = max(after[name] - threads.get(name, 0.0) for name in after)


@dataclass
class Results:
    """Figures by what was measured and with what, from all rounds."""

    values: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    lower_is_better: set[str] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)
    """Figures that explain others and are neither better nor worse."""
    missing: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """Why a figure is missing."""

    def add(self, what: str, who: str, value: float, *, lower: bool = False) -> None:
        """Record one figure; ``lower`` if lower is better."""
        self.values[what][who].append(value)
        if lower:
            self.lower_is_better.add(what)

    def explain(self, what: str, who: str, value: float) -> None:
        """Record a figure that is not compared, only shown with the others."""
        self.values[what][who].append(value)
        self.beside.add(what)

    def median(self, what: str, who: str) -> float | None:
        """Return the median of the rounds."""
        rounds = self.values[what].get(who) if what in self.values else None
        return statistics.median(rounds) if rounds else None

    def times_better(self, what: str, ours: str, theirs: str) -> float | None:
        """Return how many times better ours is; above 1 is ahead."""
        left, right = self.median(what, ours), self.median(what, theirs)
        if not left or not right:
            return None
        return right / left if what in self.lower_is_better else left / right
