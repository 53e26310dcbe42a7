"""JSON values: what is not JSON is reported, what is comes back exactly, nothing vanishes."""

from __future__ import annotations

import datetime as dt
import json
import uuid
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla

FRAMED = b"\0\0\0\0\7"
NO_JSON = {
    "framed": FRAMED + b'{"id": 1}',
    "text": b"hello",
    "array": b"[1, 2]",
    "latin-1": b"gr\xfc\xdfe",
    "empty": b"",
    "number": b"7",
}


def sent(kafka: ottla.Client, name: str, *values: bytes | str | None) -> str:
    """Send values in order to one partition."""
    for value in values:
        kafka.send_async(name, value, partition=0)
    kafka.flush(30)
    return name


def column(kafka: ottla.Client, name: str, value: Any, column: str, **options: Any) -> list[Any]:
    """Scan one column."""
    rows: list[Any] = kafka.scan(name, value=value, **options).to_pyarrow()[column].to_pylist()
    return rows


# --- nothing decodes -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NO_JSON)
def test_values_of_which_none_is_a_json_object_are_errors(
    kafka: ottla.Client, name: str, kind: str
) -> None:
    bad = NO_JSON[kind]
    sent(kafka, name, None, *[bad] * 3)
    for columns in (None, ["id"]):
        scan = kafka.scan(name, value=ottla.json(), columns=columns)
        with pytest.raises(ottla.DecodeError, match=rf"{name}-0 at offset 1") as raised:
            scan.to_pyarrow()
        assert "on_error=" in str(raised.value)
    with pytest.raises(ottla.DecodeError):
        kafka[name].head(value=ottla.json())
    with pytest.raises(ottla.DecodeError):
        kafka[name].tail(2, value=ottla.json())
    rows = kafka.scan(name, value=ottla.json(), on_error="column").to_pyarrow()
    assert [error is None for error in rows["error"].to_pylist()] == [True] + [False] * 3
    assert rows["value_raw"].to_pylist() == [None] + [bad] * 3
    only = kafka.scan(name, value=ottla.json(), on_error="column", columns=["offset", "error"])
    assert only.to_pyarrow()["error"].null_count == 1
    assert kafka.scan(name, value=ottla.json(), on_error="null").to_pyarrow().num_rows == 4
    letters = f"{name}-letters"
    kept = kafka.scan(name, value=ottla.json(), on_error=f"dlq:{letters}").to_pyarrow()
    assert kept.num_rows == 1
    assert kafka.scan(letters).to_pyarrow()["value"].to_pylist() == [bad] * 3


def test_messages_show_the_value_and_the_remedy(kafka: ottla.Client, name: str) -> None:
    shown = {
        "framed": r"schema registry, with schema id 7; json\(framed=True\)",
        "text": "not JSON, see position 0: hello",
        "array": r"a JSON array, .* \[1, 2\]",
        "latin-1": "byte 2 is not UTF-8",
        "empty": "the value is empty",
    }
    for number, (kind, words) in enumerate(shown.items()):
        topic = sent(kafka, f"{name}-{number}", NO_JSON[kind])
        with pytest.raises(ottla.DecodeError, match=words):
            kafka.scan(topic, value=ottla.json({"id": int})).to_pyarrow()
    sent(kafka, name, '{"id": "x"}')
    with pytest.raises(ottla.DecodeError, match='column "id": "x" is not an int64'):
        kafka.scan(name, value=ottla.json({"id": int})).to_pyarrow()
    assert column(kafka, sent(kafka, f"{name}-f", NO_JSON["framed"]), ottla.json(framed=True), "id")


def test_columns_come_from_objects_behind_any_number_of_other_values(
    kafka: ottla.Client, name: str
) -> None:
    sent(kafka, name, *["ping"] * 1000, *['{"id": 1}'] * 3)
    for on_error in ("null", "column"):
        scan = kafka.scan(name, value=ottla.json(), on_error=on_error)
        assert scan.schema["id"] == "int64"
        assert scan.to_pyarrow()["id"].to_pylist() == [None] * 1000 + [1] * 3
    letters = f"{name}-letters"
    assert column(kafka, name, ottla.json(), "id", on_error=f"dlq:{letters}") == [1] * 3
    assert kafka.scan(letters).count() == 1000


