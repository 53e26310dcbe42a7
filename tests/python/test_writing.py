"""Nothing of a table is lost when it is written: columns, indexes, keys, times, failures."""

from __future__ import annotations

import warnings
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from pathlib import Path

UTC = timezone.utc


def values(kafka: ottla.Client, name: str) -> list[str | None]:
    return [row["value"] for batch in kafka.scan(name, value=ottla.text()) for row in batch]


# --- a column that is called value ----------------------------------------------------------------


def test_a_column_called_value_never_drops_the_others(kafka: ottla.Client, name: str) -> None:
    rows = pl.DataFrame({"sensor": ["s"], "unit": ["C"], "value": ["1.5"]})
    with pytest.raises(ottla.ConfigError, match=r"sensor, unit would be lost.*ottla\.json\(\)"):
        kafka.write(name, rows)
    kafka.create_topic(name, partitions=1)
    kafka.write(name, rows, value=ottla.json())
    kafka.write(name, rows, value=ottla.raw("value"))
    kafka.write(name, rows.select("value"))
    # Named for other parts, they are not lost.
    kafka.write(name, rows, key="sensor", headers={"unit": "unit"})
    # A number is no value as it is, so that nothing is in doubt.
    kafka.write(name, rows.with_columns(value=pl.lit(1.5)))
    whole = '{"sensor":"s","unit":"C","value":"1.5"}'
    number = '{"sensor":"s","unit":"C","value":1.5}'
    assert values(kafka, name) == [whole, "1.5", "1.5", "1.5", number]


@pytest.mark.parametrize("part", ["key", "timestamp", "headers", "partition", "topic", "offset"])
def test_columns_named_like_parts_are_not_dropped(
    kafka: ottla.Client, name: str, part: str
) -> None:
    rows = pl.DataFrame({part: ["a"], "value": ["x"]})
    with pytest.raises(ottla.ConfigError, match=f"{part} would be lost"):
        kafka.write(name, rows)
    kafka.write(name, rows.drop("value"))
    assert values(kafka, name) == [f'{{"{part}":"a"}}']


def test_a_key_that_is_called_value_leaves_the_others(kafka: ottla.Client, name: str) -> None:
    kafka.write(name, pl.DataFrame({"value": ["x"], "n": [1]}), key="value")
    assert values(kafka, name) == ['{"value":"x","n":1}']


@pytest.mark.parametrize("value", [ottla.raw(), ottla.text(), ottla.json()])
@pytest.mark.parametrize("as_batches", [False, True])
def test_what_a_scan_returns_is_written_as_the_records_that_it_was(
    kafka: ottla.Client, remote: ottla.Client, name: str, value: ottla.Format, as_batches: bool
) -> None:
    moment = datetime(2024, 5, 6, 7, 8, 9, 123_000, tzinfo=UTC)
    kafka.create_topic(name, partitions=1)
    for number in range(3):
        kafka.send(
            name, {"n": number}, key=number or None, timestamp=moment, headers=[("h", b"\xff")]
        )
    copy = f"{name}.copy"
    kafka.create_topic(copy, partitions=1)
    scan = kafka.scan(name, value=value)
    for table in scan if as_batches else [scan]:
        remote.write(copy, table)
    columns = ["offset", "timestamp", "key", "value", "headers"]
    wanted = kafka.scan(name, columns=columns).head().to_pylist()
    assert kafka.scan(copy, columns=columns).head().to_pylist() == wanted
    assert wanted[1]["key"] == b"1"


def test_a_scan_with_more_beside_its_bytes_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, "x", headers={"trace": "t"})
    scan = kafka.scan(name, columns=["value", ottla.header("trace")])
    with pytest.raises(ottla.ConfigError, match="trace would be lost"):
        kafka.write(name, scan)
    with pytest.raises(ottla.ConfigError, match="no column is left"):
        kafka.write(name, kafka.scan(name, columns=["key"]))


def forms(**options: Any) -> list[ottla.Format]:
    """Return the formats that have a column for each member."""
    fields = [{"name": "x", "type": "long"}, {"name": "y", "type": ["null", "string"]}]
    return [
        ottla.json(**options),
        # A row of nulls would not even be a value of this schema.
        ottla.avro({"type": "record", "name": "Row", "fields": fields}, **options),
        ottla.protobuf('syntax = "proto3"; message Row { int64 x = 1; string y = 2; }', **options),
    ]


