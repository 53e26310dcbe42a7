"""Arrow IPC streams as values: a record of many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from ottla.typing import BufferCompression


def stream(*batches: pa.RecordBatch, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def points(start: int, count: int) -> pa.RecordBatch:
    numbers = range(start, start + count)
    return pa.record_batch(
        {
            "x": pa.array(numbers, pa.int64()),
            "name": pa.array([f"a name of some length {n}" for n in numbers], pa.string()),
            "tags": pa.array([[str(n)] * (n % 3) for n in numbers], pa.list_(pa.string())),
            "kind": pa.array(
                ["even" if n % 2 == 0 else None for n in numbers], pa.string()
            ).dictionary_encode(),
        }
    )


NAMES = ["x", "name", "tags", "kind"]


@pytest.fixture
def rows(kafka: ottla.Client, name: str) -> list[dict[str, Any]]:
    """Three records of 3, 0 and 2 + 2 rows."""
    kafka.send(name, stream(points(0, 3)), key="a", partition=0)
    kafka.send(name, stream(points(3, 0)), key="b", partition=0)
    kafka.send(name, stream(points(3, 2), points(5, 2)), key="c", partition=0)
    rows: list[dict[str, Any]] = points(0, 7).to_pylist()
    return rows


def test_rows_come_with_the_columns_of_their_records(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=["offset", "key", *NAMES])
    found = scan.head(100).to_pylist()
    assert [{one: row[one] for one in NAMES} for row in found] == rows
    assert [row["offset"] for row in found] == [0] * 3 + [2] * 4
    assert [row["key"] for row in found] == [b"a"] * 3 + [b"c"] * 4
    assert scan.count() == 7
    assert scan.to_polars()["x"].to_list() == list(range(7))
    assert scan.to_pyarrow().select(NAMES).to_pylist() == rows
    assert kafka[name].tail(2, value=ottla.arrow_ipc())["x"].to_pylist() == [5, 6]
    assert kafka.scan(name, value=ottla.arrow_ipc(), columns=["offset"]).head(9).num_rows == 7


def test_a_consumer_and_its_offsets(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    with kafka.consumer(
        name, start="earliest", until="caught_up", value=ottla.arrow_ipc(), columns=NAMES
    ) as consumer:
        batches = list(consumer)
    assert [row for batch in batches for row in batch.to_pylist()] == rows
    assert batches[-1].offsets == {name: {0: (0, 3)}}
    (cut,) = kafka.scan(name, value=ottla.arrow_ipc(), max_rows=5)
    assert cut["x"].to_pylist() == [0, 1, 2, 3, 4]
    # The third record was cut: continuing from here returns all of it.
    assert cut.offsets == {name: {0: (0, 2)}}
    (whole,) = kafka.scan(name, value=ottla.arrow_ipc(), max_rows=3)
    assert whole.offsets == {name: {0: (0, 1)}}


def test_columns_are_those_of_the_schema(
    kafka: ottla.Client, name: str, rows: list[dict[str, Any]]
) -> None:
    assert rows
    kafka.send(name, stream(pa.record_batch({"x": pa.array([9], pa.int8())})), partition=0)
    kafka.send(name, None, partition=0)
    value = ottla.arrow_ipc({"x": "float64", "more": "utf8"})
    scan = kafka.scan(name, value=value, columns=["x", "more", "is_tombstone"])
    found = scan.head(100).to_pylist()
    assert [row["x"] for row in found] == [*range(7), 9, None]
    assert {row["more"] for row in found} == {None}
    assert [row["is_tombstone"] for row in found] == [False] * 8 + [True]


def test_what_does_not_decode(kafka: ottla.Client, name: str) -> None:
    good = stream(points(0, 2))
    (kafka.send(name, good, partition=0), kafka.send(name, "nonsense", partition=0))
    kafka.send(name, good[: len(good) // 2], partition=0)
    kafka.send(name, b"\xff\xff\xff\xff\xff\xff\xff\x7f", partition=0)
    packed = stream(points(0, 200), options=pa.ipc.IpcWriteOptions(compression="lz4"))
    kafka.send(name, packed.replace(b"\x04\x22\x4d\x18", b"LZ4?"), partition=0)
    kafka.send(name, good, partition=0)
    value = ottla.arrow_ipc()
    with pytest.raises(ottla.DecodeError, match=r"1.*not an Arrow IPC stream"):
        list(kafka.scan(name, value=value))
    names = ["offset", "x", "error"]
    found = kafka.scan(name, value=value, columns=names, on_error="column").head(20).to_pylist()
    assert [row["offset"] for row in found] == [0, 0, 1, 2, 3, 4, 5, 5]
    assert [row["x"] for row in found] == [0, 1, None, None, None, None, 0, 1]
    assert [row["error"] is None for row in found] == [True] * 2 + [False] * 4 + [True] * 2
    assert "damaged" in found[5]["error"]
    kept = kafka.scan(name, value=value, columns=["x"], on_error=f"dlq:{name}.dlq")
    assert [x for batch in kept for x in batch["x"].to_pylist()] == [0, 1, 0, 1]
    letters = kafka.scan(f"{name}.dlq", columns=["value"]).head(9)["value"].to_pylist()
    assert letters[0] == b"nonsense"
    assert len(letters) == 4


def test_what_is_written_is_read_back(kafka: ottla.Client, remote: ottla.Client, name: str) -> None:
    table = pa.Table.from_batches([points(0, 700), points(700, 1), points(701, 2299)])
    assert remote.write(name, table, value=ottla.arrow_ipc(max_rows=1000), partition=0) == 3
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=["offset", *NAMES])
    found = scan.to_pyarrow()
    assert found.select(NAMES).to_pylist() == table.to_pylist()
    assert found["offset"].to_pylist() == [row // 1000 for row in range(3000)]
    # Any Arrow reader can read a value.
    (first, *_rest) = kafka.scan(name, columns=["key", "value"]).head(9).to_pylist()
    assert first["key"] is None
    read = pa.ipc.open_stream(first["value"]).read_all()
    assert read.to_pylist() == table.slice(0, 1000).to_pylist()


def test_polars_and_its_views_take_their_own_room(kafka: ottla.Client, name: str) -> None:
    texts = [f"{n:08} a text that is longer than a view" for n in range(5000)]
    frame = pl.DataFrame({"n": range(5000), "text": texts})
    assert kafka.write(name, frame, value=ottla.arrow_ipc(max_rows=500)) == 10
    scan = kafka.scan(name, columns=["value"])
    assert max(len(value) for value in scan.head(99)["value"].to_pylist()) < 50_000
    back = kafka.scan(name, value=ottla.arrow_ipc(), columns=["n", "text"]).to_polars()
    assert back.equals(frame)
    again = f"{name}.again"
    rows = kafka.scan(name, value=ottla.arrow_ipc(), columns=["n", "text"])
    assert kafka.write(again, rows, value=ottla.arrow_ipc()) == 1
    assert kafka.scan(again, value=ottla.arrow_ipc(), columns=["n"]).to_polars().height == 5000


def test_records_stay_within_a_batch(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1, config={"max.message.bytes": 20_000})
    texts = [str(n) * 2000 for n in range(10, 60)]
    table = pa.table({"text": texts})
    records = kafka.write(name, table, value=ottla.arrow_ipc())
    assert records > 10
    values = kafka.scan(name, columns=["value"]).head(99)["value"].to_pylist()
    assert max(len(value) for value in values) < 20_000
    back = kafka.scan(name, value=ottla.arrow_ipc(), columns=["text"]).head(99)
    assert back["text"].to_pylist() == texts
    with pytest.raises(ottla.MessageTooLargeError):
        kafka.write(name, pa.table({"text": ["x" * 30_000]}), value=ottla.arrow_ipc())


def test_rows_of_a_key_or_a_partition_go_together(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=3)
    numbers = list(range(90))
    table = pa.table(
        {"n": numbers, "key": [n % 4 for n in numbers], "to": [n % 3 for n in numbers]}
    )
    assert kafka.write(name, table, key="key", value=ottla.arrow_ipc(exclude=["to"])) == 4
    rows = kafka.scan(name, value=ottla.arrow_ipc(), columns=["_kafka", "n", "key"]).head(99)
    for row in rows.to_pylist():
        assert row["_kafka"]["key"] == str(row["n"] % 4).encode()
        assert row["key"] == row["n"] % 4
    assert sorted(rows["n"].to_pylist()) == numbers
    keyed = kafka.send(name, "x", key=3).partition
    kept = [row for row in rows.to_pylist() if row["key"] == 3]
    assert {row["_kafka"]["partition"] for row in kept} == {keyed}
    assert [row["n"] for row in kept] == list(range(3, 90, 4))
    other = f"{name}.other"
    kafka.create_topic(other, partitions=3)
    assert kafka.write(other, table, partition="to", value=ottla.arrow_ipc(max_rows=20)) == 6
    scan = kafka.scan(other, value=ottla.arrow_ipc(), columns=["_kafka.partition", "to"])
    for row in scan.head(99).to_pylist():
        assert row["_kafka"]["partition"] == row["to"]


def test_rows_without_a_key_are_spread(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=4)
    max_rows = 1000
    count = 8 * max_rows
    table = pa.table({"n": np.arange(count)})
    assert kafka.write(name, table, value=ottla.arrow_ipc(max_rows=max_rows)) == 8
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=["partition", "n"])
    found = scan.to_polars()
    assert found["partition"].value_counts()["count"].to_list() == [2 * max_rows] * 4
    assert found["n"].sort().to_list() == list(range(count))


@pytest.mark.parametrize("compression", ["lz4", "zstd"])
def test_compressed_streams(kafka: ottla.Client, name: str, compression: BufferCompression) -> None:
    packed = stream(points(0, 300), options=pa.ipc.IpcWriteOptions(compression=compression))
    kafka.send(name, packed, partition=0)
    value = ottla.arrow_ipc(compression=compression)
    kafka.write(name, points(300, 300), value=value, partition=0)
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=NAMES)
    assert scan.to_pyarrow().to_pylist() == points(0, 600).to_pylist()
    values = kafka.scan(name, columns=["value"]).head(2)["value"].to_pylist()
    assert len(values[1]) < len(stream(points(300, 300))) / 2
    assert pa.ipc.open_stream(values[1]).read_all().to_pylist() == points(300, 300).to_pylist()


def test_a_bomb_is_refused(kafka: ottla.Client, name: str) -> None:
    zeros = pa.record_batch({"x": pa.array(np.zeros(40_000_000))})
    bomb = stream(zeros, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    assert len(bomb) < 2_000_000
    kafka.create_topic(name, config={"max.message.bytes": 4_000_000})
    with ottla.connect(kafka.bootstrap_servers, max_request_size=4_000_000) as large:
        large.send(name, bomb)
    with pytest.raises(ottla.DecodeError, match="claims 320000000 uncompressed"):
        kafka.scan(name, value=ottla.arrow_ipc({"x": "float64"})).head()
    # Its claim is not trusted either: the buffer has 2,400 bytes.
    small = stream(points(0, 300), options=pa.ipc.IpcWriteOptions(compression="zstd"))
    assert small.count((2400).to_bytes(8, "little")) == 1
    lies = f"{name}.lies"
    for claimed in (2408, 1 << 62, -5):
        wrong = claimed.to_bytes(8, "little", signed=True)
        kafka.send(lies, small.replace((2400).to_bytes(8, "little"), wrong))
    scan = kafka.scan(
        lies, value=ottla.arrow_ipc({"x": "int64"}), columns=["error"], on_error="column"
    )
    errors = scan.head()["error"].to_pylist()
    assert len(errors) == 3
    assert None not in errors


def test_nothing_but_values_that_do_not_decode(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, None, partition=0)
    assert kafka.scan(name, value=ottla.arrow_ipc()).head().num_rows == 1
    sink = pa.BufferOutputStream()
    # A null of this type would take 8 GiB.
    pa.ipc.new_stream(sink, pa.schema({"x": pa.list_(pa.float32(), 2**31 - 1)})).close()
    kafka.send(name, sink.getvalue().to_pybytes(), partition=0)
    with pytest.raises(ottla.DecodeError, match=r"1.*fixed-size types"):
        kafka.scan(name, value=ottla.arrow_ipc()).head()
    scan = kafka.scan(name, value=ottla.arrow_ipc(), columns=["error"], on_error="column")
    assert [error is None for error in scan.head()["error"].to_pylist()] == [True, False]


def test_columns_of_nothing_but_nulls(kafka: ottla.Client, name: str) -> None:
    table = pa.table({"nothing": pa.nulls(10_000), "same": pa.array([True] * 10_000)})
    for value in (ottla.arrow_ipc(), ottla.arrow_ipc(compression="zstd")):
        kafka.write(name, table.select(["nothing"]), value=value)
        kafka.write(name, table, value=value)
    scan = kafka.scan(name, value=ottla.arrow_ipc({"same": "bool"}), columns=["same"])
    found = scan.to_polars()["same"]
    assert found.len() == 40_000
    assert found.null_count() == 20_000


def test_a_large_dictionary_is_written_as_far_as_it_is_used(kafka: ottla.Client, name: str) -> None:
    kinds = pa.DictionaryArray.from_arrays(
        pa.array(range(2000), pa.int32()), pa.array([f"kind {n}" * 20 for n in range(2000)])
    )
    kafka.write(name, pa.table({"kind": kinds}), value=ottla.arrow_ipc(max_rows=100))
    values = kafka.scan(name, columns=["value"]).head(99)["value"].to_pylist()
    assert len(values) == 20
    assert max(len(value) for value in values) < 30_000
    back = kafka.scan(name, value=ottla.arrow_ipc(), columns=["kind"]).to_pyarrow()
    assert back["kind"].to_pylist() == kinds.to_pylist()


def test_what_has_no_sense_for_many_rows_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    table = pa.table({"x": [1], "when": pa.array([0], pa.timestamp("ms")), "trace": ["a"]})
    value = ottla.arrow_ipc()
    with pytest.raises(ottla.ConfigError, match=r"when.*many rows"):
        kafka.write(name, table, timestamp="when", value=value)
    with pytest.raises(ottla.ConfigError, match=r"trace.*many rows"):
        kafka.write(name, table, headers={"trace": "trace"}, value=value)
    with pytest.raises(ottla.ConfigError, match="no column to write"):
        kafka.write(name, table, value=ottla.arrow_ipc(exclude=table.column_names))
    with pytest.raises(ottla.ConfigError, match="for reading"):
        kafka.write(name, table, value=ottla.arrow_ipc({"x": "int64"}))
    with pytest.raises(ottla.ConfigError, match="partition 9"):
        kafka.write(name, table.append_column("to", pa.array([9])), partition="to", value=value)
    with pytest.raises(ottla.ConfigError, match="at least 1"):
        ottla.arrow_ipc(max_rows=0)
    with pytest.raises(ottla.ConfigError, match="lz4 or zstd"):
        ottla.arrow_ipc(compression="gzip")  # type: ignore[arg-type]
    assert kafka.scan(name).count() == 0
    shown = repr(ottla.arrow_ipc(max_rows=5, compression="lz4"))
    assert shown == "ottla.arrow_ipc(max_rows=5, compression='lz4')"


def test_a_whole_table_is_sent_as_one_value(kafka: ottla.Client, name: str) -> None:
    table = pa.Table.from_batches([points(0, 3), points(3, 2)])
    kafka.send(name, table, value_format=ottla.arrow_ipc(), headers={"run": "7"})
    columns: list[str | ottla.Header] = ["offset", ottla.header("run"), *NAMES]
    rows = kafka.scan(name, value=ottla.arrow_ipc(), columns=columns).head(9).to_pylist()
    assert [{one: row[one] for one in NAMES} for row in rows] == table.to_pylist()
    assert {(row["offset"], row["run"]) for row in rows} == {(0, "7")}
    with pytest.raises(TypeError, match="no Arrow data"):
        kafka.send(name, 5, value_format=ottla.arrow_ipc())


def rows_of(column: pa.Array) -> pa.Table:
    return pa.table({"x": column})


def test_members_of_structs_are_found_by_name_at_any_depth(kafka: ottla.Client, name: str) -> None:
    def maps(struct: dict[str, str], *rows: Any) -> pa.Array:
        return pa.array(rows, pa.map_("string", pa.struct(struct)))

    first = maps({"a": "int64", "b": "int64"}, [("k", {"a": 1, "b": 2})])
    second = maps({"b": "int64"}, [("k", {"b": 4})])
    for column in (first, second, pa.array([None], first.type)):
        kafka.write(name, rows_of(column), value=ottla.arrow_ipc())
    given = ottla.arrow_ipc(pa.schema({"x": first.type}))
    for value in (ottla.arrow_ipc(), given):
        options: Any = {"value": value, "columns": ["x"]}
        found = kafka.scan(name, **options).to_pyarrow()["x"].to_pylist()
        assert found == [first[0].as_py(), [("k", {"a": None, "b": 4})], None]
        with kafka.consumer(name, start="earliest", until="caught_up", **options) as consumer:
            rows = [row["x"] for batch in consumer for row in batch.to_pyarrow().to_pylist()]
        assert rows == found


def test_a_member_or_column_that_the_first_value_lacks_is_an_error(
    kafka: ottla.Client, name: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, pa.table({"x": [1], "s": [{"a": 1}]}), value_format=ottla.arrow_ipc())
    kafka.send(name, pa.table({"x": [2], "y": [9]}), value_format=ottla.arrow_ipc())
    kafka.send(name, pa.table({"s": [{"a": 2, "b": 9}]}), value_format=ottla.arrow_ipc())
    kafka.send(name, pa.table({"x": [4]}), value_format=ottla.arrow_ipc())
    value = ottla.arrow_ipc()
    for columns in (None, ["x"]):
        with pytest.raises(
            ottla.DecodeError, match=r'offset 1: column "y" .*arrow_ipc\(\) a schema'
        ):
            list(kafka.scan(name, value=value, columns=columns))
    names = ["x", "s", "error"]
    found = kafka.scan(name, value=value, columns=names, on_error="column").head(9).to_pylist()
    assert [row["x"] for row in found] == [1, None, None, 4]
    assert '"s.b" is not among the columns' in found[2]["error"]
    assert found[3]["error"] is None
    kept = kafka.scan(name, value=value, columns=["x", "s"], on_error=f"dlq:{name}.dlq")
    assert [x for batch in kept for x in batch["x"].to_pylist()] == [1, 4]
    # A schema says what is wanted.
    given = ottla.arrow_ipc(pa.schema({"x": pa.int64(), "s": pa.struct({"a": pa.int64()})}))
    found = kafka.scan(name, value=given, columns=["x", "s"]).head(9).to_pylist()
    assert [row["x"] for row in found] == [1, 2, None, 4]
    assert [row["s"] for row in found] == [{"a": 1}, None, {"a": 2}, None]


def test_nulls_without_a_type_fit_every_type(kafka: ottla.Client, name: str) -> None:
    nulls, typed = pa.array([{"a": None, "b": 1}]), pa.array([{"a": "x", "b": 2}])
    for topic, order in ((f"{name}.a", (nulls, typed)), (f"{name}.b", (typed, nulls))):
        kafka.create_topic(topic, partitions=1)
        for column in order:
            kafka.write(topic, rows_of(column), value=ottla.arrow_ipc())
        wanted = [column[0].as_py() for column in order]
        for value in (ottla.arrow_ipc(), ottla.arrow_ipc(pa.schema({"x": typed.type}))):
            options: Any = {"value": value, "columns": ["x"]}
            assert kafka.scan(topic, **options).to_pyarrow()["x"].to_pylist() == wanted
            with kafka.consumer(topic, start="earliest", until="caught_up", **options) as consumer:
                found = [row["x"] for batch in consumer for row in batch.to_pylist()]
            assert found == wanted


def test_a_column_whose_type_comes_too_late_is_an_error(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    value = ottla.arrow_ipc()
    for _ in range(100):
        kafka.send_async(name, pa.table({"x": [None]}), value_format=value)
    kafka.send(name, pa.table({"x": [1]}), value_format=value)
    with pytest.raises(ottla.DecodeError, match=r'offset 100: column "x" is Int64, but has only'):
        list(kafka.scan(name, value=value))
    found = kafka.scan(name, value=ottla.arrow_ipc({"x": "int64"}), columns=["x"]).to_polars()
    assert found["x"].to_list() == [None] * 100 + [1]
