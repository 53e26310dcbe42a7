"""Consumers of assigned partitions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla._bounds import Bound, native_bound, seconds
from ottla._progress import start as start_progress

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import timedelta
    from types import TracebackType

    from ottla._client import Client
    from ottla._ottla import RecordBatch
    from ottla._progress import Progress

__all__ = ["Consumer"]

#: The arguments of ``client.consumer``; all others are settings of the connection.
_READING = frozenset(
    {
        "start",
        "resume",
        "partitions",
        "value",
        "columns",
        "until",
        "max_rows",
        "max_bytes",
        "max_wait",
        "memory_limit",
        "on_error",
        "isolation_level",
        "on_data_loss",
        "string_view",
        "progress",
        "group_id",
        "auto_offset_reset",
        "timeout",
    }
)


class Consumer:
    """A live reader of assigned partitions; made by ``client.consumer``, or on its own.

    Iterating waits for records without end, or until it has caught up when made with
    ``until="caught_up"``. Ctrl-C ends the wait. Not thread-safe: one thread polls.

    Parameters
    ----------
    topics : str, sequence of str, or mapping of str to iterable of int
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
        topics: str | Sequence[str] | Mapping[str, Iterable[int]],
        bootstrap_servers: str | Sequence[str] | Client | None = None,
        **options: Any,
    ) -> None:
        from ottla._client import Client, connect

        own = not isinstance(bootstrap_servers, Client)
        if isinstance(bootstrap_servers, Client):
            client = bootstrap_servers
            reading = options
        else:
            reading = {name: options.pop(name) for name in _READING & options.keys()}
            client = connect(bootstrap_servers, **options)
        self._client = client if own else None
        progress = reading.pop("progress", False)
        self._native = client._consume(topics, **reading)  # noqa: SLF001
        self._progress = self._start_progress(progress, reading.get("until"))

    def _start_progress(self, progress: Any, until: str | None) -> Progress:
        total = None
        if progress and until is not None:
            total = sum(sum(lags.values()) for lags in self._native.lag(None).values())
        names = ", ".join(sorted({topic for topic, _ in self.assignment}))
        return start_progress(progress, total, f"consume {names}")

    def _show(self, batch: RecordBatch | None) -> RecordBatch | None:
        if batch is not None:
            self._progress.update(batch.num_rows)
        return batch

    @property
    def assignment(self) -> list[tuple[str, int]]:
        """The partitions that are read, as (topic, partition)."""
        return self._native.assignment

    def poll(self, timeout: float | timedelta | None = 1.0) -> RecordBatch | None:
        """Return the next batch, or ``None`` when there is none within the timeout.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 1
            How long to wait for the first row, in seconds; ``None`` waits for ever.
        """
        return self._show(self._native.poll(seconds(timeout)))

    def seek(self, to: Bound, *, topic: str | None = None, timeout: float | None = 30.0) -> None:
        """Go on reading from another place.

        Parameters
        ----------
        to : Bound
            "earliest", "latest", a time, or offsets by partition; see ``client.scan``. Partitions
            that a mapping does not name stay where they are.
        topic : str, optional
            The topic; may be left out when there is only one.
        timeout : float, default 30
            How long to wait for the offsets, in seconds.
        """
        self._native.seek(native_bound(to, "earliest", "start"), topic, timeout)

    def position(self) -> dict[str, dict[int, int]]:
        """Return the offset of the next row, by topic and partition."""
        return self._native.position()

    def pause(self, partitions: Iterable[tuple[str, int]] | None = None) -> None:
        """Stop reading some partitions, or all; they stay assigned."""
        self._native.pause(None if partitions is None else list(partitions))

    def resume(self, partitions: Iterable[tuple[str, int]] | None = None) -> None:
        """Go on reading paused partitions, or all."""
        self._native.resume(None if partitions is None else list(partitions))

    def lag(self, *, timeout: float | None = 30.0) -> dict[str, dict[int, int]]:
        """Return how many offsets lie between the position and the end, by topic and partition."""
        return self._native.lag(timeout)

    @property
    def closed(self) -> bool:
        """Whether the consumer was closed."""
        return self._native.closed

    def close(self) -> None:
        """Stop reading; a second call does nothing."""
        if not self._native.closed:
            self._progress.close()
        self._native.close()
        if self._client is not None:
            self._client.close()

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> RecordBatch:
        while not self._native.caught_up():
            batch = self._show(self._native.poll(None))
            if batch is not None:
                return batch
        raise StopIteration

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __aiter__(self) -> Consumer:
        return self

    async def __anext__(self) -> RecordBatch:
        while not self._native.caught_up():
            batch = self._show(await self._native.poll_async())
            if batch is not None:
                return batch
        raise StopAsyncIteration

    async def __aenter__(self) -> Consumer:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        parts = ", ".join(f"{topic}-{partition}" for topic, partition in self.assignment[:8])
        more = len(self.assignment) - 8
        return f"<ottla.Consumer {parts}{f' and {more} more' if more > 0 else ''}>"
