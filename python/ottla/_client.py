"""The client: its parts together, and ``connect``, which makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ottla._arguments import one_class, takes_items
from ottla._consumer import Consuming
from ottla._topic import Topics
from ottla._transactions import Transacting
from ottla.typing import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from typing_extensions import Unpack

__all__ = ["Client", "connect"]


@one_class
class Client(Topics, Consuming, Transacting):
    """A client of a Kafka cluster; made by :func:`ottla.connect` or ``broker.client()``.

    Thread-safe. Closes at the end of a ``with`` block, at :meth:`close`, or at the exit of the
    interpreter, after all that was sent has been acknowledged. After ``os.fork()`` the child's
    copy makes its own connections.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = ottla.connect(broker.bootstrap_servers)
    ...     orders = kafka.create_topic("orders", partitions=2)
    ...     sent = [kafka.send_async("orders", f"{number}", partition=0) for number in range(5)]
    ...     kafka.flush()  # everything that was sent is acknowledged now
    ...     kafka.topics(), kafka.offsets("orders"), kafka.offsets("orders", "earliest")
    ...     kafka.delete_records("orders", before={0: 2})
    ...     kafka.create_partitions("orders", 3)
    ...     kafka.alter_configs("orders", {"retention.ms": 60_000})
    ...     kafka.configs("orders")["retention.ms"]["value"]
    ...     kafka.groups.list()
    ...     kafka.delete_topic("orders")
    ...     kafka.close()
    ...     kafka.bootstrap_servers == broker.bootstrap_servers, kafka.closed
    (['orders'], {0: 5, 1: 0}, {0: 0, 1: 0})
    {0: 2}
    '60000'
    []
    (True, True)

    In asyncio, what blocks has a twin that does not:

    >>> import asyncio
    >>> async def twins(kafka):
    ...     await kafka.create_topic_async("orders", partitions=1)
    ...     await kafka.write_async("orders", [{"id": 1}, {"id": 2}])
    ...     await kafka.create_partitions_async("orders", 2)
    ...     await kafka.alter_configs_async("orders", {"retention.ms": 60_000})
    ...     print((await kafka.configs_async("orders"))["retention.ms"]["value"])
    ...     print(await kafka.topics_async(), await kafka.offsets_async("orders", "earliest"))
    ...     async for batch in await kafka.scan_async("orders", value="json", partitions=[0]):
    ...         print(batch["id"].to_pylist())
    ...     print(await kafka.delete_records_async("orders", {0: 1}))
    ...     print((await kafka.cluster_async()).leaders)
    ...     await kafka.delete_topic_async("orders")
    >>> with ottla.Broker() as broker, broker.client() as kafka:
    ...     asyncio.run(twins(kafka))
    60000
    ['orders'] {0: 0, 1: 0}
    [1, 2]
    {0: 1}
    {1: 2}
    """


@takes_items(Settings)
def connect(
    bootstrap_servers: str | Sequence[str] | None = None,
    *,
    client_id: str | None = None,
    config: Mapping[str, object] | None = None,
    **options: Unpack[Settings],
) -> Client:
    """Return a client of a Kafka cluster: of ottla or Apache Kafka, the code is the same.

    Parameters
    ----------
    bootstrap_servers : str or sequence of str, optional
        One or more addresses ``host:port``, separated by commas. Without any, the client talks to
        a broker in this process, which lives in memory until the interpreter exits and is shared by
        all such calls.
    client_id : str, optional
        The name that brokers log for this client.
    config : mapping of str to object, optional
        Settings by Kafka's names, for example ``{"metadata.max.age.ms": 60_000}``.
    **options
        The same settings as keyword arguments, named as in kafka-python and aiokafka: ``linger_ms``
        for ``linger.ms``, ``acks``, ``compression_type``, ``request_timeout_ms`` … One is ottla's
        own: ``threads``, from 1 to 256, is how many threads decode, encode and compress for each
        scan, consumer or ``write``; by default one for each processor that the process may use.

    Returns
    -------
    Client
        A client. It connects when it is first used; network errors are raised then.

    Raises
    ------
    ConfigError
        When a setting is not known (with a suggestion) or not valid.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = ottla.connect(broker.bootstrap_servers, linger_ms=5)
    ...     kafka.topics()
    ...     kafka.close()
    []
    """
    return Client._open(bootstrap_servers, client_id=client_id, config=config, **options)  # noqa: SLF001
