"""Brokers for tests: a fresh one for each test, in milliseconds, for any Kafka client.

Installing ottla gives pytest the fixtures ``ottla_broker``, ``ottla_client`` and ``ottla_cluster``,
without an import or configuration::

    def test_orders(ottla_broker):
        producer = confluent_kafka.Producer({"bootstrap.servers": ottla_broker.bootstrap_servers})

    @pytest.mark.ottla(topics={"orders": 3}, config={"log.message.timestamp.type": "LogAppendTime"})
    def test_log_append_time(ottla_client):
        sent = ottla_client.send("orders", "{}")

    def test_nothing_is_lost(ottla_cluster):
        with ottla_cluster.client() as kafka:
            kafka.send("orders", "{}")
            ottla_cluster.kill(1)
            assert kafka.scan("orders", start="earliest").read_all().num_rows == 1

The broker of a test keeps its data in a temporary directory, listens on a free port of the loopback
interface, and is removed with its records when the test ends. Other test frameworks use
:func:`broker`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from ottla._broker import Broker
from ottla._cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ottla._client import Client

__all__ = ["broker", "ottla_broker", "ottla_client", "ottla_cluster"]

#: What makes a broker quick: groups start without a delay.
_CONFIG = {
    "group.initial.rebalance.delay.ms": 0,
}
_MARKER = (
    "ottla(config={…}, topics={name: partitions}): settings and topics of the broker that "
    "ottla_broker or ottla_cluster starts"
)


@contextlib.contextmanager
def broker(
    *, config: Mapping[str, object] | None = None, topics: Mapping[str, int] | None = None
) -> Iterator[Broker]:
    """Run a broker for the duration of a ``with`` block.

    Parameters
    ----------
    config : mapping of str to object, optional
        Settings of the broker by Kafka's names.
    topics : mapping of str to int, optional
        Topics to create, with their numbers of partitions.

    Yields
    ------
    Broker
        The broker; ``bootstrap_servers`` is its address, ``client()`` returns a client that uses no
        socket.

    Examples
    --------
    >>> import ottla.testing
    >>> with ottla.testing.broker(topics={"orders": 3}) as broker:
    ...     broker.client()["orders"].num_partitions
    3
    """
    with Broker(config=_CONFIG | dict(config or {})) as started:
        if topics:
            with started.client() as client:
                for topic, partitions in topics.items():
                    client.create_topic(topic, partitions)
        yield started


def _given(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return what the markers of a test say."""
    given: dict[str, Any] = {}
    for marker in request.node.iter_markers("ottla"):
        # The closest marker comes first.
        if marker.args or set(marker.kwargs) - {"config", "topics"}:
            raise pytest.UsageError(f"the marker is {_MARKER}")
        for name, values in marker.kwargs.items():
            given[name] = dict(values) | given.get(name, {})
    return given


@pytest.fixture
def ottla_broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    """Run a fresh broker for one test; ``@pytest.mark.ottla`` sets its settings and topics."""
    with broker(**_given(request)) as started:
        yield started


@pytest.fixture
def ottla_client(ottla_broker: Broker) -> Iterator[Client]:
    """Return a client of the test's broker that uses no socket."""
    with ottla_broker.client() as client:
        yield client


@pytest.fixture
def ottla_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Run three brokers as one cluster for one test; ``@pytest.mark.ottla`` as for a broker."""
    given = _given(request)
    with Cluster(config=_CONFIG | given.get("config", {})) as started:
        if given.get("topics"):
            with started.client() as client:
                for topic, partitions in given["topics"].items():
                    client.create_topic(topic, partitions)
        yield started


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker with pytest."""
    config.addinivalue_line("markers", _MARKER)
