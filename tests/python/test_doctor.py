"""What ``ottla doctor`` says of a cluster that is broken."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

import ottla
from processes import installed_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()

#: How long a cluster may take to be as a test expects it, in seconds.
_PATIENCE = 60.0


@pytest.fixture
def cluster() -> Iterator[ottla.Cluster]:
    with ottla.Cluster() as cluster:
        with cluster.client() as kafka:
            kafka.create_topic("orders", partitions=3)
        yield cluster


def doctor(address: str) -> dict[str, list[str]]:
    """Return the failures by step, each with its remedy."""
    done = subprocess.run(
        [_PROGRAM, "doctor", address, "--output", "json"],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "ignore::RuntimeWarning"},
    )
    assert done.returncode in {0, 4}, done
    told = json.loads(done.stdout)
    assert told["ok"] == (done.returncode == 0)
    found: dict[str, list[str]] = {}
    for one in told["findings"]:
        if not one["ok"]:
            found.setdefault(one["step"], []).append(f"{one['detail']} -> {one['remedy']}")
    return found


def until(address: str, holds: Callable[[dict[str, list[str]]], bool]) -> dict[str, list[str]]:
    """Ask until the answer is as it should be."""
    end = time.monotonic() + _PATIENCE
    while not holds(found := doctor(address)):
        assert time.monotonic() < end, found
    return found


def test_a_cluster_that_is_well_has_no_findings(cluster: ottla.Cluster) -> None:
    for broker in cluster.nodes.values():
        until(broker.bootstrap_servers, lambda found: not found)


def test_a_node_that_has_stopped_is_named_with_what_it_lacks(cluster: ottla.Cluster) -> None:
    address = cluster.nodes[1].bootstrap_servers
    until(address, lambda found: not found)
    cluster.kill(3)
    # Until it is fenced, its address is among those that are advertised.
    found = until(address, lambda found: {"brokers", "quorum", "copies"} == found.keys())
    assert "broker 3 is registered, but fenced, and does not answer" in found["brokers"][0]
    assert "voter 3" in found["quorum"][0]
    assert "2 of 3 voters are there, 2 are needed -> start node 3" in found["quorum"][0]
    assert "not in sync on broker 3: orders-0, orders-1, orders-2" in found["copies"][0]


def test_nodes_that_do_not_see_each_other_are_named(cluster: ottla.Cluster) -> None:
    addresses = {node: broker.bootstrap_servers for node, broker in cluster.nodes.items()}
    until(addresses[2], lambda found: not found)
    cluster.cut(1)
    for asked in (2, 1):
        # Also a node that sees nobody says where the others are.
        found = until(addresses[asked], lambda found: {"brokers", "quorum"} <= found.keys())
        assert "broker 1 answers" in found["brokers"][0]
        assert "it is fenced and leads nothing" in found["brokers"][0]
        assert any("node 1" in one and addresses[1] in one for one in found["quorum"]), found
        assert any("voter 1 runs" in one for one in found["quorum"]), found
    cluster.heal()
    until(addresses[2], lambda found: not found)


def test_a_node_that_waits_for_a_majority_says_so(cluster: ottla.Cluster) -> None:
    address = cluster.nodes[1].bootstrap_servers
    for node in (1, 2, 3):
        cluster.kill(node)

    def start() -> None:
        with suppress(ottla.TimeoutError):
            cluster.start(1, timeout=40)

    starting = threading.Thread(target=start)
    starting.start()
    try:
        found = until(address, lambda found: "quorum" in found)
        assert "knows no leader of the metadata quorum" in found["quorum"][0]
        assert "its voters are 1, 2, 3" in found["quorum"][0]
        assert "start the other voters" in found["quorum"][0]
        cluster.start(2)
    finally:
        starting.join()
