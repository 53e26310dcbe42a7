"""Sums by minute and user with Bytewax: ``bytewax_windows.py ADDRESS TOPIC ROWS``.

Run by the interpreter that has it, which ``OTTLA_BYTEWAX_PYTHON`` names. The rate is from the first
event on.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
from bytewax.connectors.kafka import operators as kop
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, TumblingWindower, fold_window
from bytewax.testing import TestingSink, run_main
from confluent_kafka import OFFSET_BEGINNING

if TYPE_CHECKING:
    from collections.abc import Callable


def work(address: str, topic: str, take: Callable[[Any], Any]) -> None:
    """Hand out the count and the sum of each minute and user."""
    flow = Dataflow("windows")
    source = kop.input(
        "source",
        flow,
        brokers=[address],
        topics=[topic],
        tail=False,
        starting_offset=OFFSET_BEGINNING,
    )

    def parse(message: Any) -> tuple[str, tuple[datetime, float]]:
        seen()
        at = datetime.fromtimestamp(message.timestamp[1] / 1000, timezone.utc)
        return message.key.decode(), (at, json.loads(message.value)["amount"])

    events = op.map("parse", source.oks, parse)
    clock = EventClock(lambda event: event[0], wait_for_system_duration=timedelta(seconds=10))
    start = datetime(2026, 1, 1, tzinfo=timezone.utc)
    windower = TumblingWindower(align_to=start, length=timedelta(minutes=1))
    sums = fold_window(
        "sums",
        events,
        clock,
        windower,
        lambda: (0, 0.0),
        lambda found, event: (found[0] + 1, found[1] + event[1]),
        lambda left, right: (left[0] + right[0], left[1] + right[1]),
    )
    op.output("sink", op.map("take", sums.down, take), TestingSink([]))
    run_main(flow)


times: list[float] = []


def seen() -> None:
    """Take note of the time of the first event."""
    if not times:
        times.append(time.perf_counter())


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(address: str, topic: str, rows: int) -> None:
    """Do it, and say what it took."""
    counted = 0

    def take(window: Any) -> Any:
        nonlocal counted
        counted += window[1][1][0]
        return window

    work(address, topic, take)
    rate = rows / (time.perf_counter() - times[0])
    print(json.dumps({"counted": counted, "rate": rate, "peak": peak_mib()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
