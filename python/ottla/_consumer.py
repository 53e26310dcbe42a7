"""Consumers: of assigned partitions, and of groups."""

from __future__ import annotations

import contextlib
import inspect
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ottla._bounds import (
    Bound,
    Limit,
    has_ranges,
    is_by_topic,
    native_bound,
    refusal_of_ranges,
    seconds,
)
from ottla._offsets import ends, of_resume, refuse_foreign
from ottla._ottla import RecordBatch
from ottla._progress import is_open_ended, set_note, set_total
from ottla._progress import start as start_progress
from ottla.errors import DataLossError, DecodeError, NotSupportedError

if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Iterable, Sequence
    from datetime import timedelta
    from types import TracebackType

    from ottla._client import Client
    from ottla._offsets import Offsets, Resume
    from ottla._ottla import Pending
    from ottla._progress import Progress

    Listener = Callable[[list[tuple[str, int]]], object]
    _Change = tuple[str, list[tuple[str, int]], str]
    _Polled = tuple[int, RecordBatch | _Change | None]

__all__ = ["Consumer"]

#: The arguments of ``client.consumer`` and their defaults; all others are settings of the
#: connection.
_READING: dict[str, Any] = {
    "start": None,
    "resume": None,
    "partitions": None,
    "value": None,
    "columns": None,
    "until": None,
    "max_rows": 10_000,
    "max_bytes": None,
    "max_wait": 0.5,
    "memory_limit": None,
    "isolation_level": None,
    "on_error": "raise",
    "on_data_loss": "raise",
    "string_view": True,
    "threads": None,
    "progress": False,
    "auto_offset_reset": None,
    "auto_commit": False,
    "auto_commit_interval_ms": None,
    "on_assign": None,
    "on_revoke": None,
    "on_lost": None,
    "group_id": None,
    "group_instance_id": None,
    "group_protocol": None,
    "group_remote_assignor": None,
    "partition_assignment_strategy": None,
    "session_timeout_ms": None,
    "heartbeat_interval_ms": None,
    "max_poll_interval_ms": None,
    "rebalance_timeout_ms": None,
    "timeout": 30.0,
}

#: Seconds that ``close`` waits for the group at most.
_CLOSE_SECONDS = 30.0