KEYS = ["a", "b", "a", "c"]


def send_with_tombstones(kafka: ottla.Client, topic: str, form: ottla.Format) -> None:
    """Send values for three keys, one of which is deleted."""
    kafka.create_topic(topic, partitions=1)
    for number, key in enumerate(KEYS):
        value = None if number == 2 else {"x": number, "y": str(number)}
        kafka.send(topic, value, key=key, value_format=form)


def nulls(kafka: ottla.Client, topic: str) -> list[bool]:
    """Return which records of a topic have no value."""
    kafka_rows = kafka.scan(topic, columns=["key", "value"]).head(100)
    return [row["value"] is None for row in kafka_rows]


@pytest.mark.parametrize("form", forms(), ids=lambda form: form.kind)
@pytest.mark.parametrize("kind", ["scan", "max_rows", "batches", "consumer", "member", "parts"])
def test_tombstones_stay_tombstones_in_a_copy(
    kafka: ottla.Client, remote: ottla.Client, name: str, form: ottla.Format, kind: str
) -> None:
    send_with_tombstones(kafka, name, form)
    copy = f"{name}.copy"
    remote.create_topic(copy, partitions=1)
    scan = remote.scan(name, value=form)
    group: dict[str, Any] = {}
    if kind == "member":
        group = {"group_id": name, "auto_offset_reset": "earliest"}
    if kind == "scan":
        remote.write(copy, scan)
    elif kind == "max_rows":
        remote.write(copy, remote.scan(name, value=form, max_rows=3))
        remote.write(copy, remote.scan(name, value=form, start={0: 3}))
    elif kind in {"consumer", "member"}:
        with remote.consumer(name, value=form, until="caught_up", max_rows=3, **group) as consumer:
            for batch in consumer:
                remote.write(copy, batch)
    elif kind == "batches":
        for batch in remote.scan(name, value=form, batch_rows=2):
            remote.write(copy, batch)
    else:
        head = scan.head(2)
        tail = remote[name].tail(2, value=form)
        for part in (head[0:1], head.tail(1), tail[::-1][1:].compact(), tail.plain()[1:]):
            remote.write(copy, part)
    assert nulls(kafka, copy) == nulls(kafka, name) == [False, False, True, False]
    rows = kafka.scan(copy, value=ottla.json(), columns=["key", "x", "y"]).head(9).to_pylist()
    assert [row["key"].decode() for row in rows] == KEYS
    assert [row["x"] for row in rows] == [0, 1, None, 3]
    assert [row["y"] for row in rows] == ["0", "1", None, "3"]


def test_tombstones_stay_beside_streams_of_many_rows(kafka: ottla.Client, name: str) -> None:
    form = ottla.arrow_ipc()
    kafka.create_topic(name, partitions=1)
    kafka.write(name, pl.DataFrame({"x": [0, 1], "k": ["a", "a"]}), key="k", value=form)
    kafka.send(name, None, key="a")
    copy = f"{name}.copy"
    kafka.create_topic(copy, partitions=1)
    kafka.write(copy, kafka.scan(name, value=form))
    assert nulls(kafka, copy) == [False, False, True]


@pytest.mark.parametrize("form", forms(exclude=["key"]), ids=lambda form: form.kind)
def test_tombstones_stay_where_values_get_another_format(
    kafka: ottla.Client, name: str, form: ottla.Format
) -> None:
    send_with_tombstones(kafka, name, ottla.json())
    copy = f"{name}.copy"
    kafka.create_topic(copy, partitions=1)
    rows = kafka.scan(name, value=ottla.json(), columns=["key", "x", "y"])
    kafka.write(copy, rows, key="key", value=form)
    assert nulls(kafka, copy) == [False, False, True, False]
    with pytest.raises(ottla.ConfigError, match=r"tombstone.*many rows"):
        kafka.write(copy, rows, key="key", value=ottla.arrow_ipc())
    # A dataframe does not know any more.
    kafka.write(copy, rows.to_polars().drop("key"), value=ottla.json())
    assert nulls(kafka, copy)[4:] == [False] * 4


