"""Three nodes, three copies: what they carry, how late it is, and many partitions."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient

from versus import failover, latency, scale, throughput
from versus.measure import memory_mib
from versus.servers import create_topic, delete_topic, fresh
from versus.throughput import Shape

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from versus.clusters import Cluster
    from versus.loads import Load
    from versus.measure import Results

WHERE = "three nodes: "
SHAPES = [
    Shape(100, idempotent=True),
    Shape(100, partitions=3, idempotent=True),
    Shape(1024, partitions=3, idempotent=True),
]
PATIENCE_S = 300
_numbers = itertools.count()


def carry(
    results: Results, makers: Sequence[Callable[[], Cluster]], records: int, seconds: float
) -> None:
    """Throughput and latency. One cluster runs at a time: three virtual machines take much."""
    for make in makers:
        with fresh(make) as cluster:
            results.add(f"{WHERE}ready, s", cluster.name, cluster.ready_seconds, lower=True)
            time.sleep(2)  # a virtual machine keeps loading after it is ready
            idle = memory_mib(cluster.pids, "VmRSS")
            results.add(f"{WHERE}resident memory idle, MiB", cluster.name, idle, lower=True)
            warm = f"warm-{next(_numbers)}"
            create_topic(cluster, warm, 3)
            throughput.produce(cluster, warm, Shape(100, partitions=3), records // 4)
            throughput.confluent(results, [cluster], SHAPES, records, WHERE)
            latency.produce_to_consume(results, [cluster], seconds, WHERE)


def lose_nodes(
    results: Results,
    makers: Sequence[Callable[[], Cluster]],
    clients: Mapping[str, Callable[[str, str], Load]],
    kills: int,
) -> None:
    """See :func:`versus.failover.silences`."""
    for make in makers:
        with fresh(make) as cluster:
            for client, load in clients.items():
                failover.silences(results, cluster, client, load, kills)


def many_partitions(
    results: Results, makers: Sequence[Callable[[], Cluster]], counts: Sequence[int]
) -> None:
    """Create many partitions, write to each, kill one node, then all of them."""
    for make, count in itertools.product(makers, counts):
        with fresh(make) as cluster:
            topic = f"moving-{next(_numbers)}"
            create_topic(cluster, topic, count)
            moved = leaders_move(cluster, topic)
            what = f"{WHERE}{count:,} partitions: a third of the leaders moved after a kill, s"
            results.add(what, cluster.name, moved, lower=True)
            cluster.start(1)
            # What a process may have open is not enough for both topics everywhere.
            delete_topic(cluster, topic)
            scale.partitions(results, cluster, count, WHERE)


def leaders_move(cluster: Cluster, topic: str) -> float:
    """Kill the first node; return how many seconds it takes until others lead all it led."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    admin.list_topics(topic, timeout=PATIENCE_S)
    process, begin = cluster.process(1), time.perf_counter()
    process.kill()
    process.wait(PATIENCE_S)
    while True:
        partitions = admin.list_topics(topic, timeout=PATIENCE_S).topics[topic].partitions
        if all(each.leader not in {-1, 1} for each in partitions.values()):
            return time.perf_counter() - begin
        assert time.perf_counter() < begin + PATIENCE_S, "not all partitions have a leader"
