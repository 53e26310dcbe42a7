"""A job that reads what is new is killed again and again; no row is lost, and none is doubled."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from crash.dying import ends, in_delta, in_sql

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import ottla

DEATHS = 20
PROGRAM = "nightly.py"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def in_files(place: Path) -> list[str]:
    return [line for one in place.glob("*.txt") for line in one.read_text().split()]


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
    words = sink, broker.bootstrap_servers, name, place
    while deaths < DEATHS:
        while kafka[name].num_partitions < 1 + deaths // 6:
            kafka.create_partitions(name, kafka[name].num_partitions + 1)
        for _ in range(chance.randrange(12)):
            kafka.send_async(name, str(written), partition=written % kafka[name].num_partitions)
            written += 1
        kafka.flush(30)
        deaths += not ends(PROGRAM, *words, chance.randint(1, 9))
    assert ends(PROGRAM, *words, 0)
    assert sorted(read(place), key=int) == [str(number) for number in range(written)]
    assert ends(PROGRAM, *words, 0)
    assert len(read(place)) == written
