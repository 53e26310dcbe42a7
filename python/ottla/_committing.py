"""Where a scan goes on, and how a group is told how far the work has come.

A scan is no member of its group: the group only keeps offsets for it. Kafka lets anybody set the
offsets of a group without members, so a scan looks before it commits whether they are still those
that it began at. That is no lock; it is for the job that was started twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla._offsets import of_resume, refuse_foreign
from ottla.errors import ConfigError, FencedError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ottla._bounds import Limit
    from ottla._offsets import Resume
    from ottla._ottla import Groups as _NativeGroups

__all__ = ["GroupOffsets", "of_output", "refuse_two_starts"]


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