@pytest.mark.parametrize("grouped", [False, True])
def test_a_consumer_finds_columns_when_objects_come(
    kafka: ottla.Client, name: str, grouped: bool
) -> None:
    kafka.create_topic(name)
    group: dict[str, Any] = (
        {"group_id": name, "auto_offset_reset": "earliest"} if grouped else {"start": "earliest"}
    )
    with kafka.consumer(name, value=ottla.json(), on_error="column", **group) as consumer:
        for value, wanted in [("ping", None), ("pong", None), ('{"id": 5}', 5)]:
            kafka.send(name, value)
            batch = next(consumer)
            [row] = batch.to_pylist()
            assert row.get("id") == wanted
            assert (row["error"] is None) == (wanted is not None)
            if wanted is None:
                assert row["value_raw"] == value.encode()


def test_a_consumer_raises_what_is_no_json(kafka: ottla.Client, name: str) -> None:
    sent(kafka, name, "ping")
    with (
        kafka.consumer(name, start="earliest", value=ottla.json()) as consumer,
        pytest.raises(ottla.DecodeError, match="at offset 0"),
    ):
        next(consumer)


# --- numbers -------------------------------------------------------------------------------------


def test_numbers_beyond_64_bits_are_exact_or_errors_of_their_column(
    kafka: ottla.Client, name: str
) -> None:
    sent(kafka, name, '{"hash": "0xab", "wei": 100000000000000000001, "x": [1e400, {"y": -1E+2}]}')
    wei = 100_000_000_000_000_000_001
    assert column(kafka, name, {"hash": "utf8"}, "hash") == ["0xab"]
    assert column(kafka, name, {"wei": "decimal128[38, 0]"}, "wei") == [Decimal(wei)]
    assert column(kafka, name, {"wei": "decimal256[76, 1]"}, "wei") == [Decimal(wei)]
    assert column(kafka, name, {"wei": float}, "wei") == [float(wei)]
    assert column(kafka, name, {"wei": str}, "wei") == [str(wei)]
    assert column(kafka, name, {"x": "utf8"}, "x") == ['[1e400,{"y":-1E+2}]']
    assert column(kafka, name, ottla.json(), "wei") == [Decimal(wei)]
    for kind in ("int64", "uint64", "decimal128[20, 0]"):
        with pytest.raises(ottla.DecodeError, match=f'column "wei": {wei} is not'):
            column(kafka, name, {"wei": kind}, "wei")


def test_a_uint64_that_was_written_is_inferred_exactly(kafka: ottla.Client, name: str) -> None:
    numbers = [12_297_829_382_473_034_411, 1, 0, 2**64 - 1]
    kafka.write(name, pl.DataFrame({"n": pl.Series(numbers, dtype=pl.UInt64)}))
    scan = kafka.scan(name, value=ottla.json())
    assert scan.schema["n"] == "uint64"
    assert sorted(scan.to_pyarrow()["n"].to_pylist()) == sorted(numbers)


def test_whole_numbers_that_a_float_would_round_are_text(kafka: ottla.Client, name: str) -> None:
    sent(kafka, name, '{"n": 12345678901234567, "m": 1}', '{"n": 1.50, "m": 1.5}')
    assert column(kafka, name, ottla.json(), "n") == ["12345678901234567", "1.50"]
    assert column(kafka, name, ottla.json(), "m") == [1.0, 1.5]
    late = sent(kafka, f"{name}-late", '{"n": 1.5}', '{"n": 12345678901234567}')
    with pytest.raises(ottla.DecodeError, match=r"12345678901234567 .* inferred"):
        column(kafka, late, ottla.json(infer=1), "n")


def test_decimals_have_every_digit_or_are_refused(kafka: ottla.Client, name: str) -> None:
    texts = ["12345678901234567890.123456789012345678", "0.1", "1e3", "-7"]
    sent(kafka, name, *[f'{{"n": {text}}}' for text in texts])
    found = column(kafka, name, {"n": "decimal128[38, 18]"}, "n")
    assert found == [Decimal(text) for text in texts]
    for kind in ("decimal128[38, 17]", "decimal128[37, 18]"):
        with pytest.raises(ottla.DecodeError, match="every digit"):
            column(kafka, name, {"n": kind}, "n")


