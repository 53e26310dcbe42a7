"""Consumers of assigned partitions."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

import ottla


def numbers(batch: ottla.RecordBatch | None) -> list[int]:
    return [] if batch is None else [int(value) for value in batch["value"].to_pylist()]


@pytest.fixture
def partition_count() -> int:
    return 2


def test_it_reads_until_it_has_caught_up(remote: ottla.Client, filled: str) -> None:
    found: list[int] = []
    with remote.consumer(filled, start="earliest", until="caught_up", max_rows=7) as consumer:
        for batch in consumer:
            assert batch.num_rows <= 7
            found += numbers(batch)
    assert sorted(found) == list(range(20))


def test_it_follows_what_comes(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer(filled, value=ottla.text()) as consumer:
        assert consumer.poll(0.05) is None
        timer = threading.Timer(0.1, kafka.send, (filled, "20"))
        timer.start()
        assert numbers(consumer.poll(30)) == [20]
        timer.join()


def test_it_seeks_pauses_and_tells_where_it_is(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer({filled: [0]}, start="earliest") as consumer:
        assert consumer.assignment == [(filled, 0)]
        assert numbers(consumer.poll(30)) == list(range(0, 20, 2))
        assert consumer.position() == {filled: {0: 10}}
        assert consumer.lag() == {filled: {0: 0}}
        consumer.seek({0: 7})
        assert consumer.lag() == {filled: {0: 3}}
        assert numbers(consumer.poll(30)) == [14, 16, 18]
        consumer.seek("earliest")
        consumer.pause()
        assert consumer.poll(0.1) is None
        consumer.resume([(filled, 0)])
        assert len(numbers(consumer.poll(30))) == 10


def test_async_for_reads_the_same(kafka: ottla.Client, filled: str) -> None:
    async def read() -> list[int]:
        found: list[int] = []
        async with kafka.consumer(filled, start="earliest", until="caught_up") as consumer:
            async for batch in consumer:
                found += numbers(batch)
        return sorted(found)

    assert asyncio.run(read()) == list(range(20))


def test_a_waiting_loop_does_not_hold_up_asyncio(kafka: ottla.Client, filled: str) -> None:
    async def race() -> int:
        async with kafka.consumer(filled) as consumer:
            task = asyncio.ensure_future(anext_(consumer))
            ticks = 0
            while not task.done():
                await asyncio.sleep(0.01)
                ticks += 1
                if ticks == 10:
                    await kafka.send_async(filled, "7")
            assert numbers(task.result()) == [7]
            return ticks

    assert asyncio.run(race()) >= 10


async def anext_(consumer: ottla.Consumer) -> ottla.RecordBatch:
    return await consumer.__anext__()


def test_the_gil_is_free_while_it_waits(kafka: ottla.Client, filled: str) -> None:
    counted = 0
    stop = threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0.001)

    worker = threading.Thread(target=count)
    with kafka.consumer(filled) as consumer:
        worker.start()
        consumer.poll(0.5)
    stop.set()
    worker.join()
    assert counted > 50


def test_a_consumer_of_its_own(broker: ottla.Broker, filled: str) -> None:
    with ottla.Consumer(
        filled, broker.bootstrap_servers, start="earliest", until="caught_up", client_id="me"
    ) as consumer:
        assert sum(batch.num_rows for batch in consumer) == 20
    with pytest.raises(ottla.ClosedError):
        consumer.poll(1)


def test_columns_and_formats_are_those_of_a_scan(kafka: ottla.Client, name: str) -> None:
    kafka.send(name, '{"a": 1}')
    with kafka.consumer(
        name, start="earliest", value=ottla.json({"a": "int64"}), columns=["a", "offset"]
    ) as consumer:
        batch = consumer.poll(30)
        assert batch is not None
        assert batch.to_pylist() == [{"a": 1, "offset": 0}]
        assert batch.offsets == {name: {0: (0, 1)}}
