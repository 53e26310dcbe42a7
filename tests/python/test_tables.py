"""Tables in and out: every dataframe library, every value format."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable

    from ottla.typing import CompressionType

ROWS = 25_000
START = datetime(2024, 1, 1, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def orders() -> pl.DataFrame:
    """Events with a key, a time and several types."""
    numbers = np.arange(ROWS)
    return pl.DataFrame(
        {
            "id": numbers,
            "customer": [f"c{number % 97}" for number in range(ROWS)],
            "amount": numbers / 4,
            "paid": numbers % 3 == 0,
            "note": [None if number % 5 else f"note {number}" for number in range(ROWS)],
            "at": pl.Series([START + timedelta(seconds=int(n)) for n in numbers]).cast(
                pl.Datetime("ms", "UTC")
            ),
        }
    )


SCHEMA = {
    "id": "int64",
    "customer": "utf8",
    "amount": "float64",
    "paid": "bool",
    "note": "utf8",
    "at": "timestamp[ms, UTC]",
}


@pytest.fixture(scope="module")
def written(broker: ottla.Broker, orders: pl.DataFrame) -> str:
    """A topic with the events, in three partitions."""
    client = broker.client()
    client.create_topic("orders", partitions=3)
    assert client.write("orders", orders, key="customer", timestamp="at") == ROWS
    client.close()
    return "orders"


def same(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    names = wanted.columns
    found = found.select(names).sort("id")
    assert found.equals(wanted.sort("id")), (found, wanted)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_json_comes_back_typed(
    kafka: ottla.Client, name: str, orders: pl.DataFrame, codec: CompressionType
) -> None:
    kafka.create_topic(name, partitions=2)
    part = orders.head(3000)
    kafka.write(name, part, key="customer", timestamp="at", compression_type=codec)
    same(kafka.scan(name, value=ottla.json(SCHEMA)).to_polars(), part)


def test_json_schema_is_inferred(kafka: ottla.Client, written: str, orders: pl.DataFrame) -> None:
    scan = kafka.scan(written, value=ottla.json())
    assert scan.schema["id"] == "int64"
    assert scan.schema["amount"] == "float64"
    assert scan.schema["paid"] == "bool"
    found = scan.to_polars()
    assert found["amount"].sum() == orders["amount"].sum()
    assert found.filter(pl.col("note").is_null()).height == orders["note"].null_count()


def test_a_pyarrow_schema_is_taken(kafka: ottla.Client, written: str) -> None:
    whole = pa.schema([("id", pa.int32()), ("amount", pa.float32())])
    assert kafka.scan(written, value=ottla.json(whole)).schema["id"] == "int32"
    parts = {"id": pa.int16(), "at": ottla.ts("ms")}
    assert kafka.scan(written, value=ottla.json(parts)).schema["id"] == "int16"


def test_keys_and_times_go_with_the_rows(
    kafka: ottla.Client, written: str, orders: pl.DataFrame
) -> None:
    rows = kafka.scan(written, value=ottla.json({"customer": "utf8", "at": SCHEMA["at"]}))
    found = rows.to_polars()
    assert (found["key"].cast(pl.String) == found["customer"]).all()
    assert (found["timestamp"] == found["at"]).all()
    assert found.group_by("customer").agg(pl.col("partition").n_unique())["partition"].max() == 1
    assert found["customer"].value_counts().height == orders["customer"].n_unique()


@pytest.mark.parametrize("source", ["polars", "pandas", "pyarrow", "reader", "batch", "duckdb"])
def test_every_library_may_be_written(
    kafka: ottla.Client, name: str, orders: pl.DataFrame, source: str
) -> None:
    part = orders.head(1000)
    table = part.to_arrow()
    made: dict[str, Any] = {
        "polars": part,
        "pandas": table.to_pandas(),
        "pyarrow": table,
        "reader": pa.RecordBatchReader.from_batches(table.schema, table.to_batches(300)),
        "batch": table.combine_chunks().to_batches()[0],
        "duckdb": duckdb.from_arrow(table),
    }
    assert kafka.write(name, made[source], value=ottla.json()) == 1000
    found = kafka.scan(name, value=ottla.json(SCHEMA)).to_polars()
    assert found["amount"].sum() == part["amount"].sum()
    assert found["note"].null_count() == part["note"].null_count()


def test_every_library_may_read(kafka: ottla.Client, written: str, orders: pl.DataFrame) -> None:
    scan = kafka.scan(written, value=ottla.json(SCHEMA), columns=["id", "amount", "customer"])
    total = orders["amount"].sum()
    assert scan.to_polars()["amount"].sum() == total
    assert scan.to_pandas()["amount"].sum() == total
    assert isinstance(scan.to_pandas(), pd.DataFrame)
    assert pa.compute.sum(scan.to_pyarrow()["amount"]).as_py() == total
    assert pa.table(scan).num_rows == ROWS
    assert pl.DataFrame(scan).height == ROWS
    assert scan.to_numpy()["amount"].sum() == total
    assert scan.to_duckdb().aggregate("sum(amount)").fetchall() == [(total,)]
    assert duckdb.sql("select count(*) from scan").fetchall() == [(ROWS,)]


def test_a_scan_written_again_is_the_same_topic(
    kafka: ottla.Client, remote: ottla.Client, name: str, written: str
) -> None:
    kafka.create_topic(name, partitions=3)
    copied = remote.write(
        name,
        kafka.scan(written),
        key="key",
        partition="partition",
        timestamp="timestamp",
        headers="headers",
    )
    assert copied == ROWS
    columns = ["partition", "offset", "timestamp", "key", "value"]
    first = kafka.scan(written, columns=columns).to_polars().sort("partition", "offset")
    second = kafka.scan(name, columns=columns).to_polars().sort("partition", "offset")
    assert first.equals(second)


def test_raw_text_and_chosen_columns(kafka: ottla.Client, name: str) -> None:
    words = pl.DataFrame({"word": ["eins", "zwei", "drei"], "n": [1, 2, 3]})
    kafka.write(name, words, key="n", value=ottla.text("word"))
    found = kafka.scan(name, value=ottla.text(), columns=["value", "key"])
    assert sorted(found.to_polars().rows()) == [("drei", b"3"), ("eins", b"1"), ("zwei", b"2")]
    assert list(found.schema) == ["value", "key"]
    with pytest.raises(ottla.ConfigError, match="word"):
        kafka.scan(name, value=ottla.text("word"))
    with pytest.raises(ottla.ConfigError, match="nothing"):
        kafka.scan(name, columns=["nothing"])


def test_what_is_no_table_is_refused(kafka: ottla.Client, name: str) -> None:
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        kafka.write(name, [1, 2, 3])
    with pytest.raises(ottla.ConfigError, match="absent"):
        kafka.write(name, pl.DataFrame({"a": [1]}), key="absent")


def test_numbers_are_the_memory_of_the_batch(kafka: ottla.Client, written: str) -> None:
    batch = next(iter(kafka.scan(written)))
    offsets = batch["offset"].to_numpy()
    assert offsets.dtype == np.int64
    assert not offsets.flags.owndata
    assert not offsets.flags.writeable
    assert np.shares_memory(offsets, batch["offset"].to_numpy())
    assert batch["timestamp"].to_numpy().dtype == np.dtype("datetime64[ms]")
    assert np.asarray(batch["partition"]).dtype == np.int32
    assert batch["value"].to_numpy().dtype == object


def test_nulls_become_nan_in_numpy(kafka: ottla.Client, name: str) -> None:
    kafka.write(name, pl.DataFrame({"x": [1, None, 3]}))
    batch = kafka[name].head(value=ottla.json({"x": "int64"}))
    assert batch["x"].null_count == 1
    np.testing.assert_array_equal(batch["x"].to_numpy(), [1, np.nan, 3])


def test_a_batch_shows_itself(kafka: ottla.Client, written: str) -> None:
    batch = kafka[written].head(3, value=ottla.json(SCHEMA))
    assert len(batch) == batch.num_rows == 3
    assert "customer" in batch
    text = repr(batch)
    assert "3 rows" in text
    assert "customer" in text
    assert "<table>" in batch._repr_html_()
    assert "customer" in repr(batch["customer"])
    with pytest.raises(KeyError, match="no column"):
        batch["nothing"]
    with pytest.raises(IndexError):
        batch["id"][3]
    assert batch["id"][-1] == batch["id"].to_pylist()[-1]


def test_compact_lets_the_segments_go(kafka: ottla.Client, written: str) -> None:
    few = next(iter(kafka.scan(written))).head(3)
    small = few.compact()
    assert small.to_pylist() == few.to_pylist()
    assert small.nbytes < few.nbytes


def test_bad_json_is_raised_nulled_or_told(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    for value in ('{"a": 1}', "not json", '{"a": "text"}', None, '{"a": 4}'):
        kafka.send(name, value)
    form = ottla.json({"a": "int64"})
    with pytest.raises(ottla.DecodeError, match=f"{name}-0 at offset 1"):
        list(kafka.scan(name, value=form))
    with pytest.raises(ottla.DecodeError):
        kafka.scan(name, value=form).to_polars()
    nulled = kafka.scan(name, value=form, on_error="null", columns=["a"]).to_polars()
    assert nulled["a"].to_list() == [1, None, None, None, 4]
    told = kafka.scan(name, value=form, on_error="column").to_polars()
    assert told["error"].is_null().to_list() == [True, False, False, True, True]
    with pytest.raises(ottla.ConfigError):
        kafka.scan(name, on_error="shrug")


def test_progress_is_told(kafka: ottla.Client, name: str, orders: pl.DataFrame) -> None:
    class Counter:
        rows = 0
        closed = False

        def update(self, count: int) -> None:
            self.rows += count

        def close(self) -> None:
            self.closed = True

    counter = Counter()
    kafka.write(name, orders.head(500), progress=counter)
    assert (counter.rows, counter.closed) == (500, True)
    counter = Counter()
    kafka.scan(name).to_polars(progress=counter)
    assert (counter.rows, counter.closed) == (500, True)


def test_columns_become_headers(kafka: ottla.Client, name: str) -> None:
    rows = pl.DataFrame(
        {
            "id": [1, 2, 3],
            "trace": ["a", None, "c"],
            "raw": [b"\x00", b"\xff", None],
            "tries": [0, 7, -1],
        }
    )
    headers = {"trace-id": "trace", "raw": "raw", "tries": "tries"}
    kafka.create_topic(name, partitions=1)
    kafka.write(name, rows, headers=headers)
    scan = kafka.scan(name, value=ottla.text(), columns=["value", "headers"])
    assert scan.head().to_pylist() == [
        {
            "value": f'{{"id":{number}}}',
            "headers": [{"key": key, "value": value} for key, value in pairs],
        }
        for number, pairs in (
            (1, [("trace-id", b"a"), ("raw", b"\x00"), ("tries", b"0")]),
            (2, [("raw", b"\xff"), ("tries", b"7")]),
            (3, [("trace-id", b"c"), ("tries", b"-1")]),
        )
    ]
    # As they are read, they can be written.
    columns = [ottla.header("trace-id", name="trace"), ottla.header("raw", text=False)]
    read = kafka.scan(name, columns=["value", *columns])
    again = f"{name}.again"
    kafka.create_topic(again, partitions=1)
    kafka.write(again, read, headers=columns)
    assert kafka.scan(again, columns=["value", *columns]).head().to_pylist() == (
        read.head().to_pylist()
    )
    with pytest.raises(ottla.ConfigError, match='no column "other"'):
        kafka.write(name, rows, headers={"a": "other"})
    with pytest.raises(ottla.ConfigError, match=r"header column .*share.* Float64"):
        kafka.write(name, pl.DataFrame({"share": [0.5]}), headers={"a": "share"})
    with pytest.raises(TypeError, match=r"ottla\.header"):
        kafka.write(name, rows, headers=["trace"])  # type: ignore[list-item]
    assert kafka.scan(name).count() == 3


IDS = [uuid.UUID(int=5), None, uuid.UUID(int=6)]
AVRO_IDS: list[Any] = ["string", "bytes", {"type": "fixed", "name": "F", "size": 16}]


def test_uuids_of_polars_are_written_like_those_of_pandas(kafka: ottla.Client, name: str) -> None:
    frames = [
        pl.DataFrame({"x": [1, 2, 3], "id": IDS}, strict=False),
        pd.DataFrame({"x": [1, 2, 3], "id": IDS}),
    ]
    assert frames[0].schema["id"] == pl.Object
    formats = [
        ottla.json(),
        ottla.arrow_ipc(),
        ottla.protobuf('syntax = "proto3"; message R { int64 x = 1; optional string id = 2; }'),
    ]
    for kind in AVRO_IDS:
        fields = [{"name": "x", "type": "long"}, {"name": "id", "type": ["null", kind]}]
        formats.append(ottla.avro({"type": "record", "name": "R", "fields": fields}))
    for number, value in enumerate(formats):
        found = []
        for library, frame in zip(("polars", "pandas"), frames, strict=True):
            topic = f"{name}.{number}.{library}"
            key = None if value.kind == "arrow_ipc" else "id"
            kafka.write(topic, frame, value=value, key=key)
            read = kafka.scan(topic, value=value, columns=["key", "x", "id"]).head(9).to_pylist()
            found.append(sorted(read, key=lambda row: row["x"]))
        assert found[0] == found[1]
    first = (
        kafka.scan(f"{name}.0.polars", value=ottla.json(), columns=["key", "id"])
        .head(9)
        .to_pylist()
    )
    wanted = (str(IDS[0]).encode(), str(IDS[0]))
    assert wanted in [(row["key"], row["id"]) for row in first]
    kafka.write(f"{name}.alone", frames[0].select("id"))
    assert kafka.scan(f"{name}.alone").count() == 3


@pytest.mark.parametrize(
    "values",
    [[Path("a")], [{1}], [object(), uuid.UUID(int=5)], [uuid.UUID(int=5), "text"]],
    ids=["paths", "sets", "an object and a UUID", "a UUID and text"],
)
@pytest.mark.parametrize("key", [None, "id"])
def test_other_objects_of_polars_are_refused(
    kafka: ottla.Client, name: str, values: list[Any], key: str | None
) -> None:
    frame = pl.DataFrame({"id": pl.Series(values, dtype=pl.Object)})
    for value in (None, ottla.arrow_ipc()):
        with pytest.raises(ottla.ConfigError, match=r"column 'id' is Object .*cast it"):
            kafka.write(name, frame, key=key, value=value)
    with pytest.raises(ottla.ConfigError, match=r"column 'id' is Object .*cast it"):
        kafka.send(name, frame, value_format=ottla.arrow_ipc())


@pytest.mark.parametrize("kind", [pl.Int128, pl.List(pl.Int128), pl.Struct({"a": pl.Int128})])
def test_types_of_polars_that_arrow_does_not_have_are_refused(
    kafka: ottla.Client, name: str, kind: Any
) -> None:
    frame = pl.DataFrame({"big": pl.Series([None], dtype=kind)})
    with pytest.raises(ottla.ConfigError, match=r"column 'big' is .*Int128.*Decimal\(38, 0\)"):
        kafka.write(name, frame)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ([1, None, "x"], r"row 2 is 'x' \(str\), but row 0 is 1 \(int\)"),
        (["x", 1], r"row 1 is 1 \(int\), but row 0 is 'x' \(str\)"),
        ([{"b": 1}, [1]], r"row 1 is \[1\] \(list\), but row 0 is \{'b': 1\} \(dict\)"),
        ([1j], r"row 0 is 1j \(complex\)"),
    ],
)
def test_objects_of_pandas_without_a_type_of_their_own_are_told_by_row(
    kafka: ottla.Client, name: str, values: list[Any], told: str
) -> None:
    frame = pd.DataFrame({"n": range(len(values)), "a": pd.Series(values, dtype=object)})
    remedy = r".*df\['a'\]\.astype\(str\).*drop\(columns='a'\)"
    with pytest.raises(ottla.ConfigError, match=f"column 'a' is object.*{told}{remedy}"):
        kafka.write(name, frame, value=ottla.json())
    with pytest.raises(ottla.ConfigError, match=told):
        kafka.send(name, frame, value_format=ottla.arrow_ipc())
    kafka.write(name, frame.assign(a=frame["a"].astype(str)), value=ottla.json())


MONTHS = pa.array(pd.period_range("2020-01", periods=2, freq="M"))
RANGES = pa.array(pd.interval_range(0, 2, closed="left"))


@pytest.mark.parametrize("form", [ottla.json, ottla.avro, ottla.protobuf])
@pytest.mark.parametrize(("column", "told"), [(MONTHS, "bare integers"), (RANGES, "bounds")])
def test_extension_types_of_pandas_are_refused_in_arrow_tables(
    kafka: ottla.Client, name: str, form: Callable[[], ottla.Format], column: pa.Array, told: str
) -> None:
    nested = pa.StructArray.from_arrays([column], names=["in"])
    tables = [pa.table({"c": column, "n": [1, 2]}), pa.table({"c": nested, "n": [1, 2]})]
    lists = pa.ListArray.from_arrays([0, 1, 2], column)
    for table in [*tables, pa.table({"c": lists, "n": [1, 2]})]:
        for data in (table, table.to_batches()[0], table.to_reader()):
            with pytest.raises(ottla.ConfigError, match=rf"column .c. has .* of pandas.*{told}"):
                kafka.write(name, data, value=form())
    with pytest.raises(ottla.ConfigError, match=rf"column .c. has .* of pandas.*{told}"):
        kafka.write(name, tables[0], value=form(), key="c")
    categories = pa.table({"c": pa.DictionaryArray.from_arrays([0, 1], column)})
    with pytest.raises(ottla.ConfigError, match="column 'c' has categories of pandas"):
        kafka.write(name, categories, value=form())
    assert name not in kafka.topics() or kafka.scan(name).count() == 0


def test_arrow_ipc_keeps_extension_types_of_pandas(kafka: ottla.Client, name: str) -> None:
    table = pa.table({"month": MONTHS, "range": RANGES})
    kafka.write(name, table, value=ottla.arrow_ipc())
    [value] = kafka.scan(name).head(1)["value"].to_pylist()
    assert pa.ipc.open_stream(value).read_all() == table


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (pd.interval_range(0, 2), r"interval\[int64, right\].*astype\(str\)"),
        (pd.cut([1, 2], 2), r"interval\[float64, right\].*astype\(str\)"),
        (pd.arrays.SparseArray([0, 1]), r"Sparse\[int64, 0\].*\.sparse\.to_dense\(\)"),
        ([1j, 2j], r"complex128.*\.real and \.imag"),
    ],
)
def test_columns_of_pandas_that_arrow_would_change_or_not_take_are_refused(
    kafka: ottla.Client, name: str, column: Any, told: str
) -> None:
    with pytest.raises(ottla.ConfigError, match=f"column 'c' is {told}"):
        kafka.write(name, pd.DataFrame({"c": column}))
    with pytest.raises(ottla.ConfigError, match=f"column 'c' is {told}"):
        kafka.write(name, pd.DataFrame({"x": [1, 2]}, index=pd.Index(column, name="c")))


def test_periods_of_pandas_are_refused(kafka: ottla.Client, name: str) -> None:
    months = pd.period_range("2020-01", periods=2, freq="M", name="month")
    frames = [
        pd.DataFrame({"month": months}),
        pd.DataFrame({"month": pd.Categorical(months)}),
        pd.DataFrame({"x": [1, 2]}, index=months),
    ]
    for frame in frames:
        with pytest.raises(ottla.ConfigError, match=r"column 'month' is period.*to_timestamp\(\)"):
            kafka.write(name, frame)
    kafka.write(name, frames[0].astype(str))
    assert kafka.scan(name, value=ottla.json()).head(1)["month"].to_pylist() == ["2020-01"]


def test_rows_may_be_dictionaries(kafka: ottla.Client, name: str) -> None:
    rows = [
        {"id": 1, "amount": 9.5, "tags": ["a"], "when": datetime(2024, 1, 1, tzinfo=timezone.utc)},
        {"id": 2, "amount": 3},
        {"id": 3, "more": {"x": True}},
    ]
    assert kafka.write(name, rows, key="id") == 3
    form = {"id": "int64", "amount": "float64", "tags": "list<utf8>", "more": "struct<x: bool>"}
    found = kafka.scan(name, value=form, columns=["key", *form]).to_polars().sort("id")
    assert found.to_dicts() == [
        {"key": b"1", "id": 1, "amount": 9.5, "tags": ["a"], "more": None},
        {"key": b"2", "id": 2, "amount": 3.0, "tags": None, "more": None},
        {"key": b"3", "id": 3, "amount": None, "tags": None, "more": {"x": True}},
    ]
    assert kafka.write(name, []) == 0
    assert kafka.write(name, ({"id": 4},)) == 1
    for bad, kind, words in (
        ([{"id": 1}, 5], TypeError, "row 1 is not a mapping"),
        ([{1: 2}], TypeError, "name of a column"),
        ([{"id": 1}, {"id": "x"}], ottla.ConfigError, "'id' of the rows"),
        ([{"id": object()}], ottla.ConfigError, "'id' of the rows"),
    ):
        with pytest.raises(kind, match=words):
            kafka.write(name, bad)
    assert kafka.scan(name).count() == 4
