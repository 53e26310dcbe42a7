"""A job that reads what is new is killed again and again; no row is lost, and none is doubled."""

from __future__ import annotations

import os
import random
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

DEATHS = 20
PROGRAM = Path(__file__).with_name("nightly.py")

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


def in_files(place: Path) -> list[str]:
    return [line for one in place.glob("*.txt") for line in one.read_text().split()]


def run(sink: str, address: str, topic: str, place: Path, step: int) -> bool:
    """Run the job; whether it came to its end before the step at which it dies."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(PROGRAM), sink, address, topic, str(place), str(step)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("sink", "read"), [("delta", in_delta), ("sql", in_sql), ("files", in_files)]
)
def test_a_job_that_is_killed_at_random_goes_on_exactly(
    kafka: ottla.Client,
    broker: ottla.Broker,
    name: str,
    tmp_path: Path,
    sink: str,
    read: Callable[[Path], list[str]],
) -> None:
    chance = random.Random(17)
    kafka.create_topic(name, partitions=1)
    place, written, deaths = tmp_path / "sink", 0, 0
    while deaths < DEATHS:
        while kafka[name].num_partitions < 1 + deaths // 6:
            kafka.create_partitions(name, kafka[name].num_partitions + 1)
        for _ in range(chance.randrange(12)):
            kafka.send_async(name, str(written), partition=written % kafka[name].num_partitions)
            written += 1
        kafka.flush(30)
        deaths += not run(sink, broker.bootstrap_servers, name, place, chance.randint(1, 9))
    assert run(sink, broker.bootstrap_servers, name, place, 0)
    assert sorted(read(place), key=int) == [str(number) for number in range(written)]
    assert run(sink, broker.bootstrap_servers, name, place, 0)
    assert len(read(place)) == written
