"""Scans that travel: to other processes and machines, whole or in parts.

What travels is how to make the scan again: the settings of its client, the topic with its id, the
offsets and the arguments. The scan is made again when it is first used, by a connection that all
scans of a process share that have the same settings.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from ottla._bounds import native_bounds
from ottla._connection import Connection
from ottla._format import is_fixed
from ottla.errors import ConfigError, DataLossError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ottla._format import Format
    from ottla._ottla import Scan as _NativeScan

__all__ = ["Recipe", "cut", "with_columns"]

#: How long a scan that travelled waits for its bounds, in seconds.
_SECONDS = 30.0

#: The connections of scans that travelled to this process, by their settings.
_connections: dict[tuple[tuple[str, str], ...], Connection] = {}


@dataclass(frozen=True)
class Recipe:
    """How to make a scan again.

    Parameters
    ----------
    settings : dict of str to str
        The settings of the client.
    topic, topic_id : str
        The topic, and the id that it had.
    offsets : dict of int to (int, int)
        The bounds by partition.
    options : dict of str to object
        The other arguments, as the extension reads them.
    schema : dict of str to str, optional
        The columns that it must have, where others could have come in meanwhile.
    """

    settings: dict[str, str] = field(repr=False)
    topic: str
    topic_id: str
    offsets: dict[int, tuple[int, int]]
    options: dict[str, Any]
    schema: dict[str, str] | None = None

    def connection(self) -> Connection:
        """Return the connection of this process for scans that travelled to it."""
        name = tuple(sorted(self.settings.items()))
        connection = _connections.get(name)
        if connection is None or connection.closed:
            connection = _connections[name] = Connection._open(None, config=self.settings)  # noqa: SLF001
        return connection

    def make(self, connection: Connection | None = None) -> _NativeScan:
        """Make the scan, by a connection, or by the one of this process."""
        connection = connection or self.connection()
        bounds = native_bounds(self.offsets, self.offsets, self.topic)
        scan = connection._native.scan(self.topic, *bounds, self.options, _SECONDS)  # noqa: SLF001
        if scan.topic_id != self.topic_id:
            raise DataLossError(
                f"topic {self.topic} was deleted and re-created since this scan was made (its id "
                f"was {self.topic_id}, now it is {scan.topic_id})"
            )
        if self.schema is not None and scan.schema() != self.schema:
            raise ConfigError(
                f"the values of {self.topic} have other columns than when the scan was made: "
                f"{scan.schema()}, and they were {self.schema}. Make it with a schema"
            )
        return scan


def cut(offsets: Mapping[int, tuple[int, int]], n: int) -> list[dict[int, tuple[int, int]]]:
    """Cut offsets into at most ``n`` parts of about the same number; at least one."""
    total = sum(end - start for start, end in offsets.values())
    if total == 0:
        return [dict(offsets)]
    n = min(n, total)
    parts: list[dict[int, tuple[int, int]]] = [{}]
    done = 0
    for partition, (start, end) in sorted(offsets.items()):
        at = start
        while at < end:
            # Where the part that is being filled ends, counted over all partitions.
            goal = -(-total * len(parts) // n)
            step = min(end - at, goal - done)
            parts[-1][partition] = (at, at + step)
            at, done = at + step, done + step
            if done == goal and done < total:
                parts.append({})
    return parts


def with_columns(value: Format | None, whole: Mapping[str, str] | None) -> Format | None:
    """Return a format that has the same columns wherever it is read.

    Parameters
    ----------
    value : Format, optional
        The format.
    whole : mapping of str to str, optional
        The columns of values that were inferred.
    """
    if value is None or is_fixed(value) or (value.registry is not None and value.latest):
        return value
    if value.kind == "json" and whole is not None:
        return replace(value, schema=dict(whole), extra=value.extra or "error")
    raise ConfigError(
        f"value={value!r}: its columns are those of the first value, and other parts of the topic "
        "may begin with others: pass a schema"
    )
