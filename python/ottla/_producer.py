"""A separate producer class, for users who expect one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla._arguments import same_as, takes_items
from ottla._client import Client, connect
from ottla._closing import Closing
from ottla._writing import Writing
from ottla.typing import ClientOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from typing_extensions import Unpack

    from ottla._ottla import Pending
    from ottla._records import Headers, Key
    from ottla.formats import Format
    from ottla.typing import FormatName

__all__ = ["Producer"]


class Producer(Closing):
    """Sends records to a cluster: the sending half of a :class:`Client`.

    Parameters
    ----------
    bootstrap_servers : str, sequence of str, or Client, optional
        The addresses, or a client to send through; see :func:`ottla.connect`.
    **options
        The other arguments of :func:`ottla.connect`: ``acks``, ``linger_ms``,
        ``compression_type``, ``enable_idempotence`` …

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     with ottla.Producer(broker.bootstrap_servers, linger_ms=0) as producer:
    ...         pending = producer.send("greetings", "hello", key="en")
    ...         producer.flush()
    ...         pending.result().offset
    0

    >>> with ottla.Broker() as broker:
    ...     producer = ottla.Producer(broker.bootstrap_servers)
    ...     written = producer.write("numbers", [{"n": 1}, {"n": 2}])
    ...     producer.close()
    >>> written
    2
    """

    @takes_items(ClientOptions)
    def __init__(
        self,
        bootstrap_servers: str | Sequence[str] | Client | None = None,
        **options: Unpack[ClientOptions],
    ) -> None:
        self._own = not isinstance(bootstrap_servers, Client)
        if isinstance(bootstrap_servers, Client):
            if options:
                raise TypeError(
                    "a producer that sends through a client uses that client's settings"
                )
            self._client = bootstrap_servers
        else:
            self._client = connect(bootstrap_servers, **options)

    def send(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Key = None,
        partition: int | None = None,
        timestamp: datetime | str | None = None,
        headers: Headers = None,
        value_format: Format | FormatName | None = None,
    ) -> Pending:
        """Send one record without waiting; see ``client.send_async``.

        Of ``timestamp``, milliseconds are kept, rounded down.
        """
        return self._client.send_async(
            topic,
            value,
            key=key,
            partition=partition,
            timestamp=timestamp,
            headers=headers,
            value_format=value_format,
        )

    @same_as(Writing.write)
    def write(self, topic: str, data: Any, **options: Any) -> int:
        """Write a table and wait for it; see ``client.write``.

        Of the column ``timestamp``, milliseconds are kept, rounded down.
        """
        return self._client.write(topic, data, **options)

    def flush(self, timeout: float | timedelta | None = None) -> None:
        """Wait until everything sent has been acknowledged or has failed."""
        self._client.flush(timeout)

    def close(self, timeout: float | timedelta | None = 60.0) -> None:
        """Flush and close; a client that was passed in stays open."""
        if self._own:
            self._client.close(timeout)
        elif not self._client.closed:
            self._client.flush(timeout)

    def __repr__(self) -> str:
        return f"<ottla.Producer {self._client.bootstrap_servers}>"
