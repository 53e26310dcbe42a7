"""Scans: a part of a topic as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla import _frames, _progress
from ottla._bounds import row_count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ottla._ottla import RecordBatch
    from ottla._ottla import Scan as _NativeScan

__all__ = ["Scan"]


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
        return f"<ottla.Scan {self.topic} {{{', '.join(parts)}}} ≤ {self.max_rows:,} records>"

    def _repr_html_(self) -> str:
        caption = f"Scan of {self.topic}: at most {self.max_rows:,} records"
        return _frames.html_table(["partition", "start", "end", "offsets"], self._rows(), caption)