@pytest.mark.parametrize("on_error", ["null", "column"])
@pytest.mark.parametrize("form", [ottla.json({"x": "int64"}), ottla.text()])
def test_what_did_not_decode_is_not_copied_as_null(
    kafka: ottla.Client, name: str, form: ottla.Format, on_error: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"x": 1}, key="a")
    kafka.send(name, b"\xff", key="b")
    scan = kafka.scan(name, value=form, on_error=on_error)
    copy = f"{name}.copy"
    kafka.create_topic(copy, partitions=1)
    with kafka.consumer(name, start="earliest", value=form, on_error=on_error) as consumer:
        polled = consumer.poll(30)
    for rows in (scan, next(iter(scan)), scan.head(), scan.head()[:1], polled):
        with pytest.raises(ottla.ConfigError, match=r'on_error=.*ottla\.raw\(\).*"raise"'):
            kafka.write(copy, rows)
    assert kafka.scan(copy).count() == 0
    # What the error offers.
    kafka.write(copy, kafka.scan(name, on_error=on_error))
    with pytest.raises(ottla.DecodeError, match=f"{name}-0.*offset 1"):
        kafka.write(copy, kafka.scan(name, value=form))
    if on_error == "column":
        kafka.write(copy, scan, key="key", value=ottla.raw("value_raw"))
        assert [row["value"] for row in kafka.scan(copy).head()] == [b'{"x":1}', b"\xff"] * 2


def test_what_tells_of_a_value_is_no_part_of_it(kafka: ottla.Client, name: str) -> None:
    send_with_tombstones(kafka, name, ottla.json())
    copy = f"{name}.copy"
    kafka.create_topic(copy, partitions=1)

    def scan(*columns: str) -> ottla.Scan:
        return kafka.scan(name, value=ottla.json(), columns=["key", *columns])

    kafka.write(copy, scan("x", "is_tombstone", "y"))
    kafka.write(copy, scan("value_raw", "is_tombstone"))
    kafka.write(copy, kafka.scan(name, columns=["key", "value", "is_tombstone"]))
    assert values(kafka, copy) == values(kafka, name) * 3
    with pytest.raises(ottla.ConfigError, match=r"value_raw .*columns="):
        kafka.write(copy, scan("x", "value_raw"))
    # A member of the values may have that name.
    kafka.create_topic(f"{name}.members", partitions=1)
    kafka.send(f"{name}.members", '{"is_tombstone":true}')
    kafka.write(copy, kafka.scan(f"{name}.members", value=ottla.json()))
    assert values(kafka, copy)[-1] == '{"is_tombstone":true}'


def test_two_columns_of_one_name_are_refused(kafka: ottla.Client, name: str) -> None:
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    with pytest.raises(ottla.ConfigError, match='two columns "a"'):
        kafka.write(name, table)


# --- pandas ---------------------------------------------------------------------------------------

FRAME = pd.DataFrame({"order_id": [1, 2, 3], "day": ["a", "b", "c"], "n": [7, 8, 9]})
TIMES = pd.date_range("2024-01-01", periods=3, tz="UTC")


class Subclass(pd.DataFrame):  # type: ignore[misc]
    """A frame of a library that builds on pandas."""

    @property
    def _constructor(self) -> Any:
        return Subclass


@pytest.mark.parametrize(
    ("frame", "columns"),
    [
        (FRAME, ["order_id", "day", "n"]),
        (FRAME.set_index("order_id"), ["order_id", "day", "n"]),
        (FRAME.set_index("order_id").sample(frac=1, random_state=1), ["order_id", "day", "n"]),
        (FRAME.set_index(pd.RangeIndex(3, name="row")), ["row", "order_id", "day", "n"]),
        (FRAME.set_index(["order_id", "day"]), ["order_id", "day", "n"]),
        (FRAME.set_index(TIMES.rename("at")), ["at", "order_id", "day", "n"]),
        (FRAME[FRAME["n"] > 7], ["order_id", "day", "n"]),
        (FRAME.sort_values("n", ascending=False), ["order_id", "day", "n"]),
        (FRAME.set_index(pd.Index([7, 7, 9], dtype="uint8")), ["order_id", "day", "n"]),
        (pd.DataFrame({"a": []}, index=pd.Index([], dtype=object)), ["a"]),
        (Subclass(FRAME).set_index("order_id"), ["order_id", "day", "n"]),
    ],
)
def test_a_named_index_is_a_column_and_positions_are_not(
    kafka: ottla.Client, name: str, frame: pd.DataFrame, columns: list[str]
) -> None:
    before = frame.copy()
    kafka.create_topic(name, partitions=1)
    written = kafka.write(name, frame)
    pd.testing.assert_frame_equal(frame, before)
    assert written == len(frame)
    if written:
        found = kafka.scan(name, value=ottla.json()).to_polars()
        names = [one for one in found.columns if one in columns or "index" in one]
        assert names == columns
        wanted = frame.reset_index() if frame.index.names[0] else frame
        assert found["n"].to_list() == wanted["n"].to_list()


