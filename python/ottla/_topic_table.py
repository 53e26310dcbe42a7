"""Tables of topics: the latest row of each key, kept up to date by reading only what is new.

A table is read by scans, each from where the last one ended, so it is exact: at its offsets it has
the rows that a query over one scan from the beginning has. One thing could be missed: a deletion.
Compaction removes a tombstone some time after the rows that it deletes (``delete.retention.ms``),
and who has read such a row and comes back later never learns of it. So the table knows when it was
last read, and begins again from the beginning when that is too long ago.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ottla import _frames, _progress
from ottla._bounds import Limit
from ottla._closing import Closing
from ottla._format import is_fixed
from ottla._runs import DELETED, Directory, Runs, newest, refuse_doubled
from ottla._table_columns import TableColumns
from ottla.errors import ConfigError, DataLossError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import polars as pl

    from ottla._bounds import Bound
    from ottla._connection import Timeout
    from ottla._scan import Scan
    from ottla._scanning import Scanning
    from ottla.formats import Format

    #: The rows of some records, how many these are, what is so when they are in the table, and
    #: their offsets.
    _Part = tuple[Any, int, dict[str, Any], dict[str, dict[int, tuple[int, int]]]]

__all__ = ["Changes", "Table"]

logger = logging.getLogger("ottla.client")

#: About so many rows, or bytes, of a topic are in memory besides the table itself.
_RUN_ROWS = 250_000
_RUN_BYTES = 64 << 20

#: How many rows a batch has; a part of the topic is at least one.
_BATCH_ROWS = 10_000

#: How long the settings of a topic count, in seconds.
_SETTINGS_SECONDS = 60.0


@dataclass(frozen=True, repr=False)
class Changes:
    """What some records of a topic change in a table; made by ``table.changes()``.

    Parameters
    ----------
    upserts : polars.DataFrame
        The rows that are new or replace others, with the columns of the table; each key once.
    deletes : polars.DataFrame
        The keys that tombstones delete, as one column; each once, and none that is in ``upserts``.
        The table need not have had them.
    offsets : dict of str to dict of int to (int, int)
        The offsets of the records, by topic and partition, end exclusive, as of a batch.
    """

    upserts: pl.DataFrame
    deletes: pl.DataFrame
    offsets: dict[str, dict[int, tuple[int, int]]]

    def __repr__(self) -> str:
        count = f"{self.upserts.height:,} upserts, {self.deletes.height:,} deletes"
        return f"<ottla.Changes {count}, {self.offsets}>"


class Table(_frames.Frame, Closing):
    """The latest row of each key of a topic; made by ``client.table``.

    It has the topic as of the offsets in :attr:`end`, and moves on only in :meth:`refresh` and
    :meth:`changes`. One thread uses it at a time.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     for name, city in (("ada", "London"), ("bob", "Paris"), ("ada", "Rome")):
    ...         _ = kafka.send("users", {"city": city}, key=name)
    ...     users = kafka.table("users", key=ottla.text(), value={"city": "utf8"})
    ...     print(users.to_polars().sort("key").rows())
    ...     _ = kafka.send("users", None, key="bob")
    ...     print(users.refresh(), users.to_polars().rows())
    [('ada', 'Rome'), ('bob', 'Paris')]
    1 [('ada', 'Rome')]

    It follows the topic in steps, and is a table for any dataframe library:

    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("users", {"city": "Rome"}, key="ada")
    ...     users = kafka.table("users", key="text", value={"city": "utf8"}, path="users")
    ...     users.topic, users.end
    ...     _ = kafka.send("users", None, key="ada")
    ...     [(change.upserts.rows(), change.deletes.rows()) for change in users.changes()]
    ...     len(users.to_pyarrow()), len(users.to_pandas())
    ...     users.close()  # others may use the directory now
    ('users', {'users': {0: 1}})
    [([], [('ada',)])]
    (0, 0)
    """

    def __init__(self, client: Scanning, topic: str, options: Mapping[str, Any]) -> None:
        self._client = client
        self._topic = topic
        self._options = options
        self._format: Format = options["value"]
        self._path: Path | None = options["path"]
        self._polars = _frames.require("polars", "table()")
        #: What the topic says about tombstones, and when it was asked.
        self._settings: tuple[float, float | None] | None = None
        self._columns: TableColumns | None = None
        #: A frame without rows, and the rows as users see them until the table moves on.
        self._empty = self._polars.DataFrame()
        self._shown: Any = None
        self._runs = Runs(None if self._path is None else Directory(self._path))
        facts = self._runs.facts
        if facts is not None:
            if facts["made"] != self._made():
                self._runs.close()
                told = ", ".join(f"{name}={value}" for name, value in facts["made"].items())
                raise ConfigError(
                    f"the table in {self._path} was made with other arguments: {told}. Pass these, "
                    "or another path, or remove the directory to read the topic again"
                )
            self._know(facts["schema"])

    def _made(self) -> dict[str, str]:
        """How it was made: what must be the same for the rows that files have."""
        names = ("key", "value", "columns", "partitions", "isolation_level", "on_error")
        return {"topic": self._topic, **{name: str(self._options[name]) for name in names}}

    def _know(self, schema: Mapping[str, str]) -> None:
        """Keep the columns that the first rows have."""
        self._schema = dict(schema)
        is_text = self._options["key"].kind == "text"
        self._columns = TableColumns(schema, self._options["columns"], is_text=is_text)
        if self._format.kind == "json" and self._format.schema is None and self._columns.fields:
            # Other rows would have others.
            extra = self._format.extra or "error"
            self._format = replace(self._format, schema=self._columns.fields, extra=extra)

    # --- what it has ----------------------------------------------------------------------------

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._topic

    @property
    def end(self) -> dict[str, dict[int, int]]:
        """The offsets that the table has come to, by topic and partition, exclusive.

        A checkpoint, as the ``end`` of a scan is.
        """
        facts = self._runs.facts
        found = {} if facts is None else facts["end"]
        return {self._topic: {int(partition): int(at) for partition, at in found.items()}}

    def __len__(self) -> int:
        count: int = self.to_polars().height
        return count

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a ``polars.DataFrame``, in no order.

        Raises
        ------
        ConfigError
            When a key has rows in several partitions: none of them is the latest.
        """
        if self._shown is None:
            live = self._runs.live()
            if live is None:
                return self._empty
            assert self._columns is not None  # noqa: S101 (rows have columns)
            self._shown = self._columns.show(live)
        return self._shown

    # --- moving on ------------------------------------------------------------------------------

    def refresh(self, end: Bound = None, *, progress: Any = False, timeout: Timeout = 30.0) -> int:
        """Read what is new in the topic.

        Where compaction may have removed tombstones since the table was last read, because that is
        longer ago than ``delete.retention.ms`` of the topic, the whole topic is read again. What
        was read before an error stays in the table, up to :attr:`end`.

        Parameters
        ----------
        end : Bound, optional
            Where to stop, as for ``client.scan``; "latest" by default.
        progress : bool or object, default False
            Show progress; see ``client.write``.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the bounds, in seconds. Reading them takes as long as it takes.

        Returns
        -------
        int
            How many records were read.

        Raises
        ------
        DataLossError
            When the topic was deleted or truncated, or records that were not read are gone.
        DecodeError
            When a record has no key, or a value does not match its format.
        ConfigError
            When the values have other columns than before.
        """
        limit = Limit(timeout)
        if not self._is_too_old(limit):
            return self._refresh(self._runs, end, limit, progress)
        logger.warning(
            "table of %s: it was read so long ago that deletions may have been compacted away; the "
            "topic is read again from the beginning",
            self._topic,
        )
        fresh = Runs()
        count = self._refresh(fresh, end, limit, progress)
        self._runs.replace(fresh)
        self._shown = None
        return count

    def _refresh(self, runs: Runs, end: Bound, limit: Limit, progress: Any) -> int:
        scan, facts = self._scan(runs, end, limit)
        shown = _progress.start(progress, scan.max_rows, f"table {self._topic}")
        count = 0
        try:
            for rows, records, part, _offsets in self._read(scan, facts):
                runs.add(rows, part)
                if runs is self._runs:
                    self._shown = None
                count += records
                shown.update(records)
        finally:
            shown.close()
        return count

    def changes(self, end: Bound = None, *, timeout: Timeout = 30.0) -> Iterator[Changes]:
        """Read what is new in the topic, and yield what it changes.

        A change is in the table when the loop asks for the next one, or ends: a loop that breaks
        off, or whose program dies, is given the same change again, by a table in files also after
        a restart. To begin with an empty table, make it with ``refresh=False``.

        Where the rows of a key were moved to another partition, a deletion in the old one may be
        yielded after its new row: partitions have no order among each other.

        Parameters
        ----------
        end : Bound, optional
            Where to stop, as for ``client.scan``; "latest" by default.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the bounds, in seconds.

        Yields
        ------
        Changes
            Those of some 250,000 records, or of 64 MiB.

        Raises
        ------
        DataLossError
            As :meth:`refresh`, and when deletions may have been compacted away since the table was
            last read: call :meth:`refresh`, and begin with all rows.
        DecodeError, ConfigError
            As :meth:`refresh` and :meth:`to_polars`.
        """
        limit = Limit(timeout)
        if self._is_too_old(limit):
            self._lose(
                f"the table of {self._topic} was read so long ago that deletions may have been "
                "compacted away since: call refresh(), which reads the topic again, and begin with "
                "all rows"
            )
        scan, facts = self._scan(self._runs, end, limit)
        for rows, _records, part, offsets in self._read(scan, facts):
            before = self._runs.facts
            if rows is not None and rows.height:
                yield self._changes(rows, offsets)
            if self._runs.facts is not before:
                raise ConfigError(
                    f"the table of {self._topic} moved on while a loop went over its changes: call "
                    "changes() again after the loop"
                )
            self._runs.add(rows, part)
            self._shown = None

    def _changes(self, rows: Any, offsets: dict[str, dict[int, tuple[int, int]]]) -> Changes:
        assert self._columns is not None  # noqa: S101 (rows have columns)
        deleted = self._polars.col(DELETED)
        live = rows.filter(~deleted)
        refuse_doubled(live)
        keys = self._columns.keys(rows.filter(deleted)).unique()
        name = keys.columns[0]
        deletes = keys.join(self._columns.keys(live), on=name, how="anti")
        return Changes(self._columns.show(live), deletes, offsets)

    def _scan(self, runs: Runs, end: Bound, limit: Limit) -> tuple[Scan, dict[str, Any]]:
        """Return what is new for some runs, and what is so before it is read."""
        began, known = time.time(), runs.facts
        starts = {} if known is None else {int(one): at for one, at in known["end"].items()}
        names = ("partitions", "isolation_level", "on_error", "on_data_loss", "threads")
        options = {name: self._options[name] for name in names}
        places: dict[str, Any] = {"start": {self._topic: starts}, "end": end}

        def scan_again(**more: Any) -> Scan:
            given = {**places, **options, **more, "timeout": limit.left()}
            given["batch_rows"] = _BATCH_ROWS
            return self._client.scan(self._topic, value=self._format, **given)

        scan = scan_again()
        if scan.offsets:
            places = {"start": scan.offsets, "end": scan.offsets}
        if scan.max_rows or is_fixed(self._format):
            self._meet(scan.schema)
        if self._columns is not None:
            scan = scan_again(columns=self._columns.asked)
            if not self._empty.width:
                self._empty = self._columns.show(self._columns.rows(scan.head(0), self._topic))
        # Asked when the scan had been made: if it is the id of before, it was so meanwhile.
        native = self._client._admin  # noqa: SLF001
        topic_id = native.describe_topic(self._topic, limit.left())["topic_id"]
        if known is not None and known["topic_id"] != topic_id:
            without = "" if self._path is None else f", without the directory {self._path}"
            raise DataLossError(
                f"topic {self._topic} was deleted and re-created since the table read it (its id "
                f"was {known['topic_id']}, now it is {topic_id}): make a new table{without}"
            )
        return scan, {
            "made": self._made(),
            "topic_id": topic_id,
            "schema": None if self._columns is None else self._schema,
            "end": starts,
            "read_at": began if known is None else known["read_at"],
            "began": began,
        }

    def _meet(self, schema: Mapping[str, str]) -> None:
        """Keep the columns of the values, or refuse others than those of the rows that are here."""
        if self._columns is None or not self._runs.stored_rows:
            self._know(schema)
        elif schema != self._schema:
            raise ConfigError(
                f"the values of {self._topic} have other columns than before: {dict(schema)}, and "
                f"the table has {self._schema}. Make a new table, in another directory if it has "
                "one"
            )

    def _read(self, scan: Scan, facts: dict[str, Any]) -> Iterator[_Part]:
        """Yield the newest row of each key of some records; the last part may have none."""
        since, at = facts["read_at"], dict(facts["end"])
        offsets: dict[int, tuple[int, int]] = {}
        frames: list[Any] = []
        records = size = 0
        for batch in scan if scan.max_rows else ():
            assert self._columns is not None  # noqa: S101 (rows have columns)
            if batch.num_rows:
                frames.append(self._columns.rows(batch, self._topic))
                records += batch.num_rows
                size += frames[-1].estimated_size()
            for partition, (start, end) in batch.offsets.get(self._topic, {}).items():
                offsets[partition] = (offsets.get(partition, (start, end))[0], end)
                at[partition] = end
            if records >= _RUN_ROWS or size >= _RUN_BYTES:
                self._refuse_late(since)
                rows = newest(self._polars.concat(frames))
                yield rows, records, facts | {"end": dict(at)}, {self._topic: offsets}
                frames, offsets, records, size = [], {}, 0, 0
        self._refuse_late(since)
        rows = newest(self._polars.concat(frames)) if frames else None
        done = {"end": scan.end[self._topic], "read_at": facts["began"]}
        yield rows, records, facts | done, {self._topic: offsets}

    # --- tombstones that are gone ---------------------------------------------------------------

    def _is_too_old(self, limit: Limit) -> bool:
        """Whether tombstones may have gone since the rows were read that they delete."""
        facts = self._runs.facts
        if facts is None:
            return False
        kept = self._kept_for(limit)
        return kept is not None and time.time() - facts["read_at"] > kept

    def _refuse_late(self, since: float) -> None:
        """Refuse rows that were read so long after others that tombstones may have gone."""
        kept = self._kept_for(Limit(30.0))
        if kept is not None and time.time() - since > kept:
            self._lose(
                f"topic {self._topic} was not read within its delete.retention.ms="
                f"{kept * 1000:.0f}, so deletions may have been compacted away meanwhile: raise "
                "that setting, and refresh the table again"
            )

    def _kept_for(self, limit: Limit) -> float | None:
        """Return how many seconds tombstones stay; None where they are not compacted away."""
        now = time.monotonic()
        if self._settings is None or now - self._settings[0] > _SETTINGS_SECONDS:
            native = self._client._admin  # noqa: SLF001
            found = native.describe_configs("topic", self._topic, limit.left())
            kept = None
            if "compact" in str(found["cleanup.policy"]["value"]).split(","):
                kept = int(found["delete.retention.ms"]["value"]) / 1000
            self._settings = (now, kept)
        return self._settings[1]

    def _lose(self, words: str) -> None:
        if self._options["on_data_loss"] != "warn":
            raise DataLossError(words)
        logger.warning("%s", words)

    # --- life -----------------------------------------------------------------------------------

    def close(self) -> None:
        """Let others use the directory; a second call does nothing. Frames stay as they are."""
        self._runs.close()

    def __repr__(self) -> str:
        place = "" if self._path is None else f" in {self._path}"
        return f"<ottla.Table {self._topic} at {self.end[self._topic]}{place}>"

    def _repr_html_(self) -> str:
        rows = self.to_polars()
        caption = f"Table of {self._topic}: {rows.height:,} keys at {self.end[self._topic]}"
        names = [f"{name}: {kind}" for name, kind in rows.schema.items()]
        return _frames.html_table(names, rows.head(_frames.SHOWN_ROWS).rows(), caption)
