"""What a broker that runs as a program says in its log."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from processes import BrokerProcess

if TYPE_CHECKING:
    from pathlib import Path

END_TXN = 26
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
        send_and_see_the_end(broker.bootstrap, "billing", END_TXN, 0)
        send_and_see_the_end(broker.bootstrap, "orders", END_TXN, 0)
        send_and_see_the_end(broker.bootstrap, "billing", METADATA, FUTURE)
    assert broker.stop() == 0
    lines = [line for line in broker.stderr().splitlines() if "not served" in line]
    assert len(lines) == 3, broker.stderr()
    assert sum("billing" in line and "END_TXN" in line for line in lines) == 1
    assert sum("orders" in line and "END_TXN" in line for line in lines) == 1
    metadata = next(line for line in lines if "METADATA" in line)
    assert "version=99" in metadata
    assert 'served="0-13"' in metadata
    assert "connection closed" not in broker.stderr()
