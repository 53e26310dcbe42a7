"""Consumers as members of groups."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ottla.typing import GroupProtocol

PROTOCOLS = ["classic", "consumer"]


def numbers(batch: ottla.RecordBatch | None) -> list[int]:
    return [] if batch is None else [int(value) for value in batch["value"].to_pylist()]


def until(consumer: ottla.Consumer, is_so: Callable[[], bool]) -> list[int]:
    """Poll until a condition holds; return what arrived."""
    found = []
    while not is_so():
        found += numbers(consumer.poll(0.05))
    return found


class Polling:
    """A member that polls in a thread of its own until the block ends."""

    def __init__(self, consumer: ottla.Consumer) -> None:
        self.consumer = consumer
        self.found: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            batch = self.consumer.poll(0.05)
            if batch is not None:
                self.found += numbers(batch)
                self.consumer.commit(batch)

    def __enter__(self) -> Polling:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def test_commit_leaves_out_the_batch_that_is_being_processed(
    kafka: ottla.Client, filled: str
) -> None:
    options: dict[str, Any] = {"auto_offset_reset": "earliest", "max_rows": 5, "max_wait": 0.0}
    with kafka.consumer(filled, group_id=filled, until="caught_up", **options) as consumer:
        done = 0
        for batch in consumer:
            committed = consumer.commit()
            assert sum(committed.get(filled, {}).values()) == done
            done += batch.num_rows
        assert sum(consumer.commit()[filled].values()) == 40


def test_offsets_are_committed_as_they_are_given(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer(filled, group_id=filled, auto_offset_reset="earliest") as consumer:
        until(consumer, lambda: bool(consumer.assignment))
        assert consumer.commit({filled: {1: 4}}) == {filled: {1: 4}}
        assert consumer.commit_async({filled: {2: (0, 5)}}).result(30) == {filled: {2: 5}}
        assert consumer.committed() == {filled: {1: 4, 2: 5}}
        assert consumer.committed([(filled, 1)]) == {filled: {1: 4}}
        with pytest.raises(ottla.FencedError, match="other-0: not assigned to this member"):
            consumer.commit({"other": {0: 1}})
        with pytest.raises(ottla.UnknownTopicError, match=f"{filled} has no partition 9: it has 4"):
            consumer.commit({filled: {9: 1}})
        with pytest.raises(TypeError, match=r"what is committed must be .*, not int"):
            consumer.commit(3)  # type: ignore[arg-type]
    with kafka.consumer(filled, group_id=filled, auto_offset_reset="latest") as consumer:
        found = until(consumer, lambda: consumer.position().get(filled, {}) != {})
        found += until(consumer, lambda: sum(consumer.lag()[filled].values()) == 0)
        assert sorted(found) == [
            number
            for number in range(40)
            if number // 4 >= 4 and (number % 4 == 1 or (number % 4 == 2 and number // 4 >= 5))
        ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_members_share_and_hear_of_it_before(
    kafka: ottla.Client, filled: str, protocol: str
) -> None:
    told: list[tuple[str, list[int]]] = []
    threads = set()

    def hear(kind: str) -> Callable[[list[tuple[str, int]]], None]:
        def heard(partitions: list[tuple[str, int]]) -> None:
            threads.add(threading.get_ident())
            told.append((kind, sorted(one for _, one in partitions)))
            if kind == "revoked":
                # What was handed out can still be committed.
                committed = first.commit()
                assert all(committed[filled][one] == 10 for _, one in partitions)

        return heard

    options: dict[str, Any] = {
        "group_id": filled,
        "group_protocol": protocol,
        "auto_offset_reset": "earliest",
    }
    if protocol == "classic":
        options["partition_assignment_strategy"] = "cooperative-sticky"
    with kafka.consumer(
        filled, on_assign=hear("assigned"), on_revoke=hear("revoked"), **options
    ) as first:
        found: list[int] = []
        while len(found) < 40:
            found += numbers(first.poll(30))
        assert told == [("assigned", [0, 1, 2, 3])]
        with kafka.consumer(filled, **options) as second, Polling(second):
            until(first, lambda: len(first.assignment) == 2 and len(second.assignment) == 2)
            kept = [one for _, one in first.assignment]
            assert told[1] == ("revoked", sorted({0, 1, 2, 3} - set(kept)))
            assert sorted(first.assignment + second.assignment) == [
                (filled, one) for one in range(4)
            ]
        # It has left: everything comes back, from the committed position.
        assert until(first, lambda: len(first.assignment) == 4) == []
        assert first.poll(0.2) is None
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_short_polls_give_nothing_up_that_was_not_told(
    hurried: ottla.Broker, name: str, protocol: str
) -> None:
    """The commit in front of a revocation takes longer than one of these polls."""
    given_up: list[tuple[str, int]] = []

    def revoked(partitions: list[tuple[str, int]]) -> None:
        # Refused, had the partitions been given up before.
        first.commit()
        given_up.extend(partitions)

    options: dict[str, Any] = {
        "group_id": name,
        "group_protocol": protocol,
        "auto_offset_reset": "earliest",
        "auto_commit": True,
    }
    if protocol == "classic":
        options["partition_assignment_strategy"] = "cooperative-sticky"
        options["heartbeat_interval_ms"] = 20
    with ottla.connect(hurried.bootstrap_servers) as client:
        client.create_topic(name, partitions=2)
        for partition in range(2):
            client.send(name, "1", partition=partition)
        with client.consumer(name, on_revoke=revoked, **options) as first:
            for members in range(1, 11):
                until(first, lambda: len(first.assignment) == 2)
                with client.consumer(name, **options) as second, Polling(second):
                    while len(given_up) < members:
                        first.poll(0)


def test_a_slow_loop_keeps_its_partitions(kafka: ottla.Client, filled: str) -> None:
    revoked: list[object] = []
    with kafka.consumer(
        filled,
        group_id=filled,
        auto_offset_reset="earliest",
        session_timeout_ms=6000,
        heartbeat_interval_ms=100,
        on_revoke=revoked.append,
    ) as consumer:
        found = numbers(consumer.poll(30))
        generation = consumer.generation
        time.sleep(7)  # what a slow cell does, longer than the session
        while len(found) < 40:
            found += numbers(consumer.poll(30))
        assert (revoked, consumer.generation) == ([], generation)
        assert sorted(found) == list(range(40))


def test_who_sets_a_limit_is_held_to_it(kafka: ottla.Client, filled: str) -> None:
    lost: list[list[tuple[str, int]]] = []
    with kafka.consumer(
        filled,
        group_id=filled,
        auto_offset_reset="earliest",
        max_poll_interval_ms=300,
        on_lost=lost.append,
    ) as consumer:
        batch = None
        while batch is None:
            batch = consumer.poll(1)
        deadline = time.monotonic() + 30
        while consumer.generation >= 0 and time.monotonic() < deadline:
            time.sleep(0.05)  # the limit is about time
        with pytest.raises(ottla.FencedError):
            consumer.commit(batch)
        until(consumer, lambda: bool(lost))
        until(consumer, lambda: len(consumer.assignment) == 4)
        assert sorted(lost[0]) == [(filled, one) for one in range(4)]


def test_what_a_listener_raises_comes_out_of_the_poll(kafka: ottla.Client, filled: str) -> None:
    def fail(partitions: list[tuple[str, int]]) -> None:
        raise LookupError(len(partitions))

    with kafka.consumer(filled, group_id=filled, on_assign=fail) as consumer:
        with pytest.raises(LookupError, match="4"):
            consumer.poll(30)
        assert len(consumer.assignment) == 4
        assert consumer.poll(0.05) is None


def test_an_event_loop_reads_and_can_give_up_waiting(kafka: ottla.Client, filled: str) -> None:
    assigned: list[object] = []

    async def on_assign(partitions: list[tuple[str, int]]) -> None:
        await asyncio.sleep(0)
        assigned.extend(partitions)

    async def main() -> list[int]:
        found = []
        async with kafka.consumer(
            filled, group_id=filled, auto_offset_reset="earliest", on_assign=on_assign
        ) as consumer:
            async for batch in consumer:
                found += numbers(batch)
                await consumer.commit_async(batch)
                if len(found) == 40:
                    break
            assert consumer.committed() == {filled: dict.fromkeys(range(4), 10)}
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(anext(consumer), 0.05)
            consumer.pause()
            consumer.resume()
            # The abandoned poll continues, and loses nothing.
            kafka.send(filled, "40")
            found += numbers(await anext(consumer))
            with pytest.raises((asyncio.TimeoutError, TimeoutError)):
                await asyncio.wait_for(anext(consumer), 0.05)
            kafka.send(filled, "41")
            found += numbers(consumer.poll(30))
        return found

    assert sorted(asyncio.run(main())) == list(range(42))
    assert sorted(assigned) == [(filled, one) for one in range(4)]  # type: ignore[type-var]


def test_an_async_listener_needs_an_event_loop(kafka: ottla.Client, filled: str) -> None:
    async def on_assign(_partitions: list[tuple[str, int]]) -> None: ...

    with (
        kafka.consumer(filled, group_id=filled, on_assign=on_assign) as consumer,
        pytest.raises(TypeError, match="async for"),
    ):
        consumer.poll(30)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("compiled", [True, False])
def test_a_pattern_also_finds_what_comes_later(
    broker: ottla.Broker, name: str, protocol: GroupProtocol, *, compiled: bool
) -> None:
    pattern = rf"^{name}-(a|b)\d*"
    with ottla.connect(broker.bootstrap_servers, config={"metadata.max.age.ms": 200}) as kafka:
        kafka.create_topic(f"{name}-a1")
        kafka.create_topic(f"{name}-c1")
        with kafka.consumer(
            re.compile(pattern) if compiled else pattern,
            group_id=name,
            group_protocol=protocol,
            auto_offset_reset="earliest",
            heartbeat_interval_ms=100 if protocol == "classic" else None,
        ) as consumer:
            until(consumer, lambda: consumer.assignment == [(f"{name}-a1", 0)])
            kafka.create_topic(f"{name}-b2")
            kafka.send(f"{name}-b2", "7")
            assert until(consumer, lambda: len(consumer.assignment) == 2) in ([], [7])


def test_a_member_takes_topics_as_objects(kafka: ottla.Client, filled: str) -> None:
    topic: Any = kafka[filled]
    for group, topics in ((f"{filled}-one", topic), (f"{filled}-list", [topic])):
        options: dict[str, Any] = {"auto_offset_reset": "earliest", "until": "caught_up"}
        with kafka.consumer(topics, group_id=group, **options) as consumer:
            assert sum(batch.num_rows for batch in consumer) > 0
    with pytest.raises(ottla.ConfigError, match="a pattern must stand alone"):
        kafka.consumer([topic, "^a.*"], group_id=f"{filled}-mixed")


def test_an_interrupted_loop_goes_on_where_it_committed(kafka: ottla.Client, filled: str) -> None:
    options: dict[str, Any] = {
        "group_id": filled,
        "auto_offset_reset": "earliest",
        "until": "caught_up",
    }
    done: list[int] = []

    def run() -> None:
        reading: dict[str, Any] = options | {"auto_commit": True, "max_rows": 8, "max_wait": 0}
        with kafka.consumer(filled, **reading) as consumer:
            for batch in consumer:
                if len(done) >= 16:
                    raise KeyboardInterrupt
                done.extend(numbers(batch))

    with pytest.raises(KeyboardInterrupt):
        run()
    # The batch at which it failed is not committed, those before are.
    with kafka.consumer(filled, **options) as again:
        rest = [number for batch in again for number in numbers(batch)]
    assert sorted(done + rest) == list(range(40))


def test_auto_commit_commits_all_that_was_finished(kafka: ottla.Client, filled: str) -> None:
    options: dict[str, Any] = {
        "group_id": filled,
        "auto_offset_reset": "earliest",
        "until": "caught_up",
    }
    with kafka.consumer(filled, auto_commit=True, **options) as consumer:
        assert sum(batch.num_rows for batch in consumer) == 40
    with kafka.consumer(filled, **options) as again:
        assert list(again) == []


def test_offsets_of_ours_count_more_than_those_of_the_group(
    kafka: ottla.Client, filled: str
) -> None:
    asked: list[tuple[str, int]] = []

    def resume(topic: str, partition: int) -> int | None:
        asked.append((topic, partition))
        return {0: 9, 1: 8}.get(partition)

    options: dict[str, Any] = {
        "group_id": filled,
        "auto_offset_reset": "latest",
        "until": "caught_up",
    }
    with kafka.consumer(filled, resume=resume, **options) as consumer:
        found = [number for batch in consumer for number in numbers(batch)]
    assert sorted(found) == [33, 36, 37]
    assert sorted(asked) == [(filled, one) for one in range(4)]
    with kafka.consumer(filled, resume={filled: {"3": [0, 9]}}, **options) as consumer:
        assert [number for batch in consumer for number in numbers(batch)] == [39]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_id": "g", "start": "earliest"}, "auto_offset_reset="),
        ({"group_id": "g", "partitions": [0]}, "group assigns"),
        ({"group_id": ""}, "group.id is empty"),
        ({"group_id": "g", "auto_offset_reset": "first"}, "auto.offset.reset"),
        ({"group_id": "g", "group_protocol": "new"}, "classic or consumer"),
        ({"group_id": "g", "group_remote_assignor": "range"}, "group_protocol|group.protocol"),
        ({"group_id": "g", "partition_assignment_strategy": "best"}, "cooperative-sticky"),
        ({"group_id": "g", "group_protocol": "consumer", "session_timeout_ms": 9}, "classic"),
        ({"group_id": "g", "session_timeout_ms": 9, "heartbeat_interval_ms": 9}, "below"),
        ({"group_id": "g", "auto_commit_interval_ms": 9}, "auto_commit=True"),
        ({"group_id": "g", "max_poll_interval_ms": 0}, "above 0"),
        ({"group_id": "g", "until": "end"}, "caught_up"),
        ({"auto_commit": True}, "group_id="),
        ({"session_timeout_ms": 9}, "group_id="),
    ],
)
def test_contradictions_are_refused(
    kafka: ottla.Client, name: str, options: dict[str, object], message: str
) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match=message):
        kafka.consumer(name, **options)  # type: ignore[arg-type]


def test_what_needs_a_group_says_so(kafka: ottla.Client, name: str) -> None:
    kafka.create_topic(name)
    with pytest.raises(ottla.ConfigError, match="pattern of topics needs a group"):
        kafka.consumer("^any.*")
    with pytest.raises(ottla.ConfigError, match="must stand alone"):
        kafka.consumer([name, "^any.*"], group_id=name)
    with pytest.raises(ottla.ConfigError, match=r"consumer\(topics, group_id"):
        ottla.connect("localhost:9092", group_id="etl")  # type: ignore[call-arg]
    with pytest.raises(ottla.NotSupportedError, match="on_assign"):
        kafka.consumer(name, on_assign=print)
    with (
        kafka.consumer(name) as consumer,
        pytest.raises(ottla.ConfigError, match="not a member of a group"),
    ):
        consumer.commit()


def test_a_partition_without_an_offset_can_be_an_error(kafka: ottla.Client, filled: str) -> None:
    with (
        kafka.consumer(filled, group_id=filled, auto_offset_reset="error") as consumer,
        pytest.raises(ottla.ConfigError, match="has no offset"),
    ):
        consumer.poll(30)


def test_a_member_leaves_when_it_closes(kafka: ottla.Client, filled: str) -> None:
    options: dict[str, Any] = {"group_id": filled, "auto_offset_reset": "earliest"}
    first = kafka.consumer(filled, **options)
    until(first, lambda: len(first.assignment) == 4)
    started = time.monotonic()
    first.close()
    first.close()
    assert first.closed
    with pytest.raises(ottla.ClosedError):
        first.poll(1)
    with kafka.consumer(filled, **options) as second:
        until(second, lambda: len(second.assignment) == 4)
    assert time.monotonic() - started < 20  # far below the session timeout


def test_members_leave_when_their_client_closes(
    kafka: ottla.Client, broker: ottla.Broker, filled: str
) -> None:
    client = ottla.connect(broker.bootstrap_servers)
    consumer = client.consumer(
        filled, group_id=filled, auto_offset_reset="earliest", auto_commit=True, max_rows=8
    )
    batches = [next(consumer), next(consumer)]
    client.close()
    assert consumer.closed
    group = kafka.groups[filled]
    assert group.state == "Empty"
    # Nothing said that the second batch is finished.
    done = sum(one.committed_offset or 0 for one in group.partitions)
    assert done == batches[0].num_rows


@pytest.fixture
def group_broker() -> Iterator[ottla.Broker]:
    with ottla.Broker(config={"group.initial.rebalance.delay.ms": 50}) as broker:
        yield broker


def test_a_consumer_of_its_own_connects_by_itself(group_broker: ottla.Broker) -> None:
    with group_broker.client() as kafka:
        kafka.send("words", "1")
    with ottla.Consumer(
        "words",
        group_broker.bootstrap_servers,
        group_id="etl",
        auto_offset_reset="earliest",
        until="caught_up",
        client_id="mine",
    ) as consumer:
        assert [numbers(batch) for batch in consumer] == [[1]]


def test_members_go_on_after_what_others_wrote(
    kafka: ottla.Client, filled: str, tmp_path: Path
) -> None:
    place = tmp_path / "rows.db"
    options: dict[str, Any] = {"group_id": filled, "auto_offset_reset": "earliest", "max_rows": 6}

    def connect() -> sqlite3.Connection:
        db = sqlite3.connect(place, timeout=30)
        db.execute("CREATE TABLE IF NOT EXISTS rows (value INTEGER)")
        return db

    def write(db: sqlite3.Connection, batch: ottla.RecordBatch) -> None:
        with db:
            db.executemany("INSERT INTO rows VALUES (?)", [(one,) for one in numbers(batch)])
            ottla.sql_offsets.save(db, "etl", batch.offsets)

    one, two = connect(), connect()
    # Neither commits to the group: the table alone says how far they are.
    with kafka.consumer(filled, resume=ottla.sql_offsets.resume(one, "etl"), **options) as first:
        batch = None
        while batch is None:
            batch = first.poll(30)
        write(one, batch)
        with kafka.consumer(
            filled, resume=ottla.sql_offsets.resume(two, "etl"), **options
        ) as second:
            deadline = time.monotonic() + 30
            while len(second.assignment) < 2 and time.monotonic() < deadline:
                for db, member in ((one, first), (two, second)):
                    batch = member.poll(0.05)
                    if batch is not None:
                        write(db, batch)
        while sum(first.lag().get(filled, {0: 1}).values()) > 0:
            batch = first.poll(0.05)
            if batch is not None:
                write(one, batch)
    assert sorted(value for (value,) in one.execute("SELECT value FROM rows")) == list(range(40))
    one.close()
    two.close()


@pytest.mark.skipif(os.name != "posix", reason="needs SIGINT")
@pytest.mark.parametrize("closes", [True, False])
def test_an_interrupted_program_leaves_its_group(
    kafka: ottla.Client, broker: ottla.Broker, filled: str, *, closes: bool
) -> None:
    program = f"""
        import ottla
        kafka = ottla.connect({broker.bootstrap_servers!r})
        consumer = kafka.consumer(
            {filled!r}, group_id={filled!r}, on_assign=lambda _: print("ready", flush=True)
        )
        try:
            consumer.poll(None)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        if {closes}:
            consumer.close()
    """
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        assert process.wait(30) == 0
    assert kafka.groups[filled].state == "Empty"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_headers_are_columns_of_a_member_too(kafka: ottla.Client, name: str, protocol: str) -> None:
    kafka.create_topic(name, partitions=2)
    for number in range(20):
        headers = {"trace": f"t{number}"} if number % 3 else None
        kafka.send_async(name, str(number), partition=number % 2, headers=headers)
    kafka.send_async(name, "bad", partition=0, headers={"trace": b"\xff"})
    kafka.flush(30)
    columns: list[str | ottla.Header] = [
        "offset",
        "value",
        ottla.header("trace"),
        ottla.header("trace", name="bytes", text=False),
    ]
    options: dict[str, Any] = {
        "group_protocol": protocol,
        "auto_offset_reset": "earliest",
        "columns": columns,
        "until": "caught_up",
        "max_rows": 7,
    }
    found: dict[int, Any] = {}
    with kafka.consumer(name, group_id=name, on_error=f"dlq:{name}.dlq", **options) as consumer:
        for batch in consumer:
            found |= {int(row["value"]): row for row in batch.to_pylist()}
            consumer.commit(batch)
        assert consumer.committed() == {name: {0: 11, 1: 10}}
    assert sorted(found) == list(range(20))
    for number, row in found.items():
        trace = f"t{number}" if number % 3 else None
        assert row["trace"] == trace
        assert row["bytes"] == (None if trace is None else trace.encode())
    assert kafka.scan(f"{name}.dlq").count() == 1
    with (
        kafka.consumer(name, group_id=f"{name}.other", **options) as consumer,
        pytest.raises(ottla.DecodeError, match=r"header.*UTF-8"),
    ):
        list(consumer)
