"""The brokers of this process, as clients see them that reach them by their addresses.

A client need not wait for a broker that was closed where it lives itself: it does not come back.
Addresses alone do not tell, since another broker may have them later, of this process or of another
one.
"""

from __future__ import annotations

import os
import socket

__all__ = ["Embedded", "hosts", "refuse"]

#: So long a connection is waited for, in seconds; one that nobody takes is refused at once.
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
        """Say that it was closed."""
        self._is_open = False
        for address in self._addresses:
            if _open.get(address) is self:
                del _open[address]

    @property
    def is_gone(self) -> bool:
        """Whether it was closed in this process, which has no other one at its addresses."""
        if self._process != os.getpid() or self._is_open:
            return False
        return not any(address in _open for address in self._addresses)


def hosts(servers: str) -> list[Embedded]:
    """Return the brokers of this process if they are all that there is at the addresses."""
    found = [_open.get(address) for address in _addresses(servers)]
    known = [one for one in found if one is not None]
    return known if len(known) == len(found) else []


def refuse(servers: str) -> bool:
    """Whether connections to all addresses are refused, so that nobody has them now."""
    return all(_refuses(address) for address in _addresses(servers))


def _refuses(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_TIMEOUT).close()
    except ConnectionRefusedError:
        return True
    except OSError:
        # Whoever is slow may still answer.
        return False
    return False