def test_nan_is_written_only_as_it_was_asked_for(kafka: ottla.Client, name: str) -> None:
    rows = pl.DataFrame({"id": [1, 2, 3], "x": [0.5, float("nan"), float("-inf")]})
    with pytest.raises(ottla.ConfigError, match=r'row 1: .*"x".*NaN.*json\(nan="null"\)'):
        kafka.write(name, rows)
    with pytest.raises(ottla.ConfigError, match="Infinity"):
        kafka.send(name, {"x": {"y": [float("inf")]}})
    kafka.write(f"{name}-null", rows, value=ottla.json(nan="null"))
    assert column(kafka, f"{name}-null", {"x": float}, "x") == [0.5, None, None]
    kafka.write(f"{name}-text", rows, value=ottla.json(nan="text"))
    found = column(kafka, f"{name}-text", {"x": float}, "x")
    assert found[0] == 0.5
    assert np.isnan(found[1])
    assert found[2] == float("-inf")


# --- members without a column --------------------------------------------------------------------


def test_a_member_that_first_appears_behind_the_sample_is_named(
    kafka: ottla.Client, name: str
) -> None:
    sent(kafka, name, '{"a": 1, "o": {"x": 1}}', '{"a": 2, "b": 3}', '{"o": {"x": 1, "z": [2]}}')
    form = ottla.json(infer=1)
    with pytest.raises(ottla.DecodeError, match=r'offset 1: .*"b".*infer=.*extra="ignore"'):
        kafka.scan(name, value=form).to_pyarrow()
    rows = kafka.scan(name, value=form, on_error="column").to_pyarrow()
    assert rows["a"].to_pylist() == [1, 2, None]
    assert [error and error.split('"')[1] for error in rows["error"].to_pylist()] == [
        None,
        "b",
        "o.z",
    ]
    # A part of the columns is still judged by all that are known.
    only = kafka.scan(name, value=form, on_error="column", columns=["a", "error"]).to_pyarrow()
    assert [error is None for error in only["error"].to_pylist()] == [True, False, True]
    assert column(kafka, name, ottla.json(infer=1, extra="ignore"), "a") == [1, 2, None]
    assert column(kafka, name, ottla.json({"a": int}), "a") == [1, 2, None]
    with pytest.raises(ottla.DecodeError, match='"o"'):
        column(kafka, name, ottla.json({"a": int}, extra="error"), "a")


def test_members_with_the_names_of_record_columns_move_those_aside(
    kafka: ottla.Client, name: str
) -> None:
    sent(kafka, name, '{"offset": "mine", "timestamp": 5, "_kafka": 1, "__kafka": 2}')
    scan = kafka.scan(name, value=ottla.json())
    assert list(scan.schema) == ["___kafka", "offset", "timestamp", "_kafka", "__kafka"]
    [row] = scan.head().to_pylist()
    assert (row["offset"], row["_kafka"], row["___kafka"]["offset"]) == ("mine", 1, 0)
    part = kafka.scan(name, value=ottla.json(), columns=["___kafka.partition", "offset"])
    assert part.head().to_pylist() == [{"___kafka": {"partition": 0}, "offset": "mine"}]
    # What was read can be written, and read again.
    again = f"{name}-again"
    kafka.write(
        again, kafka.scan(name, value=ottla.json(), columns=["_kafka", "offset"]).to_polars()
    )
    assert column(kafka, again, ottla.json(), "_kafka") == [1]


# --- schemas -------------------------------------------------------------------------------------


