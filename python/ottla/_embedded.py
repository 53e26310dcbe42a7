"""The brokers of this process, for clients that reach them by address.

A client need not wait for a broker that was closed in its own process: it will not come back. The
address alone does not tell, since another broker, of this or another process, may use it later.
"""

from __future__ import annotations

import os
import socket

__all__ = ["Embedded", "hosts", "refuse"]

#: How long to wait for a connection, in seconds; a closed port refuses it at once.
_CONNECT_TIMEOUT = 1.0

#: The open brokers by address.
_open: dict[str, Embedded] = {}


def _addresses(servers: str) -> list[str]:
    return [
        server.strip().replace("localhost:", "127.0.0.1:")
        for server in servers.split(",")
        if server.strip()
    ]


class Embedded:
    """A broker of this process.

    Parameters
    ----------
    servers : str
        Its addresses.
    """

    def __init__(self, servers: str) -> None:
        self._process = os.getpid()
        self._addresses = _addresses(servers)
        self._is_open = True
        _open.update(dict.fromkeys(self._addresses, self))

    def end(self) -> None:
        """Record that it was closed."""
        self._is_open = False
        for address in self._addresses:
            if _open.get(address) is self:
                del _open[address]

    @property
    def is_gone(self) -> bool:
        """Whether it was closed in this process, and no other broker here uses its addresses."""
        if self._process != os.getpid() or self._is_open:
            return False
        return not any(address in _open for address in self._addresses)


def hosts(servers: str) -> list[Embedded]:
    """Return the brokers of this process if all of the addresses are theirs."""
    found = [_open.get(address) for address in _addresses(servers)]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else []


def refuse(servers: str) -> bool:
    """Whether connections to all addresses are refused, so that nobody uses them now."""
    return all(_refuses(address) for address in _addresses(servers))


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        # A slow server may still answer.
        return False
    return False
