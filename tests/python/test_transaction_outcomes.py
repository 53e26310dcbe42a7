"""Commits that are not answered: the broker stands still, or dies, at the worst moment."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

import ottla
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="Windows cannot let a process stand still"
)


class Before:
    """A native producer that does something before it asks for a commit."""

    def __init__(self, native: Any, happens: Callable[[], None]) -> None:
        self._native = native
        self._happens = happens

    def __getattr__(self, name: str) -> Any:
        return getattr(self._native, name)

    def commit(self) -> Any:
        self._happens()
        return self._native.commit()


def _started(tmp_path: Path, port: int = 0) -> BrokerProcess:
    return BrokerProcess(tmp_path / "data", port=port)


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
    producer = kafka.transactional("copy-1", timeout=2)
    with producer.transaction():
        pass
    with producer.transaction() as tx:
        tx.send("target", "first").result(30)
    return consumer, producer


def _copy(
    consumer: ottla.Consumer,
    producer: ottla.TransactionalProducer,
    batch: ottla.RecordBatch,
    happens: Callable[[], None] | None = None,
) -> None:
    tx = producer.transaction(consumer=consumer, batch=batch)
    if happens is not None:
        tx._native = Before(tx._native, happens)  # type: ignore[assignment]
    with tx:
        tx.write("target", batch)


def _copied(kafka: ottla.Client) -> list[str]:
    scan = kafka.scan("target", value=ottla.text(), columns=["value"])
    return sorted(row["value"] for row in scan.head(100).to_pylist())


def test_a_commit_that_arrives_late_is_found_out(tmp_path: Path) -> None:
    broker = _started(tmp_path)
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None
        pause, go_on = signal.SIGSTOP, signal.SIGCONT
        with pytest.raises(ottla.CommitUnknownError, match="nobody knows"):
            _copy(consumer, producer, batch, lambda: broker.process.send_signal(pause))
        assert not producer.closed
        # It gets what waits in its sockets: the commit.
        broker.process.send_signal(go_on)
        for batch in consumer:
            _copy(consumer, producer, batch)
        producer.close()
        consumer.close()
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]
    broker.stop()


def test_an_outcome_that_can_be_found_out_in_time_is_no_error(tmp_path: Path) -> None:
    broker = _started(tmp_path)
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None

        def pause() -> None:
            broker.process.send_signal(signal.SIGSTOP)
            # After the two seconds of the commit, and before those that settling it takes.
            threading.Timer(3, broker.process.send_signal, [signal.SIGCONT]).start()

        _copy(consumer, producer, batch, pause)
        for batch in consumer:
            _copy(consumer, producer, batch)
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]
        producer.close()
        consumer.close()
    broker.stop()


def test_a_commit_that_is_lost_with_its_broker_is_done_again(tmp_path: Path) -> None:
    broker = _started(tmp_path)
    with ottla.connect(broker.bootstrap) as kafka:
        consumer, producer = _prepare(kafka)
        batch = consumer.poll(30)
        assert batch is not None
        # The commit waits in a socket of the broker, and is lost with it.
        pause = signal.SIGSTOP
        with pytest.raises(ottla.CommitUnknownError):
            _copy(consumer, producer, batch, lambda: broker.process.send_signal(pause))
        broker.kill()
        broker = _started(tmp_path, broker.port)
        with pytest.raises(ottla.TransactionAbortedError, match="has been aborted since"):
            _copy(consumer, producer, batch)
        # The consumer is back before the batch.
        for batch in consumer:
            _copy(consumer, producer, batch)
        producer.close()
        consumer.close()
        assert _copied(kafka) == ["0", "1", "2", "3", "4", "5", "first"]
    broker.stop()
