"""A job that reads what is new, and dies at a step: ``nightly.py SINK ADDRESS TOPIC PLACE N``.

It runs once and ends. At the N-th step it is killed as by ``kill -9``.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import ottla

steps = itertools.count(1)


def step() -> None:
    """Die here, if it is time."""
    if next(steps) == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)


def scan(kafka: ottla.Client, **place: Any) -> ottla.Scan:
    columns = ["partition", "value"]
    return kafka.scan(sys.argv[3], value=ottla.text(), columns=columns, batch_rows=4, **place)


def to_files(kafka: ottla.Client, place: Path) -> None:
    """The group has the offsets; a file is named by what is read again if it was not committed."""
    place.mkdir(exist_ok=True)
    new = scan(kafka, group_id="nightly")
    step()
    rows = new.to_polars()
    step()
    for partition, (start, end) in new.offsets.items():
        of_partition = rows.filter(rows["partition"] == partition)
        if start == end:
            continue
        draft = place / "draft"
        draft.write_text("".join(f"{value}\n" for value in of_partition["value"]))
        step()
        draft.replace(place / f"{partition}-{start}.txt")
        step()
    new.commit()
    step()


def to_sql(kafka: ottla.Client, place: Path) -> None:
    """The offsets are stored with the output."""
    db = sqlite3.connect(place)
    db.execute("CREATE TABLE IF NOT EXISTS rows (value TEXT)")
    step()
    for batch in scan(kafka, resume=ottla.sql_offsets.load(db, "nightly")):
        step()
        with db:
            values = [(value,) for value in batch["value"].to_pylist()]
            db.executemany("INSERT INTO rows VALUES (?)", values)
            step()
            ottla.sql_offsets.save(db, "nightly", batch.offsets)
            step()
    step()


def to_delta(kafka: ottla.Client, place: Path) -> None:
    """One Delta commit for all that is new."""
    import deltalake

    new = scan(kafka, resume=ottla.delta_offsets(place, "nightly"))
    step()
    properties = new.delta_txn("nightly")
    step()
    deltalake.write_deltalake(place, new.to_pyarrow(), mode="append", commit_properties=properties)
    step()


SINKS = {"delta": to_delta, "files": to_files, "sql": to_sql}


if __name__ == "__main__":
    with ottla.connect(sys.argv[2]) as client:
        step()
        SINKS[sys.argv[1]](client, Path(sys.argv[4]))
        step()
