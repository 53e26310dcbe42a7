"""The three brokers that our client must treat alike."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

import ottla
from processes import KafkaProcess, kafka_libs

if TYPE_CHECKING:
    from collections.abc import Iterator

_numbers = itertools.count(1)


@pytest.fixture(scope="package", params=["embedded", "tcp", "kafka"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ottla.Client]:
    """Our client, connected to each of the three in turn."""
    if request.param == "kafka":
        node = KafkaProcess(kafka_libs(), tmp_path_factory.mktemp("kafka"))
        with ottla.connect(node.bootstrap) as connected:
            yield connected
        node.stop()
        return
    with ottla.Broker(tmp_path_factory.mktemp("ottla") / "data") as broker:
        if request.param == "embedded":
            with broker.client() as connected:
                yield connected
        else:
            with ottla.connect(broker.bootstrap_servers) as connected:
                yield connected


@pytest.fixture
def topic(client: ottla.Client) -> str:
    """A new topic with three partitions, which keeps records of any age."""
    name = f"case-{next(_numbers)}"
    client.create_topic(name, partitions=3, config={"retention.ms": -1})
    return name
