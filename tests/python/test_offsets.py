"""Offsets stored with the output: their forms, SQL tables, Delta tables."""

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING, Any

import deltalake
import pytest
import sqlalchemy

import ottla

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def partition_count() -> int:
    return 2


def numbers(batch: ottla.RecordBatch | None) -> list[int]:
    return [] if batch is None else [int(value) for value in batch["value"].to_pylist()]


def drain(consumer: ottla.Consumer) -> list[int]:
    with consumer:
        return sorted(number for batch in consumer for number in numbers(batch))


def test_offsets_of_a_batch_survive_json_and_resume_a_consumer(
    kafka: ottla.Client, filled: str
) -> None:
    with kafka.consumer({filled: [1]}, start="earliest", max_rows=4) as consumer:
        first = consumer.poll(30)
        assert first is not None
        assert first.offsets == {filled: {1: (0, 4)}}
        # Some of its rows are not what it covers: who stores their offsets would lose the others.
        with pytest.raises(ottla.ConfigError, match="some rows of a batch"):
            _ = first.head(1).offsets
    stored = json.loads(json.dumps(first.offsets))
    resumed = drain(kafka.consumer(filled, resume=stored, until="caught_up"))
    assert resumed == sorted(set(range(20)) - set(numbers(first)))
    # By a function, and from another start for what it does not know.
    resumed = drain(
        kafka.consumer(
            filled,
            start={0: 7, 1: 0},
            resume=lambda _, partition: 9 if partition == 1 else None,
            until="caught_up",
        )
    )
    assert resumed == [14, 16, 18, 19]


