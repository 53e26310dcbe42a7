"""The commands that operate a cluster, as a user runs them."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

import ottla
from processes import Program, installed_program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_PROGRAM = os.environ.get("OTTLA_DEBUG_BIN") or installed_program()

#: How long a cluster may take, in seconds.
_PATIENCE = 60.0


class Operations(Program):
    """``ottla cluster``, for one cluster."""

    def __init__(self, cluster: ottla.Cluster) -> None:
        super().__init__(_PROGRAM, cluster.bootstrap_servers, "cluster")

    def json(self, *arguments: str) -> Any:
        return super().json(*arguments, "--output", "json")


@pytest.fixture
def cluster() -> Iterator[ottla.Cluster]:
    with ottla.Cluster(4) as cluster:
        yield cluster


def until(kafka: ottla.Client, holds: Callable[[ottla.ClusterDescription], bool]) -> None:
    """Ask until the cluster is as it should be."""
    end = time.monotonic() + _PATIENCE
    while not holds(described := kafka.cluster()):
        assert time.monotonic() < end, described


def replicas(described: ottla.ClusterDescription, topic: str) -> dict[int, list[int]]:
    """Return the replicas of each partition of a topic."""
    return {one.partition: one.replicas for one in described.partitions if one.topic == topic}


def all_on(topic: str, nodes: list[int]) -> Callable[[ottla.ClusterDescription], bool]:
    """Return whether all partitions of a topic are on these nodes, as a broker knows it."""
    return lambda described: all(
        sorted(one) == nodes for one in replicas(described, topic).values()
    )


def test_a_cluster_is_described(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=8)
        until(kafka, lambda described: not described.under_replicated)
        described = program.json("describe")
        assert [one["id"] for one in described["brokers"]] == [1, 2, 3, 4]
        assert described["controller"] == described["quorum"]["leader"]
        assert described["partitions"]["under_replicated"] == 0
        text = program.run("describe").stdout
        assert "0 without a leader, 0 under-replicated, 0 below min.insync.replicas" in text
        brokers = program.json("brokers")
        assert sum(one["leads"] for one in brokers) == 8
        assert sum(one["replicas"] for one in brokers) == 24
        assert {one["state"] for one in brokers} == {"active"}
        voters = program.json("voters", "describe")
        assert [one["node"] for one in voters] == [1, 2, 3, 4]
        assert [one["role"] for one in voters].count("leader") == 1
        assert "leader" in program.run("voters", "describe").stdout
        cluster.kill(2)
        until(kafka, lambda described: any(one.fenced for one in described.brokers))
        assert {one["broker"]: one["state"] for one in program.json("brokers")}[2] == "fenced"
        assert program.json("describe")["partitions"]["under_replicated"] > 0


def test_partitions_are_moved(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=4)
        for number in range(40):
            kafka.send("t", str(number), partition=number % 4)
        # By hand.
        for nodes in ("1,2", "2,3,4"):
            (plan,) = program.json("reassign", f"t:0={nodes}", "--dry-run")
            assert plan["replicas"] == [int(node) for node in nodes.split(",")]
            moved = program.json("reassign", f"t:0={nodes}", "t:1=3,4,1")
            assert moved[0]["replicas"] == plan["replicas"]
        until(kafka, lambda described: replicas(described, "t")[0] == [2, 3, 4])

        def leads(described: ottla.ClusterDescription) -> bool:
            leaders = {one.partition: one.leader for one in described.partitions}
            return (leaders[0], leaders[1]) == (2, 3)

        until(kafka, leads)
        assert "nothing to move" in program.run("reassign", "t:0=2,3,4").stderr
        # Spread over some of the brokers, with fewer replicas.
        moved = program.json("reassign", "t", "--brokers", "1,2", "--replication-factor", "2")
        assert len(moved) == 4
        assert [one["replicas"][0] for one in moved].count(1) == 2
        until(kafka, all_on("t", [1, 2]))
        # A copy that cannot be made keeps the move open.
        cluster.kill(4)
        until(kafka, lambda described: any(one.fenced for one in described.brokers))
        program.run("reassign", "t:0=1,2,4", "--no-wait")
        timed_out = program.run("reassign", "t:0=2,1,4", "--timeout", "1", status=5)
        assert "still being copied" in timed_out.stderr
        (open_,) = program.json("reassign", "--list")
        assert (open_["topic"], open_["partition"], open_["adding"]) == ("t", 0, [4])
        program.run("reassign", "--cancel", "t:1")
        assert len(program.json("reassign", "--list")) == 1
        program.run("reassign", "--cancel")
        assert "nothing is being moved" in program.run("reassign", "--list").stdout
        assert kafka.scan("t").count() == 40


def test_moves_are_throttled(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    whole = Program(_PROGRAM, cluster.bootstrap_servers)

    def throttled(kind: str, name: str) -> dict[str, str]:
        described = whole.json("configs", "describe", kind, name, "--output", "json")
        return {one["name"]: one["value"] for one in described if "throttled" in one["name"]}

    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=2)
        program.run("reassign", "t:0=1,2", "t:1=2,1")
        for number in range(40):
            kafka.send("t", str(number), partition=number % 2)
        # Much more than there is: this is about what is set, and what is left.
        whole.run(
            *("configs", "alter", "--broker", "1"),
            *("--add-config", "leader.replication.throttled.rate=5000000"),
        )
        program.run("reassign", "t:0=1,3", "--throttle", "100000000")
        until(kafka, lambda described: replicas(described, "t")[0] == [1, 3])
        assert throttled("--topic", "t") == {}
        assert throttled("--broker", "1") == {"leader.replication.throttled.rate": "5000000"}
        assert throttled("--broker", "3") == {}
        # A copy that cannot be made keeps the move open, and its throttle with it.
        cluster.kill(4)
        until(kafka, lambda described: any(one.fenced for one in described.brokers))
        begun = program.run("reassign", "t:1=2,1,4", "--no-wait", "--throttle", "1000")
        assert "ottla cluster reassign --unthrottle" in begun.stderr
        assert throttled("--topic", "t") == {
            "leader.replication.throttled.replicas": "1:2,1:1",
            "follower.replication.throttled.replicas": "1:4",
        }
        rates = dict.fromkeys(
            ["leader.replication.throttled.rate", "follower.replication.throttled.rate"], "1000"
        )
        assert throttled("--broker", "1") == throttled("--broker", "2") == rates
        assert throttled("--broker", "3") == {}
        program.run("reassign", "--cancel")
        assert program.json("reassign", "--unthrottle") == {"brokers": [1, 2], "topics": ["t"]}
        assert throttled("--topic", "t") == throttled("--broker", "1") == {}
        assert "nothing is throttled" in program.run("reassign", "--unthrottle").stdout
        assert "--throttle" in program.run("reassign", "t", "--throttle", "0", status=2).stderr


def test_what_cannot_be_moved(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    with cluster.client() as kafka:
        kafka.create_topic("orders", partitions=2)
    for arguments, status, expected in [
        (["reassign"], 2, "name topics or partitions"),
        (["reassign", "orders=1"], 2, "orders:0="),
        (["reassign", "orders:0=1,x"], 2, "not the id of a broker"),
        (["reassign", "orders:0=1", "orders:0=2"], 2, "named twice"),
        (["reassign", "orders", "--replication-factor", "9"], 2, "9 replicas do not fit"),
        (["reassign", "order"], 1, "did you mean orders"),
        (["reassign", "orders:7"], 1, "has no partition 7"),
        (["reassign", "orders:0=1,9"], 1, "there is no broker 9; the brokers are 1, 2, 3, 4"),
        (["drain", "9"], 1, "there is no broker 9"),
        (["elect", "--unclean"], 2, "name the partitions"),
        (["elect", "orders:0=1"], 2, "does not move replicas"),
        (["unregister", "1"], 1, "1"),
        (["unregister", "9"], 1, "9"),
    ]:
        assert expected in program.run(*arguments, status=status).stderr, arguments


def test_a_broker_is_drained_and_forgotten(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=8)
        for number in range(80):
            kafka.send("t", str(number), partition=number % 8)
        planned = program.json("drain", "4", "--dry-run")
        assert planned["moved"]
        assert not planned["is_empty"]
        done = program.run("drain", "4").stdout
        assert "broker 4 has no replicas any more" in done
        assert "ottla cluster voters remove 4" in done
        until(kafka, lambda described: described.replicas[4] == described.leaders[4] == 0)
        until(kafka, lambda described: not described.under_replicated)
        # Again: there is nothing to do.
        assert program.json("drain", "4")["moved"] == []
        cluster.stop(4)
        until(kafka, lambda described: described.brokers[-1].fenced is True)
        assert "not registered any more" in program.run("unregister", "4").stdout
        until(kafka, lambda described: [one.node_id for one in described.brokers] == [1, 2, 3])
        # Now every broker has a replica of everything.
        refused = program.run("drain", "3", status=1).stderr
        assert "start another broker, or pass --fewer-replicas" in refused
        kafka.alter_configs("t", {"min.insync.replicas": 3})
        refused = program.run("drain", "3", "--fewer-replicas", status=1).stderr
        assert "fewer than its min.insync.replicas of 3" in refused
        kafka.alter_configs("t", {"min.insync.replicas": 2})
        program.run("drain", "3", "--fewer-replicas")
        until(kafka, all_on("t", [1, 2]))
        # There is room again.
        program.run("drain", "2")
        until(kafka, all_on("t", [1, 3]))
        assert kafka.scan("t").count() == 80


def test_leaders_are_elected(cluster: ottla.Cluster) -> None:
    program = Operations(cluster)
    with cluster.client() as kafka:
        kafka.create_topic("t", partitions=4)
        program.run("reassign", "t:0=1,2,3", "t:1=1,3,4", "t:2=2,3,4", "t:3=3,2,4")
        until(kafka, lambda described: described.leaders[1] == 2)
        assert "lead already" in program.run("elect").stdout
        cluster.kill(1)
        until(kafka, lambda described: described.leaders[1] == 0 and not described.offline)
        refused = program.run("elect", "t:0", "t:2", status=1)
        assert "1 of 2 partitions got no leader" in refused.stderr
        cluster.start(1)
        until(kafka, lambda described: not described.under_replicated)
        elected = program.json("elect", "t")
        outcomes = {one["partition"]: one["outcome"] for one in elected}
        assert outcomes == {
            0: "elected",
            1: "elected",
            2: "leads already",
            3: "leads already",
        } or set(outcomes.values()) == {"leads already"}
        until(kafka, lambda described: described.leaders[1] == 2)


def test_voters_come_and_go(tmp_path: Path) -> None:
    with ottla.Cluster(4, path=tmp_path) as cluster:
        program = Operations(cluster)

        def roles() -> dict[int, str]:
            return {one["node"]: one["role"] for one in program.json("voters", "describe")}

        directories = {
            one["node"]: one["directory_id"] for one in program.json("voters", "describe")
        }
        removed = program.json("voters", "remove", "4")
        assert removed == {
            "node": 4,
            "directory_id": directories[4],
            "voters": [1, 2, 3],
            "observers": [4],
        }
        assert roles()[4] == "observer"
        added = program.run("voters", "add", "4").stdout
        assert "node 4 votes in the metadata quorum; the voters are 1, 2, 3, 4" in added
        for arguments, status, expected in [
            (["add", "4"], 1, "node 4 votes already"),
            (["add", "9"], 1, "start it with --join first"),
            (["remove", "9"], 1, "no voter of the metadata quorum; the voters are 1, 2, 3, 4"),
            (["remove", "4", "--directory-id", directories[1]], 1, "is no voter"),
            (["remove", "4", "--directory-id", "x"], 2, "22 characters"),
            (["add", "4", "--endpoint", "nowhere"], 2, "use HOST:PORT"),
        ]:
            refused = program.run("voters", *arguments, status=status).stderr
            assert expected in refused, (arguments, refused)

        # A directory that is lost has to be replaced by name.
        cluster.kill(4)
        shutil.rmtree(tmp_path / "node-4")
        cluster.start(4)
        refused = program.run("voters", "add", "4", status=1).stderr
        assert "ottla cluster voters remove 4" in refused
        assert program.json("voters", "remove", "4")["directory_id"] == directories[4]
        # Nobody is where the others would be sent, and nothing has changed.
        refused = program.run("voters", "add", "4", "--endpoint", "127.0.0.1:1", status=5).stderr
        assert "does not answer at 127.0.0.1:1" in refused
        again = program.json("voters", "add", "4")
        assert again["voters"] == [1, 2, 3, 4]
        assert again["directory_id"] != directories[4]


def test_the_last_voter_stays() -> None:
    with ottla.Cluster(2) as cluster:
        program = Operations(cluster)
        removed = program.run("voters", "remove", "1").stdout
        assert "the voters are 2" in removed
        assert "add another first" in program.run("voters", "remove", "2", status=1).stderr
        assert "with two voters, both are needed" in program.run("voters", "add", "1").stdout
