"""What the tier has of a topic at a moment, and how far the copy is behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

from ottla import _frames

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TierPartition", "TopicTier"]

#: How many partitions are shown; all are in the list.
_SHOWN_MAX = 20


@dataclass(frozen=True)
class TierPartition:
    """What the tier has of a partition; ``None`` for what the cluster does not tell.

    Parameters
    ----------
    partition : int
        Its number.
    start : int or None
        The log start offset: the first one of the whole, in the tier or not.
    local_start : int or None
        The first offset on the disk of the leader (ListOffsets -4).
    tiered_end : int or None
        One past the last offset in the tier (ListOffsets -5, plus one).
    pending : int or None
        The first offset that is not in the tier (ListOffsets -6, or the later one of ``tiered_end``
        and ``start`` where the broker does not know that). ``None`` for a moment after the start of
        a leader, until it has read what there is, and for as long as the store does not answer.
    end : int or None
        The high watermark: one past the last offset that is committed.
    local_bytes : int or None
        The size of the log on the disk of the leader.
    files : int or None
        The number of files in the tier.
    bytes : int or None
        Their size.
    log_bytes : int or None
        How many bytes the batches in these files had in the log.
    lag_bytes : int or None
        The size of the segments that are not in the tier, or not wholly, the active one included.
    failure : str or None
        Why the copy does not get on; ``None`` while it does.
    """

    partition: int
    start: int | None = None
    local_start: int | None = None
    tiered_end: int | None = None
    pending: int | None = None
    end: int | None = None
    local_bytes: int | None = None
    files: int | None = None
    bytes: int | None = None
    log_bytes: int | None = None
    lag_bytes: int | None = None
    failure: str | None = None

    @property
    def records(self) -> int | None:
        """How many offsets the tier has; control records and gaps count."""
        if self.start is None or self.pending is None:
            return None
        return self.pending - self.start

    @property
    def lag_records(self) -> int | None:
        """How many offsets are not in the tier yet."""
        if self.end is None or self.pending is None:
            return None
        return max(0, self.end - self.pending)


@dataclass(frozen=True, repr=False)
class TopicTier:
    """What the tier has of a topic, as of when it was asked; a table in a notebook.

    The offsets are what any cluster with tiered storage (KIP-405) answers to ListOffsets. Files and
    bytes are what the leader of each partition, a broker of ottla, says of its own manifest: the
    store is not read from here, so the numbers are the same from every machine, with or without
    access to the store. Other brokers do not tell them: they are ``None``.

    Parameters
    ----------
    topic : str
        The topic.
    enabled : bool
        Whether it has a tier: ``remote.storage.enable``.
    copies : bool
        Whether closed segments are copied there, which ``remote.log.copy.disable`` ends.
    place : str or None
        Where the tier is, as the broker sees it: its ``ottla.tier.url``.
    partitions : list of TierPartition
        The partitions.

    Examples
    --------
    >>> import ottla, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, ottla.Broker(tier=folder) as broker:
    ...     kafka = broker.client()
    ...     orders = kafka.create_topic("orders", config={"remote.storage.enable": True})
    ...     _ = orders.write([{"id": 1}, {"id": 2}])
    ...     before = orders.tier
    ...     _ = orders.offload()
    ...     after = orders.tier
    >>> before.records, before.lag_records
    (0, 2)
    >>> after.records, after.lag_records, after.files, after.lag_bytes
    (2, 0, 1, 0)
    >>> after.bytes > 0 and after.log_bytes > 0 and after.failures == {}
    True
    >>> [(one["partition"], one["tiered_end"]) for one in after.to_pylist()]
    [(0, 2)]
    """

    topic: str
    enabled: bool
    copies: bool
    place: str | None = None
    partitions: list[TierPartition] = field(default_factory=list)

    @classmethod
    def _of(cls, topic: str, described: dict[str, Any]) -> TopicTier:
        partitions = [TierPartition(**one) for one in described["partitions"]]
        return cls(topic, described["enabled"], described["copies"], described["place"], partitions)

    @property
    def records(self) -> int | None:
        """How many offsets the tier has; control records and gaps count."""
        return _sum(one.records for one in self.partitions)

    @property
    def lag_records(self) -> int | None:
        """How many offsets are not in the tier yet."""
        return _sum(one.lag_records for one in self.partitions)

    @property
    def files(self) -> int | None:
        """How many files the tier has."""
        return _sum(one.files for one in self.partitions)

    @property
    def bytes(self) -> int | None:
        """How many bytes these files have."""
        return _sum(one.bytes for one in self.partitions)

    @property
    def log_bytes(self) -> int | None:
        """How many bytes the batches in these files had in the log."""
        return _sum(one.log_bytes for one in self.partitions)

    @property
    def lag_bytes(self) -> int | None:
        """How many bytes the segments have that are not in the tier, or not wholly."""
        return _sum(one.lag_bytes for one in self.partitions)

    @property
    def failures(self) -> dict[int, str]:
        """Why the copy of a partition does not get on, by partition."""
        return {one.partition: one.failure for one in self.partitions if one.failure is not None}

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return the partitions as a list of dictionaries."""
        return [
            {**vars(one), "records": one.records, "lag_records": one.lag_records}
            for one in self.partitions
        ]

    def _head(self) -> str:
        if not self.enabled:
            return f"Tier of {self.topic}: none (remote.storage.enable is false)"
        where = "" if self.place is None else f" at {self.place}"
        parts = [f"Tier of {self.topic}{where}: {_count(self.records)} records"]
        if self.files is not None and self.bytes is not None:
            parts.append(f"{self.files:,} files of {_frames.size(self.bytes)}")
        behind = f"{_count(self.lag_records)} records"
        if self.lag_bytes is not None:
            behind += f" ({_frames.size(self.lag_bytes)})"
        parts.append(f"{behind} behind" if self.copies else f"read only, {behind} are not there")
        return ", ".join(parts)

    def _table(self) -> tuple[list[str], list[list[object]]]:
        names = ["partition", "start", "local start", "tiered end", "end"]
        names += ["files", "bytes", "lag records", "lag bytes"]
        rows: list[list[object]] = [
            [
                one.partition,
                _cell(one.start),
                _cell(one.local_start),
                _cell(one.tiered_end),
                _cell(one.end),
                _cell(one.files),
                _cell(one.bytes, _frames.size),
                _cell(one.lag_records),
                _cell(one.lag_bytes, _frames.size),
            ]
            for one in self.partitions
        ]
        return names, rows

    def _complaints(self) -> list[str]:
        failures = list(self.failures.items())
        told = [f"{self.topic}-{one} does not get on: {why}" for one, why in failures[:_SHOWN_MAX]]
        left = len(failures) - _SHOWN_MAX
        return [*told, f"… {left:,} more do not"] if left > 0 else told

    def __repr__(self) -> str:
        if not self.enabled:
            return self._head()
        names, rows = self._table()
        table = _frames.text_table(names, rows[:_SHOWN_MAX])
        left = len(rows) - _SHOWN_MAX
        more = [f"… {left:,} more partitions"] if left > 0 else []
        return "\n".join([self._head(), table, *more, *self._complaints()])

    def _repr_html_(self) -> str:
        names, rows = self._table() if self.enabled else (["partition"], [])
        table = _frames.html_table(names, rows, self._head(), most=_SHOWN_MAX)
        complaints = "".join(f"<p>{escape(one)}</p>" for one in self._complaints())
        return f"<div>{table}{complaints}</div>" if complaints else table


def _sum(numbers: Iterable[int | None]) -> int | None:
    """Return the sum, or ``None`` if one of the numbers is not known."""
    total = 0
    for number in numbers:
        if number is None:
            return None
        total += number
    return total


def _count(number: int | None) -> str:
    return "an unknown number of" if number is None else f"{number:,}"


def _cell(number: int | None, shown: Any = "{:,}".format) -> str:
    return "-" if number is None else shown(number)