@pytest.mark.parametrize(
    "index",
    [
        TIMES,
        pd.Index(["x", "y", "z"]),
        pd.Index([0.0, 1.0, 2.0]),
        pd.Index([True, False, True]),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b"), (3, "c")]),
        pd.MultiIndex.from_tuples([(1, "a"), (2, "b"), (3, "c")], names=["one", None]),
        pd.Index([1, 2, 3], name="n"),
    ],
)
def test_any_other_index_is_refused_and_not_lost(
    kafka: ottla.Client, name: str, index: pd.Index
) -> None:
    frame = FRAME.set_index(index)
    with pytest.raises(ottla.ConfigError, match=r"has no name|of an index and of a column"):
        kafka.write(name, frame)
    with pytest.raises(ottla.ConfigError, match=r"reset_index\(drop=True\)"):
        kafka.send(name, frame, value_format=ottla.arrow_ipc())


def test_an_index_is_a_field_of_a_schema(kafka: ottla.Client, name: str) -> None:
    schema = (
        '{"type": "record", "name": "Order", "fields": ['
        '{"name": "order_id", "type": "long"}, {"name": "n", "type": "long"}]}'
    )
    frame = FRAME.drop(columns="day").set_index("order_id")
    kafka.create_topic(name, partitions=1)
    kafka.write(name, frame, value=ottla.avro(schema))
    kafka.write(name, frame.reset_index()[lambda rows: rows["n"] > 7], value=ottla.avro(schema))
    found = kafka.scan(name, value=ottla.avro(schema), columns=["order_id", "n"]).to_polars()
    assert found.rows() == [(1, 7), (2, 8), (3, 9), (2, 8), (3, 9)]
    kafka.create_topic(f"{name}.ipc", partitions=1)
    kafka.send(f"{name}.ipc", frame, value_format=ottla.arrow_ipc())
    scan = kafka.scan(f"{name}.ipc", value=ottla.arrow_ipc(), columns=["order_id", "n"])
    assert scan.to_polars().rows() == [(1, 7), (2, 8), (3, 9)]


# --- keys, times and headers ----------------------------------------------------------------------

NOON = datetime(2024, 1, 2, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (date(2024, 1, 2), b"2024-01-02"),
        (NOON, b"2024-01-02T12:00:00Z"),
        (NOON.replace(tzinfo=None), b"2024-01-02T12:00:00Z"),
        (NOON.astimezone(timezone(timedelta(hours=2))), b"2024-01-02T12:00:00Z"),
        (NOON + timedelta(milliseconds=5), b"2024-01-02T12:00:00.005Z"),
        (NOON + timedelta(microseconds=5), b"2024-01-02T12:00:00.000005Z"),
        (time(9, 30), b"09:30:00"),
        (time(9, 30, 0, 1000), b"09:30:00.001"),
        (Decimal("1.50"), b"1.50"),
        (Decimal("1E+3"), b"1000"),
        (True, b"true"),
        (UUID(int=1), b"00000000-0000-0000-0000-000000000001"),
        (42, b"42"),
    ],
)
def test_a_key_is_the_text_that_everybody_would_write(
    kafka: ottla.Client, name: str, key: Any, text: bytes
) -> None:
    kafka.create_topic(name, partitions=4)
    sent = kafka.send(name, "sent", key=key)
    column = pa.array([key.bytes], pa.uuid()) if isinstance(key, UUID) else pa.array([key])
    table = pa.table({"k": column, "n": [1]})
    kafka.write(name, table, key="k", headers={"k": "k"})
    rows = kafka.scan(name, columns=["partition", "key", "headers"]).head().to_pylist()
    assert [(row["partition"], row["key"]) for row in rows] == [(sent.partition, text)] * 2
    assert rows[1]["headers"] == [{"key": "k", "value": text}]


