"""Topics: creating and deleting them, and each as an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ottla import _frames, _progress
from ottla._admin import Administration
from ottla._aio import in_thread
from ottla._arguments import same_for_topic, whole_number
from ottla._bounds import Limit, row_count, seconds
from ottla._names import topic_name
from ottla._scanning import Scanning
from ottla._settings import setting_text, topic_settings
from ottla._tabling import Tabling
from ottla._tier import TopicTier
from ottla._watching import TopicWatch
from ottla._windowing import Windowing
from ottla._writing import Writing
from ottla.errors import (
    ConfigError,
    KafkaError,
    TimeoutError,
    TopicExistsError,
    UnknownTopicError,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import timedelta

    from ottla._connection import Timeout
    from ottla._ottla import RecordBatch
    from ottla._scan import Scan
    from ottla._topic_table import Table
    from ottla._windows import Windows
    from ottla.formats import Format
    from ottla.typing import FormatName

__all__ = ["Topic", "Topics"]

#: How long a call that has run out of time asks what was in its way, in seconds.
_OBSTACLES_SECONDS = 5.0


class Topic:
    """A topic of a cluster; ``client["orders"]``.

    Holds only the name: each call asks the cluster. In a notebook it displays its partitions,
    offsets, size and settings.

    Examples
    --------
    >>> import ottla
    >>> with ottla.Broker() as broker:
    ...     kafka = broker.client()
    ...     _ = kafka.send("words", "one")
    ...     kafka["words"].head(value=ottla.text())["value"].to_pylist()
    ['one']

    What a client does with a topic, this does without its name:

    >>> with ottla.Broker() as broker:
    ...     orders = broker.client().create_topic("orders", partitions=2)
    ...     orders.num_partitions, orders.describe()["partitions"][0]["end"]
    ...     orders.write([{"id": 1}, {"id": 2}], key="id", partition=0)
    ...     orders.scan(value="json").count(), orders.tail(1, value="json")["id"].to_pylist()
    ...     orders.table(key="text", value="json").to_polars()["id"].sort().to_list()
    ...     len(list(orders.windows("1m")))
    ...     orders.alter_config(retention_ms=60_000)
    ...     orders.config["retention.ms"]
    ...     orders.delete()
    (2, 0)
    2
    (2, [2])
    [1, 2]
    0
    '60000'

    With a tier, what was written becomes Parquet files, at once if somebody asks for it:

    >>> import asyncio, tempfile
    >>> with tempfile.TemporaryDirectory() as folder, ottla.Broker(tier=folder) as broker:
    ...     orders = broker.client().create_topic("orders", config={"remote.storage.enable": True})
    ...     orders.write([{"id": 1}, {"id": 2}])
    ...     asyncio.run(orders.offload_async()), orders.tier.records
    2
    ({0: 2}, 2)
    """

    def __init__(self, client: Topics, name: str) -> None:
        self._client = client
        self.name = name

    def describe(self, *, timeout: Timeout = 30.0) -> dict[str, Any]:
        """Describe the topic.

        Parameters
        ----------
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        dict
            ``name``, ``topic_id``, ``internal``, and ``partitions``: a list of dictionaries with
            ``partition``, ``leader``, ``leader_epoch``, ``replicas``, ``isr``, ``start`` and
            ``end`` (offsets, the end exclusive), and ``size_bytes`` (None where the cluster does
            not report it).

        Raises
        ------
        UnknownTopicError
            When there is no such topic.
        """
        native = self._client._admin  # noqa: SLF001
        limit = Limit(timeout)
        described = native.describe_topic(self.name, limit.left())
        start = native.list_offsets(self.name, ("earliest", None), limit.left())
        end = native.list_offsets(self.name, ("latest", None), limit.left())
        sizes = native.log_sizes(self.name, limit.left())
        for partition in described["partitions"]:
            number = partition["partition"]
            partition["start"] = start.get(number)
            partition["end"] = end.get(number)
            partition["size_bytes"] = sizes.get(number)
        return described

    @property
    def config(self) -> dict[str, str | None]:
        """The settings of the topic by Kafka's names."""
        return {name: entry["value"] for name, entry in self._client.configs(self.name).items()}

    def alter_config(self, **changes: object) -> None:
        """Change settings: ``topic.alter_config(retention_ms=60_000)``; ``None`` resets one."""
        self._client.alter_configs(self.name, changes)

    @property
    def num_partitions(self) -> int:
        """The number of partitions."""
        native = self._client._admin  # noqa: SLF001
        return len(native.describe_topic(self.name, 30.0)["partitions"])

    def head(
        self,
        n: int = 5,
        *,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RecordBatch:
        """Return the first ``n`` records, in the order of the partitions.

        Parameters
        ----------
        n : int, default 5
            How many rows.
        value : Format, str or mapping, optional
            How values become columns.
        **options
            The other keyword arguments of ``client.scan``.
        """
        return self.scan(value=value, **options).head(n)

    def tail(
        self,
        n: int = 5,
        *,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        **options: Any,
    ) -> RecordBatch:
        """Return the newest ``n`` records by timestamp, newest last.

        Parameters
        ----------
        n : int, default 5
            How many rows. Up to ``n`` records of each partition are read.
        value : Format, str or mapping, optional
            How values become columns.
        **options
            The other keyword arguments of ``client.scan``.
        """
        n = row_count(n)
        start, end = self._client.offsets(self.name, "earliest"), self._client.offsets(self.name)
        first = {
            partition: max(start.get(partition, 0), last - n) for partition, last in end.items()
        }
        scan = self.scan(start=first, end=end, value=value, **options)
        return scan._native.collect_tail(n)  # noqa: SLF001

    @same_for_topic(Scanning.scan)
    def scan(self, *arguments: Any, **options: Any) -> Scan:
        """Scan the topic; takes the arguments of ``client.scan`` except the topic."""
        return self._client.scan(self.name, *arguments, **options)

    @same_for_topic(Tabling.table)
    def table(self, **options: Any) -> Table:
        """Return the latest row of each key; takes the arguments of ``client.table``."""
        return self._client.table(self.name, **options)

    @same_for_topic(Windowing.windows)
    def windows(self, *arguments: Any, **options: Any) -> Windows:
        """Return the closed windows; takes the arguments of ``client.windows``."""
        return self._client.windows(self.name, *arguments, **options)

    def watch(
        self,
        *,
        rows: int = 10,
        every: float | timedelta = 2.0,
        value: Format | FormatName | Mapping[str, Any] | None = None,
        groups: Iterable[str] | None = None,
    ) -> TopicWatch:
        """Show the newest records, the rate and the lag of groups in a notebook, live.

        It is live with anywidget (``pip install "ottla[widget]"``); without it, the HTML is of the
        moment when it is shown. The cluster is asked only while a page in a browser shows it.

        Parameters
        ----------
        rows : int, default 10
            How many records to show, at most 100. At most so many are read of a partition at once.
        every : float or datetime.timedelta, default 2
            How often to ask, in seconds.
        value : Format, str or mapping, optional
            How values become columns, as for ``client.scan``; of a value that cannot be decoded it
            shows the error and the bytes.
        groups : iterable of str, optional
            The groups whose lag to show, at most 10. By default those that have offsets of the
            topic; pass an empty list for none.

        Returns
        -------
        TopicWatch
            The last line of a cell shows it; ``close()`` ends it.

        Examples
        --------
        >>> import ottla
        >>> with ottla.Broker() as broker:
        ...     kafka = broker.client()
        ...     _ = kafka.send("words", "one")
        ...     with kafka["words"].watch(rows=5) as watch:
        ...         watch
        <ottla.TopicWatch words: 1 records>
        """
        return TopicWatch(
            self._client, self.name, rows=rows, every=every, value=value, groups=groups
        )

    @same_for_topic(Writing.write)
    def write(self, data: Any, **options: Any) -> int:
        """Write a table; takes the arguments of ``client.write`` except the topic."""
        return self._client.write(self.name, data, **options)

    @property
    def tier(self) -> TopicTier:
        """What the tier has of the topic, and how far the copy is behind.

        Asks the leaders of its partitions. Works with every cluster that has tiered storage
        (KIP-405); only brokers of ottla tell how many files and bytes there are.
        """
        described = self._client._admin.tier(self.name, 30.0)  # noqa: SLF001
        return TopicTier._of(self.name, described)  # noqa: SLF001

    def offload(
        self, *, wait: bool = True, timeout: Timeout = 600.0, progress: Any = False
    ) -> dict[int, int]:
        """Have the tier take everything that was written so far.

        The active segments are closed, whatever their age and size, copied, compared and
        committed as others are: one file for each partition, or a few. What is written meanwhile
        waits for its own segment to be closed. A segment is copied when all of it is stable: one
        with records of an open transaction, when the transaction ends.

        Needs a broker of ottla, in this process or not, and permission to alter the cluster.

        Parameters
        ----------
        wait : bool, default True
            Whether to return when everything is in the tier, or once the brokers know.
        timeout : float or datetime.timedelta, default 600
            How long to wait, in seconds. The copy goes on afterwards.
        progress : bool or object, default False
            Show progress; see ``client.write``.

        Returns
        -------
        dict of int to int
            By partition, the offset before which everything is, or will be, in the tier: the last
            stable offset as of the call.

        Raises
        ------
        ConfigError
            When the topic has no tier, or nothing is copied there (``remote.log.copy.disable``).
        NotSupportedError
            When the brokers are not ottla's.
        TimeoutError
            When something is not in the tier in time. It says what, and what is in the way: a
            store that does not answer, or an open transaction.

        Examples
        --------
        >>> import ottla, tempfile
        >>> with tempfile.TemporaryDirectory() as folder, ottla.Broker(tier=folder) as broker:
        ...     kafka = broker.client()
        ...     orders = kafka.create_topic("orders", config={"remote.storage.enable": True})
        ...     _ = orders.write([{"id": 1}, {"id": 2}])
        ...     orders.offload(), orders.tier.files
        ({0: 2}, 1)
        """
        native, limit = self._client._admin, Limit(timeout)  # noqa: SLF001
        offsets = native.offload(self.name, limit.left())
        ends = {partition: end for partition, (_, end) in offsets.items()}
        if not wait:
            return ends
        total = sum(end - start for start, end in offsets.values())
        shown = _progress.start(progress, total, f"offload {self.name}")
        update = None if progress is False else shown.update
        try:
            native.await_offload(self.name, offsets, update, limit.left())
        except TimeoutError as error:
            raise self._not_offloaded(error, offsets) from None
        finally:
            shown.close()
        return ends

    offload_async = in_thread(offload)

    def _not_offloaded(
        self, error: TimeoutError, offsets: dict[int, tuple[int, int]]
    ) -> TimeoutError:
        """Return the error of a wait that has run out of time, with what was in its way."""
        native = self._client._admin  # noqa: SLF001
        try:
            obstacles = native.offload_obstacles(self.name, offsets, _OBSTACLES_SECONDS)
        except KafkaError as unknown:
            obstacles = [f"the brokers do not say what: {unknown}"]
        if not obstacles:
            return error
        text = f"{error}; not in the tier yet: {'; '.join(obstacles)}"
        return TimeoutError(text, code=error.code, name=error.name, retriable=error.retriable)

    def delete(self, *, missing_ok: bool = False) -> None:
        """Delete the topic and all its records."""
        self._client.delete_topic(self.name, missing_ok=missing_ok)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topic) and (self.name, self._client) == (
            other.name,
            other._client,
        )

    def __hash__(self) -> int:
        return hash((self.name, id(self._client)))

    def __repr__(self) -> str:
        return f"<ottla.Topic {self.name}>"

    def _repr_html_(self) -> str:
        described = self.describe()
        partitions = described["partitions"]
        records = sum((one["end"] or 0) - (one["start"] or 0) for one in partitions)
        sizes = [one["size_bytes"] for one in partitions if one["size_bytes"] is not None]
        caption = f"Topic {self.name}: {records:,} records, {_frames.size(sum(sizes))}"
        names = ["partition", "leader", "replicas", "isr", "start", "end", "size"]
        rows = [
            [
                one["partition"],
                one["leader"],
                one["replicas"],
                one["isr"],
                one["start"],
                one["end"],
                None if one["size_bytes"] is None else _frames.size(one["size_bytes"]),
            ]
            for one in partitions
        ]
        settings = [
            [name, entry["value"]]
            for name, entry in self._client.configs(self.name).items()
            if not entry["is_default"]
        ]
        picture = _frames.html_table(names, rows, caption)
        if settings:
            picture += _frames.html_table(["setting", "value"], settings)
        return picture


