"""What a standalone broker logs."""

from __future__ import annotations

import socket
import struct
import subprocess
from typing import TYPE_CHECKING

import ottla
from processes import BrokerProcess, ottla_program

if TYPE_CHECKING:
    from pathlib import Path

# What Apache Kafka comes with for one node, and more that tunes what is not there.
KAFKA_PROPERTIES = """
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=localhost:9093
listeners=PLAINTEXT://:9092,CONTROLLER://:9093
inter.broker.listener.name=PLAINTEXT
advertised.listeners=PLAINTEXT://localhost:0,CONTROLLER://localhost:9093
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL
num.network.threads=4
log.dirs=/tmp/kraft-combined-logs
offsets.topic.replication.factor=1
group.coordinator.background.threads=4
log.flush.interval.ms=1000
sasl.kerberos.min.time.before.relogin=5000
"""

EXPIRE_DELEGATION_TOKEN = 40
METADATA = 3
FUTURE = 99


def send_and_see_the_end(address: str, client: str, api: int, version: int) -> None:
    """Send a request without a body, and wait until the broker closes the connection."""
    host, port = address.rsplit(":", 1)
    name = client.encode()
    header = struct.pack(">hhih", api, version, 1, len(name)) + name
    if version == FUTURE:
        header += b"\0"  # no tagged fields
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(struct.pack(">i", len(header)) + header)
        assert connection.recv(1) == b""


def test_what_is_not_served_is_named_once_for_each_client(tmp_path: Path) -> None:
    broker = BrokerProcess(tmp_path / "data")
    for _ in range(3):
        send_and_see_the_end(broker.bootstrap, "billing", EXPIRE_DELEGATION_TOKEN, 1)
        send_and_see_the_end(broker.bootstrap, "orders", EXPIRE_DELEGATION_TOKEN, 1)
        send_and_see_the_end(broker.bootstrap, "billing", METADATA, FUTURE)
    assert broker.stop() == 0
    lines = [line for line in broker.stderr().splitlines() if "not served" in line]
    assert len(lines) == 3, broker.stderr()
    assert sum("billing" in line and "EXPIRE_DELEGATION_TOKEN" in line for line in lines) == 1
    assert sum("orders" in line and "EXPIRE_DELEGATION_TOKEN" in line for line in lines) == 1
    metadata = next(line for line in lines if "METADATA" in line)
    assert "version=99" in metadata
    assert 'served="0-13"' in metadata
    assert "connection closed" not in broker.stderr()


def test_the_settings_of_a_kafka_broker_start_ours(tmp_path: Path) -> None:
    settings = tmp_path / "server.properties"
    settings.write_text(KAFKA_PROPERTIES)
    broker = BrokerProcess(tmp_path / "data", "--config", str(settings))
    kafka = ottla.connect(broker.bootstrap)
    kafka.create_topic("t", config={"flush.ms": "1000"})
    kafka.send("t", b"x", timeout=30)
    assert kafka.scan("t").count() == 1
    kafka.close()
    assert broker.stop() == 0
    lines = [line for line in broker.stderr().splitlines() if "without effect" in line]
    named = " ".join(lines)
    for name in (
        "num.network.threads",
        "group.coordinator.background.threads",
        "sasl.kerberos.min.time.before.relogin",
    ):
        assert named.count(name) == 1, named
    assert "flush" not in named
    assert "offsets.topic" not in named


def test_a_setting_that_asks_for_security_is_refused(tmp_path: Path) -> None:
    settings = tmp_path / "server.properties"
    settings.write_text("authorizer.class.name=org.example.Authorizer\n")
    command = [ottla_program(), "broker", "start", "--in-memory", "--config", str(settings)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode != 0
    assert "authorizer.class.name=org.example.Authorizer needs security" in ended.stderr