def test_a_null_time_is_not_the_time_of_writing(kafka: ottla.Client, name: str) -> None:
    rows = pl.DataFrame({"at": [NOON, None], "n": [1, 2]})
    with pytest.raises(ottla.ConfigError, match='row 1: the timestamp column "at" is null'):
        kafka.write(name, rows, timestamp="at")
    assert kafka.scan(name).count() == 0


def test_names_of_headers_are_text(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, "x", headers=[(b"trace", b"1"), ("ü", None)])  # type: ignore[list-item]
    (row,) = kafka[name].head().to_pylist()
    assert row["headers"] == [{"key": "trace", "value": b"1"}, {"key": "ü", "value": None}]
    for wrong in ([(None, b"2")], [(5, b"2")], [("a", "b", "c")], "ab", [("a", 5)]):
        with pytest.raises(TypeError, match="header"):
            kafka.send(name, "x", headers=wrong)  # type: ignore[arg-type]
    with pytest.raises(ottla.ConfigError, match="UTF-8"):
        kafka.send(name, "x", headers=[(b"\xff", b"2")])  # type: ignore[list-item]
    assert kafka.scan(name).count() == 1


# --- old records ----------------------------------------------------------------------------------


def test_records_that_are_too_old_for_their_topic_are_warned_of(
    kafka: ottla.Client, name: str
) -> None:
    rows = pl.DataFrame({"at": [NOON, datetime.now(UTC)], "n": [1, 2]})
    week = {"retention_ms": 7 * 86_400_000}
    kafka.create_topic(name, partitions=1, config=week)
    told = r"retention\.ms=604800000 \(7 days\).*2024-01-02 12:00:00 UTC.*\"retention\.ms\": -1"
    with pytest.warns(ottla.RetentionWarning, match=told):
        assert kafka.write(name, rows, timestamp="at") == 2
    with pytest.warns(ottla.RetentionWarning, match=told):
        kafka.send(name, "x", timestamp=NOON)
    for harmless in (
        {"retention.ms": -1},
        {**week, "cleanup.policy": "compact"},
        {**week, "message.timestamp.type": "LogAppendTime"},
    ):
        other = f"{name}.{len(kafka.topics())}"
        kafka.create_topic(other, config=harmless)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            kafka.write(other, rows, timestamp="at", key="n")
            kafka.write(other, rows, key="n")
            kafka.send(other, "x", timestamp=NOON, key="k")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kafka.write(name, rows.tail(1), timestamp="at")
        kafka.alter_configs(name, {"retention_ms": -1})
        kafka.send(name, "x", timestamp=NOON)


def test_timestamps_of_records_are_milliseconds_rounded_down(
    kafka: ottla.Client, remote: ottla.Client, name: str
) -> None:
    """As the docstrings of send, write and the producer say, and types.md."""
    kafka.create_topic(name, partitions=1)
    rows = [(0, 0), (1, 0), (999, 0), (1000, 1), (1999, 1), (1_999_999, 1999)]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    times = [epoch + timedelta(microseconds=micros) for micros, _ in rows]
    for time_ in times:
        kafka.send(name, "x", timestamp=time_)
        kafka.send_async(name, "x", timestamp=time_.isoformat()).result(10)
    producer = ottla.Producer(remote)
    for unit in ("us", "ns"):
        frame = pl.DataFrame({"at": times}).with_columns(pl.col("at").dt.cast_time_unit(unit))
        producer.write(name, frame, timestamp="at")
    found = kafka.scan(name, columns=["timestamp"]).to_pyarrow()["timestamp"]
    assert found.type == pa.timestamp("ms", "UTC")
    millis = [wanted for _, wanted in rows]
    assert (
        found.cast(pa.int64()).to_pylist() == [one for one in millis for _ in range(2)] + millis * 2
    )
    # A microsecond before 1970 is the millisecond before, which Kafka has not.
    before = epoch - timedelta(microseconds=1)
    with pytest.raises(ottla.ConfigError, match="before 1970"):
        kafka.send(name, "x", timestamp=before)
    with pytest.raises(ottla.ConfigError, match=r"1969-12-31T23:59:59\.999Z is before 1970"):
        kafka.write(name, pl.DataFrame({"at": [before]}), timestamp="at")
    # A bound begins with the millisecond of its time.
    bounded = f"{name}.bounded"
    kafka.create_topic(bounded, partitions=1)
    for time_ in times:
        kafka.send(bounded, "x", timestamp=time_)
    assert kafka.scan(bounded, start=times[-1]).count() == 1
    assert kafka.scan(bounded, end=times[-1]).count() == len(times) - 1


