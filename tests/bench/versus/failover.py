"""How long clients wait when a node of three is lost, and that they lose nothing by it."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from typing import TYPE_CHECKING

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from versus.clusters import NODES
from versus.servers import create_topic, delete_topic

if TYPE_CHECKING:
    from collections.abc import Callable

    from confluent_kafka import KafkaError, Message

    from versus.clusters import Cluster
    from versus.measure import Results

RATE = 250
"""Records a second: a gap of four milliseconds is no silence."""
WATCHED_S = 3.0
"""A silence that begins this long after a loss would be a second one."""
PATIENCE_S = 120
STOPPED_S = 10.0
_numbers = itertools.count()


class Load:
    """A producer that never pauses, and when its records were acknowledged."""

    def __init__(self, cluster: Cluster, topic: str) -> None:
        self.topic = topic
        self.sent = 0
        self.acknowledged: list[float] = []
        self.refused: list[KafkaError] = []
        self._producer = Producer(
            {
                "bootstrap.servers": cluster.bootstrap,
                "enable.idempotence": True,
                "linger.ms": 0,
                "delivery.timeout.ms": PATIENCE_S * 1000,
            }
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._produce)
        self._thread.start()

    def _produce(self) -> None:
        begin = time.perf_counter()
        while not self._over.is_set():
            self._producer.produce(self.topic, str(self.sent), 0, on_delivery=self._delivered)
            self.sent += 1
            while (left := begin + self.sent / RATE - time.perf_counter()) > 0:
                self._producer.poll(left)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self.acknowledged.append(time.perf_counter())
        else:
            self.refused.append(error)

    def wait_until_acknowledged_after(self, moment: float) -> None:
        """Wait until something that was acknowledged after this moment is there."""
        begin = time.perf_counter()
        while not self.acknowledged or self.acknowledged[-1] <= moment:
            assert time.perf_counter() < begin + PATIENCE_S, "nothing is acknowledged any more"
            time.sleep(0.01)

    def silence_after(self, moment: float) -> float:
        """Return the longest time in seconds without an acknowledgement since then."""
        before = [at for at in self.acknowledged if at <= moment][-1:]
        times = before + [at for at in self.acknowledged if at > moment]
        return max(later - earlier for earlier, later in itertools.pairwise(times))

    def end(self) -> None:
        """Stop, and wait until everything is acknowledged."""
        self._over.set()
        self._thread.join()
        left = self._producer.flush(PATIENCE_S)
        assert (left, self.refused) == (0, []), f"{left} left, refused: {self.refused[:3]}"


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


def silences(results: Results, cluster: Cluster, kills: int) -> None:
    """Lose nodes in every way while a producer goes on, then look for each of its records."""
    topic = f"failover-{next(_numbers)}"
    create_topic(cluster, topic, 1)
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    load = Load(cluster, topic)
    load.wait_until_acknowledged_after(0)

    def lose(what: str, loss: Callable[[int], float]) -> None:
        """Lose the leader; the loss returns when it was, and leaves the node running."""
        wait_for_all_replicas(admin, topic)
        moment = loss(leader_of(admin, topic))
        load.wait_until_acknowledged_after(moment)
        load.wait_until_acknowledged_after(load.acknowledged[-1] + WATCHED_S)
        name = f"three nodes: a producer's silence, {what}, s"
        results.add(name, cluster.name, load.silence_after(moment), lower=True)

    def kill(node: int) -> float:
        return end(node, signal.SIGKILL)

    def stop(node: int) -> float:
        return end(node, signal.SIGTERM)

    def end(node: int, how: signal.Signals) -> float:
        process, moment = cluster.process(node), time.perf_counter()
        process.send_signal(how)
        process.wait(PATIENCE_S)
        load.wait_until_acknowledged_after(moment + 1)  # the others first
        cluster.start(node)
        return moment

    def freeze(node: int) -> float:
        process, moment = cluster.process(node), time.perf_counter()
        process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED_S)
        process.send_signal(signal.SIGCONT)
        return moment

    for _ in range(kills):
        lose("its leader is killed", kill)
    lose("its leader is stopped in order", stop)
    lose(f"its leader stands still for {STOPPED_S:.0f} s", freeze)
    wait_for_all_replicas(admin, topic)
    moment = time.perf_counter()
    ready = cluster.restart_after_kill()
    results.add("three nodes: all killed, ready again, s", cluster.name, ready, lower=True)
    load.wait_until_acknowledged_after(moment + ready)
    load.wait_until_acknowledged_after(load.acknowledged[-1] + WATCHED_S)
    what = "three nodes: a producer's silence, all nodes are killed, s"
    results.add(what, cluster.name, load.silence_after(moment), lower=True)

    load.end()
    found = read_all(cluster, topic, load.sent)
    assert found == list(range(load.sent)), (
        f"{cluster.name}: of {load.sent} acknowledged records, {len(set(found))} are there, "
        f"{len(found) - len(set(found))} more than once"
    )
    delete_topic(cluster, topic)
