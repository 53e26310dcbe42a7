"""Scans travel to other processes, whole or in parts, and are read without blocking a loop."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
import threading
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla
from ottla._aio import ThreadIterator
from ottla._scan_parts import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

ROW = ["partition", "offset", "value"]


def rows(*scans: ottla.Scan) -> list[tuple[Any, ...]]:
    return sorted(row for scan in scans for row in scan.to_polars().select(ROW).rows())


def again(scan: ottla.Scan) -> ottla.Scan:
    found: ottla.Scan = pickle.loads(pickle.dumps(scan))
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 7, 40, 1000])
def test_parts_are_together_the_scan(kafka: ottla.Client, filled: str, n: int) -> None:
    scan = kafka.scan(filled, start={0: 3, 1: 0, 2: 10, 3: 9}, value=ottla.text())
    parts = scan.split(n)
    assert len(parts) == min(n, 18)
    assert rows(*parts) == rows(scan)
    assert rows(*map(again, parts)) == rows(scan)
    sizes = [part.max_rows for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert {part.topic for part in parts} == {filled}


def test_parts_of_many_shapes_are_exact() -> None:
    for starts in ([0], [0, 5], [7, 0, 0], [1, 2, 3, 4]):
        for sizes in ([0], [1, 0], [5, 1, 9], [0, 0, 2, 30]):
            offsets = {
                one: (start, start + size)
                for one, (start, size) in enumerate(zip(starts, sizes, strict=False))
            }
            places = [(one, at) for one, span in offsets.items() for at in range(*span)]
            for n in range(1, 12):
                parts = cut(offsets, n)
                assert 1 <= len(parts) <= n
                found = [
                    (one, at) for part in parts for one, span in part.items() for at in range(*span)
                ]
                assert found == places
                assert not places or all(any(s < e for s, e in part.values()) for part in parts)


def test_a_pickled_scan_is_the_same_value(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(
        filled,
        value=ottla.text(),
        columns=[*ROW, ottla.header("h")],
        batch_rows=3,
        partitions=[1, 2],
    )
    kafka.send(filled, "later", partition=1)
    copy = again(again(scan))
    assert copy.offsets == scan.offsets
    assert copy.schema == scan.schema
    assert rows(copy) == rows(scan)
    assert max(batch.num_rows for batch in copy) <= 3
    cut_off = kafka.scan(filled, value=ottla.text(), max_rows=13)
    assert rows(again(cut_off)) == rows(cut_off) == rows(*cut_off.split(4))
    assert again(cut_off).end == cut_off.end
    grouped = again(kafka.scan(filled, group_id="parts"))
    assert grouped.group_id is None
    with pytest.raises(ottla.ConfigError, match="no group"):
        grouped.commit()
    with pytest.raises(ottla.ConfigError, match="at least one part"):
        scan.split(0)


@pytest.mark.parametrize("columns", [None, ["n", "text"]])
def test_columns_that_were_inferred_travel(
    kafka: ottla.Client, name: str, columns: list[str] | None
) -> None:
    kafka.create_topic(name)
    table = pl.DataFrame({"n": [*range(50)], "text": [None] * 25 + ["x"] * 25})
    kafka.write(name, table)
    scan = kafka.scan(name, value="json", columns=columns)
    wanted = scan.to_polars().select("n", "text").sort("n")
    parts = [again(part) for part in scan.split(3)]
    found = pl.concat([part.to_polars() for part in parts]).select("n", "text").sort("n")
    assert found.equals(wanted)
    assert [part.schema for part in parts] == [scan.schema] * 3
    with pytest.raises(ottla.ConfigError, match="pass a schema"):
        kafka.scan(name, value=ottla.arrow_ipc()).split(2)


@pytest.mark.parametrize("columns", [None, ["n", "error"], ["value_raw", "offset"]])
@pytest.mark.parametrize("on_error", ["null", "column"])
def test_columns_that_tell_of_errors_are_no_members_of_values(
    kafka: ottla.Client, name: str, columns: list[str] | None, on_error: str
) -> None:
    if on_error == "null" and columns is not None:
        columns = [*columns[:1], "offset"]
    for value in ('{"n": 1, "text": "a"}', "broken", '{"n": 3}', '{"n": 4, "text": "b"}'):
        kafka.send(name, value, partition=0)
    scan = kafka.scan(name, value="json", on_error=on_error, columns=columns)
    parts = [again(part) for part in scan.split(3)]
    assert pl.concat([part.to_polars() for part in parts]).equals(scan.to_polars())
    assert [part.schema for part in parts] == [scan.schema] * 3
    assert scan.lazy().collect().equals(scan.to_polars())


def test_members_that_are_called_as_the_columns_of_errors_travel(
    kafka: ottla.Client, name: str
) -> None:
    for value in ('{"n": 1, "error": 7}', "broken", '{"n": 3, "error": 8}'):
        kafka.send(name, value, partition=0)
    scan = kafka.scan(name, value="json", on_error="column")
    found = pl.concat([again(part).to_polars() for part in scan.split(2)])
    assert found["error"].to_list() == [7, None, 8]
    assert found.equals(scan.to_polars())


def test_a_topic_that_was_created_again_is_told(kafka: ottla.Client, filled: str) -> None:
    copy, part = again(kafka.scan(filled)), kafka.scan(filled).split(2)[0]
    kafka.delete_topic(filled)
    kafka.create_topic(filled, partitions=4)
    for number in range(40):
        kafka.send_async(filled, "other", partition=number % 4)
    kafka.flush(30)
    for one in (copy, part):
        with pytest.raises(ottla.DataLossError, match="re-created"):
            one.count()


def count(scan: ottla.Scan) -> int:
    return scan.count()


@pytest.fixture
def pool() -> Iterator[Any]:
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        yield pool


@pytest.mark.timeout(120)
def test_processes_read_the_parts(kafka: ottla.Client, filled: str, pool: Any) -> None:
    counts = pool.map(count, kafka.scan(filled).split(3))
    assert sum(counts) == 40
    assert len(counts) == 3


def test_a_loop_goes_on_while_a_scan_is_read(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled, batch_rows=4)

    async def read() -> list[int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticking = asyncio.create_task(tick())
        sizes = [batch.num_rows async for batch in scan]
        ticking.cancel()
        assert ticks > len(sizes)
        return sizes

    assert sum(asyncio.run(read())) == 40

    async def first() -> int:
        async for batch in scan:
            return batch.num_rows
        return 0

    assert 0 < asyncio.run(first()) <= 4


def test_a_cancelled_wait_for_a_batch_takes_none_away(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled, batch_rows=4)

    async def read() -> list[int]:
        batches, sizes = aiter(scan), list[int]()
        while True:
            # Two waits are given up before a third gets the batch.
            given_up = asyncio.ensure_future(anext(batches))
            await asyncio.sleep(0)
            with pytest.raises(RuntimeError, match="another task"):
                await anext(batches)
            given_up.cancel()
            with pytest.raises(asyncio.CancelledError):
                await given_up
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(anext(batches), 0)
            try:
                sizes.append((await anext(batches)).num_rows)
            except StopAsyncIteration:
                return sizes

    sizes = asyncio.run(read())
    assert sum(sizes) == 40
    assert len(sizes) > 4


def test_items_are_fetched_once_however_often_a_wait_is_given_up() -> None:
    go_on = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert go_on.wait(30)
        yield 2
        raise LookupError

    async def read() -> None:
        found = ThreadIterator(items())
        assert await anext(found) == 1
        for _ in range(3):
            with pytest.raises((TimeoutError, asyncio.TimeoutError)):
                await asyncio.wait_for(anext(found), 0.01)
        go_on.set()
        assert await anext(found) == 2
        with pytest.raises(LookupError):
            await anext(found)
        with pytest.raises(StopAsyncIteration):
            await anext(found)

    asyncio.run(read())


def test_an_error_of_a_scan_comes_out_of_the_loop(kafka: ottla.Client, filled: str) -> None:
    async def read() -> None:
        async for _batch in kafka.scan(filled, value={"n": "int64"}):
            pass

    with pytest.raises(ottla.DecodeError):
        asyncio.run(read())


def test_a_pickled_batch_is_as_good_as_the_original(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name, partitions=1)
    for value in ('{"n": 1, "parts": [1]}', None, '{"n": 2}', "broken"):
        kafka.send(name, value, key="k" * 20, headers={"h": b"1"})
    form = {"n": "int64", "parts": "list<int64>"}
    names = ["topic", "offset", "key", "headers", "timestamp", "n", "parts"]
    scan = kafka.scan(name, value=form, columns=names, on_error="null")
    (batch,) = scan
    copy = pickle.loads(pickle.dumps(batch))
    assert copy.to_pylist() == batch.to_pylist()
    assert copy.schema == batch.schema
    assert copy.offsets == batch.offsets == {name: {0: (0, 4)}}
    with pytest.raises(ottla.ConfigError):
        kafka.write(f"{name}-copy", copy)  # It hides what did not decode.
    part = pickle.loads(pickle.dumps(batch[1:3]))
    assert part.to_pylist() == batch[1:3].to_pylist()
    with pytest.raises(ottla.KafkaError):
        _ = part.offsets
    (good,) = kafka.scan(name, end={0: 3}, value=form)
    assert kafka.write(f"{name}-copy", pickle.loads(pickle.dumps(good)), value="json") == 3
    values = kafka.scan(f"{name}-copy").to_polars()["value"].to_list()
    assert [value is None for value in values] == [False, True, False]
    # Its bytes are those of its rows, not of the segment that they point into.
    (wide,) = kafka.scan(name, columns=["offset", "value"], batch_rows=100)
    assert len(pickle.dumps(wide[:1])) < 2000
    (empty,) = kafka.scan(name, columns=[])
    assert pickle.loads(pickle.dumps(empty)).num_rows == 4
