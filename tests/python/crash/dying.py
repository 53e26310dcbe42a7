"""Programs that kill themselves at a step, and what they have left in their sinks."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from pathlib import Path


def ends(program: str, *words: str | Path | int) -> bool:
    """Run a program of this folder; whether it came to its end before the step at which it dies."""
    path = Path(__file__).with_name(program)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(path), *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode == 0


def in_delta(place: Path) -> list[str]:
    """Read the values of a Delta table."""
    import deltalake

    found: list[str] = deltalake.DeltaTable(place).to_pyarrow_table()["value"].to_pylist()
    return found


def in_sql(place: Path) -> list[str]:
    """Read the values of a SQLite table."""
    db = sqlite3.connect(place)
    rows = [value for (value,) in db.execute("SELECT value FROM rows")]
    db.close()
    return rows
