"""Topics as objects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla import _frames
from ottla._bounds import Limit, row_count

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

    from ottla._client import Client
    from ottla._ottla import RecordBatch
    from ottla._scan import Scan
    from ottla.formats import Format

__all__ = ["Topic"]


class Topic:
    """A topic of a cluster; ``client["orders"]``.

    Holds only the name: each call asks the cluster. In a notebook it displays its partitions,
    offsets, size and settings.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     kafka["words"].head(value=ottla.text())["value"].to_pylist()
    ['one']
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client = client
        self.name = name

    def describe(self, *, timeout: float | timedelta | None = 30.0) -> dict[str, Any]:
        """Describe the topic.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict
            ``name``, ``topic_id``, ``internal``, and ``partitions``: a list of dictionaries with
            ``partition``, ``leader``, ``leader_epoch``, ``replicas``, ``isr``, ``start`` and
            ``end`` (offsets, the end exclusive), and ``size_bytes`` (None where the cluster does
            not report it).

        Raises
        ------
        UnknownTopicError
            When there is no such topic.
        """
        native = self._client._admin  # noqa: SLF001
        limit = Limit(timeout)
        described = native.describe_topic(self.name, limit.left())
        start = native.list_offsets(self.name, ("earliest", None), limit.left())
        end = native.list_offsets(self.name, ("latest", None), limit.left())
        sizes = native.log_sizes(self.name, limit.left())
        for partition in described["partitions"]:
            number = partition["partition"]
            partition["start"] = start.get(number)
            partition["end"] = end.get(number)
            partition["size_bytes"] = sizes.get(number)
        return described

    @property
    def config(self) -> dict[str, str | None]:
        """The settings of the topic by Kafka's names."""
        return {name: entry["value"] for name, entry in self._client.configs(self.name).items()}

    def alter_config(self, **changes: object) -> None:
        """Change settings: ``topic.alter_config(retention_ms=60_000)``; ``None`` resets one."""
        self._client.alter_configs(self.name, changes)

    @property
    def num_partitions(self) -> int:
        """The number of partitions."""
        native = self._client._admin  # noqa: SLF001
        return len(native.describe_topic(self.name, 30.0)["partitions"])

    def head(
        self, n: int = 5, *, value: Format | str | Mapping[str, Any] | None = None, **options: Any
    ) -> RecordBatch:
        """Return the first ``n`` records, in the order of the partitions.

        Parameters
        ----------
        n : int, default 5
            How many rows.
        value : Format, str or mapping, optional
            How values become columns.
        **options
            The other keyword arguments of ``client.scan``.
        """
        return self.scan(value=value, **options).head(n)

    def tail(
        self, n: int = 5, *, value: Format | str | Mapping[str, Any] | None = None, **options: Any
    ) -> RecordBatch:
        """Return the newest ``n`` records by timestamp, newest last.

        Parameters
        ----------
        n : int, default 5
            How many rows. Up to ``n`` records of each partition are read.
        value : Format, str or mapping, optional
            How values become columns.
        **options
            The other keyword arguments of ``client.scan``.
        """
        n = row_count(n)
        start, end = self._client.offsets(self.name, "earliest"), self._client.offsets(self.name)
        first = {
            partition: max(start.get(partition, 0), last - n) for partition, last in end.items()
        }
        scan = self.scan(start=first, end=end, value=value, **options)
        return scan._native.collect_tail(n)  # noqa: SLF001

    def scan(self, *arguments: Any, **options: Any) -> Scan:
        """Scan the topic; takes the arguments of ``client.scan`` except the topic."""
        return self._client.scan(self.name, *arguments, **options)

    def write(self, data: Any, **options: Any) -> int:
        """Write a table; takes the arguments of ``client.write`` except the topic."""
        return self._client.write(self.name, data, **options)

    def delete(self, *, missing_ok: bool = False) -> None:
        """Delete the topic and all its records."""
        self._client.delete_topic(self.name, missing_ok=missing_ok)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic) and (self.name, self._client) == (
            other.name,
            other._client,
        )

    def __hash__(self) -> int:
        return hash((self.name, id(self._client)))

    def __repr__(self) -> str:
        return f"<ottla.Topic {self.name}>"

    def _repr_html_(self) -> str:
        described = self.describe()
        partitions = described["partitions"]
        records = sum((one["end"] or 0) - (one["start"] or 0) for one in partitions)
        sizes = [one["size_bytes"] for one in partitions if one["size_bytes"] is not None]
        caption = f"Topic {self.name}: {records:,} records, {_frames.size(sum(sizes))}"
        names = ["partition", "leader", "replicas", "isr", "start", "end", "size"]
        rows = [
            [
                one["partition"],
                one["leader"],
                one["replicas"],
                one["isr"],
                one["start"],
                one["end"],
                None if one["size_bytes"] is None else _frames.size(one["size_bytes"]),
            ]
            for one in partitions
        ]
        settings = [
            [name, entry["value"]]
            for name, entry in self._client.configs(self.name).items()
            if not entry["is_default"]
        ]
        picture = _frames.html_table(names, rows, caption)
        if settings:
            picture += _frames.html_table(["setting", "value"], settings)
        return picture
