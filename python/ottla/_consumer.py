"""Consumers: how one is made, of assigned partitions or as a member of a group."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ottla._arguments import defaults, keywords, one_class, takes_also
from ottla._bounds import Limit, native_bound, seconds
from ottla._connection import Connection
from ottla._membership import group_options, is_pattern, refuse_group_options
from ottla._names import partition_numbers, topic_name, topic_names
from ottla._offsets import of_resume, refuse_foreign, starts
from ottla._reader import CHANGES, Reader
from ottla._scanning import column_list
from ottla.errors import ConfigError, NotSupportedError
from ottla.formats import as_format

if TYPE_CHECKING:
    import re
    from collections.abc import Sequence
    from datetime import timedelta

    from ottla._bounds import Bound
    from ottla._connection import Timeout
    from ottla._offsets import Resume
    from ottla._ottla import Consumer as _NativeConsumer
    from ottla._reader import Listener
    from ottla.formats import Format, Header
    from ottla.typing import (
        AutoOffsetReset,
        FormatName,
        GroupProtocol,
        IsolationLevel,
        OnDataLoss,
        RemoteAssignor,
        Until,
    )


__all__ = ["Consumer", "Consuming"]


class Consuming(Connection):
    """The part of a :class:`Client` that makes consumers."""

    def consumer(
        self,
        topics: str | Sequence[str] | Mapping[str, Iterable[int]] | re.Pattern[str],
        *,
        group_id: str | None = None,
        start: Bound = None,
        resume: Resume | None = None,
        partitions: Iterable[int] | None = None,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        columns: Sequence[str | Header] | None = None,
        until: Until | None = None,
        max_rows: int = 10_000,
        max_bytes: int | None = None,
        max_wait: float | timedelta = 0.5,
        memory_limit: int | None = None,
        isolation_level: IsolationLevel | None = None,
        on_error: str = "raise",
        on_data_loss: OnDataLoss = "raise",
        string_view: bool = True,
        threads: int | None = None,
        progress: Any = False,
        auto_offset_reset: AutoOffsetReset | None = None,
        auto_commit: bool = False,
        auto_commit_interval_ms: int | timedelta | None = None,
        on_assign: Listener | None = None,
        on_revoke: Listener | None = None,
        on_lost: Listener | None = None,
        group_instance_id: str | None = None,
        group_protocol: GroupProtocol | None = None,
        group_remote_assignor: RemoteAssignor | None = None,
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
            Only partitions that the group has assigned to this member are waited for, not those of
            other members, whether they read them or have died and their session has not ended yet:
            what these left is there for the next member that reads the partition.
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
        options = keywords(Consuming.consumer, locals())
        return Consumer(topics, self, **options)

    def _assigned(self, topics: Any, options: Mapping[str, Any]) -> _NativeConsumer:
        """Read partitions that the program names."""
        start, resume, reset = options["start"], options["resume"], options["auto_offset_reset"]
        reading = _reading(options)
        refuse_group_options(options)
        if is_pattern(topics):
            raise ConfigError("a pattern of topics needs a group: pass group_id=…")
        if reset is not None:
            if start is not None:
                raise ConfigError("pass either start= or auto_offset_reset=")
            if reset not in ("earliest", "latest"):
                raise ConfigError(f"auto_offset_reset={reset!r}: use earliest or latest")
            start = reset
        assignment = _assignment(topics, options["partitions"])
        limit = Limit(options["timeout"])
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
        begin = native_bound(start, "earliest" if reading["until_caught_up"] else "latest", "start")
        return self._native.consumer(assignment, (begin, known), reading, limit.left())

    def _member(self, topics: Any, options: Mapping[str, Any]) -> _NativeConsumer:
        """Read as a member of a group; nothing is waited for."""
        if options["start"] is not None:
            raise ConfigError(
                "start= does not go with group_id=: the offsets of the group decide. Pass "
                "auto_offset_reset= for partitions without one, resume= for offsets of yours, or "
                "seek in on_assign"
            )
        if options["partitions"] is not None or isinstance(topics, Mapping):
            raise ConfigError(
                "partitions cannot be named with group_id=: the group assigns them. Leave group_id "
                "out, or the partitions"
            )
        of_group = group_options(topics, options)
        return self._native.group_consumer(_reading(options) | of_group)

    def _partitions_of(
        self,
        assignment: Mapping[str, list[int] | None],
        resume: Resume,
        limit: Limit,
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


@one_class
class Consumer(Reader):
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

    Without a group it goes where it is told to:

    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     for word in ("one", "two", "three"):
    ...         _ = kafka.send("words", word)
    ...     consumer = kafka.consumer("words", start="earliest", max_rows=2, value="text")
    ...     consumer.assignment
    ...     consumer.poll()["value"].to_pylist(), consumer.position(), consumer.lag()
    ...     consumer.seek("earliest")
    ...     consumer.pause()
    ...     consumer.poll(0.01) is None
    ...     consumer.resume()
    ...     consumer.poll()["value"].to_pylist()
    ...     consumer.close()
    ...     consumer.closed
    [('words', 0)]
    (['one', 'two'], {'words': {0: 2}}, {'words': {0: 1}})
    True
    ['one', 'two']
    True

    In a group it commits how far the work has come:

    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     for word in ("one", "two"):
    ...         _ = kafka.send("words", word)
    ...     options = {"group_id": "etl", "auto_offset_reset": "earliest", "max_rows": 1}
    ...     with kafka.consumer("words", **options) as consumer:
    ...         first, second = consumer.poll(10), consumer.poll(10)
    ...         consumer.commit(first), consumer.committed()
    ...         consumer.commit_async(second).result()
    ...         consumer.generation, consumer.member_id.startswith("ottla-")
    ({'words': {0: 1}}, {'words': {0: 1}})
    {'words': {0: 2}}
    (1, True)
    """

    @takes_also(Consuming.consumer)
    def __init__(
        self,
        topics: str | Sequence[str] | Mapping[str, Iterable[int]] | re.Pattern[str],
        bootstrap_servers: str | Sequence[str] | Consuming | None = None,
        **options: Any,
    ) -> None:
        known = defaults(Consuming.consumer)
        if isinstance(bootstrap_servers, Consuming):
            connection = bootstrap_servers
            given = options
        else:
            # All others are settings of the connection.
            given = {name: options.pop(name) for name in known.keys() & options.keys()}
            connection = Consuming._open(bootstrap_servers, **options)  # noqa: SLF001
        if given.keys() - known.keys():
            unknown = ", ".join(sorted(given.keys() - known.keys()))
            raise TypeError(f"a consumer has no argument {unknown}")
        options = known | given
        limit = Limit(options["timeout"])
        group_id, resume = options["group_id"], options["resume"]
        heard = {kind: options[f"on_{name}"] for kind, name in CHANGES.items()}
        if group_id is None:
            for kind, listener in heard.items():
                if listener is not None:
                    raise NotSupportedError(f"on_{CHANGES[kind]}= goes with group_id=")
            native = connection._assigned(topics, options)  # noqa: SLF001
            resume = None
        else:
            if resume is not None:
                # A function is asked when partitions come; offsets are looked at now.
                refuse_foreign(of_resume(resume), topics, "resume")
            native = connection._member(topics, options)  # noqa: SLF001
        if heard["lost"] is None:
            heard["lost"] = heard["revoked"]
        super().__init__(
            native,
            connection,
            owns_connection=connection is not bootstrap_servers,
            group_id=group_id,
            listeners=heard,
            resume=resume,
            progress=options["progress"],
            until=options["until"],
            limit=limit,
        )
        #: Whether offsets are committed besides what the program does.
        self._auto_commit = bool(options["auto_commit"])
        if group_id is not None:
            connection._members.add(self)  # noqa: SLF001


def _reading(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as the engine takes them, with and without a group."""
    until = options["until"]
    if until not in (None, "caught_up"):
        raise ConfigError(f"until={until!r} is neither None nor 'caught_up'")
    return {
        **options,
        "value": as_format(options["value"]),
        "columns": column_list(options["columns"]),
        "max_wait": seconds(options["max_wait"]),
        "until_caught_up": until == "caught_up",
    }


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
