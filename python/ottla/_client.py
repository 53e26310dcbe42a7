"""The client: topics, sending, writing tables, scanning, consuming."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from ottla import _exit
from ottla._admin import Administration
from ottla._bounds import Bound, Limit, native_bound, native_bounds, row_count, seconds
from ottla._consumer import Consumer
from ottla._embedded import hosts, refuse
from ottla._membership import group_options, is_pattern, refuse_group_options
from ottla._names import partition_numbers, topic_name, topic_names
from ottla._offsets import Resume, of_resume, refuse_foreign, starts
from ottla._ottla import Broker as _NativeBroker
from ottla._ottla import Client as _NativeClient
from ottla._ottla import Consumer as _NativeConsumer
from ottla._scan import Scan
from ottla._settings import client_settings, servers_text
from ottla._writing import Writing, as_format
from ottla.errors import ConfigError

if TYPE_CHECKING:
    import re
    from types import TracebackType

    from ottla._consumer import Listener
    from ottla._ottla import ValueEncoder
    from ottla.formats import Format, Header

__all__ = ["Client", "connect"]

Timeout = float | timedelta | None


def connect(
    bootstrap_servers: str | Sequence[str] | None = None,
    *,
    client_id: str | None = None,
    config: Mapping[str, object] | None = None,
    **options: object,
) -> Client:
    """Return a client of a Kafka cluster: of ottla or Apache Kafka, the code is the same.

    Parameters
    ----------
    bootstrap_servers : str or sequence of str, optional
        One or more addresses ``host:port``, separated by commas. Without any, the client talks to
        a broker in this process, which lives in memory until the interpreter exits and is shared by
        all such calls.
    client_id : str, optional
        The name that brokers log for this client.
    config : mapping of str to object, optional
        Settings by Kafka's names, for example ``{"metadata.max.age.ms": 60_000}``.
    **options : object
        The same settings as keyword arguments, named as in kafka-python and aiokafka: ``linger_ms``
        for ``linger.ms``, ``acks``, ``compression_type``, ``request_timeout_ms`` … One is ottla's
        own: ``threads``, from 1 to 256, is how many threads decode, encode and compress for each
        scan, consumer or ``write``; by default one for each processor that the process may use.

    Returns
    -------
    Client
        A client. It connects when it is first used; network errors are raised then.

    Raises
    ------
    ConfigError
        When a setting is not known (with a suggestion) or not valid.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = ottla.connect(broker.bootstrap_servers, linger_ms=5)
    ...     kafka.topics()
    ...     kafka.close()
    []
    """
    settings = client_settings(client_id, config, options)
    if bootstrap_servers is None and "bootstrap.servers" not in settings:
        client: Client = _default_broker().client(config=settings)
        return client
    if bootstrap_servers is not None:
        settings["bootstrap.servers"] = servers_text(bootstrap_servers)
    return Client(_NativeClient.connect(settings))


def _default_broker() -> Any:
    from ottla._broker import Broker

    global _default  # noqa: PLW0603
    if _default is None or _default.closed:
        _default = Broker()
    return _default


_default: Any = None


def _leave(member: Consumer, left: Callable[[], float | None]) -> None:
    # Nobody said that what it handed out last is finished.
    member._close(left(), failed=True)  # noqa: SLF001


class Client(Administration, Writing):
    """A client of a Kafka cluster; made by :func:`ottla.connect` or ``broker.client()``.

    Thread-safe. Closes at the end of a ``with`` block, at :meth:`close`, or at the exit of the
    interpreter, after all that was sent has been acknowledged. After ``os.fork()`` the child's
    copy makes its own connections.
    """

    def __init__(self, native: _NativeClient) -> None:
        self._native = native
        self._admin = native.admin()
        #: Its members of groups, which leave when it closes.
        self._members: weakref.WeakSet[Consumer] = weakref.WeakSet()
        #: How single values are made, by topic and format.
        self._encoders: dict[tuple[str, Format], ValueEncoder] = {}
        #: For how many milliseconds topics keep records.
        self._retentions: dict[str, int | None] = {}
        #: The embedded broker, which lives as long as its clients.
        self._owner: object = None
        #: The brokers of this process that it reaches by their addresses, if there are no others.
        self._hosts = hosts(native.bootstrap_servers)
        _exit.register(self)

    @classmethod
    def _in_process(cls, owner: object, broker: _NativeBroker, options: dict[str, Any]) -> Client:
        config = options.pop("config", None)
        client_id = options.pop("client_id", None)
        settings = client_settings(client_id, config, options)
        client = cls(_NativeClient.in_process(broker, settings))
        client._owner = owner
        return client

    # --- reading --------------------------------------------------------------------------------

    def scan(
        self,
        topic: str,
        start: Bound = None,
        end: Bound = None,
        *,
        partitions: Iterable[int] | None = None,
        value: Format | str | Mapping[str, Any] | None = None,
        columns: Sequence[str | Header] | None = None,
        isolation_level: str | None = None,
        on_error: str = "raise",
        on_data_loss: str = "raise",
        max_rows: int | None = None,
        batch_rows: int = 10_000,
        string_view: bool = True,
        threads: int | None = None,
        timeout: Timeout = 30.0,
    ) -> Scan:
        """Return the records of a topic between two places, as a value that can be read again.

        The bounds are resolved to offsets now, once; what is produced later is not seen. Reading
        returns exactly the rows between them, or raises.

        Parameters
        ----------
        topic : str
            The name of the topic.
        start, end : Bound, optional
            "earliest" (the default of start), "latest" (the default of end), a datetime or ISO 8601
            string (UTC when it has no zone), a negative timedelta (from now), a mapping of
            partitions to offsets, which reads these partitions only, or a checkpoint: the ``end``
            of an earlier scan or the ``position()`` of a consumer, also from JSON. Partitions that
            a checkpoint does not name were added since, and are read from their beginning. The
            end is exclusive. The ``offsets`` of a scan or a batch, given to both, name the same
            records again; as a start alone they are refused, and so are integers, which have no
            unit.
        partitions : iterable of int, optional
            The partitions to read; all by default.
        value : Format, str or mapping, optional
            How values become columns: :func:`ottla.raw` (the default), :func:`ottla.text`,
            :func:`ottla.json` and the others, or a mapping of names to types for JSON.
        columns : sequence of str, optional
            The columns to return, in that order; the others cost nothing. Where a member of the
            values has the name of one of the record's columns, all of those are in the struct
            ``_kafka`` (``"_kafka.offset"``), or ``__kafka`` where that name is taken, too.
        isolation_level : {"read_uncommitted", "read_committed"}, optional
            Whether records of open or aborted transactions are left out.
        on_error : {"raise", "null", "column", "dlq:TOPIC"}, default "raise"
            What to do with a value that cannot be decoded: raise :class:`DecodeError`; make its
            columns null; make them null and add a column ``error``; or leave the row out and write
            the record, as it is, to the topic that is named. The headers ``ottla.dlq.topic``,
            ``ottla.dlq.partition``, ``ottla.dlq.offset`` and ``ottla.dlq.error`` are added there,
            and it is acknowledged before the rows around it are handed out. Each reading of a scan
            writes again; ``head``, ``tail`` and ``count`` only look, and write nothing.
        on_data_loss : {"raise", "warn"}, default "raise"
            Whether records between the bounds that are gone are an error or a warning in the log:
            those that retention or a deletion removed, and those that were compacted since the scan
            was read before.
        max_rows : int, optional
            Stop after this many rows. Partitions are then read one after the other, and ``end`` is
            the place after the last of these rows.
        batch_rows : int, default 10000
            About how many rows go into a batch.
        string_view : bool, default True
            ``False`` converts views to plain strings and binaries, which all of pyarrow's
            functions can handle; it copies.
        threads : int, optional
            How many threads decompress and decode, from 1 to 256. The client's setting by default,
            or else one for each processor that the process may use. The rows, their order and
            their errors are the same with any number; with 1 the calling thread does it all.
            Batches are decoded ahead, about two for each thread, within ``queued.max.bytes``.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the bounds, in seconds.

        Returns
        -------
        Scan
            Rows ``[topic: dictionary<utf8>, partition: int32, offset: int64, timestamp:
            timestamp[ms, UTC], timestamp_type, key: binary_view, value: binary_view, headers:
            list<struct<key: utf8, value: binary>>]`` with the raw format.

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     for word in ("one", "two"):
        ...         _ = kafka.send("words", word)
        ...     rows = kafka.scan("words", value=ottla.text(), columns=["offset", "value"])
        ...     [row for batch in rows for row in batch.to_pylist()]
        [{'offset': 0, 'value': 'one'}, {'offset': 1, 'value': 'two'}]
        """
        options = {
            "partitions": None if partitions is None else sorted({*partition_numbers(partitions)}),
            "value": as_format(value),
            "columns": _columns(columns),
            "isolation_level": isolation_level,
            "on_error": on_error,
            "on_data_loss": on_data_loss,
            "max_rows": None if max_rows is None else row_count(max_rows, "max_rows"),
            "batch_rows": batch_rows,
            "string_view": string_view,
            "threads": threads,
        }
        native = self._native.scan(
            topic_name(topic),
            *native_bounds(start, end, topic),
            options,
            seconds(timeout),
        )
        return Scan(native)

    def consumer(
        self,
        topics: str | Sequence[str] | Mapping[str, Iterable[int]] | re.Pattern[str],
        *,
        group_id: str | None = None,
        start: Bound = None,
        resume: Resume | None = None,
        partitions: Iterable[int] | None = None,
        value: Format | str | Mapping[str, Any] | None = None,
        columns: Sequence[str | Header] | None = None,
        until: str | None = None,
        max_rows: int = 10_000,
        max_bytes: int | None = None,
        max_wait: float | timedelta = 0.5,
        memory_limit: int | None = None,
        isolation_level: str | None = None,
        on_error: str = "raise",
        on_data_loss: str = "raise",
        string_view: bool = True,
        threads: int | None = None,
        progress: Any = False,
        auto_offset_reset: str | None = None,
        auto_commit: bool = False,
        auto_commit_interval_ms: int | timedelta | None = None,
        on_assign: Listener | None = None,
        on_revoke: Listener | None = None,
        on_lost: Listener | None = None,
        group_instance_id: str | None = None,
        group_protocol: str | None = None,
        group_remote_assignor: str | None = None,
        partition_assignment_strategy: str | Sequence[str] | None = None,
        session_timeout_ms: int | timedelta | None = None,
        heartbeat_interval_ms: int | timedelta | None = None,
        max_poll_interval_ms: int | timedelta | None = None,
        rebalance_timeout_ms: int | timedelta | None = None,
        timeout: Timeout = 30.0,
    ) -> Consumer:
        """Return an endless, live reader: of assigned partitions, or as a member of a group.

        With ``group_id`` the members of the group share the partitions of the topics, and the group
        keeps the offsets that are committed. The member is alive as long as its process is: how
        long the loop takes for a batch does not matter, unless ``max_poll_interval_ms`` is set.

        Parameters
        ----------
        topics : str, sequence of str, mapping of str to iterable of int, or re.Pattern
            One topic, several, or the partitions of each. With ``group_id`` also a pattern, as a
            compiled regular expression or a string that begins with ``^``: all topics whose whole
            name it matches, including those created later.
        group_id : str, optional
            The group to be a member of.
        start : Bound, optional
            Where to start; see :meth:`scan`. "latest" by default, "earliest" with ``resume`` or
            ``until="caught_up"``. In a group its offsets decide, and where it has none
            ``auto_offset_reset``.
        resume : Offsets or callable, optional
            Where to go on: ``batch.offsets`` or ``position()`` of an earlier consumer (also from
            JSON), :func:`ottla.sql_offsets.load`, :func:`ottla.delta_offsets`, or any function of
            a topic and a partition. Partitions that it does not know begin at ``start``. In a group
            it takes precedence over what is committed: a function is asked whenever a partition is
            assigned, so that it finds what another member wrote; offsets count only the first time.
        partitions : iterable of int, optional
            The partitions of the one topic; all by default. Not in a group.
        value, columns, isolation_level, on_error, on_data_loss, string_view, threads
            As for :meth:`scan`.
        until : {"caught_up"}, optional
            End the loop at the records that were the newest when the consumer was made; in a group,
            when each partition was assigned. Reading begins at "earliest" then, unless you say
            otherwise. If none of a group's topics exists, it raises :class:`UnknownTopicError`.
        max_rows : int, default 10000
            The most rows in a batch.
        max_bytes : int, optional
            About how many bytes of records go into a batch, before decoding; at least one record.
        max_wait : float or datetime.timedelta, default 0.5
            How long a batch may wait for more rows once it has some, in seconds; a poll returns
            as soon as it reaches the rows, the bytes or the time.
        memory_limit : int, optional
            How many bytes are fetched ahead of the loop (``queued.max.bytes``).
        progress : bool or object, default False
            Show progress; see :meth:`write`. With ``until="caught_up"`` there is a total: the
            offsets up to the ends that were pinned. In a group it follows the partitions that
            come and go; it is set on an object whose ``total`` is None, such as a tqdm. A
            member that has been waiting for others for some seconds says so through
            ``set_postfix_str``, which a tqdm has, and in the log. One that died is waited for until
            its session ends, after 45 s by default.
        auto_offset_reset : {"earliest", "latest", "error"}, optional
            Where to begin in a partition for which the group has no offset; the client's setting
            by default, or "latest", or "earliest" with ``until="caught_up"``. With
            ``on_data_loss="warn"`` also where to go on when an offset lies beyond the end of the
            log, as after a truncation; otherwise that is a :class:`DataLossError`. Without a group
            the same as ``start``.
        auto_commit : bool, default False
            Commit what the loop has finished, from time to time, before partitions are given up,
            and when closing. A batch is finished when the loop asks for the next one.
        auto_commit_interval_ms : int or datetime.timedelta, default 5000
            How often.
        on_assign, on_revoke, on_lost : callable, optional
            Called in the thread that polls, with a list of (topic, partition): when partitions
            have come, before any row of them; when they are to go, before another member gets them
            (all of them can still be committed); and when they are gone already (``on_revoke`` by
            default). What they raise comes out of the poll. With ``async for`` they may be async.
        group_instance_id : str, optional
            Makes the member static: it keeps its partitions over a restart within the session.
        group_protocol : {"classic", "consumer"}, default "classic"
            The members assign, or the coordinator does (KIP-848; Kafka 4 and ottla).
        group_remote_assignor : {"uniform", "range"}, optional
            Which assignor the coordinator uses, with the consumer protocol.
        partition_assignment_strategy : str or sequence of str, optional
            The assignors of the classic protocol, the preferred one first: range, roundrobin,
            sticky, cooperative-sticky. Range, then cooperative-sticky by default.
        session_timeout_ms, heartbeat_interval_ms : int or datetime.timedelta, optional
            After how long without a heartbeat the partitions go to others (45 s), and how often one
            is sent (3 s, at most a third of the session). Classic protocol only.
        max_poll_interval_ms : int or datetime.timedelta, optional
            How long the loop may take for a batch before the member leaves. No limit by default.
        rebalance_timeout_ms : int or datetime.timedelta, default 300000
            How long a rebalance waits for the loop to come back for ``on_revoke``; then the
            partitions are lost.
        timeout : float or datetime.timedelta, default 30
            How long to wait for the assignment, in seconds; joining a group is not waited for.

        Returns
        -------
        Consumer
            Iterate over it with ``for`` or ``async for``, or call ``poll``.

        Raises
        ------
        ConfigError
            When arguments contradict each other.

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("words", "one")
        ...     with kafka.consumer(
        ...         "words", group_id="etl", auto_offset_reset="earliest", until="caught_up"
        ...     ) as consumer:
        ...         for batch in consumer:
        ...             rows = batch.to_pylist()  # … keep them …
        ...             _ = consumer.commit(batch)
        ...         consumer.committed()
        {'words': {0: 1}}
        """
        options: dict[str, Any] = {
            "start": start,
            "resume": resume,
            "partitions": partitions,
            "value": value,
            "columns": columns,
            "until": until,
            "max_rows": max_rows,
            "max_bytes": max_bytes,
            "max_wait": max_wait,
            "memory_limit": memory_limit,
            "isolation_level": isolation_level,
            "on_error": on_error,
            "on_data_loss": on_data_loss,
            "string_view": string_view,
            "threads": threads,
            "progress": progress,
            "auto_offset_reset": auto_offset_reset,
            "auto_commit": auto_commit,
            "auto_commit_interval_ms": auto_commit_interval_ms,
            "on_assign": on_assign,
            "on_revoke": on_revoke,
            "on_lost": on_lost,
            "group_id": group_id,
            "group_instance_id": group_instance_id,
            "group_protocol": group_protocol,
            "group_remote_assignor": group_remote_assignor,
            "partition_assignment_strategy": partition_assignment_strategy,
            "session_timeout_ms": session_timeout_ms,
            "heartbeat_interval_ms": heartbeat_interval_ms,
            "max_poll_interval_ms": max_poll_interval_ms,
            "rebalance_timeout_ms": rebalance_timeout_ms,
            "timeout": timeout,
        }
        return Consumer(topics, self, **options)

    def _consume(
        self,
        topics: Any,
        *,
        start: Bound = None,
        resume: Resume | None = None,
        partitions: Iterable[int] | None = None,
        auto_offset_reset: str | None = None,
        timeout: Timeout = 30.0,
        **options: Any,
    ) -> _NativeConsumer:
        """Read partitions that the program names."""
        reading = _reading(options)
        refuse_group_options(options)
        if is_pattern(topics):
            raise ConfigError("a pattern of topics needs a group: pass group_id=…")
        if auto_offset_reset is not None:
            if start is not None:
                raise ConfigError("pass either start= or auto_offset_reset=")
            if auto_offset_reset not in ("earliest", "latest"):
                raise ConfigError(
                    f"auto_offset_reset={auto_offset_reset!r}: use earliest or latest"
                )
            start = auto_offset_reset
        assignment = _assignment(topics, partitions)
        limit = Limit(timeout)
        known = starts(start)
        if known is not None or (start is None and resume is not None):
            # What a checkpoint does not name was added since.
            start = "earliest"
        known = known or {}
        refuse_foreign(known, assignment, "start")
        if isinstance(resume, Mapping):
            refuse_foreign(of_resume(resume), assignment, "resume")
        if resume is not None:
            known = known | of_resume(resume, self._partitions_of(assignment, resume, limit))
        # From the end, nothing would come before it has caught up.
        default = "earliest" if reading["until_caught_up"] else "latest"
        begin = native_bound(start, default, "start")
        return self._native.consumer(assignment, (begin, known), reading, limit.left())

    def _join(
        self,
        topics: Any,
        *,
        start: Bound = None,
        partitions: Iterable[int] | None = None,
        timeout: Timeout = 30.0,  # noqa: ARG002 (nothing is waited for)
        **options: Any,
    ) -> _NativeConsumer:
        """Read as a member of a group."""
        if start is not None:
            raise ConfigError(
                "start= does not go with group_id=: the offsets of the group decide. Pass "
                "auto_offset_reset= for partitions without one, resume= for offsets of yours, or "
                "seek in on_assign"
            )
        if partitions is not None or isinstance(topics, Mapping):
            raise ConfigError(
                "partitions cannot be named with group_id=: the group assigns them. Leave group_id "
                "out, or the partitions"
            )
        return self._native.group_consumer(group_options(topics, options), _reading(options))

    def _partitions_of(
        self, assignment: Mapping[str, list[int] | None], resume: Resume, limit: Limit
    ) -> list[tuple[str, int]]:
        """Return the partitions that a function of ``resume=`` is asked about."""
        if not callable(resume):
            return []
        found = []
        for topic, chosen in assignment.items():
            if chosen is None:
                described = self._admin.describe_topic(topic, limit.left())["partitions"]
                chosen = [partition["partition"] for partition in described]  # noqa: PLW2901
            found += [(topic, partition) for partition in chosen]
        return found

    # --- life -----------------------------------------------------------------------------------

    @property
    def bootstrap_servers(self) -> str:
        """The addresses that this client was given."""
        return self._native.bootstrap_servers

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._native.closed

    def close(self, timeout: Timeout = 60.0) -> None:
        """Leave all groups, flush and close; a second call does nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long to wait for the groups and for acknowledgements, in seconds; never longer
            than ``delivery.timeout.ms`` for a record, and not at all for an embedded broker that
            was closed and whose address no other broker has taken.

        Raises
        ------
        ConnectionError, TimeoutError or KafkaError
            When records were not acknowledged, with their topics and number: those that were under
            way, and those that failed before and whose :class:`Pending` nobody kept. The client
            is closed nevertheless.
        """
        limit = Limit(timeout)
        try:
            with ExitStack() as members:
                while self._members:
                    members.callback(_leave, self._members.pop(), limit.left)
        finally:
            why = f"the broker at {self.bootstrap_servers} was closed" if self._is_alone() else None
            self._native.close(limit.left(), why)

    def _is_alone(self) -> bool:
        """Whether its brokers were closed in this process, and no others have their addresses."""
        if self.closed or not self._hosts or not all(host.is_gone for host in self._hosts):
            return False
        # Without a socket there is only the one that it was made by.
        return self._owner is not None or refuse(self.bootstrap_servers)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        import asyncio

        await asyncio.get_running_loop().run_in_executor(None, self.close)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<ottla.Client {state}{self.bootstrap_servers}>"


def _assignment(
    topics: str | Sequence[str] | Mapping[str, Iterable[int]], partitions: Iterable[int] | None
) -> dict[str, list[int] | None]:
    """Return the partitions of each topic; None where all are meant."""
    if isinstance(topics, Mapping):
        if partitions is not None:
            raise ConfigError("name the partitions in the mapping of topics")
        return {
            topic_name(topic): partition_numbers(chosen, f"the value of {topic!r}")
            for topic, chosen in topics.items()
        }
    names = topic_names(topics)
    if partitions is not None and len(names) != 1:
        raise ConfigError("partitions= goes with one topic: pass {topic: partitions}")
    chosen = None if partitions is None else partition_numbers(partitions)
    return dict.fromkeys(names, chosen)


def _columns(columns: Any) -> list[Any] | None:
    """Return the columns to read."""
    if columns is None:
        return None
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        name = columns if isinstance(columns, str) else "offset"
        raise TypeError(f"columns= takes a list of names, for example [{name!r}], not {columns!r}")
    return list(columns)


def _reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a consumer that are the same with and without a group."""
    until, columns = options["until"], options["columns"]
    if until not in (None, "caught_up"):
        raise ConfigError(f"until={until!r} is neither None nor 'caught_up'")
    given = ("isolation_level", "on_error", "on_data_loss", "max_rows", "max_bytes")
    return {
        "value": as_format(options["value"]),
        "columns": _columns(columns),
        **{name: options[name] for name in given},
        "max_wait": seconds(options["max_wait"]),
        "memory_limit": options["memory_limit"],
        "string_view": options["string_view"],
        "threads": options["threads"],
        "until_caught_up": until == "caught_up",
    }
