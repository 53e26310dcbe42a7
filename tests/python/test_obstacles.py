"""What is said of a cluster that does not answer: address and cause, soon, from everywhere."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

import ottla

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What a call may take that is given up after a second; a guard against waiting for ever.
SOON = 15.0


def closed_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def refusing() -> str:
    """An address where nobody listens."""
    return f"127.0.0.1:{closed_port()}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address that takes connections and says nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def web() -> Iterator[str]:
    """The address of a web server, as it answers what it does not understand."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection:
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1024):
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{server.getsockname()[1]}"
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join()


def next_row(consumer: ottla.Consumer) -> object:
    with consumer:
        return consumer.poll(60)


async def next_row_async(consumer: ottla.Consumer) -> object:
    async with consumer:
        return await anext(consumer)


async def sent_async(client: ottla._client.Client) -> object:
    return await client.send_async("t", "value")


#: Everything that makes the first contact with a cluster.
FIRST_CONTACTS: dict[str, Callable[[Any], object]] = {
    "topics": lambda client: client.topics(),
    "create_topic": lambda client: client.create_topic("t"),
    "delete_topic": lambda client: client.delete_topic("t"),
    "send": lambda client: client.send("t", "value"),
    "send_async": lambda client: client.send_async("t", "value").result(),
    "send_async of a loop": lambda client: asyncio.run(sent_async(client)),
    "write": lambda client: client.write("t", pl.DataFrame({"id": [1]})),
    "scan": lambda client: client.scan("t"),
    "head": lambda client: client["t"].head(),
    "consumer": lambda client: client.consumer("t"),
    "resume": lambda client: client.consumer("t", resume=lambda _topic, _partition: 0),
    "a member": lambda client: next_row(client.consumer("t", group_id="g")),
    "a member of KIP-848": lambda client: next_row(
        client.consumer("t", group_id="g", group_protocol="consumer")
    ),
    "a member of a pattern": lambda client: next_row(client.consumer("^t.*", group_id="g")),
    "a member of a loop": lambda client: asyncio.run(
        next_row_async(client.consumer("t", group_id="g"))
    ),
    "groups": lambda client: client.groups.list(),
    "group": lambda client: client.groups["g"],
    "offsets": lambda client: client.offsets("t"),
    "configs": lambda client: client.configs("t"),
    "cluster": lambda client: client.cluster(),
    "in": lambda client: "t" in client,
}


@pytest.mark.parametrize("call", FIRST_CONTACTS)
def test_a_closed_port_is_named_soon(call: str, refusing: str) -> None:
    began = time.monotonic()
    with ottla.connect(refusing) as client, pytest.raises(ottla.ConnectionError) as raised:
        FIRST_CONTACTS[call](client)
    assert f"could not connect to {refusing}: Connection refused" in str(raised.value)
    cause = raised.value.__cause__
    assert isinstance(cause, ConnectionRefusedError)
    assert cause.errno == errno.ECONNREFUSED
    assert time.monotonic() - began < SOON


def test_a_name_that_nobody_knows_is_named_soon() -> None:
    told = r"resolve nobody\.invalid:9092: "
    with (
        ottla.connect("nobody.invalid:9092") as client,
        pytest.raises(ottla.ConnectionError, match=told) as raised,
    ):
        client.topics()
    assert isinstance(raised.value.__cause__, OSError)


def test_a_web_server_is_no_broker(web: str) -> None:
    told = f"{web}: it answers in HTTP"
    with ottla.connect(web) as client, pytest.raises(ottla.ConnectionError, match=told):
        client.topics()


def test_a_silent_port_is_named_when_the_time_is_over(silent: str) -> None:
    with ottla.connect(silent) as client:
        with pytest.raises(ottla.TimeoutError) as raised:
            client.topics(timeout=1)
        told = f"timed out after 1 s: the list of topics: could not get an answer from {silent}: it"
        assert str(raised.value).startswith(told)
        cause = raised.value.__cause__
        assert isinstance(cause, ottla.ConnectionError)
        assert isinstance(cause.__cause__, TimeoutError)
        assert cause.__cause__.errno == errno.ETIMEDOUT


def test_a_silent_port_is_given_up_after_the_time_to_connect(silent: str) -> None:
    settings = {"socket.connection.setup.timeout.ms": 200, "default.api.timeout.ms": 300}
    ends = pytest.raises((ottla.TimeoutError, ottla.ConnectionError), match=silent)
    with ottla.connect(silent, config=settings) as client, ends:
        client.topics()


def test_one_address_that_answers_is_enough(refusing: str) -> None:
    with (
        ottla.Broker() as broker,
        ottla.connect(f"{refusing},{broker.bootstrap_servers}") as client,
    ):
        client.create_topic("t")
        assert client.topics() == ["t"]


def test_a_cluster_that_was_reached_is_waited_for_and_named() -> None:
    broker = ottla.Broker()
    address = broker.bootstrap_servers.split(",")[0]
    client = ottla.connect(address)
    client.create_topic("t")
    consumer = client.consumer("t", start="earliest")
    broker.close()
    refused = f"could not connect to {address}: Connection refused"
    for call in (
        lambda: client.topics(timeout=1),
        lambda: client.send("t", "value", timeout=1),
        lambda: client.scan("t", timeout=1),
        lambda: consumer.lag(timeout=1),
    ):
        with pytest.raises(ottla.TimeoutError) as raised:
            call()
        assert "timed out after 1 s: " in str(raised.value)
        assert refused in str(raised.value)
    consumer.close()
    with pytest.raises(ottla.KafkaError, match="1 record was not acknowledged"):
        client.close()


def test_an_address_that_only_the_cluster_gave_is_told_as_such(refusing: str) -> None:
    config = {"advertised.listeners": f"PLAINTEXT://{refusing}"}
    with ottla.Broker(config=config) as broker:
        broker.client().create_topic("t")
        with ottla.connect(broker.bootstrap_servers) as client:
            told = f"could not connect to {refusing}, as broker . advertises itself: Connection"
            with pytest.raises(ottla.TimeoutError, match=told):
                client.offsets("t", timeout=1)


def test_an_error_with_its_cause_crosses_a_process(refusing: str) -> None:
    import pickle

    with ottla.connect(refusing) as client, pytest.raises(ottla.ConnectionError) as raised:
        client.topics()
    again = pickle.loads(pickle.dumps(raised.value))
    assert str(again) == str(raised.value)
