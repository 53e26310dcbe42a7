"""A table in files is killed again and again; it goes on exactly, and no change is lost."""

from __future__ import annotations

import itertools
import os
import random
import sqlite3
from typing import TYPE_CHECKING

import pytest

from crash.dying import ends

if TYPE_CHECKING:
    from pathlib import Path

    import ottla

DEATHS = 20
PROGRAM = "keeper.py"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


@pytest.mark.timeout(180)
def test_a_table_that_is_killed_at_random_goes_on_exactly(
    kafka: ottla.Client, broker: ottla.Broker, name: str, tmp_path: Path
) -> None:
    chance = random.Random(171)
    kafka.create_topic(name, partitions=2)
    place, latest, deaths = tmp_path / "table", dict[bytes, int](), 0
    numbers = itertools.count()
    value = {"number": "int64"}
    while deaths < DEATHS:
        for number in itertools.islice(numbers, chance.randrange(40)):
            key = f"{chance.randrange(30)}".encode()
            if chance.random() < 0.3:
                kafka.send_async(name, None, key=key)
                latest.pop(key, None)
            else:
                kafka.send_async(name, {"number": number}, key=key)
                latest[key] = number
        kafka.flush(30)
        deaths += not ends(PROGRAM, broker.bootstrap_servers, name, place, chance.randint(1, 40))
        with kafka.table(name, value=value, path=place, refresh=False) as table:
            # Whatever it has come to, it is what the topic had there.
            here = kafka.table(name, value=value, refresh=False)
            if any(table.end[name].values()):
                here.refresh(end=table.end)
            assert sorted(table.to_polars().rows()) == sorted(here.to_polars().rows())
            assert len([*place.glob("*.arrow")]) == len(table._runs._runs)
    assert ends(PROGRAM, broker.bootstrap_servers, name, place, 0)
    with kafka.table(name, value=value, path=place) as table:
        assert dict(table.to_polars().rows()) == latest
    db = sqlite3.connect(f"{place}.db")
    assert dict(db.execute("SELECT key, number FROM rows").fetchall()) == latest
    db.close()
