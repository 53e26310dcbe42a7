"""Every call with a ``timeout`` ends by then, whatever the cluster does or does not."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import select
import socket
import threading
import time
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What the calls are given, in seconds.
TIMEOUT = 0.4

#: What they may take: a guard against waiting for ever, not a measure.
GUARD = 15.0


class Proxy:
    """Stands before a broker; may refuse, or keep silent."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.target: tuple[str, int] | None = None
        self._pairs: list[tuple[socket.socket, socket.socket | None]] = []
        self._is_silent = False
        self._accepting = threading.Thread(target=self._accept)
        self._accepting.start()
        self._pumps: list[threading.Thread] = []

    def _accept(self) -> None:
        while True:
            try:
                incoming, _ = self._listener.accept()
            except OSError:
                return
            if self._is_silent or self.target is None:
                self._pairs.append((incoming, None))
                continue
            outgoing = socket.create_connection(self.target)
            self._pairs.append((incoming, outgoing))
            pump = threading.Thread(target=self._pump, args=(incoming, outgoing))
            self._pumps.append(pump)
            pump.start()

    def _pump(self, incoming: socket.socket, outgoing: socket.socket) -> None:
        other = {incoming: outgoing, outgoing: incoming}
        while True:
            try:
                for one in select.select([incoming, outgoing], [], [])[0]:
                    data = one.recv(65536)
                    if not self._is_silent:
                        other[one].sendall(data)
                    if not data:
                        return
            except (OSError, ValueError):
                return

    def silence(self) -> None:
        """Take connections and bytes from now on, and say nothing."""
        self._is_silent = True

    def refuse(self) -> None:
        """Close everything, so that nobody listens."""
        self._is_silent = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        for pair in self._pairs:
            for one in pair:
                if one is not None:
                    with suppress(OSError):
                        one.shutdown(socket.SHUT_RDWR)
        for pump in self._pumps:
            pump.join()
        for pair in self._pairs:
            for one in pair:
                if one is not None:
                    one.close()


class Kit:
    """What the calls are made of: a client that knows its cluster, and what it made."""

    def __init__(self, address: str, *, knows: bool) -> None:
        self.client = ottla.connect(address, linger_ms=0)
        self.producer = ottla.Producer(self.client)
        if knows:
            self.client.create_topic("t")
            self.client.send("t", "value")
            self.consumer = self.client.consumer("t", start="earliest")
            self.scan = self.client.scan("t", group_id="s")
            self.client.send("k", "value", key="key")
            self.table = self.client.table("k")
            self.member = self.client.consumer("t", group_id="g", auto_offset_reset="earliest")
            assert self.member.poll(30) is not None
            self.transactional = self.client.transactional("known")
            self.transaction = self.transactional.transaction().__enter__()
            self.transaction.send("t", "value").result(30)

    def pending(self) -> ottla.Pending:
        """A record that is under way."""
        return self.client.send_async("t", "value")

    def transact(self) -> None:
        """Begin a transaction, the first of its id."""
        with self.client.transactional("first", timeout=TIMEOUT).transaction():
            pass

    def flush_a_record(self) -> None:
        """Wait for a record."""
        self.pending()
        self.client.flush(TIMEOUT)

    def close_with_a_record(self) -> None:
        """Close before a record is acknowledged."""
        self.pending()
        self.client.close(TIMEOUT)


ROWS = pl.DataFrame({"id": [1]})