def test_columns_are_named_by_types_of_python_polars_pandas_and_pyarrow(
    kafka: ottla.Client, name: str
) -> None:
    moment = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.timezone.utc)
    kafka.send(
        name,
        {
            "i": 1,
            "f": 0.5,
            "s": "x",
            "b": True,
            "raw": b"ab",
            "at": moment,
            "d": dt.date(2026, 1, 2),
            "l": [1, 2],
            "m": {"k": 1.5},
            "t": dt.time(1, 2),
            "td": dt.timedelta(seconds=1.5),
            "u": uuid.UUID(int=7),
        },
    )
    python = {
        "i": int,
        "f": float,
        "s": str,
        "b": bool,
        "raw": bytes,
        "at": dt.datetime,
        "d": dt.date,
        "l": list[int],
        "m": dict[str, float],
        "t": dt.time,
        "td": dt.timedelta,
        "u": uuid.UUID,
    }
    rows = kafka.scan(name, value=python).to_pyarrow()
    [row] = rows.select([*python]).to_pylist()
    assert row["m"] == [("k", 1.5)]
    assert row["l"] == [1, 2]
    assert row["at"] == moment
    assert row["t"] == dt.time(1, 2)
    assert row["td"] == dt.timedelta(seconds=1.5)
    assert row["u"] == uuid.UUID(int=7)
    assert row["raw"] == b"ab"
    frame = pl.DataFrame({"i": [1], "f": [0.5], "s": ["x"], "d": [dt.date(2026, 1, 2)]})
    for schema in (
        frame.schema,
        dict(frame.schema),
        frame,
        frame.to_arrow().schema,
        {"i": pl.Int64, "f": pl.Float64(), "s": pl.String, "d": pl.Date},
    ):
        found = kafka.scan(name, value=ottla.json(schema), columns=["i", "f", "s", "d"]).to_polars()
        assert found.equals(frame), schema
    dtypes = pd.DataFrame({"i": [1], "f": [0.5], "b": [True]}).astype({"i": "int16"}).dtypes
    scan = kafka.scan(name, value=ottla.json(dtypes))
    assert scan.schema["i"] == "int16"
    assert scan.schema["b"] == "bool"
    nested = kafka.scan(name, value={"m": {"k": float}}, columns=["m"])
    assert nested.head().to_pylist() == [{"m": {"k": 1.5}}]
    with kafka.consumer(name, start="earliest", value={"i": "int8"}) as consumer:
        assert next(consumer).schema["i"] == "int8"
    assert kafka[name].head(value={"i": "int8"}).schema["i"] == "int8"


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({"a": Decimal}, "number of digits"),
        ({"a": object()}, "is not a type"),
        ({"a": "integer"}, "is not a type"),
        ({1: "int64"}, "names must be str"),
        ("int64", "a mapping"),
        (pd.DataFrame({"a": ["x"]}, dtype=object).dtypes, "name the type"),
    ],
)
def test_a_schema_that_is_none_says_what_one_is(
    kafka: ottla.Client, filled: str, schema: Any, words: str
) -> None:
    with pytest.raises(ottla.ConfigError, match=words):
        kafka.scan(filled, value=ottla.json(schema))


def test_times_without_seconds_and_with_zones_are_read(kafka: ottla.Client, name: str) -> None:
    texts = [
        "2024-01-01T10:00",
        "2024-01-01T10:00Z",
        "2024-01-01T11:00+01:00",
        "2024-01-01T11:00+01:00[Europe/Prague]",
        "2024-01-01 10:00:00.000",
    ]
    sent(kafka, name, *[f'{{"at": "{text}"}}' for text in texts])
    moment = dt.datetime(2024, 1, 1, 10, tzinfo=dt.timezone.utc)
    assert column(kafka, name, {"at": ottla.ts("ms")}, "at") == [moment] * len(texts)


def test_what_json_does_not_carry_is_refused(kafka: ottla.Client, name: str) -> None:
    twice = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    interval = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    for table, words in [
        (twice, 'two columns "a"'),
        (pa.table({"i": interval}), '"i".*cannot be written as JSON'),
        (
            pa.table({"d": pa.array([1], pa.date64()).view(pa.int64()).view(pa.date64())}),
            "midnight",
        ),
    ]:
        with pytest.raises(ottla.ConfigError, match=words):
            kafka.write(name, table, value=ottla.json())
    with pytest.raises(ottla.ConfigError, match='column "i": JSON cannot be decoded'):
        kafka.scan(name, value={"i": pa.month_day_nano_interval()}).to_pyarrow()


