"""Histories of real clients, and the program that judges them.

The format and what must not happen are described in ``tests/support/history``.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path

from processes import missing


class History:
    """A file that threads append to: a line each for what they do and see."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")
        self._lock = threading.Lock()

    def note(self, op: str, **members: str | int) -> None:
        """Append a line."""
        line = json.dumps({"op": op, **members})
        with self._lock:
            self._file.write(line + "\n")

    def close(self) -> Path:
        """Return the file, complete."""
        self._file.close()
        return self.path


def check_history() -> Path:
    """Return the program that judges histories, which cargo builds beside ``OTTLA_DEBUG_BIN``."""
    program = Path(os.environ.get("OTTLA_DEBUG_BIN", "")).parent / "examples" / "check_history"
    if not program.is_file():
        missing("check_history", "run `make python-test`")
    return program


def judge(path: Path) -> tuple[bool, str]:
    """Whether a history is as it must be, and what the program says of it."""
    judged = subprocess.run(
        [check_history(), path], capture_output=True, text=True, check=False, timeout=60
    )
    return judged.returncode == 0, judged.stdout + judged.stderr