#: How each method with a timeout is called, and whether it has to fail.
CASES: dict[str, tuple[Callable[[Kit], object], bool]] = {
    "Client.scan": (lambda kit: kit.client.scan("t", timeout=TIMEOUT), True),
    "Client.table": (lambda kit: kit.client.table("k", timeout=TIMEOUT), True),
    "Topic.table": (lambda kit: kit.client["k"].table(timeout=TIMEOUT), True),
    "Client.windows": (lambda kit: kit.client.windows("t", "1m", timeout=TIMEOUT), True),
    "Topic.windows": (lambda kit: kit.client["t"].windows("1m", timeout=TIMEOUT), True),
    "Table.refresh": (lambda kit: kit.table.refresh(timeout=TIMEOUT), True),
    "Table.changes": (lambda kit: list(kit.table.changes(timeout=TIMEOUT)), True),
    "Scan.commit": (lambda kit: kit.scan.commit(timeout=TIMEOUT), True),
    "Client.consumer": (lambda kit: kit.client.consumer("t", timeout=TIMEOUT), True),
    "Client.send": (lambda kit: kit.client.send("t", "value", timeout=TIMEOUT), True),
    "Client.write": (lambda kit: kit.client.write("t", ROWS, timeout=TIMEOUT), True),
    "Client.flush": (lambda kit: kit.client.flush(TIMEOUT), False),
    "Client.close": (lambda kit: kit.client.close(TIMEOUT), False),
    "Client.create_topic": (lambda kit: kit.client.create_topic("n", timeout=TIMEOUT), True),
    "Client.delete_topic": (lambda kit: kit.client.delete_topic("t", timeout=TIMEOUT), True),
    "Client.create_partitions": (
        lambda kit: kit.client.create_partitions("t", 2, timeout=TIMEOUT),
        True,
    ),
    "Client.topics": (lambda kit: kit.client.topics(timeout=TIMEOUT), True),
    "Client.configs": (lambda kit: kit.client.configs("t", timeout=TIMEOUT), True),
    "Client.alter_configs": (
        lambda kit: kit.client.alter_configs("t", {"retention.ms": 1}, timeout=TIMEOUT),
        True,
    ),
    "Client.delete_records": (lambda kit: kit.client.delete_records("t", timeout=TIMEOUT), True),
    "Client.offsets": (lambda kit: kit.client.offsets("t", timeout=TIMEOUT), True),
    "Client.cluster": (lambda kit: kit.client.cluster(timeout=TIMEOUT), True),
    "Client.transactional": (lambda kit: kit.transact(), True),
    "Groups.list": (lambda kit: kit.client.groups.list(timeout=TIMEOUT), True),
    "Groups.describe": (lambda kit: kit.client.groups.describe("g", timeout=TIMEOUT), True),
    "Groups.reset": (
        lambda kit: kit.client.groups.reset("h", "t", "latest", timeout=TIMEOUT),
        True,
    ),
    "Groups.delete": (lambda kit: kit.client.groups.delete("g", timeout=TIMEOUT), True),
    "Groups.delete_offsets": (
        lambda kit: kit.client.groups.delete_offsets("g", "t", timeout=TIMEOUT),
        True,
    ),
    "Topic.scan": (lambda kit: kit.client["t"].scan(timeout=TIMEOUT), True),
    "Topic.write": (lambda kit: kit.client["t"].write(ROWS, timeout=TIMEOUT), True),
    "Topic.describe": (lambda kit: kit.client["t"].describe(timeout=TIMEOUT), True),
    "Topic.offload": (lambda kit: kit.client["t"].offload(timeout=TIMEOUT), True),
    "Producer.write": (lambda kit: kit.producer.write("t", ROWS, timeout=TIMEOUT), True),
    "Producer.flush": (lambda kit: kit.producer.flush(TIMEOUT), False),
    "Producer.close": (lambda kit: kit.producer.close(TIMEOUT), False),
    "Transaction.write": (lambda kit: kit.transaction.write("t", ROWS, timeout=TIMEOUT), True),
    "TransactionalProducer.close": (lambda kit: kit.transactional.close(TIMEOUT), True),
    "Consumer.__init__": (lambda kit: ottla.Consumer("t", kit.client, timeout=TIMEOUT), True),
    "Consumer.poll": (lambda kit: kit.consumer.poll(TIMEOUT), False),
    "Consumer.seek": (lambda kit: kit.consumer.seek("latest", timeout=TIMEOUT), True),
    "Consumer.lag": (lambda kit: kit.consumer.lag(timeout=TIMEOUT), True),
    "Consumer.commit": (
        lambda kit: kit.member.commit({"t": {0: 1}}, timeout=TIMEOUT),
        True,
    ),
    "Consumer.committed": (lambda kit: kit.member.committed(timeout=TIMEOUT), True),
    "Consumer.close": (lambda kit: kit.member.close(TIMEOUT), False),
    "Pending.result": (lambda kit: kit.pending().result(TIMEOUT), True),
    "Pending.exception": (lambda kit: kit.pending().exception(TIMEOUT), True),
}

