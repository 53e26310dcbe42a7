"""How long clients wait when a node of three is lost, and that they lose nothing by it."""

from __future__ import annotations

import itertools
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient

from versus.clusters import NODES
from versus.loads import PATIENCE_S
from versus.servers import create_topic, delete_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from versus.clusters import Cluster
    from versus.loads import Load
    from versus.measure import Results

WATCHED_S = 3.0
"""A silence that begins this long after a loss would be a second one."""
STOPPED_S = 10.0
_numbers = itertools.count()


def read_all(cluster: Cluster, topic: str, count: int) -> list[int]:
    """Read what is in the partition, to its end."""
    consumer = Consumer({"bootstrap.servers": cluster.bootstrap, "group.id": "failover"})
    partition = TopicPartition(topic, 0, 0)
    consumer.assign([partition])
    _, end = consumer.get_watermark_offsets(partition, PATIENCE_S)
    found: list[int] = []
    while consumer.position([partition])[0].offset < end and len(found) <= count:
        messages = consumer.consume(10_000, 1)
        found += [int(message.value() or b"") for message in messages if not message.error()]
    consumer.close()
    return found


def leader_of(admin: AdminClient, topic: str) -> int:
    """Return the node that leads the partition."""
    found = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions[0]
    return int(found.leader)


def wait_for_all_replicas(admin: AdminClient, topic: str) -> None:
    """Wait until every node has everything: the next loss may come."""
    begin = time.perf_counter()
    while True:
        partition = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions[0]
        if len(partition.isrs) == NODES and partition.leader >= 0:
            return
        assert time.perf_counter() < begin + PATIENCE_S, f"in sync are only {partition.isrs}"
        time.sleep(0.1)


def silences(
    results: Results, cluster: Cluster, client: str, make: Callable[[str, str], Load], kills: int
) -> None:
    """Lose nodes in every way while a producer goes on, then look for each of its records."""
    topic = f"failover-{next(_numbers)}"
    create_topic(cluster, topic, 1)
    with closing(make(cluster.bootstrap, topic)) as load:
        load.wait_until_acknowledged_after(0)
        losses = Losses(results, cluster, topic, client, load)
        for _ in range(kills):
            losses.of_leader("its leader is killed", losses.kill)
        losses.of_leader("its leader is stopped in order", losses.stop)
        losses.of_leader(f"its leader stands still for {STOPPED_S:.0f} s", losses.freeze)
        losses.of_all()
        sent = load.end()
    assert load.refused == [], f"refused: {load.refused[:3]}"
    found = read_all(cluster, topic, sent)
    assert found == list(range(sent)), (
        f"{cluster.name}: of {sent} records that {client} sent, {len(set(found))} are there, "
        f"{len(found) - len(set(found))} more than once"
    )
    delete_topic(cluster, topic)


class Losses:
    """Loses nodes, and notes how long the producer was silent each time."""

    def __init__(
        self, results: Results, cluster: Cluster, topic: str, client: str, load: Load
    ) -> None:
        self.results, self.cluster, self.topic, self.client = results, cluster, topic, client
        self.load = load
        self.admin = AdminClient({"bootstrap.servers": cluster.bootstrap})

    def of_leader(self, what: str, loss: Callable[[int], None]) -> None:
        """Lose the leader; the loss leaves its node running."""
        wait_for_all_replicas(self.admin, self.topic)
        leader, moment = leader_of(self.admin, self.topic), time.perf_counter()
        loss(leader)
        self._note(what, moment)

    def of_all(self) -> None:
        """Kill all nodes at once, and start them again."""
        wait_for_all_replicas(self.admin, self.topic)
        moment = time.perf_counter()
        ready = self.cluster.restart_after_kill()
        what = "three nodes: all killed, ready again, s"
        self.results.add(what, self.cluster.name, ready, lower=True)
        self._note("all nodes are killed", moment)

    def _note(self, what: str, moment: float) -> None:
        self.load.wait_until_acknowledged_after(time.perf_counter())
        self.load.wait_until_acknowledged_after(self.load.acknowledged[-1] + WATCHED_S)
        name = f"three nodes: silence of {self.client}, {what}, s"
        silence = self.load.silence_after(moment)
        self.results.add(name, self.cluster.name, silence, lower=True)

    def kill(self, node: int) -> None:
        """End a process as a crash does."""
        self._end(node, signal.SIGKILL)

    def stop(self, node: int) -> None:
        """End it as an operator does."""
        self._end(node, signal.SIGTERM)

    def _end(self, node: int, how: signal.Signals) -> None:
        process, moment = self.cluster.process(node), time.perf_counter()
        process.send_signal(how)
        process.wait(PATIENCE_S)
        self.load.wait_until_acknowledged_after(moment + 1)  # the others first
        self.cluster.start(node)

    def freeze(self, node: int) -> None:
        """Stop it as a debugger does, and let it go on."""
        process = self.cluster.process(node)
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        process.send_signal(signal.SIGCONT)
