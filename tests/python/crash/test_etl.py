"""A loop is killed at every one of its steps; no row is lost, and none is doubled."""

from __future__ import annotations

import collections
import os
from typing import TYPE_CHECKING

import pytest

from crash.dying import ends, in_delta, in_sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import ottla

ROWS = 90
BATCH = 5

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def in_file(place: Path) -> list[str]:
    return place.read_text().split()


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
    while not ends("etl.py", sink, broker.bootstrap_servers, name, place, deaths + 1):
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
