"""The embedded broker."""

from __future__ import annotations

import os
import warnings
import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ottla import _exit
from ottla._bounds import seconds
from ottla._client import Client
from ottla._embedded import Embedded
from ottla._ottla import Broker as _NativeBroker
from ottla._ottla import settle
from ottla.errors import ConfigError, StorageError

if TYPE_CHECKING:
    from datetime import timedelta
    from types import TracebackType

__all__ = ["Broker"]

_DURABILITIES = ("auto", "fsync", "os")


#: The brokers of this process by their directories.
_by_directory: weakref.WeakValueDictionary[str, Broker] = weakref.WeakValueDictionary()


def _real(path: str | os.PathLike[str]) -> str:
    return os.path.realpath(os.fspath(path))


def _running(path: str | os.PathLike[str]) -> Broker | None:
    """Return the broker of this process that has a directory open."""
    known = _by_directory.get(_real(path))
    if known is None or known.closed or not known._native.here:  # noqa: SLF001
        return None
    return known


class Broker:
    """A Kafka broker inside this process.

    Any Kafka client may connect to :attr:`bootstrap_servers`; :meth:`client` gives one that talks
    to the broker without a socket. It listens on the loopback interface unless told otherwise,
    and stops at the end of the ``with`` block, at :meth:`close`, or when the interpreter exits.

    Parameters
    ----------
    path : str or os.PathLike, optional
        The data directory; made when missing, locked while the broker runs. Without one the data
        lie in a temporary directory that is removed when the broker closes.
    durability : {"auto", "fsync", "os"}, optional
        When a record counts as written: "fsync" after it is on the disk, "os" once the operating
        system has it, "auto" (the default with a path) as ``acks=all`` and the number of replicas
        ask for. In a temporary directory it is "os".
    listeners : str, optional
        Kafka's ``listeners``, for example ``"PLAINTEXT://127.0.0.1:9092"``. The default is a free
        port of the loopback interface.
    config : mapping of str to object, optional
        Settings by Kafka's names, for example ``{"num.partitions": 4}``. An unknown name is
        refused with a suggestion. The defaults are Kafka's, but for
        ``group.initial.rebalance.delay.ms``, which is 0 here: groups begin at once.
    timeout : float or datetime.timedelta, default 60
        How long the start may take, in seconds; ``None`` for no limit.
    reuse : bool, default False
        Return the broker of this process that has the directory open, if there is one, instead of
        starting another: a notebook's cell may then run again. It is the same object, so that
        closing it closes it for all.

    Raises
    ------
    ConfigError
        When a setting is not known or not valid, or not that of the broker to reuse.
    StorageError
        When the directory is in use by another broker, was made by a newer version, or cannot be
        read or written.

    Notes
    -----
    Blocks until the broker serves, without the GIL. A broker does not cross ``os.fork()``: a child
    connects to :attr:`bootstrap_servers` instead, which the clients of :meth:`client` do by
    themselves.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.create_topic("greetings")
    ...     offset = kafka.send("greetings", b"hello").offset
    >>> offset
    0
    """

    _native: _NativeBroker

    def __new__(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        reuse: bool = False,
        **_options: Any,
    ) -> Broker:
        """Return a broker that is to be started, or the one that is to be reused."""
        if not reuse:
            return super().__new__(cls)
        if path is None:
            raise ConfigError("reuse=True goes with a path: without one each broker has its own")
        return _running(path) or super().__new__(cls)

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        durability: str | None = None,
        listeners: str | None = None,
        config: Mapping[str, object] | None = None,
        timeout: float | timedelta | None = 60.0,
        reuse: bool = False,
    ) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"config= must be a mapping of names to values, not {config!r}")
        settings = {name: _text(value) for name, value in (config or {}).items()}
        if durability is not None:
            if durability not in _DURABILITIES:
                raise ConfigError(f"durability={durability!r} is none of {_DURABILITIES}")
            settings["durability"] = durability
        if reuse and hasattr(self, "_native"):
            self._compare(settings, listeners)
            return
        self._given = (dict(settings), listeners)
        # Who is in one process does not start a whole fleet at once.
        settings.setdefault("group.initial.rebalance.delay.ms", "0")
        directory = None if path is None else os.fspath(path)
        try:
            self._native = _NativeBroker(directory, listeners, settings, seconds(timeout))
        except StorageError as error:
            running = None if path is None else _running(path)
            if running is None:
                raise
            raise StorageError(
                f"{directory} is open in this process already, by the broker at "
                f"{running.bootstrap_servers}: pass reuse=True to get that one, or close it first"
            ) from error
        if path is not None:
            _by_directory[_real(path)] = self
        self._clients: weakref.WeakSet[Client] = weakref.WeakSet()
        self._embedded = Embedded(self.bootstrap_servers)
        _exit.register(self)

    def _compare(self, settings: Mapping[str, str], listeners: str | None) -> None:
        """Refuse to be reused with other settings than those that it was started with."""
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
        """The id of the cluster; it stays with the data directory."""
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

    def client(self, **options: Any) -> Client:
        """Return a client of this broker that uses no socket.

        Parameters
        ----------
        **options
            The keyword arguments of :func:`ottla.connect`.

        Returns
        -------
        Client
            A client. It ends with the broker: what is not sent yet is flushed first. It keeps the
            broker alive.
        """
        client = Client._in_process(self, self._native, options)  # noqa: SLF001
        self._clients.add(client)
        return client

    def close(self, timeout: float | timedelta | None = 60.0) -> None:
        """Flush the clients, answer open requests, write everything to the disk and stop.

        Batches and dataframes that were read from the broker stay valid. A second call does
        nothing.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 60
            How long it may take, in seconds; ``None`` for no limit.
        """
        try:
            with ExitStack() as clients:
                for client in list(self._clients):
                    clients.callback(client.close, timeout)
            settle(seconds(timeout))
        finally:
            self._embedded.end()
            self._native.close(seconds(timeout))

    def __enter__(self) -> Broker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        native = getattr(self, "_native", None)
        if native is not None and not native.closed and native.here:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.bootstrap_servers
        return f"<ottla.Broker {state} at {self._native.data_dir}>"


def _text(value: object) -> str:
    """Write a setting as it stands in a ``server.properties`` file."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value)
    return str(value)