# --- batches as sequences -------------------------------------------------------------------------


def test_a_batch_is_a_sequence_of_rows(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.write(name, pl.DataFrame({"n": range(10)}))
    (batch,) = kafka.scan(name, value=ottla.json(), columns=["n", "offset"])
    rows = [{"n": n, "offset": n} for n in range(10)]
    assert list(batch) == batch.to_pylist() == rows
    assert (batch[0], batch[-1]) == (rows[0], rows[-1])
    for part in (slice(2, 5), slice(None), slice(5, 2), slice(None, None, -1), slice(-3, None, 2)):
        assert batch[part].to_pylist() == rows[part]
    assert batch["n"].to_pylist() == list(range(10))
    for place in (10, -11):
        with pytest.raises(IndexError):
            batch[place]
    with pytest.raises(TypeError, match="float"):
        batch[1.5]  # type: ignore[call-overload]
    # The offsets are of all rows: some of them have none to commit by mistake.
    assert batch[:].offsets == batch.offsets == {name: {0: (0, 10)}}
    for some in (batch[2:5], batch.head(3), batch.tail(3), batch[2:5][:]):
        assert "3 rows" in repr(some)
        with pytest.raises(ottla.ConfigError, match="some rows of a batch"):
            _ = some.offsets


def test_constructors_take_a_scan_as_it_is_or_refuse(kafka: ottla.Client, name: str) -> None:
    kafka.write(name, pl.DataFrame({"n": range(10)}))
    scan = kafka.scan(name, value=ottla.json(), columns=["n"])
    batch = scan.head(10)
    numbers = list(range(10))
    for source in (scan, batch):
        assert pl.DataFrame(source)["n"].to_list() == numbers
        # As of every Arrow stream, polars makes one series of structs.
        assert pl.from_arrow(source).struct.unnest()["n"].to_list() == numbers
        assert pa.table(source)["n"].to_pylist() == numbers
        with pytest.raises(TypeError, match=r"to_pandas\(\)"):
            pd.DataFrame(source)
    assert pd.DataFrame(list(batch))["n"].to_list() == numbers


# --- words ----------------------------------------------------------------------------------------

TABLE = pl.DataFrame({"a": [1]})


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda k, t: k.write(t, TABLE, key=5), TypeError, "key= takes the name of a column"),
        (lambda k, t: k.write(t, TABLE, partition=1.5), TypeError, "partition= takes"),
        (
            lambda k, t: k.write(t, TABLE["a"]),
            TypeError,
            r"this is the column 'a' of Int64, not a table: pass it as series\.to_frame\(\)$",
        ),
        (
            lambda k, t: k.write(t, pd.Series([1], name="a")),
            TypeError,
            r"this is the column 'a' of Int64, not a table: pass it as series\.to_frame\(\)$",
        ),
        (lambda k, t: k.write(t, pl.Series([1])), TypeError, r'without a name.*to_frame\("name"\)'),
        (lambda k, t: k.write(t, TABLE, progress="x"), TypeError, "progress= takes"),
        (lambda k, t: k.send(t, "x", timestamp=5), TypeError, r"ottla\.timestamp\(5, 'ms'\)"),
        (lambda k, t: k.scan(t, columns="value"), TypeError, r"\['value'\]"),
        (lambda k, t: k.consumer(t, columns="value"), TypeError, r"\['value'\]"),
        (lambda k, t: k.scan(t, batch_rows="5"), TypeError, "batch_rows= takes a whole number"),
        (lambda k, t: k.scan(t, max_rows=True), TypeError, "max_rows=True: pass a number of rows"),
        (lambda k, t: k.scan(t, batch_rows=True), TypeError, "batch_rows= takes a whole number"),
        (lambda k, t: k.scan(t, threads=True), TypeError, "threads= takes a whole number"),
        (lambda k, t: k.scan(t, partitions=[True]), TypeError, "partitions= takes"),
        (lambda k, t: k.consumer(t, max_rows=True), TypeError, "max_rows= takes a whole number"),
        (lambda k, t: k.consumer(t, max_bytes=True), TypeError, "max_bytes= takes a whole number"),
        (lambda k, t: k.consumer(t, memory_limit=True), TypeError, "memory_limit= takes a whole"),
        (lambda k, t: k.write(t, TABLE, partition=True), TypeError, "partition= takes a partition"),
        (lambda k, t: k.send(t, "x", partition=True), TypeError, "True is not one"),
        (lambda k, t: k.create_topic(t, partitions=True), TypeError, "partitions= takes a whole"),
        (
            lambda k, t: k.create_topic(t, replication_factor=True),
            TypeError,
            "replication_factor= takes a whole number",
        ),
        (lambda _k, _t: ottla.json(infer=True), TypeError, "infer= takes a whole number"),
        (lambda _k, _t: ottla.arrow_ipc(max_rows=True), TypeError, "max_rows= takes a whole"),
        (lambda k, t: k.scan(t).head(True), TypeError, "pass a number of rows"),
        (lambda k, t: k.scan(t).head().head(True), TypeError, "True is not a whole number"),
        (lambda k, t: k.scan(f"{t[:-1]}_"), ottla.UnknownTopicError, "no topic .*did you mean"),
        (lambda k, t: k.configs(f"{t}_"), ottla.UnknownTopicError, "no topic .*did you mean"),
        (lambda k, t: k.delete_topic(f"{t}_"), ottla.UnknownTopicError, "no topic .*did you mean"),
        (lambda k, _t: k.offsets("zzz"), ottla.UnknownTopicError, "no topic zzz; create it first"),
        (lambda _k, _t: ottla.connect(5), TypeError, "host:port"),  # type: ignore[arg-type]
        (lambda _k, _t: ottla.connect("http://h:9092"), ottla.ConfigError, "example h:9092"),
        (
            lambda _k, _t: ottla.connect("h:1", sasl_mechanism="PLAIN"),  # type: ignore[call-arg]
            ottla.NotSupportedError,
            "not supported yet",
        ),
        (lambda k, t: k.create_topic(f"{t}x", config=["a"]), TypeError, "mapping"),
    ],
)
def test_errors_speak_of_what_was_written(
    kafka: ottla.Client, name: str, call: Any, error: type[Exception], words: str
) -> None:
    kafka.create_topic(name)
    with pytest.raises(error, match=words):
        call(kafka, name)


