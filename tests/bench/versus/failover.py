"""How long clients wait when a node of three is lost, and that they lose nothing by it."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from contextlib import closing
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
                # With its default, a minute, it would wait for a leader that stands still, whatever
                # the cluster does meanwhile.
                "socket.timeout.ms": 2000,
                "request.timeout.ms": 2000,
            }
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self._thread.start()

    def _produce(self) -> None:
        begin = time.perf_counter()
        while not self._over.is_set():
            self._producer.produce(
                self.topic, str(self.sent), partition=0, on_delivery=self._delivered
            )
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
        self.close()
        left = self._producer.flush(PATIENCE_S)
        assert (left, self.refused) == (0, []), f"{left} left, refused: {self.refused[:3]}"

    def close(self) -> None:
        """Stop; a second call does nothing."""
        self._over.set()
        self._thread.join()


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
    with closing(Load(cluster, topic)) as load:
        load.wait_until_acknowledged_after(0)
        losses = Losses(results, cluster, load)
        for _ in range(kills):
            losses.of_leader("its leader is killed", losses.kill)
        losses.of_leader("its leader is stopped in order", losses.stop)
        losses.of_leader(f"its leader stands still for {STOPPED_S:.0f} s", losses.freeze)
        losses.of_all()
        load.end()
    found = read_all(cluster, topic, load.sent)
    assert found == list(range(load.sent)), (
        f"{cluster.name}: of {load.sent} acknowledged records, {len(set(found))} are there, "
        f"{len(found) - len(set(found))} more than once"
    )
    delete_topic(cluster, topic)


class Losses:
    """Loses nodes, and notes how long the producer was silent each time."""

    def __init__(self, results: Results, cluster: Cluster, load: Load) -> None:
        self.results, self.cluster, self.load = results, cluster, load
        self.admin = AdminClient({"bootstrap.servers": cluster.bootstrap})

    def of_leader(self, what: str, loss: Callable[[int], None]) -> None:
        """Lose the leader; the loss leaves its node running."""
        wait_for_all_replicas(self.admin, self.load.topic)
        leader, moment = leader_of(self.admin, self.load.topic), time.perf_counter()
        loss(leader)
        self._note(what, moment)

    def of_all(self) -> None:
        """Kill all nodes at once, and start them again."""
        wait_for_all_replicas(self.admin, self.load.topic)
        moment = time.perf_counter()
        ready = self.cluster.restart_after_kill()
        what = "three nodes: all killed, ready again, s"
        self.results.add(what, self.cluster.name, ready, lower=True)
        self._note("all nodes are killed", moment)

    def _note(self, what: str, moment: float) -> None:
        self.load.wait_until_acknowledged_after(time.perf_counter())
        self.load.wait_until_acknowledged_after(self.load.acknowledged[-1] + WATCHED_S)
        name = f"three nodes: a producer's silence, {what}, s"
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
