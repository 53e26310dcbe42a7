"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from versus.compare import against_machine, against_peers
from versus.targets import judged

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.targets import Verdict


def machine() -> str:
    """Describe where the figures come from."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return f"{os.cpu_count()} cores of {model}, {platform.system()} {platform.release()}"


def number(value: float) -> str:
    """Format a figure with as many digits as are useful."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def as_text(results: Results) -> str:
    """Return all medians, the ratios, and the targets."""
    lines = [f"machine: {machine()}", f"command: {command()}", "", "MEDIANS", ""]
    peers = against_peers(results)
    for what, values in results.values.items():
        lines.append(what)
        for who in values:
            value, rounds = results.median(what, who), len(values[who])
            assert value is not None
            lines.append(f"    {who:<55} {number(value):>12}   median of {rounds}")
        lines.extend(f"    {who:<55} {why}" for who, why in results.missing[what].items())
        for name, better in peers.items():
            figure, pair = name.split(" | ")
            if figure == what:
                lines.append(f"    {pair:<79} {number(better):>9} times as good")
    lines += ["", "AGAINST THE MACHINE (1 is as fast as memory or the loopback is copied)", ""]
    lines.extend(f"{value:>8.3f}  {name}" for name, value in against_machine(results).items())
    lines += ["", "TARGETS (the worst case of each)", ""]
    lines.extend(verdict_line(verdict) for verdict in judged(results))
    return "\n".join(lines)


def command() -> str:
    """Return the command that reproduces the run."""
    return " ".join(["python -m versus", *sys.argv[1:]])


def verdict_line(verdict: Verdict) -> str:
    """Report whether a target is met."""
    target = verdict.target
    if not verdict.cases:
        return f"not measured  {target.label}"
    said = "holds       " if verdict.holds else "DOES NOT    "
    worst = f"{number(verdict.cases[verdict.worst])}, wanted {number(target.wanted)}"
    if len(verdict.cases) == 1:
        return f"{said}  {target.label}: {worst}"
    short = f"{verdict.failing} of {len(verdict.cases)} cases fall short; " * bool(verdict.failing)
    return f"{said}  {target.label}: {short}{worst} in [{verdict.worst}]"


def as_json(results: Results) -> str:
    """Return everything, each round included."""
    content = {
        "machine": machine(),
        "command": command(),
        "rounds": results.values,
        "missing": results.missing,
        "medians": {
            what: {who: results.median(what, who) for who in values}
            for what, values in results.values.items()
        },
        "ratios": {**against_peers(results), **against_machine(results)},
        "targets": [
            {
                "target": verdict.target.label,
                "wanted": verdict.target.wanted,
                "holds": verdict.holds,
                "cases": verdict.cases,
            }
            for verdict in judged(results)
        ],
    }
    return json.dumps(content, indent=2)


def draw(results: Results, path: Path) -> None:
    """Draw the targets, and how many times as good as the peer ours is in each case."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    verdicts = [each for each in judged(results) if each.cases and each.target.theirs]
    rest = _rates(results)
    rows = len(verdicts) + len(rest)
    if not rows:
        print("nothing to draw: no figure has a peer", file=sys.stderr)
        return
    figure, axes = plt.subplots(figsize=(11, 0.32 * rows + 1.6), layout="constrained")
    good, bad = "#2a7f62", "#b5443c"
    for index, verdict in enumerate(verdicts):
        values, wanted = sorted(verdict.cases.values()), verdict.target.wanted
        axes.barh(index, values[0], color=good if verdict.holds else bad)
        axes.plot(values, [index] * len(values), "|", color="black", markersize=6)
        axes.plot([wanted, wanted], [index - 0.45, index + 0.45], color="black", linewidth=2)
    for index, value in enumerate(rest.values(), len(verdicts)):
        axes.barh(index, value, color="#7fa8c9" if value >= 1 else "#d8a39d")
    axes.set_yticks(range(rows), [each.target.label for each in verdicts] + list(rest), fontsize=8)
    axes.set_xscale("log")
    axes.axvline(1, color="grey", linewidth=1)
    axes.invert_yaxis()
    axes.set_xlabel("times as good as the peer; thick lines: wanted; thin lines: single cases")
    axes.set_title(f"ottla beside {_kafka()} and its Python clients\n{machine()}", fontsize=9)
    figure.savefig(path, dpi=110)


def _kafka() -> str:
    """Return the name of Apache Kafka, with its version if its jars are here."""
    libs = os.environ.get("OTTLA_KAFKA_LIBS")
    jars = Path(libs).glob("kafka-clients-*.jar") if libs else ()
    versions = [jar.stem.removeprefix("kafka-clients-") for jar in jars]
    return " ".join(["Apache Kafka", *versions])


def _rates(results: Results) -> dict[str, float]:
    """Return the comparisons of throughput that no target covers."""
    return {
        name.split(" | ")[0]: better
        for name, better in against_peers(results).items()
        if name.split(" | ")[0].startswith(("produce, ", "consume, ")) and "records/s" in name
    }
