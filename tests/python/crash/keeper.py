"""Keeps a table in files, and dies at a step: ``keeper.py ADDRESS TOPIC PLACE N``.

It runs once: it copies all changes of the topic into a database, and ends. At the N-th step, which
may be between any two writes to the table's directory, it is killed as by ``kill -9``.
"""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ottla
from ottla import _runs, _topic_table

if TYPE_CHECKING:
    from collections.abc import Callable

steps = itertools.count(1)


def step() -> None:
    """Die here, if it is time."""
    if next(steps) == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)


def stepping(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let a function have a step before it and one behind it."""

    @wraps(function)
    def stepped(*arguments: Any) -> Any:
        step()
        result = function(*arguments)
        step()
        return result

    return stepped


def half(path: Path, content: bytes | memoryview) -> None:
    """Write half of a file, as a process does that is killed in the middle."""
    path.write_bytes(bytes(content)[: len(content) // 2])
    step()
    whole(path, content)


def main() -> None:
    address, topic, place, _step = sys.argv[1:5]
    step()
    with (
        ottla.connect(address) as kafka,
        kafka.table(topic, value={"number": "int64"}, path=place, refresh=False) as table,
    ):
        step()
        db = sqlite3.connect(f"{place}.db")
        db.execute("CREATE TABLE IF NOT EXISTS rows (key BLOB PRIMARY KEY, number INTEGER)")
        for change in table.changes():
            step()
            with db:
                db.executemany("REPLACE INTO rows VALUES (?, ?)", change.upserts.rows())
                step()
                db.executemany("DELETE FROM rows WHERE key = ?", change.deletes.rows())
            step()
        step()


if __name__ == "__main__":
    whole = stepping(_runs._write_synced)
    _runs._write_synced = half
    _runs._remove = stepping(_runs._remove)
    Path.replace = stepping(Path.replace)  # type: ignore[method-assign]
    _topic_table._RUN_ROWS = 10
    _topic_table._BATCH_ROWS = 4
    main()
