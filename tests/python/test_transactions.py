"""Transactions: what is visible, what a consumer does after an abort, and who fences whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ottla.typing import IsolationLevel


@pytest.fixture
def source(kafka: ottla.Client, name: str) -> str:
    """A topic of twelve numbers in two partitions."""
    topic = f"{name}-source"
    kafka.create_topic(topic, partitions=2)
    for number in range(12):
        kafka.send_async(topic, str(number), partition=number % 2)
    kafka.flush(30)
    return topic


@pytest.fixture
def target(kafka: ottla.Client, name: str) -> str:
    """An empty topic."""
    topic = f"{name}-target"
    kafka.create_topic(topic, partitions=2)
    return topic


@pytest.fixture
def consumer(kafka: ottla.Client, source: str, name: str) -> Iterator[ottla.Consumer]:
    """A member of a group that reads the numbers, a few at a time, and then stops."""
    with kafka.consumer(
        source,
        group_id=f"{name}-group",
        auto_offset_reset="earliest",
        until="caught_up",
        value=ottla.text(),
        max_rows=5,
    ) as consumer:
        yield consumer


def _values(kafka: ottla.Client, topic: str, level: IsolationLevel | None = None) -> list[str]:
    scan = kafka.scan(topic, value=ottla.text(), columns=["value"], isolation_level=level)
    return sorted(row["value"] for row in scan.head(1000).to_pylist())


def _becomes(look: Callable[[], object], expected: object) -> None:
    """Wait for what is seen once markers are written, a moment after the commit."""
    limit = time.monotonic() + 20
    while look() != expected and time.monotonic() < limit:
        time.sleep(0.01)
    assert look() == expected


def test_records_are_seen_once_they_are_committed(kafka: ottla.Client, target: str) -> None:
    table = [{"value": "b"}, {"value": "c"}]
    with kafka.transactional("whole") as producer:
        with producer.transaction() as tx:
            sent = tx.send(target, "a", key="k")
            assert tx.write(target, _rows(table)) == 2
            assert sent.result(30).topic == target
            assert _values(kafka, target, "read_uncommitted") == ["a", "b", "c"]
            assert _values(kafka, target) == []
        _becomes(lambda: _values(kafka, target), ["a", "b", "c"])
        with pytest.raises(ZeroDivisionError):
            _fail(producer, target)
        with producer.transaction() as tx:
            tx.send(target, "d")
    _becomes(lambda: _values(kafka, target), ["a", "b", "c", "d"])
    assert producer.closed
    with pytest.raises(ottla.ClosedError), producer.transaction():
        pass


def _fail(producer: ottla.TransactionalProducer, target: str) -> None:
    with producer.transaction() as tx:
        tx.send(target, "never")
        tx.write(target, _rows([{"value": "never"}]))
        raise ZeroDivisionError


def _rows(rows: list[dict[str, str]]) -> object:
    arrow = pytest.importorskip("pyarrow")
    return arrow.Table.from_pylist(rows)


def test_each_row_arrives_once_though_blocks_fail(
    kafka: ottla.Client, consumer: ottla.Consumer, source: str, target: str
) -> None:
    failures = []
    with kafka.transactional(f"{target}-copy") as producer:
        for batch in consumer:
            with (
                contextlib.suppress(ZeroDivisionError),
                producer.transaction(consumer=consumer, batch=batch) as tx,
            ):
                for row in batch.to_pylist():
                    tx.send(target, f"copy of {row['value']}")
                failures.append(batch.offsets)
                if len(failures) in (1, 3, 4):
                    _divide_by_zero()
    assert len(failures) > 4
    _becomes(lambda: _values(kafka, target), sorted(f"copy of {number}" for number in range(12)))
    assert consumer.committed() == {source: {0: 6, 1: 6}}


def _divide_by_zero() -> None:
    raise ZeroDivisionError


def test_async_blocks_do_the_same(kafka: ottla.Client, source: str, target: str) -> None:
    async def copy() -> None:
        failed = False
        async with (
            kafka.consumer(
                source,
                group_id=f"{source}-async",
                auto_offset_reset="earliest",
                until="caught_up",
                value=ottla.text(),
                columns=["value"],
            ) as consumer,
            kafka.transactional(f"{target}-async") as producer,
        ):
            async for batch in consumer:
                with contextlib.suppress(ZeroDivisionError):
                    async with producer.transaction(consumer=consumer, batch=batch) as tx:
                        await tx.write_async(target, batch)
                        await tx.send(target, "and one")
                        if not failed:
                            failed = True
                            _divide_by_zero()

    asyncio.run(copy())
    expected = [str(number) for number in range(12)]
    _becomes(lambda: [one for one in _values(kafka, target) if one != "and one"], sorted(expected))


def test_a_second_producer_fences_the_first(kafka: ottla.Client, target: str) -> None:
    first = kafka.transactional("same")
    tx = first.transaction().__enter__()
    tx.send(target, "first").result(30)
    second = kafka.transactional("same")
    with second.transaction() as other:
        other.send(target, "second")
    with pytest.raises(ottla.FencedError, match="took over") as raised:
        tx.__exit__(None, None, None)
    assert raised.value.name == "PRODUCER_FENCED"
    with pytest.raises(ottla.FencedError), first.transaction():
        pass
    _becomes(lambda: _values(kafka, target), ["second"])
    first.close()
    second.close()


class Abandoned:
    """A transaction of another client that has offsets of a group, and that nobody ends."""

    def __init__(self, bootstrap: str, source: str, group: str, transactional_id: str) -> None:
        self.producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": 600_000,
            }
        )
        consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
        self.producer.init_transactions(30)
        self.producer.begin_transaction()
        offsets = [TopicPartition(source, partition, 3) for partition in range(2)]
        self.producer.send_offsets_to_transaction(offsets, consumer.consumer_group_metadata(), 30)
        consumer.close()


def test_a_producer_that_comes_back_frees_its_group(
    broker: ottla.Broker, source: str, target: str
) -> None:
    abandoned = Abandoned(broker.bootstrap_servers, source, f"{target}-group", target)
    # There is no batch before the first transaction, and no transaction before the first batch.
    with (
        ottla.connect(broker.bootstrap_servers) as kafka,
        kafka.consumer(source, group_id=f"{target}-group", auto_offset_reset="earliest") as reader,
        kafka.transactional(target) as producer,
    ):
        batch = reader.poll(60)
        assert batch is not None
        with producer.transaction(consumer=reader, batch=batch) as tx:
            tx.send(target, "copied")
    with pytest.raises(KafkaException):
        abandoned.producer.commit_transaction(30)


def test_a_consumer_waits_for_a_transaction_longer_than_for_an_answer(
    broker: ottla.Broker,
    source: str,
    target: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    abandoned = Abandoned(broker.bootstrap_servers, source, f"{target}-group", target)
    with (
        caplog.at_level(logging.WARNING, "ottla"),
        ottla.connect(broker.bootstrap_servers, default_api_timeout_ms=500) as kafka,
        kafka.consumer(source, group_id=f"{target}-group", auto_offset_reset="earliest") as reader,
    ):
        limit = time.monotonic() + 60
        while "has offsets of the group" not in caplog.text:
            assert time.monotonic() < limit
            assert reader.poll(0.1) is None
        abandoned.producer.abort_transaction(30)
        batch = reader.poll(60)
        assert batch is not None
        assert set(batch.offsets[source].values()) <= {(0, 6)}


def test_a_record_that_is_refused_aborts(kafka: ottla.Client, target: str) -> None:
    kafka.alter_configs(target, {"max.message.bytes": 1000})
    with kafka.transactional(f"{target}-refused") as producer:
        tx = producer.transaction().__enter__()
        tx.send(target, "fits")
        tx.send(target, b"x" * 5_000)
        with pytest.raises(ottla.TransactionAbortedError) as raised:
            tx.__exit__(None, None, None)
        assert isinstance(raised.value.__cause__, ottla.MessageTooLargeError)
        with producer.transaction() as tx:
            tx.send(target, "small")
    _becomes(lambda: _values(kafka, target), ["small"])


def test_a_scan_sees_what_its_client_has_committed(kafka: ottla.Client, target: str) -> None:
    with kafka.transactional(f"{target}-own") as producer:
        for number in range(50):
            with producer.transaction() as tx:
                tx.send(target, str(number), partition=number % 2)
            # The markers are still on their way, often enough.
            assert len(_values(kafka, target)) == number + 1


def test_who_lost_the_partitions_does_not_commit(
    kafka: ottla.Client, source: str, target: str
) -> None:
    group = f"{source}-lost"
    reading: dict[str, Any] = {
        "group_id": group,
        "auto_offset_reset": "earliest",
        "value": ottla.text(),
        "max_rows": 100,
    }
    late = kafka.consumer(source, rebalance_timeout_ms=1000, session_timeout_ms=6000, **reading)
    producer = kafka.transactional(f"{target}-lost")
    with late, producer:
        batch = late.poll(30)
        assert batch is not None
        with kafka.consumer(source, session_timeout_ms=6000, **reading) as other:
            rows = 0
            limit = time.monotonic() + 30
            # The first member does not come back for the rebalance, and loses what it has.
            while rows == 0 and time.monotonic() < limit:
                taken = other.poll(1)
                rows += 0 if taken is None else taken.num_rows
            assert rows > 0
            tx = producer.transaction(consumer=late, batch=batch).__enter__()
            tx.send(target, "never")
            with pytest.raises(ottla.KafkaError) as raised:
                tx.__exit__(None, None, None)
    assert isinstance(raised.value, ottla.FencedError)
    assert raised.value.name == "ILLEGAL_GENERATION"
    assert _values(kafka, target) == []


def test_what_makes_no_sense_is_refused(
    kafka: ottla.Client, consumer: ottla.Consumer, source: str, target: str
) -> None:
    producer = kafka.transactional(f"{target}-nonsense")
    with pytest.raises(ottla.ConfigError, match="go together"):
        producer.transaction(consumer=consumer)
    with kafka.consumer(source, start="earliest") as reader:
        batch = reader.poll(30)
        with pytest.raises(ottla.ConfigError, match="group_id"):
            producer.transaction(consumer=reader, batch=batch)
    member = kafka.consumer(source, group_id=f"{source}-auto", auto_commit=True)
    with member, pytest.raises(ottla.ConfigError, match="auto_commit"):
        producer.transaction(consumer=member, batch=batch)
    with producer.transaction() as tx:
        pass
    with pytest.raises(ottla.TransactionError, match="not open"):
        tx.send(target, "late")
    with pytest.raises(ottla.TransactionError, match="used once"), tx:
        pass
    with pytest.raises(ottla.ConfigError, match="empty"):
        kafka.transactional("")
    endless = kafka.transactional("endless", transaction_timeout=10_000_000).transaction()
    with pytest.raises(ottla.ConfigError, match=r"transaction\.max\.timeout\.ms"), endless:
        pass
    with pytest.raises(ottla.ConfigError, match="one producer"):
        ottla.connect("localhost:1", transactional_id="x")  # type: ignore[call-arg]
    producer.close()


def test_a_client_that_closes_aborts(
    broker: ottla.Broker, kafka: ottla.Client, target: str
) -> None:
    with broker.client() as other:
        producer = other.transactional(f"{target}-closing")
        tx = producer.transaction().__enter__()
        tx.send(target, "never").result(30)
    assert producer.closed
    kafka.send(target, "after")
    _becomes(lambda: _values(kafka, target), ["after"])
