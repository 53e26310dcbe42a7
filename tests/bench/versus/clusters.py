"""Three nodes as one cluster, of either kind: a copy of everything on each, two acknowledge."""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from processes import BrokerProcess, KafkaProcess, free_ports
from versus.measure import KAFKA, OTTLA
from versus.servers import KAFKA_JVM, Server

if TYPE_CHECKING:
    import subprocess

NODES = 3
SETTINGS = {
    "default.replication.factor": "3",
    "offsets.topic.replication.factor": "3",
    "min.insync.replicas": "2",
}


class Cluster(Server, Protocol):
    """Nodes that can be lost one by one."""

    def process(self, node: int) -> subprocess.Popen[bytes] | subprocess.Popen[str]:
        """The process of a node that runs; nodes count from 1."""

    def start(self, node: int) -> None:
        """Start a node whose process has ended, and wait until it is ready."""


class _Cluster(ABC):
    """What both kinds have in common."""

    replicas = NODES

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="versus-"))
        self.ports = free_ports(NODES)
        self.bootstrap = ",".join(f"127.0.0.1:{port}" for port in self.ports)

    @abstractmethod
    def process(self, node: int) -> subprocess.Popen[bytes] | subprocess.Popen[str]:
        """See :class:`Cluster`."""

    @abstractmethod
    def start(self, node: int) -> None:
        """See :class:`Cluster`."""

    @property
    def pids(self) -> list[int]:
        return [self.process(node).pid for node in self.running()]

    def running(self) -> list[int]:
        """The nodes whose processes have not ended."""
        return [node for node in range(1, NODES + 1) if self.process(node).poll() is None]

    def restart_after_kill(self) -> float:
        """Kill all nodes at once and return the seconds until they serve again."""
        self._kill()
        return self.start_all()

    def start_all(self) -> float:
        """Start all nodes, which wait for each other; return how many seconds that took."""
        begin = time.perf_counter()
        with ThreadPoolExecutor(NODES) as threads:
            list(threads.map(self.start, range(1, NODES + 1)))
        return time.perf_counter() - begin

    def end(self) -> None:
        self._kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _kill(self) -> None:
        processes = [self.process(node) for node in self.running()]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(30)


class OttlaCluster(_Cluster):
    """``ottla broker start`` on three ports. With two copies, nobody waits for the disk."""

    name = OTTLA

    def __init__(self) -> None:
        super().__init__()
        voters = (f"{node}@127.0.0.1:{port}" for node, port in enumerate(self.ports, 1))
        self.options = ["--controller-quorum-voters", ",".join(voters)]
        for name, value in SETTINGS.items():
            self.options += ["-o", f"{name}={value}"]
        self.nodes: dict[int, BrokerProcess] = {}
        self.ready_seconds = self.start_all()

    def process(self, node: int) -> subprocess.Popen[str]:
        return self.nodes[node].process

    def start(self, node: int) -> None:
        options = ["--node-id", str(node), *self.options]
        data = self.directory / f"node-{node}"
        self.nodes[node] = BrokerProcess(data, *options, port=self.ports[node - 1])


class KafkaCluster(_Cluster):
    """Apache Kafka's nodes, broker and controller in one each."""

    name = KAFKA

    def __init__(self, libs: str) -> None:
        super().__init__()
        self.libs, self.controllers = libs, free_ports(NODES)
        self.nodes: dict[int, KafkaProcess] = {}
        with ThreadPoolExecutor(NODES) as threads:
            made = threads.map(self._make, range(1, NODES + 1))
            self.nodes = dict(enumerate(made, 1))
        self.ready_seconds = max(node.ready_seconds for node in self.nodes.values())

    def process(self, node: int) -> subprocess.Popen[bytes]:
        return self.nodes[node].process

    def start(self, node: int) -> None:
        self.nodes[node].start()

    def _make(self, node: int) -> KafkaProcess:
        directory = self.directory / f"node-{node}"
        directory.mkdir()
        voters = (f"{node}@127.0.0.1:{port}" for node, port in enumerate(self.controllers, 1))
        own = {"node.id": str(node), "controller.quorum.voters": ",".join(voters)}
        ports = self.ports[node - 1], self.controllers[node - 1]
        return KafkaProcess(self.libs, directory, *KAFKA_JVM, ports=ports, **{**SETTINGS, **own})
