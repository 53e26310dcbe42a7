"""Programs in other languages copy a topic in transactions, while the broker is killed.

``go mod download`` in ``franz_go`` and ``npm install`` in ``kafkajs`` bring what they need.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from clients.test_transactions import PATIENCE, create, read, write
from processes import BrokerProcess, go_program

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
COUNT = 600
PARTITIONS = 2

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"),
    pytest.mark.timeout(360),
]


@pytest.fixture(scope="module")
def franz_go(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The program with franz-go's GroupTransactSession."""
    return [str(go_program(".", tmp_path_factory.mktemp("franz-go")))]


@pytest.fixture(scope="module")
def kafkajs() -> list[str]:
    """The program with KafkaJS."""
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    if not (HERE / "kafkajs" / "node_modules" / "kafkajs").is_dir():
        pytest.skip("KafkaJS is not there; run `npm install` in tests/python/clients/kafkajs")
    return ["node", str(HERE / "kafkajs" / "copier.js")]


class Copier:
    """One of the programs; it is started again when it has given up."""

    def __init__(self, command: list[str]) -> None:
        self.command = command
        self.said: list[str] = []
        self.starts = 0
        self._start()

    def _start(self) -> None:
        self.starts += 1
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.reader = threading.Thread(target=self._read, args=[self.process])
        self.reader.start()

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.said.extend(line.strip() for line in process.stdout)

    def look_after(self) -> None:
        if self.process.poll() is not None:
            self.end()
            self._start()

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(30)
        self.reader.join()
        self.process.stdout.close()


class Broker:
    """A broker, which is killed and started again on its data."""

    def __init__(self, data: Path) -> None:
        self.process = BrokerProcess(data)
        self.bootstrap = self.process.bootstrap

    def kill(self) -> None:
        self.process.kill()
        self.process = BrokerProcess(self.process.data_dir, port=self.process.port)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path / "data")
    yield broker
    broker.process.kill()


def copy_while_it_is_killed(broker: Broker, command: list[str], instances: int) -> None:
    source, target = (create(broker.bootstrap, name, PARTITIONS) for name in ("source", "target"))
    plain = Producer({"bootstrap.servers": broker.bootstrap})
    for partition in range(PARTITIONS):
        write(plain, source, range(partition, COUNT, PARTITIONS), partition)
    copiers = [
        Copier([*command, broker.bootstrap, source, target, "copiers", f"copier-{number}"])
        for number in range(instances)
    ]
    kills = [100, 300]
    try:
        deadline = time.monotonic() + 4 * PATIENCE
        values: list[str] = []
        while len(values) < COUNT:
            said = [copier.said[-10:] for copier in copiers]
            assert time.monotonic() < deadline, (len(values), said, broker.process.stderr())
            values = read(broker.bootstrap, target, partitions=PARTITIONS)
            if kills and len(values) >= kills[0]:
                kills.pop(0)
                broker.kill()
            for copier in copiers:
                copier.look_after()
    finally:
        for copier in copiers:
            copier.end()
    assert kills == []
    lines = [line for copier in copiers for line in copier.said]
    assert any(line.startswith("committed") for line in lines)
    assert any(line.startswith("aborted") for line in lines)
    # Whatever they left open is ended, and changes nothing.
    for partition in range(PARTITIONS):
        write(Producer({"bootstrap.servers": broker.bootstrap}), target, ["end"], partition)
    ends = 0
    while ends < PARTITIONS:
        assert time.monotonic() < deadline, lines
        values = read(broker.bootstrap, target, partitions=PARTITIONS)
        ends = values.count("end")
    numbers = sorted(int(value) for value in values if value != "end")
    assert numbers == list(range(COUNT)), lines
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "copiers"})
    wanted = [TopicPartition(source, partition) for partition in range(PARTITIONS)]
    places = consumer.committed(wanted, PATIENCE)
    consumer.close()
    assert sum(place.offset for place in places) == COUNT


def test_franz_go_copies_exactly_once(broker: Broker, franz_go: list[str]) -> None:
    copy_while_it_is_killed(broker, franz_go, 2)


def test_kafkajs_copies_exactly_once(broker: Broker, kafkajs: list[str]) -> None:
    copy_while_it_is_killed(broker, kafkajs, 1)
