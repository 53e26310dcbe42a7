"""What consumers hand out, where they begin and end, and that they hide nothing."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pyarrow as pa
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ottla.typing import GroupProtocol, Until

#: Without a group, and with one of either protocol.
KINDS = [None, "classic", "consumer"]


def numbers(batch: ottla.RecordBatch | None) -> list[int]:
    return [] if batch is None else [int(value) for value in batch["value"].to_pylist()]


def of(kind: str | None, name: str, **options: Any) -> dict[str, Any]:
    """The arguments of a consumer that begins at the beginning."""
    if kind is None:
        return {"start": "earliest", **options}
    group = {"group_id": name, "group_protocol": kind, "auto_offset_reset": "earliest"}
    return {**group, **options}


@pytest.fixture
def partition_count() -> int:
    return 1


@pytest.fixture(params=["embedded", "tcp"])
def client(
    request: pytest.FixtureRequest, kafka: ottla.Client, remote: ottla.Client
) -> ottla.Client:
    """A client of either transport."""
    return kafka if request.param == "embedded" else remote


async def cancelled(consumer: ottla.Consumer) -> None:
    """Ask for the next batch and give up; what is found in the background is not handed out."""
    task = asyncio.ensure_future(consumer.__anext__())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    pending = consumer._under_way
    assert pending is not None
    assert pending.exception(30) is None


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_cancelled_anext_found_was_never_read(
    client: ottla.Client, filled: str, kind: str | None
) -> None:
    async def run() -> None:
        async with client.consumer(filled, **of(kind, filled, max_rows=3, max_wait=0)) as consumer:
            first = await anext(consumer)
            assert numbers(first) == [0, 1, 2]
            for use in ("seek", "position", "pause", "lag", "nothing"):
                await cancelled(consumer)
                if use == "seek":
                    consumer.seek({0: 3})
                elif use == "pause":
                    consumer.pause()
                    assert consumer.poll(0.05) is None
                    consumer.resume()
                elif use == "lag":
                    assert consumer.lag() == {filled: {0: 7}}
                elif use == "position":
                    assert consumer.position() == {filled: {0: 3}}
            assert numbers(await anext(consumer)) == [3, 4, 5]

    asyncio.run(run())


def test_a_seek_after_a_cancelled_anext_counts(client: ottla.Client, name: str) -> None:
    client.create_topic(name)

    async def run() -> list[int]:
        async with client.consumer(name, start="latest", max_wait=0) as consumer:
            assert consumer.position() == {name: {0: 0}}
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(consumer), 0.1)
            for number in range(5):
                client.send(name, str(number))
            pending = consumer._under_way
            assert pending is not None
            assert pending.exception(30) is None
            consumer.seek({0: 3})
            return numbers(await anext(consumer))

    assert asyncio.run(run()) == [3, 4]


class Interrupted(BaseException):
    """Raised by a signal handler."""


@pytest.fixture
def interrupt() -> Iterator[Callable[[], object]]:
    """A function that makes `Interrupted` come out of what the main thread does."""

    def handler(*_: object) -> None:
        raise Interrupted

    old = signal.signal(signal.SIGUSR1, handler)
    yield lambda: signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
    signal.signal(signal.SIGUSR1, old)


class Progress:
    """A progress that is interrupted, or fails, at its first update."""

    def __init__(self, fail: Callable[[], object]) -> None:
        self._fail: Callable[[], object] | None = fail

    def update(self, count: int) -> None:
        assert count
        fail, self._fail = self._fail, None
        if fail is not None:
            fail()

    def close(self) -> None:
        pass


def failing() -> None:
    raise LookupError


@pytest.mark.parametrize("kind", KINDS)
def test_rows_come_again_that_did_not_arrive(
    kafka: ottla.Client, filled: str, kind: str | None, interrupt: Callable[[], object]
) -> None:
    for fail, error in ((interrupt, Interrupted), (failing, LookupError)):
        name = f"{filled}-{error.__name__}"
        options = of(kind, name, max_rows=4, max_wait=0, until="caught_up", progress=Progress(fail))
        with kafka.consumer(filled, **options) as consumer:
            with pytest.raises(error):
                consumer.poll(30)
            assert consumer.position() == {filled: {0: 0}}
            if kind is not None:
                assert consumer.commit().get(filled, {0: 0}) == {0: 0}
            assert [numbers(batch) for batch in consumer] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_assignment_is_told_again_after_an_interrupt(
    kafka: ottla.Client, filled: str, kind: str, interrupt: Callable[[], object]
) -> None:
    told: list[int] = []

    def place(_: object) -> None:
        told.append(1)
        if len(told) == 1:
            interrupt()
            while True:
                pass
        consumer.seek({0: 8})

    options = of(kind, filled, on_assign=place, until="caught_up", resume={filled: {0: 9}})
    with kafka.consumer(filled, **options) as consumer:
        with pytest.raises(Interrupted):
            consumer.poll(30)
        assert [numbers(batch) for batch in consumer] == [[8, 9]]
    assert len(told) == 2


# --- where they begin and end ---------------------------------------------------------------------


STORED = [(None, "start"), (None, "resume")] + [
    (kind, stored) for kind in KINDS[1:] for stored in ("resume", "committed")
]


@pytest.mark.parametrize(("kind", "stored"), STORED)
@pytest.mark.parametrize("until", [None, "caught_up"])
def test_a_stored_offset_beyond_the_end_is_not_hidden(
    client: ottla.Client, filled: str, kind: GroupProtocol | None, until: str | None, stored: str
) -> None:
    options: dict[str, Any] = {"until": until}
    if kind is not None:
        options |= {"group_id": filled, "group_protocol": kind}
    if stored == "committed":
        with client.consumer(filled, group_id=filled, group_protocol=kind) as consumer:
            while not consumer.assignment:
                consumer.poll(0.1)
            consumer.commit({filled: {0: 500}})
    else:
        options[stored] = {filled: {0: 500}}
    for reset in ("earliest", "error") if stored == "committed" else (None,):
        with (
            client.consumer(filled, **options, auto_offset_reset=reset) as consumer,
            pytest.raises(ottla.DataLossError, match=r"offset 500 is beyond the end.* 10"),
        ):
            next(consumer)  # An end in order would be a StopIteration.


@pytest.mark.parametrize("kind", KINDS[1:])
@pytest.mark.parametrize(("reset", "found"), [("earliest", list(range(10))), ("latest", [])])
def test_a_tolerated_loss_resets_a_group_as_configured(
    kafka: ottla.Client, filled: str, kind: str, reset: str, found: list[int]
) -> None:
    options = of(kind, filled, auto_offset_reset=reset, on_data_loss="warn", until="caught_up")
    with kafka.consumer(filled, **options, resume={filled: {0: 500}}) as consumer:
        assert [number for batch in consumer for number in numbers(batch)] == found
        assert consumer.position() == {filled: {0: 10}}


def test_a_loss_is_told_as_often_as_it_is_asked(kafka: ottla.Client, filled: str) -> None:
    with kafka.consumer(filled, start={0: 500}) as consumer:
        for _ in range(20):
            for _ in range(2):
                with pytest.raises(ottla.DataLossError):
                    consumer.poll(30)
            consumer.seek("earliest")
            assert len(numbers(consumer.poll(30))) == 10
            consumer.seek({0: 500})


def test_a_seek_does_not_fail_of_another_partition(client: ottla.Client, name: str) -> None:
    topics = [f"{name}.here", f"{name}.lost"]
    for topic in topics:
        client.create_topic(topic)
        client.send(topic, "0")
    resume = {topics[0]: {0: 1}, topics[1]: {0: 500}}
    with client.consumer(topics, resume=resume) as consumer:

        def poll_on() -> None:
            while True:
                consumer.poll(30)

        for _ in range(10):
            with pytest.raises(ottla.DataLossError, match=topics[1]):
                poll_on()
            consumer.seek("earliest", topic=topics[0])
            assert consumer.position() == {topics[0]: {0: 0}, topics[1]: {0: 500}}
        consumer.seek("earliest")
        assert sum(len(numbers(consumer.poll(30))) for _ in topics) == 2


INFERRED = [
    ("json", ['{"a":1}', '{"a":2,"new":1}', '{"a":"text"}', '{"a":3}']),
    (
        ottla.debezium(),
        [
            '{"op":"c","after":{"a":1}}',
            '{"op":"c","after":{"a":"text"}}',
            '{"op":"c","after":{"a":"more"}}',
            '{"op":"c","after":{"a":3}}',
        ],
    ),
    (
        ottla.arrow_ipc(),
        [pl.DataFrame({"a": [one]}) for one in (1, "text", [1], 3)],
    ),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_async", [False, True])
@pytest.mark.parametrize(("form", "values"), INFERRED, ids=["json", "debezium", "arrow_ipc"])
def test_columns_that_were_found_stay(
    client: ottla.Client, name: str, kind: str | None, is_async: bool, form: Any, values: list[Any]
) -> None:
    client.create_topic(name, partitions=1)

    def send(value: Any) -> None:
        client.send(name, value, value_format=None if isinstance(value, str) else form)

    async def run() -> None:
        options = of(kind, name, max_wait=0)
        async with client.consumer(name, value=form, **options) as consumer:

            async def more() -> ottla.RecordBatch:
                return await anext(consumer) if is_async else next(consumer)

            send(values[0])
            first = await more()
            for offset, bad in ((1, values[1]), (2, values[2])):
                send(bad)
                for _ in range(3):
                    with pytest.raises(ottla.DecodeError, match=f"{name}-0.*offset {offset}"):
                        await more()
                    assert consumer.position() == {name: {0: offset}}
                # To where it was, which changes nothing, and past it.
                consumer.seek({0: offset})
                with pytest.raises(ottla.DecodeError, match=f"offset {offset}"):
                    await more()
                consumer.seek({0: offset + 1})
            send(values[3])
            last = await more()
            assert last.schema == first.schema
            assert last["offset"].to_pylist() == [3]

    asyncio.run(run())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_columns_that_were_found_stay_in_a_rebalance(
    client: ottla.Client, name: str, kind: str
) -> None:
    client.create_topic(name, partitions=2)
    for partition in (0, 1):
        client.send(name, '{"a":1}', partition=partition)
    options = of(kind, name, value="json", max_wait=0)
    with client.consumer(name, **options, max_rows=1) as one:
        first = next(one)
        with client.consumer(name, **options) as other:
            while len(one.assignment) != 1 or len(other.assignment) != 1:
                one.poll(0.05)
                other.poll(0.05)
            for partition in (0, 1):
                client.send(name, '{"a":"text"}', partition=partition)

            def poll_on() -> None:
                while True:
                    batch = one.poll(30)
                    assert batch is None or batch.schema == first.schema

            with pytest.raises(ottla.DecodeError, match='"a"'):
                poll_on()


@pytest.mark.parametrize("kind", [*KINDS, "scan"])
def test_a_value_that_does_not_decode_stays_in_front(
    client: ottla.Client, name: str, kind: str | None
) -> None:
    client.create_topic(name)
    for number in range(30):
        client.send(name, {"a": number if number != 12 else "x"})
    for index in range(5):
        reader: Any
        if kind == "scan":
            reader = iter(client.scan(name, value={"a": "int64"}, batch_rows=5))
        else:
            options = of(kind, f"{name}-{index}", max_rows=5, max_wait=0, until="caught_up")
            reader = client.consumer(name, value={"a": "int64"}, **options)
        assert next(reader)["a"].to_pylist() == [0, 1, 2, 3, 4]
        assert next(reader)["a"].to_pylist() == [5, 6, 7, 8, 9]
        for _ in range(4):
            with pytest.raises(ottla.DecodeError, match=f"{name}-0"):
                next(reader)
        if kind != "scan":
            assert reader.position() == {name: {0: 10}}
            reader.seek({0: 13})
            assert next(reader)["a"].to_pylist() == [13, 14, 15, 16, 17]
            reader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seek_names_what_is_assigned(client: ottla.Client, filled: str, kind: str | None) -> None:
    with client.consumer(filled, **of(kind, filled, max_wait=0)) as consumer:
        assert len(numbers(next(consumer))) == 10
        with pytest.raises(
            ottla.ConfigError, match=f"partition 3: it is not among those assigned, {filled}-0"
        ):
            consumer.seek({0: 2, 3: 0})
        with pytest.raises(
            ottla.ConfigError, match="partition 0: no partition of its topic is assigned"
        ):
            consumer.seek({0: 2}, topic="another")
        assert consumer.position() == {filled: {0: 10}}
        # Where a checkpoint was kept for all, each member takes its own.
        consumer.seek({filled: {0: 2, 3: 0}, "another": {0: 7}})
        assert numbers(next(consumer)) == list(range(2, 10))


@pytest.mark.parametrize("kind", KINDS)
def test_what_catches_up_begins_at_the_beginning(
    client: ottla.Client, filled: str, kind: str | None
) -> None:
    options: dict[str, Any] = {} if kind is None else {"group_id": filled, "group_protocol": kind}
    with client.consumer(filled, until="caught_up", **options) as consumer:
        assert [number for batch in consumer for number in numbers(batch)] == list(range(10))


@pytest.mark.parametrize("kind", KINDS)
def test_a_topic_that_does_not_exist_is_named(
    client: ottla.Client, name: str, kind: str | None
) -> None:
    with (
        pytest.raises(ottla.UnknownTopicError, match=name),
        client.consumer(name, **of(kind, name, until="caught_up")) as consumer,
    ):
        next(consumer)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_pattern_that_matches_nothing_is_named(
    client: ottla.Client, name: str, kind: str
) -> None:
    options = of(kind, name, until="caught_up")
    with (
        pytest.raises(ottla.UnknownTopicError, match=rf"\^{name}-.* which group {name}"),
        client.consumer(f"^{name}-.*", **options) as consumer,
    ):
        next(consumer)
    client.create_topic(f"{name}-1")
    with client.consumer(f"^{name}-.*", **options) as consumer:
        assert list(consumer) == []


# --- checkpoints ----------------------------------------------------------------------------------


def read(scan: ottla.Scan) -> list[int]:
    return sorted(number for batch in scan for number in numbers(batch))


def drained(consumer: ottla.Consumer) -> list[int]:
    with consumer:
        return sorted(number for batch in consumer for number in numbers(batch))


@pytest.mark.parametrize("stored", [lambda it: it, lambda it: json.loads(json.dumps(it))])
def test_a_checkpoint_reads_partitions_that_were_added_since(
    client: ottla.Client, filled: str, stored: Callable[[Any], Any]
) -> None:
    first = client.scan(filled)
    with client.consumer(filled, start="earliest") as consumer:
        batch = consumer.poll(30)
        assert batch is not None
        position = consumer.position()
    assert read(first) == numbers(batch)
    client.create_partitions(filled, 2)
    client.send(filled, "10", partition=0)
    client.send(filled, "11", partition=1)
    assert first.end == position == {filled: {0: 10}}
    end = stored(first.end)
    until: Until = "caught_up"
    assert read(client.scan(filled, start=end)) == [10, 11]
    assert read(client.scan(filled, start=end, partitions=[0])) == [10]
    assert read(client.scan(filled, start=stored(first.start), end=end)) == list(range(10))
    assert drained(client.consumer(filled, start=end, until=until)) == [10, 11]
    for resume in (end, stored(batch.offsets), position):
        assert drained(client.consumer(filled, resume=resume, until=until)) == [10, 11]
    for kind in KINDS[1:]:
        # Not one that ends: its default is another.
        options = {"group_id": f"{filled}-{kind}", "group_protocol": kind, "resume": end}
        with client.consumer(filled, **options, max_wait=0) as member:
            found = numbers(next(member))
            while len(found) < 2:
                found += numbers(next(member))
        assert sorted(found) == [10, 11]
    # What names partitions on purpose selects them.
    assert read(client.scan(filled, start={0: 10})) == [10]
    assert drained(client.consumer(filled, start={1: 0}, until=until)) == [11]
    assert len(read(client.scan(filled, start={}))) == 12, "the checkpoint of nothing"
    client.groups.reset(f"{filled}-classic", to=end)
    assert client.groups[f"{filled}-classic"].lag == 2, "one in each partition"
    assert client.delete_records(filled, end) == {0: 10}


def test_ranges_as_a_start_would_repeat_what_was_read(kafka: ottla.Client, filled: str) -> None:
    scan = kafka.scan(filled)
    (batch,) = scan
    for ranges in (scan.offsets, json.loads(json.dumps(scan.offsets)), batch.offsets):
        with pytest.raises(ottla.ConfigError, match=r"scan\.end"):
            kafka.scan(filled, start=ranges)
        with pytest.raises(ottla.ConfigError, match=r"scan\.end"):
            kafka.consumer(filled, start=ranges)
        with (
            kafka.consumer(filled) as consumer,
            pytest.raises(ottla.ConfigError, match=r"scan\.end"),
        ):
            consumer.seek(ranges)
        assert read(kafka.scan(filled, start=ranges, end=ranges)) == list(range(10))
    with kafka.consumer(filled, start="earliest", max_rows=4) as consumer:
        begun = consumer.position()
        assert len(numbers(consumer.poll(30))) == 4
        consumer.seek(json.loads(json.dumps(begun)))
        assert numbers(consumer.poll(30)) == [0, 1, 2, 3]


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ms", [-1, -2, -3, -6, -(10**12)])
def test_all_records_are_later_than_1970(client: ottla.Client, filled: str, ms: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=ms)
    assert read(client.scan(filled, start=moment)) == list(range(10))
    assert read(client.scan(filled, start=moment.isoformat())) == list(range(10))
    assert read(client.scan(filled, end=moment)) == []
    assert client.offsets(filled, moment) == {0: 0}
    assert client.delete_records(filled, moment) == {0: 0}
    assert client.groups.reset(filled, filled, moment)[filled][0][1] == 0
    assert drained(client.consumer(filled, start=moment, until="caught_up")) == list(range(10))
    with client.consumer(filled) as consumer:
        consumer.seek(moment)
        assert consumer.position() == {filled: {0: 0}}
    rows = pa.table({"value": ["x"], "at": pa.array([ms], pa.timestamp("ms", "UTC"))})
    refusals = []
    for write in (
        lambda: client.send(filled, "x", timestamp=moment),
        lambda: client.send_async(filled, "x", timestamp=moment).result(30),
        lambda: client.write(filled, rows, timestamp="at"),
    ):
        with pytest.raises(ottla.ConfigError) as refused:
            write()
        refusals.append(str(refused.value).removeprefix("row 0: "))
    assert len(set(refusals)) == 1
    assert "before 1970" in refusals[0]
    assert client.offsets(filled) == {0: 10}
