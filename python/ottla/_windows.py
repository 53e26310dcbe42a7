"""Event-time windows of a topic: rows by when they happened, handed out when all of them are there.

The watermark of a partition is the latest time that was read from it, less the grace. A row whose
window had ended by then is late, which depends on nothing but the partition, so it does not matter
how fast partitions are read, or how often a program starts again. A window closes when it has ended
by the watermarks of all partitions.

The partition that is furthest behind is always read next. So what is in memory is what the windows
that are open need, and no partition runs ahead of the others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla.errors import ConfigError, DecodeError, LateRowError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Literal

    import polars as pl

    from ottla._scan import Scan

__all__ = ["Feed", "Window", "Windows", "micros"]

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_UNITS = {"ms": 1_000, "s": 10**6, "m": 60 * 10**6, "h": 3_600 * 10**6, "d": 86_400 * 10**6}
_SPAN = re.compile(r"\s*(\d+)\s*(ms|s|m|h|d)\s*")

#: Columns of the rows that are kept, besides those of the user.
_AT, _END, _OFFSET, _PARTITION = "ottla:at", "ottla:end", "ottla:offset", "ottla:partition"


def micros(span: object, name: str) -> int:
    """Return a span of time in microseconds."""
    if isinstance(span, timedelta):
        return span // timedelta(microseconds=1)
    found = _SPAN.fullmatch(span) if isinstance(span, str) else None
    if found is None:
        raise ConfigError(
            f"{name}={span!r} is no span of time: pass a timedelta, or a whole number with ms, s, "
            'm, h or d, such as "10s"'
        )
    return int(found[1]) * _UNITS[found[2]]


def _moment(at: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at)


@dataclass(frozen=True, repr=False)
class Window(_frames.Frame):
    """The rows of a window that is closed; made by ``client.windows``.

    Parameters
    ----------
    start, end : datetime.datetime
        The times of its rows: from ``start``, before ``end``, in UTC.
    rows : polars.DataFrame
        The rows, by partition and offset. Any library that reads Arrow streams takes the window
        itself.
    checkpoint : dict
        Where to go on behind this window: pass it as ``resume=``. JSON can hold it.
    offsets : dict of str to dict of int to (int, int)
        The range of offsets in which the rows are, by topic and partition, end exclusive. Rows of
        other windows may be in it.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker(config={"log.retention.ms": -1}) as broker:
    ...     kafka = broker.client()
    ...     for minute in (0, 1):
    ...         _ = kafka.send("clicks", "x", timestamp=f"2024-01-01T00:0{minute}:30Z")
    ...     window = next(kafka.windows("clicks", "1m", columns=["value"]))
    >>> window.to_polars().rows(), len(window.to_pyarrow()), len(window.to_pandas())
    ([(b'x',)], 1, 1)
    """

    start: datetime
    end: datetime
    rows: pl.DataFrame
    checkpoint: dict[str, Any]
    offsets: dict[str, dict[int, tuple[int, int]]]

    def __len__(self) -> int:
        count: int = self.rows.height
        return count

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a ``polars.DataFrame``."""
        return self.rows

    def __repr__(self) -> str:
        span = f"[{self.start.isoformat()}, {self.end.isoformat()})"
        return f"<ottla.Window {span} {len(self):,} rows>"


@dataclass
class Feed:
    """What is read of one partition.

    Parameters
    ----------
    scan : Scan
        Its rows.
    start : int
        The offset at which they begin.
    position : int
        The offset up to which rows were read, perhaps by an earlier run.
    """

    scan: Scan
    start: int
    position: int
    #: What is known of it, up to where this run has read.
    batches: Iterator[Any] | None = None
    latest: int | None = None
    is_done: bool = False
    #: Rows that belong to windows that are open.
    rows: list[Any] = field(default_factory=list)


