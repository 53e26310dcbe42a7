"""The latest row of each key of a topic, kept up to date: ``table_route.py WHO ADDRESS TOPIC``.

``ottla`` and ``files`` keep a table of ottla, ``polars`` and ``pandas`` do by hand what their users
do: all of them read the topic with ottla, so that only the keeping differs.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from typing import TYPE_CHECKING, Any

import polars as pl

import ottla
from versus.measure import memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    #: Of each refresh: None when it is done, then a frame of all rows that are not deleted.
    Kept = Generator[Any, None, None]

VALUE = {"number": "int64", "text": "utf8"}
ASKED = ["key", "is_tombstone", *VALUE]


def ottla_table(kafka: ottla.Client, topic: str, **options: Any) -> Kept:
    """A table of ottla."""
    table = kafka.table(topic, key="text", value=VALUE, **options)
    while True:
        yield None
        yield table.to_polars()
        table.refresh()


def by_polars(kafka: ottla.Client, topic: str) -> Kept:
    """A frame of polars that is merged with what is new."""
    scan = kafka.scan(topic, value=VALUE, columns=ASKED)
    frame = scan.to_polars().unique("key", keep="last", maintain_order=True)
    while True:
        yield None
        yield frame.filter(~pl.col("is_tombstone"))
        scan = kafka.scan(topic, start=scan.end, value=VALUE, columns=ASKED)
        frame = pl.concat([frame, scan.to_polars()])
        frame = frame.unique("key", keep="last", maintain_order=True)


def by_pandas(kafka: ottla.Client, topic: str) -> Kept:
    """A frame of pandas that is merged with what is new."""
    import pandas as pd

    scan = kafka.scan(topic, value=VALUE, columns=ASKED)
    frame = scan.to_pandas().drop_duplicates("key", keep="last")
    while True:
        yield None
        yield frame[~frame["is_tombstone"]]
        scan = kafka.scan(topic, start=scan.end, value=VALUE, columns=ASKED)
        frame = pd.concat([frame, scan.to_pandas()]).drop_duplicates("key", keep="last")


def main(who: str, address: str, topic: str) -> None:
    """Do it, and again for each line that is read."""
    with tempfile.TemporaryDirectory() as place, ottla.connect(address) as kafka:
        kafka.topics()
        before = memory_mib([os.getpid()], "RssAnon")
        solutions: dict[str, Callable[[], Kept]] = {
            "ottla": lambda: ottla_table(kafka, topic),
            "files": lambda: ottla_table(kafka, topic, path=place),
            "polars": lambda: by_polars(kafka, topic),
            "pandas": lambda: by_pandas(kafka, topic),
        }
        kept, more = solutions[who](), True
        while more:
            begin = time.perf_counter()
            next(kept)
            refreshed = time.perf_counter()
            rows = next(kept)
            facts = {"refresh": refreshed - begin, "seconds": time.perf_counter() - begin}
            facts |= {"keys": len(rows), "total": int(rows["number"].sum())}
            del rows
            mib = memory_mib([os.getpid()], "RssAnon") - before
            peak = memory_mib([os.getpid()], "VmHWM")
            print(json.dumps(facts | {"mib": mib, "peak": peak}), flush=True)
            more = bool(sys.stdin.readline())
        kept.close()


if __name__ == "__main__":
    main(*sys.argv[1:4])
