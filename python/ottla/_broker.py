"""The embedded broker, as users see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla._arguments import one_class, takes_items
from ottla._client import Client
from ottla._server import Server
from ottla.typing import ClientOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Broker"]


@one_class
class Broker(Server):
    """A Kafka broker inside this process.

    Any Kafka client can connect to :attr:`bootstrap_servers`; :meth:`client` returns one that talks
    to the broker without a socket. It listens on the loopback interface unless told otherwise, and
    stops at the end of the ``with`` block, at :meth:`close`, or when the interpreter exits.

    Parameters
    ----------
    path : str or os.PathLike, optional
        The data directory; created when missing, locked while the broker runs. Without one, the
        data is kept in a temporary directory that is removed when the broker closes.
    durability : {"auto", "fsync", "os"}, optional
        When a record counts as written: "fsync" once it is on disk, "os" once the operating system
        has it, "auto" (the default with a path) as ``acks=all`` and the number of replicas require.
        For a temporary directory it is "os".
    tier : str or os.PathLike, optional
        A folder, its ``file://`` URL, or a prefix in a bucket (``s3://``, ``gs://``, ``az://``; the
        credentials come from the environment), for the closed segments of topics with
        ``remote.storage.enable=true``: they become Parquet files there, which consumers read
        through the broker and every other program as they are. How long segments stay in the data
        directory as well is said by ``local.retention.ms`` and ``local.retention.bytes``.
    listeners : str, optional
        Kafka's ``listeners``, for example ``"PLAINTEXT://127.0.0.1:9092"``. The default is a free
        port of the loopback interface.
    port : int, optional
        A port of the loopback interface, instead of ``listeners``: ``Broker(port=9092)``.
    config : mapping of str to object, optional
        Settings by Kafka's names, for example ``{"num.partitions": 4}``. An unknown name is
        refused with a suggestion. Nearly all defaults are Kafka's, but
        ``group.initial.rebalance.delay.ms`` and ``group.consumer.assignment.interval.ms`` are 0
        here: groups start without a delay.
    timeout : float or datetime.timedelta, default 60
        How long the start may take, in seconds; ``None`` for no limit.
    reuse : bool, default False
        Return the broker of this process that has the directory open, if there is one, instead of
        starting another, so that a notebook cell can be run again. It is the same object, so
        closing it closes it for every user.

    Raises
    ------
    ConfigError
        When a setting is unknown or not valid, differs from that of the broker to reuse, or has one
        value as an argument and another one in ``config``.
    StorageError
        When the directory is in use by another broker, was written by a newer version, or cannot be
        read or written.

    Notes
    -----
    Blocks until the broker accepts requests; releases the GIL. A broker does not survive
    ``os.fork()`` in the child, which connects to :attr:`bootstrap_servers` instead; the clients of
    :meth:`client` do this by themselves.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.create_topic("greetings")
    ...     offset = kafka.send("greetings", b"hello").offset
    >>> offset
    0

    Any Kafka client reaches it by its address until it is closed:

    >>> broker = ottla.Broker()
    >>> broker.bootstrap_servers.startswith("127.0.0.1:"), broker.cluster_id is None
    (True, False)
    >>> broker.data_dir.is_dir(), broker.closed
    (True, False)
    >>> broker.close()
    >>> broker.closed
    True
    """

    @takes_items(ClientOptions)
    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """Return a client of this broker that uses no socket.

        Parameters
        ----------
        **options
            The keyword arguments of :func:`ottla.connect`.

        Returns
        -------
        Client
            A client. It closes with the broker, after flushing what has not been sent. It keeps the
            broker alive.
        """
        return Client._of_server(self, **options)  # noqa: SLF001
