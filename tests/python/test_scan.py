"""Scans are values with resolved bounds."""

from __future__ import annotations

import itertools
import json
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import polars as pl
import pytest

import ottla

START = datetime(2024, 6, 1, tzinfo=timezone.utc)


@pytest.fixture
def filled(kafka: ottla.Client, name: str) -> str:
    """A topic with ten records in each of two partitions, a minute apart."""
    kafka.create_topic(name, partitions=2)
    for number in range(20):
        moment = START + timedelta(minutes=number)
        kafka.send_async(name, str(number), partition=number % 2, timestamp=moment)
    kafka.flush(30)
    return name


def values(scan: ottla.Scan) -> list[int]:
    return sorted(int(row["value"]) for batch in scan for row in batch.to_pylist())


def test_a_scan_is_a_value(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled)
    kafka.send(filled, "99", partition=0)
    assert values(scan) == values(scan) == list(range(20))
    assert scan.offsets == {0: (0, 10), 1: (0, 10)}
    assert scan.count() == scan.max_rows == 20
    assert kafka.scan(filled).max_rows == 21
    assert "[0, 10)" in repr(scan)
    assert "<table>" in scan._repr_html_()


def test_bounds_may_be_times_offsets_or_pairs(kafka: ottla.Client, filled: str) -> None:
    assert values(kafka.scan(filled, start=START + timedelta(minutes=15))) == [15, 16, 17, 18, 19]
    assert values(kafka.scan(filled, "2024-06-01T00:04", "2024-06-01T00:07")) == [4, 5, 6]
    assert values(kafka.scan(filled, {0: 8, 1: 9})) == [16, 18, 19]
    assert values(kafka.scan(filled, start={0: 0}, end={0: 2})) == [0, 2]
    assert values(kafka.scan(filled, partitions=[1], end={1: 2})) == [1, 3]
    assert values(kafka.scan(filled, start=timedelta(hours=-1))) == []
    assert values(kafka.scan(filled, start="2031-01-01")) == []


def test_offsets_survive_json(kafka: ottla.Client, filled: str) -> None:
    first = kafka.scan(filled, end=START + timedelta(minutes=6))
    stored = json.loads(json.dumps(first.offsets))
    assert values(kafka.scan(filled, start=stored, end=stored)) == values(first)
    rest = kafka.scan(filled, start=first.end)
    assert sorted(values(first) + values(rest)) == list(range(20))


@pytest.mark.parametrize("bad", [0, 1_717_200_000, 1.5])
def test_a_number_has_no_unit(kafka: ottla.Client, filled: str, bad: float) -> None:
    with pytest.raises(TypeError, match="unit"):
        kafka.scan(filled, start=bad)  # type: ignore[arg-type]
    assert kafka.scan(filled, start=ottla.timestamp(1_717_200_000, "s")).max_rows == 20


@pytest.mark.parametrize("bad", ["yesterday-ish", timedelta(hours=1), {0: -1}])
def test_a_bad_bound_is_refused(kafka: ottla.Client, filled: str, bad: object) -> None:
    with pytest.raises(ottla.ConfigError):
        kafka.scan(filled, start=bad)  # type: ignore[arg-type]


def test_offsets_beyond_the_end_are_refused(kafka: ottla.Client, filled: str) -> None:
    with pytest.raises(ottla.KafkaError, match=f"{filled}-0"):
        kafka.scan(filled, end={0: 1000}).count()


def test_max_rows_and_heads_and_tails(kafka: ottla.Client, filled: str) -> None:
    assert sum(batch.num_rows for batch in kafka.scan(filled, max_rows=7)) == 7
    assert kafka.scan(filled, max_rows=7).to_polars().height == 7
    head = kafka[filled].head(3, partitions=[0])
    assert [int(value) for value in head["value"].to_pylist()] == [0, 2, 4]
    tail = kafka[filled].tail(4, value=ottla.text())
    assert tail["value"].to_pylist() == ["16", "17", "18", "19"]


def test_batches_have_about_so_many_rows(kafka: ottla.Client, filled: str) -> None:
    sizes = [batch.num_rows for batch in kafka.scan(filled, batch_rows=6)]
    assert sum(sizes) == 20
    assert max(sizes) <= 6


def test_a_batch_knows_its_offsets(kafka: ottla.Client, filled: str) -> None:
    seen: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
    for batch in kafka.scan(filled, batch_rows=6):
        for partition, span in batch.offsets[filled].items():
            seen[partition].append(span)
    for spans in seen.values():
        assert spans[0][0] == 0
        assert spans[-1][1] == 10
        assert all(one[1] == next_[0] for one, next_ in itertools.pairwise(spans))


