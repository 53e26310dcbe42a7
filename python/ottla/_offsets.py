"""Offsets that are stored with the output: their forms, and Delta tables that hold them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from ottla._bounds import has_ranges, is_by_topic, offset_number, refusal_of_ranges
from ottla._ottla import RecordBatch
from ottla.errors import ConfigError, FencedError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "DeltaOffsets",
    "Offsets",
    "Resume",
    "commits",
    "delta_offsets",
    "delta_txn",
    "ends",
    "spans",
]

#: Offsets by topic and partition: ``batch.offsets``, ``consumer.position()``, or either from JSON.
Offsets = Mapping[str, Mapping[Any, Any]]

#: What ``resume=`` takes: offsets, or a function that returns them.
Resume = Union[Offsets, Callable[[str, int], "int | None"]]  # noqa: UP007 (read by Python 3.10)

Spans = dict[str, dict[int, tuple["int | None", int]]]

_PAIR = 2


def spans(offsets: Offsets) -> Spans:
    """Read offsets by topic and partition as (start, end); the start may be unknown."""
    found: Spans = {}
    for topic, partitions in offsets.items():
        if not isinstance(topic, str) or not isinstance(partitions, Mapping):
            raise ConfigError(
                f"{topic!r}: {partitions!r} are not offsets of a topic: pass batch.offsets, "
                "{topic: {partition: offset}}, or {topic: {partition: (start, end)}}"
            )
        of_topic = found.setdefault(topic, {})
        for partition, value in partitions.items():
            if isinstance(value, (tuple, list)):
                if len(value) != _PAIR:
                    raise ConfigError(f"{value!r} is not a pair of offsets")
                of_topic[int(partition)] = (offset_number(value[0]), offset_number(value[1]))
            else:
                of_topic[int(partition)] = (None, offset_number(value))
    return found


def ends(offsets: Offsets) -> dict[str, dict[int, int]]:
    """Return where reading continues after these offsets."""
    return {
        topic: {partition: end for partition, (_, end) in partitions.items()}
        for topic, partitions in spans(offsets).items()
    }


def commits(what: RecordBatch | Offsets | None) -> dict[str, dict[int, int]] | None:
    """Return the offsets that ``commit(what)`` means; None for everything."""
    if what is None:
        return None
    if isinstance(what, RecordBatch):
        return ends(what.offsets)
    if isinstance(what, Mapping):
        return ends(what)
    raise TypeError(
        "what is committed must be a batch, {topic: {partition: offset}}, or nothing, not "
        f"{type(what).__name__}"
    )


def starts(start: Any) -> dict[str, dict[int, int]] | None:
    """Return where a read starts, from offsets by topic; None when ``start`` is something else."""
    if not isinstance(start, Mapping) or (start and not is_by_topic(start)):
        return None
    if has_ranges(start):
        raise refusal_of_ranges("start")
    return ends(start)


def refuse_foreign(
    offsets: Mapping[str, Any],
    topics: str | Iterable[str] | re.Pattern[str],
    argument: str,
) -> None:
    """Refuse offsets of other topics alone: reading would begin anew, as if there were none."""
    if isinstance(topics, re.Pattern):
        pattern = topics
        known = {topic for topic in offsets if pattern.search(topic)}
        wanted = f"topics like {pattern.pattern}"
    else:
        names = [topics] if isinstance(topics, str) else list(topics)
        known = offsets.keys() & set(names)
        wanted = ", ".join(map(str, names))
    if offsets and not known:
        raise ConfigError(f"{argument}= has offsets for {', '.join(offsets)}, not for {wanted}")


def of_resume(
    resume: Resume, partitions: Iterable[tuple[str, int]] | None = None
) -> dict[str, dict[int, int]]:
    """Return the offsets given by ``resume=``; a function is asked about some partitions."""
    if isinstance(resume, Mapping):
        return ends(resume)
    if not callable(resume):
        raise TypeError(
            f"resume={resume!r}: pass batch.offsets, consumer.position(), what "
            "ottla.sql_offsets.load returned, or ottla.delta_offsets(…)"
        )
    found: dict[str, dict[int, int]] = {}
    for topic, partition in partitions or ():
        offset = resume(topic, partition)
        if offset is not None:
            found.setdefault(topic, {})[partition] = offset_number(offset)
    return found


def _app_id(app: str, topic: str, partition: int) -> str:
    # Topics have no colons, so two names never collide.
    return f"{app}:{topic}:{partition}"


def _deltalake() -> Any:
    try:
        import deltalake
    except ImportError:
        raise ImportError(
            "offsets in Delta tables need the package deltalake: pip install deltalake"
        ) from None
    return deltalake


def delta_txn(offsets: Offsets, app: str, table: Any = None) -> Any:
    """Return the commit properties for the offsets of a batch; see ``RecordBatch.delta_txn``."""
    deltalake = _deltalake()
    transactions = []
    for topic, partitions in spans(offsets).items():
        for partition, (start, end) in partitions.items():
            app_id = _app_id(app, topic, partition)
            known = None if table is None else table.transaction_version(app_id)
            if known is not None and start is not None and known > start:
                raise FencedError(
                    f"the table has the rows of {topic}-{partition} up to offset {known} from "
                    f"{app!r}, but the batch begins at {start}: another run wrote them; use a new "
                    "consumer with resume=ottla.delta_offsets(…)"
                )
            transactions.append(deltalake.Transaction(app_id, end))
    return deltalake.CommitProperties(app_transactions=transactions)


class DeltaOffsets:
    """The offsets stored in a Delta table; returned by :func:`delta_offsets`, for ``resume=``.

    A function of a topic and a partition that returns the offset to continue from, or None where
    nothing was written.
    """

    def __init__(self, table: Any, app: str, opening: Callable[[], Any] | None = None) -> None:
        self._table = table
        self._app = app
        #: Reopens the table, if it is given by its location.
        self._open = opening

    def __call__(self, topic: str, partition: int) -> int | None:
        """Return the offset after the last row of a partition that is in the table."""
        if self._table is None:
            return None
        version: int | None = self._table.transaction_version(_app_id(self._app, topic, partition))
        return version

    def refresh(self) -> None:
        """Read the table again; a group consumer does this when it is assigned partitions."""
        if self._open is not None:
            self._table = self._open()
        elif self._table is not None:
            self._table.update_incremental()

    def __repr__(self) -> str:
        place = "an empty location" if self._table is None else repr(self._table)
        return f"<ottla.DeltaOffsets of {self._app!r} in {place}>"


def delta_offsets(
    table: Any, app: str, *, storage_options: Mapping[str, str] | None = None
) -> DeltaOffsets:
    """Return the offsets that ``batch.delta_txn(app)`` wrote into a Delta table.

    Parameters
    ----------
    table : str, pathlib.Path or deltalake.DeltaTable
        Where the table is; it need not exist yet. A table passed as an object is brought up to
        date.
    app : str
        The name of the program, as passed to ``delta_txn``.
    storage_options : mapping of str to str, optional
        Passed to ``deltalake.DeltaTable``.

    Returns
    -------
    DeltaOffsets
        For ``resume=`` of a consumer: the table itself records the position, so nothing is lost or
        written twice, whenever the program dies.

    Examples
    --------
    >>> import ottla
    >>> ottla.delta_offsets("not/there/yet", "etl")("orders", 0) is None
    True
    """
    deltalake = _deltalake()
    if not isinstance(table, (str, Path)):
        table.update_incremental()
        return DeltaOffsets(table, app)
    options = None if storage_options is None else dict(storage_options)

    def opening() -> Any:
        if not deltalake.DeltaTable.is_deltatable(str(table), options):
            return None
        return deltalake.DeltaTable(str(table), storage_options=options)

    return DeltaOffsets(opening(), app, opening)
