"""A loop that writes a topic somewhere, and dies at a step: ``etl.py SINK ADDRESS TOPIC PLACE N``.

It is a member of a group, and goes on from the offsets in the sink where that holds them. At the
N-th step it is killed as by ``kill -9``; it ends in order when it has caught up before.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

steps = itertools.count(1)


def step() -> None:
    """Die here, if it is time."""
    if next(steps) == int(sys.argv[5]):
        os.kill(os.getpid(), signal.SIGKILL)


def to_delta(place: Path) -> tuple[Any, Callable[[ottla.RecordBatch], None]]:
    import deltalake
    import pyarrow as pa

    def write(batch: ottla.RecordBatch) -> None:
        table = batch.to_pyarrow()

        def chunks() -> Iterator[pa.RecordBatch]:
            step()
            yield table.slice(0, 2)
            step()  # in the middle of the rows
            yield table.slice(2)
            step()

        reader = pa.RecordBatchReader.from_batches(table.schema, chunks())
        deltalake.write_deltalake(
            place, reader, mode="append", commit_properties=batch.delta_txn("etl")
        )

    return ottla.delta_offsets(place, "etl"), write


def to_sql(place: Path) -> tuple[Any, Callable[[ottla.RecordBatch], None]]:
    db = sqlite3.connect(place)
    db.execute("CREATE TABLE IF NOT EXISTS rows (value TEXT)")

    def write(batch: ottla.RecordBatch) -> None:
        with db:
            step()
            db.executemany(
                "INSERT INTO rows VALUES (?)", [(v,) for v in batch["value"].to_pylist()]
            )
            step()  # the rows are there, the offsets are not
            ottla.sql_offsets.save(db, "etl", batch.offsets)
            step()

    return ottla.sql_offsets.resume(db, "etl"), write


def to_file(place: Path) -> tuple[Any, Callable[[ottla.RecordBatch], None]]:
    """Write where no offsets can be kept."""

    def write(batch: ottla.RecordBatch) -> None:
        with place.open("a") as file:
            file.write("".join(f"{value}\n" for value in batch["value"].to_pylist()))

    return None, write


SINKS = {"delta": to_delta, "file": to_file, "sql": to_sql}


def main() -> None:
    sink, address, topic, place = sys.argv[1:5]
    resume, write = SINKS[sink](Path(place))
    step()
    with (
        ottla.connect(address) as kafka,
        kafka.consumer(
            topic,
            group_id=f"etl-{sink}",
            group_instance_id="one",  # takes its own place at once when it starts again
            resume=resume,
            auto_offset_reset="earliest",
            until="caught_up",
            max_rows=5,
            max_wait=0,
            value=ottla.text(),
            columns=["value"],
        ) as consumer,
    ):
        step()
        for batch in consumer:
            step()
            write(batch)
            step()
            consumer.commit(batch)
            step()
        step()


if __name__ == "__main__":
    main()