class Windows:
    """The closed windows of a topic, in the order of their times; made by ``client.windows``.

    An iterator. It ends when no further window is closed by what the topic had when it was made.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker(config={"log.retention.ms": -1}) as broker:
    ...     kafka = broker.client()
    ...     for minute in (0, 1, 2):
    ...         _ = kafka.send("clicks", "x", timestamp=f"2024-01-01T00:0{minute}:30Z")
    ...     windows = kafka.windows("clicks", "1m")
    ...     first = next(windows)
    ...     rest = kafka.windows("clicks", "1m", resume=windows.checkpoint)
    ...     first.start.minute, [window.start.minute for window in rest]
    (0, [1])
    """

    def __init__(
        self,
        topic: str,
        feeds: Mapping[int, Feed],
        *,
        facts: dict[str, Any],
        closed: int | None,
        late: Literal["raise", "drop"] | Callable[[pl.DataFrame], object],
        holds: bool,
        struct: str | None,
        hidden: list[str],
    ) -> None:
        self._polars = _frames.require("polars", "windows()")
        self._topic = topic
        self._feeds = dict(feeds)
        #: What a checkpoint says besides places.
        self._facts = facts
        self._every: int = facts["every_us"]
        self._grace: int = facts["grace_us"]
        self._by: str = facts["by"]
        self._late, self._holds = late, holds
        self._struct, self._hidden = struct, hidden
        #: The end of the last window that was closed, in microseconds.
        self._closed = closed
        #: Where each partition goes on behind the windows that were handed out.
        self._nexts = {partition: feed.start for partition, feed in self._feeds.items()}
        self._checkpoint = self._state()
        self._found = self._find()

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        return next(self._found)

    @property
    def checkpoint(self) -> dict[str, Any]:
        """Where the next run goes on, behind the windows that were handed out.

        At the end it has more than the checkpoint of the last window: what was read behind it, and
        which late rows were told.
        """
        return self._checkpoint

    def _find(self) -> Iterator[Window]:
        while True:
            feed = self._next()
            if feed is None:
                break
            self._read(*feed)
            yield from self._close()
        yield from self._close()
        self._nexts = {partition: self._resume(one) for partition, one in self._feeds.items()}
        self._checkpoint = self._state()

    def _next(self) -> tuple[int, Feed] | None:
        """Return the partition that is furthest behind, if reading it can close a window."""
        waiting = [(part, one) for part, one in self._feeds.items() if not one.is_done]
        if not waiting:
            return None
        part, one = min(waiting, key=lambda item: (item[1].latest is not None, item[1].latest or 0))
        if one.latest is None or not self._holds:
            return part, one
        # No window closes beyond a partition that has nothing more.
        ends = [
            other.latest
            for other in self._feeds.values()
            if other.is_done and other.latest is not None
        ]
        if ends and self._floor(one.latest - self._grace) >= self._floor(min(ends) - self._grace):
            return None
        return part, one

    def _floor(self, at: int) -> int:
        return at - at % self._every

    def _read(self, partition: int, feed: Feed) -> None:
        """Read some more rows of a partition."""
        polars = self._polars
        if feed.batches is None:
            feed.batches = iter(feed.scan)
        batch = next(feed.batches, None)
        if batch is None:
            feed.is_done = True
            feed.position = max(feed.position, feed.scan.end[self._topic][partition])
            return
        spans = batch.offsets.get(self._topic, {})
        _start, end = spans.get(partition, (0, feed.position))
        if batch.num_rows:
            rows = self._timed(polars.DataFrame(batch), partition)
            latest = feed.latest
            before = rows[_AT].cum_max()
            if latest is not None:
                before = before.clip(lower_bound=latest)
            feed.latest = int(before[-1])
            limit = before - self._grace
            if self._closed is not None:
                limit = limit.clip(lower_bound=self._closed)
            is_late = rows[_END] <= limit
            on_time = rows.filter(~is_late)
            if on_time.height:
                feed.rows.append(on_time)
            # Those before the position were told when they were first read.
            self._tell(rows.filter(is_late & (rows[_OFFSET] >= feed.position)))
        feed.position = max(feed.position, end)

    def _timed(self, rows: Any, partition: int) -> Any:
        """Add the time of each row, and the end of its window."""
        polars = self._polars
        time = self._column(self._by)
        kind = rows.select(time.alias(_AT)).schema[_AT]
        if kind == polars.Date:
            time = time.cast(polars.Datetime("us"))
        elif not isinstance(kind, polars.Datetime):
            raise ConfigError(
                f"by={self._by!r} is a column of type {kind}: windows need a timestamp or a date"
            )
        at = time.dt.timestamp("us")
        rows = rows.with_columns(
            at.alias(_AT),
            ((at // self._every + 1) * self._every).alias(_END),
            self._column(f"{self._struct}.offset" if self._struct else "offset").alias(_OFFSET),
            polars.lit(partition, dtype=polars.Int32).alias(_PARTITION),
        )
        if rows[_AT].null_count():
            place = rows.filter(polars.col(_AT).is_null())[_OFFSET][0]
            raise DecodeError(
                f"the record at offset {place} of {self._topic}-{partition} has no {self._by!r}, "
                "so it is in no window"
            )
        return rows

    def _column(self, name: str) -> Any:
        """Return a column by its name in a scan; Kafka's may be in a struct."""
        polars = self._polars
        if self._struct is not None and name.startswith(f"{self._struct}."):
            return polars.col(self._struct).struct.field(name.removeprefix(f"{self._struct}."))
        return polars.col(name)

    def _tell(self, rows: Any) -> None:
        if not rows.height or self._late == "drop":
            return
        if callable(self._late):
            self._late(self._shown(rows))
            return
        first = rows.row(0, named=True)
        raise LateRowError(
            f"the record at offset {first[_OFFSET]} of {self._topic}-{first[_PARTITION]} is late: "
            f"its time is {_moment(first[_AT]).isoformat()}, and its window was closed when it had "
            'ended for longer than the grace. Pass a longer grace=, late="drop", or a function '
            "that takes late rows"
        )

    def _shown(self, rows: Any) -> Any:
        return rows.drop(_AT, _END, _OFFSET, _PARTITION, *self._hidden)

    def _watermark(self) -> int | None:
        """Return the time up to which all is there; None while a partition is to be read first."""
        known = [one for one in self._feeds.values() if one.latest is not None or not one.is_done]
        active = known if self._holds else [one for one in known if not one.is_done]
        if not active:
            latest = max((one.latest for one in known if one.latest is not None), default=None)
        elif any(one.latest is None for one in active):
            latest = None
        else:
            latest = min(one.latest for one in active if one.latest is not None)
        return None if latest is None else latest - self._grace

    def _close(self) -> Iterator[Window]:
        """Hand out the windows that have ended by now, and keep the rows of the others."""
        watermark = self._watermark()
        if watermark is None:
            return
        ready = self._floor(watermark)
        if self._closed is not None and ready <= self._closed:
            return
        parts = []
        for one in self._feeds.values():
            if one.rows:
                rows = self._polars.concat(one.rows)
                parts.append(rows.filter(rows[_END] <= ready))
                rest = rows.filter(rows[_END] > ready)
                one.rows = [rest] if rest.height else []
        found = self._polars.concat(parts).sort(_END, _PARTITION, _OFFSET) if parts else None
        groups = [] if found is None else found.partition_by(_END, maintain_order=True)
        # Where each partition goes on when a window was handed out: at the first row of the others.
        nexts = {partition: self._resume(one) for partition, one in self._feeds.items()}
        after = []
        spans = [_spans(rows) for rows in groups]
        for span in reversed(spans):
            after.append(dict(nexts))
            nexts |= {part: min(nexts[part], first) for part, (first, _end) in span.items()}
        for rows, span in zip(groups, spans, strict=True):
            end = rows[_END][0]
            self._closed, self._nexts = end, after.pop()
            self._checkpoint = self._state()
            start = _moment(end - self._every)
            yield Window(
                start, _moment(end), self._shown(rows), self._checkpoint, {self._topic: span}
            )
        self._closed = ready

    def _resume(self, feed: Feed) -> int:
        first = [int(rows[_OFFSET][0]) for rows in feed.rows]
        return min([feed.position, *first])

    def _state(self) -> dict[str, Any]:
        return {
            **self._facts,
            "closed_us": self._closed,
            "offsets": {str(partition): at for partition, at in sorted(self._nexts.items())},
            "read": {str(part): one.position for part, one in sorted(self._feeds.items())},
        }


def _spans(rows: Any) -> dict[int, tuple[int, int]]:
    """Return the offsets of rows by partition, end exclusive."""
    import polars as pl

    offset = pl.col(_OFFSET)
    found = rows.group_by(_PARTITION).agg(offset.min().alias("first"), offset.max().alias("last"))
    return {part: (first, last + 1) for part, first, last in sorted(found.rows())}
