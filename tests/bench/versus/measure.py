"""What is measured of a process, and what becomes of many rounds."""

from __future__ import annotations

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
    from collections.abc import Iterator

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used, in the kernel and outside of it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def own_cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that ended."""
    total = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        total += usage.ru_utime + usage.ru_stime
    return total


def memory_mib(pid: int, field_name: str) -> float:
    """Return a field of ``/proc/PID/status``, for example VmRSS or RssAnon, in MiB."""
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


@contextmanager
def measured(pid: int | None) -> Iterator[Span]:
    """Measure a piece of work: wall time, CPU of the server ``pid``, CPU of this process."""
    span = Span()
    server = cpu_seconds(pid) if pid else 0.0
    client, begin = own_cpu_seconds(), time.perf_counter()
    yield span
    span.seconds = time.perf_counter() - begin
    span.client_cpu = own_cpu_seconds() - client
    span.server_cpu = cpu_seconds(pid) - server if pid else 0.0


@dataclass
class Results:
    """Figures by what was measured and with what, from all rounds."""

    values: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    wanted: dict[str, float] = field(default_factory=dict)
    lower_is_better: set[str] = field(default_factory=set)

    def add(
        self,
        what: str,
        who: str,
        value: float,
        *,
        wanted: float | None = None,
        lower: bool = False,
    ) -> None:
        """Note one figure. ``wanted`` is how many times better than the peer ottla should be."""
        self.values[what][who].append(value)
        if wanted is not None:
            self.wanted[what] = wanted
        if lower:
            self.lower_is_better.add(what)

    def median(self, what: str, who: str) -> float | None:
        """Return the median of the rounds."""
        rounds = self.values[what].get(who)
        return statistics.median(rounds) if rounds else None

    def times_better(self, what: str, ours: str, theirs: str) -> float | None:
        """Return how many times better ours is; above 1 is ahead."""
        left, right = self.median(what, ours), self.median(what, theirs)
        if not left or not right:
            return None
        return right / left if what in self.lower_is_better else left / right
