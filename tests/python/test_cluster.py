"""Several brokers as one cluster: what clients see when nodes are lost and come back."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

confluent_kafka = pytest.importorskip("confluent_kafka")

NODES = (1, 2, 3)


@pytest.fixture
def cluster() -> Iterator[ottla.Cluster]:
    with ottla.Cluster() as cluster:
        yield cluster


def values(kafka: ottla.Client, topic: str) -> list[str]:
    table = kafka.scan(topic, start="earliest", value="text").to_pyarrow()
    return [str(value) for value in table["value"].to_pylist()]


def test_a_producer_goes_on_while_each_node_is_killed(cluster: ottla.Cluster) -> None:
    """librdkafka's, with its default idempotence: every record once, in order."""
    with cluster.client() as kafka:
        kafka.create_topic("numbers", partitions=1)
        producer = confluent_kafka.Producer(
            {"bootstrap.servers": cluster.bootstrap_servers, "enable.idempotence": True}
        )
        failed: list[object] = []

        def delivered(error: object, _message: object) -> None:
            if error is not None:
                failed.append(error)

        sent = 0
        for node in NODES:
            for _ in range(50):
                producer.produce("numbers", str(sent), on_delivery=delivered)
                sent += 1
                producer.poll(0)
            cluster.kill(node)
            for _ in range(50):
                producer.produce("numbers", str(sent), on_delivery=delivered)
                sent += 1
                producer.poll(0)
            assert producer.flush(60) == 0
            cluster.start(node)
        assert failed == []
        assert values(kafka, "numbers") == [str(number) for number in range(sent)]


def test_our_client_and_its_group_go_on(cluster: ottla.Cluster) -> None:
    with cluster.client() as kafka:
        kafka.create_topic("numbers", partitions=3)
        found: list[int] = []
        sent = 0
        with kafka.consumer("numbers", group_id="readers", auto_offset_reset="earliest") as reader:
            for node in NODES:
                for _ in range(20):
                    kafka.send("numbers", str(sent), partition=sent % 3)
                    sent += 1
                cluster.kill(node)
                for _ in range(20):
                    kafka.send("numbers", str(sent), partition=sent % 3)
                    sent += 1
                while len(found) < sent:
                    batch = reader.poll(30)
                    if batch is not None:
                        found += [int(value) for value in batch["value"].to_pylist()]
                        reader.commit(batch)
                cluster.start(node)
        assert sorted(found) == list(range(sent))
        lag = {one.partition: one.lag for one in kafka.groups["readers"].partitions}
        assert lag == {0: 0, 1: 0, 2: 0}


def test_groups_are_listed_although_a_node_was_killed(
    cluster: ottla.Cluster,
) -> None:
    kafka = cluster.client()
    kafka.create_topic("t")
    kafka.send("t", "value")
    with kafka.consumer("t", group_id="g", auto_offset_reset="earliest") as consumer:
        assert consumer.poll(30) is not None
        consumer.commit()
    cluster.kill(3)
    assert [group.group_id for group in kafka.groups.list(timeout=30)] == ["g"]


def test_nodes_stop_in_order(cluster: ottla.Cluster) -> None:
    """Leaders move first: a producer that goes on meanwhile sees no error."""
    with cluster.client() as kafka:
        kafka.create_topic("numbers", partitions=6)
        over = threading.Event()
        errors: list[BaseException] = []
        sent = 0

        def send() -> None:
            nonlocal sent
            try:
                while not over.is_set():
                    kafka.send("numbers", str(sent))
                    sent += 1
            except BaseException as error:  # noqa: BLE001
                errors.append(error)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            for node in NODES:
                cluster.stop(node)
                cluster.start(node)
        finally:
            over.set()
            sending.join()
        assert errors == []
        assert sorted(map(int, values(kafka, "numbers"))) == list(range(sent))


def test_a_cluster_is_found_again_on_its_directories(tmp_path: Path) -> None:
    with ottla.Cluster(path=tmp_path) as cluster, cluster.client() as kafka:
        kafka.send("numbers", "1")
        ids = {broker.cluster_id for broker in cluster.nodes.values()}
        assert len(ids) == 1
    with ottla.Cluster(path=tmp_path) as cluster, cluster.client() as kafka:
        assert {broker.cluster_id for broker in cluster.nodes.values()} == ids
        assert values(kafka, "numbers") == ["1"]


def test_what_a_cluster_refuses(cluster: ottla.Cluster) -> None:
    with pytest.raises(ottla.ConfigError, match="from 1 to 9, not 0"):
        ottla.Cluster(0)
    with pytest.raises(ottla.ConfigError, match=r"the cluster decides node\.id"):
        ottla.Cluster(config={"node.id": 7})
    with pytest.raises(ottla.ConfigError, match="there is no node 4; the cluster has 1, 2, 3"):
        cluster.kill(4)
    with pytest.raises(ottla.ConfigError, match="node 2 is running"):
        cluster.start(2)
    cluster.kill(2)
    with pytest.raises(ottla.ConfigError, match="node 2 is not running"):
        cluster.stop(2)
    assert sorted(cluster.nodes) == [1, 3]
    assert "running: 1, 3" in repr(cluster)
    cluster.close()
    with pytest.raises(ottla.ClosedError):
        cluster.client()


def test_the_others_go_on_without_a_node_that_is_cut_off(cluster: ottla.Cluster) -> None:
    # A node that sees nobody keeps a client waiting that still asks it.
    with cluster.client(request_timeout_ms=2000) as kafka:
        kafka.create_topic("numbers", partitions=3)
        for number in range(6):
            kafka.send("numbers", str(number), partition=number % 3)
        cluster.cut(1)
        for number in range(6, 12):
            kafka.send("numbers", str(number), partition=number % 3, timeout=60)
        others = ",".join(cluster.nodes[node].bootstrap_servers for node in (2, 3))
        with ottla.connect(others) as seeing:
            states = {one.node_id: one.fenced for one in seeing.cluster().brokers}
        assert states == {1: True, 2: False, 3: False}
        cluster.heal()
        deadline = time.monotonic() + 60
        while kafka.cluster().under_replicated:
            assert time.monotonic() < deadline
        found = values(kafka, "numbers")
        assert set(found) == {str(number) for number in range(12)}


def test_a_link_between_two_nodes_is_cut(tmp_path: Path) -> None:
    settings = {"replica.lag.time.max.ms": 1500}
    with (
        ottla.Cluster(path=tmp_path, config=settings) as cluster,
        cluster.client(request_timeout_ms=2000) as kafka,
    ):
        kafka.create_topic("numbers", partitions=3)
        cluster.cut(1, 2)
        # Either of the two, and the third, is a majority.
        for number in range(12):
            kafka.send("numbers", str(number), partition=number % 3, timeout=60)
        cluster.heal()
        deadline = time.monotonic() + 60
        while kafka.cluster().under_replicated:
            assert time.monotonic() < deadline
        assert set(values(kafka, "numbers")) == {str(number) for number in range(12)}


def test_a_node_that_is_cut_off_starts_when_its_links_heal(cluster: ottla.Cluster) -> None:
    cluster.kill(1)
    cluster.cut(1)
    with pytest.raises(ottla.TimeoutError, match="the start of the broker"):
        cluster.start(1, timeout=2)
    cluster.heal()
    cluster.start(1)
    for nodes in [(), (1, 1), (1, 2, 3)]:
        with pytest.raises(ottla.ConfigError, match="name two nodes"):
            cluster.cut(*nodes)
    with pytest.raises(ottla.ConfigError, match="there is no node 4"):
        cluster.cut(4)