#: Cases of the same methods that take another way.
WAYS: dict[str, tuple[Callable[[Kit], object], bool]] = {
    "a time that the topic may not keep": (
        lambda kit: kit.client.send(
            "t", "value", timestamp=datetime(2020, 1, 1, tzinfo=timezone.utc), timeout=TIMEOUT
        ),
        True,
    ),
    "a scan of a group": (
        lambda kit: kit.client.scan("t", group_id="s", timeout=TIMEOUT),
        True,
    ),
    "a scan with a function": (
        lambda kit: kit.client.scan("t", resume=lambda _topic, _one: 0, timeout=TIMEOUT),
        True,
    ),
    "a consumer with a function": (
        lambda kit: kit.client.consumer("t", resume=lambda _topic, _one: 0, timeout=TIMEOUT),
        True,
    ),
    "a consumer with a bar": (
        lambda kit: kit.client.consumer("t", until="caught_up", progress=True, timeout=TIMEOUT),
        True,
    ),
    "flush of a record": (lambda kit: kit.flush_a_record(), True),
    "close with a record": (lambda kit: kit.close_with_a_record(), True),
    "poll of a member": (lambda kit: kit.member.poll(TIMEOUT), False),
    "an offset of every partition": (
        lambda kit: kit.client.groups.reset("h", "t", 1, timeout=TIMEOUT),
        True,
    ),
}

#: Methods that do not talk to a cluster that could keep silent; tested below.
ELSEWHERE = {
    "Broker.__init__",
    "Broker.close",
    "Cluster.__init__",
    "Cluster.close",
    "Cluster.start",
    "Cluster.stop",
    "SchemaRegistry.__init__",
}


def methods_with_a_timeout() -> set[str]:
    """Return the public methods that have one, by class."""
    found = set()
    names = [info.name for info in pkgutil.iter_modules(ottla.__path__) if info.name[:2] != "__"]
    # That for Spark needs Spark, and has no method with a timeout that Spark would not call itself.
    names.remove("spark")
    modules: list[Any] = [ottla, *(importlib.import_module(f"ottla.{name}") for name in names)]
    classes = {
        one
        for module in modules
        for one in vars(module).values()
        # The native classes of the same names are behind those of Python.
        if inspect.isclass(one)
        and one.__name__[0] != "_"
        and one.__module__.startswith("ottla")
        and one.__module__ not in {"ottla._ottla", "ottla.demo"}
    }
    functions = [
        one
        for module in modules
        for name, one in vars(module).items()
        if inspect.isfunction(one) and one.__module__ == module.__name__ and name[0] != "_"
    ]
    assert {"Client", "Consumer", "Pending"} <= {one.__name__ for one in classes}
    for one in classes:
        for name, method in inspect.getmembers(one, callable):
            if name.startswith("_") and name != "__init__":
                continue
            with suppress(ValueError, TypeError):
                if "timeout" in inspect.signature(method).parameters:
                    found.add(f"{one.__name__}.{name}")
    for function in functions:
        has_one = "timeout" in inspect.signature(function).parameters
        if has_one and function.__module__ != "ottla._bounds":
            found.add(function.__name__)
    # What only is a part of another class has no users of its own.
    parts = {base.__name__ for one in classes for base in one.__mro__[1:]} | {"Limit"}
    # A twin for asyncio calls its method.
    twins = {f"{name}_async" for name in found}
    return {name for name in found - twins if name.partition(".")[0] not in parts}


def test_every_method_with_a_timeout_has_a_case() -> None:
    assert methods_with_a_timeout() == CASES.keys() | ELSEWHERE


