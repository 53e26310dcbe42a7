"""A broker as a separate program, and the tools that talk to it.

Set ``OTTLA_TEST_BOOTSTRAP=host:port`` to run the same tests against another cluster, for example
Apache Kafka: they pass there too, or they test something that is not Kafka.
"""

from __future__ import annotations

import itertools
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from processes import BrokerProcess, JavaTools, kafka_libs, missing

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a broker that all tests of the session share."""
    other = os.environ.get("OTTLA_TEST_BOOTSTRAP")
    if other:
        yield other
        return
    broker = BrokerProcess(tmp_path_factory.mktemp("broker") / "data")
    yield broker.bootstrap
    assert broker.stop() == 0, broker.stderr()


_numbers = itertools.count(1)


@pytest.fixture
def topic_name(request: pytest.FixtureRequest) -> str:
    """Return a name that no other test of any run uses."""
    name = request.node.name.replace("[", "-").replace("]", "")
    return f"{name}-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def topic(bootstrap: str, topic_name: str) -> str:
    """A new topic with three partitions."""
    from confluent_kafka.admin import AdminClient, NewTopic

    admin = AdminClient({"bootstrap.servers": bootstrap})
    created = admin.create_topics([NewTopic(topic_name, 3, 1)], operation_timeout=30)
    created[topic_name].result(30)
    return topic_name


@pytest.fixture(scope="session")
def kcat() -> str:
    """Path of the kcat program."""
    path = shutil.which("kcat")
    if path is None:
        missing("kcat", "apt-get install kcat")
    assert path is not None
    return path


@pytest.fixture(scope="session")
def java() -> JavaTools:
    """Apache Kafka's tools, from the jars in the folder that ``OTTLA_KAFKA_LIBS`` names."""
    return JavaTools(kafka_libs())
