"""Sums by minute and user over events in disorder: ours beside Quix Streams and Bytewax."""

from __future__ import annotations

import os
import random
import sys
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import polars as pl

import ottla
from versus.measure import (
    BYTEWAX,
    QUIX,
    WINDOW_LINES,
    WINDOW_PEAK,
    WINDOW_ROWS,
    WINDOWS,
)
from versus.routes import Route, code_lines, lacks

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
HOUR_MS = 3_600_000
DISORDER_MS = 9_000
"""Less than the grace, so that no row is late."""
USERS = 1_000
SLOW_PART = 10
"""Frameworks that call Python for each event read only one in this many, which leaves them no less
to do for each, and less to keep in memory."""
CHUNK = 500_000
#: Who, with which program, in which environment, with which library.
SOLUTIONS = (
    (WINDOWS, "window_route.py", "", "ottla"),
    (QUIX, "quix_windows.py", "OTTLA_QUIX_PYTHON", "quixstreams"),
    (BYTEWAX, "bytewax_windows.py", "OTTLA_BYTEWAX_PYTHON", "bytewax.connectors.kafka"),
)


def events(chance: random.Random, first: int, count: int, total: int) -> pl.DataFrame:
    """Return events of an hour, each up to nine seconds earlier than those around it."""
    places = range(first, first + count)
    return pl.DataFrame(
        {
            "user": [f"user-{chance.randrange(USERS)}" for _ in places],
            "amount": [chance.randrange(1000) / 4 for _ in places],
            "at": [
                START
                + timedelta(milliseconds=HOUR_MS * one // total - chance.randrange(DISORDER_MS))
                for one in places
            ],
        }
    )


def round_of_windows(results: Results, server: Server, count: int) -> None:
    """Sum this many events by each solution."""
    shares: dict[str, float] = {}
    for who, program, variable, library in SOLUTIONS:
        python = (os.environ.get(variable) if variable else None) or sys.executable
        if lacks(python, library):
            why = f"not measured: {python} has no {library} ({variable})"
            results.missing[WINDOW_ROWS][who] = why
            continue
        rows = count if who == WINDOWS else count // SLOW_PART
        topic = f"windows-{library.partition('.')[0]}"
        chance = random.Random(17)
        with ottla.connect(server.bootstrap) as kafka:
            kafka.create_topic(topic, partitions=1, config={"retention.ms": -1})
            for first in range(0, rows, CHUNK):
                part = events(chance, first, min(CHUNK, rows - first), rows)
                form = ottla.json(exclude=["user", "at"])
                kafka.write(topic, part, key="user", timestamp="at", value=form)
            words = (server.bootstrap, topic, rows)
            with Route(program, *words, python=python) as route:
                facts = route.facts()
            kafka.delete_topic(topic)
        results.add(WINDOW_ROWS, who, facts["rate"])
        results.add(WINDOW_PEAK, who, facts["peak"], lower=True)
        results.explain(WINDOW_LINES, who, code_lines(program, "work"))
        shares[who] = facts["counted"] / rows
    # Of sixty minutes the last ones stay open; none of the others may be missing.
    assert all(share > 55 / 60 for share in shares.values()), shares
