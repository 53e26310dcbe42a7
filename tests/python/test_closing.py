"""Closing a client reports what was not acknowledged, and does not wait for what is gone."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import ottla
from processes import BrokerProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A client that sends nothing before it is told to.
LINGERING: dict[str, Any] = {"linger_ms": 60_000, "delivery_timeout_ms": 120_000}


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Expect the block to take no longer."""
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@pytest.fixture
def mortal() -> Iterator[ottla.Broker]:
    """A broker that the test closes."""
    with ottla.Broker() as broker:
        with broker.client() as client:
            client.create_topic("orders", partitions=1)
            client.create_topic("users", partitions=1)
        yield broker


def prepared(client: ottla.Client) -> ottla.Client:
    """Let the client learn about the topics."""
    client.send("orders", "before")
    client.send("users", "before")
    return client


def killed(broker: ottla.Broker) -> None:
    """Stop a broker without telling its clients."""
    broker._native.close(30)


def test_an_embedded_broker_that_was_closed_is_not_waited_for(mortal: ottla.Broker) -> None:
    client = prepared(ottla.connect(mortal.bootstrap_servers, **LINGERING))
    kept = client.send_async("orders", "1")
    client.send_async("orders", "2")
    client.send_async("users", "3")
    mortal.close()
    expected = (
        r'3 records were not acknowledged \(topic "orders": 2, topic "users": 1\): .*'
        r"the broker at 127.0.0.1:.* was closed"
    )
    with within(20), pytest.raises(ottla.ConnectionError, match=expected):
        client.close()
    assert client.closed
    with pytest.raises(ottla.ConnectionError, match="orders-0"):
        kept.result(0)
    client.close()


def test_a_broker_that_came_back_is_waited_for(tmp_path: Path) -> None:
    with ottla.Broker(tmp_path / "data") as broker:
        servers = broker.bootstrap_servers
        with broker.client() as first:
            first.create_topic("orders", partitions=1)
            first.create_topic("users", partitions=1)
        client = prepared(ottla.connect(servers, **LINGERING))
        client.send_async("orders", "1")
    address = servers.split(",")[0]
    with ottla.Broker(tmp_path / "data", listeners=f"PLAINTEXT://{address}") as broker:
        client.close()
        with broker.client() as again:
            assert again.scan("orders").count() == 2


def test_a_broker_of_another_process_at_the_same_address_is_waited_for(tmp_path: Path) -> None:
    with ottla.Broker(tmp_path / "data") as broker:
        with broker.client() as first:
            first.create_topic("orders", partitions=1)
            first.create_topic("users", partitions=1)
        client = prepared(ottla.connect(broker.bootstrap_servers, **LINGERING))
        client.send_async("orders", "1")
        port = int(broker.bootstrap_servers.rpartition(":")[2])
    other = BrokerProcess(tmp_path / "data", port=port)
    try:
        client.close()
        with ottla.connect(other.bootstrap) as again:
            assert again.scan("orders").count() == 2
    finally:
        other.stop()


def test_the_broker_in_the_process_is_not_waited_for_either(mortal: ottla.Broker) -> None:
    client = prepared(mortal.client(**LINGERING))
    client.send_async("orders", "1")
    client.send_async("orders", "2")
    client.send_async("users", "3")
    killed(mortal)
    expected = r'3 records were not acknowledged \(topic "orders": 2, topic "users": 1\).*closed'
    with within(20), pytest.raises(ottla.ConnectionError, match=expected):
        client.close()


def test_what_failed_before_and_nobody_was_told_is_told_at_the_end(mortal: ottla.Broker) -> None:
    client = prepared(mortal.client(**LINGERING))
    killed(mortal)
    client.send_async("orders", "nobody keeps this")
    with within(20):
        client.flush(30)  # until it is acknowledged or has failed
    expected = r'1 record was not acknowledged \(topic "orders": 1\)'
    with within(20), pytest.raises(ottla.ConnectionError, match=expected):
        client.close()


def test_a_pending_that_is_kept_speaks_for_its_own_record_only(mortal: ottla.Broker) -> None:
    client = prepared(mortal.client(**LINGERING))
    kept = client.send_async("orders", "1")
    client.send_async("orders", "nobody keeps this")
    client.send_async("orders", "nor this")
    killed(mortal)
    with within(20):
        client.flush(30)
    with pytest.raises(ottla.ConnectionError, match="orders-0"):
        kept.result(10)
    expected = r'2 records were not acknowledged \(topic "orders": 2\)'
    with within(20), pytest.raises(ottla.ConnectionError, match=expected):
        client.close()


def test_what_all_producers_lost_is_told(mortal: ottla.Broker) -> None:
    client = prepared(ottla.connect(mortal.bootstrap_servers, **LINGERING))
    client._hosts = []  # as if it were in another process
    rows = pa.record_batch({"value": [b"2", b"3"]})

    def batches() -> Iterator[pa.RecordBatch]:
        killed(mortal)
        yield rows

    client.send_async("orders", "1")
    with pytest.raises(ottla.TimeoutError):
        # By a separate producer, since it has other acks.
        client.write(
            "users", pa.RecordBatchReader.from_batches(rows.schema, batches()), acks=1, timeout=1
        )
    expected = r'3 records were not acknowledged \(topic "orders": 1, topic "users": 2\)'
    with within(20), pytest.raises(ottla.TimeoutError, match=expected):
        client.close(timeout=1)


def test_what_was_told_is_not_told_again(mortal: ottla.Broker) -> None:
    client = prepared(mortal.client(linger_ms=0))
    killed(mortal)
    kept = client.send_async("orders", "1")
    with pytest.raises(ottla.ConnectionError, match="orders-0"):
        kept.result(10)
    client.close()


def test_the_timeout_bounds_the_wait_for_a_broker_that_refuses_connections(
    mortal: ottla.Broker,
) -> None:
    client = prepared(ottla.connect(mortal.bootstrap_servers, **LINGERING))
    client._hosts = []  # as if it were in another process
    client.send_async("orders", "1")
    client.send_async("users", "2")
    mortal.close()
    expected = r'2 records .*\(topic "orders": 1, topic "users": 1\): .*could not connect'
    with within(20), pytest.raises(ottla.TimeoutError, match=expected):
        client.close(timeout=1)


def test_no_record_is_waited_for_longer_than_the_delivery_timeout(mortal: ottla.Broker) -> None:
    client = prepared(
        ottla.connect(
            mortal.bootstrap_servers,
            linger_ms=0,
            request_timeout_ms=1000,
            delivery_timeout_ms=1000,
        )
    )
    client._hosts = []  # as if it were in another process
    mortal.close()
    client.send_async("orders", "1")
    with within(20), pytest.raises(ottla.TimeoutError, match=r'\(topic "orders": 1\)'):
        client.close(timeout=60)


def test_a_client_without_records_closes_in_silence(mortal: ottla.Broker) -> None:
    clients = [prepared(mortal.client()), prepared(ottla.connect(mortal.bootstrap_servers))]
    for client in clients:
        # A member has a group to leave.
        client.consumer("orders", group_id="g", auto_offset_reset="earliest").poll(5)
    mortal.close()
    for client in clients:
        with within(20):
            client.close()
