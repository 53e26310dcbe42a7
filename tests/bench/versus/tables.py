"""The latest row of each key of a topic: a table of ottla, and what users do by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

import ottla
from versus.measure import (
    BY_PANDAS,
    BY_POLARS,
    TABLE,
    TABLE_BUILD,
    TABLE_FILES,
    TABLE_LINES,
    TABLE_MEMORY,
    TABLE_PEAK,
    TABLE_REFRESH,
    TABLE_SHOWN,
)
from versus.routes import Route, code_lines

if TYPE_CHECKING:
    from versus.measure import Results
    from versus.servers import Server

CHANGES_PER_KEY = 10
FEW = 1_000
"""How many changes a refresh reads."""
REFRESHES = 5
CHUNK = 500_000
SOLUTIONS = {
    TABLE: ("ottla", "ottla_table"),
    TABLE_FILES: ("files", "ottla_table"),
    BY_POLARS: ("polars", "by_polars"),
    BY_PANDAS: ("pandas", "by_pandas"),
}


def changes(chance: np.random.Generator, first: int, count: int, keys: int) -> pl.DataFrame:
    """Return changes of random keys; one in ten deletes its key."""
    numbers = pl.int_range(first, first + count, eager=True)
    frame = pl.DataFrame({"user": chance.integers(keys, size=count), "number": numbers})
    frame = frame.with_columns(key=pl.concat_str(pl.lit("user-"), "user"))
    value = pl.concat_str(
        pl.lit('{"number":'), "number", pl.lit(',"text":"of '), "key", pl.lit(' and its change"}')
    )
    return frame.select("key", value=pl.when(pl.col("number") % 10 != 0).then(value))


def round_of_tables(results: Results, server: Server, count: int) -> None:
    """Keep this many changes with each solution, one after the other, and refresh them."""
    keys = count // CHANGES_PER_KEY
    for who, (word, function) in SOLUTIONS.items():
        chance = np.random.default_rng(17)
        topic = f"table-{word}"
        with ottla.connect(server.bootstrap) as kafka:
            kafka.create_topic(topic, partitions=1)
            for first in range(0, count, CHUNK):
                part = changes(chance, first, min(CHUNK, count - first), keys)
                kafka.write(topic, part, key="key")
            with Route("table_route.py", word, server.bootstrap, topic) as route:
                facts = route.facts()
                results.add(TABLE_BUILD, who, count / facts["seconds"])
                per_key = facts["mib"] * (1 << 20) / facts["keys"]
                results.add(TABLE_MEMORY, who, per_key, lower=True)
                results.add(TABLE_PEAK, who, facts["peak"], lower=True)
                results.explain(TABLE_LINES, who, code_lines("table_route.py", function))
                for number in range(REFRESHES):
                    kafka.write(topic, changes(chance, count + number * FEW, FEW, keys), key="key")
                    facts = route.again()
                    results.add(TABLE_REFRESH, who, facts["refresh"] * 1000, lower=True)
                    results.add(TABLE_SHOWN, who, facts["seconds"] * 1000, lower=True)
            wanted = kafka.scan(topic, value={"number": "int64"}, columns=NAMES).to_polars()
            kafka.delete_topic(topic)
        latest = wanted.unique("key", keep="last", maintain_order=True)
        latest = latest.filter(~pl.col("is_tombstone"))
        found = (facts["keys"], facts["total"])
        assert found == (latest.height, latest["number"].sum()), f"{who}: {found}"


NAMES = ["key", "is_tombstone", "number"]
