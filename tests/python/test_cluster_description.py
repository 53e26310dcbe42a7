"""What a client is told of its cluster."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

import ottla
from ottla._description import ClusterBroker, ClusterPartition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NODES = [1, 2, 3]

#: How long a cluster may take, in seconds.
PATIENCE = 60.0


@pytest.fixture
def cluster() -> Iterator[ottla.Cluster]:
    with ottla.Cluster(config={"broker.rack": "<here>"}) as cluster:
        yield cluster


def until(
    kafka: ottla.Client, holds: Callable[[ottla.ClusterDescription], bool]
) -> ottla.ClusterDescription:
    """Ask until the cluster is as it should be."""
    end = time.monotonic() + PATIENCE
    while not holds(described := kafka.cluster()):
        assert time.monotonic() < end, described
    return described


def test_a_cluster_that_is_well(cluster: ottla.Cluster) -> None:
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=6)
        # The broker that is asked may not know the topic yet.
        described = until(kafka, lambda one: len(one.partitions) == 6 and not one.under_replicated)
        assert described.cluster_id == cluster.nodes[1].cluster_id
        assert described.controller_id in NODES
        assert [one.node_id for one in described.brokers] == NODES
        for one in described.brokers:
            assert f"{one.host}:{one.port}" == cluster.nodes[one.node_id].bootstrap_servers
            assert one.rack == "<here>"
            assert one.fenced is False
        assert sum(described.leaders.values()) == 6
        assert described.replicas == dict.fromkeys(NODES, 6)
        assert {one.min_isr for one in described.partitions} == {2}
        assert (described.offline, described.under_min_isr) == ([], [])
        assert described.to_pylist()[0]["topic"] == "t"
        frame = described.to_pandas()
        assert list(frame["partition"]) == list(range(6))


def test_a_cluster_that_loses_its_nodes(cluster: ottla.Cluster) -> None:
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=3)
        kafka.create_topic("alone", partitions=3, replication_factor=1)
        until(kafka, lambda one: len(one.partitions) == 6 and not one.under_replicated)
        cluster.kill(2)
        described = until(kafka, lambda one: one.brokers[1].fenced is True and bool(one.offline))
        assert [one.fenced for one in described.brokers] == [False, True, False]
        assert described.leaders[2] == 0
        assert {(one.topic, one.leader) for one in described.offline} == {("alone", None)}
        assert {one.topic for one in described.under_min_isr} == {"alone"}
        assert len([one for one in described.under_replicated if one.topic == "t"]) == 3
        assert described.controller_id in {1, 3}
        assert "4 under-replicated" in repr(described).splitlines()[0]
        assert "fenced" in repr(described)
        picture = described._repr_html_()
        assert "<td>fenced</td>" in picture
        assert "<td>alone</td>" in picture
        assert "<here>" not in picture
        assert "&lt;here&gt;" in picture


def test_a_long_list_is_cut() -> None:
    partitions = [ClusterPartition("many", number, 1, 0, [1, 2], [1], 2) for number in range(30)]
    described = ottla.ClusterDescription("id", 1, [ClusterBroker(1, "h", 9092)], partitions)
    assert len(described.under_min_isr) == 30
    assert "… and 10 more" in repr(described)
    assert "… and 10 more" in described._repr_html_()
