"""What the project promises, and whether a run shows it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from versus.measure import (
    CLIENT_LIMIT,
    EMBEDDED,
    FROM_ARROW,
    KAFKA,
    OTTLA,
    PRODUCE_BATCH,
    TCP,
    TO_ARROW,
    TO_JSON,
    TUNED,
)

if TYPE_CHECKING:
    from versus.measure import Results

AT_ITS_LIMIT = 0.9
"""A client whose busiest thread, or every core, is busy for this share is at its limit."""


@dataclass(frozen=True)
class Target:
    """At least this many times better than the peer, in each figure that matches."""

    label: str
    figures: str
    """A regular expression for the names of figures."""
    wanted: float
    ours: str = OTTLA
    theirs: str | None = KAFKA
    """The peer; None where the figure itself must be at least ``wanted``."""


@dataclass(frozen=True)
class Verdict:
    """What a run shows about a target."""

    target: Target
    cases: dict[str, float]

    @property
    def worst(self) -> str:
        """The case that is furthest from the target."""
        return min(self.cases, key=self.cases.__getitem__)

    @property
    def failing(self) -> int:
        """How many cases do not reach the target."""
        return sum(value < self.target.wanted for value in self.cases.values())

    @property
    def holds(self) -> bool | None:
        """Whether all cases reach the target; None if nothing was measured."""
        return self.failing == 0 if self.cases else None


def exactly(name: str) -> str:
    """Return the expression of one figure."""
    return re.escape(name)


TARGETS = [
    Target("broker CPU per GiB produced: at most 1/3", r"produce, .*: CPU s of .*", 3),
    Target("broker CPU per GiB consumed: at most 1/3", r"consume, .*: CPU s of .*", 3),
    Target(
        "throughput at the client's own limit",
        f"(produce|consume), .*: {CLIENT_LIMIT}",
        AT_ITS_LIMIT,
        theirs=None,
    ),
    Target("produce to consume: p99 at most half", r"produce to consume, .*: p99, ms", 2),
    Target("topic to Arrow, embedded", exactly(TO_ARROW), 30, EMBEDDED, TUNED),
    Target("topic to Arrow, loopback TCP", exactly(TO_ARROW), 10, TCP, TUNED),
    Target("topic to typed JSON columns, embedded", exactly(TO_JSON), 6, EMBEDDED, TUNED),
    Target("topic to typed JSON columns, loopback TCP", exactly(TO_JSON), 6, TCP, TUNED),
    Target("dataframe to topic, embedded", exactly(FROM_ARROW), 4, EMBEDDED, PRODUCE_BATCH),
    Target("dataframe to topic, loopback TCP", exactly(FROM_ARROW), 4, TCP, PRODUCE_BATCH),
    Target("three nodes: twice the records", r"three nodes: produce, .*: records/s", 2),
    Target("three nodes: half the CPU per GiB produced", r"three nodes: produce, .*: CPU s .*", 2),
    Target(
        "three nodes: p99 of produce to consume at most half",
        r"three nodes: produce to consume, .*: p99, ms",
        2,
    ),
    Target("three nodes: silent for a sixth", r"three nodes: silence of .*", 6),
    Target("transactions: twice the records", r"transactions, .*: records/s", 2),
    Target("transactions: commit p50 and p99 at most half", r"transactions, .*: commit .*", 2),
    Target("three nodes: a commit takes no longer", r"three nodes: transactions, .*: commit .*", 1),
    Target(
        "read_committed uses at most 5 % more CPU than read_uncommitted",
        r"read transactions .*: CPU s of .*",
        0.95,
        f"{OTTLA}, read_committed",
        f"{OTTLA}, read_uncommitted",
    ),
    Target("ready: within 1/20", r"ready, s", 20),
    Target("ready again after kill -9: within 1/30", r"ready again after kill -9, s", 30),
    Target("resident memory idle: at most 1/20", r"resident memory idle, MiB", 20),
    Target("anonymous memory after 2 GiB: at most 1/10", r"anonymous memory after .*", 10),
]


def judged(results: Results) -> list[Verdict]:
    """Compare a run with all targets."""
    verdicts = []
    for target in TARGETS:
        cases = {}
        for what in results.values:
            if not re.fullmatch(target.figures, what):
                continue
            value = (
                results.median(what, target.ours)
                if target.theirs is None
                else results.times_better(what, target.ours, target.theirs)
            )
            if value is not None:
                cases[what] = value
        verdicts.append(Verdict(target, cases))
    return verdicts
