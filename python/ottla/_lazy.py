"""A scan as a lazy frame of polars: what a query does not need is not read.

polars tells which columns a query needs, which rows it filters for, and how many it takes. From the
filter follows where its rows can be in the topic, as far as it is about offsets, partitions or
timestamps, and only that is read. The filter itself is applied to what was read, so that it need
not be understood: what is not understood only makes a query slower.

Offsets and partitions say exactly where a row is. A timestamp says less, since records need not be
in the order of their timestamps: before the first record that is not older than a time there is
none that is not older either, but behind the last one that is older there may be others. So only
the lower bound of a filter moves a place, the one where reading begins.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla._bounds import Limit
from ottla.errors import NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import polars as pl

    Ranges = dict[int, tuple[int, int]]
    #: Reads columns (all when there are none) of ranges, from the first record of a time on, which
    #: is in milliseconds.
    Read = Callable[[Sequence[str] | None, Ranges, int | None], Iterator[Any]]

__all__ = ["Places", "from_time", "lazy_frame", "places_of"]

#: How long the lookup of a time may take, in seconds.
_SECONDS = 30.0

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)

#: What each comparison of a column with a value says of it: from where, and up to where, exclusive,
#: counted from the value.
_COMPARISONS: tuple[tuple[Callable[[Any, Any], Any], int | None, int | None], ...] = (
    (operator.ge, 0, None),
    (operator.gt, 1, None),
    (operator.lt, None, 0),
    (operator.le, None, 1),
    (operator.eq, 0, 1),
)


@dataclass
class Places:
    """Where the rows can be that a filter lets pass.

    Parameters
    ----------
    start, end : int, optional
        The offsets in each partition, end exclusive.
    since : int, optional
        The lowest timestamp, in milliseconds.
    of_partitions : list of polars.Expr
        What is asked of the number of the partition.
    """

    start: int = 0
    end: int | None = None
    since: int | None = None
    of_partitions: list[pl.Expr] = field(default_factory=list)

    def within(self, offsets: Mapping[int, tuple[int, int]]) -> Ranges:
        """Return what they leave of ranges of offsets; partitions without any are left out."""
        chosen = self._partitions(list(offsets))
        ranges = {}
        for partition in chosen:
            start, end = offsets[partition]
            start = max(start, self.start)
            end = end if self.end is None else min(end, self.end)
            if start < end:
                ranges[partition] = (start, end)
        return ranges

    def _partitions(self, numbers: list[int]) -> list[int]:
        import polars as pl

        frame = pl.DataFrame({"partition": numbers}, schema={"partition": pl.Int32})
        chosen: list[int] = frame.filter(*self.of_partitions)["partition"].to_list()
        return chosen


def places_of(predicate: pl.Expr) -> Places:
    """Return where the rows can be that a filter lets pass."""
    places = Places()
    todo = [predicate]
    while todo:
        one = todo.pop()
        inputs = one.meta.pop()
        if len(inputs) == 2:  # noqa: PLR2004
            right, left = inputs
            if one.meta.eq(left & right):
                todo += [left, right]
                continue
        _narrow(places, one, inputs)
    return places


def _narrow(places: Places, condition: pl.Expr, inputs: list[pl.Expr]) -> None:
    """Take account of a condition that all rows must meet."""
    names = set(condition.meta.root_names())
    if names == {"partition"}:
        places.of_partitions.append(condition)
    elif names == {"offset"}:
        for start, end in _bounds(condition, inputs, "offset", _whole):
            if start is not None:
                places.start = max(places.start, start)
            if end is not None:
                places.end = end if places.end is None else min(places.end, end)
    elif names == {"timestamp"}:
        for start, _end in _bounds(condition, inputs, "timestamp", _moment):
            # Finer digits than milliseconds were cut off, so what is later may be at the same one.
            if start is not None:
                places.since = start if places.since is None else max(places.since, start)


def _bounds(
    condition: pl.Expr, inputs: list[pl.Expr], name: str, read: Callable[[Any], int | None]
) -> list[tuple[int | None, int | None]]:
    """Return the ranges that a condition keeps a column within; none if it cannot be understood."""
    import polars as pl

    column = pl.col(name)
    if len(inputs) == 2:  # noqa: PLR2004
        for value in inputs:
            for compare, start, end in _COMPARISONS:
                if condition.meta.eq(compare(column, value)):
                    return [_range(_constant(value, read), start, end, name)]
    if len(inputs) == 3:  # noqa: PLR2004
        upper, lower, _column = inputs
        for closed, start, end in (("both", 0, 1), ("left", 0, 0), ("right", 1, 1), ("none", 1, 0)):
            if condition.meta.eq(column.is_between(lower, upper, closed=closed)):
                return [
                    _range(_constant(lower, read), start, None, name),
                    _range(_constant(upper, read), None, end, name),
                ]
    return []


def _range(
    value: int | None, start: int | None, end: int | None, name: str
) -> tuple[int | None, int | None]:
    if value is None:
        return None, None
    if name == "timestamp" and start is not None:
        start = 0
    return (
        None if start is None else value + start,
        None if end is None else value + end,
    )


def _constant(value: pl.Expr, read: Callable[[Any], int | None]) -> int | None:
    """Return the value of an expression that depends on no row."""
    import polars as pl

    if not value.meta.is_literal():
        return None
    found = pl.select(value).to_series()
    return read(found.item()) if len(found) == 1 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _moment(value: object) -> int | None:
    if not isinstance(value, datetime) or value.tzinfo is None:
        return None
    return (value - _EPOCH) // _MILLISECOND


def from_time(admin: Any, topic: str, ranges: Ranges, since: int) -> Ranges:
    """Return ranges of offsets without what lies before the first record of a time.

    The order of the questions matters. What was written before the ends were asked for is known to
    the lookup of the time, so that what it does not find is not below these ends. And what is still
    there after the lookup was there during it. Where records at the start are gone, the first one
    that is left says nothing of those: the range stays as it is, so that reading it raises.

    Parameters
    ----------
    admin : Admin
        What looks up offsets.
    topic : str
        The topic.
    ranges : dict of int to (int, int)
        The offsets by partition, end exclusive.
    since : int
        The time, in milliseconds.
    """
    limit = Limit(_SECONDS)
    ends = admin.list_offsets(topic, ("latest", None), limit.left())
    found = admin.list_offsets(topic, ("time", since), limit.left())
    earliest = admin.list_offsets(topic, ("earliest", None), limit.left())

    def first(partition: int, start: int, end: int) -> int:
        if not all(partition in offsets for offsets in (ends, found, earliest)):
            return start
        if earliest[partition] > start:
            return start
        at: int = min(found[partition], ends[partition])
        return min(max(start, at), end)

    return {one: (first(one, start, end), end) for one, (start, end) in ranges.items()}


def lazy_frame(
    empty: pl.DataFrame, offsets: Mapping[int, tuple[int, int]], read: Read, *, prunes: bool
) -> pl.LazyFrame:
    """Return a lazy frame of what ``read`` reads.

    Parameters
    ----------
    empty : polars.DataFrame
        A frame without rows, with all columns.
    offsets : mapping of int to (int, int)
        The ranges of offsets, by partition.
    read : callable
        Reads some of them.
    prunes : bool
        Whether the columns ``offset``, ``partition`` and ``timestamp`` are those of the records.
    """
    _frames.require("polars", "lazy()")
    try:
        from polars.io.plugins import register_io_source
    except ImportError:
        raise NotSupportedError(
            "lazy() needs a newer polars, with polars.io.plugins: pip install --upgrade polars"
        ) from None

    def source(
        names: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        import polars as pl

        places = Places()
        # With a number of rows, it counts those before the filter.
        if prunes and predicate is not None and n_rows is None:
            places = places_of(predicate)
        asked = names
        if names is not None and predicate is not None:
            asked = [*dict.fromkeys([*names, *predicate.meta.root_names()])]
        left = n_rows
        ranges = places.within(offsets)
        for batch in read(asked, ranges, places.since) if ranges and left != 0 else ():
            frame = pl.DataFrame(batch)
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            if predicate is not None:
                frame = frame.filter(predicate)
            yield frame if names is None else frame.select(names)
            if left == 0:
                return

    return register_io_source(source, schema=empty.schema, validate_schema=True)
