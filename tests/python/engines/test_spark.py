"""Spark reads topics, bounded and as streams, and writes to them; processes die meanwhile."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet
import pytest
from pyspark.sql import SparkSession
from pyspark.sql.streaming.datasource import ReadAllAvailable

import ottla
import ottla.spark

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.timeout(240), pytest.mark.filterwarnings("ignore")]

COLUMNS = "partition,offset,value"
PROGRAM = Path(__file__).with_name("stream.py")


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    # A task may fail three times, as on a cluster.
    builder = SparkSession.builder.master("local[2, 4]")
    for name, value in {
        "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2",
        "spark.sql.session.timeZone": "America/New_York",
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    }.items():
        builder = builder.config(name, value)
    session = builder.getOrCreate()
    session.sparkContext.setLogLevel("OFF")
    yield session
    session.stop()


def source(reader: Any, kafka: ottla.Client, topic: str, **options: object) -> Any:
    given = {name: str(value) for name, value in options.items()}
    address = {"kafka.bootstrap.servers": kafka.bootstrap_servers}
    return reader.format("ottla").options(topic=topic, **address, **given)


def rows(frame: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in frame.select(*COLUMNS.split(",")).collect())


def all_rows(scan: ottla.Scan) -> list[tuple[Any, ...]]:
    return sorted(scan.to_polars().select(COLUMNS.split(",")).rows())


def test_a_dataframe_is_the_scan_of_its_load(spark: Any, kafka: ottla.Client, filled: str) -> None:
    options = {"value": "text", "columns": COLUMNS, "start": '{"0": 3, "1": 0, "2": 10, "3": 9}'}
    frame = source(spark.read, kafka, filled, parts=4, **options).load()
    wanted = all_rows(kafka.scan(filled, start={0: 3, 1: 0, 2: 10, 3: 9}, value=ottla.text()))
    # Each action reads the same rows, no matter what has been written since.
    kafka.send(filled, "later", partition=0)
    assert frame.rdd.getNumPartitions() == 4
    assert rows(frame) == wanted
    kafka.send(filled, "later still", partition=1)
    assert frame.count() == len(wanted) == 18
    assert source(spark.read, kafka, filled).load().count() == 42


def test_the_format_may_be_registered_as_well(spark: Any, kafka: ottla.Client, filled: str) -> None:
    ottla.spark.register(spark)
    ottla.spark.register(spark)
    assert source(spark.read, kafka, filled).load().count() == 40


def test_every_type_of_spark_keeps_its_values(spark: Any, kafka: ottla.Client, name: str) -> None:
    types = {
        "small": "int8",
        "byte": "uint8",
        "short": "uint16",
        "whole": "uint32",
        "huge": "uint64",
        "long": "int64",
        "half": "float16",
        "real": "float64",
        "money": "decimal128[20, 2]",
        "day": "date32",
        "at": "timestamp[ms, UTC]",
        "wall": "timestamp[us]",
        "yes": "bool",
        "raw": "binary",
        "list": "list<struct<a: int64, b: utf8>>",
    }
    row = {
        "small": -128,
        "byte": 255,
        "short": 2**16 - 1,
        "whole": 2**32 - 1,
        "huge": 2**64 - 1,
        "long": 2**63 - 1,
        "half": 0.5,
        "real": 1e300,
        "money": "123456789012345678.25",
        "day": "2024-02-29",
        "at": "2024-03-10T07:30:00.123Z",
        "wall": "2024-03-10T02:30:00.000001",
        "yes": True,
        "raw": "AP8=",
        "list": [{"a": 1, "b": None}, None],
    }
    kafka.send(name, json.dumps(row), key=b"\xff", headers={"h": b"\x00"})
    kafka.send(name, "{}")
    frame = source(spark.read, kafka, name, value=json.dumps(types)).load()
    found, empty = (one.asDict(recursive=True) for one in frame.orderBy("offset").collect())
    assert found["at"].astimezone(timezone.utc) == datetime(
        2024, 3, 10, 7, 30, 0, 123_000, timezone.utc
    )
    del found["at"]
    assert (
        found.items()
        >= {
            **{name: value for name, value in row.items() if name != "at"},
            "money": Decimal("123456789012345678.25"),
            "huge": Decimal(2**64 - 1),
            "day": date(2024, 2, 29),
            "wall": datetime.fromisoformat("2024-03-10T02:30:00.000001"),
            "raw": b"\x00\xff",
        }.items()
    )
    assert found["topic"] == name
    assert found["key"] == b"\xff"
    assert found["headers"] == [{"key": "h", "value": b"\x00"}]
    assert {empty[column] for column in types} == {None}


def test_a_value_that_spark_cannot_keep_is_an_error(
    spark: Any, kafka: ottla.Client, name: str
) -> None:
    kafka.send(name, '{"at": "2024-01-01T00:00:00.000000001Z", "time": "10:00:00"}')
    nanoseconds = source(spark.read, kafka, name, value='{"at": "timestamp[ns, UTC]"}').load()
    with pytest.raises(Exception, match="would lose data"):
        nanoseconds.collect()
    with pytest.raises(Exception, match="Spark has no type for the column 'time'"):
        source(spark.read, kafka, name, value='{"time": "time64[us]"}').load()


def test_rows_that_are_gone_are_an_error(spark: Any, kafka: ottla.Client, filled: str) -> None:
    frame = source(spark.read, kafka, filled, value="text", parts=3).load()
    kafka.delete_records(filled, {1: 5})
    with pytest.raises(Exception, match="DataLossError"):
        frame.count()
    late = source(spark.read, kafka, filled, start='{"1": 0}').load()
    with pytest.raises(Exception, match="DataLossError"):
        late.count()


def test_a_worker_that_is_killed_is_replaced(
    spark: Any, kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    marker = tmp_path / "died"

    def dies_once(batches: Iterator[Any]) -> Iterator[Any]:
        for batch in batches:
            yield batch
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    frame = source(spark.read, kafka, filled, value="text", columns=COLUMNS, batch_rows=3).load()
    assert rows(frame.mapInArrow(dies_once, frame.schema)) == all_rows(
        kafka.scan(filled, value=ottla.text())
    )
    assert marker.exists()


def test_rows_are_written_as_records(spark: Any, kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=2)
    frame = spark.createDataFrame([(number, number % 2, f"v{number}") for number in range(50)])
    frame = frame.toDF("id", "place", "text").repartition(3)
    sink = source(frame.write, kafka, name, key="id", partition="place", value="json")
    sink.mode("append").save()
    found = kafka.scan(name, value={"id": "int64", "text": "utf8"}).to_polars()
    assert sorted(found.select("id", "text").rows()) == [(one, f"v{one}") for one in range(50)]
    assert all(
        (row["partition"], row["key"]) == (row["id"] % 2, str(row["id"]).encode())
        for row in found.to_dicts()
    )
    source(frame.limit(0).write, kafka, name).mode("append").save()
    assert kafka.scan(name).count() == 50
    with pytest.raises(Exception, match="cannot be overwritten"):
        source(frame.write, kafka, name).mode("overwrite").save()
    with pytest.raises(Exception, match="option start is one of read and readStream"):
        source(frame.write, kafka, name, start="earliest").mode("append").save()


def test_what_a_source_does_not_understand_is_refused(
    spark: Any, kafka: ottla.Client, filled: str
) -> None:
    for options, message in {
        ("colums", "offset"): "did you mean columns",
        ("path", "x"): "a topic is no path",
        ("kafka.linger", "1"): "linger",
        ("batch_rows", "many"): "batch_rows",
        ("key", "id"): "option key is one of write",
    }.items():
        with pytest.raises(Exception, match=message):
            source(spark.read, kafka, filled).option(*options).load()
    with pytest.raises(Exception, match=r"leave \.schema"):
        source(spark.read, kafka, filled).schema("a int").load().count()
    with pytest.raises(Exception, match="max_offsets_per_trigger is one of readStream"):
        source(spark.read, kafka, filled, max_offsets_per_trigger=5).load().count()


def test_a_stream_ends_at_what_was_there_and_goes_on(
    spark: Any, kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    def run() -> list[int]:
        stream = source(
            spark.readStream,
            kafka,
            filled,
            value="text",
            columns=COLUMNS,
            # By topic: partitions that are added are read, too.
            start=json.dumps({filled: {0: 0, 1: 0, 2: 0, 3: 0}}),
            max_offsets_per_trigger=15,
        ).load()
        sink = stream.writeStream.format("parquet").option("path", str(tmp_path / "rows"))
        query = sink.option("checkpointLocation", str(tmp_path / "checkpoint"))
        query = query.trigger(availableNow=True).start()
        query.awaitTermination()
        return [one.numInputRows for one in query.recentProgress]

    def read() -> list[tuple[Any, ...]]:
        return rows(spark.read.parquet(str(tmp_path / "rows")))

    assert [size for size in run() if size] == [15, 15, 10]
    assert read() == all_rows(kafka.scan(filled, value=ottla.text()))
    # What has been read may go; records and partitions may come.
    kafka.delete_records(filled, {0: 5})
    kafka.create_partitions(filled, 5)
    for partition in (0, 4):
        kafka.send(filled, "new", partition=partition)
    before = read()
    assert sum(run()) == 2
    assert [row for row in read() if row not in before] == [(0, 10, "new"), (4, 0, "new")]
    # What has not been read may not.
    kafka.send_async(filled, "unread", partition=1)
    kafka.send(filled, "unread", partition=1)
    kafka.delete_records(filled, {1: 11})
    with pytest.raises(Exception, match="DataLossError"):
        run()
    kafka.delete_topic(filled)
    kafka.create_topic(filled, partitions=5)
    with pytest.raises(Exception, match="DataLossError"):
        run()
    assert len(read()) == len(before) + 2


def test_a_stream_follows_what_is_written(spark: Any, kafka: ottla.Client, filled: str) -> None:
    stream = source(
        spark.readStream,
        kafka,
        filled,
        value="text",
        columns=COLUMNS,
        start="latest",
        max_offsets_per_trigger=3,
    ).load()
    query = stream.writeStream.format("memory").queryName("followed").start()
    query.processAllAvailable()
    for number in range(10):
        kafka.send(filled, f"new-{number}", partition=number % 4)
    query.processAllAvailable()
    found = rows(spark.table("followed"))
    assert found == sorted((n % 4, 10 + n // 4, f"new-{n}") for n in range(10))
    sizes = [one.numInputRows for one in query.recentProgress if one.numInputRows]
    assert sum(sizes) == 10
    assert max(sizes) <= 3
    # Nothing new is no batch.
    before = query.lastProgress.batchId
    query.processAllAvailable()
    assert query.lastProgress.batchId == before
    query.stop()


def test_a_stream_wants_to_know_its_types(spark: Any, kafka: ottla.Client, name: str) -> None:
    kafka.send(name, '{"n": 1}')
    stream = source(spark.readStream, kafka, name, value="json").load()
    with pytest.raises(Exception, match="cannot infer its columns"):
        stream.writeStream.format("noop").start().awaitTermination()


def test_the_first_batch_is_the_same_after_a_restart(kafka: ottla.Client, filled: str) -> None:
    options = {
        "kafka.bootstrap.servers": kafka.bootstrap_servers,
        "topic": filled,
        "start": "latest",
        "value": "text",
    }

    def reader() -> Any:
        made = ottla.spark.OttlaDataSource(options)
        return made.streamReader(made.schema())

    def read(parts: list[Any]) -> list[tuple[Any, ...]]:
        return [row for part in parts for row in all_rows(part.value)]

    before, after = reader(), reader()
    began = before.initialOffset()
    kafka.send(filled, "first", partition=0)
    end = before.latestOffset(began, ReadAllAvailable())
    # Spark has stored the end of the batch, dies, and asks where the first batch begins again.
    kafka.create_partitions(filled, 5)
    kafka.send(filled, "second", partition=1)
    again = after.initialOffset()
    assert again["offsets"] != began["offsets"]
    assert read(after.partitions(again, end)) == read(before.partitions(began, end))
    assert read(after.partitions(again, end)) == [(0, 10, "first")]
    # It goes on behind it, with the partition that is new.
    kafka.send(filled, "third", partition=4)
    later = after.latestOffset(end, ReadAllAvailable())
    assert read(after.partitions(end, later)) == [(1, 10, "second"), (4, 0, "third")]
    assert after.latestOffset(later, ReadAllAvailable()) == later
    assert after.partitions(later, later) == []
    # A place that lies before the one of the checkpoint is no place to go on from.
    with pytest.raises(ottla.DataLossError):
        after.partitions(later, end)
    for one in (before, after):
        one.stop()


def test_a_stream_that_starts_at_offsets_of_partitions_reads_only_these(
    kafka: ottla.Client, filled: str
) -> None:
    address = {"kafka.bootstrap.servers": kafka.bootstrap_servers, "topic": filled}
    made = ottla.spark.OttlaDataSource({**address, "start": '{"1": 8}', "value": "text"})
    reader = made.streamReader(made.schema())
    began = reader.initialOffset()
    reader.prepareForTriggerAvailableNow()
    end = reader.latestOffset(began, ReadAllAvailable())
    parts = reader.partitions(began, end)
    assert [part.value.offsets for part in parts] == [{1: (8, 10)}]
    assert end["offsets"] == {"1": 10}
    reader.stop()


def test_a_micro_batch_has_as_many_offsets_as_it_may() -> None:
    for bounds in ({0: (5, 5)}, {0: (0, 1), 1: (7, 9)}, {0: (3, 50), 1: (0, 0), 2: (1, 9)}):
        total = sum(end - start for start, end in bounds.values())
        assert ottla.spark._ends(bounds, None) == {one: end for one, (_, end) in bounds.items()}
        for most in range(1, total + 3):
            ends = ottla.spark._ends(bounds, most)
            assert all(start <= ends[one] <= end for one, (start, end) in bounds.items())
            taken = sum(ends[one] - start for one, (start, _) in bounds.items())
            assert taken == min(most, total)


def test_a_stream_that_is_killed_loses_nothing(
    kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    copy, written = f"{name}-copy", 0
    kafka.create_topic(name, partitions=2)
    for partitions, fatal in ((2, "25"), (3, "none")):
        while kafka[name].num_partitions < partitions:
            kafka.create_partitions(name, partitions)
        for _ in range(50):
            kafka.send_async(name, str(written), partition=written % partitions)
            written += 1
        kafka.flush(30)
        done = subprocess.run(
            [sys.executable, PROGRAM, kafka.bootstrap_servers, name, copy, tmp_path, fatal],
            check=False,
            capture_output=True,
            text=True,
            timeout=150,
            start_new_session=True,
        )
        assert done.returncode == (0 if fatal == "none" else -signal.SIGKILL), done.stderr[-5000:]
    wanted = [str(number) for number in range(written)]
    # Spark's sink of files leaves out what a batch that was not committed has left behind.
    log = tmp_path / "files" / "_spark_metadata"
    parts = {
        json.loads(line)["path"]
        for one in log.iterdir()
        if one.name[0] != "."
        for line in one.read_text().splitlines()[1:]
    }
    values = [
        value
        for part in parts
        for value in pyarrow.parquet.read_table(part.removeprefix("file://"))["value"].to_pylist()
    ]
    assert sorted(values, key=int) == wanted
    copies = kafka.scan(copy, value=ottla.text()).to_polars()["value"].to_list()
    # At least once: what the batch that was under way had written is written again.
    assert set(copies) == set(wanted)
