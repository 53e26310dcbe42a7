"""Files of the tier: what every reader of Parquet sees in them, and what ``ottla tier`` says."""

from __future__ import annotations

import contextlib
import os
from datetime import datetime, timezone
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet
import pytest

import ottla
from processes import Program, installed_program

_TIMES = [datetime(2026, 1, 31, 12, tzinfo=timezone.utc), datetime(1970, 1, 1, tzinfo=timezone.utc)]


class _AbortedError(Exception):
    """Aborts a transaction."""


@pytest.fixture
def program(broker: ottla.Broker) -> Program:
    """The command line with the broker of the tests."""
    path = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()
    return Program(path, broker.bootstrap_servers, "tier")


@pytest.fixture
def topic(kafka: ottla.Client, name: str) -> str:
    """A topic with everything that a row can say, in two partitions."""
    kafka.create_topic(name, partitions=2)
    kafka.send(name, b"first", key=b"k", partition=0, timestamp=_TIMES[0], headers={"h": b"1"})
    kafka.send(name, None, key=b"k", partition=0, timestamp=_TIMES[1])
    kafka.send(name, b"other", partition=1, timestamp=_TIMES[0])
    with kafka.transactional(f"{name}-tx") as producer:
        with producer.transaction() as transaction:
            transaction.send(name, b"committed", partition=1, timestamp=_TIMES[0])
        with contextlib.suppress(_AbortedError), producer.transaction() as transaction:
            transaction.send(name, b"aborted", partition=1, timestamp=_TIMES[0])
            raise _AbortedError
    kafka.send(name, b"last", partition=1, timestamp=_TIMES[0])
    return name


def _export(program: Program, topic: str, folder: Path, *arguments: str) -> list[dict[str, object]]:
    command = ["export", topic, "--folder", str(folder), "--output", "json", *arguments]
    files: list[dict[str, object]] = program.json(*command)
    return files


_QUERY = 'SELECT topic, partition, key, value FROM {} ORDER BY partition, "offset"'


def _rows(topic: str) -> list[tuple[object, ...]]:
    return [
        (topic, 0, b"k", b"first"),
        (topic, 0, b"k", None),
        (topic, 1, None, b"other"),
        (topic, 1, None, b"committed"),
        (topic, 1, None, b"last"),
    ]


def test_every_reader_sees_what_is_committed(program: Program, topic: str, tmp_path: Path) -> None:
    files = _export(program, topic, tmp_path)
    assert [(file["partition"], file["rows"]) for file in files] == [(0, 2), (1, 3)]
    pattern = f"{tmp_path}/**/*.parquet"
    found = f"read_parquet('{pattern}', hive_partitioning = true)"
    assert duckdb.sql(_QUERY.format(found)).fetchall() == _rows(topic)
    dataset = pyarrow.dataset.dataset(tmp_path, format="parquet", partitioning="hive")
    table = dataset.to_table().sort_by([("partition", "ascending"), ("offset", "ascending")])
    columns = table.select(["topic", "partition", "key", "value"]).to_pylist()
    assert [tuple(row.values()) for row in columns] == _rows(topic)
    assert table["timestamp"].to_pylist()[:2] == _TIMES
    assert table["headers"].to_pylist()[:2] == [[{"key": "h", "value": b"1"}], []]
    frame = pl.scan_parquet(pattern, hive_partitioning=True).collect()
    assert frame["value"].to_list() == [value for *_, value in _rows(topic)]


def test_the_columns_are_those_that_tables_ask_for(
    program: Program, topic: str, tmp_path: Path
) -> None:
    [file] = _export(program, topic, tmp_path, "--partition", "0")
    parquet = pyarrow.parquet.ParquetFile(file["path"])
    schema = parquet.schema_arrow
    assert schema.names == ["offset", "timestamp", "key", "value", "headers"]
    assert schema.field("timestamp").type == pa.timestamp("us", "UTC")
    ids = [schema.field(name).metadata[b"PARQUET:field_id"] for name in schema.names]
    assert ids == [b"1", b"2", b"3", b"4", b"5"]
    group = parquet.metadata.row_group(0)
    assert group.sorting_columns[0].column_index == 0
    assert group.column(0).statistics.max == 1
    # The private section lies behind the rows, and no reader minds.
    assert parquet.metadata.metadata[b"ottla.section"]


def test_exported_files_are_verified(program: Program, topic: str, tmp_path: Path) -> None:
    files = _export(program, topic, tmp_path)
    verified = program.json("verify", str(tmp_path), "--output", "json")
    assert verified == files
    path = files[0]["path"]
    assert isinstance(path, str)
    with Path(path).open("r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 1]))
    refused = program.run("verify", str(tmp_path), status=4)
    assert path in refused.stderr
    assert "1 of 2 files are damaged" in refused.stderr


def test_an_export_goes_on_where_the_last_one_ended(
    program: Program, kafka: ottla.Client, name: str, tmp_path: Path
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, pl.DataFrame({"number": range(10)}))
    # The batch is cut in the middle.
    _export(program, name, tmp_path, "--to", "4")
    again = program.run("export", name, "--folder", str(tmp_path), status=2)
    assert "offsets 0 to 4 already" in again.stderr
    _export(program, name, tmp_path, "--from", "4")
    program.run("verify", str(tmp_path))
    rows = duckdb.sql(f"SELECT \"offset\" FROM '{tmp_path}/**/*.parquet' ORDER BY ALL").fetchall()
    assert rows == [(number,) for number in range(10)]
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_scan_writes_files(
    kafka: ottla.Client, remote: ottla.Client, filled: str, tmp_path: Path
) -> None:
    told: list[int] = []

    class Progress:
        """Counts offsets."""

        def update(self, count: int) -> None:
            """Take some."""
            told.append(count)

        def close(self) -> None:
            """Take no more."""

    files = kafka.scan(filled).to_parquet(tmp_path / "own", progress=Progress())
    assert [file.parent.name for file in files] == [f"partition={index}" for index in range(4)]
    assert sum(told) == 40
    # Over TCP, and a range that begins and ends anywhere.
    scan = remote.scan(filled, start={2: 3}, end={2: 7})
    [file] = scan.to_parquet(str(tmp_path / "some"))
    assert pl.read_parquet(file)["offset"].to_list() == [3, 4, 5, 6]
    with pytest.raises(ottla.ConfigError, match="offsets 3 to 7 already"):
        scan.to_parquet(tmp_path / "some")
    with pytest.raises(ottla.ConfigError, match="max_rows"):
        kafka.scan(filled, max_rows=3).to_parquet(tmp_path / "other")
    empty = kafka.scan(filled, start="latest").to_parquet(tmp_path / "other")
    assert empty == []


def test_errors_of_progress_are_raised(kafka: ottla.Client, filled: str, tmp_path: Path) -> None:
    class Progress:
        """Fails."""

        def update(self, _count: int) -> None:
            """Fail."""
            raise RuntimeError("no room for a bar")

        def close(self) -> None:
            """Take no more."""

    with pytest.raises(RuntimeError, match="no room for a bar"):
        kafka.scan(filled).to_parquet(tmp_path, progress=Progress())
