"""A broker with short sessions, and groups on it.

Set ``OTTLA_GROUPS_BOOTSTRAP=host:port`` to run the same tests against another cluster, for example
Apache Kafka with the settings of ``harness.BROKER_OPTIONS``.
"""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from groups.harness import BROKER_OPTIONS, Group
from processes import BrokerProcess, JavaTools, kafka_libs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PARTITIONS = 6


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker that all tests of the session share."""
    other = os.environ.get("OTTLA_GROUPS_BOOTSTRAP")
    if other:
        yield other
        return
    options = [word for item in BROKER_OPTIONS.items() for word in ("-o", "=".join(item))]
    broker = BrokerProcess(tmp_path_factory.mktemp("groups") / "data", *options)
    yield broker.bootstrap
    assert broker.stop() == 0, broker.stderr()


@pytest.fixture(scope="session")
def java() -> JavaTools:
    """Apache Kafka's tools, from the jars in the folder that ``OTTLA_KAFKA_LIBS`` names."""
    return JavaTools(kafka_libs())


_numbers = itertools.count(1)


@pytest.fixture
def make_group(
    bootstrap: str, request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[..., Group]]:
    """Make groups with a topic each; their members end with the test."""
    made: list[Group] = []

    def make(*, partitions: int = PARTITIONS, address: str = bootstrap) -> Group:
        name = f"group-{os.getpid()}-{next(_numbers)}"
        admin = AdminClient({"bootstrap.servers": address})
        created = admin.create_topics([NewTopic(name, partitions, 1)], operation_timeout=30)
        created[name].result(30)
        java = request.getfixturevalue("java") if "java" in request.fixturenames else None
        group = Group(address, name, name, partitions, tmp_path, java)
        made.append(group)
        return group

    yield make
    for group in made:
        group.end()
