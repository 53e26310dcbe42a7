"""The state of a table: the newest row of each key, in memory or in files that survive a restart.

New rows become a *run*, in which each key occurs once. A run that is at least half as large as the
one before it is merged with it, so that there are few runs, adding some rows costs about as much as
they are large, and a row is copied a logarithmic number of times. A deletion is a row, too, until
it reaches the first run, behind which there is nothing left to delete.

In a directory each run is a file that is never changed, and a manifest names those that count
together with the offsets up to which they were read. Both are replaced at once, by a rename: after
a crash at any moment, rows and offsets fit each other. Files are mapped, not loaded, so the memory
of a large table is the page cache, which the system takes back when it needs it.
"""

from __future__ import annotations

import io
import json
import os
import sys
import weakref
import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla.errors import ConfigError, CorruptionError, StorageError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DELETED", "KEY", "PARTITION", "Directory", "Runs", "newest", "refuse_doubled"]

#: The columns that every run has. Others are called ``kafka:…`` and ``value:…``, so that a member
#: of a value may have any name.
KEY = "kafka:key"
PARTITION = "kafka:partition"
DELETED = "kafka:is_tombstone"

#: The rows of a key may be in several partitions, and partitions have no order among each other.
_BY = [KEY, PARTITION]

_MANIFEST = "table.json"
_VERSION = 1


def newest(rows: Any) -> Any:
    """Return the last row of each key; the rows of a partition are in order."""
    return rows.unique(subset=_BY, keep="last", maintain_order=True)


def refuse_doubled(rows: Any) -> None:
    """Refuse rows of one key in several partitions."""
    if rows[PARTITION].n_unique() < 2:  # noqa: PLR2004
        return
    doubled = rows.filter(rows[KEY].is_duplicated())
    if not doubled.height:
        return
    key = doubled[KEY][0]
    places = sorted(doubled.join(doubled.head(1).select(KEY), on=KEY, how="semi")[PARTITION])
    raise ConfigError(
        f"key {key!r} has rows in partitions {', '.join(map(str, places))}, which have no order "
        "among each other: none of them is the latest. The topic was given more partitions, or was "
        "written by clients that place keys differently. Name the partitions that count with "
        "partitions=, or write the topic anew by its key"
    )


class Runs:
    """The newest row of each key, as a polars frame in several parts.

    Parameters
    ----------
    directory : Directory, optional
        Where they are kept; in memory otherwise.
    """

    def __init__(self, directory: Directory | None = None) -> None:
        self._directory = directory
        self._polars = _frames.require("polars", "table()")
        self._runs: list[Any] = []
        #: What is known about the rows, such as the offsets up to which they were read.
        self.facts: dict[str, Any] | None = None
        if directory is not None:
            self.facts, self._runs = directory.open(self._polars)

    def add(self, rows: Any, facts: dict[str, Any]) -> None:
        """Add the newest rows of some keys, or None, and what is so with them."""
        runs = [*self._runs, *([] if rows is None else [rows])]
        while len(runs) > 1 and runs[-1].height * 2 >= runs[-2].height:
            newer, older = runs.pop(), runs.pop()
            runs.append(_merged(older, newer))
        if runs and not (self._runs and runs[0] is self._runs[0]):
            runs[0] = runs[0].filter(~self._polars.col(DELETED))
        self._keep([run for run in runs if run.height], facts)

    def replace(self, other: Runs) -> None:
        """Take what another one has instead."""
        assert other.facts is not None  # noqa: S101 (it was read)
        self._keep(other._runs, other.facts)

    def _keep(self, runs: list[Any], facts: dict[str, Any]) -> None:
        known = {id(run) for run in self._runs}
        if self._directory is not None:
            runs = self._directory.keep(runs, facts, self._polars)
        else:
            runs = [run if id(run) in known else _compact(run, self._polars) for run in runs]
        self._runs, self.facts = runs, facts

    def live(self) -> Any:
        """Return all rows that there are, in no order, or None when there was never one.

        Raises
        ------
        ConfigError
            When a key has rows in several partitions.
        """
        if not self._runs:
            return None
        merged = self._runs[-1]
        for older in reversed(self._runs[:-1]):
            merged = _merged(older, merged)
        merged = merged.filter(~self._polars.col(DELETED))
        refuse_doubled(merged)
        return merged

    @property
    def stored_rows(self) -> int:
        """How many rows are kept, with those that later ones supersede."""
        return sum(run.height for run in self._runs)

    def close(self) -> None:
        """Let others use the directory; its files stay mapped as long as frames point into them."""
        if self._directory is not None:
            self._directory.close()


