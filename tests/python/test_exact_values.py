"""What a format cannot hold exactly is refused, with the column and the row, and never rounded."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import ottla

TIMES = (
    'syntax = "proto3"; import "google/protobuf/{0}.proto"; '
    "message M {{ google.protobuf.{1} x = 1; }}"
)
TIMESTAMP = TIMES.format("timestamp", "Timestamp")
DURATION = TIMES.format("duration", "Duration")


def avro(x: Any) -> ottla.Format:
    return ottla.avro({"type": "record", "name": "R", "fields": [{"name": "x", "type": x}]})


def logical(base: str, name: str, **more: Any) -> dict[str, Any]:
    return {"type": base, "logicalType": name, **more}


INEXACT = {
    "ns to micros": (
        pa.array([1_001], pa.timestamp("ns")),
        logical("long", "local-timestamp-micros"),
    ),
    "us to millis": (
        pa.array([-1], pa.timestamp("us", "UTC")),
        logical("long", "timestamp-millis"),
    ),
    "too far for nanos": (pa.array([2**62], pa.timestamp("s")), logical("long", "timestamp-nanos")),
    "time in ns": (pa.array([5], pa.time64("ns")), logical("long", "time-micros")),
    "time in us": (pa.array([5], pa.time64("us")), logical("int", "time-millis")),
    "part of a day": (pa.array([86_400_001], pa.int64()).view(pa.date64()), logical("int", "date")),
    "decimal digits": (
        pa.array([Decimal("1.25")]),
        logical("bytes", "decimal", precision=5, scale=1),
    ),
    "more of a float": (pa.array([12.345]), logical("bytes", "decimal", precision=9, scale=2)),
    "a large integer": (pa.array([2**53 + 1]), "double"),
    "too large a float": (pa.array([1e300]), "float"),
}


@pytest.mark.parametrize("case", INEXACT)
def test_avro_refuses_what_would_be_another_value(case: str, ottla_client: ottla.Client) -> None:
    array, schema = INEXACT[case]
    with pytest.raises(
        ottla.ConfigError, match=r'row 0: column "x": .*(round or cast|out of range)'
    ):
        ottla_client.write("words", pa.table({"x": array}), value=avro(schema))


def test_what_is_exact_in_the_other_type_is_written(ottla_client: ottla.Client) -> None:
    kafka = ottla_client
    columns = {
        "ms": (
            pa.array([-1_000, None], pa.timestamp("us", "UTC")),
            logical("long", "timestamp-millis"),
        ),
        "ns": (pa.array([7, None], pa.timestamp("s", "UTC")), logical("long", "timestamp-nanos")),
        "at": (pa.array([5_000_000, None], pa.time64("ns")), logical("int", "time-millis")),
        "money": (pa.array([12.34, None]), logical("bytes", "decimal", precision=9, scale=2)),
        "less": (
            pa.array([Decimal("1.50"), None]),
            logical("bytes", "decimal", precision=5, scale=1),
        ),
        "much": (pa.array([2**53, None]), "double"),
        "third": (pa.array([1 / 3, None]), "float"),
    }
    fields = [{"name": name, "type": ["null", schema]} for name, (_, schema) in columns.items()]
    value = ottla.avro({"type": "record", "name": "R", "fields": fields})
    kafka.write(
        "words", pa.table({name: array for name, (array, _) in columns.items()}), value=value
    )
    first, second = kafka.scan("words", value=value, columns=list(columns)).head().to_pylist()
    assert first.pop("third") == pytest.approx(1 / 3)
    assert first == {
        "ms": datetime(1969, 12, 31, 23, 59, 59, 999_000, timezone.utc),
        "ns": datetime(1970, 1, 1, 0, 0, 7, tzinfo=timezone.utc),
        "at": datetime(1970, 1, 1, 0, 0, 0, 5_000).time(),  # noqa: DTZ001
        "money": Decimal("12.34"),
        "less": Decimal("1.5"),
        "much": float(2**53),
    }
    assert set(second.values()) == {None}


class TestNanosecondsOfProtobuf:
    def test_they_come_back_to_the_last_digit(self, ottla_client: ottla.Client) -> None:
        kafka = ottla_client
        table = pa.table(
            {"x": pa.array([1_700_000_000_123_456_789, -1, 0], pa.timestamp("ns", "UTC"))}
        )
        kafka.write("times", table, value=ottla.protobuf())
        found = kafka.scan("times", value=ottla.protobuf(TIMESTAMP), columns=["x"])
        assert pa.table(found)["x"].combine_chunks() == table["x"].combine_chunks()
        assert [str(row["x"]) for row in found.head().to_pylist()] == [
            "2023-11-14T22:13:20.123456789Z",
            "1969-12-31T23:59:59.999999999Z",
            "1970-01-01 00:00:00+00:00",
        ]
        spans = pa.table({"x": pa.array([-1, 10**9 + 1], pa.duration("ns"))})
        kafka.write("spans", spans, value=ottla.protobuf())
        found = kafka.scan("spans", value=ottla.protobuf(DURATION), columns=["x"])
        assert pa.table(found)["x"].combine_chunks() == spans["x"].combine_chunks()

    def test_a_unit_that_does_not_hold_a_value_is_a_decode_error_with_the_remedy(
        self, ottla_client: ottla.Client
    ) -> None:
        kafka = ottla_client
        late = datetime(9999, 12, 31, tzinfo=timezone.utc)
        kafka.send("times", {"x": late}, value_format=ottla.protobuf(TIMESTAMP))
        nanos = kafka.scan("times", value=ottla.protobuf(TIMESTAMP), columns=["x"])
        with pytest.raises(ottla.DecodeError, match=r'"x".*time_unit="us"'):
            nanos.head()
        micros = ottla.protobuf(TIMESTAMP, time_unit="us")
        assert kafka.scan("times", value=micros, columns=["x"]).head()["x"].to_pylist() == [late]
        kafka.write(
            "times", pa.table({"x": pa.array([1], pa.timestamp("ns"))}), value=ottla.protobuf()
        )
        with pytest.raises(ottla.DecodeError, match=r'offset 1: .*time_unit="ns"'):
            kafka.scan("times", value=micros, columns=["x"]).head()
        with pytest.raises(ottla.ConfigError, match="time_unit='ms': use ns or us"):
            ottla.protobuf(TIMESTAMP, time_unit="ms")

    def test_send_refuses_those_of_pandas(self, ottla_client: ottla.Client) -> None:
        value = ottla.protobuf(TIMESTAMP)
        with pytest.raises(ValueError, match="1 nanoseconds, which need a table; round it"):
            ottla_client.send("times", {"x": pd.Timestamp(1, unit="ns")}, value_format=value)
        ottla_client.send("times", {"x": pd.Timestamp(1000, unit="ns")}, value_format=value)


def test_a_null_that_protobuf_would_read_as_something_else_is_refused(
    ottla_client: ottla.Client,
) -> None:
    kafka = ottla_client
    lists = pa.table({"id": [1, 2], "tags": [["a"], None]})
    with pytest.raises(ottla.ConfigError, match=r'row 1: column "tags" is null.*an empty list'):
        kafka.write("words", lists, value=ottla.protobuf())
    maps = pa.table({"m": pa.array([None], pa.map_(pa.string(), pa.int64()))})
    with pytest.raises(ottla.ConfigError, match=r'row 0: column "m" is null.*an empty map'):
        kafka.write("words", maps, value=ottla.protobuf())
    implicit = ottla.protobuf('syntax = "proto3"; message M { int64 id = 1; string name = 2; }')
    with pytest.raises(ottla.ConfigError, match=r'row 0: column "id" is null.*not optional'):
        kafka.write("words", pa.table({"id": pa.array([None], pa.int64())}), value=implicit)
    # A field that is left out is one that is not set.
    kafka.send("unset", {"id": 1}, value_format=implicit)
    row = kafka.scan("unset", value=implicit, columns=["id", "name"]).head().to_pylist()
    assert row == [{"id": 1, "name": ""}]


def test_the_first_name_of_an_enums_number_is_read_and_all_are_written(
    ottla_client: ottla.Client,
) -> None:
    kafka = ottla_client
    value = ottla.protobuf(
        'syntax = "proto3"; message M { E x = 1; } '
        "enum E { option allow_alias = true; NONE = 0; ZULU = 1; ALPHA = 1; B = 3; A = 2; AA = 2; }"
    )
    for name in ("ZULU", "ALPHA", "B", "A", "AA", "NONE"):
        kafka.send("words", {"x": name}, value_format=value)
    found = kafka.scan("words", value=value, columns=["x"]).head(10)["x"].to_pylist()
    assert found == ["ZULU", "ZULU", "B", "A", "A", "NONE"]


def test_durations_of_days_are_written_as_they_are(ottla_client: ottla.Client) -> None:
    value = ottla.protobuf(DURATION)
    ottla_client.send("spans", {"x": timedelta(days=-3, microseconds=1)}, value_format=value)
    found = ottla_client.scan("spans", value=value, columns=["x"]).head()["x"].to_pylist()
    assert found == [timedelta(days=-3, microseconds=1)]
