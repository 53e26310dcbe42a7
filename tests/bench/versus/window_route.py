"""Sums by minute and user with ottla: ``window_route.py ADDRESS TOPIC ROWS``."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import TYPE_CHECKING

import polars as pl

import ottla
from versus.measure import memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable


def work(address: str, topic: str, take: Callable[[pl.DataFrame], None]) -> None:
    """Hand out the count and the sum of each minute and user."""
    kafka, value = ottla.connect(address), {"amount": "float64"}
    names = ["key", "amount"]
    for window in kafka.windows(topic, "1m", grace="10s", value=value, columns=names):
        rows = window.to_polars().group_by("key").agg(pl.len(), pl.sum("amount"))
        take(rows.with_columns(start=window.start))


def main(address: str, topic: str, rows: int) -> None:
    """Do it, and say what it took."""
    counted = 0

    def take(sums: pl.DataFrame) -> None:
        nonlocal counted
        counted += sums["len"].sum()

    begin = time.perf_counter()
    work(address, topic, take)
    rate = rows / (time.perf_counter() - begin)
    peak = memory_mib([os.getpid()], "VmHWM")
    print(json.dumps({"counted": counted, "rate": rate, "peak": peak}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
