"""What a program does with a consumer: take what comes, move in the log, commit, and close."""

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
from ottla._closing import AsyncClosing
from ottla._offsets import commits, ends, of_resume
from ottla._progress import is_open_ended, set_note, set_total
from ottla._progress import start as start_progress
from ottla.errors import DataLossError, DecodeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import timedelta
    from types import TracebackType

    from typing_extensions import Self

    from ottla._connection import Connection
    from ottla._offsets import Offsets, Resume
    from ottla._ottla import Consumer as _NativeConsumer
    from ottla._ottla import Pending, RecordBatch
    from ottla._progress import Progress

    Listener = Callable[[list[tuple[str, int]]], object]
    _Change = tuple[str, list[tuple[str, int]], str]
    _Polled = tuple[int, RecordBatch | _Change | None]

__all__ = ["CHANGES", "Reader"]

#: The kinds of changes of an assignment, and how the arguments call them.
CHANGES = {"assigned": "assign", "revoked": "revoke", "lost": "lost"}

#: Seconds that ``close`` waits for the group at most.
_CLOSE_SECONDS = 30.0


class Reader(AsyncClosing):
    """A consumer apart from how it is made; see :class:`Consumer`."""

    def __init__(
        self,
        native: _NativeConsumer,
        connection: Connection,
        *,
        owns_connection: bool,
        group_id: str | None,
        listeners: Mapping[str, Listener | None],
        resume: Resume | None,
        progress: Any,
        until: str | None,
        limit: Limit,
    ) -> None:
        self._native = native
        #: The connection lives as long as its consumers, and ends with the one that opened it.
        self._connection = connection
        self._owns_connection = owns_connection
        self.group_id = group_id
        self._listeners = listeners
        #: The offsets to go on from, by partition, where the group's do not count.
        self._resume = resume
        #: A poll of an event loop that nobody waits for any more; the next one takes its result.
        self._under_way: Pending | None = None
        self._auto_commit = False
        self._progress = self._start_progress(progress, until, limit)

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
        self._native.seek(native_bound(to, "earliest", "start", name="to"), topic, seconds(timeout))

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
        return self._native.commit(commits(what), seconds(timeout))

    def commit_async(self, what: RecordBatch | Offsets | None = None) -> Pending:
        """Commit as :meth:`commit` does, without waiting.

        Returns
        -------
        Pending
            ``await`` it, or call its ``result(timeout)``, for what was committed.
        """
        return self._native.commit_async(commits(what))

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
            if self._owns_connection:
                self._connection.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> RecordBatch:
        batch = self.poll(None)
        if batch is None:
            raise StopIteration
        return batch

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What failed is not finished: an auto-commit leaves it to whoever reads next.
        self._close(_CLOSE_SECONDS, failed=kind is not None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> RecordBatch:
        batch = await self._poll_async()
        if batch is None:
            raise StopAsyncIteration
        return batch

    def __repr__(self) -> str:
        group = "" if self.group_id is None else f" of group {self.group_id!r}"
        parts = ", ".join(f"{topic}-{partition}" for topic, partition in self.assignment[:8])
        more = len(self.assignment) - 8
        parts = f"{parts}{f' and {more} more' if more > 0 else ''}"
        return f"<ottla.Consumer{group}{f' {parts}' if parts else ''}>"


def _refuse_awaitable(kind: str, answer: object) -> None:
    if not inspect.isawaitable(answer):
        return
    if inspect.iscoroutine(answer):
        answer.close()
    raise TypeError(
        f"on_{CHANGES[kind]} returned an awaitable: iterate with `async for`, or pass a plain "
        "function"
    )
