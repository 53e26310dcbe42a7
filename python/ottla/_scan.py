"""Scans: a part of a topic as a value."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ottla import _engines, _frames, _progress
from ottla._aio import ThreadIterator
from ottla._arguments import whole_number
from ottla._bounds import row_count
from ottla._committing import Committing
from ottla._kafka_columns import fields_of, kafka_struct
from ottla._scan_parts import Recipe, cut, with_columns
from ottla.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from os import PathLike
    from pathlib import Path

    import duckdb
    import numpy as np
    import pandas as pd
    import polars as pl
    import pyarrow as pa

    from ottla._committing import GroupOffsets
    from ottla._ottla import RecordBatch
    from ottla._ottla import Scan as _NativeScan
    from ottla.formats import Format, Header

__all__ = ["Scan"]


class Scan(Committing, _engines.Splitting):
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

    What it has, and how libraries get it:

    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     for word in ("one", "two"):
    ...         _ = kafka.send("words", word)
    ...     scan = kafka.scan("words", value=ottla.text(), columns=["offset", "value"])
    ...     scan.topic, scan.group_id, scan.start, scan.max_rows, scan.held_back
    ...     scan.schema
    ...     scan.head(1).to_pylist()
    ...     scan.to_polars().rows()
    ...     scan.to_pandas()["value"].tolist(), scan.to_pyarrow()["offset"].to_pylist()
    ...     scan.to_duckdb().fetchall(), scan.to_numpy()["offset"].tolist()
    ('words', None, {'words': {0: 0}}, 2, {})
    {'offset': 'int64', 'value': 'string_view'}
    [{'offset': 0, 'value': 'one'}]
    [(0, 'one'), (1, 'two')]
    (['one', 'two'], [0, 1])
    ([(0, 'one'), (1, 'two')], [0, 1])
    """

    def __init__(
        self,
        native: _NativeScan | None,
        group: GroupOffsets | None = None,
        *,
        client: Any = None,
        options: dict[str, Any] | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        self._made = native
        #: The offsets of the group that it goes on from.
        self._group = group
        #: The client that made it, which is above this file, and the arguments.
        self._client, self._options = client, options
        #: How to make it, if it came from another process, or is a part.
        self._recipe = recipe

    @property
    def _native(self) -> _NativeScan:
        if self._made is None:
            assert self._recipe is not None  # noqa: S101 (one of them is there)
            self._made = self._recipe.make()
        return self._made

    def __reduce__(self) -> tuple[Any, ...]:
        return Scan._travelled, (self._travelling(),)

    @staticmethod
    def _travelled(recipe: Recipe) -> Scan:
        return Scan(None, recipe=recipe)

    def _travelling(self) -> Recipe:
        """Return how another process makes this scan."""
        if self._recipe is not None:
            return self._recipe
        client, options, native = self._client, self._options, self._native
        assert options is not None  # noqa: S101 (made by a client)
        recipe = Recipe(
            settings={**client._settings, "bootstrap.servers": client.bootstrap_servers},  # noqa: SLF001
            topic=self.topic,
            topic_id=native.topic_id,
            offsets=native.bounds,
            options=options | {"partitions": None},
            schema=self.schema,
        )
        value: Format | None = options["value"]
        fields = None
        if value is not None and value.kind == "json" and value.schema is None:
            fields = self._inferred(recipe)
        return replace(recipe, options=recipe.options | {"value": with_columns(value, fields)})

    def _inferred(self, recipe: Recipe) -> dict[str, str]:
        """Return the columns of JSON values that were inferred."""
        schema, options = self.schema, recipe.options
        reports = options["on_error"] == "column"
        if options["columns"] is None and not reports:
            return fields_of(schema)
        # Members that are not among the columns of the scan are known, too, and the columns that
        # tell of errors are none.
        on_error = "null" if reports else options["on_error"]
        every = options | {"columns": None, "on_error": on_error}
        whole = replace(recipe, options=every, schema=None).make(self._client)
        fields = fields_of(whole.schema())
        if any(schema.get(name, kind) != kind for name, kind in fields.items()):
            raise ConfigError(
                "the columns that were inferred from the values are not the same each time: "
                "pass a schema"
            )
        return fields

    def split(self, n: int) -> list[Scan]:
        """Cut the scan into parts of about the same number of offsets, to be read in parallel.

        Together they have exactly the rows of the scan, each once. A part is a range of offsets of
        a partition or of several. It can be pickled, as any scan can, and is read by whoever gets
        it: threads, processes (``multiprocessing``, joblib) or other machines (Dask, Ray), which
        connect to the cluster when they read. A pickled scan has the settings of its client in it,
        and no group: commit the whole one when all parts are done.

        Parameters
        ----------
        n : int
            How many parts to make at most; fewer where there are fewer offsets, and at least one.

        Returns
        -------
        list of Scan
            The parts, in the order of the partitions and offsets.

        Raises
        ------
        ConfigError
            When the columns come from the first value of a part (Arrow IPC or a registry's first
            schema, without ``schema=``): pass a schema.

        Examples
        --------
        >>> import ottla, pickle
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     for number in range(5):
        ...         _ = kafka.send("words", f"{number}")
        ...     parts = kafka.scan("words").split(2)
        ...     parts = [pickle.loads(pickle.dumps(part)) for part in parts]
        ...     [part.offsets for part in parts], sum(part.count() for part in parts)
        ([{0: (0, 3)}, {0: (3, 5)}], 5)
        """
        if whole_number("n", n) < 1:
            raise ConfigError(f"n={n}: a scan has at least one part")
        recipe = self._divisible()
        parts = cut(recipe.offsets, n)
        return [Scan(None, recipe=replace(recipe, offsets=part)) for part in parts]

    def _divisible(self) -> Recipe:
        """Return how to make the scan by its offsets alone."""
        recipe = self._travelling()
        if recipe.options["max_rows"] is None:
            return recipe
        if recipe.options["value"] is not None and recipe.options["value"].kind == "arrow_ipc":
            raise ConfigError(
                "a scan of Arrow IPC streams that max_rows= cuts off within a record has no "
                "parts: leave max_rows= out"
            )
        return replace(recipe, offsets=self.offsets, options=recipe.options | {"max_rows": None})

    @property
    def topic(self) -> str:
        """The name of the topic."""
        return self._native.topic if self._recipe is None else self._recipe.topic

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

    def __aiter__(self) -> AsyncIterator[RecordBatch]:
        """Read the rows as batches of Arrow arrays, without blocking the event loop.

        A wait that was cancelled, or that had a time limit, takes no batch away: the next one is
        the one that it was for.
        """
        return ThreadIterator(iter(self))

    def head(self, n: int = 5) -> RecordBatch:
        """Return the first ``n`` rows, in the order of the partitions."""
        return self._native.collect_head(row_count(n))

    def to_pyarrow(self, *, string_view: bool = False, progress: Any = False) -> pa.Table:
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

    def to_pandas(self, *, progress: Any = False, **options: Any) -> pd.DataFrame:
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

    def to_polars(self, *, progress: Any = False) -> pl.DataFrame:
        """Read all rows into a ``polars.DataFrame``; uncompressed values are not copied."""
        polars = _frames.require("polars", "to_polars()")
        return self._read(polars.DataFrame, plain=False, progress=progress)

    def lazy(self) -> pl.LazyFrame:
        """Return a ``polars.LazyFrame`` that reads only what a query needs.

        Columns that a query does not need are not decoded, unless ``on_error`` is other than
        "raise": which values cannot be decoded must not depend on the query then. Where it filters
        by ``offset`` or ``partition``, or for rows from a ``timestamp`` on, the others are not
        fetched; an upper bound of timestamps leaves nothing out, since records need not be in the
        order of their timestamps. All other filters are applied to what was read. Rows are read by
        ``collect()``, and by each one again; this call reads the first values where JSON is
        inferred, and the rows up to the limit with ``max_rows=``. Where members of the values have
        the names of Kafka's columns, everything is fetched.

        What is compacted between two readings goes unnoticed. ``head(n)`` and ``slice`` may take
        other rows each time, since partitions are read in no particular order.

        Returns
        -------
        polars.LazyFrame
            The columns and rows of :meth:`to_polars`; rows of different partitions may be in
            another order.

        Raises
        ------
        ConfigError
            When the columns come from the first value that is read (Arrow IPC or a registry's
            first schema, without ``schema=``): pass a schema.

        Examples
        --------
        >>> import ottla, polars as pl
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     for number in range(1000):
        ...         _ = kafka.send_async("orders", {"id": number, "amount": number / 2})
        ...     kafka.flush()
        ...     orders = kafka.scan("orders", value={"id": "int64", "amount": "float64"}).lazy()
        ...     orders.filter(pl.col("offset") >= 998).select(pl.sum("amount")).collect().item()
        998.5
        """
        from ottla._lazy import from_time, lazy_frame

        recipe = self._divisible()
        connection = self._client or recipe.connection()
        options, schema = recipe.options, recipe.schema or self.schema
        asked = options["columns"]
        names = [_top_level(one, schema) for one in asked or ()]
        full = schema
        if asked is not None:
            every = replace(recipe, options=options | {"columns": None}, schema=None)
            full = every.make(connection).schema()

        def read(
            wanted: Sequence[str] | None, ranges: dict[int, tuple[int, int]], since: int | None
        ) -> Iterator[RecordBatch]:
            columns = asked
            # Which values cannot be decoded depends on the columns that are: where such a value
            # does not end the query, it must be the same ones whatever the query needs.
            if wanted is not None and options["on_error"] == "raise":
                chosen = zip(names, asked or (), strict=True)
                columns = [one for name, one in chosen if name in wanted] or list(wanted)
            if since is not None:
                ranges = from_time(connection._admin, self.topic, ranges, since)  # noqa: SLF001
            part = replace(
                recipe, offsets=ranges, options=options | {"columns": columns}, schema=None
            )
            return iter(part.make(connection).batches())

        empty = self.head(0).to_polars()
        # Otherwise the names are those of members of the values.
        prunes = kafka_struct(full) is None
        return lazy_frame(empty, recipe.offsets, read, prunes=prunes)

    def to_duckdb(
        self, connection: duckdb.DuckDBPyConnection | None = None
    ) -> duckdb.DuckDBPyRelation:
        """Return a DuckDB relation of all rows.

        Parameters
        ----------
        connection : duckdb.DuckDBPyConnection, optional
            The connection; DuckDB's default one without it.
        """
        duckdb = _frames.require("duckdb", "to_duckdb()")
        table = self.to_pyarrow()
        return (duckdb if connection is None else connection).from_arrow(table)

    def to_numpy(self) -> dict[str, np.ndarray[Any, Any]]:
        """Read all rows into a ``numpy.ndarray`` per column."""
        numpy = _frames.require("numpy", "to_numpy()")
        batches = list(self)
        if not batches:
            return {name: numpy.empty(0, dtype=object) for name in self.schema}
        return {
            name: numpy.concatenate([batch[name].to_numpy() for batch in batches])
            for name in batches[0].column_names
        }

    def to_parquet(self, folder: str | PathLike[str], *, progress: Any = False) -> list[Path]:
        """Write the records as Parquet files from which the topic can be had back.

        Each file holds records of one partition, in order, as columns that every reader of Parquet
        reads: ``offset``, ``timestamp``, ``key``, ``value`` and ``headers``, whatever the formats
        of the scan are. Behind them is what only Kafka needs: how the records were batched, by
        which producers, and what was aborted. A file was read back before it has its name;
        ``ottla tier verify`` checks it again. Records that the scan leaves out are no rows: what
        was aborted is one only with ``isolation_level="read_uncommitted"``.

        Parameters
        ----------
        folder : path
            Files are written to ``topic=NAME/partition=N`` below it. It may have files of other
            offsets, so that each export can go on where the last one ended.
        progress : bool or object, default False
            Show progress; see ``client.write``.

        Returns
        -------
        list of pathlib.Path
            The files; one for each GiB of a partition, none for a partition without records.

        Raises
        ------
        ConfigError
            The folder has some of these offsets already, or the scan has ``max_rows=``.

        Examples
        --------
        >>> import ottla, pyarrow.dataset, tempfile
        >>> with ottla.Broker() as broker, tempfile.TemporaryDirectory() as folder:
        ...     kafka = broker.client()
        ...     _ = kafka.send("words", "one")
        ...     _ = kafka.scan("words").to_parquet(folder)
        ...     files = pyarrow.dataset.dataset(folder, partitioning="hive")
        ...     files.to_table(["topic", "offset", "value"]).to_pylist()
        [{'topic': 'words', 'offset': 0, 'value': b'one'}]
        """
        shown = _progress.start(progress, self.max_rows, f"scan {self.topic}")
        try:
            return self._native.to_parquet(folder, None if progress is False else shown.update)
        finally:
            shown.close()

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


def _top_level(asked: str | Header, schema: Mapping[str, str]) -> str:
    """Return the column that an item of ``columns=`` is in."""
    if not isinstance(asked, str):
        return asked.name
    return asked if asked in schema else asked.partition(".")[0]
