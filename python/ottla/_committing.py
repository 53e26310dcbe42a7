"""Where a scan goes on, and how a group is told how far the work has come.

A scan is no member of its group: the group only keeps offsets for it. Kafka lets anybody set the
offsets of a group without members, so a scan looks before it commits whether they are still those
that it began at. That is no lock; it is for the job that was started twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla._bounds import Limit
from ottla._offsets import commits, delta_txn, of_resume, refuse_foreign
from ottla.errors import ConfigError, FencedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import timedelta

    from ottla._offsets import Offsets, Resume
    from ottla._ottla import Groups as _NativeGroups
    from ottla._ottla import RecordBatch
    from ottla._ottla import Scan as _NativeScan

__all__ = ["Committing", "GroupOffsets", "of_output", "refuse_two_starts"]


class GroupOffsets:
    """The offsets that a group has of a topic: those that a scan begins at, and those it commits.

    Parameters
    ----------
    native : Groups
        The groups of the cluster.
    group_id, topic : str
        The group and the topic.
    partitions : set of int, optional
        The partitions; all by default.
    limit : Limit
        How long to wait.
    """

    def __init__(
        self,
        native: _NativeGroups,
        group_id: str,
        topic: str,
        partitions: set[int] | None,
        limit: Limit,
    ) -> None:
        if not isinstance(group_id, str):
            raise TypeError(f"group_id= takes the name of a group, not {group_id!r}")
        self.group_id = group_id
        self._native = native
        self._topic = topic
        self._partitions = partitions
        self._found = self._read(limit)
        #: What was sent, by partition; that it was not answered does not mean that it was not kept.
        self._sent: dict[int, set[int]] = {}

    @property
    def starts(self) -> dict[int, int]:
        """Where the group was when it was asked; a partition without an offset is left out."""
        return {one: at for one, at in self._found.items() if at is not None}

    def commit(self, offsets: Mapping[int, int], limit: Limit) -> None:
        """Commit offsets, unless somebody else has committed others since."""
        now = self._read(limit)
        for partition in offsets:
            known, before = now.get(partition), self._found.get(partition)
            if known != before and known not in self._sent.get(partition, ()):
                raise FencedError(
                    f"group {self.group_id} had offset {before} for {self._topic}-{partition} when "
                    f"the scan was made, and now has {known}: another run, or a reset, was faster. "
                    "Discard the results of this scan, and make a new one"
                )
        for partition, at in offsets.items():
            self._sent.setdefault(partition, set()).add(at)
        self._native.reset(self.group_id, {self._topic: dict(offsets)}, limit.left())

    def _read(self, limit: Limit) -> dict[int, int | None]:
        scope = {self._topic: self._partitions}
        plan = self._native.plan(self.group_id, scope, ("earliest", None), limit.left())
        return {partition: committed for _topic, partition, committed, _start in plan}


class Committing:
    """What has bounds, and stores them with a group or with its rows."""

    if TYPE_CHECKING:
        _group: GroupOffsets | None

        @property
        def _native(self) -> _NativeScan: ...

        @property
        def topic(self) -> str: ...

        @property
        def offsets(self) -> dict[int, tuple[int, int]]: ...

        @property
        def end(self) -> dict[str, dict[int, int]]: ...

    @property
    def group_id(self) -> str | None:
        """The group whose offsets this scan began at, and that :meth:`commit` commits to."""
        return None if self._group is None else self._group.group_id

    def commit(
        self, what: RecordBatch | Offsets | None = None, *, timeout: float | timedelta | None = 60.0
    ) -> dict[str, dict[int, int]]:
        """Commit offsets to the group of this scan, and wait until it has stored them.

        Do the work first, then commit. A program that dies in between finds the same starts when it
        runs again, and later ends if more has arrived: what it does must replace what it has done,
        for example write a file for each partition, named by the partition and its start. Where
        that is not possible, store the offsets with the results (``resume=``).

        Parameters
        ----------
        what : RecordBatch or Offsets, optional
            A batch: exactly its rows are done, and those before it in its partitions. Offsets by
            topic and partition: where to go on. Nothing: all of the scan, which is :attr:`end`,
            whether it was read or not.
        timeout : float or datetime.timedelta, default 60
            How long to wait, in seconds.

        Returns
        -------
        dict of str to dict of int to int
            What was committed, by topic and partition.

        Raises
        ------
        FencedError
            When the group has other offsets than those that this scan began at: another run of the
            program was faster, or somebody reset the group. Discard the results if you can. Two
            runs that commit at the same moment may both succeed: this is no lock.
        ConfigError
            When the scan was made without ``group_id=``, or the offsets are not within its bounds.
        KafkaError
            While the group has members (``NON_EMPTY_GROUP``).

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("words", "one")
        ...     new = kafka.scan("words", group_id="nightly")
        ...     # … the work …
        ...     new.group_id, new.commit()
        ('nightly', {'words': {0: 1}})
        """
        if self._group is None:
            raise ConfigError(
                "this scan has no group to commit to: make it with group_id=, or store scan.end "
                "with the results"
            )
        limit = Limit(timeout)
        wanted = commits(what)
        offsets = self.end if wanted is None else wanted
        bounds = self._native.bounds
        for topic, partitions in offsets.items():
            for partition, at in partitions.items():
                start, end = bounds.get(partition, (0, -1)) if topic == self.topic else (0, -1)
                if not start <= at <= end:
                    raise ConfigError(
                        f"offset {at} of {topic}-{partition} is not within this scan: {self!r}"
                    )
        self._group.commit(offsets.get(self.topic, {}), limit)
        return offsets

    def delta_txn(self, app: str, *, table: Any = None) -> Any:
        """Return Delta commit properties that store the offsets of this scan with its rows.

        As ``RecordBatch.delta_txn`` does for one batch. ``resume=ottla.delta_offsets(…)`` of the
        next scan goes on behind them.

        Parameters
        ----------
        app : str
            The name of the program.
        table : deltalake.DeltaTable, optional
            The table as it is now: checks that no other run has written these rows.

        Returns
        -------
        deltalake.CommitProperties
            For ``commit_properties=`` of ``write_deltalake``.

        Raises
        ------
        FencedError
            When the table has rows of this scan already.

        Examples
        --------
        >>> import deltalake, ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("orders", {"amount": 3})
        ...     new = kafka.scan("orders", value={"amount": "int64"}, columns=["amount"])
        ...     deltalake.write_deltalake("orders", new, commit_properties=new.delta_txn("nightly"))
        ...     resume = ottla.delta_offsets("orders", "nightly")
        ...     kafka.scan("orders", resume=resume).count()
        0
        """
        return delta_txn({self.topic: self.offsets}, app, table)


def of_output(
    resume: Resume, topic: str, partitions: Callable[[], list[int]]
) -> dict[str, dict[int, int]]:
    """Return the checkpoint that the output of a program gives, as the start of a scan.

    Parameters
    ----------
    resume : Offsets or callable
        What was passed as ``resume=``.
    topic : str
        The topic.
    partitions : callable
        Returns the partitions that a function is asked about.
    """
    if callable(resume):
        refresh = getattr(resume, "refresh", None)
        if refresh is not None:
            refresh()
        found = of_resume(resume, [(topic, partition) for partition in partitions()])
    else:
        found = of_resume(resume)
        refuse_foreign(found, topic, "resume")
    return {topic: found.get(topic, {})}


def refuse_two_starts(start: object, group_id: object, resume: object) -> None:
    """Refuse more than one place to begin at: it would be unclear which one counts."""
    given = {"start": start, "group_id": group_id, "resume": resume}
    named = [f"{name}=" for name, value in given.items() if value is not None]
    if len(named) > 1:
        raise ConfigError(
            f"pass one of {' and '.join(named)}: each says where the scan begins. To move a group, "
            "use client.groups.reset"
        )
