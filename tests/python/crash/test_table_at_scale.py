"""A table over many changes of many keys is what a batch query has, whoever was killed.

``make table-kills`` does it with ten million changes of a million keys.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

if TYPE_CHECKING:
    import ottla

CHANGES = int(os.environ.get("OTTLA_TABLE_CHANGES", "30000"))
KEYS = CHANGES // 10
DEATHS = int(os.environ.get("OTTLA_TABLE_KILLS", "4"))
PARTITIONS = 4
CHUNK = 500_000
#: One change in so many deletes a key.
DELETIONS = 8
VALUE = {"number": "int64"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")


def changes(chance: random.Random, first: int, count: int) -> pl.DataFrame:
    """Changes of random keys, some of them deletions."""
    keys = pl.Series("key", [f"key {chance.randrange(KEYS)}" for _ in range(count)])
    deletes = pl.Series([chance.randrange(DELETIONS) == 0 for _ in range(count)])
    frame = pl.DataFrame({"key": keys, "number": range(first, first + count)})
    value = pl.concat_str(pl.lit('{"number":'), "number", pl.lit("}"))
    return frame.select("key", value=pl.when(~deletes).then(value))


def queried(kafka: ottla.Client, topic: str, end: dict[str, dict[int, int]]) -> pl.DataFrame:
    """What a batch query over all records up to there makes of them."""
    names = ["key", "partition", "offset", "is_tombstone", "number"]
    rows = kafka.scan(topic, end=end, value=VALUE, columns=names).to_polars()
    rows = rows.sort("partition", "offset").unique("key", keep="last")
    return rows.filter(~pl.col("is_tombstone")).select(pl.col("key").cast(pl.String), "number")


def between(chance: random.Random, low: dict[int, int], high: dict[int, int]) -> dict[int, int]:
    return {one: chance.randint(low.get(one, 0), at) for one, at in high.items()}


@pytest.mark.timeout(60 + CHANGES // 2_000)
def test_a_table_is_a_batch_query_at_any_offsets_after_kills(
    kafka: ottla.Client, broker: ottla.Broker, name: str, tmp_path: Path
) -> None:
    chance, place = random.Random(1017), tmp_path / "table"
    kafka.create_topic(name, partitions=PARTITIONS)
    for first in range(0, CHANGES, CHUNK):
        count = min(CHUNK, CHANGES - first)
        kafka.write(name, changes(chance, first, count), key="key")
    ends = kafka.offsets(name)
    options: dict[str, Any] = {"key": "text", "value": VALUE, "path": place, "refresh": False}
    known: dict[int, int] = {}
    took, deaths = 1.0, 0
    for left in range(DEATHS, 0, -1):
        # Somewhere within an equal part of what is left.
        goal = {
            one: known.get(one, 0) + (at - known.get(one, 0)) // left for one, at in ends.items()
        }
        middle = between(chance, known, goal)
        begin = time.monotonic()
        deaths += killed(
            broker.bootstrap_servers, name, place, [middle, goal], chance.random() * took
        )
        took = max(0.2, time.monotonic() - begin)
        with kafka.table(name, **options) as table:
            check(kafka, table)
            known = table.end[name]
            table.refresh(end={name: between(chance, known, goal)})
            check(kafka, table)
            known = table.end[name]
    with kafka.table(name, **options) as table:
        table.refresh()
        assert table.end == {name: ends}
        check(kafka, table)
    print(f"{CHANGES:,} changes of {KEYS:,} keys; {deaths} of {DEATHS} died before their end")


def check(kafka: ottla.Client, table: ottla.Table) -> None:
    if not any(table.end[table.topic].values()):
        assert len(table) == 0
        return
    found = table.to_polars().sort("key")
    assert_frame_equal(found, queried(kafka, table.topic, table.end).sort("key"))


def killed(address: str, topic: str, place: Path, ends: list[dict[int, int]], after: float) -> bool:
    """Let a process refresh the table, and kill it some seconds after it began."""
    program = str(Path(__file__).with_name("follower.py"))
    command = [
        sys.executable,
        "-W",
        "ignore",
        program,
        address,
        topic,
        str(place),
        json.dumps(ends),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "refreshing\n"
        try:
            status = process.wait(after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait() != 0
    assert status == 0
    return False
