"""Where reading starts, stops and goes on: nothing is skipped in silence, nonsense is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def kafka() -> Iterator[ottla.Client]:
    """A client of a broker with a topic of two partitions and ten records in each."""
    with ottla.Broker() as broker:
        client = broker.client()
        client.create_topic("orders", partitions=2)
        for partition in (0, 1):
            client.write("orders", pl.DataFrame({"i": range(10)}), partition=partition)
        yield client


@pytest.mark.parametrize("most", [0, 1, 4, 10, 14, 20, 30])
def test_the_end_of_a_limited_scan_is_behind_its_last_row(kafka: ottla.Client, most: int) -> None:
    read: list[int] = []
    scan = kafka.scan("orders", value={"i": int}, columns=["i"], max_rows=most)
    read += scan.to_polars()["i"].to_list()
    assert sum(end - start for start, end in scan.offsets.values()) == len(read) == min(most, 20)
    rest = kafka.scan("orders", json.loads(json.dumps(scan.end)), value={"i": int}, columns=["i"])
    read += rest.to_polars()["i"].to_list()
    assert read == [*range(10), *range(10)]
    again = kafka.scan("orders", scan.offsets, scan.offsets)
    assert again.count() == min(most, 20)


def test_the_end_of_a_limited_scan_knows_gaps_and_records_of_many_rows(
    kafka: ottla.Client,
) -> None:
    kafka.create_topic("tables", partitions=1)
    kafka.write("tables", pl.DataFrame({"i": range(9)}), value=ottla.arrow_ipc(max_rows=3))
    scan = kafka.scan("tables", value=ottla.arrow_ipc(), max_rows=4)
    assert scan.end == {"tables": {0: 1}}, "the second record is read again"
    kafka.create_topic("bad", partitions=1)
    for value in ("x", '{"a": 1}', "y", '{"a": 2}', '{"a": 3}'):
        kafka.send("bad", value)
    scan = kafka.scan("bad", value={"a": int}, on_error="dlq:letters", max_rows=2)
    assert scan.end == {"bad": {0: 4}}


@pytest.mark.parametrize("group_id", [None, "group"])
@pytest.mark.parametrize(
    "argument", ["max_rows", "max_bytes", "memory_limit", "threads", "max_wait"]
)
def test_arguments_of_consumers_are_not_negative(
    kafka: ottla.Client, argument: str, group_id: str | None
) -> None:
    wrong: dict[str, Any] = {argument: -1}
    with pytest.raises(ottla.ConfigError, match=f"^{argument}=-1"):
        kafka.consumer("orders", group_id=group_id, **wrong)
    with pytest.raises(ottla.ConfigError, match=f"^{argument}=-1"):
        ottla.Consumer("orders", kafka, group_id=group_id, **wrong)


def test_numbers_beyond_the_range_of_an_argument_are_refused(kafka: ottla.Client) -> None:
    beyond = 2**70
    calls: list[tuple[str, Callable[[], object]]] = [
        ("batch_rows=-1", lambda: kafka.scan("orders", batch_rows=-1)),
        (f"batch_rows={beyond}", lambda: kafka.scan("orders", batch_rows=beyond)),
        (f"max_rows={beyond}", lambda: kafka.consumer("orders", max_rows=beyond)),
        (
            f"session_timeout_ms={beyond}: it takes a whole number of milliseconds",
            lambda: kafka.consumer("orders", group_id="group", session_timeout_ms=beyond),
        ),
        (f"partitions= has {beyond}", lambda: kafka.scan("orders", partitions=[beyond])),
        (f"partitions= has {beyond}", lambda: kafka.consumer("orders", partitions=[beyond])),
        (f"partition= has {beyond}", lambda: kafka.send("orders", "x", partition=beyond)),
        (f"partition={beyond}", lambda: kafka.write("orders", pl.DataFrame([1]), partition=beyond)),
    ]
    for told, call in calls:
        with pytest.raises(ottla.ConfigError, match=f"^{told}"):
            call()


def test_numbers_of_rows_are_not_negative(kafka: ottla.Client) -> None:
    batch = kafka.scan("orders").head(3)
    calls: list[Callable[[], object]] = [
        lambda: kafka["orders"].tail(-1),
        lambda: kafka["orders"].head(-1),
        lambda: kafka.scan("orders").head(-1),
        lambda: batch.head(-1),
        lambda: batch.tail(-1),
    ]
    for call in calls:
        with pytest.raises(ottla.errors.ConfigError, match="n=-1 is negative"):
            call()
    with pytest.raises(ottla.errors.ConfigError, match="max_rows=-1 is negative"):
        kafka.scan("orders", max_rows=-1)


def test_offsets_that_cannot_be_are_refused(kafka: ottla.Client) -> None:
    with pytest.raises(ottla.errors.ConfigError, match="larger than any offset"):
        kafka.scan("orders", start={0: 2**63})
    with pytest.raises(ottla.errors.ConfigError, match="larger than any offset"):
        kafka.consumer("orders", resume={"orders": {0: 2**63}})
    with pytest.raises(ottla.errors.ConfigError, match=r"negative; use client\[topic\].tail"):
        kafka.scan("orders", start={0: -1})
    with pytest.raises(ottla.errors.ConfigError, match=r"offset -1 is negative$"):
        kafka.delete_records("orders", {0: -1})


def test_a_scan_whose_records_were_deleted_names_a_remedy_for_scans(kafka: ottla.Client) -> None:
    scan = kafka.scan("orders")
    kafka.delete_records("orders", {0: 5})
    with pytest.raises(ottla.errors.DataLossError, match="from earliest") as raised:
        scan.count()
    assert "seek" not in str(raised.value)


def test_bounds_without_a_common_partition_are_refused(kafka: ottla.Client) -> None:
    with pytest.raises(ottla.errors.ConfigError, match="start names 0; partitions names 1"):
        kafka.scan("orders", start={0: 0}, partitions=[1])
    with pytest.raises(ottla.errors.ConfigError, match="start names 0; end names 1"):
        kafka.scan("orders", start={0: 0}, end={1: 1})
    with pytest.raises(ottla.errors.ConfigError, match="end names 1; partitions names 0"):
        kafka.scan("orders", end={1: 1}, partitions=[0])
    assert kafka.scan("orders", start={0: 4, 1: 5}, partitions=[1]).count() == 5


def test_a_consumer_refuses_offsets_of_other_topics(kafka: ottla.Client) -> None:
    foreign: Any = {"zzz": {0: 3}}
    refused = "has offsets for zzz, not for orders"
    with pytest.raises(ottla.errors.ConfigError, match=refused):
        kafka.consumer("orders", resume=foreign)
    with pytest.raises(ottla.errors.ConfigError, match=refused):
        kafka.consumer(["orders"], start=foreign)
    with pytest.raises(ottla.errors.ConfigError, match=refused):
        kafka.consumer("orders", resume=foreign, group_id="g")
    with pytest.raises(ottla.errors.ConfigError, match="not for topics like ord"):
        kafka.consumer(re.compile("ord.*"), resume=foreign, group_id="g")
    both: Any = {"orders": {0: 8, 1: 10}, "zzz": {0: 3}}
    with kafka.consumer("orders", resume=both, until="caught_up") as consumer:
        assert sum(len(batch) for batch in consumer) == 2
    with kafka.consumer("orders", resume={}, until="caught_up") as consumer:
        assert sum(len(batch) for batch in consumer) == 20


@pytest.mark.parametrize("library", ["polars", "pandas", "pyarrow"])
def test_a_column_of_nulls_alone_is_as_one_of_text(kafka: ottla.Client, library: str) -> None:
    columns: dict[str, list[Any]] = {"k": ["a", "b"], "value": [None, None]}
    table = {
        "polars": pl.DataFrame,
        "pandas": pd.DataFrame,
        "pyarrow": pa.table,
    }[library](columns)
    kafka.create_topic("states", partitions=1)
    assert kafka.write("states", table, key="k") == 2
    rows = kafka.scan("states", columns=["key", "value"]).to_polars().rows()
    assert rows == [(b"a", None), (b"b", None)]
    with pytest.raises(ottla.errors.ConfigError, match="k would be lost"):
        kafka.write("states", table)