class Topics(Administration, Tabling, Windowing, Writing):
    """The part of a :class:`Client` that creates, lists and deletes topics."""

    def create_topic(
        self,
        topic: str,
        partitions: int | None = None,
        replication_factor: int | None = None,
        *,
        config: Mapping[str, object] | None = None,
        assignment: Mapping[int, Sequence[int]] | None = None,
        exist_ok: bool = False,
        validate_only: bool = False,
        timeout: Timeout = 30.0,
    ) -> Topic:
        """Create a topic.

        Parameters
        ----------
        topic : str
            The name: letters, digits, ``.``, ``_`` and ``-``, at most 249 of them.
        partitions : int, optional
            The number of partitions; the broker's ``num.partitions`` by default.
        replication_factor : int, optional
            The number of copies; the broker's ``default.replication.factor`` by default.
        config : mapping of str to object, optional
            Topic settings by Kafka's names, for example ``{"retention.ms": -1}``, which may also be
            written ``retention_ms``. By default a topic deletes records whose timestamps are older
            than 7 days: for older data set ``retention.ms`` to -1.
        assignment : mapping of int to sequence of int, optional
            The brokers of each partition, instead of the two numbers above.
        exist_ok : bool, default False
            Whether to succeed when the topic already exists (whatever its settings are).
        validate_only : bool, default False
            Only check whether the topic could be created.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Returns
        -------
        Topic
            The topic.

        Raises
        ------
        TopicExistsError
            When there is a topic of that name and ``exist_ok`` is false.
        ConfigError
            When the name, a number or a setting is not valid.
        """
        if replication_factor is not None:
            replication_factor = whole_number("replication_factor", replication_factor)
        if partitions is not None and whole_number("partitions", partitions) < 1:
            raise ConfigError(
                f"partitions={partitions}: a topic has at least one partition. Omit the argument "
                "to use the broker's num.partitions"
            )
        settings = {name: setting_text(value) for name, value in topic_settings(config).items()}
        placement = {
            int(partition): [int(node) for node in nodes]
            for partition, nodes in (assignment or {}).items()
        }
        try:
            self._admin.create_topic(
                topic_name(topic),
                partitions,
                replication_factor,
                placement,
                settings,
                validate_only,
                seconds(timeout),
            )
        except TopicExistsError:
            if not exist_ok:
                raise
        return Topic(self, topic)

    def delete_topic(
        self, topic: str, *, missing_ok: bool = False, timeout: Timeout = 30.0
    ) -> None:
        """Delete a topic and all its records.

        Parameters
        ----------
        topic : str
            The name.
        missing_ok : bool, default False
            Whether to succeed when there is no such topic.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.

        Raises
        ------
        UnknownTopicError
            When there is no such topic and ``missing_ok`` is false.
        """
        try:
            self._admin.delete_topic(topic_name(topic), seconds(timeout))
        except UnknownTopicError:
            if not missing_ok:
                raise

    def create_partitions(self, topic: str, total: int, *, timeout: Timeout = 30.0) -> None:
        """Raise the number of partitions of a topic to ``total``.

        Existing records stay in their partitions; new records of a key may go to a different
        partition than before.

        Parameters
        ----------
        topic : str
            The name.
        total : int
            The new number of partitions, higher than the current one.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        self._admin.create_partitions(topic_name(topic), total, seconds(timeout))

    def topics(self, *, internal: bool = False, timeout: Timeout = 30.0) -> list[str]:
        """Return the names of the topics, sorted.

        Parameters
        ----------
        internal : bool, default False
            Whether to include the cluster's internal topics.
        timeout : float or datetime.timedelta, default 30
            How long to wait, in seconds.
        """
        return self._admin.topics(internal, seconds(timeout))

    create_topic_async = in_thread(create_topic)
    delete_topic_async = in_thread(delete_topic)
    create_partitions_async = in_thread(create_partitions)
    topics_async = in_thread(topics)

    def __getitem__(self, topic: str) -> Topic:
        """Return the topic object for a name, without a request to the cluster."""
        if not isinstance(topic, str):
            raise TypeError(f"the name of a topic must be a str, not {type(topic).__name__}")
        return Topic(self, topic)

    def __contains__(self, topic: object) -> bool:
        return topic in self.topics(internal=True)

    def __iter__(self) -> Iterator[str]:
        return iter(self.topics())