def _merged(older: Any, newer: Any) -> Any:
    import polars as pl

    return pl.concat([older.join(newer.select(_BY), on=_BY, how="anti"), newer])


def _compact(run: Any, polars: Any) -> Any:
    """Copy a run, so that it does not keep whole segments and batches of which it has few rows."""
    memory = io.BytesIO()
    run.write_ipc(memory, compat_level=polars.CompatLevel.oldest())
    memory.seek(0)
    return polars.read_ipc(memory)


class Directory:
    """The files of a table, which one table has at a time.

    Parameters
    ----------
    path : pathlib.Path
        Where it is; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = weakref.finalize(self, os.close, _lock(path))
        #: The runs that the manifest names: the name of the file, its length and its checksum.
        self._files: list[tuple[str, int, int]] = []
        self._runs: list[Any] = []
        self._number = 0

    def open(self, polars: Any) -> tuple[dict[str, Any] | None, list[Any]]:
        """Return what was kept; remove what a crash left behind."""
        facts = None
        try:
            manifest = json.loads((self.path / _MANIFEST).read_bytes())
        except FileNotFoundError:
            pass
        except ValueError as error:
            raise CorruptionError(f"{self.path / _MANIFEST}: {error}") from None
        else:
            if manifest.get("version") != _VERSION:
                raise StorageError(
                    f"{self.path}: the table was written by another release of ottla (version "
                    f"{manifest.get('version')}, this one reads {_VERSION}); remove the directory, "
                    "and the table is read from the topic again"
                )
            facts = manifest["facts"]
            self._files = [(name, size, crc) for name, size, crc in manifest["runs"]]
        named = {name for name, _, _ in self._files}
        for one in self.path.glob("*.arrow"):
            self._number = max(self._number, int(one.stem))
            if one.name not in named:
                _remove(one)
        for name, size, crc in self._files:
            _check(self.path / name, size, crc)
        self._runs = [polars.read_ipc(self.path / name) for name, _, _ in self._files]
        return facts, list(self._runs)

    def keep(self, runs: list[Any], facts: dict[str, Any], polars: Any) -> list[Any]:
        """Make the runs those that count; return them, mapped."""
        if not self._lock.alive:
            raise StorageError(f"{self.path}: the table was closed")
        place = {id(run): index for index, run in enumerate(self._runs)}
        files, kept = [], []
        for run in runs:
            index = place.get(id(run))
            if index is None:
                entry = self._write(run, polars)
                mapped = polars.read_ipc(self.path / entry[0])
            else:
                entry, mapped = self._files[index], run
            files.append(entry)
            kept.append(mapped)
        text = json.dumps({"version": _VERSION, "facts": facts, "runs": files})
        draft = self.path / f"{_MANIFEST}.draft"
        _write_synced(draft, text.encode())
        draft.replace(self.path / _MANIFEST)
        _sync_directory(self.path)
        gone = {name for name, _, _ in self._files} - {name for name, _, _ in files}
        self._files, self._runs = files, kept
        for name in gone:
            _remove(self.path / name)
        return list(kept)

    def _write(self, run: Any, polars: Any) -> tuple[str, int, int]:
        self._number += 1
        name = f"{self._number:012}.arrow"
        memory = io.BytesIO()
        run.write_ipc(memory, compat_level=polars.CompatLevel.oldest())
        content = memory.getbuffer()
        _write_synced(self.path / name, content)
        return name, len(content), zlib.crc32(content)

    def close(self) -> None:
        """Let another table have the directory."""
        self._lock()


def _lock(path: Path) -> int:
    descriptor = os.open(path / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise StorageError(
            f"{path} is used by another table, here or in another program; close that one first, "
            "or use another directory"
        ) from None
    return descriptor


def _check(path: Path, size: int, crc: int) -> None:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    if len(content) != size or zlib.crc32(content) != crc:
        raise CorruptionError(
            f"{path} is not what was written; remove the directory, and the table is read from the "
            "topic again"
        )


def _write_synced(path: Path, content: bytes | memoryview) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: Path) -> None:
    # Where a mapped file cannot be removed, the next one who opens the directory does.
    with suppress(OSError):
        path.unlink()
