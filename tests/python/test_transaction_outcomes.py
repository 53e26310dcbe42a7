"""Commits that are not answered: the broker stands still, or dies, at the worst moment."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

import ottla
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows cannot let a process stand still"
)


class During:
    """A native producer during whose commit something happens: before, and when it has failed."""

    def __init__(
        self, native: Any, before: Callable[[], None], failed: Callable[[], None] | None
    ) -> None:
        self._native = native
        self._before = before
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def commit(self) -> Any:
        self._before()
        self._commit = self._native.commit()
        return self

    def result(self) -> Any:
        try:
            return self._commit.result()
        except ottla.CommitUnknownError:
            if self._failed is not None:
                self._failed()
            raise


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., BrokerProcess]]:
    """Start a broker, and after it died another one in its place; none outlives the test."""
    started: list[BrokerProcess] = []

    def start(port: int = 0) -> BrokerProcess:
        started.append(BrokerProcess(tmp_path / "data", port=port))
        return started[-1]

    yield start
    for broker in started:
        broker.kill()


def _prepare(kafka: ottla.Client) -> tuple[ottla.Consumer, ottla.TransactionalProducer]:
    kafka.create_topic("source", partitions=1)
    kafka.create_topic("target", partitions=1)
    for number in range(6):
        kafka.send_async("source", str(number))
    kafka.flush(30)
    consumer = kafka.consumer(
        "source",
        group_id="copy",
        auto_offset_reset="earliest",
        until="caught_up",
        value=ottla.text(),
        columns=["value"],
        max_rows=3,
    )
    producer = kafka.transactional("copy-1", timeout=4)
    with producer.transaction():
        pass
    with producer.transaction() as tx:
        tx.send("target", "first").result(30)
    return consumer, producer


def _copy(
    consumer: ottla.Consumer,
    producer: ottla.TransactionalProducer,
    batch: ottla.RecordBatch,
    before: Callable[[], None] | None = None,
    failed: Callable[[], None] | None = None,
) -> None:
    tx = producer.transaction(consumer=consumer, batch=batch)
    if before is not None:
        tx._native = During(tx._native, before, failed)  # type: ignore[assignment]
    with tx:
        tx.write("target", batch)


def _copied(kafka: ottla.Client) -> list[str]:
    scan = kafka.scan("target", value=ottla.text(), columns=["value"])
    return sorted(row["value"] for row in scan.head(100).to_pylist())


def _wait_until_committed(bootstrap: str) -> None:
    """Wait until readers of committed data see the whole first batch."""
    with (
        ottla.connect(bootstrap) as kafka,
        kafka.consumer("target", start="earliest", isolation_level="read_committed") as reader,
    ):
        rows = 0
        while rows < 4:
            batch = reader.poll(30)
            assert batch is not None, "the commit has no effect"
            rows += batch.num_rows


def test_a_commit_that_arrives_late_is_found_out(start: Callable[..., BrokerProcess]) -> None:
    broker = start()
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None
        with pytest.raises(ottla.CommitUnknownError, match="nobody knows"):
            _copy(consumer, producer, batch, broker.pause)
        assert not producer.closed
        # It gets what waits in its sockets: the commit.
        broker.go_on()
        _wait_until_committed(broker.bootstrap)
        for batch in consumer:
            _copy(consumer, producer, batch)
        producer.close()
        consumer.close()
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]


def test_an_outcome_that_can_be_found_out_in_time_is_no_error(
    start: Callable[..., BrokerProcess],
) -> None:
    broker = start()
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None

        def go_on() -> None:
            broker.go_on()
            _wait_until_committed(broker.bootstrap)

        _copy(consumer, producer, batch, broker.pause, go_on)
        for batch in consumer:
            _copy(consumer, producer, batch)
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]
        producer.close()
        consumer.close()


def test_a_commit_that_is_lost_with_its_broker_is_done_again(
    start: Callable[..., BrokerProcess],
) -> None:
    broker = start()
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None
        # The commit waits in a socket of the broker, and is lost with it.
        with pytest.raises(ottla.CommitUnknownError):
            _copy(consumer, producer, batch, broker.pause)
        broker.kill()
        start(broker.port)
        with pytest.raises(ottla.TransactionAbortedError, match="has been aborted since"):
            _copy(consumer, producer, batch)
        # The consumer is back before the batch.
        for batch in consumer:
            _copy(consumer, producer, batch)
        producer.close()
        consumer.close()
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]
