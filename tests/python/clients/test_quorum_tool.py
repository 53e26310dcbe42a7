"""Apache Kafka's ``kafka-metadata-quorum`` on a cluster that grows by nodes that join it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from processes import BrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

    from processes import JavaTools

PATIENCE_S = 30


def replicas(java: JavaTools, server: str) -> dict[int, tuple[str, str]]:
    """Return the status and the directory id of each node of the metadata quorum."""
    told = java.run("metadata-quorum", "--bootstrap-server", server, "describe", "--replication")
    lines = [line.split() for line in told.splitlines()]
    return {int(line[0]): (line[-1], line[1]) for line in lines if line and line[0].isdigit()}


def await_status(java: JavaTools, server: str, node: int, status: str) -> None:
    """Ask until a node has this status."""
    deadline = time.monotonic() + PATIENCE_S
    while (known := replicas(java, server)).get(node, ("", ""))[0] != status:
        assert time.monotonic() < deadline, known


def test_controllers_are_added_and_removed(tmp_path: Path, java: JavaTools) -> None:
    first = BrokerProcess(tmp_path / "1", "--node-id", "1")
    second = BrokerProcess(tmp_path / "2", "--node-id", "2", "--join", first.bootstrap)
    fourth = BrokerProcess(
        *(tmp_path / "4", "--node-id", "4", "--join", f"{first.bootstrap},{second.bootstrap}"),
        *("-o", "controller.quorum.auto.join.enable=false"),
    )
    nodes = [first, second, fourth]
    try:
        await_status(java, second.bootstrap, 2, "Follower")
        await_status(java, fourth.bootstrap, 4, "Observer")
        status = java.run(
            "metadata-quorum", "--bootstrap-server", fourth.bootstrap, "describe", "--status"
        )
        voters = next(line for line in status.splitlines() if line.startswith("CurrentVoters:"))
        assert f"PLAINTEXT://{first.bootstrap}" in voters
        # What the tool reads of a node: Kafka's names, for a node with one listener.
        settings = tmp_path / "controller.properties"
        settings.write_text(
            f"process.roles=broker,controller\nnode.id=4\nlog.dirs={fourth.data_dir}\n"
            f"listeners=PLAINTEXT://{fourth.bootstrap}\ncontroller.listener.names=PLAINTEXT\n"
        )
        # A node that does not lead takes it to the one that does.
        server = ("--bootstrap-server", second.bootstrap)
        config = ("--command-config", str(settings))
        added = java.run("metadata-quorum", *server, *config, "add-controller")
        assert "Added controller 4" in added
        again = java.run("metadata-quorum", *server, *config, "add-controller", status=1)
        assert "DuplicateVoter" in again
        known = replicas(java, second.bootstrap)
        assert known[4][0] == "Follower"
        # The leader goes, and hands over.
        gone = ("--controller-id", "1", "--controller-directory-id", known[1][1])
        assert "Removed" in java.run("metadata-quorum", *server, "remove-controller", *gone)
        await_status(java, fourth.bootstrap, 1, "Observer")
        twice = java.run("metadata-quorum", *server, "remove-controller", *gone, status=1)
        assert "VoterNotFound" in twice
    finally:
        for node in nodes:
            node.kill()
