"""A loop is killed at every one of its steps; no row is lost, and none is doubled."""

from __future__ import annotations

import collections
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    import ottla

ROWS = 90
BATCH = 5
PROGRAM = Path(__file__).with_name("etl.py")

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def in_delta(place: Path) -> list[str]:
    import deltalake

    found: list[str] = deltalake.DeltaTable(place).to_pyarrow_table()["value"].to_pylist()
    return found


def in_sql(place: Path) -> list[str]:
    db = sqlite3.connect(place)
    rows = [value for (value,) in db.execute("SELECT value FROM rows")]
    db.close()
    return rows


def in_file(place: Path) -> list[str]:
    return place.read_text().split()


def run(sink: str, broker: ottla.Broker, topic: str, place: Path, step: int) -> bool:
    """Run the loop until it dies at a step; whether it was done before."""
    words = [sink, broker.bootstrap_servers, topic, str(place), str(step)]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("sink", "read"), [("delta", in_delta), ("sql", in_sql), ("file", in_file)]
)
def test_a_loop_may_be_killed_at_every_step(
    kafka: ottla.Client,
    broker: ottla.Broker,
    name: str,
    tmp_path: Path,
    sink: str,
    read: Callable[[Path], list[str]],
) -> None:
    kafka.create_topic(name, partitions=2)
    for number in range(ROWS):
        kafka.send_async(name, str(number), partition=number % 2)
    kafka.flush(30)
    place = tmp_path / "sink"
    deaths = 0
    while not run(sink, broker, name, place, deaths + 1):
        deaths += 1
    assert deaths >= 12, "every step of the first rounds was one"
    counts = collections.Counter(read(place))
    assert sorted(counts, key=int) == [str(number) for number in range(ROWS)]
    doubled = sum(counts.values()) - ROWS
    if sink == "file":
        # At least once: batches between their write and their commit may repeat, at most one per
        # kill.
        assert 0 < doubled <= BATCH * deaths
        assert kafka.groups[f"etl-{sink}"].lag == 0
    else:
        assert doubled == 0
