"""Progress of consumers: how many rows arrived, out of how many."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import ottla


class Shown:
    """The part of tqdm's interface that is used."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.totals: list[int | None] = []
        self.n = 0
        self.is_closed = False

    def update(self, count: int) -> None:
        self.n += count

    def refresh(self) -> None:
        self.totals.append(self.total)

    def close(self) -> None:
        self.is_closed = True


GROUP: dict[str, Any] = {"auto_offset_reset": "earliest", "until": "caught_up", "max_rows": 7}


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_member_that_catches_up_has_a_total(
    remote: ottla.Client, filled: str, protocol: str
) -> None:
    first = Shown()
    options = {**GROUP, "group_id": filled, "group_protocol": protocol}
    with remote.consumer(filled, progress=first, **options) as consumer:
        read = 0
        # It is known when all partitions are placed.
        while first.total is None:
            batch = next(consumer)
            read += batch.num_rows
            consumer.commit(batch)
        assert first.total == 40
        # What comes later does not count.
        remote.send(filled, "late", partition=0)
    assert (first.n, first.is_closed) == (read, True)
    second = Shown()
    with remote.consumer(filled, progress=second, **options) as consumer:
        rows = sum(batch.num_rows for batch in consumer)
    assert rows == 41 - read
    assert (second.n, second.total, second.totals) == (rows, rows, [rows])


def test_without_an_end_there_is_no_total(remote: ottla.Client, filled: str) -> None:
    shown = Shown()
    options = {**GROUP, "until": None}
    with remote.consumer(filled, group_id=filled, progress=shown, **options) as consumer:
        assert consumer.poll(30) is not None
    assert (shown.total, shown.totals) == (None, [])


async def _read(consumer: ottla.Consumer) -> int:
    return sum([batch.num_rows async for batch in consumer])


def test_in_an_event_loop_too(remote: ottla.Client, filled: str) -> None:
    shown = Shown()
    with remote.consumer(filled, group_id=filled, progress=shown, **GROUP) as consumer:
        assert asyncio.run(_read(consumer)) == 40
    assert (shown.n, shown.total) == (40, 40)


def test_the_total_follows_the_partitions(remote: ottla.Client, filled: str) -> None:
    shown = Shown()
    options = {**GROUP, "max_rows": 1}
    with remote.consumer(filled, group_id=filled, progress=shown, **options) as consumer:
        while shown.total is None:
            assert consumer.poll(30) is not None
        assert shown.total == 40
        consumer.pause()
        with remote.consumer(filled, group_id=filled, auto_offset_reset="earliest") as other:
            stop = threading.Event()

            def poll() -> None:
                while not stop.is_set():
                    other.poll(0.05)
                    other.commit()

            polling = threading.Thread(target=poll)
            polling.start()
            try:
                while len(consumer.assignment) != 2:
                    consumer.poll(0.05)
                consumer.resume()
                for _ in consumer:
                    pass
            finally:
                stop.set()
                polling.join()
    # It does not wait for the other one's partitions.
    assert shown.total == shown.n < 40
    assert shown.totals[0] == 40


def test_what_is_skipped_is_not_waited_for(remote: ottla.Client, filled: str) -> None:
    shown = Shown()

    def skip(partitions: list[tuple[str, int]]) -> None:
        consumer.seek({partition: 8 for _, partition in partitions})

    with remote.consumer(
        filled, group_id=filled, progress=shown, on_assign=skip, **GROUP
    ) as consumer:
        assert sum(batch.num_rows for batch in consumer) == 8
    assert (shown.n, shown.total) == (8, 8)


def test_a_total_of_the_callers_own_stays(remote: ottla.Client, filled: str) -> None:
    shown = Shown(total=1000)
    with remote.consumer(filled, group_id=filled, progress=shown, **GROUP) as consumer:
        assert sum(batch.num_rows for batch in consumer) == 40
    assert (shown.total, shown.totals) == (1000, [])


def test_without_a_group_the_total_is_known_at_once(kafka: ottla.Client, filled: str) -> None:
    shown = Shown()
    with kafka.consumer(filled, start="earliest", until="caught_up", progress=shown) as consumer:
        assert shown.total == 40
        list(consumer)
    assert (shown.n, shown.totals) == (40, [40])


def test_tqdm_itself(remote: ottla.Client, filled: str) -> None:
    import tqdm

    bar = tqdm.tqdm(disable=False)
    with remote.consumer(filled, group_id=filled, progress=bar, **GROUP) as consumer:
        assert sum(batch.num_rows for batch in consumer) == 40
    assert (bar.n, bar.total) == (40, 40)


class Noted(Shown):
    """One that shows notes, as tqdm does."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: list[str] = []
        self.is_noted = asyncio.Event()

    def set_postfix_str(self, s: str = "") -> None:
        self.notes.append(s)
        self.is_noted.set()


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_member_that_waits_for_another_says_so(
    remote: ottla.Client, filled: str, protocol: str, kind: str
) -> None:
    shown = Noted()
    options = {**GROUP, "group_id": filled, "group_protocol": protocol, "until": None}
    with remote.consumer(filled, **options) as busy:
        while not busy.assignment:
            busy.poll(0.05)
        # It is alive, but does not come back to hear that it has to give something up.
        with remote.consumer(filled, progress=shown, **options) as waiting:

            async def look() -> None:
                task = asyncio.ensure_future(anext(waiting))
                await shown.is_noted.wait()
                task.cancel()

            if kind == "async":
                asyncio.run(look())
            while not shown.notes:
                waiting.poll(0.05)
            wanted = "join the rebalance" if protocol == "classic" else f"give up {filled}-"
            assert shown.notes[0].startswith("waiting for another member to ")
            assert wanted in shown.notes[0]
            assert not waiting.assignment
            while not waiting.assignment:
                busy.poll(0.05)
                waiting.poll(0.05)
            while len(shown.notes) == 1:
                waiting.poll(0.05)
            assert shown.notes[1:] == [""]