def test_a_number_beyond_the_range_of_its_float_is_refused(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    values = ["65519.9", "-65504", "65520", "-70000", "1e5", "65504.0", '"Infinity"']
    for number in values:
        kafka.send(name, f'{{"a": {number}}}')
    scan = kafka.scan(
        name, value=ottla.json({"a": "float16"}), columns=["a", "error"], on_error="column"
    )
    found = scan.head(9).to_pylist()
    wanted = [65504.0, -65504.0, None, None, None, 65504.0, float("inf")]
    assert [row["a"] for row in found] == wanted
    assert "65520 is not a number that float16 holds" in found[2]["error"]


@pytest.mark.parametrize(
    ("unit", "text", "finer"),
    [
        ("s", "2024-01-01T10:00:00.5Z", "ms"),
        ("ms", "2024-01-01T10:00:00.123456Z", "us"),
        ("us", "2024-01-01 10:00:00.1234567", "ns"),
        ("ms", "2024-01-01T10:00:00.1234+02:00[Europe/Prague]", "us"),
    ],
)
def test_digits_of_a_time_that_its_unit_does_not_have_are_refused(
    kafka: ottla.Client, name: str, unit: str, text: str, finer: str
) -> None:
    kafka.create_topic(name, partitions=1)
    kafka.send(name, {"t": "2024-01-01T10:00:00.0000000000Z"})
    kafka.send(name, {"t": text})
    scan = kafka.scan(name, value=ottla.json({"t": f"timestamp[{unit}]"}))
    message = (
        rf"offset 1: column \"t\": .*beyond those of timestamp\[{unit}\]; timestamp\[{finer}\] has"
    )
    with pytest.raises(ottla.DecodeError, match=message):
        list(scan)
    assert kafka.scan(name, value=ottla.json({"t": f"timestamp[{finer}]"})).count() == 2


def test_a_uuid_may_lack_its_hyphens(kafka: ottla.Client, name: str) -> None:
    one = uuid.uuid4()
    kafka.create_topic(name, partitions=1)
    for text in (str(one), one.hex, one.hex.upper()):
        kafka.send(name, {"u": text})
    rows = kafka.scan(name, value={"u": uuid.UUID}, columns=["u"]).to_pyarrow()
    assert rows["u"].to_pylist() == [one] * 3
    for text in (one.hex[1:], f"{one.hex[:8]}-{one.hex[8:]}", "x" * 32):
        start = kafka.scan(name).end
        kafka.send(name, {"u": text})
        with pytest.raises(ottla.DecodeError, match="16 bytes or a UUID"):
            kafka.scan(name, start, value={"u": uuid.UUID}).head()


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T10:00:60Z",
        "2016-12-31T23:59:60Z",
        "2024-01-01T10:00:00+01:60",
        "2024-01-01T10:00:00+0175",
        "2024-01-01T10:00:00 +01:99",
        "2024-01-01T24:00:00Z",
        "2024-01-01T10:60:00Z",
    ],
)
def test_a_time_that_does_not_exist_is_an_error(kafka: ottla.Client, name: str, text: str) -> None:
    kafka.send(name, {"at": text})
    form = ottla.json({"at": "timestamp[ms, UTC]"})
    with pytest.raises(ottla.DecodeError, match=r'column "at": .* is not an ISO 8601 time'):
        kafka.scan(name, value=form).to_polars()
    told = kafka.scan(name, value=form, on_error="column", columns=["at", "error"]).to_polars()
    assert told["at"].to_list() == [None]
    assert "at" in told["error"][0]


def test_of_a_member_that_is_there_twice_the_last_counts(kafka: ottla.Client, name: str) -> None:
    """As in Python's ``json``, whichever columns are read; types.md says so."""
    kafka.create_topic(name, partitions=1)
    texts = [
        '{"a":1,"b":2}',
        '{"a":1,"b":2,"a":3}',
        '{"b":2,"a":1,"a":3}',
        '{"a":1,"a":3,"b":2}',
        '{"a":1,"b":2,"a":null}',
        '{"a":null,"b":2,"\\u0061":7}',
        '{"a":1,"b":2,"c":{"d":1,"d":2},"c":{"d":3,"d":4}}',
    ]
    for text in texts:
        kafka.send(name, text)
    wanted = [json.loads(text) for text in texts]
    schemas: list[dict[str, Any]] = [
        {"a": int},
        {"a": int, "b": int},
        {"b": int},
        {"c": {"d": int}, "a": int},
        {"a": int, "b": int, "c": {"d": int}},
    ]
    for schema in schemas:
        for columns in ([one] for one in schema):
            for form in (ottla.json(schema), ottla.json()):
                found = kafka.scan(name, value=form, columns=columns).to_pyarrow().to_pylist()
                for row, one in zip(found, wanted, strict=True):
                    assert row == {column: one.get(column) for column in columns}