def test_no_error_says_the_same_twice(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.TopicExistsError) as exists:
        kafka.create_topic(name)
    assert str(exists.value).count("exists") == 1
    with pytest.raises(ottla.UnknownTopicError) as unknown:
        kafka.configs("nothing")
    assert str(unknown.value).count("UNKNOWN_TOPIC") == 1


def test_an_empty_topic_says_so_when_columns_are_named(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match=f"{name}.* no records"):
        kafka.scan(name, value=ottla.json(), columns=["a"]).to_polars()


# --- brokers --------------------------------------------------------------------------------------


def test_a_cell_that_starts_a_broker_runs_twice(tmp_path: Path) -> None:
    events = tmp_path / "events"
    with ottla.Broker(events) as broker:
        with pytest.raises(ottla.StorageError, match="reuse=True"):
            ottla.Broker(events)
        assert ottla.Broker(tmp_path / "." / "events", reuse=True) is broker
        assert ottla.Broker(events, reuse=True, durability=None) is broker
        with pytest.raises(ottla.ConfigError, match=r"num\.partitions=the default, not 3"):
            ottla.Broker(events, reuse=True, config={"num.partitions": 3})
        assert not broker.closed
    with ottla.Broker(events, reuse=True) as again:
        assert again is not broker
    with pytest.raises(ottla.ConfigError, match="path"):
        ottla.Broker(reuse=True)
