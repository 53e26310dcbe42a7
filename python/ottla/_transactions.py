"""Transactions: records and the offsets of a group that all become visible, or none of them."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

from ottla._aio import in_thread
from ottla._bounds import Limit, seconds
from ottla._closing import AsyncClosing
from ottla._offsets import spans
from ottla._writing import Writing
from ottla.errors import (
    CommitUnknownError,
    ConfigError,
    FencedError,
    KafkaError,
    TransactionAbortedError,
    TransactionError,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping
    from datetime import datetime, timedelta
    from types import TracebackType

    from typing_extensions import Self

    from ottla._connection import Timeout
    from ottla._ottla import Pending, RecordBatch
    from ottla._ottla import TransactionalProducer as _Native
    from ottla._reader import Reader
    from ottla._records import Headers, Key
    from ottla.formats import Format, Header
    from ottla.typing import CompressionType, FormatName

    #: What is waited for, one after the other, in a thread or in an event loop.
    Steps = Generator[Pending, Any, None]

__all__ = ["Transacting", "Transaction", "TransactionalProducer"]

_log = logging.getLogger("ottla.client")


def _wait(steps: Steps) -> None:
    """Wait for each step in this thread."""
    try:
        pending = next(steps)
        while True:
            try:
                result = pending.result()
            except BaseException as error:  # noqa: BLE001, PERF203 (the steps decide)
                pending = steps.throw(error)
            else:
                pending = steps.send(result)
    except StopIteration:
        return


async def _wait_async(steps: Steps) -> None:
    """Wait for each step in the event loop."""
    try:
        pending = next(steps)
        while True:
            try:
                result = await pending
            except BaseException as error:  # noqa: BLE001, PERF203 (the steps decide)
                pending = steps.throw(error)
            else:
                pending = steps.send(result)
    except StopIteration:
        return


class Transacting(Writing):
    """The part of a :class:`Client` that makes transactional producers."""

    def transactional(
        self,
        transactional_id: str,
        *,
        transaction_timeout: Timeout = None,
        compression_type: CompressionType | None = None,
        timeout: Timeout = 60.0,
    ) -> TransactionalProducer:
        """Return a producer whose records become visible by transactions: all of one, or none.

        Parameters
        ----------
        transactional_id : str
            Who the producer is, also after a restart of the program: what an earlier producer of
            this id left open is aborted, and the earlier one is fenced. Two programs that run side
            by side need two ids.
        transaction_timeout : float or datetime.timedelta, default 60
            How long a transaction may stay open, in seconds, before its coordinator aborts it
            (``transaction.timeout.ms``); brokers allow 15 minutes at most
            (``transaction.max.timeout.ms``).
        compression_type : {"none", "gzip", "snappy", "lz4", "zstd"}, optional
            The codec; by default the client's setting.
        timeout : float or datetime.timedelta, default 60
            How long each step of a transaction (beginning, offsets, commit, abort) may take to
            reach its coordinator and be answered, in seconds (``max.block.ms``).

        Returns
        -------
        TransactionalProducer
            Use it in a ``with`` or ``async with`` block. It takes over its id in the background at
            once, since a group waits for the end of what an earlier one left open; the first
            transaction waits for that, does it again where it failed, each up to ``timeout``, and
            raises its errors.

        Examples
        --------
        Copy a topic into another, so that each record arrives exactly once:

        >>> import ottla, polars as pl
        >>> with ottla.Broker() as broker, broker.client() as kafka:
        ...     _ = kafka.write("orders", [{"id": 1, "amount": 5}])
        ...     consumer = kafka.consumer(
        ...         "orders", group_id="enrich", value="json", until="caught_up"
        ...     )
        ...     with consumer, kafka.transactional("enrich-1") as producer:
        ...         for batch in consumer:
        ...             enriched = batch.to_polars().select("id", gross=pl.col("amount") * 2)
        ...             with producer.transaction(consumer=consumer, batch=batch) as tx:
        ...                 _ = tx.write("enriched", enriched, key="id")
        ...     kafka.scan("enriched", value=ottla.text(), columns=["value"]).head().to_pylist()
        [{'value': '{"id":1,"gross":10}'}]
        """
        native = self._native.transactional(
            transactional_id, seconds(transaction_timeout), seconds(timeout), compression_type
        )
        return TransactionalProducer(self, native)


class TransactionalProducer(AsyncClosing):
    """A producer of transactions, one at a time; made by ``client.transactional``.

    A transaction belongs to one thread, or to one task of an event loop. Closing the producer, or
    its client, aborts a transaction that is open.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     producer = kafka.transactional("books-1")
    ...     with producer.transaction() as tx:
    ...         _ = tx.send("accounts", "-5", key="ada")
    ...         _ = tx.send("accounts", "+5", key="bob")
    ...     producer.transactional_id, kafka.scan("accounts").count()
    ...     producer.close()
    ...     producer.closed
    ('books-1', 2)
    True
    """

    def __init__(self, connection: Writing, native: _Native) -> None:
        self._connection = connection
        self._native = native
        #: A transaction of a consumer whose outcome nobody knows yet.
        self._unsettled: Transaction | None = None
        #: Whether nobody waited for the end of the last step.
        self._interrupted = False
        connection._members.add(self)  # noqa: SLF001

    @property
    def transactional_id(self) -> str:
        """Who the producer is."""
        return self._native.transactional_id

    @property
    def closed(self) -> bool:
        """Whether the producer was closed."""
        return self._native.closed

    def transaction(
        self, *, consumer: Reader | None = None, batch: RecordBatch | None = None
    ) -> Transaction:
        """Return a transaction, for a ``with`` or ``async with`` block.

        At the end of the block it is committed. An exception in the block, or on the way to the
        commit, aborts it, and puts ``consumer`` back to the beginning of ``batch``.

        Parameters
        ----------
        consumer : Consumer, optional
            A member of a group, without ``auto_commit``: the group's offsets move behind ``batch``
            with the transaction, and only with it. A member that lost a partition of the batch is
            refused.
        batch : RecordBatch, optional
            The batch of that consumer that the transaction deals with; together with ``consumer``.

        Returns
        -------
        Transaction
            With ``write`` and ``send``.

        Raises
        ------
        FencedError
            When another producer has taken over the id, or the transaction took longer than
            ``transaction_timeout``: stop the other one, or choose another id, or a longer timeout.
        TransactionAbortedError
            From the end of the block, when it could not be committed and was aborted; its
            ``__cause__`` says why. Nothing of it is visible, and the consumer is back before it:
            go on with the loop to do the work again. From the beginning of a block: this became of
            the transaction before, of which nobody knew.
        CommitUnknownError
            From the end of the block, when the commit was not answered within ``timeout``, and
            nobody can say whether it took effect. The next transaction finds out first.
        """
        return Transaction(self, consumer, batch)

    def _settle(self) -> Steps:
        """Find out what became of a transaction before; its consumer goes on accordingly."""
        left = self._unsettled
        consumer = None if left is None else left._reader()  # noqa: SLF001
        if left is not None and consumer is not None:
            committed = yield left._ask(consumer)  # noqa: SLF001
            self._unsettled = None
            if not left._was_committed(committed):  # noqa: SLF001
                left._rewind()  # noqa: SLF001
                raise TransactionAbortedError(
                    f"transactional id {self.transactional_id}: a commit was not answered, and the "
                    "transaction has been aborted since: nothing of it is visible, and the "
                    "consumer is back before its batch; go on with the loop to do the work again",
                    code=120,
                    name="TRANSACTION_ABORTABLE",
                )
        elif self._interrupted:
            yield self._native.abort()
        self._unsettled, self._interrupted = None, False

    def close(self, timeout: float | timedelta | None = 60.0) -> None:
        """Abort an open transaction, and stop; a second call does nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long to wait for the abort, in seconds. What could not be aborted is aborted by the
            next producer of the same id, or after its timeout.
        """
        self._close(seconds(timeout), failed=False)

    def _close(self, timeout: float | None, *, failed: bool) -> None:  # noqa: ARG002 (as consumers)
        self._native.close(timeout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close()
        except KafkaError as failed:
            # What ended the block says more.
            _log.warning("%s", failed)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<ottla.TransactionalProducer {state}{self.transactional_id!r}>"


class Transaction:
    """Records, and the offsets of a batch, that become visible together; for one ``with`` block.

    Made by :meth:`TransactionalProducer.transaction`.

    Examples
    --------
    >>> import asyncio, ottla
    >>> async def both(kafka):
    ...     async with kafka.transactional("books-1") as producer, producer.transaction() as tx:
    ...         written = tx.write("orders", [{"id": 1}])
    ...         written += await tx.write_async("orders", [{"id": 2}])
    ...         await tx.send("orders", {"id": 3})
    ...     return written
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     asyncio.run(both(kafka)), kafka.scan("orders").count()
    (2, 3)
    """

    def __init__(
        self, producer: TransactionalProducer, consumer: Reader | None, batch: RecordBatch | None
    ) -> None:
        if (consumer is None) != (batch is None):
            raise ConfigError(
                "consumer= and batch= go together: the offsets of the batch become part of the "
                "transaction, in the name of the consumer"
            )
        if consumer is not None and consumer.group_id is None:
            raise ConfigError(
                "the consumer of a transaction must be a member of a group, which keeps the "
                "offsets: make it with group_id=…"
            )
        if consumer is not None and consumer._auto_commit:  # noqa: SLF001
            raise ConfigError(
                "the consumer has auto_commit=True, which would commit its offsets whether or not "
                "the transaction is committed: make it without"
            )
        self._producer = producer
        self._native = producer._native  # noqa: SLF001
        self._connection = producer._connection  # noqa: SLF001
        self._consumer = consumer
        self._spans = {} if batch is None else spans(batch.offsets)
        #: "new", "open" or "ended".
        self._state = "new"

    # --- what it consists of --------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Key = None,
        partition: int | None = None,
        timestamp: datetime | str | None = None,
        headers: Headers = None,
        value_format: Format | FormatName | None = None,
    ) -> Pending:
        """Send one record; the commit waits for it, and fails if it failed.

        The arguments are those of ``client.send``. Blocks only while ``buffer.memory`` is full.

        Returns
        -------
        Pending
            ``await`` it, or call its ``result(timeout)``, for the :class:`RecordMetadata`: where
            the record is, and will be seen once the transaction is committed.
        """
        self._check_open()
        limit = Limit(120.0)
        connection = self._connection
        encoded = connection._value(topic, value, value_format, limit.left())  # noqa: SLF001
        return connection._send(  # noqa: SLF001
            topic,
            encoded,
            key,
            partition,
            timestamp,
            headers,
            hurry=False,
            limit=limit,
            through=self._native,
        )

    def write(
        self,
        topic: str,
        data: Any,
        *,
        key: str | None = None,
        partition: str | int | None = None,
        timestamp: str | None = None,
        headers: str | Mapping[str, str] | Iterable[Header] | None = None,
        value: Format | FormatName | None = None,
        progress: Any = False,
        timeout: Timeout = None,
    ) -> int:
        """Write a table, one record per row; the arguments are those of ``client.write``.

        Returns
        -------
        int
            The number of records, which will be seen once the transaction is committed.
        """
        self._check_open()
        options = {
            "key": key,
            "partition": partition,
            "timestamp": timestamp,
            "headers": headers,
            "value": value,
            "acks": None,
            "compression_type": None,
            "progress": progress,
            "timeout": timeout,
        }
        return self._connection._write(topic, data, options, self._native)  # noqa: SLF001

    write_async = in_thread(write)

    def _check_open(self) -> None:
        if self._state != "open":
            raise TransactionError(
                "the transaction is not open: use it within its own `with` block"
            )

    # --- how it begins and ends -----------------------------------------------------------------

    def _begin(self) -> Steps:
        if self._state != "new":
            raise TransactionError("a transaction is used once: call transaction() for each block")
        yield from self._producer._settle()  # noqa: SLF001
        try:
            yield self._native.begin()
        except KafkaError:
            raise
        except BaseException:
            self._producer._interrupted = True  # noqa: SLF001
            raise
        self._state = "open"

    def _end(self, error: BaseException | None) -> Steps:
        self._state = "ended"
        if error is not None:
            yield from self._give_up()
            return
        try:
            if self._consumer is not None:
                yield self._native.send_offsets(self._consumer._native, self._ends())  # noqa: SLF001
            yield self._native.commit()
        except CommitUnknownError as unknown:
            if self._consumer is None:
                raise
            # The group's offsets tell, as they move with the transaction.
            self._producer._unsettled = self  # noqa: SLF001
            try:
                yield from self._producer._settle()  # noqa: SLF001
            except TransactionAbortedError:
                raise
            except KafkaError:
                raise unknown from unknown.__cause__
        except KafkaError as refused:
            # Who was replaced cannot tell by itself how its last transaction ended.
            yield from self._give_up(in_doubt=isinstance(refused, FencedError))
            raise
        except BaseException:
            # Nobody waits any more, but the commit goes on.
            self._producer._interrupted = True  # noqa: SLF001
            if self._consumer is not None:
                self._producer._unsettled = self  # noqa: SLF001
            raise

    def _give_up(self, *, in_doubt: bool = False) -> Steps:
        """Abort, and put the consumer back. What is raised says more than why that failed."""
        try:
            yield self._native.abort()
        except KafkaError as failed:
            _log.debug("%s", failed)
        except BaseException:
            self._producer._interrupted = True  # noqa: SLF001
            self._rewind()
            raise
        consumer = self._reader()
        if in_doubt and consumer is not None:
            with contextlib.suppress(KafkaError):
                committed = yield self._ask(consumer)
                if self._was_committed(committed):
                    return
        self._rewind()

    def _ends(self) -> dict[str, dict[int, int]]:
        return {
            topic: {partition: end for partition, (_, end) in partitions.items()}
            for topic, partitions in self._spans.items()
        }

    def _rewind(self) -> None:
        """Put the consumer back to the beginning of the batch, in the partitions it still has."""
        if self._consumer is None or self._consumer.closed:
            return
        for topic, partitions in self._spans.items():
            for partition, (start, _) in partitions.items():
                # One that was revoked just now is read by its next owner from the last commit.
                with contextlib.suppress(ConfigError):
                    self._consumer.seek({topic: {partition: start}})

    # --- a commit that was not answered ---------------------------------------------------------

    def _reader(self) -> Reader | None:
        """Return the consumer that has to know how it ended: another one will ask the group."""
        return None if self._consumer is None or self._consumer.closed else self._consumer

    def _ask(self, consumer: Reader) -> Pending:
        """Ask what the group has, once the transaction has ended."""
        partitions = [(topic, one) for topic, of_topic in self._spans.items() for one in of_topic]
        return self._native.settle(consumer._native, partitions)  # noqa: SLF001

    def _was_committed(self, committed: Mapping[str, Mapping[int, int]]) -> bool:
        """Whether the group has the offsets of the batch, and not those before it."""
        return all(
            committed.get(topic, {}).get(partition, -1) >= end
            for topic, partitions in self._ends().items()
            for partition, end in partitions.items()
        )

    # --- blocks ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        _wait(self._begin())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _wait(self._end(error))

    async def __aenter__(self) -> Self:
        await _wait_async(self._begin())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await _wait_async(self._end(error))

    def __repr__(self) -> str:
        return f"<ottla.Transaction of {self._producer.transactional_id!r}: {self._state}>"