@contextmanager
def broken(how: str, *, knows: bool) -> Iterator[Kit]:
    """A client of a cluster that refuses or keeps silent: from now on, or from the beginning."""
    proxy = Proxy()
    config = {
        "advertised.listeners": f"PLAINTEXT://{proxy.address}",
        "transaction.state.log.num.partitions": 1,
    }
    broker = ottla.Broker(config=config) if knows else None
    try:
        if broker is not None:
            host, _, port = broker.bootstrap_servers.split(",")[0].rpartition(":")
            proxy.target = (host, int(port))
            kit = Kit(proxy.address, knows=True)
        if how == "refuses":
            proxy.refuse()
        else:
            proxy.silence()
        if broker is None:
            kit = Kit(proxy.address, knows=False)
        yield kit
        with suppress(ottla.KafkaError):
            kit.client.close(0)
    finally:
        proxy.refuse()
        if broker is not None:
            broker.close()


def check(call: Callable[[Kit], object], kit: Kit, *, fails: bool) -> None:
    began = time.monotonic()
    if fails:
        with pytest.raises(ottla.KafkaError) as raised:
            call(kit)
        assert isinstance(raised.value, (ottla.TimeoutError, ottla.ConnectionError))
        assert kit.client.bootstrap_servers in str(raised.value), raised.value
    else:
        with suppress(ottla.TimeoutError, ottla.ConnectionError):
            call(kit)
    assert time.monotonic() - began < GUARD


@pytest.mark.parametrize("how", ["refuses", "keeps silent"])
@pytest.mark.parametrize("name", [*CASES, *WAYS])
def test_a_call_ends_of_a_client_that_knew_its_cluster(name: str, how: str) -> None:
    call, fails = {**CASES, **WAYS}[name]
    with broken(how, knows=True) as kit:
        check(call, kit, fails=fails)


@pytest.mark.parametrize("how", ["refuses", "keeps silent"])
@pytest.mark.parametrize(
    "name", [name for name in CASES if name.startswith(("Client.", "Groups.", "Topic."))]
)
def test_a_call_ends_that_is_the_first(name: str, how: str) -> None:
    call, fails = CASES[name]
    with broken(how, knows=False) as kit:
        check(call, kit, fails=fails)


def test_a_registry_that_keeps_silent_is_not_waited_for() -> None:
    proxy = Proxy()
    proxy.silence()
    began = time.monotonic()
    try:
        with ottla.Broker() as broker, broker.client() as client:
            registry = ottla.SchemaRegistry(f"http://{proxy.address}", timeout=TIMEOUT)
            with pytest.raises(ottla.KafkaError, match=proxy.address):
                client.send("t", {"id": 1}, value_format=ottla.avro(registry=registry))
            patient = ottla.SchemaRegistry(f"http://{proxy.address}", timeout=60)
            with pytest.raises(ottla.TimeoutError):
                client.send(
                    "t", {"id": 1}, value_format=ottla.avro(registry=patient), timeout=TIMEOUT
                )
    finally:
        proxy.refuse()
    assert time.monotonic() - began < 2 * GUARD


def test_a_broker_that_cannot_begin_or_end_in_time_says_so() -> None:
    with pytest.raises(ottla.TimeoutError, match="the start of the broker"):
        ottla.Broker(timeout=0)
    broker = ottla.Broker()
    with pytest.raises(ottla.TimeoutError, match="the shutdown of the broker"):
        broker.close(0)


def test_a_cluster_that_cannot_begin_or_end_in_time_says_so() -> None:
    with pytest.raises(ottla.TimeoutError, match="the start of the broker"):
        ottla.Cluster(timeout=0)
    cluster = ottla.Cluster()
    with pytest.raises(ottla.TimeoutError, match="the shutdown of the broker"):
        cluster.stop(1, 0)
    cluster.kill(2)
    with pytest.raises(ottla.TimeoutError, match="the start of the broker"):
        cluster.start(2, timeout=0)
    with pytest.raises(ottla.TimeoutError, match="the shutdown of the broker"):
        cluster.close(0)
