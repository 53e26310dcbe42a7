"""The life of a broker in this process: how it starts, is found again, and stops."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla import _exit
from ottla._arguments import whole_number
from ottla._bounds import Limit, seconds
from ottla._closing import Closing
from ottla._embedded import Embedded
from ottla._frames import html_table, items_table
from ottla._ottla import Broker as _NativeBroker
from ottla._ottla import settle
from ottla.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from datetime import timedelta

    from typing_extensions import Self

    from ottla._ottla import Links
    from ottla.typing import Durability

__all__ = ["Server", "default_server"]

_DURABILITIES = ("auto", "fsync", "os")
_PORT_MAX = 65_535


#: The brokers of this process, by directory.
_by_directory: weakref.WeakValueDictionary[str, Server] = weakref.WeakValueDictionary()


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(os.fspath(path))


def _location(tier: str | os.PathLike[str]) -> str:
    """Return where the tier is: a URL as it is given, a path as it is seen from here."""
    text = os.fspath(tier)
    return text if "://" in text or text.startswith("file:") else str(Path(text).absolute())


def _running(path: str | os.PathLike[str]) -> Server | None:
    """Return the broker of this process that has the directory open."""
    known = _by_directory.get(_real(path))
    if known is None or known.closed or not known._native.here:  # noqa: SLF001
        return None
    return known


class Server(Closing):
    """A broker of this process, apart from the clients that it makes; see :class:`ottla.Broker`."""

    _native: _NativeBroker
    #: Its links to the other nodes of a cluster in this process.
    _links: Links | None = None

    def __new__(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        reuse: bool = False,
        **_options: Any,
    ) -> Self:
        """Return a new broker to be started, or the one to be reused."""
        if not reuse:
            return super().__new__(cls)
        if path is None:
            raise ConfigError(
                "reuse=True needs a path: without one, each broker has its own directory"
            )
        running: Any = _running(path)
        return running or super().__new__(cls)

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: Durability | None = None,
        tier: str | os.PathLike[str] | None = None,
        listeners: str | None = None,
        port: int | None = None,
        config: Mapping[str, object] | None = None,
        timeout: float | timedelta | None = 60.0,
        reuse: bool = False,
    ) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"config= must be a mapping of names to values, not {config!r}")
        settings = {name: _text(value) for name, value in (config or {}).items()}
        if port is not None:
            listeners = _listeners(port, listeners)
            _refuse_another(settings, "listeners", listeners, f"port={port}")
        elif listeners is not None:
            _refuse_another(settings, "listeners", listeners, f"listeners={listeners!r}")
        _add_arguments(settings, durability, tier)
        if reuse and hasattr(self, "_native"):
            self._compare(settings, listeners)
            return
        self._given = (dict(settings), listeners)
        # In one process there is no fleet of members whose start would be worth waiting for.
        settings.setdefault("group.initial.rebalance.delay.ms", "0")
        directory = None if path is None else os.fspath(path)
        try:
            self._native = _NativeBroker(
                directory, listeners, settings, seconds(timeout), self._links
            )
        except StorageError as error:
            running = None if path is None else _running(path)
            if running is None:
                raise
            raise StorageError(
                f"{directory} is already open in this process, by the broker at "
                f"{running.bootstrap_servers}: pass reuse=True to get that one, or close it first"
            ) from error
        if path is not None:
            _by_directory[_real(path)] = self
        #: Its clients, which close with it.
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._embedded = Embedded(self.bootstrap_servers)
        _exit.register_broker(self)

    def _compare(self, settings: Mapping[str, str], listeners: str | None) -> None:
        """Refuse to be reused with settings other than those it was started with."""
        known, known_listeners = self._given
        for name, value in settings.items():
            if known.get(name) != value:
                was = known.get(name, "the default")
                raise ConfigError(
                    f"the broker to reuse was started with {name}={was}, not {value}: close it "
                    "first"
                )
        if listeners is not None and listeners != known_listeners:
            was = known_listeners or "the default"
            raise ConfigError(
                f"the broker to reuse was started with listeners={was}, not {listeners}: close it "
                "first"
            )

    @property
    def bootstrap_servers(self) -> str:
        """The address of this broker as ``host:port``, for any Kafka client."""
        return self._native.bootstrap_servers

    @property
    def cluster_id(self) -> str | None:
        """The id of the cluster; it is stored in the data directory."""
        return self._native.cluster_id

    @property
    def data_dir(self) -> Path | None:
        """The data directory."""
        directory = self._native.data_dir
        return None if directory is None else Path(directory)

    @property
    def closed(self) -> bool:
        """Whether the broker was closed."""
        return self._native.closed

    def close(self, timeout: float | timedelta | None = 60.0) -> None:
        """Flush the clients, answer open requests, write everything to disk and stop.

        Batches and dataframes read from the broker stay valid. A second call does nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long closing may take, in seconds; ``None`` for no limit.
        """
        limit = Limit(timeout)
        try:
            with ExitStack() as clients:
                for client in list(self._clients):
                    clients.callback(_close, client, limit)
            settle(limit.left())
        finally:
            self._embedded.end()
            self._native.close(limit.left())

    def _kill(self) -> None:
        """End as if the process had been killed; see :meth:`ottla.Cluster.kill`."""
        self._embedded.end()
        self._native.kill()

    def __del__(self) -> None:
        native = getattr(self, "_native", None)
        if native is not None and not native.closed and native.here:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def _repr_html_(self) -> str:
        facts = {
            "state": "closed" if self.closed else "running",
            "bootstrap_servers": self.bootstrap_servers,
            "data_dir": self._native.data_dir,
            "cluster_id": self.cluster_id,
        }
        return html_table(["broker", ""], items_table(facts))

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.bootstrap_servers
        return f"<ottla.Broker {state} at {self._native.data_dir}>"


def _listeners(port: int, listeners: str | None) -> str:
    """Return where a broker listens that was given a port."""
    if listeners is not None:
        raise ConfigError("pass either port= or listeners=, which names ports, too")
    if not 1 <= whole_number("port", port) <= _PORT_MAX:
        raise ConfigError(
            f"port={port}: a port is from 1 to {_PORT_MAX}; leave it out for a free one"
        )
    return f"PLAINTEXT://localhost:{port}"


def _refuse_another(settings: Mapping[str, str], name: str, value: str, argument: str) -> None:
    """Refuse another value of a setting that an argument has, too: one of them would not count."""
    known = settings.get(name)
    if known is not None and known != value:
        raise ConfigError(
            f"{argument} and config={{{name!r}: {known!r}}} are two values of one setting: leave "
            "one of them out"
        )


def _add_arguments(
    settings: dict[str, str], durability: Durability | None, tier: str | os.PathLike[str] | None
) -> None:
    """Set what arguments say that have names of their own."""
    if durability is not None:
        if durability not in _DURABILITIES:
            raise ConfigError(f"durability= must be one of {_DURABILITIES}, not {durability!r}")
        _set(settings, "durability", durability, f"durability={durability!r}")
    if tier is not None:
        argument = f"tier={os.fspath(tier)!r}"
        _set(settings, "remote.log.storage.system.enable", "true", argument)
        _set(settings, "ottla.tier.url", _location(tier), argument)


def _set(settings: dict[str, str], name: str, value: str, argument: str) -> None:
    """Set what an argument says."""
    _refuse_another(settings, name, value, argument)
    settings[name] = value


def _close(client: Any, limit: Limit) -> None:
    client.close(limit.left())


def _text(value: object) -> str:
    """Format a setting as in a ``server.properties`` file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return str(value)


def default_server() -> Server:
    """Return the broker for clients that name none; it lives until the interpreter exits."""
    global _default  # noqa: PLW0603
    if _default is None or _default.closed:
        _default = Server()
    return _default


_default: Server | None = None