def test_a_position_resumes_as_well(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer(filled, start={0: 3, 1: 5}) as consumer:
        position = consumer.position()
    assert position == {filled: {0: 3, 1: 5}}
    assert len(drain(kafka.consumer(filled, resume=position, until="caught_up"))) == 12


def test_a_scan_of_the_offsets_of_a_batch_reads_its_rows(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer(filled, start={0: 2, 1: 6}, max_rows=5) as consumer:
        batch = consumer.poll(30)
    assert batch is not None
    for offsets in (batch.offsets, json.loads(json.dumps(batch.offsets))):
        again = kafka.scan(filled, start=offsets, end=offsets)
        rows = [number for part in again for number in numbers(part)]
        assert sorted(rows) == sorted(numbers(batch))
    with pytest.raises(ottla.ConfigError, match="resume="):
        kafka.consumer(filled, start=batch.offsets)
    with pytest.raises(ottla.ConfigError, match=f"offsets for {filled}, not for other"):
        kafka.scan("other", start=batch.offsets)


@pytest.mark.parametrize("bad", [{"t": 3}, {"t": {0: -1}}, {"t": {0: (1, 2, 3)}}])
def test_what_are_no_offsets_is_refused(kafka: ottla.Client, filled: str, bad: Any) -> None:
    with pytest.raises(ottla.ConfigError):
        kafka.consumer(filled, resume=bad)
    with pytest.raises(TypeError, match="resume="):
        kafka.consumer(filled, resume=7)  # type: ignore[arg-type]


def test_a_batch_ends_with_the_record_that_reaches_max_bytes(
    kafka: ottla.Client, name: str
) -> None:
    for _ in range(6):
        kafka.send_async(name, b"x" * 1000)
    kafka.flush(30)
    with kafka.consumer(
        name, start="earliest", until="caught_up", max_bytes=1500, memory_limit=10_000
    ) as consumer:
        assert [batch.num_rows for batch in consumer] == [2, 2, 2]


def test_progress_tells_the_rows_of_a_consumer(kafka: ottla.Client, filled: str) -> None:
    class Shown:
        def __init__(self) -> None:
            self.counts: list[int] = []
            self.closed = 0

        def update(self, count: int) -> None:
            self.counts.append(count)

        def close(self) -> None:
            self.closed += 1

    shown = Shown()
    with kafka.consumer(
        filled, start="earliest", until="caught_up", max_rows=8, progress=shown
    ) as consumer:
        rows = [batch.num_rows for batch in consumer]
    consumer.close()
    assert (shown.counts, shown.closed) == (rows, 1)
    assert sum(rows) == 20


# --- SQL ------------------------------------------------------------------------------------------


def test_sql_offsets_go_with_the_transaction_of_the_rows() -> None:
    db = sqlite3.connect(":memory:")
    assert ottla.sql_offsets.load(db, "etl") == {}
    assert not db.in_transaction
    with db:
        ottla.sql_offsets.save(db, "etl", {"a": {0: (0, 5), 1: (0, 7)}, "b": {3: (9, 12)}})
        ottla.sql_offsets.save(db, "other", {"a": {"0": 99}})
    ottla.sql_offsets.save(db, "etl", {"a": {0: (5, 6)}})
    db.rollback()
    with db:
        ottla.sql_offsets.save(db, "etl", {"b": {3: (12, 40)}})
    assert ottla.sql_offsets.load(db, "etl") == {"a": {0: 5, 1: 7}, "b": {3: 40}}
    assert ottla.sql_offsets.load(db, "other") == {"a": {0: 99}}
    db.close()


def test_a_second_run_of_the_same_rows_is_fenced() -> None:
    db = sqlite3.connect(":memory:")
    ottla.sql_offsets.load(db, "etl", table="main.places")
    ottla.sql_offsets.save(db, "etl", {"a": {0: (0, 5)}}, table="main.places")
    with pytest.raises(ottla.FencedError, match="a-0 up to offset 5"):
        ottla.sql_offsets.save(db, "etl", {"a": {0: (0, 5)}}, table="main.places")
    # A gap is not an error: compaction leaves gaps.
    ottla.sql_offsets.save(db, "etl", {"a": {0: (8, 9)}}, table="main.places")
    with pytest.raises(ottla.ConfigError, match="name of a table"):
        ottla.sql_offsets.load(db, "etl", table="a; DROP TABLE b")
    db.close()


def test_sqlalchemy_connections_and_sessions_hold_offsets(tmp_path: Path) -> None:
    from sqlalchemy.orm import Session

    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path}/offsets.db")
    with engine.connect() as connection:
        assert ottla.sql_offsets.load(connection, "etl") == {}
        assert not connection.in_transaction()
        with connection.begin():
            ottla.sql_offsets.save(connection, "etl", {"a": {0: (0, 5)}})
    with Session(engine) as session, session.begin():
        ottla.sql_offsets.save(session, "etl", {"a": {0: (5, 8)}})
    with engine.connect() as connection:
        ottla.sql_offsets.save(connection, "etl", {"a": {0: (8, 9)}})
        connection.rollback()
    with engine.begin() as connection:
        assert ottla.sql_offsets.load(connection, "etl") == {"a": {0: 8}}
    engine.dispose()


def test_duckdb_holds_offsets() -> None:
    import duckdb

    db = duckdb.connect()
    assert ottla.sql_offsets.load(db.cursor(), "etl") == {}
    db.begin()
    ottla.sql_offsets.save(db, "etl", {"a": {0: (0, 5)}})
    ottla.sql_offsets.save(db, "etl", {"a": {0: (5, 6)}})
    db.commit()
    assert ottla.sql_offsets.load(db, "etl") == {"a": {0: 6}}
    db.close()


@pytest.mark.parametrize(
    ("style", "statement", "values"),
    [
        ("qmark", "a = ? AND b = ? AND a = ?", [1, 2, 1]),
        ("numeric", "a = :1 AND b = :2 AND a = :3", [1, 2, 1]),
        ("format", "a = %s AND b = %s AND a = %s", [1, 2, 1]),
        ("named", "a = :a AND b = :b AND a = :a", {"a": 1, "b": 2}),
        ("pyformat", "a = %(a)s AND b = %(b)s AND a = %(a)s", {"a": 1, "b": 2}),
    ],
)
def test_statements_are_written_as_the_driver_wants_them(
    style: str, statement: str, values: Any
) -> None:
    written = ottla.sql_offsets._in_style("a = :a AND b = :b AND a = :a", {"a": 1, "b": 2}, style)
    assert written == (statement, values)


# --- Delta ----------------------------------------------------------------------------------------


def rows_of(table: Path) -> list[int]:
    found = deltalake.DeltaTable(table).to_pyarrow_table(columns=["value"])["value"].to_pylist()
    return sorted(int(value) for value in found)


def test_a_delta_table_says_where_to_go_on(
    kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    table = tmp_path / "table"
    offsets = ottla.delta_offsets(table, "etl")
    assert offsets(filled, 0) is None
    assert repr(offsets) == "<ottla.DeltaOffsets of 'etl' in an empty location>"
    for round_ in range(1, 4):
        with kafka.consumer(
            filled,
            resume=ottla.delta_offsets(str(table), "etl"),
            until="caught_up",
            max_rows=7,
            value=ottla.text(),
            columns=["value", "offset"],
        ) as consumer:
            batch = consumer.poll(30)
            assert batch is not None
            deltalake.write_deltalake(
                table, batch, mode="append", commit_properties=batch.delta_txn("etl")
            )
        assert len(rows_of(table)) == min(20, 7 * round_)
    assert rows_of(table) == list(range(20))
    loaded = deltalake.DeltaTable(table)
    assert ottla.delta_offsets(loaded, "etl")(filled, 1) == 10
    assert ottla.delta_offsets(loaded, "other")(filled, 1) is None


def test_a_delta_table_refuses_the_same_rows_twice(
    kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    with kafka.consumer(filled, start="earliest", until="caught_up") as consumer:
        batch = consumer.poll(30)
    assert batch is not None
    place = tmp_path / "table"
    deltalake.write_deltalake(place, batch.head(0))
    fast, slow = deltalake.DeltaTable(place), deltalake.DeltaTable(place)
    late = batch.delta_txn("etl", table=slow)
    deltalake.write_deltalake(
        fast, batch, mode="append", commit_properties=batch.delta_txn("etl", table=fast)
    )
    with pytest.raises(deltalake.exceptions.CommitFailedError):
        deltalake.write_deltalake(slow, batch, mode="append", commit_properties=late)
    with pytest.raises(ottla.FencedError, match="up to offset"):
        batch.delta_txn("etl", table=deltalake.DeltaTable(place))
    assert rows_of(place) == sorted(numbers(batch))
