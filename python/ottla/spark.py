"""Apache Spark reads and writes topics: the format ``ottla`` of Spark's Python data source API.

``import ottla`` leaves this module out, as it needs Spark, 4.2 or newer, on the driver and on all
executors (``pip install "ottla[spark]"``). The manual has examples, and says what is promised:
``src/manual/engines.md``. Spark finds the format by itself (``pyspark_ottla``)::

    orders = (
        spark.read.format("ottla")
        .option("kafka.bootstrap.servers", "broker:9092")
        .option("topic", "orders")
        .option("value", '{"customer": "utf8", "amount": "float64"}')
        .load()
    )

A part of a scan becomes a partition of the dataframe. ``readStream`` keeps its offsets in Spark's
checkpoint. Both writers write at least once: Spark runs a task again that failed, and the topic has
what it had written by then, too.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

from pyspark.sql.datasource import (
    DataSource,
    DataSourceArrowWriter,
    DataSourceReader,
    DataSourceStreamArrowWriter,
    DataSourceStreamReader,
    InputPartition,
    WriterCommitMessage,
)
from pyspark.sql.streaming.datasource import (
    ReadAllAvailable,
    ReadMaxRows,
    SupportsTriggerAvailableNow,
)

from ottla._client import connect
from ottla._engines import count_of_parts
from ottla._spark_options import options_of
from ottla._spark_types import spark_batches, spark_schema
from ottla.errors import ConfigError, DataLossError, NotSupportedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql import SparkSession

    from ottla._client import Client
    from ottla._scan import Scan
    from ottla._spark_options import Options

__all__ = ["OttlaDataSource", "register"]


def register(spark: SparkSession) -> None:
    """Make the format ``ottla`` known to a Spark session, if it has not found it by itself.

    Parameters
    ----------
    spark : pyspark.sql.SparkSession
        The session.
    """
    spark.dataSource.register(OttlaDataSource)


class OttlaDataSource(DataSource):  # type: ignore[misc]
    """The format ``ottla``; Spark makes one for each ``load``, ``save`` and ``start``."""

    #: What a bounded read reads. It travels with the dataframe: each action has the same rows.
    _scan: Scan | None = None
    #: Why there is none.
    _lost: DataLossError | None = None

    @classmethod
    def name(cls) -> str:
        """Return the name of the format."""
        return "ottla"

    def schema(self) -> Any:
        """Return the columns, and resolve the bounds of a bounded read."""
        options = options_of(self.options, "load")
        with connect(config=options.settings) as kafka:
            if options.infers:
                scan = _scan(kafka, options)
                self._scan = _travelling(scan)
            else:
                scan = _scan(kafka, options, start="latest", end="latest")
                try:
                    self._scan = _travelling(_scan(kafka, options))
                except DataLossError as error:
                    # A stream goes on from its checkpoint, wherever its first start is by now.
                    self._lost = error
            return spark_schema(scan.head(0).to_pyarrow().schema)

    def reader(self, schema: Any) -> DataSourceReader:
        """Return the reader of ``spark.read``."""
        options = options_of(self.options, "read")
        if self._lost is not None:
            raise self._lost
        if self._scan is None:
            raise _own_schema()
        return _Reader(_cut(self._scan, options), schema)

    def streamReader(self, schema: Any) -> DataSourceStreamReader:  # noqa: N802 (Spark's name)
        """Return the reader of ``spark.readStream``."""
        options = options_of(self.options, "readStream")
        if self._scan is None and self._lost is None:
            raise _own_schema()
        if options.infers:
            raise ConfigError(
                "a stream cannot infer its columns, since later values may have others: name them "
                'and their types, .option("value", \'{"id": "int64"}\')'
            )
        return _StreamReader(options, schema)

    def writer(self, schema: Any, overwrite: bool) -> DataSourceArrowWriter:
        """Return the writer of ``df.write``."""
        del schema
        if overwrite:
            raise NotSupportedError('a topic cannot be overwritten: use .mode("append")')
        return _Writer(options_of(self.options, "write"))

    def streamWriter(  # noqa: N802 (Spark's name)
        self, schema: Any, overwrite: bool
    ) -> DataSourceStreamArrowWriter:
        """Return the writer of ``df.writeStream``."""
        del schema
        if overwrite:
            raise NotSupportedError(
                'a topic cannot be overwritten: use .outputMode("append") or "update"'
            )
        return _StreamWriter(options_of(self.options, "writeStream"))


def _own_schema() -> ConfigError:
    return ConfigError(
        "the columns come from the topic: leave .schema(…) out, and name those of JSON values with "
        'their types, .option("value", \'{"id": "int64"}\')'
    )


def _scan(kafka: Client, options: Options, **bounds: Any) -> Scan:
    return kafka.scan(options.topic, value=options.value, **(options.others | bounds))


def _travelling(scan: Scan) -> Scan:
    """Return the scan as one part, which needs its client no more."""
    (whole,) = scan.split(1)
    return whole


def _cut(scan: Scan, options: Options) -> list[Scan]:
    return scan.split(options.parts or count_of_parts(scan.offsets))


class _Reader(DataSourceReader):  # type: ignore[misc]
    """A bounded read: Spark plans a task for each part."""

    def __init__(self, parts: list[Scan], schema: Any) -> None:
        self._parts, self._schema = parts, schema

    def partitions(self) -> list[InputPartition]:
        return [InputPartition(part) for part in self._parts]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        return spark_batches(partition.value, self._schema)


class _StreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):  # type: ignore[misc]
    """A read in micro-batches: what Spark has in its checkpoint are Kafka's offsets.

    Spark asks for the end of a batch, stores it, and only then reads; when it was killed in
    between, it reads the same batch again. The offsets have the id of the topic with them, so a
    topic of the same name that was created later is not taken for the one that was read.

    Where the first batch begins Spark does not store but asks again, also after a restart, and
    "latest" is another place by then. So the end of the first batch says where it began.
    """

    def __init__(self, options: Options, schema: Any) -> None:
        self._options, self._schema = options, schema
        self._kafka: Client | None = None
        #: Where a query ends that shall read what is there.
        self._target: dict[int, int] | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Executors get a copy, for its read().
        return self.__dict__ | {"_kafka": None}

    def _scan(self, **bounds: Any) -> Scan:
        if self._kafka is None:
            self._kafka = connect(config=self._options.settings)
        return _scan(self._kafka, self._options, **bounds)

    def _scan_since(self, place: Mapping[str, Any], **bounds: Any) -> Scan:
        """Return the scan that goes on from a place that Spark had in its checkpoint."""
        topic = self._options.topic
        if place["topic"] != topic:
            raise ConfigError(
                f"the checkpoint is that of topic {place['topic']}, and the stream reads {topic}: "
                "choose another checkpointLocation"
            )
        scan = self._scan(start={topic: _numbered(place["offsets"])}, **bounds)
        there = scan._native.topic_id  # noqa: SLF001
        if there != place["topic_id"]:
            raise DataLossError(
                f"topic {topic} was deleted and re-created since the checkpoint was written (its "
                f"id was {place['topic_id']}, now it is {there})"
            )
        return scan

    def _place(self, scan: Scan, at: Mapping[int, int]) -> dict[str, Any]:
        return {
            "topic": self._options.topic,
            "topic_id": scan._native.topic_id,  # noqa: SLF001
            "offsets": {str(partition): at[partition] for partition in sorted(at)},
        }

    def initialOffset(self) -> dict[str, Any]:  # noqa: N802 (Spark's name)
        scan = self._scan()
        return self._place(scan, scan.start[self._options.topic]) | {"is_first": True}

    def getDefaultReadLimit(self) -> Any:  # noqa: N802 (Spark's name)
        most = self._options.max_offsets
        return ReadAllAvailable() if most is None else ReadMaxRows(most)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802 (Spark's name)
        scan = self._scan(start="latest", end="latest")
        self._target = scan.end[self._options.topic]

    def latestOffset(  # noqa: N802 (Spark's name)
        self, start: dict[str, Any], limit: Any
    ) -> dict[str, Any]:
        scan = self._scan_since(start)
        bounds = scan.offsets
        if self._target is not None:
            # A partition that came later is left for the next query.
            bounds = {
                partition: (first, min(last, max(first, self._target[partition])))
                for partition, (first, last) in bounds.items()
                if partition in self._target
            }
        most = limit.max_rows if isinstance(limit, ReadMaxRows) else None
        end = self._place(scan, _ends(bounds, most))
        if start.get("is_first"):
            return end | {"began": start["offsets"]}
        # What is the same place must be the same text, or Spark would run an empty batch.
        return start if end["offsets"] == start["offsets"] else end

    def partitions(self, start: dict[str, Any], end: dict[str, Any]) -> list[InputPartition]:
        if start.get("is_first"):
            start = end | {"offsets": end["began"]}
        first, last = _numbered(start["offsets"]), _numbered(end["offsets"])
        if first == last:
            return []
        scan = self._scan_since(start, end=last)
        before = {one: at for one, at in first.items() if last.get(one, -1) < at}
        if before or end["topic_id"] != start["topic_id"]:
            raise DataLossError(f"{scan!r} does not lead from {start} to {end}")
        return [InputPartition(part) for part in _cut(scan, self._options)]

    def read(self, partition: InputPartition) -> Iterator[Any]:
        return spark_batches(partition.value, self._schema)

    def stop(self) -> None:
        if self._kafka is not None:
            self._kafka.close()


def _numbered(offsets: Mapping[str, int]) -> dict[int, int]:
    return {int(partition): at for partition, at in offsets.items()}


def _ends(bounds: Mapping[int, tuple[int, int]], most: int | None) -> dict[int, int]:
    """Return where a micro-batch ends: at most so many offsets, in proportion to what there is."""
    total = sum(end - start for start, end in bounds.values())
    if most is None or total <= most:
        return {partition: end for partition, (_, end) in bounds.items()}
    ends, passed, taken = dict[int, int](), 0, 0
    for partition, (start, end) in sorted(bounds.items()):
        passed += end - start
        # Rounded over all partitions, so that together they are exactly what was asked for.
        upto = passed * most // total
        ends[partition] = start + upto - taken
        taken = upto
    return ends


class _Written(WriterCommitMessage):  # type: ignore[misc]
    """What a task tells Spark: its records are acknowledged."""


def _write(options: Options, batches: Iterator[Any]) -> _Written:
    import pyarrow as pa

    first = next(batches, None)
    if first is not None:
        table = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
        with connect(config=options.settings) as kafka:
            kafka.write(options.topic, table, value=options.value, **options.others)
    return _Written()


class _Writer(DataSourceArrowWriter):  # type: ignore[misc]
    """Writes the rows of each task as records; what a failed task has written stays."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def write(self, iterator: Iterator[Any]) -> WriterCommitMessage:
        return _write(self._options, iterator)


class _StreamWriter(DataSourceStreamArrowWriter):  # type: ignore[misc]
    """The same for each micro-batch; one that is run again is written again."""

    def __init__(self, options: Options) -> None:
        self._options = options

    def write(self, iterator: Iterator[Any]) -> WriterCommitMessage:
        return _write(self._options, iterator)