class Consumer:
    """A live reader; made by ``client.consumer``, or on its own.

    It reads partitions that are named, or, with ``group_id``, those that its group assigns to it.
    Iterating waits for records without end, or until it has caught up when made with
    ``until="caught_up"``. Ctrl-C ends the wait. Not thread-safe: one thread polls. Heartbeats do
    not depend on it: a loop may take an hour for a batch and keeps its partitions.

    Parameters
    ----------
    topics : str, sequence of str, mapping of str to iterable of int, or re.Pattern
        What to read; see ``client.consumer``.
    bootstrap_servers : str, sequence of str, or Client, optional
        The addresses, or a client to read through; see :func:`ottla.connect`.
    **options
        The other arguments of ``client.consumer`` and, without a client, of
        :func:`ottla.connect`.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     with kafka.consumer("words", start="earliest", until="caught_up") as consumer:
    ...         [batch["value"].to_pylist() for batch in consumer]
    [[b'one']]
    """

    def __init__(
        self,
        topics: str | Sequence[str] | Mapping[str, Iterable[int]] | re.Pattern[str],
        bootstrap_servers: str | Sequence[str] | Client | None = None,
        **options: Any,
    ) -> None:
        from ottla._client import Client, connect

        own = not isinstance(bootstrap_servers, Client)
        if isinstance(bootstrap_servers, Client):
            client = bootstrap_servers
            given = options
        else:
            given = {name: options.pop(name) for name in _READING.keys() & options.keys()}
            client = connect(bootstrap_servers, **options)
        #: The client lives as long as its consumers, and ends with the one that made it.
        self._client = client
        self._owns_client = own
        #: A poll of an event loop that nobody waits for any more; the next one takes its result.
        self._under_way: Pending | None = None
        if given.keys() - _READING.keys():
            unknown = ", ".join(sorted(given.keys() - _READING.keys()))
            raise TypeError(f"a consumer has no argument {unknown}")
        reading = _READING | given
        progress = reading.pop("progress")
        limit = Limit(reading["timeout"])
        heard = {kind: reading.pop(f"on_{name}") for kind, name in _KINDS.items()}
        #: The offsets to go on from, by partition, where the group's do not count.
        self._resume: Resume | None = None
        self.group_id: str | None = reading["group_id"]
        if self.group_id is None:
            for kind, listener in heard.items():
                if listener is not None:
                    raise NotSupportedError(f"on_{_KINDS[kind]}= goes with group_id=")
            self._native = client._consume(topics, **reading)  # noqa: SLF001
        else:
            self._resume = reading.pop("resume")
            if self._resume is not None:
                # A function is asked when partitions come; offsets are looked at now.
                refuse_foreign(of_resume(self._resume), topics, "resume")
            self._native = client._join(topics, resumes=self._resume is not None, **reading)  # noqa: SLF001
            client._members.add(self)  # noqa: SLF001
        if heard["lost"] is None:
            heard["lost"] = heard["revoked"]
        self._listeners: dict[str, Listener | None] = heard
        self._progress = self._start_progress(progress, reading["until"], limit)

    def _start_progress(self, progress: Any, until: str | None, limit: Limit) -> Progress:
        total = None
        #: The rows that were shown, where the end is known and a total may be told.
        self._shown: int | None = None
        #: Whether the total is that of the partitions that are assigned now.
        self._total_holds = False
        if self.group_id is not None:
            shown = start_progress(progress, None, f"consume {self.group_id}")
            if until is not None and is_open_ended(shown):
                self._shown = 0
            return shown
        if progress and until is not None:
            total = sum(sum(lags.values()) for lags in self._native.lag(limit.left()).values())
        names = ", ".join(sorted({topic for topic, _ in self.assignment}))
        return start_progress(progress, total, f"consume {names}")

    # --- what comes -----------------------------------------------------------------------------

    def _hear(self, kind: str, partitions: list[tuple[str, int]]) -> object:
        """Tell the program of a change of the assignment; return what its function returned."""
        listener = self._listeners[kind]
        return None if listener is None else listener(partitions)

    def _place(self, kind: str, partitions: list[tuple[str, int]]) -> None:
        """Set the places of partitions that came."""
        self._total_holds = False
        if kind == "assigned" and self._resume is not None:
            self._go_on(self._resume, partitions)

    def _go_on(self, resume: Resume, partitions: list[tuple[str, int]]) -> None:
        if callable(resume):
            refresh = getattr(resume, "refresh", None)
            if refresh is not None:
                refresh()
            known = of_resume(resume, partitions)
        else:
            # Once: later the group knows better than what was read when the program began.
            offsets = of_resume(resume)
            known = {}
            for topic, partition in partitions:
                offset = offsets.get(topic, {}).get(partition)
                if offset is not None:
                    known.setdefault(topic, {})[partition] = offset
        for topic, of_topic in known.items():
            self._native.seek(("offsets", of_topic), topic, None)
        if not callable(resume):
            self._resume = {
                topic: {one: at for one, at in of_topic.items() if one not in known.get(topic, ())}
                for topic, of_topic in offsets.items()
            }

    def _take(self, timeout: float | None) -> _Polled | None:
        """Return what comes next; what an event loop began to wait for comes first."""
        if self._under_way is None:
            return self._native.poll(timeout)
        with contextlib.suppress(TimeoutError):
            self._under_way.exception(timeout)
        if not self._under_way.done():
            return None
        try:
            polled: _Polled | None = self._under_way.result(0)
        except Exception:
            self._under_way = None
            raise
        self._under_way = None
        return polled

    def poll(self, timeout: float | timedelta | None = 1.0) -> RecordBatch | None:
        """Return the next batch, or ``None`` when there is none within the timeout.

        In a group, each call says that the rows of all earlier batches are finished, and changes of
        the assignment are reported while it waits.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 1
            How long to wait for the first row, in seconds; ``None`` waits forever.
        """
        limit = seconds(timeout)
        started = time.monotonic()
        while True:
            left = None if limit is None else max(0.0, limit - (time.monotonic() - started))
            taken = self._take(left)
            if taken is None:
                return None
            number, polled = taken
            if not self._is_ready(number):
                continue
            if not isinstance(polled, tuple):
                self._show(polled)
                # Last, and without a call behind it: what is interrupted before comes again.
                self._native.handed = number
                return polled
            kind, partitions, words = polled
            if kind == "waiting":
                set_note(self._progress, words)
                self._native.handed = number
                continue
            self._place(kind, partitions)
            try:
                answer = self._hear(kind, partitions)
                _refuse_awaitable(kind, answer)
                self._native.handed = number
            except Exception:
                self._native.handed = number
                raise
            finally:
                self._accept(kind, number)

    async def _poll_async(self) -> RecordBatch | None:
        while True:
            if self._under_way is None:
                self._under_way = self._native.poll_async()
            try:
                # When this is cancelled, the poll goes on; what it finds is not handed out, so
                # that whatever asks for a position, or changes it, gives it back.
                taken: _Polled | None = await self._under_way
            except Exception:
                self._under_way = None
                raise
            self._under_way = None
            if taken is None:
                continue
            number, polled = taken
            if not self._is_ready(number):
                continue
            if not isinstance(polled, tuple):
                self._show(polled)
                self._native.handed = number
                return polled
            kind, partitions, words = polled
            if kind == "waiting":
                set_note(self._progress, words)
                self._native.handed = number
                continue
            self._place(kind, partitions)
            try:
                answer = self._hear(kind, partitions)
                if inspect.isawaitable(answer):
                    await answer
                self._native.handed = number
            except Exception:
                self._native.handed = number
                raise
            finally:
                self._accept(kind, number)

    def _is_ready(self, number: int) -> bool:
        """Say whether what a poll found was not given back since."""
        return self._native.is_ready(number)

    def _accept(self, kind: str, number: int) -> None:
        """Let partitions go that were told to go, whatever the program's function said to it.

        An assignment is told again when its function was interrupted or cancelled: it may not have
        set the places.
        """
        if kind != "assigned":
            self._native.handed = number
        if kind == "revoked" and not self.closed:
            self._native.acknowledge()

    def _moved(self) -> None:
        """Forget what was found out at the place that is left."""
        self._total_holds = False
        if self._under_way is None or not self._under_way.done():
            return
        if isinstance(self._under_way.exception(0), (type(None), DataLossError, DecodeError)):
            self._under_way = None

    def _show(self, batch: RecordBatch | None) -> RecordBatch | None:
        if self._shown is not None:
            self._shown += 0 if batch is None else batch.num_rows
            if not self._total_holds and not self.closed:
                # The ends are pinned, and what lies before them comes and goes with partitions.
                left = self._native.remaining()
                self._total_holds = left is not None
                if left is not None:
                    set_total(self._progress, self._shown + left)
        if batch is not None:
            self._progress.update(batch.num_rows)
        return batch

    # --- places ---------------------------------------------------------------------------------

    @property
    def assignment(self) -> list[tuple[str, int]]:
        """The partitions that are read, as (topic, partition); in a group, those it assigned."""
        return self._native.assignment

    def seek(
        self, to: Bound, *, topic: str | None = None, timeout: float | timedelta | None = 30.0
    ) -> None:
        """Go on reading from another place.

        Parameters
        ----------
        to : Bound
            "earliest", "latest", a time, offsets by partition, or a checkpoint such as an earlier
            ``position()``; see ``client.scan``. Partitions that a mapping does not name stay where
            they are. Of a checkpoint only the assigned partitions count; offsets by partition must
            all be for assigned partitions.
        topic : str, optional
            The topic; may be left out when there is only one.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the offsets, in seconds.
        """
        self._moved()
        if isinstance(to, Mapping) and is_by_topic(to):
            if has_ranges(to):
                raise refusal_of_ranges("to")
            checkpoint: Any = to
            limit = Limit(timeout)
            assigned = set(self.assignment)
            for one, offsets in ends(checkpoint).items():
                own = {part: at for part, at in offsets.items() if (one, part) in assigned}
                if own:
                    self._native.seek(("offsets", own), one, limit.left())
            return
        self._native.seek(native_bound(to, "earliest", "start"), topic, seconds(timeout))

    def position(self) -> dict[str, dict[int, int]]:
        """Return the offset of the next row, by topic and partition."""
        return self._native.position()

    def pause(self, partitions: Iterable[tuple[str, int]] | None = None) -> None:
        """Stop reading some partitions, or all; they stay assigned."""
        self._native.pause(None if partitions is None else list(partitions))

    def resume(self, partitions: Iterable[tuple[str, int]] | None = None) -> None:
        """Go on reading paused partitions, or all."""
        self._native.resume(None if partitions is None else list(partitions))

    def lag(self, *, timeout: float | timedelta | None = 30.0) -> dict[str, dict[int, int]]:
        """Return how many offsets lie between the position and the end, by topic and partition."""
        return self._native.lag(seconds(timeout))

    # --- commits --------------------------------------------------------------------------------

    def commit(
        self,
        what: RecordBatch | Offsets | None = None,
        *,
        timeout: float | timedelta | None = 60.0,
    ) -> dict[str, dict[int, int]]:
        """Commit offsets to the group, and wait until it has stored them.

        Parameters
        ----------
        what : RecordBatch or Offsets, optional
            A batch: exactly its rows are done. Offsets by topic and partition: where to go on.
            Nothing: what the loop has finished, which is the rows of all batches *before* the one
            that was handed out last; asking for the next batch is what finishes one, and so does
            the end of the loop. In ``on_revoke`` nothing is left out.
        timeout : float or datetime.timedelta, default 60
            How long to wait, in seconds.

        Returns
        -------
        dict of str to dict of int to int
            What was committed, by topic and partition.

        Raises
        ------
        FencedError
            When a partition is no longer this member's: another one has it, and continues from the
            previous commit. Discard the results of these rows if you can.
        """
        return self._native.commit(_commits(what), seconds(timeout))

    def commit_async(self, what: RecordBatch | Offsets | None = None) -> Pending:
        """Commit as :meth:`commit` does, without waiting.

        Returns
        -------
        Pending
            ``await`` it, or call its ``result(timeout)``, for what was committed.
        """
        return self._native.commit_async(_commits(what))

    def committed(
        self,
        partitions: Iterable[tuple[str, int]] | None = None,
        *,
        timeout: float | timedelta | None = 30.0,
    ) -> dict[str, dict[int, int]]:
        """Return the offsets that the group has, of some partitions or of those assigned here.

        Parameters
        ----------
        partitions : iterable of (str, int), optional
            Any partitions; those that are assigned by default.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict of str to dict of int to int
            By topic and partition; partitions without an offset are left out.
        """
        named = None if partitions is None else list(partitions)
        return self._native.committed(named, seconds(timeout))

    @property
    def member_id(self) -> str:
        """What the group calls this member; empty before it has joined."""
        return self._native.member[1]

    @property
    def generation(self) -> int:
        """The generation of the group, or the member epoch; -1 before it has joined."""
        return self._native.member[2]

    # --- life -----------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the consumer was closed."""
        return self._native.closed

    def close(self, timeout: float | timedelta | None = _CLOSE_SECONDS) -> None:
        """Stop reading and leave the group; a second call does nothing.

        This finishes what was handed out last: with ``auto_commit`` it is committed.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 30
            How long to wait for the group, in seconds.
        """
        self._close(seconds(timeout), failed=False)

    def _close(self, timeout: float | None, *, failed: bool) -> None:
        if not self._native.closed:
            self._progress.close()
        try:
            self._native.close(failed, timeout)
        finally:
            if self._owns_client:
                self._client.close()

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> RecordBatch:
        batch = self.poll(None)
        if batch is None:
            raise StopIteration
        return batch

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What failed is not finished: an auto-commit leaves it to whoever reads next.
        self._close(_CLOSE_SECONDS, failed=kind is not None)

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> RecordBatch:
        batch = await self._poll_async()
        if batch is None:
            raise StopAsyncIteration
        return batch

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio
        from functools import partial

        close = partial(self._close, _CLOSE_SECONDS, failed=kind is not None)
        await asyncio.get_running_loop().run_in_executor(None, close)

    def __repr__(self) -> str:
        group = "" if self.group_id is None else f" of group {self.group_id!r}"
        parts = ", ".join(f"{topic}-{partition}" for topic, partition in self.assignment[:8])
        more = len(self.assignment) - 8
        parts = f"{parts}{f' and {more} more' if more > 0 else ''}"
        return f"<ottla.Consumer{group}{f' {parts}' if parts else ''}>"


#: The kinds of changes of an assignment, and how the arguments call them.
_KINDS = {"assigned": "assign", "revoked": "revoke", "lost": "lost"}


def _refuse_awaitable(kind: str, answer: object) -> None:
    if not inspect.isawaitable(answer):
        return
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(
        f"on_{_KINDS[kind]} returned an awaitable: iterate with `async for`, or pass a plain "
        "function"
    )


def _commits(what: RecordBatch | Offsets | None) -> dict[str, dict[int, int]] | None:
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
