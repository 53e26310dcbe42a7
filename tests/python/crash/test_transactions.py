"""``kill -9`` at random moments of transactions: nothing is lost, twice, torn or visible too early.

``OTTLA_KILLS`` says how often; ``make kill-transactions`` does it twenty times.
"""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Protocol

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from crash.copying import (
    NUMBERS,
    PARTITIONS,
    PATIENCE,
    Account,
    Confluent,
    ConfluentReader,
    Copier,
    Feeder,
    Moments,
    Ottla,
    OttlaReader,
    Reader,
    committed,
)
from processes import BrokerProcess
from versus.clusters import OttlaCluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KILLS = int(os.environ.get("OTTLA_KILLS", "3"))
KINDS: list[type[Copier]] = [Confluent, Ottla]
MANY = 10
"""With fewer kills, which is among other tests, librdkafka copies from one node only: of three that
die, some of its producers never end, and go on to ask for their topics wherever somebody else
listens on a port later."""

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL"),
    pytest.mark.timeout(120 + 30 * KILLS),
]


class Nodes(Protocol):
    """Brokers, one of which is killed at a time."""

    bootstrap: str
    replicas: int

    def kill(self, moments: random.Random) -> int:
        """Kill one; return which."""

    def start(self, node: int) -> None:
        """Start it again, on its data."""

    def log(self) -> str:
        """What they logged."""


class One:
    replicas = 1

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.broker = BrokerProcess(directory / "data")
        self.bootstrap = self.broker.bootstrap

    def kill(self, moments: random.Random) -> int:  # noqa: ARG002 (there is only one)
        self.broker.kill()
        return 1

    def start(self, node: int) -> None:  # noqa: ARG002
        self.broker = BrokerProcess(self.directory / "data", port=self.broker.port)

    def log(self) -> str:
        return self.broker.stderr()

    def end(self) -> None:
        self.broker.kill()


class Three(OttlaCluster):
    def kill(self, moments: random.Random) -> int:
        node = moments.choice(self.running())
        self.nodes[node].kill()
        return node

    def log(self) -> str:
        return "\n".join(f"node {node}:\n{self.nodes[node].stderr()}" for node in self.nodes)

    def end(self) -> None:
        for node in self.nodes.values():
            node.kill()
        super().end()


@pytest.fixture(params=["one node", "three nodes"])
def nodes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Nodes]:
    running = One(tmp_path) if request.param == "one node" else Three()
    yield running
    running.end()


def create(nodes: Nodes, topics: list[str]) -> None:
    admin = AdminClient({"bootstrap.servers": nodes.bootstrap})
    new = [NewTopic(topic, PARTITIONS, nodes.replicas) for topic in topics]
    for created in admin.create_topics(new, operation_timeout=30).values():
        created.result(30)


def group_offsets(bootstrap: str, group: str) -> int:
    """Return how many records are before the offsets of the group."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    wanted = [TopicPartition(NUMBERS, partition) for partition in range(PARTITIONS)]
    places = consumer.committed(wanted, PATIENCE)
    consumer.close()
    return sum(max(int(place.offset), 0) for place in places)


def test_each_number_is_copied_once(nodes: Nodes) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    chance = random.Random(seed)
    kinds: list[type[Copier]] = KINDS if nodes.replicas == 1 or KILLS >= MANY else [Ottla]
    accounts = [Account(kind.kind) for kind in kinds]
    moments = Moments()
    create(nodes, [NUMBERS])
    create(nodes, [topic for one in accounts for topic in (one.copies, one.seals)])
    copiers = [
        kind(f"{kind.kind}-{number}", nodes.bootstrap, account, moments)
        for kind, account in zip(kinds, accounts, strict=True)
        for number in (1, 2)
    ]
    readers: list[Reader] = [
        ConfluentReader("confluent reader", nodes.bootstrap, accounts),
        OttlaReader("ottla reader", nodes.bootstrap, accounts),
    ]
    feeder = Feeder(nodes.bootstrap, accounts)
    threads: list[Feeder | Copier | Reader] = [feeder, *copiers, *readers]
    faults = [account.faults for account in accounts]
    for thread in threads:
        thread.start()
    try:
        for kill in range(KILLS):
            going = moments.wait(chance.randrange(1, 800))
            outcomes = {copier.name: dict(copier.outcomes) for copier in copiers}
            seen = [len(account.seen) for account in accounts]
            so_far = f"seed {seed}, {kill} kills, {seen} of {feeder.sent} copied, {outcomes}"
            assert going, f"nothing moves: {so_far}; {nodes.log()}"
            assert not any(faults), faults
            node = nodes.kill(chance)
            if nodes.replicas > 1 and chance.random() < 0.5:
                # The others do without it for a while.
                moments.wait(chance.randrange(1, 800))
            nodes.start(node)
        moments.wait(500)
        feeder.stopping.set()
        feeder.join()
        deadline = time.monotonic() + PATIENCE
        while any(len(account.seen) < feeder.sent for account in accounts):
            assert not any(faults), faults
            missing = [feeder.sent - len(account.seen) for account in accounts]
            outcomes = {copier.name: dict(copier.outcomes) for copier in copiers}
            assert time.monotonic() < deadline, f"missing: {missing}; {outcomes}; {nodes.log()}"
            time.sleep(0.05)
    finally:
        for thread in threads:
            thread.stopping.set()
        for thread in threads:
            thread.join(PATIENCE)
    hanging = [thread.name for thread in threads if thread.is_alive()]
    assert hanging == []
    assert feeder.failed == []
    outcomes = {copier.name: dict(copier.outcomes) for copier in copiers}
    print(f"seed {seed}, {feeder.sent} numbers, {outcomes}")
    for account in accounts:
        found = committed(nodes.bootstrap, [account.copies, account.seals])
        faults_found = account.judge(found[account.copies], found[account.seals], feeder.sent)
        assert faults_found == [], f"seed {seed}; {outcomes}"
        assert group_offsets(nodes.bootstrap, account.group) == feeder.sent
        assert len(account.committed) > KILLS
        assert account.aborted, "some were to be"


@pytest.mark.parametrize(
    ("copies", "seals", "said"),
    [
        (["a 0", "a 1", "b 2"], "aaabbb", ""),
        (["a 0", "a 1"], "aaa", "2 is lost"),
        (["a 0", "a 1", "b 2", "c 2"], "aaabbbccc", "2 is there 2 times"),
        (["a 0", "b 2"], "aaabbb", "a is torn: [0] of [0, 1], 3 seals"),
        (["a 0", "a 1", "b 2"], "aaabb", "b is torn: [2] of [2], 2 seals"),
        (["c 2"], "ccc", "a was committed, and is lost"),
        (["a 0", "a 1", "d 2"], "aaaddd", "d was aborted, and is visible"),
        (["a 0", "a 1", "e 2"], "aaaeee", "e was left open, and is visible"),
    ],
)
def test_the_account_tells_what_is_wrong(copies: list[str], seals: str, said: str) -> None:
    account = Account("forged")
    account.attempts = {"a": [0, 1], "b": [2], "c": [2], "d": [2], "e": [2]}
    account.committing = {"a", "b", "c"}
    account.committed, account.aborted, account.left_open = {"a"}, {"d"}, {"e"}
    faults = account.judge(copies, list(seals), 3)
    assert said in faults if said else faults == []
    account.read(account.copies, "d 2")
    assert account.faults == ["forged-copies: d 2 is visible before its commit began"]
