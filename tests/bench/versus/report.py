"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from versus.frames import CONFLUENT, EMBEDDED, TCP, TUNED
from versus.servers import KAFKA, OTTLA

if TYPE_CHECKING:
    from versus.measure import Results

# Ours and the peer that it is compared with; the first pair of which both were measured counts.
PAIRS = [(OTTLA, KAFKA), (EMBEDDED, TUNED), (EMBEDDED, CONFLUENT)]
TCP_WANTED = {"topic to Arrow table, 150 B records: rows/s": 10.0}


def machine() -> str:
    """Describe where the figures come from."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"


def number(value: float) -> str:
    """Write a figure with as many digits as one reads."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def ratios(results: Results) -> dict[str, tuple[float, float | None]]:
    """Return how many times better ours is, and how many times were wanted."""
    found: dict[str, tuple[float, float | None]] = {}
    for what in results.values:
        for ours, theirs in PAIRS:
            better = results.times_better(what, ours, theirs)
            if better is not None:
                found[what] = (better, results.wanted.get(what))
                break
        over_tcp = results.times_better(what, TCP, TUNED)
        if over_tcp is not None:
            found[f"{what} (TCP)"] = (over_tcp, TCP_WANTED.get(what))
    return found


def as_text(results: Results) -> str:
    """Return the table."""
    lines = [f"machine: {machine()}", f"command: {' '.join(sys.argv)}", ""]
    compared = ratios(results)
    for what, values in results.values.items():
        lines.append(what)
        for who in values:
            value, rounds = results.median(what, who), len(values[who])
            assert value is not None
            lines.append(f"    {who:<45} {number(value):>14}   median of {rounds}")
        names = (name for name in (what, f"{what} (TCP)") if name in compared)
        lines.extend(f"    {verdict(name, *compared[name])}" for name in names)
    return "\n".join(lines)


def verdict(name: str, better: float, wanted: float | None) -> str:
    """Say how a comparison ends."""
    said = f"ours is {number(better)} times as good{' over TCP' if name.endswith('(TCP)') else ''}"
    if wanted is None:
        return said
    return f"{said}; {number(wanted)} wanted: {'reached' if better >= wanted else 'NOT reached'}"


def as_json(results: Results) -> str:
    """Return everything, each round included."""
    content = {
        "machine": machine(),
        "command": " ".join(sys.argv),
        "rounds": results.values,
        "medians": {
            what: {who: results.median(what, who) for who in values}
            for what, values in results.values.items()
        },
        "times better": {what: better for what, (better, _) in ratios(results).items()},
    }
    return json.dumps(content, indent=2)


def draw(results: Results, path: Path) -> None:
    """Draw how many times better ours is, one bar for each comparison."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    compared = ratios(results)
    names = list(compared)
    figure, axes = plt.subplots(figsize=(11, 0.32 * len(names) + 1.5), layout="constrained")
    values = [compared[name][0] for name in names]
    axes.barh(names, values, color=["#2a7f62" if value >= 1 else "#b5443c" for value in values])
    for index, name in enumerate(names):
        wanted = compared[name][1]
        if wanted is not None:
            axes.plot([wanted, wanted], [index - 0.4, index + 0.4], color="black")
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the peer (black: wanted)")
    axes.set_title(f"ottla beside Apache Kafka 4.3 and its Python clients\n{machine()}", fontsize=9)
    figure.savefig(path, dpi=110)


def guard(results: Results, before: Path, tolerance: float) -> list[str]:
    """Compare the ratios with those of an earlier run; return what fell behind."""
    earlier = json.loads(before.read_text())["times better"]
    behind = []
    for what, (better, _) in ratios(results).items():
        then = earlier.get(what)
        if then is not None and better < then * (1 - tolerance):
            behind.append(
                f"{what}: {number(better)} times as good as the peer, {number(then)} before"
            )
    return behind