def test_an_empty_topic_has_columns_and_no_rows(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    scan = kafka.scan(name)
    assert scan.count() == 0
    assert scan.to_polars().height == 0
    assert "value" in scan.to_polars().columns
    assert scan.to_pandas().empty
    assert kafka[name].head().num_rows == 0


def test_a_topic_that_is_not_there_is_named(remote: ottla.Client) -> None:
    with pytest.raises(ottla.UnknownTopicError, match="no-such-topic"):
        remote.scan("no-such-topic")
    assert "no-such-topic" not in remote.topics()


def test_plain_types_for_pyarrow(kafka: ottla.Client, filled: str) -> None:
    import pyarrow as pa

    scan = kafka.scan(filled)
    assert pa.table(scan).schema.field("value").type == pa.binary_view()
    assert scan.to_pyarrow().schema.field("value").type == pa.binary()
    assert scan.to_pyarrow(string_view=True).schema.field("value").type == pa.binary_view()
    plain = kafka.scan(filled, string_view=False)
    assert pa.table(plain).schema.field("value").type == pa.binary()
    wanted = pa.table(scan).schema.set(
        pa.table(scan).schema.get_field_index("value"), pa.field("value", pa.large_binary())
    )
    table = pa.table(scan, schema=wanted)
    assert table.schema.field("value").type == pa.large_binary()
    (batch,) = scan
    assert pa.record_batch(batch).num_rows == 20
    assert batch.to_pyarrow().schema.field("key").type == pa.binary()


def test_rows_that_are_cut_off_are_gone_on_with_behind_gaps(name: str) -> None:
    with (
        ottla.Broker(config={"log.cleaner.backoff.ms": 1}) as broker,
        broker.client() as kafka,
    ):
        settings = {
            "segment.bytes": 1 << 20,
            "min.cleanable.dirty.ratio": 0,
        }
        kafka.create_topic(name, partitions=1, config=settings)
        # Every other record is superseded by the next one of its kind, in the same batch.
        keys = ["same" if row % 2 else f"own {row}" for row in range(4000)]
        values = [f'{{"row":{row},"text":"{"x" * 500}"}}' for row in range(4000)]
        kafka.write(name, pl.DataFrame({"key": keys, "value": values}), key="key")
        # Compacted from now on, at once: a second round would change what a scan has read.
        kafka.alter_configs(name, {"cleanup.policy": "compact"})
        deadline = time.monotonic() + 30
        while next(iter(kafka.scan(name, max_rows=2, columns=["offset"])))["offset"][1] == 1:
            assert time.monotonic() < deadline
        for columns in (["row"], ["offset", "row"]):
            scan = kafka.scan(name, value=ottla.json({"row": "int64"}), columns=columns, max_rows=5)
            (cut,) = scan
            assert cut["row"].to_pylist() == [0, 2, 4, 6, 8]
            assert cut.offsets == {name: {0: (0, 9)}}
            assert scan.head().offsets == cut.offsets
            with kafka.consumer(
                name,
                resume=cut.offsets,
                until="caught_up",
                value=ottla.json({"row": "int64"}),
                columns=columns,
            ) as consumer:
                batch = consumer.poll(30)
            assert batch is not None
            assert batch["row"][0] == 10
        # The same beside records that are set aside.
        scan = kafka.scan(
            name,
            value=ottla.json({"row": "bool"}),
            columns=["row"],
            on_error=f"dlq:{name}.dlq",
            max_rows=5,
            end={0: 100},
        )
        assert [batch.num_rows for batch in scan if batch.num_rows] == []
        assert scan.head(3).num_rows == 0


@pytest.mark.parametrize("transport", ["embedded", "tcp"])
def test_a_scan_misses_what_was_compacted_since_it_was_read(name: str, transport: str) -> None:
    settings = {"segment.bytes": 1 << 20, "min.cleanable.dirty.ratio": 0}
    with (
        ottla.Broker(config={"log.cleaner.backoff.ms": 1}) as broker,
        broker.client()
        if transport == "embedded"
        else ottla.connect(broker.bootstrap_servers) as kafka,
    ):
        kafka.create_topic(name, partitions=1, config=settings)
        # Nothing is superseded in the second half.
        keys = [f"key {row % 10}" if row < 2000 else f"own {row}" for row in range(6000)]
        values = [f'{{"row":{row},"text":"{"x" * 500}"}}' for row in range(6000)]
        kafka.write(name, pl.DataFrame({"key": keys, "value": values}), key="key")
        form = ottla.json({"row": "int64"})
        kinds: tuple[dict[str, Any], ...] = (
            {},
            {},
            {"start": {0: 3000}, "end": {0: 4321}},
            {"on_data_loss": "warn", "columns": ["offset", "row"]},
            {},
        )
        read, begun, late, tolerant, fresh = (
            kafka.scan(name, value=form, **options) for options in kinds
        )
        for scan in (read, late, tolerant):
            assert scan.count() == scan.max_rows
        assert begun.head(7)["row"].to_pylist() == list(range(7))
        kafka.alter_configs(name, {"cleanup.policy": "compact"})
        left = 10 + 4000
        deadline = time.monotonic() + 30
        while kafka.scan(name).count() > left:
            assert time.monotonic() < deadline
        missing = r"-0: when this scan was read before, there were \d+ records .*compacted since"
        for use in (
            read.count,
            read.to_polars,
            read.to_pyarrow,
            lambda: read.head(3),
            lambda: list(read),
            lambda: begun.head(7),
            begun.count,
        ):
            with pytest.raises(ottla.DataLossError, match=missing):
                use()
        batches = iter(read)
        for _ in range(3):
            with pytest.raises(ottla.DataLossError, match=missing):
                next(batches)
        assert tolerant.count() == left
        assert tolerant.count() == left
        # Not a record of it was removed.
        assert late.to_polars()["row"].to_list() == list(range(3000, 4321))
        assert fresh.count() == fresh.count() == left
        assert fresh.to_polars()["row"].to_list() == tolerant.to_polars()["row"].to_list()
