"""A tier of topics with several replicas: the leader copies, and any other goes on."""

from __future__ import annotations

import itertools
import os
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

import ottla
from processes import Program, installed_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()

PATIENCE = 60
RECORD_BYTES = 32 << 10
#: Enough for several segments of a mebibyte.
MANY = 150

pytestmark = pytest.mark.timeout(240)

SETTINGS = {
    "segment.bytes": str(1 << 20),
    "remote.storage.enable": "true",
    "local.retention.bytes": "1",
    "retention.ms": "-1",
    "file.delete.delay.ms": "100",
}


class Nodes:
    """A cluster with a tier that all nodes share, and what lies on their disks."""

    def __init__(self, directory: Path, count: int) -> None:
        self.directory = directory
        self.cluster = ottla.Cluster(
            count,
            path=directory,
            config={
                "remote.log.storage.system.enable": "true",
                "ottla.tier.url": (directory / "tier").as_uri(),
                "remote.log.manager.task.interval.ms": 50,
                "log.retention.check.interval.ms": 50,
            },
        )
        self.kafka = self.cluster.client()
        self.servers = {"bootstrap.servers": self.cluster.bootstrap_servers}

    def create(self, topic: str, **settings: str) -> None:
        config = {**SETTINGS, **{name.replace("_", "."): at for name, at in settings.items()}}
        new = NewTopic(topic, 1, 3, config=config)
        admin = AdminClient(self.servers)
        admin.create_topics([new])[topic].result(PATIENCE)

    def local_start(self, node: int, topic: str) -> int:
        """Return the first offset of the segments on the disk of a node; -1 without any."""
        folder = self.directory / f"node-{node}" / f"{topic}-0"
        return min((int(path.stem) for path in folder.glob("*.log")), default=-1)

    def files(self, topic: str) -> list[Path]:
        return sorted(
            (self.directory / "tier" / f"topic={topic}" / "partition=0").glob("*.parquet")
        )

    def described(self, topic: str) -> Any:
        [found] = [one for one in self.kafka.cluster().partitions if one.topic == topic]
        return found

    def leader(self, topic: str) -> int:
        leader = self.described(topic).leader
        assert isinstance(leader, int)
        return leader

    def wait_in_sync(self, topic: str, nodes: set[int]) -> None:
        await_that(lambda: set(self.described(topic).isr) >= nodes, lambda: self.described(topic))

    def wait_deleted(self, topic: str, behind: int) -> None:
        """Wait until the replicas in sync have only the last two segments on their disks."""
        least = behind - 2 * (1 << 20) // RECORD_BYTES
        await_that(
            lambda: all(
                self.local_start(node, topic) > least for node in self.described(topic).isr
            ),
            lambda: (least, {one: self.local_start(one, topic) for one in (1, 2, 3, 4)}),
        )

    def make_leader(self, topic: str, node: int) -> None:
        """Have a replica lead, by the order of all of them."""
        others = [one for one in self.described(topic).replicas if one != node][:2]
        self.move(topic, [node, *others])
        await_that(lambda: self.described(topic).leader == node, lambda: self.described(topic))

    def move(self, topic: str, replicas: list[int]) -> None:
        program = Program(_PROGRAM, self.cluster.bootstrap_servers, "cluster")
        wanted = ",".join(str(one) for one in replicas)
        program.run("reassign", f"{topic}:0={wanted}", "--timeout", str(PATIENCE))

    def read(self, topic: str, isolation: str = "read_uncommitted") -> list[tuple[int, bytes]]:
        """Return every record from offset 0 on, as librdkafka reads it."""
        consumer = Consumer(
            {
                **self.servers,
                "group.id": "unused",
                "enable.auto.commit": False,
                "isolation.level": isolation,
                "enable.partition.eof": True,
                "auto.offset.reset": "error",
            }
        )
        consumer.assign([TopicPartition(topic, 0, 0)])
        found: list[tuple[int, bytes]] = []
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            message = consumer.poll(0.5)
            if message is None:
                continue
            error = message.error()
            if error is None:
                found.append((message.offset(), message.value()))
            elif error.name() == "_PARTITION_EOF":
                consumer.close()
                return found
            else:
                assert error.retriable() or error.name() == "KAFKA_STORAGE_ERROR", error
        raise AssertionError(f"read only {len(found)} records")


def await_that(is_so: Callable[[], bool], what: Callable[[], object]) -> None:
    until = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < until, what()
        time.sleep(0.02)


def value(number: int) -> bytes:
    return b"%d " % number + random.Random(number).randbytes(RECORD_BYTES)


class Writer:
    """An idempotent producer of librdkafka, which knows what it has written."""

    def __init__(self, nodes: Nodes, topic: str) -> None:
        self.topic = topic
        self.producer = Producer({**nodes.servers, "enable.idempotence": True, "linger.ms": 0})
        self.written: list[tuple[int, bytes]] = []

    def write(self, count: int = MANY) -> None:
        failed: list[object] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failed.append(error)

        for _ in range(count):
            one = value(len(self.written))
            self.producer.produce(self.topic, one, partition=0, on_delivery=delivered)
            self.written.append((len(self.written), one))
            self.producer.poll(0)
        assert self.producer.flush(PATIENCE) == 0
        assert failed == []


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path, 3)
    with nodes.cluster:
        yield nodes


