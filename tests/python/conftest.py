"""Fixtures that all tests share."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import ottla
from registries import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def broker() -> Iterator[ottla.Broker]:
    """A broker in this process."""
    # Tests write records of other years, and want to read them.
    with ottla.Broker(config={"log.retention.ms": -1}) as broker:
        yield broker


@pytest.fixture
def kafka(broker: ottla.Broker) -> Iterator[ottla.Client]:
    """A client that reaches the broker without a socket."""
    with broker.client() as client:
        yield client


@pytest.fixture(scope="module")
def shared() -> Iterator[ottla.Client]:
    """A client of a broker of its own, for all examples of a module's properties."""
    with ottla.Broker() as broker, broker.client() as client:
        yield client


@pytest.fixture(scope="module")
def hurried() -> Iterator[ottla.Broker]:
    """A broker whose groups need not wait long for heartbeats."""
    config = {
        "group.consumer.min.heartbeat.interval.ms": 20,
        "group.consumer.heartbeat.interval.ms": 20,
    }
    with ottla.Broker(config=config) as broker:
        yield broker


@pytest.fixture
def remote(broker: ottla.Broker) -> Iterator[ottla.Client]:
    """A client that reaches the broker over TCP."""
    with ottla.connect(broker.bootstrap_servers) as client:
        yield client


@pytest.fixture
def name() -> str:
    """Return the name of a topic that no other test uses."""
    return f"topic-{next(_numbers)}"


@pytest.fixture
def partition_count() -> int:
    """How many partitions the filled topic has; a module may have another number."""
    return 4


@pytest.fixture
def filled(kafka: ottla.Client, name: str, partition_count: int) -> str:
    """A topic with ten numbers in each partition."""
    kafka.create_topic(name, partitions=partition_count)
    for number in range(10 * partition_count):
        kafka.send_async(name, str(number), partition=number % partition_count)
    kafka.flush(30)
    return name


@pytest.fixture
def registry() -> Iterator[Registry]:
    """A schema registry without schemas, that counts what it is asked."""
    with Registry() as registry:
        yield registry
