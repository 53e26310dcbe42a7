"""The groups of a cluster: their members, their offsets and lag, and resetting them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any, Union

from ottla._aio import in_thread
from ottla._arguments import whole_number
from ottla._bounds import (
    Limit,
    has_ranges,
    is_by_topic,
    native_bound,
    refusal_of_ranges,
    seconds,
)
from ottla._frames import html_table
from ottla._names import partition_numbers, topic_name, topic_names
from ottla._offsets import ends
from ottla.errors import ConfigError, KafkaError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date, datetime, timedelta

    import pandas as pd

    from ottla._connection import Connection, Timeout
    from ottla.typing import GroupProtocol

__all__ = ["Group", "GroupDescription", "GroupMember", "GroupPartition", "Groups"]

#: How long something waits that only shows what is there, in seconds, and how many groups it shows.
_GLANCE_SECONDS = 3.0
_SHOWN_MAX = 20

#: A scope: a topic, several topics, or the partitions of each.
Topics = Union[str, Sequence[str], Mapping[str, Iterable[int]]]  # noqa: UP007 (read by Python 3.10)


@dataclass(frozen=True)
class Group:
    """A group in a list.

    Parameters
    ----------
    group_id : str
        The name.
    state : str
        The state, as Kafka names it: Stable, Empty, PreparingRebalance …
    type : str
        classic or consumer.
    protocol_type : str
        ``consumer``; empty for a group that only has offsets.
    coordinator : int
        The broker that coordinates it.
    """

    group_id: str
    state: str
    type: str
    protocol_type: str
    coordinator: int


@dataclass(frozen=True)
class GroupMember:
    """A member of a group.

    Parameters
    ----------
    member_id, client_id, host : str
        The id that the coordinator gave it, the id that it gave itself, and its address.
    instance_id : str or None
        The name of a static member.
    rack : str or None
        Its rack, if it gave one.
    epoch : int or None
        Its epoch, in a group of the consumer protocol.
    topics : list of str
        The topics that it subscribed to.
    pattern : str or None
        The pattern that it subscribed with.
    assignment : list of (str, int)
        Its partitions.
    """

    member_id: str
    client_id: str
    host: str
    instance_id: str | None = None
    rack: str | None = None
    epoch: int | None = None
    topics: list[str] = field(default_factory=list)
    pattern: str | None = None
    assignment: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True)
class GroupPartition:
    """The progress of a group in a partition.

    Parameters
    ----------
    topic, partition : str, int
        The partition.
    committed_offset : int or None
        The committed offset of the group.
    log_end_offset : int
        One past the last record.
    lag : int or None
        How many offsets are left to read; ``None`` where nothing is committed, unless the
        partition never had a record.
    member_id, client_id, host : str or None
        The member to which it is assigned.
    metadata : str or None
        The metadata committed with the offset.
    """

    topic: str
    partition: int
    committed_offset: int | None
    log_end_offset: int
    lag: int | None
    member_id: str | None = None
    client_id: str | None = None
    host: str | None = None
    metadata: str | None = None


#: ``list`` is a method of :class:`Groups`.
Listing = list[Group]
Texts = list[str]

_COLUMNS = ("topic", "partition", "committed_offset", "log_end_offset", "lag", "client_id", "host")


@dataclass(frozen=True, repr=False)
class GroupDescription:
    """A group with its members and partitions; a table in a notebook.

    Parameters
    ----------
    group_id, state, type : str
        As in a :class:`Group`.
    assignor : str
        The assignor in use; empty when there is none.
    epoch : int or None
        The epoch of a group of the consumer protocol.
    coordinator : int
        The broker that coordinates it.
    members : list of GroupMember
        Its members.
    partitions : list of GroupPartition
        Those with a committed offset and those assigned to a member.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     _ = kafka.send("words", "one")
    ...     _ = kafka.groups.reset("etl", "words", "earliest")
    ...     group = kafka.groups["etl"]
    >>> group.lag, group.to_pylist()[0]["committed_offset"]
    (1, 0)
    >>> group.to_pandas()["log_end_offset"].tolist()
    [1]
    """

    group_id: str
    state: str
    type: str
    assignor: str
    epoch: int | None
    coordinator: int
    members: list[GroupMember]
    partitions: list[GroupPartition]

    @property
    def lag(self) -> int | None:
        """How many offsets are left to read in all partitions together.

        ``None`` when it is unknown: when a partition that has had records has no committed offset,
        or when nothing is committed or assigned at all. Where the group would begin is for its
        members to decide (``auto_offset_reset``).
        """
        lags = [one.lag for one in self.partitions]
        known = [lag for lag in lags if lag is not None]
        return sum(known) if lags and len(known) == len(lags) else None

    def to_pylist(self) -> list[dict[str, Any]]:
        """Return the partitions as a list of dictionaries."""
        return [dict(vars(one)) for one in self.partitions]

    def to_pandas(self) -> pd.DataFrame:
        """Return the partitions as a ``pandas.DataFrame``."""
        import pandas as pd

        return pd.DataFrame(self.to_pylist(), columns=list(GroupPartition.__dataclass_fields__))

    def _head(self) -> str:
        parts = [self.group_id, self.state, self.type, self.assignor]
        count = f"{len(self.members)} member{'' if len(self.members) == 1 else 's'}"
        return "  ".join([*(part for part in parts if part), count, f"lag {_cell(self.lag)}"])

    def _table(self) -> list[list[str]]:
        return [[_cell(getattr(one, name)) for name in _COLUMNS] for one in self.partitions]

    def __repr__(self) -> str:
        rows = [list(_COLUMNS), *self._table()]
        widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([self._head(), *lines])

    def _repr_html_(self) -> str:
        def row(cells: Iterable[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{escape(one)}</{tag}>" for one in cells) + "</tr>"

        body = "".join(row(cells, "td") for cells in self._table())
        return (
            f"<div><p>{escape(self._head())}</p><table><thead>{row(_COLUMNS, 'th')}</thead>"
            f"<tbody>{body}</tbody></table></div>"
        )


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


class Groups:
    """The groups of a cluster; ``client.groups``.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     kafka.groups.reset("etl", "words", "latest")
    ...     [group.group_id for group in kafka.groups.list()]
    ...     kafka.groups["etl"].lag
    {'words': {0: (None, 1)}}
    ['etl']
    0

    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     _ = kafka.groups.reset("etl", "words", "latest")
    ...     kafka.groups.describe("etl").state
    ...     kafka.groups.delete_offsets("etl", "words")
    ...     kafka.groups.delete("etl")
    ...     "etl" in kafka.groups
    'Empty'
    False

    >>> import asyncio
    >>> async def twins(groups):
    ...     await groups.reset_async("etl", "words", "earliest")
    ...     print([group.group_id for group in await groups.list_async()])
    ...     print((await groups.describe_async("etl")).lag)
    ...     await groups.delete_offsets_async("etl", "words")
    ...     await groups.delete_async("etl")
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     _ = kafka.send("words", "one")
    ...     asyncio.run(twins(kafka.groups))
    ['etl']
    1
    """

    def __init__(self, client: Connection) -> None:
        self._client = client
        self._native = client._native.groups()  # noqa: SLF001

    def list(
        self,
        *,
        state: str | None = None,
        type: GroupProtocol | None = None,
        timeout: Timeout = 30.0,
    ) -> Listing:
        """Return the groups, sorted by name.

        Parameters
        ----------
        state : str, optional
            Only groups in this state, for example ``"Empty"``.
        type : {"classic", "consumer"}, optional
            Only groups of this type.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        states = [] if state is None else [state]
        types: Texts = [] if type is None else [type]
        return [Group(**one) for one in self._native.list(states, types, seconds(timeout))]

    def describe(self, group_id: str, *, timeout: Timeout = 30.0) -> GroupDescription:
        """Return the members, offsets and lag of a group.

        Parameters
        ----------
        group_id : str
            The name.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Raises
        ------
        KafkaError
            When there is no such group (``GROUP_ID_NOT_FOUND``).
        """
        described = self._native.describe(group_id, seconds(timeout))
        members = [GroupMember(**one) for one in described.pop("members")]
        partitions = [GroupPartition(**one) for one in described.pop("partitions")]
        return GroupDescription(**described, members=members, partitions=partitions)

    def __getitem__(self, group_id: str) -> GroupDescription:
        return self.describe(group_id)

    def __iter__(self) -> Iterator[Group]:
        return iter(self.list())

    def __contains__(self, group_id: object) -> bool:
        return any(group.group_id == group_id for group in self.list())

    def reset(
        self,
        group_id: str,
        topics: Topics | None = None,
        to: str | int | datetime | date | timedelta | Mapping[int, int] | None = None,
        *,
        shift: int | None = None,
        dry_run: bool = False,
        timeout: Timeout = 30.0,
    ) -> dict[str, dict[int, tuple[int | None, int]]]:
        """Set the committed offsets of a group that has no members.

        Parameters
        ----------
        group_id : str
            The group; it is created when it does not exist.
        topics : str, sequence of str, or mapping of str to iterable of int, optional
            The topics, or the partitions of each; by default all for which the group has offsets.
        to : str, int, datetime.datetime, datetime.timedelta or mapping of int to int
            "earliest", "latest", "current" (moved to the nearest end of the log where the records
            are gone), an offset, a time (the first record at or after it; UTC when it has no zone),
            a negative timedelta (from now), offsets by partition, or a checkpoint: offsets by topic
            and partition. Partitions of its topics that a checkpoint does not name were added since
            and are set to their beginning. Offsets outside a log are moved to its nearest end.
        shift : int, optional
            Move by this many offsets: forward, or back when negative; instead of ``to``.
        dry_run : bool, default False
            Return what would change, without changing it.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict of str to dict of int to (int or None, int)
            The old and the new offset, by topic and partition.

        Raises
        ------
        KafkaError
            While the group has members (``NON_EMPTY_GROUP``): stop them first.
        """
        limit = Limit(timeout)
        plan = []
        for scope, aim in _plans(_scope(topics), to, shift):
            plan += self._native.plan(group_id, scope, aim, limit.left())
        changes: dict[str, dict[int, tuple[int | None, int]]] = {}
        for topic, partition, old, new in plan:
            changes.setdefault(topic, {})[partition] = (old, new)
        if not dry_run:
            wanted = {
                topic: {one: new for one, (_, new) in offsets.items()}
                for topic, offsets in changes.items()
            }
            self._native.reset(group_id, wanted, limit.left())
        return changes

    def delete(self, group_id: str, *, timeout: Timeout = 30.0) -> None:
        """Delete a group and its offsets.

        Parameters
        ----------
        group_id : str
            The group.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Raises
        ------
        KafkaError
            While it has members (``NON_EMPTY_GROUP``), or when there is no such group.
        """
        self._native.delete(group_id, seconds(timeout))

    def delete_offsets(
        self,
        group_id: str,
        topic: str,
        partitions: Iterable[int] | None = None,
        *,
        timeout: Timeout = 30.0,
    ) -> None:
        """Delete committed offsets of a group.

        Parameters
        ----------
        group_id : str
            The group.
        topic : str
            The topic; no member may be consuming it.
        partitions : iterable of int, optional
            The partitions; all by default.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        chosen = None if partitions is None else {*partition_numbers(partitions)}
        self._native.delete_offsets(group_id, topic, chosen, seconds(timeout))

    list_async = in_thread(list)  # noqa: A003 (the method above)
    describe_async = in_thread(describe)
    reset_async = in_thread(reset)
    delete_async = in_thread(delete)
    delete_offsets_async = in_thread(delete_offsets)

    def _ipython_key_completions_(self) -> Texts:
        """Return what a notebook offers after ``groups["``."""
        try:
            return [group.group_id for group in self.list(timeout=_GLANCE_SECONDS)]
        except KafkaError:
            return []

    def _repr_html_(self) -> str:
        address = self._client.bootstrap_servers
        try:
            found = self.list(timeout=_GLANCE_SECONDS)
        except KafkaError as error:
            return html_table(["groups of", "state"], [[address, error]])
        names = list(Group.__dataclass_fields__)
        rows = [[getattr(one, name) for name in names] for one in found]
        return html_table(names, rows, f"{len(found):,} groups of {address}", most=_SHOWN_MAX)

    def __repr__(self) -> str:
        return f"<ottla.Groups of {self._client.bootstrap_servers}>"


def _scope(topics: Topics | None) -> dict[str, set[int] | None]:
    if topics is None:
        return {}
    if isinstance(topics, Mapping):
        return {
            topic_name(topic): {*partition_numbers(chosen, f"the value of {topic!r}")}
            for topic, chosen in topics.items()
        }
    return dict.fromkeys(topic_names(topics))


def _plans(
    scope: dict[str, set[int] | None], to: Any, shift: int | None
) -> list[tuple[dict[str, set[int] | None], tuple[str, Any]]]:
    """Return the offsets to set, by topic, as far as they are in the scope."""
    if not isinstance(to, Mapping) or not is_by_topic(to):
        return [(scope, _aim(to, shift))]
    if has_ranges(to):
        raise refusal_of_ranges("to")
    found: list[tuple[dict[str, set[int] | None], tuple[str, Any]]] = []
    for topic, offsets in ends(to).items():
        within = scope.get(topic) if scope else None
        if scope and topic not in scope:
            continue
        named = {one: at for one, at in offsets.items() if within is None or one in within}
        # The others were added since; later entries take precedence.
        found.append(({topic: within}, ("earliest", None)))
        found.append(({topic: set(named)}, _aim(named, shift)))
    return found


def _aim(to: Any, shift: int | None) -> tuple[str, Any]:
    if (to is None) == (shift is None):
        raise ConfigError("pass either to= or shift=")
    if shift is not None:
        return ("shift", whole_number("shift", shift))
    if isinstance(to, bool):
        raise TypeError(f"to={to!r} is no offset: pass an integer, a time, 'earliest' or 'latest'")
    if hasattr(to, "__index__"):
        return ("offset", int(to.__index__()))
    if to == "current":
        return ("current", None)
    return native_bound(to, "earliest", "start", name="to")
