"""The part of a client that scans."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ottla._aio import in_thread
from ottla._arguments import keywords
from ottla._bounds import Limit, native_bounds, row_count
from ottla._committing import GroupOffsets, of_output, refuse_two_starts
from ottla._connection import Connection
from ottla._names import partition_numbers, topic_name
from ottla._scan import Scan
from ottla.formats import as_format

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ottla._bounds import Bound
    from ottla._connection import Timeout
    from ottla._offsets import Resume
    from ottla.formats import Format, Header
    from ottla.typing import FormatName, IsolationLevel, OnDataLoss

__all__ = ["Scanning", "column_list"]


class Scanning(Connection):
    """The part of a :class:`Client` that scans."""

    def scan(
        self,
        topic: str,
        start: Bound = None,
        end: Bound = None,
        *,
        group_id: str | None = None,
        resume: Resume | None = None,
        partitions: Iterable[int] | None = None,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        columns: Sequence[str | Header] | None = None,
        isolation_level: IsolationLevel | None = None,
        on_error: str = "raise",
        on_data_loss: OnDataLoss = "raise",
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
            string (UTC when it has no zone; its milliseconds count, as in the timestamps of
            records), a negative timedelta (from now), a mapping of partitions to offsets, which
            reads these partitions only, or a checkpoint: the ``end`` of an earlier scan or the
            ``position()`` of a consumer, also from JSON. Partitions that a checkpoint does not name
            were added since, and are read from their beginning. The end is exclusive. The
            ``offsets`` of a scan or a batch, given to both, name the same records again; as a start
            alone they are refused, and so are integers, which have no unit.
        group_id : str, optional
            Go on where the last run stopped: begin at the offsets that this group has, and at the
            beginning of partitions for which it has none. Nothing is committed until
            :meth:`Scan.commit` is called, when the work is done. The scan does not become a member,
            and the group must have none. A group without members forgets its offsets after
            ``offsets.retention.minutes`` of the broker, a week by default, and the next run then
            begins at the beginning: a job that runs less often stores offsets with its output.
        resume : Offsets or callable, optional
            The same for offsets that are stored with the output: ``batch.offsets``, a checkpoint,
            :func:`ottla.sql_offsets.load` or :func:`ottla.sql_offsets.resume`,
            :func:`ottla.delta_offsets`, or any function of a topic and a partition. Partitions that
            it does not know begin at their beginning; so does everything when it is empty.
        partitions : iterable of int, optional
            The partitions to read; all by default.
        value : Format, str or mapping, optional
            How values become columns: :func:`ottla.raw` (the default), :func:`ottla.text`,
            :func:`ottla.json` and the others, or a mapping of names to types for JSON.
        columns : sequence of str, optional
            The columns to return, in that order; the others cost nothing. Where a member of the
            values has the name of one of the record's columns, all of those are in the struct
            ``_kafka`` (``"_kafka.offset"``), or ``__kafka`` where that name is taken, too.
        isolation_level : {"read_committed", "read_uncommitted"}, optional
            Whether records of aborted transactions are left out, and the scan ends before the first
            transaction that is still open (see :attr:`Scan.held_back`). By default the client's
            setting, or else "read_committed"; for clients of Kafka it is the other one.
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

        Raises
        ------
        DataLossError
            When an offset that the scan shall begin or end at is not in the partition: records were
            deleted, or the topic was truncated, or deleted and created again.
        ConfigError
            When arguments contradict each other.

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

        A job that reads what is new, whenever it runs:

        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     for word in ("one", "two"):
        ...         _ = kafka.send("words", word)
        ...         new = kafka.scan("words", group_id="nightly", value=ottla.text())
        ...         print(new.to_pyarrow()["value"].to_pylist())  # … the work …
        ...         _ = new.commit()
        ['one']
        ['two']
        """
        options = keywords(Scanning.scan, locals())
        refuse_two_starts(start, group_id, resume)
        topic, limit = topic_name(topic), Limit(timeout)
        chosen = None if partitions is None else {*partition_numbers(partitions)}
        group = None
        if group_id is not None:
            group = GroupOffsets(self._native.groups(), group_id, topic, chosen, limit)
            start = {topic: group.starts}
        elif resume is not None:
            start = of_output(resume, topic, lambda: self._numbers(topic, chosen, limit))
        options |= {
            "partitions": None if chosen is None else sorted(chosen),
            "value": as_format(value),
            "columns": column_list(columns),
            "max_rows": None if max_rows is None else row_count(max_rows, "max_rows"),
        }
        bounds = native_bounds(start, end, topic)
        native = self._native.scan(topic, *bounds, options, limit.left())
        return Scan(native, group, client=self, options=options)

    scan_async = in_thread(scan)

    def _numbers(self, topic: str, chosen: set[int] | None, limit: Limit) -> list[int]:
        """Return the partitions of a topic, or those that were chosen."""
        if chosen is not None:
            return sorted(chosen)
        described = self._admin.describe_topic(topic, limit.left())["partitions"]
        return [partition["partition"] for partition in described]


def column_list(columns: Any) -> list[Any] | None:
    """Return the columns to read."""
    if columns is None:
        return None
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        name = columns if isinstance(columns, str) else "offset"
        raise TypeError(f"columns= takes a list of names, for example [{name!r}], not {columns!r}")
    return list(columns)
