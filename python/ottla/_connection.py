"""A connection to a cluster: how it is opened, what hangs on it, and how it ends."""

from __future__ import annotations

import weakref
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

from ottla import _exit
from ottla._bounds import Limit
from ottla._closing import AsyncClosing
from ottla._embedded import hosts, refuse
from ottla._ottla import Client as _NativeClient
from ottla._server import Server, default_server
from ottla._settings import client_settings, servers_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

__all__ = ["Connection", "Timeout"]

Timeout = float | timedelta | None


class Member(Protocol):
    """A member of a group, which leaves before its connection closes."""

    def _close(self, timeout: float | None, *, failed: bool) -> None: ...


def _leave(member: Member, left: Callable[[], float | None]) -> None:
    # Nobody said that what it handed out last is finished.
    member._close(left(), failed=True)  # noqa: SLF001


class Connection(AsyncClosing):
    """A client apart from what it does; see :class:`Client`, whose parts build on it."""

    def __init__(self, native: _NativeClient) -> None:
        self._native = native
        self._admin = native.admin()
        #: Its members of groups, which leave when it closes.
        self._members: weakref.WeakSet[Member] = weakref.WeakSet()
        #: How many milliseconds topics keep records, as far as known.
        self._retentions: dict[str, int | None] = {}
        #: The embedded broker, which lives as long as its clients.
        self._owner: Server | None = None
        #: The settings that it was made with.
        self._settings: dict[str, str] = {}
        #: The brokers of this process that it reaches by their addresses, if there are no others.
        self._hosts = hosts(native.bootstrap_servers)
        _exit.register_client(self)

    @classmethod
    def _open(
        cls,
        bootstrap_servers: str | Sequence[str] | None,
        *,
        client_id: str | None = None,
        config: Mapping[str, object] | None = None,
        **options: object,
    ) -> Self:
        """Open a connection by addresses, or to the broker of this process for all who name none.

        The arguments are those of :func:`ottla.connect`.
        """
        settings = client_settings(client_id, config, options)
        if bootstrap_servers is None and "bootstrap.servers" not in settings:
            return cls._of_server(default_server(), config=settings)
        if bootstrap_servers is not None:
            settings["bootstrap.servers"] = servers_text(bootstrap_servers)
        connection = cls(_NativeClient.connect(settings))
        connection._settings = settings
        return connection

    @classmethod
    def _of_server(
        cls,
        server: Server,
        *,
        client_id: str | None = None,
        config: Mapping[str, object] | None = None,
        **options: object,
    ) -> Self:
        """Open a connection without a socket; it closes with the broker, and keeps it alive."""
        settings = client_settings(client_id, config, options)
        connection = cls(_NativeClient.in_process(server._native, settings))  # noqa: SLF001
        connection._settings = settings
        connection._owner = server
        server._clients.add(connection)  # noqa: SLF001
        return connection

    @property
    def bootstrap_servers(self) -> str:
        """The addresses that this client was given."""
        return self._native.bootstrap_servers

    @property
    def closed(self) -> bool:
        """Whether the client was closed."""
        return self._native.closed

    def close(self, timeout: Timeout = 60.0) -> None:
        """Leave all groups, flush and close; a second call does nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long to wait for the groups and for acknowledgements, in seconds; never longer
            than ``delivery.timeout.ms`` for a record, and not at all for an embedded broker that
            was closed and whose address no other broker has taken.

        Raises
        ------
        ConnectionError, TimeoutError or KafkaError
            When records were not acknowledged, with their topics and number: those that were under
            way, and those that failed before and whose :class:`Pending` nobody kept. The client
            is closed nevertheless.
        """
        limit = Limit(timeout)
        try:
            with ExitStack() as members:
                while self._members:
                    members.callback(_leave, self._members.pop(), limit.left)
        finally:
            why = f"the broker at {self.bootstrap_servers} was closed" if self._is_alone() else None
            self._native.close(limit.left(), why)

    def _is_alone(self) -> bool:
        """Whether its brokers were closed in this process, and no others have their addresses."""
        if self.closed or not self._hosts or not all(host.is_gone for host in self._hosts):
            return False
        # Without a socket there is only the one that it was made by.
        return self._owner is not None or refuse(self.bootstrap_servers)

    def __repr__(self) -> str:
        state = "closed " if self.closed else ""
        return f"<ottla.Client {state}{self.bootstrap_servers}>"
