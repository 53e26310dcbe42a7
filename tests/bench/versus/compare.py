"""Two runs, of a branch and of main: ``python -m versus compare BEFORE.json AFTER.json``.

Only ratios are compared: against the peer in the same run, and against what the machine copies in
the same run. So the two runs may be from different days, though not from different machines.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from versus.measure import (
    AGAIN,
    BROKER_CPU,
    BY_PANDAS,
    BY_POLARS,
    BYTEWAX,
    EMBEDDED,
    FROM_ARROW,
    FROM_JSON,
    KAFKA,
    LOOPBACK,
    MACHINE,
    MEMCPY,
    ONE_THREAD,
    OTTLA,
    POLARS,
    PRODUCE_BATCH,
    QUIX,
    TABLE,
    TABLE_FILES,
    TCP,
    TO_ARROW,
    TO_ARROW_ZSTD,
    TO_AVRO,
    TO_JSON,
    TUNED,
    WINDOWS,
)

if TYPE_CHECKING:
    from versus.measure import Results

ROW_BYTES = 150
THRESHOLD = 0.1
GUARDED = (TO_ARROW, TO_ARROW_ZSTD, TO_JSON, TO_AVRO, FROM_ARROW, FROM_JSON)
PAIRS = [(OTTLA, KAFKA), (EMBEDDED, TUNED), (TCP, TUNED), (EMBEDDED, PRODUCE_BATCH)]
PAIRS += [(TCP, PRODUCE_BATCH), (EMBEDDED, POLARS), (AGAIN, ONE_THREAD)]
PAIRS += [
    (TABLE, BY_POLARS),
    (TABLE, BY_PANDAS),
    (TABLE_FILES, BY_POLARS),
    (TABLE_FILES, BY_PANDAS),
]
PAIRS += [(WINDOWS, QUIX), (WINDOWS, BYTEWAX)]


def against_peers(results: Results) -> dict[str, float]:
    """Return how many times better ours is, for all figures that have a peer."""
    found = {}
    for what in results.values:
        if what in results.beside:
            continue
        for ours, theirs in PAIRS:
            better = results.times_better(what, ours, theirs)
            if better is not None:
                found[f"{what} | {ours} against {theirs}"] = better
    return found


def against_machine(results: Results) -> dict[str, float]:
    """Return how near ours comes to what the machine copies; more is better, 1 is memcpy."""
    memcpy, loopback = results.median(MEMCPY, MACHINE), results.median(LOOPBACK, MACHINE)
    found = {}
    for what in GUARDED:
        for who, limit, name in ((EMBEDDED, memcpy, "memcpy"), (TCP, loopback, "loopback")):
            rows = results.median(what, who)
            if rows and limit:
                found[f"{what} | {who} against {name}"] = rows * ROW_BYTES / 1e9 / limit
    for what in results.values:
        seconds = results.median(what, OTTLA)
        if what.endswith(BROKER_CPU) and seconds and memcpy:
            copied = (1 << 30) / 1e9 / memcpy
            found[f"{what} | {OTTLA} against memcpy"] = copied / seconds
    return found


@dataclass(frozen=True)
class Change:
    """A ratio before and after; None where it was not measured."""

    name: str
    before: float | None
    after: float | None

    def lost(self, threshold: float) -> bool:
        """Whether it fell by more than the threshold, or is no longer measured."""
        if self.before is None:
            return False
        return self.after is None or self.after < self.before * (1 - threshold)


def changes(before: dict[str, float], after: dict[str, float]) -> list[Change]:
    """Put the ratios of two runs side by side, in the order of the first."""
    names = [*before, *(name for name in after if name not in before)]
    return [Change(name, before.get(name), after.get(name)) for name in names]


def as_text(found: list[Change], threshold: float) -> str:
    """Return the table of a comparison, what was lost at the end."""
    lines = []
    for change in sorted(found, key=lambda change: change.lost(threshold)):
        then = "-" if change.before is None else f"{change.before:.4g}"
        now = "-" if change.after is None else f"{change.after:.4g}"
        by = ""
        if change.before and change.after is not None:
            by = f"{(change.after / change.before - 1) * 100:+.0f}%"
        mark = "  LOST" if change.lost(threshold) else ""
        lines.append(f"{then:>10} {now:>10} {by:>7}  {change.name}{mark}")
    return "\n".join([f"{'before':>10} {'after':>10}", *lines])


def main(arguments: list[str]) -> int:
    """Compare two files; 1 if a ratio was lost, 2 if there is nothing to compare."""
    parser = argparse.ArgumentParser(prog="versus compare", description=__doc__)
    parser.add_argument("before", type=Path, help="the --json of a run, for example of main")
    parser.add_argument("after", type=Path, help="the --json of the other run")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help=f"allowed loss (default {THRESHOLD})"
    )
    options = parser.parse_args(arguments)
    before, after = (read(path) for path in (options.before, options.after))
    if before["machine"] != after["machine"]:
        print(
            f"the runs are from different machines: {before['machine']}; {after['machine']}",
            file=sys.stderr,
        )
    found = changes(before["ratios"], after["ratios"])
    if not any(change.before is not None and change.after is not None for change in found):
        print("the two runs have no ratio in common", file=sys.stderr)
        return 2
    print(as_text(found, options.threshold))
    return 1 if any(change.lost(options.threshold) for change in found) else 0


def read(path: Path) -> dict[str, Any]:
    """Read the JSON of a run."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
