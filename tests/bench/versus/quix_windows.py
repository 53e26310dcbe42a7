"""Sums by minute and user with Quix Streams: ``quix_windows.py ADDRESS TOPIC ROWS``.

Run by the interpreter that has it; see ``quix_route.py``. The rate is from the first event on.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from quixstreams import Application
from quixstreams.dataframe.windows import Count, Sum

if TYPE_CHECKING:
    from collections.abc import Callable


def work(
    address: str, topic: str, place: str, take: Callable[[dict[str, Any]], None]
) -> Application:
    """Hand out the count and the sum of each minute and user, once it runs."""
    application = Application(
        address,
        consumer_group=f"quix-{uuid.uuid4()}",
        auto_offset_reset="earliest",
        loglevel="ERROR",
        state_dir=place,
    )
    source = application.topic(topic, value_deserializer="json", key_deserializer="str")
    frame = application.dataframe(source).update(seen)
    windows = frame.tumbling_window(60_000, grace_ms=10_000)
    sums = windows.agg(count=Count(), amount=Sum(column="amount"))
    sums.final(closing_strategy="partition").update(take)
    return application


times: list[float] = []
stops: dict[int, Callable[[], None]] = {}


def seen(_event: object) -> None:
    """Take note of the time of an event, and stop at the last one."""
    times.append(time.perf_counter())
    if len(times) in stops:
        stops[len(times)]()


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main(address: str, topic: str, rows: int) -> None:
    """Do it, and say what it took."""
    counted = 0

    def take(window: dict[str, Any]) -> None:
        nonlocal counted
        counted += window["count"]

    with tempfile.TemporaryDirectory() as place:
        application = work(address, topic, place, take)
        stops[rows] = application.stop
        application.run(timeout=60)
    rate = len(times) / (times[-1] - times[0])
    print(json.dumps({"counted": counted, "rate": rate, "peak": peak_mib()}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