@pytest.fixture
def four(tmp_path: Path) -> Iterator[Nodes]:
    nodes = Nodes(tmp_path, 4)
    with nodes.cluster:
        yield nodes


def test_whoever_leads_goes_on(three: Nodes) -> None:
    three.create("orders")
    writer = Writer(three, "orders")
    writer.write()
    three.wait_in_sync("orders", {1, 2, 3})
    three.wait_deleted("orders", len(writer.written))
    for _ in range(2):
        before = len(three.files("orders"))
        dead = three.leader("orders")
        three.cluster.kill(dead)
        assert three.read("orders") == writer.written
        writer.write()
        three.wait_deleted("orders", len(writer.written))
        assert len(three.files("orders")) > before
        assert three.read("orders") == writer.written
        three.cluster.start(dead)
        three.wait_in_sync("orders", {1, 2, 3})
    names = [path.name.split("-") for path in three.files("orders")]
    ranges = [(int(base), int(last)) for base, last, *_ in names]
    assert ranges[0][0] == 0
    assert all(one[1] + 1 == following[0] for one, following in itertools.pairwise(ranges))


def test_a_node_that_was_away_begins_where_its_leader_does(three: Nodes) -> None:
    three.create("orders")
    writer = Writer(three, "orders")
    writer.write(10)
    three.wait_in_sync("orders", {1, 2, 3})
    three.cluster.stop(3)
    writer.write(3 * MANY)
    three.wait_deleted("orders", len(writer.written))
    three.cluster.start(3)
    three.wait_in_sync("orders", {1, 2, 3})
    assert three.local_start(3, "orders") > 10
    three.make_leader("orders", 3)
    assert three.read("orders") == writer.written
    writer.write()
    three.wait_deleted("orders", len(writer.written))
    assert three.read("orders") == writer.written


def test_a_new_replica_begins_where_its_leader_does(four: Nodes) -> None:
    four.create("orders")
    writer = Writer(four, "orders")
    writer.write(2 * MANY)
    four.wait_deleted("orders", len(writer.written))
    [new] = {1, 2, 3, 4} - set(four.described("orders").replicas)
    kept = four.leader("orders")
    four.move("orders", [new, kept])
    await_that(lambda: four.leader("orders") == new, lambda: four.described("orders"))
    assert four.local_start(new, "orders") > 0
    assert four.read("orders") == writer.written
    writer.write()
    four.wait_deleted("orders", len(writer.written))
    assert four.read("orders") == writer.written


def test_transactions_go_on_where_a_copy_begins(four: Nodes) -> None:
    four.create("orders")
    producer = Producer({**four.servers, "transactional.id": "t"})
    producer.init_transactions(PATIENCE)
    committed: list[bytes] = []

    def write(first: int, count: int) -> list[bytes]:
        values = [value(number) for number in range(first, first + count)]
        for one in values:
            producer.produce("orders", one, partition=0)
        assert producer.flush(PATIENCE) == 0
        return values

    for number in range(4):
        producer.begin_transaction()
        values = write(number * MANY, MANY)
        if number % 2 == 0:
            producer.commit_transaction(PATIENCE)
            committed += values
        else:
            producer.abort_transaction(PATIENCE)
    four.wait_deleted("orders", 4 * MANY)
    # Two are open while the copy begins: one will be committed, one aborted.
    producer.begin_transaction()
    committed += write(10_000, 5)
    other = Producer({**four.servers, "transactional.id": "other"})
    other.init_transactions(PATIENCE)
    other.begin_transaction()
    other.produce("orders", b"never", partition=0)
    assert other.flush(PATIENCE) == 0
    [new] = {1, 2, 3, 4} - set(four.described("orders").replicas)
    four.move("orders", [new, four.leader("orders")])
    await_that(lambda: four.leader("orders") == new, lambda: four.described("orders"))
    assert four.local_start(new, "orders") > 0
    producer.commit_transaction(PATIENCE)
    other.abort_transaction(PATIENCE)
    assert [one for _, one in four.read("orders", "read_committed")] == committed


def test_a_deleted_topic_leaves_nothing(three: Nodes) -> None:
    three.create("orders")
    Writer(three, "orders").write()
    await_that(lambda: len(three.files("orders")) > 0, lambda: three.files("orders"))
    admin = AdminClient(three.servers)
    admin.delete_topics(["orders"])["orders"].result(PATIENCE)
    kept = three.directory / "tier" / "_ottla"
    await_that(
        lambda: not three.files("orders") and not list((kept / "topics").glob("*")),
        lambda: (three.files("orders"), list(kept.rglob("*.json"))),
    )
