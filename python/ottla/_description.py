"""What a cluster looks like at a moment: brokers, leaders, and copies that are missing."""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pandas as pd

__all__ = ["ClusterBroker", "ClusterDescription", "ClusterPartition"]

#: How many partitions that need attention are shown; all are in the lists.
_SHOWN_MAX = 20


@dataclass(frozen=True)
class ClusterBroker:
    """A broker of a cluster.

    Parameters
    ----------
    node_id : int
        Its ``node.id``.
    host, port : str, int
        Where clients reach it.
    rack : str or None
        Its ``broker.rack``.
    fenced : bool or None
        Whether it is registered but leads nothing, most likely since it has stopped; ``None``
        where the cluster does not tell (Apache Kafka before 4.0, which lists only the others).
    """

    node_id: int
    host: str
    port: int
    rack: str | None = None
    fenced: bool | None = None


@dataclass(frozen=True)
class ClusterPartition:
    """A partition, and where its copies are.

    Parameters
    ----------
    topic, partition : str, int
        The partition.
    leader : int or None
        The broker that leads it; ``None`` while nobody can.
    leader_epoch : int
        How often it has had another leader; -1 where the cluster does not tell.
    replicas : list of int
        The brokers with a copy, the preferred leader first.
    isr : list of int
        Those whose copies are in sync.
    min_isr : int
        How many have to be in sync for a write with ``acks=all``: ``min.insync.replicas``, or the
        number of replicas where that is less.
    """

    topic: str
    partition: int
    leader: int | None
    leader_epoch: int
    replicas: list[int] = field(default_factory=list)
    isr: list[int] = field(default_factory=list)
    min_isr: int = 1

    @property
    def is_offline(self) -> bool:
        """Whether nobody leads it, so that it can be neither read nor written."""
        return self.leader is None

    @property
    def is_under_replicated(self) -> bool:
        """Whether a copy is not in sync."""
        return len(self.isr) < len(self.replicas)

    @property
    def is_under_min_isr(self) -> bool:
        """Whether it takes no write with ``acks=all``: none leads, or too few are in sync."""
        return self.is_offline or len(self.isr) < self.min_isr


@dataclass(frozen=True, repr=False)
class ClusterDescription:
    """A cluster with its brokers and partitions, as of when it was asked; tables in a notebook.

    Parameters
    ----------
    cluster_id : str or None
        The id.
    controller_id : int or None
        The node that decides: the leader of the metadata quorum. ``None`` while nobody is known to
        lead it.
    brokers : list of ClusterBroker
        The brokers, by id.
    partitions : list of ClusterPartition
        The partitions of all topics, also of Kafka's internal ones.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     _ = kafka.create_topic("orders", partitions=2)
    ...     cluster = kafka.cluster()
    >>> cluster.leaders, cluster.replicas
    ({1: 2}, {1: 2})
    >>> cluster.offline, cluster.under_replicated, cluster.under_min_isr
    ([], [], [])
    >>> [(one["partition"], one["isr"]) for one in cluster.to_pylist()]
    [(0, [1]), (1, [1])]
    >>> cluster.to_pandas()["partition"].tolist()
    [0, 1]
    """

    cluster_id: str | None
    controller_id: int | None
    brokers: list[ClusterBroker]
    partitions: list[ClusterPartition]

    @classmethod
    def _of(cls, described: dict[str, Any]) -> ClusterDescription:
        brokers = [ClusterBroker(**one) for one in described["brokers"]]
        partitions = [ClusterPartition(**one) for one in described["partitions"]]
        return cls(described["cluster_id"], described["controller_id"], brokers, partitions)

    @property
    def leaders(self) -> dict[int, int]:
        """How many partitions each broker leads, by node id."""
        return self._count([one.leader] for one in self.partitions)

    @property
    def replicas(self) -> dict[int, int]:
        """How many copies each broker has, by node id, in sync or not."""
        return self._count(one.replicas for one in self.partitions)

    @property
    def offline(self) -> list[ClusterPartition]:
        """The partitions that nobody leads."""
        return [one for one in self.partitions if one.is_offline]

    @property
    def under_replicated(self) -> list[ClusterPartition]:
        """The partitions with a copy that is not in sync."""
        return [one for one in self.partitions if one.is_under_replicated]

    @property
    def under_min_isr(self) -> list[ClusterPartition]:
        """The partitions that take no write with ``acks=all``."""
        return [one for one in self.partitions if one.is_under_min_isr]

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return the partitions as a list of dictionaries."""
        return [dict(vars(one)) for one in self.partitions]

    def to_pandas(self) -> pd.DataFrame:
        """Return the partitions as a ``pandas.DataFrame``."""
        import pandas as pd

        return pd.DataFrame(self.to_pylist(), columns=list(ClusterPartition.__dataclass_fields__))

    def _count(self, nodes: Iterable[Iterable[int | None]]) -> dict[int, int]:
        counts = {one.node_id: 0 for one in self.brokers}
        for some in nodes:
            for node in some:
                if node is not None:
                    counts[node] = counts.get(node, 0) + 1
        return counts

    def _head(self) -> str:
        parts = [
            f"cluster {self.cluster_id or 'without an id'}",
            f"controller {_cell(self.controller_id)}",
            f"{len(self.partitions)} partitions",
            f"{len(self.offline)} offline",
            f"{len(self.under_replicated)} under-replicated",
            f"{len(self.under_min_isr)} below min ISR",
        ]
        return "  ".join(parts)

    def _broker_table(self) -> list[list[str]]:
        leaders, replicas = self.leaders, self.replicas
        states = {None: "-", True: "fenced", False: "active"}
        header = ["broker", "address", "rack", "state", "leads", "replicas"]
        rows = [
            [
                str(one.node_id),
                f"{one.host}:{one.port}",
                _cell(one.rack),
                states[one.fenced],
                str(leaders[one.node_id]),
                str(replicas[one.node_id]),
            ]
            for one in self.brokers
        ]
        return [header, *rows]

    def _partition_table(self) -> list[list[str]]:
        """Return the partitions that need attention, as many as are shown."""
        troubled = [
            one for one in self.partitions if one.is_under_replicated or one.is_under_min_isr
        ]
        if not troubled:
            return []
        rows = [
            [
                one.topic,
                str(one.partition),
                _cell(one.leader),
                _nodes(one.replicas),
                _nodes(one.isr),
                str(one.min_isr),
            ]
            for one in troubled[:_SHOWN_MAX]
        ]
        if len(troubled) > _SHOWN_MAX:
            rows.append([f"… and {len(troubled) - _SHOWN_MAX} more", "", "", "", "", ""])
        return [["topic", "partition", "leader", "replicas", "isr", "min isr"], *rows]

    def __repr__(self) -> str:
        lines = [self._head()]
        for table in (self._broker_table(), self._partition_table()):
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines += [
                "  ".join(
                    text.ljust(width) for text, width in zip(row, widths, strict=True)
                ).rstrip()
                for row in table
            ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        tables = (self._broker_table(), self._partition_table())
        return (
            f"<div><p>{escape(self._head())}</p>" + "".join(_html(one) for one in tables) + "</div>"
        )


def _html(table: list[list[str]]) -> str:
    if not table:
        return ""

    def row(cells: Iterable[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(one)}</{tag}>" for one in cells) + "</tr>"

    body = "".join(row(cells, "td") for cells in table[1:])
    return f"<table><thead>{row(table[0], 'th')}</thead><tbody>{body}</tbody></table>"


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _nodes(nodes: list[int]) -> str:
    return ", ".join(map(str, nodes)) or "-"
