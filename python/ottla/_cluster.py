"""Several brokers of this process as one cluster, and the loss of any of them."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla._arguments import takes_items
from ottla._bounds import Limit
from ottla._broker import Broker
from ottla._client import Client, connect
from ottla._closing import Closing
from ottla._ottla import Links
from ottla.errors import ClosedError, ConfigError
from ottla.typing import ClientOptions

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from datetime import timedelta

    from typing_extensions import Unpack


__all__ = ["Cluster"]

_NODES_MAX = 9
_HOST = "127.0.0.1"
#: What the cluster itself decides.
_OWN = ("node.id", "broker.id", "controller.quorum.voters", "listeners", "advertised.listeners")


class _Node(Broker):
    """A broker whose links to the others can be cut."""

    def __init__(self, *arguments: Any, links: Links, **options: Any) -> None:
        self._links = links
        super().__init__(*arguments, **options)


class Cluster(Closing):
    """Brokers inside this process that replicate each other's partitions, for tests and trials.

    Each node is a real broker with a directory and a port of its own; together they elect a
    controller, and any minority of them may be killed: clients go on with the others. Unless told
    otherwise, topics have a replica on three nodes, and a write with ``acks=all`` is acknowledged
    once two of them have it.

    Parameters
    ----------
    nodes : int, default 3
        How many; they are numbered from 1. Only a majority can decide anything: with two nodes, the
        loss of either stops the cluster.
    path : str or os.PathLike, optional
        The directory with a directory for each node; it is kept. Without one, the data is in a
        temporary directory that is removed when the cluster closes.
    config : mapping of str to object, optional
        Settings of every broker by Kafka's names.
    timeout : float or datetime.timedelta, default 60
        How long the start may take, in seconds; ``None`` for no limit.

    Raises
    ------
    ConfigError
        When a setting is unknown or not valid, or is one that the cluster decides.
    StorageError
        When a directory is in use, was written by a newer version, or cannot be read or written.

    Notes
    -----
    All nodes share this process: a crash of the process stops them all. What survives machines is
    started with ``ottla broker start --controller-quorum-voters`` on each of them.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Cluster() as cluster, cluster.client() as kafka:
    ...     _ = kafka.create_topic("orders")
    ...     _ = kafka.send("orders", b"first")
    ...     cluster.kill(2)
    ...     kafka.send("orders", b"second").offset
    1

    Nodes stop and start, and links between them are cut and heal:

    >>> with ottla.Cluster(3) as cluster:
    ...     sorted(cluster.nodes), cluster.bootstrap_servers.count(":")
    ...     cluster.stop(1)
    ...     sorted(cluster.nodes)
    ...     cluster.start(1)
    ...     cluster.cut(3)  # it runs, and reaches nobody
    ...     cluster.heal()
    ...     cluster.close()
    ...     cluster.closed
    ([1, 2, 3], 3)
    [2, 3]
    True
    """

    def __init__(
        self,
        nodes: int = 3,
        *,
        path: str | os.PathLike[str] | None = None,
        config: Mapping[str, object] | None = None,
        timeout: float | timedelta | None = 60.0,
    ) -> None:
        if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= _NODES_MAX:
            raise ConfigError(f"nodes= must be a number from 1 to {_NODES_MAX}, not {nodes!r}")
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"config= must be a mapping of names to values, not {config!r}")
        taken = sorted(set(config or {}) & set(_OWN))
        if taken:
            raise ConfigError(f"the cluster decides {', '.join(taken)} for each node; leave it out")
        copies = min(3, nodes)
        self._config: dict[str, object] = {
            "default.replication.factor": copies,
            "offsets.topic.replication.factor": copies,
            "min.insync.replicas": 2 if copies == 3 else 1,  # noqa: PLR2004
            **(config or {}),
        }
        self._temporary = None if path is not None else tempfile.mkdtemp(prefix="ottla-cluster-")
        self._path = Path(path if path is not None else str(self._temporary))
        self._ports = dict(zip(range(1, nodes + 1), _free_ports(nodes), strict=True))
        self._links = {node: Links() for node in self._ports}
        self._running: dict[int, Broker] = {}
        self._clients: list[Client] = []
        self._closed = False
        try:
            self._start(self._ports, timeout)
        except BaseException:
            self.close()
            raise

    # --- nodes ----------------------------------------------------------------------------------

    @property
    def nodes(self) -> dict[int, Broker]:
        """The brokers that are running, by node id."""
        return dict(self._running)

    @property
    def bootstrap_servers(self) -> str:
        """The addresses of all nodes, running or not, as ``host:port,host:port,…``."""
        return ",".join(f"{_HOST}:{port}" for port in self._ports.values())

    def kill(self, node: int) -> None:
        """End a node as if its process had been killed: it says goodbye to nobody.

        What it has written stays in its directory; :meth:`start` starts it again.
        """
        self._take(node)._kill()  # noqa: SLF001

    def stop(self, node: int, timeout: float | timedelta | None = 60.0) -> None:
        """Stop a node in order: its partitions get other leaders first.

        Parameters
        ----------
        node : int
            The node.
        timeout : float or datetime.timedelta, default 60
            How long that may take, in seconds; ``None`` for no limit.
        """
        self._take(node).close(timeout)

    def start(self, *nodes: int, timeout: float | timedelta | None = 60.0) -> None:
        """Start nodes again, on their directories and ports; without an argument, all that stand.

        Parameters
        ----------
        *nodes : int
            The nodes.
        timeout : float or datetime.timedelta, default 60
            How long the start may take, in seconds; ``None`` for no limit. A node waits for a
            majority of the cluster.
        """
        self._check_open()
        for node in nodes:
            self._check_known(node)
            if node in self._running:
                raise ConfigError(f"node {node} is running")
        self._start(nodes or self._ports.keys() - self._running.keys(), timeout)

    def cut(self, *nodes: int) -> None:
        """Cut the links between nodes, both ways, as if their cables were cut.

        Nothing arrives, and nobody is told: connections stay open and silent, and new ones are
        neither taken nor refused, until :meth:`heal`. Clients still reach all nodes. Returns at
        once; how long the cluster takes to find other leaders is for it to notice: seconds, since
        there is no sign but silence.

        Parameters
        ----------
        *nodes : int
            Two nodes, or one, which is cut off from all others. Running or not: a node that starts
            again finds its links as they are.

        Raises
        ------
        ConfigError
            When there is no such node, or the same one twice.
        """
        self._check_open()
        for node in nodes:
            self._check_known(node)
        if len(nodes) not in {1, 2} or len(set(nodes)) != len(nodes):
            raise ConfigError(f"name two nodes, or the one to be cut off, not {nodes!r}")
        one = nodes[0]
        for other in nodes[1:] or self._ports.keys() - {one}:
            # Each node cuts what it opens itself, and both open some.
            self._links[one].cut(self._ports[other])
            self._links[other].cut(self._ports[one])

    def heal(self) -> None:
        """End all cuts; what was under way goes on where it was."""
        self._check_open()
        self._heal()

    def _heal(self) -> None:
        for links in self._links.values():
            links.heal()

    @takes_items(ClientOptions)
    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Return a client that knows all nodes, and goes on when some of them are lost.

        Parameters
        ----------
        **options
            The keyword arguments of :func:`ottla.connect`.

        Returns
        -------
        Client
            The client; it closes with the cluster.
        """
        self._check_open()
        client = connect(self.bootstrap_servers, **options)
        self._clients.append(client)
        return client

    def _start(self, nodes: Iterable[int], timeout: float | timedelta | None) -> None:
        voters = ",".join(f"{node}@{_HOST}:{port}" for node, port in self._ports.items())
        limit = Limit(timeout)

        def start(node: int) -> Broker:
            config = {"node.id": node, "controller.quorum.voters": voters, **self._config}
            return _Node(
                self._path / f"node-{node}",
                links=self._links[node],
                listeners=f"PLAINTEXT://{_HOST}:{self._ports[node]}",
                config=config,
                timeout=limit.left(),
            )

        # At the same time: a node is not there before a majority is.
        order = sorted(nodes)
        with ThreadPoolExecutor(len(order) or 1) as threads:
            started = [(node, threads.submit(start, node)) for node in order]
        failure: BaseException | None = None
        for node, result in started:
            error = result.exception()
            if error is None:
                self._running[node] = result.result()
            failure = failure or error
        if failure is not None:
            raise failure

    def _take(self, node: int) -> Broker:
        self._check_open()
        self._check_known(node)
        if node not in self._running:
            raise ConfigError(f"node {node} is not running")
        return self._running.pop(node)

    def _check_known(self, node: int) -> None:
        if node not in self._ports:
            known = ", ".join(map(str, self._ports))
            raise ConfigError(f"there is no node {node!r}; the cluster has {known}")

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError("the cluster was closed")

    # --- its end --------------------------------------------------------------------------------

    @property
    def closed(self) -> bool:
        """Whether the cluster was closed."""
        return self._closed

    def close(self, timeout: float | timedelta | None = 60.0) -> None:
        """Flush the clients, and stop all nodes at the same time; a second call does nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long closing may take, in seconds; ``None`` for no limit.
        """
        if self._closed:
            return
        self._closed = True
        # Nodes that stop tell the others.
        self._heal()
        limit = Limit(timeout)
        with ExitStack() as ends:
            if self._temporary is not None:
                ends.callback(shutil.rmtree, self._temporary, ignore_errors=True)
            brokers, self._running = list(self._running.values()), {}
            ends.callback(_close_all, brokers, limit)
            for client in self._clients:
                ends.callback(_close, client, limit)

    def __repr__(self) -> str:
        if self._closed:
            return "<ottla.Cluster closed>"
        running = ", ".join(map(str, sorted(self._running)))
        return f"<ottla.Cluster of {len(self._ports)} nodes, running: {running or 'none'}>"


def _close(one: Client | Broker, limit: Limit) -> None:
    one.close(limit.left())


def _close_all(brokers: list[Broker], limit: Limit) -> None:
    """Stop brokers at the same time: the last ones have no majority to hand over to."""
    with ThreadPoolExecutor(len(brokers) or 1) as threads:
        for result in [threads.submit(_close, broker, limit) for broker in brokers]:
            result.result()


def _free_ports(count: int) -> list[int]:
    """Return ports that are free now; all are held at once, so that they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind((_HOST, 0))
        return [int(one.getsockname()[1]) for one in sockets]
