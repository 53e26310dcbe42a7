"""The two brokers, with the same durability."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from processes import BrokerProcess, KafkaProcess, installed_program
from versus.measure import KAFKA, OTTLA, WHEEL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# What Apache Kafka's own start script passes to the virtual machine.
KAFKA_JVM: tuple[str, ...] = (
    "-Xmx1G",
    "-Xms1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
)
KAFKA_JVM += ("-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent")


class Server(Protocol):
    """A broker, or several as one cluster, that can be loaded, killed and started again."""

    name: str
    bootstrap: str
    ready_seconds: float
    replicas: int
    """How many copies its topics have."""

    @property
    def pids(self) -> list[int]:
        """Its processes that run."""

    def restart_after_kill(self) -> float:
        """Kill it and return the seconds until it serves again."""

    def end(self) -> None:
        """Stop it and remove its data."""


AnyServer = TypeVar("AnyServer", bound=Server)


class Ottla:
    """``ottla broker start`` with Apache Kafka's durability: the page cache counts as stored."""

    name = OTTLA
    replicas = 1
    program: str | None = None

    def __init__(self, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="versus-"))
        self.options = ["-o", "durability=os", *options]
        begin = time.perf_counter()
        self.broker = self._start()
        self.ready_seconds = time.perf_counter() - begin
        self.bootstrap = self.broker.bootstrap

    @property
    def pids(self) -> list[int]:
        return [self.broker.process.pid]

    def restart_after_kill(self) -> float:
        self.broker.kill()
        begin = time.perf_counter()
        self.broker = self._start(self.broker.port)
        return time.perf_counter() - begin

    def end(self) -> None:
        self.broker.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _start(self, port: int = 0) -> BrokerProcess:
        data = self.directory / "data"
        return BrokerProcess(data, *self.options, port=port, program=self.program)


class FromWheel(Ottla):
    """The same, started by the Python that the wheel is installed in."""

    name = WHEEL

    def __init__(self, *options: str) -> None:
        self.program = installed_program()
        super().__init__(*options)


class Kafka:
    """Apache Kafka with its default settings, and the heap and collector of its own script."""

    name = KAFKA
    replicas = 1

    def __init__(self, libs: str, **settings: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="versus-"))
        self.node = KafkaProcess(libs, self.directory, *KAFKA_JVM, ports=None, **settings)
        self.ready_seconds = self.node.ready_seconds
        self.bootstrap = self.node.bootstrap

    @property
    def pids(self) -> list[int]:
        return [self.node.process.pid]

    def restart_after_kill(self) -> float:
        self.node.stop()
        return self.node.start()

    def end(self) -> None:
        self.node.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


@contextmanager
def fresh(make: Callable[[], AnyServer]) -> Iterator[AnyServer]:
    """Start a broker, or a cluster, for one measurement, and remove it."""
    server = make()
    try:
        yield server
    finally:
        server.end()


PARTITIONS_AT_ONCE = 5_000
"""Apache Kafka's controller refuses a request that creates more than 10,000 records."""


def create_topic(server: Server, name: str, partitions: int) -> None:
    """Create a topic and wait until it has leaders."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    first = NewTopic(name, min(partitions, PARTITIONS_AT_ONCE), server.replicas)
    admin.create_topics([first], operation_timeout=60)[name].result(120)
    for count in range(2 * PARTITIONS_AT_ONCE, partitions + 1, PARTITIONS_AT_ONCE):
        more = NewPartitions(name, count)
        admin.create_partitions([more], operation_timeout=60)[name].result(120)


def delete_topic(server: Server, name: str) -> None:
    """Delete a topic; its files go later."""
    admin = AdminClient({"bootstrap.servers": server.bootstrap})
    admin.delete_topics([name], operation_timeout=60)[name].result(120)
