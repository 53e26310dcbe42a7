"""Scans: a part of a topic as a value."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ottla import _frames, _progress
from ottla._arguments import keywords
from ottla._bounds import native_bounds, row_count, seconds
from ottla._connection import Connection
from ottla._names import partition_numbers, topic_name
from ottla.formats import as_format

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ottla._bounds import Bound
    from ottla._connection import Timeout
    from ottla._ottla import RecordBatch
    from ottla._ottla import Scan as _NativeScan
    from ottla.formats import Format, Header

__all__ = ["Scan", "Scanning", "column_list"]


class Scan:
    """The records of a topic between resolved offsets; returned by ``client.scan``.

    A value: read it as often as you like, with any library that reads Arrow streams; every reading
    returns the same rows or raises. Nothing is read until then.

    Where a topic is compacted, a reading raises :class:`DataLossError` as soon as it finds fewer
    records than an earlier reading of the same scan did. What was compacted before the first
    reading goes unnoticed: no client can know of it.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     scan = kafka.scan("words")
    ...     scan.count(), scan.offsets
    (1, {0: (0, 1)})
    """

    def __init__(self, native: _NativeScan) -> None:
        self._native = native

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._native.topic

    @property
    def offsets(self) -> dict[int, tuple[int, int]]:
        """The bounds by partition, end exclusive; can be stored as JSON.

        Passed as ``start=`` and ``end=`` of another scan, they select the same records. To continue
        where this scan stopped, keep :attr:`end` instead. With ``max_rows=`` they end after the
        last row that this scan hands out; the first call reads the rows, without their columns, to
        find out which that is.
        """
        return self._native.offsets

    @property
    def start(self) -> dict[str, dict[int, int]]:
        """The first offset of each partition, by topic and partition."""
        return {
            self.topic: {partition: start for partition, (start, _) in self._native.bounds.items()}
        }

    @property
    def end(self) -> dict[str, dict[int, int]]:
        """The checkpoint: the offset after the last one, by topic and partition.

        With ``max_rows=`` that is the last row that this scan hands out, not the end of what is
        there; see :attr:`offsets`.

        Store it as JSON, and pass it as ``start=`` of the next scan or consumer, which reads what
        arrived since, including in partitions that did not exist yet. If ``partitions=`` selected
        some, select them again: a checkpoint says how far, not which.

        Examples
        --------
        >>> import json, ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("words", "one")
        ...     stored = json.dumps(kafka.scan("words").end)
        ...     _ = kafka.send("words", "two")
        ...     stored, kafka.scan("words", start=json.loads(stored)).count()
        ('{"words": {"0": 1}}', 1)
        """
        return {self.topic: {partition: end for partition, (_, end) in self.offsets.items()}}

    @property
    def held_back(self) -> dict[int, int]:
        """How many offsets an open transaction held back, by partition.

        They were written when the bounds were resolved, but lie behind the beginning of a
        transaction that had not ended. A later scan has those that were committed. Partitions
        without any are left out; so are all with ``isolation_level="read_uncommitted"``.
        """
        return self._native.held_back

    @property
    def max_rows(self) -> int:
        """The most records there can be: the offsets between the bounds, or ``max_rows=``."""
        return self._native.max_rows

    @property
    def schema(self) -> dict[str, str]:
        """The columns and their types; infers the schema of JSON values when none was given."""
        return self._native.schema()

    def count(self) -> int:
        """Return the number of rows, by reading them without their columns.

        There is no ``len()``: compaction and transactions leave gaps in the offsets, so they do not
        give the number of rows.
        """
        return self._native.count()

    def __iter__(self) -> Iterator[RecordBatch]:
        """Read the rows as batches of Arrow arrays, from the start."""
        return iter(self._native.batches())

    def head(self, n: int = 5) -> RecordBatch:
        """Return the first ``n`` rows, in the order of the partitions."""
        return self._native.collect_head(row_count(n))

    def to_pyarrow(self, *, string_view: bool = False, progress: Any = False) -> Any:
        """Read all rows into a ``pyarrow.Table``.

        Parameters
        ----------
        string_view : bool, default False
            Keep view types, which share the memory of the segments; otherwise the rows are copied
            into plain strings and binaries.
        progress : bool or object, default False
            Show progress; see ``client.write``.
        """
        pyarrow = _frames.require("pyarrow", "to_pyarrow()")
        return self._read(pyarrow.table, plain=not string_view, progress=progress)

    def to_pandas(self, *, progress: Any = False, **options: Any) -> Any:
        """Read all rows into a ``pandas.DataFrame``.

        Parameters
        ----------
        progress : bool or object, default False
            Show progress; see ``client.write``.
        **options
            The keyword arguments of ``pyarrow.Table.to_pandas``.
        """
        _frames.require("pandas", "to_pandas()")
        return self.to_pyarrow(progress=progress).to_pandas(**options)

    def to_polars(self, *, progress: Any = False) -> Any:
        """Read all rows into a ``polars.DataFrame``; uncompressed values are not copied."""
        polars = _frames.require("polars", "to_polars()")
        return self._read(polars.DataFrame, plain=False, progress=progress)

    def to_duckdb(self, connection: Any = None) -> Any:
        """Return a DuckDB relation of all rows.

        Parameters
        ----------
        connection : duckdb.DuckDBPyConnection, optional
            The connection; DuckDB's default one without it.
        """
        duckdb = _frames.require("duckdb", "to_duckdb()")
        table = self.to_pyarrow()
        return (duckdb if connection is None else connection).from_arrow(table)

    def to_numpy(self) -> dict[str, Any]:
        """Read all rows into a ``numpy.ndarray`` per column."""
        numpy = _frames.require("numpy", "to_numpy()")
        batches = list(self)
        if not batches:
            return {name: numpy.empty(0, dtype=object) for name in self.schema}
        return {
            name: numpy.concatenate([batch[name].to_numpy() for batch in batches])
            for name in batches[0].column_names
        }

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise TypeError(
            "a scan is not an array: to_pandas() reads it into a pandas.DataFrame, to_numpy() into "
            "an array for each column"
        )

    def __arrow_c_schema__(self) -> object:
        return self._native.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._native.__arrow_c_stream__(requested_schema)

    def _read(self, consume: Any, *, plain: bool, progress: Any) -> Any:
        """Let a library read the stream, and raise ottla's error instead of the library's."""
        shown = _progress.start(progress, self.max_rows, f"scan {self.topic}")
        stream = self._native.stream(plain, None if progress is False else shown.update)
        try:
            result = consume(stream)
        except Exception as error:
            try:
                stream.finish()
            except Exception as ours:
                raise ours from error
            raise
        else:
            stream.finish()
            return result
        finally:
            shown.close()

    def _rows(self) -> list[list[object]]:
        return [
            [partition, start, end, end - start]
            for partition, (start, end) in sorted(self._native.bounds.items())
        ]

    def __repr__(self) -> str:
        shown = self._rows()
        parts = [f"{partition}: [{start:,}, {end:,})" for partition, start, end, _ in shown[:8]]
        if len(shown) > len(parts):
            parts.append(f"… {len(shown) - len(parts)} more")
        held = sum(self.held_back.values())
        back = f", {held:,} held back by an open transaction" if held else ""
        return f"<ottla.Scan {self.topic} {{{', '.join(parts)}}} ≤ {self.max_rows:,} records{back}>"

    def _repr_html_(self) -> str:
        caption = f"Scan of {self.topic}: at most {self.max_rows:,} records"
        return _frames.html_table(["partition", "start", "end", "offsets"], self._rows(), caption)


class Scanning(Connection):
    """The part of a :class:`Client` that scans."""

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
            string (UTC when it has no zone; its milliseconds count, as in the timestamps of
            records), a negative timedelta (from now), a mapping of partitions to offsets, which
            reads these partitions only, or a checkpoint: the ``end`` of an earlier scan or the
            ``position()`` of a consumer, also from JSON. Partitions that a checkpoint does not name
            were added since, and are read from their beginning. The end is exclusive. The
            ``offsets`` of a scan or a batch, given to both, name the same records again; as a start
            alone they are refused, and so are integers, which have no unit.
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
        options = keywords(Scanning.scan, locals())
        options |= {
            "partitions": None if partitions is None else sorted({*partition_numbers(partitions)}),
            "value": as_format(value),
            "columns": column_list(columns),
            "max_rows": None if max_rows is None else row_count(max_rows, "max_rows"),
        }
        native = self._native.scan(
            topic_name(topic), *native_bounds(start, end, topic), options, seconds(timeout)
        )
        return Scan(native)


def column_list(columns: Any) -> list[Any] | None:
    """Return the columns to read."""
    if columns is None:
        return None
    if isinstance(columns, (str, bytes)) or not isinstance(columns, Iterable):
        name = columns if isinstance(columns, str) else "offset"
        raise TypeError(f"columns= takes a list of names, for example [{name!r}], not {columns!r}")
    return list(columns)
